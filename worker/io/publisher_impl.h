/* Inside of the publisher: what publisher.c (the loop's side and the thread), transaction.c
 * (exactly_once) and delivery.c (records out, at_least_once) share. */
#ifndef WORKER_IO_PUBLISHER_IMPL_H
#define WORKER_IO_PUBLISHER_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "worker/io/kafka.h"
#include "worker/io/lookup.h"
#include "worker/io/publisher.h"

/* What the publisher's thread alone touches. */
struct producer {
    rd_kafka_t *rk;  /* NULL: to be made */
    unsigned errors; /* error events */
    bool sick;       /* its next transaction would not be safe: see producer.c */
    bool too_large;  /* a record was refused for its size since that was last cleared */
    bool cut;        /* something was too large: dead letters are shortened, and each record goes
                        out alone, since its topic may take no batch of several */
    rd_kafka_resp_err_t failed; /* first delivery that failed since it was last cleared */
    uint64_t begun_ns;          /* the last batch */
    uint64_t ended_ns;
    unsigned committed; /* batches by this producer */
    unsigned fenced;    /* producers in a row that another of the same name has fenced */
    unsigned refusals;  /* batches in a row */
    bool *delivered;    /* at_least_once: by message of the batch */
    struct kafka_said said;
};

/* The one hand-over between the loop and the thread, under the lock. */
struct slot {
    const struct batch *batch; /* borrowed; NULL: nothing to do */
    rd_kafka_consumer_group_metadata_t *group;
    bool done, committed; /* the outcome, not yet taken */
    int exit_code;        /* not 0: fatal */
    char *why;            /* owned */
    bool stop;
};

struct publisher {
    struct publisher_options o; /* what it points to is borrowed */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t change;
    struct slot slot;
    struct producer producer;
    _Atomic bool ready;
    _Atomic uint64_t alive_ns; /* last sign of progress while there is work; 0: no work */

    /* of the loop's thread */
    struct loop *loop;
    struct wake *wake;
    struct timer *watchdog;
    rd_kafka_t *side;      /* for progress events; made with the first */
    struct lookup *lookup; /* for the watchdog; made with the first doubt */
    bool asked;            /* an answer is to come */
    uint64_t answering_ns; /* since when the broker answers while the thread hangs; 0: not */
    bool dead;
};

/* publisher.c, for the thread */
bool publisher_stopping(struct publisher *);
bool publisher_pause(struct publisher *, unsigned ms); /* false: stopping */
void publisher_alive(struct publisher *);              /* progress, or a definite answer */
void publisher_fatal(struct publisher *, int exit_code, const char *why);

/* producer.c: one producer's life */
enum txn {
    TXN_OK,
    TXN_AGAIN, /* not yet: the same call again, and no other */
    TXN_ABORT, /* this transaction cannot be committed */
    TXN_DEAD   /* nor can any other of this producer */
};
bool producer_make(struct publisher *); /* returns when it is there; false: stopping or fatal */
void producer_drop(struct publisher *); /* NULL producer allowed */
enum txn producer_judge(struct publisher *, rd_kafka_error_t *, const char *doing); /* frees it */
enum txn producer_dead(struct publisher *); /* TXN_DEAD when librdkafka says so, else TXN_OK */

/* delivery.c: records out */
void delivery_report(rd_kafka_t *, const rd_kafka_message_t *, void *publisher); /* dr_msg_cb */
void delivery_clear(struct publisher *); /* forgets earlier failures */
void delivery_send(struct publisher *, const struct message *, uintptr_t tag);
/* One that may be lost; in any thread. An error means that it is. */
rd_kafka_resp_err_t delivery_progress(rd_kafka_t *, const char *topic, const struct message *);
/* Until every record has its report, or (first) until one has failed. */
enum txn delivery_flush(struct publisher *, bool first);
rd_kafka_topic_partition_list_t *delivery_offsets(struct publisher *, const struct batch *);

/* The two ways to publish: true when the batch is committed. In the thread; the group metadata is
 * that of the moment the batch was made. */
typedef bool publish_fn(struct publisher *, const struct batch *,
                        const rd_kafka_consumer_group_metadata_t *);
publish_fn transaction_publish; /* exactly_once */
publish_fn offsets_publish;     /* at_least_once */

#endif
