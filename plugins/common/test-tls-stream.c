#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "buf.h"
#include "log.h"
#include "test-authority.h"
#include "test-sockets.h"
#include "tls-stream.h"

enum { HANDSHAKE_USEC = 20 * 1000000, LOOP_USEC = 20 * 1000000 };

/* One end of a connection, and what it was told. */
struct end {
    struct tls_stream *stream;
    struct buf received;
    size_t read_max; /* a turn; 0: all there is */
    unsigned ready, readable, writable, closed;
    int error;
    char reason[128];
    bool free_when_ready, free_when_readable, free_when_closed;
};

static sd_event *event;
static struct test_authority authority;
static SSL_CTX *server_context, *client_context;
static struct end server, client;

/* ---- ends ---- */

static void end_on_ready(struct tls_stream *stream, void *userdata)
{
    struct end *e = userdata;

    e->ready++;
    if (e->free_when_ready)
        e->stream = tls_stream_free(e->stream);
}

static void end_on_readable(struct tls_stream *stream, void *userdata)
{
    struct end *e = userdata;
    char data[4096];
    size_t total = 0, max = e->read_max ? e->read_max : SIZE_MAX;
    ssize_t n = 0;

    e->readable++;
    while (total < max) {
        n = tls_stream_read(stream, data, max - total < sizeof(data) ? max - total : sizeof(data));
        if (n <= 0)
            break;
        buf_append(&e->received, data, (size_t)n);
        total += (size_t)n;
    }
    if (e->free_when_readable)
        e->stream = tls_stream_free(e->stream);
}

static void end_on_writable(struct tls_stream *stream, void *userdata)
{
    struct end *e = userdata;

    e->writable++;
}

static void end_on_closed(struct tls_stream *stream, int error, const char *reason, void *userdata)
{
    struct end *e = userdata;

    e->closed++;
    e->error = error;
    snprintf(e->reason, sizeof(e->reason), "%s", reason);
    if (e->free_when_closed)
        e->stream = tls_stream_free(e->stream);
}

static const struct tls_stream_ops end_ops = {
    .on_ready = end_on_ready,
    .on_readable = end_on_readable,
    .on_writable = end_on_writable,
    .on_closed = end_on_closed,
};

static void end_start(struct end *e, SSL_CTX *context, int fd, const char *server_name)
{
    int r = tls_stream_new_take(event, context, fd, server_name, HANDSHAKE_USEC, &end_ops, e,
                                &e->stream);

    assert_int_equal(r, 0);
}

static void end_done(struct end *e)
{
    tls_stream_free(e->stream);
    buf_done(&e->received);
    *e = (struct end){};
}

#define RUN_UNTIL(condition)                                                                       \
    while (!(condition))                                                                           \
    assert_true(sd_event_run(event, LOOP_USEC) > 0)

/* Runs what is due, and nothing that would have to be waited for. */
static void run_what_is_due(void)
{
    while (sd_event_run(event, 0) > 0)
        ;
}

static void socket_pair(int fds[2])
{
    assert_true(test_socket_pair(fds));
}

static void tcp_pair(int fds[2])
{
    assert_true(test_tcp_pair(fds));
}

static void connect_ends(void (*pair)(int fds[2]))
{
    int fds[2];

    pair(fds);
    end_start(&server, server_context, fds[0], NULL);
    end_start(&client, client_context, fds[1], "localhost");
    RUN_UNTIL(server.ready && client.ready);
}

static SSL_CTX *new_server_context(bool ask, const char *names)
{
    _cleanup_(freep) char *chain = NULL, *key = NULL;
    SSL_CTX *context = NULL;

    test_authority_issue(&authority, names, &chain, &key);
    assert_int_equal(tls_server_context(chain, key, ask, &context), 0);
    return context;
}

static SSL_CTX *new_client_context(void)
{
    SSL_CTX *context = NULL;

    assert_int_equal(tls_client_context(NULL, &context), 0);
    test_authority_trust(&authority, context);
    return context;
}

