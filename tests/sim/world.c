/* world: see the header.
 *
 * What is simplified, and why it is enough: the broker is one object that never fails (the
 * publisher's own trouble with brokers is tested against a real one); a commit is three steps
 * (offsets, end, said) between which a worker may crash, freeze or lose its partitions; a look-up
 * waits while a transaction of somebody else is pending on the partition. */
#include "tests/sim/world.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/xalloc.h"

#define WALL_MS UINT64_C(1795500000000)
#define SESSION_TIMEOUT_NS (6 * NS_PER_S)
#define TXN_TIMEOUT_NS (10 * NS_PER_S)
#define QUIET_NS                                                                                   \
    (40 * 60 * NS_PER_S) /* long enough for leases, sweeps and what Daytona gives up               \
                          */
#define EVENTS_MAX 2000000
#define LONGEST_NS (4 * 3600 * NS_PER_S)

struct event_at {
    uint64_t at, seq;
    enum happening what;
    unsigned worker;
    uint64_t epoch; /* of the worker; 0: any */
    uint64_t n;     /* partition, job, fault, call … */
};

struct request { /* one call of one worker */
    uint64_t id; /* key: call id << 8 | worker, per epoch */
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

struct worker {
    struct core *core; /* NULL: dead */
    uint64_t epoch;
    uint64_t frozen_until; /* 0: awake */
    bool member;
    uint64_t generation;
    struct txn txn;
    uint64_t tick_ns;
    bool open[PARTITIONS_MAX];
    bool fetching[PARTITIONS_MAX];
    int64_t position[PARTITIONS_MAX];
    bool revoking[PARTITIONS_MAX]; /* told, and not released yet */
    uint64_t effects;              /* carried out so far, over all its lives */
    unsigned refuse_commits, lose_requests, lose_answers, fails,
        delays; /* the next so many calls */
};

struct part_log {
    size_t records[JOBS_MAX]; /* index into plan->jobs */
    size_t n;
    int owner; /* worker that has it; -1: nobody */
    bool looking;
    int64_t committed;
    char *metadata; /* owned */
};

struct visible {                                      /* an event that read_committed readers see */
    char *ce_id, *type, *session, *sandbox, *cleanup; /* owned */
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
    uint64_t last_fault_ns, quiet_since;
    struct buf *story;
    struct outcome_counts *out;
    uint64_t daytona_ns;
};

/* ---- the story ---- */

static void tell(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void tell(struct world *w, const char *fmt, ...)
{
    if (!w->story)
        return;
    va_list ap;
    buf_addf(w->story, "%10.3f  ", (double)w->now / 1e9);
    va_start(ap, fmt);
    buf_vaddf(w->story, fmt, ap);
    va_end(ap);
    buf_addc(w->story, '\n');
}

static void broken(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void broken(struct world *w, const char *fmt, ...)
{
    static char text[512];
    va_list ap;
    if (w->out->broken)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    w->out->broken = text;
    tell(w, "BROKEN: %s", text);
}

/* ---- the queue ---- */

static bool before(const struct event_at *a, const struct event_at *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void push(struct world *w, uint64_t at, struct event_at e)
{
    e.at = MAX(at, w->now);
    e.seq = ++w->seq;
    GROW(w->queue, w->n_queue, w->cap_queue);
    size_t i = w->n_queue++;
    for (; i > 0 && before(&e, &w->queue[(i - 1) / 2]); i = (i - 1) / 2)
        w->queue[i] = w->queue[(i - 1) / 2];
    w->queue[i] = e;
}

static bool pop(struct world *w, struct event_at *out)
{
    if (!w->n_queue)
        return false;
    *out = w->queue[0];
    struct event_at last = w->queue[--w->n_queue];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_queue; i = child) {
        if (child + 1 < w->n_queue && before(&w->queue[child + 1], &w->queue[child]))
            child++;
        if (!before(&w->queue[child], &last))
            break;
        w->queue[i] = w->queue[child];
    }
    w->queue[i] = last;
    return true;
}

static uint64_t about(struct world *w, uint64_t ms)
{
    return w->now + 1 + rng_below(&w->rng, 2 * ms * NS_PER_MS + 1);
}

static void post(struct world *w, uint64_t at, enum happening what, unsigned worker, uint64_t n)
{
    push(w, at,
         (struct event_at){
             .what = what, .worker = worker, .epoch = w->workers[worker].epoch, .n = n});
}

/* ---- effects of a core ---- */

static void daytona_wakes(struct world *w)
{
    uint64_t at = model_next(w->model);
    if (at == NEVER || (w->daytona_ns && at >= w->daytona_ns))
        return;
    w->daytona_ns = at;
    push(w, at, (struct event_at){.what = DAYTONA});
}

static void fetch_soon(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        bool can = k->open[p] && !k->fetching[p] && w->parts[p].owner == (int)i &&
                   (size_t)k->position[p] < w->parts[p].n;
        if (!can)
            continue;
        k->fetching[p] = true;
        post(w, about(w, 2), FETCH, i, p);
    }
}

static void on_call(struct world *w, unsigned i, struct effect *e)
{
    struct worker *k = &w->workers[i];
    struct request *r = xcalloc(1, sizeof *r);
    GROW(w->requests, w->n_requests, w->cap_requests);
    size_t n = w->n_requests++;
    w->requests[n] = r;
    *r = (struct request){.worker = i, .epoch = k->epoch, .call = e->call.id, .c = e->call.call};
    memset(&e->call.call, 0, sizeof e->call.call);
    r->lose_request = k->lose_requests > 0 && k->lose_requests--;
    r->lose_answer = !r->lose_request && k->lose_answers > 0 && k->lose_answers--;
    r->fail_503 = k->fails > 0 && k->fails--;
    r->delay_ns = k->delays > 0 && k->delays-- ? 8 * NS_PER_S : 0;
    if (!strcmp(r->c.method, "POST") && !strstr(r->c.url, "/sandbox?"))
        ASSERT(!r->c.body || r->c.content_type);
    tell(w, "w%u  %s %s%s", i, r->c.method,
         strstr(r->c.url, "/api") ? strstr(r->c.url, "/api") : r->c.url,
         r->lose_request  ? " (request lost)"
         : r->lose_answer ? " (answer lost)"
                          : "");
    post(w, about(w, 4), ARRIVE, i, n);
    post(w, w->now + r->c.timeout_ms * NS_PER_MS, CALL_TIMEOUT, i, n);
}

static void on_cancel(struct world *w, unsigned i, uint64_t call)
{
    for (size_t n = w->n_requests; n-- > 0;) {
        struct request *r = w->requests[n];
        if (r && r->worker == i && r->epoch == w->workers[i].epoch && r->call == call) {
            r->done = true;
            return;
        }
    }
}

static void txn_clear(struct txn *t)
{
    for (size_t i = 0; i < t->n_messages; i++)
        message_done(&t->messages[i]);
    for (size_t i = 0; i < t->n_offsets; i++)
        free(t->offsets[i].metadata);
    free(t->messages);
    free(t->offsets);
    *t = (struct txn){0};
}

static void copy_message(const struct message *from, struct message *to)
{
    *to = (struct message){.to = from->to, .key_len = from->key_len, .value_len = from->value_len};
    to->key = from->key ? xmemdup0(from->key, from->key_len) : NULL;
    to->value = from->value ? xmemdup0(from->value, from->value_len) : NULL;
    to->headers = xcalloc(from->n_headers, sizeof *to->headers);
    to->n_headers = from->n_headers;
    for (size_t i = 0; i < from->n_headers; i++)
        to->headers[i] =
            (struct header){.name = xstrdup(from->headers[i].name),
                            .value = xmemdup0(from->headers[i].value, from->headers[i].len),
                            .len = from->headers[i].len};
}

static void on_commit(struct world *w, unsigned i, const struct batch *b)
{
    struct worker *k = &w->workers[i];
    struct txn *t = &k->txn;
    if (t->state != TXN_NONE)
        broken(w, "w%u commits two batches at once", i);
    txn_clear(t);
    t->state = TXN_BEGUN;
    t->batch = b->id;
    t->generation = k->generation;
    t->messages = xcalloc(b->n_messages, sizeof *t->messages);
    for (size_t m = 0; m < b->n_messages; m++)
        copy_message(&b->messages[m], &t->messages[t->n_messages++]);
    t->offsets = xcalloc(b->n_offsets, sizeof *t->offsets);
    for (size_t o = 0; o < b->n_offsets; o++) {
        const struct batch_offset *from = &b->offsets[o];
        t->offsets[t->n_offsets++] = (struct batch_offset){.partition = from->partition,
                                                           .watermark = from->watermark,
                                                           .metadata = xstrdup(from->metadata)};
        if (strlen(from->metadata) > 4096)
            broken(w, "metadata of %zu characters", strlen(from->metadata));
        if (w->parts[from->partition].owner != (int)i)
            tell(w, "w%u  sends offsets of p%d, which is not its own any more", i,
                 (int)from->partition);
    }
    tell(w, "w%u  COMMIT %zu messages", i, t->n_messages);
    post(w, about(w, 4), TXN_OFFSETS, i, t->batch);
}

static void rebalance_soon(struct world *w, uint64_t ms);

static void on_release(struct world *w, unsigned i, const int32_t *ids, size_t n)
{
    for (size_t p = 0; p < n; p++) {
        w->workers[i].revoking[ids[p]] = false;
        w->workers[i].open[ids[p]] = false;
        if (w->parts[ids[p]].owner == (int)i)
            w->parts[ids[p]].owner = -1;
        tell(w, "w%u  RELEASE p%d", i, (int)ids[p]);
    }
    rebalance_soon(w, 5);
}

static void fault(struct world *w, const struct fault_plan *f);

/* A fault that was to happen at this effect of the worker happens. */
static void fault_at_effect(struct world *w, unsigned i)
{
    uint64_t n = ++w->workers[i].effects;
    for (size_t f = 0; f < w->plan->n_faults; f++) {
        const struct fault_plan *p = &w->plan->faults[f];
        if (!p->off && p->at_effect == n && p->worker == i)
            fault(w, p);
    }
}

static void carry_out(struct world *w, unsigned i, struct outbox *out)
{
    for (size_t n = 0; n < out->n; n++) {
        struct effect *e = &out->effects[n];
        w->out->effects++;
        fault_at_effect(w, i);
        if (!w->workers[i].core)
            return; /* it died before this effect */
        switch (e->kind) {
        case DO_CALL:
            on_call(w, i, e);
            break;
        case DO_CANCEL:
            on_cancel(w, i, e->cancel);
            break;
        case DO_TAKE:
            w->workers[i].open[e->take.partition] = e->take.open;
            break;
        case DO_COMMIT:
            on_commit(w, i, e->commit);
            break;
        case DO_RELEASE:
            on_release(w, i, e->release.partitions, e->release.n);
            break;
        case DO_PROGRESS:
        case DO_DRAINED:
            break;
        }
    }
}

static void arm_tick(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    uint64_t at = k->core ? core_next(k->core) : NEVER;
    if (at == NEVER || (k->tick_ns && k->tick_ns <= at && k->tick_ns > w->now))
        return;
    k->tick_ns = MAX(at, w->now + 1);
    post(w, k->tick_ns, TICK, i, 0);
}

static void step(struct world *w, unsigned i, struct input *in)
{
    struct worker *k = &w->workers[i];
    struct outbox out = {0};
    if (!k->core) /* died in the step before */
        return;
    in->wall_ms = WALL_MS + w->now / NS_PER_MS + w->wall_skew_ms;
    core_step(k->core, w->now, in, &out);
    core_check(k->core);
    carry_out(w, i, &out);
    outbox_done(&out);
    if (!k->core)
        return;
    fetch_soon(w, i);
    arm_tick(w, i);
}

/* ---- workers ---- */

static void start_worker(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    if (k->core)
        return;
    struct core_options o = {
        .config = &w->config, .providers = w->providers, .seed = rng_below(&w->rng, UINT64_MAX)};
    k->core = core_new(&o);
    txn_clear(&k->txn); /* init_transactions ends what the former life left open */
    k->epoch++;
    k->tick_ns = 0;
    tell(w, "w%u  starts", i);
    rebalance_soon(w, 100);
}

/* A transaction whose offsets are at the broker and whose owner is gone: it may have ended it
 * already, or the broker gives it up in time. */
static void orphan_txn(struct world *w, unsigned i)
{
    struct txn *t = &w->workers[i].txn;
    if (t->state == TXN_BEGUN)
        txn_clear(t); /* nothing of it is known to the broker's group */
    else if (t->state == TXN_PENDING && rng_below(&w->rng, 2))
        push(w, about(w, 2), (struct event_at){.what = TXN_END, .worker = i, .n = t->batch});
    else if (t->state == TXN_PENDING)
        push(w, w->now + TXN_TIMEOUT_NS,
             (struct event_at){.what = TXN_ABORT, .worker = i, .n = t->batch});
    else
        txn_clear(t);
}

static void crash(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    if (!k->core)
        return;
    tell(w, "w%u  CRASH", i);
    w->out->crashes++;
    core_free(k->core);
    k->core = NULL;
    k->frozen_until = 0;
    memset(k->open, 0, sizeof k->open);
    memset(k->fetching, 0, sizeof k->fetching);
    memset(k->revoking, 0, sizeof k->revoking);
    orphan_txn(w, i);
    push(w, w->now + SESSION_TIMEOUT_NS,
         (struct event_at){.what = SESSION_OUT, .worker = i, .n = k->epoch});
    push(w, about(w, 4000), (struct event_at){.what = START_WORKER, .worker = i});
}

/* A worker that is not the group's any more hears that its partitions are lost. */
static void lose_all(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    int32_t ids[PARTITIONS_MAX];
    size_t n = 0;
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        ids[n++] = (int32_t)p;
        k->open[p] = k->revoking[p] = false;
    }
    struct input in = {.kind = IN_LOST, .gone = {.partitions = ids, .n = n}};
    tell(w, "w%u  LOST all", i);
    step(w, i, &in);
}

static void session_out(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    k->member = false;
    for (unsigned p = 0; p < w->plan->partitions; p++)
        if (w->parts[p].owner == (int)i)
            w->parts[p].owner = -1;
    tell(w, "group: w%u is silent and out", i);
    rebalance_soon(w, 10);
}

static void freeze(struct world *w, unsigned i, uint64_t ns)
{
    struct worker *k = &w->workers[i];
    if (!k->core || k->frozen_until)
        return;
    tell(w, "w%u  FREEZE %.1f s", i, (double)ns / 1e9);
    w->out->freezes++;
    k->frozen_until = w->now + ns;
    post(w, k->frozen_until, THAW, i, 0);
    if (ns > SESSION_TIMEOUT_NS)
        post(w, w->now + SESSION_TIMEOUT_NS, SESSION_OUT, i, k->epoch);
    if (k->txn.state == TXN_PENDING && ns > TXN_TIMEOUT_NS)
        post(w, w->now + TXN_TIMEOUT_NS, TXN_ABORT, i, k->txn.batch);
}

static void thaw(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    k->frozen_until = 0;
    tell(w, "w%u  thaws", i);
    if (!k->member)
        lose_all(w, i);
    step(w, i, &(struct input){.kind = IN_TICK});
    rebalance_soon(w, 10);
}

/* ---- the group ---- */

static void rebalance_soon(struct world *w, uint64_t ms)
{
    if (w->joining)
        return;
    w->joining = true;
    push(w, about(w, ms), (struct event_at){.what = JOIN});
}

static bool live(const struct worker *k)
{
    return k->core && !k->frozen_until;
}

/* Who should have partition p: round robin over those who are there. -1: nobody. */
static int wanted_owner(const struct world *w, unsigned p)
{
    int members[WORKERS_MAX], n = 0;
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (w->workers[i].core && (!w->workers[i].frozen_until || w->workers[i].member))
            members[n++] = (int)i;
    return n ? members[(p + w->generation) % (unsigned)n] : -1;
}

/* Tells owners what to give back; true when nobody has anything left to give. */
static bool revoke_what_moves(struct world *w)
{
    bool all = true;
    for (unsigned i = 0; i < w->plan->workers; i++) {
        struct worker *k = &w->workers[i];
        int32_t ids[PARTITIONS_MAX];
        size_t n = 0;
        for (unsigned p = 0; p < w->plan->partitions; p++) {
            bool moves =
                w->parts[p].owner == (int)i && (w->plan->eager || wanted_owner(w, p) != (int)i);
            if (!moves)
                continue;
            all = false;
            if (live(k) && !k->revoking[p])
                ids[n++] = (int32_t)p;
        }
        for (size_t x = 0; x < n; x++)
            k->revoking[ids[x]] = true;
        struct input in = {.kind = IN_REVOKED, .gone = {.partitions = ids, .n = n}};
        if (n) {
            tell(w, "w%u  REVOKED %zu", i, n);
            step(w, i, &in);
        }
    }
    return all;
}

static void assign(struct world *w)
{
    w->generation++;
    w->out->rebalances++;
    for (unsigned i = 0; i < w->plan->workers; i++) {
        struct worker *k = &w->workers[i];
        if (live(k)) {
            k->member = true;
            k->generation = w->generation;
        }
    }
    w->generation--; /* wanted_owner as it was asked before */
    int owners[PARTITIONS_MAX];
    for (unsigned p = 0; p < w->plan->partitions; p++)
        owners[p] = wanted_owner(w, p);
    w->generation++;
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        struct part_log *l = &w->parts[p];
        if (l->owner >= 0 || owners[p] < 0 || !live(&w->workers[owners[p]]))
            continue;
        l->owner = owners[p];
        post(w, about(w, 10), LOOKUP, (unsigned)l->owner, p);
    }
}

