/* Against roles and a supervisor that are played by a child process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl-ask.h"

static char folder[] = "/tmp/ctl-ask-XXXXXX";
static struct ctl ctl;
static pid_t children[2];

/* Runs @play in a child, and returns when it said that it listens, by writing a byte. */
static pid_t start(void (*play)(int ready_fd))
{
    pid_t child;
    int fds[2];
    char byte;

    assert_int_equal(pipe(fds), 0);
    child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        play(fds[1]);
        _exit(1);
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], &byte, 1), 1);
    close(fds[0]);
    return child;
}

static uint64_t everybody(int64_t pid, uint32_t uid, void *userdata)
{
    return PEER_OPERATOR;
}

static int on_queues_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    char name[] = "$upstream";
    Bus__QueueStatus queue = BUS__QUEUE_STATUS__INIT, *queues[] = { &queue };
    Bus__Queues body = BUS__QUEUES__INIT;
    Bus__Envelope answer = ENVELOPE(QUEUES, queues, &body);

    queue.name = name;
    queue.depth = 7;
    body.queues = queues;
    body.n_queues = 1;
    return bus_answer_with(call, &answer);
}

static int on_record_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    return bus_answer_error(call, STATUS_NOT_FOUND, "no such record");
}

static int on_fetch(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    bus_call_keep(call); /* and never answers */
    return 0;
}

static void play_store(int ready_fd)
{
    static const struct bus_handler handlers[] = {
        { BUS__ENVELOPE__BODY_QUEUES_GET, PEER_ANY, on_queues_get },
        { BUS__ENVELOPE__BODY_RECORD_GET, PEER_ANY, on_record_get },
        { BUS__ENVELOPE__BODY_FETCH, PEER_ANY, on_fetch },
        {},
    };
    char *dir = xasprintf("%s/bus", folder);
    sd_event *event;
    struct bus *bus;

    if (sd_event_new(&event) < 0 || bus_new(event, dir, "store", 1, everybody, NULL, &bus) < 0 ||
        bus_listen(bus, handlers, NULL) < 0 || write(ready_fd, "r", 1) != 1)
        return;
    sd_event_loop(event);
}

static json_t *depth_json(const Bus__Envelope *answer)
{
    return answer->body_case == BUS__ENVELOPE__BODY_QUEUES
               ? json_integer((json_int_t)answer->queues->queues[0]->depth)
               : NULL;
}

/*
 * One is answered, one is refused, one gets no answer, one is not there: each has its own outcome.
 */
static void test_ctl_ask(void **state)
{
    Bus__QueuesGet queues_get = BUS__QUEUES_GET__INIT;
    Bus__RecordGet record_get = BUS__RECORD_GET__INIT;
    Bus__Fetch fetch = BUS__FETCH__INIT;
    Bus__RouterStatusGet router_get = BUS__ROUTER_STATUS_GET__INIT;
    Bus__Envelope requests[] = {
        ENVELOPE(QUEUES_GET, queues_get, &queues_get),
        ENVELOPE(RECORD_GET, record_get, &record_get),
        ENVELOPE(FETCH, fetch, &fetch),
        ENVELOPE(ROUTER_STATUS_GET, router_status_get, &router_get),
    };
    struct ctl_question questions[] = {
        { "store", &requests[0], depth_json },
        { "store", &requests[1], depth_json },
        { "store", &requests[2], depth_json },
        { "router", &requests[3], depth_json },
    };

    assert_int_equal(ctl_ask(&ctl, questions, ELEMENTSOF(questions), CTL_ANSWER_USEC / 4), 0);
    assert_null(questions[0].error);
    assert_int_equal(json_integer_value(questions[0].result), 7);
    assert_null(questions[1].result);
    assert_string_equal(questions[1].error, "store: no such record");
    assert_null(questions[2].result);
    assert_string_equal(questions[2].error, "store does not answer");
    assert_null(questions[3].result);
    assert_non_null(strstr(questions[3].error, "router is not running: "));
    ctl_questions_done(questions, ELEMENTSOF(questions));
    assert_null(questions[0].result);

    assert_int_equal(ctl_ask(&ctl, questions, 1, 2000000), 0); /* and again, on the same line */
    assert_int_equal(json_integer_value(questions[0].result), 7);
    ctl_questions_done(questions, 1);
}

