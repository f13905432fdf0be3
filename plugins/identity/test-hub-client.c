#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netdb.h>

#include "hub-client.h"
#include "keyring.h"
#include "test-folder.h"
#include "test-pki.h"
#include "test-stub-hub.h"

static int never[2]; /* a pipe that nobody writes to until the tests end */

/* In place of the C library's, for curl's resolver thread: a name server that does not answer. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    char end;

    (void)!read(never[0], &end, 1);
    return EAI_FAIL;
}

struct world {
    sd_event *event;
    struct stub stub;
    char *url;
    struct hub_client_config config;
    struct hub_client *client;

    /* what the stub answers, and what it was asked last */
    unsigned statuses[4]; /* one after the other; the last for all that follow; 0: hang */
    const char *answer;
    size_t answer_bytes; /* so many, when answer is NULL */
    char *asked, *authorization, *if_match, *body;

    /* what the client was told */
    unsigned answers;
    enum hub_outcome outcome;
    long status;
    int64_t date_sec;
    char *got, *error;
};

static void world_on_call(const struct stub_call *call, struct stub_reply *reply, void *userdata)
{
    struct world *w = userdata;
    unsigned n = w->stub.calls - 1;

    while (n >= ELEMENTSOF(w->statuses) || (n > 0 && w->statuses[n] == 0))
        n--;
    reply->status = w->statuses[n];
    reply->hang = reply->status == 0;
    if (w->answer_bytes > 0) {
        reply->body = xnew_n(char, w->answer_bytes + 1);
        memset(reply->body, 'x', w->answer_bytes);
    } else if (!reply->hang) {
        reply->body = xstrdup(w->answer);
    }
    free(w->asked);
    free(w->authorization);
    free(w->if_match);
    free(w->body);
    w->asked = xasprintf("%s %s", call->method, call->uri);
    w->authorization = xstrdup(call->authorization);
    w->if_match = xstrdup(call->if_match);
    w->body = xstrdup(call->body);
}

static char *world_token(enum hub_signer signer, void *userdata)
{
    return xstrdup(signer == HUB_SIGNER_DEVICE ? "token of the device" : "token of the hub module");
}

static void world_on_answer(const struct hub_answer *answer, void *userdata)
{
    struct world *w = userdata;

    free(w->got);
    free(w->error);
    w->answers++;
    w->outcome = answer->outcome;
    w->status = answer->status;
    w->date_sec = answer->date_sec;
    w->got = span_xdup(answer->body);
    w->error = xstrdup(answer->error);
}

