/* Whatever a client sends as a message, a batch or an address: decoded or refused, and what was decoded encodes again. */
#include <stddef.h>
#include <stdint.h>

#include "amqp-message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_inner(struct span inner, void *userdata)
{
    const char *expected;
    Bus__Message *m;

    (void)amqp_message_decode(inner, userdata, &m, &expected);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span in = span_of(data, size);
    struct arena *arena = arena_new();
    struct amqp_address address;
    struct buf out = {};
    const char *expected;
    Bus__Message *m;

    if (amqp_message_decode(in, arena, &m, &expected) == 0) {
        amqp_message_encode_upstream(m, &out);
        if (amqp_message_decode(buf_span(&out), arena, &m, &expected) != 0)
            __builtin_trap();
    }
    (void)amqp_batch_each(in, on_inner, arena);
    (void)amqp_address_parse(in, &address);
    buf_done(&out);
    arena_free(arena);
    return 0;
}
