#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "buf.h"
#include "route-config.h"

#define SF   "\"storeAndForwardConfiguration\":{\"timeToLiveSecs\":7200}"
#define HEAD "{\"schemaVersion\":\"1.1\"," SF ",\"routes\":"
#define V10  "{\"schemaVersion\":\"1.0\"," SF ",\"routes\":"
#define UP   "\"FROM /messages/* INTO $upstream\""

static int parse(const char *json, struct route_config *config, struct route_problems *problems)
{
    return route_config_parse(span_str(json), config, problems);
}

static void test_route_config_example(void **state)
{
    struct route_problems problems = {};
    struct route_config config;
    const struct route *route;

    assert_int_equal(
        parse("{\"schemaVersion\":\"1.1\",\"$version\":12,\"routes\":{"
              "\"up\":\"FROM /messages/modules/filter/outputs/* INTO $upstream\","
              "\"alarms\":{\"route\":\"FROM /messages/* WHERE level = 'alarm' INTO $upstream\","
              "\"priority\":0,\"timeToLiveSecs\":86400,\"comment\":{}}},"
              "\"storeAndForwardConfiguration\":{\"timeToLiveSecs\":7200,"
              "\"storeLimits\":{\"maxSizeBytes\":104857600}}}",
              &config, &problems),
        0);
    assert_int_equal(config.version, 12);
    assert_int_equal(config.ttl_sec, 7200);
    assert_int_equal(config.max_bytes, 104857600);
    assert_int_equal(routes_count(config.routes), 2);
    route = routes_get(config.routes, 0);
    assert_string_equal(route->name, "up");
    assert_int_equal(route->priority, ROUTE_PRIORITY_DEFAULT);
    assert_int_equal(route->ttl_sec, 7200);
    route = routes_get(config.routes, 1);
    assert_string_equal(route->name, "alarms");
    assert_int_equal(route->priority, 0);
    assert_int_equal(route->ttl_sec, 86400);
    route_config_done(&config);
}

