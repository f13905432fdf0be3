/* Two ends of the bus in one process and one loop, on real sockets in a folder of the test's own. */
#include <arpa/inet.h>
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

#include "bus.h"
#include "log.h"

enum { LOOP_TURNS_MAX = 10000, POLLS = 100 /* more than the window, and than may be open */ };

struct fixture {
    char dir[32];
    sd_event *event;
    struct bus *server, *client;
    struct bus_peer *peer;
    uint64_t who;
    unsigned handled, answered, expired, announced, connected, rooms;
    uint64_t last_sequence;
    Bus__Status last_status;
    struct bus_call *kept;
    struct bus_call *polls[POLLS];
    size_t poll_count;
};

static uint64_t on_who(int64_t pid, uint32_t uid, void *userdata)
{
    struct fixture *f = userdata;

    assert_int_equal(pid, getpid());
    assert_int_equal(uid, getuid());
    return f->who;
}

static int on_append(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;
    Bus__Appended appended = BUS__APPENDED__INIT;
    Bus__Envelope answer = ENVELOPE(APPENDED, appended, &appended);

    f->handled++;
    assert_string_equal(bus_call_caller(call), "client");
    assert_int_equal(bus_call_generation(call), 7);
    f->last_sequence = in->append->sequence;
    appended.expected_sequence = in->append->sequence + 1;
    return bus_answer_with(call, &answer);
}

static int on_fetch(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;

    f->handled++;
    f->kept = bus_call_keep(call);
    return 0;
}

/* A long poll: answered by the test, the one that came first first. */
static int on_queue_peek(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;

    assert_true(f->poll_count < POLLS);
    f->polls[f->poll_count++] = bus_call_keep_poll(call);
    return 0;
}

static const struct bus_handler handlers[] = {
    { BUS__ENVELOPE__BODY_APPEND, PEER_ROUTER, on_append },
    { BUS__ENVELOPE__BODY_QUEUE_PEEK, PEER_ROUTER, on_queue_peek },
    { BUS__ENVELOPE__BODY_FETCH, PEER_ROUTER | PEER_OPERATOR, on_fetch },
    {},
};

static void on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct fixture *f = userdata;

    if (!answer) {
        f->expired++;
        return;
    }
    f->answered++;
    f->last_status = answer->status;
    if (answer->body_case == BUS__ENVELOPE__BODY_APPENDED)
        assert_int_equal(answer->appended->expected_sequence, f->answered + 1);
}

static void on_announce(const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;

    if (in)
        f->announced++;
    else
        f->connected++;
}

static void start_server(struct fixture *f)
{
    assert_int_equal(bus_new(f->event, f->dir, "store", 3, on_who, f, &f->server), 0);
    assert_int_equal(bus_listen(f->server, handlers, f), 0);
}

