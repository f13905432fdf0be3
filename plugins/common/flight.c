#include "flight.h"

#include <assert.h>
#include <search.h>

struct range {
    uint64_t first, last; /* inclusive */
    Bus__Outcome outcome;
    bool taken; /* the store was told */
};

/* Order, and positions, hold within one of these. */
struct flight_stream {
    struct flight_partition *partition;
    struct flight_stream *next; /* of the partition */
    uint32_t priority;
    uint64_t last_held; /* the greatest position added since messages were last given back */
    unsigned held;
    struct range *ranges;
    unsigned range_count, range_capacity;
    TAILQ_ENTRY(flight_stream) settled;
    bool has_settled; /* it is in flight->settled */
};

struct flight {
    enum flight_names names;
    void *partitions;                    /* tsearch() by name */
    TAILQ_HEAD(, flight_stream) settled; /* streams with ranges */
    struct flight_totals totals;
    Bus__AckRange *taken; /* the ranges of the request that is open */
    Bus__AckRange **taken_pointers;
    size_t taken_count;
};

static int partition_compare(const void *a, const void *b)
{
    const struct flight_partition *x = a, *y = b;

    return strcmp(x->name, y->name);
}

struct flight *flight_new(enum flight_names names)
{
    struct flight *f = xnew(struct flight);

    f->names = names;
    TAILQ_INIT(&f->settled);
    return f;
}

void flight_forget(struct flight_message *m)
{
    struct flight_partition *p = m->stream->partition;

    if (p->next_to_send == m)
        p->next_to_send = TAILQ_NEXT(m, link);
    TAILQ_REMOVE(&p->messages, m, link);
    p->count--;
    m->stream->held--;
    p->flight->totals.messages--;
    p->flight->totals.bytes -= m->len;
    if (m->sent) {
        p->in_flight--;
        p->flight->totals.in_flight--;
    }
    free(m);
}

static void partition_free(void *userdata)
{
    struct flight_partition *p = userdata;
    struct flight_stream *s;

    flight_give_back(p);
    while ((s = p->streams)) {
        p->streams = s->next;
        free(s->ranges);
        free(s);
    }
    free(p->name);
    free(p);
}

static void taken_free(struct flight *f)
{
    free(f->taken);
    free(f->taken_pointers);
    f->taken = NULL;
    f->taken_pointers = NULL;
    f->taken_count = 0;
}

struct flight *flight_free(struct flight *f)
{
    if (!f)
        return NULL;
    tdestroy(f->partitions, partition_free);
    taken_free(f);
    free(f);
    return NULL;
}

struct flight_partition *flight_partition(struct flight *f, const char *name)
{
    struct flight_partition key = { .name = (char *)name }, *p;
    void *found = tfind(&key, &f->partitions, partition_compare);

    if (found)
        return *(struct flight_partition **)found;
    p = xnew(struct flight_partition);
    p->flight = f;
    p->name = xstrdup(name);
    TAILQ_INIT(&p->messages);
    found = tsearch(p, &f->partitions, partition_compare);
    assert(found); /* else memory is out */
    return p;
}

static struct flight_stream *stream_get(struct flight_partition *p, uint32_t priority)
{
    struct flight_stream *s;

    for (s = p->streams; s; s = s->next)
        if (s->priority == priority)
            return s;
    s = xnew(struct flight_stream);
    s->partition = p;
    s->priority = priority;
    s->next = p->streams;
    p->streams = s;
    return s;
}

static bool stream_holds(const struct flight_stream *s, uint64_t position)
{
    const struct flight_message *m;

    for (unsigned n = 0; n < s->range_count; n++)
        if (position >= s->ranges[n].first && position <= s->ranges[n].last)
            return true;
    if (s->held == 0 || position > s->last_held)
        return false;
    TAILQ_FOREACH(m, &s->partition->messages, link)
    if (m->stream == s && m->position == position)
        return true;
    return false;
}

/* Settlements come nearly in order, so the last range of their outcome nearly always grows. */
static void stream_settle(struct flight_stream *s, uint64_t position, Bus__Outcome outcome)
{
    struct flight *f = s->partition->flight;

    if (!s->has_settled) {
        TAILQ_INSERT_TAIL(&f->settled, s, settled);
        s->has_settled = true;
    }
    for (unsigned n = s->range_count; n > 0; n--) {
        struct range *r = &s->ranges[n - 1];

        if (r->taken || r->outcome != outcome)
            continue;
        if (position == r->last + 1) {
            r->last = position;
            return;
        }
        if (position + 1 == r->first) {
            r->first = position;
            return;
        }
    }
    xgrow(s->ranges, s->range_count, s->range_capacity);
    s->ranges[s->range_count++] = (struct range){ position, position, outcome, false };
}

struct flight_message *flight_add(struct flight_partition *p, uint32_t priority, uint64_t position,
                                  struct span data)
{
    struct flight_stream *s = stream_get(p, priority);
    struct flight_message *m;

