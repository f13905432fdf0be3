/* Cuts the text of a route into tokens (routing.md §3): of all rules that fit the one that takes
 * most, of equal ones the first. There is no malformed text at this level: what fits nothing is
 * TOKEN_UNKNOWN, and no parser wants it. */
#pragma once

#include "span.h"

enum token_kind {
    TOKEN_SELECT,
    TOKEN_FROM,
    TOKEN_WHERE,
    TOKEN_INTO,
    TOKEN_STRING,
    TOKEN_UNTERMINATED, /* a quote without its partner, or a bad escape behind it */
    TOKEN_INTEGER,
    TOKEN_HEX,
    TOKEN_REAL,
    TOKEN_TRUE,
    TOKEN_FALSE,
    TOKEN_NULL,
    TOKEN_UNDEFINED,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_COMMA,
    TOKEN_PLUS,
    TOKEN_MINUS,
    TOKEN_STAR,
    TOKEN_SLASH,
    TOKEN_PERCENT,
    TOKEN_AND,
    TOKEN_OR,
    TOKEN_NOT,
    TOKEN_EQUAL,
    TOKEN_NOT_EQUAL, /* != or <> */
    TOKEN_LESS_EQUAL,
    TOKEN_GREATER_EQUAL,
    TOKEN_GREATER,
    TOKEN_LESS,
    TOKEN_CONCAT,
    TOKEN_COALESCE,
    TOKEN_SYSTEM_NAME, /* $name */
    TOKEN_NAME,
    TOKEN_BRACKETED, /* a name with [ or ] in it */
    TOKEN_OPEN_BRACE,
    TOKEN_CLOSE_BRACE,
    TOKEN_UNKNOWN,
    TOKEN_END,
    _TOKEN_COUNT
};

struct token {
    enum token_kind kind;
    struct span text; /* quotes and $ included; empty at the end */
    size_t offset;
};

struct route_lexer {
    struct span text;
    size_t at;
};

struct token lexer_next(struct route_lexer *lexer);
