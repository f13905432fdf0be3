/* Routes without a running edge: whether one is well-formed, and what some would do with some
 * messages. */
#include <stdio.h>

#include "buf.h"
#include "ctl-print.h"
#include "ctl.h"
#include "file.h"
#include "route-json.h"
#include "route-vector.h"

/* A place in a text of several lines. */
struct place {
    struct span line;
    size_t number, column; /* from 1; columns are characters */
    char *pointer;         /* what stands below the line; the caller's */
};

static bool begins_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

static void place_find(struct span text, size_t offset, struct place *ret)
{
    _cleanup_(buf_done) struct buf pointer = {};
    struct span rest = text, line;
    bool done = false;

    *ret = (struct place){ .column = 1 };
    while (span_next(&rest, '\n', &line, &done)) {
        ret->line = line;
        ret->number++;
        if (offset <= line.len)
            break;
        offset -= line.len + 1;
    }
    for (size_t i = 0; i < offset && i < line.len; i++) {
        if (!begins_character(line.at[i]))
            continue;
        buf_append_byte(&pointer, line.at[i] == '\t' ? '\t' : ' ');
        ret->column++;
    }
    buf_append_byte(&pointer, '^');
    ret->pointer = span_xdup(buf_span(&pointer));
}

static int route_refused(const struct ctl *ctl, struct span text, const struct parse_error *error)
{
    struct place place;

    place_find(text, error->offset, &place);
    if (ctl->json) {
        json_t *answer =
            json_pack("{s:b, s:I, s:I, s:s}", "valid", 0, "line", (json_int_t)place.number,
                      "column", (json_int_t)place.column, "expected", error->expected);

        ctl_print_json(answer);
        json_decref(answer);
    }
    ctl_fail("line %zu, column %zu: expected %s\n%.*s\n%s", place.number, place.column,
             error->expected, (int)place.line.len, place.line.at, place.pointer);
    free(place.pointer);
    return CTL_FAILED;
}

int ctl_route_check(struct ctl *ctl, int argc, char **argv)
{
    _cleanup_(routes_freep) struct routes *routes = routes_new();
    struct parse_error error;
    json_t *answer;

    if (routes_add(routes, "route", span_str(argv[0]), ROUTE_PRIORITY_DEFAULT, -1, &error) != 0)
        return route_refused(ctl, span_str(argv[0]), &error);
    answer = json_pack("{s:b, s:o}", "valid", 1, "queue",
                       ctl_text(routes_get(routes, 0)->endpoint.queue));
    if (ctl->json)
        ctl_print_json(answer);
    else
        ctl_print_any(answer);
    json_decref(answer);
    return CTL_DONE;
}

static json_t *outcome_json(const json_t *vector, const struct route_outcome *outcome)
{
    const json_t *id = json_object_get(vector, "id");
    json_t *result = outcome->is_refused ? json_string("error") : json_boolean(outcome->is_routed);

    return json_pack("{s:o, s:o}", "id", id ? json_deep_copy(id) : json_null(), "result", result);
}

enum { VECTORS_BYTES_MAX = 64 << 20 };

/* Cases may be about what jansson refuses: half a surrogate pair, NUL. */
static json_t *vectors_load(const char *path, json_error_t *ret_error)
{
    _cleanup_(buf_done) struct buf text = {};
    json_t *vectors = json_load_file(path, JSON_ALLOW_NUL, ret_error);
    struct arena *arena;
    bool is_utf8;

    if (vectors || file_read(path, VECTORS_BYTES_MAX, &text) != 0)
        return vectors;
    arena = arena_new();
    vectors = route_json_load(buf_span(&text), arena, &is_utf8);
    arena_free(arena);
    return vectors;
}

int ctl_route_eval(struct ctl *ctl, int argc, char **argv)
{
    json_error_t error;
    json_t *vectors = vectors_load(argv[0], &error), *results, *vector;
    int status = CTL_DONE;
    size_t i;

    if (!vectors)
        return ctl_fail("%s:%d:%d: %s", argv[0], error.line, error.column, error.text);
    if (!json_is_array(vectors)) {
        json_decref(vectors);
        return ctl_fail("%s: expected an array of cases", argv[0]);
    }
    results = json_array();
    json_array_foreach(vectors, i, vector)
    {
        struct route_outcome outcome = {};
        const char *expected;

        if (route_vector_run(vector, &outcome, &expected) != 0) {
            status = ctl_fail("%s: case %zu: expected %s", argv[0], i + 1, expected);
            break;
        }
        json_array_append_new(results, outcome_json(vector, &outcome));
        route_outcome_done(&outcome);
    }
    if (status == CTL_DONE)
        ctl_print_json(results);
    json_decref(results);
    json_decref(vectors);
    return status;
}
