#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "registry-json.h"
#include "registry.h"

/* A registry in a folder of its own. */
struct fixture {
    char folder[64];
    char path[128];
    struct registry *registry;
};

static int set_up(void **state)
{
    struct fixture *f = xnew(struct fixture);

    snprintf(f->folder, sizeof(f->folder), "/tmp/test-registry-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof(f->path), "%s/registry.json", f->folder);
    assert_int_equal(registry_open(f->path, &f->registry), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    registry_free(f->registry);
    unlink(f->path);
    rmdir(f->folder);
    free(f);
    return 0;
}

static void reopen(struct fixture *f)
{
    f->registry = registry_free(f->registry);
    assert_int_equal(registry_open(f->path, &f->registry), 0);
}

static int create(struct fixture *f, struct identity_spec spec)
{
    struct registry_error error = {};
    int r = registry_device_create(f->registry, &spec, &error);

    if (r == REGISTRY_E_ARGUMENT)
        assert_non_null(error.expected);
    return r;
}

static struct identity_spec spec_of(const char *device_id)
{
    struct identity_spec spec = IDENTITY_SPEC_INIT;

    spec.device_id = device_id;
    return spec;
}

static struct identity_spec edge_of(const char *device_id)
{
    struct identity_spec spec = spec_of(device_id);

    spec.edge = 1;
    return spec;
}

static int add_module(struct fixture *f, const char *device_id, const char *module_id)
{
    struct identity_spec spec = spec_of(device_id);
    struct registry_error error;

    spec.module_id = module_id;
    return registry_module_create(f->registry, &spec, &error);
}

static void test_device_create_makes_keys(void **state)
{
    struct fixture *f = *state;
    const struct device *device;

    assert_int_equal(create(f, spec_of("d")), 0);
    device = registry_device(f->registry, "d");
    assert_int_equal(strlen(device->identity.credentials.primary_key), 44);
    assert_string_not_equal(device->identity.credentials.primary_key,
                            device->identity.credentials.secondary_key);
    assert_true(device->enabled);
    assert_null(device->scope);
    assert_int_equal(device->module_count, 0);
    assert_int_equal(create(f, spec_of("d")), REGISTRY_E_EXISTS);
}

static void test_device_create_checks(void **state)
{
    char long_id[130];
    const struct {
        const char *id, *primary_key, *thumbprint;
    } cases[] = {
        { "", NULL, NULL },      { "a b", NULL, NULL },
        { "a/b", NULL, NULL },   { "\303\274", NULL, NULL },
        { long_id, NULL, NULL }, { "ok", "no base64!", NULL },
        { "ok", NULL, "12345" }, { "ok", NULL, "zz34567890123456789012345678901234567890" },
    };

    memset(long_id, 'x', 129);
    long_id[129] = '\0';
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct identity_spec spec = spec_of(cases[i].id);

        spec.primary_key = cases[i].primary_key;
        spec.primary_thumbprint = cases[i].thumbprint;
        assert_int_equal(create(*state, spec), REGISTRY_E_ARGUMENT);
    }
    assert_int_equal(registry_count(((struct fixture *)*state)->registry), 0);
}

static void test_edge_device_has_scope_and_system_modules(void **state)
{
    struct fixture *f = *state;
    const struct device *edge;
    char scope[128];

    assert_int_equal(create(f, edge_of("e-1")), 0);
    edge = registry_device(f->registry, "e-1");
    snprintf(scope, sizeof(scope), "ms-azure-iot-edge://e-1-%s", edge->identity.generation_id);
    assert_string_equal(edge->scope, scope);
    assert_ptr_equal(registry_edge_of_scope(f->registry, scope), edge);
    assert_int_equal(edge->module_count, 2);
    assert_string_equal(edge->modules[0]->id, "$edgeAgent");
    assert_string_equal(edge->modules[1]->id, "$edgeHub");
    assert_null(edge->modules[1]->identity.credentials.primary_key);
}

static void test_scope_of_a_former_device_is_nobodys(void **state)
{
    struct fixture *f = *state;
    _cleanup_(freep) char *scope = NULL;

    assert_int_equal(create(f, edge_of("e")), 0);
    scope = xstrdup(registry_device(f->registry, "e")->scope);
    assert_int_equal(registry_device_remove(f->registry, "e", NULL), 0);
    assert_int_equal(create(f, edge_of("e")), 0);
    assert_null(registry_edge_of_scope(f->registry, scope));
    assert_string_not_equal(registry_device(f->registry, "e")->scope, scope);
}

static void test_leaf_follows_its_scope(void **state)
{
    struct fixture *f = *state;
    struct identity_spec leaf = spec_of("leaf");
    struct registry_error error;
    const struct device *device, *edge;

    assert_int_equal(create(f, edge_of("e")), 0);
    edge = registry_device(f->registry, "e");
    leaf.scope = edge->scope;
    assert_int_equal(create(f, leaf), 0);
    device = registry_device(f->registry, "leaf");
    assert_true(registry_is_child(device, edge));
    assert_string_equal(device->parent_scopes[0], edge->scope);

    leaf.scope = "";
    assert_int_equal(registry_device_update(f->registry, &leaf, NULL, &error), 0);
    assert_false(registry_is_child(device, edge));
    assert_null(device->scope);

    leaf.scope = "ms-azure-iot-edge://nobody-1";
    assert_int_equal(registry_device_update(f->registry, &leaf, NULL, &error), REGISTRY_E_ARGUMENT);
}

/* Edge devices may stand above each other, five high, and not in a circle. */
static void test_nesting_is_bounded(void **state)
{
    static const char *const names[] = { "e0", "e1", "e2", "e3", "e4", "e5" };
    struct fixture *f = *state;
    struct registry_error error;
    const char *parents[2] = {};
    struct identity_spec spec;

    assert_int_equal(create(f, edge_of(names[0])), 0);
    for (size_t i = 1; i < ELEMENTSOF(names); i++) {
        spec = edge_of(names[i]);
        parents[0] = registry_device(f->registry, names[i - 1])->scope;
        spec.parent_scopes = parents;
        assert_int_equal(create(f, spec), i < 5 ? 0 : REGISTRY_E_ARGUMENT);
    }
    spec = spec_of("e0");
    parents[0] = registry_device(f->registry, "e2")->scope;
    spec.parent_scopes = parents;
    assert_int_equal(registry_device_update(f->registry, &spec, NULL, &error), REGISTRY_E_ARGUMENT);
    parents[0] = registry_device(f->registry, "e0")->scope;
    assert_int_equal(registry_device_update(f->registry, &spec, NULL, &error), REGISTRY_E_ARGUMENT);
}

static void test_update_under_etag(void **state)
{
    struct fixture *f = *state;
    struct identity_spec spec = spec_of("d");
    struct registry_error error;
    _cleanup_(freep) char *etag = NULL;
    _cleanup_(freep) char *key = NULL;
    const struct device *device;

    assert_int_equal(create(f, spec), 0);
    device = registry_device(f->registry, "d");
    etag = xstrdup(device->identity.etag);
    key = xstrdup(device->identity.credentials.primary_key);
    spec.enabled = 0;
    spec.status_reason = "lost";
    assert_int_equal(registry_device_update(f->registry, &spec, etag, &error), 0);
    assert_false(device->enabled);
    assert_string_equal(device->status_reason, "lost");
    assert_string_equal(device->identity.credentials.primary_key, key);
    assert_string_not_equal(device->identity.etag, etag);
    assert_int_equal(registry_device_update(f->registry, &spec, etag, &error), REGISTRY_E_ETAG);
    assert_int_equal(registry_device_remove(f->registry, "d", etag), REGISTRY_E_ETAG);
    spec.device_id = "other";
    assert_int_equal(registry_device_update(f->registry, &spec, NULL, &error),
                     REGISTRY_E_NO_DEVICE);
}

static void test_module_outcomes(void **state)
{
    struct fixture *f = *state;
    struct identity_spec spec = spec_of("d");
    struct registry_error error;

    assert_int_equal(add_module(f, "d", "m"), REGISTRY_E_NO_DEVICE);
    assert_int_equal(create(f, spec), 0);
    assert_int_equal(add_module(f, "d", "m"), 0);
    assert_int_equal(add_module(f, "d", "m"), REGISTRY_E_EXISTS);
    assert_int_equal(add_module(f, "d", "m m"), REGISTRY_E_ARGUMENT);
    spec.module_id = "n";
    assert_int_equal(registry_module_update(f->registry, &spec, NULL, &error),
                     REGISTRY_E_NO_MODULE);
    assert_int_equal(registry_module_remove(f->registry, "d", "n", NULL), REGISTRY_E_NO_MODULE);
    assert_int_equal(registry_module_remove(f->registry, "d", "m", "wrong"), REGISTRY_E_ETAG);
    assert_int_equal(registry_module_remove(f->registry, "d", "m", NULL), 0);
    assert_null(registry_module(f->registry, "d", "m"));
}

static void test_modules_are_bounded(void **state)
{
    struct fixture *f = *state;
    char id[16];

    assert_int_equal(create(f, spec_of("d")), 0);
    registry_hold(f->registry);
    for (int i = 0; i < REGISTRY_MODULES_MAX; i++) {
        snprintf(id, sizeof(id), "m%d", i);
        assert_int_equal(add_module(f, "d", id), 0);
    }
    assert_int_equal(add_module(f, "d", "one-more"), REGISTRY_E_TOO_MANY);
    assert_int_equal(registry_release(f->registry), 0);
}

static void test_devices_are_in_order(void **state)
{
    static const char *const ids[] = { "m", "z", "a", "mm", "A" };
    static const char *const sorted[] = { "A", "a", "m", "mm", "z" };
    struct fixture *f = *state;

    for (size_t i = 0; i < ELEMENTSOF(ids); i++)
        assert_int_equal(create(f, spec_of(ids[i])), 0);
    for (size_t i = 0; i < ELEMENTSOF(sorted); i++)
        assert_string_equal(registry_device_at(f->registry, i)->id, sorted[i]);
    assert_int_equal(registry_index_after(f->registry, NULL), 0);
    assert_int_equal(registry_index_after(f->registry, "a"), 2);
    assert_int_equal(registry_index_after(f->registry, "b"), 2);
    assert_int_equal(registry_index_after(f->registry, "zz"), 5);
}

static void test_reopen_gives_all_back(void **state)
{
    struct fixture *f = *state;
    struct identity_spec leaf = spec_of("leaf"), module = spec_of("leaf");
    struct registry_error error;
    json_t *before[2], *after[2];
    struct stat st;

    assert_int_equal(create(f, edge_of("e")), 0);
    leaf.scope = registry_device(f->registry, "e")->scope;
    leaf.credentials_kind = CREDENTIALS_SELF_SIGNED;
    leaf.primary_thumbprint = "0123456789012345678901234567890123456789";
    leaf.enabled = 0;
    leaf.status_reason = "why \303\274 \"so\"";
    assert_int_equal(create(f, leaf), 0);
    module.module_id = "$m'";
    module.managed_by = "IotEdge";
    assert_int_equal(registry_module_create(f->registry, &module, &error), 0);
    for (size_t i = 0; i < 2; i++)
        before[i] = device_to_file_json(registry_device_at(f->registry, i));
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    reopen(f);
    assert_int_equal(registry_count(f->registry), 2);
    for (size_t i = 0; i < 2; i++) {
        after[i] = device_to_file_json(registry_device_at(f->registry, i));
        json_object_del(before[i], "statusUpdatedTime"); /* not kept */
        json_object_del(after[i], "statusUpdatedTime");
        assert_true(json_equal(before[i], after[i]));
        json_decref(before[i]);
        json_decref(after[i]);
    }
}

/* A name that is used again is another identity, also after a restart. */
static void test_generations_never_repeat(void **state)
{
    struct fixture *f = *state;
    _cleanup_(freep) char *first = NULL;

    assert_int_equal(create(f, spec_of("d")), 0);
    first = xstrdup(registry_device(f->registry, "d")->identity.generation_id);
    assert_int_equal(registry_device_remove(f->registry, "d", NULL), 0);
    reopen(f);
    assert_int_equal(create(f, spec_of("d")), 0);
    assert_true(strtoull(registry_device(f->registry, "d")->identity.generation_id, NULL, 10) >
                strtoull(first, NULL, 10));
}

static void test_damaged_file_is_refused_and_left(void **state)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"version\":2,\"devices\":[]}",
        "{\"version\":1}",
        "{\"version\":1,\"devices\":[{\"deviceId\":\"d\"}]}",
        "{\"version\":1,\"devices\":[7]}",
    };
    struct fixture *f = *state;
    struct registry *registry = NULL;
    struct stat st;

    for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
        FILE *file = fopen(f->path, "w");

        assert_non_null(file);
        fputs(texts[i], file);
        fclose(file);
        assert_int_equal(registry_open(f->path, &registry), -EBADMSG);
        assert_null(registry);
        assert_int_equal(stat(f->path, &st), 0);
        assert_int_equal(st.st_size, strlen(texts[i]));
    }
}

