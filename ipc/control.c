/* The control packets on their socket: sent and received whole, with descriptors beside them.
 * Holds nothing between calls. */
#include "control.h"

#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "mem.h"

/* Room for the descriptors of one packet, aligned as the kernel wants it. */
union fd_message {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int) * CONTROL_FDS_MAX)];
};

static void fd_message_attach(struct msghdr *m, union fd_message *room, const int *fds,
                              unsigned count)
{
    size_t bytes = sizeof(int) * count;
    struct cmsghdr *header;

    m->msg_control = room->bytes;
    m->msg_controllen = CMSG_SPACE(bytes);
    header = CMSG_FIRSTHDR(m);
    *header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(bytes),
                                .cmsg_level = SOL_SOCKET,
                                .cmsg_type = SCM_RIGHTS };
    memcpy(CMSG_DATA(header), fds, bytes);
}

int control_send(int socket, const Bus__Control *packet, const int *fds, unsigned fd_count)
{
    size_t len = bus__control__get_packed_size(packet);
    _cleanup_(freep) uint8_t *bytes = NULL;
    union fd_message room = {};
    struct iovec iov;
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (len > CONTROL_BYTES_MAX || fd_count > CONTROL_FDS_MAX)
        return -EMSGSIZE;
    bytes = xalloc0(len + 1);
    bus__control__pack(packet, bytes);
    iov = (struct iovec){ bytes, len };
    if (fd_count > 0)
        fd_message_attach(&m, &room, fds, fd_count);
    for (;;) {
        if (sendmsg(socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

/* Takes the descriptors out of a received message. Returns how many; all CONTROL_FDS_MAX fit. */
static unsigned fd_message_detach(struct msghdr *m, int *ret_fds)
{
    unsigned count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(ret_fds, CMSG_DATA(c), sizeof(int) * count);
    }
    return count;
}

/* What recv() and recvmsg() say when there is nothing: closing with packets unread resets the
 * connection, and that, too, is just the end of it. */
static ssize_t receive_error(void)
{
    return errno == ECONNRESET ? 0 : -errno;
}

static ssize_t receive(int socket, struct msghdr *m)
{
    ssize_t n;

    do
        n = recvmsg(socket, m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? receive_error() : n;
}

/* A packet that is larger than the room for it is cut and lost, so it is measured first. */
static ssize_t measure(int socket)
{
    ssize_t n = recv(socket, NULL, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);

    return n < 0 ? receive_error() : n;
}

int control_receive(int socket, Bus__Control **ret, int *ret_fds, unsigned *ret_fd_count)
{
    ssize_t size = measure(socket);
    size_t room_len = size > 0 && size <= CONTROL_BYTES_MAX ? (size_t)size : 1;
    _cleanup_(freep) uint8_t *bytes = xalloc0(room_len);
    union fd_message room = {};
    struct iovec iov = { bytes, room_len };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room.bytes, .msg_controllen = sizeof(room)
    };
    int fds[CONTROL_FDS_MAX];
    unsigned fd_count;
    Bus__Control *packet = NULL;
    ssize_t n = size < 0 ? size : receive(socket, &m);

    if (n < 0)
        return (int)n;
    fd_count = fd_message_detach(&m, fds);
    if (n > 0 && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        packet = bus__control__unpack(NULL, (size_t)n, bytes);
    if (packet && ret_fds) {
        memcpy(ret_fds, fds, sizeof(int) * fd_count);
        *ret_fd_count = fd_count;
    } else {
        for (unsigned i = 0; i < fd_count; i++)
            close_fd(fds[i]);
        if (ret_fd_count)
            *ret_fd_count = 0;
    }
    if (n > 0 && !packet)
        return -EBADMSG;
    *ret = packet;
    return 0;
}

int control_connect(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int r = -errno;

        close_fd(fd);
        return r;
    }
    return fd;
}

int control_peer(int socket, pid_t *ret_pid, uid_t *ret_uid)
{
    struct ucred credentials;
    socklen_t len = sizeof(credentials);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &len) < 0)
        return -errno;
    *ret_pid = credentials.pid;
    *ret_uid = credentials.uid;
    return 0;
}
