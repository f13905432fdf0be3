/*
 * Requests, answers and announcements over Unix stream sockets: a 4-byte big-endian length, then a packed bus.Envelope.
 * A role listens on <role>.ipc, and for those who follow its announcements on <role>.pub.ipc. One thread, no other.
 *
 * What may be lost: answers whose caller hung up, announcements. What may not: a request, until its deadline. It is kept
 * packed until its answer comes; when the connection to a peer broke, all open requests are sent again on the next one, in
 * the order in which they were made.
 */
#include "bus.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "arena.h"
#include "buf.h"
#include "control.h"
#include "log.h"

enum {
    FRAME_HEAD = 4,
    READ_BYTES = 128 << 10, /* taken from one connection in one turn: others must not starve */
    ACCEPTS_A_TURN = 16,
    BACKLOG = 64,
    REDIAL_MIN_USEC = 20 * 1000,
    REDIAL_MAX_USEC = 60 * 1000,
    BODY_CASES = 128,
    /* Of one caller; it is not read until some are answered, and until it reads its answers. */
    CALLS_OPEN_MAX = 2 * BUS_WINDOW_MAX,
    ANSWER_BYTES_MAX = 1 << 20,
    GIVEN_UP_BYTES_MAX = 1 << 20,
    /* A subscriber that does not read is cut off, and asks anew when it is back. */
    ANNOUNCE_BYTES_MAX = 1 << 20,
};

/* One connection, of any kind: bytes in, frames out. */
struct stream {
    struct bus *bus;
    int fd; /* -1: none */
    sd_event_source *source;
    uint32_t events;
    struct buf in, out;
};

/* A dialled connection: that of a peer, or of a subscription. */
struct line {
    struct stream stream;
    char *path;
    sd_event_source *redial_timer;
    int (*on_up)(struct line *line);
    void (*on_frame)(struct line *line, struct span frame);
    void (*on_down)(struct line *line);
};

struct bus_request {
    struct bus_peer *peer;
    TAILQ_ENTRY(bus_request) link; /* in the order of making */
    uint64_t id, deadline;         /* CLOCK_MONOTONIC, or BUS_FOREVER */
    bool is_poll;
    char *frame;
    size_t frame_len;
    bus_answer_fn *on_answer;
    void *userdata;
};
TAILQ_HEAD(request_list, bus_request);

struct bus_peer {
    struct line line; /* first: a line is cast back */
    char *role;
    struct request_list requests, polls;
    unsigned outstanding, poll_count;
    size_t open_bytes; /* the frames of both */
    bool was_full;
    void (*on_room)(void *userdata);
    void *room_userdata;
};

struct bus_subscription {
    struct line line; /* first */
    bus_announce_fn *fn;
    void *userdata;
};

/* A connection into our service socket, or (is_subscriber) into the announcing one. */
struct caller {
    struct stream stream; /* first */
    TAILQ_ENTRY(caller) link;
    bool is_subscriber;
    uint64_t number, peer;        /* PEER_* */
    TAILQ_HEAD(, bus_call) calls; /* that are not answered yet */
    unsigned open_calls, open_polls;
};
TAILQ_HEAD(caller_list, caller);

struct bus_call {
    struct bus *bus;
    struct caller *caller; /* NULL: it hung up */
    TAILQ_ENTRY(bus_call) link;
    uint64_t id, generation, peer, connection;
    bool consumed, kept, is_poll;
    char name[32];
};

struct bus {
    sd_event *event;
    char *dir, *role;
    uint64_t generation;
    bus_who_fn *who;
    void *who_userdata;
    struct arena *arena;
    char *read_buffer;
    uint64_t next_id, next_connection;
    struct bus_counters counters;

    int service_fd, announcer_fd;
    sd_event_source *service_source, *announcer_source;
    const struct bus_handler *handlers[BODY_CASES];
    void *handlers_userdata;
    struct caller_list callers;
    TAILQ_HEAD(, bus_call) free_calls;

    sd_event_source *deadline_source;
    uint64_t deadline_armed;
    struct bus_peer **peers;
    size_t peer_count, peer_capacity;
    struct bus_subscription **subscriptions;
    size_t subscription_count, subscription_capacity;
    struct log_limit refused_limit;
};

static uint64_t monotonic_usec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Better dead than deaf. */
static int or_exit(int r, sd_event_source *source)
{
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(source, true);
    return r < 0 ? r : 0;
}

