#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "send-window.h"

static void add(struct send_window *w, unsigned n)
{
    while (n-- > 0)
        send_window_add(w);
}

static void assert_takes(struct send_window *w, uint64_t want)
{
    uint64_t sequence = 0;

    if (want == 0) {
        assert_false(send_window_take(w, &sequence));
        return;
    }
    assert_true(send_window_take(w, &sequence));
    assert_int_equal(sequence, want);
}

static void assert_commits(struct send_window *w, uint64_t want)
{
    uint64_t sequence = 0;

    if (want == 0) {
        assert_false(send_window_commit(w, &sequence));
        return;
    }
    assert_true(send_window_commit(w, &sequence));
    assert_int_equal(sequence, want);
}

static void test_room(void **state)
{
    struct send_window w;

    send_window_init(&w, 2);
    assert_int_equal(send_window_room(&w), 2);
    assert_int_equal(send_window_add(&w), 1);
    assert_int_equal(send_window_add(&w), 2);
    assert_int_equal(send_window_room(&w), 0);
    assert_takes(&w, 1);
    send_window_answered(&w, 1, SEND_DONE);
    assert_int_equal(send_window_room(&w), 0); /* until it is committed */
    assert_commits(&w, 1);
    assert_int_equal(send_window_room(&w), 1);
    assert_int_equal(send_window_add(&w), 3);
}

/* Answers come in any order; commits do not. */
static void test_commit_in_order(void **state)
{
    struct send_window w;

    send_window_init(&w, 4);
    add(&w, 3);
    assert_takes(&w, 1);
    assert_takes(&w, 2);
    assert_takes(&w, 3);
    assert_takes(&w, 0);
    send_window_answered(&w, 3, SEND_DONE);
    assert_commits(&w, 0);
    send_window_answered(&w, 1, SEND_DONE);
    assert_commits(&w, 1);
    assert_commits(&w, 0);
    send_window_answered(&w, 2, SEND_DONE);
    assert_commits(&w, 2);
    assert_commits(&w, 3);
    assert_commits(&w, 0);
}

/* 1 is refused for now, 2 and 3 find the gap: all three again, but not before the last answer is
 * in. */
static void test_go_back(void **state)
{
    struct send_window w;
    uint64_t delay;

    send_window_init(&w, 4);
    add(&w, 3);
    assert_takes(&w, 1);
    assert_takes(&w, 2);
    assert_takes(&w, 3);
    send_window_answered(&w, 1, SEND_RETRY);
    add(&w, 1);
    assert_takes(&w, 0);
    assert_false(send_window_stuck(&w, &delay));
    send_window_answered(&w, 2, SEND_GAP);
    send_window_answered(&w, 3, SEND_GAP);
    assert_true(send_window_stuck(&w, &delay));
    assert_int_equal(delay, 10000);
    assert_takes(&w, 0);
    send_window_go_back(&w);
    assert_takes(&w, 1);
    assert_takes(&w, 2);
    assert_takes(&w, 3);
    assert_takes(&w, 4);
    assert_takes(&w, 0);
}

/* What was done before going back is not sent again. */
static void test_go_back_skips_done(void **state)
{
    struct send_window w;
    uint64_t delay;

    send_window_init(&w, 4);
    add(&w, 3);
    assert_takes(&w, 1);
    assert_takes(&w, 2);
    assert_takes(&w, 3);
    send_window_answered(&w, 2, SEND_DONE);
    send_window_answered(&w, 3, SEND_GAP);
    send_window_answered(&w, 1, SEND_DONE);
    assert_commits(&w, 1);
    assert_commits(&w, 2);
    assert_true(send_window_stuck(&w, &delay));
    send_window_go_back(&w);
    assert_takes(&w, 3);
    assert_takes(&w, 0);
}

/* A gap is mended at once, a gap that stays is not asked for in a tight loop, and progress forgets
 * the past. */
static void test_delay_grows(void **state)
{
    static const uint64_t gaps[] = { 0, 0, 0, 80000, 160000 }, retries[] = { 10000, 20000, 40000 };
    struct send_window w;
    uint64_t delay;

    send_window_init(&w, 4);
    add(&w, 2);
    for (unsigned i = 0; i < sizeof(gaps) / sizeof(gaps[0]); i++) {
        assert_takes(&w, 1);
        send_window_answered(&w, 1, SEND_GAP);
        assert_true(send_window_stuck(&w, &delay));
        assert_int_equal(delay, gaps[i]);
        send_window_go_back(&w);
    }
    assert_takes(&w, 1);
    send_window_answered(&w, 1, SEND_DONE);
    for (unsigned i = 0; i < sizeof(retries) / sizeof(retries[0]); i++) {
        assert_takes(&w, 2);
        send_window_answered(&w, 2, SEND_RETRY);
        assert_true(send_window_stuck(&w, &delay));
        assert_int_equal(delay, retries[i]);
        send_window_go_back(&w);
    }
    for (unsigned i = 0; i < 20; i++) {
        assert_takes(&w, 2);
        send_window_answered(&w, 2, SEND_RETRY);
        assert_true(send_window_stuck(&w, &delay));
        send_window_go_back(&w);
    }
    assert_int_equal(delay, 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room),        cmocka_unit_test(test_commit_in_order),
        cmocka_unit_test(test_go_back),     cmocka_unit_test(test_go_back_skips_done),
        cmocka_unit_test(test_delay_grows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
