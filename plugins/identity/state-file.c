#include "state-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of the folder that @path is in. */
static int folder_sync(const char *path)
{
    _cleanup_(freep) char *folder = xstrdup(path);
    _cleanup_(closep) int fd = -1;
    char *slash = strrchr(folder, '/');

    if (slash)
        *slash = '\0';
    fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}

int state_folder_make(const char *path)
{
    struct stat st;

    if (mkdir(path, 0700) == 0)
        return folder_sync(path);
    if (errno != EEXIST)
        return -errno;
    if (stat(path, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
    return (st.st_mode & 0777) == 0700 || chmod(path, 0700) == 0 ? 0 : -errno;
}

int state_file_read(const char *path, size_t bytes_max, struct buf *ret)
{
    _cleanup_(closep) int fd = -1;
    struct buf content = {};
    struct stat st;
    ssize_t n;

    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if (st.st_size < 0 || (size_t)st.st_size > bytes_max)
        return -EFBIG;

    for (;;) {
        n = read(fd, buf_reserve(&content, 16 << 10), 16 << 10);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            n = -errno;
        if (n <= 0)
            break;
        buf_commit(&content, (size_t)n);
        if (buf_len(&content) > bytes_max) {
            n = -EFBIG; /* it grew meanwhile */
            break;
        }
    }
    if (n < 0) {
        buf_done(&content);
        return (int)n;
    }
    *ret = content;
    return 0;
}

static int write_all(int fd, struct span content)
{
    while (content.len > 0) {
        ssize_t n = write(fd, content.at, content.len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        content.at += n;
        content.len -= (size_t)n;
    }
    return 0;
}

int state_file_write(const char *path, struct span content)
{
    _cleanup_(freep) char *temporary = xasprintf("%s.new", path);
    _cleanup_(closep) int fd = -1;
    int r;

    if (unlink(temporary) < 0 && errno != ENOENT)
        return -errno;
    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    r = write_all(fd, content);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    if (r < 0) {
        unlink(temporary);
        return r;
    }
    return folder_sync(path);
}

void state_file_set_aside(const char *path)
{
    _cleanup_(freep) char *aside = xasprintf("%s.bad", path);

    (void)rename(path, aside);
}
