/* An empty cell in a table of states is a case that nobody thought of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "connection.h"
#include "identity-link.h"

static void test_connection_table_is_whole(void **state)
{
    for (unsigned s = 0; s < _CONNECTION_STATE_COUNT; s++)
        for (unsigned e = 0; e < _CONNECTION_EVENT_COUNT; e++)
            assert_true(connection_table_has((enum connection_state)s, (enum connection_event)e));
}

static void test_identity_table_is_whole(void **state)
{
    for (unsigned s = 0; s < _IDENTITY_STATE_COUNT; s++)
        for (unsigned e = 0; e < _IDENTITY_EVENT_COUNT; e++)
            assert_true(identity_table_has((enum identity_state)s, (enum identity_event)e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connection_table_is_whole),
        cmocka_unit_test(test_identity_table_is_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
