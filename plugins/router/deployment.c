/* May lose nothing: what is in force is in the file, or in the store. */
#include "deployment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"

#define RECORD_KEY  "router/routes"
#define FILE_EVENTS (IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE)

static const uint64_t RETRY_USEC = 1000 * 1000;

struct deployment {
    struct plugin *plugin;
    char *file;      /* "": none */
    struct buf text; /* what was read of it last */
    int read_result; /* 0, or why it could not be read; 1: it was not tried */
    sd_event_source *watch;

    struct route_config config; /* .routes NULL: none are known */
    char *source;

    struct route_problems problems; /* of what was refused since */

    struct bus_peer *store;
    struct bus_request *request; /* to put the record, or to get it */
    struct buf record;           /* what is to be put */
    bool unsaved;                /* and is not on its way */
    bool wants_record;           /* none are known: the last good ones are asked for */
    struct bus_request *quota_request;
    bool quota_untold;
    sd_event_source *retry_timer;
};

/* ---- in force, and refused ---- */

static void deployment_tell(struct deployment *d)
{
    if (!d->config.routes)
        plugin_status(d->plugin, "no routes: %s", deployment_reason(d));
    else if (d->problems.count > 0)
        plugin_status(d->plugin, "routes of before; %s refused: %s", d->file, d->problems.texts[0]);
    else
        plugin_status(d->plugin, "routes: %zu", routes_count(d->config.routes));
}

static void deployment_sync(struct deployment *d);

static void deployment_put_in_force_take(struct deployment *d, struct route_config config,
                                         const char *source)
{
    route_config_done(&d->config);
    d->config = config;
    free(d->source);
    d->source = xstrdup(source);
    d->quota_untold = true;
    d->wants_record = false;
    log_event(LOG_INFO, 0, "routes in force", F_STR("source", source),
              F_COUNT(routes_count(config.routes)), F_NUM("version", config.version));
    if (config.ttl_sec == 0 && routes_count(config.routes) > 0)
        log_event(
            LOG_WARNING, 0,
            "timeToLiveSecs is 0: a message of a route that says no time of its own is expired "
            "when it is stored",
            F_STR("source", source));
}

static void deployment_refuse_take(struct deployment *d, struct route_problems problems)
{
    for (size_t i = 0; i < problems.count; i++)
        log_event(LOG_ERR, 0,
                  d->config.routes ? "routes refused, those of before stay in force"
                                   : "routes refused",
                  F_PATH(d->file), F_REASON(problems.texts[i]));
    d->problems = problems;
    d->wants_record = !d->config.routes;
}

static void deployment_read(struct deployment *d, struct span json)
{
    struct route_problems problems = {};
    struct route_config config;

    if (route_config_parse(json, &config, &problems) != 0) {
        deployment_refuse_take(d, problems);
        return;
    }
    deployment_put_in_force_take(d, config, d->file);
    buf_done(&d->record);
    buf_append_span(&d->record, json);
    d->unsaved = true;
}

/* ---- the file ---- */

static int read_whole(const char *path, struct buf *out)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -errno;
    do {
        n = read(fd, buf_reserve(out, 4096), 4096);
        if (n < 0)
            return -errno;
        buf_commit(out, (size_t)n);
    } while (n > 0 && buf_len(out) <= DEPLOYMENT_FILE_BYTES_MAX);
    return 0;
}

static struct route_problems problem_of(int error)
{
    struct route_problems problems = { .texts = xnew_n(char *, 1), .count = 1, .capacity = 1 };

    problems.texts[0] = xasprintf("cannot be read: %s", strerror(-error));
    return problems;
}

static void deployment_look(struct deployment *d)
{
    _cleanup_(buf_done) struct buf text = {};
    int r = read_whole(d->file, &text);

    if (r == d->read_result && (r < 0 || span_equal(buf_span(&text), buf_span(&d->text))))
        return; /* it was another file of the folder */
    d->read_result = r;
    buf_done(&d->text);
    buf_append_span(&d->text, buf_span(&text));
    route_problems_done(&d->problems);
    if (r < 0)
        deployment_refuse_take(d, problem_of(r));
    else
        deployment_read(d, buf_span(&text));
    deployment_sync(d);
}

/* A file that was only just made has nothing in it yet, and is looked at when it is closed; a link is
 * there at once. */
