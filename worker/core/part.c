/* part: the partitions we own: what was taken from each, what is done, and giving it back.
 *
 * A partition is open while there is room: in flight, results not yet published, its window, nobody
 * parked. Revoke is a state: nothing is taken any more, one last batch takes what has finished,
 * then its sessions are dropped with their sandboxes left as they are, and only then it is
 * released. */
#include "worker/core/internal.h"

#include <stdlib.h>

#include "common/xalloc.h"

#define FIRST_SWEEP_NS (2 * NS_PER_S)

struct part *part_get(struct core *c, int32_t id)
{
    struct part *p;
    HASH_FIND(hh, c->parts, &id, sizeof id, p);
    return p;
}

static void forget_session(struct core *c, struct session *s)
{
    struct lane *l = s->lane;
    lane_remove(s);
    session_bury(s);
    lane_kick(c, l);
}

static void part_free(struct core *c, struct part *p)
{
    core_cancel(c, &p->sweep.flight);
    heap_set(&c->heap, &p->node, NEVER);
    trial_end(c, p);
    HASH_DEL(c->parts, p);
    free(p->sweep.cursor);
    free(p);
}

/* Its sessions end here, their sandboxes stay as they are; lanes begin nothing of a closing
 * partition. */
static void part_drop(struct core *c, struct part *p)
{
    p->closing = true;
    batch_drop_part(c, p);
    while (p->sessions)
        forget_session(c, p->sessions);
    part_free(c, p);
}

void parts_free(struct core *c)
{
    for (struct part *p = c->parts; p; p = p->hh.next)
        p->closing = true;
    while (c->parts)
        part_drop(c, c->parts);
}

void part_assigned(struct core *c, const struct input *in)
{
    struct part *p = part_get(c, in->assigned.partition);
    if (p)
        part_drop(c, p);
    p = xcalloc(1, sizeof *p);
    p->id = in->assigned.partition;
    p->last_taken = -1;
    int64_t offset = MAX(in->assigned.offset, 0);
    if (!offsets_decode(&p->done, offset, in->assigned.metadata)) {
        log_warn(NULL,
                 "the committed offset's metadata is not ours or damaged: jobs above it run again",
                 L_INT("partition", p->id), L_INT("offset", offset));
        metric_add(M_OFFSETS_REPLAYED, 1);
    }
    p->started = p->started_before = p->done.highest_started;
    trial_begin(c, p);
    heap_node_init(&p->node, NODE_PART);
    HASH_ADD(hh, c->parts, id, sizeof p->id, p);
    c->partitions_total = in->assigned.partitions_total;
    if (c->config->sweep.every_seconds > 0)
        heap_set(&c->heap, &p->node,
                 c->now_ns + FIRST_SWEEP_NS + rng_below(&c->rng, FIRST_SWEEP_NS));
    log_info(NULL, "partition assigned", L_INT("partition", p->id), L_INT("offset", offset),
             L_UINT("done_above", offsets_done_above(&p->done)));
    accounts_share(c);
}

static void release(struct core *c, const int32_t *ids, size_t n)
{
    struct effect *e = core_effect(c, DO_RELEASE);
    e->release.partitions = xcalloc(n, sizeof *ids);
    e->release.n = n;
    for (size_t i = 0; i < n; i++)
        e->release.partitions[i] = ids[i];
}

void part_revoked(struct core *c, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct part *p = part_get(c, ids[i]);
        if (p)
            p->closing = c->closing = true;
        else
            release(c, &ids[i], 1); /* lost meanwhile: nothing to give back */
    }
    accounts_share(c);
}

void part_lost(struct core *c, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct part *p = part_get(c, ids[i]);
        if (p)
            part_drop(c, p);
    }
    accounts_share(c);
}

bool parts_release(struct core *c)
{
    if (!c->closing || c->batch)
        return false;
    int32_t *ids = xcalloc(HASH_COUNT(c->parts), sizeof *ids);
    size_t n = 0;
    for (struct part *p = c->parts, *next; p; p = next) {
        next = p->hh.next;
        if (!p->closing)
            continue;
        ids[n++] = p->id;
        log_info(NULL, "partition released", L_INT("partition", p->id),
                 L_INT("offset", p->done.watermark));
        part_drop(c, p);
    }
    if (n)
        release(c, ids, n);
    free(ids);
    c->closing = c->last_batch = false;
    return true;
}

/* ---- taking ---- */

