/*
 * The store as a process: spawned with the environment that brinkd gives it, asked over the real bus, killed and started
 * again. The test plays the supervisor, who says in its roster whom the test plays: whoever connects is that.
 */
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bus.h"
#include "control.h"
#include "log.h"

enum { WAIT_MSEC = 30000 };
#define Q "$upstream"

/* A role that the test plays: its own connection. */
struct player {
    struct bus *bus;
    struct bus_peer *store;
};

struct fixture {
    char dir[64];
    sd_event *event;
    int listen_fd, control_fd, config_fd;
    pid_t pid;
    struct player router, upstream, operator_;
};

static int path_of(const struct fixture *f, const char *name, char *ret, size_t size)
{
    return snprintf(ret, size, "%s/%s", f->dir, name);
}

static void make_folders(struct fixture *f)
{
    static const char *const names[] = { "bus", "state" };
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char path[128];

    strcpy(f->dir, "/tmp/brink-store-bus-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    for (size_t i = 0; i < ELEMENTSOF(names); i++) {
        path_of(f, names[i], path, sizeof(path));
        assert_int_equal(mkdir(path, 0700), 0);
    }
    path_of(f, "control.sock", a.sun_path, sizeof(a.sun_path));
    f->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_true(f->listen_fd >= 0);
    assert_int_equal(bind(f->listen_fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(f->listen_fd, 4), 0);
}

static void make_config(struct fixture *f)
{
    static const char text[] = "role: store\nexec: brink-store\nsettings:\n  max_bytes: 64MiB\n";

    f->config_fd = memfd_create("store.yaml", MFD_CLOEXEC);
    assert_true(f->config_fd >= 0);
    assert_int_equal(write(f->config_fd, text, strlen(text)), strlen(text));
}

/* ---- The supervisor ---- */

static void wait_readable(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    assert_int_equal(poll(&p, 1, WAIT_MSEC), 1);
}

static void expect_packet(struct fixture *f, Bus__Control__BodyCase body)
{
    for (bool found = false; !found;) {
        unsigned fd_count = CONTROL_FDS_MAX;
        int fds[CONTROL_FDS_MAX];
        Bus__Control *packet;

        wait_readable(f->control_fd);
        assert_int_equal(control_receive(f->control_fd, &packet, fds, &fd_count), 0);
        assert_non_null(packet);
        found = packet->body_case == body;
        bus__control__free_unpacked(packet, NULL);
    }
}

/* From here, whoever connects from this process is @role. */
static void send_roster(struct fixture *f, const char *role)
{
    Bus__RosterEntry entry = BUS__ROSTER_ENTRY__INIT, *entries[] = { &entry };
    Bus__Roster roster = BUS__ROSTER__INIT;
    Bus__Control packet = CONTROL_INIT(ROSTER, roster, &roster);

    entry.pid = (uint64_t)getpid();
    entry.role = (char *)role;
    entry.generation = 1;
    roster.n_entries = role ? 1 : 0;
    roster.entries = entries;
    assert_int_equal(control_send(f->control_fd, &packet, NULL, 0), 0);
}

/* In the child: never returns. */
static void become_store(const struct fixture *f)
{
    char state[128], config_fd[16];
    int fd = dup(f->config_fd); /* without close-on-exec, and from the beginning */

    lseek(fd, 0, SEEK_SET);
    path_of(f, "state", state, sizeof(state));
    snprintf(config_fd, sizeof(config_fd), "%d", fd);
    setenv("BRINK_NAME", "store", 1);
    setenv("BRINK_ROLE", "store", 1);
    setenv("BRINK_RUN_DIR", f->dir, 1);
    setenv("BRINK_STATE_DIR", state, 1);
    setenv("BRINK_CONFIG_FD", config_fd, 1);
    setenv("BRINK_CONFIG_NAME", "store.yaml", 1);
    setenv("BRINK_LOG_LEVEL", "warning", 1);
    execl(BRINK_STORE, BRINK_STORE, NULL);
    _exit(127);
}

static void start_store(struct fixture *f, const char *role)
{
    f->pid = fork();
    assert_true(f->pid >= 0);
    if (f->pid == 0)
        become_store(f);
    wait_readable(f->listen_fd);
    f->control_fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(f->control_fd >= 0);
    expect_packet(f, BUS__CONTROL__BODY_HELLO);
    send_roster(f, role);
    expect_packet(f, BUS__CONTROL__BODY_READY);
}

static int stop_store(struct fixture *f, int signal)
{
    int status;

    if (signal)
        kill(f->pid, signal);
    assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
    f->pid = 0;
    f->control_fd = close_fd(f->control_fd);
    return status;
}

/* ---- Asking ---- */

/* One request, and its answer. */
struct ask {
    bool done;
    Bus__Envelope *answer;
};

static uint64_t store_who(int64_t pid, uint32_t uid, void *userdata)
{
    return PEER_STORE;
}

static void ask_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct ask *ask = userdata;
    _cleanup_(freep) uint8_t *packed = NULL;
    size_t len;

    assert_non_null(answer);
    len = bus__envelope__get_packed_size(answer);
    packed = xalloc0(len);
    bus__envelope__pack(answer, packed);
    ask->answer = bus__envelope__unpack(NULL, len, packed);
    ask->done = true;
}

