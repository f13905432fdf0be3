#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hub-json.h"

#define KEY "bXktZGV2aWNlLWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE="

static const char listing[] =
    "{\"devices\":["
    "{\"deviceId\":\"leaf1\",\"generationId\":\"638\",\"status\":\"enabled\",\"authentication\":{"
    "\"type\":\"sas\","
    "\"symmetricKey\":{\"primaryKey\":\"" KEY "\",\"secondaryKey\":\"b3RoZXI=\"},"
    "\"x509Thumbprint\":{\"primaryThumbprint\":null,\"secondaryThumbprint\":null}},"
    "\"capabilities\":{\"iotEdge\":false},\"deviceScope\":\"ms-azure-iot-edge://edge1-638\","
    "\"parentScopes\":[\"ms-azure-iot-edge://edge1-638\"]},"
    "{\"deviceId\":\"leaf2\",\"status\":\"Disabled\",\"authentication\":{\"type\":\"sas\","
    "\"symmetricKey\":{\"primaryKey\":\"" KEY "\",\"secondaryKey\":null}}},"
    "{\"deviceId\":\"leaf3\",\"authentication\":{\"type\":\"selfSigned\","
    "\"x509Thumbprint\":{\"primaryThumbprint\":\"AABB\"}}},"
    "{\"deviceId\":\"leaf4\",\"authentication\":{\"type\":\"certificateAuthority\"}},"
    "{\"deviceId\":\"edge1\",\"authentication\":{\"symmetricKey\":{\"primaryKey\":\"" KEY "\"}},"
    "\"capabilities\":{\"iotEdge\":true},\"deviceScope\":\"ms-azure-iot-edge://"
    "edge1-638\",\"unknown\":[1,{}]}"
    "],\"modules\":["
    "{\"moduleId\":\"tempSensor\",\"deviceId\":\"edge1\",\"generationId\":\"7\",\"authentication\":"
    "{\"type\":\"sas\","
    "\"symmetricKey\":{\"primaryKey\":\"" KEY "\",\"secondaryKey\":\"b3RoZXI=\"}}},"
    "{\"moduleId\":\"fresh\",\"deviceId\":\"edge1\",\"authentication\":{\"type\":\"none\"}},"
    "{\"moduleId\":\"odd\",\"deviceId\":\"edge1\",\"authentication\":{\"type\":\"retina\"}}"
    "],\"continuationLink\":\"next\"}";

static void test_page_good(void **state)
{
    struct scope_page page;
    const char *expected;

    assert_int_equal(scope_page_parse(span_str(listing), &page, &expected), 0);
    assert_int_equal(page.count, 8);
    assert_int_equal(page.device_count, 5);
    assert_int_equal(page.skipped, 0);
    assert_string_equal(page.continuation, "next");

    assert_string_equal(page.identities[0]->device_id, "leaf1");
    assert_null(page.identities[0]->module_id);
    assert_int_equal(page.identities[0]->auth, SCOPE_AUTH_SAS);
    assert_true(page.identities[0]->enabled);
    assert_false(page.identities[0]->is_edge);
    assert_int_equal(page.identities[0]->primary_key->len, 32);
    assert_int_equal(page.identities[0]->secondary_key->len, 5);
    assert_int_equal(page.identities[0]->parent_scope_count, 1);
    assert_null(page.identities[0]->primary_thumbprint);
    assert_false(page.identities[1]->enabled);
    assert_null(page.identities[1]->secondary_key);
    assert_int_equal(page.identities[2]->auth, SCOPE_AUTH_THUMBPRINT);
    assert_string_equal(page.identities[2]->primary_thumbprint, "AABB");
    assert_null(page.identities[2]->secondary_thumbprint);
    assert_int_equal(page.identities[3]->auth, SCOPE_AUTH_AUTHORITY);
    assert_int_equal(page.identities[4]->auth, SCOPE_AUTH_SAS); /* no type said: sas */
    assert_true(page.identities[4]->is_edge);
    assert_string_equal(page.identities[5]->module_id, "tempSensor");
    assert_string_equal(page.identities[5]->generation_id, "7");
    assert_true(page.identities[5]->enabled);
    assert_int_equal(page.identities[6]->auth, SCOPE_AUTH_NONE);
    assert_int_equal(page.identities[7]->auth, SCOPE_AUTH_NONE);
    scope_page_done(&page);
}

