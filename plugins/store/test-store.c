/* The store on a real database, without a bus. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "test-harness.h"

#define Q         "$upstream"
#define DELIVERED BUS__OUTCOME__OUTCOME_DELIVERED

static int setup(void **state)
{
    struct harness *h = xnew(struct harness);
    struct store_config config = HARNESS_CONFIG;

    harness_begin(h, &config);
    harness_open(h);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    harness_end(*state);
    free(*state);
    return 0;
}

static void crash_and_open(struct harness *h)
{
    harness_crash(h);
    harness_open(h);
}

static Bus__Status append_items(struct harness *h, const char *producer, uint64_t sequence,
                                const struct batch_item *items, size_t count)
{
    struct reply reply = {};
    Bus__Status status;

    harness_append(h, &reply, producer, sequence, items, count);
    status = reply_wait(h, &reply);
    reply_done(&reply);
    return status;
}

/* One message for each letter; the letter is the message, the device's name is the partition. */
static Bus__Status append(struct harness *h, uint64_t sequence, const char *partition,
                          uint32_t priority, int64_t ttl_sec, const char *letters)
{
    struct batch_item items[32];
    char texts[32][2] = {};
    size_t count = strlen(letters);

    for (size_t i = 0; i < count; i++) {
        texts[i][0] = letters[i];
        items[i] = (struct batch_item){ Q, partition, priority, ttl_sec, texts[i] };
    }
    return append_items(h, "p", sequence, items, count);
}

/* "a1 b7": message and position of each, in the order of the answer. */
static const char *fetched_text(const struct reply *reply)
{
    static char text[2048];
    const Bus__Fetched *f = reply->envelope->fetched;
    size_t len = 0;

    text[0] = '\0';
    for (size_t i = 0; i < f->n_items; i++)
        len +=
            (size_t)snprintf(text + len, sizeof(text) - len, "%s%.*s%lu", len ? " " : "",
                             (int)f->items[i]->message.len, (const char *)f->items[i]->message.data,
                             (unsigned long)f->items[i]->position);
    return text;
}

static void expect_fetch(struct harness *h, uint64_t lease, uint64_t sequence, uint32_t max,
                         const char *want)
{
    struct reply reply = {};

    harness_fetch(h, &reply, Q, lease, sequence, max, 0);
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    assert_string_equal(fetched_text(&reply), want);
    reply_done(&reply);
}

static Bus__Status ack(struct harness *h, const char *partition, uint32_t priority, uint64_t first,
                       uint64_t last, Bus__Outcome outcome)
{
    struct reply reply = {};
    Bus__Status status;

    harness_ack(h, &reply, Q, 1, partition, priority, first, last, outcome);
    status = reply_wait(h, &reply);
    reply_done(&reply);
    return status;
}

static Bus__Status park(struct harness *h, uint64_t lease, const char *partition, bool parked)
{
    struct reply reply = {};
    Bus__Status status;

    harness_park(h, &reply, Q, lease, partition, parked);
    status = reply_wait(h, &reply);
    reply_done(&reply);
    return status;
}

struct expected_ledger {
    uint64_t accepted, delivered, expired, dropped, rejected, depth;
};

static void expect_ledger(struct harness *h, const struct expected_ledger *want)
{
    struct reply reply = {};
    const Bus__QueueStatus *q;

    store_queues_get_take(h->store, reply_call(&reply));
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    assert_int_equal(reply.envelope->queues->n_queues, 1);
    assert_true(reply.envelope->queues->store_bytes > 0);
    assert_int_equal(reply.envelope->queues->max_bytes, h->config.max_bytes);
    q = reply.envelope->queues->queues[0];
    assert_string_equal(q->name, Q);
    assert_int_equal(q->accepted, want->accepted);
    assert_int_equal(q->delivered, want->delivered);
    assert_int_equal(q->expired, want->expired);
    assert_int_equal(q->dropped, want->dropped);
    assert_int_equal(q->rejected, want->rejected);
    assert_int_equal(q->depth, want->depth);
    assert_int_equal(q->oldest_ms != 0, want->depth > 0);
    assert_int_equal(q->accepted, q->delivered + q->expired + q->dropped + q->rejected + q->depth);
    reply_done(&reply);
}

static void test_append_fetch_ack(void **state)
{
    struct harness *h = *state;

    assert_int_equal(append(h, 1, "d", 0, -1, "abc"), STATUS_DONE);
    expect_fetch(h, 1, 1, 0, "a1 b2 c3");
    expect_fetch(h, 1, 2, 0, "");
    assert_int_equal(ack(h, "d", 0, 1, 2, DELIVERED), STATUS_DONE);
    assert_int_equal(ack(h, "d", 0, 1, 2, DELIVERED), STATUS_DONE);
    assert_int_equal(ack(h, "nobody", 0, 1, 2, DELIVERED), STATUS_DONE);
    expect_ledger(h, &(struct expected_ledger){ .accepted = 3, .delivered = 2, .depth = 1 });
    crash_and_open(h);
    expect_ledger(h, &(struct expected_ledger){ .accepted = 3, .delivered = 2, .depth = 1 });
    expect_fetch(h, 2, 9, 0, "c3");
}

static void test_order(void **state)
{
    struct harness *h = *state;

    append(h, 1, "d", 5, -1, "abcd");
    append(h, 2, "e", 5, -1, "xy");
    append(h, 3, "d", 0, -1, "!");
    expect_fetch(h, 1, 1, 3, "!1 a1 b2");
    append(h, 4, "e", 0, -1, "?");
    expect_fetch(h, 1, 2, 0, "?1 x1 y2 c3 d4");
    crash_and_open(h);
    expect_fetch(h, 1, 3, 0, "!1 ?1 a1 b2 c3 d4 x1 y2");
}

static void test_limits_of_an_answer(void **state)
{
    struct harness *h = *state;
    struct batch_item items[3];
    char text[1001];
    struct reply reply = {};
    Bus__Fetch fetch = BUS__FETCH__INIT;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (size_t i = 0; i < ELEMENTSOF(items); i++)
        items[i] = (struct batch_item){ Q, "d", 0, -1, text };
    append_items(h, "p", 1, items, ELEMENTSOF(items));
    fetch.queue = (char *)Q;
    fetch.lease = fetch.sequence = 1;
    fetch.bytes_max = 10; /* always one, whatever it weighs */
    store_fetch_take(h->store, reply_call(&reply), &fetch);
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    assert_int_equal(reply.envelope->fetched->n_items, 1);
    reply_done(&reply);
    fetch.sequence = 2;
    fetch.bytes_max = 2500;
    store_fetch_take(h->store, reply_call(&reply), &fetch);
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    assert_int_equal(reply.envelope->fetched->n_items, 2);
    reply_done(&reply);
}

