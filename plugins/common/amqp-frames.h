/*
 * What proton does not tell of what comes in: the message-format of each delivery (amqp.md §17). Sees every byte once,
 * looks into the performatives of transfers and skips payloads. Pure. {} is a valid one.
 *
 * Formats come out in the order in which deliveries begin on the wire, over all links. That is also the order of proton's
 * first PN_DELIVERY event of each.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "span.h"

enum { AMQP_FRAMES_E_LIMIT = 1 };

enum {
    AMQP_FRAMES_PARTIAL_MAX = 1024, /* links that are amid a delivery of several frames */
    AMQP_FRAMES_HEAD_MAX = 512,     /* of a frame is looked at: header and performative */
};

struct amqp_frames {
    uint8_t head[AMQP_FRAMES_HEAD_MAX]; /* of a frame that came in pieces */
    uint32_t head_len;
    uint32_t head_want; /* bytes of the frame that are looked at; 0: its size is not known yet */
    uint32_t skip;      /* bytes of the frame that are not */
    bool begun;         /* the protocol header was skipped */
    bool broken;        /* a size that no frame has: proton ends the connection, we look away */
    struct amqp_partial {
        uint32_t handle;
        uint16_t channel;
    } * partial;
    unsigned partial_count, partial_capacity;
    struct buf formats; /* uint32_t each, host order */
};

void amqp_frames_done(struct amqp_frames *f);
/* AMQP_FRAMES_E_LIMIT: more deliveries are open than anyone needs; end the connection. */
int amqp_frames_feed(struct amqp_frames *f, struct span bytes);
/* Of the next delivery. 0 when there is none: proton and we disagree, and the plain format is the safe one. */
uint32_t amqp_frames_next_format(struct amqp_frames *f);
