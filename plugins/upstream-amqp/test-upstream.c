/* The whole upstream in this process, on its real bus, against a played hub, store and identity. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "test-hub.h"
#include "test-roles.h"
#include "upstream.h"

enum { LOOP_USEC = 20 * 1000000 };
#define DELIVERED BUS__OUTCOME__OUTCOME_DELIVERED
#define REJECTED  BUS__OUTCOME__OUTCOME_REJECTED
#define DROPPED   BUS__OUTCOME__OUTCOME_DROPPED

static struct test_authority authority;
static char dir[32], ca_file[64];
static struct plugin *plugin;
static struct upstream *upstream;
static struct upstream_config config;
static struct hub hub;
static struct roles roles;
static struct store *const store = &roles.store;

#define RUN_UNTIL(condition)                                                                       \
    while (!(condition))                                                                           \
    assert_true(sd_event_run(plugin_event(plugin), LOOP_USEC) > 0)

/* ---- Life of a test ---- */

static void start_upstream(void)
{
    assert_int_equal(upstream_new(plugin, &config, &upstream), 0);
    assert_int_equal(plugin_listen(plugin, upstream_handlers, upstream), 0);
    assert_int_equal(upstream_bus_start(upstream), 0);
}

static void write_ca_file(void)
{
    FILE *f = fopen(ca_file, "w");

    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, authority.certificate), 1);
    fclose(f);
}

static int set_up(void **state)
{
    char *argv[] = { (char *)"brink-upstream-amqp", NULL };

    strcpy(dir, "/tmp/brink-upstream-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(roles.bus_dir, sizeof(roles.bus_dir), "%s/bus", dir);
    snprintf(ca_file, sizeof(ca_file), "%s/ca.pem", dir);
    assert_int_equal(mkdir(roles.bus_dir, 0700), 0);
    test_authority_init(&authority);
    write_ca_file();
    setenv("BRINK_NAME", "upstream-amqp", 1);
    setenv("BRINK_RUN_DIR", dir, 1);
    setenv("BRINK_STATE_DIR", dir, 1);
    setenv("BRINK_LOG_LEVEL", getenv("TEST_LOG_LEVEL") ? getenv("TEST_LOG_LEVEL") : "error", 1);
    assert_int_equal(plugin_new("upstream", 1, argv, &plugin), 0);
    hub_start(&hub, plugin_event(plugin), &authority);
    roles.event = sd_event_ref(plugin_event(plugin));
    roles.token_life_sec = 3600;
    store_start(&roles);
    identity_start(&roles);
    config = (struct upstream_config){ .ca_file = ca_file,
                                       .port = hub.port,
                                       .window_messages = 100,
                                       .window_bytes = 1 << 20,
                                       .idle_usec = UINT64_C(3600) * 1000000,
                                       .reconnect_min_usec = 1000,
                                       .reconnect_max_usec = 10000 };
    return 0;
}

static void remove_file(const char *name)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", dir, name);

    (void)remove(path);
}

