/* A world in virtual time: workers (each a core as shipped), one Daytona (the model), and the Kafka
 * that matters: a log of jobs, a group with generations, transactions with fencing, committed
 * metadata.
 *
 * It is lived in one of two ways. By a plan (world_run): everything that happens is an event with a
 * time, the seed decides every delay, so the same seed gives the same story; faults are part of the
 * plan. Or step by step (world_choices, world_take): nothing takes time but what has to, and the
 * host chooses what happens next, faults included. Invariants are checked as it goes, in both. */
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
#define FAULTS_MAX 64

enum fault_kind {
    CRASH,
    FREEZE,
    LOSE_REQUEST,
    LOSE_ANSWER,
    DELAY_ANSWER,
    LATE_REQUEST, /* reaches Daytona long after its sender has given up */
    ANSWER_503,
    REFUSE_KEY, /* for a while Daytona answers 401 to everybody */
    REBALANCE,
    CLOCK_JUMP,       /* of a worker's wall clock, either way */
    REFUSE_COMMIT,    /* the next commit does not go through, and the worker hears so */
    UNSURE_COMMIT,    /* whether it went through is known only some time later */
    FOREIGN_METADATA, /* the next owner finds metadata of something else, or of another version */
    DRAIN,            /* the worker leaves in peace, and comes back */
    ADD_WORKER,       /* one that was not there yet */
    N_FAULT_KINDS
};

/* What a worker did: where a fault is to strike. */
enum effect_class {
    ANY_EFFECT,
    DID_CREATE,
    DID_EXEC,
    DID_KEEP,       /* autodelete: the sandbox is for good from here on */
    DID_KEEP_AGAIN, /* autostop: the second half of KEEP */
    DID_STOP,
    DID_DELETE,
    DID_COMMIT,
    DID_RELEASE,
    N_EFFECT_CLASSES
};

struct fault_plan {
    enum fault_kind kind;
    uint64_t at_ns;
    uint64_t at_effect; /* > 0: instead of at_ns, at the worker's so manieth effect of the class */
    enum effect_class of;
    bool after; /* that effect, else before it */
    unsigned worker;
    uint64_t arg; /* how long, ns; of the others: how often, how far */
    bool off;     /* left out while a story is made shorter */
};

struct job_plan {
    uint64_t at_ns; /* step by step: NEVER leaves it to the host */
    unsigned partition;
    char *value; /* owned JSON */
    char *session;
    bool off;
};

struct plan {
    uint64_t seed;
    unsigned workers; /* all that there will ever be */
    unsigned present; /* those that are there from the beginning */
    unsigned partitions;
    bool eager;
    bool foreign;      /* somebody else's sandbox has the name of session s0 */
    bool step_by_step; /* for world_choices: no delays, no chance */
    struct job_plan jobs[JOBS_MAX];
    size_t n_jobs;
    struct fault_plan faults[FAULTS_MAX];
    size_t n_faults;
};

struct outcome_counts {
    uint64_t events, effects, commits, refused, rebalances;
    uint64_t late_keeps, left_running; /* sandboxes nobody knows of; those that are not stopped */
    uint64_t faults[N_FAULT_KINDS];
    const char *broken; /* NULL: every invariant held; static or owned by the world's text */
};

const char *fault_name(enum fault_kind);

/* Lives through the plan and on until all is quiet; true when every invariant held. story (may be
 * NULL) receives a line per event. */
bool world_run(const struct plan *, struct buf *story, struct outcome_counts *out);

/* ---- step by step ---- */

enum choice_kind {
    GO_ON,      /* a worker carries out its next effect */
    HAPPENS,    /* an event in the queue */
    TICKS,      /* a core is asked at the time it wanted */
    DAYTONA_IS, /* the model moves by itself */
    TIME_GOES,  /* to the next thing that waits for a time */
    PRODUCES,   /* the next job is appended */
    THAWS,      /* a frozen worker goes on */
    GIVEN_UP,   /* a dead worker's transaction is not ended by it */
    FAULTS,     /* from here on: they cost one of the faults that are allowed */
    CRASHES = FAULTS,
    FREEZES,
    ANSWER_LOST,
    REBALANCES
};

struct choice {
    enum choice_kind kind;
    unsigned worker;
    uint64_t seq; /* of the event */
};
#define CHOICES_MAX 48

struct world;
struct world *world_new(const struct plan *, struct buf *story, struct outcome_counts *out);
void world_free(struct world *);

/* What may happen next: first what would happen without anybody's interference. faults says whether
 * one is allowed. 0: the world is at rest, all jobs are done, and what must hold then was checked.
 */
size_t world_choices(struct world *, bool faults, struct choice out[CHOICES_MAX]);

/* It happens. False: an invariant is broken. */
bool world_take(struct world *, const struct choice *);

/* Where the world is. Two worlds of one plan with the same digest have the same future, as far as
 * the heads of digest.h, world_core.c and model_digest.c do not say otherwise. */
uint64_t world_digest(const struct world *);

/* Between two effects of a step there is nothing to compare. */
bool world_mid_step(const struct world *);

#endif
