/*
 * Processes and time. Every handler only feeds an event to a child's state table; what follows from
 * it for others (the tally and the state on disk, rosters, gates, answers to the operator, the next
 * stage of a stop) is settled once, at the end of the turn, in one place. So handlers never meet
 * each other half-way, and starting ten plugins costs one fsync.
 */
#include "supervisor.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "child-spawn.h"
#include "file.h"
#include "running.h"
#include "timer.h"

enum {
    MISSED_HEARTBEATS = 5,
    TIMER_ACCURACY_USEC = 1000,
    STOP_GRACE_USEC = 10 * 1000 * 1000,
};

/* What a plugin wrote before it fell silent is read before its silence is judged: a supervisor
 * that was itself stopped for a while must not kill those who spoke meanwhile. Control
 * connections are IMPORTANT, exits and signals NORMAL. */
enum { PRIORITY_TURN = SD_EVENT_PRIORITY_NORMAL + 10, PRIORITY_TIMER = SD_EVENT_PRIORITY_IDLE };

static struct unit *unit_of(struct child *child)
{
    return CONTAINER_OF(child, struct unit, child);
}

bool unit_is_running(const struct unit *unit)
{
    return unit->pid > 0;
}

struct unit *supervisor_find_pid(struct supervisor *s, pid_t pid)
{
    /* 0 is what the kernel says of a process in another namespace, too. */
    for (size_t i = 0; i < s->unit_count; i++)
        if (pid > 0 && s->units[i]->pid == pid)
            return s->units[i];
    return NULL;
}

struct unit *supervisor_find_name(struct supervisor *s, const char *name)
{
    for (size_t i = 0; i < s->unit_count; i++)
        if (strcmp(s->units[i]->config.name, name) == 0)
            return s->units[i];
    return NULL;
}

void supervisor_turn(struct supervisor *s)
{
    sd_event_source_set_enabled(s->turn_source, SD_EVENT_ONESHOT);
}

int keep_or_exit(int r, sd_event_source *source, int64_t priority)
{
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(source, true);
    if (r >= 0)
        r = sd_event_source_set_priority(source, priority);
    return r < 0 ? r : 0;
}

/* The end of a process */

static void describe_end(const siginfo_t *how, char *text, size_t size)
{
    if (how->si_code == CLD_EXITED)
        snprintf(text, size, "exited with status %d", how->si_status);
    else if (how->si_code == CLD_KILLED || how->si_code == CLD_DUMPED)
        snprintf(text, size, "killed by SIG%s%s", sigabbrev_np(how->si_status) ?: "?",
                 how->si_code == CLD_DUMPED ? ", core dumped" : "");
    else
        snprintf(text, size, "ended; it was adopted, so how is not known");
}

/* What the end means: REFUSED is one that an operator must mend. */
static enum child_event judge_end(const struct unit *unit, const siginfo_t *how, char *text,
                                  size_t size)
{
    struct spawn_failure failure;

    if (unit->gate >= 0 && spawn_failed(unit->gate, &failure)) {
        snprintf(text, size, "%s: %s: %s", unit->config.exec, failure.step,
                 strerror(failure.error));
        return spawn_failure_is_lasting(&failure) ? CHILD_REFUSED : CHILD_EXITED;
    }
    if (how->si_code == CLD_EXITED && how->si_status == EX_CONFIG) {
        snprintf(text, size, "it refuses its settings in %s", unit->config.path);
        return CHILD_REFUSED;
    }
    describe_end(how, text, size);
    return CHILD_EXITED;
}

/* All that belonged to the process goes with it. */
static void unit_forget_process(struct unit *unit)
{
    unit_disconnect(unit);
    unit->exit_source = sd_event_source_disable_unref(unit->exit_source);
    unit->pidfd = close_fd(unit->pidfd);
    unit->gate = close_fd(unit->gate);
    unit->pid = 0;
    unit->released = false;
    free(TAKE_PTR(unit->version));
    if (unit->heartbeat)
        bus__control__free_unpacked(TAKE_PTR(unit->heartbeat), NULL);
}