static bool balanced(const struct world *w)
{
    for (unsigned p = 0; p < w->plan->partitions; p++)
        if (w->parts[p].owner < 0)
            return false;
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (live(&w->workers[i]) && !w->workers[i].member)
            return false;
    return true;
}

static bool member_is_silent(const struct world *w)
{
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (w->workers[i].member && (!w->workers[i].core || w->workers[i].frozen_until))
            return true;
    return false;
}

/* A round of the group: it waits for every member, until its session runs out. */
static void join(struct world *w)
{
    bool wants = !balanced(w);
    w->joining = false;
    if (!wants)
        return;
    if (member_is_silent(w)) {
        rebalance_soon(w, 250);
        return;
    }
    if (!revoke_what_moves(w)) {
        rebalance_soon(w, 50);
        return;
    }
    assign(w);
    if (!balanced(w))
        rebalance_soon(w, 300);
}

static bool pending_elsewhere(const struct world *w, unsigned p)
{
    for (unsigned i = 0; i < w->plan->workers; i++) {
        const struct txn *t = &w->workers[i].txn;
        for (size_t o = 0; t->state == TXN_PENDING && o < t->n_offsets; o++)
            if (t->offsets[o].partition == (int32_t)p)
                return true;
    }
    return false;
}

static void lookup(struct world *w, unsigned i, unsigned p)
{
    struct worker *k = &w->workers[i];
    struct part_log *l = &w->parts[p];
    if (l->owner != (int)i || k->revoking[p])
        return;
    if (pending_elsewhere(w, p)) { /* unstable: again */
        post(w, w->now + 100 * NS_PER_MS, LOOKUP, i, p);
        return;
    }
    k->position[p] = MAX(l->committed, 0);
    k->fetching[p] = false;
    k->open[p] = false;
    tell(w, "w%u  ASSIGNED p%u at %" PRId64, i, p, l->committed);
    struct input in = {.kind = IN_ASSIGNED,
                       .assigned = {.partition = (int32_t)p,
                                    .partitions_total = (int32_t)w->plan->partitions,
                                    .offset = l->committed,
                                    .metadata = l->metadata}};
    step(w, i, &in);
}

