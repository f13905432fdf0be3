#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arena.h"
#include "bus.pb-c.h"
#include "mem.h"

static void test_arena_alloc(void **state)
{
    static const size_t sizes[] = { 0, 1, 15, 16, 17, 1000, 16384, 16385, 65536, 1 << 20 };
    struct arena *arena = arena_new();

    for (unsigned round = 0; round < 3; round++) {
        char *kept[ELEMENTSOF(sizes) * 20];
        size_t n = 0;

        for (unsigned again = 0; again < 20; again++)
            for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
                kept[n] = arena_alloc(arena, sizes[i]);
                assert_int_equal((uintptr_t)kept[n] % 16, 0);
                memset(kept[n++], (int)again, sizes[i]);
            }
        for (size_t i = 0; i < n; i++) /* nobody wrote over anybody */
            for (size_t at = 0; at < sizes[i % ELEMENTSOF(sizes)]; at += 997)
                assert_int_equal(kept[i][at], i / ELEMENTSOF(sizes));
        arena_reset(arena);
    }
    assert_null(arena_free(arena));
    assert_null(arena_free(NULL));
}

static void test_arena_reset_keeps_first_block(void **state)
{
    struct arena *arena = arena_new();
    void *first = arena_alloc(arena, 100);

    for (unsigned i = 0; i < 1000; i++)
        arena_alloc(arena, 1000);
    arena_reset(arena);
    assert_ptr_equal(arena_alloc(arena, 100), first);
    arena_free(arena);
}

static void test_arena_strings(void **state)
{
    struct arena *arena = arena_new();

    assert_string_equal(arena_strdup(arena, "abc"), "abc");
    assert_string_equal(arena_strndup(arena, "abc", 2), "ab");
    assert_string_equal(arena_strndup(arena, "abc", 9), "abc");
    assert_string_equal(arena_strndup(arena, "", 0), "");
    arena_free(arena);
}

static void test_arena_allocator_unpacks(void **state)
{
    char caller[] = "router", error[] = "";
    Bus__Envelope envelope = BUS__ENVELOPE__INIT, *unpacked;
    struct arena *arena = arena_new();
    uint8_t packed[64];
    size_t len;

    envelope.caller = caller;
    envelope.error = error;
    envelope.id = 7;
    len = bus__envelope__pack(&envelope, packed);
    for (unsigned i = 0; i < 3; i++) {
        unpacked = bus__envelope__unpack(arena_allocator(arena), len, packed);
        assert_non_null(unpacked);
        assert_int_equal(unpacked->id, 7);
        assert_string_equal(unpacked->caller, "router");
        arena_reset(arena);
    }
    assert_null(
        bus__envelope__unpack(arena_allocator(arena), len - 1, packed)); /* frees what it began */
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena_alloc),
        cmocka_unit_test(test_arena_reset_keeps_first_block),
        cmocka_unit_test(test_arena_strings),
        cmocka_unit_test(test_arena_allocator_unpacks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
