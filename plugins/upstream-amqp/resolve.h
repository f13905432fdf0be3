/* Looks a host name up in a thread of its own, since the resolver of the C library blocks; the answer comes as an event. */
#pragma once

#include <netdb.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "mem.h"

struct resolve;

/* Runs once. @addresses is the receiver's to freeaddrinfo(); NULL, and @reason says why. */
typedef void resolve_fn(struct addrinfo *addresses, const char *reason, void *userdata);

int resolve_new(sd_event *event, const char *host, uint16_t port, resolve_fn *fn, void *userdata,
                struct resolve **ret);
/* Before @fn ran: it never will. The thread ends when the look-up does. */
struct resolve *resolve_free(struct resolve *resolve);
