/* world_check: what must be true, said over what the outside can see.
 *
 * That is: events that became visible, committed offsets and their metadata, sandboxes at Daytona
 * and the requests that are sent there; never the inside of a core, which has its own core_check().
 *
 * When an event becomes visible:
 * - No job has two. The session's earlier jobs of the partition have theirs already.
 * - A ready one names a sandbox that is kept and nobody else's.
 * When offsets are committed: whatever they say is done has its event.
 * When a request is sent:
 * - Nothing provisional is stopped before its job's event is committed, and nothing ready at all,
 *   unless a user asked for it.
 * - DELETE is sent for what a delete-session asked for, and for what is provisional and in error.
 * At any time:
 * - Somebody else's sandbox is neither gone nor given away.
 * - A sandbox that an event named as kept stays, unless a later job asked for its deletion.
 * - A sandbox that is kept and not named belongs to a job that is still to be committed. Two
 *   exceptions: a KEEP that reached Daytona after its sender had given it up, and a start that
 *   failed while Daytona refused our key, so that nobody could look.
 * - Without any fault, a sandbox has one server, or one for each start if they die or are stopped.
 * When all is quiet:
 * - Every job is committed and has exactly one event.
 * - No sandbox of ours is left that no event names. One exception is counted, not blamed: kept by a
 *   request that a successor overtook. It is stopped, unless who was to stop it was lost as well.
 * - What was reported as deleted is gone.
 * - No request was sent that no careful client sends.
 *
 * Foreign metadata forgets what was done above the offset: those jobs run again and may have a
 * second event each, and a delete among them finds what a later job has made or kept. */
#include "tests/sim/world_impl.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "tests/sim/digest.h"
#include "worker/core/offsets.h"

/* ---- jobs ---- */

static const struct job_plan *job_at(const struct world *w, unsigned p, size_t offset)
{
    return &w->plan->jobs[w->parts[p].records[offset]];
}

static const struct visible *event_of(const struct world *w, unsigned p, int64_t offset)
{
    for (size_t i = 0; i < w->n_seen; i++)
        if (w->seen[i].partition == p && w->seen[i].offset == offset)
            return &w->seen[i];
    return NULL;
}

static bool is_type(const struct job_plan *j, const char *type)
{
    return strstr(j->value, type) != NULL;
}

struct wanted { /* what is looked for among the jobs in the log */
    const char *session, *type;
    int64_t after; /* its offset is higher */
    bool open;     /* it has no event yet */
};

static bool was_asked(const struct world *w, const struct wanted *a)
{
    for (unsigned p = 0; p < w->plan->partitions; p++)
        for (size_t o = 0; o < w->parts[p].n; o++) {
            const struct job_plan *j = job_at(w, p, o);
            if ((int64_t)o > a->after && !strcmp(j->session, a->session) && is_type(j, a->type) &&
                (!a->open || !event_of(w, p, (int64_t)o)))
                return true;
        }
    return false;
}

/* How many servers one sandbox of the session may need: one, but for those that die, and those that
 * are stopped. */
static unsigned servers_for(const struct world *w, const char *session)
{
    unsigned starts = 0;
    bool one = true;
    for (size_t i = 0; i < w->plan->n_jobs; i++) {
        const struct job_plan *j = &w->plan->jobs[i];
        if (strcmp(j->session, session) != 0)
            continue;
        starts += is_type(j, "start-s");
        one &= !is_type(j, "stop") && !is_type(j, "sim-");
    }
    return one ? 1 : starts;
}

static bool was_overwritten(const struct world *w)
{
    return w->out->faults[FOREIGN_METADATA] > 0;
}

/* ---- what a reader sees ---- */

struct look {
    const char *id;
    size_t len;
    struct sim_sandbox found;
};

static void look_at(void *arg, const struct sim_sandbox *s)
{
    struct look *l = arg;
    if (strlen(s->id) == l->len && !memcmp(s->id, l->id, l->len))
        l->found = *s;
}

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

static void visible_done(struct visible *v)
{
    free(v->ce_id);
    free(v->type);
    free(v->session);
    free(v->sandbox);
    free(v->cleanup);
}

/* "<topic>/<partition>/<offset>" */
static void read_id(struct visible *v)
{
    const char *slash = strrchr(v->ce_id, '/');
    ASSERT(slash && slash > v->ce_id);
    int64_t partition = 0;
    const char *p = slash;
    while (p > v->ce_id && p[-1] != '/')
        p--;
    ASSERT(parse_i64(slash + 1, strlen(slash + 1), 0, INT64_MAX, &v->offset));
    ASSERT(parse_i64(p, (size_t)(slash - p), 0, PARTITIONS_MAX - 1, &partition));
    v->partition = (unsigned)partition;
}

