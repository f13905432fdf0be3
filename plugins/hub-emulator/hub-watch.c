/* The operator's view of telemetry: a request that waits until something comes, or its time is over. */
#include "hub.h"

#include <string.h>

enum {
    WATCHES_MAX = 64,
    EVENTS_MAX = 1000, /* in one answer */
    ANSWER_BYTES_MAX = 2 << 20,
    WAIT_MSEC_MAX = 60000,
};

struct hub_watch {
    struct hub *hub;
    struct hub_watch *next;
    struct bus_call *call;
    uint64_t after;
    char *device_id; /* "": all */
    size_t count_max;
    sd_event_source *timer;
};

/* What is found for one answer. */
struct harvest {
    char *events[EVENTS_MAX];
    size_t count, bytes;
    uint64_t last, lost;
};

static void harvest_done(struct harvest *harvest)
{
    for (size_t i = 0; i < harvest->count; i++)
        free(harvest->events[i]);
}

static void harvest_collect(struct hub *hub, const struct hub_watch *watch, struct harvest *ret)
{
    uint64_t first = telemetry_first(hub->telemetry);
    struct telemetry_cursor cursor;
    struct telemetry_event event;

    ret->count = ret->bytes = 0;
    ret->last = watch->after;
    ret->lost = watch->after > 0 && first > watch->after + 1 ? first - watch->after - 1 : 0;
    telemetry_seek(hub->telemetry, watch->after, &cursor);
    while (ret->count < watch->count_max && ret->bytes < ANSWER_BYTES_MAX &&
           telemetry_next(hub->telemetry, &cursor, &event)) {
        ret->last = event.sequence;
        if (watch->device_id[0] != '\0' && strcmp(watch->device_id, event.source->device_id) != 0)
            continue;
        arena_reset(hub->arena);
        ret->events[ret->count] = telemetry_render(&event, hub->arena);
        ret->bytes += strlen(ret->events[ret->count]);
        ret->count++;
    }
}

static int harvest_answer(struct bus_call *call, struct harvest *harvest)
{
    Bus__HubEvents events = BUS__HUB_EVENTS__INIT;
    Bus__Envelope answer = ENVELOPE(HUB_EVENTS, hub_events, &events);
    int r;

    events.events = harvest->events;
    events.n_events = harvest->count;
    events.last = harvest->last;
    events.lost = harvest->lost;
    r = bus_answer_with(call, &answer);
    harvest_done(harvest);
    return r;
}

/* ---- waiting ---- */

static struct hub_watch *watch_free(struct hub_watch *watch)
{
    sd_event_source_disable_unref(watch->timer);
    free(watch->device_id);
    free(watch);
    return NULL;
}

static void watch_unlink(struct hub_watch *watch)
{
    struct hub_watch **place = &watch->hub->watches;

    while (*place != watch)
        place = &(*place)->next;
    *place = watch->next;
    watch->hub->watch_count--;
}

static int watch_answer(struct hub_watch *watch, struct harvest *harvest)
{
    int r = harvest_answer(watch->call, harvest);

    watch_unlink(watch);
    watch_free(watch);
    return r;
}

static int watch_on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct hub_watch *watch = userdata;
    struct harvest nothing = { .last = watch->after };

    return watch_answer(watch, &nothing);
}

/* What was seen and is not for this watch need not be looked at again. */
static int watch_try(struct hub_watch *watch)
{
    struct harvest harvest;

    harvest_collect(watch->hub, watch, &harvest);
    if (harvest.count > 0 || harvest.lost > 0)
        return watch_answer(watch, &harvest);
    watch->after = harvest.last;
    return 0;
}

static int hub_on_watches_soon(sd_event_source *source, void *userdata)
{
    struct hub *hub = userdata;
    struct hub_watch *next;

    for (struct hub_watch *watch = hub->watches; watch; watch = next) {
        int r;

        next = watch->next;
        r = watch_try(watch);
        if (r < 0)
            return r;
    }
    return 0;
}

void hub_watches_wake(struct hub *hub)
{
    if (hub->watches)
        sd_event_source_set_enabled(hub->watches_soon, SD_EVENT_ONESHOT);
}

int hub_watches_start(struct hub *hub)
{
    int r = plugin_add_defer(hub->plugin, hub_on_watches_soon, hub, &hub->watches_soon);

    return r < 0 ? r : sd_event_source_set_enabled(hub->watches_soon, SD_EVENT_OFF);
}

void hub_watches_free(struct hub *hub)
{
    while (hub->watches) {
        struct hub_watch *watch = hub->watches;

        hub->watches = watch->next;
        bus_call_drop(watch->call);
        watch_free(watch);
    }
    sd_event_source_disable_unref(hub->watches_soon);
}

static int watch_begin(struct hub *hub, struct hub_watch *watch, struct bus_call *call,
                       uint32_t wait_ms)
{
    if (wait_ms > WAIT_MSEC_MAX)
        wait_ms = WAIT_MSEC_MAX;
    watch->call = bus_call_keep(call);
    watch->next = hub->watches;
    hub->watches = watch;
    hub->watch_count++;
    return plugin_add_timer(hub->plugin, (uint64_t)wait_ms * 1000, watch_on_timeout, watch,
                            &watch->timer);
}

int hub_on_monitor(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    const Bus__HubMonitor *ask = in->hub_monitor;
    struct hub *hub = userdata;
    struct hub_watch *watch;
    struct harvest harvest;

    if (hub->watch_count >= WATCHES_MAX)
        return bus_answer(call, STATUS_BUSY);
    watch = xnew(struct hub_watch);
    watch->hub = hub;
    watch->device_id = xstrdup(ask->device_id);
    watch->after = ask->from_now ? telemetry_last(hub->telemetry) : ask->after;
    watch->count_max =
        ask->count_max > 0 && ask->count_max < EVENTS_MAX ? ask->count_max : EVENTS_MAX;
    harvest_collect(hub, watch, &harvest);
    if (harvest.count == 0 && harvest.lost == 0 && ask->wait_ms > 0) {
        watch->after = harvest.last;
        return watch_begin(hub, watch, call, ask->wait_ms);
    }
    watch_free(watch);
    return harvest_answer(call, &harvest);
}
