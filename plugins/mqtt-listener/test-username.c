#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "username.h"

static void test_username_parse(void **state)
{
    static const struct {
        const char *text, *device, *module, *product, *model;
    } cases[] = {
        { "hub/d/?api-version=2021-04-12", "d", "", "", "" },
        { "hub/d/m/?api-version=2018-06-30", "d", "m", "", "" },
        { "hub/d/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4%20(node)", "d",
          "", "azure-iot-device/1.18.4 (node)", "" },
        { "hub/d/?model-id=dtmi:com:x;1&api-version=1", "d", "", "", "dtmi:com:x;1" },
        { "hub/d/?model-id=dtmi%3Acom%3Ax%3B1&api-version=1&", "d", "", "", "dtmi:com:x;1" },
        { "hub/d/api-version=2017-06-30&DeviceClientType=x", "d", "", "x", "" },
        { "hub/d/m/api-version=2017-06-30", "d", "m", "", "" },
        { "hub/d/?x=api-version=1&api-version=2", "d", "", "", "" },
        { "hub/ d / m /?api-version=1", "d", "m", "", "" },
        { "hub/a?b=c/?api-version=1", "a?b=c", "", "", "" },
        { "hub/edge1/$edgeHub/?api-version=1", "edge1", "$edgeHub", "", "" },
        { "/d/?api-version=1", "d", "", "", "" },
        { "hub/d/?api-version=1&DeviceClientType=a+b&DeviceClientType=c", "d", "", "a+b", "" },
        { "hub/d/?api-version=1&auth-chain=x;y&unknown&&", "d", "", "", "" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct arena *arena = arena_new();
        struct parse_error error = {};
        struct username u;

        if (username_parse(span_str(cases[i].text), arena, &u, &error) != 0)
            fail_msg("%s: at %zu expected %s", cases[i].text, error.offset, error.expected);
        assert_string_equal(u.device_id, cases[i].device);
        assert_string_equal(u.module_id, cases[i].module);
        assert_string_equal(u.product_info, cases[i].product);
        assert_string_equal(u.model_id, cases[i].model);
        arena_free(arena);
    }
}

static void test_username_malformed(void **state)
{
    static const struct {
        const char *text;
        size_t want_offset;
    } cases[] = {
        { "", 0 },
        { "d", 0 },
        { "hub/d", 0 },
        { "hub/d?api-version=1", 0 },
        { "hub/d/m?api-version=1", 6 },
        { "hub/d/", 6 },
        { "hub/d/m", 6 },
        { "hub/d/?", 7 },
        { "hub/d/?api-version=", 7 },
        { "hub/d/?api-version= ", 7 },
        { "hub/d/?Api-Version=1", 7 },
        { "hub/d/m/n/?api-version=1", 0 },
        { "hub//?api-version=1", 4 },
        { "hub/d//?api-version=1", 6 },
        { "hub/a b/?api-version=1", 4 },
        { "hub/d/\xc3\xa4/?api-version=1", 6 },
        { "hub/d/?api-version=1&DeviceClientType=%ff", 7 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct arena *arena = arena_new();
        struct parse_error error = {};
        struct username u;
        int r = username_parse(span_str(cases[i].text), arena, &u, &error);

        if (r != USERNAME_E_MALFORMED || error.offset != cases[i].want_offset)
            fail_msg("'%s': outcome %d at %zu, expected malformed at %zu", cases[i].text, r,
                     error.offset, cases[i].want_offset);
        assert_non_null(error.expected);
        arena_free(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_username_parse),
        cmocka_unit_test(test_username_malformed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
