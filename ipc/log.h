/*
 * One event, one line, fields beside it. Goes to the journal with its fields when stderr is the journal, else to
 * stderr as text. ERR: someone must act. WARNING: we coped, something was refused or delayed. INFO: a life event.
 * DEBUG: per message. Payloads, keys and tokens never.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

struct log_field {
    enum log_field_kind { LOG_FIELD_END, LOG_FIELD_STRING, LOG_FIELD_NUMBER } kind;
    const char *name; /* lower case; the journal sees BRINK_NAME */
    const char *string;
    int64_t number;
};

#define F_STR(n, v) ((struct log_field){ LOG_FIELD_STRING, n, v, 0 })
#define F_NUM(n, v) ((struct log_field){ LOG_FIELD_NUMBER, n, NULL, (int64_t)(v) })

#define F_PLUGIN(v)     F_STR("plugin", v)
#define F_ROLE(v)       F_STR("role", v)
#define F_PEER(v)       F_STR("peer", v)
#define F_DEVICE(v)     F_STR("device", v)
#define F_MODULE(v)     F_STR("module", v)
#define F_CLIENT(v)     F_STR("client", v)
#define F_QUEUE(v)      F_STR("queue", v)
#define F_PATH(v)       F_STR("path", v)
#define F_REASON(v)     F_STR("reason", v)
#define F_STATE(v)      F_STR("state", v)
#define F_EVENT(v)      F_STR("event", v)
#define F_BYTES(v)      F_NUM("bytes", v)
#define F_COUNT(v)      F_NUM("count", v)
#define F_PID(v)        F_NUM("pid", v)
#define F_UID(v)        F_NUM("uid", v)
#define F_GENERATION(v) F_NUM("generation", v)
#define F_USEC(v)       F_NUM("usec", v)
#define F_STATUS(v)     F_NUM("status", v)

/* @error: 0, or an errno (either sign) whose text is added. @what: a literal phrase, no trailing period. */
#define log_event(level, error, what, ...)                                                         \
    do {                                                                                           \
        if (log_enabled(level))                                                                    \
            log_write(level, error, what,                                                          \
                      (const struct log_field[]){                                                  \
                          __VA_ARGS__ __VA_OPT__(, ){ LOG_FIELD_END, NULL, NULL, 0 } });           \
    } while (0)

void log_write(int level, int error, const char *what, const struct log_field *fields);
bool log_enabled(int level);
void log_init(const char *name); /* borrowed; stands in every line */
void log_set_level(int level);
int log_level_from_name(const char *name); /* error, warning, info, debug; -EINVAL */
const char *log_level_name(int level);

/* A fault that a stranger can cause at will is logged once in an interval, with how many were left out. {} to begin with. */
struct log_limit {
    uint64_t since_usec;
    unsigned suppressed;
};
/* True: log now; @ret_suppressed is how many were swallowed before. */
bool log_limit_pass(struct log_limit *limit, uint64_t interval_usec, unsigned *ret_suppressed);
