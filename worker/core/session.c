/* session: the life of one job, or of one destroy (a session without a job).
 *
 *   queued in its lane -> begin -> goals met -> finished -> committed
 *                                  \-> fail: perhaps a last look or KEEP -> finished
 *
 * Two endings, finish and fail, and each goes through the commit before anything is destroyed. A
 * box becomes OURS here and nowhere else: judge_found() is the whole of adoption. */
#include "worker/core/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

bool session_is_start(const struct session *s)
{
    return s->job && s->job->type == JOB_START;
}

bool session_failing(const struct session *s)
{
    return s->why.code != ERR_NONE;
}

void why_done(struct why *w)
{
    free(w->message);
    free(w->provider_message);
    *w = (struct why){0};
}

void why_set(struct why *w, struct answer *a, enum step step)
{
    why_done(w);
    *w = (struct why){.code = a->code,
                      .step = step,
                      .http_status = a->http_status,
                      .message = a->message,
                      .provider_message = a->provider_message};
    a->message = a->provider_message = NULL;
}

/* ---- making ---- */

static void set_log(struct session *s)
{
    snprintf(s->offset_text, sizeof s->offset_text, "%" PRId32 "/%" PRId64, s->part->id, s->offset);
    size_t n = 0;
    s->log_fields[n++] = L_STR("session", s->lane->session_id);
    s->log_fields[n++] = L_STR("record", s->offset_text);
    if (s->job) {
        s->log_fields[n++] = L_STR("job", s->job->job_id);
        s->log_fields[n++] = L_STR("tenant", s->job->tenant);
    }
    s->log = (struct log_scope){.fields = s->log_fields, .n = n};
}

struct session *session_new(struct core *c, struct part *p, struct account *a, int64_t offset)
{
    struct session *s = xcalloc(1, sizeof *s);
    s->core = c;
    s->part = p;
    s->account = a ? a : &c->accounts[0];
    s->offset = offset;
    s->box = s->account->provider->ops->box_new(s->account->provider);
    s->phase = N_PHASES;
    s->taken_ns = s->step_ns = s->phase_ns = c->now_ns;
    s->deadline_ns = s->limit_ns = NEVER;
    for (size_t i = 0; i < SLOTS; i++)
        s->slots[i].wake_ns = NEVER;
    heap_node_init(&s->node, NODE_SESSION);
    DL_APPEND2(p->sessions, s, part_prev, part_next);
    return s;
}

struct session *session_of_job(struct core *c, struct part *p, struct job *job)
{
    struct session *s = session_new(c, p, account_named(c, job->provider), job->offset);
    s->job = job;
    free(s->box->name);
    s->box->name = xasprintf("%s.%s", c->config->fleet, job->session_id);
    p->taken++;
    c->in_flight++;
    lane_add(lane_get(c, job->session_id), s);
    set_log(s);
    return s;
}

void session_bury(struct session *s)
{
    engine_stop(s);
    if (s->job)
        s->part->taken--;
    if (s->job && s->state != S_FINISHED)
        s->core->in_flight--;
    DL_DELETE2(s->part->sessions, s, part_prev, part_next);
    s->state = S_FINISHED;
    s->lane = NULL;
    s->part = NULL;
    LL_PREPEND2(s->core->graveyard, s, part_next);
}

void session_free(struct session *s)
{
    s->account->provider->ops->box_free(s->box);
    job_free(s->job);
    why_done(&s->last);
    why_done(&s->why);
    if (s->has_letter)
        message_done(&s->letter);
    free(s->was);
    free(s);
}

/* ---- beginning ---- */

static const struct goal *goals_of(const struct session *s)
{
    const struct job *j = s->job;
    if (!j)
        return goals_destroy;
    if (j->type == JOB_STOP)
        return goals_stop;
    if (j->type == JOB_DELETE)
        return goals_delete;
    if (j->mode == MODE_ATTACH)
        return goals_attach;
    /* A conflict costs a create token, so where there may be a sandbox already, look first. */
    bool look = j->mode == MODE_RESUME || j->sandbox.id || s->box->hint_id ||
                s->offset <= s->part->started_before;
    return look ? goals_start : goals_start + 1;
}

static void take_hint(struct session *s)
{
    const char *hint = s->job->sandbox.id;
    if (!hint && s->core->now_ns < s->lane->memory_ns)
        hint = s->lane->box_id;
    free(s->box->hint_id);
    s->box->hint_id = xstrdup0(hint);
}

static uint64_t wall_to_ns(const struct core *c, uint64_t wall_ms)
{
    uint64_t left_ms = wall_ms > c->wall_ms ? wall_ms - c->wall_ms : 0;
    if (!wall_ms || left_ms > (NEVER - c->now_ns) / NS_PER_MS)
        return NEVER;
    return c->now_ns + left_ms * NS_PER_MS;
}