static void unit_on_end(struct unit *unit, const siginfo_t *how)
{
    struct supervisor *s = unit->supervisor;
    char text[sizeof(unit->child.reason)];
    enum child_event event = judge_end(unit, how, text, sizeof(text));
    bool asked = unit->child.asked;

    log_event(asked ? LOG_INFO : LOG_WARNING, 0, asked ? "plugin ended" : "plugin died",
              F_PLUGIN(unit->config.name), F_PID(unit->pid), F_GENERATION(unit->generation),
              F_REASON(text));
    if (!asked)
        tally_add_death(&s->tally, unit->config.name, utc_sec(), text);
    unit_forget_process(unit);
    s->processes_changed = true;
    child_feed(&unit->child, event, asked ? NULL : text); /* why it was asked to is known better */
    supervisor_turn(s);
}

/* One that was adopted is somebody else's to reap: how it ended is not known. */
static int unit_on_adopted_end(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    const siginfo_t unknown = {};

    unit_on_end(userdata, &unknown);
    return 0;
}

/* Orphans of plugins come to the subreaper, too; nobody else takes them off the process table. */
static int supervisor_on_sigchld(sd_event_source *source, const struct signalfd_siginfo *info,
                                 void *userdata)
{
    struct supervisor *s = userdata;

    for (;;) {
        siginfo_t how = {};
        struct unit *unit;

        if (waitid(P_ALL, 0, &how, WEXITED | WNOHANG) < 0 || how.si_pid == 0)
            return 0;
        unit = supervisor_find_pid(s, how.si_pid);
        if (unit)
            unit_on_end(unit, &how);
    }
}

/* What children's state tables ask for */

/* What it is to find when it runs. On failure the child's reason says which part failed. */
static int unit_prepare(struct unit *unit)
{
    const struct supervisor *s = unit->supervisor;
    struct child_config *config = &unit->config;
    _cleanup_(freep) char *folder = xasprintf("%s/%s", s->appliance->state_dir, config->name);
    const struct listen_socket *failed = NULL;
    int r;

    r = folder_ensure(folder, 0700, config->uid, config->gid);
    if (r < 0) {
        snprintf(unit->child.reason, sizeof(unit->child.reason), "%s: %s", folder, strerror(-r));
        return r;
    }
    r = listen_sockets_open(&config->sockets, s->group, &failed);
    if (r < 0)
        snprintf(unit->child.reason, sizeof(unit->child.reason), "cannot listen on %s: %s",
                 failed->listen, strerror(-r));
    return r;
}

static int unit_spawn(struct child *child)
{
    struct unit *unit = unit_of(child);
    struct supervisor *s = unit->supervisor;
    struct spawn spawn = { .appliance = s->appliance, .config = &unit->config, .group = s->group };
    int r;

    if (unit_is_running(unit))
        return 0; /* adopted */
    r = unit_prepare(unit);
    if (r < 0)
        return r;
    spawn.generation = tally_next_generation(&s->tally, unit->config.name);
    r = spawn_start(&spawn, &unit->pid, &unit->pidfd, &unit->gate);
    if (r < 0) {
        snprintf(child->reason, sizeof(child->reason), "cannot make a process: %s", strerror(-r));
        return r;
    }
    unit->generation = spawn.generation;
    /* A child that is not reaped has an entry in /proc; without a start time it would just not
     * be adopted. */
    if (process_start_ticks(unit->pid, &unit->start_ticks) < 0)
        unit->start_ticks = 0;
    s->processes_changed = true;
    supervisor_turn(s);
    return 0;
}

