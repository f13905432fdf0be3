#include "input-topic.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "message.h"
#include "mqtt-codec.h"

/* The bag: a name, '=' and a value, with '&' between; never a name alone (mqtt.md §9.1). */
struct bag {
    struct buf *out;
    bool any;
};

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

/* C compares the encoded text of names: digits in upper case, and nothing escaped that need not be. */
static void append_escaped(struct buf *out, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t len = strlen(text), used = 0;
    char *at = buf_reserve(out, len * 3);

    for (size_t i = 0; i < len; i++) {
        if (is_unreserved(text[i])) {
            at[used++] = text[i];
        } else {
            at[used++] = '%';
            at[used++] = digits[(unsigned char)text[i] >> 4];
            at[used++] = digits[(unsigned char)text[i] & 15];
        }
    }
    buf_commit(out, used);
}

static void bag_add(struct bag *bag, const char *name, const char *value)
{
    if (bag->any)
        buf_append_byte(bag->out, '&');
    bag->any = true;
    append_escaped(bag->out, name);
    buf_append_byte(bag->out, '=');
    append_escaped(bag->out, value);
}

/* ---- system properties ---- */

typedef void bag_value_fn(struct bag *bag, const char *wire, const char *value);

enum { TIME_SECONDS_BYTES = sizeof("2024-05-01T10:00:00") - 1, TIME_FRACTION_DIGITS = 7 };

/* .NET reads just one form, with seven digits of a second, and hangs up on others (mqtt.md §16, trap
 * 10): what is no time at all is left out. */
static void bag_add_time(struct bag *bag, const char *wire, const char *value)
{
    char text[TIME_SECONDS_BYTES + 1 + TIME_FRACTION_DIGITS + sizeof("+00:00")];
    int digits = 0, kept;
    const char *rest, *zone;
    struct tm tm;

    rest = strptime(value, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest || rest - value != TIME_SECONDS_BYTES)
        return;
    if (*rest == '.')
        digits = (int)strspn(++rest, "0123456789");
    zone = rest + digits;
    if (*zone && strcmp(zone, "Z") != 0 &&
        !(strlen(zone) == 6 && (*zone == '+' || *zone == '-') && zone[3] == ':'))
        return;
    kept = digits < TIME_FRACTION_DIGITS ? digits : TIME_FRACTION_DIGITS;
    snprintf(text, sizeof(text), "%.*s.%.*s%.*s%s", TIME_SECONDS_BYTES, value, kept, rest,
             TIME_FRACTION_DIGITS - kept, "0000000", zone);
    bag_add(bag, wire, text);
}

/* .NET hangs up on any other word. */
static void bag_add_ack(struct bag *bag, const char *wire, const char *value)
{
    static const char *const words[] = { "none", "positive", "negative", "full" };

    for (size_t i = 0; i < ELEMENTSOF(words); i++)
        if (strcmp(words[i], value) == 0)
            bag_add(bag, wire, value);
}

/* mqtt.md §8.3, hub.md §1.4. */
static const struct {
    const char *wire, *internal;
    bag_value_fn *add;
} system_keys[] = {
    { "$.mid", MESSAGE_ID, bag_add },
    { "$.cid", MESSAGE_CORRELATION_ID, bag_add },
    { "$.uid", MESSAGE_USER_ID, bag_add },
    { "$.to", MESSAGE_TO, bag_add },
    { "$.exp", MESSAGE_EXPIRY, bag_add_time },
    { "$.ct", MESSAGE_CONTENT_TYPE, bag_add },
    { "$.ce", MESSAGE_CONTENT_ENCODING, bag_add },
    { "$.schema", MESSAGE_SCHEMA, bag_add },
    { "$.ctime", MESSAGE_CREATION_TIME, bag_add_time },
    { "$.sub", MESSAGE_SUBJECT, bag_add },
    { "iothub-operation", MESSAGE_OPERATION, bag_add },
    { "iothub-ack", MESSAGE_ACK, bag_add_ack },
};

static void bag_add_system(struct bag *bag, const Bus__Message *m)
{
    for (size_t i = 0; i < ELEMENTSOF(system_keys); i++) {
        const char *value = message_system(m, system_keys[i].internal);

        if (value)
            system_keys[i].add(bag, system_keys[i].wire, value);
    }
    bag_add(bag, "$.cdid", m->device_id);
    if (*m->module_id)
        bag_add(bag, "$.cmid", m->module_id);
}

/* ---- the topic ---- */

int input_topic_encode(const char *device_id, const char *module_id, const char *input,
                       const Bus__Message *m, struct buf *out)
{
    size_t before = buf_len(out);
    struct bag bag = { .out = out };
    int r = 0;

    buf_printf(out, "devices/%s/modules/%s/inputs/%s/", device_id, module_id, input);
    if (!mqtt_topic_valid(span_of(buf_span(out).at + before, buf_len(out) - before)))
        r = INPUT_TOPIC_E_NAME;
    bag_add_system(&bag, m);
    for (size_t i = 0; i < m->n_application; i++)
        bag_add(&bag, m->application[i]->name, m->application[i]->value);
    if (r == 0 && buf_len(out) - before > UINT16_MAX)
        r = INPUT_TOPIC_E_TOO_LONG;
    if (r != 0)
        out->end -= buf_len(out) - before;
    return r;
}

static bool level_is(struct span *rest, const char *text, bool or_any)
{
    struct span level;

    return span_split(rest, SPAN("/"), &level) &&
           (span_equal(level, span_str(text)) || (or_any && span_equal(level, SPAN("+"))));
}

bool input_filter_wants(struct span filter, const char *device_id, const char *module_id)
{
    if (filter.len == 0 || filter.at[filter.len - 1] != '#' ||
        !level_is(&filter, "devices", false) || !level_is(&filter, device_id, true) ||
        !level_is(&filter, "modules", false) || !level_is(&filter, module_id, true))
        return false;
    /* A module's filter for messages from the cloud is of this form, too (row 3 of that table). */
    return span_equal(filter, SPAN("#")) || level_is(&filter, "inputs", true);
}
