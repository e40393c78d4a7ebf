/* The publisher: commit(batch) -> committed | refused. One thread of its own, because transactional
 * calls block, some without limit; a watchdog in the loop ends the process when one hangs.
 *
 * exactly_once: one short transaction per batch (messages + offsets), fenced by the consumer's
 * group metadata. Any error event between begin and end, even if commit said ok, means: a new
 * producer before the next begin. An unknown outcome is resolved here, by reading the committed
 * offsets back. at_least_once: idempotent producer, delivery reports, then the offset commit. */
#ifndef WORKER_IO_PUBLISHER_H
#define WORKER_IO_PUBLISHER_H

#include <librdkafka/rdkafka.h>

#include "worker/core/core.h"
#include "worker/io/loop.h"

struct publisher;

struct publisher_options {
    const struct config *config; /* borrowed */
    const char *instance;        /* transactional.id is "<group>-<instance>" */
    rd_kafka_t *consumer;        /* borrowed: at_least_once commits through it */
    /* The outcome, in the loop's thread. */
    void (*outcome)(void *arg, uint64_t batch, bool committed);
    /* It cannot go on (fenced by a live twin, a call that hangs, a permanent refusal): one sentence
     * that says what to do. The process is to end with exit_code. */
    void (*fatal)(void *arg, int exit_code, const char *why);
    void *arg;
    unsigned watchdog_seconds; /* a call hangs: no progress for so long, though the broker answers.
                                  0: 120 */
};

struct publisher *publisher_new(struct loop *, const struct publisher_options *);
/* Before consumer_free. Waits for its thread, at most 5 s. False: it hangs and is left behind, with
 * the batch that it was lent. NULL allowed. */
bool publisher_free(struct publisher *);

/* Begins the commit. batch is borrowed until the outcome. group is taken over (exactly_once; NULL
 * otherwise). At most one at a time. */
void publisher_commit(struct publisher *, const struct batch *batch,
                      rd_kafka_consumer_group_metadata_t *group);

/* Progress events and other things that may be lost: fire and forget. Copies. */
void publisher_progress(struct publisher *, const struct message *);

bool publisher_ready(const struct publisher *); /* initialised, not being re-made: for /readyz */

#endif
