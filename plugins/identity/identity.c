#include "identity.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "file-writer.h"
#include "hub-client.h"
#include "keyring.h"
#include "lookups.h"
#include "message.h"
#include "plugin.h"
#include "scope-cache.h"
#include "state-file.h"
#include "sync.h"
#include "trusted-clock.h"

enum {
    TOKEN_LIFE_SEC = 3600,
    CLIENT_CA_BYTES_MAX = 1 << 20,
};
static const uint64_t SETTLE_USEC = UINT64_C(100) * 1000; /* changes are saved and told together */
static const uint64_t CERTIFICATES_USEC =
    UINT64_C(600) * 1000 * 1000; /* the clock may be set at any time */
static const uint64_t CERTIFICATES_RETRY_USEC =
    UINT64_C(60) * 1000 * 1000; /* while there is none */
static const uint64_t TIMER_ACCURACY_USEC = 1000;
#define EDGE_HUB "$edgeHub"

struct identity {
    sd_event *event;
    const struct identity_config *config;
    const struct identity_ops *ops;
    void *userdata;
    char *hostname;
    char *cache_path, *clock_path;

    struct file_writer *writer;
    struct keyring *keyring;
    struct provisioning provisioning;
    struct trusted_clock clock;
    sd_event_source *clock_timer;

    struct scope_cache cache; /* its scope is NULL as long as nothing is known */
    char **touched;           /* ids that were looked up while a listing runs */
    size_t touched_count, touched_capacity;
    sd_event_source *settle_timer; /* armed while something is not saved yet */
    bool settle_announces;
    uint64_t announced_usec; /* the last time */

    char *token;
    int64_t token_expires_sec;

    struct certificates_config certificates_config;
    const char **names;
    struct certificates *certificates;
    sd_event_source *certificates_timer;
    struct client_trust *trust; /* NULL: no authority is trusted */

    char *hub_url;
    struct hub_client_config hub_config;
    struct hub_client *hub;
    struct lookups *lookups;
    struct sync_config sync_config;
    struct sync *sync;
    bool upstream_connected; /* as announced last */
};

static const char *optional(const char *text)
{
    return text && *text ? text : NULL;
}

static int64_t now_sec(const struct identity *identity)
{
    return trusted_clock_at(&identity->clock, utc_sec(), boot_usec());
}

/* Better dead than deaf. Armed with @usec_from_now, or off when that is UINT64_MAX. */
static int timer_new(struct identity *identity, uint64_t usec_from_now, sd_event_time_handler_t fn,
                     sd_event_source **ret)
{
    bool armed = usec_from_now != UINT64_MAX;
    int r;

    r = sd_event_add_time(identity->event, ret, CLOCK_MONOTONIC,
                          armed ? now_usec() + usec_from_now : 0, TIMER_ACCURACY_USEC, fn,
                          identity);
    if (r >= 0)
        r = sd_event_source_set_exit_on_failure(*ret, true);
    if (r >= 0 && !armed)
        r = sd_event_source_set_enabled(*ret, SD_EVENT_OFF);
    return r < 0 ? r : 0;
}

/* ---- the cached scope ---- */

/* A change is told and saved in the next turn of the loop; those that follow closely, together a
 * second later: a hundred devices that come one by one must not make every listener check its
 * clients a hundred times. */
static void identity_settle_later(struct identity *identity, bool announce)
{
    uint64_t since = now_usec() - identity->announced_usec;
    uint64_t wait = since < SETTLE_USEC ? SETTLE_USEC - since : announce ? 0 : SETTLE_USEC;
    int enabled, r;

    identity->settle_announces |= announce;
    r = sd_event_source_get_enabled(identity->settle_timer, &enabled);
    assert(r >= 0);
    if (enabled != SD_EVENT_OFF && wait > 0)
        return;
    r = timer_rearm(identity->settle_timer, wait);
    assert(r >= 0);
}

static void identity_save(struct identity *identity)
{
    struct buf content = {};

    scope_cache_encode(identity->keyring, &identity->cache, &content);
    file_writer_put_take(identity->writer, identity->cache_path, &content);
}

/* In force already; what cannot be written is lost with the process only. */
static int identity_on_settle(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct identity *identity = userdata;
    bool announce = identity->settle_announces;

    identity->settle_announces = false;
    if (announce) {
        identity->cache.version++;
        identity->announced_usec = now_usec();
    }
    identity_save(identity);
    if (announce)
        identity->ops->on_scope_changed(identity->cache.version, identity->userdata);
    return 0;
}

