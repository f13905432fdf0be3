#include "scope-listing.h"

#include <string.h>

#include "hub-json.h"

enum { PAGES_MAX = 2000, GATEWAYS_MAX = 1000 };

/* A gateway whose children are to be asked for. */
struct gateway {
    char *chain; /* "child;edge" */
    unsigned depth;
};

struct scope_listing {
    struct hub_client *hub;
    char *edge_id;
    scope_listing_fn *fn;
    void *userdata;
    struct hub_request *request;
    struct scope *scope;
    size_t skipped;
    unsigned pages;
    struct gateway *gateways;
    size_t gateway_count, gateway_capacity, gateway_at;
};

static void listing_on_page(const struct hub_answer *answer, void *userdata);

static void listing_end(struct scope_listing *listing, enum hub_outcome outcome, const char *error,
                        int64_t date_sec)
{
    struct scope_listing_result result = {
        .outcome = outcome,
        .scope = outcome == HUB_DONE ? TAKE_PTR(listing->scope) : NULL,
        .skipped = listing->skipped,
        .date_sec = date_sec,
        .error = error,
    };

    listing->fn(&result, listing->userdata);
}

static void listing_request(struct scope_listing *listing, const char *continuation)
{
    listing->request =
        hub_client_scope_list(listing->hub, listing->gateways[listing->gateway_at].chain,
                              continuation, listing_on_page, listing);
}

static void gateway_add(struct scope_listing *listing, const char *device_id,
                        const struct gateway *parent)
{
    char *chain = parent ? xasprintf("%s;%s", device_id, parent->chain) : xstrdup(device_id);
    unsigned depth = parent ? parent->depth + 1 : 1;

    xgrow(listing->gateways, listing->gateway_count, listing->gateway_capacity);
    listing->gateways[listing->gateway_count++] = (struct gateway){ chain, depth };
}

/* A child gateway is listed by its parent and by itself; it is asked once. */
static void page_merge(struct scope_listing *listing, struct scope_page *page)
{
    const struct gateway parent = listing->gateways[listing->gateway_at];

    listing->skipped += page->skipped;
    for (size_t i = 0; i < page->count; i++) {
        struct scope_identity *identity = TAKE_PTR(page->identities[i]);
        bool is_new = !scope_find(listing->scope, identity->device_id, identity->module_id);

        if (is_new && identity->is_edge && !identity->module_id &&
            strcmp(identity->device_id, listing->edge_id) != 0 &&
            parent.depth < SCOPE_EDGE_DEPTH_MAX && listing->gateway_count < GATEWAYS_MAX)
            gateway_add(listing, identity->device_id, &parent);
        scope_put_take(listing->scope, identity);
    }
}

static void listing_next_gateway(struct scope_listing *listing, int64_t date_sec)
{
    if (++listing->gateway_at < listing->gateway_count)
        listing_request(listing, NULL);
    else if (!scope_find(listing->scope, listing->edge_id, NULL))
        /* Taken at its word it would disconnect everybody. */
        listing_end(listing, HUB_REFUSED, "the listing lacks this gateway itself", date_sec);
    else
        listing_end(listing, HUB_DONE, NULL, date_sec);
}

static void listing_take_page(struct scope_listing *listing, const struct hub_answer *answer)
{
    struct scope_page page;
    const char *expected;

    if (scope_page_parse(answer->body, &page, &expected) != 0) {
        _cleanup_(freep) char *error = xasprintf("the listing is malformed: expected %s", expected);

        listing_end(listing, HUB_REFUSED, error, answer->date_sec);
        return;
    }
    page_merge(listing, &page);
    if (page.continuation && ++listing->pages < PAGES_MAX)
        listing_request(listing, page.continuation);
    else if (page.continuation)
        listing_end(listing, HUB_REFUSED, "the listing does not end", answer->date_sec);
    else
        listing_next_gateway(listing, answer->date_sec);
    scope_page_done(&page);
}

static void listing_on_page(const struct hub_answer *answer, void *userdata)
{
    struct scope_listing *listing = userdata;
    bool is_child = listing->gateway_at > 0;

    listing->request = NULL;
    if (answer->outcome == HUB_DONE)
        listing_take_page(listing, answer);
    else if (is_child && (answer->outcome == HUB_NOT_FOUND || answer->outcome == HUB_REFUSED))
        listing_next_gateway(listing,
                             answer->date_sec); /* that child may not be listed; the others may */
    else
        listing_end(listing, answer->outcome, answer->error, answer->date_sec);
}

struct scope_listing *scope_listing_start(struct hub_client *hub, const char *edge_id,
                                          scope_listing_fn *fn, void *userdata)
{
    struct scope_listing *listing = xnew(struct scope_listing);

    listing->hub = hub;
    listing->edge_id = xstrdup(edge_id);
    listing->fn = fn;
    listing->userdata = userdata;
    listing->scope = scope_new();
    gateway_add(listing, edge_id, NULL);
    listing_request(listing, NULL);
    return listing;
}

struct scope_listing *scope_listing_free(struct scope_listing *listing)
{
    if (!listing)
        return NULL;
    hub_request_cancel(listing->request);
    scope_free(listing->scope);
    for (size_t i = 0; i < listing->gateway_count; i++)
        free(listing->gateways[i].chain);
    free(listing->gateways);
    free(listing->edge_id);
    free(listing);
    return NULL;
}
