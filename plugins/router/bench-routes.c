/*
 * What routes cost for a message, without a bus: bench-routes [messages a round]
 *
 * Each line: sets of 1, 10, 100 and 200 routes, nanoseconds for one message, the bus.Message
 * decoded from its bytes each time where a condition asks for it.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <time.h>

#include "routes.h"

enum { MESSAGES = 20000, ROUNDS = 10, SETS = 4, BODY_BYTES = 1024 };

static const int set_sizes[SETS] = { 1, 10, 100, 200 };

/* Of the processor: others may be busy on this machine. */
static uint64_t now_nsec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static Bus__Property property(const char *name, const char *value)
{
    Bus__Property p = BUS__PROPERTY__INIT;

    p.name = (char *)name;
    p.value = (char *)value;
    return p;
}

/* Telemetry as devices send it: an object of an object and lists, 1 KiB of it. */
static char *body_new(void)
{
    json_t *body = json_pack("{s:{s:f, s:i, s:s, s:b}, s:[], s:s}", "engine", "temperature", 71.5,
                             "rpm", 1800, "name", "E-7", "ok", 1, "samples", "padding", "");
    char *text = NULL;

    for (int i = 0; !text || strlen(text) < BODY_BYTES; i++) {
        free(text);
        json_array_append_new(json_object_get(body, "samples"),
                              json_pack("{s:i, s:f}", "t", i, "value", i * 1.25 + 0.5));
        text = json_dumps(body, JSON_COMPACT);
    }
    json_decref(body);
    return text;
}

static size_t message_pack(uint8_t **ret_bytes)
{
    _cleanup_(freep) char *body = body_new();
    Bus__Property type = property("contentType", "application/json");
    Bus__Property encoding = property("contentEncoding", "utf-8"), id = property("messageId", "42");
    Bus__Property site = property("site", "north-7"), level = property("level", "high");
    Bus__Property temp = property("temp", "21.5"), line = property("line", "L3");
    Bus__Property *system[] = { &id, &type, &encoding };
    Bus__Property *application[] = { &site, &line, &temp, &level };
    Bus__Message m = BUS__MESSAGE__INIT;

    m.device_id = (char *)"edge-1";
    m.module_id = (char *)"camera";
    m.system = system;
    m.n_system = 3;
    m.application = application;
    m.n_application = 4;
    m.body.data = (uint8_t *)body;
    m.body.len = strlen(body);
    *ret_bytes = xalloc0(bus__message__get_packed_size(&m));
    return bus__message__pack(&m, *ret_bytes);
}

/* @form: of a route, with %d for its number twice. */
static struct routes *routes_of(const char *form, int count)
{
    struct routes *routes = routes_new();
    struct parse_error error;
    char text[256];

    for (int i = 0; i < count; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof(text), form, i, i);
#pragma GCC diagnostic pop
        if (routes_add(routes, "r", span_str(text), ROUTE_PRIORITY_DEFAULT, -1, &error) != 0)
            abort();
    }
    return routes;
}

static double round_nsec(struct routes *routes, struct span encoded, long messages)
{
    struct route_message message = { .source = SPAN("/messages/modules/camera/outputs/frames/"),
                                     .encoded = encoded };
    const struct route *const *matches;
    uint64_t began = now_nsec();

    for (long i = 0; i < messages; i++)
        routes_match(routes, &message, &matches);
    return (double)(now_nsec() - began) / (double)messages;
}

/* The best of some rounds: what others on the machine do only makes it slower. */
static double cost_nsec(const char *form, int count, struct span encoded, long messages)
{
    _cleanup_(routes_freep) struct routes *routes = routes_of(form, count);
    double best = round_nsec(routes, encoded, messages);

    for (int i = 1; i < ROUNDS; i++) {
        double nsec = round_nsec(routes, encoded, messages);

        best = nsec < best ? nsec : best;
    }
    return best;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *what, *form;
    } lines[] = {
        { "no condition", "FROM /messages/* INTO BrokeredEndpoint('/modules/m%d/inputs/i%d')" },
        { "other sources", "FROM /messages/modules/m%d/* WHERE level = 'x%d' INTO $upstream" },
        { "one property", "FROM /messages/* WHERE level = 'x%d' INTO "
                          "BrokeredEndpoint('/modules/m%d/inputs/i')" },
        { "its own property", "FROM /messages/* WHERE p%d = 'x' INTO "
                              "BrokeredEndpoint('/modules/m%d/inputs/i')" },
        { "three properties",
          "FROM /messages/* WHERE level = 'high' and site <> 'x%d' and "
          "as_number(temp) > 90 INTO BrokeredEndpoint('/modules/m%d/inputs/i')" },
        { "text function", "FROM /messages/* WHERE starts_with(lower(site), 'x%d') INTO "
                           "BrokeredEndpoint('/modules/m%d/inputs/i')" },
        { "body, parsed", "FROM /messages/* WHERE $body.none = %d INTO "
                          "BrokeredEndpoint('/modules/m%d/inputs/i')" },
        { "body, one path", "FROM /messages/* WHERE $body.engine.rpm = %d INTO "
                            "BrokeredEndpoint('/modules/m%d/inputs/i')" },
        { "body, three paths", "FROM /messages/* WHERE $body.engine.ok = true and "
                               "$body.engine.rpm > 1000 and $body.samples[2].value = %d INTO "
                               "BrokeredEndpoint('/modules/m%d/inputs/i')" },
        { "body behind property", "FROM /messages/* WHERE level = 'low%d' and $body.engine.rpm = 1 "
                                  "INTO BrokeredEndpoint('/modules/m%d/inputs/i')" },
    };
    long messages = argc > 1 ? strtol(argv[1], NULL, 10) : MESSAGES;
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t len = message_pack(&bytes);

    printf("%-22s", "ns a message, routes:");
    for (size_t k = 0; k < SETS; k++)
        printf(" %8d", set_sizes[k]);
    putchar('\n');
    for (size_t i = 0; i < ELEMENTSOF(lines); i++) {
        printf("%-22s", lines[i].what);
        for (size_t k = 0; k < SETS; k++)
            printf(" %8.0f", cost_nsec(lines[i].form, set_sizes[k], span_of(bytes, len), messages));
        putchar('\n');
    }
    return 0;
}
