#include "connection.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "backoff.h"
#include "resolve.h"

enum { IDLE_TIMEOUT_MS = 60000 };
#define HANDSHAKE_USEC (15 * UINT64_C(1000000)) /* TCP and TLS, for each address */
#define OPEN_USEC      (60 * UINT64_C(1000000)) /* a whole try */

struct connection {
    struct plugin *plugin;
    const struct connection_config *config;
    const struct connection_ops *ops;
    void *userdata;
    enum connection_state state;
    char *host, *peer;
    char *container;
    struct resolve *resolve;
    struct addrinfo *addresses, *next_address;
    struct amqp_driver *driver;
    sd_event_source *timer; /* of the state */
    struct backoff backoff;
    const char *close_condition;
    char reason[256]; /* why the try that is over failed */
};

typedef void connection_fn(struct connection *c);

static void connection_feed(struct connection *c, enum connection_event event);

static const char *const state_names[_CONNECTION_STATE_COUNT] = {
    [CONNECTION_STOPPED] = "stopped",     [CONNECTION_WAITING] = "waiting",
    [CONNECTION_RESOLVING] = "resolving", [CONNECTION_OPENING] = "opening",
    [CONNECTION_OPEN] = "open",           [CONNECTION_CLOSING] = "closing",
    [CONNECTION_STOPPING] = "stopping",
};

static void connection_enter(struct connection *c, enum connection_state state)
{
    log_event(LOG_DEBUG, 0, "connection", F_STATE(state_names[state]), F_PEER(c->peer));
    c->state = state;
}

static void connection_reason(struct connection *c, const char *reason)
{
    snprintf(c->reason, sizeof(c->reason), "%s", reason);
}

/* ---- One try ---- */

static int connect_to(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    address->ai_protocol);
    int r;

    if (fd < 0)
        return -errno;
    if (connect(fd, address->ai_addr, address->ai_addrlen) == 0 || errno == EINPROGRESS)
        return fd;
    r = -errno;
    close_fd(fd);
    return r;
}

static void driver_on_event(struct amqp_driver *driver, pn_event_t *event, void *userdata)
{
    struct connection *c = userdata;

    if (pn_event_type(event) == PN_CONNECTION_REMOTE_OPEN)
        connection_feed(c, CONNECTION_OPENED);
    if (c->state == CONNECTION_OPEN)
        c->ops->on_event(event, c->userdata);
}

static void driver_on_batch_end(struct amqp_driver *driver, void *userdata)
{
    struct connection *c = userdata;

    if (c->state == CONNECTION_OPEN)
        c->ops->on_batch_end(c->userdata);
}

static void driver_on_closed(struct amqp_driver *driver, const char *reason, void *userdata)
{
    struct connection *c = userdata;

    if (c->state != CONNECTION_CLOSING) /* there our own reason says more */
        connection_reason(c, reason);
    connection_feed(c, CONNECTION_LOST);
}

static const struct amqp_driver_ops driver_ops = { driver_on_event, driver_on_batch_end,
                                                   driver_on_closed };

static void stream_on_anything(struct tls_stream *stream, void *userdata) {}

static void stream_on_closed(struct tls_stream *stream, int error, const char *reason,
                             void *userdata)
{
}

/* Until the driver has put its own in their place, which is before the loop runs. */
static const struct tls_stream_ops stream_ops = { stream_on_anything, stream_on_anything,
                                                  stream_on_anything, stream_on_closed };

static int connection_new_stream(struct connection *c, int fd, struct tls_stream **ret)
{
    const char *ca_file = *c->config->ca_file ? c->config->ca_file : NULL;
    SSL_CTX *context;
    int r;

    /* Read for each try: the file may have been replaced, and a connection that stands needs it no more. */
    r = tls_client_context(ca_file, &context);
    if (r < 0) {
        close_fd(fd);
        return r;
    }
    r = tls_stream_new_take(plugin_event(c->plugin), context, fd, c->host, HANDSHAKE_USEC,
                            &stream_ops, NULL, ret);
    SSL_CTX_free(context);
    return r;
}

