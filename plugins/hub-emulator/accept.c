#include "accept.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { ACCEPTS_PER_TURN = 32, SOCKETS_MAX = 8 };
#define ACCEPT_PAUSE_USEC                                                                          \
    UINT64_C(100000) /* when descriptors are used up: until somebody has gone */

struct acceptor {
    acceptor_fn *fn;
    void *userdata;
    bool offline;
    sd_event_source *sources[SOCKETS_MAX];
    unsigned count;
    sd_event_source *pause;
};

void socket_reset(int fd)
{
    const struct sockaddr nobody = { .sa_family = AF_UNSPEC };

    connect(fd, &nobody,
            sizeof(nobody)); /* how Linux breaks off a TCP connection without closing its socket */
}

static void acceptor_enable(struct acceptor *acceptor, int state)
{
    for (unsigned i = 0; i < acceptor->count; i++)
        sd_event_source_set_enabled(acceptor->sources[i], state);
}

static int acceptor_on_pause_over(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct acceptor *acceptor = userdata;

    acceptor_enable(acceptor, SD_EVENT_ON);
    return 0;
}

static int acceptor_failed(struct acceptor *acceptor, int error)
{
    switch (error) {
    case EAGAIN:
    case ECONNABORTED:
    case EINTR:
        return 0;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        log_event(LOG_WARNING, error, "cannot accept for now");
        acceptor_enable(acceptor, SD_EVENT_OFF);
        return timer_rearm(acceptor->pause, ACCEPT_PAUSE_USEC);
    default:
        log_event(LOG_ERR, error, "cannot accept");
        return -error;
    }
}

static void acceptor_take(struct acceptor *acceptor, int fd)
{
    const int on = 1;

    if (acceptor->offline) {
        socket_reset(fd);
        close_fd(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    acceptor->fn(fd, acceptor->userdata);
}

static int acceptor_on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct acceptor *acceptor = userdata;

    for (unsigned n = 0; n < ACCEPTS_PER_TURN; n++) {
        int connection = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (connection < 0)
            return acceptor_failed(acceptor, errno);
        acceptor_take(acceptor, connection);
    }
    return 0;
}

static int acceptor_add_sockets(struct acceptor *acceptor, struct plugin *plugin,
                                const char *socket_name)
{
    while (acceptor->count < SOCKETS_MAX) {
        int fd = plugin_socket(plugin, socket_name, acceptor->count);
        int r;

        if (fd < 0)
            break;
        r = plugin_add_io(plugin, fd, EPOLLIN, acceptor_on_readable, acceptor,
                          &acceptor->sources[acceptor->count]);
        if (r < 0)
            return r;
        acceptor->count++;
    }
    if (acceptor->count > 0)
        return 0;
    log_event(LOG_ERR, 0, "no listen socket of that name in 'sockets:'",
              F_STR("socket", socket_name));
    return -ENOENT;
}

int acceptor_new(struct plugin *plugin, const char *socket_name, acceptor_fn *fn, void *userdata,
                 struct acceptor **ret)
{
    _cleanup_(acceptor_freep) struct acceptor *acceptor = xnew(struct acceptor);
    int r;

    acceptor->fn = fn;
    acceptor->userdata = userdata;
    r = plugin_add_timer(plugin, 0, acceptor_on_pause_over, acceptor, &acceptor->pause);
    if (r < 0)
        return r;
    r = acceptor_add_sockets(acceptor, plugin, socket_name);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(acceptor);
    return 0;
}

struct acceptor *acceptor_free(struct acceptor *acceptor)
{
    if (!acceptor)
        return NULL;
    for (unsigned i = 0; i < acceptor->count; i++)
        sd_event_source_disable_unref(acceptor->sources[i]);
    sd_event_source_disable_unref(acceptor->pause);
    free(acceptor);
    return NULL;
}

void acceptor_set_offline(struct acceptor *acceptor, bool offline)
{
    acceptor->offline = offline;
}
