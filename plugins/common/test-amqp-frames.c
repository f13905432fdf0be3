#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "amqp-frames.h"
#include "mem.h"

#define HEADER "AMQP\x00\x01\x00\x00"
/* transfer{handle, delivery-id, tag, message-format, settled null, more} and a payload of four bytes */
#define TRANSFER(channel, handle, format, more)                                                    \
    "\x00\x00\x00\x1f\x02\x00\x00" channel "\x00\x53\x14\xc0\x0e\x06\x52" handle                   \
    "\x43\xa0\x01t" format "\x40" more "body"
#define PLAIN "\x70\x00\x00\x00\x00"
#define BATCH "\x70\x80\x01\x37\x00"
#define MORE  "\x41"
#define LAST  "\x42"
#define DETACH(channel, handle)                                                                    \
    "\x00\x00\x00\x10\x02\x00\x00" channel "\x00\x53\x16\xc0\x03\x01\x52" handle
#define END(channel) "\x00\x00\x00\x0c\x02\x00\x00" channel "\x00\x53\x17\x45"
#define EMPTY        "\x00\x00\x00\x08\x02\x00\x00\x00"

enum { NONE = 1 }; /* no format ends in it */

static const struct {
    struct span in;
    uint32_t want[5];
} cases[] = {
    { SPAN(HEADER EMPTY TRANSFER("\x00", "\x01", BATCH, LAST)), { 0x80013700, NONE } },
    { SPAN(HEADER TRANSFER("\x00", "\x01", PLAIN, LAST) TRANSFER("\x00", "\x01", BATCH, LAST)),
      { 0, 0x80013700, NONE } },
    /* one delivery in three frames: the format of the first counts */
    { SPAN(HEADER TRANSFER("\x00", "\x01", BATCH, MORE) TRANSFER("\x00", "\x01", PLAIN, MORE)
               TRANSFER("\x00", "\x01", PLAIN, LAST) TRANSFER("\x00", "\x01", PLAIN, LAST)),
      { 0x80013700, 0, NONE } },
    /* two links, and the same handle on another channel, interleaved */
    { SPAN(HEADER TRANSFER("\x00", "\x01", BATCH, MORE) TRANSFER("\x00", "\x02", PLAIN, LAST)
               TRANSFER("\x01", "\x01", PLAIN, LAST) TRANSFER("\x00", "\x01", PLAIN, LAST)),
      { 0x80013700, 0, 0, NONE } },
    /* a link that ended amid a delivery begins anew */
    { SPAN(HEADER TRANSFER("\x00", "\x01", BATCH, MORE) DETACH("\x00", "\x01")
               TRANSFER("\x00", "\x01", PLAIN, LAST)),
      { 0x80013700, 0, NONE } },
    { SPAN(HEADER TRANSFER("\x05", "\x01", BATCH, MORE) END("\x05")
               TRANSFER("\x05", "\x01", PLAIN, LAST)),
      { 0x80013700, 0, NONE } },
    /* aborted: field 9 */
    { SPAN(HEADER TRANSFER("\x00", "\x01", BATCH,
                           MORE) "\x00\x00\x00\x1a\x02\x00\x00\x00\x00\x53\x14\xc0\x0d\x0a\x52\x01"
                                 "\x43\x40\x40\x40\x41\x40\x40\x40\x41" TRANSFER("\x00", "\x01",
                                                                                 PLAIN, LAST)),
      { 0x80013700, 0, NONE } },
    { SPAN(HEADER), { NONE } },
    { SPAN("AMQP"), { NONE } },
    /* a frame of three bytes: proton's to refuse; nothing after it is looked at */
    { SPAN(HEADER "\x00\x00\x00\x03\x02\x00\x00\x00" TRANSFER("\x00", "\x01", BATCH, LAST)),
      { NONE } },
    /* no list behind the descriptor; a data offset beyond the frame */
    { SPAN(HEADER "\x00\x00\x00\x0c\x02\x00\x00\x00\x00\x53\x14\x40"), { NONE } },
    { SPAN(HEADER "\x00\x00\x00\x08\xff\x00\x00\x00"), { NONE } },
};

static void check(struct amqp_frames *f, const uint32_t *want)
{
    for (; *want != NONE; want++)
        assert_int_equal(amqp_frames_next_format(f), *want);
    assert_int_equal(buf_len(&f->formats), 0);
    assert_int_equal(amqp_frames_next_format(f), 0);
}

static void test_feed_whole(void **state)
{
    for (size_t n = 0; n < ELEMENTSOF(cases); n++) {
        struct amqp_frames f = {};

        assert_int_equal(amqp_frames_feed(&f, cases[n].in), 0);
        check(&f, cases[n].want);
        amqp_frames_done(&f);
    }
}

static void test_feed_in_pieces(void **state)
{
    for (size_t piece = 1; piece < 40; piece++)
        for (size_t n = 0; n < ELEMENTSOF(cases); n++) {
            struct amqp_frames f = {};

            for (size_t at = 0; at < cases[n].in.len; at += piece) {
                size_t len = cases[n].in.len - at < piece ? cases[n].in.len - at : piece;

                assert_int_equal(amqp_frames_feed(&f, span_of(cases[n].in.at + at, len)), 0);
            }
            check(&f, cases[n].want);
            amqp_frames_done(&f);
        }
}

/* Payloads are skipped, whatever stands in them, however they are cut. */
static void test_feed_large_frame(void **state)
{
    enum { PAYLOAD = 60000, FRAME = 0x1f - 4 + PAYLOAD };
    struct buf in = {};

    buf_append_span(&in, SPAN(HEADER));
    for (unsigned n = 0; n < 2; n++) {
        struct span transfer = SPAN(TRANSFER("\x00", "\x01", BATCH, LAST));

        buf_append_be32(&in, FRAME);
        buf_append_span(&in, span_of(transfer.at + 4, transfer.len - 8));
        memset(buf_reserve(&in, PAYLOAD), 0x14, PAYLOAD);
        buf_commit(&in, PAYLOAD);
    }
    for (size_t piece = 500; piece < 3000; piece += 7) {
        struct amqp_frames f = {};
        struct span all = buf_span(&in);

        for (size_t at = 0; at < all.len; at += piece)
            assert_int_equal(
                amqp_frames_feed(&f,
                                 span_of(all.at + at, all.len - at < piece ? all.len - at : piece)),
                0);
        assert_int_equal(amqp_frames_next_format(&f), 0x80013700);
        assert_int_equal(amqp_frames_next_format(&f), 0x80013700);
        assert_int_equal(buf_len(&f.formats), 0);
        amqp_frames_done(&f);
    }
    buf_done(&in);
}

static void test_feed_limit(void **state)
{
    struct amqp_frames f = {};
    char frame[] = TRANSFER("\x00", "\x01", BATCH, MORE);
    int r = 0;

    assert_int_equal(amqp_frames_feed(&f, SPAN(HEADER)), 0);
    for (unsigned n = 0; n <= AMQP_FRAMES_PARTIAL_MAX && r == 0; n++) {
        frame[6] = (char)(n >> 8);
        frame[7] = (char)n;
        r = amqp_frames_feed(&f, span_of(frame, sizeof(frame) - 1));
        assert_int_equal(r, n < AMQP_FRAMES_PARTIAL_MAX ? 0 : AMQP_FRAMES_E_LIMIT);
    }
    amqp_frames_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_feed_whole),
        cmocka_unit_test(test_feed_in_pieces),
        cmocka_unit_test(test_feed_large_frame),
        cmocka_unit_test(test_feed_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
