/* The worked examples and every producer's spelling of identity.md §2, and what must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mem.h"
#include "sas.h"

#define KEY        "bXktZGV2aWNlLWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE="
#define OTHER_KEY  "b3RoZXI="
#define HUB        "hub1.example.net"
#define GATEWAY    "gateway.local"
#define SE         1893456000
#define T(sr, sig) "SharedAccessSignature sr=" sr "&sig=" sig "&se=1893456000"
#define SIG_A      "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

static struct sas_key key_of(const char *base64)
{
    struct sas_key key;

    assert_true(sas_key_parse(span_str(base64), &key));
    return key;
}

static char *mac_of(const struct sas_key *key, const char *text)
{
    uint8_t mac[32];

    hmac_sha256(key, text, strlen(text), mac);
    return base64_encode(mac, sizeof(mac));
}

/* identity.md §2.2: the bytes that are signed, and the MAC. */
static void test_hmac_worked_examples(void **state)
{
    static const struct {
        const char *signed_text, *want;
    } cases[] = {
        { "hub1.example.net%2Fdevices%2Fdev-1\n1893456000",
          "bVuJpF5p8Im3oGl9IjJYN6wY4S+HStVXT4x5lOVLbUY=" },
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%2524edgeHub\n1893456000",
          "QT30eywcD+XW7mL21RaoGNko486zG196HUiZOnira+M=" },
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%24edgeHub\n1893456000",
          "tS15jH7cA0/QPZWTQ2AW8t5oxgjgDZ4aRZJeRZ4/5u4=" },
        { "hub1.example.net/devices/Dev-1\n1893456000",
          "6VibCuG5BG/kg3m/PJi1PAvhZa5DwS7ZaH9fr/JWrX4=" },
        { "hub1.example.net\n1893456000", "ZXNe1P0IIKTDk/sKUAUpMq9nvl/ivai35lzTFpLYlvY=" },
        { "hub1.example.net/devices/edge1\n1893456000",
          "tSEeUOgSwpl+7Eiby//tU5g4WKdXKrdXr52BEjEG9A8=" },
    };
    struct sas_key key = key_of(KEY);

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *mac = mac_of(&key, cases[i].signed_text);

        assert_string_equal(mac, cases[i].want);
    }
}

/* §1.4 and §2.2 example 6: the enrollment group's key makes the device's. */
static void test_hmac_derived_key(void **state)
{
    _cleanup_(freep) char *derived = NULL, *mac = NULL;
    struct sas_key group = key_of(KEY), device;

    derived = mac_of(&group, "reg-01");
    assert_string_equal(derived, "BPEy8iVg7FwIoVidOedLC7OB21RLfUj2uyeuk3dAo8Q=");
    device = key_of(derived);
    mac = mac_of(&device, "0ne00AABBCC%2Fregistrations%2Freg-01\n1893456000");
    assert_string_equal(mac, "uSCZ3o3wj+Wgir/EKHNi9GI/98EhH06gLxprDhvTYYU=");
}

static void test_make_worked_examples(void **state)
{
    _cleanup_(freep) char *device = NULL, *module = NULL, *service = NULL;
    struct sas_key key = key_of(KEY);

    device = sas_token_make(HUB "/devices/dev-1", &key, NULL, SE);
    assert_string_equal(device, T("hub1.example.net%2Fdevices%2Fdev-1",
                                  "bVuJpF5p8Im3oGl9IjJYN6wY4S%2BHStVXT4x5lOVLbUY%3D"));
    module = sas_token_make(HUB "/devices/edge1/modules/$edgeHub", &key, NULL, SE);
    assert_string_equal(module, T("hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%24edgeHub",
                                  "tS15jH7cA0%2FQPZWTQ2AW8t5oxgjgDZ4aRZJeRZ4%2F5u4%3D"));
    service = sas_token_make(HUB, &key, "iothubowner", SE);
    assert_string_equal(service,
                        T("hub1.example.net",
                          "ZXNe1P0IIKTDk%2FsKUAUpMq9nvl%2Fivai35lzTFpLYlvY%3D") "&skn=iothubowner");
}

