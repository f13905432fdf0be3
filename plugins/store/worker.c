/* The only place of this process with a second thread of ours. What passes between the two is
 * handed over whole. */
#include "worker.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct worker {
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    worker_fn *job;  /* under the lock: what the thread is to do */
    bool quit;       /* under the lock */
    worker_fn *done; /* the loop's; not NULL while busy */
    void *userdata;
    int eventfd;
    sd_event_source *source;
};

static void *worker_thread(void *userdata)
{
    struct worker *worker = userdata;

    pthread_mutex_lock(&worker->lock);
    for (;;) {
        worker_fn *job;

        while (!worker->job && !worker->quit)
            pthread_cond_wait(&worker->wake, &worker->lock);
        if (!worker->job)
            break;
        job = worker->job;
        pthread_mutex_unlock(&worker->lock);
        job(worker->userdata);
        pthread_mutex_lock(&worker->lock);
        worker->job = NULL;
        if (eventfd_write(worker->eventfd, 1) < 0)
            abort(); /* the loop would wait for ever */
    }
    pthread_mutex_unlock(&worker->lock);
    return NULL;
}

static int worker_on_event(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct worker *worker = userdata;
    worker_fn *done = TAKE_PTR(worker->done);
    eventfd_t n;

    if (eventfd_read(fd, &n) < 0)
        return errno == EAGAIN ? 0 : -errno;
    assert(done);
    done(worker->userdata);
    return 0;
}

/* Signals are for the loop alone. */
static int worker_start(struct worker *worker)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&worker->thread, NULL, worker_thread, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    worker->started = r == 0;
    return -r;
}

int worker_new(sd_event *event, struct worker **ret)
{
    _cleanup_(worker_freep) struct worker *worker = xnew(struct worker);
    int r;

    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->wake, NULL);
    worker->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->eventfd < 0)
        return -errno;
    r = sd_event_add_io(event, &worker->source, worker->eventfd, EPOLLIN, worker_on_event, worker);
    if (r < 0)
        return r;
    r = sd_event_source_set_exit_on_failure(worker->source, true);
    if (r < 0)
        return r;
    r = worker_start(worker);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(worker);
    return 0;
}

static void worker_stop(struct worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    worker->quit = true;
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
    pthread_join(worker->thread, NULL);
}

struct worker *worker_free(struct worker *worker)
{
    if (!worker)
        return NULL;
    sd_event_source_disable_unref(worker->source);
    if (worker->started)
        worker_stop(worker);
    close_fd(worker->eventfd);
    pthread_cond_destroy(&worker->wake);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
    return NULL;
}

void worker_run(struct worker *worker, worker_fn *job, worker_fn *done, void *userdata)
{
    assert(!worker->done);
    worker->done = done;
    worker->userdata = userdata;
    pthread_mutex_lock(&worker->lock);
    worker->job = job;
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
}

bool worker_is_busy(const struct worker *worker)
{
    return worker->done != NULL;
}