/* ---- records and transactions ---- */

static void fetch(struct world *w, unsigned i, unsigned p)
{
    struct worker *k = &w->workers[i];
    struct part_log *l = &w->parts[p];
    k->fetching[p] = false;
    if (!k->open[p] || l->owner != (int)i || (size_t)k->position[p] >= l->n)
        return;
    int64_t offset = k->position[p]++;
    const struct job_plan *j = &w->plan->jobs[l->records[offset]];
    struct record r = {.topic = w->config.topics.jobs,
                       .partition = (int32_t)p,
                       .offset = offset,
                       .timestamp_ms = WALL_MS + j->at_ns / NS_PER_MS,
                       .key = j->session,
                       .key_len = strlen(j->session),
                       .value = j->value,
                       .value_len = strlen(j->value)};
    struct refusal why = {0};
    unsigned unknown = 0;
    struct input in = {.kind = IN_JOB, .job = {.record = &r, .refusal = &why}};
    in.job.job = job_parse(&r, &w->config, &why, &unknown);
    tell(w, "w%u  takes p%u/%" PRId64 " %s", i, p, offset, j->value);
    step(w, i, &in);
    refusal_done(&why);
}

static struct txn *txn_of(struct world *w, unsigned i, uint64_t batch)
{
    struct txn *t = &w->workers[i].txn;
    return t->state != TXN_NONE && t->batch == batch ? t : NULL;
}

