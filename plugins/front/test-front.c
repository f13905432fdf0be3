/* The whole front in this process, on its real bus and sockets; identity, the listener and the
 * clients are played. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "front.h"
#include "test-authority.h"

enum {
    LOOP_USEC = 20 * 1000000,
    LISTEN_FD = 3, /* where a plugin finds its first inherited socket */
    LISTENER_BACKLOG = 16,
    CLIENTS_MAX = 2
};

struct client {
    struct tls_stream *tls;
    unsigned ready, closed;
};

static struct test_authority authority;
static char dir[32];
static struct sockaddr_in address;
static struct plugin *plugin;
static struct front *front;
static char *forwards[] = { (char *)"mqtts=mqtt.sock", NULL };
static const struct front_config config = { .forward = forwards,
                                            .handshake_timeout_usec = LOOP_USEC,
                                            .max_connections = CLIENTS_MAX,
                                            .ask_client_certificate = true };
static int listener;
static SSL_CTX *client_context;

/* ---- identity ---- */

static struct bus *identity;
static unsigned asked, refusals;
static uint64_t version;

static uint64_t on_who(int64_t pid, uint32_t uid, void *userdata)
{
    return PEER_FRONT;
}

static int on_certificate_get(struct bus_call *call, const Bus__Envelope *in, void *userdata)
{
    _cleanup_(freep) char *names = xasprintf("DNS:localhost,DNS:version%u", (unsigned)version);
    _cleanup_(freep) char *chain = NULL, *key = NULL;
    Bus__Certificate certificate = BUS__CERTIFICATE__INIT;
    Bus__Envelope answer = ENVELOPE(CERTIFICATE, certificate, &certificate);

    asked++;
    if (refusals > 0) {
        refusals--;
        return bus_answer_error(call, STATUS_UNAVAILABLE, "not provisioned");
    }
    test_authority_issue(&authority, names, &chain, &key);
    certificate.chain_pem = chain;
    certificate.private_key_pem = key;
    certificate.version = version;
    return bus_answer_with(call, &answer);
}

static const struct bus_handler identity_handlers[] = {
    { BUS__ENVELOPE__BODY_CERTIFICATE_GET, PEER_FRONT, on_certificate_get },
    {},
};

static void identity_start(void)
{
    _cleanup_(freep) char *bus_dir = xasprintf("%s/bus", dir);

    assert_int_equal(bus_new(plugin_event(plugin), bus_dir, "identity", 1, on_who, NULL, &identity),
                     0);
    assert_int_equal(bus_listen(identity, identity_handlers, NULL), 0);
}

/* ---- clients ---- */

static void client_on_ready(struct tls_stream *tls, void *userdata)
{
    ((struct client *)userdata)->ready++;
}

static void client_on_readable(struct tls_stream *tls, void *userdata)
{
    char data[64];

    (void)tls_stream_read(tls, data, sizeof(data));
}

static void client_on_writable(struct tls_stream *tls, void *userdata) {}

static void client_on_closed(struct tls_stream *tls, int error, const char *reason, void *userdata)
{
    ((struct client *)userdata)->closed++;
}

static const struct tls_stream_ops client_ops = {
    .on_ready = client_on_ready,
    .on_readable = client_on_readable,
    .on_writable = client_on_writable,
    .on_closed = client_on_closed,
};

static void client_connect(struct client *client)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *client = (struct client){};
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(tls_stream_new_take(plugin_event(plugin), client_context, fd, "localhost",
                                         LOOP_USEC, &client_ops, client, &client->tls),
                     0);
}

static bool client_sees(const struct client *client, const char *name)
{
    return X509_check_host(SSL_get0_peer_certificate(tls_stream_ssl(client->tls)), name, 0, 0,
                           NULL) == 1;
}

static void client_done(struct client *client)
{
    client->tls = tls_stream_free(client->tls);
}

/* ---- life of a test ---- */

#define RUN_UNTIL(condition)                                                                       \
    while (!(condition))                                                                           \
    assert_true(sd_event_run(plugin_event(plugin), LOOP_USEC) > 0)

static void run_what_is_due(void)
{
    while (sd_event_run(plugin_event(plugin), 0) > 0)
        ;
}

