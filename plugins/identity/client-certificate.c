#include "client-certificate.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "certificate-issue.h"
#include "ossl.h"

enum { AUTH_LEVEL = 2 }; /* OpenSSL's, as for TLS: no SHA-1, no RSA of less than 2048 bits */

struct client_certificate {
    X509 *leaf;
    STACK_OF(X509) * others; /* as presented, in no order that one could rely on */
};

struct client_trust {
    X509_STORE *anchors;
    STACK_OF(X509) *
        edge_ca; /* the edge CA and what stands above it in its file: only the first counts */
};

/* ---- the chain ---- */

static X509 *der_read(struct span der)
{
    const unsigned char *at = (const unsigned char *)der.at;
    X509 *certificate;

    if (der.len == 0 || der.len > CLIENT_CHAIN_BYTES_MAX)
        return NULL;
    certificate = d2i_X509(NULL, &at, (long)der.len);
    if (certificate && at != (const unsigned char *)der.at + der.len) {
        X509_free(certificate);
        return NULL;
    }
    return certificate;
}

int client_certificate_parse(const struct span *der, size_t count, struct client_certificate **ret)
{
    _cleanup_(client_certificate_freep) struct client_certificate *c =
        xnew(struct client_certificate);
    size_t total = 0;

    c->others = sk_X509_new_null();
    must(c->others);
    if (count == 0 || count > CLIENT_CHAIN_MAX)
        return CLIENT_CERTIFICATE_E_MALFORMED;
    for (size_t i = 0; i < count; i++) {
        X509 *one;

        total += der[i].len;
        one = total <= CLIENT_CHAIN_BYTES_MAX ? der_read(der[i]) : NULL;
        if (!one) {
            ERR_clear_error();
            return CLIENT_CERTIFICATE_E_MALFORMED;
        }
        if (i == 0)
            c->leaf = one;
        else
            must(sk_X509_push(c->others, one) > 0);
    }
    *ret = TAKE_PTR(c);
    return 0;
}

struct client_certificate *client_certificate_free(struct client_certificate *certificate)
{
    if (!certificate)
        return NULL;
    X509_free(certificate->leaf);
    sk_X509_pop_free(certificate->others, X509_free);
    free(certificate);
    return NULL;
}

int64_t client_certificate_not_after(const struct client_certificate *certificate)
{
    return certificate_not_after(certificate->leaf);
}

static bool dates_hold(const struct client_certificate *c, int64_t now_sec)
{
    time_t now = (time_t)now_sec;

    return X509_cmp_time(X509_get0_notBefore(c->leaf), &now) < 0 &&
           X509_cmp_time(X509_get0_notAfter(c->leaf), &now) > 0;
}

/* ---- by thumbprint ---- */

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, c | 0x20) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* No secret is compared here: a thumbprint is public, and the handshake proved the key. */
static bool thumbprint_is(const uint8_t *digest, unsigned len, const char *text)
{
    unsigned n = 0;

    for (; *text; text++) {
        int digit = hex_digit(*text);

        if (*text == ':')
            continue;
        if (digit < 0 || n >= 2 * len || digit != (n % 2 ? digest[n / 2] & 15 : digest[n / 2] >> 4))
            return false;
        n++;
    }
    return n == 2 * len;
}

int client_certificate_check_thumbprint(const struct client_certificate *certificate,
                                        const char *primary, const char *secondary, int64_t now_sec)
{
    const EVP_MD *const kinds[] = { EVP_sha256(), EVP_sha1() };

    if (!dates_hold(certificate, now_sec))
        return CLIENT_CERTIFICATE_E_DATES;
    for (size_t i = 0; i < ELEMENTSOF(kinds); i++) {
        uint8_t digest[EVP_MAX_MD_SIZE];
        unsigned len;

        if (!X509_digest(certificate->leaf, kinds[i], digest, &len))
            continue;
        if ((primary && thumbprint_is(digest, len, primary)) ||
            (secondary && thumbprint_is(digest, len, secondary)))
            return 0;
    }
    return CLIENT_CERTIFICATE_E_THUMBPRINT;
}

/* ---- by authority ---- */

