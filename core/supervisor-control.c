/*
 * The control socket. Who is at the other end is known from the kernel: a pid of ours is that
 * plugin, any other process of root or of brinkd's own user is the operator, and everybody else is
 * turned away. What a peer says is gossip: it can cost the peer its connection, and nothing else.
 */
#include "supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "running.h"

enum {
    PACKETS_TURN_MAX = 16,
    TURNS_PER_SEC_MAX = 200, /* of one connection: who floods us must not keep us from the others */
    HEARTBEAT_BYTES_MAX = 4096, /* all of them must fit into one status */
    VERSION_LEN_MAX = 40,
    STRANGER_LOG_USEC = 10 * 1000 * 1000,
};

struct connection {
    struct connection *next;
    struct supervisor *supervisor;
    int fd;
    sd_event_source *source;
    pid_t pid;
    uid_t uid;
    struct unit *unit;          /* NULL: the operator */
    bool greeted;               /* its Hello came */
    Bus__CommandKind command;   /* UNSET, or what the operator waits for … */
    struct unit *target;        /* … of whom … */
    uint64_t generation_before; /* … who was then this */
};

static void connection_free(struct connection *c)
{
    struct connection **at = &c->supervisor->connections;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    if (c->unit)
        c->unit->connection = NULL;
    sd_event_source_disable_unref(c->source);
    close_fd(c->fd);
    free(c);
}

void unit_disconnect(struct unit *unit)
{
    if (unit->connection)
        connection_free(unit->connection);
}

/* Rosters */

static void roster_fill(const struct supervisor *s, Bus__Roster *roster, Bus__RosterEntry *entries)
{
    roster->uids[roster->n_uids++] = 0;
    roster->uids[roster->n_uids++] = geteuid();
    for (size_t i = 0; i < s->unit_count; i++) {
        const struct unit *unit = s->units[i];
        Bus__RosterEntry *entry = &entries[roster->n_entries];

        roster->uids[roster->n_uids++] = unit->config.uid;
        if (!unit_is_running(unit))
            continue;
        bus__roster_entry__init(entry);
        entry->pid = (uint64_t)unit->pid;
        entry->role = unit->config.role;
        entry->generation = unit->generation;
        roster->entries[roster->n_entries++] = entry;
    }
}

static int roster_send(const struct connection *c)
{
    const struct supervisor *s = c->supervisor;
    _cleanup_(freep) uint32_t *uids = xnew_n(uint32_t, s->unit_count + 2);
    _cleanup_(freep) Bus__RosterEntry *entries = xnew_n(Bus__RosterEntry, s->unit_count + 1);
    _cleanup_(freep) Bus__RosterEntry **pointers = xnew_n(Bus__RosterEntry *, s->unit_count + 1);
    Bus__Roster roster = BUS__ROSTER__INIT;
    Bus__Control packet = CONTROL_INIT(ROSTER, roster, &roster);

    roster.uids = uids;
    roster.entries = pointers;
    roster_fill(s, &roster, entries);
    return control_send(c->fd, &packet, NULL, 0);
}

/* A plugin that does not read is hung. Cut off, it knows that its roster is old; if it lives, it
 * comes again and gets this one. */
void supervisor_send_rosters(struct supervisor *s)
{
    struct connection *next;

    for (struct connection *c = s->connections; c; c = next) {
        next = c->next;
        if (c->greeted && roster_send(c) < 0)
            connection_free(c);
    }
}

bool unit_send_drain(struct unit *unit, uint64_t deadline_usec)
{
    Bus__Drain drain = BUS__DRAIN__INIT;
    Bus__Control packet = CONTROL_INIT(DRAIN, drain, &drain);

    drain.deadline_usec = deadline_usec;
    return unit->connection && unit->connection->greeted &&
           control_send(unit->connection->fd, &packet, NULL, 0) == 0;
}

/* What plugins say. A handler takes the packet or descriptors, or leaves them; it returns -errno
 * when the connection is to end. */

struct received {
    Bus__Control *packet;
    int fds[CONTROL_FDS_MAX]; /* -1: taken */
    unsigned fd_count;
};

