/* Transcripts: these bytes in, these structs out, and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "mqtt-codec.h"

enum { PACKET_MAX = 262144 };

#define CONNECT_HEAD "\x00\x04MQTT\x04"

static void assert_span(struct span got, const char *want)
{
    assert_int_equal(got.len, strlen(want));
    assert_memory_equal(got.at, want, got.len);
}

static struct mqtt_packet decode(struct span in)
{
    struct mqtt_packet packet = {};
    struct parse_error error = {};

    assert_int_equal(mqtt_decode(in, PACKET_MAX, &packet, &error), 0);
    assert_int_equal(packet.len, in.len);
    return packet;
}

static void test_decode_connect(void **state)
{
    struct mqtt_packet p = decode(SPAN("\x10\x22" CONNECT_HEAD "\xc2\x00\xb4"
                                       "\x00\x03"
                                       "d/m"
                                       "\x00\x0b"
                                       "hub/d/m/?x="
                                       "\x00\x04"
                                       "\x00\xff"
                                       "pw"));

    assert_int_equal(p.type, MQTT_CONNECT);
    assert_int_equal(p.connect.level, 4);
    assert_true(p.connect.clean_session);
    assert_false(p.connect.has_will);
    assert_int_equal(p.connect.keep_alive_sec, 180);
    assert_span(p.connect.client_id, "d/m");
    assert_span(p.connect.username, "hub/d/m/?x=");
    assert_int_equal(p.connect.password.len, 4);
    assert_memory_equal(p.connect.password.at, "\x00\xffpw", 4);
}

static void test_decode_connect_will(void **state)
{
    struct mqtt_packet p = decode(SPAN("\x10\x16" CONNECT_HEAD "\x2c\x00\x00"
                                       "\x00\x01"
                                       "d"
                                       "\x00\x01"
                                       "t"
                                       "\x00\x04"
                                       "gone"));

    assert_false(p.connect.clean_session);
    assert_true(p.connect.has_will);
    assert_true(p.connect.will_retain);
    assert_int_equal(p.connect.will_qos, 1);
    assert_span(p.connect.will_topic, "t");
    assert_span(p.connect.will_payload, "gone");
    assert_int_equal(p.connect.username.len, 0);
    assert_int_equal(p.connect.password.len, 0);
}

/* MQTT 5 puts properties where 3.1.1 has the client id: the level is all that can be told. */
static void test_decode_connect_other_level(void **state)
{
    struct mqtt_packet p = decode(SPAN("\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"));

    assert_int_equal(p.connect.level, 5);
}

static void test_decode_publish(void **state)
{
    struct mqtt_packet p = decode(SPAN("\x3b\x09\x00\x03"
                                       "a/b"
                                       "\x01\x02"
                                       "hi"));

    assert_int_equal(p.type, MQTT_PUBLISH);
    assert_true(p.publish.dup);
    assert_true(p.publish.retain);
    assert_int_equal(p.publish.qos, 1);
    assert_int_equal(p.publish.packet_id, 0x102);
    assert_span(p.publish.topic, "a/b");
    assert_span(p.publish.payload, "hi");

    p = decode(SPAN("\x30\x05\x00\x03"
                    "a/b")); /* QoS 0, empty */
    assert_int_equal(p.publish.qos, 0);
    assert_int_equal(p.publish.packet_id, 0);
    assert_int_equal(p.publish.payload.len, 0);

    p = decode(SPAN("\x34\x05\x00\x01"
                    "a"
                    "\x00\x09")); /* QoS 2 is well-formed */
    assert_int_equal(p.publish.qos, 2);
}

