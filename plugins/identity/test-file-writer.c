#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "file-writer.h"
#include "state-file.h"
#include "test-folder.h"

struct world {
    sd_event *event;
    struct file_writer *writer;
    char *folder, *path;
};

static int setup(void **state)
{
    struct world *w = xnew(struct world);

    assert_true(sd_event_new(&w->event) >= 0);
    assert_int_equal(file_writer_new(w->event, &w->writer), 0);
    w->folder = folder_new();
    w->path = xasprintf("%s/file", w->folder);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    file_writer_free(w->writer);
    sd_event_unref(w->event);
    folder_removep(&w->folder);
    free(w->path);
    free(w);
    return 0;
}

static void put(struct world *w, const char *path, const char *text)
{
    struct buf content = {};

    buf_append_span(&content, span_str(text));
    file_writer_put_take(w->writer, path, &content);
    assert_null(content.data);
}

static bool holds(const char *path, const char *text)
{
    struct buf content = {};
    bool equal;

    if (state_file_read(path, 1024, &content) != 0)
        return false;
    equal = span_equal(buf_span(&content), span_str(text));
    buf_done(&content);
    return equal;
}

static void test_written_from_the_loop(void **state)
{
    struct world *w = *state;

    put(w, w->path, "one");
    while (!holds(w->path, "one"))
        assert_true(sd_event_run(w->event, UINT64_C(10) * 1000 * 1000) > 0);
    put(w, w->path, "two");
    while (!holds(w->path, "two"))
        assert_true(sd_event_run(w->event, UINT64_C(10) * 1000 * 1000) > 0);
}

static void test_newest_wins_and_free_writes_the_rest(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *other = xasprintf("%s/other", w->folder);

    put(w, w->path, "one");
    put(w, w->path, "two");
    put(w, other, "other");
    put(w, w->path, "three");
    w->writer = file_writer_free(w->writer);
    assert_true(holds(w->path, "three"));
    assert_true(holds(other, "other"));
}

static void test_failure_is_survived(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *nowhere = xasprintf("%s/no/file", w->folder);

    put(w, nowhere, "lost");
    put(w, w->path, "kept");
    w->writer = file_writer_free(w->writer);
    assert_true(holds(w->path, "kept"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_written_from_the_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newest_wins_and_free_writes_the_rest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure_is_survived, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