/* Tokens as they were received: signature right, audience right. */
static void test_check_received_tokens(void **state)
{
    static const struct {
        const char *token, *device_id, *module_id, *policy;
    } cases[] = {
        { T("hub1.example.net%2Fdevices%2Fdev-1",
            "bVuJpF5p8Im3oGl9IjJYN6wY4S%2BHStVXT4x5lOVLbUY%3D"),
          "dev-1", NULL, "" },
        /* the signature not encoded at all: `+` is no space */
        { T("hub1.example.net%2Fdevices%2Fdev-1", "bVuJpF5p8Im3oGl9IjJYN6wY4S+HStVXT4x5lOVLbUY="),
          "dev-1", NULL, "" },
        /* lower-case hex in the signature */
        { T("hub1.example.net%2Fdevices%2Fdev-1",
            "bVuJpF5p8Im3oGl9IjJYN6wY4S%2bHStVXT4x5lOVLbUY%3d"),
          "dev-1", NULL, "" },
        /* .NET */
        { T("hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%2524edgeHub",
            "QT30eywcD%2BXW7mL21RaoGNko486zG196HUiZOnira%2BM%3D"),
          "edge1", "$edgeHub", "" },
        { T("hub1.example.net/devices/Dev-1",
            "6VibCuG5BG%2Fkg3m%2FPJi1PAvhZa5DwS7ZaH9fr%2FJWrX4%3D"),
          "Dev-1", NULL, "" },
        /* the identity service lower-cases: the id in the hub is Edge1 */
        { T("hub1.example.net/devices/edge1", "tSEeUOgSwpl+7Eiby//tU5g4WKdXKrdXr52BEjEG9A8="),
          "Edge1", NULL, "" },
        /* fields in any order, names in any case, an empty skn as the C SDK sends it, an unknown
           field */
        { "SharedAccessSignature "
          "SE=1893456000&SIG=6VibCuG5BG%2Fkg3m%2FPJi1PAvhZa5DwS7ZaH9fr%2FJWrX4%3D&skn=&"
          "SR=hub1.example.net/devices/Dev-1&x=y",
          "Dev-1", NULL, "" },
        { "SharedAccessSignature\tse=1893456000&skn=a%20b&sig=6VibCuG5BG%2Fkg3m%"
          "2FPJi1PAvhZa5DwS7ZaH9fr%2FJWrX4%3D&"
          "sr=hub1.example.net/devices/Dev-1",
          "Dev-1", NULL, "a b" },
    };
    struct sas_key key = key_of(KEY), other = key_of(OTHER_KEY);

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct sas_token token;
        bool device_wide;

        assert_int_equal(sas_token_parse(span_str(cases[i].token), &token), 0);
        assert_int_equal(token.expires_sec, SE);
        assert_string_equal(token.policy, cases[i].policy);
        assert_int_equal(sas_token_check_signature(&token, &key), 0);
        assert_int_equal(sas_token_check_signature(&token, &other), SAS_E_SIGNATURE);
        assert_int_equal(sas_token_check_audience(&token, HUB, NULL, cases[i].device_id,
                                                  cases[i].module_id, &device_wide),
                         0);
        assert_int_equal(device_wide, cases[i].module_id == NULL);
    }
}

