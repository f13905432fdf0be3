#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "amqp-codec.h"
#include "amqp-message.h"
#include "mem.h"
#include "message.h"

#define BYTES(literal) SPAN(literal)

static struct arena *arena;

static int setup(void **state)
{
    arena = arena_new();
    return 0;
}

static int teardown(void **state)
{
    arena = arena_free(arena);
    return 0;
}

static Bus__Property property(const char *name, const char *value)
{
    Bus__Property p = BUS__PROPERTY__INIT;

    p.name = (char *)name;
    p.value = (char *)value;
    return p;
}

static Bus__Message *decode(struct span encoded)
{
    const char *expected = NULL;
    Bus__Message *m = NULL;

    assert_int_equal(amqp_message_decode(encoded, arena, &m, &expected), 0);
    return m;
}

static void assert_span(struct span got, struct span want)
{
    assert_int_equal(got.len, want.len);
    if (want.len > 0)
        assert_memory_equal(got.at, want.at, want.len);
}

/* ---- Out ---- */

static void test_encode_upstream_bytes(void **state)
{
    Bus__Property id = property(MESSAGE_ID, "m-1"), type = property(MESSAGE_CONTENT_TYPE, "a/b");
    Bus__Property k = property("k", "v");
    Bus__Property *system[] = { &type, &id }, *application[] = { &k };
    Bus__Message m = BUS__MESSAGE__INIT;
    struct buf out = {};

    m.body = (ProtobufCBinaryData){ 1, (uint8_t *)"x" };
    amqp_message_encode_upstream(&m, &out);
    assert_span(buf_span(&out), BYTES("\x00\x53\x75\xa0\x01x"));
    buf_eat(&out, buf_len(&out));

    m.n_system = ELEMENTSOF(system);
    m.system = system;
    m.n_application = ELEMENTSOF(application);
    m.application = application;
    amqp_message_encode_upstream(&m, &out);
    assert_span(buf_span(&out), BYTES("\x00\x53\x73\xc0\x10\x07"
                                      "\xa1\x03m-1\x40\x40\x40\x40\x40\xa3\x03"
                                      "a/b"
                                      "\x00\x53\x74\xc1\x07\x02\xa1\x01k\xa1\x01v"
                                      "\x00\x53\x75\xa0\x01x"));
    buf_done(&out);
}

/* Everything that is sent up arrives; what must stay behind does not (hub.md §1.3). */
static void test_encode_upstream_round_trip(void **state)
{
    static const char *const sent[][2] = {
        { MESSAGE_ID, "id" },
        { MESSAGE_CORRELATION_ID, "corr" },
        { MESSAGE_USER_ID, "me" },
        { MESSAGE_TO, "/devices/d/messages/events" },
        { MESSAGE_CONTENT_TYPE, "application/json" },
        { MESSAGE_CONTENT_ENCODING, "utf-8" },
        { MESSAGE_CREATION_TIME, "no date at all" },
        { MESSAGE_SCHEMA, "schema" },
        { MESSAGE_SUBJECT, "component" },
    };
    static const char *const kept[][2] = {
        { MESSAGE_OUTPUT_NAME, "out" },
        { MESSAGE_EXPIRY, "2026-01-02T03:04:05.0000000Z" },
        { MESSAGE_ACK, "full" },
        { MESSAGE_OPERATION, "op" },
        { MESSAGE_INTERFACE_ID, "urn:something:else" },
    };
    Bus__Property properties[ELEMENTSOF(sent) + ELEMENTSOF(kept)];
    Bus__Property *system[ELEMENTSOF(properties)];
    Bus__Message m = BUS__MESSAGE__INIT;
    struct buf out = {};
    Bus__Message *back;

    for (size_t n = 0; n < ELEMENTSOF(properties); n++) {
        const char *const *pair = n < ELEMENTSOF(sent) ? sent[n] : kept[n - ELEMENTSOF(sent)];

        properties[n] = property(pair[0], pair[1]);
        system[n] = &properties[n];
    }
    m.n_system = ELEMENTSOF(system);
    m.system = system;
    amqp_message_encode_upstream(&m, &out);
    back = decode(buf_span(&out));
    assert_int_equal(back->n_system, ELEMENTSOF(sent));
    for (size_t n = 0; n < ELEMENTSOF(sent); n++)
        assert_string_equal(message_system(back, sent[n][0]), sent[n][1]);
    for (size_t n = 0; n < ELEMENTSOF(kept); n++)
        assert_null(message_system(back, kept[n][0]));
    assert_int_equal(back->n_application, 0);
    assert_int_equal(back->body.len, 0);
    buf_done(&out);
}

