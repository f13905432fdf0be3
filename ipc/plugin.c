/*
 * The common life of every plugin, once. The supervisor may die and come back under a running plugin: the control socket is
 * connected again and the inherited sockets are shown to the new supervisor; nothing else notices.
 */
#include "plugin.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "control.h"
#include "span.h"

enum {
    LISTEN_FDS_START = 3,
    STATS_MAX = 32,
    CONTROL_RETRY_USEC = 50 * 1000,
    DRAIN_DEFAULT_USEC = 10 * 1000 * 1000,
};
static const uint64_t ORPHAN_USEC = UINT64_C(60) * 1000 * 1000; /* without a supervisor */
static const uint64_t TIMER_ACCURACY_USEC = 1000;

enum plugin_mode { PLUGIN_RUN, PLUGIN_CHECK, PLUGIN_REFERENCE };

struct plugin {
    enum plugin_mode mode;
    const char *check_path;
    plugin_check_fn *on_check;
    char *name, *role, *run_dir, *state_dir, *hostname;
    uint64_t generation, heartbeat_usec;
    sd_event *event;
    struct bus *bus;
    sd_event_source *sigterm_source;

    int config_fd;
    char **socket_names;
    unsigned socket_count;

    int control_fd;
    sd_event_source *control_source, *control_timer, *heartbeat_timer;
    uint64_t orphan_since; /* 0: the supervisor is there */
    bool ready_held, ready;
    Bus__Control *roster; /* NULL until the supervisor told */

    bool draining;
    plugin_drain_fn *drain_fn;
    void *drain_userdata;
    uint64_t drain_usec;
    sd_event_source *drain_source, *drain_timer;

    Bus__Stat stats[STATS_MAX];
    size_t stat_count;
    char status[128];
};

/* ---- sources ---- */

/* Better dead than deaf. */
static int keep_or_exit(int r, sd_event_source **ret)
{
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(*ret, true);
    return r < 0 ? r : 0;
}

int plugin_add_io(struct plugin *plugin, int fd, uint32_t events, sd_event_io_handler_t fn,
                  void *userdata, sd_event_source **ret)
{
    return keep_or_exit(sd_event_add_io(plugin->event, ret, fd, events, fn, userdata), ret);
}

int plugin_add_timer(struct plugin *plugin, uint64_t usec_from_now, sd_event_time_handler_t fn,
                     void *userdata, sd_event_source **ret)
{
    return keep_or_exit(sd_event_add_time(plugin->event, ret, CLOCK_MONOTONIC,
                                          now_usec() + usec_from_now, TIMER_ACCURACY_USEC, fn,
                                          userdata),
                        ret);
}

int plugin_add_inotify(struct plugin *plugin, const char *path, uint32_t mask,
                       sd_event_inotify_handler_t fn, void *userdata, sd_event_source **ret)
{
    return keep_or_exit(sd_event_add_inotify(plugin->event, ret, path, mask, fn, userdata), ret);
}

int plugin_add_post(struct plugin *plugin, sd_event_handler_t fn, void *userdata,
                    sd_event_source **ret)
{
    return keep_or_exit(sd_event_add_post(plugin->event, ret, fn, userdata), ret);
}

int plugin_add_defer(struct plugin *plugin, sd_event_handler_t fn, void *userdata,
                     sd_event_source **ret)
{
    return keep_or_exit(sd_event_add_defer(plugin->event, ret, fn, userdata), ret);
}

/* ---- drain ---- */

static int plugin_on_drain_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct plugin *plugin = userdata;

    log_event(LOG_WARNING, 0, "drain is not done at its deadline, ending anyway");
    return sd_event_exit(plugin->event, 0);
}

static int plugin_on_drain_begin(sd_event_source *source, void *userdata)
{
    struct plugin *plugin = userdata;

    log_event(LOG_INFO, 0, "draining", F_USEC(plugin->drain_usec));
    if (!plugin->drain_fn)
        return sd_event_exit(plugin->event, 0);
    plugin->drain_fn(plugin->drain_usec, plugin->drain_userdata);
    return 0;
}

