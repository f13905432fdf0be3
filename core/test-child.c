/* The table is walked whole: every cell is there, and leads where this file says. child.c is
 * included to see its table. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "child.c"
#include "mem.h"

/* What the table asked for. */
static struct {
    unsigned spawned, drained, changed;
    int spawn_result, signal;
    uint64_t timer_usec, now_usec;
} asked;

static int fake_spawn(struct child *child)
{
    asked.spawned++;
    if (asked.spawn_result < 0)
        snprintf(child->reason, sizeof(child->reason), "no room");
    return asked.spawn_result;
}

static void fake_drain(struct child *child, uint64_t deadline_usec)
{
    asked.drained++;
}

static void fake_signal(struct child *child, int signal_number)
{
    asked.signal = signal_number;
}

static void fake_set_timer(struct child *child, uint64_t usec_from_now)
{
    asked.timer_usec = usec_from_now;
}

static void fake_changed(struct child *child)
{
    asked.changed++;
}

static uint64_t fake_now(struct child *child)
{
    return asked.now_usec;
}

static const struct child_ops fake_ops = {
    .spawn = fake_spawn,
    .drain = fake_drain,
    .signal = fake_signal,
    .set_timer = fake_set_timer,
    .changed = fake_changed,
    .now = fake_now,
};

static const struct child_timing timing = { .ready_usec = 10, .hang_usec = 20, .drain_usec = 30 };

/* A child as it is in @state on an ordinary day. */
static struct child child_in(enum child_state state)
{
    struct child child;

    memset(&asked, 0, sizeof(asked));
    asked.now_usec = 60 * 1000 * 1000;
    child_init(&child, "x", &timing, &fake_ops);
    child.state = state;
    child.wanted = state != CHILD_STOPPED && state != CHILD_DRAINING;
    child.asked = state == CHILD_DRAINING;
    child.was_ready = state == CHILD_READY || state == CHILD_DRAINING;
    return child;
}

enum { NEVER = -1 };

static const int next[_CHILD_STATE_COUNT][_CHILD_EVENT_COUNT] = {
    [CHILD_STOPPED] = {
        [CHILD_WANTED]     = CHILD_STARTING,
        [CHILD_UNWANTED]   = CHILD_STOPPED,
        [CHILD_SAID_READY] = CHILD_STOPPED,
        [CHILD_HEARTBEAT]  = CHILD_STOPPED,
        [CHILD_TIMEOUT]    = NEVER,
        [CHILD_EXITED]     = NEVER,
        [CHILD_REFUSED]    = NEVER,
    },
    [CHILD_STARTING] = {
        [CHILD_WANTED]     = CHILD_STARTING,
        [CHILD_UNWANTED]   = CHILD_DRAINING,
        [CHILD_SAID_READY] = CHILD_READY,
        [CHILD_HEARTBEAT]  = CHILD_STARTING,
        [CHILD_TIMEOUT]    = CHILD_ENDING,
        [CHILD_EXITED]     = CHILD_BACKOFF,
        [CHILD_REFUSED]    = CHILD_FAILED,
    },
    [CHILD_READY] = {
        [CHILD_WANTED]     = CHILD_READY,
        [CHILD_UNWANTED]   = CHILD_DRAINING,
        [CHILD_SAID_READY] = CHILD_READY,
        [CHILD_HEARTBEAT]  = CHILD_READY,
        [CHILD_TIMEOUT]    = CHILD_ENDING,
        [CHILD_EXITED]     = CHILD_STARTING,
        [CHILD_REFUSED]    = CHILD_STARTING,
    },
    [CHILD_DRAINING] = {
        [CHILD_WANTED]     = CHILD_DRAINING,
        [CHILD_UNWANTED]   = CHILD_DRAINING,
        [CHILD_SAID_READY] = CHILD_DRAINING,
        [CHILD_HEARTBEAT]  = CHILD_DRAINING,
        [CHILD_TIMEOUT]    = CHILD_ENDING,
        [CHILD_EXITED]     = CHILD_STOPPED,
        [CHILD_REFUSED]    = CHILD_STOPPED,
    },
    [CHILD_ENDING] = {
        [CHILD_WANTED]     = CHILD_ENDING,
        [CHILD_UNWANTED]   = CHILD_ENDING,
        [CHILD_SAID_READY] = CHILD_ENDING,
        [CHILD_HEARTBEAT]  = CHILD_ENDING,
        [CHILD_TIMEOUT]    = CHILD_ENDING,
        [CHILD_EXITED]     = CHILD_BACKOFF,
        [CHILD_REFUSED]    = CHILD_BACKOFF,
    },
    [CHILD_BACKOFF] = {
        [CHILD_WANTED]     = CHILD_STARTING,
        [CHILD_UNWANTED]   = CHILD_STOPPED,
        [CHILD_SAID_READY] = CHILD_BACKOFF,
        [CHILD_HEARTBEAT]  = CHILD_BACKOFF,
        [CHILD_TIMEOUT]    = CHILD_STARTING,
        [CHILD_EXITED]     = NEVER,
        [CHILD_REFUSED]    = NEVER,
    },
    [CHILD_FAILED] = {
        [CHILD_WANTED]     = CHILD_STARTING,
        [CHILD_UNWANTED]   = CHILD_STOPPED,
        [CHILD_SAID_READY] = CHILD_FAILED,
        [CHILD_HEARTBEAT]  = CHILD_FAILED,
        [CHILD_TIMEOUT]    = CHILD_STARTING,
        [CHILD_EXITED]     = NEVER,
        [CHILD_REFUSED]    = NEVER,
    },
};

