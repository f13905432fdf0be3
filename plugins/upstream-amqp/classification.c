#include "classification.h"

#include <stddef.h>
#include <string.h>

#include "mem.h"

#define WAIT_USEC       (UINT64_C(60) * 1000000)
#define WAIT_QUOTA_USEC (UINT64_C(600) * 1000000)

static const struct condition {
    const char *name;
    enum verdict verdict;
    uint64_t wait_max_usec;
} conditions[] = {
    { "amqp:link:message-size-exceeded", VERDICT_TOO_LARGE, WAIT_USEC },
    { "amqp:not-allowed", VERDICT_REJECTED, WAIT_USEC },
    { "amqp:invalid-field", VERDICT_REJECTED, WAIT_USEC },
    { "amqp:decode-error", VERDICT_REJECTED, WAIT_USEC },
    { "amqp:not-implemented", VERDICT_REJECTED, WAIT_USEC },
    { "com.microsoft:argument-error", VERDICT_REJECTED, WAIT_USEC },
    { "com.microsoft:argument-out-of-range", VERDICT_REJECTED, WAIT_USEC },
    { "amqp:unauthorized-access", VERDICT_UNAUTHORIZED, WAIT_USEC },
    { "amqp:not-found", VERDICT_UNKNOWN_IDENTITY, WAIT_USEC },
    { "amqp:resource-limit-exceeded", VERDICT_RETRY, WAIT_QUOTA_USEC },
    { "com.microsoft:quota-exceeded", VERDICT_RETRY, WAIT_QUOTA_USEC },
    { "com.microsoft:iot-hub-suspended", VERDICT_RETRY, WAIT_QUOTA_USEC },
};

/* All else is retried: a message is never dropped for a reason that we do not know. */
static const struct condition any_other = { NULL, VERDICT_RETRY, WAIT_USEC };

static const struct condition *condition_find(const char *name)
{
    for (size_t n = 0; name && n < ELEMENTSOF(conditions); n++)
        if (strcmp(conditions[n].name, name) == 0)
            return &conditions[n];
    return &any_other;
}

enum verdict verdict_of_transfer(enum transfer_outcome outcome, const char *condition)
{
    switch (outcome) {
    case TRANSFER_ACCEPTED:
        return VERDICT_DELIVERED;
    case TRANSFER_REJECTED:
        return condition_find(condition)->verdict;
    case TRANSFER_NONE:
    case TRANSFER_RELEASED:
    case TRANSFER_MODIFIED:
        break;
    }
    return VERDICT_RETRY;
}

enum verdict verdict_of_detach(const char *condition)
{
    enum verdict verdict = condition_find(condition)->verdict;

    return verdict == VERDICT_UNAUTHORIZED || verdict == VERDICT_UNKNOWN_IDENTITY ? verdict
                                                                                  : VERDICT_RETRY;
}

enum verdict verdict_of_token(int status)
{
    switch (status) {
    case 401:
    case 403:
        return VERDICT_UNAUTHORIZED;
    case 404:
        return VERDICT_UNKNOWN_IDENTITY;
    default:
        return VERDICT_RETRY;
    }
}

uint64_t condition_wait_max_usec(const char *condition)
{
    return condition_find(condition)->wait_max_usec;
}
