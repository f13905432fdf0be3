/* Ownership: allocation that does not fail, cleanup by scope, moving a pointer out of a variable. */
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define _cleanup_(fn)        __attribute__((__cleanup__(fn)))
#define _printf_(fmt, first) __attribute__((__format__(printf, fmt, first)))

/* Moves the pointer out: the variable is NULL afterwards. */
#define TAKE_PTR(p)                                                                                \
    ({                                                                                             \
        __typeof__(p) *_pp = &(p);                                                                 \
        __typeof__(p) _taken = *_pp;                                                               \
        *_pp = NULL;                                                                               \
        _taken;                                                                                    \
    })

#define ELEMENTSOF(a)                   (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Defines x_freep() for _cleanup_, out of x_free(). */
#define DEFINE_FREEP(type, free_fn)                                                                \
    static inline void free_fn##p(type **p)                                                        \
    {                                                                                              \
        if (*p)                                                                                    \
            *p = free_fn(*p);                                                                      \
    }

/* These end the process when memory is out: a restart is cheap, an untested branch is not. Zeroed. */
void *xalloc0(size_t n);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s); /* NULL gives NULL */
char *xstrndup(const char *s, size_t n);
void *xmemdup(const void *p, size_t n);
char *xasprintf(const char *format, ...) _printf_(1, 2);

#define xnew(type)      ((type *)xalloc0(sizeof(type)))
#define xnew_n(type, n) ((type *)xalloc0(sizeof(type) * (size_t)(n)))

/* Makes room for one more in a growing array of pointers or structs: doubles. */
#define xgrow(array, count, capacity)                                                              \
    do {                                                                                           \
        if ((count) >= (capacity)) {                                                               \
            (capacity) = (capacity) ? (capacity)*2 : 8;                                            \
            (array) = xrealloc((array), sizeof(*(array)) * (size_t)(capacity));                    \
        }                                                                                          \
    } while (0)

void freep(void *pp); /* _cleanup_(freep) char *s */
void closep(int *fd); /* _cleanup_(closep) int fd = -1 */
int close_fd(int fd); /* closes unless negative; keeps errno; returns -1 */
