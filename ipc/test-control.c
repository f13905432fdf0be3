/* Control packets over a real socket pair: whole or not at all, with their descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "control.h"
#include "mem.h"

static void make_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
}

static int send_hello(int socket, uint64_t generation, const int *fds, unsigned fd_count)
{
    Bus__Hello hello = BUS__HELLO__INIT;
    Bus__Control packet = CONTROL_INIT(HELLO, hello, &hello);

    hello.generation = generation;
    return control_send(socket, &packet, fds, fd_count);
}

static void test_descriptors_ride_along(void **state)
{
    int pair[2], fds[CONTROL_FDS_MAX];
    unsigned count = 0;
    Bus__Control *packet = NULL;

    make_pair(pair);
    assert_int_equal(send_hello(pair[0], 7, pair, 2), 0);
    assert_int_equal(control_receive(pair[1], &packet, fds, &count), 0);
    assert_int_equal(packet->hello->generation, 7);
    assert_int_equal(count, 2);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
        close(fds[i]);
    }
    bus__control__free_unpacked(packet, NULL);
    close(pair[0]);
    close(pair[1]);
}

/* One that does not want descriptors is not left with them. */
static void test_descriptors_not_wanted_are_closed(void **state)
{
    int pair[2], before = dup(STDERR_FILENO), after;
    Bus__Control *packet = NULL;

    close(before); /* the next one that is free */
    make_pair(pair);
    assert_int_equal(send_hello(pair[0], 7, pair, 2), 0);
    assert_int_equal(control_receive(pair[1], &packet, NULL, NULL), 0);
    bus__control__free_unpacked(packet, NULL);
    close(pair[0]);
    close(pair[1]);
    after = dup(STDERR_FILENO);
    assert_int_equal(after, before);
    close(after);
}

static void test_nothing_the_end_and_garbage(void **state)
{
    static uint8_t large[CONTROL_BYTES_MAX + 1];
    int pair[2], size = 2 * (int)sizeof(large);
    Bus__Control *packet = NULL;

    make_pair(pair);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    assert_int_equal(control_receive(pair[1], &packet, NULL, NULL), -EAGAIN);
    assert_int_equal(send(pair[0], "\xff\xff\xff", 3, 0), 3);
    assert_int_equal(control_receive(pair[1], &packet, NULL, NULL), -EBADMSG);
    if (send(pair[0], large, sizeof(large), MSG_DONTWAIT) > 0) /* if the buffer may be that large */
        assert_int_equal(control_receive(pair[1], &packet, NULL, NULL), -EBADMSG);
    close(pair[0]);
    assert_int_equal(control_receive(pair[1], &packet, NULL, NULL), 0);
    assert_null(packet);
    close(pair[1]);
}

/* A packet may come at any moment of a receive that finds nothing: it must not be lost. */
static void test_packet_that_comes_meanwhile(void **state)
{
    enum { COUNT = 20000 };
    int pair[2], status;
    pid_t pid;

    make_pair(pair);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that failed reads no more */
        for (uint64_t i = 0; i < COUNT;)
            i += send_hello(pair[0], i, NULL, 0) == 0;
        _exit(EXIT_SUCCESS);
    }
    for (uint64_t i = 0; i < COUNT;) {
        Bus__Control *packet = NULL;
        int r = control_receive(pair[1], &packet, NULL, NULL);

        if (r == -EAGAIN)
            continue;
        assert_int_equal(r, 0);
        assert_int_equal(packet->hello->generation, i++);
        bus__control__free_unpacked(packet, NULL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptors_ride_along),
        cmocka_unit_test(test_descriptors_not_wanted_are_closed),
        cmocka_unit_test(test_nothing_the_end_and_garbage),
        cmocka_unit_test(test_packet_that_comes_meanwhile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
