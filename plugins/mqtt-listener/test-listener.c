/* What only the whole listener can promise. */
#include "test-listener.h"

/* ---- logins ---- */

static void test_login_by_token(void **state)
{
    struct fixture *f = *state;

    start_peers(f);
    connect_client(f);
    loop_until(f, f->connected == 1);
    assert_int_equal(f->asked, 1);
}

static void test_login_by_certificate(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    s = start_client(f, "d", CLEAN, NULL);
    EXPECT(f, s, "\x20\x02\x00\x00");
}

static void test_login_verdicts(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    f->verdict = BUS__VERDICT__VERDICT_REFUSED;
    s = start_client(f, "d", CLEAN, "sas!");
    EXPECT(f, s, "\x20\x02\x00\x05");
    expect_closed(f, s);
    f->verdict = BUS__VERDICT__VERDICT_NOT_YET;
    s = start_client(f, "d", CLEAN, "sas!");
    EXPECT(f, s, "\x20\x02\x00\x03");
    expect_closed(f, s);
    loop_until(f, f->listener->connection_count == 0);
    assert_int_equal(f->connected, 0);
}

/* Byte by byte, the preamble too: nothing depends on how the stream is cut. */
static void test_login_in_pieces(void **state)
{
    struct fixture *f = *state;
    struct stream *s;
    struct buf bytes = {};

    start_peers(f);
    s = open_stream(f);
    append_preamble(&bytes);
    append_connect(&bytes, "d", CLEAN, "sas!");
    buf_append_span(&bytes, SPAN("\xc0\x00"));
    for (size_t i = 0; i < buf_len(&bytes); i++) {
        send_bytes(f, s, span_of(buf_span(&bytes).at + i, 1));
        loop_until(f, f->listener->bytes_in > i);
    }
    buf_done(&bytes);
    EXPECT(f, s, "\x20\x02\x00\x00\xd0\x00");
    assert_int_equal(f->listener->held_bytes, 0);
}

static void test_preamble_malformed(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    s = open_stream(f);
    send_bytes(f, s, SPAN("\xff\xff\xff\xff"));
    expect_closed(f, s);
    s = open_stream(f);
    send_bytes(f, s, SPAN("\x00\x00\x00\x02\xff\xff"));
    expect_closed(f, s);
}

/* It said all and was gone before it was known who it is: what it sent counts. */
static void test_gone_before_login(void **state)
{
    struct fixture *f = *state;
    struct connection *c;
    struct stream *s;

    start_peers(f);
    f->identity_holds = true;
    s = start_client(f, "d", CLEAN, "sas!");
    send_publish(f, s, 0, "last words");
    send_bytes(f, s, SPAN("\xe0\x00"));
    s->fd = close_fd(s->fd);
    s->closed = true;
    loop_until(f, f->held_count == 1);
    c = TAILQ_FIRST(&f->listener->connections);
    loop_until(f, !c->watch.awake); /* a hang-up that may not be read yet does not spin */
    assert_int_equal(answer_verdict(f, f->held[0]), 0);
    f->held_count = 0;
    loop_until(f, f->messages == 1);
    assert_bodies(f, "last words\n");
    loop_until(f, f->listener->connection_count == 0);
}

static void test_too_many_clients(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    f->config.max_clients = 1;
    start_peers(f);
    connect_client(f);
    connect_client(f); /* the same identity is not one more */
    assert_int_equal(f->listener->identities.count, 1);
    s = start_client(f, "e", CLEAN, "sas!");
    EXPECT(f, s, "\x20\x02\x00\x03");
    expect_closed(f, s);
}

/* ---- publishing ---- */

static void test_puback_after_commit(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    s = connect_client(f);
    f->router_holds = true;
    send_publish(f, s, 1, "a");
    send_publish(f, s, 2, "b");
    loop_until(f, f->messages == 2);
    ping(f, s); /* nothing else comes */
    answer_held(f);
    EXPECT(f, s, "\x40\x02\x00\x01\x40\x02\x00\x02");
    assert_bodies(f, "a\nb\n");
}

