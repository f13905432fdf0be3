#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "mem.h"

struct sample {
    char *name;
    bool enabled;
    uint64_t count, bytes, wait_usec;
    int durability;
    char **servers;
};

#define AT(field) offsetof(struct sample, field)

static const char *const durabilities[] = { "sync", "interval", NULL };

static const struct config_item sample_items[] = {
    { "name", CONFIG_STRING, AT(name), "anon", "1", "8", "who it is" },
    { "enabled", CONFIG_BOOL, AT(enabled), "true", NULL, NULL, "whether it runs" },
    { "count", CONFIG_COUNT, AT(count), "5", "1", "100", "how many" },
    { "bytes", CONFIG_SIZE, AT(bytes), "64KiB", "1KiB", "1GiB", "how large" },
    { "wait", CONFIG_DURATION, AT(wait_usec), "10s", "1ms", NULL, "how long" },
    { "durability", CONFIG_ENUM, AT(durability), "sync", NULL, NULL, "when to sync", durabilities },
    { "servers", CONFIG_STRING_LIST, AT(servers), "[a, b]", NULL, "3", "where" },
    {},
};

struct entry {
    char *listen;
};

static const struct config_item entry_items[] = {
    { "listen", CONFIG_STRING, offsetof(struct entry, listen), NULL, NULL, "32", "where" },
    {},
};

static int take_entry(struct config_document *d, void *userdata, struct config_error *ret_error)
{
    struct entry entry;
    unsigned *entries = userdata;
    int r;

    r = config_take(d, "", entry_items, &entry, ret_error);
    if (r != 0)
        return r;
    config_clear(entry_items, &entry);
    (*entries)++;
    return 0;
}

/* The whole way: the sample's keys in "settings", a list "sockets", a foreign section "limits". */
static int load(const char *text, struct sample *ret, unsigned *entries, struct config_error *error)
{
    struct config_document *d;
    int r;

    r = config_document_parse(text, strlen(text), "x.yaml", &d, error);
    if (r != 0)
        return r;
    config_take_away(d, "limits");
    r = config_take(d, "settings", sample_items, ret, error);
    if (r == 0) {
        r = config_take_each(d, "sockets", take_entry, entries, error);
        if (r == 0)
            r = config_finish(d, error);
        if (r != 0)
            config_clear(sample_items, ret);
    }
    config_document_free(d);
    return r;
}

static void test_config_take_defaults(void **state)
{
    static const char *const texts[] = { "", "# nothing\n", "settings:\n", "settings: {}\n",
                                         "---\n...\n" };

    for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
        struct config_error error = {};
        struct sample s;
        unsigned entries = 0;

        assert_int_equal(load(texts[i], &s, &entries, &error), 0);
        assert_string_equal(s.name, "anon");
        assert_true(s.enabled);
        assert_int_equal(s.count, 5);
        assert_int_equal(s.bytes, 65536);
        assert_int_equal(s.wait_usec, 10000000);
        assert_int_equal(s.durability, 0);
        assert_string_equal(s.servers[0], "a");
        assert_string_equal(s.servers[1], "b");
        assert_null(s.servers[2]);
        config_clear(sample_items, &s);
        assert_null(s.name);
        assert_null(s.servers);
    }
}

static void test_config_take_values(void **state)
{
    static const char text[] = "limits: {anything: [goes]}\n"
                               "settings:\n"
                               "  name: 'a b'\n"
                               "  enabled: false\n"
                               "  count: 100\n"
                               "  bytes: 1GiB\n"
                               "  wait: 2h\n"
                               "  durability: interval\n"
                               "  servers: []\n"
                               "sockets:\n"
                               "  - {listen: \"[::]:8883\"}\n"
                               "  - listen: unix:streams/mqtt.sock\n";
    struct config_error error = {};
    struct sample s;
    unsigned entries = 0;

    assert_int_equal(load(text, &s, &entries, &error), 0);
    assert_string_equal(s.name, "a b");
    assert_false(s.enabled);
    assert_int_equal(s.count, 100);
    assert_int_equal(s.bytes, 1 << 30);
    assert_int_equal(s.wait_usec, UINT64_C(7200000000));
    assert_int_equal(s.durability, 1);
    assert_null(s.servers[0]);
    assert_int_equal(entries, 2);
    config_clear(sample_items, &s);
}