/* When a start that has not begun is too old; wall clock, 0: never. */
static uint64_t too_old_ms(const struct session *s)
{
    uint64_t age_ms = (uint64_t)s->core->config->jobs.max_age_seconds * 1000;
    uint64_t made_ms = s->job->timestamp_ms;
    uint64_t expires_ms = s->job->expires_at_ms;
    uint64_t aged_ms = age_ms && made_ms ? made_ms + age_ms + 1 : 0;
    return aged_ms && expires_ms ? MIN(aged_ms, expires_ms) : MAX(aged_ms, expires_ms);
}

void session_unclock(struct session *s)
{
    s->clock_ns = 0;
    s->limit_ns = NEVER;
    s->deadline_ns =
        MIN(wall_to_ns(s->core, s->job->deadline_ms), wall_to_ns(s->core, too_old_ms(s)));
}

void session_begin(struct session *s)
{
    s->state = S_RUNNING;
    if (s->job) {
        take_hint(s);
        session_unclock(s);
        if (!session_is_start(
                s)) /* no token to wait for: its time runs from the head of the lane */
            session_clock(s);
    } else {
        s->clock_ns = s->core->now_ns;
        s->facts = 0;
    }
    s->goals = goals_of(s);
    if (s->job && !account_named(s->core, s->job->provider))
        session_fail(s, ERR_INVALID_JOB, "provider must be one that the configuration names");
    if (s->poison)
        poison_fail(s);
    engine_run(s);
}

static bool expired(const struct session *s)
{
    uint64_t at_ms = too_old_ms(s);
    return at_ms && s->core->wall_ms >= at_ms;
}

bool session_in_time(struct session *s)
{
    if (!session_is_start(s))
        return true;
    if (expired(s))
        session_fail(s, ERR_EXPIRED, "the job was too old when its turn came");
    else if (s->core->now_ns >= s->deadline_ns)
        session_fail(s, ERR_DEADLINE_EXCEEDED, "its deadline went by before its turn came");
    else
        return true;
    return false;
}

void session_clock(struct session *s)
{
    struct core *c = s->core;
    s->clock_ns = c->now_ns;
    s->timings_ns[STEP_QUEUE] = c->now_ns - s->taken_ns - s->timings_ns[STEP_FIND];
    s->step_ns = s->phase_ns = c->now_ns;
    engine_limit(s);
    s->deadline_ns =
        MIN(wall_to_ns(c, s->job->deadline_ms), c->now_ns + s->job->timeout_seconds * NS_PER_S);
}

/* ---- ending ---- */

static void finish(struct session *s, enum event_type type)
{
    struct core *c = s->core;
    engine_stop(s);
    s->timings_ns[s->step] += c->now_ns - s->step_ns;
    s->state = S_FINISHED;
    c->in_flight--;
    s->result = result_new(c, s->part, s->offset);
    s->result->session = s;
    if (s->has_letter)
        s->result->messages[s->result->n_messages++] = s->letter;
    s->has_letter = false;
    report_result(s, type);
}

static void end_destroy(struct session *s)
{
    struct core *c = s->core;
    struct lane *l = s->lane;
    if (s->phase == STOP && s->box->provisional) { /* it is gone, or the stop was taken */
        metric_add(M_SANDBOXES_DESTROYED, 1);
        log_info(&s->log, "sandbox destroyed", L_STR("sandbox", s->box->id));
    }
    lane_remove(s);
    session_bury(s);
    lane_kick(c, l);
}

/* The last look is over. This job's own kept sandbox may still become ready. */
static bool goes_on(struct session *s)
{
    bool kept = session_is_start(s) && (s->facts & EXISTS) && s->box->ours && s->box->mine &&
                !s->box->provisional;
    if (!kept || s->why.code == ERR_CANCELLED || s->poison || s->job->mode == MODE_ATTACH ||
        s->goals != goals_last_look)
        return false;
    if (s->losses >= (unsigned)s->core->config->jobs.attempts)
        return false;
    why_done(&s->why);
    s->losses++;               /* so that this is no endless round */
    s->facts |= OURS | LOOKED; /* KEPT, if the look found it whole; else KEEP goes on */
    s->goals = goals_start;
    s->phase = N_PHASES;
    s->limit = LIMIT_NONE;
    s->deadline_ns = s->limit_ns = NEVER;
    s->box->was_there = true;
    return true;
}

static enum cleanup cleanup_of(const struct session *s)
{
    const struct box *b = s->box;
    if (!session_is_start(s) && (s->facts & EXISTS) && (s->facts & OURS))
        return b->provisional ? CLEANUP_SCHEDULED : CLEANUP_KEPT;
    if (!b->id || !(s->facts & EXISTS) || !b->ours)
        return b->id && b->maybe_kept ? CLEANUP_KEPT : CLEANUP_NONE;
    if (b->was_there || b->maybe_kept || !b->provisional)
        return CLEANUP_KEPT;
    return (s->facts & OURS) || b->mine ? CLEANUP_SCHEDULED : CLEANUP_NONE;
}

