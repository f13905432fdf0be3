/*
 * The store: everything durable of the appliance. What it holds in memory is an image of its
 * database, and is thrown away and made anew when a write fails: the disk being full is a state of
 * the store, not its end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "arena.h"
#include "budget.h"
#include "buf.h"
#include "bus.h"
#include "clock.h"
#include "commit.h"
#include "image.h"
#include "log.h"
#include "mem.h"
#include "producers.h"
#include "queues.h"
#include "records.h"
#include "store-config.h"
#include "worker.h"

struct store_ops {
    /* Answers @call, once. @answer NULL: nobody waits for an answer any more. */
    void (*answer)(struct bus_call *call, Bus__Envelope *answer, void *userdata);
    /* The first attempt to open the database is over, well or not, or takes its time: peers may
     * call. */
    void (*opened)(void *userdata);
    /* store_drain() is done: everything is on disk, the database is closed. */
    void (*drained)(void *userdata);
};

/* A fetch that waits for messages. */
struct poll {
    struct bus_call *call;
    struct reader *reader; /* borrowed */
    uint64_t lease;
    uint64_t sequence;
    uint32_t messages_max;
    uint32_t bytes_max;
    uint64_t deadline_usec; /* CLOCK_MONOTONIC */
};

/* What was found when the disk was looked at last, and since. */
struct disk_use {
    uint64_t bytes, fs_free;
    uint64_t written; /* commit's count then: what came since is added */
    uint64_t read_usec;
    uint64_t removed;       /* bytes of messages since reclaiming began last */
    unsigned reclaim_steps; /* to come */
    uint64_t reclaim_usec;  /* when the last one was */
};

/* Only the store-*.c files look inside. */
struct store {
    sd_event *event;
    struct store_config config;
    char *path; /* of the database */
    const struct store_ops *ops;
    void *userdata;

    struct worker *worker;
    struct commit *commit;
    struct image *image; /* NULL: it is not open. Exchanged whole */
    struct records *records;
    struct clock clock;
    uint64_t clock_saved_ms; /* store's clock: when it was last written */
    bool clock_runs;
    uint8_t boot_id[BOOT_ID_BYTES];

    /* Opening, by the worker. */
    struct image *opened_image;
    struct image *fallen; /* the one that failed, to be closed before */
    struct rocks_error open_error;
    int open_result;
    enum damage damage; /* what the next opening has to reckon with */
    unsigned damages;   /* found while it was open, the repair of the last one notwithstanding */
    uint64_t damaged_usec;
    unsigned failures; /* in a row: the next attempt waits longer */
    bool
        failing; /* the image is of no use any more, and goes as soon as nothing is being written */
    bool announced; /* ops->opened has run */
    char *reason;   /* why it is not open */
    sd_event_source *reopen_timer;
    sd_event_source *announce_timer;

    struct poll *polls;
    size_t poll_count, poll_capacity;
    sd_event_source *poll_timer;

    sd_event_source *sweep_timer;
    bool sweeping; /* the sweep goes on when the group that it filled is written */
    bool draining;

    struct budget budget;
    uint64_t quota_bytes; /* the deployment's; 0: it says nothing */
    struct disk_use disk;
    struct log_limit full_limit, drop_limit;
    sd_event_source *disk_timer; /* runs while the disk is short */

    struct arena *arena;   /* for an answer; reset by each */
    struct buf key, value; /* for encoding; used by whoever encodes, between two calls of others */
    uint64_t appended, fetched, acked, dropped; /* messages since the start */
    uint64_t refused;                           /* appends, for want of room */
};

int store_new(sd_event *event, const struct store_config *config, const char *state_dir,
              const struct store_ops *ops, void *userdata, struct store **ret);
struct store *store_free(struct store *store);
DEFINE_FREEP(struct store, store_free)

/* Finishes what is being written, answers everybody and closes the database. */
void store_drain(struct store *store);

