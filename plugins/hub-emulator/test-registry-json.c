#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "registry-json.h"

static int parse(const char *text, struct identity_spec *ret, struct registry_error *error,
                 json_t **ret_json)
{
    *ret_json = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(*ret_json);
    return identity_spec_from_json(*ret_json, ret, error);
}

static void test_spec_from_json_reads_all(void **state)
{
    struct registry_error error;
    struct identity_spec spec;
    json_t *json;
    int r = parse(
        "{\"deviceId\":\"d\",\"moduleId\":\"m\",\"managedBy\":\"me\",\"status\":\"Disabled\","
        "\"statusReason\":\"x\","
        "\"capabilities\":{\"iotEdge\":true},\"deviceScope\":\"s\",\"parentScopes\":[\"p\",\"q\"],"
        "\"authentication\":{\"type\":\"selfSigned\",\"symmetricKey\":{\"primaryKey\":\"a\","
        "\"secondaryKey\":null},"
        "\"x509Thumbprint\":{\"primaryThumbprint\":\"t\"}},\"etag\":\"ignored\","
        "\"lastActivityTime\":7}",
        &spec, &error, &json);

    assert_int_equal(r, 0);
    assert_string_equal(spec.device_id, "d");
    assert_string_equal(spec.module_id, "m");
    assert_string_equal(spec.managed_by, "me");
    assert_int_equal(spec.enabled, 0);
    assert_string_equal(spec.status_reason, "x");
    assert_int_equal(spec.edge, 1);
    assert_string_equal(spec.scope, "s");
    assert_string_equal(spec.parent_scopes[1], "q");
    assert_null(spec.parent_scopes[2]);
    assert_int_equal(spec.credentials_kind, CREDENTIALS_SELF_SIGNED);
    assert_string_equal(spec.primary_key, "a");
    assert_null(spec.secondary_key);
    assert_string_equal(spec.primary_thumbprint, "t");
    identity_spec_done(&spec);
    json_decref(json);
}

static void test_spec_from_json_leaves_unsaid(void **state)
{
    static const char *const texts[] = {
        "{}",
        "{\"status\":null,\"capabilities\":null,\"authentication\":null,\"parentScopes\":null,"
        "\"deviceScope\":null}",
        "{\"capabilities\":{}}",
    };

    for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
        struct registry_error error;
        struct identity_spec spec;
        json_t *json;

        assert_int_equal(parse(texts[i], &spec, &error, &json), 0);
        assert_null(spec.device_id);
        assert_int_equal(spec.credentials_kind, -1);
        assert_int_equal(spec.enabled, -1);
        assert_int_equal(spec.edge, -1);
        assert_null(spec.scope);
        assert_null(spec.parent_scopes);
        json_decref(json);
    }
}

static void test_spec_from_json_refuses(void **state)
{
    static const char *const texts[] = {
        "[]",
        "7",
        "{\"deviceId\":7}",
        "{\"status\":\"off\"}",
        "{\"status\":true}",
        "{\"capabilities\":{\"iotEdge\":\"yes\"}}",
        "{\"authentication\":\"sas\"}",
        "{\"authentication\":{\"type\":\"password\"}}",
        "{\"authentication\":{\"type\":1}}",
        "{\"authentication\":{\"symmetricKey\":{\"primaryKey\":1}}}",
        "{\"authentication\":{\"x509Thumbprint\":{\"secondaryThumbprint\":{}}}}",
        "{\"parentScopes\":\"s\"}",
        "{\"parentScopes\":[1]}",
    };

    for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
        struct registry_error error = {};
        struct identity_spec spec;
        json_t *json;

        assert_int_equal(parse(texts[i], &spec, &error, &json), REGISTRY_E_ARGUMENT);
        assert_non_null(error.expected);
        json_decref(json);
    }
}

static void test_time_to_text(void **state)
{
    static const struct {
        int64_t msec;
        const char *want;
    } cases[] = {
        { 0, "0001-01-01T00:00:00Z" },
        { 1, "1970-01-01T00:00:00.001Z" },
        { 1767323045678, "2026-01-02T03:04:05.678Z" },
    };
    char text[TIME_TEXT_BYTES];

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        time_to_text(cases[i].msec, text);
        assert_string_equal(text, cases[i].want);
    }
}

/* What clients look for must be there, null or not (identity.md §9.2, §12). */
static void test_forms(void **state)
{
    static const char *const device_keys[] = {
        "deviceId",
        "generationId",
        "etag",
        "connectionState",
        "status",
        "statusReason",
        "connectionStateUpdatedTime",
        "statusUpdatedTime",
        "lastActivityTime",
        "cloudToDeviceMessageCount",
        "authentication",
        "capabilities",
        "parentScopes",
    };
    static const char *const scope_keys[] = { "deviceId",       "generationId", "status",
                                              "authentication", "capabilities", "deviceScope",
                                              "parentScopes" };
    char id[] = "d", generation[] = "1", etag[] = "e";
    const struct device device = { .id = id,
                                   .enabled = true,
                                   .identity = { .generation_id = generation, .etag = etag } };
    json_t *json = device_to_json(&device), *scope = device_to_scope_json(&device);

    for (size_t i = 0; i < ELEMENTSOF(device_keys); i++)
        assert_non_null(json_object_get(json, device_keys[i]));
    for (size_t i = 0; i < ELEMENTSOF(scope_keys); i++)
        assert_non_null(json_object_get(scope, scope_keys[i]));
    assert_true(json_is_null(json_object_get(scope, "deviceScope")));
    assert_string_equal(json_string_value(json_object_get(json, "connectionState")),
                        "Disconnected");
    assert_string_equal(json_string_value(json_object_get(json, "lastActivityTime")),
                        "0001-01-01T00:00:00Z");
    json_decref(json);
    json_decref(scope);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec_from_json_reads_all),
        cmocka_unit_test(test_spec_from_json_leaves_unsaid),
        cmocka_unit_test(test_spec_from_json_refuses),
        cmocka_unit_test(test_time_to_text),
        cmocka_unit_test(test_forms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
