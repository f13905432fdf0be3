/*
 * How fast messages go into the store and out of it, without a bus:
 * bench-store [messages [bytes [batch [in-flight]]]]
 */
#include <malloc.h>
#include <stdlib.h>

#include "test-harness.h"

enum { WINDOW_MAX = 64 };

struct bench {
    struct harness h;
    size_t messages, bytes, batch, window;
    char *text;
    struct batch_item *items;
};

static double seconds_since(uint64_t began)
{
    return (double)(now_usec() - began) / 1e6;
}

static void bench_say(const char *what, size_t messages, double seconds, const struct store *store)
{
    const struct commit_counters *c = commit_counters(store->commit);

    printf("%-12s %8zu messages %7.3f s %9.0f msg/s, %lu groups, %lu syncs, %.0f us each\n", what,
           messages, seconds, (double)messages / seconds, (unsigned long)c->groups,
           (unsigned long)c->syncs, (double)c->write_usec / (double)(c->groups ? c->groups : 1));
}

static void bench_append(struct bench *b)
{
    struct reply replies[WINDOW_MAX] = {};
    size_t count = b->messages / b->batch, sent = 0, done = 0;
    uint64_t began = now_usec();

    while (done < count) {
        while (sent < count && sent < done + b->window) {
            harness_append(&b->h, &replies[sent % WINDOW_MAX], "bench", sent + 1, b->items,
                           b->batch);
            sent++;
        }
        if (reply_wait(&b->h, &replies[done % WINDOW_MAX]) != STATUS_DONE)
            abort();
        reply_done(&replies[done++ % WINDOW_MAX]);
    }
    bench_say("append", count * b->batch, seconds_since(began), b->h.store);
}

/* After a kill: the log is read, and the metas; not the backlog. */
static void bench_restart(struct bench *b)
{
    uint64_t began;

    harness_crash(&b->h);
    began = now_usec();
    harness_open(&b->h);
    printf("%-12s %8lu messages %7.3f s\n", "restart",
           (unsigned long)queues_messages(b->h.store->image->queues), seconds_since(began));
}

/* As a consumer does: fetch, settle, fetch. */
static void bench_drain(struct bench *b)
{
    size_t got = 0, total = b->messages / b->batch * b->batch;
    uint64_t began = now_usec(), sequence = 1;

    while (got < total) {
        struct reply fetched = {}, acked = {};
        const Bus__Fetched *f;

        harness_fetch(&b->h, &fetched, "$upstream", 1, sequence++, 500, 1000);
        if (reply_wait(&b->h, &fetched) != STATUS_DONE || fetched.envelope->fetched->n_items == 0)
            abort();
        f = fetched.envelope->fetched;
        for (size_t i = 0; i < f->n_items;) {
            size_t j = i;

            reply_done(&acked);
            while (j + 1 < f->n_items &&
                   strcmp(f->items[j + 1]->partition, f->items[i]->partition) == 0)
                j++;
            harness_ack(&b->h, &acked, "$upstream", 1, f->items[i]->partition, 0,
                        f->items[i]->position, f->items[j]->position,
                        BUS__OUTCOME__OUTCOME_DELIVERED);
            i = j + 1;
            if (reply_wait(&b->h, &acked) != STATUS_DONE)
                abort();
        }
        got += f->n_items;
        reply_done(&acked);
        reply_done(&fetched);
    }
    bench_say("fetch, ack", got, seconds_since(began), b->h.store);
}

static void bench_memory(const char *when)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[128];

    printf("%-12s", when);
    while (f && fgets(line, sizeof(line), f)) {
        unsigned long kib;

        if (sscanf(line, "Rss: %lu", &kib) == 1)
            printf(" RSS %.1f MiB", (double)kib / 1024);
        if (sscanf(line, "Pss: %lu", &kib) == 1)
            printf(" PSS %.1f MiB", (double)kib / 1024);
        if (sscanf(line, "Anonymous: %lu", &kib) == 1)
            printf(" anonymous %.1f MiB", (double)kib / 1024);
    }
    printf("\n");
    if (f)
        fclose(f);
}

static size_t argument(int argc, char **argv, int i, size_t fallback)
{
    return argc > i ? strtoul(argv[i], NULL, 10) : fallback;
}

int main(int argc, char **argv)
{
    struct store_config config = HARNESS_CONFIG;
    struct bench b = { .messages = argument(argc, argv, 1, 200000),
                       .bytes = argument(argc, argv, 2, 256),
                       .batch = argument(argc, argv, 3, 100),
                       .window = argument(argc, argv, 4, 4) };

    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    config.max_bytes = UINT64_C(64) << 30;
    config.memtable_bytes = 8 << 20;
    config.block_cache_bytes = 4 << 20;
    b.text = xrealloc(NULL, b.bytes + 1);
    memset(b.text, 'x', b.bytes);
    b.text[b.bytes] = '\0';
    b.items = xnew_n(struct batch_item, b.batch);
    for (size_t i = 0; i < b.batch; i++)
        b.items[i] =
            (struct batch_item){ "$upstream", i % 2 ? "device-1" : "device-2", 0, 7200, b.text };
    harness_begin(&b.h, &config);
    harness_open(&b.h);
    bench_memory("open");
    bench_append(&b);
    bench_memory("appended");
    bench_restart(&b);
    bench_drain(&b);
    bench_memory("drained");
    printf("%-12s %.1f MiB on disk\n", "",
           (double)rocks_disk_bytes(b.h.store->image->rocks) / (1 << 20));
    harness_drain(&b.h);
    harness_end(&b.h);
    free(b.items);
    free(b.text);
    return 0;
}
