/*
 * The client, fed with bytes, with a host that records what is asked of it: bytes in, bytes out,
 * and what happened in between. The host answers when the test says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "client.h"
#include "mem.h"
#include "message.h"
#include "mqtt-codec.h"

enum { SEC = 1000000, SPREAD_USEC = 100 * SEC };

struct fixture {
    struct client client;
    struct client_host host;
    struct buf asked;     /* what the host was asked for, one word each */
    struct buf published; /* "topic-free" text of each message */
    struct buf record;    /* last session saved */
    struct buf stream;    /* bytes that the client did not eat yet */
    bool admit, room;
    unsigned dropped;
    unsigned unacknowledged; /* acknowledged publishes that the host holds */
    enum client_end end;
    char reason[256];
};

static struct fixture *fixture_of(struct client *client)
{
    return CONTAINER_OF(client, struct fixture, client);
}

/* ---- the host ---- */

static void on_authenticate(struct client *client, bool recheck)
{
    buf_printf(&fixture_of(client)->asked, recheck ? "recheck " : "authenticate ");
}

static void on_load_session(struct client *client)
{
    buf_printf(&fixture_of(client)->asked, "load ");
}

static void on_save_session(struct client *client, const struct span *record)
{
    struct fixture *f = fixture_of(client);

    buf_printf(&f->asked, record ? "save " : "remove ");
    if (record) {
        buf_done(&f->record);
        buf_append_span(&f->record, *record);
    }
}

static bool on_admit(struct client *client)
{
    return fixture_of(client)->admit;
}

static void on_connected(struct client *client)
{
    buf_printf(&fixture_of(client)->asked, "connected ");
}

static bool on_publish(struct client *client, const Bus__Message *m, bool acknowledged)
{
    struct fixture *f = fixture_of(client);

    if (!f->room)
        return false;
    buf_printf(&f->published, "%s/%s", m->device_id, m->module_id);
    for (size_t i = 0; i < m->n_system; i++)
        buf_printf(&f->published, " %s=%s", m->system[i]->name, m->system[i]->value);
    for (size_t i = 0; i < m->n_application; i++)
        buf_printf(&f->published, " %s:%s", m->application[i]->name, m->application[i]->value);
    buf_printf(&f->published, " <%.*s>\n", (int)m->body.len, (const char *)m->body.data);
    f->unacknowledged += acknowledged;
    return true;
}

static void on_inputs(struct client *client, bool wanted)
{
    buf_printf(&fixture_of(client)->asked, wanted ? "inputs " : "no-inputs ");
}

static void on_acknowledged(struct client *client, uint16_t packet_id)
{
    buf_printf(&fixture_of(client)->asked, "acknowledged-%u ", packet_id);
}

static void on_dropped(struct client *client, const char *reason)
{
    fixture_of(client)->dropped++;
}

static void on_output(struct client *client)
{
    assert_true(buf_len(&client->out) > 0);
}

static void on_ended(struct client *client, enum client_end how, const char *reason)
{
    struct fixture *f = fixture_of(client);

    buf_printf(&f->asked, "ended ");
    f->end = how;
    snprintf(f->reason, sizeof(f->reason), "%s", reason);
}

static const struct client_ops ops = {
    .authenticate = on_authenticate,
    .load_session = on_load_session,
    .save_session = on_save_session,
    .admit = on_admit,
    .connected = on_connected,
    .inputs = on_inputs,
    .acknowledged = on_acknowledged,
    .publish = on_publish,
    .dropped = on_dropped,
    .output = on_output,
    .ended = on_ended,
};

static int setup(void **state)
{
    struct fixture *f = xnew(struct fixture);

    f->host = (struct client_host){
        .ops = &ops,
        .limits = { .connect_bytes_max = 1000,
                    .packet_bytes_max = 262144,
                    .will_bytes_max = 1024,
                    .inflight_max = 4,
                    .connect_timeout_usec = 60 * SEC,
                    .login_timeout_usec = 25 * SEC,
                    .keepalive_max_usec = 600 * (uint64_t)SEC,
                    .recheck_usec = 300 * (uint64_t)SEC },
        .scratch = arena_new(),
        .now_usec = 1000 * (uint64_t)SEC,
        .utc_sec = 1700000000,
    };
    f->admit = f->room = true;
    client_init(&f->client, &f->host, false, SPREAD_USEC);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    client_done(&f->client);
    arena_free(f->host.scratch);
    buf_done(&f->asked);
    buf_done(&f->published);
    buf_done(&f->record);
    buf_done(&f->stream);
    free(f);
    return 0;
}

/* ---- what the tests are made of ---- */

static void feed_more(struct fixture *f)
{
    struct span bytes = buf_span(&f->stream);
    size_t len = bytes.len;

    client_feed(&f->client, &bytes);
    buf_eat(&f->stream, len - bytes.len);
}

static void feed(struct fixture *f, struct span bytes)
{
    buf_append_span(&f->stream, bytes);
    feed_more(f);
}

static void feed_buf_take(struct fixture *f, struct buf *bytes)
{
    feed(f, buf_span(bytes));
    buf_done(bytes);
}

static void append_text(struct buf *b, struct span s)
{
    buf_append_be16(b, (uint16_t)s.len);
    buf_append_span(b, s);
}

static void append_packet(struct buf *out, uint8_t first, struct buf *body)
{
    size_t len = buf_len(body);

    buf_append_byte(out, first);
    do {
        buf_append_byte(out, (uint8_t)((len & 0x7f) | (len > 0x7f ? 0x80 : 0)));
        len >>= 7;
    } while (len > 0);
    buf_append_span(out, buf_span(body));
    buf_done(body);
}

struct connect {
    const char *id, *username, *password, *will_topic;
    bool clean;
    uint16_t keep_alive;
};