static void test_config_take_units(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes, wait_usec;
    } cases[] = {
        { "bytes: 1024", 1024, 0 },      { "bytes: 2048B", 2048, 0 },
        { "bytes: 64KiB", 65536, 0 },    { "bytes: 3MiB", 3 << 20, 0 },
        { "bytes: 10kB", 10000, 0 },     { "bytes: 10 MB", 10000000, 0 },
        { "bytes: 1GB", 1000000000, 0 }, { "bytes: '2KiB'", 2048, 0 },
        { "wait: 1000us", 0, 1000 },     { "wait: 500ms", 0, 500000 },
        { "wait: 3", 0, 3000000 },       { "wait: 3s", 0, 3000000 },
        { "wait: 5min", 0, 300000000 },  { "wait: 1h", 0, UINT64_C(3600000000) },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        char *text = xasprintf("settings: {%s}\n", cases[i].text);
        struct config_error error = {};
        struct sample s;
        unsigned entries = 0;

        assert_int_equal(load(text, &s, &entries, &error), 0);
        if (cases[i].bytes)
            assert_int_equal(s.bytes, cases[i].bytes);
        else
            assert_int_equal(s.wait_usec, cases[i].wait_usec);
        config_clear(sample_items, &s);
        free(text);
    }
}

static void test_config_take_bad_files(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        /* values */
        { "settings:\n  durability: fast\n",
          "x.yaml:2: settings.durability: expected sync or interval, found 'fast'" },
        { "settings:\n  enabled: yes\n",
          "x.yaml:2: settings.enabled: expected true or false, found 'yes'" },
        { "settings:\n  enabled:\n",
          "x.yaml:2: settings.enabled: expected true or false, found nothing" },
        { "settings: {count: 0}\n",
          "x.yaml:1: settings.count: expected a whole number from 1 to 100, found '0'" },
        { "settings: {count: 101}\n",
          "x.yaml:1: settings.count: expected a whole number from 1 to 100, found '101'" },
        { "settings: {count: -1}\n",
          "x.yaml:1: settings.count: expected a whole number from 1 to 100, found '-1'" },
        { "settings: {count: 1.5}\n",
          "x.yaml:1: settings.count: expected a whole number from 1 to 100, found '1.5'" },
        { "settings: {count: 5s}\n",
          "x.yaml:1: settings.count: expected a whole number from 1 to 100, found '5s'" },
        { "settings: {count: 99999999999999999999}\n",
          "x.yaml:1: settings.count: expected a whole number from 1 to 100, found "
          "'99999999999999999999'" },
        { "settings:\n\n  bytes: 5XB\n", "x.yaml:3: settings.bytes: expected a size (such as 512, "
                                         "64KiB, 2GiB or 10MB) from 1KiB to 1GiB, found '5XB'" },
        { "settings: {bytes: 2GiB}\n", "x.yaml:1: settings.bytes: expected a size (such as 512, "
                                       "64KiB, 2GiB or 10MB) from 1KiB to 1GiB, found '2GiB'" },
        { "settings: {bytes: 99999999999GiB}\n", "x.yaml:1: settings.bytes: expected a size (such "
                                                 "as 512, 64KiB, 2GiB or 10MB) from 1KiB to 1GiB, "
                                                 "found '99999999999GiB'" },
        { "settings: {wait: 5d}\n", "x.yaml:1: settings.wait: expected a duration (such as 10, "
                                    "500ms, 10s, 5min or 2h) of at least 1ms, "
                                    "found '5d'" },
        { "settings: {wait: 1us}\n", "x.yaml:1: settings.wait: expected a duration (such as 10, "
                                     "500ms, 10s, 5min or 2h) of at least 1ms, "
                                     "found '1us'" },
        { "settings: {name: 123456789}\n",
          "x.yaml:1: settings.name: expected a text of 1 to 8 bytes, found one of 9" },
        { "settings: {name: ''}\n",
          "x.yaml:1: settings.name: expected a text of 1 to 8 bytes, found one of 0" },
        { "settings: {name: [a]}\n",
          "x.yaml:1: settings.name: expected a text of 1 to 8 bytes, found a list" },
        { "settings: {name: ~}\n",
          "x.yaml:1: settings.name: expected a text of 1 to 8 bytes, found nothing" },
        { "settings: {servers: a}\n", "x.yaml:1: settings.servers: expected a list of texts (at "
                                      "most 3 of them), found a text" },
        { "settings: {servers: [a, b, c, d]}\n", "x.yaml:1: settings.servers: expected a list of "
                                                 "texts (at most 3 of them), found one of 4" },
        { "settings: {servers: [{}]}\n", "x.yaml:1: settings.servers: expected a list of texts (at "
                                         "most 3 of them), found another value in it" },
        { "settings: {durability: \"a\\e[2Jb\"}\n",
          "x.yaml:1: settings.durability: expected sync or interval, found 'a?[2Jb'" },
        /* shape */
        { "settings: 5\n", "x.yaml:1: settings: expected keys with values, found a text" },
        { "settings: [a]\n", "x.yaml:1: settings: expected keys with values, found a list" },
        { "- a\n", "x.yaml:1: expected keys with values, found a list" },
        { "just a text\n", "x.yaml:1: expected keys with values, found a text" },
        { "sockets: {a: b}\n", "x.yaml:1: sockets: expected a list, found a mapping" },
        { "sockets: a\n", "x.yaml:1: sockets: expected a list, found a text" },
        { "sockets:\n- listen: a\n- text\n",
          "x.yaml:3: sockets[1]: expected keys with values, found a text" },
        { "sockets:\n- {}\n",
          "x.yaml:2: sockets[0].listen: expected a text of at most 32 bytes, found nothing" },
        { "sockets:\n- listen: a\n  lsten: b\n",
          "x.yaml:3: sockets[0].lsten: unknown key, expected one of listen" },
        /* keys */
        { "settings:\n  durablity: sync\n",
          "x.yaml:2: settings.durablity: unknown key, expected one of settings.name, "
          "settings.enabled, settings.count, "
          "settings.bytes, settings.wait, settings.durability, settings.servers" },
        { "setings: {}\n",
          "x.yaml:1: setings: unknown key, expected one of limits, settings, sockets" },
        { "settings:\n  count: 1\n  count: 2\n",
          "x.yaml:3: count: expected once, found again (first in line 2)" },
        { "settings: {}\nsettings: {}\n",
          "x.yaml:2: settings: expected once, found again (first in line 1)" },
        { "? [a]\n: b\n", "x.yaml:1: expected a key, found something else" },
        { "'': b\n", "x.yaml:1: expected a key, found an empty or binary one" },
        /* YAML */
        { "settings: {\n", "x.yaml:2: not YAML: did not find expected node content" },
        { "a: b: c\n", "x.yaml:1: not YAML: mapping values are not allowed in this context" },
        { "a: &x 5\n", "x.yaml:1: expected a plain value, found the anchor '&x'" },
        { "a: *x\n", "x.yaml:1: expected a plain value, found the alias '*x'" },
        { "a:\n  - !!int 5\n",
          "x.yaml:2: expected a plain value, found the tag 'tag:yaml.org,2002:int'" },
        { "a: 1\n---\nb: 1\n", "x.yaml:2: expected one document, found another" },
        { "a: 1\nb: \xff\n", "x.yaml:2: not YAML: invalid leading UTF-8 octet" },
        { "a: \"x\\0y\"\n", "x.yaml:1: expected a text, found a NUL in it" },
        { "a: [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]\n",
          "x.yaml:1: expected at most 16 levels, found more" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct config_error error = {};
        struct sample s;
        unsigned entries = 0;

        assert_int_equal(load(cases[i].text, &s, &entries, &error), CONFIG_E_INVALID);
        assert_string_equal(error.text, cases[i].error);
    }
}

