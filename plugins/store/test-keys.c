#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "keys.h"
#include "mem.h"

static int span_compare(struct span a, struct span b)
{
    int r = memcmp(a.at, b.at, a.len < b.len ? a.len : b.len);

    return r != 0 ? r : (a.len > b.len) - (a.len < b.len);
}

static void test_message_key_sorts(void **state)
{
    /* Each is greater than the one before. */
    static const struct message_key cases[] = {
        { 0, 0, 0, 0 },
        { 1, 0, 0, 0 },
        { 1, 0, 0, 255 },
        { 1, 0, 0, 256 },
        { 1, 0, 0, UINT64_MAX },
        { 1, 0, 1, 0 },
        { 1, 0, 2000000000, 1 },
        { 1, 0, UINT32_MAX, 0 },
        { 1, 256, 0, 0 },
        { 256, 0, 0, 0 },
        { UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT64_MAX },
    };
    char before[KEY_MESSAGE_BYTES], at[KEY_MESSAGE_BYTES];

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct span key = key_message(cases[i], at);
        struct message_key back;

        assert_int_equal(key_message_parse(key, &back), 0);
        assert_int_equal(back.queue, cases[i].queue);
        assert_int_equal(back.partition, cases[i].partition);
        assert_int_equal(back.priority, cases[i].priority);
        assert_int_equal(back.position, cases[i].position);
        assert_true(span_compare(key, KEY_KIND_MESSAGES) >= 0);
        assert_true(span_compare(key, KEY_KIND_MESSAGES_END) < 0);
        if (i > 0)
            assert_true(span_compare(span_of(before, sizeof(before)), key) < 0);
        memcpy(before, at, sizeof(before));
    }
}

static void test_key_parse_malformed(void **state)
{
    static const struct span cases[] = {
        SPAN(""),
        SPAN("M"),
        SPAN("M\0\0\0\1"),
        SPAN("Q\0\0\0"),
        SPAN("Q\0\0\0\1x"),
        SPAN("P\0\0\0\1\0\0\0"),
        SPAN("X\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0\1"),
    };
    struct message_key message;
    uint32_t a, b;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        assert_int_equal(key_message_parse(cases[i], &message), KEYS_E_MALFORMED);
        assert_int_equal(key_queue_parse(cases[i], &a), KEYS_E_MALFORMED);
        assert_int_equal(key_partition_parse(cases[i], &a, &b), KEYS_E_MALFORMED);
    }
}

static void test_key_prefix_end(void **state)
{
    static const struct {
        struct span prefix, want;
    } cases[] = {
        { SPAN("Rmqtt/"), SPAN("Rmqtt0") }, { SPAN("R"), SPAN("S") },
        { SPAN("R\xff"), SPAN("S") },       { SPAN("R\xfe"), SPAN("R\xff") },
        { SPAN("\xff\xff"), SPAN("") },
    };
    _cleanup_(buf_done) struct buf out = {};

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_true(span_equal(key_prefix_end(cases[i].prefix, &out), cases[i].want));
}

static void test_value_message(void **state)
{
    struct message_value v = { .enqueued_ms = -5,
                               .expires_ms = EXPIRES_NEVER,
                               .message = SPAN("body") },
                         back;
    _cleanup_(buf_done) struct buf out = {};
    struct span value = value_message(&v, &out);

    assert_int_equal(value_message_parse(value, &back), 0);
    assert_int_equal(back.enqueued_ms, -5);
    assert_true(back.expires_ms == EXPIRES_NEVER);
    assert_true(span_equal(back.message, SPAN("body")));
    for (size_t len = 0; len < VALUE_MESSAGE_HEADER_BYTES; len++)
        assert_int_equal(value_message_parse(span_of(value.at, len), &back), KEYS_E_MALFORMED);
}