static STACK_OF(X509) * pem_read_all(const char *pem)
{
    STACK_OF(X509) *all = sk_X509_new_null();
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *one;

    must(all && bio);
    while ((one = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
        must(sk_X509_push(all, one) > 0);
    ERR_clear_error();
    BIO_free(bio);
    return all;
}

int client_trust_new(const char *anchors_pem, const char *edge_ca_pem, struct client_trust **ret)
{
    _cleanup_(client_trust_freep) struct client_trust *trust = xnew(struct client_trust);
    STACK_OF(X509) * anchors;
    int count;

    trust->anchors = X509_STORE_new();
    trust->edge_ca = pem_read_all(edge_ca_pem ? edge_ca_pem : "");
    must(trust->anchors);
    if (anchors_pem) {
        anchors = pem_read_all(anchors_pem);
        count = sk_X509_num(anchors);
        for (int i = 0; i < count; i++)
            (void)X509_STORE_add_cert(trust->anchors,
                                      sk_X509_value(anchors, i)); /* one twice is no fault */
        sk_X509_pop_free(anchors, X509_free);
        ERR_clear_error();
        if (count == 0)
            return -EINVAL;
    }
    *ret = TAKE_PTR(trust);
    return 0;
}

struct client_trust *client_trust_free(struct client_trust *trust)
{
    if (!trust)
        return NULL;
    X509_STORE_free(trust->anchors);
    sk_X509_pop_free(trust->edge_ca, X509_free);
    free(trust);
    return NULL;
}

/* Asked of the X.509 name, not of its printed form, where a comma in one part looks like the next.
 */
static bool name_is(X509 *leaf, const char *device_id)
{
    const X509_NAME *subject = X509_get_subject_name(leaf);
    const ASN1_STRING *value;
    unsigned char *utf8;
    bool equal;
    int at, len;

    at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
        return false;
    value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    len = ASN1_STRING_to_UTF8(&utf8, value);
    if (len < 0)
        return false;
    equal = span_equal(span_of(utf8, (size_t)len), span_str(device_id));
    OPENSSL_free(utf8);
    return equal;
}

static bool purpose_fits(X509 *leaf)
{
    uint32_t flags = X509_get_extension_flags(leaf);

    if (flags & (EXFLAG_INVALID | EXFLAG_CA))
        return false;
    return !(flags & EXFLAG_XKUSAGE) || (X509_get_extended_key_usage(leaf) & XKU_SSL_CLIENT);
}

/* By key, not by name: a cross-signed edge CA is still the edge CA. */
static bool passes_through_edge_ca(const struct client_trust *trust, X509_STORE_CTX *context)
{
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(context);
    EVP_PKEY *edge_key;

    if (sk_X509_num(trust->edge_ca) == 0)
        return false;
    edge_key = X509_get0_pubkey(sk_X509_value(trust->edge_ca, 0));
    for (int i = 0; i < sk_X509_num(chain); i++)
        if (EVP_PKEY_eq(X509_get0_pubkey(sk_X509_value(chain, i)), edge_key) == 1)
            return true;
    return false;
}

static bool chain_holds(const struct client_certificate *c, const struct client_trust *trust,
                        int64_t now_sec)
{
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    X509_VERIFY_PARAM *param;
    bool holds;

    must(context);
    if (!X509_STORE_CTX_init(context, trust->anchors, c->leaf, c->others)) {
        X509_STORE_CTX_free(context);
        return false;
    }
    param = X509_STORE_CTX_get0_param(context);
    X509_VERIFY_PARAM_set_time(param, (time_t)now_sec);
    X509_VERIFY_PARAM_set_flags(
        param, X509_V_FLAG_PARTIAL_CHAIN); /* an intermediate in the bundle is an anchor */
    X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_CLIENT);
    X509_VERIFY_PARAM_set_auth_level(param, AUTH_LEVEL);
    holds = X509_verify_cert(context) == 1 && !passes_through_edge_ca(trust, context);
    X509_STORE_CTX_free(context);
    ERR_clear_error();
    return holds;
}

int client_certificate_check_authority(const struct client_certificate *certificate,
                                       const struct client_trust *trust, const char *device_id,
                                       int64_t now_sec)
{
    if (!dates_hold(certificate, now_sec))
        return CLIENT_CERTIFICATE_E_DATES;
    if (!name_is(certificate->leaf, device_id))
        return CLIENT_CERTIFICATE_E_NAME;
    if (!purpose_fits(certificate->leaf))
        return CLIENT_CERTIFICATE_E_PURPOSE;
    if (!trust || !chain_holds(certificate, trust, now_sec))
        return CLIENT_CERTIFICATE_E_UNTRUSTED;
    return 0;
}
