/*
 * From the tree of a config file to the struct of whoever asked, by table. Bounds and defaults go
 * through the same conversion as the file's own values, so a table cannot mean something else than
 * a file.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "config-node.h"
#include "mem.h"
#include "span.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

struct config_document {
    char *name;        /* of the file, in errors */
    char *path;        /* of an entry, "sockets[1]"; "" for a whole file */
    struct node *root; /* an entry borrows it */
    bool is_entry;
    struct buf known;        /* "role, exec, limits": every key that was asked for, at the top */
    struct buf known_inside; /* the same for the sections: "settings.durability, …" */
};

static int refuse(struct config_error *error, const struct config_document *d, size_t line,
                  const char *section, const char *key, const char *format, ...) _printf_(6, 7);

/* "store.yaml:12: settings.durability: …"; @line 0 when there is none. */
static int refuse(struct config_error *error, const struct config_document *d, size_t line,
                  const char *section, const char *key, const char *format, ...)
{
    const char *parts[] = { d->path, section, key };
    char where[200] = "", what[400];
    size_t n = 0;
    va_list args;

    for (size_t i = 0; i < ELEMENTSOF(parts); i++)
        if (*parts[i] && n < sizeof(where))
            n += (size_t)snprintf(where + n, sizeof(where) - n, "%s%s", n > 0 ? "." : "", parts[i]);
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return config_error_set(error, d->name, line, where, what);
}

/* Reading */

int config_document_parse(const char *text, size_t len, const char *name,
                          struct config_document **ret, struct config_error *ret_error)
{
    struct config_document *d;
    struct node *root;
    int r;

    if (len > CONFIG_BYTES_MAX)
        return config_error_set(ret_error, name, 0, "", "expected at most 1 MiB, found more");
    r = node_parse(text, len, name, &root, ret_error);
    if (r != 0)
        return r;
    d = xnew(struct config_document);
    d->name = xstrdup(name);
    d->path = xstrdup("");
    d->root = root;
    *ret = d;
    return 0;
}

struct config_document *config_document_free(struct config_document *d)
{
    if (!d)
        return NULL;
    if (!d->is_entry)
        node_free(d->root);
    buf_done(&d->known);
    buf_done(&d->known_inside);
    free(d->name);
    free(d->path);
    free(d);
    return NULL;
}

/* From the beginning wherever the descriptor stands: it may be shared with a former life of the
 * process. */
static int read_all(int fd, struct buf *text)
{
    bool seekable = true;

    while (buf_len(text) <= CONFIG_BYTES_MAX) {
        void *room = buf_reserve(text, 4096);
        ssize_t n = seekable ? pread(fd, room, 4096, (off_t)buf_len(text)) : read(fd, room, 4096);

        if (n < 0 && errno == ESPIPE && seekable) {
            seekable = false;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        buf_commit(text, (size_t)n);
    }
    return 0; /* too long: refused by whoever parses it */
}

int config_document_read_fd(int fd, const char *name, struct config_document **ret,
                            struct config_error *ret_error)
{
    _cleanup_(buf_done) struct buf text = {};
    int r;

    r = read_all(fd, &text);
    if (r < 0)
        return r;
    return config_document_parse(text.data, buf_len(&text), name, ret, ret_error);
}

int config_document_read(const char *path, struct config_document **ret,
                         struct config_error *ret_error)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    const char *slash = strrchr(path, '/');

    if (fd < 0)
        return -errno;
    return config_document_read_fd(fd, slash ? slash + 1 : path, ret, ret_error);
}

/* One value: text to number */

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    { "", 1 },
    { "B", 1 },
    { "kB", UINT64_C(1000) },
    { "MB", UINT64_C(1000) * 1000 },
    { "GB", UINT64_C(1000) * 1000 * 1000 },
    { "KiB", UINT64_C(1) << 10 },
    { "MiB", UINT64_C(1) << 20 },
    { "GiB", UINT64_C(1) << 30 },
    {},
};

