/*
 * An example of a whole plugin: shows in a file whether the gateway reaches its hub. Point it at a LED of the board
 * (/sys/class/leds/…/brightness) and the installer sees it from across the room. docs/writing-a-plugin.md walks through it.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "plugin.h"

enum { ASK_DEADLINE_USEC = 5 * 1000 * 1000 };

struct led_config {
    char *file, *connected, *disconnected;
};

#define AT(member) offsetof(struct led_config, member)
static const struct config_item led_config_items[] = {
    { "file", CONFIG_STRING, AT(file), NULL, NULL, NULL,
      "what is written to when the state changes" },
    { "connected", CONFIG_STRING, AT(connected), "1", NULL, NULL,
      "written when the hub is reached" },
    { "disconnected", CONFIG_STRING, AT(disconnected), "0", NULL, NULL, "written when it is not" },
    {},
};

struct led {
    struct plugin *plugin;
    struct led_config config;
    struct bus_peer *upstream;
    struct bus_request *asking;
};

static void led_show(struct led *led, bool connected)
{
    const char *text = connected ? led->config.connected : led->config.disconnected;
    _cleanup_(closep) int fd =
        open(led->config.file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        log_event(LOG_WARNING, errno, "cannot show the state", F_PATH(led->config.file));
    plugin_status(led->plugin, "hub %s", connected ? "reached" : "away");
}

static void led_on_status(const Bus__Envelope *answer, void *userdata)
{
    struct led *led = userdata;

    led->asking = NULL;
    /* No answer by the deadline: whoever would reach the hub is away itself. */
    led_show(led, answer && answer->body_case == BUS__ENVELOPE__BODY_UPSTREAM_STATUS &&
                      answer->upstream_status->connected);
}

/* An announcement may be missed, so a new connection to the announcer begins with a question. */
static void led_on_announce(const Bus__Envelope *in, void *userdata)
{
    Bus__UpstreamStatusGet get = BUS__UPSTREAM_STATUS_GET__INIT;
    Bus__Envelope request = ENVELOPE(UPSTREAM_STATUS_GET, upstream_status_get, &get);
    struct led *led = userdata;

    if (in && in->body_case == BUS__ENVELOPE__BODY_UPSTREAM_STATUS)
        led_show(led, in->upstream_status->connected);
    else if (!in && !led->asking)
        bus_request(led->upstream, &request, ASK_DEADLINE_USEC, led_on_status, led, &led->asking);
}

static int run(int argc, char **argv)
{
    _cleanup_(plugin_freep) struct plugin *plugin = NULL;
    struct led led = {};
    int r;

    r = plugin_new("uplink-led", argc, argv, &plugin);
    if (r < 0)
        return r;
    r = plugin_load_config(plugin, led_config_items, &led.config);
    if (r < 0)
        return r;
    led.plugin = plugin;
    led.upstream = bus_peer(plugin_bus(plugin), "upstream");
    led_show(&led, false);
    r = bus_subscribe(plugin_bus(plugin), "upstream", led_on_announce, &led);
    if (r < 0)
        return r;
    r = plugin_run(plugin);
    config_clear(led_config_items, &led.config);
    return r;
}

DEFINE_MAIN(run)
