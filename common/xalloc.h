/* Allocation that does not fail: out of memory aborts the process (crash-only; Kafka redelivers
 * what was in hand). Every block is freed with free(). */
#ifndef COMMON_XALLOC_H
#define COMMON_XALLOC_H

#include <stddef.h>

#include "common/base.h"

void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull)); /* zeroed */
void *xrealloc(void *p, size_t n, size_t size)
    __attribute__((returns_nonnull)); /* n * size, checked */
char *xstrdup(const char *s) __attribute__((returns_nonnull));
char *xstrdup0(const char *s); /* NULL stays NULL */
char *xmemdup0(const void *p, size_t n)
    __attribute__((returns_nonnull)); /* copy of n bytes and a NUL */
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2) __attribute__((returns_nonnull));

/* For CLEANUP: frees what the variable points to. */
void free_ptr(void *p);

/* Makes room for one more element in the heap array p of n used and *cap allocated elements. */
#define GROW(p, n, cap)                                                                            \
    do {                                                                                           \
        if ((n) == (cap)) {                                                                        \
            (cap) = (cap) ? (cap) * 2 : 8;                                                         \
            (p) = xrealloc((p), (cap), sizeof *(p));                                               \
        }                                                                                          \
    } while (0)

#endif
