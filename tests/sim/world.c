/* world: see the header. Here: the queue of what will happen, the table of how it happens, the
 * story that tells of it, and a world's life from the plan to the silence at its end.
 *
 * One queue, one clock: by a plan, time moves only when an event is taken from the queue, and of
 * two events of the same time the one that was posted first comes first. Every delay and every
 * choice is drawn from the world's one generator, in the order in which things happen; so a seed is
 * a story, and whoever draws once more or once less changes all that follows. Step by step, the
 * host takes from the queue what it likes: see world_choice.c.
 *
 * What is simplified, and why it is enough: the broker is one object that never fails (the
 * publisher's own trouble with brokers is tested against a real one); a commit is three steps
 * (offsets, end, said) between which a worker may crash, freeze or lose its partitions; a look-up
 * waits while a transaction of somebody else is pending on the partition.
 *
 * The rest by file: world_worker.c the workers and the faults, world_kafka.c group, records and
 * transactions, world_daytona.c requests and answers, world_check.c the invariants,
 * world_choice.c the life step by step, world_core.c a core's state in a number. */
#include "tests/sim/world_impl.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/xalloc.h"

#define QUIET_NS (40 * 60 * NS_PER_S) /* leases, sweeps and what Daytona gives up fit in */
#define EVENTS_MAX 2000000
#define LONGEST_NS (4 * 3600 * NS_PER_S)

/* ---- the story ---- */

void world_tell(struct world *w, const char *fmt, ...)
{
    if (!w->story)
        return;
    va_list ap;
    buf_addf(w->story, "%10.3f  ", (double)w->now / 1e9);
    va_start(ap, fmt);
    buf_vaddf(w->story, fmt, ap);
    va_end(ap);
    buf_addc(w->story, '\n');
}

void world_broken(struct world *w, const char *fmt, ...)
{
    static char text[512];
    va_list ap;
    if (w->out->broken)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    w->out->broken = text;
    world_tell(w, "BROKEN: %s", text);
}

/* ---- the queue ---- */

static bool is_before(const struct event_at *a, const struct event_at *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

void world_push(struct world *w, uint64_t at, struct event_at e)
{
    e.at = MAX(at, w->now);
    e.seq = ++w->seq;
    GROW(w->queue, w->n_queue, w->cap_queue);
    size_t i = w->n_queue++;
    for (; !w->plan->step_by_step && i > 0 && is_before(&e, &w->queue[(i - 1) / 2]);
         i = (i - 1) / 2)
        w->queue[i] = w->queue[(i - 1) / 2];
    w->queue[i] = e;
}

static bool pop(struct world *w, struct event_at *out)
{
    if (!w->n_queue)
        return false;
    *out = w->queue[0];
    struct event_at last = w->queue[--w->n_queue];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_queue; i = child) {
        if (child + 1 < w->n_queue && is_before(&w->queue[child + 1], &w->queue[child]))
            child++;
        if (!is_before(&w->queue[child], &last))
            break;
        w->queue[i] = w->queue[child];
    }
    w->queue[i] = last;
    return true;
}

#define MOMENT_MS 20

uint64_t world_about(struct world *w, uint64_t ms)
{
    if (w->plan->step_by_step)
        return ms <= MOMENT_MS ? w->now : w->now + ms * NS_PER_MS;
    return w->now + 1 + rng_below(&w->rng, 2 * ms * NS_PER_MS + 1);
}

bool world_coin(struct world *w)
{
    return w->plan->step_by_step || rng_below(&w->rng, 2);
}

void world_post(struct world *w, uint64_t at, enum happening what, unsigned worker, uint64_t n)
{
    world_push(w, at,
               (struct event_at){
                   .what = what, .worker = worker, .epoch = w->workers[worker].epoch, .n = n});
}

/* ---- what happens ---- */

/* What happens, and whether it happens inside a worker: then not to a dead one, and to a frozen one
 * when it wakes. A dead worker's transaction may end all the same (its event has no epoch). */
