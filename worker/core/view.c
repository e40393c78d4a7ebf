/* view: looking into the core from outside: the admin port's pages, and the invariants. */
#include "worker/core/internal.h"

static const char *phase_text(const struct session *s)
{
    if (!s->job)
        return "destroying";
    if (s->state == S_FINISHED)
        return "publishing";
    if (s->parked)
        return "parked";
    return s->state == S_QUEUED ? "queued" : step_name(s->step);
}

/* 0: it has not begun. */
static uint64_t ms_since(uint64_t then_ns, uint64_t now_ns)
{
    return then_ns && now_ns > then_ns ? (now_ns - then_ns) / NS_PER_MS : 0;
}

void core_each_session(const struct core *c, uint64_t now_ns,
                       void (*see)(void *, const struct session_view *), void *arg)
{
    for (const struct part *p = c->parts; p; p = p->hh.next) {
        const struct session *s;
        DL_FOREACH2(p->sessions, s, part_next)
        {
            const struct job *j = s->job;
            struct session_view v = {.session_id = s->lane->session_id,
                                     .job_id = j ? j->job_id : NULL,
                                     .tenant = j ? j->tenant : NULL,
                                     .box_id = s->box->id,
                                     .provider = s->account->provider->cfg->name,
                                     .partition = p->id,
                                     .offset = s->offset,
                                     .phase = phase_text(s),
                                     .attempts = 1 + s->again,
                                     .requests = s->requests,
                                     .age_ms = ms_since(s->taken_ns, now_ns),
                                     .step_ms = ms_since(s->step_ns, now_ns),
                                     .waiting_for = s->last.message};
            see(arg, &v);
        }
    }
}

void core_each_partition(const struct core *c, void (*see)(void *, const struct partition_view *),
                         void *arg)
{
    for (const struct part *p = c->parts; p; p = p->hh.next) {
        struct partition_view v = {.partition = p->id,
                                   .watermark = p->done.watermark,
                                   .taken = p->taken,
                                   .finished_above = offsets_done_above(&p->done),
                                   .open = p->open,
                                   .strikes = p->done.strikes,
                                   .one_by_one = p->trial.one_by_one};
        see(arg, &v);
    }
}

/* Until when creations are blocked, of all the scopes they count in. */
static uint64_t creates_blocked_until(const struct account *a)
{
    const struct provider_ops *ops = a->provider->ops;
    uint64_t until = 0;
    for (size_t i = 0; i < ops->n_scopes; i++)
        if (ops->scopes[i].creates)
            until = MAX(until, a->budget.blocked_until[i]);
    return until;
}

void core_each_budget(const struct core *c, uint64_t now_ns,
                      void (*see)(void *, const struct budget_view *), void *arg)
{
    for (size_t i = 0; i < c->n_accounts; i++) {
        const struct account *a = &c->accounts[i];
        uint64_t until = creates_blocked_until(a);
        struct budget_view v = {.provider = a->provider->cfg->name,
                                .limit = a->budget.limit,
                                .share = a->budget.share,
                                .tokens = budget_tokens(&a->budget, now_ns),
                                .blocked_ms = until > now_ns ? (until - now_ns) / NS_PER_MS : 0,
                                .unauthorized = a->unauthorized};
        const struct session *s;
        DL_FOREACH2(a->parked, s, park_next)
        v.parked++;
        see(arg, &v);
    }
}

void core_status(const struct core *c, struct core_status *out)
{
    *out = (struct core_status){.in_flight = c->in_flight,
                                .unpublished = c->n_ready,
                                .partitions = HASH_COUNT(c->parts),
                                .draining = c->draining,
                                .unauthorized = accounts_unauthorized(c),
                                .committing = c->batch != NULL};
    for (const struct part *p = c->parts; p; p = p->hh.next)
        out->parked += p->parked;
    for (const struct lane *l = c->lanes; l; l = l->hh.next) {
        const struct session *s;
        DL_FOREACH(l->destroys, s)
        out->destroys++;
    }
}

/* ---- invariants ---- */

static void check_lane(const struct lane *l)
{
    const struct session *s;
    int64_t before = -1;
    const struct part *part = NULL;
    DL_FOREACH(l->queue, s)
    {
        ASSERT(s->lane == l && s->job);
        ASSERT(s->state == S_QUEUED || s == l->active); /* one lane, one job at a time */
        ASSERT(part != s->part || s->offset > before);  /* record order */
        part = s->part;
        before = s->offset;
    }
    DL_FOREACH(l->destroys, s)
    ASSERT(s->lane == l && !s->job && (s->state == S_QUEUED || s == l->active));
}

/* No wait is unbounded: it has a time of its own, or waits for what has one. */
static bool goes_on(const struct core *c, const struct session *s)
{
    const struct lane *l = s->lane;
    if (s->node.at != NEVER || s->part->closing || c->draining)
        return true;
    switch (s->state) {
    case S_QUEUED:
        return l->active || (!s->job && (l->queue || l->node.at != NEVER));
    case S_RUNNING: /* every call has a time of the host's; a refused key is tried again */
        return !engine_waiting(s) || s->account->node.at != NEVER || s->account->key.id;
    case S_FINISHED:
        break;
    }
    return c->batch || c->batch_node.at != NEVER || s->part->beyond == s->result;
}

static void check_part(const struct core *c, const struct part *p)
{
    const struct session *s;
    size_t taken = 0, parked = 0;
    ASSERT(p->done.watermark <= p->done.high && p->done.high - p->done.watermark <= OFFSETS_WINDOW);
    DL_FOREACH2(p->sessions, s, part_next)
    {
        taken += s->job != NULL;
        parked += s->parked;
        if (s->job) /* an offset counts as done only when its result is committed */
            ASSERT(!offsets_is_done(&p->done, s->offset));
        bool running = s->state == S_RUNNING;
        ASSERT(goes_on(c, s));
        ASSERT(running || (engine_waiting(s) && s->node.at == NEVER));
        if (running && s->clock_ns && !(s->facts & KEPT))
            ASSERT(MIN(s->deadline_ns, s->limit_ns) != NEVER);
    }
    ASSERT(taken == p->taken && parked == p->parked);
    ASSERT(!p->open || p->trial.announced); /* no record is read before our strike is committed */
    ASSERT(p->trial.suspect < 0 || p->trial.guilty || p->trial.one_by_one);
}

/* Of all our partitions one record is under suspicion, and alone of its own. */
static void check_trials(const struct core *c)
{
    size_t on_trial = 0;
    for (const struct part *p = c->parts; p; p = p->hh.next) {
        on_trial += p->trial.one_by_one && p->trial.suspect >= 0 && !p->closing;
        ASSERT(!p->trial.one_by_one || p->taken <= 1);
    }
    ASSERT(on_trial <= 1);
}

void core_check(const struct core *c)
{
    size_t in_flight = 0;
    check_trials(c);
    ASSERT(!c->graveyard);
    for (const struct lane *l = c->lanes; l; l = l->hh.next)
        check_lane(l);
    for (const struct part *p = c->parts; p; p = p->hh.next) {
        const struct session *s;
        check_part(c, p);
        DL_FOREACH2(p->sessions, s, part_next)
        in_flight += s->job && s->state != S_FINISHED;
    }
    ASSERT(in_flight == c->in_flight);
    ASSERT(c->batch || !c->flying);
}
