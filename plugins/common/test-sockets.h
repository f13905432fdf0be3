/* For tests: connected pairs of non-blocking stream sockets. */
#pragma once

#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

static inline bool test_socket_pair(int fds[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0;
}

/* On the loopback: local sockets know no reset. */
static inline bool test_tcp_pair(int fds[2])
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool done;

    fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    done = bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
           listen(listener, 1) == 0 &&
           getsockname(listener, (struct sockaddr *)&address, &len) == 0 &&
           connect(fds[1], (struct sockaddr *)&address, sizeof(address)) == 0;
    fds[0] = done ? accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) : -1;
    close(listener);
    return fds[0] >= 0 && fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0;
}

/* Closing it then is a reset. */
static inline bool test_close_resets(int fd)
{
    static const struct linger now = { .l_onoff = 1 };

    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0;
}
