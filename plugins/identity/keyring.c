#include "keyring.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "connection-string.h"
#include "log.h"
#include "ossl.h"
#include "state-file.h"

enum {
    SECURE_HEAP_BYTES = 256 << 10,
    SECURE_HEAP_UNIT_BYTES = 32,
    KEY_FILE_BYTES_MAX = 32 << 10,
    SECRET_BYTES = 32,
    NONCE_BYTES = 12,
    TAG_BYTES = 16,
};

/* In locked memory. */
struct secrets {
    struct sas_key device;
    struct sas_key master;
    uint8_t cache[SECRET_BYTES];
};

struct keyring {
    char *folder;
    struct secrets *secrets;
};

int keyring_protect_process(void)
{
    int r;

    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        return -errno;
    r = CRYPTO_secure_malloc_init(SECURE_HEAP_BYTES, SECURE_HEAP_UNIT_BYTES);
    if (r == 0)
        return -ENOMEM;
    if (r == 2)
        log_event(
            LOG_WARNING, 0,
            "cannot lock the memory of keys, they may reach the swap space: raise RLIMIT_MEMLOCK");
    return 0;
}

/* ---- files ---- */

static char *key_path(const struct keyring *keyring, const char *name)
{
    return xasprintf("%s/%s", keyring->folder, name);
}

static int refuse_file(const char *path, const char *reason)
{
    log_event(LOG_ERR, 0, "key file is refused", F_PATH(path), F_REASON(reason));
    return -EINVAL;
}

static int check_private(int fd, const char *path)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return refuse_file(path, "it is no regular file");
    if (st.st_mode & 0077)
        return refuse_file(path, "others may access it: expected mode 0600");
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return refuse_file(path, "it belongs to somebody else: expected this user or root");
    if (st.st_size > KEY_FILE_BYTES_MAX)
        return refuse_file(path, "it is too long for a key");
    return 0;
}

static void secret_free(char *text)
{
    OPENSSL_secure_clear_free(text, KEY_FILE_BYTES_MAX + 1);
}

