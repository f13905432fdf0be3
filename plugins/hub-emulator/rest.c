#include "rest.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "log.h"

static const struct rest_route *const route_tables[] = { rest_registry_routes, rest_scope_routes };

/* ---- routes ---- */

static void params_free(char *params[REST_PARAMS_MAX])
{
    for (unsigned i = 0; i < REST_PARAMS_MAX; i++) {
        free(params[i]);
        params[i] = NULL;
    }
}

static bool segment_matches(struct span pattern, struct span segment, char *params[REST_PARAMS_MAX],
                            unsigned *count)
{
    size_t len;
    char *decoded = percent_decode(segment, &len);

    if (pattern.len > 0 && pattern.at[0] == '{' && len > 0 && strlen(decoded) == len &&
        *count < REST_PARAMS_MAX) {
        params[(*count)++] = decoded;
        return true;
    }
    if (span_equal(pattern, span_of(decoded, len))) {
        free(decoded);
        return true;
    }
    free(decoded);
    return false;
}

static bool path_matches(const char *pattern_text, struct span path, char *params[REST_PARAMS_MAX])
{
    struct span pattern = span_str(pattern_text), want, got;
    bool want_done = false, got_done = false;
    unsigned count = 0;

    while (span_next(&pattern, '/', &want, &want_done)) {
        if (!span_next(&path, '/', &got, &got_done) ||
            !segment_matches(want, got, params, &count)) {
            params_free(params);
            return false;
        }
    }
    if (!span_next(&path, '/', &got, &got_done))
        return true;
    params_free(params);
    return false;
}

int rest_route_find(const char *method, struct span path, const struct rest_route **ret,
                    char *ret_params[REST_PARAMS_MAX])
{
    int r = REST_E_NO_PATH;

    if (path.len > 1 && path.at[path.len - 1] == '/')
        path.len--;
    for (size_t t = 0; t < ELEMENTSOF(route_tables); t++) {
        for (const struct rest_route *route = route_tables[t]; route->method; route++) {
            char *params[REST_PARAMS_MAX] = {};

            if (!path_matches(route->path, path, params))
                continue;
            if (strcmp(route->method, method) != 0) {
                params_free(params);
                r = REST_E_NO_METHOD;
                continue;
            }
            memcpy(ret_params, params, sizeof(params));
            *ret = route;
            return 0;
        }
    }
    return r;
}

char *rest_query(const struct rest_call *call, const char *name)
{
    struct span query = call->query, pair, key;
    bool done = false;
    size_t len;

    while (span_next(&query, '&', &pair, &done))
        if (span_split(&pair, SPAN("="), &key) && span_equal(key, span_str(name)))
            return percent_decode(pair, &len);
    return NULL;
}

/* ---- answers ---- */

static void answer_reset(struct rest_call *call, unsigned status)
{
    call->status = status;
    free(call->answer);
    call->answer = NULL;
}

int rest_answer_json_take(struct rest_call *call, unsigned status, json_t *json)
{
    answer_reset(call, status);
    call->answer = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return 0;
}

int rest_answer_empty(struct rest_call *call, unsigned status)
{
    answer_reset(call, status);
    return 0;
}

/* "Tracking ID:<hex>-TimeStamp:<time>", as the hub adds to each error. */
static json_t *tracking_json(int64_t now_sec)
{
    unsigned char id[16];
    char text[96], *at = text;
    time_t now = (time_t)now_sec;
    struct tm tm;
    ssize_t n = getrandom(id, sizeof(id), 0);

    at += sprintf(at, "Tracking ID:");
    for (ssize_t i = 0; i < n; i++)
        at += sprintf(at, "%02x", id[i]);
    gmtime_r(&now, &tm);
    strftime(at, sizeof(text) - (size_t)(at - text), "-TimeStamp:%m/%d/%Y %H:%M:%S", &tm);
    return json_string(text);
}

int rest_answer_error(struct rest_call *call, unsigned status, const char *code, const char *format,
                      ...)
{
    struct buf text = {};
    char message[512];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    buf_printf(&text, "ErrorCode:%s;%s", code, message);
    call->error_code = code;
    rest_answer_json_take(call, status,
                          json_pack("{s:o, s:o}", "Message",
                                    json_stringn_nocheck(text.data, buf_len(&text)),
                                    "ExceptionMessage", tracking_json(call->now_sec)));
    buf_done(&text);
    return 0;
}

