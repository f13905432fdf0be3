/*
 * For tests: the whole listener on a real bus, in one process and one loop with a router, an
 * identity, a store and a front that do what the test says. Streams are real sockets.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "control.h"
#include "listener.h"
#include "listener.pb-c.h"
#include "mqtt-codec.h"

enum {
    LISTEN_FD = 3, /* where a plugin finds its first inherited socket */
    TEST_USEC = 30 * 1000000,
    CALLS_MAX = 256,
};

/* One client, as the front shows it to the listener. */
struct stream {
    int fd;
    struct buf in;
    bool closed;
    bool deaf; /* does not read */
};

struct fixture {
    char dir[32];
    int control_fd, control_peer_fd;
    struct plugin *plugin;
    struct listener_config config;
    struct listener *listener;
    struct stream streams[4];
    unsigned stream_count;

    struct bus *router, *identity, *store;
    bool router_holds;    /* does not answer publishes */
    const char *full_for; /* device whose messages there is no room for */
    size_t items_max;     /* more are refused for good; 0: any number is fine */
    const char *poison;   /* body that is refused for good */
    uint64_t next_sequence;
    struct bus_call *held[CALLS_MAX];
    unsigned held_count;
    unsigned batches, messages, connected, disconnected, syncs, synced_clients;
    struct buf bodies; /* of all messages, a line each */
    Bus__Verdict verdict;
    bool edge_module; /* by identity's word */
    bool identity_holds;
    unsigned asked, rechecks;
    const struct bus_handler *store_handlers;
    struct bus_call *poll; /* that the store keeps */
    const char *record_key;
    struct buf record; /* the one record of the store */
    bool record_there;
    unsigned puts, removes;
};

/* ---- the peers ---- */

static inline uint64_t on_who(int64_t pid, uint32_t uid, void *userdata)
{
    return PEER_MQTT;
}

static inline bool publish_is_full(const struct fixture *f, const Bus__Publish *publish)
{
    for (size_t i = 0; i < publish->n_items; i++)
        if (f->full_for && strcmp(publish->items[i]->device_id, f->full_for) == 0)
            return true;
    return false;
}

static inline bool publish_is_invalid(const struct fixture *f, const Bus__Publish *publish)
{
    if (f->items_max > 0 && publish->n_items > f->items_max)
        return true;
    for (size_t i = 0; f->poison && i < publish->n_items; i++) {
        const ProtobufCBinaryData *message = &publish->items[i]->message;

        if (memmem(message->data, message->len, f->poison, strlen(f->poison)))
            return true;
    }
    return false;
}

static inline int on_publish(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;

    if (in->publish->sequence > f->next_sequence + 1)
        return bus_answer(call, STATUS_OUT_OF_ORDER);
    if (publish_is_full(f, in->publish))
        return bus_answer(call, STATUS_FULL);
    if (publish_is_invalid(f, in->publish))
        return bus_answer_error(call, STATUS_INVALID, "as the test says");
    f->next_sequence = in->publish->sequence; /* again, if a router died with it */
    f->batches++;
    for (size_t i = 0; i < in->publish->n_items; i++) {
        const Bus__PublishItem *item = in->publish->items[i];
        Bus__Message *m = bus__message__unpack(NULL, item->message.len, item->message.data);

        assert_non_null(m);
        assert_string_equal(m->device_id, item->device_id);
        buf_append(&f->bodies, m->body.data, m->body.len);
        buf_append_byte(&f->bodies, '\n');
        bus__message__free_unpacked(m, NULL);
        f->messages++;
    }
    if (!f->router_holds)
        return bus_answer(call, STATUS_DONE);
    assert_true(f->held_count < CALLS_MAX);
    f->held[f->held_count++] = bus_call_keep(call);
    return 0;
}

static inline int on_client_connected(struct bus_call *call, const Bus__Envelope *in,
                                      void *userdata)
{
    struct fixture *f = userdata;

    f->connected++;
    assert_string_equal(in->client_connected->peer_address, "192.0.2.7:50123");
    assert_string_equal(in->client_connected->protocol, "mqtt");
    return bus_answer(call, STATUS_DONE);
}

