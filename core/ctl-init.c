/*
 * `init`: a directory that runs as it is. All that is in it is in the table of ctl-init-files.c;
 * here the variables of that table are found out, keys and certificates are made, and the files are
 * written, never over something that is there.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl-certificates.h"
#include "ctl-init-files.h"
#include "ctl-print.h"
#include "ctl.h"

enum {
    DEVICE_ID_MAX = 128,
    HOST_NAME_MAX_BYTES = 253,
    RUN_DIR_MAX = 70, /* sockets below it must fit into sun_path */
    KEY_BYTES = 32,
    VARIABLES_MAX = 24,
};

struct init {
    const char *hostname, *address, *hub_address, *hub_host, *device_id;
    bool emulator, set_user;
    uid_t uid;
    gid_t gid;
    char *dir, *plugin_dir;
    char *connection_string, *device_id_found;
    struct init_variable variables[VARIABLES_MAX + 1];
    char *values[VARIABLES_MAX]; /* owned; parallel to variables */
    size_t variable_count;
};

static void init_set_take(struct init *i, const char *name, char *value)
{
    assert(i->variable_count < VARIABLES_MAX);
    i->values[i->variable_count] = value;
    i->variables[i->variable_count++] = (struct init_variable){ name, value };
}

static void init_done(struct init *i)
{
    for (size_t n = 0; n < i->variable_count; n++) {
        explicit_bzero(i->values[n], strlen(i->values[n])); /* keys are among them */
        free(i->values[n]);
    }
    free(i->dir);
    free(i->plugin_dir);
    free(i->connection_string);
    free(i->device_id_found);
}

/* What is asked for */

