/*
 * Shared access signature tokens. Pure: no clock, no log, no descriptor, no static data.
 *
 * Producers spell the resource differently (encoded never, once, twice or three times, hex in
 * either case), so what is signed is the text as it was received, and only the comparison of
 * audiences decodes it.
 */
#include "sas.h"

#include <assert.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdint.h>
#include <string.h>

#include "mem.h"

enum {
    TOKEN_BYTES_MAX = 8192,
    AUDIENCE_DEPTH_MAX = 3,
    AUDIENCE_BYTES_MAX =
        4096, /* host and two ids of 128 characters, encoded three times, and room */
    POLICY_BYTES_MAX = 128,
};
#define EXPIRY_SEC_MAX                                                                             \
    INT64_C(253402300799) /* the last second of year 9999, where the original's clock ends */

/* ---- text ---- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool is_unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

char *percent_encode(struct span s)
{
    static const char digits[] = "0123456789ABCDEF";
    char *out = xnew_n(char, 3 * s.len + 1), *p = out;

    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.at[i];

        if (is_unreserved(s.at[i])) {
            *p++ = s.at[i];
            continue;
        }
        *p++ = '%';
        *p++ = digits[c >> 4];
        *p++ = digits[c & 15];
    }
    return out;
}

char *percent_decode(struct span s, size_t *ret_len)
{
    char *out = xnew_n(char, s.len + 1), *p = out;

    for (size_t i = 0; i < s.len; i++) {
        int high = -1, low = -1;

        if (s.at[i] == '%' && s.len - i > 2) {
            high = hex_value(s.at[i + 1]);
            low = hex_value(s.at[i + 2]);
        }
        if (high < 0 || low < 0) {
            *p++ = s.at[i];
            continue;
        }
        *p++ = (char)(high << 4 | low);
        i += 2;
    }
    if (ret_len)
        *ret_len = (size_t)(p - out);
    return out;
}

char *base64_encode(const void *data, size_t len)
{
    char *out;

    assert(len < INT_MAX);
    out = xnew_n(char, (len + 2) / 3 * 4 + 1);
    EVP_EncodeBlock((unsigned char *)out, data, (int)len);
    return out;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    if (c == '/')
        return 63;
    return -1;
}

/* Takes the padding off: none, or just as much as the length calls for. */
static bool base64_unpad(struct span *s)
{
    size_t padding = 0;

    while (padding < 2 && s->len > 0 && s->at[s->len - 1] == '=') {
        s->len--;
        padding++;
    }
    if (s->len % 4 == 1)
        return false;
    return padding == 0 || (s->len + padding) % 4 == 0;
}

static size_t base64_decoded_len(struct span unpadded)
{
    return unpadded.len / 4 * 3 + (unpadded.len % 4 ? unpadded.len % 4 - 1 : 0);
}

/* @out holds base64_decoded_len() bytes. */
static bool base64_decode_into(struct span unpadded, uint8_t *out)
{
    uint32_t bits = 0;
    unsigned have = 0;

    for (size_t i = 0; i < unpadded.len; i++) {
        int value = base64_value(unpadded.at[i]);

        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t)value;
        have += 6;
        if (have >= 8) {
            have -= 8;
            *out++ = (uint8_t)(bits >> have);
        }
    }
    return true;
}

uint8_t *base64_decode(struct span s, size_t *ret_len)
{
    _cleanup_(freep) uint8_t *out = NULL;
    size_t len;

    if (!base64_unpad(&s))
        return NULL;
    len = base64_decoded_len(s);
    out = xnew_n(uint8_t, len + 1);
    if (!base64_decode_into(s, out))
        return NULL;
    *ret_len = len;
    return TAKE_PTR(out);
}

/* ---- keys ---- */

bool sas_key_parse(struct span base64, struct sas_key *ret)
{
    struct sas_key key = {};

    if (!base64_unpad(&base64))
        return false;
    key.len = base64_decoded_len(base64);
    if (key.len == 0 || key.len > sizeof(key.bytes))
        return false;
    if (!base64_decode_into(base64, key.bytes)) {
        sas_key_wipe(&key);
        return false;
    }
    *ret = key;
    sas_key_wipe(&key);
    return true;
}

void sas_key_wipe(struct sas_key *key)
{
    OPENSSL_cleanse(key, sizeof(*key));
}

bool sas_key_equal(const struct sas_key *a, const struct sas_key *b)
{
    if (!a || !b)
        return a == b;
    return a->len == b->len && CRYPTO_memcmp(a->bytes, b->bytes, a->len) == 0;
}

