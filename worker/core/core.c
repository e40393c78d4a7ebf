/* core: inputs in, effects out. See core.h for the contract, internal.h for the map of the files.
 *
 * A step carries out one input and then what follows from it, in a fixed order: a record that is
 * under suspicion has its turn, a batch begins if it is time, revoked partitions are released when
 * their last batch has its outcome, partitions are opened or closed, and sessions that ended are
 * buried. Everything that waits is in one heap of times. */
#include "worker/core/internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/xalloc.h"

#define LEFT_NAMED 5 /* sessions that a drain names of those that it leaves */

/* ---- effects ---- */

struct effect *core_effect(struct core *c, enum effect_kind kind)
{
    struct outbox *o = c->out;
    GROW(o->effects, o->n, o->cap);
    struct effect *e = &o->effects[o->n++];
    memset(e, 0, sizeof *e);
    e->kind = kind;
    return e;
}

static void effect_done(struct effect *e)
{
    switch (e->kind) {
    case DO_CALL:
        call_done(&e->call.call);
        break;
    case DO_RELEASE:
        free(e->release.partitions);
        break;
    case DO_PROGRESS:
        message_done(&e->progress);
        break;
    case DO_CANCEL:
    case DO_TAKE:
    case DO_COMMIT:
    case DO_DRAINED:
        break;
    }
}

void outbox_clear(struct outbox *o)
{
    for (size_t i = 0; i < o->n; i++)
        effect_done(&o->effects[i]);
    o->n = 0;
}

void outbox_done(struct outbox *o)
{
    outbox_clear(o);
    free(o->effects);
    *o = (struct outbox){0};
}

void core_send(struct core *c, struct flight *f, struct call *call)
{
    ASSERT(!f->id);
    ASSERT(!call->body || call->content_type);
    f->id = ++c->calls;
    f->what = call->what;
    f->scope = call->scope;
    f->sent_ns = c->now_ns;
    HASH_ADD(hh, c->flights, id, sizeof f->id, f);
    struct effect *e = core_effect(c, DO_CALL);
    e->call.id = f->id;
    e->call.step = f->step;
    e->call.call = *call;
    memset(call, 0, sizeof *call);
}

static void flight_over(struct core *c, struct flight *f)
{
    HASH_DEL(c->flights, f);
    f->id = 0;
}

void core_cancel(struct core *c, struct flight *f)
{
    if (!f->id)
        return;
    if (c->out)
        core_effect(c, DO_CANCEL)->cancel = f->id;
    flight_over(c, f);
}

/* ---- inputs ---- */

static enum metric_status status_class(const struct reply *r)
{
    static const enum metric_status faults[N_FAULTS] = {[FAULT_CONNECT] = MS_CONNECT,
                                                        [FAULT_LOST] = MS_OTHER,
                                                        [FAULT_TIMEOUT] = MS_TIMEOUT,
                                                        [FAULT_TOO_LARGE] = MS_OTHER,
                                                        [FAULT_REFUSED] = MS_OTHER};
    if (r->fault)
        return faults[r->fault];
    if (r->status == 429)
        return MS_429;
    int hundred = r->status / 100;
    return hundred == 2   ? MS_2XX
           : hundred == 3 ? MS_3XX
           : hundred == 4 ? MS_4XX
           : hundred == 5 ? MS_5XX
                          : MS_OTHER;
}

static void on_reply(struct core *c, uint64_t id, const struct reply *r)
{
    struct flight *f;
    HASH_FIND(hh, c->flights, &id, sizeof id, f);
    if (!f)
        return;
    if (!r->more) {
        metric_add2(M_PROVIDER_REQUESTS, f->step, status_class(r), 1);
        metric_observe(M_PROVIDER_SECONDS, f->step, (double)(c->now_ns - f->sent_ns) / 1e9);
        flight_over(c, f);
    }
    switch (f->kind) {
    case FLIGHT_SLOT:
        engine_reply(f->owner, f->slot, r);
        break;
    case FLIGHT_SWEEP:
        sweep_reply(c, f->owner, r);
        break;
    case FLIGHT_KEY:
        account_key_reply(c, f->owner, r);
        break;
    }
}

static void on_time(struct core *c, struct heap_node *node)
{
    switch ((enum node_kind)node->kind) {
    case NODE_SESSION:
        heap_set(&c->heap, node, NEVER);
        engine_tick(CONTAINER_OF(node, struct session, node));
        break;
    case NODE_PART:
        sweep_tick(c, CONTAINER_OF(node, struct part, node));
        break;
    case NODE_TRIAL:
        trial_idle(c, CONTAINER_OF(node, struct part, trial.idle));
        break;
    case NODE_LANE:
        lane_tick(c, CONTAINER_OF(node, struct lane, node));
        break;
    case NODE_ACCOUNT:
        heap_set(&c->heap, node, NEVER);
        account_tick(c, CONTAINER_OF(node, struct account, node));
        break;
    case NODE_BATCH:
        heap_set(&c->heap, node, NEVER); /* batch_step follows every input */
        break;
    }
}

static void on_tick(struct core *c)
{
    struct heap_node *node;
    while ((node = heap_first(&c->heap)) && node->at <= c->now_ns)
        on_time(c, node);
}

static void on_drain(struct core *c)
{
    if (c->draining)
        return;
    c->draining = true;
    c->drain_ns = c->now_ns + (uint64_t)c->config->drain.timeout_seconds * NS_PER_S;
    metric_set(M_DRAINING, 1);
}