void unit_signal(struct child *child, int number)
{
    const struct unit *unit = unit_of(child);

    if (pidfd_send_signal(unit->pidfd, number, NULL, 0) < 0 && errno != ESRCH)
        log_event(LOG_ERR, errno, "cannot send a signal", F_PLUGIN(unit->config.name),
                  F_NUM("signal", number));
}

static void unit_drain(struct child *child, uint64_t deadline_usec)
{
    if (!unit_send_drain(unit_of(child), deadline_usec))
        unit_signal(child, SIGTERM);
}

static void unit_set_timer(struct child *child, uint64_t usec_from_now)
{
    sd_event_source *timer = unit_of(child)->timer;
    int r = usec_from_now > 0 ? timer_rearm(timer, usec_from_now) : timer_stop(timer);

    assert(r == 0);
}

static void unit_on_change(struct child *child)
{
    struct unit *unit = unit_of(child);

    /* While it restarts, its clients wait in the backlog; while it is stopped, they are better
     * refused. */
    if (child->state == CHILD_STOPPED)
        listen_sockets_close(&unit->config.sockets);
    unit->tried |= child->state != CHILD_STARTING && child->state != CHILD_ENDING;
    supervisor_turn(unit->supervisor);
}

static uint64_t unit_now(struct child *child)
{
    return now_usec();
}

static const struct child_ops unit_child_ops = {
    .spawn = unit_spawn,
    .drain = unit_drain,
    .signal = unit_signal,
    .set_timer = unit_set_timer,
    .changed = unit_on_change,
    .now = unit_now,
};

static int unit_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct unit *unit = userdata;

    child_feed(&unit->child, CHILD_TIMEOUT, NULL);
    return 0;
}

/* Units */

static struct child_timing timing_of(const struct child_config *config)
{
    return (struct child_timing){
        .ready_usec = config->ready_timeout_usec,
        .hang_usec = config->heartbeat_usec * MISSED_HEARTBEATS,
        .drain_usec = config->drain_timeout_usec,
    };
}

static struct unit *unit_free(struct unit *unit)
{
    unit_forget_process(unit);
    sd_event_source_disable_unref(unit->timer);
    child_config_done(&unit->config);
    free(unit);
    return NULL;
}

/* Moves the config in. */
static int unit_add(struct supervisor *s, struct child_config *config)
{
    struct unit *unit = xnew(struct unit);
    struct child_timing timing = timing_of(config);
    int r;

    unit->supervisor = s;
    unit->pidfd = unit->gate = -1;
    unit->config = *config;
    *config = (struct child_config){};
    child_init(&unit->child, unit->config.name, &timing, &unit_child_ops);
    s->units[s->unit_count++] = unit;
    r = sd_event_add_time(s->event, &unit->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_USEC,
                          unit_on_timer, unit);
    r = keep_or_exit(r, unit->timer, PRIORITY_TIMER);
    return r < 0 ? r : timer_stop(unit->timer);
}

static bool sockets_are_same(const struct listen_sockets *a, const struct listen_sockets *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->sockets[i].name, b->sockets[i].name) != 0 ||
            strcmp(a->sockets[i].listen, b->sockets[i].listen) != 0)
            return false;
    return true;
}

int unit_reload(struct unit *unit, struct config_error *ret_error)
{
    struct child_config *old = &unit->config, new;
    struct listen_sockets sockets;
    int r;

    r = child_config_load(old->path, unit->supervisor->appliance, NULL, &new, ret_error);
    if (r != 0)
        return r;
    if (strcmp(new.role, old->role) != 0 || strcmp(new.user, old->user) != 0 ||
        !sockets_are_same(&new.sockets, &old->sockets)) {
        snprintf(ret_error->text, sizeof(ret_error->text),
                 "%s.yaml: role, user and sockets: expected what brinkd started with; a change of "
                 "these takes a restart of brinkd",
                 new.name);
        child_config_done(&new);
        return CONFIG_E_INVALID;
    }
    sockets = new.sockets; /* the open ones stay */
    new.sockets = old->sockets;
    old->sockets = sockets;
    child_config_done(old);
    *old = new;
    unit->child.name = unit->config.name;
    unit->child.timing = timing_of(&unit->config);
    return 0;
}

