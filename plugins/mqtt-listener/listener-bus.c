/*
 * All that passes between this process and its peers, but for the messages (producer.c, inputs.c):
 * what it may be told, whom it asks about clients and sessions, and what the router is told of who
 * is connected.
 *
 * A question stays open until it is answered or its deadline passes, even when its client is gone:
 * what was sent waits in the peer's queue anyway, and so there is a bound to it.
 */
#include "listener.h"

#include "listener.pb-c.h"

enum {
    LANE_OPEN_MAX = BUS_WINDOW_MAX - 2, /* to the store, acknowledgements go beside it */
    NOTICES_OPEN_MAX = 8,               /* beside the producer's window, in the router's */
};
static const uint64_t ASK_DEADLINE_USEC = 25 * 1000 * 1000;
static const uint64_t NOTICE_DEADLINE_USEC = 10 * 1000 * 1000;
static const uint64_t SCOPE_SPREAD_USEC = 5 * 1000 * 1000;

enum ask_kind { ASK_LOGIN, ASK_RECHECK, ASK_LOAD, ASK_SAVE, ASK_REMOVE, _ASK_KIND_COUNT };

/* A question about a client. */
struct ask {
    TAILQ_ENTRY(ask) link;
    struct listener *listener;
    struct lane *lane;
    struct connection *connection; /* NULL: it is gone, nobody is told the answer */
    struct bus_request *request;
    enum ask_kind kind;
    struct buf record; /* ASK_SAVE */
};

/* ---- the questions ---- */

static void ask_on_answer(const Bus__Envelope *answer, void *userdata);

static int ask_send_envelope(struct ask *ask, Bus__Envelope *request)
{
    return bus_request(ask->lane->peer, request, ASK_DEADLINE_USEC, ask_on_answer, ask,
                       &ask->request);
}

static int ask_send_authenticate(struct ask *ask)
{
    const struct connection *c = ask->connection;
    Bus__Authenticate authenticate = BUS__AUTHENTICATE__INIT;
    Bus__Envelope request = ENVELOPE(AUTHENTICATE, authenticate, &authenticate);

    authenticate.device_id = c->client.device_id;
    authenticate.module_id = c->client.module_id;
    authenticate.recheck = ask->kind == ASK_RECHECK;
    if (c->client.token) {
        authenticate.sas_token = c->client.token;
    } else {
        authenticate.n_certificate_chain = c->chain_count;
        authenticate.certificate_chain = c->chain;
    }
    return ask_send_envelope(ask, &request);
}

static int ask_send_load(struct ask *ask)
{
    const struct client *client = &ask->connection->client;
    _cleanup_(freep) char *key = session_key(client->device_id, client->module_id);
    Bus__RecordGet get = BUS__RECORD_GET__INIT;
    Bus__Envelope request = ENVELOPE(RECORD_GET, record_get, &get);

    get.key = key;
    return ask_send_envelope(ask, &request);
}

/* Without producer and sequence: the same put twice leaves the same record. */
static int ask_send_save(struct ask *ask)
{
    const struct client *client = &ask->connection->client;
    _cleanup_(freep) char *key = session_key(client->device_id, client->module_id);
    struct span record = buf_span(&ask->record);
    Bus__RecordPut put = BUS__RECORD_PUT__INIT;
    Bus__Envelope request = ENVELOPE(RECORD_PUT, record_put, &put);

    put.key = key;
    put.value = (ProtobufCBinaryData){ record.len, (uint8_t *)record.at };
    put.remove = ask->kind == ASK_REMOVE;
    return ask_send_envelope(ask, &request);
}

/* ---- the answers ---- */

static const char *answer_error(const Bus__Envelope *answer, const char *away)
{
    if (!answer)
        return away;
    return *answer->error ? answer->error : "no reason given";
}

