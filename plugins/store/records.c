/* The record versions between the decision and the disk. */
#include "records.h"

#include <string.h>

struct change {
    char *key;
    uint64_t version;
    uint64_t group;
};

struct records {
    struct change *changes; /* in the order they were made */
    size_t count, capacity;
};

struct records *records_new(void)
{
    return xnew(struct records);
}

struct records *records_free(struct records *r)
{
    if (!r)
        return NULL;
    records_written(r, UINT64_MAX);
    free(r->changes);
    free(r);
    return NULL;
}

bool records_find(const struct records *r, const char *key, uint64_t *ret_version)
{
    for (size_t i = r->count; i-- > 0;) {
        if (strcmp(r->changes[i].key, key) != 0)
            continue;
        *ret_version = r->changes[i].version;
        return true;
    }
    return false;
}

void records_change(struct records *r, const char *key, uint64_t version, uint64_t group)
{
    xgrow(r->changes, r->count, r->capacity);
    r->changes[r->count++] = (struct change){ xstrdup(key), version, group };
}

void records_written(struct records *r, uint64_t group)
{
    size_t done = 0;

    while (done < r->count && r->changes[done].group <= group)
        free(r->changes[done++].key);
    if (done == 0)
        return;
    memmove(r->changes, r->changes + done, (r->count - done) * sizeof(*r->changes));
    r->count -= done;
}