static int set_up(void **state)
{
    assert_true(sd_event_new(&event) >= 0);
    test_authority_init(&authority);
    server_context = new_server_context(true, "DNS:localhost,IP:127.0.0.1");
    client_context = new_client_context();
    return 0;
}

static int tear_down(void **state)
{
    end_done(&server);
    end_done(&client);
    SSL_CTX_free(server_context);
    SSL_CTX_free(client_context);
    test_authority_done(&authority);
    event = sd_event_unref(event);
    return 0;
}

static void *pattern(size_t len)
{
    unsigned char *data = xalloc0(len);

    for (size_t i = 0; i < len; i++)
        data[i] = (unsigned char)(i * 31 + (i >> 12));
    return data;
}

static void write_text(struct end *e, const char *text)
{
    assert_int_equal(tls_stream_write(e->stream, text, strlen(text)), strlen(text));
}

static void expect_text(struct end *e, const char *text)
{
    RUN_UNTIL(buf_len(&e->received) >= strlen(text));
    assert_true(span_equal(buf_span(&e->received), span_str(text)));
    buf_eat(&e->received, strlen(text));
}

/* ---- handshake ---- */

static void test_handshake_versions(void **state)
{
    static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

    for (size_t i = 0; i < ELEMENTSOF(versions); i++) {
        SSL_CTX_set_min_proto_version(client_context, versions[i]);
        SSL_CTX_set_max_proto_version(client_context, versions[i]);
        connect_ends(socket_pair);
        assert_int_equal(SSL_version(tls_stream_ssl(server.stream)), versions[i]);
        assert_string_equal(
            SSL_get_servername(tls_stream_ssl(server.stream), TLSEXT_NAMETYPE_host_name),
            "localhost");
        write_text(&client, "up");
        expect_text(&server, "up");
        write_text(&server, "down");
        expect_text(&client, "down");
        assert_int_equal(server.ready, 1);
        assert_int_equal(server.closed + client.closed, 0);
        end_done(&server);
        end_done(&client);
    }
}

static void test_handshake_too_old(void **state)
{
    int fds[2];

    SSL_CTX_set_min_proto_version(client_context, TLS1_1_VERSION);
    SSL_CTX_set_max_proto_version(client_context, TLS1_1_VERSION);
    SSL_CTX_set_cipher_list(client_context, "DEFAULT:@SECLEVEL=0");
    socket_pair(fds);
    end_start(&server, server_context, fds[0], NULL);
    end_start(&client, client_context, fds[1], "localhost");
    RUN_UNTIL(server.closed && client.closed);
    assert_int_equal(server.ready + client.ready, 0);
    assert_int_equal(server.error, -EPROTO);
    assert_string_equal(server.reason, "TLS: unsupported protocol");
    assert_string_equal(client.reason, "TLS: tlsv1 alert protocol version");
}

