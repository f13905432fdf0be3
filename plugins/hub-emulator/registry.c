/* The registry in memory: look-ups and changes. A change is checked whole before the first member is touched. */
#include "registry.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "registry-private.h"
#include "sas.h"

#define SCOPE_PREFIX "ms-azure-iot-edge://"

enum { KEY_BYTES = 32 };
#define TICKS_PER_SEC INT64_C(10000000)
#define TICKS_AT_EPOCH                                                                             \
    INT64_C(621355968000000000) /* generation ids look like .NET's ticks: 100 ns since year 1 */

const char *const credentials_kind_names[_CREDENTIALS_KIND_COUNT] = {
    [CREDENTIALS_NONE] = "none",
    [CREDENTIALS_SAS] = "sas",
    [CREDENTIALS_SELF_SIGNED] = "selfSigned",
    [CREDENTIALS_CERTIFICATE_AUTHORITY] = "certificateAuthority",
};

static void random_bytes(void *at, size_t n)
{
    ssize_t r = getrandom(at, n, 0);

    assert(r == (ssize_t)n); /* 256 bytes and less are never given in part */
}

static void replace(char **place, const char *value)
{
    char *copy = xstrdup(value);

    free(*place);
    *place = copy;
}

static int64_t utc_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- objects ---- */

static void identity_done(struct identity *identity)
{
    free(identity->generation_id);
    free(identity->etag);
    free(identity->credentials.primary_key);
    free(identity->credentials.secondary_key);
    free(identity->credentials.primary_thumbprint);
    free(identity->credentials.secondary_thumbprint);
}

static struct module *module_free(struct module *module)
{
    if (!module)
        return NULL;
    identity_done(&module->identity);
    free(module->id);
    free(module->managed_by);
    free(module);
    return NULL;
}

static char **strings_free(char **strings)
{
    for (size_t i = 0; strings && strings[i]; i++)
        free(strings[i]);
    free(strings);
    return NULL;
}

struct device *device_free(struct device *device)
{
    if (!device)
        return NULL;
    for (size_t i = 0; i < device->module_count; i++)
        module_free(device->modules[i]);
    free(device->modules);
    identity_done(&device->identity);
    strings_free(device->parent_scopes);
    free(device->scope);
    free(device->status_reason);
    free(device->id);
    free(device);
    return NULL;
}

static void identity_new_etag(struct identity *identity)
{
    char digits[24];
    uint32_t number;
    int n;

    random_bytes(&number, sizeof(number));
    n = snprintf(digits, sizeof(digits), "%u", number);
    free(identity->etag);
    identity->etag = base64_encode(digits, (size_t)n);
}

static void identity_new_generation(struct registry *registry, struct identity *identity)
{
    uint64_t ticks = (uint64_t)(TICKS_AT_EPOCH + utc_now_ms() * (TICKS_PER_SEC / 1000));

    if (ticks <= registry->last_generation)
        ticks = registry->last_generation + 1;
    registry->last_generation = ticks;
    free(identity->generation_id);
    identity->generation_id = xasprintf("%llu", (unsigned long long)ticks);
}

/* ---- look-ups ---- */

/* Where @id is in the sorted @names, or would be. The name is the first member of devices and of modules. */
static size_t sorted_place(void *const *entries, size_t count, const char *id, bool *ret_found)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(*(char *const *)entries[middle], id);

        if (order == 0) {
            *ret_found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_found = false;
    return low;
}
_Static_assert(offsetof(struct device, id) == 0 && offsetof(struct module, id) == 0,
               "sorted_place() reads it there");

static size_t device_place(const struct registry *registry, const char *id, bool *ret_found)
{
    return sorted_place((void *const *)registry->devices, registry->device_count, id, ret_found);
}

static size_t module_place(const struct device *device, const char *id, bool *ret_found)
{
    return sorted_place((void *const *)device->modules, device->module_count, id, ret_found);
}

struct device *registry_device(const struct registry *registry, const char *device_id)
{
    bool found;
    size_t place = device_place(registry, device_id, &found);

