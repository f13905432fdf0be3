/*
 * Bytes between a TLS stream and proton's engine, once a loop turn: everything that can be read is read, then the events
 * are handled, then everything that came of it is written. Proton does no I/O of its own here and knows no clock.
 */
#include "amqp-driver.h"

#include <assert.h>
#include <errno.h>
#include <proton/object.h>
#include <stdio.h>

#include "amqp-frames.h"
#include "amqp-message.h"
#include "amqp-sasl.h"
#include "log.h"

enum {
    DRIVER_READS_MAX = 16, /* a turn: timers and other connections must not starve */
    DRIVER_FRAME_MAX = 65536,
    DRIVER_CHANNEL_MAX = 8191,
};
#define DRIVER_CLOSE_WAIT_USEC (5 * UINT64_C(1000000)) /* for the peer's close after ours */

struct amqp_driver {
    struct tls_stream *stream;
    pn_connection_driver_t pn;
    const struct amqp_driver_ops *ops;
    void *userdata;
    sd_event *event;       /* borrowed */
    sd_event_source *turn; /* one shot: a turn that was asked for from outside */
    sd_event_source *tick; /* proton's clock: heartbeats, idle time-outs */
    sd_event_source *close_wait;
    uint64_t tick_usec; /* when it is due; UINT64_MAX: not armed */
    bool server;
    bool sasl_over;
    bool sasl_failed;
    bool ready; /* the TLS handshake is done */
    bool over;  /* on_closed ran */
    struct buf
        overflow; /* taken out of proton by a flush, not taken by the stream yet; goes first */
    struct amqp_sasl sasl;
    struct amqp_frames frames;
    size_t output_pending;
    uint64_t bytes_in, bytes_out;
    char reason[256];
};

/* message-format of a delivery is kept in its record under this key, as one of these. */
PN_HANDLE(FORMAT_KEY)
enum { FORMAT_PLAIN = 1, FORMAT_BATCH };

static void driver_turn(struct amqp_driver *d);

/* ---- The end ---- */

static void driver_reason(struct amqp_driver *d, const char *reason)
{
    if (d->reason[0] == '\0')
        snprintf(d->reason, sizeof(d->reason), "%s", reason);
}

static void driver_reason_condition(struct amqp_driver *d, const char *whose,
                                    pn_condition_t *condition)
{
    char text[sizeof(d->reason)];
    const char *description;

    if (!pn_condition_is_set(condition))
        return;
    description = pn_condition_get_description(condition);
    snprintf(text, sizeof(text), "%s%s%s%s", whose, pn_condition_get_name(condition),
             description ? ": " : "", description ? description : "");
    driver_reason(d, text);
}

/* The last thing a turn does: the owner may free the driver in here. */
static void driver_over(struct amqp_driver *d)
{
    if (d->over)
        return;
    d->over = true;
    sd_event_source_set_enabled(d->turn, SD_EVENT_OFF);
    sd_event_source_set_enabled(d->tick, SD_EVENT_OFF);
    sd_event_source_set_enabled(d->close_wait, SD_EVENT_OFF);
    driver_reason_condition(d, "", pn_transport_condition(d->pn.transport));
    driver_reason(d, "closed");
    d->ops->on_closed(d, d->reason, d->userdata);
}

/* ---- The clock ---- */

static void driver_tick(struct amqp_driver *d)
{
    uint64_t now, due;
    int64_t due_ms;

    if (sd_event_now(d->event, CLOCK_MONOTONIC, &now) < 0)
        return;
    due_ms = pn_transport_tick(d->pn.transport, (int64_t)(now / 1000));
    due = due_ms > 0 ? (uint64_t)due_ms * 1000 : UINT64_MAX;
    if (due >= d->tick_usec)
        return; /* the timer that is armed comes earlier, and asks again */
    d->tick_usec = due;
    sd_event_source_set_time(d->tick, due);
    sd_event_source_set_enabled(d->tick, SD_EVENT_ONESHOT);
}

