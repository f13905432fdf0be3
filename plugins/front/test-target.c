#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "mem.h"
#include "target.h"

enum { LOOP_USEC = 20 * 1000000, WAITS = 6 };

struct waiter {
    struct target_wait wait;
    unsigned order; /* in which it was told; 0: not yet */
    int fd;
};

static sd_event *event;
static char dir[32];
static struct target target;
static struct waiter waiters[WAITS];
static unsigned told;

static void on_connected(struct target_wait *wait, int fd)
{
    struct waiter *waiter = CONTAINER_OF(wait, struct waiter, wait);

    assert_int_equal(waiter->order, 0);
    waiter->order = ++told;
    waiter->fd = fd;
}

static int listener_open(int backlog)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    unlink(target.address.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&target.address, sizeof(target.address)), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static void run_until_told(unsigned count)
{
    while (told < count)
        assert_true(sd_event_run(event, LOOP_USEC) > 0);
}

static int set_up(void **state)
{
    strcpy(dir, "/tmp/brink-target-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_true(sd_event_new(&event) >= 0);
    assert_int_equal(target_init(&target, event, dir, "x.sock", LOOP_USEC), 0);
    told = 0;
    for (unsigned i = 0; i < WAITS; i++)
        waiters[i] = (struct waiter){ .fd = -1 };
    return 0;
}

static int tear_down(void **state)
{
    for (unsigned i = 0; i < WAITS; i++) {
        target_forget(&waiters[i].wait);
        close_fd(waiters[i].fd);
    }
    unlink(target.address.sun_path);
    target_done(&target);
    event = sd_event_unref(event);
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

static void test_connects_at_once(void **state)
{
    int fd = listener_open(4);

    target_connect(&target, &waiters[0].wait, on_connected);
    assert_int_equal(told, 1);
    assert_true(waiters[0].fd >= 0);
    assert_null(target.first);
    close(fd);
}

static void test_full_backlog_keeps_the_order(void **state)
{
    int fd = listener_open(0); /* room for one */

    for (unsigned i = 0; i < WAITS; i++)
        target_connect(&target, &waiters[i].wait, on_connected);
    assert_int_equal(told, 1);
    for (unsigned i = 1; i < WAITS; i++) {
        close(accept(fd, NULL, NULL));
        run_until_told(i + 1);
        assert_int_equal(waiters[i].order, i + 1);
        assert_true(waiters[i].fd >= 0);
    }
    assert_null(target.retry);
    close(fd);
}

static void test_patience_ends(void **state)
{
    target.patience_usec = 100 * 1000;
    for (unsigned i = 0; i < 3; i++)
        target_connect(&target, &waiters[i].wait, on_connected);
    run_until_told(3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(waiters[i].order, i + 1);
        assert_int_equal(waiters[i].fd, -ENOENT);
        waiters[i].fd = -1;
    }
    assert_null(target.retry);
}

static void test_forgotten_is_not_told(void **state)
{
    int fd;

    for (unsigned i = 0; i < 4; i++)
        target_connect(&target, &waiters[i].wait, on_connected);
    target_forget(&waiters[3].wait);
    target_forget(&waiters[0].wait);
    target_forget(&waiters[0].wait);
    fd = listener_open(4);
    run_until_told(2);
    assert_int_equal(waiters[1].order, 1);
    assert_int_equal(waiters[2].order, 2);
    assert_int_equal(waiters[0].order + waiters[3].order, 0);
    close(fd);
}

static void test_path(void **state)
{
    static const char long_path[] = "an-unreasonably-long-name-for-a-socket/that-does-not-fit/"
                                    "into-what-the-kernel-has-room-for/streams.sock";
    struct target other;

    assert_int_equal(target_init(&other, event, dir, long_path, 1), -ENAMETOOLONG);
    assert_int_equal(target_init(&other, event, dir, "/run/x.sock", 1), 0);
    assert_string_equal(other.address.sun_path, "/run/x.sock");
    target_done(&other);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_connects_at_once),
        TEST(test_full_backlog_keeps_the_order),
        TEST(test_patience_ends),
        TEST(test_forgotten_is_not_told),
        TEST(test_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
