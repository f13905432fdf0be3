#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "flight.h"

#define DELIVERED BUS__OUTCOME__OUTCOME_DELIVERED
#define REJECTED  BUS__OUTCOME__OUTCOME_REJECTED
#define DROPPED   BUS__OUTCOME__OUTCOME_DROPPED

static struct flight *flight;

static int setup(void **state)
{
    flight = flight_new(FLIGHT_OF_PARTITIONS);
    return 0;
}

static int teardown(void **state)
{
    flight = flight_free(flight);
    return 0;
}

static bool add(const char *partition, uint32_t priority, uint64_t position)
{
    return flight_add(flight_partition(flight, partition), priority, position, SPAN("body"));
}

/* Sends all there is; returns the positions in order. */
static const char *send_all(const char *partition)
{
    static char text[256];
    struct flight_message *m;
    size_t len = 0;

    text[0] = '\0';
    while ((m = flight_next(flight_partition(flight, partition)))) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%d", len ? " " : "",
                                (int)m->position);
        flight_sent(m);
    }
    return text;
}

static struct flight_message *find(const char *partition, uint64_t position)
{
    struct flight_message *m;

    TAILQ_FOREACH(m, &flight_partition(flight, partition)->messages, link)
    if (m->position == position)
        return m;
    return NULL;
}

static void settle(const char *partition, uint64_t position, Bus__Outcome outcome)
{
    flight_settled(find(partition, position), outcome);
}

static const char *acks_text(const Bus__Ack *ack)
{
    static char text[512];
    size_t len = 0;

    text[0] = '\0';
    for (size_t n = 0; n < ack->n_ranges; n++) {
        const Bus__AckRange *r = ack->ranges[n];

        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s:%u:%d-%d:%d", len ? " " : "",
                                r->partition, r->priority, (int)r->first, (int)r->last,
                                (int)r->outcome);
    }
    return text;
}

static const char *take_acks(void)
{
    Bus__Ack ack = BUS__ACK__INIT;

    return flight_acks_take(flight, &ack) ? acks_text(&ack) : "none";
}

static void test_in_order_ranges(void **state)
{
    for (uint64_t n = 1; n <= 5; n++)
        assert_true(add("d", 0, n));
    assert_string_equal(send_all("d"), "1 2 3 4 5");
    assert_int_equal(flight_totals(flight)->in_flight, 5);
    for (uint64_t n = 1; n <= 4; n++)
        settle("d", n, DELIVERED);
    assert_string_equal(take_acks(), "d:0:1-4:1");
    settle("d", 5, DELIVERED);
    assert_string_equal(take_acks(), "none"); /* one at a time */
    flight_acks_confirmed(flight);
    assert_string_equal(take_acks(), "d:0:5-5:1");
    flight_acks_confirmed(flight);
    assert_false(flight_acks_pending(flight));
    assert_int_equal(flight_totals(flight)->messages, 0);
    assert_int_equal(flight_totals(flight)->bytes, 0);
    assert_int_equal(flight_totals(flight)->in_flight, 0);
}

static void test_out_of_order_ranges(void **state)
{
    for (uint64_t n = 1; n <= 6; n++)
        assert_true(add("d", 0, n));
    send_all("d");
    settle("d", 2, DELIVERED);
    settle("d", 1, DELIVERED);
    settle("d", 4, REJECTED);
    settle("d", 3, DELIVERED);
    settle("d", 6, DELIVERED);
    assert_string_equal(take_acks(), "d:0:1-3:1 d:0:4-4:2 d:0:6-6:1");
}

/* A range that the store is being told does not grow: it would be forgotten with it. */
static void test_taken_range_does_not_grow(void **state)
{
    Bus__Ack again = BUS__ACK__INIT;

    assert_true(add("d", 0, 1));
    assert_true(add("d", 0, 2));
    send_all("d");
    settle("d", 1, DELIVERED);
    assert_string_equal(take_acks(), "d:0:1-1:1");
    settle("d", 2, DELIVERED);
    flight_acks_again(flight, &again);
    assert_string_equal(acks_text(&again), "d:0:1-1:1");
    flight_acks_confirmed(flight);
    assert_string_equal(take_acks(), "d:0:2-2:1");
}

static void test_partitions_and_priorities_apart(void **state)
{
    assert_true(add("d", 0, 7));
    assert_true(add("d", 5, 7));
    assert_true(add("e", 0, 7));
    assert_string_equal(send_all("d"), "7 7");
    settle("d", 7, DELIVERED);
    assert_string_equal(take_acks(), "d:0:7-7:1");
    assert_int_equal(flight_partition(flight, "d")->count, 1);
    assert_int_equal(flight_partition(flight, "e")->count, 1);
    assert_ptr_equal(flight_partition(flight, "e"), flight_partition(flight, "e"));
}