static void listener_open(void)
{
    struct sockaddr_un path = { .sun_family = AF_UNIX };

    snprintf(path.sun_path, sizeof(path.sun_path), "%s/mqtt.sock", dir);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&path, sizeof(path)), 0);
    assert_int_equal(listen(listener, LISTENER_BACKLOG), 0);
}

/* As the supervisor would: open, inherited, known by name. */
static void port_open(void)
{
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    address =
        (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    if (fd != LISTEN_FD) {
        assert_int_equal(dup2(fd, LISTEN_FD), LISTEN_FD);
        close(fd);
    }
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "mqtts", 1);
}

static int set_up(void **state)
{
    char *argv[] = { (char *)"brink-front", NULL };
    _cleanup_(freep) char *bus_dir = NULL;

    strcpy(dir, "/tmp/brink-front-XXXXXX");
    assert_non_null(mkdtemp(dir));
    bus_dir = xasprintf("%s/bus", dir);
    assert_int_equal(mkdir(bus_dir, 0700), 0);
    port_open();
    setenv("BRINK_NAME", "front", 1);
    setenv("BRINK_RUN_DIR", dir, 1);
    setenv("BRINK_STATE_DIR", dir, 1);
    setenv("BRINK_LOG_LEVEL", "error", 1);
    listener_open();
    assert_int_equal(tls_client_context(NULL, &client_context), 0);
    test_authority_trust(&authority, client_context);
    asked = refusals = 0;
    version = 1;
    assert_int_equal(plugin_new("front", 1, argv, &plugin), 0);
    assert_int_equal(front_new(plugin, &config, &front), 0);
    assert_int_equal(front_follow_certificate(front), 0);
    return 0;
}

static void remove_file(const char *name)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", dir, name);

    (void)remove(path);
}

static int tear_down(void **state)
{
    static const char *const files[] = { "mqtt.sock", "bus/identity.ipc", "bus/identity.pub.ipc",
                                         "bus" };

    identity = bus_free(identity);
    front = front_free(front);
    plugin = plugin_free(plugin);
    SSL_CTX_free(client_context);
    close(listener);
    close(LISTEN_FD);
    for (size_t i = 0; i < ELEMENTSOF(files); i++)
        remove_file(files[i]);
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

/* ---- what it promises ---- */

static void test_nobody_before_there_is_a_certificate(void **state)
{
    struct client client;

    client_connect(&client);
    run_what_is_due();
    assert_int_equal(front->accepted, 0);
    identity_start();
    RUN_UNTIL(client.ready);
    assert_int_equal(front->accepted, 1);
    client_done(&client);
    RUN_UNTIL(front->host.count == 0);
}

static void test_identity_asked_until_it_has_one(void **state)
{
    struct client client;

    refusals = 2;
    client_connect(&client);
    identity_start();
    RUN_UNTIL(client.ready);
    assert_true(asked >= 3);
    client_done(&client);
}

static void test_certificate_replaced_in_place(void **state)
{
    Bus__CertificateChanged changed = BUS__CERTIFICATE_CHANGED__INIT;
    Bus__Envelope announcement = ENVELOPE(CERTIFICATE_CHANGED, certificate_changed, &changed);
    struct client before, after;

    identity_start();
    client_connect(&before);
    RUN_UNTIL(before.ready);
    assert_true(client_sees(&before, "version1"));

    changed.version = version = 2;
    while (front->certificate_version !=
           2) { /* an announcement may be missed: it may not have subscribed yet */
        assert_int_equal(bus_announce(identity, &announcement), 0);
        assert_true(sd_event_run(plugin_event(plugin), LOOP_USEC) > 0);
    }
    client_connect(&after);
    RUN_UNTIL(after.ready);
    assert_true(client_sees(&after, "version2"));
    assert_int_equal(before.closed, 0);
    assert_int_equal(front->host.count, 2);
    client_done(&before);
    client_done(&after);
}

static void test_identity_restarted_with_a_new_one(void **state)
{
    identity_start();
    RUN_UNTIL(front->certificate_version == 1);
    identity = bus_free(identity);
    version = 2;
    identity_start();
    RUN_UNTIL(front->certificate_version == 2);
}

static void test_unusable_certificate_keeps_the_former(void **state)
{
    _cleanup_(freep) char *chain = NULL, *key = NULL;
    SSL_CTX *context;

    test_authority_issue(&authority, "DNS:localhost", &chain, &key);
    assert_int_equal(front_use_certificate(front, chain, key), 0);
    context = front->context;
    log_set_level(LOG_EMERG);
    assert_int_equal(front_use_certificate(front, chain, "no key"), -EINVAL);
    assert_ptr_equal(front->context, context);
}

static void test_too_many_wait_in_the_backlog(void **state)
{
    struct client clients[CLIENTS_MAX + 1];

    identity_start();
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        client_connect(&clients[i]);
        RUN_UNTIL(clients[i].ready);
    }
    client_connect(&clients[CLIENTS_MAX]);
    run_what_is_due();
    assert_int_equal(clients[CLIENTS_MAX].ready, 0);
    assert_int_equal(front->host.count, CLIENTS_MAX);
    client_done(&clients[0]);
    RUN_UNTIL(clients[CLIENTS_MAX].ready);
    for (unsigned i = 1; i <= CLIENTS_MAX; i++)
        client_done(&clients[i]);
    RUN_UNTIL(front->host.count == 0);
}