static void check_cell(enum child_state state, enum child_event event)
{
    struct child child = child_in(state);

    assert_non_null(child_actions[state][event]);
    if (next[state][event] == NEVER) {
        assert_ptr_equal(child_actions[state][event], child_never);
        return;
    }
    assert_ptr_not_equal(child_actions[state][event], child_never);
    child_feed(&child, event, "why");
    if ((int)child.state != next[state][event])
        fail_msg("%s + event %d: %s, expected %s", child_state_name(state), event,
                 child_state_name(child.state), child_state_name((unsigned)next[state][event]));
    /* Who waits for something has a timer, so nothing waits for ever. */
    if (child.state != state && child.state != CHILD_STOPPED)
        assert_true(asked.timer_usec > 0);
    if (child.state != state)
        assert_true(asked.changed > 0);
    if (child.state == CHILD_STOPPED)
        assert_int_equal(asked.timer_usec, 0);
}

static void test_child_feed_table(void **state)
{
    for (int s = 0; s < _CHILD_STATE_COUNT; s++)
        for (int e = 0; e < _CHILD_EVENT_COUNT; e++)
            check_cell((enum child_state)s, (enum child_event)e);
}

static void test_child_names(void **state)
{
    for (int s = 0; s < _CHILD_STATE_COUNT; s++)
        assert_non_null(child_state_name((enum child_state)s));
}