static int driver_on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct amqp_driver *d = userdata;

    d->tick_usec = UINT64_MAX;
    driver_tick(d);
    driver_turn(d);
    return 0;
}

static int driver_on_close_wait(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct amqp_driver *d = userdata;

    driver_reason(d, "the peer did not answer our close");
    driver_over(d);
    return 0;
}

static void driver_arm_close_wait(struct amqp_driver *d)
{
    uint64_t now;
    int enabled;

    if (sd_event_source_get_enabled(d->close_wait, &enabled) < 0 || enabled != SD_EVENT_OFF ||
        sd_event_now(d->event, CLOCK_MONOTONIC, &now) < 0)
        return;
    sd_event_source_set_time(d->close_wait, now + DRIVER_CLOSE_WAIT_USEC);
    sd_event_source_set_enabled(d->close_wait, SD_EVENT_ONESHOT);
}

/* ---- In ---- */

/* Proton's buffer grows to its largest frame, so there is room until the read side is closed. */
static void driver_give(struct amqp_driver *d, struct span bytes)
{
    if (amqp_frames_feed(&d->frames, bytes) != 0)
        pn_connection_driver_errorf(&d->pn, "amqp:resource-limit-exceeded",
                                    "too many deliveries begun");
    while (bytes.len > 0) {
        pn_rwbytes_t room = pn_connection_driver_read_buffer(&d->pn);
        size_t n = room.size < bytes.len ? room.size : bytes.len;

        if (n == 0)
            return; /* what follows a close is nobody's */
        memcpy(room.start, bytes.at, n);
        pn_connection_driver_read_done(&d->pn, n);
        bytes = span_of(bytes.at + n, bytes.len - n);
    }
}

/* Before proton hears the first byte of a client. */
static void driver_take_sasl(struct amqp_driver *d, struct span bytes)
{
    int r = amqp_sasl_feed(&d->sasl, &bytes);

    if (r == AMQP_SASL_E_FAILED) {
        d->sasl_failed = true;
        driver_reason(d, "SASL: a mechanism that is not offered, or a malformed frame");
    }
    if (r != AMQP_SASL_E_DONE)
        return;
    d->sasl_over = true;
    driver_give(d, buf_span(&d->sasl.replay));
    buf_done(&d->sasl.replay);
    buf_done(&d->sasl.in);
    driver_give(d, bytes);
}

static ssize_t driver_read_server(struct amqp_driver *d)
{
    char bytes[16384];
    ssize_t n = tls_stream_read(d->stream, bytes, sizeof(bytes));

    if (n <= 0)
        return n;
    if (d->sasl_over)
        driver_give(d, span_of(bytes, (size_t)n));
    else
        driver_take_sasl(d, span_of(bytes, (size_t)n));
    return n;
}

/* A client has nothing in front of proton: its bytes are read where proton wants them. */
static ssize_t driver_read_client(struct amqp_driver *d)
{
    pn_rwbytes_t room = pn_connection_driver_read_buffer(&d->pn);
    ssize_t n;

    if (room.size == 0)
        return -EAGAIN;
    n = tls_stream_read(d->stream, room.start, room.size);
    if (n > 0)
        pn_connection_driver_read_done(&d->pn, (size_t)n);
    return n;
}

static void driver_read(struct amqp_driver *d)
{
    for (unsigned n = 0; n < DRIVER_READS_MAX && !d->sasl_failed; n++) {
        ssize_t got = d->server ? driver_read_server(d) : driver_read_client(d);

        if (got == 0) {
            driver_reason(d, "the peer ended the connection without saying close");
            pn_connection_driver_read_close(&d->pn);
        }
        if (got <= 0)
            return;
        d->bytes_in += (uint64_t)got;
    }
    amqp_driver_wake(d); /* the rest next turn */
}

/* ---- Events ---- */