static bool cache_is_ours(const struct identity *identity, const struct scope_cache *cache)
{
    return strcmp(cache->hub_hostname, identity->provisioning.hub_hostname) == 0 &&
           strcmp(cache->device_id, identity->provisioning.device_id) == 0;
}

static int identity_load_cache(struct identity *identity)
{
    struct scope_cache cache = {};
    int r;

    r = scope_cache_load(identity->keyring, identity->cache_path, &cache);
    if (r < 0)
        return r;
    if (r == SCOPE_CACHE_E_DAMAGED)
        log_event(LOG_WARNING, 0, "the cached scope does not decrypt, set aside",
                  F_PATH(identity->cache_path));
    if (r == 0 && cache_is_ours(identity, &cache)) {
        identity->cache = cache;
        return 0;
    }
    if (r == 0)
        log_event(LOG_INFO, 0, "the cached scope is of another device, left out",
                  F_PATH(identity->cache_path));
    scope_cache_done(&cache);
    identity->cache = (struct scope_cache){
        .hub_hostname = xstrdup(identity->provisioning.hub_hostname),
        .device_id = xstrdup(identity->provisioning.device_id),
        .version = (uint64_t)now_sec(
            identity), /* above any that a lost cache had: it grows by one a second at most */
    };
    return 0;
}

static void touched_clear(struct identity *identity)
{
    for (size_t i = 0; i < identity->touched_count; i++)
        free(identity->touched[i]);
    identity->touched_count = 0;
}

static void touched_add(struct identity *identity, const char *device_id, const char *module_id)
{
    if (!sync_is_listing(identity->sync))
        return;
    xgrow(identity->touched, identity->touched_count, identity->touched_capacity);
    identity->touched[identity->touched_count++] = identity_name(device_id, module_id);
}

/* What was looked up while the listing ran is newer than the page it would have stood on. */
static void touched_apply(struct identity *identity, struct scope *listed)
{
    for (size_t i = 0; identity->cache.scope && i < identity->touched_count; i++) {
        _cleanup_(freep) char *device_id = NULL, *module_id = NULL;
        const struct scope_identity *known;

        identity_split(identity->touched[i], &device_id, &module_id);
        known = scope_find(identity->cache.scope, device_id, module_id);
        if (known)
            scope_put_take(listed, scope_identity_dup(known));
        else
            scope_remove(listed, device_id, module_id);
    }
}

/* ---- what the hub says ---- */

static void identity_on_key_written(const char *generation_id, void *userdata)
{
    struct identity *identity = userdata;

    if (identity->cache.edge_hub_generation &&
        strcmp(identity->cache.edge_hub_generation, generation_id) == 0)
        return;
    free(identity->cache.edge_hub_generation);
    identity->cache.edge_hub_generation = xstrdup(generation_id);
    identity->token_expires_sec = 0;
    identity_settle_later(identity, false);
}

static void identity_on_listing(void *userdata)
{
    touched_clear(userdata);
}

static void identity_on_scope_take(struct scope *scope, void *userdata)
{
    struct identity *identity = userdata;
    bool changed;

    touched_apply(identity, scope);
    changed = !identity->cache.scope || !scope_equal(identity->cache.scope, scope);
    scope_free(identity->cache.scope);
    identity->cache.scope = scope;
    identity->cache.refreshed_sec = now_sec(identity);
    if (changed)
        log_event(LOG_INFO, 0, "the scope is another", F_COUNT(scope_count(scope)));
    identity_settle_later(identity, changed);
}

static void identity_on_hub_clock(int64_t hub_sec, void *userdata)
{
    struct identity *identity = userdata;

    if (!trusted_clock_correct(&identity->clock, hub_sec, utc_sec(), boot_usec()))
        return;
    log_event(LOG_WARNING, 0, "the clock differs from the hub's, the hub's is taken",
              F_NUM("hub_sec", hub_sec), F_NUM("system_sec", utc_sec()));
    timer_rearm(identity->certificates_timer, 0);
}

static void identity_on_sync_end(void *userdata)
{
    struct identity *identity = userdata;
    struct identity_status status = identity_status(identity);

    identity->ops->on_status(&status, identity->userdata);
}

static const struct sync_ops identity_sync_ops = {
    .on_key_written = identity_on_key_written,
    .on_listing = identity_on_listing,
    .on_scope_take = identity_on_scope_take,
    .on_hub_clock = identity_on_hub_clock,
    .on_end = identity_on_sync_end,
};

