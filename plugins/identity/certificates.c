#include "certificates.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "certificate-issue.h"
#include "log.h"
#include "ossl.h"
#include "state-file.h"

enum {
    QUICKSTART_DAYS = 90,
    DAY_SEC = 24 * 60 * 60,
    RENEW_AT_PERCENT = 80, /* of the lifetime */
    WARN_DAYS = 30,
    PEM_BYTES_MAX = 256 << 10,
};
#define SERVER_KEY "server.key"

struct authority {
    EVP_PKEY *key;
    X509 *certificate;
    char *pem; /* the whole file */
};

struct certificates {
    const struct certificates_config *config;
    const struct keyring *keyring;
    struct authority authority;
    struct server_certificate server;
    char *authority_path;
    char *server_path;
    int64_t warned_sec;
};

/* ---- PEM ---- */

static X509 *pem_first(const char *pem)
{
    _cleanup_(bio_freep) BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *certificate;

    must(bio);
    certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    ERR_clear_error();
    return certificate;
}

static char *pem_print(X509 *certificate)
{
    _cleanup_(bio_freep) BIO *bio = BIO_new(BIO_s_mem());
    char *data;
    long len;

    must(bio && PEM_write_bio_X509(bio, certificate) == 1);
    len = BIO_get_mem_data(bio, &data);
    return xstrndup(data, (size_t)len);
}

static int pem_read(const char *path, char **ret)
{
    struct buf content = {};
    int r;

    r = state_file_read(path, PEM_BYTES_MAX, &content);
    if (r < 0)
        return r;
    *ret = span_xdup(buf_span(&content));
    buf_done(&content);
    return 0;
}

/* ---- the edge CA ---- */

static void authority_done(struct authority *a)
{
    EVP_PKEY_free(a->key);
    X509_free(a->certificate);
    free(a->pem);
    *a = (struct authority){};
}

static int64_t renewal_sec(const X509 *certificate)
{
    int64_t from = certificate_not_before(certificate), to = certificate_not_after(certificate);

    return from + (to - from) / 100 * RENEW_AT_PERCENT;
}

/* Why it is of no use; NULL when it is. Its dates are looked at elsewhere. */
static const char *authority_fault(const struct authority *a)
{
    if (!a->certificate)
        return "expected a certificate as PEM";
    if (X509_check_private_key(a->certificate, a->key) != 1)
        return "the key is not the certificate's";
    if (!(X509_get_extension_flags(a->certificate) & EXFLAG_CA) ||
        !(X509_get_key_usage(a->certificate) & X509v3_KU_KEY_CERT_SIGN))
        return "it is no CA certificate that may sign others";
    return NULL;
}

static int authority_refuse(const char *path, const char *reason)
{
    ERR_clear_error();
    log_event(LOG_ERR, 0, "edge CA cannot be used", F_PATH(path), F_REASON(reason));
    return -EINVAL;
}

/* Takes @key whatever the result. */
static int authority_read_take(const char *path, EVP_PKEY *key, struct authority *ret)
{
    struct authority a = { .key = key };
    const char *fault;
    int r;

    r = pem_read(path, &a.pem);
    if (r < 0) {
        authority_done(&a);
        return r;
    }
    a.certificate = pem_first(a.pem);
    fault = authority_fault(&a);
    if (fault) {
        authority_done(&a);
        return authority_refuse(path, fault);
    }
    *ret = a;
    return 0;
}

/* Read anew each time: the operator replaces the files, and ten minutes later it is in force. */
static int authority_configured(const struct certificates *c, int64_t now_sec,
                                struct authority *ret)
{
    const char *path = c->config->authority_path, *key_path = c->config->authority_key_path;
    struct authority a;
    EVP_PKEY *key;
    int r;

    r = keyring_private_key_read(key_path, &key);
    if (r < 0) {
        if (r != -EINVAL)
            log_event(LOG_ERR, r, "cannot read the key of the edge CA", F_PATH(key_path));
        return r;
    }
    r = authority_read_take(path, key, &a);
    if (r < 0) {
        if (r != -EINVAL)
            log_event(LOG_ERR, r, "cannot read the edge CA", F_PATH(path));
        return r;
    }
    if (certificate_not_after(a.certificate) <= now_sec) {
        authority_done(&a);
        return authority_refuse(path, "it has expired");
    }
    *ret = a;
    return 0;
}

/* The key is found by the serial number of its certificate: whatever the moment of a power cut, the
 * two fit. */
static char *authority_key_name(X509 *certificate)
{
    _cleanup_(freep) char *serial = NULL;
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
    char *hex;

    must(number);
    hex = BN_bn2hex(number);
    must(hex);
    serial = xstrdup(hex);
    OPENSSL_free(hex);
    BN_free(number);
    return xasprintf("edge-ca-%s.key", serial);
}

