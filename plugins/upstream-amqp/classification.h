/* What an answer of the hub means for a message and for its sender (hub.md §4.3). Pure. */
#pragma once

#include <stdint.h>

enum verdict {
    VERDICT_DELIVERED,
    VERDICT_TOO_LARGE,        /* this message never; those behind it go on */
    VERDICT_REJECTED,         /* the same */
    VERDICT_RETRY,            /* later: the message, and this sender's others behind it */
    VERDICT_UNAUTHORIZED,     /* later, with another token, when the scope was looked at again */
    VERDICT_UNKNOWN_IDENTITY, /* the same; and if the scope says so too, its messages go nowhere */
    _VERDICT_COUNT,
};

/* The outcome of a transfer, as it is on the wire. */
enum transfer_outcome {
    TRANSFER_NONE,
    TRANSFER_ACCEPTED,
    TRANSFER_REJECTED,
    TRANSFER_RELEASED,
    TRANSFER_MODIFIED
};

/* @condition: of a rejection; NULL: none was given. */
enum verdict verdict_of_transfer(enum transfer_outcome outcome, const char *condition);
/* Why a link or a session was ended, or not opened. Concerns the identity: never a verdict on a message. */
enum verdict verdict_of_detach(const char *condition);
/* status-code of a put-token answer other than 2xx. */
enum verdict verdict_of_token(int status);

/* How long at most to wait after that condition before the next try. */
uint64_t condition_wait_max_usec(const char *condition);
