#include "mqtt-load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "mem.h"

enum {
    MQTT_CONNECT = 0x10,
    MQTT_CONNACK = 0x20,
    MQTT_PUBLISH = 0x30,
    MQTT_PUBACK = 0x40,
    MQTT_PINGREQ = 0xc0,
    MQTT_PINGRESP = 0xd0,
    MQTT_DISCONNECT = 0xe0,
    OUTPUT_MAX = 64 << 10, /* what waits for the socket: more would only measure our own queue */
    NUMBER_DIGITS = 10,
};

static const char *const connack_texts[] = {
    "accepted",           "protocol version refused",  "client id refused",
    "server unavailable", "bad user name or password", "not authorized",
};

static void client_fail(struct load_client *c, const char *what, const char *why)
{
    struct load *load = c->load;

    if (c->state >= LOAD_FINISHED)
        return;
    if (load->failed++ == 0)
        snprintf(load->failure, sizeof(load->failure), "%s: %s: %s", c->id, what, why);
    load->connecting -= c->state < LOAD_READY;
    load->ready -= c->state == LOAD_READY;
    c->state = LOAD_FAILED;
    c->fd = close_fd(c->fd);
}

static void client_fail_tls(struct load_client *c, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    long verified = SSL_get_verify_result(c->ssl);

    if (verified != X509_V_OK)
        reason = X509_verify_cert_error_string(verified);
    client_fail(c, what, reason ? reason : errno ? strerror(errno) : "closed by the server");
}

/* ---- packets ---- */

static void append_length(struct buf *b, size_t len)
{
    do {
        buf_append_byte(b, (uint8_t)(len % 128 | (len >= 128 ? 128 : 0)));
        len /= 128;
    } while (len > 0);
}

static void append_text(struct buf *b, const char *text)
{
    buf_append_be16(b, (uint16_t)strlen(text));
    buf_append_span(b, span_str(text));
}

static size_t text_len(const char *text)
{
    return text ? 2 + strlen(text) : 0;
}

static void append_connect(struct load_client *c)
{
    unsigned flags = (c->load->clean_session ? 0x02u : 0) | (c->password ? 0x40u : 0) |
                     (c->username ? 0x80u : 0);

    buf_append_byte(&c->out, MQTT_CONNECT);
    append_length(&c->out, 10 + text_len(c->id) + text_len(c->username) + text_len(c->password));
    append_text(&c->out, "MQTT");
    buf_append_byte(&c->out, 4);
    buf_append_byte(&c->out, (uint8_t)flags);
    buf_append_be16(&c->out, c->load->keep_alive_sec);
    append_text(&c->out, c->id);
    if (c->username)
        append_text(&c->out, c->username);
    if (c->password)
        append_text(&c->out, c->password);
}

/* {"publisher":7,"number":"0000000042","pad":"xxxx"}: the receiver can tell what is missing and
 * what came twice. A payload too short for that is all x. */
static void append_payload(struct load_client *c, struct buf *b)
{
    size_t begin = buf_len(b), bytes = c->load->payload_bytes, used;

    buf_printf(b, "{\"publisher\":%u,\"number\":\"", c->index);
    c->number_at = buf_len(b);
    buf_printf(b, "%0*d\",\"pad\":\"\"}", NUMBER_DIGITS, 0);
    used = buf_len(b) - begin;
    if (used > bytes) {
        b->end -= used;
        c->number_at = 0;
        memset(buf_reserve(b, bytes), 'x', bytes);
        buf_commit(b, bytes);
        return;
    }
    b->end -= 2;
    memset(buf_reserve(b, bytes - used + 2), 'x', bytes - used);
    buf_commit(b, bytes - used);
    buf_append(b, "\"}", 2);
}

static void make_packet(struct load_client *c)
{
    struct buf b = {};
    size_t id_bytes = c->load->qos > 0 ? 2 : 0;

    buf_append_byte(&b, (uint8_t)(MQTT_PUBLISH | c->load->qos << 1));
    append_length(&b, text_len(c->topic) + id_bytes + c->load->payload_bytes);
    append_text(&b, c->topic);
    c->id_at = buf_len(&b);
    buf_append(&b, "\0", id_bytes);
    append_payload(c, &b);
    c->packet =
        b.data; /* the buffer's memory is the client's now; nothing was eaten from its front */
    c->packet_len = buf_len(&b);
}

