/*
 * RUN_DIR/brinkd.state: which processes run, for a supervisor that comes after one that died. A pid
 * alone could be somebody else's by then; with the time at which the kernel started it, it cannot.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"

struct running {
    char *name;
    pid_t pid;
    uint64_t start_ticks; /* field 22 of /proc/PID/stat: clock ticks since boot */
    uint64_t generation;
};

void running_append(struct buf *out, const char *name, pid_t pid, uint64_t start_ticks,
                    uint64_t generation);

/* @fn for each line that makes sense; the strings are borrowed. No file: none. */
typedef void running_fn(const struct running *running, void *userdata);
int running_each(const char *path, running_fn *fn, void *userdata);

/* Pure. False: no such line. The name is the caller's to free. */
bool running_line_parse(struct span line, struct running *ret);
bool start_ticks_parse(struct span stat, uint64_t *ret_ticks);

int process_start_ticks(pid_t pid, uint64_t *ret_ticks);
/* A pidfd of exactly that process; -ESRCH when it is gone (a zombie is gone, too). */
int process_open(pid_t pid, uint64_t start_ticks);
uint64_t process_uptime_sec(uint64_t start_ticks);