static void txn_said(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    struct txn *t = &k->txn;
    bool committed = t->state == TXN_DONE;
    uint64_t batch = t->batch;
    if (t->state != TXN_DONE && t->state != TXN_REFUSED)
        return;
    txn_clear(t);
    tell(w, "w%u  %s", i, committed ? "COMMITTED" : "COMMIT FAILED");
    w->out->commits += committed;
    w->out->refused += !committed;
    struct input in = {.kind = committed ? IN_COMMITTED : IN_COMMIT_FAILED,
                       .commit = {.batch = batch}};
    step(w, i, &in);
}

static void txn_offsets(struct world *w, unsigned i, uint64_t batch)
{
    struct worker *k = &w->workers[i];
    struct txn *t = txn_of(w, i, batch);
    if (!t || t->state != TXN_BEGUN)
        return;
    bool refused = k->refuse_commits > 0 && k->refuse_commits--;
    bool fenced =
        refused || !k->member || t->generation != k->generation || t->generation != w->generation;
    t->state = fenced ? TXN_REFUSED : TXN_PENDING;
    post(w, about(w, fenced ? 10 : 3), fenced ? TXN_SAID : TXN_END, i, batch);
}

static const char *header_of(const struct message *m, const char *name)
{
    for (size_t i = 0; i < m->n_headers; i++)
        if (!strcmp(m->headers[i].name, name))
            return m->headers[i].value;
    return "";
}

