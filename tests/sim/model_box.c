/* A sandbox's life: boot, stop, destruction, the crons that act on it, and the requests that wait
 * for it.
 *
 * What happens by itself hangs on two timers: `life` ends the change under way, `cron` fires at the
 * next :00, :10 … after which an automatic stop, archiving or deletion is due. Holds are answered
 * by box_moved, which every change of state ends with. A sandbox is never forgotten: the ledger
 * names every one. */
#include "tests/sim/model_impl.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"

static void life_fired(struct model *, struct timer *);
static void cron_fired(struct model *, struct timer *);

void box_init_timers(struct box *b)
{
    b->life = (struct timer){.at = NEVER, .fire = life_fired};
    b->cron = (struct timer){.at = NEVER, .fire = cron_fired};
}

/* Quotas: what runs or is about to takes CPU and memory, what has a disk takes disk. */
static void count_usage(struct model *m, struct box *b)
{
    bool lives = box_live(b) && !b->pooled;
    bool runs = lives && b->state != S_STOPPED && b->state != S_ARCHIVED && b->state != S_ERROR;
    bool stored = lives && b->state != S_ARCHIVED;
    int run = (int)runs - (int)b->counted_run, store = (int)stored - (int)b->counted_stored;
    m->used_cpu += run * b->cpu;
    m->used_memory += run * b->memory;
    m->used_disk += store * b->disk;
    b->counted_run = runs;
    b->counted_stored = stored;
}

void box_moved(struct model *m, struct box *b)
{
    count_usage(m, b);
    b->updated_ms = b->activity_ms = b->activity_shown_ms = wall_ms(m);
    b->flush_ms = 0;
    if (b->state == S_STARTED || b->state == S_ERROR || b->state == S_BUILD_FAILED)
        answer_holds(m, b);
    box_arm_cron(m, b);
}

/* ---- changes of state ---- */

static void begin(struct model *m, struct box *b, enum state state, uint64_t takes_ns)
{
    b->state = state;
    b->pending = true;
    box_moved(m, b);
    timer_arm(m, &b->life, takes_ns == NEVER ? NEVER : m->now + takes_ns);
}

static uint64_t takes(struct model *m, int64_t median_ms, double spread)
{
    return m->opt.profile == PROFILE_CLOUD ? latency(m, median_ms, spread)
                                           : from_ms((uint64_t)median_ms);
}

static const uint64_t creating_limit = 15 * 60 * NS_PER_S, starting_limit = 5 * 60 * NS_PER_S;

static uint64_t boot_takes(struct model *m, const struct box *b, enum state state)
{
    if (b->script && b->script->boot == BOOT_STUCK)
        return state == S_STARTING ? starting_limit : creating_limit;
    if (b->script && b->script->boot_ms >= 0)
        return from_ms((uint64_t)b->script->boot_ms);
    return takes(m, m->boot_ms, 0.6);
}

static uint64_t stop_takes(struct model *m, const struct box *b, int64_t median_ms)
{
    if (b->script && b->script->stop_ms >= 0)
        return from_ms((uint64_t)b->script->stop_ms);
    return takes(m, median_ms, 0.5);
}

/* A script that gives its own reason stands for a runner that refuses: its daemon is never known.
 */
void box_begin_boot(struct model *m, struct box *b)
{
    b->desired = D_STARTED;
    b->has_runner = !(b->script && b->script->reason);
    begin(m, b, S_CREATING, boot_takes(m, b, S_CREATING));
}

enum { BUILD_WAITS_MS = 50, RESTORE_WAITS_MS = 1000 };

void box_begin_build(struct model *m, struct box *b)
{
    b->desired = D_STARTED;
    begin(m, b, S_PENDING_BUILD, from_ms(BUILD_WAITS_MS));
}

void box_begin_start(struct model *m, struct box *b)
{
    bool archived = b->state == S_ARCHIVED;
    b->desired = D_STARTED;
    if (archived) {
        begin(m, b, S_ARCHIVED, from_ms(RESTORE_WAITS_MS));
        return;
    }
    begin(m, b, S_STARTING, boot_takes(m, b, S_STARTING));
}

