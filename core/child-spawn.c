/*
 * From a config to a process. What can fail is done by the parent, where it can be told well; the
 * child only puts descriptors in their places, gives up what it must not keep, waits at the gate,
 * and runs the program.
 */
#include "child-spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
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

/* All that the child needs, made before the fork. Descriptors as they will stand in the child:
 * SD_LISTEN_FDS_START + index. */
struct image {
    int fds[LISTEN_SOCKETS_MAX + 2];
    unsigned fd_count;
    char **environment;
    unsigned environment_count, environment_capacity;
    int config_fd; /* owned */
};

/* Preparing */

static void image_done(struct image *image)
{
    for (unsigned i = 0; i < image->environment_count; i++)
        free(image->environment[i]);
    free(image->environment);
    close_fd(image->config_fd);
}

static void image_add_environment_take(struct image *image, char *assignment)
{
    xgrow(image->environment, image->environment_count, image->environment_capacity);
    image->environment[image->environment_count++] = assignment;
}

/* What systemd told the supervisor is meant for the supervisor. */
static bool environment_is_ours(const char *assignment)
{
    static const char *const ours[] = { "NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_", "BRINK_",
                                        "MAINPID=" };

    for (size_t i = 0; i < ELEMENTSOF(ours); i++)
        if (strncmp(assignment, ours[i], strlen(ours[i])) == 0)
            return true;
    return false;
}

static char *listen_names(const struct listen_sockets *s)
{
    struct buf names = {};

    for (size_t i = 0; i < s->count; i++)
        buf_printf(&names, "%s%s", i > 0 ? ":" : "", s->sockets[i].name);
    buf_append_byte(&names, 0);
    return names.data;
}

static void image_make_environment(struct image *image, const struct spawn *spawn)
{
    const struct child_config *config = spawn->config;
    const struct appliance *appliance = spawn->appliance;
    _cleanup_(freep) char *names = listen_names(&config->sockets);

    for (char **e = environ; *e; e++)
        if (!environment_is_ours(*e))
            image_add_environment_take(image, xstrdup(*e));
#define ADD(...) image_add_environment_take(image, xasprintf(__VA_ARGS__))
    ADD("BRINK_NAME=%s", config->name);
    ADD("BRINK_ROLE=%s", config->role);
    ADD("BRINK_GENERATION=%" PRIu64, spawn->generation);
    ADD("BRINK_RUN_DIR=%s", appliance->run_dir);
    ADD("BRINK_STATE_DIR=%s/%s", appliance->state_dir, config->name);
    ADD("BRINK_HOSTNAME=%s", appliance->hostname);
    ADD("BRINK_LOG_LEVEL=%s", log_level_name(appliance_log_level(appliance)));
    ADD("BRINK_HEARTBEAT_USEC=%" PRIu64, config->heartbeat_usec);
    ADD("BRINK_CONFIG_NAME=%s.yaml", config->name);
    ADD("BRINK_CONFIG_FD=%d", SD_LISTEN_FDS_START + (int)config->sockets.count);
    ADD("LISTEN_FDS=%zu", config->sockets.count);
    ADD("LISTEN_FDNAMES=%s", names);
#undef ADD
    image_add_environment_take(image, NULL);
}