static char *text_of(const cJSON *o, const char *a, const char *b)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, a);
    if (b)
        v = cJSON_GetObjectItemCaseSensitive(v, b);
    return xstrdup0(cJSON_GetStringValue(v));
}

static void becomes_visible(struct world *w, const struct message *m)
{
    if (m->to != TO_RESULTS)
        return;
    cJSON *o = cJSON_ParseWithLength(m->value, m->value_len);
    struct visible v = {.ce_id = xstrdup(header_of(m, "ce_id")),
                        .type = text_of(o, "type", NULL),
                        .session = text_of(o, "session_id", NULL),
                        .sandbox = text_of(o, "sandbox", "id"),
                        .cleanup = text_of(o, "sandbox", "cleanup")};
    for (size_t i = 0; i < w->n_seen; i++)
        if (!strcmp(w->seen[i].ce_id, v.ce_id))
            broken(w, "two events of %s", v.ce_id);
    tell(w, "EVENT %s %s %s", v.ce_id, v.type, m->value);
    GROW(w->seen, w->n_seen, w->cap_seen);
    w->seen[w->n_seen++] = v;
    cJSON_Delete(o);
}

static void txn_end(struct world *w, unsigned i, uint64_t batch)
{
    struct txn *t = txn_of(w, i, batch);
    if (!t || t->state != TXN_PENDING)
        return;
    for (size_t m = 0; m < t->n_messages; m++)
        becomes_visible(w, &t->messages[m]);
    for (size_t o = 0; o < t->n_offsets; o++) {
        struct part_log *l = &w->parts[t->offsets[o].partition];
        if (t->offsets[o].watermark < l->committed)
            broken(w, "p%d: the committed offset goes back from %" PRId64 " to %" PRId64,
                   (int)t->offsets[o].partition, l->committed, t->offsets[o].watermark);
        l->committed = t->offsets[o].watermark;
        free(l->metadata);
        l->metadata = xstrdup(t->offsets[o].metadata);
    }
    t->state = TXN_DONE;
    if (w->workers[i].core)
        post(w, about(w, 3), TXN_SAID, i, batch);
    else
        txn_clear(t);
}

static void txn_abort(struct world *w, unsigned i, uint64_t batch)
{
    struct txn *t = txn_of(w, i, batch);
    if (!t || t->state != TXN_PENDING)
        return;
    tell(w, "w%u  its transaction is given up by the broker", i);
    t->state = TXN_REFUSED;
    if (w->workers[i].core)
        post(w, about(w, 10), TXN_SAID, i, batch);
    else
        txn_clear(t);
}

/* ---- requests ---- */

static void finish_request(struct world *w, struct request *r, const struct reply *reply)
{
    struct worker *k = &w->workers[r->worker];
    if (r->done)
        return;
    r->done = true;
    if (!k->core || k->epoch != r->epoch)
        return;
    struct input in = {.kind = IN_REPLY, .reply = {.call = r->call, .reply = reply}};
    tell(w, "w%u  <- %d%s %.*s", r->worker, reply->status, reply->fault ? " fault" : "",
         (int)MIN(reply->body_len, 160), reply->body ? reply->body : "");
    step(w, r->worker, &in);
}

static void fault_request(struct world *w, struct request *r, enum fault fault)
{
    struct reply reply = {.fault = fault};
    finish_request(w, r, &reply);
}

static void reply_comes(struct world *w, size_t n, struct sim_reply *from)
{
    struct request *r = w->requests[n];
    r->reply = *from;
    r->answered = true;
    memset(from, 0, sizeof *from);
    if (r->reply.at_ns == NEVER)
        return;
    uint64_t at = MAX(r->reply.at_ns, w->now) + r->delay_ns + rng_below(&w->rng, 4 * NS_PER_MS);
    push(w, at, (struct event_at){.what = DELIVER, .worker = r->worker, .epoch = r->epoch, .n = n});
}

/* "http://host:port/path" in two. */
static void split_url(const char *url, char **host, const char **target)
{
    const char *start = strstr(url, "://");
    start = start ? start + 3 : url;
    const char *slash = strchr(start, '/');
    *target = slash ? slash : "/";
    *host = slash ? xmemdup0(start, (size_t)(slash - start)) : xstrdup(start);
}

static void arrive(struct world *w, size_t n)
{
    struct request *r = w->requests[n];
    struct sim_header headers[CALL_HEADERS_MAX + 1];
    size_t n_headers = 0;
    if (r->lose_request) {
        fault_request(w, r, FAULT_LOST);
        return;
    }
    if (r->fail_503) {
        struct reply reply = {
            .status = 503, .body = "{\"message\":\"maintenance\"}", .body_len = 25};
        finish_request(w, r, &reply);
        return;
    }
    for (size_t i = 0; i < r->c.n_headers; i++)
        headers[n_headers++] = (struct sim_header){r->c.headers[i].name, r->c.headers[i].value};
    if (r->c.body)
        headers[n_headers++] = (struct sim_header){"Content-Type", r->c.content_type};
    char *host;
    struct sim_request q = {.method = r->c.method,
                            .headers = headers,
                            .n_headers = n_headers,
                            .body = r->c.body,
                            .body_len = r->c.body_len};
    split_url(r->c.url, &host, &q.target);
    q.host = host;
    struct sim_reply reply = {0};
    model_request(w->model, w->now, &q, &reply);
    r->token = reply.token;
    if (reply.held)
        sim_reply_done(&reply);
    else
        reply_comes(w, n, &reply);
    free(host);
    daytona_wakes(w);
}

