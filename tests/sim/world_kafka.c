/* world_kafka: the Kafka that matters to a worker: a group with generations, the log of jobs, and
 * transactions that carry offsets.
 *
 * It is the hard half of exactly-once that is played here, in steps of their own: a rebalance waits
 * for what its members still hold; a new owner asks for the committed offset and waits while
 * anybody's transaction is pending on it; the offsets of a transaction are fenced by the generation
 * in which it began. Between any two steps a worker may crash, freeze or lose its partitions.
 *
 * Invariants:
 * - A partition has one owner or none; it changes hands only over "none".
 * - Messages become visible and offsets committed in one step, txn_end, or never.
 * - A worker has one transaction at a time. When it dies, the transaction is dropped, ends, or is
 *   given up by the broker in time; its next life begins without it.
 * - The committed offset never goes back. */
#include "tests/sim/world_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "tests/sim/digest.h"

/* ---- the group ---- */

#define ROUND_MS                                                                                   \
    50 /* step by step: a round of the group is no message, it waits for its members               \
        */

void world_rebalance_soon(struct world *w, uint64_t ms)
{
    if (w->joining)
        return;
    w->joining = true;
    uint64_t about_ms = w->plan->step_by_step ? MAX(ms, ROUND_MS) : ms;
    world_push(w, world_about(w, about_ms), (struct event_at){.what = JOIN});
}

static bool live(const struct worker *k)
{
    return k->core && !k->frozen_until;
}

/* Who should have partition p: round robin over those who are there. -1: nobody. */
static int wanted_owner(const struct world *w, unsigned p)
{
    int members[WORKERS_MAX], n = 0;
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (w->workers[i].core && (!w->workers[i].frozen_until || w->workers[i].member))
            members[n++] = (int)i;
    return n ? members[(p + w->generation) % (unsigned)n] : -1;
}

/* Tells owners what to give back; true when nobody has anything left to give. */
static bool revoke_what_moves(struct world *w)
{
    bool all = true;
    for (unsigned i = 0; i < w->plan->workers; i++) {
        struct worker *k = &w->workers[i];
        int32_t ids[PARTITIONS_MAX];
        size_t n = 0;
        for (unsigned p = 0; p < w->plan->partitions; p++) {
            bool moves =
                w->parts[p].owner == (int)i && (w->plan->eager || wanted_owner(w, p) != (int)i);
            if (!moves)
                continue;
            all = false;
            if (live(k) && !k->revoking[p])
                ids[n++] = (int32_t)p;
        }
        for (size_t x = 0; x < n; x++)
            k->revoking[ids[x]] = true;
        struct input in = {.kind = IN_REVOKED, .gone = {.partitions = ids, .n = n}};
        if (n) {
            world_tell(w, "w%u  REVOKED %zu", i, n);
            world_step(w, i, &in);
        }
    }
    return all;
}

static void assign(struct world *w)
{
    w->generation++;
    w->out->rebalances++;
    for (unsigned i = 0; i < w->plan->workers; i++) {
        struct worker *k = &w->workers[i];
        if (live(k)) {
            k->member = true;
            k->generation = w->generation;
        }
    }
    w->generation--; /* wanted_owner as it was asked before */
    int owners[PARTITIONS_MAX];
    for (unsigned p = 0; p < w->plan->partitions; p++)
        owners[p] = wanted_owner(w, p);
    w->generation++;
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        struct part_log *l = &w->parts[p];
        if (l->owner >= 0 || owners[p] < 0 || !live(&w->workers[owners[p]]))
            continue;
        l->owner = owners[p];
        world_post(w, world_about(w, 10), LOOKUP, (unsigned)l->owner, p);
    }
}

static bool balanced(const struct world *w)
{
    for (unsigned p = 0; p < w->plan->partitions; p++)
        if (w->parts[p].owner < 0)
            return false;
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (live(&w->workers[i]) && !w->workers[i].member)
            return false;
    return true;
}

static bool member_is_silent(const struct world *w)
{
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (w->workers[i].member && (!w->workers[i].core || w->workers[i].frozen_until))
            return true;
    return false;
}

/* A round of the group: it waits for every member, until its session runs out. */
void world_on_join(struct world *w, const struct event_at *e)
{
    (void)e;
    bool wants = !balanced(w);
    w->joining = false;
    if (!wants)
        return;
    if (member_is_silent(w)) {
        if (!w->plan->step_by_step) /* there, its end is what comes next */
            world_rebalance_soon(w, 250);
        return;
    }
    if (!revoke_what_moves(w)) {
        world_rebalance_soon(w, 50);
        return;
    }
    assign(w);
    if (!balanced(w))
        world_rebalance_soon(w, 300);
}

