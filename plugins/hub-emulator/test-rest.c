#include "test-world.h"

#include "rest.h"

#define OWNER     WORLD_HOST, WORLD_POLICY, "iothubowner"
#define EDGE1_HUB WORLD_HOST "/devices/edge1/modules/%2524edgeHub", WORLD_KEY, NULL

static void test_route_find(void **state)
{
    static const struct {
        const char *method, *path;
        int want;
        const char *first, *second;
    } cases[] = {
        { "GET", "/devices", 0, NULL, NULL },
        { "GET", "/devices/", 0, NULL, NULL }, /* as the service SDK lists */
        { "GET", "/devices/d", 0, "d", NULL },
        { "GET", "/devices/d/", 0, "d", NULL },
        { "PUT", "/devices/a%23b%2Bc+d", 0, "a#b+c+d", NULL },
        { "GET", "/devices/d/modules", 0, "d", NULL },
        { "DELETE", "/devices/d/modules/%24m", 0, "d", "$m" },
        { "GET", "/devices/d/modules/$m", 0, "d", "$m" },
        { "POST", "/devices/e/modules/$edgeHub/getDeviceAndModuleOnBehalfOf", 0, "e", NULL },
        { "POST", "/devices/e/modules/%24edgeHub/getDeviceAndModuleOnBehalfOf", 0, "e", NULL },
        { "PATCH", "/devices/d", REST_E_NO_METHOD, NULL, NULL },
        { "POST", "/devices/d/modules/m", REST_E_NO_METHOD, NULL, NULL },
        { "GET", "/", REST_E_NO_PATH, NULL, NULL },
        { "GET", "", REST_E_NO_PATH, NULL, NULL },
        { "GET", "devices", REST_E_NO_PATH, NULL, NULL },
        { "GET", "/Devices", REST_E_NO_PATH, NULL, NULL },
        { "GET", "//devices", REST_E_NO_PATH, NULL, NULL },
        { "GET", "/devices//modules", REST_E_NO_PATH, NULL, NULL },
        { "GET", "/devices/d%00e", REST_E_NO_PATH, NULL, NULL },
        { "GET", "/devices/d/modules/m/more", REST_E_NO_PATH, NULL, NULL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        char *params[REST_PARAMS_MAX] = {};
        const struct rest_route *route;

        assert_int_equal(rest_route_find(cases[i].method, span_str(cases[i].path), &route, params),
                         cases[i].want);
        assert_string_equal(params[0] ? params[0] : "-", cases[i].first ? cases[i].first : "-");
        assert_string_equal(params[1] ? params[1] : "-", cases[i].second ? cases[i].second : "-");
        for (size_t p = 0; p < REST_PARAMS_MAX; p++)
            free(params[p]);
    }
}

/* One call with a token made for it; the answer is the caller's to end. */
static struct rest_call run(struct world *w, const char *resource, const char *key,
                            const char *policy, const char *method, const char *target,
                            const char *if_match, const char *body)
{
    _cleanup_(freep) char *token = world_token(resource, key, policy);
    struct rest_call call = {
        .registry = w->registry,
        .authority = &w->authority,
        .now_sec = WORLD_NOW,
        .method = method,
        .target = target,
        .authorization = token,
        .if_match_header = if_match,
        .body_text = span_str(body),
    };

    rest_dispatch(&call);
    call.authorization = NULL;
    return call;
}

static unsigned status(struct world *w, const char *resource, const char *key, const char *policy,
                       const char *method, const char *target, const char *if_match,
                       const char *body)
{
    struct rest_call call = run(w, resource, key, policy, method, target, if_match, body);
    unsigned code = call.status;

    assert_true(code == 204 || call.answer);
    assert_int_equal(code >= 400, call.error_code != NULL);
    rest_call_done(&call);
    return code;
}

static void test_who_may(void **state)
{
    static const struct {
        const char *resource, *key, *policy, *method, *target, *body;
        unsigned want;
    } cases[] = {
        { OWNER, "GET", "/devices/leaf1?api-version=2021-04-12", NULL, 200 },
        { WORLD_HOST, WORLD_POLICY, "registryRead", "GET", "/devices/leaf1", NULL, 200 },
        { WORLD_HOST, WORLD_POLICY, "registryRead", "PUT", "/devices/x", "{}", 401 },
        { WORLD_HOST, WORLD_POLICY, "service", "GET", "/devices/leaf1", NULL, 401 },
        { WORLD_HOST, WORLD_STRANGER, "iothubowner", "GET", "/devices/leaf1", NULL, 401 },
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, NULL, "GET", "/devices/leaf1", NULL, 401 },
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, NULL, "GET", "/devices/leaf1/modules", NULL,
          200 },
        { WORLD_HOST "/devices/LEAF1", WORLD_SECOND, NULL, "GET", "/devices/leaf1/modules/m", NULL,
          200 },
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, NULL, "PUT", "/devices/leaf1/modules/new", "{}",
          200 },
        { WORLD_HOST "/devices/leaf1/modules/m", WORLD_KEY, NULL, "GET", "/devices/leaf1/modules",
          NULL, 401 },
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, NULL, "GET", "/devices/leaf2/modules", NULL,
          401 },
        { WORLD_HOST, WORLD_POLICY, "registryRead", "DELETE", "/devices/leaf1/modules/m", NULL,
          401 },
        { EDGE1_HUB, "POST", "/devices/edge1/modules/$edgeHub/devicesAndModulesInTargetDeviceScope",
          "{}", 200 },
        { EDGE1_HUB, "POST",
          "/devices/child1/modules/$edgeHub/devicesAndModulesInTargetDeviceScope", "{}", 401 },
        { OWNER, "POST", "/devices/edge1/modules/$edgeHub/devicesAndModulesInTargetDeviceScope",
          "{}", 401 },
        { OWNER, "GET", "/nothing", NULL, 404 },
        { OWNER, "PATCH", "/devices/leaf1", NULL, 405 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(status(*state, cases[i].resource, cases[i].key, cases[i].policy,
                                cases[i].method, cases[i].target, NULL, cases[i].body),
                         cases[i].want);
}

