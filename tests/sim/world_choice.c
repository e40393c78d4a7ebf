/* world_choice: a world that is lived step by step: what may happen next, and where we are.
 *
 * Nothing takes time but what has to: boots, servers, patience, back-off, sessions of the group.
 * All that is under way (a request, an answer, a record, a step of a transaction) may come next, in
 * any order, and time goes on only when nothing is under way any more. So the schedules are all
 * orders of what can be under way at the same time. A message that is late beyond that is what the
 * faults are for: a frozen worker's requests leave when it thaws, and it may thaw at any moment.
 *
 * Left out, because it makes no difference:
 * - A worker crashes after a deed (an effect that others can notice: no GET) and between the steps
 * of its transaction, and freezes there or just before a deed. Elsewhere nobody but itself would
 *   notice, and the next deed comes with its own chance.
 * - A step's effects are carried out in a row: what others do meanwhile they could do after it.
 * - A worker thaws, and a job is appended, just after time went on: what comes of it is under way
 * from then on, and may come at any moment until time goes on again.
 * - Requests of the dead arrive: one that did not is a crash before it was sent.
 * - When the model moves by itself it does so at once: any request would make it move first.
 * - Events that nobody would notice are no choices: they go out of the queue.
 *
 * Left out, and that is a loss: rounds of the group that come of themselves (a member is back, or
 * out) take ROUND_MS and so happen while the rest waits for a time; in the middle of something they
 * happen by the fault "rebalance" alone. */
#include <stdlib.h>

#include "common/xalloc.h"
#include "tests/sim/digest.h"
#include "tests/sim/world_core.h"
#include "tests/sim/world_impl.h"

#define AT_REST_NS (1200 * NS_PER_S) /* whatever Daytona does by itself is over by then */

/* ---- the queue, in no order ---- */

static bool is_pointless(struct world *w, const struct event_at *e)
{
    const struct worker *k = &w->workers[e->worker];
    if (world_event_is_over(w, e))
        return true;
    switch (e->what) {
    case START_WORKER:
        return k->core != NULL;
    case SESSION_OUT:
        return k->epoch != e->n || !k->member || (k->core && !k->frozen_until);
    case FETCH:
        return !k->fetching[e->n];
    case LOOKUP:
        return w->parts[e->n].owner != (int)e->worker || k->revoking[e->n];
    case TXN_OFFSETS:
    case TXN_END:
    case TXN_ABORT:
        return !world_txn_of(w, e);
    case TXN_SAID:
        return k->txn.state != TXN_DONE && k->txn.state != TXN_REFUSED;
    default:
        return false;
    }
}

static struct event_at take_out(struct world *w, size_t i)
{
    struct event_at e = w->queue[i];
    w->queue[i] = w->queue[--w->n_queue];
    return e;
}

static bool names_request(const struct event_at *e)
{
    return e->what == ARRIVE || e->what == DELIVER || e->what == CALL_TIMEOUT;
}

static bool is_of_transaction(const struct event_at *e)
{
    return e->what >= TXN_OFFSETS && e->what <= TXN_ABORT;
}

static void purge(struct world *w)
{
    for (size_t i = 0; i < w->n_queue;) {
        if (!is_pointless(w, &w->queue[i])) {
            i++;
            continue;
        }
        struct event_at e = take_out(w, i);
        if (names_request(&e))
            world_request_unnamed(w, e.n);
    }
}

static size_t place_of(const struct world *w, uint64_t seq)
{
    size_t i = 0;
    while (i < w->n_queue && w->queue[i].seq != seq)
        i++;
    ASSERT(i < w->n_queue);
    return i;
}

static bool is_awake(const struct worker *k)
{
    return k->core && !k->frozen_until;
}

/* When its core wants a tick: not twice at the same time. */
static uint64_t tick_at(const struct worker *k)
{
    uint64_t at = is_awake(k) ? core_next(k->core) : NEVER;
    return at == NEVER ? NEVER : MAX(at, k->ticked_ns + 1);
}

static uint64_t next_time(const struct world *w)
{
    uint64_t at = model_next(w->model);
    for (size_t i = 0; i < w->n_queue; i++)
        if (!world_event_is_blocked(w, &w->queue[i]))
            at = MIN(at, w->queue[i].at);
    for (unsigned i = 0; i < w->plan->workers; i++)
        at = MIN(at, tick_at(&w->workers[i]));
    return at;
}

/* ---- what may happen ---- */

