/* explore: random schedules over the shipped cores, in virtual time.
 *
 *   explore [--seed N] [--runs N] [--story] [--no-shorten]
 *
 * Each seed makes a plan (workers, partitions, jobs, faults) and lives through it. A seed that
 * breaks an invariant is made shorter (jobs and faults left out as long as it still breaks) and its
 * story printed; the same seed replays exactly. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/xalloc.h"
#include "tests/sim/world.h"

#define STORY_MAX (64u << 20)

static const char *pick(struct rng *r, const char *const *of, size_t n)
{
    return of[rng_below(r, n)];
}

static char *make_start(struct rng *r, const char *session)
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
    bool attach = !strcmp(mode, "attach");
    return xasprintf("{\"type\":\"start-session\",\"session_id\":\"%s\",\"mode\":\"%s\"%s%s%s,\"on_"
                     "failure\":\"%s\","
                     "\"timeout_seconds\":%u,\"timeouts\":{\"create\":8,\"start\":8,\"launch\":8}}",
                     session, mode, attach ? "" : ",\"sandbox\":{\"snapshot\":\"",
                     attach ? "" : pick(r, snapshots, ARRAY_LEN(snapshots)), attach ? "" : "\"}",
                     pick(r, endings, ARRAY_LEN(endings)), 10 + (unsigned)rng_below(r, 40));
}

static char *make_job(struct rng *r, const char *session)
{
    switch (rng_below(r, 10)) {
    case 0:
        return xasprintf("{\"type\":\"stop-session\",\"session_id\":\"%s\"}", session);
    case 1:
    case 2:
        return xasprintf("{\"type\":\"delete-session\",\"session_id\":\"%s\"}", session);
    default:
        return make_start(r, session);
    }
}

static void make_plan(struct plan *p, uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed * 7919 + 13);
    *p = (struct plan){.seed = seed};
    p->workers = 1 + (unsigned)rng_below(&r, 3);
    p->partitions = 1 + (unsigned)rng_below(&r, 3);
    p->eager = rng_below(&r, 2);
    p->foreign = rng_below(&r, 4) == 0;
    p->n_jobs = 2 + rng_below(&r, 24);
    uint64_t span = (5 + rng_below(&r, 60)) * NS_PER_S;
    unsigned sessions = 1 + (unsigned)rng_below(&r, 5);
    for (size_t i = 0; i < p->n_jobs; i++) {
        struct job_plan *j = &p->jobs[i];
        unsigned s = (unsigned)rng_below(&r, sessions);
        j->session = xasprintf("s%u", s);
        j->partition = s % p->partitions;
        j->at_ns = NS_PER_S + rng_below(&r, span);
        j->value = make_job(&r, j->session);
    }
    for (size_t i = 1; i < p->n_jobs; i++) /* by time: the log's order */
        for (size_t k = i; k > 0 && p->jobs[k].at_ns < p->jobs[k - 1].at_ns; k--) {
            struct job_plan t = p->jobs[k];
            p->jobs[k] = p->jobs[k - 1];
            p->jobs[k - 1] = t;
        }
    p->n_faults = rng_below(&r, 16);
    uint64_t likely = 20 + p->n_jobs * 14 / p->workers; /* effects of one worker, about */
    for (size_t i = 0; i < p->n_faults; i++)
        p->faults[i] =
            (struct fault_plan){.kind = (enum fault_kind)rng_below(&r, N_FAULT_KINDS),
                                .at_ns = NS_PER_S + rng_below(&r, span + 20 * NS_PER_S),
                                .at_effect = rng_below(&r, 3) ? 1 + rng_below(&r, likely) : 0,
                                .worker = (unsigned)rng_below(&r, p->workers),
                                .arg = rng_below(&r, 20) * NS_PER_S + 1};
}

static void plan_done(struct plan *p)
{
    for (size_t i = 0; i < p->n_jobs; i++) {
        free(p->jobs[i].session);
        free(p->jobs[i].value);
    }
}

static bool still_breaks(struct plan *p)
{
    struct outcome_counts counts;
    return !world_run(p, NULL, &counts);
}

static void shorten(struct plan *p)
{
    for (bool less = true; less;) {
        less = false;
        for (size_t i = 0; i < p->n_faults; i++) {
            if (p->faults[i].off)
                continue;
            p->faults[i].off = true;
            if (still_breaks(p))
                less = true;
            else
                p->faults[i].off = false;
        }
        for (size_t i = 0; i < p->n_jobs; i++) {
            if (p->jobs[i].off)
                continue;
            p->jobs[i].off = true;
            if (still_breaks(p))
                less = true;
            else
                p->jobs[i].off = false;
        }
    }
}

static void print_story(struct plan *p)
{
    struct outcome_counts counts;
    struct buf story;
    buf_init(&story, STORY_MAX);
    world_run(p, &story, &counts);
    fputs(buf_text(&story), stdout);
    printf("seed %llu: %s\n", (unsigned long long)p->seed,
           counts.broken ? counts.broken : "all invariants held");
    buf_done(&story);
}

static bool run_seed(uint64_t seed, bool story, bool shorter, struct outcome_counts *sum)
{
    static struct plan plan;
    struct outcome_counts counts;
    make_plan(&plan, seed);
    bool ok = world_run(&plan, NULL, &counts);
    sum->events += counts.events;
    sum->effects += counts.effects;
    sum->crashes += counts.crashes;
    sum->freezes += counts.freezes;
    sum->rebalances += counts.rebalances;
    sum->commits += counts.commits;
    sum->refused += counts.refused;
    sum->late_keeps += counts.late_keeps;
    if (!ok)
        printf("seed %llu breaks: %s\n", (unsigned long long)seed, counts.broken);
    if (!ok && shorter)
        shorten(&plan);
    if ((!ok && shorter) || story)
        print_story(&plan);
    plan_done(&plan);
    return ok;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"runs", required_argument, NULL, 'r'},
                                            {"story", no_argument, NULL, 't'},
                                            {"no-shorten", no_argument, NULL, 'n'},
                                            {NULL, 0, NULL, 0}};
    int64_t seed = 1, runs = 200;
    bool story = false, shorter = true;
    struct outcome_counts sum = {0};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if ((o == 's' && !parse_i64(optarg, strlen(optarg), 0, INT64_MAX, &seed)) ||
            (o == 'r' && !parse_i64(optarg, strlen(optarg), 1, INT64_MAX, &runs)) || o == '?') {
            fputs("usage: explore [--seed N] [--runs N] [--story] [--no-shorten]\n", stderr);
            return 2;
        }
        story |= o == 't';
        shorter &= o != 'n';
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_setup(LOG_LEVEL_DEBUG, LOG_LOGFMT);
    for (int64_t i = 0; i < runs; i++)
        if (!run_seed((uint64_t)(seed + i), story, shorter, &sum))
            return 1;
    printf("%lld seeds, %llu events, %llu effects, %llu crashes, %llu freezes, %llu rebalances, "
           "%llu commits, "
           "%llu refused, %llu late keeps: every invariant held\n",
           (long long)runs, (unsigned long long)sum.events, (unsigned long long)sum.effects,
           (unsigned long long)sum.crashes, (unsigned long long)sum.freezes,
           (unsigned long long)sum.rebalances, (unsigned long long)sum.commits,
           (unsigned long long)sum.refused, (unsigned long long)sum.late_keeps);
    return 0;
}
