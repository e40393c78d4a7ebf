/* explore_exhaustive: every schedule of a small world.
 *
 * Two workers, one partition, one session with two jobs, and any so many faults out of four: crash,
 * freeze and thaw, lost answer, rebalance. world_choice.c says what may happen next in a state;
 * here all of it is tried, depth first, and a state that was seen before (with as many faults still
 * to come) is not gone into again. explore_arena.c brings the way back.
 *
 * After every step every invariant is checked; where nothing is left to do, those of the end. That
 * an end is reached at all is checked along the first choices, by which everything that waits
 * happens and nothing interferes: a circle of them would never end, so it is gone round until the
 * world has lived too long.
 *
 * States are compared by digests, which leave things out: their heads say what. That they leave out
 * nothing that matters is audited: of one state in AUDIT_ONE_IN the whole future by first choices
 * is written down, and compared every time the same digest comes again by another way.
 *
 * Faults are allowed one more in each round, so what breaks is told with as few of them as can be.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "tests/sim/digest.h"
#include "tests/sim/explore.h"
#include "tests/sim/explore_arena.h"
#include "tests/sim/world.h"

#define STATES_MAX ((size_t)1 << 23) /* a power of two */
#define AUDITS_MAX ((size_t)1 << 18)
#define AUDIT_ONE_IN 128
#define AUDIT_STEPS 4000
#define DEPTH_MAX 20000
#define SNAPSHOTS_MAX ((size_t)16 << 30)
#define STORY_MAX (64u << 20)

/* ---- the worlds ---- */

#define START(more) "{\"type\":\"start-session\",\"session_id\":\"s0\"" more "}"
/* Its auto-stop is not the one of create, so KEEP is two requests. */
#define MADE_OF(snapshot)                                                                          \
    ",\"timeout_seconds\":120,\"sandbox\":{\"snapshot\":\"" snapshot "\",\"auto_stop_minutes\":4}"
#define GOOD MADE_OF("good")
#define DEAD MADE_OF("sim-dead-server")

static const struct jobs_pair {
    const char *name;
    const char *jobs[2];
} pairs[] = {
    /* the longest first */
    {"failing/start", {START(DEAD), START(GOOD)}},
    {"start/start", {START(GOOD), START(GOOD)}},
    {"start/delete", {START(GOOD), "{\"type\":\"delete-session\",\"session_id\":\"s0\"}"}},
    {"ensure/attach", {START(",\"mode\":\"ensure\"" GOOD), START(",\"mode\":\"attach\"")}},
    {"start/stop", {START(GOOD), "{\"type\":\"stop-session\",\"session_id\":\"s0\"}"}},
};

static void make_plan(const struct jobs_pair *pair, struct plan *p)
{
    *p = (struct plan){.workers = 2, .present = 2, .partitions = 1, .step_by_step = true};
    for (size_t i = 0; i < ARRAY_LEN(pair->jobs); i++)
        p->jobs[p->n_jobs++] = (struct job_plan){
            .at_ns = i ? NEVER : 1, .value = xstrdup(pair->jobs[i]), .session = xstrdup("s0")};
}

/* ---- what was seen ---- */

struct seen {
    uint64_t digest; /* 0: free */
    uint64_t value;
};

struct table {
    struct seen *at;
    size_t size, n;
};

/* The place of digest, new ones with value 0. */
static struct seen *look_up(struct table *t, uint64_t digest)
{
    digest += digest == 0;
    size_t i = (size_t)(digest >> 20) & (t->size - 1);
    while (t->at[i].digest && t->at[i].digest != digest)
        i = (i + 1) & (t->size - 1);
    if (!t->at[i].digest) {
        ASSERT(++t->n < t->size / 8 * 7);
        t->at[i].digest = digest;
    }
    return &t->at[i];
}

static void make_table(struct table *t, size_t size)
{
    *t = (struct table){.at = arena_outside(size * sizeof *t->at), .size = size};
}

static void empty(struct table *t)
{
    if (t->n)
        memset(t->at, 0, t->size * sizeof *t->at);
    t->n = 0;
}

/* ---- the search ---- */

struct taken {
    uint64_t digest; /* of the state in which it was chosen; 0: there was nothing to compare */
    size_t which;
};

