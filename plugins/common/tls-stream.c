/*
 * One TLS connection on a non-blocking socket. OpenSSL never touches the socket itself: its BIO is
 * ours, so that the errno of the socket is known, a peer that speaks no TLS is told from its first
 * byte, and all records of one turn leave in one send(). What the kernel does not take waits in
 * `out`, encrypted; while it does, no more plain text is accepted. So a connection that is idle
 * owns no buffer, here or in OpenSSL.
 */
#include "tls-stream.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/socket.h>

#include "buf.h"
#include "io-set.h"

enum {
    STAGING_BYTES = 80 << 10, /* the records of one write piece and what goes with them */
    WRITE_PIECE_BYTES = 64 << 10,
    OUT_BYTES_MAX = STAGING_BYTES,
    RECEIVES_A_TURN = 8, /* the rest next turn: others must not starve */
    RECORD_ALERT = 0x15, /* first bytes of TLS records */
    RECORD_HANDSHAKE = 0x16,
};

enum stream_state { STREAM_HANDSHAKE, STREAM_OPEN, STREAM_OVER };

struct tls_stream {
    SSL *ssl;
    sd_event *event;
    const struct tls_stream_ops *ops; /* the owner's */
    void *userdata;
    struct io_watch io;     /* of fd; none when it is over */
    sd_event_source *timer; /* while the handshake lasts */
    sd_event_source *later; /* while something is to be told from the loop */
    struct buf out;         /* encrypted, refused by the kernel so far */
    char *reason;           /* of the end */
    int error;              /* of the end */
    int socket_error;       /* errno of the last failed recv() */
    int fd;
    uint8_t receives_left; /* in this turn */
    enum stream_state state;
    bool connecting : 1;   /* client side, until the socket is first writable */
    bool client : 1;       /* speaks first */
    bool heard : 1;        /* a first byte came */
    bool no_tls : 1;       /* and it was none of TLS */
    bool eof : 1;          /* the socket is at its end */
    bool socket_empty : 1; /* recv() gave less than asked: the rest is for the next event */
    bool drained : 1;      /* OpenSSL gave all that it could make of what came */
    bool overrun : 1; /* more than `out` may hold: the peer makes us speak, and does not read */
    bool paused : 1;
    bool hung_up : 1;     /* the peer closed while nobody read */
    bool shut : 1;        /* close_notify is sent or queued */
    bool reported : 1;    /* on_closed ran */
    bool dispatching : 1; /* a handler of ours is on the stack */
    bool freed : 1;       /* by the owner, meanwhile */
};

/* What the records of the running call encrypt to: one for the process, empty between calls. */
static struct {
    const struct tls_stream *owner;
    size_t len;
    char data[STAGING_BYTES];
} staging;

/* ---- the BIO ---- */

static int bio_read(BIO *bio, char *data, int len)
{
    struct tls_stream *s = BIO_get_data(bio);
    ssize_t n;

    BIO_clear_retry_flags(bio);
    if (s->socket_empty || s->receives_left == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    s->receives_left--;
    do
        n = recv(s->fd, data, (size_t)len, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);

    if (n < 0 && errno == EAGAIN) {
        s->socket_empty = true;
        BIO_set_retry_read(bio);
        return -1;
    }
    if (n < 0)
        s->socket_error = errno;
    if (n == 0)
        s->eof = true;
    if (n <= 0)
        return (int)n;
    if (!s->heard && data[0] != RECORD_HANDSHAKE && data[0] != RECORD_ALERT) {
        s->no_tls = true;
        return -1;
    }
    s->heard = true;
    s->socket_empty = n < len; /* epoll is level-triggered: if there is more, it says so */
    return (int)n;
}

/* Takes everything; stream_flush() follows before the call of the owner returns. Only records that
 * the peer asks for, as it may without end, can meet more than one write piece in `out`. */
static int bio_write(BIO *bio, const char *data, int len)
{
    struct tls_stream *s = BIO_get_data(bio);
    size_t n = (size_t)len;

    assert(!staging.owner || staging.owner == s);
    BIO_clear_retry_flags(bio);
    if (buf_len(&s->out) == 0 && n <= STAGING_BYTES - staging.len) {
        memcpy(staging.data + staging.len, data, n);
        staging.owner = s;
        staging.len += n;
        return len;
    }
    if (s->state == STREAM_OPEN && buf_len(&s->out) + n > OUT_BYTES_MAX) {
        s->overrun = true;
        return -1;
    }
    buf_append(&s->out, staging.data, staging.len);
    buf_append(&s->out, data, n);
    staging.owner = NULL;
    staging.len = 0;
    return len;
}

static long bio_control(BIO *bio, int command, long number, void *argument)
{
    const struct tls_stream *s = BIO_get_data(bio);

    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return s->eof;
    default:
        return 0;
    }
}

