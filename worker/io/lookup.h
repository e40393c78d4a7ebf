/* Committed offsets of the group with their metadata, looked up without blocking the loop, and only
 * as stable ones: never what a transaction that may yet be aborted has left. A thread and a handle
 * of its own; that handle never joins the group. */
#ifndef WORKER_IO_LOOKUP_H
#define WORKER_IO_LOOKUP_H

#include "common/config.h"
#include "worker/io/loop.h"

struct lookup;

struct committed {
    int32_t partition;
    uintptr_t ticket; /* of the question */
    bool known;       /* false: a transaction is pending, or the coordinator is away: ask again */
    int64_t offset;   /* -1: nothing is committed */
    char *metadata;   /* borrowed; NUL-terminated */
    int32_t total;    /* partitions of the topic; 0: not known */
};

/* In the loop's thread, never from inside lookup_ask. One call for each partition asked for. */
typedef void lookup_fn(void *arg, const struct committed *);

/* stable false: pending transactions are not waited for (to see whether the coordinator answers at
 * all). NULL when librdkafka refuses the configuration (said in the log). */
struct lookup *lookup_new(struct loop *, const struct config *, const char *instance, bool stable,
                          lookup_fn *, void *arg);
void lookup_free(struct lookup *); /* at most a second; NULL allowed */

/* Answers follow one by one, the unknown ones a fraction of a second after the known. */
void lookup_ask(struct lookup *, const int32_t *partitions, size_t n, uintptr_t ticket);

#endif
