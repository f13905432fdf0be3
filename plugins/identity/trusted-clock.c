#include "trusted-clock.h"

#include <errno.h>

#include "span.h"
#include "state-file.h"

enum { FILE_BYTES_MAX = 32, SEC_MAX_DIGITS = 12 };

static int64_t floor_at(const struct trusted_clock *clock, uint64_t boot_usec)
{
    if (clock->floor_sec == 0)
        return 0;
    return clock->floor_sec + (int64_t)((boot_usec - clock->floor_usec) / 1000000);
}

int64_t trusted_clock_at(const struct trusted_clock *clock, int64_t utc_sec, uint64_t boot_usec)
{
    int64_t floor_sec = floor_at(clock, boot_usec);

    return utc_sec > floor_sec ? utc_sec : floor_sec;
}

bool trusted_clock_correct(struct trusted_clock *clock, int64_t hub_sec, int64_t utc_sec,
                           uint64_t boot_usec)
{
    int64_t floor_sec = floor_at(clock, boot_usec);
    bool ahead = floor_sec > hub_sec + TRUSTED_CLOCK_SLACK_SEC;
    bool behind = trusted_clock_at(clock, utc_sec, boot_usec) < hub_sec - TRUSTED_CLOCK_SLACK_SEC;

    if (!ahead && !behind)
        return false;
    *clock = (struct trusted_clock){ hub_sec, boot_usec };
    return true;
}

void trusted_clock_load(struct trusted_clock *clock, const char *path, uint64_t boot_usec)
{
    struct buf content = {};
    struct span text;
    uint64_t value;

    *clock = (struct trusted_clock){};
    if (state_file_read(path, FILE_BYTES_MAX, &content) != 0)
        return;
    text = buf_span(&content);
    if (text.len > 0 && text.at[text.len - 1] == '\n')
        text.len--;
    if (text.len <= SEC_MAX_DIGITS && span_to_uint64(text, &value))
        *clock = (struct trusted_clock){ (int64_t)value, boot_usec };
    buf_done(&content);
}

void trusted_clock_print(int64_t now_sec, struct buf *out)
{
    buf_printf(out, "%lld\n", (long long)now_sec);
}
