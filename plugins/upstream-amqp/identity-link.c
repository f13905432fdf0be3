#include "identity-link.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>

#include "log.h"
#include "message.h"
#include "sas.h"
#include "timer.h"
#include "upstream.h"

/* Constant for every identity, as each has a session of its own (amqp.md §5.2). */
#define LINK_NAME   "TelemetrySenderLink"
#define API_VERSION "2021-04-12"

#define STEP_USEC      (30 * UINT64_C(1000000)) /* chain, token and attach, each */
#define HANG_USEC      (50 * UINT64_C(1000000)) /* work, and nothing moves (amqp.md §15.3) */
#define SETTLE_USEC    (20 * UINT64_C(1000000))
#define PAUSE_MIN_USEC UINT64_C(1000000)
#define PAUSE_USEC     (60 * UINT64_C(1000000))

typedef void identity_fn(struct identity_link *i);

static const char *const state_names[_IDENTITY_STATE_COUNT] = {
    [IDENTITY_CLOSED] = "closed", [IDENTITY_CHAIN] = "chain",
    [IDENTITY_TOKEN] = "token",   [IDENTITY_ATTACHING] = "attaching",
    [IDENTITY_OPEN] = "open",     [IDENTITY_SETTLING] = "settling",
    [IDENTITY_PAUSED] = "paused",
};

static bool state_is_opening(enum identity_state state)
{
    return state == IDENTITY_CHAIN || state == IDENTITY_TOKEN || state == IDENTITY_ATTACHING;
}

/* The counts that others look at follow the state here, and nowhere else. */
static void identity_enter(struct identity_link *i, enum identity_state state)
{
    struct upstream *up = i->upstream;

    log_event(LOG_DEBUG, 0, "identity", F_CLIENT(i->name), F_STATE(state_names[state]));
    up->opening += (unsigned)state_is_opening(state) - (unsigned)state_is_opening(i->state);
    up->open_count += (unsigned)(state == IDENTITY_OPEN) - (unsigned)(i->state == IDENTITY_OPEN);
    up->paused_count +=
        (unsigned)(state == IDENTITY_PAUSED) - (unsigned)(i->state == IDENTITY_PAUSED);
    i->state = state;
    identity_list_put(i, IDENTITY_LIST_NONE);
    if (!state_is_opening(state))
        upstream_open_next(up);
}

static void identity_ignore(struct identity_link *i) {}

static void failure_set(struct identity_link *i, enum verdict verdict, uint64_t wait_max_usec,
                        const char *format, va_list list)
{
    i->failure.verdict = verdict;
    i->failure.wait_max_usec = wait_max_usec;
    vsnprintf(i->failure.reason, sizeof(i->failure.reason), format, list);
}

void identity_link_fail(struct identity_link *i, enum identity_event event, enum verdict verdict,
                        uint64_t wait_max_usec, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    failure_set(i, verdict, wait_max_usec, format, list);
    va_end(list);
    identity_link_feed(i, event);
}

/* ---- What is on the connection ---- */

/* Ends the session; the hub's answer frees it (upstream.c). Its events are nobody's from here. */
static void identity_drop_link(struct identity_link *i)
{
    pn_session_t *session;

    if (!i->link)
        return;
    session = pn_link_session(i->link);
    pn_link_set_context(i->link, NULL);
    pn_session_set_context(session, NULL);
    pn_link_close(i->link);
    pn_session_close(session);
    i->link = NULL;
    upstream_send_soon(i->upstream);
}

static void identity_cancel_requests(struct identity_link *i)
{
    i->chain_request = bus_request_cancel(i->chain_request);
    i->token_request = cbs_cancel(i->token_request);
    i->renewal = cbs_cancel(i->renewal);
}

