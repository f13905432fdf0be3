/* The verdict on a client: pure, given the scope, the time and what the client presented
 * (identity.md §2.3, §10). */
#pragma once

#include <stdint.h>

#include "client-certificate.h"
#include "scope.h"
#include "span.h"

enum auth_reason {
    AUTH_ACCEPTED,
    AUTH_NO_CREDENTIALS,
    AUTH_TOKEN_MALFORMED,
    AUTH_TOKEN_EXPIRED,
    AUTH_UNKNOWN_IDENTITY,
    AUTH_DISABLED,
    AUTH_NOT_BY_TOKEN,       /* registered for certificates */
    AUTH_NOT_BY_CERTIFICATE, /* registered for tokens, or a module */
    AUTH_WRONG_KEY,
    AUTH_WRONG_AUDIENCE,
    AUTH_CERTIFICATE_MALFORMED,
    AUTH_CERTIFICATE_DATES,
    AUTH_CERTIFICATE_THUMBPRINT,
    AUTH_CERTIFICATE_NAME,
    AUTH_CERTIFICATE_PURPOSE,
    AUTH_CERTIFICATE_UNTRUSTED,
    AUTH_NO_SCOPE_YET, /* there is no data to decide by */
    AUTH_NOT_ASKED,    /* the hub would have to be asked first, and too many wait for it */
    _AUTH_REASON_COUNT,
};

/* What a client says of itself. Borrowed. */
struct auth_client {
    const char *device_id;
    const char *module_id; /* NULL or "": a device */
    struct span token;     /* len 0: none; it decides when there is a certificate as well */
    const struct span *certificates; /* DER, leaf first */
    size_t certificate_count;
};

/* What holds for all of them. Borrowed. */
struct auth_rules {
    const char *hub_hostname; /* either name may stand in a token's audience */
    const char *gateway_hostname;
    const struct client_trust *trust; /* NULL: no authority is trusted */
};

struct auth_verdict {
    enum auth_reason reason;
    int64_t expires_sec; /* UTC seconds, when accepted: of the token or certificate */
};

/* @scope NULL: AUTH_NO_SCOPE_YET for whoever else would be looked up. */
struct auth_verdict authenticate(const struct auth_rules *rules, const struct scope *scope,
                                 const struct auth_client *client, int64_t now_sec);

/* For the log. A client learns none of it: unknown, wrong and disabled look the same from outside
 * (T17). */
const char *auth_reason_text(enum auth_reason reason);

/* The hub may have changed its mind since: it is worth asking again before refusing. */
bool auth_reason_is_perhaps_stale(enum auth_reason reason);
