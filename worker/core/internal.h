/* What the files of the core share; nobody else includes it.
 *
 *   core.c     inputs, ticks, views           part.c    partitions: assign, take, revoke
 *   engine.c   one session's next request     lane.c    one session id's queue, and its destroys
 *   settle.c   what was found                 batch.c   results and the transaction they go into
 *   session.c  begin, fail, finish            account.c budgets, parking, the provider's key
 *   report.c   what the event says            sweep.c   garbage of owned partitions
 *   trial.c    which record kills             poison.c  what becomes of it
 *   view.c     looking in, and the invariants
 *
 * Ownership: the core owns parts, lanes, accounts and results; a lane owns its sessions, waiting,
 * running and finished, until their result is committed or their partition is dropped. */
#ifndef WORKER_CORE_INTERNAL_H
#define WORKER_CORE_INTERNAL_H

#include "common/log.h"
#include "common/maps.h"
#include "common/metrics.h"
#include "worker/core/backoff.h"
#include "worker/core/budget.h"
#include "worker/core/core.h"
#include "worker/core/heap.h"
#include "worker/core/offsets.h"

#define BATCH_RESULTS_MAX 2000
#define BATCH_APART_NS (20 * NS_PER_MS) /* begin to begin */
#define BATCH_REST_NS                                                                              \
    (5 * NS_PER_MS) /* end to begin: the markers of the last one are being written */
#define BATCH_AGAIN_NS (100 * NS_PER_MS) /* after a refusal */
#define HINT_EVERY_NS (1 * NS_PER_S)     /* highest_started alone, when it moved */
#define TOGETHER_NS (1 * NS_PER_MS)      /* for what is assigned together to share one batch */
#define GOODBYE_NS (1 * NS_PER_S)        /* how long the end of a drain waits for it */
#define LANE_MEMORY_NS (60 * NS_PER_S)
#define DESTROY_FOR_NS (15 * 60 * NS_PER_S) /* a sandbox may be in creation that long */
#define KEY_EVERY_NS (60 * NS_PER_S)
#define CALL_LIMIT_NS (60 * NS_PER_S) /* LIMIT_CALL: look-ups, KEEP with its pause of 11 s */
#define LAST_LIMIT_NS (60 * NS_PER_S) /* for the look before a failure */
#define SAME_FACTS_MAX 8              /* OKs without a new fact */

enum node_kind { NODE_SESSION, NODE_PART, NODE_TRIAL, NODE_LANE, NODE_ACCOUNT, NODE_BATCH };

/* A call that is under way, whoever asked for it. */
struct flight {
    uint64_t id; /* 0: none */
    enum { FLIGHT_SLOT, FLIGHT_SWEEP, FLIGHT_KEY } kind;
    void *owner;
    unsigned slot;
    unsigned what;
    uint8_t scope;
    enum step step;
    uint64_t sent_ns;
    UT_hash_handle hh;
};

/* Our standing with one provider. */
struct account {
    const struct provider *provider;
    struct budget budget;
    struct session *parked; /* wait for a create token, first come first served */
    bool unauthorized;      /* the key was refused */
    uint64_t key_ns;        /* when it is tried again */
    struct flight key;
    struct heap_node node;
};

/* Did a record of the partition kill the owners before us? See trial.c. */
struct trial {
    bool announced;  /* our strike is committed: records may be read */
    uint8_t before;  /* strikes of the owners before us */
    int64_t began;   /* the watermark at which we began; beyond it: we made progress */
    int64_t limit;   /* what was read, by the dead or by us, lies below it; -1: nobody asks */
    bool one_by_one; /* until all below the limit is done */
    /* The record that may be read now, alone: the first undone one at or above it. -1: none. */
    int64_t suspect;
    bool read;             /* it has been; suspect is its offset */
    bool guilty;           /* a dead owner's: it is not parsed, and ends as poison */
    struct heap_node idle; /* when an open partition from which nothing came is above suspicion */
};