static int authority_make(const struct certificates *c, int64_t now_sec, struct authority *ret)
{
    _cleanup_(freep) char *name = xasprintf("aziot-edge CA %s", c->config->device_id),
                          *key_name = NULL;
    struct authority a = {};
    int r;

    a.key = certificate_key_make();
    a.certificate =
        certificate_issue_authority(a.key, name, now_sec, now_sec + QUICKSTART_DAYS * DAY_SEC);
    a.pem = pem_print(a.certificate);
    key_name = authority_key_name(a.certificate);
    r = keyring_private_key_store(c->keyring, key_name, a.key);
    if (r == 0)
        r = state_file_write(c->authority_path, span_str(a.pem));
    if (r < 0) {
        authority_done(&a);
        log_event(LOG_ERR, r, "cannot store the quickstart edge CA", F_PATH(c->authority_path));
        return r;
    }
    log_event(LOG_INFO, 0, "made a quickstart edge CA, clients must trust it",
              F_PATH(c->authority_path));
    *ret = a;
    return 0;
}

static int authority_load(const struct certificates *c, struct authority *ret)
{
    _cleanup_(x509_freep) X509 *certificate = NULL;
    _cleanup_(freep) char *pem = NULL, *key_name = NULL;
    EVP_PKEY *key;
    int r;

    r = pem_read(c->authority_path, &pem);
    if (r < 0)
        return r;
    certificate = pem_first(pem);
    if (!certificate)
        return authority_refuse(c->authority_path, "expected a certificate as PEM");
    key_name = authority_key_name(certificate);
    r = keyring_private_key_load(c->keyring, key_name, &key);
    if (r < 0)
        return r;
    return authority_read_take(c->authority_path, key, ret);
}

/* The next one, with another key; the one before signs on when that cannot be stored. */
static int authority_replace_take(const struct certificates *c, int64_t now_sec,
                                  struct authority old, struct authority *ret)
{
    _cleanup_(freep) char *key_name = authority_key_name(old.certificate);
    int r;

    r = authority_make(c, now_sec, ret);
    if (r < 0 && now_sec < certificate_not_after(old.certificate)) {
        *ret = old;
        return 0;
    }
    if (r == 0)
        keyring_private_key_remove(c->keyring, key_name);
    authority_done(&old);
    return r;
}

/* A new one only when there is none or its time has come: every client that trusts the old one is
 * cut off by it. */
static int authority_quickstart(const struct certificates *c, int64_t now_sec,
                                struct authority *ret)
{
    struct authority a;
    int r;

    r = authority_load(c, &a);
    if (r == -ENOENT)
        return authority_make(c, now_sec, ret);
    if (r < 0) {
        if (r != -EINVAL)
            log_event(LOG_ERR, r, "cannot read the quickstart edge CA", F_PATH(c->authority_path));
        return r;
    }
    if (now_sec >= renewal_sec(a.certificate))
        return authority_replace_take(c, now_sec, a, ret);
    *ret = a;
    return 0;
}

/* From 30 days ahead, once a day. One that is not valid yet is not replaced by itself: the clock may
 * be wrong, and a new one would cut off every client for good. */
static void authority_warn(struct certificates *c, int64_t now_sec)
{
    int64_t left = certificate_not_after(c->authority.certificate) - now_sec;
    bool early = now_sec < certificate_not_before(c->authority.certificate);

    if ((!early && left > (int64_t)WARN_DAYS * DAY_SEC) || now_sec - c->warned_sec < DAY_SEC)
        return;
    c->warned_sec = now_sec;
    log_event(LOG_WARNING, 0,
              early ? "edge CA is not valid yet: the clock is wrong, or was when it was made"
                    : "edge CA expires soon, clients must be given the next one",
              F_STR("authority", c->config->authority_path ? "configured" : "quickstart"),
              F_NUM("days", left / DAY_SEC));
}

/* ---- the server certificate ---- */

static void server_done(struct server_certificate *s)
{
    free(s->chain_pem);
    s->private_key_pem = keyring_text_free(s->private_key_pem);
    *s = (struct server_certificate){};
}

/* It is what we would make now, and lasts. The clock may have been ahead when it was made. */
static bool server_holds(const struct certificates *c, X509 *certificate, int64_t now_sec)
{
    bool holds;

    holds = now_sec >= certificate_not_before(certificate) && now_sec < renewal_sec(certificate) &&
            certificate_is_for_names(certificate, c->config->names) &&
            X509_check_issued(c->authority.certificate, certificate) == X509_V_OK &&
            X509_verify(certificate, X509_get0_pubkey(c->authority.certificate)) == 1;
    ERR_clear_error();
    return holds;
}