static void ask_take_verdict(struct ask *ask, const Bus__Envelope *answer)
{
    static const enum client_verdict verdicts[] = {
        [BUS__VERDICT__VERDICT_UNSET] = CLIENT_UNDECIDED,
        [BUS__VERDICT__VERDICT_ACCEPTED] = CLIENT_ACCEPTED,
        [BUS__VERDICT__VERDICT_REFUSED] = CLIENT_REFUSED,
        [BUS__VERDICT__VERDICT_NOT_YET] = CLIENT_UNDECIDED,
    };
    struct connection *c = ask->connection;
    enum client_verdict verdict = CLIENT_UNDECIDED;
    const char *reason;

    c->identity_ask = NULL;
    if (!answer || answer->status != STATUS_DONE ||
        answer->body_case != BUS__ENVELOPE__BODY_AUTHENTICATED) {
        client_on_authenticated(&c->client, CLIENT_UNDECIDED,
                                answer_error(answer, "identity is away"));
        return;
    }
    if ((size_t)answer->authenticated->verdict < ELEMENTSOF(verdicts))
        verdict = verdicts[answer->authenticated->verdict];
    reason = answer->authenticated->reason;
    c->client.is_edge_module = answer->authenticated->edge_module;
    client_on_authenticated(&c->client, verdict, *reason ? reason : "no reason given");
}

static void ask_take_record(struct ask *ask, const Bus__Envelope *answer)
{
    struct connection *c = ask->connection;
    struct span record;

    c->store_ask = NULL;
    if (answer && answer->status == STATUS_DONE &&
        answer->body_case == BUS__ENVELOPE__BODY_RECORDS && answer->records->n_records > 0) {
        const ProtobufCBinaryData *value = &answer->records->records[0]->value;

        record = span_of(value->data, value->len);
        client_on_session_loaded(&c->client, true, &record);
        return;
    }
    client_on_session_loaded(
        &c->client, answer && (answer->status == STATUS_DONE || answer->status == STATUS_NOT_FOUND),
        NULL);
}

static void ask_take_saved(struct ask *ask, const Bus__Envelope *answer)
{
    struct connection *c = ask->connection;

    c->store_ask = NULL;
    client_on_session_saved(
        &c->client, answer && (answer->status == STATUS_DONE ||
                               (ask->kind == ASK_REMOVE && answer->status == STATUS_NOT_FOUND)));
}

static const struct {
    int (*send)(struct ask *ask);
    void (*take)(struct ask *ask, const Bus__Envelope *answer);
} ask_kinds[_ASK_KIND_COUNT] = {
    [ASK_LOGIN] = { ask_send_authenticate, ask_take_verdict },
    [ASK_RECHECK] = { ask_send_authenticate, ask_take_verdict },
    [ASK_LOAD] = { ask_send_load, ask_take_record },
    [ASK_SAVE] = { ask_send_save, ask_take_saved },
    [ASK_REMOVE] = { ask_send_save, ask_take_saved },
};

/* ---- the lanes ---- */

static void ask_free(struct ask *ask)
{
    buf_done(&ask->record);
    free(ask);
}

static void lane_pump(struct lane *lane)
{
    struct ask *ask;

    while (lane->open_count < LANE_OPEN_MAX && (ask = TAILQ_FIRST(&lane->waiting))) {
        int r = ask_kinds[ask->kind].send(ask);

        if (r < 0)
            log_event(LOG_WARNING, r, "cannot ask about a client, trying again");
        if (r != 0)
            return; /* the next tick, or the next answer, tries again */
        TAILQ_REMOVE(&lane->waiting, ask, link);
        TAILQ_INSERT_TAIL(&lane->open, ask, link);
        lane->open_count++;
    }
}

static void ask_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct ask *ask = userdata;
    struct listener *l = ask->listener;
    struct lane *lane = ask->lane;

    TAILQ_REMOVE(&lane->open, ask, link);
    lane->open_count--;
    listener_begin(l);
    if (ask->connection) {
        listener_touch(l, ask->connection);
        ask_kinds[ask->kind].take(ask, answer);
    }
    ask_free(ask);
    lane_pump(lane);
}

