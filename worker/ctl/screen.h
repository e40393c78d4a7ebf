/* The terminal as a screen of its own, for as long as something is shown on it; there is one.
 *
 * Plain ANSI sequences. However it ends (q, Ctrl-C, a TERM), the terminal is as it was; Ctrl-Z and
 * a change of its size are seen to. */
#ifndef WORKER_CTL_SCREEN_H
#define WORKER_CTL_SCREEN_H

#include "common/base.h"
#include "common/buf.h"

bool screen_possible(void); /* is stdout a terminal that can do it? */
void screen_begin(void);
MUST_USE int screen_end(void); /* 0, or the errno of what could not be shown */

/* Lines that fit. */
size_t screen_height(void);

/* Shows the text from the top, each line cut to the width. Colours in it are ours (text.h); all
 * else is safe text. */
void screen_draw(const struct buf *text);

/* False: it is to end, or nothing can be shown any more. True after ms, or earlier when it has to
 * be drawn anew. */
MUST_USE bool screen_wait(unsigned ms);

/* One line without its end, appended: no more than `width` characters, colours not counted. */
void add_cut(struct buf *out, const char *line, size_t len, size_t width);

#endif
