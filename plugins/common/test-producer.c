/* A producer against a router that keeps the store's rule (only the expected sequence is applied,
 * older ones are DONE) and that dies, refuses and forgets when the test says so. Both ends on real
 * sockets in one loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"
#include "producer.h"

enum { LOOP_TURNS_MAX = 10000, BATCHES_MAX = 64 };

struct fixture {
    char dir[32];
    sd_event *event;
    struct bus *router, *client;
    struct producer *producer;
    struct batch {
        Bus__PublishItem item, *items[1];
        char device_id[16];
        unsigned number;
    } batches[BATCHES_MAX];
    unsigned added, committed, rooms;

    /* the store's side */
    char producer_name[128];
    uint64_t expected;
    unsigned applied[BATCHES_MAX], applied_count;
    unsigned names; /* different producer names seen */
    unsigned handled;
    unsigned silent;     /* so many requests are applied, but never answered */
    unsigned busy;       /* so many are answered BUSY */
    unsigned refuse_one; /* the request of this number in order of arrival is answered FULL */
};

static uint64_t on_who(int64_t pid, uint32_t uid, void *userdata)
{
    return PEER_MQTT;
}

static int answer_appended(struct bus_call *call, Bus__Status status, uint64_t expected)
{
    Bus__Appended appended = BUS__APPENDED__INIT;
    Bus__Envelope answer = ENVELOPE(APPENDED, appended, &appended);

    appended.expected_sequence = expected;
    answer.status = status;
    return bus_answer_with(call, &answer);
}

static int on_publish(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    const Bus__Publish *publish = in->publish;
    struct fixture *f = userdata;

    f->handled++;
    if (f->busy > 0) {
        f->busy--;
        return bus_answer(call, STATUS_BUSY);
    }
    if (f->refuse_one == f->handled)
        return bus_answer_error(call, STATUS_FULL, "no room");
    if (strcmp(f->producer_name, publish->producer) != 0) {
        snprintf(f->producer_name, sizeof(f->producer_name), "%s", publish->producer);
        f->expected = 1;
        f->names++;
    }
    if (publish->sequence > f->expected)
        return answer_appended(call, STATUS_OUT_OF_ORDER, f->expected);
    if (publish->sequence == f->expected) {
        unsigned number;

        assert_int_equal(publish->n_items, 1);
        assert_int_equal(sscanf(publish->items[0]->device_id, "d%u", &number), 1);
        f->applied[f->applied_count++] = number;
        f->expected++;
    }
    if (f->silent > 0) {
        f->silent--;
        bus_call_drop(bus_call_keep(call));
        return 0;
    }
    return answer_appended(call, STATUS_DONE, f->expected);
}

static const struct bus_handler handlers[] = {
    { BUS__ENVELOPE__BODY_PUBLISH, PEER_ANY, on_publish },
    {},
};

static void on_committed(void *userdata_batch, void *userdata)
{
    const struct batch *batch = userdata_batch;
    struct fixture *f = userdata;

    f->committed++;
    assert_int_equal(batch->number, f->committed); /* in the order of adding */
}

static void on_room(void *userdata)
{
    struct fixture *f = userdata;

    f->rooms++;
}

static void start_router(struct fixture *f)
{
    assert_int_equal(bus_new(f->event, f->dir, "router", 1, on_who, f, &f->router), 0);
    assert_int_equal(bus_listen(f->router, handlers, f), 0);
}