void rest_set_etag(struct rest_call *call, const char *etag)
{
    free(call->etag);
    call->etag = xasprintf("\"%s\"", etag);
}

/* ---- who may ---- */

static int authorize_module_call(const struct rest_call *call, struct span token,
                                 enum permission permission)
{
    int r = authorize_service(call->authority, token, permission, call->now_sec);

    if (r != AUTHORIZE_E_AUDIENCE)
        return r;
    return authorize_identity(call->authority, token, call->params[0], NULL, false, call->now_sec);
}

static int authorize_call(const struct rest_call *call, enum rest_policy policy)
{
    struct span token = span_str(call->authorization);

    switch (policy) {
    case REST_REGISTRY_READ:
        return authorize_service(call->authority, token, PERMISSION_REGISTRY_READ, call->now_sec);
    case REST_REGISTRY_WRITE:
        return authorize_service(call->authority, token, PERMISSION_REGISTRY_WRITE, call->now_sec);
    case REST_MODULES_READ:
        return authorize_module_call(call, token, PERMISSION_REGISTRY_READ);
    case REST_MODULES_WRITE:
        return authorize_module_call(call, token, PERMISSION_REGISTRY_WRITE);
    case REST_EDGE_HUB:
        return authorize_identity(call->authority, token, call->params[0], "$edgeHub", false,
                                  call->now_sec);
    }
    return AUTHORIZE_E_POLICY;
}

static int refuse_unauthorized(struct rest_call *call, int outcome)
{
    return rest_answer_error(call, 401, "IotHubUnauthorizedAccess", "Unauthorized: %s",
                             authorize_text(outcome));
}

/* ---- a call ---- */

/* `"*"`, `*` and `"etag"` come as each client likes. */
static void read_if_match(struct rest_call *call)
{
    struct span text = span_str(call->if_match_header);

    if (!call->if_match_header)
        return;
    if (text.len >= 2 && text.at[0] == '"' && text.at[text.len - 1] == '"')
        text = span_of(text.at + 1, text.len - 2);
    call->if_match_text = span_xdup(text);
    call->if_match = call->if_match_text;
}

static bool read_body(struct rest_call *call)
{
    json_error_t error;

    if (call->body_text.len == 0)
        return true;
    call->body = json_loadb(call->body_text.at, call->body_text.len,
                            JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!call->body)
        rest_answer_error(call, 400, "ArgumentInvalid",
                          "the body is no JSON: line %d, column %d: %s", error.line, error.column,
                          error.text);
    return call->body != NULL;
}

static void run_handler(struct rest_call *call, const struct rest_route *route)
{
    int r = route->fn(call);

    if (r < 0) {
        log_event(LOG_ERR, r, "REST call failed", F_STR("method", call->method),
                  F_DEVICE(call->params[0]));
        rest_answer_error(call, 500, "ServerError", "%s", strerror(-r));
    }
}

void rest_dispatch(struct rest_call *call)
{
    const struct rest_route *route;
    struct span target = span_str(call->target), path = target;
    int r;

    if (span_split(&target, SPAN("?"), &path))
        call->query = target;
    r = rest_route_find(call->method, path, &route, call->params);
    if (r == REST_E_NO_PATH) {
        rest_answer_error(call, 404, "ResourceNotFound", "the hub has no such path");
        return;
    }
    if (r == REST_E_NO_METHOD) {
        rest_answer_error(call, 405, "MethodNotAllowed", "the path does not take %s", call->method);
        return;
    }
    r = authorize_call(call, route->policy);
    if (r != 0) {
        refuse_unauthorized(call, r);
        return;
    }
    if (call->body_too_large) {
        rest_answer_error(call, 413, "RequestEntityTooLarge", "at most %d bytes",
                          REST_BODY_BYTES_MAX);
        return;
    }
    read_if_match(call);
    if (read_body(call))
        run_handler(call, route);
}

void rest_call_done(struct rest_call *call)
{
    params_free(call->params);
    free(call->if_match_text);
    json_decref(call->body);
    free(call->answer);
    free(call->etag);
    *call = (struct rest_call){};
}