static int tear_down(void **state)
{
    static const char *const files[] = {
        "bus/identity.ipc", "bus/identity.pub.ipc", "bus/store.ipc", "bus/store.pub.ipc",
        "bus/upstream.ipc", "bus/upstream.pub.ipc", "bus",           "ca.pem"
    };

    /* Who dials goes before who listens. */
    upstream = upstream_free(upstream);
    plugin = plugin_free(plugin);
    store_stop(&roles);
    bus_free(roles.identity);
    hub_stop(&hub);
    roles.event = sd_event_unref(roles.event);
    roles = (struct roles){};
    test_authority_done(&authority);
    for (size_t n = 0; n < ELEMENTSOF(files); n++)
        remove_file(files[n]);
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

/* ---- What the tests say ---- */

/* Adds "FIRST" to "LAST" to a partition. */
static void add_numbers(const char *partition, unsigned first, unsigned last)
{
    char body[16];

    for (unsigned n = first; n <= last; n++) {
        snprintf(body, sizeof(body), "%u", n);
        store_add(store, partition, body);
    }
    store_serve(store);
}

static const char *numbers(unsigned first, unsigned last)
{
    static char text[HUB_TEXT];
    size_t len = 0;

    text[0] = '\0';
    for (unsigned n = first; n <= last; n++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%u", len ? " " : "", n);
    return text;
}

static const char *bodies(const char *identity)
{
    return hub_identity(&hub, identity)->bodies;
}

/* ---- What it promises ---- */

static void test_begins_with_the_edge_itself(void **state)
{
    add_numbers("d1", 1, 3);
    store_add(store, "edge/m1", "a");
    start_upstream();
    RUN_UNTIL(store_count(store, DELIVERED) == 4);
    assert_string_equal(bodies("d1"), "1 2 3");
    assert_string_equal(bodies("edge/m1"), "a");
    assert_ptr_equal(strstr(hub.order, "t:edge/$edgeHub l:edge/$edgeHub "), hub.order);
    assert_string_equal(hub_identity(&hub, "edge/$edgeHub")->auth_chain, "");
    assert_string_equal(hub_identity(&hub, "d1")->auth_chain, "d1;edge");
    assert_string_equal(hub_identity(&hub, "edge/m1")->auth_chain, "edge/m1;edge");
    assert_string_equal(hub.last_token, "token 1"); /* the edge's, for everybody */
    assert_string_equal(hub.hostname, "127.0.0.1");
    assert_true(upstream->online);
}

static void test_status(void **state)
{
    Bus__UpstreamStatus status = BUS__UPSTREAM_STATUS__INIT;

    hub.refuse_connections = true;
    start_upstream();
    RUN_UNTIL(hub.connections >= 3);
    upstream_fill_status(upstream, &status);
    assert_false(status.connected);
    assert_string_not_equal(status.last_error, "");
    hub.refuse_connections = false;
    RUN_UNTIL(upstream->online);
    upstream_fill_status(upstream, &status);
    assert_true(status.connected);
    assert_string_equal(status.last_error, "");
    assert_true(status.since_sec > 0);
    assert_int_equal(status.identities, 1);
}

/* A server that the authorities do not vouch for is not spoken to. */
static void test_untrusted_hub(void **state)
{
    struct test_authority other;

    test_authority_init(&other);
    test_authority_done(&authority);
    authority = other;
    write_ca_file();
    start_upstream();
    RUN_UNTIL(hub.connections >= 2);
    RUN_UNTIL(upstream->last_error[0]);
    assert_false(upstream->online);
    assert_non_null(strstr(upstream->last_error, "certificate"));
    assert_int_equal(hub_identity(&hub, "edge/$edgeHub")->tokens, 0);
}

static void test_many_identities_in_order(void **state)
{
    char name[16];

    for (unsigned n = 1; n <= 10; n++)
        for (unsigned d = 0; d < 40; d++) {
            snprintf(name, sizeof(name), "d%u", d);
            add_numbers(name, n, n);
        }
    start_upstream();
    RUN_UNTIL(store_count(store, DELIVERED) == 400);
    for (unsigned d = 0; d < 40; d++) {
        snprintf(name, sizeof(name), "d%u", d);
        assert_string_equal(bodies(name), numbers(1, 10));
        assert_int_equal(hub_identity(&hub, name)->attached, 1);
    }
}

/* Settled ones are not sent again, unsettled ones are, before newer ones. */
static void test_cut_amid_a_flight(void **state)
{
    hub.settle_max = 30;
    add_numbers("d1", 1, 60);
    start_upstream();
    RUN_UNTIL(hub_identity(&hub, "d1")->received == 60 && store_count(store, DELIVERED) == 30);
    hub_cut(&hub);
    RUN_UNTIL(!upstream->online);
    add_numbers("d1", 61, 80);
    hub.settle_max = 0;
    RUN_UNTIL(store_count(store, DELIVERED) == 80);
    assert_string_equal(bodies("d1"), numbers(1, 80));
    assert_int_equal(hub.connections, 2);
}

/* Cut again and again, at any point: nothing is lost, and the order of first arrivals holds. */
static void test_cut_again_and_again(void **state)
{
    unsigned next = 0;
    char *at;

    add_numbers("d1", 1, 300);
    start_upstream();
    for (unsigned n = 1; n <= 10; n++) {
        RUN_UNTIL(hub.settled >= n * 25);
        hub_cut(&hub);
    }
    RUN_UNTIL(store_count(store, DELIVERED) == 300);
    for (char *token = strtok_r(hub_identity(&hub, "d1")->bodies, " ", &at); token;
         token = strtok_r(NULL, " ", &at)) {
        unsigned number = (unsigned)atoi(token);

        assert_true(number <= next + 1);
        if (number == next + 1)
            next++;
    }
    assert_int_equal(next, 300);
}

static void test_refused_identity_holds_up_nobody(void **state)
{
    hub_identity(&hub, "bad")->refuse_link = "amqp:unauthorized-access";
    add_numbers("bad", 1, 90);
    add_numbers("good", 1, 50);
    start_upstream();
    RUN_UNTIL(strcmp(bodies("good"), numbers(1, 50)) == 0 && roles.refreshes > 0 &&
              store_is_parked(store, "bad"));
    assert_string_equal(roles.refreshed, "bad");
    assert_string_equal(bodies("bad"), "");
    assert_int_equal(flight_partition(upstream->flight, "bad")->count, 0);
    assert_int_equal(upstream->paused_count, 1);

    hub_identity(&hub, "bad")->refuse_link = NULL;
    RUN_UNTIL(bus_counters(roles.identity)->requests_received > 0);
    identity_announce_scope(&roles);
    RUN_UNTIL(store_count(store, DELIVERED) == 140);
    assert_string_equal(bodies("bad"), numbers(1, 90));
    assert_int_equal(upstream->paused_count, 0);
}

static void test_refused_token(void **state)
{
    hub_identity(&hub, "bad")->refuse_token = 401;
    add_numbers("bad", 1, 3);
    add_numbers("good", 1, 3);
    start_upstream();
    RUN_UNTIL(strcmp(bodies("good"), "1 2 3") == 0 && store_is_parked(store, "bad"));
    assert_int_equal(hub_identity(&hub, "bad")->attached, 0);
    assert_true(upstream->online);
}

/* Without the edge's own token nothing goes: the whole connection is tried anew. */
static void test_refused_edge(void **state)
{
    hub_identity(&hub, "edge/$edgeHub")->refuse_token = 401;
    add_numbers("d1", 1, 3);
    start_upstream();
    RUN_UNTIL(hub.connections >= 3);
    assert_false(upstream->online);
    assert_non_null(strstr(upstream->last_error, "401"));
    hub_identity(&hub, "edge/$edgeHub")->refuse_token = 0;
    RUN_UNTIL(store_count(store, DELIVERED) == 3);
}

/* Neither the hub nor the scope knows it: its messages go nowhere, ever. */
static void test_unknown_identity_is_dropped(void **state)
{
    hub_identity(&hub, "gone")->refuse_link = "amqp:not-found";
    add_numbers("gone", 1, 3);
    start_upstream();
    RUN_UNTIL(roles.refreshes > 0);
    assert_int_equal(store_count(store, DROPPED), 0);
    roles.unknown = "gone";
    identity_announce_scope(&roles);
    RUN_UNTIL(store_count(store, DROPPED) == 3);
    add_numbers("gone", 4, 5);
    RUN_UNTIL(store_count(store, DROPPED) == 5);
}

static void test_not_in_scope_is_not_dropped(void **state)
{
    roles.unknown = "new";
    add_numbers("new", 1, 3);
    start_upstream();
    RUN_UNTIL(store_is_parked(store, "new") && roles.refreshes > 0);
    roles.unknown = NULL;
    identity_announce_scope(&roles);
    RUN_UNTIL(store_count(store, DELIVERED) == 3);
}

static void test_rejected_message_lets_others_pass(void **state)
{
    struct hub_identity *i = hub_identity(&hub, "d1");

    i->reject_body = "3";
    i->reject_with = "amqp:not-allowed";
    i->reject_count = 1;
    add_numbers("d1", 1, 5);
    start_upstream();
    RUN_UNTIL(store_count(store, DELIVERED) == 4 && store_count(store, REJECTED) == 1);
    assert_int_equal(store->messages[2].outcome, REJECTED);
    assert_string_equal(i->bodies, "1 2 4 5");
    assert_int_equal(i->attached, 1);
}

/* One that the hub gives back is sent again, after what was on its way with it. */
static void test_released_message_comes_again(void **state)
{
    static const char *const conditions[] = { NULL, "com.microsoft:device-container-throttled" };

    start_upstream();
    for (unsigned n = 0; n < ELEMENTSOF(conditions); n++) {
        char name[8];
        struct hub_identity *i;

        snprintf(name, sizeof(name), "d%u", n);
        i = hub_identity(&hub, name);
        i->reject_body = "2";
        i->reject_with = conditions[n];
        i->reject_count = 1;
        add_numbers(name, 1, 4);
        RUN_UNTIL(store_count(store, DELIVERED) == 4 * (n + 1));
        assert_int_equal(store_count(store, REJECTED), 0);
        assert_string_equal(i->bodies, "1 3 4 2");
        assert_int_equal(i->attached, 2);
    }
}

static void test_detached_link(void **state)
{
    struct hub_identity *i = hub_identity(&hub, "d1");

    hub.settle_max = 2;
    add_numbers("d1", 1, 5);
    start_upstream();
    RUN_UNTIL(store_count(store, DELIVERED) == 2 && i->received == 5);
    hub.settle_max = 0;
    pn_condition_set_name(pn_link_condition(i->link), "amqp:link:detach-forced");
    pn_link_close(i->link);
    amqp_driver_wake(hub.driver);
    RUN_UNTIL(store_count(store, DELIVERED) == 5);
    assert_string_equal(i->bodies, "1 2 3 4 5");
    assert_int_equal(hub.connections, 1);
}

static unsigned sessions_of_upstream(void)
{
    pn_connection_t *connection = amqp_driver_connection(connection_driver(upstream->connection));
    unsigned count = 0;

    for (pn_session_t *s = pn_session_head(connection, 0); s; s = pn_session_next(s, 0))
        count++;
    return count;
}

/* Sessions that the hub ends are let go of, and ended by us, too. */
static void test_ended_sessions(void **state)
{
    struct hub_identity *i = hub_identity(&hub, "d1");

    start_upstream();
    for (unsigned n = 1; n <= 5; n++) {
        add_numbers("d1", n, n);
        RUN_UNTIL(store_count(store, DELIVERED) == n);
        pn_session_close(pn_link_session(i->link));
        amqp_driver_wake(hub.driver);
        RUN_UNTIL(upstream->paused_count == 1);
        i->link = NULL;
        identity_link_resume(upstream_identity(upstream, "d1"));
        RUN_UNTIL(upstream->paused_count == 0);
    }
    assert_int_equal(hub.connections, 1);
    RUN_UNTIL(hub.ended_sessions == 5);
    assert_int_equal(sessions_of_upstream(), 2); /* of $cbs and of the edge itself */
}

/* The store comes back and gives again what we hold: it is sent once. */
static void test_store_restarts(void **state)
{
    hub.settle_max = 20;
    add_numbers("d1", 1, 50);
    start_upstream();
    RUN_UNTIL(hub_identity(&hub, "d1")->received == 50 && store_count(store, DELIVERED) == 20);
    store_restart(&roles);
    add_numbers("d1", 51, 60);
    RUN_UNTIL(hub_identity(&hub, "d1")->received == 60);
    assert_int_equal(flight_totals(upstream->flight)->messages, 40);
    hub.settle_max = 0;
    hub_cut(&hub);
    RUN_UNTIL(store_count(store, DELIVERED) == 60);
    assert_string_equal(bodies("d1"), numbers(1, 60));
}

/* A store that forgot what is parked is told again, and nothing of it is lost for that. */
static void test_store_restarts_with_a_parked_partition(void **state)
{
    hub_identity(&hub, "bad")->refuse_link = "amqp:unauthorized-access";
    add_numbers("bad", 1, 5);
    start_upstream();
    RUN_UNTIL(store_is_parked(store, "bad"));
    store->parks[0] = '\0';
    store_restart(&roles);
    RUN_UNTIL(strstr(store->parks, "+bad"));
    hub_identity(&hub, "bad")->refuse_link = NULL;
    identity_announce_scope(&roles);
    RUN_UNTIL(store_count(store, DELIVERED) == 5);
    assert_string_equal(bodies("bad"), "1 2 3 4 5");
}

static void test_refused_acks_come_again(void **state)
{
    store->refuse_acks = 1;
    add_numbers("d1", 1, 5);
    start_upstream();
    RUN_UNTIL(store_count(store, DELIVERED) == 5);
    assert_string_equal(bodies("d1"), "1 2 3 4 5");
}

static void test_damaged_message_is_refused(void **state)
{
    store_add(store, "d1", "damaged");
    store_add(store, "not/an/identity", "1");
    add_numbers("d1", 1, 2);
    start_upstream();
    RUN_UNTIL(store_count(store, DELIVERED) == 2 && store_count(store, REJECTED) == 2);
}

/* The window bounds what is held, whatever the hub does. */
static void test_window(void **state)
{
    hub.hold = true;
    hub.credit = 10;
    add_numbers("d1", 1, 500);
    start_upstream();
    RUN_UNTIL(hub_identity(&hub, "d1")->received == 10);
    assert_in_range(flight_totals(upstream->flight)->messages, 75, 100);
    assert_int_equal(flight_totals(upstream->flight)->in_flight, 10);
    hub.hold = false;
    hub.credit = 100;
    hub_cut(&hub);
    RUN_UNTIL(store_count(store, DELIVERED) == 500);
    assert_string_equal(bodies("d1"), numbers(1, 500));
}

static void test_token_is_renewed(void **state)
{
    roles.token_life_sec = 1;
    add_numbers("d1", 1, 1);
    start_upstream();
    RUN_UNTIL(store_count(store, DELIVERED) == 1);
    roles.token_life_sec = 3600;
    RUN_UNTIL(hub_identity(&hub, "d1")->tokens == 2 &&
              hub_identity(&hub, "edge/$edgeHub")->tokens == 2);
    assert_string_equal(hub.last_token, "token 2");
    assert_int_equal(hub_identity(&hub, "d1")->attached, 1);
    assert_int_equal(hub.connections, 1);
}

static void test_idle_identity_leaves(void **state)
{
    config.idle_usec = 1000;
    add_numbers("d1", 1, 2);
    start_upstream();
    RUN_UNTIL(store_count(store, DELIVERED) == 2);
    RUN_UNTIL(!hub_identity(&hub, "d1")->link);
    assert_non_null(hub_identity(&hub, "edge/$edgeHub")->link);
    add_numbers("d1", 3, 3);
    RUN_UNTIL(store_count(store, DELIVERED) == 3);
    assert_int_equal(hub.connections, 1);
}

/* A newer process of ours has the queue: this one gives up at once. */
static void test_superseded(void **state)
{
    start_upstream();
    RUN_UNTIL(store->fetches > 0);
    store->lose_lease = true;
    store_add(store, "d1", "1");
    store_restart(&roles);
    RUN_UNTIL(hub.closed_orderly && !upstream->online);
}

static void test_drain(void **state)
{
    hub.hold = true;
    add_numbers("d1", 1, 5);
    start_upstream();
    RUN_UNTIL(hub_identity(&hub, "d1")->received == 5);
    assert_int_equal(raise(SIGTERM), 0);
    RUN_UNTIL(upstream->draining);
    add_numbers("d1", 6, 7);
    hub.hold = false;
    for (unsigned n = 0; n < 5; n++) { /* those it held */
        pn_delivery_t *held = pn_unsettled_head(hub_identity(&hub, "d1")->link);

        hub.settled++;
        pn_delivery_update(held, PN_ACCEPTED);
        pn_delivery_settle(held);
    }
    amqp_driver_wake(hub.driver);
    RUN_UNTIL(sd_event_get_state(plugin_event(plugin)) == SD_EVENT_FINISHED);
    assert_int_equal(store_count(store, DELIVERED), 5);
    assert_true(hub.closed_orderly);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_begins_with_the_edge_itself),
        TEST(test_status),
        TEST(test_untrusted_hub),
        TEST(test_many_identities_in_order),
        TEST(test_cut_amid_a_flight),
        TEST(test_cut_again_and_again),
        TEST(test_refused_identity_holds_up_nobody),
        TEST(test_refused_token),
        TEST(test_refused_edge),
        TEST(test_unknown_identity_is_dropped),
        TEST(test_not_in_scope_is_not_dropped),
        TEST(test_rejected_message_lets_others_pass),
        TEST(test_released_message_comes_again),
        TEST(test_detached_link),
        TEST(test_ended_sessions),
        TEST(test_store_restarts),
        TEST(test_store_restarts_with_a_parked_partition),
        TEST(test_refused_acks_come_again),
        TEST(test_damaged_message_is_refused),
        TEST(test_window),
        TEST(test_token_is_renewed),
        TEST(test_idle_identity_leaves),
        TEST(test_superseded),
        TEST(test_drain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
