/* world_worker: the workers of a world, and the faults that befall them.
 *
 * A worker is a core as shipped and what its process would keep beside it. world_step() is the only
 * way into a core: it gives the time, checks the core, and carries its effects out one by one, so
 * that a fault may strike between two of them. A worker that dies there leaves the rest undone, as
 * a real one would.
 *
 * Invariants:
 * - An epoch is one life. What a core was to hear in one life it does not hear in a later one.
 * - The dead and the frozen keep their place in the group until their session runs out or they are
 *   back.
 * - A frozen worker hears of nothing; what was meant for it waits until it thaws.
 * - After every step the core's next tick is in the queue; one that comes early does nothing. */
#include "tests/sim/world_impl.h"

#include <string.h>

/* ---- lives ---- */

static void start_worker(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    if (k->core)
        return;
    struct core_options o = {
        .config = &w->config, .providers = w->providers, .seed = rng_below(&w->rng, UINT64_MAX)};
    k->core = core_new(&o);
    world_txn_clear(&k->txn); /* init_transactions ends what the former life left open */
    k->epoch++;
    k->tick_ns = 0;
    world_tell(w, "w%u  starts", i);
    world_rebalance_soon(w, 100);
}

static void crash(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    if (!k->core)
        return;
    world_tell(w, "w%u  CRASH", i);
    w->out->crashes++;
    core_free(k->core);
    k->core = NULL;
    k->frozen_until = 0;
    memset(k->open, 0, sizeof k->open);
    memset(k->fetching, 0, sizeof k->fetching);
    memset(k->revoking, 0, sizeof k->revoking);
    world_txn_orphan(w, i);
    world_push(w, w->now + SESSION_TIMEOUT_NS,
               (struct event_at){.what = SESSION_OUT, .worker = i, .n = k->epoch});
    world_push(w, world_about(w, 4000), (struct event_at){.what = START_WORKER, .worker = i});
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
    world_tell(w, "w%u  LOST all", i);
    world_step(w, i, &in);
}

static void session_out(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    k->member = false;
    for (unsigned p = 0; p < w->plan->partitions; p++)
        if (w->parts[p].owner == (int)i)
            w->parts[p].owner = -1;
    world_tell(w, "group: w%u is silent and out", i);
    world_rebalance_soon(w, 10);
}

void world_on_session_out(struct world *w, const struct event_at *e)
{
    const struct worker *k = &w->workers[e->worker];
    if (k->epoch == e->n && k->member && (!k->core || k->frozen_until))
        session_out(w, e->worker);
}

void world_on_start(struct world *w, const struct event_at *e)
{
    const struct worker *k = &w->workers[e->worker];
    if (k->member && !k->core)
        session_out(w, e->worker);
    start_worker(w, e->worker);
}

static void freeze(struct world *w, unsigned i, uint64_t ns)
{
    struct worker *k = &w->workers[i];
    if (!k->core || k->frozen_until)
        return;
    world_tell(w, "w%u  FREEZE %.1f s", i, (double)ns / 1e9);
    w->out->freezes++;
    k->frozen_until = w->now + ns;
    world_post(w, k->frozen_until, THAW, i, 0);
    if (ns > SESSION_TIMEOUT_NS)
        world_post(w, w->now + SESSION_TIMEOUT_NS, SESSION_OUT, i, k->epoch);
    if (k->txn.state == TXN_PENDING && ns > TXN_TIMEOUT_NS)
        world_post(w, w->now + TXN_TIMEOUT_NS, TXN_ABORT, i, k->txn.batch);
}

void world_on_thaw(struct world *w, const struct event_at *e)
{
    unsigned i = e->worker;
    struct worker *k = &w->workers[i];
    k->frozen_until = 0;
    world_tell(w, "w%u  thaws", i);
    if (!k->member)
        lose_all(w, i);
    world_step(w, i, &(struct input){.kind = IN_TICK});
    world_rebalance_soon(w, 10);
}

/* ---- faults ---- */

static void fault(struct world *w, const struct fault_plan *f)
{
    struct worker *k = &w->workers[f->worker];
    world_tell(w, "FAULT kind %d at w%u", (int)f->kind, f->worker);
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
        if (!f->at_effect) /* else a step is under way */
            world_rebalance(w);
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

void world_on_fault(struct world *w, const struct event_at *e)
{
    fault(w, &w->plan->faults[e->n]);
}

/* ---- a step and its effects ---- */

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
            world_call(w, i, e);
            break;
        case DO_CANCEL:
            world_cancel(w, i, e->cancel);
            break;
        case DO_TAKE:
            w->workers[i].open[e->take.partition] = e->take.open;
            break;
        case DO_COMMIT:
            world_commit(w, i, e->commit);
            break;
        case DO_RELEASE:
            world_release(w, i, e->release.partitions, e->release.n);
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
    world_post(w, k->tick_ns, TICK, i, 0);
}

void world_step(struct world *w, unsigned i, struct input *in)
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
    world_fetch_soon(w, i);
    arm_tick(w, i);
}

void world_on_tick(struct world *w, const struct event_at *e)
{
    struct worker *k = &w->workers[e->worker];
    if (e->at < k->tick_ns && e->at < core_next(k->core))
        return;
    k->tick_ns = 0;
    world_step(w, e->worker, &(struct input){.kind = IN_TICK});
}