static void test_encode_upstream_security_agent(void **state)
{
    Bus__Property interface =
        property(MESSAGE_INTERFACE_ID, "URN:azureiot:security:SecurityAgent:1");
    Bus__Property *system[] = { &interface };
    Bus__Message m = BUS__MESSAGE__INIT;
    struct buf out = {};

    m.n_system = 1;
    m.system = system;
    amqp_message_encode_upstream(&m, &out);
    assert_string_equal(message_system(decode(buf_span(&out)), MESSAGE_INTERFACE_ID),
                        interface.value);
    buf_done(&out);
}

/* A content type that no symbol can hold does not cost the message. */
static void test_encode_upstream_no_symbol(void **state)
{
    Bus__Property type = property(MESSAGE_CONTENT_TYPE, "text/\xc3\xa4");
    Bus__Property *system[] = { &type };
    Bus__Message m = BUS__MESSAGE__INIT;
    struct buf out = {};

    m.n_system = 1;
    m.system = system;
    amqp_message_encode_upstream(&m, &out);
    assert_span(buf_span(&out), BYTES("\x00\x53\x75\xa0\x00"));
    buf_done(&out);
}

/* Sizes around the borders between the short and the long forms. */
static void test_encode_upstream_sizes(void **state)
{
    static const size_t sizes[] = { 0,   1,   240, 245, 249, 250,   251,   252,
                                    253, 254, 255, 256, 257, 65536, 262144 };
    static char text[262145];

    memset(text, 'z', sizeof(text) - 1);
    for (size_t n = 0; n < ELEMENTSOF(sizes); n++) {
        _cleanup_(freep) char *value = xstrndup(text, sizes[n]);
        Bus__Property k = property("k", value), id = property(MESSAGE_ID, value);
        Bus__Property *application[] = { &k }, *system[] = { &id };
        Bus__Message m = BUS__MESSAGE__INIT;
        struct buf out = {};
        Bus__Message *back;

        m.n_application = m.n_system = 1;
        m.application = application;
        m.system = system;
        m.body = (ProtobufCBinaryData){ sizes[n], (uint8_t *)text };
        amqp_message_encode_upstream(&m, &out);
        back = decode(buf_span(&out));
        assert_string_equal(back->application[0]->value, value);
        assert_string_equal(message_system(back, MESSAGE_ID), value);
        assert_int_equal(back->body.len, sizes[n]);
        buf_done(&out);
        arena_reset(arena);
    }
}

/* ---- In ---- */

/* As the C SDK writes: properties, application properties, annotations, data (amqp.md §6). */
static void test_decode_any_order(void **state)
{
    Bus__Message *m = decode(BYTES("\x00\x53\x73\xc0\x06\x01\xa1\x03m-1"
                                   "\x00\x53\x74\xc1\x07\x02\xa1\x01k\xa1\x01v"
                                   "\x00\x53\x72\xc1\x10\x02\xa3\x0a"
                                   "dt-subject\xa1\x01"
                                   "c"
                                   "\x00\x53\x75\xa0\x02hi"
                                   "\x00\x53\x78\xc1\x01\x00"));

    assert_string_equal(message_system(m, MESSAGE_ID), "m-1");
    assert_string_equal(message_system(m, MESSAGE_SUBJECT), "c");
    assert_int_equal(m->n_application, 1);
    assert_string_equal(m->application[0]->name, "k");
    assert_string_equal(m->application[0]->value, "v");
    assert_span(span_of(m->body.data, m->body.len), SPAN("hi"));
    assert_string_equal(m->device_id, "");
}

