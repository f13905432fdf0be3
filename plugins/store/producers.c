/* The last sequence of each producer. */
#include "producers.h"

#include <string.h>

struct entry {
    char *name;
    uint64_t sequence;
    uint64_t stamp; /* greater: used later */
    uint64_t group; /* that applied the sequence; 0: before the start */
    bool dirty;
};

struct producers {
    struct entry *entries[PRODUCERS_MAX]; /* the latest first */
    size_t count;
    uint64_t stamp;
    char **removed; /* since the last close */
    size_t removed_count, removed_capacity;
};

static struct entry *entry_free(struct entry *e)
{
    if (!e)
        return NULL;
    free(e->name);
    free(e);
    return NULL;
}

struct producers *producers_new(void)
{
    return xnew(struct producers);
}

struct producers *producers_free(struct producers *p)
{
    if (!p)
        return NULL;
    for (size_t i = 0; i < p->count; i++)
        entry_free(p->entries[i]);
    for (size_t i = 0; i < p->removed_count; i++)
        free(p->removed[i]);
    free(p->removed);
    free(p);
    return NULL;
}

size_t producers_count(const struct producers *p)
{
    return p->count;
}

/* Its index, or the count. */
static size_t producers_search(const struct producers *p, const char *name)
{
    size_t i = 0;

    while (i < p->count && strcmp(p->entries[i]->name, name) != 0)
        i++;
    return i;
}

static void producers_remove_last(struct producers *p)
{
    struct entry *last = p->entries[--p->count];

    xgrow(p->removed, p->removed_count, p->removed_capacity);
    p->removed[p->removed_count++] = TAKE_PTR(last->name);
    entry_free(last);
}

static void producers_insert(struct producers *p, size_t at, struct entry *e)
{
    memmove(p->entries + at + 1, p->entries + at, (p->count - at) * sizeof(struct entry *));
    p->entries[at] = e;
    p->count++;
}

static struct entry *entry_new(const char *name)
{
    struct entry *e = xnew(struct entry);

    e->name = xstrdup(name);
    return e;
}

void producers_restore(struct producers *p, const char *name, uint64_t sequence, uint64_t stamp)
{
    struct entry *e;
    size_t at = 0;

    if (p->count == PRODUCERS_MAX)
        producers_remove_last(p);
    while (at < p->count && p->entries[at]->stamp > stamp)
        at++;
    e = entry_new(name);
    e->sequence = sequence;
    e->stamp = stamp;
    producers_insert(p, at, e);
    if (p->stamp < stamp)
        p->stamp = stamp;
}

int producers_check(struct producers *p, const char *name, uint64_t sequence,
                    uint64_t *ret_expected, uint64_t *ret_group)
{
    size_t i = producers_search(p, name);
    uint64_t last = i < p->count ? p->entries[i]->sequence : 0;

    *ret_expected = last + 1;
    *ret_group = i < p->count ? p->entries[i]->group : 0;
    if (sequence <= last)
        return PRODUCER_E_DONE;
    return sequence == last + 1 ? 0 : PRODUCER_E_GAP;
}

void producers_apply(struct producers *p, const char *name, uint64_t sequence, uint64_t group)
{
    size_t i = producers_search(p, name);
    struct entry *e;

    if (i < p->count) {
        e = p->entries[i];
        memmove(p->entries + 1, p->entries, i * sizeof(struct entry *));
        p->entries[0] = e;
    } else {
        if (p->count == PRODUCERS_MAX)
            producers_remove_last(p);
        e = entry_new(name);
        producers_insert(p, 0, e);
    }
    e->sequence = sequence;
    e->group = group;
    e->stamp = ++p->stamp;
    e->dirty = true;
}

void producers_close(struct producers *p, const struct producers_writer *writer, void *userdata)
{
    for (size_t i = 0; i < p->removed_count; i++) {
        writer->remove(p->removed[i], userdata);
        free(p->removed[i]);
    }
    p->removed_count = 0;
    /* What was used since stands in front. */
    for (size_t i = 0; i < p->count && p->entries[i]->dirty; i++) {
        writer->put(p->entries[i]->name, p->entries[i]->sequence, p->entries[i]->stamp, userdata);
        p->entries[i]->dirty = false;
    }
}