static void test_outcomes(void **state)
{
    static const struct {
        const char *method, *target, *if_match, *body;
        unsigned want;
    } cases[] = {
        { "PUT", "/devices/new", NULL, "{\"deviceId\":\"new\"}", 200 },
        { "PUT", "/devices/new", NULL, "{\"deviceId\":\"new\"}", 409 },
        { "PUT", "/devices/new", "*", "{\"status\":\"disabled\"}", 200 },
        { "PUT", "/devices/new", "\"*\"", "{}", 200 },
        { "PUT", "/devices/new", "\"stale\"", "{}", 412 },
        { "PUT", "/devices/new", NULL, "{\"deviceId\":\"other\"}", 400 },
        { "PUT", "/devices/new2", NULL, "{", 400 },
        { "PUT", "/devices/new2", NULL, "", 400 },
        { "PUT", "/devices/b%20d", NULL, "{}", 400 },
        { "PUT", "/devices/none", "*", "{}", 404 },
        { "GET", "/devices/none", NULL, NULL, 404 },
        { "DELETE", "/devices/new", "\"stale\"", NULL, 412 },
        { "DELETE", "/devices/new", "\"*\"", NULL, 204 },
        { "DELETE", "/devices/new", "\"*\"", NULL, 404 },
        { "PUT", "/devices/leaf2/modules/x", NULL, "{\"moduleId\":\"x\",\"deviceId\":\"leaf2\"}",
          200 },
        { "PUT", "/devices/leaf2/modules/x", NULL, "{\"moduleId\":\"x\"}", 409 },
        { "PUT", "/devices/leaf2/modules/x", "*", "{\"moduleId\":\"y\"}", 400 },
        { "PUT", "/devices/leaf2/modules/y", "*", "{}", 404 },
        { "PUT", "/devices/none/modules/y", NULL, "{}", 404 },
        { "GET", "/devices/none/modules", NULL, NULL, 404 },
        { "GET", "/devices/leaf2/modules/y", NULL, NULL, 404 },
        { "DELETE", "/devices/leaf2/modules/x", "*", NULL, 204 },
        { "DELETE", "/devices/leaf2/modules/x", "*", NULL, 404 },
        { "POST", "/devices", NULL, "{}", 400 },
        { "POST", "/devices", NULL, "[]", 400 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(status(*state, OWNER, cases[i].method, cases[i].target, cases[i].if_match,
                                cases[i].body),
                         cases[i].want);
}

static void test_body_that_is_too_large(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *token = world_token(OWNER);
    struct rest_call call = { .registry = w->registry,
                              .authority = &w->authority,
                              .now_sec = WORLD_NOW,
                              .method = "PUT",
                              .target = "/devices/d",
                              .authorization = token,
                              .body_too_large = true };

    rest_dispatch(&call);
    assert_int_equal(call.status, 413);
    rest_call_done(&call);
}

/* Node takes the code between "ErrorCode:" and ";" (identity.md §12). */
static void test_error_form(void **state)
{
    struct rest_call call = run(*state, OWNER, "GET", "/devices/leaf7", NULL, NULL);
    json_t *json = json_loads(call.answer, 0, NULL);

    assert_string_equal(call.error_code, "DeviceNotFound");
    assert_string_equal(json_string_value(json_object_get(json, "Message")),
                        "ErrorCode:DeviceNotFound;leaf7");
    assert_non_null(
        strstr(json_string_value(json_object_get(json, "ExceptionMessage")), "Tracking ID:"));
    json_decref(json);
    rest_call_done(&call);
}

static void test_etag_is_told(void **state)
{
    struct world *w = *state;
    struct rest_call call = run(w, OWNER, "GET", "/devices/leaf1", NULL, NULL);
    _cleanup_(freep) char *etag = xstrdup(call.etag);

    rest_call_done(&call);
    assert_int_equal(etag[0], '"');
    assert_int_equal(status(w, OWNER, "PUT", "/devices/leaf1", etag, "{}"), 200);
    assert_int_equal(status(w, OWNER, "PUT", "/devices/leaf1", etag, "{}"), 412);
}

static void test_bulk_tells_which_failed(void **state)
{
    struct world *w = *state;
    struct rest_call call = run(
        w, OWNER, "POST", "/devices", NULL,
        "[{\"id\":\"b1\",\"importMode\":\"create\"},{\"id\":\"leaf1\",\"importMode\":\"create\"},"
        "{\"id\":\"none\",\"importMode\":\"Delete\"},{\"id\":\"b2\",\"importMode\":\"perhaps\"},"
        "{\"id\":\"leaf1\",\"moduleId\":\"n\",\"importMode\":\"create\"}]");
    static const char *const codes[] = { "DeviceAlreadyExists", "DeviceNotFound",
                                         "ArgumentInvalid" };
    json_t *json = json_loads(call.answer, 0, NULL), *errors = json_object_get(json, "errors");

    assert_int_equal(call.status, 400);
    assert_true(json_is_false(json_object_get(json, "isSuccessful")));
    assert_int_equal(json_array_size(errors), ELEMENTSOF(codes));
    for (size_t i = 0; i < ELEMENTSOF(codes); i++)
        assert_string_equal(
            json_string_value(json_object_get(json_array_get(errors, i), "errorCode")), codes[i]);
    assert_non_null(registry_device(w->registry, "b1"));
    assert_non_null(registry_module(w->registry, "leaf1", "n"));
    json_decref(json);
    rest_call_done(&call);
}

/* ---- scope ---- */

#define SCOPE_CALL                                                                                 \
    "/devices/edge1/modules/$edgeHub/"                                                             \
    "devicesAndModulesInTargetDeviceScope?api-version=2020-06-30-preview"
#define SINGLE_CALL                                                                                \
    "/devices/edge1/modules/$edgeHub/getDeviceAndModuleOnBehalfOf?api-version=2020-06-30-preview"

static void test_scope_of_self_and_child(void **state)
{
    static const struct {
        const char *body;
        unsigned want;
        const char *devices;
    } cases[] = {
        { "{\"pageSize\":10,\"authChain\":\"edge1\"}", 200, "child1 edge1 leaf1 leaf2 " },
        { "{}", 200, "child1 edge1 leaf1 leaf2 " },
        { "{\"pageSize\":0}", 200, "child1 edge1 leaf1 leaf2 " },
        { "{\"authChain\":\"child1;edge1\"}", 200, "child1 leaf9 " },
        { "{\"pageSize\":2}", 200, "child1 edge1 " },
        { "{\"pageSize\":2,\"continuationLink\":\"edge1\"}", 200, "leaf1 leaf2 " },
        { "{\"pageSize\":2,\"continuationLink\":\"leaf2\"}", 200, "" },
        { "{\"pageSize\":1001}", 400, NULL },
        { "{\"pageSize\":\"2\"}", 400, NULL },
        { "{\"authChain\":\"leaf1;edge1\"}", 403, NULL }, /* a leaf has no scope */
        { "{\"authChain\":\"alone;edge1\"}", 403, NULL },
        { "{\"authChain\":\"child1;nobody\"}", 403, NULL },
        { "{\"authChain\":\"child1\"}", 403, NULL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct rest_call call = run(*state, EDGE1_HUB, "POST", SCOPE_CALL, NULL, cases[i].body);
        json_t *json = json_loads(call.answer, 0, NULL), *device;
        char seen[256] = "";
        size_t n;

        assert_int_equal(call.status, cases[i].want);
        json_array_foreach(json_object_get(json, "devices"), n, device)
            strcat(strcat(seen, json_string_value(json_object_get(device, "deviceId"))), " ");
        assert_string_equal(seen, cases[i].devices ? cases[i].devices : "");
        if (call.status == 200)
            assert_non_null(json_object_get(json, "continuationLink"));
        json_decref(json);
        rest_call_done(&call);
    }
}

static void test_scope_of_one(void **state)
{
    static const struct {
        const char *body;
        unsigned want;
    } cases[] = {
        { "{\"targetDeviceId\":\"leaf1\",\"authChain\":\"edge1\"}", 200 },
        { "{\"targetDeviceId\":\"leaf1\",\"targetModuleId\":\"m\",\"authChain\":\"edge1\"}", 200 },
        { "{\"targetDeviceId\":\"edge1\",\"targetModuleId\":\"cam\"}", 200 },
        { "{\"targetDeviceId\":\"leaf9\",\"authChain\":\"child1;edge1\"}", 200 },
        { "{\"targetDeviceId\":\"leaf9\",\"authChain\":\"edge1\"}", 403 },
        { "{\"targetDeviceId\":\"alone\",\"authChain\":\"edge1\"}", 403 },
        { "{\"targetDeviceId\":\"leaf1\",\"targetModuleId\":\"x\"}", 404 },
        { "{\"targetDeviceId\":\"nobody\"}", 404 },
        { "{}", 404 },
        { "[]", 404 },
        { "7", 404 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(status(*state, EDGE1_HUB, "POST", SINGLE_CALL, NULL, cases[i].body),
                         cases[i].want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_find),
        cmocka_unit_test_setup_teardown(test_who_may, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_outcomes, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_body_that_is_too_large, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_error_form, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_etag_is_told, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_bulk_tells_which_failed, world_set_up,
                                        world_tear_down),
        cmocka_unit_test_setup_teardown(test_scope_of_self_and_child, world_set_up,
                                        world_tear_down),
        cmocka_unit_test_setup_teardown(test_scope_of_one, world_set_up, world_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
