/* Small files of the plugin's own: whole, private (0600 in a 0700 folder), and after a power cut
 * either old or new. */
#pragma once

#include "buf.h"

/* 0700; it may be there already. */
int state_folder_make(const char *path);
/* -ENOENT, -EFBIG: longer than @bytes_max, -EINVAL: no regular file, and the kernel's. */
int state_file_read(const char *path, size_t bytes_max, struct buf *ret);
/* Returns when it is on disk. */
int state_file_write(const char *path, struct span content);
/* Puts it out of the way as @path.bad, over an older one. Best effort. */
void state_file_set_aside(const char *path);
