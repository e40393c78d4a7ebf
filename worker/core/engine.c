/* engine: one session's next request.
 *
 * A job is a list of facts to make true. The first row of its table whose facts do not all hold
 * names the phase; the phase's questions come from the provider, slot by slot; an answer changes
 * facts, and round it goes. enter() is the only place that writes the phase: it cancels what the
 * phase before had under way, logs, and arms the limit. Nothing here knows what a phase asks, or of
 * what provider. */
#include "worker/core/internal.h"

#include <string.h>

const struct goal goals_start[] = {
    // clang-format off
    { LOOKED,        FIND,   LIMIT_CALL,   STEP_FIND   }, /* a fresh job skips this row */
    { EXISTS | OURS, CREATE, LIMIT_CREATE, STEP_CREATE },
    { RUNS,          START,  LIMIT_START,  STEP_START  },
    { SERVER,        LAUNCH, LIMIT_SERVER, STEP_LAUNCH },
    { ANSWERS,       PROBE,  LIMIT_SERVER, STEP_PROBE  },
    { KEPT,          KEEP,   LIMIT_CALL,   STEP_KEEP   },
    { ACCEPTS,       PROBE,  LIMIT_CALL,   STEP_PROBE  }, /* the last look: with the key */
    { 0 } };
const struct goal goals_attach[] = { /* never creates, never KEEPs */
    { LOOKED,        FIND,   LIMIT_CALL,   STEP_FIND   },
    { RUNS,          START,  LIMIT_START,  STEP_START  },
    { SERVER,        LAUNCH, LIMIT_SERVER, STEP_LAUNCH },
    { ANSWERS,       PROBE,  LIMIT_SERVER, STEP_PROBE  },
    { ACCEPTS,       PROBE,  LIMIT_CALL,   STEP_PROBE  },
    { 0 } };
const struct goal goals_stop[] = {
    { LOOKED,        FIND,   LIMIT_CALL,   STEP_FIND   },
    { RESTS,         STOP,   LIMIT_CREATE, STEP_STOP   },
    { 0 } };
const struct goal goals_delete[] = {
    { LOOKED,        FIND,   LIMIT_CALL,   STEP_FIND   },
    { GONE,          DELETE, LIMIT_CREATE, STEP_DELETE },
    { 0 } };
const struct goal goals_destroy[] = {
    { LOOKED,        FIND,   LIMIT_CALL,   STEP_STOP   },
    { RESTS,         STOP,   LIMIT_CALL,   STEP_STOP   },
    { 0 } };
const struct goal goals_last_look[] = { /* before a failure is told */
    { LOOKED,        FIND,   LIMIT_LAST,   STEP_FIND   },
    { 0 } };
const struct goal goals_last_keep[] = { /* on_failure = keep, stop */
    { LOOKED,        FIND,   LIMIT_LAST,   STEP_FIND   },
    { KEPT,          KEEP,   LIMIT_LAST,   STEP_KEEP   },
    { 0 } };
/* In the way of a start: its own broken box, or what an earlier job of the session left behind. */
static const struct goal clear_the_way =
    { GONE,          STOP,   LIMIT_CREATE, STEP_STOP   };
// clang-format on

bool engine_waiting(const struct session *s)
{
    return s->slots[0].state != SLOT_OUT && s->slots[1].state != SLOT_OUT;
}

static void slot_clear(struct session *s, struct slot *slot)
{
    core_cancel(s->core, &slot->flight);
    call_done(&slot->held);
    slot->state = SLOT_IDLE;
    slot->wake_ns = NEVER;
}

void engine_stop(struct session *s)
{
    account_unpark(s);
    for (size_t i = 0; i < SLOTS; i++)
        slot_clear(s, &s->slots[i]);
    heap_set(&s->core->heap, &s->node, NEVER);
}

void engine_arm(struct session *s)
{
    uint64_t at = MIN(s->deadline_ns, s->limit_ns);
    if (s->untold)
        at = MIN(at, s->progress_ns);
    for (size_t i = 0; i < SLOTS; i++)
        if (s->slots[i].state == SLOT_ASLEEP || s->slots[i].state == SLOT_HELD)
            at = MIN(at, s->slots[i].wake_ns);
    heap_set(&s->core->heap, &s->node, at);
}

/* ---- phases ---- */

static const struct goal *next_goal(const struct session *s)
{
    bool in_the_way =
        session_is_start(s) && !session_failing(s) && (s->facts & EXISTS) && !(s->facts & OURS);
    if (in_the_way)
        return &clear_the_way;
    bool nothing_there = session_failing(s) && (s->facts & (LOOKED | EXISTS)) == LOOKED;
    if (nothing_there)
        return NULL;
    for (const struct goal *g = s->goals; g->facts; g++)
        if ((s->facts & g->facts) != g->facts)
            return g;
    return NULL;
}