static int address_of(const char *path, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(ret->sun_path))
        return -ENAMETOOLONG;
    strcpy(ret->sun_path, path);
    return 0;
}

/* ---- frames ---- */

static int frame_pack(const Bus__Envelope *envelope, struct buf *out)
{
    size_t size = bus__envelope__get_packed_size(envelope);

    if (size > BUS_MESSAGE_BYTES_MAX)
        return -EMSGSIZE;
    buf_append_be32(out, (uint32_t)size);
    bus__envelope__pack(envelope, buf_reserve(out, size));
    buf_commit(out, size);
    return 0;
}

/* The first whole frame, without its head. */
enum { FRAME_E_PARTIAL = 1 };
static int frame_next(struct span *bytes, struct span *ret_frame)
{
    uint32_t len;

    if (bytes->len < FRAME_HEAD)
        return FRAME_E_PARTIAL;
    memcpy(&len, bytes->at, sizeof(len));
    len = ntohl(len);
    if (len > BUS_MESSAGE_BYTES_MAX)
        return -EBADMSG;
    if (bytes->len < FRAME_HEAD + len)
        return FRAME_E_PARTIAL;
    *ret_frame = span_of(bytes->at + FRAME_HEAD, len);
    *bytes = span_of(bytes->at + FRAME_HEAD + len, bytes->len - FRAME_HEAD - len);
    return 0;
}

static Bus__Envelope *unpack(struct bus *bus, struct span frame)
{
    return bus__envelope__unpack(arena_allocator(bus->arena), frame.len, (const uint8_t *)frame.at);
}

/* ---- streams ---- */

static void stream_close(struct stream *stream)
{
    stream->source = sd_event_source_disable_unref(stream->source);
    stream->fd = close_fd(stream->fd);
    buf_done(&stream->in);
    buf_done(&stream->out);
}

static void stream_watch(struct stream *stream, uint32_t events)
{
    if (stream->fd < 0 || stream->events == events)
        return;
    stream->events = events;
    sd_event_source_set_io_events(stream->source, events);
}

static int stream_open_take(struct stream *stream, struct bus *bus, int fd,
                            sd_event_io_handler_t fn, void *userdata)
{
    int r;

    stream->bus = bus;
    stream->fd = fd;
    stream->events = EPOLLIN;
    r = sd_event_add_io(bus->event, &stream->source, fd, EPOLLIN, fn, userdata);
    return or_exit(r, stream->source);
}

/* Writes what it can. A broken connection shows when it is read: nobody is told of it in the middle of something else. */
static void stream_flush(struct stream *stream)
{
    while (buf_len(&stream->out) > 0) {
        struct span rest = buf_span(&stream->out);
        ssize_t n = send(stream->fd, rest.at, rest.len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n <= 0)
            break;
        stream->bus->counters.bytes_sent += (uint64_t)n;
        buf_eat(&stream->out, (size_t)n);
    }
    buf_trim(&stream->out);
    stream_watch(stream, (stream->events & EPOLLIN) | (buf_len(&stream->out) > 0 ? EPOLLOUT : 0));
}

