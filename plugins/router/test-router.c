/*
 * The whole router on a real bus, in one process and one loop with a store, listeners and an
 * operator that do what the test says. Its routes are in a real file.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "buf.h"
#include "control.h"
#include "message.pb-c.h"
#include "router.h"

enum {
    TEST_USEC = 30 * 1000000,
    ANSWERS_MAX = 64,
    TEXT_MAX = 1024,
};

/* What the router said to a Publish. */
struct answer {
    bool there;
    Bus__Status status;
    char error[256];
    uint64_t expected;
};

/* A listener; its bus is also where it is told of take-overs. */
struct caller {
    struct bus *bus;
    struct bus_peer *router;
    char taken_over[256]; /* "d/m 7" of each */
    unsigned done;        /* requests that were answered DONE */
};

struct fixture {
    char dir[32];
    char *file;
    int control_fd, control_peer_fd;
    struct plugin *plugin;
    struct router_config config;
    struct router *router;

    struct bus *store;
    struct buf record; /* the one record of the store */
    bool record_there;
    unsigned fail_puts, fail_gets, fail_quotas; /* so many are answered FAILED */
    bool holds_puts, holds_appends;
    struct bus_call *held[ANSWERS_MAX];
    unsigned held_count;
    unsigned puts, gets, quotas, appends;
    int64_t quota;
    struct buf appended;       /* what was to be appended last, in words */
    Bus__Status append_status; /* UNSET: it is done */
    uint64_t append_expected;

    struct caller mqtt, amqp;
    struct answer answers[ANSWERS_MAX]; /* by sequence */

    struct bus *operator;
    unsigned told; /* answers that the operator got */
    char text[TEXT_MAX];
    char *source, *refused, *problem;
    int64_t version;
    uint64_t received, unrouted;
};

/* ---- the store ---- */

static uint64_t on_who(int64_t pid, uint32_t uid, void *userdata)
{
    return PEER_ROUTER;
}

static int hold(struct fixture *f, struct bus_call *call)
{
    assert_true(f->held_count < ELEMENTSOF(f->held));
    f->held[f->held_count++] = bus_call_keep(call);
    return 0;
}

static void answer_held(struct fixture *f)
{
    for (unsigned i = 0; i < f->held_count; i++)
        assert_int_equal(bus_answer(f->held[i], STATUS_DONE), 0);
    f->held_count = 0;
    f->holds_puts = f->holds_appends = false;
}

static int on_record_put(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;

    f->puts++;
    assert_string_equal(in->record_put->key, "router/routes");
    assert_false(in->record_put->remove);
    if (f->fail_puts > 0) {
        f->fail_puts--;
        return bus_answer_error(call, STATUS_FAILED, "as the test says");
    }
    buf_done(&f->record);
    buf_append(&f->record, in->record_put->value.data, in->record_put->value.len);
    f->record_there = true;
    return f->holds_puts ? hold(f, call) : bus_answer(call, STATUS_DONE);
}

static int on_record_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;
    Bus__Record record = BUS__RECORD__INIT, *list[] = { &record };
    Bus__Records records = BUS__RECORDS__INIT;
    Bus__Envelope answer = ENVELOPE(RECORDS, records, &records);
    struct span value = buf_span(&f->record);

    f->gets++;
    assert_string_equal(in->record_get->key, "router/routes");
    assert_false(in->record_get->prefix);
    if (f->fail_gets > 0) {
        f->fail_gets--;
        return bus_answer_error(call, STATUS_FAILED, "as the test says");
    }
    record.key = in->record_get->key;
    record.value = (ProtobufCBinaryData){ value.len, (uint8_t *)value.at };
    records.n_records = f->record_there;
    records.records = list;
    return bus_answer_with(call, &answer);
}

static int on_quota_set(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;

    f->quotas++;
    if (f->fail_quotas > 0) {
        f->fail_quotas--;
        return bus_answer_error(call, STATUS_FAILED, "as the test says");
    }
    f->quota = in->quota_set->max_bytes;
    return bus_answer(call, STATUS_DONE);
}

/* "p 1: body > queue [partition] priority ttl, …; …" */
static void note_appended(struct buf *out, const Bus__Append *append)
{
    buf_done(out);
    buf_printf(out, "%s %d:", append->producer, (int)append->sequence);
    for (size_t i = 0; i < append->n_items; i++) {
        const Bus__AppendItem *item = append->items[i];
        Bus__Message *m = bus__message__unpack(NULL, item->message.len, item->message.data);

        assert_non_null(m);
        buf_printf(out, "%s %.*s >", i > 0 ? ";" : "", (int)m->body.len, (char *)m->body.data);
        for (size_t t = 0; t < item->n_targets; t++)
            buf_printf(out, "%s %s [%s] %u %d", t > 0 ? "," : "", item->targets[t]->queue,
                       item->targets[t]->partition, item->targets[t]->priority,
                       (int)item->targets[t]->ttl_sec);
        bus__message__free_unpacked(m, NULL);
    }
}

