/* The index of the queues and the decisions about them. May lose everything: it is made anew from
 * the database. */
#include "queues.h"

#include <assert.h>
#include <search.h>
#include <string.h>

#include "mem.h"

struct partitions {
    struct partition **items;
    size_t count, capacity;
};

struct queues {
    struct queue **items;
    size_t count, capacity;
    void *names;   /* tsearch() of them */
    void *readers; /* tsearch() by name */
    size_t reader_count;
    uint32_t next_id;
    uint8_t group;             /* the one that gathers: 1 and 2 in turn, the other is written */
    struct partitions dirty;   /* changed in it */
    struct partitions closing; /* changed in the one that is being written */
    bool any_queue_dirty;
    uint64_t messages, bytes;
};

/* The window: entries by position. */

static size_t window_count(const struct window *w)
{
    return w->end - w->start;
}

static struct window_entry *window_first(const struct window *w)
{
    return w->start < w->end ? &w->entries[w->start] : NULL;
}

/* The index of the first entry at or behind @position. */
static size_t window_search(const struct window *w, uint64_t position)
{
    size_t low = w->start, high = w->end;

    if (low < high && w->entries[high - 1].position < position)
        return high; /* what a consumer is given goes to the end */
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (w->entries[middle].position < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct window_entry *window_find(const struct window *w, uint64_t position)
{
    size_t i = window_search(w, position);

    return i < w->end && w->entries[i].position == position ? &w->entries[i] : NULL;
}

static void window_make_room(struct window *w)
{
    if (w->end < w->capacity)
        return;
    if (w->start >= w->capacity / 2 && w->start > 0) {
        memmove(w->entries, w->entries + w->start, window_count(w) * sizeof(*w->entries));
        w->end -= w->start;
        w->start = 0;
        return;
    }
    xgrow(w->entries, w->end, w->capacity);
}

static void window_insert(struct window *w, const struct window_entry *entry)
{
    size_t i;

    window_make_room(w);
    i = window_search(w, entry->position);
    memmove(w->entries + i + 1, w->entries + i, (w->end - i) * sizeof(*w->entries));
    w->entries[i] = *entry;
    w->end++;
}

static void window_clear(struct window *w)
{
    free(w->entries);
    *w = (struct window){};
}

/* Streams. */

static struct queue *stream_queue(const struct stream *s)
{
    return s->partition->queue;
}

static struct queues *stream_queues(const struct stream *s)
{
    return s->partition->queue->queues;
}

static void partition_touch(struct partition *p)
{
    struct queues *queues = p->queue->queues;

    p->queue->dirty = true;
    queues->any_queue_dirty = true;
    if (p->dirty)
        return;
    p->dirty = true;
    xgrow(queues->dirty.items, queues->dirty.count, queues->dirty.capacity);
    queues->dirty.items[queues->dirty.count++] = p;
}

/* In the list of those that wait to be read, or out of it. */
static void stream_refresh(struct stream *s)
{
    bool ready = s->cursor < s->durable && s->meta.count > 0 && !s->partition->parked;

    if (ready == s->ready)
        return;
    if (ready)
        TAILQ_INSERT_TAIL(&s->level->ready, s, link);
    else
        TAILQ_REMOVE(&s->level->ready, s, link);
    s->ready = ready;
    stream_queue(s)->reader->ready += ready ? 1 : (size_t)-1;
}

static void stream_pop(struct stream *s)
{
    s->removed--;
    stream_queue(s)->window_count--;
    if (++s->window.start == s->window.end)
        window_clear(&s->window);
}

/* Lets the cursor and the front go as far as everything there is removed. */
static void stream_settle(struct stream *s)
{
    struct window_entry *front;

    for (size_t i = window_search(&s->window, s->cursor);
         i < s->window.end && s->window.entries[i].position == s->cursor; i++)
        s->cursor++; /* what is in flight lies below: this one is removed */
    while ((front = window_first(&s->window)) && front->removed_in && front->position < s->cursor)
        stream_pop(s);
    s->meta.first = front && front->position < s->cursor ? front->position : s->cursor;
    stream_refresh(s);
}

/* Keeps the entries that @keep says. */
static void stream_filter(struct stream *s,
                          bool (*keep)(const struct window_entry *e, uint64_t arg), uint64_t arg)
{
    struct window *w = &s->window;
    size_t to = w->start;

    for (size_t i = w->start; i < w->end; i++) {
        if (keep(&w->entries[i], arg))
            w->entries[to++] = w->entries[i];
        else if (w->entries[i].removed_in)
            s->removed--;
    }
    stream_queue(s)->window_count -= w->end - to;
    w->end = to;
    if (w->start == w->end)
        window_clear(w);
}

static bool keep_unless_given_from(const struct window_entry *e, uint64_t position)
{
    return e->removed_in || e->position < position;
}

static bool keep_unless_written(const struct window_entry *e, uint64_t gathering)
{
    return !e->removed_in || e->removed_in == gathering;
}

/* What was given from @position on is to be given again. */
static void stream_rewind(struct stream *s, uint64_t position)
{
    if (position >= s->cursor)
        return;
    if (position < s->meta.first)
        position = s->meta.first;
    stream_filter(s, keep_unless_given_from, position);
    s->cursor = position;
    s->expires_first_ms = 0;
    s->sweep_at = 0;
    stream_settle(s);
}

static void stream_set_empty(struct stream *s)
{
    stream_queue(s)->window_count -= window_count(&s->window);
    window_clear(&s->window);
    s->removed = 0;
    s->meta.first = s->cursor = s->meta.next;
    s->meta.unordered = false;
    s->meta.expires_last_ms = 0;
    s->sweep_at = 0;
    stream_refresh(s);
}

static struct stream *stream_free(struct stream *s)
{
    if (!s)
        return NULL;
    if (s->ready)
        TAILQ_REMOVE(&s->level->ready, s, link);
    window_clear(&s->window);
    free(s);
    return NULL;
}

struct message_key stream_key(const struct stream *stream, uint64_t position)
{
    return (struct message_key){ .queue = stream->partition->queue->id,
                                 .partition = stream->partition->id,
                                 .priority = stream->meta.priority,
                                 .position = position };
}

static void stream_account_added(struct stream *s, uint64_t bytes, uint64_t expires_ms)
{
    if (expires_ms < s->meta.expires_last_ms)
        s->meta.unordered = true;
    else
        s->meta.expires_last_ms = expires_ms;
    s->meta.count++;
    s->meta.bytes += bytes;
    s->level->count++;
    s->level->bytes += bytes;
    stream_queue(s)->count++;
    stream_queue(s)->bytes += bytes;
    stream_queues(s)->messages++;
    stream_queues(s)->bytes += bytes;
}

uint64_t stream_append(struct stream *s, uint64_t bytes, int64_t enqueued_ms, uint64_t expires_ms,
                       uint64_t now_ms)
{
    uint64_t position = s->meta.next++;

    if (s->meta.count == 0) {
        s->expires_first_ms = expires_ms;
        s->oldest_at = position;
        s->oldest_ms = enqueued_ms;
    } else if (expires_ms < s->expires_first_ms) {
        s->expires_first_ms = expires_ms;
    }
    stream_account_added(s, bytes, expires_ms);
    s->level->meta.ledger.accepted++;
    s->partition->used_ms = now_ms;
    partition_touch(s->partition);
    return position;
}

static void stream_account_removed(struct stream *s, uint32_t bytes, enum outcome outcome)
{
    struct ledger *ledger = &s->level->meta.ledger;
    uint64_t *counters[] = {
        [OUTCOME_DELIVERED] = &ledger->delivered,
        [OUTCOME_REJECTED] = &ledger->rejected,
        [OUTCOME_EXPIRED] = &ledger->expired,
        [OUTCOME_DROPPED] = &ledger->dropped,
    };

    ++*counters[outcome];
    s->meta.count--;
    s->meta.bytes -= bytes;
    s->level->count--;
    s->level->bytes -= bytes;
    stream_queue(s)->count--;
    stream_queue(s)->bytes -= bytes;
    stream_queues(s)->messages--;
    stream_queues(s)->bytes -= bytes;
    partition_touch(s->partition);
}

bool stream_remove(struct stream *s, uint64_t position, uint32_t bytes, enum outcome outcome)
{
    struct window_entry *entry = window_find(&s->window, position);

    if (position < s->meta.first || position >= s->durable)
        return false;
    if (entry ? entry->removed_in != 0 : position < s->cursor)
        return false; /* below the cursor, what has no entry is gone */
    stream_account_removed(s, bytes, outcome);
    if (s->meta.count == 0) {
        stream_set_empty(s);
        return true;
    }
    if (entry) {
        entry->removed_in = stream_queues(s)->group;
    } else {
        window_insert(&s->window,
                      &(struct window_entry){ position, bytes, stream_queues(s)->group });
        stream_queue(s)->window_count++;
    }
    s->removed++;
    stream_settle(s);
    return true;
}

bool stream_remove_next(struct stream *s, uint64_t position, uint32_t bytes, enum outcome outcome)
{
    if (position < s->cursor || !stream_remove(s, position, bytes, outcome))
        return false;
    if (s->cursor <= position)
        s->cursor = position + 1;
    stream_settle(s);
    return true;
}

bool stream_clip(const struct stream *s, uint64_t *first, uint64_t *last)
{
    if (s->meta.count == 0 || *last < s->meta.first || *first >= s->durable || *first > *last)
        return false;
    if (*first < s->meta.first)
        *first = s->meta.first;
    if (*last >= s->durable)
        *last = s->durable - 1;
    return *first <= *last;
}

bool stream_covers(const struct stream *s, uint64_t first, uint64_t last)
{
    size_t a, b;

    if (last < s->cursor)
        return true;
    a = window_search(&s->window, first);
    b = window_search(&s->window, last);
    return b < s->window.end && s->window.entries[b].position == last && b - a == last - first;
}

const struct window_entry *stream_in_flight(const struct stream *s, uint64_t first, uint64_t last)
{
    for (size_t i = window_search(&s->window, first); i < s->window.end; i++) {
        const struct window_entry *e = &s->window.entries[i];

        if (e->position > last)
            return NULL;
        if (!e->removed_in)
            return e;
    }
    return NULL;
}

bool stream_has(const struct stream *s, uint64_t position)
{
    const struct window_entry *entry = window_find(&s->window, position);

    return entry ? !entry->removed_in : position >= s->cursor && position < s->durable;
}

void stream_read_begin(struct stream *s)
{
    struct reader *reader = stream_queue(s)->reader;

    if (s->given_in == reader->round)
        return; /* this answer reads it once more: it began where it began */
    s->given_in = reader->round;
    xgrow(reader->given, reader->given_count, reader->given_capacity);
    reader->given[reader->given_count++] = (struct given){ s, s->cursor };
}

enum offer stream_offer(struct stream *s, uint64_t position, uint32_t bytes, bool expired)
{
    struct queue *q = stream_queue(s);

    assert(position < s->durable);
    if (position < s->cursor)
        return OFFER_SKIPPED;                /* the cursor went past what is removed */
    if (window_find(&s->window, position)) { /* removed: what is in flight lies below the cursor */
        s->cursor = position + 1;
        stream_settle(s);
        return OFFER_SKIPPED;
    }
    if (expired) {
        stream_remove_next(s, position, bytes, OUTCOME_EXPIRED);
        return OFFER_EXPIRED;
    }
    if (q->window_count >= QUEUE_WINDOW_MAX)
        return OFFER_FULL;
    window_insert(&s->window, &(struct window_entry){ position, bytes, 0 });
    q->window_count++;
    s->cursor = position + 1;
    stream_settle(s);
    return OFFER_TAKEN;
}

void stream_read_end(struct stream *s, bool exhausted)
{
    struct queue *q = stream_queue(s);

    if (exhausted && s->cursor < s->durable)
        s->cursor = s->durable;
    stream_settle(s);
    TAILQ_REMOVE(&q->reader->queues, q, reader_link);
    TAILQ_INSERT_TAIL(&q->reader->queues, q, reader_link);
    if (!s->ready)
        return;
    TAILQ_REMOVE(&s->level->ready, s, link);
    TAILQ_INSERT_TAIL(&s->level->ready, s, link);
}

void stream_swept(struct stream *s, uint64_t expires_first_ms)
{
    s->sweep_at = 0;
    s->expires_first_ms = expires_first_ms;
}

/* Partitions. */

static int partition_compare(const void *a, const void *b)
{
    const struct partition *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static struct partition *partition_new(struct queue *queue, uint32_t id, struct span name)
{
    struct partition *p = xnew(struct partition);

    p->queue = queue;
    p->id = id;
    p->name = span_xdup(name);
    if (!tsearch(p, &queue->names, partition_compare))
        abort(); /* out of memory, as in mem.c */
    TAILQ_INSERT_TAIL(&queue->partitions, p, link);
    return p;
}

static struct partition *partition_free(struct partition *p)
{
    if (!p)
        return NULL;
    for (size_t i = 0; i < p->stream_count; i++)
        stream_free(p->streams[i]);
    free(p->streams);
    free(p->name);
    free(p);
    return NULL;
}

/* Takes it out of its queue. */
static void partition_unlink(struct partition *p)
{
    tdelete(p, &p->queue->names, partition_compare);
    TAILQ_REMOVE(&p->queue->partitions, p, link);
}

static struct stream *partition_find_stream(struct partition *p, uint32_t priority)
{
    for (size_t i = 0; i < p->stream_count; i++)
        if (p->streams[i]->meta.priority == priority)
            return p->streams[i];
    return NULL;
}

static struct stream *partition_add_stream(struct partition *p, struct level *level,
                                           const struct stream_meta *meta)
{
    struct stream *s = xnew(struct stream);

    s->partition = p;
    s->level = level;
    s->meta = *meta;
    s->cursor = meta->first;
    s->durable = s->closing = meta->next;
    xgrow(p->streams, p->stream_count, p->stream_capacity);
    p->streams[p->stream_count++] = s;
    return s;
}

static void partition_rewind(struct partition *p)
{
    for (size_t i = 0; i < p->stream_count; i++)
        stream_rewind(p->streams[i], 0);
}

void partition_park(struct partition *p, bool parked)
{
    p->parked = parked;
    if (parked)
        partition_rewind(p);
    for (size_t i = 0; i < p->stream_count; i++)
        stream_refresh(p->streams[i]);
}

static bool partition_is_idle(const struct partition *p, uint64_t before_ms)
{
    if (p->dirty || p->closing || p->parked || p->used_ms >= before_ms)
        return false;
    for (size_t i = 0; i < p->stream_count; i++)
        if (p->streams[i]->meta.count > 0)
            return false;
    return true;
}

/* Its positions were given once: what may come later under its name begins above them. */
static void partition_forget(struct partition *p)
{
    struct queue *q = p->queue;
    struct reader *reader = q->reader;
    size_t kept = 0;

    for (size_t i = 0; i < p->stream_count; i++)
        if (q->floor < p->streams[i]->meta.next)
            q->floor = p->streams[i]->meta.next;
    for (size_t i = 0; i < reader->given_count; i++)
        if (reader->given[i].stream->partition != p)
            reader->given[kept++] = reader->given[i];
    reader->given_count = kept;
    p->gone = true;
    partition_unlink(p);
    partition_touch(p);
}

/* Readers. */

static int reader_compare(const void *a, const void *b)
{
    const struct reader *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static struct reader *queues_find_reader(struct queues *queues, const char *name)
{
    struct reader key = { .name = (char *)name }, **found;

    found = tfind(&key, &queues->readers, reader_compare);
    return found ? *found : NULL;
}

static struct reader *reader_new(struct queues *queues, const char *name)
{
    struct reader *reader = xnew(struct reader);

    reader->name = xstrdup(name);
    TAILQ_INIT(&reader->queues);
    if (!tsearch(reader, &queues->readers, reader_compare))
        abort(); /* out of memory, as in mem.c */
    queues->reader_count++;
    return reader;
}

static void reader_free(void *userdata)
{
    struct reader *reader = userdata;

    free(reader->given);
    free(reader->name);
    free(reader);
}

struct reader *queues_reader(struct queues *queues, const char *name)
{
    struct reader *reader = queues_find_reader(queues, name);
    const char *slash = strrchr(name, '/');

    if (reader || (slash && slash[1]) || queues->reader_count >= READERS_MAX)
        return reader;
    return reader_new(queues, name);
}

/* A queue has one whatever their number: queues are bounded, too. */
static void queue_join_reader(struct queue *q)
{
    const char *slash = strrchr(q->name, '/');
    _cleanup_(freep) char *name =
        slash ? span_xdup(span_of(q->name, (size_t)(slash - q->name) + 1)) : xstrdup(q->name);

    q->reader = queues_find_reader(q->queues, name);
    if (!q->reader)
        q->reader = reader_new(q->queues, name);
    TAILQ_INSERT_TAIL(&q->reader->queues, q, reader_link);
}

void reader_release(struct reader *reader)
{
    struct queue *q;
    struct partition *p;

    reader->sequence = 0;
    reader->given_count = 0;
    TAILQ_FOREACH(q, &reader->queues, reader_link)
    TAILQ_FOREACH(p, &q->partitions, link)
    {
        partition_rewind(p);
        partition_park(p, false);
    }
}

int reader_lease(struct reader *reader, uint64_t lease)
{
    if (lease < reader->lease)
        return QUEUE_E_LEASE_LOST;
    if (lease == reader->lease)
        return 0;
    reader->lease = lease;
    reader_release(reader);
    return 0;
}

int reader_fetch(struct reader *reader, uint64_t lease, uint64_t sequence)
{
    int r = reader_lease(reader, lease);

    if (r != 0)
        return r;
    if (sequence < reader->sequence)
        return QUEUE_E_SEQUENCE;
    if (sequence == reader->sequence)
        for (size_t i = 0; i < reader->given_count; i++)
            stream_rewind(reader->given[i].stream, reader->given[i].cursor);
    reader->given_count = 0;
    reader->sequence = sequence;
    reader->round++;
    return 0;
}

static struct level *queue_first_ready(const struct queue *q)
{
    for (size_t i = 0; i < q->level_count; i++)
        if (!TAILQ_EMPTY(&q->levels[i]->ready))
            return q->levels[i];
    return NULL;
}

struct stream *reader_next(struct reader *reader)
{
    const struct level *best = NULL, *level;
    const struct queue *q;

    if (reader->ready == 0)
        return NULL;
    TAILQ_FOREACH(q, &reader->queues, reader_link)
    {
        level = queue_first_ready(q);
        if (level && (!best || level->meta.priority < best->meta.priority))
            best = level;
    }
    return TAILQ_FIRST(&best->ready);
}

/* Queues. */

static int queue_compare(const void *a, const void *b)
{
    const struct queue *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static struct queue *queue_new(struct queues *queues, uint32_t id, struct span name)
{
    struct queue *q = xnew(struct queue);

    q->queues = queues;
    q->id = id;
    q->name = span_xdup(name);
    q->next_partition = 1;
    q->floor = 1;
    TAILQ_INIT(&q->partitions);
    queue_join_reader(q);
    if (!tsearch(q, &queues->names, queue_compare))
        abort(); /* out of memory, as in mem.c */
    if (queues->next_id <= id)
        queues->next_id = id + 1;
    xgrow(queues->items, queues->count, queues->capacity);
    queues->items[queues->count++] = q;
    return q;
}

static struct queue *queue_free(struct queue *q)
{
    struct partition *p;

    if (!q)
        return NULL;
    while ((p = TAILQ_FIRST(&q->partitions))) {
        partition_unlink(p);
        partition_free(p);
    }
    for (size_t i = 0; i < q->level_count; i++)
        free(q->levels[i]);
    free(q->levels);
    free(q->name);
    free(q);
    return NULL;
}

static struct level *queue_level(struct queue *q, uint32_t priority)
{
    struct level *level;
    size_t i = 0;

    while (i < q->level_count && q->levels[i]->meta.priority < priority)
        i++;
    if (i < q->level_count && q->levels[i]->meta.priority == priority)
        return q->levels[i];
    if (q->level_count == QUEUE_LEVELS_MAX)
        return NULL;
    level = xnew(struct level);
    level->meta.priority = priority;
    TAILQ_INIT(&level->ready);
    xgrow(q->levels, q->level_count, q->level_capacity);
    memmove(q->levels + i + 1, q->levels + i, (q->level_count - i) * sizeof(struct level *));
    q->levels[i] = level;
    q->level_count++;
    return level;
}

struct partition *queue_find_partition(struct queue *queue, const char *name)
{
    struct partition key = { .name = (char *)name };
    struct partition **found = tfind(&key, &queue->names, partition_compare);

    return found ? *found : NULL;
}

struct stream *queue_find_stream(struct queue *queue, const char *partition, uint32_t priority)
{
    struct partition *p = queue_find_partition(queue, partition);

    return p ? partition_find_stream(p, priority) : NULL;
}

struct stream *queue_get_stream(struct queue *queue, const char *partition, uint32_t priority)
{
    struct partition *p = queue_find_partition(queue, partition);
    struct stream *s = p ? partition_find_stream(p, priority) : NULL;
    struct level *level;

    if (s)
        return s;
    level = queue_level(queue, priority);
    if (!level)
        return NULL;
    if (!p)
        p = partition_new(queue, queue->next_partition++, span_str(partition));
    s = partition_add_stream(
        p, level,
        &(struct stream_meta){ .priority = priority, .first = queue->floor, .next = queue->floor });
    partition_touch(p);
    return s;
}

struct ledger queue_ledger(const struct queue *queue)
{
    struct ledger sum = {};

    for (size_t i = 0; i < queue->level_count; i++) {
        const struct ledger *l = &queue->levels[i]->meta.ledger;

        sum.accepted += l->accepted;
        sum.delivered += l->delivered;
        sum.expired += l->expired;
        sum.dropped += l->dropped;
        sum.rejected += l->rejected;
    }
    return sum;
}

/* All queues. */

struct queues *queues_new(void)
{
    struct queues *queues = xnew(struct queues);

    queues->next_id = 1;
    queues->group = 1;
    return queues;
}

static void leave_alone(void *queue) {}

struct queues *queues_free(struct queues *queues)
{
    if (!queues)
        return NULL;
    for (size_t i = 0; i < queues->dirty.count; i++)
        if (queues->dirty.items[i]->gone)
            partition_free(queues->dirty.items[i]);
    tdestroy(queues->names, leave_alone);
    for (size_t i = 0; i < queues->count; i++)
        queue_free(queues->items[i]);
    tdestroy(queues->readers, reader_free);
    free(queues->items);
    free(queues->dirty.items);
    free(queues->closing.items);
    free(queues);
    return NULL;
}

size_t queues_count(const struct queues *queues)
{
    return queues->count;
}

struct queue *queues_at(const struct queues *queues, size_t i)
{
    assert(i < queues->count);
    return queues->items[i];
}

uint64_t queues_messages(const struct queues *queues)
{
    return queues->messages;
}

uint64_t queues_bytes(const struct queues *queues)
{
    return queues->bytes;
}

static struct queue *queues_find_id(struct queues *queues, uint32_t id)
{
    for (size_t i = 0; i < queues->count; i++)
        if (queues->items[i]->id == id)
            return queues->items[i];
    return NULL;
}

struct queue *queues_find(struct queues *queues, const char *name)
{
    struct queue key = { .name = (char *)name },
                 **found = tfind(&key, &queues->names, queue_compare);

    return found ? *found : NULL;
}

struct queue *queues_get(struct queues *queues, const char *name)
{
    struct queue *q = queues_find(queues, name);

    if (q || queues->count == QUEUES_MAX)
        return q;
    return queue_new(queues, queues->next_id, span_str(name));
}

struct stream *queues_each(struct queues *queues, bool (*fn)(struct stream *stream, void *userdata),
                           void *userdata)
{
    for (size_t i = 0; i < queues->count; i++) {
        struct partition *p;

        TAILQ_FOREACH(p, &queues->items[i]->partitions, link)
        for (size_t j = 0; j < p->stream_count; j++)
            if (fn(p->streams[j], userdata))
                return p->streams[j];
    }
    return NULL;
}

bool stream_is_due(const struct stream *s, uint64_t now_ms)
{
    return s->meta.count > 0 && s->cursor < s->durable && s->expires_first_ms <= now_ms;
}

void queues_forget(struct queues *queues, uint64_t before_ms)
{
    for (size_t i = 0; i < queues->count; i++) {
        struct partition *p, *next;

        for (p = TAILQ_FIRST(&queues->items[i]->partitions); p; p = next) {
            next = TAILQ_NEXT(p, link);
            if (partition_is_idle(p, before_ms))
                partition_forget(p);
        }
    }
}

struct stream *queues_find_row(struct queues *queues, const struct message_key *key)
{
    struct queue *q = queues_find_id(queues, key->queue);
    struct partition *p;

    if (!q)
        return NULL;
    TAILQ_FOREACH(p, &q->partitions, link)
    if (p->id == key->partition)
        return partition_find_stream(p, key->priority);
    return NULL;
}

/* Restoring. */

struct queue *queues_restore_queue(struct queues *queues, uint32_t id,
                                   const struct queue_value *value)
{
    struct queue *q;

    if (id == 0 || queues_find_id(queues, id) || value->levels > QUEUE_LEVELS_MAX)
        return NULL;
    q = queue_new(queues, id, value->name);
    q->next_partition = value->next_partition;
    q->floor = value->floor;
    for (uint16_t i = 0; i < value->levels; i++) {
        struct level_meta meta = value_queue_level_at(value, i);

        queue_level(q, meta.priority)->meta = meta;
    }
    return q;
}

static bool stream_meta_is_sane(const struct stream_meta *meta)
{
    return meta->first <= meta->next && meta->count <= meta->next - meta->first;
}

static bool partition_restore_stream(struct partition *p, const struct stream_meta *meta)
{
    struct queue *q = p->queue;
    struct level *level = queue_level(q, meta->priority);
    struct stream *s;

    if (!level || !stream_meta_is_sane(meta))
        return false;
    s = partition_add_stream(p, level, meta);
    if (meta->count == 0)
        stream_set_empty(s);
    level->count += meta->count;
    level->bytes += meta->bytes;
    q->count += meta->count;
    q->bytes += meta->bytes;
    q->queues->messages += meta->count;
    q->queues->bytes += meta->bytes;
    stream_refresh(s);
    return true;
}

bool queues_restore_partition(struct queues *queues, uint32_t queue_id, uint32_t id,
                              const struct partition_value *value)
{
    struct queue *q = queues_find_id(queues, queue_id);
    struct partition *p;

    if (!q)
        return false;
    p = partition_new(q, id, value->name);
    if (q->next_partition <= id)
        q->next_partition = id + 1;
    for (uint16_t i = 0; i < value->streams; i++) {
        struct stream_meta meta = value_partition_stream_at(value, i);

        if (!partition_restore_stream(p, &meta))
            return false;
    }
    return true;
}

/* Groups. */

bool queues_dirty(const struct queues *queues)
{
    return queues->any_queue_dirty;
}

static void partition_close(struct partition *p, struct queues *queues)
{
    p->dirty = false;
    if (p->gone) {
        partition_free(p);
        return;
    }
    for (size_t i = 0; i < p->stream_count; i++)
        p->streams[i]->closing = p->streams[i]->meta.next;
    p->closing = true;
    xgrow(queues->closing.items, queues->closing.count, queues->closing.capacity);
    queues->closing.items[queues->closing.count++] = p;
}

void queues_close(struct queues *queues, const struct queues_writer *writer, void *userdata)
{
    assert(queues->closing.count == 0);
    for (size_t i = 0; i < queues->dirty.count; i++) {
        writer->partition(queues->dirty.items[i], userdata);
        partition_close(queues->dirty.items[i], queues);
    }
    queues->dirty.count = 0;
    for (size_t i = 0; i < queues->count && queues->any_queue_dirty; i++) {
        if (!queues->items[i]->dirty)
            continue;
        writer->queue(queues->items[i], userdata);
        queues->items[i]->dirty = false;
    }
    queues->any_queue_dirty = false;
    queues->group = (uint8_t)(3 - queues->group);
}

void queues_committed(struct queues *queues)
{
    for (size_t i = 0; i < queues->closing.count; i++) {
        struct partition *p = queues->closing.items[i];

        p->closing = false;
        for (size_t j = 0; j < p->stream_count; j++) {
            struct stream *s = p->streams[j];

            s->durable = s->closing;
            if (s->removed > 0)
                stream_filter(s, keep_unless_written, queues->group);
            stream_settle(s);
        }
    }
    queues->closing.count = 0;
}

/* Counting anew. */

static bool stream_recount_begin(struct stream *s, void *userdata)
{
    s->meta.count = s->meta.bytes = 0;
    s->level->count = s->level->bytes = 0;
    stream_set_empty(s);
    s->durable = s->meta.next;
    return false;
}

void queues_recount_begin(struct queues *queues)
{
    queues_each(queues, stream_recount_begin, NULL);
    queues->messages = queues->bytes = 0;
    for (size_t i = 0; i < queues->count; i++)
        queues->items[i]->count = queues->items[i]->bytes = 0;
}

void stream_recount(struct stream *s, uint64_t position, uint64_t bytes, uint64_t expires_ms)
{
    if (s->meta.count == 0)
        s->meta.first = s->cursor = position;
    if (s->meta.next <= position)
        s->meta.next = position + 1;
    s->durable = s->meta.next;
    stream_account_added(s, bytes, expires_ms);
}

/* What is missing was dropped; what is there and was not accepted, was. */
static uint64_t level_balance(struct level *level)
{
    struct ledger *l = &level->meta.ledger;
    uint64_t known = l->delivered + l->expired + l->dropped + l->rejected + level->count, missing;

    if (l->accepted < known)
        l->accepted = known;
    missing = l->accepted - known;
    l->dropped += missing;
    return missing;
}

static bool stream_recount_end(struct stream *s, void *userdata)
{
    stream_refresh(s);
    partition_touch(s->partition);
    return false;
}

uint64_t queues_recount_end(struct queues *queues)
{
    uint64_t missing = 0;

    queues_each(queues, stream_recount_end, NULL);
    for (size_t i = 0; i < queues->count; i++) {
        struct queue *q = queues->items[i];

        q->dirty = queues->any_queue_dirty = true;
        for (size_t j = 0; j < q->level_count; j++)
            missing += level_balance(q->levels[j]);
    }
    return missing;
}
