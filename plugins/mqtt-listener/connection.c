#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "listener.h"
#include "listener.pb-c.h"

enum {
    PREAMBLE_LENGTH_BYTES = 4,
    PREAMBLE_BYTES_MAX = 64 << 10,
    OUT_BYTES_MAX = 64 << 10, /* a client that does not read its answers is not read */
    CLOSE_READS_MAX = 4,
    FIRST_READ_BYTES = 4 << 10,
};

/* ---- the preamble ---- */

/* One block: the array, then the bytes. */
static void connection_take_chain(struct connection *c, const Bus__Preamble *preamble)
{
    size_t count = preamble->n_certificate_chain, bytes = sizeof(ProtobufCBinaryData) * count;
    uint8_t *place;

    if (count == 0)
        return;
    for (size_t i = 0; i < count; i++)
        bytes += preamble->certificate_chain[i].len;
    c->chain = xalloc0(bytes);
    c->chain_count = count;
    place = (uint8_t *)(c->chain + count);
    for (size_t i = 0; i < count; i++) {
        size_t len = preamble->certificate_chain[i].len;

        c->chain[i] = (ProtobufCBinaryData){ len, place };
        if (len > 0)
            memcpy(place, preamble->certificate_chain[i].data, len);
        place += len;
    }
    c->client.has_certificate = true;
}

/* Eats it when it is whole. False: it is no preamble. */
static bool connection_eat_preamble(struct connection *c, struct span *bytes)
{
    Bus__Preamble *preamble;
    uint32_t len;

    if (bytes->len < PREAMBLE_LENGTH_BYTES)
        return true;
    memcpy(&len, bytes->at, sizeof(len));
    len = ntohl(len);
    if (len > PREAMBLE_BYTES_MAX)
        return false;
    if (bytes->len < PREAMBLE_LENGTH_BYTES + len)
        return true;
    preamble = bus__preamble__unpack(NULL, len, (const uint8_t *)bytes->at + PREAMBLE_LENGTH_BYTES);
    if (!preamble)
        return false;
    c->peer_address = xstrdup(preamble->peer_address);
    connection_take_chain(c, preamble);
    bus__preamble__free_unpacked(preamble, NULL);
    *bytes =
        span_of(bytes->at + PREAMBLE_LENGTH_BYTES + len, bytes->len - PREAMBLE_LENGTH_BYTES - len);
    c->started = true;
    return true;
}

/* ---- input ---- */

static void connection_eat(struct connection *c, struct span *bytes)
{
    if (!c->started && !connection_eat_preamble(c, bytes)) {
        client_on_stream_ended(&c->client, CLIENT_END_VIOLATION,
                               "the front's preamble is malformed");
        return;
    }
    if (c->started)
        client_feed(&c->client, bytes);
}

/* @bytes is what was not eaten; it is in @in already when @held. */
static void connection_hold(struct connection *c, struct span rest, bool held)
{
    if (c->ended) {
        listener_release(c->listener, buf_len(&c->in));
        buf_done(&c->in);
    } else if (held) {
        size_t eaten = buf_len(&c->in) - rest.len;

        buf_eat(&c->in, eaten);
        buf_trim(&c->in);
        listener_release(c->listener, eaten);
    } else if (rest.len > 0) {
        if (!listener_charge(c->listener, rest.len)) {
            client_on_stream_ended(&c->client, CLIENT_END_CLOSED, "max_held_bytes is used up");
            return;
        }
        buf_append_span(&c->in, rest);
    }
}

static void connection_take(struct connection *c, struct span bytes)
{
    bool held = buf_len(&c->in) > 0;

    if (held) {
        if (!listener_charge(c->listener, bytes.len)) {
            client_on_stream_ended(&c->client, CLIENT_END_CLOSED, "max_held_bytes is used up");
            return;
        }
        buf_append_span(&c->in, bytes);
        bytes = buf_span(&c->in);
    }
    connection_eat(c, &bytes);
    connection_hold(c, bytes, held);
}

void connection_feed_held(struct connection *c)
{
    struct span bytes = buf_span(&c->in);

    if (c->ended || bytes.len == 0 || !client_takes_input(&c->client))
        return;
    connection_eat(c, &bytes);
    connection_hold(c, bytes, true);
}

