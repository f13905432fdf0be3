#include "refresh-rule.h"

#include <string.h>

struct entry {
    char *id; /* NULL: empty */
    uint64_t hash;
    uint64_t until_usec;
};

struct refresh_rule {
    uint64_t pause_usec;
    struct entry entries[REFRESH_RULE_IDS_MAX];
    unsigned next; /* the oldest */
};

/* FNV-1a: only spares comparing; what collides is compared. */
static uint64_t hash_of(const char *id)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (; *id; id++)
        hash = (hash ^ (uint8_t)*id) * UINT64_C(0x100000001b3);
    return hash;
}

static struct entry *find(const struct refresh_rule *rule, const char *id)
{
    uint64_t hash = hash_of(id);

    for (unsigned i = 0; i < REFRESH_RULE_IDS_MAX; i++) {
        const struct entry *entry = &rule->entries[i];

        if (entry->id && entry->hash == hash && strcmp(entry->id, id) == 0)
            return (struct entry *)entry;
    }
    return NULL;
}

struct refresh_rule *refresh_rule_new(uint64_t pause_usec)
{
    struct refresh_rule *rule = xnew(struct refresh_rule);

    rule->pause_usec = pause_usec;
    return rule;
}

struct refresh_rule *refresh_rule_free(struct refresh_rule *rule)
{
    if (!rule)
        return NULL;
    for (unsigned i = 0; i < REFRESH_RULE_IDS_MAX; i++)
        free(rule->entries[i].id);
    free(rule);
    return NULL;
}

bool refresh_rule_allows(const struct refresh_rule *rule, const char *id, uint64_t now_usec)
{
    const struct entry *entry = find(rule, id);

    return !entry || now_usec >= entry->until_usec;
}

void refresh_rule_note(struct refresh_rule *rule, const char *id, uint64_t now_usec)
{
    struct entry *entry = find(rule, id);

    if (!entry) {
        entry = &rule->entries[rule->next];
        rule->next = (rule->next + 1) % REFRESH_RULE_IDS_MAX;
        free(entry->id);
        *entry = (struct entry){ .id = xstrdup(id), .hash = hash_of(id) };
    }
    entry->until_usec = now_usec + rule->pause_usec;
}
