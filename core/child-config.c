/*
 * plugins.d/NAME.yaml: the table of keys, and what is checked across keys and files. The text is
 * kept as it was read, and is what the plugin gets: both judge the same bytes, and an edit takes
 * effect when the operator says so, not in a crash.
 */
#include "child-config.h"

#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "span.h"

extern char **environ;

enum { NAME_LEN_MAX = 32, FILE_BYTES_MAX = 1 << 20 };

#define AT(member) offsetof(struct child_config, member)

static const struct config_item child_items[] = {
    { "role", CONFIG_STRING, AT(role), NULL, "1", "32", "its address on the bus", NULL },
    { "exec", CONFIG_STRING, AT(exec), NULL, "1", NULL,
      "the program, relative to plugin_dir or absolute", NULL },
    { "enabled", CONFIG_BOOL, AT(enabled), "true", NULL, NULL, "whether it is started", NULL },
    { "user", CONFIG_STRING, AT(user), "", NULL, "32",
      "whom it runs as, when brinkd is root; empty: as brinkd", NULL },
    { "ready_timeout_s", CONFIG_DURATION, AT(ready_timeout_usec), "10", "100ms", "1h",
      "from its start until it says that it is ready", NULL },
    { "heartbeat_s", CONFIG_DURATION, AT(heartbeat_usec), "1", "20ms", "60s",
      "how often it shows that it lives; missed 5 times: hung", NULL },
    { "drain_timeout_s", CONFIG_DURATION, AT(drain_timeout_usec), "10", "100ms", "1h",
      "what it is given to end in order", NULL },
    { "stop_stage", CONFIG_COUNT, AT(stop_stage), "0", NULL, "3",
      "when brinkd stops: 1 goes first, 3 last; 0: 1 with sockets, else 2", NULL },
    {}
};

static const struct config_item limit_items[] = {
    { "memory", CONFIG_SIZE, AT(memory_bytes), "0", NULL, NULL,
      "private writable memory (RLIMIT_DATA); 0: no limit", NULL },
    { "open_files", CONFIG_COUNT, AT(open_files), "0", NULL, "1048576",
      "descriptors (RLIMIT_NOFILE); 0: as brinkd", NULL },
    {}
};

void child_config_done(struct child_config *c)
{
    config_clear(child_items, c);
    listen_sockets_done(&c->sockets);
    free(c->name);
    free(c->path);
    free(c->text);
    *c = (struct child_config){};
}

/* Names become file names, addresses and words in LISTEN_FDNAMES. */
static bool name_is_valid(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

    return n > 0 && n <= NAME_LEN_MAX && name[n] == 0 && name[0] != '-';
}

static int user_check(struct config_document *d, struct child_config *c,
                      struct config_error *ret_error)
{
    const struct passwd *entry;

    c->uid = geteuid();
    c->gid = getegid();
    if (*c->user == 0)
        return 0;
    entry = getpwnam(c->user);
    if (!entry)
        return config_refuse(d, "", "user", "a user of this system", ret_error);
    if (geteuid() != 0 && entry->pw_uid != geteuid())
        return config_refuse(d, "", "user", "no other user than brinkd's, which is not root",
                             ret_error);
    c->uid = entry->pw_uid;
    c->gid = entry->pw_gid;
    return 0;
}

static int child_config_check(struct config_document *d, struct child_config *c,
                              const struct appliance *appliance, struct config_error *ret_error)
{
    if (!name_is_valid(c->role))
        return config_refuse(d, "", "role", "lower-case letters, digits and dashes", ret_error);
    path_make_absolute(&c->exec, appliance->plugin_dir);
    if (c->stop_stage == 0)
        c->stop_stage = c->sockets.count > 0 ? 1 : 2;
    return user_check(d, c, ret_error);
}

/* Two that run under one role would take each other's address, over and over. */
static int role_check(struct config_document *d, const struct child_config *c,
                      const struct child_configs *others, struct config_error *ret_error)
{
    for (size_t i = 0; others && i < others->count; i++) {
        const struct child_config *other = &others->entries[i];
        char expected[128];

        if (!c->enabled || !other->enabled || strcmp(other->role, c->role) != 0 ||
            strcmp(other->name, c->name) == 0)
            continue;
        snprintf(expected, sizeof(expected), "a role of its own, but %s.yaml has '%s' too",
                 other->name, c->role);
        return config_refuse(d, "", "role", expected, ret_error);
    }
    return 0;
}

static int child_config_take(struct config_document *d, const struct appliance *appliance,
                             const struct child_configs *others, struct child_config *c,
                             struct config_error *ret_error)
{
    int r = config_take(d, "", child_items, c, ret_error);

