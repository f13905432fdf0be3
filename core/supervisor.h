/*
 * The supervisor: the plugins' processes, the sockets they listen on, and the control socket by
 * which they and the operator speak to it. supervisor.c owns processes and time,
 * supervisor-control.c the control socket.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "appliance.h"
#include "child-config.h"
#include "child.h"
#include "control.h"
#include "log.h"
#include "mem.h"
#include "tally.h"

struct supervisor;
struct connection;

/* One configured plugin: its life (child), and the process that lives it now. */
struct unit {
    struct supervisor *supervisor;
    struct child child;
    struct child_config config;
    sd_event_source *timer; /* the child's one */

    pid_t pid; /* 0: there is no process, and the rest is empty */
    int pidfd;
    uint64_t start_ticks;
    int gate;                      /* -1: adopted */
    bool released;                 /* the gate was opened */
    sd_event_source *exit_source;  /* adopted: others are reaped */
    struct connection *connection; /* the newest */
    char *version;
    Bus__Control *heartbeat; /* the last: its numbers are the operator's */

    uint64_t generation; /* of the process now, or the last one */
    bool tried;          /* the first start led somewhere: systemd need not wait for it */
};

enum { SIGNAL_SOURCES = 3 };

struct supervisor {
    const struct appliance *appliance;
    sd_event *event;
    sd_event_source *signal_sources[SIGNAL_SOURCES], *turn_source, *stop_timer;
    struct unit **units; /* in the order of their names */
    size_t unit_count;
    struct tally tally;
    char *state_path; /* RUN_DIR/brinkd.state */
    gid_t group;      /* -1, or the one that lets plugins of several users meet */
    int lock_fd;
    bool processes_changed, ready_told, stopping;

    int control_fd;
    sd_event_source *control_source;
    struct connection *connections;
    struct log_limit stranger_limit;
};

/* Takes @configs whatever the result. What a former supervisor left running is adopted. -EBUSY:
 * another one is at work in run_dir, which was logged. */
int supervisor_new_take(const struct appliance *appliance, struct child_configs *configs,
                        struct supervisor **ret);
struct supervisor *supervisor_free(struct supervisor *s);
DEFINE_FREEP(struct supervisor, supervisor_free)

/* Starts what is enabled; returns when all was stopped in order. */
int supervisor_run(struct supervisor *s);

/* What a unit shows its control connection. */
bool unit_is_running(const struct unit *unit);
struct unit *supervisor_find_pid(struct supervisor *s, pid_t pid);
struct unit *supervisor_find_name(struct supervisor *s, const char *name);
/* Reads the unit's file again. 0, or CONFIG_E_INVALID and nothing changed. */
int unit_reload(struct unit *unit, struct config_error *ret_error);
/* Handlers' work of this turn is to be settled: gates opened, rosters sent, commands answered. */
void supervisor_turn(struct supervisor *s);
/* For what sd_event_add_…() returned. Better dead than deaf: whoever restarts the supervisor finds
 * the plugins running. */
int keep_or_exit(int r, sd_event_source *source, int64_t priority);
/* Only its exit changes its state. */
void unit_signal(struct child *child, int number);

/* supervisor-control.c */
int supervisor_control_open(struct supervisor *s);
void supervisor_control_close(struct supervisor *s);
void supervisor_send_rosters(struct supervisor *s);
/* Answers those commands whose end is reached. */
void supervisor_answer_commands(struct supervisor *s);
/* False: it cannot be told, for want of a connection. */
bool unit_send_drain(struct unit *unit, uint64_t deadline_usec);
void unit_disconnect(struct unit *unit);