static void read_event(const struct message *m, struct visible *v)
{
    cJSON *o = cJSON_ParseWithLength(m->value, m->value_len);
    *v = (struct visible){.ce_id = xstrdup(header_of(m, "ce_id")),
                          .type = text_of(o, "type", NULL),
                          .session = text_of(o, "session_id", NULL),
                          .sandbox = text_of(o, "sandbox", "id"),
                          .cleanup = text_of(o, "sandbox", "cleanup")};
    char *code = text_of(o, "error", "code");
    v->blind = code && !strcmp(code, "unauthorized") && !v->sandbox;
    free(code);
    cJSON_Delete(o);
    read_id(v);
}

static void add_meaning(struct digest *d, const struct visible *v)
{
    digest_text(d, v->ce_id);
    digest_text(d, v->type);
    digest_text(d, v->sandbox);
    digest_text(d, v->cleanup);
}

uint64_t world_meaning(const struct message *m)
{
    struct digest d = {0};
    struct visible v;
    digest_add(&d, m->to);
    if (m->to != TO_RESULTS)
        return d.sum;
    read_event(m, &v);
    add_meaning(&d, &v);
    visible_done(&v);
    return d.sum;
}

uint64_t world_seen_digest(const struct world *w)
{
    struct digest d = {0};
    for (size_t i = 0; i < w->n_seen; i++)
        add_meaning(&d, &w->seen[i]);
    return d.sum;
}

/* One more of the same job is right only once its record was to run again. */
static void check_first(struct world *w, const struct visible *v)
{
    for (size_t i = 0; i < w->n_seen; i++) {
        struct visible *before = &w->seen[i];
        if (strcmp(before->ce_id, v->ce_id) != 0)
            continue;
        if (!before->again)
            world_broken(w, "two events of %s", v->ce_id);
        before->again = false;
    }
}

static void check_lane(struct world *w, const struct visible *v)
{
    for (int64_t o = 0; o < v->offset; o++) {
        bool same = !strcmp(job_at(w, v->partition, (size_t)o)->session,
                            job_at(w, v->partition, (size_t)v->offset)->session);
        if (same && !event_of(w, v->partition, o))
            world_broken(w, "%s has its event before %" PRId64 " of the same session", v->ce_id, o);
    }
}

/* "kept" in a failure may also mean that nobody could find out: then it counts only if it is so. */
static bool says_kept(const struct world *w, const struct visible *v)
{
    if (!v->sandbox || !strcmp(v->type, "session-ready"))
        return v->sandbox != NULL;
    struct look l = {.id = v->sandbox, .len = strlen(v->sandbox)};
    model_each_sandbox(w->model, look_at, &l);
    return v->cleanup && !strcmp(v->cleanup, "kept") && l.found.id && l.found.auto_delete != 0;
}

void world_becomes_visible(struct world *w, const struct message *m)
{
    struct visible v;
    if (m->to != TO_RESULTS)
        return;
    read_event(m, &v);
    check_first(w, &v);
    check_lane(w, &v);
    v.kept = says_kept(w, &v);
    world_tell(w, "EVENT %s %s %s", v.ce_id, v.type, m->value);
    GROW(w->seen, w->n_seen, w->cap_seen);
    w->seen[w->n_seen++] = v;
}

void world_seen_done(struct world *w)
{
    for (size_t i = 0; i < w->n_seen; i++)
        visible_done(&w->seen[i]);
    free(w->seen);
}

/* ---- offsets ---- */

void world_check_commit(struct world *w, unsigned p, int64_t watermark, const char *metadata)
{
    struct offsets o;
    if (strlen(metadata) > 4096)
        world_broken(w, "metadata of %zu characters", strlen(metadata));
    if (!offsets_decode(&o, watermark, metadata)) {
        world_broken(w, "p%u: a worker commits metadata that nobody can read", p);
        return;
    }
    for (int64_t at = 0; at < o.high; at++)
        if (offsets_is_done(&o, at) && !event_of(w, p, at))
            world_broken(w, "p%u: %" PRId64 " is committed as done and has no event", p, at);
}

/* ---- sandboxes ---- */

static char *label_of(const struct sim_sandbox *s, const char *name)
{
    cJSON *labels = cJSON_Parse(s->labels);
    char *value = text_of(labels, name, NULL);
    cJSON_Delete(labels);
    return value;
}

static bool is_foreign(const struct sim_sandbox *s)
{
    return strstr(s->labels, "session-worker/fleet") == NULL;
}

/* The first event that says so; NULL: none. */
static const struct visible *named_kept(const struct world *w, const char *id)
{
    for (size_t i = 0; i < w->n_seen; i++) {
        const struct visible *v = &w->seen[i];
        if (v->kept && !strcmp(v->sandbox, id))
            return v;
    }
    return NULL;
}

