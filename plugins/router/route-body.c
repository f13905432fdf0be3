#include "route-body.h"

#include <ctype.h>
#include <jansson.h>
#include <limits.h>

#include "mem.h"
#include "route-json.h"
#include "route-parser.h"
#include "route-text.h"

/* Paths */

static bool is_index(struct span s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
    return s.len > 0;
}

static void step_add(struct body_path *path, struct body_step step)
{
    xgrow(path->steps, path->count, path->capacity);
    path->steps[path->count++] = step;
}

/* An index that no array can have finds what any other beyond the end finds. */
static void index_add(struct body_path *path, struct span digits)
{
    uint64_t index;

    if (!span_to_uint64(digits, &index) || index > INT_MAX)
        index = SIZE_MAX;
    step_add(path, (struct body_step){ .kind = STEP_INDEX, .index = (size_t)index });
}

/* "name", "name[0]", "name[0][1]". Returns what was expected, NULL when it is well; @at: where. */
static const char *segment_parse(struct body_path *path, struct span segment, const char **ret_at)
{
    const char *open = segment.len > 0 ? memchr(segment.at, '[', segment.len) : NULL;
    struct span name = segment, rest = {}, digits;

    *ret_at = segment.at;
    if (open) {
        name.len = (size_t)(open - segment.at);
        rest = span_of(open, segment.len - name.len);
    }
    if (name.len == 0 || is_index(name) || memchr(name.at, ']', name.len))
        return "the name of a member, not of digits alone";
    if (span_equal(name, SPAN("*")))
        step_add(path, (struct body_step){ .kind = STEP_ANY });
    else
        step_add(path, (struct body_step){ .kind = STEP_MEMBER, .member = span_xdup(name) });
    while (rest.len > 0) {
        *ret_at = rest.at;
        if (!span_eat(&rest, SPAN("[")) || !span_split(&rest, SPAN("]"), &digits) ||
            !is_index(digits))
            return "an index like [0], or a dot and a member";
        index_add(path, digits);
    }
    return NULL;
}

int body_path_parse(struct span text, struct body_path *ret_path, struct parse_error *ret_error)
{
    struct body_path path = {};
    struct span rest = text, segment;
    bool done = false;

    while (span_next(&rest, '.', &segment, &done)) {
        const char *at, *expected = segment_parse(&path, segment, &at);

        if (!expected)
            continue;
        body_path_done(&path);
        *ret_error = (struct parse_error){ (size_t)(at - text.at), expected };
        return ROUTE_E_INVALID;
    }
    *ret_path = path;
    return 0;
}

void body_path_done(struct body_path *path)
{
    for (size_t i = 0; i < path->count; i++)
        free(path->steps[i].member);
    free(path->steps);
    *path = (struct body_path){};
}

/* Bodies */

/* What cannot be decoded becomes a replacement character, as in the original: it may stand where
 * no condition looks. */
enum { REPLACEMENT = 0xfffd, REPLACEMENT_BYTES = 3 };

static uint32_t little_endian(const char *at, size_t n)
{
    uint32_t value = 0;

    for (size_t i = n; i-- > 0;)
        value = value << 8 | (unsigned char)at[i];
    return value;
}

static bool is_surrogate(uint32_t c, uint32_t first)
{
    return (c & 0xfffffc00) == first;
}

/* The next character of UTF-16. */
static uint32_t utf16_next(struct span *s)
{
    uint32_t c, low;

    if (s->len < 2) {
        *s = span_of(s->at, 0);
        return REPLACEMENT;
    }
    c = little_endian(s->at, 2);
    *s = span_of(s->at + 2, s->len - 2);
    if (is_surrogate(c, 0xd800) && s->len >= 2) {
        low = little_endian(s->at, 2);
        if (is_surrogate(low, 0xdc00)) {
            *s = span_of(s->at + 2, s->len - 2);
            return 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
        }
    }
    return is_surrogate(c, 0xd800) || is_surrogate(c, 0xdc00) ? REPLACEMENT : c;
}

static uint32_t utf32_next(struct span *s)
{
    uint32_t c = REPLACEMENT;

    if (s->len >= 4) {
        c = little_endian(s->at, 4);
        *s = span_of(s->at + 4, s->len - 4);
    } else {
        *s = span_of(s->at, 0);
    }
    return c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? REPLACEMENT : c;
}