static BIO *bio_new(struct tls_stream *s)
{
    static BIO_METHOD *method;
    BIO *bio;

    if (!method) {
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
        if (!method)
            return NULL;
        BIO_meth_set_read(method, bio_read);
        BIO_meth_set_write(method, bio_write);
        BIO_meth_set_ctrl(method, bio_control);
    }
    bio = BIO_new(method);
    if (!bio)
        return NULL;
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    return bio;
}

/* ---- the loop's view ---- */

static void stream_watch(struct tls_stream *s)
{
    uint32_t want = 0;

    if (!s->io.set)
        return;
    if (s->connecting)
        want = EPOLLOUT;
    else if (s->state == STREAM_HANDSHAKE || !s->paused)
        want = EPOLLIN;
    if (buf_len(&s->out) > 0)
        want |= EPOLLOUT;
    /* A hang-up is told however little is asked for: what waits to be read behind it waits asleep.
     */
    if (want != 0 || !s->hung_up)
        io_watch_change(&s->io, want);
    else
        io_watch_sleep(&s->io);
}

static int stream_on_later(sd_event_source *source, void *userdata);

/* Comes back from the loop: owners are never called from inside their own calls. */
static void stream_later(struct tls_stream *s)
{
    int r;

    if (s->later || s->dispatching)
        return;
    r = sd_event_add_defer(s->event, &s->later, stream_on_later, s);
    assert(r >= 0);
    sd_event_source_set_exit_on_failure(s->later, true);
}

static bool stream_has_unread(const struct tls_stream *s)
{
    return s->state == STREAM_OPEN && !s->paused && !s->drained && SSL_has_pending(s->ssl);
}

static void stream_enter(struct tls_stream *s)
{
    assert(!s->dispatching);
    s->dispatching = true;
    s->receives_left = RECEIVES_A_TURN;
}

static void stream_leave(struct tls_stream *s)
{
    if (!s->freed && s->state == STREAM_OVER && !s->reported) {
        s->reported = true;
        s->ops->on_closed(s, s->error, s->reason, s->userdata);
    }
    s->dispatching = false;
    if (s->freed) {
        free(s);
        return;
    }
    if (stream_has_unread(s))
        stream_later(s);
    stream_watch(s);
}

/* The first end counts: what fails in its wake is not told. */
static void stream_end(struct tls_stream *s, int error, const char *reason)
{
    if (s->state == STREAM_OVER)
        return;
    s->state = STREAM_OVER;
    s->error = error;
    s->reason = xstrdup(reason);
    io_watch_end(&s->io);
    s->timer = sd_event_source_disable_unref(s->timer);
    stream_later(s);
}

static void stream_end_tls(struct tls_stream *s)
{
    long verified = SSL_get_verify_result(s->ssl);
    const char *text = ERR_reason_error_string(ERR_peek_error());
    _cleanup_(freep) char *reason = NULL;

    if (s->client && s->state == STREAM_HANDSHAKE && verified != X509_V_OK)
        reason = xasprintf("the server's certificate: %s", X509_verify_cert_error_string(verified));
    else
        reason = xasprintf("TLS: %s", text ? text : "protocol error");
    stream_end(s, -EPROTO, reason);
}

