/* publisher: see the header. This file is the hand-over, the thread's loop and the watchdog; what
 * the thread does with a batch is in transaction.c (exactly_once) and delivery.c (at_least_once).
 *
 * One slot under one lock is all that crosses between the loop and the thread; a wake brings the
 * loop to it. The batch and the group metadata belong to the thread from publisher_commit until
 * the outcome.
 *
 * The watchdog. While the thread has work, alive_ns is its last sign of progress. A thread that
 * makes none may wait for a broker that is away, which must not end the worker: results pile up and
 * back-pressure acts. So another handle asks the group's coordinator meanwhile: only when that has
 * answered for a third of the limit without a break, and the thread has been silent for the whole,
 * is it a call that will never return. Then the process ends; fencing makes that safe. */
#include <stdlib.h>
#include <time.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/xalloc.h"
#include "worker/io/publisher_impl.h"

#define WATCHDOG_SECONDS 120
#define BEGIN_APART_NS (20 * NS_PER_MS)
#define AFTER_END_NS (5 * NS_PER_MS)
#define REFUSED_MS 100u
#define REFUSED_MAX_MS 1000u
#define STOP_SECONDS 5
#define EXIT_TRY_AGAIN 75

/* ---- for the thread ---- */

static struct timespec in_ms(clockid_t clock, uint64_t ms)
{
    struct timespec t;
    clock_gettime(clock, &t);
    uint64_t ns = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec + ms * NS_PER_MS;
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

static bool is_stopping(const struct publisher *p) /* under the lock */
{
    return p->slot.stop || p->slot.exit_code;
}

bool publisher_stopping(struct publisher *p)
{
    pthread_mutex_lock(&p->lock);
    bool stopping = is_stopping(p);
    pthread_mutex_unlock(&p->lock);
    return stopping;
}

bool publisher_pause(struct publisher *p, unsigned ms)
{
    struct timespec until = in_ms(CLOCK_MONOTONIC, ms);
    int timed_out = 0;
    pthread_mutex_lock(&p->lock);
    while (!is_stopping(p) && !timed_out)
        timed_out = pthread_cond_timedwait(&p->change, &p->lock, &until);
    bool stopping = is_stopping(p);
    pthread_mutex_unlock(&p->lock);
    return !stopping;
}

void publisher_alive(struct publisher *p)
{
    p->alive_ns = loop_now_ns();
}

/* Under the lock, so that after a stop nobody touches the wake any more. */
static void ring(struct publisher *p)
{
    if (!p->slot.stop)
        wake_send(p->wake);
}

void publisher_fatal(struct publisher *p, int exit_code, const char *why)
{
    pthread_mutex_lock(&p->lock);
    if (!p->slot.exit_code) {
        p->slot.exit_code = exit_code;
        p->slot.why = xstrdup(why);
    }
    ring(p);
    pthread_mutex_unlock(&p->lock);
}

/* ---- the thread ---- */

/* Waits for a batch; NULL: stopping. Serves the idle producer, whose events would pile up. */
static const struct batch *take(struct publisher *p, rd_kafka_consumer_group_metadata_t **group)
{
    p->alive_ns = 0;
    pthread_mutex_lock(&p->lock);
    while (!is_stopping(p) && (!p->slot.batch || p->slot.done)) {
        struct timespec until = in_ms(CLOCK_MONOTONIC, 1000);
        if (pthread_cond_timedwait(&p->change, &p->lock, &until) == 0)
            continue;
        pthread_mutex_unlock(&p->lock);
        rd_kafka_poll(p->producer.rk, 0);
        pthread_mutex_lock(&p->lock);
    }
    const struct batch *b = is_stopping(p) ? NULL : p->slot.batch;
    *group = p->slot.group;
    pthread_mutex_unlock(&p->lock);
    publisher_alive(p);
    return b;
}

/* Begins closer together than this only wait for each other's markers in the broker. */
static void pace(struct publisher *p)
{
    struct producer *x = &p->producer;
    uint64_t now = loop_now_ns();
    uint64_t at = MAX(x->begun_ns + BEGIN_APART_NS, x->ended_ns + AFTER_END_NS);
    if (at > now && at - now <= BEGIN_APART_NS)
        nanosleep(&(struct timespec){.tv_nsec = (long)(at - now)}, NULL);
    x->begun_ns = loop_now_ns();
}

/* What was refused is likely to be tried again at once: not faster than this. */
static void count_outcome(struct publisher *p, bool committed)
{
    struct producer *x = &p->producer;
    x->ended_ns = loop_now_ns();
    if (committed) {
        x->committed++;
        x->refusals = 0;
        return;
    }
    unsigned ms = REFUSED_MS << MIN(x->refusals, 8u);
    x->refusals++;
    publisher_pause(p, MIN(ms, REFUSED_MAX_MS));
}

static void report(struct publisher *p, bool committed)
{
    pthread_mutex_lock(&p->lock);
    p->slot.done = true;
    p->slot.committed = committed;
    ring(p);
    pthread_mutex_unlock(&p->lock);
}

static void *thread_main(void *arg)
{
    struct publisher *p = arg;
    rd_kafka_consumer_group_metadata_t *group;
    publish_fn *publish =
        p->o.config->kafka.delivery == EXACTLY_ONCE ? transaction_publish : offsets_publish;
    while (p->producer.rk || producer_make(p)) {
        const struct batch *b = take(p, &group);
        if (!b)
            break;
        pace(p);
        p->producer.cut = false;
        bool committed = publish(p, b, group);
        count_outcome(p, committed);
        if (publisher_stopping(p))
            break; /* nobody waits for the outcome any more */
        report(p, committed);
    }
    producer_drop(p);
    return NULL;
}

/* ---- the loop's side ---- */

static void on_outcome(struct publisher *p, uint64_t batch, bool committed)
{
    p->o.outcome(p->o.arg, batch, committed);
}

static void on_wake(void *arg)
{
    struct publisher *p = arg;
    pthread_mutex_lock(&p->lock);
    bool done = p->slot.done, committed = p->slot.committed;
    int exit_code = p->slot.exit_code;
    uint64_t batch = done ? p->slot.batch->id : 0;
    if (done) {
        if (p->slot.group)
            rd_kafka_consumer_group_metadata_destroy(p->slot.group);
        p->slot.batch = NULL;
        p->slot.group = NULL;
        p->slot.done = false;
    }
    pthread_mutex_unlock(&p->lock);
    if (done)
        on_outcome(p, batch, committed);
    if (exit_code && !p->dead) {
        p->dead = true;
        p->o.fatal(p->o.arg, exit_code, p->slot.why); /* set once, before exit_code was seen */
    }
}

static void on_answer(void *arg, const struct committed *c)
{
    struct publisher *p = arg;
    p->asked = false;
    if (!c->known)
        p->answering_ns = 0;
    else if (!p->answering_ns)
        p->answering_ns = loop_now_ns();
}

/* Does the group's coordinator answer? Asked again and again while the thread is silent. */
static void ask_coordinator(struct publisher *p)
{
    static const int32_t any = 0;
    if (!p->lookup)
        p->lookup = lookup_new(p->loop, p->o.config, p->o.instance, false, on_answer, p);
    if (!p->lookup || p->asked)
        return;
    p->asked = true;
    lookup_ask(p->lookup, &any, 1, 1);
}

static void on_watchdog(void *arg)
{
    struct publisher *p = arg;
    uint64_t now = loop_now_ns(), alive = p->alive_ns;
    uint64_t limit = (p->o.watchdog_seconds ? p->o.watchdog_seconds : WATCHDOG_SECONDS) * NS_PER_S;
    timer_arm(p->watchdog, now + MIN(NS_PER_S, limit / 8));
    if (p->side)
        rd_kafka_poll(p->side, 0);
    if (!alive || now < alive || now - alive < limit / 2) {
        p->answering_ns = 0;
        return;
    }
    ask_coordinator(p);
    if (now - alive < limit || !p->answering_ns || now - p->answering_ns < limit / 3)
        return;
    CLEANUP(free_ptr)
    char *why = xasprintf("publishing has hung for %llu s although the broker answers: start again",
                          (unsigned long long)((now - alive) / NS_PER_S));
    publisher_fatal(p, EXIT_TRY_AGAIN, why);
}

/* ---- life ---- */

static void init_lock(struct publisher *p)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->change, &attr);
    pthread_condattr_destroy(&attr);
}