/* UTF-8 that is not well-formed: every byte that begins no character is replaced. */
static uint32_t utf8_next(struct span *s)
{
    struct span rest = *s;
    uint32_t c = text_next(&rest);

    if (span_is_utf8(span_of(s->at, s->len - rest.len))) {
        *s = rest;
        return c;
    }
    *s = span_of(s->at + 1, s->len - 1);
    return REPLACEMENT;
}

static struct span transcode(struct span body, uint32_t (*next)(struct span *), struct arena *arena)
{
    char *text = arena_alloc(arena, body.len * REPLACEMENT_BYTES + 1);
    size_t len = 0;

    while (body.len > 0)
        len += text_put(next(&body), text + len);
    return span_of(text, len);
}

/* The parser recurses as deep as a text says; so what it says is counted before. */
static bool is_shallow(struct span json)
{
    size_t depth = 0;
    bool quoted = false;

    for (size_t i = 0; i < json.len; i++) {
        char c = json.at[i];

        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '{' || c == '['))
            depth++;
        else if (!quoted && (c == '}' || c == ']') && depth > 0)
            depth--;
        if (depth > BODY_DEPTH_MAX)
            return false;
    }
    return true;
}

static json_t *load(struct span text, struct arena *arena, bool *ret_is_utf8)
{
    *ret_is_utf8 = true;
    return is_shallow(text) ? route_json_load(text, arena, ret_is_utf8) : NULL;
}

static json_t *load_encoded(struct span body, struct span encoding, struct arena *arena)
{
    bool is_utf8;
    json_t *json;

    if (span_equal_nocase(encoding, SPAN("utf-16")))
        return load(transcode(body, utf16_next, arena), arena, &is_utf8);
    if (span_equal_nocase(encoding, SPAN("utf-32")))
        return load(transcode(body, utf32_next, arena), arena, &is_utf8);
    if (!span_equal_nocase(encoding, SPAN("utf-8")))
        return NULL;
    json = load(body, arena, &is_utf8);
    return is_utf8 ? json : load(transcode(body, utf8_next, arena), arena, &is_utf8);
}

struct json_t *body_parse(struct span body, struct span content_type, struct span content_encoding,
                          struct arena *arena)
{
    json_t *json;

    if (!span_equal_nocase(content_type, SPAN("application/json")) || body.len == 0 ||
        body.len > BODY_BYTES_MAX)
        return NULL;
    json = load_encoded(body, content_encoding, arena);
    if (json && !json_is_object(json)) {
        json_decref(json);
        json = NULL;
    }
    return json;
}

void body_free(struct json_t *body)
{
    json_decref(body);
}

/* Values */

static bool digits_at(struct span s, size_t at, size_t n, int *ret_value)
{
    int value = 0;

    if (at + n > s.len)
        return false;
    for (size_t i = at; i < at + n; i++) {
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
        value = value * 10 + (s.at[i] - '0');
    }
    *ret_value = value;
    return true;
}

static int days_in_month(int year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && leap);
}

static bool is_date(struct span s)
{
    int year, month, day;

    return digits_at(s, 0, 4, &year) && s.at[4] == '-' && digits_at(s, 5, 2, &month) &&
           s.at[7] == '-' && digits_at(s, 8, 2, &day) && year > 0 && month >= 1 && month <= 12 &&
           day >= 1 && day <= days_in_month(year, month);
}

/* 24:00:00 is the end of a day. */
static bool is_time(struct span s)
{
    int hour, minute, second;

    return digits_at(s, 0, 2, &hour) && s.at[2] == ':' && digits_at(s, 3, 2, &minute) &&
           s.at[5] == ':' && digits_at(s, 6, 2, &second) && minute < 60 && second < 60 &&
           (hour < 24 || (hour == 24 && minute == 0 && second == 0));
}

/* Nothing, Z, +hh, +hhmm or +hh:mm. */
static bool is_zone(struct span s)
{
    int hours, minutes;

    if (s.len <= 1)
        return s.len == 0 || s.at[0] == 'Z' || s.at[0] == 'z';
    if ((s.at[0] != '+' && s.at[0] != '-') || !digits_at(s, 1, 2, &hours))
        return false;
    s = span_of(s.at + 3, s.len - 3);
    span_eat(&s, SPAN(":"));
    return s.len == 0 || (s.len == 2 && digits_at(s, 0, 2, &minutes));
}

