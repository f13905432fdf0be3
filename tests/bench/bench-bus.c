/*
 * What one hop on the bus costs: two processes, the role "echo" in one and its caller in the other.
 * Round trips one at a time, and with a full window; small and large bodies. A Publish carries the
 * bytes, as on the message path; it comes back.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bus.h"
#include "histogram.h"
#include "mem.h"

enum { GENERATION = 1 };

static const struct measure {
    const char *name;
    size_t bytes;
    unsigned window;
    unsigned rounds;
} measures[] = {
    { "round trip", 100, 1, 20000 },
    { "round trip", 64 << 10, 1, 10000 },
    { "window full", 100, BUS_WINDOW_MAX, 200000 },
    { "window full", 64 << 10, BUS_WINDOW_MAX, 20000 },
};

static uint64_t on_who(int64_t pid, uint32_t uid, void *userdata)
{
    return PEER_OTHER;
}

/* ---- echo ---- */

static int echo_on_publish(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    Bus__Envelope answer = ENVELOPE(PUBLISH, publish, in->publish);

    return bus_answer_with(call, &answer);
}

static const struct bus_handler echo_handlers[] = {
    { BUS__ENVELOPE__BODY_PUBLISH, PEER_OTHER, echo_on_publish },
    {},
};

static _Noreturn void echo_run(const char *dir)
{
    struct bus *bus = NULL;
    sd_event *event = NULL;
    int r;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    r = sd_event_new(&event);
    if (r >= 0)
        r = bus_new(event, dir, "echo", GENERATION, on_who, NULL, &bus);
    if (r >= 0)
        r = bus_listen(bus, echo_handlers, NULL);
    if (r >= 0)
        r = sd_event_loop(event);
    fprintf(stderr, "echo: %s\n", strerror(-r));
    _exit(EXIT_FAILURE);
}

/* ---- its caller ---- */

struct caller {
    sd_event *event;
    struct bus_peer *echo;
    const struct measure *measure;
    Bus__PublishItem item;
    Bus__Publish publish;
    uint64_t sent_ns[BUS_WINDOW_MAX]; /* answers come in the order of requests */
    unsigned sent, answered;
    struct histogram latency;
};

static void caller_on_answer(const Bus__Envelope *answer, void *userdata);

static void caller_send(struct caller *c)
{
    Bus__Envelope request = ENVELOPE(PUBLISH, publish, &c->publish);
    int r;

    c->sent_ns[c->sent % BUS_WINDOW_MAX] = bench_now_ns();
    r = bus_request(c->echo, &request, BUS_FOREVER, caller_on_answer, c, NULL);
    if (r != 0) {
        fprintf(stderr, "brink-bench-bus: request: %s\n", strerror(r < 0 ? -r : EBUSY));
        exit(EXIT_FAILURE);
    }
    c->sent++;
}

static void caller_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct caller *c = userdata;

    if (answer->status != STATUS_DONE) {
        fprintf(stderr, "brink-bench-bus: answer: %s\n", answer->error);
        exit(EXIT_FAILURE);
    }
    histogram_add(&c->latency, bench_now_ns() - c->sent_ns[c->answered++ % BUS_WINDOW_MAX]);
    if (c->sent < c->measure->rounds)
        caller_send(c);
    else if (c->answered == c->sent)
        sd_event_exit(c->event, 0);
}

static void caller_fill(struct caller *c, void *body)
{
    static Bus__PublishItem *items[1];

    bus__publish_item__init(&c->item);
    bus__publish__init(&c->publish);
    c->item.message.data = body;
    c->item.message.len = c->measure->bytes;
    items[0] = &c->item;
    c->publish.items = items;
    c->publish.n_items = 1;
}

static int caller_run(const char *dir, const struct measure *measure)
{
    _cleanup_(freep) struct caller *c = xnew(struct caller);
    _cleanup_(freep) void *body = xalloc0(measure->bytes);
    struct bus *bus = NULL;
    uint64_t begin;
    double elapsed;
    int r;

    c->measure = measure;
    caller_fill(c, body);
    r = sd_event_new(&c->event);
    if (r >= 0)
        r = bus_new(c->event, dir, "caller", GENERATION, on_who, NULL, &bus);
    if (r < 0)
        return r;
    c->echo = bus_peer(bus, "echo");
    while (r >= 0 && !bus_peer_is_up(c->echo))
        r = sd_event_run(c->event, UINT64_MAX);
    begin = bench_now_ns();
    for (unsigned i = 0; i < measure->window; i++)
        caller_send(c);
    if (r >= 0)
        r = sd_event_loop(c->event);
    elapsed = (double)(bench_now_ns() - begin) / 1e9;
    bus_free(bus);
    sd_event_unref(c->event);
    if (r < 0)
        return r;
    printf("%-11s %6zu B  window %2u: %8.0f/s  %8.1f MB/s each way  p50 %7.1f us  p99 %7.1f us\n",
           measure->name, measure->bytes, measure->window, measure->rounds / elapsed,
           (double)measure->bytes * measure->rounds / elapsed / 1e6,
           (double)histogram_at(&c->latency, 0.5) / 1e3,
           (double)histogram_at(&c->latency, 0.99) / 1e3);
    return 0;
}

/* In a process of its own. */
static int in_child(const char *dir, const struct measure *measure)
{
    int status;
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (pid == 0) {
        int r = caller_run(dir, measure);

        if (r < 0)
            fprintf(stderr, "brink-bench-bus: %s\n", strerror(-r));
        exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
    }
    if (waitpid(pid, &status, 0) < 0)
        return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
}

static void remove_file(const char *dir, const char *name)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", dir, name);

    (void)unlink(path);
}

int main(void)
{
    char dir[] = "/tmp/brink-bench-bus-XXXXXX";
    int r = 0;
    pid_t echo;

    if (!mkdtemp(dir) || (echo = fork()) < 0) {
        perror("brink-bench-bus");
        return EXIT_FAILURE;
    }
    if (echo == 0)
        echo_run(dir);
    for (size_t i = 0; r == 0 && i < ELEMENTSOF(measures); i++)
        r = in_child(dir, &measures[i]);
    kill(echo, SIGKILL);
    waitpid(echo, NULL, 0);
    remove_file(dir, "echo.ipc");
    remove_file(dir, "echo.pub.ipc");
    rmdir(dir);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