/* The version is of its serial number: no other has it, and it needs no place of its own on disk. */
static uint64_t version_of(X509 *certificate)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
    uint64_t version = 0;

    for (int i = 0; i < ASN1_STRING_length(serial); i++)
        version = version << 8 | ASN1_STRING_get0_data(serial)[i];
    return version & INT64_MAX; /* as a number in the log, too */
}

static struct server_certificate server_print(const struct certificates *c, X509 *certificate,
                                              EVP_PKEY *key)
{
    _cleanup_(freep) char *leaf = pem_print(certificate);

    return (struct server_certificate){
        .chain_pem = xasprintf("%s%s", leaf, c->authority.pem),
        .private_key_pem = keyring_private_key_print(key),
        .not_after_sec = certificate_not_after(certificate),
        .version = version_of(certificate),
    };
}

static int server_load(const struct certificates *c, int64_t now_sec,
                       struct server_certificate *ret)
{
    _cleanup_(x509_freep) X509 *certificate = NULL;
    _cleanup_(pkey_freep) EVP_PKEY *key = NULL;
    _cleanup_(freep) char *pem = NULL;
    int r;

    r = pem_read(c->server_path, &pem);
    if (r == 0)
        r = keyring_private_key_load(c->keyring, SERVER_KEY, &key);
    if (r < 0)
        return r;
    certificate = pem_first(pem);
    if (!certificate || X509_check_private_key(certificate, key) != 1 ||
        !server_holds(c, certificate, now_sec)) {
        ERR_clear_error();
        return -ENOENT;
    }
    *ret = server_print(c, certificate, key);
    return 0;
}

static struct server_certificate server_make(const struct certificates *c, int64_t now_sec)
{
    _cleanup_(x509_freep) X509 *certificate = NULL;
    _cleanup_(pkey_freep) EVP_PKEY *key = certificate_key_make();
    int64_t not_after = now_sec + (int64_t)c->config->server_days * DAY_SEC;
    int64_t authority_not_after = certificate_not_after(c->authority.certificate);
    _cleanup_(freep) char *pem = NULL;
    int r;

    if (not_after > authority_not_after)
        not_after = authority_not_after;
    certificate = certificate_issue_server(c->authority.certificate, c->authority.key, key,
                                           c->config->names, now_sec, not_after);
    pem = pem_print(certificate);
    r = keyring_private_key_store(c->keyring, SERVER_KEY, key);
    if (r == 0)
        r = state_file_write(c->server_path, span_str(pem));
    if (r < 0) /* it serves all the same; the next start makes another */
        log_event(LOG_WARNING, r, "cannot store the server certificate", F_PATH(c->server_path));
    log_event(LOG_INFO, 0, "made a server certificate", F_STR("name", c->config->names[0]),
              F_NUM("days", (not_after - now_sec) / DAY_SEC));
    return server_print(c, certificate, key);
}

/* True: it is another now. */
static bool server_renew(struct certificates *c, int64_t now_sec)
{
    _cleanup_(x509_freep) X509 *current =
        c->server.chain_pem ? pem_first(c->server.chain_pem) : NULL;
    struct server_certificate server;

    if (current && server_holds(c, current, now_sec))
        return false;
    if (current || server_load(c, now_sec, &server) != 0)
        server = server_make(c, now_sec);
    server_done(&c->server);
    c->server = server;
    return true;
}

/* ---- life ---- */

struct certificates *certificates_new(const struct certificates_config *config,
                                      const struct keyring *keyring)
{
    struct certificates *c = xnew(struct certificates);

    c->config = config;
    c->keyring = keyring;
    c->authority_path = xasprintf("%s/edge-ca.pem", config->state_dir);
    c->server_path = xasprintf("%s/server.pem", config->state_dir);
    return c;
}

struct certificates *certificates_free(struct certificates *certificates)
{
    if (!certificates)
        return NULL;
    authority_done(&certificates->authority);
    server_done(&certificates->server);
    free(certificates->authority_path);
    free(certificates->server_path);
    free(certificates);
    return NULL;
}

int certificates_renew(struct certificates *certificates, int64_t now_sec, bool *ret_changed)
{
    struct certificates *c = certificates;
    struct authority authority;
    int r;

    if (c->config->authority_path)
        r = authority_configured(c, now_sec, &authority);
    else
        r = authority_quickstart(c, now_sec, &authority);
    if (r < 0)
        return r;
    authority_done(&c->authority);
    c->authority = authority;
    authority_warn(c, now_sec);
    *ret_changed = server_renew(c, now_sec);
    return 0;
}

const struct server_certificate *certificates_server(const struct certificates *certificates)
{
    return certificates->server.chain_pem ? &certificates->server : NULL;
}

const char *certificates_authority_pem(const struct certificates *certificates)
{
    return certificates->authority.pem;
}
