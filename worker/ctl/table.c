/* table: see the header.
 *
 * Cells are made safe when they are added, so that their width is that of what is shown. Colours
 * stand beside the text and are written only when it is printed: they take no room.
 *
 * Cells are kept as long as there is memory: whoever adds rows has read them and bounds them. What
 * is printed holds blanks and colours, too, and can be a multiple of that; so it is never held as a
 * whole, but handed on in pieces. Invariant: no cell is ever cut for want of room. */
#include "worker/ctl/table.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/ctl/text.h"

#define PIECE 65536 /* about as much is handed on at once */
#define GAP 2
#define CELL_MAX 100 /* characters of a foreign text: none may push the others away */
#define LAST_CELL_MAX 500

struct cell {
    size_t at, len, width;
    const char *paint; /* static */
};

void table_init(struct table *t, const char *const *heads, size_t columns)
{
    *t = (struct table){.heads = heads, .columns = columns};
    buf_init(&t->text, SIZE_MAX / 4);
}

void table_done(struct table *t)
{
    buf_done(&t->text);
    free(t->cells);
    *t = (struct table){0};
}

size_t table_rows(const struct table *t)
{
    return t->n / t->columns;
}

/* ---- cells ---- */

/* The first `width` characters of text. */
static size_t cut(const char *text, size_t len, size_t width)
{
    size_t i = 0;
    for (size_t n; i < len && width > 0; i += n ? n : 1, width--)
        n = utf8_char(text + i, len - i);
    return i;
}

/* What was appended since `at` becomes a cell. */
static void end_cell(struct table *t, size_t at)
{
    if (t->text.len == at)
        buf_addc(&t->text, '-');
    GROW(t->cells, t->n, t->cap);
    size_t len = t->text.len - at;
    t->cells[t->n++] = (struct cell){
        .at = at, .len = len, .width = text_width(buf_text(&t->text) + at, len), .paint = NO_PAINT};
}

void table_text(struct table *t, const char *text)
{
    size_t at = t->text.len;
    size_t len = text ? strlen(text) : 0;
    bool last = t->n % t->columns + 1 == t->columns;
    size_t n = cut(text ? text : "", len, last ? LAST_CELL_MAX : CELL_MAX);
    add_safe(&t->text, text ? text : "", n);
    buf_adds(&t->text, n < len ? "..." : "");
    end_cell(t, at);
}

void table_add(struct table *t, const char *fmt, ...)
{
    size_t at = t->text.len;
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&t->text, fmt, ap);
    va_end(ap);
    end_cell(t, at);
}

void table_age(struct table *t, uint64_t ms)
{
    size_t at = t->text.len;
    add_age(&t->text, ms);
    end_cell(t, at);
}

void table_seconds(struct table *t, uint64_t ms)
{
    size_t at = t->text.len;
    add_seconds(&t->text, ms);
    end_cell(t, at);
}

void table_paint(struct table *t, const char *paint)
{
    ASSERT(t->n > 0);
    t->cells[t->n - 1].paint = paint;
}

/* ---- printing ---- */

static void add_blanks(struct buf *out, size_t n)
{
    buf_addf(out, "%*s", (int)n, "");
}

static bool is_number(const struct table *t, size_t column)
{
    return t->heads[column][0] == '>';
}

static const char *head(const struct table *t, size_t column)
{
    return t->heads[column] + is_number(t, column);
}

struct printing {
    const struct table *table;
    size_t *widths; /* owned */
    bool colour;
    struct buf *out;
};

static void add_cell(struct printing *p, size_t column, const char *text, const struct cell *c)
{
    bool number = is_number(p->table, column), last = column + 1 == p->table->columns;
    CLEANUP(free_ptr) char *shown = xmemdup0(text, c->len);
    size_t pad = p->widths[column] - c->width;
    add_blanks(p->out, number ? pad : 0);
    add_painted(p->out, p->colour, c->paint, shown);
    add_blanks(p->out, last ? 0 : GAP + (number ? 0 : pad));
}

static void trim(struct buf *out)
{
    while (out->len > 0 && out->data[out->len - 1] == ' ')
        out->data[--out->len] = '\0';
    buf_addc(out, '\n');
}

static size_t *find_widths(const struct table *t)
{
    size_t *widths = xcalloc(t->columns, sizeof *widths);
    for (size_t i = 0; i < t->columns; i++)
        widths[i] = strlen(head(t, i));
    for (size_t i = 0; i < t->n; i++)
        widths[i % t->columns] = MAX(widths[i % t->columns], t->cells[i].width);
    return widths;
}

static void print_head(struct printing *p)
{
    for (size_t i = 0; i < p->table->columns; i++) {
        size_t len = strlen(head(p->table, i));
        const struct cell c = {.len = len, .width = len, .paint = DIM};
        add_cell(p, i, head(p->table, i), &c);
    }
    trim(p->out);
}

static void print_row(struct printing *p, size_t row)
{
    const struct table *t = p->table;
    for (size_t i = 0; i < t->columns; i++) {
        const struct cell *c = &t->cells[row * t->columns + i];
        add_cell(p, i, buf_text(&t->text) + c->at, c);
    }
    trim(p->out);
}

void table_print(const struct table *t, bool colour, size_t max_rows, struct buf *out)
{
    struct printing p = {t, find_widths(t), colour, out};
    size_t rows = max_rows ? MIN(max_rows, table_rows(t)) : table_rows(t);
    print_head(&p);
    for (size_t r = 0; r < rows; r++)
        print_row(&p, r);
    free(p.widths);
}

void table_each(const struct table *t, bool colour,
                void (*each)(void *arg, const struct buf *piece), void *arg)
{
    struct buf piece;
    struct printing p = {t, find_widths(t), colour, &piece};
    buf_init(&piece, SIZE_MAX / 4);
    print_head(&p);
    for (size_t r = 0; r < table_rows(t); r++) {
        print_row(&p, r);
        if (piece.len >= PIECE) {
            each(arg, &piece);
            buf_clear(&piece);
        }
    }
    if (piece.len)
        each(arg, &piece);
    buf_done(&piece);
    free(p.widths);
}