enum { DATE_TIME_MIN = 19, DATE_TIME_MAX = 40, FRACTION_MAX = 7 };

static bool is_date_time(struct span s)
{
    struct span rest;
    size_t fraction = 0;

    if (s.len < DATE_TIME_MIN || s.len > DATE_TIME_MAX || s.at[10] != 'T' || !is_date(s) ||
        !is_time(span_of(s.at + 11, s.len - 11)))
        return false;
    rest = span_of(s.at + DATE_TIME_MIN, s.len - DATE_TIME_MIN);
    if (span_eat(&rest, SPAN("."))) {
        while (fraction < rest.len && isdigit((unsigned char)rest.at[fraction]))
            fraction++;
        if (fraction == 0 || fraction > FRACTION_MAX)
            return false;
    }
    return is_zone(span_of(rest.at + fraction, rest.len - fraction));
}

/* "/Date(1709251199000)/", "/Date(1709251199000+0100)/" */
static bool is_microsoft_date(struct span s)
{
    struct span digits, after;
    const char *zone = NULL;
    uint64_t ms;

    if (!span_eat(&s, SPAN("/Date(")) || !span_split(&s, SPAN(")/"), &digits) || s.len > 0)
        return false;
    span_eat(&digits, SPAN("-"));
    for (size_t i = 0; i < digits.len && !zone; i++)
        if (digits.at[i] == '+' || digits.at[i] == '-')
            zone = digits.at + i;
    after = zone ? span_of(zone, digits.len - (size_t)(zone - digits.at)) : SPAN("");
    digits.len -= after.len;
    return span_to_uint64(digits, &ms) && ms <= INT64_MAX && is_zone(after);
}

/* The original's JSON parser makes dates of such strings, and conditions know no dates. */
static struct route_value string_value(struct span s)
{
    double number;

    if (route_json_is_infinite(s, &number))
        return value_number(number);
    if (s.len > 0 && (s.at[0] == '/' ? is_microsoft_date(s) : is_date_time(s)))
        return VALUE_UNDEFINED;
    return value_text(s);
}

static struct route_value json_value(const json_t *json)
{
    switch (json_typeof(json)) {
    case JSON_STRING:
        return string_value(span_of(json_string_value(json), json_string_length(json)));
    case JSON_INTEGER:
    case JSON_REAL:
        return value_number(json_number_value(json));
    case JSON_TRUE:
    case JSON_FALSE:
        return value_bool(json_is_true(json));
    case JSON_NULL:
        return VALUE_NULL;
    default:
        return VALUE_UNDEFINED; /* objects and arrays */
    }
}

struct search {
    const struct body_path *path;
    const json_t *found;
    size_t matches; /* more than one is as good as two */
    size_t looked_at;
};

static const json_t *step_take(const json_t *json, const struct body_step *step)
{
    return step->kind == STEP_INDEX ? json_array_get(json, step->index)
                                    : json_object_get(json, step->member);
}

/* Recurses at wildcards only, into what is nested: not deeper than the body is. */
static void search_from(struct search *search, const json_t *json, size_t step)
{
    const char *key;
    json_t *member;

    for (; json && step < search->path->count; step++) {
        if (search->path->steps[step].kind == STEP_ANY)
            break;
        json = step_take(json, &search->path->steps[step]);
        search->looked_at++;
    }
    if (!json)
        return;
    if (step == search->path->count) {
        search->found = json;
        search->matches++;
        return;
    }
    json_object_foreach((json_t *)json, key, member)
    {
        if (search->matches > 1)
            return;
        search->looked_at++;
        search_from(search, member, step + 1);
    }
}

struct route_value body_find(const json_t *body, const struct body_path *path,
                             size_t *ret_looked_at)
{
    struct search search = { .path = path };

    *ret_looked_at = 0;
    if (!body)
        return VALUE_UNDEFINED;
    search_from(&search, body, 0);
    *ret_looked_at = search.looked_at;
    if (search.matches == 0)
        return (struct route_value){ .type = TYPE_NULL, .is_missing = true };
    return search.matches == 1 ? json_value(search.found) : VALUE_UNDEFINED;
}
