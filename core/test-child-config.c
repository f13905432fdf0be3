#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "child-config.h"
#include "file.h"
#include "log.h"
#include "mem.h"

struct place {
    char dir[40];
    struct appliance appliance;
};

static unsigned reported;
static char last_report[sizeof(((struct config_error *)0)->text)];

static void count_report(const struct config_error *error)
{
    reported++;
    snprintf(last_report, sizeof(last_report), "%s", error->text);
}

static void put(const struct place *p, const char *file, const char *text)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", p->dir, file);

    assert_int_equal(file_replace(path, span_str(text), false), 0);
}

static int place_make(void **state)
{
    struct place *p = xnew(struct place);
    _cleanup_(freep) char *folder = NULL;
    struct config_error error;

    strcpy(p->dir, "/tmp/brink-child-config-XXXXXX");
    if (!mkdtemp(p->dir))
        return -1;
    folder = xasprintf("%s/plugins.d", p->dir);
    if (mkdir(folder, 0700) < 0)
        return -1;
    put(p, "brink.yaml", "hostname: h\nrun_dir: run\nplugin_dir: /opt/p\n");
    reported = 0;
    *state = p;
    return appliance_load(p->dir, &p->appliance, &error);
}

static int place_remove(void **state)
{
    struct place *p = *state;
    _cleanup_(freep) char *command = xasprintf("rm -r %s", p->dir);

    appliance_done(&p->appliance);
    free(p);
    return system(command);
}

static void test_appliance_load_paths_and_defaults(void **state)
{
    struct place *p = *state;
    _cleanup_(freep) char *run_dir = xasprintf("%s/run", p->dir);

    assert_string_equal(p->appliance.run_dir, run_dir);
    assert_string_equal(p->appliance.state_dir, "/var/lib/brink");
    assert_int_equal(appliance_log_level(&p->appliance), LOG_INFO);
    assert_false(p->appliance.fault_injection);
}

static void test_appliance_load_refuses(void **state)
{
    static const struct {
        const char *in, *want;
    } cases[] = {
        { "run_dir: /run/x\n", "hostname: expected" },
        { "hostname: h\nlog_level: loud\n",
          "brink.yaml:2: log_level: expected error, warning, info or debug" },
        { "hostname: h\nlog_levle: info\n", "brink.yaml:2: log_levle: unknown key" },
        { "hostname: h\nfault_injection: 7\n",
          "brink.yaml:2: fault_injection: expected true or false" },
        { "hostname: h\n"
          "run_dir: "
          "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
          "brink.yaml:2: run_dir: expected a path of at most 70 bytes" },
        { "hostname: [\n", "brink.yaml:" },
    };
    struct place *p = *state;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct appliance a;
        struct config_error error = {};

        put(p, "brink.yaml", cases[i].in);
        assert_int_equal(appliance_load(p->dir, &a, &error), CONFIG_E_INVALID);
        if (!strstr(error.text, cases[i].want))
            fail_msg("got: %s, expected: %s", error.text, cases[i].want);
    }
}

static void test_appliance_load_missing(void **state)
{
    struct config_error error = {};
    struct appliance a;

    assert_int_equal(appliance_load("/nowhere", &a, &error), -ENOENT);
    assert_non_null(strstr(error.text, "/nowhere/brink.yaml: cannot be read"));
}

static void test_child_configs_load_whole(void **state)
{
    struct place *p = *state;
    struct child_configs configs = {};
    const struct child_config *c;

    put(p, "plugins.d/b.yaml", "role: store\nexec: brink-store\n");
    put(p, "plugins.d/a.yaml",
        "role: front\n"
        "exec: /bin/true\n"
        "enabled: false\n"
        "sockets:\n"
        "  - {name: mqtts, listen: '127.0.0.1:8883'}\n"
        "  - {name: mqtts, listen: '[::1]:8883'}\n"
        "ready_timeout_s: 2\n"
        "heartbeat_s: 500ms\n"
        "drain_timeout_s: 1min\n"
        "stop_stage: 3\n"
        "limits: {memory: 256MiB, open_files: 100}\n"
        "settings: {anything: [at, all]}\n");
    put(p, "plugins.d/.hidden.yaml", "nonsense");
    put(p, "plugins.d/a.yaml~", "nonsense");
    assert_int_equal(child_configs_load(p->dir, &p->appliance, count_report, &configs), 0);
    assert_int_equal(configs.count, 2);

    c = &configs.entries[0];
    assert_string_equal(c->name, "a");
    assert_string_equal(c->exec, "/bin/true");
    assert_false(c->enabled);
    assert_int_equal(c->sockets.count, 2);
    assert_int_equal(c->ready_timeout_usec, 2000000);
    assert_int_equal(c->heartbeat_usec, 500000);
    assert_int_equal(c->drain_timeout_usec, 60000000);
    assert_int_equal(c->stop_stage, 3);
    assert_int_equal(c->memory_bytes, 256 << 20);
    assert_int_equal(c->open_files, 100);
    assert_int_equal(c->uid, geteuid());
    assert_non_null(strstr(c->text, "anything"));

    c = &configs.entries[1];
    assert_string_equal(c->exec, "/opt/p/brink-store");
    assert_true(c->enabled);
    assert_int_equal(c->heartbeat_usec, 1000000);
    assert_int_equal(c->stop_stage, 2);
    child_configs_done(&configs);
}