static const struct {
    void (*fn)(struct world *, const struct event_at *);
    bool inside;
} happenings[N_HAPPENINGS] = {
    [TICK] = {world_on_tick, true},
    [ARRIVE] = {world_on_arrive, false},
    [DELIVER] = {world_on_deliver, true},
    [CALL_TIMEOUT] = {world_on_call_timeout, true},
    [DAYTONA] = {world_on_daytona, false},
    [FETCH] = {world_on_fetch, true},
    [LOOKUP] = {world_on_lookup, true},
    [TXN_OFFSETS] = {world_on_txn_offsets, true},
    [TXN_END] = {world_on_txn_end, true},
    [TXN_SAID] = {world_on_txn_said, true},
    [TXN_ABORT] = {world_on_txn_abort, false},
    [JOIN] = {world_on_join, false},
    [SESSION_OUT] = {world_on_session_out, false},
    [START_WORKER] = {world_on_start, false},
    [PRODUCE] = {world_on_produce, false},
    [FAULT] = {world_on_fault, false},
    [THAW] = {world_on_thaw, true},
};

static bool is_inside(const struct event_at *e)
{
    bool orphan = e->what == TXN_END && !e->epoch;
    return happenings[e->what].inside && !orphan;
}

static bool names_request(const struct event_at *e)
{
    return e->what == ARRIVE || e->what == DELIVER || e->what == CALL_TIMEOUT;
}

/* The outside has changed. */
static bool is_seen(const struct event_at *e)
{
    return e->what == ARRIVE || e->what == DAYTONA || e->what == TXN_END;
}

bool world_event_is_over(const struct world *w, const struct event_at *e)
{
    const struct worker *k = &w->workers[e->worker];
    if (is_inside(e) && (!k->core || (e->epoch && e->epoch != k->epoch)))
        return true;
    bool wanted = e->what == DELIVER || e->what == CALL_TIMEOUT;
    return wanted && w->requests[e->n]->done;
}

bool world_event_is_blocked(const struct world *w, const struct event_at *e)
{
    return is_inside(e) && w->workers[e->worker].frozen_until && e->what != THAW;
}

void world_happen(struct world *w, const struct event_at *e)
{
    bool over = world_event_is_over(w, e);
    if (!over && world_event_is_blocked(w, e)) {
        world_push(w, w->workers[e->worker].frozen_until + 1, *e);
        return;
    }
    if (!over)
        happenings[e->what].fn(w, e);
    if (names_request(e))
        world_request_unnamed(w, e->n);
    if (!over && is_seen(e))
        world_check_sandboxes(w);
}

/* ---- life ---- */

static void world_log(void *arg, const char *line, size_t len)
{
    struct world *w = arg;
    world_tell(w, "        %.*s", (int)len, line);
}

static void make_config(struct world *w)
{
    const char *const sets[] = {
        "kafka.group=x",
        "topics.jobs=j",
        "jobs.max_in_flight=6",
        w->plan->step_by_step ? "sweep.every_seconds=60" : "sweep.every_seconds=3",
        "providers.daytona.api_url=http://127.0.0.1:3986/api",
        "providers.daytona.creates_per_minute=100000",
        "session_key.secret_files=",
    };
    static char key[] = "DAYTONA_API_KEY=dtn_any";
    static char *env[] = {key, NULL};
    struct buf errors;
    buf_init(&errors, 4096);
    struct config_source src = {.sets = sets, .n_sets = ARRAY_LEN(sets) - 1, .environ = env};
    if (!config_load(&src, &w->config, &errors)) {
        fputs(buf_text(&errors), stderr);
        abort();
    }
    buf_done(&errors);
    w->providers[0] = provider_new(&w->config, 0);
}

static void make_model(struct world *w)
{
    char error[MODEL_ERROR_SIZE];
    struct model_options o = {.seed = w->plan->seed,
                              .wall_ms = WALL_MS,
                              .base_url = "http://127.0.0.1:3986",
                              .domain = "localhost:3986",
                              .boot_ms = 400,
                              .server_ms = 300,
                              .stop_ms = 150,
                              .destroy_ms = 200};
    w->model = model_new(&o, error);
    ASSERT(w->model);
}

