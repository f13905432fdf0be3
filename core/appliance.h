/* brink.yaml: what concerns the appliance as a whole. Read by the supervisor and by the
 * operator's command. */
#pragma once

#include <stdbool.h>

#include "config.h"

struct appliance {
    char *run_dir; /* absolute, as are the others */
    char *state_dir;
    char *plugin_dir;
    char *hostname;
    int log_level_index; /* appliance_log_level() gives the syslog priority */
    bool fault_injection;
};

/* Reads @dir/brink.yaml. A relative path in it is relative to @dir; without `plugin_dir` the
 * plugins are looked for where they stand beside this program, installed or built. @ret_error is
 * set on every failure. Returns 0, CONFIG_E_INVALID, or -errno when the file cannot be read. */
int appliance_load(const char *dir, struct appliance *ret, struct config_error *ret_error);
void appliance_done(struct appliance *appliance);

/* A relative one is relative to @dir. */
void path_make_absolute(char **path, const char *dir);

int appliance_log_level(const struct appliance *appliance);
