/* settle: what new facts mean beyond the table: for a start, whose sandbox was found, and may it be
 * used; for stop, delete and destroy, whether anything is left to do.
 *
 * A box becomes OURS here and nowhere else: judge_found() is the whole of adoption. A kept sandbox
 * of the session is used and keeps its intervals. This job's own provisional one is used. Another
 * job's provisional one is garbage: adopted when its spec is the same, else in the way, and
 * cleared. */
#include "worker/core/internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

#define NAME_AGAIN_NS (500 * NS_PER_MS) /* between two looks at a sandbox that is going away */

/* A later version of the hash will begin with its number and a colon. */
static size_t version_len(const char *hash)
{
    const char *colon = strchr(hash, ':');
    return colon ? (size_t)(colon - hash) + 1 : 0;
}

/* Hashes of two versions say nothing of each other: while workers are upgraded nothing drifts. */
static bool spec_differs(const struct session *s)
{
    const char *theirs = s->box->label_spec, *ours = s->job->spec_hash;
    if (!theirs || !ours || strcmp(theirs, ours) == 0)
        return false;
    size_t n = version_len(ours);
    return n == version_len(theirs) && strncmp(theirs, ours, n) == 0;
}

static void judge_kept(struct session *s)
{
    const struct job *j = s->job;
    s->box->was_there = true;
    s->drift = !s->box->mine && spec_differs(s);
    if (j->mode == MODE_CREATE && !s->box->mine) {
        session_fail(s, ERR_SESSION_EXISTS,
                     "the session has a sandbox; mode create wants none to be there");
        return;
    }
    if (s->drift && j->sandbox.on_drift == DRIFT_FAIL) {
        session_fail(s, ERR_SESSION_EXISTS,
                     "the session's sandbox was made from another spec (on_drift = fail)");
        return;
    }
    s->facts |= OURS;
    if (j->mode == MODE_ATTACH)
        s->outcome = OUTCOME_ATTACHED;
    else if (!s->box->mine)
        s->outcome = s->box->state == BOX_RUNS ? OUTCOME_ADOPTED : OUTCOME_STARTED;
}

static void judge_provisional(struct session *s)
{
    enum job_mode mode = s->job->mode;
    if (s->box->mine) {
        s->facts |= OURS;
        return;
    }
    if (mode == MODE_ATTACH) {
        session_fail(s, ERR_NOT_FOUND, "the session has no sandbox to attach to");
        return;
    }
    bool adopt = (mode == MODE_ENSURE || mode == MODE_RESUME) && !spec_differs(s) &&
                 s->box->state != BOX_ERROR;
    if (!adopt)
        return; /* not OURS: it is in the way, and the engine clears it */
    s->facts |= OURS;
    s->outcome = OUTCOME_ADOPTED;
}

/* A sandbox of the session's name or id exists, and is not OURS yet. */
static void judge_found(struct session *s)
{
    if (!s->box->ours) {
        session_fail(s, ERR_SESSION_EXISTS,
                     "a sandbox of this name does not carry this session's labels");
        return;
    }
    if (s->box->provisional)
        judge_provisional(s);
    else
        judge_kept(s);
    if (s->job->mode == MODE_RESUME)
        s->replaced = s->box->mine || !s->box->was_there;
    if ((s->facts & OURS) && !s->box->mine)
        metric_add(M_SANDBOXES_ADOPTED, 1);
    else if (s->facts & OURS)
        metric_add(M_SANDBOXES_CREATED, s->phase == CREATE);
}

/* It is gone, or on its way out: then its name is awaited, or somebody has kept it meanwhile. */
static void way_cleared(struct session *s)
{
    bool gone = s->facts & GONE;
    s->account->provider->ops->box_forget(s->box);
    if (!gone) {
        engine_look_later(s, NAME_AGAIN_NS);
        return;
    }
    s->facts = LOOKED;
    s->phase = N_PHASES;
    metric_add(M_SANDBOXES_DESTROYED, 1);
}

