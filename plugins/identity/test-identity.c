#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>

#include "identity.h"
#include "lookups.h"
#include "sas.h"
#include "test-folder.h"
#include "test-stub-hub.h"

#define HUB        "hub1.example.net"
#define DEVICE_KEY "bXktZGV2aWNlLWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE="
#define CONNECTION "HostName=" HUB ";DeviceId=edge1;SharedAccessKey=" DEVICE_KEY

/* The hub of these tests: what it has registered, and what was written to it. */
struct fake_hub {
    struct stub stub;
    char *edge_hub_key;      /* as PUT; NULL: type none */
    json_t *devices;         /* records by id */
    bool refuses_everything; /* 401 */
    bool hangs;              /* never answers a lookup */
    unsigned puts, listings, lookups;
};

struct world {
    sd_event *event;
    struct fake_hub hub;
    char *folder, *url;
    struct identity_config config;
    struct identity *identity;
    unsigned changes;
    uint64_t version;
};

/* ---- the hub ---- */

static bool signed_with(const char *authorization, const char *key_base64, const char *module_id)
{
    struct sas_token token;
    struct sas_key key;
    bool device_wide;

    return key_base64 && sas_key_parse(span_str(key_base64), &key) &&
           sas_token_parse(span_str(authorization), &token) == 0 &&
           sas_token_check_signature(&token, &key) == 0 &&
           sas_token_check_audience(&token, HUB, NULL, "edge1", module_id, &device_wide) == 0;
}

static json_t *sas_record(const char *id, const char *key, bool enabled)
{
    return json_pack("{s:s, s:s, s:{s:s, s:{s:s}}, s:{s:b}, s:[s], s:s}", "deviceId", id, "status",
                     enabled ? "enabled" : "disabled", "authentication", "type", "sas",
                     "symmetricKey", "primaryKey", key, "capabilities", "iotEdge",
                     strcmp(id, "edge1") == 0, "parentScopes", "s-edge1", "generationId", "g1");
}

static void hub_register(struct fake_hub *hub, const char *id, const char *key, bool enabled)
{
    json_object_set_new(hub->devices, id, sas_record(id, key, enabled));
}

static char *dump_take(json_t *json)
{
    char *text = json_dumps(json, 0);

    json_decref(json);
    return text;
}

static char *hub_module_text(const struct fake_hub *hub)
{
    return dump_take(json_pack("{s:s, s:s, s:s, s:{s:s, s:{s:s*}}}", "moduleId", "$edgeHub",
                               "deviceId", "edge1", "generationId", "638", "authentication", "type",
                               hub->edge_hub_key ? "sas" : "none", "symmetricKey", "primaryKey",
                               hub->edge_hub_key));
}

static json_t *hub_module_record(const struct fake_hub *hub)
{
    return json_pack("{s:s, s:s, s:s, s:{s:s, s:{s:s*}}}", "moduleId", "$edgeHub", "deviceId",
                     "edge1", "generationId", "638", "authentication", "type", "sas",
                     "symmetricKey", "primaryKey", hub->edge_hub_key);
}

static void hub_put(struct fake_hub *hub, const struct stub_call *call, struct stub_reply *reply)
{
    json_auto_t *body = json_loads(call->body, 0, NULL);
    json_t *keys = json_object_get(json_object_get(body, "authentication"), "symmetricKey");

    assert_string_equal(call->if_match, "*");
    free(hub->edge_hub_key);
    hub->edge_hub_key = xstrdup(json_string_value(json_object_get(keys, "primaryKey")));
    hub->puts++;
    reply->status = 200;
    reply->body = hub_module_text(hub);
}

static void hub_list(struct fake_hub *hub, struct stub_reply *reply)
{
    json_t *devices = json_array(), *device;
    const char *id;

    json_object_foreach(hub->devices, id, device) json_array_append(devices, device);
    hub->listings++;
    reply->status = 200;
    reply->body = dump_take(json_pack("{s:o, s:[o], s:n}", "devices", devices, "modules",
                                      hub_module_record(hub), "continuationLink"));
}

static void hub_look_up(struct fake_hub *hub, const struct stub_call *call,
                        struct stub_reply *reply)
{
    json_auto_t *body = json_loads(call->body, 0, NULL);
    json_t *device =
        json_object_get(hub->devices, json_string_value(json_object_get(body, "targetDeviceId")));

