#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "refresh-rule.h"

static void test_pause(void **state)
{
    _cleanup_(refresh_rule_freep) struct refresh_rule *rule = refresh_rule_new(120);

    assert_true(refresh_rule_allows(rule, "leaf1", 0));
    refresh_rule_note(rule, "leaf1", 1000);
    assert_false(refresh_rule_allows(rule, "leaf1", 1000));
    assert_false(refresh_rule_allows(rule, "leaf1", 1119));
    assert_true(refresh_rule_allows(rule, "leaf1", 1120));
    assert_true(refresh_rule_allows(rule, "leaf2", 1000));
    refresh_rule_note(rule, "leaf1", 2000);
    assert_false(refresh_rule_allows(rule, "leaf1", 2100));
}

static void test_oldest_is_forgotten(void **state)
{
    _cleanup_(refresh_rule_freep) struct refresh_rule *rule = refresh_rule_new(120);

    refresh_rule_note(rule, "first", 0);
    for (unsigned i = 0; i < REFRESH_RULE_IDS_MAX - 1; i++) {
        _cleanup_(freep) char *id = xasprintf("stranger%u", i);

        refresh_rule_note(rule, id, 0);
    }
    assert_false(refresh_rule_allows(rule, "first", 1));
    refresh_rule_note(rule, "one more", 0);
    assert_true(refresh_rule_allows(rule, "first", 1));
    assert_false(refresh_rule_allows(rule, "stranger0", 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_oldest_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
