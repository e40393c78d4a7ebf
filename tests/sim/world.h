/* A world in virtual time: workers (each a core as shipped), one Daytona (the model), and the Kafka
 * that matters: a log of jobs, a group with generations, transactions with fencing, committed
 * metadata.
 *
 * Everything that happens is an event with a time in one queue; the seed decides every delay, so
 * the same seed gives the same story. Faults are events like the rest. Invariants are checked as it
 * goes; a broken one prints the story and aborts. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "common/buf.h"
#include "common/config.h"
#include "tests/sim/model.h"
#include "worker/core/backoff.h"
#include "worker/core/core.h"

#define WORKERS_MAX 4
#define PARTITIONS_MAX 4
#define JOBS_MAX 512

enum fault_kind {
    CRASH,
    FREEZE,
    LOSE_REQUEST,
    LOSE_ANSWER,
    DELAY_ANSWER,
    ANSWER_503,
    REBALANCE,
    CLOCK_JUMP,
    REFUSE_COMMIT, /* the next commit does not go through, and the worker hears so */
    N_FAULT_KINDS
};

struct fault_plan {
    enum fault_kind kind;
    uint64_t at_ns;
    uint64_t at_effect; /* > 0: instead of at_ns, at this effect of the worker (CRASH: before it) */
    unsigned worker;
    uint64_t arg; /* FREEZE: ns; CLOCK_JUMP: ms */
    bool off;     /* left out while a story is made shorter */
};

struct job_plan {
    uint64_t at_ns;
    unsigned partition;
    char *value; /* owned JSON */
    char *session;
    bool off;
};

struct plan {
    uint64_t seed;
    unsigned workers, partitions;
    bool eager;
    bool foreign; /* somebody else's sandbox has the name of session s0 */
    struct job_plan jobs[JOBS_MAX];
    size_t n_jobs;
    struct fault_plan faults[64];
    size_t n_faults;
};

struct outcome_counts {
    uint64_t events, effects, crashes, freezes, rebalances, commits, refused, late_keeps;
    const char *broken; /* NULL: every invariant held; static or owned by the world's text */
};

/* Lives through the plan and on until all is quiet; true when every invariant held. story (may be
 * NULL) receives a line per event. */
bool world_run(const struct plan *, struct buf *story, struct outcome_counts *out);

#endif
