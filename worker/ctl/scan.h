/* Topics as they are now: every record from a time on to the ends that were there when the scan
 * began, read_committed, without a consumer group. */
#ifndef WORKER_CTL_SCAN_H
#define WORKER_CTL_SCAN_H

#include "worker/ctl/client.h"

#define SCAN_TOPICS 4
struct scan {
    struct scan_topic {
        const char *name; /* NULL and "": none */
        bool must_exist;  /* else one that is not there is passed over */
    } topics[SCAN_TOPICS];
    uint64_t since_ms; /* records before are passed over; 0: none */
    /* Topic after topic, partition after partition, in the order of offsets, so that what comes
     * first is the same every time. False: enough, the scan ends. */
    bool (*take)(void *arg, size_t topic, rd_kafka_message_t *);
    void *arg;
};

enum ctl_exit scan_run(const struct scan *, const struct config *, char why[WHY_SIZE]);

/* When the record was written; 0: unknown. */
uint64_t message_time_ms(const rd_kafka_message_t *);

#endif
