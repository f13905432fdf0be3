/*
 * Many descriptors behind one source of the event loop. sd-event asks the kernel anew for each
 * handler it runs, and that looks at every descriptor that is ready: with thousands of them ready
 * at once, as after an outage, the loop is busy with nothing else. Here they are in an epoll set of
 * their own, and one turn of the loop serves a batch of them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <systemd/sd-event.h>

struct io_set;
struct io_watch;

/* Called by the loop. May end any watch, its own included, and free what it is a member of. */
typedef void io_watch_fn(struct io_watch *watch, uint32_t revents, void *userdata);

/* A watched descriptor: a member of its owner. {}: watches nothing. */
struct io_watch {
    struct io_set *set; /* NULL: watches nothing */
    io_watch_fn *fn;
    void *userdata;
    int fd;
    uint32_t events; /* EPOLLIN, EPOLLOUT, or 0; errors and hang-ups are always told */
    bool awake;
};

/* All watches of one @event share a set. @fd is the owner's, and must stay open until the watch has
 * ended. */
int io_watch_begin(struct io_watch *watch, sd_event *event, int fd, uint32_t events,
                   io_watch_fn *fn, void *userdata);
/* No system call when nothing changes. Wakes a watch that slept. */
void io_watch_change(struct io_watch *watch, uint32_t events);
/* Tells nothing any more, not even a hang-up, until io_watch_change(). */
void io_watch_sleep(struct io_watch *watch);
/* Fine when it watches nothing. */
void io_watch_end(struct io_watch *watch);