/* A frame that is kept elsewhere: copied only as far as the socket does not take it now. */
static void stream_send(struct stream *stream, const char *frame, size_t len)
{
    ssize_t n = 0;

    if (buf_len(&stream->out) == 0) {
        n = send(stream->fd, frame, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        n = n < 0 ? 0 : n;
        stream->bus->counters.bytes_sent += (uint64_t)n;
    }
    if ((size_t)n < len)
        buf_append(&stream->out, frame + n, len - (size_t)n);
    stream_watch(stream, (stream->events & EPOLLIN) | (buf_len(&stream->out) > 0 ? EPOLLOUT : 0));
}

/* One read. What is there now, with what was left before, is borrowed until stream_keep(). */
static int stream_read(struct stream *stream, struct span *ret_bytes)
{
    struct bus *bus = stream->bus;
    ssize_t n;

    if (buf_len(&stream->in) > 0) {
        n = recv(stream->fd, buf_reserve(&stream->in, READ_BYTES), READ_BYTES, MSG_DONTWAIT);
        if (n > 0)
            buf_commit(&stream->in, (size_t)n);
        *ret_bytes = buf_span(&stream->in);
    } else {
        n = recv(stream->fd, bus->read_buffer, READ_BYTES, MSG_DONTWAIT);
        *ret_bytes = span_of(bus->read_buffer, n > 0 ? (size_t)n : 0);
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    if (n <= 0)
        return n < 0 ? -errno : -ECONNRESET;
    bus->counters.bytes_received += (uint64_t)n;
    return 0;
}

/* @rest is what no frame took. */
static void stream_keep(struct stream *stream, struct span rest)
{
    if (buf_len(&stream->in) > 0)
        buf_eat(&stream->in, buf_len(&stream->in) - rest.len);
    else
        buf_append_span(&stream->in, rest);
    buf_trim(&stream->in);
}

/* ---- dialled lines ---- */

static int line_on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata);

static bool line_is_up(const struct line *line)
{
    return line->stream.fd >= 0;
}

static int line_redial_later(struct line *line)
{
    uint64_t now = monotonic_usec();
    int r;

    r = sd_event_source_set_time(line->redial_timer,
                                 now + REDIAL_MIN_USEC + now % (REDIAL_MAX_USEC - REDIAL_MIN_USEC));
    if (r >= 0)
        r = sd_event_source_set_enabled(line->redial_timer, SD_EVENT_ONESHOT);
    return r < 0 ? r : 0;
}

static int line_dial(struct line *line)
{
    struct sockaddr_un address;
    int fd, r;

    r = address_of(line->path, &address);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close_fd(fd);
        return line_redial_later(line); /* nobody there yet, or a full backlog */
    }
    r = stream_open_take(&line->stream, line->stream.bus, fd, line_on_io, line);
    return r < 0 ? r : line->on_up(line);
}

static int line_on_redial(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct line *line = userdata;

    if (line_is_up(line)) {
        stream_close(&line->stream);
        line->on_down(line);
    }
    return line_dial(line);
}

/* From the loop: whoever finds that it is time is in the middle of something. */
static int line_dial_soon(struct line *line)
{
    int r;

    r = sd_event_source_set_time(line->redial_timer, 0);
    if (r >= 0)
        r = sd_event_source_set_enabled(line->redial_timer, SD_EVENT_ONESHOT);
    return r < 0 ? r : 0;
}

static int line_on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct line *line = userdata;
    struct span bytes = {}, frame;
    int r, f = FRAME_E_PARTIAL;

    if (revents & EPOLLOUT)
        stream_flush(&line->stream);
    if (!(revents & ~(uint32_t)EPOLLOUT))
        return 0;
    r = stream_read(&line->stream, &bytes);
    if (r == -EAGAIN)
        return 0;
    while (r == 0 && (f = frame_next(&bytes, &frame)) == 0)
        line->on_frame(line, frame);
    if (r == 0 && f == FRAME_E_PARTIAL) {
        stream_keep(&line->stream, bytes);
        return 0;
    }
    stream_close(&line->stream);
    line->on_down(line);
    return line_redial_later(line);
}

static int line_init(struct line *line, struct bus *bus, const char *role, const char *suffix)
{
    int r;

    line->stream = (struct stream){ .bus = bus, .fd = -1 };
    line->path = xasprintf("%s/%s%s.ipc", bus->dir, role, suffix);
    r = sd_event_add_time(bus->event, &line->redial_timer, CLOCK_MONOTONIC, UINT64_MAX, 1000,
                          line_on_redial, line);
    r = or_exit(r, line->redial_timer);
    return r < 0 ? r : line_dial_soon(line);
}

static void line_done(struct line *line)
{
    stream_close(&line->stream);
    line->redial_timer = sd_event_source_disable_unref(line->redial_timer);
    free(line->path);
}

/* ---- requests ---- */

static struct request_list *request_list(const struct bus_request *request)
{
    return request->is_poll ? &request->peer->polls : &request->peer->requests;
}

static unsigned *request_counter(const struct bus_request *request)
{
    return request->is_poll ? &request->peer->poll_count : &request->peer->outstanding;
}

static struct bus_request *request_free(struct bus_request *request)
{
    TAILQ_REMOVE(request_list(request), request, link);
    --*request_counter(request);
    request->peer->open_bytes -= request->frame_len;
    free(request->frame);
    free(request);
    return NULL;
}

static void deadline_arm(struct bus *bus, uint64_t deadline)
{
    if (deadline >= bus->deadline_armed)
        return;
    bus->deadline_armed = deadline;
    sd_event_source_set_time(bus->deadline_source, deadline);
    sd_event_source_set_enabled(bus->deadline_source, SD_EVENT_ONESHOT);
}

