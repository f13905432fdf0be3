/* The decisions about queues, without a database: a small model of one plays its part where a test
 * needs it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "queues.h"

enum { ROWS_MAX = 1024 };

/* What is on disk of one stream. */
struct disk {
    bool there[ROWS_MAX];
};

static void ignore_queue(const struct queue *queue, void *userdata) {}

static void count_partition(const struct partition *partition, void *userdata)
{
    unsigned *gone = userdata;

    *gone += partition->gone;
}

static unsigned commit(struct queues *queues)
{
    static const struct queues_writer writer = { ignore_queue, count_partition };
    unsigned gone = 0;

    queues_close(queues, &writer, &gone);
    queues_committed(queues);
    return gone;
}

static struct stream *stream_with(struct queues *queues, const char *partition, uint32_t priority,
                                  unsigned messages)
{
    struct stream *s = queue_get_stream(queues_get(queues, "q"), partition, priority);

    for (unsigned i = 0; i < messages; i++)
        stream_append(s, 10, 1000, EXPIRES_NEVER, 1);
    return s;
}

/* Gives what the lease would be given: "a1 a2 b1", partition and position. */
static const char *fetch(struct queue *queue, unsigned max, unsigned chunk)
{
    static char text[4096];
    struct stream *s;
    size_t len = 0;

    text[0] = '\0';
    while (max > 0 && (s = reader_next(queue->reader))) {
        unsigned n = 0;

        stream_read_begin(s);
        while (n < chunk && max > 0 && s->cursor < s->durable) {
            uint64_t position = s->cursor;

            n++;
            if (stream_offer(s, position, 10, false) != OFFER_TAKEN)
                continue;
            max--;
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s%lu", len ? " " : "",
                                    s->partition->name, (unsigned long)position);
        }
        stream_read_end(s, false);
    }
    return text;
}

static void test_only_committed_is_given(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *s = stream_with(queues, "a", 0, 2);
    struct queue *q = s->partition->queue;

    assert_int_equal(reader_fetch(q->reader, 1, 1), 0);
    assert_null(reader_next(q->reader));
    commit(queues);
    stream_append(s, 10, 0, EXPIRES_NEVER, 1);
    assert_string_equal(fetch(q, 10, 64), "a1 a2");
    commit(queues);
    assert_int_equal(reader_fetch(q->reader, 1, 2), 0);
    assert_string_equal(fetch(q, 10, 64), "a3");
}

static void test_order_of_priorities_and_partitions(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct queue *q = queues_get(queues, "q");

    stream_with(queues, "a", 2000000000, 3);
    stream_with(queues, "b", 2000000000, 3);
    stream_with(queues, "c", 2000000000, 1);
    stream_with(queues, "b", 5, 2);
    commit(queues);
    reader_fetch(q->reader, 1, 1);
    assert_string_equal(fetch(q, 4, 2), "b1 b2 a1 a2");
    stream_with(queues, "z", 0, 1); /* the most urgent comes first again */
    commit(queues);
    reader_fetch(q->reader, 1, 2);
    assert_string_equal(fetch(q, 10, 2), "z1 b1 b2 c1 a3 b3");
}

static void test_fetch_again(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *a = stream_with(queues, "a", 0, 4);
    struct queue *q = a->partition->queue;

    stream_with(queues, "b", 0, 2);
    commit(queues);
    reader_fetch(q->reader, 1, 1);
    assert_string_equal(fetch(q, 3, 2), "a1 a2 b1");
    reader_fetch(q->reader, 1, 2);
    assert_string_equal(fetch(q, 2, 2), "a3 a4");
    assert_true(stream_remove(a, 1, 10, OUTCOME_DELIVERED));
    assert_int_equal(reader_fetch(q->reader, 1, 2),
                     0); /* the answer got lost: a3 and a4 again, not a2 */
    assert_string_equal(fetch(q, 10, 2), "b2 a3 a4");
    assert_int_equal(reader_fetch(q->reader, 1, 1), QUEUE_E_SEQUENCE);
    assert_int_equal(reader_fetch(q->reader, 1, 3), 0);
    assert_string_equal(fetch(q, 10, 2), "");
}