static void test_decode_property_types(void **state)
{
    static const struct {
        struct span value;
        const char *want;
    } cases[] = {
        { BYTES("\xa1\x02ok"), "ok" },
        { BYTES("\xa3\x02ok"), "ok" },
        { BYTES("\xb1\x00\x00\x00\x02ok"), "ok" },
        { BYTES("\x40"), "" },
        { BYTES("\x41"), "true" },
        { BYTES("\x56\x00"), "false" },
        { BYTES("\x43"), "0" },
        { BYTES("\x52\xff"), "255" },
        { BYTES("\x80\xff\xff\xff\xff\xff\xff\xff\xff"), "18446744073709551615" },
        { BYTES("\x54\xff"), "-1" },
        { BYTES("\x71\x80\x00\x00\x00"), "-2147483648" },
        { BYTES("\x81\x80\x00\x00\x00\x00\x00\x00\x00"), "-9223372036854775808" },
        { BYTES("\x82\x3f\xb9\x99\x99\x99\x99\x99\x9a"), "0.1" },
        { BYTES("\x72\x3f\x00\x00\x00"), "0.5" },
        { BYTES("\x83\x00\x00\x01\x9b\x7c\xa9\x8f\x2e"), "2026-01-02T03:04:05.6780000Z" },
        { BYTES("\x83\xff\xff\xff\xff\xff\xff\xff\xff"), "1969-12-31T23:59:59.9990000Z" },
        { BYTES("\x98\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"),
          "00112233-4455-6677-8899-aabbccddeeff" },
        { BYTES("\xa0\x02ok"), "ok" },
        { BYTES("\xa0\x02\xff\x00"), "ff00" },
    };

    for (size_t n = 0; n < ELEMENTSOF(cases); n++) {
        struct buf encoded = {};
        Bus__Message *m;

        amqp_put_descriptor(&encoded, AMQP_SECTION_APPLICATION_PROPERTIES);
        amqp_put_map(&encoded, 2, 3 + cases[n].value.len);
        amqp_put_string(&encoded, SPAN("k"));
        buf_append_span(&encoded, cases[n].value);
        m = decode(buf_span(&encoded));
        assert_string_equal(m->application[0]->value, cases[n].want);
        buf_done(&encoded);
    }
}

/* Node sends an id that looks like a UUID as one, the C SDK a ulong for CBS. */
static void test_decode_message_id_types(void **state)
{
    Bus__Message *m =
        decode(BYTES("\x00\x53\x73\xc0\x14\x01\x98\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa"
                     "\xbb\xcc\xdd\xee\xff\x40\x40"
                     "\x00\x53\x75\xa0\x00"));

    assert_string_equal(message_system(m, MESSAGE_ID), "00112233-4455-6677-8899-aabbccddeeff");
    m = decode(BYTES("\x00\x53\x73\xc0\x03\x01\x53\x07\x00\x53\x75\xa0\x00"));
    assert_string_equal(message_system(m, MESSAGE_ID), "7");
}

static void test_decode_bodies(void **state)
{
    static const struct {
        struct span encoded, want;
    } cases[] = {
        { BYTES("\x00\x53\x75\xa0\x01"
                "a\x00\x53\x75\xb0\x00\x00\x00\x02"
                "bc"),
          SPAN("abc") },
        { BYTES("\x00\x53\x77\xa1\x02hi"), SPAN("hi") },
        { BYTES("\x00\x53\x77\xa0\x02\x00\x01"), SPAN("\x00\x01") },
        { BYTES("\x00\x53\x77\x40"), SPAN("") },
        { BYTES("\x00\x53\x70\x45\x00\x53\x75\xa0\x01x"), SPAN("x") },
        { BYTES(""), SPAN("") },
    };

    for (size_t n = 0; n < ELEMENTSOF(cases); n++) {
        Bus__Message *m = decode(cases[n].encoded);

        assert_span(span_of(m->body.data, m->body.len), cases[n].want);
    }
}

