/*
 * What a kill leaves behind. A child appends, or acks, and reports on a pipe what was answered; it
 * is killed at some moment; then exactly what it reported is there, and perhaps what it did not
 * come to report.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test-harness.h"

enum { ROUNDS = 20, BATCH = 7, IN_FLIGHT = 4, LIFE_USEC_MAX = 60000, PARTITIONS = 3 };

static const char *program; /* the path of this one */
static const char *const partitions[PARTITIONS] = { "d", "e", "f/m" };

static uint64_t number_of(const Bus__FetchedItem *item)
{
    uint64_t n = UINT64_MAX;

    if (!span_to_uint64(span_of(item->message.data, item->message.len), &n))
        abort();
    return n;
}

/* In the child: never returns. */

static void report(int fd, uint64_t n)
{
    if (write(fd, &n, sizeof(n)) != sizeof(n))
        _exit(1);
}

/* Message i of the whole test is the text of the number i, in the partition of its turn. */
static void send_batch(struct harness *h, struct reply *reply, uint64_t sequence)
{
    struct batch_item items[BATCH];
    char texts[BATCH][24];

    for (uint64_t i = 0; i < BATCH; i++) {
        uint64_t n = (sequence - 1) * BATCH + i;

        snprintf(texts[i], sizeof(texts[i]), "%lu", (unsigned long)n);
        items[i] = (struct batch_item){ "q", partitions[n % PARTITIONS], 0, -1, texts[i] };
    }
    harness_append(h, reply, "p", sequence, items, BATCH);
}

static void child_append(struct harness *h, int fd, uint64_t next)
{
    struct reply replies[IN_FLIGHT] = {};
    uint64_t sent = next;

    for (;;) {
        struct reply *first = &replies[next % IN_FLIGHT];

        while (sent < next + IN_FLIGHT) {
            send_batch(h, &replies[sent % IN_FLIGHT], sent);
            sent++;
        }
        if (reply_wait(h, first) != STATUS_DONE)
            _exit(1);
        reply_done(first);
        report(fd, next++);
    }
}

static void child_ack(struct harness *h, int fd, uint64_t lease)
{
    struct reply fetched = {}, acked = {};

    for (uint64_t sequence = 1;; sequence++) {
        const Bus__Fetched *f;

        harness_fetch(h, &fetched, "q", lease, sequence, 5, 0);
        if (reply_wait(h, &fetched) != STATUS_DONE)
            _exit(1);
        f = fetched.envelope->fetched;
        for (size_t i = 0; i < f->n_items; i++) {
            const Bus__FetchedItem *item = f->items[i];

            harness_ack(h, &acked, "q", lease, item->partition, 0, item->position, item->position,
                        BUS__OUTCOME__OUTCOME_DELIVERED);
            if (reply_wait(h, &acked) != STATUS_DONE)
                _exit(1);
            reply_done(&acked);
            report(fd, number_of(item));
        }
        if (f->n_items == 0)
            pause();
        reply_done(&fetched);
    }
}

static int child(char **argv)
{
    struct harness h = { .config = HARNESS_CONFIG };
    int fd = atoi(argv[3]);
    uint64_t number = strtoul(argv[4], NULL, 10);

    snprintf(h.dir, sizeof(h.dir), "%s", argv[2]);
    log_set_level(LOG_ERR);
    if (sd_event_new(&h.event) < 0)
        return 1;
    harness_open(&h);
    report(fd, UINT64_MAX); /* it is open: the clock of its life begins */
    if (strcmp(argv[1], "append") == 0)
        child_append(&h, fd, number);
    child_ack(&h, fd, number);
    return 1;
}

/* In the test. */

/* Starts a child of its own program: what RocksDB keeps for the process does not survive a mere
 * fork. */
static pid_t spawn(const char *what, const char *dir, int fd, uint64_t number)
{
    char fd_text[16], number_text[32];
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    snprintf(fd_text, sizeof(fd_text), "%d", fd);
    snprintf(number_text, sizeof(number_text), "%lu", (unsigned long)number);
    execl(program, program, what, dir, fd_text, number_text, NULL);
    _exit(1);
}

static void sleep_usec(unsigned usec)
{
    struct timespec t = { .tv_sec = 0, .tv_nsec = (long)usec * 1000 };

    nanosleep(&t, NULL);
}

/* Lets the child live for a while, and reads its reports to the end. */
static void live_and_die(const char *what, const char *dir, uint64_t number, unsigned life_usec,
                         void (*reported)(uint64_t n, void *userdata), void *userdata)
{
    int fds[2], status;
    uint64_t n;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = spawn(what, dir, fds[1], number);
    assert_true(pid > 0);
    close(fds[1]);
    assert_int_equal(read(fds[0], &n, sizeof(n)), sizeof(n));
    assert_true(n == UINT64_MAX);
    sleep_usec(life_usec); /* the moment of the kill is what is tested: no event stands for it */
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    while (read(fds[0], &n, sizeof(n)) == sizeof(n))
        reported(n, userdata);
    close(fds[0]);
}

