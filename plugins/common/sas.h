/* Shared access signature tokens: making them, and checking what clients present in every spelling
 * (identity.md §2). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

enum { SAS_CLOCK_SKEW_SEC = 300, SAS_KEY_BYTES_MAX = 256 };

struct sas_key {
    uint8_t bytes[SAS_KEY_BYTES_MAX];
    size_t len;
};

/* Base64, padding optional. False: no base64, empty or too long. */
bool sas_key_parse(struct span base64, struct sas_key *ret);
void sas_key_wipe(struct sas_key *key);
bool sas_key_equal(const struct sas_key *a, const struct sas_key *b); /* either may be NULL */

/* A token taken apart. `resource` is the sr text as it was written: that is what is signed. All
 * borrowed from the input. */
struct sas_token {
    struct span resource;
    struct span expiry;
    int64_t expires_sec;
    uint8_t signature[32];
    char policy[129]; /* skn, decoded; empty when absent */
};
enum { SAS_E_MALFORMED = 1, SAS_E_EXPIRED, SAS_E_SIGNATURE, SAS_E_AUDIENCE };
int sas_token_parse(struct span text, struct sas_token *ret);
int sas_token_check_expiry(const struct sas_token *token, int64_t now_sec); /* 0 or SAS_E_EXPIRED */
/* In constant time. */
int sas_token_check_signature(const struct sas_token *token, const struct sas_key *key);

/* Whom a device or module token is for. Compares @host_a or @host_b (may be NULL) and the ids
 * without case as written and at each decoding depth 1, 2, 3. @module_id NULL or "": the device
 * itself. @ret_device_wide: the token names the device only (it is good for its modules too, when
 * @module_id was asked). */
int sas_token_check_audience(const struct sas_token *token, const char *host_a, const char *host_b,
                             const char *device_id, const char *module_id, bool *ret_device_wide);

/* Reads device and module id out of the resource at one decoding depth (1..3); false when it has
 * not that form. The ids are the caller's. For who holds no identity to compare with yet. */
bool sas_token_identity(const struct sas_token *token, unsigned depth, char **ret_host,
                        char **ret_device_id, char **ret_module_id);

/* "SharedAccessSignature sr=…&sig=…&se=…[&skn=…]", the caller's to free. @resource is not encoded
 * yet ("hub/devices/d"). */
char *sas_token_make(const char *resource, const struct sas_key *key, const char *policy,
                     int64_t expires_sec);

char *percent_encode(struct span s); /* all but A-Za-z0-9-_.~, upper-case hex */
/* A malformed % is kept literally; '+' stays '+'. */
char *percent_decode(struct span s, size_t *ret_len);
char *base64_encode(const void *data, size_t len);
/* Padding optional. NULL: malformed. */
uint8_t *base64_decode(struct span s, size_t *ret_len);
void hmac_sha256(const struct sas_key *key, const void *data, size_t len, uint8_t ret[static 32]);
