/*
 * A plugin as the supervisor sees one, without the SDK: it speaks control packets and misbehaves as
 * its settings say. On its listen socket it answers each connection with its pid.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "config.h"
#include "control.h"
#include "log.h"
#include "mem.h"
#include "timer.h"

enum { RETRY_MSEC = 20, LONG_BYTES = 100 * 1000, FLOOD_PACKETS = 1000 };

enum mode {
    MODE_GOOD,
    MODE_SILENT,
    MODE_CRASH,
    MODE_REFUSE,
    MODE_DEAF,
    MODE_FLOOD,  /* heartbeats without end */
    MODE_LENGTHY /* heartbeats that are too long */
};

static const char *const mode_names[] = { "good", "silent", "crash",   "refuse",
                                          "deaf", "flood",  "lengthy", NULL };

struct settings {
    int mode;
};

static const struct config_item items[] = { { "mode", CONFIG_ENUM, offsetof(struct settings, mode),
                                              "good", NULL, NULL, "how it behaves", mode_names },
                                            {} };

struct program {
    const char *name;
    enum mode mode;
    int control;
    int listen; /* -1: none */
    bool ready, draining;
    uint64_t heartbeat_usec, next_heartbeat_usec;
    char text[LONG_BYTES + 1];
};

static int settings_load(int fd, const char *name, struct settings *ret)
{
    static const char *const theirs[] = { "role",        "exec",
                                          "enabled",     "user",
                                          "sockets",     "ready_timeout_s",
                                          "heartbeat_s", "drain_timeout_s",
                                          "stop_stage",  "limits" };
    struct config_document *d = NULL;
    struct config_error error;
    int r = config_document_read_fd(fd, name, &d, &error);

    for (size_t i = 0; r == 0 && i < ELEMENTSOF(theirs); i++)
        config_take_away(d, theirs[i]);
    if (r == 0)
        r = config_take(d, "settings", items, ret, &error);
    if (r == 0)
        r = config_finish(d, &error);
    config_document_free(d);
    if (r > 0)
        fprintf(stderr, "%s\n", error.text);
    return r;
}

static void say(struct program *p, const Bus__Control *packet, const int *fds, unsigned fd_count)
{
    int r = control_send(p->control, packet, fds, fd_count);

    if (r < 0 && r != -EAGAIN)
        p->control = close_fd(p->control);
}

static void say_hello(struct program *p)
{
    Bus__Hello hello = BUS__HELLO__INIT;
    Bus__Control packet = CONTROL_INIT(HELLO, hello, &hello);
    char *names[] = { getenv("LISTEN_FDNAMES") };

    hello.name = (char *)p->name;
    hello.generation = strtoull(getenv("BRINK_GENERATION"), NULL, 10);
    hello.protocol = CONTROL_PROTOCOL;
    hello.version = (char *)"test";
    hello.ready = p->ready;
    if (p->listen >= 0) {
        hello.socket_names = names;
        hello.n_socket_names = 1;
    }
    say(p, &packet, &p->listen, p->listen >= 0);
}

static void say_ready(struct program *p)
{
    Bus__Ready ready = BUS__READY__INIT;
    Bus__Control packet = CONTROL_INIT(READY, ready, &ready);

    p->ready = true;
    say(p, &packet, NULL, 0);
}

static void say_heartbeat(struct program *p)
{
    Bus__Stat stat = BUS__STAT__INIT, *stats[] = { &stat };
    Bus__Heartbeat heartbeat = BUS__HEARTBEAT__INIT;
    Bus__Control packet = CONTROL_INIT(HEARTBEAT, heartbeat, &heartbeat);

    if (now_usec() < p->next_heartbeat_usec && p->mode != MODE_FLOOD)
        return;
    p->next_heartbeat_usec = now_usec() + p->heartbeat_usec;
    stat.name = (char *)"answer";
    stat.value = 42;
    heartbeat.stats = stats;
    heartbeat.n_stats = 1;
    heartbeat.status = (char *)"fine";
    if (p->mode == MODE_LENGTHY)
        heartbeat.status = memset(p->text, 'x', LONG_BYTES);
    for (unsigned i = 0; p->control >= 0 && i < (p->mode == MODE_FLOOD ? FLOOD_PACKETS : 1); i++)
        say(p, &packet, NULL, 0);
    if (p->mode != MODE_FLOOD)
        log_event(LOG_INFO, 0, "heartbeat");
}

