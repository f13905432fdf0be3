/*
 * The common life of every plugin: options, log, signals, event loop, the supervisor's control socket (hello, readiness,
 * heartbeat, drain, log level, roster of peers), settings, inherited sockets, statistics.
 *
 * Run by brinkd, a plugin finds in its environment: BRINK_NAME, BRINK_ROLE, BRINK_GENERATION, BRINK_RUN_DIR,
 * BRINK_STATE_DIR (its own folder), BRINK_HOSTNAME, BRINK_LOG_LEVEL, BRINK_CONFIG_FD (its file of plugins.d) and
 * LISTEN_FDS/LISTEN_FDNAMES. Every program also answers --version, --check FILE and --reference (its settings).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "bus.h"
#include "config.h"
#include "log.h"
#include "mem.h"
#include "timer.h"

struct plugin;

/* @role: what it fills when the config does not say. */
int plugin_new(const char *role, int argc, char **argv, struct plugin **ret);
struct plugin *plugin_free(struct plugin *plugin);
DEFINE_FREEP(struct plugin, plugin_free)

/* Reads `settings:`. With --check or --reference the process ends in here, having printed what there is to say.
 * @check (may be NULL) is the check across keys: 0, or CONFIG_E_INVALID by config_refuse(). */
typedef int plugin_check_fn(struct config_document *d, const void *settings,
                            struct config_error *ret_error);
int plugin_load_config_checked(struct plugin *plugin, const struct config_item *items,
                               void *ret_settings, plugin_check_fn *check);
static inline int plugin_load_config(struct plugin *plugin, const struct config_item *items,
                                     void *ret_settings)
{
    return plugin_load_config_checked(plugin, items, ret_settings, NULL);
}
/* Looks at the files that the settings name, too: with --check, and only then. Before plugin_load_config(). */
void plugin_on_check(struct plugin *plugin, plugin_check_fn *fn);

/* From here peers may call. */
int plugin_listen(struct plugin *plugin, const struct bus_handler *handlers, void *userdata);

/* Says it is ready, loops, drains, ends. */
int plugin_run(struct plugin *plugin);

/* Runs when the supervisor or SIGTERM asks to stop. The plugin finishes what it began and calls plugin_drained();
 * without a handler it ends at once. At the deadline it ends anyway. */
typedef void plugin_drain_fn(uint64_t deadline_usec, void *userdata);
void plugin_on_drain(struct plugin *plugin, plugin_drain_fn *fn, void *userdata);
void plugin_drained(struct plugin *plugin);

/* A plugin that is not ready when plugin_run() begins holds readiness back, and says plugin_ready() later. */
void plugin_hold_ready(struct plugin *plugin);
void plugin_ready(struct plugin *plugin);

/* What it is given. Strings are borrowed. */
sd_event *plugin_event(struct plugin *plugin);
struct bus *plugin_bus(struct plugin *plugin);
const char *plugin_name(const struct plugin *plugin);
const char *plugin_role(const struct plugin *plugin);
const char *plugin_run_dir(const struct plugin *plugin);
const char *plugin_state_dir(const struct plugin *plugin);
const char *plugin_hostname(const struct plugin *plugin);
uint64_t plugin_generation(const struct plugin *plugin);

/* An inherited listen socket by its name, still the plugin's (do not close). -ENOENT: not in `sockets:`. Several with the
 * same name (say IPv4 and IPv6) are numbered by @index. */
int plugin_socket(struct plugin *plugin, const char *name, unsigned index);

/* PEER_* of the process at the other end of a local stream socket; 0: a stranger. */
uint64_t plugin_peer_of(struct plugin *plugin, int fd);

/* Event sources with exit-on-failure: sd-event silently disables a source whose handler fails. The caller owns *ret and
 * unrefs it (sd_event_source_disable_unref) first when its object goes. */
int plugin_add_io(struct plugin *plugin, int fd, uint32_t events, sd_event_io_handler_t fn,
                  void *userdata, sd_event_source **ret);
int plugin_add_timer(struct plugin *plugin, uint64_t usec_from_now, sd_event_time_handler_t fn,
                     void *userdata, sd_event_source **ret);
/* @mask: IN_* of inotify(7). -ENOENT and other errnos of inotify_add_watch(2). */
int plugin_add_inotify(struct plugin *plugin, const char *path, uint32_t mask,
                       sd_event_inotify_handler_t fn, void *userdata, sd_event_source **ret);
int plugin_add_post(struct plugin *plugin, sd_event_handler_t fn, void *userdata,
                    sd_event_source **ret);
int plugin_add_defer(struct plugin *plugin, sd_event_handler_t fn, void *userdata,
                     sd_event_source **ret);

/* A number that the supervisor shows in its status; @name is a literal. */
void plugin_stat(struct plugin *plugin, const char *name, uint64_t value);
void plugin_status(struct plugin *plugin, const char *format, ...) _printf_(2, 3);

/* The main() of every plugin. @run returns 0 or -errno. */
#define DEFINE_MAIN(run)                                                                           \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return plugin_main(run, argc, argv);                                                       \
    }
int plugin_main(int (*run)(int argc, char **argv), int argc, char **argv);
