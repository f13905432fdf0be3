#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <openssl/crypto.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keyring.h"
#include "ossl.h"
#include "test-folder.h"

#define MASTER     "xlzmho1PqExwoo7EkmoGWYyjovlJ9xUySvkR6dVrFzM="
#define DEVICE     "bXktZGV2aWNlLWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE="
#define CONNECTION "HostName=hub1.example.net;DeviceId=edge1;SharedAccessKey=" DEVICE

static char *path_in(const char *folder, const char *name)
{
    return xasprintf("%s/%s", folder, name);
}

static void put_master(const char *folder)
{
    _cleanup_(freep) char *keys = path_in(folder, "keys"), *path = path_in(folder, "keys/master");
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t len;

    assert_int_equal(mkdir(keys, 0700), 0);
    bytes = base64_decode(span_str(MASTER), &len);
    file_put(path, bytes, len, 0600);
}

/* identity.md §5.1 */
static void test_module_keys_worked_example(void **state)
{
    _cleanup_(folder_removep) char *folder = folder_new();
    _cleanup_(keyring_freep) struct keyring *keyring = NULL;
    _cleanup_(freep) char *a = NULL, *b = NULL;
    struct sas_key primary = {}, secondary = {};

    put_master(folder);
    assert_int_equal(keyring_new(folder, &keyring), 0);
    keyring_module_keys(keyring, "tempSensor", "638000000000000001", &primary, &secondary);
    a = base64_encode(primary.bytes, primary.len);
    b = base64_encode(secondary.bytes, secondary.len);
    assert_string_equal(a, "xdl9HeGS2bgUv1/vXL2qy3+jh7NXxtpigLS+7VbLxNM=");
    assert_string_equal(b, "0AljBwhJWzO6pCxeM5JRZJwQ8QcXV8t7b5o4Ou07/MM=");
}

static void test_files_are_private_and_kept(void **state)
{
    static const char *const files[] = { "keys/master", "keys/cache" };
    _cleanup_(folder_removep) char *folder = folder_new();
    _cleanup_(freep) char *keys = path_in(folder, "keys");
    _cleanup_(keyring_freep) struct keyring *first = NULL, *second = NULL;
    struct sas_key a = {}, b = {}, unused = {};
    struct stat st;

    assert_int_equal(keyring_new(folder, &first), 0);
    assert_int_equal(stat(keys, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    for (size_t i = 0; i < ELEMENTSOF(files); i++) {
        _cleanup_(freep) char *path = path_in(folder, files[i]);

        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_int_equal(st.st_size, 32);
    }
    assert_int_equal(keyring_new(folder, &second), 0);
    keyring_module_keys(first, "m", "1", &a, &unused);
    keyring_module_keys(second, "m", "1", &b, &unused);
    assert_memory_equal(a.bytes, b.bytes, 32);
}

static void test_bad_key_files_are_refused(void **state)
{
    static const struct {
        size_t len;
        unsigned mode;
    } cases[] = { { 32, 0640 }, { 32, 0604 }, { 31, 0600 },
                  { 33, 0600 }, { 0, 0600 },  { 40000, 0600 } };
    static const char content[40000];

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(folder_removep) char *folder = folder_new();
        _cleanup_(freep) char *keys = path_in(folder, "keys"),
                              *path = path_in(folder, "keys/master");
        struct keyring *keyring = NULL;

        assert_int_equal(mkdir(keys, 0700), 0);
        file_put(path, content, cases[i].len, cases[i].mode);
        assert_int_equal(keyring_new(folder, &keyring), -EINVAL);
        assert_null(keyring);
    }
}

static void test_provision(void **state)
{
    static const struct {
        const char *content;
        unsigned mode;
        int want;
    } cases[] = {
        { CONNECTION, 0600, 0 },         { "  " CONNECTION "\r\n\n", 0400, 0 },
        { CONNECTION, 0640, -EINVAL },   { CONNECTION, 0602, -EINVAL },
        { "HostName=h", 0600, -EINVAL }, { "", 0600, -EINVAL },
    };
    _cleanup_(folder_removep) char *folder = folder_new();
    _cleanup_(freep) char *path = path_in(folder, "connection"),
                          *absent = path_in(folder, "absent");
    _cleanup_(keyring_freep) struct keyring *keyring = NULL;
    struct provisioning p = {};

    assert_int_equal(keyring_new(folder, &keyring), 0);
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        file_put(path, cases[i].content, strlen(cases[i].content), cases[i].mode);
        assert_int_equal(keyring_provision(keyring, "", path, &p), cases[i].want);
        if (cases[i].want == 0) {
            assert_string_equal(p.hub_hostname, "hub1.example.net");
            assert_string_equal(p.device_id, "edge1");
        }
        provisioning_done(&p);
    }
    assert_int_equal(keyring_provision(keyring, NULL, absent, &p), -ENOENT);
    assert_int_equal(keyring_provision(keyring, NULL, folder, &p), -EINVAL);
    assert_int_equal(keyring_provision(keyring, CONNECTION, NULL, &p), 0);
    provisioning_done(&p);
}