static void take_hello_sockets(struct unit *unit, struct received *in)
{
    const Bus__Hello *hello = in->packet->hello;

    for (unsigned i = 0; i < in->fd_count && i < hello->n_socket_names; i++)
        if (listen_sockets_give(&unit->config.sockets, hello->socket_names[i], in->fds[i], false))
            in->fds[i] = -1;
}

static int on_hello(struct connection *c, struct received *in)
{
    const Bus__Hello *hello = in->packet->hello;
    struct unit *unit = c->unit;

    if (hello->generation != unit->generation) {
        log_event(LOG_WARNING, 0, "a plugin says hello with a generation that is not its own",
                  F_PLUGIN(unit->config.name), F_GENERATION(hello->generation));
        return -EPROTO;
    }
    c->greeted = true;
    free(unit->version);
    unit->version = xstrndup(hello->version, VERSION_LEN_MAX);
    take_hello_sockets(unit, in);
    if (hello->ready)
        child_feed(&unit->child, CHILD_SAID_READY, NULL);
    return roster_send(c);
}

static int on_ready(struct connection *c, struct received *in)
{
    child_feed(&c->unit->child, CHILD_SAID_READY, NULL);
    return 0;
}

static int on_heartbeat(struct connection *c, struct received *in)
{
    if (bus__control__get_packed_size(in->packet) > HEARTBEAT_BYTES_MAX)
        return -EMSGSIZE;
    if (c->unit->heartbeat)
        bus__control__free_unpacked(c->unit->heartbeat, NULL);
    c->unit->heartbeat = TAKE_PTR(in->packet);
    child_feed(&c->unit->child, CHILD_HEARTBEAT, NULL);
    return 0;
}

/* What the operator says */

static const char by_operator[] = "asked by the operator";

static Bus__ChildState state_shown(enum child_state state)
{
    static const Bus__ChildState shown[_CHILD_STATE_COUNT] = {
        [CHILD_STOPPED] = BUS__CHILD_STATE__CHILD_STATE_STOPPED,
        [CHILD_STARTING] = BUS__CHILD_STATE__CHILD_STATE_STARTING,
        [CHILD_READY] = BUS__CHILD_STATE__CHILD_STATE_READY,
        [CHILD_DRAINING] = BUS__CHILD_STATE__CHILD_STATE_DRAINING,
        [CHILD_ENDING] = BUS__CHILD_STATE__CHILD_STATE_DRAINING,
        [CHILD_BACKOFF] = BUS__CHILD_STATE__CHILD_STATE_BACKOFF,
        [CHILD_FAILED] = BUS__CHILD_STATE__CHILD_STATE_FAILED,
    };

    return shown[state];
}

/* Why it is not running stands where a running one's own words stand. */
static char *status_text(const struct unit *unit)
{
    if (unit->heartbeat && *unit->heartbeat->heartbeat->status)
        return unit->heartbeat->heartbeat->status;
    if (unit->child.state == CHILD_READY)
        return (char *)"";
    return (char *)unit->child.reason;
}

static void plugin_status_fill(const struct unit *unit, Bus__PluginStatus *out)
{
    bus__plugin_status__init(out);
    out->name = unit->config.name;
    out->role = unit->config.role;
    out->exec = unit->config.exec;
    out->state = state_shown(unit->child.state);
    out->generation = unit->generation;
    out->restarts = tally_deaths(&unit->supervisor->tally, unit->config.name);
    out->status = status_text(unit);
    if (!unit_is_running(unit))
        return;
    out->pid = (uint64_t)unit->pid;
    out->uptime_sec = process_uptime_sec(unit->start_ticks);
    out->version = unit->version ?: (char *)"";
    if (unit->heartbeat) {
        out->n_stats = unit->heartbeat->heartbeat->n_stats;
        out->stats = unit->heartbeat->heartbeat->stats;
    }
}