static bool wants(const struct core *c, const struct part *p)
{
    size_t most = (size_t)c->config->jobs.max_in_flight;
    return trial_may_take(p) && !p->closing && !c->draining && !accounts_unauthorized(c) &&
           c->in_flight < most && c->n_ready < most && p->parked == 0 &&
           offsets_has_room(&p->done, MAX(p->last_taken + 1, p->done.watermark));
}

void parts_take(struct core *c)
{
    for (struct part *p = c->parts; p; p = p->hh.next) {
        bool open = wants(c, p);
        if (open == p->open)
            continue;
        p->open = open;
        trial_opened(c, p);
        struct effect *e = core_effect(c, DO_TAKE);
        e->take.partition = p->id;
        e->take.open = open;
    }
}

static void fill_gap(struct part *p)
{
    bool progress = p->done.watermark > p->trial.began;
    if (p->in_batch)
        (void)offsets_gap(&p->next, p->gap_from, p->gap_to);
    p->gap_from = offsets_gap(&p->done, p->gap_from, p->gap_to);
    if (!progress) /* nor is it one that the next record has a higher offset */
        p->trial.began = p->done.watermark;
}

/* Offsets between the last record and this one will never come. They may be more than the window
 * holds (retention, compaction): then the rest waits for the watermark, and so does the result of
 * the record behind them. It is the only one there, since nothing is taken after it. */
static void note_gap(struct part *p, int64_t offset)
{
    int64_t from = MAX(p->last_taken + 1, p->done.watermark);
    if (offset <= from)
        return;
    p->gap_from = from;
    p->gap_to = offset;
    fill_gap(p);
}

void part_moved(struct core *c, struct part *p)
{
    if (p->gap_from < p->gap_to)
        fill_gap(p);
    struct result *r = p->beyond;
    if (!r || !offsets_has_room(&p->done, r->offset))
        return;
    p->beyond = NULL;
    DL_APPEND(c->ready, r);
    c->n_ready++;
}

/* The log begins again below the committed offset: topic made anew, or truncated. */
static bool log_restarts(const struct part *p, int64_t offset)
{
    return p->last_taken < 0 && offset < p->done.watermark && !p->in_batch;
}

static void log_restarted(struct core *c, struct part *p, int64_t offset)
{
    log_warn(NULL, "the log begins again below the committed offset: what was committed is dropped",
             L_INT("partition", p->id), L_INT("committed", p->done.watermark),
             L_INT("offset", offset));
    metric_add(M_OFFSETS_REPLAYED, 1);
    uint8_t strikes = p->done.strikes;
    offsets_init(&p->done, offset);
    p->done.strikes = strikes; /* as committed */
    p->started = p->started_before = -1;
    trial_restart(c, p);
}

static bool seen(const struct part *p, int64_t offset)
{
    return offset <= p->last_taken || offsets_is_done(&p->done, offset);
}

bool core_may_parse(const struct core *c, int32_t partition, int64_t offset)
{
    const struct part *p;
    HASH_FIND(hh, c->parts, &partition, sizeof partition, p);
    if (!p || p->closing)
        return false;
    return log_restarts(p, offset) || (!seen(p, offset) && !trial_guilty(p, offset));
}

static void take(struct core *c, struct part *p, const struct input *in)
{
    const struct record *r = in->job.record;
    bool guilty = trial_read(p, r->offset);
    if (in->job.job && !guilty) {
        struct session *s = session_of_job(c, p, in->job.job);
        lane_kick(c, s->lane);
        return;
    }
    if (guilty) {
        job_free(in->job.job);
        poison_take(c, p, r);
        return;
    }
    ASSERT(in->job.refusal);
    struct result *result = result_new(c, p, r->offset);
    report_refusal(c, result, r, in->job.refusal);
}

void part_job(struct core *c, const struct input *in)
{
    const struct record *r = in->job.record;
    struct part *p = part_get(c, r->partition);
    metric_add(M_JOBS_RECEIVED, 1);
    if (!p || p->closing) {
        job_free(in->job.job);
        return;
    }
    if (log_restarts(p, r->offset))
        log_restarted(c, p, r->offset);
    bool again = seen(p, r->offset);
    note_gap(p, r->offset);
    p->last_taken = MAX(p->last_taken, r->offset);
    if (again) {
        metric_add(M_JOBS_SKIPPED, 1);
        job_free(in->job.job);
        return;
    }
    take(c, p, in);
}