static inline int on_client_disconnected(struct bus_call *call, const Bus__Envelope *in,
                                         void *userdata)
{
    struct fixture *f = userdata;

    f->disconnected++;
    return bus_answer(call, STATUS_DONE);
}

static inline int on_clients_sync(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;

    f->syncs++;
    f->synced_clients = (unsigned)in->clients_sync->n_clients;
    return bus_answer(call, STATUS_DONE);
}

static const struct bus_handler router_handlers[] = {
    { BUS__ENVELOPE__BODY_PUBLISH, PEER_ANY, on_publish },
    { BUS__ENVELOPE__BODY_CLIENT_CONNECTED, PEER_ANY, on_client_connected },
    { BUS__ENVELOPE__BODY_CLIENT_DISCONNECTED, PEER_ANY, on_client_disconnected },
    { BUS__ENVELOPE__BODY_CLIENTS_SYNC, PEER_ANY, on_clients_sync },
    {},
};

static inline int answer_verdict(const struct fixture *f, struct bus_call *call)
{
    Bus__Authenticated authenticated = BUS__AUTHENTICATED__INIT;
    Bus__Envelope answer = ENVELOPE(AUTHENTICATED, authenticated, &authenticated);

    authenticated.verdict = f->verdict;
    authenticated.edge_module = f->edge_module;
    authenticated.reason = (char *)"as the test says";
    return bus_answer_with(call, &answer);
}

static inline int on_authenticate(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;

    f->asked++;
    f->rechecks += in->authenticate->recheck ? 1 : 0;
    if (f->identity_holds) {
        f->held[f->held_count++] = bus_call_keep(call);
        return 0;
    }
    if (!*in->authenticate->sas_token) { /* then the chain of the preamble is there */
        assert_int_equal(in->authenticate->n_certificate_chain, 2);
        assert_int_equal(in->authenticate->certificate_chain[1].len, 6);
        assert_memory_equal(in->authenticate->certificate_chain[1].data, "issuer", 6);
    }
    return answer_verdict(f, call);
}

static const struct bus_handler identity_handlers[] = {
    { BUS__ENVELOPE__BODY_AUTHENTICATE, PEER_ANY, on_authenticate },
    {},
};

static inline int on_record_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;
    Bus__Record record = BUS__RECORD__INIT, *list[] = { &record };
    Bus__Records records = BUS__RECORDS__INIT;
    Bus__Envelope answer = ENVELOPE(RECORDS, records, &records);
    struct span value = buf_span(&f->record);

    record.key = in->record_get->key;
    record.value = (ProtobufCBinaryData){ value.len, (uint8_t *)value.at };
    records.n_records = f->record_there && strcmp(in->record_get->key, f->record_key) == 0;
    records.records = list;
    return bus_answer_with(call, &answer);
}

static inline int on_record_put(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;

    assert_string_equal(in->record_put->key, f->record_key);
    f->puts += in->record_put->remove ? 0 : 1;
    f->removes += in->record_put->remove ? 1 : 0;
    buf_done(&f->record);
    buf_append(&f->record, in->record_put->value.data, in->record_put->value.len);
    f->record_there = !in->record_put->remove;
    return bus_answer(call, STATUS_DONE);
}

static const struct bus_handler store_handlers[] = {
    { BUS__ENVELOPE__BODY_RECORD_GET, PEER_ANY, on_record_get },
    { BUS__ENVELOPE__BODY_RECORD_PUT, PEER_ANY, on_record_put },
    {},
};

static inline struct bus *start_peer(struct fixture *f, const char *role,
                                     const struct bus_handler *handlers)
{
    _cleanup_(freep) char *dir = xasprintf("%s/bus", f->dir);
    struct bus *bus = NULL;

    assert_int_equal(bus_new(plugin_event(f->plugin), dir, role, 1, on_who, f, &bus), 0);
    assert_int_equal(bus_listen(bus, handlers, f), 0);
    return bus;
}

static inline void answer_held(struct fixture *f)
{
    for (unsigned i = 0; i < f->held_count; i++)
        assert_int_equal(bus_answer(f->held[i], STATUS_DONE), 0);
    f->held_count = 0;
}

