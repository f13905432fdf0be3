#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "client-certificate.h"
#include "test-pki.h"

#define NOW    INT64_C(1800000000)
#define BEFORE (NOW - 1000)
#define AFTER  (NOW + 1000)

enum authority { NOBODY, ITSELF, ROOT, MIDDLE, EDGE, STRANGER };

struct world {
    struct pki root, middle, edge, stranger;
    char *anchors, *edge_pem;
    struct client_trust *trust;
};

/* The edge CA hangs under the same root that the operator trusts for devices: the case that T7 is
 * about. */
static int setup(void **state)
{
    struct world *w = xnew(struct world);
    _cleanup_(freep) char *root = NULL;

    w->root = pki_make(NULL, &(struct pki_wish){ "root", NULL, true, NULL, BEFORE, AFTER });
    w->middle = pki_make(&w->root, &(struct pki_wish){ "middle", NULL, true, NULL, BEFORE, AFTER });
    w->edge = pki_make(&w->root, &(struct pki_wish){ "edge ca", NULL, true, NULL, BEFORE, AFTER });
    w->stranger = pki_make(NULL, &(struct pki_wish){ "root", NULL, true, NULL, BEFORE, AFTER });
    w->edge_pem = pki_pem(w->edge.certificate);
    root = pki_pem(w->root.certificate);
    w->anchors = xasprintf("%s%s", root, w->edge_pem);
    assert_int_equal(client_trust_new(w->anchors, w->edge_pem, &w->trust), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    pki_done(&w->root);
    pki_done(&w->middle);
    pki_done(&w->edge);
    pki_done(&w->stranger);
    client_trust_free(w->trust);
    free(w->anchors);
    free(w->edge_pem);
    free(w);
    return 0;
}

static const struct pki *authority_of(const struct world *w, enum authority which)
{
    switch (which) {
    case ROOT:
        return &w->root;
    case MIDDLE:
        return &w->middle;
    case EDGE:
        return &w->edge;
    case STRANGER:
        return &w->stranger;
    default:
        return NULL;
    }
}

static struct client_certificate *parse(X509 *leaf, X509 *issuer)
{
    struct span der[2] = { pki_der(leaf), issuer ? pki_der(issuer) : (struct span){} };
    struct client_certificate *certificate = NULL;

    assert_int_equal(client_certificate_parse(der, issuer ? 2 : 1, &certificate), 0);
    free((char *)der[0].at);
    free((char *)der[1].at);
    return certificate;
}

static void test_authority(void **state)
{
    static const struct {
        struct pki_wish wish;
        enum authority issuer;
        bool sends_issuer;
        const char *device_id;
        int want;
    } cases[] = {
        { { "leaf1", NULL, false, NULL, BEFORE, AFTER }, ROOT, false, "leaf1", 0 },
        { { "leaf1", NULL, false, "clientAuth", BEFORE, AFTER }, MIDDLE, true, "leaf1", 0 },
        { { "leaf1", NULL, false, "serverAuth,clientAuth", BEFORE, AFTER },
          ROOT,
          false,
          "leaf1",
          0 },
        { { "leaf1", NULL, false, NULL, BEFORE, AFTER },
          MIDDLE,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_UNTRUSTED },
        { { "leaf1", NULL, false, NULL, BEFORE, AFTER },
          STRANGER,
          true,
          "leaf1",
          CLIENT_CERTIFICATE_E_UNTRUSTED },
        { { "leaf1", NULL, false, NULL, BEFORE, AFTER },
          ITSELF,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_UNTRUSTED },
        { { "leaf1", NULL, false, NULL, BEFORE, AFTER, .by_sha1 = true },
          ROOT,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_UNTRUSTED },
        /* T7: issued by the edge CA, whether or not it is sent along, though its root is trusted
           and it is in the bundle itself */
        { { "leaf1", NULL, false, NULL, BEFORE, AFTER },
          EDGE,
          true,
          "leaf1",
          CLIENT_CERTIFICATE_E_UNTRUSTED },
        { { "leaf1", NULL, false, NULL, BEFORE, AFTER },
          EDGE,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_UNTRUSTED },
        { { "leaf1", NULL, false, "clientAuth", BEFORE, AFTER },
          EDGE,
          true,
          "leaf1",
          CLIENT_CERTIFICATE_E_UNTRUSTED },
        { { "leaf1", NULL, false, "serverAuth", BEFORE, AFTER },
          ROOT,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_PURPOSE },
        { { "leaf1", NULL, true, NULL, BEFORE, AFTER },
          ROOT,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_PURPOSE },
        { { "leaf1", NULL, false, NULL, BEFORE, AFTER },
          ROOT,
          false,
          "leaf2",
          CLIENT_CERTIFICATE_E_NAME },
        { { "leaf1", NULL, false, NULL, BEFORE, AFTER },
          ROOT,
          false,
          "Leaf1",
          CLIENT_CERTIFICATE_E_NAME },
        { { "x,CN=leaf1", NULL, false, NULL, BEFORE, AFTER },
          ROOT,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_NAME },
        { { "leaf2", "leaf1", false, NULL, BEFORE, AFTER },
          ROOT,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_NAME },
        { { "leaf1", "leaf2", false, NULL, BEFORE, AFTER },
          ROOT,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_NAME },
        { { "leaf1", NULL, false, NULL, BEFORE, NOW - 1 },
          ROOT,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_DATES },
        { { "leaf1", NULL, false, NULL, NOW + 1, AFTER },
          ROOT,
          false,
          "leaf1",
          CLIENT_CERTIFICATE_E_DATES },
    };
    const struct world *w = *state;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(client_certificate_freep) struct client_certificate *certificate = NULL;
        _cleanup_(pki_done) struct pki leaf = {};
        const struct pki *issuer = authority_of(w, cases[i].issuer);

        leaf = pki_make(issuer, &cases[i].wish);
        certificate = parse(leaf.certificate, cases[i].sends_issuer ? issuer->certificate : NULL);
        assert_int_equal(
            client_certificate_check_authority(certificate, w->trust, cases[i].device_id, NOW),
            cases[i].want);
        if (cases[i].want == 0)
            assert_int_equal(
                client_certificate_check_authority(certificate, NULL, cases[i].device_id, NOW),
                CLIENT_CERTIFICATE_E_UNTRUSTED);
        assert_int_equal(client_certificate_not_after(certificate), cases[i].wish.not_after_sec);
    }
}