/* The requests. Each consumes @call, and answers it now or later. */
void store_append_take(struct store *store, struct bus_call *call, const Bus__Append *in);
void store_fetch_take(struct store *store, struct bus_call *call, const Bus__Fetch *in);
void store_ack_take(struct store *store, struct bus_call *call, const Bus__Ack *in);
void store_release_take(struct store *store, struct bus_call *call, const Bus__Release *in);
void store_park_take(struct store *store, struct bus_call *call, const Bus__Park *in);
void store_record_put_take(struct store *store, struct bus_call *call, const Bus__RecordPut *in);
void store_record_get_take(struct store *store, struct bus_call *call, const Bus__RecordGet *in);
void store_queues_get_take(struct store *store, struct bus_call *call);
void store_queue_peek_take(struct store *store, struct bus_call *call, const Bus__QueuePeek *in);
void store_queue_drop_take(struct store *store, struct bus_call *call, const Bus__QueueDrop *in);

/* Between the files of the store. */

void store_answer(struct store *store, struct bus_call *call, Bus__Status status);
void store_answer_error(struct store *store, struct bus_call *call, Bus__Status status,
                        const char *format, ...) _printf_(4, 5);
void store_answer_with(struct store *store, struct bus_call *call, Bus__Envelope *answer);
void store_answer_expected(struct store *store, struct bus_call *call, Bus__Status status,
                           uint64_t expected);
/* The record's version, without its content. */
void store_answer_version(struct store *store, struct bus_call *call, Bus__Status status,
                          const char *key, uint64_t version);
/* True: the database is not open, or the store is ending, and @call was told. */
bool store_refuse_take(struct store *store, struct bus_call *call);
/* The database failed while reading. @call (may be NULL) is told; the database is opened anew. */
void store_fail_take(struct store *store, struct bus_call *call, int error,
                     const struct rocks_error *text);
/* Whether (producer, sequence) is to be applied now. If not, the waiter is consumed: it is told
 * that it is done, at once or when it is, or which sequence is expected. */
bool store_admit_take(struct store *store, const char *producer, uint64_t sequence,
                      const struct waiter *waiter);

struct clock_reading store_read_clocks(const struct store *store);
uint64_t store_clock_ms(const struct store *store);
/* Reads the stream's messages from @first to @last (clipped by the caller). */
struct rocks_scan *store_scan(struct store *store, const struct stream *stream, uint64_t first,
                              uint64_t last);
/* Adds to the group that the message is removed, which stream_*() has decided. */
void store_remove(struct store *store, const struct stream *stream, uint64_t position,
                  uint64_t bytes);
/* Removes what there is of the stream, up to *@left messages, and counts them off. */
int store_remove_all(struct store *store, struct stream *stream, enum outcome outcome,
                     unsigned *left, struct rocks_error *ret_error);

/* Runs first @usec from now; later by timer_rearm(). */
int store_add_timer(struct store *store, sd_event_source **ret, sd_event_time_handler_t fn,
                    uint64_t usec);

enum { ENTRY_OVERHEAD_BYTES = 64 }; /* what a message costs on disk beside its bytes */

enum { DROP_MESSAGES_MAX = 16384 }; /* by one request of an operator */

int store_budget_init(struct store *store, const char *state_dir);
/* The deployment's own bound; 0: none. Holds until the end of the process: who set it sets it again. */
void store_set_quota(struct store *store, uint64_t bytes);
/* Looks at the disk, if that was a while ago, and has garbage reclaimed where room is short. */
void store_budget_refresh(struct store *store);
/* False: there is no room for @bytes more, whoever asks is to be told FULL. @urgency: the priority
 * of the most urgent message to come; nothing that is more urgent is dropped for it. */
bool store_make_room(struct store *store, enum budget_demand demand, uint32_t urgency,
                     uint64_t bytes);
/* Drops the oldest of the lowest priority, up to @urgency, until @bytes are freed. 0, or as reading. */
int store_drop_oldest(struct store *store, uint32_t urgency, uint64_t bytes, uint64_t *ret_freed,
                      struct rocks_error *ret_error);
/* When the first message at or behind @position was enqueued; 0: there is none, or it is gone. */
int store_enqueued_ms(struct store *store, struct stream *stream, uint64_t position,
                      int64_t *ret_ms, struct rocks_error *ret_error);

int store_fetch_init(struct store *store);
/* A message as it is answered. In the store's arena. */
Bus__FetchedItem *store_item(struct store *store, const struct stream *stream, uint64_t position,
                             const struct message_value *v);
/* Answers the fetches that there is something for, or whose time is over. */
void store_serve(struct store *store);
void store_polls_refuse(struct store *store, const char *reason);

int store_sweep_init(struct store *store);
void store_sweep(struct store *store);
void store_sweep_go_on(struct store *store);
