/*
 * The functions of conditions (routing.md §7.6): one table says what each takes, gives and does. A
 * function of which a row stands there twice does different things for different arguments: the
 * first row that fits is called.
 */
#pragma once

#include "arena.h"
#include "route-value.h"

/* What conditions may cost for one message, all of them together, whatever routes and messages
 * say: ROUTE_WORK_MAX units, which take some tens of milliseconds at worst. A unit is about a byte
 * looked at; a byte of text that is made costs 16, so there is 1 MiB of it at most. When it is
 * spent, conditions are undefined. */
enum { ROUTE_WORK_MAX = 16 << 20, WORK_STEP = 16, WORK_BYTE_MADE = 16 };

struct route_work {
    struct arena *arena; /* of texts that are made, and of what is decoded */
    int64_t left;
};

static inline bool work_spend(struct route_work *work, size_t units)
{
    work->left -= (int64_t)units;
    return work->left >= 0;
}

typedef struct route_value route_function_fn(struct route_work *work,
                                             const struct route_value *arguments, size_t count);

enum { ROUTE_ARGUMENTS_MAX = 3 };

struct route_function {
    const char *name;
    unsigned takes[ROUTE_ARGUMENTS_MAX]; /* a bit for each type that may stand there; 0: no more */
    bool repeats;                        /* what the last one takes, any number of times */
    enum route_type gives;
    route_function_fn *fn;
    const char *usage;
};

/* NULL when there is none of this name (@ret_expected then says so), or none that takes these. */
const struct route_function *function_find(struct span name, const enum route_type *types,
                                           size_t count, const char **ret_expected);
