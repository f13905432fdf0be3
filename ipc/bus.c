/*
 * The only file that knows nng. Raw rep0 to serve, one raw req0 a peer to call, pub0/sub0 for announcements.
 *
 * What may be lost: answers whose caller hangs up, announcements. What may not: a request, until its deadline. It is kept
 * packed until its answer comes. When the connection to a peer breaks, its nng socket is thrown away with all it had
 * queued, and on the new one every open request is sent again in the order in which they were made.
 *
 * nng's threads run one function of ours, which counts and writes to an eventfd.
 */
#include "bus.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/pubsub0/sub.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "arena.h"
#include "log.h"

enum {
    BUS_TURN_MAX = 64, /* messages taken from one socket in one turn: others must not starve */
    REDIAL_MIN_MS = 20,
    REDIAL_MAX_MS = 60,
    BODY_CASES = 128,
    CALLER_CACHE = 64,
    HEADER_MAX = 16, /* pipe id and request id; our callers add no more hops */
};

/* What is known of a connection into our service socket. */
struct caller {
    uint32_t pipe;
    uint64_t peer; /* 0: unused */
};

struct bus {
    sd_event *event;
    char *dir, *role;
    uint64_t generation;
    bus_who_fn *who;
    void *who_userdata;
    struct arena *arena;
    uint64_t next_id;
    struct bus_counters counters;

    nng_socket service, announcer;
    bool listening;
    sd_event_source *service_source;
    const struct bus_handler *handlers[BODY_CASES];
    void *handlers_userdata;
    struct caller callers[CALLER_CACHE];
    unsigned caller_next;
    struct bus_call *free_calls;

    int wake_fd; /* nng's threads tell of connections that came or went */
    sd_event_source *wake_source, *deadline_source;
    uint64_t deadline_armed;

    struct bus_peer **peers;
    size_t peer_count, peer_capacity;
    struct bus_subscription **subscriptions;
    size_t subscription_count, subscription_capacity;
    struct log_limit refused_limit;
};

struct bus_request {
    struct bus_peer *peer;
    struct bus_request *prev, *next; /* in the order of making */
    uint64_t id, deadline;           /* CLOCK_MONOTONIC, or BUS_FOREVER */
    nng_msg *packed;                 /* without header */
    bus_answer_fn *on_answer;
    void *userdata;
};

/* A dialled socket: that of a peer, or of a subscription. */
struct line {
    struct bus *bus;
    char *url;
    nng_socket socket;
    bool open, up;
    sd_event_source *source;
    atomic_uint added, removed; /* counted by nng's threads */
};

struct bus_peer {
    struct bus *bus;
    char *role;
    struct line line;
    struct bus_request *first, *last;
    unsigned outstanding;
    bool was_full;
    void (*on_room)(void *userdata);
    void *room_userdata;
};

struct bus_subscription {
    struct bus *bus;
    struct line line;
    bus_announce_fn *fn;
    void *userdata;
};

struct bus_call {
    struct bus *bus;
    struct bus_call *next_free;
    uint64_t id, generation, peer;
    uint32_t pipe;
    bool consumed, kept;
    size_t header_len;
    uint8_t header[HEADER_MAX];
    char caller[32];
};

/*
 * Stands in front of libc's for the whole process, and so for nng. When the other end is gone before the handshake (it was
 * killed just then), nng 1.5 gets EPIPE from its first send, makes NNG_ECLOSED of it, and takes that for its own listener or
 * dialer having been closed: it never accepts or dials again. After ECONNRESET it goes on.
 */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t n = syscall(SYS_sendmsg, fd, message, flags);

    if (n < 0 && errno == EPIPE)
        errno = ECONNRESET;
    return n;
}