static bool identity_on_found(struct scope_page *page, void *userdata)
{
    struct identity *identity = userdata;
    bool changed = false;

    for (size_t i = 0; i < page->count; i++) {
        touched_add(identity, page->identities[i]->device_id, page->identities[i]->module_id);
        changed |= scope_put_take(identity->cache.scope, TAKE_PTR(page->identities[i]));
    }
    if (changed)
        identity_settle_later(identity, true);
    return changed;
}

static bool identity_on_gone(const char *device_id, const char *module_id, void *userdata)
{
    struct identity *identity = userdata;
    bool is_gateway =
        !optional(module_id) && strcmp(device_id, identity->provisioning.device_id) == 0;

    /* When the gateway itself is gone the next listing says so, and says it about us. */
    if (is_gateway || !scope_remove(identity->cache.scope, device_id, module_id))
        return false;
    touched_add(identity, device_id, module_id);
    log_event(LOG_INFO, 0, "identity is not in scope any more", F_DEVICE(device_id),
              F_MODULE(module_id));
    identity_settle_later(identity, true);
    return true;
}

static void identity_on_unauthorized(void *userdata)
{
    struct identity *identity = userdata;

    sync_key_refused(identity->sync);
}

static const struct lookups_ops identity_lookups_ops = {
    .on_found = identity_on_found,
    .on_gone = identity_on_gone,
    .on_unauthorized = identity_on_unauthorized,
};

void identity_on_upstream(struct identity *identity, bool connected)
{
    if (connected && !identity->upstream_connected)
        sync_now(identity->sync);
    identity->upstream_connected = connected;
}

/* ---- tokens for the hub ---- */

static char *identity_hub_token(enum hub_signer signer, void *userdata)
{
    struct identity *identity = userdata;
    const struct provisioning *p = &identity->provisioning;
    _cleanup_(freep) char *resource = NULL;
    int64_t expires_sec = now_sec(identity) + TOKEN_LIFE_SEC;

    if (signer == HUB_SIGNER_DEVICE) {
        resource = xasprintf("%s/devices/%s", p->hub_hostname, p->device_id);
        return keyring_device_token(identity->keyring, resource, expires_sec);
    }
    assert(identity->cache.edge_hub_generation);
    resource = xasprintf("%s/devices/%s/modules/" EDGE_HUB, p->hub_hostname, p->device_id);
    return keyring_module_token(identity->keyring, EDGE_HUB, identity->cache.edge_hub_generation,
                                resource, expires_sec);
}

int identity_token(struct identity *identity, struct identity_token *ret)
{
    int64_t now = now_sec(identity);

    if (!identity->cache.edge_hub_generation)
        return IDENTITY_E_NO_KEY;
    if (!identity->token || identity->token_expires_sec - now < TOKEN_LIFE_SEC / 2 ||
        identity->token_expires_sec - now > TOKEN_LIFE_SEC) {
        free(identity->token);
        identity->token = identity_hub_token(HUB_SIGNER_EDGE_HUB, identity);
        identity->token_expires_sec = now + TOKEN_LIFE_SEC;
    }
    *ret = (struct identity_token){ identity->token, identity->token_expires_sec };
    return 0;
}

const char *identity_hub_hostname(const struct identity *identity)
{
    return identity->provisioning.hub_hostname;
}

const char *identity_device_id(const struct identity *identity)
{
    return identity->provisioning.device_id;
}

/* ---- logins ---- */

/* A login that waits for the hub's word. Owns copies of what the client said. */
struct login {
    struct identity *identity;
    char *device_id, *module_id, *token;
    struct span *certificates;
    struct auth_client client;
    identity_verdict_fn *fn;
    void *userdata;
};

static struct login *login_new(struct identity *identity, const struct auth_client *client,
                               identity_verdict_fn *fn, void *userdata)
{
    struct login *login = xnew(struct login);

    login->identity = identity;
    login->fn = fn;
    login->userdata = userdata;
    login->device_id = xstrdup(client->device_id);
    login->module_id = xstrdup(client->module_id);
    login->token = span_xdup(client->token);
    login->certificates = xnew_n(struct span, client->certificate_count);
    for (size_t i = 0; i < client->certificate_count; i++)
        login->certificates[i] =
            span_of(span_xdup(client->certificates[i]), client->certificates[i].len);
    login->client = (struct auth_client){
        .device_id = login->device_id,
        .module_id = login->module_id,
        .token = span_of(login->token, client->token.len),
        .certificates = login->certificates,
        .certificate_count = client->certificate_count,
    };
    return login;
}