static bool is_address(const char *text)
{
    unsigned char bytes[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

static bool is_any_address(const char *text)
{
    return strcmp(text, "0.0.0.0") == 0 || strcmp(text, "::") == 0;
}

static bool is_loopback(const char *text)
{
    return strncmp(text, "127.", 4) == 0 || strcmp(text, "::1") == 0;
}

static bool is_made_of(const char *text, const char *allowed, size_t max)
{
    size_t len = strlen(text);

    return len > 0 && len <= max && strspn(text, allowed) == len;
}

#define ALPHANUMERIC "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

static bool is_host(const char *text)
{
    return is_address(text) || is_made_of(text, ALPHANUMERIC ".-", HOST_NAME_MAX_BYTES);
}

/* The hub's own rule for device ids. */
static bool is_device_id(const char *text)
{
    return is_made_of(text, ALPHANUMERIC "-:.+%_#*?!(),=@$'", DEVICE_ID_MAX);
}

static const char *option_or(const struct ctl *ctl, enum ctl_option option, const char *fallback)
{
    return ctl->options[option] ? ctl->options[option] : fallback;
}

/* The value of @key in "HostName=…;DeviceId=…"; NULL when it is not there. */
static char *connection_string_get(const char *text, struct span key)
{
    struct span rest = span_str(text), part;
    bool done = false;

    while (span_next(&rest, ';', &part, &done))
        if (span_eat_nocase(&part, key) && span_eat(&part, SPAN("=")) && part.len > 0)
            return span_xdup(part);
    return NULL;
}

static int read_real_hub(struct ctl *ctl, struct init *i, const char *text)
{
    _cleanup_(freep) char *host = connection_string_get(text, SPAN("HostName"));
    _cleanup_(freep) char *key = connection_string_get(text, SPAN("SharedAccessKey"));

    i->device_id_found = connection_string_get(text, SPAN("DeviceId"));
    if (!host || !key || !i->device_id_found)
        return ctl_usage(
            "--hub: expected emulator or HostName=...;DeviceId=...;SharedAccessKey=...");
    if (ctl->options[OPT_DEVICE_ID] && strcmp(ctl->options[OPT_DEVICE_ID], i->device_id_found) != 0)
        return ctl_usage("--device-id: expected %s, as in the connection string",
                         i->device_id_found);
    if (ctl->options[OPT_HUB_ADDRESS] || ctl->options[OPT_HUB_HOSTNAME])
        return ctl_usage("--hub-address, --hub-hostname: go only with --hub emulator");
    i->device_id = i->device_id_found;
    i->connection_string = xstrdup(text);
    return 0;
}

static int read_options(struct ctl *ctl, struct init *i)
{
    const char *hub = option_or(ctl, OPT_HUB, "emulator");
    int r = 0;

    i->hostname = option_or(ctl, OPT_HOSTNAME, "localhost");
    i->address = option_or(ctl, OPT_ADDRESS, "127.0.0.1");
    i->device_id = option_or(ctl, OPT_DEVICE_ID, "edge-device");
    i->hub_address = option_or(ctl, OPT_HUB_ADDRESS, "127.0.0.2");
    i->hub_host = option_or(ctl, OPT_HUB_HOSTNAME, i->hub_address);
    i->emulator = strcmp(hub, "emulator") == 0;
    if (!i->emulator)
        r = read_real_hub(ctl, i, hub);
    if (r != 0)
        return r;
    if (!is_host(i->hostname))
        return ctl_usage("--hostname: expected a host name, found '%s'", i->hostname);
    if (!is_address(i->address))
        return ctl_usage("--address: expected an IP address, found '%s'", i->address);
    if (!is_address(i->hub_address))
        return ctl_usage("--hub-address: expected an IP address, found '%s'", i->hub_address);
    if (!is_host(i->hub_host))
        return ctl_usage("--hub-hostname: expected a host name, found '%s'", i->hub_host);
    if (is_any_address(i->hub_host))
        return ctl_usage("--hub-hostname: expected one, for nobody connects to %s", i->hub_address);
    if (!is_device_id(i->device_id))
        return ctl_usage(
            "--device-id: expected up to %d letters, digits or -:.+%%_#*?!(),=@$', found '%s'",
            DEVICE_ID_MAX, i->device_id);
    return 0;
}

/* Where it goes */

static bool is_empty_dir(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    bool empty = dir;

    while (dir && empty && (entry = readdir(dir)))
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    if (dir)
        closedir(dir);
    return empty;
}

static int make_root(struct init *i, const char *path)
{
    bool made = mkdir(path, 0755) == 0;

    if (!made && errno != EEXIST)
        return ctl_fail("%s: cannot make the directory: %s", path, strerror(errno));
    i->dir = realpath(path, NULL);
    if (!i->dir || !is_empty_dir(i->dir))
        return ctl_fail(
            "%s: there is something already; init makes a new directory, or fills an empty one",
            path);
    if (strlen(i->dir) + strlen("/edge/run") > RUN_DIR_MAX) {
        if (made)
            rmdir(path);
        return ctl_fail("%s: the path is too long, for sockets below it have at most 107 bytes; "
                        "expected at most %zu",
                        i->dir, RUN_DIR_MAX - strlen("/edge/run"));
    }
    return 0;
}

/* Beside this program in a build tree, else PREFIX/libexec/brink. */
static void find_plugin_dir(struct init *i, bool *ret_installed)
{
    _cleanup_(freep) char *self = realpath("/proc/self/exe", NULL), *store = NULL;
    char *slash = self ? strrchr(self, '/') : NULL;

    if (slash)
        *slash = '\0';
    store = xasprintf("%s/brink-store", slash ? self : "");
    *ret_installed = access(store, X_OK) != 0;
    if (!*ret_installed) {
        i->plugin_dir = TAKE_PTR(self);
        return;
    }
    slash = slash ? strrchr(self, '/') : NULL;
    if (slash)
        *slash = '\0';
    i->plugin_dir = slash ? xasprintf("%s/libexec/brink", self) : xstrdup("/usr/libexec/brink");
}

/* An installed appliance that root makes runs its plugins as the user that the package made. */
static void find_user(const struct ctl *ctl, struct init *i, bool installed)
{
    const struct passwd *brink = getpwnam("brink");

    i->set_user = installed && geteuid() == 0 && brink && !ctl->options[OPT_USER];
    if (i->set_user) {
        i->uid = brink->pw_uid;
        i->gid = brink->pw_gid;
    }
}

/* What goes in */

static int set_certificate(struct init *i, const char *what, const char *pem_name,
                           const char *key_name, const struct certificate *certificate)
{
    if (!certificate)
        return ctl_fail("cannot make the %s: %s", what, certificates_error());
    init_set_take(i, pem_name, certificate_pem(certificate));
    init_set_take(i, key_name, certificate_key_pem(certificate));
    return 0;
}

static struct certificate *make_server(const struct init *i, const struct certificate *root)
{
    const char *names[3] = {}, *addresses[3] = {};
    size_t name_count = 0, address_count = 0;
    bool host_is_address = is_address(i->hub_host);

    if (!host_is_address)
        names[name_count++] = i->hub_host;
    if (is_loopback(i->hub_address) && strcmp(i->hub_host, "localhost") != 0)
        names[name_count++] = "localhost";
    if (!is_any_address(i->hub_address))
        addresses[address_count++] = i->hub_address;
    if (host_is_address && strcmp(i->hub_host, i->hub_address) != 0)
        addresses[address_count++] = i->hub_host;
    return certificate_new_server(i->hub_host, names, addresses, root);
}

static int make_certificates(struct init *i)
{
    _cleanup_(freep) char *issuer_name = xasprintf("aziot-edge CA %s", i->device_id);
    _cleanup_(certificate_freep) struct certificate *root = NULL, *issuer = NULL, *server = NULL;
    int r;

    root = certificate_new_root("Brink test CA");
    r = set_certificate(i, "test CA", "CA_PEM", "CA_KEY", root);
    if (r != 0)
        return r;
    issuer = certificate_new_issuer(issuer_name, root);
    r = set_certificate(i, "edge CA", "EDGE_CA_PEM", "EDGE_CA_KEY", issuer);
    if (r != 0 || !i->emulator)
        return r;
    server = make_server(i, root);
    return set_certificate(i, "hub's certificate", "SERVER_PEM", "SERVER_KEY", server);
}

static void make_keys(struct init *i)
{
    char *device_key = random_key_base64(KEY_BYTES);

    if (!i->connection_string)
        i->connection_string = xasprintf("HostName=%s;DeviceId=%s;SharedAccessKey=%s", i->hub_host,
                                         i->device_id, device_key);
    init_set_take(i, "CONNECTION_STRING", xstrdup(i->connection_string));
    init_set_take(i, "DEVICE_KEY", device_key);
    init_set_take(i, "POLICY_KEY", random_key_base64(KEY_BYTES));
}

static char *listen_form(const char *address)
{
    return xasprintf(strchr(address, ':') ? "[%s]" : "%s", address);
}

static void set_expanded(struct init *i, const char *name, const char *text)
{
    struct buf value = {};

    init_expand(text, i->variables, &value);
    init_set_take(i, name, span_xdup(buf_span(&value)));
    buf_done(&value);
}

/* A real hub's certificate is signed by somebody the system knows. */
static void set_upstream_ca(struct init *i)
{
    set_expanded(i, "UPSTREAM_CA", i->emulator ? "  upstream_ca_file: \"@DIR@/ca.pem\"\n" : "");
    set_expanded(i, "UPSTREAM_SETTINGS",
                 i->emulator ? "settings:\n  ca_file: \"@DIR@/ca.pem\"\n" : "");
}

static void set_variables(struct init *i)
{
    init_set_take(i, "DIR", xstrdup(i->dir));
    init_set_take(i, "PLUGIN_DIR", xstrdup(i->plugin_dir));
    init_set_take(i, "HOSTNAME", xstrdup(i->hostname));
    init_set_take(i, "LISTEN", listen_form(i->address));
    init_set_take(i, "SERVER_NAMES",
                  is_any_address(i->address) ? xstrdup("") : xasprintf("\"%s\"", i->address));
    init_set_take(i, "HUB_HOST", xstrdup(i->hub_host));
    init_set_take(i, "HUB_LISTEN", listen_form(i->hub_address));
    init_set_take(i, "DEVICE_ID", xstrdup(i->device_id));
    init_set_take(i, "USER", xstrdup(i->set_user ? "user: brink\n" : ""));
    set_upstream_ca(i);
}

/* Writing */

static int write_whole(int fd, struct buf *text)
{
    while (buf_len(text) > 0) {
        ssize_t n = buf_write(text, fd);

        if (n < 0)
            return (int)n;
    }
    return 0;
}

static int make_file(const struct init *i, const char *path, const struct init_file *file)
{
    _cleanup_(closep) int fd =
        open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, file->mode);
    struct buf text = {};
    int r;

    if (fd < 0 || fchmod(fd, file->mode) < 0)
        return -errno;
    if (file->owned && i->set_user && fchown(fd, i->uid, i->gid) < 0)
        return -errno;
    init_expand(file->text, i->variables, &text);
    r = write_whole(fd, &text);
    if (text.data)
        explicit_bzero(text.data, text.capacity);
    buf_done(&text);
    return r;
}

static int make_folder(const struct init *i, const char *path, const struct init_file *folder)
{
    if (mkdir(path, folder->mode) < 0 || chmod(path, folder->mode) < 0)
        return -errno;
    if (folder->owned && i->set_user && chown(path, i->uid, i->gid) < 0)
        return -errno;
    return 0;
}

static int write_files(const struct init *i)
{
    for (const struct init_file *file = init_files; file->path; file++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", i->dir, file->path);
        int r;

        if (file->scope == SCOPE_EMULATOR && !i->emulator)
            continue;
        r = file->text ? make_file(i, path, file) : make_folder(i, path, file);
        if (r < 0)
            return ctl_fail("%s: cannot be written: %s; remove %s and try again", path,
                            strerror(-r), i->dir);
    }
    return 0;
}

static json_t *text_in_dir(const struct init *i, const char *name)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", i->dir, name);

    return ctl_text(path);
}

