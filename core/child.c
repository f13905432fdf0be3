/*
 * State × event. Two rules shape the table. A child that was ready before it died is started at
 * once, because a pause is all that its clients should see; only one that dies young waits longer
 * each time. And nothing but an exit ends a process's states: whatever was sent to it, it is there
 * until the kernel says that it is not.
 */
#include "child.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "log.h"

typedef void child_fn(struct child *child, const char *why);

static const char *const state_names[_CHILD_STATE_COUNT] = {
    [CHILD_STOPPED] = "stopped",   [CHILD_STARTING] = "starting", [CHILD_READY] = "ready",
    [CHILD_DRAINING] = "draining", [CHILD_ENDING] = "ending",     [CHILD_BACKOFF] = "backoff",
    [CHILD_FAILED] = "failed",
};

const char *child_state_name(enum child_state state)
{
    return state_names[state];
}

void child_init(struct child *child, const char *name, const struct child_timing *timing,
                const struct child_ops *ops)
{
    *child = (struct child){ .name = name, .timing = *timing, .ops = ops };
}

uint64_t child_backoff_usec(unsigned deaths, uint64_t random)
{
    uint64_t usec = CHILD_BACKOFF_MAX_USEC;

    if (deaths <= 8) /* 100 ms doubled eight times is 25.6 s */
        usec = (uint64_t)CHILD_BACKOFF_MIN_USEC << (deaths > 0 ? deaths - 1 : 0);
    usec = usec * 3 / 4 + usec / 2 * (random % 1024) / 1023;
    return usec < CHILD_BACKOFF_MAX_USEC ? usec : CHILD_BACKOFF_MAX_USEC;
}

static void child_enter(struct child *child, enum child_state state, const char *why)
{
    static const int levels[_CHILD_STATE_COUNT] = {
        [CHILD_ENDING] = LOG_WARNING, [CHILD_BACKOFF] = LOG_WARNING, [CHILD_FAILED] = LOG_ERR
    };
    int level = levels[state] ?: LOG_INFO;

    child->state = state;
    if (why && why != child->reason)
        snprintf(child->reason, sizeof(child->reason), "%s", why);
    if (why)
        log_event(level, 0, "plugin changed", F_PLUGIN(child->name), F_STATE(state_names[state]),
                  F_REASON(why));
    else
        log_event(level, 0, "plugin changed", F_PLUGIN(child->name), F_STATE(state_names[state]));
    child->ops->changed(child);
}

static void child_ignore(struct child *child, const char *why) {}

/* The supervisor contradicts itself: no peer can cause this. */
static void child_never(struct child *child, const char *why)
{
    log_event(LOG_ERR, 0, "an event that cannot be", F_PLUGIN(child->name),
              F_STATE(state_names[child->state]));
    abort();
}

/* Starting */

static void child_wait(struct child *child, const char *why)
{
    child->early_deaths++;
    /* The clock's microseconds are random enough for deaths that many times share. */
    child->ops->set_timer(child, child_backoff_usec(child->early_deaths, child->ops->now(child)));
    child_enter(child, CHILD_BACKOFF, why);
}

static void child_start(struct child *child, const char *why)
{
    int r;

    child->wanted = true;
    child->was_ready = child->asked = false;
    child->started_usec = child->ops->now(child);
    r = child->ops->spawn(child);
    if (r < 0) {
        child_wait(child, child->reason);
        return;
    }
    child->ops->set_timer(child, child->timing.ready_usec);
    child_enter(child, CHILD_STARTING, why);
}

static void child_announce(struct child *child, const char *why)
{
    child->was_ready = true;
    child->early_deaths = 0;
    child->ops->set_timer(child, child->timing.hang_usec);
    child_enter(child, CHILD_READY, why);
}

static void child_keep_alive(struct child *child, const char *why)
{
    child->ops->set_timer(child, child->timing.hang_usec);
}

/* Ending */

static void child_want(struct child *child, const char *why)
{
    child->wanted = true; /* when what is ending has ended */
}

static void child_unwant(struct child *child, const char *why)
{
    child->wanted = false;
}

static void child_drain(struct child *child, const char *why)
{
    child->wanted = false;
    child->asked = true;
    child->ops->drain(child, child->timing.drain_usec);
    child->ops->set_timer(child, child->timing.drain_usec);
    child_enter(child, CHILD_DRAINING, why);
}

static void child_rest(struct child *child, const char *why)
{
    child->wanted = false;
    child->ops->set_timer(child, 0);
    child_enter(child, CHILD_STOPPED, why);
}

static void child_abort(struct child *child, const char *why)
{
    child->ops->signal(child, SIGABRT);
    child->ops->set_timer(child, CHILD_ABORT_USEC);
    child_enter(child, CHILD_ENDING, child->was_ready ? "no heartbeat: hung" : "not ready in time");
}

