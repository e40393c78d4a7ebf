/* Lines of a file or a pipe as they come, and time for other things while none does. */
#ifndef WORKER_CTL_LINES_H
#define WORKER_CTL_LINES_H

#include "common/base.h"
#include "common/buf.h"

struct lines {
    int fd;                  /* borrowed; nobody else reads from it */
    void (*idle)(void *arg); /* again and again while nothing comes; NULL: nothing to do */
    void *arg;
    char block[65536];
    size_t at, n; /* of the block: taken, read */
    int error;    /* errno of a read that failed; 0: none */
};

/* The next line without its end, the last one also without a newline. Waits for it, calling idle
 * at least some times a second; idle must come back as soon. False: there is none, or error. */
MUST_USE bool lines_next(struct lines *, struct buf *line);

#endif
