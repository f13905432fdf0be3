#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "authenticate.h"
#include "hub-json.h"
#include "test-pki.h"

#define HUB     "hub1.example.net"
#define GATEWAY "gateway.local"
#define NOW     INT64_C(1800000000)
#define SOON    (NOW + 3600)

/* Keys by name: base64 of the name is the key. */
static struct sas_key key_of(const char *name)
{
    struct sas_key key = { .len = strlen(name) };

    memcpy(key.bytes, name, key.len);
    return key;
}

static char *record(const char *device_id, const char *module_id, const char *status,
                    const char *type, const char *first, const char *second)
{
    _cleanup_(freep) char *a = base64_encode(first, strlen(first)),
                          *b = base64_encode(second, strlen(second));
    _cleanup_(freep) char *module =
        module_id ? xasprintf("\"moduleId\":\"%s\",", module_id) : xstrdup("");

    return xasprintf("{\"deviceId\":\"%s\",%s\"status\":\"%s\",\"authentication\":{\"type\":\"%s\","
                     "\"symmetricKey\":{\"primaryKey\":\"%s\",\"secondaryKey\":%s%s%s}}}",
                     device_id, module, status, type, a, *second ? "\"" : "", *second ? b : "null",
                     *second ? "\"" : "");
}

static const struct {
    const char *device_id, *module_id, *status, *type, *first, *second;
} registry[] = {
    { "edge1", NULL, "enabled", "sas", "edge1-key", "edge1-second" },
    { "edge1", "$edgeHub", "enabled", "sas", "hub-key", "hub-second" },
    { "edge1", "temp", "enabled", "sas", "temp-key", "" },
    { "edge1", "fresh", "enabled", "none", "x", "" },
    { "leaf1", NULL, "enabled", "sas", "leaf1-key", "leaf1-second" },
    { "leaf1", "mod", "enabled", "sas", "mod-key", "" },
    { "leaf2", NULL, "enabled", "sas", "leaf2-key", "" },
    { "off", NULL, "disabled", "sas", "off-key", "" },
    { "off", "mod", "enabled", "sas", "offmod-key", "" },
    { "authority", NULL, "enabled", "certificateAuthority", "x", "" },
    { "authority", "mod", "enabled", "certificateAuthority", "x", "" },
    { "Caps", NULL, "enabled", "sas", "caps-key", "" },
};

static struct scope *make_scope(void)
{
    struct scope *scope = scope_new();

    for (size_t i = 0; i < ELEMENTSOF(registry); i++) {
        _cleanup_(freep) char *text =
            record(registry[i].device_id, registry[i].module_id, registry[i].status,
                   registry[i].type, registry[i].first, registry[i].second);
        struct scope_identity *identity;

        assert_int_equal(scope_identity_parse(span_str(text), &identity), 0);
        scope_put_take(scope, identity);
    }
    return scope;
}

static const struct auth_rules rules = { HUB, GATEWAY, NULL };

static struct auth_verdict judge(const struct scope *scope, const char *device_id,
                                 const char *module_id, const char *token)
{
    return authenticate(&rules, scope,
                        &(struct auth_client){ .device_id = device_id,
                                               .module_id = module_id,
                                               .token = span_str(token) },
                        NOW);
}

