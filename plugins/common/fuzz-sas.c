/* Any bytes as a token: no crash, and whatever parses is only good for an audience of the right
 * form. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "mem.h"
#include "sas.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct sas_key key = { .bytes = "fuzz", .len = 4 };
    _cleanup_(freep) uint8_t *decoded = NULL;
    struct sas_token token;
    size_t len;

    decoded = base64_decode(span_of(data, size), &len);
    if (decoded) {
        _cleanup_(freep) char *again = base64_encode(decoded, len);

        assert(len == 0 || again[0] == (char)data[0]);
    }
    if (sas_token_parse(span_of(data, size), &token) != 0)
        return 0;

    assert(token.expires_sec >= 0);
    (void)sas_token_check_expiry(&token, token.expires_sec);
    (void)sas_token_check_signature(&token, &key);
    for (unsigned depth = 0; depth <= 3; depth++) {
        _cleanup_(freep) char *host = NULL, *device_id = NULL, *module_id = NULL;
        bool device_wide;

        if (!sas_token_identity(&token, depth, &host, &device_id, &module_id))
            continue;
        assert(sas_token_check_audience(&token, host, NULL, device_id, module_id, &device_wide) ==
               0);
    }
    return 0;
}
