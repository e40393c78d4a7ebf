/* Metrics: one list (metrics.c) of counters, gauges and histograms with closed label sets, and
 * their Prometheus text. Any thread may count. */
#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

#include "common/base.h"
#include "common/buf.h"

enum metric {
    M_JOBS_RECEIVED,       /* counter */
    M_JOBS_SKIPPED,        /* counter: already finished by an earlier owner */
    M_JOBS_COMPLETED,      /* counter, outcome: enum metric_outcome */
    M_JOB_FAILURES,        /* counter, step x code */
    M_JOB_RETRIES,         /* counter, step */
    M_JOB_SECONDS,         /* histogram, outcome: taken to committed */
    M_STEP_SECONDS,        /* histogram, step */
    M_JOBS_IN_FLIGHT,      /* gauge */
    M_JOBS_PARKED,         /* gauge: waiting for a create token */
    M_RESULTS_UNPUBLISHED, /* gauge */
    M_UNKNOWN_FIELDS,      /* counter */
    M_SANDBOXES_CREATED,   /* counter */
    M_SANDBOXES_ADOPTED,   /* counter */
    M_SANDBOXES_DESTROYED, /* counter */
    M_SANDBOXES_SPARED,    /* counter: a destroy found it kept */
    M_SANDBOXES_SWEPT,     /* counter: garbage found by the sweep */
    M_LATE_KEEPS,          /* counter */
    M_PROVIDER_REQUESTS, /* counter, provider_requests_total{step,status}: step x enum metric_status
                          */
    M_PROVIDER_SECONDS,  /* histogram, step */
    M_PROVIDER_REMAINING, /* gauge, scope index 0..3: general create lifecycle other */
    M_PROVIDER_REFUSES,   /* gauge: 1 while the provider refuses the key */
    M_BATCHES,            /* counter, result: enum metric_batch */
    M_BATCH_SECONDS,      /* histogram */
    M_PRODUCERS_MADE,     /* counter */
    M_REBALANCES,         /* counter, event: assigned revoked lost */
    M_PARTITIONS,         /* gauge: assigned */
    M_KAFKA_ERRORS,       /* counter */
    M_OFFSETS_REPLAYED,   /* counter: metadata that could not be read */
    M_LOOP_LAG_SECONDS,   /* histogram */
    M_HTTP_IN_FLIGHT,     /* gauge */
    M_LOG_SUPPRESSED,     /* counter */
    M_LOG_LOST,           /* counter: stderr did not take them */
    M_DRAINING,           /* gauge */
    N_METRICS
};
enum metric_outcome { MO_READY, MO_FAILED, MO_STOPPED, MO_DELETED, MO_REFUSED, N_MO };
enum metric_status {
    MS_2XX,
    MS_3XX,
    MS_4XX,
    MS_429,
    MS_5XX,
    MS_TIMEOUT,
    MS_CONNECT,
    MS_OTHER,
    N_MS
};
enum metric_batch { MB_COMMITTED, MB_REFUSED, MB_UNKNOWN, N_MB };

void metric_add(enum metric, double by);                  /* no label */
void metric_add1(enum metric, unsigned label, double by); /* one label: its index */
void metric_add2(enum metric, unsigned a, unsigned b, double by);
void metric_set(enum metric, double to);
void metric_set1(enum metric, unsigned label, double to);
void metric_observe(enum metric, unsigned label, double seconds); /* label 0 where there is none */
double metric_value(enum metric,
                    unsigned label); /* for tests and status pages; histograms: count */
double metric_value2(enum metric, unsigned a, unsigned b); /* one series of two labels */
void metrics_reset(void);                                  /* for tests */

/* Prometheus text 0.0.4, every series present from the start, plus the process_* standard ones. */
void metrics_print(struct buf *out);

#endif