static void test_token(void **state)
{
    static const struct {
        const char *device_id, *module_id, *resource, *key;
        int64_t expires_sec;
        enum auth_reason want;
    } cases[] = {
        { "leaf1", NULL, HUB "/devices/leaf1", "leaf1-key", SOON, AUTH_ACCEPTED },
        { "leaf1", "", HUB "/devices/leaf1", "leaf1-key", SOON, AUTH_ACCEPTED },
        { "leaf1", NULL, HUB "/devices/leaf1", "leaf1-second", SOON, AUTH_ACCEPTED },
        { "leaf1", NULL, GATEWAY "/devices/leaf1", "leaf1-key", SOON, AUTH_ACCEPTED },
        { "Caps", NULL, HUB "/devices/caps", "caps-key", SOON, AUTH_ACCEPTED },
        { "edge1", "$edgeHub", HUB "/devices/edge1/modules/%24edgeHub", "hub-key", SOON,
          AUTH_ACCEPTED },
        { "edge1", "$edgeHub", HUB "/devices/edge1/modules/%2524edgeHub", "hub-second", SOON,
          AUTH_ACCEPTED },
        { "edge1", "temp", HUB "/devices/edge1/modules/temp", "temp-key", SOON, AUTH_ACCEPTED },
        { "edge1", "temp", HUB "/devices/edge1", "temp-key", SOON, AUTH_ACCEPTED },
        /* the device's key is good for its modules, with either audience */
        { "edge1", "temp", HUB "/devices/edge1", "edge1-key", SOON, AUTH_ACCEPTED },
        { "edge1", "temp", HUB "/devices/edge1/modules/temp", "edge1-second", SOON, AUTH_ACCEPTED },
        { "leaf1", "mod", HUB "/devices/leaf1", "leaf1-key", SOON, AUTH_ACCEPTED },
        { "edge1", "fresh", HUB "/devices/edge1", "edge1-key", SOON, AUTH_ACCEPTED },
        /* but not for a module that does not exist, nor for one of another device */
        { "edge1", "nobody", HUB "/devices/edge1", "edge1-key", SOON, AUTH_UNKNOWN_IDENTITY },
        { "leaf1", "mod", HUB "/devices/leaf1", "edge1-key", SOON, AUTH_WRONG_KEY },
        { "leaf1", "mod", HUB "/devices/edge1", "leaf1-key", SOON, AUTH_WRONG_AUDIENCE },
        /* a module's key or token is not its device's */
        { "edge1", NULL, HUB "/devices/edge1", "temp-key", SOON, AUTH_WRONG_KEY },
        { "edge1", NULL, HUB "/devices/edge1/modules/temp", "edge1-key", SOON,
          AUTH_WRONG_AUDIENCE },
        { "edge1", "$edgeHub", HUB "/devices/edge1/modules/temp", "edge1-key", SOON,
          AUTH_WRONG_AUDIENCE },
        { "edge1", "$edgeHub", HUB "/devices/edge1/modules/%24edgeHub", "temp-key", SOON,
          AUTH_WRONG_KEY },
        { "leaf1", NULL, HUB "/devices/leaf1", "wrong", SOON, AUTH_WRONG_KEY },
        { "leaf1", NULL, "hub2.example.net/devices/leaf1", "leaf1-key", SOON, AUTH_WRONG_AUDIENCE },
        { "leaf1", NULL, HUB, "leaf1-key", SOON, AUTH_WRONG_AUDIENCE },
        { "leaf1", NULL, HUB "/devices/leaf1", "leaf1-key", NOW - 300, AUTH_ACCEPTED },
        { "leaf1", NULL, HUB "/devices/leaf1", "leaf1-key", NOW - 301, AUTH_TOKEN_EXPIRED },
        { "nobody", NULL, HUB "/devices/nobody", "wrong", NOW - 301, AUTH_TOKEN_EXPIRED },
        { "nobody", NULL, HUB "/devices/nobody", "leaf1-key", SOON, AUTH_UNKNOWN_IDENTITY },
        { "Leaf1", NULL, HUB "/devices/Leaf1", "leaf1-key", SOON, AUTH_UNKNOWN_IDENTITY },
        { "", NULL, HUB "/devices/", "leaf1-key", SOON, AUTH_UNKNOWN_IDENTITY },
        { "off", NULL, HUB "/devices/off", "off-key", SOON, AUTH_DISABLED },
        { "off", "mod", HUB "/devices/off/modules/mod", "offmod-key", SOON, AUTH_DISABLED },
        { "off", "mod", HUB "/devices/off", "off-key", SOON, AUTH_DISABLED },
        { "authority", NULL, HUB "/devices/authority", "x", SOON, AUTH_NOT_BY_TOKEN },
        { "authority", "mod", HUB "/devices/authority", "x", SOON, AUTH_NOT_BY_TOKEN },
        { "edge1", "fresh", HUB "/devices/edge1/modules/fresh", "x", SOON, AUTH_WRONG_KEY },
    };
    _cleanup_(scope_freep) struct scope *scope = make_scope();

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct sas_key key = key_of(cases[i].key);
        _cleanup_(freep) char *token =
            sas_token_make(cases[i].resource, &key, NULL, cases[i].expires_sec);
        struct auth_verdict verdict = judge(scope, cases[i].device_id, cases[i].module_id, token);

        assert_string_equal(auth_reason_text(verdict.reason), auth_reason_text(cases[i].want));
        assert_int_equal(verdict.expires_sec,
                         cases[i].want == AUTH_ACCEPTED ? cases[i].expires_sec : 0);
    }
}