static uint64_t monotonic_usec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* nng's error numbers end here. */
static int bus_error(int r)
{
    static const struct {
        int nng, error;
    } map[] = {
        { NNG_ENOMEM, ENOMEM },
        { NNG_EINVAL, EINVAL },
        { NNG_EADDRINUSE, EADDRINUSE },
        { NNG_EPERM, EPERM },
        { NNG_EMSGSIZE, EMSGSIZE },
        { NNG_EAGAIN, EAGAIN },
        { NNG_ECLOSED, EBADF },
        { NNG_ENOENT, ENOENT },
        { NNG_EADDRINVAL, EINVAL },
        { NNG_ENOFILES, EMFILE },
        { NNG_ECONNREFUSED, ECONNREFUSED },
    };

    if (r & NNG_ESYSERR)
        return -(r & ~NNG_ESYSERR);
    for (size_t i = 0; i < ELEMENTSOF(map); i++)
        if (map[i].nng == r)
            return -map[i].error;
    return -EIO;
}

static int socket_tune(nng_socket socket, int buffer)
{
    int r;

    r = nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, BUS_MESSAGE_BYTES_MAX + 4096);
    if (r == 0 && buffer > 0)
        r = nng_socket_set_int(socket, NNG_OPT_SENDBUF, buffer);
    if (r == 0 && buffer > 0)
        r = nng_socket_set_int(socket, NNG_OPT_RECVBUF, buffer);
    return r;
}

static int add_readable(struct bus *bus, nng_socket socket, sd_event_io_handler_t fn,
                        void *userdata, sd_event_source **ret)
{
    int fd, r;

    r = nng_socket_get_int(socket, NNG_OPT_RECVFD, &fd);
    if (r != 0)
        return bus_error(r);
    r = sd_event_add_io(bus->event, ret, fd, EPOLLIN, fn, userdata);
    if (r < 0)
        return r;
    r = sd_event_source_set_exit_on_failure(*ret, true);
    return r < 0 ? r : 0;
}

/* ---- packing ---- */

static int pack(const Bus__Envelope *envelope, nng_msg **ret)
{
    size_t size = bus__envelope__get_packed_size(envelope);
    nng_msg *msg = NULL;
    int r;

    if (size > BUS_MESSAGE_BYTES_MAX)
        return -EMSGSIZE;
    r = nng_msg_alloc(&msg, size);
    if (r != 0)
        return bus_error(r);
    bus__envelope__pack(envelope, nng_msg_body(msg));
    *ret = msg;
    return 0;
}

static Bus__Envelope *unpack(struct bus *bus, nng_msg *msg)
{
    return bus__envelope__unpack(arena_allocator(bus->arena), nng_msg_len(msg), nng_msg_body(msg));
}

/* ---- dialled lines ---- */

static void bus_wake(struct bus *bus)
{
    uint64_t one = 1;
    ssize_t n = write(bus->wake_fd, &one, sizeof(one));

    (void)n; /* the counter is full: it is readable, which is all that matters */
}

/* In a thread of nng. */
static void line_on_pipe(nng_pipe pipe, nng_pipe_ev event, void *userdata)
{
    struct line *line = userdata;

    atomic_fetch_add(event == NNG_PIPE_EV_ADD_POST ? &line->added : &line->removed, 1);
    bus_wake(line->bus);
}

static void line_close(struct line *line)
{
    line->source = sd_event_source_disable_unref(line->source);
    if (line->open) {
        nng_pipe_notify(line->socket, NNG_PIPE_EV_ADD_POST, NULL, NULL);
        nng_pipe_notify(line->socket, NNG_PIPE_EV_REM_POST, NULL, NULL);
        nng_close(line->socket);
    }
    line->open = line->up = false;
}