static int setup(void **state)
{
    struct world *w = xnew(struct world);

    assert_true(sd_event_new(&w->event) >= 0);
    stub_start(&w->stub, w->event, NULL, NULL, world_on_call, w);
    w->url = xasprintf("http://127.0.0.1:%d", w->stub.port);
    w->config = (struct hub_client_config){ .base_url = w->url,
                                            .device_id = "edge#1",
                                            .retry_min_usec = 1000 };
    w->statuses[0] = 200;
    w->answer = "{}";
    assert_int_equal(hub_client_new(w->event, &w->config, world_token, w, &w->client), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    hub_client_free(w->client);
    stub_stop(&w->stub);
    sd_event_unref(w->event);
    free(w->url);
    free(w->asked);
    free(w->authorization);
    free(w->if_match);
    free(w->body);
    free(w->got);
    free(w->error);
    free(w);
    return 0;
}

static void test_requests_as_the_hub_expects_them(void **state)
{
    struct sas_key a = { "A", 1 }, b = { "B", 1 };
    struct world *w = *state;

    hub_client_module_get(w->client, "$edgeHub", world_on_answer, w);
    LOOP_UNTIL(w->event, w->answers == 1);
    assert_string_equal(w->asked,
                        "GET /devices/edge%231/modules/%24edgeHub?api-version=2017-11-08-preview");
    assert_string_equal(w->authorization, "token of the device");
    assert_string_equal(w->if_match, "");
    assert_string_equal(w->body, "");
    assert_string_equal(w->got, "{}");
    assert_true(w->date_sec > 0);

    hub_client_module_put_keys(w->client, "$edgeHub", "IotEdge", &a, &b, world_on_answer, w);
    LOOP_UNTIL(w->event, w->answers == 2);
    assert_string_equal(w->asked,
                        "PUT /devices/edge%231/modules/%24edgeHub?api-version=2017-11-08-preview");
    assert_string_equal(w->authorization, "token of the device");
    assert_string_equal(w->if_match, "*");
    assert_string_equal(
        w->body, "{\"moduleId\":\"$edgeHub\",\"deviceId\":\"edge#1\",\"managedBy\":\"IotEdge\","
                 "\"authentication\":{\"type\":\"sas\",\"symmetricKey\":"
                 "{\"primaryKey\":\"QQ==\",\"secondaryKey\":\"Qg==\"}}}");

    hub_client_scope_list(w->client, "child1;edge#1", "link", world_on_answer, w);
    LOOP_UNTIL(w->event, w->answers == 3);
    assert_string_equal(
        w->asked, "POST /devices/edge%231/modules/$edgeHub/devicesAndModulesInTargetDeviceScope"
                  "?api-version=2020-06-30-preview");
    assert_string_equal(w->authorization, "token of the hub module");
    assert_string_equal(
        w->body,
        "{\"pageSize\":100,\"continuationLink\":\"link\",\"authChain\":\"child1;edge#1\"}");

    hub_client_scope_lookup(w->client, "leaf1", "m", 5000000, world_on_answer, w);
    LOOP_UNTIL(w->event, w->answers == 4);
    assert_string_equal(w->asked,
                        "POST /devices/edge%231/modules/$edgeHub/getDeviceAndModuleOnBehalfOf"
                        "?api-version=2020-06-30-preview");
    assert_string_equal(
        w->body,
        "{\"targetDeviceId\":\"leaf1\",\"targetModuleId\":\"m\",\"authChain\":\"edge#1\"}");
}

static void test_classification(void **state)
{
    static const struct {
        unsigned status;
        enum hub_outcome listing, lookup;
        unsigned attempts;
    } cases[] = {
        { 200, HUB_DONE, HUB_DONE, 1 },
        { 204, HUB_DONE, HUB_DONE, 1 },
        { 302, HUB_REFUSED, HUB_REFUSED, 1 },
        { 400, HUB_REFUSED, HUB_NOT_FOUND, 1 },
        { 401, HUB_UNAUTHORIZED, HUB_UNAUTHORIZED, 1 },
        { 403, HUB_REFUSED, HUB_NOT_FOUND, 1 },
        { 404, HUB_NOT_FOUND, HUB_NOT_FOUND, 1 },
        { 405, HUB_REFUSED, HUB_REFUSED, 1 },
        { 412, HUB_REFUSED, HUB_REFUSED, 1 },
        { 429, HUB_UNAVAILABLE, HUB_UNAVAILABLE, 3 },
        { 500, HUB_UNAVAILABLE, HUB_UNAVAILABLE, 3 },
        { 503, HUB_UNAVAILABLE, HUB_UNAVAILABLE, 3 },
    };
    struct world *w = *state;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        w->statuses[0] = cases[i].status;
        w->answers = w->stub.calls = 0;
        hub_client_scope_list(w->client, "edge#1", NULL, world_on_answer, w);
        LOOP_UNTIL(w->event, w->answers == 1);
        assert_int_equal(w->outcome, cases[i].listing);
        assert_int_equal(w->status, cases[i].status);
        assert_int_equal(w->stub.calls, cases[i].attempts);
        hub_client_scope_lookup(w->client, "leaf1", NULL, 5000000, world_on_answer, w);
        LOOP_UNTIL(w->event, w->answers == 2);
        assert_int_equal(w->outcome, cases[i].lookup);
    }
}

static void test_retry_succeeds(void **state)
{
    struct world *w = *state;

    w->statuses[0] = 503;
    w->statuses[1] = 500;
    w->statuses[2] = 200;
    w->answer = "{\"good\":1}";
    hub_client_module_get(w->client, "m", world_on_answer, w);
    LOOP_UNTIL(w->event, w->answers == 1);
    assert_int_equal(w->outcome, HUB_DONE);
    assert_int_equal(w->stub.calls, 3);
    assert_string_equal(w->got, "{\"good\":1}");
}

static void test_nobody_listens(void **state)
{
    struct world *w = *state;

    stub_stop(&w->stub);
    hub_client_module_get(w->client, "m", world_on_answer, w);
    LOOP_UNTIL(w->event, w->answers == 1);
    assert_int_equal(w->outcome, HUB_UNAVAILABLE);
    assert_int_equal(w->status, 0);
    assert_true(strlen(w->error) > 0);
}

static void test_deadline(void **state)
{
    struct world *w = *state;

    w->statuses[0] = 0;
    hub_client_scope_lookup(w->client, "leaf1", NULL, 20000, world_on_answer, w);
    LOOP_UNTIL(w->event, w->answers == 1);
    assert_int_equal(w->outcome, HUB_UNAVAILABLE);
}

