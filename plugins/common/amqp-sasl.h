/*
 * The server's SASL phase in front of proton: takes MSSBCBS and ANONYMOUS at once (who the client is, CBS tells later), and
 * lets clients that begin with the bare AMQP header pass (amqp.md §2). Pure.
 */
#pragma once

#include "buf.h"
#include "span.h"

enum {
    AMQP_SASL_E_DONE = 1, /* what is left of the input, after `replay`, is proton's */
    AMQP_SASL_E_FAILED,   /* write what there is, then end the connection */
};
enum { AMQP_SASL_FRAME_MAX = 4096 };

/* {} to begin with. */
struct amqp_sasl {
    enum { AMQP_SASL_HEADER, AMQP_SASL_WAIT_INIT, AMQP_SASL_OVER } state;
    struct buf in;     /* of a header or a frame that came in pieces */
    struct buf out;    /* to be written to the client */
    struct buf replay; /* taken from the input, but meant for proton */
};

void amqp_sasl_done(struct amqp_sasl *s);
/* Eats from the front of @bytes. 0: more is needed. */
int amqp_sasl_feed(struct amqp_sasl *s, struct span *bytes);
