/* lane: the queue of one session's jobs, and the sandboxes of that session that are to be
 * destroyed.
 *
 * One of them is active at a time. Jobs come first, in record order; the first stays active until
 * its result is committed. A destroy holds the lane from its look to its answer; between two tries
 * it is queued again, and gives way. A lane that is idle and blank is freed, after a minute of
 * remembering the session's last sandbox. */
#include "worker/core/internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

#define PUT_OFF_FIRST_NS (200 * NS_PER_MS)
#define PUT_OFF_MOST_NS (30 * NS_PER_S)

struct lane *lane_get(struct core *c, const char *session_id)
{
    struct lane *l;
    HASH_FIND_STR(c->lanes, session_id, l);
    if (l)
        return l;
    l = xcalloc(1, sizeof *l);
    l->session_id = xstrdup(session_id);
    heap_node_init(&l->node, NODE_LANE);
    HASH_ADD_KEYPTR(hh, c->lanes, l->session_id, strlen(l->session_id), l);
    return l;
}

static void lane_free(struct core *c, struct lane *l)
{
    HASH_DEL(c->lanes, l);
    heap_set(&c->heap, &l->node, NEVER);
    free(l->session_id);
    free(l->box_id);
    free(l);
}

/* What was taken after them ends the starts before it. */
static void cancel_earlier(struct lane *l)
{
    struct session *s;
    DL_FOREACH(l->queue, s)
    {
        bool can = session_is_start(s) && s->state != S_FINISHED;
        s->cancelled |= can;
    }
}

void lane_add(struct lane *l, struct session *s)
{
    if (!session_is_start(s))
        cancel_earlier(l);
    s->lane = l;
    DL_APPEND(l->queue, s);
}

void lane_add_destroy(struct lane *l, struct session *s)
{
    s->lane = l;
    DL_APPEND(l->destroys, s);
}

static struct session *due_destroy(const struct core *c, struct lane *l, uint64_t *next)
{
    struct session *s;
    *next = NEVER;
    DL_FOREACH(l->destroys, s)
    {
        if (s->part->closing)
            continue;
        if (s->limit_ns <= c->now_ns)
            return s;
        *next = MIN(*next, s->limit_ns);
    }
    return NULL;
}

static struct session *next_of(struct core *c, struct lane *l, uint64_t *wake)
{
    *wake = NEVER;
    if (l->queue)
        return c->draining || l->queue->part->closing ? NULL : l->queue;
    return due_destroy(c, l, wake);
}

void lane_kick(struct core *c, struct lane *l)
{
    if (l->active) { /* a cancelled start that only waits notices at once */
        struct session *s = l->active;
        if (s->cancelled && s->state == S_RUNNING && !session_failing(s) && engine_waiting(s))
            engine_run(s);
        return;
    }
    uint64_t wake;
    struct session *s = next_of(c, l, &wake);
    if (s) {
        l->active = s;
        session_begin(s);
        return;
    }
    bool blank = !l->queue && !l->destroys;
    if (blank && (!l->box_id || c->now_ns >= l->memory_ns))
        lane_free(c, l);
    else
        heap_set(&c->heap, &l->node, blank ? l->memory_ns : wake);
}

void lane_tick(struct core *c, struct lane *l)
{
    heap_set(&c->heap, &l->node, NEVER);
    lane_kick(c, l);
}

void lane_remember(struct core *c, struct lane *l, const char *box_id)
{
    char *copy = xstrdup0(box_id);
    free(l->box_id);
    l->box_id = copy;
    l->memory_ns = c->now_ns + LANE_MEMORY_NS;
}

void lane_remove(struct session *s)
{
    struct lane *l = s->lane;
    if (s->job)
        DL_DELETE(l->queue, s);
    else
        DL_DELETE(l->destroys, s);
    if (l->active == s)
        l->active = NULL;
}

/* ---- destroys ---- */

static bool destroy_known(const struct lane *l, const char *id, enum destroy_why why)
{
    const struct session *s;
    DL_FOREACH(l->destroys, s)
    if (strcmp(s->box->id, id) == 0 && (s->destroy_why == STOP_KEPT) == (why == STOP_KEPT))
        return true;
    return false;
}

void lane_spare_kept(struct lane *l, const char *box_id, bool ready)
{
    struct session *s, *tmp;
    DL_FOREACH_SAFE(l->destroys, s, tmp)
    {
        bool same = box_id && strcmp(s->box->id, box_id) == 0;
        bool overtaken = s->destroy_why == STOP_KEPT ? ready : same;
        if (!overtaken)
            continue;
        lane_remove(s);
        session_bury(s);
    }
}

void destroy_new(struct core *c, struct part *p, struct lane *l, struct account *a,
                 const struct box *box, enum destroy_why why)
{
    if (destroy_known(l, box->id, why))
        return;
    struct session *s = session_new(c, p, a, -1);
    s->box->id = xstrdup(box->id);
    free(s->box->name);
    s->box->name = xstrdup0(box->name);
    s->destroy_why = why;
    s->limit_ns = c->now_ns; /* while queued: when it is tried */
    lane_add_destroy(l, s);
    s->log_fields[0] = L_STR("session", l->session_id);
    s->log = (struct log_scope){.fields = s->log_fields, .n = 1};
}

/* 0.2 s, doubled by every try, at most 30 s. */
static uint64_t put_off_ns(unsigned tries)
{
    uint64_t ns = PUT_OFF_FIRST_NS;
    for (; tries > 1 && ns < PUT_OFF_MOST_NS; tries--)
        ns *= 2;
    return MIN(ns, PUT_OFF_MOST_NS);
}

void destroy_put_off(struct session *s, uint64_t after_ns)
{
    struct core *c = s->core;
    struct lane *l = s->lane;
    engine_stop(s);
    l->active = NULL;
    s->state = S_QUEUED;
    s->facts = 0;
    s->phase = N_PHASES;
    s->limit = LIMIT_NONE;
    s->again++;
    s->limit_ns = c->now_ns + jitter_ns(&c->rng, MAX(after_ns, put_off_ns(s->again)));
    bool too_long = c->now_ns - s->taken_ns > DESTROY_FOR_NS;
    if (too_long || c->draining) {
        log_warn(&s->log, "a sandbox could not be destroyed in time, the sweep will find it",
                 L_STR("sandbox", s->box->id));
        lane_remove(s);
        session_bury(s);
    }
    lane_kick(c, l);
}