/* A record that makes no sense is left out alone; the original throws the whole refresh away. */
static void test_page_skips_bad_records(void **state)
{
    static const char *const bad[] = {
        "{}",
        "null",
        "7",
        "{\"deviceId\":7}",
        "{\"deviceId\":\"\"}",
        "{\"deviceId\":\"a b\"}",
        "{\"deviceId\":\"a/b\",\"authentication\":{\"type\":\"none\"}}",
        "{\"deviceId\":\"d\"}",
        "{\"deviceId\":\"d\",\"authentication\":{\"type\":\"sas\"}}",
        "{\"deviceId\":\"d\",\"authentication\":{\"type\":\"sas\",\"symmetricKey\":{\"primaryKey\":"
        "\"\"}}}",
        "{\"deviceId\":\"d\",\"authentication\":{\"type\":\"sas\",\"symmetricKey\":{\"primaryKey\":"
        "\"!\"}}}",
        "{\"deviceId\":\"d\",\"authentication\":{\"type\":\"sas\",\"symmetricKey\":null}}",
        "{\"deviceId\":\"d\",\"authentication\":{\"type\":\"selfSigned\"}}",
        "{\"deviceId\":\"d\",\"authentication\":{\"type\":\"selfSigned\",\"x509Thumbprint\":{"
        "\"primaryThumbprint\":null}}}",
    };

    for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
        _cleanup_(freep) char *text = NULL;
        struct scope_page page;
        const char *expected;

        text = xasprintf(
            "{\"devices\":[%s,{\"deviceId\":\"good\",\"authentication\":{\"type\":\"none\"}}],"
            "\"modules\":[{\"deviceId\":\"good\"}],\"continuationLink\":\"\"}",
            bad[i]);
        assert_int_equal(scope_page_parse(span_str(text), &page, &expected), 0);
        assert_int_equal(page.skipped, 2);
        assert_int_equal(page.count, 1);
        assert_string_equal(page.identities[0]->device_id, "good");
        assert_null(page.continuation);
        scope_page_done(&page);
    }
}

/* What could not be read back from the cache is left out of the record, and the rest holds; a page
 * that has a next one, however that is called, is never taken for the last. */
static void test_page_long_texts(void **state)
{
    _cleanup_(freep) char *text = NULL, *a = xnew_n(char, 5000 + 1);
    const struct scope_identity *identity;
    struct scope_page page;
    const char *expected;

    memset(a, 'a', 5000);
    text = xasprintf("{\"devices\":[{\"deviceId\":\"d\",\"authentication\":{\"type\":\"none\"},"
                     "\"generationId\":\"%s\",\"deviceScope\":\"%s\",\"parentScopes\":[\"%s\","
                     "7,\"s\"]}],\"continuationLink\":\"%s\"}",
                     a, a, a, a);
    assert_int_equal(scope_page_parse(span_str(text), &page, &expected), 0);
    assert_int_equal(page.count, 1);
    identity = page.identities[0];
    assert_null(identity->generation_id);
    assert_null(identity->device_scope);
    assert_int_equal(identity->parent_scope_count, 1);
    assert_string_equal(identity->parent_scopes[0], "s");
    assert_string_equal(page.continuation, a);
    scope_page_done(&page);
}

