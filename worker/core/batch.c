/* batch: results that wait for their commit, and the transaction they go into.
 *
 * One batch at a time. It takes all that is ready: messages, and for every partition they come from
 * (watermark, metadata) as they will be when it is committed: computed on a copy, which replaces
 * the committed state when the commit is known to have gone through, and is dropped when it has
 * not. So an offset counts as done only when its result is visible. */
#include "worker/core/internal.h"

#include <stdlib.h>

#include "common/xalloc.h"

struct result *result_new(struct core *c, struct part *p, int64_t offset)
{
    struct result *r = xcalloc(1, sizeof *r);
    r->part = p;
    r->offset = offset;
    if (!offsets_has_room(&p->done, offset)) {
        ASSERT(!p->beyond);
        p->beyond = r;
        return r;
    }
    DL_APPEND(c->ready, r);
    c->n_ready++;
    return r;
}

void result_free(struct result *r)
{
    for (size_t i = 0; i < r->n_messages; i++)
        message_done(&r->messages[i]);
    free(r);
}

void batch_free(struct batch *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n_offsets; i++)
        free(b->offsets[i].metadata);
    free(b->offsets);
    free(b->messages); /* what they hold belongs to the results */
    free(b);
}

/* ---- building ---- */

static void touch(struct part *p)
{
    if (p->in_batch)
        return;
    p->in_batch = true;
    p->next = p->done;
}

static void add_result(struct core *c, struct batch *b, struct result *r)
{
    DL_DELETE(c->ready, r);
    c->n_ready--;
    DL_APPEND(c->flying, r);
    touch(r->part);
    offsets_done(&r->part->next, r->offset);
    for (size_t i = 0; i < r->n_messages; i++)
        b->messages[b->n_messages++] = r->messages[i];
}

static bool says_goodbye(const struct core *c, const struct part *p)
{
    return (p->closing || c->leaving) && p->trial.announced && trial_says_news(c, p);
}

/* What is to be told even though nothing has finished. */
static bool has_news(const struct core *c, const struct part *p)
{
    return p->closing || c->leaving ? says_goodbye(c, p) : p->hint_ns <= c->now_ns;
}

static void add_offsets(struct core *c, struct batch *b)
{
    b->offsets = xcalloc(HASH_COUNT(c->parts), sizeof *b->offsets);
    for (struct part *p = c->parts; p; p = p->hh.next) {
        if (has_news(c, p))
            touch(p);
        if (!p->in_batch)
            continue;
        struct word word = trial_word(c, p, &p->next);
        p->next.strikes = word.strikes;
        p->next.suspect = word.suspect;
        p->next.limit = word.limit;
        p->next.highest_started = p->started;
        p->hint_ns = NEVER;
        struct buf text;
        buf_init(&text, OFFSETS_TEXT_MAX);
        offsets_encode(&p->next, &text);
        ASSERT(!text.overflow);
        b->offsets[b->n_offsets++] = (struct batch_offset){
            .partition = p->id, .watermark = p->next.watermark, .metadata = buf_steal(&text)};
    }
}

static void begin(struct core *c)
{
    size_t n = c->last_batch ? c->n_ready : MIN(c->n_ready, BATCH_RESULTS_MAX);
    struct batch *b = xcalloc(1, sizeof *b);
    b->id = ++c->batches;
    b->messages = xcalloc(2 * n, sizeof *b->messages);
    for (size_t i = 0; i < n; i++)
        add_result(c, b, c->ready);
    add_offsets(c, b);
    c->batch = b;
    c->batch_begin_ns = c->now_ns;
    core_effect(c, DO_COMMIT)->commit = b;
}

static uint64_t first_hint(const struct core *c)
{
    uint64_t at = NEVER;
    for (const struct part *p = c->parts; p; p = p->hh.next)
        if (!p->closing)
            at = MIN(at, p->hint_ns);
    return at;
}

/* Some partition is to hear goodbye; its results go along. */
static bool goodbye_due(const struct core *c)
{
    for (const struct part *p = c->parts; p; p = p->hh.next)
        if (says_goodbye(c, p))
            return true;
    return false;
}

void batch_step(struct core *c)
{
    if (c->batch)
        return;
    if (c->closing) {
        if (!c->last_batch && goodbye_due(c)) {
            c->last_batch = true; /* one: what finishes from now on runs again at the next owner */
            begin(c);
        }
        return;
    }
    uint64_t at = c->n_ready ? c->batch_not_before_ns : first_hint(c);
    if (at != NEVER)
        at = MAX(at, c->batch_not_before_ns);
    if (at <= c->now_ns) {
        begin(c);
        at = NEVER;
    }
    heap_set(&c->heap, &c->batch_node, at);
}

bool batch_goodbye(struct core *c)
{
    if (c->batch)
        return false;
    if (c->goodbye || !goodbye_due(c))
        return true;
    c->goodbye = true;
    begin(c);
    return false;
}

/* ---- the outcome ---- */

static void fold(struct core *c)
{
    for (struct part *p = c->parts; p; p = p->hh.next) {
        if (!p->in_batch)
            continue;
        ASSERT(p->next.watermark >= p->done.watermark);
        p->done = p->next;
        p->in_batch = false;
        trial_committed(c, p);
        part_moved(c, p);
    }
    while (c->flying) {
        struct result *r = c->flying;
        struct session *s = r->session;
        DL_DELETE(c->flying, r);
        result_free(r);
        if (s)
            session_committed(s);
    }
}

/* What it was to tell alone is told again. */
static void hint_again(struct core *c, struct part *p)
{
    if (trial_says_news(c, p))
        p->hint_ns = c->now_ns;
    else if (p->started > p->done.highest_started)
        p->hint_ns = MIN(p->hint_ns, c->now_ns + HINT_EVERY_NS);
}

static void put_back(struct core *c)
{
    for (struct part *p = c->parts; p; p = p->hh.next) {
        if (p->in_batch)
            hint_again(c, p);
        p->in_batch = false;
    }
    while (c->flying) {
        struct result *r = c->flying->prev; /* from the last, so that the order stays */
        DL_DELETE(c->flying, r);
        bool again = r->part && !(r->part->closing && c->last_batch);
        if (again) {
            DL_PREPEND(c->ready, r);
            c->n_ready++;
        } else {
            if (r->session)
                r->session->result = NULL;
            result_free(r);
        }
    }
}

void batch_ended(struct core *c, uint64_t id, bool committed)
{
    if (!c->batch || c->batch->id != id)
        return;
    batch_free(c->batch);
    c->batch = NULL;
    uint64_t took = c->now_ns - c->batch_begin_ns;
    metric_add1(M_BATCHES, committed ? MB_COMMITTED : MB_REFUSED, 1);
    metric_observe(M_BATCH_SECONDS, 0, (double)took / 1e9);
    c->batch_not_before_ns = MAX(c->batch_begin_ns + BATCH_APART_NS, c->now_ns + BATCH_REST_NS);
    if (committed) {
        fold(c);
    } else {
        c->batch_not_before_ns = c->now_ns + BATCH_AGAIN_NS;
        put_back(c);
    }
}

void batch_drop_part(struct core *c, struct part *p)
{
    struct result *r, *tmp;
    DL_FOREACH_SAFE(c->ready, r, tmp)
    {
        if (r->part != p)
            continue;
        DL_DELETE(c->ready, r);
        c->n_ready--;
        result_free(r);
    }
    if (p->beyond)
        result_free(p->beyond);
    DL_FOREACH(c->flying, r)
    {
        if (r->part != p)
            continue;
        r->part = NULL;
        r->session = NULL;
    }
}
