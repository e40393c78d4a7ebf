/* world_core: the state of a core in one number, so that an exploration knows where it has been.
 *
 * The only file of the world that looks inside. A core's state is what its next steps depend on:
 * all of it goes in, but for
 * - what is only told (timings, counters, ages of jobs, the last reason why something waits: its
 *   code goes in, its words do not), what a job says (its offset names it) and numbers of calls and
 *   batches, which only need to differ;
 * - the order of two things that one core has to do at the very same nanosecond;
 * - the budgets' tokens: the limit of such a world is out of reach.
 * Times are relative (see digest.h). The ages that a provider keeps (of a look, of a restart) are
 * compared with seconds, so they go in as ages.
 *
 * Chance: every step of a core draws from the same place on, so that how much was drawn before is
 * no part of the state either. */
#include "tests/sim/world_core.h"

#include "worker/core/internal.h"
#include "worker/provider/daytona.h"

void world_core_steady(struct core *c)
{
    rng_init(&c->rng, 20);
}

struct when {
    uint64_t now, wall_ms;
};

/* ---- the box as the provider knows it ---- */

static void add_box(struct digest *d, const struct box *b)
{
    const char *const texts[] = {b->id,         b->hint_id,       b->state_name, b->label_job,
                                 b->label_spec, b->label_session, b->url,        b->preview_token,
                                 b->vscode_url, b->session_key,   b->command_id};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        digest_text(d, texts[i]);
    digest_add(d, b->n_urls);
    digest_add(d, (uint64_t)b->provisional | (uint64_t)b->maybe_kept << 1 | (uint64_t)b->mine << 2 |
                      (uint64_t)b->ours << 3 | (uint64_t)b->was_there << 4 |
                      (uint64_t)b->exited << 5 | (uint64_t)b->started_here << 6 |
                      (uint64_t)b->state << 8 | (uint64_t)b->exit_code << 16);
}

static void add_script(struct digest *d, const struct script *s, const struct session *of,
                       uint64_t now)
{
    bool entered = s->entered && s->phase == of->phase && s->since_ns == of->phase_ns;
    digest_add(d, entered);
    if (!entered)
        return;
    for (size_t i = 0; i < SLOTS; i++)
        digest_add(d, (uint64_t)s->next[i] | (uint64_t)s->pace[i] << 16 |
                          (uint64_t)s->pause_ms[i] << 32);
    digest_text(d, s->look_id);
    digest_add(d, (uint64_t)s->explicit_id | (uint64_t)s->by_labels << 1 |
                      (uint64_t)s->no_capacity << 2 | (uint64_t)s->unsure << 3 |
                      (uint64_t)s->failed << 4 | (uint64_t)s->conflict << 5 |
                      (uint64_t)s->started << 6 | (uint64_t)s->recovered << 7 |
                      (uint64_t)s->launched << 8 | (uint64_t)s->reset << 9);
    digest_add(d, s->target | (uint64_t)s->tries << 16 | (uint64_t)s->redirects << 32);
    digest_add(d, s->key | (uint64_t)s->resume << 32);
    digest_since(d, s->conflict ? s->conflict_ns : 0, now);
    digest_since(d, s->look_ns, now);
    digest_since(d, s->tail_ns, now);
}

/* Its last use counts by the minute, as at Daytona. */
static void add_daytona(struct digest *d, const struct session *of, const struct when *w)
{
    const struct daytona_box *b = CONTAINER_OF(of->box, struct daytona_box, box);
    uint64_t used = b->last_activity_ms;
    digest_text(d, b->toolbox_url);
    digest_text(d, b->label_key);
    digest_add(d, (uint64_t)b->recoverable | (uint64_t)b->fresh << 1 |
                      (uint64_t)b->found_running << 2 | (uint64_t)b->older_health << 3 |
                      (uint64_t)b->own_command << 4 | (uint64_t)b->exec_lost << 5);
    digest_add(d, (uint64_t)(int64_t)b->auto_stop << 32 ^ (uint64_t)(int64_t)b->auto_delete);
    digest_add(d, b->n_commands);
    digest_add(d, !used ? NEVER : used < w->wall_ms ? (w->wall_ms - used) / 60000 : 0);
    digest_since(d, b->restarted_ns, w->now);
    add_script(d, &b->script, of, w->now);
}