static void test_config_parse_bounds(void **state)
{
    struct config_document *d;
    struct config_error error;
    size_t len = (1 << 20) + 1;
    char *text = xalloc0(len + 1);

    memset(text, '#', len);
    assert_int_equal(config_document_parse(text, len, "x.yaml", &d, &error), CONFIG_E_INVALID);
    assert_string_equal(error.text, "x.yaml: expected at most 1 MiB, found more");
    memcpy(text, "a: [", 4);
    for (size_t i = 4; i + 1 < 40000; i += 2)
        memcpy(text + i, "1,", 2);
    assert_int_equal(config_document_parse(text, 40000, "x.yaml", &d, &error), CONFIG_E_INVALID);
    assert_string_equal(error.text, "x.yaml:1: expected at most 10000 values, found more");
    free(text);
}

static void test_config_take_nested_sections(void **state)
{
    static const char text[] = "settings:\n  tls: {listen: a}\n  more: 1\n";
    struct config_document *d;
    struct config_error error;
    struct entry entry;

    assert_int_equal(config_document_parse(text, strlen(text), "x.yaml", &d, &error), 0);
    assert_int_equal(config_take(d, "settings.tls", entry_items, &entry, &error), 0);
    assert_string_equal(entry.listen, "a");
    config_clear(entry_items, &entry);
    assert_int_equal(config_finish(d, &error), CONFIG_E_INVALID);
    assert_non_null(strstr(error.text, "x.yaml:3: settings.more: unknown key"));
    config_document_free(d);
}