static int line_open(struct line *line, bool subscriber, sd_event_io_handler_t on_readable,
                     void *userdata)
{
    nng_dialer dialer;
    int r;

    atomic_store(&line->added, 0);
    atomic_store(&line->removed, 0);
    r = subscriber ? nng_sub0_open(&line->socket) : nng_req0_open_raw(&line->socket);
    if (r != 0)
        return bus_error(r);
    line->open = true;
    r = socket_tune(line->socket, subscriber ? 0 : BUS_WINDOW_MAX * 2);
    if (r == 0 && subscriber)
        r = nng_socket_set(line->socket, NNG_OPT_SUB_SUBSCRIBE, "", 0);
    if (r == 0)
        r = nng_pipe_notify(line->socket, NNG_PIPE_EV_ADD_POST, line_on_pipe, line);
    if (r == 0)
        r = nng_pipe_notify(line->socket, NNG_PIPE_EV_REM_POST, line_on_pipe, line);
    if (r == 0)
        r = nng_dialer_create(&dialer, line->socket, line->url);
    if (r == 0)
        r = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMINT, REDIAL_MIN_MS);
    if (r == 0)
        r = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMAXT, REDIAL_MAX_MS);
    if (r == 0)
        r = nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
    if (r != 0)
        return bus_error(r);
    return add_readable(line->bus, line->socket, on_readable, userdata, &line->source);
}

/* ---- requests ---- */

static void request_unlink(struct bus_request *request)
{
    struct bus_peer *peer = request->peer;

    *(request->prev ? &request->prev->next : &peer->first) = request->next;
    *(request->next ? &request->next->prev : &peer->last) = request->prev;
    peer->outstanding--;
}

static struct bus_request *request_free(struct bus_request *request)
{
    request_unlink(request);
    nng_msg_free(request->packed);
    free(request);
    return NULL;
}

struct bus_request *bus_request_cancel(struct bus_request *request)
{
    if (!request)
        return NULL;
    if (request->peer->was_full)
        bus_wake(request->peer->bus); /* who cancels does not expect to be called from in here */
    return request_free(request);
}

static int request_send(struct bus_request *request)
{
    nng_msg *msg = NULL;
    int r;

    r = nng_msg_dup(&msg, request->packed);
    if (r != 0)
        return bus_error(r);
    r = nng_msg_header_append_u32(msg, 0x80000000u | (uint32_t)(request->id & 0x7fffffffu));
    if (r == 0)
        r = nng_sendmsg(request->peer->line.socket, msg, NNG_FLAG_NONBLOCK);
    if (r != 0) {
        nng_msg_free(msg);
        return bus_error(r);
    }
    request->peer->bus->counters.bytes_sent += nng_msg_len(request->packed);
    return 0;
}

static void deadline_arm(struct bus *bus, uint64_t deadline)
{
    if (deadline >= bus->deadline_armed)
        return;
    bus->deadline_armed = deadline;
    sd_event_source_set_time(bus->deadline_source, deadline);
    sd_event_source_set_enabled(bus->deadline_source, SD_EVENT_ONESHOT);
}

static void peer_tell_room(struct bus_peer *peer)
{
    if (!peer->was_full || peer->outstanding >= BUS_WINDOW_MAX)
        return;
    peer->was_full = false;
    if (peer->on_room)
        peer->on_room(peer->room_userdata);
}

/* The answer, or NULL: the request is gone before its owner hears, so the owner may make the next one. */
static void request_finish(struct bus_request *request, const Bus__Envelope *answer)
{
    struct bus_peer *peer = request->peer;
    bus_answer_fn *on_answer = request->on_answer;
    void *userdata = request->userdata;

    request_free(request);
    on_answer(answer, userdata);
    peer_tell_room(peer);
}

static int bus_on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct bus *bus = userdata;
    uint64_t now = monotonic_usec(), next = BUS_FOREVER;

    bus->deadline_armed = BUS_FOREVER;
    for (size_t i = 0; i < bus->peer_count; i++) {
        struct bus_peer *peer = bus->peers[i];
        uint64_t last_id = bus->next_id; /* those made by the callbacks wait for the next round */

    again:
        for (struct bus_request *request = peer->first; request; request = request->next) {
            if (request->deadline <= now && request->id < last_id) {
                request_finish(request, NULL);
                goto again; /* the callback may have cancelled others */
            }
            if (request->deadline < next)
                next = request->deadline;
        }
    }
    deadline_arm(bus, next);
    return 0;
}