struct bus_request *bus_request_cancel(struct bus_request *request)
{
    if (!request)
        return NULL;
    /* Told from the loop: who cancels does not expect to be called from in here. */
    if (request->peer->was_full)
        deadline_arm(request->peer->line.stream.bus, 0);
    return request_free(request);
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

static struct bus_request *peer_find(const struct bus_peer *peer, uint64_t id)
{
    struct bus_request *request;

    TAILQ_FOREACH(request, &peer->requests, link)
    {
        if (request->id == id)
            return request;
    }
    TAILQ_FOREACH(request, &peer->polls, link)
    {
        if (request->id == id)
            return request;
    }
    return NULL;
}

static struct bus_request *peer_find_expired(const struct bus_peer *peer, uint64_t now,
                                             uint64_t before_id)
{
    struct bus_request *request = TAILQ_FIRST(&peer->requests);

    while (request && !(request->deadline <= now && request->id < before_id))
        request = TAILQ_NEXT(request, link);
    return request;
}

static uint64_t peer_next_deadline(const struct bus_peer *peer)
{
    const struct bus_request *request;
    uint64_t next = BUS_FOREVER;

    TAILQ_FOREACH(request, &peer->requests, link)
    {
        if (request->deadline < next)
            next = request->deadline;
    }
    return next;
}

static int bus_on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct bus *bus = userdata;
    uint64_t now = monotonic_usec(), before_id = bus->next_id;
    struct bus_request *request;

    bus->deadline_armed = BUS_FOREVER;
    for (size_t i = 0; i < bus->peer_count; i++) {
        /* From the start each time: what is called may cancel others. Those it makes wait for the next round. */
        while ((request = peer_find_expired(bus->peers[i], now, before_id)))
            request_finish(request, NULL);
        peer_tell_room(bus->peers[i]);
    }
    for (size_t i = 0; i < bus->peer_count; i++)
        deadline_arm(bus, peer_next_deadline(bus->peers[i]));
    return 0;
}

static void peer_on_frame(struct line *line, struct span frame)
{
    struct bus_peer *peer = (struct bus_peer *)line;
    struct bus *bus = line->stream.bus;
    Bus__Envelope *answer = unpack(bus, frame);
    struct bus_request *request = NULL;

    bus->counters.answers_received++;
    if (!answer || answer->status == STATUS_UNSET)
        log_event(LOG_WARNING, 0, "answer is not an envelope", F_PEER(peer->role),
                  F_BYTES(frame.len));
    else if (answer->generation == bus->generation)
        request = peer_find(peer, answer->id);
    if (request) /* else it was cancelled, or its deadline passed */
        request_finish(request, answer);
    arena_reset(bus->arena);
}

static void requests_resend(struct stream *stream, const struct request_list *requests)
{
    const struct bus_request *request;

    TAILQ_FOREACH(request, requests, link)
    {
        stream_send(stream, request->frame, request->frame_len);
        stream->bus->counters.resent++;
    }
}

static int peer_on_up(struct line *line)
{
    const struct bus_peer *peer = (struct bus_peer *)line;

    requests_resend(&line->stream, &peer->requests);
    requests_resend(&line->stream, &peer->polls);
    return 0;
}

static void peer_on_down(struct line *line)
{
    const struct bus_peer *peer = (struct bus_peer *)line;

    log_event(LOG_INFO, 0, "peer is away", F_PEER(peer->role), F_COUNT(peer->outstanding));
}

struct bus_peer *bus_peer(struct bus *bus, const char *role)
{
    struct bus_peer *peer;
    int r;

    for (size_t i = 0; i < bus->peer_count; i++)
        if (strcmp(bus->peers[i]->role, role) == 0)
            return bus->peers[i];

    peer = xnew(struct bus_peer);
    peer->role = xstrdup(role);
    TAILQ_INIT(&peer->requests);
    TAILQ_INIT(&peer->polls);
    peer->line.on_up = peer_on_up;
    peer->line.on_frame = peer_on_frame;
    peer->line.on_down = peer_on_down;
    xgrow(bus->peers, bus->peer_count, bus->peer_capacity);
    bus->peers[bus->peer_count++] = peer;
    r = line_init(&peer->line, bus, role, "");
    if (r < 0) {
        log_event(LOG_ERR, r, "cannot dial", F_PEER(role), F_PATH(peer->line.path));
        abort(); /* out of memory: a restart is the cure */
    }
    return peer;
}