static void driver_note_format(struct amqp_driver *d, pn_delivery_t *delivery)
{
    pn_record_t *record = pn_delivery_attachments(delivery);
    uint32_t format;

    if (pn_link_is_sender(pn_delivery_link(delivery)) || pn_record_get(record, FORMAT_KEY))
        return;
    format = amqp_frames_next_format(&d->frames);
    pn_record_def(record, FORMAT_KEY, PN_VOID);
    pn_record_set(
        record, FORMAT_KEY,
        (void *)(uintptr_t)(format == AMQP_MESSAGE_FORMAT_BATCH ? FORMAT_BATCH : FORMAT_PLAIN));
}

static void driver_before_event(struct amqp_driver *d, pn_event_t *event)
{
    switch (pn_event_type(event)) {
    case PN_DELIVERY:
        if (d->server)
            driver_note_format(d, pn_event_delivery(event));
        break;
    case PN_CONNECTION_REMOTE_CLOSE:
        driver_reason_condition(d, "", pn_connection_remote_condition(d->pn.connection));
        break;
    default:
        break;
    }
}

static void driver_after_event(struct amqp_driver *d, pn_event_t *event)
{
    switch (pn_event_type(event)) {
    case PN_CONNECTION_LOCAL_OPEN:
    case PN_CONNECTION_REMOTE_OPEN: /* from here the peer's idle time-out is known */
        driver_tick(d);
        break;
    case PN_CONNECTION_REMOTE_CLOSE:
        if (!(pn_connection_state(d->pn.connection) & PN_LOCAL_CLOSED))
            pn_connection_close(d->pn.connection);
        break;
    case PN_CONNECTION_LOCAL_CLOSE:
        driver_arm_close_wait(d);
        break;
    default:
        break;
    }
}

/* Returns whether there was more than news of the transport itself. */
static bool driver_dispatch(struct amqp_driver *d)
{
    pn_event_t *event;
    bool any = false;

    while ((event = pn_connection_driver_next_event(&d->pn))) {
        any |= pn_event_type(event) != PN_TRANSPORT;
        driver_before_event(d, event);
        d->ops->on_event(d, event, d->userdata);
        driver_after_event(d, event);
    }
    return any;
}

/* ---- Out ---- */

/* Writes from the front of @b. True when all of it is out. */
static bool driver_write_buf(struct amqp_driver *d, struct buf *b)
{
    struct span out = buf_span(b);
    ssize_t n;

    if (out.len == 0)
        return true;
    n = tls_stream_write(d->stream, out.at, out.len);
    if (n > 0) {
        buf_eat(b, (size_t)n);
        d->bytes_out += (uint64_t)n;
    }
    if (buf_len(b) > 0)
        return false;
    buf_trim(b);
    return true;
}

static void driver_write(struct amqp_driver *d)
{
    pn_bytes_t out;

    if (!d->ready || d->over)
        return;
    /* What SASL has to say goes first: proton has nothing yet. */
    if (!driver_write_buf(d, &d->sasl.out) || !driver_write_buf(d, &d->overflow))
        return;
    out = pn_connection_driver_write_buffer(&d->pn);
    while (out.size > 0) {
        ssize_t n = tls_stream_write(d->stream, out.start, out.size);

        if (n <= 0) /* on_writable follows, or on_closed */
            break;
        d->bytes_out += (uint64_t)n;
        out = pn_connection_driver_write_done(&d->pn, (size_t)n);
    }
    d->output_pending = out.size;
}

/* ---- A turn ---- */

/* After the close of both sides is out nothing more comes: proton waits for the end of the socket, we do not. */
static void driver_end_input(struct amqp_driver *d)
{
    bool both = (pn_connection_state(d->pn.connection) & (PN_LOCAL_CLOSED | PN_REMOTE_CLOSED)) ==
                (PN_LOCAL_CLOSED | PN_REMOTE_CLOSED);

    if (both && pn_connection_driver_write_closed(&d->pn) &&
        !pn_connection_driver_read_closed(&d->pn))
        pn_connection_driver_read_close(&d->pn);
}

