#include "ctl-print.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "mem.h"

enum { COLUMNS_MAX = 24, TABLE_WIDTH_MAX = 4096, LAST_WIDTH_MIN = 16 };

#define DASH "\xe2\x80\x94"

static bool is_terminal(void)
{
    return isatty(STDOUT_FILENO);
}

static bool has_colour(void)
{
    const char *term = getenv("TERM");

    return is_terminal() && !getenv("NO_COLOR") && term && strcmp(term, "dumb") != 0;
}

static size_t terminal_width(void)
{
    struct winsize size;

    if (is_terminal() && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return TABLE_WIDTH_MAX;
}

void ctl_print_json(const json_t *document)
{
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    putchar('\n');
}

void ctl_print_json_line(const json_t *document)
{
    json_dumpf(document, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
    putchar('\n');
}

void ctl_print_clear(void)
{
    if (is_terminal())
        fputs("\x1b[H\x1b[2J", stdout);
}

/* Values */

static char *format_bytes(double bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    size_t unit = 0;

    while (bytes >= 1024 && unit + 1 < ELEMENTSOF(units)) {
        bytes /= 1024;
        unit++;
    }
    return xasprintf(unit == 0 || bytes >= 100 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

/* The two largest units. */
static char *format_seconds(long long s)
{
    if (s >= 86400)
        return xasprintf("%lldd %lldh", s / 86400, s % 86400 / 3600);
    if (s >= 3600)
        return xasprintf("%lldh %lldmin", s / 3600, s % 3600 / 60);
    if (s >= 60)
        return xasprintf("%lldmin %llds", s / 60, s % 60);
    return xasprintf("%llds", s);
}

/* A name that a stranger chose must not steer the operator's terminal. */
static char *format_text(const char *text)
{
    char *copy = xstrdup(*text ? text : DASH);

    for (unsigned char *c = (unsigned char *)copy; *c; c++) {
        if (*c < ' ' || *c == 0x7f)
            *c = '?';
        else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) /* U+0080..U+009F steer it, too */
            c[0] = c[1] = '?';
    }
    return copy;
}

/* "a, b"; NULL when it is no list of texts. */
static char *format_list(const json_t *list)
{
    _cleanup_(buf_done) struct buf text = {};

    for (size_t i = 0; i < json_array_size(list); i++) {
        _cleanup_(freep) char *one = NULL;

        if (!json_is_string(json_array_get(list, i)))
            return NULL;
        one = format_text(json_string_value(json_array_get(list, i)));
        buf_printf(&text, "%s%s", i > 0 ? ", " : "", one);
    }
    return buf_len(&text) > 0 ? span_xdup(buf_span(&text)) : xstrdup(DASH);
}

char *ctl_format(const json_t *value, enum ctl_form form)
{
    char *list = json_is_array(value) ? format_list(value) : NULL;

    if (list)
        return list;
    if (!value || json_is_null(value))
        return xstrdup(DASH);
    if (json_is_string(value))
        return format_text(json_string_value(value));
    if (json_is_boolean(value))
        return xstrdup(json_is_true(value) ? "yes" : "no");
    if (json_is_number(value) && form == FORM_BYTES)
        return format_bytes(json_number_value(value));
    if (json_is_integer(value) && form == FORM_SECONDS)
        return format_seconds(json_integer_value(value));
    return json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
}

/* Tables */

/* Characters, not bytes. */
static size_t text_width(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static size_t bytes_of_width(const char *text, size_t width)
{
    size_t at = 0;

    for (size_t n = 0; text[at]; at++) {
        n += ((unsigned char)text[at] & 0xc0) != 0x80;
        if (n > width)
            break;
    }
    return at;
}

static const char *colour_of(const char *state)
{
    static const struct {
        const char *state, *colour;
    } colours[] = {
        { "ready", "\x1b[32m" },    { "failed", "\x1b[31m" },   { "backoff", "\x1b[31m" },
        { "starting", "\x1b[33m" }, { "draining", "\x1b[33m" }, { "stopped", "\x1b[2m" },
    };

    for (size_t i = 0; i < ELEMENTSOF(colours); i++)
        if (strcmp(state, colours[i].state) == 0)
            return colours[i].colour;
    return NULL;
}

static bool is_right_aligned(enum ctl_form form)
{
    return form == FORM_NUMBER || form == FORM_BYTES || form == FORM_SECONDS;
}

static void print_cell(const char *text, size_t width, const struct ctl_column *column, bool last,
                       bool coloured)
{
    const char *colour = coloured && column->form == FORM_STATE ? colour_of(text) : NULL;
    size_t text_cells = text_width(text), shown = text_cells > width ? width : text_cells;
    int padding = (int)(width - shown);

    if (is_right_aligned(column->form))
        printf("%*s", padding, "");
    printf("%s%.*s%s", colour ? colour : "", (int)bytes_of_width(text, width), text,
           colour ? "\x1b[0m" : "");
    if (!is_right_aligned(column->form) && !last)
        printf("%*s", padding, "");
    fputs(last ? "\n" : "  ", stdout);
}

struct table {
    const struct ctl_column *columns;
    size_t column_count, row_count;
    char **cells; /* row by row, the titles first */
    size_t width[COLUMNS_MAX];
    bool hidden[COLUMNS_MAX];
};

static char **table_cell(struct table *t, size_t row, size_t column)
{
    return &t->cells[row * t->column_count + column];
}

static void table_fill(struct table *t, const json_t *rows)
{
    for (size_t c = 0; c < t->column_count; c++) {
        *table_cell(t, 0, c) = xstrdup(t->columns[c].title);
        for (size_t r = 1; r < t->row_count; r++)
            *table_cell(t, r, c) =
                ctl_format(json_object_get(json_array_get(rows, r - 1), t->columns[c].key),
                           t->columns[c].form);
        for (size_t r = 0; r < t->row_count; r++) {
            size_t width = text_width(*table_cell(t, r, c));

            if (width > t->width[c])
                t->width[c] = width;
        }
    }
}

/* The cells before the last column. */
static size_t table_used(const struct table *t)
{
    size_t used = 0;

    for (size_t c = 0; c + 1 < t->column_count; c++)
        used += t->hidden[c] ? 0 : t->width[c] + 2;
    return used;
}

static bool table_hide_one(struct table *t)
{
    size_t most = 0;

    for (size_t c = 1; c + 1 < t->column_count; c++)
        if (!t->hidden[c] && t->columns[c].spare > t->columns[most].spare)
            most = c;
    if (t->columns[most].spare == 0)
        return false;
    return t->hidden[most] = true;
}

static void table_fit(struct table *t)
{
    size_t room = terminal_width(), *last = &t->width[t->column_count - 1];
    size_t last_min = *last < LAST_WIDTH_MIN ? *last : LAST_WIDTH_MIN;

    while (table_used(t) + last_min > room && table_hide_one(t))
        ;
    if (table_used(t) + *last > room && room > table_used(t) + last_min)
        *last = room - table_used(t);
}

void ctl_print_table(const json_t *rows, const struct ctl_column *columns)
{
    struct table t = { .columns = columns, .row_count = json_array_size(rows) + 1 };
    bool coloured = has_colour();

    while (t.column_count < COLUMNS_MAX && columns[t.column_count].key)
        t.column_count++;
    if (t.column_count == 0)
        return;
    t.cells = xnew_n(char *, t.row_count *t.column_count);
    table_fill(&t, rows);
    table_fit(&t);
    for (size_t r = 0; r < t.row_count; r++)
        for (size_t c = 0; c < t.column_count; c++)
            if (!t.hidden[c])
                print_cell(*table_cell(&t, r, c), t.width[c], &columns[c], c + 1 == t.column_count,
                           coloured && r > 0);
    for (size_t i = 0; i < t.row_count * t.column_count; i++)
        free(t.cells[i]);
    free(t.cells);
}

/* Any document */

/* {"a": {"b": 1}} as {"a.b": 1}. */
static void flatten(const json_t *object, const char *prefix, json_t *flat)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)object, key, value)
    {
        _cleanup_(freep) char *path = xasprintf("%s%s%s", prefix, *prefix ? "." : "", key);

        if (json_object_size(value) > 0)
            flatten(value, path, flat);
        else
            json_object_set(flat, path, value);
    }
}

static void print_object(const json_t *object)
{
    json_t *flat = json_object(), *value;
    const char *key;
    size_t width = 0;

    flatten(object, "", flat);
    json_object_foreach(flat, key, value) width = text_width(key) > width ? text_width(key) : width;
    json_object_foreach(flat, key, value)
    {
        _cleanup_(freep) char *shown_key = format_text(key);
        _cleanup_(freep) char *shown =
            json_is_object(value) ? xstrdup(DASH) : ctl_format(value, FORM_TEXT);

        printf("%s:%*s %s\n", shown_key, (int)(width - text_width(key)), "", shown);
    }
    json_decref(flat);
}

static void print_rows(const json_t *rows)
{
    struct ctl_column columns[COLUMNS_MAX + 1] = {};
    size_t n = 0;
    const char *key;
    json_t *value;

    json_object_foreach(json_array_get(rows, 0), key, value) if (n < COLUMNS_MAX) columns[n++] =
        (struct ctl_column){ key, key, json_is_number(value) ? FORM_NUMBER : FORM_TEXT };
    ctl_print_table(rows, columns);
}

void ctl_print_any(const json_t *document)
{
    if (json_is_object(document))
        print_object(document);
    else if (json_is_array(document) && json_is_object(json_array_get(document, 0)))
        print_rows(document);
    else if (!json_is_array(document) || json_array_size(document) > 0)
        ctl_print_json(document);
}

/* What answers are made of */

json_t *ctl_time(int64_t utc_sec)
{
    time_t seconds = (time_t)utc_sec;
    char text[32];
    struct tm tm;

    if (utc_sec == 0 || !gmtime_r(&seconds, &tm))
        return json_null();
    strftime(text, sizeof(text), "%FT%TZ", &tm);
    return json_string(text);
}

json_t *ctl_text(const char *text)
{
    _cleanup_(freep) char *ascii = NULL;
    json_t *json = json_string(text);

    if (json)
        return json;
    ascii = xstrdup(text); /* not UTF-8, so JSON cannot have it as it is */
    for (char *c = ascii; *c; c++)
        if ((unsigned char)*c > 0x7f)
            *c = '?';
    return json_string(ascii);
}
