/* Accepting on an inherited listen socket; while the hub is "offline", each new connection is reset instead. */
#pragma once

#include <stdbool.h>

#include "plugin.h"

struct acceptor;

/* Takes @fd: non-blocking, close-on-exec. */
typedef void acceptor_fn(int fd, void *userdata);

/* On every socket of that name in `sockets:`. -ENOENT: there is none. */
int acceptor_new(struct plugin *plugin, const char *socket_name, acceptor_fn *fn, void *userdata,
                 struct acceptor **ret);
struct acceptor *acceptor_free(struct acceptor *acceptor);
DEFINE_FREEP(struct acceptor, acceptor_free)
void acceptor_set_offline(struct acceptor *acceptor, bool offline);

/* The peer sees a reset, now; the descriptor stays its owner's. */
void socket_reset(int fd);