static void finish_failed(struct session *s)
{
    s->cleanup = cleanup_of(s);
    log_info(&s->log, "session failed", L_STR("code", error_name(s->why.code)),
             L_STR("step", step_name(s->why.step)), L_STR("sandbox", s->box->id),
             L_STR("why", s->why.message));
    metric_add2(M_JOB_FAILURES, s->why.step, s->why.code, 1);
    finish(s, EVENT_FAILED);
}

void session_goals_met(struct session *s)
{
    if (!s->job) {
        end_destroy(s);
        return;
    }
    if (session_failing(s)) {
        if (!goes_on(s))
            finish_failed(s);
        return;
    }
    static const enum event_type types[] = {
        [JOB_START] = EVENT_READY, [JOB_STOP] = EVENT_STOPPED, [JOB_DELETE] = EVENT_DELETED};
    log_info(&s->log, "session done", L_STR("sandbox", s->box->id),
             L_UINT("requests", s->requests));
    finish(s, types[s->job->type]);
}

/* Failures that leave it open whether the session has a sandbox: nobody has looked, or the look (or
 * the create) got no answer, or the create was refused before its name was compared. An earlier
 * delivery of this very job may have kept one. */
static bool says_nothing_of_the_box(const struct session *s)
{
    static const bool open[N_ERRORS] = {
        [ERR_EXPIRED] = true,           [ERR_QUOTA_EXCEEDED] = true,
        [ERR_NO_CAPACITY] = true,       [ERR_RATE_LIMITED] = true,
        [ERR_CANCELLED] = true,         [ERR_PROVIDER_UNAVAILABLE] = true,
        [ERR_PROVIDER_PROTOCOL] = true, [ERR_DEADLINE_EXCEEDED] = true,
        [ERR_START_TIMEOUT] = true,     [ERR_POISON] = true};
    static const bool refused[N_ERRORS] = {
        [ERR_FORBIDDEN] = true, [ERR_SNAPSHOT_NOT_FOUND] = true, [ERR_CREATE_FAILED] = true};
    return open[s->why.code] || (refused[s->why.code] && (!(s->facts & LOOKED) || s->losses > 0));
}

static const struct goal *last_goals(struct session *s)
{
    if (!session_is_start(s))
        return NULL;
    bool keep = s->job->on_failure != FAIL_DELETE && (s->facts & EXISTS) && (s->facts & OURS) &&
                !(s->facts & KEPT) && s->box->state != BOX_ERROR;
    if (keep)
        return goals_last_keep;
    bool look = s->box->maybe_kept || (!s->box->id && says_nothing_of_the_box(s));
    return look ? goals_last_look : NULL;
}

/* It ends, with s->why: at once, or after a last look or KEEP. A second failure on the way ends it.
 */
static void fail(struct session *s)
{
    bool first = s->limit != LIMIT_LAST;
    const struct goal *goals = first ? last_goals(s) : NULL;
    engine_stop(s);
    if (!goals) {
        finish_failed(s);
        return;
    }
    s->timings_ns[s->step] += s->core->now_ns - s->step_ns;
    s->step_ns = s->core->now_ns;
    s->facts &= ~(uint32_t)LOOKED;
    s->goals = goals;
    s->phase = N_PHASES;
    s->limit = LIMIT_LAST;
    s->limit_ns = s->core->now_ns + LAST_LIMIT_NS;
    s->deadline_ns = NEVER;
    if (!s->clock_ns)
        s->clock_ns = s->core->now_ns;
}

void session_fail(struct session *s, enum error_code code, const char *message)
{
    struct answer a = {.code = code, .message = xstrdup0(message)};
    session_fail_answer(s, &a);
    answer_done(&a);
}

void session_fail_answer(struct session *s, struct answer *a)
{
    if (!s->job) { /* a destroy that cannot be: the sweep comes back to it */
        log_warn(&s->log, "a sandbox could not be destroyed", L_STR("sandbox", s->box->id),
                 L_STR("why", a->message), L_STR("provider_message", a->provider_message));
        s->facts = LOOKED | RESTS;
        s->phase = N_PHASES;
        return;
    }
    if (session_failing(s)) { /* the last look did not help: tell the first reason */
        fail(s);
        return;
    }
    if (!a->code)
        a->code = ERR_INTERNAL;
    bool queued = a->code == ERR_EXPIRED ||
                  (!s->clock_ns && (s->parked || a->code == ERR_DEADLINE_EXCEEDED)) ||
                  (s->phase == N_PHASES && !s->requests);
    why_set(&s->why, a, queued ? STEP_QUEUE : s->step);
    fail(s);
}

