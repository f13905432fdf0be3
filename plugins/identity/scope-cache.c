/*
 * magic, version (be64), then records: length of id (be16), id, length of sealed text (be32),
 * sealed text. The first record has the empty id and says how many follow, so that none can be cut
 * off.
 */
#include "scope-cache.h"

#include <endian.h>
#include <errno.h>
#include <openssl/crypto.h>

#include "hub-json.h"
#include "message.h"
#include "state-file.h"

enum { CACHE_BYTES_MAX = 256 << 20, RECORD_BYTES_MAX = 1 << 20, HEAD_TEXTS = 3 };
#define MAGIC SPAN("brink scope 1\n")

void scope_cache_done(struct scope_cache *cache)
{
    free(cache->hub_hostname);
    free(cache->device_id);
    free(cache->edge_hub_generation);
    scope_free(cache->scope);
    *cache = (struct scope_cache){};
}

/* What a record is bound to: the snapshot and the id. */
static void context_make(uint64_t version, struct span id, struct buf *out)
{
    buf_append_span(out, MAGIC);
    buf_append_be64(out, version);
    buf_append_span(out, id);
}

static void wipe(struct buf *b)
{
    if (b->data)
        OPENSSL_cleanse(b->data, b->capacity);
    buf_done(b);
}

/* ---- out ---- */

static void record_append(const struct keyring *keyring, uint64_t version, struct span id,
                          struct span text, struct buf *out)
{
    struct buf context = {}, sealed = {};

    context_make(version, id, &context);
    keyring_seal(keyring, buf_span(&context), text, &sealed);
    buf_append_be16(out, (uint16_t)id.len);
    buf_append_span(out, id);
    buf_append_be32(out, (uint32_t)buf_len(&sealed));
    buf_append_span(out, buf_span(&sealed));
    buf_done(&sealed);
    buf_done(&context);
}

static void head_append(const struct keyring *keyring, const struct scope_cache *cache,
                        struct buf *out)
{
    const char *texts[HEAD_TEXTS] = { cache->hub_hostname, cache->device_id,
                                      cache->edge_hub_generation };
    struct buf head = {};

    buf_append_be64(&head, cache->scope ? scope_count(cache->scope) : 0);
    buf_append_be64(&head, (uint64_t)cache->refreshed_sec);
    buf_append_byte(&head, cache->scope != NULL);
    for (size_t i = 0; i < HEAD_TEXTS; i++) {
        struct span text = span_str(texts[i]);

        buf_append_be16(&head, (uint16_t)text.len);
        buf_append_span(&head, text);
    }
    record_append(keyring, cache->version, SPAN(""), buf_span(&head), out);
    buf_done(&head);
}

void scope_cache_encode(const struct keyring *keyring, const struct scope_cache *cache,
                        struct buf *out)
{
    buf_append_span(out, MAGIC);
    buf_append_be64(out, cache->version);
    head_append(keyring, cache, out);
    for (size_t i = 0; cache->scope && i < scope_count(cache->scope); i++) {
        const struct scope_identity *identity = scope_at(cache->scope, i);
        _cleanup_(freep) char *id = identity_name(identity->device_id, identity->module_id);
        char *text = scope_identity_print(identity);

        record_append(keyring, cache->version, span_str(id), span_str(text), out);
        OPENSSL_cleanse(text, strlen(text));
        free(text);
    }
}

/* ---- in ---- */

static bool eat(struct span *s, size_t len, struct span *ret)
{
    if (s->len < len)
        return false;
    *ret = span_of(s->at, len);
    s->at += len;
    s->len -= len;
    return true;
}

static bool eat_be64(struct span *s, uint64_t *ret)
{
    struct span bytes;
    uint64_t v;

    if (!eat(s, sizeof(v), &bytes))
        return false;
    memcpy(&v, bytes.at, sizeof(v));
    *ret = be64toh(v);
    return true;
}

static bool eat_be16_text(struct span *s, struct span *ret)
{
    struct span bytes;
    uint16_t v;

    if (!eat(s, sizeof(v), &bytes))
        return false;
    memcpy(&v, bytes.at, sizeof(v));
    return eat(s, be16toh(v), ret);
}

