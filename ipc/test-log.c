#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"

/* Stderr goes into a pipe while a test runs. */
struct capture {
    int saved, read;
    char text[8192];
};

static void capture_begin(struct capture *c)
{
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    c->read = fds[0];
    c->saved = dup(STDERR_FILENO);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
}

static const char *capture_end(struct capture *c)
{
    size_t len = 0;
    ssize_t n;

    dup2(c->saved, STDERR_FILENO); /* the last write end closes */
    close(c->saved);
    while ((n = read(c->read, c->text + len, sizeof(c->text) - 1 - len)) > 0)
        len += (size_t)n;
    close(c->read);
    c->text[len] = '\0';
    return c->text;
}

static int reset(void **state)
{
    unsetenv("JOURNAL_STREAM");
    log_init("store");
    log_set_level(LOG_INFO);
    return 0;
}

static void test_log_event_line(void **state)
{
    struct capture c;
    const char *line;
    int year, month, day, hour, minute, second, msec, at = 0;

    capture_begin(&c);
    log_event(LOG_INFO, 0, "ready", F_GENERATION(3), F_PID(77));
    line = capture_end(&c);
    assert_int_equal(sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour,
                            &minute, &second, &msec, &at),
                     7);
    assert_int_equal(at, 24);
    assert_string_equal(line + at, " info  store: ready generation=3 pid=77\n");
}

static void test_log_event_values(void **state)
{
    static const struct {
        const char *value, *want;
    } cases[] = {
        { "plain", "plain" },
        { "", "\"\"" },
        { NULL, "-" },
        { "a b", "\"a b\"" },
        { "a\nb", "\"a\\x0ab\"" },
        { "a\x1b[2Jb", "\"a\\x1b[2Jb\"" },
        { "say \"x\\y\"", "\"say \\\"x\\\\y\\\"\"" },
        { "k=v", "\"k=v\"" },
        { "gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\"" },
        { "\xff\xfe", "\"\\xff\\xfe\"" },
        { "\xc2\x9b"
          "2J",
          "\"\\u009b2J\"" },
        { "\x7f", "\"\\x7f\"" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *want =
            xasprintf(" warning store: refused client=%s\n", cases[i].want);
        struct capture c;

        capture_begin(&c);
        log_event(LOG_WARNING, 0, "refused", F_CLIENT(cases[i].value));
        assert_string_equal(capture_end(&c) + 24, want);
    }
}

static void test_log_event_long_value(void **state)
{
    _cleanup_(freep) char *value = xalloc0(5000);
    struct capture c;
    const char *line;

    memset(value, 'x', 4999);
    capture_begin(&c);
    log_event(LOG_ERR, 0, "refused", F_CLIENT(value), F_COUNT(1));
    line = capture_end(&c);
    assert_true(strlen(line) < 1200);
    assert_non_null(strstr(line, "xxx... count=1\n"));
}

static void test_log_event_error(void **state)
{
    static const int errors[] = { ENOENT, -ENOENT };

    for (size_t i = 0; i < ELEMENTSOF(errors); i++) {
        struct capture c;

        errno = EPERM;
        capture_begin(&c);
        log_event(LOG_ERR, errors[i], "cannot open", F_PATH("/x"));
        assert_string_equal(
            capture_end(&c) + 24,
            " error store: cannot open path=/x error=\"No such file or directory\"\n");
    }
}

static void test_log_event_keeps_errno(void **state)
{
    struct capture c;

    capture_begin(&c);
    errno = EPERM;
    log_event(LOG_ERR, ENOENT, "cannot open");
    assert_int_equal(errno, EPERM);
    capture_end(&c);
}

static void test_log_levels(void **state)
{
    struct capture c;

    assert_int_equal(log_level_from_name("error"), LOG_ERR);
    assert_int_equal(log_level_from_name("warning"), LOG_WARNING);
    assert_int_equal(log_level_from_name("info"), LOG_INFO);
    assert_int_equal(log_level_from_name("debug"), LOG_DEBUG);
    assert_int_equal(log_level_from_name("loud"), -EINVAL);
    assert_string_equal(log_level_name(LOG_NOTICE), "info");
    capture_begin(&c);
    log_event(LOG_DEBUG, 0, "not seen");
    log_set_level(LOG_DEBUG);
    log_event(LOG_DEBUG, 0, "seen");
    assert_string_equal(capture_end(&c) + 24, " debug store: seen\n");
}

/* A stream that is named but not ours is not the journal: the line comes as text. */
static void test_log_init_other_stream(void **state)
{
    struct capture c;

    setenv("JOURNAL_STREAM", "1:2", 1);
    log_init("store");
    capture_begin(&c);
    log_event(LOG_INFO, 0, "here");
    assert_string_equal(capture_end(&c) + 24, " info  store: here\n");
}

static void test_log_init_journal(void **state)
{
    _cleanup_(freep) char *stream = NULL;
    struct capture c;
    struct stat st;

    capture_begin(&c);
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    stream = xasprintf("%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_init("store");
    log_event(LOG_DEBUG, 0, "filtered");
    log_set_level(LOG_DEBUG);
    log_event(LOG_DEBUG, ENOENT, "brink unit test", F_CLIENT("a b"), F_COUNT(3));
    assert_string_equal(capture_end(&c), ""); /* went to the journal's socket, if there is one */
}

static void test_log_limit(void **state)
{
    struct log_limit limit = {};
    unsigned suppressed = 7;

    assert_true(log_limit_pass(&limit, 3600000000, &suppressed));
    assert_int_equal(suppressed, 0);
    assert_false(log_limit_pass(&limit, 3600000000, &suppressed));
    assert_false(log_limit_pass(&limit, 3600000000, &suppressed));
    assert_true(log_limit_pass(&limit, 0, &suppressed));
    assert_int_equal(suppressed, 2);
    assert_true(log_limit_pass(&limit, 0, &suppressed));
    assert_int_equal(suppressed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_log_event_line, reset),
        cmocka_unit_test_setup(test_log_event_values, reset),
        cmocka_unit_test_setup(test_log_event_long_value, reset),
        cmocka_unit_test_setup(test_log_event_error, reset),
        cmocka_unit_test_setup(test_log_event_keeps_errno, reset),
        cmocka_unit_test_setup(test_log_levels, reset),
        cmocka_unit_test_setup(test_log_init_other_stream, reset),
        cmocka_unit_test_setup(test_log_init_journal, reset),
        cmocka_unit_test_setup(test_log_limit, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