    return found ? registry->devices[place] : NULL;
}

struct module *registry_module(const struct registry *registry, const char *device_id,
                               const char *module_id)
{
    struct device *device = registry_device(registry, device_id);
    bool found;
    size_t place;

    if (!device)
        return NULL;
    place = module_place(device, module_id, &found);
    return found ? device->modules[place] : NULL;
}

struct identity *registry_identity(const struct registry *registry, const char *device_id,
                                   const char *module_id)
{
    if (module_id && module_id[0] != '\0') {
        struct module *module = registry_module(registry, device_id, module_id);

        return module ? &module->identity : NULL;
    } else {
        struct device *device = registry_device(registry, device_id);

        return device ? &device->identity : NULL;
    }
}

size_t registry_count(const struct registry *registry)
{
    return registry->device_count;
}

size_t registry_index_after(const struct registry *registry, const char *after)
{
    bool found;
    size_t place;

    if (!after)
        return 0;
    place = device_place(registry, after, &found);
    return place + found;
}

struct device *registry_device_at(const struct registry *registry, size_t index)
{
    assert(index < registry->device_count);
    return registry->devices[index];
}

struct device *registry_edge_of_scope(const struct registry *registry, const char *scope)
{
    _cleanup_(freep) char *id = NULL;
    struct device *device;
    const char *dash;

    if (strncmp(scope, SCOPE_PREFIX, strlen(SCOPE_PREFIX)) != 0)
        return NULL;
    scope += strlen(SCOPE_PREFIX);
    dash = strrchr(scope, '-');
    if (!dash)
        return NULL;
    id = xstrndup(scope, (size_t)(dash - scope));
    device = registry_device(registry, id);
    if (!device || !device->edge || strcmp(device->identity.generation_id, dash + 1) != 0)
        return NULL;
    return device;
}

bool registry_is_child(const struct device *child, const struct device *parent)
{
    if (!parent->edge)
        return false;
    for (size_t i = 0; child->parent_scopes && child->parent_scopes[i]; i++)
        if (strcmp(child->parent_scopes[i], parent->scope) == 0)
            return true;
    return false;
}

/* ---- changes ---- */

static int check_etag(const struct identity *identity, const char *if_match)
{
    return !if_match || strcmp(if_match, identity->etag) == 0 ? 0 : REGISTRY_E_ETAG;
}

static int registry_changed(struct registry *registry, const char *device_id)
{
    _cleanup_(freep) char *id = xstrdup(device_id); /* it may be the name of what is going away */
    int r = 0;

    registry->dirty = true;
    if (registry->holds == 0)
        r = registry_save(registry);
    if (registry->on_change)
        registry->on_change(id, registry->on_change_userdata);
    return r;
}

void registry_hold(struct registry *registry)
{
    registry->holds++;
}

int registry_release(struct registry *registry)
{
    assert(registry->holds > 0);
    return --registry->holds == 0 && registry->dirty ? registry_save(registry) : 0;
}

static void key_set(char **place, const char *wanted)
{
    uint8_t bytes[KEY_BYTES];

    if (wanted && wanted[0] != '\0') {
        replace(place, wanted);
    } else if (!*place) {
        random_bytes(bytes, sizeof(bytes));
        *place = base64_encode(bytes, sizeof(bytes));
    }
}

static void credentials_apply(struct credentials *credentials, const struct identity_spec *spec)
{
    if (spec->credentials_kind >= 0)
        credentials->kind = (enum credentials_kind)spec->credentials_kind;
    if (credentials->kind == CREDENTIALS_SAS) {
        key_set(&credentials->primary_key, spec->primary_key);
        key_set(&credentials->secondary_key, spec->secondary_key);
    }
    if (spec->primary_thumbprint)
        replace(&credentials->primary_thumbprint, spec->primary_thumbprint);
    if (spec->secondary_thumbprint)
        replace(&credentials->secondary_thumbprint, spec->secondary_thumbprint);
}

