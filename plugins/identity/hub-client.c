#include "hub-client.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <time.h>

#include "buf.h"
#include "hub-json.h"
#include "timer.h"

enum {
    ATTEMPTS = 3,
    BODY_BYTES_MAX = 8 << 20,
    PAGE_SIZE = 100,
    CONNECT_TIMEOUT_SEC = 15,
    ATTEMPT_TIMEOUT_SEC = 120,
    IDLE_CONNECTIONS_MAX = 2,
};
static const uint64_t RETRY_MIN_USEC = 1000 * 1000, RETRY_MAX_USEC = 10 * 1000 * 1000;
#define EDGE_HUB   "$edgeHub"
#define MODULE_API "api-version=2017-11-08-preview"
#define SCOPE_API  "api-version=2020-06-30-preview"

struct hub_client {
    sd_event *event;
    const struct hub_client_config *config;
    hub_token_fn *token;
    void *userdata;
    CURLM *multi;
    sd_event_source *timer;
    struct hub_request *requests; /* all that live */
    char *device_path;            /* the device id, encoded */
};

struct hub_request {
    struct hub_client *client;
    struct hub_request *next, **link;
    CURL *easy;
    bool running; /* the multi handle has it */
    sd_event_source *retry_timer;
    struct curl_slist *headers;

    const char *method;
    char *url;
    char *body;     /* holds keys */
    bool overwrite; /* If-Match: * */
    enum hub_signer signer;
    bool about_target; /* 400 and 403 speak of the identity that was asked for */
    unsigned attempts_left;
    uint64_t retry_usec;
    uint64_t deadline_usec; /* absolute; UINT64_MAX: none */

    struct buf answer;
    char error[CURL_ERROR_SIZE];
    hub_answer_fn *fn;
    void *fn_userdata;
};

/* One socket of curl's. */
struct watch {
    struct hub_client *client;
    sd_event_source *source;
};

/* Better dead than deaf. */
static int timer_new(struct hub_client *client, sd_event_time_handler_t fn, void *userdata,
                     sd_event_source **ret)
{
    int r;

    r = sd_event_add_time(client->event, ret, CLOCK_MONOTONIC, 0, 1000, fn, userdata);
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(*ret, true);
    if (r >= 0)
        r = sd_event_source_set_enabled(*ret, SD_EVENT_OFF);
    return r < 0 ? r : 0;
}

/* ---- what an answer means ---- */

static const char *const outcome_texts[] = {
    [HUB_DONE] = "done",
    [HUB_UNAUTHORIZED] = "the hub does not accept this gateway's key",
    [HUB_NOT_FOUND] = "not found, or not in the scope of this gateway",
    [HUB_REFUSED] = "the hub refuses the request",
    [HUB_UNAVAILABLE] = "the hub cannot be reached",
};

const char *hub_outcome_text(enum hub_outcome outcome)
{
    assert(outcome < ELEMENTSOF(outcome_texts));
    return outcome_texts[outcome];
}

static enum hub_outcome classify(long status, bool about_target)
{
    if (status >= 200 && status < 300)
        return HUB_DONE;
    switch (status) {
    case 401:
        return HUB_UNAUTHORIZED;
    case 404:
        return HUB_NOT_FOUND;
    case 400:
    case 403:
        return about_target ? HUB_NOT_FOUND : HUB_REFUSED;
    case 408:
    case 429:
        return HUB_UNAVAILABLE;
    default:
        return status >= 300 && status < 500 ? HUB_REFUSED : HUB_UNAVAILABLE;
    }
}