static void test_route_config_taken(void **state)
{
    static const struct {
        const char *json;
        size_t routes;
        int64_t ttl_sec, route_ttl_sec;
    } cases[] = {
        { HEAD "{}}", 0, 7200, 0 },
        { V10 "{}}", 0, 7200, 0 },
        { "{\"schemaVersion\":\"1.0\"," SF "}", 0, 7200, 0 },
        { "{\"schemaVersion\":\"1.0\"," SF ",\"routes\":null}", 0, 7200, 0 },
        { V10 "{\"a\":\"\",\"b\":\" \",\"c\":null}}", 0, 7200, 0 },
        { V10 "{\"\":" UP "}}", 1, 7200, 7200 },
        { "{\"schemaVersion\":\"1.1.0\"," SF ",\"routes\":{\"a\":" UP "}}", 1, 7200, 7200 },
        { "{\"schemaVersion\":\"1.2.7.8\"," SF ",\"routes\":{\"a\":" UP "}}", 1, 7200, 7200 },
        { "{\"schemaVersion\":\"1.3\",\"mqttBroker\":[],\"integrity\":1," SF
          ",\"routes\":{\"a\":" UP "}}",
          1, 7200, 7200 },
        /* 0 is expired, negative is never; a route says 0 for "as all". */
        { "{\"schemaVersion\":\"1.1\",\"storeAndForwardConfiguration\":{},\"routes\":{\"a\":" UP
          "}}",
          1, 7200, 7200 },
        { "{\"schemaVersion\":\"1.1\",\"storeAndForwardConfiguration\":{\"timeToLiveSecs\":0},"
          "\"routes\":{\"a\":" UP "}}",
          1, 0, 0 },
        { "{\"schemaVersion\":\"1.1\",\"storeAndForwardConfiguration\":{\"timeToLiveSecs\":-1},"
          "\"routes\":{\"a\":{\"route\":" UP ",\"timeToLiveSecs\":0}}}",
          1, -1, -1 },
        { HEAD "{\"a\":{\"route\":" UP ",\"timeToLiveSecs\":4294967295}}}", 1, 7200, 4294967295 },
        { HEAD "{\"a\":{\"route\":" UP ",\"priority\":9}}}", 1, 7200, 7200 },
        { HEAD "{\"a\":{\"route\":" UP ",\"priority\":2000000000}}}", 1, 7200, 7200 },
        { "{\"schemaVersion\":\"1.1\",\"StoreAndForwardConfiguration\":{\"TimeToLiveSecs\":5},"
          "\"Routes\":{\"a\":{\"Route\":" UP ",\"PRIORITY\":3}}}",
          1, 5, 5 },
        { "{\"schemaVersion\":\"1.1\",\"storeAndForwardConfiguration\":{\"timeToLiveSecs\":1,"
          "\"storeLimits\":null},\"routes\":{}}",
          0, 1, 0 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct route_problems problems = {};
        struct route_config config = {};

        assert_int_equal(parse(cases[i].json, &config, &problems), 0);
        assert_int_equal(problems.count, 0);
        assert_int_equal(routes_count(config.routes), cases[i].routes);
        assert_int_equal(config.ttl_sec, cases[i].ttl_sec);
        if (cases[i].routes > 0)
            assert_int_equal(routes_get(config.routes, 0)->ttl_sec, cases[i].route_ttl_sec);
        route_config_done(&config);
    }
}

static void test_route_config_refused(void **state)
{
    static const struct {
        const char *json, *problem; /* the first begins so */
    } cases[] = {
        { "", "line 1, column 0: expected JSON" },
        { "[]", "expected an object" },
        { HEAD "{\"a\":" UP ",\"a\":" UP "}}", "line 1, column" },
        { "{", "line 1, column 1: expected JSON" },
        { "{" SF ",\"routes\":{}}", "schemaVersion: expected" },
        { "{\"schemaversion\":\"1.1\"," SF ",\"routes\":{}}", "schemaVersion: expected" },
        { "{\"schemaVersion\":\"1\"," SF ",\"routes\":{}}", "schemaVersion: expected" },
        { "{\"schemaVersion\":\"1.4\"," SF ",\"routes\":{}}", "schemaVersion: expected" },
        { "{\"schemaVersion\":\"2.1\"," SF ",\"routes\":{}}", "schemaVersion: expected" },
        { "{\"schemaVersion\":\"1.1.\"," SF ",\"routes\":{}}", "schemaVersion: expected" },
        { "{\"schemaVersion\":\"1.1.1.1.1\"," SF ",\"routes\":{}}", "schemaVersion: expected" },
        { "{\"schemaVersion\":1.1," SF ",\"routes\":{}}", "schemaVersion: expected" },
        { "{\"schemaVersion\":\"1.1\"," SF "}", "routes: expected an object" },
        { "{\"schemaVersion\":\"1.1\"," SF ",\"routes\":[]}", "routes: expected an object" },
        { "{\"schemaVersion\":\"1.0\"," SF ",\"routes\":[]}", "routes: expected an object" },
        { "{\"schemaVersion\":\"1.1\",\"routes\":{}}", "storeAndForwardConfiguration: expected" },
        { "{\"schemaVersion\":\"1.1\",\"routes\":{},\"storeAndForwardConfiguration\":"
          "{\"timeToLiveSecs\":2147483648}}",
          "storeAndForwardConfiguration.timeToLiveSecs: expected" },
        { "{\"schemaVersion\":\"1.1\",\"routes\":{},\"storeAndForwardConfiguration\":"
          "{\"timeToLiveSecs\":1.5}}",
          "storeAndForwardConfiguration.timeToLiveSecs: expected" },
        { "{\"schemaVersion\":\"1.1\",\"routes\":{},\"storeAndForwardConfiguration\":"
          "{\"storeLimits\":7}}",
          "storeAndForwardConfiguration.storeLimits: expected" },
        { "{\"schemaVersion\":\"1.1\",\"routes\":{},\"storeAndForwardConfiguration\":"
          "{\"storeLimits\":{\"maxSizeBytes\":\"7\"}}}",
          "storeAndForwardConfiguration.storeLimits.maxSizeBytes: expected" },
        { HEAD "{\"a\":\"\"}}", "Error parsing route a - expected a text or an object" },
        { HEAD "{\"a\":7}}", "Error parsing route a - expected a text or an object" },
        { HEAD "{\"a\":null}}", "Error parsing route a - expected a text or an object" },
        { HEAD "{\" \":" UP "}}", "Error parsing route \" \" - expected a name" },
        { HEAD "{\"a\":{}}}", "Error parsing route a - route: expected a text" },
        { HEAD "{\"a\":{\"route\":\" \"}}}", "Error parsing route a - route: expected a text" },
        { HEAD "{\"a\":{\"route\":" UP ",\"priority\":10}}}",
          "Error parsing route a - priority: expected 0 to 9" },
        { HEAD "{\"a\":{\"route\":" UP ",\"priority\":-1}}}",
          "Error parsing route a - priority: expected 0 to 9" },
        { HEAD "{\"a\":{\"route\":" UP ",\"priority\":null}}}",
          "Error parsing route a - priority: expected 0 to 9" },
        { HEAD "{\"a\":{\"route\":" UP ",\"timeToLiveSecs\":-1}}}",
          "Error parsing route a - timeToLiveSecs: expected" },
        { HEAD "{\"a\":{\"route\":" UP ",\"timeToLiveSecs\":4294967296}}}",
          "Error parsing route a - timeToLiveSecs: expected" },
        { V10 "{\"a\":{\"route\":" UP "}}}",
          "Error parsing route a - expected a text in schema 1.0" },
        { V10 "{\"a\":true}}", "Error parsing route a - expected a text in schema 1.0" },
        { HEAD "{\"ok\":" UP ",\"bad\":\"FROM /a INTO x\"}}",
          "Error parsing route bad - column 14: expected $upstream or BrokeredEndpoint" },
        /* Columns are characters, not bytes. */
        { HEAD "{\"bad\":\"FROM /größe WHERE a = 1 INTO $upstream\"}}",
          "Error parsing route bad - column 21: expected the same type" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct route_problems problems = {};
        struct route_config config;

        assert_int_equal(parse(cases[i].json, &config, &problems), ROUTE_E_INVALID);
        assert_true(problems.count > 0);
        assert_int_equal(strncmp(problems.texts[0], cases[i].problem, strlen(cases[i].problem)), 0);
        route_problems_done(&problems);
    }
}

/* Every bad route is told, within reason. */
static void test_route_config_all_problems(void **state)
{
    struct route_problems problems = {};
    struct route_config config;
    char *json = xstrdup(HEAD "{\"bad1\":7,\"good\":" UP ",\"bad2\":8}}");

    assert_int_equal(parse(json, &config, &problems), ROUTE_E_INVALID);
    assert_int_equal(problems.count, 2);
    route_problems_done(&problems);
    free(json);

    json = xstrdup(HEAD "{\"r\":0");
    for (int i = 0; i < 2 * ROUTE_PROBLEMS_MAX; i++) {
        char *longer = xasprintf("%s,\"r%d\":7", json, i);

        free(json);
        json = longer;
    }
    assert_int_equal(route_config_parse(span_of(json, strlen(json)), &config, &problems),
                     ROUTE_E_INVALID); /* not closed */
    assert_int_equal(problems.count, 1);
    route_problems_done(&problems);
    json = xrealloc(json, strlen(json) + 3);
    strcat(json, "}}");
    assert_int_equal(parse(json, &config, &problems), ROUTE_E_INVALID);
    assert_int_equal(problems.count, ROUTE_PROBLEMS_MAX);
    route_problems_done(&problems);
    free(json);
}

static void test_route_config_too_long(void **state)
{
    struct route_problems problems = {};
    struct route_config config;
    char *json = xalloc0(ROUTE_CONFIG_BYTES_MAX + 1);

    assert_int_equal(
        route_config_parse(span_of(json, ROUTE_CONFIG_BYTES_MAX + 1), &config, &problems),
        ROUTE_E_INVALID);
    assert_string_equal(problems.texts[0], "expected at most 4194304 bytes");
    route_problems_done(&problems);
    free(json);
}

static void test_route_config_endpoints(void **state)
{
    for (unsigned count = ENDPOINTS_MAX; count <= ENDPOINTS_MAX + 1; count++) {
        _cleanup_(buf_done) struct buf json = {};
        struct route_problems problems = {};
        struct route_config config = {};

        buf_printf(&json, HEAD "{");
        for (unsigned i = 0; i < count; i++)
            buf_printf(&json, "%s\"r%u\":\"FROM /* INTO BrokeredEndpoint('/modules/m/inputs/%u')\"",
                       i ? "," : "", i, i);
        buf_printf(&json, "}}");
        if (count <= ENDPOINTS_MAX) {
            assert_int_equal(route_config_parse(buf_span(&json), &config, &problems), 0);
        } else {
            assert_int_equal(route_config_parse(buf_span(&json), &config, &problems),
                             ROUTE_E_INVALID);
            assert_string_equal(problems.texts[0],
                                "routes: expected at most 512 different endpoints, found 513");
        }
        route_config_done(&config);
        route_problems_done(&problems);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_config_example),
        cmocka_unit_test(test_route_config_taken),
        cmocka_unit_test(test_route_config_refused),
        cmocka_unit_test(test_route_config_all_problems),
        cmocka_unit_test(test_route_config_endpoints),
        cmocka_unit_test(test_route_config_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
