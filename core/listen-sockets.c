/*
 * The supervisor holds a second descriptor of every listen socket, so a plugin's restart refuses no
 * connection: they wait in the backlog. Sockets that systemd or a plugin of a former supervisor
 * brought are used before any is opened.
 */
#include "listen-sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "mem.h"
#include "span.h"

/* Parsing */

static bool port_parse(struct span text, in_port_t *ret_port)
{
    uint64_t port;

    if (!span_to_uint64(text, &port) || port == 0 || port > UINT16_MAX)
        return false;
    *ret_port = htons((uint16_t)port);
    return true;
}

static int unix_parse(struct span path, const char *run_dir, struct listen_address *ret,
                      const char **ret_expected)
{
    struct sockaddr_un *address = (struct sockaddr_un *)&ret->storage;
    bool absolute = path.len > 0 && path.at[0] == '/';
    int n;

    *ret = (struct listen_address){ .len = sizeof(*address) };
    address->sun_family = AF_UNIX;
    n = snprintf(address->sun_path, sizeof(address->sun_path), "%s%s%.*s", absolute ? "" : run_dir,
                 absolute ? "" : "/", (int)path.len, path.at);
    if (path.len > 0 && n > 0 && (size_t)n < sizeof(address->sun_path))
        return 0;
    *ret_expected = "a path after unix: that, with run_dir, has at most 107 bytes";
    return LISTEN_E_SYNTAX;
}

static int inet_parse(struct span host, in_port_t port, struct listen_address *ret)
{
    _cleanup_(freep) char *text = span_xdup(host);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&ret->storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ret->storage;
    size_t n = strlen(text);

    *ret = (struct listen_address){};
    if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
        text[n - 1] = 0;
        *v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = port };
        ret->len = sizeof(*v6);
        return inet_pton(AF_INET6, text + 1, &v6->sin6_addr) == 1 ? 0 : LISTEN_E_SYNTAX;
    }
    *v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = port };
    ret->len = sizeof(*v4);
    return inet_pton(AF_INET, text, &v4->sin_addr) == 1 ? 0 : LISTEN_E_SYNTAX;
}

int listen_address_parse(const char *text, const char *run_dir, struct listen_address *ret,
                         const char **ret_expected)
{
    struct span in = span_str(text);
    const char *colon = strrchr(text, ':');
    struct listen_address address;
    in_port_t port;
    int r;

    if (span_eat(&in, SPAN("unix:"))) {
        r = unix_parse(in, run_dir, &address, ret_expected);
    } else if (!colon || !port_parse(span_str(colon + 1), &port)) {
        *ret_expected = "ADDRESS:PORT with a port from 1 to 65535, or unix:PATH";
        r = LISTEN_E_SYNTAX;
    } else {
        r = inet_parse(span_of(text, (size_t)(colon - text)), port, &address);
        if (r != 0)
            *ret_expected = "a numeric address before the port, such as 0.0.0.0 or [::]";
    }
    if (r == 0)
        *ret = address;
    return r;
}

/* Config */

#define AT(member) offsetof(struct listen_socket, member)

static const struct config_item socket_items[] = {
    { "name", CONFIG_STRING, AT(name), NULL, "1", "64", "what the plugin asks for", NULL },
    { "listen", CONFIG_STRING, AT(listen), NULL, "1", "200",
      "0.0.0.0:8883, [::]:8883 or unix:streams/x.sock (relative to run_dir)", NULL },
    {}
};

struct taking {
    struct listen_sockets *sockets;
    const char *run_dir;
};

/* systemd's rule for the names of descriptors, and so that of LISTEN_FDNAMES. */
static bool name_is_valid(const char *name)
{
    for (; *name; name++)
        if (*name <= ' ' || *name >= 127 || *name == ':')
            return false;
    return true;
}

