/*
 * From a config to a process. The parent forks and keeps the gate; the child makes of itself, step
 * by step, what the plugin is to find, waits at the gate, and runs the program. Nothing else runs
 * in it, so it may allocate like any other process.
 */
#include "child-spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "buf.h"
#include "log.h"
#include "mem.h"

extern char **environ;

enum { EXIT_NOT_RUN = 125 };

/* In the child. A step returns -errno when it failed. */

typedef int step_fn(const struct spawn *spawn, int *gate);

static int reset_signals(const struct spawn *spawn, int *gate)
{
    sigset_t none;

    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGINT, SIG_IGN); /* a Ctrl-C is the supervisor's, which stops the plugins in order */
    sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

static char *listen_names(const struct listen_sockets *s)
{
    struct buf names = {};

    for (size_t i = 0; i < s->count; i++)
        buf_printf(&names, "%s%s", i > 0 ? ":" : "", s->sockets[i].name);
    buf_append_byte(&names, 0);
    return names.data;
}

static int set_environment(const struct spawn *spawn, int *gate)
{
    /* What systemd told the supervisor is meant for the supervisor. */
    static const char *const not_theirs[] = { "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
                                              "LISTEN_PID" };
    const struct child_config *config = spawn->config;
    const struct appliance *appliance = spawn->appliance;

    for (size_t i = 0; i < ELEMENTSOF(not_theirs); i++)
        unsetenv(not_theirs[i]);
#define SET(...) putenv(xasprintf(__VA_ARGS__))
    SET("BRINK_NAME=%s", config->name);
    SET("BRINK_ROLE=%s", config->role);
    SET("BRINK_GENERATION=%" PRIu64, spawn->generation);
    SET("BRINK_RUN_DIR=%s", appliance->run_dir);
    SET("BRINK_STATE_DIR=%s/%s", appliance->state_dir, config->name);
    SET("BRINK_HOSTNAME=%s", appliance->hostname);
    SET("BRINK_LOG_LEVEL=%s", log_level_name(appliance_log_level(appliance)));
    SET("BRINK_HEARTBEAT_USEC=%" PRIu64, config->heartbeat_usec);
    SET("BRINK_CONFIG_NAME=%s.yaml", config->name);
    SET("BRINK_CONFIG_FD=%d", SD_LISTEN_FDS_START + (int)config->sockets.count);
    SET("LISTEN_FDS=%zu", config->sockets.count);
    SET("LISTEN_FDNAMES=%s", listen_names(&config->sockets));
#undef SET
    return 0;
}

/* The file as the supervisor read it. */
static int config_fd_open(const struct child_config *config)
{
    int fd = memfd_create(config->name, MFD_CLOEXEC);

    if (fd < 0)
        return -errno;
    return write(fd, config->text, config->text_len) == (ssize_t)config->text_len ? fd : -ENOMEM;
}

/* Sockets and config to SD_LISTEN_FDS_START and above, the gate behind them (closed by exec), and
 * all else closed. First everything goes out of the way, so that no target is a source still
 * needed. */
static int place_descriptors(const struct spawn *spawn, int *gate)
{
    const struct listen_sockets *sockets = &spawn->config->sockets;
    int fds[LISTEN_SOCKETS_MAX + 2], count = 0, end;

    for (size_t i = 0; i < sockets->count; i++)
        fds[count++] = sockets->sockets[i].fd;
    fds[count] = config_fd_open(spawn->config);
    if (fds[count++] < 0)
        return fds[count - 1];
    fds[count++] = *gate;
    end = SD_LISTEN_FDS_START + count;
    for (int i = 0; i < count; i++) {
        fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, end);
        if (fds[i] < 0)
            return -errno;
    }
    *gate = fds[count - 1];
    for (int i = 0; i < count; i++)
        if (dup3(fds[i], SD_LISTEN_FDS_START + i, i == count - 1 ? O_CLOEXEC : 0) < 0)
            return -errno;
    *gate = end - 1;
    return close_range((unsigned)end, ~0U, 0) < 0 ? -errno : 0;
}

static int become_user(const struct spawn *spawn, int *gate)
{
    const struct child_config *config = spawn->config;

    /* Files of several users in one folder are shared by the bus's group, which that folder
     * hands on. */
    umask(spawn->group == (gid_t)-1 ? 0077 : 0007);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    if (*config->user == 0 || geteuid() != 0)
        return 0;
    if (initgroups(config->user, spawn->group != (gid_t)-1 ? spawn->group : config->gid) < 0 ||
        setresgid(config->gid, config->gid, config->gid) < 0 ||
        setresuid(config->uid, config->uid, config->uid) < 0)
        return -errno;
    return 0;
}

