#include "target.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "mem.h"
#include "timer.h"

enum { RETRY_USEC = 50 * 1000 };

int target_init(struct target *target, sd_event *event, const char *run_dir, const char *path,
                uint64_t patience_usec)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    bool absolute = path[0] == '/';
    int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s%s%s", absolute ? "" : run_dir,
                     absolute ? "" : "/", path);

    if (n < 0 || (size_t)n >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    *target = (struct target){ .event = sd_event_ref(event),
                               .patience_usec = patience_usec,
                               .address = address };
    return 0;
}

void target_done(struct target *target)
{
    assert(!target->first);
    target->retry = sd_event_source_disable_unref(target->retry);
    target->event = sd_event_unref(target->event);
}

/* A connected socket, or -errno. */
static int target_try(const struct target *target)
{
    _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int connected;

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&target->address, sizeof(target->address)) < 0)
        return -errno;
    connected = fd;
    fd = -1;
    return connected;
}

static void wait_unlink(struct target_wait *wait)
{
    struct target *target = wait->target;

    *(wait->prev ? &wait->prev->next : &target->first) = wait->next;
    *(wait->next ? &wait->next->prev : &target->last) = wait->prev;
    wait->target = NULL;
    wait->prev = wait->next = NULL;
    if (!target->first)
        target->retry = sd_event_source_disable_unref(target->retry);
}

static void wait_finish(struct target_wait *wait, int fd)
{
    wait_unlink(wait);
    wait->fn(wait, fd);
}

/* The first in the queue stands for all: what it cannot have, nobody behind it can. */
static int target_on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct target *target = userdata;
    uint64_t now = now_usec();
    int fd = -EAGAIN;

    while (target->first) {
        fd = target_try(target);
        if (fd < 0)
            break;
        wait_finish(target->first, fd);
    }
    while (target->first && now - target->first->since_usec >= target->patience_usec)
        wait_finish(target->first, fd);
    return target->first ? timer_rearm(target->retry, RETRY_USEC) : 0;
}

static void wait_link(struct target *target, struct target_wait *wait)
{
    int r;

    wait->target = target;
    wait->since_usec = now_usec();
    wait->prev = target->last;
    wait->next = NULL;
    *(target->last ? &target->last->next : &target->first) = wait;
    target->last = wait;
    if (target->retry)
        return;
    r = sd_event_add_time_relative(target->event, &target->retry, CLOCK_MONOTONIC, RETRY_USEC, 1000,
                                   target_on_retry, target);
    assert(r >= 0);
    sd_event_source_set_exit_on_failure(target->retry, true);
}

void target_connect(struct target *target, struct target_wait *wait, target_connected_fn *fn)
{
    int fd = target->first ? -EAGAIN : target_try(target); /* no pushing in */

    assert(!wait->target);
    wait->fn = fn;
    if (fd >= 0)
        fn(wait, fd);
    else
        wait_link(target, wait);
}

void target_forget(struct target_wait *wait)
{
    if (wait->target)
        wait_unlink(wait);
}
