/*
 * Where the clients of one listen socket go: the stream socket of a listener. While that is away or
 * its backlog is full the clients queue here, and one timer tries for all of them, in their order.
 */
#pragma once

#include <stdint.h>
#include <sys/un.h>
#include <systemd/sd-event.h>

struct target_wait;

/* @fd: connected, the receiver's; or -errno: the listener did not come back in time. May free the
 * waiting object. */
typedef void target_connected_fn(struct target_wait *wait, int fd);

/* One client that wants to be connected: a member of it. {} when it does not wait. */
struct target_wait {
    struct target_wait *prev, *next;
    struct target *target; /* NULL: does not wait */
    uint64_t since_usec;
    target_connected_fn *fn;
};

struct target {
    sd_event *event;
    sd_event_source *retry; /* while someone waits */
    struct target_wait *first, *last;
    uint64_t patience_usec;
    struct sockaddr_un address;
};

/* @path: as config says, relative to @run_dir unless it begins with a slash. -ENAMETOOLONG: no
 * socket can have that name. */
int target_init(struct target *target, sd_event *event, const char *run_dir, const char *path,
                uint64_t patience_usec);
/* Nobody may be waiting. */
void target_done(struct target *target);

/* Runs @fn once: before this returns when the listener takes it at once, else later. */
void target_connect(struct target *target, struct target_wait *wait, target_connected_fn *fn);
/* Gives up; @fn never runs. Fine when it does not wait. */
void target_forget(struct target_wait *wait);