static bool driver_finished(struct amqp_driver *d)
{
    if (d->sasl_failed)
        return buf_len(&d->sasl.out) == 0;
    return pn_connection_driver_finished(&d->pn) && buf_len(&d->overflow) == 0;
}

/* Proton has nothing to say any more. What the stream still holds is waited for, but not for ever. */
static void driver_finish(struct amqp_driver *d)
{
    if (d->ready)
        tls_stream_shutdown(d->stream);
    if (d->ready && tls_stream_pending(d->stream) > 0)
        driver_arm_close_wait(d);
    else
        driver_over(d);
}

static void driver_turn(struct amqp_driver *d)
{
    if (d->over)
        return;
    if (!d->sasl_failed) {
        driver_dispatch(d);
        if (d->ops->on_batch_end)
            d->ops->on_batch_end(d, d->userdata);
        driver_dispatch(d);
    }
    driver_write(d);
    driver_end_input(d);
    if (!d->sasl_failed && driver_dispatch(d)) /* the end of a side, most likely */
        amqp_driver_wake(d);
    if (driver_finished(d))
        driver_finish(d);
}

static int driver_on_turn(sd_event_source *source, void *userdata)
{
    struct amqp_driver *d = userdata;

    if (d->ready)
        driver_read(d);
    driver_turn(d);
    return 0;
}

/* ---- The stream ---- */

static void stream_on_ready(struct tls_stream *stream, void *userdata)
{
    struct amqp_driver *d = userdata;

    d->ready = true;
    driver_turn(d);
}

static void stream_on_readable(struct tls_stream *stream, void *userdata)
{
    struct amqp_driver *d = userdata;

    driver_read(d);
    driver_turn(d);
}

/* The turn goes on with what had to wait; its owner may send more now. */
static void stream_on_writable(struct tls_stream *stream, void *userdata)
{
    struct amqp_driver *d = userdata;

    driver_write(d);
    driver_turn(d);
}

static void stream_on_closed(struct tls_stream *stream, int error, const char *reason,
                             void *userdata)
{
    struct amqp_driver *d = userdata;

    driver_reason(d, reason);
    d->ready = false;
    pn_connection_driver_close(&d->pn);
    driver_dispatch(d);
    driver_over(d);
}

static const struct tls_stream_ops stream_ops = {
    .on_ready = stream_on_ready,
    .on_readable = stream_on_readable,
    .on_writable = stream_on_writable,
    .on_closed = stream_on_closed,
};

/* ---- For owners ---- */

static int driver_add_sources(struct amqp_driver *d)
{
    int r;

    r = sd_event_add_defer(d->event, &d->turn, driver_on_turn, d);
    if (r < 0)
        return r;
    r = sd_event_add_time(d->event, &d->tick, CLOCK_MONOTONIC, 0, 0, driver_on_tick, d);
    if (r < 0)
        return r;
    r = sd_event_add_time(d->event, &d->close_wait, CLOCK_MONOTONIC, 0, 0, driver_on_close_wait, d);
    if (r < 0)
        return r;
    sd_event_source_set_exit_on_failure(d->turn, true);
    sd_event_source_set_exit_on_failure(d->tick, true);
    sd_event_source_set_exit_on_failure(d->close_wait, true);
    sd_event_source_set_enabled(d->tick, SD_EVENT_OFF);
    sd_event_source_set_enabled(d->close_wait, SD_EVENT_OFF);
    return 0;
}

int amqp_driver_new_take(sd_event *event, struct tls_stream *stream, bool server,
                         const struct amqp_driver_ops *ops, void *userdata,
                         struct amqp_driver **ret)
{
    _cleanup_(amqp_driver_freep) struct amqp_driver *d = xnew(struct amqp_driver);
    int r;