/* A request that ends while its name is being looked up does not wait for that: a test that does
 * never ends. */
static void test_name_server_is_silent(void **state)
{
    struct world *w = *state;
    struct hub_request *request;

    w->config.base_url = "http://silent.example.net";
    hub_client_scope_lookup(w->client, "leaf1", NULL, 20000, world_on_answer, w);
    LOOP_UNTIL(w->event, w->answers == 1);
    assert_int_equal(w->outcome, HUB_UNAVAILABLE);

    request = hub_client_module_get(w->client, "m", world_on_answer, w);
    hub_client_module_get(w->client, "n", world_on_answer, w);
    for (unsigned turn = 0; turn < 10; turn++)
        assert_true(sd_event_run(w->event, 1000) >= 0);
    assert_null(hub_request_cancel(request));
    w->client = hub_client_free(w->client);
    assert_int_equal(w->answers, 1);
}

static void test_cancel_and_free_under_way(void **state)
{
    struct world *w = *state;
    struct hub_request *request;

    w->statuses[0] = 0;
    request = hub_client_module_get(w->client, "m", world_on_answer, w);
    hub_client_module_get(w->client, "n", world_on_answer, w);
    LOOP_UNTIL(w->event, w->stub.calls == 2);
    assert_null(hub_request_cancel(request));
    hub_client_module_get(w->client, "o", world_on_answer, w);
    LOOP_UNTIL(w->event, w->stub.calls == 3);
    w->client = hub_client_free(w->client);
    assert_int_equal(w->answers, 0);
}

static void test_answer_too_long(void **state)
{
    struct world *w = *state;

    w->answer_bytes = (8 << 20) + 1;
    hub_client_module_get(w->client, "m", world_on_answer, w);
    LOOP_UNTIL(w->event, w->answers == 1);
    assert_int_equal(w->outcome, HUB_UNAVAILABLE);
}

/* T15: a hub with the wrong name or of an unknown authority hears nothing, least of all a token. */
static void test_tls(void **state)
{
    static const char *const address[] = { "127.0.0.1", NULL }, *const other[] = {
        "hub.example.net", NULL
    };
    static const struct {
        const char *const *names;
        bool known_authority;
        enum hub_outcome want;
    } cases[] = {
        { address, true, HUB_DONE },
        { address, false, HUB_UNAVAILABLE },
        { other, true, HUB_UNAVAILABLE },
    };
    struct world *w = *state;
    _cleanup_(folder_removep) char *folder = folder_new();
    _cleanup_(freep) char *ca_path = xasprintf("%s/ca.pem", folder);
    int64_t now = time(NULL);

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(pkey_freep) EVP_PKEY *ca_key = certificate_key_make(),
                                       *key = certificate_key_make();
        _cleanup_(x509_freep) X509 *ca =
            certificate_issue_authority(ca_key, "hub ca", now, now + 3600);
        _cleanup_(x509_freep) X509 *stranger =
            certificate_issue_authority(key, "hub ca", now, now + 3600);
        _cleanup_(x509_freep) X509 *leaf =
            certificate_issue_server(ca, ca_key, key, cases[i].names, now, now + 3600);
        _cleanup_(freep) char *ca_pem = pki_pem(cases[i].known_authority ? ca : stranger),
                              *pem = pki_pem(leaf);
        char *key_pem = keyring_private_key_print(key);

        file_put(ca_path, ca_pem, strlen(ca_pem), 0644);
        w->client = hub_client_free(w->client);
        stub_stop(&w->stub);
        stub_start(&w->stub, w->event, pem, key_pem, world_on_call, w);
        free(w->url);
        w->url = xasprintf("https://127.0.0.1:%d", w->stub.port);
        w->config.base_url = w->url;
        w->config.ca_file = ca_path;
        w->answers = 0;
        assert_int_equal(hub_client_new(w->event, &w->config, world_token, w, &w->client), 0);
        hub_client_module_get(w->client, "m", world_on_answer, w);
        LOOP_UNTIL(w->event, w->answers == 1);
        assert_int_equal(w->outcome, cases[i].want);
        assert_int_equal(w->stub.calls, cases[i].want == HUB_DONE ? 1 : 0);
        keyring_text_free(key_pem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_requests_as_the_hub_expects_them, setup, teardown),
        cmocka_unit_test_setup_teardown(test_classification, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retry_succeeds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_listens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_name_server_is_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_and_free_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answer_too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tls, setup, teardown),
    };

    if (pipe(never) < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