/* Begins by itself, not in the middle of a handler that just asked who its peer is. */
static int drain_order(struct plugin *plugin, uint64_t deadline_usec)
{
    int r;

    if (plugin->draining)
        return 0;
    plugin->draining = true;
    plugin->drain_usec = deadline_usec;
    r = plugin_add_defer(plugin, plugin_on_drain_begin, plugin, &plugin->drain_source);
    if (r < 0)
        return r;
    return plugin_add_timer(plugin, deadline_usec, plugin_on_drain_deadline, plugin,
                            &plugin->drain_timer);
}

void plugin_on_drain(struct plugin *plugin, plugin_drain_fn *fn, void *userdata)
{
    plugin->drain_fn = fn;
    plugin->drain_userdata = userdata;
}

void plugin_drained(struct plugin *plugin)
{
    sd_event_exit(plugin->event, 0);
}

static int plugin_on_sigterm(sd_event_source *source, const struct signalfd_siginfo *si,
                             void *userdata)
{
    return drain_order(userdata, DRAIN_DEFAULT_USEC);
}

/* ---- the supervisor ---- */

static void control_lost(struct plugin *plugin)
{
    plugin->control_source = sd_event_source_disable_unref(plugin->control_source);
    plugin->control_fd = close_fd(plugin->control_fd);
    if (plugin->orphan_since == 0) {
        plugin->orphan_since = now_usec();
        if (!plugin->draining)
            log_event(LOG_WARNING, 0, "the supervisor is away, going on without it");
    }
    timer_rearm(plugin->control_timer, CONTROL_RETRY_USEC);
}

/* What cannot be sent is not worth waiting for: a supervisor that is away asks anew when it is back.
 * @may_miss: nor is it missed by one that is there and does not read. */
static void control_tell(struct plugin *plugin, const Bus__Control *packet, bool may_miss)
{
    int r;

    if (plugin->control_fd < 0)
        return;
    r = control_send(plugin->control_fd, packet, NULL, 0);
    if (r < 0 && !(r == -EAGAIN && may_miss))
        control_lost(plugin); /* the next hello says it all */
}

static int control_take(struct plugin *plugin, Bus__Control *packet)
{
    int r = 0;

    switch (packet->body_case) {
    case BUS__CONTROL__BODY_ROSTER:
        if (plugin->roster)
            bus__control__free_unpacked(plugin->roster, NULL);
        plugin->roster = packet;
        if (plugin->orphan_since != 0)
            log_event(LOG_INFO, 0, "the supervisor is back");
        plugin->orphan_since = 0;
        return 0;
    case BUS__CONTROL__BODY_DRAIN:
        r = drain_order(plugin, packet->drain->deadline_usec);
        break;
    case BUS__CONTROL__BODY_LOG_LEVEL:
        log_set_level((int)packet->log_level->level);
        break;
    default: /* of a newer supervisor */
        log_event(LOG_DEBUG, 0, "control packet of an unknown kind", F_STATUS(packet->body_case));
        break;
    }
    bus__control__free_unpacked(packet, NULL);
    return r;
}

static int control_drain_socket(struct plugin *plugin)
{
    while (plugin->control_fd >= 0) {
        int fds[CONTROL_FDS_MAX];
        unsigned fd_count = CONTROL_FDS_MAX;
        Bus__Control *packet = NULL;
        int r = control_receive(plugin->control_fd, &packet, fds, &fd_count);

        if (r == -EAGAIN)
            return 0;
        if (r < 0 || !packet) {
            control_lost(plugin);
            return 0;
        }
        while (fd_count > 0)
            close_fd(fds[--fd_count]);
        r = control_take(plugin, packet);
        if (r < 0)
            return r;
    }
    return 0;
}

static int plugin_on_control(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    return control_drain_socket(userdata);
}

