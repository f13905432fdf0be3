/*
 * What comes for the inputs of a module: the whole listener, with a store that holds the queues of
 * one module. It gives what was not given to this lease, and applies acks when it answers them.
 */
#include "test-listener.h"

#include "inputs.h"

enum {
    WINDOW = 4, /* so it holds up to 16, and fetches when it holds 8 */
    MESSAGES_MAX = 64,
};

struct stored {
    char queue[32];
    uint64_t position;
    char *bytes;
    size_t len;
    bool given, gone;
};

static struct store {
    struct stored messages[MESSAGES_MAX];
    size_t count;
    uint64_t lease, sequence; /* of the fetch that came last */
    uint32_t messages_max;
    unsigned fetches, acks, refuse_acks; /* so many acks are answered BUSY */
    bool holds_acks;
    struct buf open;  /* a packed Ack that is held */
    struct buf acked; /* in words: "in 1-2 delivered, … ; …" */
} store;

/* ---- the store ---- */

static void store_give(struct fixture *f)
{
    Bus__FetchedItem items[MESSAGES_MAX], *pointers[MESSAGES_MAX];
    Bus__Fetched fetched = BUS__FETCHED__INIT;
    Bus__Envelope answer = ENVELOPE(FETCHED, fetched, &fetched);

    fetched.items = pointers;
    for (size_t i = 0; i < store.count && fetched.n_items < store.messages_max; i++) {
        struct stored *m = &store.messages[i];
        Bus__FetchedItem *item = &items[fetched.n_items];

        if (m->given || m->gone)
            continue;
        m->given = true;
        bus__fetched_item__init(item);
        item->queue = m->queue;
        item->position = m->position;
        item->message = (ProtobufCBinaryData){ m->len, (uint8_t *)m->bytes };
        pointers[fetched.n_items++] = item;
    }
    if (f->poll && fetched.n_items > 0)
        assert_int_equal(bus_answer_with(TAKE_PTR(f->poll), &answer), 0);
}

static void store_forget_lease(void)
{
    for (size_t i = 0; i < store.count; i++)
        store.messages[i].given = false;
}

static int on_fetch(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    const Bus__Fetch *fetch = in->fetch;
    struct fixture *f = userdata;

    store.fetches++;
    assert_string_equal(fetch->queue, "modules/m/inputs/");
    assert_true(fetch->lease >= store.lease && fetch->wait_ms > 0 && fetch->messages_max > 0);
    if (fetch->lease > store.lease) {
        assert_int_equal(fetch->sequence, 1);
        store_forget_lease();
    } else if (store.sequence > 0) { /* else it is a new store */
        assert_true(fetch->sequence >= store.sequence);
    }
    store.lease = fetch->lease;
    store.sequence = fetch->sequence;
    store.messages_max = fetch->messages_max;
    bus_call_drop(f->poll);
    f->poll = bus_call_keep_poll(call);
    store_give(f);
    return 0;
}

static void store_apply(const Bus__AckRange *range)
{
    for (size_t i = 0; i < store.count; i++) {
        struct stored *m = &store.messages[i];

        if (strcmp(m->queue, range->queue) == 0 && m->position >= range->first &&
            m->position <= range->last)
            m->gone = true;
    }
}

static void store_note(const Bus__Ack *ack)
{
    static const char *const outcomes[] = { "?", "delivered", "rejected", "expired", "dropped" };

    for (size_t i = 0; i < ack->n_ranges; i++) {
        const Bus__AckRange *range = ack->ranges[i];

        assert_string_equal(range->partition, "");
        assert_int_equal(strncmp(range->queue, "modules/m/inputs/", 17), 0);
        buf_printf(&store.acked, "%s%s %d-%d %s",
                   i > 0                       ? ", "
                   : buf_len(&store.acked) > 0 ? "; "
                                               : "",
                   range->queue + 17, (int)range->first, (int)range->last,
                   outcomes[range->outcome]);
    }
}

