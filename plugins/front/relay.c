#include "relay.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "buf.h"
#include "io-set.h"
#include "listener.pb-c.h"

enum { CHAIN_MAX = 16 };

enum relay_state {
    RELAY_HANDSHAKE,     /* bytes of TLS only */
    RELAY_CONNECTING,    /* a client, and no listener yet */
    RELAY_OPEN,          /* both */
    RELAY_CLIENT_ENDED,  /* the listener still gets what the client said */
    RELAY_LISTENER_ENDED /* the client still gets what the listener said, then the goodbye */
};

struct relay {
    struct relay_host *host;   /* NULL: it has ended */
    struct relay *prev, *next; /* of the host */
    struct tls_stream *tls;
    struct target *target;
    struct target_wait wait;
    const char *socket_name;
    struct io_watch io;     /* of fd */
    sd_event_source *timer; /* after one side has ended */
    struct buf up;          /* the listener's */
    struct buf down;        /* the client's */
    union relay_address peer;
    int fd; /* to the listener; -1: not yet, or no more */
    enum relay_state state;
    bool hung_up; /* the listener is gone, what it said may not be read yet */
};

/* ---- who is calling ---- */

const char *relay_address_text(const union relay_address *a, char ret[static RELAY_ADDRESS_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (a->sa.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a->in.sin_addr, host, sizeof(host));
        snprintf(ret, RELAY_ADDRESS_TEXT, "%s:%u", host, ntohs(a->in.sin_port));
    } else if (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) {
        inet_ntop(AF_INET, &a->in6.sin6_addr.s6_addr[12], host, sizeof(host));
        snprintf(ret, RELAY_ADDRESS_TEXT, "%s:%u", host, ntohs(a->in6.sin6_port));
    } else if (a->sa.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
        snprintf(ret, RELAY_ADDRESS_TEXT, "[%s]:%u", host, ntohs(a->in6.sin6_port));
    } else
        snprintf(ret, RELAY_ADDRESS_TEXT, "local");
    return ret;
}

static void der_append(X509 *certificate, ProtobufCBinaryData *chain, size_t *count)
{
    unsigned char *der = NULL;
    int len = i2d_X509(certificate, &der);

    if (len > 0 && *count < CHAIN_MAX)
        chain[(*count)++] = (ProtobufCBinaryData){ .len = (size_t)len, .data = der };
    else
        OPENSSL_free(der);
}

/* Leaf first. On the server's side OpenSSL keeps the leaf apart from the rest. */
static size_t der_chain(SSL *ssl, ProtobufCBinaryData *chain)
{
    X509 *leaf = SSL_get0_peer_certificate(ssl);
    STACK_OF(X509) *rest = SSL_get_peer_cert_chain(ssl);
    size_t count = 0;

    if (!leaf)
        return 0;
    der_append(leaf, chain, &count);
    for (int i = 0; i < sk_X509_num(rest); i++)
        der_append(sk_X509_value(rest, i), chain, &count);
    return count;
}

static void relay_append_preamble(struct relay *relay)
{
    SSL *ssl = tls_stream_ssl(relay->tls);
    const char *server_name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    Bus__Preamble preamble = BUS__PREAMBLE__INIT;
    ProtobufCBinaryData chain[CHAIN_MAX];
    char address[RELAY_ADDRESS_TEXT];
    size_t len;

    preamble.peer_address = (char *)relay_address_text(&relay->peer, address);
    preamble.local_socket = (char *)relay->socket_name;
    preamble.tls_version = (char *)SSL_get_version(ssl);
    preamble.tls_cipher = (char *)SSL_get_cipher_name(ssl);
    preamble.server_name = (char *)(server_name ? server_name : "");
    preamble.certificate_chain = chain;
    preamble.n_certificate_chain = der_chain(ssl, chain);

    len = bus__preamble__get_packed_size(&preamble);
    buf_append_be32(&relay->up, (uint32_t)len);
    bus__preamble__pack(&preamble, buf_reserve(&relay->up, len));
    buf_commit(&relay->up, len);
    for (size_t i = 0; i < preamble.n_certificate_chain; i++)
        OPENSSL_free(chain[i].data);
}

/* ---- the end ---- */

static void relay_unlink(struct relay *relay)
{
    struct relay_host *host = relay->host;

    *(relay->prev ? &relay->prev->next : &host->relays) = relay->next;
    if (relay->next)
        relay->next->prev = relay->prev;
    host->count--;
    relay->host = NULL;
}

