/*
 * Settings: a struct with the unit in each name, filled by a table. A key that is read is taken out of the
 * document, so what is left over is a typing error and is reported with file, line, key and what was expected.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum config_kind {
    CONFIG_STRING,      /* char *, owned by the struct; max is the longest length */
    CONFIG_BOOL,        /* bool: true | false */
    CONFIG_COUNT,       /* uint64_t, bounds as decimals */
    CONFIG_SIZE,        /* uint64_t bytes: 512, 64KiB, 2GiB, 10MB */
    CONFIG_DURATION,    /* uint64_t microseconds: 500ms, 10s, 5min, 2h; a bare number is seconds */
    CONFIG_ENUM,        /* int: index into the NULL-terminated list in @names */
    CONFIG_STRING_LIST, /* char **, NULL-terminated, owned by the struct */
};

struct config_item {
    const char *key; /* NULL ends the table */
    enum config_kind kind;
    size_t offset;
    const char *fallback; /* default, as it would stand in the file; NULL: must be given */
    const char *min,
        *max; /* as they would stand in the file; NULL: no bound. CONFIG_STRING: max length */
    const char *help;
    const char *const *names; /* CONFIG_ENUM */
};

/* One YAML document with the line of every node. Only mappings, sequences and scalars: anchors and tags are refused. */
struct config_document;

/* What is wrong, said once, complete: "store.yaml:12: settings.durability: expected sync or interval, found 'fast'". */
struct config_error {
    char text[512];
};

/* @name stands in errors. @ret_error is set on CONFIG_E_INVALID. Errors: -errno when the file cannot be read. */
enum { CONFIG_E_INVALID = 1 };
int config_document_read(const char *path, struct config_document **ret,
                         struct config_error *ret_error);
int config_document_read_fd(int fd, const char *name, struct config_document **ret,
                            struct config_error *ret_error);
int config_document_parse(const char *text, size_t len, const char *name,
                          struct config_document **ret, struct config_error *ret_error);
struct config_document *config_document_free(struct config_document *d);

/* Reads the items of @section ("" is the top, "settings", "limits") into @ret_struct and takes them out of the document.
 * Missing sections read as empty. The strings are the struct's: config_clear(). */
int config_take(struct config_document *d, const char *section, const struct config_item *items,
                void *ret_struct, struct config_error *ret_error);

/* Takes a list of mappings ("sockets"): @fn once for each, with a document of its own to config_take() "" from. */
typedef int config_each_fn(struct config_document *entry, void *userdata,
                           struct config_error *ret_error);
int config_take_each(struct config_document *d, const char *section, config_each_fn *fn,
                     void *userdata, struct config_error *ret_error);

/* Takes a whole section away unread (it belongs to somebody else). */
void config_take_away(struct config_document *d, const char *section);

/* Fails, naming the first, when any key was not taken. */
int config_finish(struct config_document *d, struct config_error *ret_error);

/* A check across keys of an already parsed struct: formats an error the same way ("store.yaml: settings.x: …"). */
int config_refuse(struct config_document *d, const char *section, const char *key,
                  const char *expected, struct config_error *ret_error);

void config_clear(const struct config_item *items, void *s);             /* frees its strings */
void config_print_reference(const struct config_item *items, FILE *out); /* a Markdown table */