/* What came in one read goes out in one batch. */
static void test_one_batch_a_turn(void **state)
{
    struct fixture *f = *state;
    struct buf bytes = {};
    struct stream *s;

    start_peers(f);
    s = connect_client(f);
    for (uint16_t id = 1; id <= 100; id++)
        append_publish(&bytes, TOPIC, id, SPAN("x"));
    send_buf_take(f, s, &bytes);
    loop_until(f, f->messages == 100);
    assert_int_equal(f->batches, 1);
    loop_until(f, buf_len(&s->in) == 400);
}

/* The router is dead while they come, and dies again with them: each arrives, in order, and is
 * acknowledged. */
static void test_router_dies(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    s = connect_client(f);
    loop_until(f, f->connected == 1);
    f->router_holds = true;
    send_publish(f, s, 1, "a");
    loop_until(f, f->messages == 1);
    f->held[0] = bus_call_drop(f->held[0]);
    f->held_count = 0;
    f->router = bus_free(f->router);
    send_publish(f, s, 2, "b");
    loop_until(f, f->listener->host.counters.messages == 2);
    buf_done(&f->bodies);
    f->messages = 0;
    f->router_holds = false;
    f->router = start_peer(f, "router", router_handlers);
    wait_for_sync(f); /* it is told who is there */
    EXPECT(f, s, "\x40\x02\x00\x01\x40\x02\x00\x02");
    assert_bodies(f, "a\nb\n");
    assert_int_equal(f->synced_clients, 1);
}

/* A client that dies before the commit: its messages do not. */
static void test_client_dies_before_commit(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    s = connect_client(f);
    f->router_holds = true;
    send_publish(f, s, 1, "a");
    loop_until(f, f->messages == 1);
    s->fd = close_fd(s->fd);
    s->closed = true;
    loop_until(f, f->disconnected == 1);
    assert_int_equal(f->listener->connection_count, 1); /* its batch refers to it */
    answer_held(f);
    loop_until(f, f->listener->connection_count == 0);
}

/* Nothing is answered: a bounded amount is taken, then the streams are not read; when it goes on,
 * all arrives, once and in the order of each client. */
static void test_backpressure(void **state)
{
    enum { EACH = 400, BATCH = 10 };
    struct fixture *f = *state;
    struct stream *s[2], *other;

    f->config.batch_max_messages = BATCH;
    f->config.inflight_max = 10000;
    start_peers(f);
    s[0] = connect_client(f);
    s[1] = start_client(f, "d/m", CLEAN, "sas!");
    EXPECT(f, s[1], "\x20\x02\x00\x00");
    f->router_holds = true;
    for (unsigned i = 0; i < ELEMENTSOF(s); i++)
        send_numbers(f, s[i], i == 0 ? TOPIC : MODULE_TOPIC, EACH);
    loop_until(f, f->messages == BATCH * PRODUCER_WINDOW &&
                      f->listener->host.counters.messages == BATCH * (PRODUCER_WINDOW + 1));
    other = start_client(f, "e", CLEAN, "sas!"); /* who publishes nothing is served */
    EXPECT(f, other, "\x20\x02\x00\x00");
    ping(f, other);
    assert_int_equal(f->messages, BATCH * PRODUCER_WINDOW);
    assert_int_equal(f->listener->host.counters.messages, BATCH * (PRODUCER_WINDOW + 1));
    buf_done(&f->bodies);

    f->router_holds = false;
    answer_held(f);
    for (unsigned i = 0; i < ELEMENTSOF(s); i++) {
        loop_until(f, buf_len(&s[i]->in) == 4 * EACH);
        for (unsigned id = 1; id <= EACH; id++) {
            const uint8_t *ack = (const uint8_t *)buf_span(&s[i]->in).at + 4 * (id - 1);

            assert_int_equal(ack[2] << 8 | ack[3], id);
        }
    }
    assert_int_equal(f->messages, 2 * EACH);
    assert_int_equal(f->listener->held_bytes, 0);
}

/* ---- a full store ---- */

#define OTHER_TOPIC "devices/e/messages/events/"

static struct stream *connect_other(struct fixture *f)
{
    struct stream *s = start_client(f, "e", CLEAN, "sas!");

    EXPECT(f, s, "\x20\x02\x00\x00");
    return s;
}

