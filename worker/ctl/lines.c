/* lines: see the header.
 *
 * Reads with read(2) into a block of its own: poll(2) knows nothing of what a FILE has read ahead,
 * and would wait for a pipe whose last lines stand in the FILE already. Here it is asked only when
 * the block is used up. */
#include "worker/ctl/lines.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define SLICE_MS 20 /* that a line may have to wait behind idle, and idle behind poll */

static void wait_for_bytes(struct lines *l)
{
    struct pollfd p = {.fd = l->fd, .events = POLLIN};
    while (poll(&p, 1, l->idle ? SLICE_MS : -1) <= 0)
        if (l->idle)
            l->idle(l->arg);
}

/* False: there is no more, or error. */
static bool fill(struct lines *l)
{
    ssize_t n;
    do {
        wait_for_bytes(l);
        n = read(l->fd, l->block, sizeof l->block);
    } while (n < 0 && (errno == EINTR || errno == EAGAIN));
    l->error = n < 0 ? errno : 0;
    l->at = 0;
    l->n = n > 0 ? (size_t)n : 0;
    return n > 0;
}

bool lines_next(struct lines *l, struct buf *line)
{
    buf_clear(line);
    for (bool begun = false; true; begun = true) {
        if (l->at == l->n && !fill(l))
            return begun && !l->error;
        const char *from = l->block + l->at;
        const char *end = memchr(from, '\n', l->n - l->at);
        size_t len = end ? (size_t)(end - from) : l->n - l->at;
        buf_add(line, from, len);
        l->at += len + (end != NULL);
        if (end)
            return true;
    }
}