/* §2.1: what each producer writes for the same identity; and ids that look encoded themselves. */
static void test_audience_spellings(void **state)
{
    static const struct {
        const char *sr, *device_id, *module_id;
        int want;
        bool device_wide;
    } cases[] = {
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%24edgeHub", "edge1", "$edgeHub", 0,
          false }, /* Node, Python */
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%2524edgeHub", "edge1", "$edgeHub", 0,
          false }, /* .NET */
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%252524edgeHub", "edge1", "$edgeHub", 0,
          false }, /* edgeHub HTTP */
        { "hub1.example.net%2fdevices%2fedge1%2fmodules%2f%24edgeHub", "edge1", "$edgeHub", 0,
          false }, /* C, edge */
        { "hub1.example.net/devices/edge1/modules/$edgeHub", "edge1", "$edgeHub", 0,
          false }, /* C, string */
        { "HUB1.example.net/devices/EDGE1", "edge1", NULL, 0, true },
        { "gateway.local%2Fdevices%2Fedge1", "edge1", NULL, 0,
          true }, /* C's method calls: the gateway's name */
        { "hub1.example.net%2Fdevices%2Fedge1", "edge1", "temp", 0,
          true }, /* a device's token is good for its modules */
        { "hub1.example.net%2Fdevices%2F%21%27%28%29%2a", "!'()*", NULL, 0, true },
        { "hub1.example.net%2Fdevices%2Fa%2Bb", "a+b", NULL, 0,
          true }, /* the original fails on these two */
        { "hub1.example.net%2Fdevices%2Fa%2541", "a%41", NULL, 0, true },
        { "hub1.example.net/devices/a%41", "a%41", NULL, 0,
          true }, /* raw, as the C SDK writes it */
        { "hub1.example.net%2Fdevices%2F100%25", "100%", NULL, 0, true },
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2Ftemp", "edge1", NULL, SAS_E_AUDIENCE,
          false },
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2Ftemp", "edge1", "", SAS_E_AUDIENCE,
          false },
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2Ftemp", "edge1", "other", SAS_E_AUDIENCE,
          false },
        { "hub1.example.net%2Fdevices%2Fedge1", "edge2", NULL, SAS_E_AUDIENCE, false },
        { "hub1.example.net%2Fdevices%2Fedge1", "edge2", "temp", SAS_E_AUDIENCE, false },
        { "hub1.example.net%2Fdevices%2Fedge1", "edge", NULL, SAS_E_AUDIENCE, false },
        { "hub2.example.net%2Fdevices%2Fedge1", "edge1", NULL, SAS_E_AUDIENCE, false },
        { "hub1.example.net", "edge1", NULL, SAS_E_AUDIENCE, false },
        { "hub1.example.net/things/edge1", "edge1", NULL, SAS_E_AUDIENCE, false },
        { "hub1.example.net/devices/edge1/things/temp", "edge1", "temp", SAS_E_AUDIENCE, false },
        { "hub1.example.net/devices/edge1/modules/", "edge1", NULL, SAS_E_AUDIENCE, false },
        { "hub1.example.net/devices/edge1/modules", "edge1", NULL, SAS_E_AUDIENCE, false },
        { "hub1.example.net/devices/edge1/modules/temp/x", "edge1", "temp", SAS_E_AUDIENCE, false },
        { "hub1.example.net/devices/edge1%00", "edge1", NULL, SAS_E_AUDIENCE, false },
        { "hub1.example.net%2Fdevices%2F%25252541", "A", NULL, SAS_E_AUDIENCE,
          false }, /* four times is too often */
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *text = NULL;
        struct sas_token token;
        bool device_wide = false;

        text = xasprintf("SharedAccessSignature sr=%s&sig=" SIG_A "&se=1", cases[i].sr);
        assert_int_equal(sas_token_parse(span_str(text), &token), 0);
        assert_int_equal(sas_token_check_audience(&token, HUB, GATEWAY, cases[i].device_id,
                                                  cases[i].module_id, &device_wide),
                         cases[i].want);
        assert_int_equal(device_wide, cases[i].device_wide);
    }
}

static void test_parse_malformed(void **state)
{
    static const char *const cases[] = {
        "",
        " ",
        "SharedAccessSignature",
        "SharedAccessSignature ",
        "sharedaccesssignature sr=h&sig=" SIG_A "&se=1",
        " SharedAccessSignature sr=h&sig=" SIG_A "&se=1",
        "SharedAccessSignature  sr=h&sig=" SIG_A "&se=1",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=1 ",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=1 x",
        "SharedAccessSignature sr=h&sig=" SIG_A,
        "SharedAccessSignature sr=h&se=1",
        "SharedAccessSignature sig=" SIG_A "&se=1",
        "SharedAccessSignature sr=&sig=" SIG_A "&se=1",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=",
        "SharedAccessSignature sr=h&sr=h&sig=" SIG_A "&se=1",
        "SharedAccessSignature sr=h&sig=" SIG_A "&sig=" SIG_A "&se=1",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=1&SE=1",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=1&skn=&skn=",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=1&",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=1&alone",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=-1",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=1.5",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=soon",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=253402300800",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=18446744073709551616",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=1%00",
        "SharedAccessSignature sr=h&sig=" SIG_A "&se=1&skn=a%00b",
        "SharedAccessSignature sr=h&sig=AAAA&se=1",
        "SharedAccessSignature sr=h&sig=!&se=1",
        "SharedAccessSignature sr=h&sig=" SIG_A "%3D&se=1",
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct sas_token token;

        assert_int_equal(sas_token_parse(span_str(cases[i]), &token), SAS_E_MALFORMED);
    }
}