static void test_lease_takes_over(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *a = stream_with(queues, "a", 0, 4);
    struct queue *q = a->partition->queue;

    commit(queues);
    reader_fetch(q->reader, 7, 1);
    assert_string_equal(fetch(q, 10, 64), "a1 a2 a3 a4");
    stream_remove(a, 2, 10, OUTCOME_DELIVERED);
    partition_park(a->partition, true);
    assert_int_equal(reader_fetch(q->reader, 8, 40),
                     0); /* any sequence to begin with; nothing is parked */
    assert_string_equal(fetch(q, 10, 64), "a1 a3 a4");
    assert_int_equal(reader_fetch(q->reader, 7, 2), QUEUE_E_LEASE_LOST);
    assert_int_equal(reader_lease(q->reader, 7), QUEUE_E_LEASE_LOST);
    assert_true(stream_remove(a, 1, 10, OUTCOME_DELIVERED)); /* the old one's acks count */
    assert_int_equal(a->meta.first, 3);
}

static void test_park(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *a = stream_with(queues, "a", 0, 3);
    struct queue *q = a->partition->queue;

    stream_with(queues, "b", 0, 1);
    commit(queues);
    reader_fetch(q->reader, 1, 1);
    assert_string_equal(fetch(q, 2, 64), "a1 a2");
    stream_remove(a, 1, 10, OUTCOME_DELIVERED);
    partition_park(a->partition, true);
    assert_int_equal(q->window_count, 0);
    reader_fetch(q->reader, 1, 2);
    assert_string_equal(fetch(q, 10, 64), "b1");
    partition_park(a->partition, false);
    reader_fetch(q->reader, 1, 3);
    assert_string_equal(fetch(q, 10, 64), "a2 a3");
}

static void test_remove(void **state)
{
    static const struct {
        const char *what;
        uint64_t position;
        bool want;
        uint64_t want_first;
    } steps[] = {
        { "not there at all", 9, false, 1 },
        { "in the middle", 3, true, 1 },
        { "again", 3, false, 1 },
        { "the first", 1, true, 2 },
        { "the second: the third goes with it", 2, true, 4 },
        { "below the first", 1, false, 4 },
        { "one that nobody fetched", 5, true, 4 },
        { "the first that is left", 4, true, 6 },
        { "not on disk yet", 7, false, 6 },
    };
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *s = stream_with(queues, "a", 0, 6);

    commit(queues);
    stream_append(s, 10, 0, EXPIRES_NEVER, 1);
    reader_fetch(s->partition->queue->reader, 1, 1);
    fetch(s->partition->queue, 4, 64);
    for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
        print_message("%s\n", steps[i].what);
        assert_int_equal(stream_remove(s, steps[i].position, 10, OUTCOME_DELIVERED), steps[i].want);
        assert_int_equal(s->meta.first, steps[i].want_first);
    }
    assert_int_equal(s->meta.count, 2);
    commit(queues);
    assert_int_equal(s->removed, 0);
    assert_int_equal(s->partition->queue->window_count, 0);
    assert_true(stream_remove(s, 6, 10, OUTCOME_DELIVERED));
    assert_true(stream_remove(s, 7, 10, OUTCOME_DELIVERED));
    assert_int_equal(s->meta.first, 8);
    assert_int_equal(queues_messages(queues), 0);
    assert_int_equal(queues_bytes(queues), 0);
}

static void test_clip_and_covers(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *s = stream_with(queues, "a", 0, 10);
    uint64_t first, last;

    commit(queues);
    reader_fetch(s->partition->queue->reader, 1, 1);
    fetch(s->partition->queue, 5, 64);
    stream_remove(s, 1, 10, OUTCOME_DELIVERED);
    first = 0;
    last = UINT64_MAX;
    assert_true(stream_clip(s, &first, &last));
    assert_int_equal(first, 2);
    assert_int_equal(last, 10);
    assert_true(stream_covers(s, 2, 5));  /* in flight */
    assert_false(stream_covers(s, 2, 6)); /* 6 was never fetched */
    stream_remove(s, 6, 10, OUTCOME_DELIVERED);
    assert_true(stream_covers(s, 6, 6));
    assert_false(stream_covers(s, 6, 7));
    first = 11;
    last = 20;
    assert_false(stream_clip(s, &first, &last));
    first = 1;
    last = 1;
    assert_false(stream_clip(s, &first, &last));
    first = 5;
    last = 4;
    assert_false(stream_clip(s, &first, &last));
}