    hub->lookups++;
    reply->hang = hub->hangs;
    reply->status = device ? 200 : 404;
    if (device && !hub->hangs)
        reply->body = dump_take(
            json_pack("{s:[O], s:[], s:n}", "devices", device, "modules", "continuationLink"));
}

static void hub_on_call(const struct stub_call *call, struct stub_reply *reply, void *userdata)
{
    struct fake_hub *hub = userdata;
    bool scope_call = strcmp(call->method, "POST") == 0;

    if (hub->refuses_everything ||
        !(scope_call ? signed_with(call->authorization, hub->edge_hub_key, "$edgeHub")
                     : signed_with(call->authorization, DEVICE_KEY, NULL))) {
        reply->status = 401;
        return;
    }
    if (strcmp(call->method, "GET") == 0) {
        reply->status = 200;
        reply->body = hub_module_text(hub);
    } else if (strcmp(call->method, "PUT") == 0) {
        hub_put(hub, call, reply);
    } else if (strstr(call->uri, "devicesAndModulesInTargetDeviceScope")) {
        hub_list(hub, reply);
    } else {
        hub_look_up(hub, call, reply);
    }
}

/* ---- the gateway ---- */

static void world_on_scope_changed(uint64_t version, void *userdata)
{
    struct world *w = userdata;

    assert_true(version > w->version);
    w->version = version;
    w->changes++;
}

static void world_on_certificate_changed(uint64_t version, void *userdata) {}

static void world_on_status(const struct identity_status *status, void *userdata) {}

static const struct identity_ops world_ops = { world_on_scope_changed, world_on_certificate_changed,
                                               world_on_status };

static void start(struct world *w)
{
    assert_int_equal(identity_new(&(struct identity_place){ .event = w->event,
                                                            .state_dir = w->folder,
                                                            .hostname = "gateway.local",
                                                            .hub_url = w->url,
                                                            .retry_min_usec = 1000 },
                                  &w->config, &world_ops, w, &w->identity),
                     0);
}

static void restart(struct world *w)
{
    w->identity = identity_free(w->identity);
    w->version = 0;
    start(w);
}

static int setup(void **state)
{
    struct world *w = xnew(struct world);

    assert_true(sd_event_new(&w->event) >= 0);
    w->folder = folder_new();
    w->hub.devices = json_object();
    hub_register(&w->hub, "edge1", DEVICE_KEY, true);
    json_object_set_new(json_object_get(w->hub.devices, "edge1"), "deviceScope",
                        json_string("s-edge1"));
    hub_register(&w->hub, "leaf1", "bGVhZjE=", true);
    stub_start(&w->hub.stub, w->event, NULL, NULL, hub_on_call, &w->hub);
    w->url = xasprintf("http://127.0.0.1:%d", w->hub.stub.port);
    w->config = (struct identity_config){
        .connection_string = xstrdup(CONNECTION),
        .scope_refresh_sec = 3600,
        .scope_refresh_min_sec = 120,
        .certificate_days = 30,
    };
    *state = w;
    return 0;
}

static int setup_in_scope(void **state)
{
    struct world *w;

    setup(state);
    w = *state;
    start(w);
    LOOP_UNTIL(w->event, w->changes == 1);
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    identity_free(w->identity);
    stub_stop(&w->hub.stub);
    json_decref(w->hub.devices);
    free(w->hub.edge_hub_key);
    free(w->config.connection_string);
    folder_removep(&w->folder);
    free(w->url);
    sd_event_unref(w->event);
    free(w);
    return 0;
}

/* ---- logins ---- */

struct outcome {
    unsigned count, dropped, accepted;
    enum auth_reason reason;
};

static void on_verdict(const struct auth_verdict *verdict, void *userdata)
{
    struct outcome *outcome = userdata;

    outcome->count++;
    if (!verdict) {
        outcome->dropped++;
        return;
    }
    outcome->reason = verdict->reason;
    outcome->accepted += verdict->reason == AUTH_ACCEPTED;
}

static void begin_login(struct world *w, const char *device_id, const char *key_base64,
                        bool recheck, struct outcome *outcome)
{
    _cleanup_(freep) char *resource = xasprintf(HUB "/devices/%s", device_id), *token = NULL;
    struct sas_key key;

    assert_true(sas_key_parse(span_str(key_base64), &key));
    token = sas_token_make(resource, &key, NULL, time(NULL) + 3600);
    identity_authenticate(w->identity,
                          &(struct auth_client){ .device_id = device_id, .token = span_str(token) },
                          recheck, on_verdict, outcome);
}