/* The store came back and gives again what it knows nothing of. */
static void test_of_queues(void **state)
{
    _cleanup_(flight_freep) struct flight *f = flight_new(FLIGHT_OF_QUEUES);
    struct flight_message *m =
        flight_add(flight_partition(f, "modules/m/inputs/i"), 3, 7, SPAN("body"));
    Bus__Ack ack = BUS__ACK__INIT;

    assert_int_equal(m->position, 7);
    assert_null(flight_add(flight_partition(f, "modules/m/inputs/i"), 3, 7, SPAN("body")));
    flight_settled(m, DELIVERED);
    assert_true(flight_acks_take(f, &ack));
    assert_int_equal(ack.n_ranges, 1);
    assert_string_equal(ack.ranges[0]->queue, "modules/m/inputs/i");
    assert_string_equal(ack.ranges[0]->partition, "");
}

static void test_duplicates(void **state)
{
    for (uint64_t n = 1; n <= 5; n++)
        assert_true(add("d", 0, n));
    send_all("d");
    settle("d", 1, DELIVERED);
    take_acks();
    settle("d", 2, DELIVERED);
    for (uint64_t n = 1; n <= 5; n++)
        assert_false(add("d", 0, n));
    assert_true(add("d", 0, 6));
    flight_acks_confirmed(flight);
    assert_false(add("d", 0, 2)); /* settled, and the store does not know it */
    take_acks();
    flight_acks_confirmed(flight);
    assert_int_equal(flight_partition(flight, "d")->count, 4);
    assert_string_equal(send_all("d"), "6");
}

/* A store that lost everything begins again at 1: that is no duplicate. */
static void test_positions_begin_again(void **state)
{
    assert_true(add("d", 0, 500));
    send_all("d");
    settle("d", 500, DELIVERED);
    take_acks();
    flight_acks_confirmed(flight);
    assert_true(add("d", 0, 1));
}

static void test_rewind_keeps_order(void **state)
{
    for (uint64_t n = 1; n <= 6; n++)
        assert_true(add("d", 0, n));
    for (unsigned n = 0; n < 4; n++)
        flight_sent(flight_next(flight_partition(flight, "d")));
    settle("d", 2, DELIVERED);
    flight_returned(find("d", 3));
    assert_int_equal(flight_partition(flight, "d")->in_flight, 2);
    flight_rewind(flight_partition(flight, "d"));
    assert_int_equal(flight_totals(flight)->in_flight, 0);
    assert_string_equal(send_all("d"), "1 3 4 5 6");
}

/* What was given back is fetched again; what is settled is not, even if the store gives it. */
static void test_give_back(void **state)
{
    for (uint64_t n = 1; n <= 4; n++)
        assert_true(add("d", 0, n));
    send_all("d");
    settle("d", 2, DELIVERED);
    flight_give_back(flight_partition(flight, "d"));
    assert_int_equal(flight_totals(flight)->messages, 0);
    assert_true(add("d", 0, 1));
    assert_false(add("d", 0, 2));
    assert_true(add("d", 0, 3));
    assert_string_equal(send_all("d"), "1 3");
    assert_string_equal(take_acks(), "d:0:2-2:1");
}

static void test_refuse_and_settle_all(void **state)
{
    struct flight_partition *p = flight_partition(flight, "d");

    flight_refuse(p, 0, 1, REJECTED);
    flight_refuse(p, 0, 1, REJECTED);
    assert_true(add("d", 0, 2));
    assert_true(add("d", 0, 3));
    assert_int_equal(flight_settle_all(p, DROPPED), 2);
    assert_string_equal(take_acks(), "d:0:1-1:2 d:0:2-3:4");
    assert_null(flight_next(p));
}

/* Settled before it was sent: the next one is behind it. */
static void test_settle_unsent(void **state)
{
    assert_true(add("d", 0, 1));
    assert_true(add("d", 0, 2));
    settle("d", 1, REJECTED);
    assert_string_equal(send_all("d"), "2");
    assert_int_equal(flight_totals(flight)->in_flight, 1);
}

#define flight_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        flight_test(test_in_order_ranges),
        flight_test(test_out_of_order_ranges),
        flight_test(test_taken_range_does_not_grow),
        flight_test(test_partitions_and_priorities_apart),
        flight_test(test_of_queues),
        flight_test(test_duplicates),
        flight_test(test_positions_begin_again),
        flight_test(test_rewind_keeps_order),
        flight_test(test_give_back),
        flight_test(test_refuse_and_settle_all),
        flight_test(test_settle_unsent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
