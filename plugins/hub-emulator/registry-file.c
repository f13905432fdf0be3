/* The registry's file: read once, replaced whole with every change, through a temporary file that is synced first. */
#include "registry-private.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "registry-json.h"

enum { FILE_VERSION = 1 };

static int load_devices(struct registry *registry, const json_t *devices)
{
    const json_t *entry;
    size_t i;

    if (!json_is_array(devices))
        return -EBADMSG;
    json_array_foreach(devices, i, entry)
    {
        struct device *device;
        int r = device_from_file_json(entry, &device);

        if (r < 0)
            return r;
        if (registry_device(registry, device->id)) {
            device_free(device);
            return -EBADMSG;
        }
        registry_insert(registry, device);
    }
    return 0;
}

int registry_load(struct registry *registry)
{
    json_error_t error;
    json_t *document;
    int r;

    if (access(registry->path, F_OK) < 0 && errno == ENOENT)
        return 0;
    document = json_load_file(registry->path, JSON_REJECT_DUPLICATES, &error);
    if (!document) {
        log_event(LOG_ERR, 0, "the registry file is no JSON", F_PATH(registry->path),
                  F_REASON(error.text), F_NUM("line", error.line));
        return -EBADMSG;
    }
    r = json_integer_value(json_object_get(document, "version")) == FILE_VERSION ? 0 : -EBADMSG;
    if (r == 0)
        r = load_devices(registry, json_object_get(document, "devices"));
    if (r < 0)
        log_event(LOG_ERR, 0, "the registry file has not the form of a registry",
                  F_PATH(registry->path), F_NUM("device", registry->device_count));
    else
        registry->last_generation =
            (uint64_t)json_integer_value(json_object_get(document, "lastGeneration"));
    json_decref(document);
    return r;
}

static char *registry_to_text(const struct registry *registry)
{
    json_t *devices = json_array(), *document;
    char *text;

    for (size_t i = 0; i < registry->device_count; i++)
        json_array_append_new(devices, device_to_file_json(registry->devices[i]));
    document = json_pack("{s:i, s:I, s:o}", "version", FILE_VERSION, "lastGeneration",
                         (json_int_t)registry->last_generation, "devices", devices);
    text = json_dumps(document, JSON_INDENT(1));
    json_decref(document);
    return text;
}

static int write_whole(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        len -= (size_t)n;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int sync_folder_of(const char *path)
{
    _cleanup_(freep) char *copy = xstrdup(path);
    _cleanup_(closep) int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    return fsync(fd) < 0 ? -errno : 0;
}

static int replace_file(const char *path, const char *text)
{
    _cleanup_(freep) char *temporary = xasprintf("%s.new", path);
    _cleanup_(closep) int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r;

    if (fd < 0)
        return -errno;
    r = write_whole(fd, text, strlen(text));
    if (r < 0)
        return r;
    if (rename(temporary, path) < 0)
        return -errno;
    return sync_folder_of(path);
}

int registry_save(struct registry *registry)
{
    _cleanup_(freep) char *text = registry_to_text(registry);
    int r = replace_file(registry->path, text);

    if (r < 0)
        log_event(LOG_ERR, r, "the registry cannot be written", F_PATH(registry->path));
    else
        registry->dirty = false;
    return r;
}
