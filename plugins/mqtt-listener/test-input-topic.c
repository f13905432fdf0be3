#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "input-topic.h"
#include "message.h"

enum { PROPERTIES_MAX = 8 };

struct pair {
    const char *name, *value;
};

struct message {
    Bus__Message m;
    Bus__Property system[PROPERTIES_MAX], application[PROPERTIES_MAX];
    Bus__Property *system_list[PROPERTIES_MAX], *application_list[PROPERTIES_MAX];
};

static size_t properties_fill(const struct pair *pairs, Bus__Property *items, Bus__Property **list)
{
    size_t n = 0;

    for (; n < PROPERTIES_MAX && pairs[n].name; n++) {
        bus__property__init(&items[n]);
        items[n].name = (char *)pairs[n].name;
        items[n].value = (char *)pairs[n].value;
        list[n] = &items[n];
    }
    return n;
}

static void message_fill(struct message *m, const char *device_id, const char *module_id,
                         const struct pair *system, const struct pair *application)
{
    bus__message__init(&m->m);
    m->m.device_id = (char *)device_id;
    m->m.module_id = (char *)module_id;
    m->m.n_system = properties_fill(system, m->system, m->system_list);
    m->m.system = m->system_list;
    m->m.n_application = properties_fill(application, m->application, m->application_list);
    m->m.application = m->application_list;
}

static void test_encode_cases(void **state)
{
    static const struct {
        const char *device_id, *module_id;
        struct pair system[PROPERTIES_MAX], application[PROPERTIES_MAX];
        const char *want; /* behind the slash */
    } cases[] = {
        { "leaf", "", {}, {}, "%24.cdid=leaf" },
        { "gw1",
          "sensor",
          { { MESSAGE_CONTENT_TYPE, "application/json" } },
          { { "room", "7" } },
          "%24.ct=application%2Fjson&%24.cdid=gw1&%24.cmid=sensor&room=7" },
        { "d",
          "",
          { { MESSAGE_OUTPUT_NAME, "out" },
            { MESSAGE_INTERFACE_ID, "i" },
            { MESSAGE_MODEL_ID, "m" } },
          { { "null", "" } },
          "%24.cdid=d&null=" },
        { "d",
          "",
          { { MESSAGE_ACK, "full" }, { MESSAGE_OPERATION, "op" } },
          { { "a b", "c+d=e&f/g#h" }, { "\xc3\xa9", "~-_." } },
          "iothub-operation=op&iothub-ack=full&%24.cdid=d&a%20b=c%2Bd%3De%26f%2Fg%23h&%C3%A9=~-_"
          "." },
        { "d", "", { { MESSAGE_ACK, "perhaps" } }, {}, "%24.cdid=d" },
        { "d",
          "",
          { { MESSAGE_CREATION_TIME, "2024-05-01T10:00:00Z" },
            { MESSAGE_EXPIRY, "2024-05-01T10:00:00.123456789+02:00" } },
          {},
          "%24.exp=2024-05-01T10%3A00%3A00.1234567%2B02%3A00"
          "&%24.ctime=2024-05-01T10%3A00%3A00.0000000Z&%24.cdid=d" },
        { "d",
          "",
          { { MESSAGE_CREATION_TIME, "2024-05-01T10:00:00.5" }, { MESSAGE_EXPIRY, "tomorrow" } },
          {},
          "%24.ctime=2024-05-01T10%3A00%3A00.5000000&%24.cdid=d" },
        { "d",
          "",
          { { MESSAGE_CREATION_TIME, "2024-5-1T10:00:00Z" },
            { MESSAGE_EXPIRY, "2024-05-01T10:00:00 Z" } },
          {},
          "%24.cdid=d" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *want =
            xasprintf("devices/gw1/modules/m/inputs/in 1/%s", cases[i].want);
        _cleanup_(buf_done) struct buf out = {};
        struct message m;

        message_fill(&m, cases[i].device_id, cases[i].module_id, cases[i].system,
                     cases[i].application);
        assert_int_equal(input_topic_encode("gw1", "m", "in 1", &m.m, &out), 0);
        buf_append_byte(&out, '\0');
        assert_string_equal(buf_span(&out).at, want);
    }
}

static void test_encode_refused(void **state)
{
    static const char *const names[] = { "in+1", "#", "a#" };
    _cleanup_(freep) char *value = xalloc0(30000);
    _cleanup_(buf_done) struct buf out = {};
    struct message m;

    message_fill(&m, "d", "", (struct pair[]){ {} }, (struct pair[]){ {} });
    buf_append(&out, "kept", 4);
    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        assert_int_equal(input_topic_encode("gw1", "m", names[i], &m.m, &out), INPUT_TOPIC_E_NAME);
    memset(value, ' ', 29999); /* three times as long when it is escaped */
    message_fill(&m, "d", "", (struct pair[]){ {} }, (struct pair[]){ { "n", value }, {} });
    assert_int_equal(input_topic_encode("gw1", "m", "i", &m.m, &out), INPUT_TOPIC_E_TOO_LONG);
    assert_int_equal(buf_len(&out), 4);
}

static void test_filter_wants(void **state)
{
    static const struct {
        const char *filter;
        bool want;
    } cases[] = {
        { "devices/gw1/modules/m/inputs/#", true },
        { "devices/gw1/modules/m/#", true },
        { "devices/+/modules/+/#", true },
        { "devices/gw1/modules/m/inputs/in1/#", true },
        { "devices/gw1/modules/m/+/#", true },
        { "devices/gw1/modules/m/messages/devicebound/#", false },
        { "devices/gw1/modules/m/inputs/+", false },
        { "devices/gw1/modules/other/#", false },
        { "devices/leaf/modules/m/#", false },
        { "devices/gw1/modules/#", false },
        { "#", false },
        { "", false },
        { "$iothub/methods/POST/#", false },
        { "devices/gw1/messages/devicebound/#", false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(input_filter_wants(span_str(cases[i].filter), "gw1", "m"), cases[i].want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode_cases),
        cmocka_unit_test(test_encode_refused),
        cmocka_unit_test(test_filter_wants),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