static void ask_begin(struct player *p, struct ask *ask, Bus__Envelope *request)
{
    *ask = (struct ask){};
    assert_int_equal(bus_request(p->store, request, BUS_FOREVER, ask_on_answer, ask, NULL), 0);
}

static Bus__Status ask_wait(struct fixture *f, struct ask *ask)
{
    while (!ask->done)
        assert_true(sd_event_run(f->event, WAIT_MSEC * UINT64_C(1000)) > 0);
    return ask->answer->status;
}

static void ask_done(struct ask *ask)
{
    if (ask->answer)
        bus__envelope__free_unpacked(ask->answer, NULL);
    *ask = (struct ask){};
}

static Bus__Status ask_for(struct fixture *f, struct player *p, struct ask *ask,
                           Bus__Envelope *request)
{
    ask_begin(p, ask, request);
    return ask_wait(f, ask);
}

/* Connected when it returns, and the store knows it as that from then on. */
static void play(struct fixture *f, struct player *p, const char *role)
{
    _cleanup_(freep) char *bus_dir = xasprintf("%s/bus", f->dir);
    Bus__QueuesGet get = BUS__QUEUES_GET__INIT;
    Bus__Envelope request = ENVELOPE(QUEUES_GET, queues_get, &get);
    struct ask ask;

    send_roster(f, role);
    assert_int_equal(
        bus_new(f->event, bus_dir, role ? role : "brinkctl", 1, store_who, NULL, &p->bus), 0);
    p->store = bus_peer(p->bus, "store");
    assert_int_equal(ask_for(f, p, &ask, &request), STATUS_DONE);
    ask_done(&ask);
}

static void play_all(struct fixture *f)
{
    play(f, &f->router, "router");
    play(f, &f->upstream, "upstream");
    play(f, &f->operator_, NULL);
}

static void leave_all(struct fixture *f)
{
    f->router.bus = bus_free(f->router.bus);
    f->upstream.bus = bus_free(f->upstream.bus);
    f->operator_.bus = bus_free(f->operator_.bus);
}

static void append_begin(struct player *p, struct ask *ask, uint64_t sequence, const char *text)
{
    Bus__AppendTarget target = BUS__APPEND_TARGET__INIT, *targets[] = { &target };
    Bus__AppendItem item = BUS__APPEND_ITEM__INIT, *items[] = { &item };
    Bus__Append append = BUS__APPEND__INIT;
    Bus__Envelope request = ENVELOPE(APPEND, append, &append);

    target.queue = (char *)Q;
    target.partition = (char *)"d";
    target.ttl_sec = -1;
    item.n_targets = 1;
    item.targets = targets;
    item.message = (ProtobufCBinaryData){ strlen(text), (uint8_t *)text };
    append.producer = (char *)"listener.1";
    append.sequence = sequence;
    append.n_items = 1;
    append.items = items;
    ask_begin(p, ask, &request);
}

static Bus__Status append(struct fixture *f, struct player *p, uint64_t sequence, const char *text)
{
    struct ask ask;
    Bus__Status status;

    append_begin(p, &ask, sequence, text);
    status = ask_wait(f, &ask);
    ask_done(&ask);
    return status;
}

static void fetch_begin(struct player *p, struct ask *ask, uint64_t lease, uint64_t sequence,
                        uint32_t wait_ms)
{
    Bus__Fetch fetch = BUS__FETCH__INIT;
    Bus__Envelope request = ENVELOPE(FETCH, fetch, &fetch);

    fetch.queue = (char *)Q;
    fetch.lease = lease;
    fetch.sequence = sequence;
    fetch.wait_ms = wait_ms;
    ask_begin(p, ask, &request);
}