static enum auth_reason login(struct world *w, const char *device_id, const char *key_base64)
{
    struct outcome outcome = {};

    begin_login(w, device_id, key_base64, false, &outcome);
    LOOP_UNTIL(w->event, outcome.count == 1);
    return outcome.reason;
}

/* ---- tests ---- */

static void test_first_start(void **state)
{
    struct world *w = *state;
    struct identity_token token;

    start(w);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_NO_SCOPE_YET);
    assert_int_equal(identity_token(w->identity, &token), IDENTITY_E_NO_KEY);
    assert_non_null(identity_certificate(w->identity));

    LOOP_UNTIL(w->event, w->changes == 1);
    assert_int_equal(w->hub.puts, 1);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_ACCEPTED);
    assert_int_equal(identity_status(w->identity).identities, 3);
    assert_true(identity_status(w->identity).scope_refreshed_sec > 0);
    assert_string_equal(identity_status(w->identity).last_error, "");

    assert_int_equal(identity_token(w->identity, &token), 0);
    assert_true(signed_with(token.text, w->hub.edge_hub_key, "$edgeHub"));
    assert_in_range(token.expires_sec, time(NULL) + 3500, time(NULL) + 3600);
}

/* The key that is there already is not written again; the cache decides while the hub is away. */
static void test_restart_offline(void **state)
{
    struct world *w = *state;
    struct identity_token token;

    restart(w);
    LOOP_UNTIL(w->event, w->hub.listings == 2);
    assert_int_equal(w->hub.puts, 1);

    stub_stop(&w->hub.stub);
    restart(w);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_ACCEPTED);
    assert_int_equal(identity_token(w->identity, &token), 0);
    assert_int_equal(login(w, "leaf1", "d3Jvbmc="), AUTH_WRONG_KEY);
    assert_int_equal(login(w, "nobody", "d3Jvbmc="), AUTH_UNKNOWN_IDENTITY);
}

static void test_cache_of_another_device(void **state)
{
    struct world *w = *state;

    stub_stop(&w->hub.stub);
    free(w->config.connection_string);
    w->config.connection_string =
        xstrdup("HostName=" HUB ";DeviceId=edge2;SharedAccessKey=" DEVICE_KEY);
    restart(w);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_NO_SCOPE_YET);
}

/* A device that was registered a second ago connects; one that nobody registered is asked about
 * once. */
static void test_unknown_is_looked_up(void **state)
{
    struct world *w = *state;

    hub_register(&w->hub, "new", "bmV3", true);
    assert_int_equal(login(w, "new", "bmV3"), AUTH_ACCEPTED);
    assert_int_equal(w->hub.lookups, 1);
    assert_int_equal(login(w, "new", "bmV3"), AUTH_ACCEPTED);
    assert_int_equal(w->hub.lookups, 1);

    assert_int_equal(login(w, "nobody", "bmV3"), AUTH_UNKNOWN_IDENTITY);
    assert_int_equal(w->hub.lookups, 2);
    assert_int_equal(login(w, "nobody", "bmV3"), AUTH_UNKNOWN_IDENTITY);
    assert_int_equal(w->hub.lookups, 2);
    assert_int_equal(login(w, "no/id", "bmV3"), AUTH_UNKNOWN_IDENTITY);
    assert_int_equal(w->hub.lookups, 2);

    LOOP_UNTIL(w->event, w->changes == 2);
    stub_stop(&w->hub.stub);
    restart(w);
    assert_int_equal(login(w, "new", "bmV3"), AUTH_ACCEPTED);
}

static void test_rotated_key(void **state)
{
    struct world *w = *state;

    hub_register(&w->hub, "leaf1", "cm90YXRlZA==", true);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_ACCEPTED); /* not known here yet */
    assert_int_equal(login(w, "leaf1", "cm90YXRlZA=="), AUTH_ACCEPTED);
    assert_int_equal(w->hub.lookups, 1);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="),
                     AUTH_WRONG_KEY); /* changed a moment ago: it may change again */
    assert_int_equal(w->hub.lookups, 2);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="),
                     AUTH_WRONG_KEY); /* nothing new: not asked again */
    assert_int_equal(w->hub.lookups, 2);
}