static int on_append(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    struct fixture *f = userdata;
    Bus__Appended appended = BUS__APPENDED__INIT;
    Bus__Envelope answer = ENVELOPE(APPENDED, appended, &appended);

    f->appends++;
    note_appended(&f->appended, in->append);
    if (f->holds_appends)
        return hold(f, call);
    if (f->append_status == STATUS_UNSET)
        return bus_answer(call, STATUS_DONE);
    if (f->append_status != STATUS_OUT_OF_ORDER)
        return bus_answer_error(call, f->append_status, "as the test says");
    appended.expected_sequence = f->append_expected;
    answer.status = STATUS_OUT_OF_ORDER;
    return bus_answer_with(call, &answer);
}

static const struct bus_handler store_handlers[] = {
    { BUS__ENVELOPE__BODY_RECORD_PUT, PEER_ANY, on_record_put },
    { BUS__ENVELOPE__BODY_RECORD_GET, PEER_ANY, on_record_get },
    { BUS__ENVELOPE__BODY_QUOTA_SET, PEER_ANY, on_quota_set },
    { BUS__ENVELOPE__BODY_APPEND, PEER_ANY, on_append },
    {},
};

static int on_client_taken_over(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    const Bus__ClientTakenOver *taken = in->client_taken_over;
    struct caller *caller = userdata;
    size_t len = strlen(caller->taken_over);

    snprintf(caller->taken_over + len, sizeof(caller->taken_over) - len, "%s%s/%s %d",
             len > 0 ? ", " : "", taken->device_id, taken->module_id, (int)taken->connection);
    return bus_answer(call, STATUS_DONE);
}

static const struct bus_handler listener_handlers[] = {
    { BUS__ENVELOPE__BODY_CLIENT_TAKEN_OVER, PEER_ANY, on_client_taken_over },
    {},
};

static struct bus *make_bus(struct fixture *f, const char *role, const struct bus_handler *handlers,
                            void *userdata)
{
    _cleanup_(freep) char *dir = xasprintf("%s/bus", f->dir);
    struct bus *bus = NULL;

    assert_int_equal(bus_new(plugin_event(f->plugin), dir, role, 1, on_who, f, &bus), 0);
    if (handlers)
        assert_int_equal(bus_listen(bus, handlers, userdata), 0);
    return bus;
}

static void start_store(struct fixture *f)
{
    f->store = make_bus(f, "store", store_handlers, f);
}

/* What it holds is answered nobody. */
static void stop_store(struct fixture *f)
{
    while (f->held_count > 0)
        bus_call_drop(f->held[--f->held_count]);
    f->store = bus_free(f->store);
    f->puts = f->gets = f->quotas = f->appends = 0;
}

/* ---- waiting ---- */

static void turn(struct fixture *f, uint64_t since_usec)
{
    if (now_usec() - since_usec > TEST_USEC)
        fail_msg("what was waited for did not come");
    assert_true(sd_event_run(plugin_event(f->plugin), 100000) >= 0);
}

#define loop_until(f, done)                                                                        \
    do {                                                                                           \
        uint64_t _since = now_usec();                                                              \
        while (!(done))                                                                            \
            turn(f, _since);                                                                       \
    } while (0)

/* All questions of the router are answered. */
static void wait_for_silence(struct fixture *f)
{
    const struct bus_peer *store = bus_peer(plugin_bus(f->plugin), "store");

    loop_until(f, bus_peer_is_up(store) && bus_peer_outstanding(store) == 0);
}

/* ---- listeners ---- */

static void on_done(const Bus__Envelope *answer, void *userdata)
{
    struct caller *caller = userdata;

    assert_non_null(answer);
    assert_int_equal(answer->status, STATUS_DONE);
    caller->done++;
}

static void tell(struct fixture *f, struct caller *caller, Bus__Envelope *request)
{
    unsigned before = caller->done;

    assert_int_equal(bus_request(caller->router, request, TEST_USEC, on_done, caller, NULL), 0);
    loop_until(f, caller->done > before);
}

static void tell_sync(struct fixture *f, struct caller *caller)
{
    Bus__ClientsSync sync = BUS__CLIENTS_SYNC__INIT;

    tell(f, caller, &ENVELOPE(CLIENTS_SYNC, clients_sync, &sync));
}

