/* What a client's certificate chain says and whether it may be believed (identity.md §10.2). TLS
 * let any through. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem.h"
#include "span.h"

enum { CLIENT_CHAIN_MAX = 10, CLIENT_CHAIN_BYTES_MAX = 64 << 10 };

struct client_certificate;

enum {
    CLIENT_CERTIFICATE_E_MALFORMED = 1,
    CLIENT_CERTIFICATE_E_DATES, /* not yet, or no more */
    CLIENT_CERTIFICATE_E_THUMBPRINT,
    CLIENT_CERTIFICATE_E_NAME,      /* its one CN is not the device id */
    CLIENT_CERTIFICATE_E_PURPOSE,   /* an authority's, or one that is for servers only */
    CLIENT_CERTIFICATE_E_UNTRUSTED, /* no anchor of ours, or issued by the edge CA */
};

/* @der: the chain as presented, leaf first. */
int client_certificate_parse(const struct span *der, size_t count, struct client_certificate **ret);
struct client_certificate *client_certificate_free(struct client_certificate *certificate);
DEFINE_FREEP(struct client_certificate, client_certificate_free)
int64_t
client_certificate_not_after(const struct client_certificate *certificate); /* UTC seconds */

/* Anchors for device certificates that an authority issued. */
struct client_trust;

/* @anchors_pem: the operator's bundle, or NULL: no such certificate is trusted then. @edge_ca_pem:
 * ours. It issues certificates to modules, so a chain through it never makes a device, whatever the
 * bundle says. -EINVAL: no PEM. */
int client_trust_new(const char *anchors_pem, const char *edge_ca_pem, struct client_trust **ret);
struct client_trust *client_trust_free(struct client_trust *trust);
DEFINE_FREEP(struct client_trust, client_trust_free)

/* Registered by thumbprint: SHA-1 or SHA-256 in hex of any case, with or without colons. Either may
 * be NULL. */
int client_certificate_check_thumbprint(const struct client_certificate *certificate,
                                        const char *primary, const char *secondary,
                                        int64_t now_sec);
/* Registered by authority. @trust may be NULL: nobody is trusted. */
int client_certificate_check_authority(const struct client_certificate *certificate,
                                       const struct client_trust *trust, const char *device_id,
                                       int64_t now_sec);
