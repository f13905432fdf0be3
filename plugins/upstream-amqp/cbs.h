/*
 * Tokens for identities, on the `$cbs` links of one connection (amqp.md §4). Requests of several identities are open
 * together; an answer finds its request by correlation-id.
 */
#pragma once

#include <proton/engine.h>
#include <stdbool.h>

#include "mem.h"

struct cbs;
struct cbs_request;

/* Runs once: status-code and description (borrowed), or 0 when the request itself was refused. */
typedef void cbs_answer_fn(int status, const char *description, void *userdata);

/* Opens a session and the pair of links. */
struct cbs *cbs_new(pn_connection_t *connection);
/* Before the connection goes. What is open is never answered. */
struct cbs *cbs_free(struct cbs *cbs);
DEFINE_FREEP(struct cbs, cbs_free)

/* @name: whom the token is for; @token: its text. Both are copied. */
struct cbs_request *cbs_put(struct cbs *cbs, const char *name, const char *token, cbs_answer_fn *fn,
                            void *userdata);
/* The answer is of no interest any more. NULL is fine. */
struct cbs_request *cbs_cancel(struct cbs_request *request);

/* True: the event was about these links. @ret_broken is set when the hub closed one of them: no token can be put any more. */
bool cbs_take_event(struct cbs *cbs, pn_event_t *event, const char **ret_broken);
unsigned cbs_open_requests(const struct cbs *cbs);