static void test_decode_refuses(void **state)
{
    static const struct {
        struct span encoded;
        int want;
    } cases[] = {
        { BYTES("\x00\x53\x75"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x75\xa0\x05hi"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x75\xa1\x02hi"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x53\x75"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x10\x45"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x00\x53\x75\xa0\x00"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x73\x45\x00\x53\x73\x45"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x74\x45"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x74\xc1\x04\x01\xa1\x01k"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x74\xc1\x05\x02\xa1\x01k\x45"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x74\xc1\x03\x02\x43\x43"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x74\xc1\x07\x02\xa1\x01\xff\xa1\x01v"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x74\xc1\x07\x02\xa1\x01k\xa1\x01\x00"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x75\xa0\x00\x00\x53\x77\x40"), AMQP_MESSAGE_E_MALFORMED },
        { BYTES("\x00\x53\x76\x45"), AMQP_MESSAGE_E_UNSUPPORTED },
        { BYTES("\x00\x53\x77\x45"), AMQP_MESSAGE_E_UNSUPPORTED },
    };

    for (size_t n = 0; n < ELEMENTSOF(cases); n++) {
        const char *expected = NULL;
        Bus__Message *m = NULL;

        assert_int_equal(amqp_message_decode(cases[n].encoded, arena, &m, &expected),
                         cases[n].want);
        assert_non_null(expected);
        assert_null(m);
    }
}

/* ---- Batches ---- */

struct inner {
    unsigned count;
    struct span at[4];
};

static int on_inner(struct span inner, void *userdata)
{
    struct inner *i = userdata;

    i->at[i->count++] = inner;
    return i->count == 3 ? 77 : 0;
}

/* The example of amqp.md §8.2. */
static void test_batch_each(void **state)
{
    struct inner inner = {};
    Bus__Message *m;

    assert_int_equal(amqp_batch_each(BYTES("\x00\x53\x75\xA0\x12"
                                           "\x00\x53\x74\xC1\x07\x02\xA1\x01\x6B\xA1\x01\x76"
                                           "\x00\x53\x75\xA0\x01\x61"
                                           "\x00\x53\x75\xA0\x06\x00\x53\x75\xA0\x01\x62"),
                                     on_inner, &inner),
                     0);
    assert_int_equal(inner.count, 2);
    m = decode(inner.at[0]);
    assert_string_equal(m->application[0]->name, "k");
    assert_span(span_of(m->body.data, m->body.len), SPAN("a"));
    m = decode(inner.at[1]);
    assert_int_equal(m->n_application, 0);
    assert_span(span_of(m->body.data, m->body.len), SPAN("b"));
}

static void test_batch_each_edges(void **state)
{
    static const struct {
        struct span encoded;
        int want;
        unsigned want_count;
    } cases[] = {
        { BYTES(""), 0, 0 },
        { BYTES("\x00\x53\x74\xc1\x07\x02\xa1\x01k\xa1\x01v\x00\x53\x75\xa0\x00"), 0, 1 },
        { BYTES("\x00\x53\x75\xa0\x00\x00\x53\x75\xa0\x00\x00\x53\x75\xa0\x00\x00\x53\x75\xa0\x00"),
          77, 3 },
        { BYTES("\x00\x53\x75\xa0\x00\x00\x53\x75\xa0\x09"), AMQP_MESSAGE_E_MALFORMED, 1 },
        { BYTES("\x00\x53\x75\xa1\x00"), AMQP_MESSAGE_E_MALFORMED, 0 },
        { BYTES("\x00\x53\x20\x45"), AMQP_MESSAGE_E_MALFORMED, 0 },
    };

    for (size_t n = 0; n < ELEMENTSOF(cases); n++) {
        struct inner inner = {};

        assert_int_equal(amqp_batch_each(cases[n].encoded, on_inner, &inner), cases[n].want);
        assert_int_equal(inner.count, cases[n].want_count);
    }
}

/* ---- Addresses ---- */

static void test_address_parse(void **state)
{
    static const struct {
        const char *address;
        bool want;
        enum amqp_node node;
        const char *device_id, *module_id;
    } cases[] = {
        { "$cbs", true, AMQP_NODE_CBS, "", "" },
        { "/$CBS", true, AMQP_NODE_CBS, "", "" },
        { "/devices/d/messages/events", true, AMQP_NODE_EVENTS, "d", "" },
        { "devices/d/messages/devicebound", true, AMQP_NODE_DEVICEBOUND, "d", "" },
        { "amqps://lab:5671/devices/d/modules/%24edgeHub/messages/events", true, AMQP_NODE_EVENTS,
          "d", "%24edgeHub" },
        { "amqps://lab/Devices/D/Modules/M/methods/deviceBound", true, AMQP_NODE_METHODS, "D",
          "M" },
        { "/devices/a%#?b/twin", true, AMQP_NODE_TWIN, "a%#?b", "" },
        { "/devices/d", false, 0, NULL, NULL },
        { "/devices//twin", false, 0, NULL, NULL },
        { "/devices/d/modules//twin", false, 0, NULL, NULL },
        { "/devices/d/twin/", false, 0, NULL, NULL },
        { "/devices/d/modules/m/messages", false, 0, NULL, NULL },
        { "amqps://lab", false, 0, NULL, NULL },
        { "", false, 0, NULL, NULL },
    };

    for (size_t n = 0; n < ELEMENTSOF(cases); n++) {
        struct amqp_address a = {};

        assert_int_equal(amqp_address_parse(span_str(cases[n].address), &a), cases[n].want);
        if (!cases[n].want)
            continue;
        assert_int_equal(a.node, cases[n].node);
        assert_span(a.device_id, span_str(cases[n].device_id));
        assert_span(a.module_id, span_str(cases[n].module_id));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode_upstream_bytes),
        cmocka_unit_test(test_encode_upstream_round_trip),
        cmocka_unit_test(test_encode_upstream_security_agent),
        cmocka_unit_test(test_encode_upstream_no_symbol),
        cmocka_unit_test(test_encode_upstream_sizes),
        cmocka_unit_test(test_decode_any_order),
        cmocka_unit_test(test_decode_property_types),
        cmocka_unit_test(test_decode_message_id_types),
        cmocka_unit_test(test_decode_bodies),
        cmocka_unit_test(test_decode_refuses),
        cmocka_unit_test(test_batch_each),
        cmocka_unit_test(test_batch_each_edges),
        cmocka_unit_test(test_address_parse),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
