/* For tests: the store and identity, as far as the upstream asks them anything. */
#pragma once

#include <stdio.h>

#include "bus.h"
#include "mem.h"
#include "timer.h"

enum { ROLE_MESSAGES_MAX = 1024, ROLE_TEXT = 4096 };

struct stored {
    char partition[64];
    uint64_t position;
    char body[32];
    bool given, gone;
    Bus__Outcome outcome;
};

struct store {
    struct bus *bus;
    struct stored messages[ROLE_MESSAGES_MAX];
    unsigned count;
    char parked[256]; /* " D " of each that is */
    char parks[512];  /* what was asked: "+D -D …" */
    uint64_t lease, sequence;
    uint32_t messages_max;
    struct bus_call *poll;
    unsigned fetches, acks;
    unsigned refuse_acks; /* answered BUSY */
    bool lose_lease;
};

struct roles {
    sd_event *event;
    char bus_dir[64];
    struct store store;
    struct bus *identity;
    uint16_t port;
    unsigned tokens, refreshes;
    int64_t token_life_sec;
    char refreshed[256];
    const char *unknown; /* an identity that is not in the scope */
};

static inline uint64_t role_who(int64_t pid, uint32_t uid, void *userdata)
{
    return PEER_UPSTREAM;
}

/* ---- Store ---- */

static inline bool store_is_parked(const struct store *s, const char *partition)
{
    char name[80];

    snprintf(name, sizeof(name), " %s ", partition);
    return strstr(s->parked, name) != NULL;
}

static inline bool store_answer_poll(struct store *s)
{
    Bus__Fetched fetched = BUS__FETCHED__INIT;
    Bus__Envelope answer = ENVELOPE(FETCHED, fetched, &fetched);
    static Bus__FetchedItem items[ROLE_MESSAGES_MAX];
    static Bus__FetchedItem *pointers[ROLE_MESSAGES_MAX];
    static uint8_t packed[ROLE_MESSAGES_MAX][256];

    for (unsigned n = 0; n < s->count && fetched.n_items < s->messages_max; n++) {
        struct stored *m = &s->messages[n];
        Bus__Message message = BUS__MESSAGE__INIT;
        Bus__FetchedItem *item = &items[fetched.n_items];

        if (m->given || m->gone || store_is_parked(s, m->partition))
            continue;
        m->given = true;
        message.device_id = m->partition;
        message.body = (ProtobufCBinaryData){ strlen(m->body), (uint8_t *)m->body };
        bus__fetched_item__init(item);
        item->partition = m->partition;
        item->position = m->position;
        item->message.data = packed[fetched.n_items];
        item->message.len =
            strcmp(m->body, "damaged") == 0 ? 1 : bus__message__pack(&message, item->message.data);
        if (item->message.len == 1)
            item->message.data[0] = 0xff;
        pointers[fetched.n_items++] = item;
    }
    if (fetched.n_items == 0)
        return false;
    fetched.items = pointers;
    bus_answer_with(TAKE_PTR(s->poll), &answer);
    return true;
}

static inline void store_add(struct store *s, const char *partition, const char *body)
{
    struct stored *m = &s->messages[s->count];

    assert_true(s->count < ROLE_MESSAGES_MAX);
    *m = (struct stored){ .position = s->count + 1 };
    snprintf(m->partition, sizeof(m->partition), "%s", partition);
    snprintf(m->body, sizeof(m->body), "%s", body);
    s->count++;
}

static inline void store_serve(struct store *s)
{
    if (s->poll)
        store_answer_poll(s);
}

static inline int store_on_fetch(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct store *s = userdata;

    s->fetches++;
    assert_string_equal(in->fetch->queue, "$upstream");
    if (s->lose_lease)
        return bus_answer(call, STATUS_LEASE_LOST);
    assert_true(in->fetch->sequence >= s->sequence);
    s->sequence = in->fetch->sequence;
    s->messages_max = in->fetch->messages_max;
    if (s->poll)
        bus_call_drop(s->poll);
    s->poll = bus_call_keep(call);
    store_answer_poll(s);
    return 0;
}

static inline int store_on_ack(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct store *s = userdata;

    s->acks++;
    if (s->refuse_acks > 0) {
        s->refuse_acks--;
        return bus_answer(call, STATUS_BUSY);
    }
    for (size_t r = 0; r < in->ack->n_ranges; r++)
        for (unsigned n = 0; n < s->count; n++) {
            const Bus__AckRange *range = in->ack->ranges[r];
            struct stored *m = &s->messages[n];

            if (strcmp(m->partition, range->partition) != 0 || m->position < range->first ||
                m->position > range->last || m->gone)
                continue;
            m->gone = true;
            m->outcome = range->outcome;
        }
    return bus_answer(call, STATUS_DONE);
}

