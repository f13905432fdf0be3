/*
 * What one module sends reaches another: a sender and a receiver over TLS, in one process and one loop, so that one clock tells
 * how long it took. The edge must route the sender's output `out` to an input of the receiver. A window of 1 is the serial case:
 * the next message is sent when the last one has come.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "buf.h"
#include "histogram.h"
#include "mem.h"
#include "span.h"

enum { READ_BYTES = 64 << 10, STALL_MS = 60000, OUT_BYTES_MAX = 64 << 10 };

struct peer {
    SSL *ssl;
    int fd;
    struct buf in, out;
    char id[300], user[600], password[2000];
};

struct bench {
    struct peer sender, receiver;
    uint64_t messages, window, payload_bytes;
    uint64_t sent, received, acked, repeated;
    uint64_t first_ns, last_ns;
    struct histogram latency;
};

static _Noreturn void die(int status, const char *what, const char *why)
{
    fprintf(stderr, "brink-bench-modules: %s: %s\n", what, why);
    exit(status);
}

/* ---- packets ---- */

static void append_header(struct buf *out, uint8_t first, size_t len)
{
    buf_append_byte(out, first);
    do {
        buf_append_byte(out, (uint8_t)((len & 0x7f) | (len > 0x7f ? 0x80 : 0)));
        len >>= 7;
    } while (len > 0);
}

static void append_text(struct buf *out, const char *text)
{
    buf_append_be16(out, (uint16_t)strlen(text));
    buf_append(out, text, strlen(text));
}

static void append_connect(struct peer *p)
{
    append_header(&p->out, 0x10, 10 + 6 + strlen(p->id) + strlen(p->user) + strlen(p->password));
    append_text(&p->out, "MQTT");
    buf_append(&p->out, "\x04\xc2\x00\xf0", 4); /* level, clean with name and token, 240 s */
    append_text(&p->out, p->id);
    append_text(&p->out, p->user);
    append_text(&p->out, p->password);
}

static void append_subscribe(struct peer *p, const char *filter)
{
    append_header(&p->out, 0x82, 2 + 2 + strlen(filter) + 1);
    buf_append_be16(&p->out, 1);
    append_text(&p->out, filter);
    buf_append_byte(&p->out, 1);
}

static void append_publish(struct bench *b, const char *topic)
{
    struct peer *p = &b->sender;
    uint64_t now = bench_now_ns(), number = ++b->sent;
    char *payload;

    append_header(&p->out, 0x32, 2 + strlen(topic) + 2 + b->payload_bytes);
    append_text(&p->out, topic);
    buf_append_be16(&p->out, (uint16_t)(number % 65535 + 1));
    payload = buf_reserve(&p->out, b->payload_bytes);
    memset(payload, 'x', b->payload_bytes);
    memcpy(payload, &number, sizeof(number));
    memcpy(payload + sizeof(number), &now, sizeof(now));
    buf_commit(&p->out, b->payload_bytes);
    if (b->first_ns == 0)
        b->first_ns = now;
}

/* The first whole packet of what was read: its first byte, and its content. False: it is not all there. */
static bool packet_next(struct buf *in, uint8_t *ret_first, struct span *ret_content,
                        size_t *ret_len)
{
    struct span s = buf_span(in);
    size_t len = 0, at = 1;

    for (unsigned shift = 0;; shift += 7, at++) {
        if (at >= s.len)
            return false;
        len |= (size_t)((unsigned char)s.at[at] & 0x7f) << shift;
        if (!((unsigned char)s.at[at] & 0x80))
            break;
    }
    if (s.len < ++at + len)
        return false;
    *ret_first = (uint8_t)s.at[0];
    *ret_content = span_of(s.at + at, len);
    *ret_len = at + len;
    return true;
}

/* ---- connections ---- */

static void peer_flush(struct peer *p)
{
    while (buf_len(&p->out) > 0) {
        struct span s = buf_span(&p->out);
        int n = SSL_write(p->ssl, s.at, (int)s.len);

        if (n <= 0 && SSL_get_error(p->ssl, n) == SSL_ERROR_WANT_WRITE)
            return;
        if (n <= 0)
            die(EX_IOERR, p->id, "the connection broke");
        buf_eat(&p->out, (size_t)n);
    }
}

