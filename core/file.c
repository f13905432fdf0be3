/* Folders with the right owner, and files that are replaced whole. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mem.h"

/* mkdir -p, without a word about what is there already. */
static int folder_make(const char *path, mode_t mode)
{
    _cleanup_(freep) char *above = NULL;
    char *slash;
    int r;

    if (mkdir(path, mode) == 0 || errno == EEXIST)
        return 0;
    if (errno != ENOENT)
        return -errno;
    above = xstrdup(path);
    slash = strrchr(above, '/');
    if (!slash || slash == above)
        return -ENOENT;
    *slash = 0;
    r = folder_make(above, 0755);
    if (r < 0)
        return r;
    return mkdir(path, mode) == 0 || errno == EEXIST ? 0 : -errno;
}

int folder_ensure(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
    _cleanup_(closep) int fd = -1;
    int r = folder_make(path, mode);

    if (r < 0)
        return r;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if ((uid != (uid_t)-1 || gid != (gid_t)-1) && fchown(fd, uid, gid) < 0)
        return -errno;
    return fchmod(fd, mode) < 0 ? -errno : 0;
}

static int write_all(int fd, struct span content)
{
    while (content.len > 0) {
        ssize_t n = write(fd, content.at, content.len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        content = span_of(content.at + n, content.len - (size_t)n);
    }
    return 0;
}

static int folder_sync(const char *path)
{
    _cleanup_(freep) char *copy = xstrdup(path);
    _cleanup_(closep) int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    return fsync(fd) < 0 ? -errno : 0;
}

static int file_write(const char *path, struct span content, bool durable)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r;

    if (fd < 0)
        return -errno;
    r = write_all(fd, content);
    if (r < 0)
        return r;
    return durable && fdatasync(fd) < 0 ? -errno : 0;
}

int file_replace(const char *path, struct span content, bool durable)
{
    _cleanup_(freep) char *next = xasprintf("%s.next", path);
    int r;

    r = file_write(next, content, durable);
    if (r == 0 && rename(next, path) < 0)
        r = -errno;
    if (r < 0) {
        unlink(next);
        return r;
    }
    return durable ? folder_sync(path) : 0;
}

int file_read(const char *path, size_t bytes_max, struct buf *out)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    while (buf_len(out) <= bytes_max) {
        ssize_t n = read(fd, buf_reserve(out, 4096), 4096);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        buf_commit(out, (size_t)n);
    }
    return -EFBIG;
}
