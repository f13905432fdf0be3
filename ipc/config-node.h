/* A YAML text as a tree in which every node knows its line. Only what config files need: see
 * config.h. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config.h"
#include "mem.h"

enum node_kind {
    NODE_NOTHING, /* "key:" with no value, or ~ */
    NODE_SCALAR,
    NODE_SEQUENCE,
    NODE_MAPPING,
};

struct node {
    enum node_kind kind;
    size_t line; /* from 1; of the key when it has one */
    char *key;   /* NULL for the root and in sequences */
    char *text;  /* NODE_SCALAR */
    struct node **children;
    size_t count, capacity;

    bool taken; /* somebody asked for it by name */
    bool whole; /* and for all that is in it */
};

/* The root is a mapping, or nothing when the text is empty. Returns CONFIG_E_INVALID. */
int node_parse(const char *text, size_t len, const char *name, struct node **ret,
               struct config_error *ret_error);
struct node *node_free(struct node *node);
DEFINE_FREEP(struct node, node_free)

/* Writes "NAME:LINE: WHERE: WHAT" without control bytes; @line 0 and @where "" are left out.
 * Returns CONFIG_E_INVALID. */
int config_error_set(struct config_error *error, const char *name, size_t line, const char *where,
                     const char *what);

struct node *node_child(const struct node *node, const char *key, size_t key_len);
