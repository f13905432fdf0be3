#include "send-window.h"

#include <assert.h>

static const uint64_t DELAY_MIN_USEC = 10 * 1000, DELAY_MAX_USEC = 1000 * 1000;

/* A gap is mended at once; one that stays after this many attempts is something else. */
enum { GAPS_WITHOUT_WAITING = 3 };

void send_window_init(struct send_window *w, unsigned size)
{
    assert(size > 0 && size <= SEND_WINDOW_MAX);
    *w = (struct send_window){ .size = size, .base = 1, .next = 1, .cursor = 1 };
}

unsigned send_window_room(const struct send_window *w)
{
    return w->size - (unsigned)(w->next - w->base);
}

uint64_t send_window_add(struct send_window *w)
{
    assert(send_window_room(w) > 0);
    w->done[w->next % SEND_WINDOW_MAX] = false;
    return w->next++;
}

bool send_window_take(struct send_window *w, uint64_t *ret_sequence)
{
    if (w->going_back)
        return false;
    while (w->cursor < w->next && w->done[w->cursor % SEND_WINDOW_MAX])
        w->cursor++;
    if (w->cursor == w->next)
        return false;
    w->outstanding++;
    *ret_sequence = w->cursor++;
    return true;
}

void send_window_answered(struct send_window *w, uint64_t sequence, enum send_answer answer)
{
    assert(w->outstanding > 0 && sequence >= w->base && sequence < w->cursor);
    w->outstanding--;
    if (answer == SEND_DONE) {
        w->done[sequence % SEND_WINDOW_MAX] = true;
        w->failures = 0;
        return;
    }
    if (!w->going_back)
        w->failures++;
    w->going_back = true;
    w->wait |= answer == SEND_RETRY || w->failures > GAPS_WITHOUT_WAITING;
}

bool send_window_commit(struct send_window *w, uint64_t *ret_sequence)
{
    if (w->base == w->next || !w->done[w->base % SEND_WINDOW_MAX])
        return false;
    *ret_sequence = w->base++;
    return true;
}

bool send_window_stuck(const struct send_window *w, uint64_t *ret_delay_usec)
{
    uint64_t delay = DELAY_MIN_USEC;

    if (!w->going_back || w->outstanding > 0)
        return false;
    for (unsigned n = 1; n < w->failures && delay < DELAY_MAX_USEC; n++)
        delay *= 2;
    if (delay > DELAY_MAX_USEC)
        delay = DELAY_MAX_USEC;
    *ret_delay_usec = w->wait ? delay : 0;
    return true;
}

void send_window_go_back(struct send_window *w)
{
    assert(w->outstanding == 0);
    w->going_back = w->wait = false;
    w->cursor = w->base;
}

void send_window_give_up(struct send_window *w)
{
    assert(w->outstanding == 0);
    w->next = w->base;
    w->failures = 0;
    send_window_go_back(w);
}
