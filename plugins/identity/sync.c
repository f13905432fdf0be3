#include "sync.h"

#include <assert.h>
#include <string.h>
#include <sys/random.h>

#include "hub-json.h"
#include "log.h"
#include "scope-listing.h"
#include "timer.h"

static const uint64_t RETRY_MIN_USEC = UINT64_C(1000) * 1000;
static const uint64_t RETRY_MAX_USEC = UINT64_C(60) * 1000 * 1000;
static const uint64_t RETRY_REFUSED_USEC =
    UINT64_C(120) * 1000 * 1000; /* somebody has to act first */
static const uint64_t TIMER_ACCURACY_USEC = 1000;
#define EDGE_HUB "$edgeHub"

enum sync_state { SYNC_WAITING, SYNC_READING_MODULE, SYNC_WRITING_KEY, SYNC_LISTING };

struct sync {
    sd_event *event;
    struct hub_client *hub;
    const struct sync_config *config;
    const struct sync_ops *ops;
    void *userdata;

    enum sync_state state;
    sd_event_source *timer; /* armed while waiting */
    struct hub_request *request;
    struct scope_listing *listing;
    char *generation_id;  /* of the key that is being written */
    bool key_checked;     /* in this life of the process, and not refused since */
    bool key_checked_now; /* in this very run */
    bool again;           /* asked for while it was under way */
    uint64_t retry_usec;
    enum hub_outcome failed; /* HUB_DONE: the last run did not */
    char *last_error;
};

/* Between half of it and all of it. */
static uint64_t jittered(uint64_t usec)
{
    uint64_t random;

    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
        random = 0;
    return usec / 2 + random % (usec / 2 + 1);
}

static uint64_t retry_min(const struct sync *sync)
{
    return sync->config->retry_min_usec ? sync->config->retry_min_usec : RETRY_MIN_USEC;
}

/* ---- the end of a run ---- */

static void sync_wait(struct sync *sync, uint64_t usec)
{
    sync->state = SYNC_WAITING;
    timer_rearm(sync->timer, sync->again ? 0 : usec);
    sync->again = false;
    sync->ops->on_end(sync->userdata);
}

static void sync_succeed(struct sync *sync)
{
    if (sync->failed != HUB_DONE)
        log_event(LOG_INFO, 0, "the hub's registry is reached again");
    sync->failed = HUB_DONE;
    sync->retry_usec = retry_min(sync);
    free(sync->last_error);
    sync->last_error = xstrdup("");
    sync_wait(sync, sync->config->refresh_usec);
}

static bool needs_somebody(enum hub_outcome outcome)
{
    return outcome != HUB_UNAVAILABLE;
}

/* Said once for as long as it stays the same. */
static void failure_log(struct sync *sync, enum hub_outcome outcome, const char *what,
                        const char *error)
{
    if (sync->failed == outcome)
        return;
    sync->failed = outcome;
    if (needs_somebody(outcome))
        log_event(LOG_ERR, 0, what, F_REASON(error), F_DEVICE(sync->config->device_id));
    else
        log_event(LOG_INFO, 0, what, F_REASON(error));
}

static void sync_fail(struct sync *sync, enum hub_outcome outcome, const char *what,
                      const char *error)
{
    char *text = xasprintf("%s: %s", what, error);
    uint64_t wait;

    failure_log(sync, outcome, what, error);
    free(sync->last_error);
    sync->last_error = text;
    if (needs_somebody(outcome)) {
        sync->key_checked = false;
        sync_wait(sync, jittered(RETRY_REFUSED_USEC));
        return;
    }
    wait = jittered(sync->retry_usec);
    sync->retry_usec =
        sync->retry_usec * 2 < RETRY_MAX_USEC ? sync->retry_usec * 2 : RETRY_MAX_USEC;
    sync_wait(sync, wait);
}

/* ---- a run: module, key, listing ---- */

static void sync_list(struct sync *sync);
static void sync_read_module(struct sync *sync);

static void sync_key_is_written(struct sync *sync, const char *generation_id)
{
    sync->key_checked = true;
    sync->key_checked_now = true;
    sync->ops->on_key_written(generation_id, sync->userdata);
    sync_list(sync);
}

static void sync_on_key_written(const struct hub_answer *answer, void *userdata)
{
    struct sync *sync = userdata;

    sync->request = NULL;
    if (answer->outcome != HUB_DONE) {
        sync_fail(sync, answer->outcome, "cannot write the key of $edgeHub to the hub",
                  answer->error);
        return;
    }
    log_event(LOG_INFO, 0, "wrote the key of $edgeHub to the hub");
    sync_key_is_written(sync, sync->generation_id);
}

