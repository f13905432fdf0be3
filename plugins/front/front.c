#include "front.h"

#include <errno.h>
#include <malloc.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { ACCEPT_TURN_MAX = 16, DESCRIPTORS_SPARE = 64 };

static const uint64_t LISTENER_PATIENCE_USEC = 5 * 1000000;
static const uint64_t LINGER_USEC = 3 * 1000000;
static const uint64_t STARVED_RETRY_USEC = 1000000;
static const uint64_t TRIM_USEC = 10 * 1000000;
static const uint64_t LOG_INTERVAL_USEC = 10 * 1000000;

/* ---- accepting ---- */

static void front_update_accepting(struct front *front)
{
    bool want = front->context && !front->draining && !front->starved &&
                front->host.count < front->connections_max;

    if (want == front->accepting)
        return;
    front->accepting = want;
    for (size_t i = 0; i < front->entrance_count; i++)
        for (unsigned j = 0; j < front->entrances[i].source_count; j++)
            (void)sd_event_source_set_enabled(front->entrances[i].sources[j],
                                              want ? SD_EVENT_ON : SD_EVENT_OFF);
}

/* What the handshakes of many clients used is scattered over the heap: it goes back to the system a
 * little after. */
static int front_on_trim(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct front *front = userdata;

    front->trim_timer = sd_event_source_disable_unref(front->trim_timer);
    malloc_trim(0);
    return 0;
}

static void front_count(struct front *front)
{
    plugin_stat(front->plugin, "clients", front->host.count);
    plugin_stat(front->plugin, "accepted", front->accepted);
    plugin_stat(front->plugin, "refused", front->refused);
    if (!front->trim_timer)
        (void)plugin_add_timer(front->plugin, TRIM_USEC, front_on_trim, front, &front->trim_timer);
}

static int front_on_starved_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct front *front = userdata;

    front->starved = false;
    front_update_accepting(front);
    return 0;
}

static bool front_log_passes(struct front *front, const char *reason, unsigned *ret_suppressed)
{
    unsigned hash = 5381;

    for (const char *c = reason; *c; c++)
        hash = hash * 33 + (unsigned char)*c;
    return log_limit_pass(&front->limits[hash % FRONT_LIMITS], LOG_INTERVAL_USEC, ret_suppressed);
}

/* Out of descriptors or memory: who is there is served on, the others wait. */
static int front_starve(struct front *front, int error)
{
    unsigned suppressed;

    if (front_log_passes(front, "starved", &suppressed))
        log_event(LOG_WARNING, error, "cannot accept clients now", F_COUNT(suppressed));
    front->starved = true;
    front_update_accepting(front);
    return timer_rearm(front->starved_timer, STARVED_RETRY_USEC);
}

static int front_accept(struct front *front, struct entrance *entrance, int fd,
                        const union relay_address *peer)
{
    int r = relay_new_take(&front->host, front->context, fd, peer, entrance->name,
                           &entrance->target, NULL);

    if (r < 0)
        return r;
    front->accepted++;
    front_count(front);
    return 0;
}

static int front_on_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct entrance *entrance = userdata;
    struct front *front = entrance->front;

    for (unsigned n = 0; n < ACCEPT_TURN_MAX && front->accepting; n++) {
        union relay_address peer = {};
        socklen_t len = sizeof(peer);
        int client = accept4(fd, &peer.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        int r = client < 0 ? -errno : front_accept(front, entrance, client, &peer);

        if (r == -EAGAIN)
            return 0;
        if (r == -EMFILE || r == -ENFILE || r == -ENOBUFS || r == -ENOMEM)
            return front_starve(front, r);
        if (r == -EBADF || r == -EINVAL || r == -ENOTSOCK || r == -EOPNOTSUPP)
            return r;
        front_update_accepting(front); /* other errors are of that one client, which is gone */
    }
    return 0;
}

static void front_on_relay_end(struct relay *relay, enum relay_end end, const char *reason,
                               void *userdata)
{
    static const struct {
        int level;
        const char *what;
    } ends[_RELAY_END_COUNT] = {
        [RELAY_END_HANDSHAKE] = { LOG_WARNING, "handshake refused" },
        [RELAY_END_NO_LISTENER] = { LOG_WARNING, "client closed, its listener is away" },
        [RELAY_END_CLIENT] = { LOG_DEBUG, "client is gone" },
        [RELAY_END_LISTENER] = { LOG_DEBUG, "client closed by its listener" },
    };
    struct front *front = userdata;
    char address[RELAY_ADDRESS_TEXT];
    unsigned suppressed = 0;

    front->refused += end == RELAY_END_HANDSHAKE;
    front_count(front);
    front->starved = false;
    front_update_accepting(front);
    if (ends[end].level != LOG_DEBUG && !front_log_passes(front, reason, &suppressed))
        return;
    log_event(ends[end].level, 0, ends[end].what, F_STR("socket", relay_socket_name(relay)),
              F_PEER(relay_address_text(relay_peer(relay), address)), F_REASON(reason),
              F_COUNT(suppressed));
}