static int connection_new_driver(struct connection *c, int fd)
{
    struct tls_stream *stream;
    pn_connection_t *pn;
    int r;

    r = connection_new_stream(c, fd, &stream);
    if (r < 0)
        return r;
    r = amqp_driver_new_take(plugin_event(c->plugin), stream, false, &driver_ops, c, &c->driver);
    if (r < 0)
        return r;
    pn = amqp_driver_connection(c->driver);
    /* Proton advertises the half of what it is told, and keeps to the whole. */
    pn_transport_set_idle_timeout(amqp_driver_transport(c->driver), 2 * IDLE_TIMEOUT_MS);
    pn_connection_set_container(pn, c->container);
    pn_connection_set_hostname(pn, c->host);
    pn_connection_open(pn);
    return 0;
}

/* ---- What the table does ---- */

static void connection_ignore(struct connection *c) {}

/* Drops whatever a try has. */
static void connection_drop(struct connection *c)
{
    c->resolve = resolve_free(c->resolve);
    if (c->addresses)
        freeaddrinfo(c->addresses);
    c->addresses = c->next_address = NULL;
    c->driver = amqp_driver_free(c->driver);
}

static void connection_wait_now(struct connection *c)
{
    connection_enter(c, CONNECTION_WAITING);
    timer_rearm(c->timer, 0);
}

static void connection_wait(struct connection *c)
{
    uint32_t random = 0;

    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
        random = (uint32_t)now_usec();
    connection_enter(c, CONNECTION_WAITING);
    timer_rearm(c->timer, backoff_next(&c->backoff, c->config->reconnect_min_usec,
                                       c->config->reconnect_max_usec, random));
}

/* The owner forgets what was on the connection while that still exists. */
static void connection_lose(struct connection *c)
{
    connection_wait(c);
    c->ops->on_lost(c->reason, c->userdata);
    connection_drop(c);
}

static void connection_time_out(struct connection *c)
{
    connection_reason(c, c->state == CONNECTION_RESOLVING
                             ? "the name was not resolved in time"
                             : "the hub did not open the connection in time");
    connection_lose(c);
}

static void connection_try_address(struct connection *c)
{
    while (c->next_address) {
        int fd = connect_to(c->next_address);
        int r;

        c->next_address = c->next_address->ai_next;
        r = fd < 0 ? fd : connection_new_driver(c, fd);
        if (r >= 0) {
            connection_enter(c, CONNECTION_OPENING);
            return;
        }
        connection_reason(c, strerror(-r));
    }
    connection_lose(c);
}

static void connection_try_next_address(struct connection *c)
{
    c->driver = amqp_driver_free(c->driver);
    connection_try_address(c);
}

static void connection_on_resolved(struct addrinfo *addresses, const char *reason, void *userdata)
{
    struct connection *c = userdata;

    c->resolve = resolve_free(c->resolve);
    c->addresses = c->next_address = addresses;
    if (!addresses)
        snprintf(c->reason, sizeof(c->reason), "%s: %s", c->host, reason);
    connection_feed(c, addresses ? CONNECTION_RESOLVED : CONNECTION_UNRESOLVED);
}

static void connection_resolve(struct connection *c)
{
    int r = resolve_new(plugin_event(c->plugin), c->host, c->config->port, connection_on_resolved,
                        c, &c->resolve);

    if (r < 0) {
        connection_reason(c, strerror(-r));
        connection_lose(c);
        return;
    }
    connection_enter(c, CONNECTION_RESOLVING);
    timer_rearm(c->timer, OPEN_USEC);
}

static void connection_opened(struct connection *c)
{
    timer_stop(c->timer);
    connection_enter(c, CONNECTION_OPEN);
    c->ops->on_open(c->driver, c->userdata);
}