static int on_ack(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;

    store.acks++;
    assert_string_equal(in->ack->queue, ""); /* the ranges name theirs */
    store_note(in->ack);
    if (store.refuse_acks > 0) {
        store.refuse_acks--;
        return bus_answer(call, STATUS_BUSY);
    }
    if (store.holds_acks) {
        assert_int_equal(f->held_count, 0); /* one at a time */
        bus__ack__pack(in->ack, buf_reserve(&store.open, bus__ack__get_packed_size(in->ack)));
        buf_commit(&store.open, bus__ack__get_packed_size(in->ack));
        f->held[f->held_count++] = bus_call_keep(call);
        return 0;
    }
    for (size_t i = 0; i < in->ack->n_ranges; i++)
        store_apply(in->ack->ranges[i]);
    return bus_answer(call, STATUS_DONE);
}

static void store_answer_ack(struct fixture *f)
{
    Bus__Ack *ack =
        bus__ack__unpack(NULL, buf_len(&store.open), (const uint8_t *)buf_span(&store.open).at);

    assert_non_null(ack);
    for (size_t i = 0; i < ack->n_ranges; i++)
        store_apply(ack->ranges[i]);
    bus__ack__free_unpacked(ack, NULL);
    buf_done(&store.open);
    store.holds_acks = false;
    answer_held(f);
}

static const struct bus_handler input_store_handlers[] = {
    { BUS__ENVELOPE__BODY_RECORD_GET, PEER_ANY, on_record_get },
    { BUS__ENVELOPE__BODY_RECORD_PUT, PEER_ANY, on_record_put },
    { BUS__ENVELOPE__BODY_FETCH, PEER_ANY, on_fetch },
    { BUS__ENVELOPE__BODY_ACK, PEER_ANY, on_ack },
    {},
};

static void store_stop(struct fixture *f)
{
    f->poll = bus_call_drop(f->poll);
    while (f->held_count > 0)
        bus_call_drop(f->held[--f->held_count]);
    buf_done(&store.open);
    f->store = bus_free(f->store);
}

/* As after a crash: it knows what it applied, and nothing of who fetched what. */
static void store_start(struct fixture *f)
{
    store_forget_lease();
    store.sequence = 0;
    f->store = start_peer(f, "store", f->store_handlers);
}

static void store_add_bytes(struct fixture *f, const char *input, const void *bytes, size_t len)
{
    struct stored *m = &store.messages[store.count];

    assert_true(store.count < MESSAGES_MAX);
    snprintf(m->queue, sizeof(m->queue), "modules/m/inputs/%s", input);
    m->position = 1;
    for (size_t i = 0; i < store.count; i++)
        m->position += strcmp(store.messages[i].queue, m->queue) == 0;
    m->bytes = xmemdup(bytes, len);
    m->len = len;
    store.count++;
    if (f->store)
        store_give(f);
}

/* Of the device "leaf", with one property unless @property is NULL. */
static void store_add_with(struct fixture *f, const char *input, const char *body,
                           const char *property)
{
    Bus__Property p = BUS__PROPERTY__INIT, *properties[] = { &p };
    Bus__Message m = BUS__MESSAGE__INIT;
    struct buf bytes = {};

    m.device_id = (char *)"leaf";
    m.body = (ProtobufCBinaryData){ strlen(body), (uint8_t *)body };
    p.name = (char *)"p";
    p.value = (char *)property;
    m.n_application = property ? 1 : 0;
    m.application = properties;
    bus__message__pack(&m, buf_reserve(&bytes, bus__message__get_packed_size(&m)));
    buf_commit(&bytes, bus__message__get_packed_size(&m));
    store_add_bytes(f, input, buf_span(&bytes).at, buf_len(&bytes));
    buf_done(&bytes);
}

static void store_add(struct fixture *f, const char *input, const char *body)
{
    store_add_with(f, input, body, NULL);
}

