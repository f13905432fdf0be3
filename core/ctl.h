/*
 * The operator's command: what its parts share. A command is a row in the table of brinkctl.c. It
 * runs once and returns the exit status: whatever it finds out is a JSON document first, printed as
 * such or as a table.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "appliance.h"
#include "bus.h"
#include "mem.h"

enum { CTL_DONE = 0, CTL_FAILED = 1, CTL_USAGE = 2 }; /* exit status */

enum ctl_option {
    OPT_ADDRESS,
    OPT_AUTH,
    OPT_CONFIG,
    OPT_COUNT,
    OPT_DEVICE,
    OPT_DEVICE_ID,
    OPT_DIR,
    OPT_EDGE,
    OPT_FROM_NOW,
    OPT_HELP,
    OPT_HOSTNAME,
    OPT_HUB,
    OPT_HUB_ADDRESS,
    OPT_HUB_HOSTNAME,
    OPT_JSON,
    OPT_PARENT,
    OPT_THUMBPRINT,
    OPT_TIMEOUT,
    OPT_USER,
    OPT_VERSION,
    OPT_WATCH,
    _OPT_COUNT
};

struct ctl {
    const char *options[_OPT_COUNT]; /* argv's. NULL: not given; "": given, and takes no value */
    const char *config_dir;
    bool json;
    struct appliance appliance; /* after ctl_load() */
    sd_event *event;            /* after the first question on the bus */
    struct bus *bus;
};

/* @argv: what stands behind the command's own words. Returns CTL_*. */
typedef int ctl_fn(struct ctl *ctl, int argc, char **argv);

/* Says why on stderr; returns CTL_FAILED, or CTL_USAGE. */
int ctl_fail(const char *format, ...) _printf_(1, 2);
int ctl_usage(const char *format, ...) _printf_(1, 2);

/* Reads brink.yaml. 0, or CTL_FAILED with the reason said. */
int ctl_load(struct ctl *ctl);

/* The whole number from 1 to @max in an option's @text, @fallback when that is NULL. 0, or
 * CTL_USAGE with the reason said. */
int ctl_number(const char *option, const char *text, uint64_t max, uint64_t fallback,
               uint64_t *ret);

/* The frame of what shows a state: @once asks for the document, which goes out as JSON or by
 * @print; again with --watch. */
int ctl_show(struct ctl *ctl, int (*once)(struct ctl *ctl, json_t **ret),
             void (*print)(const json_t *document));

/* Commands */
ctl_fn ctl_clients, ctl_config_check, ctl_hub_device_add, ctl_hub_device_disable,
    ctl_hub_device_enable, ctl_hub_device_list, ctl_hub_device_remove, ctl_hub_device_show,
    ctl_hub_module_add, ctl_hub_monitor, ctl_hub_offline, ctl_hub_online, ctl_hub_stats, ctl_init,
    ctl_plugin_kill, ctl_plugin_restart, ctl_plugin_start, ctl_plugin_stop, ctl_queue_drop,
    ctl_queue_peek, ctl_queues, ctl_route_check, ctl_route_eval, ctl_routes, ctl_status;