static char *own_resource(const char *device_id, const char *module_id)
{
    if (!module_id)
        return xasprintf(HUB "/devices/%s", device_id);
    return xasprintf(HUB "/devices/%s/modules/%s", device_id, module_id);
}

/* T10: the good token of one identity, presented as every other. */
static void test_every_pairing(void **state)
{
    _cleanup_(scope_freep) struct scope *scope = make_scope();

    for (size_t a = 0; a < ELEMENTSOF(registry); a++) {
        _cleanup_(freep) char *resource =
                                  own_resource(registry[a].device_id, registry[a].module_id),
                              *token = NULL;
        struct sas_key key = key_of(registry[a].first);

        token = sas_token_make(resource, &key, NULL, SOON);
        for (size_t b = 0; b < ELEMENTSOF(registry); b++) {
            bool has_key =
                strcmp(registry[a].type, "sas") == 0 && strcmp(registry[a].status, "enabled") == 0;
            bool same_device = strcmp(registry[a].device_id, registry[b].device_id) == 0;
            bool may = has_key && same_device && (a == b || !registry[a].module_id);
            struct auth_verdict verdict =
                judge(scope, registry[b].device_id, registry[b].module_id, token);

            if (strcmp(registry[a].device_id, "off") == 0)
                may = false;
            assert_int_equal(verdict.reason == AUTH_ACCEPTED, may);
        }
    }
}

static void test_token_malformed(void **state)
{
    static const char *const cases[] = { "x", "SharedAccessSignature sr=a&se=1",
                                         "SharedAccessSignature " };
    _cleanup_(scope_freep) struct scope *scope = make_scope();
    _cleanup_(freep) char *filler = xnew_n(char, 9001), *longest = NULL;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_int_equal(judge(scope, "leaf1", NULL, cases[i]).reason, AUTH_TOKEN_MALFORMED);
    memset(filler, 'x', 9000);
    longest = xasprintf("SharedAccessSignature sr=a&sig=%s&se=1", filler);
    assert_int_equal(judge(scope, "leaf1", NULL, longest).reason, AUTH_TOKEN_MALFORMED);
    assert_int_equal(judge(scope, "leaf1", NULL, "").reason, AUTH_NO_CREDENTIALS);
}

static void test_no_scope(void **state)
{
    struct sas_key key = key_of("leaf1-key");
    _cleanup_(freep) char *token = sas_token_make(HUB "/devices/leaf1", &key, NULL, SOON);
    _cleanup_(freep) char *old = sas_token_make(HUB "/devices/leaf1", &key, NULL, NOW - 301);

    assert_int_equal(judge(NULL, "leaf1", NULL, token).reason, AUTH_NO_SCOPE_YET);
    assert_int_equal(judge(NULL, "leaf1", NULL, old).reason, AUTH_TOKEN_EXPIRED);
    assert_int_equal(judge(NULL, "leaf1", NULL, "x").reason, AUTH_TOKEN_MALFORMED);
    assert_int_equal(judge(NULL, "leaf1", NULL, "").reason, AUTH_NO_CREDENTIALS);
}