/* "@first" to "@last". */
static void store_add_numbers(struct fixture *f, const char *input, unsigned first, unsigned last)
{
    char body[16];

    for (unsigned n = first; n <= last; n++) {
        snprintf(body, sizeof(body), "%u", n);
        store_add(f, input, body);
    }
}

static void expect_acked(struct fixture *f, const char *want)
{
    loop_until(f, buf_len(&store.acked) >= strlen(want));
    if (!span_equal(buf_span(&store.acked), span_str(want)))
        fail_msg("acked '%.*s', expected '%s'", (int)buf_len(&store.acked),
                 buf_span(&store.acked).at, want);
    buf_done(&store.acked);
}

/* ---- the module ---- */

static int setup_inputs(void **state)
{
    struct fixture *f;

    if (setup(state) != 0)
        return -1;
    f = *state;
    f->store_handlers = input_store_handlers;
    f->record_key = "mqtt/session/d/m";
    f->edge_module = true;
    f->config.input_window = WINDOW;
    f->config.input_ack_timeout_sec = 3600;
    return 0;
}

static int teardown_inputs(void **state)
{
    store.holds_acks = false;
    for (size_t i = 0; i < store.count; i++)
        free(store.messages[i].bytes);
    store.count = 0;
    if (teardown(state) != 0)
        return -1;
    buf_done(&store.open);
    buf_done(&store.acked);
    store = (struct store){};
    return 0;
}

static struct stream *connect_module(struct fixture *f)
{
    struct stream *s = start_client(f, "d/m", CLEAN, "sas!");

    EXPECT(f, s, "\x20\x02\x00\x00");
    return s;
}

#define FILTER "devices/d/modules/m/#"

static void subscribe(struct fixture *f, struct stream *s, const char *filter, uint8_t qos)
{
    struct buf bytes = {};

    buf_append_span(&bytes, SPAN("\x82"));
    buf_append_byte(&bytes, (uint8_t)(5 + strlen(filter)));
    buf_append_be16(&bytes, 9);
    buf_append_be16(&bytes, (uint16_t)strlen(filter));
    buf_append_span(&bytes, span_str(filter));
    buf_append_byte(&bytes, qos);
    send_buf_take(f, s, &bytes);
    expect(f, s, qos > 0 ? SPAN("\x90\x03\x00\x09\x01") : SPAN("\x90\x03\x00\x09\x00"));
}

static void unsubscribe(struct fixture *f, struct stream *s)
{
    send_bytes(f, s, SPAN("\xa2\x19\x00\x09\x00\x15" FILTER));
    EXPECT(f, s, "\xb0\x02\x00\x09");
}

/* It wants all its inputs. */
static struct stream *start_module(struct fixture *f)
{
    struct stream *s = connect_module(f);

    subscribe(f, s, FILTER, 1);
    return s;
}

enum { FIRST_TIME = 0, AGAIN = 0x08 };

/* Of store_add(). @id 0: with QoS 0. */
static void expect_message(struct fixture *f, struct stream *s, char dup, uint16_t id,
                           const char *input, const char *body)
{
    _cleanup_(freep) char *topic = xasprintf("devices/d/modules/m/inputs/%s/%%24.cdid=leaf", input);
    struct buf want = {};

    append_publish(&want, topic, id, span_str(body));
    want.data[want.start] = (char)(want.data[want.start] | dup);
    expect(f, s, buf_span(&want));
    buf_done(&want);
}

/* The ids are those of the numbers. */
static void expect_numbers(struct fixture *f, struct stream *s, uint16_t first, uint16_t last)
{
    char body[16];

    for (uint16_t n = first; n <= last; n++) {
        snprintf(body, sizeof(body), "%u", n);
        expect_message(f, s, FIRST_TIME, n, "in", body);
    }
}

/* In one write, which is read as one. */
static void send_pubacks(struct fixture *f, struct stream *s, uint16_t first, uint16_t last)
{
    struct buf bytes = {};

    for (uint16_t id = first; id <= last; id++) {
        buf_append_span(&bytes, SPAN("\x40\x02"));
        buf_append_be16(&bytes, id);
    }
    send_buf_take(f, s, &bytes);
}

