#include "cbs.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/queue.h>

#include "amqp-codec.h"
#include "amqp-message.h"
#include "message.h"

enum { CBS_CREDIT = 100, CBS_ANSWER_BYTES_MAX = 65536 };

#define TOKEN_TYPE "servicebus.windows.net:sastoken"

struct cbs_request {
    TAILQ_ENTRY(cbs_request) link;
    struct cbs *cbs;
    char id[21];        /* message-id: decimal */
    struct buf message; /* empty once it is sent */
    cbs_answer_fn *fn;
    void *userdata;
};
TAILQ_HEAD(request_list, cbs_request);

struct cbs {
    pn_session_t *session;
    pn_link_t *sender, *receiver;
    uint64_t last_id;
    struct request_list waiting; /* for credit */
    struct request_list sent;
    unsigned open;
    struct arena *arena;
    struct buf answer;
};

struct cbs *cbs_new(pn_connection_t *connection)
{
    struct cbs *cbs = xnew(struct cbs);

    TAILQ_INIT(&cbs->waiting);
    TAILQ_INIT(&cbs->sent);
    cbs->arena = arena_new();
    cbs->session = pn_session(connection);
    pn_session_open(cbs->session);
    cbs->sender = pn_sender(cbs->session, "cbs-sender");
    pn_terminus_set_address(pn_link_source(cbs->sender), "$cbs");
    pn_terminus_set_address(pn_link_target(cbs->sender), "$cbs");
    pn_link_open(cbs->sender);
    cbs->receiver = pn_receiver(cbs->session, "cbs-receiver");
    pn_terminus_set_address(pn_link_source(cbs->receiver), "$cbs");
    pn_terminus_set_address(pn_link_target(cbs->receiver), "cbs");
    pn_link_open(cbs->receiver);
    pn_link_flow(cbs->receiver, CBS_CREDIT);
    return cbs;
}

static void request_free(struct cbs_request *request)
{
    struct cbs *cbs = request->cbs;

    TAILQ_REMOVE(buf_len(&request->message) > 0 ? &cbs->waiting : &cbs->sent, request, link);
    cbs->open--;
    buf_done(&request->message);
    free(request);
}

static void list_free(struct request_list *list)
{
    struct cbs_request *request;

    while ((request = TAILQ_FIRST(list)))
        request_free(request);
}

struct cbs *cbs_free(struct cbs *cbs)
{
    if (!cbs)
        return NULL;
    list_free(&cbs->waiting);
    list_free(&cbs->sent);
    arena_free(cbs->arena);
    buf_done(&cbs->answer);
    free(cbs);
    return NULL;
}

/* ---- Requests ---- */

static void put_pair(struct buf *out, struct span name, struct span value)
{
    amqp_put_string(out, name);
    amqp_put_string(out, value);
}

static void encode(struct buf *out, struct span id, struct span name, struct span token)
{
    static const struct span to = SPAN("$cbs"), reply_to = SPAN("cbs");
    static const struct span operation = SPAN("operation"), put_token = SPAN("put-token");
    static const struct span type = SPAN("type"), sas = SPAN(TOKEN_TYPE), key = SPAN("name");
    struct buf pairs = {};

    amqp_put_descriptor(out,
                        AMQP_SECTION_PROPERTIES); /* message-id, user-id, to, subject, reply-to */
    amqp_put_list(out, 5,
                  amqp_variable_size(id.len) + amqp_variable_size(to.len) +
                      amqp_variable_size(reply_to.len) + 2);
    amqp_put_string(out, id);
    amqp_put_null(out);
    amqp_put_string(out, to);
    amqp_put_null(out);
    amqp_put_string(out, reply_to);

    put_pair(&pairs, operation, put_token);
    put_pair(&pairs, type, sas);
    put_pair(&pairs, key, name);
    amqp_put_descriptor(out, AMQP_SECTION_APPLICATION_PROPERTIES);
    amqp_put_map(out, 6, buf_len(&pairs));
    buf_append_span(out, buf_span(&pairs));
    buf_done(&pairs);

    amqp_put_descriptor(out, AMQP_SECTION_VALUE);
    amqp_put_string(out, token);
}

static void request_send(struct cbs_request *request)
{
    struct cbs *cbs = request->cbs;
    struct span message = buf_span(&request->message);

    pn_delivery(cbs->sender, pn_dtag(request->id, strlen(request->id)));
    pn_link_send(cbs->sender, message.at, message.len);
    pn_link_advance(cbs->sender);
    TAILQ_REMOVE(&cbs->waiting, request, link);
    TAILQ_INSERT_TAIL(&cbs->sent, request, link);
    buf_done(&request->message);
}

static void cbs_send(struct cbs *cbs)
{
    while (!TAILQ_EMPTY(&cbs->waiting) && pn_link_credit(cbs->sender) > 0)
        request_send(TAILQ_FIRST(&cbs->waiting));
}

