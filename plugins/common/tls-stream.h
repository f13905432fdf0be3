/*
 * One TLS connection on a non-blocking socket under sd-event: handshake, reading, writing, closing.
 * Used by the front and the local hub (server side) and by the upstream (client side). Idle
 * connections keep no buffers (SSL_MODE_RELEASE_BUFFERS).
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "mem.h"

struct tls_stream;

/* Called by the loop, never from inside tls_stream_*(). Any of them may free the stream. */
struct tls_stream_ops {
    /* The handshake is done. */
    void (*on_ready)(struct tls_stream *stream, void *userdata);
    /* tls_stream_read() until -EAGAIN, or enough: the rest is told in the next turn. */
    void (*on_readable)(struct tls_stream *stream, void *userdata);
    /* All that had to wait for the socket is out. */
    void (*on_writable)(struct tls_stream *stream, void *userdata);
    /* It is over: @error 0 is an orderly close, -errno the socket's; @reason says more (a TLS
     * alert, a name mismatch, "peer speaks no TLS"), borrowed. The owner frees the stream. */
    void (*on_closed)(struct tls_stream *stream, int error, const char *reason, void *userdata);
};

/* Takes @fd whatever the result. Server side when @server_name is NULL; else the client side: SNI,
 * and the certificate must be for that name or address. @handshake_usec: it is closed when the
 * handshake took longer. The context is ref'd. */
int tls_stream_new_take(sd_event *event, SSL_CTX *context, int fd, const char *server_name,
                        uint64_t handshake_usec, const struct tls_stream_ops *ops, void *userdata,
                        struct tls_stream **ret);
struct tls_stream *tls_stream_free(struct tls_stream *stream);
DEFINE_FREEP(struct tls_stream, tls_stream_free)

/* Another owner. What came in the meantime is told to it. @ops is borrowed for the life of the
 * stream. */
void tls_stream_set_ops(struct tls_stream *stream, const struct tls_stream_ops *ops,
                        void *userdata);

/* Bytes read (as many records as fit), -EAGAIN, 0 at the orderly end. After an error: -EAGAIN, and
 * on_closed follows. */
ssize_t tls_stream_read(struct tls_stream *stream, void *data, size_t len);
/* Bytes taken (may be fewer than @len, 0 included: on_writable follows, or on_closed). What is
 * taken need not be kept. Takes nothing before on_ready. */
ssize_t tls_stream_write(struct tls_stream *stream, const void *data, size_t len);
/* Bytes taken that wait for the socket; bounded by one write. Who wants them to arrive waits for
 * on_writable before freeing. */
size_t tls_stream_pending(const struct tls_stream *stream);
/* Backpressure: while paused nothing is read from the socket and on_readable is not called. */
void tls_stream_pause(struct tls_stream *stream, bool paused);
/* Sends close_notify and closes the sending side once that is out. Reading goes on; the owner frees
 * the stream. */
void tls_stream_shutdown(struct tls_stream *stream);
SSL *tls_stream_ssl(struct tls_stream *stream); /* for facts: version, cipher, peer chain, SNI */
int tls_stream_fd(const struct tls_stream *stream);

/* TLS 1.2 and 1.3 only; small buffers; session tickets off. A client certificate is asked for and
 * any is let through when @ask_client_certificate: who it is is decided later. PEM texts. -EINVAL
 * with the reason logged. */
int tls_server_context(const char *chain_pem, const char *key_pem, bool ask_client_certificate,
                       SSL_CTX **ret);
/* @ca_file: PEM file with the authorities to trust, or NULL for the system's. */
int tls_client_context(const char *ca_file, SSL_CTX **ret);
