/*
 * Which ids were asked of the hub in vain, and when: for a while they are not asked again, or a
 * stranger could keep the hub and the logins of others busy. Pure. Bounded: the oldest is forgotten
 * for the newest.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mem.h"

enum { REFRESH_RULE_IDS_MAX = 1024 };

struct refresh_rule;

struct refresh_rule *refresh_rule_new(uint64_t pause_usec);
struct refresh_rule *refresh_rule_free(struct refresh_rule *rule);
DEFINE_FREEP(struct refresh_rule, refresh_rule_free)

bool refresh_rule_allows(const struct refresh_rule *rule, const char *id, uint64_t now_usec);
/* The hub does not know @id, or knows nothing new of it. */
void refresh_rule_note(struct refresh_rule *rule, const char *id, uint64_t now_usec);
