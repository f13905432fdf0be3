#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "session.h"

static void subscribe(struct session *s, const char *filter, uint8_t qos, int64_t now_sec,
                      bool want_changed)
{
    bool changed = !want_changed;

    assert_int_equal(session_subscribe(s, span_str(filter), qos, now_sec, &changed), 0);
    assert_int_equal(changed, want_changed);
}

static void test_subscribe(void **state)
{
    struct session s = {};

    subscribe(&s, "$iothub/twin/res/#", 0, 100, true);
    subscribe(&s, "$iothub/methods/POST/#", 1, 100, true);
    subscribe(&s, "$iothub/twin/res/#", 0, 200, false);
    subscribe(&s, "$iothub/twin/res/#", 1, 200, true);
    assert_int_equal(s.count, 2);
    assert_int_equal(s.subscriptions[0].created_sec, 100);
    assert_int_equal(s.subscriptions[0].qos, 1);

    assert_false(session_unsubscribe(&s, SPAN("other")));
    assert_true(session_unsubscribe(&s, SPAN("$iothub/twin/res/#")));
    assert_int_equal(s.count, 1);
    assert_string_equal(s.subscriptions[0].filter, "$iothub/methods/POST/#");
    assert_true(session_unsubscribe(&s, SPAN("$iothub/methods/POST/#")));
    assert_int_equal(s.count, 0);
    assert_int_equal(s.filter_bytes, 0);
    session_done(&s);
}

static void test_subscribe_bounds(void **state)
{
    _cleanup_(freep) char *large = xalloc0(SESSION_FILTER_BYTES_MAX + 1);
    struct session s = {};
    char filter[16];
    bool changed;

    for (unsigned i = 0; i < SESSION_SUBSCRIPTIONS_MAX; i++) {
        snprintf(filter, sizeof(filter), "f%u", i);
        subscribe(&s, filter, 1, 0, true);
    }
    assert_int_equal(session_subscribe(&s, SPAN("one/more"), 1, 0, &changed), SESSION_E_FULL);
    subscribe(&s, "f0", 0, 0, true); /* known ones still change */
    session_done(&s);

    memset(large, 'x', SESSION_FILTER_BYTES_MAX);
    subscribe(&s, large, 1, 0, true);
    assert_int_equal(session_subscribe(&s, SPAN("y"), 1, 0, &changed), SESSION_E_FULL);
    session_done(&s);
}

static void test_qos(void **state)
{
    struct session s = {};

    assert_int_equal(session_qos(&s, SPAN("a/b")), -1);
    subscribe(&s, "a/#", 0, 0, true);
    subscribe(&s, "a/b/+", 1, 0, true);
    assert_int_equal(session_qos(&s, SPAN("a/b")), 0);
    assert_int_equal(session_qos(&s, SPAN("a/b/c")), 1);
    assert_int_equal(session_qos(&s, SPAN("b")), -1);
    session_done(&s);
}

static void test_record(void **state)
{
    struct session s = {}, t = {};
    struct buf record = {};

    subscribe(&s, "a/#", 0, 1700000000, true);
    subscribe(&s, "b/\xc3\xa4", 1, 1700000001, true);
    session_encode(&s, &record);
    assert_int_equal(session_decode(&t, buf_span(&record)), 0);
    assert_int_equal(t.count, 2);
    assert_string_equal(t.subscriptions[0].filter, "a/#");
    assert_int_equal(t.subscriptions[0].qos, 0);
    assert_int_equal(t.subscriptions[0].created_sec, 1700000000);
    assert_string_equal(t.subscriptions[1].filter, "b/\xc3\xa4");
    assert_int_equal(t.subscriptions[1].qos, 1);
    buf_done(&record);
    session_done(&s);
    session_done(&t);

    session_encode(&s, &record); /* subscribed once, and to nothing now */
    assert_int_equal(session_decode(&t, buf_span(&record)), 0);
    assert_int_equal(t.count, 0);
    buf_done(&record);
}

static void test_record_malformed(void **state)
{
    static const struct {
        const char *what;
        struct span record;
    } cases[] = {
        { "garbage", { "\xff\xff\xff", 3 } },
        { "cut",
          { "\x0a\x05\x0a\x03"
            "a/",
            6 } },
        { "invalid filter",
          { "\x0a\x04\x0a\x02"
            "a#",
            6 } },
        { "QoS 2",
          { "\x0a\x05\x0a\x01"
            "a\x10\x02",
            7 } },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct session s = {};

        if (session_decode(&s, cases[i].record) != SESSION_E_MALFORMED)
            fail_msg("%s", cases[i].what);
        assert_int_equal(s.count, 0);
        assert_null(s.subscriptions);
    }
}

static void test_key(void **state)
{
    _cleanup_(freep) char *device = session_key("d", "");
    _cleanup_(freep) char *module = session_key("d", "m");

    assert_string_equal(device, "mqtt/session/d");
    assert_string_equal(module, "mqtt/session/d/m");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_subscribe),
        cmocka_unit_test(test_subscribe_bounds),
        cmocka_unit_test(test_qos),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_record_malformed),
        cmocka_unit_test(test_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
