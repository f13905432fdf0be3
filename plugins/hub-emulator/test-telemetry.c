#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "amqp-message.h"
#include "telemetry.h"

#define NOW_MS INT64_C(1767323045678)

/* A Data section with @body. */
static struct span data_of(const char *body, char *at)
{
    int n = sprintf(at, "%c%c%c%c%c%s", 0, 0x53, 0x75, 0xa0, (int)strlen(body), body);

    return span_of(at, (size_t)n);
}

static void append(struct telemetry *t, struct telemetry_source *source, const char *body)
{
    char bytes[300];

    telemetry_append(t, source, data_of(body, bytes), NOW_MS);
}

static void append_sized(struct telemetry *t, struct telemetry_source *source, size_t len)
{
    char *bytes = xalloc0(len);

    telemetry_append(t, source, span_of(bytes, len), NOW_MS);
    free(bytes);
}

/* How many can be read behind @after, and that they follow each other. */
static uint64_t count_after(const struct telemetry *t, uint64_t after)
{
    struct telemetry_cursor cursor;
    struct telemetry_event event;
    uint64_t count = 0, expected = 0;

    telemetry_seek(t, after, &cursor);
    while (telemetry_next(t, &cursor, &event)) {
        if (expected != 0)
            assert_int_equal(event.sequence, expected);
        assert_true(event.sequence > after);
        expected = event.sequence + 1;
        count++;
    }
    if (count > 0)
        assert_int_equal(expected, telemetry_last(t) + 1);
    return count;
}

static void test_empty(void **state)
{
    struct telemetry *t = telemetry_new(10, 1 << 20);

    assert_int_equal(telemetry_last(t), 0);
    assert_int_equal(telemetry_first(t), 1);
    assert_int_equal(count_after(t, 0), 0);
    assert_int_equal(count_after(t, 7), 0);
    telemetry_free(t);
}

static void test_bounded_by_count(void **state)
{
    struct telemetry *t = telemetry_new(10, 1 << 20);
    struct telemetry_source *source = telemetry_source(t, "d", NULL, "1");

    for (int i = 0; i < 25; i++)
        append(t, source, "x");
    assert_int_equal(telemetry_last(t), 25);
    assert_int_equal(telemetry_first(t), 16);
    assert_int_equal(count_after(t, 0), 10);
    assert_int_equal(count_after(t, 15), 10);
    assert_int_equal(count_after(t, 20), 5);
    assert_int_equal(count_after(t, 25), 0);
    assert_int_equal(count_after(t, 99), 0);
    assert_int_equal(telemetry_counters(t)->messages, 25);
    assert_int_equal(source->messages, 25);
    telemetry_free(t);
}

/* Over many chunks, with sizes that fit them badly. */
static void test_bounded_by_bytes(void **state)
{
    static const size_t sizes[] = { 10, 300000, 77, 500000, 1, 250000, 4096 };
    struct telemetry *t = telemetry_new(1000, 4 << 20);
    struct telemetry_source *source = telemetry_source(t, "d", NULL, "1");

    for (size_t i = 0; i < 200; i++) {
        append_sized(t, source, sizes[i % ELEMENTSOF(sizes)]);
        assert_true(telemetry_counters(t)->kept_bytes <= 4 << 20);
        assert_int_equal(count_after(t, 0), telemetry_counters(t)->kept_messages);
    }
    assert_true(telemetry_first(t) > 150);
    assert_int_equal(count_after(t, telemetry_last(t) - 3), 3);
    telemetry_free(t);
}

/* What is larger than all that may be kept is kept alone. */
static void test_one_that_is_larger_than_the_bound(void **state)
{
    struct telemetry *t = telemetry_new(10, 1000);
    struct telemetry_source *source = telemetry_source(t, "d", NULL, "1");

    append(t, source, "small");
    append_sized(t, source, 2000);
    assert_int_equal(telemetry_first(t), 2);
    assert_int_equal(count_after(t, 0), 1);
    append(t, source, "small");
    assert_int_equal(telemetry_first(t), 3);
    telemetry_free(t);
}

static void test_sources_are_one_each(void **state)
{
    struct telemetry *t = telemetry_new(10, 1000);
    struct telemetry_source *device = telemetry_source(t, "d", NULL, "1");
    struct telemetry_source *module = telemetry_source(t, "d", "m", "2");
    json_t *json;

    assert_ptr_equal(telemetry_source(t, "d", NULL, "1"), device);
    assert_ptr_equal(telemetry_source(t, "d", "m", "2"), module);
    assert_ptr_not_equal(telemetry_source(t, "d", NULL, "9"), device);
    append(t, device, "a");
    append(t, telemetry_source(t, "d", NULL, "9"), "b");
    append(t, module, "c");
    json = telemetry_sources_json(t);
    assert_int_equal(json_integer_value(json_object_get(json, "d")), 2);
    assert_int_equal(json_integer_value(json_object_get(json, "d/m")), 1);
    json_decref(json);
    telemetry_free(t);
}