static uint64_t limit_ns(const struct session *s, enum limit limit)
{
    const struct job *j = s->job;
    switch (limit) {
    case LIMIT_CREATE:
        return (j && session_is_start(s) ? j->create_seconds : 120) * NS_PER_S;
    case LIMIT_START:
        return j->start_seconds * NS_PER_S;
    case LIMIT_SERVER:
        return j->launch_seconds * NS_PER_S;
    case LIMIT_LAST:
        return LAST_LIMIT_NS;
    case LIMIT_CALL:
    case LIMIT_NONE:
        break;
    }
    return CALL_LIMIT_NS;
}

void engine_limit(struct session *s)
{
    s->limit_ns = s->clock_ns ? s->core->now_ns + limit_ns(s, s->limit) : NEVER;
}

/* A box that this job makes counts as being created until it has run once. */
static struct goal row_for(const struct session *s, const struct goal *g)
{
    struct goal row = *g;
    if (g->phase == START && s->box->mine && !s->box->was_there && !s->box->started_here) {
        row.step = STEP_CREATE;
        row.limit = LIMIT_CREATE;
    }
    return row;
}

static void enter(struct session *s, const struct goal *g)
{
    struct goal row = row_for(s, g);
    uint64_t now = s->core->now_ns;
    engine_stop(s);
    s->timings_ns[s->step] += now - s->step_ns;
    if (row.step != s->step)
        metric_observe(M_STEP_SECONDS, s->step, (double)(now - s->phase_ns) / 1e9);
    if (row.phase == CREATE && s->step == STEP_FIND && !s->again)
        session_unclock(s); /* it may have to wait for a token: its time begins with that */
    bool other_limit = row.limit != s->limit || row.limit == LIMIT_CALL;
    bool moved = row.step != s->step;
    s->phase = row.phase;
    s->step = row.step;
    s->limit = row.limit;
    if (other_limit)
        engine_limit(s);
    s->phase_ns = s->step_ns = now;
    s->retries = s->same_facts = 0;
    why_done(&s->last);
    if (moved) {
        log_debug(&s->log, "step", L_STR("step", step_name(s->step)), L_STR("sandbox", s->box->id));
        report_progress(s);
    }
}

/* ---- asking ---- */

static void deal_init(const struct session *s, unsigned slot, struct deal *d)
{
    *d = (struct deal){.provider = s->account->provider,
                       .job = s->job,
                       .box = s->box,
                       .phase = s->phase,
                       .slot = slot,
                       .facts = s->facts,
                       .now_ns = s->core->now_ns,
                       .wall_ms = s->core->wall_ms,
                       .phase_since_ns = s->phase_ns,
                       .late = s->limit == LIMIT_LAST};
}

static void send(struct session *s, struct slot *slot)
{
    slot->state = SLOT_OUT;
    slot->flight.owner = s;
    slot->flight.slot = (unsigned)(slot - s->slots);
    slot->flight.kind = FLIGHT_SLOT;
    slot->flight.step = s->step;
    s->requests++;
    if (slot->held.scope < SCOPES_MAX &&
        s->account->provider->ops->scopes[slot->held.scope].creates) {
        if (s->offset > s->part->started) {
            s->part->started = s->offset;
            s->part->hint_ns = MIN(s->part->hint_ns, s->core->now_ns + HINT_EVERY_NS);
        }
    }
    core_send(s->core, &slot->flight, &slot->held);
}

/* False: the session has failed. */
static bool send_when_allowed(struct session *s, struct slot *slot)
{
    if (!s->clock_ns && !session_in_time(s))
        return false;
    if (!account_may_send(s, slot))
        return true;
    if (!s->clock_ns)
        session_clock(s);
    send(s, slot);
    return true;
}

/* False: the session has failed. */
static bool ask(struct session *s, unsigned i)
{
    struct slot *slot = &s->slots[i];
    struct answer answer = {0};
    struct deal deal;
    deal_init(s, i, &deal);
    switch (deal.provider->ops->ask(&deal, &slot->held, &answer)) {
    case ASKED_NOTHING:
        return true;
    case ASKED_REFUSED:
        session_fail_answer(s, &answer);
        answer_done(&answer);
        return false;
    case ASKED_CALL:
        break;
    }
    slot->state = SLOT_HELD;
    return send_when_allowed(s, slot);
}

static bool ask_idle_slots(struct session *s)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (s->slots[i].state == SLOT_IDLE && !ask(s, i))
            return false;
    bool pending = s->slots[0].state != SLOT_IDLE || s->slots[1].state != SLOT_IDLE;
    if (!pending)
        session_fail(s, ERR_INTERNAL, "the provider has nothing to ask in this step");
    return pending;
}

static bool must_cancel(const struct session *s)
{
    return s->cancelled && !session_failing(s) && engine_waiting(s);
}

/* True when there is nothing to do before the next input. */
static bool turn(struct session *s)
{
    if (must_cancel(s)) {
        session_fail(s, ERR_CANCELLED, "a later job of the session stops or deletes it");
        return false;
    }
    const struct goal *g = next_goal(s);
    if (!g) {
        session_goals_met(s);
        return false;
    }
    if (g->phase != s->phase || row_for(s, g).step != s->step)
        enter(s, g);
    return ask_idle_slots(s);
}

