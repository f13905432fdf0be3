#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "amqp-driver.h"
#include "amqp-message.h"
#include "buf.h"
#include "test-authority.h"

enum { HANDSHAKE_USEC = 20 * 1000000, LOOP_USEC = 20 * 1000000 };
enum { DELIVERIES = 3000, BODY = 256, LARGE = 200000 };

/* One end: a driver, and what it saw. */
struct end {
    struct amqp_driver *driver;
    bool answers; /* opens and accepts whatever the other end begins */
    pn_link_t *link;
    unsigned opened, closed, settled, accepted, received, batch_ends;
    uint64_t received_bytes;
    bool flush_after_settle;
    char order[64]; /* what came, a letter each */
    char reason[256];
};

static sd_event *event;
static struct test_authority authority;
static SSL_CTX *server_context, *client_context;
static struct end server, client;

static void note(struct end *e, char what)
{
    size_t len = strlen(e->order);

    if (len + 1 < sizeof(e->order))
        e->order[len] = what;
}

static void end_open_back(struct end *e, pn_event_t *ev)
{
    pn_link_t *link = pn_event_link(ev);

    switch (pn_event_type(ev)) {
    case PN_CONNECTION_REMOTE_OPEN:
        pn_connection_open(pn_event_connection(ev));
        break;
    case PN_SESSION_REMOTE_OPEN:
        pn_session_open(pn_event_session(ev));
        break;
    case PN_LINK_REMOTE_OPEN:
        pn_terminus_copy(pn_link_source(link), pn_link_remote_source(link));
        pn_terminus_copy(pn_link_target(link), pn_link_remote_target(link));
        pn_link_open(link);
        if (pn_link_is_receiver(link))
            pn_link_flow(link, DELIVERIES);
        e->link = link;
        break;
    default:
        break;
    }
}

static void end_receive(struct end *e, pn_delivery_t *delivery)
{
    char bytes[4096];
    ssize_t n;

    while ((n = pn_link_recv(pn_delivery_link(delivery), bytes, sizeof(bytes))) > 0)
        e->received_bytes += (uint64_t)n;
    if (pn_delivery_partial(delivery))
        return;
    note(e,
         amqp_driver_message_format(e->driver, delivery) == AMQP_MESSAGE_FORMAT_BATCH ? 'b' : 'm');
    e->received++;
    pn_delivery_update(delivery, PN_ACCEPTED);
    pn_delivery_settle(delivery);
    if (e->flush_after_settle)
        amqp_driver_flush(e->driver);
}

static void end_on_event(struct amqp_driver *driver, pn_event_t *ev, void *userdata)
{
    struct end *e = userdata;
    pn_delivery_t *delivery = pn_event_delivery(ev);

    if (e->answers)
        end_open_back(e, ev);
    if (pn_event_type(ev) == PN_CONNECTION_REMOTE_OPEN)
        e->opened++;
    if (pn_event_type(ev) != PN_DELIVERY)
        return;
    if (pn_link_is_receiver(pn_delivery_link(delivery))) {
        end_receive(e, delivery);
    } else if (pn_delivery_updated(delivery)) {
        note(e, 's');
        e->settled++;
        e->accepted += pn_delivery_remote_state(delivery) == PN_ACCEPTED;
        pn_delivery_settle(delivery);
    }
}

static void end_on_batch_end(struct amqp_driver *driver, void *userdata)
{
    struct end *e = userdata;

    e->batch_ends++;
}

static void end_on_closed(struct amqp_driver *driver, const char *reason, void *userdata)
{
    struct end *e = userdata;

    e->closed++;
    snprintf(e->reason, sizeof(e->reason), "%s", reason);
    e->driver = amqp_driver_free(e->driver);
}

static const struct amqp_driver_ops end_ops = {
    .on_event = end_on_event,
    .on_batch_end = end_on_batch_end,
    .on_closed = end_on_closed,
};

