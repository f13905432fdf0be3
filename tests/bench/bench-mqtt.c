/*
 * A load generator for MQTT 3.1.1 over TLS, the same for any broker: N publishers, each with W
 * unacknowledged QoS 1 publishes, in one process on one epoll. What one turn has to say to a server
 * goes out in one TLS write, so that the server is what is measured. With --idle it connects N
 * clients and keeps them, for measuring memory.
 */
#include <errno.h>
#include <getopt.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include "mem.h"
#include "mqtt-load.h"

enum { EVENTS_MAX = 256, STALL_SEC = 60, TICK_MS = 1000 };

struct options {
    const char *host, *port, *ca_file, *server_name;
    const char *topic, *client_id, *username, *password, *password_file;
    uint64_t clients, messages, window, payload, qos, rate, keep_alive, connecting;
    bool json, idle, hold, keep_session;
};

struct bench {
    struct options options;
    struct load load;
    struct load_client *clients;
    size_t next; /* whose turn it is when a rate is kept */
    uint64_t begun_ns, connected_ns, progress_ns, progress_mark;
    bool released; /* stdin was closed */
};

static const char usage[] =
    "usage: brink-bench-mqtt --cafile FILE [options]\n"
    "  --host NAME          server (127.0.0.1)            --port N       (8883)\n"
    "  --server-name NAME   that its certificate is for (the host)\n"
    "  --publishers N       (10)                          --messages N   of each publisher "
    "(10000)\n"
    "  --window N           unacknowledged publishes of each publisher (100)\n"
    "  --payload N          bytes (256)                   --qos 0|1      (1)\n"
    "  --topic PATTERN      (devices/%d/messages/events/) --client-id PATTERN  (bench-%i)\n"
    "  --username PATTERN   %d: the client id, %i: the number of the publisher from 0\n"
    "  --password TEXT\n"
    "  --password-file FILE a line for each client: client id, user name, password, tabs between\n"
    "  --rate N             messages a second in all (as fast as it goes)\n"
    "  --keep-alive S       (240)                         --connecting N at the same time (32)\n"
    "  --keep-session       clean session off\n"
    "  --idle N             connect N clients, publish nothing\n"
    "  --hold               keep them until stdin is closed\n"
    "  --json               one JSON document\n";

static _Noreturn void die(int status, const char *what, const char *why)
{
    fprintf(stderr, "brink-bench-mqtt: %s%s%s\n", what, why ? ": " : "", why ? why : "");
    exit(status);
}

/* ---- options ---- */

static const struct {
    struct option option;
    size_t text, number, flag; /* offset + 1 of what it sets; 0: not that */
} table[] = {
#define AT(member) offsetof(struct options, member) + 1
#define TEXT(name, member)                                                                         \
    {                                                                                              \
        { name, required_argument, NULL, 0 }, AT(member), 0, 0                                     \
    }
#define NUMBER(name, member)                                                                       \
    {                                                                                              \
        { name, required_argument, NULL, 0 }, 0, AT(member), 0                                     \
    }
#define FLAG(name, member)                                                                         \
    {                                                                                              \
        { name, no_argument, NULL, 0 }, 0, 0, AT(member)                                           \
    }
    TEXT("host", host),
    TEXT("port", port),
    TEXT("cafile", ca_file),
    TEXT("server-name", server_name),
    TEXT("topic", topic),
    TEXT("client-id", client_id),
    TEXT("username", username),
    TEXT("password", password),
    TEXT("password-file", password_file),
    NUMBER("publishers", clients),
    NUMBER("messages", messages),
    NUMBER("window", window),
    NUMBER("payload", payload),
    NUMBER("qos", qos),
    NUMBER("rate", rate),
    NUMBER("keep-alive", keep_alive),
    NUMBER("connecting", connecting),
    NUMBER("idle", clients),
    FLAG("json", json),
    FLAG("hold", hold),
    FLAG("keep-session", keep_session),
};

static void option_set(struct options *o, size_t i, const char *value)
{
    char *base = (char *)o;
    uint64_t number;

    if (table[i].flag)
        *(bool *)(void *)(base + table[i].flag - 1) = true;
    if (table[i].text)
        *(const char **)(void *)(base + table[i].text - 1) = value;
    if (table[i].number) {
        if (!span_to_uint64(span_str(value), &number))
            die(EX_USAGE, "expected a number", value);
        *(uint64_t *)(void *)(base + table[i].number - 1) = number;
    }
    if (strcmp(table[i].option.name, "idle") == 0)
        o->idle = true;
}

