#include "hub.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"

enum { FILE_BYTES_MAX = 1 << 20 };

/* ---- files that settings name ---- */

static int read_all(int fd, struct buf *ret)
{
    for (;;) {
        ssize_t n = read(fd, buf_reserve(ret, 4096), 4096);

        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        buf_commit(ret, (size_t)n);
        if (buf_len(ret) > FILE_BYTES_MAX)
            return -EFBIG;
    }
}

/* @secret: nobody but the owner may be able to read it. */
static int read_file(const char *path, bool secret, char **ret)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_(buf_done) struct buf text = {};
    struct stat st;
    int r;

    r = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;
    if (r == 0 && secret && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        log_event(LOG_ERR, 0, "a file with a key that others may open; expected mode 0600",
                  F_PATH(path));
        return -EACCES;
    }
    if (r == 0)
        r = read_all(fd, &text);
    if (r < 0) {
        log_event(LOG_ERR, r, "cannot read a file that the settings name", F_PATH(path));
        return r;
    }
    *ret = span_xdup(buf_span(&text));
    return 0;
}

/* A base64 key in a file of its own. */
static int read_key(const char *path, char **ret)
{
    _cleanup_(freep) char *text = NULL;
    struct sas_key key;
    int r = read_file(path, true, &text);

    if (r < 0)
        return r;
    text[strcspn(text, " \t\r\n")] = '\0';
    if (!sas_key_parse(span_str(text), &key)) {
        log_event(LOG_ERR, 0, "expected a base64 key in the file", F_PATH(path));
        return -EINVAL;
    }
    sas_key_wipe(&key);
    *ret = TAKE_PTR(text);
    return 0;
}

/* ---- start ---- */

static int start_registry(struct hub *hub)
{
    _cleanup_(freep) char *path = xasprintf("%s/registry.json", plugin_state_dir(hub->plugin));

    return registry_open(path, &hub->registry);
}

static int start_authority(struct hub *hub)
{
    _cleanup_(freep) char *key = NULL;
    int r = read_key(hub->config->policy_key_file, &key);

    if (r < 0)
        return r;
    hub->authority =
        (struct authority){ .registry = hub->registry, .hostname = hub->config->hostname };
    sas_key_parse(span_str(key), &hub->authority.policy_key);
    return 0;
}

/* The edge device that an installation begins with. */
static int register_edge_device(struct hub *hub)
{
    struct identity_spec spec = IDENTITY_SPEC_INIT;
    _cleanup_(freep) char *key = NULL;
    struct registry_error error;
    int r;

    if (hub->config->edge_device_id[0] == '\0' ||
        registry_device(hub->registry, hub->config->edge_device_id))
        return 0;
    r = read_key(hub->config->edge_device_key_file, &key);
    if (r < 0)
        return r;
    spec.device_id = hub->config->edge_device_id;
    spec.edge = 1;
    spec.primary_key = key;
    r = registry_device_create(hub->registry, &spec, &error);
    if (r > 0) {
        log_event(LOG_ERR, 0, "edge_device_id cannot be registered", F_DEVICE(spec.device_id),
                  F_REASON(error.expected));
        return -EINVAL;
    }
    return r;
}

static void hub_tell_status(struct hub *hub)
{
    plugin_status(hub->plugin, "%s, %" PRIu64 " messages", hub->online ? "online" : "offline",
                  telemetry_counters(hub->telemetry)->messages);
}

static void hub_on_telemetry(void *userdata)
{
    hub_tell_status(userdata);
    hub_watches_wake(userdata);
}

static void hub_on_registry_change(const char *device_id, void *userdata)
{
    struct hub *hub = userdata;

    amqp_server_recheck(hub->amqp);
}

static int start_servers(struct hub *hub)
{
    _cleanup_(freep) char *chain = NULL;
    _cleanup_(freep) char *key = NULL;
    int r;

    r = read_file(hub->config->server_cert, false, &chain);
    if (r < 0)
        return r;
    r = read_file(hub->config->server_key, true, &key);
    if (r < 0)
        return r;
    r = rest_http_new(hub->plugin, chain, key, hub->registry, &hub->authority, &hub->rest);
    if (r < 0)
        return r;
    return amqp_server_new(hub->plugin,
                           &(struct amqp_server_config){ .chain_pem = chain,
                                                         .key_pem = key,
                                                         .authority = &hub->authority,
                                                         .registry = hub->registry,
                                                         .telemetry = hub->telemetry,
                                                         .on_telemetry = hub_on_telemetry,
                                                         .userdata = hub },
                           &hub->amqp);
}

static int hub_start(struct hub *hub)
{
    int r;

    r = start_registry(hub);
    if (r < 0)
        return r;
    r = start_authority(hub);
    if (r < 0)
        return r;
    r = register_edge_device(hub);
    if (r < 0)
        return r;
    r = hub_watches_start(hub);
    if (r < 0)
        return r;
    r = start_servers(hub);
    if (r < 0)
        return r;
    registry_on_change(hub->registry, hub_on_registry_change, hub);
    hub_tell_status(hub);
    return 0;
}

int hub_new(struct plugin *plugin, const struct hub_config *config, struct hub **ret)
{
    _cleanup_(hub_freep) struct hub *hub = xnew(struct hub);
    int r;

    hub->plugin = plugin;
    hub->config = config;
    hub->online = true;
    hub->arena = arena_new();
    hub->telemetry = telemetry_new(config->keep_messages, config->keep_bytes);
    r = hub_start(hub);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(hub);
    return 0;
}

struct hub *hub_free(struct hub *hub)
{
    if (!hub)
        return NULL;
    hub_watches_free(hub);
    amqp_server_free(hub->amqp);
    rest_http_free(hub->rest);
    telemetry_free(hub->telemetry);
    registry_free(hub->registry);
    sas_key_wipe(&hub->authority.policy_key);
    arena_free(hub->arena);
    free(hub);
    return NULL;
}

void hub_set_online(struct hub *hub, bool online)
{
    if (hub->online == online)
        return;
    hub->online = online;
    hub_tell_status(hub);
    log_event(LOG_INFO, 0, online ? "online" : "offline");
    amqp_server_set_offline(hub->amqp, !online);
    rest_http_set_offline(hub->rest, !online);
}
