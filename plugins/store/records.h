/* Versions of records that were changed in a group that is not on disk yet. What is, the database
 * knows. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem.h"

struct records;

struct records *records_new(void);
struct records *records_free(struct records *records);
DEFINE_FREEP(struct records, records_free)

/* True: it was changed lately, to that version; 0: removed. */
bool records_find(const struct records *records, const char *key, uint64_t *ret_version);
void records_change(struct records *records, const char *key, uint64_t version, uint64_t group);
/* @group is on disk. */
void records_written(struct records *records, uint64_t group);