/* What was sent and not settled goes again, in order, before what is newer. */
static void identity_close(struct identity_link *i)
{
    identity_cancel_requests(i);
    identity_drop_link(i);
    flight_rewind(i->messages);
    timer_stop(i->timer);
    i->busy = false;
    identity_enter(i, IDENTITY_CLOSED);
}

/* The connection is gone: there is nothing to end. */
static void identity_go_offline(struct identity_link *i)
{
    i->link = NULL;
    identity_close(i);
}

/* ---- Chain, token, link ---- */

static char *identity_resource(const struct identity_link *i, const char *host)
{
    _cleanup_(freep) char *device = percent_encode(span_str(i->device_id));
    _cleanup_(freep) char *module = percent_encode(span_str(i->module_id));

    if (*i->module_id)
        return xasprintf("%s/devices/%s/modules/%s", host, device, module);
    return xasprintf("%s/devices/%s", host, device);
}

static enum verdict token_verdict(int status)
{
    return status == 0 ? VERDICT_RETRY : verdict_of_token(status);
}

static void identity_on_token(int status, const char *description, void *userdata)
{
    struct identity_link *i = userdata;

    i->token_request = NULL;
    if (status >= 200 && status < 300)
        identity_link_feed(i, IDENTITY_TOKEN_TAKEN);
    else
        identity_link_fail(i, IDENTITY_FAILED, token_verdict(status), PAUSE_USEC,
                           "token refused: %d %s", status, description);
}

static struct cbs_request *identity_put(struct identity_link *i, cbs_answer_fn *fn)
{
    _cleanup_(freep) char *name = identity_resource(i, i->upstream->token.hub);

    upstream_send_soon(i->upstream);
    return cbs_put(i->upstream->cbs, name, i->upstream->token.text, fn, i);
}

static void identity_ask_token(struct identity_link *i)
{
    struct upstream *up = i->upstream;

    if (i->token_connection != up->connection_number && !upstream_admit_token(up)) {
        identity_link_fail(i, IDENTITY_FAILED, VERDICT_RETRY, PAUSE_USEC,
                           "the connection carries as many identities as it may");
        return;
    }
    i->token_connection = up->connection_number;
    identity_enter(i, IDENTITY_TOKEN);
    timer_rearm(i->timer, STEP_USEC);
    i->token_request = identity_put(i, identity_on_token);
}

/* The edge's own identity needs nobody's leave. The others come when it is there. */
static void identity_begin(struct identity_link *i)
{
    struct upstream *up = i->upstream;

    if (!up->cbs || (!up->online && !i->is_edge_hub))
        return;
    if (i->is_edge_hub) {
        identity_ask_token(i);
        return;
    }
    if (up->opening >= UPSTREAM_OPENING_MAX) {
        identity_list_put(i, IDENTITY_LIST_WAITING);
        return;
    }
    identity_enter(i, IDENTITY_CHAIN);
    timer_rearm(i->timer, STEP_USEC);
    (void)upstream_bus_chain_get(i); /* when the window is full, it is asked once there is room */
}

static void put_property(pn_data_t *data, const char *name, const char *value)
{
    pn_data_put_symbol(data, pn_bytes(strlen(name), name));
    pn_data_put_string(data, pn_bytes(strlen(value), value));
}

static void link_set_properties(struct identity_link *i)
{
    pn_data_t *data = pn_link_properties(i->link);

    pn_data_put_map(data);
    pn_data_enter(data);
    put_property(data, "com.microsoft:client-version", "Brink/" BRINK_VERSION);
    put_property(data, "com.microsoft:api-version", API_VERSION);
    if (i->auth_chain && *i->auth_chain)
        put_property(data, "com.microsoft:auth-chain", i->auth_chain);
    pn_data_exit(data);
}