struct part {
    int32_t id;
    struct offsets done; /* as committed */
    struct offsets next; /* as the batch under way would commit; valid while in_batch */
    bool in_batch;
    bool open;                /* what the host was told */
    bool closing;             /* revoked: nothing new, RELEASE follows */
    int64_t last_taken;       /* -1: nothing yet */
    int64_t gap_from, gap_to; /* offsets that never come, beyond the window for now */
    struct result *beyond;    /* NULL: none; owned: of a record behind such a gap */
    int64_t started;          /* highest offset whose CREATE was sent; -1 */
    int64_t started_before;   /* of earlier owners, as committed when it was assigned */
    struct trial trial;
    uint64_t hint_ns; /* when `started` or the trial's word is to be committed alone, or NEVER */
    size_t taken, parked;
    struct session *sessions;
    struct { /* the sweep: one listing at a time, provider after provider */
        size_t account;
        char *cursor; /* owned */
        struct flight flight;
    } sweep;
    struct heap_node node;
    UT_hash_handle hh;
};

struct result {        /* what a finished job or a refused record waits to have committed */
    struct part *part; /* NULL: dropped while the batch was under way */
    int64_t offset;
    struct session *session; /* NULL: a refusal, or dropped */
    struct message messages[2];
    size_t n_messages;
    struct result *prev, *next;
};

enum session_state {
    S_QUEUED,   /* in its lane, behind another; a destroy: waiting for its time */
    S_RUNNING,  /* at the head of its lane */
    S_FINISHED, /* its result waits for the commit */
};

enum limit { LIMIT_NONE, LIMIT_CREATE, LIMIT_START, LIMIT_SERVER, LIMIT_CALL, LIMIT_LAST };

struct goal {
    uint32_t facts; /* 0 ends the table */
    enum phase phase;
    enum limit limit;
    enum step step;
};

struct slot {
    enum {
        SLOT_IDLE,
        SLOT_ASLEEP, /* asked again at wake_ns */
        SLOT_HELD,   /* `held` waits for its scope, or for a token (then the session is parked) */
        SLOT_OUT     /* flight is under way */
    } state;
    uint64_t wake_ns;
    struct call held;
    struct flight flight;
};

struct why {              /* strings owned */
    enum error_code code; /* ERR_NONE: none */
    enum step step;
    int http_status;
    char *message, *provider_message;
};

/* Why a destroy is there decides what becomes of a sandbox that it finds kept. */
enum destroy_why {
    AFTER_FAILURE, /* a KEEP overtook it: stopped, counted as a late keep, never announced */
    STOP_KEPT,     /* on_failure = stop: stopped; a provisional one is another's, and spared */
    SWEPT,         /* spared */
};

struct session {
    struct core *core;
    struct part *part;
    struct lane *lane;
    struct account *account;
    struct job *job; /* owned; NULL: a destroy */
    struct box *box; /* owned */
    int64_t offset;
    enum session_state state;

    const struct goal *goals;
    uint32_t facts;
    enum phase phase;
    enum step step;
    enum limit limit;
    struct slot slots[SLOTS];
    unsigned same_facts, retries, losses, again; /* again: retries and losses of the whole job */
    unsigned requests;
    bool parked;
    bool cancelled; /* a stop or delete of its lane was taken after it */
    bool poison;    /* its record is not to be read: it fails, once it has looked */
    bool has_letter;
    struct message letter; /* to the dead letters, beside its event; owned until then */
    enum destroy_why destroy_why;
    struct why last; /* what AGAIN waits for */
    struct why why;  /* set: it is failing */

    uint64_t taken_ns, clock_ns; /* clock_ns 0: not started */
    uint64_t deadline_ns, limit_ns, phase_ns, step_ns;
    uint64_t timings_ns[N_STEPS];
    uint64_t progress_ns; /* when it may be told again where it is */
    bool untold;          /* it has moved, and progress_ns is still to come */
    struct heap_node node;