static void on_round_trip(const Bus__Envelope *answer, void *userdata)
{
    *(bool *)userdata = true;
}

/* Over the listener's own line: what it asked before is asked, what it was answered is done. */
static void ping_store(struct fixture *f)
{
    Bus__RecordGet get = BUS__RECORD_GET__INIT;
    Bus__Envelope request = ENVELOPE(RECORD_GET, record_get, &get);
    bool done = false;

    get.key = (char *)"other";
    assert_int_equal(bus_request(bus_peer(plugin_bus(f->plugin), "store"), &request, BUS_FOREVER,
                                 on_round_trip, &done, NULL),
                     0);
    loop_until(f, done);
}

/* The client has been told all, and so has the store; nothing else was said. */
static void expect_silence(struct fixture *f, struct stream *s)
{
    ping_store(f);
    ping(f, s);
    ping_store(f);
    assert_int_equal(buf_len(&store.acked), 0);
}

static struct inputs *the_inputs(struct fixture *f)
{
    return TAILQ_FIRST(&f->listener->connections)->inputs;
}

/* ---- delivering ---- */

/* Byte for byte: topic with properties, QoS 1, payload; then its PUBACK. */
static void test_delivered(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    s = start_module(f);
    store_add_with(f, "in", "hello", "a b");
    EXPECT(f, s,
           "\x32\x3c\x00\x33"
           "devices/d/modules/m/inputs/in/%24.cdid=leaf&p=a%20b\x00\x01"
           "hello");
    expect_silence(f, s);
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 1-1 delivered");
    expect_silence(f, s);
    assert_int_equal(f->listener->inputs.delivered, 1);
}

/* Never more than the window unacknowledged; all come, once and in order. */
static void test_window(void **state)
{
    enum { ALL = 5 * WINDOW };
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, ALL);
    s = start_module(f);
    expect_numbers(f, s, 1, WINDOW);
    expect_silence(f, s);
    send_pubacks(f, s, 1, 2);
    expect_acked(f, "in 1-2 delivered");
    expect_numbers(f, s, WINDOW + 1, WINDOW + 2);
    expect_silence(f, s);
    for (uint16_t n = 3; n <= ALL; n++) {
        send_pubacks(f, s, n, n);
        if (n + WINDOW <= ALL)
            expect_numbers(f, s, (uint16_t)(n + WINDOW), (uint16_t)(n + WINDOW));
    }
    loop_until(f, store.messages[ALL - 1].gone);
    for (size_t i = 0; i < ALL; i++)
        assert_true(store.messages[i].gone);
    buf_done(&store.acked);
    expect_silence(f, s);
    assert_int_equal(f->listener->inputs.delivered, ALL);
}

/* A window is not freed from behind: what came first is acknowledged last. */
static void test_acknowledged_out_of_order(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, WINDOW + 1);
    s = start_module(f);
    expect_numbers(f, s, 1, WINDOW);
    send_pubacks(f, s, 2, WINDOW);
    expect_acked(f, "in 2-4 delivered");
    expect_silence(f, s);
    send_pubacks(f, s, 7, 7); /* of nothing */
    expect_silence(f, s);
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 1-1 delivered");
    expect_numbers(f, s, WINDOW + 1, WINDOW + 1);
}

static void test_one_ack_for_several(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add(f, "in", "1");
    store_add(f, "other", "2");
    store_add(f, "in", "3");
    s = start_module(f);
    expect_message(f, s, FIRST_TIME, 1, "in", "1");
    expect_message(f, s, FIRST_TIME, 2, "other", "2");
    expect_message(f, s, FIRST_TIME, 3, "in", "3");
    send_pubacks(f, s, 1, 3);
    expect_acked(f, "in 1-2 delivered, other 1-1 delivered");
    assert_int_equal(store.acks, 1);
}