static void identity_attach(struct identity_link *i)
{
    _cleanup_(freep) char *resource = identity_resource(i, i->upstream->token.gateway);
    _cleanup_(freep) char *address = xasprintf("amqps://%s/messages/events", resource);
    pn_session_t *session =
        pn_session(amqp_driver_connection(connection_driver(i->upstream->connection)));

    pn_session_set_context(session, i);
    pn_session_open(session);
    i->link = pn_sender(session, LINK_NAME);
    pn_link_set_context(i->link, i);
    pn_terminus_set_address(pn_link_source(i->link), i->device_id);
    pn_terminus_set_address(pn_link_target(i->link), address);
    pn_link_set_snd_settle_mode(i->link, PN_SND_UNSETTLED);
    pn_link_set_rcv_settle_mode(i->link, PN_RCV_FIRST);
    link_set_properties(i);
    pn_link_open(i->link);
    upstream_send_soon(i->upstream);
    identity_enter(i, IDENTITY_ATTACHING);
    timer_rearm(i->timer, STEP_USEC);
}

/* ---- Open ---- */

static void identity_progress(struct identity_link *i)
{
    i->progress_usec = now_usec();
}

static void identity_work(struct identity_link *i)
{
    if (!i->busy) {
        i->busy = true;
        identity_progress(i);
        timer_rearm(i->timer, HANG_USEC);
    }
    if (flight_next(i->messages) && pn_link_credit(i->link) > 0)
        identity_list_put(i, IDENTITY_LIST_READY);
}

/* Nothing is in flight; when nothing waits either, its time of idleness begins. */
static void identity_rest(struct identity_link *i)
{
    if (i->messages->count > 0)
        return;
    i->busy = false;
    timer_rearm(i->timer, i->upstream->config->idle_usec);
}

static void identity_opened(struct identity_link *i)
{
    identity_enter(i, IDENTITY_OPEN);
    i->busy = false;
    identity_progress(i);
    timer_rearm(i->timer, i->upstream->config->idle_usec);
    if (i->is_edge_hub)
        upstream_on_edge_hub_open(i->upstream);
    if (i->messages->count > 0)
        identity_work(i);
}

/* Something to do and nothing moves; or nothing to do for long. */
static void identity_check(struct identity_link *i)
{
    uint64_t since = now_usec() - i->progress_usec;
    uint64_t limit;

    i->busy = i->messages->count > 0;
    limit = i->busy ? HANG_USEC : i->upstream->config->idle_usec;
    if (since < limit)
        timer_rearm(i->timer, limit - since);
    else if (!i->busy && i->is_edge_hub)
        timer_rearm(i->timer, limit);
    else if (!i->busy)
        identity_close(i);
    else if (!upstream_on_hang(i->upstream, HANG_USEC))
        identity_link_fail(i, IDENTITY_RETURNED, VERDICT_RETRY, PAUSE_USEC,
                           "the hub neither gave credit nor settled a message for long");
}

/* ---- Failing ---- */

static void identity_note_verdict(struct identity_link *i)
{
    switch (i->failure.verdict) {
    case VERDICT_UNKNOWN_IDENTITY:
        i->denied = true;
        i->denied_since_refresh = false;
        upstream_bus_scope_refresh(i);
        break;
    case VERDICT_UNAUTHORIZED:
        upstream_bus_scope_refresh(i);
        upstream_bus_token_again(i->upstream);
        break;
    default:
        break;
    }
}

static void identity_tell(struct identity_link *i, uint64_t wait_usec)
{
    if (i->told)
        return;
    i->told = true;
    log_event(LOG_WARNING, 0, "identity pauses, its messages stay in the store", F_CLIENT(i->name),
              F_REASON(i->failure.reason), F_USEC(wait_usec));
}

static uint32_t random_bits(void)
{
    uint32_t random = 0;

    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
        random = (uint32_t)now_usec();
    return random;
}