static int64_t answer_date(CURL *easy)
{
    struct curl_header *header;

    if (curl_easy_header(easy, "Date", 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
        return 0;
    return (int64_t)curl_getdate(header->value, NULL) > 0
               ? (int64_t)curl_getdate(header->value, NULL)
               : 0;
}

/* ---- a request's life ---- */

static void request_stop(struct hub_request *request)
{
    if (request->running)
        curl_multi_remove_handle(request->client->multi, request->easy);
    request->running = false;
}

static struct hub_request *request_free(struct hub_request *request)
{
    request_stop(request);
    *request->link = request->next;
    if (request->next)
        request->next->link = request->link;
    sd_event_source_disable_unref(request->retry_timer);
    curl_easy_cleanup(request->easy);
    curl_slist_free_all(request->headers);
    if (request->answer.data)
        OPENSSL_cleanse(request->answer.data, request->answer.capacity);
    buf_done(&request->answer);
    if (request->body)
        OPENSSL_cleanse(request->body, strlen(request->body));
    free(request->body);
    free(request->url);
    free(request);
    return NULL;
}

struct hub_request *hub_request_cancel(struct hub_request *request)
{
    return request ? request_free(request) : NULL;
}

static size_t request_on_body(char *data, size_t size, size_t count, void *userdata)
{
    struct hub_request *request = userdata;
    size_t len = size * count;

    if (buf_len(&request->answer) + len > BODY_BYTES_MAX)
        return 0; /* ends the transfer: CURLE_WRITE_ERROR */
    buf_append(&request->answer, data, len);
    return len;
}

static void header_add(struct hub_request *request, const char *text)
{
    struct curl_slist *longer = curl_slist_append(request->headers, text);

    assert(longer);
    request->headers = longer;
}

static void request_headers(struct hub_request *request)
{
    struct hub_client *client = request->client;
    _cleanup_(freep) char *token = client->token(request->signer, client->userdata);
    _cleanup_(freep) char *authorization = xasprintf("Authorization: %s", token);

    curl_slist_free_all(request->headers);
    request->headers = NULL;
    header_add(request, authorization);
    header_add(request, "Accept: application/json");
    header_add(request, "Expect:");
    if (request->body)
        header_add(request, "Content-Type: application/json");
    if (request->overwrite)
        header_add(request, "If-Match: *");
    curl_easy_setopt(request->easy, CURLOPT_HTTPHEADER, request->headers);
}

static long attempt_timeout_ms(const struct hub_request *request)
{
    uint64_t now = now_usec(), left_ms;

    if (request->deadline_usec == UINT64_MAX)
        return ATTEMPT_TIMEOUT_SEC * 1000L;
    left_ms = request->deadline_usec > now ? (request->deadline_usec - now) / 1000 : 0;
    return left_ms > ATTEMPT_TIMEOUT_SEC * 1000 ? ATTEMPT_TIMEOUT_SEC * 1000L : (long)left_ms + 1;
}

static void request_attempt(struct hub_request *request)
{
    request->attempts_left--;
    request->error[0] = '\0';
    buf_eat(&request->answer, buf_len(&request->answer));
    request_headers(request);
    curl_easy_setopt(request->easy, CURLOPT_TIMEOUT_MS, attempt_timeout_ms(request));
    if (curl_multi_add_handle(request->client->multi, request->easy) != CURLM_OK)
        abort();
    request->running = true;
}

static int request_on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
    request_attempt(userdata);
    return 0;
}

/* Doubled each time, and anywhere in its upper half: gateways that lost the hub together do not
 * come back together. */
static uint64_t retry_wait(struct hub_request *request)
{
    uint64_t wait = request->retry_usec, random;

    request->retry_usec = wait * 2 < RETRY_MAX_USEC ? wait * 2 : RETRY_MAX_USEC;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
        random = 0;
    return wait / 2 + random % (wait / 2 + 1);
}

static bool request_retry(struct hub_request *request)
{
    uint64_t wait;

    if (request->attempts_left == 0)
        return false;
    wait = retry_wait(request);
    if (request->deadline_usec != UINT64_MAX && now_usec() + wait >= request->deadline_usec)
        return false;
    timer_rearm(request->retry_timer, wait);
    return true;
}

static void request_on_done(struct hub_request *request, CURLcode code)
{
    struct hub_answer answer = { .outcome = HUB_UNAVAILABLE, .error = request->error };

    request_stop(request);
    if (code == CURLE_OK) {
        curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &answer.status);
        answer.outcome = classify(answer.status, request->about_target);
        answer.date_sec = answer_date(request->easy);
        answer.body = buf_span(&request->answer);
        answer.error = hub_outcome_text(answer.outcome);
    } else if (request->error[0] == '\0') {
        answer.error = curl_easy_strerror(code);
    }
    if (answer.outcome == HUB_UNAVAILABLE && request_retry(request))
        return;
    request->fn(&answer, request->fn_userdata);
    request_free(request);
}