static int control_hello(struct plugin *plugin)
{
    Bus__Hello hello = BUS__HELLO__INIT;
    Bus__Control packet = CONTROL_INIT(HELLO, hello, &hello);
    int fds[CONTROL_FDS_MAX];

    for (unsigned i = 0; i < plugin->socket_count; i++)
        fds[i] = LISTEN_FDS_START + (int)i;
    hello.name = plugin->name;
    hello.generation = plugin->generation;
    hello.protocol = CONTROL_PROTOCOL;
    hello.version = (char *)BRINK_VERSION;
    hello.n_socket_names = plugin->socket_count;
    hello.socket_names = plugin->socket_names;
    hello.ready = plugin->ready;
    return control_send(plugin->control_fd, &packet, fds, plugin->socket_count);
}

static int control_open(struct plugin *plugin)
{
    _cleanup_(freep) char *path = xasprintf("%s/control.sock", plugin->run_dir);
    int r;

    plugin->control_fd = control_connect(path);
    if (plugin->control_fd < 0)
        return plugin->control_fd;
    r = control_hello(plugin);
    if (r < 0)
        return r;
    r = plugin_add_io(plugin, plugin->control_fd, EPOLLIN, plugin_on_control, plugin,
                      &plugin->control_source);
    if (r < 0)
        return r;
    /* Who a peer is must be known before what it says is looked at. */
    r = sd_event_source_set_priority(plugin->control_source, SD_EVENT_PRIORITY_IMPORTANT);
    return r < 0 ? r : 0;
}

static int plugin_on_control_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct plugin *plugin = userdata;

    if (now_usec() - plugin->orphan_since > ORPHAN_USEC && !plugin->draining) {
        log_event(LOG_ERR, 0, "no supervisor took this plugin over, ending", F_USEC(ORPHAN_USEC));
        return drain_order(plugin, DRAIN_DEFAULT_USEC);
    }
    if (control_open(plugin) >= 0)
        return 0; /* whether it wants us shows in its roster */
    plugin->control_source = sd_event_source_disable_unref(plugin->control_source);
    plugin->control_fd = close_fd(plugin->control_fd);
    return timer_rearm(source, CONTROL_RETRY_USEC);
}

static int plugin_on_heartbeat(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct plugin *plugin = userdata;
    Bus__Heartbeat heartbeat = BUS__HEARTBEAT__INIT;
    Bus__Control packet = CONTROL_INIT(HEARTBEAT, heartbeat, &heartbeat);
    Bus__Stat *stats[STATS_MAX];

    for (size_t i = 0; i < plugin->stat_count; i++)
        stats[i] = &plugin->stats[i];
    heartbeat.n_stats = plugin->stat_count;
    heartbeat.stats = stats;
    heartbeat.status = plugin->status;
    control_tell(plugin, &packet, true);
    return timer_rearm(source, plugin->heartbeat_usec);
}

static void tell_ready(struct plugin *plugin)
{
    Bus__Ready ready = BUS__READY__INIT;
    Bus__Control packet = CONTROL_INIT(READY, ready, &ready);

    if (plugin->ready)
        return;
    plugin->ready = true;
    log_event(LOG_INFO, 0, "ready", F_GENERATION(plugin->generation), F_PID(getpid()));
    control_tell(plugin, &packet, false);
}

void plugin_hold_ready(struct plugin *plugin)
{
    plugin->ready_held = true;
}

void plugin_ready(struct plugin *plugin)
{
    plugin->ready_held = false;
    tell_ready(plugin);
}

/* ---- who is who ---- */

static bool uid_allowed(const struct plugin *plugin, uint32_t uid)
{
    if (uid == 0 || uid == getuid())
        return true;
    for (size_t i = 0; plugin->roster && i < plugin->roster->roster->n_uids; i++)
        if (plugin->roster->roster->uids[i] == uid)
            return true;
    return false;
}

static uint64_t roster_find(const struct plugin *plugin, int64_t pid)
{
    const Bus__Roster *roster = plugin->roster ? plugin->roster->roster : NULL;

    for (size_t i = 0; roster && i < roster->n_entries; i++)
        if (roster->entries[i]->pid == (uint64_t)pid)
            return peer_from_role(roster->entries[i]->role);
    return 0;
}

