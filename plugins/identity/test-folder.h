/* An empty folder for a test, gone after it. */
#pragma once

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "mem.h"

static inline char *folder_new(void)
{
    char *path = xstrdup("/tmp/test-identity-XXXXXX");

    if (!mkdtemp(path))
        abort();
    return path;
}

static inline int folder_remove_one(const char *path, const struct stat *st, int kind,
                                    struct FTW *ftw)
{
    return remove(path);
}

static inline void folder_removep(char **path)
{
    if (*path)
        nftw(*path, folder_remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(*path);
}

static inline void file_put(const char *path, const void *content, size_t len, unsigned mode)
{
    FILE *file = fopen(path, "w");

    if (!file || fwrite(content, 1, len, file) != len || fclose(file) != 0 ||
        chmod(path, mode) != 0)
        abort();
}
