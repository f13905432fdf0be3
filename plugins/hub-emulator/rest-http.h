/* The HTTPS server of the hub: libmicrohttpd under sd-event. Calls go to rest_dispatch(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "authorize.h"
#include "plugin.h"
#include "registry.h"

struct rest_http;

/* Accepts on the inherited socket `https`. PEM texts. @registry and @authority are borrowed. */
int rest_http_new(struct plugin *plugin, const char *chain_pem, const char *key_pem,
                  struct registry *registry, const struct authority *authority,
                  struct rest_http **ret);
struct rest_http *rest_http_free(struct rest_http *http);
DEFINE_FREEP(struct rest_http, rest_http_free)

/* Resets every connection, and each new one; until it is online again. */
void rest_http_set_offline(struct rest_http *http, bool offline);

struct rest_http_counters {
    uint64_t connections; /* open now */
    uint64_t requests;
    uint64_t bytes_in, bytes_out; /* of closed connections, TLS included */
};
const struct rest_http_counters *rest_http_counters(const struct rest_http *http);