static const struct unit duration_units[] = {
    { "", 1000000 },
    { "us", 1 },
    { "ms", 1000 },
    { "s", 1000000 },
    { "min", UINT64_C(60) * 1000000 },
    { "h", UINT64_C(3600) * 1000000 },
    {},
};

static const struct unit count_units[] = { { "", 1 }, {} };

struct kind_info {
    const char *name;         /* in the reference */
    const char *expected;     /* in errors; NULL for enums, which list their names */
    const struct unit *units; /* numbers only */
};

static const struct kind_info kinds[] = {
    [CONFIG_STRING] = { "text", "a text", NULL },
    [CONFIG_BOOL] = { "true or false", "true or false", NULL },
    [CONFIG_COUNT] = { "number", "a whole number", count_units },
    [CONFIG_SIZE] = { "size", "a size (such as 512, 64KiB, 2GiB or 10MB)", size_units },
    [CONFIG_DURATION] = { "duration", "a duration (such as 10, 500ms, 10s, 5min or 2h)",
                          duration_units },
    [CONFIG_ENUM] = { "one of", NULL, NULL },
    [CONFIG_STRING_LIST] = { "list of texts", "a list of texts", NULL },
};

/* Digits, perhaps a blank, a unit. */
static bool number_from_text(const struct unit *units, const char *text, uint64_t *ret_value)
{
    size_t digits = strspn(text, "0123456789");
    const char *unit = text + digits + strspn(text + digits, " ");
    uint64_t value;

    if (!span_to_uint64(span_of(text, digits), &value))
        return false;
    for (; units->name; units++)
        if (strcmp(unit, units->name) == 0)
            return !__builtin_mul_overflow(value, units->factor, ret_value);
    return false;
}

/* What the table itself says is in order, or the program is wrong. */
static _Noreturn void table_is_malformed(const char *text)
{
    fprintf(stderr, "a config table is malformed: %s\n", text);
    abort();
}

static uint64_t number_from_table(const struct unit *units, const char *text)
{
    uint64_t value;

    if (!number_from_text(units, text, &value))
        table_is_malformed(text);
    return value;
}

static bool number_is_in_bounds(const struct config_item *item, const struct unit *units,
                                uint64_t value)
{
    return (!item->min || value >= number_from_table(units, item->min)) &&
           (!item->max || value <= number_from_table(units, item->max));
}

static int enum_from_text(const char *const *names, const char *text)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], text) == 0)
            return i;
    return -1;
}

static void *place_of(const struct config_item *item, void *s)
{
    return (char *)s + item->offset;
}

/* False: not what the table asks for. */
static bool scalar_store(const struct config_item *item, const char *text, void *place)
{
    const struct unit *units = kinds[item->kind].units;
    uint64_t number;
    int index;

    switch (item->kind) {
    case CONFIG_STRING:
        if (!number_is_in_bounds(item, count_units, strlen(text)))
            return false;
        *(char **)place = xstrdup(text);
        return true;
    case CONFIG_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return false;
        *(bool *)place = strcmp(text, "true") == 0;
        return true;
    case CONFIG_COUNT:
    case CONFIG_SIZE:
    case CONFIG_DURATION:
        if (!number_from_text(units, text, &number) || !number_is_in_bounds(item, units, number))
            return false;
        *(uint64_t *)place = number;
        return true;
    case CONFIG_ENUM:
        index = enum_from_text(item->names, text);
        if (index < 0)
            return false;
        *(int *)place = index;
        return true;
    case CONFIG_STRING_LIST:
        return false;
    }
    return false;
}

static bool list_is_of_texts(const struct node *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->children[i]->kind != NODE_SCALAR)
            return false;
    return true;
}

static bool list_store(const struct config_item *item, const struct node *node, char ***place)
{
    char **list;

    if (!number_is_in_bounds(item, count_units, node->count) || !list_is_of_texts(node))
        return false;
    list = xnew_n(char *, node->count + 1);
    for (size_t i = 0; i < node->count; i++)
        list[i] = xstrdup(node->children[i]->text);
    *place = list;
    return true;
}