/* While the store is told some, the others gather. */
static void test_acks_gather(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, 3);
    s = start_module(f);
    expect_numbers(f, s, 1, 3);
    store.holds_acks = true;
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 1-1 delivered");
    send_pubacks(f, s, 2, 2);
    ping(f, s);
    send_pubacks(f, s, 3, 3);
    expect_silence(f, s);
    store_answer_ack(f);
    expect_acked(f, "in 2-3 delivered");
    assert_int_equal(store.acks, 2);
}

static void test_ack_refused(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, 2);
    s = start_module(f);
    expect_numbers(f, s, 1, 2);
    store.refuse_acks = 1;
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 1-1 delivered");
    send_pubacks(f, s, 2, 2);
    expect_acked(f, "in 1-1 delivered; in 2-2 delivered");
    loop_until(f, store.messages[0].gone && store.messages[1].gone);
}

static void test_qos_0(void **state)
{
    struct fixture *f = *state;
    struct stream *s;
    char body[2] = "1";

    start_peers(f);
    store_add_numbers(f, "in", 1, WINDOW + 1); /* there is no window for what is not acknowledged */
    s = connect_module(f);
    subscribe(f, s, FILTER, 0);
    for (; body[0] <= '0' + WINDOW + 1; body[0]++)
        expect_message(f, s, FIRST_TIME, 0, "in", body);
    expect_acked(f, "in 1-5 delivered");
    expect_silence(f, s);
}

enum { LARGE_BYTES = 60000, LARGE_COUNT = 20 }; /* many times what is written in one go */

static char *large_body(unsigned n)
{
    char *body = xalloc0(LARGE_BYTES + 1);

    memset(body, 'x', LARGE_BYTES);
    body[0] = (char)('a' + n);
    return body;
}

static struct stream *start_large(struct fixture *f, bool deaf)
{
    struct stream *s;

    start_peers(f);
    s = connect_module(f);
    subscribe(f, s, FILTER, 0);
    s->deaf = deaf;
    for (unsigned n = 0; n < LARGE_COUNT; n++) {
        _cleanup_(freep) char *body = large_body(n);

        store_add(f, "in", body);
    }
    return s;
}

static void expect_large(struct fixture *f, struct stream *s)
{
    for (unsigned n = 0; n < LARGE_COUNT; n++) {
        _cleanup_(freep) char *body = large_body(n);

        expect_message(f, s, FIRST_TIME, 0, "in", body);
    }
    loop_until(f, store.messages[LARGE_COUNT - 1].gone);
    buf_done(&store.acked);
}

static void test_large(void **state)
{
    struct fixture *f = *state;

    expect_large(f, start_large(f, false));
}

/* What it does not read waits where it is, but for a bounded amount. */
static void test_client_does_not_read(void **state)
{
    enum { OUT_MIN = 64 << 10, OUT_MAX = OUT_MIN + LARGE_BYTES + 100 };
    struct fixture *f = *state;
    struct stream *s = start_large(f, true);
    const struct connection *c = TAILQ_FIRST(&f->listener->connections);
    const struct buf *out = &c->client.out;

    assert_int_equal(setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &(int){ OUT_MIN }, sizeof(int)), 0);
    loop_until(f, buf_len(out) >= OUT_MIN);
    ping_store(f);
    assert_true(buf_len(out) < OUT_MAX);
    assert_true(f->listener->inputs.delivered < LARGE_COUNT);
    s->deaf = false;
    expect_large(f, s);
}

/* ---- what cannot be delivered ---- */

static void test_unwanted(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add(f, "other", "a");
    store_add(f, "in", "b");
    s = connect_module(f);
    subscribe(f, s, "devices/d/modules/m/inputs/in/#", 1);
    expect_message(f, s, FIRST_TIME, 1, "in", "b");
    expect_acked(f, "other 1-1 rejected");
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 1-1 delivered");
    assert_int_equal(f->listener->inputs.unwanted, 1);
}

