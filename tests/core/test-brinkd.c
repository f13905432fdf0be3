/*
 * brinkd as a whole, in an empty directory: processes are really killed, stopped and left behind.
 * What happens is read from the log, which all processes share; a test marks where it stands in the
 * log, acts, and waits for the lines that must follow.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "buf.h"
#include "control.h"
#include "mem.h"
#include "timer.h"

enum { PATIENCE_MSEC = 60 * 1000 };

struct edge {
    char dir[32];
    pid_t brinkd;
    int log[2];
    struct buf text;    /* all that was logged */
    size_t mark;        /* what is looked for begins here */
    int notify;         /* what systemd would hear; -1: there is none */
    int systemd_socket; /* handed to brinkd as "a.in"; -1: none */
};

/* Files */

static void edge_put(const struct edge *e, const char *file, const char *format, ...)
    _printf_(3, 4);
static void edge_put(const struct edge *e, const char *file, const char *format, ...)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", e->dir, file);
    FILE *out = fopen(path, "we");
    va_list args;

    assert_non_null(out);
    va_start(args, format);
    vfprintf(out, format, args);
    va_end(args);
    fclose(out);
}

/* @more: further lines of the file. */
static void edge_add(const struct edge *e, const char *name, const char *mode, const char *more)
{
    _cleanup_(freep) char *file = xasprintf("plugins.d/%s.yaml", name);

    edge_put(e, file, "role: %s\nexec: %s/child\n%ssettings: {mode: %s}\n", name, e->dir, more,
             mode);
}

/* The log */

static void edge_read_log(struct edge *e, int deadline_msec)
{
    struct pollfd pollfd = { e->log[0], POLLIN, 0 };
    ssize_t n;

    if (poll(&pollfd, 1, deadline_msec) <= 0)
        fail_msg("waited in vain; the log since the mark:\n%.*s",
                 (int)(buf_len(&e->text) - e->mark), e->text.data + e->mark);
    n = read(e->log[0], buf_reserve(&e->text, 4096), 4096);
    assert_true(n > 0);
    buf_commit(&e->text, (size_t)n);
}

static bool line_has_all(struct span line, const char *const *words)
{
    for (; *words; words++)
        if (!memmem(line.at, line.len, *words, strlen(*words)))
            return false;
    return true;
}

/* The first whole line since the mark with all @words. */
static bool edge_find(const struct edge *e, const char *const *words, struct span *ret_line)
{
    struct span rest = span_of(e->text.data + e->mark, buf_len(&e->text) - e->mark), line;

    while (span_split(&rest, SPAN("\n"), &line))
        if (line_has_all(line, words)) {
            *ret_line = line;
            return true;
        }
    return false;
}

static void edge_mark(struct edge *e)
{
    struct pollfd pollfd = { e->log[0], POLLIN, 0 };

    while (poll(&pollfd, 1, 0) > 0)
        edge_read_log(e, 0);
    e->mark = buf_len(&e->text);
}

static struct span edge_expect_words(struct edge *e, const char *const *words)
{
    uint64_t begin = now_usec();
    struct span line;

    while (!edge_find(e, words, &line)) {
        assert_true(now_usec() - begin < PATIENCE_MSEC * 1000UL);
        edge_read_log(e, PATIENCE_MSEC);
    }
    return line;
}

/* Waits for a line with all these words; it is borrowed until the next call. */
#define edge_expect(e, ...) edge_expect_words(e, (const char *const[]){ __VA_ARGS__, NULL })

/* The next ones are looked for behind this one. */
static void edge_mark_behind(struct edge *e, struct span line)
{
    e->mark = (size_t)(line.at + line.len - e->text.data);
}

static bool edge_saw(struct edge *e, const char *const *words)
{
    struct span line;

    return edge_find(e, words, &line);
}

#define edge_assert_unseen(e, ...)                                                                 \
    assert_false(edge_saw(e, (const char *const[]){ __VA_ARGS__, NULL }))

/* brinkd's life */

static void pass_systemd_socket(int fd)
{
    char pid[16];

    snprintf(pid, sizeof(pid), "%d", getpid());
    setenv("LISTEN_PID", pid, true);
    setenv("LISTEN_FDS", "1", true);
    setenv("LISTEN_FDNAMES", "a.in", true);
    dup2(fd, 3);
}

static pid_t edge_run(struct edge *e, const char *option)
{
    _cleanup_(freep) char *notify = xasprintf("%s/notify", e->dir);
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    dup2(e->log[1], STDERR_FILENO);
    dup2(e->log[1], STDOUT_FILENO);
    if (e->notify >= 0)
        setenv("NOTIFY_SOCKET", notify, true);
    if (e->systemd_socket >= 0)
        pass_systemd_socket(e->systemd_socket);
    execl(BRINKD, "brinkd", "--config", e->dir, option, NULL);
    _exit(EXIT_FAILURE);
}

