/*
 * Who may do what in the hub: service policies, devices and modules by their keys, and an edge's $edgeHub for what is in
 * its scope (amqp.md §15.2, identity.md §11). Pure: looks at the registry and the clock it is given.
 */
#pragma once

#include <stdint.h>

#include "registry.h"
#include "sas.h"
#include "span.h"

enum {
    AUTHORIZE_E_MALFORMED = 1, /* no token, or none that can be read */
    AUTHORIZE_E_EXPIRED,
    AUTHORIZE_E_SIGNATURE,
    AUTHORIZE_E_AUDIENCE,
    AUTHORIZE_E_POLICY,  /* there is none of that name, or it may not do that */
    AUTHORIZE_E_UNKNOWN, /* the identity does not exist */
    AUTHORIZE_E_DISABLED,
    AUTHORIZE_E_KIND,  /* the identity does not use keys */
    AUTHORIZE_E_SCOPE, /* not in the scope of the edge that asks */
};
const char *authorize_text(int outcome);

enum permission {
    PERMISSION_REGISTRY_READ = 1,
    PERMISSION_REGISTRY_WRITE = 2,
    PERMISSION_SERVICE_CONNECT = 4,
    PERMISSION_DEVICE_CONNECT = 8,
};

struct authority {
    const struct registry *registry; /* borrowed */
    const char *hostname;            /* borrowed */
    struct sas_key policy_key;       /* all policies share it */
};

/* A token of a policy that has @permission. */
int authorize_service(const struct authority *authority, struct span token,
                      enum permission permission, int64_t now_sec);

/* A token of exactly this identity, or of the policy `device`. @device_wide: the device's token is good for its modules too. */
int authorize_identity(const struct authority *authority, struct span token, const char *device_id,
                       const char *module_id, bool device_wide, int64_t now_sec);

/* What a CBS put-token gives. */
struct grant {
    char *device_id;       /* NULL: a service's */
    char *module_id;       /* NULL: a device's */
    char *actor_device_id; /* the edge that acts for it; NULL: it acts itself */
    int64_t expires_sec;
};
void grant_done(struct grant *grant);

/* Whose the token is, its own text says; with an edge's $edgeHub token, @name says whom the edge acts for. */
int authorize_put_token(const struct authority *authority, struct span token, struct span name,
                        int64_t now_sec, struct grant *ret);

/* May the edge @actor_device_id act for the identity? @chain is the auth-chain property, "leaf;child;edge"; empty: absent. */
int authorize_on_behalf(const struct authority *authority, const char *actor_device_id,
                        const char *device_id, const char *module_id, struct span chain);
