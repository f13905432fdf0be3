/* EC P-256 keys and SHA-256 signatures throughout: what every TLS client of devices takes. */
#include "ctl-certificates.h"

#include <assert.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdbool.h>

#include "buf.h"
#include "mem.h"
#include "span.h"

enum {
    VALID_DAYS = 3650,
    COMMON_NAME_MAX = 64, /* X.520 ub-common-name */
    SERIAL_BITS = 127,
    BACKDATED_SEC = 86400, /* a device's clock may be behind */
};

struct certificate {
    X509 *x509;
    EVP_PKEY *key;
};

struct extension {
    int nid;
    const char *value;
};

static const struct extension root_extensions[] = {
    { NID_basic_constraints, "critical,CA:TRUE" },
    { NID_key_usage, "critical,keyCertSign,cRLSign" },
    { NID_subject_key_identifier, "hash" },
    {},
};

static const struct extension issuer_extensions[] = {
    { NID_basic_constraints, "critical,CA:TRUE,pathlen:0" },
    { NID_key_usage, "critical,digitalSignature,keyCertSign,cRLSign" },
    { NID_subject_key_identifier, "hash" },
    { NID_authority_key_identifier, "keyid:always" },
    {},
};

static const struct extension server_extensions[] = {
    { NID_basic_constraints, "critical,CA:FALSE" },
    { NID_key_usage, "critical,digitalSignature" },
    { NID_ext_key_usage, "serverAuth" },
    { NID_subject_key_identifier, "hash" },
    { NID_authority_key_identifier, "keyid:always" },
    {},
};

const char *certificates_error(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    return reason ? reason : "OpenSSL gives no reason";
}

struct certificate *certificate_free(struct certificate *c)
{
    if (!c)
        return NULL;
    X509_free(c->x509);
    EVP_PKEY_free(c->key);
    free(c);
    return NULL;
}

static bool set_serial(X509 *x509)
{
    BIGNUM *number = BN_new();
    bool done = number && BN_rand(number, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) &&
                BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x509));

    BN_free(number);
    return done;
}

static bool set_validity(X509 *x509)
{
    return X509_gmtime_adj(X509_getm_notBefore(x509), -BACKDATED_SEC) &&
           X509_time_adj_ex(X509_getm_notAfter(x509), VALID_DAYS, 0, NULL);
}

static bool set_subject(X509 *x509, const char *common_name)
{
    size_t len = strnlen(common_name, COMMON_NAME_MAX);

    return X509_NAME_add_entry_by_NID(X509_get_subject_name(x509), NID_commonName, MBSTRING_UTF8,
                                      (const unsigned char *)common_name, (int)len, -1, 0);
}

static bool add_extension(X509 *x509, X509 *issuer, int nid, const char *value)
{
    X509_EXTENSION *extension;
    X509V3_CTX context;
    bool done;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    done = extension && X509_add_ext(x509, extension, -1);
    X509_EXTENSION_free(extension);
    return done;
}

static bool fill(struct certificate *c, const char *common_name, const struct extension *extensions,
                 const char *names, const struct certificate *issuer)
{
    X509 *issuer_x509 = issuer ? issuer->x509 : c->x509;

    if (!X509_set_version(c->x509, X509_VERSION_3) || !set_serial(c->x509) ||
        !set_validity(c->x509) || !set_subject(c->x509, common_name) ||
        !X509_set_pubkey(c->x509, c->key) ||
        !X509_set_issuer_name(c->x509, X509_get_subject_name(issuer_x509)))
        return false;
    for (; extensions->value; extensions++)
        if (!add_extension(c->x509, issuer_x509, extensions->nid, extensions->value))
            return false;
    if (names && !add_extension(c->x509, issuer_x509, NID_subject_alt_name, names))
        return false;
    return X509_sign(c->x509, issuer ? issuer->key : c->key, EVP_sha256()) > 0;
}

static struct certificate *certificate_new(const char *common_name,
                                           const struct extension *extensions, const char *names,
                                           const struct certificate *issuer)
{
    _cleanup_(certificate_freep) struct certificate *c = xnew(struct certificate);

    c->key = EVP_EC_gen("P-256");
    c->x509 = X509_new();
    if (!c->key || !c->x509 || !fill(c, common_name, extensions, names, issuer))
        return NULL;
    return TAKE_PTR(c);
}

struct certificate *certificate_new_root(const char *common_name)
{
    return certificate_new(common_name, root_extensions, NULL, NULL);
}

struct certificate *certificate_new_issuer(const char *common_name, const struct certificate *root)
{
    return certificate_new(common_name, issuer_extensions, NULL, root);
}

struct certificate *certificate_new_server(const char *common_name, const char *const *names,
                                           const char *const *addresses,
                                           const struct certificate *issuer)
{
    _cleanup_(buf_done) struct buf text = {};

    for (; *names; names++)
        buf_printf(&text, "%sDNS:%s", buf_len(&text) > 0 ? "," : "", *names);
    for (; *addresses; addresses++)
        buf_printf(&text, "%sIP:%s", buf_len(&text) > 0 ? "," : "", *addresses);
    buf_append_byte(&text, '\0');
    return certificate_new(common_name, server_extensions, text.data, issuer);
}

/* Writing into memory does not fail but for want of it. */
static char *bio_text_take(BIO *bio)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    char *text = span_xdup(span_of(data, (size_t)len));

    BIO_free(bio);
    return text;
}

char *certificate_pem(const struct certificate *c)
{
    BIO *bio = BIO_new(BIO_s_mem());

    if (!bio || !PEM_write_bio_X509(bio, c->x509))
        abort();
    return bio_text_take(bio);
}

char *certificate_key_pem(const struct certificate *c)
{
    BIO *bio = BIO_new(BIO_s_secmem());

    if (!bio || !PEM_write_bio_PKCS8PrivateKey(bio, c->key, NULL, NULL, 0, NULL, NULL))
        abort();
    return bio_text_take(bio);
}

char *random_key_base64(size_t n)
{
    unsigned char bytes[64];
    char *text = xalloc0(4 * ((n + 2) / 3) + 1);

    assert(n <= sizeof(bytes));
    if (RAND_bytes(bytes, (int)n) != 1)
        abort(); /* no keys without randomness */
    EVP_EncodeBlock((unsigned char *)text, bytes, (int)n);
    OPENSSL_cleanse(bytes, sizeof(bytes));
    return text;
}
