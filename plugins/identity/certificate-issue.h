/* Making certificates: the quickstart edge CA, and server certificates under an edge CA
 * (identity.md §6). No files, no clock. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    CERTIFICATE_NAMES_MAX = 64,
    CERTIFICATE_CN_MAX = 64, /* X.520; longer names are cut there and whole in the SAN */
};

/* P-256: small, and cheap to sign with on a small machine. */
EVP_PKEY *certificate_key_make(void);

/* Signed by itself. The caller's to free. */
X509 *certificate_issue_authority(EVP_PKEY *key, const char *common_name, int64_t now_sec,
                                  int64_t not_after_sec);

/* @names: NULL-terminated, the first is the common name; addresses get the IP form. */
X509 *certificate_issue_server(X509 *authority, EVP_PKEY *authority_key, EVP_PKEY *key,
                               const char *const *names, int64_t now_sec, int64_t not_after_sec);
/* It is for exactly these names. */
bool certificate_is_for_names(X509 *certificate, const char *const *names);

int64_t certificate_not_before(const X509 *certificate); /* UTC seconds */
int64_t certificate_not_after(const X509 *certificate);
