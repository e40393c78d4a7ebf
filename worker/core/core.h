/* The core: what to do next. Pure: inputs in, effects out.
 *
 *   core_step(core, now_ns, &input, &outbox)     the host then carries out the effects, in order
 *
 * It owns sessions, lanes, offsets, budgets, and the results that are not committed yet. It reads
 * no clock (now_ns and wall_ms come with each input), does no I/O and holds no global state, so
 * that the live loop, the seeded simulator and the exhaustive explorer run the same object code. A
 * crash point is "before or after effect n". */
#ifndef WORKER_CORE_CORE_H
#define WORKER_CORE_CORE_H

#include "common/base.h"
#include "common/config.h"
#include "common/wire.h"
#include "worker/provider/provider.h"

struct core;

enum input_kind {
    IN_JOB,           /* a record was read from an open partition */
    IN_REPLY,         /* an answer to a CALL, or a part of a stream */
    IN_ASSIGNED,      /* a partition is ours from this offset on */
    IN_REVOKED,       /* partitions are to be given back: RELEASE says when */
    IN_LOST,          /* partitions are somebody else's already */
    IN_COMMITTED,     /* the batch went through */
    IN_COMMIT_FAILED, /* the batch is known not to have gone through */
    IN_TICK,          /* core_next() has come */
    IN_DRAIN          /* stop taking, finish what can be finished */
};

struct input {
    enum input_kind kind;
    uint64_t wall_ms;
    union {
        struct { /* IN_JOB: borrowed record; parsed by the core's caller through job_parse, if
                    core_may_parse() says so */
            const struct record *record;
            struct job *job; /* owned by the core from here on; NULL: refused, or not parsed */
            struct refusal
                *refusal; /* borrowed; when job is NULL; NULL as well: it was not parsed */
        } job;
        struct { /* IN_REPLY */
            uint64_t call;
            const struct reply *reply; /* borrowed */
        } reply;
        struct { /* IN_ASSIGNED */
            int32_t partition;
            int32_t partitions_total; /* of the topic */
            int64_t offset;           /* committed; -1: nothing committed, from the beginning */
            const char *metadata;     /* borrowed; NULL or "": none */
        } assigned;
        struct { /* IN_REVOKED, IN_LOST */
            const int32_t *partitions;
            size_t n;
        } gone;
        struct { /* IN_COMMITTED, IN_COMMIT_FAILED */
            uint64_t batch;
        } commit;
    };
};

/* What one transaction commits. Owned by the core; lent to the publisher from COMMIT until the
 * IN_COMMITTED or IN_COMMIT_FAILED that names it. */
struct batch_offset {
    int32_t partition;
    int64_t watermark; /* the offset to commit: all below it are done */
    char *metadata;    /* owned; ASCII, at most 4096 characters */
};
struct batch {
    uint64_t id;
    struct message *messages;
    size_t n_messages;
    struct batch_offset *offsets;
    size_t n_offsets;
};

enum effect_kind {
    DO_CALL,     /* send; the answer comes back as IN_REPLY with the same id */
    DO_CANCEL,   /* no answer is wanted any more; one that comes is dropped */
    DO_TAKE,     /* open: records of the partition may be read, one at a time; closed: no more */
    DO_COMMIT,   /* commit the batch; at most one at a time */
    DO_RELEASE,  /* the revoke of these partitions may be answered */
    DO_PROGRESS, /* publish when convenient; may be dropped */
    DO_DRAINED   /* nothing is left to do: leave the group and end */
};

struct effect {
    enum effect_kind kind;
    union {
        struct {
            uint64_t id;
            enum step step;   /* for metrics and logs */
            struct call call; /* owned by the outbox */
        } call;
        uint64_t cancel;
        struct {
            int32_t partition;
            bool open;
        } take;
        const struct batch *commit;
        struct {
            int32_t *partitions; /* owned by the outbox */
            size_t n;
        } release;
        struct message progress; /* owned by the outbox */
    };
};

struct outbox {
    struct effect *effects; /* owned */
    size_t n, cap;
};
void outbox_clear(struct outbox *); /* frees what the effects own; memory kept */
void outbox_done(struct outbox *);

struct core_options {
    const struct config *config;       /* borrowed for life */
    struct provider *const *providers; /* borrowed for life; index as in the config */
    uint64_t seed;                     /* of jitter */
};

struct core *core_new(const struct core_options *);
void core_free(struct core *);

/* May the record be parsed? Asked before each IN_JOB. False: it is done already, or a record that
 * killed the processes that had it before; IN_JOB then comes without job and refusal, and the core
 * does with it what is right. */
bool core_may_parse(const struct core *, int32_t partition, int64_t offset);

/* One input, its consequences appended to out. */
void core_step(struct core *, uint64_t now_ns, const struct input *in, struct outbox *out);

/* When it wants an IN_TICK; NEVER: only after another input. May lie in the past. */
uint64_t core_next(const struct core *);

/* A loop turn came later than half the session timeout: the host has dropped every request that was
 * not yet handed to a socket; those calls are answered with FAULT_CONNECT by the host. Nothing
 * here. */

/* ---- looking in (admin port, tests) ---- */

struct session_view { /* borrowed, valid until the next step */
    const char *session_id, *job_id, *tenant, *box_id, *provider;
    int32_t partition;
    int64_t offset;
    const char *phase; /* "queued", "parked", a step's name, "publishing", "destroying" */
    unsigned attempts, requests;
    uint64_t age_ms, step_ms; /* since it was taken; in this step */
    const char *waiting_for;  /* why it is not further: the last verdict's words; NULL */
};
void core_each_session(const struct core *, uint64_t now_ns,
                       void (*see)(void *arg, const struct session_view *), void *arg);

struct partition_view {
    int32_t partition;
    int64_t watermark;
    uint64_t taken, finished_above; /* taken: read and not committed */
    bool open;
    unsigned strikes; /* owners in a row, with us, that ended without goodbye, if we do so now */
    bool one_by_one;  /* a record of it may have killed them: they are taken one at a time */
};
void core_each_partition(const struct core *, void (*see)(void *arg, const struct partition_view *),
                         void *arg);

struct budget_view { /* of one provider; per minute: creations */
    const char *provider;
    double limit, share; /* the fleet's; this worker's part by the partitions it owns */
    double tokens;       /* creations that may go out at once */
    uint64_t blocked_ms; /* until the provider takes creations again; 0: it does */
    size_t parked;       /* jobs that wait for a token */
    bool unauthorized;   /* it refuses our key */
};
void core_each_budget(const struct core *, uint64_t now_ns,
                      void (*see)(void *arg, const struct budget_view *), void *arg);

struct core_status {
    size_t in_flight, parked, unpublished, destroys, partitions;
    bool draining;
    bool unauthorized; /* the provider refuses our key: nothing is taken */
    bool committing;
};
void core_status(const struct core *, struct core_status *out);

/* Asserts the invariants that can be seen from inside. For simulations, after every step. */
void core_check(const struct core *);

#endif