static void test_config_refuse_names_the_line(void **state)
{
    static const char text[] = "settings:\n  count: 3\n  bytes: 2KiB\n";
    struct config_document *d;
    struct config_error error;
    struct sample s;

    assert_int_equal(config_document_parse(text, strlen(text), "x.yaml", &d, &error), 0);
    assert_int_equal(config_take(d, "settings", sample_items, &s, &error), 0);
    assert_int_equal(config_refuse(d, "settings", "bytes", "more than count KiB", &error),
                     CONFIG_E_INVALID);
    assert_string_equal(error.text, "x.yaml:3: settings.bytes: expected more than count KiB");
    assert_int_equal(config_refuse(d, "settings", "wait", "less", &error), CONFIG_E_INVALID);
    assert_string_equal(error.text, "x.yaml: settings.wait: expected less");
    config_clear(sample_items, &s);
    config_document_free(d);
}

static void test_config_document_read(void **state)
{
    char path[] = "/tmp/brink-config-XXXXXX";
    int fd = mkstemp(path);
    struct config_document *d;
    struct config_error error;
    char *want;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a: b: c\n", 8), 8);
    assert_int_equal(config_document_read(path, &d, &error), CONFIG_E_INVALID);
    want = xasprintf("%s:1: not YAML: mapping values are not allowed in this context",
                     strrchr(path, '/') + 1);
    assert_string_equal(error.text, want);
    /* the descriptor stands at the end, but is read from the beginning */
    assert_int_equal(config_document_read_fd(fd, "n", &d, &error), CONFIG_E_INVALID);
    assert_string_equal(error.text,
                        "n:1: not YAML: mapping values are not allowed in this context");
    close(fd);
    unlink(path);
    assert_int_equal(config_document_read(path, &d, &error), -ENOENT);
    free(want);
}

static void test_config_document_read_fd_pipe(void **state)
{
    struct config_document *d;
    struct config_error error;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "settings:\n", 10), 10);
    close(fds[1]);
    assert_int_equal(config_document_read_fd(fds[0], "n", &d, &error), 0);
    config_document_free(d);
    close(fds[0]);
}

static void test_config_print_reference(void **state)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    config_print_reference(sample_items, out);
    fclose(out);
    assert_non_null(strstr(text, "| `durability` | sync or interval | `sync` | when to sync |\n"));
    assert_non_null(strstr(text, "| `count` | number from 1 to 100 | `5` | how many |\n"));
    free(text);
    text = NULL;
    out = open_memstream(&text, &len);
    config_print_reference(entry_items, out);
    fclose(out);
    assert_non_null(
        strstr(text, "| `listen` | text of at most 32 bytes | must be given | where |\n"));
    free(text);
    text = NULL;
    out = open_memstream(&text, &len);
    config_print_reference((const struct config_item[]){ {} }, out);
    fclose(out);
    assert_string_equal(text, "There are no settings.\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_take_defaults),
        cmocka_unit_test(test_config_take_values),
        cmocka_unit_test(test_config_take_units),
        cmocka_unit_test(test_config_take_bad_files),
        cmocka_unit_test(test_config_parse_bounds),
        cmocka_unit_test(test_config_take_nested_sections),
        cmocka_unit_test(test_config_refuse_names_the_line),
        cmocka_unit_test(test_config_document_read),
        cmocka_unit_test(test_config_document_read_fd_pipe),
        cmocka_unit_test(test_config_print_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