/* Every partition moves, whoever has it. */
void world_rebalance(struct world *w)
{
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        int owner = w->parts[p].owner;
        int32_t id = (int32_t)p;
        if (owner < 0 || !live(&w->workers[owner]) || w->workers[owner].revoking[p])
            continue;
        w->workers[owner].revoking[p] = true;
        struct input in = {.kind = IN_REVOKED, .gone = {.partitions = &id, .n = 1}};
        world_tell(w, "w%d  REVOKED p%u", owner, p);
        world_step(w, (unsigned)owner, &in);
    }
    world_rebalance_soon(w, 20);
}

void world_release(struct world *w, unsigned i, const int32_t *ids, size_t n)
{
    for (size_t p = 0; p < n; p++) {
        w->workers[i].revoking[ids[p]] = false;
        w->workers[i].open[ids[p]] = false;
        if (w->parts[ids[p]].owner == (int)i)
            w->parts[ids[p]].owner = -1;
        world_tell(w, "w%u  RELEASE p%d", i, (int)ids[p]);
    }
    world_rebalance_soon(w, 5);
}

void world_leave(struct world *w, unsigned i)
{
    w->workers[i].member = false;
    for (unsigned p = 0; p < w->plan->partitions; p++)
        if (w->parts[p].owner == (int)i)
            w->parts[p].owner = -1;
    world_rebalance_soon(w, 10);
}

/* ---- look-ups ---- */

static bool pending_elsewhere(const struct world *w, unsigned p)
{
    for (unsigned i = 0; i < w->plan->workers; i++) {
        const struct txn *t = &w->workers[i].txn;
        for (size_t o = 0; t->state == TXN_PENDING && o < t->n_offsets; o++)
            if (t->offsets[o].partition == (int32_t)p)
                return true;
    }
    return false;
}

/* Somebody's tool has set the offset anew, with its own metadata or with none, or an older version
 * of the worker has, whose metadata ours cannot read. What was done above the offset is forgotten.
 */
static void make_foreign(struct world *w, unsigned p)
{
    static const char *const texts[] = {"", "moved by hand",
                                        "1QABAAAAAAAAAAA=", "{\"host\":\"other-consumer\"}"};
    struct part_log *l = &w->parts[p];
    l->foreign = false;
    free(l->metadata);
    l->metadata = xstrdup(texts[rng_below(&w->rng, ARRAY_LEN(texts))]);
    world_tell(w, "the metadata of p%u is foreign now: '%s'", p, l->metadata);
    for (size_t i = 0; i < w->n_seen; i++)
        w->seen[i].again |= w->seen[i].partition == p && w->seen[i].offset >= l->committed;
}

void world_on_lookup(struct world *w, const struct event_at *e)
{
    unsigned i = e->worker, p = (unsigned)e->n;
    struct worker *k = &w->workers[i];
    struct part_log *l = &w->parts[p];
    if (l->owner != (int)i || k->revoking[p])
        return;
    if (pending_elsewhere(w, p)) { /* unstable: again */
        uint64_t wait_ms = w->plan->step_by_step ? 1000 : 100;
        world_post(w, w->now + wait_ms * NS_PER_MS, LOOKUP, i, p);
        return;
    }
    if (l->foreign && l->committed >= 0)
        make_foreign(w, p);
    k->position[p] = MAX(l->committed, 0);
    k->fetching[p] = false;
    k->open[p] = false;
    world_tell(w, "w%u  ASSIGNED p%u at %" PRId64, i, p, l->committed);
    struct input in = {.kind = IN_ASSIGNED,
                       .assigned = {.partition = (int32_t)p,
                                    .partitions_total = (int32_t)w->plan->partitions,
                                    .offset = l->committed,
                                    .metadata = l->metadata}};
    world_step(w, i, &in);
}

/* ---- records ---- */

void world_fetch_soon(struct world *w, unsigned i)
{
    struct worker *k = &w->workers[i];
    for (unsigned p = 0; p < w->plan->partitions; p++) {
        bool can = k->open[p] && !k->fetching[p] && w->parts[p].owner == (int)i &&
                   (size_t)k->position[p] < w->parts[p].n;
        if (!can)
            continue;
        k->fetching[p] = true;
        world_post(w, world_about(w, 2), FETCH, i, p);
    }
}

void world_on_produce(struct world *w, const struct event_at *e)
{
    struct part_log *l = &w->parts[w->plan->jobs[e->n].partition];
    l->records[l->n++] = e->n;
    for (unsigned i = 0; i < w->plan->workers; i++)
        if (live(&w->workers[i]))
            world_fetch_soon(w, i);
}