/* Gives its messages back, so that they neither wait here nor fill the window. */
static void identity_pause(struct identity_link *i)
{
    uint64_t wait;

    identity_close(i);
    if (i->is_edge_hub && !i->upstream->online) {
        identity_note_verdict(i);
        upstream_on_edge_hub_refused(i->upstream, i->failure.reason);
        return;
    }
    flight_give_back(i->messages);
    upstream_bus_park(i, true);
    wait = backoff_next(&i->backoff, PAUSE_MIN_USEC, i->failure.wait_max_usec, random_bits());
    identity_enter(i, IDENTITY_PAUSED);
    timer_rearm(i->timer, wait);
    identity_tell(i, wait);
    identity_note_verdict(i);
}

static void identity_step_timed_out(struct identity_link *i)
{
    static const char *const reasons[_IDENTITY_STATE_COUNT] = {
        [IDENTITY_CHAIN] = "identity did not answer in time",
        [IDENTITY_TOKEN] = "the hub did not answer to the token in time",
        [IDENTITY_ATTACHING] = "the hub did not answer to the link in time",
        [IDENTITY_SETTLING] = "the hub did not settle all messages in time",
    };

    identity_link_fail(i, IDENTITY_FAILED, VERDICT_RETRY, PAUSE_USEC, "%s", reasons[i->state]);
}

/* What was sent behind the message that came back is waited for: then what is left goes again in order. */
static void identity_settle(struct identity_link *i)
{
    if (i->messages->in_flight == 0) {
        identity_pause(i);
        return;
    }
    identity_enter(i, IDENTITY_SETTLING);
    timer_rearm(i->timer, SETTLE_USEC);
}

/* The store may give its messages again; they make it begin. $edgeHub is there even without. */
static void identity_resumed(struct identity_link *i)
{
    identity_enter(i, IDENTITY_CLOSED);
    timer_stop(i->timer);
    upstream_bus_park(i, false);
    if (i->is_edge_hub)
        identity_link_feed(i, IDENTITY_WORK);
}

/* Nobody will ever take its messages (hub.md §4.3). */
static void identity_vanish(struct identity_link *i)
{
    unsigned dropped = flight_settle_all(i->messages, BUS__OUTCOME__OUTCOME_DROPPED);

    if (!i->gone)
        log_event(LOG_WARNING, 0,
                  "identity is unknown to the hub and to the scope: its messages are dropped",
                  F_CLIENT(i->name), F_COUNT(dropped));
    i->gone = true;
    identity_close(i);
    upstream_send_soon(i->upstream); /* the acks, too */
}

