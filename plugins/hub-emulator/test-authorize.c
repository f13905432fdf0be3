#include "test-world.h"

static void test_service_policies(void **state)
{
    static const struct {
        const char *resource, *key, *policy;
        enum permission permission;
        int want;
    } cases[] = {
        { WORLD_HOST, WORLD_POLICY, "iothubowner", PERMISSION_REGISTRY_WRITE, 0 },
        { "hub.EXAMPLE.net", WORLD_POLICY, "iothubowner", PERMISSION_SERVICE_CONNECT, 0 },
        { "amqps://hub.example.net:5671/", WORLD_POLICY, "iothubowner", PERMISSION_SERVICE_CONNECT,
          0 },
        { WORLD_HOST, WORLD_POLICY, "registryRead", PERMISSION_REGISTRY_READ, 0 },
        { WORLD_HOST, WORLD_POLICY, "registryRead", PERMISSION_REGISTRY_WRITE, AUTHORIZE_E_POLICY },
        { WORLD_HOST, WORLD_POLICY, "registryReadWrite", PERMISSION_REGISTRY_WRITE, 0 },
        { WORLD_HOST, WORLD_POLICY, "registryReadWrite", PERMISSION_DEVICE_CONNECT,
          AUTHORIZE_E_POLICY },
        { WORLD_HOST, WORLD_POLICY, "service", PERMISSION_REGISTRY_READ, AUTHORIZE_E_POLICY },
        { WORLD_HOST, WORLD_POLICY, "device", PERMISSION_SERVICE_CONNECT, AUTHORIZE_E_POLICY },
        { WORLD_HOST, WORLD_POLICY, "nobody", PERMISSION_REGISTRY_READ, AUTHORIZE_E_POLICY },
        { WORLD_HOST, WORLD_POLICY, NULL, PERMISSION_REGISTRY_READ, AUTHORIZE_E_POLICY },
        { WORLD_HOST, WORLD_STRANGER, "iothubowner", PERMISSION_REGISTRY_READ,
          AUTHORIZE_E_SIGNATURE },
        { "other.example.net", WORLD_POLICY, "iothubowner", PERMISSION_REGISTRY_READ,
          AUTHORIZE_E_AUDIENCE },
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, NULL, PERMISSION_REGISTRY_READ,
          AUTHORIZE_E_AUDIENCE },
    };
    struct world *w = *state;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *token =
            world_token(cases[i].resource, cases[i].key, cases[i].policy);

        assert_int_equal(
            authorize_service(&w->authority, span_str(token), cases[i].permission, WORLD_NOW),
            cases[i].want);
    }
}

static void test_tokens_that_are_none(void **state)
{
    static const char *const texts[] = { "", "Bearer x", "SharedAccessSignature sr=x",
                                         "SharedAccessSignature " };
    struct world *w = *state;
    _cleanup_(freep) char *late =
        world_token_until(WORLD_HOST, WORLD_POLICY, "iothubowner", WORLD_NOW - 301);
    _cleanup_(freep) char *skewed =
        world_token_until(WORLD_HOST, WORLD_POLICY, "iothubowner", WORLD_NOW - 299);

    for (size_t i = 0; i < ELEMENTSOF(texts); i++)
        assert_int_equal(authorize_service(&w->authority, span_str(texts[i]),
                                           PERMISSION_REGISTRY_READ, WORLD_NOW),
                         AUTHORIZE_E_MALFORMED);
    assert_int_equal(
        authorize_service(&w->authority, span_str(NULL), PERMISSION_REGISTRY_READ, WORLD_NOW),
        AUTHORIZE_E_MALFORMED);
    assert_int_equal(
        authorize_service(&w->authority, span_str(late), PERMISSION_REGISTRY_READ, WORLD_NOW),
        AUTHORIZE_E_EXPIRED);
    assert_int_equal(
        authorize_service(&w->authority, span_str(skewed), PERMISSION_REGISTRY_READ, WORLD_NOW), 0);
}

