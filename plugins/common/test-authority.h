/* For tests: an authority of their own, and certificates by it. */
#pragma once

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "mem.h"

struct test_authority {
    X509 *certificate;
    EVP_PKEY *key;
};

/* A new certificate for @names ("DNS:localhost,IP:127.0.0.1"; NULL: an authority), signed by
 * @issuer (NULL: by itself). */
static inline X509 *test_certificate(const struct test_authority *issuer, const char *common_name,
                                     const char *names, EVP_PKEY **ret_key)
{
    static long serial = 1;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)common_name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(issuer ? issuer->certificate : x));
    X509_set_pubkey(x, key);
    X509V3_set_ctx(&context, issuer ? issuer->certificate : x, x, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, NID_basic_constraints,
                                    names ? "critical,CA:FALSE" : "critical,CA:TRUE");
    X509_add_ext(x, extension, -1);
    X509_EXTENSION_free(extension);
    if (names) {
        extension = X509V3_EXT_conf_nid(NULL, &context, NID_subject_alt_name, names);
        X509_add_ext(x, extension, -1);
        X509_EXTENSION_free(extension);
    }
    X509_sign(x, issuer ? issuer->key : key, EVP_sha256());
    *ret_key = key;
    return x;
}

static inline void test_authority_init(struct test_authority *a)
{
    a->certificate = test_certificate(NULL, "test authority", NULL, &a->key);
}

static inline void test_authority_done(struct test_authority *a)
{
    X509_free(a->certificate);
    EVP_PKEY_free(a->key);
}

static inline char *test_pem_take(BIO *bio)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    char *copy = xstrndup(data, (size_t)len);

    BIO_free(bio);
    return copy;
}

/* Chain (leaf, authority) and key as PEM texts, the caller's to free. */
static inline void test_authority_issue(const struct test_authority *a, const char *names,
                                        char **ret_chain, char **ret_key)
{
    EVP_PKEY *key;
    X509 *leaf = test_certificate(a, "test leaf", names, &key);
    BIO *chain = BIO_new(BIO_s_mem()), *secret = BIO_new(BIO_s_mem());

    PEM_write_bio_X509(chain, leaf);
    PEM_write_bio_X509(chain, a->certificate);
    PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL);
    X509_free(leaf);
    EVP_PKEY_free(key);
    *ret_chain = test_pem_take(chain);
    *ret_key = test_pem_take(secret);
}

/* Trusts @a in a context that a test uses as a client. */
static inline void test_authority_trust(const struct test_authority *a, SSL_CTX *context)
{
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), a->certificate);
}