static bool node_store(const struct config_item *item, const struct node *node, void *place)
{
    if (item->kind == CONFIG_STRING_LIST)
        return node->kind == NODE_SEQUENCE && list_store(item, node, place);
    return node->kind == NODE_SCALAR && scalar_store(item, node->text, place);
}

static void list_store_fallback(const struct config_item *item, char ***place)
{
    _cleanup_(freep) char *text = xasprintf("list: %s", item->fallback);
    _cleanup_(node_freep) struct node *root = NULL;
    struct config_error error;

    if (node_parse(text, strlen(text), item->key, &root, &error) != 0 ||
        !node_store(item, root->children[0], place))
        table_is_malformed(item->fallback);
}

/* A default is not held against the bounds: "" or 0 may stand for "none". */
static void fallback_store(const struct config_item *item, void *place)
{
    struct config_item unbounded = *item;

    unbounded.min = unbounded.max = NULL;
    if (item->kind == CONFIG_STRING_LIST)
        list_store_fallback(&unbounded, place);
    else if (!scalar_store(&unbounded, item->fallback, place))
        table_is_malformed(item->fallback);
}

/* What is expected, what was found */

/* "sync or interval", "error, warning, info or debug" */
static void append_names(struct buf *text, const char *const *names)
{
    for (size_t i = 0; names[i]; i++)
        buf_printf(text, "%s%s", i == 0 ? "" : names[i + 1] ? ", " : " or ", names[i]);
}

static void append_bounds(struct buf *text, const struct config_item *item)
{
    static const struct {
        const char *range, *min, *max;
    } forms[] = {
        [CONFIG_STRING] = { " of %s to %s bytes", " of at least %s bytes", " of at most %s bytes" },
        [CONFIG_STRING_LIST] = { " (%s to %s of them)", " (at least %s of them)",
                                 " (at most %s of them)" },
        [CONFIG_COUNT] = { " from %s to %s", " of at least %s", " of at most %s" },
        [CONFIG_SIZE] = { " from %s to %s", " of at least %s", " of at most %s" },
        [CONFIG_DURATION] = { " from %s to %s", " of at least %s", " of at most %s" },
    };

    if (item->min && item->max)
        buf_printf(text, forms[item->kind].range, item->min, item->max);
    else if (item->min)
        buf_printf(text, forms[item->kind].min, item->min);
    else if (item->max)
        buf_printf(text, forms[item->kind].max, item->max);
}

static void append_expected(struct buf *text, const struct config_item *item)
{
    if (item->kind == CONFIG_ENUM)
        append_names(text, item->names);
    else
        buf_append_span(text, span_str(kinds[item->kind].expected));
    append_bounds(text, item);
}

static const char *kind_text(const struct node *node)
{
    static const char *const texts[] = {
        [NODE_NOTHING] = "nothing",
        [NODE_SCALAR] = "a text",
        [NODE_SEQUENCE] = "a list",
        [NODE_MAPPING] = "a mapping",
    };

    return texts[node ? node->kind : NODE_NOTHING];
}

static void append_found_list(struct buf *text, const struct node *list)
{
    if (list_is_of_texts(list))
        buf_printf(text, "one of %zu", list->count);
    else
        buf_append_span(text, SPAN("another value in it"));
}

/* The value itself only where it can be no secret. */
static void append_found(struct buf *text, const struct config_item *item, const struct node *node)
{
    if (node && node->kind == NODE_SEQUENCE && item->kind == CONFIG_STRING_LIST)
        append_found_list(text, node);
    else if (!node || node->kind != NODE_SCALAR)
        buf_append_span(text, span_str(kind_text(node)));
    else if (item->kind == CONFIG_STRING)
        buf_printf(text, "one of %zu", strlen(node->text));
    else if (item->kind == CONFIG_STRING_LIST)
        buf_append_span(text, SPAN("a text"));
    else
        buf_printf(text, "'%.40s'%s", node->text, strlen(node->text) > 40 ? "..." : "");
}