/* Adds it first: a list that is refused is freed whole. */
static int socket_take(struct config_document *d, void *userdata, struct config_error *ret_error)
{
    struct taking *taking = userdata;
    struct listen_sockets *s = taking->sockets;
    struct listen_socket socket = { .fd = -1 };
    const char *expected;
    int r;

    r = config_take(d, "", socket_items, &socket, ret_error);
    if (r != 0)
        return r;
    r = listen_address_parse(socket.listen, taking->run_dir, &socket.address, &expected);
    xgrow(s->sockets, s->count, s->capacity);
    s->sockets[s->count++] = socket;
    if (r != 0)
        return config_refuse(d, "", "listen", expected, ret_error);
    if (!name_is_valid(socket.name))
        return config_refuse(d, "", "name", "printable ASCII without blanks and colons", ret_error);
    if (s->count > LISTEN_SOCKETS_MAX)
        return config_refuse(d, "", "name", "at most 16 sockets", ret_error);
    return 0;
}

int listen_sockets_take(struct config_document *d, const char *run_dir, struct listen_sockets *ret,
                        struct config_error *ret_error)
{
    struct listen_sockets s = {};
    struct taking taking = { &s, run_dir };
    int r = config_take_each(d, "sockets", socket_take, &taking, ret_error);

    if (r == 0)
        *ret = s;
    else
        listen_sockets_done(&s);
    return r;
}

void listen_sockets_done(struct listen_sockets *s)
{
    for (size_t i = 0; i < s->count; i++) {
        close_fd(s->sockets[i].fd);
        free(s->sockets[i].name);
        free(s->sockets[i].listen);
    }
    free(s->sockets);
    *s = (struct listen_sockets){};
}

/* Opening */

static const char *unix_path(const struct listen_address *address)
{
    return ((const struct sockaddr_un *)&address->storage)->sun_path;
}

static int unix_permit(const char *path, gid_t group)
{
    if (group != (gid_t)-1 && chown(path, (uid_t)-1, group) < 0)
        return -errno;
    return chmod(path, group == (gid_t)-1 ? 0600 : 0660) < 0 ? -errno : 0;
}

/* One left behind: we hold the lock. A file that is no socket is somebody's. */
static void unix_make_way(const char *path)
{
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path);
}

/* [::] is IPv6 alone, or 0.0.0.0 beside it would be refused. */
static int inet_prepare(int fd, sa_family_t family)
{
    const int on = 1;

    if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
        return -errno;
    return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ? -errno : 0;
}

int listen_address_open(const struct listen_address *address, int type, gid_t group, int *ret_fd)
{
    sa_family_t family = address->storage.ss_family;
    _cleanup_(closep) int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int r = 0;

    if (fd < 0)
        return -errno;
    if (family == AF_UNIX)
        unix_make_way(unix_path(address));
    else
        r = inet_prepare(fd, family);
    if (r == 0 && bind(fd, (const struct sockaddr *)&address->storage, address->len) < 0)
        r = -errno;
    if (r == 0 && family == AF_UNIX)
        r = unix_permit(unix_path(address), group);
    if (r == 0 && listen(fd, SOMAXCONN) < 0)
        r = -errno;
    if (r < 0)
        return r;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int listen_sockets_open(struct listen_sockets *s, gid_t group,
                        const struct listen_socket **ret_failed)
{
    for (size_t i = 0; i < s->count; i++) {
        struct listen_socket *socket = &s->sockets[i];
        int r;

        if (socket->fd >= 0)
            continue;
        r = listen_address_open(&socket->address, SOCK_STREAM, group, &socket->fd);
        if (r < 0) {
            *ret_failed = socket;
            return r;
        }
    }
    return 0;
}

void listen_sockets_close(struct listen_sockets *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (!s->sockets[i].from_systemd)
            s->sockets[i].fd = close_fd(s->sockets[i].fd);
}

/* Both are zero behind the address itself. */
static bool is_bound_to(int fd, const struct listen_address *address)
{
    struct sockaddr_storage bound = {};
    socklen_t len = sizeof(bound);

    return getsockname(fd, (struct sockaddr *)&bound, &len) == 0 &&
           memcmp(&bound, &address->storage, sizeof(bound)) == 0;
}

bool listen_sockets_give(struct listen_sockets *s, const char *name, int fd, bool from_systemd)
{
    for (size_t i = 0; i < s->count; i++) {
        struct listen_socket *socket = &s->sockets[i];

        if (socket->fd >= 0 || strcmp(socket->name, name) != 0 ||
            !(from_systemd || is_bound_to(fd, &socket->address)))
            continue;
        if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, true) <= 0 ||
            fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
            return false;
        socket->fd = fd;
        socket->from_systemd = from_systemd;
        return true;
    }
    return false;
}
