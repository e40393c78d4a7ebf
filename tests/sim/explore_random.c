/* explore_random: one seed, one plan, one life.
 *
 * A plan says how many workers and partitions there are, what jobs come when, and which faults
 * strike: at a time, or before or after the n-th effect of a kind that a worker carries out, so
 * that rare places (between the two halves of KEEP, between a commit and its destroy) are hit as
 * often as common ones. A seed that breaks an invariant is made shorter: faults and jobs are left
 * out as long as it still breaks. The same seed replays exactly. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "tests/sim/explore.h"
#include "tests/sim/world.h"

#define STORY_MAX (64u << 20)

static const char *pick(struct rng *r, const char *const *of, size_t n)
{
    return of[rng_below(r, n)];
}

/* ---- jobs ---- */

/* Of the same kind, all starts of a session want the same sandbox, and some are in a hurry: what
 * one leaves behind when it fails the next one takes. */
static char *make_start(struct rng *r, const char *session, bool same_kind)
{
    static const char *const snapshots[] = {"good",
                                            "good",
                                            "good",
                                            "other",
                                            "sim-dead-server",
                                            "sim-error",
                                            "sim-slow",
                                            "sim-never-listens",
                                            "sim-stuck-creating"};
    static const char *const modes[] = {"ensure", "ensure", "ensure", "create", "attach", "resume"};
    static const char *const endings[] = {"delete", "delete", "delete", "stop", "keep"};
    const char *mode = pick(r, modes, ARRAY_LEN(modes));
    const char *snapshot = pick(r, snapshots, ARRAY_LEN(snapshots));
    unsigned auto_stop = rng_below(r, 2) ? 60 : 2 + (unsigned)rng_below(r, 8);
    unsigned launch = same_kind && rng_below(r, 2) ? 1 : 8;
    char *sandbox = NULL;
    if (strcmp(mode, "attach") != 0) /* at times other intervals than create uses: KEEP in two */
        sandbox = xasprintf("\"sandbox\":{\"snapshot\":\"%s\",\"auto_stop_minutes\":%u},",
                            same_kind ? "good" : snapshot, same_kind ? 4 : auto_stop);
    char *job =
        xasprintf("{\"type\":\"start-session\",\"session_id\":\"%s\",\"mode\":\"%s\",%s"
                  "\"on_failure\":\"%s\",\"timeout_seconds\":%u,"
                  "\"timeouts\":{\"create\":20,\"start\":8,\"launch\":%u}}",
                  session, mode, sandbox ? sandbox : "", pick(r, endings, ARRAY_LEN(endings)),
                  25 + (unsigned)rng_below(r, 40), launch);
    free(sandbox);
    return job;
}

static char *make_job(struct rng *r, const char *session, bool same_kind)
{
    switch (rng_below(r, 10)) {
    case 0:
        return xasprintf("{\"type\":\"stop-session\",\"session_id\":\"%s\"}", session);
    case 1:
    case 2:
        return xasprintf("{\"type\":\"delete-session\",\"session_id\":\"%s\"}", session);
    default:
        return make_start(r, session, same_kind);
    }
}

static void make_jobs(struct plan *p, struct rng *r, uint64_t span)
{
    unsigned sessions = 1 + (unsigned)rng_below(r, 5);
    bool same_kind = rng_below(r, 3) == 0;
    p->n_jobs = 2 + rng_below(r, 24);
    for (size_t i = 0; i < p->n_jobs; i++) {
        struct job_plan *j = &p->jobs[i];
        unsigned s = (unsigned)rng_below(r, sessions);
        j->session = xasprintf("s%u", s);
        j->partition = s % p->partitions;
        j->at_ns = NS_PER_S + rng_below(r, span);
        j->value = make_job(r, j->session, same_kind);
    }
    for (size_t i = 1; i < p->n_jobs; i++) /* by time: the log's order */
        for (size_t k = i; k > 0 && p->jobs[k].at_ns < p->jobs[k - 1].at_ns; k--) {
            struct job_plan t = p->jobs[k];
            p->jobs[k] = p->jobs[k - 1];
            p->jobs[k - 1] = t;
        }
}

/* ---- faults ---- */

static void make_fault(const struct plan *p, struct rng *r, uint64_t span, struct fault_plan *f)
{
    uint64_t likely = 20 + p->n_jobs * 14 / p->workers; /* effects of one worker, about */
    bool rare_kind = rng_below(r, 3) == 0;
    *f = (struct fault_plan){.kind = (enum fault_kind)rng_below(r, N_FAULT_KINDS),
                             .at_ns = NS_PER_S + rng_below(r, span + 20 * NS_PER_S),
                             .at_effect = rng_below(r, 3) ? 1 + rng_below(r, likely) : 0,
                             .worker = (unsigned)rng_below(r, p->workers),
                             .after = rng_below(r, 2),
                             .arg = rng_below(r, 20) * NS_PER_S + rng_below(r, 1000)};
    if (rare_kind) {
        f->of = (enum effect_class)(1 + rng_below(r, N_EFFECT_CLASSES - 1));
        f->at_effect = 1 + rng_below(r, 5);
    }
    if (f->kind == ADD_WORKER)
        f->kind = CRASH; /* those come below, each once */
}