void world_on_fetch(struct world *w, const struct event_at *e)
{
    unsigned i = e->worker, p = (unsigned)e->n;
    struct worker *k = &w->workers[i];
    struct part_log *l = &w->parts[p];
    k->fetching[p] = false;
    if (!k->open[p] || l->owner != (int)i || (size_t)k->position[p] >= l->n)
        return;
    int64_t offset = k->position[p]++;
    const struct job_plan *j = &w->plan->jobs[l->records[offset]];
    struct record r = {.topic = w->config.topics.jobs,
                       .partition = (int32_t)p,
                       .offset = offset,
                       .timestamp_ms = WALL_MS + j->at_ns / NS_PER_MS,
                       .key = j->session,
                       .key_len = strlen(j->session),
                       .value = j->value,
                       .value_len = strlen(j->value)};
    struct refusal why = {0};
    unsigned unknown = 0;
    struct input in = {.kind = IN_JOB, .job = {.record = &r}};
    if (core_may_parse(k->core, r.partition, offset)) {
        in.job.job = job_parse(&r, &w->config, &why, &unknown);
        in.job.refusal = in.job.job ? NULL : &why;
    }
    world_tell(w, "w%u  takes p%u/%" PRId64 " %s", i, p, offset, j->value);
    world_step(w, i, &in);
    refusal_done(&why);
}

/* ---- transactions ---- */

void world_txn_clear(struct txn *t)
{
    for (size_t i = 0; i < t->n_messages; i++)
        message_done(&t->messages[i]);
    for (size_t i = 0; i < t->n_offsets; i++)
        free(t->offsets[i].metadata);
    free(t->messages);
    free(t->offsets);
    *t = (struct txn){0};
}

static void copy_message(const struct message *from, struct message *to)
{
    *to = (struct message){.to = from->to, .key_len = from->key_len, .value_len = from->value_len};
    to->key = from->key ? xmemdup0(from->key, from->key_len) : NULL;
    to->value = from->value ? xmemdup0(from->value, from->value_len) : NULL;
    to->headers = xcalloc(from->n_headers, sizeof *to->headers);
    to->n_headers = from->n_headers;
    for (size_t i = 0; i < from->n_headers; i++)
        to->headers[i] =
            (struct header){.name = xstrdup(from->headers[i].name),
                            .value = xmemdup0(from->headers[i].value, from->headers[i].len),
                            .len = from->headers[i].len};
}

uint64_t world_batch_digest(const struct batch *b)
{
    struct digest d = {0};
    for (size_t i = 0; i < b->n_messages; i++)
        digest_add(&d, world_meaning(&b->messages[i]));
    for (size_t i = 0; i < b->n_offsets; i++) {
        digest_add(&d, (uint64_t)b->offsets[i].partition);
        digest_add(&d, (uint64_t)b->offsets[i].watermark);
        digest_text(&d, b->offsets[i].metadata);
    }
    return d.sum;
}

void world_commit(struct world *w, unsigned i, const struct batch *b)
{
    struct worker *k = &w->workers[i];
    struct txn *t = &k->txn;
    if (t->state != TXN_NONE)
        world_broken(w, "w%u commits two batches at once", i);
    world_txn_clear(t);
    t->state = TXN_BEGUN;
    t->batch = b->id;
    t->generation = k->generation;
    t->messages = xcalloc(b->n_messages, sizeof *t->messages);
    for (size_t m = 0; m < b->n_messages; m++)
        copy_message(&b->messages[m], &t->messages[t->n_messages++]);
    if (w->plan->step_by_step)
        t->meaning = world_batch_digest(b);
    t->offsets = xcalloc(b->n_offsets, sizeof *t->offsets);
    for (size_t o = 0; o < b->n_offsets; o++) {
        const struct batch_offset *from = &b->offsets[o];
        t->offsets[t->n_offsets++] = (struct batch_offset){.partition = from->partition,
                                                           .watermark = from->watermark,
                                                           .metadata = xstrdup(from->metadata)};
        if (strlen(from->metadata) > 4096)
            world_broken(w, "metadata of %zu characters", strlen(from->metadata));
        if (w->parts[from->partition].owner != (int)i)
            world_tell(w, "w%u  sends offsets of p%d, which is not its own any more", i,
                       (int)from->partition);
    }
    world_tell(w, "w%u  COMMIT %zu messages", i, t->n_messages);
    world_post(w, world_about(w, 4), TXN_OFFSETS, i, t->batch);
}