static void options_parse(int argc, char **argv, struct options *o)
{
    struct option options[ELEMENTSOF(table) + 1] = {};
    int c, i;

    for (size_t n = 0; n < ELEMENTSOF(table); n++)
        options[n] = table[n].option;
    *o = (struct options){ .host = "127.0.0.1",
                           .port = "8883",
                           .topic = "devices/%d/messages/events/",
                           .client_id = "bench-%i",
                           .clients = 10,
                           .messages = 10000,
                           .window = 100,
                           .payload = 256,
                           .qos = 1,
                           .keep_alive = 240,
                           .connecting = 32 };
    while ((c = getopt_long(argc, argv, "", options, &i)) != -1) {
        if (c != 0)
            die(EX_USAGE, usage, NULL);
        option_set(o, (size_t)i, optarg);
    }
    if (optind < argc || !o->ca_file)
        die(EX_USAGE, usage, NULL);
    if (o->qos > 1 || o->window == 0 || o->window > 65535 || o->payload > 262144 ||
        o->clients == 0 || o->messages == 0 || o->keep_alive > UINT16_MAX || o->connecting == 0)
        die(EX_USAGE, "a number is out of bounds", NULL);
    if (!o->server_name)
        o->server_name = o->host;
}

/* %d: the client id, %i: its number. */
static char *pattern_fill(const char *pattern, const char *id, unsigned index)
{
    struct buf b = {};

    for (const char *c = pattern; *c; c++) {
        if (c[0] == '%' && c[1] == 'd' && id) {
            buf_append_span(&b, span_str(id));
            c++;
        } else if (c[0] == '%' && c[1] == 'i') {
            buf_printf(&b, "%u", index);
            c++;
        } else
            buf_append_byte(&b, (uint8_t)*c);
    }
    buf_append_byte(&b, 0);
    return b.data;
}

/* ---- setting up ---- */

static void client_name(struct load_client *c, const struct options *o, FILE *passwords)
{
    char *line = NULL, *save = NULL;
    size_t capacity = 0;

    if (passwords) {
        if (getline(&line, &capacity, passwords) < 0)
            die(EX_DATAERR, "fewer lines than clients", o->password_file);
        c->id = xstrdup(strtok_r(line, "\t\n", &save));
        c->username = xstrdup(strtok_r(NULL, "\t\n", &save));
        c->password = xstrdup(strtok_r(NULL, "\t\n", &save));
        free(line);
        if (!c->id || !c->username || !c->password)
            die(EX_DATAERR, "expected client id, user name, password", o->password_file);
    } else {
        c->id = pattern_fill(o->client_id, NULL, c->index);
        c->username = o->username ? pattern_fill(o->username, c->id, c->index) : NULL;
        c->password = xstrdup(o->password);
    }
    c->topic = pattern_fill(o->topic, c->id, c->index);
}

static void make_clients(struct bench *b)
{
    const struct options *o = &b->options;
    FILE *passwords = o->password_file ? fopen(o->password_file, "re") : NULL;

    if (o->password_file && !passwords)
        die(EX_NOINPUT, o->password_file, strerror(errno));
    b->clients = xnew_n(struct load_client, o->clients);
    for (unsigned i = 0; i < o->clients; i++) {
        b->clients[i].load = &b->load;
        b->clients[i].index = i;
        b->clients[i].fd = -1;
        client_name(&b->clients[i], o, passwords);
    }
    if (passwords)
        fclose(passwords);
}

static SSL_CTX *make_context(const char *ca_file)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    if (!context || SSL_CTX_load_verify_file(context, ca_file) != 1)
        die(EX_NOINPUT, ca_file, ERR_reason_error_string(ERR_peek_last_error()));
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);
    return context;
}

static void set_up(struct bench *b)
{
    const struct options *o = &b->options;
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *address;
    struct rlimit files;
    int r;

    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    r = getaddrinfo(o->host, o->port, &hints, &address);
    if (r != 0)
        die(EX_NOHOST, o->host, gai_strerror(r));
    b->load.tls = make_context(o->ca_file);
    b->load.address = address;
    b->load.server_name = o->server_name;
    b->load.epoll = epoll_create1(EPOLL_CLOEXEC);
    b->load.messages = o->messages;
    b->load.window = (unsigned)o->window;
    b->load.qos = (unsigned)o->qos;
    b->load.payload_bytes = o->payload;
    b->load.keep_alive_sec = (uint16_t)o->keep_alive;
    b->load.clean_session = !o->keep_session;
    make_clients(b);
}

/* ---- running ---- */

/* One turn of the loop. Returns how many of @ret_clients have something to do. */
static int bench_turn(struct bench *b, int timeout_ms, struct load_client **ret_clients)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t mark = b->load.acked + b->load.published + b->load.ready + b->load.failed;
    int n = epoll_wait(b->load.epoll, events, EVENTS_MAX, timeout_ms), count = 0;

    for (int i = 0; i < n; i++) {
        struct load_client *c = events[i].data.ptr;
        char byte;

        if (!c) {
            b->released = read(STDIN_FILENO, &byte, 1) <= 0;
            continue;
        }
        load_client_run(c);
        ret_clients[count++] = c;
    }
    if (mark != b->progress_mark)
        b->progress_ns = bench_now_ns();
    b->progress_mark = mark;
    return count;
}

static bool bench_stalls(struct bench *b)
{
    if (bench_now_ns() - b->progress_ns < STALL_SEC * UINT64_C(1000000000))
        return false;
    if (b->load.failed++ == 0)
        snprintf(b->load.failure, sizeof(b->load.failure), "nothing happened for %d s", STALL_SEC);
    return true;
}