static void test_expired_on_the_way(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *s = stream_with(queues, "a", 0, 4);
    struct queue *q = s->partition->queue;

    commit(queues);
    reader_fetch(q->reader, 1, 1);
    stream_read_begin(s);
    assert_int_equal(stream_offer(s, 1, 10, false), OFFER_TAKEN);
    assert_int_equal(stream_offer(s, 2, 10, true), OFFER_EXPIRED);
    assert_int_equal(stream_offer(s, 3, 10, false), OFFER_TAKEN);
    stream_read_end(s, false);
    assert_int_equal(queue_ledger(q).expired, 1);
    reader_fetch(q->reader, 1,
                 1); /* again: what has expired is not offered twice, though it is still on disk */
    stream_read_begin(s);
    assert_int_equal(stream_offer(s, 1, 10, false), OFFER_TAKEN);
    assert_int_equal(stream_offer(s, 2, 10, true), OFFER_SKIPPED);
    stream_read_end(s, false);
    assert_int_equal(queue_ledger(q).expired, 1);
    assert_int_equal(s->meta.count, 3);
}

/* Removed from the front of what nobody was given, while something is in flight before it. */
static void test_remove_next(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *s = stream_with(queues, "a", 0, 10);
    struct queue *q = s->partition->queue;

    commit(queues);
    reader_fetch(q->reader, 1, 1);
    assert_string_equal(fetch(q, 2, 64), "a1 a2");
    assert_true(stream_remove(s, 4, 10, OUTCOME_DELIVERED));
    assert_true(stream_remove_next(s, 3, 10, OUTCOME_DROPPED));
    assert_int_equal(s->cursor, 5); /* what is gone already is passed over */
    assert_false(stream_remove_next(s, 4, 10, OUTCOME_DROPPED));
    assert_true(stream_remove_next(s, 5, 10, OUTCOME_DROPPED));
    assert_true(stream_has(s, 1) && stream_has(s, 6));
    assert_false(stream_has(s, 3) || stream_has(s, 5) || stream_has(s, 11));
    assert_int_equal(s->meta.first, 1);
    commit(queues);
    assert_int_equal(q->window_count, 2); /* a1 and a2 */
    assert_int_equal(reader_lease(q->reader, 2), 0);
    reader_fetch(q->reader, 2, 1);
    assert_string_equal(fetch(q, 2, 64), "a1 a2");
    assert_int_equal(s->level->bytes, 70);
    assert_int_equal(queue_ledger(q).dropped, 2);
}

static void test_window_is_bounded(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *s = stream_with(queues, "a", 0, QUEUE_WINDOW_MAX + 2);
    struct queue *q = s->partition->queue;

    commit(queues);
    reader_fetch(q->reader, 1, 1);
    stream_read_begin(s);
    for (uint64_t i = 1; i <= QUEUE_WINDOW_MAX; i++)
        assert_int_equal(stream_offer(s, i, 10, false), OFFER_TAKEN);
    assert_int_equal(stream_offer(s, QUEUE_WINDOW_MAX + 1, 10, false), OFFER_FULL);
    stream_read_end(s, false);
    stream_remove(s, 1, 10, OUTCOME_DELIVERED);
    reader_fetch(q->reader, 1, 2);
    assert_ptr_equal(reader_next(q->reader), s);
    stream_read_begin(s);
    assert_int_equal(stream_offer(s, QUEUE_WINDOW_MAX + 1, 10, false), OFFER_TAKEN);
    stream_read_end(s, false);
}

static void test_forget_never_reuses_positions(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *s = stream_with(queues, "a", 0, 5);
    struct queue *q = s->partition->queue;
    uint32_t id = s->partition->id;

    commit(queues);
    queues_forget(queues, 1000);
    assert_non_null(queue_find_stream(q, "a", 0)); /* it has messages */
    for (uint64_t i = 1; i <= 5; i++)
        stream_remove(s, i, 10, OUTCOME_DELIVERED);
    queues_forget(queues, 1000); /* its last change is not on disk */
    assert_non_null(queue_find_stream(q, "a", 0));
    commit(queues);
    queues_forget(queues, 1); /* used since */
    assert_non_null(queue_find_stream(q, "a", 0));
    queues_forget(queues, 1000);
    assert_null(queue_find_stream(q, "a", 0));
    s = stream_with(queues, "a", 0, 1);
    assert_int_not_equal(s->partition->id, id);
    assert_int_equal(s->meta.first, 6);
    assert_int_equal(commit(queues), 1);
    assert_int_equal(queue_ledger(q).accepted, 6);
    assert_int_equal(queue_ledger(q).delivered, 5);
}