    enum outcome outcome;
    enum cleanup cleanup;
    bool replaced, drift;
    char *was;             /* owned; stop and delete: the state it was found in */
    struct result *result; /* while finished */

    struct session *prev, *next;           /* in its lane's queue or destroys */
    struct session *part_prev, *part_next; /* in its part */
    struct session *park_prev, *park_next; /* in its account's parked ones */
    struct log_field log_fields[5];
    struct log_scope log;
    char offset_text[24];
};

struct lane {
    char *session_id;         /* owned */
    struct session *queue;    /* jobs in record order, the first one running or finished */
    struct session *destroys; /* sandboxes to destroy when nothing else is to do */
    struct session *active;   /* of either list; NULL: idle */
    char *box_id;             /* owned; the session's last sandbox, until memory_ns */
    uint64_t memory_ns;
    struct heap_node node;
    UT_hash_handle hh;
};

struct core {
    const struct config *config;
    struct account *accounts;
    size_t n_accounts;
    struct part *parts;
    int32_t partitions_total;
    struct lane *lanes;
    struct flight *flights;
    struct heap heap;
    struct rng rng;

    size_t in_flight; /* jobs taken and not finished */
    struct result *ready;
    size_t n_ready;
    struct result *flying; /* in the batch under way */
    struct batch *batch;   /* NULL: none under way */
    uint64_t batches;
    uint64_t batch_begin_ns, batch_not_before_ns;
    struct heap_node batch_node;
    bool closing;    /* some part is */
    bool last_batch; /* of the closing ones was begun */
    int32_t tried;   /* the partition that had the last suspect */

    bool draining, drained;
    bool leaving; /* drained but for the goodbye to our partitions; at the latest until leave_ns */
    bool goodbye; /* the batch that says it was begun */
    uint64_t leave_ns;
    uint64_t drain_ns;

    struct session *graveyard;
    uint64_t calls;
    uint64_t now_ns, wall_ms; /* of the step */
    struct outbox *out;       /* of the step */
};

/* core.c */
struct effect *core_effect(struct core *, enum effect_kind);
void core_send(struct core *, struct flight *, struct call *); /* the call is taken over */
void core_cancel(struct core *, struct flight *);              /* nothing when none is under way */

/* engine.c */
extern const struct goal goals_start[]; /* begins with FIND; + 1: a fresh job, straight to CREATE */
extern const struct goal goals_attach[], goals_stop[], goals_delete[], goals_destroy[];
extern const struct goal goals_last_look[], goals_last_keep[];
void engine_run(struct session *); /* until it waits or has ended */
void engine_reply(struct session *, unsigned slot, const struct reply *);
void engine_tick(struct session *);   /* its time has come */
void engine_unpark(struct session *); /* a token is there */
void engine_stop(struct session *);   /* cancels and forgets all that is under way */
void engine_look_later(struct session *, uint64_t ns); /* a start begins again with FIND */
void engine_arm(struct session *);
void engine_limit(struct session *);         /* arms the limit of its step, once its clock runs */
bool engine_waiting(const struct session *); /* no call is out */

/* session.c */
struct session *session_new(struct core *, struct part *, struct account *, int64_t offset);
struct session *session_of_job(struct core *, struct part *, struct job *);
void session_bury(struct session *); /* out of every list; freed when the step is over */
void session_free(struct session *);
void session_begin(struct session *);
bool session_failing(const struct session *);
bool session_is_start(const struct session *);
void session_goals_met(struct session *);
void session_fail(struct session *, enum error_code, const char *message);
void session_fail_answer(struct session *, struct answer *); /* takes the strings */
void session_deadline(struct session *); /* its deadline or its step's limit went by */
bool session_in_time(struct session *);  /* false: its turn came too late, it has failed */
void session_clock(struct session *);    /* its time begins */
void session_unclock(struct session *);  /* not yet, after all */
void session_lost(struct session *, struct answer *);
void session_committed(struct session *);               /* buries it */
void why_set(struct why *, struct answer *, enum step); /* takes the strings */
void why_done(struct why *);

