/* Text for people: foreign bytes made harmless, colours, times, dumps.
 *
 * What stands in a topic was written by others: no byte of it may steer a terminal, whether it is
 * shown as text or as JSON. Pure. */
#ifndef WORKER_CTL_TEXT_H
#define WORKER_CTL_TEXT_H

#include "common/base.h"
#include "common/buf.h"

#define GREEN "\033[32m"
#define RED "\033[31m"
#define YELLOW "\033[33m"
#define BOLD "\033[1m"
#define DIM "\033[2m"
#define NO_PAINT ""

/* Appends text with control characters (C0, DEL, C1, changes of writing direction) and broken UTF-8
 * as \xNN or \u{NNNN}. */
void add_safe(struct buf *out, const char *text, size_t len);

/* Appends our own text in that colour; as it is when colour is false. */
void add_painted(struct buf *out, bool colour, const char *paint, const char *text);

/* A JSON text as one line: same meaning, no raw control byte. No newline at the end. */
void add_json_line(struct buf *out, const char *text, size_t len);

/* A member of an object, behind another one: ,"name":"text", or null without text. */
void add_json_member(struct buf *out, const char *name, const char *text);

/* "45s", "12m", "3h", "8d": how long ago. */
void add_age(struct buf *out, uint64_t ms);

/* "0.9 s", "312 s". */
void add_seconds(struct buf *out, uint64_t ms);

/* n of `width` cells, each '#': at least one when value is not 0. */
void add_bar(struct buf *out, uint64_t value, uint64_t of, unsigned width);

/* Is it UTF-8 without control characters but for line ends and tabs? */
bool is_text(const char *bytes, size_t len);

/* The bytes as lines behind `indent`: as text when is_text(), else offset, hex and ASCII. No more
 * than max bytes; says what is left out. Ends in a newline. */
void add_dump(struct buf *out, const char *indent, const char *bytes, size_t len, size_t max);

/* Columns that the (safe) text takes: its characters. */
size_t text_width(const char *text, size_t len);

/* "90s", "10m", "2h", "3d" before now_ms, or an RFC 3339 time. False: neither. */
MUST_USE bool parse_since(const char *text, uint64_t now_ms, uint64_t *since_ms);

#endif