static struct login *login_free(struct login *login)
{
    for (size_t i = 0; i < login->client.certificate_count; i++)
        free((char *)login->certificates[i].at);
    free(login->certificates);
    free(login->token);
    free(login->module_id);
    free(login->device_id);
    free(login);
    return NULL;
}

static struct auth_verdict identity_judge(const struct identity *identity,
                                          const struct auth_client *client)
{
    const struct auth_rules rules = {
        .hub_hostname = identity->provisioning.hub_hostname,
        .gateway_hostname = identity->hostname,
        .trust = identity->trust,
    };

    return authenticate(&rules, identity->cache.scope, client, now_sec(identity));
}

static void login_on_looked_up(enum lookup_result result, void *userdata)
{
    struct login *login = userdata;
    struct auth_verdict verdict;

    if (result == LOOKUP_DROPPED) {
        login->fn(NULL, login->userdata);
    } else {
        verdict = identity_judge(login->identity, &login->client);
        login->fn(&verdict, login->userdata);
    }
    login_free(login);
}

/* A record without credentials was registered a moment ago and is being given its keys: never too
 * soon to ask again. */
static bool is_being_made(const struct identity *identity, const struct auth_client *client)
{
    const struct scope_identity *known =
        scope_find(identity->cache.scope, client->device_id, client->module_id);

    return known && known->auth == SCOPE_AUTH_NONE;
}

static bool worth_asking(const struct identity *identity, const struct auth_client *client,
                         const struct auth_verdict *verdict)
{
    if (!identity->cache.scope || !identity->cache.edge_hub_generation ||
        !auth_reason_is_perhaps_stale(verdict->reason))
        return false;
    return identity_id_valid(client->device_id) &&
           (!optional(client->module_id) || identity_id_valid(client->module_id));
}

void identity_authenticate(struct identity *identity, const struct auth_client *client,
                           bool recheck, identity_verdict_fn *fn, void *userdata)
{
    struct auth_verdict verdict = identity_judge(identity, client);
    struct login *login;
    int r;

    if (verdict.reason == AUTH_ACCEPTED || recheck || !worth_asking(identity, client, &verdict)) {
        fn(&verdict, userdata);
        return;
    }
    login = login_new(identity, client, fn, userdata);
    r = lookups_add(identity->lookups, client->device_id, client->module_id,
                    is_being_made(identity, client), login_on_looked_up, login);
    if (r != 0) {
        if (r == LOOKUPS_E_FULL)
            verdict.reason = AUTH_NOT_ASKED;
        login_free(login);
        fn(&verdict, userdata);
    }
}

/* ---- upstream ---- */

int identity_chain(const struct identity *identity, const char *device_id, const char *module_id,
                   char **ret_chain, const char **ret_generation)
{
    const struct scope_identity *known;
    char *chain;

    if (!identity->cache.scope)
        return IDENTITY_E_NO_SCOPE;
    known = scope_find(identity->cache.scope, device_id, module_id);
    chain = known ? scope_chain(identity->cache.scope, identity->provisioning.device_id, device_id,
                                module_id)
                  : NULL;
    if (!chain)
        return IDENTITY_E_NO_CHAIN;
    *ret_chain = chain;
    *ret_generation = known->generation_id ? known->generation_id : "";
    return 0;
}

struct refresh {
    identity_refreshed_fn *fn;
    void *userdata;
};

static void refresh_on_looked_up(enum lookup_result result, void *userdata)
{
    static const int codes[] = {
        [LOOKUP_ANSWERED] = 0,
        [LOOKUP_FAILED] = -EHOSTUNREACH,
        [LOOKUP_DROPPED] = -ECANCELED,
    };
    struct refresh *refresh = userdata;

    refresh->fn(codes[result], refresh->userdata);
    free(refresh);
}

void identity_refresh(struct identity *identity, const char *device_id, const char *module_id,
                      identity_refreshed_fn *fn, void *userdata)
{
    struct refresh *refresh;
    int r;

    if (!identity->cache.scope || !identity->cache.edge_hub_generation) {
        fn(-EHOSTUNREACH, userdata);
        return;
    }
    refresh = xnew(struct refresh);
    *refresh = (struct refresh){ fn, userdata };
    r = lookups_add(identity->lookups, device_id, module_id, false, refresh_on_looked_up, refresh);
    if (r != 0) {
        free(refresh);
        fn(r == LOOKUPS_E_FULL ? -EBUSY : 0, userdata);
    }
}

