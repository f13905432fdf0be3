#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scope-listing.h"
#include "test-stub-hub.h"

#define DEVICE(id, rest) "{\"deviceId\":\"" id "\",\"authentication\":{\"type\":\"none\"}" rest "}"
#define GATEWAY          ",\"capabilities\":{\"iotEdge\":true}"
#define PAGE(devices, link)                                                                        \
    "{\"devices\":[" devices "],\"modules\":[],\"continuationLink\":" link "}"

struct page {
    const char *chain, *link; /* what is asked for; link NULL: the first page */
    unsigned status;
    const char *answer;
};

struct world {
    sd_event *event;
    struct stub stub;
    char *url;
    struct hub_client_config config;
    struct hub_client *hub;
    const struct page *pages; /* up to chain NULL */
    struct scope_listing *listing;
    bool over;
    enum hub_outcome outcome;
    size_t skipped;
    struct scope *scope;
    char *error;
};

static void world_on_call(const struct stub_call *call, struct stub_reply *reply, void *userdata)
{
    struct world *w = userdata;

    for (const struct page *page = w->pages; page->chain; page++) {
        _cleanup_(freep) char *chain = xasprintf("\"authChain\":\"%s\"", page->chain), *link = NULL;

        link = page->link ? xasprintf("\"continuationLink\":\"%s\"", page->link) : NULL;
        if (!strstr(call->body, chain) ||
            (link ? !strstr(call->body, link) : strstr(call->body, "continuationLink") != NULL))
            continue;
        reply->status = page->status;
        reply->body = xstrdup(page->answer);
        return;
    }
    fail_msg("nobody was to ask for %s", call->body);
}

static char *world_token(enum hub_signer signer, void *userdata)
{
    assert_int_equal(signer, HUB_SIGNER_EDGE_HUB);
    return xstrdup("token");
}

static void world_on_listed(struct scope_listing_result *result, void *userdata)
{
    struct world *w = userdata;

    assert_false(w->over);
    w->over = true;
    w->outcome = result->outcome;
    w->skipped = result->skipped;
    w->scope = TAKE_PTR(result->scope);
    w->error = xstrdup(result->error);
    w->listing = scope_listing_free(w->listing);
}

