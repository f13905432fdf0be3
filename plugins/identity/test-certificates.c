#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "certificates.h"
#include "test-folder.h"
#include "test-pki.h"

#define NOW INT64_C(1800000000)
#define DAY INT64_C(86400)
#define LONG_NAME                                                                                  \
    "a-gateway-with-a-host-name-of-more-than-sixty-four-characters.plant-seven.example.net"

static const char *const names[] = { LONG_NAME, "edgeHub",        "10.0.0.7", "fd00::7",
                                     "EDGEHUB", "gw.example.net", NULL };

struct world {
    char *folder;
    struct keyring *keyring;
    struct certificates_config config;
    struct certificates *certificates;
};

static int setup(void **state)
{
    struct world *w = xnew(struct world);

    w->folder = folder_new();
    assert_int_equal(keyring_new(w->folder, &w->keyring), 0);
    w->config = (struct certificates_config){
        .state_dir = w->folder, .device_id = "edge1", .names = names, .server_days = 30
    };
    w->certificates = certificates_new(&w->config, w->keyring);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    certificates_free(w->certificates);
    keyring_free(w->keyring);
    folder_removep(&w->folder);
    free(w);
    return 0;
}

static void restart(struct world *w)
{
    certificates_free(w->certificates);
    w->certificates = certificates_new(&w->config, w->keyring);
}

static X509 *pem_at(const char *pem, unsigned index)
{
    _cleanup_(bio_freep) BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    while (index-- > 0) {
        X509_free(certificate);
        certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    }
    return certificate;
}

/* What a client does: chain to the authority, for a TLS server, in strict mode, at that time. */
static int verify(const char *chain_pem, const char *authority_pem, int64_t now_sec)
{
    _cleanup_(x509_freep) X509 *leaf = pem_at(chain_pem, 0), *authority = pem_at(authority_pem, 0);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    int error;

    must(X509_STORE_add_cert(store, authority) == 1);
    must(X509_STORE_CTX_init(context, store, leaf, NULL) == 1);
    X509_STORE_CTX_set_purpose(context, X509_PURPOSE_SSL_SERVER);
    X509_STORE_CTX_set_time(context, 0, (time_t)now_sec);
    X509_STORE_CTX_set_flags(context, X509_V_FLAG_X509_STRICT);
    X509_verify_cert(context);
    error = X509_STORE_CTX_get_error(context);
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    return error;
}

static void test_quickstart(void **state)
{
    struct world *w = *state;
    const struct server_certificate *server;
    bool changed = false;

    assert_null(certificates_server(w->certificates));
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    assert_true(changed);
    server = certificates_server(w->certificates);
    assert_int_equal(server->not_after_sec, NOW + 30 * DAY);
    assert_int_equal(verify(server->chain_pem, certificates_authority_pem(w->certificates), NOW),
                     X509_V_OK);
    assert_int_equal(
        verify(server->chain_pem, certificates_authority_pem(w->certificates), NOW - 600),
        X509_V_OK);
    assert_non_null(strstr(server->chain_pem, certificates_authority_pem(w->certificates)));
    assert_memory_equal(server->private_key_pem, "-----BEGIN PRIVATE KEY-----", 27);
}