/* The core knows by their numbers which answer is which, so their order is part of the state. */
static uint64_t sent_before(const struct world *w, const struct request *r)
{
    uint64_t n = 0;
    for (size_t i = 0; i < w->n_requests; i++) {
        const struct request *o = w->requests[i];
        n += o && !o->done && o->worker == r->worker && o->epoch == r->epoch && o->call < r->call;
    }
    return n;
}

static void add_request(struct digest *d, const struct world *w, const struct request *r)
{
    bool wanted = !r->done && r->epoch == w->workers[r->worker].epoch;
    digest_add(d, wanted);
    digest_add(d, wanted ? sent_before(w, r) : 0);
    digest_text(d, r->c.url);
    digest_text(d, r->c.method);
    digest_bytes(d, r->c.body, r->c.body ? r->c.body_len : 0);
    digest_add(d, (uint64_t)r->answered | (uint64_t)r->held << 1);
    if (r->answered) {
        digest_add(d, r->answer);
        digest_since(d, r->answered_ns, w->now);
    }
}

static uint64_t event_digest(const struct world *w, const struct event_at *e)
{
    struct digest d = {0};
    const struct worker *k = &w->workers[e->worker];
    digest_add(&d, e->what);
    digest_add(&d, (uint64_t)e->worker << 1 | (e->epoch == k->epoch));
    digest_until(&d, e->at, w->now);
    if (names_request(e))
        add_request(&d, w, w->requests[e->n]);
    else if (e->what == FETCH || e->what == LOOKUP)
        digest_add(&d, e->n);
    return d.sum;
}

struct list {
    struct choice *of;
    size_t n;
};

static void may(struct list *l, enum choice_kind kind, unsigned worker, uint64_t seq)
{
    ASSERT(l->n < CHOICES_MAX);
    l->of[l->n++] = (struct choice){kind, worker, seq};
}

static bool in_a_step(struct world *w, bool faults, struct list *l)
{
    for (unsigned i = 0; i < w->plan->workers; i++) {
        const struct worker *k = &w->workers[i];
        if (!k->busy || !is_awake(k))
            continue;
        may(l, GO_ON, i, 0);
        if (faults && k->acted)
            may(l, CRASHES, i, 0);
        if (faults && (k->acted || world_about_to_act(w, i)))
            may(l, FREEZES, i, 0);
        return true;
    }
    return false;
}

/* In an order that depends on what they are, so that two equal states try the same first. */
static void add_due(const struct world *w, struct list *l)
{
    uint64_t digests[CHOICES_MAX];
    for (size_t i = 0; i < w->n_queue; i++) {
        const struct event_at *e = &w->queue[i];
        if (e->at > w->now || world_event_is_blocked(w, e))
            continue;
        may(l, HAPPENS, e->worker, e->seq);
        size_t k = l->n - 1;
        for (digests[k] = event_digest(w, e); k > 0 && digests[k] < digests[k - 1]; k--) {
            struct choice c = l->of[k];
            l->of[k] = l->of[k - 1];
            l->of[k - 1] = c;
            uint64_t t = digests[k];
            digests[k] = digests[k - 1];
            digests[k - 1] = t;
        }
    }
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (tick_at(&w->workers[i]) <= w->now)
            may(l, TICKS, i, 0);
}

static void add_produce(const struct world *w, struct list *l)
{
    if (w->produced < w->plan->n_jobs)
        may(l, PRODUCES, 0, 0);
}

static void add_thaws(const struct world *w, struct list *l)
{
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (w->workers[i].core && w->workers[i].frozen_until)
            may(l, THAWS, i, 0);
}

static void add_faults(const struct world *w, struct list *l)
{
    if (w->between_txns && is_awake(&w->workers[w->between_txns - 1])) {
        may(l, CRASHES, (unsigned)w->between_txns - 1, 0);
        may(l, FREEZES, (unsigned)w->between_txns - 1, 0);
    }
    for (size_t i = 0; i < w->n_queue; i++) {
        const struct event_at *e = &w->queue[i];
        bool answer = e->what == DELIVER && e->at <= w->now && !world_event_is_blocked(w, e);
        if (answer)
            may(l, ANSWER_LOST, e->worker, e->seq);
    }
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        int owner = w->parts[p].owner;
        if (owner < 0 || !is_awake(&w->workers[owner]) || w->workers[owner].revoking[p])
            continue;
        may(l, REBALANCES, 0, 0);
        break;
    }
}

static void add_orphans(const struct world *w, struct list *l)
{
    for (size_t i = 0; i < w->n_queue; i++)
        if (w->queue[i].what == TXN_END && !w->queue[i].epoch)
            may(l, GIVEN_UP, w->queue[i].worker, w->queue[i].seq);
}

