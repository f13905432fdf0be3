/*
 * What a start makes of the folder on disk: an open database, the index of its queues, the
 * producers, the clock. A damaged database is repaired, and one that cannot be is moved aside: the
 * store never goes on in memory alone. Made by the worker, since a repair takes as long as it
 * takes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "keys.h"
#include "producers.h"
#include "queues.h"
#include "store-rocks.h"

/* How far to go, whatever the database itself says. */
enum damage {
    DAMAGE_NONE,   /* mend it if it cannot be opened */
    DAMAGE_FOUND,  /* it opened well, and then a row could not be read: repair it */
    DAMAGE_STAYED, /* and repairing did not mend it: move it aside */
};

struct image {
    struct rocks *rocks;
    struct queues *queues;
    struct producers *producers;
    struct clock_value clock;
    bool has_clock;
    bool repaired;
    uint64_t missing;          /* messages that the repair could not save */
    char *aside;               /* where the old database lies now; NULL: it was not moved */
    struct rocks_error damage; /* what was wrong, if repaired or moved */
};

/* Opens PATH. Errors: as rocks_open(); -EPROTONOSUPPORT: a later release has changed the layout. */
int image_open(const char *path, const struct rocks_options *options, enum damage damage,
               struct image **ret, struct rocks_error *ret_error);
struct image *image_free(struct image *image);
DEFINE_FREEP(struct image, image_free)
