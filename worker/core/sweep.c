/* sweep: garbage of the partitions we own.
 *
 * Garbage is a provisional sandbox, in whatever state, whose job is finished by the committed state
 * and whose lane is empty. No clock, no age: a job that is not committed will be redelivered and
 * may want it. What is found goes the way of every destroy: a look by id, then stop. */
#include "worker/core/internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

static char *partition_label(const struct core *c, const struct part *p)
{
    return xasprintf("%s/%d", c->config->topics.jobs, (int)p->id);
}

static void round_over(struct core *c, struct part *p)
{
    free(p->sweep.cursor);
    p->sweep.cursor = NULL;
    p->sweep.account = 0;
    uint64_t pause_ns = (uint64_t)c->config->sweep.every_seconds * NS_PER_S;
    heap_set(&c->heap, &p->node, c->now_ns + jitter_ns(&c->rng, pause_ns));
}

static void list_page(struct core *c, struct part *p)
{
    const struct provider *provider = c->accounts[p->sweep.account].provider;
    char *label = partition_label(c, p);
    struct listing q = {.partition = label, .cursor = p->sweep.cursor};
    struct call call;
    provider->ops->ask_list(provider, &q, &call);
    free(label);
    uint64_t when = account_when(&c->accounts[p->sweep.account], call.scope, c->now_ns);
    if (when > c->now_ns) {
        call_done(&call);
        if (when == NEVER)
            round_over(c, p);
        else
            heap_set(&c->heap, &p->node, when);
        return;
    }
    p->sweep.flight.kind = FLIGHT_SWEEP;
    p->sweep.flight.owner = p;
    p->sweep.flight.step = STEP_FIND;
    core_send(c, &p->sweep.flight, &call);
}

void sweep_tick(struct core *c, struct part *p)
{
    heap_set(&c->heap, &p->node, NEVER);
    if (!p->closing && !c->draining)
        list_page(c, p);
}

/* The offset of the job that made the box, if it is of this partition; -1 otherwise. */
static int64_t job_offset(const struct core *c, const struct part *p, const char *label_job)
{
    char *prefix = partition_label(c, p);
    size_t n = strlen(prefix);
    int64_t offset = -1;
    bool here = label_job && strncmp(label_job, prefix, n) == 0 && label_job[n] == '/';
    if (!here || !parse_i64(label_job + n + 1, strlen(label_job + n + 1), 0, INT64_MAX, &offset))
        offset = -1;
    free(prefix);
    return offset;
}

static bool lane_busy(struct core *c, const char *session_id)
{
    struct lane *l;
    HASH_FIND_STR(c->lanes, session_id, l);
    return l && (l->queue || l->destroys || l->active);
}

static void look_at(struct core *c, struct part *p, const struct box *b)
{
    int64_t offset = job_offset(c, p, b->label_job);
    if (!b->provisional || !b->ours || !b->id || !b->label_session || offset < 0)
        return;
    if (!offsets_is_done(&p->done, offset) || lane_busy(c, b->label_session))
        return;
    log_info(NULL, "sweep: garbage", L_STR("sandbox", b->id), L_STR("session", b->label_session),
             L_STR("state", b->state_name), L_STR("job", b->label_job));
    metric_add(M_SANDBOXES_SWEPT, 1);
    if (c->config->sweep.dry_run)
        return;
    struct lane *l = lane_get(c, b->label_session);
    destroy_new(c, p, l, &c->accounts[p->sweep.account], b, SWEPT);
    lane_kick(c, l);
}

static void next_page(struct core *c, struct part *p, char *cursor)
{
    if (cursor && p->sweep.cursor && strcmp(cursor, p->sweep.cursor) == 0) { /* no end of it */
        log_warn(NULL, "sweep: the list goes in a circle", L_INT("partition", p->id));
        free(cursor);
        cursor = NULL;
    }
    free(p->sweep.cursor);
    p->sweep.cursor = cursor;
    if (!cursor && ++p->sweep.account >= c->n_accounts)
        round_over(c, p);
    else
        list_page(c, p);
}

void sweep_reply(struct core *c, struct part *p, const struct reply *r)
{
    struct account *a = &c->accounts[p->sweep.account];
    struct listed listed = {0};
    struct answer answer = {0};
    char *label = partition_label(c, p);
    struct listing q = {.partition = label, .cursor = p->sweep.cursor};
    a->provider->ops->answer_list(a->provider, &q, r, &listed, &answer);
    account_noted(c, a, p->sweep.flight.scope, &answer);
    bool ok = answer.verdict == OK;
    if (!ok)
        log_warn(NULL, "sweep: the list could not be read, trying again later",
                 L_INT("partition", p->id), L_INT("status", answer.http_status),
                 L_STR("why", answer.message));
    for (size_t i = 0; ok && i < listed.n; i++)
        look_at(c, p, listed.boxes[i]);
    char *cursor = listed.next;
    listed.next = NULL;
    listed_done(a->provider, &listed);
    answer_done(&answer);
    free(label);
    if (ok) {
        next_page(c, p, cursor);
    } else {
        free(cursor);
        round_over(c, p);
    }
}