static void feed_connect(struct fixture *f, struct connect c)
{
    struct buf body = {}, packet = {};

    append_text(&body, SPAN("MQTT"));
    buf_append_byte(&body, 4);
    buf_append_byte(&body, (uint8_t)((c.clean ? 0x02 : 0) | (c.will_topic ? 0x2c : 0) |
                                     (c.username ? 0x80 : 0) | (c.password ? 0x40 : 0)));
    buf_append_be16(&body, c.keep_alive);
    append_text(&body, span_str(c.id));
    if (c.will_topic) {
        append_text(&body, span_str(c.will_topic));
        append_text(&body, SPAN("bye"));
    }
    if (c.username)
        append_text(&body, span_str(c.username));
    if (c.password)
        append_text(&body, span_str(c.password));
    append_packet(&packet, 0x10, &body);
    feed_buf_take(f, &packet);
}

static void append_publish(struct buf *out, uint8_t flags, const char *topic, uint16_t id,
                           const char *body_text)
{
    struct buf body = {};

    append_text(&body, span_str(topic));
    if (flags & 0x06)
        buf_append_be16(&body, id);
    buf_append_span(&body, span_str(body_text));
    append_packet(out, (uint8_t)(0x30 | flags), &body);
}

static void feed_publish(struct fixture *f, uint8_t flags, const char *topic, uint16_t id,
                         const char *body_text)
{
    struct buf packet = {};

    append_publish(&packet, flags, topic, id, body_text);
    feed_buf_take(f, &packet);
}

/* One SUBSCRIBE or, with @first 0xa2, UNSUBSCRIBE with all of them. */
static void feed_filters(struct fixture *f, uint8_t first, uint16_t id, const char *const *filters)
{
    struct buf body = {}, packet = {};

    buf_append_be16(&body, id);
    for (unsigned i = 0; filters[i]; i++) {
        append_text(&body, span_str(filters[i]));
        if (first == 0x82)
            buf_append_byte(&body, (uint8_t)(i % 3)); /* 0, 1, 2, 0, … */
    }
    append_packet(&packet, first, &body);
    feed_buf_take(f, &packet);
}

#define FILTERS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void assert_out(struct fixture *f, struct span want)
{
    struct span got = buf_span(&f->client.out);

    if (!span_equal(got, want)) {
        for (size_t i = 0; i < got.len; i++)
            print_error("%02x ", (uint8_t)got.at[i]);
        fail_msg("%zu bytes out, expected %zu others", got.len, want.len);
    }
    buf_eat(&f->client.out, got.len);
}

#define OUT(f, literal) assert_out(f, SPAN(literal))

static void assert_text(struct buf *b, const char *want)
{
    if (!span_equal(buf_span(b), span_str(want)))
        fail_msg("'%.*s', expected '%s'", (int)buf_len(b), buf_span(b).at, want);
    buf_eat(b, buf_len(b));
}

static void assert_asked(struct fixture *f, const char *want)
{
    assert_text(&f->asked, want);
}

static void assert_closed(struct fixture *f, enum client_end how, const char *reason)
{
    assert_int_equal(f->client.state, CLIENT_CLOSED);
    assert_int_equal(f->end, how);
    if (!strstr(f->reason, reason))
        fail_msg("reason '%s', expected '%s'", f->reason, reason);
    assert_false(client_takes_input(&f->client));
}

#define USER  "hub/d/?api-version=2021-04-12"
#define TOKEN "SharedAccessSignature sr=x"

static void commit(struct fixture *f, unsigned count)
{
    assert_true(f->unacknowledged >= count);
    f->unacknowledged -= count;
    client_on_committed(&f->client, count);
}

static void connect_with(struct fixture *f, struct connect c)
{
    feed_connect(f, c);
    assert_asked(f, "authenticate ");
    client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
    assert_asked(f, "load ");
    client_on_session_loaded(&f->client, true, NULL);
    assert_asked(f, "connected ");
    OUT(f, "\x20\x02\x00\x00");
    assert_int_equal(f->client.state, CLIENT_CONNECTED);
}

static void connect_clean(struct fixture *f)
{
    connect_with(f, (struct connect){ "d", USER, TOKEN, NULL, true, 60 });
}

static void connect_persistent(struct fixture *f)
{
    connect_with(f, (struct connect){ "d", USER, TOKEN, NULL, false, 60 });
}

/* ---- the table ---- */

static void test_table_is_full(void **state)
{
    for (int s = 0; s < _CLIENT_STATE_COUNT; s++)
        for (int e = 0; e < _CLIENT_EVENT_COUNT; e++)
            if (!client_table_has(s, e))
                fail_msg("no action in state %d for event %d", s, e);
}

/* ---- CONNECT ---- */

static void test_connect_accepted(void **state)
{
    struct fixture *f = *state;

    connect_with(
        f, (struct connect){ "d/m", "hub/d/m/?api-version=1&DeviceClientType=node&model-id=dt%3A1",
                             TOKEN, NULL, true, 60 });
    assert_string_equal(f->client.device_id, "d");
    assert_string_equal(f->client.module_id, "m");
    assert_string_equal(f->client.product_info, "node");
    assert_string_equal(f->client.model_id, "dt:1");
    assert_string_equal(f->client.token, TOKEN);
}