/* ---- a session ---- */

static uint64_t which_goals(const struct goal *g)
{
    const struct goal *const all[] = {goals_start,     goals_start + 1, goals_attach,
                                      goals_stop,      goals_delete,    goals_destroy,
                                      goals_last_look, goals_last_keep};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (g == all[i])
            return i;
    return ARRAY_LEN(all);
}

static void add_call(struct digest *d, const struct call *c)
{
    digest_add(d, c->what);
    digest_text(d, c->url);
    digest_bytes(d, c->body, c->body ? c->body_len : 0);
}

static void add_slot(struct digest *d, const struct slot *s, uint64_t now)
{
    digest_add(d, s->state);
    digest_until(d, s->wake_ns, now);
    if (s->state == SLOT_HELD)
        add_call(d, &s->held);
    if (s->state == SLOT_OUT)
        digest_add(d, s->flight.what);
}

static void add_session(struct digest *d, const struct session *s, const struct when *w)
{
    uint64_t now = w->now;
    digest_add(d, s->job ? (uint64_t)s->offset : NEVER);
    digest_add(d, (uint64_t)s->state | (uint64_t)s->phase << 8 | (uint64_t)s->step << 16 |
                      (uint64_t)s->limit << 24 | (uint64_t)s->facts << 32);
    digest_add(d, which_goals(s->goals));
    digest_add(d, (uint64_t)s->same_facts | (uint64_t)s->retries << 8 | (uint64_t)s->losses << 16 |
                      (uint64_t)s->again << 24);
    digest_add(d, (uint64_t)s->parked | (uint64_t)s->cancelled << 1 | (uint64_t)s->replaced << 2 |
                      (uint64_t)s->drift << 3 | (uint64_t)(s->clock_ns != 0) << 4 |
                      (uint64_t)(s->result != NULL) << 5 | (uint64_t)s->destroy_why << 8 |
                      (uint64_t)s->outcome << 16 | (uint64_t)s->cleanup << 24);
    digest_add(d, (uint64_t)s->last.code << 32 | (uint64_t)s->why.code);
    digest_add(d, s->why.step);
    digest_until(d, s->deadline_ns, now);
    digest_until(d, s->limit_ns, now);
    digest_until(d, s->node.at, now);
    if (!s->job)
        digest_add(d, (now - s->taken_ns) / (60 * NS_PER_S));
    for (size_t i = 0; i < SLOTS; i++)
        add_slot(d, &s->slots[i], now);
    digest_add(d, s->slots[0].flight.id < s->slots[1].flight.id);
    add_box(d, s->box);
    add_daytona(d, s, w);
}

static void add_lane(struct digest *d, const struct lane *l, const struct when *w)
{
    const struct session *s;
    digest_text(d, l->session_id);
    DL_FOREACH(l->queue, s)
    {
        digest_add(d, 1 + (uint64_t)(s == l->active));
        add_session(d, s, w);
    }
    DL_FOREACH(l->destroys, s)
    {
        digest_add(d, 3 + (uint64_t)(s == l->active));
        add_session(d, s, w);
    }
    digest_text(d, w->now < l->memory_ns ? l->box_id : NULL);
    digest_until(d, l->memory_ns, w->now);
    digest_until(d, l->node.at, w->now);
}

/* ---- partitions, batches, the whole ---- */

/* As they are committed: that is all there is to them. */
static void add_offsets(struct digest *d, const struct offsets *o)
{
    struct buf text;
    buf_init(&text, OFFSETS_TEXT_MAX);
    offsets_encode(o, &text);
    digest_add(d, (uint64_t)o->watermark);
    digest_text(d, buf_text(&text));
    buf_done(&text);
}