static void test_names(void **state)
{
    struct world *w = *state;
    _cleanup_(x509_freep) X509 *leaf = NULL;
    char common_name[128];
    bool changed;

    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    leaf = pem_at(certificates_server(w->certificates)->chain_pem, 0);
    assert_int_equal(X509_check_host(leaf, LONG_NAME, 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(leaf, "edgehub", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(leaf, "gw.example.net", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(leaf, "other.example.net", 0, 0, NULL), 0);
    assert_int_equal(X509_check_host(leaf, "10.0.0.7", 0, 0, NULL), 0); /* not as a DNS name */
    assert_int_equal(X509_check_ip_asc(leaf, "10.0.0.7", 0), 1);
    assert_int_equal(X509_check_ip_asc(leaf, "fd00::7", 0), 1);
    assert_int_equal(X509_check_ip_asc(leaf, "10.0.0.8", 0), 0);
    assert_int_equal(X509_NAME_get_text_by_NID(X509_get_subject_name(leaf), NID_commonName,
                                               common_name, sizeof(common_name)),
                     64);
    assert_memory_equal(common_name, LONG_NAME, 64);
}

static void test_extensions(void **state)
{
    struct world *w = *state;
    _cleanup_(x509_freep) X509 *leaf = NULL, *authority = NULL;
    bool changed;

    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    leaf = pem_at(certificates_server(w->certificates)->chain_pem, 0);
    authority = pem_at(certificates_server(w->certificates)->chain_pem, 1);
    assert_int_equal(X509_get_extended_key_usage(leaf), XKU_SSL_SERVER);
    assert_int_equal(X509_get_key_usage(leaf), KU_DIGITAL_SIGNATURE);
    assert_false(X509_get_extension_flags(leaf) & EXFLAG_CA);
    assert_int_equal(ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(leaf),
                                           X509_get0_subject_key_id(authority)),
                     0);
    assert_non_null(X509_get0_subject_key_id(leaf));
    assert_true(X509_get_extension_flags(authority) & EXFLAG_CA);
    assert_int_equal(X509_get_pathlen(authority), 0);
    assert_int_equal(X509_get_key_usage(authority), KU_DIGITAL_SIGNATURE | KU_KEY_CERT_SIGN);
    assert_true(ASN1_STRING_length(X509_get0_serialNumber(leaf)) >= 8);
    assert_int_not_equal(
        ASN1_INTEGER_cmp(X509_get0_serialNumber(leaf), X509_get0_serialNumber(authority)), 0);
}

static void test_kept_over_a_restart(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *chain = NULL;
    bool changed = false;
    uint64_t version;

    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    chain = xstrdup(certificates_server(w->certificates)->chain_pem);
    version = certificates_server(w->certificates)->version;
    assert_int_equal(certificates_renew(w->certificates, NOW + DAY, &changed), 0);
    assert_false(changed);
    restart(w);
    assert_int_equal(certificates_renew(w->certificates, NOW + DAY, &changed), 0);
    assert_true(changed);
    assert_string_equal(certificates_server(w->certificates)->chain_pem, chain);
    assert_int_equal(certificates_server(w->certificates)->version, version);
}

/* At 80 %: the server certificate after 24 of its 30 days, the quickstart CA after 72 of 90. */
static void test_renewal(void **state)
{
    static const struct {
        int64_t day;
        bool changed, same_authority;
    } steps[] = {
        { 0, true, true },  { 23, false, true }, { 24, true, true },  { 47, false, true },
        { 48, true, true }, { 71, false, true }, { 72, true, false }, { 73, false, true },
    };
    struct world *w = *state;
    _cleanup_(freep) char *authority = NULL;
    uint64_t version = 0;

    for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
        int64_t now = NOW + steps[i].day * DAY;
        bool changed = !steps[i].changed;

        assert_int_equal(certificates_renew(w->certificates, now, &changed), 0);
        assert_int_equal(changed, steps[i].changed);
        if (changed)
            assert_int_not_equal(certificates_server(w->certificates)->version, version);
        version = certificates_server(w->certificates)->version;
        if (authority)
            assert_int_equal(strcmp(authority, certificates_authority_pem(w->certificates)) == 0,
                             steps[i].same_authority);
        free(authority);
        authority = xstrdup(certificates_authority_pem(w->certificates));
        assert_int_equal(verify(certificates_server(w->certificates)->chain_pem, authority, now),
                         X509_V_OK);
    }
}

/* They were made while the clock was ahead: the server certificate is made anew, the CA is not, for
 * it may be the clock that is wrong now. */
static void test_clock_set_back(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *authority = NULL;
    bool changed = false;

    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    authority = xstrdup(certificates_authority_pem(w->certificates));
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(certificates_renew(w->certificates, NOW - DAY, &changed), 0);
        assert_int_equal(changed, i == 0);
        assert_int_equal(certificates_server(w->certificates)->not_after_sec, NOW + 29 * DAY);
        assert_string_equal(authority, certificates_authority_pem(w->certificates));
    }
}