static void edge_start(struct edge *e)
{
    edge_mark(e);
    e->brinkd = edge_run(e, NULL);
}

static int wait_status(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void edge_kill_brinkd(struct edge *e)
{
    kill(e->brinkd, SIGKILL);
    wait_status(e->brinkd);
    e->brinkd = 0;
}

static void edge_stop(struct edge *e)
{
    int status;

    edge_mark(e);
    kill(e->brinkd, SIGTERM);
    status = wait_status(e->brinkd);
    e->brinkd = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void edge_be_systemd(struct edge *e)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    e->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", e->dir);
    assert_int_equal(bind(e->notify, (const struct sockaddr *)&address, sizeof(address)), 0);
}

static void edge_expect_notify(const struct edge *e, const char *text)
{
    char message[512];

    for (;;) {
        struct pollfd pollfd = { e->notify, POLLIN, 0 };
        ssize_t n;

        assert_int_equal(poll(&pollfd, 1, PATIENCE_MSEC), 1);
        n = recv(e->notify, message, sizeof(message) - 1, 0);
        assert_true(n >= 0);
        message[n] = 0;
        if (strstr(message, text))
            return;
    }
}

static int edge_make(void **state)
{
    struct edge *e = xnew(struct edge);
    _cleanup_(freep) char *folder = NULL, *copy = NULL;

    strcpy(e->dir, "/tmp/brink-XXXXXX");
    if (!mkdtemp(e->dir) || chmod(e->dir, 0755) < 0 || pipe2(e->log, O_CLOEXEC) < 0)
        return -1;
    /* Another user may not reach the build folder, say below /root. */
    copy = xasprintf("cp %s %s/child", CHILD_PROGRAM, e->dir);
    if (system(copy) != 0)
        return -1;
    folder = xasprintf("%s/plugins.d", e->dir);
    if (mkdir(folder, 0755) < 0)
        return -1;
    edge_put(e, "brink.yaml", "hostname: localhost\nrun_dir: run\nstate_dir: state\n");
    e->notify = e->systemd_socket = -1;
    *state = e;
    return 0;
}

/* What was left behind by a brinkd that was killed comes to this process, the subreaper. */
static int edge_remove(void **state)
{
    struct edge *e = *state;
    _cleanup_(freep) char *command = xasprintf("rm -r %s", e->dir);
    int r;

    if (e->brinkd > 0) {
        kill(e->brinkd, SIGCONT);
        kill(e->brinkd, SIGTERM);
        kill(e->brinkd, SIGTERM); /* at once */
        wait_status(e->brinkd);
    }
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    close(e->log[0]);
    close(e->log[1]);
    close_fd(e->notify);
    close_fd(e->systemd_socket);
    buf_done(&e->text);
    r = system(command);
    free(e);
    return r;
}

/* The control socket, as the operator's tool uses it */

static Bus__Control *edge_ask(const struct edge *e, const Bus__Control *question)
{
    _cleanup_(freep) char *path = xasprintf("%s/run/control.sock", e->dir);
    _cleanup_(closep) int fd = control_connect(path);
    struct pollfd pollfd = { fd, POLLIN, 0 };
    Bus__Control *answer = NULL;

    assert_true(fd >= 0);
    assert_int_equal(control_send(fd, question, NULL, 0), 0);
    assert_int_equal(poll(&pollfd, 1, PATIENCE_MSEC), 1);
    assert_int_equal(control_receive(fd, &answer, NULL, NULL), 0);
    assert_non_null(answer);
    return answer;
}

struct seen {
    Bus__ChildState state;
    pid_t pid;
    uint64_t generation, restarts;
    char version[16], status[200];
};

static struct seen edge_status(const struct edge *e, const char *name)
{
    Bus__StatusGet get = BUS__STATUS_GET__INIT;
    Bus__Control question = CONTROL_INIT(STATUS_GET, status_get, &get);
    Bus__Control *answer = edge_ask(e, &question);
    struct seen seen = {};

    assert_int_equal(answer->body_case, BUS__CONTROL__BODY_STATUS);
    for (size_t i = 0; i < answer->status->n_plugins; i++) {
        const Bus__PluginStatus *p = answer->status->plugins[i];

        if (strcmp(p->name, name) != 0)
            continue;
        seen = (struct seen){ .state = p->state,
                              .pid = (pid_t)p->pid,
                              .generation = p->generation,
                              .restarts = p->restarts };
        snprintf(seen.version, sizeof(seen.version), "%s", p->version);
        snprintf(seen.status, sizeof(seen.status), "%s", p->status);
    }
    bus__control__free_unpacked(answer, NULL);
    return seen;
}

/* "" when it was done, else why not. */
static const char *edge_command(const struct edge *e, Bus__CommandKind kind, const char *plugin)
{
    static char error[512];
    Bus__Command command = BUS__COMMAND__INIT;
    Bus__Control question = CONTROL_INIT(COMMAND, command, &command);
    Bus__Control *answer;

    command.kind = kind;
    command.plugin = (char *)plugin;
    answer = edge_ask(e, &question);
    assert_int_equal(answer->body_case, BUS__CONTROL__BODY_COMMAND_RESULT);
    assert_int_equal(answer->command_result->done, *answer->command_result->error == 0);
    snprintf(error, sizeof(error), "%s", answer->command_result->error);
    bus__control__free_unpacked(answer, NULL);
    return error;
}

#define START       BUS__COMMAND_KIND__COMMAND_KIND_START
#define STOP        BUS__COMMAND_KIND__COMMAND_KIND_STOP
#define RESTART     BUS__COMMAND_KIND__COMMAND_KIND_RESTART
#define KILL        BUS__COMMAND_KIND__COMMAND_KIND_KILL
#define STATE(name) BUS__CHILD_STATE__CHILD_STATE_##name

#define assert_contains(text, part)                                                                \
    do {                                                                                           \
        if (!strstr(text, part))                                                                   \
            fail_msg("'%s' has no '%s'", text, part);                                              \
    } while (0)

static void assert_same_process(struct seen a, struct seen b)
{
    assert_int_equal(a.pid, b.pid);
    assert_int_equal(a.generation, b.generation);
}

static void edge_expect_state(struct edge *e, const char *name, const char *state)
{
    _cleanup_(freep) char *plugin = xasprintf("plugin=%s ", name);
    _cleanup_(freep) char *wanted = xasprintf("state=%s", state);

    edge_expect(e, "plugin changed", plugin, wanted);
}

static void edge_start_two(struct edge *e)
{
    edge_add(e, "a", "good", "");
    edge_add(e, "b", "good", "");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    edge_expect_state(e, "b", "ready");
}

static struct sockaddr_un unix_address(const struct edge *e, const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", e->dir, name);
    return address;
}

/* -1: refused. */
static int stream_connect(const struct edge *e, const char *name)
{
    struct sockaddr_un address = unix_address(e, name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return close_fd(fd);
    return fd;
}

/* The pid of the plugin that took the connection. */
static pid_t stream_answer(int fd)
{
    struct pollfd pollfd = { fd, POLLIN, 0 };
    char text[32] = "";

    assert_int_equal(poll(&pollfd, 1, PATIENCE_MSEC), 1);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    return atoi(text);
}

/* "socket:[4711]": the same listen socket whoever holds it. */
static void listen_inode(pid_t pid, char *ret, size_t size)
{
    _cleanup_(freep) char *path = xasprintf("/proc/%d/fd/3", pid);
    ssize_t n = readlink(path, ret, size - 1);

    assert_true(n > 0);
    ret[n] = 0;
}

/* Tests */

static void test_start_all_become_ready(void **state)
{
    struct edge *e = *state;
    struct seen a, b;

    edge_be_systemd(e);
    edge_start_two(e);
    edge_expect_notify(e, "READY=1");
    a = edge_status(e, "a");
    b = edge_status(e, "b");
    assert_int_equal(a.state, STATE(READY));
    assert_int_equal(a.generation, 1);
    assert_int_equal(a.restarts, 0);
    assert_string_equal(a.version, "test");
    assert_int_not_equal(a.pid, b.pid);
    edge_stop(e);
    edge_expect_notify(e, "STOPPING=1");
}

static void test_killed_is_restarted_and_others_are_not(void **state)
{
    struct edge *e = *state;
    struct seen a, b, again;
    _cleanup_(freep) char *pid = NULL;

    edge_start_two(e);
    a = edge_status(e, "a");
    b = edge_status(e, "b");
    edge_mark(e);
    kill(a.pid, SIGKILL);
    edge_expect(e, "plugin died", "plugin=a ", "killed by SIGKILL");
    edge_expect_state(e, "a", "ready");
    again = edge_status(e, "a");
    assert_int_equal(again.generation, a.generation + 1);
    assert_int_not_equal(again.pid, a.pid);
    assert_int_equal(again.restarts, 1);
    assert_same_process(edge_status(e, "b"), b);
    pid = xasprintf("pid=%d ", again.pid); /* and b was told who a is now */
    edge_expect(e, " b: roster", "role=a ", pid);
}

static uint64_t gap_usec(struct edge *e, const char *from, const char *to)
{
    uint64_t begin;

    edge_mark_behind(e, edge_expect(e, "plugin changed", "plugin=a ", from));
    begin = now_usec();
    edge_mark_behind(e, edge_expect(e, "plugin changed", "plugin=a ", to));
    return now_usec() - begin;
}

static void test_dead_before_ready_waits_longer_each_time(void **state)
{
    struct edge *e = *state;
    uint64_t gaps[4];

    edge_add(e, "a", "crash", "");
    edge_add(e, "b", "good", "");
    edge_start(e);
    for (size_t i = 0; i < ELEMENTSOF(gaps); i++)
        gaps[i] = gap_usec(e, "state=backoff", "state=starting");
    /* 100 ms, 200, 400, 800, each give or take a quarter; a busy machine only adds. */
    assert_true(gaps[3] >= 600 * 1000);
    assert_true(gaps[3] > gaps[0]);
    assert_contains(edge_status(e, "a").status, "exited with status 3");
    assert_int_equal(edge_status(e, "b").generation, 1);
}

static void test_not_ready_in_time_is_ended(void **state)
{
    struct edge *e = *state;

    edge_be_systemd(e);
    edge_add(e, "a", "silent", "ready_timeout_s: 200ms\n");
    edge_start(e);
    edge_expect(e, "plugin changed", "plugin=a ", "state=ending", "not ready in time");
    edge_expect(e, "plugin died", "plugin=a ", "killed by SIGABRT");
    edge_expect_state(e, "a", "backoff");
    edge_expect_notify(e, "READY=1"); /* systemd is not left waiting for it */
}

static void test_stopped_process_is_a_hang(void **state)
{
    struct edge *e = *state;
    struct seen a;

    edge_add(e, "a", "good", "heartbeat_s: 100ms\n");
    edge_add(e, "b", "good", "");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    edge_expect_state(e, "b", "ready");
    edge_expect(e, " a: heartbeat"); /* brings the words that the operator sees */
    a = edge_status(e, "a");
    assert_string_equal(a.status, "fine");
    edge_mark(e);
    kill(a.pid, SIGSTOP);
    edge_expect(e, "plugin changed", "plugin=a ", "state=ending", "no heartbeat");
    edge_expect(e, "plugin died", "plugin=a ",
                "killed by SIG"); /* ABRT does not reach a stopped one */
    edge_expect_state(e, "a", "ready");
    assert_int_equal(edge_status(e, "a").generation, a.generation + 1);
    assert_int_equal(edge_status(e, "b").generation, 1);
}

/* What the plugins said meanwhile is heard before their silence is judged. */
static void test_brinkd_that_was_stopped_kills_nobody(void **state)
{
    struct edge *e = *state;
    struct seen a;

    edge_add(e, "a", "good", "heartbeat_s: 100ms\n");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    a = edge_status(e, "a");
    kill(e->brinkd, SIGSTOP);
    edge_mark(e);
    for (int i = 0; i < 10; i++) /* twice as many as a hang takes */
        edge_mark_behind(e, edge_expect(e, " a: heartbeat"));
    kill(e->brinkd, SIGCONT);
    for (int i = 0; i < 10; i++)
        edge_mark_behind(e, edge_expect(e, " a: heartbeat"));
    e->mark = 0;
    edge_assert_unseen(e, "state=ending");
    assert_same_process(edge_status(e, "a"), a);
}

static void test_stop_is_ordered_and_ends_the_deaf(void **state)
{
    struct edge *e = *state;
    struct span front, a, deaf, last;

    edge_add(e, "a", "good", "");
    edge_add(e, "after", "good", "stop_stage: 3\n");
    edge_add(e, "deaf", "deaf", "drain_timeout_s: 200ms\n");
    edge_add(e, "front", "good", "sockets: [{name: in, listen: 'unix:streams/in.sock'}]\n");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    edge_expect_state(e, "after", "ready");
    edge_expect_state(e, "deaf", "ready");
    edge_expect_state(e, "front", "ready");
    edge_stop(e);
    deaf = edge_expect(e, "plugin ended", "plugin=deaf ", "killed by SIGKILL");
    front = edge_expect(e, "plugin ended", "plugin=front ", "exited with status 0");
    a = edge_expect(e, "plugin changed", "plugin=a ", "state=draining");
    last = edge_expect(e, "plugin changed", "plugin=after ", "state=draining");
    assert_true(front.at < a.at);
    assert_true(deaf.at < last.at);
    edge_expect(e, "plugin ended", "plugin=a ", "exited with status 0");
}

static void test_killed_brinkd_is_followed_by_one_that_adopts(void **state)
{
    struct edge *e = *state;
    char before[64], after[64];
    struct seen a, b, again;
    int fd;

    edge_add(e, "a", "good", "sockets: [{name: in, listen: 'unix:streams/in.sock'}]\n");
    edge_add(e, "b", "good", "");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    edge_expect_state(e, "b", "ready");
    a = edge_status(e, "a");
    b = edge_status(e, "b");
    listen_inode(a.pid, before, sizeof(before));

    edge_kill_brinkd(e);
    assert_int_equal(stream_answer(stream_connect(e, "run/streams/in.sock")),
                     a.pid); /* served without it */
    edge_start(e);
    edge_expect(e, "plugin adopted", "plugin=a ");
    edge_expect_state(e, "a", "ready");
    edge_expect_state(e, "b", "ready");
    assert_same_process(edge_status(e, "a"), a);
    assert_same_process(edge_status(e, "b"), b);
    assert_int_equal(stream_answer(stream_connect(e, "run/streams/in.sock")), a.pid);

    /* The new one holds the listen socket, too: a connection made while there is no plugin waits
     * and is answered. */
    edge_mark(e);
    kill(a.pid, SIGSTOP);
    fd = stream_connect(e, "run/streams/in.sock");
    kill(a.pid, SIGKILL);
    edge_expect(e, "plugin died", "plugin=a ", "how is not known");
    edge_expect_state(e, "a", "ready");
    again = edge_status(e, "a");
    assert_int_equal(again.generation, a.generation + 1);
    assert_int_equal(stream_answer(fd), again.pid);
    listen_inode(again.pid, after, sizeof(after));
    assert_string_equal(before, after);
    assert_same_process(edge_status(e, "b"), b);
    edge_stop(e);
}

static void test_adopted_that_hangs_is_replaced(void **state)
{
    struct edge *e = *state;
    struct seen a, b;

    edge_add(e, "a", "good", "ready_timeout_s: 500ms\n");
    edge_add(e, "b", "good", "");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    edge_expect_state(e, "b", "ready");
    a = edge_status(e, "a");
    b = edge_status(e, "b");
    edge_kill_brinkd(e);
    kill(a.pid, SIGSTOP);
    edge_start(e);
    edge_expect(e, "plugin changed", "plugin=a ", "state=ending", "not ready in time");
    edge_expect_state(e, "a", "ready");
    assert_int_equal(edge_status(e, "a").generation, a.generation + 1);
    assert_same_process(edge_status(e, "b"), b);
}

static void test_died_while_brinkd_was_away_is_started(void **state)
{
    struct edge *e = *state;
    struct seen a;

    edge_start_two(e);
    a = edge_status(e, "a");
    edge_kill_brinkd(e);
    kill(a.pid, SIGKILL);
    wait_status(a.pid);
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    edge_assert_unseen(e, "plugin adopted", "plugin=a ");
    assert_int_equal(edge_status(e, "a").generation, a.generation + 1);
}

static void test_not_configured_any_more_is_killed(void **state)
{
    struct edge *e = *state;
    _cleanup_(freep) char *path = xasprintf("%s/plugins.d/a.yaml", e->dir);
    struct seen a;
    int status;

    edge_start_two(e);
    a = edge_status(e, "a");
    edge_kill_brinkd(e);
    unlink(path);
    edge_start(e);
    edge_expect_state(e, "b", "ready");
    status = wait_status(a.pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void test_generations_grow_over_restarts_of_brinkd(void **state)
{
    struct edge *e = *state;

    edge_start_two(e);
    edge_stop(e);
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    assert_int_equal(edge_status(e, "a").generation, 2);
}

static void test_second_brinkd_is_refused(void **state)
{
    struct edge *e = *state;
    _cleanup_(freep) char *holder = NULL;
    int status;

    edge_start_two(e);
    holder = xasprintf("pid=%d", e->brinkd);
    edge_mark(e);
    status = wait_status(edge_run(e, NULL));
    assert_int_equal(WEXITSTATUS(status), EXIT_FAILURE);
    edge_expect(e, "another brinkd is at work in this run_dir", holder);
    assert_int_equal(edge_status(e, "a").state, STATE(READY));
}

static void test_stop_and_start_by_the_operator(void **state)
{
    struct edge *e = *state;
    struct seen a;

    edge_add(e, "a", "good", "sockets: [{name: in, listen: 'unix:streams/in.sock'}]\n");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    a = edge_status(e, "a");
    assert_string_equal(edge_command(e, STOP, "a"), "");
    assert_int_equal(edge_status(e, "a").state, STATE(STOPPED));
    assert_int_equal(edge_status(e, "a").pid, 0);
    assert_int_equal(stream_connect(e, "run/streams/in.sock"), -1); /* refused, not left waiting */
    assert_string_equal(edge_command(e, KILL, "a"), "it is not running");
    assert_string_equal(edge_command(e, STOP, "a"), "");
    assert_string_equal(edge_command(e, START, "a"), "");
    assert_string_equal(edge_command(e, START, "a"), "");
    assert_int_equal(edge_status(e, "a").state, STATE(READY));
    assert_int_equal(edge_status(e, "a").generation, a.generation + 1);
    assert_int_equal(edge_status(e, "a").restarts, 0);
    assert_string_equal(edge_command(e, START, "nobody"), "no plugin of that name is configured");
}

static void test_restart_and_kill_by_the_operator(void **state)
{
    struct edge *e = *state;

    edge_start_two(e);
    assert_string_equal(edge_command(e, RESTART, "a"), "");
    assert_int_equal(edge_status(e, "a").state, STATE(READY));
    assert_int_equal(edge_status(e, "a").generation, 2);
    assert_int_equal(edge_status(e, "a").restarts, 0);
    edge_mark(e);
    assert_string_equal(edge_command(e, KILL, "a"), "");
    edge_expect_state(e, "a", "ready");
    assert_int_equal(edge_status(e, "a").generation, 3);
    assert_int_equal(edge_status(e, "a").restarts, 1);
    assert_int_equal(edge_status(e, "b").generation, 1);
}

static void test_restart_reads_the_file_again(void **state)
{
    struct edge *e = *state;
    struct seen a;

    edge_start_two(e);
    a = edge_status(e, "a");
    edge_add(e, "a", "good", "heartbeat: 7\n");
    assert_contains(edge_command(e, RESTART, "a"), "a.yaml:3: heartbeat: unknown key");
    edge_add(e, "a", "good", "sockets: [{name: in, listen: 'unix:streams/in.sock'}]\n");
    assert_contains(edge_command(e, RESTART, "a"), "takes a restart of brinkd");
    assert_same_process(edge_status(e, "a"), a);

    edge_add(e, "a", "refuse", "");
    assert_contains(edge_command(e, RESTART, "a"), "it refuses its settings in ");
    assert_int_equal(edge_status(e, "a").state, STATE(FAILED));
    edge_add(e, "a", "crash", "");
    assert_contains(edge_command(e, START, "a"), "exited with status 3");
    edge_add(e, "a", "good", "");
    assert_string_equal(edge_command(e, START, "a"), "");
}

static void test_switched_off_waits_for_its_role(void **state)
{
    struct edge *e = *state;

    edge_add(e, "a", "good", "");
    edge_put(e, "plugins.d/other.yaml", "role: a\nexec: %s\nenabled: false\n", CHILD_PROGRAM);
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    assert_contains(edge_command(e, START, "other"), "role a is filled by a");
    assert_string_equal(edge_command(e, STOP, "a"), "");
    assert_string_equal(edge_command(e, START, "other"), "");
    assert_int_equal(edge_status(e, "other").state, STATE(READY));
}

static void test_program_that_is_not_there_fails(void **state)
{
    struct edge *e = *state;

    edge_put(e, "plugins.d/a.yaml", "role: a\nexec: /nowhere/brink-a\n");
    edge_add(e, "b", "good", "");
    edge_start(e);
    edge_expect(e, "plugin changed", "plugin=a ", "state=failed",
                "/nowhere/brink-a: cannot run the program: No such file or directory");
    edge_expect_state(e, "b", "ready");
    assert_int_equal(edge_status(e, "a").state, STATE(FAILED));
}

static void test_socket_that_cannot_be_opened_backs_off(void **state)
{
    struct edge *e = *state;

    edge_add(e, "a", "good", "sockets: [{name: in, listen: 'unix:nowhere/in.sock'}]\n");
    edge_start(e);
    edge_expect(e, "plugin changed", "plugin=a ", "state=backoff",
                "cannot listen on unix:nowhere/in.sock: No such file or directory");
}

static void test_check_prints_every_fault(void **state)
{
    struct edge *e = *state;

    edge_add(e, "a", "good", "");
    assert_int_equal(WEXITSTATUS(wait_status(edge_run(e, "--check"))), 0);
    edge_expect(e, "the configuration is valid");

    edge_add(e, "a", "bad", "");
    edge_mark(e);
    assert_int_equal(WEXITSTATUS(wait_status(edge_run(e, "--check"))), 1);
    edge_expect(e, "settings.mode: expected good, silent, crash, refuse, deaf, flood or "
                   "lengthy, found 'bad'");

    edge_add(e, "b", "good", "drain_timeout_s: soon\n");
    edge_put(e, "plugins.d/c.yaml", "role: c\n");
    edge_mark(e);
    assert_int_equal(WEXITSTATUS(wait_status(edge_run(e, "--check"))), 1);
    edge_expect(e, "b.yaml:3: drain_timeout_s: expected a duration");
    edge_expect(e, "c.yaml: exec: expected");
}

static void test_start_with_a_bad_configuration_is_refused(void **state)
{
    struct edge *e = *state;

    edge_add(e, "a", "good", "sokets: []\n");
    assert_int_equal(WEXITSTATUS(wait_status(edge_run(e, NULL))), 78); /* EX_CONFIG */
    edge_expect(e, "a.yaml:3: sokets: unknown key");
}

static void test_stranger_on_the_control_socket_is_refused(void **state)
{
    struct edge *e = *state;
    _cleanup_(freep) char *path = xasprintf("%s/run/control.sock", e->dir);
    Bus__Ready ready = BUS__READY__INIT;
    Bus__Control packet = CONTROL_INIT(READY, ready, &ready);
    struct pollfd pollfd = { -1, POLLIN, 0 };
    struct stat st;
    char byte;

    edge_start_two(e);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    pollfd.fd = control_connect(path);
    assert_true(pollfd.fd >= 0);
    assert_int_equal(control_send(pollfd.fd, &packet, NULL, 0), 0);
    assert_int_equal(poll(&pollfd, 1, PATIENCE_MSEC), 1);
    assert_int_equal(recv(pollfd.fd, &byte, 1, 0), 0); /* closed */
    edge_expect(e, "a control connection is refused", "a process that is no plugin speaks as one");
    close(pollfd.fd);
    /* Bytes that are no packet end the connection, and nothing else. */
    pollfd.fd = control_connect(path);
    assert_int_equal(send(pollfd.fd, "\xff\xff\xff", 3, 0), 3);
    assert_int_equal(poll(&pollfd, 1, PATIENCE_MSEC), 1);
    assert_int_equal(recv(pollfd.fd, &byte, 1, 0), 0);
    close(pollfd.fd);
    assert_int_equal(edge_status(e, "a").state, STATE(READY));
}

/* What one plugin says must not keep the supervisor from the others. */
static void test_flood_of_packets_starves_nobody(void **state)
{
    struct edge *e = *state;

    edge_add(e, "a", "good", "");
    edge_add(e, "b", "flood", "");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    edge_expect_state(e, "b", "ready");
    for (uint64_t generation = 1; generation <= 3; generation++) {
        struct seen a = edge_status(e, "a");

        assert_int_equal(a.generation, generation);
        edge_mark(e);
        kill(a.pid, SIGKILL);
        edge_expect_state(e, "a", "ready");
    }
    edge_stop(e);
}

/* A status must fit into a packet, whatever a plugin puts into its heartbeat. */
static void test_lengthy_heartbeat_spoils_no_status(void **state)
{
    struct edge *e = *state;

    edge_add(e, "a", "lengthy", "");
    edge_add(e, "b", "lengthy", "");
    edge_add(e, "c", "lengthy", "");
    edge_start(e);
    edge_expect(e, "a control connection is refused", "does not keep to the protocol");
    edge_expect_state(e, "c", "ready");
    assert_int_equal(edge_status(e, "c").state, STATE(READY));
}

/* Its file is read for the next start; the process that runs keeps to the old one. */
static void test_start_of_one_that_runs_changes_nothing(void **state)
{
    struct edge *e = *state;
    struct seen a;

    edge_add(e, "a", "good", "heartbeat_s: 1\n");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    a = edge_status(e, "a");
    edge_add(e, "a", "good", "heartbeat_s: 20ms\n");
    assert_string_equal(edge_command(e, START, "a"), "");
    edge_mark(e);
    for (unsigned i = 0; i < 2; i++)
        edge_mark_behind(e, edge_expect(e, " a: heartbeat"));
    assert_same_process(edge_status(e, "a"), a);
}

static void test_socket_from_systemd_is_used(void **state)
{
    struct edge *e = *state;
    struct sockaddr_un address = unix_address(e, "systemd.sock");

    e->systemd_socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(e->systemd_socket, (const struct sockaddr *)&address, sizeof(address)),
                     0);
    assert_int_equal(listen(e->systemd_socket, 8), 0);
    edge_add(e, "a", "good", "sockets: [{name: in, listen: 'unix:streams/in.sock'}]\n");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    assert_int_equal(stream_answer(stream_connect(e, "systemd.sock")), edge_status(e, "a").pid);
    assert_int_equal(stream_connect(e, "run/streams/in.sock"), -1);
    /* Stopped and started, it is there again: systemd gives it once only. */
    assert_string_equal(edge_command(e, STOP, "a"), "");
    assert_string_equal(edge_command(e, START, "a"), "");
    assert_int_equal(stream_answer(stream_connect(e, "systemd.sock")), edge_status(e, "a").pid);
}

/* brinkd dies while it restarts a plugin: at any step of that, the next one has one process of
 * each, and none is left over. */
static void test_killed_in_the_middle_of_restarts(void **state)
{
    enum { ROUNDS = 12 };
    struct edge *e = *state;
    struct seen b;

    edge_start_two(e);
    b = edge_status(e, "b");
    for (unsigned i = 0; i < ROUNDS; i++) {
        edge_mark(e);
        kill(edge_status(e, "a").pid, SIGKILL);
        if (i % 3 == 0)
            edge_expect(e, "plugin died", "plugin=a ");
        if (i % 3 == 1)
            edge_expect(e, "plugin changed", "plugin=a ", "state=starting");
        edge_kill_brinkd(e);
        edge_start(e);
        edge_expect_state(e, "a", "ready");
        edge_expect_state(e, "b", "ready");
    }
    assert_same_process(edge_status(e, "b"), b);
    assert_true(edge_status(e, "a").generation > 1);
    edge_stop(e);
    alarm(PATIENCE_MSEC / 1000);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    assert_int_equal(errno, ECHILD);
    alarm(0);
}

/* Of another user: its own state folder, the shared sockets, the uid. Only root can start one. */
static void test_plugin_of_another_user(void **state)
{
    struct edge *e = *state;
    const struct passwd *nobody = getpwnam("nobody");
    _cleanup_(freep) char *folder = xasprintf("%s/state/a", e->dir), *proc = NULL;
    struct stat st;

    if (geteuid() != 0 || !nobody)
        skip();
    edge_add(e, "a", "good",
             "user: nobody\nlimits: {open_files: 77}\nsockets: [{name: in, listen: "
             "'unix:streams/in.sock'}]\n");
    edge_add(e, "b", "good", "");
    edge_start(e);
    edge_expect_state(e, "a", "ready");
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_uid, nobody->pw_uid);
    assert_int_equal(st.st_mode & 0777, 0700);
    proc = xasprintf("/proc/%d", edge_status(e, "a").pid);
    assert_int_equal(stat(proc, &st), 0);
    assert_int_equal(st.st_uid, nobody->pw_uid);
    free(proc);
    proc =
        xasprintf("grep -q '^Max open files  *77  *77 ' /proc/%d/limits", edge_status(e, "a").pid);
    assert_int_equal(system(proc), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, edge_make, edge_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_start_all_become_ready),
        TEST(test_killed_is_restarted_and_others_are_not),
        TEST(test_dead_before_ready_waits_longer_each_time),
        TEST(test_not_ready_in_time_is_ended),
        TEST(test_stopped_process_is_a_hang),
        TEST(test_brinkd_that_was_stopped_kills_nobody),
        TEST(test_stop_is_ordered_and_ends_the_deaf),
        TEST(test_killed_brinkd_is_followed_by_one_that_adopts),
        TEST(test_adopted_that_hangs_is_replaced),
        TEST(test_died_while_brinkd_was_away_is_started),
        TEST(test_not_configured_any_more_is_killed),
        TEST(test_generations_grow_over_restarts_of_brinkd),
        TEST(test_second_brinkd_is_refused),
        TEST(test_stop_and_start_by_the_operator),
        TEST(test_restart_and_kill_by_the_operator),
        TEST(test_restart_reads_the_file_again),
        TEST(test_switched_off_waits_for_its_role),
        TEST(test_program_that_is_not_there_fails),
        TEST(test_socket_that_cannot_be_opened_backs_off),
        TEST(test_check_prints_every_fault),
        TEST(test_start_with_a_bad_configuration_is_refused),
        TEST(test_stranger_on_the_control_socket_is_refused),
        TEST(test_flood_of_packets_starves_nobody),
        TEST(test_lengthy_heartbeat_spoils_no_status),
        TEST(test_start_of_one_that_runs_changes_nothing),
        TEST(test_socket_from_systemd_is_used),
        TEST(test_killed_in_the_middle_of_restarts),
        TEST(test_plugin_of_another_user),
    };

    signal(SIGPIPE, SIG_IGN);
    /* Plugins that a killed brinkd leaves behind come here, so that none outlives the test. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
