#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

#include "ctl-print.h"
#include "mem.h"

static void test_ctl_format(void **state)
{
    static const struct {
        const char *json;
        enum ctl_form form;
        const char *want;
    } cases[] = {
        { "null", FORM_NUMBER, "\xe2\x80\x94" },
        { "\"\"", FORM_TEXT, "\xe2\x80\x94" },
        { "\"a\"", FORM_TEXT, "a" },
        { "\"a\\u001b[2J\\n\"", FORM_TEXT, "a?[2J?" },
        { "\"\\u009b2J\"", FORM_TEXT, "??2J" },
        { "true", FORM_TEXT, "yes" },
        { "false", FORM_TEXT, "no" },
        { "7", FORM_NUMBER, "7" },
        { "0", FORM_BYTES, "0 B" },
        { "1023", FORM_BYTES, "1023 B" },
        { "1536", FORM_BYTES, "1.5 KiB" },
        { "209715200", FORM_BYTES, "200 MiB" },
        { "2147483648", FORM_BYTES, "2.0 GiB" },
        { "59", FORM_SECONDS, "59s" },
        { "61", FORM_SECONDS, "1min 1s" },
        { "7260", FORM_SECONDS, "2h 1min" },
        { "90000", FORM_SECONDS, "1d 1h" },
        { "[\"a\", \"b\"]", FORM_TEXT, "a, b" },
        { "[]", FORM_TEXT, "\xe2\x80\x94" },
        { "[1, 2]", FORM_TEXT, "[1,2]" },
        { "{\"a\": [1]}", FORM_TEXT, "{\"a\":[1]}" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        json_t *value = json_loads(cases[i].json, JSON_DECODE_ANY, NULL);
        _cleanup_(freep) char *text = ctl_format(value, cases[i].form);

        assert_non_null(value);
        assert_string_equal(text, cases[i].want);
        json_decref(value);
    }
}

static void test_ctl_text(void **state)
{
    json_t *bad = ctl_text("a\xff"
                           "b"),
           *good = ctl_text("gr\xc3\xbc");

    assert_string_equal(json_string_value(bad), "a?b");
    assert_string_equal(json_string_value(good), "gr\xc3\xbc");
    json_decref(bad);
    json_decref(good);
}

static void test_ctl_time(void **state)
{
    json_t *time = ctl_time(1795312800), *never = ctl_time(0);

    assert_string_equal(json_string_value(time), "2026-11-22T02:00:00Z");
    assert_true(json_is_null(never));
    json_decref(time);
    json_decref(never);
}

/* What @print says of @json on stdout, into @text. */
static void capture(void (*print)(const json_t *), const char *json, char *text, size_t size)
{
    json_t *document = json_loads(json, JSON_DECODE_ANY, NULL);
    int saved = dup(STDOUT_FILENO);
    FILE *file = tmpfile();
    size_t n;

    assert_non_null(document);
    fflush(stdout);
    dup2(fileno(file), STDOUT_FILENO);
    print(document);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    rewind(file);
    n = fread(text, 1, size - 1, file);
    text[n] = '\0';
    fclose(file);
    json_decref(document);
}

static void print_queues(const json_t *rows)
{
    static const struct ctl_column columns[] = { { "name", "QUEUE", FORM_TEXT },
                                                 { "depth", "DEPTH", FORM_NUMBER, .spare = 1 },
                                                 { "why", "WHY", FORM_TEXT },
                                                 {} };

    ctl_print_table(rows, columns);
}

static void test_ctl_print_table(void **state)
{
    char text[1024];

    capture(print_queues,
            "[{\"name\": \"$upstream\", \"depth\": 12, \"why\": \"x\"}, {\"name\": \"gr\xc3\xbc\", "
            "\"depth\": 3}]",
            text, sizeof(text));
    assert_string_equal(text, "QUEUE      DEPTH  WHY\n"
                              "$upstream     12  x\n"
                              "gr\xc3\xbc"
                              "            3  \xe2\x80\x94\n");
    capture(print_queues, "[]", text, sizeof(text));
    assert_string_equal(text, "QUEUE  DEPTH  WHY\n");
}

/* What the terminal of @columns shows. */
static void capture_terminal(unsigned short columns, const char *in, char *text, size_t size)
{
    const struct winsize winsize = { .ws_row = 24, .ws_col = columns };
    json_t *document = json_loads(in, 0, NULL);
    int saved = dup(STDOUT_FILENO), master, terminal;
    ssize_t n;

    assert_int_equal(openpty(&master, &terminal, NULL, NULL, &winsize), 0);
    fflush(stdout);
    dup2(terminal, STDOUT_FILENO);
    print_queues(document);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    n = read(master, text, size - 1);
    assert_true(n > 0);
    text[n] = '\0';
    close(saved);
    close(master);
    close(terminal);
    json_decref(document);
}

static void test_ctl_print_table_fits_the_terminal(void **state)
{
    static const char in[] = "[{\"name\": \"$upstream\", \"depth\": 12, "
                             "\"why\": \"a reason that is too long for it\"}]";
    char text[1024];

    capture_terminal(40, in, text, sizeof(text)); /* the last is cut */
    assert_string_equal(text, "QUEUE      DEPTH  WHY\r\n"
                              "$upstream     12  a reason that is too l\r\n");
    capture_terminal(30, in, text, sizeof(text)); /* the spare one is left out */
    assert_string_equal(text, "QUEUE      WHY\r\n"
                              "$upstream  a reason that is to\r\n");
}

static void test_ctl_print_any(void **state)
{
    static const struct {
        const char *json, *want;
    } cases[] = {
        { "{\"a\": 1, \"long\": \"x\"}", "a:    1\nlong: x\n" },
        { "{\"a\": {\"b\": 1, \"c\": {\"d\": true}}, \"e\": {}}",
          "a.b:   1\na.c.d: yes\ne:     \xe2\x80\x94\n" },
        { "{}", "" },
        { "[]", "" },
        { "[{\"id\": \"d\", \"n\": 1}]", "id  n\nd   1\n" },
        { "[1, 2]", "[\n  1,\n  2\n]\n" },
        { "\"x\"", "\"x\"\n" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        char text[1024];

        capture(ctl_print_any, cases[i].json, text, sizeof(text));
        assert_string_equal(text, cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ctl_format),
        cmocka_unit_test(test_ctl_text),
        cmocka_unit_test(test_ctl_time),
        cmocka_unit_test(test_ctl_print_table),
        cmocka_unit_test(test_ctl_print_table_fits_the_terminal),
        cmocka_unit_test(test_ctl_print_any),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
