/* Asking: the supervisor over its control socket, the roles over the bus. All of these wait for the
 * answer. */
#pragma once

#include "control.h"
#include "ctl.h"

#define CTL_ANSWER_USEC UINT64_C(2000000)

/* One question to a role. The answer becomes JSON at once, for it lives in the bus's arena. */
struct ctl_question {
    const char *role;
    Bus__Envelope *request;
    json_t *(*to_json)(const Bus__Envelope *answer);

    json_t *result; /* NULL: the role is absent, or refused */
    char *error;    /* why */
};

/* Asks all of them at the same time; each has its result or its error then. An absent role costs no
 * time. */
int ctl_ask(struct ctl *ctl, struct ctl_question *questions, size_t count, uint64_t deadline_usec);
void ctl_questions_done(struct ctl_question *questions, size_t count);

/* The same for one question, which must be answered: the reason is said when it is not. 0 or
 * CTL_FAILED. */
int ctl_ask_one(struct ctl *ctl, const char *role, Bus__Envelope *request, uint64_t deadline_usec,
                json_t *(*to_json)(const Bus__Envelope *answer), json_t **ret);

/* Sends @request to brinkd and waits for a packet with @body. The caller frees *ret by
 * bus__control__free_unpacked(). 0, or CTL_FAILED with the reason said. */
int ctl_ask_supervisor(struct ctl *ctl, const Bus__Control *request, Bus__Control__BodyCase body,
                       uint64_t deadline_usec, Bus__Control **ret);
