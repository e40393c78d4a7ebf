/* daytona_sandbox: finding, making and starting a sandbox. See daytona.h.
 *
 * The name is the idempotency key: of all POSTs with one name a single one makes a sandbox. So
 * whenever an answer leaves it open whether a sandbox was made, the name is looked up. A look by
 * name may be stale for 10 s (a 404 that was cached before the sandbox was made), a look by id
 * never is: as soon as an id is known everything goes by id.
 *
 * Invariants: a sandbox is made with autoDeleteInterval 0; the intervals in the answer of a start
 * are not read (they are of before it). */
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/provider/daytona.h"

#define STALE_404_NS (12 * NS_PER_S)

/* ---- what the facts are after a look ---- */

static void box_runs(struct turn *t)
{
    const struct job *job = t->deal->job;
    t->answer->set |= RUNS;
    t->answer->clear |= RESTS;
    if (job && job->type == JOB_START && job->server.kind == SERVER_NONE &&
        job->server.n_expose == 0) {
        t->answer->set |= UP;
        t->answer->clear &= ~(uint32_t)UP;
    }
}

/* This job's own KEEP was cut off between its two calls: the user's auto-stop is not set yet. */
static bool half_kept(const struct turn *t)
{
    const struct job *job = t->deal->job;
    return t->box->box.mine && job && job->type == JOB_START && job->mode != MODE_ATTACH &&
           t->box->auto_stop != job->sandbox.auto_stop_minutes;
}

/* A box that was found: it is there, and what it is. */
static void box_seen(struct turn *t)
{
    const struct box *b = &t->box->box;
    t->answer->set |= EXISTS;
    if (b->provisional || half_kept(t))
        t->answer->clear |= KEPT;
    else
        t->answer->set |= KEPT;
    t->box->found_running = b->state == BOX_RUNS;
    if (t->box->found_running)
        box_runs(t);
    else
        t->answer->clear |= RUNS | UP;
}

void box_gone(struct turn *t)
{
    t->box->box.state = BOX_GONE;
    t->box->box.maybe_kept = false;
}

/* "the sandbox is …" */
const char *state_words(const struct box *b)
{
    if (b->state == BOX_GONE)
        return "gone";
    if (b->state == BOX_ERROR)
        return "in error";
    return b->state_name ? b->state_name : "on its way";
}

void turn_lost(struct turn *t)
{
    const struct daytona_box *b = t->box;
    bool new = b->box.provisional && !b->box.started_here;
    turn_say(t, LOST, new ? ERR_CREATE_FAILED : ERR_START_FAILED, "the sandbox is %s",
             state_words(&b->box));
    if (b->error_reason && !t->answer->provider_message)
        t->answer->provider_message = xstrdup(b->error_reason);
}

bool is_stopping(const struct box *b)
{
    return b->state == BOX_TRANSIENT && b->state_name &&
           (strcmp(b->state_name, "stopping") == 0 || strcmp(b->state_name, "pausing") == 0);
}

/* While it is resized, copied and the like there is nothing to judge: look again. */
bool look_again_or_lost(struct turn *t)
{
    const struct box *b = &t->box->box;
    if (b->state == BOX_RUNS)
        return false;
    if (b->state == BOX_TRANSIENT && !is_stopping(b)) {
        turn_next(t, R_GET_ID);
        turn_again(t, PACE_STATE, ERR_START_TIMEOUT, "the sandbox is %s", state_words(b));
    } else {
        turn_lost(t);
    }
    return true;
}

/* ---- FIND ---- */

static bool names_id(const struct job *job)
{
    return job && job->sandbox.id;
}

void begin_find(const struct deal *d, struct daytona_box *b)
{
    struct script *s = &b->script;
    const char *id = b->box.hint_id;
    if (!id && names_id(d->job))
        id = d->job->sandbox.id;
    if (b->box.id) /* looking again */
        id = NULL;
    s->explicit_id = id && names_id(d->job) && strcmp(id, d->job->sandbox.id) == 0;
    set_text(&s->look_id, id);
    s->next[0] = b->box.id || id ? R_GET_ID : R_GET_NAME;
}

static void find_nothing(struct turn *t)
{
    t->answer->verdict = OK;
    t->answer->set |= LOOKED;
    t->answer->clear |= EXISTS | RUNS | KEPT | UP;
}

/* A new start finds out by its POST; for the others a 404 by name may be a stale one. */
static bool find_wants_list(const struct job *job)
{
    return job && (job->type != JOB_START || job->mode == MODE_ATTACH);
}

/* A remembered id may be an old one. An id that the job names is what the job is about. */
static bool find_falls_back(const struct turn *t)
{
    const struct script *s = t->script;
    return s->look_id && !s->by_labels && !(s->explicit_id && find_wants_list(t->deal->job));
}

