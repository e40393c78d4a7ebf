/* world_worker: the workers of a world, and the faults that befall them.
 *
 * A worker is a core as shipped and what its process would keep beside it. world_step() is the only
 * way into a core: it gives the time, checks the core, and has its effects carried out one by one,
 * so that a fault may strike between two of them. A worker that dies there leaves the rest undone,
 * as a real one would; one that freezes there goes on with the rest when it thaws, before it hears
 * of anything else: these are the late requests that a woken process still sends.
 *
 * Invariants:
 * - An epoch is one life. What a core was to hear in one life it does not hear in a later one.
 * - The dead and the frozen keep their place in the group until their session runs out or they are
 *   back; who was drained has given it up himself.
 * - A frozen worker hears of nothing; what was meant for it waits until it thaws.
 * - After every step the core's next tick is in the queue; one that comes early does nothing. */
#include "tests/sim/world_impl.h"

#include <string.h>

#include "tests/sim/world_core.h"

#define RESTART_MS 4000
#define RESTART_LATE_MS 8000 /* when somebody else has taken over */

uint64_t world_wall_ms(const struct world *w, const struct worker *k)
{
    return (uint64_t)((int64_t)(WALL_MS + w->now / NS_PER_MS) + k->wall_skew_ms);
}

/* ---- lives ---- */

static void start_worker(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    if (k->core)
        return;
    struct core_options o = {.config = &w->config,
                             .providers = w->providers,
                             .seed = w->plan->step_by_step ? 0 : rng_below(&w->rng, UINT64_MAX)};
    k->core = core_new(&o);
    world_txn_clear(&k->txn); /* init_transactions ends what the former life left open */
    k->epoch++;
    k->tick_ns = 0;
    world_tell(w, "w%u  starts", i);
    world_rebalance_soon(w, 100);
}

/* Nothing is left of the process but what it has sent. */
static void end_process(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    core_free(k->core);
    k->core = NULL;
    k->frozen_until = 0;
    outbox_clear(&k->outbox);
    k->carried = 0;
    k->busy = false;
    memset(k->open, 0, sizeof k->open);
    memset(k->fetching, 0, sizeof k->fetching);
    memset(k->revoking, 0, sizeof k->revoking);
    world_txn_orphan(w, i);
    world_push(w, world_about(w, w->plan->step_by_step ? RESTART_LATE_MS : RESTART_MS),
               (struct event_at){.what = START_WORKER, .worker = i});
}

void world_crash(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    if (!k->core)
        return;
    world_tell(w, "w%u  CRASH", i);
    end_process(w, i);
    world_push(w, w->now + SESSION_TIMEOUT_NS,
               (struct event_at){.what = SESSION_OUT, .worker = i, .n = k->epoch});
}

static void drained(struct world *w, unsigned i)
{
    world_tell(w, "w%u  is drained and leaves", i);
    end_process(w, i);
    world_leave(w, i);
}

/* A worker that is not the group's any more hears that its partitions are lost. */
static void lose_all(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    int32_t ids[PARTITIONS_MAX];
    size_t n = 0;
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        ids[n++] = (int32_t)p;
        k->open[p] = k->revoking[p] = k->fetching[p] = false;
    }
    struct input in = {.kind = IN_LOST, .gone = {.partitions = ids, .n = n}};
    world_tell(w, "w%u  LOST all", i);
    world_step(w, i, &in);
}