static void world_done(struct world *w)
{
    for (unsigned i = 0; i < WORKERS_MAX; i++) {
        core_free(w->workers[i].core);
        outbox_done(&w->workers[i].outbox);
        world_txn_clear(&w->workers[i].txn);
    }
    for (size_t n = 0; n < w->n_requests; n++)
        world_request_free(w->requests[n]);
    for (unsigned p = 0; p < PARTITIONS_MAX; p++)
        free(w->parts[p].metadata);
    world_seen_done(w);
    free(w->requests);
    free(w->queue);
    model_free(w->model);
    provider_free(w->providers[0]);
    config_done(&w->config);
}

static void begin(struct world *w)
{
    const struct plan *plan = w->plan;
    if (plan->foreign)
        world_make_foreign(w);
    for (unsigned p = 0; p < PARTITIONS_MAX; p++)
        w->parts[p] = (struct part_log){.owner = -1, .committed = -1};
    for (unsigned i = 0; i < plan->present; i++)
        world_push(w, 1 + i * 50 * NS_PER_MS, (struct event_at){.what = START_WORKER, .worker = i});
    for (size_t i = 0; i < plan->n_jobs; i++) {
        if (plan->jobs[i].off || plan->jobs[i].at_ns == NEVER)
            continue;
        world_push(w, plan->jobs[i].at_ns, (struct event_at){.what = PRODUCE, .n = i});
        w->produced++;
    }
    for (size_t i = 0; i < plan->n_faults; i++)
        if (!plan->faults[i].off && !plan->faults[i].at_effect)
            world_push(w, plan->faults[i].at_ns,
                       (struct event_at){.what = FAULT, .worker = plan->faults[i].worker, .n = i});
}

struct world *world_new(const struct plan *plan, struct buf *story, struct outcome_counts *out)
{
    struct world *w = xcalloc(1, sizeof *w);
    *w = (struct world){.plan = plan, .story = story, .out = out};
    *out = (struct outcome_counts){0};
    rng_init(&w->rng, plan->seed);
    log_setup(story ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, LOG_LOGFMT);
    log_capture(world_log, w);
    make_config(w);
    make_model(w);
    begin(w);
    return w;
}

void world_free(struct world *w)
{
    world_done(w);
    free(w);
    log_capture(NULL, NULL);
}

/* When the last fault is over, all is done and nobody has done anything for long. */
static bool is_quiet(const struct world *w, uint64_t *done_ns)
{
    const struct plan *plan = w->plan;
    bool produced = w->now > plan->jobs[plan->n_jobs - 1].at_ns + NS_PER_S;
    *done_ns = produced && world_all_done(w) ? (*done_ns ? *done_ns : w->now) : 0;
    uint64_t since = MAX(*done_ns, MAX(w->last_fault_ns, w->key_refused_until));
    return *done_ns && w->now > since + QUIET_NS;
}

static void live(struct world *w)
{
    struct event_at e;
    uint64_t done_ns = 0;
    while (!w->out->broken && pop(w, &e)) {
        w->now = MAX(w->now, e.at);
        w->out->events++;
        world_happen(w, &e);
        if (w->out->events > EVENTS_MAX || w->now > LONGEST_NS)
            world_broken(w, "no end in sight");
        if (is_quiet(w, &done_ns))
            break;
    }
    if (!w->out->broken)
        world_check_end(w);
}

/* ---- an assertion of the code under test is a broken invariant, not the end of the test ---- */

static sigjmp_buf assertion;

static void on_abort(int signal)
{
    (void)signal;
    siglongjmp(assertion, 1);
}

bool world_run(const struct plan *plan, struct buf *story, struct outcome_counts *out)
{
    struct sigaction act = {.sa_handler = on_abort}, before;
    sigaction(SIGABRT, &act, &before);
    if (sigsetjmp(assertion, 1) == 0) {
        struct world *w = world_new(plan, story, out);
        live(w);
        world_free(w);
    } else { /* what the world held is lost */
        out->broken = "an assertion of the code, see above";
        log_capture(NULL, NULL);
    }
    sigaction(SIGABRT, &before, NULL);
    return !out->broken;
}