static struct ask *lane_ask(struct listener *l, struct lane *lane, struct connection *c,
                            enum ask_kind kind, const struct span *record)
{
    struct ask *ask = xnew(struct ask);

    ask->listener = l;
    ask->lane = lane;
    ask->connection = c;
    ask->kind = kind;
    if (record)
        buf_append_span(&ask->record, *record);
    TAILQ_INSERT_TAIL(&lane->waiting, ask, link);
    lane_pump(lane);
    return ask;
}

void listener_bus_authenticate(struct listener *l, struct connection *c, bool recheck)
{
    if (!c->identity_ask) /* else the last recheck is not answered yet */
        c->identity_ask = lane_ask(l, &l->identity, c, recheck ? ASK_RECHECK : ASK_LOGIN, NULL);
}

void listener_bus_load_session(struct listener *l, struct connection *c)
{
    c->store_ask = lane_ask(l, &l->store, c, ASK_LOAD, NULL);
}

void listener_bus_save_session(struct listener *l, struct connection *c, const struct span *record)
{
    c->store_ask = lane_ask(l, &l->store, c, record ? ASK_SAVE : ASK_REMOVE, record);
}

static void ask_forget(struct ask *ask)
{
    if (!ask)
        return;
    ask->connection = NULL;
    if (ask->request)
        return; /* under way */
    TAILQ_REMOVE(&ask->lane->waiting, ask, link);
    ask_free(ask);
}

void listener_bus_forget(struct listener *l, struct connection *c)
{
    ask_forget(TAKE_PTR(c->identity_ask));
    ask_forget(TAKE_PTR(c->store_ask));
}

/* ---- the router's directory ---- */

static void directory_sync(struct listener *l);

/* What could not be told one by one is told all together, when nothing older is under way. A
 * failure waits for the tick. */
static void directory_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct listener *l = userdata;

    l->notices_open--;
    if (!answer || answer->status != STATUS_DONE)
        l->directory_stale = true;
    else if (l->directory_stale && l->notices_open == 0)
        directory_sync(l);
}

static void directory_tell(struct listener *l, Bus__Envelope *notice)
{
    if (l->notices_open < NOTICES_OPEN_MAX && !l->directory_stale &&
        bus_request(l->router, notice, NOTICE_DEADLINE_USEC, directory_on_answer, l, NULL) == 0)
        l->notices_open++;
    else
        l->directory_stale = true;
}

static Bus__ClientConnected directory_entry(const struct connection *c)
{
    Bus__ClientConnected entry = BUS__CLIENT_CONNECTED__INIT;

    entry.device_id = c->client.device_id;
    entry.module_id = c->client.module_id;
    entry.connection = c->number;
    entry.peer_address = c->peer_address;
    entry.protocol = (char *)"mqtt";
    entry.product_info = c->client.product_info;
    entry.since_sec = c->since_sec;
    return entry;
}

static void directory_sync(struct listener *l)
{
    Bus__ClientConnected *entries = xnew_n(Bus__ClientConnected, l->identities.count + 1);
    Bus__ClientConnected **pointers = xnew_n(Bus__ClientConnected *, l->identities.count + 1);
    Bus__ClientsSync sync = BUS__CLIENTS_SYNC__INIT;
    Bus__Envelope notice = ENVELOPE(CLIENTS_SYNC, clients_sync, &sync);
    const struct connection *c;

    TAILQ_FOREACH(c, &l->connections, all_link)
    {
        if (!c->holds_identity || c->ended)
            continue;
        entries[sync.n_clients] = directory_entry(c);
        pointers[sync.n_clients] = &entries[sync.n_clients];
        sync.n_clients++;
    }
    sync.clients = pointers;
    l->directory_stale = false;
    directory_tell(l, &notice);
    free(entries);
    free(pointers);
}