static void test_due(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *s = queue_get_stream(queues_get(queues, "q"), "a", 0);

    stream_append(s, 1, 0, 500, 1);
    assert_false(stream_is_due(s, 600)); /* not on disk yet */
    commit(queues);
    assert_false(stream_is_due(s, 499));
    assert_true(stream_is_due(s, 500));
    stream_swept(s, 800);
    assert_false(stream_is_due(s, 700));
    stream_append(s, 1, 0, 900, 1);
    assert_false(s->meta.unordered);
    stream_append(s, 1, 0, 650, 1);
    assert_true(s->meta.unordered);
    commit(queues);
    assert_true(stream_is_due(s, 700));
}

static void test_limits(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    char name[32];

    for (unsigned i = 0; i < QUEUES_MAX; i++) {
        snprintf(name, sizeof(name), "q%u", i);
        assert_non_null(queues_get(queues, name));
    }
    assert_null(queues_get(queues, "one more"));
    for (uint32_t i = 0; i < QUEUE_LEVELS_MAX; i++)
        assert_non_null(queue_get_stream(queues_at(queues, 0), "p", i));
    assert_null(queue_get_stream(queues_at(queues, 0), "p", QUEUE_LEVELS_MAX));
    assert_non_null(queue_get_stream(queues_at(queues, 0), "other", 3));
}

/* A random consumer against a model: what exists, what the lease holds, what the ledger says. */
struct model {
    struct queues *queues;
    struct stream *stream;
    struct disk disk;      /* committed */
    bool exists[ROWS_MAX]; /* decided */
    bool held[ROWS_MAX];   /* by the consumer, not acked */
    uint64_t lease, sequence;
    unsigned seed;
};

static unsigned model_random(struct model *m, unsigned below)
{
    m->seed = m->seed * 1103515245 + 12345;
    return (m->seed >> 16) % below;
}

static void model_append(struct model *m)
{
    uint64_t position = stream_append(m->stream, 10, 0, EXPIRES_NEVER, 1);

    m->exists[position] = true;
}

static void model_remove(struct model *m)
{
    uint64_t position = 1 + model_random(m, (unsigned)m->stream->meta.next);
    bool want = m->exists[position] && position < m->stream->durable;

    if (position < m->stream->durable && !m->disk.there[position])
        want = false; /* a row that is not on disk is never offered for removal */
    if (!want && (position >= m->stream->cursor && position < m->stream->durable &&
                  !m->disk.there[position]))
        return;
    assert_int_equal(stream_remove(m->stream, position, 10, OUTCOME_DELIVERED), want);
    if (!want)
        return;
    m->exists[position] = m->held[position] = false;
}

static void model_commit(struct model *m)
{
    commit(m->queues);
    memcpy(m->disk.there, m->exists, sizeof(m->exists));
}

static void model_fetch(struct model *m)
{
    struct queue *q = m->stream->partition->queue;
    unsigned left = model_random(m, 8), again = model_random(m, 5);
    uint64_t position;

    if (again == 0) {
        memset(m->held, 0, sizeof(m->held));
        m->lease++;
        m->sequence = 0;
    }
    assert_int_equal(reader_fetch(q->reader, m->lease, ++m->sequence), 0);
    if (reader_next(q->reader) == NULL)
        return;
    stream_read_begin(m->stream);
    for (position = m->stream->cursor; left > 0 && position < m->stream->durable; position++) {
        if (!m->disk.there[position])
            continue;
        left--;
        if (m->exists[position]) {
            assert_false(m->held[position]);
            assert_int_equal(stream_offer(m->stream, position, 10, false), OFFER_TAKEN);
            m->held[position] = true;
        } else {
            assert_int_equal(stream_offer(m->stream, position, 10, false), OFFER_SKIPPED);
        }
    }
    stream_read_end(m->stream, position >= m->stream->durable);
}

static void model_check(const struct model *m)
{
    uint64_t count = 0;

    for (uint64_t i = 1; i < m->stream->meta.next; i++) {
        count += m->exists[i];
        if (m->exists[i])
            assert_true(i >= m->stream->meta.first);
        if (m->exists[i] && i < m->stream->cursor)
            assert_true(m->held[i]); /* nothing is passed over */
    }
    assert_int_equal(m->stream->meta.count, count);
    assert_int_equal(queue_ledger(m->stream->partition->queue).accepted,
                     queue_ledger(m->stream->partition->queue).delivered + count);
}