static identity_fn *const identity_actions[_IDENTITY_STATE_COUNT][_IDENTITY_EVENT_COUNT] = {
    [IDENTITY_CLOSED] = {
        [IDENTITY_WORK]         = identity_begin,
        [IDENTITY_CHAIN_KNOWN]  = identity_ignore,
        [IDENTITY_GONE]         = identity_ignore,
        [IDENTITY_TOKEN_TAKEN]  = identity_ignore,
        [IDENTITY_ATTACHED]     = identity_ignore,
        [IDENTITY_FAILED]       = identity_pause,      /* before it began: no token for it */
        [IDENTITY_RETURNED]     = identity_ignore,
        [IDENTITY_SETTLED]      = identity_ignore,
        [IDENTITY_TIMEOUT]      = identity_ignore,
        [IDENTITY_OFFLINE]      = identity_go_offline,
    },
    [IDENTITY_CHAIN] = {
        [IDENTITY_WORK]         = identity_ignore,
        [IDENTITY_CHAIN_KNOWN]  = identity_ask_token,
        [IDENTITY_GONE]         = identity_vanish,
        [IDENTITY_TOKEN_TAKEN]  = identity_ignore,
        [IDENTITY_ATTACHED]     = identity_ignore,
        [IDENTITY_FAILED]       = identity_pause,
        [IDENTITY_RETURNED]     = identity_ignore,
        [IDENTITY_SETTLED]      = identity_ignore,
        [IDENTITY_TIMEOUT]      = identity_step_timed_out,
        [IDENTITY_OFFLINE]      = identity_go_offline,
    },
    [IDENTITY_TOKEN] = {
        [IDENTITY_WORK]         = identity_ignore,
        [IDENTITY_CHAIN_KNOWN]  = identity_ignore,
        [IDENTITY_GONE]         = identity_ignore,
        [IDENTITY_TOKEN_TAKEN]  = identity_attach,
        [IDENTITY_ATTACHED]     = identity_ignore,
        [IDENTITY_FAILED]       = identity_pause,
        [IDENTITY_RETURNED]     = identity_ignore,
        [IDENTITY_SETTLED]      = identity_ignore,
        [IDENTITY_TIMEOUT]      = identity_step_timed_out,
        [IDENTITY_OFFLINE]      = identity_go_offline,
    },
    [IDENTITY_ATTACHING] = {
        [IDENTITY_WORK]         = identity_ignore,
        [IDENTITY_CHAIN_KNOWN]  = identity_ignore,
        [IDENTITY_GONE]         = identity_ignore,
        [IDENTITY_TOKEN_TAKEN]  = identity_ignore,
        [IDENTITY_ATTACHED]     = identity_opened,
        [IDENTITY_FAILED]       = identity_pause,
        [IDENTITY_RETURNED]     = identity_pause,      /* its token could not be renewed */
        [IDENTITY_SETTLED]      = identity_ignore,
        [IDENTITY_TIMEOUT]      = identity_step_timed_out,
        [IDENTITY_OFFLINE]      = identity_go_offline,
    },
    [IDENTITY_OPEN] = {
        [IDENTITY_WORK]         = identity_work,
        [IDENTITY_CHAIN_KNOWN]  = identity_ignore,
        [IDENTITY_GONE]         = identity_ignore,
        [IDENTITY_TOKEN_TAKEN]  = identity_ignore,
        [IDENTITY_ATTACHED]     = identity_ignore,
        [IDENTITY_FAILED]       = identity_pause,
        [IDENTITY_RETURNED]     = identity_settle,
        [IDENTITY_SETTLED]      = identity_rest,
        [IDENTITY_TIMEOUT]      = identity_check,
        [IDENTITY_OFFLINE]      = identity_go_offline,
    },
    [IDENTITY_SETTLING] = {
        [IDENTITY_WORK]         = identity_ignore,
        [IDENTITY_CHAIN_KNOWN]  = identity_ignore,
        [IDENTITY_GONE]         = identity_ignore,
        [IDENTITY_TOKEN_TAKEN]  = identity_ignore,
        [IDENTITY_ATTACHED]     = identity_ignore,
        [IDENTITY_FAILED]       = identity_pause,
        [IDENTITY_RETURNED]     = identity_ignore,
        [IDENTITY_SETTLED]      = identity_pause,
        [IDENTITY_TIMEOUT]      = identity_step_timed_out,
        [IDENTITY_OFFLINE]      = identity_go_offline,
    },
    [IDENTITY_PAUSED] = {       /* with or without a connection: it is not in a hurry */
        [IDENTITY_WORK]         = identity_ignore,
        [IDENTITY_CHAIN_KNOWN]  = identity_ignore,
        [IDENTITY_GONE]         = identity_ignore,
        [IDENTITY_TOKEN_TAKEN]  = identity_ignore,
        [IDENTITY_ATTACHED]     = identity_ignore,
        [IDENTITY_FAILED]       = identity_ignore,
        [IDENTITY_RETURNED]     = identity_ignore,
        [IDENTITY_SETTLED]      = identity_ignore,
        [IDENTITY_TIMEOUT]      = identity_resumed,
        [IDENTITY_OFFLINE]      = identity_ignore,
    },
};

void identity_link_feed(struct identity_link *i, enum identity_event event)
{
    identity_actions[i->state][event](i);
}

bool identity_table_has(enum identity_state state, enum identity_event event)
{
    return identity_actions[state][event] != NULL;
}

