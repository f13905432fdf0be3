/* May lose nothing that was acknowledged: what is in a line was not. */
#include "detour.h"

#include "listener.h"

enum {
    LINE_MESSAGES_MAX = 64, /* of a client; what was batched already is not turned away */
    LINE_BYTES_MAX = 64 << 10,
    WIDTH_MAX = 1024,
};
static const uint64_t RETRY_USEC = 100 * 1000; /* when everybody was refused */
static const uint64_t LOG_INTERVAL_USEC = 10 * 1000 * 1000;

/* ---- lines ---- */

static size_t line_left(const struct line *line)
{
    return line->batch->count - line->first;
}

static void line_put_first(struct detour *d, struct line *line)
{
    TAILQ_INSERT_HEAD(&d->lines, line, link);
    d->fresh++;
}

static struct line *line_get(struct detour *d, struct connection *c)
{
    if (c->line)
        return c->line;
    c->line = xnew(struct line);
    c->line->batch = batch_new();
    c->line->take = LINE_MESSAGES_MAX;
    c->line->connection = c;
    d->count++;
    line_put_first(d, c->line);
    return c->line;
}

/* It is in no list. */
static void line_free(struct detour *d, struct line *line)
{
    d->count--;
    d->bytes -= line->batch->bytes;
    line->connection->line = NULL;
    batch_free(line->batch);
    free(line);
}

/* What is done with gives its memory back. */
static void line_compact(struct detour *d, struct line *line)
{
    struct batch *old = line->batch;

    line->batch = batch_new();
    for (size_t i = line->first; i < old->count; i++)
        batch_add_copy(line->batch, old->items[i], old->entries[i].owner,
                       old->entries[i].acknowledged);
    d->bytes -= old->bytes - line->batch->bytes;
    line->first = 0;
    batch_free(old);
}

/* The first @count are on disk, or given up: their client is told. The line is in no list, and goes
 * to the end of those that wait if there is more in it. */
static void line_eat_take(struct detour *d, struct line *line, size_t count)
{
    struct connection *c = line->connection;
    unsigned acknowledged = 0;

    for (size_t i = 0; i < count; i++)
        acknowledged += line->batch->entries[line->first++].acknowledged;
    if (line_left(line) == 0) {
        line_free(d, line);
    } else {
        TAILQ_INSERT_TAIL(&d->lines, line, link);
        if (line->first >= LINE_MESSAGES_MAX)
            line_compact(d, line);
    }
    c->shares -= (unsigned)count;
    client_on_committed(&c->client, acknowledged);
    if (c->client.blocked && !c->blocked)
        client_on_room(&c->client);
    listener_touch(d->listener, c);
}

static struct line *trying_pop(struct detour *d)
{
    struct line *line = TAILQ_LAST(&d->trying, line_list);

    TAILQ_REMOVE(&d->trying, line, link);
    d->sending--;
    return line;
}

/* ---- sending ---- */

static void detour_pick(struct detour *d, struct line *line, size_t count)
{
    TAILQ_REMOVE(&d->lines, line, link);
    TAILQ_INSERT_TAIL(&d->trying, line, link);
    d->fresh -= d->fresh > 0;
    line->tried = count;
    for (size_t i = 0; i < count; i++) {
        xgrow(d->items, d->item_count, d->item_capacity);
        d->items[d->item_count++] = line->batch->items[line->first + i];
    }
    d->sending++;
}

/* Whose turn it is. False: nobody's, for now. */
static bool detour_has_turn(struct detour *d)
{
    if (d->fresh > 0)
        return true;
    if (!d->resting && d->refused < d->count)
        return true;
    if (!d->resting) {
        d->resting = true;
        timer_rearm(d->timer, RETRY_USEC);
    }
    return false;
}

void detour_send(struct detour *d)
{
    const struct listener_config *config = d->listener->config;
    struct line *line;
    size_t bytes = 0;
    bool reserve;

    if (d->sending > 0)
        return;
    d->active = d->count > 0;
    if (!d->active || !detour_has_turn(d))
        return;
    d->item_count = 0;
    reserve = TAILQ_FIRST(&d->lines)->connection->inputs;
    while (d->sending < d->width && (line = TAILQ_FIRST(&d->lines))) {
        size_t count = line_left(line) < line->take ? line_left(line) : line->take;

        bytes += line->batch->bytes;
        if (d->sending > 0 &&
            (d->item_count + count > config->batch_max_messages || bytes > config->batch_max_bytes))
            break;
        detour_pick(d, line, count);
    }
    /* Who takes messages out of the store makes room by going on: alone, it may use the reserve. */
    producer_add_batch(d->listener->producer, d->items, d->item_count, reserve && d->sending == 1,
                       d);
}

static int detour_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct detour *d = userdata;

    d->resting = false;
    d->refused = 0;
    detour_send(d);
    return 0;
}

