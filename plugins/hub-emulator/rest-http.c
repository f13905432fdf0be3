#include "rest-http.h"

#include <errno.h>
#include <linux/tcp.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "accept.h"
#include "rest.h"

#define LOG_INTERVAL_USEC UINT64_C(5000000)
enum { CONNECTIONS_MAX = 1024, IDLE_SEC = 120 };

struct rest_http {
    struct MHD_Daemon *daemon;
    struct acceptor *acceptor;
    sd_event_source *readable;
    sd_event_source *timer;
    struct registry *registry;         /* borrowed */
    const struct authority *authority; /* borrowed */
    struct http_connection *connections;
    struct rest_http_counters counters;
    struct log_limit refused_limit;
};

struct http_connection {
    struct http_connection *previous, *next;
    int fd; /* the server's */
};

struct http_request {
    char *target;
    struct buf body;
    bool begun, too_large;
};

/* ---- the loop ---- */

static int http_arm(struct rest_http *http)
{
    MHD_UNSIGNED_LONG_LONG msec;

    if (MHD_get_timeout(http->daemon, &msec) != MHD_YES)
        return timer_stop(http->timer);
    return timer_rearm(http->timer, (uint64_t)msec * 1000);
}

static int http_turn(struct rest_http *http)
{
    if (MHD_run(http->daemon) != MHD_YES)
        return -EIO;
    return http_arm(http);
}

static int http_on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    return http_turn(userdata);
}

static int http_on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    return http_turn(userdata);
}

static void http_on_accept(int fd, void *userdata)
{
    struct rest_http *http = userdata;

    if (MHD_add_connection(http->daemon, fd, NULL, 0) != MHD_YES) /* it closed @fd */
        log_event(LOG_WARNING, errno, "HTTPS connection not taken");
    http_arm(http);
}

/* ---- connections ---- */

static void connection_begin(struct rest_http *http, struct MHD_Connection *connection,
                             void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct http_connection *c = xnew(struct http_connection);

    c->fd = info->connect_fd;
    c->next = http->connections;
    if (c->next)
        c->next->previous = c;
    http->connections = c;
    http->counters.connections++;
    *context = c;
}

static void connection_end(struct rest_http *http, struct http_connection *c)
{
    struct tcp_info info = {};
    socklen_t len = sizeof(info);

    if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0) {
        http->counters.bytes_in += info.tcpi_bytes_received;
        http->counters.bytes_out += info.tcpi_bytes_acked;
    }
    if (c->previous)
        c->previous->next = c->next;
    else
        http->connections = c->next;
    if (c->next)
        c->next->previous = c->previous;
    http->counters.connections--;
    free(c);
}

static void http_on_connection(void *userdata, struct MHD_Connection *connection, void **context,
                               enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        connection_begin(userdata, connection, context);
    else
        connection_end(userdata, *context);
}

void rest_http_set_offline(struct rest_http *http, bool offline)
{
    acceptor_set_offline(http->acceptor, offline);
    if (!offline)
        return;
    for (struct http_connection *c = http->connections; c; c = c->next)
        socket_reset(c->fd); /* the server finds that out by itself */
}

/* ---- requests ---- */

/* The target as it stood in the request line: ids are decoded by us, once, segment by segment. */
static void *http_on_uri(void *userdata, const char *uri, struct MHD_Connection *connection)
{
    struct http_request *request = xnew(struct http_request);

    request->target = xstrdup(uri);
    return request;
}

static void http_on_completed(void *userdata, struct MHD_Connection *connection, void **context,
                              enum MHD_RequestTerminationCode code)
{
    struct http_request *request = *context;

    if (!request)
        return;
    free(request->target);
    buf_done(&request->body);
    free(request);
    *context = NULL;
}

