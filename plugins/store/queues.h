/*
 * The index of the queues in memory, and every decision about them: which position a message gets,
 * what a consumer may fetch next, what an ack removes, what the ledger says. Pure: no I/O, no
 * clock, no log; store.c reads and writes what is decided here.
 *
 * A stream is one (queue, partition, priority): messages at growing positions. Of its messages only
 * these are held in memory: the *window*, an entry for each message that was given to the lease and
 * not acked ("in flight"), and for each that is removed while the write that removes it is not on
 * disk yet ("removed"). Below the cursor, every message that still exists has an entry; from the
 * cursor on the database is asked. So memory does not grow with the backlog.
 *
 * What changes is collected in a group (commit.h): queues_close() ends it and hands out what must
 * be written about it, queues_committed() tells that it is on disk. Messages are given out only
 * then.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "keys.h"
#include "span.h"

enum {
    QUEUES_MAX = 1024,
    READERS_MAX = 4096,
    QUEUE_NAME_BYTES_MAX = 512,
    QUEUE_WINDOW_MAX =
        65536, /* entries in the windows of a queue: its consumer gets no more before it acks */
    QUEUE_LEVELS_MAX = 64, /* priorities in a queue */
};

enum outcome { OUTCOME_DELIVERED, OUTCOME_REJECTED, OUTCOME_EXPIRED, OUTCOME_DROPPED };

struct window_entry {
    uint64_t position;
    uint32_t bytes;
    uint8_t removed_in; /* the group that removes it; 0: in flight */
};

struct window {
    struct window_entry *entries;
    size_t start, end, capacity;
};

struct queues;

struct stream {
    struct partition *partition; /* borrowed: the owner */
    struct level *level;         /* borrowed: the queue's */
    struct stream_meta meta;     /* meta.first is the lesser of the cursor and the window's first */
    uint64_t cursor;             /* where the lease reads on */
    uint64_t durable;            /* below: on disk */
    uint64_t closing;            /* meta.next when the group that is being written was closed */
    struct window window;
    size_t removed;            /* entries of the window that are removed */
    bool ready;                /* in level->ready */
    uint64_t given_in;         /* reader->round when it was last read for the lease */
    uint64_t expires_first_ms; /* no message from the cursor on expires before; 0: not known */
    uint64_t sweep_at;         /* how far the sweep that is under way has come; 0: none is */
    uint64_t sweep_first_ms;   /* and what is the first to expire of what it has seen */
    uint64_t oldest_at;        /* the position that oldest_ms is about */
    int64_t oldest_ms;         /* UTC, when it was enqueued; 0: not known */
    TAILQ_ENTRY(stream) link;
};
TAILQ_HEAD(stream_list, stream);

/* What has one priority in a queue. */
struct level {
    struct level_meta meta;
    uint64_t count, bytes;    /* messages that exist */
    struct stream_list ready; /* streams with something to fetch, whose turn is first is first */
};

struct partition {
    struct queue *queue; /* borrowed: the owner */
    uint32_t id;
    char *name;
    struct stream **streams;
    size_t stream_count, stream_capacity;
    bool parked;
    bool dirty;       /* changed in the group that gathers */
    bool closing;     /* part of the group that is being written */
    bool gone;        /* forgotten: not found by name any more */
    uint64_t used_ms; /* store's clock: of the last append */
    TAILQ_ENTRY(partition) link;
};
TAILQ_HEAD(partition_list, partition);

/* Where a stream was read from in the last answer to the lease: to give it again. */
struct given {
    struct stream *stream;
    uint64_t cursor;
};

TAILQ_HEAD(queue_list, queue);

/* What one consumer reads. A queue whose name has no folder is read alone ("$upstream"); those of a
 * folder are read together ("modules/M/inputs/"), by whoever holds the module. */
struct reader {
    char *name;
    struct queue_list queues; /* the one that was read last is last */
    size_t ready;             /* streams with something to fetch */
    uint64_t lease;           /* the greatest seen; 0: none since the start */
    uint64_t sequence;        /* of the lease's last fetch; 0: none */
    uint64_t round;           /* counts fetches, for stream.given_in */
    struct given *given;
    size_t given_count, given_capacity;
};

struct queue {
    struct queues *queues; /* borrowed: the owner */
    uint32_t id;
    char *name;
    uint32_t next_partition;
    uint64_t floor;
    bool dirty;
    void *names; /* tsearch() of its partitions */
    struct partition_list partitions;
    uint64_t count, bytes; /* messages that exist */
    struct level **levels; /* by priority: the most urgent first */
    size_t level_count, level_capacity;
    size_t window_count;
    struct reader *reader; /* borrowed: of the queues */
    TAILQ_ENTRY(queue) reader_link;
};

struct queues *queues_new(void);
struct queues *queues_free(struct queues *queues);
DEFINE_FREEP(struct queues, queues_free)

/* From the database at start; what was restored is not dirty. NULL, or false: what the database
 * says makes no sense. */
struct queue *queues_restore_queue(struct queues *queues, uint32_t id,
                                   const struct queue_value *value);
bool queues_restore_partition(struct queues *queues, uint32_t queue_id, uint32_t id,
                              const struct partition_value *value);

