/* trial: which record kills the process?
 *
 * A record may be such that whoever touches it dies, in its parser or later. Unchecked it would go
 * round the whole fleet. So every owner of a partition commits a strike before it reads anything,
 * and takes it back when it goes in peace. Strikes count the owners in a row, the present one
 * included, that were heard of no more. An owner that gets the watermark on begins a new row: then
 * there is one strike, its own.
 *
 * From an owner that has found SUSPICIOUS strikes on, records are taken one by one, and over all
 * partitions of the worker only one at a time; before a record is read its offset is committed as
 * the suspect. An owner that finds a suspect knows who did it: the record is not even parsed, and
 * ends as poison. So a record costs SUSPICIOUS + 1 lives. The row ends with it, for all partitions
 * of the worker, since a dead process leaves a strike on each.
 *
 * One by one is slow, so it must have an end: the last owner before it reads no further than it has
 * committed, and the killer lies below that limit. When all of that has survived, or when a
 * partition is open and nothing comes, it is above suspicion.
 *
 * Offsets have holes (transaction markers, compaction), so a suspect stands for the first undone
 * record at or above it, until that is read. What is committed is always computed from the state
 * that the batch makes true, so a batch that is refused has changed nothing here. */
#include "worker/core/internal.h"

#define SUSPICIOUS 3
#define AHEAD 64 /* offsets; how far a limit lies before what is read */
/* By then an open partition that has records has brought one; one that has the guilty one is given
 * more time, since nothing is lost by it. */
#define IDLE_NS (5 * NS_PER_S)
#define IDLE_GUILTY_NS (60 * NS_PER_S)

static int64_t next_offset(const struct part *p)
{
    return MAX(p->last_taken + 1, p->done.watermark);
}

void trial_begin(struct core *c, struct part *p)
{
    struct trial *t = &p->trial;
    struct offsets *o = &p->done;
    heap_node_init(&t->idle, NODE_TRIAL);
    t->before = MIN(o->strikes, UINT8_MAX - 1);
    t->began = o->watermark;
    t->suspect = t->limit = -1;
    p->hint_ns = c->now_ns + TOGETHER_NS;
    if (t->before == SUSPICIOUS - 1) /* what is known to have been read is read again at once */
        t->limit = MAX(o->high, o->highest_started + 1) + AHEAD;
    if (t->before < SUSPICIOUS)
        return;
    t->limit = o->limit >= 0 ? o->limit : o->watermark + c->config->jobs.max_in_flight;
    t->guilty = o->suspect >= 0 && !offsets_is_done(o, o->suspect);
    t->suspect = t->guilty ? o->suspect : -1;
    t->one_by_one = !t->guilty;
    log_warn(NULL, "the owners of this partition died one after the other",
             L_INT("partition", p->id), L_UINT("strikes", t->before),
             L_STR("now", t->guilty ? "the record that did it is known"
                                    : "its records are taken one by one"));
}

void trial_end(struct core *c, struct part *p)
{
    heap_set(&c->heap, &p->trial.idle, NEVER);
}

/* ---- what is committed ---- */

/* The suspect's result is in the state o. */
static bool suspect_done(const struct part *p, const struct offsets *o)
{
    return p->trial.read && offsets_is_done(o, p->trial.suspect);
}

struct word trial_word(const struct core *c, const struct part *p, const struct offsets *o)
{
    const struct trial *t = &p->trial;
    bool peace = p->closing || c->leaving;
    bool over = suspect_done(p, o);
    bool progress = t->guilty ? over : !t->one_by_one && o->watermark > t->began;
    uint8_t strikes = progress ? 0 : t->before;
    return (struct word){.strikes = (uint8_t)(peace ? strikes : strikes + 1),
                         .suspect = over || (peace && !t->guilty) ? -1 : t->suspect,
                         .limit = progress ? -1 : t->limit};
}

bool trial_says_news(const struct core *c, const struct part *p)
{
    struct word w = trial_word(c, p, &p->done);
    return w.strikes != p->done.strikes || w.suspect != p->done.suspect || w.limit != p->done.limit;
}

/* ---- taking ---- */