/* The event of the job that made the sandbox is there for all to see. */
static bool maker_has_ended(const struct world *w, const struct sim_sandbox *s)
{
    char *maker = label_of(s, "session-worker/job");
    bool ended = false;
    for (size_t i = 0; maker && i < w->n_seen; i++)
        ended |= !strcmp(w->seen[i].ce_id, maker);
    free(maker);
    return ended;
}

static bool user_asks(const struct world *w, const char *session, const char *type)
{
    return was_asked(w, &(struct wanted){.session = session, .type = type, .after = -1});
}

/* One that has slept may still send what was right when it fell asleep. */
static bool is_owner(const struct world *w, unsigned worker, const char *session)
{
    for (size_t i = 0; i < w->plan->n_jobs; i++)
        if (!strcmp(w->plan->jobs[i].session, session))
            return w->parts[w->plan->jobs[i].partition].owner == (int)worker;
    return false;
}

static void check_stop(struct world *w, const struct sim_sandbox *s, const char *session,
                       unsigned worker)
{
    const struct visible *v = named_kept(w, s->id);
    bool early = s->live && s->auto_delete == 0 && !maker_has_ended(w, s);
    bool in_use = s->live && v && !strcmp(v->type, "session-ready");
    bool asked = user_asks(w, session, "stop-s") || user_asks(w, session, "delete-s");
    if (early && !asked && !was_overwritten(w))
        world_broken(w, "a stop is sent to sandbox %s before its job's event is committed", s->id);
    if (in_use && !asked && is_owner(w, worker, session))
        world_broken(w, "a stop is sent to sandbox %s, which is ready", s->id);
}

static void check_delete(struct world *w, const struct sim_sandbox *s, const char *session)
{
    bool broken = s->auto_delete == 0 && !strcmp(s->state, "error");
    if (s->live && !broken && !user_asks(w, session, "delete-s"))
        world_broken(w, "a DELETE is sent to sandbox %s, and nobody asked for it", s->id);
}

void world_check_request(struct world *w, const struct request *r)
{
    const char *id = strstr(r->c.url, "/api/sandbox/");
    bool delete = !strcmp(r->c.method, "DELETE");
    if (!id)
        return;
    if (!strcmp(r->c.method, "POST"))
        ASSERT(!r->c.body || r->c.content_type);
    id += strlen("/api/sandbox/");
    struct look l = {.id = id, .len = strcspn(id, "/?")};
    bool stop = !strcmp(r->c.method, "POST") && !strncmp(id + l.len, "/stop", 5);
    if (!stop && !delete)
        return;
    model_each_sandbox(w->model, look_at, &l);
    char *session = l.found.id ? label_of(&l.found, "OpenHands_SID") : NULL;
    if (session && stop)
        check_stop(w, &l.found, session, r->worker);
    else if (session)
        check_delete(w, &l.found, session);
    free(session);
}

static bool rests(const struct sim_sandbox *s)
{
    return !strncmp(s->state, "stop", 4) || !strncmp(s->state, "archiv", 6);
}

static void check_named(struct world *w, const struct sim_sandbox *s, const char *session,
                        const struct visible *v)
{
    struct wanted later = {.session = session, .type = "delete-s", .after = v->offset};
    if (s->live && s->auto_delete == 0 && !strcmp(v->type, "session-ready"))
        world_broken(w, "sandbox %s is ready, and nobody has kept it", s->id);
    if (!s->live && !was_asked(w, &later) && !was_overwritten(w))
        world_broken(w, "sandbox %s was named as kept and is gone (%s)", s->id, s->destroyed_by);
    if (!s->live && strcmp(s->destroyed_by, "delete") != 0)
        world_broken(w, "sandbox %s was named as kept and went by %s", s->id, s->destroyed_by);
}

/* A start of the session that ended in the dark may have kept it in an earlier delivery. */
static bool left_in_the_dark(const struct world *w, const char *session)
{
    for (size_t i = 0; i < w->n_seen; i++)
        if (w->seen[i].blind && !strcmp(w->seen[i].session, session))
            return true;
    return false;
}

static void check_unnamed(struct world *w, const struct sim_sandbox *s, const char *session)
{
    struct wanted open = {.session = session, .type = "-session", .after = -1, .open = true};
    bool kept = s->live && s->auto_delete != 0 && !rests(s);
    if (kept && !was_asked(w, &open) && !w->late_keep && !was_overwritten(w) &&
        !left_in_the_dark(w, session))
        world_broken(w, "sandbox %s is kept and runs, and no job is left that knows of it", s->id);
}

