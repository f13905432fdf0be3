#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "identity.h"
#include "mem.h"

static void test_check(void **state)
{
    static const struct {
        const char *settings;
        const char *want; /* the key at fault; NULL: fine */
    } cases[] = {
        { "  connection_string_file: /x\n", NULL },
        { "  connection_string: HostName=h\n", NULL },
        { "  connection_string_file: /x\n  edge_ca_cert: /c\n  edge_ca_key: /k\n", NULL },
        { "  connection_string_file: /x\n  server_names: [gw.local, 10.0.0.1, 'fd00::1']\n", NULL },
        { "  upstream_port: 443\n", "connection_string_file" },
        { "  connection_string_file: /x\n  connection_string: y\n", "connection_string_file" },
        { "  connection_string_file: /x\n  edge_ca_cert: /c\n", "edge_ca_key" },
        { "  connection_string_file: /x\n  edge_ca_key: /k\n", "edge_ca_cert" },
        { "  connection_string_file: /x\n  server_names: ['a b']\n", "server_names" },
        { "  connection_string_file: /x\n  server_names: ['']\n", "server_names" },
        { "  connection_string_file: /x\n  scope_refresh_s: 1\n", "scope_refresh_s" },
        { "  connection_string_file: /x\n  certificate_days: 0\n", "certificate_days" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(freep) char *text = xasprintf("settings:\n%s", cases[i].settings);
        struct config_document *d = NULL;
        struct identity_config config = {};
        struct config_error error = {};
        int r;

        assert_int_equal(config_document_parse(text, strlen(text), "identity.yaml", &d, &error), 0);
        r = config_take(d, "settings", identity_config_items, &config, &error);
        if (r == 0)
            r = identity_config_check(d, &config, &error);
        assert_int_equal(r, cases[i].want ? CONFIG_E_INVALID : 0);
        if (cases[i].want)
            assert_non_null(strstr(error.text, cases[i].want));
        config_clear(identity_config_items, &config);
        config_document_free(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
