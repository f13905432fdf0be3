/*
 * $body: paths into a JSON body, and what stands there (routing.md §7.5). A body is text of
 * strangers: its size and its depth are looked at before it is parsed, and no path makes the search
 * for it recurse deeper than a body may be nested.
 */
#pragma once

#include "arena.h"
#include "route-value.h"

struct json_t;

enum {
    BODY_BYTES_MAX = 262144, /* of a whole message, on every wire */
    BODY_DEPTH_MAX = 64,
};

enum body_step_kind { STEP_MEMBER, STEP_INDEX, STEP_ANY };

struct body_step {
    enum body_step_kind kind;
    char *member;
    size_t index;
};

struct body_path {
    struct body_step *steps;
    size_t count, capacity;
};

/* "a.b[0].c". 0, or ROUTE_E_INVALID with the offset in @text. */
int body_path_parse(struct span text, struct body_path *ret_path, struct parse_error *ret_error);
void body_path_done(struct body_path *path);

/* NULL when it is no JSON object, or not said to be one: by the content type, in an encoding
 * that is known. The caller frees it. @arena: for a body that is not in UTF-8. */
struct json_t *body_parse(struct span body, struct span content_type, struct span content_encoding,
                          struct arena *arena);
void body_free(struct json_t *body);

/* @body NULL: unreadable, so undefined. Texts are borrowed from it. @ret_looked_at: members of
 * objects, for the budget. */
struct route_value body_find(const struct json_t *body, const struct body_path *path,
                             size_t *ret_looked_at);
