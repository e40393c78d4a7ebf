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

void core_each_session(const struct core *c, uint64_t now_ns,
                       void (*see)(void *, const struct session_view *), void *arg)
{
    for (const struct part *p = c->parts; p; p = p->hh.next) {
        const struct session *s;
        DL_FOREACH2(p->sessions, s, part_next)
        {
            const struct job *j = s->job;
            struct session_view v = {
                .session_id = s->lane->session_id,
                .job_id = j ? j->job_id : NULL,
                .tenant = j ? j->tenant : NULL,
                .box_id = s->box->id,
                .provider = s->account->provider->cfg->name,
                .partition = p->id,
                .offset = s->offset,
                .phase = phase_text(s),
                .attempts = 1 + s->again,
                .requests = s->requests,
                .age_ms = now_ns > s->taken_ns ? (now_ns - s->taken_ns) / NS_PER_MS : 0,
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
                                   .open = p->open};
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

static void check_part(const struct part *p)
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
        ASSERT(running || (engine_waiting(s) && s->node.at == NEVER));
        if (running && s->clock_ns && !(s->facts & KEPT)) /* no wait is unbounded */
            ASSERT(MIN(s->deadline_ns, s->limit_ns) != NEVER);
    }
    ASSERT(taken == p->taken && parked == p->parked);
}

void core_check(const struct core *c)
{
    size_t in_flight = 0;
    ASSERT(!c->graveyard);
    for (const struct lane *l = c->lanes; l; l = l->hh.next)
        check_lane(l);
    for (const struct part *p = c->parts; p; p = p->hh.next) {
        const struct session *s;
        check_part(p);
        DL_FOREACH2(p->sessions, s, part_next)
        in_flight += s->job && s->state != S_FINISHED;
    }
    ASSERT(in_flight == c->in_flight);
    ASSERT(c->batch || !c->flying);
}