/* ---- life ---- */

int front_use_certificate(struct front *front, const char *chain_pem, const char *key_pem)
{
    SSL_CTX *context = NULL;
    int r = tls_server_context(chain_pem, key_pem, front->config->ask_client_certificate, &context);

    if (r < 0)
        return r;
    SSL_CTX_free(front->context); /* connections of before hold it on */
    front->context = context;
    front_update_accepting(front);
    return 0;
}

/* Clients see an orderly end and connect again, to whoever comes next. */
static void front_on_drain(uint64_t deadline_usec, void *userdata)
{
    struct front *front = userdata;

    front->draining = true;
    front_update_accepting(front);
    while (front->host.relays) {
        relay_say_goodbye(front->host.relays);
        relay_free(front->host.relays);
    }
    plugin_drained(front->plugin);
}

static int entrance_listen(struct entrance *entrance)
{
    struct plugin *plugin = entrance->front->plugin;

    for (unsigned i = 0; i < FRONT_SOCKETS_MAX; i++) {
        int fd = plugin_socket(plugin, entrance->name, i), r;

        if (fd == -ENOENT && i > 0)
            return 0;
        if (fd < 0) {
            log_event(LOG_ERR, 0, "forward names a socket that is not in sockets",
                      F_STR("socket", entrance->name));
            return fd;
        }
        r = plugin_add_io(plugin, fd, EPOLLIN, front_on_accept, entrance, &entrance->sources[i]);
        if (r < 0)
            return r;
        entrance->source_count++;
        r = sd_event_source_set_enabled(entrance->sources[i], SD_EVENT_OFF);
        if (r < 0)
            return r;
    }
    return 0;
}

static int entrance_open(struct entrance *entrance, struct front *front, const char *forward)
{
    _cleanup_(freep) char *path_text = NULL;
    struct span name, path;
    int r;

    if (!front_forward_parse(forward, &name, &path))
        return -EINVAL; /* front_config_check() refuses it */
    entrance->front = front;
    entrance->name = span_xdup(name);
    path_text = span_xdup(path);
    r = target_init(&entrance->target, plugin_event(front->plugin), plugin_run_dir(front->plugin),
                    path_text, LISTENER_PATIENCE_USEC);
    if (r < 0) {
        log_event(LOG_ERR, r, "no socket can have that path", F_PATH(path_text));
        return r;
    }
    return entrance_listen(entrance);
}

static void entrance_close(struct entrance *entrance)
{
    for (unsigned i = 0; i < entrance->source_count; i++)
        sd_event_source_disable_unref(entrance->sources[i]);
    target_done(&entrance->target);
    free(entrance->name);
}

/* A client takes two descriptors. */
static uint64_t connections_possible(uint64_t wanted)
{
    struct rlimit limit;
    uint64_t possible;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return wanted;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    possible =
        limit.rlim_max > DESCRIPTORS_SPARE + 2 ? (limit.rlim_max - DESCRIPTORS_SPARE) / 2 : 1;
    if (possible >= wanted)
        return wanted;
    log_event(LOG_WARNING, 0, "the limit of open files allows fewer clients than max_connections",
              F_COUNT(possible), F_NUM("max_connections", wanted));
    return possible;
}

int front_new(struct plugin *plugin, const struct front_config *config, struct front **ret)
{
    _cleanup_(front_freep) struct front *front = xnew(struct front);
    size_t count = 0;
    int r;

    front->plugin = plugin;
    front->config = config;
    front->host.event = plugin_event(plugin);
    front->host.handshake_usec = config->handshake_timeout_usec;
    front->host.linger_usec = LINGER_USEC;
    front->host.on_end = front_on_relay_end;
    front->host.userdata = front;
    front->connections_max = connections_possible(config->max_connections);

    r = plugin_add_timer(plugin, STARVED_RETRY_USEC, front_on_starved_timer, front,
                         &front->starved_timer);
    if (r >= 0)
        r = timer_stop(front->starved_timer);
    if (r < 0)
        return r;
    while (config->forward[count])
        count++;
    front->entrances = xnew_n(struct entrance, count);
    for (size_t i = 0; i < count; i++) {
        front->entrance_count++;
        r = entrance_open(&front->entrances[i], front, config->forward[i]);
        if (r < 0)
            return r;
    }
    plugin_on_drain(plugin, front_on_drain, front);
    *ret = TAKE_PTR(front);
    return 0;
}

struct front *front_free(struct front *front)
{
    if (!front)
        return NULL;
    bus_request_cancel(front->asking);
    sd_event_source_disable_unref(front->certificate_timer);
    sd_event_source_disable_unref(front->starved_timer);
    sd_event_source_disable_unref(front->trim_timer);
    while (front->host.relays)
        relay_free(front->host.relays);
    for (size_t i = 0; i < front->entrance_count; i++)
        entrance_close(&front->entrances[i]);
    free(front->entrances);
    SSL_CTX_free(front->context);
    free(front);
    return NULL;
}