static void find_absent(struct turn *t)
{
    if (t->script->look_id)
        set_text(&t->box->box.id, NULL);
    if (t->request == R_GET_NAME && find_wants_list(t->deal->job))
        turn_go(t, R_FIND_LABELS);
    else if (t->request == R_GET_ID && find_falls_back(t))
        turn_go(t, R_GET_NAME);
    else
        find_nothing(t);
}

/* Another session's sandbox is no business of this job, whoever named its id. */
static bool find_is_foreign(const struct turn *t)
{
    const struct box *b = &t->box->box;
    const struct job *job = t->deal->job;
    if (!job || t->request != R_GET_ID || !t->script->look_id)
        return false;
    if (!t->script->explicit_id) /* only remembered: an attach may have been to anybody's */
        return !b->ours;
    return b->label_session && strcmp(b->label_session, job->session_id) != 0;
}

/* Named by its id, a sandbox may have any name, and attach takes one without our labels too. */
static void find_named(struct turn *t)
{
    struct box *b = &t->box->box;
    const struct job *job = t->deal->job;
    set_short(&b->name, json_str(t->json, "name", b->name));
    b->ours |= job->type == JOB_START && job->mode == MODE_ATTACH;
}

static void find_seen(struct turn *t)
{
    struct box *b = &t->box->box;
    const struct job *job = t->deal->job;
    if (find_is_foreign(t)) {
        find_absent(t);
        return;
    }
    if (t->script->explicit_id && t->request == R_GET_ID)
        find_named(t);
    t->answer->set |= LOOKED;
    box_seen(t);
    if (job && job->type == JOB_STOP && b->state == BOX_RESTS)
        t->answer->set |= RESTS;
}

static bool find_may_take(const struct deal *d, const cJSON *item)
{
    return id_valid(json_str(item, "id", "")) && dto_state(item) != BOX_GONE &&
           dto_ours(d->provider, d->job->session_id, item);
}

/* A list is late, so what it names is looked at by id; it may even show an older one that was
 * deleted, and the name is given again only then. */
static const cJSON *find_newest(const struct deal *d, const cJSON *items)
{
    const cJSON *item, *newest = NULL;
    cJSON_ArrayForEach(item, items)
    {
        if (find_may_take(d, item) && (!newest || strcmp(json_str(item, "createdAt", ""),
                                                         json_str(newest, "createdAt", "")) > 0))
            newest = item;
    }
    return newest;
}

void judge_find_labels(struct turn *t)
{
    const cJSON *items = list_items(t->json);
    const cJSON *newest = items ? find_newest(t->deal, items) : NULL;
    if (!items) {
        turn_not_understood(t);
    } else if (!newest) {
        find_nothing(t);
    } else {
        set_text(&t->script->look_id, json_str(newest, "id", ""));
        t->script->by_labels = true;
        t->script->explicit_id = false;
        turn_go(t, R_GET_ID);
    }
}

/* ---- CREATE ---- */

void begin_create(const struct deal *d, struct daytona_box *b)
{
    (void)d;
    b->script.next[0] = R_CREATE;
}

/* With a body that the server did not read it would have made an anonymous sandbox, for good. */
static bool create_is_ours(const struct turn *t)
{
    return strcmp(json_str(t->json, "name", ""), t->box->box.name) == 0;
}

void judge_create(struct turn *t)
{
    struct box *b = &t->box->box;
    if (!sandbox_read(t, t->json, READ_ALL)) {
        turn_not_understood(t);
    } else if (b->state == BOX_GONE) {
        turn_lost(t);
    } else if (!create_is_ours(t)) {
        turn_say(t, REFUSE, ERR_PROVIDER_PROTOCOL, "Daytona made sandbox %s under another name",
                 b->id);
        set_text(&b->id, NULL);
    } else {
        b->mine = true;
        b->warm = b->state == BOX_RUNS;
        box_seen(t);
        t->box->fresh = true;
        t->box->found_running = false;
    }
}

static void create_seen(struct turn *t)
{
    const struct box *b = &t->box->box;
    t->script->unsure = t->script->conflict = false;
    if (t->script->failed && b->ours && b->provisional && b->state == BOX_ERROR)
        turn_lost(t);
    else
        box_seen(t);
}

/* After a 409 a 404 is a stale one, for a while. After no answer it is the truth: once more. */
static void create_absent(struct turn *t)
{
    struct script *s = t->script;
    set_text(&t->box->box.id, NULL);
    if (s->failed) {
        turn_say(t, LOST, ERR_CREATE_FAILED, "the sandbox failed to start and is gone");
    } else if (s->conflict && t->deal->now_ns - s->conflict_ns < STALE_404_NS) {
        turn_again(t, PACE_CACHE, ERR_CREATE_FAILED,
                   "the name is taken by what cannot be seen yet");
    } else {
        s->conflict = false;
        turn_go(t, R_CREATE);
    }
}

void then_conflict(struct turn *t)
{
    t->script->conflict = true;
    t->script->conflict_ns = t->deal->now_ns;
    turn_next(t, R_GET_NAME);
}