/* The supervisor wrote the roster with a new plugin in it before that plugin could run: what is not there after reading
 * all that waits is no plugin. */
static uint64_t plugin_who(int64_t pid, uint32_t uid, void *userdata)
{
    struct plugin *plugin = userdata;
    uint64_t peer;

    if (control_drain_socket(plugin) < 0)
        return 0;
    if (!uid_allowed(plugin, uid))
        return 0;
    peer = roster_find(plugin, pid);
    /* While no supervisor has taken us over, the roster may be old: a plugin that the next one has
     * just started would pass for the operator. Nobody new is known then, and dials again. */
    if (peer == 0 && plugin->roster && plugin->orphan_since == 0)
        return PEER_OPERATOR;
    return peer;
}

uint64_t plugin_peer_of(struct plugin *plugin, int fd)
{
    pid_t pid;
    uid_t uid;

    if (control_peer(fd, &pid, &uid) < 0)
        return 0;
    return plugin_who(pid, uid, plugin);
}

/* ---- what it is given ---- */

static char *env_need(const char *name)
{
    const char *value = getenv(name);

    if (!value || !*value) {
        fprintf(stderr,
                "%s: not set: plugins are started by brinkd (try --check FILE, --reference or "
                "--version)\n",
                name);
        exit(EX_USAGE);
    }
    return xstrdup(value);
}

static uint64_t env_number(const char *name, uint64_t fallback)
{
    const char *value = getenv(name);
    uint64_t number;

    return value && span_to_uint64(span_str(value), &number) ? number : fallback;
}

static void take_sockets(struct plugin *plugin)
{
    uint64_t count = env_number("LISTEN_FDS", 0);
    struct span names = span_str(getenv("LISTEN_FDNAMES")), name;
    bool done = false;

    if (count > CONTROL_FDS_MAX) {
        fprintf(stderr, "LISTEN_FDS: expected at most %d sockets, found %llu\n", CONTROL_FDS_MAX,
                (unsigned long long)count);
        exit(EX_USAGE);
    }
    plugin->socket_names = xnew_n(char *, count + 1);
    for (uint64_t i = 0; i < count; i++) {
        fcntl(LISTEN_FDS_START + (int)i, F_SETFD, FD_CLOEXEC);
        plugin->socket_names[i] =
            span_next(&names, ':', &name, &done) ? span_xdup(name) : xstrdup("");
    }
    plugin->socket_count = (unsigned)count;
}

int plugin_socket(struct plugin *plugin, const char *name, unsigned index)
{
    for (unsigned i = 0; i < plugin->socket_count; i++)
        if (strcmp(plugin->socket_names[i], name) == 0 && index-- == 0)
            return LISTEN_FDS_START + (int)i;
    return -ENOENT;
}

sd_event *plugin_event(struct plugin *plugin)
{
    return plugin->event;
}

struct bus *plugin_bus(struct plugin *plugin)
{
    return plugin->bus;
}

const char *plugin_name(const struct plugin *plugin)
{
    return plugin->name;
}

const char *plugin_role(const struct plugin *plugin)
{
    return plugin->role;
}

const char *plugin_run_dir(const struct plugin *plugin)
{
    return plugin->run_dir;
}

const char *plugin_state_dir(const struct plugin *plugin)
{
    return plugin->state_dir;
}

const char *plugin_hostname(const struct plugin *plugin)
{
    return plugin->hostname;
}

uint64_t plugin_generation(const struct plugin *plugin)
{
    return plugin->generation;
}

void plugin_stat(struct plugin *plugin, const char *name, uint64_t value)
{
    size_t i = 0;

    while (i < plugin->stat_count && strcmp(plugin->stats[i].name, name) != 0)
        i++;
    if (i == plugin->stat_count) {
        assert(i < STATS_MAX);
        bus__stat__init(&plugin->stats[i]);
        plugin->stats[i].name = (char *)name;
        plugin->stat_count++;
    }
    plugin->stats[i].value = value;
}