static void test_child_backoff_usec(void **state)
{
    static const struct {
        unsigned deaths;
        uint64_t random, want;
    } cases[] = {
        { 1, 0, 75000 },       { 1, 1023, 125000 },     { 2, 0, 150000 },
        { 3, 0, 300000 },      { 8, 0, 9600000 },       { 9, 0, 22500000 },
        { 9, 1023, 30000000 }, { 500, 1023, 30000000 }, { 0, 0, 75000 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(child_backoff_usec(cases[i].deaths, cases[i].random), cases[i].want);
}

static void test_child_backoff_grows_until_ready(void **state)
{
    struct child child = child_in(CHILD_STOPPED);
    uint64_t last = 0;

    child_feed(&child, CHILD_WANTED, NULL);
    for (int i = 0; i < 8; i++) {
        child_feed(&child, CHILD_EXITED, "crash");
        assert_int_equal(child.state, CHILD_BACKOFF);
        assert_true(asked.timer_usec > last);
        last = asked.timer_usec;
        child_feed(&child, CHILD_TIMEOUT, NULL);
    }
    child_feed(&child, CHILD_SAID_READY, NULL);
    asked.now_usec += 60 * 1000 * 1000;
    child_feed(&child, CHILD_EXITED, "crash");
    assert_int_equal(child.state, CHILD_STARTING); /* at once: it had been of use */
    child_feed(&child, CHILD_EXITED, "crash");
    assert_int_equal(asked.timer_usec, child_backoff_usec(1, asked.now_usec));
}

static void test_child_ready_then_dead_at_once_waits(void **state)
{
    struct child child = child_in(CHILD_STOPPED);

    child_feed(&child, CHILD_WANTED, NULL);
    asked.now_usec += 1000;
    child_feed(&child, CHILD_SAID_READY, NULL);
    child_feed(&child, CHILD_EXITED, "crash");
    assert_int_equal(child.state, CHILD_BACKOFF);
    assert_int_equal(asked.timer_usec, CHILD_BACKOFF_MIN_USEC - 1000);
    assert_int_equal(child.early_deaths, 0);
}

static void test_child_wanted_again_while_it_drains(void **state)
{
    struct child child = child_in(CHILD_READY);

    child_feed(&child, CHILD_UNWANTED, "operator");
    child_feed(&child, CHILD_WANTED, "operator");
    assert_int_equal(asked.drained, 1);
    assert_int_equal(asked.timer_usec, timing.drain_usec);
    child_feed(&child, CHILD_EXITED, "exited");
    assert_int_equal(child.state, CHILD_STARTING);
    assert_int_equal(asked.spawned, 1);
    assert_int_equal(asked.timer_usec, timing.ready_usec);
}

static void test_child_unwanted_while_it_is_ending(void **state)
{
    struct child child = child_in(CHILD_READY);

    child_feed(&child, CHILD_TIMEOUT, NULL);
    child_feed(&child, CHILD_UNWANTED, NULL);
    child_feed(&child, CHILD_EXITED, NULL);
    assert_int_equal(child.state, CHILD_STOPPED);
}

static void test_child_hang_aborts_then_kills(void **state)
{
    struct child child = child_in(CHILD_READY);

    child_feed(&child, CHILD_HEARTBEAT, NULL);
    assert_int_equal(asked.timer_usec, timing.hang_usec);
    child_feed(&child, CHILD_TIMEOUT, NULL);
    assert_int_equal(asked.signal, SIGABRT);
    assert_int_equal(asked.timer_usec, CHILD_ABORT_USEC);
    child_feed(&child, CHILD_HEARTBEAT, NULL);
    assert_int_equal(child.state, CHILD_ENDING);
    child_feed(&child, CHILD_TIMEOUT, NULL);
    assert_int_equal(asked.signal, SIGKILL);
    asked.signal = 0;
    child_feed(&child, CHILD_TIMEOUT, NULL); /* nothing came of it: said, and tried again */
    assert_int_equal(asked.signal, SIGKILL);
    child_feed(&child, CHILD_EXITED, NULL);
    assert_int_equal(child.state, CHILD_STARTING);
}

static void test_child_spawn_that_fails_backs_off(void **state)
{
    struct child child = child_in(CHILD_STOPPED);

    asked.spawn_result = -12;
    child_feed(&child, CHILD_WANTED, NULL);
    assert_int_equal(child.state, CHILD_BACKOFF);
    assert_string_equal(child.reason, "no room");
    child_feed(&child, CHILD_TIMEOUT, NULL);
    assert_int_equal(child.early_deaths, 2);
}

static void test_child_refused_is_retried_seldom(void **state)
{
    struct child child = child_in(CHILD_STARTING);

    child_feed(&child, CHILD_REFUSED, "it refuses its settings");
    assert_int_equal(asked.timer_usec, CHILD_FAILED_RETRY_USEC);
    assert_string_equal(child.reason, "it refuses its settings");
    child_feed(&child, CHILD_TIMEOUT, NULL);
    assert_int_equal(child.state, CHILD_STARTING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_child_feed_table),
        cmocka_unit_test(test_child_names),
        cmocka_unit_test(test_child_backoff_usec),
        cmocka_unit_test(test_child_backoff_grows_until_ready),
        cmocka_unit_test(test_child_ready_then_dead_at_once_waits),
        cmocka_unit_test(test_child_wanted_again_while_it_drains),
        cmocka_unit_test(test_child_unwanted_while_it_is_ending),
        cmocka_unit_test(test_child_hang_aborts_then_kills),
        cmocka_unit_test(test_child_spawn_that_fails_backs_off),
        cmocka_unit_test(test_child_refused_is_retried_seldom),
    };

    log_set_level(LOG_EMERG);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