void hmac_sha256(const struct sas_key *key, const void *data, size_t len, uint8_t ret[static 32])
{
    unsigned mac_len = 0;
    const void *done;

    assert(key->len <= sizeof(key->bytes));
    done = HMAC(EVP_sha256(), key->bytes, (int)key->len, data, len, ret, &mac_len);
    assert(done && mac_len == 32);
}

static void sign(const struct sas_key *key, struct span resource, struct span expiry,
                 uint8_t ret[static 32])
{
    _cleanup_(freep) char *text = xnew_n(char, resource.len + 1 + expiry.len + 1);

    memcpy(text, resource.at, resource.len);
    text[resource.len] = '\n';
    memcpy(text + resource.len + 1, expiry.at, expiry.len);
    hmac_sha256(key, text, resource.len + 1 + expiry.len, ret);
}

/* ---- reading a token ---- */

struct token_fields {
    struct span sr, sig, se, skn;
};

/* A field that is written twice is malformed; a name nobody knows is no reason to refuse. */
static bool token_field_set(struct token_fields *fields, struct span name, struct span value)
{
    const struct {
        struct span name;
        struct span *value;
    } known[] = {
        { SPAN("sr"), &fields->sr },
        { SPAN("sig"), &fields->sig },
        { SPAN("se"), &fields->se },
        { SPAN("skn"), &fields->skn },
    };

    for (size_t i = 0; i < ELEMENTSOF(known); i++) {
        if (!span_equal_nocase(name, known[i].name))
            continue;
        if (known[i].value->at)
            return false;
        *known[i].value = value;
        break;
    }
    return true;
}

static bool token_split(struct span text, struct token_fields *ret)
{
    struct span piece;
    bool done = false;

    if (!span_eat(&text, SPAN("SharedAccessSignature")))
        return false;
    if (!span_eat(&text, SPAN(" ")) && !span_eat(&text, SPAN("\t")))
        return false;
    for (size_t i = 0; i < text.len; i++)
        if ((uint8_t)text.at[i] <= ' ')
            return false;

    while (span_next(&text, '&', &piece, &done)) {
        struct span name;

        if (!span_split(&piece, SPAN("="), &name) || !token_field_set(ret, name, piece))
            return false;
    }
    return ret->sr.len > 0 && ret->sig.len > 0 && ret->se.len > 0;
}

static bool token_signature_parse(struct span sig, uint8_t ret[static 32])
{
    _cleanup_(freep) uint8_t *bytes = NULL;
    _cleanup_(freep) char *text = NULL;
    size_t len;

    text = percent_decode(sig, &len);
    bytes = base64_decode(span_of(text, len), &len);
    if (!bytes || len != 32)
        return false;
    memcpy(ret, bytes, 32);
    return true;
}

static bool token_expiry_parse(struct span se, int64_t *ret)
{
    _cleanup_(freep) char *text = NULL;
    uint64_t value;
    size_t len;

    text = percent_decode(se, &len);
    if (!span_to_uint64(span_of(text, len), &value) || value > (uint64_t)EXPIRY_SEC_MAX)
        return false;
    *ret = (int64_t)value;
    return true;
}

static bool token_policy_parse(struct span skn, char ret[static POLICY_BYTES_MAX + 1])
{
    _cleanup_(freep) char *text = NULL;
    size_t len;

    text = percent_decode(skn, &len);
    if (len > POLICY_BYTES_MAX || memchr(text, '\0', len))
        return false;
    memcpy(ret, text, len + 1);
    return true;
}

int sas_token_parse(struct span text, struct sas_token *ret)
{
    struct token_fields fields = {};
    struct sas_token token = {};

    if (text.len > TOKEN_BYTES_MAX || !token_split(text, &fields) ||
        fields.sr.len > AUDIENCE_BYTES_MAX)
        return SAS_E_MALFORMED;
    if (!token_signature_parse(fields.sig, token.signature) ||
        !token_expiry_parse(fields.se, &token.expires_sec) ||
        !token_policy_parse(fields.skn, token.policy))
        return SAS_E_MALFORMED;

    token.resource = fields.sr;
    token.expiry = fields.se;
    *ret = token;
    return 0;
}

int sas_token_check_expiry(const struct sas_token *token, int64_t now_sec)
{
    return token->expires_sec + SAS_CLOCK_SKEW_SEC < now_sec ? SAS_E_EXPIRED : 0;
}

