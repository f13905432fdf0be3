/* The operator's side of the local hub: `hub …`. What it answers is JSON already; here it is
 * printed. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "ctl-ask.h"
#include "ctl-print.h"

static json_t *hub_json(const Bus__Envelope *answer)
{
    if (answer->body_case != BUS__ENVELOPE__BODY_HUB_JSON)
        return NULL;
    return json_loads(answer->hub_json->json, JSON_DECODE_ANY, NULL);
}

/* For requests that are just done, whatever comes with it. */
static json_t *hub_json_or_empty(const Bus__Envelope *answer)
{
    return answer->body_case == BUS__ENVELOPE__BODY_HUB_JSON ? hub_json(answer) : json_object();
}

static int hub_ask(struct ctl *ctl, Bus__Envelope *request, void (*print)(const json_t *document))
{
    json_t *answer = NULL;
    int r;

    r = ctl_load(ctl);
    if (r == 0)
        r = ctl_ask_one(ctl, "hub", request, CTL_ANSWER_USEC, hub_json_or_empty, &answer);
    if (r != 0)
        return r;
    if (ctl->json)
        ctl_print_json(answer);
    else
        print(answer);
    json_decref(answer);
    return CTL_DONE;
}

/* Keys are shown by `show`, not to whoever looks over the operator's shoulder at a list. */
static void print_devices(const json_t *devices)
{
    static const struct ctl_column columns[] = {
        { "device_id", "DEVICE", FORM_TEXT }, { "status", "STATUS", FORM_TEXT },
        { "edge", "EDGE", FORM_TEXT },        { "parent", "PARENT", FORM_TEXT },
        { "auth", "AUTH", FORM_TEXT },        { "connected", "CONNECTED", FORM_TEXT },
        { "modules", "MODULES", FORM_TEXT },  {},
    };

    ctl_print_table(devices, columns);
}

/* The generated structs want writable texts, and only read them. */
static char *option_text(const struct ctl *ctl, enum ctl_option option, const char *fallback)
{
    const char *text = ctl->options[option];

    return (char *)(text ? text : fallback);
}

int ctl_hub_device_add(struct ctl *ctl, int argc, char **argv)
{
    Bus__HubDevicePut put = BUS__HUB_DEVICE_PUT__INIT;
    Bus__Envelope request = ENVELOPE(HUB_DEVICE_PUT, hub_device_put, &put);

    put.device_id = argv[0];
    put.edge = ctl->options[OPT_EDGE] != NULL;
    put.parent = option_text(ctl, OPT_PARENT, "");
    put.auth = option_text(ctl, OPT_AUTH, "sas");
    put.primary_thumbprint = option_text(ctl, OPT_THUMBPRINT, "");
    return hub_ask(ctl, &request, ctl_print_any);
}

int ctl_hub_module_add(struct ctl *ctl, int argc, char **argv)
{
    Bus__HubModulePut put = BUS__HUB_MODULE_PUT__INIT;
    Bus__Envelope request = ENVELOPE(HUB_MODULE_PUT, hub_module_put, &put);

    put.device_id = argv[0];
    put.module_id = argv[1];
    return hub_ask(ctl, &request, ctl_print_any);
}

static int device_action(struct ctl *ctl, const char *action, char *device_id,
                         void (*print)(const json_t *document))
{
    Bus__HubDeviceAction act = BUS__HUB_DEVICE_ACTION__INIT;
    Bus__Envelope request = ENVELOPE(HUB_DEVICE_ACTION, hub_device_action, &act);

    act.action = (char *)action;
    act.device_id = device_id;
    return hub_ask(ctl, &request, print);
}

int ctl_hub_device_list(struct ctl *ctl, int argc, char **argv)
{
    char none[] = "";

    return device_action(ctl, "list", none, print_devices);
}

int ctl_hub_device_show(struct ctl *ctl, int argc, char **argv)
{
    return device_action(ctl, "show", argv[0], ctl_print_any);
}

int ctl_hub_device_disable(struct ctl *ctl, int argc, char **argv)
{
    return device_action(ctl, "disable", argv[0], ctl_print_any);
}

int ctl_hub_device_enable(struct ctl *ctl, int argc, char **argv)
{
    return device_action(ctl, "enable", argv[0], ctl_print_any);
}

int ctl_hub_device_remove(struct ctl *ctl, int argc, char **argv)
{
    return device_action(ctl, "remove", argv[0], ctl_print_any);
}

static int set_online(struct ctl *ctl, bool online)
{
    Bus__HubOnline set = BUS__HUB_ONLINE__INIT;
    Bus__Envelope request = ENVELOPE(HUB_ONLINE, hub_online, &set);

    set.online = online;
    return hub_ask(ctl, &request, ctl_print_any);
}

int ctl_hub_offline(struct ctl *ctl, int argc, char **argv)
{
    return set_online(ctl, false);
}

