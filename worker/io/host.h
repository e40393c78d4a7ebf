/* The host: the live surroundings of the core. It turns what happens (records, replies, commits,
 * timers, signals) into inputs, and carries out effects through consumer, publisher and http. It
 * decides nothing. */
#ifndef WORKER_IO_HOST_H
#define WORKER_IO_HOST_H

#include "common/buf.h"
#include "common/config.h"
#include "worker/io/loop.h"

struct host;

/* Everything is made; nothing is read before host_run. 0, or -errno (said in the log). */
MUST_USE int host_new(struct loop *, const struct config *, struct host **out);
void host_free(struct host *); /* NULL and half-built allowed */

/* Until it is drained or cannot go on. The exit code: 0 after a drain, 75 (EX_TEMPFAIL) when it
 * should be started again, another when that would not help. */
int host_run(struct host *);

/* Drain: from a signal handler of the loop. */
void host_drain(struct host *);

/* True when /readyz says 200. Appends a line for people, without its newline: what it has in hand,
 * or why it is not ready. */
bool host_status(const struct host *, struct buf *out);

#endif