static void tell_connected(struct fixture *f, struct caller *caller, uint64_t connection)
{
    Bus__ClientConnected connected = BUS__CLIENT_CONNECTED__INIT;

    connected.device_id = (char *)"d";
    connected.module_id = (char *)"m";
    connected.connection = connection;
    tell(f, caller, &ENVELOPE(CLIENT_CONNECTED, client_connected, &connected));
}

static void tell_disconnected(struct fixture *f, struct caller *caller, uint64_t connection)
{
    Bus__ClientDisconnected disconnected = BUS__CLIENT_DISCONNECTED__INIT;

    disconnected.device_id = (char *)"d";
    disconnected.module_id = (char *)"m";
    disconnected.connection = connection;
    tell(f, caller, &ENVELOPE(CLIENT_DISCONNECTED, client_disconnected, &disconnected));
}

/* Who this process is to those that it connects to from here on; NULL: no plugin. */
static void send_roster(struct fixture *f, const char *role)
{
    Bus__RosterEntry entry = BUS__ROSTER_ENTRY__INIT, *entries[] = { &entry };
    Bus__Roster roster = BUS__ROSTER__INIT;
    Bus__Control packet = CONTROL_INIT(ROSTER, roster, &roster);

    entry.pid = (uint64_t)getpid();
    entry.role = (char *)role;
    roster.n_entries = role ? 1 : 0;
    roster.entries = entries;
    assert_int_equal(control_send(f->control_peer_fd, &packet, NULL, 0), 0);
}

/* The router knows it when it has answered. */
static void start_caller(struct fixture *f, struct caller *caller, const char *role)
{
    send_roster(f, role);
    caller->bus = make_bus(f, role, listener_handlers, caller);
    caller->router = bus_peer(caller->bus, "router");
    tell_sync(f, caller);
}

struct message {
    const char *device, *module, *output, *kind, *body;
};

static void on_published(const Bus__Envelope *in, void *userdata)
{
    struct answer *answer = userdata;

    assert_non_null(in);
    assert_false(answer->there);
    answer->there = true;
    answer->status = in->status;
    snprintf(answer->error, sizeof(answer->error), "%s", in->error);
    if (in->body_case == BUS__ENVELOPE__BODY_APPENDED)
        answer->expected = in->appended->expected_sequence;
}

static void pack_message(const struct message *message, Bus__PublishItem *item, struct buf *bytes)
{
    Bus__Property kind = BUS__PROPERTY__INIT, *properties[] = { &kind };
    Bus__Message m = BUS__MESSAGE__INIT;

    kind.name = (char *)"kind";
    kind.value = (char *)message->kind;
    m.device_id = item->device_id = (char *)message->device;
    m.module_id = item->module_id = (char *)message->module;
    item->output_name = (char *)message->output;
    m.n_application = message->kind ? 1 : 0;
    m.application = properties;
    m.body = (ProtobufCBinaryData){ strlen(message->body), (uint8_t *)message->body };
    bus__message__pack(&m, buf_reserve(bytes, bus__message__get_packed_size(&m)));
    buf_commit(bytes, bus__message__get_packed_size(&m));
    item->message = (ProtobufCBinaryData){ buf_len(bytes), (uint8_t *)bytes->data };
}

static struct answer *send_batch(struct fixture *f, uint64_t sequence,
                                 const struct message *messages, size_t count)
{
    Bus__PublishItem items[4], *pointers[4];
    struct buf bytes[4] = {};
    Bus__Publish publish = BUS__PUBLISH__INIT;
    Bus__Envelope request = ENVELOPE(PUBLISH, publish, &publish);
    struct answer *answer = &f->answers[sequence];

    assert_true(count <= ELEMENTSOF(items) && sequence < ELEMENTSOF(f->answers));
    for (size_t i = 0; i < count; i++) {
        bus__publish_item__init(&items[i]);
        pack_message(&messages[i], &items[i], &bytes[i]);
        pointers[i] = &items[i];
    }
    publish.producer = (char *)"p";
    publish.sequence = sequence;
    publish.n_items = count;
    publish.items = pointers;
    *answer = (struct answer){};
    assert_int_equal(bus_request(f->mqtt.router, &request, BUS_FOREVER, on_published, answer, NULL),
                     0);
    for (size_t i = 0; i < count; i++)
        buf_done(&bytes[i]);
    return answer;
}

/* One message of a device. */
static struct answer *send_one(struct fixture *f, uint64_t sequence, const char *body)
{
    return send_batch(f, sequence, &(struct message){ "d", "", "", NULL, body }, 1);
}