static void peer_take_answer(struct bus_peer *peer, nng_msg *msg)
{
    struct bus *bus = peer->bus;
    Bus__Envelope *answer = unpack(bus, msg);
    struct bus_request *request;

    bus->counters.answers_received++;
    bus->counters.bytes_received += nng_msg_len(msg);
    if (!answer || answer->status == STATUS_UNSET) {
        log_event(LOG_WARNING, 0, "answer is not an envelope", F_PEER(peer->role),
                  F_BYTES(nng_msg_len(msg)));
        return;
    }
    for (request = peer->first; request; request = request->next)
        if (request->id == answer->id)
            break;
    if (!request || answer->generation != bus->generation)
        return; /* answered before, cancelled, or past its deadline */
    request_finish(request, answer);
}

static int peer_on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct bus_peer *peer = userdata;

    for (unsigned n = 0; n < BUS_TURN_MAX && peer->line.open; n++) {
        nng_msg *msg;
        int r = nng_recvmsg(peer->line.socket, &msg, NNG_FLAG_NONBLOCK);

        if (r != 0)
            return r == NNG_EAGAIN ? 0 : bus_error(r);
        peer_take_answer(peer, msg);
        nng_msg_free(msg);
        arena_reset(peer->bus->arena);
    }
    return 0;
}

static int peer_came_up(struct bus_peer *peer)
{
    peer->line.up = true;
    log_event(LOG_DEBUG, 0, "peer up", F_PEER(peer->role), F_COUNT(peer->outstanding));
    for (struct bus_request *request = peer->first; request; request = request->next) {
        int r = request_send(request);

        if (r == -EAGAIN) /* gone again already: wait for the next time */
            return 0;
        if (r < 0)
            return r;
        peer->bus->counters.resent++;
    }
    return 0;
}

static int peer_went_down(struct bus_peer *peer)
{
    if (peer->line.up)
        log_event(LOG_INFO, 0, "peer is away", F_PEER(peer->role), F_COUNT(peer->outstanding));
    line_close(&peer->line);
    return line_open(&peer->line, false, peer_on_readable, peer);
}

static int subscription_on_readable(sd_event_source *source, int fd, uint32_t revents,
                                    void *userdata)
{
    struct bus_subscription *subscription = userdata;
    struct bus *bus = subscription->bus;

    for (unsigned n = 0; n < BUS_TURN_MAX; n++) {
        Bus__Envelope *in;
        nng_msg *msg;
        int r = nng_recvmsg(subscription->line.socket, &msg, NNG_FLAG_NONBLOCK);

        if (r != 0)
            return r == NNG_EAGAIN ? 0 : bus_error(r);
        in = unpack(bus, msg);
        if (in)
            subscription->fn(in, subscription->userdata);
        nng_msg_free(msg);
        arena_reset(bus->arena);
    }
    return 0;
}

/* Connections came or went, or requests were cancelled; of whom is not told: look at each. */
static int bus_on_wake(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct bus *bus = userdata;
    uint64_t count;
    int r;

    if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return -errno;
    for (size_t i = 0; i < bus->peer_count; i++) {
        struct line *line = &bus->peers[i]->line;

        if (atomic_load(&line->removed) > 0)
            r = peer_went_down(bus->peers[i]);
        else if (!line->up && atomic_load(&line->added) > 0)
            r = peer_came_up(bus->peers[i]);
        else
            continue;
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < bus->subscription_count; i++) {
        struct bus_subscription *subscription = bus->subscriptions[i];
        unsigned added = atomic_exchange(&subscription->line.added, 0);

        if (added > 0)
            subscription->fn(NULL, subscription->userdata);
    }
    for (size_t i = 0; i < bus->peer_count; i++)
        peer_tell_room(bus->peers[i]);
    return 0;
}

struct bus_peer *bus_peer(struct bus *bus, const char *role)
{
    struct bus_peer *peer;
    int r;