/* ---- certificates ---- */

/* Read anew each time, as the edge CA is. A bundle that cannot be read leaves the one before in
 * force. */
static void identity_load_trust(struct identity *identity)
{
    const char *path = optional(identity->config->client_ca_file);
    _cleanup_(freep) char *pem = NULL;
    struct client_trust *trust;
    struct buf content = {};
    int r;

    if (!path)
        return;
    r = state_file_read(path, CLIENT_CA_BYTES_MAX, &content);
    if (r == 0) {
        pem = span_xdup(buf_span(&content));
        r = client_trust_new(pem, certificates_authority_pem(identity->certificates), &trust);
    }
    buf_done(&content);
    if (r < 0) {
        log_event(LOG_ERR, r,
                  "cannot read the authorities of clients: expected certificates as PEM",
                  F_PATH(path));
        return;
    }
    client_trust_free(identity->trust);
    identity->trust = trust;
}

static bool identity_renew_certificates(struct identity *identity)
{
    bool changed = false;

    /* What went wrong is logged there. Clients with a certificate in hand go on; those who come
     * meet what is in force. */
    (void)certificates_renew(identity->certificates, now_sec(identity), &changed);
    identity_load_trust(identity);
    return changed;
}

static uint64_t certificates_wait(const struct identity *identity)
{
    return certificates_server(identity->certificates) ? CERTIFICATES_USEC
                                                       : CERTIFICATES_RETRY_USEC;
}

static int identity_on_certificates_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct identity *identity = userdata;

    if (identity_renew_certificates(identity))
        identity->ops->on_certificate_changed(identity_certificate(identity)->version,
                                              identity->userdata);
    return timer_rearm(source, certificates_wait(identity));
}

const struct server_certificate *identity_certificate(const struct identity *identity)
{
    return certificates_server(identity->certificates);
}

/* The host name first, then the name by which modules know the hub module, then what the operator
 * adds. */
static void identity_collect_names(struct identity *identity)
{
    size_t n = 0, more = 0;

    while (identity->config->server_names && identity->config->server_names[more])
        more++;
    identity->names = xnew_n(const char *, more + 3);
    identity->names[n++] = identity->hostname;
    identity->names[n++] = "edgeHub";
    for (size_t i = 0; i < more; i++)
        identity->names[n++] = identity->config->server_names[i];
}

static int identity_start_certificates(struct identity *identity, const char *state_dir)
{
    identity_collect_names(identity);
    identity->certificates_config = (struct certificates_config){
        .state_dir = state_dir,
        .device_id = identity->provisioning.device_id,
        .names = identity->names,
        .authority_path = optional(identity->config->edge_ca_cert),
        .authority_key_path = optional(identity->config->edge_ca_key),
        .server_days = identity->config->certificate_days,
    };
    identity->certificates = certificates_new(&identity->certificates_config, identity->keyring);
    identity_renew_certificates(identity);
    return timer_new(identity, certificates_wait(identity), identity_on_certificates_timer,
                     &identity->certificates_timer);
}

/* ---- life ---- */

static int identity_on_clock_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct identity *identity = userdata;
    struct buf content = {};

    trusted_clock_print(now_sec(identity), &content);
    file_writer_put_take(identity->writer, identity->clock_path, &content);
    return timer_rearm(source, TRUSTED_CLOCK_SAVE_SEC * UINT64_C(1000000));
}

static int identity_start_clock(struct identity *identity)
{
    trusted_clock_load(&identity->clock, identity->clock_path, boot_usec());
    if (now_sec(identity) - utc_sec() > TRUSTED_CLOCK_SLACK_SEC)
        log_event(LOG_WARNING, 0, "the clock is behind the time of the last run, that one is taken",
                  F_NUM("system_sec", utc_sec()), F_NUM("taken_sec", now_sec(identity)));
    return timer_new(identity, 0, identity_on_clock_timer, &identity->clock_timer);
}

static int identity_provision(struct identity *identity, const char *state_dir)
{
    int r;

    r = keyring_new(state_dir, &identity->keyring);
    if (r < 0)
        return r;
    r = keyring_provision(identity->keyring, identity->config->connection_string,
                          identity->config->connection_string_file, &identity->provisioning);
    if (r < 0)
        return r;
    if (optional(identity->config->connection_string))
        log_event(LOG_WARNING, 0,
                  "the connection string stands in the settings, whoever reads them has the "
                  "device's key: "
                  "better in a file of mode 0600 that connection_string_file names");
    return 0;
}