/* The same key under another name and another issuer is the edge CA still. */
static void test_cross_signed_edge_ca(void **state)
{
    struct world *w = *state;
    _cleanup_(client_certificate_freep) struct client_certificate *certificate = NULL;
    _cleanup_(pki_done) struct pki leaf = {};
    _cleanup_(x509_freep) X509 *crossed = X509_dup(w->edge.certificate);

    must(X509_set_issuer_name(crossed, X509_get_subject_name(w->middle.certificate)) == 1);
    must(X509_sign(crossed, w->middle.key, EVP_sha256()) > 0);
    leaf =
        pki_make(&w->edge, &(struct pki_wish){ "leaf1", NULL, false, "clientAuth", BEFORE, AFTER });
    certificate = parse(leaf.certificate, crossed);
    assert_int_equal(client_certificate_check_authority(certificate, w->trust, "leaf1", NOW),
                     CLIENT_CERTIFICATE_E_UNTRUSTED);
}

static void hex(const EVP_MD *kind, X509 *certificate, const char *format, char *out)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len;

    must(X509_digest(certificate, kind, digest, &len) == 1);
    for (unsigned i = 0; i < len; i++)
        out += sprintf(out, format, digest[i]);
}

static void test_thumbprint(void **state)
{
    _cleanup_(client_certificate_freep) struct client_certificate *certificate = NULL;
    _cleanup_(pki_done) struct pki leaf = {};
    char sha1[128], sha1_upper[128], sha256[128], sha256_colons[128], wrong[128], cut[128];

    leaf = pki_make(NULL, &(struct pki_wish){ "anything", NULL, false, NULL, BEFORE, AFTER });
    certificate = parse(leaf.certificate, NULL);
    hex(EVP_sha1(), leaf.certificate, "%02x", sha1);
    hex(EVP_sha1(), leaf.certificate, "%02X", sha1_upper);
    hex(EVP_sha256(), leaf.certificate, "%02x", sha256);
    hex(EVP_sha256(), leaf.certificate, "%02X:", sha256_colons);
    strcpy(wrong, sha1);
    wrong[39] = wrong[39] == '0' ? '1' : '0';
    strcpy(cut, sha256);
    cut[40] = '\0';

    {
        const struct {
            const char *primary, *secondary;
            int want;
        } cases[] = {
            { sha1, NULL, 0 },
            { sha1_upper, NULL, 0 },
            { sha256, wrong, 0 },
            { sha256_colons, NULL, 0 },
            { wrong, sha1, 0 },
            { NULL, sha256, 0 },
            { wrong, NULL, CLIENT_CERTIFICATE_E_THUMBPRINT },
            { cut, "", CLIENT_CERTIFICATE_E_THUMBPRINT },
            { "zz", NULL, CLIENT_CERTIFICATE_E_THUMBPRINT },
            { NULL, NULL, CLIENT_CERTIFICATE_E_THUMBPRINT },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
            assert_int_equal(client_certificate_check_thumbprint(certificate, cases[i].primary,
                                                                 cases[i].secondary, NOW),
                             cases[i].want);
    }
    assert_int_equal(client_certificate_check_thumbprint(certificate, sha1, NULL, AFTER + 1),
                     CLIENT_CERTIFICATE_E_DATES);
    assert_int_equal(client_certificate_check_thumbprint(certificate, sha1, NULL, BEFORE - 1),
                     CLIENT_CERTIFICATE_E_DATES);
}

static void test_parse_malformed(void **state)
{
    struct world *w = *state;
    struct client_certificate *certificate = NULL;
    struct span good = pki_der(w->root.certificate), many[CLIENT_CHAIN_MAX + 1];
    _cleanup_(freep) char *longer = xnew_n(char, good.len + 1),
                          *huge = xnew_n(char, CLIENT_CHAIN_BYTES_MAX + 1);

    memcpy(longer, good.at, good.len);
    for (size_t i = 0; i < ELEMENTSOF(many); i++)
        many[i] = good;
    assert_int_equal(client_certificate_parse(many, 0, &certificate),
                     CLIENT_CERTIFICATE_E_MALFORMED);
    assert_int_equal(client_certificate_parse(many, ELEMENTSOF(many), &certificate),
                     CLIENT_CERTIFICATE_E_MALFORMED);
    {
        const struct span bad[] = {
            SPAN(""),
            SPAN("garbage"),
            span_of(good.at, good.len - 1),
            span_of(longer, good.len + 1),
            span_of(huge, CLIENT_CHAIN_BYTES_MAX + 1),
        };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
            struct span second[] = { good, bad[i] };

            assert_int_equal(client_certificate_parse(&bad[i], 1, &certificate),
                             CLIENT_CERTIFICATE_E_MALFORMED);
            assert_int_equal(client_certificate_parse(second, 2, &certificate),
                             CLIENT_CERTIFICATE_E_MALFORMED);
        }
    }
    assert_null(certificate);
    free((char *)good.at);
}

static void test_trust_malformed(void **state)
{
    struct client_trust *trust = NULL;

    assert_int_equal(client_trust_new("", NULL, &trust), -EINVAL);
    assert_int_equal(client_trust_new("no PEM", NULL, &trust), -EINVAL);
    assert_null(trust);
    assert_int_equal(client_trust_new(NULL, NULL, &trust), 0);
    client_trust_free(trust);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_authority),       cmocka_unit_test(test_cross_signed_edge_ca),
        cmocka_unit_test(test_thumbprint),      cmocka_unit_test(test_parse_malformed),
        cmocka_unit_test(test_trust_malformed),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