/* Who is told finds it no longer counted. */
static void relay_end(struct relay *relay, enum relay_end end, const char *reason)
{
    const struct relay_host *host = relay->host;

    relay_unlink(relay);
    host->on_end(relay, end, reason, host->userdata);
    relay_free(relay);
}

static int relay_on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct relay *relay = userdata;

    relay_end(relay, relay->state == RELAY_CLIENT_ENDED ? RELAY_END_CLIENT : RELAY_END_LISTENER,
              "the other side did not take what was left");
    return 0;
}

/* One side has ended: the other has a little time to take what is left for it. */
static void relay_linger(struct relay *relay, enum relay_state state)
{
    int r;

    relay->state = state;
    r = sd_event_add_time_relative(relay->host->event, &relay->timer, CLOCK_MONOTONIC,
                                   relay->host->linger_usec, 0, relay_on_timeout, relay);
    assert(r >= 0);
    sd_event_source_set_exit_on_failure(relay->timer, true);
}

/* Nothing more goes to the listener; what the client still says is read and dropped, so that its
 * end is seen and what was written to it is not cut off by a reset. */
static void relay_listener_ended(struct relay *relay)
{
    if (relay->state != RELAY_OPEN)
        return;
    buf_done(&relay->up);
    relay_linger(relay, RELAY_LISTENER_ENDED);
    tls_stream_pause(relay->tls, false);
}

/* ---- client to listener ---- */

static void relay_watch(struct relay *relay)
{
    uint32_t want = 0;

    if (!relay->io.set)
        return;
    if (relay->state != RELAY_CLIENT_ENDED && buf_len(&relay->down) == 0 &&
        tls_stream_pending(relay->tls) == 0)
        want |= EPOLLIN;
    if (buf_len(&relay->up) > 0)
        want |= EPOLLOUT;
    /* A hang-up is told however little is asked for: what waits to be read behind it waits asleep.
     */
    if (want != 0 || !relay->hung_up)
        io_watch_change(&relay->io, want);
    else
        io_watch_sleep(&relay->io);
}

/* Bytes taken. */
static size_t relay_send_up(struct relay *relay, struct span data)
{
    size_t done = 0;

    while (done < data.len) {
        ssize_t n = send(relay->fd, data.at + done, data.len - done, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) { /* it reads no more; its last words may wait to be read */
            relay_listener_ended(relay);
            return data.len;
        }
        done += (size_t)n;
    }
    return done;
}

static void relay_on_readable(struct tls_stream *tls, void *userdata)
{
    struct relay *relay = userdata;
    ssize_t n = tls_stream_read(tls, relay->host->scratch, RELAY_SCRATCH_BYTES);
    size_t done;

    if (n <= 0 || relay->state != RELAY_OPEN)
        return;
    done = relay_send_up(relay, span_of(relay->host->scratch, (size_t)n));
    if (done < (size_t)n) {
        buf_append(&relay->up, relay->host->scratch + done, (size_t)n - done);
        tls_stream_pause(tls, true);
    }
    relay_watch(relay);
}

/* Sends what is kept. False: that was the last of it, and the relay is gone. */
static bool relay_flush_up(struct relay *relay)
{
    size_t done = relay_send_up(relay, buf_span(&relay->up));

    if (relay->state == RELAY_CLIENT_ENDED && done == buf_len(&relay->up)) {
        relay_end(relay, RELAY_END_CLIENT, "closed by the client");
        return false;
    }
    if (relay->state != RELAY_LISTENER_ENDED) /* else there is nothing kept any more */
        buf_eat(&relay->up, done);
    if (buf_len(&relay->up) == 0) {
        buf_done(&relay->up);
        tls_stream_pause(relay->tls, false);
    }
    return true;
}

/* ---- listener to client ---- */

/* All is said and taken: goodbye. The client's own goodbye, or the time-out, ends the relay. */
static void relay_finish_down(struct relay *relay)
{
    if (relay->fd < 0 && buf_len(&relay->down) == 0)
        tls_stream_shutdown(relay->tls);
}

static void relay_read_down(struct relay *relay)
{
    ssize_t n = recv(relay->fd, relay->host->scratch, RELAY_SCRATCH_BYTES, MSG_DONTWAIT);
    size_t taken;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        io_watch_end(&relay->io);
        relay->fd = close_fd(relay->fd);
        relay_listener_ended(relay);
        relay_finish_down(relay);
        return;
    }
    taken = (size_t)tls_stream_write(relay->tls, relay->host->scratch, (size_t)n);
    if (taken < (size_t)n)
        buf_append(&relay->down, relay->host->scratch + taken, (size_t)n - taken);
}