/* Plain numbers, but for the node at its end. */
static void add_trial(struct digest *d, const struct trial *t, uint64_t now)
{
    digest_bytes(d, t, offsetof(struct trial, idle));
    digest_until(d, t->idle.at, now);
}

static void add_part(struct digest *d, const struct part *p, uint64_t now)
{
    digest_add(d, (uint64_t)p->id);
    digest_add(d, (uint64_t)p->in_batch | (uint64_t)p->open << 1 | (uint64_t)p->closing << 2 |
                      (uint64_t)(p->sweep.flight.id != 0) << 3 | (uint64_t)p->parked << 8);
    add_offsets(d, &p->done);
    if (p->in_batch)
        add_offsets(d, &p->next);
    add_trial(d, &p->trial, now);
    digest_add(d, (uint64_t)p->last_taken);
    digest_add(d, (uint64_t)p->gap_from);
    digest_add(d, (uint64_t)p->gap_to);
    digest_add(d, p->beyond ? (uint64_t)p->beyond->offset : NEVER);
    digest_add(d, (uint64_t)p->started);
    digest_add(d, (uint64_t)p->started_before);
    digest_until(d, p->hint_ns, now);
    digest_text(d, p->sweep.cursor);
    digest_until(d, p->node.at, now);
}

static void add_results(struct digest *d, const struct result *list)
{
    const struct result *r;
    DL_FOREACH(list, r)
    {
        digest_add(d, r->part ? (uint64_t)r->part->id : NEVER);
        digest_add(d, (uint64_t)r->offset << 1 | (r->session != NULL));
    }
    digest_add(d, NEVER);
}

static void add_account(struct digest *d, const struct account *a, uint64_t now)
{
    const struct session *s;
    digest_add(d, (uint64_t)a->unauthorized << 1 | (a->key.id != 0));
    digest_until(d, a->unauthorized ? a->key_ns : NEVER, now);
    for (size_t i = 0; i < SCOPES_MAX; i++)
        digest_until(d, a->budget.blocked_until[i], now);
    DL_FOREACH2(a->parked, s, park_next)
    digest_add(d, (uint64_t)s->offset);
    digest_until(d, a->node.at, now);
}

/* When the next one may begin. */
static void add_batch(struct digest *d, const struct core *c, uint64_t now)
{
    digest_add(d, c->batch != NULL);
    digest_until(d, c->batch ? c->batch_begin_ns + BATCH_APART_NS : c->batch_not_before_ns, now);
}

void world_core_digest_lost(const struct core *c, uint64_t now, struct digest *d)
{
    for (const struct lane *l = c->lanes; l; l = l->hh.next) {
        if (now >= l->memory_ns || !l->box_id)
            continue;
        digest_text(d, l->session_id);
        digest_text(d, l->box_id);
        digest_until(d, l->memory_ns, now);
    }
    if (c->batch) /* until it has its outcome */
        digest_add(d, (uint64_t)c->closing << 1 | c->last_batch);
    add_batch(d, c, now);
}

void world_core_digest(const struct core *c, uint64_t now, uint64_t wall_ms, struct digest *d)
{
    const struct when when = {now, wall_ms};
    for (const struct part *p = c->parts; p; p = p->hh.next)
        add_part(d, p, now);
    for (const struct lane *l = c->lanes; l; l = l->hh.next)
        add_lane(d, l, &when);
    for (size_t i = 0; i < c->n_accounts; i++)
        add_account(d, &c->accounts[i], now);
    add_results(d, c->ready);
    add_results(d, c->flying);
    digest_add(d, (uint64_t)c->closing << 1 | (uint64_t)c->last_batch << 2 |
                      (uint64_t)c->draining << 3 | (uint64_t)c->drained << 4 |
                      (uint64_t)c->leaving << 5 | (uint64_t)c->goodbye << 6 |
                      (uint64_t)(int64_t)c->tried << 8);
    digest_until(d, c->batch_node.at, now);
    add_batch(d, c, now);
    digest_until(d, c->leaving ? c->leave_ns : c->draining ? c->drain_ns : NEVER, now);
}
