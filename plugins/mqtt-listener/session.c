/* Pure: no clock, no log, no descriptor, no static data. */
#include "session.h"

#include "listener.pb-c.h"
#include "mem.h"
#include "message.h"
#include "mqtt-codec.h"

void session_done(struct session *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->subscriptions[i].filter);
    free(s->subscriptions);
    *s = (struct session){};
}

static struct subscription *session_find(const struct session *s, struct span filter)
{
    for (size_t i = 0; i < s->count; i++)
        if (span_equal(span_str(s->subscriptions[i].filter), filter))
            return &s->subscriptions[i];
    return NULL;
}

int session_subscribe(struct session *s, struct span filter, uint8_t qos, int64_t now_sec,
                      bool *ret_changed)
{
    struct subscription *found = session_find(s, filter);

    if (found) { /* the time of the first is kept: C2D messages are measured by it */
        *ret_changed = found->qos != qos;
        found->qos = qos;
        return 0;
    }
    if (s->count >= SESSION_SUBSCRIPTIONS_MAX ||
        s->filter_bytes + filter.len > SESSION_FILTER_BYTES_MAX)
        return SESSION_E_FULL;
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 4;
        s->subscriptions = xrealloc(s->subscriptions, s->capacity * sizeof(s->subscriptions[0]));
    }
    s->subscriptions[s->count++] = (struct subscription){ span_xdup(filter), qos, now_sec };
    s->filter_bytes += filter.len;
    *ret_changed = true;
    return 0;
}

bool session_unsubscribe(struct session *s, struct span filter)
{
    struct subscription *found = session_find(s, filter);

    if (!found)
        return false;
    free(found->filter);
    *found = s->subscriptions[--s->count];
    s->filter_bytes -= filter.len;
    return true;
}

int session_qos(const struct session *s, struct span topic)
{
    int qos = -1;

    for (size_t i = 0; i < s->count; i++) {
        const struct subscription *subscription = &s->subscriptions[i];

        if (subscription->qos > qos && mqtt_filter_matches(span_str(subscription->filter), topic))
            qos = subscription->qos;
    }
    return qos;
}

void session_encode(const struct session *s, struct buf *out)
{
    Bus__MqttSubscription items[SESSION_SUBSCRIPTIONS_MAX], *pointers[SESSION_SUBSCRIPTIONS_MAX];
    Bus__MqttSession record = BUS__MQTT_SESSION__INIT;
    size_t size;

    for (size_t i = 0; i < s->count; i++) {
        bus__mqtt_subscription__init(&items[i]);
        items[i].filter = s->subscriptions[i].filter;
        items[i].qos = s->subscriptions[i].qos;
        items[i].created_sec = s->subscriptions[i].created_sec;
        pointers[i] = &items[i];
    }
    record.n_subscriptions = s->count;
    record.subscriptions = pointers;
    size = bus__mqtt_session__get_packed_size(&record);
    bus__mqtt_session__pack(&record, buf_reserve(out, size));
    buf_commit(out, size);
}

static int session_take_record(struct session *s, const Bus__MqttSession *record)
{
    for (size_t i = 0; i < record->n_subscriptions; i++) {
        const Bus__MqttSubscription *item = record->subscriptions[i];
        struct span filter = span_str(item->filter);
        bool changed;

        if (!mqtt_filter_valid(filter) || item->qos > 1)
            return SESSION_E_MALFORMED;
        if (session_subscribe(s, filter, (uint8_t)item->qos, item->created_sec, &changed) != 0)
            return SESSION_E_MALFORMED;
    }
    return 0;
}

int session_decode(struct session *s, struct span bytes)
{
    Bus__MqttSession *record =
        bus__mqtt_session__unpack(NULL, bytes.len, (const uint8_t *)bytes.at);
    int r;

    if (!record)
        return SESSION_E_MALFORMED;
    r = session_take_record(s, record);
    bus__mqtt_session__free_unpacked(record, NULL);
    if (r != 0)
        session_done(s);
    return r;
}

char *session_key(const char *device_id, const char *module_id)
{
    _cleanup_(freep) char *name = identity_name(device_id, module_id);

    return xasprintf("mqtt/session/%s", name);
}
