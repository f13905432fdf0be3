/*
 * Makes the process of a plugin: its user, limits, environment, descriptors. The process waits at a
 * gate before it runs the program, until its pid was told to the other plugins; so the first word
 * it says on the bus comes from somebody known.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "appliance.h"
#include "child-config.h"

struct spawn {
    const struct appliance *appliance;
    const struct child_config *config;
    uint64_t generation;
    gid_t group; /* of the bus, joined by every plugin; -1: none */
};

/* @ret_gate: spawn_release() lets it run; until it is closed, spawn_failed() tells why the
 * program did not run. A gate that closes unreleased ends the process. */
int spawn_start(const struct spawn *spawn, pid_t *ret_pid, int *ret_pidfd, int *ret_gate);
void spawn_release(int gate);

struct spawn_failure {
    const char *step; /* a literal: the same in parent and child */
    int error;        /* errno */
};
/* After the process ended: was it before the program ran? */
bool spawn_failed(int gate, struct spawn_failure *ret);
/* The same will happen again until an operator mends it. */
bool spawn_failure_is_lasting(const struct spawn_failure *failure);

/* The address sanitizer's shadow memory counts as the process's own: no limit can be kept then. */
#if defined(__SANITIZE_ADDRESS__)
enum { SPAWN_LIMITS_MEMORY = 0 };
#else
enum { SPAWN_LIMITS_MEMORY = 1 };
#endif