static enum MHD_Result http_answer(struct MHD_Connection *connection, const struct rest_call *call)
{
    size_t len = call->answer ? strlen(call->answer) : 0;
    struct MHD_Response *response = MHD_create_response_from_buffer(
        len, (void *)(uintptr_t)call->answer, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result result;

    if (call->answer)
        MHD_add_response_header(response, "Content-Type", "application/json; charset=utf-8");
    if (call->etag)
        MHD_add_response_header(response, "ETag", call->etag);
    if (call->error_code)
        MHD_add_response_header(response, "iothub-errorcode", call->error_code);
    result = MHD_queue_response(connection, call->status, response);
    MHD_destroy_response(response);
    return result;
}

/* Who may not, is told in a while once: strangers can do that at will. The query may hold anything, so it is left out. */
static void log_call(struct rest_http *http, const struct rest_call *call)
{
    _cleanup_(freep) char *path = NULL;
    unsigned suppressed;

    if (call->status != 401 && !log_enabled(LOG_DEBUG))
        return;
    path = xstrndup(call->target, strcspn(call->target, "?"));
    if (call->status != 401)
        log_event(LOG_DEBUG, 0, "REST call", F_STR("method", call->method), F_PATH(path),
                  F_STATUS(call->status));
    else if (log_limit_pass(&http->refused_limit, LOG_INTERVAL_USEC, &suppressed))
        log_event(LOG_WARNING, 0, "REST call refused", F_STR("method", call->method), F_PATH(path),
                  F_COUNT(suppressed));
}

static enum MHD_Result http_run(struct rest_http *http, struct MHD_Connection *connection,
                                const char *method, const struct http_request *request)
{
    struct rest_call call = {
        .registry = http->registry,
        .authority = http->authority,
        .now_sec = utc_sec(),
        .method = method,
        .target = request->target,
        .authorization = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization"),
        .if_match_header = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "If-Match"),
        .body_text = buf_span(&request->body),
        .body_too_large = request->too_large,
    };
    enum MHD_Result result;

    http->counters.requests++;
    rest_dispatch(&call);
    log_call(http, &call);
    result = http_answer(connection, &call);
    rest_call_done(&call);
    return result;
}

/* Called with the headers, then with each piece of the body, then once more. */
static enum MHD_Result http_on_request(void *userdata, struct MHD_Connection *connection,
                                       const char *url, const char *method, const char *version,
                                       const char *data, size_t *len, void **context)
{
    struct http_request *request = *context;

    if (!request->begun) {
        request->begun = true;
        return MHD_YES;
    }
    if (*len > 0) {
        request->too_large |= buf_len(&request->body) + *len > REST_BODY_BYTES_MAX;
        if (!request->too_large)
            buf_append(&request->body, data, *len);
        *len = 0;
        return MHD_YES;
    }
    return http_run(userdata, connection, method, request);
}

static void http_on_log(void *userdata, const char *format, va_list args) _printf_(2, 0);
static void http_on_log(void *userdata, const char *format, va_list args)
{
    char text[256];

    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    log_event(LOG_DEBUG, 0, "HTTPS", F_REASON(text));
}

/* ---- life ---- */

static int http_start(struct rest_http *http, const char *chain_pem, const char *key_pem)
{
    const struct MHD_OptionItem options[] = {
        { MHD_OPTION_EXTERNAL_LOGGER, (intptr_t)http_on_log, http },
        { MHD_OPTION_URI_LOG_CALLBACK, (intptr_t)http_on_uri, http },
        { MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)http_on_completed, http },
        { MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)http_on_connection, http },
        { MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, NULL },
        { MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SEC, NULL },
        { MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)chain_pem },
        { MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)key_pem },
        { MHD_OPTION_HTTPS_PRIORITIES, 0,
          (void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" },
        { MHD_OPTION_END, 0, NULL },
    };

    http->daemon = MHD_start_daemon(
        MHD_USE_TLS | MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        http_on_request, http, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
    if (!http->daemon) {
        log_event(
            LOG_ERR, 0,
            "the HTTPS server does not start; are server_cert and server_key a pair of PEM files?");
        return -EINVAL;
    }
    return 0;
}

int rest_http_new(struct plugin *plugin, const char *chain_pem, const char *key_pem,
                  struct registry *registry, const struct authority *authority,
                  struct rest_http **ret)
{
    _cleanup_(rest_http_freep) struct rest_http *http = xnew(struct rest_http);
    int r, epoll_fd;

    http->registry = registry;
    http->authority = authority;
    r = http_start(http, chain_pem, key_pem);
    if (r < 0)
        return r;
    epoll_fd = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    r = plugin_add_io(plugin, epoll_fd, EPOLLIN, http_on_readable, http, &http->readable);
    if (r < 0)
        return r;
    r = plugin_add_timer(plugin, 0, http_on_timeout, http, &http->timer);
    if (r < 0)
        return r;
    r = acceptor_new(plugin, "https", http_on_accept, http, &http->acceptor);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(http);
    return 0;
}

struct rest_http *rest_http_free(struct rest_http *http)
{
    if (!http)
        return NULL;
    acceptor_free(http->acceptor);
    sd_event_source_disable_unref(http->timer);
    sd_event_source_disable_unref(http->readable);
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    free(http);
    return NULL;
}

const struct rest_http_counters *rest_http_counters(const struct rest_http *http)
{
    return &http->counters;
}
