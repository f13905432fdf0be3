#include "ctl-init-files.h"

#include <assert.h>
#include <string.h>

/* Paths are absolute, so that each file can be read on its own. */
const struct init_file init_files[] = {
    { "edge", 0755, SCOPE_ALWAYS, false, NULL },
    { "edge/plugins.d", 0755, SCOPE_ALWAYS, false, NULL },
    { "edge/run", 0750, SCOPE_ALWAYS, false, NULL },
    { "edge/state", 0750, SCOPE_ALWAYS, false, NULL },
    { "edge/secrets", 0700, SCOPE_ALWAYS, true, NULL },
    { "hub", 0755, SCOPE_EMULATOR, false, NULL },
    { "hub/plugins.d", 0755, SCOPE_EMULATOR, false, NULL },
    { "hub/run", 0750, SCOPE_EMULATOR, false, NULL },
    { "hub/state", 0750, SCOPE_EMULATOR, false, NULL },
    { "hub/secrets", 0700, SCOPE_EMULATOR, true, NULL },

    { "ca.pem", 0644, SCOPE_ALWAYS, false, "@=CA_PEM@" },
    { "ca.key", 0600, SCOPE_ALWAYS, false, "@=CA_KEY@" },

    { "edge/brink.yaml", 0644, SCOPE_ALWAYS, false,
      "# The edge as a whole; each plugin has a file in plugins.d.\n"
      "run_dir: \"@DIR@/edge/run\"\n"
      "state_dir: \"@DIR@/edge/state\"\n"
      "plugin_dir: \"@PLUGIN_DIR@\"\n"
      "hostname: \"@HOSTNAME@\"\n"
      "log_level: info\n"
      "fault_injection: false\n" },
    { "edge/plugins.d/identity.yaml", 0644, SCOPE_ALWAYS, false,
      "# Keys: who the edge is in the hub, and who may connect to it.\n"
      "role: identity\n"
      "exec: brink-identity\n"
      "@=USER@"
      "settings:\n"
      "  connection_string_file: \"@DIR@/edge/secrets/connection-string\"\n"
      "  edge_ca_cert: \"@DIR@/edge/secrets/edge-ca.pem\"\n"
      "  edge_ca_key: \"@DIR@/edge/secrets/edge-ca.key\"\n"
      "  server_names: [@=SERVER_NAMES@]    # in the server certificate, besides the hostname of "
      "brink.yaml\n"
      "@=UPSTREAM_CA@" },
    { "edge/plugins.d/store.yaml", 0644, SCOPE_ALWAYS, false,
      "# Everything durable.\n"
      "role: store\n"
      "exec: brink-store\n"
      "@=USER@"
      "stop_stage: 3    # last: the others tell it how what they have in hand ended\n"
      "settings:\n"
      "  durability: sync\n"
      "  max_bytes: 2GiB\n"
      "  when_full: reject\n" },
    { "edge/plugins.d/router.yaml", 0644, SCOPE_ALWAYS, false,
      "# Decides where a message goes.\n"
      "role: router\n"
      "exec: brink-router\n"
      "@=USER@"
      "settings:\n"
      "  routes_file: \"@DIR@/edge/routes.json\"    # taken over as soon as it is written\n" },
    { "edge/routes.json", 0644, SCOPE_ALWAYS, false,
      "{\n"
      "  \"schemaVersion\": \"1.1\",\n"
      "  \"routes\": {\n"
      "    \"upstream\": \"FROM /messages/* INTO $upstream\"\n"
      "  },\n"
      "  \"storeAndForwardConfiguration\": {\n"
      "    \"timeToLiveSecs\": -1\n"
      "  }\n"
      "}\n" },
    { "edge/plugins.d/upstream-amqp.yaml", 0644, SCOPE_ALWAYS, false,
      "# The connection to the hub.\n"
      "role: upstream\n"
      "exec: brink-upstream-amqp\n"
      "@=USER@"
      "@=UPSTREAM_SETTINGS@" },
    { "edge/plugins.d/mqtt-listener.yaml", 0644, SCOPE_ALWAYS, false,
      "# Speaks MQTT with devices; the front hands it their streams.\n"
      "role: mqtt-listener\n"
      "exec: brink-mqtt-listener\n"
      "@=USER@"
      "sockets: [{name: streams, listen: \"unix:streams/mqtt.sock\"}]\n" },
    { "edge/plugins.d/front.yaml", 0644, SCOPE_ALWAYS, false,
      "# The ports, and TLS on them.\n"
      "role: front\n"
      "exec: brink-front\n"
      "@=USER@"
      "sockets: [{name: mqtts, listen: \"@LISTEN@:8883\"}]\n"
      "settings:\n"
      "  forward: [\"mqtts=streams/mqtt.sock\"]\n" },
    { "edge/secrets/connection-string", 0600, SCOPE_ALWAYS, true, "@=CONNECTION_STRING@" },
    { "edge/secrets/edge-ca.pem", 0644, SCOPE_ALWAYS, true, "@=EDGE_CA_PEM@" },
    { "edge/secrets/edge-ca.key", 0600, SCOPE_ALWAYS, true, "@=EDGE_CA_KEY@" },

    { "hub/brink.yaml", 0644, SCOPE_EMULATOR, false,
      "# A local hub for demos, tests and development.\n"
      "run_dir: \"@DIR@/hub/run\"\n"
      "state_dir: \"@DIR@/hub/state\"\n"
      "plugin_dir: \"@PLUGIN_DIR@\"\n"
      "hostname: \"@HUB_HOST@\"\n"
      "log_level: info\n"
      "fault_injection: false\n" },
    { "hub/plugins.d/hub-emulator.yaml", 0644, SCOPE_EMULATOR, false,
      "role: hub\n"
      "exec: brink-hub-emulator\n"
      "@=USER@"
      "sockets:\n"
      "  - {name: amqps, listen: \"@HUB_LISTEN@:5671\"}\n"
      "  - {name: https, listen: \"@HUB_LISTEN@:443\"}\n"
      "settings:\n"
      "  hostname: \"@HUB_HOST@\"\n"
      "  server_cert: \"@DIR@/hub/secrets/server.pem\"\n"
      "  server_key: \"@DIR@/hub/secrets/server.key\"\n"
      "  policy_key_file: \"@DIR@/hub/secrets/iothubowner.key\"\n"
      "  # registered at the start if it is not there\n"
      "  edge_device_id: \"@DEVICE_ID@\"\n"
      "  edge_device_key_file: \"@DIR@/hub/secrets/edge-device.key\"\n" },
    { "hub/secrets/server.pem", 0644, SCOPE_EMULATOR, true, "@=SERVER_PEM@" },
    { "hub/secrets/server.key", 0600, SCOPE_EMULATOR, true, "@=SERVER_KEY@" },
    { "hub/secrets/iothubowner.key", 0600, SCOPE_EMULATOR, true, "@=POLICY_KEY@" },
    { "hub/secrets/edge-device.key", 0600, SCOPE_EMULATOR, true, "@=DEVICE_KEY@" },
    {},
};

static const char *variable_value(const struct init_variable *variables, struct span name)
{
    while (variables->name && !span_equal(span_str(variables->name), name))
        variables++;
    assert(variables->name); /* the templates are ours */
    return variables->value;
}

static void append_escaped(struct buf *out, const char *value)
{
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            buf_append_byte(out, '\\');
        buf_append_byte(out, (uint8_t)*value);
    }
}

void init_expand(const char *text, const struct init_variable *variables, struct buf *out)
{
    struct span rest = span_str(text), before, name;

    while (span_split(&rest, SPAN("@"), &before)) {
        bool raw, closed;

        buf_append_span(out, before);
        raw = span_eat(&rest, SPAN("="));
        closed = span_split(&rest, SPAN("@"), &name);
        assert(closed);
        if (raw)
            buf_append_span(out, span_str(variable_value(variables, name)));
        else
            append_escaped(out, variable_value(variables, name));
    }
    buf_append_span(out, rest);
}