/* ---- curl under the loop ---- */

static void client_collect(struct hub_client *client)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(client->multi, &left))) {
        struct hub_request *request;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&request);
        request_on_done(request, message->data.result);
    }
}

static int client_on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct hub_client *client = userdata;
    int running;

    curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    client_collect(client);
    return 0;
}

static int client_on_socket(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct watch *watch = userdata;
    struct hub_client *client = watch->client;
    int flags = 0, running;

    if (revents & (EPOLLIN | EPOLLHUP))
        flags |= CURL_CSELECT_IN;
    if (revents & EPOLLOUT)
        flags |= CURL_CSELECT_OUT;
    if (revents & EPOLLERR)
        flags |= CURL_CSELECT_ERR;
    curl_multi_socket_action(client->multi, fd, flags, &running); /* may end the watch */
    client_collect(client);
    return 0;
}

static int multi_on_timer(CURLM *multi, long timeout_ms, void *userdata)
{
    struct hub_client *client = userdata;

    if (!client->timer)
        return 0; /* on its way down */
    if (timeout_ms < 0)
        timer_stop(client->timer);
    else
        timer_rearm(client->timer, (uint64_t)timeout_ms * 1000);
    return 0;
}

static uint32_t events_of(int what)
{
    return (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
}

static struct watch *watch_new(struct hub_client *client, int fd)
{
    struct watch *watch = xnew(struct watch);
    int r;

    watch->client = client;
    r = sd_event_add_io(client->event, &watch->source, fd, 0, client_on_socket, watch);
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(watch->source, true);
    if (r < 0) {
        sd_event_source_disable_unref(watch->source);
        free(watch);
        return NULL;
    }
    curl_multi_assign(client->multi, fd, watch);
    return watch;
}

static int multi_on_socket(CURL *easy, curl_socket_t fd, int what, void *userdata,
                           void *socket_userdata)
{
    struct hub_client *client = userdata;
    struct watch *watch = socket_userdata;

    if (what == CURL_POLL_REMOVE) {
        if (watch)
            sd_event_source_disable_unref(watch->source);
        free(watch);
        return 0;
    }
    if (!watch)
        watch = watch_new(client, fd);
    if (!watch)
        return -1;
    return sd_event_source_set_io_events(watch->source, events_of(what)) < 0 ? -1 : 0;
}

/* ---- the client's life ---- */

int hub_client_new(sd_event *event, const struct hub_client_config *config, hub_token_fn *token,
                   void *userdata, struct hub_client **ret)
{
    _cleanup_(hub_client_freep) struct hub_client *client = NULL;
    int r;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return -ENOMEM;
    client = xnew(struct hub_client);
    client->event = sd_event_ref(event);
    client->config = config;
    client->token = token;
    client->userdata = userdata;
    client->device_path = percent_encode(span_str(config->device_id));
    client->multi = curl_multi_init();
    if (!client->multi)
        return -ENOMEM;
    r = timer_new(client, client_on_timeout, client, &client->timer);
    if (r < 0)
        return r;
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, multi_on_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, multi_on_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)IDLE_CONNECTIONS_MAX);
    *ret = TAKE_PTR(client);
    return 0;
}

struct hub_client *hub_client_free(struct hub_client *client)
{
    if (!client)
        return NULL;
    client->timer = sd_event_source_disable_unref(client->timer);
    while (client->requests)
        request_free(client->requests);
    curl_multi_cleanup(client->multi);
    free(client->device_path);
    sd_event_unref(client->event);
    free(client);
    curl_global_cleanup();
    return NULL;
}

