/*
 * Where log lines go and what they look like. A line is one write(), so the lines of several
 * processes that share stderr do not mix. Nothing is kept: a line that cannot be written is lost.
 */
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "buf.h"
#include "mem.h"
#include "span.h"

enum {
    LOG_VALUE_BYTES_MAX = 1024, /* strangers choose some of the values */
    LOG_FIELDS_MAX = 24,
};

static struct {
    const char *name;
    int level;
    bool to_journal;
} logger = { .name = "brink", .level = LOG_INFO };

static const char *const level_names[] = {
    [LOG_EMERG] = "error",     [LOG_ALERT] = "error", [LOG_CRIT] = "error", [LOG_ERR] = "error",
    [LOG_WARNING] = "warning", [LOG_NOTICE] = "info", [LOG_INFO] = "info",  [LOG_DEBUG] = "debug",
};

const char *log_level_name(int level)
{
    return level >= LOG_EMERG && level <= LOG_DEBUG ? level_names[level] : "debug";
}

int log_level_from_name(const char *name)
{
    static const int levels[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

    for (size_t i = 0; i < ELEMENTSOF(levels); i++)
        if (strcmp(name, level_names[levels[i]]) == 0)
            return levels[i];
    return -EINVAL;
}

/* systemd says in $JOURNAL_STREAM which stream is the journal's; stderr may have been redirected
 * since. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_init(const char *name)
{
    logger.name = name;
    logger.to_journal = stderr_is_journal();
}

void log_set_level(int level)
{
    logger.level = level;
}

bool log_enabled(int level)
{
    return level <= logger.level;
}

static bool is_plain(struct span s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];

        if (c <= ' ' || c == '"' || c == '\\' || c == '=' || c >= 0x7f)
            return false;
    }
    return s.len > 0;
}

/* Nothing that a stranger says may move the cursor, end the line or look like another field. */
static void append_quoted(struct buf *line, struct span s)
{
    bool utf8 = span_is_utf8(s);

    buf_append_byte(line, '"');
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        /* U+0080..U+009F steer terminals, too */
        bool c1 = c == 0xc2 && i + 1 < s.len && (unsigned char)s.at[i + 1] < 0xa0;

        if (c == '"' || c == '\\')
            buf_printf(line, "\\%c", c);
        else if (c < ' ' || c == 0x7f || (c > 0x7f && !utf8))
            buf_printf(line, "\\x%02x", c);
        else if (c1)
            buf_printf(line, "\\u%04x", (unsigned char)s.at[++i]);
        else
            buf_append_byte(line, c);
    }
    buf_append_byte(line, '"');
}

static void append_value(struct buf *line, const char *value)
{
    struct span s = span_str(value ? value : "-");
    bool cut = s.len > LOG_VALUE_BYTES_MAX;

    if (cut)
        s.len = LOG_VALUE_BYTES_MAX;
    if (is_plain(s))
        buf_append_span(line, s);
    else
        append_quoted(line, s);
    if (cut)
        buf_append_span(line, SPAN("..."));
}

static void append_message(struct buf *line, int error, const char *what,
                           const struct log_field *fields)
{
    buf_append_span(line, span_str(what));
    for (const struct log_field *f = fields; f->kind != LOG_FIELD_END; f++) {
        buf_printf(line, " %s=", f->name);
        if (f->kind == LOG_FIELD_NUMBER)
            buf_printf(line, "%lld", (long long)f->number);
        else
            append_value(line, f->string);
    }
    if (error != 0) {
        buf_append_span(line, SPAN(" error="));
        append_value(line, strerrordesc_np(error));
    }
}

static void append_time(struct buf *line)
{
    struct timespec now;
    struct tm tm;
    char text[32];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(text, sizeof(text), "%FT%T", &tm);
    buf_printf(line, "%s.%03ldZ ", text, now.tv_nsec / 1000000);
}

static void log_to_stderr(int level, int error, const char *what, const struct log_field *fields)
{
    struct buf line = {};

    append_time(&line);
    buf_printf(&line, "%-5s %s: ", log_level_name(level), logger.name);
    append_message(&line, error, what, fields);
    buf_append_byte(&line, '\n');
    buf_write(&line, STDERR_FILENO);
    buf_done(&line);
}

/* "plugin" becomes BRINK_PLUGIN=. The journal takes any byte in a value. */
static char *journal_field(const struct log_field *f)
{
    char *field =
        f->kind == LOG_FIELD_NUMBER
            ? xasprintf("BRINK_%s=%lld", f->name, (long long)f->number)
            : xasprintf("BRINK_%s=%.*s", f->name, LOG_VALUE_BYTES_MAX, f->string ? f->string : "");

    for (char *c = field; *c != '='; c++)
        if (*c >= 'a' && *c <= 'z')
            *c = (char)(*c - 'a' + 'A');
    return field;
}

static void log_to_journal(int level, int error, const char *what, const struct log_field *fields)
{
    struct iovec iov[LOG_FIELDS_MAX];
    struct buf message = {};
    int n = 0;

    buf_append_span(&message, SPAN("MESSAGE="));
    append_message(&message, error, what, fields);
    buf_append_byte(&message, '\0');
    iov[n++].iov_base = xstrdup(message.data);
    iov[n++].iov_base = xasprintf("PRIORITY=%d", level);
    iov[n++].iov_base = xasprintf("SYSLOG_IDENTIFIER=%s", logger.name);
    if (error != 0)
        iov[n++].iov_base = xasprintf("ERRNO=%d", error);
    for (const struct log_field *f = fields; f->kind != LOG_FIELD_END && n < LOG_FIELDS_MAX; f++)
        iov[n++].iov_base = journal_field(f);
    for (int i = 0; i < n; i++)
        iov[i].iov_len = strlen(iov[i].iov_base);
    sd_journal_sendv(iov, n);
    for (int i = 0; i < n; i++)
        free(iov[i].iov_base);
    buf_done(&message);
}

void log_write(int level, int error, const char *what, const struct log_field *fields)
{
    int saved = errno;

    error = error < 0 ? -error : error;
    if (logger.to_journal)
        log_to_journal(level, error, what, fields);
    else
        log_to_stderr(level, error, what, fields);
    errno = saved;
}

bool log_limit_pass(struct log_limit *limit, uint64_t interval_usec, unsigned *ret_suppressed)
{
    struct timespec ts;
    uint64_t now;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    now = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
    if (limit->since_usec != 0 && now - limit->since_usec < interval_usec) {
        limit->suppressed++;
        return false;
    }
    *ret_suppressed = limit->suppressed;
    *limit = (struct log_limit){ .since_usec = now };
    return true;
}