void engine_run(struct session *s)
{
    while (s->state == S_RUNNING && !turn(s))
        ;
    if (s->state == S_RUNNING)
        engine_arm(s);
}

/* ---- judging ---- */

static void put_to_sleep(struct session *s, struct slot *slot, uint64_t ns)
{
    core_cancel(s->core, &slot->flight); /* a stream that goes on is not heard to its end */
    slot->state = SLOT_ASLEEP;
    slot->wake_ns = s->core->now_ns + ns;
}

void engine_look_later(struct session *s, uint64_t ns)
{
    s->facts = 0;
    s->goals = goals_start;
    enter(s, s->goals);
    put_to_sleep(s, &s->slots[0], jitter_ns(&s->core->rng, ns));
}

static void judge_ok(struct session *s, bool news)
{
    if (news)
        s->retries = s->same_facts = 0;
    size_t allowed = SAME_FACTS_MAX + (s->job ? s->job->server.n_expose : 0);
    if (!news && ++s->same_facts > allowed)
        session_fail(s, ERR_PROVIDER_PROTOCOL,
                     "the provider keeps saying yes, and nothing comes of it");
}

static void judge_again(struct session *s, struct slot *slot, struct answer *a)
{
    if (a->code)
        why_set(&s->last, a, s->step);
    if (!s->job && s->phase == STOP) {
        destroy_put_off(s, a->after_ms * NS_PER_MS);
        return;
    }
    put_to_sleep(s, slot, jitter_ns(&s->core->rng, a->after_ms * NS_PER_MS));
}

static void judge_retry(struct session *s, struct slot *slot, struct answer *a)
{
    uint64_t wait = MAX(backoff_ns(&s->core->rng, s->retries), a->after_ms * NS_PER_MS);
    metric_add1(M_JOB_RETRIES, s->step, 1);
    if (!s->job) {
        destroy_put_off(s, wait);
        return;
    }
    s->again++;
    /* A look before a failure, and a DELETE that may still act, are worth every try their limit
     * leaves. */
    bool to_its_limit = session_failing(s) || s->phase == DELETE;
    if (++s->retries >= (unsigned)s->core->config->jobs.attempts && !to_its_limit) {
        session_fail_answer(s, a);
        return;
    }
    why_set(&s->last, a, s->step);
    put_to_sleep(s, slot, wait);
}

static void judge(struct session *s, struct slot *slot, struct answer *a)
{
    uint32_t before = s->facts;
    s->facts = (s->facts | a->set) & ~a->clear;
    if (s->facts & RUNS)
        s->box->started_here = true;
    bool news = s->facts & ~before;
    if (news)
        why_done(&s->last);
    switch (a->verdict) {
    case OK:
        judge_ok(s, news);
        break;
    case AGAIN:
        judge_again(s, slot, a);
        break;
    case RETRY:
        judge_retry(s, slot, a);
        break;
    case LOST:
        session_lost(s, a);
        return;
    case REFUSE:
        session_fail_answer(s, a);
        return;
    }
    if (s->state == S_RUNNING && s->facts != before)
        session_settle(s);
}

void engine_reply(struct session *s, unsigned i, const struct reply *r)
{
    struct slot *slot = &s->slots[i];
    unsigned what = slot->flight.what;
    uint8_t scope = slot->flight.scope;
    struct answer answer = {0};
    struct deal deal;
    deal_init(s, i, &deal);
    if (!r->more)
        slot->state = SLOT_IDLE;
    deal.provider->ops->answer(&deal, what, r, &answer);
    account_noted(s->core, s->account, scope, &answer);
    bool goes_on = r->more && answer.verdict == OK && !(answer.set & ~s->facts);
    if (!goes_on)
        judge(s, slot, &answer);
    answer_done(&answer);
    engine_run(s);
}

static void wake_slots(struct session *s)
{
    uint64_t now = s->core->now_ns;
    for (size_t i = 0; i < SLOTS && s->state == S_RUNNING; i++) {
        struct slot *slot = &s->slots[i];
        if (slot->wake_ns > now)
            continue;
        if (slot->state == SLOT_ASLEEP)
            slot->state = SLOT_IDLE;
        else if (slot->state == SLOT_HELD)
            (void)send_when_allowed(s, slot);
    }
}

void engine_tick(struct session *s)
{
    if (s->core->now_ns >= MIN(s->deadline_ns, s->limit_ns))
        session_deadline(s);
    else
        wake_slots(s);
    if (s->untold && s->core->now_ns >= s->progress_ns)
        report_progress(s);
    engine_run(s);
}

void engine_unpark(struct session *s)
{
    for (size_t i = 0; i < SLOTS && s->state == S_RUNNING; i++)
        if (s->slots[i].state == SLOT_HELD)
            (void)send_when_allowed(s, &s->slots[i]);
    engine_run(s);
}