static void test_tokens(void **state)
{
    _cleanup_(folder_removep) char *folder = folder_new();
    _cleanup_(keyring_freep) struct keyring *keyring = NULL;
    _cleanup_(freep) char *device = NULL, *module = NULL;
    struct sas_key primary = {}, secondary = {};
    struct provisioning p = {};
    struct sas_token token;

    assert_int_equal(keyring_new(folder, &keyring), 0);
    assert_int_equal(keyring_provision(keyring, CONNECTION, NULL, &p), 0);
    device = keyring_device_token(keyring, "hub1.example.net/devices/dev-1", 1893456000);
    assert_string_equal(device,
                        "SharedAccessSignature sr=hub1.example.net%2Fdevices%2Fdev-1&"
                        "sig=bVuJpF5p8Im3oGl9IjJYN6wY4S%2BHStVXT4x5lOVLbUY%3D&se=1893456000");
    module = keyring_module_token(keyring, "$edgeHub", "7",
                                  "hub1.example.net/devices/edge1/modules/$edgeHub", 1893456000);
    assert_int_equal(sas_token_parse(span_str(module), &token), 0);
    keyring_module_keys(keyring, "$edgeHub", "7", &primary, &secondary);
    assert_int_equal(sas_token_check_signature(&token, &primary), 0);
    assert_int_equal(sas_token_check_signature(&token, &secondary), SAS_E_SIGNATURE);
    keyring_module_keys(keyring, "$edgeHub", "8", &primary, &secondary);
    assert_int_equal(sas_token_check_signature(&token, &primary), SAS_E_SIGNATURE);
    provisioning_done(&p);
}

static void test_seal(void **state)
{
    _cleanup_(folder_removep) char *folder = folder_new(), *elsewhere = folder_new();
    _cleanup_(keyring_freep) struct keyring *keyring = NULL, *other = NULL;
    struct buf sealed = {}, again = {}, text = {};

    assert_int_equal(keyring_new(folder, &keyring), 0);
    assert_int_equal(keyring_new(elsewhere, &other), 0);
    keyring_seal(keyring, SPAN("context"), SPAN("the text"), &sealed);
    keyring_seal(keyring, SPAN("context"), SPAN("the text"), &again);
    assert_int_equal(buf_len(&sealed), 12 + 8 + 16);
    assert_memory_not_equal(sealed.data, again.data, 12); /* a nonce is never used twice */

    assert_int_equal(keyring_unseal(keyring, SPAN("context"), buf_span(&sealed), &text), 0);
    assert_true(span_equal(buf_span(&text), SPAN("the text")));
    buf_done(&text);

    assert_int_equal(keyring_unseal(keyring, SPAN("another"), buf_span(&sealed), &text),
                     KEYRING_E_SEAL);
    assert_int_equal(keyring_unseal(keyring, SPAN(""), buf_span(&sealed), &text), KEYRING_E_SEAL);
    assert_int_equal(keyring_unseal(other, SPAN("context"), buf_span(&sealed), &text),
                     KEYRING_E_SEAL);
    for (size_t len = 0; len < buf_len(&sealed); len++)
        assert_int_equal(keyring_unseal(keyring, SPAN("context"), span_of(sealed.data, len), &text),
                         KEYRING_E_SEAL);
    for (size_t i = 0; i < buf_len(&sealed); i++) {
        sealed.data[i] ^= 1;
        assert_int_equal(keyring_unseal(keyring, SPAN("context"), buf_span(&sealed), &text),
                         KEYRING_E_SEAL);
        sealed.data[i] ^= 1;
    }
    buf_done(&again);
    keyring_seal(keyring, SPAN("c"), SPAN(""), &again);
    assert_int_equal(keyring_unseal(keyring, SPAN("c"), buf_span(&again), &text), 0);
    assert_int_equal(buf_len(&text), 0);
    buf_done(&text);
    buf_done(&again);
    buf_done(&sealed);
}

static void test_private_keys(void **state)
{
    _cleanup_(folder_removep) char *folder = folder_new();
    _cleanup_(freep) char *path = path_in(folder, "keys/k"), *open = path_in(folder, "open.key");
    _cleanup_(keyring_freep) struct keyring *keyring = NULL;
    _cleanup_(pkey_freep) EVP_PKEY *key = EVP_EC_gen("P-256"), *again = NULL;
    EVP_PKEY *none = NULL;
    struct stat st;
    char *text;

    assert_int_equal(keyring_new(folder, &keyring), 0);
    assert_int_equal(keyring_private_key_load(keyring, "k", &none), -ENOENT);
    assert_int_equal(keyring_private_key_store(keyring, "k", key), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(keyring_private_key_load(keyring, "k", &again), 0);
    assert_int_equal(EVP_PKEY_eq(key, again), 1);

    text = keyring_private_key_print(key);
    assert_memory_equal(text, "-----BEGIN PRIVATE KEY-----", 27);
    file_put(open, text, strlen(text), 0644);
    assert_int_equal(keyring_private_key_read(open, &none), -EINVAL);
    keyring_text_free(text);
    file_put(open, "no key", 6, 0600);
    assert_int_equal(keyring_private_key_read(open, &none), -EINVAL);
    assert_null(none);

    keyring_private_key_remove(keyring, "k");
    assert_int_equal(keyring_private_key_load(keyring, "k", &none), -ENOENT);
}

/* T18: no core, no look into /proc/PID/mem; and no key on a page that a core might hold. */
static void test_protect_process(void **state)
{
    assert_int_equal(keyring_protect_process(), 0);
    assert_int_equal(prctl(PR_GET_DUMPABLE), 0);
    assert_true(CRYPTO_secure_malloc_initialized());
    assert_int_equal(prctl(PR_SET_DUMPABLE, 1), 0); /* for whoever looks for leaks */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_protect_process),
        cmocka_unit_test(test_module_keys_worked_example),
        cmocka_unit_test(test_files_are_private_and_kept),
        cmocka_unit_test(test_bad_key_files_are_refused),
        cmocka_unit_test(test_provision),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_seal),
        cmocka_unit_test(test_private_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
