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

struct request { /* one call of one worker; forgotten when no event names it any more */
    unsigned worker;
    uint64_t epoch, call;
    struct call c;
    unsigned events; /* in the queue that name it */
    bool lose_answer, lose_request, fail_503;
    uint64_t delay_ns;
    uint64_t token; /* of the model while held */
    bool held;
    struct sim_reply reply;
    bool answered, done;
    uint64_t answered_ns, answer; /* step by step: when, and what as a digest */
};

enum txn_state { TXN_NONE, TXN_BEGUN, TXN_PENDING, TXN_DONE, TXN_REFUSED };

struct txn {
    enum txn_state state;
    uint64_t batch, generation;
    struct message *messages; /* owned copies */
    size_t n_messages;
    struct batch_offset *offsets; /* owned copies */
    size_t n_offsets;
    uint64_t meaning; /* world_batch_digest */
};

/* ---- the world ---- */

struct worker {
    struct core *core; /* NULL: dead */
    uint64_t epoch;
    uint64_t frozen_until; /* 0: awake; NEVER: until the host says */
    struct outbox outbox;  /* of the step */
    size_t carried;        /* effects of it that were carried out */
    bool busy;             /* a step whose effects are not all carried out */
    bool acted;            /* step by step: the last effect was seen by others */
    uint64_t ticked_ns;    /* last time */
    int64_t wall_skew_ms;
    bool member;
    uint64_t generation;
    struct txn txn;
    uint64_t tick_ns; /* when the tick in the queue is due; 0: none */
    bool open[PARTITIONS_MAX];
    bool fetching[PARTITIONS_MAX];
    int64_t position[PARTITIONS_MAX];
    bool revoking[PARTITIONS_MAX];      /* told, and not released yet */
    uint64_t effects[N_EFFECT_CLASSES]; /* carried out so far, over all its lives */
    /* faults to come: the next so many commits or calls */
    unsigned refuse_commits, unsure_commits, lose_requests, lose_answers, fails, delays, lates;
};

struct part_log {
    size_t records[JOBS_MAX]; /* index into plan->jobs */
    size_t n;
    int owner; /* worker that has it; -1: nobody */
    int64_t committed;
    char *metadata;  /* owned */
    bool foreign;    /* the next owner is to find foreign metadata */
    bool own_before; /* it did: what was done above the watermark may run again */
};

/* An event that read_committed readers see; all owned. */
struct visible {
    char *ce_id, *type, *session, *sandbox, *cleanup;
    unsigned partition;
    int64_t offset;
    bool kept;  /* it names a sandbox as kept */
    bool blind; /* Daytona refused our key: nobody could look for a sandbox */
    bool again; /* its record may run again: what was committed of it was overwritten */
};

struct world {
    const struct plan *plan;
    struct config config;
    struct provider *providers[1];
    struct model *model;
    uint64_t now, seq;
    struct rng rng;
    struct event_at *queue; /* binary heap; step by step: in no order */
    size_t n_queue, cap_queue;
    struct worker workers[WORKERS_MAX];
    struct part_log parts[PARTITIONS_MAX];
    uint64_t generation;
    bool joining;
    struct request **requests; /* NULL: forgotten */
    size_t n_requests, cap_requests;
    struct visible *seen;
    size_t n_seen, cap_seen;
    uint64_t last_fault_ns;
    uint64_t key_refused_until;
    bool faulty;    /* a fault has happened */
    bool late_keep; /* a KEEP reached Daytona whose sender was not waiting for it any more */
    struct buf *story;
    struct outcome_counts *out;
    uint64_t daytona_ns; /* when the model's move in the queue is due; 0: none */
    /* step by step: */
    size_t produced;  /* jobs that are in the log */
    bool fresh;       /* time has just gone on */
    int between_txns; /* the worker whose transaction has just come a step further, plus one; 0:
                         none */
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
/* A time that is ms from now on average, and later than now. Step by step: what takes less than a
 * moment takes none. */
uint64_t world_about(struct world *, uint64_t ms);
/* A toss of the world's coin; step by step it always falls on the same side. */
bool world_coin(struct world *);
/* What e says happens, whatever its time. */
void world_happen(struct world *, const struct event_at *e);
/* The same event would be noticed by nobody. */
bool world_event_is_over(const struct world *, const struct event_at *e);
/* It waits for a worker to thaw. */
bool world_event_is_blocked(const struct world *, const struct event_at *e);

/* ---- world_worker.c ---- */

/* Gives in to the core of worker i, and carries out what comes of it; nothing if it is dead. Step
 * by step, the host carries it out. */
void world_step(struct world *, unsigned i, struct input *in);
/* The next effect of worker i, which is busy, or the end of its step. */
void world_go_on(struct world *, unsigned i);
/* It is something that others will notice. */
bool world_about_to_act(const struct world *, unsigned i);
void world_crash(struct world *, unsigned i);
/* ns NEVER: until world_thaw. */
void world_freeze(struct world *, unsigned i, uint64_t ns);
void world_thaw(struct world *, unsigned i);
uint64_t world_wall_ms(const struct world *, const struct worker *);
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
/* Worker i is no member any more, and owns nothing. */
void world_leave(struct world *, unsigned i);
/* Worker i reads on wherever it has a partition open and records are left. */
void world_fetch_soon(struct world *, unsigned i);
/* Worker i begins a transaction; copies the batch. */
void world_commit(struct world *, unsigned i, const struct batch *);
/* What it says, but for the times in it. */
uint64_t world_batch_digest(const struct batch *);
/* Worker i died: what becomes of the transaction it left open. */
void world_txn_orphan(struct world *, unsigned i);
/* The transaction that TXN_OFFSETS, TXN_END or TXN_ABORT e is about, if it still waits for it. */
struct txn *world_txn_of(struct world *, const struct event_at *e);
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
/* An event that names request n is in the queue no longer. */
void world_request_unnamed(struct world *, uint64_t n);
void world_request_free(struct request *);
/* Somebody else makes a sandbox that has the name of session s0. */
void world_make_foreign(struct world *);
void world_on_arrive(struct world *, const struct event_at *);
void world_on_deliver(struct world *, const struct event_at *);
void world_on_call_timeout(struct world *, const struct event_at *);
void world_on_daytona(struct world *, const struct event_at *);

/* ---- world_check.c ---- */

/* A message of a transaction that ended; copies what the invariants ask for. */
void world_becomes_visible(struct world *, const struct message *);
/* What a message says, but for the times in it, as a digest. */
uint64_t world_meaning(const struct message *);
/* All that is visible, the same way. */
uint64_t world_seen_digest(const struct world *);
void world_seen_done(struct world *);
/* Partition p was committed up to the watermark, with that metadata. */
void world_check_commit(struct world *, unsigned p, int64_t watermark, const char *metadata);
/* A worker is about to ask that of Daytona. */
void world_check_request(struct world *, const struct request *);
/* What holds at any time, of every sandbox there ever was. */
void world_check_sandboxes(struct world *);
/* What holds after every step of worker i. */
void world_check_worker(struct world *, unsigned i);
/* Every record there is was committed. */
bool world_all_done(const struct world *);
/* No sandbox is left that an owner will still destroy, or Daytona by itself. */
bool world_all_clean(const struct world *);
/* What holds when all is quiet. */
void world_check_end(struct world *);

#endif
