/* Cleanup by scope for OpenSSL's objects, and what to do when it fails for want of memory: end, as
 * everywhere. */
#pragma once

#include <assert.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>

/* Not assert(): what is asked here has effects. */
static inline void must(bool ok)
{
    assert(ok);
}

static inline void bio_freep(BIO **p)
{
    BIO_free(*p);
}

static inline void pkey_freep(EVP_PKEY **p)
{
    EVP_PKEY_free(*p);
}

static inline void x509_freep(X509 **p)
{
    X509_free(*p);
}