static bool event_is_premature(const struct deployment *d, const struct inotify_event *event)
{
    struct stat st;

    return event->mask & IN_CREATE &&
           (lstat(d->file, &st) < 0 || (S_ISREG(st.st_mode) && st.st_nlink == 1));
}

/* Whatever changed in its folder: it may be a link into another. */
static int deployment_on_file(sd_event_source *source, const struct inotify_event *event,
                              void *userdata)
{
    if (!event_is_premature(userdata, event))
        deployment_look(userdata);
    return 0;
}

static int deployment_watch(struct deployment *d)
{
    const char *slash = strrchr(d->file, '/');
    _cleanup_(freep) char *folder =
        slash ? span_xdup(span_of(d->file, (size_t)(slash - d->file) + 1)) : xstrdup(".");
    int r = plugin_add_inotify(d->plugin, folder, FILE_EVENTS, deployment_on_file, d, &d->watch);

    if (r < 0)
        log_event(LOG_ERR, r, "cannot watch for new routes: a change of them wants a restart",
                  F_PATH(folder));
    return 0;
}

/* ---- the store ---- */

static void deployment_on_put(const Bus__Envelope *answer, void *userdata)
{
    struct deployment *d = userdata;

    d->request = NULL;
    if (answer && answer->status == STATUS_DONE) {
        deployment_sync(d);
        return;
    }
    d->unsaved = true;
    timer_rearm(d->retry_timer, RETRY_USEC);
}

static int deployment_put(struct deployment *d)
{
    Bus__RecordPut put = BUS__RECORD_PUT__INIT;
    Bus__Envelope request = ENVELOPE(RECORD_PUT, record_put, &put);
    struct span record = buf_span(&d->record);
    int r;

    put.key = (char *)RECORD_KEY;
    put.value = (ProtobufCBinaryData){ record.len, (uint8_t *)record.at };
    r = bus_request(d->store, &request, BUS_FOREVER, deployment_on_put, d, &d->request);
    d->unsaved = r != 0;
    return r;
}

/* If the file has become good meanwhile, they are of no interest. */
static void deployment_take_record(struct deployment *d, const Bus__Record *record)
{
    struct route_problems problems = {};
    struct route_config config;

    if (!d->wants_record)
        return;
    if (route_config_parse(span_of(record->value.data, record->value.len), &config, &problems) == 0)
        deployment_put_in_force_take(d, config, "store");
    else
        log_event(LOG_ERR, 0, "the last good routes are none", F_REASON(problems.texts[0]));
    route_problems_done(&problems);
    d->wants_record = false;
}

static void deployment_on_got(const Bus__Envelope *answer, void *userdata)
{
    struct deployment *d = userdata;

    d->request = NULL;
    if (answer && answer->body_case == BUS__ENVELOPE__BODY_RECORDS &&
        answer->records->n_records > 0) {
        deployment_take_record(d, answer->records->records[0]);
    } else if (answer && (answer->status == STATUS_DONE || answer->status == STATUS_NOT_FOUND)) {
        d->wants_record = false; /* there never were any */
    } else {
        timer_rearm(d->retry_timer, RETRY_USEC);
        return;
    }
    deployment_sync(d);
}

static int deployment_get(struct deployment *d)
{
    Bus__RecordGet get = BUS__RECORD_GET__INIT;
    Bus__Envelope request = ENVELOPE(RECORD_GET, record_get, &get);

    get.key = (char *)RECORD_KEY;
    return bus_request(d->store, &request, BUS_FOREVER, deployment_on_got, d, &d->request);
}

static void deployment_on_quota(const Bus__Envelope *answer, void *userdata)
{
    struct deployment *d = userdata;

    d->quota_request = NULL;
    if (!answer || answer->status != STATUS_DONE) {
        d->quota_untold = true;
        timer_rearm(d->retry_timer, RETRY_USEC);
    } else {
        deployment_sync(d); /* there may be another by now */
    }
}

static int deployment_tell_quota(struct deployment *d)
{
    Bus__QuotaSet quota = BUS__QUOTA_SET__INIT;
    Bus__Envelope request = ENVELOPE(QUOTA_SET, quota_set, &quota);
    int r;

    quota.max_bytes = d->config.max_bytes;
    r = bus_request(d->store, &request, BUS_FOREVER, deployment_on_quota, d, &d->quota_request);
    d->quota_untold = r != 0;
    return r;
}

