/* A growing byte buffer with a mandatory maximum. Going over it sets `overflow`, keeps what was
 * there and drops what does not fit: check once, at the end. Always NUL-terminated when data is not
 * NULL. */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include <stdarg.h>

#include "common/base.h"

struct buf {
    char *data; /* owned; NULL until the first byte */
    size_t len;
    size_t cap;
    size_t max;    /* len never exceeds it */
    bool overflow; /* something was dropped */
};

void buf_init(struct buf *b, size_t max); /* allocates nothing */
void buf_done(struct buf *b);             /* frees; b may be zeroed or half built */
void buf_clear(struct buf *b);            /* empty, memory kept, overflow forgotten */

void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_adds(struct buf *b, const char *text);
void buf_addc(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vaddf(struct buf *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);

const char *buf_text(const struct buf *b); /* "" when empty; valid until the next change */
char *buf_steal(struct buf *b); /* caller owns the text ("" when empty); b is empty after */

#endif