static void expect_pubacks(struct fixture *f, struct stream *s, uint16_t count)
{
    for (uint16_t id = 1; id <= count; id++) {
        uint8_t want[] = { 0x40, 2, (uint8_t)(id >> 8), (uint8_t)id };

        expect(f, s, span_of((const char *)want, sizeof(want)));
    }
}

/* Who is held does not hold up the others, whether they were batched together or come later. */
static void test_full_for_one(void **state)
{
    enum { EACH = 100 };
    struct fixture *f = *state;
    struct stream *d, *e;

    start_peers(f);
    d = connect_client(f);
    e = connect_other(f);
    f->full_for = "d";
    send_numbers(f, d, TOPIC, EACH);
    send_numbers(f, e, OTHER_TOPIC, EACH);
    expect_pubacks(f, e, EACH);
    assert_int_equal(buf_len(&d->in), 0);
    send_numbers(f, e, OTHER_TOPIC, EACH);
    expect_pubacks(f, e, EACH);
    assert_int_equal(buf_len(&d->in), 0);
    assert_true(f->listener->detour.active);
    f->full_for = NULL;
    expect_pubacks(f, d, EACH);
    loop_until(f, !f->listener->detour.active);
    assert_int_equal(f->messages, 3 * EACH);
    send_numbers(f, d, TOPIC, EACH); /* and all is as before */
    expect_pubacks(f, d, EACH);
    assert_int_equal(f->messages, 4 * EACH);
    assert_int_equal(f->listener->detour.times, 1);
}

/* Who comes while another is under way is not taken for that one. */
static void test_full_and_somebody_comes(void **state)
{
    struct fixture *f = *state;
    struct stream *d, *e;

    start_peers(f);
    d = connect_client(f);
    e = connect_other(f);
    f->full_for = "d";
    send_publish(f, d, 1, "from d");
    loop_until(f, f->listener->detour.resting);
    f->full_for = NULL;
    f->router_holds = true;
    loop_until(f, f->held_count == 1);
    send_numbers(f, e, OTHER_TOPIC, 1);
    ping(f, e);
    answer_held(f);
    expect_pubacks(f, d, 1);
    loop_until(f, f->held_count == 1);
    assert_int_equal(buf_len(&e->in), 0);
    answer_held(f);
    expect_pubacks(f, e, 1);
    loop_until(f, !f->listener->detour.active);
    assert_bodies(f, "from d\n1\n");
}