static void test_page_malformed(void **state)
{
    static const struct {
        const char *in;
        int want;
    } cases[] = {
        { "", HUB_JSON_E_MALFORMED },
        { "[]", HUB_JSON_E_MALFORMED },
        { "null", HUB_JSON_E_MALFORMED },
        { "{}", HUB_JSON_E_MALFORMED },
        { "{\"Message\":\"ErrorCode:x\"}", HUB_JSON_E_MALFORMED },
        { "{\"devices\":{},\"modules\":[]}", HUB_JSON_E_MALFORMED },
        { "{\"devices\":[],\"modules\":7}", HUB_JSON_E_MALFORMED },
        { "{\"devices\":[]", HUB_JSON_E_MALFORMED },
        { "{\"devices\":null,\"modules\":null,\"continuationLink\":null}", 0 },
        { "{\"devices\":[]}", 0 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct scope_page page;
        const char *expected = NULL;

        assert_int_equal(scope_page_parse(span_str(cases[i].in), &page, &expected), cases[i].want);
        if (cases[i].want == 0)
            scope_page_done(&page);
        else
            assert_non_null(expected);
    }
}

static void test_identity_round_trip(void **state)
{
    struct scope_page page;
    const char *expected;

    assert_int_equal(scope_page_parse(span_str(listing), &page, &expected), 0);
    for (size_t i = 0; i < page.count; i++) {
        _cleanup_(scope_identity_freep) struct scope_identity *again = NULL;
        _cleanup_(freep) char *text = scope_identity_print(page.identities[i]);

        assert_int_equal(scope_identity_parse(span_str(text), &again), 0);
        assert_true(scope_identity_equal(page.identities[i], again));
    }
    scope_page_done(&page);
}

static void test_module(void **state)
{
    static const struct {
        const char *in;
        int want;
        bool has_key;
    } cases[] = {
        { "{\"generationId\":\"7\",\"authentication\":{\"type\":\"sas\",\"symmetricKey\":{"
          "\"primaryKey\":\"" KEY "\"}}}",
          0, true },
        { "{\"generationId\":\"7\",\"authentication\":{\"type\":\"none\",\"symmetricKey\":{"
          "\"primaryKey\":\"" KEY "\"}}}",
          0, false },
        { "{\"generationId\":\"7\",\"authentication\":{\"symmetricKey\":{\"primaryKey\":null}}}", 0,
          false },
        { "{\"generationId\":\"7\"}", 0, false },
        { "{\"generationId\":7}", HUB_JSON_E_MALFORMED, false },
        { "{}", HUB_JSON_E_MALFORMED, false },
        { "nope", HUB_JSON_E_MALFORMED, false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct hub_module m = {};
        const char *expected;

        assert_int_equal(hub_module_parse(span_str(cases[i].in), &m, &expected), cases[i].want);
        assert_int_equal(m.primary_key != NULL, cases[i].has_key);
        hub_module_done(&m);
    }
}

static void test_requests(void **state)
{
    struct sas_key a = { "A", 1 }, b = { "B", 1 };
    _cleanup_(freep) char *first = hub_json_scope_listing(10, NULL, "edge1");
    _cleanup_(freep) char *next = hub_json_scope_listing(10, "c", "child1;edge1");
    _cleanup_(freep) char *device = hub_json_scope_lookup("leaf1", "", "edge1");
    _cleanup_(freep) char *module = hub_json_scope_lookup("leaf1", "m", "edge1");
    _cleanup_(freep) char *keys = hub_json_module_keys("edge1", "$edgeHub", NULL, &a, &b);

    assert_string_equal(first, "{\"pageSize\":10,\"authChain\":\"edge1\"}");
    assert_string_equal(
        next, "{\"pageSize\":10,\"continuationLink\":\"c\",\"authChain\":\"child1;edge1\"}");
    assert_string_equal(device, "{\"targetDeviceId\":\"leaf1\",\"authChain\":\"edge1\"}");
    assert_string_equal(
        module, "{\"targetDeviceId\":\"leaf1\",\"targetModuleId\":\"m\",\"authChain\":\"edge1\"}");
    assert_string_equal(
        keys,
        "{\"moduleId\":\"$edgeHub\",\"deviceId\":\"edge1\",\"authentication\":{\"type\":\"sas\","
        "\"symmetricKey\":{\"primaryKey\":\"QQ==\",\"secondaryKey\":\"Qg==\"}}}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_good),
        cmocka_unit_test(test_page_skips_bad_records),
        cmocka_unit_test(test_page_long_texts),
        cmocka_unit_test(test_page_malformed),
        cmocka_unit_test(test_identity_round_trip),
        cmocka_unit_test(test_module),
        cmocka_unit_test(test_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