bool bus_peer_is_up(const struct bus_peer *peer)
{
    return line_is_up(&peer->line);
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

/* It has its place in the window. */
static int request_make(struct bus_peer *peer, Bus__Envelope *envelope, uint64_t deadline_usec,
                        bool is_poll, bus_answer_fn *on_answer, void *userdata,
                        struct bus_request **ret_request)
{
    struct bus *bus = peer->line.stream.bus;
    struct bus_request *request;
    struct buf frame = {};
    int r;

    envelope->protocol = BUS_PROTOCOL;
    envelope->id = bus->next_id;
    envelope->caller = bus->role;
    envelope->generation = bus->generation;
    envelope->deadline_usec = deadline_usec == BUS_FOREVER ? 0 : deadline_usec;
    r = frame_pack(envelope, &frame);
    if (r < 0)
        return r;

    request = xnew(struct bus_request);
    request->peer = peer;
    request->id = bus->next_id++;
    request->deadline =
        deadline_usec == BUS_FOREVER ? BUS_FOREVER : monotonic_usec() + deadline_usec;
    request->is_poll = is_poll;
    request->frame = frame.data; /* the buffer was empty: it begins at its beginning */
    request->frame_len = buf_len(&frame);
    request->on_answer = on_answer;
    request->userdata = userdata;
    TAILQ_INSERT_TAIL(request_list(request), request, link);
    ++*request_counter(request);
    bus->counters.requests_sent++;
    peer->open_bytes += request->frame_len;
    if (line_is_up(&peer->line))
        stream_send(&peer->line.stream, request->frame, request->frame_len);
    /* It does not read, and what waits for it is mostly what nobody waits for any more: a new line begins with what is
     * still open. */
    if (buf_len(&peer->line.stream.out) > peer->open_bytes + GIVEN_UP_BYTES_MAX)
        r = line_dial_soon(&peer->line);
    deadline_arm(bus, request->deadline);
    if (ret_request)
        *ret_request = request;
    return r;
}

int bus_request(struct bus_peer *peer, Bus__Envelope *envelope, uint64_t deadline_usec,
                bus_answer_fn *on_answer, void *userdata, struct bus_request **ret_request)
{
    if (peer->outstanding >= BUS_WINDOW_MAX) {
        peer->was_full = true;
        return BUS_E_BUSY;
    }
    return request_make(peer, envelope, deadline_usec, false, on_answer, userdata, ret_request);
}

int bus_poll(struct bus_peer *peer, Bus__Envelope *envelope, bus_answer_fn *on_answer,
             void *userdata, struct bus_request **ret_request)
{
    if (peer->poll_count >= BUS_POLLS_MAX)
        return BUS_E_BUSY;
    return request_make(peer, envelope, BUS_FOREVER, true, on_answer, userdata, ret_request);
}

/* ---- serving ---- */

static struct bus_call *call_new(struct caller *caller, const Bus__Envelope *in)
{
    struct bus *bus = caller->stream.bus;
    struct bus_call *call = TAILQ_FIRST(&bus->free_calls);

    if (call)
        TAILQ_REMOVE(&bus->free_calls, call, link);
    else
        call = xnew(struct bus_call);
    *call = (struct bus_call){
        .bus = bus,
        .caller = caller,
        .id = in->id,
        .generation = in->generation,
        .peer = caller->peer,
        .connection = caller->number,
    };
    snprintf(call->name, sizeof(call->name), "%s", in->caller);
    TAILQ_INSERT_TAIL(&caller->calls, call, link);
    caller->open_calls++;
    return call;
}

static void call_release(struct bus_call *call)
{
    TAILQ_INSERT_HEAD(&call->bus->free_calls, call, link);
}

static void caller_watch(struct caller *caller)
{
    bool has_answers = buf_len(&caller->stream.out) > 0;
    bool is_read =
        caller->open_calls < CALLS_OPEN_MAX && buf_len(&caller->stream.out) < ANSWER_BYTES_MAX;

    stream_watch(&caller->stream, (is_read ? EPOLLIN : 0) | (has_answers ? EPOLLOUT : 0));
}

/* A kept call is its keeper's and goes at once; one that is answered inside its handler goes after the handler. */
static void call_consume(struct bus_call *call)
{
    struct caller *caller = call->caller;

    assert(!call->consumed);
    call->consumed = true;
    if (caller) {
        TAILQ_REMOVE(&caller->calls, call, link);
        --*(call->is_poll ? &caller->open_polls : &caller->open_calls);
        call->caller = NULL;
        caller_watch(caller);
    }
    if (call->kept)
        call_release(call);
}

struct bus_call *bus_call_keep(struct bus_call *call)
{
    assert(!call->consumed && !call->kept);
    call->kept = true;
    return call;
}

struct bus_call *bus_call_keep_poll(struct bus_call *call)
{
    struct caller *caller = call->caller;

    if (caller && caller->open_polls < BUS_POLLS_MAX) {
        call->is_poll = true;
        caller->open_calls--;
        caller->open_polls++;
    }
    return bus_call_keep(call);
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
    return call->name;
}

uint64_t bus_call_id(const struct bus_call *call)
{
    return call->id;
}

uint64_t bus_call_connection(const struct bus_call *call)
{
    return call->connection;
}

int bus_answer_with(struct bus_call *call, Bus__Envelope *answer)
{
    struct bus *bus = call->bus;
    int r;

    answer->protocol = BUS_PROTOCOL;
    answer->id = call->id;
    answer->caller = bus->role;
    answer->generation = call->generation;
    if (answer->status == STATUS_UNSET)
        answer->status = STATUS_DONE;
    if (call->caller) { /* else it hung up, and will ask again if it wants to know */
        struct stream *stream = &call->caller->stream;
        bool idle = buf_len(&stream->out) == 0;

        r = frame_pack(answer, &stream->out);
        if (r < 0) {
            log_event(LOG_ERR, r, "answer is too large for the bus", F_PEER(call->name));
            return bus_answer_error(call, STATUS_FAILED, "the answer is larger than %d bytes",
                                    BUS_MESSAGE_BYTES_MAX);
        }
        if (idle)
            stream_flush(stream);
    }
    bus->counters.answers_sent++;
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

static void caller_free(struct caller *caller)
{
    struct bus_call *call;

    while ((call = TAILQ_FIRST(&caller->calls))) { /* whoever keeps them answers nobody */
        TAILQ_REMOVE(&caller->calls, call, link);
        call->caller = NULL;
    }
    TAILQ_REMOVE(&caller->stream.bus->callers, caller, link);
    stream_close(&caller->stream);
    free(caller);
}

/* Who is at the other end, by the kernel's word. 0: nobody who may be here. */
static uint64_t caller_identify(struct bus *bus, int fd)
{
    unsigned suppressed;
    uint64_t peer = 0;
    pid_t pid = 0;
    uid_t uid = UINT32_MAX;

    if (control_peer(fd, &pid, &uid) >= 0)
        peer = bus->who(pid, uid, bus->who_userdata);
    if (peer != 0)
        return peer;
    bus->counters.refused++;
    if (log_limit_pass(&bus->refused_limit, 10000000, &suppressed))
        log_event(LOG_WARNING, 0, "stranger on the bus refused", F_PID(pid), F_UID(uid),
                  F_COUNT(suppressed));
    return 0;
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
        log_event(LOG_WARNING, 0, "peer asked what it may not", F_PEER(call->name),
                  F_STATUS(in->body_case));
        return bus_answer_error(call, STATUS_REFUSED, "%s: this peer may not ask that", bus->role);
    }
    return handler->fn(call, in, bus->handlers_userdata);
}

/* -EBADMSG: it speaks another language, and goes. Other errors end the process. */
static int bus_dispatch(struct caller *caller, struct span frame)
{
    struct bus *bus = caller->stream.bus;
    Bus__Envelope *in = unpack(bus, frame);
    struct bus_call *call;
    int r;

    if (!in) {
        log_event(LOG_WARNING, 0, "request is not an envelope", F_BYTES(frame.len));
        arena_reset(bus->arena);
        return -EBADMSG;
    }
    bus->counters.requests_received++;
    call = call_new(caller, in);
    r = call_dispatch(bus, call, in);
    arena_reset(bus->arena);
    if (r < 0)
        return r == -EBADMSG ? -EPROTO : r;
    assert(call->consumed || call->kept); /* a caller would wait for ever */
    if (!call->kept)
        call_release(call);
    return 0;
}

static int caller_take(struct caller *caller)
{
    struct span bytes, frame;
    int r;

    r = stream_read(&caller->stream, &bytes);
    if (r == -EAGAIN)
        return 0;
    if (r < 0)
        return -EBADMSG; /* it hung up */
    while ((r = frame_next(&bytes, &frame)) == 0) {
        r = bus_dispatch(caller, frame);
        if (r < 0)
            return r;
    }
    if (r < 0)
        return r;
    stream_keep(&caller->stream, bytes);
    caller_watch(caller);
    return 0;
}

static int caller_on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct caller *caller = userdata;
    int r = 0;

    if (revents & EPOLLOUT) {
        stream_flush(&caller->stream);
        caller_watch(caller);
    }
    if (revents & EPOLLIN) /* subscribers only listen: this is their end */
        r = caller->is_subscriber ? -EBADMSG : caller_take(caller);
    else if (revents & (EPOLLHUP | EPOLLERR))
        r = -EBADMSG;
    if (r == -EBADMSG) {
        caller_free(caller);
        return 0;
    }
    return r;
}

