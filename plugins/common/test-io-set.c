#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "io-set.h"
#include "mem.h"
#include "test-sockets.h"

enum { LOOP_USEC = 20 * 1000000, MANY = 300 };

struct owner {
    struct io_watch watch;
    int fd;
    unsigned calls;
    uint32_t revents;
    struct io_watch *ends, *sleeps; /* what it does to another when it is called */
    bool reads;
};

static sd_event *event;

static void owner_on_io(struct io_watch *watch, uint32_t revents, void *userdata)
{
    struct owner *o = userdata;
    uint64_t value;

    assert_ptr_equal(watch, &o->watch);
    o->calls++;
    o->revents = revents;
    if (o->reads)
        assert_int_equal(read(o->fd, &value, sizeof(value)), sizeof(value));
    if (o->ends)
        io_watch_end(o->ends);
    if (o->sleeps)
        io_watch_sleep(o->sleeps);
}

static void owner_begin(struct owner *o, int fd, uint32_t events)
{
    o->fd = fd;
    assert_int_equal(io_watch_begin(&o->watch, event, fd, events, owner_on_io, o), 0);
}

static void owner_done(struct owner *o)
{
    io_watch_end(&o->watch);
    close_fd(o->fd);
}

/* Readable until it is read. */
static int ready_fd(void)
{
    return eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
}

static void run_once(void)
{
    assert_true(sd_event_run(event, LOOP_USEC) > 0);
}

static void run_what_is_due(void)
{
    while (sd_event_run(event, 0) > 0)
        ;
}

static int set_up(void **state)
{
    assert_true(sd_event_new(&event) >= 0);
    return 0;
}

static int tear_down(void **state)
{
    event = sd_event_unref(event); /* the last: sets go with their last watch */
    assert_null(event);
    return 0;
}

static void test_told_what_is_asked(void **state)
{
    struct owner o = {};
    int fds[2];

    assert_true(test_socket_pair(fds));
    owner_begin(&o, fds[0], EPOLLIN);
    run_what_is_due();
    assert_int_equal(o.calls, 0);
    io_watch_change(&o.watch, EPOLLOUT);
    run_once();
    assert_int_equal(o.revents, EPOLLOUT);
    io_watch_change(&o.watch, 0);
    run_what_is_due();
    assert_int_equal(o.calls, 1);
    close(fds[1]);
    run_once();
    assert_true(o.revents & EPOLLHUP); /* always told */
    io_watch_sleep(&o.watch);
    run_what_is_due();
    assert_int_equal(o.calls, 2); /* but in sleep */
    io_watch_change(&o.watch, 0);
    run_once();
    assert_int_equal(o.calls, 3);
    owner_done(&o);
}

static void test_one_turn_serves_all(void **state)
{
    struct owner owners[8] = {};

    for (unsigned i = 0; i < ELEMENTSOF(owners); i++)
        owner_begin(&owners[i], ready_fd(), EPOLLIN);
    run_once();
    for (unsigned i = 0; i < ELEMENTSOF(owners); i++) {
        assert_int_equal(owners[i].calls, 1);
        owner_done(&owners[i]);
    }
}

/* Whoever is served first does away with the other. */
static void expect_only_one_called(struct owner *a, struct owner *b)
{
    owner_begin(a, ready_fd(), EPOLLIN);
    owner_begin(b, ready_fd(), EPOLLIN);
    run_once();
    assert_int_equal(a->calls + b->calls, 1);
    owner_done(a);
    owner_done(b);
}

static void test_ended_in_the_same_turn(void **state)
{
    struct owner a = {}, b = {};

    a.ends = &b.watch;
    b.ends = &a.watch;
    expect_only_one_called(&a, &b);
}

static void test_put_to_sleep_in_the_same_turn(void **state)
{
    struct owner a = {}, b = {};

    a.sleeps = &b.watch;
    b.sleeps = &a.watch;
    expect_only_one_called(&a, &b);
}

static void test_the_last_ends_itself(void **state)
{
    struct owner o = {};

    o.ends = &o.watch;
    owner_begin(&o, ready_fd(), EPOLLIN);
    run_once();
    assert_null(o.watch.set);
    owner_done(&o);
    o = (struct owner){};
    owner_begin(&o, ready_fd(), EPOLLIN); /* and another set comes to be */
    run_once();
    assert_int_equal(o.calls, 1);
    owner_done(&o);
}

static void test_refused_by_the_kernel(void **state)
{
    struct owner o = {};

    assert_int_equal(io_watch_begin(&o.watch, event, -1, EPOLLIN, owner_on_io, &o), -EBADF);
    assert_null(o.watch.set);
    io_watch_end(&o.watch);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    ++*(unsigned *)userdata;
    return 0;
}

/* However many are ready, a timer that is due waits for one batch at most, and nobody waits for
 * ever. */
static void test_many_do_not_starve_others(void **state)
{
    struct owner *owners = xnew_n(struct owner, MANY);
    sd_event_source *timer = NULL;
    unsigned expired = 0, served = 0;

    for (unsigned i = 0; i < MANY; i++) {
        owners[i].reads = true;
        owner_begin(&owners[i], ready_fd(), EPOLLIN);
    }
    assert_true(sd_event_add_time(event, &timer, CLOCK_MONOTONIC, 0, 1, on_timer, &expired) >= 0);
    run_once();
    run_once();
    assert_int_equal(expired, 1);
    for (unsigned i = 0; i < MANY; i++)
        served += owners[i].calls;
    assert_in_range(served, 1, MANY / 2);
    run_what_is_due();
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(owners[i].calls, 1);
        owner_done(&owners[i]);
    }
    sd_event_source_unref(timer);
    free(owners);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_told_what_is_asked),        TEST(test_one_turn_serves_all),
        TEST(test_ended_in_the_same_turn),    TEST(test_put_to_sleep_in_the_same_turn),
        TEST(test_the_last_ends_itself),      TEST(test_refused_by_the_kernel),
        TEST(test_many_do_not_starve_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