/* Every message that is there, in the order of its partition, each once: calls @seen. */
static void read_all(struct harness *h, void (*seen)(uint64_t n, void *userdata), void *userdata)
{
    uint64_t last[PARTITIONS] = {}, sequence = 1;
    struct reply reply = {};
    size_t count;

    do {
        harness_fetch(h, &reply, "q", UINT64_MAX, sequence++, 1000, 0);
        assert_int_equal(reply_wait(h, &reply), STATUS_DONE);
        count = reply.envelope->fetched->n_items;
        for (size_t i = 0; i < count; i++) {
            const Bus__FetchedItem *item = reply.envelope->fetched->items[i];
            uint64_t n = number_of(item);

            assert_string_equal(item->partition, partitions[n % PARTITIONS]);
            assert_true(n + 1 > last[n % PARTITIONS]);
            last[n % PARTITIONS] = n + 1;
            seen(n, userdata);
        }
        reply_done(&reply);
    } while (count > 0);
}

static void expect_equation(struct harness *h, uint64_t accepted, uint64_t depth)
{
    const struct queue *q = queues_find(h->store->image->queues, "q");
    struct ledger l = queue_ledger(q);

    assert_int_equal(l.accepted, accepted);
    assert_int_equal(q->count, depth);
    assert_int_equal(l.accepted, l.delivered + q->count);
}

struct counted {
    uint64_t count, max;
};

static void count(uint64_t n, void *userdata)
{
    struct counted *c = userdata;

    c->count++;
    if (n > c->max)
        c->max = n;
}

static void test_appends(void **state)
{
    struct store_config config = HARNESS_CONFIG;
    uint64_t committed = 0; /* the last sequence known to be applied */
    struct harness h;

    harness_begin(&h, &config);
    srand(1);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct counted reports = {}, there = {};
        uint64_t batches;

        live_and_die("append", h.dir, committed + 1, (unsigned)rand() % LIFE_USEC_MAX, count,
                     &reports);
        harness_open(&h);
        read_all(&h, count, &there);
        assert_int_equal(there.count % BATCH, 0); /* whole batches */
        batches = there.count / BATCH;
        assert_true(there.count == 0 || there.max == there.count - 1); /* without a gap */
        assert_true(batches >= committed + reports.count);
        assert_true(batches <= committed + reports.count + IN_FLIGHT);
        expect_equation(&h, there.count, there.count);
        committed = batches;
        harness_crash(&h);
    }
    assert_true(committed > 0);
    harness_end(&h);
}

static void mark(uint64_t n, void *userdata)
{
    bool *marks = userdata;

    assert_false(marks[n]);
    marks[n] = true;
}

static void test_acks(void **state)
{
    enum { BATCHES = 600, MESSAGES = BATCHES * BATCH };
    struct store_config config = HARNESS_CONFIG;
    bool *acked = xnew_n(bool, MESSAGES);
    uint64_t left = MESSAGES;
    struct harness h;

    harness_begin(&h, &config);
    harness_open(&h);
    for (uint64_t sequence = 1; sequence <= BATCHES; sequence++) {
        struct reply reply = {};

        send_batch(&h, &reply, sequence);
        assert_int_equal(reply_wait(&h, &reply), STATUS_DONE);
        reply_done(&reply);
    }
    harness_crash(&h);
    for (unsigned round = 0; round < ROUNDS; round++) {
        bool *there = xnew_n(bool, MESSAGES);
        uint64_t count = 0, lost_reports = 0;

        live_and_die("ack", h.dir, round + 1, (unsigned)rand() % LIFE_USEC_MAX, mark, acked);
        harness_open(&h);
        read_all(&h, mark, there);
        for (size_t i = 0; i < MESSAGES; i++) {
            assert_false(acked[i] && there[i]); /* what was acked does not come back */
            lost_reports += !acked[i] && !there[i];
            acked[i] = !there[i];
            count += there[i];
        }
        assert_true(lost_reports <= 1); /* the ack that was under way */
        assert_true(count <= left);
        left = count;
        expect_equation(&h, MESSAGES, left);
        harness_crash(&h);
        free(there);
    }
    assert_true(left < MESSAGES);
    harness_end(&h);
    free(acked);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends),
        cmocka_unit_test(test_acks),
    };

    program = argv[0];
    if (argc == 5)
        return child(argv);
    log_set_level(LOG_WARNING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