/* All of it lies outside: nothing here goes back in time but the world. */
struct search {
    struct plan plan;
    struct world *world;
    struct outcome_counts counts;
    bool audit;
    unsigned faults;
    struct table states; /* value: faults still allowed, plus one */
    struct table audits; /* value: digest of the future */
    struct taken path[DEPTH_MAX];
    size_t depth, deepest;
    char *snapshots, *snapshot; /* the whole, and where it is free */
    uint64_t transitions, ends, audited;
    sigjmp_buf assertion;
    char broken[600];
};

static struct search *the_search; /* for the signal handler; never changes */

static void on_abort(int signal)
{
    (void)signal;
    siglongjmp(the_search->assertion, 1);
}

static bool take(struct search *s, const struct choice *c, size_t which, uint64_t digest)
{
    ASSERT(s->depth < DEPTH_MAX);
    s->path[s->depth++] = (struct taken){digest, which};
    s->deepest = MAX(s->deepest, s->depth);
    s->transitions++;
    return world_take(s->world, &c[which]);
}

/* From that state to here there were only first choices. */
static bool is_circle(const struct search *s, uint64_t digest)
{
    for (size_t i = s->depth; i-- > 0 && s->path[i].which == 0;)
        if (s->path[i].digest == digest)
            return true;
    return false;
}

static bool is_new(struct search *s, uint64_t digest, unsigned left)
{
    struct seen *seen = look_up(&s->states, digest);
    if (seen->value <= left) {
        seen->value = left + 1;
        return true;
    }
    return is_circle(s, digest);
}

/* What will be if nothing interferes. False: an invariant is broken there. */
static bool read_future(struct search *s, uint64_t *future)
{
    struct digest d = {0};
    struct choice c[CHOICES_MAX];
    for (size_t i = 0; i < AUDIT_STEPS; i++) {
        size_t n = world_choices(s->world, false, c);
        if (s->counts.broken)
            return false;
        if (!world_mid_step(s->world))
            digest_add(&d, world_digest(s->world));
        if (!n)
            break;
        if (!take(s, c, 0, 0))
            return false;
    }
    *future = d.sum | 1;
    return true;
}

static bool audit(struct search *s, uint64_t digest)
{
    uint64_t future;
    size_t depth = s->depth;
    uint64_t transitions = s->transitions;
    char *mark = s->snapshot;
    struct seen *seen = look_up(&s->audits, digest);
    s->audited++;
    s->snapshot += arena_save(mark);
    if (!read_future(s, &future))
        return false;
    if (seen->value && seen->value != future)
        s->counts.broken =
            "two states with one digest have different futures: digest is too coarse";
    seen->value = future;
    arena_restore(mark);
    s->snapshot = mark;
    s->depth = depth;
    s->transitions = transitions;
    return !s->counts.broken;
}

static bool search(struct search *s, unsigned left);

static bool branch(struct search *s, const struct choice *c, size_t n, unsigned left,
                   uint64_t digest)
{
    char *mark = s->snapshot;
    size_t depth = s->depth;
    s->snapshot += (arena_save(mark) + 63) / 64 * 64;
    ASSERT((size_t)(s->snapshot - s->snapshots) < SNAPSHOTS_MAX / 2);
    for (size_t i = 0; i < n; i++) {
        if (i)
            arena_restore(mark);
        if (!take(s, c, i, digest) || !search(s, left - (c[i].kind >= FAULTS)))
            return false;
        s->depth = depth;
    }
    s->snapshot = mark;
    return true;
}

/* All that can come of the state we are in. False: an invariant is broken. */
static bool search(struct search *s, unsigned left)
{
    struct choice c[CHOICES_MAX];
    for (;;) {
        size_t n = world_choices(s->world, left > 0, c);
        uint64_t digest = 0;
        if (s->counts.broken)
            return false;
        s->ends += n == 0;
        if (!n)
            return true;
        if (!world_mid_step(s->world)) {
            digest = world_digest(s->world);
            if (s->audit && digest % AUDIT_ONE_IN == 0 && !audit(s, digest))
                return false;
            if (!is_new(s, digest, left))
                return true;
        }
        if (n > 1)
            return branch(s, c, n, left, digest);
        if (!take(s, c, 0, digest))
            return false;
    }
}

/* ---- a story ---- */