static inline int store_on_park(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct store *s = userdata;
    size_t len = strlen(s->parks);
    char name[80], *at;

    snprintf(s->parks + len, sizeof(s->parks) - len, "%s%c%s", len ? " " : "",
             in->park->parked ? '+' : '-', in->park->partition);
    snprintf(name, sizeof(name), " %s ", in->park->partition);
    at = strstr(s->parked, name);
    if (at && !in->park->parked)
        memmove(at, at + strlen(name), strlen(at + strlen(name)) + 1);
    if (!at && in->park->parked)
        strcat(s->parked, name);
    for (unsigned n = 0; n < s->count && in->park->parked; n++)
        if (strcmp(s->messages[n].partition, in->park->partition) == 0)
            s->messages[n].given = false;
    bus_answer(call, STATUS_DONE);
    store_serve(s);
    return 0;
}

static const struct bus_handler store_handlers[] = {
    { BUS__ENVELOPE__BODY_FETCH, PEER_ANY, store_on_fetch },
    { BUS__ENVELOPE__BODY_ACK, PEER_ANY, store_on_ack },
    { BUS__ENVELOPE__BODY_PARK, PEER_ANY, store_on_park },
    {},
};

static inline unsigned store_count(const struct store *s, Bus__Outcome outcome)
{
    unsigned count = 0;

    for (unsigned n = 0; n < s->count; n++)
        count += s->messages[n].gone && s->messages[n].outcome == outcome;
    return count;
}

static inline void store_start(struct roles *roles)
{
    struct store *s = &roles->store;

    assert_int_equal(bus_new(roles->event, roles->bus_dir, "store", 1, role_who, NULL, &s->bus), 0);
    assert_int_equal(bus_listen(s->bus, store_handlers, s), 0);
}

static inline void store_stop(struct roles *roles)
{
    struct store *s = &roles->store;

    if (s->poll)
        s->poll = bus_call_drop(s->poll);
    s->bus = bus_free(s->bus);
}

/* As after a crash: it knows what was acknowledged, and nothing of who fetched what. */
static inline void store_restart(struct roles *roles)
{
    struct store *s = &roles->store;

    store_stop(roles);
    for (unsigned n = 0; n < s->count; n++)
        s->messages[n].given = false;
    s->parked[0] = '\0';
    s->sequence = 0;
    store_start(roles);
}

/* ---- Identity ---- */

static inline int role_on_token(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct roles *roles = userdata;
    _cleanup_(freep) char *text = xasprintf("token %u", ++roles->tokens);
    Bus__Token token = BUS__TOKEN__INIT;
    Bus__Envelope answer = ENVELOPE(TOKEN, token, &token);

    token.sas_token = text;
    token.expires_sec = utc_sec() + roles->token_life_sec;
    token.hub_hostname = (char *)"lab.hub";
    token.gateway_hostname = (char *)"127.0.0.1";
    token.device_id = (char *)"edge";
    return bus_answer_with(call, &answer);
}

static inline int role_on_chain(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    const Bus__ChainGet *get = in->chain_get;
    struct roles *roles = userdata;
    _cleanup_(freep) char *text = *get->module_id
                                      ? xasprintf("%s/%s;edge", get->device_id, get->module_id)
                                      : xasprintf("%s;edge", get->device_id);
    Bus__Chain chain = BUS__CHAIN__INIT;
    Bus__Envelope answer = ENVELOPE(CHAIN, chain, &chain);

    if (roles->unknown && strcmp(get->device_id, roles->unknown) == 0)
        return bus_answer_error(call, STATUS_NOT_FOUND, "not in the scope");
    chain.auth_chain = text;
    return bus_answer_with(call, &answer);
}

static inline int role_on_refresh(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct roles *roles = userdata;
    size_t len = strlen(roles->refreshed);

    roles->refreshes++;
    snprintf(roles->refreshed + len, sizeof(roles->refreshed) - len, "%s%s", len ? " " : "",
             in->scope_refresh->device_id);
    return bus_answer(call, STATUS_DONE);
}

static const struct bus_handler role_identity_handlers[] = {
    { BUS__ENVELOPE__BODY_TOKEN_GET, PEER_ANY, role_on_token },
    { BUS__ENVELOPE__BODY_CHAIN_GET, PEER_ANY, role_on_chain },
    { BUS__ENVELOPE__BODY_SCOPE_REFRESH, PEER_ANY, role_on_refresh },
    {},
};

static inline void identity_start(struct roles *roles)
{
    assert_int_equal(
        bus_new(roles->event, roles->bus_dir, "identity", 1, role_who, NULL, &roles->identity), 0);
    assert_int_equal(bus_listen(roles->identity, role_identity_handlers, roles), 0);
}

static inline void identity_announce_scope(struct roles *roles)
{
    Bus__ScopeChanged changed = BUS__SCOPE_CHANGED__INIT;
    Bus__Envelope announcement = ENVELOPE(SCOPE_CHANGED, scope_changed, &changed);

    assert_int_equal(bus_announce(roles->identity, &announcement), 0);
}
