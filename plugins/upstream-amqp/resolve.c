#include "resolve.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* Shared with the thread; whoever lets go of it last frees it. */
struct job {
    atomic_uint refs;
    int done; /* eventfd: the fields below are the result */
    char *host;
    char port[6];
    struct addrinfo *addresses;
    int error; /* EAI_* */
    int saved_errno;
};

struct resolve {
    struct job *job;
    sd_event_source *source;
    resolve_fn *fn;
    void *userdata;
};

static void job_unref(struct job *job)
{
    if (atomic_fetch_sub(&job->refs, 1) > 1)
        return;
    if (job->addresses)
        freeaddrinfo(job->addresses);
    close_fd(job->done);
    free(job->host);
    free(job);
}

static void *job_run(void *userdata)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV };
    struct job *job = userdata;
    uint64_t one = 1;

    job->error = getaddrinfo(job->host, job->port, &hints, &job->addresses);
    if (job->error == EAI_ADDRFAMILY || job->error == EAI_NONAME || job->error == EAI_NODATA) {
        /* A gateway whose only address is the loopback's may still reach what is on it. */
        hints.ai_flags = AI_NUMERICSERV;
        job->error = getaddrinfo(job->host, job->port, &hints, &job->addresses);
    }
    job->saved_errno = errno;
    if (write(job->done, &one, sizeof(one)) < 0) /* an eventfd of 0 takes it */
        abort();
    job_unref(job);
    return NULL;
}

static int resolve_on_done(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct resolve *r = userdata;
    struct addrinfo *addresses = TAKE_PTR(r->job->addresses);
    int error = r->job->error;

    sd_event_source_set_enabled(source, SD_EVENT_OFF);
    if (error == 0)
        r->fn(addresses, NULL, r->userdata);
    else
        r->fn(NULL, error == EAI_SYSTEM ? strerror(r->job->saved_errno) : gai_strerror(error),
              r->userdata);
    return 0;
}

static int job_start(struct job *job)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int r;

    r = pthread_attr_init(&attributes);
    if (r != 0)
        return -r;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    atomic_fetch_add(&job->refs, 1);
    r = pthread_create(&thread, &attributes, job_run,
                       job); /* signals stay blocked, as they are here */
    pthread_attr_destroy(&attributes);
    if (r != 0)
        atomic_fetch_sub(&job->refs, 1);
    return -r;
}

int resolve_new(sd_event *event, const char *host, uint16_t port, resolve_fn *fn, void *userdata,
                struct resolve **ret)
{
    struct resolve *r = xnew(struct resolve);
    int error;

    r->fn = fn;
    r->userdata = userdata;
    r->job = xnew(struct job);
    atomic_init(&r->job->refs, 1);
    r->job->host = xstrdup(host);
    snprintf(r->job->port, sizeof(r->job->port), "%u", (unsigned)port);
    r->job->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    error = r->job->done < 0 ? -errno : 0;
    if (error == 0)
        error = sd_event_add_io(event, &r->source, r->job->done, EPOLLIN, resolve_on_done, r);
    if (error >= 0)
        error = job_start(r->job);
    if (error < 0) {
        resolve_free(r);
        return error;
    }
    sd_event_source_set_exit_on_failure(r->source, true);
    *ret = r;
    return 0;
}

struct resolve *resolve_free(struct resolve *r)
{
    if (!r)
        return NULL;
    sd_event_source_disable_unref(r->source);
    job_unref(r->job);
    free(r);
    return NULL;
}
