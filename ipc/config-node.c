/* Builds the tree from libyaml's events. The text may come from a stranger's hand: depth and number
 * of nodes are bounded. */
#include "config-node.h"

#include <stdarg.h>
#include <string.h>
#include <yaml.h>

enum { NODE_DEPTH_MAX = 16, NODE_COUNT_MAX = 10000 };

struct reader {
    yaml_parser_t parser;
    const char *text;
    const char *name;
    size_t nodes;
    struct config_error *error;
};

static void event_done(yaml_event_t *event)
{
    yaml_event_delete(event);
}

/* What is quoted from a file goes to somebody's terminal. */
static void blunt_control_bytes(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

int config_error_set(struct config_error *error, const char *name, size_t line, const char *where,
                     const char *what)
{
    char at[32] = "";

    if (line > 0)
        snprintf(at, sizeof(at), ":%zu", line);
    snprintf(error->text, sizeof(error->text), "%s%s: %s%s%s", name, at, where, *where ? ": " : "",
             what);
    blunt_control_bytes(error->text);
    return CONFIG_E_INVALID;
}

static _printf_(3, 4) int reader_refuse(struct reader *reader, size_t line, const char *format, ...)
{
    char what[400];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return config_error_set(reader->error, reader->name, line, "", what);
}

/* libyaml counts no lines in what it could not decode. */
static size_t line_at(const char *text, size_t offset)
{
    size_t line = 1;

    for (size_t i = 0; i < offset; i++)
        line += text[i] == '\n';
    return line;
}

static int reader_next(struct reader *reader, yaml_event_t *ret_event)
{
    yaml_parser_t *parser = &reader->parser;
    size_t line;

    if (yaml_parser_parse(parser, ret_event))
        return 0;
    line = parser->error == YAML_READER_ERROR ? line_at(reader->text, parser->problem_offset)
                                              : parser->problem_mark.line + 1;
    return reader_refuse(reader, line, "not YAML: %s",
                         parser->problem ? parser->problem : "unreadable");
}

static int refuse_decoration(struct reader *reader, size_t line, const yaml_char_t *anchor,
                             const yaml_char_t *tag)
{
    if (anchor)
        return reader_refuse(reader, line, "expected a plain value, found the anchor '&%.40s'",
                             (const char *)anchor);
    if (tag)
        return reader_refuse(reader, line, "expected a plain value, found the tag '%.40s'",
                             (const char *)tag);
    return 0;
}

static struct node *node_new(enum node_kind kind, size_t line)
{
    struct node *node = xnew(struct node);

    node->kind = kind;
    node->line = line;
    return node;
}

struct node *node_free(struct node *node)
{
    if (!node)
        return NULL;
    for (size_t i = 0; i < node->count; i++)
        node_free(node->children[i]);
    free(node->children);
    free(node->key);
    free(node->text);
    free(node);
    return NULL;
}

static void node_add_take(struct node *node, struct node *child)
{
    xgrow(node->children, node->count, node->capacity);
    node->children[node->count++] = child;
}

struct node *node_child(const struct node *node, const char *key, size_t key_len)
{
    for (size_t i = 0; i < node->count; i++) {
        struct node *child = node->children[i];

        if (child->key && strlen(child->key) == key_len && memcmp(child->key, key, key_len) == 0)
            return child;
    }
    return NULL;
}

static int read_node(struct reader *reader, const yaml_event_t *event, unsigned depth,
                     struct node **ret);

static int read_sequence(struct reader *reader, unsigned depth, struct node *sequence)
{
    for (;;) {
        _cleanup_(event_done) yaml_event_t event = {};
        struct node *child;
        int r;

        r = reader_next(reader, &event);
        if (r != 0 || event.type == YAML_SEQUENCE_END_EVENT)
            return r;
        r = read_node(reader, &event, depth + 1, &child);
        if (r != 0)
            return r;
        node_add_take(sequence, child);
    }
}

static int check_key(struct reader *reader, const struct node *mapping, const yaml_event_t *event)
{
    size_t line = event->start_mark.line + 1;
    const struct node *first;
    const char *key;
    int r;

    if (event->type != YAML_SCALAR_EVENT)
        return reader_refuse(reader, line, "expected a key, found something else");
    key = (const char *)event->data.scalar.value;
    r = refuse_decoration(reader, line, event->data.scalar.anchor, event->data.scalar.tag);
    if (r != 0)
        return r;
    if (event->data.scalar.length == 0 || strlen(key) != event->data.scalar.length)
        return reader_refuse(reader, line, "expected a key, found an empty or binary one");
    first = node_child(mapping, key, strlen(key));
    if (first)
        return reader_refuse(reader, line, "%.100s: expected once, found again (first in line %zu)",
                             key, first->line);
    return 0;
}

static int read_mapping(struct reader *reader, unsigned depth, struct node *mapping)
{
    for (;;) {
        _cleanup_(event_done) yaml_event_t key = {}, value = {};
        struct node *child;
        int r;

        r = reader_next(reader, &key);
        if (r != 0 || key.type == YAML_MAPPING_END_EVENT)
            return r;
        r = check_key(reader, mapping, &key);
        if (r != 0)
            return r;
        r = reader_next(reader, &value);
        if (r != 0)
            return r;
        r = read_node(reader, &value, depth + 1, &child);
        if (r != 0)
            return r;
        child->key = xstrdup((const char *)key.data.scalar.value);
        child->line = key.start_mark.line + 1;
        node_add_take(mapping, child);
    }
}

static int read_scalar(struct reader *reader, const yaml_event_t *event, struct node **ret)
{
    size_t line = event->start_mark.line + 1;
    const char *text = (const char *)event->data.scalar.value;
    struct node *node;
    bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    int r;

    r = refuse_decoration(reader, line, event->data.scalar.anchor, event->data.scalar.tag);
    if (r != 0)
        return r;
    if (strlen(text) != event->data.scalar.length)
        return reader_refuse(reader, line, "expected a text, found a NUL in it");
    if (plain && (*text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0)) {
        *ret = node_new(NODE_NOTHING, line);
        return 0;
    }
    node = node_new(NODE_SCALAR, line);
    node->text = xstrdup(text);
    *ret = node;
    return 0;
}

static int read_collection(struct reader *reader, const yaml_event_t *event, unsigned depth,
                           struct node **ret)
{
    bool mapping = event->type == YAML_MAPPING_START_EVENT;
    size_t line = event->start_mark.line + 1;
    _cleanup_(node_freep) struct node *node = NULL;
    int r;

    if (depth >= NODE_DEPTH_MAX)
        return reader_refuse(reader, line, "expected at most %d levels, found more",
                             NODE_DEPTH_MAX);
    r = mapping ? refuse_decoration(reader, line, event->data.mapping_start.anchor,
                                    event->data.mapping_start.tag)
                : refuse_decoration(reader, line, event->data.sequence_start.anchor,
                                    event->data.sequence_start.tag);
    if (r != 0)
        return r;
    node = node_new(mapping ? NODE_MAPPING : NODE_SEQUENCE, line);
    r = mapping ? read_mapping(reader, depth, node) : read_sequence(reader, depth, node);
    if (r != 0)
        return r;
    *ret = TAKE_PTR(node);
    return 0;
}

static int read_node(struct reader *reader, const yaml_event_t *event, unsigned depth,
                     struct node **ret)
{
    size_t line = event->start_mark.line + 1;

    if (++reader->nodes > NODE_COUNT_MAX)
        return reader_refuse(reader, line, "expected at most %d values, found more",
                             NODE_COUNT_MAX);
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return read_scalar(reader, event, ret);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        return read_collection(reader, event, depth, ret);
    case YAML_ALIAS_EVENT:
        return reader_refuse(reader, line, "expected a plain value, found the alias '*%.40s'",
                             (const char *)event->data.alias.anchor);
    default:
        return reader_refuse(reader, line, "expected a value, found nothing");
    }
}

