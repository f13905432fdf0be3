#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "client-map.h"
#include "mem.h"

static void test_identities(void **state)
{
    struct client_map_entry device = { .device_id = "d", .module_id = "" };
    struct client_map_entry module = { .device_id = "d", .module_id = "m" };
    struct client_map_entry other = { .device_id = "d/m", .module_id = "" };
    struct client_map map = {};

    assert_null(client_map_find(&map, "d", ""));
    client_map_remove(&map, &device);
    assert_null(client_map_put(&map, &device));
    assert_null(client_map_put(&map, &module));
    assert_null(client_map_put(&map, &other));
    assert_int_equal(map.count, 3);
    assert_ptr_equal(client_map_find(&map, "d", ""), &device);
    assert_ptr_equal(client_map_find(&map, "d", "m"), &module);
    assert_ptr_equal(client_map_find(&map, "d/m", ""), &other);
    assert_null(client_map_find(&map, "D", ""));
    client_map_done(&map);
}

/* The end of the older must not take the newer with it (mqtt.md, trap 31). */
static void test_take_over(void **state)
{
    struct client_map_entry older = { .device_id = "d", .module_id = "" }, newer = older;
    struct client_map map = {};

    client_map_put(&map, &older);
    assert_ptr_equal(client_map_put(&map, &newer), &older);
    assert_int_equal(map.count, 1);
    client_map_remove(&map, &older);
    assert_ptr_equal(client_map_find(&map, "d", ""), &newer);
    client_map_remove(&map, &newer);
    assert_null(client_map_find(&map, "d", ""));
    assert_int_equal(map.count, 0);
    client_map_done(&map);
}

static void test_many(void **state)
{
    enum { MANY = 3000 };
    struct client_map_entry *entries = xnew_n(struct client_map_entry, MANY);
    char(*names)[16] = xalloc0(sizeof(*names) * MANY);
    struct client_map map = {};

    for (unsigned i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "device-%u", i);
        entries[i] = (struct client_map_entry){ .device_id = names[i], .module_id = "m" };
        assert_null(client_map_put(&map, &entries[i]));
    }
    for (unsigned i = 0; i < MANY; i += 2)
        client_map_remove(&map, &entries[i]);
    assert_int_equal(map.count, MANY / 2);
    for (unsigned i = 0; i < MANY; i++)
        assert_ptr_equal(client_map_find(&map, names[i], "m"), i % 2 ? &entries[i] : NULL);
    client_map_done(&map);
    free(entries);
    free(names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_take_over),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