/* A transaction whose offsets are at the broker and whose owner is gone: it may have ended it
 * already, or the broker gives it up in time. */
void world_txn_orphan(struct world *w, unsigned i)
{
    struct txn *t = &w->workers[i].txn;
    if (t->state == TXN_BEGUN)
        world_txn_clear(t); /* nothing of it is known to the broker's group */
    else if (t->state == TXN_PENDING && world_coin(w))
        world_push(w, world_about(w, 2),
                   (struct event_at){.what = TXN_END, .worker = i, .n = t->batch});
    else if (t->state == TXN_PENDING)
        world_push(w, w->now + TXN_TIMEOUT_NS,
                   (struct event_at){.what = TXN_ABORT, .worker = i, .n = t->batch});
    else
        world_txn_clear(t);
}

struct txn *world_txn_of(struct world *w, const struct event_at *e)
{
    struct txn *t = &w->workers[e->worker].txn;
    enum txn_state waits = e->what == TXN_OFFSETS ? TXN_BEGUN : TXN_PENDING;
    return t->state == waits && t->batch == e->n ? t : NULL;
}

void world_on_txn_offsets(struct world *w, const struct event_at *e)
{
    unsigned i = e->worker;
    struct worker *k = &w->workers[i];
    struct txn *t = world_txn_of(w, e);
    if (!t)
        return;
    bool refused = k->refuse_commits > 0 && k->refuse_commits--;
    bool fenced =
        refused || !k->member || t->generation != k->generation || t->generation != w->generation;
    t->state = fenced ? TXN_REFUSED : TXN_PENDING;
    world_post(w, world_about(w, fenced ? 10 : 3), fenced ? TXN_SAID : TXN_END, i, e->n);
}

static void offsets_become_true(struct world *w, const struct txn *t)
{
    for (size_t o = 0; o < t->n_offsets; o++) {
        const struct batch_offset *b = &t->offsets[o];
        struct part_log *l = &w->parts[b->partition];
        if (b->watermark < l->committed)
            world_broken(w, "p%d: the committed offset goes back from %" PRId64 " to %" PRId64,
                         (int)b->partition, l->committed, b->watermark);
        l->committed = b->watermark;
        free(l->metadata);
        l->metadata = xstrdup(b->metadata);
        world_check_commit(w, (unsigned)b->partition, l->committed, l->metadata);
    }
}

/* The publisher has no answer and finds out later what came of it, from the committed offsets. */
static uint64_t said_at(struct world *w, struct worker *k)
{
    if (!k->unsure_commits)
        return world_about(w, 3);
    k->unsure_commits--;
    return w->now + (1 + rng_below(&w->rng, 20)) * NS_PER_S;
}

void world_on_txn_end(struct world *w, const struct event_at *e)
{
    unsigned i = e->worker;
    struct worker *k = &w->workers[i];
    struct txn *t = world_txn_of(w, e);
    if (!t)
        return;
    bool aborted = k->core && k->unsure_commits && world_coin(w);
    for (size_t m = 0; m < t->n_messages && !aborted; m++)
        world_becomes_visible(w, &t->messages[m]);
    if (!aborted)
        offsets_become_true(w, t);
    t->state = aborted ? TXN_REFUSED : TXN_DONE;
    if (k->core)
        world_post(w, said_at(w, k), TXN_SAID, i, e->n);
    else
        world_txn_clear(t);
}

void world_on_txn_said(struct world *w, const struct event_at *e)
{
    unsigned i = e->worker;
    struct worker *k = &w->workers[i];
    struct txn *t = &k->txn;
    bool committed = t->state == TXN_DONE;
    uint64_t batch = t->batch;
    if (t->state != TXN_DONE && t->state != TXN_REFUSED)
        return;
    world_txn_clear(t);
    world_tell(w, "w%u  %s", i, committed ? "COMMITTED" : "COMMIT FAILED");
    w->out->commits += committed;
    w->out->refused += !committed;
    struct input in = {.kind = committed ? IN_COMMITTED : IN_COMMIT_FAILED,
                       .commit = {.batch = batch}};
    world_step(w, i, &in);
}

void world_on_txn_abort(struct world *w, const struct event_at *e)
{
    unsigned i = e->worker;
    struct txn *t = world_txn_of(w, e);
    if (!t)
        return;
    world_tell(w, "w%u  its transaction is given up by the broker", i);
    t->state = TXN_REFUSED;
    if (w->workers[i].core)
        world_post(w, world_about(w, 10), TXN_SAID, i, e->n);
    else
        world_txn_clear(t);
}