/* STREAM-START, then DOCUMENT-START, or STREAM-END when there is nothing but comments. */
static int read_prologue(struct reader *reader, bool *ret_empty)
{
    for (unsigned i = 0; i < 2; i++) {
        _cleanup_(event_done) yaml_event_t event = {};
        int r = reader_next(reader, &event);

        if (r != 0)
            return r;
        *ret_empty = event.type == YAML_STREAM_END_EVENT;
    }
    return 0;
}

/* DOCUMENT-END, then STREAM-END. */
static int read_epilogue(struct reader *reader)
{
    for (unsigned i = 0; i < 2; i++) {
        _cleanup_(event_done) yaml_event_t event = {};
        int r = reader_next(reader, &event);

        if (r != 0)
            return r;
        if (event.type == YAML_DOCUMENT_START_EVENT)
            return reader_refuse(reader, event.start_mark.line + 1,
                                 "expected one document, found another");
    }
    return 0;
}

static int read_root(struct reader *reader, struct node **ret)
{
    _cleanup_(event_done) yaml_event_t event = {};
    _cleanup_(node_freep) struct node *root = NULL;
    bool empty;
    int r;

    r = read_prologue(reader, &empty);
    if (r != 0)
        return r;
    if (empty) {
        *ret = node_new(NODE_NOTHING, 1);
        return 0;
    }
    r = reader_next(reader, &event);
    if (r != 0)
        return r;
    r = read_node(reader, &event, 0, &root);
    if (r != 0)
        return r;
    if (root->kind == NODE_SCALAR || root->kind == NODE_SEQUENCE)
        return reader_refuse(reader, root->line, "expected keys with values, found %s",
                             root->kind == NODE_SEQUENCE ? "a list" : "a text");
    r = read_epilogue(reader);
    if (r != 0)
        return r;
    *ret = TAKE_PTR(root);
    return 0;
}

int node_parse(const char *text, size_t len, const char *name, struct node **ret,
               struct config_error *ret_error)
{
    struct reader reader = { .text = text, .name = name, .error = ret_error };
    int r;

    if (!yaml_parser_initialize(&reader.parser))
        abort(); /* out of memory */
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, len);
    r = read_root(&reader, ret);
    yaml_parser_delete(&reader.parser);
    return r;
}