static int setup(void **state)
{
    struct fixture *f = xnew(struct fixture);

    strcpy(f->dir, "/tmp/brink-bus-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->who = PEER_ROUTER;
    assert_int_equal(sd_event_new(&f->event), 0);
    assert_int_equal(bus_new(f->event, f->dir, "client", 7, on_who, f, &f->client), 0);
    f->peer = bus_peer(f->client, "store");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char path[64];

    bus_free(f->client);
    bus_free(f->server);
    sd_event_unref(f->event);
    snprintf(path, sizeof(path), "%s/store.ipc", f->dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/store.pub.ipc", f->dir);
    unlink(path);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

/* Turns the loop until @done; fails when nothing happens for long. */
#define loop_until(f, done)                                                                        \
    do {                                                                                           \
        for (unsigned _n = 0; !(done); _n++) {                                                     \
            assert_true(_n < LOOP_TURNS_MAX);                                                      \
            assert_true(sd_event_run((f)->event, 10000000) > 0);                                   \
        }                                                                                          \
    } while (0)

static int send_append(struct fixture *f, uint64_t sequence, uint64_t deadline_usec)
{
    Bus__Append append = BUS__APPEND__INIT;
    Bus__Envelope request = ENVELOPE(APPEND, append, &append);

    append.sequence = sequence;
    return bus_request(f->peer, &request, deadline_usec, on_answer, f, NULL);
}

static void test_request_answered(void **state)
{
    struct fixture *f = *state;

    start_server(f);
    assert_int_equal(send_append(f, 1, BUS_FOREVER), 0);
    loop_until(f, f->answered == 1);
    assert_int_equal(f->last_status, STATUS_DONE);
    assert_int_equal(bus_peer_outstanding(f->peer), 0);
}

static void test_request_waits_for_absent_peer(void **state)
{
    struct fixture *f = *state;

    for (uint64_t i = 1; i <= 10; i++)
        assert_int_equal(send_append(f, i, BUS_FOREVER), 0);
    assert_false(bus_peer_is_up(f->peer));
    start_server(f);
    loop_until(f, f->answered == 10);
    assert_int_equal(f->handled, 10);
    assert_int_equal(f->last_sequence, 10); /* in the order of making */
}

static void test_request_resent_after_restart(void **state)
{
    struct fixture *f = *state;
    Bus__Fetch fetch = BUS__FETCH__INIT;
    Bus__Envelope request = ENVELOPE(FETCH, fetch, &fetch);

    start_server(f);
    assert_int_equal(bus_request(f->peer, &request, BUS_FOREVER, on_answer, f, NULL), 0);
    loop_until(f, f->kept);
    f->kept = bus_call_drop(f->kept); /* dies with the question unanswered */
    f->server = bus_free(f->server);
    start_server(f);
    loop_until(f, f->kept);
    assert_int_equal(f->handled, 2);
    assert_int_equal(bus_answer(TAKE_PTR(f->kept), STATUS_NOT_FOUND), 0);
    loop_until(f, f->answered == 1);
    assert_int_equal(f->last_status, STATUS_NOT_FOUND);
}

static void test_request_after_peer_died_connecting(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    start_server(f);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/store.ipc", f->dir);
    for (unsigned i = 0; i < 10; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
        close(fd);
    }
    f->client = bus_free(f->client); /* it may have been connected before */
    assert_int_equal(bus_new(f->event, f->dir, "client", 7, on_who, f, &f->client), 0);
    f->peer = bus_peer(f->client, "store");
    assert_int_equal(send_append(f, 1, BUS_FOREVER), 0);
    loop_until(f, f->answered == 1);
    assert_int_equal(f->last_status, STATUS_DONE);
}

static void test_request_deadline(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(send_append(f, 1, 20000), 0);
    loop_until(f, f->expired == 1);
    assert_int_equal(bus_peer_outstanding(f->peer), 0);
    start_server(f);
    assert_int_equal(send_append(f, 1, BUS_FOREVER), 0);
    loop_until(f, f->answered == 1);
    assert_int_equal(f->handled, 1); /* the expired one was never sent */
}

static void test_request_cancel(void **state)
{
    struct fixture *f = *state;
    struct bus_request *cancelled;
    Bus__Fetch fetch = BUS__FETCH__INIT;
    Bus__Envelope request = ENVELOPE(FETCH, fetch, &fetch);

    start_server(f);
    assert_int_equal(bus_request(f->peer, &request, BUS_FOREVER, on_answer, f, &cancelled), 0);
    loop_until(f, f->kept);
    cancelled = bus_request_cancel(cancelled);
    assert_int_equal(bus_answer(TAKE_PTR(f->kept), STATUS_DONE), 0);
    assert_int_equal(send_append(f, 1, BUS_FOREVER), 0);
    loop_until(f, f->answered == 1);
    assert_int_equal(f->last_sequence, 1);
}

static void on_room(void *userdata)
{
    struct fixture *f = userdata;

    f->rooms++;
}

static void test_window(void **state)
{
    struct fixture *f = *state;

    bus_peer_on_room(f->peer, on_room, f);
    for (uint64_t i = 1; i <= BUS_WINDOW_MAX; i++)
        assert_int_equal(send_append(f, i, BUS_FOREVER), 0);
    assert_int_equal(send_append(f, 99, BUS_FOREVER), BUS_E_BUSY);
    start_server(f);
    loop_until(f, f->answered == BUS_WINDOW_MAX);
    assert_int_equal(f->rooms, 1);
    assert_int_equal(f->last_sequence, BUS_WINDOW_MAX);
}

/* Nobody is answered then, and yet there is room. */
static void test_window_after_cancel(void **state)
{
    struct fixture *f = *state;
    struct bus_request *requests[BUS_WINDOW_MAX];
    Bus__Fetch fetch = BUS__FETCH__INIT;
    Bus__Envelope request = ENVELOPE(FETCH, fetch, &fetch);

    bus_peer_on_room(f->peer, on_room, f);
    for (size_t i = 0; i < BUS_WINDOW_MAX; i++)
        assert_int_equal(bus_request(f->peer, &request, BUS_FOREVER, on_answer, f, &requests[i]),
                         0);
    assert_int_equal(send_append(f, 1, BUS_FOREVER), BUS_E_BUSY);
    for (size_t i = 0; i < BUS_WINDOW_MAX; i++)
        bus_request_cancel(requests[i]);
    assert_int_equal(f->rooms, 0);
    loop_until(f, f->rooms == 1);
}

/* Many may wait, and work goes on beside them; after a restart all of them wait again. */
static void test_polls(void **state)
{
    struct fixture *f = *state;
    Bus__QueuePeek peek = BUS__QUEUE_PEEK__INIT;
    Bus__Envelope request = ENVELOPE(QUEUE_PEEK, queue_peek, &peek);

    start_server(f);
    for (size_t i = 0; i < POLLS; i++)
        assert_int_equal(bus_poll(f->peer, &request, on_answer, f, NULL), 0);
    loop_until(f, f->poll_count == POLLS);
    assert_int_equal(bus_peer_outstanding(f->peer), 0);
    assert_int_equal(send_append(f, 1, BUS_FOREVER), 0);
    loop_until(f, f->answered == 1);

    for (size_t i = 0; i < POLLS; i++)
        bus_call_drop(f->polls[i]);
    f->poll_count = 0;
    f->server = bus_free(f->server);
    start_server(f);
    loop_until(f, f->poll_count == POLLS);
    for (size_t i = 0; i < POLLS; i++)
        assert_int_equal(bus_answer(f->polls[i], STATUS_DONE), 0);
    loop_until(f, f->answered == 1 + POLLS);

    for (size_t i = 0; i < BUS_POLLS_MAX; i++)
        assert_int_equal(bus_poll(f->peer, &request, on_answer, f, NULL), 0);
    assert_int_equal(bus_poll(f->peer, &request, on_answer, f, NULL), BUS_E_BUSY);
}

/* A peer that connects and reads nothing, as one that was stopped. */
static int deaf_listen(const struct fixture *f)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/store.ipc", f->dir);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static int deaf_accept(const struct fixture *f, int listener)
{
    int fd = -1;

    while (fd < 0) {
        assert_true(sd_event_run(f->event, 1000) >= 0);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    }
    return fd;
}

/* What was given up stays in the queue towards a peer that does not read. When that is full, the
 * next request must not be forgotten. */
static void test_request_behind_a_full_queue(void **state)
{
    enum { LARGE = 100 * 1000, MANY = 100 };
    struct fixture *f = *state;
    Bus__Append append = BUS__APPEND__INIT;
    Bus__Envelope large = ENVELOPE(APPEND, append, &append);
    int listener = deaf_listen(f), first = deaf_accept(f, listener), second;

    loop_until(f, bus_peer_is_up(f->peer));
    append.producer = xalloc0(LARGE + 1);
    memset(append.producer, 'x', LARGE);
    for (unsigned i = 0; i < MANY; i++) {
        struct bus_request *given_up;

        assert_int_equal(bus_request(f->peer, &large, BUS_FOREVER, on_answer, f, &given_up), 0);
        bus_request_cancel(given_up);
    }
    free(append.producer);
    assert_int_equal(send_append(f, 1, BUS_FOREVER), 0);
    second = deaf_accept(f, listener); /* it dials again */
    close(first);
    close(second);
    close(listener);
    start_server(f);
    loop_until(f, f->answered == 1);
    assert_int_equal(f->handled, 1);
}

static int raw_connect(const struct fixture *f)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/store.ipc", f->dir);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* The frame of an Append that "client" would send. */
static size_t raw_append(uint8_t *frame)
{
    Bus__Append append = BUS__APPEND__INIT;
    Bus__Envelope request = ENVELOPE(APPEND, append, &append);
    uint32_t len;

    request.caller = (char *)"client";
    request.generation = 7;
    len = htonl((uint32_t)bus__envelope__get_packed_size(&request));
    memcpy(frame, &len, sizeof(len));
    return sizeof(len) + bus__envelope__pack(&request, frame + sizeof(len));
}

/* Its answers must not fill the memory: it is not read any more. */
static void test_caller_that_reads_no_answers(void **state)
{
    enum { FULL_TURNS = 100, BYTES_MAX = 64 << 20 };
    struct fixture *f = *state;
    size_t len, at = 0, sent = 0;
    uint8_t frame[256];
    unsigned full = 0;
    int fd;

    f->client = bus_free(f->client);
    start_server(f);
    fd = raw_connect(f);
    len = raw_append(frame);
    while (full < FULL_TURNS && sent < BYTES_MAX) {
        ssize_t n = send(fd, frame + at, len - at, MSG_NOSIGNAL);

        if (n > 0) {
            at = (at + (size_t)n) % len;
            sent += (size_t)n;
            full = 0;
            continue;
        }
        full++;
        assert_true(sd_event_run(f->event, 0) >= 0);
    }
    assert_int_equal(full, FULL_TURNS);
    assert_true(sent < BYTES_MAX);
    close(fd);
}

/* What the older one left unread would be done behind what the newer one says. */
static void test_newer_connection_of_a_role(void **state)
{
    struct fixture *f = *state;
    int older, newer;
    char byte;

    f->client = bus_free(f->client);
    start_server(f);
    older = raw_connect(f);
    newer = raw_connect(f);
    while (recv(older, &byte, 1, 0) < 0) {
        assert_int_equal(errno, EAGAIN);
        assert_true(sd_event_run(f->event, 1000) >= 0);
    }
    assert_int_equal(recv(newer, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
    close(older);
    close(newer);
}

static void test_request_too_large(void **state)
{
    struct fixture *f = *state;
    Bus__Append append = BUS__APPEND__INIT;
    Bus__Envelope request = ENVELOPE(APPEND, append, &append);

    append.producer = xalloc0(BUS_MESSAGE_BYTES_MAX + 1);
    memset(append.producer, 'x', BUS_MESSAGE_BYTES_MAX);
    assert_int_equal(bus_request(f->peer, &request, BUS_FOREVER, on_answer, f, NULL), -EMSGSIZE);
    free(append.producer);
}

static void test_peers_by_table(void **state)
{
    struct fixture *f = *state;

    f->who = PEER_MQTT; /* known, but not in the row of Append */
    start_server(f);
    assert_int_equal(send_append(f, 1, BUS_FOREVER), 0);
    loop_until(f, f->answered == 1);
    assert_int_equal(f->last_status, STATUS_REFUSED);
    assert_int_equal(f->handled, 0);
    assert_int_equal(bus_counters(f->server)->refused, 1);
}

static void test_unknown_body(void **state)
{
    struct fixture *f = *state;
    Bus__ClientsGet get = BUS__CLIENTS_GET__INIT;
    Bus__Envelope request = ENVELOPE(CLIENTS_GET, clients_get, &get);

    start_server(f);
    assert_int_equal(bus_request(f->peer, &request, BUS_FOREVER, on_answer, f, NULL), 0);
    loop_until(f, f->answered == 1);
    assert_int_equal(f->last_status, STATUS_UNSUPPORTED);
}

static void test_stranger_is_cut_off(void **state)
{
    struct fixture *f = *state;

    f->who = 0;
    start_server(f);
    assert_int_equal(send_append(f, 1, BUS_FOREVER), 0);
    loop_until(f, bus_counters(f->server)->refused >= 2); /* it dials again, and is refused again */
    assert_int_equal(f->handled + f->answered, 0);
    f->who = PEER_ROUTER;
    loop_until(f, f->answered == 1);
}

static void test_announcements(void **state)
{
    struct fixture *f = *state;
    Bus__ScopeChanged changed = BUS__SCOPE_CHANGED__INIT;
    Bus__Envelope announcement = ENVELOPE(SCOPE_CHANGED, scope_changed, &changed);

    assert_int_equal(bus_subscribe(f->client, "store", on_announce, f), 0);
    start_server(f);
    loop_until(f, f->connected == 1);
    while (f->announced ==
           0) { /* the publisher may see the subscriber a moment after the subscriber sees it */
        assert_int_equal(bus_announce(f->server, &announcement), 0);
        assert_true(sd_event_run(f->event, 1000) >= 0);
    }
    f->server = bus_free(f->server);
    start_server(f);
    loop_until(f, f->connected == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_request_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request_waits_for_absent_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request_resent_after_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request_after_peer_died_connecting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_window, setup, teardown),
        cmocka_unit_test_setup_teardown(test_window_after_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_polls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request_behind_a_full_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_caller_that_reads_no_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer_connection_of_a_role, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_peers_by_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_body, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stranger_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_announcements, setup, teardown),
    };

    log_init("test-bus");
    log_set_level(LOG_ERR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
