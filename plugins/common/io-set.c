#include "io-set.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

#include "mem.h"

/* Served in one turn of the loop: timers and the bus must not starve. */
enum { BATCH_MAX = 64 };

struct io_set {
    struct io_set *next; /* of another event loop: there is more than one only in tests */
    sd_event *event;
    sd_event_source *source;
    int fd;
    unsigned watches;
    int at, count; /* of the batch that is being served */
    bool serving;
    struct epoll_event batch[BATCH_MAX];
};

static struct io_set *sets;

static void set_free(struct io_set *set)
{
    struct io_set **link = &sets;

    while (*link && *link != set)
        link = &(*link)->next;
    if (*link)
        *link = set->next;
    sd_event_source_disable_unref(set->source);
    sd_event_unref(set->event);
    close_fd(set->fd);
    free(set);
}

static int set_on_ready(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct io_set *set = userdata;

    set->count = epoll_wait(fd, set->batch, BATCH_MAX, 0);
    if (set->count < 0)
        return errno == EINTR ? 0 : -errno;
    set->serving = true;
    for (set->at = 0; set->at < set->count; set->at++) {
        struct io_watch *watch = set->batch[set->at].data.ptr;

        if (watch) /* else it ended, or went to sleep, meanwhile */
            watch->fn(watch, set->batch[set->at].events, watch->userdata);
    }
    set->serving = false;
    set->count = 0;
    if (set->watches == 0)
        set_free(set);
    return 0;
}

static int set_new(sd_event *event, struct io_set **ret)
{
    struct io_set *set = xnew(struct io_set);
    int r;

    set->event = sd_event_ref(event);
    set->fd = epoll_create1(EPOLL_CLOEXEC);
    r = set->fd < 0 ? -errno
                    : sd_event_add_io(event, &set->source, set->fd, EPOLLIN, set_on_ready, set);
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(set->source, true);
    if (r < 0) {
        set_free(set);
        return r;
    }
    set->next = sets;
    sets = set;
    *ret = set;
    return 0;
}

static int set_get(sd_event *event, struct io_set **ret)
{
    for (struct io_set *set = sets; set; set = set->next)
        if (set->event == event) {
            *ret = set;
            return 0;
        }
    return set_new(event, ret);
}

/* What the kernel found for it in this turn, and was not told yet, is not told. */
static void watch_forget(struct io_watch *watch)
{
    const struct io_set *set = watch->set;

    for (int i = set->at + 1; i < set->count; i++)
        if (set->batch[i].data.ptr == watch)
            watch->set->batch[i].data.ptr = NULL;
}

static int watch_control(struct io_watch *watch, int operation, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = watch };

    return epoll_ctl(watch->set->fd, operation, watch->fd, &event) < 0 ? -errno : 0;
}

int io_watch_begin(struct io_watch *watch, sd_event *event, int fd, uint32_t events,
                   io_watch_fn *fn, void *userdata)
{
    struct io_set *set = NULL;
    int r;

    assert(!watch->set);
    r = set_get(event, &set);
    if (r < 0)
        return r;
    *watch = (struct io_watch){ .set = set, .fn = fn, .userdata = userdata, .fd = fd };
    r = watch_control(watch, EPOLL_CTL_ADD, events);
    if (r < 0) {
        watch->set = NULL;
        if (set->watches == 0 && !set->serving)
            set_free(set);
        return r;
    }
    watch->events = events;
    watch->awake = true;
    set->watches++;
    return 0;
}

void io_watch_change(struct io_watch *watch, uint32_t events)
{
    int r;

    if (watch->awake && watch->events == events)
        return;
    r = watch_control(watch, watch->awake ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, events);
    assert(r >= 0);
    watch->events = events;
    watch->awake = true;
}

void io_watch_sleep(struct io_watch *watch)
{
    int r;

    if (!watch->awake)
        return;
    r = watch_control(watch, EPOLL_CTL_DEL, 0);
    assert(r >= 0);
    watch->awake = false;
    watch_forget(watch);
}

void io_watch_end(struct io_watch *watch)
{
    struct io_set *set = watch->set;

    if (!set)
        return;
    io_watch_sleep(watch);
    watch->set = NULL;
    if (--set->watches == 0 && !set->serving)
        set_free(set);
}