/* @want: "a1 b2", message and position of each. */
static void expect_items(struct fixture *f, struct ask *ask, const char *want)
{
    char text[256] = "";
    size_t len = 0;

    assert_int_equal(ask_wait(f, ask), STATUS_DONE);
    assert_int_equal(ask->answer->body_case, BUS__ENVELOPE__BODY_FETCHED);
    for (size_t i = 0; i < ask->answer->fetched->n_items; i++) {
        const Bus__FetchedItem *item = ask->answer->fetched->items[i];

        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%.*s%lu", len ? " " : "",
                                (int)item->message.len, (const char *)item->message.data,
                                (unsigned long)item->position);
    }
    assert_string_equal(text, want);
    ask_done(ask);
}

static void expect_fetch(struct fixture *f, uint64_t lease, uint64_t sequence, const char *want)
{
    struct ask ask;

    fetch_begin(&f->upstream, &ask, lease, sequence, 0);
    expect_items(f, &ask, want);
}

static Bus__Status ack(struct fixture *f, struct player *p, uint64_t first, uint64_t last)
{
    Bus__AckRange range = BUS__ACK_RANGE__INIT, *ranges[] = { &range };
    Bus__Ack in = BUS__ACK__INIT;
    Bus__Envelope request = ENVELOPE(ACK, ack, &in);
    Bus__Status status;
    struct ask ask;

    range.partition = (char *)"d";
    range.first = first;
    range.last = last;
    range.outcome = BUS__OUTCOME__OUTCOME_DELIVERED;
    in.queue = (char *)Q;
    in.lease = 1;
    in.n_ranges = 1;
    in.ranges = ranges;
    status = ask_for(f, p, &ask, &request);
    ask_done(&ask);
    return status;
}

static Bus__Status drop(struct fixture *f, struct player *p, uint64_t want)
{
    Bus__QueueDrop in = BUS__QUEUE_DROP__INIT;
    Bus__Envelope request = ENVELOPE(QUEUE_DROP, queue_drop, &in);
    Bus__Status status;
    struct ask ask;

    in.queue = (char *)Q;
    status = ask_for(f, p, &ask, &request);
    if (status == STATUS_DONE)
        assert_int_equal(ask.answer->queue_dropped->dropped, want);
    ask_done(&ask);
    return status;
}

static void expect_ledger(struct fixture *f, uint64_t accepted, uint64_t delivered,
                          uint64_t dropped, uint64_t depth)
{
    Bus__QueuesGet get = BUS__QUEUES_GET__INIT;
    Bus__Envelope request = ENVELOPE(QUEUES_GET, queues_get, &get);
    const Bus__QueueStatus *q;
    struct ask ask;

    assert_int_equal(ask_for(f, &f->operator_, &ask, &request), STATUS_DONE);
    assert_int_equal(ask.answer->queues->n_queues, 1);
    q = ask.answer->queues->queues[0];
    assert_int_equal(q->accepted, accepted);
    assert_int_equal(q->delivered, delivered);
    assert_int_equal(q->dropped, dropped);
    assert_int_equal(q->depth, depth);
    assert_int_equal(q->n_priorities, 1);
    assert_int_equal(q->priorities[0]->depth, depth);
    ask_done(&ask);
}

/* ---- Tests ---- */

