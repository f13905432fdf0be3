/* What the topics that clients publish to mean (mqtt.md §8): the kind, the ids, the property bag.
 */
#pragma once

#include "arena.h"
#include "message.pb-c.h"
#include "span.h"

enum { TOPIC_RID_BYTES_MAX = 1024 };

enum topic_kind {
    TOPIC_OTHER, /* nobody listens there: acknowledged and dropped */
    TOPIC_TELEMETRY,
    TOPIC_TWIN_GET,
    TOPIC_TWIN_REPORTED,
    TOPIC_METHOD_RESPONSE,
    TOPIC_FORBIDDEN, /* $iothub/twin/… that is no request: the connection is closed */
    _TOPIC_KIND_COUNT
};

/* Spans point into the topic. */
struct topic {
    enum topic_kind kind;
    struct span device_id; /* telemetry */
    struct span module_id; /* telemetry; len 0: a device's */
    struct span bag;       /* telemetry: encoded properties */
    struct span rid;       /* twins: as written; empty where a reported patch has none */
};

void topic_parse(struct span text, struct topic *ret);

/* The property bag of telemetry, added to @m's system and application properties; all in @arena.
 * Lenient: what an SDK can send is kept (mqtt.md §8.2). */
enum { BAG_E_NOT_TEXT = 1 }; /* a name or value is not UTF-8 once decoded */
int bag_decode(struct span bag, struct arena *arena, Bus__Message *m);

/* @m gets a property more, unless it has one of the name, which then has the new value. Strings are
 * borrowed. */
void message_add_application(Bus__Message *m, const char *name, const char *value,
                             struct arena *arena);
void message_add_system(Bus__Message *m, const char *name, const char *value, struct arena *arena);

/* %XX decoded, in either case; a malformed % and '+' stay. NUL-terminated in @arena; NULL when that
 * is not UTF-8. */
char *percent_text(struct span s, struct arena *arena);
