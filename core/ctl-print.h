/* JSON documents for people. What strangers named is shown without control bytes. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum ctl_form {
    FORM_TEXT,
    FORM_STATE, /* coloured on a terminal */
    FORM_NUMBER,
    FORM_BYTES,   /* 1.5 MiB */
    FORM_SECONDS, /* 3d 4h */
};

struct ctl_column {
    const char *key; /* NULL ends the list */
    const char *title;
    enum ctl_form form;
    unsigned spare; /* the highest goes first where the terminal is too narrow; 0: never */
};

void ctl_print_json(const json_t *document);      /* over several lines */
void ctl_print_json_line(const json_t *document); /* for streams; the caller flushes */
/* Aligned; on a terminal spare columns are left out and the last one is cut to fit. Missing values
 * and null show as a dash. */
void ctl_print_table(const json_t *rows, const struct ctl_column *columns);
/* Any document: "key: value" lines for objects, a table for a list of objects. */
void ctl_print_any(const json_t *document);
void ctl_print_clear(void); /* the terminal, before showing the same again */
/* One value as it stands in tables. */
char *ctl_format(const json_t *value, enum ctl_form form);

/* What answers are made of. UTC as "2026-11-22T02:00:00Z", null for 0; a text, whatever bytes a
 * stranger put in it. */
json_t *ctl_time(int64_t utc_sec);
json_t *ctl_text(const char *text);
