/* brinkd: reads the configuration, takes over or starts the plugins, watches them until it is
 * told to stop. */
#include <getopt.h>
#include <stdio.h>
#include <sysexits.h>

#include "appliance.h"
#include "child-config.h"
#include "log.h"
#include "mem.h"
#include "supervisor.h"

struct options {
    const char *config_dir;
    bool check;
};

static void usage(FILE *out)
{
    fputs(
        "usage: brinkd [--config DIR] [--check]\n"
        "  --config DIR  with brink.yaml and plugins.d/ (default /etc/brink)\n"
        "  --check       judge the whole configuration, every plugin's settings included, and end\n"
        "  --version\n",
        out);
}

static void parse_options(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {
        { "config", required_argument, NULL, 'c' },
        { "check", no_argument, NULL, 'k' },
        { "version", no_argument, NULL, 'v' },
        { "help", no_argument, NULL, 'h' },
        {},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'c':
            options->config_dir = optarg;
            break;
        case 'k':
            options->check = true;
            break;
        case 'v':
            puts("brinkd " BRINK_VERSION);
            exit(EXIT_SUCCESS);
        case 'h':
            usage(stdout);
            exit(EXIT_SUCCESS);
        default:
            usage(stderr);
            exit(EX_USAGE);
        }
    }
    if (optind < argc) {
        usage(stderr);
        exit(EX_USAGE);
    }
}

static void report(const struct config_error *error)
{
    fprintf(stderr, "%s\n", error->text);
}

/* Returns 0, or CONFIG_E_INVALID with everything that is wrong on stderr. */
static int load(const char *dir, struct appliance *appliance, struct child_configs *configs)
{
    struct config_error error;

    if (appliance_load(dir, appliance, &error) != 0) {
        report(&error);
        return CONFIG_E_INVALID;
    }
    return child_configs_load(dir, appliance, report, configs);
}

static int check(const struct child_configs *configs)
{
    int r = child_configs_check_settings(configs);

    if (r == 0)
        puts("the configuration is valid");
    return r;
}

/* Takes @configs. */
static int supervise(const struct appliance *appliance, struct child_configs *configs)
{
    _cleanup_(supervisor_freep) struct supervisor *supervisor = NULL;
    int r;

    log_set_level(appliance_log_level(appliance));
    r = supervisor_new_take(appliance, configs, &supervisor); /* the running are adopted */
    if (r < 0)
        return r;
    return supervisor_run(supervisor);
}

int main(int argc, char **argv)
{
    _cleanup_(appliance_done) struct appliance appliance = {};
    _cleanup_(child_configs_done) struct child_configs configs = {};
    struct options options = { .config_dir = "/etc/brink" };
    int r;

    parse_options(argc, argv, &options);
    log_init("brinkd");
    r = load(options.config_dir, &appliance, &configs);
    if (r == 0)
        r = options.check ? check(&configs) : supervise(&appliance, &configs);
    if (r < 0)
        log_event(LOG_ERR, r, "ending");
    if (r == CONFIG_E_INVALID)
        return options.check ? EXIT_FAILURE : EX_CONFIG;
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