struct cbs_request *cbs_put(struct cbs *cbs, const char *name, const char *token, cbs_answer_fn *fn,
                            void *userdata)
{
    struct cbs_request *request = xnew(struct cbs_request);

    request->cbs = cbs;
    request->fn = fn;
    request->userdata = userdata;
    snprintf(request->id, sizeof(request->id), "%" PRIu64, ++cbs->last_id);
    encode(&request->message, span_str(request->id), span_str(name), span_str(token));
    TAILQ_INSERT_TAIL(&cbs->waiting, request, link);
    cbs->open++;
    cbs_send(cbs);
    return request;
}

struct cbs_request *cbs_cancel(struct cbs_request *request)
{
    if (request)
        request_free(request);
    return NULL;
}

unsigned cbs_open_requests(const struct cbs *cbs)
{
    return cbs->open;
}

/* ---- Answers ---- */

static struct cbs_request *request_find(struct cbs *cbs, struct span id)
{
    struct cbs_request *request;

    TAILQ_FOREACH(request, &cbs->sent, link)
    if (span_equal(span_str(request->id), id))
        return request;
    return NULL;
}

static void request_answer(struct cbs_request *request, int status, const char *description)
{
    cbs_answer_fn *fn = request->fn;
    void *userdata = request->userdata;

    request_free(request);
    fn(status, description, userdata);
}

static const char *application_property(const Bus__Message *m, const char *name)
{
    for (size_t n = 0; n < m->n_application; n++)
        if (strcmp(m->application[n]->name, name) == 0)
            return m->application[n]->value;
    return NULL;
}

/* An answer that cannot be read, or is to nothing that we asked, is left: the request's time runs out. */
static void cbs_answer(struct cbs *cbs, struct span encoded)
{
    const char *expected, *id, *status, *description;
    struct cbs_request *request;
    Bus__Message *m;

    arena_reset(cbs->arena);
    if (amqp_message_decode(encoded, cbs->arena, &m, &expected) != 0)
        return;
    id = message_system(m, MESSAGE_CORRELATION_ID);
    status = application_property(m, "status-code");
    description = application_property(m, "status-description");
    request = request_find(cbs, span_str(id));
    if (request && status)
        request_answer(request, atoi(status), description ? description : "");
}

static void cbs_receive(struct cbs *cbs, pn_delivery_t *delivery)
{
    size_t pending = pn_delivery_pending(delivery);
    ssize_t n;

    if (buf_len(&cbs->answer) + pending <= CBS_ANSWER_BYTES_MAX) {
        n = pn_link_recv(cbs->receiver, buf_reserve(&cbs->answer, pending), pending);
        if (n > 0)
            buf_commit(&cbs->answer, (size_t)n);
    }
    if (pn_delivery_partial(delivery))
        return;
    pn_delivery_update(delivery, PN_ACCEPTED);
    pn_delivery_settle(delivery);
    pn_link_flow(cbs->receiver, 1);
    cbs_answer(cbs, buf_span(&cbs->answer));
    buf_done(&cbs->answer);
}

static const char *condition_text(pn_condition_t *condition)
{
    const char *name = pn_condition_get_name(condition),
               *description = pn_condition_get_description(condition);

    return description ? description : name ? name : "";
}

/* What becomes of a request's transfer: accepted, and its answer follows; or the hub does not take it. */
static void cbs_disposition(struct cbs *cbs, pn_delivery_t *delivery)
{
    pn_delivery_tag_t tag = pn_delivery_tag(delivery);
    uint64_t state = pn_delivery_remote_state(delivery);
    struct cbs_request *request;

    if (!pn_delivery_updated(delivery))
        return;
    request = request_find(cbs, span_of(tag.start, tag.size)); /* NULL: answered or cancelled */
    if (request && state != PN_ACCEPTED && state != 0)
        request_answer(request, 0,
                       condition_text(pn_disposition_condition(pn_delivery_remote(delivery))));
    pn_delivery_settle(delivery);
}

static bool event_is_ours(const struct cbs *cbs, pn_event_t *event)
{
    pn_link_t *link = pn_event_link(event);

    if (link)
        return link == cbs->sender || link == cbs->receiver;
    return pn_event_session(event) == cbs->session;
}

bool cbs_take_event(struct cbs *cbs, pn_event_t *event, const char **ret_broken)
{
    if (!event_is_ours(cbs, event))
        return false;
    switch (pn_event_type(event)) {
    case PN_LINK_FLOW:
        cbs_send(cbs);
        break;
    case PN_DELIVERY:
        if (pn_event_link(event) == cbs->receiver)
            cbs_receive(cbs, pn_event_delivery(event));
        else
            cbs_disposition(cbs, pn_event_delivery(event));
        break;
    case PN_LINK_REMOTE_CLOSE:
    case PN_LINK_REMOTE_DETACH:
        *ret_broken = condition_text(pn_link_remote_condition(pn_event_link(event)));
        break;
    case PN_SESSION_REMOTE_CLOSE:
        *ret_broken = condition_text(pn_session_remote_condition(cbs->session));
        break;
    default:
        break;
    }
    return true;
}
