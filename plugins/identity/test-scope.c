#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scope.h"

/* @own_scope: an edge device, and its deviceScope. @parent: among its parentScopes. */
static struct scope_identity *make(const char *device_id, const char *module_id,
                                   const char *own_scope, const char *parent)
{
    struct scope_identity *identity = xnew(struct scope_identity);

    identity->device_id = xstrdup(device_id);
    identity->module_id = xstrdup(module_id);
    identity->enabled = true;
    identity->auth = SCOPE_AUTH_NONE;
    identity->is_edge = own_scope != NULL;
    identity->device_scope = xstrdup(own_scope);
    if (parent) {
        identity->parent_scopes = xnew_n(char *, 2);
        identity->parent_scopes[identity->parent_scope_count++] = xstrdup("scope-of-nobody");
        identity->parent_scopes[identity->parent_scope_count++] = xstrdup(parent);
    }
    return identity;
}

static void test_put_find_remove(void **state)
{
    static const char *const devices[] = { "m", "a", "z", "a-", "a.", "A", "edge" };
    _cleanup_(scope_freep) struct scope *scope = scope_new();

    for (size_t i = 0; i < ELEMENTSOF(devices); i++) {
        assert_true(scope_put_take(scope, make(devices[i], "m2", NULL, NULL)));
        assert_true(scope_put_take(scope, make(devices[i], NULL, NULL, NULL)));
        assert_true(scope_put_take(scope, make(devices[i], "$m1", NULL, NULL)));
        assert_false(
            scope_put_take(scope, make(devices[i], NULL, NULL, NULL))); /* the same again */
    }
    assert_int_equal(scope_count(scope), 3 * ELEMENTSOF(devices));
    for (size_t i = 0; i < ELEMENTSOF(devices); i++) {
        assert_string_equal(scope_find(scope, devices[i], NULL)->device_id, devices[i]);
        assert_null(scope_find(scope, devices[i], "")->module_id);
        assert_string_equal(scope_find(scope, devices[i], "m2")->module_id, "m2");
        assert_null(scope_find(scope, devices[i], "M2"));
    }
    assert_null(scope_find(scope, "b", NULL));
    assert_null(scope_find(scope, "", NULL));

    assert_false(scope_remove(scope, "b", NULL));
    assert_true(scope_remove(scope, "a", "m2"));
    assert_non_null(scope_find(scope, "a", "$m1"));
    assert_true(scope_remove(scope, "a", ""));
    assert_null(scope_find(scope, "a", "$m1"));
    assert_non_null(scope_find(scope, "a-", "$m1"));
    assert_non_null(scope_find(scope, "A", "m2"));
    assert_int_equal(scope_count(scope), 3 * (ELEMENTSOF(devices) - 1));
}

static void test_remove_module_without_device(void **state)
{
    _cleanup_(scope_freep) struct scope *scope = scope_new();

    scope_put_take(scope, make("d", "m", NULL, NULL));
    assert_false(scope_remove(scope, "d", NULL));
    assert_true(scope_remove(scope, "d", "m"));
    assert_int_equal(scope_count(scope), 0);
}

static void test_equal_sees_every_member(void **state)
{
    _cleanup_(scope_identity_freep) struct scope_identity *a = make("d", "m", "s", "p"), *b = NULL;

    a->generation_id = xstrdup("1");
    a->primary_key = xnew(struct sas_key);
    a->primary_key->len = 4;
    a->secondary_key = xnew(struct sas_key);
    a->primary_thumbprint = xstrdup("AB");
    a->secondary_thumbprint = xstrdup("CD");
#define DIFFERS(change)                                                                            \
    do {                                                                                           \
        b = scope_identity_dup(a);                                                                 \
        assert_true(scope_identity_equal(a, b));                                                   \
        change;                                                                                    \
        assert_false(scope_identity_equal(a, b));                                                  \
        b = scope_identity_free(b);                                                                \
    } while (0)
    DIFFERS(b->device_id[0] = 'x');
    DIFFERS(b->module_id[0] = 'x');
    DIFFERS(b->generation_id[0] = 'x');
    DIFFERS(b->enabled = false);
    DIFFERS(b->is_edge = false);
    DIFFERS(b->auth = SCOPE_AUTH_SAS);
    DIFFERS(b->primary_key->bytes[3] = 1);
    DIFFERS(b->secondary_key->len = 1);
    DIFFERS(b->primary_thumbprint[0] = 'x');
    DIFFERS(b->secondary_thumbprint[0] = 'x');
    DIFFERS(b->device_scope[0] = 'x');
    DIFFERS(b->parent_scopes[1][0] = 'x');
    DIFFERS(free(b->parent_scopes[--b->parent_scope_count]));
#undef DIFFERS
}

