/* buf: see the header. Grows by doubling; one byte beyond len is always the NUL. */
#include "common/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

void buf_init(struct buf *b, size_t max)
{
    ASSERT(max > 0 && max < SIZE_MAX / 2);
    *b = (struct buf){.max = max};
}

void buf_done(struct buf *b)
{
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->overflow = false;
    if (b->data)
        b->data[0] = '\0';
}

static void reserve(struct buf *b, size_t len)
{
    if (b->cap > len)
        return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap <= len)
        cap *= 2;
    b->cap = MIN(cap, b->max + 1);
    b->data = xrealloc(b->data, b->cap, 1);
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
    ASSERT(b->max > 0);
    size_t fits = MIN(n, b->max - b->len);
    b->overflow |= fits < n;
    reserve(b, b->len + fits);
    if (fits)
        memcpy(b->data + b->len, bytes, fits);
    b->len += fits;
    b->data[b->len] = '\0';
}

void buf_adds(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text));
}

void buf_addc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_vaddf(struct buf *b, const char *fmt, va_list ap)
{
    char small[256];
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    ASSERT(n >= 0);
    if ((size_t)n < sizeof small) {
        buf_add(b, small, (size_t)n);
    } else {
        char *large = xmalloc((size_t)n + 1);
        vsnprintf(large, (size_t)n + 1, fmt, again);
        buf_add(b, large, (size_t)n);
        free(large);
    }
    va_end(again);
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(b, fmt, ap);
    va_end(ap);
}

const char *buf_text(const struct buf *b)
{
    return b->data ? b->data : "";
}

char *buf_steal(struct buf *b)
{
    char *text = b->data ? b->data : xstrdup("");
    size_t max = b->max;
    *b = (struct buf){.max = max};
    return text;
}
