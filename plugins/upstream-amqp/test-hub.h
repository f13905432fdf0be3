/* For tests: a hub that does what it is told. It takes any token, and settles at once unless it is to hold, to refuse, or to
 * hang up. */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "amqp-codec.h"
#include "amqp-driver.h"
#include "amqp-message.h"
#include "message.h"
#include "test-authority.h"

enum { HUB_IDENTITIES_MAX = 64, HUB_TEXT = 8192 };

struct hub_identity {
    char name[128];
    const char *refuse_link; /* condition; NULL: taken */
    int refuse_token;        /* status-code; 0: taken */
    const char *reject_body; /* such a message is rejected */
    const char *reject_with; /* with this condition; NULL: released */
    unsigned reject_count;   /* so often */
    char auth_chain[128];
    unsigned attached, tokens;
    unsigned received;     /* accepted or held */
    char bodies[HUB_TEXT]; /* of what was accepted, joined by blanks */
    pn_link_t *link;
};

struct hub {
    sd_event *event;
    SSL_CTX *context;
    int listener;
    uint16_t port;
    sd_event_source *accept;
    struct amqp_driver *driver;
    bool refuse_connections;
    bool hold;           /* nothing is settled */
    unsigned settle_max; /* then it holds; 0: no limit */
    unsigned credit;
    unsigned connections, settled, ended_sessions;
    pn_link_t *cbs_sender;
    struct hub_identity identities[HUB_IDENTITIES_MAX];
    unsigned identity_count;
    char last_token[256];
    char order[1024]; /* of tokens and links: "t:NAME l:NAME …" */
    char hostname[128];
    bool closed_orderly;
    struct arena *arena;
};

static inline struct hub_identity *hub_identity(struct hub *hub, const char *name)
{
    struct hub_identity *i;

    for (unsigned n = 0; n < hub->identity_count; n++)
        if (strcmp(hub->identities[n].name, name) == 0)
            return &hub->identities[n];
    assert_true(hub->identity_count < HUB_IDENTITIES_MAX);
    i = &hub->identities[hub->identity_count++];
    snprintf(i->name, sizeof(i->name), "%s", name);
    return i;
}

static inline void hub_note(struct hub *hub, char what, const char *name)
{
    size_t len = strlen(hub->order);

    snprintf(hub->order + len, sizeof(hub->order) - len, "%s%c:%s", len ? " " : "", what, name);
}

/* "devices/D[/modules/M]…" after a host; the ids of these tests need no more decoding than that of '$'. */
static inline void hub_name_of(const char *resource, char *ret, size_t size)
{
    const char *device = strstr(resource, "/devices/");
    const char *module = strstr(resource, "/modules/");
    int device_len, module_len;

    assert_non_null(device);
    device += strlen("/devices/");
    device_len = (int)strcspn(device, "/");
    if (!module) {
        snprintf(ret, size, "%.*s", device_len, device);
        return;
    }
    module += strlen("/modules/");
    module_len = (int)strcspn(module, "/");
    if (strncmp(module, "%24", 3) == 0)
        snprintf(ret, size, "%.*s/$%.*s", device_len, device, module_len - 3, module + 3);
    else
        snprintf(ret, size, "%.*s/%.*s", device_len, device, module_len, module);
}

/* ---- CBS ---- */

static inline const char *hub_property(const Bus__Message *m, const char *name)
{
    for (size_t n = 0; n < m->n_application; n++)
        if (strcmp(m->application[n]->name, name) == 0)
            return m->application[n]->value;
    return NULL;
}

static inline void hub_answer_token(struct hub *hub, const char *id, int status)
{
    struct buf out = {}, pairs = {};

    amqp_put_descriptor(&out, AMQP_SECTION_PROPERTIES);
    amqp_put_list(&out, 6, 5 + amqp_variable_size(strlen(id)));
    for (unsigned n = 0; n < 5; n++)
        amqp_put_null(&out);
    amqp_put_string(&out, span_str(id));
    amqp_put_string(&pairs, SPAN("status-code"));
    buf_append_byte(&pairs, 0x71);
    buf_append_be32(&pairs, (uint32_t)status);
    amqp_put_string(&pairs, SPAN("status-description"));
    amqp_put_string(&pairs, status == 200 ? SPAN("OK") : SPAN("as the test wants it"));
    amqp_put_descriptor(&out, AMQP_SECTION_APPLICATION_PROPERTIES);
    amqp_put_map(&out, 4, buf_len(&pairs));
    buf_append_span(&out, buf_span(&pairs));
    pn_delivery(hub->cbs_sender, pn_dtag(id, strlen(id)));
    pn_link_send(hub->cbs_sender, buf_span(&out).at, buf_len(&out));
    pn_delivery_settle(pn_link_current(hub->cbs_sender));
    buf_done(&out);
    buf_done(&pairs);
}