static void relay_on_writable(struct tls_stream *tls, void *userdata)
{
    struct relay *relay = userdata;
    struct span kept = buf_span(&relay->down);

    buf_eat(&relay->down, (size_t)tls_stream_write(tls, kept.at, kept.len));
    buf_trim(&relay->down);
    relay_finish_down(relay);
    relay_watch(relay);
}

static void relay_on_io(struct io_watch *watch, uint32_t revents, void *userdata)
{
    struct relay *relay = userdata;

    if ((revents & (EPOLLHUP | EPOLLERR)) && !relay->hung_up) {
        relay->hung_up = true;
        relay_listener_ended(relay);
    }
    if (buf_len(&relay->up) > 0 && !relay_flush_up(relay))
        return;
    if ((watch->events & EPOLLIN) && (revents & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        relay_read_down(relay);
    relay_watch(relay);
}

/* ---- beginning ---- */

static int relay_open(struct relay *relay, int fd)
{
    int r;

    relay->fd = fd;
    r = io_watch_begin(&relay->io, relay->host->event, fd, EPOLLIN, relay_on_io, relay);
    if (r < 0)
        return r;
    relay->state = RELAY_OPEN;
    relay_append_preamble(relay);
    relay_flush_up(relay);
    relay_watch(relay);
    return 0;
}

static void relay_on_connected(struct target_wait *wait, int fd)
{
    struct relay *relay = CONTAINER_OF(wait, struct relay, wait);
    int r = fd < 0 ? fd : relay_open(relay, fd);

    if (r < 0) {
        relay_say_goodbye(relay);
        relay_end(relay, RELAY_END_NO_LISTENER, strerror(-r));
    }
}

static void relay_on_ready(struct tls_stream *tls, void *userdata)
{
    struct relay *relay = userdata;

    relay->state = RELAY_CONNECTING;
    tls_stream_pause(tls, true);
    target_connect(relay->target, &relay->wait, relay_on_connected);
}

static void relay_on_closed(struct tls_stream *tls, int error, const char *reason, void *userdata)
{
    struct relay *relay = userdata;

    if (relay->state == RELAY_OPEN && buf_len(&relay->up) > 0) {
        buf_done(&relay->down);
        relay_linger(relay, RELAY_CLIENT_ENDED);
        relay_watch(relay);
    } else
        relay_end(relay,
                  relay->state == RELAY_HANDSHAKE        ? RELAY_END_HANDSHAKE
                  : relay->state == RELAY_LISTENER_ENDED ? RELAY_END_LISTENER
                                                         : RELAY_END_CLIENT,
                  reason);
}

static const struct tls_stream_ops relay_ops = {
    .on_ready = relay_on_ready,
    .on_readable = relay_on_readable,
    .on_writable = relay_on_writable,
    .on_closed = relay_on_closed,
};

int relay_new_take(struct relay_host *host, SSL_CTX *context, int fd,
                   const union relay_address *peer, const char *socket_name, struct target *target,
                   struct relay **ret)
{
    struct relay *relay = xnew(struct relay);
    int r;

    relay->host = host;
    relay->target = target;
    relay->socket_name = socket_name;
    relay->peer = *peer;
    relay->fd = -1;
    relay->next = host->relays;
    if (host->relays)
        host->relays->prev = relay;
    host->relays = relay;
    host->count++;
    r = tls_stream_new_take(host->event, context, fd, NULL, host->handshake_usec, &relay_ops, relay,
                            &relay->tls);
    if (r < 0) {
        relay_free(relay);
        return r;
    }
    if (ret)
        *ret = relay;
    return 0;
}

struct relay *relay_free(struct relay *relay)
{
    if (!relay)
        return NULL;
    if (relay->host)
        relay_unlink(relay);
    target_forget(&relay->wait);
    io_watch_end(&relay->io);
    sd_event_source_disable_unref(relay->timer);
    tls_stream_free(relay->tls);
    close_fd(relay->fd);
    buf_done(&relay->up);
    buf_done(&relay->down);
    free(relay);
    return NULL;
}

void relay_say_goodbye(struct relay *relay)
{
    tls_stream_shutdown(relay->tls);
}

const union relay_address *relay_peer(const struct relay *relay)
{
    return &relay->peer;
}

const char *relay_socket_name(const struct relay *relay)
{
    return relay->socket_name;
}
