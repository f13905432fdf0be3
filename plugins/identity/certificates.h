/*
 * The edge CA and the server certificate of the gateway: kept on disk, made when they are missing,
 * renewed before they expire. The edge CA is the operator's, or a quickstart one of ours.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "keyring.h"

/* Borrowed for the life of the object. */
struct certificates_config {
    const char *state_dir;
    const char *device_id;    /* in the name of the quickstart CA */
    const char *const *names; /* NULL-terminated; the first is the gateway's host name */
    /* The operator's edge CA with what is above it, and its key; NULL: quickstart. */
    const char *authority_path, *authority_key_path;
    uint64_t server_days;
};

struct certificates;

struct certificates *certificates_new(const struct certificates_config *config,
                                      const struct keyring *keyring);
struct certificates *certificates_free(struct certificates *certificates);
DEFINE_FREEP(struct certificates, certificates_free)

/* Sees to it that there are certificates that last: to be called at start and every few minutes.
 * @ret_changed: the server certificate is another. -EINVAL with the reason logged (the operator's
 * CA cannot be used), or -errno; what was in force before, if anything, still is. */
int certificates_renew(struct certificates *certificates, int64_t now_sec, bool *ret_changed);

/* What is in force; NULL before the first certificates_renew() that worked. Borrowed until the
 * next. */
struct server_certificate {
    char *chain_pem;       /* leaf, edge CA, what is above it */
    char *private_key_pem; /* in locked memory */
    int64_t not_after_sec;
    uint64_t version; /* of this certificate and no other */
};
const struct server_certificate *certificates_server(const struct certificates *certificates);
const char *certificates_authority_pem(const struct certificates *certificates);