static void copy_last(struct session *s, struct answer *a)
{
    a->code = s->last.code;
    a->http_status = s->last.http_status;
    a->message = xstrdup0(s->last.message);
    a->provider_message = xstrdup0(s->last.provider_message);
}

static enum error_code late_code(const struct session *s)
{
    static const enum error_code codes[N_PHASES] = {
        [FIND] = ERR_PROVIDER_UNAVAILABLE, [CREATE] = ERR_START_TIMEOUT,
        [START] = ERR_START_TIMEOUT,       [LAUNCH] = ERR_LAUNCH_FAILED,
        [PROBE] = ERR_SERVER_TIMEOUT,      [KEEP] = ERR_PROVIDER_UNAVAILABLE,
        [STOP] = ERR_PROVIDER_UNAVAILABLE, [DELETE] = ERR_PROVIDER_UNAVAILABLE};
    bool at_limit = s->core->now_ns >= s->limit_ns;
    bool says_enough = s->phase == CREATE || s->phase == START || s->phase == PROBE;
    if (s->phase >= N_PHASES || !s->clock_ns || (!at_limit && !says_enough))
        return ERR_DEADLINE_EXCEEDED;
    return codes[s->phase];
}

/* What a DELETE that was sent has done is not known before its answer, or a look after it: until
 * then the lane must not go on. */
static bool delete_out(const struct session *s)
{
    return s->job && s->phase == DELETE && s->limit != LIMIT_LAST;
}

void session_deadline(struct session *s)
{
    struct answer a = {0};
    if (delete_out(s)) {
        s->limit = LIMIT_LAST;
        s->limit_ns = s->core->now_ns + LAST_LIMIT_NS;
        s->deadline_ns = NEVER;
        return;
    }
    if (!s->clock_ns && !session_in_time(s))
        return;
    if (s->last.code)
        copy_last(s, &a);
    else
        a.code = late_code(s);
    if (!a.message)
        a.message = xasprintf("no end of step %s within its time", step_name(s->step));
    if (s->job && !session_failing(s))
        log_debug(&s->log, "out of time", L_STR("step", step_name(s->step)));
    session_fail_answer(s, &a);
    answer_done(&a);
}

void session_lost(struct session *s, struct answer *a)
{
    s->again++;
    metric_add1(M_JOB_RETRIES, s->step, 1);
    bool enough = ++s->losses >= (unsigned)s->core->config->jobs.attempts;
    bool start = session_is_start(s) && s->job->mode != MODE_ATTACH;
    if (enough || !start || session_failing(s)) {
        session_fail_answer(s, a);
        return;
    }
    log_info(&s->log, "sandbox lost, beginning again", L_STR("sandbox", s->box->id),
             L_STR("why", a->message));
    bool broken = s->box->provisional && s->box->state == BOX_ERROR && s->box->id;
    s->phase = N_PHASES;
    s->outcome = OUTCOME_CREATED;
    s->drift = false;
    if (broken) { /* in the way of the next one: it holds the name, and nobody can adopt it */
        s->facts = LOOKED | EXISTS;
        return;
    }
    if (!s->box->provisional || s->box->maybe_kept) /* it may still be there, and then it is kept */
        s->goals = goals_start;
    s->account->provider->ops->box_forget(s->box);
    s->facts = s->goals == goals_start ? 0 : LOOKED;
}

/* ---- committed ---- */

/* What the lane is to know of the sandbox when the session's next job comes. */
static void leave_memory(struct session *s)
{
    bool there = (s->facts & EXISTS) && !(s->facts & GONE) && s->cleanup != CLEANUP_SCHEDULED;
    lane_remember(s->core, s->lane, there ? s->box->id : NULL);
}

static void leave_destroy(struct session *s)
{
    bool kept_by_it = (s->facts & OURS) && s->cleanup == CLEANUP_KEPT && !s->box->was_there;
    bool stop_kept =
        session_is_start(s) && session_failing(s) && kept_by_it && s->job->on_failure == FAIL_STOP;
    if (s->box->id && (s->cleanup == CLEANUP_SCHEDULED || stop_kept))
        destroy_new(s->core, s->part, s->lane, s->account, s->box,
                    stop_kept ? STOP_KEPT : AFTER_FAILURE);
}

void session_committed(struct session *s)
{
    struct core *c = s->core;
    struct lane *l = s->lane;
    leave_memory(s);
    leave_destroy(s);
    if (session_is_start(s) && (!session_failing(s) || s->cleanup == CLEANUP_KEPT))
        lane_spare_kept(l, s->box->id, !session_failing(s));
    lane_remove(s);
    session_bury(s);
    lane_kick(c, l);
}