static void test_value_partition(void **state)
{
    static const struct stream_meta metas[] = {
        { 0, false, 1, 9, 3, 700, 0 },
        { 2000000000, true, 1ull << 40, 1ull << 41, 12345, 1ull << 50, UINT64_MAX },
    };
    _cleanup_(buf_done) struct buf out = {};
    struct partition_value back;
    struct span value;

    value_partition_begin(ELEMENTSOF(metas), &out);
    for (size_t i = 0; i < ELEMENTSOF(metas); i++)
        value_partition_stream(&metas[i], &out);
    value = value_partition_end(SPAN("dev/mod"), &out);
    assert_int_equal(value_partition_parse(value, &back), 0);
    assert_int_equal(back.streams, ELEMENTSOF(metas));
    assert_true(span_equal(back.name, SPAN("dev/mod")));
    for (uint16_t i = 0; i < ELEMENTSOF(metas); i++) {
        struct stream_meta m = value_partition_stream_at(&back, i);

        assert_int_equal(m.priority, metas[i].priority);
        assert_int_equal(m.unordered, metas[i].unordered);
        assert_true(m.first == metas[i].first && m.next == metas[i].next);
        assert_true(m.count == metas[i].count && m.bytes == metas[i].bytes);
        assert_true(m.expires_last_ms == metas[i].expires_last_ms);
    }
    assert_int_equal(value_partition_parse(span_of(value.at, value.len - 8), &back),
                     KEYS_E_MALFORMED);
}

static void test_value_queue(void **state)
{
    static const struct level_meta metas[] = { { 0, { 9, 4, 3, 2, 0 } },
                                               { 7, { 1ull << 60, 1, 2, 3, 4 } } };
    _cleanup_(buf_done) struct buf out = {};
    struct queue_value back;
    struct span value;

    value_queue_begin(77, 1ull << 33, ELEMENTSOF(metas), &out);
    for (size_t i = 0; i < ELEMENTSOF(metas); i++)
        value_queue_level(&metas[i], &out);
    value = value_queue_end(SPAN("$upstream"), &out);
    assert_int_equal(value_queue_parse(value, &back), 0);
    assert_int_equal(back.next_partition, 77);
    assert_true(back.floor == 1ull << 33);
    assert_true(span_equal(back.name, SPAN("$upstream")));
    for (uint16_t i = 0; i < ELEMENTSOF(metas); i++) {
        struct level_meta m = value_queue_level_at(&back, i);

        assert_int_equal(m.priority, metas[i].priority);
        assert_memory_equal(&m.ledger, &metas[i].ledger, sizeof(m.ledger));
    }
    assert_int_equal(
        value_queue_parse(span_of(value.at, value.len - SPAN("$upstream").len - 1), &back),
        KEYS_E_MALFORMED);
}

static void test_value_small(void **state)
{
    struct clock_value clock = { 1, 2, -3, "0123456789abcde" }, clock_back;
    _cleanup_(buf_done) struct buf out = {};
    uint64_t a, b;
    uint32_t version;
    struct span content;

    assert_int_equal(value_record_parse(value_record(9, SPAN("v"), &out), &a, &content), 0);
    assert_true(a == 9 && span_equal(content, SPAN("v")));
    assert_int_equal(value_record_parse(SPAN("\1"), &a, &content), KEYS_E_MALFORMED);
    assert_int_equal(value_producer_parse(value_producer(5, 6, &out), &a, &b), 0);
    assert_true(a == 5 && b == 6);
    assert_int_equal(value_producer_parse(SPAN("\2"), &a, &b), KEYS_E_MALFORMED);
    assert_int_equal(value_layout_parse(value_layout(3, &out), &version), 0);
    assert_int_equal(version, 3);
    assert_int_equal(value_clock_parse(value_clock(&clock, &out), &clock_back), 0);
    assert_true(clock_back.clock_ms == 1 && clock_back.boot_ms == 2 && clock_back.utc_ms == -3);
    assert_memory_equal(clock_back.boot_id, clock.boot_id, BOOT_ID_BYTES);
    assert_int_equal(value_clock_parse(SPAN("\1x"), &clock_back), KEYS_E_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_key_sorts), cmocka_unit_test(test_key_parse_malformed),
        cmocka_unit_test(test_key_prefix_end),    cmocka_unit_test(test_value_message),
        cmocka_unit_test(test_value_partition),   cmocka_unit_test(test_value_queue),
        cmocka_unit_test(test_value_small),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