/* T12 */
static void test_disabled_and_removed(void **state)
{
    struct world *w = *state;

    hub_register(&w->hub, "leaf1", "bGVhZjE=", false);
    identity_on_upstream(w->identity, true);
    LOOP_UNTIL(w->event, w->changes == 2);
    assert_int_equal(w->hub.listings, 2);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_DISABLED);

    json_object_del(w->hub.devices, "leaf1");
    identity_on_upstream(w->identity, true); /* no news */
    identity_on_upstream(w->identity, false);
    identity_on_upstream(w->identity, true);
    LOOP_UNTIL(w->event, w->changes == 3);
    assert_int_equal(w->hub.listings, 3);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_UNKNOWN_IDENTITY);
}

/* The hub says of a known one that it is gone: it is. */
static void test_gone_by_lookup(void **state)
{
    struct world *w = *state;

    json_object_del(w->hub.devices, "leaf1");
    assert_int_equal(login(w, "leaf1", "d3Jvbmc="), AUTH_UNKNOWN_IDENTITY);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_UNKNOWN_IDENTITY);
    LOOP_UNTIL(w->event, w->changes == 2);
}

static void test_recheck_never_asks(void **state)
{
    struct world *w = *state;
    struct outcome outcome = {};

    hub_register(&w->hub, "leaf1", "cm90YXRlZA==", true);
    begin_login(w, "leaf1", "cm90YXRlZA==", true, &outcome);
    assert_int_equal(outcome.count, 1);
    assert_int_equal(outcome.reason, AUTH_WRONG_KEY);
    assert_int_equal(w->hub.lookups, 0);
}

/* T13: strangers fill every place where one can wait; who is known comes in at once. */
static void test_flood(void **state)
{
    struct world *w = *state;
    struct outcome strangers = {}, known = {};

    w->hub.hangs = true;
    for (unsigned i = 0; i < LOOKUPS_WAITING_MAX + 50; i++) {
        _cleanup_(freep) char *id = xasprintf("stranger%u", i);

        begin_login(w, id, "eA==", false, &strangers);
    }
    assert_int_equal(strangers.count, 50);
    assert_int_equal(strangers.reason, AUTH_NOT_ASKED);
    LOOP_UNTIL(w->event, w->hub.lookups == LOOKUPS_RUNNING_MAX);
    begin_login(w, "leaf1", "bGVhZjE=", false, &known);
    assert_int_equal(known.accepted, 1);

    w->identity = identity_free(w->identity);
    assert_int_equal(strangers.count, LOOKUPS_WAITING_MAX + 50);
    assert_int_equal(strangers.dropped, LOOKUPS_WAITING_MAX);
}

/* Many logins of one id are one question. */
static void test_one_lookup_for_many(void **state)
{
    struct world *w = *state;
    struct outcome outcome = {};

    hub_register(&w->hub, "new", "bmV3", true);
    for (unsigned i = 0; i < 10; i++)
        begin_login(w, "new", "bmV3", false, &outcome);
    LOOP_UNTIL(w->event, outcome.count == 10);
    assert_int_equal(outcome.accepted, 10);
    assert_int_equal(w->hub.lookups, 1);
}

/* While it is being given its keys it is asked about each time. */
static void test_identity_in_the_making(void **state)
{
    struct world *w = *state;
    json_t *record = sas_record("half", "aGFsZg==", true);

    json_object_set_new(json_object_get(record, "authentication"), "type", json_string("none"));
    json_object_set_new(w->hub.devices, "half", record);
    assert_int_equal(login(w, "half", "aGFsZg=="), AUTH_NOT_BY_TOKEN);
    assert_int_equal(login(w, "half", "aGFsZg=="), AUTH_NOT_BY_TOKEN);
    hub_register(&w->hub, "half", "aGFsZg==", true);
    assert_int_equal(login(w, "half", "aGFsZg=="), AUTH_ACCEPTED);
    assert_int_equal(w->hub.lookups, 3);
}

static void test_chain(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *leaf = NULL, *module = NULL;
    const char *generation;
    char *none;

    assert_int_equal(identity_chain(w->identity, "leaf1", "", &leaf, &generation), 0);
    assert_string_equal(leaf, "leaf1;edge1");
    assert_string_equal(generation, "g1");
    assert_int_equal(identity_chain(w->identity, "edge1", "$edgeHub", &module, &generation), 0);
    assert_string_equal(module, "edge1/$edgeHub;edge1");
    assert_string_equal(generation, "638");
    assert_int_equal(identity_chain(w->identity, "nobody", NULL, &none, &generation),
                     IDENTITY_E_NO_CHAIN);
}

