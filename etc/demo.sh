#!/bin/sh
# Brink in two minutes: builds, starts a local hub and an edge device, connects a simulated device and shows its messages
# arriving at the hub. Ctrl-C ends it. --once: 100 messages, the hub is cut, 100 more, the hub comes back; then it ends by
# itself with "sent=200 received=200 lost=0 duplicated=0" and fails if any was lost.
set -eu
cd "$(dirname "$0")/.."
. etc/packages.sh

once=
case "${1:-}" in
"") ;;
--once) once=1 ;;
*) echo "usage: sh etc/demo.sh [--once]" >&2 && exit 2 ;;
esac
become_root "$@"

# shellcheck disable=SC2086
install_packages $build_packages $demo_packages
log=$(mktemp)
echo "building…"
{ cmake --preset release -DBRINK_TESTS=OFF && cmake --build --preset release; } >"$log" 2>&1 ||
    { tail -n 40 "$log" >&2; exit 1; }
rm -f "$log"
PATH=$PWD/build:$PATH

folder=$(mktemp -d /tmp/brink-demo.XXXXXX)
edge= hub= monitor=
stop() {
    trap - EXIT INT TERM
    for pid in $monitor $edge $hub; do
        kill "$pid" 2>/dev/null || :
    done
    wait
    rm -rf "$folder"
}
trap stop EXIT
trap 'echo; exit 0' INT TERM

# The demo's own loopback addresses, so that it disturbs nothing that listens on 127.0.0.1.
brinkctl init --dir "$folder/d" --address 127.0.77.1 --hub-address 127.0.77.2 --hostname 127.0.77.1 >"$folder/init.json"
edge_config=$(jq -r .edge_config "$folder/init.json")
hub_config=$(jq -r .hub_config "$folder/init.json")
ca_file=$(jq -r .ca_file "$folder/init.json")
brinkd --config "$hub_config" 2>"$folder/hub.log" &
hub=$!
brinkd --config "$edge_config" 2>"$folder/edge.log" &
edge=$!

# Until everything is ready: asks the supervisor, which knows.
wait_ready() { # config
    tries=0
    until brinkctl status --config "$1" --json 2>/dev/null |
        jq -e '(.plugins | length > 0) and all(.plugins[]; .state == "ready")' >/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "not ready in time" >&2; cat "$folder"/*.log >&2; exit 1; }
        sleep 0.1
    done
}
wait_ready "$hub_config"
brinkctl hub device add thermometer --parent "$(jq -r .device_id "$folder/init.json")" --config "$hub_config" --json >"$folder/device.json"
wait_ready "$edge_config"
brinkctl status --config "$edge_config"

# What an SDK does inside: the token is made from the device's key.
token() {
    key=$(jq -r .primary_key "$folder/device.json" | base64 -d | od -An -v -tx1 | tr -d ' \n')
    resource="127.0.77.2%2Fdevices%2Fthermometer" expiry=$(($(date +%s) + 3600))
    signature=$(printf '%s\n%s' "$resource" "$expiry" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary |
        base64 | sed 's/+/%2B/g; s|/|%2F|g; s/=/%3D/g')
    echo "SharedAccessSignature sr=$resource&sig=$signature&se=$expiry"
}

# mosquitto_pub -l sends one message a line and ends when all of them are acknowledged.
publish() {
    mosquitto_pub -h 127.0.77.1 -p 8883 --cafile "$ca_file" -V mqttv311 -q 1 -i thermometer \
        -u '127.0.77.2/thermometer/?api-version=2021-04-12' -P "$(token)" -l \
        -t 'devices/thermometer/messages/events/%24.ct=application%2Fjson&%24.ce=utf-8'
}
readings() { # first last
    awk -v a="$1" -v b="$2" 'BEGIN { for (i = a; i <= b; i++) printf "{\"n\":%d,\"celsius\":%.1f}\n", i, 20 + i % 17 / 10 }'
}

if [ -n "$once" ]; then
    brinkctl hub monitor --config "$hub_config" --json --count 200 --timeout 60 >"$folder/events" &
    monitor=$!
    readings 1 100 | publish
    brinkctl hub offline --config "$hub_config"
    echo "the hub is cut; the device goes on"
    readings 101 200 | publish
    brinkctl status --config "$edge_config"
    brinkctl hub online --config "$hub_config"
    echo "the hub is back"
    wait "$monitor" || :
    monitor=
    jq -r .body "$folder/events" | jq -r .n 2>/dev/null >"$folder/numbers" || jq -r '.body.n' "$folder/events" >"$folder/numbers"
    received=$(sort -nu "$folder/numbers" | wc -l)
    duplicated=$(($(wc -l <"$folder/numbers") - received))
    lost=$((200 - received))
    echo "sent=200 received=$received lost=$lost duplicated=$duplicated"
    [ "$lost" -eq 0 ]
    exit
fi

echo "messages as they arrive at the hub (Ctrl-C ends):"
(n=1; while readings "$n" "$n"; do n=$((n + 1)); sleep 1; done) | publish &
monitor="$!"
brinkctl hub monitor --config "$hub_config"
