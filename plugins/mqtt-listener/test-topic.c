#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "mem.h"
#include "message.h"
#include "topic.h"

static void assert_span(const char *what, struct span got, const char *want)
{
    if (!span_equal(got, span_str(want)))
        fail_msg("%s: '%.*s', expected '%s'", what, (int)got.len, got.at, want);
}

static void test_topic_parse(void **state)
{
    static const struct {
        const char *topic;
        enum topic_kind kind;
        const char *device, *module, *bag, *rid;
    } cases[] = {
        { "devices/d/messages/events", TOPIC_TELEMETRY, "d", "", "", "" },
        { "devices/d/messages/events/", TOPIC_TELEMETRY, "d", "", "", "" },
        { "devices/d/messages/events/a=b/", TOPIC_TELEMETRY, "d", "", "a=b/", "" },
        { "devices/d/messages/events/$.ct=application/json", TOPIC_TELEMETRY, "d", "",
          "$.ct=application/json", "" },
        { "devices/e/modules/m/messages/events/%24.on=o/", TOPIC_TELEMETRY, "e", "m", "%24.on=o/",
          "" },
        { "devices/modules/messages/events", TOPIC_TELEMETRY, "modules", "", "", "" },
        { "devices//messages/events", TOPIC_TELEMETRY, "", "", "", "" },
        { "devices/d/messages/eventsx", TOPIC_OTHER, "", "", "", "" },
        { "devices/d/messages/devicebound/", TOPIC_OTHER, "", "", "", "" },
        { "devices/d", TOPIC_OTHER, "", "", "", "" },
        { "devices/d/modules/m", TOPIC_OTHER, "", "", "", "" },
        { "x/devices/d/messages/events", TOPIC_OTHER, "", "", "", "" },
        { "Devices/d/messages/events", TOPIC_OTHER, "", "", "", "" },
        { "free/topic", TOPIC_OTHER, "", "", "", "" },
        { "$iothub/foo", TOPIC_OTHER, "", "", "", "" },
        { "$iothub/twin/GET/?$rid=12", TOPIC_TWIN_GET, "", "", "", "12" },
        { "$iothub/twin/GET/?$rid=12&x=y", TOPIC_TWIN_GET, "", "", "", "12" },
        { "$iothub/twin/GET/?$rid=", TOPIC_FORBIDDEN, "", "", "", "" },
        { "$iothub/twin/GET/", TOPIC_FORBIDDEN, "", "", "", "" },
        { "$iothub/twin/GET/x/?$rid=1", TOPIC_FORBIDDEN, "", "", "", "" },
        { "$iothub/twin/PUT/?$rid=1", TOPIC_FORBIDDEN, "", "", "", "" },
        { "$iothub/twin/PATCH/properties/reported/?$rid=a%20b&z", TOPIC_TWIN_REPORTED, "", "", "",
          "a%20b" },
        { "$iothub/twin/PATCH/properties/reported/", TOPIC_TWIN_REPORTED, "", "", "", "" },
        { "$iothub/twin/PATCH/properties/reported/x?$rid=1", TOPIC_FORBIDDEN, "", "", "", "" },
        { "$iothub/twin/PATCH/properties/desired/?$rid=1", TOPIC_FORBIDDEN, "", "", "", "" },
        { "$iothub/methods/res/200/?$rid=1", TOPIC_METHOD_RESPONSE, "", "", "", "" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct topic topic;

        topic_parse(span_str(cases[i].topic), &topic);
        if (topic.kind != cases[i].kind)
            fail_msg("%s: kind %d, expected %d", cases[i].topic, topic.kind, cases[i].kind);
        if (topic.kind == TOPIC_TELEMETRY) {
            assert_span(cases[i].topic, topic.device_id, cases[i].device);
            assert_span(cases[i].topic, topic.module_id, cases[i].module);
            assert_span(cases[i].topic, topic.bag, cases[i].bag);
        }
        if (topic.kind == TOPIC_TWIN_GET || topic.kind == TOPIC_TWIN_REPORTED)
            assert_span(cases[i].topic, topic.rid, cases[i].rid);
    }
}

/* "name=value;" of the system properties, "|", the same of the application properties. */
static void describe(const Bus__Message *m, struct buf *out)
{
    for (size_t i = 0; i < m->n_system; i++)
        buf_printf(out, "%s=%s;", m->system[i]->name, m->system[i]->value);
    buf_append_byte(out, '|');
    for (size_t i = 0; i < m->n_application; i++)
        buf_printf(out, "%s=%s;", m->application[i]->name, m->application[i]->value);
}

static void test_bag_decode(void **state)
{
    static const struct {
        const char *bag, *want;
    } cases[] = {
        { "", "|" },
        { "/", "|" },
        { "?", "|" },
        { "&&", "|" },
        { "a=b", "|a=b;" },
        { "a=b/", "|a=b;" },
        { "?a=b", "|a=b;" },
        { "&a=b&&c=d&", "|a=b;c=d;" },
        { "a", "|a=;" },
        { "a=", "|a=;" },
        { "a=b=c", "|a=b=c;" },
        { "b=1&a=2&c=3", "|b=1;a=2;c=3;" },
        { "a=1&b=2&a=3", "|b=2;a=3;" },
        { "A=1&a=2", "|A=1;a=2;" },
        { "a+b=c+d", "|a+b=c+d;" },
        { "k%20y=v%3D1%26", "|k y=v=1&;" },
        { "p=100%&q=%zz&r=%4", "|p=100%;q=%zz;r=%4;" },
        { "h=%c3%A4", "|h=\xc3\xa4;" },
        { "%24.on=out1&%24.mid=a%2Fb&%24.ct=application%2Fjson&k%20y=v%3D1/",
          "outputName=out1;messageId=a/b;contentType=application/json;|k y=v=1;" },
        { "%24.ct=application/json", "contentType=application/json;|" },
        { "$.cid=c&$.uid=u&$.to=t&$.ce=utf-8&$.ctime=x&$.exp=y&$.schema=s&$.sub=z&$.ifid=i",
          "cid=c;userId=u;to=t;contentEncoding=utf-8;creationTime=x;absolute-expiry-time=y;"
          "messageSchema=s;dt-subject=z;iothub-interface-id=i;|" },
        { "$.cdid=other&$.cmid=other&$.x=1", "|$.x=1;" },
        { "ack=none&iothub-ack=full&iothub-operation=op", "ack=full;operation=op;|" },
        { "=v", "|=v;" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Bus__Message m = BUS__MESSAGE__INIT;
        struct arena *arena = arena_new();
        struct buf got = {};

        assert_int_equal(bag_decode(span_str(cases[i].bag), arena, &m), 0);
        describe(&m, &got);
        assert_span(cases[i].bag, buf_span(&got), cases[i].want);
        buf_done(&got);
        arena_free(arena);
    }
}

static void test_bag_decode_not_text(void **state)
{
    static const char *const cases[] = { "a=%ff", "%c3=a", "a=%00", "ok=1&$.mid=%ed%a0%80" };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Bus__Message m = BUS__MESSAGE__INIT;
        struct arena *arena = arena_new();

        assert_int_equal(bag_decode(span_str(cases[i]), arena, &m), BAG_E_NOT_TEXT);
        arena_free(arena);
    }
}

/* As many as a topic can hold, all of one name or all different: still done at once. */
static void test_bag_decode_many(void **state)
{
    struct buf same = {}, different = {};
    Bus__Message m = BUS__MESSAGE__INIT;
    struct arena *arena = arena_new();

    for (unsigned i = 0; i < 16000; i++)
        buf_printf(&same, "a=%u&", i);
    assert_int_equal(bag_decode(buf_span(&same), arena, &m), 0);
    assert_int_equal(m.n_application, 1);
    assert_string_equal(m.application[0]->value, "15999");

    m = (Bus__Message)BUS__MESSAGE__INIT;
    for (unsigned i = 0; i < 16000; i++)
        buf_printf(&different, "%x=&", i);
    assert_int_equal(bag_decode(buf_span(&different), arena, &m), 0);
    assert_int_equal(m.n_application, 16000);
    assert_string_equal(m.application[0]->name, "0");
    assert_string_equal(m.application[15999]->name, "3e7f");
    buf_done(&same);
    buf_done(&different);
    arena_free(arena);
}

static void test_message_add(void **state)
{
    Bus__Message m = BUS__MESSAGE__INIT;
    struct arena *arena = arena_new();
    struct buf got = {};

    assert_int_equal(bag_decode(SPAN("mqtt-dup=no&a=b"), arena, &m), 0);
    message_add_application(&m, "mqtt-dup", "true", arena);
    message_add_application(&m, "mqtt-retain", "true", arena);
    message_add_system(&m, MESSAGE_MODEL_ID, "dtmi:x;1", arena);
    describe(&m, &got);
    assert_span("added", buf_span(&got), "modelId=dtmi:x;1;|mqtt-dup=true;a=b;mqtt-retain=true;");
    buf_done(&got);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_topic_parse),         cmocka_unit_test(test_bag_decode),
        cmocka_unit_test(test_bag_decode_not_text), cmocka_unit_test(test_bag_decode_many),
        cmocka_unit_test(test_message_add),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
