#include "lookups.h"

#include <assert.h>
#include <string.h>

#include "message.h"
#include "refresh-rule.h"
#include "timer.h"

static const uint64_t TIMER_ACCURACY_USEC = 1000;

struct waiter {
    struct waiter *next;
    lookup_done_fn *fn;
    void *userdata;
};

/* One id that is asked, or waits for its turn. */
struct lookup {
    struct lookups *owner;
    struct lookup *next;
    char *id; /* "D" or "D/M" */
    char *device_id, *module_id;
    uint64_t deadline_usec;
    sd_event_source *timer;
    struct hub_request *request; /* NULL: waits for its turn */
    struct waiter *waiters;
};

struct lookups {
    sd_event *event;
    struct hub_client *hub;
    const struct lookups_ops *ops;
    void *userdata;
    struct refresh_rule *rule;
    struct lookup *first, **last_link; /* in order of asking */
    unsigned waiting, running;
};

/* ---- one ---- */

static void lookup_unlink(struct lookup *lookup)
{
    struct lookups *owner = lookup->owner;
    struct lookup **link = &owner->first;

    while (*link != lookup)
        link = &(*link)->next;
    *link = lookup->next;
    if (owner->last_link == &lookup->next)
        owner->last_link = link;
}

/* Tells everybody and is gone. The handlers may add lookups. */
static void lookup_finish(struct lookup *lookup, enum lookup_result result)
{
    struct lookups *owner = lookup->owner;
    struct waiter *waiter;

    lookup_unlink(lookup);
    sd_event_source_disable_unref(lookup->timer);
    if (lookup->request) {
        owner->running--;
        hub_request_cancel(lookup->request);
    }
    while ((waiter = lookup->waiters)) {
        lookup->waiters = waiter->next;
        owner->waiting--;
        waiter->fn(result, waiter->userdata);
        free(waiter);
    }
    free(lookup->id);
    free(lookup->device_id);
    free(lookup->module_id);
    free(lookup);
}

static void lookups_run(struct lookups *lookups);

static int lookup_on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct lookup *lookup = userdata;
    struct lookups *owner = lookup->owner;

    lookup_finish(lookup, LOOKUP_FAILED);
    lookups_run(owner);
    return 0;
}

/* Nothing that speaks of it: the same as not found. */
static bool page_is_about(const struct scope_page *page, const struct lookup *lookup)
{
    bool device = false, module = !lookup->module_id;

    for (size_t i = 0; i < page->count; i++) {
        const struct scope_identity *identity = page->identities[i];

        if (strcmp(identity->device_id, lookup->device_id) != 0)
            return false;
        if (!identity->module_id)
            device = true;
        else if (lookup->module_id && strcmp(identity->module_id, lookup->module_id) == 0)
            module = true;
    }
    return device && module;
}

/* False: nothing new was learned. */
static bool lookup_take_answer(struct lookup *lookup, struct span body)
{
    struct lookups *owner = lookup->owner;
    struct scope_page page;
    const char *expected;
    bool changed;

    if (scope_page_parse(body, &page, &expected) != 0)
        return false;
    if (page_is_about(&page, lookup))
        changed = owner->ops->on_found(&page, owner->userdata);
    else if (page.skipped == 0)
        changed = owner->ops->on_gone(lookup->device_id, lookup->module_id, owner->userdata);
    else
        changed =
            false; /* a record that we do not understand is no reason to forget what we know */
    scope_page_done(&page);
    return changed;
}

static void lookup_on_answer(const struct hub_answer *answer, void *userdata)
{
    struct lookup *lookup = userdata;
    struct lookups *owner = lookup->owner;
    enum lookup_result result = LOOKUP_ANSWERED;
    bool changed = true;

    lookup->request = NULL;
    owner->running--;
    switch (answer->outcome) {
    case HUB_DONE:
        changed = lookup_take_answer(lookup, answer->body);
        break;
    case HUB_NOT_FOUND:
        owner->ops->on_gone(lookup->device_id, lookup->module_id, owner->userdata);
        changed = false;
        break;
    case HUB_UNAUTHORIZED:
        owner->ops->on_unauthorized(owner->userdata);
        result = LOOKUP_FAILED;
        break;
    default:
        result = LOOKUP_FAILED;
    }
    if (!changed)
        refresh_rule_note(owner->rule, lookup->id, now_usec());
    lookup_finish(lookup, result);
    lookups_run(owner);
}

