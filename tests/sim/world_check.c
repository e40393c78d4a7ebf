/* world_check: what a reader of the results sees, and what must be true of it.
 *
 * The invariants are said over what the outside can see (events that became visible, committed
 * offsets, sandboxes at Daytona), never over the inside of a core: it has its own core_check().
 *
 * Always:
 * - No job has two events.
 * - Somebody else's sandbox is neither deleted nor given away.
 * - A sandbox that an event named as kept stays, unless a job asked for its deletion.
 * When all is quiet:
 * - Every job is committed and has exactly one event.
 * - No sandbox of ours is left that no event names. One exception is counted, not blamed: stopped,
 *   and kept by a request that a successor overtook. */
#include "tests/sim/world_impl.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

/* ---- what a reader sees ---- */

static const char *header_of(const struct message *m, const char *name)
{
    for (size_t i = 0; i < m->n_headers; i++)
        if (!strcmp(m->headers[i].name, name))
            return m->headers[i].value;
    return "";
}

static char *text_of(const cJSON *o, const char *a, const char *b)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, a);
    if (b)
        v = cJSON_GetObjectItemCaseSensitive(v, b);
    return xstrdup0(cJSON_GetStringValue(v));
}

void world_becomes_visible(struct world *w, const struct message *m)
{
    if (m->to != TO_RESULTS)
        return;
    cJSON *o = cJSON_ParseWithLength(m->value, m->value_len);
    struct visible v = {.ce_id = xstrdup(header_of(m, "ce_id")),
                        .type = text_of(o, "type", NULL),
                        .sandbox = text_of(o, "sandbox", "id"),
                        .cleanup = text_of(o, "sandbox", "cleanup")};
    for (size_t i = 0; i < w->n_seen; i++)
        if (!strcmp(w->seen[i].ce_id, v.ce_id))
            world_broken(w, "two events of %s", v.ce_id);
    world_tell(w, "EVENT %s %s %s", v.ce_id, v.type, m->value);
    GROW(w->seen, w->n_seen, w->cap_seen);
    w->seen[w->n_seen++] = v;
    cJSON_Delete(o);
}

void world_seen_done(struct world *w)
{
    for (size_t i = 0; i < w->n_seen; i++) {
        free(w->seen[i].ce_id);
        free(w->seen[i].type);
        free(w->seen[i].sandbox);
        free(w->seen[i].cleanup);
    }
    free(w->seen);
}

/* ---- sandboxes ---- */

static bool named_kept(const struct world *w, const char *id)
{
    bool named = false;
    for (size_t i = 0; i < w->n_seen; i++) {
        const struct visible *v = &w->seen[i];
        bool it = v->sandbox && !strcmp(v->sandbox, id);
        bool kept =
            !strcmp(v->type, "session-ready") || (v->cleanup && !strcmp(v->cleanup, "kept"));
        named |= it && kept;
    }
    return named;
}

static bool session_has(const struct world *w, const char *type, const char *labels)
{
    for (size_t i = 0; i < w->plan->n_jobs; i++) {
        const struct job_plan *j = &w->plan->jobs[i];
        char *quoted = xasprintf("\"%s\"", j->session);
        bool its = !j->off && strstr(j->value, type) && strstr(labels, quoted);
        free(quoted);
        if (its)
            return true;
    }
    return false;
}

static bool is_foreign(const struct sim_sandbox *s)
{
    return strstr(s->labels, "session-worker/fleet") == NULL;
}

/* The event of the job that made the sandbox is there for all to see. */
static bool maker_has_ended(const struct world *w, const struct sim_sandbox *s)
{
    for (size_t i = 0; i < w->n_seen; i++) {
        char *label = xasprintf("\"session-worker/job\":\"%s\"", w->seen[i].ce_id);
        bool it = strstr(s->labels, label) != NULL;
        free(label);
        if (it)
            return true;
    }
    return false;
}

/* Commit, then destroy: unless a user's own stop or delete asked for it. */
static void check_order(struct world *w, const struct sim_sandbox *s)
{
    bool stopped = !s->live && s->destroyed_by && !strcmp(s->destroyed_by, "stop");
    bool asked =
        session_has(w, "stop-session", s->labels) || session_has(w, "delete-session", s->labels);
    if (stopped && !asked && !is_foreign(s) && !maker_has_ended(w, s))
        world_broken(w, "sandbox %s was destroyed before its job's event was committed", s->id);
}

static void check_sandbox(void *arg, const struct sim_sandbox *s)
{
    struct world *w = arg;
    check_order(w, s);
    if (is_foreign(s) && !s->live)
        world_broken(w, "sandbox %s is somebody else's and is gone (%s)", s->id, s->destroyed_by);
    bool named = named_kept(w, s->id);
    if (is_foreign(s) && named)
        world_broken(w, "sandbox %s is somebody else's and was given away", s->id);
    if (!s->live && named && !session_has(w, "delete-session", s->labels))
        world_broken(w, "sandbox %s was named as kept and is gone (%s)", s->id, s->destroyed_by);
    if (!s->live && named && s->destroyed_by && strcmp(s->destroyed_by, "delete") != 0)
        world_broken(w, "sandbox %s was named as kept and went by %s", s->id, s->destroyed_by);
}

void world_check_sandboxes(struct world *w)
{
    model_each_sandbox(w->model, check_sandbox, w);
}

/* ---- the end ---- */

bool world_all_done(const struct world *w)
{
    for (unsigned p = 0; p < w->plan->partitions; p++)
        if (w->parts[p].n && w->parts[p].committed < (int64_t)w->parts[p].n)
            return false;
    return true;
}

static void check_jobs(struct world *w)
{
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        const struct part_log *l = &w->parts[p];
        if (l->committed < (int64_t)l->n && l->n)
            world_broken(w, "p%u: committed %" PRId64 " of %zu", p, l->committed, l->n);
        for (size_t o = 0; o < l->n; o++) {
            char *id = xasprintf("%s/%u/%zu", w->config.topics.jobs, p, o);
            size_t n = 0;
            for (size_t i = 0; i < w->n_seen; i++)
                n += !strcmp(w->seen[i].ce_id, id);
            if (n != 1)
                world_broken(w, "%zu events of %s", n, id);
            free(id);
        }
    }
}

static void check_end(void *arg, const struct sim_sandbox *s)
{
    struct world *w = arg;
    bool named = named_kept(w, s->id);
    if (!s->live || named || is_foreign(s))
        return;
    if (s->auto_delete != 0 && !strcmp(s->state, "stopped")) {
        w->out->late_keeps++; /* kept by a request that a successor overtook */
        return;
    }
    world_broken(w, "sandbox %s %s is left over: %s, autoDelete %" PRId64 ", no event names it",
                 s->id, s->name, s->state, s->auto_delete);
}

void world_check_end(struct world *w)
{
    check_jobs(w);
    world_check_sandboxes(w);
    model_each_sandbox(w->model, check_end, w);
}