static int wait_at_gate(const struct spawn *spawn, int *gate)
{
    char byte;
    ssize_t n = read(*gate, &byte, 1);

    return n == 1 ? 0 : n == 0 ? -EPIPE : -errno;
}

/* More than there is to give: all there is. */
static int set_limit(__rlimit_resource_t resource, uint64_t wanted)
{
    struct rlimit limit;

    if (wanted == 0)
        return 0;
    if (getrlimit(resource, &limit) < 0)
        return -errno;
    if (wanted < limit.rlim_max)
        limit.rlim_max = wanted;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(resource, &limit) < 0 ? -errno : 0;
}

/* Last, as what came before may need more descriptors and memory than the plugin. */
static int set_limits(const struct spawn *spawn, int *gate)
{
    int r = set_limit(RLIMIT_NOFILE, spawn->config->open_files);

    return r == 0 && SPAWN_LIMITS_MEMORY ? set_limit(RLIMIT_DATA, spawn->config->memory_bytes) : r;
}

static int run_program(const struct spawn *spawn, int *gate)
{
    char *argv[] = { spawn->config->exec, NULL };

    execve(argv[0], argv, environ);
    return -errno;
}

static _Noreturn void child_run(const struct spawn *spawn, int gate)
{
    static const struct {
        const char *failure;
        step_fn *fn;
    } steps[] = {
        { "cannot reset signals", reset_signals },
        { "cannot set its environment", set_environment },
        { "cannot pass descriptors", place_descriptors },
        { "cannot become its user", become_user },
        { "the supervisor went away", wait_at_gate },
        { "cannot set its limits", set_limits },
        { "cannot run the program", run_program },
    };
    struct spawn_failure failure = {};

    for (size_t i = 0; failure.error == 0; i++) {
        failure.step = steps[i].failure;
        failure.error = -steps[i].fn(spawn, &gate);
    }
    if (send(gate, &failure, sizeof(failure), MSG_NOSIGNAL) < 0)
        _exit(EXIT_FAILURE); /* nobody is there to be told */
    _exit(EXIT_NOT_RUN);
}

/* In the parent */

/* Whether a hard limit may be raised is a capability, not a matter of being root: it is tried. Here,
 * as the child could not tell that it failed, and may be another user by then. */
static void raise_limit(const struct child_config *config, __rlimit_resource_t resource,
                        const char *what, uint64_t wanted)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) < 0 || wanted <= limit.rlim_max)
        return;
    limit.rlim_max = wanted;
    if (setrlimit(resource, &limit) < 0)
        log_event(LOG_WARNING, errno, "cannot set a limit as configured", F_PLUGIN(config->name),
                  F_STR("limit", what), F_COUNT(wanted));
}

int spawn_start(const struct spawn *spawn, pid_t *ret_pid, int *ret_pidfd, int *ret_gate)
{
    int gate[2], pidfd, error;
    pid_t pid;

    raise_limit(spawn->config, RLIMIT_NOFILE, "open_files", spawn->config->open_files);
    raise_limit(spawn->config, RLIMIT_DATA, "memory", spawn->config->memory_bytes);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) < 0)
        return -errno;
    pid = fork();
    if (pid == 0)
        child_run(spawn, gate[1]);
    pidfd = pid > 0 ? pidfd_open(pid, 0) : -1; /* not reaped by anyone: the pid is still its own */
    error = errno;
    close_fd(gate[1]);
    if (pidfd < 0) {
        close_fd(gate[0]); /* ends the child, if there is one; it is reaped with the orphans */
        return -error;
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    *ret_gate = gate[0];
    return 0;
}

void spawn_release(int gate)
{
    /* One that died waiting is reported by its exit. */
    if (send(gate, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EPIPE && errno != ECONNRESET)
        log_event(LOG_ERR, errno, "cannot open the gate for a plugin");
}

bool spawn_failed(int gate, struct spawn_failure *ret)
{
    struct spawn_failure failure;

    if (recv(gate, &failure, sizeof(failure), MSG_DONTWAIT) != sizeof(failure))
        return false;
    *ret = failure;
    return true;
}

bool spawn_failure_is_lasting(const struct spawn_failure *failure)
{
    static const int lasting[] = { ENOENT, EACCES, EPERM, ENOEXEC, ENOTDIR, EISDIR, ELOOP, EINVAL };

    for (size_t i = 0; i < ELEMENTSOF(lasting); i++)
        if (failure->error == lasting[i])
            return true;
    return false;
}
