#include "certificate-issue.h"

#include <arpa/inet.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "mem.h"
#include "ossl.h"

enum {
    SERIAL_BYTES = 16,
    BACKDATE_SEC = 3600, /* clients whose clock is behind */
};

EVP_PKEY *certificate_key_make(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");

    must(key);
    return key;
}

/* ---- parts ---- */

/* Random, so that two never meet under one CA, and positive. */
static void serial_set(X509 *certificate)
{
    uint8_t bytes[SERIAL_BYTES];
    BIGNUM *number;

    must(RAND_bytes(bytes, sizeof(bytes)) == 1);
    bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40);
    number = BN_bin2bn(bytes, sizeof(bytes), NULL);
    must(number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)));
    BN_free(number);
}

static void subject_set(X509 *certificate, const char *common_name)
{
    X509_NAME *name = X509_get_subject_name(certificate);
    int len = (int)strnlen(common_name, CERTIFICATE_CN_MAX);

    must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common_name,
                                    len, -1, 0) == 1);
}

static void dates_set(X509 *certificate, int64_t now_sec, int64_t not_after_sec)
{
    must(ASN1_TIME_set(X509_getm_notBefore(certificate), (time_t)(now_sec - BACKDATE_SEC)) &&
         ASN1_TIME_set(X509_getm_notAfter(certificate), (time_t)not_after_sec));
}

static void extension_add(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509_EXTENSION *extension;
    X509V3_CTX context;

    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    must(extension && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static X509 *begin(EVP_PKEY *key, const char *common_name, int64_t now_sec, int64_t not_after_sec)
{
    X509 *certificate = X509_new();

    must(certificate && X509_set_version(certificate, X509_VERSION_3) == 1);
    must(X509_set_pubkey(certificate, key) == 1);
    serial_set(certificate);
    subject_set(certificate, common_name);
    dates_set(certificate, now_sec, not_after_sec);
    return certificate;
}

/* ---- names ---- */

static GENERAL_NAME *general_name(const char *text)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_STRING *value;
    uint8_t address[16];
    size_t len = 0;

    if (inet_pton(AF_INET, text, address) == 1)
        len = 4;
    else if (inet_pton(AF_INET6, text, address) == 1)
        len = 16;
    value = ASN1_STRING_type_new(len > 0 ? V_ASN1_OCTET_STRING : V_ASN1_IA5STRING);
    must(name && value);
    if (len > 0)
        must(ASN1_STRING_set(value, address, (int)len) == 1);
    else
        must(ASN1_STRING_set(value, text, -1) == 1);
    GENERAL_NAME_set0_value(name, len > 0 ? GEN_IPADD : GEN_DNS, value);
    return name;
}

static bool seen_before(const char *const *names, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (strcasecmp(names[i], names[at]) == 0)
            return true;
    return false;
}

static GENERAL_NAMES *general_names(const char *const *names)
{
    GENERAL_NAMES *all = sk_GENERAL_NAME_new_null();

    must(all);
    for (size_t i = 0; names[i] && i < CERTIFICATE_NAMES_MAX; i++)
        if (!seen_before(names, i))
            must(sk_GENERAL_NAME_push(all, general_name(names[i])) > 0);
    return all;
}

static void names_add(X509 *certificate, const char *const *names)
{
    GENERAL_NAMES *all = general_names(names);

    must(X509_add1_ext_i2d(certificate, NID_subject_alt_name, all, 0, X509V3_ADD_DEFAULT) == 1);
    GENERAL_NAMES_free(all);
}

bool certificate_is_for_names(X509 *certificate, const char *const *names)
{
    GENERAL_NAMES *has = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    GENERAL_NAMES *wants = general_names(names);
    bool equal;

    equal = has && sk_GENERAL_NAME_num(has) == sk_GENERAL_NAME_num(wants);
    for (int i = 0; equal && i < sk_GENERAL_NAME_num(wants); i++)
        equal =
            GENERAL_NAME_cmp(sk_GENERAL_NAME_value(has, i), sk_GENERAL_NAME_value(wants, i)) == 0;
    GENERAL_NAMES_free(has);
    GENERAL_NAMES_free(wants);
    return equal;
}

/* ---- certificates ---- */

X509 *certificate_issue_authority(EVP_PKEY *key, const char *common_name, int64_t now_sec,
                                  int64_t not_after_sec)
{
    X509 *certificate = begin(key, common_name, now_sec, not_after_sec);

    must(X509_set_issuer_name(certificate, X509_get_subject_name(certificate)) == 1);
    extension_add(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
    extension_add(certificate, certificate, NID_key_usage, "critical,digitalSignature,keyCertSign");
    extension_add(certificate, certificate, NID_subject_key_identifier, "hash");
    must(X509_sign(certificate, key, EVP_sha256()) > 0);
    return certificate;
}

X509 *certificate_issue_server(X509 *authority, EVP_PKEY *authority_key, EVP_PKEY *key,
                               const char *const *names, int64_t now_sec, int64_t not_after_sec)
{
    X509 *certificate = begin(key, names[0], now_sec, not_after_sec);

    must(X509_set_issuer_name(certificate, X509_get_subject_name(authority)) == 1);
    extension_add(certificate, authority, NID_basic_constraints, "critical,CA:FALSE");
    extension_add(certificate, authority, NID_key_usage, "critical,digitalSignature");
    extension_add(certificate, authority, NID_ext_key_usage, "serverAuth");
    names_add(certificate, names);
    extension_add(certificate, authority, NID_subject_key_identifier, "hash");
    if (X509_get0_subject_key_id(authority))
        extension_add(certificate, authority, NID_authority_key_identifier, "keyid");
    must(X509_sign(certificate, authority_key, EVP_sha256()) > 0);
    return certificate;
}

static int64_t seconds(const ASN1_TIME *t)
{
    struct tm tm;

    return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

int64_t certificate_not_before(const X509 *certificate)
{
    return seconds(X509_get0_notBefore(certificate));
}

int64_t certificate_not_after(const X509 *certificate)
{
    return seconds(X509_get0_notAfter(certificate));
}
