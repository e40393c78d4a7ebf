/* The consumer: records of open partitions, one at a time, and the group's changes. Separate
 * partition queues that are simply not read give back-pressure; offsets are never looked up by
 * librdkafka but by a stable OffsetFetch (lookup.h) on another handle, each partition starting at
 * the offset and with the metadata of that one answer. Revoke is a state: it is answered when the
 * core releases. */
#ifndef WORKER_IO_CONSUMER_H
#define WORKER_IO_CONSUMER_H

#include <librdkafka/rdkafka.h>

#include "common/config.h"
#include "common/wire.h"
#include "worker/io/loop.h"

struct consumer;

struct consumer_events { /* all in the loop's thread, never from inside a consumer_… call */
    void (*record)(void *arg, const struct record *); /* borrowed */
    void (*assigned)(void *arg, int32_t partition, int32_t total, int64_t offset,
                     const char *metadata);
    void (*revoked)(void *arg, const int32_t *partitions,
                    size_t n); /* answer with consumer_release */
    void (*lost)(void *arg, const int32_t *partitions,
                 size_t n);    /* for information: answered already */
    void (*closed)(void *arg); /* after consumer_leave */
    void (*fatal)(void *arg, int exit_code, const char *why);
};

struct consumer_options {
    const struct config *config; /* borrowed */
    const char *instance;        /* client id */
    const struct consumer_events *events;
    void *arg;
};

/* NULL when librdkafka refuses the configuration (said in the log). */
struct consumer *consumer_new(struct loop *, const struct consumer_options *);
void consumer_free(struct consumer *); /* leaves no group; NULL allowed */

/* Records of the partition may (not) be read from now on. New partitions are closed. */
void consumer_open(struct consumer *, int32_t partition, bool open);

/* These partitions of a revoke are done with; when all of it are, the revoke is answered. */
void consumer_release(struct consumer *, const int32_t *partitions, size_t n);

/* What Kafka has to say about the group is heard now, before anything else: after a freeze. Calls
 * back. */
void consumer_serve(struct consumer *);

rd_kafka_t *consumer_handle(struct consumer *);
/* For a transaction, taken now; the caller (or publisher_commit) destroys it. */
rd_kafka_consumer_group_metadata_t *consumer_group(struct consumer *);

bool consumer_ready(
    const struct consumer *); /* it has joined: assigned something, or idle in the group */
void consumer_leave(struct consumer *); /* leaves the group; `closed` follows, at most 5 s later */

#endif
