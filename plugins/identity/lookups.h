/*
 * Single identities that are looked up in the hub right now, and who waits for them: a login that
 * would be refused may be of a device that was registered a second ago (identity.md §9.5).
 * Everything is bounded: how many wait, how long, how many requests are under way, and how soon an
 * id is asked again.
 */
#pragma once

#include "hub-client.h"
#include "hub-json.h"

/* A login that waits here keeps a place in the window of the listener that asks: fewer wait than
 * that holds, or strangers would keep out who is known. */
enum { LOOKUPS_WAITING_MAX = 16, LOOKUPS_RUNNING_MAX = 8 };
#define LOOKUPS_DEADLINE_USEC (UINT64_C(20) * 1000 * 1000)

struct lookups;

struct lookups_ops {
    /* What the hub said. Each returns whether anything is different now. */
    bool (*on_found)(struct scope_page *page,
                     void *userdata); /* may take identities out of the page */
    bool (*on_gone)(const char *device_id, const char *module_id, void *userdata);
    /* The hub does not take our own key any more. */
    void (*on_unauthorized)(void *userdata);
};

/* @pause_usec: an id about which the hub has nothing new is not asked again for so long. */
int lookups_new(sd_event *event, struct hub_client *hub, uint64_t pause_usec,
                const struct lookups_ops *ops, void *userdata, struct lookups **ret);
/* Who still waits is told LOOKUP_DROPPED. */
struct lookups *lookups_free(struct lookups *lookups);
DEFINE_FREEP(struct lookups, lookups_free)

enum lookup_result {
    LOOKUP_ANSWERED, /* the hub was asked, and what it said is in force */
    LOOKUP_FAILED,   /* it could not be asked in time */
    LOOKUP_DROPPED,  /* the process ends */
};
typedef void lookup_done_fn(enum lookup_result result, void *userdata);

enum {
    LOOKUPS_E_PAUSED = 1, /* it was asked a moment ago */
    LOOKUPS_E_FULL,
};
/* @fn runs once, later, when this returns 0. @always: ask though it was asked a moment ago. */
int lookups_add(struct lookups *lookups, const char *device_id, const char *module_id, bool always,
                lookup_done_fn *fn, void *userdata);
unsigned lookups_waiting(const struct lookups *lookups);