static void test_too_many_at_once(void **state)
{
    struct fixture *f = *state;
    struct stream *d;

    f->items_max = 3;
    start_peers(f);
    d = connect_client(f);
    send_numbers(f, d, TOPIC, 9);
    expect_pubacks(f, d, 9);
    assert_bodies(f, "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    assert_int_equal(f->listener->detour.dropped, 0);
}

/* It is acknowledged: its client would send it for ever. */
static void test_never_to_be_stored(void **state)
{
    struct fixture *f = *state;
    struct stream *d;

    f->poison = "5";
    start_peers(f);
    d = connect_client(f);
    send_numbers(f, d, TOPIC, 9);
    expect_pubacks(f, d, 9);
    assert_bodies(f, "1\n2\n3\n4\n6\n7\n8\n9\n");
    assert_int_equal(f->listener->detour.dropped, 1);
}

/* Its line is bounded; what does not fit in stays in its socket. */
static void test_full_for_long(void **state)
{
    enum { EACH = 1000 };
    struct fixture *f = *state;
    struct stream *d;

    f->config.inflight_max = 10000;
    start_peers(f);
    d = connect_client(f);
    f->full_for = "d";
    send_publish(f, d, 1, "first");
    loop_until(f, f->listener->detour.active);
    send_numbers(f, d, TOPIC, EACH);
    loop_until(f, f->listener->detour.resting);
    assert_in_range(f->listener->host.counters.messages, 1, 100);
    f->full_for = NULL;
    EXPECT(f, d, "\x40\x02\x00\x01");
    expect_pubacks(f, d, EACH);
    assert_int_equal(f->messages, 1 + EACH);
    assert_int_equal(f->listener->detour.bytes, 0);
}

/* More than all may keep waiting: who wants it is closed, the others stay. */
static void test_held_bytes_bounded(void **state)
{
    _cleanup_(freep) char *large = xalloc0(200000);
    struct fixture *f = *state;
    struct buf bytes = {};
    struct stream *s;

    f->config.held_max_bytes = 100000;
    start_peers(f);
    s = connect_client(f);
    append_publish(&bytes, TOPIC, 1, span_of(large, 200000));
    send_bytes(f, s, span_of(buf_span(&bytes).at, 150000));
    buf_done(&bytes);
    expect_closed(f, s);
    loop_until(f, f->listener->connection_count == 0);
    assert_int_equal(f->listener->held_bytes, 0);
}

/* ---- sessions and identities ---- */

static void test_session_survives(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    s = start_client(f, "d", PERSISTENT, "sas!");
    EXPECT(f, s, "\x20\x02\x00\x00");
    send_bytes(f, s, SPAN(SUBSCRIBE_TWIN));
    EXPECT(f, s, "\x90\x03\x00\x03\x01");
    assert_int_equal(f->puts, 1);
    wait_for_silence(f);
    f->listener = listener_free(f->listener); /* as if it were another one: nothing is kept here */
    assert_int_equal(listener_new(f->plugin, &f->config, &f->listener), 0);

    s = start_client(f, "d", PERSISTENT, "sas!");
    EXPECT(f, s, "\x20\x02\x01\x00");
    send_bytes(f, s, SPAN("\x30\x1a\x00\x18$iothub/twin/GET/?$rid=1"));
    EXPECT(f, s, "\x32");
    buf_done(&s->in);
    send_bytes(f, s, SPAN("\xe0\x00"));
    expect_closed(f, s);

    s = start_client(f, "d", CLEAN, "sas!");
    EXPECT(f, s, "\x20\x02\x00\x00");
    assert_int_equal(f->removes, 1);
}

static void test_take_over(void **state)
{
    struct fixture *f = *state;
    struct stream *older, *newer;

    start_peers(f);
    older = connect_client(f);
    newer = connect_client(f);
    expect_closed(f, older);
    assert_int_equal(f->listener->identities.count, 1);
    send_publish(f, newer, 1, "still here");
    EXPECT(f, newer, "\x40\x02\x00\x01");
    loop_until(f, f->listener->connection_count == 1);
}

/* The scope changed, or identity came back and may have changed it: all are looked at again. */
static void test_recheck(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    s = connect_client(f);
    f->verdict = BUS__VERDICT__VERDICT_NOT_YET;
    wait_for_silence(f);
    f->identity = bus_free(f->identity);
    f->identity = start_peer(f, "identity", identity_handlers);
    loop_until(f, f->rechecks == 1);
    wait_for_silence(f);
    ping(f, s); /* undecided: it stays */
    f->verdict = BUS__VERDICT__VERDICT_REFUSED;
    listener_recheck_all(f->listener, 0);
    expect_closed(f, s);
    loop_until(f, f->disconnected == 1);
}

/* ---- the end ---- */

/* What was read is committed and acknowledged before it ends. */
static void test_drain(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    s = connect_client(f);
    f->router_holds = true;
    send_publish(f, s, 1, "a");
    loop_until(f, f->messages == 1);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    loop_until(f, f->listener->draining);
    assert_false(s->closed);
    answer_held(f);
    EXPECT(f, s, "\x40\x02\x00\x01");
    loop_until(f, sd_event_get_exit_code(plugin_event(f->plugin), &(int){ 0 }) >= 0);
    stream_read(s);
    assert_true(s->closed);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_login_by_token),
        T(test_login_by_certificate),
        T(test_login_verdicts),
        T(test_login_in_pieces),
        T(test_preamble_malformed),
        T(test_gone_before_login),
        T(test_too_many_clients),
        T(test_puback_after_commit),
        T(test_one_batch_a_turn),
        T(test_router_dies),
        T(test_client_dies_before_commit),
        T(test_backpressure),
        T(test_full_for_one),
        T(test_full_and_somebody_comes),
        T(test_too_many_at_once),
        T(test_never_to_be_stored),
        T(test_full_for_long),
        T(test_held_bytes_bounded),
        T(test_session_survives),
        T(test_take_over),
        T(test_recheck),
        T(test_drain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
