/* What the files of the world share; nobody else includes this. Read it from top to bottom: what
 * happens, workers and their requests, Kafka, the world, then the functions by file. */
#ifndef SIM_WORLD_IMPL_H
#define SIM_WORLD_IMPL_H

#include "tests/sim/world.h"

#define WALL_MS UINT64_C(1795500000000) /* the wall clock when the world begins */
#define SESSION_TIMEOUT_NS (6 * NS_PER_S)
#define TXN_TIMEOUT_NS (10 * NS_PER_S)

/* ---- what happens ---- */

enum happening {
    TICK,         /* a worker's core wanted it */
    ARRIVE,       /* a request reaches Daytona */
    DELIVER,      /* its answer reaches the worker */
    CALL_TIMEOUT, /* the worker's own patience with a request */
    DAYTONA,      /* the model moves by itself */
    FETCH,        /* a worker reads the next record of a partition */
    LOOKUP,       /* a new owner asks for the committed offset */
    TXN_OFFSETS,  /* the offsets of a transaction reach the broker */
    TXN_END,      /* the transaction commits */
    TXN_SAID,     /* the worker hears of it */
    TXN_ABORT,    /* the broker gives a dead worker's transaction up */
    JOIN,         /* the group rebalances */
    SESSION_OUT,  /* the group notices that a member is silent */
    START_WORKER,
    PRODUCE, /* job n is appended to the log */
    FAULT,   /* fault n happens */
    THAW,
    N_HAPPENINGS
};

struct event_at {
    uint64_t at, seq;
    enum happening what;
    unsigned worker;
    uint64_t epoch; /* of the worker; 0: any */
    uint64_t n;     /* partition, job, fault, call … */
};

/* ---- requests and transactions ---- */

struct request { /* one call of one worker */
    unsigned worker;
    uint64_t epoch, call;
    struct call c;
    bool lose_answer, lose_request, fail_503;
    uint64_t delay_ns;
    uint64_t token; /* of the model while held */
    struct sim_reply reply;
    bool answered, done;
};

enum txn_state { TXN_NONE, TXN_BEGUN, TXN_PENDING, TXN_DONE, TXN_REFUSED };

struct txn {
    enum txn_state state;
    uint64_t batch, generation;
    struct message *messages; /* owned copies */
    size_t n_messages;
    struct batch_offset *offsets; /* owned copies */
    size_t n_offsets;
};

/* ---- the world ---- */

struct worker {
    struct core *core; /* NULL: dead */
    uint64_t epoch;
    uint64_t frozen_until; /* 0: awake */
    bool member;
    uint64_t generation;
    struct txn txn;
    uint64_t tick_ns; /* when the tick in the queue is due; 0: none */
    bool open[PARTITIONS_MAX];
    bool fetching[PARTITIONS_MAX];
    int64_t position[PARTITIONS_MAX];
    bool revoking[PARTITIONS_MAX]; /* told, and not released yet */
    uint64_t effects;              /* carried out so far, over all its lives */
    /* faults to come: the next so many commits or calls */
    unsigned refuse_commits, lose_requests, lose_answers, fails, delays;
};

struct part_log {
    size_t records[JOBS_MAX]; /* index into plan->jobs */
    size_t n;
    int owner; /* worker that has it; -1: nobody */
    int64_t committed;
    char *metadata; /* owned */
};

/* An event that read_committed readers see; all owned. */
struct visible {
    char *ce_id, *type, *sandbox, *cleanup;
};

struct world {
    const struct plan *plan;
    struct config config;
    struct provider *providers[1];
    struct model *model;
    uint64_t now, wall_skew_ms, seq;
    struct rng rng;
    struct event_at *queue; /* binary heap */
    size_t n_queue, cap_queue;
    struct worker workers[WORKERS_MAX];
    struct part_log parts[PARTITIONS_MAX];
    uint64_t generation;
    bool joining;
    struct request **requests;
    size_t n_requests, cap_requests;
    struct visible *seen;
    size_t n_seen, cap_seen;
    uint64_t last_fault_ns;
    struct buf *story;
    struct outcome_counts *out;
    uint64_t daytona_ns; /* when the model's move in the queue is due; 0: none */
};

/* ---- world.c ---- */

/* A line of the story, with the time. */
void world_tell(struct world *, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* An invariant does not hold: the world ends after this event. The first one counts. */
void world_broken(struct world *, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Queues e for the time at, or for now if that is over. */
void world_push(struct world *, uint64_t at, struct event_at e);
/* The same for a worker as it lives now: it does not happen to a later life. */
void world_post(struct world *, uint64_t at, enum happening, unsigned worker, uint64_t n);
/* A time that is ms from now on average, and later than now. */
uint64_t world_about(struct world *, uint64_t ms);

/* ---- world_worker.c ---- */

/* Gives in to the core of worker i, and carries out what comes of it; nothing if it is dead. */
void world_step(struct world *, unsigned i, struct input *in);
void world_on_tick(struct world *, const struct event_at *);
void world_on_session_out(struct world *, const struct event_at *);
void world_on_start(struct world *, const struct event_at *);
void world_on_thaw(struct world *, const struct event_at *);
void world_on_fault(struct world *, const struct event_at *);

/* ---- world_kafka.c ---- */

/* A round of the group in about ms, unless one is due already. */
void world_rebalance_soon(struct world *, uint64_t ms);
/* Revokes every partition from its owner; not inside a step. */
void world_rebalance(struct world *);
/* Worker i gives n partitions back. */
void world_release(struct world *, unsigned i, const int32_t *ids, size_t n);
/* Worker i reads on wherever it has a partition open and records are left. */
void world_fetch_soon(struct world *, unsigned i);
/* Worker i begins a transaction; copies the batch. */
void world_commit(struct world *, unsigned i, const struct batch *);
/* Worker i died: what becomes of the transaction it left open. */
void world_txn_orphan(struct world *, unsigned i);
void world_txn_clear(struct txn *);
void world_on_join(struct world *, const struct event_at *);
void world_on_lookup(struct world *, const struct event_at *);
void world_on_produce(struct world *, const struct event_at *);
void world_on_fetch(struct world *, const struct event_at *);
void world_on_txn_offsets(struct world *, const struct event_at *);
void world_on_txn_end(struct world *, const struct event_at *);
void world_on_txn_said(struct world *, const struct event_at *);
void world_on_txn_abort(struct world *, const struct event_at *);

/* ---- world_daytona.c ---- */

/* Worker i sends the request of e; takes the call out of it. */
void world_call(struct world *, unsigned i, struct effect *e);
/* Worker i wants to hear no more of its request. */
void world_cancel(struct world *, unsigned i, uint64_t call);
/* Somebody else makes a sandbox that has the name of session s0. */
void world_make_foreign(struct world *);
void world_on_arrive(struct world *, const struct event_at *);
void world_on_deliver(struct world *, const struct event_at *);
void world_on_call_timeout(struct world *, const struct event_at *);
void world_on_daytona(struct world *, const struct event_at *);

/* ---- world_check.c ---- */

/* A message of a transaction that ended; copies what the invariants ask for. */
void world_becomes_visible(struct world *, const struct message *);
void world_seen_done(struct world *);
/* What holds at any time, of every sandbox there ever was. */
void world_check_sandboxes(struct world *);
/* Every record there is was committed. */
bool world_all_done(const struct world *);
/* What holds when all is quiet. */
void world_check_end(struct world *);

#endif
