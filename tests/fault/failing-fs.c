/*
 * A file system whose disk fails when the test says so: it passes everything on to the folder that it is mounted over a copy of,
 * and answers EIO while there is a file CONTROL with "write", "sync", "read" or "all" in it.
 *     brink-failing-fs CONTROL SOURCE MOUNTPOINT [-f and other options of FUSE]
 */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char *control;
static int source = -1; /* the folder's descriptor */

enum { FAIL_READ = 1, FAIL_WRITE = 2, FAIL_SYNC = 4 };

static int failing(void)
{
    char mode[16] = "";
    int fd = open(control, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, mode, sizeof(mode) - 1) : 0;

    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return 0;
    if (strncmp(mode, "all", 3) == 0)
        return FAIL_READ | FAIL_WRITE | FAIL_SYNC;
    return mode[0] == 'r' ? FAIL_READ : mode[0] == 'w' ? FAIL_WRITE | FAIL_SYNC : FAIL_SYNC;
}

#define FAIL_WHEN(what)                                                                            \
    do {                                                                                           \
        if (failing() & (what))                                                                    \
            return -EIO;                                                                           \
    } while (0)

/* Relative to @source: "/a/b" is "a/b", "/" is ".". */
static const char *at(const char *path)
{
    return path[1] ? path + 1 : ".";
}

static int result(int r)
{
    return r < 0 ? -errno : 0;
}

static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    return result(fi ? fstat((int)fi->fh, st) : fstatat(source, at(path), st, AT_SYMLINK_NOFOLLOW));
}

static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
    int fd = openat(source, at(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;

    if (!dir)
        return -errno;
    while ((entry = readdir(dir)))
        fill(buffer, entry->d_name, NULL, 0, 0);
    closedir(dir);
    return 0;
}

static int open_at(const char *path, int flags, mode_t mode, struct fuse_file_info *fi)
{
    /* The kernel places appended bytes itself. */
    int fd = openat(source, at(path), (flags & ~O_APPEND) | O_CLOEXEC, mode);

    if (fd < 0)
        return -errno;
    fi->fh = (uint64_t)fd;
    return 0;
}

static int fs_open(const char *path, struct fuse_file_info *fi)
{
    return open_at(path, fi->flags, 0, fi);
}

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    FAIL_WHEN(FAIL_WRITE);
    return open_at(path, fi->flags | O_CREAT, mode, fi);
}

static int fs_read(const char *path, char *bytes, size_t size, off_t offset,
                   struct fuse_file_info *fi)
{
    ssize_t n;

    FAIL_WHEN(FAIL_READ);
    n = pread((int)fi->fh, bytes, size, offset);
    return n < 0 ? -errno : (int)n;
}

static int fs_write(const char *path, const char *bytes, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    ssize_t n;

    FAIL_WHEN(FAIL_WRITE);
    n = pwrite((int)fi->fh, bytes, size, offset);
    return n < 0 ? -errno : (int)n;
}

static int fs_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
    FAIL_WHEN(FAIL_SYNC);
    return result(data_only ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}

static int fs_fsyncdir(const char *path, int data_only, struct fuse_file_info *fi)
{
    FAIL_WHEN(FAIL_SYNC);
    return 0;
}

static int fs_release(const char *path, struct fuse_file_info *fi)
{
    close((int)fi->fh);
    return 0;
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    int fd = fi ? (int)fi->fh : openat(source, at(path), O_WRONLY | O_CLOEXEC), r;

    if (fd < 0)
        return -errno;
    r = failing() & FAIL_WRITE ? -EIO : result(ftruncate(fd, size));
    if (!fi)
        close(fd);
    return r;
}

static int fs_fallocate(const char *path, int mode, off_t offset, off_t size,
                        struct fuse_file_info *fi)
{
    FAIL_WHEN(FAIL_WRITE);
    return result(fallocate((int)fi->fh, mode, offset, size));
}

static int fs_unlink(const char *path)
{
    FAIL_WHEN(FAIL_WRITE);
    return result(unlinkat(source, at(path), 0));
}

static int fs_rmdir(const char *path)
{
    FAIL_WHEN(FAIL_WRITE);
    return result(unlinkat(source, at(path), AT_REMOVEDIR));
}

static int fs_mkdir(const char *path, mode_t mode)
{
    FAIL_WHEN(FAIL_WRITE);
    return result(mkdirat(source, at(path), mode));
}

static int fs_rename(const char *from, const char *to, unsigned flags)
{
    FAIL_WHEN(FAIL_WRITE);
    return result(renameat2(source, at(from), source, at(to), flags));
}

static int fs_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    return result(fchmodat(source, at(path), mode, 0));
}

static int fs_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
    return result(fchownat(source, at(path), uid, gid, AT_SYMLINK_NOFOLLOW));
}

static int fs_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *fi)
{
    return result(utimensat(source, at(path), times, AT_SYMLINK_NOFOLLOW));
}

static int fs_statfs(const char *path, struct statvfs *st)
{
    return result(fstatvfs(source, st));
}

static const struct fuse_operations operations = {
    .getattr = fs_getattr,
    .readdir = fs_readdir,
    .open = fs_open,
    .create = fs_create,
    .read = fs_read,
    .write = fs_write,
    .fsync = fs_fsync,
    .fsyncdir = fs_fsyncdir,
    .release = fs_release,
    .truncate = fs_truncate,
    .fallocate = fs_fallocate,
    .unlink = fs_unlink,
    .rmdir = fs_rmdir,
    .mkdir = fs_mkdir,
    .rename = fs_rename,
    .chmod = fs_chmod,
    .chown = fs_chown,
    .utimens = fs_utimens,
    .statfs = fs_statfs,
};

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: brink-failing-fs CONTROL SOURCE MOUNTPOINT [OPTION]...\n");
        return EXIT_FAILURE;
    }
    control = argv[1];
    source = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (source < 0) {
        perror(argv[2]);
        return EXIT_FAILURE;
    }
    umask(0);
    argv[2] = argv[0];
    return fuse_main(argc - 2, argv + 2, &operations, NULL);
}