bool trial_may_take(const struct part *p)
{
    const struct trial *t = &p->trial;
    if (!t->announced)
        return false;
    if (t->suspect >= 0)
        return !t->read && p->done.suspect == t->suspect;
    return !t->one_by_one && (t->limit < 0 || next_offset(p) < p->done.limit);
}

bool trial_guilty(const struct part *p, int64_t offset)
{
    return p->trial.guilty && !p->trial.read && offset >= p->trial.suspect;
}

bool trial_read(struct part *p, int64_t offset)
{
    struct trial *t = &p->trial;
    bool guilty = trial_guilty(p, offset);
    if (t->suspect >= 0 && !t->read && offset >= t->suspect) {
        t->suspect = offset;
        t->read = true;
    }
    return guilty;
}

/* ---- the end of suspicion ---- */

static void acquit(struct core *c, struct part *p)
{
    struct trial *t = &p->trial;
    if (t->one_by_one)
        log_info(NULL, "the records of this partition are above suspicion",
                 L_INT("partition", p->id));
    t->before = 0;
    t->suspect = t->limit = -1;
    t->one_by_one = t->read = t->guilty = false;
    if (trial_says_news(c, p))
        p->hint_ns = c->now_ns;
}

void trial_restart(struct core *c, struct part *p)
{
    acquit(c, p);
    p->trial.began = p->done.watermark;
}

/* The deaths that left strikes on all our partitions are explained. */
static void acquit_all(struct core *c)
{
    for (struct part *p = c->parts; p; p = p->hh.next)
        if (!p->trial.guilty)
            acquit(c, p);
}

void trial_committed(struct core *c, struct part *p)
{
    struct trial *t = &p->trial;
    bool over = suspect_done(p, &p->done), guilty = t->guilty;
    t->announced = true;
    if (over) {
        t->suspect = -1;
        t->read = t->guilty = false;
    }
    if (over && guilty)
        acquit_all(c);
    else if (!t->guilty && !t->one_by_one && p->done.watermark > t->began)
        acquit(c, p);
}

void trial_opened(struct core *c, struct part *p)
{
    bool waits = p->open && p->trial.before;
    uint64_t idle_ns = p->trial.guilty ? IDLE_GUILTY_NS : IDLE_NS;
    heap_set(&c->heap, &p->trial.idle, waits ? c->now_ns + idle_ns : NEVER);
}

void trial_idle(struct core *c, struct part *p)
{
    heap_set(&c->heap, &p->trial.idle, NEVER);
    if (!p->taken && !p->trial.read)
        acquit(c, p);
}

/* ---- whose turn it is ---- */

static bool on_trial(const struct part *p)
{
    return p->trial.suspect >= 0 && !p->closing;
}

static bool waits_for_trial(const struct part *p)
{
    return p->trial.one_by_one && p->trial.announced && !p->closing;
}

/* The next one in the order of their numbers, so that each has its turn. */
static struct part *next_in_turn(const struct core *c)
{
    struct part *next = NULL, *first = NULL;
    for (struct part *p = c->parts; p; p = p->hh.next) {
        if (!waits_for_trial(p))
            continue;
        if (!first || p->id < first->id)
            first = p;
        if (p->id > c->tried && (!next || p->id < next->id))
            next = p;
    }
    return next ? next : first;
}

/* Half of what was said ahead has been read: the limit is put further. */
static void look_ahead(struct core *c)
{
    for (struct part *p = c->parts; p; p = p->hh.next) {
        struct trial *t = &p->trial;
        if (t->limit < 0 || t->before >= SUSPICIOUS || next_offset(p) + AHEAD / 2 < t->limit)
            continue;
        t->limit = next_offset(p) + AHEAD;
        p->hint_ns = c->now_ns;
    }
}

static bool anybody_on_trial(const struct core *c)
{
    for (const struct part *p = c->parts; p; p = p->hh.next)
        if (on_trial(p))
            return true;
    return false;
}

void trials_next(struct core *c)
{
    struct part *p;
    if (c->draining)
        return;
    look_ahead(c);
    while (!anybody_on_trial(c) && (p = next_in_turn(c))) {
        c->tried = p->id;
        if (p->done.watermark >= p->trial.limit) {
            acquit(c, p);
            continue;
        }
        p->trial.suspect = p->done.watermark;
        p->hint_ns = c->now_ns;
    }
}