static void test_hold_writes_once(void **state)
{
    struct fixture *f = *state;

    registry_hold(f->registry);
    assert_int_equal(create(f, spec_of("a")), 0);
    assert_int_equal(access(f->path, F_OK), -1);
    assert_int_equal(registry_release(f->registry), 0);
    assert_int_equal(access(f->path, F_OK), 0);
    reopen(f);
    assert_non_null(registry_device(f->registry, "a"));
}

static void note_change(const char *device_id, void *userdata)
{
    strcat(userdata, device_id);
    strcat(userdata, " ");
}

static void test_changes_are_told(void **state)
{
    struct fixture *f = *state;
    char seen[64] = "";

    registry_on_change(f->registry, note_change, seen);
    assert_int_equal(create(f, spec_of("a")), 0);
    assert_int_equal(add_module(f, "a", "m"), 0);
    assert_int_equal(registry_device_remove(f->registry, "a", NULL), 0);
    assert_int_equal(registry_device_remove(f->registry, "a", NULL), REGISTRY_E_NO_DEVICE);
    assert_string_equal(seen, "a a a ");
}

static void test_unwritable_folder_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct identity_spec spec = spec_of("d");
    struct registry_error error;
    struct registry *registry;

    assert_int_equal(registry_open("/nowhere/at/all/registry.json", &registry), 0);
    assert_int_equal(registry_device_create(registry, &spec, &error), -ENOENT);
    registry_free(registry);
    assert_non_null(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_device_create_makes_keys, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_device_create_checks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_edge_device_has_scope_and_system_modules, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_scope_of_a_former_device_is_nobodys, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_leaf_follows_its_scope, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nesting_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_update_under_etag, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_module_outcomes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_modules_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_devices_are_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reopen_gives_all_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_generations_never_repeat, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damaged_file_is_refused_and_left, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hold_writes_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_changes_are_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unwritable_folder_is_an_error, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
