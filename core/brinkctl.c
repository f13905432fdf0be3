/*
 * The operator's command. Which commands there are, what they take and what they do stands in one
 * table: the parser and the help read it. Options stand before or behind the words of the command.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "buf.h"
#include "ctl.h"
#include "log.h"
#include "span.h"

enum { WORDS_MAX = 3 }; /* of a command: "hub device add" */

static const struct option {
    const char *name;
    const char *value; /* what it takes, for the help; NULL: nothing */
    const char *help;
} options[_OPT_COUNT] = {
    [OPT_ADDRESS] = { "--address", "A", "address on which the edge listens (127.0.0.1)" },
    [OPT_AUTH] = { "--auth", "KIND", "sas (default), x509-thumbprint or x509-ca" },
    [OPT_CONFIG] = { "--config", "DIR", "where brink.yaml is ($BRINK_CONFIG, else /etc/brink)" },
    [OPT_COUNT] = { "--count", "N", "end after so many events, or messages" },
    [OPT_DEVICE] = { "--device", "ID", "only events of this device" },
    [OPT_DEVICE_ID] = { "--device-id", "ID", "name of the edge device in the hub (edge-device)" },
    [OPT_DIR] = { "--dir", "D", "the directory to make" },
    [OPT_EDGE] = { "--edge", NULL, "an edge device" },
    [OPT_FROM_NOW] = { "--from-now", NULL, "leave out what arrived before" },
    [OPT_HELP] = { "--help", NULL, "show this and end" },
    [OPT_HOSTNAME] = { "--hostname", "H", "name by which clients connect to the edge (localhost)" },
    [OPT_HUB] = { "--hub", "WHICH",
                  "emulator (default), or the connection string of a device in a real hub" },
    [OPT_HUB_ADDRESS] = { "--hub-address", "B",
                          "address on which the emulator listens (127.0.0.2)" },
    [OPT_HUB_HOSTNAME] = { "--hub-hostname", "N", "HostName of the emulator (its address)" },
    [OPT_JSON] = { "--json", NULL, "print JSON" },
    [OPT_PARENT] = { "--parent", "EDGE", "the edge device it is a child of" },
    [OPT_THUMBPRINT] = { "--thumbprint", "HEX", "of its certificate, with --auth x509-thumbprint" },
    [OPT_TIMEOUT] = { "--timeout", "S",
                      "end after so many seconds; a failure if fewer than --count came" },
    [OPT_USER] = { "--user", NULL, "run as whoever starts brinkd: set no user in plugins.d" },
    [OPT_VERSION] = { "--version", NULL, "show the version and end" },
    [OPT_WATCH] = { "--watch", NULL, "show it again every second, until interrupted" },
};

#define BIT(option) (UINT64_C(1) << (option))

/* Every command takes these. */
static const uint64_t common_options = BIT(OPT_CONFIG) | BIT(OPT_JSON) | BIT(OPT_HELP);

static const struct command {
    const char *name;
    const char *arguments; /* for the help; one word each, all of them required */
    uint64_t options, required;
    ctl_fn *fn;
    const char *help;
} commands[] = {
    { "init", "",
      BIT(OPT_DIR) | BIT(OPT_HUB) | BIT(OPT_HOSTNAME) | BIT(OPT_ADDRESS) | BIT(OPT_HUB_ADDRESS) |
          BIT(OPT_HUB_HOSTNAME) | BIT(OPT_DEVICE_ID) | BIT(OPT_USER),
      BIT(OPT_DIR), ctl_init, "make a directory that runs: an edge and a hub" },
    { "status", "", BIT(OPT_WATCH), 0, ctl_status,
      "show plugins, upstream, clients, queues, disk" },
    { "plugin start", "NAME", 0, 0, ctl_plugin_start,
      "start a plugin, and wait until it is ready" },
    { "plugin stop", "NAME", 0, 0, ctl_plugin_stop, "drain and stop a plugin; it stays stopped" },
    { "plugin restart", "NAME", 0, 0, ctl_plugin_restart, "stop and start a plugin" },
    { "plugin kill", "NAME", 0, 0, ctl_plugin_kill,
      "SIGKILL a plugin, for drills; it is started again" },
    { "clients", "", BIT(OPT_WATCH), 0, ctl_clients, "list the connected clients" },
    { "queues", "", BIT(OPT_WATCH), 0, ctl_queues, "list the queues of messages" },
    { "queue peek", "NAME", BIT(OPT_COUNT), 0, ctl_queue_peek,
      "show the next messages, and leave them there" },
    { "queue drop", "NAME", 0, 0, ctl_queue_drop, "throw away all messages of a queue" },
    { "routes", "", BIT(OPT_WATCH), 0, ctl_routes, "list the routes in force" },
    { "route check", "ROUTE", 0, 0, ctl_route_check, "check a route, and point at the fault" },
    { "route eval", "FILE", 0, 0, ctl_route_eval, "run cases of routes and messages, print JSON" },
    { "config check", "", 0, 0, ctl_config_check,
      "check the whole configuration, as brinkd --check" },
    { "hub device add", "ID", BIT(OPT_EDGE) | BIT(OPT_PARENT) | BIT(OPT_AUTH) | BIT(OPT_THUMBPRINT),
      0, ctl_hub_device_add, "register a device in the local hub" },
    { "hub device list", "", 0, 0, ctl_hub_device_list, "list the devices of the local hub" },
    { "hub device show", "ID", 0, 0, ctl_hub_device_show, "show a device, with its keys" },
    { "hub device disable", "ID", 0, 0, ctl_hub_device_disable, "keep a device from connecting" },
    { "hub device enable", "ID", 0, 0, ctl_hub_device_enable, "let it connect again" },
    { "hub device remove", "ID", 0, 0, ctl_hub_device_remove, "delete a device" },
    { "hub module add", "DEVICE MODULE", 0, 0, ctl_hub_module_add,
      "register a module of a device" },
    { "hub monitor", "", BIT(OPT_COUNT) | BIT(OPT_TIMEOUT) | BIT(OPT_DEVICE) | BIT(OPT_FROM_NOW), 0,
      ctl_hub_monitor, "print telemetry that arrived, as lines of JSON" },
    { "hub offline", "", 0, 0, ctl_hub_offline, "cut all connections, and refuse new ones" },
    { "hub online", "", 0, 0, ctl_hub_online, "let the local hub be reached again" },
    { "hub stats", "", BIT(OPT_WATCH), 0, ctl_hub_stats,
      "show what the local hub received, from whom" },
};