static void lose_insides(struct box *b)
{
    daemon_free(b->daemon);
    b->daemon = NULL;
    b->started_at = NEVER;
}

void box_begin_stop(struct model *m, struct box *b, enum ended_by by)
{
    if (b->auto_delete == 0) {
        box_begin_destroy(m, b, by);
        return;
    }
    lose_insides(b);
    b->desired = D_STOPPED;
    begin(m, b, S_STOPPING, stop_takes(m, b, m->stop_ms));
}

void box_begin_archive(struct model *m, struct box *b)
{
    b->desired = D_ARCHIVED;
    begin(m, b, S_ARCHIVING, stop_takes(m, b, m->stop_ms));
}

/* The name is free, and so is the label, from here on. */
static void end_of_name(struct model *m, struct box *b, enum ended_by by)
{
    b->entry->box = NULL;
    b->entry->live--;
    b->entry = NULL;
    m->live--;
    for (size_t i = 0; i < N_INDEXED; i++)
        if (b->sets[i])
            b->sets[i]->live--;
    free(b->name);
    b->name = xasprintf("DESTROYED_%s_%llu", b->first_name, (unsigned long long)wall_ms(m));
    b->destroyed_ms = wall_ms(m);
    b->ended_by = by;
    b->ephemeral_at_end = b->auto_delete == 0;
    box_hand_out(m, b);
}

void box_begin_destroy(struct model *m, struct box *b, enum ended_by by)
{
    end_of_name(m, b, by);
    b->desired = D_DESTROYED;
    if (b->state == S_ERROR || b->state == S_BUILD_FAILED) {
        box_moved(m, b);
        return;
    }
    lose_insides(b);
    begin(m, b, S_DESTROYING, stop_takes(m, b, m->destroy_ms));
}

void box_fail(struct model *m, struct box *b, const char *reason)
{
    lose_insides(b);
    timer_disarm(m, &b->life);
    free(b->error_reason);
    b->error_reason = xstrdup(reason);
    b->state = S_ERROR;
    b->pending = false;
    b->recoverable = b->script && b->script->recoverable;
    box_moved(m, b);
}

void box_restart_daemon(struct model *m, struct box *b)
{
    lose_insides(b);
    b->started_at = m->now;
}

void box_crash(struct model *m, struct box *b)
{
    lose_insides(b);
    b->desired = D_STOPPED;
    b->state = S_STOPPED;
    box_moved(m, b);
}

static const char usual_reason[] = "Sandbox entered error state on runner during startup wait loop";

static bool boot_fails(struct model *m, struct box *b)
{
    enum boot boot = b->script ? b->script->boot : BOOT_WELL;
    if (boot == BOOT_STUCK)
        box_fail(m, b,
                 b->state == S_STARTING ? "Timeout while starting sandbox"
                                        : "Timeout while creating sandbox");
    else if (boot == BOOT_ERROR && !b->recovered)
        box_fail(m, b, b->script->reason ? b->script->reason : usual_reason);
    else
        return false;
    return true;
}

static void now_started(struct model *m, struct box *b)
{
    if (boot_fails(m, b))
        return;
    if (b->state != S_CREATING) {
        memcpy(b->old_token, b->token, TOKEN_SIZE);
        b->old_token_until = m->now + NS_PER_S;
        make_token(m, b->token, TOKEN_SIZE - 1, alphabet_token);
    }
    b->state = S_STARTED;
    b->pending = false;
    b->has_runner = true;
    b->started_at = m->now;
    box_moved(m, b);
}

static void now_stopped(struct model *m, struct box *b)
{
    b->state = S_STOPPED;
    b->pending = false;
    box_moved(m, b);
}

static void now_destroyed(struct model *m, struct box *b)
{
    b->state = S_DESTROYED;
    b->pending = false;
    box_moved(m, b);
    box_unlist(m, b);
}

static void now_archived(struct model *m, struct box *b)
{
    b->state = S_ARCHIVED;
    b->pending = false;
    box_moved(m, b);
}

/* A runner takes it: from the build queue, or out of the archive. */
static void now_taken(struct model *m, struct box *b)
{
    enum state next = b->state == S_PENDING_BUILD ? S_CREATING : S_RESTORING;
    begin(m, b, next, boot_takes(m, b, next));
}