static void test_append_once(void **state)
{
    struct harness *h = *state;
    static const struct batch_item item = { Q, "d", 0, -1, "x" };
    struct reply replies[4] = {};

    assert_int_equal(append(h, 2, "d", 0, -1, "z"), STATUS_OUT_OF_ORDER);
    assert_int_equal(append(h, 1, "d", 0, -1, "a"), STATUS_DONE);
    assert_int_equal(append(h, 1, "d", 0, -1, "a"), STATUS_DONE);

    /* Sent again while it is on its way, and a gap behind it. */
    harness_append(h, &replies[0], "p", 2, &item, 1);
    harness_append(h, &replies[1], "p", 2, &item, 1);
    harness_append(h, &replies[2], "p", 4, &item, 1);
    assert_int_equal(replies[0].answers + replies[1].answers, 0); /* not before it is on disk */
    assert_int_equal(replies[2].answers, 1);
    assert_int_equal(replies[2].envelope->status, STATUS_OUT_OF_ORDER);
    assert_int_equal(replies[2].envelope->appended->expected_sequence, 3);
    assert_int_equal(reply_wait(h, &replies[0]), STATUS_DONE);
    assert_int_equal(reply_wait(h, &replies[1]), STATUS_DONE);
    for (size_t i = 0; i < ELEMENTSOF(replies); i++)
        reply_done(&replies[i]);

    crash_and_open(h);
    assert_int_equal(append(h, 2, "d", 0, -1, "x"), STATUS_DONE);
    assert_int_equal(append(h, 3, "d", 0, -1, "b"), STATUS_DONE);
    expect_fetch(h, 1, 1, 0, "a1 x2 b3");
}

static void test_one_sync_for_all(void **state)
{
    static const struct batch_item item = { Q, "d", 0, -1, "x" };
    struct harness *h = *state;
    struct reply replies[20] = {};
    char producer[16];

    for (size_t i = 0; i < ELEMENTSOF(replies); i++) {
        snprintf(producer, sizeof(producer), "p%zu", i);
        harness_append(h, &replies[i], producer, 1, &item, 1);
    }
    for (size_t i = 0; i < ELEMENTSOF(replies); i++) {
        assert_int_equal(reply_wait(h, &replies[i]), STATUS_DONE);
        reply_done(&replies[i]);
    }
    assert_int_equal(commit_counters(h->store->commit)->groups, 1);
    assert_int_equal(commit_counters(h->store->commit)->syncs, 1);
    assert_int_equal(ack(h, "d", 0, 1, 9, DELIVERED), STATUS_DONE); /* needs none */
    assert_int_equal(commit_counters(h->store->commit)->groups, 2);
    assert_int_equal(commit_counters(h->store->commit)->syncs, 1);
}

static void test_append_invalid(void **state)
{
    struct harness *h = *state;
    static const struct {
        const char *producer;
        uint64_t sequence;
        struct batch_item item;
    } cases[] = {
        { "", 1, { Q, "d", 0, -1, "x" } },
        { "p", 0, { Q, "d", 0, -1, "x" } },
        { "p", 1, { "", "d", 0, -1, "x" } },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(append_items(h, cases[i].producer, cases[i].sequence, &cases[i].item, 1),
                         STATUS_INVALID);
    assert_int_equal(append_items(h, "p", 1, NULL, 0), STATUS_DONE); /* nothing to store is fine */
    assert_int_equal(append_items(h, "e", 1, &(struct batch_item){ Q, "", 0, -1, "" }, 1),
                     STATUS_DONE);
    expect_fetch(h, 1, 1, 0, "1");
    assert_int_equal(append(h, 2, "d", 0, -1, "a"), STATUS_DONE);
}

static void test_copies_for_several_queues(void **state)
{
    struct harness *h = *state;
    const struct batch_item items[] = { { Q, "d", 0, -1, "m" },
                                        { "modules/m/inputs/i", "", 0, -1, "m" } };
    struct reply reply = {};

    assert_int_equal(append_items(h, "p", 1, items, ELEMENTSOF(items)), STATUS_DONE);
    expect_fetch(h, 1, 1, 0, "m1");
    assert_int_equal(ack(h, "d", 0, 1, 1, DELIVERED), STATUS_DONE);
    crash_and_open(h);
    harness_fetch(h, &reply, "modules/m/inputs/", 1, 1, 0, 0);
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    assert_string_equal(fetched_text(&reply), "m1");
    reply_done(&reply);
}

/* "i:a1 j:b2": the queue behind the folder, message and position. */
static void expect_folder(struct harness *h, uint64_t lease, uint64_t sequence, uint32_t max,
                          const char *want)
{
    const size_t folder = strlen("modules/m/inputs/");
    struct reply reply = {};
    char text[256] = "";
    size_t len = 0;

    harness_fetch(h, &reply, "modules/m/inputs/", lease, sequence, max, 0);
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    for (size_t i = 0; i < reply.envelope->fetched->n_items; i++) {
        const Bus__FetchedItem *item = reply.envelope->fetched->items[i];

        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s:%.*s%lu", len ? " " : "",
                                item->queue + folder, (int)item->message.len,
                                (const char *)item->message.data, (unsigned long)item->position);
    }
    assert_string_equal(text, want);
    reply_done(&reply);
}

/* The inputs of a module are read together, the most urgent message of any of them first. */
static void test_folder_is_read_together(void **state)
{
    struct harness *h = *state;
    const struct batch_item items[] = { { "modules/m/inputs/i", "", 5, -1, "a" },
                                        { "modules/m/inputs/j", "", 5, -1, "b" },
                                        { "modules/m/inputs/j", "", 1, -1, "c" },
                                        { "modules/mm/inputs/i", "", 0, -1, "x" },
                                        { "modules/m/inputs/i", "", 5, -1, "d" } };
    Bus__AckRange ranges[2] = { BUS__ACK_RANGE__INIT, BUS__ACK_RANGE__INIT };
    Bus__AckRange *list[] = { &ranges[0], &ranges[1] };
    Bus__Ack ack = BUS__ACK__INIT;
    struct reply reply = {};

    expect_folder(h, 1, 1, 0, ""); /* the consumer is there first */
    assert_int_equal(append_items(h, "p", 1, items, ELEMENTSOF(items)), STATUS_DONE);
    expect_folder(h, 1, 2, 2, "j:c1 i:a1");
    expect_folder(h, 1, 2, 2, "j:c1 i:a1"); /* the answer got lost */
    expect_folder(h, 1, 3, 0, "j:b1 i:d2");
    ranges[0].queue = (char *)"modules/m/inputs/j";
    ranges[0].priority = 1;
    ranges[1].queue = (char *)"modules/m/inputs/i";
    ranges[1].priority = 5;
    for (size_t i = 0; i < ELEMENTSOF(ranges); i++) {
        ranges[i].first = ranges[i].last = 1;
        ranges[i].outcome = DELIVERED;
    }
    ack.n_ranges = ELEMENTSOF(ranges);
    ack.ranges = list;
    store_ack_take(h->store, reply_call(&reply), &ack);
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    reply_done(&reply);
    expect_folder(h, 2, 1, 0, "j:b1 i:d2"); /* a newer lease: what is not acked */
    crash_and_open(h);
    expect_folder(h, 2, 2, 0, "i:d2 j:b1");
    harness_fetch(h, &reply, "modules/m/inputs/i", 3, 1, 0, 0);
    assert_int_equal(reply_wait(h, &reply), STATUS_INVALID); /* one in a folder is not read alone */
    reply_done(&reply);
    assert_int_equal(
        append_items(h, "p", 2, &(struct batch_item){ "modules/m/inputs/", "", 0, -1, "m" }, 1),
        STATUS_INVALID);
}

