#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "amqp-sasl.h"
#include "mem.h"

#define SASL "AMQP\x03\x01\x00\x00"
#define BARE "AMQP\x00\x01\x00\x00"
#define MECHANISMS                                                                                 \
    "\x00\x00\x00\x24\x02\x01\x00\x00\x00\x53\x40\xc0\x17\x01\xe0\x14\x02\xa3\x07MSSBCBS\x09"      \
    "ANONYMOUS"
#define OUTCOME(code) "\x00\x00\x00\x10\x02\x01\x00\x00\x00\x53\x44\xc0\x03\x01\x50" code
/* as the C SDK sends it: an empty initial response */
#define INIT_MSSBCBS                                                                               \
    "\x00\x00\x00\x19\x02\x01\x00\x00\x00\x53\x41\xc0\x0c\x02\xa3\x07MSSBCBS\xa0\x00"
#define INIT_ANONYMOUS                                                                             \
    "\x00\x00\x00\x19\x02\x01\x00\x00\x00\x53\x41\xc0\x0c\x01\xa3\x09"                             \
    "ANONYMOUS"
#define INIT_EXTERNAL                                                                              \
    "\x00\x00\x00\x18\x02\x01\x00\x00\x00\x53\x41\xc0\x0b\x01\xa3\x08"                             \
    "EXTERNAL"

/* These bytes in, those bytes out. */
static const struct {
    struct span in;
    int want;
    struct span out, replay, rest;
} cases[] = {
    { SPAN(SASL), 0, SPAN(SASL MECHANISMS), SPAN(""), SPAN("") },
    { SPAN(SASL INIT_MSSBCBS BARE), AMQP_SASL_E_DONE, SPAN(SASL MECHANISMS OUTCOME("\x00")),
      SPAN(""), SPAN(BARE) },
    { SPAN(SASL INIT_ANONYMOUS), AMQP_SASL_E_DONE, SPAN(SASL MECHANISMS OUTCOME("\x00")), SPAN(""),
      SPAN("") },
    { SPAN(SASL INIT_EXTERNAL), AMQP_SASL_E_FAILED, SPAN(SASL MECHANISMS OUTCOME("\x01")), SPAN(""),
      SPAN("") },
    { SPAN(BARE "open"), AMQP_SASL_E_DONE, SPAN(""), SPAN(BARE), SPAN("open") },
    { SPAN("GET / HTTP/1.1\r\n"), AMQP_SASL_E_DONE, SPAN(""), SPAN("GET / HT"),
      SPAN("TP/1.1\r\n") },
    { SPAN("AMQ"), 0, SPAN(""), SPAN(""), SPAN("") },
    /* frames that are none: too large, too small, of AMQP, with a data offset beyond their end, another performative */
    { SPAN(SASL "\x00\x01\x00\x00\x02\x01\x00\x00"), AMQP_SASL_E_FAILED, SPAN(SASL MECHANISMS),
      SPAN(""), SPAN("") },
    { SPAN(SASL "\x00\x00\x00\x07\x02\x01\x00\x00"), AMQP_SASL_E_FAILED, SPAN(SASL MECHANISMS),
      SPAN(""), SPAN("") },
    { SPAN(SASL "\x00\x00\x00\x08\x02\x00\x00\x00"), AMQP_SASL_E_FAILED,
      SPAN(SASL MECHANISMS OUTCOME("\x01")), SPAN(""), SPAN("") },
    { SPAN(SASL "\x00\x00\x00\x08\x09\x01\x00\x00"), AMQP_SASL_E_FAILED,
      SPAN(SASL MECHANISMS OUTCOME("\x01")), SPAN(""), SPAN("") },
    { SPAN(SASL "\x00\x00\x00\x0c\x02\x01\x00\x00\x00\x53\x44\x45"), AMQP_SASL_E_FAILED,
      SPAN(SASL MECHANISMS OUTCOME("\x01")), SPAN(""), SPAN("") },
};

static void assert_span(struct span got, struct span want)
{
    assert_int_equal(got.len, want.len);
    if (want.len > 0)
        assert_memory_equal(got.at, want.at, want.len);
}

/* Whole, and in pieces of every size. */
static void test_feed(void **state)
{
    for (size_t piece = 1; piece < 60; piece++)
        for (size_t n = 0; n < ELEMENTSOF(cases); n++) {
            struct amqp_sasl s = {};
            size_t at = 0, eaten = 0;
            int r = 0;

            while (r == 0 && at < cases[n].in.len) {
                size_t len = cases[n].in.len - at < piece ? cases[n].in.len - at : piece;
                struct span bytes = span_of(cases[n].in.at + at, len);

                r = amqp_sasl_feed(&s, &bytes);
                at += len;
                eaten = at - bytes.len;
            }
            assert_int_equal(r, cases[n].want);
            assert_span(buf_span(&s.out), cases[n].out);
            assert_span(buf_span(&s.replay), cases[n].replay);
            assert_span(span_of(cases[n].in.at + eaten, cases[n].in.len - eaten), cases[n].rest);
            amqp_sasl_done(&s);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_feed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
