/* The packets between supervisor, plugins and the operator's tool: one bus.Control in each, on a SOCK_SEQPACKET socket. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "control.pb-c.h"

enum { CONTROL_PROTOCOL = 1, CONTROL_BYTES_MAX = 256 << 10, CONTROL_FDS_MAX = 16 };

/* Sends one packet; @fds ride along. -EAGAIN when the peer does not read: it is hung, or gone. */
int control_send(int socket, const Bus__Control *packet, const int *fds, unsigned fd_count);

/* Receives one packet. 0 with *ret NULL: the peer closed. -EAGAIN: nothing there. -EBADMSG: not a Control. The caller
 * frees *ret with bus__control__free_unpacked(ret, NULL) and owns the descriptors. */
int control_receive(int socket, Bus__Control **ret, int *ret_fds, unsigned *fd_count);

/* Connects to RUN_DIR/control.sock. Non-blocking. */
int control_connect(const char *path);

int control_peer(int socket, pid_t *ret_pid, uid_t *ret_uid);

#define CONTROL_INIT(case_, field, value)                                                          \
    (Bus__Control)                                                                                 \
    {                                                                                              \
        .base = PROTOBUF_C_MESSAGE_INIT(&bus__control__descriptor),                                \
        .body_case = BUS__CONTROL__BODY_##case_, .field = (value)                                  \
    }