enum { BACKLOG = 100000, BACKLOG_BATCH = 5000 };

static void test_urgent_overtakes_a_backlog(void **state)
{
    static struct batch_item items[BACKLOG_BATCH];
    struct harness *h = *state;
    struct reply reply = {};
    const Bus__Fetched *f;

    for (size_t i = 0; i < BACKLOG_BATCH; i++)
        items[i] = (struct batch_item){ Q, "d", 9, -1, "low" };
    for (uint64_t n = 1; n <= BACKLOG / BACKLOG_BATCH; n++)
        assert_int_equal(append_items(h, "p", n, items, BACKLOG_BATCH), STATUS_DONE);
    harness_fetch(h, &reply, Q, 1, 1, 100, 0);
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    assert_int_equal(reply.envelope->fetched->n_items, 100);
    reply_done(&reply);
    assert_int_equal(append(h, 1 + BACKLOG / BACKLOG_BATCH, "d", 0, -1, "u"), STATUS_DONE);
    harness_fetch(h, &reply, Q, 1, 2, 100, 0);
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    f = reply.envelope->fetched;
    assert_int_equal(f->n_items, 100);
    assert_int_equal(f->items[0]->priority, 0);
    assert_int_equal(f->items[1]->priority, 9);
    assert_int_equal(f->items[1]->position, 101); /* and the backlog goes on where it was */
    reply_done(&reply);
}

static void test_long_poll(void **state)
{
    struct harness *h = *state;
    struct reply poll = {}, again = {}, next = {};

    harness_fetch(h, &poll, Q, 1, 1, 0, 5000); /* before there is such a queue */
    assert_int_equal(poll.answers, 0);
    assert_int_equal(append(h, 1, "d", 0, -1, "a"), STATUS_DONE);
    assert_int_equal(reply_wait(h, &poll), STATUS_DONE);
    assert_string_equal(fetched_text(&poll), "a1");
    reply_done(&poll);

    harness_fetch(h, &poll, Q, 1, 2, 0, 20); /* its time is over */
    assert_int_equal(poll.answers, 0);
    assert_int_equal(reply_wait(h, &poll), STATUS_DONE);
    assert_string_equal(fetched_text(&poll), "");
    reply_done(&poll);

    harness_fetch(h, &poll, Q, 1, 3, 0, 5000);
    harness_fetch(h, &again, Q, 1, 3, 0, 5000); /* sent again: takes the place of the first */
    assert_true(poll.dropped);
    harness_fetch(h, &next, Q, 1, 4, 0, 5000); /* went on without the answer */
    assert_int_equal(reply_wait(h, &again), STATUS_DONE);
    assert_int_equal(append(h, 2, "d", 0, -1, "b"), STATUS_DONE);
    assert_int_equal(reply_wait(h, &next), STATUS_DONE);
    assert_string_equal(fetched_text(&next), "b2");
    reply_done(&poll);
    reply_done(&again);
    reply_done(&next);
}

static void test_fetch_again(void **state)
{
    struct harness *h = *state;
    struct reply reply = {};

    append(h, 1, "d", 0, -1, "abcd");
    expect_fetch(h, 1, 1, 2, "a1 b2");
    expect_fetch(h, 1, 1, 2, "a1 b2");
    expect_fetch(h, 1, 2, 1, "c3");
    assert_int_equal(ack(h, "d", 0, 1, 1, DELIVERED), STATUS_DONE);
    expect_fetch(h, 1, 2, 2, "c3 d4");
    harness_fetch(h, &reply, Q, 1, 1, 0, 0);
    assert_int_equal(reply_wait(h, &reply), STATUS_INVALID);
    reply_done(&reply);
    crash_and_open(h); /* the store knows nothing of the lease: from the first that is not acked */
    expect_fetch(h, 1, 3, 0, "b2 c3 d4");
}

static void test_lease(void **state)
{
    struct harness *h = *state;
    struct reply poll = {}, newer = {}, old = {};

    append(h, 1, "d", 0, -1, "ab");
    expect_fetch(h, 1, 1, 0, "a1 b2");
    harness_fetch(h, &poll, Q, 1, 2, 0, 5000);
    harness_fetch(h, &newer, Q, 2, 1, 0, 5000);
    assert_int_equal(reply_wait(h, &poll), STATUS_LEASE_LOST);
    assert_int_equal(reply_wait(h, &newer), STATUS_DONE);
    assert_string_equal(fetched_text(&newer), "a1 b2");
    harness_fetch(h, &old, Q, 1, 3, 0, 0);
    assert_int_equal(reply_wait(h, &old), STATUS_LEASE_LOST);
    assert_int_equal(park(h, 1, "d", true), STATUS_LEASE_LOST);
    assert_int_equal(ack(h, "d", 0, 1, 1, DELIVERED),
                     STATUS_DONE); /* what the old one delivered is delivered */
    expect_ledger(h, &(struct expected_ledger){ .accepted = 2, .delivered = 1, .depth = 1 });
    reply_done(&poll);
    reply_done(&newer);
    reply_done(&old);
}

static Bus__Status release(struct harness *h, uint64_t lease)
{
    Bus__Release in = BUS__RELEASE__INIT;
    struct reply reply = {};
    Bus__Status status;

    in.queue = (char *)Q;
    in.lease = lease;
    store_release_take(h->store, reply_call(&reply), &in);
    status = reply_wait(h, &reply);
    reply_done(&reply);
    return status;
}

/* What a consumer held that is gone expires, and a poll that it left behind takes nothing. */
static void test_release(void **state)
{
    struct harness *h = *state;
    struct reply poll = {};

    assert_int_equal(append(h, 1, "d", 0, -1, "a"), STATUS_DONE);
    assert_int_equal(append(h, 2, "d", 0, 0, "b"), STATUS_DONE);
    assert_int_equal(append(h, 3, "d", 0, -1, "c"), STATUS_DONE);
    expect_fetch(h, 7, 1, 1, "a1");
    assert_int_equal(release(h, 6), STATUS_DONE); /* another's */
    harness_fetch(h, &poll, Q, 7, 2, 0, 0);
    assert_int_equal(reply_wait(h, &poll), STATUS_DONE);
    assert_string_equal(fetched_text(&poll), "c3");
    reply_done(&poll);
    harness_fetch(h, &poll, Q, 7, 3, 0, 5000);
    assert_int_equal(release(h, 7), STATUS_DONE);
    assert_int_equal(reply_wait(h, &poll), STATUS_DONE);
    assert_int_equal(poll.envelope->fetched->n_items, 0);
    reply_done(&poll);
    assert_int_equal(append(h, 4, "d", 0, -1, "d"), STATUS_DONE);
    expect_fetch(h, 8, 1, 0, "a1 c3 d4");
    expect_ledger(h, &(struct expected_ledger){ .accepted = 4, .expired = 1, .depth = 3 });
}

