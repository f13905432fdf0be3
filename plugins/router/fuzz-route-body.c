/* Any bytes as a body, in each encoding, as a path into a body, and as a text that may be a date
 * or a number. */
#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "mem.h"
#include "route-body.h"
#include "route-number.h"
#include "route-parser.h"
#include "route-text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const paths[] = { "a", "a.b[0].c", "*", "*.*.*", "a[1][2].*.b" };

static void find_all(const struct json_t *body, const struct body_path *given)
{
    size_t looked_at;

    if (given)
        body_find(body, given, &looked_at);
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        struct body_path path;
        struct parse_error error;
        struct route_value value;

        assert(body_path_parse(span_str(paths[i]), &path, &error) == 0);
        value = body_find(body, &path, &looked_at);
        assert(body || value.type == TYPE_UNDEFINED);
        body_path_done(&path);
    }
}

static void map_text(struct span text)
{
    char *out = xalloc0(TEXT_MAPPED_MAX(text.len) + 1);
    size_t len = text_map(text, TEXT_UPPER, out);
    bool inside;

    assert(len <= TEXT_MAPPED_MAX(text.len));
    assert(text_compare(text, text) == 0 && text_equal_nocase(text, text));
    assert(text_offset(text, text_units(text) / 2, &inside) <= text.len);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct span encodings[] = { { "utf-8", 5 }, { "utf-16", 6 }, { "utf-32", 6 } };
    struct span text = span_of(data, size);
    struct arena *arena = arena_new();
    struct body_path path;
    struct parse_error error;
    bool is_path = body_path_parse(text, &path, &error) == 0;

    assert(is_path || (error.offset <= size && error.expected));
    for (size_t i = 0; i < 3; i++) {
        struct json_t *body = body_parse(text, SPAN("application/json"), encodings[i], arena);

        find_all(body, is_path ? &path : NULL);
        body_free(body);
    }
    if (is_path)
        body_path_done(&path);
    map_text(text);
    assert(isnan(number_parse(text)) || size > 0);
    arena_free(arena);
    return 0;
}
