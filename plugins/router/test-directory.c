#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "directory.h"

struct seen {
    unsigned count;
    char listener[32];
    uint64_t connection;
};

static void on_evict(const char *listener, const Bus__ClientConnected *old, void *userdata)
{
    struct seen *seen = userdata;

    seen->count++;
    seen->connection = old->connection;
    snprintf(seen->listener, sizeof(seen->listener), "%s", listener);
}

static Bus__ClientConnected client(const char *device_id, const char *module_id,
                                   uint64_t connection, int64_t since_sec)
{
    Bus__ClientConnected c = BUS__CLIENT_CONNECTED__INIT;

    c.device_id = (char *)device_id;
    c.module_id = (char *)module_id;
    c.connection = connection;
    c.since_sec = since_sec;
    return c;
}

static void test_newest_wins(void **state)
{
    struct seen seen = {};
    _cleanup_(directory_freep) struct directory *d = directory_new(on_evict, &seen);
    Bus__ClientConnected first = client("d", "", 1, 10), module = client("d", "m", 2, 10),
                         second = client("d", "", 3, 11);

    directory_connect(d, "mqtt-listener", &first);
    directory_connect(d, "mqtt-listener", &module);
    assert_int_equal(seen.count, 0); /* a device and its module are two identities */
    directory_connect(d, "amqp-listener", &second);
    assert_int_equal(seen.count, 1);
    assert_string_equal(seen.listener, "mqtt-listener");
    assert_int_equal(seen.connection, 1);
    assert_int_equal(directory_count(d), 2);

    directory_connect(d, "amqp-listener", &second); /* said twice: the same connection */
    assert_int_equal(seen.count, 1);
}

static void test_old_connection_does_not_remove_the_new(void **state)
{
    struct seen seen = {};
    _cleanup_(directory_freep) struct directory *d = directory_new(on_evict, &seen);
    Bus__ClientConnected first = client("d", "", 1, 10), second = client("d", "", 2, 11);

    directory_connect(d, "mqtt-listener", &first);
    directory_connect(d, "mqtt-listener", &second);
    assert_false(directory_disconnect(d, "mqtt-listener", "d", "", 1));
    assert_int_equal(directory_count(d), 1);
    assert_false(directory_disconnect(d, "amqp-listener", "d", "", 2));
    assert_true(directory_disconnect(d, "mqtt-listener", "d", "", 2));
    assert_int_equal(directory_count(d), 0);
}

static void test_sync_replaces_one_listener(void **state)
{
    struct seen seen = {};
    _cleanup_(directory_freep) struct directory *d = directory_new(on_evict, &seen);
    Bus__ClientConnected a = client("a", "", 1, 10), b = client("b", "", 2, 10),
                         c = client("c", "", 7, 20);
    Bus__ClientConnected newer_a = client("a", "", 1, 30), older_c = client("c", "", 2, 15);
    Bus__ClientConnected *list[] = { &newer_a, &older_c };

    directory_connect(d, "mqtt-listener", &a);
    directory_connect(d, "mqtt-listener", &b);
    directory_connect(d, "amqp-listener", &c);
    directory_sync(d, "mqtt-listener", list, 2);
    assert_int_equal(directory_count(d), 2); /* b is gone; c stays with amqp, which has it later */
    assert_int_equal(seen.count, 1);
    assert_string_equal(seen.listener, "mqtt-listener");
    assert_int_equal(seen.connection, 2);
    directory_sync(d, "mqtt-listener", NULL, 0);
    assert_int_equal(directory_count(d), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_newest_wins),
        cmocka_unit_test(test_old_connection_does_not_remove_the_new),
        cmocka_unit_test(test_sync_replaces_one_listener),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
