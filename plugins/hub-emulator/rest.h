/*
 * The hub's REST interface without its transport: routes, who may use them, the form of answers and errors. rest-http.c
 * brings requests in; rest-registry.c and rest-scope.c answer them.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "authorize.h"
#include "buf.h"
#include "registry.h"
#include "span.h"

enum { REST_PARAMS_MAX = 3, REST_BODY_BYTES_MAX = 1 << 20 };

/* One request and its answer. The strings of the request are borrowed from whoever made the call. */
struct rest_call {
    struct registry *registry;
    const struct authority *authority;
    int64_t now_sec;

    const char *method;
    const char *target; /* "/devices/d%23?api-version=…", as it stood in the request line */
    const char *authorization; /* headers; NULL: absent */
    const char *if_match_header;
    struct span body_text;
    bool body_too_large;

    char *params[REST_PARAMS_MAX]; /* what stood at the {names} of the route, decoded */
    struct span query;
    const char
        *if_match; /* NULL: no such header; "*": any version; else an etag without its quotes */
    char *if_match_text;
    json_t *body; /* NULL: none */

    unsigned status;
    char *answer; /* NULL: no body */
    char *etag;
    const char *error_code; /* header iothub-errorcode; a literal */
};
void rest_call_done(struct rest_call *call);

/* Finds the route, decides whether the caller may, runs the handler. The call has its answer when this returns. */
void rest_dispatch(struct rest_call *call);

/* ---- for the handlers ---- */

enum rest_policy {
    REST_REGISTRY_READ, /* a service policy */
    REST_REGISTRY_WRITE,
    REST_MODULES_READ, /* a service policy, or {0}'s own token: it is about its modules */
    REST_MODULES_WRITE,
    REST_EDGE_HUB, /* the token of {0}/$edgeHub */
};

/* Answers the call. -errno: something failed that the caller cannot help; answered 500. */
typedef int rest_handler_fn(struct rest_call *call);

struct rest_route {
    const char *method; /* NULL ends the table */
    const char *path;   /* {name}: one segment, any text */
    enum rest_policy policy;
    rest_handler_fn *fn;
};
extern const struct rest_route rest_registry_routes[];
extern const struct rest_route rest_scope_routes[];

/* Each returns 0. */
int rest_answer_json_take(struct rest_call *call, unsigned status, json_t *json);
int rest_answer_empty(struct rest_call *call, unsigned status);
int rest_answer_error(struct rest_call *call, unsigned status, const char *code, const char *format,
                      ...) _printf_(4, 5);
void rest_set_etag(struct rest_call *call, const char *etag);

/* A query argument, decoded, the caller's; NULL: absent. */
char *rest_query(const struct rest_call *call, const char *name);

enum { REST_E_NO_PATH = 1, REST_E_NO_METHOD };
/* @ret_params: decoded segments, the caller's. A slash at the end of the path does not count. */
int rest_route_find(const char *method, struct span path, const struct rest_route **ret,
                    char *ret_params[REST_PARAMS_MAX]);
