/* A hub for tests: an HTTP server on a port of loopback that the kernel picks, in the test's own
 * loop; a function answers. */
#pragma once

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "buf.h"
#include "mem.h"

struct stub_call {
    const char *method, *uri, *authorization, *if_match,
        *body; /* the uri as it came; "" where absent */
};

struct stub_reply {
    unsigned status;
    char *body; /* the stub frees it; NULL: empty */
    bool hang;  /* no answer at all */
};

typedef void stub_fn(const struct stub_call *call, struct stub_reply *reply, void *userdata);

struct stub {
    sd_event *event;
    struct MHD_Daemon *daemon;
    sd_event_source *io, *timer;
    int port;
    unsigned calls;
    stub_fn *fn;
    void *userdata;
    struct MHD_Connection *hanging[64];
    unsigned hanging_count;
};

struct stub_request {
    char *uri;
    struct buf body;
    bool begun;
};

static inline void stub_turn(struct stub *stub)
{
    MHD_UNSIGNED_LONG_LONG msec;
    uint64_t now;

    if (MHD_run(stub->daemon) != MHD_YES)
        abort();
    if (MHD_get_timeout(stub->daemon, &msec) != MHD_YES) {
        sd_event_source_set_enabled(stub->timer, SD_EVENT_OFF);
        return;
    }
    sd_event_now(stub->event, CLOCK_MONOTONIC, &now);
    sd_event_source_set_time(stub->timer, now + msec * 1000);
    sd_event_source_set_enabled(stub->timer, SD_EVENT_ONESHOT);
}

static inline int stub_on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    stub_turn(userdata);
    return 0;
}

static inline int stub_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    stub_turn(userdata);
    return 0;
}

static inline void *stub_on_uri(void *userdata, const char *uri, struct MHD_Connection *connection)
{
    struct stub_request *request = xnew(struct stub_request);

    request->uri = xstrdup(uri);
    return request;
}

static inline void stub_on_end(void *userdata, struct MHD_Connection *connection, void **state,
                               enum MHD_RequestTerminationCode code)
{
    struct stub_request *request = *state;

    if (!request)
        return;
    free(request->uri);
    buf_done(&request->body);
    free(request);
    *state = NULL;
}

static inline const char *stub_header(struct MHD_Connection *connection, const char *name)
{
    const char *value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);

    return value ? value : "";
}

static inline enum MHD_Result stub_answer(struct MHD_Connection *connection,
                                          struct stub_reply *reply)
{
    struct MHD_Response *response;
    enum MHD_Result r;

    response = MHD_create_response_from_buffer(reply->body ? strlen(reply->body) : 0, reply->body,
                                               MHD_RESPMEM_MUST_COPY);
    MHD_add_response_header(response, "Content-Type", "application/json");
    r = MHD_queue_response(connection, reply->status, response);
    MHD_destroy_response(response);
    free(reply->body);
    return r;
}

static inline enum MHD_Result stub_on_request(void *userdata, struct MHD_Connection *connection,
                                              const char *url, const char *method,
                                              const char *version, const char *data, size_t *size,
                                              void **state)
{
    struct stub *stub = userdata;
    struct stub_request *request = *state;
    struct stub_reply reply = {};
    struct stub_call call;

    if (!request->begun) {
        request->begun = true;
        return MHD_YES;
    }
    if (*size > 0) {
        buf_append(&request->body, data, *size);
        *size = 0;
        return MHD_YES;
    }
    buf_append_byte(&request->body, 0);
    call = (struct stub_call){ method, request->uri, stub_header(connection, "Authorization"),
                               stub_header(connection, "If-Match"), buf_span(&request->body).at };
    stub->calls++;
    stub->fn(&call, &reply, stub->userdata);
    if (!reply.hang)
        return stub_answer(connection, &reply);
    if (stub->hanging_count >= ELEMENTSOF(stub->hanging))
        abort();
    stub->hanging[stub->hanging_count++] = connection;
    MHD_suspend_connection(connection);
    return MHD_YES;
}

/* @cert_pem and @key_pem NULL: plain. */
static inline void stub_start(struct stub *stub, sd_event *event, const char *cert_pem,
                              const char *key_pem, stub_fn *fn, void *userdata)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct MHD_OptionItem tls[] = { { MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)cert_pem },
                                    { MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)key_pem },
                                    { MHD_OPTION_END, 0, NULL } };
    socklen_t len = sizeof(address);
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | (cert_pem ? MHD_USE_TLS : 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    *stub = (struct stub){ .event = event, .fn = fn, .userdata = userdata };
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, 64) < 0 || getsockname(fd, (struct sockaddr *)&address, &len) < 0)
        abort();
    stub->port = ntohs(address.sin_port);
    stub->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, stub_on_request, stub, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_URI_LOG_CALLBACK, stub_on_uri, NULL, MHD_OPTION_NOTIFY_COMPLETED, stub_on_end,
        NULL, MHD_OPTION_ARRAY, cert_pem ? tls : tls + 2, MHD_OPTION_END);
    if (!stub->daemon)
        abort();
    if (sd_event_add_io(event, &stub->io,
                        MHD_get_daemon_info(stub->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd,
                        EPOLLIN, stub_on_io, stub) < 0 ||
        sd_event_add_time(event, &stub->timer, CLOCK_MONOTONIC, 0, 0, stub_on_timer, stub) < 0)
        abort();
}

static inline void stub_release(struct stub *stub)
{
    while (stub->hanging_count > 0)
        MHD_resume_connection(stub->hanging[--stub->hanging_count]);
}

static inline void stub_stop(struct stub *stub)
{
    if (!stub->daemon)
        return;
    stub_release(stub);
    sd_event_source_disable_unref(stub->io);
    sd_event_source_disable_unref(stub->timer);
    MHD_stop_daemon(stub->daemon);
    stub->daemon = NULL;
}

/* Turns the loop until @condition; gives up when nothing at all happens for ten seconds. */
#define LOOP_UNTIL(event, condition)                                                               \
    do {                                                                                           \
        while (!(condition))                                                                       \
            assert_true(sd_event_run(event, UINT64_C(10) * 1000 * 1000) > 0);                      \
    } while (0)