static int on_status_get(struct connection *c, struct received *in)
{
    struct supervisor *s = c->supervisor;
    _cleanup_(freep) Bus__PluginStatus *plugins = xnew_n(Bus__PluginStatus, s->unit_count + 1);
    _cleanup_(freep) Bus__PluginStatus **pointers = xnew_n(Bus__PluginStatus *, s->unit_count + 1);
    Bus__SupervisorStatus status = BUS__SUPERVISOR_STATUS__INIT;
    Bus__Control answer = CONTROL_INIT(STATUS, status, &status);
    uint64_t start_ticks;

    for (size_t i = 0; i < s->unit_count; i++) {
        plugin_status_fill(s->units[i], &plugins[i]);
        pointers[i] = &plugins[i];
    }
    status.plugins = pointers;
    status.n_plugins = s->unit_count;
    status.version = (char *)BRINK_VERSION;
    status.pid = (uint64_t)getpid();
    if (process_start_ticks(getpid(), &start_ticks) == 0)
        status.uptime_sec = process_uptime_sec(start_ticks);
    return control_send(c->fd, &answer, NULL, 0);
}

/* @error NULL: done. */
static int command_answer(struct connection *c, const char *error)
{
    Bus__CommandResult result = BUS__COMMAND_RESULT__INIT;
    Bus__Control answer = CONTROL_INIT(COMMAND_RESULT, command_result, &result);

    c->command = BUS__COMMAND_KIND__COMMAND_KIND_UNSET;
    result.done = !error;
    result.error = (char *)(error ?: "");
    return control_send(c->fd, &answer, NULL, 0);
}

/* Two plugins must not run under one role; one of them may be there switched off, to be started
 * in place of the other. */
static const struct unit *role_holder(const struct unit *unit)
{
    const struct supervisor *s = unit->supervisor;

    for (size_t i = 0; i < s->unit_count; i++)
        if (s->units[i] != unit && s->units[i]->child.state != CHILD_STOPPED &&
            strcmp(s->units[i]->config.role, unit->config.role) == 0)
            return s->units[i];
    return NULL;
}

/* NULL, or why the plugin cannot be started now. */
static const char *start(struct unit *unit, bool again, struct config_error *error)
{
    const struct unit *holder = role_holder(unit);
    bool runs = unit->child.state == CHILD_STARTING || unit->child.state == CHILD_READY;

    if (runs && !again)
        return NULL; /* with what it was started with: its file is for the next start */
    if (holder) {
        snprintf(error->text, sizeof(error->text), "role %s is filled by %s: stop that first",
                 unit->config.role, holder->config.name);
        return error->text;
    }
    if (unit_reload(unit, error) != 0)
        return error->text;
    if (runs)
        child_feed(&unit->child, CHILD_UNWANTED, by_operator);
    child_feed(&unit->child, CHILD_WANTED, by_operator);
    return NULL;
}

/* NULL, or why it cannot be. */
static const char *command_begin(struct unit *unit, Bus__CommandKind kind,
                                 struct config_error *error)
{
    switch (kind) {
    case BUS__COMMAND_KIND__COMMAND_KIND_START:
        return start(unit, false, error);
    case BUS__COMMAND_KIND__COMMAND_KIND_RESTART:
        return start(unit, true, error);
    case BUS__COMMAND_KIND__COMMAND_KIND_STOP:
        child_feed(&unit->child, CHILD_UNWANTED, by_operator);
        return NULL;
    case BUS__COMMAND_KIND__COMMAND_KIND_KILL:
        if (!unit_is_running(unit))
            return "it is not running";
        unit_signal(&unit->child, SIGKILL);
        return NULL;
    default:
        return "this brinkd does not know that command";
    }
}

static int on_command(struct connection *c, struct received *in)
{
    const Bus__Command *command = in->packet->command;
    struct supervisor *s = c->supervisor;
    struct unit *unit = supervisor_find_name(s, command->plugin);
    struct config_error error;
    const char *refusal;

    if (c->command != BUS__COMMAND_KIND__COMMAND_KIND_UNSET)
        return -EPROTO; /* the answers could not be told apart */
    if (!unit)
        return command_answer(c, "no plugin of that name is configured");
    if (s->stopping)
        return command_answer(c, "brinkd is stopping");
    log_event(LOG_INFO, 0, "command", F_PLUGIN(unit->config.name), F_NUM("kind", command->kind),
              F_PID(c->pid));
    /* A start is reached by any process, also the one that is there. */
    c->generation_before =
        command->kind == BUS__COMMAND_KIND__COMMAND_KIND_START ? 0 : unit->generation;
    refusal = command_begin(unit, command->kind, &error);
    if (refusal)
        return command_answer(c, refusal);
    c->command = command->kind;
    c->target = unit;
    supervisor_turn(s);
    return 0;
}

