/* Follows AMQP frames beside proton, only as far as to know where a delivery begins and what its message-format is. */
#include "amqp-frames.h"

#include "amqp-codec.h"

enum { FRAME_HEADER = 8, PROTOCOL_HEADER = 8 };

/* One transfer performative, its fields by position. */
struct transfer {
    uint32_t handle;
    uint32_t format;
    bool more;
    bool aborted;
};

void amqp_frames_done(struct amqp_frames *f)
{
    free(f->partial);
    buf_done(&f->formats);
    *f = (struct amqp_frames){};
}

static struct amqp_partial *partial_find(struct amqp_frames *f, uint16_t channel, uint32_t handle)
{
    for (unsigned n = 0; n < f->partial_count; n++)
        if (f->partial[n].handle == handle && f->partial[n].channel == channel)
            return &f->partial[n];
    return NULL;
}

static void partial_remove(struct amqp_frames *f, struct amqp_partial *p)
{
    *p = f->partial[--f->partial_count];
}

static int partial_add(struct amqp_frames *f, uint16_t channel, uint32_t handle)
{
    if (f->partial_count >= AMQP_FRAMES_PARTIAL_MAX)
        return AMQP_FRAMES_E_LIMIT;
    xgrow(f->partial, f->partial_count, f->partial_capacity);
    f->partial[f->partial_count++] = (struct amqp_partial){ .handle = handle, .channel = channel };
    return 0;
}

static void partial_remove_channel(struct amqp_frames *f, uint16_t channel)
{
    for (unsigned n = f->partial_count; n > 0; n--)
        if (f->partial[n - 1].channel == channel)
            partial_remove(f, &f->partial[n - 1]);
}

/* Fields that are missing, or cut off by AMQP_FRAMES_HEAD_MAX, have their defaults: only a state with a long error text
 * comes before a field of ours (aborted), and no transfer has both. */
static struct transfer transfer_parse(struct span list)
{
    struct transfer t = {};
    struct amqp_value v;

    for (unsigned field = 0; field <= 9 && list.len > 0 && amqp_read(&list, &v); field++) {
        switch (field) {
        case 0:
            t.handle = (uint32_t)v.u;
            break;
        case 3:
            t.format = (uint32_t)v.u;
            break;
        case 5:
            t.more = v.u != 0;
            break;
        case 9:
            t.aborted = v.u != 0;
            break;
        }
    }
    return t;
}

static int on_transfer(struct amqp_frames *f, uint16_t channel, struct span list)
{
    struct transfer t = transfer_parse(list);
    struct amqp_partial *partial = partial_find(f, channel, t.handle);

    if (!partial)
        buf_append(&f->formats, &t.format, sizeof(t.format));
    if (t.more && !t.aborted)
        return partial ? 0 : partial_add(f, channel, t.handle);
    if (partial)
        partial_remove(f, partial);
    return 0;
}

static void on_detach(struct amqp_frames *f, uint16_t channel, struct span list)
{
    struct amqp_partial *partial;
    struct amqp_value handle;

    if (!amqp_read(&list, &handle))
        return;
    partial = partial_find(f, channel, (uint32_t)handle.u);
    if (partial)
        partial_remove(f, partial);
}

/* The list of a performative may be longer than what we keep of the frame: what is there of it is looked at. */
static bool performative_open(struct span body, uint64_t *ret_descriptor, struct span *ret_list)
{
    struct amqp_value descriptor;
    size_t header;

    if (body.len == 0 || body.at[0] != 0)
        return false;
    body = span_of(body.at + 1, body.len - 1);
    if (!amqp_read(&body, &descriptor) || descriptor.kind != AMQP_UINT || body.len == 0)
        return false;
    switch ((uint8_t)body.at[0]) {
    case 0x45:
        header = 1;
        break;
    case 0xc0:
        header = 3;
        break;
    case 0xd0:
        header = 9;
        break;
    default:
        return false;
    }
    if (body.len < header)
        return false;
    *ret_descriptor = descriptor.u;
    *ret_list = span_of(body.at + header, body.len - header);
    return true;
}