static void on_refreshed(int result, void *userdata)
{
    *(int *)userdata = result;
}

static void test_refresh(void **state)
{
    struct world *w = *state;
    int result = 1;

    hub_register(&w->hub, "leaf1", "bGVhZjE=", false);
    identity_refresh(w->identity, "leaf1", "", on_refreshed, &result);
    LOOP_UNTIL(w->event, result == 0);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_DISABLED);
    assert_int_equal(w->hub.lookups, 2);

    result = 1;
    identity_refresh(w->identity, "leaf1", "", on_refreshed, &result);
    assert_int_equal(result, 0); /* asked a moment ago */

    stub_stop(&w->hub.stub);
    restart(w);
    result = 1;
    identity_refresh(w->identity, "leaf1", "", on_refreshed, &result);
    LOOP_UNTIL(w->event, result == -EHOSTUNREACH);
}

/* Somebody wrote another key for $edgeHub: ours is written again, and the listing goes on. */
static void test_key_overwritten(void **state)
{
    struct world *w = *state;

    free(w->hub.edge_hub_key);
    w->hub.edge_hub_key = xstrdup("Zm9yZWlnbg==");
    hub_register(&w->hub, "more", "bW9yZQ==", true);
    identity_on_upstream(w->identity, true);
    LOOP_UNTIL(w->event, w->changes == 2);
    assert_int_equal(w->hub.puts, 2);
    assert_int_equal(login(w, "more", "bW9yZQ=="), AUTH_ACCEPTED);
}

static void test_key_overwritten_seen_by_a_lookup(void **state)
{
    struct world *w = *state;

    free(w->hub.edge_hub_key);
    w->hub.edge_hub_key = xstrdup("Zm9yZWlnbg==");
    assert_int_equal(login(w, "nobody", "bmV3"), AUTH_UNKNOWN_IDENTITY);
    LOOP_UNTIL(w->event, w->hub.listings == 2);
    assert_int_equal(w->hub.puts, 2);
}

static void test_hub_refuses_our_key(void **state)
{
    struct world *w = *state;
    struct identity_token token;

    w->hub.refuses_everything = true;
    start(w);
    LOOP_UNTIL(w->event, *identity_status(w->identity).last_error);
    assert_non_null(strstr(identity_status(w->identity).last_error, "does not accept"));
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_NO_SCOPE_YET);
    assert_int_equal(identity_token(w->identity, &token), IDENTITY_E_NO_KEY);
}

/* With what it knows it goes on, though the hub does not want it any more. */
static void test_refused_later(void **state)
{
    struct world *w = *state;

    w->hub.refuses_everything = true;
    identity_on_upstream(w->identity, true);
    LOOP_UNTIL(w->event, *identity_status(w->identity).last_error);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_ACCEPTED);
}

/* A listing without the gateway itself would disconnect everybody: not believed. */
static void test_listing_without_us(void **state)
{
    struct world *w = *state;

    json_object_clear(w->hub.devices);
    identity_on_upstream(w->identity, true);
    LOOP_UNTIL(w->event, *identity_status(w->identity).last_error);
    assert_int_equal(login(w, "leaf1", "bGVhZjE="), AUTH_ACCEPTED);
}

int main(void)
{
#define TEST(setup_fn, test) cmocka_unit_test_setup_teardown(test, setup_fn, teardown)
    const struct CMUnitTest tests[] = {
        TEST(setup, test_first_start),
        TEST(setup_in_scope, test_restart_offline),
        TEST(setup_in_scope, test_cache_of_another_device),
        TEST(setup_in_scope, test_unknown_is_looked_up),
        TEST(setup_in_scope, test_rotated_key),
        TEST(setup_in_scope, test_disabled_and_removed),
        TEST(setup_in_scope, test_gone_by_lookup),
        TEST(setup_in_scope, test_recheck_never_asks),
        TEST(setup_in_scope, test_flood),
        TEST(setup_in_scope, test_one_lookup_for_many),
        TEST(setup_in_scope, test_identity_in_the_making),
        TEST(setup_in_scope, test_chain),
        TEST(setup_in_scope, test_refresh),
        TEST(setup_in_scope, test_key_overwritten),
        TEST(setup_in_scope, test_key_overwritten_seen_by_a_lookup),
        TEST(setup, test_hub_refuses_our_key),
        TEST(setup_in_scope, test_refused_later),
        TEST(setup_in_scope, test_listing_without_us),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