static void test_undeliverable(void **state)
{
    enum { LONG = 30000 };
    _cleanup_(freep) char *value = xalloc0(LONG + 1);
    struct fixture *f = *state;
    struct stream *s;

    memset(value, ' ', LONG); /* each becomes three */
    start_peers(f);
    store_add_bytes(f, "in", "\xff", 1);
    store_add_with(f, "in", "a", value);
    store_add(f, "a+b", "b");
    store_add(f, "in", "c");
    s = start_module(f);
    expect_message(f, s, FIRST_TIME, 1, "in", "c");
    expect_acked(f, "in 1-2 rejected, a+b 1-1 rejected");
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 3-3 delivered");
    assert_int_equal(f->listener->inputs.undeliverable, 3);
}

/* ---- who gets them ---- */

static void test_only_while_subscribed(void **state)
{
    struct fixture *f = *state;
    uint64_t lease;
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, 1);
    s = connect_module(f);
    send_bytes(f, s, SPAN(SUBSCRIBE_TWIN));
    EXPECT(f, s, "\x90\x03\x00\x03\x01");
    expect_silence(f, s);
    assert_int_equal(store.fetches, 0);

    subscribe(f, s, FILTER, 1);
    expect_numbers(f, s, 1, 1);
    loop_until(f, store.fetches == 2);
    lease = store.lease;
    unsubscribe(f, s);
    store_add_numbers(f, "in", 2, 2); /* the store does not know, and answers what it was asked */
    expect_silence(f, s);
    send_pubacks(f, s, 1, 1); /* nobody waits for it any more */
    expect_silence(f, s);
    assert_int_equal(store.fetches, 2);

    subscribe(f, s, FILTER, 1);
    expect_message(f, s, FIRST_TIME, 2, "in", "1");
    expect_message(f, s, FIRST_TIME, 3, "in", "2");
    assert_true(store.lease > lease);
    send_pubacks(f, s, 2, 3);
    expect_acked(f, "in 1-2 delivered");
}

/* Behind this gateway, but not of this edge device: nothing is for it here. */
static void test_module_of_a_leaf(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    f->edge_module = false;
    start_peers(f);
    store_add_numbers(f, "in", 1, 1);
    s = start_module(f);
    expect_silence(f, s);
    assert_int_equal(store.fetches, 0);
}

/* The newer connection gets what the older one did not acknowledge, as its own. */
static void test_taken_over(void **state)
{
    struct fixture *f = *state;
    struct stream *older, *newer;
    uint64_t lease;

    start_peers(f);
    store_add_numbers(f, "in", 1, WINDOW + 1);
    older = start_module(f);
    expect_numbers(f, older, 1, WINDOW);
    send_pubacks(f, older, 2, 3);
    expect_acked(f, "in 2-3 delivered");
    expect_silence(f, older);
    lease = store.lease;
    newer = start_module(f);
    expect_closed(f, older);
    expect_message(f, newer, FIRST_TIME, 1, "in", "1");
    expect_message(f, newer, FIRST_TIME, 2, "in", "4");
    expect_message(f, newer, FIRST_TIME, 3, "in", "5");
    assert_true(store.lease > lease);
    send_pubacks(f, newer, 1, 3);
    expect_acked(f, "in 1-1 delivered, in 4-5 delivered");
}

/* What the older one acknowledged is not the newer one's, even if the store does not know yet. */
static void test_taken_over_with_an_ack_open(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, 2);
    s = start_module(f);
    expect_numbers(f, s, 1, 2);
    store.holds_acks = true;
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 1-1 delivered");
    s = start_module(f); /* and is given both by the store */
    expect_message(f, s, FIRST_TIME, 1, "in", "2");
    expect_silence(f, s);
    store_answer_ack(f);
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 2-2 delivered");
}

/* A session that was kept wants what it wanted before. */
static void test_session_survives(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    s = start_client(f, "d/m", PERSISTENT, "sas!");
    EXPECT(f, s, "\x20\x02\x00\x00");
    subscribe(f, s, FILTER, 1);
    store_add_numbers(f, "in", 1, 1);
    expect_numbers(f, s, 1, 1);
    send_bytes(f, s, SPAN("\xe0\x00"));
    expect_closed(f, s);

    s = start_client(f, "d/m", PERSISTENT, "sas!");
    EXPECT(f, s, "\x20\x02\x01\x00");
    expect_numbers(f, s, 1, 1);
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 1-1 delivered");
}