static void live_again(struct search *s)
{
    struct choice c[CHOICES_MAX];
    unsigned left = s->faults;
    for (size_t i = 0; i < s->depth && !s->counts.broken; i++) {
        size_t n = world_choices(s->world, left > 0, c), which = s->path[i].which;
        if (which >= n)
            break;
        left -= c[which].kind >= FAULTS;
        world_take(s->world, &c[which]);
    }
    if (!s->counts.broken)
        (void)world_choices(s->world, left > 0, c);
}

/* The same way once more, with words. */
static void tell(struct search *s, const void *pristine)
{
    static struct buf story;
    arena_restore(pristine);
    buf_init(&story, STORY_MAX);
    s->counts.broken = NULL;
    s->world = world_new(&s->plan, &story, &s->counts);
    if (sigsetjmp(s->assertion, 1) == 0)
        live_again(s);
    fputs(buf_text(&story), stdout);
}

/* ---- a pair ---- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void broke(struct search *s, const struct jobs_pair *pair, const void *pristine)
{
    const char *why = s->counts.broken ? s->counts.broken : "an assertion of the code, see above";
    snprintf(s->broken, sizeof s->broken, "%s", why);
    tell(s, pristine);
    printf("%s, %u faults, %zu steps: violated: %s\n", pair->name, s->faults, s->depth, s->broken);
}

static bool run_round(struct search *s, const struct jobs_pair *pair, const void *pristine)
{
    empty(&s->states);
    empty(&s->audits);
    s->depth = 0;
    s->snapshot = s->snapshots;
    arena_restore(pristine);
    s->counts = (struct outcome_counts){0};
    bool ok = false;
    if (sigsetjmp(s->assertion, 1) == 0) {
        s->world = world_new(&s->plan, NULL, &s->counts);
        ok = search(s, s->faults);
    }
    if (!ok)
        broke(s, pair, pristine);
    return ok;
}

static struct search *new_search(const struct jobs_pair *pair, const struct exhaustive_options *o)
{
    struct search *s = arena_outside(sizeof *s);
    s->audit = o->audit;
    make_plan(pair, &s->plan);
    make_table(&s->states, STATES_MAX);
    make_table(&s->audits, AUDITS_MAX);
    s->snapshots = arena_outside(SNAPSHOTS_MAX);
    return s;
}

static bool run_pair(const struct jobs_pair *pair, const struct exhaustive_options *o)
{
    struct search *s = the_search = new_search(pair, o);
    struct sigaction act = {.sa_handler = on_abort};
    sigaction(SIGABRT, &act, NULL);
    arena_begin();
    void *pristine = arena_outside(arena_size());
    arena_save(pristine);
    double began = seconds();
    for (s->faults = 0; s->faults <= o->faults; s->faults++)
        if (!run_round(s, pair, pristine))
            return false;
    printf("%-14s %u faults: %zu states, %" PRIu64 " transitions, depth %zu, %" PRIu64
           " ends (%" PRIu64 " late keeps, %" PRIu64 " left running), %" PRIu64 " audits, %.1f s\n",
           pair->name, o->faults, s->states.n, s->transitions, s->deepest, s->ends,
           s->counts.late_keeps, s->counts.left_running, s->audited, seconds() - began);
    return true;
}

/* ---- all of them, each in a process of its own ---- */

static bool wait_for_one(unsigned *running)
{
    int status = 0;
    ASSERT(wait(&status) > 0);
    --*running;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void start_pair(const struct jobs_pair *pair, const struct exhaustive_options *o)
{
    pid_t child = fork();
    ASSERT(child >= 0);
    if (child == 0) {
        bool ok = run_pair(pair, o);
        fflush(stdout);
        _exit(!ok);
    }
}

bool explore_exhaustive(const struct exhaustive_options *o)
{
    unsigned running = 0, started = 0;
    bool ok = true;
    double began = seconds();
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        if (o->pair && strcmp(pairs[i].name, o->pair) != 0)
            continue;
        if (running == o->jobs)
            ok &= wait_for_one(&running);
        start_pair(&pairs[i], o);
        running++;
        started++;
    }
    while (running)
        ok &= wait_for_one(&running);
    if (ok && started)
        printf("%u pairs, every schedule with up to %u faults, %.1f s: every invariant held\n",
               started, o->faults, seconds() - began);
    return ok && started;
}