static void program_connect(struct program *p)
{
    _cleanup_(freep) char *path = xasprintf("%s/control.sock", getenv("BRINK_RUN_DIR"));

    p->control = control_connect(path);
    if (p->control < 0) {
        p->draining = access(getenv("BRINK_RUN_DIR"), F_OK) < 0; /* the test is over */
        return;
    }
    say_hello(p);
    if (!p->ready && p->mode != MODE_SILENT)
        say_ready(p);
}

static void tell_roster(const Bus__Roster *roster)
{
    for (size_t i = 0; i < roster->n_entries; i++)
        log_event(LOG_INFO, 0, "roster", F_ROLE(roster->entries[i]->role),
                  F_PID(roster->entries[i]->pid), F_GENERATION(roster->entries[i]->generation));
}

static void hear(struct program *p)
{
    Bus__Control *packet = NULL;
    int r = control_receive(p->control, &packet, NULL, NULL);

    if (r == -EAGAIN)
        return;
    if (r < 0 || !packet) {
        p->control = close_fd(p->control);
        return;
    }
    if (packet->body_case == BUS__CONTROL__BODY_ROSTER)
        tell_roster(packet->roster);
    if (packet->body_case == BUS__CONTROL__BODY_DRAIN && p->mode != MODE_DEAF)
        p->draining = true;
    bus__control__free_unpacked(packet, NULL);
}

static void serve(const struct program *p)
{
    int fd = accept4(p->listen, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    dprintf(fd, "%d\n", getpid());
    close(fd);
}

static int program_run(struct program *p)
{
    while (!p->draining) {
        struct pollfd fds[] = { { p->control, POLLIN, 0 }, { p->listen, POLLIN, 0 } };

        if (p->control < 0)
            program_connect(p);
        fds[0].fd = p->control;
        if (poll(fds, ELEMENTSOF(fds), p->mode == MODE_FLOOD ? 0 : RETRY_MSEC) < 0 &&
            errno != EINTR)
            return EXIT_FAILURE;
        if (p->control >= 0 && fds[0].revents)
            hear(p);
        if (fds[1].revents)
            serve(p);
        if (p->control >= 0)
            say_heartbeat(p);
    }
    return EXIT_SUCCESS;
}

static int check(const char *path)
{
    struct settings settings;
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

    return fd >= 0 && settings_load(fd, path, &settings) == 0 ? EXIT_SUCCESS : EX_CONFIG;
}

int main(int argc, char **argv)
{
    static struct program p = { .control = -1, .listen = -1 };
    struct settings settings;

    if (argc == 3 && strcmp(argv[1], "--check") == 0)
        return check(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    p.name = getenv("BRINK_NAME");
    log_init(p.name);
    if (settings_load(atoi(getenv("BRINK_CONFIG_FD")), getenv("BRINK_CONFIG_NAME"), &settings) != 0)
        return EX_CONFIG;
    p.mode = (enum mode)settings.mode;
    p.heartbeat_usec = strtoull(getenv("BRINK_HEARTBEAT_USEC"), NULL, 10);
    if (atoi(getenv("LISTEN_FDS")) > 0)
        p.listen = SD_LISTEN_FDS_START;
    if (p.mode == MODE_REFUSE)
        return EX_CONFIG;
    if (p.mode == MODE_CRASH)
        return 3;
    return program_run(&p);
}