static int set_up(void **state)
{
    struct fixture *f = xnew(struct fixture);

    make_folders(f);
    make_config(f);
    assert_int_equal(sd_event_new(&f->event), 0);
    start_store(f, NULL);
    play_all(f);
    *state = f;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    return remove(path);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    leave_all(f);
    if (f->pid > 0)
        stop_store(f, SIGKILL);
    sd_event_unref(f->event);
    close_fd(f->listen_fd);
    close_fd(f->config_fd);
    nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

static void kill_and_start(struct fixture *f)
{
    assert_true(WIFSIGNALED(stop_store(f, SIGKILL)));
    leave_all(f);
    start_store(f, NULL);
    play_all(f);
}

static void test_append_fetch_ack(void **state)
{
    struct fixture *f = *state;
    struct ask poll;

    assert_int_equal(append(f, &f->router, 1, "a"), STATUS_DONE);
    assert_int_equal(append(f, &f->router, 3, "c"), STATUS_OUT_OF_ORDER);
    assert_int_equal(append(f, &f->router, 2, "b"), STATUS_DONE);
    expect_fetch(f, 1, 1, "a1 b2");
    fetch_begin(&f->upstream, &poll, 1, 2, WAIT_MSEC);
    assert_int_equal(append(f, &f->router, 3, "c"), STATUS_DONE);
    expect_items(f, &poll, "c3");
    assert_int_equal(ack(f, &f->upstream, 1, 2), STATUS_DONE);
    expect_ledger(f, 3, 2, 0, 1);
}

static void test_who_may_what(void **state)
{
    struct fixture *f = *state;
    struct ask ask;

    assert_int_equal(append(f, &f->upstream, 1, "a"), STATUS_REFUSED);
    assert_int_equal(append(f, &f->operator_, 1, "a"), STATUS_REFUSED);
    assert_int_equal(append(f, &f->router, 1, "a"), STATUS_DONE);
    fetch_begin(&f->router, &ask, 1, 1, 0);
    assert_int_equal(ask_wait(f, &ask), STATUS_REFUSED);
    ask_done(&ask);
    assert_int_equal(ack(f, &f->operator_, 1, 1), STATUS_REFUSED);
    assert_int_equal(drop(f, &f->router, 0), STATUS_REFUSED);
    assert_int_equal(drop(f, &f->operator_, 1), STATUS_DONE);
    expect_ledger(f, 1, 0, 1, 0);
}

/* What was answered is there; what is sent again is done once; acks of before count. */
static void test_kill(void **state)
{
    struct fixture *f = *state;

    for (uint64_t n = 1; n <= 3; n++)
        assert_int_equal(append(f, &f->router, n, "x"), STATUS_DONE);
    expect_fetch(f, 1, 1, "x1 x2 x3");
    assert_int_equal(ack(f, &f->upstream, 1, 1), STATUS_DONE);
    kill_and_start(f);
    assert_int_equal(append(f, &f->router, 3, "x"), STATUS_DONE);
    assert_int_equal(append(f, &f->router, 4, "y"), STATUS_DONE);
    assert_int_equal(ack(f, &f->upstream, 3, 3), STATUS_DONE);
    expect_fetch(f, 1, 2, "x2 y4");
    expect_ledger(f, 4, 2, 0, 2);
}

/* Killed with a request under way: the bus sends it to the next one, which does it once. */
static void test_kill_under_way(void **state)
{
    struct fixture *f = *state;
    struct ask asks[8];

    for (uint64_t n = 0; n < ELEMENTSOF(asks); n++)
        append_begin(&f->router, &asks[n], n + 1, "x");
    assert_true(sd_event_run(f->event, WAIT_MSEC * UINT64_C(1000)) > 0);
    stop_store(f, SIGKILL);
    start_store(f, "router"); /* who dials again is the router */
    for (uint64_t n = 0; n < ELEMENTSOF(asks); n++) {
        Bus__Status status = ask_wait(f, &asks[n]);

        assert_true(status == STATUS_DONE || status == STATUS_OUT_OF_ORDER);
        ask_done(&asks[n]);
    }
    for (uint64_t n = 0; n < ELEMENTSOF(asks); n++)
        assert_int_equal(append(f, &f->router, n + 1, "x"), STATUS_DONE);
    leave_all(f);
    play_all(f);
    expect_ledger(f, ELEMENTSOF(asks), 0, 0, ELEMENTSOF(asks));
    expect_fetch(f, 1, 1, "x1 x2 x3 x4 x5 x6 x7 x8");
}

static void test_drain(void **state)
{
    struct fixture *f = *state;
    Bus__Drain order = BUS__DRAIN__INIT;
    Bus__Control packet = CONTROL_INIT(DRAIN, drain, &order);
    int status;

    assert_int_equal(append(f, &f->router, 1, "a"), STATUS_DONE);
    order.deadline_usec = WAIT_MSEC * UINT64_C(1000);
    assert_int_equal(control_send(f->control_fd, &packet, NULL, 0), 0);
    status = stop_store(f, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    leave_all(f);
    start_store(f, NULL);
    play_all(f);
    expect_fetch(f, 1, 1, "a1");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_append_fetch_ack), TEST(test_who_may_what), TEST(test_kill),
        TEST(test_kill_under_way),   TEST(test_drain),
    };

    log_set_level(LOG_ERR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