static void test_park(void **state)
{
    struct harness *h = *state;
    struct reply poll = {};

    append(h, 1, "d", 0, -1, "ab");
    append(h, 2, "e", 0, -1, "x");
    expect_fetch(h, 1, 1, 1, "a1");
    assert_int_equal(park(h, 1, "d", true), STATUS_DONE);
    expect_fetch(h, 1, 2, 0, "x1");
    harness_fetch(h, &poll, Q, 1, 3, 0, 5000);
    assert_int_equal(poll.answers, 0);
    assert_int_equal(park(h, 1, "d", false), STATUS_DONE);
    assert_int_equal(reply_wait(h, &poll), STATUS_DONE);
    assert_string_equal(fetched_text(&poll), "a1 b2");
    reply_done(&poll);
}

static void test_acks_of_before_the_restart(void **state)
{
    struct harness *h = *state;

    append(h, 1, "d", 0, -1, "abcdefgh");
    expect_fetch(h, 1, 1, 6, "a1 b2 c3 d4 e5 f6");
    crash_and_open(h);
    assert_int_equal(ack(h, "d", 0, 3, 4, DELIVERED), STATUS_DONE);
    assert_int_equal(ack(h, "d", 0, 4, 5, BUS__OUTCOME__OUTCOME_REJECTED), STATUS_DONE);
    expect_fetch(h, 1, 2, 0, "a1 b2 f6 g7 h8");
    assert_int_equal(ack(h, "d", 0, 0, UINT64_MAX, BUS__OUTCOME__OUTCOME_DROPPED), STATUS_DONE);
    expect_ledger(
        h, &(struct expected_ledger){ .accepted = 8, .delivered = 2, .rejected = 1, .dropped = 5 });
    append(h, 2, "d", 0, -1, "i");
    expect_fetch(h, 1, 3, 0, "i9");
}

static void test_ack_invalid(void **state)
{
    struct harness *h = *state;

    append(h, 1, "d", 0, -1, "ab");
    assert_int_equal(ack(h, "d", 0, 2, 1, DELIVERED), STATUS_INVALID);
    assert_int_equal(ack(h, "d", 0, 1, 2, BUS__OUTCOME__OUTCOME_UNSET), STATUS_INVALID);
    expect_ledger(h, &(struct expected_ledger){ .accepted = 2, .depth = 2 });
}

static void test_expiry(void **state)
{
    struct harness *h = *state;

    append(h, 1, "d", 0, 0, "abc");
    append(h, 2, "d", 0, -1, "x");
    append(h, 3, "d", 0, 0, "y");
    append(h, 4, "e", 0, 3600, "z");
    expect_fetch(h, 1, 1, 0, "x4 z1");
    expect_ledger(h, &(struct expected_ledger){ .accepted = 6, .expired = 4, .depth = 2 });
    crash_and_open(h);
    expect_fetch(h, 1, 1, 0, "x4 z1");
}

/* More than one turn may look at: it goes on by itself, and finds what lives on. */
static void test_expiry_of_many(void **state)
{
    enum { BATCHES = 40, BATCH = 500 };
    struct harness *h = *state;
    struct batch_item items[BATCH];
    struct reply poll = {};

    for (size_t i = 0; i < BATCH; i++)
        items[i] = (struct batch_item){ Q, "d", 0, 0, "x" };
    for (uint64_t sequence = 1; sequence <= BATCHES; sequence++)
        assert_int_equal(append_items(h, "p", sequence, items, BATCH), STATUS_DONE);
    assert_int_equal(append(h, BATCHES + 1, "d", 0, -1, "!"), STATUS_DONE);
    harness_fetch(h, &poll, Q, 1, 1, 0, 5000);
    assert_int_equal(poll.answers, 0);
    assert_int_equal(reply_wait(h, &poll), STATUS_DONE);
    assert_string_equal(fetched_text(&poll), "!20001");
    expect_ledger(h, &(struct expected_ledger){
                         .accepted = BATCHES * BATCH + 1, .expired = BATCHES * BATCH, .depth = 1 });
    reply_done(&poll);
}

static void wait_until_written(struct harness *h)
{
    while (!commit_is_idle(h->store->commit) || h->store->sweeping)
        harness_turn(h);
}

static void test_sweep(void **state)
{
    struct harness *h = *state;
    struct batch_item items[500];

    for (size_t i = 0; i < ELEMENTSOF(items); i++)
        items[i] = (struct batch_item){ Q, i % 2 ? "d" : "e", 0, i == 3 ? -1 : 0, "x" };
    for (uint64_t sequence = 1; sequence <= 6; sequence++)
        assert_int_equal(append_items(h, "p", sequence, items, ELEMENTSOF(items)), STATUS_DONE);
    store_sweep(h->store);
    wait_until_written(h);
    expect_ledger(h, &(struct expected_ledger){ .accepted = 3000, .expired = 2994, .depth = 6 });
    crash_and_open(h);
    expect_ledger(h, &(struct expected_ledger){ .accepted = 3000, .expired = 2994, .depth = 6 });
    expect_fetch(h, 1, 1, 0, "x2 x252 x502 x752 x1002 x1252");
}

/* Appends kilobytes until it is refused. Returns the sequence that was. */
static uint64_t append_until(struct harness *h, uint64_t sequence, Bus__Status end)
{
    struct batch_item items[64];
    char text[1025];
    Bus__Status status;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (size_t i = 0; i < ELEMENTSOF(items); i++)
        items[i] = (struct batch_item){ Q, "d", 0, -1, text };
    while ((status = append_items(h, "p", sequence, items, ELEMENTSOF(items))) == STATUS_DONE)
        sequence++;
    assert_int_equal(status, end);
    return sequence;
}

struct put {
    const char *key;
    const char *value; /* NULL: remove */
    uint64_t expected_version;
    const char *producer;
    uint64_t sequence;
};

static void record_put(struct harness *h, struct reply *reply, const struct put *p)
{
    Bus__RecordPut in = BUS__RECORD_PUT__INIT;

    in.key = (char *)p->key;
    in.remove = p->value == NULL;
    if (p->value)
        in.value = (ProtobufCBinaryData){ strlen(p->value), (uint8_t *)p->value };
    in.expected_version = p->expected_version;
    in.producer = (char *)(p->producer ? p->producer : "");
    in.sequence = p->sequence;
    store_record_put_take(h->store, reply_call(reply), &in);
}

/* As disks see it: nothing that could be compressed. */
static void fill_text(char *text, size_t len, unsigned *seed)
{
    for (size_t i = 0; i + 1 < len; i++) {
        *seed = *seed * 1103515245 + 12345;
        text[i] = (char)(1 + (*seed >> 16) % 255);
    }
    text[len - 1] = '\0';
}