void identity_link_resume(struct identity_link *i)
{
    if (i->state == IDENTITY_PAUSED)
        timer_rearm(i->timer, 0);
}

/* ---- Messages ---- */

static void message_send(struct identity_link *i, struct flight_message *m)
{
    uint64_t tag = ++i->upstream->last_tag;
    pn_delivery_t *delivery = pn_delivery(i->link, pn_dtag((const char *)&tag, sizeof(tag)));

    pn_delivery_set_context(delivery, m);
    pn_link_send(i->link, m->data, m->len);
    pn_link_advance(i->link);
    flight_sent(m);
}

static void message_reject(struct identity_link *i, struct flight_message *m, const char *reason)
{
    unsigned suppressed;

    if (log_limit_pass(&i->upstream->reject_limit, 10 * UINT64_C(1000000), &suppressed))
        log_event(LOG_WARNING, 0, "message dropped, the hub will never take it", F_CLIENT(i->name),
                  F_BYTES(m->len), F_REASON(reason), F_NUM("suppressed", suppressed));
    flight_settled(m, BUS__OUTCOME__OUTCOME_REJECTED);
}

size_t identity_link_send(struct identity_link *i, unsigned messages_max)
{
    uint64_t largest = pn_link_remote_max_message_size(i->link);
    struct flight_message *m = NULL;
    size_t bytes = 0;

    for (unsigned n = 0;
         n < messages_max && pn_link_credit(i->link) > 0 && (m = flight_next(i->messages)); n++) {
        if (largest > 0 && m->len > largest) {
            message_reject(i, m, "larger than the link takes");
            continue;
        }
        bytes += m->len;
        message_send(i, m);
    }
    if (bytes > 0)
        identity_progress(i);
    identity_list_put(i, IDENTITY_LIST_NONE);
    if (flight_next(i->messages) && pn_link_credit(i->link) > 0)
        identity_list_put(i, IDENTITY_LIST_READY); /* behind the others */
    return bytes;
}

static enum transfer_outcome outcome_of(uint64_t state)
{
    switch (state) {
    case PN_ACCEPTED:
        return TRANSFER_ACCEPTED;
    case PN_REJECTED:
        return TRANSFER_REJECTED;
    case PN_RELEASED:
        return TRANSFER_RELEASED;
    case PN_MODIFIED:
        return TRANSFER_MODIFIED;
    default:
        return TRANSFER_NONE;
    }
}

static void message_delivered(struct identity_link *i, struct flight_message *m)
{
    flight_settled(m, BUS__OUTCOME__OUTCOME_DELIVERED);
    i->upstream->sent++;
    i->denied = false;
    if (i->told)
        log_event(LOG_INFO, 0, "hub takes this identity again", F_CLIENT(i->name));
    i->told = false;
    backoff_reset(&i->backoff);
}

static void message_decide(struct identity_link *i, struct flight_message *m,
                           enum transfer_outcome outcome, const char *condition)
{
    enum verdict verdict = verdict_of_transfer(outcome, condition);

    switch (verdict) {
    case VERDICT_DELIVERED:
        message_delivered(i, m);
        break;
    case VERDICT_TOO_LARGE:
    case VERDICT_REJECTED:
        message_reject(i, m, condition);
        break;
    default:
        flight_returned(m);
        identity_link_fail(i, IDENTITY_RETURNED, verdict, condition_wait_max_usec(condition),
                           "message refused: %s",
                           condition                      ? condition
                           : outcome == TRANSFER_REJECTED ? "no reason given"
                                                          : "released");
    }
}

