/* daytona_keep: a sandbox for good, or for nobody. See daytona.h.
 *
 * KEEP turns a provisional sandbox into a kept one. The API says 201 to it in every state, also to
 * a sandbox that is being destroyed, and in the last second before an idle stop it may say 201 and
 * lose. So the answer's desired state and values are judged, never the status, and no KEEP is sent
 * within a minute of the idle stop.
 *
 * Invariants: nothing ever sets autoDeleteInterval back to 0. To destroy is to send stop: the
 * server judges the interval at that moment, and a sandbox that somebody has kept is only stopped.
 * DELETE is sent in phase DELETE, and in phase STOP only for a sandbox in error that is
 * provisional. */
#include <string.h>

#include "worker/provider/daytona.h"

#define IDLE_MARGIN_MS 60000

/* ---- KEEP ---- */

int keep_auto_delete(const struct job *job)
{
    return job->sandbox.auto_delete_minutes > 0 ? job->sandbox.auto_delete_minutes : -1;
}

/* Close to its idle stop a KEEP can say 201 and lose against it. */
static bool keep_is_late(const struct deal *d, const struct daytona_box *b)
{
    if (b->auto_stop <= 0 || b->last_activity_ms == 0)
        return false;
    int64_t idle_at = (int64_t)b->last_activity_ms + b->auto_stop * INT64_C(60000);
    return idle_at < (int64_t)d->wall_ms + b->skew_ms + IDLE_MARGIN_MS;
}

static bool keep_same_delete(const struct deal *d, const struct daytona_box *b)
{
    int wanted = keep_auto_delete(d->job);
    return wanted == b->auto_delete || (wanted < 0 && b->auto_delete < 0);
}

/* The first thing that is not yet as the user wants it; R_NONE: all is. */
static enum request keep_next(const struct deal *d, const struct daytona_box *b)
{
    if (!keep_same_delete(d, b))
        return keep_is_late(d, b) ? R_ACTIVITY : R_AUTODELETE;
    return b->auto_stop != d->job->sandbox.auto_stop_minutes ? R_AUTOSTOP : R_NONE;
}

void begin_keep(const struct deal *d, struct daytona_box *b)
{
    enum request first = keep_next(d, b);
    b->script.next[0] = first == R_NONE ? R_GET_ID : first;
}

void keep_seen(struct turn *t)
{
    enum request request = keep_next(t->deal, t->box);
    if (look_again_or_lost(t))
        return;
    if (request == R_NONE)
        t->answer->set |= KEPT;
    else
        turn_go(t, request);
}

void judge_keep(struct turn *t)
{
    if (!sandbox_read(t, t->json, READ_ALL)) {
        turn_next(t, R_GET_ID);
        turn_not_understood(t);
        return;
    }
    t->box->box.maybe_kept = false;
    if (t->box->box.state == BOX_GONE)
        turn_lost(t);
    else
        keep_seen(t);
}

void judge_activity(struct turn *t)
{
    turn_next(t, R_GET_ID);
    turn_again(t, PACE_FLUSH, ERR_NONE,
               "the sandbox is about to stop as idle: touched, and waiting");
}

/* ---- STOP, DELETE ---- */

static bool in_error_for_us(const struct box *b)
{
    return b->state == BOX_ERROR && b->provisional && !b->maybe_kept;
}

void begin_stop(const struct deal *d, struct daytona_box *b)
{
    (void)d;
    b->script.next[0] = in_error_for_us(&b->box) ? R_DELETE : R_STOP;
}

void begin_delete(const struct deal *d, struct daytona_box *b)
{
    (void)d;
    b->script.next[0] = R_DELETE;
}

void judge_gone(struct turn *t)
{
    box_gone(t);
    t->answer->verdict = OK;
    t->answer->set |= RESTS | GONE;
    t->answer->clear |= RUNS | UP;
}

static void stop_rests(struct turn *t)
{
    t->answer->verdict = OK;
    t->answer->set |= RESTS;
    t->answer->clear |= RUNS | UP;
}

static void stop_waits(struct turn *t, enum pace pace)
{
    turn_next(t, R_GET_ID);
    turn_again(t, pace, ERR_NONE, "the sandbox is %s", state_words(&t->box->box));
}

/* The server has taken the stop, or the sandbox rests already. That is the end of a destroy. A
 * user's stop-session is done when it rests; a start that clears the way needs the name, and what
 * is provisional and at rest goes within seconds. */
static void stop_accepted(struct turn *t)
{
    const struct job *job = t->deal->job;
    const struct box *b = &t->box->box;
    bool rests = b->state == BOX_RESTS || b->state == BOX_ERROR;
    if (job && job->type == JOB_STOP && !rests)
        stop_waits(t, PACE_WATCH);
    else if (job && job->type == JOB_START && b->provisional && rests)
        stop_waits(t, PACE_STATE);
    else
        stop_rests(t);
}

/* A busy sandbox has had its pause when the 409 came. */
void stop_seen(struct turn *t)
{
    const struct box *b = &t->box->box;
    if (in_error_for_us(b))
        turn_go(t, R_DELETE);
    else if (b->state == BOX_RESTS || b->state == BOX_ERROR || is_stopping(b))
        stop_accepted(t);
    else
        turn_to(t, R_STOP);
}

void delete_seen(struct turn *t)
{
    if (t->deal->late)
        turn_say(t, REFUSE, ERR_PROVIDER_UNAVAILABLE, "the sandbox is still %s",
                 state_words(&t->box->box));
    else
        turn_to(t, R_DELETE);
}

void judge_stop(struct turn *t)
{
    if (!sandbox_read(t, t->json, READ_ALL))
        turn_not_understood(t);
    else if (t->box->box.state == BOX_GONE)
        judge_gone(t);
    else
        stop_accepted(t);
}
