#include "route-message.h"

#include "message.h"
#include "route-body.h"
#include "route-text.h"

void route_message_begin(struct route_message *message, struct arena *arena)
{
    message->arena = arena;
}

void route_message_end(struct route_message *message)
{
    body_free(message->body);
    message->body = NULL;
    message->body_was_read = false;
    if (message->was_decoded)
        message->decoded = NULL; /* it was in the arena */
    message->was_decoded = false;
}

/* What does not decode has no properties. */
static const Bus__Message *decode(struct route_message *message)
{
    static const Bus__Message nothing = BUS__MESSAGE__INIT;

    if (message->decoded)
        return message->decoded;
    message->decoded = bus__message__unpack(arena_allocator(message->arena), message->encoded.len,
                                            (const uint8_t *)message->encoded.at);
    if (!message->decoded)
        message->decoded = &nothing;
    message->was_decoded = true;
    return message->decoded;
}

static struct route_value property_find(Bus__Property *const *properties, size_t count,
                                        struct span name, size_t *ret_looked_at)
{
    *ret_looked_at = count;
    for (size_t i = 0; i < count; i++) {
        if (!text_equal_nocase(span_str(properties[i]->name), name))
            continue;
        return value_text(properties[i]->is_null ? (struct span){}
                                                 : span_str(properties[i]->value));
    }
    return VALUE_UNDEFINED;
}

struct route_value route_message_application(struct route_message *message, struct span name,
                                             size_t *ret_looked_at)
{
    const Bus__Message *m = decode(message);

    return property_find(m->application, m->n_application, name, ret_looked_at);
}

/* Who sent it is not among the properties of a message, lest a client could say it. */
struct route_value route_message_system(struct route_message *message, struct span name,
                                        size_t *ret_looked_at)
{
    const Bus__Message *m = decode(message);

    *ret_looked_at = 0;
    if (*m->device_id && text_equal_nocase(name, SPAN("connectionDeviceId")))
        return value_text(span_str(m->device_id));
    if (*m->module_id && text_equal_nocase(name, SPAN("connectionModuleId")))
        return value_text(span_str(m->module_id));
    return property_find(m->system, m->n_system, name, ret_looked_at);
}

static struct span system_text(const Bus__Message *m, const char *name)
{
    struct route_value value;
    size_t looked_at;

    value = property_find(m->system, m->n_system, span_str(name), &looked_at);
    return value.type == TYPE_STRING ? value.text : (struct span){};
}

const struct json_t *route_message_body(struct route_message *message)
{
    const Bus__Message *m = decode(message);

    if (!message->body_was_read)
        message->body =
            body_parse(span_of(m->body.data, m->body.len), system_text(m, MESSAGE_CONTENT_TYPE),
                       system_text(m, MESSAGE_CONTENT_ENCODING), message->arena);
    message->body_was_read = true;
    return message->body;
}