#define RUN_UNTIL(condition)                                                                       \
    while (!(condition))                                                                           \
    assert_true(sd_event_run(event, LOOP_USEC) > 0)

static void nothing_on_stream(struct tls_stream *stream, void *userdata) {}

static void nothing_on_closed(struct tls_stream *stream, int error, const char *reason,
                              void *userdata)
{
}

static const struct tls_stream_ops no_ops = { nothing_on_stream, nothing_on_stream,
                                              nothing_on_stream, nothing_on_closed };

static void end_start(struct end *e, SSL_CTX *context, int fd, const char *server_name)
{
    struct tls_stream *stream;

    assert_int_equal(tls_stream_new_take(event, context, fd, server_name, HANDSHAKE_USEC, &no_ops,
                                         NULL, &stream),
                     0);
    assert_int_equal(amqp_driver_new_take(event, stream, !server_name, &end_ops, e, &e->driver), 0);
    e->answers = !server_name;
}

static void start_ends(void)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    end_start(&server, server_context, fds[0], NULL);
    end_start(&client, client_context, fds[1], "localhost");
    pn_connection_set_container(amqp_driver_connection(client.driver), "client");
    pn_connection_open(amqp_driver_connection(client.driver));
    RUN_UNTIL(client.opened);
}

static pn_link_t *client_attach(void)
{
    pn_session_t *session = pn_session(amqp_driver_connection(client.driver));
    pn_link_t *link = pn_sender(session, "s");

    pn_session_open(session);
    pn_terminus_set_address(pn_link_target(link), "/devices/d/messages/events");
    pn_link_open(link);
    amqp_driver_wake(client.driver);
    RUN_UNTIL(pn_link_credit(link) > 0);
    return link;
}

static void client_send(pn_link_t *link, unsigned number, size_t len)
{
    static char body[LARGE];

    pn_delivery(link, pn_dtag((const char *)&number, sizeof(number)));
    assert_int_equal(pn_link_send(link, body, len), len);
    pn_link_advance(link);
}

static int setup(void **state)
{
    char *chain, *key;

    assert_true(sd_event_new(&event) >= 0);
    test_authority_init(&authority);
    test_authority_issue(&authority, "DNS:localhost", &chain, &key);
    assert_int_equal(tls_server_context(chain, key, false, &server_context), 0);
    assert_int_equal(tls_client_context(NULL, &client_context), 0);
    test_authority_trust(&authority, client_context);
    free(chain);
    free(key);
    return 0;
}

static int teardown(void **state)
{
    SSL_CTX_free(server_context);
    SSL_CTX_free(client_context);
    test_authority_done(&authority);
    event = sd_event_unref(event);
    return 0;
}

static int teardown_ends(void **state)
{
    amqp_driver_free(server.driver);
    amqp_driver_free(client.driver);
    server = client = (struct end){};
    return 0;
}

/* ---- Tests ---- */

static void test_send_many(void **state)
{
    pn_link_t *link;

    start_ends();
    link = client_attach();
    for (unsigned n = 0; n < DELIVERIES; n++)
        client_send(link, n, BODY);
    amqp_driver_wake(client.driver);
    RUN_UNTIL(client.accepted == DELIVERIES);
    assert_int_equal(server.received, DELIVERIES);
    assert_int_equal(server.received_bytes, DELIVERIES * BODY);
    assert_int_equal(amqp_driver_output_pending(client.driver), 0);
    assert_true(amqp_driver_bytes_out(client.driver) > DELIVERIES * BODY);
    assert_int_equal(amqp_driver_bytes_in(server.driver), amqp_driver_bytes_out(client.driver));
    assert_true(client.batch_ends > 0);
}

/* A message of several frames arrives whole; the output beyond the socket's buffer waits and is told of. */
static void test_send_large(void **state)
{
    pn_link_t *link;

    start_ends();
    link = client_attach();
    for (unsigned n = 0; n < 10; n++)
        client_send(link, n, LARGE);
    amqp_driver_flush(client.driver);
    assert_true(amqp_driver_output_pending(client.driver) > LARGE);
    RUN_UNTIL(client.accepted == 10);
    assert_int_equal(server.received_bytes, 10 * LARGE);
    assert_int_equal(amqp_driver_output_pending(client.driver), 0);
}

