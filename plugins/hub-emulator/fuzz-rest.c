/* Calls of a service with every right: the first line is method, target and If-Match, the rest the body. */
#include "rest.h"

#define HOST   "hub.example.net"
#define POLICY "bXktcG9saWN5LWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE="

struct world {
    struct registry *registry;
    struct authority authority;
    char *token;
};

/* Made once: the calls build on each other. Held, so that nothing is written. */
static struct world *world_get(void)
{
    static struct world *world;

    if (world)
        return world;
    world = xnew(struct world);
    if (registry_open("/nowhere/registry.json", &world->registry) < 0)
        abort();
    registry_hold(world->registry);
    world->authority = (struct authority){ .registry = world->registry, .hostname = HOST };
    sas_key_parse(SPAN(POLICY), &world->authority.policy_key);
    world->token =
        sas_token_make(HOST, &world->authority.policy_key, "iothubowner", INT64_C(4000000000));
    return world;
}

static char *word_take(struct span *line)
{
    struct span word = {};

    if (!span_split(line, SPAN(" "), &word)) {
        word = *line;
        *line = (struct span){};
    }
    return span_xdup(word);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world *world = world_get();
    struct span body = span_of(data, size), line = {};
    _cleanup_(freep) char *method = NULL;
    _cleanup_(freep) char *target = NULL;
    _cleanup_(freep) char *if_match = NULL;
    struct rest_call call = { .registry = world->registry,
                              .authority = &world->authority,
                              .now_sec = 1767225600 };

    if (!span_split(&body, SPAN("\n"), &line))
        return 0;
    method = word_take(&line);
    target = word_take(&line);
    if_match = word_take(&line);
    call.method = method;
    call.target = target;
    call.authorization = world->token;
    call.if_match_header = if_match[0] != '\0' ? if_match : NULL;
    call.body_text = body;
    rest_dispatch(&call);
    if (call.status == 0)
        abort(); /* every call is answered */
    rest_call_done(&call);
    if (registry_count(world->registry) > 2000)
        registry_device_remove(world->registry, registry_device_at(world->registry, 0)->id, NULL);
    return 0;
}