static void connection_close(struct connection *c)
{
    connection_enter(c, CONNECTION_CLOSING);
    amqp_driver_close(c->driver, c->close_condition, c->reason);
}

static void connection_stop_open(struct connection *c)
{
    connection_enter(c, CONNECTION_STOPPING);
    amqp_driver_close(c->driver, NULL, NULL);
}

static void connection_stop_closing(struct connection *c)
{
    connection_enter(c, CONNECTION_STOPPING);
}

/* There is nothing to close; the owner hears of it from the loop all the same. */
static void connection_stop_soon(struct connection *c)
{
    connection_drop(c);
    connection_enter(c, CONNECTION_STOPPING);
    timer_rearm(c->timer, 0);
}

static void connection_stopped(struct connection *c)
{
    timer_stop(c->timer);
    connection_enter(c, CONNECTION_STOPPED);
    if (c->driver)
        c->ops->on_lost(c->reason, c->userdata);
    connection_drop(c);
    c->ops->on_stopped(c->userdata);
}

/* Wanted again before it was stopped. */
static void connection_restart(struct connection *c)
{
    if (c->driver)
        connection_enter(c, CONNECTION_CLOSING);
    else
        connection_wait_now(c);
}

static connection_fn *const connection_actions[_CONNECTION_STATE_COUNT][_CONNECTION_EVENT_COUNT] = {
    [CONNECTION_STOPPED] = {
        [CONNECTION_WANTED]     = connection_wait_now,
        [CONNECTION_UNWANTED]   = connection_stop_soon,
        [CONNECTION_RESOLVED]   = connection_ignore,
        [CONNECTION_UNRESOLVED] = connection_ignore,
        [CONNECTION_OPENED]     = connection_ignore,
        [CONNECTION_FAILED]     = connection_ignore,
        [CONNECTION_LOST]       = connection_ignore,
        [CONNECTION_TIMEOUT]    = connection_ignore,
    },
    [CONNECTION_WAITING] = {
        [CONNECTION_WANTED]     = connection_ignore,
        [CONNECTION_UNWANTED]   = connection_stop_soon,
        [CONNECTION_RESOLVED]   = connection_ignore,
        [CONNECTION_UNRESOLVED] = connection_ignore,
        [CONNECTION_OPENED]     = connection_ignore,
        [CONNECTION_FAILED]     = connection_ignore,
        [CONNECTION_LOST]       = connection_ignore,
        [CONNECTION_TIMEOUT]    = connection_resolve,
    },
    [CONNECTION_RESOLVING] = {
        [CONNECTION_WANTED]     = connection_ignore,
        [CONNECTION_UNWANTED]   = connection_stop_soon,
        [CONNECTION_RESOLVED]   = connection_try_address,
        [CONNECTION_UNRESOLVED] = connection_lose,
        [CONNECTION_OPENED]     = connection_ignore,
        [CONNECTION_FAILED]     = connection_ignore,
        [CONNECTION_LOST]       = connection_ignore,
        [CONNECTION_TIMEOUT]    = connection_time_out,
    },
    [CONNECTION_OPENING] = {
        [CONNECTION_WANTED]     = connection_ignore,
        [CONNECTION_UNWANTED]   = connection_stop_soon,
        [CONNECTION_RESOLVED]   = connection_ignore,
        [CONNECTION_UNRESOLVED] = connection_ignore,
        [CONNECTION_OPENED]     = connection_opened,
        [CONNECTION_FAILED]     = connection_ignore,
        [CONNECTION_LOST]       = connection_try_next_address,
        [CONNECTION_TIMEOUT]    = connection_time_out,
    },
    [CONNECTION_OPEN] = {
        [CONNECTION_WANTED]     = connection_ignore,
        [CONNECTION_UNWANTED]   = connection_stop_open,
        [CONNECTION_RESOLVED]   = connection_ignore,
        [CONNECTION_UNRESOLVED] = connection_ignore,
        [CONNECTION_OPENED]     = connection_ignore,
        [CONNECTION_FAILED]     = connection_close,
        [CONNECTION_LOST]       = connection_lose,
        [CONNECTION_TIMEOUT]    = connection_ignore,
    },
    [CONNECTION_CLOSING] = {    /* the driver says when it is over: it does not wait for ever */
        [CONNECTION_WANTED]     = connection_ignore,
        [CONNECTION_UNWANTED]   = connection_stop_closing,
        [CONNECTION_RESOLVED]   = connection_ignore,
        [CONNECTION_UNRESOLVED] = connection_ignore,
        [CONNECTION_OPENED]     = connection_ignore,
        [CONNECTION_FAILED]     = connection_ignore,
        [CONNECTION_LOST]       = connection_lose,
        [CONNECTION_TIMEOUT]    = connection_ignore,
    },
    [CONNECTION_STOPPING] = {
        [CONNECTION_WANTED]     = connection_restart,
        [CONNECTION_UNWANTED]   = connection_ignore,
        [CONNECTION_RESOLVED]   = connection_ignore,
        [CONNECTION_UNRESOLVED] = connection_ignore,
        [CONNECTION_OPENED]     = connection_ignore,
        [CONNECTION_FAILED]     = connection_ignore,
        [CONNECTION_LOST]       = connection_stopped,
        [CONNECTION_TIMEOUT]    = connection_stopped,
    },
};

