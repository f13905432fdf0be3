/*
 * Who has had how much applied: the last sequence of each producer. It goes to disk in the batch
 * that it is about, so a batch that is sent again is known however often anything died in between.
 * A producer's name is new for every process life; only the latest PRODUCERS_MAX are kept. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem.h"

enum { PRODUCERS_MAX = 256, PRODUCER_NAME_BYTES_MAX = 256 };

struct producers;

struct producers *producers_new(void);
struct producers *producers_free(struct producers *producers);
DEFINE_FREEP(struct producers, producers_free)

void producers_restore(struct producers *producers, const char *name, uint64_t sequence,
                       uint64_t stamp);
size_t producers_count(const struct producers *producers);

enum {
    PRODUCER_E_DONE = 1, /* applied before; @ret_group says in which group */
    PRODUCER_E_GAP,      /* @ret_expected is missing */
};
int producers_check(struct producers *producers, const char *name, uint64_t sequence,
                    uint64_t *ret_expected, uint64_t *ret_group);
/* @sequence, which producers_check() found to be next, is applied in @group. */
void producers_apply(struct producers *producers, const char *name, uint64_t sequence,
                     uint64_t group);

struct producers_writer {
    void (*put)(const char *name, uint64_t sequence, uint64_t stamp, void *userdata);
    void (*remove)(const char *name, void *userdata);
};
/* Hands out what changed since the last time. */
void producers_close(struct producers *producers, const struct producers_writer *writer,
                     void *userdata);