static void test_parse_bounds(void **state)
{
    _cleanup_(freep) char *long_policy = NULL, *long_resource = NULL, *filler = xnew_n(char, 5001);
    struct sas_token token;

    memset(filler, 'x', 5000);
    long_policy = xasprintf("SharedAccessSignature sr=h&sig=" SIG_A "&se=1&skn=%.129s", filler);
    assert_int_equal(sas_token_parse(span_str(long_policy), &token), SAS_E_MALFORMED);
    long_policy[strlen(long_policy) - 1] = '\0';
    assert_int_equal(sas_token_parse(span_str(long_policy), &token), 0);
    long_resource = xasprintf("SharedAccessSignature sr=%s&sig=" SIG_A "&se=1", filler);
    assert_int_equal(sas_token_parse(span_str(long_resource), &token), SAS_E_MALFORMED);
    assert_int_equal(
        sas_token_parse(SPAN("SharedAccessSignature sr=h&sig=" SIG_A "&se=253402300799"), &token),
        0);
    assert_int_equal(token.expires_sec, INT64_C(253402300799));
}

static void test_check_expiry_skew(void **state)
{
    struct sas_token token = { .expires_sec = 1000 };

    assert_int_equal(sas_token_check_expiry(&token, 0), 0);
    assert_int_equal(sas_token_check_expiry(&token, 1300), 0);
    assert_int_equal(sas_token_check_expiry(&token, 1301), SAS_E_EXPIRED);
}

/* One changed byte anywhere in what is signed, and it is another token. */
static void test_check_signature_tampered(void **state)
{
    static const char *const cases[] = {
        T("hub1.example.net%2Fdevices%2Fdev-2", "bVuJpF5p8Im3oGl9IjJYN6wY4S%2BHStVXT4x5lOVLbUY%3D"),
        T("hub1.example.net%2fdevices%2Fdev-1", "bVuJpF5p8Im3oGl9IjJYN6wY4S%2BHStVXT4x5lOVLbUY%3D"),
        T("hub1.example.net/devices/dev-1", "bVuJpF5p8Im3oGl9IjJYN6wY4S%2BHStVXT4x5lOVLbUY%3D"),
        T("hub1.example.net%2Fdevices%2Fdev-1", "cVuJpF5p8Im3oGl9IjJYN6wY4S%2BHStVXT4x5lOVLbUY%3D"),
        "SharedAccessSignature sr=hub1.example.net%2Fdevices%2Fdev-1&"
        "sig=bVuJpF5p8Im3oGl9IjJYN6wY4S%2BHStVXT4x5lOVLbUY%3D&se=1893456001",
        "SharedAccessSignature sr=hub1.example.net%2Fdevices%2Fdev-1&"
        "sig=bVuJpF5p8Im3oGl9IjJYN6wY4S%2BHStVXT4x5lOVLbUY%3D&se=01893456000",
    };
    struct sas_key key = key_of(KEY);

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct sas_token token;

        assert_int_equal(sas_token_parse(span_str(cases[i]), &token), 0);
        assert_int_equal(sas_token_check_signature(&token, &key), SAS_E_SIGNATURE);
    }
}

static void test_identity_at_depth(void **state)
{
    static const struct {
        const char *sr;
        unsigned depth;
        const char *host, *device_id, *module_id;
    } cases[] = {
        { "hub1.example.net/devices/Dev-1", 1, HUB, "Dev-1", NULL },
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%24edgeHub", 1, HUB, "edge1",
          "$edgeHub" },
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%2524edgeHub", 1, HUB, "edge1",
          "%24edgeHub" },
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%2524edgeHub", 2, HUB, "edge1",
          "$edgeHub" },
        { "hub1.example.net%2Fdevices%2Fedge1%2Fmodules%2F%252524edgeHub", 3, HUB, "edge1",
          "$edgeHub" },
        { "hub1.example.net", 1, NULL, NULL, NULL },
        { "hub1.example.net%2Fdevices%2Fa%00b", 1, NULL, NULL, NULL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *text = NULL, *host = NULL, *device_id = NULL, *module_id = NULL;
        struct sas_token token;

        text = xasprintf("SharedAccessSignature sr=%s&sig=" SIG_A "&se=1", cases[i].sr);
        assert_int_equal(sas_token_parse(span_str(text), &token), 0);
        assert_int_equal(sas_token_identity(&token, cases[i].depth, &host, &device_id, &module_id),
                         cases[i].host != NULL);
        if (!cases[i].host)
            continue;
        assert_string_equal(host, cases[i].host);
        assert_string_equal(device_id, cases[i].device_id);
        if (cases[i].module_id)
            assert_string_equal(module_id, cases[i].module_id);
        else
            assert_null(module_id);
    }
}