/* Adoption */

static void adopt(const struct running *running, void *userdata)
{
    struct supervisor *s = userdata;
    struct unit *unit = supervisor_find_name(s, running->name);
    int pidfd = process_open(running->pid, running->start_ticks), r;

    if (pidfd < 0)
        return; /* it died meanwhile, and is started like any other */
    if (!unit || !unit->config.enabled || unit_is_running(unit)) {
        log_event(LOG_WARNING, 0, "a plugin that is not configured any more is killed",
                  F_PLUGIN(running->name), F_PID(running->pid));
        pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
        close_fd(pidfd);
        return;
    }
    unit->pid = running->pid;
    unit->pidfd = pidfd;
    unit->start_ticks = running->start_ticks;
    unit->generation = running->generation;
    tally_saw_generation(&s->tally, running->name, running->generation);
    r = sd_event_add_io(s->event, &unit->exit_source, pidfd, EPOLLIN, unit_on_adopted_end, unit);
    if (keep_or_exit(r, unit->exit_source, SD_EVENT_PRIORITY_NORMAL) < 0) {
        unit_signal(&unit->child, SIGKILL);
        unit_forget_process(unit);
        return;
    }
    log_event(LOG_INFO, 0, "plugin adopted", F_PLUGIN(running->name), F_PID(running->pid),
              F_GENERATION(running->generation));
}

static void save_running(struct supervisor *s)
{
    _cleanup_(buf_done) struct buf text = {};
    int r;

    for (size_t i = 0; i < s->unit_count; i++) {
        const struct unit *unit = s->units[i];

        if (unit_is_running(unit))
            running_append(&text, unit->config.name, unit->pid, unit->start_ticks,
                           unit->generation);
    }
    r = file_replace(s->state_path, buf_span(&text), false);
    if (r < 0)
        log_event(LOG_ERR, r, "cannot write which plugins run: a new brinkd would not find them",
                  F_PATH(s->state_path));
}

/* Descriptors from systemd, named PLUGIN.SOCKET. */
static bool take_systemd_socket(struct supervisor *s, const char *name, int fd)
{
    const char *dot = strchr(name, '.');
    _cleanup_(freep) char *plugin = dot ? xstrndup(name, (size_t)(dot - name)) : NULL;
    struct unit *unit = plugin ? supervisor_find_name(s, plugin) : NULL;

    return unit && listen_sockets_give(&unit->config.sockets, dot + 1, fd, true);
}

static void take_systemd_sockets(struct supervisor *s)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(true, &names);

    for (int i = 0; i < n; i++) {
        if (!take_systemd_socket(s, names[i], SD_LISTEN_FDS_START + i)) {
            log_event(LOG_WARNING, 0, "a socket from systemd that no plugin asks for is closed",
                      F_STR("name", names[i]));
            close(SD_LISTEN_FDS_START + i);
        }
        free(names[i]);
    }
    free(names);
}

/* Telling systemd */

/* One plugin that does not come up must not make systemd think that nothing did, and restart the
 * others with it: ready is when each has had its chance. */
static void supervisor_notify(struct supervisor *s)
{
    const struct unit *waiting = NULL;
    unsigned wanted = 0, ready = 0;
    bool all_tried = true;

    for (size_t i = 0; i < s->unit_count; i++) {
        const struct unit *unit = s->units[i];

        wanted += unit->child.wanted;
        ready += unit->child.state == CHILD_READY;
        if (unit->child.wanted && unit->child.state != CHILD_READY)
            waiting = unit;
        all_tried = all_tried && (unit->tried || !unit->child.wanted);
    }
    sd_notifyf(0, "STATUS=%u of %u plugins ready%s%s%s%s", ready, wanted, waiting ? "; " : "",
               waiting ? waiting->config.name : "", waiting ? " is " : "",
               waiting ? child_state_name(waiting->child.state) : "");
    if (s->ready_told || !all_tried)
        return;
    log_event(LOG_INFO, 0, "ready", F_COUNT(ready));
    sd_notify(0, "READY=1");
    s->ready_told = true;
}

