/* Reads events: all partitions of one or two topics, read_committed, without a consumer group (so
 * that watching leaves no trace and needs no leave for a group). */
#ifndef WORKER_CTL_READER_H
#define WORKER_CTL_READER_H

#include "worker/ctl/client.h"

enum read_from { READ_FROM_END, READ_FROM_BEGINNING };

#define READER_TOPICS 2
struct reader {
    struct client client;
    rd_kafka_queue_t *queue; /* owned */
    struct {
        rd_kafka_topic_t *rkt; /* owned */
        int partitions, started;
    } topics[READER_TOPICS];
    size_t n;
};

/* names: "" and NULL are passed over. When it has returned CTL_OK with READ_FROM_END, nothing that
 * is written from now on is missed. Partitions added later are not read. */
enum ctl_exit reader_open(struct reader *, const struct config *,
                          const char *const names[READER_TOPICS], enum read_from,
                          char why[WHY_SIZE]);

/* The next record; the caller destroys it. NULL after timeout_ms. With m->err it is no record:
 * _PARTITION_EOF each time the end of a partition is reached, anything else is a fault. */
rd_kafka_message_t *reader_next(struct reader *, int timeout_ms);

void reader_close(struct reader *); /* also when it was never opened */

/* The record's last header `name`, borrowed of it, without a NUL at its end. False: there is none,
 * or it is null. */
bool message_header(rd_kafka_message_t *, const char *name, const char **value, size_t *len);

#endif