static void test_certificate(void **state)
{
    _cleanup_(scope_freep) struct scope *scope = make_scope();
    _cleanup_(client_trust_freep) struct client_trust *trust = NULL;
    _cleanup_(pki_done) struct pki root = {}, leaf = {}, selfsigned = {};
    _cleanup_(freep) char *root_pem = NULL, *thumbprint = xnew_n(char, 65), *text = NULL,
                          *token = NULL;
    struct scope_identity *identity;
    struct sas_key key = key_of("leaf1-key");
    uint8_t digest[32];
    unsigned len;

    root = pki_make(NULL, &(struct pki_wish){ "root", NULL, true, NULL, NOW - 9, NOW + 9 });
    leaf = pki_make(&root, &(struct pki_wish){ "authority", NULL, false, NULL, NOW - 9, NOW + 9 });
    selfsigned =
        pki_make(NULL, &(struct pki_wish){ "whatever", NULL, false, NULL, NOW - 9, NOW + 9 });
    root_pem = pki_pem(root.certificate);
    assert_int_equal(client_trust_new(root_pem, NULL, &trust), 0);
    X509_digest(selfsigned.certificate, EVP_sha256(), digest, &len);
    for (unsigned i = 0; i < len; i++)
        sprintf(thumbprint + 2 * i, "%02X", digest[i]);
    text = xasprintf(
        "{\"deviceId\":\"thumb\",\"authentication\":{\"type\":\"selfSigned\",\"x509Thumbprint\":"
        "{\"primaryThumbprint\":\"00\",\"secondaryThumbprint\":\"%s\"}}}",
        thumbprint);
    assert_int_equal(scope_identity_parse(span_str(text), &identity), 0);
    scope_put_take(scope, identity);
    token = sas_token_make(HUB "/devices/leaf1", &key, NULL, SOON);

    {
        const struct {
            const char *device_id, *module_id, *token;
            X509 *certificate;
            enum auth_reason want;
        } cases[] = {
            { "authority", NULL, "", leaf.certificate, AUTH_ACCEPTED },
            { "thumb", NULL, "", selfsigned.certificate, AUTH_ACCEPTED },
            { "authority", NULL, "", selfsigned.certificate, AUTH_CERTIFICATE_NAME },
            { "thumb", NULL, "", leaf.certificate, AUTH_CERTIFICATE_THUMBPRINT },
            { "authority", "mod", "", leaf.certificate, AUTH_NOT_BY_CERTIFICATE },
            { "leaf1", NULL, "", leaf.certificate, AUTH_NOT_BY_CERTIFICATE },
            { "edge1", "fresh", "", leaf.certificate, AUTH_NOT_BY_CERTIFICATE },
            { "nobody", NULL, "", leaf.certificate, AUTH_UNKNOWN_IDENTITY },
            { "off", NULL, "", leaf.certificate, AUTH_DISABLED },
            /* a token decides, whatever certificate there is */
            { "leaf1", NULL, token, leaf.certificate, AUTH_ACCEPTED },
            { "authority", NULL, token, leaf.certificate, AUTH_NOT_BY_TOKEN },
        };
        const struct auth_rules with_trust = { HUB, GATEWAY, trust };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
            struct span der = pki_der(cases[i].certificate);
            struct auth_client client = { cases[i].device_id, cases[i].module_id,
                                          span_str(cases[i].token), &der, 1 };
            struct auth_verdict verdict = authenticate(&with_trust, scope, &client, NOW);

            assert_string_equal(auth_reason_text(verdict.reason), auth_reason_text(cases[i].want));
            if (verdict.reason == AUTH_ACCEPTED)
                assert_int_equal(verdict.expires_sec, client.token.len > 0 ? SOON : NOW + 9);
            free((char *)der.at);
        }
    }
    {
        struct span garbage = SPAN("garbage");
        struct auth_client client = { "authority", NULL, SPAN(""), &garbage, 1 };

        assert_int_equal(authenticate(&rules, scope, &client, NOW).reason,
                         AUTH_CERTIFICATE_MALFORMED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token),           cmocka_unit_test(test_every_pairing),
        cmocka_unit_test(test_token_malformed), cmocka_unit_test(test_no_scope),
        cmocka_unit_test(test_certificate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