static void settle_start(struct session *s)
{
    if (!(s->facts & OURS) && (s->facts & (GONE | RESTS)) && s->phase == STOP) {
        way_cleared(s);
        return;
    }
    if ((s->facts & EXISTS) && !(s->facts & OURS) && s->phase != STOP) {
        judge_found(s);
        return;
    }
    bool missing = (s->facts & LOOKED) && !(s->facts & EXISTS) && s->phase == FIND;
    if (missing && s->job->mode == MODE_ATTACH)
        session_fail(s, ERR_NOT_FOUND, "the session has no sandbox to attach to");
}

static bool same_partition(const char *label, const char *event_id, size_t *len)
{
    const char *slash = strrchr(event_id, '/');
    *len = slash ? (size_t)(slash - event_id) + 1 : 0;
    return label && *len && strncmp(label, event_id, *len) == 0;
}

/* The sandbox was made by a job of the same partition that comes after this one: a delayed copy. */
static bool made_later(const struct session *s)
{
    size_t len;
    int64_t theirs;
    const char *label = s->box->label_job;
    return same_partition(label, s->job->event_id, &len) &&
           parse_i64(label + len, strlen(label + len), 0, INT64_MAX, &theirs) && theirs > s->offset;
}

static void settle_delete(struct session *s)
{
    if (!s->job->sandbox.id && made_later(s)) {
        char *text =
            xasprintf("sandbox %s was made by the later job %s", s->box->id, s->box->label_job);
        s->facts &= ~(uint32_t)OURS; /* no business of this job: it destroys nothing */
        session_fail(s, ERR_SESSION_EXISTS, text);
        free(text);
    } else if (s->box->provisional) { /* a destroy is queued when this is committed */
        s->cleanup = CLEANUP_SCHEDULED;
        s->facts |= GONE;
    }
}

static void settle_stop(struct session *s)
{
    const struct box *b = s->box;
    if (b->provisional && b->state == BOX_TRANSIENT) { /* no stop is taken before it is made */
        s->cleanup = CLEANUP_SCHEDULED;
        s->facts |= RESTS;
    } else if (b->state == BOX_RESTS) {
        s->facts |= RESTS;
    }
}

/* Stop and delete, once they have looked. */
static void settle_end(struct session *s)
{
    if (s->phase != FIND || !(s->facts & LOOKED))
        return;
    if (!(s->facts & EXISTS)) {
        s->facts |= GONE | RESTS;
        if (s->job->type == JOB_STOP)
            session_fail(s, ERR_NOT_FOUND, "the session has no sandbox to stop");
        return;
    }
    if (!s->box->ours) {
        session_fail(s, ERR_SESSION_EXISTS,
                     "a sandbox of this name does not carry this session's labels");
        return;
    }
    s->facts |= OURS;
    free(s->was);
    s->was = xstrdup0(s->box->state_name);
    if (s->job->type == JOB_DELETE)
        settle_delete(s);
    else
        settle_stop(s);
}

static void spare(struct session *s)
{
    log_info(&s->log, "a sandbox is not what it was when its job failed: spared",
             L_STR("sandbox", s->box->id));
    metric_add(M_SANDBOXES_SPARED, 1);
    s->facts |= RESTS;
}

static void settle_destroy(struct session *s)
{
    if (s->phase != FIND || !(s->facts & LOOKED))
        return;
    bool kept = (s->facts & EXISTS) && !s->box->provisional;
    if (!(s->facts & EXISTS))
        s->facts |= RESTS;
    else if (s->destroy_why == SWEPT ? kept : s->destroy_why == STOP_KEPT && !kept)
        spare(s);
    else if (s->box->state == BOX_RESTS)
        s->facts |= RESTS; /* a lease ends by itself there */
    else if (kept && s->destroy_why == AFTER_FAILURE)
        metric_add(M_LATE_KEEPS, 1);
}

void session_settle(struct session *s)
{
    if (session_failing(s))
        return;
    if (!s->job)
        settle_destroy(s);
    else if (session_is_start(s))
        settle_start(s);
    else
        settle_end(s);
    bool kept_by_it =
        session_is_start(s) && (s->facts & KEPT) && (!s->box->was_there || s->box->mine);
    if (kept_by_it) /* now only a step's limit ends it */
        s->deadline_ns = NEVER;
}
