/* The certificates of a new directory: a test root, what it signs for the hub, and the edge's
 * issuing CA. PEM texts. */
#pragma once

#include <stddef.h>

#include "mem.h"

struct certificate; /* with its private key */

/* Each returns NULL when OpenSSL fails; certificates_error() then says why. Common names longer
 * than 64 are cut. */
struct certificate *certificate_new_root(const char *common_name);
/* Signs leaves, but no further CA. */
struct certificate *certificate_new_issuer(const char *common_name, const struct certificate *root);
/* @names and @addresses are NULL-terminated lists of subject alternative names. */
struct certificate *certificate_new_server(const char *common_name, const char *const *names,
                                           const char *const *addresses,
                                           const struct certificate *issuer);
struct certificate *certificate_free(struct certificate *certificate);
DEFINE_FREEP(struct certificate, certificate_free)

char *certificate_pem(const struct certificate *certificate);     /* the caller's, as is the key */
char *certificate_key_pem(const struct certificate *certificate); /* PKCS #8, not encrypted */
const char *certificates_error(void);

/* @n random bytes in base64: a symmetric key. */
char *random_key_base64(size_t n);
