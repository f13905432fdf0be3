/* What all TLS connections of a kind have in common: versions, certificates, and the choices that
 * keep idle ones small. */
#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "log.h"
#include "ossl.h"
#include "tls-stream.h"

enum {
    READ_BUFFER_BYTES =
        32 << 10, /* several records by one recv(); only held while a record is incomplete */
    CLIENT_CHAIN_BYTES_MAX = 32 << 10, /* what a stranger may make us hold */
};

static void context_freep(SSL_CTX **context)
{
    SSL_CTX_free(*context);
}

static SSL_CTX *context_new(const SSL_METHOD *method)
{
    SSL_CTX *context = SSL_CTX_new(method);

    if (!context)
        return NULL;
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context,
                        SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, READ_BUFFER_BYTES);
    return context;
}

static int context_refuse(const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    log_event(LOG_ERR, 0, what, F_REASON(reason ? reason : "unknown"));
    ERR_clear_error();
    return -EINVAL;
}

/* Any certificate is let through: the chain is handed on, and identity decides who that is. */
static int accept_any(X509_STORE_CTX *store, void *userdata)
{
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

static bool context_use_chain(SSL_CTX *context, const char *pem)
{
    _cleanup_(bio_freep) BIO *bio = BIO_new_mem_buf(pem, -1);
    _cleanup_(x509_freep) X509 *leaf = NULL;
    X509 *next;

    if (!bio)
        return false;
    leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    if (!leaf || SSL_CTX_use_certificate(context, leaf) != 1)
        return false;
    while ((next = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
        if (SSL_CTX_add0_chain_cert(context, next) != 1) {
            X509_free(next);
            return false;
        }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) /* how the end is told */
        return false;
    ERR_clear_error();
    return true;
}

static bool context_use_key(SSL_CTX *context, const char *pem)
{
    _cleanup_(bio_freep) BIO *bio = BIO_new_mem_buf(pem, -1);
    _cleanup_(pkey_freep) EVP_PKEY *key = NULL;

    if (!bio)
        return false;
    key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)""); /* never ask for a pass phrase */
    return key && SSL_CTX_use_PrivateKey(context, key) == 1 &&
           SSL_CTX_check_private_key(context) == 1;
}

int tls_server_context(const char *chain_pem, const char *key_pem, bool ask_client_certificate,
                       SSL_CTX **ret)
{
    _cleanup_(context_freep) SSL_CTX *context = context_new(TLS_server_method());

    ERR_clear_error();
    if (!context)
        return -ENOMEM;
    SSL_CTX_set_num_tickets(context, 0);
    if (!context_use_chain(context, chain_pem))
        return context_refuse("server certificate unusable");
    if (!context_use_key(context, key_pem))
        return context_refuse("key of the server certificate unusable");
    if (ask_client_certificate) {
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_cert_verify_callback(context, accept_any, NULL);
        SSL_CTX_set_max_cert_list(context, CLIENT_CHAIN_BYTES_MAX);
    }
    *ret = TAKE_PTR(context);
    return 0;
}

int tls_client_context(const char *ca_file, SSL_CTX **ret)
{
    _cleanup_(context_freep) SSL_CTX *context = context_new(TLS_client_method());

    ERR_clear_error();
    if (!context)
        return -ENOMEM;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (ca_file ? SSL_CTX_load_verify_file(context, ca_file) != 1
                : SSL_CTX_set_default_verify_paths(context) != 1)
        return context_refuse("trusted authorities unusable");
    *ret = TAKE_PTR(context);
    return 0;
}
