/* The operator's hand in a queue: `queue peek`, `queue drop`. */
#include <openssl/evp.h>
#include <stdio.h>

#include "ctl-ask.h"
#include "ctl-print.h"
#include "message.pb-c.h"

enum { PEEK_COUNT = 10, PEEK_COUNT_MAX = 1000 };

static json_t *base64_json(const ProtobufCBinaryData *data)
{
    _cleanup_(freep) uint8_t *text = xalloc0((data->len + 2) / 3 * 4 + 1);

    EVP_EncodeBlock(text, data->data, (int)data->len);
    return json_string((const char *)text);
}

/* As text where it is text, else under another key: as `hub monitor` shows it. */
static void set_body(json_t *object, const ProtobufCBinaryData *body)
{
    json_t *text = json_stringn((const char *)body->data, body->len);

    if (text)
        json_object_set_new(object, "body", text);
    else
        json_object_set_new(object, "body_base64", base64_json(body));
}

static json_t *properties_json(Bus__Property *const *properties, size_t count)
{
    json_t *object = json_object();

    for (size_t i = 0; i < count; i++) {
        _cleanup_(json_decrefp) json_t *name = ctl_text(properties[i]->name);

        json_object_set_new(object, json_string_value(name),
                            properties[i]->is_null ? json_null() : ctl_text(properties[i]->value));
    }
    return object;
}

/* What stands in the queue is a message of ours; if it is not, its bytes are shown. */
static json_t *item_json(const Bus__FetchedItem *item)
{
    json_t *json =
        json_pack("{s:o, s:I, s:I, s:o}", "partition", ctl_text(item->partition), "priority",
                  (json_int_t)item->priority, "position", (json_int_t)item->position,
                  "enqueued_time", ctl_time(item->enqueued_ms / 1000));
    Bus__Message *m = bus__message__unpack(NULL, item->message.len, item->message.data);

    if (!m) {
        json_object_set_new(json, "message_base64", base64_json(&item->message));
        return json;
    }
    json_object_set_new(json, "device_id", ctl_text(m->device_id));
    json_object_set_new(json, "module_id", *m->module_id ? ctl_text(m->module_id) : json_null());
    json_object_set_new(json, "system_properties", properties_json(m->system, m->n_system));
    json_object_set_new(json, "application_properties",
                        properties_json(m->application, m->n_application));
    set_body(json, &m->body);
    bus__message__free_unpacked(m, NULL);
    return json;
}

static json_t *peek_json(const Bus__Envelope *answer)
{
    json_t *items;

    if (answer->body_case != BUS__ENVELOPE__BODY_FETCHED)
        return NULL;
    items = json_array();
    for (size_t i = 0; i < answer->fetched->n_items; i++)
        json_array_append_new(items, item_json(answer->fetched->items[i]));
    return items;
}

int ctl_queue_peek(struct ctl *ctl, int argc, char **argv)
{
    static const struct ctl_column columns[] = {
        { "partition", "FROM", FORM_TEXT },      { "priority", "PRIORITY", FORM_NUMBER },
        { "position", "POSITION", FORM_NUMBER }, { "enqueued_time", "ENQUEUED", FORM_TEXT },
        { "body", "BODY", FORM_TEXT },           {},
    };
    Bus__QueuePeek peek = BUS__QUEUE_PEEK__INIT;
    Bus__Envelope request = ENVELOPE(QUEUE_PEEK, queue_peek, &peek);
    _cleanup_(json_decrefp) json_t *items = NULL;
    uint64_t count;
    int r;

    r = ctl_number("--count", ctl->options[OPT_COUNT], PEEK_COUNT_MAX, PEEK_COUNT, &count);
    if (r == 0)
        r = ctl_load(ctl);
    if (r != 0)
        return r;
    peek.queue = argv[0];
    peek.messages_max = (uint32_t)count;
    r = ctl_ask_one(ctl, "store", &request, CTL_ANSWER_USEC, peek_json, &items);
    if (r != 0)
        return r;
    if (ctl->json)
        ctl_print_json(items);
    else
        ctl_print_table(items, columns);
    return CTL_DONE;
}

static json_t *dropped_json(const Bus__Envelope *answer)
{
    if (answer->body_case != BUS__ENVELOPE__BODY_QUEUE_DROPPED)
        return NULL;
    return json_pack("{s:I, s:b}", "dropped", (json_int_t)answer->queue_dropped->dropped, "more",
                     answer->queue_dropped->more);
}

/* Some at a time, so that the store goes on with its work in between. */
int ctl_queue_drop(struct ctl *ctl, int argc, char **argv)
{
    Bus__QueueDrop drop = BUS__QUEUE_DROP__INIT;
    Bus__Envelope request = ENVELOPE(QUEUE_DROP, queue_drop, &drop);
    json_int_t sum = 0;
    bool more;
    int r;

    r = ctl_load(ctl);
    drop.queue = argv[0];
    do {
        _cleanup_(json_decrefp) json_t *answer = NULL;

        if (r == 0)
            r = ctl_ask_one(ctl, "store", &request, CTL_ANSWER_USEC, dropped_json, &answer);
        if (r != 0)
            return r;
        sum += json_integer_value(json_object_get(answer, "dropped"));
        more = json_is_true(json_object_get(answer, "more"));
    } while (more);
    if (ctl->json)
        printf("{\"dropped\": %" JSON_INTEGER_FORMAT "}\n", sum);
    else
        printf("%" JSON_INTEGER_FORMAT " messages dropped\n", sum);
    return CTL_DONE;
}