static void test_other_names_other_certificate(void **state)
{
    static const char *const others[] = { "moved.example.net", "edgeHub", NULL };
    struct world *w = *state;
    _cleanup_(x509_freep) X509 *leaf = NULL;
    _cleanup_(freep) char *authority = NULL;
    uint64_t version;
    bool changed;

    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    authority = xstrdup(certificates_authority_pem(w->certificates));
    version = certificates_server(w->certificates)->version;
    w->config.names = others;
    restart(w);
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    assert_int_not_equal(certificates_server(w->certificates)->version, version);
    leaf = pem_at(certificates_server(w->certificates)->chain_pem, 0);
    assert_int_equal(X509_check_host(leaf, "moved.example.net", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(leaf, "gw.example.net", 0, 0, NULL), 0);
    assert_string_equal(authority, certificates_authority_pem(w->certificates));
}

/* A damaged server certificate is made anew; a damaged CA is not: every client would be cut off by
 * it. */
static void test_damaged_files(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *server = xasprintf("%s/server.pem", w->folder),
                          *key = xasprintf("%s/keys/server.key", w->folder);
    _cleanup_(freep) char *authority = xasprintf("%s/edge-ca.pem", w->folder);
    bool changed = false;

    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    file_put(server, "x", 1, 0600);
    restart(w);
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    file_put(key, "x", 1, 0600);
    restart(w);
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    assert_int_equal(verify(certificates_server(w->certificates)->chain_pem,
                            certificates_authority_pem(w->certificates), NOW),
                     X509_V_OK);
    file_put(authority, "x", 1, 0600);
    restart(w);
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), -EINVAL);
    assert_null(certificates_server(w->certificates));
}

static void put_pem(const char *path, const struct pki *pki, const char *key_path,
                    unsigned key_mode)
{
    _cleanup_(freep) char *pem = pki_pem(pki->certificate);
    char *key = keyring_private_key_print(pki->key);

    file_put(path, pem, strlen(pem), 0644);
    file_put(key_path, key, strlen(key), key_mode);
    keyring_text_free(key);
}

static void test_configured(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *path = xasprintf("%s/own.pem", w->folder),
                          *key_path = xasprintf("%s/own.key", w->folder);
    _cleanup_(freep) char *own_pem = NULL;
    _cleanup_(pki_done) struct pki own = {}, next = {}, leaf = {}, old = {};
    bool changed = false;

    w->config.authority_path = path;
    w->config.authority_key_path = key_path;
    own = pki_make(NULL, &(struct pki_wish){ "own", NULL, true, NULL, NOW - DAY, NOW + 10 * DAY });
    next =
        pki_make(NULL, &(struct pki_wish){ "next", NULL, true, NULL, NOW - DAY, NOW + 100 * DAY });
    leaf =
        pki_make(NULL, &(struct pki_wish){ "no ca", NULL, false, NULL, NOW - DAY, NOW + 10 * DAY });
    old = pki_make(NULL, &(struct pki_wish){ "old", NULL, true, NULL, NOW - 9 * DAY, NOW - 1 });

    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), -ENOENT);
    put_pem(path, &own, key_path, 0644);
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), -EINVAL);
    put_pem(path, &leaf, key_path, 0600);
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), -EINVAL);
    put_pem(path, &old, key_path, 0600);
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), -EINVAL);
    put_pem(path, &next, key_path, 0600);
    own_pem = pki_pem(own.certificate);
    file_put(path, own_pem, strlen(own_pem), 0644); /* with the key of another */
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), -EINVAL);
    assert_null(certificates_server(w->certificates));

    put_pem(path, &own, key_path, 0600);
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    assert_int_equal(certificates_server(w->certificates)->not_after_sec,
                     NOW + 10 * DAY); /* not beyond the CA */
    assert_int_equal(verify(certificates_server(w->certificates)->chain_pem, own_pem, NOW),
                     X509_V_OK);

    /* A human replaces the files, badly at first: what was in force stays; then well, and it is
     * taken within the hour. */
    put_pem(path, &next, key_path, 0644);
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), -EINVAL);
    assert_int_equal(verify(certificates_server(w->certificates)->chain_pem, own_pem, NOW),
                     X509_V_OK);
    put_pem(path, &next, key_path, 0600);
    assert_int_equal(certificates_renew(w->certificates, NOW, &changed), 0);
    assert_true(changed);
    assert_int_equal(verify(certificates_server(w->certificates)->chain_pem,
                            certificates_authority_pem(w->certificates), NOW),
                     X509_V_OK);
    assert_int_equal(certificates_server(w->certificates)->not_after_sec, NOW + 30 * DAY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_quickstart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_extensions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kept_over_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_renewal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_set_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_names_other_certificate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_configured, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