struct filling {
    uint64_t sequence;
    const char *partition;
    uint32_t priority;
    unsigned seed;
    uint64_t appended;
    uint64_t disk_peak;
};

/* 64 KiB of messages of 1 KiB. */
static Bus__Status fill_some(struct harness *h, struct filling *f)
{
    enum { COUNT = 64, BYTES = 1024 };
    static char texts[COUNT][BYTES + 1];
    struct batch_item items[COUNT];
    Bus__Status status;
    uint64_t disk;

    for (size_t i = 0; i < COUNT; i++) {
        fill_text(texts[i], sizeof(texts[i]), &f->seed);
        items[i] = (struct batch_item){ Q, f->partition, f->priority, -1, texts[i] };
    }
    status = append_items(h, "p", f->sequence, items, COUNT);
    disk = rocks_disk_bytes(h->store->image->rocks);
    if (f->disk_peak < disk)
        f->disk_peak = disk;
    if (status != STATUS_DONE)
        return status;
    f->sequence++;
    f->appended += COUNT;
    return STATUS_DONE;
}

/* Too much is queued for one more; that the disk is short of room for copies is for a moment only. */
static bool queue_is_full(struct harness *h, const struct filling *f)
{
    struct queues *queues = h->store->image->queues;
    struct budget_use use = {
        .queued = queues_bytes(queues) + queues_messages(queues) * ENTRY_OVERHEAD_BYTES,
    };

    return budget_excess(&h->store->budget, &use,
                         f->priority == 0 ? DEMAND_URGENT : DEMAND_MESSAGES,
                         64 * (1024 + ENTRY_OVERHEAD_BYTES)) > 0;
}

static void fill_up(struct harness *h, struct filling *f)
{
    Bus__Status status;

    while ((status = fill_some(h, f)) == STATUS_DONE || !queue_is_full(h, f))
        if (status == STATUS_FULL)
            harness_turn(h);
    assert_int_equal(status, STATUS_FULL);
}

/* Until there is room again, as producers do. */
static void fill_when_there_is_room(struct harness *h, struct filling *f)
{
    while (fill_some(h, f) != STATUS_DONE)
        harness_turn(h);
}

static void reopen_small(struct harness *h, int when_full)
{
    harness_crash(h);
    h->config.max_bytes = 16 << 20;
    h->config.when_full = when_full;
    harness_open(h);
}

/* Of 16 MiB, eleven are for messages and one more for those of priority 0. */
static void test_full(void **state)
{
    struct filling f = { .sequence = 1, .partition = "d", .priority = 5 };
    struct put put = { "key", "value", 0, NULL, 0 };
    struct harness *h = *state;
    struct reply reply = {};

    reopen_small(h, WHEN_FULL_REJECT);
    fill_up(h, &f);
    assert_int_equal(f.appended, 165 * 64);
    while (append(h, f.sequence, "d", 0, -1, "!") != STATUS_DONE)
        harness_turn(h);
    f.sequence++;
    record_put(h, &reply, &put);
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    reply_done(&reply);
    assert_int_equal(fill_some(h, &f), STATUS_FULL);
    assert_int_equal(ack(h, "d", 5, 1, 128, DELIVERED), STATUS_DONE);
    fill_when_there_is_room(h, &f);
    f.priority = 0;
    fill_up(h, &f);
    assert_true(f.appended > 175 * 64);
    assert_in_range(f.disk_peak, 8 << 20, 16 << 20);
    expect_ledger(h, &(struct expected_ledger){
                         .accepted = f.appended + 1, .delivered = 128, .depth = f.appended - 127 });
    crash_and_open(h);
    assert_int_equal(fill_some(h, &f), STATUS_FULL);
    expect_ledger(h, &(struct expected_ledger){
                         .accepted = f.appended + 1, .delivered = 128, .depth = f.appended - 127 });
}

/* What is delivered comes back as room, again and again, and the disk is never more than full. */
/* A deployment may bound it more tightly than the settings do, and take that back. */
static void test_quota(void **state)
{
    struct filling f = { .sequence = 1, .partition = "d", .priority = 5 };
    struct harness *h = *state;

    store_set_quota(h->store, 16 << 20);
    fill_up(h, &f);
    assert_int_equal(f.appended, 165 * 64); /* as with max_bytes of that size */
    store_set_quota(h->store, UINT64_C(1) << 40);
    assert_int_equal(h->store->budget.bytes, h->config.max_bytes);
    assert_int_equal(fill_some(h, &f), STATUS_DONE);
    store_set_quota(h->store, 1); /* not less than one can work with */
    assert_int_equal(h->store->budget.bytes, 16 << 20);
    assert_int_equal(fill_some(h, &f), STATUS_FULL);
    store_set_quota(h->store, 0);
    assert_int_equal(fill_some(h, &f), STATUS_DONE);
}

static void test_room_comes_back(void **state)
{
    struct filling f = { .sequence = 1, .partition = "d", .priority = 5 };
    struct harness *h = *state;

    reopen_small(h, WHEN_FULL_REJECT);
    for (unsigned round = 0; round < 5; round++) {
        uint64_t before = f.appended;

        fill_when_there_is_room(h, &f);
        while (f.appended < before + 160 * 64)
            fill_when_there_is_room(h, &f);
        assert_int_equal(ack(h, "d", 5, 0, UINT64_MAX, DELIVERED), STATUS_DONE);
    }
    assert_in_range(f.disk_peak, 8 << 20, 16 << 20);
    expect_ledger(h, &(struct expected_ledger){ .accepted = f.appended, .delivered = f.appended });
}

/* The priorities of the queue, as brinkctl shows them. */
static void expect_priority(struct harness *h, size_t i, const Bus__PriorityStatus *want)
{
    struct reply reply = {};
    const Bus__PriorityStatus *p;

    store_queues_get_take(h->store, reply_call(&reply));
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    assert_true(i < reply.envelope->queues->queues[0]->n_priorities);
    p = reply.envelope->queues->queues[0]->priorities[i];
    assert_int_equal(p->priority, want->priority);
    assert_int_equal(p->accepted, want->accepted);
    assert_int_equal(p->delivered, want->delivered);
    assert_int_equal(p->dropped, want->dropped);
    assert_int_equal(p->depth, want->depth);
    assert_int_equal(p->accepted, p->delivered + p->expired + p->dropped + p->rejected + p->depth);
    reply_done(&reply);
}

static Bus__PriorityStatus priority_status(uint32_t priority, uint64_t accepted, uint64_t dropped)
{
    Bus__PriorityStatus want = BUS__PRIORITY_STATUS__INIT;

    want.priority = priority;
    want.accepted = accepted;
    want.dropped = dropped;
    want.depth = accepted - dropped;
    return want;
}

static uint64_t first_position(struct harness *h, const char *partition, uint32_t priority)
{
    return queue_find_stream(queues_find(h->store->image->queues, Q), partition, priority)->cursor;
}