/* ---- not acknowledged ---- */

/* Those, and only those, once more: as they were, marked. Later than that counts. */
static void test_sent_again(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, 3);
    s = start_module(f);
    expect_numbers(f, s, 1, 3);
    send_pubacks(f, s, 2, 2);
    expect_acked(f, "in 2-2 delivered");
    f->config.input_ack_timeout_sec = 1;
    ping(f, s); /* from here that counts */
    expect_message(f, s, AGAIN, 1, "in", "1");
    f->config.input_ack_timeout_sec = 3600;
    expect_message(f, s, AGAIN, 3, "in", "3");
    assert_int_equal(f->listener->inputs.resent, 2);
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 1-1 delivered");
    send_pubacks(f, s, 1, 1); /* that of the first time, which was on its way */
    expect_silence(f, s);
    send_pubacks(f, s, 3, 3);
    expect_acked(f, "in 3-3 delivered");
    assert_int_equal(f->listener->inputs.delivered, 3);
}

/* ---- the store goes, or says no ---- */

/* It gives all of it again: what the client has, what waits for it, and what it has acknowledged. */
static void test_store_restarts(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, WINDOW + 2);
    s = start_module(f);
    expect_numbers(f, s, 1, WINDOW);
    store.holds_acks = true;
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 1-1 delivered");
    expect_numbers(f, s, WINDOW + 1, WINDOW + 1);
    loop_until(f, store.fetches == 2);
    store_stop(f);
    store.fetches = 0;
    store_start(f);
    expect_acked(f, "in 1-1 delivered"); /* sent again, and still not done */
    loop_until(f, store.fetches == 2);   /* it gave all; there is room for more */
    for (size_t i = 0; i < store.count; i++)
        assert_true(store.messages[i].given);
    expect_silence(f, s);
    store_answer_ack(f);
    send_pubacks(f, s, 2, WINDOW);
    expect_acked(f, "in 2-4 delivered");
    expect_numbers(f, s, WINDOW + 2, WINDOW + 2);
    send_pubacks(f, s, WINDOW + 1, WINDOW + 2);
    expect_acked(f, "in 5-6 delivered");
    expect_silence(f, s);
}

static void test_lease_lost(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, 1);
    s = start_module(f);
    expect_numbers(f, s, 1, 1);
    loop_until(f, store.fetches == 2 && f->poll);
    assert_int_equal(bus_answer(TAKE_PTR(f->poll), STATUS_LEASE_LOST), 0);
    expect_silence(f, s);
    send_pubacks(f, s, 1, 1); /* what it got, it got */
    expect_acked(f, "in 1-1 delivered");
    expect_silence(f, s);
    assert_int_equal(store.fetches, 2);
    assert_true(inputs_next_usec(the_inputs(f)) == UINT64_MAX); /* nor will there be one */
}

/* Nothing came in its time. */
static void test_long_poll_ends(void **state)
{
    Bus__Fetched fetched = BUS__FETCHED__INIT;
    struct fixture *f = *state;
    struct stream *s;
    uint64_t lease;

    start_peers(f);
    s = start_module(f);
    loop_until(f, f->poll);
    lease = store.lease;
    for (unsigned n = 1; n <= 3; n++) {
        loop_until(f, store.fetches == n && f->poll);
        assert_int_equal(store.sequence, n);
        assert_int_equal(store.lease, lease);
        assert_int_equal(bus_answer_with(TAKE_PTR(f->poll), &ENVELOPE(FETCHED, fetched, &fetched)),
                         0);
    }
    loop_until(f, f->poll);
    store_add_numbers(f, "in", 1, 1);
    expect_numbers(f, s, 1, 1);
}

