/* What a change must hold to, looked at before the first member is touched. */
#include <string.h>

#include "message.h"
#include "registry-private.h"
#include "sas.h"

static int expected(struct registry_error *ret_error, const char *text)
{
    ret_error->expected = text;
    return REGISTRY_E_ARGUMENT;
}

static bool text_is_set(const char *text)
{
    return text && text[0] != '\0';
}

static bool thumbprint_is_valid(const char *text)
{
    size_t len = strlen(text);

    return (len == 40 || len == 64) && strspn(text, "0123456789abcdefABCDEF") == len;
}

static bool key_is_valid(const char *text)
{
    struct sas_key key;
    bool valid = sas_key_parse(span_str(text), &key);

    sas_key_wipe(&key);
    return valid;
}

static int check_credentials(const struct identity_spec *spec, struct registry_error *ret_error)
{
    const char *const keys[] = { spec->primary_key, spec->secondary_key };
    const char *const thumbprints[] = { spec->primary_thumbprint, spec->secondary_thumbprint };

    for (size_t i = 0; i < ELEMENTSOF(keys); i++)
        if (text_is_set(keys[i]) && !key_is_valid(keys[i]))
            return expected(ret_error, "a symmetric key in base64, at most 256 bytes");
    for (size_t i = 0; i < ELEMENTSOF(thumbprints); i++)
        if (text_is_set(thumbprints[i]) && !thumbprint_is_valid(thumbprints[i]))
            return expected(ret_error, "a thumbprint of 40 or 64 hexadecimal digits");
    return 0;
}

const char *const *registry_wanted_parents(const struct device *current,
                                           const struct identity_spec *spec, bool edge,
                                           const char *place[static 2])
{
    const char *now = current && current->scope ? current->scope : "";

    if (!edge && spec->scope && strcmp(spec->scope, now) != 0) {
        place[0] = spec->scope[0] != '\0' ? spec->scope : NULL;
        place[1] = NULL;
        return place;
    }
    return spec->parent_scopes;
}

/* A parent must be there, and the way up from it must end before it is too long or comes back to @device_id. */
static int check_parents(const struct registry *registry, const char *device_id, unsigned above_max,
                         const char *const *parents, struct registry_error *ret_error)
{
    const struct device *edge;

    if (!parents || !parents[0])
        return 0;
    if (parents[1])
        return expected(ret_error, "one parent scope at most");
    edge = registry_edge_of_scope(registry, parents[0]);
    if (!edge)
        return expected(ret_error,
                        "the deviceScope of an existing edge device as the parent's scope");
    for (unsigned above = 1; edge; above++) {
        if (strcmp(edge->id, device_id) == 0)
            return expected(ret_error, "a parent that is not below the device itself");
        if (above > above_max)
            return expected(ret_error, "at most 5 edge devices above each other");
        edge =
            edge->parent_scopes ? registry_edge_of_scope(registry, edge->parent_scopes[0]) : NULL;
    }
    return 0;
}

int registry_check_device(const struct registry *registry, const struct device *current,
                          const struct identity_spec *spec, struct registry_error *ret_error)
{
    bool edge = spec->edge >= 0 ? spec->edge : current && current->edge;
    const char *place[2];

    if (!identity_id_valid(spec->device_id))
        return expected(ret_error, "a device id of 1 to 128 characters out of A-Za-z0-9 and - : . "
                                   "+ % _ # * ? ! ( ) , = @ ; $ '");
    if (current && current->edge && !edge)
        return expected(ret_error, "an edge device to stay one");
    if (current && current->edge && text_is_set(spec->scope) &&
        strcmp(spec->scope, current->scope) != 0)
        return expected(
            ret_error, "an edge device to keep its deviceScope; its parent stands in parentScopes");
    if (check_credentials(spec, ret_error) != 0)
        return REGISTRY_E_ARGUMENT;
    return check_parents(registry, spec->device_id, REGISTRY_NESTING_MAX - edge,
                         registry_wanted_parents(current, spec, edge, place), ret_error);
}

int registry_check_module(const struct identity_spec *spec, struct registry_error *ret_error)
{
    if (!identity_id_valid(spec->module_id))
        return expected(ret_error, "a module id of 1 to 128 characters out of A-Za-z0-9 and - : . "
                                   "+ % _ # * ? ! ( ) , = @ ; $ '");
    return check_credentials(spec, ret_error);
}
