#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "listen-sockets.h"
#include "mem.h"

static void test_listen_address_parse_accepts(void **state)
{
    static const struct {
        const char *in;
        int family;
        const char *want; /* the address, or the path */
        int port;
    } cases[] = {
        { "0.0.0.0:8883", AF_INET, "0.0.0.0", 8883 },
        { "127.0.0.1:1", AF_INET, "127.0.0.1", 1 },
        { "[::]:65535", AF_INET6, "::", 65535 },
        { "[::1]:443", AF_INET6, "::1", 443 },
        { "unix:streams/mqtt.sock", AF_UNIX, "/run/x/streams/mqtt.sock", 0 },
        { "unix:/tmp/a.sock", AF_UNIX, "/tmp/a.sock", 0 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct listen_address address;
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address.storage;
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address.storage;
        const struct sockaddr_un *un = (const struct sockaddr_un *)&address.storage;
        const char *expected;
        char text[64];

        assert_int_equal(listen_address_parse(cases[i].in, "/run/x", &address, &expected), 0);
        assert_int_equal(address.storage.ss_family, cases[i].family);
        if (cases[i].family == AF_UNIX) {
            assert_string_equal(un->sun_path, cases[i].want);
            continue;
        }
        inet_ntop(cases[i].family,
                  cases[i].family == AF_INET ? (const void *)&v4->sin_addr
                                             : (const void *)&v6->sin6_addr,
                  text, sizeof(text));
        assert_string_equal(text, cases[i].want);
        assert_int_equal(ntohs(cases[i].family == AF_INET ? v4->sin_port : v6->sin6_port),
                         cases[i].port);
    }
}

static void test_listen_address_parse_refuses(void **state)
{
    static const char *const cases[] = {
        "",
        "8883",
        "0.0.0.0",
        "0.0.0.0:",
        "0.0.0.0:0",
        "0.0.0.0:65536",
        "0.0.0.0:8883 ",
        "localhost:8883",
        "::1:8883",
        "[::1:8883",
        "[]:1",
        "[127.0.0.1]:1",
        "unix:",
        "1.2.3.4.5:80",
        ":8883",
        "unix:"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct listen_address address;
        const char *expected = NULL;

        assert_int_equal(listen_address_parse(cases[i], "/run/x", &address, &expected),
                         LISTEN_E_SYNTAX);
        assert_non_null(expected);
    }
}

static struct listen_sockets take(const char *yaml, const char *run_dir)
{
    struct config_document *d = NULL;
    struct config_error error = {};
    struct listen_sockets s = {};

    assert_int_equal(config_document_parse(yaml, strlen(yaml), "x.yaml", &d, &error), 0);
    if (listen_sockets_take(d, run_dir, &s, &error) != 0)
        fail_msg("%s", error.text);
    config_document_free(d);
    return s;
}

static ino_t inode_of(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static void test_listen_sockets_open_close_give(void **state)
{
    char dir[] = "/tmp/brink-listen-XXXXXX";
    const struct listen_socket *failed = NULL;
    struct listen_sockets a, b;
    _cleanup_(freep) char *path = NULL;
    struct stat st;

    assert_non_null(mkdtemp(dir));
    path = xasprintf("%s/a.sock", dir);
    a = take("sockets: [{name: in, listen: 'unix:a.sock'}]\n", dir);
    b = take("sockets: [{name: in, listen: 'unix:a.sock'}]\n", dir);

    assert_int_equal(listen_sockets_open(&a, (gid_t)-1, &failed), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    /* One that is given is used, and not opened again. */
    assert_false(listen_sockets_give(&b, "out", a.sockets[0].fd, false));
    assert_true(listen_sockets_give(&b, "in", dup(a.sockets[0].fd), true));
    assert_false(listen_sockets_give(&b, "in", a.sockets[0].fd, false));
    assert_int_equal(listen_sockets_open(&b, (gid_t)-1, &failed), 0);
    assert_int_equal(inode_of(a.sockets[0].fd), inode_of(b.sockets[0].fd));

    listen_sockets_close(&a);
    assert_int_equal(a.sockets[0].fd, -1);
    listen_sockets_close(&b); /* systemd's stays */
    assert_true(b.sockets[0].fd >= 0);
    listen_sockets_done(&a);
    listen_sockets_done(&b);
    unlink(path);
    rmdir(dir);
}

/* What a plugin of a former supervisor brings may be of an address that is configured no more. */
static void test_listen_sockets_give_goes_by_address(void **state)
{
    static const char *const yaml = "sockets:\n"
                                    "  - {name: in, listen: '127.0.0.1:47119'}\n"
                                    "  - {name: in, listen: '127.0.0.2:47119'}\n"
                                    "  - {name: in, listen: 'unix:a.sock'}\n";
    char dir[] = "/tmp/brink-listen-XXXXXX";
    const struct listen_socket *failed = NULL;
    struct listen_sockets a, b;

    assert_non_null(mkdtemp(dir));
    a = take(yaml, dir);
    b = take(yaml, dir);
    assert_int_equal(listen_sockets_open(&a, (gid_t)-1, &failed), 0);
    for (size_t i = a.count; i-- > 0;) {
        assert_true(listen_sockets_give(&b, "in", a.sockets[i].fd, false));
        assert_int_equal(b.sockets[i].fd, a.sockets[i].fd);
        assert_false(listen_sockets_give(&b, "in", a.sockets[i].fd, false));
        a.sockets[i].fd = -1;
    }
    unlink(((const struct sockaddr_un *)&a.sockets[2].address.storage)->sun_path);
    listen_sockets_done(&a);
    listen_sockets_done(&b);
    rmdir(dir);
}

static void test_listen_sockets_give_refuses_what_does_not_listen(void **state)
{
    struct listen_sockets s = take("sockets: [{name: in, listen: 'unix:a.sock'}]\n", "/nowhere");
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    assert_false(listen_sockets_give(&s, "in", fds[0], false));
    close(fds[0]);
    close(fds[1]);
    listen_sockets_done(&s);
}

static void test_listen_sockets_open_names_what_failed(void **state)
{
    struct listen_sockets s =
        take("sockets: [{name: in, listen: 'unix:a.sock'}]\n", "/nowhere/at/all");
    const struct listen_socket *failed = NULL;

    assert_true(listen_sockets_open(&s, (gid_t)-1, &failed) < 0);
    assert_string_equal(failed->listen, "unix:a.sock");
    listen_sockets_done(&s);
}

/* A typing error must not cost a file. */
static void test_listen_sockets_open_spares_files(void **state)
{
    char dir[] = "/tmp/brink-XXXXXX";
    _cleanup_(freep) char *path = NULL;
    const struct listen_socket *failed;
    struct listen_sockets s;

    assert_non_null(mkdtemp(dir));
    path = xasprintf("%s/a.sock", dir);
    close(open(path, O_CREAT | O_CLOEXEC, 0600));
    s = take("sockets: [{name: in, listen: 'unix:a.sock'}]\n", dir);
    assert_int_equal(listen_sockets_open(&s, (gid_t)-1, &failed), -EADDRINUSE);
    assert_int_equal(access(path, F_OK), 0);
    listen_sockets_done(&s);
    unlink(path);
    rmdir(dir);
}

static void test_listen_sockets_take_refuses(void **state)
{
    static const struct {
        const char *in, *want;
    } cases[] = {
        { "sockets:\n  - name: a\n    listen: nowhere\n",
          "x.yaml:3: sockets[0].listen: expected ADDRESS:PORT" },
        { "sockets:\n  - listen: 'unix:x'\n", "sockets[0].name: expected" },
        { "sockets:\n  - name: 'a:b'\n    listen: 'unix:x'\n",
          "x.yaml:2: sockets[0].name: expected printable" },
        { "sockets:\n  - name: a\n    listen: 'unix:x'\n    mode: 1\n",
          "x.yaml:4: sockets[0].mode: unknown key" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct config_document *d = NULL;
        struct config_error error = {};
        struct listen_sockets s;

        assert_int_equal(
            config_document_parse(cases[i].in, strlen(cases[i].in), "x.yaml", &d, &error), 0);
        assert_int_equal(listen_sockets_take(d, "/run/x", &s, &error), CONFIG_E_INVALID);
        if (!strstr(error.text, cases[i].want))
            fail_msg("got: %s", error.text);
        config_document_free(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listen_address_parse_accepts),
        cmocka_unit_test(test_listen_address_parse_refuses),
        cmocka_unit_test(test_listen_sockets_open_close_give),
        cmocka_unit_test(test_listen_sockets_give_goes_by_address),
        cmocka_unit_test(test_listen_sockets_give_refuses_what_does_not_listen),
        cmocka_unit_test(test_listen_sockets_open_names_what_failed),
        cmocka_unit_test(test_listen_sockets_open_spares_files),
        cmocka_unit_test(test_listen_sockets_take_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