/* The whole file, in locked memory: secret_free(). */
static int secret_read(const char *path, char **ret, size_t *ret_len)
{
    _cleanup_(closep) int fd = -1;
    size_t len = 0;
    ssize_t n = 0;
    char *text;
    int r;

    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    r = check_private(fd, path);
    if (r < 0)
        return r;

    text = OPENSSL_secure_zalloc(KEY_FILE_BYTES_MAX + 1);
    must(text);
    while (len < KEY_FILE_BYTES_MAX) {
        n = read(fd, text + len, KEY_FILE_BYTES_MAX - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    if (n < 0) {
        r = -errno;
        secret_free(text);
        return r;
    }
    *ret = text;
    *ret_len = len;
    return 0;
}

char *keyring_text_free(char *text)
{
    if (text)
        OPENSSL_secure_clear_free(text, strlen(text) + 1);
    return NULL;
}

/* 32 random bytes that are made once and kept. */
static int secret_load_or_make(const char *path, uint8_t ret[static SECRET_BYTES])
{
    char *content;
    size_t len;
    int r;

    r = secret_read(path, &content, &len);
    if (r == -ENOENT) {
        must(RAND_priv_bytes(ret, SECRET_BYTES) == 1);
        return state_file_write(path, span_of(ret, SECRET_BYTES));
    }
    if (r < 0)
        return r;
    if (len == SECRET_BYTES)
        memcpy(ret, content, SECRET_BYTES);
    secret_free(content);
    return len == SECRET_BYTES
               ? 0
               : refuse_file(path, "expected 32 bytes: restore it, or remove it to begin anew");
}

/* ---- life ---- */

int keyring_new(const char *state_dir, struct keyring **ret)
{
    _cleanup_(keyring_freep) struct keyring *keyring = xnew(struct keyring);
    _cleanup_(freep) char *master = NULL, *cache = NULL;
    int r;

    keyring->secrets = OPENSSL_secure_zalloc(sizeof(*keyring->secrets));
    must(keyring->secrets);
    keyring->folder = xasprintf("%s/keys", state_dir);
    r = state_folder_make(keyring->folder);
    if (r < 0)
        return r;
    master = key_path(keyring, "master");
    r = secret_load_or_make(master, keyring->secrets->master.bytes);
    if (r < 0)
        return r;
    keyring->secrets->master.len = SECRET_BYTES;
    cache = key_path(keyring, "cache");
    r = secret_load_or_make(cache, keyring->secrets->cache);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(keyring);
    return 0;
}

struct keyring *keyring_free(struct keyring *keyring)
{
    if (!keyring)
        return NULL;
    OPENSSL_secure_clear_free(keyring->secrets, sizeof(*keyring->secrets));
    free(keyring->folder);
    free(keyring);
    (void)prctl(PR_SET_DUMPABLE, 1);
    return NULL;
}

/* ---- provisioning ---- */

static struct span trim(struct span s)
{
    while (s.len > 0 && (uint8_t)s.at[s.len - 1] <= ' ')
        s.len--;
    while (s.len > 0 && (uint8_t)s.at[0] <= ' ') {
        s.at++;
        s.len--;
    }
    return s;
}

static int provision_from(struct keyring *keyring, struct span text, const char *where,
                          struct provisioning *ret)
{
    struct connection_string c;
    const char *reason;

    if (connection_string_parse(trim(text), &c, &reason) != 0) {
        log_event(LOG_ERR, 0, "connection string is refused", F_PATH(where), F_REASON(reason));
        return -EINVAL;
    }
    keyring->secrets->device = c.key;
    *ret = (struct provisioning){ TAKE_PTR(c.hub_hostname), TAKE_PTR(c.device_id) };
    connection_string_done(&c);
    return 0;
}

int keyring_provision(struct keyring *keyring, const char *text, const char *path,
                      struct provisioning *ret)
{
    char *content;
    size_t len;
    int r;

    if (text && *text)
        return provision_from(keyring, span_str(text), "settings.connection_string", ret);

    r = secret_read(path, &content, &len);
    if (r < 0) {
        if (r != -EINVAL)
            log_event(LOG_ERR, r, "cannot read the connection string", F_PATH(path));
        return r;
    }
    r = provision_from(keyring, span_of(content, len), path, ret);
    secret_free(content);
    return r;
}

void provisioning_done(struct provisioning *p)
{
    free(p->hub_hostname);
    free(p->device_id);
    *p = (struct provisioning){};
}

/* ---- tokens ---- */

char *keyring_device_token(const struct keyring *keyring, const char *resource, int64_t expires_sec)
{
    return sas_token_make(resource, &keyring->secrets->device, NULL, expires_sec);
}

static void derive(const struct keyring *keyring, const char *module_id, const char *generation_id,
                   const char *which, struct sas_key *ret)
{
    _cleanup_(freep) char *text = xasprintf("%s:%s:%s", module_id, generation_id, which);
    uint8_t mac[32];

    hmac_sha256(&keyring->secrets->master, text, strlen(text), mac);
    memcpy(ret->bytes, mac, sizeof(mac));
    ret->len = sizeof(mac);
    OPENSSL_cleanse(mac, sizeof(mac));
}

void keyring_module_keys(const struct keyring *keyring, const char *module_id,
                         const char *generation_id, struct sas_key *ret_primary,
                         struct sas_key *ret_secondary)
{
    derive(keyring, module_id, generation_id, "primary", ret_primary);
    derive(keyring, module_id, generation_id, "secondary", ret_secondary);
}

char *keyring_module_token(const struct keyring *keyring, const char *module_id,
                           const char *generation_id, const char *resource, int64_t expires_sec)
{
    struct sas_key key = {};
    char *token;

    derive(keyring, module_id, generation_id, "primary", &key);
    token = sas_token_make(resource, &key, NULL, expires_sec);
    sas_key_wipe(&key);
    return token;
}

/* ---- the cache ---- */

void keyring_seal(const struct keyring *keyring, struct span context, struct span text,
                  struct buf *out)
{
    EVP_CIPHER_CTX *gcm = EVP_CIPHER_CTX_new();
    size_t sealed_len = NONCE_BYTES + text.len + TAG_BYTES;
    uint8_t *nonce = buf_reserve(out, sealed_len), *body = nonce + NONCE_BYTES;
    int n;

    must(gcm && text.len < KEY_FILE_BYTES_MAX * 1024u && context.len < KEY_FILE_BYTES_MAX);
    must(RAND_bytes(nonce, NONCE_BYTES) == 1);
    must(EVP_EncryptInit_ex2(gcm, EVP_aes_256_gcm(), keyring->secrets->cache, nonce, NULL) == 1);
    must(EVP_EncryptUpdate(gcm, NULL, &n, (const uint8_t *)context.at, (int)context.len) == 1);
    must(EVP_EncryptUpdate(gcm, body, &n, (const uint8_t *)text.at, (int)text.len) == 1);
    must(EVP_EncryptFinal_ex(gcm, body + n, &n) == 1);
    must(EVP_CIPHER_CTX_ctrl(gcm, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, body + text.len) == 1);
    EVP_CIPHER_CTX_free(gcm);
    buf_commit(out, sealed_len);
}

int keyring_unseal(const struct keyring *keyring, struct span context, struct span sealed,
                   struct buf *ret)
{
    const uint8_t *nonce = (const uint8_t *)sealed.at, *body = nonce + NONCE_BYTES;
    struct buf text = {};
    EVP_CIPHER_CTX *gcm;
    uint8_t tag[TAG_BYTES];
    size_t len;
    int n, r;

    if (sealed.len < NONCE_BYTES + TAG_BYTES || sealed.len > KEY_FILE_BYTES_MAX * 1024u ||
        context.len > KEY_FILE_BYTES_MAX)
        return KEYRING_E_SEAL;
    len = sealed.len - NONCE_BYTES - TAG_BYTES;
    memcpy(tag, body + len, TAG_BYTES);
    gcm = EVP_CIPHER_CTX_new();
    must(gcm);
    must(EVP_DecryptInit_ex2(gcm, EVP_aes_256_gcm(), keyring->secrets->cache, nonce, NULL) == 1);
    must(EVP_DecryptUpdate(gcm, NULL, &n, (const uint8_t *)context.at, (int)context.len) == 1);
    must(EVP_DecryptUpdate(gcm, buf_reserve(&text, len + TAG_BYTES), &n, body, (int)len) == 1);
    must(EVP_CIPHER_CTX_ctrl(gcm, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) == 1);
    r = EVP_DecryptFinal_ex(gcm, (uint8_t *)text.data + len, &n);
    EVP_CIPHER_CTX_free(gcm);
    ERR_clear_error();
    buf_commit(&text, len);
    if (r != 1) {
        OPENSSL_cleanse(text.data, len);
        buf_done(&text);
        return KEYRING_E_SEAL;
    }
    *ret = text;
    return 0;
}

/* ---- private keys of certificates ---- */

int keyring_private_key_read(const char *path, EVP_PKEY **ret)
{
    EVP_PKEY *key;
    char *content;
    size_t len;
    BIO *bio;
    int r;

    r = secret_read(path, &content, &len);
    if (r < 0)
        return r;
    bio = BIO_new_mem_buf(content, (int)len);
    must(bio);
    /* The empty password: an encrypted key is refused, not asked for on a terminal that is not
     * there. */
    key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"");
    BIO_free(bio);
    secret_free(content);
    ERR_clear_error();
    if (!key)
        return refuse_file(path, "expected a private key as PEM, not encrypted");
    *ret = key;
    return 0;
}

int keyring_private_key_load(const struct keyring *keyring, const char *name, EVP_PKEY **ret)
{
    _cleanup_(freep) char *path = key_path(keyring, name);

    return keyring_private_key_read(path, ret);
}

int keyring_private_key_store(const struct keyring *keyring, const char *name, EVP_PKEY *key)
{
    _cleanup_(freep) char *path = key_path(keyring, name);
    char *text = keyring_private_key_print(key);
    int r;

    r = state_file_write(path, span_str(text));
    keyring_text_free(text);
    return r;
}

void keyring_private_key_remove(const struct keyring *keyring, const char *name)
{
    _cleanup_(freep) char *path = key_path(keyring, name);

    (void)unlink(path);
}

char *keyring_private_key_print(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_secmem());
    char *data, *text;
    long len;

    must(bio && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    len = BIO_get_mem_data(bio, &data);
    text = OPENSSL_secure_zalloc((size_t)len + 1);
    must(text);
    memcpy(text, data, (size_t)len);
    BIO_free(bio);
    return text;
}
