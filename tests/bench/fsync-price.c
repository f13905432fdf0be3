/*
 * What it costs here to have one record on disk: append, fdatasync, again. The floor under every
 * durable acknowledgement that is not shared with others.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "histogram.h"
#include "mem.h"
#include "span.h"

enum { ROUNDS = 1000, RECORD_BYTES = 512 };

static int measure(const char *path, uint64_t rounds, struct histogram *h)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    char record[RECORD_BYTES];

    if (fd < 0)
        return -errno;
    unlink(path);
    memset(record, 'x', sizeof(record));
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t begin = bench_now_ns();

        if (write(fd, record, sizeof(record)) != sizeof(record) || fdatasync(fd) < 0)
            return errno ? -errno : -ENOSPC;
        histogram_add(h, bench_now_ns() - begin);
    }
    return 0;
}

int main(int argc, char **argv)
{
    _cleanup_(freep) struct histogram *h = xnew(struct histogram);
    _cleanup_(freep) char *path = NULL;
    uint64_t rounds = ROUNDS;
    int r;

    if (argc < 2 || argc > 3 || (argc == 3 && !span_to_uint64(span_str(argv[2]), &rounds))) {
        fprintf(stderr, "usage: brink-bench-fsync DIR [ROUNDS]\n");
        return EX_USAGE;
    }
    path = xasprintf("%s/brink-bench-fsync.%d", argv[1], (int)getpid());
    r = measure(path, rounds, h);
    if (r < 0) {
        fprintf(stderr, "brink-bench-fsync: %s: %s\n", path, strerror(-r));
        return EXIT_FAILURE;
    }
    printf("append of %d B and fdatasync, %llu times: p50 %.1f us, p90 %.1f us, p99 %.1f us, max "
           "%.1f us\n",
           RECORD_BYTES, (unsigned long long)rounds, (double)histogram_at(h, 0.5) / 1e3,
           (double)histogram_at(h, 0.9) / 1e3, (double)histogram_at(h, 0.99) / 1e3,
           (double)h->max / 1e3);
    return EXIT_SUCCESS;
}
