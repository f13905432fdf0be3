#include "scope.h"

#include <assert.h>
#include <string.h>

struct scope {
    struct scope_identity *
        *items; /* sorted by device id, then module id; a device stands before its modules */
    size_t count;
    size_t capacity;
};

static struct sas_key *key_free(struct sas_key *key)
{
    if (key)
        sas_key_wipe(key);
    free(key);
    return NULL;
}

static struct sas_key *key_dup(const struct sas_key *key)
{
    return key ? xmemdup(key, sizeof(*key)) : NULL;
}

struct scope_identity *scope_identity_free(struct scope_identity *identity)
{
    if (!identity)
        return NULL;
    free(identity->device_id);
    free(identity->module_id);
    free(identity->generation_id);
    key_free(identity->primary_key);
    key_free(identity->secondary_key);
    free(identity->primary_thumbprint);
    free(identity->secondary_thumbprint);
    free(identity->device_scope);
    for (size_t i = 0; i < identity->parent_scope_count; i++)
        free(identity->parent_scopes[i]);
    free(identity->parent_scopes);
    free(identity);
    return NULL;
}

struct scope_identity *scope_identity_dup(const struct scope_identity *identity)
{
    struct scope_identity *dup = xmemdup(identity, sizeof(*identity));

    dup->device_id = xstrdup(identity->device_id);
    dup->module_id = xstrdup(identity->module_id);
    dup->generation_id = xstrdup(identity->generation_id);
    dup->primary_key = key_dup(identity->primary_key);
    dup->secondary_key = key_dup(identity->secondary_key);
    dup->primary_thumbprint = xstrdup(identity->primary_thumbprint);
    dup->secondary_thumbprint = xstrdup(identity->secondary_thumbprint);
    dup->device_scope = xstrdup(identity->device_scope);
    dup->parent_scopes = xnew_n(char *, identity->parent_scope_count);
    for (size_t i = 0; i < identity->parent_scope_count; i++)
        dup->parent_scopes[i] = xstrdup(identity->parent_scopes[i]);
    return dup;
}

static bool text_equal(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool scope_identity_equal(const struct scope_identity *a, const struct scope_identity *b)
{
    if (!text_equal(a->device_id, b->device_id) || !text_equal(a->module_id, b->module_id) ||
        !text_equal(a->generation_id, b->generation_id) || a->enabled != b->enabled ||
        a->is_edge != b->is_edge || a->auth != b->auth ||
        !sas_key_equal(a->primary_key, b->primary_key) ||
        !sas_key_equal(a->secondary_key, b->secondary_key) ||
        !text_equal(a->primary_thumbprint, b->primary_thumbprint) ||
        !text_equal(a->secondary_thumbprint, b->secondary_thumbprint) ||
        !text_equal(a->device_scope, b->device_scope) ||
        a->parent_scope_count != b->parent_scope_count)
        return false;
    for (size_t i = 0; i < a->parent_scope_count; i++)
        if (!text_equal(a->parent_scopes[i], b->parent_scopes[i]))
            return false;
    return true;
}

struct scope *scope_new(void)
{
    return xnew(struct scope);
}

struct scope *scope_free(struct scope *scope)
{
    if (!scope)
        return NULL;
    for (size_t i = 0; i < scope->count; i++)
        scope_identity_free(scope->items[i]);
    free(scope->items);
    free(scope);
    return NULL;
}

static int compare(const struct scope_identity *a, const char *device_id, const char *module_id)
{
    int r = strcmp(a->device_id, device_id);

    return r != 0 ? r : strcmp(a->module_id ? a->module_id : "", module_id ? module_id : "");
}

/* The place of the first that is not before the id. */
static size_t lower_bound(const struct scope *scope, const char *device_id, const char *module_id)
{
    size_t low = 0, high = scope->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare(scope->items[middle], device_id, module_id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const struct scope *scope, size_t at, const char *device_id,
                  const char *module_id)
{
    return at < scope->count && compare(scope->items[at], device_id, module_id) == 0;
}

const struct scope_identity *scope_find(const struct scope *scope, const char *device_id,
                                        const char *module_id)
{
    size_t at = lower_bound(scope, device_id, module_id);

    return is_at(scope, at, device_id, module_id) ? scope->items[at] : NULL;
}

size_t scope_count(const struct scope *scope)
{
    return scope->count;
}

const struct scope_identity *scope_at(const struct scope *scope, size_t index)
{
    assert(index < scope->count);
    return scope->items[index];
}

bool scope_equal(const struct scope *a, const struct scope *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!scope_identity_equal(a->items[i], b->items[i]))
            return false;
    return true;
}

bool scope_put_take(struct scope *scope, struct scope_identity *identity)
{
    size_t at = lower_bound(scope, identity->device_id, identity->module_id);
    bool changed;

    if (is_at(scope, at, identity->device_id, identity->module_id)) {
        changed = !scope_identity_equal(scope->items[at], identity);
        scope_identity_free(scope->items[at]);
        scope->items[at] = identity;
        return changed;
    }
    xgrow(scope->items, scope->count, scope->capacity);
    memmove(scope->items + at + 1, scope->items + at, (scope->count - at) * sizeof(*scope->items));
    scope->items[at] = identity;
    scope->count++;
    return true;
}

bool scope_remove(struct scope *scope, const char *device_id, const char *module_id)
{
    size_t from = lower_bound(scope, device_id, module_id), to = from;

    if (!is_at(scope, from, device_id, module_id))
        return false;
    to++;
    if (!scope->items[from]->module_id)
        while (to < scope->count && strcmp(scope->items[to]->device_id, device_id) == 0)
            to++;
    for (size_t i = from; i < to; i++)
        scope_identity_free(scope->items[i]);
    memmove(scope->items + from, scope->items + to, (scope->count - to) * sizeof(*scope->items));
    scope->count -= to - from;
    return true;
}

/* ---- chains ---- */

/* The edge device whose scope is among the parents of @identity. */
static const struct scope_identity *parent_of(const struct scope *scope,
                                              const struct scope_identity *identity)
{
    for (size_t p = 0; p < identity->parent_scope_count; p++)
        for (size_t i = 0; i < scope->count; i++) {
            const struct scope_identity *candidate = scope->items[i];

            if (candidate->is_edge && !candidate->module_id && candidate != identity &&
                text_equal(candidate->device_scope, identity->parent_scopes[p]))
                return candidate;
        }
    return NULL;
}

char *scope_chain(const struct scope *scope, const char *edge_id, const char *device_id,
                  const char *module_id)
{
    _cleanup_(freep) char *chain = NULL;
    const struct scope_identity *at;

    if (module_id && *module_id) {
        if (!scope_find(scope, device_id, module_id))
            return NULL;
        chain = xasprintf("%s/%s;%s", device_id, module_id, device_id);
    } else {
        chain = xstrdup(device_id);
    }

    at = scope_find(scope, device_id, NULL);
    for (unsigned edges = 0; at && at->enabled; at = parent_of(scope, at)) {
        char *longer;

        if (at->is_edge && ++edges > SCOPE_EDGE_DEPTH_MAX)
            return NULL;
        if (strcmp(at->device_id, device_id) != 0) {
            longer = xasprintf("%s;%s", chain, at->device_id);
            free(chain);
            chain = longer;
        }
        if (strcmp(at->device_id, edge_id) == 0)
            return TAKE_PTR(chain);
    }
    return NULL;
}