/* The file as the supervisor read it, for reading only. */
static int config_fd_open(const struct child_config *config)
{
    int fd = memfd_create(config->name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    if (pwrite(fd, config->text, config->text_len, 0) == (ssize_t)config->text_len &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0)
        return fd;
    close_fd(fd);
    return -ENOMEM; /* what else could memory want */
}

static int image_make(struct image *image, const struct spawn *spawn)
{
    const struct listen_sockets *sockets = &spawn->config->sockets;

    for (size_t i = 0; i < sockets->count; i++)
        image->fds[image->fd_count++] = sockets->sockets[i].fd;
    image->config_fd = config_fd_open(spawn->config);
    if (image->config_fd < 0)
        return image->config_fd;
    image->fds[image->fd_count++] = image->config_fd;
    image_make_environment(image, spawn);
    return 0;
}

/* In the child */

/* Puts @fds at SD_LISTEN_FDS_START and above, @gate behind them (closed by exec), and closes all
 * else. First everything goes out of the way, so that no target is a source still needed. */
static int place_descriptors(const struct image *image, int *gate)
{
    int count = (int)image->fd_count, end = SD_LISTEN_FDS_START + count;
    int away[LISTEN_SOCKETS_MAX + 2];

    for (int i = 0; i < count; i++) {
        away[i] = fcntl(image->fds[i], F_DUPFD_CLOEXEC, end + 1);
        if (away[i] < 0)
            return -errno;
    }
    *gate = fcntl(*gate, F_DUPFD_CLOEXEC, end + 1);
    if (*gate < 0)
        return -errno;
    for (int i = 0; i < count; i++)
        if (dup2(away[i], SD_LISTEN_FDS_START + i) < 0)
            return -errno;
    *gate = dup3(*gate, end, O_CLOEXEC);
    if (*gate < 0)
        return -errno;
    return close_range((unsigned)end + 1, ~0U, 0) < 0 ? -errno : 0;
}

static int become_user(const struct spawn *spawn)
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

static void reset_signals(void)
{
    sigset_t none;

    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGINT, SIG_IGN); /* a Ctrl-C is the supervisor's, which stops the plugins in order */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int wait_at_gate(int gate)
{
    char byte;
    ssize_t n;

    do
        n = read(gate, &byte, 1);
    while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : n == 0 ? -EPIPE : -errno;
}

static _Noreturn void child_fail(int gate, const char *step, int error)
{
    struct spawn_failure failure = { .error = -error };
    ssize_t n;

    snprintf(failure.step, sizeof(failure.step), "%s", step);
    n = send(gate, &failure, sizeof(failure), MSG_NOSIGNAL);
    (void)n; /* nobody is there to be told */
    _exit(EXIT_NOT_RUN);
}

static _Noreturn void child_run(const struct spawn *spawn, const struct image *image, int gate)
{
    char *argv[] = { spawn->config->exec, NULL };
    int r;

    reset_signals();
    r = place_descriptors(image, &gate);
    if (r < 0)
        child_fail(gate, "cannot pass descriptors", r);
    r = become_user(spawn);
    if (r < 0)
        child_fail(gate, "cannot become its user", r);
    r = wait_at_gate(gate);
    if (r < 0)
        child_fail(gate, "the supervisor went away", r);
    execve(argv[0], argv, image->environment);
    child_fail(gate, "cannot run the program", -errno);
}

/* In the parent */

/* More than there is to give: all there is. Whether a hard limit may be raised is a capability, not
 * a matter of being root: it is tried. */
static void set_limit(pid_t pid, const char *plugin, __rlimit_resource_t resource, const char *what,
                      uint64_t value)
{
    const struct rlimit limit = { value, value };
    struct rlimit given;

    if (value == 0 || prlimit(pid, resource, &limit, NULL) == 0)
        return;
    log_event(LOG_WARNING, errno, "cannot set a limit as configured", F_PLUGIN(plugin),
              F_STR("limit", what), F_COUNT(value));
    if (prlimit(pid, resource, NULL, &given) == 0) {
        given.rlim_cur = given.rlim_max;
        prlimit(pid, resource, &given, NULL);
    }
}

/* The child waits at the gate meanwhile. */
static void set_limits(pid_t pid, const struct child_config *config)
{
    set_limit(pid, config->name, RLIMIT_NOFILE, "open_files", config->open_files);
    if (SPAWN_LIMITS_MEMORY)
        set_limit(pid, config->name, RLIMIT_DATA, "memory", config->memory_bytes);
}

static int spawn_fork(const struct spawn *spawn, const struct image *image, pid_t *ret_pid,
                      int *ret_pidfd, int *ret_gate)
{
    int gate[2], pidfd, error;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) < 0)
        return -errno;
    pid = fork();
    if (pid == 0)
        child_run(spawn, image, gate[1]);
    error = errno;
    close_fd(gate[1]);
    if (pid < 0) {
        close_fd(gate[0]);
        return -error;
    }
    pidfd = pidfd_open(pid, 0); /* not reaped by anyone: the pid is still its own */
    if (pidfd < 0) {
        error = errno;
        close_fd(gate[0]); /* ends the child; it is reaped with the orphans */
        return -error;
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    *ret_gate = gate[0];
    return 0;
}

int spawn_start(const struct spawn *spawn, pid_t *ret_pid, int *ret_pidfd, int *ret_gate)
{
    struct image image = { .config_fd = -1 };
    int r = image_make(&image, spawn);

    if (r == 0)
        r = spawn_fork(spawn, &image, ret_pid, ret_pidfd, ret_gate);
    if (r == 0)
        set_limits(*ret_pid, spawn->config);
    image_done(&image);
    return r;
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