static bool eat_be32_text(struct span *s, struct span *ret)
{
    struct span bytes;
    uint32_t v;

    if (!eat(s, sizeof(v), &bytes))
        return false;
    memcpy(&v, bytes.at, sizeof(v));
    v = be32toh(v);
    return v <= RECORD_BYTES_MAX && eat(s, v, ret);
}

/* The next record, unsealed: wipe() it. */
static bool record_read(const struct keyring *keyring, uint64_t version, struct span *in,
                        struct span *ret_id, struct buf *ret_text)
{
    struct buf context = {};
    struct span sealed;
    int r;

    if (!eat_be16_text(in, ret_id) || !eat_be32_text(in, &sealed))
        return false;
    context_make(version, *ret_id, &context);
    r = keyring_unseal(keyring, buf_span(&context), sealed, ret_text);
    buf_done(&context);
    return r == 0;
}

static bool head_parse(struct span in, struct scope_cache *cache, uint64_t *ret_count)
{
    char **texts[HEAD_TEXTS] = { &cache->hub_hostname, &cache->device_id,
                                 &cache->edge_hub_generation };
    struct span has_scope, text;
    uint64_t refreshed_sec;

    if (!eat_be64(&in, ret_count) || !eat_be64(&in, &refreshed_sec) || !eat(&in, 1, &has_scope))
        return false;
    for (size_t i = 0; i < HEAD_TEXTS; i++) {
        if (!eat_be16_text(&in, &text))
            return false;
        *texts[i] = text.len > 0 ? span_xdup(text) : NULL;
    }
    cache->refreshed_sec = (int64_t)refreshed_sec;
    cache->scope = *has_scope.at ? scope_new() : NULL;
    return in.len == 0 && cache->hub_hostname && cache->device_id &&
           (cache->scope || *ret_count == 0);
}

static bool head_read(const struct keyring *keyring, struct span *in, struct scope_cache *cache,
                      uint64_t *ret_count)
{
    struct buf text = {};
    struct span id;
    bool good;

    if (!span_eat(in, MAGIC) || !eat_be64(in, &cache->version))
        return false;
    good = record_read(keyring, cache->version, in, &id, &text) && id.len == 0 &&
           head_parse(buf_span(&text), cache, ret_count);
    wipe(&text);
    return good;
}

static bool identity_read(const struct keyring *keyring, struct span *in, struct scope_cache *cache)
{
    struct scope_identity *identity = NULL;
    struct buf text = {};
    struct span id;
    bool good;

    good = record_read(keyring, cache->version, in, &id, &text) &&
           scope_identity_parse(buf_span(&text), &identity) == 0;
    if (good) {
        _cleanup_(freep) char *name = identity_name(identity->device_id, identity->module_id);

        good = span_equal(id, span_str(name));
        scope_put_take(cache->scope, identity);
    }
    wipe(&text);
    return good;
}

int scope_cache_decode(const struct keyring *keyring, struct span in, struct scope_cache *ret)
{
    struct scope_cache cache = {};
    uint64_t count;
    bool good;

    good = head_read(keyring, &in, &cache, &count);
    for (uint64_t i = 0; good && i < count; i++)
        good = identity_read(keyring, &in, &cache);
    if (!good || in.len > 0) {
        scope_cache_done(&cache);
        return SCOPE_CACHE_E_DAMAGED;
    }
    *ret = cache;
    return 0;
}

int scope_cache_load(const struct keyring *keyring, const char *path, struct scope_cache *ret)
{
    struct buf content = {};
    int r;

    r = state_file_read(path, CACHE_BYTES_MAX, &content);
    if (r == -ENOENT)
        return SCOPE_CACHE_E_ABSENT;
    if (r == -EFBIG || r == -EINVAL)
        r = SCOPE_CACHE_E_DAMAGED;
    else if (r == 0)
        r = scope_cache_decode(keyring, buf_span(&content), ret);
    buf_done(&content);
    if (r == SCOPE_CACHE_E_DAMAGED)
        state_file_set_aside(path);
    return r;
}