static void test_child_config_load_refuses(void **state)
{
    static const struct {
        const char *file, *in, *want;
    } cases[] = {
        { "x.yaml", "exec: e\n", "x.yaml: role: expected" },
        { "x.yaml", "role: r\n", "x.yaml: exec: expected" },
        { "x.yaml", "role: R 2\nexec: e\n", "x.yaml:1: role: expected lower-case letters" },
        { "x.yaml", "role: r\nexec: e\nheartbeat: 1\n", "x.yaml:3: heartbeat: unknown key" },
        { "x.yaml", "role: r\nexec: e\nheartbeat_s: often\n",
          "x.yaml:3: heartbeat_s: expected a duration" },
        { "x.yaml", "role: r\nexec: e\nheartbeat_s: 0\n",
          "x.yaml:3: heartbeat_s: expected a duration" },
        { "x.yaml", "role: r\nexec: e\nenabled: maybe\n",
          "x.yaml:3: enabled: expected true or false" },
        { "x.yaml", "role: r\nexec: e\nlimits: {memory: lots}\n",
          "x.yaml:3: limits.memory: expected a size" },
        { "x.yaml", "role: r\nexec: e\nlimits: {cpu: 1}\n", "x.yaml:3: limits.cpu: unknown key" },
        { "x.yaml", "role: r\nexec: e\nuser: no-such-user-here\n",
          "x.yaml:3: user: expected a user of this system" },
        { "x.yaml", "role: r\nexec: e\nsockets: 8883\n", "x.yaml:3: sockets: expected a list" },
        { "Ex.yaml", "role: r\nexec: e\n", "Ex.yaml: expected a name" },
        { "x.yaml", "role: [\n", "x.yaml:" },
    };
    struct place *p = *state;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *file = xasprintf("plugins.d/%s", cases[i].file);
        _cleanup_(freep) char *path = xasprintf("%s/%s", p->dir, file);
        struct config_error error = {};
        struct child_config c;

        put(p, file, cases[i].in);
        assert_int_equal(child_config_load(path, &p->appliance, NULL, &c, &error),
                         CONFIG_E_INVALID);
        if (!strstr(error.text, cases[i].want))
            fail_msg("got: %s, expected: %s", error.text, cases[i].want);
    }
}

static void test_child_configs_load_reports_every_fault(void **state)
{
    struct place *p = *state;
    struct child_configs configs = {};

    put(p, "plugins.d/a.yaml", "role: store\nexec: e\n");
    put(p, "plugins.d/b.yaml", "exec: e\n");
    put(p, "plugins.d/c.yaml",
        "role: store\nexec: e\nenabled: false\n"); /* may wait to take over */
    put(p, "plugins.d/d.yaml", "exec: e\nrole: store\n");
    assert_int_equal(child_configs_load(p->dir, &p->appliance, count_report, &configs),
                     CONFIG_E_INVALID);
    assert_int_equal(reported, 2);
    assert_non_null(strstr(
        last_report, "d.yaml:2: role: expected a role of its own, but a.yaml has 'store' too"));
}

static void test_child_configs_load_without_folder(void **state)
{
    struct place *p = *state;
    struct child_configs configs = {};

    assert_int_equal(child_configs_load("/nowhere", &p->appliance, count_report, &configs),
                     CONFIG_E_INVALID);
    assert_non_null(strstr(last_report, "/nowhere/plugins.d: "));
}

static void test_child_configs_check_settings(void **state)
{
    struct place *p = *state;
    struct child_configs configs = {};

    put(p, "plugins.d/a.yaml", "role: a\nexec: /bin/true\n");
    put(p, "plugins.d/b.yaml", "role: b\nexec: /bin/nonsense\nenabled: false\n");
    assert_int_equal(child_configs_load(p->dir, &p->appliance, count_report, &configs), 0);
    assert_int_equal(child_configs_check_settings(&configs), 0);
    child_configs_done(&configs);
    put(p, "plugins.d/c.yaml", "role: c\nexec: /bin/false\n");
    assert_int_equal(child_configs_load(p->dir, &p->appliance, count_report, &configs), 0);
    assert_int_equal(child_configs_check_settings(&configs), CONFIG_E_INVALID);
    child_configs_done(&configs);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, place_make, place_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_appliance_load_paths_and_defaults),
        TEST(test_appliance_load_refuses),
        TEST(test_appliance_load_missing),
        TEST(test_child_configs_load_whole),
        TEST(test_child_config_load_refuses),
        TEST(test_child_configs_load_reports_every_fault),
        TEST(test_child_configs_load_without_folder),
        TEST(test_child_configs_check_settings),
    };

    log_set_level(LOG_EMERG);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
