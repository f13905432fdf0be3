#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "hub-json.h"
#include "scope-cache.h"
#include "state-file.h"
#include "test-folder.h"

struct world {
    char *folder, *path;
    struct keyring *keyring;
    struct scope_cache cache;
};

static int setup(void **state)
{
    static const char page_text[] =
        "{\"devices\":[{\"deviceId\":\"edge1\",\"authentication\":{\"symmetricKey\":{"
        "\"primaryKey\":\"U0VDUkVU\"}},"
        "\"capabilities\":{\"iotEdge\":true},\"deviceScope\":\"s\"},"
        "{\"deviceId\":\"leaf1\",\"status\":\"disabled\",\"authentication\":{\"type\":"
        "\"selfSigned\","
        "\"x509Thumbprint\":{\"secondaryThumbprint\":\"ab\"}},\"parentScopes\":[\"s\"]}],"
        "\"modules\":[{\"deviceId\":\"edge1\",\"moduleId\":\"$edgeHub\",\"authentication\":{"
        "\"type\":\"none\"}}]}";
    struct world *w = xnew(struct world);
    struct scope_page page;
    const char *expected;

    w->folder = folder_new();
    w->path = xasprintf("%s/scope.cache", w->folder);
    assert_int_equal(keyring_new(w->folder, &w->keyring), 0);
    assert_int_equal(scope_page_parse(span_str(page_text), &page, &expected), 0);
    w->cache = (struct scope_cache){ xstrdup("hub1"), xstrdup("edge1"), xstrdup("638"), 42,
                                     1800000000,      scope_new() };
    for (size_t i = 0; i < page.count; i++)
        scope_put_take(w->cache.scope, TAKE_PTR(page.identities[i]));
    scope_page_done(&page);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    scope_cache_done(&w->cache);
    keyring_free(w->keyring);
    folder_removep(&w->folder);
    free(w->path);
    free(w);
    return 0;
}

static int save(const struct world *w, const struct scope_cache *cache)
{
    struct buf content = {};
    int r;

    scope_cache_encode(w->keyring, cache, &content);
    r = state_file_write(w->path, buf_span(&content));
    buf_done(&content);
    return r;
}

static void test_round_trip(void **state)
{
    struct world *w = *state;
    struct scope_cache cache = {};
    struct buf file = {};
    struct stat st;

    assert_int_equal(scope_cache_load(w->keyring, w->path, &cache), SCOPE_CACHE_E_ABSENT);
    assert_int_equal(save(w, &w->cache), 0);
    assert_int_equal(stat(w->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(scope_cache_load(w->keyring, w->path, &cache), 0);
    assert_string_equal(cache.hub_hostname, "hub1");
    assert_string_equal(cache.device_id, "edge1");
    assert_string_equal(cache.edge_hub_generation, "638");
    assert_int_equal(cache.version, 42);
    assert_int_equal(cache.refreshed_sec, 1800000000);
    assert_true(scope_equal(cache.scope, w->cache.scope));
    scope_cache_done(&cache);

    assert_int_equal(state_file_read(w->path, 1 << 20, &file), 0);
    assert_null(memmem(file.data, file.end, "U0VDUkVU", 8));
    assert_null(memmem(file.data, file.end, "SECRET", 6));
    buf_done(&file);
}

static void test_before_the_first_listing(void **state)
{
    struct world *w = *state;
    struct scope_cache cache = {}, empty = { .hub_hostname = w->cache.hub_hostname,
                                             .device_id = w->cache.device_id };

    assert_int_equal(save(w, &empty), 0);
    assert_int_equal(scope_cache_load(w->keyring, w->path, &cache), 0);
    assert_null(cache.scope);
    assert_null(cache.edge_hub_generation);
    scope_cache_done(&cache);
}

/* Any byte changed, any byte missing, anything added: no cache. */
static void test_tampered(void **state)
{
    struct world *w = *state;
    struct scope_cache cache = {};
    struct buf file = {};

    scope_cache_encode(w->keyring, &w->cache, &file);
    for (size_t i = 0; i < buf_len(&file); i++) {
        file.data[i] ^= 0x20;
        assert_int_equal(scope_cache_decode(w->keyring, buf_span(&file), &cache),
                         SCOPE_CACHE_E_DAMAGED);
        assert_int_equal(scope_cache_decode(w->keyring, span_of(file.data, i), &cache),
                         SCOPE_CACHE_E_DAMAGED);
        file.data[i] ^= 0x20;
    }
    buf_append_byte(&file, 0);
    assert_int_equal(scope_cache_decode(w->keyring, buf_span(&file), &cache),
                     SCOPE_CACHE_E_DAMAGED);
    assert_null(cache.scope);
    buf_done(&file);
}

static size_t record_len(const char *at)
{
    size_t id = (size_t)(uint8_t)at[0] << 8 | (uint8_t)at[1];
    size_t text = (size_t)(uint8_t)at[2 + id + 2] << 8 | (uint8_t)at[2 + id + 3];

    return 2 + id + 4 + text;
}

/* A good record of an older snapshot, in the place of the newer one: somebody wants a key back that
 * was taken away. */
static void test_record_of_another_version(void **state)
{
    const size_t head = strlen("brink scope 1\n") + 8;
    struct world *w = *state;
    struct scope_cache cache = {};
    struct buf old = {}, new = {};
    size_t first;

    scope_cache_encode(w->keyring, &w->cache, &old);
    w->cache.version++;
    scope_cache_encode(w->keyring, &w->cache, &new);
    w->cache.version--;
    assert_int_equal(buf_len(&old), buf_len(&new));
    first = head + record_len(new.data + head);
    assert_int_equal(scope_cache_decode(w->keyring, buf_span(&new), &cache), 0);
    scope_cache_done(&cache);
    memcpy(new.data + first, old.data + first, record_len(old.data + first));
    assert_int_equal(scope_cache_decode(w->keyring, buf_span(&new), &cache), SCOPE_CACHE_E_DAMAGED);
    buf_done(&old);
    buf_done(&new);
}

static void test_wrong_key_is_set_aside(void **state)
{
    struct world *w = *state;
    _cleanup_(folder_removep) char *elsewhere = folder_new();
    _cleanup_(freep) char *aside = xasprintf("%s.bad", w->path);
    _cleanup_(keyring_freep) struct keyring *other = NULL;
    struct scope_cache cache = {};

    assert_int_equal(keyring_new(elsewhere, &other), 0);
    assert_int_equal(save(w, &w->cache), 0);
    assert_int_equal(scope_cache_load(other, w->path, &cache), SCOPE_CACHE_E_DAMAGED);
    assert_int_equal(access(aside, F_OK), 0);
    assert_int_equal(scope_cache_load(other, w->path, &cache), SCOPE_CACHE_E_ABSENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_before_the_first_listing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tampered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_record_of_another_version, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_key_is_set_aside, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