static void check_foreign(struct world *w, const struct sim_sandbox *s)
{
    if (!s->live)
        world_broken(w, "sandbox %s is somebody else's and is gone (%s)", s->id, s->destroyed_by);
    if (named_kept(w, s->id))
        world_broken(w, "sandbox %s is somebody else's and was given away", s->id);
}

static void check_sandbox(void *arg, const struct sim_sandbox *s)
{
    struct world *w = arg;
    if (is_foreign(s)) {
        check_foreign(w, s);
        return;
    }
    char *session = label_of(s, "OpenHands_SID");
    const struct visible *v = named_kept(w, s->id);
    if (v)
        check_named(w, s, session, v);
    else
        check_unnamed(w, s, session);
    if (!w->faulty && s->servers_started > servers_for(w, session))
        world_broken(w, "sandbox %s has had %u servers", s->id, s->servers_started);
    free(session);
}

void world_check_sandboxes(struct world *w)
{
    model_each_sandbox(w->model, check_sandbox, w);
}

void world_check_worker(struct world *w, unsigned i)
{
    struct core_status s;
    core_status(w->workers[i].core, &s);
    if (s.in_flight > (size_t)w->config.jobs.max_in_flight)
        world_broken(w, "w%u has %zu jobs in flight", i, s.in_flight);
}

/* ---- the end ---- */

bool world_all_done(const struct world *w)
{
    for (unsigned p = 0; p < w->plan->partitions; p++)
        if (w->parts[p].n && w->parts[p].committed < (int64_t)w->parts[p].n)
            return false;
    return true;
}

struct clean {
    const struct world *w;
    bool all;
};

static bool may_stay(const struct world *w, const struct sim_sandbox *s)
{
    bool kept = s->auto_delete != 0, late = w->late_keep || !strcmp(s->state, "stopped");
    if (!s->live || is_foreign(s) || named_kept(w, s->id) || (kept && late))
        return true;
    char *session = label_of(s, "OpenHands_SID");
    bool dark = kept && left_in_the_dark(w, session);
    free(session);
    return dark;
}

static void check_clean(void *arg, const struct sim_sandbox *s)
{
    struct clean *c = arg;
    c->all &= may_stay(c->w, s);
}

bool world_all_clean(const struct world *w)
{
    struct clean c = {w, true};
    model_each_sandbox(w->model, check_clean, &c);
    return c.all;
}

static void check_jobs(struct world *w)
{
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        const struct part_log *l = &w->parts[p];
        if (l->committed < (int64_t)l->n && l->n)
            world_broken(w, "p%u: committed %" PRId64 " of %zu", p, l->committed, l->n);
        for (size_t o = 0; o < l->n; o++)
            if (!event_of(w, p, (int64_t)o))
                world_broken(w, "no event of %s/%u/%zu", w->config.topics.jobs, p, o);
    }
}

/* The last that was said of it. What was never kept may be used by a later start. */
static bool is_deleted(const struct world *w, const char *id)
{
    bool deleted = false;
    for (size_t i = 0; i < w->n_seen; i++)
        if (w->seen[i].sandbox && !strcmp(w->seen[i].sandbox, id))
            deleted = !strcmp(w->seen[i].type, "session-deleted");
    return deleted;
}

static void check_left(void *arg, const struct sim_sandbox *s)
{
    struct world *w = arg;
    if (s->live && is_deleted(w, s->id) && !w->late_keep)
        world_broken(w, "sandbox %s was reported as deleted and lives", s->id);
    if (!may_stay(w, s))
        world_broken(w, "sandbox %s %s is left over: %s, autoDelete %" PRId64 ", no event names it",
                     s->id, s->name, s->state, s->auto_delete);
    if (!s->live || is_foreign(s) || named_kept(w, s->id))
        return;
    w->out->late_keeps++;
    w->out->left_running += strcmp(s->state, "stopped") != 0;
}

/* What the model has against its clients, but for the DELETE of what is kept: see check_delete. */
static void check_manners(struct world *w)
{
    struct sim_request q = {.method = "GET", .target = "/_sim/stats", .host = ""};
    struct sim_reply reply = {0};
    model_request(w->model, w->now, &q, &reply);
    cJSON *stats = cJSON_Parse(buf_text(&reply.body));
    const cJSON *v;
    cJSON_ArrayForEach(v, cJSON_GetObjectItemCaseSensitive(stats, "violations"))
    {
        if (strcmp(v->string, "DELETE of a kept sandbox") != 0)
            world_broken(w, "no careful client does that: %s", v->string);
    }
    cJSON_Delete(stats);
    sim_reply_done(&reply);
}

void world_check_end(struct world *w)
{
    check_jobs(w);
    world_check_sandboxes(w);
    model_each_sandbox(w->model, check_left, w);
    check_manners(w);
}