/* Stopping */

/* Those that take clients in go first, so that the others can finish what was taken in; those that
 * others tell how it ended go last. False: the stage is not over. */
static bool stop_stage(struct supervisor *s, uint64_t stage)
{
    bool over = true;

    for (size_t i = 0; i < s->unit_count; i++) {
        struct unit *unit = s->units[i];

        if (unit->config.stop_stage != stage)
            continue;
        if (unit->child.wanted)
            child_feed(&unit->child, CHILD_UNWANTED, "brinkd stops");
        over = over && unit->child.state == CHILD_STOPPED;
    }
    return over;
}

/* False: it goes on. */
static bool stop_stages(struct supervisor *s)
{
    for (uint64_t stage = 1; stage <= STOP_STAGES; stage++)
        if (!stop_stage(s, stage))
            return false;
    return true;
}

/* Each stage has the patience that the slowest asks for. */
static uint64_t stop_deadline_usec(const struct supervisor *s)
{
    uint64_t longest = 0;

    for (size_t i = 0; i < s->unit_count; i++)
        if (longest < s->units[i]->config.drain_timeout_usec)
            longest = s->units[i]->config.drain_timeout_usec;
    return STOP_STAGES * longest + STOP_GRACE_USEC;
}

static int supervisor_on_stop_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct supervisor *s = userdata;

    for (size_t i = 0; i < s->unit_count; i++)
        if (unit_is_running(s->units[i]))
            log_event(LOG_ERR, 0, "plugin is left behind: nothing ends it",
                      F_PLUGIN(s->units[i]->config.name), F_PID(s->units[i]->pid));
    return sd_event_exit(s->event, -ETIMEDOUT);
}

static int supervisor_stop(struct supervisor *s)
{
    uint64_t deadline_usec = stop_deadline_usec(s);
    int r;

    log_event(LOG_INFO, 0, "stopping", F_USEC(deadline_usec));
    sd_notifyf(0, "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=%" PRIu64, deadline_usec);
    s->stopping = true;
    r = sd_event_add_time_relative(s->event, &s->stop_timer, CLOCK_MONOTONIC, deadline_usec, 0,
                                   supervisor_on_stop_deadline, s);
    supervisor_turn(s);
    return keep_or_exit(r, s->stop_timer, PRIORITY_TIMER);
}

/* Once: in order. Twice: at once. */
static int supervisor_on_sigterm(sd_event_source *source, const struct signalfd_siginfo *info,
                                 void *userdata)
{
    struct supervisor *s = userdata;

    if (!s->stopping)
        return supervisor_stop(s);
    log_event(LOG_WARNING, 0, "asked again to stop: plugins are killed");
    for (size_t i = 0; i < s->unit_count; i++) {
        child_feed(&s->units[i]->child, CHILD_UNWANTED, "brinkd stops at once");
        if (unit_is_running(s->units[i]))
            unit_signal(&s->units[i]->child, SIGKILL);
    }
    return 0;
}

/* The end of a turn */

/* The time that a plugin has begins when it may run: a slow disk is not its fault. */
static void open_gates(struct supervisor *s)
{
    for (size_t i = 0; i < s->unit_count; i++) {
        struct unit *unit = s->units[i];

        if (unit->gate < 0 || unit->released)
            continue;
        spawn_release(unit->gate);
        unit->released = true;
        if (unit->child.state == CHILD_STARTING)
            unit_set_timer(&unit->child, unit->child.timing.ready_usec);
    }
}