    for (size_t i = 0; i < bus->peer_count; i++)
        if (strcmp(bus->peers[i]->role, role) == 0)
            return bus->peers[i];

    peer = xnew(struct bus_peer);
    peer->bus = bus;
    peer->role = xstrdup(role);
    peer->line.bus = bus;
    peer->line.url = xasprintf("ipc://%s/%s.ipc", bus->dir, role);
    xgrow(bus->peers, bus->peer_count, bus->peer_capacity);
    bus->peers[bus->peer_count++] = peer;
    r = line_open(&peer->line, false, peer_on_readable, peer);
    if (r < 0) {
        log_event(LOG_ERR, r, "cannot dial", F_PEER(role), F_PATH(peer->line.url));
        abort(); /* out of descriptors or memory: a restart is the cure */
    }
    return peer;
}

bool bus_peer_is_up(const struct bus_peer *peer)
{
    return peer->line.up;
}

unsigned bus_peer_outstanding(const struct bus_peer *peer)
{
    return peer->outstanding;
}

void bus_peer_on_room(struct bus_peer *peer, void (*fn)(void *userdata), void *userdata)
{
    peer->on_room = fn;
    peer->room_userdata = userdata;
}

int bus_request(struct bus_peer *peer, Bus__Envelope *envelope, uint64_t deadline_usec,
                bus_answer_fn *on_answer, void *userdata, struct bus_request **ret_request)
{
    struct bus *bus = peer->bus;
    struct bus_request *request;
    nng_msg *packed = NULL;
    int r;

    if (peer->outstanding >= BUS_WINDOW_MAX) {
        peer->was_full = true;
        return BUS_E_BUSY;
    }
    envelope->protocol = BUS_PROTOCOL;
    envelope->id = bus->next_id;
    envelope->caller = bus->role;
    envelope->generation = bus->generation;
    envelope->deadline_usec = deadline_usec == BUS_FOREVER ? 0 : deadline_usec;
    r = pack(envelope, &packed);
    if (r < 0)
        return r;

    request = xnew(struct bus_request);
    *request = (struct bus_request){
        .peer = peer,
        .prev = peer->last,
        .id = bus->next_id++,
        .deadline = deadline_usec == BUS_FOREVER ? BUS_FOREVER : monotonic_usec() + deadline_usec,
        .packed = packed,
        .on_answer = on_answer,
        .userdata = userdata,
    };
    *(peer->last ? &peer->last->next : &peer->first) = request;
    peer->last = request;
    peer->outstanding++;
    bus->counters.requests_sent++;
    if (peer->line.up) {
        r = request_send(request);
        /* Its queue is full of requests that nobody waits for any more: the peer does not read.
         * A new line begins with what is still open. */
        if (r == -EAGAIN)
            r = peer_went_down(peer);
        if (r < 0) {
            request_free(request);
            return r;
        }
    }
    deadline_arm(bus, request->deadline);
    if (ret_request)
        *ret_request = request;
    return 0;
}

/* ---- serving ---- */

static struct bus_call *call_new(struct bus *bus)
{
    struct bus_call *call = bus->free_calls;

    if (call)
        bus->free_calls = call->next_free;
    else
        call = xnew(struct bus_call);
    memset(call, 0, sizeof(*call));
    call->bus = bus;
    return call;
}

static void call_release(struct bus_call *call)
{
    call->next_free = call->bus->free_calls;
    call->bus->free_calls = call;
}

/* A kept call is its keeper's and goes at once; one that is answered inside its handler goes after the handler. */
static void call_consume(struct bus_call *call)
{
    assert(!call->consumed);
    call->consumed = true;
    if (call->kept)
        call_release(call);
}

struct bus_call *bus_call_keep(struct bus_call *call)
{
    assert(!call->consumed && !call->kept);
    call->kept = true;
    return call;
}

struct bus_call *bus_call_drop(struct bus_call *call)
{
    if (call)
        call_consume(call);
    return NULL;
}

