/* Any bytes as a page of the scope: no crash, and what is read prints to what reads the same. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "hub-json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_identity(const struct scope_identity *identity)
{
    _cleanup_(scope_identity_freep) struct scope_identity *again = NULL;
    _cleanup_(freep) char *text = scope_identity_print(identity);

    assert(scope_identity_parse(span_str(text), &again) == 0);
    assert(scope_identity_equal(identity, again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(scope_freep) struct scope *scope = scope_new();
    struct scope_page page;
    struct hub_module module;
    const char *expected;

    if (hub_module_parse(span_of(data, size), &module, &expected) == 0)
        hub_module_done(&module);
    if (scope_page_parse(span_of(data, size), &page, &expected) != 0)
        return 0;
    for (size_t i = 0; i < page.count; i++) {
        check_identity(page.identities[i]);
        scope_put_take(scope, scope_identity_dup(page.identities[i]));
    }
    for (size_t i = 0; i < scope_count(scope); i++)
        free(scope_chain(scope, "edge1", scope_at(scope, i)->device_id,
                         scope_at(scope, i)->module_id));
    scope_page_done(&page);
    return 0;
}