static void test_handshake_no_tls(void **state)
{
    static const struct {
        const char *name;
        struct span sent;
        const char *want_reason;
        bool want_silence;
    } cases[] = {
        { "MQTT", SPAN("\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"), "the peer speaks no TLS",
          true },
        { "HTTP", SPAN("GET / HTTP/1.1\r\n\r\n"), "the peer speaks no TLS", true },
        { "one byte", SPAN("x"), "the peer speaks no TLS", true },
        { "garbage in a record", SPAN("\x16\x03\x01\x00\x04\xff\xff\xff\xff"),
          "TLS: unexpected message", false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        char answer[64];
        int fds[2];

        socket_pair(fds);
        end_start(&server, server_context, fds[0], NULL);
        assert_int_equal(write(fds[1], cases[i].sent.at, cases[i].sent.len), cases[i].sent.len);
        RUN_UNTIL(server.closed);
        assert_int_equal(server.error, -EPROTO);
        if (!strstr(server.reason, cases[i].want_reason))
            fail_msg("%s: %s", cases[i].name, server.reason);
        end_done(&server);
        assert_int_equal(read(fds[1], answer, sizeof(answer)) <= 0, cases[i].want_silence);
        close(fds[1]);
    }
}

static void test_handshake_closed_early(void **state)
{
    int fds[2];

    socket_pair(fds);
    end_start(&server, server_context, fds[0], NULL);
    assert_int_equal(write(fds[1], "\x16\x03\x01", 3), 3);
    close(fds[1]);
    RUN_UNTIL(server.closed);
    assert_int_equal(server.error, -ECONNRESET);
    assert_string_equal(server.reason, "closed by the peer during the handshake");
}

static void test_handshake_timeout(void **state)
{
    int fds[2];

    socket_pair(fds);
    assert_int_equal(tls_stream_new_take(event, server_context, fds[0], NULL, 1000, &end_ops,
                                         &server, &server.stream),
                     0);
    RUN_UNTIL(server.closed);
    assert_int_equal(server.error, -ETIMEDOUT);
    assert_string_equal(server.reason, "the peer said nothing");
    close(fds[1]);
}

static void test_client_checks_certificate(void **state)
{
    static const struct {
        const char *server_name;
        bool trusted;
        const char *want_reason; /* NULL: accepted */
    } cases[] = {
        { "localhost", true, NULL },
        { "LOCALHOST", true, NULL },
        { "127.0.0.1", true, NULL },
        { "other.example", true, "the server's certificate: hostname mismatch" },
        { "127.0.0.2", true, "the server's certificate: IP address mismatch" },
        { "localhost", false,
          "the server's certificate: self-signed certificate in certificate chain" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        SSL_CTX *context = NULL;
        int fds[2];

        assert_int_equal(tls_client_context(NULL, &context), 0);
        if (cases[i].trusted)
            test_authority_trust(&authority, context);
        socket_pair(fds);
        end_start(&server, server_context, fds[0], NULL);
        end_start(&client, context, fds[1], cases[i].server_name);
        SSL_CTX_free(context);
        if (cases[i].want_reason) {
            RUN_UNTIL(client.closed && server.closed);
            assert_string_equal(client.reason, cases[i].want_reason);
            assert_int_equal(client.error, -EPROTO);
            assert_int_equal(client.ready, 0);
        } else
            RUN_UNTIL(client.ready && server.ready);
        end_done(&server);
        end_done(&client);
    }
}

static void test_client_connect_refused(void **state)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(bound, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(bound, (struct sockaddr *)&address, &len), 0);
    (void)connect(fd, (struct sockaddr *)&address, sizeof(address)); /* bound, and not listening */
    end_start(&client, client_context, fd, "127.0.0.1");
    RUN_UNTIL(client.closed);
    assert_true(client.error == -ECONNREFUSED || client.error == -EPIPE);
    close(bound);
}

static void test_client_certificate_of_nobody_known(void **state)
{
    EVP_PKEY *key;
    X509 *mine = test_certificate(NULL, "thermostat", "DNS:thermostat", &key), *seen;

    SSL_CTX_use_certificate(client_context, mine);
    SSL_CTX_use_PrivateKey(client_context, key);
    connect_ends(socket_pair);
    seen = SSL_get0_peer_certificate(tls_stream_ssl(server.stream));
    assert_non_null(seen);
    assert_int_equal(X509_cmp(seen, mine), 0);
    X509_free(mine);
    EVP_PKEY_free(key);
}

static void test_context_replaced(void **state)
{
    SSL_CTX *old = server_context;
    struct end first;

    connect_ends(socket_pair);
    server_context = new_server_context(true, "DNS:localhost,DNS:renewed");
    SSL_CTX_free(old);

    first = client;
    tls_stream_set_ops(client.stream, &end_ops, &first);
    write_text(&server, "still here");
    expect_text(&first, "still here");
    end_done(&server);
    RUN_UNTIL(first.closed);
    tls_stream_free(first.stream);
    buf_done(&first.received);

    client = (struct end){};
    connect_ends(socket_pair);
    assert_int_equal(X509_check_host(SSL_get0_peer_certificate(tls_stream_ssl(client.stream)),
                                     "renewed", 0, 0, NULL),
                     1);
}

static void test_context_refuses_nonsense(void **state)
{
    _cleanup_(freep) char *chain = NULL, *key = NULL, *other_chain = NULL, *other_key = NULL;
    _cleanup_(freep) char *broken = NULL;
    SSL_CTX *context = NULL;

    log_set_level(LOG_EMERG);
    test_authority_issue(&authority, "DNS:a", &chain, &key);
    test_authority_issue(&authority, "DNS:b", &other_chain, &other_key);
    broken = xasprintf("%s-----BEGIN CERTIFICATE-----\nnot base64\n", chain);
    assert_int_equal(tls_server_context("", key, true, &context), -EINVAL);
    assert_int_equal(tls_server_context(chain, "", true, &context), -EINVAL);
    assert_int_equal(tls_server_context(chain, other_key, true, &context), -EINVAL);
    assert_int_equal(tls_server_context(broken, key, true, &context), -EINVAL);
    assert_int_equal(tls_client_context("/nonexistent/ca.pem", &context), -EINVAL);
    assert_null(context);
    log_set_level(LOG_INFO);
}

/* ---- bytes ---- */

/* Writes what is taken until all is; the other end reads. */
static void pump(struct end *from, struct end *to, const char *data, size_t len)
{
    size_t sent = 0;

    while (sent < len || buf_len(&to->received) < len) {
        unsigned before = from->writable;
        size_t n = (size_t)tls_stream_write(from->stream, data + sent, len - sent);

        sent += n;
        if (sent < len) /* a short write is always followed by on_writable */
            RUN_UNTIL(from->writable > before);
        else
            RUN_UNTIL(buf_len(&to->received) == len);
    }
}

static void test_write_more_than_the_socket_takes(void **state)
{
    const size_t len = 4 << 20;
    _cleanup_(freep) char *data = pattern(len);

    connect_ends(socket_pair);
    pump(&server, &client, data, len);
    assert_memory_equal(client.received.data + client.received.start, data, len);
    assert_true(server.writable > 0);
    assert_int_equal(tls_stream_pending(server.stream), 0);
    pump(&client, &server, data, len);
    assert_memory_equal(server.received.data + server.received.start, data, len);
}

static void test_write_is_bounded(void **state)
{
    const size_t len = 8 << 20;
    _cleanup_(freep) char *data = pattern(len);
    size_t taken;

    connect_ends(socket_pair);
    tls_stream_pause(client.stream, true);
    taken = (size_t)tls_stream_write(server.stream, data, len);
    assert_true(taken < len);
    assert_true(tls_stream_pending(server.stream) > 0);
    assert_true(tls_stream_pending(server.stream) < 72 << 10);
    assert_int_equal(tls_stream_write(server.stream, data + taken, len - taken), 0);
    run_what_is_due();
    assert_int_equal(server.writable, 0);
    assert_int_equal(client.readable, 0);

    tls_stream_pause(client.stream, false);
    RUN_UNTIL(server.writable > 0 && buf_len(&client.received) == taken);
    assert_memory_equal(client.received.data + client.received.start, data, taken);
    assert_int_equal(server.writable, 1);
}

static void test_read_a_little_at_a_time(void **state)
{
    const size_t len = 20000; /* more than a record, less than OpenSSL reads ahead */
    _cleanup_(freep) char *data = pattern(len);

    connect_ends(socket_pair);
    server.read_max = 999;
    assert_int_equal(tls_stream_write(client.stream, data, len), len);
    RUN_UNTIL(buf_len(&server.received) == len);
    assert_memory_equal(server.received.data + server.received.start, data, len);
    assert_true(server.readable >= len / 999);
}

static void test_pause_keeps_what_was_read_ahead(void **state)
{
    connect_ends(socket_pair);
    server.read_max = 2;
    write_text(&client, "abcdef");
    RUN_UNTIL(buf_len(&server.received) == 2);
    tls_stream_pause(server.stream, true);
    run_what_is_due();
    assert_int_equal(buf_len(&server.received), 2);
    tls_stream_pause(server.stream, false);
    expect_text(&server, "abcdef");
}

static void test_data_with_the_end_of_the_handshake(void **state)
{
    int fds[2];

    /* The client's Finished and its first bytes come in one read. */
    socket_pair(fds);
    end_start(&client, client_context, fds[1], "localhost");
    end_start(&server, server_context, fds[0], NULL);
    while (!client.ready)
        assert_true(sd_event_run(event, LOOP_USEC) > 0);
    write_text(&client, "first");
    expect_text(&server, "first");
}

static unsigned other_readable;

static void other_on_readable(struct tls_stream *stream, void *userdata)
{
    other_readable++;
    end_on_readable(stream, userdata);
}

static void test_owner_replaced(void **state)
{
    static const struct tls_stream_ops other_ops = {
        .on_ready = end_on_ready,
        .on_readable = other_on_readable,
        .on_writable = end_on_writable,
        .on_closed = end_on_closed,
    };

    connect_ends(socket_pair);
    tls_stream_set_ops(server.stream, &other_ops, &server);
    write_text(&client, "new owner");
    expect_text(&server, "new owner");
    assert_int_equal(other_readable, 1);
}

/* ---- the end ---- */

static void test_close_orderly(void **state)
{
    connect_ends(socket_pair);
    write_text(&client, "last words");
    tls_stream_shutdown(client.stream);
    assert_int_equal(tls_stream_write(client.stream, "more", 4), 0);
    RUN_UNTIL(server.closed);
    assert_int_equal(server.error, 0);
    assert_string_equal(server.reason, "closed by the peer");
    assert_true(span_equal(buf_span(&server.received), SPAN("last words")));
    assert_int_equal(tls_stream_read(server.stream, &(char){ 0 }, 1), 0);
    assert_int_equal(tls_stream_write(server.stream, "x", 1), 0);
}

static void test_close_after_output(void **state)
{
    const size_t len = 1 << 20;
    _cleanup_(freep) char *data = pattern(len);
    size_t taken;

    connect_ends(socket_pair);
    tls_stream_pause(client.stream, true);
    taken = (size_t)tls_stream_write(server.stream, data, len);
    assert_true(tls_stream_pending(server.stream) > 0);
    tls_stream_shutdown(server.stream); /* queued behind what waits */
    tls_stream_pause(client.stream, false);
    RUN_UNTIL(client.closed);
    assert_int_equal(client.error, 0);
    assert_int_equal(buf_len(&client.received), taken);
    assert_int_equal(tls_stream_pending(server.stream), 0);
}

static void test_read_after_own_goodbye(void **state)
{
    connect_ends(socket_pair);
    tls_stream_shutdown(server.stream);
    write_text(&client, "crossed");
    expect_text(&server, "crossed");
}

static void test_close_abrupt(void **state)
{
    connect_ends(socket_pair);
    client.stream = tls_stream_free(client.stream);
    RUN_UNTIL(server.closed);
    assert_int_equal(server.error, -ECONNRESET);
    assert_string_equal(server.reason, "closed by the peer without a goodbye");
    run_what_is_due();
    assert_int_equal(server.closed, 1);
}

static void test_reset_is_seen_while_paused(void **state)
{
    connect_ends(tcp_pair);
    tls_stream_pause(server.stream, true);
    assert_true(test_close_resets(tls_stream_fd(client.stream)));
    client.stream = tls_stream_free(client.stream);
    RUN_UNTIL(server.closed);
    assert_int_equal(server.error, -ECONNRESET);
}

static void test_data_before_the_end_survives_a_pause(void **state)
{
    connect_ends(socket_pair);
    tls_stream_pause(server.stream, true);
    write_text(&client, "kept");
    tls_stream_shutdown(client.stream);
    client.stream = tls_stream_free(client.stream);
    run_what_is_due();
    assert_int_equal(server.closed, 0);
    tls_stream_pause(server.stream, false);
    RUN_UNTIL(server.closed);
    assert_true(span_equal(buf_span(&server.received), SPAN("kept")));
    assert_int_equal(server.error, 0);
}

static void test_write_to_the_dead(void **state)
{
    connect_ends(socket_pair);
    client.stream = tls_stream_free(client.stream);
    (void)tls_stream_write(server.stream, "x", 1);
    assert_int_equal(server.closed, 0); /* never from inside of a call */
    RUN_UNTIL(server.closed);
    assert_int_equal(server.error, -EPIPE);
}

static void test_tampered_record(void **state)
{
    connect_ends(socket_pair);
    assert_true(send(tls_stream_fd(client.stream),
                     "\x17\x03\x03\x00\x20"
                     "0123456789abcdef0123456789abcdef",
                     37, 0) == 37);
    RUN_UNTIL(server.closed && client.closed);
    assert_int_equal(server.error, -EPROTO);
    assert_int_equal(buf_len(&server.received), 0);
    assert_non_null(strstr(client.reason, "alert")); /* and it was told */
}

/* Each of these records obliges us to send one, and the peer reads none. */
static void test_key_updates_without_end(void **state)
{
    connect_ends(socket_pair);
    tls_stream_pause(client.stream, true);
    for (unsigned n = 0; n < 20000 && !server.closed; n++) {
        assert_int_equal(SSL_key_update(tls_stream_ssl(client.stream), SSL_KEY_UPDATE_REQUESTED),
                         1);
        (void)tls_stream_write(client.stream, "x", 1);
        run_what_is_due();
        assert_true(tls_stream_pending(server.stream) < 80 << 10);
    }
    assert_int_equal(server.closed, 1);
    assert_int_equal(server.error, -ENOBUFS);
}

static void test_freed_in_handlers(void **state)
{
    for (unsigned i = 0; i < 3; i++) {
        int fds[2];

        server.free_when_ready = i == 0;
        server.free_when_readable = i == 1;
        client.free_when_closed = server.free_when_closed = true;
        socket_pair(fds);
        end_start(&server, server_context, fds[0], NULL);
        end_start(&client, client_context, fds[1], "localhost");
        RUN_UNTIL(client.ready);
        if (client.stream)
            (void)tls_stream_write(client.stream, "x", 1);
        if (i == 2)
            tls_stream_shutdown(client.stream);
        RUN_UNTIL(!server.stream);
        if (i < 2)
            RUN_UNTIL(!client.stream);
        end_done(&server);
        end_done(&client);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_handshake_versions),
        TEST(test_handshake_too_old),
        TEST(test_handshake_no_tls),
        TEST(test_handshake_closed_early),
        TEST(test_handshake_timeout),
        TEST(test_client_checks_certificate),
        TEST(test_client_connect_refused),
        TEST(test_client_certificate_of_nobody_known),
        TEST(test_context_replaced),
        TEST(test_context_refuses_nonsense),
        TEST(test_write_more_than_the_socket_takes),
        TEST(test_write_is_bounded),
        TEST(test_read_a_little_at_a_time),
        TEST(test_pause_keeps_what_was_read_ahead),
        TEST(test_data_with_the_end_of_the_handshake),
        TEST(test_owner_replaced),
        TEST(test_close_orderly),
        TEST(test_close_after_output),
        TEST(test_read_after_own_goodbye),
        TEST(test_close_abrupt),
        TEST(test_reset_is_seen_while_paused),
        TEST(test_data_before_the_end_survives_a_pause),
        TEST(test_write_to_the_dead),
        TEST(test_tampered_record),
        TEST(test_key_updates_without_end),
        TEST(test_freed_in_handlers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