static void carry_out(struct core *c, const struct input *in)
{
    switch (in->kind) {
    case IN_JOB:
        part_job(c, in);
        break;
    case IN_REPLY:
        on_reply(c, in->reply.call, in->reply.reply);
        break;
    case IN_ASSIGNED:
        part_assigned(c, in);
        break;
    case IN_REVOKED:
        part_revoked(c, in->gone.partitions, in->gone.n);
        break;
    case IN_LOST:
        part_lost(c, in->gone.partitions, in->gone.n);
        break;
    case IN_COMMITTED:
    case IN_COMMIT_FAILED:
        batch_ended(c, in->commit.batch, in->kind == IN_COMMITTED);
        break;
    case IN_TICK:
        on_tick(c);
        break;
    case IN_DRAIN:
        on_drain(c);
        break;
    }
}

/* Jobs that have begun, and destroys that had no try yet, are worth waiting for. One that is parked
 * has begun nothing. */
static bool drain_waits(const struct core *c)
{
    if (c->now_ns >=
        c->drain_ns) /* the broker may be away: what is not committed runs again elsewhere */
        return false;
    if (c->batch || c->n_ready)
        return true;
    for (const struct lane *l = c->lanes; l; l = l->hh.next) {
        bool busy = l->active && l->active->state == S_RUNNING && !l->active->parked;
        if (busy || (l->destroys && !l->queue))
            return true;
    }
    return false;
}

/* The goodbye is worth a moment more: without it our end counts as a death. */
static bool goodbye_waits(struct core *c)
{
    if (!c->leaving) {
        c->leaving = true;
        c->leave_ns = c->now_ns + GOODBYE_NS;
    }
    return c->now_ns < c->leave_ns && !batch_goodbye(c);
}

/* A drain that ran out of time leaves a trace: who takes over what. */
static void tell_left(const struct core *c)
{
    struct buf names CLEANUP(buf_done);
    size_t n = 0;
    buf_init(&names, 1000);
    for (const struct part *p = c->parts; p; p = p->hh.next) {
        const struct session *s;
        DL_FOREACH2(p->sessions, s, part_next)
        {
            if (s->job && n++ < LEFT_NAMED)
                buf_addf(&names, "%s%s", names.len ? " " : "", s->lane->session_id);
        }
    }
    if (n > LEFT_NAMED)
        buf_adds(&names, " …");
    if (n)
        log_warn(NULL,
                 "the time to drain is over: jobs are left to the next owner of their partitions",
                 L_UINT("jobs", n), L_STR("sessions", buf_text(&names)));
}

static void drain_step(struct core *c)
{
    if (!c->draining || c->drained || (!c->leaving && drain_waits(c)) || goodbye_waits(c))
        return;
    c->drained = true;
    if (c->now_ns >= c->drain_ns)
        tell_left(c);
    parts_free(c); /* nothing is ours from here on, and nothing is asked any more */
    core_effect(c, DO_DRAINED);
}

static void bury(struct core *c)
{
    while (c->graveyard) {
        struct session *s = c->graveyard;
        c->graveyard = s->part_next;
        session_free(s);
    }
}

static void set_gauges(const struct core *c)
{
    size_t parked = 0;
    for (const struct part *p = c->parts; p; p = p->hh.next)
        parked += p->parked;
    metric_set(M_JOBS_PARKED, (double)parked);
    metric_set(M_JOBS_IN_FLIGHT, (double)c->in_flight);
    metric_set(M_RESULTS_UNPUBLISHED, (double)c->n_ready);
    metric_set(M_PARTITIONS, HASH_COUNT(c->parts));
}

void core_step(struct core *c, uint64_t now_ns, const struct input *in, struct outbox *out)
{
    c->now_ns = MAX(now_ns, c->now_ns);
    c->wall_ms = in->wall_ms;
    c->out = out;
    carry_out(c, in);
    trials_next(c);
    batch_step(c);
    if (parts_release(c)) { /* the others have waited for it */
        trials_next(c);
        batch_step(c);
    }
    parts_take(c);
    drain_step(c);
    bury(c);
    set_gauges(c);
    c->out = NULL;
}

uint64_t core_next(const struct core *c)
{
    const struct heap_node *node = heap_first(&c->heap);
    uint64_t at = node ? node->at : NEVER;
    if (!c->draining || c->drained)
        return at;
    return MIN(at, c->leaving ? c->leave_ns : c->drain_ns);
}

/* ---- life ---- */

struct core *core_new(const struct core_options *o)
{
    struct core *c = xcalloc(1, sizeof *c);
    c->config = o->config;
    c->tried = -1;
    rng_init(&c->rng, o->seed);
    heap_node_init(&c->batch_node, NODE_BATCH);
    accounts_init(c, o->providers);
    return c;
}

static void free_lanes(struct core *c)
{
    struct lane *l, *tmp;
    HASH_ITER(hh, c->lanes, l, tmp)
    {
        ASSERT(!l->queue && !l->destroys);
        heap_set(&c->heap, &l->node, NEVER);
        HASH_DEL(c->lanes, l);
        free(l->session_id);
        free(l->box_id);
        free(l);
    }
}

void core_free(struct core *c)
{
    if (!c)
        return;
    c->draining = true; /* lanes begin nothing */
    parts_free(c);
    bury(c);
    free_lanes(c);
    while (c->flying) {
        struct result *r = c->flying;
        DL_DELETE(c->flying, r);
        result_free(r);
    }
    batch_free(c->batch);
    heap_set(&c->heap, &c->batch_node, NEVER);
    for (size_t i = 0; i < c->n_accounts; i++) {
        core_cancel(c, &c->accounts[i].key);
        heap_set(&c->heap, &c->accounts[i].node, NEVER);
    }
    ASSERT(HASH_COUNT(c->flights) == 0 && !c->ready);
    heap_done(&c->heap);
    free(c->accounts);
    free(c);
}