static void life_fired(struct model *m, struct timer *t)
{
    static void (*const arrive[N_STATES])(struct model *, struct box *) = {
        [S_CREATING] = now_started,    [S_STARTING] = now_started,     [S_RESTORING] = now_started,
        [S_STOPPING] = now_stopped,    [S_DESTROYING] = now_destroyed, [S_ARCHIVING] = now_archived,
        [S_PENDING_BUILD] = now_taken, [S_ARCHIVED] = now_taken,
    };
    struct box *b = CONTAINER_OF(t, struct box, life);
    ASSERT(arrive[b->state]);
    arrive[b->state](m, b);
}

/* ---- crons ---- */

enum { CRON_MS = 10000, CRON_RACE_MS = 300 };

static uint64_t minutes_after(uint64_t ms, int64_t minutes)
{
    return ms + (uint64_t)minutes * 60000;
}

/* The first tick of the crons after ms, wall clock. */
static uint64_t next_tick(uint64_t ms)
{
    return (ms / CRON_MS + 1) * CRON_MS;
}

/* When something is due by itself, wall clock; NEVER: nothing. */
static uint64_t due_ms(const struct box *b)
{
    if (b->pending || b->desired == D_DESTROYED || b->pooled)
        return NEVER;
    if (b->state == S_STARTED)
        return b->auto_stop > 0 ? minutes_after(b->activity_shown_ms, b->auto_stop) : NEVER;
    if (b->state != S_STOPPED || b->desired == D_ARCHIVED)
        return NEVER;
    uint64_t archive = minutes_after(b->activity_shown_ms, b->auto_archive);
    uint64_t destroy =
        b->auto_delete >= 0 ? minutes_after(b->activity_shown_ms, b->auto_delete) : NEVER;
    return MIN(archive, destroy);
}

void box_arm_cron(struct model *m, struct box *b)
{
    uint64_t due = due_ms(b);
    if (due == NEVER)
        timer_disarm(m, &b->cron);
    else
        timer_arm(m, &b->cron, from_ms(next_tick(MAX(due, wall_ms(m) + 1) - 1) - m->opt.wall_ms));
}

static void stopped_cron(struct model *m, struct box *b)
{
    if (b->auto_delete >= 0 && minutes_after(b->activity_shown_ms, b->auto_delete) <= wall_ms(m)) {
        box_begin_destroy(m, b, BY_AUTO_DELETE);
        return;
    }
    box_begin_archive(m, b);
}

/* The cron selects at the tick and acts a moment later on what it selected: a KEEP that comes in
 * between is answered 201 and does not help. */
static void started_cron(struct model *m, struct box *b)
{
    if (b->auto_delete != 0) {
        box_begin_stop(m, b, BY_AUTO_STOP);
        return;
    }
    b->doomed = true;
    timer_arm(m, &b->cron, m->now + from_ms(1 + model_random(m) % CRON_RACE_MS));
}

static void cron_fired(struct model *m, struct timer *t)
{
    struct box *b = CONTAINER_OF(t, struct box, cron);
    box_flush(m, b);
    if (b->doomed) {
        b->doomed = false;
        box_begin_destroy(m, b, BY_AUTO_STOP);
    } else if (due_ms(b) > wall_ms(m)) { /* there was activity */
        box_arm_cron(m, b);
    } else if (m->runner_down) {
        timer_arm(m, t, m->now + from_ms(CRON_MS));
    } else if (b->state == S_STARTED) {
        started_cron(m, b);
    } else {
        stopped_cron(m, b);
    }
}

/* ---- activity: reaches the database with the next flush ---- */

void box_touch(struct model *m, struct box *b)
{
    box_flush(m, b);
    b->activity_ms = wall_ms(m);
    b->flush_ms = next_tick(b->activity_ms);
}

void box_flush(const struct model *m, struct box *b)
{
    if (b->flush_ms && b->flush_ms <= wall_ms(m)) {
        b->activity_shown_ms = MAX(b->activity_shown_ms, b->activity_ms);
        b->flush_ms = 0;
    }
}