static void test_random_consumer(void **state)
{
    for (unsigned seed = 1; seed <= 50; seed++) {
        _cleanup_(queues_freep) struct queues *queues = queues_new();
        struct model m = { .queues = queues, .lease = 1, .seed = seed };

        m.stream = queue_get_stream(queues_get(queues, "q"), "a", 0);
        for (unsigned step = 0; step < 1500 && m.stream->meta.next < ROWS_MAX - 1; step++) {
            static void (*const actions[])(struct model *) = { model_append, model_append,
                                                               model_remove, model_remove,
                                                               model_commit, model_fetch };

            actions[model_random(&m, ELEMENTSOF(actions))](&m);
            model_check(&m);
        }
    }
}

static void test_restore(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    _cleanup_(buf_done) struct buf out = {};
    struct partition_value partition;
    struct queue_value queue;
    struct stream *s;

    value_queue_begin(3, 10, 1, &out);
    value_queue_level(&(struct level_meta){ 5, { 100, 90, 4, 0, 1 } }, &out);
    assert_int_equal(value_queue_parse(value_queue_end(SPAN("q"), &out), &queue), 0);
    assert_non_null(queues_restore_queue(queues, 4, &queue));
    assert_null(queues_restore_queue(queues, 4, &queue));

    value_partition_begin(1, &out);
    value_partition_stream(&(struct stream_meta){ 5, false, 96, 101, 5, 50, EXPIRES_NEVER }, &out);
    assert_int_equal(value_partition_parse(value_partition_end(SPAN("a"), &out), &partition), 0);
    assert_true(queues_restore_partition(queues, 4, 7, &partition));
    assert_false(queues_restore_partition(queues, 5, 7, &partition)); /* no such queue */

    s = queue_find_stream(queues_find(queues, "q"), "a", 5);
    assert_non_null(s);
    assert_ptr_equal(reader_next(queues_find(queues, "q")->reader), s);
    assert_int_equal(queues_messages(queues), 5);
    assert_int_equal(queue_ledger(queues_find(queues, "q")).delivered, 90);
    assert_int_equal(stream_append(s, 10, 0, EXPIRES_NEVER, 1), 101);
    assert_int_equal(queue_get_stream(queues_find(queues, "q"), "b", 5)->partition->id, 8);
    assert_int_equal(queues_get(queues, "new")->id, 5);

    value_partition_begin(1, &out);
    value_partition_stream(&(struct stream_meta){ 5, false, 96, 101, 6, 50, 0 },
                           &out); /* more than there is room for */
    assert_int_equal(value_partition_parse(value_partition_end(SPAN("c"), &out), &partition), 0);
    assert_false(queues_restore_partition(queues, 4, 9, &partition));
}

static void test_recount(void **state)
{
    _cleanup_(queues_freep) struct queues *queues = queues_new();
    struct stream *a = stream_with(queues, "a", 0, 5), *b = stream_with(queues, "b", 0, 3);
    struct queue *q = a->partition->queue;

    commit(queues);
    stream_remove(a, 1, 10, OUTCOME_DELIVERED);
    commit(queues);
    queues_recount_begin(queues);
    stream_recount(a, 3, 10, EXPIRES_NEVER);
    stream_recount(a, 9, 10, EXPIRES_NEVER);
    assert_int_equal(queues_recount_end(queues), 5); /* 8 accepted, 1 delivered, 2 found */
    assert_int_equal(queue_ledger(q).dropped, 5);
    assert_int_equal(q->count, 2);
    assert_int_equal(b->meta.count, 0);
    assert_int_equal(a->meta.first, 3);
    assert_int_equal(a->meta.next, 10);
    assert_true(queues_dirty(queues));
    assert_ptr_equal(reader_next(q->reader), a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_committed_is_given),
        cmocka_unit_test(test_order_of_priorities_and_partitions),
        cmocka_unit_test(test_fetch_again),
        cmocka_unit_test(test_lease_takes_over),
        cmocka_unit_test(test_park),
        cmocka_unit_test(test_remove),
        cmocka_unit_test(test_clip_and_covers),
        cmocka_unit_test(test_expired_on_the_way),
        cmocka_unit_test(test_remove_next),
        cmocka_unit_test(test_window_is_bounded),
        cmocka_unit_test(test_forget_never_reuses_positions),
        cmocka_unit_test(test_due),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_random_consumer),
        cmocka_unit_test(test_restore),
        cmocka_unit_test(test_recount),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
