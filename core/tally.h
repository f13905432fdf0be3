/*
 * What the supervisor remembers of each plugin over its own restarts and the machine's: the
 * generation (every spawn has a new number, which only grows) and the tally of deaths. A text file,
 * one line a plugin.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

struct tally_entry {
    char *name;
    uint64_t generation;    /* the last one given out; 0: none yet */
    uint64_t deaths;        /* that nobody asked for */
    int64_t last_death_sec; /* UTC; 0: never */
    char *last_death;       /* "killed by signal 9"; "" */
};

struct tally {
    char *path;
    struct tally_entry *entries;
    size_t count, capacity;
    bool dirty;
};

/* A file that is missing is an empty tally; lines that make no sense are left out and logged. */
int tally_load(const char *path, struct tally *ret);
void tally_done(struct tally *tally);
/* Writes it, durably, when something changed. */
int tally_save(struct tally *tally);

/* A number that no process of that name had before. */
uint64_t tally_next_generation(struct tally *tally, const char *name);
/* A process with that generation runs: the next ones are greater. */
void tally_saw_generation(struct tally *tally, const char *name, uint64_t generation);
void tally_add_death(struct tally *tally, const char *name, int64_t now_sec, const char *how);
uint64_t tally_deaths(const struct tally *tally, const char *name);
