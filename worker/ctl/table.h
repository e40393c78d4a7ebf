/* A table of text: columns as wide as their widest cell, rows as many as there are. Pure.
 *
 * A head that begins with '>' is a column of numbers, flush right. The last column is not padded.
 */
#ifndef WORKER_CTL_TABLE_H
#define WORKER_CTL_TABLE_H

#include "common/buf.h"

struct cell;
struct table {
    const char *const *heads; /* borrowed */
    size_t columns;
    struct buf text;    /* all cells, one behind the other */
    struct cell *cells; /* owned */
    size_t n, cap;
};

void table_init(struct table *, const char *const *heads, size_t columns);
void table_done(struct table *);

/* The next cell, row by row. Foreign text is made safe; NULL and "" become "-". */
void table_text(struct table *, const char *text);
void table_add(struct table *, const char *fmt, ...) PRINTF_LIKE(2, 3); /* our own text */
void table_age(struct table *, uint64_t ms);
void table_seconds(struct table *, uint64_t ms);
void table_paint(struct table *, const char *paint); /* the cell that was added last */

/* Appends head and rows, a newline behind each; no more than max_rows (0: all) of them. For tables
 * that out has room for. */
void table_print(const struct table *, bool colour, size_t max_rows, struct buf *out);

/* The same of a table of any size: all its lines, handed over in pieces of whole lines. */
void table_each(const struct table *, bool colour, void (*each)(void *arg, const struct buf *piece),
                void *arg);
size_t table_rows(const struct table *);

#endif