static void parents_apply(struct device *device, const char *const *parents)
{
    char **copy = NULL;

    if (!parents)
        return;
    if (parents[0]) {
        copy = xnew_n(char *, 2);
        copy[0] = xstrdup(parents[0]);
    }
    strings_free(device->parent_scopes);
    device->parent_scopes = copy;
    if (!device->edge)
        replace(&device->scope, parents[0]);
}

static void status_apply(struct device *device, const struct identity_spec *spec)
{
    if (spec->enabled >= 0 && device->enabled != (spec->enabled != 0)) {
        device->enabled = spec->enabled != 0;
        device->status_changed_ms = utc_now_ms();
    }
    if (spec->status_reason)
        replace(&device->status_reason, spec->status_reason);
}

static struct module *module_add(struct registry *registry, struct device *device, const char *id)
{
    struct module *module = xnew(struct module);
    bool found;
    size_t place = module_place(device, id, &found);

    assert(!found);
    module->id = xstrdup(id);
    module->managed_by = xstrdup("");
    module->device = device;
    identity_new_generation(registry, &module->identity);
    identity_new_etag(&module->identity);
    xgrow(device->modules, device->module_count, device->module_capacity);
    memmove(device->modules + place + 1, device->modules + place,
            (device->module_count - place) * sizeof(*device->modules));
    device->modules[place] = module;
    device->module_count++;
    return module;
}

/* A device that becomes an edge device gets a scope of its own and the modules that every edge device has. */
static void device_make_edge(struct registry *registry, struct device *device)
{
    static const char *const system_modules[] = { "$edgeAgent", "$edgeHub" };

    device->edge = true;
    free(device->scope);
    device->scope = xasprintf(SCOPE_PREFIX "%s-%s", device->id, device->identity.generation_id);
    for (size_t i = 0; i < ELEMENTSOF(system_modules); i++)
        if (!registry_module(registry, device->id, system_modules[i]))
            module_add(registry, device, system_modules[i]);
}

static void device_apply(struct registry *registry, struct device *device,
                         const struct identity_spec *spec)
{
    const char *place[2];
    const char *const *parents;

    if (spec->edge == 1 && !device->edge)
        device_make_edge(registry, device);
    parents = registry_wanted_parents(device, spec, device->edge, place);
    parents_apply(device, parents);
    status_apply(device, spec);
    credentials_apply(&device->identity.credentials, spec);
    identity_new_etag(&device->identity);
}

static struct device *device_add(struct registry *registry, const char *id)
{
    struct device *device = xnew(struct device);

    device->id = xstrdup(id);
    device->enabled = true;
    device->identity.credentials.kind = CREDENTIALS_SAS;
    identity_new_generation(registry, &device->identity);
    registry_insert(registry, device);
    return device;
}

void registry_insert(struct registry *registry, struct device *device)
{
    bool found;
    size_t place = device_place(registry, device->id, &found);

    assert(!found);
    xgrow(registry->devices, registry->device_count, registry->device_capacity);
    memmove(registry->devices + place + 1, registry->devices + place,
            (registry->device_count - place) * sizeof(*registry->devices));
    registry->devices[place] = device;
    registry->device_count++;
}

int registry_device_create(struct registry *registry, const struct identity_spec *spec,
                           struct registry_error *ret_error)
{
    if (registry_device(registry, spec->device_id))
        return REGISTRY_E_EXISTS;
    if (registry_check_device(registry, NULL, spec, ret_error) != 0)
        return REGISTRY_E_ARGUMENT;
    device_apply(registry, device_add(registry, spec->device_id), spec);
    return registry_changed(registry, spec->device_id);
}

int registry_device_update(struct registry *registry, const struct identity_spec *spec,
                           const char *if_match, struct registry_error *ret_error)
{
    struct device *device = registry_device(registry, spec->device_id);

    if (!device)
        return REGISTRY_E_NO_DEVICE;
    if (check_etag(&device->identity, if_match) != 0)
        return REGISTRY_E_ETAG;
    if (registry_check_device(registry, device, spec, ret_error) != 0)
        return REGISTRY_E_ARGUMENT;
    device_apply(registry, device, spec);
    return registry_changed(registry, spec->device_id);
}

