/*
 * What this process is: the gateway's keys, the scope it cached from the hub, and the verdicts,
 * tokens and certificates that come of them. It answers from memory and disk; the hub is asked in
 * the background, and for a login that would be refused.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "authenticate.h"
#include "bus.h"
#include "certificates.h"
#include "config.h"

/* The settings. const once read. */
struct identity_config {
    char *connection_string;
    char *connection_string_file;
    char *edge_ca_cert;
    char *edge_ca_key;
    char *upstream_ca_file;
    char *client_ca_file;
    char **server_names;
    uint64_t upstream_port;
    uint64_t scope_refresh_sec;
    uint64_t scope_refresh_min_sec;
    uint64_t certificate_days;
};
extern const struct config_item identity_config_items[];
int identity_config_check(struct config_document *d, const void *settings,
                          struct config_error *ret_error);

/* Where it runs. Borrowed while identity_new() runs. */
struct identity_place {
    sd_event *event;
    const char *state_dir;
    const char *hostname; /* of the gateway */
    /* NULL: https, the hub of the connection string, the port of the settings. */
    const char *hub_url;
    uint64_t retry_min_usec; /* towards the hub; 0: a second */
};

struct identity_status {
    uint64_t identities;
    int64_t scope_refreshed_sec;
    const char *last_error; /* of the hub, "" when there is none; borrowed */
};

struct identity_ops {
    void (*on_scope_changed)(uint64_t version, void *userdata);
    void (*on_certificate_changed)(uint64_t version, void *userdata);
    void (*on_status)(const struct identity_status *status, void *userdata);
};

struct identity;

/* @config is borrowed for the life of the object. -EINVAL with the reason logged, or -errno. */
int identity_new(const struct identity_place *place, const struct identity_config *config,
                 const struct identity_ops *ops, void *userdata, struct identity **ret);
struct identity *identity_free(struct identity *identity);
DEFINE_FREEP(struct identity, identity_free)

/* Runs once, at once or later; @verdict NULL: the process ends without one. */
typedef void identity_verdict_fn(const struct auth_verdict *verdict, void *userdata);
/* @recheck: of a client that is connected: the hub is not asked. */
void identity_authenticate(struct identity *identity, const struct auth_client *client,
                           bool recheck, identity_verdict_fn *fn, void *userdata);

/* A token of `$edgeHub`. Borrowed until the next. */
struct identity_token {
    const char *text;
    int64_t expires_sec;
};
enum { IDENTITY_E_NO_KEY = 1 }; /* the hub does not have our key for `$edgeHub` yet */
int identity_token(struct identity *identity, struct identity_token *ret);
const char *identity_hub_hostname(const struct identity *identity);
const char *identity_device_id(const struct identity *identity);

/* How we may act for it upstream; the caller frees *ret_chain. @ret_generation is borrowed. */
enum { IDENTITY_E_NO_CHAIN = 1, IDENTITY_E_NO_SCOPE };
int identity_chain(const struct identity *identity, const char *device_id, const char *module_id,
                   char **ret_chain, const char **ret_generation);

/* The upstream refused it: look again in the hub. @fn runs once, at once or later, with 0: it was
 * looked at, or was a moment ago; -EHOSTUNREACH, -EBUSY; -ECANCELED: the process ends. */
typedef void identity_refreshed_fn(int result, void *userdata);
void identity_refresh(struct identity *identity, const char *device_id, const char *module_id,
                      identity_refreshed_fn *fn, void *userdata);

/* NULL: there is none, and why is logged. */
const struct server_certificate *identity_certificate(const struct identity *identity);

/* What the upstream announces: when it reaches the hub again, so may we. */
void identity_on_upstream(struct identity *identity, bool connected);

struct identity_status identity_status(const struct identity *identity);

/* identity-bus.c; the userdata is the struct identity, and of the announcements the struct plugin.
 */
extern const struct bus_handler identity_handlers[];
extern const struct identity_ops identity_announcements;
int identity_follow_upstream(struct identity *identity, struct bus *bus);
