/* The tally file: "NAME GENERATION DEATHS LAST_DEATH_SEC HOW…", a line a plugin. Losing it costs
 * a history and, worse, lets generations begin anew; so it is synced before a new generation may
 * run. */
#include "tally.h"

#include <errno.h>
#include <inttypes.h>

#include "file.h"
#include "log.h"
#include "mem.h"

enum { TALLY_BYTES_MAX = 1 << 20 };

/* One line, without its end. False: it makes no sense; *ret is untouched. */
static bool tally_line_parse(struct span line, struct tally_entry *ret)
{
    struct span rest = line, name, generation, deaths, when;
    struct tally_entry e = {};
    uint64_t sec;

    if (!span_split(&rest, SPAN(" "), &name) || name.len == 0 ||
        !span_split(&rest, SPAN(" "), &generation) || !span_split(&rest, SPAN(" "), &deaths) ||
        !span_split(&rest, SPAN(" "), &when))
        return false;
    if (!span_to_uint64(generation, &e.generation) || !span_to_uint64(deaths, &e.deaths) ||
        !span_to_uint64(when, &sec) || sec > INT64_MAX)
        return false;
    e.last_death_sec = (int64_t)sec;
    e.name = span_xdup(name);
    e.last_death = span_xdup(rest);
    *ret = e;
    return true;
}

static void tally_parse(struct tally *tally, struct span text)
{
    struct span line;

    while (span_split(&text, SPAN("\n"), &line)) {
        xgrow(tally->entries, tally->count, tally->capacity);
        if (tally_line_parse(line, &tally->entries[tally->count]))
            tally->count++;
        else
            log_event(LOG_WARNING, 0, "a line of the tally makes no sense and is left out",
                      F_PATH(tally->path));
    }
}

int tally_load(const char *path, struct tally *ret)
{
    _cleanup_(buf_done) struct buf text = {};
    struct tally tally = {};
    int r = file_read(path, TALLY_BYTES_MAX, &text);

    if (r < 0 && r != -ENOENT)
        return r;
    tally.path = xstrdup(path);
    tally_parse(&tally, buf_span(&text));
    *ret = tally;
    return 0;
}

void tally_done(struct tally *tally)
{
    for (size_t i = 0; i < tally->count; i++) {
        free(tally->entries[i].name);
        free(tally->entries[i].last_death);
    }
    free(tally->entries);
    free(tally->path);
    *tally = (struct tally){};
}

int tally_save(struct tally *tally)
{
    _cleanup_(buf_done) struct buf text = {};
    int r;

    if (!tally->dirty)
        return 0;
    for (size_t i = 0; i < tally->count; i++) {
        const struct tally_entry *e = &tally->entries[i];

        buf_printf(&text, "%s %" PRIu64 " %" PRIu64 " %" PRId64 " %s\n", e->name, e->generation,
                   e->deaths, e->last_death_sec, e->last_death);
    }
    r = file_replace(tally->path, buf_span(&text), true);
    if (r == 0)
        tally->dirty = false;
    return r;
}

static struct tally_entry *tally_find(const struct tally *tally, const char *name)
{
    for (size_t i = 0; i < tally->count; i++)
        if (strcmp(tally->entries[i].name, name) == 0)
            return &tally->entries[i];
    return NULL;
}

static struct tally_entry *tally_need(struct tally *tally, const char *name)
{
    struct tally_entry *e = tally_find(tally, name);

    tally->dirty = true;
    if (e)
        return e;
    xgrow(tally->entries, tally->count, tally->capacity);
    e = &tally->entries[tally->count++];
    *e = (struct tally_entry){ .name = xstrdup(name), .last_death = xstrdup("") };
    return e;
}

uint64_t tally_next_generation(struct tally *tally, const char *name)
{
    return ++tally_need(tally, name)->generation;
}

void tally_saw_generation(struct tally *tally, const char *name, uint64_t generation)
{
    struct tally_entry *e = tally_find(tally, name);

    if (e && e->generation >= generation)
        return;
    tally_need(tally, name)->generation = generation;
}

void tally_add_death(struct tally *tally, const char *name, int64_t now_sec, const char *how)
{
    struct tally_entry *e = tally_need(tally, name);

    e->deaths++;
    e->last_death_sec = now_sec;
    free(e->last_death);
    e->last_death = xstrdup(how);
}

uint64_t tally_deaths(const struct tally *tally, const char *name)
{
    const struct tally_entry *e = tally_find(tally, name);

    return e ? e->deaths : 0;
}