    if (r == 0)
        r = listen_sockets_take(d, appliance->run_dir, &c->sockets, ret_error);
    if (r == 0)
        r = config_take(d, "limits", limit_items, c, ret_error);
    if (r != 0)
        return r;
    config_take_away(d, "settings");
    r = config_finish(d, ret_error);
    if (r != 0)
        return r;
    r = child_config_check(d, c, appliance, ret_error);
    if (r != 0)
        return r;
    return role_check(d, c, others, ret_error);
}

/* Reading */

static int refuse_file(const char *path, const char *what, struct config_error *ret_error)
{
    snprintf(ret_error->text, sizeof(ret_error->text), "%s: %s", path, what);
    return CONFIG_E_INVALID;
}

int child_config_load(const char *path, const struct appliance *appliance,
                      const struct child_configs *others, struct child_config *ret,
                      struct config_error *ret_error)
{
    _cleanup_(buf_done) struct buf text = {};
    const char *file = basename(path);
    struct config_document *d = NULL;
    struct child_config c = {};
    int r;

    c.name = xstrndup(file, strlen(file) - strlen(".yaml"));
    c.path = xstrdup(path);
    if (!name_is_valid(c.name))
        r = refuse_file(path, "expected a name of at most 32 lower-case letters, digits and dashes",
                        ret_error);
    else
        r = file_read(path, FILE_BYTES_MAX, &text);
    if (r < 0)
        r = refuse_file(path, strerror(-r), ret_error);
    if (r == 0)
        r = config_document_parse(text.data, buf_len(&text), file, &d, ret_error);
    if (r == 0)
        r = child_config_take(d, appliance, others, &c, ret_error);
    config_document_free(d);
    if (r != 0) {
        child_config_done(&c);
        return r;
    }
    c.text_len = buf_len(&text);
    c.text = xmemdup(text.data, c.text_len);
    *ret = c;
    return 0;
}

void child_configs_done(struct child_configs *c)
{
    for (size_t i = 0; i < c->count; i++)
        child_config_done(&c->entries[i]);
    free(c->entries);
    *c = (struct child_configs){};
}

static int is_candidate(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);

    if (entry->d_name[0] == '.')
        return 0;
    if (n > 5 && strcmp(entry->d_name + n - 5, ".yaml") == 0)
        return 1;
    log_event(LOG_WARNING, 0, "file in plugins.d left out: its name does not end in .yaml",
              F_PATH(entry->d_name));
    return 0;
}

int child_configs_load(const char *dir, const struct appliance *appliance,
                       child_config_report_fn *report, struct child_configs *ret)
{
    _cleanup_(freep) char *folder = xasprintf("%s/plugins.d", dir);
    struct child_configs configs = {};
    struct config_error error;
    struct dirent **entries;
    int n, bad = 0;

    n = scandir(folder, &entries, is_candidate, alphasort);
    if (n < 0) {
        refuse_file(folder, strerror(errno), &error);
        report(&error);
        return CONFIG_E_INVALID;
    }
    for (int i = 0; i < n; i++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", folder, entries[i]->d_name);

        xgrow(configs.entries, configs.count, configs.capacity);
        if (child_config_load(path, appliance, &configs, &configs.entries[configs.count], &error) ==
            0) {
            configs.count++;
        } else {
            report(&error);
            bad++;
        }
        free(entries[i]);
    }
    free(entries);
    if (bad > 0) {
        child_configs_done(&configs);
        return CONFIG_E_INVALID;
    }
    *ret = configs;
    return 0;
}

/* The plugins' own settings */

static int check_settings(const struct child_config *c)
{
    char *argv[] = { c->exec, (char *)"--check", c->path, NULL };
    int r, status = 0;
    pid_t pid;

    r = posix_spawn(&pid, c->exec, NULL, NULL, argv, environ);
    if (r != 0) {
        fprintf(stderr, "%s.yaml: exec: expected a program that runs, found '%s': %s\n", c->name,
                c->exec, strerror(r));
        return CONFIG_E_INVALID;
    }
    if (waitpid(pid, &status, 0) < 0)
        return -errno;
    if (WIFSIGNALED(status)) /* else it has said why */
        fprintf(stderr, "%s.yaml: %s --check died by signal %d\n", c->name, c->exec,
                WTERMSIG(status));
    return status == 0 ? 0 : CONFIG_E_INVALID;
}

int child_configs_check_settings(const struct child_configs *c)
{
    int result = 0;

    for (size_t i = 0; i < c->count; i++)
        if (c->entries[i].enabled && check_settings(&c->entries[i]) != 0)
            result = CONFIG_E_INVALID;
    return result;
}