static uint16_t packet_id(uint64_t number)
{
    return (uint16_t)(number % UINT16_MAX + 1);
}

static void append_publish(struct load_client *c, uint64_t number)
{
    char *at = buf_reserve(&c->out, c->packet_len);

    memcpy(at, c->packet, c->packet_len);
    if (c->load->qos > 0) {
        at[c->id_at] = (char)(packet_id(number) >> 8);
        at[c->id_at + 1] = (char)packet_id(number);
    }
    if (c->number_at > 0)
        for (unsigned i = 0; i < NUMBER_DIGITS; i++, number /= 10)
            at[c->number_at + NUMBER_DIGITS - 1 - i] = (char)('0' + number % 10);
    buf_commit(&c->out, c->packet_len);
}

/* ---- bytes ---- */

static void client_flush(struct load_client *c)
{
    while (c->fd >= 0 && buf_len(&c->out) > 0) {
        struct span s = buf_span(&c->out);
        size_t n;

        ERR_clear_error();
        errno = 0;
        if (SSL_write_ex(c->ssl, s.at, s.len, &n) != 1) {
            if (SSL_get_error(c->ssl, 0) != SSL_ERROR_WANT_WRITE)
                client_fail_tls(c, "write");
            return;
        }
        buf_eat(&c->out, n);
        c->written_ns = bench_now_ns();
    }
    buf_trim(&c->out);
}

static void client_finish(struct load_client *c)
{
    c->load->ready--;
    c->load->finished++;
    buf_append(&c->out, (char[]){ (char)MQTT_DISCONNECT, 0 }, 2);
    client_flush(c);
    if (c->fd >= 0)
        (void)SSL_shutdown(c->ssl);
    c->state = LOAD_FINISHED;
    c->fd = close_fd(c->fd);
}

static void client_on_connack(struct load_client *c, unsigned code)
{
    if (c->state != LOAD_MQTT || code != 0) {
        client_fail(c, "CONNACK",
                    code < ELEMENTSOF(connack_texts) ? connack_texts[code] : "unknown code");
        return;
    }
    c->state = LOAD_READY;
    c->load->connecting--;
    c->load->ready++;
    make_packet(c);
}

static void client_on_puback(struct load_client *c, uint16_t id)
{
    struct load *load = c->load;
    uint64_t now = bench_now_ns(), number = c->oldest;

    if (number < c->sent && packet_id(number) != id)
        load->out_of_order++;
    while (number < c->sent && packet_id(number) != id)
        number++;
    if (number == c->sent || c->slots[number % load->window].sent_ns == 0) {
        client_fail(c, "PUBACK", "of nothing that is in flight");
        return;
    }
    histogram_add(&load->latency, now - c->slots[number % load->window].sent_ns);
    c->slots[number % load->window].sent_ns = 0;
    load->acked++;
    load->last_ns = now;
    while (c->oldest < c->sent && c->slots[c->oldest % load->window].sent_ns == 0)
        c->oldest++;
    if (c->oldest == load->messages)
        client_finish(c);
}

static void client_on_packet(struct load_client *c, const unsigned char *packet)
{
    switch (packet[0]) {
    case MQTT_CONNACK:
        client_on_connack(c, packet[3]);
        return;
    case MQTT_PUBACK:
        client_on_puback(c, (uint16_t)(packet[2] << 8 | packet[3]));
        return;
    case MQTT_PINGRESP:
        return;
    default:
        client_fail(c, "read", "a packet that nobody asked for");
        return;
    }
}

/* All that a server sends to a publisher has two or four bytes. */
static void client_take(struct load_client *c, const unsigned char *data, size_t len)
{
    for (size_t i = 0; i < len && c->fd >= 0; i++) {
        c->in[c->in_len++] = data[i];
        if (c->in_len >= 2 && c->in[1] > 2) {
            client_fail(c, "read", "a packet that nobody asked for");
        } else if (c->in_len >= 2 && c->in_len == 2u + c->in[1]) {
            c->in_len = 0;
            client_on_packet(c, c->in);
        }
    }
}

