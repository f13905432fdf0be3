#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "routes.h"

static void add(struct routes *routes, const char *name, const char *text, uint32_t priority,
                int64_t ttl_sec)
{
    struct parse_error error;

    assert_int_equal(routes_add(routes, name, span_str(text), priority, ttl_sec, &error), 0);
}

static size_t match(struct routes *routes, const char *source,
                    const struct route *const **ret_matches)
{
    Bus__Message nothing = BUS__MESSAGE__INIT;
    struct route_message message = { .source = span_str(source), .decoded = &nothing };

    return routes_match(routes, &message, ret_matches);
}

static void test_routes_source(void **state)
{
    static const struct {
        const char *module_id, *output_name, *want;
    } cases[] = {
        { "", "", "/messages/" },
        { "", "ignored", "/messages/" },
        { "M", "", "/messages/modules/M/" },
        { "M", "out1", "/messages/modules/M/outputs/out1/" },
    };
    char text[64];

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        assert_int_equal(
            routes_source(cases[i].module_id, cases[i].output_name, text, sizeof(text)),
            strlen(cases[i].want));
        assert_string_equal(text, cases[i].want);
    }
    assert_int_equal(routes_source("M", "out1", text, 4), 33); /* the whole length, though cut */
}

/* routing.md §4.2, its table: a letter for each message that matches. */
static void test_routes_match_source(void **state)
{
    static const struct {
        char letter;
        const char *source;
    } messages[] = {
        { 'l', "/messages/" },
        { 'M', "/messages/modules/M/" },
        { '1', "/messages/modules/M/outputs/out1/" },
        { '0', "/messages/modules/M/outputs/out10/" },
        { 'd', "/messages/modules/M/outputs/out1/deep/" },
        { 't', "/twinChangeNotifications/" },
    };
    static const struct {
        const char *from, *want;
    } cases[] = {
        { "/*", "lM10dt" },
        { "/**", "lM10dt" },
        { "/messages", "lM10d" },
        { "/messages/*", "lM10d" },
        { "/messages/**", "lM10d" },
        { "/MESSAGES/Modules/m", "M10d" },
        { "/messages/modules/*", "M10d" },
        { "/messages/modules/M", "M10d" },
        { "/messages/modules/M/*", "M10d" },
        { "/messages/modules/M*", "M10d" },
        { "/messages/modules/M/outputs/*", "10d" },
        { "/messages/modules/M/outputs/out1", "1d" },
        { "/messages / modules /* anything */ / M", "M10d" },
        { "/twinChangeNotifications", "t" },
        { "/twinChangeNotifications/*", "t" },
        { "/messages/events", "" },
        { "/message", "" },
        { "/messages/modules/*/outputs/*", "" },
        { "/devices/*", "" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(routes_freep) struct routes *routes = routes_new();
        _cleanup_(freep) char *text = xasprintf("FROM %s INTO $upstream", cases[i].from);
        char got[ELEMENTSOF(messages) + 1] = "";
        size_t n = 0;

        add(routes, "r", text, 0, -1);
        for (size_t k = 0; k < ELEMENTSOF(messages); k++) {
            const struct route *const *matches;

            if (match(routes, messages[k].source, &matches) == 1)
                got[n++] = messages[k].letter;
        }
        assert_string_equal(got, cases[i].want);
    }
}

static void test_routes_match_letters_of_all_alphabets(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new();
    const struct route *const *matches;

    add(routes, "r", "FROM /messages/modules/m/outputs/größe INTO $upstream", 0, -1);
    assert_int_equal(match(routes, "/messages/modules/M/outputs/GRÖßE/", &matches), 1);
    assert_int_equal(match(routes, "/messages/modules/M/outputs/GROßE/", &matches), 0);
}

static void test_routes_match_one_copy_for_each_endpoint(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new();
    const struct route *const *matches;

    add(routes, "late", "FROM /messages INTO $upstream", 9, -1);
    add(routes, "input", "FROM /messages INTO BrokeredEndpoint('/modules/M/inputs/I')", 3, 60);
    add(routes, "soon", "FROM /* INTO $upstream", 1, 5);
    add(routes, "later", "FROM /* INTO $UPSTREAM", 4, 7);
    add(routes, "other case", "FROM /* INTO BrokeredEndpoint('/modules/m/inputs/I')", 3, 60);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(match(routes, "/messages/", &matches), 3);
        assert_string_equal(matches[0]->name, "soon");
        assert_int_equal(matches[0]->ttl_sec, 5);
        assert_string_equal(matches[0]->endpoint.queue, "$upstream");
        assert_int_equal(matches[0]->endpoint.kind, ENDPOINT_UPSTREAM);
        assert_string_equal(matches[1]->name, "other case");
        assert_string_equal(matches[1]->endpoint.queue, "modules/m/inputs/I");
        assert_string_equal(matches[2]->name, "input");
        assert_string_equal(matches[2]->endpoint.queue, "modules/M/inputs/I");
        assert_int_equal(matches[2]->endpoint.kind, ENDPOINT_INPUT);
    }
    add(routes, "better", "FROM /messages INTO $upstream", 0, 1); /* a set may still grow */
    assert_int_equal(match(routes, "/messages/", &matches), 3);
    assert_string_equal(matches[0]->name, "better");
}