static void test_close_orderly(void **state)
{
    start_ends();
    amqp_driver_close(client.driver, "amqp:connection:forced", "bye");
    RUN_UNTIL(client.closed && server.closed);
    assert_string_equal(server.reason, "amqp:connection:forced: bye");
    assert_string_equal(client.reason, "closed by us: amqp:connection:forced: bye");
}

static void test_close_plain(void **state)
{
    start_ends();
    amqp_driver_close(server.driver, NULL, NULL);
    RUN_UNTIL(client.closed && server.closed);
    assert_string_equal(server.reason, "closed by us");
    assert_string_equal(client.reason, "closed");
}

static void test_peer_vanishes(void **state)
{
    start_ends();
    server.driver = amqp_driver_free(server.driver);
    RUN_UNTIL(client.closed);
    assert_int_equal(client.closed, 1);
    assert_string_equal(client.reason, "closed by the peer without a goodbye");
}

/* A client that ends TLS in order but says no close. */
static void test_peer_ends_without_close(void **state)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    end_start(&server, server_context, fds[0], NULL);
    end_start(&client, client_context, fds[1], "somebody.else");
    RUN_UNTIL(client.closed && server.closed);
    assert_non_null(strstr(client.reason, "certificate"));
}

/* ---- A peer that is not proton ---- */

struct raw {
    struct tls_stream *stream;
    struct buf received;
    bool ready, closed;
};

static void raw_on_ready(struct tls_stream *stream, void *userdata)
{
    ((struct raw *)userdata)->ready = true;
}

static void raw_on_readable(struct tls_stream *stream, void *userdata)
{
    struct raw *raw = userdata;
    ssize_t n = tls_stream_read(stream, buf_reserve(&raw->received, 4096), 4096);

    if (n > 0)
        buf_commit(&raw->received, (size_t)n);
}

static void raw_on_closed(struct tls_stream *stream, int error, const char *reason, void *userdata)
{
    ((struct raw *)userdata)->closed = true;
}

static const struct tls_stream_ops raw_ops = { raw_on_ready, raw_on_readable, nothing_on_stream,
                                               raw_on_closed };

static void raw_start(struct raw *raw)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    end_start(&server, server_context, fds[0], NULL);
    assert_int_equal(tls_stream_new_take(event, client_context, fds[1], "localhost", HANDSHAKE_USEC,
                                         &raw_ops, raw, &raw->stream),
                     0);
    RUN_UNTIL(raw->ready);
}

static void raw_write(struct raw *raw, struct span bytes)
{
    assert_int_equal(tls_stream_write(raw->stream, bytes.at, bytes.len), bytes.len);
}

static void raw_done(struct raw *raw)
{
    tls_stream_free(raw->stream);
    buf_done(&raw->received);
}

#define SASL "AMQP\x03\x01\x00\x00"
#define BARE "AMQP\x00\x01\x00\x00"
#define INIT "\x00\x00\x00\x19\x02\x01\x00\x00\x00\x53\x41\xc0\x0c\x02\xa3\x07MSSBCBS\xa0\x00"
#define OPEN                                                                                       \
    "\x00\x00\x00\x11\x02\x00\x00\x00\x00\x53\x10\xc0\x04\x01\xa1\x01"                             \
    "c"
/* begin{null, next-outgoing-id 0, windows 2048} */
#define BEGIN                                                                                      \
    "\x00\x00\x00\x1a\x02\x00\x00\x00\x00\x53\x11\xc0\x0d\x04\x40\x43\x70\x00\x00\x08\x00\x70\x00" \
    "\x00\x08\x00"