static void test_decode_short_packets(void **state)
{
    static const struct {
        struct span in;
        enum mqtt_type type;
        uint16_t packet_id;
    } cases[] = {
        { { "\x40\x02\x00\x01", 4 }, MQTT_PUBACK, 1 },
        { { "\x50\x02\xff\xff", 4 }, MQTT_PUBREC, 0xffff },
        { { "\x62\x02\x00\x07", 4 }, MQTT_PUBREL, 7 },
        { { "\x70\x02\x00\x07", 4 }, MQTT_PUBCOMP, 7 },
        { { "\xc0\x00", 2 }, MQTT_PINGREQ, 0 },
        { { "\xe0\x00", 2 }, MQTT_DISCONNECT, 0 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct mqtt_packet p = decode(cases[i].in);

        assert_int_equal(p.type, cases[i].type);
        if (cases[i].packet_id)
            assert_int_equal(p.packet_id, cases[i].packet_id);
    }
}

static void test_decode_subscribe(void **state)
{
    struct mqtt_packet p = decode(SPAN("\x82\x0e\x00\x05"
                                       "\x00\x03"
                                       "a/#"
                                       "\x02"
                                       "\x00\x03"
                                       "b/+"
                                       "\x00"));
    struct span rest = p.filters.filters, filter;
    uint8_t qos = 9;

    assert_int_equal(p.filters.packet_id, 5);
    assert_int_equal(p.filters.count, 2);
    assert_true(mqtt_filters_next(&rest, &filter, &qos));
    assert_span(filter, "a/#");
    assert_int_equal(qos, 2);
    assert_true(mqtt_filters_next(&rest, &filter, &qos));
    assert_span(filter, "b/+");
    assert_int_equal(qos, 0);
    assert_false(mqtt_filters_next(&rest, &filter, &qos));
}

static void test_decode_unsubscribe(void **state)
{
    struct mqtt_packet p = decode(SPAN("\xa2\x05\x00\x06\x00\x01#"));
    struct span rest = p.filters.filters, filter;

    assert_int_equal(p.type, MQTT_UNSUBSCRIBE);
    assert_int_equal(p.filters.count, 1);
    assert_true(mqtt_filters_next(&rest, &filter, NULL));
    assert_span(filter, "#");
    assert_false(mqtt_filters_next(&rest, &filter, NULL));
}

/* Every prefix asks for more; what follows a packet is left alone. */
static void test_decode_incremental(void **state)
{
    struct span two = SPAN("\x32\x07\x00\x01"
                           "t"
                           "\x00\x01"
                           "xx\xc0\x00");
    struct mqtt_packet packet;
    struct parse_error error;

    for (size_t len = 0; len < 9; len++)
        assert_int_equal(mqtt_decode(span_of(two.at, len), PACKET_MAX, &packet, &error),
                         MQTT_E_MORE);
    for (size_t len = 9; len <= two.len; len++) {
        assert_int_equal(mqtt_decode(span_of(two.at, len), PACKET_MAX, &packet, &error), 0);
        assert_int_equal(packet.len, 9);
    }
}

/* It is enough to have seen the length. */
static void test_decode_too_large(void **state)
{
    struct mqtt_packet packet;
    struct parse_error error;

    /* 262141 after a header of 4 bytes is one too many */
    assert_int_equal(mqtt_decode(SPAN("\x30\xfd\xff\x0f"), PACKET_MAX, &packet, &error),
                     MQTT_E_TOO_LARGE);
    assert_int_equal(mqtt_decode(SPAN("\x30\xfc\xff\x0f"), PACKET_MAX, &packet, &error),
                     MQTT_E_MORE);
    assert_int_equal(mqtt_decode(SPAN("\x30\xff\xff\xff\x7f"), PACKET_MAX, &packet, &error),
                     MQTT_E_TOO_LARGE);
}

#define BYTES(literal)                                                                             \
    {                                                                                              \
        "" literal, sizeof(literal) - 1                                                            \
    }

static void test_decode_malformed(void **state)
{
    static const struct {
        const char *what;
        struct span in;
        size_t want_offset;
    } cases[] = {
        { "type 0", BYTES("\x00\x00"), 0 },
        { "type 15", BYTES("\xf0\x00"), 0 },
        { "CONNACK", BYTES("\x20\x02\x00\x00"), 0 },
        { "SUBACK", BYTES("\x90\x03\x00\x01\x00"), 0 },
        { "UNSUBACK", BYTES("\xb0\x02\x00\x01"), 0 },
        { "PINGRESP", BYTES("\xd0\x00"), 0 },
        { "flags of SUBSCRIBE", BYTES("\x80"), 0 },
        { "flags of PUBREL", BYTES("\x60"), 0 },
        { "flags of PINGREQ", BYTES("\xc1"), 0 },
        { "PUBLISH QoS 3", BYTES("\x36"), 0 },
        { "length of 5 bytes", BYTES("\x30\xff\xff\xff\xff\x01"), 5 },
        { "PINGREQ with content", BYTES("\xc0\x01\x00"), 2 },
        { "PUBACK too short", BYTES("\x40\x01\x00"), 2 },
        { "PUBACK too long", BYTES("\x40\x03\x00\x01\x00"), 4 },
        { "packet id 0", BYTES("\x40\x02\x00\x00"), 2 },
        { "PUBLISH packet id 0", BYTES("\x32\x05\x00\x01t\x00\x00"), 5 },
        { "PUBLISH empty topic", BYTES("\x30\x02\x00\x00"), 2 },
        { "PUBLISH topic +", BYTES("\x30\x03\x00\x01+"), 2 },
        { "PUBLISH topic #",
          BYTES("\x30\x05\x00\x03"
                "a/#"),
          2 },
        { "PUBLISH topic beyond the end", BYTES("\x30\x03\x00\x09t"), 2 },
        { "PUBLISH topic not UTF-8", BYTES("\x30\x03\x00\x01\xff"), 2 },
        { "PUBLISH topic with NUL", BYTES("\x30\x03\x00\x01\x00"), 2 },
        { "PUBLISH no topic", BYTES("\x30\x00"), 2 },
        { "SUBSCRIBE no filter", BYTES("\x82\x02\x00\x01"), 4 },
        { "SUBSCRIBE packet id 0",
          BYTES("\x82\x06\x00\x00\x00\x01"
                "a\x00"),
          2 },
        { "SUBSCRIBE empty filter", BYTES("\x82\x05\x00\x01\x00\x00\x00"), 4 },
        { "SUBSCRIBE QoS 3",
          BYTES("\x82\x06\x00\x01\x00\x01"
                "a\x03"),
          7 },
        { "SUBSCRIBE no QoS",
          BYTES("\x82\x05\x00\x01\x00\x01"
                "a"),
          7 },
        { "SUBSCRIBE second is bad",
          BYTES("\x82\x0b\x00\x01\x00\x01"
                "a\x00\x00\x02"
                "##\x00"),
          8 },
        { "UNSUBSCRIBE no filter", BYTES("\xa2\x02\x00\x01"), 4 },
        { "CONNECT MQIsdp", BYTES("\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00"), 2 },
        { "CONNECT mqtt", BYTES("\x10\x0c\x00\x04mqtt\x04\x02\x00\x00\x00\x00"), 2 },
        { "CONNECT reserved flag", BYTES("\x10\x0c" CONNECT_HEAD "\x03\x00\x00\x00\x00"), 9 },
        { "CONNECT Will QoS, no Will", BYTES("\x10\x0c" CONNECT_HEAD "\x08\x00\x00\x00\x00"), 9 },
        { "CONNECT Will retain, no Will", BYTES("\x10\x0c" CONNECT_HEAD "\x20\x00\x00\x00\x00"),
          9 },
        { "CONNECT Will QoS 3", BYTES("\x10\x0c" CONNECT_HEAD "\x1c\x00\x00\x00\x00"), 9 },
        { "CONNECT password alone", BYTES("\x10\x0e" CONNECT_HEAD "\x40\x00\x00\x00\x00\x00\x00"),
          9 },
        { "CONNECT no user name", BYTES("\x10\x0c" CONNECT_HEAD "\x80\x00\x00\x00\x00"), 14 },
        { "CONNECT more than flags say", BYTES("\x10\x0d" CONNECT_HEAD "\x02\x00\x00\x00\x00x"),
          14 },
        { "CONNECT empty", BYTES("\x10\x00"), 2 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct mqtt_packet packet;
        struct parse_error error = {};
        int r = mqtt_decode(cases[i].in, PACKET_MAX, &packet, &error);

        if (r != MQTT_E_MALFORMED || error.offset != cases[i].want_offset)
            fail_msg("%s: outcome %d at %zu, expected malformed at %zu", cases[i].what, r,
                     error.offset, cases[i].want_offset);
        assert_non_null(error.expected);
    }
}

static void test_filter_valid(void **state)
{
    static const struct {
        const char *filter;
        bool want;
    } cases[] = {
        { "#", true },         { "+", true },
        { "/", true },         { "a", true },
        { "a/#", true },       { "+/a/+", true },
        { "/+", true },        { "a//b", true },
        { "", false },         { "a#", false },
        { "#/a", false },      { "a/#/b", false },
        { "a+", false },       { "+a/b", false },
        { "a/b+/c", false },   { "##", false },
        { "++", false },       { "a/##", false },
        { "$iothub/#", true }, { "devices/+/messages/devicebound/#", true },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        if (mqtt_filter_valid(span_str(cases[i].filter)) != cases[i].want)
            fail_msg("'%s'", cases[i].filter);
}

static void test_filter_matches(void **state)
{
    static const struct {
        const char *filter, *topic;
        bool want;
    } cases[] = {
        { "a/b", "a/b", true },
        { "a/b", "a/c", false },
        { "a/b", "a/b/c", false },
        { "a/b/c", "a/b", false },
        { "a/#", "a/b/c", true },
        { "a/#", "a", true },
        { "a/#", "ab", false },
        { "#", "a/b", true },
        { "#", "$iothub/twin/res/200", false },
        { "+/twin", "$iothub/twin", false },
        { "a/+/c", "a/b/c", true },
        { "a/+/c", "a/b/d", false },
        { "a/+", "a", false },
        { "a/+", "a/", true },
        { "/+", "/a", true },
        { "+", "/a", false },
        { "$iothub/twin/res/#", "$iothub/twin/res/503/?$rid=1", true },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        if (mqtt_filter_matches(span_str(cases[i].filter), span_str(cases[i].topic)) !=
            cases[i].want)
            fail_msg("'%s' '%s'", cases[i].filter, cases[i].topic);
}

static void test_encode(void **state)
{
    static const uint8_t codes[] = { 1, 0 };
    static const char want[] = "\x20\x02\x00\x05"
                               "\x20\x02\x01\x00"
                               "\x40\x02\x01\x02"
                               "\x90\x04\x00\x03\x01\x00"
                               "\xb0\x02\x00\x04"
                               "\xd0\x00"
                               "\x30\x05\x00\x01t{}"
                               "\x32\x07\x00\x01t\x00\x09{}";
    struct buf out = {};

    mqtt_encode_connack(&out, false, MQTT_CONNACK_REFUSED);
    mqtt_encode_connack(&out, true, MQTT_CONNACK_ACCEPTED);
    mqtt_encode_puback(&out, 0x102);
    mqtt_encode_suback(&out, 3, codes, 2);
    mqtt_encode_unsuback(&out, 4);
    mqtt_encode_pingresp(&out);
    mqtt_encode_publish(&out, SPAN("t"), SPAN("{}"), 0, 0, false);
    mqtt_encode_publish(&out, SPAN("t"), SPAN("{}"), 1, 9, false);
    assert_int_equal(buf_len(&out), sizeof(want) - 1);
    assert_memory_equal(buf_span(&out).at, want, sizeof(want) - 1);
    buf_done(&out);
}

/* What is encoded with a length of one to four bytes is decoded with the same. */
static void test_encode_lengths(void **state)
{
    static const size_t sizes[] = { 0, 124, 125, 16380, 16381, 2097148, 2097149 };

    for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
        _cleanup_(freep) char *payload = xalloc0(sizes[i] + 1);
        struct mqtt_packet packet;
        struct parse_error error;
        struct buf out = {};

        mqtt_encode_publish(&out, SPAN("t"), span_of(payload, sizes[i]), 0, 0, false);
        assert_int_equal(mqtt_decode(buf_span(&out), SIZE_MAX, &packet, &error), 0);
        assert_int_equal(packet.len, buf_len(&out));
        assert_int_equal(packet.publish.payload.len, sizes[i]);
        buf_done(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_connect),
        cmocka_unit_test(test_decode_connect_will),
        cmocka_unit_test(test_decode_connect_other_level),
        cmocka_unit_test(test_decode_publish),
        cmocka_unit_test(test_decode_short_packets),
        cmocka_unit_test(test_decode_subscribe),
        cmocka_unit_test(test_decode_unsubscribe),
        cmocka_unit_test(test_decode_incremental),
        cmocka_unit_test(test_decode_too_large),
        cmocka_unit_test(test_decode_malformed),
        cmocka_unit_test(test_filter_valid),
        cmocka_unit_test(test_filter_matches),
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_encode_lengths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
