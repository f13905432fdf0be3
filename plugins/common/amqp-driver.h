/*
 * Proton's engine on a TLS stream of ours, under sd-event: bytes in, bytes out, heartbeats, events to one handler.
 * Notes in amqp.md §17 apply: idle time-outs are advertised halved, inbound message-format is read beside proton.
 */
#pragma once

#include <proton/connection_driver.h>
#include <proton/engine.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "mem.h"
#include "tls-stream.h"

struct amqp_driver;

struct amqp_driver_ops {
    /* Every proton event, in order. The handler must not free the driver; amqp_driver_close() ends it. */
    void (*on_event)(struct amqp_driver *driver, pn_event_t *event, void *userdata);
    /* After a batch of events was handled and before output is written: work that is done once a turn. May be NULL. */
    void (*on_batch_end)(struct amqp_driver *driver, void *userdata);
    /* The transport is over; @reason is borrowed. The owner frees the driver, here or later. */
    void (*on_closed)(struct amqp_driver *driver, const char *reason, void *userdata);
};

/* Runs on @stream (taken whatever the result; its ops are replaced). @server: waits for the client's header and accepts SASL
 * (MSSBCBS, ANONYMOUS) or the bare AMQP header; else it speaks first, bare AMQP. Set container, hostname, channel-max and
 * idle-time-out with proton's calls on amqp_driver_connection() / amqp_driver_transport() before returning to the loop. */
int amqp_driver_new_take(sd_event *event, struct tls_stream *stream, bool server,
                         const struct amqp_driver_ops *ops, void *userdata,
                         struct amqp_driver **ret);
struct amqp_driver *amqp_driver_free(struct amqp_driver *driver);
DEFINE_FREEP(struct amqp_driver, amqp_driver_free)

pn_connection_t *amqp_driver_connection(struct amqp_driver *driver);
pn_transport_t *amqp_driver_transport(struct amqp_driver *driver);
/* Something was done on proton objects outside of on_event: write what came of it, this turn. */
void amqp_driver_wake(struct amqp_driver *driver);
/* Writes out what proton has pending now (keeps a disposition ahead of the transfer that follows). */
void amqp_driver_flush(struct amqp_driver *driver);
/* close{condition, description}, then the end of the transport. */
void amqp_driver_close(struct amqp_driver *driver, const char *condition, const char *description);
/* message-format of the delivery that proton reports now (server side): 0 or 0x80013700. Call once for each new delivery, at
 * its first PN_DELIVERY event. */
uint32_t amqp_driver_message_format(struct amqp_driver *driver, pn_delivery_t *delivery);
/* Bytes that wait for the socket: who streams much stops above a bound of its own. */
size_t amqp_driver_output_pending(const struct amqp_driver *driver);
uint64_t amqp_driver_bytes_in(const struct amqp_driver *driver);
uint64_t amqp_driver_bytes_out(const struct amqp_driver *driver);
