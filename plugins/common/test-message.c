#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "message.h"

static Bus__Property property(const char *name, const char *value)
{
    Bus__Property p = BUS__PROPERTY__INIT;

    p.name = (char *)name;
    p.value = (char *)value;
    return p;
}

/* The hub counts the values of system properties, but names and values of application properties.
 */
static void test_message_size(void **state)
{
    Bus__Property id = property(MESSAGE_ID, "m-1"), type = property(MESSAGE_CONTENT_TYPE, "a/b");
    Bus__Property room = property("room", "7"), empty = property("empty", "");
    Bus__Property *system[] = { &id, &type }, *application[] = { &room, &empty };
    Bus__Message m = BUS__MESSAGE__INIT;

    assert_int_equal(message_size(&m), 0);
    m.body = (ProtobufCBinaryData){ 5, (uint8_t *)"hello" };
    assert_int_equal(message_size(&m), 5);
    m.n_system = ELEMENTSOF(system);
    m.system = system;
    assert_int_equal(message_size(&m), 5 + 6);
    m.n_application = ELEMENTSOF(application);
    m.application = application;
    assert_int_equal(message_size(&m), 5 + 6 + 5 + 5);
}

static void test_message_system(void **state)
{
    Bus__Property id = property(MESSAGE_ID, "m-1"), to = property(MESSAGE_TO, "");
    Bus__Property *system[] = { &id, &to };
    Bus__Message m = BUS__MESSAGE__INIT;

    assert_null(message_system(&m, MESSAGE_ID));
    m.n_system = ELEMENTSOF(system);
    m.system = system;
    assert_string_equal(message_system(&m, MESSAGE_ID), "m-1");
    assert_string_equal(message_system(&m, MESSAGE_TO), "");
    assert_null(message_system(&m, MESSAGE_EXPIRY));
}

static void test_identity_name(void **state)
{
    static const struct {
        const char *device, *module, *name, *want_module;
    } cases[] = {
        { "d", NULL, "d", NULL },
        { "d", "", "d", NULL },
        { "d", "m", "d/m", "m" },
        { "edge1", "$edgeHub", "edge1/$edgeHub", "$edgeHub" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *name = identity_name(cases[i].device, cases[i].module);
        _cleanup_(freep) char *device = NULL;
        _cleanup_(freep) char *module = NULL;

        assert_string_equal(name, cases[i].name);
        identity_split(name, &device, &module);
        assert_string_equal(device, cases[i].device);
        if (cases[i].want_module)
            assert_string_equal(module, cases[i].want_module);
        else
            assert_null(module);
    }
}

static void test_identity_id_valid(void **state)
{
    char longest[IDENTITY_ID_MAX + 2];

    memset(longest, 'x', sizeof(longest));
    longest[IDENTITY_ID_MAX] = '\0';
    assert_true(identity_id_valid(longest));
    memcpy(longest + IDENTITY_ID_MAX, "x", 2);
    assert_false(identity_id_valid(longest));

    assert_true(identity_id_valid("d"));
    assert_true(identity_id_valid("$edgeHub"));
    assert_true(identity_id_valid("a-:.+%_#*?!(),=@;$'Z9"));
    assert_false(identity_id_valid(""));
    assert_false(identity_id_valid("a b"));
    assert_false(identity_id_valid("a/b"));
    assert_false(identity_id_valid("a\n"));
    assert_false(identity_id_valid("\xc3\xa4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_size),
        cmocka_unit_test(test_message_system),
        cmocka_unit_test(test_identity_name),
        cmocka_unit_test(test_identity_id_valid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