/* Help */

static void print_option(enum ctl_option o, FILE *out)
{
    _cleanup_(freep) char *form = xasprintf("%s%s%s", options[o].name, options[o].value ? " " : "",
                                            options[o].value ? options[o].value : "");

    fprintf(out, "  %-20s %s\n", form, options[o].help);
}

static void print_usage(const struct command *command, FILE *out)
{
    fprintf(out, "brinkctl %s", command->name);
    if (*command->arguments)
        fprintf(out, " %s", command->arguments);
    for (int o = 0; o < _OPT_COUNT; o++) {
        bool required = command->required & BIT(o);

        if (command->options & BIT(o))
            fprintf(out, " %s%s%s%s%s", required ? "" : "[", options[o].name,
                    options[o].value ? " " : "", options[o].value ? options[o].value : "",
                    required ? "" : "]");
    }
    fputc('\n', out);
}

static void print_command_help(const struct command *command, FILE *out)
{
    print_usage(command, out);
    fprintf(out, "\n  %s\n\n", command->help);
    for (int o = 0; o < _OPT_COUNT; o++)
        if ((command->options | common_options) & BIT(o))
            print_option(o, out);
}

static void print_help(FILE *out)
{
    fputs("brinkctl COMMAND [OPTION]...\n\n", out);
    for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
        _cleanup_(freep) char *form = xasprintf("%s %s", commands[i].name, commands[i].arguments);

        fprintf(out, "  %-28s %s\n", form, commands[i].help);
    }
    fputs("  help [COMMAND]               show this, or what a command takes\n\n", out);
    for (int o = 0; o < _OPT_COUNT; o++)
        if ((common_options | BIT(OPT_VERSION)) & BIT(o))
            print_option(o, out);
    fputs("\nExit status: 0 done, 1 refused or failed, 2 wrong usage.\n", out);
}

/* Parsing */

static int option_find(struct span name)
{
    if (span_equal(name, SPAN("-h")))
        return OPT_HELP;
    for (int o = 0; o < _OPT_COUNT; o++)
        if (span_equal(span_str(options[o].name), name))
            return o;
    return -1;
}

/* Returns how many words of @argv it took, or a negative exit status. */
static int option_parse(struct ctl *ctl, char **argv)
{
    const char *equals = strchr(argv[0], '=');
    struct span name = span_of(argv[0], equals ? (size_t)(equals - argv[0]) : strlen(argv[0]));
    int o = option_find(name);

    if (o < 0)
        return -ctl_usage("%.*s: unknown option; see brinkctl --help", (int)name.len, name.at);
    if (ctl->options[o] && options[o].value)
        return -ctl_usage("%s: given twice", options[o].name);
    if (!options[o].value && equals)
        return -ctl_usage("%s: takes no value", options[o].name);
    if (!options[o].value || equals) {
        ctl->options[o] = equals ? equals + 1 : "";
        return 1;
    }
    if (!argv[1])
        return -ctl_usage("%s: expected %s behind it", options[o].name, options[o].value);
    ctl->options[o] = argv[1];
    return 2;
}

/* Takes the options out of @argv; what is left are words. Returns their number, or a negative exit
 * status. */
static int options_parse(struct ctl *ctl, char **argv)
{
    bool only_words = false;
    int words = 0;

    for (int at = 0; argv[at];) {
        if (!only_words && strcmp(argv[at], "--") == 0) {
            only_words = true;
            at++;
        } else if (only_words || argv[at][0] != '-') {
            argv[words++] = argv[at++];
        } else {
            int n = option_parse(ctl, argv + at);

            if (n < 0)
                return n;
            at += n;
        }
    }
    return words;
}