static void lookup_start(struct lookup *lookup)
{
    struct lookups *owner = lookup->owner;
    uint64_t now = now_usec();
    uint64_t left = lookup->deadline_usec > now ? lookup->deadline_usec - now : 0;

    owner->running++;
    lookup->request = hub_client_scope_lookup(owner->hub, lookup->device_id, lookup->module_id,
                                              left, lookup_on_answer, lookup);
}

static void lookups_run(struct lookups *lookups)
{
    for (struct lookup *l = lookups->first; l && lookups->running < LOOKUPS_RUNNING_MAX;
         l = l->next)
        if (!l->request)
            lookup_start(l);
}

/* ---- all ---- */

int lookups_new(sd_event *event, struct hub_client *hub, uint64_t pause_usec,
                const struct lookups_ops *ops, void *userdata, struct lookups **ret)
{
    struct lookups *lookups = xnew(struct lookups);

    lookups->event = sd_event_ref(event);
    lookups->hub = hub;
    lookups->ops = ops;
    lookups->userdata = userdata;
    lookups->rule = refresh_rule_new(pause_usec);
    lookups->last_link = &lookups->first;
    *ret = lookups;
    return 0;
}

struct lookups *lookups_free(struct lookups *lookups)
{
    if (!lookups)
        return NULL;
    while (lookups->first)
        lookup_finish(lookups->first, LOOKUP_DROPPED);
    refresh_rule_free(lookups->rule);
    sd_event_unref(lookups->event);
    free(lookups);
    return NULL;
}

static struct lookup *lookup_find(const struct lookups *lookups, const char *id)
{
    for (struct lookup *l = lookups->first; l; l = l->next)
        if (strcmp(l->id, id) == 0)
            return l;
    return NULL;
}

static struct lookup *lookup_new(struct lookups *lookups, const char *id, const char *device_id,
                                 const char *module_id)
{
    struct lookup *lookup = xnew(struct lookup);
    int r;

    lookup->owner = lookups;
    lookup->id = xstrdup(id);
    lookup->device_id = xstrdup(device_id);
    lookup->module_id = module_id && *module_id ? xstrdup(module_id) : NULL;
    lookup->deadline_usec = now_usec() + LOOKUPS_DEADLINE_USEC;
    r = sd_event_add_time(lookups->event, &lookup->timer, CLOCK_MONOTONIC, lookup->deadline_usec,
                          TIMER_ACCURACY_USEC, lookup_on_deadline, lookup);
    assert(r >= 0);
    r = sd_event_source_set_exit_on_failure(lookup->timer, true);
    assert(r >= 0);
    *lookups->last_link = lookup;
    lookups->last_link = &lookup->next;
    return lookup;
}

static void waiter_add(struct lookup *lookup, lookup_done_fn *fn, void *userdata)
{
    struct waiter *waiter = xnew(struct waiter);

    waiter->fn = fn;
    waiter->userdata = userdata;
    waiter->next = lookup->waiters;
    lookup->waiters = waiter;
    lookup->owner->waiting++;
}

int lookups_add(struct lookups *lookups, const char *device_id, const char *module_id, bool always,
                lookup_done_fn *fn, void *userdata)
{
    _cleanup_(freep) char *id = identity_name(device_id, module_id);
    struct lookup *lookup = lookup_find(lookups, id);

    if (!lookup && !always && !refresh_rule_allows(lookups->rule, id, now_usec()))
        return LOOKUPS_E_PAUSED;
    if (lookups->waiting >= LOOKUPS_WAITING_MAX)
        return LOOKUPS_E_FULL;
    if (!lookup)
        lookup = lookup_new(lookups, id, device_id, module_id);
    waiter_add(lookup, fn, userdata);
    lookups_run(lookups);
    return 0;
}

unsigned lookups_waiting(const struct lookups *lookups)
{
    return lookups->waiting;
}