static const struct answer *publish(struct fixture *f, uint64_t sequence, const char *body)
{
    const struct answer *answer = send_one(f, sequence, body);

    loop_until(f, answer->there);
    return answer;
}

static void assert_appended(struct fixture *f, const char *want)
{
    if (!span_equal(buf_span(&f->appended), span_str(want)))
        fail_msg("appended '%.*s', expected '%s'", (int)buf_len(&f->appended),
                 buf_span(&f->appended).at, want);
}

/* ---- the operator ---- */

static void keep(char **place, const char *text)
{
    free(*place);
    *place = xstrdup(text);
}

/* "name queue priority ttl, …" */
static void take_routes(struct fixture *f, const Bus__Routes *routes)
{
    size_t len = 0;

    f->text[0] = '\0';
    for (size_t i = 0; i < routes->n_routes; i++) {
        const Bus__Route *route = routes->routes[i];

        len += (size_t)snprintf(f->text + len, sizeof(f->text) - len, "%s%s %s %u %d",
                                i > 0 ? ", " : "", route->name, route->queue, route->priority,
                                (int)route->ttl_sec);
    }
    keep(&f->source, routes->source);
    keep(&f->refused, routes->refused);
    keep(&f->problem, routes->n_problems > 0 ? routes->problems[0] : "");
    f->version = routes->version;
}

/* "d/m 7 at mqtt-listener, …" */
static void take_clients(struct fixture *f, const Bus__Clients *clients)
{
    size_t len = 0;

    f->text[0] = '\0';
    assert_int_equal(clients->n_listeners, clients->n_clients);
    for (size_t i = 0; i < clients->n_clients; i++)
        len += (size_t)snprintf(f->text + len, sizeof(f->text) - len, "%s%s/%s %d at %s",
                                i > 0 ? ", " : "", clients->clients[i]->device_id,
                                clients->clients[i]->module_id,
                                (int)clients->clients[i]->connection, clients->listeners[i]);
}

static void on_told(const Bus__Envelope *answer, void *userdata)
{
    struct fixture *f = userdata;

    assert_non_null(answer);
    assert_int_equal(answer->status, STATUS_DONE);
    f->told++;
    if (answer->body_case == BUS__ENVELOPE__BODY_ROUTES)
        take_routes(f, answer->routes);
    if (answer->body_case == BUS__ENVELOPE__BODY_CLIENTS)
        take_clients(f, answer->clients);
    if (answer->body_case == BUS__ENVELOPE__BODY_ROUTER_STATUS) {
        f->received = answer->router_status->messages_received;
        f->unrouted = answer->router_status->messages_unrouted;
    }
}

static void ask(struct fixture *f, Bus__Envelope *request)
{
    unsigned before = f->told;

    if (!f->operator) {
        send_roster(f, NULL);
        f->operator= make_bus(f, "operator", NULL, NULL);
    }
    assert_int_equal(
        bus_request(bus_peer(f->operator, "router"), request, TEST_USEC, on_told, f, NULL), 0);
    loop_until(f, f->told > before);
}

static void ask_routes(struct fixture *f)
{
    Bus__RoutesGet get = BUS__ROUTES_GET__INIT;

    ask(f, &ENVELOPE(ROUTES_GET, routes_get, &get));
}

static void ask_clients(struct fixture *f)
{
    Bus__ClientsGet get = BUS__CLIENTS_GET__INIT;

    ask(f, &ENVELOPE(CLIENTS_GET, clients_get, &get));
}

static void ask_status(struct fixture *f)
{
    Bus__RouterStatusGet get = BUS__ROUTER_STATUS_GET__INIT;

    ask(f, &ENVELOPE(ROUTER_STATUS_GET, router_status_get, &get));
}

/* As the operator sees them; @refused: something is wrong with the file. */
static void assert_routes(struct fixture *f, const char *want, const char *source, bool refused)
{
    ask_routes(f);
    assert_string_equal(f->text, want);
    assert_string_equal(f->source, source);
    assert_string_equal(f->refused, refused ? f->file : "");
}

/* The router has seen what became of the file. */
static void wait_for_file(struct fixture *f, bool refused)
{
    uint64_t since = now_usec();

    do {
        turn(f, since);
        ask_routes(f);
    } while ((*f->refused != '\0') != refused);
}

/* ---- the file ---- */

#define SETTINGS(version, max_bytes)                                                               \
    "{ \"schemaVersion\": \"1.1\", \"$version\": " version                                         \
    ", \"storeAndForwardConfiguration\": { \"timeToLiveSecs\": 7200, \"storeLimits\": { "          \
    "\"maxSizeBytes\": " max_bytes " } }, \"routes\": { "