/* attach{name "l", handle 0, role sender, …, source [], target [], …, initial-delivery-count 0} */
#define ATTACH                                                                                     \
    "\x00\x00\x00\x20\x02\x00\x00\x00\x00\x53\x12\xc0\x13\x0a\xa1\x01l\x43\x42\x40\x40"            \
    "\x00\x53\x28\x45\x00\x53\x29\x45\x40\x42\x43"
#define TRANSFER(id, format)                                                                       \
    "\x00\x00\x00\x1e\x02\x00\x00\x00\x00\x53\x14\xc0\x0d\x05\x43\x52" id "\xa0\x01t\x70" format   \
    "\x42"                                                                                         \
    "body"

/* As the C SDK begins: SASL first, and every message a batch. */
static void test_sasl_and_batch_format(void **state)
{
    struct raw raw = {};

    raw_start(&raw);
    raw_write(&raw, SPAN(SASL INIT));
    RUN_UNTIL(buf_len(&raw.received) >= 8 + 36 + 16);
    assert_memory_equal(buf_span(&raw.received).at, SASL, 8);
    raw_write(&raw, SPAN(BARE OPEN BEGIN ATTACH));
    RUN_UNTIL(server.link);
    raw_write(&raw, SPAN(TRANSFER("\x00", "\x00\x00\x00\x00") TRANSFER("\x01", "\x80\x01\x37\x00")
                             TRANSFER("\x02", "\x00\x00\x00\x00")));
    RUN_UNTIL(server.received == 3);
    assert_string_equal(server.order, "mbm");
    raw_done(&raw);
    RUN_UNTIL(server.closed);
}

static void test_sasl_refused(void **state)
{
    struct raw raw = {};

    raw_start(&raw);
    raw_write(&raw, SPAN(SASL "\x00\x00\x00\x18\x02\x01\x00\x00\x00\x53\x41\xc0\x0b\x01\xa3\x08"
                              "EXTERNAL"));
    RUN_UNTIL(server.closed && raw.closed);
    assert_int_equal(buf_len(&raw.received), 8 + 36 + 16);
    assert_int_equal(buf_span(&raw.received).at[8 + 36 + 15], 1);
    assert_non_null(strstr(server.reason, "SASL"));
    raw_done(&raw);
}

static void test_garbage(void **state)
{
    struct raw raw = {};

    raw_start(&raw);
    raw_write(&raw, SPAN("GET / HTTP/1.1\r\nHost: lab\r\n\r\n"));
    RUN_UNTIL(server.closed && raw.closed);
    assert_non_null(strstr(server.reason, "framing-error"));
    raw_done(&raw);
}

/* The disposition must be out before the transfer that answers it (amqp.md §4.3). */
static void test_flush_keeps_order(void **state)
{
    pn_link_t *up, *down;

    start_ends();
    up = client_attach();
    down = pn_receiver(pn_link_session(up), "r");
    pn_link_open(down);
    pn_link_flow(down, 10);
    amqp_driver_wake(client.driver);
    RUN_UNTIL(server.link && pn_link_is_sender(server.link) && pn_link_credit(server.link) > 0);
    server.flush_after_settle = true;
    client_send(up, 1, 8);
    amqp_driver_wake(client.driver);
    RUN_UNTIL(server.received == 1);
    client_send(server.link, 2, 8);
    amqp_driver_wake(server.driver);
    RUN_UNTIL(client.received == 1 && client.settled == 1);
    assert_string_equal(client.order, "sm");
}

#define driver_test(f) cmocka_unit_test_teardown(f, teardown_ends)

int main(void)
{
    const struct CMUnitTest tests[] = {
        driver_test(test_send_many),
        driver_test(test_send_large),
        driver_test(test_close_orderly),
        driver_test(test_close_plain),
        driver_test(test_peer_vanishes),
        driver_test(test_peer_ends_without_close),
        driver_test(test_sasl_and_batch_format),
        driver_test(test_sasl_refused),
        driver_test(test_garbage),
        driver_test(test_flush_keeps_order),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