static void client_read(struct load_client *c)
{
    static unsigned char data[64 << 10];
    size_t n;

    while (c->fd >= 0) {
        ERR_clear_error();
        errno = 0;
        if (SSL_read_ex(c->ssl, data, sizeof(data), &n) == 1)
            client_take(c, data, n);
        else if (SSL_get_error(c->ssl, 0) == SSL_ERROR_WANT_READ)
            return;
        else
            client_fail_tls(c, "connection lost");
    }
}

static void client_handshake(struct load_client *c)
{
    int r, error;

    c->state = LOAD_TLS;
    ERR_clear_error();
    errno = 0;
    r = SSL_connect(c->ssl);
    if (r == 1) {
        c->state = LOAD_MQTT;
        append_connect(c);
        return;
    }
    error = SSL_get_error(c->ssl, r);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        client_fail_tls(c, "handshake");
}

void load_client_run(struct load_client *c)
{
    if (c->state == LOAD_TCP || c->state == LOAD_TLS)
        client_handshake(c);
    if (c->state == LOAD_MQTT || c->state == LOAD_READY) {
        client_flush(c);
        client_read(c);
    }
}

static bool client_may_publish(const struct load_client *c)
{
    return c->state == LOAD_READY && c->sent < c->load->messages &&
           c->sent - c->oldest < c->load->window;
}

/* Appends until the output is full. Returns how many. */
static uint64_t client_fill(struct load_client *c, uint64_t budget)
{
    struct load *load = c->load;
    uint64_t count = 0, now = bench_now_ns();

    while (count < budget && client_may_publish(c) && buf_len(&c->out) < OUTPUT_MAX) {
        append_publish(c, c->sent);
        if (load->qos == 0)
            c->oldest++;
        else
            c->slots[c->sent % load->window].sent_ns = now;
        c->sent++;
        count++;
    }
    load->published += count;
    return count;
}

uint64_t load_client_publish(struct load_client *c, uint64_t budget)
{
    struct load *load = c->load;
    uint64_t count = 0;

    while (count < budget && client_may_publish(c) && buf_len(&c->out) == 0) {
        count += client_fill(c, budget - count);
        client_flush(c);
    }
    if (load->qos == 0 && c->state == LOAD_READY && c->oldest == load->messages &&
        buf_len(&c->out) == 0) {
        load->last_ns = bench_now_ns(); /* nobody acknowledges: what the socket took counts */
        client_finish(c);
    }
    return count;
}

void load_client_ping(struct load_client *c, uint64_t now_ns)
{
    if (c->state != LOAD_READY || c->load->keep_alive_sec == 0 ||
        now_ns - c->written_ns < (uint64_t)c->load->keep_alive_sec * 500000000u)
        return;
    buf_append(&c->out, (char[]){ (char)MQTT_PINGREQ, 0 }, 2);
    client_flush(c);
}

/* ---- life ---- */

static bool client_expect_name(SSL *ssl, const char *name)
{
    unsigned char address[sizeof(struct in6_addr)];

    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

void load_client_start(struct load_client *c)
{
    static const int yes = 1;
    const struct addrinfo *a = c->load->address;
    struct epoll_event watch = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };

    c->state = LOAD_TCP;
    c->load->connecting++;
    c->slots = xnew_n(struct load_slot, c->load->window);
    c->ssl = SSL_new(c->load->tls);
    c->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        client_fail(c, "socket", strerror(errno));
        return;
    }
    if (!c->ssl || SSL_set_fd(c->ssl, c->fd) != 1 ||
        !client_expect_name(c->ssl, c->load->server_name)) {
        client_fail(c, "TLS", "cannot be set up");
        return;
    }
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    if (connect(c->fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
        client_fail(c, "connect", strerror(errno));
    else if (epoll_ctl(c->load->epoll, EPOLL_CTL_ADD, c->fd, &watch) < 0)
        client_fail(c, "epoll", strerror(errno));
}

void load_client_done(struct load_client *c)
{
    close_fd(c->fd);
    SSL_free(c->ssl);
    buf_done(&c->out);
    free(c->slots);
    free(c->packet);
    free(c->id);
    free(c->username);
    free(c->password);
    free(c->topic);
}
