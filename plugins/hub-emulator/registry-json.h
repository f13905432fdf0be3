/* Devices and modules as the hub's REST interface writes them, and as the registry's file keeps them. */
#pragma once

#include <jansson.h>

#include "registry.h"

/* The caller owns what it gets. */
json_t *device_to_json(const struct device *device);
json_t *module_to_json(const struct module *module);
/* For the device scope: keys and scope, no states. */
json_t *device_to_scope_json(const struct device *device);
json_t *module_to_scope_json(const struct module *module);
/* With its modules, for the file; and back. -EBADMSG: something is missing or has a wrong form. */
json_t *device_to_file_json(const struct device *device);
int device_from_file_json(const json_t *json, struct device **ret);

/* What a JSON body asks for. Strings are borrowed from @json. REGISTRY_E_ARGUMENT when a member has a wrong type or value.
 * @ret->parent_scopes, when set, is an array the caller frees. The ids are "id"/"deviceId" and "moduleId", when there. */
int identity_spec_from_json(const json_t *json, struct identity_spec *ret,
                            struct registry_error *ret_error);
void identity_spec_done(struct identity_spec *spec);

/* "2026-01-02T03:04:05.123Z"; 0 is the hub's "never", 0001-01-01T00:00:00Z. */
enum { TIME_TEXT_BYTES = 32 };
void time_to_text(int64_t msec, char ret[static TIME_TEXT_BYTES]);
