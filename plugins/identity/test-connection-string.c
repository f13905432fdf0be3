#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "connection-string.h"

#define KEY "bXktZGV2aWNlLWtleS0wMTIzNDU2Nzg5YWJjZGVmMDE="

static void test_parse_good(void **state)
{
    static const struct {
        const char *in, *hostname, *device_id;
    } cases[] = {
        { "HostName=hub1.example.net;DeviceId=edge1;SharedAccessKey=" KEY, "hub1.example.net",
          "edge1" },
        { "SharedAccessKey=" KEY ";DeviceId=edge1;HostName=127.0.0.2", "127.0.0.2", "edge1" },
        { "HostName=h;DeviceId=edge1;SharedAccessKey=" KEY ";", "h", "edge1" },
        { "HostName=h;DeviceId=a=b;SharedAccessKey=bXk", "h", "a=b" },
        { "HostName=h;Unknown=x;DeviceId=old;DeviceId=new;SharedAccessKey=" KEY, "h", "new" },
        { "HostName=h;DeviceId=-:.+%_#*?!(),=@$';SharedAccessKey=" KEY, "h", "-:.+%_#*?!(),=@$'" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct connection_string c;
        const char *reason;

        assert_int_equal(connection_string_parse(span_str(cases[i].in), &c, &reason), 0);
        assert_string_equal(c.hub_hostname, cases[i].hostname);
        assert_string_equal(c.device_id, cases[i].device_id);
        assert_true(c.key.len > 0);
        connection_string_done(&c);
        assert_int_equal(c.key.len, 0);
    }
}

static void test_parse_bad(void **state)
{
    static const struct {
        const char *in, *want;
    } cases[] = {
        { "", "HostName is missing" },
        { "nonsense", "a part has no '='" },
        { "HostName=h;DeviceId=d", "SharedAccessKey is missing" },
        { "HostName=h;SharedAccessKey=" KEY, "DeviceId is missing" },
        { "hostname=h;DeviceId=d;SharedAccessKey=" KEY, "HostName is missing" },
        { "DeviceId=d;SharedAccessKey=" KEY, "HostName is missing" },
        { "HostName=;DeviceId=d;SharedAccessKey=" KEY, "HostName is missing" },
        { "HostName=h:443;DeviceId=d;SharedAccessKey=" KEY, "HostName is no host name" },
        { "HostName=h/x;DeviceId=d;SharedAccessKey=" KEY, "HostName is no host name" },
        { "HostName=h;DeviceId=d e;SharedAccessKey=" KEY, "DeviceId has characters" },
        { "HostName=h;DeviceId=d/m;SharedAccessKey=" KEY, "DeviceId has characters" },
        { "HostName=h;DeviceId=d;SharedAccessKey=!!!", "SharedAccessKey is no base64" },
        { "HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=" KEY, "ModuleId is given" },
        { "HostName=h;DeviceId=d;x509=true", "x509 is given" },
        { "HostName=h;DeviceId=d;GatewayHostName=p;SharedAccessKey=" KEY,
          "GatewayHostName is given" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct connection_string c;
        const char *reason = "";

        assert_int_equal(connection_string_parse(span_str(cases[i].in), &c, &reason),
                         CONNECTION_STRING_E_INVALID);
        assert_memory_equal(reason, cases[i].want, strlen(cases[i].want));
        assert_null(strstr(reason, KEY));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_good),
        cmocka_unit_test(test_parse_bad),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
