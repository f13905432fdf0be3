/*
 * Every key of the gateway, and the only file that opens one: the device's, the master from which
 * modules' keys are derived, the one that encrypts the cache, private keys of certificates. They
 * live in locked memory that is in no core dump and is wiped when it is freed. What leaves is what
 * was made with them: tokens, MACs, sealed records; a module's derived key, for the hub; and the
 * server's private key, for the front.
 */
#pragma once

#include <openssl/types.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "mem.h"
#include "sas.h"
#include "span.h"

struct keyring;

/* First thing in the process, before any key is read: no core dumps, no other process may look in,
 * locked memory. */
int keyring_protect_process(void);

/* Opens STATE_DIR/keys, and makes the master and the cache key when they are not there. -EINVAL (a
 * damaged or readable file) with the reason logged, or -errno. */
int keyring_new(const char *state_dir, struct keyring **ret);
/* Wipes them. The process holds no secret after, and may be looked into again. */
struct keyring *keyring_free(struct keyring *keyring);
DEFINE_FREEP(struct keyring, keyring_free)

/* Who the device is and where its hub: from @text, or from the file @path when @text is empty.
 * Keeps the key. The file must be for its owner alone. -EINVAL with the reason logged. */
struct provisioning {
    char *hub_hostname;
    char *device_id;
};
int keyring_provision(struct keyring *keyring, const char *text, const char *path,
                      struct provisioning *ret);
void provisioning_done(struct provisioning *p);

/* Tokens; the caller's to free. */
char *keyring_device_token(const struct keyring *keyring, const char *resource,
                           int64_t expires_sec);
char *keyring_module_token(const struct keyring *keyring, const char *module_id,
                           const char *generation_id, const char *resource, int64_t expires_sec);
/* The keys of one of our modules, derived (identity.md §5.1): the caller wipes them. */
void keyring_module_keys(const struct keyring *keyring, const char *module_id,
                         const char *generation_id, struct sas_key *ret_primary,
                         struct sas_key *ret_secondary);

/* AES-256-GCM with the cache key: appends nonce, text, tag. @context is authenticated, not kept. */
void keyring_seal(const struct keyring *keyring, struct span context, struct span text,
                  struct buf *out);
enum { KEYRING_E_SEAL = 1 }; /* another key, another context, or somebody changed it */
int keyring_unseal(const struct keyring *keyring, struct span context, struct span sealed,
                   struct buf *ret);

/* Private keys of certificates: the operator's at a path, which must be for its owner alone; and
 * ours, by name, in STATE_DIR/keys. -ENOENT, -EINVAL with the reason logged, or -errno. */
int keyring_private_key_read(const char *path, EVP_PKEY **ret);
int keyring_private_key_load(const struct keyring *keyring, const char *name, EVP_PKEY **ret);
int keyring_private_key_store(const struct keyring *keyring, const char *name, EVP_PKEY *key);
void keyring_private_key_remove(const struct keyring *keyring, const char *name);
/* PKCS#8 PEM in locked memory: keyring_text_free(). */
char *keyring_private_key_print(EVP_PKEY *key);
char *keyring_text_free(char *text);
