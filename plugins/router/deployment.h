/*
 * Where the routes come from: the desired properties of `$edgeHub`, for now in a file. A set that is
 * good is in force at once, and the store keeps it. One that is refused changes nothing: the last
 * good one stays in force, after a restart as well. As long as there has been none, no routes are
 * known, and nothing may be accepted (routing.md §1.1).
 */
#pragma once

#include "plugin.h"
#include "route-config.h"

enum { DEPLOYMENT_FILE_BYTES_MAX = ROUTE_CONFIG_BYTES_MAX };

struct deployment;

/* @file: as the settings name it; "": none, and the default route is in force. */
int deployment_new(struct plugin *plugin, const char *file, struct deployment **ret);
struct deployment *deployment_free(struct deployment *deployment);
DEFINE_FREEP(struct deployment, deployment_free)

/* Those in force; NULL: none are known yet. Borrowed until the next turn of the loop. */
struct routes *deployment_routes(const struct deployment *deployment);
/* Why none are known. */
const char *deployment_reason(const struct deployment *deployment);

/* What an operator is told. All in @arena, or the deployment's. */
void deployment_fill(const struct deployment *deployment, struct arena *arena, Bus__Routes *ret);

/* With --check: the file is there, and its routes are good. 0, or ROUTE_E_INVALID with what is
 * wrong, to be freed. */
int deployment_check_file(const char *file, char **ret_problem);