/* What the store is to know, or to tell, and is not asked for yet. */
static void deployment_sync(struct deployment *d)
{
    int r = 0;

    deployment_tell(d);
    if (!d->request && d->unsaved)
        r = deployment_put(d);
    else if (!d->request && d->wants_record)
        r = deployment_get(d);
    if (r == 0 && !d->quota_request && d->quota_untold)
        r = deployment_tell_quota(d);
    if (r != 0)
        timer_rearm(d->retry_timer, RETRY_USEC);
}

static int deployment_on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
    deployment_sync(userdata);
    return 0;
}

/* The store came (back): it may be another one, which was not told. */
static void deployment_on_store(const Bus__Envelope *in, void *userdata)
{
    struct deployment *d = userdata;

    if (in)
        return;
    d->quota_untold = d->config.routes != NULL;
    deployment_sync(d);
}

/* ---- what others see ---- */

struct routes *deployment_routes(const struct deployment *d)
{
    return d->config.routes;
}

const char *deployment_reason(const struct deployment *d)
{
    return d->problems.count > 0 ? d->problems.texts[0] : "they are not read yet";
}

static Bus__Route *route_fill(const struct route *route, struct arena *arena)
{
    Bus__Route *ret = arena_alloc(arena, sizeof(*ret));

    bus__route__init(ret);
    ret->name = (char *)route->name;
    ret->text = (char *)route->text;
    ret->queue = (char *)route->endpoint.queue;
    ret->priority = route->priority;
    ret->ttl_sec = route->ttl_sec;
    return ret;
}

void deployment_fill(const struct deployment *d, struct arena *arena, Bus__Routes *ret)
{
    size_t count = d->config.routes ? routes_count(d->config.routes) : 0;

    ret->routes = arena_alloc(arena, (count + 1) * sizeof(ret->routes[0]));
    for (; ret->n_routes < count; ret->n_routes++)
        ret->routes[ret->n_routes] = route_fill(routes_get(d->config.routes, ret->n_routes), arena);
    ret->source = d->source ?: (char *)"";
    ret->version = d->config.version;
    if (d->problems.count > 0)
        ret->refused = d->file;
    ret->problems = d->problems.texts;
    ret->n_problems = d->problems.count;
}

int deployment_check_file(const char *file, char **ret_problem)
{
    _cleanup_(buf_done) struct buf text = {};
    struct route_problems problems = {};
    struct route_config config;
    int r = read_whole(file, &text);

    if (r < 0)
        problems = problem_of(r);
    else if (route_config_parse(buf_span(&text), &config, &problems) == 0)
        route_config_done(&config);
    if (problems.count == 0)
        return 0;
    *ret_problem = xstrdup(problems.texts[0]);
    route_problems_done(&problems);
    return ROUTE_E_INVALID;
}

/* ---- life ---- */

static int deployment_start(struct deployment *d)
{
    int r;

    r = plugin_add_timer(d->plugin, 0, deployment_on_retry, d, &d->retry_timer);
    if (r < 0)
        return r;
    r = timer_stop(d->retry_timer);
    if (r < 0)
        return r;
    r = bus_subscribe(plugin_bus(d->plugin), "store", deployment_on_store, d);
    if (r < 0)
        return r;
    if (!*d->file) {
        deployment_put_in_force_take(
            d, (struct route_config){ .routes = routes_new_default(), .ttl_sec = -1 }, "default");
        deployment_sync(d);
        return 0;
    }
    r = deployment_watch(d);
    if (r < 0)
        return r;
    deployment_look(d);
    return 0;
}

int deployment_new(struct plugin *plugin, const char *file, struct deployment **ret)
{
    _cleanup_(deployment_freep) struct deployment *d = xnew(struct deployment);
    int r;

    d->plugin = plugin;
    d->file = xstrdup(file);
    d->read_result = 1;
    d->store = bus_peer(plugin_bus(plugin), "store");
    r = deployment_start(d);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(d);
    return 0;
}

struct deployment *deployment_free(struct deployment *d)
{
    if (!d)
        return NULL;
    sd_event_source_disable_unref(d->watch);
    sd_event_source_disable_unref(d->retry_timer);
    bus_request_cancel(d->request);
    bus_request_cancel(d->quota_request);
    route_config_done(&d->config);
    route_problems_done(&d->problems);
    buf_done(&d->text);
    buf_done(&d->record);
    free(d->source);
    free(d->file);
    free(d);
    return NULL;
}
