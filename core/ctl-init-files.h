/* What `init` writes: folders and files as templates. "@NAME@" stands for a variable, escaped for a
 * YAML text in double quotes; "@=NAME@" for the same as it is. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "buf.h"

enum init_scope {
    SCOPE_ALWAYS,
    SCOPE_EMULATOR, /* with a local hub */
};

struct init_file {
    const char *path; /* below the directory; NULL ends the table */
    mode_t mode;
    enum init_scope scope;
    bool owned;       /* by the user that the plugins run as */
    const char *text; /* template; NULL: a folder */
};

struct init_variable {
    const char *name; /* NULL ends the list */
    const char *value;
};

/* In the order of making. */
extern const struct init_file init_files[];

void init_expand(const char *text, const struct init_variable *variables, struct buf *out);