static int refuse_item(const struct config_document *d, const char *section,
                       const struct config_item *item, const struct node *node, size_t line,
                       struct config_error *ret_error)
{
    _cleanup_(buf_done) struct buf text = {};

    buf_append_span(&text, SPAN("expected "));
    append_expected(&text, item);
    buf_append_span(&text, SPAN(", found "));
    append_found(&text, item, node);
    buf_append_byte(&text, '\0');
    return refuse(ret_error, d, line, section, item->key, "%s", text.data);
}

/* Sections */

static void remember_known(struct config_document *d, const char *section, const char *key)
{
    struct buf *known = *section ? &d->known_inside : &d->known;

    if (*key == '\0')
        return; /* the top is no key */
    buf_printf(known, "%s%s%s%s", buf_len(known) > 0 ? ", " : "", section, *section ? "." : "",
               key);
}

/* Walks "settings.tls" down, taking each part. NULL: not there. */
static struct node *section_take(struct config_document *d, const char *section)
{
    struct node *node = d->root;
    struct span rest = span_str(section), part;
    bool done = *section == '\0';

    while (span_next(&rest, '.', &part, &done)) {
        node = node_child(node, part.at, part.len);
        if (!node)
            return NULL;
        if (done || node->kind == NODE_MAPPING)
            node->taken = true;
    }
    return node;
}

static int section_refuse(const struct config_document *d, const char *section,
                          const struct node *node, const char *expected,
                          struct config_error *ret_error)
{
    return refuse(ret_error, d, node->line, section, "", "expected %s, found %s", expected,
                  kind_text(node));
}

static int item_take(struct config_document *d, const char *section, struct node *in,
                     const struct config_item *item, void *place, struct config_error *ret_error)
{
    struct node *node = in ? node_child(in, item->key, strlen(item->key)) : NULL;

    remember_known(d, section, item->key);
    if (!node && !item->fallback)
        return refuse_item(d, section, item, NULL, in && (in->key || d->is_entry) ? in->line : 0,
                           ret_error);
    if (!node) {
        fallback_store(item, place);
        return 0;
    }
    node->taken = node->whole = true;
    if (!node_store(item, node, place))
        return refuse_item(d, section, item, node, node->line, ret_error);
    return 0;
}

static void item_clear(const struct config_item *item, void *place)
{
    char **strings;

    if (item->kind == CONFIG_STRING) {
        free(*(char **)place);
        *(char **)place = NULL;
    } else if (item->kind == CONFIG_STRING_LIST) {
        strings = *(char ***)place;
        for (size_t i = 0; strings && strings[i]; i++)
            free(strings[i]);
        free(strings);
        *(char ***)place = NULL;
    }
}

/* The struct may be uninitialized memory: its strings are NULL from here on, so config_clear()
 * always may come. */
static void items_begin(const struct config_item *items, void *s)
{
    for (; items->key; items++)
        if (items->kind == CONFIG_STRING || items->kind == CONFIG_STRING_LIST)
            *(void **)place_of(items, s) = NULL;
}

int config_take(struct config_document *d, const char *section, const struct config_item *items,
                void *ret_struct, struct config_error *ret_error)
{
    struct node *in = section_take(d, section);
    int r;

    items_begin(items, ret_struct);
    remember_known(d, "", section);
    if (in && in->kind != NODE_MAPPING && in->kind != NODE_NOTHING)
        return section_refuse(d, section, in, "keys with values", ret_error);
    for (const struct config_item *item = items; item->key; item++) {
        r = item_take(d, section, in, item, place_of(item, ret_struct), ret_error);
        if (r != 0) {
            config_clear(items, ret_struct);
            return r;
        }
    }
    return 0;
}

static int entry_take(struct config_document *d, const char *section, struct node *node,
                      size_t index, config_each_fn *fn, void *userdata,
                      struct config_error *ret_error)
{
    struct config_document entry = { .name = d->name, .root = node, .is_entry = true };
    _cleanup_(freep) char *path =
        xasprintf("%s%s%s[%zu]", d->path, *d->path ? "." : "", section, index);
    int r;

