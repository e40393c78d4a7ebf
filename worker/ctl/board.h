/* What `top` shows: one look at the workers, and what has changed since the look before. Pure. */
#ifndef WORKER_CTL_BOARD_H
#define WORKER_CTL_BOARD_H

#include "common/buf.h"
#include "worker/ctl/ask.h"

struct look {
    struct worker_answer *answers; /* owned */
    size_t n;
    uint64_t at_ms; /* of a clock that does not jump */
};
void look_done(struct look *);

/* now: what is shown. before: for rates; one without answers gives none. */
struct board {
    const struct look *now, *before;
    const char *clock; /* text for the first line */
    bool colour;
    size_t height; /* lines; 0: as many as there are */
};
void board_text(const struct board *, struct buf *out);

/* One object for each worker that was asked. */
void board_json(const struct board *, void (*each)(void *arg, const struct buf *json), void *arg);

#endif