void detour_on_committed(struct detour *d)
{
    listener_begin(d->listener);
    d->refused = 0;
    d->resting = false;
    while (d->sending > 0) {
        struct line *line = trying_pop(d);

        line->take = line->take * 2 < LINE_MESSAGES_MAX ? line->take * 2 : LINE_MESSAGES_MAX;
        line_eat_take(d, line, line->tried);
    }
    d->width = d->width * 2 < WIDTH_MAX ? d->width * 2 : WIDTH_MAX;
    detour_send(d);
}

/* ---- refused ---- */

static void detour_log(struct detour *d, const char *what, const char *reason)
{
    unsigned suppressed;

    if (log_limit_pass(&d->limit, LOG_INTERVAL_USEC, &suppressed))
        log_event(LOG_WARNING, 0, what, F_REASON(reason), F_COUNT(suppressed));
}

/* What several cannot, one perhaps can. */
static bool detour_narrow(struct detour *d)
{
    if (d->sending == 1)
        return false;
    d->width = 1;
    while (d->sending > 0)
        line_put_first(d, trying_pop(d));
    return true;
}

/* Now there is no room: less of it, perhaps, when all others had their turns. */
static void detour_refuse_for_now(struct detour *d)
{
    struct line *line;

    if (detour_narrow(d))
        return;
    line = trying_pop(d);
    line->take = line->tried > 1 ? line->tried / 2 : 1;
    TAILQ_INSERT_TAIL(&d->lines, line, link);
    d->refused++;
}

/* As it is, there never will be: less of it, down to the one message that cannot be stored. A client
 * that was not told so would send it for ever (mqtt.md §8.5). */
static void detour_refuse_for_good(struct detour *d, const char *reason)
{
    struct line *line;

    if (detour_narrow(d))
        return;
    line = trying_pop(d);
    if (line->tried > 1) {
        line->take = line->tried / 2;
        line_put_first(d, line);
        return;
    }
    d->dropped++;
    d->listener->host.ops->dropped(&line->connection->client, reason);
    line_eat_take(d, line, 1);
}

/* What was batched joins the lines, in its order. */
static void detour_take_batch(struct detour *d, struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct line *line = line_get(d, batch->entries[i].owner);
        size_t before = line->batch->bytes;

        batch_add_copy(line->batch, batch->items[i], batch->entries[i].owner,
                       batch->entries[i].acknowledged);
        d->bytes += line->batch->bytes - before;
    }
    batch_reset(batch);
}

static void detour_begin(struct detour *d, const char *reason)
{
    struct listener *l = d->listener;
    struct batch *batch;

    detour_log(d, "the store refuses a batch: clients publish one by one", reason);
    d->times++;
    d->active = true;
    d->width = 1;
    d->refused = 0;
    d->resting = false;
    while ((batch = producer_take_back(l->producer)))
        detour_take_batch(d, batch);
    detour_take_batch(d, l->gathering);
    l->gathering->busy = true;
}

void detour_on_refused(struct detour *d, enum producer_refusal refusal, const char *reason)
{
    listener_begin(d->listener);
    if (!d->active) {
        detour_begin(d, reason);
    } else {
        (void)producer_take_back(d->listener->producer);
        if (refusal == PRODUCER_FULL)
            detour_refuse_for_now(d);
        else
            detour_refuse_for_good(d, reason);
    }
    detour_send(d);
}

/* ---- publishing ---- */

bool detour_has_room(const struct detour *d, const struct connection *c)
{
    const struct line *line = c->line;

    if (line && (line_left(line) >= LINE_MESSAGES_MAX || line->batch->bytes >= LINE_BYTES_MAX))
        return false;
    return d->bytes <= d->listener->config->held_max_bytes;
}

void detour_publish(struct detour *d, struct connection *c, const Bus__Message *message,
                    size_t bytes, bool acknowledged)
{
    struct line *line = line_get(d, c);

    d->bytes -= line->batch->bytes;
    batch_add(line->batch, message, bytes, c, acknowledged);
    d->bytes += line->batch->bytes;
    c->shares++;
}

/* ---- life ---- */

int detour_init(struct detour *d, struct listener *listener)
{
    int r;

    d->listener = listener;
    TAILQ_INIT(&d->lines);
    TAILQ_INIT(&d->trying);
    r = plugin_add_timer(listener->plugin, 0, detour_on_timer, d, &d->timer);
    return r < 0 ? r : timer_stop(d->timer);
}

void detour_done(struct detour *d)
{
    struct line *line;

    sd_event_source_disable_unref(d->timer);
    TAILQ_CONCAT(&d->lines, &d->trying, link);
    while ((line = TAILQ_FIRST(&d->lines))) {
        TAILQ_REMOVE(&d->lines, line, link);
        line_free(d, line);
    }
    free(d->items);
}