static uint32_t be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static int frame_look(struct amqp_frames *f, const uint8_t *frame, uint32_t len)
{
    uint32_t data_offset = (uint32_t)frame[4] * 4;
    uint16_t channel = (uint16_t)(frame[6] << 8 | frame[7]);
    uint64_t descriptor;
    struct span list;

    if (data_offset > len ||
        !performative_open(span_of(frame + data_offset, len - data_offset), &descriptor, &list))
        return 0; /* an empty frame, or one that proton will complain of */
    switch (descriptor) {
    case AMQP_PERFORMATIVE_TRANSFER:
        return on_transfer(f, channel, list);
    case AMQP_PERFORMATIVE_DETACH:
        on_detach(f, channel, list);
        return 0;
    case AMQP_PERFORMATIVE_END:
        partial_remove_channel(f, channel);
        return 0;
    default:
        return 0;
    }
}

static uint32_t min_size(size_t a, size_t b)
{
    return (uint32_t)(a < b ? a : b);
}

static void eat(struct span *s, size_t len)
{
    *s = span_of(s->at + len, s->len - len);
}

static void head_fill(struct amqp_frames *f, struct span *in, uint32_t want)
{
    uint32_t n = min_size(in->len, want - f->head_len);

    if (n == 0)
        return; /* @in may be nowhere */
    memcpy(f->head + f->head_len, in->at, n);
    f->head_len += n;
    eat(in, n);
}

/* A frame that lies whole in @in is looked at in place: the usual case. */
static int frame_in_place(struct amqp_frames *f, struct span *in, bool *ret_done)
{
    uint32_t size;
    int r;

    *ret_done = false;
    if (f->head_len > 0 || in->len < FRAME_HEADER)
        return 0;
    size = be32((const uint8_t *)in->at);
    if (size < FRAME_HEADER || size > in->len)
        return 0;
    r = frame_look(f, (const uint8_t *)in->at, min_size(size, AMQP_FRAMES_HEAD_MAX));
    eat(in, size);
    *ret_done = true;
    return r;
}

static int frame_in_pieces(struct amqp_frames *f, struct span *in)
{
    uint32_t size;

    if (f->head_want == 0) {
        head_fill(f, in, FRAME_HEADER);
        if (f->head_len < FRAME_HEADER)
            return 0;
        size = be32(f->head);
        if (size < FRAME_HEADER) {
            f->broken = true;
            return 0;
        }
        f->head_want = min_size(size, AMQP_FRAMES_HEAD_MAX);
        f->skip = size - f->head_want;
    }
    head_fill(f, in, f->head_want);
    if (f->head_len < f->head_want)
        return 0;
    f->head_len = f->head_want = 0;
    return frame_look(f, f->head, min_size(be32(f->head), AMQP_FRAMES_HEAD_MAX));
}

static int feed_one(struct amqp_frames *f, struct span *in)
{
    bool done;
    int r;

    if (f->skip > 0 && f->head_len == 0) {
        uint32_t n = min_size(in->len, f->skip);

        eat(in, n);
        f->skip -= n;
        return 0;
    }
    r = frame_in_place(f, in, &done);
    if (done)
        return r;
    return frame_in_pieces(f, in);
}

int amqp_frames_feed(struct amqp_frames *f, struct span bytes)
{
    if (!f->begun) {
        head_fill(f, &bytes, PROTOCOL_HEADER);
        if (f->head_len < PROTOCOL_HEADER)
            return 0;
        f->head_len = 0;
        f->begun = true;
    }
    while (bytes.len > 0 && !f->broken) {
        int r = feed_one(f, &bytes);

        if (r != 0)
            return r;
    }
    return 0;
}

uint32_t amqp_frames_next_format(struct amqp_frames *f)
{
    uint32_t format;

    if (buf_len(&f->formats) < sizeof(format))
        return 0;
    memcpy(&format, buf_span(&f->formats).at, sizeof(format));
    buf_eat(&f->formats, sizeof(format));
    return format;
}