    d->stream = stream;
    d->ops = ops;
    d->userdata = userdata;
    d->event = sd_event_ref(event);
    d->server = server;
    d->tick_usec = UINT64_MAX;
    if (pn_connection_driver_init(&d->pn, NULL, NULL) != 0)
        return -ENOMEM;
    if (server)
        pn_transport_set_server(d->pn.transport);
    pn_transport_set_max_frame(d->pn.transport, DRIVER_FRAME_MAX);
    pn_transport_set_channel_max(d->pn.transport, DRIVER_CHANNEL_MAX);
    r = driver_add_sources(d);
    if (r < 0)
        return r;
    tls_stream_set_ops(stream, &stream_ops, d);
    d->ready = SSL_is_init_finished(tls_stream_ssl(stream)); /* else on_ready follows */
    *ret = TAKE_PTR(d);
    return 0;
}

struct amqp_driver *amqp_driver_free(struct amqp_driver *d)
{
    if (!d)
        return NULL;
    sd_event_source_disable_unref(d->turn);
    sd_event_source_disable_unref(d->tick);
    sd_event_source_disable_unref(d->close_wait);
    tls_stream_free(d->stream);
    if (d->pn.transport)
        pn_connection_driver_destroy(&d->pn);
    amqp_sasl_done(&d->sasl);
    amqp_frames_done(&d->frames);
    buf_done(&d->overflow);
    sd_event_unref(d->event);
    free(d);
    return NULL;
}

pn_connection_t *amqp_driver_connection(struct amqp_driver *d)
{
    return d->pn.connection;
}

pn_transport_t *amqp_driver_transport(struct amqp_driver *d)
{
    return d->pn.transport;
}

void amqp_driver_wake(struct amqp_driver *d)
{
    int r;

    if (d->over)
        return;
    r = sd_event_source_set_enabled(d->turn, SD_EVENT_ONESHOT);
    assert(r >= 0);
}

/* Proton turns what was asked of it into frames only while its output buffer has room. So what the stream does not take is
 * moved out of its way: the order that the caller wants holds under backpressure, too. */
void amqp_driver_flush(struct amqp_driver *d)
{
    pn_bytes_t out;

    driver_write(d);
    if (d->over || !d->ready)
        return;
    out = pn_connection_driver_write_buffer(&d->pn);
    while (out.size > 0) {
        buf_append(&d->overflow, out.start, out.size);
        out = pn_connection_driver_write_done(&d->pn, out.size);
    }
    d->output_pending = 0;
}

void amqp_driver_close(struct amqp_driver *d, const char *condition, const char *description)
{
    pn_connection_t *connection = d->pn.connection;

    if (d->over || pn_connection_state(connection) & PN_LOCAL_CLOSED)
        return;
    if (condition) {
        pn_condition_set_name(pn_connection_condition(connection), condition);
        if (description)
            pn_condition_set_description(pn_connection_condition(connection), description);
    }
    driver_reason_condition(d, "closed by us: ", pn_connection_condition(connection));
    driver_reason(d, "closed by us");
    pn_connection_open(connection); /* a close has to follow an open; no harm when it was */
    pn_connection_close(connection);
    driver_arm_close_wait(d);
    amqp_driver_wake(d);
}

uint32_t amqp_driver_message_format(struct amqp_driver *d, pn_delivery_t *delivery)
{
    void *format = pn_record_get(pn_delivery_attachments(delivery), FORMAT_KEY);

    return (uintptr_t)format == FORMAT_BATCH ? AMQP_MESSAGE_FORMAT_BATCH : 0;
}

size_t amqp_driver_output_pending(const struct amqp_driver *d)
{
    return d->output_pending + buf_len(&d->overflow);
}

uint64_t amqp_driver_bytes_in(const struct amqp_driver *d)
{
    return d->bytes_in;
}

uint64_t amqp_driver_bytes_out(const struct amqp_driver *d)
{
    return d->bytes_out;
}