static void session_out(struct world *w, unsigned i)
{
    world_tell(w, "group: w%u is silent and out", i);
    world_leave(w, i);
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

void world_freeze(struct world *w, unsigned i, uint64_t ns)
{
    struct worker *k = &w->workers[i];
    if (!k->core || k->frozen_until)
        return;
    world_tell(w, "w%u  FREEZE %.1f s", i, ns == NEVER ? -1 : (double)ns / 1e9);
    k->frozen_until = ns == NEVER ? NEVER : w->now + ns;
    if (ns != NEVER)
        world_post(w, k->frozen_until, THAW, i, 0);
    if (ns > SESSION_TIMEOUT_NS)
        world_post(w, w->now + SESSION_TIMEOUT_NS, SESSION_OUT, i, k->epoch);
    if (k->txn.state == TXN_PENDING && ns > TXN_TIMEOUT_NS)
        world_post(w, w->now + TXN_TIMEOUT_NS, TXN_ABORT, i, k->txn.batch);
}

/* ---- faults ---- */

static void add_worker(struct world *w, unsigned i)
{
    if (w->workers[i].epoch == 0)
        start_worker(w, i);
}

static void drain(struct world *w, unsigned i)
{
    world_tell(w, "w%u  DRAIN", i);
    world_step(w, i, &(struct input){.kind = IN_DRAIN});
}

static void foreign_metadata(struct world *w, uint64_t arg)
{
    struct part_log *l = &w->parts[arg % w->plan->partitions];
    l->foreign = true;
    if (l->owner >= 0 && arg % 2) /* where it is looked up soon */
        world_rebalance(w);
}

static int64_t clock_jump(uint64_t arg)
{
    int64_t ms = (int64_t)(arg / NS_PER_MS);
    return arg % 2 ? ms * 40 : -ms * 40; /* up to 13 minutes */
}

static void strike_kafka(struct world *w, const struct fault_plan *f)
{
    struct worker *k = &w->workers[f->worker];
    unsigned some = 1 + (unsigned)(f->arg % 2);
    if (f->kind == REBALANCE)
        world_rebalance(w);
    else if (f->kind == REFUSE_COMMIT)
        k->refuse_commits += some;
    else if (f->kind == UNSURE_COMMIT)
        k->unsure_commits += some;
    else if (f->kind == FOREIGN_METADATA)
        foreign_metadata(w, f->arg);
}

static void strike_requests(struct world *w, const struct fault_plan *f)
{
    struct worker *k = &w->workers[f->worker];
    unsigned some = 1 + (unsigned)(f->arg % 3);
    if (f->kind == LOSE_REQUEST)
        k->lose_requests += some;
    else if (f->kind == LOSE_ANSWER)
        k->lose_answers += some;
    else if (f->kind == DELAY_ANSWER)
        k->delays += some;
    else if (f->kind == LATE_REQUEST)
        k->lates += some;
    else if (f->kind == ANSWER_503)
        k->fails += some;
    else if (f->kind == REFUSE_KEY)
        w->key_refused_until = w->now + 4 * f->arg;
}

static void strike_worker(struct world *w, const struct fault_plan *f)
{
    struct worker *k = &w->workers[f->worker];
    if (f->kind == CRASH)
        world_crash(w, f->worker);
    else if (f->kind == FREEZE)
        world_freeze(w, f->worker, f->arg);
    else if (f->kind == CLOCK_JUMP)
        k->wall_skew_ms += clock_jump(f->arg);
    else if (f->kind == DRAIN)
        drain(w, f->worker);
    else if (f->kind == ADD_WORKER)
        add_worker(w, f->worker);
}

static const struct {
    const char *name;
    void (*strike)(struct world *, const struct fault_plan *);
    bool steps; /* gives a core an input: not inside of a step */
} kinds[N_FAULT_KINDS] = {
    [CRASH] = {"crash", strike_worker, false},
    [FREEZE] = {"freeze", strike_worker, false},
    [LOSE_REQUEST] = {"lost request", strike_requests, false},
    [LOSE_ANSWER] = {"lost answer", strike_requests, false},
    [DELAY_ANSWER] = {"delayed answer", strike_requests, false},
    [LATE_REQUEST] = {"late request", strike_requests, false},
    [ANSWER_503] = {"503", strike_requests, false},
    [REFUSE_KEY] = {"refused key", strike_requests, false},
    [REBALANCE] = {"rebalance", strike_kafka, true},
    [CLOCK_JUMP] = {"clock jump", strike_worker, false},
    [REFUSE_COMMIT] = {"refused commit", strike_kafka, false},
    [UNSURE_COMMIT] = {"unsure commit", strike_kafka, false},
    [FOREIGN_METADATA] = {"foreign metadata", strike_kafka, true},
    [DRAIN] = {"drain", strike_worker, true},
    [ADD_WORKER] = {"added worker", strike_worker, false},
};

const char *fault_name(enum fault_kind kind)
{
    return kinds[kind].name;
}

static void strike(struct world *w, const struct fault_plan *f)
{
    world_tell(w, "FAULT %s at w%u", kinds[f->kind].name, f->worker);
    w->last_fault_ns = w->now;
    w->faulty = true;
    w->out->faults[f->kind]++;
    kinds[f->kind].strike(w, f);
}

void world_on_fault(struct world *w, const struct event_at *e)
{
    strike(w, &w->plan->faults[e->n]);
}

/* ---- a step and its effects ---- */

static bool ends_in(const char *url, const char *tail)
{
    size_t n = strlen(url), t = strlen(tail);
    return n >= t && !strcmp(url + n - t, tail);
}

static enum effect_class class_of(const struct effect *e)
{
    static const struct {
        const char *method, *in_url;
        enum effect_class is;
    } calls[] = {{"POST", "/exec", DID_EXEC},
                 {"POST", "/autodelete/", DID_KEEP},
                 {"POST", "/autostop/", DID_KEEP_AGAIN},
                 {"POST", "/stop", DID_STOP},
                 {"DELETE", "/sandbox/", DID_DELETE}};
    if (e->kind == DO_COMMIT)
        return DID_COMMIT;
    if (e->kind == DO_RELEASE)
        return DID_RELEASE;
    if (e->kind != DO_CALL)
        return ANY_EFFECT;
    const struct call *c = &e->call.call;
    if (!strcmp(c->method, "POST") && ends_in(c->url, "/api/sandbox"))
        return DID_CREATE;
    for (size_t n = 0; n < ARRAY_LEN(calls); n++)
        if (!strcmp(c->method, calls[n].method) && strstr(c->url, calls[n].in_url))
            return calls[n].is;
    return ANY_EFFECT;
}

/* Faults that were to happen at this effect of the worker, before or after it. */
static void faults_at(struct world *w, unsigned i, enum effect_class class, bool after)
{
    const struct worker *k = &w->workers[i];
    for (size_t f = 0; f < w->plan->n_faults; f++) {
        const struct fault_plan *p = &w->plan->faults[f];
        bool here = !p->off && p->at_effect && p->worker == i && p->after == after &&
                    (p->of == ANY_EFFECT || p->of == class) && p->at_effect == k->effects[p->of];
        if (here && kinds[p->kind].steps)
            world_push(w, w->now, (struct event_at){.what = FAULT, .worker = i, .n = f});
        else if (here)
            strike(w, p);
    }
}

/* Others can tell whether it was carried out. */
static bool is_deed(const struct effect *e)
{
    return e->kind == DO_COMMIT || e->kind == DO_RELEASE ||
           (e->kind == DO_CALL && strcmp(e->call.call.method, "GET") != 0);
}

bool world_about_to_act(const struct world *w, unsigned i)
{
    const struct worker *k = &w->workers[i];
    return k->busy && k->carried < k->outbox.n && is_deed(&k->outbox.effects[k->carried]);
}

static void carry_out(struct world *w, unsigned i, struct effect *e)
{
    struct worker *k = &w->workers[i];
    w->out->effects++;
    k->acted = is_deed(e);
    switch (e->kind) {
    case DO_CALL:
        world_call(w, i, e);
        break;
    case DO_CANCEL:
        world_cancel(w, i, e->cancel);
        break;
    case DO_TAKE:
        k->open[e->take.partition] = e->take.open;
        break;
    case DO_COMMIT:
        world_commit(w, i, e->commit);
        break;
    case DO_RELEASE:
        world_release(w, i, e->release.partitions, e->release.n);
        break;
    case DO_DRAINED:
        drained(w, i);
        break;
    case DO_PROGRESS:
        break;
    }
}

static void arm_tick(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    uint64_t at = core_next(k->core);
    if (w->plan->step_by_step) /* the host looks for itself */
        return;
    if (at == NEVER || (k->tick_ns && k->tick_ns <= at && k->tick_ns > w->now))
        return;
    k->tick_ns = MAX(at, w->now + 1);
    world_post(w, k->tick_ns, TICK, i, 0);
}

static void step_is_over(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    k->acted = false;
    outbox_clear(&k->outbox);
    k->carried = 0;
    k->busy = false;
    world_fetch_soon(w, i);
    arm_tick(w, i);
}

static bool awake(const struct worker *k)
{
    return k->core && !k->frozen_until;
}

void world_go_on(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    if (k->carried == k->outbox.n) {
        step_is_over(w, i);
        return;
    }
    enum effect_class class = class_of(&k->outbox.effects[k->carried]);
    k->effects[ANY_EFFECT]++;
    k->effects[class] += class != ANY_EFFECT;
    faults_at(w, i, class, false);
    if (!awake(k))
        return;
    carry_out(w, i, &k->outbox.effects[k->carried++]);
    if (k->core)
        faults_at(w, i, class, true);
}

static void carry_all_out(struct world *w, unsigned i)
{
    const struct worker *k = &w->workers[i];
    while (k->busy && awake(k))
        world_go_on(w, i);
}

void world_step(struct world *w, unsigned i, struct input *in)
{
    struct worker *k = &w->workers[i];
    if (!k->core) /* died in the step before */
        return;
    in->wall_ms = world_wall_ms(w, k);
    if (w->plan->step_by_step)
        world_core_steady(k->core);
    core_step(k->core, w->now, in, &k->outbox);
    core_check(k->core);
    world_check_worker(w, i);
    k->busy = true;
    if (!w->plan->step_by_step)
        carry_all_out(w, i);
    else if (!k->outbox.n)
        step_is_over(w, i);
}

void world_on_tick(struct world *w, const struct event_at *e)
{
    struct worker *k = &w->workers[e->worker];
    if (e->at < k->tick_ns && e->at < core_next(k->core))
        return;
    k->tick_ns = 0;
    k->ticked_ns = w->now;
    world_step(w, e->worker, &(struct input){.kind = IN_TICK});
}

/* What it was about to do it does now; then it hears what has become of it meanwhile. */
void world_thaw(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    k->frozen_until = 0;
    world_tell(w, "w%u  thaws", i);
    carry_all_out(w, i);
    if (!awake(k))
        return;
    if (!k->member)
        lose_all(w, i);
    if (awake(k))
        world_step(w, i, &(struct input){.kind = IN_TICK});
    world_rebalance_soon(w, 10);
}

void world_on_thaw(struct world *w, const struct event_at *e)
{
    world_thaw(w, e->worker);
}