static json_t *render_first(struct telemetry *t)
{
    struct arena *arena = arena_new();
    struct telemetry_cursor cursor;
    struct telemetry_event event;
    char *text;
    json_t *json;

    telemetry_seek(t, 0, &cursor);
    assert_true(telemetry_next(t, &cursor, &event));
    text = telemetry_render(&event, arena);
    json = json_loads(text, 0, NULL);
    assert_non_null(json);
    free(text);
    arena_free(arena);
    return json;
}

static const char *text_in(json_t *json, const char *object, const char *name)
{
    return json_string_value(json_object_get(object ? json_object_get(json, object) : json, name));
}

static Bus__Property property(const char *name, const char *value)
{
    Bus__Property p = BUS__PROPERTY__INIT;

    p.name = (char *)(uintptr_t)name;
    p.value = (char *)(uintptr_t)value;
    return p;
}

static void test_render(void **state)
{
    Bus__Property id = property("messageId", "m-1"), cid = property("cid", "c"),
                  type = property("contentType", "a/json");
    Bus__Property subject = property("dt-subject", "thermo"),
                  app = property("l\303\244nge", "7 \"m\"");
    Bus__Property *system[] = { &id, &cid, &type, &subject }, *application[] = { &app };
    struct telemetry *t = telemetry_new(10, 100000);
    Bus__Message m = BUS__MESSAGE__INIT;
    struct buf encoded = {};
    json_t *json;

    m.system = system;
    m.n_system = ELEMENTSOF(system);
    m.application = application;
    m.n_application = 1;
    m.body = (ProtobufCBinaryData){ .data = (uint8_t *)(uintptr_t) "{\"a\":1}", .len = 7 };
    amqp_message_encode_upstream(&m, &encoded);
    telemetry_append(t, telemetry_source(t, "d", "m", "638"), buf_span(&encoded), NOW_MS);
    json = render_first(t);
    assert_string_equal(text_in(json, NULL, "device_id"), "d");
    assert_string_equal(text_in(json, NULL, "module_id"), "m");
    assert_string_equal(text_in(json, NULL, "enqueued_time"), "2026-01-02T03:04:05.678Z");
    assert_string_equal(text_in(json, NULL, "body"), "{\"a\":1}");
    assert_string_equal(text_in(json, "application_properties", "l\303\244nge"), "7 \"m\"");
    assert_string_equal(text_in(json, "system_properties", "message-id"), "m-1");
    assert_string_equal(text_in(json, "system_properties", "correlation-id"), "c");
    assert_string_equal(text_in(json, "system_properties", "content-type"), "a/json");
    assert_string_equal(text_in(json, "system_properties", "dt-subject"), "thermo");
    assert_string_equal(text_in(json, "system_properties", "iothub-connection-device-id"), "d");
    assert_string_equal(text_in(json, "system_properties", "iothub-connection-module-id"), "m");
    assert_string_equal(text_in(json, "system_properties", "iothub-connection-auth-generation-id"),
                        "638");
    assert_string_equal(text_in(json, "system_properties", "iothub-message-source"), "Telemetry");
    assert_string_equal(text_in(json, "system_properties", "iothub-connection-auth-method"),
                        "{\"scope\":\"module\",\"type\":\"sas\",\"issuer\":\"iothub\"}");
    json_decref(json);
    buf_done(&encoded);
    telemetry_free(t);
}

static void test_render_bodies(void **state)
{
    static const struct {
        const char *body, *text, *base64;
    } cases[] = {
        { "", "", NULL },
        { "gr\303\274n", "gr\303\274n", NULL },
        { "\377\001", NULL, "/wE=" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct telemetry *t = telemetry_new(10, 100000);
        json_t *json;

        append(t, telemetry_source(t, "d", NULL, "1"), cases[i].body);
        json = render_first(t);
        assert_string_equal(cases[i].text ? text_in(json, NULL, "body")
                                          : text_in(json, NULL, "body_base64"),
                            cases[i].text ? cases[i].text : cases[i].base64);
        assert_true(json_is_null(json_object_get(json, "module_id")));
        json_decref(json);
        telemetry_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_bounded_by_count),
        cmocka_unit_test(test_bounded_by_bytes),
        cmocka_unit_test(test_one_that_is_larger_than_the_bound),
        cmocka_unit_test(test_sources_are_one_each),
        cmocka_unit_test(test_render),
        cmocka_unit_test(test_render_bodies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
