/*
 * The life of one plugin as the supervisor sees it: which state it is in, whether it is wanted, and
 * what each event means there. Pure: what is to be done to the process goes through struct
 * child_ops, so a test needs no process and no clock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum child_state {
    CHILD_STOPPED,
    CHILD_STARTING, /* spawned or adopted; has not said ready */
    CHILD_READY,
    CHILD_DRAINING, /* asked to end, by the operator or because the supervisor stops */
    CHILD_ENDING,   /* sent SIGABRT or SIGKILL */
    CHILD_BACKOFF,  /* waits for its next start */
    CHILD_FAILED,   /* the program cannot run or refuses its settings: tried again, seldom */
    _CHILD_STATE_COUNT,
};

enum child_event {
    CHILD_WANTED, /* the operator, or the supervisor's start */
    CHILD_UNWANTED,
    CHILD_SAID_READY,
    CHILD_HEARTBEAT,
    CHILD_TIMEOUT, /* the one timer, armed by the state */
    CHILD_EXITED,
    CHILD_REFUSED, /* exited, and starting again as it is will not help */
    _CHILD_EVENT_COUNT,
};

struct child;

struct child_ops {
    /* Unless it runs already, started by a supervisor before this one. -errno, @reason filled: no
     * process came to be. */
    int (*spawn)(struct child *child);
    void (*drain)(struct child *child, uint64_t deadline_usec);
    void (*signal)(struct child *child, int signal_number);
    void (*set_timer)(struct child *child, uint64_t usec_from_now); /* 0: none */
    void (*changed)(struct child *child); /* the state is another; last thing of a feed */
    uint64_t (*now)(struct child *child); /* CLOCK_MONOTONIC, µs */
};

struct child_timing {
    uint64_t ready_usec; /* from start to ready */
    uint64_t hang_usec;  /* without a heartbeat */
    uint64_t drain_usec;
};

struct child {
    const char *name; /* the owner's, as are ops */
    const struct child_ops *ops;
    struct child_timing timing;
    enum child_state state;
    bool wanted;           /* what should be; the state is what is */
    bool was_ready;        /* the current process */
    bool asked;            /* its end was asked for: no death */
    unsigned early_deaths; /* in a row, before ready: how far the backoff has grown */
    uint64_t started_usec;
    char reason[160]; /* of the last change that was not for the better; for the operator */
};

enum {
    CHILD_BACKOFF_MIN_USEC = 100 * 1000,
    CHILD_BACKOFF_MAX_USEC = 30 * 1000 * 1000,
    CHILD_FAILED_RETRY_USEC = 30 * 1000 * 1000,
    CHILD_ABORT_USEC = 2 * 1000 * 1000,
    CHILD_KILL_USEC = 5 * 1000 * 1000, /* then it hangs in the kernel: said, and tried again */
};

void child_init(struct child *child, const char *name, const struct child_timing *timing,
                const struct child_ops *ops);

/* The only door. @why stands in the log and in the reason; NULL where the event says it all. */
void child_feed(struct child *child, enum child_event event, const char *why);

/* How long to wait after the @deaths'th death in a row (from 1); @random (its low bits) spreads it
 * by a quarter each way, within the cap. */
uint64_t child_backoff_usec(unsigned deaths, uint64_t random);

const char *child_state_name(enum child_state state);