int registry_device_remove(struct registry *registry, const char *device_id, const char *if_match)
{
    _cleanup_(device_freep) struct device *device = NULL;
    bool found;
    size_t place = device_place(registry, device_id, &found);

    if (!found)
        return REGISTRY_E_NO_DEVICE;
    if (check_etag(&registry->devices[place]->identity, if_match) != 0)
        return REGISTRY_E_ETAG;
    device = registry->devices[place];
    registry->device_count--;
    memmove(registry->devices + place, registry->devices + place + 1,
            (registry->device_count - place) * sizeof(*registry->devices));
    return registry_changed(registry, device->id);
}

static void module_apply(struct module *module, const struct identity_spec *spec)
{
    if (spec->managed_by)
        replace(&module->managed_by, spec->managed_by);
    credentials_apply(&module->identity.credentials, spec);
    identity_new_etag(&module->identity);
}

int registry_module_create(struct registry *registry, const struct identity_spec *spec,
                           struct registry_error *ret_error)
{
    struct device *device = registry_device(registry, spec->device_id);

    if (!device)
        return REGISTRY_E_NO_DEVICE;
    if (registry_module(registry, spec->device_id, spec->module_id))
        return REGISTRY_E_EXISTS;
    if (registry_check_module(spec, ret_error) != 0)
        return REGISTRY_E_ARGUMENT;
    if (device->module_count >= REGISTRY_MODULES_MAX)
        return REGISTRY_E_TOO_MANY;
    module_apply(module_add(registry, device, spec->module_id), spec);
    return registry_changed(registry, device->id);
}

int registry_module_update(struct registry *registry, const struct identity_spec *spec,
                           const char *if_match, struct registry_error *ret_error)
{
    struct module *module = registry_module(registry, spec->device_id, spec->module_id);

    if (!module)
        return registry_device(registry, spec->device_id) ? REGISTRY_E_NO_MODULE
                                                          : REGISTRY_E_NO_DEVICE;
    if (check_etag(&module->identity, if_match) != 0)
        return REGISTRY_E_ETAG;
    if (registry_check_module(spec, ret_error) != 0)
        return REGISTRY_E_ARGUMENT;
    module_apply(module, spec);
    return registry_changed(registry, module->device->id);
}

int registry_module_remove(struct registry *registry, const char *device_id, const char *module_id,
                           const char *if_match)
{
    struct device *device = registry_device(registry, device_id);
    bool found;
    size_t place;

    if (!device)
        return REGISTRY_E_NO_DEVICE;
    place = module_place(device, module_id, &found);
    if (!found)
        return REGISTRY_E_NO_MODULE;
    if (check_etag(&device->modules[place]->identity, if_match) != 0)
        return REGISTRY_E_ETAG;
    module_free(device->modules[place]);
    device->module_count--;
    memmove(device->modules + place, device->modules + place + 1,
            (device->module_count - place) * sizeof(*device->modules));
    return registry_changed(registry, device->id);
}

void registry_set_connected(struct registry *registry, const char *device_id, const char *module_id,
                            bool connected, int64_t now_ms)
{
    struct identity *identity = registry_identity(registry, device_id, module_id);

    if (!identity)
        return;
    if (identity->connected != connected)
        identity->connection_changed_ms = now_ms;
    identity->connected = connected;
    identity->last_activity_ms = now_ms;
}

void registry_on_change(struct registry *registry, registry_changed_fn *fn, void *userdata)
{
    registry->on_change = fn;
    registry->on_change_userdata = userdata;
}

int registry_open(const char *path, struct registry **ret)
{
    _cleanup_(registry_freep) struct registry *registry = xnew(struct registry);
    int r;

    registry->path = xstrdup(path);
    r = registry_load(registry);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(registry);
    return 0;
}

struct registry *registry_free(struct registry *registry)
{
    if (!registry)
        return NULL;
    for (size_t i = 0; i < registry->device_count; i++)
        device_free(registry->devices[i]);
    free(registry->devices);
    free(registry->path);
    free(registry);
    return NULL;
}