/* The order matters: a generation is on disk and a pid is known to the next supervisor and to
 * every plugin before the process that has it may run. */
static int supervisor_on_turn(sd_event_source *source, void *userdata)
{
    struct supervisor *s = userdata;
    int r = tally_save(&s->tally);

    if (r < 0)
        log_event(LOG_ERR, r, "cannot write the tally", F_PATH(s->tally.path));
    if (s->processes_changed) {
        save_running(s);
        supervisor_send_rosters(s);
    }
    s->processes_changed = false;
    open_gates(s);
    supervisor_answer_commands(s);
    if (!s->stopping)
        supervisor_notify(s);
    else if (stop_stages(s))
        return sd_event_exit(s->event, 0);
    return 0;
}

/* Beginning */

/* A record lock, because a child between fork and exec does not share it: when brinkd is killed,
 * it is free at once. */
static int supervisor_lock(struct supervisor *s)
{
    _cleanup_(freep) char *path = xasprintf("%s/brinkd.lock", s->appliance->run_dir);
    const struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    struct flock held = whole;

    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        return -errno;
    if (fcntl(s->lock_fd, F_SETLK, &whole) == 0)
        return 0;
    if (errno != EAGAIN && errno != EACCES)
        return -errno;
    if (fcntl(s->lock_fd, F_GETLK, &held) < 0)
        return -errno;
    log_event(LOG_ERR, 0, "another brinkd is at work in this run_dir",
              F_PATH(s->appliance->run_dir), F_PID(held.l_pid));
    return -EBUSY;
}

/* run_dir and state_dir stay as whoever made them wanted them, unless plugins of other users could
 * not get in. */
static bool top_folder_will_do(const char *path, gid_t group)
{
    struct stat st;

    return stat(path, &st) == 0 && (group == (gid_t)-1 || (st.st_mode & S_IXOTH) ||
                                    (st.st_gid == group && (st.st_mode & S_IXGRP)));
}

/* Sockets that plugins make in bus/ belong to its group (the set-group-id bit): else one user's
 * could not be used by another. */
static int supervisor_make_folders(const struct supervisor *s)
{
    const struct appliance *a = s->appliance;
    const struct {
        const char *parent, *name;
        mode_t mode;
        gid_t group;
    } folders[] = {
        { a->run_dir, "", 0750, s->group },
        { a->state_dir, "", 0750, s->group },
        { a->run_dir, "/bus", s->group != (gid_t)-1 ? 02770 : 0700, s->group },
        { a->run_dir, "/streams", 0750, s->group },
        { a->state_dir, "/brinkd", 0700, (gid_t)-1 },
    };

    for (size_t i = 0; i < ELEMENTSOF(folders); i++) {
        _cleanup_(freep) char *path = xasprintf("%s%s", folders[i].parent, folders[i].name);
        int r;

        if (*folders[i].name == 0 && top_folder_will_do(path, folders[i].group))
            continue;
        r = folder_ensure(path, folders[i].mode, (uid_t)-1, folders[i].group);
        if (r < 0) {
            log_event(LOG_ERR, r, "cannot make a folder", F_PATH(path));
            return r;
        }
    }
    return 0;
}

static int supervisor_add_sources(struct supervisor *s)
{
    const struct {
        int number;
        sd_event_signal_handler_t handler;
    } signals[SIGNAL_SOURCES] = {
        { SIGTERM, supervisor_on_sigterm },
        { SIGINT, supervisor_on_sigterm },
        { SIGCHLD, supervisor_on_sigchld },
    };
    int r;

    for (size_t i = 0; i < SIGNAL_SOURCES; i++) {
        r = sd_event_add_signal(s->event, &s->signal_sources[i],
                                signals[i].number | SD_EVENT_SIGNAL_PROCMASK, signals[i].handler,
                                s);
        r = keep_or_exit(r, s->signal_sources[i], SD_EVENT_PRIORITY_NORMAL);
        if (r < 0)
            return r;
    }
    r = sd_event_add_defer(s->event, &s->turn_source, supervisor_on_turn, s);
    return keep_or_exit(r, s->turn_source, PRIORITY_TURN);
}