static bool cores_are_idle(const struct world *w)
{
    for (unsigned i = 0; i < w->plan->workers; i++) {
        const struct worker *k = &w->workers[i];
        struct core_status s;
        if (!is_awake(k))
            continue;
        core_status(k->core, &s);
        if (s.in_flight || s.unpublished || s.destroys || s.committing)
            return false;
    }
    return true;
}

/* Nothing will come of itself any more. A request of which nobody waits for the answer may still do
 * something. */
static bool is_at_rest(const struct world *w)
{
    if (!world_all_done(w) || !cores_are_idle(w))
        return false;
    for (size_t i = 0; i < w->n_queue; i++)
        if (w->queue[i].what == ARRIVE || w->queue[i].what == PRODUCE)
            return false;
    return world_all_clean(w);
}

static bool all_sleep(const struct world *w)
{
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (is_awake(&w->workers[i]))
            return false;
    return true;
}

size_t world_choices(struct world *w, bool faults, struct choice out[CHOICES_MAX])
{
    struct list l = {out, 0};
    purge(w);
    if (in_a_step(w, faults, &l))
        return l.n;
    if (is_at_rest(w)) {
        add_produce(w, &l);
        add_thaws(w, &l);
        if (!l.n)
            world_check_end(w);
        return l.n;
    }
    if (model_next(w->model) <= w->now) {
        may(&l, DAYTONA_IS, 0, 0);
        return l.n;
    }
    add_due(w, &l);
    bool nobody = !l.n && all_sleep(w); /* not even the first choice waits for ever */
    if (nobody)
        add_thaws(w, &l);
    if (!l.n && next_time(w) != NEVER)
        may(&l, TIME_GOES, 0, 0);
    if (w->fresh)
        add_produce(w, &l);
    if (w->fresh && !nobody)
        add_thaws(w, &l);
    add_orphans(w, &l);
    if (faults)
        add_faults(w, &l);
    if (!l.n)
        world_broken(w, "nothing will ever happen again, and the jobs are not done");
    return l.n;
}

/* ---- it happens ---- */

static void time_goes(struct world *w)
{
    w->now = MAX(w->now, next_time(w));
    w->fresh = true;
    if (w->now > w->last_fault_ns + AT_REST_NS)
        world_broken(w, "no end in sight");
}

static void lose_answer(struct world *w, uint64_t seq)
{
    size_t i = place_of(w, seq);
    struct event_at e = take_out(w, i);
    w->requests[e.n]->lose_answer = true;
    world_tell(w, "w%u  an answer is lost", e.worker);
    world_happen(w, &e);
}

static void give_up(struct world *w, uint64_t seq)
{
    struct event_at e = take_out(w, place_of(w, seq));
    e.what = TXN_ABORT;
    world_push(w, w->now + TXN_TIMEOUT_NS, e);
}

static void fault_happens(struct world *w, const struct choice *c)
{
    static const enum fault_kind kinds[] = {[CRASHES - FAULTS] = CRASH,
                                            [FREEZES - FAULTS] = FREEZE,
                                            [ANSWER_LOST - FAULTS] = LOSE_ANSWER,
                                            [REBALANCES - FAULTS] = REBALANCE};
    w->faulty = true;
    w->last_fault_ns = w->now;
    w->out->faults[kinds[c->kind - FAULTS]]++;
    if (c->kind == CRASHES)
        world_crash(w, c->worker);
    else if (c->kind == FREEZES)
        world_freeze(w, c->worker, NEVER);
    else if (c->kind == ANSWER_LOST)
        lose_answer(w, c->seq);
    else
        world_rebalance(w);
}

bool world_take(struct world *w, const struct choice *c)
{
    struct event_at e = {.at = w->now, .worker = c->worker};
    w->out->events++;
    w->fresh &= c->kind == DAYTONA_IS || c->kind == PRODUCES || c->kind == THAWS;
    w->between_txns = 0;
    if (c->kind >= FAULTS)
        fault_happens(w, c);
    else if (c->kind == GO_ON)
        world_go_on(w, c->worker);
    else if (c->kind == TIME_GOES)
        time_goes(w);
    else if (c->kind == THAWS)
        world_thaw(w, c->worker);
    else if (c->kind == GIVEN_UP)
        give_up(w, c->seq);
    else if (c->kind == HAPPENS)
        e = take_out(w, place_of(w, c->seq));
    if (c->kind == HAPPENS && (e.what == TXN_OFFSETS || e.what == TXN_END) && e.epoch)
        w->between_txns = (int)c->worker + 1;
    if (c->kind == TICKS)
        e.what = TICK;
    if (c->kind == DAYTONA_IS)
        e.what = DAYTONA;
    if (c->kind == PRODUCES) {
        e.what = PRODUCE;
        e.n = w->produced++;
    }
    if (c->kind == HAPPENS || c->kind == TICKS || c->kind == DAYTONA_IS || c->kind == PRODUCES)
        world_happen(w, &e);
    return !w->out->broken;
}