    if (stream_holds(s, position))
        return NULL;
    assert(data.len <= UINT32_MAX);
    m = xalloc0(sizeof(*m) + data.len);
    m->stream = s;
    m->position = position;
    m->len = (uint32_t)data.len;
    if (data.len > 0)
        memcpy(m->data, data.at, data.len);
    TAILQ_INSERT_TAIL(&p->messages, m, link);
    if (!p->next_to_send)
        p->next_to_send = m;
    if (s->held == 0 || position > s->last_held)
        s->last_held = position;
    s->held++;
    p->count++;
    p->flight->totals.messages++;
    p->flight->totals.bytes += data.len;
    return m;
}

void flight_refuse(struct flight_partition *p, uint32_t priority, uint64_t position,
                   Bus__Outcome outcome)
{
    struct flight_stream *s = stream_get(p, priority);

    if (!stream_holds(s, position))
        stream_settle(s, position, outcome);
}

const char *flight_name(const struct flight_message *m)
{
    return m->stream->partition->name;
}

struct flight_message *flight_next(struct flight_partition *p)
{
    return p->next_to_send;
}

void flight_sent(struct flight_message *m)
{
    struct flight_partition *p = m->stream->partition;

    assert(p->next_to_send == m);
    m->sent = true;
    p->in_flight++;
    p->flight->totals.in_flight++;
    p->next_to_send = TAILQ_NEXT(m, link);
}

void flight_settled(struct flight_message *m, Bus__Outcome outcome)
{
    stream_settle(m->stream, m->position, outcome);
    flight_forget(m);
}

void flight_returned(struct flight_message *m)
{
    struct flight_partition *p = m->stream->partition;

    assert(m->sent);
    m->sent = false;
    p->in_flight--;
    p->flight->totals.in_flight--;
}

void flight_rewind(struct flight_partition *p)
{
    struct flight_message *m;

    TAILQ_FOREACH(m, &p->messages, link)
    if (m->sent)
        flight_returned(m);
    p->next_to_send = TAILQ_FIRST(&p->messages);
}

void flight_give_back(struct flight_partition *p)
{
    struct flight_message *m;

    while ((m = TAILQ_FIRST(&p->messages)))
        flight_forget(m);
}

unsigned flight_settle_all(struct flight_partition *p, Bus__Outcome outcome)
{
    struct flight_message *m;
    unsigned count = 0;

    for (; (m = TAILQ_FIRST(&p->messages)); count++)
        flight_settled(m, outcome);
    return count;
}

static size_t ranges_count(const struct flight *f)
{
    const struct flight_stream *s;
    size_t count = 0;

    TAILQ_FOREACH(s, &f->settled, settled)
    count += s->range_count;
    return count;
}

bool flight_acks_take(struct flight *f, Bus__Ack *ack)
{
    struct flight_stream *s;

    if (f->taken || TAILQ_EMPTY(&f->settled))
        return false;
    f->taken = xnew_n(Bus__AckRange, ranges_count(f));
    f->taken_pointers = xnew_n(Bus__AckRange *, ranges_count(f));
    TAILQ_FOREACH(s, &f->settled, settled)
    for (unsigned n = 0; n < s->range_count; n++) {
        Bus__AckRange *r = &f->taken[f->taken_count];

        bus__ack_range__init(r);
        *(f->names == FLIGHT_OF_QUEUES ? &r->queue : &r->partition) = s->partition->name;
        r->priority = s->priority;
        r->first = s->ranges[n].first;
        r->last = s->ranges[n].last;
        r->outcome = s->ranges[n].outcome;
        s->ranges[n].taken = true;
        f->taken_pointers[f->taken_count++] = r;
    }
    flight_acks_again(f, ack);
    return true;
}

void flight_acks_again(struct flight *f, Bus__Ack *ack)
{
    ack->ranges = f->taken_pointers;
    ack->n_ranges = f->taken_count;
}

static void stream_confirmed(struct flight_stream *s)
{
    unsigned kept = 0;

    for (unsigned n = 0; n < s->range_count; n++)
        if (!s->ranges[n].taken)
            s->ranges[kept++] = s->ranges[n];
    s->range_count = kept;
    if (kept > 0)
        return;
    TAILQ_REMOVE(&s->partition->flight->settled, s, settled);
    s->has_settled = false;
}

void flight_acks_confirmed(struct flight *f)
{
    struct flight_stream *s, *next;

    for (s = TAILQ_FIRST(&f->settled); s; s = next) {
        next = TAILQ_NEXT(s, settled);
        stream_confirmed(s);
    }
    taken_free(f);
}

bool flight_acks_pending(const struct flight *f)
{
    return !TAILQ_EMPTY(&f->settled);
}

const struct flight_totals *flight_totals(const struct flight *f)
{
    return &f->totals;
}