static gid_t group_of(const struct child_configs *configs)
{
    for (size_t i = 0; i < configs->count; i++)
        if (configs->entries[i].uid != geteuid())
            return configs->entries[i].gid;
    return (gid_t)-1;
}

/* What is on disk and in the kernel: folders, the lock, the tally. */
static int supervisor_settle_in(struct supervisor *s)
{
    _cleanup_(freep) char *tally_path = xasprintf("%s/brinkd/tally", s->appliance->state_dir);
    int r;

    if (!freopen("/dev/null", "r", stdin)) /* its children's, too */
        return -errno;
    signal(SIGPIPE, SIG_IGN); /* a log that nobody reads any more is no reason to end */
    signal(SIGHUP, SIG_IGN);  /* nor is a terminal; files are read when a plugin is restarted */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return -errno;
    r = supervisor_make_folders(s);
    if (r < 0)
        return r;
    r = supervisor_lock(s);
    if (r < 0)
        return r;
    s->state_path = xasprintf("%s/brinkd.state", s->appliance->run_dir);
    r = tally_load(tally_path, &s->tally);
    if (r < 0)
        log_event(LOG_ERR, r, "cannot read the tally", F_PATH(tally_path));
    return r;
}

static int supervisor_add_units(struct supervisor *s, struct child_configs *configs)
{
    s->units = xnew_n(struct unit *, configs->count + 1);
    for (size_t i = 0; i < configs->count; i++) {
        int r = unit_add(s, &configs->entries[i]);

        if (r < 0)
            return r;
    }
    return 0;
}

static int supervisor_begin(struct supervisor *s, struct child_configs *configs)
{
    int r;

    r = sd_event_default(&s->event);
    if (r >= 0)
        r = sd_event_set_watchdog(s->event, true);
    if (r >= 0)
        r = supervisor_settle_in(s);
    if (r >= 0)
        r = supervisor_add_sources(s);
    if (r >= 0)
        r = supervisor_add_units(s, configs);
    if (r < 0)
        return r;
    take_systemd_sockets(s);
    r = running_each(s->state_path, adopt, s);
    return r < 0 ? r : supervisor_control_open(s);
}

int supervisor_new_take(const struct appliance *appliance, struct child_configs *configs,
                        struct supervisor **ret)
{
    _cleanup_(supervisor_freep) struct supervisor *s = xnew(struct supervisor);
    int r;

    s->appliance = appliance;
    s->lock_fd = s->control_fd = -1;
    s->group = group_of(configs);
    r = supervisor_begin(s, configs);
    child_configs_done(configs);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(s);
    return 0;
}

int supervisor_run(struct supervisor *s)
{
    int r;

    for (size_t i = 0; i < s->unit_count; i++)
        if (s->units[i]->config.enabled)
            child_feed(&s->units[i]->child, CHILD_WANTED, NULL);
    supervisor_turn(s);
    r = sd_event_loop(s->event);
    if (r >= 0)
        unlink(s->state_path); /* nothing runs that could be adopted */
    return r;
}

struct supervisor *supervisor_free(struct supervisor *s)
{
    if (!s)
        return NULL;
    supervisor_control_close(s);
    for (size_t i = 0; i < s->unit_count; i++)
        unit_free(s->units[i]);
    free(s->units);
    sd_event_source_disable_unref(s->stop_timer);
    sd_event_source_disable_unref(s->turn_source);
    for (size_t i = 0; i < SIGNAL_SOURCES; i++)
        sd_event_source_disable_unref(s->signal_sources[i]);
    sd_event_unref(s->event);
    tally_done(&s->tally);
    close_fd(s->lock_fd);
    free(s->state_path);
    free(s);
    return NULL;
}
