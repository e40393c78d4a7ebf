/* Results that become ready at a rate, and how long each takes until a read_committed reader has
 * it.
 *
 * Knows nothing of how they are published: that is what is compared. The reader is a thread of its
 * own, the same for all. */
#ifndef TESTS_BENCH_METER_H
#define TESTS_BENCH_METER_H

#include <librdkafka/rdkafka.h>

#include "common/wire.h"

#define METER_BATCH_MAX 2000 /* results of one transaction, as in the core */

struct meter_options {
    const char *brokers, *results, *jobs; /* topics; each has one partition that is used */
    unsigned rate;                        /* results a second; 0: all are ready at once */
    size_t total;
};

struct meter;
struct meter *meter_new(const struct meter_options *);
void meter_free(struct meter *);

/* From the command line: BROKERS RESULTS JOBS RATE TOTAL. False: not so many. */
MUST_USE bool meter_arguments(int argc, char **argv, struct meter_options *);

uint64_t meter_now_ns(void);
/* When the next result is ready; NEVER: no more come. */
uint64_t meter_next_ns(const struct meter *);
/* Up to METER_BATCH_MAX results that are ready now; both are the meter's until the next call. */
size_t meter_take(struct meter *, struct message **messages);
/* The offset and metadata that are committed with them. */
int64_t meter_offset(const struct meter *);
extern const char meter_metadata[];

/* Counts what was taken last as committed. */
void meter_committed(struct meter *);
/* Waits for the reader, at most 20 s, and prints one line of JSON. False: it has not seen all. */
MUST_USE bool meter_report(struct meter *);

#endif
