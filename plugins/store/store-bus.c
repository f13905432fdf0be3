#include "store-bus.h"

#include "store.h"

enum { STATS_USEC = 1000000 };

struct store_bus {
    struct plugin *plugin; /* borrowed */
    struct store *store;
    sd_event_source *stats_timer;
};

static int store_on_append(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_append_take(userdata, bus_call_keep(call), in->append);
    return 0;
}

static int store_on_fetch(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_fetch_take(userdata, bus_call_keep_poll(call), in->fetch);
    return 0;
}

static int store_on_ack(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_ack_take(userdata, bus_call_keep(call), in->ack);
    return 0;
}

static int store_on_park(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_park_take(userdata, bus_call_keep(call), in->park);
    return 0;
}

static int store_on_release(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_release_take(userdata, bus_call_keep(call), in->release);
    return 0;
}

static int store_on_queues_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_queues_get_take(userdata, bus_call_keep(call));
    return 0;
}

static int store_on_record_put(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_record_put_take(userdata, bus_call_keep(call), in->record_put);
    return 0;
}

static int store_on_record_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_record_get_take(userdata, bus_call_keep(call), in->record_get);
    return 0;
}

static int store_on_queue_peek(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_queue_peek_take(userdata, bus_call_keep(call), in->queue_peek);
    return 0;
}

static int store_on_queue_drop(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_queue_drop_take(userdata, bus_call_keep(call), in->queue_drop);
    return 0;
}

static int store_on_quota_set(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    store_set_quota(userdata,
                    in->quota_set->max_bytes > 0 ? (uint64_t)in->quota_set->max_bytes : 0);
    return bus_answer(call, STATUS_DONE);
}

static const struct bus_handler store_handlers[] = {
    { BUS__ENVELOPE__BODY_APPEND, PEER_ROUTER, store_on_append },
    { BUS__ENVELOPE__BODY_FETCH, PEER_UPSTREAM | PEER_LISTENERS, store_on_fetch },
    { BUS__ENVELOPE__BODY_ACK, PEER_UPSTREAM | PEER_LISTENERS, store_on_ack },
    { BUS__ENVELOPE__BODY_PARK, PEER_UPSTREAM | PEER_LISTENERS, store_on_park },
    { BUS__ENVELOPE__BODY_RELEASE, PEER_UPSTREAM | PEER_LISTENERS, store_on_release },
    { BUS__ENVELOPE__BODY_QUEUES_GET, PEER_ANY, store_on_queues_get },
    { BUS__ENVELOPE__BODY_QUOTA_SET, PEER_ROUTER, store_on_quota_set },
    { BUS__ENVELOPE__BODY_QUEUE_PEEK, PEER_OPERATOR, store_on_queue_peek },
    { BUS__ENVELOPE__BODY_QUEUE_DROP, PEER_OPERATOR, store_on_queue_drop },
    { BUS__ENVELOPE__BODY_RECORD_PUT, PEER_PLUGIN, store_on_record_put },
    { BUS__ENVELOPE__BODY_RECORD_GET, PEER_PLUGIN, store_on_record_get },
    {},
};

static void store_bus_answer(struct bus_call *call, Bus__Envelope *answer, void *userdata)
{
    struct store_bus *service = userdata;
    int r;

    if (!answer) {
        bus_call_drop(call);
        return;
    }
    r = bus_answer_with(call, answer);
    if (r < 0)
        sd_event_exit(plugin_event(service->plugin), r);
}

static void store_bus_opened(void *userdata)
{
    struct store_bus *service = userdata;
    int r = plugin_listen(service->plugin, store_handlers, service->store);

    if (r < 0)
        sd_event_exit(plugin_event(service->plugin), r);
    else
        plugin_ready(service->plugin);
}

static void store_bus_drained(void *userdata)
{
    struct store_bus *service = userdata;

    plugin_drained(service->plugin);
}

static void store_bus_on_drain(uint64_t deadline_usec, void *userdata)
{
    struct store_bus *service = userdata;

    store_drain(service->store);
}

static int store_bus_on_stats(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct store_bus *service = userdata;
    const struct store *store = service->store;
    const struct commit_counters *commit = commit_counters(store->commit);

    timer_rearm(source, STATS_USEC);
    plugin_stat(service->plugin, "appended", store->appended);
    plugin_stat(service->plugin, "fetched", store->fetched);
    plugin_stat(service->plugin, "acked", store->acked);
    plugin_stat(service->plugin, "dropped", store->dropped);
    plugin_stat(service->plugin, "refused_full", store->refused);
    plugin_stat(service->plugin, "groups", commit->groups);
    plugin_stat(service->plugin, "syncs", commit->syncs);
    plugin_stat(service->plugin, "written_bytes", commit->bytes);
    plugin_stat(service->plugin, "write_usec", commit->write_usec);
    if (store->image) {
        plugin_stat(service->plugin, "queued", queues_messages(store->image->queues));
        plugin_stat(service->plugin, "queued_bytes", queues_bytes(store->image->queues));
    }
    return 0;
}

int store_bus_new(struct plugin *plugin, const struct store_config *config, struct store_bus **ret)
{
    static const struct store_ops ops = { store_bus_answer, store_bus_opened, store_bus_drained };
    _cleanup_(store_bus_freep) struct store_bus *service = xnew(struct store_bus);
    int r;

    service->plugin = plugin;
    r = store_new(plugin_event(plugin), config, plugin_state_dir(plugin), &ops, service,
                  &service->store);
    if (r < 0)
        return r;
    r = plugin_add_timer(plugin, STATS_USEC, store_bus_on_stats, service, &service->stats_timer);
    if (r < 0)
        return r;
    plugin_on_drain(plugin, store_bus_on_drain, service);
    plugin_hold_ready(plugin);
    *ret = TAKE_PTR(service);
    return 0;
}

struct store_bus *store_bus_free(struct store_bus *service)
{
    if (!service)
        return NULL;
    sd_event_source_disable_unref(service->stats_timer);
    store_free(service->store);
    free(service);
    return NULL;
}
