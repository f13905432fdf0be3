/* brink.yaml: the table of its keys, and what paths mean in it. */
#include "appliance.h"

#include <libgen.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "span.h"

/* RUN_DIR/bus/container-manager.pub.ipc and the like must fit into sun_path (108 bytes). */
enum { RUN_DIR_BYTES_MAX = 70 };

#define AT(member) offsetof(struct appliance, member)

static const char *const log_level_names[] = { "error", "warning", "info", "debug", NULL };

static const struct config_item appliance_items[] = {
    { "run_dir", CONFIG_STRING, AT(run_dir), "/run/brink", NULL, NULL,
      "sockets; gone after a reboot", NULL },
    { "state_dir", CONFIG_STRING, AT(state_dir), "/var/lib/brink", NULL, NULL,
      "everything durable, one folder a plugin", NULL },
    { "plugin_dir", CONFIG_STRING, AT(plugin_dir), "", NULL, NULL,
      "where `exec` of a plugin is looked for; empty: beside this program", NULL },
    { "hostname", CONFIG_STRING, AT(hostname), NULL, NULL, "253",
      "the name clients connect to; in the server certificate", NULL },
    { "log_level", CONFIG_ENUM, AT(log_level_index), "info", NULL, NULL,
      "of the supervisor and of every plugin", log_level_names },
    { "fault_injection", CONFIG_BOOL, AT(fault_injection), "false", NULL, NULL,
      "whether failures may be rehearsed", NULL },
    {}
};

/* PREFIX/sbin/brinkd finds PREFIX/libexec/brink; build/brinkd finds build/. */
static char *plugin_dir_beside_program(void)
{
    _cleanup_(freep) char *program = xalloc0(PATH_MAX);
    const char *dir, *last;

    if (readlink("/proc/self/exe", program, PATH_MAX - 1) <= 0)
        return xstrdup("/usr/libexec/brink");
    dir = dirname(program);
    last = strrchr(dir, '/');
    if (strcmp(last, "/sbin") == 0 || strcmp(last, "/bin") == 0)
        return xasprintf("%.*s/libexec/brink", (int)(last - dir), dir);
    return xstrdup(dir);
}

void path_make_absolute(char **path, const char *dir)
{
    char *absolute;

    if (**path == '/')
        return;
    absolute = xasprintf("%s/%s", dir, *path);
    free(*path);
    *path = absolute;
}

static int appliance_check(struct config_document *d, const struct appliance *a,
                           struct config_error *ret_error)
{
    if (strlen(a->run_dir) > RUN_DIR_BYTES_MAX)
        return config_refuse(d, "", "run_dir", "a path of at most 70 bytes", ret_error);
    if (*a->hostname == 0)
        return config_refuse(d, "", "hostname", "a host name", ret_error);
    return 0;
}

static int appliance_take(struct config_document *d, const char *dir, struct appliance *a,
                          struct config_error *ret_error)
{
    int r = config_take(d, "", appliance_items, a, ret_error);

    if (r != 0)
        return r;
    r = config_finish(d, ret_error);
    if (r != 0)
        return r;
    if (*a->plugin_dir == 0) {
        free(a->plugin_dir);
        a->plugin_dir = plugin_dir_beside_program();
    }
    path_make_absolute(&a->run_dir, dir);
    path_make_absolute(&a->state_dir, dir);
    path_make_absolute(&a->plugin_dir, dir);
    return appliance_check(d, a, ret_error);
}

int appliance_load(const char *dir, struct appliance *ret, struct config_error *ret_error)
{
    _cleanup_(freep) char *absolute_dir = realpath(dir, NULL);
    _cleanup_(freep) char *path = xasprintf("%s/brink.yaml", dir);
    struct config_document *d = NULL;
    struct appliance a = {};
    int r;

    r = config_document_read(path, &d, ret_error);
    if (r < 0)
        snprintf(ret_error->text, sizeof(ret_error->text), "%s: cannot be read: %s", path,
                 strerror(-r));
    if (r != 0)
        return r;
    r = appliance_take(d, absolute_dir ?: dir, &a, ret_error);
    if (r == 0)
        *ret = a;
    else
        appliance_done(&a);
    config_document_free(d);
    return r;
}

void appliance_done(struct appliance *a)
{
    config_clear(appliance_items, a);
}

int appliance_log_level(const struct appliance *a)
{
    return log_level_from_name(log_level_names[a->log_level_index]);
}
