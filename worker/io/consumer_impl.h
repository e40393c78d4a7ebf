/* Inside of the consumer: what consumer.c (records, life) and assignment.c (the group) share. */
#ifndef WORKER_IO_CONSUMER_IMPL_H
#define WORKER_IO_CONSUMER_IMPL_H

#include "worker/io/consumer.h"
#include "worker/io/kafka.h"
#include "worker/io/lookup.h"

enum part_state { LOOKING, FOUND, OURS, GOING }; /* see assignment.c */

struct part {
    int32_t id;
    enum part_state state;
    uintptr_t ticket;        /* LOOKING: of the question under way; 0: none */
    uint64_t ask_ns;         /* LOOKING: not before */
    int64_t offset;          /* FOUND, OURS: where it begins; -1: at the beginning */
    int64_t next;            /* OURS: one more than the last offset delivered */
    char *metadata;          /* FOUND: owned */
    rd_kafka_queue_t *queue; /* OURS, GOING until it is let go */
    rd_kafka_event_t *held;  /* a record that came when the core had just closed; owned */
    const rd_kafka_message_t *held_message; /* inside held */
    bool open, more;                        /* more: its queue may have something */
    bool released;                          /* GOING */
};

struct consumer {
    struct loop *loop;         /* borrowed */
    struct consumer_options o; /* what it points to is borrowed */
    rd_kafka_t *rk;            /* the member of the group */
    rd_kafka_queue_t *queue;   /* of rk: group events and errors, never a record */
    struct lookup *lookup;
    struct wake *wake;
    struct timer *timer;
    struct part *parts;
    size_t n, cap;
    size_t next;            /* round robin */
    uintptr_t ticket;       /* the last one given */
    int32_t total;          /* partitions of the topic */
    struct header *headers; /* of the record in hand; what they point to is borrowed */
    size_t headers_cap;
    struct kafka_said said;
    bool cooperative; /* as of the last ASSIGN */
    bool joined;
    bool assigning; /* eager: an ASSIGN waits for its answer */
    bool revoking;  /* a REVOKE waits for its answer */
    bool serving;   /* callbacks may be on the stack */
    bool leaving, left, dead;
    uint64_t leave_by_ns;
};

void consumer_error(struct consumer *, rd_kafka_resp_err_t, const char *doing, const char *detail);

struct part *part_find(struct consumer *, int32_t id); /* NULL: not ours */
void part_done(struct part *);

void assignment_event(struct consumer *, rd_kafka_event_t *rebalance);
lookup_fn assignment_answer;
void assignment_take(struct consumer *);   /* asks what is due, adds what has been found */
void assignment_give(struct consumer *);   /* answers a REVOKE that can be answered */
void assignment_let_go(struct consumer *); /* before leaving: nothing is ours from now on */
size_t assignment_count(const struct consumer *, enum part_state);

#endif