enum progress { GOING_ON, REACHED, NOT_REACHED };

static enum progress start_progress(const struct connection *c)
{
    const struct unit *unit = c->target;

    switch (unit->child.state) {
    case CHILD_READY:
        return unit->generation != c->generation_before ? REACHED : GOING_ON;
    case CHILD_STOPPED:
    case CHILD_BACKOFF:
    case CHILD_FAILED:
        return NOT_REACHED;
    default:
        return GOING_ON;
    }
}

static enum progress command_progress(const struct connection *c)
{
    const struct unit *unit = c->target;

    switch (c->command) {
    case BUS__COMMAND_KIND__COMMAND_KIND_STOP:
        return unit->child.state == CHILD_STOPPED ? REACHED
               : unit->child.wanted               ? NOT_REACHED
                                                  : GOING_ON;
    case BUS__COMMAND_KIND__COMMAND_KIND_KILL:
        return unit_is_running(unit) && unit->generation == c->generation_before ? GOING_ON
                                                                                 : REACHED;
    default:
        return start_progress(c);
    }
}

void supervisor_answer_commands(struct supervisor *s)
{
    for (struct connection *c = s->connections; c; c = c->next) {
        enum progress progress;

        if (c->command == BUS__COMMAND_KIND__COMMAND_KIND_UNSET)
            continue;
        progress = command_progress(c);
        if (progress == GOING_ON)
            continue;
        /* An operator who left does not want the answer, and is seen leaving by the loop. */
        command_answer(c, progress == REACHED ? NULL : c->target->child.reason);
    }
}

/* Who may say what */

enum { FROM_PLUGIN = 1, FROM_OPERATOR = 2 };

typedef int control_fn(struct connection *c, struct received *in);

static const struct control_handler {
    Bus__Control__BodyCase body;
    unsigned peers;
    control_fn *fn;
} control_handlers[] = {
    { BUS__CONTROL__BODY_HELLO, FROM_PLUGIN, on_hello },
    { BUS__CONTROL__BODY_READY, FROM_PLUGIN, on_ready },
    { BUS__CONTROL__BODY_HEARTBEAT, FROM_PLUGIN, on_heartbeat },
    { BUS__CONTROL__BODY_STATUS_GET, FROM_OPERATOR, on_status_get },
    { BUS__CONTROL__BODY_COMMAND, FROM_OPERATOR, on_command },
};

static void log_stranger(struct supervisor *s, int error, const char *reason, pid_t pid, uid_t uid)
{
    unsigned suppressed;

    if (log_limit_pass(&s->stranger_limit, STRANGER_LOG_USEC, &suppressed))
        log_event(LOG_WARNING, error, "a control connection is refused", F_REASON(reason),
                  F_PID(pid), F_UID(uid), F_NUM("suppressed", suppressed));
}

static int connection_dispatch(struct connection *c, struct received *in)
{
    unsigned peer = c->unit ? FROM_PLUGIN : FROM_OPERATOR;

    for (size_t i = 0; i < ELEMENTSOF(control_handlers); i++) {
        const struct control_handler *handler = &control_handlers[i];

        if (handler->body != in->packet->body_case)
            continue;
        if (!(handler->peers & peer)) {
            log_stranger(c->supervisor, 0,
                         c->unit ? "a plugin gives orders"
                                 : "a process that is no plugin speaks as one",
                         c->pid, c->uid);
            return -EPERM;
        }
        if (c->unit && !c->greeted && handler->fn != on_hello)
            return -EPROTO;
        return handler->fn(c, in);
    }
    log_event(LOG_DEBUG, 0, "control packet of an unknown kind", F_PID(c->pid));
    return 0; /* of a newer one; what is not known is not needed */
}