    entry.path = path;
    if (node->kind != NODE_MAPPING)
        return section_refuse(&entry, "", node, "keys with values", ret_error);
    r = fn(&entry, userdata, ret_error);
    if (r == 0)
        r = config_finish(&entry, ret_error);
    buf_done(&entry.known);
    buf_done(&entry.known_inside);
    return r;
}

int config_take_each(struct config_document *d, const char *section, config_each_fn *fn,
                     void *userdata, struct config_error *ret_error)
{
    struct node *list = section_take(d, section);
    int r;

    remember_known(d, "", section);
    if (!list || list->kind == NODE_NOTHING)
        return 0;
    if (list->kind != NODE_SEQUENCE)
        return section_refuse(d, section, list, "a list", ret_error);
    for (size_t i = 0; i < list->count; i++) {
        r = entry_take(d, section, list->children[i], i, fn, userdata, ret_error);
        if (r != 0)
            return r;
    }
    return 0;
}

void config_take_away(struct config_document *d, const char *section)
{
    struct node *node = section_take(d, section);

    remember_known(d, "", section);
    if (node)
        node->whole = true;
}

/* Finishing */

static const struct node *first_untaken(const struct node *node, struct buf *path)
{
    size_t before = path->end;

    if (node->whole || node->kind != NODE_MAPPING)
        return NULL;
    for (size_t i = 0; i < node->count; i++) {
        const struct node *child = node->children[i], *found;

        buf_printf(path, "%s%s", buf_len(path) > 0 ? "." : "", child->key);
        found = child->taken ? first_untaken(child, path) : child;
        if (found)
            return found;
        path->end = before;
    }
    return NULL;
}

int config_finish(struct config_document *d, struct config_error *ret_error)
{
    _cleanup_(buf_done) struct buf path = {};
    const struct node *node = first_untaken(d->root, &path);
    struct buf *known;

    if (!node)
        return 0;
    buf_append_byte(&path, '\0');
    known = strchr(path.data, '.') ? &d->known_inside : &d->known;
    if (buf_len(known) == 0)
        return refuse(ret_error, d, node->line, "", path.data, "expected no key here");
    return refuse(ret_error, d, node->line, "", path.data, "unknown key, expected one of %.*s",
                  (int)buf_len(known), known->data);
}

int config_refuse(struct config_document *d, const char *section, const char *key,
                  const char *expected, struct config_error *ret_error)
{
    const struct node *in = section_take(d, section);
    const struct node *node = in ? node_child(in, key, strlen(key)) : NULL;

    return refuse(ret_error, d, node ? node->line : 0, section, key, "expected %s", expected);
}

void config_clear(const struct config_item *items, void *s)
{
    for (; items->key; items++)
        item_clear(items, place_of(items, s));
}

/* The reference */

static void print_kind(const struct config_item *item, FILE *out)
{
    _cleanup_(buf_done) struct buf text = {};

    if (item->kind == CONFIG_ENUM)
        append_names(&text, item->names);
    else
        buf_append_span(&text, span_str(kinds[item->kind].name));
    append_bounds(&text, item);
    fprintf(out, "%.*s", (int)buf_len(&text), text.data);
}

void config_print_reference(const struct config_item *items, FILE *out)
{
    if (!items->key) {
        fputs("There are no settings.\n", out);
        return;
    }
    fputs("| key | value | default | meaning |\n|---|---|---|---|\n", out);
    for (; items->key; items++) {
        fprintf(out, "| `%s` | ", items->key);
        print_kind(items, out);
        if (!items->fallback)
            fputs(" | must be given", out);
        else if (*items->fallback == '\0')
            fputs(" | none", out);
        else
            fprintf(out, " | `%s`", items->fallback);
        fprintf(out, " | %s |\n", items->help ? items->help : "");
    }
}
