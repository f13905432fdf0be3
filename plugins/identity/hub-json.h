/*
 * The JSON that passes between the gateway and the hub's REST API (identity.md §5.2, §9), and the
 * form in which one identity is kept in the cache: the hub's own. Pure; the only file that knows
 * jansson.
 */
#pragma once

#include "scope.h"
#include "span.h"

enum { HUB_JSON_E_MALFORMED = 1 };

/* One page of a scope listing. A record that makes no sense is left out alone and counted. Owns
 * all. */
struct scope_page {
    struct scope_identity **identities;
    size_t device_count; /* devices come first */
    size_t count;
    size_t capacity;
    size_t skipped;
    char *continuation; /* NULL: the last page */
};
int scope_page_parse(struct span text, struct scope_page *ret, const char **ret_expected);
void scope_page_done(struct scope_page *page);

/* One identity, printed and read again. The text is the caller's to free: it holds keys. */
char *scope_identity_print(const struct scope_identity *identity);
int scope_identity_parse(struct span text, struct scope_identity **ret);

/* What GET of a module identity says. Owns its strings; primary_key is NULL when the identity has
 * none yet. */
struct hub_module {
    char *generation_id;
    char *managed_by;
    struct sas_key *primary_key;
};
int hub_module_parse(struct span text, struct hub_module *ret, const char **ret_expected);
void hub_module_done(struct hub_module *m);

/* Request bodies, the caller's to free. */
char *hub_json_scope_listing(unsigned page_size, const char *continuation, const char *auth_chain);
char *hub_json_scope_lookup(const char *device_id, const char *module_id, const char *auth_chain);
char *hub_json_module_keys(const char *device_id, const char *module_id, const char *managed_by,
                           const struct sas_key *primary, const struct sas_key *secondary);