/* After an SSL_*() call that did not do it. */
static void stream_result(struct tls_stream *s, int result)
{
    switch (SSL_get_error(s->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        s->drained = true;
        return;
    case SSL_ERROR_ZERO_RETURN:
        stream_end(s, 0, "closed by the peer");
        return;
    default:
        break;
    }
    if (s->no_tls)
        stream_end(s, -EPROTO, "the peer speaks no TLS");
    else if (s->overrun)
        stream_end(s, -ENOBUFS, "the peer does not read what it asks for");
    else if (s->socket_error)
        stream_end(s, -s->socket_error, strerror(s->socket_error));
    else if (s->eof && s->state == STREAM_HANDSHAKE)
        stream_end(s, -ECONNRESET, "closed by the peer during the handshake");
    else if (s->eof)
        stream_end(s, -ECONNRESET, "closed by the peer without a goodbye");
    else
        stream_end_tls(s);
}

/* Sends what is staged or kept. What the kernel does not take is kept. */
static void stream_flush(struct tls_stream *s)
{
    bool staged = staging.owner == s;
    struct span rest = staged ? span_of(staging.data, staging.len) : buf_span(&s->out);
    size_t done = 0;

    staging.owner = NULL;
    staging.len = 0;
    while (done < rest.len) {
        ssize_t n = send(s->fd, rest.at + done, rest.len - done, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            stream_end(s, -errno, strerror(errno));
            buf_done(&s->out);
            return;
        }
        if (n < 0)
            break;
        done += (size_t)n;
    }
    if (!staged)
        buf_eat(&s->out, done);
    else if (done < rest.len)
        buf_append(&s->out, rest.at + done, rest.len - done);
    buf_trim(&s->out);
    if (s->shut && buf_len(&s->out) == 0)
        (void)shutdown(s->fd, SHUT_WR);
}

static void stream_handshake(struct tls_stream *s)
{
    int r;

    s->connecting = false;
    ERR_clear_error();
    r = SSL_do_handshake(s->ssl);
    if (r != 1)
        stream_result(s, r);
    stream_flush(s); /* an alert, too */
    if (r != 1 || s->state == STREAM_OVER)
        return;
    s->state = STREAM_OPEN;
    s->drained = false;
    s->timer = sd_event_source_disable_unref(s->timer);
    s->ops->on_ready(s, s->userdata);
    if (!s->freed && stream_has_unread(s))
        s->ops->on_readable(s, s->userdata);
}

/* Nobody reads now. A dead connection ends; one that was only closed may still hold data and waits
 * to be read. */
static void stream_hung_up(struct tls_stream *s, uint32_t revents)
{
    int error = 0;
    socklen_t len = sizeof(error);

    s->hung_up = true;
    if (!(revents & EPOLLERR))
        return;
    (void)getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    error = error ? error : ECONNRESET;
    stream_end(s, -error, strerror(error));
}

static void stream_transfer(struct tls_stream *s, uint32_t revents)
{
    if (revents & EPOLLOUT) {
        stream_flush(s);
        if (s->state == STREAM_OPEN && buf_len(&s->out) == 0)
            s->ops->on_writable(s, s->userdata);
    }
    if (s->freed || s->state != STREAM_OPEN || !(revents & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    if (!s->paused)
        s->ops->on_readable(s, s->userdata);
    else if (!(revents & EPOLLIN))
        stream_hung_up(s, revents);
}

static void stream_on_io(struct io_watch *watch, uint32_t revents, void *userdata)
{
    struct tls_stream *s = userdata;

    stream_enter(s);
    if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
        s->socket_empty = s->drained = false;
    if (s->state == STREAM_HANDSHAKE)
        stream_handshake(s);
    else
        stream_transfer(s, revents);
    stream_leave(s);
}

static int stream_on_later(sd_event_source *source, void *userdata)
{
    struct tls_stream *s = userdata;

    s->later = sd_event_source_disable_unref(s->later);
    stream_enter(s);
    if (stream_has_unread(s))
        s->ops->on_readable(s, s->userdata);
    stream_leave(s);
    return 0;
}

static int stream_on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct tls_stream *s = userdata;

    stream_enter(s);
    stream_end(s, -ETIMEDOUT,
               s->heard ? "the handshake was not done in time" : "the peer said nothing");
    stream_leave(s);
    return 0;
}

/* ---- for owners ---- */

static bool stream_expect_name(SSL *ssl, const char *name)
{
    unsigned char address[sizeof(struct in6_addr)];

    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1; /* SNI is for names */
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

static int stream_set_up(struct tls_stream *s, SSL_CTX *context, const char *server_name,
                         uint64_t handshake_usec)
{
    static const int yes = 1;
    BIO *bio;
    int r;

    s->ssl = SSL_new(context);
    if (!s->ssl)
        return -ENOMEM;
    bio = bio_new(s);
    if (!bio)
        return -ENOMEM;
    SSL_set_bio(s->ssl, bio, bio);
    if (server_name) {
        SSL_set_connect_state(s->ssl);
        if (!stream_expect_name(s->ssl, server_name))
            return -EINVAL;
    } else
        SSL_set_accept_state(s->ssl);

    (void)setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &yes,
                     sizeof(yes)); /* a local socket has none */
    r = io_watch_begin(&s->io, s->event, s->fd, s->connecting ? EPOLLOUT : EPOLLIN, stream_on_io,
                       s);
    if (r < 0)
        return r;
    r = sd_event_add_time_relative(s->event, &s->timer, CLOCK_MONOTONIC, handshake_usec, 0,
                                   stream_on_timeout, s);
    if (r < 0)
        return r;
    sd_event_source_set_exit_on_failure(s->timer, true);
    return 0;
}

int tls_stream_new_take(sd_event *event, SSL_CTX *context, int fd, const char *server_name,
                        uint64_t handshake_usec, const struct tls_stream_ops *ops, void *userdata,
                        struct tls_stream **ret)
{
    _cleanup_(tls_stream_freep) struct tls_stream *s = xnew(struct tls_stream);
    int r;

    s->fd = fd;
    s->event = sd_event_ref(event);
    s->ops = ops;
    s->userdata = userdata;
    s->client = s->connecting = server_name != NULL;
    r = stream_set_up(s, context, server_name, handshake_usec);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(s);
    return 0;
}

struct tls_stream *tls_stream_free(struct tls_stream *s)
{
    if (!s)
        return NULL;
    sd_event_source_disable_unref(s->later);
    sd_event_source_disable_unref(s->timer);
    io_watch_end(&s->io);
    sd_event_unref(s->event);
    SSL_free(s->ssl);
    buf_done(&s->out);
    free(s->reason);
    close_fd(s->fd);
    if (!s->dispatching)
        free(s);
    else
        s->freed = true; /* stream_leave() lets go of it */
    return NULL;
}

void tls_stream_set_ops(struct tls_stream *s, const struct tls_stream_ops *ops, void *userdata)
{
    s->ops = ops;
    s->userdata = userdata;
}

ssize_t tls_stream_read(struct tls_stream *s, void *data, size_t len)
{
    size_t total = 0;

    while (s->state == STREAM_OPEN && !s->drained && total < len) {
        size_t n;
        int r;

        ERR_clear_error();
        r = SSL_read_ex(s->ssl, (char *)data + total, len - total, &n);
        if (r == 1)
            total += n;
        else
            stream_result(s, r);
    }
    if (staging.owner == s)
        stream_flush(s); /* an alert, or the answer to a key update */
    stream_watch(s);
    if (total > 0)
        return (ssize_t)total;
    return s->state == STREAM_OVER && s->error == 0 ? 0 : -EAGAIN;
}

ssize_t tls_stream_write(struct tls_stream *s, const void *data, size_t len)
{
    size_t taken = 0;

    while (taken < len && s->state == STREAM_OPEN && !s->shut && buf_len(&s->out) == 0) {
        size_t piece = len - taken < WRITE_PIECE_BYTES ? len - taken : WRITE_PIECE_BYTES;
        size_t n;
        int r;

        ERR_clear_error();
        r = SSL_write_ex(s->ssl, (const char *)data + taken, piece, &n);
        if (r == 1)
            taken += n;
        else
            stream_result(s, r);
        stream_flush(s);
    }
    stream_watch(s);
    return (ssize_t)taken;
}

void tls_stream_pause(struct tls_stream *s, bool paused)
{
    if (s->paused == paused)
        return;
    s->paused = paused;
    if (stream_has_unread(s))
        stream_later(s);
    stream_watch(s);
}

void tls_stream_shutdown(struct tls_stream *s)
{
    if (s->state != STREAM_OPEN || s->shut)
        return;
    s->shut = true;
    ERR_clear_error();
    (void)SSL_shutdown(s->ssl);
    stream_flush(s);
    stream_watch(s);
}

size_t tls_stream_pending(const struct tls_stream *s)
{
    return buf_len(&s->out);
}

SSL *tls_stream_ssl(struct tls_stream *s)
{
    return s->ssl;
}

int tls_stream_fd(const struct tls_stream *s)
{
    return s->fd;
}