/* A role is filled by one process, and that has one connection here, the newest. What an older one
 * still holds, its own or its dead predecessor's, must not be done behind what the new one says:
 * whoever wants it sends it again. */
static void bus_drop_older(struct bus *bus, const struct caller *newest)
{
    uint64_t role = newest->peer & ~(PEER_OPERATOR | PEER_OTHER);
    struct caller *caller, *next;

    if (newest->is_subscriber || role == 0 || newest->peer == PEER_ANY)
        return;
    for (caller = TAILQ_FIRST(&bus->callers); caller; caller = next) {
        next = TAILQ_NEXT(caller, link);
        if (caller != newest && !caller->is_subscriber && caller->peer == newest->peer)
            caller_free(caller);
    }
}

static int caller_new_take(struct bus *bus, int fd, bool is_subscriber)
{
    uint64_t peer = caller_identify(bus, fd);
    struct caller *caller;

    if (peer == 0) {
        close_fd(fd);
        return 0;
    }
    caller = xnew(struct caller);
    caller->peer = peer;
    caller->is_subscriber = is_subscriber;
    caller->number = ++bus->next_connection;
    TAILQ_INIT(&caller->calls);
    TAILQ_INSERT_TAIL(&bus->callers, caller, link);
    bus_drop_older(bus, caller);
    return stream_open_take(&caller->stream, bus, fd, caller_on_io, caller);
}