void listener_bus_connected(struct listener *l, const struct connection *c)
{
    Bus__ClientConnected entry = directory_entry(c);
    Bus__Envelope notice = ENVELOPE(CLIENT_CONNECTED, client_connected, &entry);

    directory_tell(l, &notice);
}

void listener_bus_disconnected(struct listener *l, const struct connection *c)
{
    Bus__ClientDisconnected disconnected = BUS__CLIENT_DISCONNECTED__INIT;
    Bus__Envelope notice = ENVELOPE(CLIENT_DISCONNECTED, client_disconnected, &disconnected);

    disconnected.device_id = c->client.device_id;
    disconnected.module_id = c->client.module_id;
    disconnected.connection = c->number;
    directory_tell(l, &notice);
}

bool listener_bus_told_all(const struct listener *l)
{
    return !bus_peer_is_up(l->router) || (l->notices_open == 0 && !l->directory_stale);
}

/* The router came (back): it may be another one, which knows nobody. */
static void listener_on_router(const Bus__Envelope *in, void *userdata)
{
    struct listener *l = userdata;

    if (in)
        return;
    l->directory_stale = true;
    if (l->notices_open == 0)
        directory_sync(l);
}

void listener_bus_tick(struct listener *l)
{
    if (l->directory_stale && l->notices_open == 0)
        directory_sync(l);
    lane_pump(&l->identity);
    lane_pump(&l->store);
}

/* ---- what it is told ---- */

/* Somebody may have lost the right to be here. The same after identity came back: what it announced
 * was not heard. */
static void listener_on_identity(const Bus__Envelope *in, void *userdata)
{
    if (!in || in->body_case == BUS__ENVELOPE__BODY_SCOPE_CHANGED)
        listener_recheck_all(userdata, SCOPE_SPREAD_USEC);
}

static int listener_on_client_taken_over(struct bus_call *call, const Bus__Envelope *in,
                                         void *userdata)
{
    const Bus__ClientTakenOver *told = in->client_taken_over;
    struct listener *l = userdata;
    struct client_map_entry *entry =
        client_map_find(&l->identities, told->device_id, told->module_id);
    struct connection *c = entry ? CONTAINER_OF(entry, struct connection, map_entry) : NULL;

    listener_begin(l);
    if (c && c->number == told->connection) /* else it is gone, or a newer one is there */
        listener_take_over(l, c, "");
    return bus_answer(call, STATUS_DONE);
}

const struct bus_handler listener_handlers[] = {
    { BUS__ENVELOPE__BODY_CLIENT_TAKEN_OVER, PEER_ROUTER, listener_on_client_taken_over },
    {},
};

/* ---- life ---- */

static void lane_init(struct lane *lane, struct bus_peer *peer)
{
    lane->peer = peer;
    TAILQ_INIT(&lane->waiting);
    TAILQ_INIT(&lane->open);
}

int listener_bus_open(struct listener *l)
{
    struct bus *bus = plugin_bus(l->plugin);
    int r;

    l->router = bus_peer(bus, "router");
    lane_init(&l->identity, bus_peer(bus, "identity"));
    lane_init(&l->store, bus_peer(bus, "store"));
    r = bus_subscribe(bus, "router", listener_on_router, l);
    if (r < 0)
        return r;
    return bus_subscribe(bus, "identity", listener_on_identity, l);
}

static void lane_done(struct lane *lane)
{
    struct ask *ask;

    while (lane->peer && (ask = TAILQ_FIRST(&lane->waiting))) {
        TAILQ_REMOVE(&lane->waiting, ask, link);
        ask_free(ask);
    }
    while (lane->peer && (ask = TAILQ_FIRST(&lane->open))) {
        TAILQ_REMOVE(&lane->open, ask, link);
        bus_request_cancel(ask->request);
        ask_free(ask);
    }
}

void listener_bus_close(struct listener *l)
{
    lane_done(&l->identity);
    lane_done(&l->store);
}