void then_look_failed(struct turn *t)
{
    t->script->failed = true;
    turn_next(t, R_GET_NAME);
}

/* Quota and capacity are judged before the name: it may have been made by the POST before. */
static bool look_if_unsure(struct turn *t)
{
    bool unsure = t->script->unsure;
    t->script->unsure = false;
    if (unsure)
        turn_go(t, R_GET_NAME);
    return unsure;
}

void then_look_if_unsure(struct turn *t)
{
    (void)look_if_unsure(t);
}

size_t create_targets(const struct deal *d)
{
    return d->job->sandbox.target ? 1 : MAX(d->provider->cfg->n_targets, 1);
}

void then_next_target(struct turn *t)
{
    struct script *s = t->script;
    s->no_capacity |= t->answer->code == ERR_NO_CAPACITY;
    if (look_if_unsure(t))
        return;
    if (s->target + 1 < create_targets(t->deal)) {
        s->target++;
        turn_to(t, R_CREATE);
        return;
    }
    if (s->no_capacity && t->answer->verdict == REFUSE)
        turn_again(t, PACE_CAPACITY, ERR_NO_CAPACITY, "no target has room for the sandbox");
    s->target = 0;
    s->no_capacity = false;
}

/* ---- START ---- */

void begin_start(const struct deal *d, struct daytona_box *b)
{
    (void)d;
    b->script.next[0] = b->box.state == BOX_RESTS ? R_START : R_GET_ID;
}

static enum error_code start_code(const struct box *b)
{
    return b->provisional && !b->started_here ? ERR_CREATE_FAILED : ERR_START_TIMEOUT;
}

/* A sandbox that somebody started has a new preview token, but for one that was only just made. */
static void start_runs(struct turn *t)
{
    struct daytona_box *b = t->box;
    b->fresh &= !t->script->started;
    b->restarted_ns = b->fresh ? 0 : t->deal->now_ns;
    b->found_running = false;
    t->answer->clear |= UP;
    box_runs(t);
}

static void start_rests(struct turn *t)
{
    if (t->script->started)
        turn_again(t, PACE_STATE, start_code(&t->box->box), "the sandbox does not start");
    else
        turn_go(t, R_START);
    turn_next(t, R_START);
}

static void start_error(struct turn *t)
{
    struct daytona_box *b = t->box;
    if (b->box.provisional) {
        turn_lost(t);
    } else if (b->recoverable && !t->script->recovered) {
        t->script->recovered = true;
        turn_go(t, R_RECOVER);
    } else {
        turn_say(t, REFUSE, ERR_START_FAILED, "the sandbox is in error and cannot be recovered");
        t->answer->provider_message = xstrdup0(b->error_reason);
    }
}

static void start_seen(struct turn *t)
{
    const struct box *b = &t->box->box;
    if (b->state == BOX_RUNS) {
        start_runs(t);
    } else if (b->state == BOX_RESTS) {
        start_rests(t);
    } else if (b->state == BOX_ERROR) {
        start_error(t);
    } else {
        turn_next(t, R_GET_ID);
        turn_again(t, PACE_STATE, start_code(b), "the sandbox is still %s", state_words(b));
    }
}

void judge_start(struct turn *t)
{
    t->script->started = true;
    if (!sandbox_read(t, t->json, READ_STATE))
        turn_not_understood(t);
    else if (t->box->box.state == BOX_GONE)
        turn_lost(t);
    else
        start_seen(t);
}

/* ---- looks ---- */

void then_look(struct turn *t)
{
    if (t->request == R_CREATE)
        t->script->unsure = true;
    if (t->request == R_EXEC)
        t->box->exec_lost = true;
    turn_next(t, t->request == R_CREATE ? R_GET_NAME
                 : t->request == R_EXEC ? R_SESSION_GET
                                        : R_GET_ID);
}

void judge_absent(struct turn *t)
{
    static void (*const absent[N_PHASES])(struct turn *) = {
        [FIND] = find_absent, [CREATE] = create_absent, [START] = turn_lost, [LAUNCH] = turn_lost,
        [PROBE] = turn_lost,  [KEEP] = turn_lost,       [STOP] = judge_gone, [DELETE] = judge_gone,
    };
    box_gone(t);
    absent[t->deal->phase](t);
}

void judge_look(struct turn *t)
{
    static void (*const seen[N_PHASES])(struct turn *) = {
        [FIND] = find_seen,   [CREATE] = create_seen, [START] = start_seen, [LAUNCH] = alive_seen,
        [PROBE] = alive_seen, [KEEP] = keep_seen,     [STOP] = stop_seen,   [DELETE] = delete_seen,
    };
    if (!sandbox_read(t, t->json, READ_ALL)) {
        turn_not_understood(t);
        return;
    }
    if (t->request == R_GET_ID)
        t->box->box.maybe_kept = false;
    if (t->box->box.state == BOX_GONE)
        judge_absent(t);
    else
        seen[t->deal->phase](t);
}