static void test_drop_oldest(void **state)
{
    struct filling least[] = { { .partition = "d", .priority = 9 },
                               { .partition = "e", .priority = 9 } };
    struct filling more = { .partition = "d", .priority = 5, .sequence = 1 };
    struct harness *h = *state;
    Bus__PriorityStatus want;
    uint64_t dropped, first[2];

    reopen_small(h, WHEN_FULL_DROP_OLDEST);
    expect_fetch(h, 1, 1, 1, "");
    for (unsigned i = 0; i < 100; i++) { /* 12.8 MiB, in turn, and the queue has room for 11 */
        least[i % 2].sequence = more.sequence++;
        fill_when_there_is_room(h, &least[i % 2]);
        least[i % 2].sequence = more.sequence++;
        fill_when_there_is_room(h, &least[i % 2]);
    }
    dropped = h->store->dropped;
    assert_in_range(dropped, (200 - 166) * 64, (200 - 164) * 64);
    first[0] = first_position(h, "d", 9);
    first[1] = first_position(h, "e", 9);
    assert_int_equal(first[0] - 1 + first[1] - 1, dropped);
    assert_in_range(first[0], first[1] - 192, first[1] + 192);

    for (unsigned i = 0; i < 50; i++) /* what is more urgent pushes out what is less */
        fill_when_there_is_room(h, &more);
    dropped = h->store->dropped;
    want = priority_status(5, 50 * 64, 0);
    expect_priority(h, 0, &want);
    want = priority_status(9, 200 * 64, dropped);
    expect_priority(h, 1, &want);
    crash_and_open(h);
    want = priority_status(9, 200 * 64, dropped);
    expect_priority(h, 1, &want);
    want = priority_status(5, 50 * 64, 0);
    expect_priority(h, 0, &want);
    assert_true(least[0].disk_peak <= 16 << 20 && more.disk_peak <= 16 << 20);
}

/* What a consumer holds may be on its way; what is more urgent than the newcomer stays, too. */
static void test_drop_spares(void **state)
{
    struct filling f = { .sequence = 1, .partition = "d", .priority = 5 };
    struct harness *h = *state;
    struct reply reply = {};
    uint64_t before;

    reopen_small(h, WHEN_FULL_DROP_OLDEST);
    assert_int_equal(fill_some(h, &f), STATUS_DONE);
    harness_fetch(h, &reply, Q, 1, 1, 10, 0);
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    assert_int_equal(reply.envelope->fetched->n_items, 10);
    reply_done(&reply);
    while (h->store->dropped < 200)
        fill_when_there_is_room(h, &f);
    assert_true(first_position(h, "d", 5) > 200);
    assert_int_equal(ack(h, "d", 5, 1, 10, DELIVERED), STATUS_DONE);
    before = h->store->dropped;
    expect_ledger(h, &(struct expected_ledger){ .accepted = f.appended,
                                                .delivered = 10,
                                                .dropped = before,
                                                .depth = f.appended - before - 10 });
    f.priority = 6;
    assert_int_equal(fill_some(h, &f), STATUS_FULL);
    assert_int_equal(h->store->dropped, before);
}

static void test_peek_and_drop(void **state)
{
    struct harness *h = *state;
    Bus__QueuePeek peek = BUS__QUEUE_PEEK__INIT;
    Bus__QueueDrop drop = BUS__QUEUE_DROP__INIT;
    struct reply reply = {};

    peek.queue = drop.queue = (char *)"nothing";
    store_queue_peek_take(h->store, reply_call(&reply), &peek);
    assert_int_equal(reply_wait(h, &reply), STATUS_NOT_FOUND);
    reply_done(&reply);
    store_queue_drop_take(h->store, reply_call(&reply), &drop);
    assert_int_equal(reply_wait(h, &reply), STATUS_NOT_FOUND);
    reply_done(&reply);

    append(h, 1, "d", 5, -1, "abcd");
    append(h, 2, "e", 0, -1, "!");
    expect_fetch(h, 1, 1, 3, "!1 a1 b2");
    assert_int_equal(ack(h, "d", 5, 1, 1, DELIVERED), STATUS_DONE);
    peek.queue = drop.queue = (char *)Q;
    peek.messages_max = 3;
    for (unsigned i = 0; i < 2; i++) { /* looking changes nothing */
        store_queue_peek_take(h->store, reply_call(&reply), &peek);
        assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
        assert_string_equal(fetched_text(&reply), "!1 b2 c3");
        reply_done(&reply);
    }
    for (uint64_t want = 4;; want = 0) {
        store_queue_drop_take(h->store, reply_call(&reply), &drop);
        assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
        assert_int_equal(reply.envelope->queue_dropped->dropped, want);
        reply_done(&reply);
        if (want == 0)
            break;
    }
    assert_int_equal(ack(h, "d", 5, 2, 2, DELIVERED), STATUS_DONE); /* too late */
    expect_ledger(h, &(struct expected_ledger){ .accepted = 5, .delivered = 1, .dropped = 4 });
    crash_and_open(h);
    expect_ledger(h, &(struct expected_ledger){ .accepted = 5, .delivered = 1, .dropped = 4 });
    expect_fetch(h, 1, 1, 0, "");
}

static void test_drain(void **state)
{
    struct harness *h = *state;
    static const struct batch_item item = { Q, "d", 0, -1, "a" };
    struct reply poll = {}, appended = {}, late = {};

    harness_fetch(h, &poll, "other", 1, 1, 0, 5000);
    harness_append(h, &appended, "p", 1, &item, 1);
    store_drain(h->store);
    harness_append(h, &late, "p", 2, &item, 1);
    assert_true(poll.dropped && late.dropped);
    assert_int_equal(reply_wait(h, &appended), STATUS_DONE);
    while (!h->drained)
        harness_turn(h);
    crash_and_open(h);
    expect_fetch(h, 1, 1, 0, "a1");
    reply_done(&appended);
}

static void test_interval(void **state)
{
    struct harness *h = *state;

    harness_crash(h);
    h->config.durability = DURABILITY_INTERVAL;
    harness_open(h);
    assert_int_equal(append(h, 1, "d", 0, -1, "a"), STATUS_DONE);
    assert_int_equal(commit_counters(h->store->commit)->syncs, 0);
    wait_until_written(h); /* the timer has it synced */
    assert_int_equal(commit_counters(h->store->commit)->syncs, 1);
    assert_int_equal(append(h, 2, "d", 0, -1, "b"), STATUS_DONE);
    harness_drain(h);
    harness_open(h);
    expect_fetch(h, 1, 1, 0, "a1 b2");
}

/* Records. */

static void expect_record(struct harness *h, const char *key, const char *value, uint64_t version)
{
    Bus__RecordGet in = BUS__RECORD_GET__INIT;
    struct reply reply = {};

    in.key = (char *)key;
    store_record_get_take(h->store, reply_call(&reply), &in);
    assert_int_equal(reply_wait(h, &reply), value ? STATUS_DONE : STATUS_NOT_FOUND);
    if (value) {
        const Bus__Record *record = reply.envelope->records->records[0];

        assert_int_equal(record->version, version);
        assert_int_equal(record->value.len, strlen(value));
        assert_memory_equal(record->value.data, value, strlen(value));
    }
    reply_done(&reply);
}

