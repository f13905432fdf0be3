/* A stream of packets: decoding stays inside the input, eats what it says, and never changes its
 * mind with more bytes. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "mqtt-codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_filters(const struct mqtt_packet *packet)
{
    struct span rest = packet->filters.filters, filter;
    unsigned count = 0;
    uint8_t qos;

    while (mqtt_filters_next(&rest, &filter, packet->type == MQTT_SUBSCRIBE ? &qos : NULL)) {
        if (!mqtt_filter_valid(filter))
            abort();
        mqtt_filter_matches(filter, SPAN("$iothub/twin/res/200/?$rid=1"));
        count++;
    }
    if (count != packet->filters.count)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span rest = span_of(data, size);
    struct mqtt_packet packet, cut;
    struct parse_error error = {};
    int r;

    while ((r = mqtt_decode(rest, 262144, &packet, &error)) == 0) {
        if (packet.len < 2 || packet.len > rest.len)
            abort();
        if (mqtt_decode(span_of(rest.at, packet.len - 1), 262144, &cut, &error) != MQTT_E_MORE)
            abort();
        if (packet.type == MQTT_SUBSCRIBE || packet.type == MQTT_UNSUBSCRIBE)
            walk_filters(&packet);
        rest = span_of(rest.at + packet.len, rest.len - packet.len);
    }
    if (r != MQTT_E_MORE && (!error.expected || error.offset > rest.len))
        abort();
    return 0;
}
