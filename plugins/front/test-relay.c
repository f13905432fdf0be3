/* A relay between a TLS client and a listener, both in this process and this loop. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "buf.h"
#include "listener.pb-c.h"
#include "relay.h"
#include "test-authority.h"
#include "test-sockets.h"

enum {
    LOOP_USEC = 20 * 1000000,
    HANDSHAKE_USEC = 20 * 1000000,
    PATIENCE_USEC = 300 * 1000,
    LINGER_USEC = 200 * 1000
};

/* The listener's end of a stream. */
struct listener {
    int socket, fd;
    sd_event_source *accept, *io;
    struct buf received;
    bool eof;
};

/* The client's end. */
struct peer {
    struct tls_stream *tls;
    struct buf received;
    unsigned ready, writable, closed;
    int error;
};

static struct test_authority authority;
static SSL_CTX *server_context, *client_context;
static sd_event *event;
static char dir[32];
static struct relay_host host;
static struct target target;
static struct listener listener;
static struct peer client;
static unsigned ended;
static enum relay_end end;
static char end_reason[128];

#define RUN_UNTIL(condition)                                                                       \
    while (!(condition))                                                                           \
    assert_true(sd_event_run(event, LOOP_USEC) > 0)

static void run_what_is_due(void)
{
    while (sd_event_run(event, 0) > 0)
        ;
}

/* ---- the listener ---- */

static int listener_on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    ssize_t n = recv(fd, buf_reserve(&listener.received, 65536), 65536, MSG_DONTWAIT);

    if (n > 0)
        buf_commit(&listener.received, (size_t)n);
    else if (n == 0 || errno != EAGAIN) {
        listener.eof = true;
        listener.io = sd_event_source_disable_unref(listener.io);
    }
    return 0;
}

static void listener_read(void)
{
    assert_true(sd_event_add_io(event, &listener.io, listener.fd, EPOLLIN, listener_on_io, NULL) >=
                0);
}

static int listener_on_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    assert_int_equal(listener.fd, -1);
    listener.fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(listener.fd >= 0);
    return 0;
}

static void listener_open(int backlog)
{
    listener.socket = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(
        bind(listener.socket, (struct sockaddr *)&target.address, sizeof(target.address)), 0);
    assert_int_equal(listen(listener.socket, backlog), 0);
    assert_true(sd_event_add_io(event, &listener.accept, listener.socket, EPOLLIN,
                                listener_on_accept, NULL) >= 0);
}

static void listener_close(void)
{
    listener.io = sd_event_source_disable_unref(listener.io);
    listener.fd = close_fd(listener.fd);
}