static void test_records(void **state)
{
    static const struct {
        struct put put;
        Bus__Status want;
        uint64_t want_version;
    } steps[] = {
        { { "a", "1", 0, NULL, 0 }, STATUS_DONE, 1 },
        { { "a", "2", 0, NULL, 0 }, STATUS_DONE, 2 },
        { { "a", "x", 1, NULL, 0 }, STATUS_CONFLICT, 2 },
        { { "a", "3", 2, NULL, 0 }, STATUS_DONE, 3 },
        { { "b", "x", 7, NULL, 0 }, STATUS_CONFLICT, 0 },
        { { "a", NULL, 2, NULL, 0 }, STATUS_CONFLICT, 3 },
        { { "a", NULL, 3, NULL, 0 }, STATUS_DONE, 0 },
        { { "a", NULL, 0, NULL, 0 }, STATUS_DONE, 0 },
        { { "a", "4", 0, "w", 1 }, STATUS_DONE, 1 },
        { { "a", "5", 0, "w", 2 }, STATUS_DONE, 2 },
        { { "empty", "", 0, NULL, 0 }, STATUS_DONE, 1 },
        { { "a", "4", 0, "w", 1 }, STATUS_DONE, 2 }, /* sent again: done once */
        { { "a", "7", 0, "w", 4 }, STATUS_OUT_OF_ORDER, 0 },
        { { "", "7", 0, NULL, 0 }, STATUS_INVALID, 0 },
        { { "a", "7", 0, "w", 0 }, STATUS_INVALID, 0 },
    };
    struct harness *h = *state;

    for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
        struct reply reply = {};

        record_put(h, &reply, &steps[i].put);
        assert_int_equal(reply_wait(h, &reply), steps[i].want);
        if (reply.envelope->body_case == BUS__ENVELOPE__BODY_RECORDS)
            assert_int_equal(reply.envelope->records->records[0]->version, steps[i].want_version);
        reply_done(&reply);
    }
    expect_record(h, "a", "5", 2);
    expect_record(h, "b", NULL, 0);
    crash_and_open(h);
    expect_record(h, "a", "5", 2);
}

/* Decided one after the other, before any of them is on disk. */
static void test_records_in_one_group(void **state)
{
    static const struct put puts[] = {
        { "a", "1", 0, NULL, 0 },  { "a", "2", 1, NULL, 0 }, { "a", "x", 1, NULL, 0 },
        { "a", NULL, 2, NULL, 0 }, { "a", "3", 0, NULL, 0 },
    };
    static const Bus__Status want[] = { STATUS_DONE, STATUS_DONE, STATUS_CONFLICT, STATUS_DONE,
                                        STATUS_DONE };
    struct reply replies[ELEMENTSOF(puts)] = {};
    struct harness *h = *state;

    for (size_t i = 0; i < ELEMENTSOF(puts); i++)
        record_put(h, &replies[i], &puts[i]);
    for (size_t i = 0; i < ELEMENTSOF(puts); i++) {
        assert_int_equal(reply_wait(h, &replies[i]), want[i]);
        reply_done(&replies[i]);
    }
    expect_record(h, "a", "3", 1);
}

static void test_records_by_prefix(void **state)
{
    struct harness *h = *state;
    Bus__RecordGet in = BUS__RECORD_GET__INIT;
    char *value = xrealloc(NULL, (1 << 20) + 1);
    struct reply reply = {};
    size_t count = 0;
    bool more = true;
    char key[32];

    memset(value, 'v', 1 << 20);
    value[1 << 20] = '\0';
    for (unsigned i = 0; i < 10; i++) {
        snprintf(key, sizeof(key), "s/%u", i);
        record_put(h, &reply, &(struct put){ key, value, 0, NULL, 0 });
        assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
        reply_done(&reply);
    }
    record_put(h, &reply, &(struct put){ "t", "other", 0, NULL, 0 });
    assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
    reply_done(&reply);

    in.key = (char *)"s/";
    in.prefix = true;
    while (more) {
        const Bus__Records *records;

        store_record_get_take(h->store, reply_call(&reply), &in);
        assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
        records = reply.envelope->records;
        assert_true(records->n_records > 0);
        for (size_t i = 0; i < records->n_records; i++) {
            snprintf(key, sizeof(key), "s/%zu", count++);
            assert_string_equal(records->records[i]->key, key);
        }
        more = records->more;
        in.after = key;
        reply_done(&reply);
    }
    assert_int_equal(count, 10);
    free(value);
}

/* The disk. */

static void damage_tables(struct harness *h)
{
    _cleanup_(freep) char *path = xasprintf("%s/db", h->dir);
    DIR *dir = opendir(path);
    struct dirent *entry;

    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        _cleanup_(freep) char *file = xasprintf("%s/%s", path, entry->d_name);

        if (strncmp(entry->d_name, "MANIFEST", 8) == 0 || strstr(entry->d_name, ".sst"))
            assert_int_equal(truncate(file, 10), 0);
    }
    closedir(dir);
}

static void test_repair(void **state)
{
    struct harness *h = *state;
    _cleanup_(freep) char *manifest = xasprintf("%s/db/CURRENT", h->dir);

    append(h, 1, "d", 0, -1, "abcd");
    expect_fetch(h, 1, 1, 0, "a1 b2 c3 d4");
    ack(h, "d", 0, 2, 2, DELIVERED);
    harness_crash(h);
    assert_int_equal(truncate(manifest, 2), 0);
    harness_open(h);
    assert_non_null(h->store->image);
    assert_true(h->store->image->repaired);
    expect_fetch(h, 1, 1, 0, "a1 c3 d4");
    expect_ledger(h, &(struct expected_ledger){ .accepted = 4, .delivered = 1, .depth = 3 });
    assert_int_equal(append(h, 2, "d", 0, -1, "e"), STATUS_DONE);
    crash_and_open(h);
    assert_false(h->store->image->repaired);
    expect_fetch(h, 1, 1, 0, "a1 c3 d4 e5");
}

static void test_repair_without_tables(void **state)
{
    struct harness *h = *state;

    append(h, 1, "d", 0, -1, "abcd");
    crash_and_open(h); /* what was in the log is in a table file now */
    harness_crash(h);
    damage_tables(h);
    harness_open(h);
    assert_non_null(h->store->image);
    assert_true(h->store->image->repaired);
    assert_int_equal(append_items(h, "q", 1, &(struct batch_item){ Q, "d", 0, -1, "z" }, 1),
                     STATUS_DONE);
    expect_fetch(h, 1, 1, 0, "z1");
}

static void fail_corrupt(struct harness *h)
{
    struct rocks_error error = { "Corruption: a test says so" };

    store_fail_take(h->store, NULL, ROCKS_E_CORRUPT, &error);
    while (h->store->image)
        harness_turn(h);
    while (!h->store->image)
        harness_turn(h);
}

