/* One thread for what blocks, one job at a time. The result comes back to the loop as an event. */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "mem.h"

struct worker;

typedef void worker_fn(void *userdata);

int worker_new(sd_event *event, struct worker **ret);
/* Waits for the job that is under way; its @done never runs. */
struct worker *worker_free(struct worker *worker);
DEFINE_FREEP(struct worker, worker_free)

/* Runs @job on the thread, then @done in the loop. Not while another one is under way. */
void worker_run(struct worker *worker, worker_fn *job, worker_fn *done, void *userdata);
/* Until @done has begun. */
bool worker_is_busy(const struct worker *worker);
