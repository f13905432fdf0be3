/* RUN_DIR/brinkd.state, "NAME PID START_TICKS GENERATION" a line, and what /proc tells about a
 * process. */
#include "running.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "file.h"
#include "mem.h"
#include "timer.h"

enum { STATE_BYTES_MAX = 1 << 20, PROC_BYTES_MAX = 64 << 10 };

void running_append(struct buf *out, const char *name, pid_t pid, uint64_t start_ticks,
                    uint64_t generation)
{
    buf_printf(out, "%s %d %" PRIu64 " %" PRIu64 "\n", name, pid, start_ticks, generation);
}

bool running_line_parse(struct span line, struct running *ret)
{
    struct span rest = line, name, pid_text, ticks;
    struct running running = {};
    uint64_t pid;

    if (!span_split(&rest, SPAN(" "), &name) || name.len == 0 ||
        !span_split(&rest, SPAN(" "), &pid_text) || !span_split(&rest, SPAN(" "), &ticks))
        return false;
    if (!span_to_uint64(pid_text, &pid) || pid <= 1 || pid > INT32_MAX ||
        !span_to_uint64(ticks, &running.start_ticks) || !span_to_uint64(rest, &running.generation))
        return false;
    running.pid = (pid_t)pid;
    running.name = span_xdup(name);
    *ret = running;
    return true;
}

int running_each(const char *path, running_fn *fn, void *userdata)
{
    _cleanup_(buf_done) struct buf text = {};
    struct span rest, line;
    int r = file_read(path, STATE_BYTES_MAX, &text);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    rest = buf_span(&text);
    while (span_split(&rest, SPAN("\n"), &line)) {
        struct running running;

        if (!running_line_parse(line, &running))
            continue;
        fn(&running, userdata);
        free(running.name);
    }
    return 0;
}

/* "pid (comm) S ppid …": comm may hold anything, so one counts from the last parenthesis. State
 * is field 3, start is 22. */
bool start_ticks_parse(struct span stat, uint64_t *ret_ticks)
{
    const char *end = stat.len > 0 ? memrchr(stat.at, ')', stat.len) : NULL;
    struct span rest, field;

    if (!end)
        return false;
    rest = span_of(end + 1, (size_t)(stat.at + stat.len - end - 1));
    if (!span_eat(&rest, SPAN(" ")) || rest.len == 0 || rest.at[0] == 'Z' || rest.at[0] == 'X')
        return false;
    for (unsigned i = 3; i < 22; i++)
        if (!span_split(&rest, SPAN(" "), &field))
            return false;
    return span_split(&rest, SPAN(" "), &field) && span_to_uint64(field, ret_ticks);
}

static int proc_read(pid_t pid, const char *file, struct buf *out)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
    return file_read(path, PROC_BYTES_MAX, out);
}

int process_start_ticks(pid_t pid, uint64_t *ret_ticks)
{
    _cleanup_(buf_done) struct buf stat = {};
    int r = proc_read(pid, "stat", &stat);

    if (r < 0)
        return r;
    return start_ticks_parse(buf_span(&stat), ret_ticks) ? 0 : -ESRCH;
}

int process_open(pid_t pid, uint64_t start_ticks)
{
    _cleanup_(closep) int fd = pidfd_open(pid, 0);
    uint64_t ticks;
    int r;

    if (fd < 0)
        return -errno;
    /* Asked after the descriptor is held: from here on the pid cannot change hands unseen. */
    if (process_start_ticks(pid, &ticks) < 0 || ticks != start_ticks)
        return -ESRCH;
    r = fd;
    fd = -1;
    return r;
}

uint64_t process_uptime_sec(uint64_t start_ticks)
{
    uint64_t started = start_ticks / (uint64_t)sysconf(_SC_CLK_TCK);
    uint64_t now = boot_usec() / 1000000;

    return now > started ? now - started : 0;
}