/* settle.c */
void session_settle(struct session *);

/* report.c */
void report_result(struct session *, enum event_type); /* into s->result */
void report_refusal(struct core *, struct result *, const struct record *, const struct refusal *);
void report_progress(struct session *); /* once a second at most: else when that is over */

/* lane.c */
struct lane *lane_get(struct core *, const char *session_id);
void lane_add(struct lane *, struct session *);
void lane_add_destroy(struct lane *, struct session *);
void lane_kick(struct core *,
               struct lane *); /* begins what is next; frees the lane when it is idle and blank */
void lane_tick(struct core *, struct lane *);
void lane_remember(struct core *, struct lane *, const char *box_id); /* NULL: forget */
void lane_remove(struct session *); /* takes it out of its lane; the caller kicks the lane */
void destroy_new(struct core *, struct part *, struct lane *, struct account *, const struct box *,
                 enum destroy_why);
/* A committed event says that the sandbox is kept (ready: and in use): what was to become of it
 * before is off. */
void lane_spare_kept(struct lane *, const char *box_id, bool ready);
void destroy_put_off(struct session *, uint64_t after_ns);

/* part.c */
struct part *part_get(struct core *, int32_t id);
void part_assigned(struct core *, const struct input *);
void part_revoked(struct core *, const int32_t *ids, size_t n);
void part_lost(struct core *, const int32_t *ids, size_t n);
void part_job(struct core *, const struct input *);
void parts_free(struct core *);
void parts_take(struct core *);    /* opens and closes */
bool parts_release(struct core *); /* when the last batch of the closing ones has its outcome */
void part_moved(struct core *, struct part *); /* its watermark did */

/* batch.c */
struct result *result_new(struct core *, struct part *, int64_t offset);
void result_free(struct result *);
void batch_step(struct core *); /* begins one when it is time */
void batch_ended(struct core *, uint64_t id, bool committed);
void batch_drop_part(struct core *, struct part *);
bool batch_goodbye(struct core *); /* true: what there was to say was said, or refused */
void batch_free(struct batch *);

/* trial.c */
struct word { /* what a commit says of it: the fields of struct offsets */
    uint8_t strikes;
    int64_t suspect, limit;
};
void trial_begin(struct core *, struct part *);   /* after its offsets were decoded */
void trial_restart(struct core *, struct part *); /* its log begins again */
void trial_end(struct core *, struct part *);     /* the partition goes */
struct word trial_word(const struct core *, const struct part *, const struct offsets *);
bool trial_says_news(const struct core *, const struct part *); /* the committed word is another */
bool trial_may_take(const struct part *);
bool trial_guilty(const struct part *, int64_t offset); /* an undone record; not to be parsed */
bool trial_read(struct part *, int64_t offset);         /* the same; it is being taken */
void trial_opened(struct core *, struct part *);        /* or closed */
void trial_idle(struct core *, struct part *);
void trial_committed(struct core *, struct part *); /* p->done is new */
void trials_next(struct core *);                    /* chooses whose turn it is */

/* poison.c */
void poison_take(struct core *, struct part *, const struct record *);
void poison_fail(struct session *);

/* account.c */
void accounts_init(struct core *, struct provider *const *);
void accounts_share(struct core *);
struct account *account_named(struct core *, const char *name);          /* NULL name: the first */
uint64_t account_when(struct account *, uint8_t scope, uint64_t now_ns); /* budget, and the key */
bool account_may_send(struct session *, struct slot *); /* false: held, parked or put to sleep */
void account_noted(struct core *, struct account *, uint8_t scope, const struct answer *);
void account_unpark(struct session *);
void account_tick(struct core *, struct account *);
void account_key_reply(struct core *, struct account *, const struct reply *);
bool accounts_unauthorized(const struct core *);

/* sweep.c */
void sweep_tick(struct core *, struct part *);
void sweep_reply(struct core *, struct part *, const struct reply *);

#endif