int sas_token_check_signature(const struct sas_token *token, const struct sas_key *key)
{
    uint8_t mac[32];

    sign(key, token->resource, token->expiry, mac);
    return CRYPTO_memcmp(mac, token->signature, sizeof(mac)) == 0 ? 0 : SAS_E_SIGNATURE;
}

/* ---- whom it is for ---- */

struct audience {
    struct span host;
    struct span device_id;
    struct span module_id; /* len 0: a device's */
};

/* "host/devices/D" or "host/devices/D/modules/M". The original looks at the number of parts only;
 * we at the words too. */
static bool audience_parse(struct span text, struct audience *ret)
{
    struct span parts[6];
    struct span piece;
    size_t n = 0;
    bool done = false;

    while (n < ELEMENTSOF(parts) && span_next(&text, '/', &piece, &done))
        parts[n++] = piece;
    if ((n != 3 && n != 5) || !span_equal_nocase(parts[1], SPAN("devices")) || parts[2].len == 0)
        return false;
    if (n == 5 && (!span_equal_nocase(parts[3], SPAN("modules")) || parts[4].len == 0))
        return false;

    *ret = (struct audience){ parts[0], parts[2], n == 5 ? parts[4] : (struct span){} };
    return true;
}

static bool audience_is_for(const struct audience *a, const char *host_a, const char *host_b,
                            const char *device_id, const char *module_id)
{
    if (!(host_a && span_equal_nocase(a->host, span_str(host_a))) &&
        !(host_b && span_equal_nocase(a->host, span_str(host_b))))
        return false;
    if (!span_equal_nocase(a->device_id, span_str(device_id)))
        return false;
    return a->module_id.len == 0 ||
           (module_id && span_equal_nocase(a->module_id, span_str(module_id)));
}

int sas_token_check_audience(const struct sas_token *token, const char *host_a, const char *host_b,
                             const char *device_id, const char *module_id, bool *ret_device_wide)
{
    _cleanup_(freep) char *text = NULL;
    struct span at_depth = token->resource;
    struct audience audience;

    /* Depth 0 is for producers that encode nothing and ids that look encoded; nobody gains by it,
     * for the key that must have signed is looked up by the id that is asked for. */
    for (unsigned depth = 0; depth <= AUDIENCE_DEPTH_MAX; depth++) {
        char *decoded;
        size_t len;

        if (audience_parse(at_depth, &audience) &&
            audience_is_for(&audience, host_a, host_b, device_id, module_id)) {
            *ret_device_wide = audience.module_id.len == 0;
            return 0;
        }
        decoded = percent_decode(at_depth, &len);
        free(text);
        text = decoded;
        if (len == at_depth.len)
            break; /* nothing is encoded any more */
        at_depth = span_of(text, len);
    }
    return SAS_E_AUDIENCE;
}

bool sas_token_identity(const struct sas_token *token, unsigned depth, char **ret_host,
                        char **ret_device_id, char **ret_module_id)
{
    _cleanup_(freep) char *text = NULL;
    struct span at_depth = token->resource;
    struct audience audience;

    while (depth-- > 0) {
        char *decoded;
        size_t len;

        decoded = percent_decode(at_depth, &len);
        free(text);
        text = decoded;
        at_depth = span_of(text, len);
    }
    if (memchr(at_depth.at, '\0', at_depth.len) || !audience_parse(at_depth, &audience))
        return false;

    *ret_host = span_xdup(audience.host);
    *ret_device_id = span_xdup(audience.device_id);
    *ret_module_id = audience.module_id.len > 0 ? span_xdup(audience.module_id) : NULL;
    return true;
}

/* ---- making one ---- */

char *sas_token_make(const char *resource, const struct sas_key *key, const char *policy,
                     int64_t expires_sec)
{
    _cleanup_(freep) char *sr = NULL, *se = NULL, *mac_text = NULL, *sig = NULL, *skn = NULL;
    uint8_t mac[32];

    assert(expires_sec >= 0);
    sr = percent_encode(span_str(resource));
    se = xasprintf("%lld", (long long)expires_sec);
    sign(key, span_str(sr), span_str(se), mac);
    mac_text = base64_encode(mac, sizeof(mac));
    sig = percent_encode(span_str(mac_text));
    if (!policy)
        return xasprintf("SharedAccessSignature sr=%s&sig=%s&se=%s", sr, sig, se);

    skn = percent_encode(span_str(policy));
    return xasprintf("SharedAccessSignature sr=%s&sig=%s&se=%s&skn=%s", sr, sig, se, skn);
}
