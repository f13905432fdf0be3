#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "store-rocks.h"

static const struct rocks_options options = { .memtable_bytes = 1 << 20,
                                              .block_cache_bytes = 1 << 20,
                                              .open_files = 64 };

struct folder {
    char dir[64];
    char path[80];
};

static int folder_remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    return remove(path);
}

static int folder_setup(void **state)
{
    struct folder *f = xnew(struct folder);

    snprintf(f->dir, sizeof(f->dir), "/tmp/brink-rocks-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    snprintf(f->path, sizeof(f->path), "%s/db", f->dir);
    *state = f;
    return 0;
}

static int folder_teardown(void **state)
{
    struct folder *f = *state;

    nftw(f->dir, folder_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

static struct rocks *open_or_fail(const struct folder *f)
{
    struct rocks_error error = {};
    struct rocks *rocks = NULL;
    int r = rocks_open(f->path, &options, &rocks, &error);

    if (r != 0)
        fail_msg("%d: %s", r, error.text);
    return rocks;
}

static void put(struct rocks *rocks, struct span key, struct span value)
{
    _cleanup_(rocks_batch_freep) struct rocks_batch *batch = rocks_batch_new();
    struct rocks_error error;

    rocks_batch_put(batch, key, value);
    assert_int_equal(rocks_batch_count(batch), 1);
    assert_int_equal(rocks_batch_bytes(batch), key.len + value.len);
    assert_int_equal(rocks_write(rocks, batch, true, &error), 0);
}

static void test_write_and_read(void **state)
{
    _cleanup_(rocks_freep) struct rocks *rocks = open_or_fail(*state);
    _cleanup_(rocks_batch_freep) struct rocks_batch *batch = rocks_batch_new();
    _cleanup_(buf_done) struct buf value = {};
    struct rocks_error error;

    put(rocks, SPAN("a"), SPAN("1"));
    rocks_batch_put(batch, SPAN("b"), SPAN("2"));
    rocks_batch_remove_once(batch, SPAN("a"));
    assert_int_equal(rocks_write(rocks, batch, false, &error), 0);
    rocks_batch_clear(batch);
    assert_int_equal(rocks_batch_count(batch), 0);
    assert_int_equal(rocks_get(rocks, SPAN("a"), &value, &error), ROCKS_E_NOT_FOUND);
    assert_int_equal(rocks_get(rocks, SPAN("b"), &value, &error), 0);
    assert_true(span_equal(buf_span(&value), SPAN("2")));
    rocks_batch_remove(batch, SPAN("b"));
    assert_int_equal(rocks_write(rocks, batch, true, &error), 0);
    assert_int_equal(rocks_get(rocks, SPAN("b"), &value, &error), ROCKS_E_NOT_FOUND);
    assert_int_equal(rocks_sync(rocks, &error), 0);
    assert_true(rocks_disk_bytes(rocks) > 0);
}

static void test_scan_is_bounded(void **state)
{
    _cleanup_(rocks_freep) struct rocks *rocks = open_or_fail(*state);
    _cleanup_(rocks_scan_freep) struct rocks_scan *scan = NULL;
    struct rocks_error error;
    struct span key, value;

    for (const char *k = "a1b1b2c1"; *k; k += 2)
        put(rocks, span_of(k, 2), SPAN("v"));
    scan = rocks_scan_new(rocks, SPAN("b"), SPAN("c"));
    put(rocks, SPAN("b3"), SPAN("v")); /* later than the scan */
    assert_true(rocks_scan_next(scan, &key, &value));
    assert_true(span_equal(key, SPAN("b1")));
    assert_true(rocks_scan_next(scan, &key, &value));
    assert_true(span_equal(key, SPAN("b2")));
    assert_false(rocks_scan_next(scan, &key, &value));
    assert_int_equal(rocks_scan_error(scan, &error), 0);
}

static void test_open_again(void **state)
{
    struct rocks *rocks = open_or_fail(*state), *second = NULL;
    const struct folder *f = *state;
    _cleanup_(buf_done) struct buf value = {};
    struct rocks_error error = {};

    put(rocks, SPAN("a"), SPAN("1"));
    assert_int_equal(rocks_open(f->path, &options, &second, &error), -EBUSY);
    assert_true(error.text[0]);
    rocks = rocks_free(rocks);
    rocks = open_or_fail(f);
    assert_int_equal(rocks_get(rocks, SPAN("a"), &value, &error), 0);
    rocks_free(rocks);
}

static unsigned count_files(const struct folder *f, const char *prefix)
{
    DIR *dir = opendir(f->path);
    struct dirent *entry;
    unsigned count = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)))
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(dir);
    return count;
}

static void test_failing_to_open_leaves_no_files(void **state)
{
    const struct folder *f = *state;
    struct rocks *rocks = open_or_fail(f);
    struct rocks_error error = {};
    char path[128];

    rocks_free(rocks);
    snprintf(path, sizeof(path), "%s/CURRENT", f->path);
    assert_int_equal(truncate(path, 3), 0);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(rocks_open(f->path, &options, &rocks, &error), ROCKS_E_CORRUPT);
    assert_true(count_files(f, "LOG.old.") <= 1);
}

static void test_open_no_folder(void **state)
{
    struct rocks *rocks = NULL;
    struct rocks_error error = {};
    const struct folder *f = *state;
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/file", f->dir);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(rocks_open(path, &options, &rocks, &error), -EIO);
    assert_null(rocks);
}

static void test_repair_keeps_what_is_in_the_log(void **state)
{
    const struct folder *f = *state;
    struct rocks *rocks = open_or_fail(f);
    struct rocks_error error = {};
    _cleanup_(buf_done) struct buf value = {};
    char path[128];

    put(rocks, SPAN("a"), SPAN("1"));
    rocks = rocks_free(rocks);
    snprintf(path, sizeof(path), "%s/CURRENT", f->path);
    assert_int_equal(truncate(path, 3), 0);
    assert_int_equal(rocks_open(f->path, &options, &rocks, &error), ROCKS_E_CORRUPT);
    assert_int_equal(rocks_repair(f->path, &options, &error), 0);
    rocks = open_or_fail(f);
    assert_int_equal(rocks_get(rocks, SPAN("a"), &value, &error), 0);
    rocks_free(rocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_write_and_read, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_scan_is_bounded, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_open_again, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_failing_to_open_leaves_no_files, folder_setup,
                                        folder_teardown),
        cmocka_unit_test_setup_teardown(test_open_no_folder, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_repair_keeps_what_is_in_the_log, folder_setup,
                                        folder_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