/* Takes the preamble off what was received; the caller frees it. */
static Bus__Preamble *listener_take_preamble(void)
{
    Bus__Preamble *preamble;
    const unsigned char *at;
    size_t len;

    RUN_UNTIL(buf_len(&listener.received) >= 4);
    at = (const unsigned char *)buf_span(&listener.received).at;
    len = (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
    RUN_UNTIL(buf_len(&listener.received) >= 4 + len);
    preamble =
        bus__preamble__unpack(NULL, len, (const uint8_t *)buf_span(&listener.received).at + 4);
    assert_non_null(preamble);
    buf_eat(&listener.received, 4 + len);
    return preamble;
}

static void listener_skip_preamble(void)
{
    bus__preamble__free_unpacked(listener_take_preamble(), NULL);
}

/* ---- the client ---- */

static void peer_on_ready(struct tls_stream *tls, void *userdata)
{
    client.ready++;
}

static void peer_on_readable(struct tls_stream *tls, void *userdata)
{
    ssize_t n = tls_stream_read(tls, buf_reserve(&client.received, 65536), 65536);

    if (n > 0)
        buf_commit(&client.received, (size_t)n);
}

static void peer_on_writable(struct tls_stream *tls, void *userdata)
{
    client.writable++;
}

static void peer_on_closed(struct tls_stream *tls, int error, const char *reason, void *userdata)
{
    client.closed++;
    client.error = error;
}

static const struct tls_stream_ops peer_ops = {
    .on_ready = peer_on_ready,
    .on_readable = peer_on_readable,
    .on_writable = peer_on_writable,
    .on_closed = peer_on_closed,
};

static void on_end(struct relay *relay, enum relay_end why, const char *reason, void *userdata)
{
    assert_ptr_equal(userdata, &host);
    assert_string_equal(relay_socket_name(relay), "mqtts");
    ended++;
    end = why;
    snprintf(end_reason, sizeof(end_reason), "%s", reason);
}

static int relay_pair(bool (*make_pair)(int fds[2]))
{
    union relay_address address = { .in = { .sin_family = AF_INET, .sin_port = htons(50123) } };
    int fds[2];

    inet_pton(AF_INET, "192.0.2.7", &address.in.sin_addr);
    assert_true(make_pair(fds));
    assert_int_equal(
        relay_new_take(&host, server_context, fds[0], &address, "mqtts", &target, NULL), 0);
    return fds[1];
}

static void client_connect_over(bool (*make_pair)(int fds[2]))
{
    assert_int_equal(tls_stream_new_take(event, client_context, relay_pair(make_pair), "localhost",
                                         HANDSHAKE_USEC, &peer_ops, NULL, &client.tls),
                     0);
    RUN_UNTIL(client.ready);
}

static void client_connect(void)
{
    client_connect_over(test_socket_pair);
}

/* Connected through, the preamble read. */
static void connect_through_over(bool (*make_pair)(int fds[2]))
{
    listener_open(8);
    client_connect_over(make_pair);
    RUN_UNTIL(listener.fd >= 0);
    listener_read();
    listener_skip_preamble();
}

static void connect_through(void)
{
    connect_through_over(test_socket_pair);
}

static void client_write(const char *text)
{
    assert_int_equal(tls_stream_write(client.tls, text, strlen(text)), strlen(text));
}

static void listener_write(const char *text)
{
    assert_int_equal(send(listener.fd, text, strlen(text), 0), strlen(text));
}

static void expect(struct buf *received, const char *text)
{
    RUN_UNTIL(buf_len(received) >= strlen(text));
    assert_true(span_equal(buf_span(received), span_str(text)));
    buf_eat(received, strlen(text));
}

static char *pattern(size_t len)
{
    char *data = xalloc0(len);

    for (size_t i = 0; i < len; i++)
        data[i] = (char)(i * 131 + (i >> 13));
    return data;
}

/* ---- life of a test ---- */

static int group_set_up(void **state)
{
    _cleanup_(freep) char *chain = NULL, *key = NULL;

    test_authority_init(&authority);
    test_authority_issue(&authority, "DNS:localhost", &chain, &key);
    assert_int_equal(tls_server_context(chain, key, true, &server_context), 0);
    return 0;
}

static int group_tear_down(void **state)
{
    SSL_CTX_free(server_context);
    test_authority_done(&authority);
    return 0;
}

static int set_up(void **state)
{
    strcpy(dir, "/tmp/brink-relay-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_true(sd_event_new(&event) >= 0);
    assert_int_equal(target_init(&target, event, dir, "mqtt.sock", PATIENCE_USEC), 0);
    assert_int_equal(tls_client_context(NULL, &client_context), 0);
    test_authority_trust(&authority, client_context);
    host.event = event;
    host.handshake_usec = HANDSHAKE_USEC;
    host.linger_usec = LINGER_USEC;
    host.on_end = on_end;
    host.userdata = &host;
    listener = (struct listener){ .socket = -1, .fd = -1 };
    client = (struct peer){};
    ended = 0;
    return 0;
}

static int tear_down(void **state)
{
    while (host.relays)
        relay_free(host.relays);
    assert_int_equal(host.count, 0);
    target_done(&target);
    tls_stream_free(client.tls);
    buf_done(&client.received);
    listener_close();
    sd_event_source_disable_unref(listener.accept);
    close_fd(listener.socket);
    buf_done(&listener.received);
    SSL_CTX_free(client_context);
    event = sd_event_unref(event);
    unlink(target.address.sun_path);
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

/* ---- beginning ---- */

static void test_preamble_without_certificate(void **state)
{
    Bus__Preamble *preamble;

    listener_open(8);
    client_connect();
    RUN_UNTIL(listener.fd >= 0);
    listener_read();
    preamble = listener_take_preamble();
    assert_string_equal(preamble->peer_address, "192.0.2.7:50123");
    assert_string_equal(preamble->local_socket, "mqtts");
    assert_string_equal(preamble->tls_version, "TLSv1.3");
    assert_string_equal(preamble->tls_cipher, SSL_get_cipher_name(tls_stream_ssl(client.tls)));
    assert_string_equal(preamble->server_name, "localhost");
    assert_int_equal(preamble->n_certificate_chain, 0);
    bus__preamble__free_unpacked(preamble, NULL);
}

static void expect_der(const ProtobufCBinaryData *der, X509 *want)
{
    const unsigned char *at = der->data;
    X509 *certificate = d2i_X509(NULL, &at, (long)der->len);

    assert_non_null(certificate);
    assert_int_equal(X509_cmp(certificate, want), 0);
    X509_free(certificate);
}

static void test_preamble_with_certificate(void **state)
{
    struct test_authority strangers;
    EVP_PKEY *key;
    Bus__Preamble *preamble;
    X509 *leaf;

    test_authority_init(&strangers);
    leaf = test_certificate(&strangers, "thermostat", "DNS:thermostat", &key);
    SSL_CTX_use_certificate(client_context, leaf);
    SSL_CTX_add1_chain_cert(client_context, strangers.certificate);
    SSL_CTX_use_PrivateKey(client_context, key);
    listener_open(8);
    client_connect();
    RUN_UNTIL(listener.fd >= 0);
    listener_read();
    preamble = listener_take_preamble();
    assert_int_equal(preamble->n_certificate_chain, 2);
    expect_der(&preamble->certificate_chain[0], leaf);
    expect_der(&preamble->certificate_chain[1], strangers.certificate);
    bus__preamble__free_unpacked(preamble, NULL);
    X509_free(leaf);
    EVP_PKEY_free(key);
    test_authority_done(&strangers);
}

static void test_handshake_refused(void **state)
{
    int fd;

    listener_open(8);
    fd = relay_pair(test_socket_pair);
    assert_int_equal(write(fd, "\x10\x0c\0\4MQTT", 8), 8);
    RUN_UNTIL(ended);
    assert_int_equal(end, RELAY_END_HANDSHAKE);
    assert_string_equal(end_reason, "the peer speaks no TLS");
    assert_int_equal(host.count, 0);
    run_what_is_due();
    assert_int_equal(listener.fd, -1); /* the listener never heard of it */
    close(fd);
}

static void test_listener_comes_late(void **state)
{
    client_connect();
    client_write("patient");
    assert_non_null(host.relays);
    listener_open(8);
    RUN_UNTIL(listener.fd >= 0);
    listener_read();
    listener_skip_preamble();
    expect(&listener.received, "patient");
    assert_int_equal(ended, 0);
}

static void test_listener_stays_away(void **state)
{
    client_connect();
    RUN_UNTIL(ended && client.closed);
    assert_int_equal(end, RELAY_END_NO_LISTENER);
    assert_int_equal(client.error, 0);
}

static void test_client_goes_while_it_waits(void **state)
{
    client_connect();
    RUN_UNTIL(target.first);
    client.tls = tls_stream_free(client.tls);
    RUN_UNTIL(ended); /* at the latest when nobody waits for it any more */
    assert_null(target.first);
    assert_int_equal(host.count, 0);
}

/* ---- bytes ---- */

static void test_both_ways(void **state)
{
    connect_through();
    for (unsigned i = 0; i < 3; i++) {
        client_write("up");
        expect(&listener.received, "up");
        listener_write("down");
        expect(&client.received, "down");
    }
}

static void test_client_faster_than_listener(void **state)
{
    const size_t len = 6 << 20;
    _cleanup_(freep) char *data = pattern(len);
    size_t sent = 0;

    connect_through();
    sd_event_source_set_enabled(listener.io, SD_EVENT_OFF);
    for (unsigned before = 0; client.writable + 1 > before; before++) {
        sent += (size_t)tls_stream_write(client.tls, data + sent, len - sent);
        run_what_is_due();
        if (tls_stream_pending(client.tls) > 0)
            break; /* nobody takes any more: the way is full */
    }
    assert_true(sent < len / 2);

    sd_event_source_set_enabled(listener.io, SD_EVENT_ON);
    while (sent < len) {
        unsigned before = client.writable;

        sent += (size_t)tls_stream_write(client.tls, data + sent, len - sent);
        if (sent < len)
            RUN_UNTIL(client.writable > before);
    }
    RUN_UNTIL(buf_len(&listener.received) == len);
    assert_memory_equal(buf_span(&listener.received).at, data, len);
}

/* What the listener's socket takes until all is full. */
static size_t listener_fill(const char *data, size_t len)
{
    size_t sent = 0;

    for (;;) {
        ssize_t n = send(listener.fd, data + sent, len - sent, MSG_DONTWAIT);

        if (n > 0)
            sent += (size_t)n;
        if (sent == len || (n < 0 && sd_event_run(event, 0) == 0))
            return sent;
    }
}

static void test_listener_faster_than_client(void **state)
{
    const size_t len = 6 << 20;
    _cleanup_(freep) char *data = pattern(len);
    size_t sent;

    connect_through();
    tls_stream_pause(client.tls, true);
    sent = listener_fill(data, len);
    assert_true(sent < len / 2);
    tls_stream_pause(client.tls, false);
    while (sent < len) {
        size_t before = buf_len(&client.received);

        sent += listener_fill(data + sent, len - sent);
        if (sent < len)
            RUN_UNTIL(buf_len(&client.received) > before);
    }
    RUN_UNTIL(buf_len(&client.received) == len);
    assert_memory_equal(buf_span(&client.received).at, data, len);
}

/* ---- the end ---- */

static void test_client_ends(void **state)
{
    connect_through();
    client_write("bye");
    tls_stream_shutdown(client.tls);
    RUN_UNTIL(ended && listener.eof);
    assert_true(span_equal(buf_span(&listener.received), SPAN("bye")));
    assert_int_equal(end, RELAY_END_CLIENT);
    assert_int_equal(host.count, 0);
}

static void test_client_ends_behind_a_slow_listener(void **state)
{
    const size_t len = 1 << 20;
    _cleanup_(freep) char *data = pattern(len);
    size_t sent = 0;

    connect_through();
    sd_event_source_set_enabled(listener.io, SD_EVENT_OFF);
    while (tls_stream_pending(client.tls) == 0) {
        sent += (size_t)tls_stream_write(client.tls, data + sent, 20000);
        run_what_is_due();
    }
    tls_stream_shutdown(client.tls); /* queued behind what waits */
    run_what_is_due();
    assert_int_equal(ended, 0);
    sd_event_source_set_enabled(listener.io, SD_EVENT_ON);
    RUN_UNTIL(listener.eof);
    assert_int_equal(buf_len(&listener.received), sent);
    assert_memory_equal(buf_span(&listener.received).at, data, sent);
    RUN_UNTIL(ended);
    assert_int_equal(end, RELAY_END_CLIENT);
}

/* A listener that reads nothing must not hold a dead client for ever. */
static void test_client_is_reset_and_listener_hangs(void **state)
{
    const size_t len = 64 << 10;
    _cleanup_(freep) char *data = pattern(len);

    connect_through_over(test_tcp_pair);
    sd_event_source_set_enabled(listener.io, SD_EVENT_OFF);
    while (tls_stream_pending(client.tls) == 0) {
        (void)tls_stream_write(client.tls, data, len);
        run_what_is_due();
    }
    assert_true(test_close_resets(tls_stream_fd(client.tls)));
    client.tls = tls_stream_free(client.tls);
    RUN_UNTIL(ended);
    assert_int_equal(end, RELAY_END_CLIENT);
    assert_string_equal(end_reason, "the other side did not take what was left");
    assert_int_equal(host.count, 0);
}

static void test_listener_ends_with_last_words(void **state)
{
    connect_through();
    listener_write("last words");
    listener_close();
    RUN_UNTIL(client.closed);
    assert_int_equal(client.error, 0);
    assert_true(span_equal(buf_span(&client.received), SPAN("last words")));
    client.tls = tls_stream_free(client.tls);
    RUN_UNTIL(ended);
    assert_int_equal(end, RELAY_END_LISTENER);
}

/* The client went on talking; the refusal reaches it all the same. */
static void test_listener_ends_unread(void **state)
{
    connect_through();
    sd_event_source_set_enabled(listener.io, SD_EVENT_OFF);
    client_write("CONNECT and what was sent behind it");
    run_what_is_due();
    listener_write("refused");
    listener_close();
    client_write("more");
    RUN_UNTIL(client.closed);
    assert_true(span_equal(buf_span(&client.received), SPAN("refused")));
    assert_int_equal(client.error, 0);
}

static void test_listener_ends_much_unread_by_client(void **state)
{
    const size_t len = 4 << 20;
    _cleanup_(freep) char *data = pattern(len);
    size_t sent;

    connect_through();
    tls_stream_pause(client.tls, true);
    sent = listener_fill(data, len);
    listener_close();
    run_what_is_due();
    tls_stream_pause(client.tls, false);
    RUN_UNTIL(client.closed);
    assert_int_equal(buf_len(&client.received), sent);
    assert_memory_equal(buf_span(&client.received).at, data, sent);
    assert_int_equal(client.error, 0);
}

static void test_listener_ends_and_client_hangs(void **state)
{
    const size_t len = 4 << 20;
    _cleanup_(freep) char *data = pattern(len);

    connect_through();
    tls_stream_pause(client.tls, true);
    listener_fill(data, len);
    listener_close();
    RUN_UNTIL(ended);
    assert_int_equal(end, RELAY_END_LISTENER);
    assert_int_equal(host.count, 0);
}

/* ---- addresses ---- */

static void test_address_text(void **state)
{
    static const struct {
        int family;
        const char *address, *want;
    } cases[] = {
        { AF_INET, "192.0.2.7", "192.0.2.7:8883" },
        { AF_INET6, "2001:db8::1", "[2001:db8::1]:8883" },
        { AF_INET6, "::ffff:192.0.2.7", "192.0.2.7:8883" },
        { AF_UNIX, NULL, "local" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        union relay_address a = { .sa.sa_family = (sa_family_t)cases[i].family };
        char text[RELAY_ADDRESS_TEXT];

        if (cases[i].family == AF_INET) {
            a.in.sin_port = htons(8883);
            assert_int_equal(inet_pton(AF_INET, cases[i].address, &a.in.sin_addr), 1);
        } else if (cases[i].family == AF_INET6) {
            a.in6.sin6_port = htons(8883);
            assert_int_equal(inet_pton(AF_INET6, cases[i].address, &a.in6.sin6_addr), 1);
        }
        assert_string_equal(relay_address_text(&a, text), cases[i].want);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_preamble_without_certificate),
        TEST(test_preamble_with_certificate),
        TEST(test_handshake_refused),
        TEST(test_listener_comes_late),
        TEST(test_listener_stays_away),
        TEST(test_client_goes_while_it_waits),
        TEST(test_both_ways),
        TEST(test_client_faster_than_listener),
        TEST(test_listener_faster_than_client),
        TEST(test_client_ends),
        TEST(test_client_ends_behind_a_slow_listener),
        TEST(test_client_is_reset_and_listener_hangs),
        TEST(test_listener_ends_with_last_words),
        TEST(test_listener_ends_unread),
        TEST(test_listener_ends_much_unread_by_client),
        TEST(test_listener_ends_and_client_hangs),
        cmocka_unit_test(test_address_text),
    };

    return cmocka_run_group_tests(tests, group_set_up, group_tear_down);
}
