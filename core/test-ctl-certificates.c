#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "ctl-certificates.h"

static X509 *x509_of(const struct certificate *c)
{
    _cleanup_(freep) char *pem = certificate_pem(c);
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *x509 = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    BIO_free(bio);
    assert_non_null(x509);
    return x509;
}

static EVP_PKEY *key_of(const struct certificate *c)
{
    _cleanup_(freep) char *pem = certificate_key_pem(c);
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);

    BIO_free(bio);
    assert_non_null(key);
    return key;
}

/* As a TLS client would: X509_V_OK, or why not. */
static int verify(const struct certificate *leaf, const struct certificate *between,
                  const struct certificate *root)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    STACK_OF(X509) *untrusted = sk_X509_new_null();
    X509 *leaf_x509 = x509_of(leaf), *root_x509 = x509_of(root),
         *between_x509 = between ? x509_of(between) : NULL;
    int error;

    X509_STORE_add_cert(store, root_x509);
    if (between_x509)
        sk_X509_push(untrusted, between_x509);
    X509_STORE_CTX_init(context, store, leaf_x509, untrusted);
    X509_STORE_CTX_set_purpose(context, X509_PURPOSE_SSL_SERVER);
    X509_STORE_CTX_set_flags(context, X509_V_FLAG_X509_STRICT);
    X509_verify_cert(context);
    error = X509_STORE_CTX_get_error(context);
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    sk_X509_free(untrusted);
    X509_free(between_x509);
    X509_free(leaf_x509);
    X509_free(root_x509);
    return error;
}

static void test_certificates_chain(void **state)
{
    static const char *const names[] = { "hub.local", "localhost", NULL }, *const addresses[] = {
        "127.0.0.2", NULL
    };
    _cleanup_(certificate_freep) struct certificate *root = certificate_new_root("Test root");
    _cleanup_(certificate_freep) struct certificate *issuer =
        certificate_new_issuer("Issuer", root);
    _cleanup_(certificate_freep) struct certificate *server =
        certificate_new_server("hub.local", names, addresses, root);
    _cleanup_(certificate_freep) struct certificate *leaf =
        certificate_new_server("edge.local", names, addresses, issuer);
    _cleanup_(certificate_freep) struct certificate *stranger = certificate_new_root("Test root");
    _cleanup_(certificate_freep) struct certificate *too_deep =
        certificate_new_issuer("Deep", issuer);
    _cleanup_(certificate_freep) struct certificate *deep_leaf =
        certificate_new_server("deep", names, addresses, too_deep);
    X509 *x509 = x509_of(server);
    EVP_PKEY *key = key_of(server);

    assert_int_equal(verify(server, NULL, root), X509_V_OK);
    assert_int_equal(verify(leaf, issuer, root), X509_V_OK);
    assert_int_not_equal(verify(server, NULL, stranger), X509_V_OK);
    assert_int_not_equal(verify(deep_leaf, too_deep, issuer), X509_V_OK);
    assert_int_equal(X509_check_private_key(x509, key), 1);
    assert_int_equal(X509_check_host(x509, "hub.local", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(x509, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(x509, "other", 0, 0, NULL), 0);
    assert_int_equal(X509_check_ip_asc(x509, "127.0.0.2", 0), 1);
    assert_int_equal(X509_check_ip_asc(x509, "127.0.0.3", 0), 0);
    X509_free(x509);
    EVP_PKEY_free(key);
}

static void test_certificates_long_common_name(void **state)
{
    char name[200] = "aziot-edge CA ", found[200];
    _cleanup_(certificate_freep) struct certificate *root = NULL;
    X509 *x509;

    memset(name + 14, 'x', 128);
    root = certificate_new_root(name);
    assert_non_null(root);
    x509 = x509_of(root);
    assert_int_equal(X509_NAME_get_text_by_NID(X509_get_subject_name(x509), NID_commonName, found,
                                               sizeof(found)),
                     64);
    assert_memory_equal(found, name, 64);
    X509_free(x509);
}

static void test_random_key_base64(void **state)
{
    _cleanup_(freep) char *a = random_key_base64(32), *b = random_key_base64(32);

    assert_int_equal(strlen(a), 44);
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificates_chain),
        cmocka_unit_test(test_certificates_long_common_name),
        cmocka_unit_test(test_random_key_base64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