static void make_faults(struct plan *p, struct rng *r, uint64_t span)
{
    p->n_faults = rng_below(r, 20);
    for (size_t i = 0; i < p->n_faults; i++)
        make_fault(p, r, span, &p->faults[i]);
    for (unsigned i = p->present; i < p->workers; i++)
        p->faults[p->n_faults++] = (struct fault_plan){
            .kind = ADD_WORKER, .at_ns = NS_PER_S + rng_below(r, span), .worker = i};
}

static void make_plan(struct plan *p, uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed * 7919 + 13);
    *p = (struct plan){.seed = seed};
    p->workers = 1 + (unsigned)rng_below(&r, WORKERS_MAX);
    p->present = 1 + (unsigned)rng_below(&r, p->workers);
    p->partitions = 1 + (unsigned)rng_below(&r, 3);
    p->eager = rng_below(&r, 2);
    p->foreign = rng_below(&r, 4) == 0;
    uint64_t span = (5 + rng_below(&r, 60)) * NS_PER_S;
    make_jobs(p, &r, span);
    make_faults(p, &r, span);
}

static void plan_done(struct plan *p)
{
    for (size_t i = 0; i < p->n_jobs; i++) {
        free(p->jobs[i].session);
        free(p->jobs[i].value);
    }
}

/* ---- a story that breaks ---- */

static bool still_breaks(struct plan *p)
{
    struct outcome_counts counts;
    return !world_run(p, NULL, &counts);
}

static bool leave_out(struct plan *p, bool *off)
{
    if (*off)
        return false;
    *off = true;
    *off = still_breaks(p);
    return *off;
}

static void shorten(struct plan *p)
{
    for (bool less = true; less;) {
        less = false;
        for (size_t i = 0; i < p->n_faults; i++)
            less |= leave_out(p, &p->faults[i].off);
        for (size_t i = 0; i < p->n_jobs; i++)
            less |= leave_out(p, &p->jobs[i].off);
    }
}

static void print_story(struct plan *p)
{
    struct outcome_counts counts;
    struct buf story;
    buf_init(&story, STORY_MAX);
    world_run(p, &story, &counts);
    fputs(buf_text(&story), stdout);
    printf("seed %" PRIu64 ": %s\n", p->seed,
           counts.broken ? counts.broken : "all invariants held");
    buf_done(&story);
}

/* ---- seeds ---- */

static void add_counts(struct outcome_counts *sum, const struct outcome_counts *c)
{
    sum->events += c->events;
    sum->effects += c->effects;
    sum->commits += c->commits;
    sum->refused += c->refused;
    sum->rebalances += c->rebalances;
    sum->late_keeps += c->late_keeps;
    sum->left_running += c->left_running;
    for (size_t i = 0; i < N_FAULT_KINDS; i++)
        sum->faults[i] += c->faults[i];
}

static bool run_seed(uint64_t seed, const struct random_options *o, struct outcome_counts *sum)
{
    static struct plan plan;
    struct outcome_counts counts;
    make_plan(&plan, seed);
    bool ok = world_run(&plan, NULL, &counts);
    add_counts(sum, &counts);
    if (!ok)
        printf("seed %" PRIu64 " is violated: %s\n", seed, counts.broken);
    if (!ok && o->shorter)
        shorten(&plan);
    if ((!ok && o->shorter) || o->story)
        print_story(&plan);
    plan_done(&plan);
    return ok;
}

bool explore_random(const struct random_options *o)
{
    struct outcome_counts sum = {0};
    for (uint64_t i = 0; i < o->runs; i++)
        if (!run_seed(o->seed + i, o, &sum))
            return false;
    printf("%" PRIu64 " seeds, %" PRIu64 " events, %" PRIu64 " effects, %" PRIu64 " commits, "
           "%" PRIu64 " refused, %" PRIu64 " rebalances, %" PRIu64 " late keeps (%" PRIu64
           " left running): every invariant held\n",
           o->runs, sum.events, sum.effects, sum.commits, sum.refused, sum.rebalances,
           sum.late_keeps, sum.left_running);
    for (enum fault_kind k = 0; k < N_FAULT_KINDS; k++)
        printf("%s%s %" PRIu64 "%s", k ? ", " : "struck: ", fault_name(k), sum.faults[k],
               k + 1 < N_FAULT_KINDS ? "" : "\n");
    return true;
}
