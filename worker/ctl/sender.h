/* Puts jobs into the jobs topic: idempotent, by the hash that Java's producers use, so that a
 * session's jobs go to one partition whoever sends them. */
#ifndef WORKER_CTL_SENDER_H
#define WORKER_CTL_SENDER_H

#include "common/wire.h"
#include "worker/ctl/client.h"

struct send_report {
    void *tag; /* the parcel's */
    int32_t partition;
    int64_t offset;
    enum ctl_exit code; /* CTL_OK: it is in the topic, at these coordinates */
    const char *why;    /* borrowed; "" when it was delivered */
};

struct sender {
    struct client client;
    rd_kafka_topic_t *topic; /* owned */
    int partitions;          /* of the topic */
    size_t undelivered;
    void (*delivered)(void *arg, const struct send_report *); /* from sender_poll and sender_send */
    void *arg;
};

/* Finds the jobs topic there, or says why not. */
enum ctl_exit sender_open(struct sender *, const struct config *, char why[WHY_SIZE]);

/* Copies the parcel. Its delivery is reported exactly once, if this returned CTL_OK. */
struct parcel {
    const char *key;   /* the session's id; NULL: none */
    const char *value; /* JSON; NULL: a tombstone */
    size_t key_len, value_len;
    int32_t partition;            /* RD_KAFKA_PARTITION_UA: by the key */
    const char *ce_type;          /* NULL: no CloudEvents headers */
    const struct header *headers; /* NULL: made here; else just these */
    size_t n_headers;
    void *tag;
};
enum ctl_exit sender_send(struct sender *, const struct parcel *, char why[WHY_SIZE]);

void sender_poll(struct sender *, int timeout_ms);
void sender_close(struct sender *); /* also when it was never opened */

#endif