static void peer_read(struct peer *p)
{
    for (;;) {
        int n = SSL_read(p->ssl, buf_reserve(&p->in, READ_BYTES), READ_BYTES);

        if (n <= 0 && SSL_get_error(p->ssl, n) == SSL_ERROR_WANT_READ)
            return;
        if (n <= 0)
            die(EX_IOERR, p->id, "the connection broke");
        buf_commit(&p->in, (size_t)n);
        if (!(fcntl(p->fd, F_GETFL) & O_NONBLOCK))
            return;
    }
}

/* Waits for one packet, while the connection is still a blocking one. */
static void peer_expect(struct peer *p, uint8_t first, const char *what)
{
    struct span content;
    uint8_t got;
    size_t len;

    peer_flush(p);
    while (!packet_next(&p->in, &got, &content, &len))
        peer_read(p);
    if (got != first || (first == 0x20 && content.at[1] != 0))
        die(EX_PROTOCOL, p->id, what);
    buf_eat(&p->in, len);
}

static void peer_open(struct peer *p, SSL_CTX *tls, const char *host)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *address;
    int one = 1;

    if (getaddrinfo(host, "8883", &hints, &address) != 0)
        die(EX_NOHOST, host, "cannot be resolved");
    p->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->fd < 0 || connect(p->fd, address->ai_addr, address->ai_addrlen) < 0)
        die(EX_UNAVAILABLE, host, strerror(errno));
    freeaddrinfo(address);
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    p->ssl = SSL_new(tls);
    SSL_set_fd(p->ssl, p->fd);
    if (SSL_connect(p->ssl) != 1)
        die(EX_PROTOCOL, host, "no TLS");
    append_connect(p);
    peer_expect(p, 0x20, "the login is refused");
}

/* ---- the run ---- */

static void receive(struct bench *b)
{
    struct peer *p = &b->receiver;
    struct span content;
    uint64_t number, sent_ns, now = 0;
    uint8_t first;
    size_t len;

    while (packet_next(&p->in, &first, &content, &len)) {
        size_t topic_len =
            (size_t)((unsigned char)content.at[0] << 8 | (unsigned char)content.at[1]);
        const char *at = content.at + 2 + topic_len;

        if ((first & 0xf0) == 0x30) {
            now = bench_now_ns();
            append_header(&p->out, 0x40, 2);
            buf_append(&p->out, at, 2);
            memcpy(&number, at + 2, sizeof(number));
            memcpy(&sent_ns, at + 2 + sizeof(number), sizeof(sent_ns));
            if (number == b->received + 1) {
                b->received++;
                histogram_add(&b->latency, now - sent_ns);
            } else if (number <= b->received) {
                b->repeated++;
            } else {
                die(EX_PROTOCOL, p->id, "a message was left out, or came before its turn");
            }
        }
        buf_eat(&p->in, len);
    }
    b->last_ns = now ? now : b->last_ns;
}

static void count_acks(struct bench *b)
{
    struct span content;
    uint8_t first;
    size_t len;

    while (packet_next(&b->sender.in, &first, &content, &len)) {
        b->acked += first == 0x40;
        buf_eat(&b->sender.in, len);
    }
}

static short events_of(const struct peer *p)
{
    return (short)(POLLIN | (buf_len(&p->out) > 0 ? POLLOUT : 0));
}

static void run(struct bench *b, const char *topic)
{
    while (b->received < b->messages || b->acked < b->messages) {
        struct pollfd fds[2];

        while (b->sent < b->messages && b->sent - b->received < b->window &&
               buf_len(&b->sender.out) < OUT_BYTES_MAX)
            append_publish(b, topic);
        peer_flush(&b->sender);
        fds[0] = (struct pollfd){ .fd = b->sender.fd, .events = events_of(&b->sender) };
        fds[1] = (struct pollfd){ .fd = b->receiver.fd, .events = events_of(&b->receiver) };
        if (poll(fds, 2, STALL_MS) <= 0)
            die(EX_SOFTWARE, "stalled", "nothing came for a minute");
        if (fds[1].revents)
            peer_read(&b->receiver);
        receive(b);
        peer_flush(&b->receiver);
        if (fds[0].revents)
            peer_read(&b->sender);
        count_acks(b);
    }
}

