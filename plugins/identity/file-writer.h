/*
 * Writes small files in a thread of its own: an fsync may take a second on a worn card, and clients
 * wait for verdicts. The thread gets a path and bytes, and touches nothing else. Of several
 * contents for one path only the newest is written.
 */
#pragma once

#include <systemd/sd-event.h>

#include "buf.h"

struct file_writer;

int file_writer_new(sd_event *event, struct file_writer **ret);
/* Waits for the file that is being written, and writes what is left. */
struct file_writer *file_writer_free(struct file_writer *writer);
DEFINE_FREEP(struct file_writer, file_writer_free)

/* What fails is logged. Takes the memory of @content, which is empty afterwards. */
void file_writer_put_take(struct file_writer *writer, const char *path, struct buf *content);
