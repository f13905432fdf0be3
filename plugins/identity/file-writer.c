#include "file-writer.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "log.h"
#include "state-file.h"

/* The thread's while it runs, the loop's before and after. */
struct file_job {
    struct file_job *next;
    char *path;
    struct buf content;
    int result;
    int done_fd;
};

struct file_writer {
    sd_event *event;
    int done_fd;
    sd_event_source *source;
    pthread_t thread;
    bool has_thread;          /* else the loop did it itself */
    struct file_job *running; /* NULL: there is no thread */
    struct file_job *waiting; /* in order */
};

static struct file_job *job_free(struct file_job *job)
{
    free(job->path);
    buf_done(&job->content);
    free(job);
    return NULL;
}

static void *job_run(void *userdata)
{
    struct file_job *job = userdata;
    ssize_t n;

    job->result = state_file_write(job->path, buf_span(&job->content));
    do
        n = write(job->done_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
    while (n < 0 && errno == EINTR);
    return NULL;
}

/* Signals stay with the loop. Without a thread the loop does it: late is better than never. */
static void writer_start(struct file_writer *writer, struct file_job *job)
{
    sigset_t all, before;
    int r;

    job->done_fd = writer->done_fd;
    writer->running = job;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&writer->thread, NULL, job_run, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    writer->has_thread = r == 0;
    if (!writer->has_thread)
        job_run(job);
}

static void writer_start_next(struct file_writer *writer)
{
    struct file_job *job = writer->waiting;

    if (!job || writer->running)
        return;
    writer->waiting = job->next;
    writer_start(writer, job);
}

static void writer_collect(struct file_writer *writer)
{
    struct file_job *job = TAKE_PTR(writer->running);

    if (writer->has_thread)
        pthread_join(writer->thread, NULL);
    if (job->result < 0)
        log_event(LOG_ERR, job->result, "cannot write a file", F_PATH(job->path));
    job_free(job);
}

static int writer_on_done(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct file_writer *writer = userdata;
    uint64_t count;

    if (read(fd, &count, sizeof(count)) != sizeof(count))
        return 0;
    writer_collect(writer);
    writer_start_next(writer);
    return 0;
}

int file_writer_new(sd_event *event, struct file_writer **ret)
{
    _cleanup_(file_writer_freep) struct file_writer *writer = xnew(struct file_writer);
    int r;

    writer->event = sd_event_ref(event);
    writer->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (writer->done_fd < 0)
        return -errno;
    r = sd_event_add_io(event, &writer->source, writer->done_fd, EPOLLIN, writer_on_done, writer);
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(writer->source, true);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(writer);
    return 0;
}

struct file_writer *file_writer_free(struct file_writer *writer)
{
    if (!writer)
        return NULL;
    while (writer->running) {
        writer_collect(writer);
        writer_start_next(writer);
    }
    sd_event_source_disable_unref(writer->source);
    close_fd(writer->done_fd);
    sd_event_unref(writer->event);
    free(writer);
    return NULL;
}

void file_writer_put_take(struct file_writer *writer, const char *path, struct buf *content)
{
    struct file_job **link = &writer->waiting, *job;

    while (*link && strcmp((*link)->path, path) != 0)
        link = &(*link)->next;
    if (!*link) {
        *link = xnew(struct file_job);
        (*link)->path = xstrdup(path);
    }
    job = *link;
    buf_done(&job->content);
    job->content = *content;
    *content = (struct buf){};
    writer_start_next(writer);
}
