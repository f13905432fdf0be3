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
    _cleanup_(freep) char *above = xstrdup(path);

    for (char *slash = strchr(above + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(above, 0755); /* where it fails, what is below it fails, too */
        *slash = '/';
    }
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
    ssize_t n = fd >= 0 ? write(fd, content.at, content.len) : -1;

    if (n < 0)
        return -errno;
    if ((size_t)n < content.len)
        return -ENOSPC; /* a small file is written in part for no other reason */
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
    ssize_t n;

    if (fd < 0)
        return -errno;
    while ((n = read(fd, buf_reserve(out, 4096), 4096)) > 0) {
        buf_commit(out, (size_t)n);
        if (buf_len(out) > bytes_max)
            return -EFBIG;
    }
    return n < 0 ? -errno : 0;
}