/* One packet. Negative: the connection is over, or -EAGAIN. */
static int connection_take_packet(struct connection *c)
{
    struct received in = {};
    int r = control_receive(c->fd, &in.packet, in.fds, &in.fd_count);

    if (r < 0)
        return r;
    if (!in.packet)
        return -ECONNRESET;
    r = connection_dispatch(c, &in);
    for (unsigned i = 0; i < in.fd_count; i++)
        close_fd(in.fds[i]);
    if (in.packet)
        bus__control__free_unpacked(in.packet, NULL);
    return r == -EAGAIN ? -ENOBUFS : r; /* it asks and does not read */
}

static int connection_on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct connection *c = userdata;

    for (unsigned n = 0; n < PACKETS_TURN_MAX; n++) {
        int r = connection_take_packet(c);

        if (r == -EAGAIN)
            return 0;
        if (r < 0) {
            if (r != -ECONNRESET && r != -EPIPE)
                log_stranger(c->supervisor, r, "it does not keep to the protocol", c->pid, c->uid);
            connection_free(c);
            return 0;
        }
    }
    return 0;
}

/* Accepting */

/* What is said is heard before silence is judged, but not without a bound. */
static int add_heard_first(struct supervisor *s, int fd, sd_event_io_handler_t handler,
                           void *userdata, sd_event_source **ret)
{
    int r = sd_event_add_io(s->event, ret, fd, EPOLLIN, handler, userdata);

    r = keep_or_exit(r, *ret, SD_EVENT_PRIORITY_IMPORTANT);
    return r < 0 ? r : sd_event_source_set_ratelimit(*ret, 1000 * 1000, TURNS_PER_SEC_MAX);
}

static void connection_add_take(struct supervisor *s, int fd, pid_t pid, uid_t uid)
{
    struct connection *c = xnew(struct connection);
    int r;

    *c = (struct connection){
        .next = s->connections, .supervisor = s, .fd = fd, .pid = pid, .uid = uid
    };
    s->connections = c;
    c->unit = supervisor_find_pid(s, pid);
    if (c->unit) {
        unit_disconnect(c->unit); /* it is here again before its old one was seen closed */
        c->unit->connection = c;
    }
    r = add_heard_first(s, fd, connection_on_readable, c, &c->source);
    if (r < 0) {
        log_event(LOG_ERR, r, "cannot watch a control connection", F_PID(pid));
        connection_free(c);
    }
}

static int supervisor_on_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct supervisor *s = userdata;
    int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    pid_t pid;
    uid_t uid;

    if (peer < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
            log_stranger(s, errno, "cannot accept", 0, (uid_t)-1);
        return 0;
    }
    if (control_peer(peer, &pid, &uid) < 0 ||
        (uid != 0 && uid != geteuid() && !supervisor_find_pid(s, pid))) {
        log_stranger(s, 0, "neither a plugin nor the operator", pid, uid);
        close_fd(peer);
        return 0;
    }
    connection_add_take(s, peer, pid, uid);
    return 0;
}

int supervisor_control_open(struct supervisor *s)
{
    struct listen_address address;
    const char *expected;
    int r;

    r = listen_address_parse("unix:control.sock", s->appliance->run_dir, &address, &expected);
    if (r == 0)
        r = listen_address_open(&address, SOCK_SEQPACKET, s->group, &s->control_fd);
    if (r != 0) {
        log_event(LOG_ERR, r, "cannot listen on the control socket", F_PATH(s->appliance->run_dir));
        return r < 0 ? r : -ENAMETOOLONG;
    }
    return add_heard_first(s, s->control_fd, supervisor_on_accept, s, &s->control_source);
}

void supervisor_control_close(struct supervisor *s)
{
    _cleanup_(freep) char *path = xasprintf("%s/control.sock", s->appliance->run_dir);

    while (s->connections)
        connection_free(s->connections);
    s->control_source = sd_event_source_disable_unref(s->control_source);
    if (s->control_fd >= 0)
        unlink(path);
    s->control_fd = close_fd(s->control_fd);
}
