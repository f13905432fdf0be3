/*
 * Conditions, compiled and run. A program is a list of steps over a stack of values; running it
 * neither recurses nor allocates, but for texts that functions make, and does no more than
 * ROUTE_WORK_MAX allows.
 */
#pragma once

#include "route-symbols.h"

struct route_program;

/* @syntax: with a condition that route_check() has passed. Adds what it looks up to @symbols. */
struct route_program *route_program_new(const struct route_syntax *syntax,
                                        struct route_symbols *symbols);
struct route_program *route_program_free(struct route_program *program);
DEFINE_FREEP(struct route_program, route_program_free)

/* The working memory of programs that share their symbols. */
struct route_eval {
    const struct route_symbols *symbols;
    struct route_message *message;
    struct route_work work;
    struct route_value *stack;
    struct known_value *known; /* by symbol */
    uint32_t turn;
};

/* @stack_max: the greatest of the programs' syntaxes. */
void route_eval_init(struct route_eval *eval, const struct route_symbols *symbols,
                     size_t stack_max);
void route_eval_done(struct route_eval *eval);

/* Between these two programs run, on one message. _end: false when they would have cost more
 * than they may. */
void route_eval_begin(struct route_eval *eval, struct route_message *message);
bool route_eval_end(struct route_eval *eval);
enum route_verdict route_program_run(const struct route_program *program, struct route_eval *eval);