static int identity_start_hub(struct identity *identity, const struct identity_place *place)
{
    const struct identity_config *config = identity->config;
    int r;

    identity->hub_url = place->hub_url
                            ? xstrdup(place->hub_url)
                            : xasprintf("https://%s:%llu", identity->provisioning.hub_hostname,
                                        (unsigned long long)config->upstream_port);
    identity->hub_config = (struct hub_client_config){
        .base_url = identity->hub_url,
        .ca_file = optional(config->upstream_ca_file),
        .device_id = identity->provisioning.device_id,
        .retry_min_usec = place->retry_min_usec,
    };
    r = hub_client_new(identity->event, &identity->hub_config, identity_hub_token, identity,
                       &identity->hub);
    if (r < 0)
        return r;
    r = lookups_new(identity->event, identity->hub, config->scope_refresh_min_sec * 1000000,
                    &identity_lookups_ops, identity, &identity->lookups);
    if (r < 0)
        return r;
    identity->sync_config = (struct sync_config){
        .device_id = identity->provisioning.device_id,
        .keyring = identity->keyring,
        .refresh_usec = config->scope_refresh_sec * 1000000,
        .retry_min_usec = place->retry_min_usec,
    };
    return sync_new(identity->event, identity->hub, &identity->sync_config, &identity_sync_ops,
                    identity, &identity->sync);
}

int identity_new(const struct identity_place *place, const struct identity_config *config,
                 const struct identity_ops *ops, void *userdata, struct identity **ret)
{
    _cleanup_(identity_freep) struct identity *identity = xnew(struct identity);
    int r;

    identity->event = sd_event_ref(place->event);
    identity->config = config;
    identity->ops = ops;
    identity->userdata = userdata;
    identity->hostname = xstrdup(place->hostname);
    identity->cache_path = xasprintf("%s/scope.cache", place->state_dir);
    identity->clock_path = xasprintf("%s/clock", place->state_dir);

    r = file_writer_new(place->event, &identity->writer);
    if (r < 0)
        return r;
    r = identity_provision(identity, place->state_dir);
    if (r < 0)
        return r;
    r = identity_start_clock(identity);
    if (r < 0)
        return r;
    r = identity_load_cache(identity);
    if (r < 0)
        return r;
    r = timer_new(identity, UINT64_MAX, identity_on_settle, &identity->settle_timer);
    if (r < 0)
        return r;
    r = identity_start_certificates(identity, place->state_dir);
    if (r < 0)
        return r;
    r = identity_start_hub(identity, place);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(identity);
    return 0;
}

/* What waits to be saved is saved; who would be told will read it anew from the next process. */
static void identity_flush(struct identity *identity)
{
    int enabled = SD_EVENT_OFF;

    if (identity->settle_timer &&
        sd_event_source_get_enabled(identity->settle_timer, &enabled) >= 0 &&
        enabled != SD_EVENT_OFF)
        identity_save(identity);
}

struct identity *identity_free(struct identity *identity)
{
    if (!identity)
        return NULL;
    identity_flush(identity);
    sd_event_source_disable_unref(identity->clock_timer);
    sd_event_source_disable_unref(identity->settle_timer);
    sd_event_source_disable_unref(identity->certificates_timer);
    sync_free(identity->sync);
    lookups_free(identity->lookups);
    hub_client_free(identity->hub);
    client_trust_free(identity->trust);
    certificates_free(identity->certificates);
    scope_cache_done(&identity->cache);
    touched_clear(identity);
    free(identity->touched);
    free(identity->names);
    free(identity->token);
    free(identity->hub_url);
    free(identity->hostname);
    free(identity->cache_path);
    free(identity->clock_path);
    file_writer_free(identity->writer);
    provisioning_done(&identity->provisioning);
    keyring_free(identity->keyring);
    sd_event_unref(identity->event);
    free(identity);
    return NULL;
}

struct identity_status identity_status(const struct identity *identity)
{
    return (struct identity_status){
        .identities = identity->cache.scope ? scope_count(identity->cache.scope) : 0,
        .scope_refreshed_sec = identity->cache.refreshed_sec,
        .last_error = sync_last_error(identity->sync),
    };
}