/* ---- set-up ---- */

static inline struct sockaddr_un address(const struct fixture *f, const char *name)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", f->dir, name);
    return a;
}

static inline int listen_at(const struct fixture *f, const char *name, int type)
{
    struct sockaddr_un a = address(f, name);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

/* This process is the front: the roster says so, as the supervisor's would. */
static inline void send_roster(struct fixture *f)
{
    Bus__RosterEntry entry = BUS__ROSTER_ENTRY__INIT, *entries[] = { &entry };
    Bus__Roster roster = BUS__ROSTER__INIT;
    Bus__Control packet = CONTROL_INIT(ROSTER, roster, &roster);

    entry.pid = (uint64_t)getpid();
    entry.role = (char *)"front";
    roster.n_entries = 1;
    roster.entries = entries;
    f->control_peer_fd = accept4(f->control_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(f->control_peer_fd >= 0);
    assert_int_equal(control_send(f->control_peer_fd, &packet, NULL, 0), 0);
}

static inline void make_sockets(struct fixture *f)
{
    _cleanup_(freep) char *bus_dir = xasprintf("%s/bus", f->dir);
    int fd;

    assert_int_equal(mkdir(bus_dir, 0700), 0);
    f->control_fd = listen_at(f, "control.sock", SOCK_SEQPACKET);
    if (f->control_fd == LISTEN_FD) { /* that number is taken for the streams */
        f->control_fd = fcntl(LISTEN_FD, F_DUPFD_CLOEXEC, LISTEN_FD + 1);
        close(LISTEN_FD);
    }
    fd = listen_at(f, "streams.sock", SOCK_STREAM);
    if (fd != LISTEN_FD) {
        assert_int_equal(dup2(fd, LISTEN_FD), LISTEN_FD);
        close(fd);
    }
}

static inline void start_listener(struct fixture *f)
{
    char *argv[] = { (char *)"brink-mqtt-listener", NULL };

    setenv("BRINK_NAME", "mqtt-listener", true);
    setenv("BRINK_RUN_DIR", f->dir, true);
    setenv("BRINK_STATE_DIR", f->dir, true);
    setenv("BRINK_LOG_LEVEL", "error", true);
    setenv("LISTEN_FDS", "1", true);
    setenv("LISTEN_FDNAMES", "streams", true);
    assert_int_equal(plugin_new("mqtt-listener", 1, argv, &f->plugin), 0);
    send_roster(f);
    assert_int_equal(plugin_load_config(f->plugin, listener_config_items, &f->config), 0);
}

/* ---- what the tests are made of ---- */

static inline void stream_read(struct stream *s)
{
    char bytes[4096];
    ssize_t n;

    while (!s->closed && !s->deaf && (n = recv(s->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) != -1) {
        if (n == 0)
            s->closed = true;
        else
            buf_append(&s->in, bytes, (size_t)n);
    }
    if (!s->closed && !s->deaf && errno == ECONNRESET)
        s->closed = true;
}

static inline void turn(struct fixture *f, uint64_t since_usec)
{
    if (now_usec() - since_usec > TEST_USEC)
        fail_msg("what was waited for did not come");
    assert_true(sd_event_run(plugin_event(f->plugin), 100000) >= 0);
    for (unsigned i = 0; i < f->stream_count; i++)
        stream_read(&f->streams[i]);
}

#define loop_until(f, done)                                                                        \
    do {                                                                                           \
        uint64_t _since = now_usec();                                                              \
        while (!(done))                                                                            \
            turn(f, _since);                                                                       \
    } while (0)

static inline void wait_for_sync(struct fixture *f)
{
    f->syncs = 0;
    loop_until(f, f->syncs > 0 && f->listener->notices_open == 0);
}

/* Settings may be changed before. */
static inline void start_peers(struct fixture *f)
{
    assert_int_equal(listener_new(f->plugin, &f->config, &f->listener), 0);
    assert_int_equal(plugin_listen(f->plugin, listener_handlers, f->listener), 0);
    f->router = start_peer(f, "router", router_handlers);
    f->identity = start_peer(f, "identity", identity_handlers);
    f->store = start_peer(f, "store", f->store_handlers);
    wait_for_sync(f);
}

static inline int setup(void **state)
{
    struct fixture *f = xnew(struct fixture);

    strcpy(f->dir, "/tmp/brink-mqtt-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->verdict = BUS__VERDICT__VERDICT_ACCEPTED;
    f->store_handlers = store_handlers;
    f->record_key = "mqtt/session/d";
    make_sockets(f);
    start_listener(f);
    *state = f;
    return 0;
}

static inline void remove_all(const struct fixture *f)
{
    static const char *const files[] = { "control.sock",
                                         "streams.sock",
                                         "bus/router.ipc",
                                         "bus/router.pub.ipc",
                                         "bus/identity.ipc",
                                         "bus/store.ipc",
                                         "bus/identity.pub.ipc",
                                         "bus/store.pub.ipc",
                                         "bus/mqtt-listener.ipc",
                                         "bus/mqtt-listener.pub.ipc",
                                         "bus",
                                         "" };

    for (size_t i = 0; i < ELEMENTSOF(files); i++) {
        struct sockaddr_un a = address(f, files[i]);

        remove(a.sun_path);
    }
}

/* All questions of the listener are answered. */
static inline void wait_for_silence(struct fixture *f)
{
    static const char *const roles[] = { "router", "identity", "store" };
    int code;

    if (sd_event_get_exit_code(plugin_event(f->plugin), &code) >= 0)
        return;
    answer_held(f);
    for (size_t i = 0; i < ELEMENTSOF(roles); i++)
        loop_until(f, bus_peer_outstanding(bus_peer(plugin_bus(f->plugin), roles[i])) == 0);
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    wait_for_silence(f);
    for (unsigned i = 0; i < f->stream_count; i++) {
        close_fd(f->streams[i].fd);
        buf_done(&f->streams[i].in);
    }
    listener_free(f->listener);
    plugin_free(f->plugin);
    bus_call_drop(f->poll);
    bus_free(f->router);
    bus_free(f->identity);
    bus_free(f->store);
    close(LISTEN_FD);
    close_fd(f->control_fd);
    close_fd(f->control_peer_fd);
    buf_done(&f->bodies);
    buf_done(&f->record);
    remove_all(f);
    assert_int_equal(stat(f->dir, &st), -1);
    free(f);
    return 0;
}

static inline void send_bytes(struct fixture *f, struct stream *s, struct span bytes)
{
    uint64_t since = now_usec();

    while (bytes.len > 0) {
        ssize_t n = send(s->fd, bytes.at, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0)
            bytes = span_of(bytes.at + n, bytes.len - (size_t)n);
        else
            turn(f, since);
    }
}

static inline void send_buf_take(struct fixture *f, struct stream *s, struct buf *bytes)
{
    send_bytes(f, s, buf_span(bytes));
    buf_done(bytes);
}

static inline void append_preamble(struct buf *out)
{
    ProtobufCBinaryData chain[] = { { 4, (uint8_t *)"leaf" }, { 6, (uint8_t *)"issuer" } };
    Bus__Preamble preamble = BUS__PREAMBLE__INIT;
    size_t len;

    preamble.peer_address = (char *)"192.0.2.7:50123";
    preamble.n_certificate_chain = ELEMENTSOF(chain);
    preamble.certificate_chain = chain;
    len = bus__preamble__get_packed_size(&preamble);
    buf_append_be32(out, (uint32_t)len);
    bus__preamble__pack(&preamble, buf_reserve(out, len));
    buf_commit(out, len);
}

static inline struct stream *open_stream(struct fixture *f)
{
    struct sockaddr_un a = address(f, "streams.sock");
    struct stream *s = &f->streams[f->stream_count];

    assert_true(f->stream_count++ < ELEMENTSOF(f->streams));
    s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(s->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return s;
}

#define SUBSCRIBE_TWIN "\x82\x17\x00\x03\x00\x12$iothub/twin/res/#\x01"
#define TOPIC          "devices/d/messages/events/"
#define MODULE_TOPIC   "devices/d/modules/m/messages/events/"

enum { PERSISTENT = 0, CLEAN = 0x02 };

/* @token NULL: its certificate is its credential. */
static inline void append_connect(struct buf *out, const char *identity, uint8_t clean,
                                  const char *token)
{
    _cleanup_(freep) char *user = xasprintf("hub/%s/?api-version=2021-04-12", identity);
    const char *const texts[] = { identity, user, token };
    struct buf body = {};

    buf_append_span(&body, SPAN("\x00\x04MQTT\x04"));
    buf_append_byte(&body, (uint8_t)(clean | 0x80 | (token ? 0x40 : 0)));
    buf_append_be16(&body, 60);
    for (size_t i = 0; i < ELEMENTSOF(texts) && texts[i]; i++) {
        buf_append_be16(&body, (uint16_t)strlen(texts[i]));
        buf_append_span(&body, span_str(texts[i]));
    }
    assert_true(buf_len(&body) < 128);
    buf_append_byte(out, 0x10);
    buf_append_byte(out, (uint8_t)buf_len(&body));
    buf_append_span(out, buf_span(&body));
    buf_done(&body);
}

static inline struct stream *start_client(struct fixture *f, const char *identity, uint8_t clean,
                                          const char *token)
{
    struct stream *s = open_stream(f);
    struct buf bytes = {};

    append_preamble(&bytes);
    append_connect(&bytes, identity, clean, token);
    send_buf_take(f, s, &bytes);
    return s;
}

static inline void append_publish(struct buf *out, const char *topic, uint16_t id, struct span body)
{
    size_t len = 2 + strlen(topic) + (id ? 2 : 0) + body.len;

    buf_append_byte(out, id ? 0x32 : 0x30);
    for (; len > 0x7f; len >>= 7)
        buf_append_byte(out, (uint8_t)((len & 0x7f) | 0x80));
    buf_append_byte(out, (uint8_t)len);
    buf_append_be16(out, (uint16_t)strlen(topic));
    buf_append_span(out, span_str(topic));
    if (id)
        buf_append_be16(out, id);
    buf_append_span(out, body);
}

static inline void send_publish(struct fixture *f, struct stream *s, uint16_t id, const char *body)
{
    struct buf bytes = {};

    append_publish(&bytes, TOPIC, id, span_str(body));
    send_buf_take(f, s, &bytes);
}

/* So many publishes in one go: 1, 2, 3, … */
static inline void send_numbers(struct fixture *f, struct stream *s, const char *topic,
                                uint16_t count)
{
    struct buf bytes = {};

    for (uint16_t id = 1; id <= count; id++) {
        char body[16];
        int len = snprintf(body, sizeof(body), "%u", id);

        append_publish(&bytes, topic, id, span_of(body, (size_t)len));
    }
    send_buf_take(f, s, &bytes);
}

static inline void expect(struct fixture *f, struct stream *s, struct span want)
{
    loop_until(f, buf_len(&s->in) >= want.len || s->closed);
    assert_true(buf_len(&s->in) >= want.len);
    assert_memory_equal(buf_span(&s->in).at, want.at, want.len);
    buf_eat(&s->in, want.len);
}

#define EXPECT(f, s, literal) expect(f, s, SPAN(literal))

static inline void expect_closed(struct fixture *f, struct stream *s)
{
    loop_until(f, s->closed);
    assert_int_equal(buf_len(&s->in), 0);
}

static inline struct stream *connect_client(struct fixture *f)
{
    struct stream *s = start_client(f, "d", CLEAN, "sas!");

    EXPECT(f, s, "\x20\x02\x00\x00");
    return s;
}

/* There and back: what the listener had to say before that is here. */
static inline void ping(struct fixture *f, struct stream *s)
{
    send_bytes(f, s, SPAN("\xc0\x00"));
    EXPECT(f, s, "\xd0\x00");
}

static inline void assert_bodies(struct fixture *f, const char *want)
{
    if (!span_equal(buf_span(&f->bodies), span_str(want)))
        fail_msg("bodies '%.*s', expected '%s'", (int)buf_len(&f->bodies), buf_span(&f->bodies).at,
                 want);
    buf_done(&f->bodies);
}