/* Refused before anybody is asked: 5, for good. */
static void test_connect_refused_at_once(void **state)
{
    static const struct {
        struct connect connect;
        const char *reason;
    } cases[] = {
        { { "d", NULL, NULL, NULL, true, 0 }, "user name" },
        { { "d", "hub/d", TOKEN, NULL, true, 0 }, "user name" },
        { { "d", "hub/d/?x=y", TOKEN, NULL, true, 0 }, "api-version" },
        { { "", USER, TOKEN, NULL, true, 0 }, "client id" },
        { { "D", USER, TOKEN, NULL, true, 0 }, "client id" },
        { { "d/m", USER, TOKEN, NULL, true, 0 }, "client id" },
        { { "d", "hub/d/m/?api-version=1", TOKEN, NULL, true, 0 }, "client id" },
        { { "d", USER, NULL, NULL, true, 0 }, "neither token nor certificate" },
        { { "d", USER, "", NULL, true, 0 }, "neither token nor certificate" },
        { { "d", USER, "\xff", NULL, true, 0 }, "not a token" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct fixture *f;

        setup((void **)&f);
        feed_connect(f, cases[i].connect);
        OUT(f, "\x20\x02\x00\x05");
        assert_asked(f, "ended ");
        assert_closed(f, CLIENT_END_REFUSED, cases[i].reason);
        teardown((void **)&f);
    }
}

static void test_connect_other_level(void **state)
{
    struct fixture *f = *state;

    feed(f, SPAN("\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"));
    OUT(f, "\x20\x02\x00\x01");
    assert_closed(f, CLIENT_END_REFUSED, "level");
}

static void test_connect_other_name(void **state)
{
    struct fixture *f = *state;

    feed(f, SPAN("\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00"));
    OUT(f, "");
    assert_closed(f, CLIENT_END_VIOLATION, "protocol name MQTT");
}

static void test_connect_verdicts(void **state)
{
    static const struct {
        enum client_verdict verdict;
        const char *out;
    } cases[] = {
        { CLIENT_REFUSED, "\x20\x02\x00\x05" },
        { CLIENT_UNDECIDED, "\x20\x02\x00\x03" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct fixture *f;

        setup((void **)&f);
        feed_connect(f, (struct connect){ "d", USER, TOKEN, NULL, true, 0 });
        client_on_authenticated(&f->client, cases[i].verdict, "because");
        assert_out(f, span_of(cases[i].out, 4));
        assert_closed(f, CLIENT_END_REFUSED, "because");
        teardown((void **)&f);
    }
}

static void test_connect_with_certificate(void **state)
{
    struct fixture *f = *state;

    f->client.has_certificate = true;
    feed_connect(f, (struct connect){ "d", USER, NULL, NULL, true, 0 });
    assert_asked(f, "authenticate ");
    assert_null(f->client.token);
}

static void test_connect_store_away(void **state)
{
    struct fixture *f = *state;

    feed_connect(f, (struct connect){ "d", USER, TOKEN, NULL, false, 0 });
    client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
    client_on_session_loaded(&f->client, false, NULL);
    OUT(f, "\x20\x02\x00\x03");
    assert_closed(f, CLIENT_END_REFUSED, "loaded");
}

static void test_connect_too_many(void **state)
{
    struct fixture *f = *state;

    f->admit = false;
    feed_connect(f, (struct connect){ "d", USER, TOKEN, NULL, true, 0 });
    client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
    client_on_session_loaded(&f->client, true, NULL);
    OUT(f, "\x20\x02\x00\x03");
    assert_closed(f, CLIENT_END_REFUSED, "max_clients");
}

static void test_connect_too_late(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(client_next_usec(&f->client), 1060 * (uint64_t)SEC);
    f->host.now_usec += 60 * SEC - 1;
    client_on_time(&f->client);
    assert_int_equal(f->client.state, CLIENT_WAITING);
    f->host.now_usec += 1;
    client_on_time(&f->client);
    OUT(f, "");
    assert_closed(f, CLIENT_END_CLOSED, "no CONNECT");
}

static void test_connect_identity_silent(void **state)
{
    struct fixture *f = *state;

    feed_connect(f, (struct connect){ "d", USER, TOKEN, NULL, true, 0 });
    assert_int_equal(client_next_usec(&f->client), 1025 * (uint64_t)SEC);
    f->host.now_usec += 25 * SEC;
    client_on_time(&f->client);
    OUT(f, "\x20\x02\x00\x03");
    assert_closed(f, CLIENT_END_REFUSED, "identity did not answer");
}

/* What a raw client sends behind its CONNECT waits, and is done after CONNACK. */
static void test_connect_pipelined(void **state)
{
    struct fixture *f = *state;

    feed_connect(f, (struct connect){ "d", USER, TOKEN, NULL, true, 0 });
    feed_publish(f, 0x02, "devices/d/messages/events/", 7, "x");
    feed(f, SPAN("\xc0\x00\xe0\x00"));
    assert_false(client_takes_input(&f->client));
    OUT(f, "");
    client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
    client_on_session_loaded(&f->client, true, NULL);
    OUT(f, "\x20\x02\x00\x00");
    feed_more(f);
    OUT(f, "\xd0\x00");
    assert_text(&f->published, "d/ <x>\n");
    assert_closed(f, CLIENT_END_QUIET, "DISCONNECT");
    client_on_committed(&f->client, 1); /* it is gone, the message is not */
    OUT(f, "");
}

static void test_first_packet_is_not_connect(void **state)
{
    static const struct span packets[] = {
        { "\xc0\x00", 2 },
        { "\xe0\x00", 2 },
        { "\x40\x02\x00\x01", 4 },
        { "\x30\x03\x00\x01t", 5 },
        { "GET / HTTP/1.1\r\n\r\n", 18 },
        { "\x16\x03\x01\x02\x00\x01", 6 },
    };

    for (size_t i = 0; i < ELEMENTSOF(packets); i++) {
        struct fixture *f;

        setup((void **)&f);
        feed(f, packets[i]);
        OUT(f, "");
        assert_asked(f, "ended ");
        assert_int_equal(f->client.state, CLIENT_CLOSED);
        assert_int_equal(f->end, CLIENT_END_VIOLATION);
        teardown((void **)&f);
    }
}

static void test_second_connect(void **state)
{
    struct fixture *f = *state;

    connect_clean(f);
    feed_connect(f, (struct connect){ "d", USER, TOKEN, NULL, true, 60 });
    OUT(f, "");
    assert_closed(f, CLIENT_END_VIOLATION, "second CONNECT");
}

/* ---- sessions ---- */

static void test_session_present(void **state)
{
    struct fixture *f = *state;
    struct session stored = {};
    struct buf record = {};
    struct span span;
    bool changed;

    session_subscribe(&stored, SPAN("$iothub/twin/res/#"), 1, 5, &changed);
    session_encode(&stored, &record);
    span = buf_span(&record);
    feed_connect(f, (struct connect){ "d", USER, TOKEN, NULL, false, 0 });
    client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
    client_on_session_loaded(&f->client, true, &span);
    OUT(f, "\x20\x02\x01\x00");
    assert_int_equal(f->client.session.count, 1);
    assert_int_equal(f->client.session.subscriptions[0].created_sec, 5);
    buf_done(&f->asked);

    /* the same again changes nothing: no write */
    feed(f, SPAN("\x82\x17\x00\x09\x00\x12$iothub/twin/res/#\x02"));
    OUT(f, "\x90\x03\x00\x09\x01");
    assert_asked(f, "");
    session_done(&stored);
    buf_done(&record);
}

static void test_session_clean_removes(void **state)
{
    struct fixture *f = *state;
    struct span record = SPAN("");

    feed_connect(f, (struct connect){ "d", USER, TOKEN, NULL, true, 0 });
    client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
    client_on_session_loaded(&f->client, true, &record);
    assert_asked(f, "authenticate load remove ");
    OUT(f, "");
    client_on_session_saved(&f->client, true);
    OUT(f, "\x20\x02\x00\x00");
    assert_asked(f, "connected ");
}

static void test_session_clean_cannot_remove(void **state)
{
    struct fixture *f = *state;
    struct span record = SPAN("");

    feed_connect(f, (struct connect){ "d", USER, TOKEN, NULL, true, 0 });
    client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
    client_on_session_loaded(&f->client, true, &record);
    client_on_session_saved(&f->client, false);
    OUT(f, "\x20\x02\x00\x03");
    assert_closed(f, CLIENT_END_REFUSED, "removed");
}

/* A record that is no record is as none: the client gets in and subscribes anew. */
static void test_session_record_broken(void **state)
{
    struct fixture *f = *state;
    struct span record = SPAN("\xff\xff");

    feed_connect(f, (struct connect){ "d", USER, TOKEN, NULL, false, 0 });
    client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
    client_on_session_loaded(&f->client, true, &record);
    OUT(f, "\x20\x02\x00\x00");
}

/* ---- SUBSCRIBE ---- */

static void test_subscribe_clean(void **state)
{
    struct fixture *f = *state;

    connect_clean(f);
    feed_filters(f, 0x82, 3,
                 FILTERS("$iothub/methods/POST/#", "devices/d/messages/devicebound/#",
                         "$iothub/twin/res/#", "#", "own/topic"));
    OUT(f, "\x90\x07\x00\x03\x00\x01\x01\x00\x01");
    assert_asked(f, ""); /* nothing is stored */
    assert_int_equal(f->client.session.count, 5);
}

/* SUBACK when it is on disk; what comes behind it waits so long. */
static void test_subscribe_persistent(void **state)
{
    struct fixture *f = *state;
    struct session stored = {};

    connect_persistent(f);
    feed_filters(f, 0x82, 3, FILTERS("$iothub/twin/res/#", "a/#"));
    feed(f, SPAN("\xc0\x00"));
    assert_asked(f, "save ");
    OUT(f, "");
    assert_int_equal(session_decode(&stored, buf_span(&f->record)), 0);
    assert_int_equal(stored.count, 2);
    assert_int_equal(stored.subscriptions[1].created_sec, 1700000000);
    session_done(&stored);

    client_on_session_saved(&f->client, true);
    feed_more(f);
    OUT(f, "\x90\x04\x00\x03\x00\x01"
           "\xd0\x00");

    feed_filters(f, 0xa2, 4, FILTERS("a/#", "never"));
    assert_asked(f, "save ");
    OUT(f, "");
    client_on_session_saved(&f->client, true);
    OUT(f, "\xb0\x02\x00\x04");
    assert_int_equal(f->client.session.count, 1);

    feed_filters(f, 0xa2, 5, FILTERS("never")); /* nothing to store */
    OUT(f, "\xb0\x02\x00\x05");
    assert_asked(f, "");
}

static void test_subscribe_cannot_store(void **state)
{
    struct fixture *f = *state;

    connect_persistent(f);
    feed_filters(f, 0x82, 3, FILTERS("a"));
    client_on_session_saved(&f->client, false);
    OUT(f, "");
    assert_closed(f, CLIENT_END_CLOSED, "stored");
}

static void test_subscribe_too_many(void **state)
{
    struct fixture *f = *state;
    char filter[16];

    connect_clean(f);
    for (unsigned i = 0; i <= SESSION_SUBSCRIPTIONS_MAX; i++) {
        snprintf(filter, sizeof(filter), "f%u", i);
        assert_int_equal(f->client.state, CLIENT_CONNECTED);
        feed_filters(f, 0x82, 1, FILTERS(filter));
    }
    assert_closed(f, CLIENT_END_VIOLATION, "more subscriptions");
}

/* ---- PUBLISH ---- */

static void test_publish_acknowledged_after_commit(void **state)
{
    struct fixture *f = *state;

    connect_clean(f);
    feed_publish(f, 0x02, "devices/d/messages/events/%24.ct=text&k=v", 0x102, "one");
    feed_publish(f, 0x00, "devices/d/messages/events/", 0, "two");
    feed_publish(f, 0x02, "devices/d/messages/events", 9, "");
    assert_text(&f->published, "d/ contentType=text k:v <one>\nd/ <two>\nd/ <>\n");
    OUT(f, "");
    commit(f, 1);
    OUT(f, "\x40\x02\x01\x02");
    commit(f, 1);
    OUT(f, "\x40\x02\x00\x09");
    assert_int_equal(f->host.counters.messages, 3);
    assert_int_equal(f->host.counters.message_bytes, 6);
}

/* What is acknowledged without being stored waits for those before it. */
static void test_publish_acknowledged_in_order(void **state)
{
    struct fixture *f = *state;

    connect_clean(f);
    feed_publish(f, 0x02, "free/topic", 1, "");
    OUT(f, "\x40\x02\x00\x01");
    feed_publish(f, 0x02, "devices/d/messages/events/", 2, "a");
    feed_publish(f, 0x02, "free/topic", 3, "");
    feed_publish(f, 0x02, "devices/d/messages/events/", 4, "b");
    assert_false(f->client.blocked);
    OUT(f, "");
    commit(f, 1);
    OUT(f, "\x40\x02\x00\x02\x40\x02\x00\x03");
    feed_publish(f, 0x02, "$iothub/methods/res/200/?$rid=1", 5, "");
    OUT(f, "");
    commit(f, 1);
    OUT(f, "\x40\x02\x00\x04\x40\x02\x00\x05");
    assert_int_equal(f->host.counters.dropped_unknown, 2);
}

static void test_publish_many_commits_at_once(void **state)
{
    struct fixture *f = *state;

    connect_clean(f);
    for (uint16_t id = 1; id <= 4; id++)
        feed_publish(f, 0x02, "devices/d/messages/events/", id, "");
    commit(f, 4);
    OUT(f, "\x40\x02\x00\x01\x40\x02\x00\x02\x40\x02\x00\x03\x40\x02\x00\x04");
}

static void test_publish_window(void **state)
{
    struct fixture *f = *state;

    connect_clean(f);
    for (uint16_t id = 1; id <= 6; id++)
        feed_publish(f, 0x02, "devices/d/messages/events/", id, "");
    assert_int_equal(f->unacknowledged, 4);
    assert_false(client_takes_input(&f->client));
    commit(f, 2);
    assert_true(client_takes_input(&f->client));
    feed_more(f);
    assert_int_equal(f->unacknowledged, 4);
    commit(f, 4);
    OUT(f,
        "\x40\x02\x00\x01\x40\x02\x00\x02\x40\x02\x00\x03\x40\x02\x00\x04\x40\x02\x00\x05\x40\x02"
        "\x00\x06");
}

static void test_publish_no_room(void **state)
{
    struct fixture *f = *state;

    connect_clean(f);
    f->room = false;
    feed_publish(f, 0x02, "devices/d/messages/events/", 1, "a");
    feed_publish(f, 0x02, "devices/d/messages/events/", 2, "b");
    assert_false(client_takes_input(&f->client));
    assert_text(&f->published, "");
    f->host.now_usec += 3600 * (uint64_t)SEC; /* that we do not read is not its silence */
    client_on_time(&f->client);
    assert_asked(f, "recheck ");
    f->room = true;
    client_on_room(&f->client);
    feed_more(f);
    assert_text(&f->published, "d/ <a>\nd/ <b>\n");
    assert_int_equal(f->host.counters.messages, 2);
    commit(f, 2);
    OUT(f, "\x40\x02\x00\x01\x40\x02\x00\x02");
}

static void test_publish_flags(void **state)
{
    struct fixture *f = *state;

    connect_with(f, (struct connect){ "d/m", "hub/d/m/?api-version=1&model-id=dt%3A1", TOKEN, NULL,
                                      true, 60 });
    feed_publish(f, 0x0b, "devices/d/modules/m/messages/events/%24.on=o&a=b/", 1, "x");
    assert_text(&f->published,
                "d/m outputName=o modelId=dt:1 a:b mqtt-retain:true mqtt-dup:true <x>\n");
}

static void test_publish_foreign_identity(void **state)
{
    static const char *const topics[] = { "devices/other/messages/events/",
                                          "devices/D/messages/events/",
                                          "devices/d/modules/m/messages/events/",
                                          "devices//messages/events/" };

    for (size_t i = 0; i < ELEMENTSOF(topics); i++) {
        struct fixture *f;

        setup((void **)&f);
        connect_clean(f);
        feed_publish(f, 0x02, topics[i], 1, "x");
        assert_text(&f->published, "");
        OUT(f, "");
        assert_closed(f, CLIENT_END_VIOLATION, "another identity");
        teardown((void **)&f);
    }
}

static void test_publish_qos2(void **state)
{
    struct fixture *f = *state;

    connect_clean(f);
    feed_publish(f, 0x04, "devices/d/messages/events/", 1, "x");
    assert_text(&f->published, "");
    OUT(f, "");
    assert_closed(f, CLIENT_END_VIOLATION, "QoS 2");
}

/* Acknowledged and dropped: closing would bring it back for ever. */
static void test_publish_dropped(void **state)
{
    _cleanup_(freep) char *large = xalloc0(262100);
    struct fixture *f = *state;

    connect_clean(f);
    feed_publish(f, 0x02, "devices/d/messages/events/a=%ff", 1, "x");
    OUT(f, "\x40\x02\x00\x01");
    assert_int_equal(f->host.counters.dropped_malformed, 1);

    /* 262099 of body, 4 and 41 or 42 of a property: just small enough, and one too many */
    f->host.limits.packet_bytes_max = 270000;
    memset(large, 'x', 262099);
    feed_publish(f, 0x02,
                 "devices/d/messages/events/name=0123456789012345678901234567890123456789x", 2,
                 large);
    OUT(f, "");
    commit(f, 1);
    OUT(f, "\x40\x02\x00\x02");
    feed_publish(f, 0x02,
                 "devices/d/messages/events/name=0123456789012345678901234567890123456789xy", 3,
                 large);
    OUT(f, "\x40\x02\x00\x03");
    assert_int_equal(f->host.counters.dropped_too_large, 1);
    assert_int_equal(f->dropped, 2);
}

static void test_packet_too_large(void **state)
{
    struct fixture *f = *state;

    connect_clean(f);
    feed(f, SPAN("\x32\x80\x80\x40"));
    OUT(f, "");
    assert_closed(f, CLIENT_END_VIOLATION, "smaller packet");
    assert_int_equal(f->host.counters.oversize, 1);
}

/* Who is not known yet may not make us keep much. */
static void test_connect_too_large(void **state)
{
    struct fixture *f = *state;

    feed(f, SPAN("\x10\xe6\x07")); /* 1001 */
    OUT(f, "");
    assert_closed(f, CLIENT_END_VIOLATION, "smaller packet");
}

static void test_byte_by_byte(void **state)
{
    struct fixture *f = *state;
    struct buf packets = {};

    connect_clean(f);
    append_publish(&packets, 0x02, "devices/d/messages/events/k=v", 1, "body");
    buf_append(&packets, "\xc0\x00", 2);
    for (size_t i = 0; i < buf_len(&packets); i++)
        feed(f, span_of(buf_span(&packets).at + i, 1));
    buf_done(&packets);
    assert_text(&f->published, "d/ k:v <body>\n");
    OUT(f, "\xd0\x00");
    commit(f, 1);
    OUT(f, "\x40\x02\x00\x01");
}

/* ---- twins, until they have an owner ---- */

static void test_twin_answered(void **state)
{
    static const char body[] = "{\"errorCode\":503000,\"message\":\"Twin is not available.\"}";
    struct fixture *f = *state;
    struct buf want = {};

    connect_clean(f);
    feed_publish(f, 0x00, "$iothub/twin/GET/?$rid=7", 0, " ");
    OUT(f, ""); /* not subscribed: nobody listens */

    feed(f, SPAN("\x82\x17\x00\x01\x00\x12$iothub/twin/res/#\x01"));
    OUT(f, "\x90\x03\x00\x01\x01");
    feed_publish(f, 0x02, "$iothub/twin/GET/?$rid=7%2f", 2, " ");
    mqtt_encode_puback(&want, 2);
    mqtt_encode_publish(&want, SPAN("$iothub/twin/res/503/?$rid=7%2f"), span_str(body), 1, 0x8000,
                        false);
    feed_publish(f, 0x00, "$iothub/twin/PATCH/properties/reported/?$rid=8&x", 0, "{}");
    mqtt_encode_publish(&want, SPAN("$iothub/twin/res/503/?$rid=8"), span_str(body), 1, 0x8001,
                        false);
    feed_publish(f, 0x02, "$iothub/twin/PATCH/properties/reported/", 3, "{}");
    mqtt_encode_puback(&want, 3);
    assert_out(f, buf_span(&want));
    buf_done(&want);
    feed(f, SPAN("\x40\x02\x00\x01\x40\x02\x00\x63\x50\x02\x00\x01\x70\x02\x00\x01")); /* acks */
    assert_asked(f, "acknowledged-1 acknowledged-99 ");
    OUT(f, "");
    assert_int_equal(f->client.state, CLIENT_CONNECTED);
}

static void test_twin_forbidden(void **state)
{
    struct fixture *f = *state;

    connect_clean(f);
    feed_publish(f, 0x00, "$iothub/twin/GET/", 0, "");
    assert_closed(f, CLIENT_END_VIOLATION, "$iothub/twin/");
}

/* ---- the rest of its life ---- */

static void test_unsupported_packets(void **state)
{
    static const struct span packets[] = {
        { "\x62\x02\x00\x01", 4 }, /* PUBREL */
        { "\x20\x02\x00\x00", 4 }, /* CONNACK */
        { "\xd0\x00", 2 },         /* PINGRESP */
        { "\x82\x02\x00\x01", 4 }, /* SUBSCRIBE to nothing */
        { "\x36\x00", 2 },         /* QoS 3 */
    };

    for (size_t i = 0; i < ELEMENTSOF(packets); i++) {
        struct fixture *f;

        setup((void **)&f);
        connect_clean(f);
        feed(f, packets[i]);
        OUT(f, "");
        assert_closed(f, CLIENT_END_VIOLATION, "");
        teardown((void **)&f);
    }
}

static void test_keepalive(void **state)
{
    struct fixture *f = *state;

    connect_clean(f); /* 60 s */
    assert_int_equal(client_next_usec(&f->client), 1090 * (uint64_t)SEC);
    f->host.now_usec += 89 * SEC;
    feed(f, SPAN("\xc0\x00"));
    OUT(f, "\xd0\x00");
    f->host.now_usec += 90 * SEC - 1;
    client_on_time(&f->client);
    assert_int_equal(f->client.state, CLIENT_CONNECTED);
    f->host.now_usec += 1;
    client_on_time(&f->client);
    assert_closed(f, CLIENT_END_CLOSED, "keep-alive");
}

static void test_keepalive_bounds(void **state)
{
    static const struct {
        uint16_t keep_alive;
        uint64_t want_usec;
    } cases[] = { { 0, 600 * (uint64_t)SEC },
                  { 1, 1500000 },
                  { 400, 600 * (uint64_t)SEC },
                  { 401, 600 * (uint64_t)SEC },
                  { 65535, 600 * (uint64_t)SEC } };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct fixture *f;

        setup((void **)&f);
        connect_with(f, (struct connect){ "d", USER, TOKEN, NULL, true, cases[i].keep_alive });
        assert_int_equal(f->client.keepalive_usec, cases[i].want_usec);
        teardown((void **)&f);
    }
}

static void test_recheck(void **state)
{
    struct fixture *f = *state;

    connect_with(f, (struct connect){ "d", USER, TOKEN, "devices/d/messages/events/", true, 400 });
    assert_int_equal(client_next_usec(&f->client), 1000 * (uint64_t)SEC + SPREAD_USEC);
    f->host.now_usec += SPREAD_USEC;
    client_on_time(&f->client);
    assert_asked(f, "recheck ");
    client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
    assert_int_equal(f->client.state, CLIENT_CONNECTED);
    client_on_time(&f->client);
    assert_asked(f, ""); /* not before 300 s */

    client_recheck_at(&f->client, f->host.now_usec + 5 * SEC);
    f->host.now_usec += 5 * SEC;
    client_on_time(&f->client);
    assert_asked(f, "recheck ");
    client_on_authenticated(&f->client, CLIENT_UNDECIDED, "identity is away");
    assert_int_equal(f->client.state, CLIENT_CONNECTED);

    client_recheck_at(&f->client, f->host.now_usec);
    client_on_time(&f->client);
    client_on_authenticated(&f->client, CLIENT_REFUSED, "expired");
    assert_closed(f, CLIENT_END_REFUSED, "expired");
    assert_text(&f->published, ""); /* no Will */
}

static void connect_with_will(struct fixture *f, const char *topic)
{
    connect_with(f, (struct connect){ "d", USER, TOKEN, topic, true, 60 });
}

static void test_will_published(void **state)
{
    static const char want[] = "d/ a:b iothub-MessageType:Will MessageType:Will <bye>\n";
    static const char topic[] = "devices/d/messages/events/a=b";
    enum { RESET, SILENCE, VIOLATION, CASES };

    for (int i = 0; i < CASES; i++) {
        struct fixture *f;

        setup((void **)&f);
        connect_with_will(f, topic);
        f->host.now_usec += 90 * SEC;
        if (i == RESET)
            client_on_stream_ended(&f->client, CLIENT_END_QUIET, "reset");
        else if (i == SILENCE)
            client_on_time(&f->client);
        else
            feed(f, SPAN("\xff\xff"));
        assert_text(&f->published, want);
        assert_asked(f, "ended ");
        assert_int_equal(f->client.state, CLIENT_CLOSED);
        assert_int_equal(f->host.counters.wills, 1);
        teardown((void **)&f);
    }
}

static void test_will_not_published(void **state)
{
    enum { DISCONNECT, TAKEN_OVER, SHUTDOWN, FOREIGN_TOPIC, FREE_TOPIC, CASES };
    static const char *const topics[CASES] = {
        [DISCONNECT] = "devices/d/messages/events/",
        [TAKEN_OVER] = "devices/d/messages/events/",
        [SHUTDOWN] = "devices/d/messages/events/",
        [FOREIGN_TOPIC] = "devices/other/messages/events/",
        [FREE_TOPIC] = "last/words",
    };

    for (int i = 0; i < CASES; i++) {
        struct fixture *f;

        setup((void **)&f);
        connect_with_will(f, topics[i]);
        if (i == DISCONNECT)
            feed(f, SPAN("\xe0\x00"));
        else if (i == TAKEN_OVER)
            client_on_taken_over(&f->client);
        else if (i == SHUTDOWN)
            client_on_shutdown(&f->client);
        else
            client_on_stream_ended(&f->client, CLIENT_END_QUIET, "reset");
        assert_text(&f->published, "");
        assert_asked(f, "ended ");
        assert_int_equal(f->client.state, CLIENT_CLOSED);
        teardown((void **)&f);
    }
}

static void test_will_waits_for_room(void **state)
{
    struct fixture *f = *state;

    connect_with_will(f, "devices/d/messages/events/");
    f->room = false;
    client_on_stream_ended(&f->client, CLIENT_END_QUIET, "reset");
    assert_asked(f, "ended ");
    assert_int_equal(f->client.state, CLIENT_LEAVING);
    client_on_room(&f->client);
    assert_int_equal(f->client.state, CLIENT_LEAVING);
    f->room = true;
    client_on_room(&f->client);
    assert_int_equal(f->client.state, CLIENT_CLOSED);
    assert_text(&f->published, "d/ iothub-MessageType:Will MessageType:Will <bye>\n");
    assert_asked(f, "");
}

static void test_will_too_large(void **state)
{
    struct fixture *f = *state;

    f->host.limits.will_bytes_max = 28;
    feed_connect(f, (struct connect){ "d", USER, TOKEN, "devices/d/messages/events/", true, 60 });
    OUT(f, "\x20\x02\x00\x05");
    assert_closed(f, CLIENT_END_REFUSED, "max_will_bytes");
}

/* A client that ends at any moment of its login leaves nothing behind, and late events find it
 * closed. */
static void test_stream_ends_early(void **state)
{
    for (int step = 0; step < 4; step++) {
        struct fixture *f;

        setup((void **)&f);
        if (step > 0)
            feed_connect(
                f, (struct connect){ "d", USER, TOKEN, "devices/d/messages/events/", false, 60 });
        if (step > 1)
            client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
        if (step > 2) {
            client_on_session_loaded(&f->client, true, NULL);
            feed_filters(f, 0x82, 1, FILTERS("a"));
            assert_int_equal(f->client.state, CLIENT_SAVING);
        }
        client_on_stream_ended(&f->client, CLIENT_END_QUIET, "end of stream");
        assert_int_equal(f->client.state, CLIENT_CLOSED);
        assert_int_equal(buf_len(&f->published) > 0, step == 3); /* a Will only of who was in */
        client_on_time(&f->client);
        client_on_stream_ended(&f->client, CLIENT_END_QUIET, "again");
        client_on_shutdown(&f->client);
        assert_int_equal(client_next_usec(&f->client), UINT64_MAX);
        teardown((void **)&f);
    }
}

/* ---- inputs of a module ---- */

static void connect_module(struct fixture *f, bool is_edge_module, bool clean)
{
    f->client.is_edge_module = is_edge_module;
    connect_with(f, (struct connect){ "d/m", "hub/d/m/?api-version=1", TOKEN, NULL, clean, 60 });
}

static void test_inputs_wanted(void **state)
{
    struct fixture *f = *state;

    connect_module(f, true, true);
    feed_filters(f, 0x82, 1, FILTERS("$iothub/twin/res/#", "devices/d/modules/m/#"));
    assert_asked(f, "inputs ");
    feed_filters(f, 0x82, 2, FILTERS("devices/d/modules/m/inputs/#"));
    assert_asked(f, "");
    feed_filters(f, 0xa2, 3, FILTERS("devices/d/modules/m/#"));
    assert_asked(f, "");
    feed_filters(f, 0xa2, 4, FILTERS("devices/d/modules/m/inputs/#"));
    assert_asked(f, "no-inputs ");
}

/* Node and Python subscribe once, and never again (mqtt.md §7). */
static void test_inputs_wanted_by_the_stored_session(void **state)
{
    struct fixture *f = *state;
    struct session session = {};
    struct buf record = {};
    struct span span;
    bool changed;

    session_subscribe(&session, SPAN("devices/d/modules/m/inputs/#"), 1, 1, &changed);
    session_encode(&session, &record);
    span = buf_span(&record);
    f->client.is_edge_module = true;
    feed_connect(f, (struct connect){ "d/m", "hub/d/m/?api-version=1", TOKEN, NULL, false, 60 });
    client_on_authenticated(&f->client, CLIENT_ACCEPTED, "");
    client_on_session_loaded(&f->client, true, &span);
    assert_asked(f, "authenticate load connected inputs ");
    session_done(&session);
    buf_done(&record);
}

/* A leaf device's module of the same name has no inputs here. */
static void test_inputs_of_the_edge_only(void **state)
{
    struct fixture *f = *state;

    connect_module(f, false, true);
    feed_filters(f, 0x82, 1, FILTERS("devices/d/modules/m/#"));
    assert_asked(f, "");
}

static void test_inputs_sent(void **state)
{
    static const char topic[] = "devices/d/modules/m/inputs/i/%24.cdid=d";
    struct fixture *f = *state;
    struct buf want = {};
    uint16_t id = 7;

    connect_module(f, true, true);
    assert_int_equal(client_send(&f->client, span_str(topic), SPAN("x"), &id), CLIENT_E_UNWANTED);
    feed(f, SPAN("\x82\x1a\x00\x01\x00\x15"
                 "devices/d/modules/m/#\x01"));
    OUT(f, "\x90\x03\x00\x01\x01");
    assert_asked(f, "inputs ");

    assert_int_equal(client_send(&f->client, span_str(topic), SPAN("x"), &id), 0);
    assert_int_equal(id, 1);
    client_send_again(&f->client, span_str(topic), SPAN("x"), id);
    mqtt_encode_publish(&want, span_str(topic), SPAN("x"), 1, 1, false);
    mqtt_encode_publish(&want, span_str(topic), SPAN("x"), 1, 1, true);
    assert_out(f, buf_span(&want));
    buf_done(&want);
    feed(f, SPAN("\x40\x02\x00\x01"));
    assert_asked(f, "acknowledged-1 ");

    f->client.last_input_id = 0x7fff; /* and then from the first again */
    assert_int_equal(client_send(&f->client, span_str(topic), SPAN(""), &id), 0);
    assert_int_equal(id, 1);
}

static void test_inputs_sent_by_qos_0(void **state)
{
    struct fixture *f = *state;
    uint16_t id = 7;

    connect_module(f, true, true);
    feed(f, SPAN("\x82\x1a\x00\x01\x00\x15"
                 "devices/d/modules/m/#\x00"));
    OUT(f, "\x90\x03\x00\x01\x00");
    assert_int_equal(client_send(&f->client, SPAN("devices/d/modules/m/inputs/i/"), SPAN("x"), &id),
                     0);
    assert_int_equal(id, 0);
    OUT(f, "\x30\x20\x00\x1d"
           "devices/d/modules/m/inputs/i/x");
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_full),
        T(test_connect_accepted),
        cmocka_unit_test(test_connect_refused_at_once),
        T(test_connect_other_level),
        T(test_connect_other_name),
        cmocka_unit_test(test_connect_verdicts),
        T(test_connect_with_certificate),
        T(test_connect_store_away),
        T(test_connect_too_many),
        T(test_connect_too_late),
        T(test_connect_identity_silent),
        T(test_connect_pipelined),
        cmocka_unit_test(test_first_packet_is_not_connect),
        T(test_second_connect),
        T(test_session_present),
        T(test_session_clean_removes),
        T(test_session_clean_cannot_remove),
        T(test_session_record_broken),
        T(test_subscribe_clean),
        T(test_subscribe_persistent),
        T(test_subscribe_cannot_store),
        T(test_subscribe_too_many),
        T(test_publish_acknowledged_after_commit),
        T(test_publish_acknowledged_in_order),
        T(test_publish_many_commits_at_once),
        T(test_publish_window),
        T(test_publish_no_room),
        T(test_publish_flags),
        cmocka_unit_test(test_publish_foreign_identity),
        T(test_publish_qos2),
        T(test_publish_dropped),
        T(test_packet_too_large),
        T(test_connect_too_large),
        T(test_byte_by_byte),
        T(test_twin_answered),
        T(test_twin_forbidden),
        cmocka_unit_test(test_unsupported_packets),
        T(test_keepalive),
        cmocka_unit_test(test_keepalive_bounds),
        T(test_recheck),
        cmocka_unit_test(test_will_published),
        cmocka_unit_test(test_will_not_published),
        T(test_will_waits_for_room),
        T(test_will_too_large),
        cmocka_unit_test(test_stream_ends_early),
        T(test_inputs_wanted),
        T(test_inputs_wanted_by_the_stored_session),
        T(test_inputs_of_the_edge_only),
        T(test_inputs_sent),
        T(test_inputs_sent_by_qos_0),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