#define GOOD                                                                                       \
    SETTINGS("7", "1000000")                                                                       \
    "\"up\": \"FROM /messages/* INTO $upstream\", \"in\": { \"priority\": 3, "                     \
    "\"timeToLiveSecs\": 60, \"route\": \"FROM /messages/modules/m/outputs/o WHERE kind = 'x' "    \
    "INTO BrokeredEndpoint(\\\"/modules/n/inputs/in\\\")\" } } }"
#define GOOD_ROUTES "up $upstream 2000000000 7200, in modules/n/inputs/in 3 60"

#define OTHER                                                                                      \
    SETTINGS("8", "2000000")                                                                       \
    "\"other\": \"FROM /messages/modules/m/* INTO $upstream\" } }"
#define OTHER_ROUTES "other $upstream 2000000000 7200"

#define BAD         SETTINGS("9", "3000000") "\"bad\": \"FROM /messages/* INTO nowhere\" } }"
#define BAD_PROBLEM "Error parsing route bad"

static void write_to(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void write_file(struct fixture *f, const char *text)
{
    write_to(f->file, text);
}

/* All that its folder sees is that it is there. */
static void replace_file(struct fixture *f, const char *text)
{
    _cleanup_(freep) char *path = xasprintf("%s/new", f->dir);

    write_to(path, text);
    assert_int_equal(rename(path, f->file), 0);
}

static void assert_record(struct fixture *f, const char *want)
{
    assert_true(f->record_there);
    assert_true(span_equal(buf_span(&f->record), span_str(want)));
}

static void set_record(struct fixture *f, const char *text)
{
    buf_append_span(&f->record, span_str(text));
    f->record_there = true;
}

/* ---- set-up ---- */

static int listen_for_plugin(const struct fixture *f)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/control.sock", f->dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static int setup(void **state)
{
    struct fixture *f = xnew(struct fixture);
    char *argv[] = { (char *)"brink-router", NULL };
    _cleanup_(freep) char *bus_dir = NULL, *etc_dir = NULL;

    strcpy(f->dir, "/tmp/brink-router-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    bus_dir = xasprintf("%s/bus", f->dir);
    etc_dir = xasprintf("%s/etc", f->dir);
    assert_int_equal(mkdir(bus_dir, 0700), 0);
    assert_int_equal(mkdir(etc_dir, 0700), 0);
    f->file = xasprintf("%s/etc/routes.json", f->dir);
    f->control_fd = listen_for_plugin(f);
    setenv("BRINK_NAME", "router", true);
    setenv("BRINK_RUN_DIR", f->dir, true);
    setenv("BRINK_STATE_DIR", f->dir, true);
    setenv("BRINK_LOG_LEVEL", getenv("TEST_LOG_LEVEL") ?: "error", true);
    assert_int_equal(plugin_new("router", 1, argv, &f->plugin), 0);
    f->control_peer_fd = accept4(f->control_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(f->control_peer_fd >= 0);
    *state = f;
    return 0;
}

static void start_router(struct fixture *f, char *file)
{
    f->config.routes_file = file;
    assert_int_equal(router_new(f->plugin, &f->config, &f->router), 0);
    assert_int_equal(plugin_listen(f->plugin, router_handlers, f->router), 0);
    start_caller(f, &f->mqtt, "mqtt-listener");
}

/* Its file says @text, unless that is NULL; the store is there. */
static void start(struct fixture *f, const char *text)
{
    if (text)
        write_file(f, text);
    start_store(f);
    start_router(f, f->file);
}

static void remove_all(const struct fixture *f)
{
    static const char *const files[] = {
        "etc/routes.json",
        "etc",
        "control.sock",
        "bus/router.ipc",
        "bus/router.pub.ipc",
        "bus/store.ipc",
        "bus/store.pub.ipc",
        "bus/mqtt-listener.ipc",
        "bus/mqtt-listener.pub.ipc",
        "bus/amqp-listener.ipc",
        "bus/amqp-listener.pub.ipc",
        "bus",
        "",
    };

    for (size_t i = 0; i < ELEMENTSOF(files); i++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", f->dir, files[i]);

        (void)remove(path);
    }
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    answer_held(f);
    wait_for_silence(f);
    router_free(f->router);
    plugin_free(f->plugin);
    bus_free(f->mqtt.bus);
    bus_free(f->amqp.bus);
    bus_free(f->operator);
    bus_free(f->store);
    close_fd(f->control_fd);
    close_fd(f->control_peer_fd);
    buf_done(&f->record);
    buf_done(&f->appended);
    free(f->source);
    free(f->refused);
    free(f->problem);
    free(f->file);
    remove_all(f);
    assert_int_equal(stat(f->dir, &st), -1);
    free(f);
    return 0;
}

/* ---- passing on ---- */

/* One Append for one Publish: each message with the queues that the routes say, and who sent it
 * where that makes an order of its own. */
static void test_publish_is_routed(void **state)
{
    static const struct message messages[] = {
        { "d", "", "", NULL, "a" },
        { "d", "m", "o", "x", "b" },
        { "d", "m", "o", "y", "c" },
    };
    struct fixture *f = *state;
    const struct answer *answer;

    start(f, GOOD);
    answer = send_batch(f, 1, messages, ELEMENTSOF(messages));
    loop_until(f, answer->there);
    assert_int_equal(answer->status, STATUS_DONE);
    assert_appended(f, "p 1: a > $upstream [d] 2000000000 7200; "
                       "b > $upstream [d/m] 2000000000 7200, modules/n/inputs/in [] 3 60; "
                       "c > $upstream [d/m] 2000000000 7200");
    assert_int_equal(f->appends, 1);
}

/* Not before the store has said so. */
static void test_answered_by_the_store(void **state)
{
    struct fixture *f = *state;
    const struct answer *answer;

    start(f, GOOD);
    f->holds_appends = true;
    answer = send_one(f, 1, "a");
    loop_until(f, f->appends == 1);
    tell_sync(f, &f->mqtt); /* what was answered before is here */
    assert_false(answer->there);
    answer_held(f);
    loop_until(f, answer->there);
    assert_int_equal(answer->status, STATUS_DONE);
}

static void test_store_refuses(void **state)
{
    struct fixture *f = *state;
    const struct answer *answer;

    start(f, GOOD);
    f->append_status = STATUS_OUT_OF_ORDER;
    f->append_expected = 5;
    answer = publish(f, 9, "a");
    assert_int_equal(answer->status, STATUS_OUT_OF_ORDER);
    assert_int_equal(answer->expected, 5);
    f->append_status = STATUS_FULL;
    answer = publish(f, 5, "a");
    assert_int_equal(answer->status, STATUS_FULL);
    assert_string_equal(answer->error, "as the test says");
}

/* The store counts the sequence of what no route wants, too. */
static void test_unrouted_counts(void **state)
{
    struct fixture *f = *state;

    start(f, OTHER);
    assert_int_equal(publish(f, 1, "a")->status, STATUS_DONE);
    assert_appended(f, "p 1:");
    ask_status(f);
    assert_int_equal(f->received, 1);
    assert_int_equal(f->unrouted, 1);
}

/* It dies with a batch: that is sent again as it was, and answered once. */
static void test_store_dies(void **state)
{
    struct fixture *f = *state;
    const struct answer *answer;

    start(f, GOOD);
    wait_for_silence(f);
    f->holds_appends = true;
    answer = send_one(f, 1, "a");
    loop_until(f, f->appends == 1);
    stop_store(f);
    buf_done(&f->appended);
    f->holds_appends = false;
    start_store(f);
    loop_until(f, answer->there);
    assert_int_equal(answer->status, STATUS_DONE);
    assert_appended(f, "p 1: a > $upstream [d] 2000000000 7200");
}

/* More than the store's window: the listener is told at once, and keeps it. */
static void test_store_is_slow(void **state)
{
    struct fixture *f = *state;

    f->holds_puts = true;
    start(f, GOOD);
    loop_until(f, f->held_count == 1);
    loop_until(f, bus_peer_outstanding(bus_peer(plugin_bus(f->plugin), "store")) == 1);
    f->holds_appends = true;
    for (uint64_t n = 1; n < BUS_WINDOW_MAX; n++)
        send_one(f, n, "a");
    assert_int_equal(publish(f, BUS_WINDOW_MAX, "a")->status, STATUS_BUSY);
    loop_until(f, f->appends == BUS_WINDOW_MAX - 1);
    answer_held(f);
    for (uint64_t n = 1; n < BUS_WINDOW_MAX; n++)
        loop_until(f, f->answers[n].there);
    assert_int_equal(publish(f, BUS_WINDOW_MAX, "a")->status, STATUS_DONE);
    assert_int_equal(f->appends, BUS_WINDOW_MAX);
}

/* ---- the routes ---- */

static void test_file_is_in_force(void **state)
{
    struct fixture *f = *state;

    start(f, GOOD);
    loop_until(f, f->puts == 1);
    assert_record(f, GOOD);
    assert_routes(f, GOOD_ROUTES, f->file, false);
    assert_int_equal(f->version, 7);
    assert_int_equal(f->gets, 0);
}

static void test_no_file_is_named(void **state)
{
    struct fixture *f = *state;

    start_store(f);
    start_router(f, (char *)"");
    assert_routes(f, "upstream $upstream 2000000000 -1", "default", false);
    assert_int_equal(publish(f, 1, "a")->status, STATUS_DONE);
    assert_appended(f, "p 1: a > $upstream [d] 2000000000 -1");
    wait_for_silence(f);
    assert_int_equal(f->puts + f->gets, 0); /* the last good ones stay what they are */
    assert_int_equal(f->quota, 0);
}

static void check_change(struct fixture *f, void (*change)(struct fixture *f, const char *text))
{
    start(f, GOOD);
    loop_until(f, f->puts == 1);
    change(f, OTHER);
    loop_until(f, f->puts == 2);
    assert_record(f, OTHER);
    assert_routes(f, OTHER_ROUTES, f->file, false);
    assert_int_equal(f->version, 8);
    assert_int_equal(publish(f, 1, "a")->status, STATUS_DONE);
    assert_appended(f, "p 1:");
    loop_until(f, f->quota == 2000000);
}

static void test_file_replaced(void **state)
{
    check_change(*state, replace_file);
}

static void test_file_written_in_place(void **state)
{
    check_change(*state, write_file);
}

/* As one was not good: those of before are in force, and stay what a restart finds; it is said what
 * is wrong, until it is mended. */
static void test_bad_change(void **state)
{
    struct fixture *f = *state;

    start(f, GOOD);
    loop_until(f, f->puts == 1);
    replace_file(f, BAD);
    wait_for_file(f, true);
    assert_routes(f, GOOD_ROUTES, f->file, true);
    assert_non_null(strstr(f->problem, BAD_PROBLEM));
    assert_int_equal(publish(f, 1, "a")->status, STATUS_DONE);
    assert_appended(f, "p 1: a > $upstream [d] 2000000000 7200");
    wait_for_silence(f);
    assert_int_equal(f->puts, 1);
    assert_int_equal(f->gets, 0);
    assert_int_equal(f->quota, 1000000);
    replace_file(f, OTHER);
    loop_until(f, f->puts == 2);
    assert_routes(f, OTHER_ROUTES, f->file, false);
    assert_string_equal(f->problem, "");
}

static void test_file_deleted(void **state)
{
    struct fixture *f = *state;

    start(f, GOOD);
    assert_int_equal(unlink(f->file), 0);
    wait_for_file(f, true);
    assert_routes(f, GOOD_ROUTES, f->file, true);
    assert_non_null(strstr(f->problem, "cannot be read"));
    assert_int_equal(publish(f, 1, "a")->status, STATUS_DONE);
    write_file(f, GOOD); /* as it was: it is there again */
    wait_for_file(f, false);
    assert_string_equal(f->text, GOOD_ROUTES);
}

/* ---- without a good file ---- */

static void test_last_good_ones(void **state)
{
    struct fixture *f = *state;

    set_record(f, GOOD);
    start(f, BAD);
    loop_until(f, f->quotas > 0);
    assert_routes(f, GOOD_ROUTES, "store", true);
    assert_non_null(strstr(f->problem, BAD_PROBLEM));
    assert_int_equal(f->version, 7);
    assert_int_equal(publish(f, 1, "a")->status, STATUS_DONE);
    assert_appended(f, "p 1: a > $upstream [d] 2000000000 7200");
    assert_int_equal(f->quota, 1000000);
    assert_int_equal(f->gets, 1);
    assert_int_equal(f->puts, 0);
}

/* What would match no route is not taken, and not lost. */
static void test_none_are_known(void **state)
{
    struct fixture *f = *state;
    const struct answer *answer;

    start(f, BAD);
    loop_until(f, f->gets == 1);
    wait_for_silence(f);
    answer = publish(f, 1, "a");
    assert_int_equal(answer->status, STATUS_BUSY);
    assert_non_null(strstr(answer->error, BAD_PROBLEM));
    assert_routes(f, "", "", true);
    assert_int_equal(f->appends + f->puts + f->quotas, 0);
    replace_file(f, GOOD);
    loop_until(f, f->puts == 1);
    assert_int_equal(publish(f, 1, "a")->status, STATUS_DONE);
    assert_appended(f, "p 1: a > $upstream [d] 2000000000 7200");
    assert_routes(f, GOOD_ROUTES, f->file, false);
}

/* A file that is not there yet. */
static void test_file_comes_late(void **state)
{
    struct fixture *f = *state;
    const struct answer *answer;

    start_router(f, f->file);
    answer = publish(f, 1, "a"); /* nor is the store */
    assert_int_equal(answer->status, STATUS_BUSY);
    assert_non_null(strstr(answer->error, "cannot be read"));
    write_file(f, GOOD);
    wait_for_file(f, false);
    answer = send_one(f, 1, "a");
    set_record(f, OTHER);
    start_store(f); /* which is asked for its record, though that is of no interest now */
    loop_until(f, answer->there);
    assert_int_equal(answer->status, STATUS_DONE);
    wait_for_silence(f);
    assert_routes(f, GOOD_ROUTES, f->file, false);
    assert_int_equal(f->gets, 1);
    assert_record(f, GOOD);
}

static void test_record_is_none(void **state)
{
    struct fixture *f = *state;

    set_record(f, "no JSON");
    start(f, BAD);
    loop_until(f, f->gets == 1);
    wait_for_silence(f);
    assert_int_equal(publish(f, 1, "a")->status, STATUS_BUSY);
    assert_routes(f, "", "", true);
}

/* ---- a store that fails, or was away ---- */

static void test_store_cannot_tell(void **state)
{
    struct fixture *f = *state;

    set_record(f, GOOD);
    f->fail_gets = 1;
    start(f, BAD);
    loop_until(f, f->gets == 1);
    assert_int_equal(publish(f, 1, "a")->status, STATUS_BUSY); /* it may have some */
    loop_until(f, f->gets == 2);
    wait_for_silence(f);
    assert_routes(f, GOOD_ROUTES, "store", true);
}

static void test_store_cannot_keep(void **state)
{
    struct fixture *f = *state;

    f->fail_puts = 1;
    start(f, GOOD);
    assert_int_equal(publish(f, 1, "a")->status, STATUS_DONE); /* they are in force */
    loop_until(f, f->record_there);
    assert_record(f, GOOD);
    assert_int_equal(f->puts, 2);
}

static void test_store_cannot_be_bounded(void **state)
{
    struct fixture *f = *state;

    start(f, GOOD);
    loop_until(f, f->puts == 1 && f->quota == 1000000);
    wait_for_silence(f);
    f->fail_quotas = 1;
    replace_file(f, OTHER);
    loop_until(f, f->quota == 2000000);
    assert_int_equal(f->fail_quotas, 0);
}

/* It is told of the deployment's bound whenever it begins: it keeps none. */
static void test_quota_is_told_again(void **state)
{
    struct fixture *f = *state;

    start(f, GOOD);
    loop_until(f, f->quota == 1000000);
    wait_for_silence(f);
    stop_store(f);
    f->quota = 0;
    start_store(f);
    loop_until(f, f->quota == 1000000);
    wait_for_silence(f);
    assert_int_equal(f->puts, 0); /* that it has */
}

/* ---- who is connected ---- */

static void test_taken_over_within_a_listener(void **state)
{
    struct fixture *f = *state;

    start(f, GOOD);
    tell_connected(f, &f->mqtt, 1);
    tell_connected(f, &f->mqtt, 2);
    loop_until(f, *f->mqtt.taken_over);
    assert_string_equal(f->mqtt.taken_over, "d/m 1");
    tell_disconnected(f, &f->mqtt, 1);
    ask_clients(f);
    assert_string_equal(f->text, "d/m 2 at mqtt-listener");
}

static void test_taken_over_by_another_listener(void **state)
{
    struct fixture *f = *state;

    start(f, GOOD);
    tell_connected(f, &f->mqtt, 7);
    start_caller(f, &f->amqp, "amqp-listener");
    tell_connected(f, &f->amqp, 7);
    loop_until(f, *f->mqtt.taken_over);
    assert_string_equal(f->mqtt.taken_over, "d/m 7");
    assert_string_equal(f->amqp.taken_over, "");
    tell_disconnected(f, &f->mqtt, 7); /* as it was told: nothing of the other's */
    ask_clients(f);
    assert_string_equal(f->text, "d/m 7 at amqp-listener");
    tell_disconnected(f, &f->amqp, 7);
    ask_clients(f);
    assert_string_equal(f->text, "");
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_publish_is_routed),
        T(test_answered_by_the_store),
        T(test_store_refuses),
        T(test_unrouted_counts),
        T(test_store_dies),
        T(test_store_is_slow),
        T(test_file_is_in_force),
        T(test_no_file_is_named),
        T(test_file_replaced),
        T(test_file_written_in_place),
        T(test_bad_change),
        T(test_file_deleted),
        T(test_last_good_ones),
        T(test_none_are_known),
        T(test_file_comes_late),
        T(test_record_is_none),
        T(test_store_cannot_tell),
        T(test_store_cannot_keep),
        T(test_store_cannot_be_bounded),
        T(test_quota_is_told_again),
        T(test_taken_over_within_a_listener),
        T(test_taken_over_by_another_listener),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
