/* Certificates of any kind, for tests. */
#pragma once

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "certificate-issue.h"
#include "mem.h"
#include "ossl.h"
#include "span.h"

struct pki {
    EVP_PKEY *key;
    X509 *certificate;
};

struct pki_wish {
    const char *common_name;
    const char *second_common_name; /* a second CN in the subject */
    bool is_ca;
    const char *usage; /* extended key usage, or NULL */
    int64_t not_before_sec, not_after_sec;
    bool by_sha1;
};

static inline void pki_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509_EXTENSION *extension;
    X509V3_CTX context;

    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    must(extension && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static inline void pki_name(X509_NAME *name, const char *common_name)
{
    must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common_name,
                                    -1, -1, 0) == 1);
}

/* @issuer NULL: signed by itself. */
static inline struct pki pki_make(const struct pki *issuer, const struct pki_wish *wish)
{
    struct pki p = { certificate_key_make(), X509_new() };
    X509 *authority = issuer ? issuer->certificate : p.certificate;

    must(X509_set_version(p.certificate, X509_VERSION_3) == 1);
    must(ASN1_INTEGER_set(X509_get_serialNumber(p.certificate), random() + 1) == 1);
    must(X509_set_pubkey(p.certificate, p.key) == 1);
    pki_name(X509_get_subject_name(p.certificate), wish->common_name);
    if (wish->second_common_name)
        pki_name(X509_get_subject_name(p.certificate), wish->second_common_name);
    must(X509_set_issuer_name(p.certificate, X509_get_subject_name(authority)) == 1);
    ASN1_TIME_set(X509_getm_notBefore(p.certificate), (time_t)wish->not_before_sec);
    ASN1_TIME_set(X509_getm_notAfter(p.certificate), (time_t)wish->not_after_sec);
    if (wish->is_ca) {
        pki_extension(p.certificate, authority, NID_basic_constraints, "critical,CA:TRUE");
        pki_extension(p.certificate, authority, NID_key_usage, "critical,keyCertSign");
        pki_extension(p.certificate, authority, NID_subject_key_identifier, "hash");
    }
    if (wish->usage)
        pki_extension(p.certificate, authority, NID_ext_key_usage, wish->usage);
    must(X509_sign(p.certificate, issuer ? issuer->key : p.key,
                   wish->by_sha1 ? EVP_sha1() : EVP_sha256()) > 0);
    return p;
}

static inline void pki_done(struct pki *p)
{
    EVP_PKEY_free(p->key);
    X509_free(p->certificate);
    *p = (struct pki){};
}

/* The caller frees .at. */
static inline struct span pki_der(X509 *certificate)
{
    unsigned char *der = NULL;
    int len = i2d_X509(certificate, &der);
    struct span copy;

    must(len > 0);
    copy = span_of(xmemdup(der, (size_t)len), (size_t)len);
    OPENSSL_free(der);
    return copy;
}

static inline char *pki_pem(X509 *certificate)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data, *text;
    long len;

    must(bio && PEM_write_bio_X509(bio, certificate) == 1);
    len = BIO_get_mem_data(bio, &data);
    text = xstrndup(data, (size_t)len);
    BIO_free(bio);
    return text;
}