static inline void hub_on_token(struct hub *hub, const Bus__Message *m)
{
    struct hub_identity *i;
    char name[128];

    assert_string_equal(hub_property(m, "operation"), "put-token");
    assert_string_equal(hub_property(m, "type"), "servicebus.windows.net:sastoken");
    hub_name_of(hub_property(m, "name"), name, sizeof(name));
    i = hub_identity(hub, name);
    i->tokens++;
    hub_note(hub, 't', name);
    snprintf(hub->last_token, sizeof(hub->last_token), "%.*s", (int)m->body.len,
             (const char *)m->body.data);
    hub_answer_token(hub, message_system(m, MESSAGE_ID), i->refuse_token ? i->refuse_token : 200);
}

/* ---- Links ---- */

static inline void hub_read_auth_chain(struct hub_identity *i, pn_link_t *link)
{
    pn_data_t *data = pn_link_remote_properties(link);

    pn_data_rewind(data);
    assert_true(pn_data_next(data) && pn_data_type(data) == PN_MAP);
    pn_data_enter(data);
    i->auth_chain[0] = '\0';
    while (pn_data_next(data)) {
        pn_bytes_t key = pn_data_get_symbol(data), value;

        assert_true(pn_data_next(data));
        value = pn_data_get_string(data);
        if (span_equal(span_of(key.start, key.size), SPAN("com.microsoft:auth-chain")))
            snprintf(i->auth_chain, sizeof(i->auth_chain), "%.*s", (int)value.size, value.start);
    }
}

static inline void hub_refuse_link(pn_link_t *link, const char *condition)
{
    pn_link_open(link); /* without a target */
    pn_condition_set_name(pn_link_condition(link), condition);
    pn_link_close(link);
}

static inline void hub_on_link(struct hub *hub, pn_link_t *link)
{
    const char *address = pn_terminus_get_address(pn_link_remote_target(link));
    struct hub_identity *i;
    char name[128];

    if (pn_link_is_sender(link) || strcmp(address, "$cbs") == 0) {
        pn_terminus_copy(pn_link_source(link), pn_link_remote_source(link));
        pn_terminus_copy(pn_link_target(link), pn_link_remote_target(link));
        pn_link_open(link);
        if (pn_link_is_receiver(link))
            pn_link_flow(link, 100);
        else
            hub->cbs_sender = link;
        return;
    }
    hub_name_of(address, name, sizeof(name));
    assert_non_null(strstr(address, "/messages/events"));
    i = hub_identity(hub, name);
    hub_note(hub, 'l', name);
    if (i->refuse_link) {
        hub_refuse_link(link, i->refuse_link);
        return;
    }
    hub_read_auth_chain(i, link);
    pn_terminus_copy(pn_link_source(link), pn_link_remote_source(link));
    pn_terminus_copy(pn_link_target(link), pn_link_remote_target(link));
    pn_link_set_max_message_size(link, 1048576);
    pn_link_set_context(link, i);
    pn_link_open(link);
    pn_link_flow(link, (int)hub->credit);
    i->link = link;
    i->attached++;
}

/* ---- Messages ---- */

static inline void hub_accept(struct hub *hub, struct hub_identity *i, const Bus__Message *m,
                              pn_delivery_t *delivery)
{
    size_t len = strlen(i->bodies);

    i->received++;
    if (hub->hold || (hub->settle_max > 0 && hub->settled >= hub->settle_max))
        return;
    snprintf(i->bodies + len, sizeof(i->bodies) - len, "%s%.*s", len ? " " : "", (int)m->body.len,
             (const char *)m->body.data);
    hub->settled++;
    pn_delivery_update(delivery, PN_ACCEPTED);
    pn_delivery_settle(delivery);
    pn_link_flow(i->link, 1);
}

static inline void hub_reject(struct hub_identity *i, pn_delivery_t *delivery)
{
    i->reject_count--;
    if (i->reject_with)
        pn_condition_set_name(pn_disposition_condition(pn_delivery_local(delivery)),
                              i->reject_with);
    pn_delivery_update(delivery, i->reject_with ? PN_REJECTED : PN_RELEASED);
    pn_delivery_settle(delivery);
    pn_link_flow(i->link, 1);
}

static inline void hub_on_message(struct hub *hub, struct hub_identity *i, const Bus__Message *m,
                                  pn_delivery_t *delivery)
{
    if (i->reject_count > 0 &&
        span_equal(span_of(m->body.data, m->body.len), span_str(i->reject_body)))
        hub_reject(i, delivery);
    else
        hub_accept(hub, i, m, delivery);
}