static void connection_feed(struct connection *c, enum connection_event event)
{
    connection_actions[c->state][event](c);
}

bool connection_table_has(enum connection_state state, enum connection_event event)
{
    return connection_actions[state][event] != NULL;
}

static int connection_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    connection_feed(userdata, CONNECTION_TIMEOUT);
    return 0;
}

/* ---- For the owner ---- */

int connection_new(struct plugin *plugin, const struct connection_config *config,
                   const struct connection_ops *ops, void *userdata, struct connection **ret)
{
    _cleanup_(connection_freep) struct connection *c = xnew(struct connection);
    uint64_t id[2] = {};
    int r;

    c->plugin = plugin;
    c->config = config;
    c->ops = ops;
    c->userdata = userdata;
    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return -EIO;
    c->container =
        xasprintf("brink-%016llx%016llx", (unsigned long long)id[0], (unsigned long long)id[1]);
    r = plugin_add_timer(plugin, 0, connection_on_timer, c, &c->timer);
    if (r < 0)
        return r;
    timer_stop(c->timer);
    *ret = TAKE_PTR(c);
    return 0;
}

struct connection *connection_free(struct connection *c)
{
    if (!c)
        return NULL;
    sd_event_source_disable_unref(c->timer);
    connection_drop(c);
    free(c->host);
    free(c->peer);
    free(c->container);
    free(c);
    return NULL;
}

void connection_start(struct connection *c, const char *host)
{
    if (!c->host || strcmp(c->host, host) != 0) {
        free(c->host);
        free(c->peer);
        c->host = xstrdup(host);
        c->peer = xasprintf("%s:%u", host, (unsigned)c->config->port);
    }
    connection_feed(c, CONNECTION_WANTED);
}

void connection_stop(struct connection *c)
{
    connection_feed(c, CONNECTION_UNWANTED);
}

void connection_fail(struct connection *c, const char *condition, const char *reason)
{
    if (c->state != CONNECTION_OPEN)
        return; /* it is on its end already, for a reason of its own */
    c->close_condition = condition;
    connection_reason(c, reason);
    connection_feed(c, CONNECTION_FAILED);
}

void connection_proved(struct connection *c)
{
    backoff_reset(&c->backoff);
}

struct amqp_driver *connection_driver(struct connection *c)
{
    return c->state == CONNECTION_OPEN ? c->driver : NULL;
}

const char *connection_peer(const struct connection *c)
{
    return c->peer ? c->peer : "";
}

enum connection_state connection_state(const struct connection *c)
{
    return c->state;
}