static struct scope *family(void)
{
    struct scope *scope = scope_new();

    scope_put_take(scope, make("edge1", NULL, "s-edge1", NULL));
    scope_put_take(scope, make("edge1", "$edgeHub", NULL, NULL));
    scope_put_take(scope, make("edge1", "temp", NULL, NULL));
    scope_put_take(scope, make("leaf1", NULL, NULL, "s-edge1"));
    scope_put_take(scope, make("leaf1", "mod", NULL, NULL));
    scope_put_take(scope, make("child1", NULL, "s-child1", "s-edge1"));
    scope_put_take(scope, make("leaf9", NULL, NULL, "s-child1"));
    scope_put_take(scope, make("loose", NULL, NULL, NULL));
    scope_put_take(scope, make("elsewhere", NULL, NULL, "s-other"));
    scope_put_take(scope, make("orphan", "mod", NULL, NULL));
    scope_put_take(scope, make("ring1", NULL, "s-ring1", "s-ring2"));
    scope_put_take(scope, make("ring2", NULL, "s-ring2", "s-ring1"));
    scope_put_take(scope, make("self", NULL, "s-self", "s-self"));
    return scope;
}

static void test_chain(void **state)
{
    static const struct {
        const char *device_id, *module_id, *want;
    } cases[] = {
        { "edge1", NULL, "edge1" },
        { "edge1", "", "edge1" },
        { "edge1", "$edgeHub", "edge1/$edgeHub;edge1" },
        { "edge1", "temp", "edge1/temp;edge1" },
        { "leaf1", NULL, "leaf1;edge1" },
        { "leaf1", "mod", "leaf1/mod;leaf1;edge1" },
        { "child1", NULL, "child1;edge1" },
        { "leaf9", NULL, "leaf9;child1;edge1" },
        { "loose", NULL, NULL },
        { "elsewhere", NULL, NULL },
        { "orphan", "mod", NULL },
        { "unknown", NULL, NULL },
        { "edge1", "unknown", NULL },
        { "ring1", NULL, NULL },
        { "self", NULL, NULL },
    };
    _cleanup_(scope_freep) struct scope *scope = family();

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *chain =
            scope_chain(scope, "edge1", cases[i].device_id, cases[i].module_id);

        if (cases[i].want)
            assert_string_equal(chain, cases[i].want);
        else
            assert_null(chain);
    }
}

static void test_chain_disabled(void **state)
{
    _cleanup_(scope_freep) struct scope *scope = family();
    struct scope_identity *child = make("child1", NULL, "s-child1", "s-edge1");

    child->enabled = false;
    scope_put_take(scope, child);
    assert_null(scope_chain(scope, "edge1", "child1", NULL));
    assert_null(scope_chain(scope, "edge1", "leaf9", NULL));
}

static void test_chain_depth(void **state)
{
    _cleanup_(scope_freep) struct scope *scope = scope_new();
    _cleanup_(freep) char *chain = NULL;

    scope_put_take(scope, make("e1", NULL, "s1", NULL));
    scope_put_take(scope, make("e2", NULL, "s2", "s1"));
    scope_put_take(scope, make("e3", NULL, "s3", "s2"));
    scope_put_take(scope, make("e4", NULL, "s4", "s3"));
    scope_put_take(scope, make("e5", NULL, "s5", "s4"));
    scope_put_take(scope, make("e6", NULL, "s6", "s5"));
    scope_put_take(scope, make("leaf5", NULL, NULL, "s5"));
    scope_put_take(scope, make("leaf6", NULL, NULL, "s6"));
    chain = scope_chain(scope, "e1", "leaf5", NULL);
    assert_string_equal(chain, "leaf5;e5;e4;e3;e2;e1");
    assert_null(scope_chain(scope, "e1", "leaf6", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_find_remove),
        cmocka_unit_test(test_remove_module_without_device),
        cmocka_unit_test(test_equal_sees_every_member),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_chain_disabled),
        cmocka_unit_test(test_chain_depth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