static void test_key_parse(void **state)
{
    static const struct {
        const char *in;
        size_t want_len; /* 0: refused */
    } cases[] = {
        { KEY, 32 },
        { "bXktZGV2aWNlLWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE", 32 }, /* without padding */
        { "QQ==", 1 },
        { "QQ", 1 },
        { "QUI=", 2 },
        { "QUI", 2 },
        { "QUJD", 3 },
        { "", 0 },
        { "=", 0 },
        { "==", 0 },
        { "Q", 0 },
        { "QQ=", 0 },
        { "QQ===", 0 },
        { "QUI==", 0 },
        { "QUJD=", 0 },
        { "QUJD====", 0 },
        { "Q=Q=", 0 },
        { "QU D", 0 },
        { "QUJD\n", 0 },
        { "QU_D", 0 },
    };
    _cleanup_(freep) char *longest = NULL, *too_long = NULL;
    uint8_t zeros[SAS_KEY_BYTES_MAX + 1] = {};
    struct sas_key key;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        key.len = 0;
        assert_int_equal(sas_key_parse(span_str(cases[i].in), &key), cases[i].want_len > 0);
        assert_int_equal(key.len, cases[i].want_len);
    }
    longest = base64_encode(zeros, SAS_KEY_BYTES_MAX);
    assert_true(sas_key_parse(span_str(longest), &key));
    too_long = base64_encode(zeros, SAS_KEY_BYTES_MAX + 1);
    assert_false(sas_key_parse(span_str(too_long), &key));
    sas_key_wipe(&key);
    assert_memory_equal(key.bytes, zeros, sizeof(key.bytes));
    assert_int_equal(key.len, 0);
}

static void test_percent_round_trip(void **state)
{
    _cleanup_(freep) char *plain = xnew_n(char, 256), *encoded = NULL, *decoded = NULL;
    size_t len;

    for (unsigned i = 0; i < 256; i++)
        plain[i] = (char)i;
    encoded = percent_encode(span_of(plain, 256));
    decoded = percent_decode(span_str(encoded), &len);
    assert_int_equal(len, 256);
    assert_memory_equal(decoded, plain, 256);
}

static void test_percent_cases(void **state)
{
    static const struct {
        const char *in, *want;
    } decode[] = {
        { "a%20b", "a b" }, { "a+b", "a+b" },   { "%2f%2F", "//" }, { "%", "%" }, { "%2", "%2" },
        { "%zz", "%zz" },   { "%2%32", "%22" }, { "%%32", "%2" },   { "", "" },
    };
    _cleanup_(freep) char *encoded = percent_encode(SPAN("Az09-_.~ !'()*$/%+"));

    assert_string_equal(encoded, "Az09-_.~%20%21%27%28%29%2A%24%2F%25%2B");
    for (size_t i = 0; i < ELEMENTSOF(decode); i++) {
        _cleanup_(freep) char *out = NULL;
        size_t len;

        out = percent_decode(span_str(decode[i].in), &len);
        assert_string_equal(out, decode[i].want);
        assert_int_equal(len, strlen(decode[i].want));
    }
}

static void test_base64_round_trip(void **state)
{
    uint8_t bytes[67];

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 37);
    for (size_t n = 0; n <= sizeof(bytes); n++) {
        _cleanup_(freep) char *text = base64_encode(bytes, n);
        _cleanup_(freep) uint8_t *back = NULL;
        size_t len;

        back = base64_decode(span_str(text), &len);
        assert_non_null(back);
        assert_int_equal(len, n);
        assert_memory_equal(back, bytes, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hmac_worked_examples),
        cmocka_unit_test(test_hmac_derived_key),
        cmocka_unit_test(test_make_worked_examples),
        cmocka_unit_test(test_check_received_tokens),
        cmocka_unit_test(test_audience_spellings),
        cmocka_unit_test(test_parse_malformed),
        cmocka_unit_test(test_parse_bounds),
        cmocka_unit_test(test_check_expiry_skew),
        cmocka_unit_test(test_check_signature_tampered),
        cmocka_unit_test(test_identity_at_depth),
        cmocka_unit_test(test_key_parse),
        cmocka_unit_test(test_percent_round_trip),
        cmocka_unit_test(test_percent_cases),
        cmocka_unit_test(test_base64_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