static void test_identity(void **state)
{
    static const struct {
        const char *resource, *key, *policy, *device_id, *module_id;
        bool device_wide;
        int want;
    } cases[] = {
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, NULL, "leaf1", NULL, false, 0 },
        { WORLD_HOST "/devices/LEAF1", WORLD_KEY, NULL, "leaf1", NULL, false,
          0 }, /* the identity service lowers */
        { WORLD_HOST "/devices/leaf1", WORLD_SECOND, NULL, "leaf1", NULL, false, 0 },
        { WORLD_HOST "/devices/leaf1", WORLD_STRANGER, NULL, "leaf1", NULL, false,
          AUTHORIZE_E_SIGNATURE },
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, NULL, "leaf2", NULL, false,
          AUTHORIZE_E_AUDIENCE },
        { "x.example.net/devices/leaf1", WORLD_KEY, NULL, "leaf1", NULL, false,
          AUTHORIZE_E_AUDIENCE },
        { WORLD_HOST "/devices/leaf1/modules/m", WORLD_KEY, NULL, "leaf1", "m", false, 0 },
        { WORLD_HOST "/devices/leaf1/modules/m", WORLD_KEY, NULL, "leaf1", NULL, false,
          AUTHORIZE_E_AUDIENCE },
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, NULL, "leaf1", "m", false, AUTHORIZE_E_AUDIENCE },
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, NULL, "leaf1", "m", true, 0 },
        { WORLD_HOST "/devices/nobody", WORLD_KEY, NULL, "nobody", NULL, false,
          AUTHORIZE_E_UNKNOWN },
        { WORLD_HOST "/devices/leaf1", WORLD_POLICY, "device", "leaf1", NULL, false, 0 },
        { WORLD_HOST "/devices/leaf1", WORLD_POLICY, "service", "leaf1", NULL, false,
          AUTHORIZE_E_POLICY },
        { WORLD_HOST "/devices/edge1/modules/%2524edgeHub", WORLD_KEY, NULL, "edge1", "$edgeHub",
          false, 0 },
    };
    struct world *w = *state;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *token =
            world_token(cases[i].resource, cases[i].key, cases[i].policy);

        assert_int_equal(authorize_identity(&w->authority, span_str(token), cases[i].device_id,
                                            cases[i].module_id, cases[i].device_wide, WORLD_NOW),
                         cases[i].want);
    }
}

static void test_disabled_and_keyless(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *device = world_token(WORLD_HOST "/devices/leaf1", WORLD_KEY, NULL);
    _cleanup_(freep) char *module =
        world_token(WORLD_HOST "/devices/leaf1/modules/m", WORLD_KEY, NULL);
    _cleanup_(freep) char *agent =
        world_token(WORLD_HOST "/devices/edge1/modules/$edgeAgent", WORLD_KEY, NULL);

    assert_int_equal(
        authorize_identity(&w->authority, span_str(agent), "edge1", "$edgeAgent", false, WORLD_NOW),
        AUTHORIZE_E_KIND);
    world_enable(w, "leaf1", 0);
    assert_int_equal(
        authorize_identity(&w->authority, span_str(device), "leaf1", NULL, false, WORLD_NOW),
        AUTHORIZE_E_DISABLED);
    assert_int_equal(
        authorize_identity(&w->authority, span_str(module), "leaf1", "m", false, WORLD_NOW),
        AUTHORIZE_E_DISABLED);
}

static void expect_put_token(struct world *w, const char *resource, const char *key,
                             const char *name, int want, const char *device_id,
                             const char *module_id, const char *actor)
{
    _cleanup_(freep) char *token = world_token(resource, key, NULL);
    struct grant grant = {};

    assert_int_equal(
        authorize_put_token(&w->authority, span_str(token), span_str(name), WORLD_NOW, &grant),
        want);
    if (want != 0)
        return;
    assert_string_equal(grant.device_id, device_id);
    assert_string_equal(grant.module_id ? grant.module_id : "-", module_id ? module_id : "-");
    assert_string_equal(grant.actor_device_id ? grant.actor_device_id : "-", actor ? actor : "-");
    assert_int_equal(grant.expires_sec, WORLD_NOW + 3600);
    grant_done(&grant);
}