static void sync_compare_key(struct sync *sync, const struct hub_module *module)
{
    struct sas_key primary = {}, secondary = {};

    keyring_module_keys(sync->config->keyring, EDGE_HUB, module->generation_id, &primary,
                        &secondary);
    if (sas_key_equal(module->primary_key, &primary)) {
        sync_key_is_written(sync, module->generation_id);
    } else {
        free(sync->generation_id);
        sync->generation_id = xstrdup(module->generation_id);
        sync->state = SYNC_WRITING_KEY;
        sync->request = hub_client_module_put_keys(sync->hub, EDGE_HUB, module->managed_by,
                                                   &primary, &secondary, sync_on_key_written, sync);
    }
    sas_key_wipe(&primary);
    sas_key_wipe(&secondary);
}

/* In words for the operator who has to act. */
static const char *module_error(const struct hub_answer *answer)
{
    return answer->outcome == HUB_NOT_FOUND ? "it has no such device, or not as an edge device"
                                            : answer->error;
}

static void sync_on_module(const struct hub_answer *answer, void *userdata)
{
    struct sync *sync = userdata;
    struct hub_module module;
    const char *expected;

    sync->request = NULL;
    if (answer->outcome != HUB_DONE) {
        sync_fail(sync, answer->outcome, "cannot read $edgeHub from the hub", module_error(answer));
        return;
    }
    if (answer->date_sec > 0)
        sync->ops->on_hub_clock(answer->date_sec, sync->userdata);
    if (hub_module_parse(answer->body, &module, &expected) != 0) {
        sync_fail(sync, HUB_REFUSED, "cannot read $edgeHub from the hub",
                  "its answer has no generationId");
        return;
    }
    sync_compare_key(sync, &module);
    hub_module_done(&module);
}

static void sync_read_module(struct sync *sync)
{
    sync->state = SYNC_READING_MODULE;
    sync->request = hub_client_module_get(sync->hub, EDGE_HUB, sync_on_module, sync);
}

static void sync_on_listed(struct scope_listing_result *result, void *userdata)
{
    struct sync *sync = userdata;
    struct scope_listing *listing = TAKE_PTR(sync->listing);

    if (result->outcome == HUB_DONE) {
        if (result->skipped > 0)
            log_event(LOG_WARNING, 0, "records of the scope make no sense, left out",
                      F_COUNT(result->skipped));
        if (result->date_sec > 0)
            sync->ops->on_hub_clock(result->date_sec, sync->userdata);
        sync->ops->on_scope_take(TAKE_PTR(result->scope), sync->userdata);
        sync_succeed(sync);
    } else if (result->outcome == HUB_UNAUTHORIZED && !sync->key_checked_now) {
        sync_read_module(sync); /* somebody wrote another key there: ours again */
    } else {
        sync_fail(sync, result->outcome, "cannot list the scope", result->error);
    }
    scope_listing_free(listing);
}

static void sync_list(struct sync *sync)
{
    sync->state = SYNC_LISTING;
    sync->ops->on_listing(sync->userdata);
    sync->listing = scope_listing_start(sync->hub, sync->config->device_id, sync_on_listed, sync);
}

static int sync_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct sync *sync = userdata;

    assert(sync->state == SYNC_WAITING);
    sync->key_checked_now = false;
    if (sync->key_checked)
        sync_list(sync);
    else
        sync_read_module(sync);
    return 0;
}

/* ---- life ---- */

int sync_new(sd_event *event, struct hub_client *hub, const struct sync_config *config,
             const struct sync_ops *ops, void *userdata, struct sync **ret)
{
    _cleanup_(sync_freep) struct sync *sync = xnew(struct sync);
    int r;

    sync->event = sd_event_ref(event);
    sync->hub = hub;
    sync->config = config;
    sync->ops = ops;
    sync->userdata = userdata;
    sync->last_error = xstrdup("");
    sync->retry_usec = retry_min(sync);
    r = sd_event_add_time(event, &sync->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_USEC,
                          sync_on_timer, sync);
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(sync->timer, true);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(sync);
    return 0;
}

struct sync *sync_free(struct sync *sync)
{
    if (!sync)
        return NULL;
    sd_event_source_disable_unref(sync->timer);
    hub_request_cancel(sync->request);
    scope_listing_free(sync->listing);
    free(sync->generation_id);
    free(sync->last_error);
    sd_event_unref(sync->event);
    free(sync);
    return NULL;
}

void sync_now(struct sync *sync)
{
    if (sync->state == SYNC_WAITING)
        timer_rearm(sync->timer, 0);
    else
        sync->again = true;
}

void sync_key_refused(struct sync *sync)
{
    /* When a run has just looked, asking at once changes nothing: it waits for its time. */
    if (!sync->key_checked || sync->state != SYNC_WAITING)
        return;
    sync->key_checked = false;
    timer_rearm(sync->timer, 0);
}

bool sync_is_listing(const struct sync *sync)
{
    return sync->state == SYNC_LISTING;
}

const char *sync_last_error(const struct sync *sync)
{
    return sync->last_error;
}
