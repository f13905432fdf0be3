/* Pure: no clock, no log, no descriptor, no static data. */
#include "message.h"

#include <ctype.h>
#include <string.h>

#include "mem.h"

size_t message_size(const Bus__Message *m)
{
    size_t size = m->body.len;

    for (size_t i = 0; i < m->n_system; i++)
        size += strlen(m->system[i]->value);
    for (size_t i = 0; i < m->n_application; i++)
        size += strlen(m->application[i]->name) + strlen(m->application[i]->value);
    return size;
}

const char *message_system(const Bus__Message *m, const char *name)
{
    for (size_t i = 0; i < m->n_system; i++)
        if (strcmp(m->system[i]->name, name) == 0)
            return m->system[i]->value;
    return NULL;
}

char *identity_name(const char *device_id, const char *module_id)
{
    if (!module_id || !*module_id)
        return xstrdup(device_id);
    return xasprintf("%s/%s", device_id, module_id);
}

void identity_split(const char *name, char **ret_device_id, char **ret_module_id)
{
    const char *slash = strchr(name, '/');

    *ret_device_id = slash ? xstrndup(name, (size_t)(slash - name)) : xstrdup(name);
    *ret_module_id = slash ? xstrdup(slash + 1) : NULL;
}

bool identity_id_valid(const char *id)
{
    static const char marks[] = "-:.+%_#*?!(),=@;$'"; /* identity.md: terms */
    size_t len = strnlen(id, IDENTITY_ID_MAX + 1);

    if (len == 0 || len > IDENTITY_ID_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isascii(id[i]) || (!isalnum((unsigned char)id[i]) && !strchr(marks, id[i])))
            return false;
    return true;
}