static void connect_all(struct bench *b)
{
    struct load_client *busy[EVENTS_MAX];
    size_t started = 0;

    b->begun_ns = b->progress_ns = bench_now_ns();
    while (b->load.ready + b->load.failed < b->options.clients && !bench_stalls(b)) {
        while (started < b->options.clients && b->load.connecting < b->options.connecting)
            load_client_start(&b->clients[started++]);
        bench_turn(b, TICK_MS, busy);
    }
    b->connected_ns = bench_now_ns();
}

/* Keeps to the rate since the beginning, a few for each client in turn. */
static void publish_at_rate(struct bench *b)
{
    uint64_t due =
        (uint64_t)((double)(bench_now_ns() - b->load.first_ns) / 1e9 * (double)b->options.rate);
    size_t idle = 0;

    while (b->load.published < due && idle < b->options.clients) {
        struct load_client *c = &b->clients[b->next++ % b->options.clients];

        idle = load_client_publish(c, 1) > 0 ? 0 : idle + 1;
    }
}

static void publish_all(struct bench *b)
{
    struct load_client *busy[EVENTS_MAX];
    unsigned all = b->load.ready;

    b->load.first_ns = b->progress_ns = bench_now_ns();
    for (size_t i = 0; i < b->options.clients && b->options.rate == 0; i++)
        load_client_publish(&b->clients[i], UINT64_MAX);
    while (b->load.finished + b->load.failed < all && !bench_stalls(b)) {
        int n = bench_turn(b, b->options.rate > 0 ? 1 : TICK_MS, busy);

        if (b->options.rate > 0)
            publish_at_rate(b);
        for (int i = 0; i < n && b->options.rate == 0; i++)
            load_client_publish(busy[i], UINT64_MAX);
    }
}

static void hold_all(struct bench *b)
{
    struct epoll_event watch = { .events = EPOLLIN, .data.ptr = NULL };
    struct load_client *busy[EVENTS_MAX];
    char byte;

    if (epoll_ctl(b->load.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &watch) < 0)
        b->released =
            read(STDIN_FILENO, &byte, 1) <= 0; /* a file: it is at its end or will be never */
    while (!b->released && b->load.failed == 0) {
        uint64_t now = bench_now_ns();

        bench_turn(b, TICK_MS, busy);
        for (size_t i = 0; i < b->options.clients; i++)
            load_client_ping(&b->clients[i], now);
    }
}

/* ---- telling ---- */

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

static void tell_connected(const struct bench *b)
{
    double s = seconds(b->begun_ns, b->connected_ns);

    printf(b->options.json ? "{\"connected\":%u,\"connect_s\":%.3f,\"failed\":%u}\n"
                           : "connected %u clients in %.3f s, %u failed\n",
           b->load.ready, s, b->load.failed);
    fflush(stdout);
}

static void tell_published(const struct bench *b)
{
    static const char *const forms[] = {
        "publishers %llu, window %u, payload %zu B, qos %u, connected in %.3f s\n"
        "messages   %llu in %.3f s: %.0f msg/s\n"
        "puback     p50 %.0f us, p90 %.0f us, p99 %.0f us, max %.0f us\n"
        "errors     %u clients failed, %llu acknowledged out of order\n",
        "{\"publishers\":%llu,\"window\":%u,\"payload\":%zu,\"qos\":%u,\"connect_s\":%.3f,"
        "\"messages\":%llu,\"elapsed_s\":%.3f,\"rate\":%.1f,"
        "\"puback_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f},"
        "\"failed\":%u,\"out_of_order\":%llu}\n",
    };
    const struct load *load = &b->load;
    uint64_t messages = load->qos > 0 ? load->acked : load->published;
    double elapsed = seconds(load->first_ns, load->last_ns);

    printf(forms[b->options.json], (unsigned long long)b->options.clients, load->window,
           load->payload_bytes, load->qos, seconds(b->begun_ns, b->connected_ns),
           (unsigned long long)messages, elapsed, elapsed > 0 ? (double)messages / elapsed : 0,
           (double)histogram_at(&load->latency, 0.5) / 1e3,
           (double)histogram_at(&load->latency, 0.9) / 1e3,
           (double)histogram_at(&load->latency, 0.99) / 1e3, (double)load->latency.max / 1e3,
           load->failed, (unsigned long long)load->out_of_order);
}

int main(int argc, char **argv)
{
    struct bench *b = xnew(struct bench);
    unsigned failed;

    options_parse(argc, argv, &b->options);
    set_up(b);
    connect_all(b);
    if (b->options.idle) {
        tell_connected(b);
        if (b->options.hold && b->load.failed == 0)
            hold_all(b);
    } else if (b->load.failed == 0) {
        publish_all(b);
        tell_published(b);
    }
    failed = b->load.failed;
    if (failed > 0)
        fprintf(stderr, "brink-bench-mqtt: %s\n", b->load.failure);
    for (size_t i = 0; i < b->options.clients; i++)
        load_client_done(&b->clients[i]);
    free(b->clients);
    SSL_CTX_free(b->load.tls);
    close(b->load.epoll);
    freeaddrinfo((struct addrinfo *)b->load.address);
    free(b);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