static bool connection_reads(const struct connection *c)
{
    return client_takes_input(&c->client) && buf_len(&c->client.out) < OUT_BYTES_MAX &&
           (!c->listener->draining || listener_awaits_acks(c->listener, c));
}

/* One read a turn: others must not starve. */
static void connection_read(struct connection *c)
{
    /* What comes behind a CONNECT is kept until it is known from whom it is. */
    size_t most = c->client.state == CLIENT_WAITING ? FIRST_READ_BYTES : CONNECTION_READ_BYTES;
    ssize_t n = recv(c->fd, c->listener->read_buffer, most, MSG_DONTWAIT);

    if (n > 0) {
        c->listener->bytes_in += (uint64_t)n;
        connection_take(c, span_of(c->listener->read_buffer, (size_t)n));
    } else if (n == 0) {
        client_on_stream_ended(&c->client, CLIENT_END_QUIET, "end of stream");
    } else if (errno != EAGAIN && errno != EINTR) {
        client_on_stream_ended(&c->client, CLIENT_END_QUIET, strerror(errno));
    }
}

static void connection_on_io(struct io_watch *watch, uint32_t events, void *userdata)
{
    struct connection *c = userdata;

    listener_begin(c->listener);
    listener_touch(c->listener, c);
    if (connection_reads(c))
        connection_read(c);
    else if (events & (EPOLLHUP | EPOLLERR) && !(watch->events & EPOLLOUT))
        io_watch_sleep(watch); /* what it sent before it went is read when it may be */
}

/* ---- the end of a turn ---- */

static void connection_write(struct connection *c)
{
    size_t before = buf_len(&c->client.out);

    while (buf_len(&c->client.out) > 0) {
        ssize_t n = buf_write(&c->client.out, c->fd);

        if (n == 0)
            break;
        if (n < 0) {
            client_on_stream_ended(&c->client, CLIENT_END_QUIET, strerror((int)-n));
            break;
        }
    }
    c->listener->bytes_out += before - buf_len(&c->client.out);
    buf_trim(&c->client.out);
}

/* What is unread when a local socket is closed turns its other end's end of stream into an error,
 * which might come before our last words. */
static void connection_close_stream(struct connection *c)
{
    for (unsigned i = 0; i < CLOSE_READS_MAX; i++)
        if (recv(c->fd, c->listener->read_buffer, CONNECTION_READ_BYTES, MSG_DONTWAIT) <= 0)
            break;
    io_watch_end(&c->watch);
    c->fd = close_fd(c->fd);
    listener_release(c->listener, buf_len(&c->in));
    buf_done(&c->in);
    buf_done(&c->client.out);
}

void connection_settle(struct connection *c)
{
    uint32_t events;

    if (c->inputs && c->fd >= 0)
        inputs_pump(c->inputs);
    if (c->fd >= 0)
        connection_write(c);
    if (c->inputs && inputs_may_send(c->inputs)) /* what was in its way is written */
        listener_touch(c->listener, c);
    if (c->ended && c->fd >= 0)
        connection_close_stream(c);
    if (c->fd < 0)
        return;
    listener_arm(c->listener, c);
    events = (connection_reads(c) ? EPOLLIN : 0) | (buf_len(&c->client.out) > 0 ? EPOLLOUT : 0);
    if (events != 0 || c->watch.awake)
        io_watch_change(&c->watch, events);
}

/* ---- life ---- */

static uint64_t random_below(uint64_t bound)
{
    uint32_t random = 0;

    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
        random = 0; /* only the spread suffers */
    return bound * random >> 32;
}

int connection_new_take(struct listener *listener, int fd, uint64_t number, struct connection **ret)
{
    _cleanup_(connection_freep) struct connection *c = xnew(struct connection);
    int r;

    c->listener = listener;
    c->fd = fd;
    c->number = number;
    client_init(&c->client, &listener->host, false,
                random_below(listener->host.limits.recheck_usec));
    r = io_watch_begin(&c->watch, plugin_event(listener->plugin), fd, EPOLLIN, connection_on_io, c);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(c);
    return 0;
}

struct connection *connection_free(struct connection *c)
{
    if (!c)
        return NULL;
    io_watch_end(&c->watch);
    wheel_remove(&c->timer);
    inputs_free(c->inputs);
    close_fd(c->fd);
    client_done(&c->client);
    buf_done(&c->in);
    free(c->peer_address);
    free(c->chain);
    free(c);
    return NULL;
}