static inline void hub_on_delivery(struct hub *hub, pn_delivery_t *delivery)
{
    pn_link_t *link = pn_delivery_link(delivery);
    char bytes[65536];
    const char *expected;
    Bus__Message *m;
    ssize_t n;

    if (pn_link_is_sender(link) || pn_delivery_partial(delivery) ||
        pn_link_current(link) != delivery)
        return; /* settled ones are reported again */
    n = pn_link_recv(link, bytes, sizeof(bytes));
    assert_true(n > 0);
    pn_link_advance(link);
    arena_reset(hub->arena);
    assert_int_equal(amqp_message_decode(span_of(bytes, (size_t)n), hub->arena, &m, &expected), 0);
    if (pn_link_get_context(link)) {
        hub_on_message(hub, pn_link_get_context(link), m, delivery);
        return;
    }
    pn_delivery_update(delivery, PN_ACCEPTED);
    pn_delivery_settle(delivery);
    pn_link_flow(link, 1);
    amqp_driver_flush(hub->driver);
    hub_on_token(hub, m);
}

static inline void hub_on_event(struct amqp_driver *driver, pn_event_t *event, void *userdata)
{
    struct hub *hub = userdata;
    pn_connection_t *connection = amqp_driver_connection(driver);
    struct hub_identity *i;

    switch (pn_event_type(event)) {
    case PN_CONNECTION_REMOTE_OPEN:
        snprintf(hub->hostname, sizeof(hub->hostname), "%s",
                 pn_connection_remote_hostname(connection));
        pn_connection_open(connection);
        break;
    case PN_CONNECTION_REMOTE_CLOSE:
        hub->closed_orderly = true;
        break;
    case PN_SESSION_REMOTE_OPEN:
        pn_session_open(pn_event_session(event));
        break;
    case PN_SESSION_REMOTE_CLOSE:
        hub->ended_sessions++;
        pn_session_close(pn_event_session(event));
        break;
    case PN_LINK_REMOTE_OPEN:
        hub_on_link(hub, pn_event_link(event));
        break;
    case PN_LINK_REMOTE_CLOSE:
        i = pn_link_get_context(pn_event_link(event));
        if (i && i->link == pn_event_link(event))
            i->link = NULL;
        pn_link_close(pn_event_link(event));
        break;
    case PN_DELIVERY:
        hub_on_delivery(hub, pn_event_delivery(event));
        break;
    default:
        break;
    }
}

static inline void hub_on_closed(struct amqp_driver *driver, const char *reason, void *userdata)
{
    struct hub *hub = userdata;

    hub->driver = amqp_driver_free(driver);
    for (unsigned n = 0; n < hub->identity_count; n++)
        hub->identities[n].link = NULL;
}

static const struct amqp_driver_ops hub_ops = { .on_event = hub_on_event,
                                                .on_closed = hub_on_closed };

/* Ends the connection as a crash does. */
static inline void hub_cut(struct hub *hub)
{
    if (hub->driver)
        hub_on_closed(hub->driver, "", hub);
}

static inline void hub_nothing(struct tls_stream *stream, void *userdata) {}

static inline void hub_nothing_closed(struct tls_stream *stream, int error, const char *reason,
                                      void *userdata)
{
}

static const struct tls_stream_ops hub_stream_ops = { hub_nothing, hub_nothing, hub_nothing,
                                                      hub_nothing_closed };

static inline int hub_on_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct hub *hub = userdata;
    struct tls_stream *stream;
    int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    assert_true(client >= 0);
    hub->connections++;
    if (hub->refuse_connections || hub->driver) {
        close(client);
        return 0;
    }
    assert_int_equal(tls_stream_new_take(hub->event, hub->context, client, NULL, 10000000,
                                         &hub_stream_ops, NULL, &stream),
                     0);
    assert_int_equal(amqp_driver_new_take(hub->event, stream, true, &hub_ops, hub, &hub->driver),
                     0);
    return 0;
}

/* ---- Life ---- */

static inline void hub_start(struct hub *hub, sd_event *event,
                             const struct test_authority *authority)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    char *chain, *key;

    hub->event = event;
    hub->credit = 100;
    hub->arena = arena_new();
    test_authority_issue(authority, "IP:127.0.0.1", &chain, &key);
    assert_int_equal(tls_server_context(chain, key, false, &hub->context), 0);
    free(chain);
    free(key);
    hub->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(hub->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(hub->listener, 16), 0);
    assert_int_equal(getsockname(hub->listener, (struct sockaddr *)&address, &len), 0);
    hub->port = ntohs(address.sin_port);
    assert_true(sd_event_add_io(event, &hub->accept, hub->listener, EPOLLIN, hub_on_accept, hub) >=
                0);
}

static inline void hub_stop(struct hub *hub)
{
    amqp_driver_free(hub->driver);
    sd_event_source_disable_unref(hub->accept);
    close(hub->listener);
    SSL_CTX_free(hub->context);
    arena_free(hub->arena);
    memset(hub, 0, sizeof(*hub)); /* too large for a copy on the stack */
}
