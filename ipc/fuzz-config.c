/* Any bytes as a config file, read by a table with every kind of value. */
#include <stdint.h>

#include "config.h"
#include "mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sample {
    char *text;
    bool flag;
    uint64_t count, bytes, wait_usec;
    int choice;
    char **list;
};

static const char *const choices[] = { "one", "two", NULL };

static const struct config_item items[] = {
    { "text", CONFIG_STRING, offsetof(struct sample, text), "", NULL, "16", "" },
    { "flag", CONFIG_BOOL, offsetof(struct sample, flag), "true", NULL, NULL, "" },
    { "count", CONFIG_COUNT, offsetof(struct sample, count), "1", "1", "9", "" },
    { "bytes", CONFIG_SIZE, offsetof(struct sample, bytes), "1", NULL, "1GiB", "" },
    { "wait", CONFIG_DURATION, offsetof(struct sample, wait_usec), "1s", "1ms", NULL, "" },
    { "choice", CONFIG_ENUM, offsetof(struct sample, choice), "one", NULL, NULL, "", choices },
    { "list", CONFIG_STRING_LIST, offsetof(struct sample, list), "[]", NULL, "4", "" },
    {},
};

static int take_entry(struct config_document *d, void *userdata, struct config_error *ret_error)
{
    struct sample s;
    int r = config_take(d, "", items, &s, ret_error);

    if (r == 0)
        config_clear(items, &s);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config_document *d;
    struct config_error error;
    struct sample s;

    if (config_document_parse((const char *)data, size, "fuzz.yaml", &d, &error) != 0)
        return 0;
    if (config_take(d, "settings", items, &s, &error) == 0)
        config_clear(items, &s);
    config_take_each(d, "sockets", take_entry, NULL, &error);
    config_take_away(d, "limits");
    config_finish(d, &error);
    config_refuse(d, "settings", "count", "something else", &error);
    config_document_free(d);
    return 0;
}
