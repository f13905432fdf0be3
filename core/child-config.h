/* plugins.d/NAME.yaml: how the supervisor runs a plugin. The plugin's own `settings` are left to
 * the plugin. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "appliance.h"
#include "config.h"
#include "listen-sockets.h"

struct child_config {
    char *name; /* of the file, without .yaml */
    char *path; /* of the file */
    char *text; /* of the file: handed to the plugin */
    size_t text_len;
    char *role;
    char *exec; /* absolute */
    bool enabled;
    char *user; /* "": the supervisor's own */
    uid_t uid;
    gid_t gid;
    struct listen_sockets sockets;
    uint64_t ready_timeout_usec, heartbeat_usec, drain_timeout_usec;
    uint64_t stop_stage;   /* 1 to STOP_STAGES */
    uint64_t memory_bytes; /* 0: no limit of its own */
    uint64_t open_files;   /* 0: the supervisor's */
};

enum { STOP_STAGES = 3 };

struct child_configs {
    struct child_config *entries; /* in the order of their names */
    size_t count, capacity;
};

typedef void child_config_report_fn(const struct config_error *error);

/* Reads @dir/plugins.d. Every fault is told to @report, so that an operator sees them all at once.
 * Returns 0 or CONFIG_E_INVALID. */
int child_configs_load(const char *dir, const struct appliance *appliance,
                       child_config_report_fn *report, struct child_configs *ret);
void child_configs_done(struct child_configs *c);

/* One file; @others (may be NULL) must not fill the same role. */
int child_config_load(const char *path, const struct appliance *appliance,
                      const struct child_configs *others, struct child_config *ret,
                      struct config_error *ret_error);
void child_config_done(struct child_config *c);

/* Lets each enabled plugin judge its own settings (`exec --check FILE`, its words go to stderr).
 * Blocks. */
int child_configs_check_settings(const struct child_configs *c);