static bool moved_aside(const struct harness *h)
{
    DIR *dir = opendir(h->dir);
    struct dirent *entry;
    bool found = false;

    assert_non_null(dir);
    while ((entry = readdir(dir)))
        found |= strncmp(entry->d_name, "db.corrupt-", strlen("db.corrupt-")) == 0;
    closedir(dir);
    return found;
}

static void test_damage_that_stays(void **state)
{
    struct harness *h = *state;

    append(h, 1, "d", 0, -1, "ab");
    fail_corrupt(h); /* a row cannot be read: repair */
    assert_true(h->store->image->repaired);
    assert_false(moved_aside(h));
    expect_fetch(h, 1, 1, 0, "a1 b2");
    fail_corrupt(h); /* it did not help: move it aside */
    assert_true(moved_aside(h));
    expect_fetch(h, 1, 1, 0, "");
    assert_int_equal(append(h, 1, "d", 0, -1, "z"), STATUS_DONE);
    crash_and_open(h);
    expect_fetch(h, 1, 1, 0, "z1");
}

/* The image is thrown away under everybody who waits, and read again. */
static void test_failure_is_survived(void **state)
{
    struct harness *h = *state;
    static const struct batch_item item = { Q, "d", 0, -1, "b" };
    struct rocks_error error = { "IO error: No space left on device" };
    struct reply appended = {}, poll = {}, refused = {};

    append(h, 1, "d", 0, -1, "a");
    expect_fetch(h, 1, 1, 0, "a1");
    harness_fetch(h, &poll, Q, 1, 2, 0, 5000);
    harness_append(h, &appended, "p", 2, &item, 1);
    store_fail_take(h->store, NULL, -ENOSPC, &error);
    harness_append(h, &refused, "p", 3, &item, 1);
    assert_int_equal(refused.envelope->status, STATUS_FAILED);
    assert_int_equal(reply_wait(h, &poll), STATUS_FAILED);
    assert_int_equal(appended.answers, 1); /* refused, or written just in time */
    assert_null(h->store->image);
    while (!h->store->image)
        harness_turn(h);
    assert_int_equal(append(h, 2, "d", 0, -1, "b"),
                     STATUS_DONE); /* sent again: once, whether it was written or not */
    expect_fetch(h, 1, 2, 0, "a1 b2");
    expect_ledger(h, &(struct expected_ledger){ .accepted = 2, .depth = 2 });
    reply_done(&appended);
    reply_done(&poll);
    reply_done(&refused);
}

/* A read fails while one group is being written and the next one has begun. */
static void test_failure_between_two_groups(void **state)
{
    struct harness *h = *state;
    static const struct batch_item item = { Q, "d", 0, -1, "x" };
    struct rocks_error error = { "Corruption: a test says so" };
    struct reply writing = {}, gathering = {};

    harness_append(h, &writing, "p", 1, &item, 1);
    while (!worker_is_busy(h->store->worker))
        harness_turn(h);
    harness_append(h, &gathering, "p", 2, &item, 1);
    store_fail_take(h->store, NULL, ROCKS_E_CORRUPT, &error);
    assert_int_equal(reply_wait(h, &writing), STATUS_DONE);
    assert_int_equal(reply_wait(h, &gathering), STATUS_DONE);
    while (h->store->image)
        harness_turn(h);
    while (!h->store->image)
        harness_turn(h);
    assert_true(h->store->image->repaired);
    expect_fetch(h, 1, 1, 0, "x1 x2");
    reply_done(&writing);
    reply_done(&gathering);
}

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A real write fails: the log may not grow any more, and nothing else neither, until it may. */
static void test_disk_fails_for_a_while(void **state)
{
    struct harness *h = *state;
    uint64_t sequence, depth;

    signal(SIGXFSZ, SIG_IGN);
    limit_files(200 << 10);
    sequence = append_until(h, 1, STATUS_FAILED);
    assert_true(sequence > 1);
    limit_files(16); /* now it cannot be opened either: refused, not dead */
    while (h->store->failures < 3)
        harness_turn(h);
    assert_int_equal(append(h, sequence, "d", 0, -1, "a"), STATUS_FAILED);
    limit_files(RLIM_INFINITY);
    while (!h->store->image || h->store->failing)
        harness_turn(h);
    assert_int_equal(append(h, sequence, "d", 0, -1, "a"),
                     STATUS_DONE); /* applied before, or now */
    assert_int_equal(append(h, sequence + 1, "d", 0, -1, "b"), STATUS_DONE);
    depth = queues_messages(h->store->image->queues);
    assert_in_range(depth, (sequence - 1) * 64 + 2, sequence * 64 + 1);
    crash_and_open(h);
    assert_int_equal(queues_messages(h->store->image->queues), depth);
    expect_ledger(h, &(struct expected_ledger){ .accepted = depth, .depth = depth });
}

static void test_later_layout_is_left_alone(void **state)
{
    struct harness *h = *state;
    _cleanup_(rocks_batch_freep) struct rocks_batch *batch = rocks_batch_new();
    _cleanup_(buf_done) struct buf value = {};
    struct rocks_error error;
    struct reply reply = {};

    rocks_batch_put(batch, KEY_LAYOUT, value_layout(LAYOUT_VERSION + 1, &value));
    assert_int_equal(rocks_write(h->store->image->rocks, batch, true, &error), 0);
    crash_and_open(h);
    assert_null(h->store->image);
    harness_fetch(h, &reply, Q, 1, 1, 0, 0);
    assert_int_equal(reply_wait(h, &reply), STATUS_FAILED);
    reply_done(&reply);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_append_fetch_ack),
        TEST(test_order),
        TEST(test_limits_of_an_answer),
        TEST(test_append_once),
        TEST(test_one_sync_for_all),
        TEST(test_append_invalid),
        TEST(test_copies_for_several_queues),
        TEST(test_folder_is_read_together),
        TEST(test_urgent_overtakes_a_backlog),
        TEST(test_long_poll),
        TEST(test_fetch_again),
        TEST(test_lease),
        TEST(test_release),
        TEST(test_park),
        TEST(test_acks_of_before_the_restart),
        TEST(test_ack_invalid),
        TEST(test_expiry),
        TEST(test_expiry_of_many),
        TEST(test_sweep),
        TEST(test_full),
        TEST(test_quota),
        TEST(test_room_comes_back),
        TEST(test_drop_oldest),
        TEST(test_drop_spares),
        TEST(test_peek_and_drop),
        TEST(test_drain),
        TEST(test_interval),
        TEST(test_records),
        TEST(test_records_in_one_group),
        TEST(test_records_by_prefix),
        TEST(test_repair),
        TEST(test_repair_without_tables),
        TEST(test_damage_that_stays),
        TEST(test_failure_is_survived),
        TEST(test_failure_between_two_groups),
        TEST(test_disk_fails_for_a_while),
        TEST(test_later_layout_is_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