static int setup(void **state)
{
    struct world *w = xnew(struct world);

    assert_true(sd_event_new(&w->event) >= 0);
    stub_start(&w->stub, w->event, NULL, NULL, world_on_call, w);
    w->url = xasprintf("http://127.0.0.1:%d", w->stub.port);
    w->config = (struct hub_client_config){ .base_url = w->url,
                                            .device_id = "edge1",
                                            .retry_min_usec = 1000 };
    assert_int_equal(hub_client_new(w->event, &w->config, world_token, w, &w->hub), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    scope_listing_free(w->listing);
    hub_client_free(w->hub);
    stub_stop(&w->stub);
    sd_event_unref(w->event);
    scope_free(w->scope);
    free(w->error);
    free(w->url);
    free(w);
    return 0;
}

static void list(struct world *w, const struct page *pages)
{
    w->pages = pages;
    w->listing = scope_listing_start(w->hub, "edge1", world_on_listed, w);
    LOOP_UNTIL(w->event, w->over);
}

static void test_pages(void **state)
{
    static const struct page pages[] = {
        { "edge1", NULL, 200, PAGE(DEVICE("edge1", GATEWAY) "," DEVICE("a", ""), "\"two\"") },
        { "edge1", "two", 200, PAGE(DEVICE("b", "") ",{}", "\"three\"") },
        { "edge1", "three", 200, PAGE(DEVICE("c", "") ",7", "\"\"") },
        {},
    };
    struct world *w = *state;

    list(w, pages);
    assert_int_equal(w->outcome, HUB_DONE);
    assert_int_equal(w->skipped, 2);
    assert_int_equal(scope_count(w->scope), 4);
    assert_int_equal(w->stub.calls, 3);
}

/* Each once, however often it is listed; one that may not be listed costs only its own children. */
static void test_child_gateways(void **state)
{
    static const struct page pages[] = {
        { "edge1", NULL, 200,
          PAGE(DEVICE("edge1", GATEWAY) "," DEVICE("child1", GATEWAY) "," DEVICE("child2", GATEWAY),
               "null") },
        { "child1;edge1", NULL, 200,
          PAGE(DEVICE("child1", GATEWAY) "," DEVICE("leaf9", "") "," DEVICE("grand", GATEWAY),
               "null") },
        { "child2;edge1", NULL, 403, "{}" },
        { "grand;child1;edge1", NULL, 200,
          PAGE(DEVICE("grand", GATEWAY) "," DEVICE("edge1", GATEWAY), "null") },
        {},
    };
    struct world *w = *state;

    list(w, pages);
    assert_int_equal(w->outcome, HUB_DONE);
    assert_int_equal(w->stub.calls, 4);
    assert_int_equal(scope_count(w->scope), 5);
    assert_non_null(scope_find(w->scope, "leaf9", NULL));
}

static void test_child_unavailable_fails_it_all(void **state)
{
    static const struct page pages[] = {
        { "edge1", NULL, 200,
          PAGE(DEVICE("edge1", GATEWAY) "," DEVICE("child1", GATEWAY), "null") },
        { "child1;edge1", NULL, 503, "{}" },
        {},
    };
    struct world *w = *state;

    list(w, pages);
    assert_int_equal(w->outcome, HUB_UNAVAILABLE);
    assert_null(w->scope);
}

static void test_depth_is_bounded(void **state)
{
    static const struct page pages[] = {
        { "edge1", NULL, 200, PAGE(DEVICE("edge1", GATEWAY) "," DEVICE("e2", GATEWAY), "null") },
        { "e2;edge1", NULL, 200, PAGE(DEVICE("e3", GATEWAY), "null") },
        { "e3;e2;edge1", NULL, 200, PAGE(DEVICE("e4", GATEWAY), "null") },
        { "e4;e3;e2;edge1", NULL, 200, PAGE(DEVICE("e5", GATEWAY), "null") },
        { "e5;e4;e3;e2;edge1", NULL, 200, PAGE(DEVICE("e6", GATEWAY), "null") },
        {},
    };
    struct world *w = *state;

    list(w, pages);
    assert_int_equal(w->outcome, HUB_DONE);
    assert_int_equal(w->stub.calls, 5);
}

static void test_not_believed(void **state)
{
    static const struct {
        struct page pages[3];
        const char *want;
    } cases[] = {
        { { { "edge1", NULL, 200, PAGE("", "null") }, {} }, "lacks this gateway" },
        { { { "edge1", NULL, 200, "{}" }, {} }, "malformed" },
        { { { "edge1", NULL, 200, "<html>" }, {} }, "malformed" },
        { { { "edge1", NULL, 200, PAGE(DEVICE("edge1", GATEWAY), "\"x\"") },
            { "edge1", "x", 200, PAGE("", "\"x\"") },
            {} },
          "does not end" },
        { { { "edge1", NULL, 403, "{}" }, {} }, "refuses" },
    };
    struct world *w = *state;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        w->over = false;
        list(w, cases[i].pages);
        assert_int_equal(w->outcome, HUB_REFUSED);
        assert_non_null(strstr(w->error, cases[i].want));
        assert_null(w->scope);
        free(w->error);
        w->error = NULL;
    }
}

static void test_given_up(void **state)
{
    static const struct page pages[] = {
        { "edge1", NULL, 200, PAGE(DEVICE("edge1", GATEWAY), "null") },
        {},
    };
    struct world *w = *state;

    w->pages = pages;
    w->listing = scope_listing_start(w->hub, "edge1", world_on_listed, w);
    LOOP_UNTIL(w->event, w->stub.calls == 1);
    w->listing = scope_listing_free(w->listing);
    assert_false(w->over);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_child_gateways, setup, teardown),
        cmocka_unit_test_setup_teardown(test_child_unavailable_fails_it_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_depth_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_believed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_given_up, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