static void test_put_token(void **state)
{
    static const char hub[] = WORLD_HOST "/devices/edge1/modules/$edgeHub";
    static const struct {
        const char *resource, *key, *name;
        int want;
        const char *device_id, *module_id, *actor;
    } cases[] = {
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, "whatever", 0, "leaf1", NULL, NULL },
        { WORLD_HOST "/devices/leaf1", WORLD_KEY, WORLD_HOST "/devices/leaf2", 0, "leaf1", NULL,
          NULL },
        { WORLD_HOST "/devices/leaf1", WORLD_STRANGER, "x", AUTHORIZE_E_SIGNATURE, NULL, NULL,
          NULL },
        { WORLD_HOST "/devices/nobody", WORLD_KEY, "x", AUTHORIZE_E_UNKNOWN, NULL, NULL, NULL },
        { "elsewhere/devices/leaf1", WORLD_KEY, "x", AUTHORIZE_E_AUDIENCE, NULL, NULL, NULL },
        { "elsewhere", WORLD_KEY, "x", AUTHORIZE_E_AUDIENCE, NULL, NULL, NULL },
        { WORLD_HOST "/devices/leaf1/modules/m", WORLD_KEY, "x", 0, "leaf1", "m", NULL },
        { hub, WORLD_KEY, hub, 0, "edge1", "$edgeHub", NULL },
        { hub, WORLD_KEY, "x", 0, "edge1", "$edgeHub", NULL },
        { hub, WORLD_KEY, WORLD_HOST "/devices/leaf1", 0, "leaf1", NULL, "edge1" },
        { hub, WORLD_KEY, WORLD_HOST "%2Fdevices%2Fleaf1%2Fmodules%2Fm", 0, "leaf1", "m", "edge1" },
        { hub, WORLD_KEY, WORLD_HOST "/devices/edge1/modules/cam", 0, "edge1", "cam", "edge1" },
        { hub, WORLD_KEY, WORLD_HOST "/devices/edge1/modules/%24edgeAgent", 0, "edge1",
          "$edgeAgent", "edge1" },
        { hub, WORLD_KEY, WORLD_HOST "/devices/leaf9", 0, "leaf9", NULL, "edge1" },
        { hub, WORLD_KEY, WORLD_HOST "/devices/alone", AUTHORIZE_E_SCOPE, NULL, NULL, NULL },
        { hub, WORLD_KEY, WORLD_HOST "/devices/alone/modules/m", AUTHORIZE_E_SCOPE, NULL, NULL,
          NULL },
        { hub, WORLD_KEY, WORLD_HOST "/devices/nobody", AUTHORIZE_E_UNKNOWN, NULL, NULL, NULL },
        { WORLD_HOST "/devices/child1/modules/$edgeHub", WORLD_KEY, WORLD_HOST "/devices/leaf1",
          AUTHORIZE_E_SCOPE, NULL, NULL, NULL },
        { WORLD_HOST "/devices/edge1/modules/cam", WORLD_KEY, WORLD_HOST "/devices/leaf1", 0,
          "edge1", "cam", NULL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        expect_put_token(*state, cases[i].resource, cases[i].key, cases[i].name, cases[i].want,
                         cases[i].device_id, cases[i].module_id, cases[i].actor);
}

static void test_put_token_of_a_service(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *token = world_token(WORLD_HOST, WORLD_POLICY, "service");
    _cleanup_(freep) char *reader = world_token(WORLD_HOST, WORLD_POLICY, "registryRead");
    struct grant grant = {};

    assert_int_equal(
        authorize_put_token(&w->authority, span_str(token), SPAN("x"), WORLD_NOW, &grant), 0);
    assert_null(grant.device_id);
    assert_int_equal(
        authorize_put_token(&w->authority, span_str(reader), SPAN("x"), WORLD_NOW, &grant),
        AUTHORIZE_E_POLICY);
}

/* An id that looks encoded is found as it is written, and one that is encoded twice, too. */
static void test_put_token_ids_in_every_encoding(void **state)
{
    struct world *w = *state;

    world_add(w, "a%41", NULL, 0);
    world_add(w, "x@y", NULL, 0);
    expect_put_token(w, WORLD_HOST "/devices/a%41", WORLD_KEY, "x", 0, "a%41", NULL, NULL);
    expect_put_token(w, WORLD_HOST "/devices/x%40y", WORLD_KEY, "x", 0, "x@y", NULL, NULL);
    expect_put_token(w, WORLD_HOST "/devices/x%2540y", WORLD_KEY, "x", 0, "x@y", NULL, NULL);
}

static void test_on_behalf(void **state)
{
    static const struct {
        const char *actor, *device_id, *module_id, *chain;
        int want;
    } cases[] = {
        { "edge1", "leaf1", NULL, "", 0 },
        { "edge1", "leaf1", NULL, "leaf1;edge1", 0 },
        { "edge1", "leaf1", "m", "leaf1/m;edge1", 0 },
        { "edge1", "leaf1", "m", "leaf1/m;leaf1;edge1", 0 },
        { "edge1", "edge1", "cam", "edge1/cam;edge1", 0 },
        { "edge1", "edge1", "$edgeHub", "edge1/$edgeHub;edge1", 0 },
        { "edge1", "edge1", "cam", "", 0 },
        { "edge1", "leaf9", NULL, "leaf9;child1;edge1", 0 },
        { "edge1", "leaf9", NULL, "", AUTHORIZE_E_SCOPE }, /* not a child: the way must be told */
        { "edge1", "leaf9", NULL, "leaf9;edge1", AUTHORIZE_E_SCOPE },
        { "edge1", "leaf9", NULL, "leaf9;child1", AUTHORIZE_E_SCOPE }, /* ends at somebody else */
        { "edge1", "child1", "$edgeHub", "child1/$edgeHub;child1;edge1", 0 },
        { "edge1", "leaf1", NULL, "leaf2;edge1", AUTHORIZE_E_SCOPE }, /* somebody else's chain */
        { "edge1", "leaf1", NULL, "leaf1", AUTHORIZE_E_SCOPE },
        { "edge1", "leaf1", NULL, "leaf1;", AUTHORIZE_E_SCOPE },
        { "edge1", "leaf1", NULL, "leaf1;edge1;edge1;edge1;edge1;edge1;edge1", AUTHORIZE_E_SCOPE },
        { "edge1", "leaf1", NULL, "leaf1;nobody;edge1", AUTHORIZE_E_SCOPE },
        { "edge1", "alone", NULL, "alone;edge1", AUTHORIZE_E_SCOPE },
        { "edge1", "alone", NULL, "", AUTHORIZE_E_SCOPE },
        { "child1", "leaf1", NULL, "leaf1;child1", AUTHORIZE_E_SCOPE },
        { "edge1", "nobody", NULL, "nobody;edge1", AUTHORIZE_E_UNKNOWN },
        { "edge1", "leaf1", "nothing", "leaf1/nothing;edge1", AUTHORIZE_E_UNKNOWN },
        { "nobody", "leaf1", NULL, "leaf1;nobody", AUTHORIZE_E_UNKNOWN },
    };
    struct world *w = *state;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(authorize_on_behalf(&w->authority, cases[i].actor, cases[i].device_id,
                                             cases[i].module_id, span_str(cases[i].chain)),
                         cases[i].want);
}

static void test_on_behalf_through_disabled(void **state)
{
    struct world *w = *state;

    world_enable(w, "child1", 0);
    assert_int_equal(
        authorize_on_behalf(&w->authority, "edge1", "leaf9", NULL, SPAN("leaf9;child1;edge1")),
        AUTHORIZE_E_SCOPE);
    world_enable(w, "leaf1", 0);
    assert_int_equal(authorize_on_behalf(&w->authority, "edge1", "leaf1", NULL, SPAN("")),
                     AUTHORIZE_E_DISABLED);
    world_enable(w, "edge1", 0);
    assert_int_equal(authorize_on_behalf(&w->authority, "edge1", "leaf2", NULL, SPAN("")),
                     AUTHORIZE_E_DISABLED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_service_policies, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_tokens_that_are_none, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_identity, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_disabled_and_keyless, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_put_token, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_put_token_of_a_service, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_put_token_ids_in_every_encoding, world_set_up,
                                        world_tear_down),
        cmocka_unit_test_setup_teardown(test_on_behalf, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(test_on_behalf_through_disabled, world_set_up,
                                        world_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