uint64_t bus_call_peer(const struct bus_call *call)
{
    return call->peer;
}

uint64_t bus_call_generation(const struct bus_call *call)
{
    return call->generation;
}

const char *bus_call_caller(const struct bus_call *call)
{
    return call->caller;
}

uint64_t bus_call_id(const struct bus_call *call)
{
    return call->id;
}

uint64_t bus_call_connection(const struct bus_call *call)
{
    return call->pipe;
}

int bus_answer_with(struct bus_call *call, Bus__Envelope *answer)
{
    struct bus *bus = call->bus;
    nng_msg *msg = NULL;
    int r;

    answer->protocol = BUS_PROTOCOL;
    answer->id = call->id;
    answer->caller = bus->role;
    answer->generation = call->generation;
    if (answer->status == STATUS_UNSET)
        answer->status = STATUS_DONE;
    r = pack(answer, &msg);
    if (r == -EMSGSIZE) {
        log_event(LOG_ERR, r, "answer is too large for the bus", F_PEER(call->caller));
        return bus_answer_error(call, STATUS_FAILED, "the answer is larger than %d bytes",
                                BUS_MESSAGE_BYTES_MAX);
    }
    if (r < 0)
        return r;
    bus->counters.answers_sent++;
    bus->counters.bytes_sent += nng_msg_len(msg);
    r = nng_msg_header_append(msg, call->header, call->header_len);
    if (r == 0)
        r = nng_sendmsg(bus->service, msg, NNG_FLAG_NONBLOCK);
    if (r != 0) {
        nng_msg_free(msg);
        /* Cannot be: all windows together are smaller than the buffer. The caller would wait for ever. */
        log_event(LOG_ERR, bus_error(r), "cannot answer", F_PEER(call->caller));
        return bus_error(r);
    }
    call_consume(call);
    return 0;
}

int bus_answer(struct bus_call *call, Bus__Status status)
{
    Bus__Envelope answer = BUS__ENVELOPE__INIT;

    answer.status = status;
    return bus_answer_with(call, &answer);
}

int bus_answer_error(struct bus_call *call, Bus__Status status, const char *format, ...)
{
    Bus__Envelope answer = BUS__ENVELOPE__INIT;
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    answer.status = status;
    answer.error = text;
    return bus_answer_with(call, &answer);
}

/* Who is at the other end, by the kernel's word. 0: nobody who may be here. */
static uint64_t caller_identify(struct bus *bus, nng_pipe pipe)
{
    uint32_t id = (uint32_t)nng_pipe_id(pipe);
    uint64_t pid = 0, uid = UINT32_MAX, peer;

    for (unsigned i = 0; i < CALLER_CACHE; i++)
        if (bus->callers[i].pipe == id && bus->callers[i].peer != 0)
            return bus->callers[i].peer;
    if (nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_PID, &pid) != 0 ||
        nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_UID, &uid) != 0)
        return 0; /* gone meanwhile */
    peer = bus->who((int64_t)pid, (uint32_t)uid, bus->who_userdata);
    if (peer == 0) {
        unsigned suppressed;

        bus->counters.refused++;
        if (log_limit_pass(&bus->refused_limit, 10000000, &suppressed))
            log_event(LOG_WARNING, 0, "stranger on the bus refused", F_PID(pid), F_UID(uid),
                      F_COUNT(suppressed));
        return 0;
    }
    bus->callers[bus->caller_next++ % CALLER_CACHE] = (struct caller){ id, peer };
    return peer;
}

static int call_dispatch(struct bus *bus, struct bus_call *call, const Bus__Envelope *in)
{
    const struct bus_handler *handler = NULL;

    if ((unsigned)in->body_case < BODY_CASES)
        handler = bus->handlers[in->body_case];
    if (!handler)
        return bus_answer_error(call, STATUS_UNSUPPORTED, "%s: body %u is not known here",
                                bus->role, (unsigned)in->body_case);
    if (!(handler->peers & call->peer)) {
        bus->counters.refused++;
        log_event(LOG_WARNING, 0, "peer asked what it may not", F_PEER(call->caller),
                  F_STATUS(in->body_case));
        return bus_answer_error(call, STATUS_REFUSED, "%s: this peer may not ask that", bus->role);
    }
    return handler->fn(call, in, bus->handlers_userdata);
}

