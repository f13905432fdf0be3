/* The two files the supervisor keeps: the tally on disk, and which processes run. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "running.h"
#include "tally.h"

struct place {
    char dir[32];
    char *path;
};

static int place_make(void **state)
{
    struct place *p = xnew(struct place);

    strcpy(p->dir, "/tmp/brink-tally-XXXXXX");
    if (!mkdtemp(p->dir))
        return -1;
    p->path = xasprintf("%s/file", p->dir);
    *state = p;
    return 0;
}

static int place_remove(void **state)
{
    struct place *p = *state;

    unlink(p->path);
    rmdir(p->dir);
    free(p->path);
    free(p);
    return 0;
}

static void test_tally_generations_grow_over_restarts(void **state)
{
    const struct place *p = *state;
    struct tally tally;

    assert_int_equal(tally_load(p->path, &tally), 0);
    assert_int_equal(tally_next_generation(&tally, "store"), 1);
    assert_int_equal(tally_next_generation(&tally, "store"), 2);
    assert_int_equal(tally_next_generation(&tally, "front"), 1);
    tally_add_death(&tally, "store", 1700000000, "killed by SIGKILL");
    assert_int_equal(tally_save(&tally), 0);
    tally_done(&tally);

    assert_int_equal(tally_load(p->path, &tally), 0);
    assert_int_equal(tally_deaths(&tally, "store"), 1);
    assert_int_equal(tally_deaths(&tally, "front"), 0);
    assert_int_equal(tally_deaths(&tally, "nobody"), 0);
    assert_string_equal(tally.entries[0].last_death, "killed by SIGKILL");
    assert_int_equal(tally.entries[0].last_death_sec, 1700000000);
    tally_saw_generation(&tally, "store", 1); /* knows better */
    assert_int_equal(tally_next_generation(&tally, "store"), 3);
    tally_saw_generation(&tally, "store", 9);
    assert_int_equal(tally_next_generation(&tally, "store"), 10);
    tally_done(&tally);
}

static void test_tally_save_keeps_the_old_one_when_it_cannot_write(void **state)
{
    const struct place *p = *state;
    struct tally tally;
    char *path;

    assert_int_equal(tally_load(p->path, &tally), 0);
    tally_next_generation(&tally, "a");
    path = TAKE_PTR(tally.path);
    tally.path = xstrdup("/nowhere/at/all");
    assert_int_equal(tally_save(&tally), -ENOENT);
    free(tally.path);
    tally.path = path;
    assert_int_equal(tally_save(&tally), 0); /* still dirty: it is written now */
    tally_done(&tally);
    assert_int_equal(tally_load(p->path, &tally), 0);
    assert_int_equal(tally.count, 1);
    tally_done(&tally);
}

static void test_tally_load_leaves_out_nonsense(void **state)
{
    const struct place *p = *state;
    struct tally tally;

    assert_int_equal(file_replace(p->path,
                                  SPAN("a 1 2 3 \n"
                                       "\n"
                                       "b x 2 3 y\n"
                                       "c 18446744073709551616 2 3 y\n"
                                       " 1 2 3 y\n"
                                       "d 5 0 0 \n"
                                       "cut 1 2"),
                                  false),
                     0);
    assert_int_equal(tally_load(p->path, &tally), 0);
    assert_int_equal(tally.count, 2);
    assert_string_equal(tally.entries[1].name, "d");
    assert_int_equal(tally_next_generation(&tally, "d"), 6);
    tally_done(&tally);
}

static void test_running_line_parse(void **state)
{
    static const struct {
        const char *in;
        bool want;
    } cases[] = {
        { "store 123 4567 8", true },          { "store 123 4567", false },
        { "store 1 4567 8", false },           { "store 0 4567 8", false },
        { "store -5 4567 8", false },          { "", false },
        { "store 123 4567 8 9", false },       { " 123 4567 8", false },
        { "store 99999999999 4567 8", false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct running running = {};

        assert_int_equal(running_line_parse(span_str(cases[i].in), &running), cases[i].want);
        free(running.name);
    }
}

static void test_start_ticks_parse(void **state)
{
    static const struct {
        const char *in;
        bool want;
    } cases[] = {
        { "7 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21\n", true },
        { "7 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21\n", true },
        { "7 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21\n", false },
        { "7 (a) S 1 2 3\n", false },
        { "7 (a", false },
        { "", false },
        { ")", false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        uint64_t ticks = 0;

        assert_int_equal(start_ticks_parse(span_str(cases[i].in), &ticks), cases[i].want);
        assert_int_equal(ticks, cases[i].want ? 777 : 0);
    }
}

static void count_running(const struct running *running, void *userdata)
{
    unsigned *count = userdata;

    assert_string_equal(running->name, "self");
    assert_int_equal(running->generation, 3);
    (*count)++;
}

static void test_running_each_reads_what_was_appended(void **state)
{
    const struct place *p = *state;
    _cleanup_(buf_done) struct buf text = {};
    unsigned count = 0;

    running_append(&text, "self", getpid(), 1, 3);
    buf_append_span(&text, SPAN("nonsense\n"));
    running_append(&text, "self", getpid(), 2, 3);
    assert_int_equal(file_replace(p->path, buf_span(&text), false), 0);
    assert_int_equal(running_each(p->path, count_running, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(running_each("/nowhere", count_running, &count), 0);
    assert_int_equal(count, 2);
}

static pid_t make_zombie(void)
{
    pid_t pid = fork();
    siginfo_t how;

    if (pid == 0)
        _exit(0);
    assert_int_equal(waitid(P_PID, (id_t)pid, &how, WEXITED | WNOWAIT), 0);
    return pid;
}

static void test_process_start_ticks_not_of_a_zombie(void **state)
{
    pid_t pid = make_zombie();
    uint64_t ticks;

    assert_int_equal(process_start_ticks(getpid(), &ticks), 0);
    assert_int_equal(process_start_ticks(pid, &ticks), -ESRCH);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(process_start_ticks(pid, &ticks) < 0);
}

/* A pid alone is no proof: it must have begun when the file says, and live. */
static void test_process_open_knows_the_process(void **state)
{
    uint64_t ticks;
    pid_t pid;
    int fd;

    assert_int_equal(process_start_ticks(getpid(), &ticks), 0);
    fd = process_open(getpid(), ticks);
    if (fd == -ENOSYS)
        skip(); /* valgrind has no pidfds */
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(process_open(getpid(), ticks + 1), -ESRCH);
    pid = make_zombie();
    assert_int_equal(process_open(pid, ticks), -ESRCH);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tally_generations_grow_over_restarts, place_make,
                                        place_remove),
        cmocka_unit_test_setup_teardown(test_tally_save_keeps_the_old_one_when_it_cannot_write,
                                        place_make, place_remove),
        cmocka_unit_test_setup_teardown(test_tally_load_leaves_out_nonsense, place_make,
                                        place_remove),
        cmocka_unit_test(test_running_line_parse),
        cmocka_unit_test(test_start_ticks_parse),
        cmocka_unit_test_setup_teardown(test_running_each_reads_what_was_appended, place_make,
                                        place_remove),
        cmocka_unit_test(test_process_start_ticks_not_of_a_zombie),
        cmocka_unit_test(test_process_open_knows_the_process),
    };

    log_set_level(LOG_EMERG);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