void plugin_status(struct plugin *plugin, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(plugin->status, sizeof(plugin->status), format, args);
    va_end(args);
}

/* ---- settings ---- */

static int settings_take(struct config_document *document, const struct config_item *items,
                         void *settings, plugin_check_fn *check, struct config_error *error)
{
    static const char *const theirs[] = { "role",        "exec",
                                          "enabled",     "user",
                                          "sockets",     "ready_timeout_s",
                                          "heartbeat_s", "drain_timeout_s",
                                          "stop_stage",  "limits" };
    int r;

    for (size_t i = 0; i < ELEMENTSOF(theirs); i++) /* the supervisor's */
        config_take_away(document, theirs[i]);
    r = config_take(document, "settings", items, settings, error);
    if (r == 0)
        r = config_finish(document, error);
    if (r == 0 && check)
        r = check(document, settings, error);
    return r;
}

void plugin_on_check(struct plugin *plugin, plugin_check_fn *fn)
{
    plugin->on_check = fn;
}

int plugin_load_config_checked(struct plugin *plugin, const struct config_item *items,
                               void *ret_settings, plugin_check_fn *check)
{
    struct config_document *document = NULL;
    struct config_error error = {};
    int r;

    if (plugin->mode == PLUGIN_REFERENCE) {
        config_print_reference(items, stdout);
        exit(EXIT_SUCCESS);
    }
    if (plugin->mode == PLUGIN_CHECK)
        r = config_document_read(plugin->check_path, &document, &error);
    else if (plugin->config_fd >= 0)
        r = config_document_read_fd(plugin->config_fd, getenv("BRINK_CONFIG_NAME") ?: plugin->name,
                                    &document, &error);
    else
        r = config_document_parse("", 0, plugin->name, &document, &error);
    if (r == 0)
        r = settings_take(document, items, ret_settings, check, &error);
    if (r == 0 && plugin->mode == PLUGIN_CHECK && plugin->on_check)
        r = plugin->on_check(document, ret_settings, &error);
    config_document_free(document);
    if (r == 0 && plugin->mode == PLUGIN_CHECK)
        exit(EXIT_SUCCESS);
    if (r < 0)
        fprintf(stderr, "%s: %s\n", plugin->check_path ?: plugin->name, strerror(-r));
    else if (r > 0)
        fprintf(stderr, "%s\n", error.text);
    if (r != 0)
        exit(EX_CONFIG); /* the supervisor reads this as: starting again will not help */
    return 0;
}

/* ---- life ---- */

static void parse_options(struct plugin *plugin, const char *role, int argc, char **argv)
{
    if (argc <= 1)
        return;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("brink-%s %s\n", role, BRINK_VERSION);
        exit(EXIT_SUCCESS);
    }
    if (argc == 2 && strcmp(argv[1], "--reference") == 0) {
        plugin->mode = PLUGIN_REFERENCE;
    } else if (argc == 3 && strcmp(argv[1], "--check") == 0) {
        plugin->mode = PLUGIN_CHECK;
        plugin->check_path = argv[2];
    } else {
        fprintf(stderr, "usage: %s [--version | --reference | --check FILE]\n", argv[0]);
        exit(EX_USAGE);
    }
}

static void block_signals(void)
{
    sigset_t set;

    /* Before any thread is made: workers inherit it. */
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGINT, SIG_IGN); /* a Ctrl-C is the supervisor's: it stops us in order */
    signal(SIGPIPE, SIG_IGN);
}

