/* A plugin whose supervisor is played by the test: one process, one loop, a real control socket. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "control.h"
#include "plugin.h"

enum { LOOP_TURNS_MAX = 10000, TURN_USEC = 10 * 1000 };

struct fixture {
    char dir[32];
    int listener, supervisor; /* -1: away */
    int pair[2];              /* whoever is at the other end is this process */
    struct plugin *plugin;
    unsigned drains;
};

static char *control_path(const struct fixture *f)
{
    return xasprintf("%s/control.sock", f->dir);
}

static void supervisor_come(struct fixture *f)
{
    _cleanup_(freep) char *path = control_path(f);
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    strcpy(address.sun_path, path);
    f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(f->listener, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(f->listener, 4), 0);
}

static void supervisor_go(struct fixture *f)
{
    _cleanup_(freep) char *path = control_path(f);

    f->listener = close_fd(f->listener);
    f->supervisor = close_fd(f->supervisor);
    unlink(path);
}

static void turn(const struct fixture *f)
{
    assert_true(sd_event_run(plugin_event(f->plugin), TURN_USEC) >= 0);
}

/* Waits for a packet of that kind, over a new connection if there is one. */
static Bus__Control *expect(struct fixture *f, Bus__Control__BodyCase body)
{
    for (unsigned n = 0; n < LOOP_TURNS_MAX; n++) {
        Bus__Control *packet = NULL;
        int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            close_fd(f->supervisor);
            f->supervisor = fd;
        }
        if (f->supervisor >= 0 && control_receive(f->supervisor, &packet, NULL, NULL) == 0 &&
            packet) {
            if (packet->body_case == body)
                return packet;
            bus__control__free_unpacked(packet, NULL);
            continue;
        }
        turn(f);
    }
    fail_msg("waited in vain for a packet of kind %d", (int)body);
    return NULL;
}

static bool expect_hello_ready(struct fixture *f)
{
    Bus__Control *packet = expect(f, BUS__CONTROL__BODY_HELLO);
    bool ready = packet->hello->ready;

    assert_string_equal(packet->hello->name, "tested");
    assert_int_equal(packet->hello->generation, 4);
    bus__control__free_unpacked(packet, NULL);
    return ready;
}

/* @role NULL: this process is not among them. */
static void send_roster(const struct fixture *f, const char *role)
{
    Bus__RosterEntry entry = BUS__ROSTER_ENTRY__INIT, *entries[] = { &entry };
    Bus__Roster roster = BUS__ROSTER__INIT;
    Bus__Control packet = CONTROL_INIT(ROSTER, roster, &roster);

    entry.pid = (uint64_t)getpid();
    entry.role = (char *)role;
    roster.entries = entries;
    roster.n_entries = role ? 1 : 0;
    assert_int_equal(control_send(f->supervisor, &packet, NULL, 0), 0);
}

static void send_drain(const struct fixture *f)
{
    Bus__Drain drain = BUS__DRAIN__INIT;
    Bus__Control packet = CONTROL_INIT(DRAIN, drain, &drain);

    drain.deadline_usec = 60 * 1000 * 1000;
    assert_int_equal(control_send(f->supervisor, &packet, NULL, 0), 0);
}

static uint64_t who(const struct fixture *f)
{
    return plugin_peer_of(f->plugin, f->pair[0]);
}

static int setup(void **state)
{
    struct fixture *f = xnew(struct fixture);
    static char name[] = "tested";
    char *argv[] = { name, NULL };

    strcpy(f->dir, "/tmp/brink-plugin-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->supervisor = -1;
    supervisor_come(f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, f->pair), 0);
    setenv("BRINK_NAME", name, true);
    setenv("BRINK_RUN_DIR", f->dir, true);
    setenv("BRINK_STATE_DIR", f->dir, true);
    setenv("BRINK_GENERATION", "4", true);
    setenv("BRINK_HEARTBEAT_USEC", "20000", true);
    setenv("BRINK_LOG_LEVEL", "error", true);
    assert_int_equal(plugin_new("tested", 1, argv, &f->plugin), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    plugin_free(f->plugin);
    supervisor_go(f);
    close(f->pair[0]);
    close(f->pair[1]);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static void test_peers_by_the_roster(void **state)
{
    struct fixture *f = *state;

    assert_false(expect_hello_ready(f));
    assert_int_equal(who(f), 0); /* nobody is known yet */
    send_roster(f, "front");
    assert_int_equal(who(f), PEER_FRONT); /* read when it is asked for */
    send_roster(f, NULL);
    assert_int_equal(who(f), PEER_OPERATOR);
}

/* A new supervisor may start a plugin before it took this one over: that is not the operator. */
static void test_unknown_peer_without_a_supervisor(void **state)
{
    struct fixture *f = *state;

    expect_hello_ready(f);
    send_roster(f, NULL);
    assert_int_equal(who(f), PEER_OPERATOR);
    supervisor_go(f);
    assert_int_equal(who(f), 0);
    supervisor_come(f);
    expect_hello_ready(f);
    assert_int_equal(who(f), 0);
    send_roster(f, "router");
    assert_int_equal(who(f), PEER_ROUTER);
    supervisor_go(f);
    assert_int_equal(who(f), PEER_ROUTER); /* whom it knew, it knows */
}

static void test_ready_is_said_again_in_a_hello(void **state)
{
    struct fixture *f = *state;

    assert_false(expect_hello_ready(f));
    plugin_ready(f->plugin);
    bus__control__free_unpacked(expect(f, BUS__CONTROL__BODY_READY), NULL);
    bus__control__free_unpacked(expect(f, BUS__CONTROL__BODY_HEARTBEAT), NULL);
    supervisor_go(f);
    supervisor_come(f);
    assert_true(expect_hello_ready(f));
}

static void on_drain(uint64_t deadline_usec, void *userdata)
{
    struct fixture *f = userdata;

    assert_int_equal(deadline_usec, 60 * 1000 * 1000);
    f->drains++;
}

static void test_drain_is_not_begun_inside_a_handler(void **state)
{
    struct fixture *f = *state;

    plugin_on_drain(f->plugin, on_drain, f);
    expect_hello_ready(f);
    send_roster(f, NULL);
    send_drain(f);
    send_drain(f);
    assert_int_equal(who(f), PEER_OPERATOR); /* reads the drain, too */
    assert_int_equal(f->drains, 0);
    for (unsigned n = 0; n < LOOP_TURNS_MAX && f->drains == 0; n++)
        turn(f);
    assert_int_equal(f->drains, 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_peers_by_the_roster),
        TEST(test_unknown_peer_without_a_supervisor),
        TEST(test_ready_is_said_again_in_a_hello),
        TEST(test_drain_is_not_begun_inside_a_handler),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