/* By name. queues_get() makes it; NULL: there are QUEUES_MAX already. */
struct queue *queues_find(struct queues *queues, const char *name);
struct queue *queues_get(struct queues *queues, const char *name);
struct partition *queue_find_partition(struct queue *queue, const char *name);
struct stream *queue_find_stream(struct queue *queue, const char *partition, uint32_t priority);
/* Makes it. NULL: the queue has QUEUE_LEVELS_MAX priorities already. */
struct stream *queue_get_stream(struct queue *queue, const char *partition, uint32_t priority);
/* What a row of the database belongs to; NULL: nothing that is known. Linear: for repairs only. */
struct stream *queues_find_row(struct queues *queues, const struct message_key *key);

size_t queues_count(const struct queues *queues);
struct queue *queues_at(const struct queues *queues, size_t i);
/* Each stream, in no order; stops at the first that @fn returns true for, and gives that. */
struct stream *queues_each(struct queues *queues, bool (*fn)(struct stream *stream, void *userdata),
                           void *userdata);

/* Messages and bytes in all queues. */
uint64_t queues_messages(const struct queues *queues);
uint64_t queues_bytes(const struct queues *queues);
struct ledger queue_ledger(const struct queue *queue);

struct message_key stream_key(const struct stream *stream, uint64_t position);

/* One more message, accepted at the position returned. @enqueued_ms: UTC, @now_ms: store clock. */
uint64_t stream_append(struct stream *stream, uint64_t bytes, int64_t enqueued_ms,
                       uint64_t expires_ms, uint64_t now_ms);

/* A consumer asks. Outcomes: */
enum {
    QUEUE_E_LEASE_LOST = 1, /* a greater lease has been here */
    QUEUE_E_SEQUENCE,       /* it was answered long ago: only the last answer can be given again */
};
/* By name: that of a queue without a folder, or a folder with its slash. Makes it: the consumer may
 * be there before its queues. NULL: a queue in a folder is not read alone, or there are READERS_MAX. */
struct reader *queues_reader(struct queues *queues, const char *name);
/* The lease that is greater takes over: everything that exists is there to be fetched again,
 * nothing is parked. */
int reader_lease(struct reader *reader, uint64_t lease);
/* Whoever has it is gone: everything that exists is there to be fetched again. */
void reader_release(struct reader *reader);
/* reader_lease(), and: the answer before is given up if @sequence is another, or is to be given
 * again if it is the same. */
int reader_fetch(struct reader *reader, uint64_t lease, uint64_t sequence);
/* The stream to read next: the most urgent priority, the one that waits longest. NULL: nothing to
 * fetch. */
struct stream *reader_next(struct reader *reader);
/* Reading @stream, from its cursor up to its durable, goes like this: begin, offer every row in
 * order, end. */
void stream_read_begin(struct stream *stream);
enum offer {
    OFFER_TAKEN,   /* it is in flight now: give it */
    OFFER_SKIPPED, /* it is removed already */
    OFFER_EXPIRED, /* it is removed by this: write that */
    OFFER_FULL,    /* the window is: end the whole fetch */
};
enum offer stream_offer(struct stream *stream, uint64_t position, uint32_t bytes, bool expired);
/* @exhausted: there was no further row. The stream goes to the end of those that wait, and so does
 * its queue. */
void stream_read_end(struct stream *stream, bool exhausted);

void partition_park(struct partition *partition, bool parked);

/* Removes one message. False: it is not there, or is removed already, or is not on disk yet. */
bool stream_remove(struct stream *stream, uint64_t position, uint32_t bytes, enum outcome outcome);
/* The same of the first row at or behind the cursor. It is not given to anybody any more. */
bool stream_remove_next(struct stream *stream, uint64_t position, uint32_t bytes,
                        enum outcome outcome);
/* Cuts a range of positions down to what may exist. False: nothing does. */
bool stream_clip(const struct stream *stream, uint64_t *first, uint64_t *last);
/* True: every message in the range has an entry, so the database need not be asked. Clipped ranges
 * only. */
bool stream_covers(const struct stream *stream, uint64_t first, uint64_t last);
/* The entry in flight at the least position in [first, last]; NULL: there is none. Valid until the
 * next change. */
const struct window_entry *stream_in_flight(const struct stream *stream, uint64_t first,
                                            uint64_t last);
/* The message of a row that the database has: false, it is removed and the write is under way. */
bool stream_has(const struct stream *stream, uint64_t position);

/* Expiry. Something in it may have expired. */
bool stream_is_due(const struct stream *stream, uint64_t now_ms);
/* The sweep has seen the whole stream (or, if ordered, the first that lives on): nothing expires
 * before @expires_first_ms. */
void stream_swept(struct stream *stream, uint64_t expires_first_ms);

/* Forgets partitions that have been empty and unused since @before_ms. */
void queues_forget(struct queues *queues, uint64_t before_ms);

/* What a group changed. Called for each; a partition that is gone is deleted. */
struct queues_writer {
    void (*queue)(const struct queue *queue, void *userdata);
    void (*partition)(const struct partition *partition, void *userdata);
};
/* Ends the group that gathers; the next one begins. At most one is being written. */
void queues_close(struct queues *queues, const struct queues_writer *writer, void *userdata);
void queues_committed(struct queues *queues);
bool queues_dirty(const struct queues *queues);

/* After a repair: the database was counted anew, row by row in the order of keys. Begin forgets the
 * counts; end balances the ledgers (what is missing was dropped) and returns how many messages are
 * missing. */
void queues_recount_begin(struct queues *queues);
void stream_recount(struct stream *stream, uint64_t position, uint64_t bytes, uint64_t expires_ms);
uint64_t queues_recount_end(struct queues *queues);
