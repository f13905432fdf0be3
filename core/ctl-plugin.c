/* What the operator has the supervisor do to one plugin: `plugin …`. */
#include <stdio.h>

#include "ctl-ask.h"
#include "ctl-print.h"

/* brinkd answers when the state is reached, or why it is not; a drain may take minutes. */
#define COMMAND_USEC UINT64_C(600000000)

static void print_done(const struct ctl *ctl, const char *name, const char *done)
{
    json_t *document = json_pack("{s:o, s:s}", "plugin", ctl_text(name), "done", done);

    if (ctl->json)
        ctl_print_json(document);
    else
        printf("%s: %s\n", name, done);
    json_decref(document);
}

static int plugin_command(struct ctl *ctl, Bus__CommandKind kind, const char *done, char *name)
{
    Bus__Command command = BUS__COMMAND__INIT;
    Bus__Control request = CONTROL_INIT(COMMAND, command, &command);
    Bus__Control *answer = NULL;
    int r;

    command.kind = kind;
    command.plugin = name;
    r = ctl_load(ctl);
    if (r == 0)
        r = ctl_ask_supervisor(ctl, &request, BUS__CONTROL__BODY_COMMAND_RESULT, COMMAND_USEC,
                               &answer);
    if (r != 0)
        return r;
    if (!answer->command_result->done)
        r = ctl_fail("%s: %s", name, answer->command_result->error);
    else
        print_done(ctl, name, done);
    bus__control__free_unpacked(answer, NULL);
    return r;
}

int ctl_plugin_start(struct ctl *ctl, int argc, char **argv)
{
    return plugin_command(ctl, BUS__COMMAND_KIND__COMMAND_KIND_START, "started", argv[0]);
}

int ctl_plugin_stop(struct ctl *ctl, int argc, char **argv)
{
    return plugin_command(ctl, BUS__COMMAND_KIND__COMMAND_KIND_STOP, "stopped", argv[0]);
}

int ctl_plugin_restart(struct ctl *ctl, int argc, char **argv)
{
    return plugin_command(ctl, BUS__COMMAND_KIND__COMMAND_KIND_RESTART, "restarted", argv[0]);
}

int ctl_plugin_kill(struct ctl *ctl, int argc, char **argv)
{
    return plugin_command(ctl, BUS__COMMAND_KIND__COMMAND_KIND_KILL, "killed", argv[0]);
}