static int bus_dispatch_take(struct bus *bus, nng_msg *msg)
{
    nng_pipe pipe = nng_msg_get_pipe(msg);
    uint64_t peer = caller_identify(bus, pipe);
    struct bus_call *call;
    Bus__Envelope *in;
    int r;

    if (peer == 0) {
        nng_pipe_close(pipe);
        nng_msg_free(msg);
        return 0;
    }
    bus->counters.requests_received++;
    bus->counters.bytes_received += nng_msg_len(msg);
    in = unpack(bus, msg);
    if (!in || nng_msg_header_len(msg) > HEADER_MAX) {
        log_event(LOG_WARNING, 0, "request is not an envelope", F_BYTES(nng_msg_len(msg)));
        nng_pipe_close(pipe); /* its caller speaks another language; the others go on */
        nng_msg_free(msg);
        arena_reset(bus->arena);
        return 0;
    }
    call = call_new(bus);
    call->id = in->id;
    call->generation = in->generation;
    call->peer = peer;
    call->pipe = (uint32_t)nng_pipe_id(pipe);
    call->header_len = nng_msg_header_len(msg);
    memcpy(call->header, nng_msg_header(msg), call->header_len);
    snprintf(call->caller, sizeof(call->caller), "%s", in->caller);
    r = call_dispatch(bus, call, in);
    if (r >= 0) {
        assert(call->consumed || call->kept); /* a caller would wait for ever */
        if (!call->kept)
            call_release(call);
    }
    nng_msg_free(msg);
    arena_reset(bus->arena);
    return r < 0 ? r : 0;
}

static int bus_on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct bus *bus = userdata;

    for (unsigned n = 0; n < BUS_TURN_MAX; n++) {
        nng_msg *msg;
        int r = nng_recvmsg(bus->service, &msg, NNG_FLAG_NONBLOCK);

        if (r != 0)
            return r == NNG_EAGAIN ? 0 : bus_error(r);
        r = bus_dispatch_take(bus, msg);
        if (r < 0)
            return r;
    }
    return 0;
}

static int listen_at(nng_socket socket, const char *dir, const char *role, const char *suffix)
{
    _cleanup_(freep) char *url = xasprintf("ipc://%s/%s%s.ipc", dir, role, suffix);
    nng_listener listener;
    int r;

    r = nng_listener_create(&listener, socket, url);
    if (r == 0)
        r = nng_listener_set_int(listener, NNG_OPT_IPC_PERMISSIONS,
                                 S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP);
    if (r == 0)
        r = nng_listener_start(listener, 0);
    return r;
}

int bus_listen(struct bus *bus, const struct bus_handler *handlers, void *userdata)
{
    int r;

    for (const struct bus_handler *handler = handlers; handler->fn; handler++) {
        assert((unsigned)handler->body < BODY_CASES && !bus->handlers[handler->body]);
        bus->handlers[handler->body] = handler;
    }
    bus->handlers_userdata = userdata;
    r = nng_rep0_open_raw(&bus->service);
    if (r != 0)
        return bus_error(r);
    r = nng_pub0_open(&bus->announcer);
    if (r != 0) {
        nng_close(bus->service);
        return bus_error(r);
    }
    bus->listening = true;
    /* Room for the windows of all callers: an answer is never dropped for want of it. */
    r = socket_tune(bus->service, BUS_WINDOW_MAX * CALLER_CACHE);
    if (r == 0)
        r = listen_at(bus->service, bus->dir, bus->role, "");
    if (r == 0)
        r = listen_at(bus->announcer, bus->dir, bus->role, ".pub");
    if (r != 0)
        return bus_error(r);
    return add_readable(bus, bus->service, bus_on_readable, bus, &bus->service_source);
}

