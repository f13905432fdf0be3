/* `config check`: brinkd knows how, so it is brinkd that is asked. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "ctl-print.h"
#include "ctl.h"
#include "span.h"

extern char **environ;

/* Beside this program (build tree), or in sbin beside its bin (installed). */
static char *brinkd_path(void)
{
    static const char *const places[] = { "brinkd", "../sbin/brinkd" };
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    self[n > 0 ? n : 0] = '\0';
    slash = strrchr(self, '/');
    for (size_t i = 0; slash && i < ELEMENTSOF(places); i++) {
        char *path = xasprintf("%.*s/%s", (int)(slash - self), self, places[i]);

        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return xstrdup("brinkd"); /* along $PATH */
}

static int read_all(int fd, struct buf *text)
{
    for (;;) {
        ssize_t n = read(fd, buf_reserve(text, 4096), 4096);

        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            buf_commit(text, (size_t)n);
    }
}

/* Runs it with what it says caught in @text. Its exit status, or -errno. */
static int run_caught(char **argv, struct buf *text)
{
    posix_spawn_file_actions_t actions;
    int fds[2], status, r;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fds[1], STDERR_FILENO);
    r = -posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
    if (r == 0)
        r = read_all(fds[0], text);
    close(fds[0]);
    if (r < 0)
        return r;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int check_as_json(char **argv)
{
    struct buf text = {};
    int status = run_caught(argv, &text);
    struct span rest = buf_span(&text), line;
    json_t *document, *lines = json_array();
    bool done = false;

    while (span_next(&rest, '\n', &line, &done)) {
        _cleanup_(freep) char *s = span_xdup(line);

        if (line.len > 0)
            json_array_append_new(lines, ctl_text(s));
    }
    buf_done(&text);
    if (status < 0) {
        json_decref(lines);
        return ctl_fail("%s: %s", argv[0], strerror(-status));
    }
    document = json_pack("{s:b, s:o}", "valid", status == 0, "output", lines);
    ctl_print_json(document);
    json_decref(document);
    return status == 0 ? CTL_DONE : CTL_FAILED;
}

int ctl_config_check(struct ctl *ctl, int argc, char **argv)
{
    _cleanup_(freep) char *brinkd = brinkd_path(), *config_dir = xstrdup(ctl->config_dir);
    char check[] = "--check", config[] = "--config";
    char *command[] = { brinkd, check, config, config_dir, NULL };

    if (ctl->json)
        return check_as_json(command);
    execvp(brinkd, command);
    return ctl_fail("%s: %s", brinkd, strerror(errno));
}