bool world_mid_step(const struct world *w)
{
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (w->workers[i].busy && is_awake(&w->workers[i]))
            return true;
    return false;
}

/* ---- where it is ---- */

static void add_effects(struct digest *d, const struct worker *k)
{
    for (size_t i = k->carried; i < k->outbox.n; i++) {
        const struct effect *e = &k->outbox.effects[i];
        digest_add(d, e->kind);
        if (e->kind == DO_CALL) {
            digest_text(d, e->call.call.url);
            digest_text(d, e->call.call.method);
            digest_bytes(d, e->call.call.body, e->call.call.body ? e->call.call.body_len : 0);
        } else if (e->kind == DO_COMMIT) {
            digest_add(d, world_batch_digest(e->commit));
        } else if (e->kind == DO_TAKE) {
            digest_add(d, (uint64_t)e->take.partition << 1 | e->take.open);
        }
    }
}

static void add_txn(struct digest *d, const struct world *w, const struct worker *k)
{
    const struct txn *t = &k->txn;
    digest_add(d, t->state);
    if (t->state == TXN_NONE)
        return;
    digest_add(d,
               (uint64_t)(t->generation == k->generation) << 1 | (t->generation == w->generation));
    digest_add(d, t->meaning);
}

/* It is frozen, and the group has given it up: when it thaws it does what it was about to do, and
 * forgets its partitions. What it knows of them makes no difference any more. */
static bool is_lost(const struct worker *k)
{
    return k->core && k->frozen_until && !k->member;
}

static void add_worker(struct digest *d, const struct world *w, const struct worker *k)
{
    bool half_done = k->busy && (k->carried < k->outbox.n || !k->frozen_until);
    digest_add(d, (uint64_t)(k->core != NULL) | (uint64_t)(k->frozen_until != 0) << 1 |
                      (uint64_t)k->member << 2 | (uint64_t)half_done << 3 |
                      (uint64_t)(k->generation == w->generation) << 4);
    add_txn(d, w, k);
    if (!k->core)
        return;
    add_effects(d, k);
    if (is_lost(k)) {
        world_core_digest_lost(k->core, w->now, d);
        return;
    }
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        digest_add(d, (uint64_t)k->open[p] | (uint64_t)k->fetching[p] << 1 |
                          (uint64_t)k->revoking[p] << 2);
        digest_add(d, k->open[p] ? (uint64_t)k->position[p] : NEVER);
    }
    digest_add(d, k->ticked_ns == w->now);
    world_core_digest(k->core, w->now, WALL_MS + w->now / NS_PER_MS, d);
}

static void add_part(struct digest *d, const struct part_log *l)
{
    digest_add(d, l->n);
    digest_add(d, (uint64_t)(int64_t)l->owner);
    digest_add(d, (uint64_t)l->committed);
    digest_text(d, l->metadata);
}

uint64_t world_digest(const struct world *w)
{
    struct digest d = {0};
    uint64_t events = 0;
    digest_add(&d, w->produced);
    for (unsigned i = 0; i < w->plan->workers; i++)
        add_worker(&d, w, &w->workers[i]);
    for (unsigned p = 0; p < w->plan->partitions; p++)
        add_part(&d, &w->parts[p]);
    for (size_t i = 0; i < w->n_queue; i++) { /* their order says only which is tried first */
        const struct event_at *e = &w->queue[i];
        bool forgotten = is_lost(&w->workers[e->worker]) && world_event_is_blocked(w, e);
        if (!forgotten || is_of_transaction(e))
            events += event_digest(w, e);
    }
    digest_add(&d, events);
    digest_add(&d, w->generation % 2 << 3 | (uint64_t)w->joining << 2 |
                       (uint64_t)w->late_keep << 1 | w->fresh);
    digest_add(&d, (uint64_t)w->between_txns);
    digest_add(&d, world_seen_digest(w));
    model_digest(w->model, w->now, &d);
    return d.sum;
}