static void test_drain_says_goodbye(void **state)
{
    struct client client;
    char data[256];
    ssize_t n;

    identity_start();
    client_connect(&client);
    RUN_UNTIL(client.ready && front->host.count == 1);
    run_what_is_due();
    kill(getpid(), SIGTERM);
    while (sd_event_get_state(plugin_event(plugin)) != SD_EVENT_FINISHED)
        assert_true(sd_event_run(plugin_event(plugin), LOOP_USEC) >= 0);
    assert_int_equal(front->host.count, 0);
    n = recv(tls_stream_fd(client.tls), data, sizeof(data), 0);
    assert_true(n > 0); /* the goodbye, then the end: no reset */
    assert_int_equal(recv(tls_stream_fd(client.tls), data, sizeof(data), 0), 0);
    client_done(&client);
}

/* ---- settings ---- */

static void test_forward_checked(void **state)
{
    static const struct {
        const char *in, *want; /* NULL: accepted */
    } cases[] = {
        { "{}", NULL },
        { "forward: [mqtts=streams/mqtt.sock, amqps=/run/x/amqp.sock]", NULL },
        { "forward: []", "forward" },
        { "forward: [mqtts]", "NAME=PATH" },
        { "forward: [\"=x\"]", "NAME=PATH" },
        { "forward: [\"x=\"]", "NAME=PATH" },
        { "forward: [a=b, a=c]", "each socket once" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *text =
            xasprintf("settings: {%s}\n", cases[i].in[0] == '{' ? "" : cases[i].in);
        struct config_document *document = NULL;
        struct config_error error = {};
        struct front_config parsed = {};
        int r;

        assert_int_equal(config_document_parse(text, strlen(text), "front.yaml", &document, &error),
                         0);
        r = config_take(document, "settings", front_config_items, &parsed, &error);
        if (r == 0)
            r = front_config_check(document, &parsed, &error);
        assert_int_equal(r, cases[i].want ? CONFIG_E_INVALID : 0);
        if (cases[i].want && !strstr(error.text, cases[i].want))
            fail_msg("%s: %s", cases[i].in, error.text);
        config_clear(front_config_items, &parsed);
        config_document_free(document);
    }
}

static int group_set_up(void **state)
{
    test_authority_init(&authority);
    return 0;
}

static int group_tear_down(void **state)
{
    test_authority_done(&authority);
    return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_nobody_before_there_is_a_certificate),
        TEST(test_identity_asked_until_it_has_one),
        TEST(test_certificate_replaced_in_place),
        TEST(test_identity_restarted_with_a_new_one),
        TEST(test_unusable_certificate_keeps_the_former),
        TEST(test_too_many_wait_in_the_backlog),
        TEST(test_drain_says_goodbye),
        cmocka_unit_test(test_forward_checked),
    };

    return cmocka_run_group_tests(tests, group_set_up, group_tear_down);
}