/* It asks for the same again, after a while; but where the store says that it is ahead. */
static void test_fetch_fails(void **state)
{
    struct fixture *f = *state;
    struct stream *s;
    uint64_t since;

    start_peers(f);
    s = start_module(f);
    loop_until(f, f->poll);
    since = now_usec();
    assert_int_equal(bus_answer(TAKE_PTR(f->poll), STATUS_FAILED), 0);
    loop_until(f, f->poll);
    assert_true(now_usec() - since >= 1000000);
    assert_int_equal(store.sequence, 1);
    assert_int_equal(bus_answer(TAKE_PTR(f->poll), STATUS_INVALID), 0);
    loop_until(f, f->poll);
    assert_int_equal(store.sequence, 2);
    assert_int_equal(store.fetches, 3);
    store_add_numbers(f, "in", 1, 1);
    expect_numbers(f, s, 1, 1);
}

/* ---- the end ---- */

static bool has_ended(struct fixture *f)
{
    int code;

    return sd_event_get_exit_code(plugin_event(f->plugin), &code) >= 0;
}

static struct stream *begin_drain_with_an_ack_open(struct fixture *f)
{
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, 2);
    s = start_module(f);
    expect_numbers(f, s, 1, 2);
    store.holds_acks = true;
    send_pubacks(f, s, 1, 1);
    expect_acked(f, "in 1-1 delivered");
    return s;
}

/* What was acknowledged is known to the store before it ends. */
static void test_drain(void **state)
{
    struct fixture *f = *state;
    struct stream *s = begin_drain_with_an_ack_open(f);

    assert_int_equal(kill(getpid(), SIGTERM), 0);
    expect_closed(f, s);
    loop_until(f, f->listener->connection_count == 0 && f->disconnected == 1 &&
                      f->listener->notices_open == 0);
    ping_store(f);
    assert_false(has_ended(f));
    store_answer_ack(f);
    loop_until(f, has_ended(f));
    assert_true(store.messages[0].gone);
    assert_false(store.messages[1].gone);
}

/* A client that is acknowledging just then is heard, and nothing else of it. */
static void test_drain_hears_acknowledgements(void **state)
{
    struct fixture *f = *state;
    struct stream *s;

    start_peers(f);
    store_add_numbers(f, "in", 1, 2);
    s = start_module(f);
    expect_numbers(f, s, 1, 2);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    loop_until(f, f->listener->draining);
    send_pubacks(f, s, 1, 2);
    send_bytes(f, s, SPAN("\xc0\x00")); /* PINGREQ: not answered any more */
    expect_acked(f, "in 1-2 delivered");
    expect_closed(f, s);
    loop_until(f, has_ended(f));
    assert_true(store.messages[0].gone);
    assert_true(store.messages[1].gone);
}

/* A store that is away is not waited for: nothing but a second delivery comes of it. */
static void test_drain_without_the_store(void **state)
{
    struct fixture *f = *state;
    struct stream *s = begin_drain_with_an_ack_open(f);

    store_stop(f);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    loop_until(f, has_ended(f));
    stream_read(s);
    assert_true(s->closed);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup_inputs, teardown_inputs)
    const struct CMUnitTest tests[] = {
        T(test_delivered),
        T(test_window),
        T(test_acknowledged_out_of_order),
        T(test_one_ack_for_several),
        T(test_acks_gather),
        T(test_ack_refused),
        T(test_qos_0),
        T(test_large),
        T(test_client_does_not_read),
        T(test_unwanted),
        T(test_undeliverable),
        T(test_only_while_subscribed),
        T(test_module_of_a_leaf),
        T(test_taken_over),
        T(test_taken_over_with_an_ack_open),
        T(test_session_survives),
        T(test_sent_again),
        T(test_store_restarts),
        T(test_lease_lost),
        T(test_long_poll_ends),
        T(test_fetch_fails),
        T(test_drain),
        T(test_drain_hears_acknowledgements),
        T(test_drain_without_the_store),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