static int life_begin(struct plugin *plugin)
{
    _cleanup_(freep) char *bus_dir = xasprintf("%s/bus", plugin->run_dir);
    int r;

    r = sd_event_default(&plugin->event);
    if (r < 0)
        return r;
    r = keep_or_exit(sd_event_add_signal(plugin->event, &plugin->sigterm_source, SIGTERM,
                                         plugin_on_sigterm, plugin),
                     &plugin->sigterm_source);
    if (r < 0)
        return r;
    r = plugin_add_timer(plugin, CONTROL_RETRY_USEC, plugin_on_control_retry, plugin,
                         &plugin->control_timer);
    if (r < 0)
        return r;
    r = plugin_add_timer(plugin, plugin->heartbeat_usec, plugin_on_heartbeat, plugin,
                         &plugin->heartbeat_timer);
    if (r < 0)
        return r;
    /* A loop that is busy is not hung. */
    r = sd_event_source_set_priority(plugin->heartbeat_timer, SD_EVENT_PRIORITY_IMPORTANT);
    if (r < 0)
        return r;
    r = bus_new(plugin->event, bus_dir, plugin->role, plugin->generation, plugin_who, plugin,
                &plugin->bus);
    if (r < 0)
        return r;
    r = control_open(plugin);
    if (r >= 0)
        return timer_stop(plugin->control_timer);
    control_lost(plugin);
    return 0;
}

int plugin_new(const char *role, int argc, char **argv, struct plugin **ret)
{
    _cleanup_(plugin_freep) struct plugin *plugin = xnew(struct plugin);
    const char *level = getenv("BRINK_LOG_LEVEL");
    int r;

    plugin->control_fd = plugin->config_fd = -1;
    parse_options(plugin, role, argc, argv);
    if (plugin->mode != PLUGIN_RUN) {
        plugin->name = xstrdup(role);
        *ret = TAKE_PTR(plugin);
        return 0;
    }
    mallopt(M_ARENA_MAX, 2); /* one for us, one for workers: arenas are never given back */
    block_signals();
    plugin->name = env_need("BRINK_NAME");
    plugin->role = xstrdup(getenv("BRINK_ROLE") ?: role);
    plugin->run_dir = env_need("BRINK_RUN_DIR");
    plugin->state_dir = env_need("BRINK_STATE_DIR");
    plugin->hostname = xstrdup(getenv("BRINK_HOSTNAME") ?: "localhost");
    plugin->generation = env_number("BRINK_GENERATION", 1);
    plugin->heartbeat_usec = env_number("BRINK_HEARTBEAT_USEC", 1000 * 1000);
    plugin->config_fd = (int)env_number("BRINK_CONFIG_FD", UINT32_MAX);
    log_init(plugin->name);
    if (level && log_level_from_name(level) >= 0)
        log_set_level(log_level_from_name(level));
    take_sockets(plugin);
    r = life_begin(plugin);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(plugin);
    return 0;
}

int plugin_listen(struct plugin *plugin, const struct bus_handler *handlers, void *userdata)
{
    return bus_listen(plugin->bus, handlers, userdata);
}

int plugin_run(struct plugin *plugin)
{
    if (!plugin->ready_held)
        tell_ready(plugin);
    return sd_event_loop(plugin->event);
}

struct plugin *plugin_free(struct plugin *plugin)
{
    if (!plugin)
        return NULL;
    plugin->heartbeat_timer = sd_event_source_disable_unref(plugin->heartbeat_timer);
    plugin->control_timer = sd_event_source_disable_unref(plugin->control_timer);
    plugin->control_source = sd_event_source_disable_unref(plugin->control_source);
    plugin->drain_source = sd_event_source_disable_unref(plugin->drain_source);
    plugin->drain_timer = sd_event_source_disable_unref(plugin->drain_timer);
    plugin->sigterm_source = sd_event_source_disable_unref(plugin->sigterm_source);
    bus_free(plugin->bus);
    close_fd(plugin->control_fd);
    close_fd(plugin->config_fd);
    if (plugin->roster)
        bus__control__free_unpacked(plugin->roster, NULL);
    for (unsigned i = 0; i < plugin->socket_count; i++)
        free(plugin->socket_names[i]);
    free(plugin->socket_names);
    sd_event_unref(plugin->event);
    free(plugin->name);
    free(plugin->role);
    free(plugin->run_dir);
    free(plugin->state_dir);
    free(plugin->hostname);
    free(plugin);
    return NULL;
}

int plugin_main(int (*run)(int argc, char **argv), int argc, char **argv)
{
    int r = run(argc, argv);

    if (r < 0)
        log_event(LOG_ERR, r, "ending");
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