/* ---- announcements ---- */

int bus_announce(struct bus *bus, Bus__Envelope *announcement)
{
    nng_msg *msg = NULL;
    int r;

    assert(bus->listening);
    announcement->protocol = BUS_PROTOCOL;
    announcement->caller = bus->role;
    announcement->generation = bus->generation;
    r = pack(announcement, &msg);
    if (r < 0)
        return r;
    r = nng_sendmsg(bus->announcer, msg, NNG_FLAG_NONBLOCK);
    if (r != 0)
        nng_msg_free(msg); /* nobody relies on hearing it */
    return 0;
}

int bus_subscribe(struct bus *bus, const char *role, bus_announce_fn *fn, void *userdata)
{
    struct bus_subscription *subscription = xnew(struct bus_subscription);

    subscription->bus = bus;
    subscription->fn = fn;
    subscription->userdata = userdata;
    subscription->line.bus = bus;
    subscription->line.url = xasprintf("ipc://%s/%s.pub.ipc", bus->dir, role);
    xgrow(bus->subscriptions, bus->subscription_count, bus->subscription_capacity);
    bus->subscriptions[bus->subscription_count++] = subscription;
    return line_open(&subscription->line, true, subscription_on_readable, subscription);
}

/* ---- life ---- */

const struct bus_counters *bus_counters(const struct bus *bus)
{
    return &bus->counters;
}

int bus_new(sd_event *event, const char *bus_dir, const char *role, uint64_t generation,
            bus_who_fn *who, void *userdata, struct bus **ret)
{
    struct bus *bus = xnew(struct bus);
    int r;

    bus->event = sd_event_ref(event);
    bus->dir = xstrdup(bus_dir);
    bus->role = xstrdup(role);
    bus->generation = generation;
    bus->who = who;
    bus->who_userdata = userdata;
    bus->arena = arena_new();
    bus->next_id = 1;
    bus->deadline_armed = BUS_FOREVER;
    bus->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = bus->wake_fd < 0 ? -errno : 0;
    if (r >= 0)
        r = sd_event_add_io(event, &bus->wake_source, bus->wake_fd, EPOLLIN, bus_on_wake, bus);
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(bus->wake_source, true);
    if (r >= 0)
        r = sd_event_add_time(event, &bus->deadline_source, CLOCK_MONOTONIC, UINT64_MAX, 1000,
                              bus_on_deadline, bus);
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(bus->deadline_source, true);
    if (r < 0) {
        bus_free(bus);
        return r;
    }
    *ret = bus;
    return 0;
}

static void peer_free(struct bus_peer *peer)
{
    line_close(&peer->line);
    while (peer->first)
        request_free(peer->first);
    free(peer->line.url);
    free(peer->role);
    free(peer);
}

struct bus *bus_free(struct bus *bus)
{
    if (!bus)
        return NULL;
    bus->service_source = sd_event_source_disable_unref(bus->service_source);
    bus->deadline_source = sd_event_source_disable_unref(bus->deadline_source);
    bus->wake_source = sd_event_source_disable_unref(bus->wake_source);
    if (bus->listening) {
        nng_close(bus->service);
        nng_close(bus->announcer);
    }
    for (size_t i = 0; i < bus->peer_count; i++)
        peer_free(bus->peers[i]);
    for (size_t i = 0; i < bus->subscription_count; i++) {
        line_close(&bus->subscriptions[i]->line);
        free(bus->subscriptions[i]->line.url);
        free(bus->subscriptions[i]);
    }
    while (bus->free_calls) {
        struct bus_call *call = bus->free_calls;

        bus->free_calls = call->next_free;
        free(call);
    }
    free(bus->peers);
    free(bus->subscriptions);
    close_fd(bus->wake_fd);
    arena_free(bus->arena);
    sd_event_unref(bus->event);
    free(bus->dir);
    free(bus->role);
    free(bus);
    return NULL;
}