static void child_kill(struct child *child, const char *why)
{
    child->ops->signal(child, SIGKILL);
    child->ops->set_timer(child, CHILD_KILL_USEC);
    child_enter(child, CHILD_ENDING, "did not end in time");
}

/* The process is gone. */
static void child_bury(struct child *child, const char *why)
{
    uint64_t age = child->ops->now(child) - child->started_usec;

    child->ops->set_timer(child, 0);
    if (!child->wanted) {
        child_enter(child, CHILD_STOPPED, why);
    } else if (!child->was_ready && !child->asked) {
        child_wait(child, why);
    } else if (child->asked || age >= CHILD_BACKOFF_MIN_USEC) {
        child_start(child, why);
    } else { /* ready, then dead in no time: not in a loop that eats the machine */
        child->ops->set_timer(child, CHILD_BACKOFF_MIN_USEC - age);
        child_enter(child, CHILD_BACKOFF, why);
    }
}

static void child_fail(struct child *child, const char *why)
{
    child->ops->set_timer(child, CHILD_FAILED_RETRY_USEC);
    child_enter(child, CHILD_FAILED, why);
}

static child_fn *const child_actions[_CHILD_STATE_COUNT][_CHILD_EVENT_COUNT] = {
    [CHILD_STOPPED] = {
        [CHILD_WANTED]     = child_start,
        [CHILD_UNWANTED]   = child_unwant,
        [CHILD_SAID_READY] = child_ignore,
        [CHILD_HEARTBEAT]  = child_ignore,
        [CHILD_TIMEOUT]    = child_never,
        [CHILD_EXITED]     = child_never,
        [CHILD_REFUSED]    = child_never,
    },
    [CHILD_STARTING] = {
        [CHILD_WANTED]     = child_want,
        [CHILD_UNWANTED]   = child_drain,
        [CHILD_SAID_READY] = child_announce,
        [CHILD_HEARTBEAT]  = child_ignore,     /* alive, but of no use yet: its time runs on */
        [CHILD_TIMEOUT]    = child_abort,
        [CHILD_EXITED]     = child_bury,       /* before it was useful: waits longer each time */
        [CHILD_REFUSED]    = child_fail,
    },
    [CHILD_READY] = {
        [CHILD_WANTED]     = child_want,
        [CHILD_UNWANTED]   = child_drain,
        [CHILD_SAID_READY] = child_keep_alive, /* its connection broke and is back */
        [CHILD_HEARTBEAT]  = child_keep_alive,
        [CHILD_TIMEOUT]    = child_abort,
        [CHILD_EXITED]     = child_bury,
        [CHILD_REFUSED]    = child_bury,       /* it did accept its settings once */
    },
    [CHILD_DRAINING] = {
        [CHILD_WANTED]     = child_want,
        [CHILD_UNWANTED]   = child_unwant,
        [CHILD_SAID_READY] = child_ignore,
        [CHILD_HEARTBEAT]  = child_ignore,     /* its deadline stands */
        [CHILD_TIMEOUT]    = child_kill,
        [CHILD_EXITED]     = child_bury,
        [CHILD_REFUSED]    = child_bury,
    },
    [CHILD_ENDING] = {
        [CHILD_WANTED]     = child_want,
        [CHILD_UNWANTED]   = child_unwant,
        [CHILD_SAID_READY] = child_ignore,     /* too late: the signal is on its way */
        [CHILD_HEARTBEAT]  = child_ignore,
        [CHILD_TIMEOUT]    = child_kill,       /* a stopped process does not even abort */
        [CHILD_EXITED]     = child_bury,
        [CHILD_REFUSED]    = child_bury,
    },
    [CHILD_BACKOFF] = {
        [CHILD_WANTED]     = child_start,      /* the operator does not wait */
        [CHILD_UNWANTED]   = child_rest,
        [CHILD_SAID_READY] = child_ignore,
        [CHILD_HEARTBEAT]  = child_ignore,
        [CHILD_TIMEOUT]    = child_start,
        [CHILD_EXITED]     = child_never,
        [CHILD_REFUSED]    = child_never,
    },
    [CHILD_FAILED] = {
        [CHILD_WANTED]     = child_start,
        [CHILD_UNWANTED]   = child_rest,
        [CHILD_SAID_READY] = child_ignore,
        [CHILD_HEARTBEAT]  = child_ignore,
        [CHILD_TIMEOUT]    = child_start,
        [CHILD_EXITED]     = child_never,
        [CHILD_REFUSED]    = child_never,
    },
};

void child_feed(struct child *child, enum child_event event, const char *why)
{
    child_fn *action = child_actions[child->state][event];

    assert(action);
    action(child, why);
}
