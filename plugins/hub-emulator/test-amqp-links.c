#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "amqp-server.h"

enum { REFUSED = _LINK_KIND_COUNT };

static void test_link_kind_of(void **state)
{
    static const struct {
        const char *address;
        int client_sends, client_receives;
    } cases[] = {
        { "$cbs", LINK_CBS_SEND, LINK_CBS_RECEIVE },
        { "/$CBS", LINK_CBS_SEND, LINK_CBS_RECEIVE },
        { "/devices/d/messages/events", LINK_EVENTS_SEND, REFUSED }, /* a device has no inputs */
        { "/devices/d/modules/m/messages/events", LINK_EVENTS_SEND, LINK_EVENTS_RECEIVE },
        { "/devices/d/messages/deviceBound", REFUSED, LINK_DEVICEBOUND_RECEIVE },
        { "amqps://hub:5671/devices/d/modules/m/messages/devicebound", REFUSED,
          LINK_DEVICEBOUND_RECEIVE },
        { "/devices/d/methods/deviceBound", LINK_METHODS_SEND, LINK_METHODS_RECEIVE },
        { "/devices/d/twin", LINK_TWIN_SEND, LINK_TWIN_RECEIVE },
        { "/devices/d/modules/m/twin", LINK_TWIN_SEND, LINK_TWIN_RECEIVE },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct amqp_address address;

        assert_true(amqp_address_parse(span_str(cases[i].address), &address));
        assert_int_equal(link_kind_of(&address, true), cases[i].client_sends);
        assert_int_equal(link_kind_of(&address, false), cases[i].client_receives);
    }
}

/* What SDKs make of a refusal hangs on the condition (amqp.md §13). */
static void test_condition_of(void **state)
{
    for (int outcome = AUTHORIZE_E_MALFORMED; outcome <= AUTHORIZE_E_SCOPE; outcome++) {
        assert_string_equal(amqp_condition_of(outcome), outcome == AUTHORIZE_E_UNKNOWN
                                                            ? "amqp:not-found"
                                                            : "amqp:unauthorized-access");
        assert_non_null(authorize_text(outcome));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link_kind_of),
        cmocka_unit_test(test_condition_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
