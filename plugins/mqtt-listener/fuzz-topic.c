/* First line: a topic; second: a user name. Whatever is accepted is text, and its names are unique.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "message.h"
#include "topic.h"
#include "username.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *s)
{
    if (!span_is_utf8(span_str(s)))
        abort();
}

static void check_properties(Bus__Property **properties, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_text(properties[i]->name);
        check_text(properties[i]->value);
        for (size_t j = 0; j < i && count < 100; j++)
            if (strcmp(properties[i]->name, properties[j]->name) == 0)
                abort();
    }
}

static void try_topic(struct span text, struct arena *arena)
{
    Bus__Message m = BUS__MESSAGE__INIT;
    struct topic topic;

    topic_parse(text, &topic);
    if (topic.kind != TOPIC_TELEMETRY || bag_decode(topic.bag, arena, &m) != 0)
        return;
    check_properties(m.system, m.n_system);
    check_properties(m.application, m.n_application);
    message_size(&m);
}

static void try_username(struct span text, struct arena *arena)
{
    struct parse_error error = {};
    struct username username;

    if (username_parse(text, arena, &username, &error) != 0) {
        if (!error.expected || error.offset > text.len)
            abort();
        return;
    }
    if (!identity_id_valid(username.device_id))
        abort();
    check_text(username.product_info);
    check_text(username.model_id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span username = span_of(data, size), topic;
    struct arena *arena = arena_new();

    if (span_split(&username, SPAN("\n"), &topic)) {
        try_topic(topic, arena);
        if (span_is_utf8(username))
            try_username(username, arena);
    }
    arena_free(arena);
    return 0;
}