/* Two lines: client id, user name and password, tabs between; the sender's first. */
static void read_credentials(struct bench *b, const char *path)
{
    struct peer *peers[] = { &b->sender, &b->receiver };
    FILE *file = fopen(path, "re");

    for (size_t i = 0; i < ELEMENTSOF(peers); i++)
        if (!file || fscanf(file, "%299[^\t]\t%599[^\t]\t%1999[^\n]\n", peers[i]->id,
                            peers[i]->user, peers[i]->password) != 3)
            die(EX_NOINPUT, path, "expected two lines of client id, user name and password");
    fclose(file);
}

static void print(struct bench *b)
{
    double seconds = (double)(b->last_ns - b->first_ns) / 1e9;

    printf("{\"messages\": %lu, \"window\": %lu, \"rate\": %.0f, \"repeated\": %lu, "
           "\"latency_us\": {\"p50\": %lu, \"p99\": %lu}}\n",
           (unsigned long)b->received, (unsigned long)b->window, (double)b->received / seconds,
           (unsigned long)b->repeated, (unsigned long)histogram_at(&b->latency, 0.5) / 1000,
           (unsigned long)histogram_at(&b->latency, 0.99) / 1000);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "host", required_argument, NULL, 'h' },
        { "cafile", required_argument, NULL, 'c' },
        { "credentials", required_argument, NULL, 'p' },
        { "messages", required_argument, NULL, 'm' },
        { "window", required_argument, NULL, 'w' },
        { "payload", required_argument, NULL, 's' },
        {},
    };
    struct bench b = { .messages = 10000, .window = 1, .payload_bytes = 256 };
    const char *host = "127.0.0.1", *ca_file = NULL, *credentials = NULL;
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    struct peer *peers[] = { &b.sender, &b.receiver };
    char topic[700], filter[700];
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint64_t *number = o == 'm'   ? &b.messages
                           : o == 'w' ? &b.window
                           : o == 's' ? &b.payload_bytes
                                      : NULL;

        if (o == '?' || (number && (!span_to_uint64(span_str(optarg), number) || *number == 0)))
            die(EX_USAGE, argv[optind - 1],
                "expected --host H --cafile FILE --credentials FILE [--messages N] [--window N] "
                "[--payload BYTES]");
        host = o == 'h' ? optarg : host;
        ca_file = o == 'c' ? optarg : ca_file;
        credentials = o == 'p' ? optarg : credentials;
    }
    if (!ca_file || !credentials || b.payload_bytes < 16)
        die(EX_USAGE, "expected", "--cafile, --credentials and a payload of 16 bytes or more");
    if (SSL_CTX_load_verify_locations(tls, ca_file, NULL) != 1)
        die(EX_NOINPUT, ca_file, "no certificates");
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    read_credentials(&b, credentials);
    for (size_t i = 0; i < ELEMENTSOF(peers); i++)
        peer_open(peers[i], tls, host);
    snprintf(topic, sizeof(topic), "devices/%.*s/modules/%s/messages/events/%%24.on=out",
             (int)strcspn(b.sender.id, "/"), b.sender.id, strchr(b.sender.id, '/') + 1);
    snprintf(filter, sizeof(filter), "devices/%.*s/modules/%s/#", (int)strcspn(b.receiver.id, "/"),
             b.receiver.id, strchr(b.receiver.id, '/') + 1);
    append_subscribe(&b.receiver, filter);
    peer_expect(&b.receiver, 0x90, "the subscription is refused");
    for (size_t i = 0; i < ELEMENTSOF(peers); i++)
        fcntl(peers[i]->fd, F_SETFL, fcntl(peers[i]->fd, F_GETFL) | O_NONBLOCK);
    run(&b, topic);
    print(&b);
    return EXIT_SUCCESS;
}
