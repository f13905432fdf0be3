/* The program itself: what it takes, what it refuses, and with which exit status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "appliance.h"
#include "mem.h"

static char *folder; /* of the test's own */

static int make_folder(void **state)
{
    char template[] = "/tmp/brinkctl-XXXXXX";

    folder = xstrdup(mkdtemp(template));
    unsetenv("BRINK_CONFIG");
    return folder ? 0 : -1;
}

static int remove_folder(void **state)
{
    char *command = xasprintf("rm -rf '%s'", folder);
    int r = system(command);

    free(command);
    free(folder);
    return r;
}

struct outcome {
    int status;
    char out[16384], err[4096];
};

static void read_back(FILE *file, char *text, size_t size)
{
    size_t n;

    rewind(file);
    n = fread(text, 1, size - 1, file);
    text[n] = '\0';
    fclose(file);
}

static void run(const char *const *arguments, struct outcome *ret)
{
    FILE *out = tmpfile(), *err = tmpfile();
    char *argv[20] = { (char *)BRINKCTL };
    int status;
    pid_t pid;

    for (size_t i = 0; arguments[i]; i++)
        argv[i + 1] = (char *)arguments[i];
    pid = fork();
    if (pid == 0) {
        dup2(fileno(out), STDOUT_FILENO);
        dup2(fileno(err), STDERR_FILENO);
        execv(BRINKCTL, argv);
        _exit(99);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    ret->status = WEXITSTATUS(status);
    read_back(out, ret->out, sizeof(ret->out));
    read_back(err, ret->err, sizeof(ret->err));
}

#define RUN(outcome, ...) run((const char *const[]){ __VA_ARGS__, NULL }, outcome)

static void test_usage(void **state)
{
    static const struct {
        const char *argv[8];
        int status;
        const char *out, *err; /* begins so */
    } cases[] = {
        { { "--help" }, 0, "brinkctl COMMAND", "" },
        { { "-h" }, 0, "brinkctl COMMAND", "" },
        { { "help" }, 0, "brinkctl COMMAND", "" },
        { { "--version" }, 0, "brinkctl " BRINK_VERSION "\n", "" },
        { { "help", "hub", "monitor" }, 0, "brinkctl hub monitor [--count N]", "" },
        { { "hub", "monitor", "--help" }, 0, "brinkctl hub monitor [--count N]", "" },
        { { "help", "init" }, 0, "brinkctl init [--address A]", "" },
        { { "help", "frobnicate" }, 2, "", "brinkctl: help: there is no command frobnicate" },
        { { NULL }, 2, "", "brinkctl COMMAND" },
        { { "frob" }, 2, "", "brinkctl: frob: there is no such command" },
        { { "hub", "frob" }, 2, "", "brinkctl: hub frob: there is no such command" },
        { { "queue" },
          2,
          "",
          "brinkctl: queue: expected one of:\n  brinkctl queue peek NAME [--count N]\n" },
        { { "queue", "peek" }, 2, "", "brinkctl: queue peek: expected NAME" },
        { { "queue", "drop" }, 2, "", "brinkctl: queue drop: expected NAME" },
        { { "queue", "frob" }, 2, "", "brinkctl: queue frob: there is no such command" },
        { { "plugin", "kill" }, 2, "", "brinkctl: plugin kill: expected NAME" },
        { { "plugin", "kill", "a", "b" }, 2, "", "brinkctl: plugin kill: expected NAME" },
        { { "status", "now" }, 2, "", "brinkctl: status: expected no further words" },
        { { "status", "--frob" }, 2, "", "brinkctl: --frob: unknown option" },
        { { "status", "--count", "3" }, 2, "", "brinkctl: --count: does not go with status" },
        { { "status", "--config" }, 2, "", "brinkctl: --config: expected DIR behind it" },
        { { "status", "--json=yes" }, 2, "", "brinkctl: --json: takes no value" },
        { { "status", "--config", "a", "--config=b" }, 2, "", "brinkctl: --config: given twice" },
        { { "init" }, 2, "", "brinkctl: init: expected --dir D" },
        { { "init", "--dir", "/x", "--address", "gateway" },
          2,
          "",
          "brinkctl: --address: expected an IP address" },
        { { "init", "--dir", "/x", "--hostname", "a\"b" },
          2,
          "",
          "brinkctl: --hostname: expected a host name" },
        { { "init", "--dir", "/x", "--device-id", "a b" },
          2,
          "",
          "brinkctl: --device-id: expected up to 128" },
        { { "init", "--dir", "/x", "--hub", "HostName=h" },
          2,
          "",
          "brinkctl: --hub: expected emulator or HostName" },
        { { "hub", "monitor", "--count", "0" },
          2,
          "",
          "brinkctl: --count: expected a whole number from 1" },
        { { "hub", "monitor", "--timeout", "1s" },
          2,
          "",
          "brinkctl: --timeout: expected a whole number from 1" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct outcome o;

        run(cases[i].argv, &o);
        assert_int_equal(o.status, cases[i].status);
        assert_int_equal(strncmp(o.out, cases[i].out, strlen(cases[i].out)), 0);
        assert_int_equal(strncmp(o.err, cases[i].err, strlen(cases[i].err)), 0);
    }
}

static json_t *init(const char *dir, const char *const *more)
{
    const char *argv[16] = { "--json", "init", "--dir", dir };
    struct outcome o;
    json_t *made;

    for (size_t i = 0; more[i]; i++)
        argv[4 + i] = more[i];
    run(argv, &o);
    assert_string_equal(o.err, "");
    assert_int_equal(o.status, 0);
    made = json_loads(o.out, 0, NULL);
    assert_non_null(made);
    return made;
}

static const char *get(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void assert_mode(const char *dir, const char *path, mode_t want)
{
    _cleanup_(freep) char *full = xasprintf("%s/%s", dir, path);
    struct stat st;

    assert_int_equal(stat(full, &st), 0);
    assert_int_equal(st.st_mode & 07777, want);
}

static void read_file(const char *dir, const char *path, char *text, size_t size)
{
    _cleanup_(freep) char *full = xasprintf("%s/%s", dir, path);
    FILE *file = fopen(full, "r");

    assert_non_null(file);
    read_back(file, text, size);
}

static void test_init_emulator(void **state)
{
    static const char *const more[] = { "--address",   "127.1.0.1", "--hub-address=127.1.0.2",
                                        "--device-id", "edge1",     NULL };
    _cleanup_(freep) char *dir = xasprintf("%s/a \"b\"", folder), *hub_dir = NULL;
    struct appliance edge = {}, hub = {};
    struct config_error error;
    char text[2048];
    json_t *made = init(dir, more);

    assert_string_equal(get(made, "device_id"), "edge1");
    assert_string_equal(get(made, "hostname"), "localhost");
    assert_string_equal(get(made, "address"), "127.1.0.1");
    assert_string_equal(get(made, "hub_address"), "127.1.0.2");
    assert_int_equal(appliance_load(get(made, "edge_config"), &edge, &error), 0);
    assert_string_equal(edge.hostname, "localhost");
    assert_int_equal(appliance_load(get(made, "hub_config"), &hub, &error), 0);
    assert_string_equal(hub.hostname, "127.1.0.2");
    hub_dir = xasprintf("%s/hub/state", dir);
    assert_string_equal(hub.state_dir, hub_dir);
    assert_int_equal(
        strncmp(get(made, "hub_service_connection_string"),
                "HostName=127.1.0.2;SharedAccessKeyName=iothubowner;SharedAccessKey=", 67),
        0);
    assert_mode(dir, "ca.key", 0600);
    assert_mode(dir, "edge/secrets", 0700);
    assert_mode(dir, "edge/secrets/connection-string", 0600);
    assert_mode(dir, "edge/secrets/edge-ca.key", 0600);
    assert_mode(dir, "hub/secrets/server.key", 0600);
    assert_mode(dir, "hub/secrets/iothubowner.key", 0600);
    assert_mode(dir, "hub/secrets/edge-device.key", 0600);
    read_file(dir, "edge/secrets/connection-string", text, sizeof(text));
    assert_int_equal(strncmp(text, "HostName=127.1.0.2;DeviceId=edge1;SharedAccessKey=", 50), 0);
    read_file(dir, "edge/plugins.d/upstream-amqp.yaml", text, sizeof(text));
    assert_non_null(
        strstr(text, "a \\\"b\\\"/ca.pem\"")); /* whatever the folder is called, it is YAML */
    appliance_done(&edge);
    appliance_done(&hub);
    json_decref(made);
}

/* Every file that init writes is read back by the parser that the programs use. */
static void test_init_files_parse(void **state)
{
    static const char *const none[] = { NULL };
    static const char *const paths[] = {
        "edge/plugins.d/identity.yaml",      "edge/plugins.d/store.yaml",
        "edge/plugins.d/router.yaml",        "edge/plugins.d/upstream-amqp.yaml",
        "edge/plugins.d/mqtt-listener.yaml", "edge/plugins.d/front.yaml",
        "hub/plugins.d/hub-emulator.yaml",
    };
    _cleanup_(freep) char *dir = xasprintf("%s/d", folder);

    json_decref(init(dir, none));
    for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", dir, paths[i]);
        struct config_document *d = NULL;
        struct config_error error = {};

        assert_int_equal(config_document_read(path, &d, &error), 0);
        assert_string_equal(error.text, "");
        config_document_free(d);
    }
}

static void test_init_real_hub(void **state)
{
    static const char connection_string[] =
        "HostName=h.example;DeviceId=gw;SharedAccessKey=c2VjcmV0";
    static const char *const more[] = { "--hub", connection_string, NULL };
    _cleanup_(freep) char *dir = xasprintf("%s/d", folder), *hub = xasprintf("%s/hub", dir);
    char text[2048];
    json_t *made = init(dir, more);

    assert_true(json_is_null(json_object_get(made, "hub_config")));
    assert_true(json_is_null(json_object_get(made, "hub_address")));
    assert_string_equal(get(made, "device_id"), "gw");
    assert_int_not_equal(access(hub, F_OK), 0);
    read_file(dir, "edge/secrets/connection-string", text, sizeof(text));
    assert_string_equal(text, connection_string);
    read_file(dir, "edge/plugins.d/upstream-amqp.yaml", text, sizeof(text));
    assert_null(strstr(text, "ca_file"));
    json_decref(made);
}

static void test_init_overwrites_nothing(void **state)
{
    static const char *const none[] = { NULL };
    _cleanup_(freep) char *dir = xasprintf("%s/d", folder);
    struct outcome o;

    assert_int_equal(mkdir(dir, 0755), 0);
    json_decref(init(dir, none)); /* an empty one is filled */
    RUN(&o, "init", "--dir", dir);
    assert_int_equal(o.status, 1);
    assert_non_null(strstr(o.err, "there is something already"));
}

static void test_init_path_too_long(void **state)
{
    _cleanup_(freep) char *dir = xasprintf("%s/%060d", folder, 0);
    struct outcome o;

    RUN(&o, "init", "--dir", dir);
    assert_int_equal(o.status, 1);
    assert_non_null(strstr(o.err, "the path is too long"));
    assert_int_not_equal(access(dir, F_OK), 0);
}

static void test_nothing_runs(void **state)
{
    static const char *const none[] = { NULL };
    _cleanup_(freep) char *dir = xasprintf("%s/d", folder), *edge = xasprintf("%s/edge", dir);
    struct outcome o;

    json_decref(init(dir, none));
    RUN(&o, "status", "--config", edge);
    assert_int_equal(o.status, 1);
    assert_non_null(strstr(o.err, "brinkctl: brinkd is not running: "));
    assert_non_null(strstr(o.err, "/edge/run/control.sock: No such file or directory"));
    RUN(&o, "--config", edge, "queues", "--json");
    assert_int_equal(o.status, 1);
    assert_string_equal(o.out, "");
    assert_non_null(strstr(o.err, "store is not running: "));
    setenv("BRINK_CONFIG", edge, 1);
    RUN(&o, "plugin", "kill", "store");
    assert_int_equal(o.status, 1);
    assert_non_null(strstr(o.err, "/edge/run/control.sock"));
    RUN(&o, "status", "--config", "/nonexistent");
    assert_int_equal(o.status, 1);
    assert_non_null(strstr(o.err, "/nonexistent/brink.yaml"));
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* The fault is pointed at, below the line it is in. */
static void test_route_check(void **state)
{
    static const struct {
        const char *route, *err; /* ends so */
    } cases[] = {
        { "FROM /messages/* WHERE temp > 21 INTO $upstream",
          "\nFROM /messages/* WHERE temp > 21 INTO $upstream\n                            ^\n" },
        { "FROM /a\n\tWHERE \xc3\xa4 = 1\n\tINTO $upstream",
          "\n\tWHERE \xc3\xa4 = 1\n\t        ^\n" },
        { "FROM /a", "\nFROM /a\n       ^\n" },
        { "FROM /a\n", "\n\n^\n" },
        { "", "\n\n^\n" },
    };
    struct outcome o;
    json_t *answer;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        size_t len = strlen(cases[i].err);

        RUN(&o, "route", "check", cases[i].route);
        assert_int_equal(o.status, 1);
        assert_string_equal(o.out, "");
        assert_true(strlen(o.err) > len);
        assert_string_equal(o.err + strlen(o.err) - len, cases[i].err);
    }
    RUN(&o, "route", "check", "FROM /a INTO BrokeredEndpoint('/modules/M/inputs/I')");
    assert_int_equal(o.status, 0);
    assert_non_null(strstr(o.out, "modules/M/inputs/I"));
    RUN(&o, "route", "check", "--json", "FROM /a\nINTO b");
    assert_int_equal(o.status, 1);
    answer = json_loads(o.out, 0, NULL);
    assert_true(json_is_false(json_object_get(answer, "valid")));
    assert_int_equal(json_integer_value(json_object_get(answer, "line")), 2);
    assert_int_equal(json_integer_value(json_object_get(answer, "column")), 6);
    json_decref(answer);
}

static void test_route_eval(void **state)
{
    _cleanup_(freep) char *path = xasprintf("%s/cases.json", folder);
    struct outcome o;
    json_t *results, *want;

    write_file(path, "[{\"id\":\"a\",\"query\":\"x = '1'\",\"message\":"
                     "{\"applicationProperties\":{\"x\":\"1\"}}},"
                     "{\"id\":\"b\",\"query\":\"x = '1'\"},"
                     "{\"id\":\"c\",\"query\":\"x = 1\"},"
                     "{\"id\":\"d\",\"route\":\"FROM /a INTO $upstream\",\"source\":\"/a/b\"}]");
    RUN(&o, "route", "eval", path);
    assert_int_equal(o.status, 0);
    results = json_loads(o.out, 0, NULL);
    want = json_pack("[{s:s,s:b},{s:s,s:b},{s:s,s:s},{s:s,s:b}]", "id", "a", "result", 1, "id", "b",
                     "result", 0, "id", "c", "result", "error", "id", "d", "result", 1);
    assert_true(json_equal(results, want));
    json_decref(results);
    json_decref(want);

    write_file(path, "[{\"id\":\"half\",\"query\":\"length(x) = 1\",\"message\":"
                     "{\"applicationProperties\":{\"x\":\"\\ud83d\"}}},"
                     "{\"id\":\"nul\",\"query\":\"x\\u0000 = '1' INTO $upstream\"}]");
    RUN(&o, "route", "eval", path);
    assert_int_equal(o.status, 0);
    results = json_loads(o.out, 0, NULL);
    want = json_pack("[{s:s,s:b},{s:s,s:s}]", "id", "half", "result", 1, "id", "nul", "result",
                     "error");
    assert_true(json_equal(results, want));
    json_decref(results);
    json_decref(want);

    write_file(path, "[{\"query\":\"true\"}, 7]");
    RUN(&o, "route", "eval", path);
    assert_int_equal(o.status, 1);
    assert_string_equal(o.out, "");
    assert_non_null(strstr(o.err, "case 2: expected an object"));
    write_file(path, "{}");
    RUN(&o, "route", "eval", path);
    assert_int_equal(o.status, 1);
    assert_non_null(strstr(o.err, "expected an array"));
    write_file(path, "[");
    RUN(&o, "route", "eval", path);
    assert_int_equal(o.status, 1);
    assert_non_null(strstr(o.err, "cases.json:1:1: "));
    RUN(&o, "route", "eval", "/nonexistent");
    assert_int_equal(o.status, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_usage, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_init_emulator, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_init_files_parse, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_init_real_hub, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_init_overwrites_nothing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_init_path_too_long, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_nothing_runs, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_route_check, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_route_eval, make_folder, remove_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