static int bus_on_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct bus *bus = userdata;

    for (unsigned n = 0; n < ACCEPTS_A_TURN; n++) {
        int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), r;

        if (peer < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
            return 0;
        if (peer < 0)
            return -errno; /* out of descriptors: a restart is the cure */
        r = caller_new_take(bus, peer, fd == bus->announcer_fd);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A socket file is left behind by whoever was killed; one that answers belongs to somebody who lives. */
static int address_take_over(const struct sockaddr_un *address)
{
    _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
        return -EADDRINUSE;
    if (errno != ENOENT && unlink(address->sun_path) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

static int listen_at(struct bus *bus, const char *suffix, int *ret_fd, sd_event_source **ret_source)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s%s.ipc", bus->dir, bus->role, suffix);
    _cleanup_(closep) int fd = -1;
    struct sockaddr_un address;
    int r;

    r = address_of(path, &address);
    if (r >= 0)
        r = address_take_over(&address);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        chmod(path, S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP) < 0 || listen(fd, BACKLOG) < 0)
        return -errno;
    r = sd_event_add_io(bus->event, ret_source, fd, EPOLLIN, bus_on_accept, bus);
    r = or_exit(r, *ret_source);
    if (r < 0)
        return r;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int bus_listen(struct bus *bus, const struct bus_handler *handlers, void *userdata)
{
    int r;

    for (const struct bus_handler *handler = handlers; handler->fn; handler++) {
        assert((unsigned)handler->body < BODY_CASES && !bus->handlers[handler->body]);
        bus->handlers[handler->body] = handler;
    }
    bus->handlers_userdata = userdata;
    r = listen_at(bus, "", &bus->service_fd, &bus->service_source);
    if (r >= 0)
        r = listen_at(bus, ".pub", &bus->announcer_fd, &bus->announcer_source);
    /* Who connects here and then asks for the state must not miss what changes between the two. */
    if (r >= 0)
        r = sd_event_source_set_priority(bus->announcer_source, SD_EVENT_PRIORITY_IMPORTANT);
    return r < 0 ? r : 0;
}

/* ---- announcements ---- */

int bus_announce(struct bus *bus, Bus__Envelope *announcement)
{
    struct caller *caller, *next;
    struct buf frame = {};
    int r;

    assert(bus->announcer_fd >= 0);
    announcement->protocol = BUS_PROTOCOL;
    announcement->caller = bus->role;
    announcement->generation = bus->generation;
    r = frame_pack(announcement, &frame);
    if (r < 0)
        return r;
    for (caller = TAILQ_FIRST(&bus->callers); caller; caller = next) {
        struct span bytes = buf_span(&frame);

        next = TAILQ_NEXT(caller, link);
        if (!caller->is_subscriber)
            continue;
        if (buf_len(&caller->stream.out) + bytes.len > ANNOUNCE_BYTES_MAX)
            caller_free(caller);
        else
            stream_send(&caller->stream, bytes.at, bytes.len);
    }
    buf_done(&frame);
    return 0;
}

static int subscription_on_up(struct line *line)
{
    struct bus_subscription *subscription = (struct bus_subscription *)line;

    subscription->fn(NULL, subscription->userdata);
    return 0;
}

static void subscription_on_frame(struct line *line, struct span frame)
{
    struct bus_subscription *subscription = (struct bus_subscription *)line;
    struct bus *bus = line->stream.bus;
    Bus__Envelope *in = unpack(bus, frame);

    if (in)
        subscription->fn(in, subscription->userdata);
    arena_reset(bus->arena);
}

static void subscription_on_down(struct line *line)
{
    /* The next connection begins with the question for the state. */
}

int bus_subscribe(struct bus *bus, const char *role, bus_announce_fn *fn, void *userdata)
{
    struct bus_subscription *subscription = xnew(struct bus_subscription);

    subscription->fn = fn;
    subscription->userdata = userdata;
    subscription->line.on_up = subscription_on_up;
    subscription->line.on_frame = subscription_on_frame;
    subscription->line.on_down = subscription_on_down;
    xgrow(bus->subscriptions, bus->subscription_count, bus->subscription_capacity);
    bus->subscriptions[bus->subscription_count++] = subscription;
    return line_init(&subscription->line, bus, role, ".pub");
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
    bus->read_buffer = xalloc0(READ_BYTES);
    bus->next_id = 1;
    bus->deadline_armed = BUS_FOREVER;
    bus->service_fd = bus->announcer_fd = -1;
    TAILQ_INIT(&bus->callers);
    TAILQ_INIT(&bus->free_calls);
    r = sd_event_add_time(event, &bus->deadline_source, CLOCK_MONOTONIC, UINT64_MAX, 1000,
                          bus_on_deadline, bus);
    r = or_exit(r, bus->deadline_source);
    if (r < 0) {
        bus_free(bus);
        return r;
    }
    *ret = bus;
    return 0;
}

static void peer_free(struct bus_peer *peer)
{
    struct bus_request *request;

    while ((request = TAILQ_FIRST(&peer->requests)) || (request = TAILQ_FIRST(&peer->polls)))
        request_free(request);
    line_done(&peer->line);
    free(peer->role);
    free(peer);
}

struct bus *bus_free(struct bus *bus)
{
    struct bus_call *call;
    struct caller *caller;

    if (!bus)
        return NULL;
    bus->service_source = sd_event_source_disable_unref(bus->service_source);
    bus->announcer_source = sd_event_source_disable_unref(bus->announcer_source);
    bus->deadline_source = sd_event_source_disable_unref(bus->deadline_source);
    while ((caller = TAILQ_FIRST(&bus->callers)))
        caller_free(caller);
    for (size_t i = 0; i < bus->peer_count; i++)
        peer_free(bus->peers[i]);
    for (size_t i = 0; i < bus->subscription_count; i++) {
        line_done(&bus->subscriptions[i]->line);
        free(bus->subscriptions[i]);
    }
    while ((call = TAILQ_FIRST(&bus->free_calls))) {
        TAILQ_REMOVE(&bus->free_calls, call, link);
        free(call);
    }
    free(bus->peers);
    free(bus->subscriptions);
    close_fd(bus->service_fd);
    close_fd(bus->announcer_fd);
    arena_free(bus->arena);
    free(bus->read_buffer);
    sd_event_unref(bus->event);
    free(bus->dir);
    free(bus->role);
    free(bus);
    return NULL;
}