static void deliver(struct world *w, size_t n)
{
    struct request *r = w->requests[n];
    struct reply_header headers[SIM_REPLY_HEADERS];
    if (r->reply.lost || r->lose_answer) {
        fault_request(w, r, FAULT_LOST);
        return;
    }
    struct reply reply = {.status = r->reply.status,
                          .headers = headers,
                          .n_headers = r->reply.n_headers,
                          .body = buf_text(&r->reply.body),
                          .body_len = r->reply.body.len,
                          .date_ms = WALL_MS + w->now / NS_PER_MS};
    char *names[SIM_REPLY_HEADERS];
    for (size_t i = 0; i < r->reply.n_headers; i++) {
        names[i] = xstrdup(r->reply.headers[i].name);
        for (char *c = names[i]; *c; c++)
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
        headers[i] = (struct reply_header){names[i], r->reply.headers[i].value};
    }
    finish_request(w, r, &reply);
    for (size_t i = 0; i < r->reply.n_headers; i++)
        free(names[i]);
}

static void daytona(struct world *w)
{
    struct sim_reply reply = {0};
    w->daytona_ns = 0;
    while (model_advance(w->model, w->now, &reply)) {
        for (size_t n = 0; n < w->n_requests; n++)
            if (w->requests[n]->token == reply.token && !w->requests[n]->answered) {
                reply_comes(w, n, &reply);
                break;
            }
        sim_reply_done(&reply);
    }
    daytona_wakes(w);
}

/* ---- faults ---- */

static void fault(struct world *w, const struct fault_plan *f)
{
    struct worker *k = &w->workers[f->worker];
    tell(w, "FAULT kind %d at w%u", (int)f->kind, f->worker);
    w->last_fault_ns = w->now;
    switch (f->kind) {
    case CRASH:
        crash(w, f->worker);
        break;
    case FREEZE:
        freeze(w, f->worker, f->arg);
        break;
    case LOSE_REQUEST:
        k->lose_requests += 1 + (unsigned)(f->arg % 3);
        break;
    case LOSE_ANSWER:
        k->lose_answers += 1 + (unsigned)(f->arg % 3);
        break;
    case DELAY_ANSWER:
        k->delays += 1 + (unsigned)(f->arg % 3);
        break;
    case ANSWER_503:
        k->fails += 1 + (unsigned)(f->arg % 2);
        break;
    case REBALANCE:
        if (f->at_effect)
            break; /* a step is under way */
        for (unsigned p = 0; p < w->plan->partitions; p++) {
            int owner = w->parts[p].owner;
            int32_t id = (int32_t)p;
            if (owner < 0 || !live(&w->workers[owner]) || w->workers[owner].revoking[p])
                continue;
            w->workers[owner].revoking[p] = true;
            struct input in = {.kind = IN_REVOKED, .gone = {.partitions = &id, .n = 1}};
            tell(w, "w%d  REVOKED p%u", owner, p);
            step(w, (unsigned)owner, &in);
        }
        rebalance_soon(w, 20);
        break;
    case CLOCK_JUMP:
        w->wall_skew_ms += f->arg;
        break;
    case REFUSE_COMMIT:
        k->refuse_commits += 1 + (unsigned)(f->arg % 2);
        break;
    case N_FAULT_KINDS:
        break;
    }
}

/* ---- invariants ---- */

static bool named_kept(const struct world *w, const char *id, bool *deleted)
{
    bool named = false;
    for (size_t i = 0; i < w->n_seen; i++) {
        const struct visible *v = &w->seen[i];
        bool it = v->sandbox && !strcmp(v->sandbox, id);
        bool kept =
            !strcmp(v->type, "session-ready") || (v->cleanup && !strcmp(v->cleanup, "kept"));
        named |= it && kept;
        *deleted |= it && !strcmp(v->type, "session-deleted");
    }
    return named;
}

static bool session_has_delete(const struct world *w, const char *labels)
{
    for (size_t i = 0; i < w->plan->n_jobs; i++) {
        const struct job_plan *j = &w->plan->jobs[i];
        char *quoted = xasprintf("\"%s\"", j->session);
        bool its = !j->off && strstr(j->value, "delete-session") && strstr(labels, quoted);
        free(quoted);
        if (its)
            return true;
    }
    return false;
}

static bool is_foreign(const struct sim_sandbox *s)
{
    return strstr(s->labels, "session-worker/fleet") == NULL;
}

static void check_sandbox(void *arg, const struct sim_sandbox *s)
{
    struct world *w = arg;
    bool deleted = false;
    if (is_foreign(s) && !s->live)
        broken(w, "sandbox %s is somebody else's and is gone (%s)", s->id, s->destroyed_by);
    bool named = named_kept(w, s->id, &deleted);
    if (is_foreign(s) && named)
        broken(w, "sandbox %s is somebody else's and was given away", s->id);
    if (!s->live && named && !session_has_delete(w, s->labels))
        broken(w, "sandbox %s was named as kept and is gone (%s)", s->id, s->destroyed_by);
    if (!s->live && named && s->destroyed_by && strcmp(s->destroyed_by, "delete") != 0)
        broken(w, "sandbox %s was named as kept and went by %s", s->id, s->destroyed_by);
}