/* How many of @words the command's name takes up; 0: another command. */
static int command_match(const struct command *command, int count, char **words)
{
    struct span rest = span_str(command->name), word;
    bool done = false;
    int n = 0;

    while (span_next(&rest, ' ', &word, &done)) {
        if (n >= count || !span_equal(span_str(words[n]), word))
            return 0;
        n++;
    }
    return n;
}

static const struct command *command_find(int count, char **words, int *ret_taken)
{
    for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
        int n = command_match(&commands[i], count, words);

        if (n > 0) {
            *ret_taken = n;
            return &commands[i];
        }
    }
    return NULL;
}

static int arguments_count(const struct command *command)
{
    int n = 0;

    for (const char *c = command->arguments; *c; c++)
        n += c == command->arguments || c[-1] == ' ';
    return n;
}

static int command_check(const struct ctl *ctl, const struct command *command, int argc)
{
    for (int o = 0; o < _OPT_COUNT; o++) {
        if (ctl->options[o] && !((command->options | common_options) & BIT(o)))
            return ctl_usage("%s: does not go with %s", options[o].name, command->name);
        if (!ctl->options[o] && (command->required & BIT(o)))
            return ctl_usage("%s: expected %s %s", command->name, options[o].name,
                             options[o].value);
    }
    if (argc != arguments_count(command))
        return ctl_usage("%s: expected %s", command->name,
                         *command->arguments ? command->arguments : "no further words");
    return 0;
}

/* Does the command's name begin with all of @words? */
static bool command_begins(const struct command *command, int count, char **words)
{
    struct span rest = span_str(command->name), word;
    bool done = false;

    for (int n = 0; n < count; n++)
        if (!span_next(&rest, ' ', &word, &done) || !span_equal(span_str(words[n]), word))
            return false;
    return true;
}

/* "hub device" is not a command, but a good question. */
static int help(int count, char **words)
{
    bool found = false;

    if (count == 0) {
        print_help(stdout);
        return CTL_DONE;
    }
    for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
        if (!command_begins(&commands[i], count, words))
            continue;
        if (found)
            putchar('\n');
        print_command_help(&commands[i], stdout);
        found = true;
    }
    return found ? CTL_DONE
                 : ctl_usage("help: there is no command %s; see brinkctl --help", words[0]);
}

/* Words that are no command: perhaps the beginning of some. */
static int usage(int count, char **words)
{
    const char *space = count > 1 ? " " : "", *second = count > 1 ? words[1] : "";
    bool found = false;

    for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
        if (!command_begins(&commands[i], count, words))
            continue;
        if (!found)
            ctl_usage("%s%s%s: expected one of:", words[0], space, second);
        fputs("  ", stderr);
        print_usage(&commands[i], stderr);
        found = true;
    }
    if (found)
        return CTL_USAGE;
    return ctl_usage("%s%s%s: there is no such command; see brinkctl --help", words[0], space,
                     second);
}

static int run(struct ctl *ctl, int count, char **words)
{
    const struct command *command;
    int taken, r;

    if (ctl->options[OPT_VERSION]) {
        puts("brinkctl " BRINK_VERSION);
        return CTL_DONE;
    }
    if (count > 0 && strcmp(words[0], "help") == 0)
        return help(count - 1, words + 1);
    if (ctl->options[OPT_HELP])
        return help(count > WORDS_MAX ? WORDS_MAX : count, words);
    if (count == 0) {
        print_help(stderr);
        return CTL_USAGE;
    }
    command = command_find(count, words, &taken);
    if (!command)
        return usage(count, words);
    r = command_check(ctl, command, count - taken);
    if (r != 0)
        return r;
    return command->fn(ctl, count - taken, words + taken);
}

static void ctl_done(struct ctl *ctl)
{
    ctl->bus = bus_free(ctl->bus);
    ctl->event = sd_event_unref(ctl->event);
    appliance_done(&ctl->appliance);
}

int main(int argc, char **argv)
{
    const char *from_environment = getenv("BRINK_CONFIG");
    struct ctl ctl = {};
    int words, status;

    log_init("brinkctl");
    log_set_level(LOG_ERR);
    words = options_parse(&ctl, argv + 1);
    if (words < 0)
        return -words;
    ctl.config_dir = from_environment && *from_environment ? from_environment : "/etc/brink";
    if (ctl.options[OPT_CONFIG])
        ctl.config_dir = ctl.options[OPT_CONFIG];
    ctl.json = ctl.options[OPT_JSON];
    status = run(&ctl, words, argv + 1);
    ctl_done(&ctl);
    if (fflush(stdout) != 0 || ferror(stdout))
        return status == CTL_DONE ? ctl_fail("cannot write the answer: %s", strerror(errno))
                                  : status;
    return status;
}