static const char *value_of(const struct init *i, const char *name)
{
    for (size_t n = 0; n < i->variable_count; n++)
        if (strcmp(i->variables[n].name, name) == 0)
            return i->values[n];
    return "";
}

static json_t *service_connection_string(const struct init *i)
{
    _cleanup_(freep) char *text =
        xasprintf("HostName=%s;SharedAccessKeyName=iothubowner;SharedAccessKey=%s", i->hub_host,
                  value_of(i, "POLICY_KEY"));

    return json_string(text);
}

static void print_made(const struct init *i)
{
    json_t *made = json_pack(
        "{s:o, s:o, s:o, s:s, s:o, s:s, s:s, s:o}", "edge_config", text_in_dir(i, "edge"),
        "hub_config", i->emulator ? text_in_dir(i, "hub") : json_null(), "ca_file",
        text_in_dir(i, "ca.pem"), "device_id", i->device_id, "hub_service_connection_string",
        i->emulator ? service_connection_string(i) : json_null(), "hostname", i->hostname,
        "address", i->address, "hub_address",
        i->emulator ? json_string(i->hub_address) : json_null());

    ctl_print_json(made);
    json_decref(made);
}

int ctl_init(struct ctl *ctl, int argc, char **argv)
{
    _cleanup_(init_done) struct init i = {};
    bool installed;
    int r;

    r = read_options(ctl, &i);
    if (r == 0)
        r = make_root(&i, ctl->options[OPT_DIR]);
    if (r != 0)
        return r;
    find_plugin_dir(&i, &installed);
    find_user(ctl, &i, installed);
    set_variables(&i);
    make_keys(&i);
    r = make_certificates(&i);
    if (r == 0)
        r = write_files(&i);
    if (r == 0)
        print_made(&i);
    return r;
}
