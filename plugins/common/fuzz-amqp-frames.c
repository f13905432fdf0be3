/* The first bytes that a client sends, cut anywhere: SASL, then frames. */
#include <stddef.h>
#include <stdint.h>

#include "amqp-frames.h"
#include "amqp-sasl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first byte says how the rest is cut. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct amqp_frames frames = {};
    struct amqp_sasl sasl = {};
    size_t piece = size > 0 ? (size_t)data[0] + 1 : 1;
    int over = 0, limit = 0;

    for (size_t at = 1; at < size && over != AMQP_SASL_E_FAILED && limit == 0; at += piece) {
        struct span bytes = span_of(data + at, size - at < piece ? size - at : piece);

        if (over == 0) {
            over = amqp_sasl_feed(&sasl, &bytes);
            if (over == AMQP_SASL_E_DONE)
                limit = amqp_frames_feed(&frames, buf_span(&sasl.replay));
        }
        if (over == AMQP_SASL_E_DONE && limit == 0)
            limit = amqp_frames_feed(&frames, bytes);
        (void)amqp_frames_next_format(&frames);
    }
    amqp_frames_done(&frames);
    amqp_sasl_done(&sasl);
    return 0;
}
