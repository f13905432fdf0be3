/*
 * The hub's REST API, as the gateway calls it (identity.md §5.2, §9.1): libcurl on the event loop,
 * retries, and what an answer means. Only this file's .c knows curl.
 */
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

#include "mem.h"
#include "sas.h"
#include "span.h"

struct hub_client;
struct hub_request;

/* Which token goes along. */
enum hub_signer { HUB_SIGNER_DEVICE, HUB_SIGNER_EDGE_HUB };

/* A fresh token, which the client frees; asked for each attempt. */
typedef char *hub_token_fn(enum hub_signer signer, void *userdata);

/* Borrowed for the life of the object. */
struct hub_client_config {
    const char *base_url;    /* "https://hub.example.net:443", nothing behind it */
    const char *ca_file;     /* whom to trust for it; NULL: the system's */
    const char *device_id;   /* of the gateway */
    uint64_t retry_min_usec; /* 0: one second */
};

int hub_client_new(sd_event *event, const struct hub_client_config *config, hub_token_fn *token,
                   void *userdata, struct hub_client **ret);
/* Requests that are under way end without an answer. */
struct hub_client *hub_client_free(struct hub_client *client);
DEFINE_FREEP(struct hub_client, hub_client_free)

enum hub_outcome {
    HUB_DONE,
    HUB_UNAUTHORIZED, /* 401: our own key is not what the hub has */
    HUB_NOT_FOUND,    /* 404, and 400 and 403 about a target: not there, or not ours */
    HUB_REFUSED,      /* any other answer that asking again would not change */
    HUB_UNAVAILABLE,  /* no answer, or one that says "later", also after the retries */
};
const char *hub_outcome_text(enum hub_outcome outcome);

/* Borrowed until the handler returns. */
struct hub_answer {
    enum hub_outcome outcome;
    long status; /* of HTTP; 0: there was no answer */
    struct span body;
    int64_t date_sec;  /* the hub's clock, UTC; 0: it does not say */
    const char *error; /* when not HUB_DONE: for the log */
};
/* Runs once, from the loop. */
typedef void hub_answer_fn(const struct hub_answer *answer, void *userdata);

/* Forgets it; its handler never runs. NULL is fine. Not after the handler ran. */
struct hub_request *hub_request_cancel(struct hub_request *request);

/* Each returns a request that lives until its handler ran. */
struct hub_request *hub_client_module_get(struct hub_client *client, const char *module_id,
                                          hub_answer_fn *fn, void *userdata);
struct hub_request *hub_client_module_put_keys(struct hub_client *client, const char *module_id,
                                               const char *managed_by,
                                               const struct sas_key *primary,
                                               const struct sas_key *secondary, hub_answer_fn *fn,
                                               void *userdata);
/* @continuation NULL: the first page. */
struct hub_request *hub_client_scope_list(struct hub_client *client, const char *auth_chain,
                                          const char *continuation, hub_answer_fn *fn,
                                          void *userdata);
/* Ends within @deadline_usec, retries included. */
struct hub_request *hub_client_scope_lookup(struct hub_client *client, const char *device_id,
                                            const char *module_id, uint64_t deadline_usec,
                                            hub_answer_fn *fn, void *userdata);