static int setup(void **state)
{
    struct fixture *f = xnew(struct fixture);

    log_set_level(LOG_ERR);
    strcpy(f->dir, "/tmp/brink-prod-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(sd_event_new(&f->event), 0);
    assert_int_equal(bus_new(f->event, f->dir, "mqtt-listener", 7, on_who, f, &f->client), 0);
    assert_int_equal(producer_new(bus_peer(f->client, "router"), "mqtt", 7, on_committed, f,
                                  f->event, &f->producer),
                     0);
    producer_on_room(f->producer, on_room, f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char path[64];

    producer_free(f->producer);
    bus_free(f->client);
    bus_free(f->router);
    sd_event_unref(f->event);
    snprintf(path, sizeof(path), "%s/router.ipc", f->dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/router.pub.ipc", f->dir);
    unlink(path);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static void turn(struct fixture *f, unsigned n)
{
    assert_true(n < LOOP_TURNS_MAX);
    assert_true(sd_event_run(f->event, 10000000) > 0);
}

#define loop_until(f, done)                                                                        \
    do {                                                                                           \
        for (unsigned _n = 0; !(done); _n++)                                                       \
            turn(f, _n);                                                                           \
    } while (0)

static void add(struct fixture *f)
{
    struct batch *batch = &f->batches[f->added];

    batch->number = ++f->added;
    snprintf(batch->device_id, sizeof(batch->device_id), "d%u", batch->number);
    bus__publish_item__init(&batch->item);
    batch->item.device_id = batch->device_id;
    batch->items[0] = &batch->item;
    producer_add_batch(f->producer, batch->items, 1, false, batch);
}

static void add_all(struct fixture *f, unsigned count)
{
    while (count > 0) {
        while (count > 0 && producer_room(f->producer) > 0) {
            add(f);
            count--;
        }
        if (count > 0)
            loop_until(f, producer_room(f->producer) > 0);
    }
}

static void assert_each_once(const struct fixture *f)
{
    assert_int_equal(f->committed, f->added);
    assert_int_equal(f->applied_count, f->added);
    for (unsigned i = 0; i < f->applied_count; i++)
        assert_int_equal(f->applied[i], i + 1);
}

static void test_commits_in_order(void **state)
{
    struct fixture *f = *state;

    start_router(f);
    add_all(f, 20);
    loop_until(f, f->committed == 20);
    assert_each_once(f);
    assert_int_equal(producer_outstanding(f->producer), 0);
    assert_true(f->rooms > 0);
}

static void test_waits_for_absent_router(void **state)
{
    struct fixture *f = *state;

    add_all(f, PRODUCER_WINDOW);
    assert_int_equal(producer_room(f->producer), 0);
    start_router(f);
    loop_until(f, f->committed == PRODUCER_WINDOW);
    assert_each_once(f);
    assert_int_equal(f->rooms, 1);
}

/* Applied, but the answer never left: what comes again is answered and not applied twice. */
static void test_router_dies_after_applying(void **state)
{
    struct fixture *f = *state;

    f->silent = 3;
    start_router(f);
    add_all(f, PRODUCER_WINDOW);
    loop_until(f, f->silent == 0);
    f->router = bus_free(f->router);
    start_router(f);
    loop_until(f, f->committed == PRODUCER_WINDOW);
    assert_each_once(f);
}

static void test_busy_goes_back(void **state)
{
    struct fixture *f = *state;

    f->busy = 7;
    start_router(f);
    add_all(f, 10);
    loop_until(f, f->committed == 10);
    assert_each_once(f);
}

/* One in the middle is refused, those behind it find the gap. */
static void test_gap_is_mended(void **state)
{
    struct fixture *f = *state;

    f->refuse_one = 2;
    start_router(f);
    add_all(f, 10);
    loop_until(f, f->committed == 10);
    assert_each_once(f);
}

static void test_store_forgot_producer(void **state)
{
    struct fixture *f = *state;

    start_router(f);
    add_all(f, 5);
    loop_until(f, f->committed == 5);
    f->expected = 1; /* as a store answers that has no record of the name */
    add_all(f, 6);
    loop_until(f, f->committed == 11);
    assert_each_once(f);
    assert_int_equal(f->names, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commits_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits_for_absent_router, setup, teardown),
        cmocka_unit_test_setup_teardown(test_router_dies_after_applying, setup, teardown),
        cmocka_unit_test_setup_teardown(test_busy_goes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gap_is_mended, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_forgot_producer, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