static void identity_on_delivery(struct identity_link *i, pn_delivery_t *delivery)
{
    struct flight_message *m = pn_delivery_get_context(delivery);
    enum transfer_outcome outcome = outcome_of(pn_delivery_remote_state(delivery));
    const char *condition;

    if (!pn_delivery_updated(delivery) ||
        (outcome == TRANSFER_NONE && !pn_delivery_settled(delivery)))
        return;
    condition = pn_condition_get_name(pn_disposition_condition(pn_delivery_remote(delivery)));
    identity_progress(i);
    message_decide(i, m, outcome, condition);
    pn_delivery_settle(delivery);
    if (i->messages->in_flight == 0)
        identity_link_feed(i, IDENTITY_SETTLED);
}

/* ---- Events of the link ---- */

static void identity_on_remote_open(struct identity_link *i)
{
    /* Without our target it is refused: the detach that follows says why. */
    if (pn_terminus_get_address(pn_link_remote_target(i->link)))
        identity_link_feed(i, IDENTITY_ATTACHED);
}

static void identity_on_end(struct identity_link *i, pn_condition_t *condition)
{
    const char *name = pn_condition_get_name(condition),
               *description = pn_condition_get_description(condition);

    identity_link_fail(i, IDENTITY_FAILED, verdict_of_detach(name), condition_wait_max_usec(name),
                       "link ended by the hub: %s%s%s", name ? name : "no reason given",
                       description ? ": " : "", description ? description : "");
}

void identity_link_take_event(struct identity_link *i, pn_event_t *event)
{
    switch (pn_event_type(event)) {
    case PN_LINK_REMOTE_OPEN:
        identity_on_remote_open(i);
        break;
    case PN_LINK_FLOW:
        if (i->messages->count > 0)
            identity_link_feed(i, IDENTITY_WORK);
        break;
    case PN_DELIVERY:
        identity_on_delivery(i, pn_event_delivery(event));
        break;
    case PN_LINK_REMOTE_DETACH:
    case PN_LINK_REMOTE_CLOSE:
        identity_on_end(i, pn_link_remote_condition(i->link));
        break;
    case PN_SESSION_REMOTE_CLOSE:
        identity_on_end(i, pn_session_remote_condition(pn_link_session(i->link)));
        break;
    default:
        break;
    }
}

/* ---- Renewal ---- */

static void identity_on_renewed(int status, const char *description, void *userdata)
{
    struct identity_link *i = userdata;

    i->renewal = NULL;
    if (status < 200 || status >= 300)
        identity_link_fail(i, IDENTITY_RETURNED, token_verdict(status), PAUSE_USEC,
                           "new token refused: %d %s", status, description);
}

void identity_link_renew_token(struct identity_link *i)
{
    if (!i->link)
        return; /* it takes the new one when it begins */
    i->renewal = cbs_cancel(i->renewal);
    i->renewal = identity_put(i, identity_on_renewed);
}

/* ---- Life ---- */

static int identity_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    identity_link_feed(userdata, IDENTITY_TIMEOUT);
    return 0;
}

int identity_link_new(struct upstream *upstream, const char *name,
                      struct flight_partition *messages, bool is_edge_hub,
                      struct identity_link **ret)
{
    _cleanup_(identity_link_freep) struct identity_link *i = xnew(struct identity_link);
    int r;

    i->upstream = upstream;
    i->name = xstrdup(name);
    i->messages = messages;
    i->is_edge_hub = is_edge_hub;
    identity_split(name, &i->device_id, &i->module_id);
    if (!i->module_id)
        i->module_id = xstrdup("");
    r = plugin_add_timer(upstream->plugin, 0, identity_on_timer, i, &i->timer);
    if (r < 0)
        return r;
    timer_stop(i->timer);
    *ret = TAKE_PTR(i);
    return 0;
}

struct identity_link *identity_link_free(struct identity_link *i)
{
    if (!i)
        return NULL;
    sd_event_source_disable_unref(i->timer);
    identity_cancel_requests(i);
    free(i->name);
    free(i->device_id);
    free(i->module_id);
    free(i->auth_chain);
    free(i);
    return NULL;
}