int ctl_hub_online(struct ctl *ctl, int argc, char **argv)
{
    return set_online(ctl, true);
}

static int stats_once(struct ctl *ctl, json_t **ret)
{
    Bus__HubStatsGet get = BUS__HUB_STATS_GET__INIT;
    Bus__Envelope request = ENVELOPE(HUB_STATS_GET, hub_stats_get, &get);

    return ctl_ask_one(ctl, "hub", &request, CTL_ANSWER_USEC, hub_json, ret);
}

int ctl_hub_stats(struct ctl *ctl, int argc, char **argv)
{
    return ctl_show(ctl, stats_once, ctl_print_any);
}

/* Monitoring: one long poll after the other, each asking on from where the one before ended. */

enum { POLL_MS = 10000, POLL_EVENTS = 500, TIMEOUT_MAX_S = 10 * 365 * 86400 };

struct monitor {
    Bus__HubMonitor ask;
    uint64_t count, seen; /* @count 0: for ever */
    uint64_t end_usec;    /* CLOCK_MONOTONIC; UINT64_MAX: never */
};

static uint64_t monotonic_usec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static json_t *events_json(const Bus__Envelope *answer)
{
    const Bus__HubEvents *e = answer->hub_events;
    json_t *events;

    if (answer->body_case != BUS__ENVELOPE__BODY_HUB_EVENTS)
        return NULL;
    events = json_array();
    for (size_t i = 0; i < e->n_events; i++)
        json_array_append_new(events, json_loads(e->events[i], JSON_DECODE_ANY, NULL));
    return json_pack("{s:o, s:I, s:I}", "events", events, "last", (json_int_t)e->last, "lost",
                     (json_int_t)e->lost);
}

static void monitor_print(struct monitor *m, const json_t *answer)
{
    json_int_t lost = json_integer_value(json_object_get(answer, "lost"));
    const json_t *events = json_object_get(answer, "events");

    if (lost > 0)
        ctl_fail("%" JSON_INTEGER_FORMAT
                 " events were dropped by the hub before they were asked for",
                 lost);
    for (size_t i = 0; i < json_array_size(events) && (m->count == 0 || m->seen < m->count); i++) {
        ctl_print_json_line(json_array_get(events, i));
        m->seen++;
    }
    fflush(stdout);
}

static int monitor_poll(struct ctl *ctl, struct monitor *m, uint64_t wait_usec)
{
    Bus__Envelope request = ENVELOPE(HUB_MONITOR, hub_monitor, &m->ask);
    json_t *answer = NULL;
    int r;

    m->ask.wait_ms = wait_usec < POLL_MS * 1000 ? (uint32_t)(wait_usec / 1000) : POLL_MS;
    m->ask.count_max =
        m->count && m->count - m->seen < POLL_EVENTS ? (uint32_t)(m->count - m->seen) : POLL_EVENTS;
    r = ctl_ask_one(ctl, "hub", &request, m->ask.wait_ms * UINT64_C(1000) + CTL_ANSWER_USEC,
                    events_json, &answer);
    if (r != 0)
        return r;
    monitor_print(m, answer);
    m->ask.after = (uint64_t)json_integer_value(json_object_get(answer, "last"));
    m->ask.from_now = false;
    json_decref(answer);
    return 0;
}

static int monitor_run(struct ctl *ctl, struct monitor *m)
{
    while (m->count == 0 || m->seen < m->count) {
        uint64_t now = monotonic_usec();
        int r;

        r = monitor_poll(ctl, m, m->end_usec > now ? m->end_usec - now : 0);
        if (r != 0)
            return r;
        if (ferror(stdout))
            return CTL_FAILED;
        if (now >= m->end_usec) /* what was there at the end was still asked for */
            break;
    }
    if (m->seen < m->count)
        return ctl_fail("%" PRIu64 " of %" PRIu64 " events came in time", m->seen, m->count);
    return CTL_DONE;
}

int ctl_hub_monitor(struct ctl *ctl, int argc, char **argv)
{
    struct monitor m = { .ask = BUS__HUB_MONITOR__INIT };
    uint64_t timeout_s;
    int r;

    r = ctl_number("--count", ctl->options[OPT_COUNT], UINT32_MAX, 0, &m.count);
    if (r == 0)
        r = ctl_number("--timeout", ctl->options[OPT_TIMEOUT], TIMEOUT_MAX_S, 0, &timeout_s);
    if (r == 0)
        r = ctl_load(ctl);
    if (r != 0)
        return r;
    m.end_usec = timeout_s > 0 ? monotonic_usec() + timeout_s * 1000000 : UINT64_MAX;
    m.ask.device_id = option_text(ctl, OPT_DEVICE, "");
    m.ask.from_now = ctl->options[OPT_FROM_NOW] != NULL;
    return monitor_run(ctl, &m);
}
