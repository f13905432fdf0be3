/* Folders with the right owner, and files that are replaced whole. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "buf.h"

/* Makes @path, and what is missing above it (0755). One that is there gets owner and mode; a
 * symbolic link is refused. (uid_t)-1 and (gid_t)-1 leave the owner. */
int folder_ensure(const char *path, mode_t mode, uid_t uid, gid_t gid);

/* The content of @path is the old one or the new one, never a part; @durable: after a power cut
 * too. */
int file_replace(const char *path, struct span content, bool durable);
/* Appends a whole small file, at most @bytes_max of it. */
int file_read(const char *path, size_t bytes_max, struct buf *out);