/* A condition that is false lets the route of worse priority have the copy. */
static void test_routes_match_condition(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new();
    Bus__Property level = BUS__PROPERTY__INIT, *properties[] = { &level };
    Bus__Message m = BUS__MESSAGE__INIT;
    struct route_message message = { .source = SPAN("/messages/"), .decoded = &m };
    const struct route *const *matches;

    add(routes, "alarm", "FROM /messages/* WHERE level = 'alarm' INTO $upstream", 0, 10);
    add(routes, "rest", "FROM /messages/* INTO $upstream", 5, 10);
    level.name = (char *)"Level";
    level.value = (char *)"alarm";
    m.application = properties;
    m.n_application = 1;
    assert_int_equal(routes_match(routes, &message, &matches), 1);
    assert_string_equal(matches[0]->name, "alarm");
    level.value = (char *)"Alarm";
    assert_int_equal(routes_match(routes, &message, &matches), 1);
    assert_string_equal(matches[0]->name, "rest");
}

/* Encoded, as it comes over the bus; and bytes that are no message. */
static void test_routes_match_encoded(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new();
    const struct route *const *matches;
    Bus__Message m = BUS__MESSAGE__INIT;
    uint8_t bytes[64];
    struct route_message message = { .source = SPAN("/messages/modules/cam/") };

    add(routes, "r", "FROM /messages WHERE {$connectionModuleId} = 'cam' INTO $upstream", 0, 0);
    m.device_id = (char *)"d";
    m.module_id = (char *)"cam";
    message.encoded = span_of(bytes, bus__message__pack(&m, bytes));
    assert_int_equal(routes_match(routes, &message, &matches), 1);
    assert_int_equal(routes_match(routes, &message, &matches), 1);
    message.encoded.len--;
    assert_int_equal(routes_match(routes, &message, &matches), 0);
    message.encoded.len = 0;
    assert_int_equal(routes_match(routes, &message, &matches), 0);
}

static void test_routes_match_many(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new();
    const struct route *const *matches;
    struct parse_error error;
    char text[128];

    for (int i = 0; i < ROUTES_MAX; i++) {
        snprintf(text, sizeof(text),
                 "FROM /messages/modules/m%d/* INTO BrokeredEndpoint('/modules/m%d/inputs/i')",
                 i / 2, i);
        add(routes, "r", text, 0, -1);
    }
    assert_int_equal(match(routes, "/messages/modules/m1000/outputs/o/", &matches), 2);
    assert_string_equal(matches[0]->endpoint.queue, "modules/m2000/inputs/i");
    assert_string_equal(matches[1]->endpoint.queue, "modules/m2001/inputs/i");
    assert_int_equal(match(routes, "/messages/modules/m5000/", &matches), 0);
    assert_int_equal(routes_add(routes, "r", SPAN("FROM /messages INTO $upstream"), 0, -1, &error),
                     ROUTE_E_INVALID);
}

/* All endpoints at once. */
static void test_routes_match_wide(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new();
    const struct route *const *matches;
    char text[128];

    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof(text), "FROM /* INTO BrokeredEndpoint('/modules/m%d/inputs/i')", i);
        add(routes, "r", text, ROUTE_PRIORITY_DEFAULT, -1);
    }
    assert_int_equal(match(routes, "/messages/", &matches), 1000);
    assert_string_equal(matches[999]->endpoint.queue, "modules/m999/inputs/i");
}

static void test_routes_refused(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new();
    struct parse_error error;

    assert_int_equal(
        routes_add(routes, "r", SPAN("FROM /messages WHERE temp > 9 INTO $upstream"), 0, 0, &error),
        ROUTE_E_INVALID);
    assert_int_equal(error.offset, 26);
    assert_int_equal(routes_count(routes), 0);
}

static void test_routes_default(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new_default();
    const struct route *const *matches;

    assert_int_equal(routes_count(routes), 1);
    assert_string_equal(routes_get(routes, 0)->text, "FROM /messages/* INTO $upstream");
    assert_int_equal(match(routes, "/messages/", &matches), 1);
    assert_string_equal(matches[0]->endpoint.queue, "$upstream");
    assert_int_equal(matches[0]->priority, ROUTE_PRIORITY_DEFAULT);
    assert_int_equal(matches[0]->ttl_sec, -1);
    assert_int_equal(match(routes, "/twinChangeNotifications/", &matches), 0);
}

static void test_routes_none(void **state)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new();
    const struct route *const *matches;

    assert_int_equal(match(routes, "/messages/", &matches), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes_source),
        cmocka_unit_test(test_routes_match_source),
        cmocka_unit_test(test_routes_match_letters_of_all_alphabets),
        cmocka_unit_test(test_routes_match_one_copy_for_each_endpoint),
        cmocka_unit_test(test_routes_match_condition),
        cmocka_unit_test(test_routes_match_encoded),
        cmocka_unit_test(test_routes_match_many),
        cmocka_unit_test(test_routes_match_wide),
        cmocka_unit_test(test_routes_refused),
        cmocka_unit_test(test_routes_default),
        cmocka_unit_test(test_routes_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