static json_t *wrong_json(const Bus__Envelope *answer)
{
    return NULL;
}

static void test_ctl_ask_one(void **state)
{
    Bus__QueuesGet queues_get = BUS__QUEUES_GET__INIT;
    Bus__Envelope request = ENVELOPE(QUEUES_GET, queues_get, &queues_get);
    json_t *answer = NULL;

    assert_int_equal(ctl_ask_one(&ctl, "store", &request, 2000000, depth_json, &answer), 0);
    assert_int_equal(json_integer_value(answer), 7);
    json_decref(answer);
    assert_int_equal(ctl_ask_one(&ctl, "store", &request, 2000000, wrong_json, &answer),
                     CTL_FAILED);
    assert_int_equal(ctl_ask_one(&ctl, "router", &request, 2000000, depth_json, &answer),
                     CTL_FAILED);
}

/* Answers a command, having said something else first; hangs up on anything else. */
static void play_supervisor(int ready_fd)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/control.sock", folder);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, 4) < 0 || write(ready_fd, "r", 1) != 1)
        return;
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        struct pollfd wait = { peer, POLLIN, 0 };
        Bus__Roster roster = BUS__ROSTER__INIT;
        Bus__CommandResult result = BUS__COMMAND_RESULT__INIT;
        Bus__Control noise = CONTROL_INIT(ROSTER, roster, &roster);
        Bus__Control answer = CONTROL_INIT(COMMAND_RESULT, command_result, &result),
                     *request = NULL;

        if (poll(&wait, 1, -1) == 1 && control_receive(peer, &request, NULL, NULL) == 0 &&
            request && request->body_case == BUS__CONTROL__BODY_COMMAND) {
            result.done = true;
            control_send(peer, &noise, NULL, 0);
            control_send(peer, &answer, NULL, 0);
        }
        if (request)
            bus__control__free_unpacked(request, NULL);
        close(peer);
    }
}

static void test_ctl_ask_supervisor(void **state)
{
    Bus__Command command = BUS__COMMAND__INIT;
    Bus__StatusGet get = BUS__STATUS_GET__INIT;
    Bus__Control act = CONTROL_INIT(COMMAND, command, &command),
                 ask = CONTROL_INIT(STATUS_GET, status_get, &get);
    Bus__Control *answer = NULL;

    assert_int_equal(
        ctl_ask_supervisor(&ctl, &act, BUS__CONTROL__BODY_COMMAND_RESULT, CTL_ANSWER_USEC, &answer),
        0);
    assert_true(answer->command_result->done);
    bus__control__free_unpacked(answer, NULL);
    assert_int_equal(
        ctl_ask_supervisor(&ctl, &ask, BUS__CONTROL__BODY_STATUS, CTL_ANSWER_USEC, &answer),
        CTL_FAILED);
}

/* The children first: what the parent opens is not theirs. */
static int start_all(void **state)
{
    _cleanup_(freep) char *bus = NULL;

    if (!mkdtemp(folder))
        return -1;
    bus = xasprintf("%s/bus", folder);
    if (mkdir(bus, 0700) < 0)
        return -1;
    ctl.appliance.run_dir = folder;
    children[0] = start(play_store);
    children[1] = start(play_supervisor);
    return 0;
}

static int stop_all(void **state)
{
    _cleanup_(freep) char *command = xasprintf("rm -rf '%s'", folder);

    bus_free(ctl.bus);
    sd_event_unref(ctl.event);
    for (size_t i = 0; i < ELEMENTSOF(children); i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ctl_ask),
        cmocka_unit_test(test_ctl_ask_one),
        cmocka_unit_test(test_ctl_ask_supervisor),
    };

    return cmocka_run_group_tests(tests, start_all, stop_all);
}