static void check_end(void *arg, const struct sim_sandbox *s)
{
    struct world *w = arg;
    bool deleted = false;
    bool named = named_kept(w, s->id, &deleted);
    if (!s->live || named || is_foreign(s))
        return;
    if (s->auto_delete != 0 && !strcmp(s->state, "stopped")) {
        w->out->late_keeps++; /* kept by a request that a successor overtook */
        return;
    }
    broken(w, "sandbox %s %s is left over: %s, autoDelete %" PRId64 ", no event names it", s->id,
           s->name, s->state, s->auto_delete);
}

static void check_jobs(struct world *w)
{
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        const struct part_log *l = &w->parts[p];
        if (l->committed < (int64_t)l->n && l->n)
            broken(w, "p%u: committed %" PRId64 " of %zu", p, l->committed, l->n);
        for (size_t o = 0; o < l->n; o++) {
            char *id = xasprintf("%s/%u/%zu", w->config.topics.jobs, p, o);
            size_t n = 0;
            for (size_t i = 0; i < w->n_seen; i++)
                n += !strcmp(w->seen[i].ce_id, id);
            if (n != 1)
                broken(w, "%zu events of %s", n, id);
            free(id);
        }
    }
}

static bool all_done(const struct world *w)
{
    for (unsigned p = 0; p < w->plan->partitions; p++)
        if (w->parts[p].n && w->parts[p].committed < (int64_t)w->parts[p].n)
            return false;
    return true;
}

/* ---- life ---- */

static void on_arrive(struct world *w, const struct event_at *e)
{
    if (w->requests[e->n]->epoch == w->workers[e->worker].epoch || rng_below(&w->rng, 2))
        arrive(w, e->n); /* of a dead worker's requests some were on the wire already */
}

static void on_tick(struct world *w, const struct event_at *e)
{
    struct worker *k = &w->workers[e->worker];
    if (e->at < k->tick_ns && e->at < core_next(k->core))
        return;
    k->tick_ns = 0;
    step(w, e->worker, &(struct input){.kind = IN_TICK});
}

static void on_session_out(struct world *w, const struct event_at *e)
{
    const struct worker *k = &w->workers[e->worker];
    if (k->epoch == e->n && k->member && (!k->core || k->frozen_until))
        session_out(w, e->worker);
}

static void on_start(struct world *w, const struct event_at *e)
{
    const struct worker *k = &w->workers[e->worker];
    if (k->member && !k->core)
        session_out(w, e->worker);
    start_worker(w, e->worker);
}

static void on_produce(struct world *w, const struct event_at *e)
{
    struct part_log *l = &w->parts[w->plan->jobs[e->n].partition];
    l->records[l->n++] = e->n;
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (live(&w->workers[i]))
            fetch_soon(w, i);
}

static void on_deliver(struct world *w, const struct event_at *e)
{
    deliver(w, e->n);
}

static void on_call_timeout(struct world *w, const struct event_at *e)
{
    fault_request(w, w->requests[e->n], FAULT_TIMEOUT);
}

static void on_daytona(struct world *w, const struct event_at *e)
{
    (void)e;
    daytona(w);
}

static void on_fetch(struct world *w, const struct event_at *e)
{
    fetch(w, e->worker, (unsigned)e->n);
}

static void on_lookup(struct world *w, const struct event_at *e)
{
    lookup(w, e->worker, (unsigned)e->n);
}

static void on_txn_offsets(struct world *w, const struct event_at *e)
{
    txn_offsets(w, e->worker, e->n);
}

static void on_txn_end(struct world *w, const struct event_at *e)
{
    txn_end(w, e->worker, e->n);
}

static void on_txn_said(struct world *w, const struct event_at *e)
{
    txn_said(w, e->worker);
}

static void on_txn_abort(struct world *w, const struct event_at *e)
{
    txn_abort(w, e->worker, e->n);
}

static void on_join(struct world *w, const struct event_at *e)
{
    (void)e;
    join(w);
}

static void on_fault(struct world *w, const struct event_at *e)
{
    fault(w, &w->plan->faults[e->n]);
}

static void on_thaw(struct world *w, const struct event_at *e)
{
    thaw(w, e->worker);
}

/* What happens, and whether it happens inside a worker: then not to a dead one, and to a frozen one
 * when it wakes. A dead worker's transaction may end all the same (its event has no epoch). */
static const struct {
    void (*fn)(struct world *, const struct event_at *);
    bool inside;
} happenings[N_HAPPENINGS] = {
    [TICK] = {on_tick, true},
    [ARRIVE] = {on_arrive, false},
    [DELIVER] = {on_deliver, true},
    [CALL_TIMEOUT] = {on_call_timeout, true},
    [DAYTONA] = {on_daytona, false},
    [FETCH] = {on_fetch, true},
    [LOOKUP] = {on_lookup, true},
    [TXN_OFFSETS] = {on_txn_offsets, true},
    [TXN_END] = {on_txn_end, true},
    [TXN_SAID] = {on_txn_said, true},
    [TXN_ABORT] = {on_txn_abort, false},
    [JOIN] = {on_join, false},
    [SESSION_OUT] = {on_session_out, false},
    [START_WORKER] = {on_start, false},
    [PRODUCE] = {on_produce, false},
    [FAULT] = {on_fault, false},
    [THAW] = {on_thaw, true},
};

static void happen(struct world *w, const struct event_at *e)
{
    const struct worker *k = &w->workers[e->worker];
    bool orphan = e->what == TXN_END && !e->epoch;
    bool inside = happenings[e->what].inside && !orphan;
    if (inside && (!k->core || (e->epoch && e->epoch != k->epoch)))
        return;
    if (inside && k->frozen_until && e->what != THAW)
        push(w, k->frozen_until + 1, *e);
    else
        happenings[e->what].fn(w, e);
}