static void request_options(struct hub_request *request)
{
    const struct hub_client_config *config = request->client->config;
    CURL *easy = request->easy;

    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->error);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, request_on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* Else the loop would stand still until the name server has answered curl's resolver thread. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR,
                     strncmp(config->base_url, "https:", 6) == 0 ? "https" : "http");
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_SEC);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "brink/" BRINK_VERSION);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    if (config->ca_file) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL); /* only those */
    }
    if (request->body)
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
}

/* Fills in what is common, and starts. */
static struct hub_request *request_start(struct hub_client *client,
                                         const struct hub_request *wanted)
{
    struct hub_request *request = xmemdup(wanted, sizeof(*wanted));
    int r;

    request->client = client;
    request->attempts_left = ATTEMPTS;
    request->retry_usec =
        client->config->retry_min_usec ? client->config->retry_min_usec : RETRY_MIN_USEC;
    request->next = client->requests;
    request->link = &client->requests;
    if (request->next)
        request->next->link = &request->next;
    client->requests = request;

    r = timer_new(client, request_on_retry, request, &request->retry_timer);
    assert(r >= 0);
    request->easy = curl_easy_init();
    assert(request->easy);
    request_options(request);
    request_attempt(request);
    return request;
}

/* ---- the calls ---- */

static char *module_url(const struct hub_client *client, const char *module_id)
{
    _cleanup_(freep) char *module_path = percent_encode(span_str(module_id));

    return xasprintf("%s/devices/%s/modules/%s?" MODULE_API, client->config->base_url,
                     client->device_path, module_path);
}

static char *scope_url(const struct hub_client *client, const char *call)
{
    return xasprintf("%s/devices/%s/modules/" EDGE_HUB "/%s?" SCOPE_API, client->config->base_url,
                     client->device_path, call);
}

struct hub_request *hub_client_module_get(struct hub_client *client, const char *module_id,
                                          hub_answer_fn *fn, void *userdata)
{
    return request_start(client, &(struct hub_request){
                                     .method = "GET",
                                     .url = module_url(client, module_id),
                                     .signer = HUB_SIGNER_DEVICE,
                                     .deadline_usec = UINT64_MAX,
                                     .fn = fn,
                                     .fn_userdata = userdata,
                                 });
}

struct hub_request *hub_client_module_put_keys(struct hub_client *client, const char *module_id,
                                               const char *managed_by,
                                               const struct sas_key *primary,
                                               const struct sas_key *secondary, hub_answer_fn *fn,
                                               void *userdata)
{
    const char *device_id = client->config->device_id;

    return request_start(client, &(struct hub_request){
                                     .method = "PUT",
                                     .url = module_url(client, module_id),
                                     .body = hub_json_module_keys(device_id, module_id, managed_by,
                                                                  primary, secondary),
                                     .overwrite = true,
                                     .signer = HUB_SIGNER_DEVICE,
                                     .deadline_usec = UINT64_MAX,
                                     .fn = fn,
                                     .fn_userdata = userdata,
                                 });
}

struct hub_request *hub_client_scope_list(struct hub_client *client, const char *auth_chain,
                                          const char *continuation, hub_answer_fn *fn,
                                          void *userdata)
{
    return request_start(client,
                         &(struct hub_request){
                             .method = "POST",
                             .url = scope_url(client, "devicesAndModulesInTargetDeviceScope"),
                             .body = hub_json_scope_listing(PAGE_SIZE, continuation, auth_chain),
                             .signer = HUB_SIGNER_EDGE_HUB,
                             .deadline_usec = UINT64_MAX,
                             .fn = fn,
                             .fn_userdata = userdata,
                         });
}

struct hub_request *hub_client_scope_lookup(struct hub_client *client, const char *device_id,
                                            const char *module_id, uint64_t deadline_usec,
                                            hub_answer_fn *fn, void *userdata)
{
    return request_start(
        client, &(struct hub_request){
                    .method = "POST",
                    .url = scope_url(client, "getDeviceAndModuleOnBehalfOf"),
                    .body = hub_json_scope_lookup(device_id, module_id, client->config->device_id),
                    .signer = HUB_SIGNER_EDGE_HUB,
                    .about_target = true,
                    .deadline_usec = now_usec() + deadline_usec,
                    .fn = fn,
                    .fn_userdata = userdata,
                });
}