struct publisher *publisher_new(struct loop *loop, const struct publisher_options *options)
{
    struct publisher *p = xcalloc(1, sizeof *p);
    p->o = *options;
    p->loop = loop;
    init_lock(p);
    p->wake = wake_new(loop, on_wake, p);
    p->watchdog = timer_new(loop, on_watchdog, p);
    timer_arm(p->watchdog, loop_now_ns() + NS_PER_S);
    ASSERT(pthread_create(&p->thread, NULL, thread_main, p) == 0);
    return p;
}

static void stop(struct publisher *p)
{
    pthread_mutex_lock(&p->lock);
    p->slot.stop = true;
    pthread_cond_signal(&p->change);
    pthread_mutex_unlock(&p->lock);
}

bool publisher_free(struct publisher *p)
{
    if (!p)
        return true;
    stop(p);
    timer_free(p->watchdog);
    wake_free(p->wake);
    lookup_free(p->lookup);
    kafka_destroy(p->side);
    struct timespec until = in_ms(CLOCK_MONOTONIC, STOP_SECONDS * 1000);
    if (pthread_clockjoin_np(p->thread, NULL, CLOCK_MONOTONIC, &until) != 0) {
        log_warn(NULL, "the publisher hangs in a call and is left behind");
        return false; /* with all that the thread may still use */
    }
    if (p->slot.group)
        rd_kafka_consumer_group_metadata_destroy(p->slot.group);
    pthread_cond_destroy(&p->change);
    pthread_mutex_destroy(&p->lock);
    free(p->slot.why);
    free(p);
    return true;
}

/* at_least_once is fenced by comparing generations, so it needs the group's as well. */
void publisher_commit(struct publisher *p, const struct batch *batch,
                      rd_kafka_consumer_group_metadata_t *group)
{
    if (!group && p->o.config->kafka.delivery == AT_LEAST_ONCE && p->o.consumer)
        group = rd_kafka_consumer_group_metadata(p->o.consumer);
    pthread_mutex_lock(&p->lock);
    ASSERT(!p->slot.batch);
    p->slot.batch = batch;
    p->slot.group = group;
    pthread_cond_signal(&p->change);
    pthread_mutex_unlock(&p->lock);
}

void publisher_progress(struct publisher *p, const struct message *m)
{
    const char *topic = p->o.config->topics.progress;
    if (!*topic)
        return;
    if (!p->side)
        p->side = kafka_new(KAFKA_PLAIN, kafka_conf(p->o.config, KAFKA_PLAIN, p->o.instance));
    if (p->side)
        delivery_progress(p->side, topic, m);
}

bool publisher_ready(const struct publisher *p)
{
    return p->ready;
}
