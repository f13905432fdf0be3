/* SASL on the server side, as far as clients of a hub use it. */
#include "amqp-sasl.h"

#include "amqp-codec.h"

enum { HEADER_LEN = 8, FRAME_HEADER_LEN = 8, FRAME_TYPE_SASL = 1 };
enum { OUTCOME_OK = 0, OUTCOME_AUTH = 1 };

#define SASL_HEADER SPAN("AMQP\x03\x01\x00\x00")

/* An array, not a lone symbol: the C SDK takes nothing else. */
#define MECHANISMS_FRAME                                                                           \
    SPAN("\x00\x00\x00\x24\x02\x01\x00\x00"                                                        \
         "\x00\x53\x40\xc0\x17\x01\xe0\x14\x02\xa3"                                                \
         "\x07"                                                                                    \
         "MSSBCBS"                                                                                 \
         "\x09"                                                                                    \
         "ANONYMOUS")

void amqp_sasl_done(struct amqp_sasl *s)
{
    buf_done(&s->in);
    buf_done(&s->out);
    buf_done(&s->replay);
}

/* Moves bytes over until @want are in s->in. */
static bool gather(struct amqp_sasl *s, struct span *bytes, size_t want)
{
    size_t have = buf_len(&s->in);
    size_t n = have < want ? want - have : 0;

    if (n > bytes->len)
        n = bytes->len;
    buf_append(&s->in, bytes->at, n);
    *bytes = span_of(bytes->at + n, bytes->len - n);
    return buf_len(&s->in) >= want;
}

static void put_outcome(struct amqp_sasl *s, uint8_t code)
{
    static const char frame[] = "\x00\x00\x00\x10\x02\x01\x00\x00\x00\x53\x44\xc0\x03\x01\x50";

    buf_append(&s->out, frame, sizeof(frame) - 1);
    buf_append_byte(&s->out, code);
}

static int on_header(struct amqp_sasl *s, struct span *bytes)
{
    if (!gather(s, bytes, HEADER_LEN))
        return 0;
    if (!span_equal(buf_span(&s->in), SASL_HEADER)) {
        /* Bare AMQP, or something that proton refuses in the standard's way. */
        buf_append_span(&s->replay, buf_span(&s->in));
        s->state = AMQP_SASL_OVER;
        return AMQP_SASL_E_DONE;
    }
    buf_eat(&s->in, HEADER_LEN);
    buf_append_span(&s->out, SASL_HEADER);
    buf_append_span(&s->out, MECHANISMS_FRAME);
    s->state = AMQP_SASL_WAIT_INIT;
    return 0;
}

/* sasl-init{mechanism, initial-response, hostname} */
static bool init_accepted(struct span frame)
{
    struct amqp_value init, mechanism;
    size_t data_offset = (size_t)(uint8_t)frame.at[4] * 4;

    if ((uint8_t)frame.at[5] != FRAME_TYPE_SASL || data_offset < FRAME_HEADER_LEN ||
        data_offset > frame.len)
        return false;
    frame = span_of(frame.at + data_offset, frame.len - data_offset);
    if (!amqp_read(&frame, &init) || init.descriptor != AMQP_SASL_INIT || init.kind != AMQP_LIST ||
        !amqp_read(&init.bytes, &mechanism) || mechanism.kind != AMQP_SYMBOL)
        return false;
    return span_equal(mechanism.bytes, SPAN("MSSBCBS")) ||
           span_equal(mechanism.bytes, SPAN("ANONYMOUS"));
}

static size_t frame_size(const struct buf *in)
{
    const uint8_t *at = (const uint8_t *)buf_span(in).at;

    return (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
}

static int on_init(struct amqp_sasl *s, struct span *bytes)
{
    bool accepted;
    size_t size;

    if (!gather(s, bytes, FRAME_HEADER_LEN))
        return 0;
    size = frame_size(&s->in);
    if (size < FRAME_HEADER_LEN || size > AMQP_SASL_FRAME_MAX) {
        s->state = AMQP_SASL_OVER;
        return AMQP_SASL_E_FAILED;
    }
    if (!gather(s, bytes, size))
        return 0;
    accepted = init_accepted(buf_span(&s->in));
    put_outcome(s, accepted ? OUTCOME_OK : OUTCOME_AUTH);
    s->state = AMQP_SASL_OVER;
    return accepted ? AMQP_SASL_E_DONE : AMQP_SASL_E_FAILED;
}

int amqp_sasl_feed(struct amqp_sasl *s, struct span *bytes)
{
    if (s->state == AMQP_SASL_HEADER) {
        int r = on_header(s, bytes);

        if (r != 0 || s->state == AMQP_SASL_HEADER)
            return r;
    }
    if (s->state == AMQP_SASL_WAIT_INIT)
        return on_init(s, bytes);
    return AMQP_SASL_E_DONE;
}
