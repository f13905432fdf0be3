/*
 * Which batch may be sent now, which is committed, when to go back: go-back-N as a pure machine,
 * without bus or clock. Batches are known by their sequence 1, 2, 3, …
 *
 * After any answer but "done" nothing new is sent until every open request is answered (those
 * behind it find a gap); then everything that is not done is sent again, in order.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { SEND_WINDOW_MAX = 8 };

enum send_answer {
    SEND_DONE,
    SEND_GAP,   /* an earlier batch is missing there */
    SEND_RETRY, /* not now: BUSY, FULL, UNAVAILABLE, … */
};

struct send_window {
    unsigned size;        /* batches at most, up to SEND_WINDOW_MAX */
    uint64_t base, next;  /* [base, next) is in the window */
    uint64_t cursor;      /* the next to send */
    unsigned outstanding; /* sent and not answered */
    bool going_back;
    bool wait;         /* before going back: the other side asked for time, or makes no progress */
    unsigned failures; /* in a row, nothing done in between */
    bool done[SEND_WINDOW_MAX];
};

void send_window_init(struct send_window *w, unsigned size);
unsigned send_window_room(const struct send_window *w);
uint64_t send_window_add(struct send_window *w); /* asserts room; its sequence */

/* The next to send now; it then counts as sent. False: none. */
bool send_window_take(struct send_window *w, uint64_t *ret_sequence);
void send_window_answered(struct send_window *w, uint64_t sequence, enum send_answer answer);

/* The oldest is done: it leaves the window. False: it is not. */
bool send_window_commit(struct send_window *w, uint64_t *ret_sequence);

/* True when all is answered and something failed: call send_window_go_back() after @ret_delay_usec.
 */
bool send_window_stuck(const struct send_window *w, uint64_t *ret_delay_usec);
void send_window_go_back(struct send_window *w);
/* Instead of going back: what is not done was refused, and leaves the window, which is empty then. The
 * next batch has the sequence of the first of these. */
void send_window_give_up(struct send_window *w);