static void world_log(void *arg, const char *line, size_t len)
{
    struct world *w = arg;
    tell(w, "        %.*s", (int)len, line);
}

static void make_config(struct world *w)
{
    static const char *const sets[] = {
        "kafka.group=x",
        "topics.jobs=j",
        "jobs.max_in_flight=6",
        "sweep.every_seconds=3",
        "providers.daytona.api_url=http://127.0.0.1:3986/api",
        "providers.daytona.creates_per_minute=100000",
        "session_key.secret_files=",
    };
    static char key[] = "DAYTONA_API_KEY=dtn_any";
    static char *env[] = {key, NULL};
    struct buf errors;
    buf_init(&errors, 4096);
    struct config_source src = {.sets = sets, .n_sets = ARRAY_LEN(sets) - 1, .environ = env};
    if (!config_load(&src, &w->config, &errors)) {
        fputs(buf_text(&errors), stderr);
        abort();
    }
    buf_done(&errors);
    w->providers[0] = provider_new(&w->config, 0);
}

static void make_model(struct world *w)
{
    char error[MODEL_ERROR_SIZE];
    struct model_options o = {.seed = w->plan->seed,
                              .wall_ms = WALL_MS,
                              .base_url = "http://127.0.0.1:3986",
                              .domain = "localhost:3986",
                              .boot_ms = 400,
                              .server_ms = 300,
                              .stop_ms = 150,
                              .destroy_ms = 200};
    w->model = model_new(&o, error);
    ASSERT(w->model);
}

static void world_done(struct world *w)
{
    for (unsigned i = 0; i < WORKERS_MAX; i++) {
        core_free(w->workers[i].core);
        txn_clear(&w->workers[i].txn);
    }
    for (size_t n = 0; n < w->n_requests; n++) {
        call_done(&w->requests[n]->c);
        sim_reply_done(&w->requests[n]->reply);
        free(w->requests[n]);
    }
    for (size_t i = 0; i < w->n_seen; i++) {
        free(w->seen[i].ce_id);
        free(w->seen[i].type);
        free(w->seen[i].session);
        free(w->seen[i].sandbox);
        free(w->seen[i].cleanup);
    }
    for (unsigned p = 0; p < PARTITIONS_MAX; p++)
        free(w->parts[p].metadata);
    free(w->seen);
    free(w->requests);
    free(w->queue);
    model_free(w->model);
    provider_free(w->providers[0]);
    config_done(&w->config);
}

static void make_foreign(struct world *w)
{
    static const char body[] =
        "{\"name\":\"x.s0\",\"labels\":{\"owner\":\"another\"},\"autoStopInterval\":0}";
    static const struct sim_header headers[] = {{"Authorization", "Bearer dtn_any"},
                                                {"Content-Type", "application/json"}};
    struct sim_request q = {.method = "POST",
                            .target = "/api/sandbox",
                            .host = "",
                            .headers = headers,
                            .n_headers = ARRAY_LEN(headers),
                            .body = body,
                            .body_len = sizeof body - 1};
    struct sim_reply reply = {0};
    model_request(w->model, 0, &q, &reply);
    sim_reply_done(&reply);
    daytona_wakes(w);
}

static void begin(struct world *w)
{
    if (w->plan->foreign)
        make_foreign(w);
    const struct plan *plan = w->plan;
    for (unsigned p = 0; p < PARTITIONS_MAX; p++)
        w->parts[p] = (struct part_log){.owner = -1, .committed = -1};
    for (unsigned i = 0; i < plan->workers; i++)
        push(w, 1 + i * 50 * NS_PER_MS, (struct event_at){.what = START_WORKER, .worker = i});
    for (size_t i = 0; i < plan->n_jobs; i++)
        if (!plan->jobs[i].off)
            push(w, plan->jobs[i].at_ns, (struct event_at){.what = PRODUCE, .n = i});
    for (size_t i = 0; i < plan->n_faults; i++)
        if (!plan->faults[i].off && !plan->faults[i].at_effect)
            push(w, plan->faults[i].at_ns,
                 (struct event_at){.what = FAULT, .worker = plan->faults[i].worker, .n = i});
}

bool world_run(const struct plan *plan, struct buf *story, struct outcome_counts *out)
{
    struct world w = {.plan = plan, .story = story, .out = out};
    struct event_at e;
    uint64_t done_ns = 0;
    *out = (struct outcome_counts){0};
    rng_init(&w.rng, plan->seed);
    log_capture(world_log, &w);
    make_config(&w);
    make_model(&w);
    begin(&w);
    while (!out->broken && pop(&w, &e)) {
        w.now = MAX(w.now, e.at);
        out->events++;
        happen(&w, &e);
        if (out->events % 64 == 0)
            model_each_sandbox(w.model, check_sandbox, &w);
        if (out->events > EVENTS_MAX || w.now > LONGEST_NS)
            broken(&w, "no end in sight");
        bool produced = w.now > plan->jobs[plan->n_jobs - 1].at_ns + NS_PER_S;
        done_ns = produced && all_done(&w) ? (done_ns ? done_ns : w.now) : 0;
        if (done_ns && w.now > done_ns + QUIET_NS && w.now > w.last_fault_ns + QUIET_NS)
            break;
    }
    if (!out->broken) {
        check_jobs(&w);
        model_each_sandbox(w.model, check_sandbox, &w);
        model_each_sandbox(w.model, check_end, &w);
    }
    world_done(&w);
    log_capture(NULL, NULL);
    return !out->broken;
}
