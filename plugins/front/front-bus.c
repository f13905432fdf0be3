/*
 * What the front asks of others: its server certificate, of identity. It is fetched whenever
 * identity comes up, when a new one is announced, and from time to time, so that a missed
 * announcement costs little.
 */
#include "front.h"

static const uint64_t CERTIFICATE_POLL_USEC = UINT64_C(10) * 60 * 1000000;
static const uint64_t CERTIFICATE_RETRY_USEC = 1000000;
static const uint64_t LOG_INTERVAL_USEC = UINT64_C(60) * 1000000;

static int front_ask_certificate(struct front *front);

/* Taken, or the reason why not. */
static const char *front_take_certificate(struct front *front, const Bus__Envelope *answer)
{
    const Bus__Certificate *c;

    if (answer->body_case != BUS__ENVELOPE__BODY_CERTIFICATE)
        return *answer->error ? answer->error : "identity has none";
    c = answer->certificate;
    if (front->context && c->version == front->certificate_version)
        return NULL;
    if (front_use_certificate(front, c->chain_pem, c->private_key_pem) < 0)
        return "it is unusable";
    front->certificate_version = c->version;
    log_event(LOG_INFO, 0, "server certificate taken", F_NUM("version", c->version),
              F_NUM("not_after", c->not_after_sec));
    return NULL;
}

static void front_on_certificate(const Bus__Envelope *answer, void *userdata)
{
    struct front *front = userdata;
    const char *refused;
    unsigned suppressed;

    front->asking = NULL;
    refused = answer ? front_take_certificate(front, answer) : "no answer";
    if (refused && log_limit_pass(&front->certificate_limit, LOG_INTERVAL_USEC, &suppressed))
        log_event(LOG_WARNING, 0, "no new server certificate", F_REASON(refused),
                  F_COUNT(suppressed));
    if (front->ask_again)
        (void)front_ask_certificate(front);
    else
        timer_rearm(front->certificate_timer,
                    refused ? CERTIFICATE_RETRY_USEC : CERTIFICATE_POLL_USEC);
}

/* One question at a time; what is announced while it is open is asked for after it. */
static int front_ask_certificate(struct front *front)
{
    Bus__CertificateGet get = BUS__CERTIFICATE_GET__INIT;
    Bus__Envelope request = ENVELOPE(CERTIFICATE_GET, certificate_get, &get);

    front->ask_again = front->asking != NULL;
    if (front->asking)
        return 0;
    timer_stop(front->certificate_timer);
    return bus_request(front->identity, &request, BUS_FOREVER, front_on_certificate, front,
                       &front->asking);
}

static void front_on_identity(const Bus__Envelope *in, void *userdata)
{
    struct front *front = userdata;

    if (!in || (in->body_case == BUS__ENVELOPE__BODY_CERTIFICATE_CHANGED &&
                in->certificate_changed->version != front->certificate_version))
        (void)front_ask_certificate(front);
}

static int front_on_certificate_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    return front_ask_certificate(userdata);
}

int front_follow_certificate(struct front *front)
{
    int r;

    front->identity = bus_peer(plugin_bus(front->plugin), "identity");
    r = plugin_add_timer(front->plugin, CERTIFICATE_POLL_USEC, front_on_certificate_timer, front,
                         &front->certificate_timer);
    if (r < 0)
        return r;
    r = bus_subscribe(plugin_bus(front->plugin), "identity", front_on_identity, front);
    if (r < 0)
        return r;
    return front_ask_certificate(front);
}
