/* The bus and the control socket seen from a command that may wait. */
#include "ctl-ask.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/*
 * Whoever answers on the bus directory's sockets: only the appliance's own users can put one there.
 */
static uint64_t trust_everybody(int64_t pid, uint32_t uid, void *userdata)
{
    return PEER_ANY;
}

static int bus_open(struct ctl *ctl)
{
    _cleanup_(freep) char *dir = xasprintf("%s/bus", ctl->appliance.run_dir);
    int r;

    if (ctl->bus)
        return 0;
    r = sd_event_new(&ctl->event);
    if (r < 0)
        return r;
    return bus_new(ctl->event, dir, "brinkctl", 0, trust_everybody, NULL, &ctl->bus);
}

/* The bus would wait for a role that is away; here, a role without a socket is absent. */
static bool role_is_absent(const struct ctl *ctl, const char *role, char **ret_path)
{
    *ret_path = xasprintf("%s/bus/%s.ipc", ctl->appliance.run_dir, role);
    return access(*ret_path, F_OK) < 0;
}

struct asking {
    struct ctl_question *question;
    struct bus_peer *peer;
    struct bus_request *request;
    size_t *open;
};

static void asking_on_answer(const Bus__Envelope *answer, void *userdata)
{
    struct asking *asking = userdata;
    struct ctl_question *question = asking->question;

    asking->request = NULL;
    (*asking->open)--;
    if (!answer)
        question->error =
            xasprintf(bus_peer_is_up(asking->peer) ? "%s does not answer" : "%s is not running",
                      question->role);
    else if (answer->status != STATUS_DONE)
        question->error = xasprintf("%s: %s", question->role,
                                    *answer->error ? answer->error : "refused, without a reason");
    else if (!(question->result = question->to_json(answer)))
        question->error = xasprintf("%s: the answer makes no sense", question->role);
}

static int asking_begin(struct ctl *ctl, struct asking *asking, uint64_t deadline_usec)
{
    struct ctl_question *question = asking->question;
    _cleanup_(freep) char *path = NULL;
    int r;

    if (role_is_absent(ctl, question->role, &path)) {
        question->error =
            xasprintf("%s is not running: %s: %s", question->role, path, strerror(errno));
        return 0;
    }
    asking->peer = bus_peer(ctl->bus, question->role);
    r = bus_request(asking->peer, question->request, deadline_usec, asking_on_answer, asking,
                    &asking->request);
    if (r != 0)
        return r < 0 ? r : -EBUSY;
    (*asking->open)++;
    return 0;
}

int ctl_ask(struct ctl *ctl, struct ctl_question *questions, size_t count, uint64_t deadline_usec)
{
    _cleanup_(freep) struct asking *askings = xnew_n(struct asking, count);
    size_t open = 0;
    int r;

    r = bus_open(ctl);
    for (size_t i = 0; i < count && r >= 0; i++) {
        askings[i] = (struct asking){ .question = &questions[i], .open = &open };
        r = asking_begin(ctl, &askings[i], deadline_usec);
    }
    while (open > 0 && r >= 0)
        r = sd_event_run(ctl->event, UINT64_MAX);
    for (size_t i = 0; i < count; i++)
        bus_request_cancel(askings[i].request);
    return r < 0 ? r : 0;
}

void ctl_questions_done(struct ctl_question *questions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        json_decref(questions[i].result);
        free(questions[i].error);
        questions[i].result = NULL;
        questions[i].error = NULL;
    }
}

int ctl_ask_one(struct ctl *ctl, const char *role, Bus__Envelope *request, uint64_t deadline_usec,
                json_t *(*to_json)(const Bus__Envelope *answer), json_t **ret)
{
    struct ctl_question question = { .role = role, .request = request, .to_json = to_json };
    int r, status = 0;

    r = ctl_ask(ctl, &question, 1, deadline_usec);
    if (r < 0)
        status = ctl_fail("cannot ask %s: %s", role, strerror(-r));
    else if (!question.result)
        status = ctl_fail("%s", question.error);
    else
        *ret = json_incref(question.result);
    ctl_questions_done(&question, 1);
    return status;
}

/* The supervisor */

static uint64_t monotonic_usec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Other packets may come first. -ETIMEDOUT, -ECONNRESET: it ended. */
static int receive_until(int socket, Bus__Control__BodyCase body, uint64_t end_usec,
                         Bus__Control **ret)
{
    for (;;) {
        struct pollfd wait = { .fd = socket, .events = POLLIN };
        uint64_t now = monotonic_usec();
        Bus__Control *packet = NULL;
        int r;

        if (now >= end_usec)
            return -ETIMEDOUT;
        r = poll(&wait, 1, (int)((end_usec - now) / 1000) + 1);
        if (r < 0 && errno != EINTR)
            return -errno;
        if (r <= 0)
            continue;
        r = control_receive(socket, &packet, NULL, NULL);
        if (r < 0 && r != -EAGAIN)
            return r;
        if (r == 0 && !packet)
            return -ECONNRESET;
        if (r == 0 && packet->body_case == body) {
            *ret = packet;
            return 0;
        }
        if (packet)
            bus__control__free_unpacked(packet, NULL);
    }
}

int ctl_ask_supervisor(struct ctl *ctl, const Bus__Control *request, Bus__Control__BodyCase body,
                       uint64_t deadline_usec, Bus__Control **ret)
{
    _cleanup_(freep) char *path = xasprintf("%s/control.sock", ctl->appliance.run_dir);
    _cleanup_(closep) int socket = control_connect(path);
    int r;

    if (socket < 0)
        return ctl_fail("brinkd is not running: %s: %s", path, strerror(-socket));
    r = control_send(socket, request, NULL, 0);
    if (r == 0)
        r = receive_until(socket, body, monotonic_usec() + deadline_usec, ret);
    if (r == -ETIMEDOUT)
        return ctl_fail("brinkd did not answer within %llu s",
                        (unsigned long long)deadline_usec / 1000000);
    if (r == -ECONNRESET)
        return ctl_fail("brinkd hung up without an answer");
    if (r < 0)
        return ctl_fail("cannot ask brinkd: %s", strerror(-r));
    return 0;
}
