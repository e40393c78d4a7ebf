/* lookup: see the header.
 *
 * Why a thread and rd_kafka_committed(), which blocks, rather than the asynchronous
 * ListConsumerGroupOffsets: a request of the admin API that is on its way to a coordinator when
 * that one comes back may abort the whole process (seen with 2.0.2 at the restart of a broker;
 * librdkafka issue 4605, open). And why a handle of its own: on the member's connection the answer
 * would wait behind a JoinGroup.
 *
 * rd_kafka_committed() asks for stable offsets when isolation.level is read_committed, and keeps
 * asking until its time is up; then the elements look like "nothing committed", so only the return
 * value says whether they mean anything. One pending partition spoils the answer for all that were
 * asked together: then each is asked alone. */
#include "worker/io/lookup.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "common/xalloc.h"
#include "worker/io/kafka.h"

#define TOGETHER_MS 400
#define ALONE_MS 150
#define METADATA_MS 500
#define IDLE_SECONDS 1

struct question {
    int32_t partition;
    uintptr_t ticket;
};

struct lookup {
    const struct config *config; /* borrowed */
    rd_kafka_t *rk;
    struct wake *wake;
    lookup_fn *fn;
    void *arg;
    pthread_t thread;
    struct kafka_said said; /* of the thread */
    int32_t total;          /* of the thread */

    pthread_mutex_t lock; /* over all below */
    pthread_cond_t change;
    struct question *questions;
    size_t n_questions, cap_questions;
    struct committed *answers; /* metadata owned */
    size_t n_answers, cap_answers;
    bool stop;
};

/* ---- the thread ---- */

static bool stopping(struct lookup *l)
{
    pthread_mutex_lock(&l->lock);
    bool stop = l->stop;
    pthread_mutex_unlock(&l->lock);
    return stop;
}

/* Waits for questions; their number, 0: stopping. The caller owns *out. */
static size_t take(struct lookup *l, struct question **out)
{
    pthread_mutex_lock(&l->lock);
    while (!l->stop && l->n_questions == 0) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += IDLE_SECONDS;
        pthread_cond_timedwait(&l->change, &l->lock, &until);
        rd_kafka_poll(l->rk, 0); /* error events, which nobody needs, would pile up */
    }
    size_t n = l->stop ? 0 : l->n_questions;
    if (n > 0) { /* what is left when it stops is freed with it */
        *out = l->questions;
        l->questions = NULL;
        l->n_questions = l->cap_questions = 0;
    }
    pthread_mutex_unlock(&l->lock);
    return n;
}

static void answer(struct lookup *l, const struct question *q, const rd_kafka_topic_partition_t *t)
{
    pthread_mutex_lock(&l->lock);
    GROW(l->answers, l->n_answers, l->cap_answers);
    l->answers[l->n_answers++] = (struct committed){
        .partition = q->partition,
        .ticket = q->ticket,
        .known = t != NULL,
        .offset = t && t->offset >= 0 ? t->offset : -1,
        .metadata = xmemdup0(t && t->metadata_size ? t->metadata : "", t ? t->metadata_size : 0),
        .total = l->total};
    pthread_mutex_unlock(&l->lock);
    wake_send(l->wake);
}

/* Asks for n partitions together. False: of none of them is anything known. */
static bool ask(struct lookup *l, const struct question *q, size_t n, int ms)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)n);
    for (size_t i = 0; i < n; i++)
        rd_kafka_topic_partition_list_add(list, l->config->topics.jobs, q[i].partition);
    rd_kafka_resp_err_t err = rd_kafka_committed(l->rk, list, ms);
    for (size_t i = 0; i < n && !err; i++)
        err = list->elems[i].err;
    for (size_t i = 0; i < n && !err; i++)
        answer(l, &q[i], &list->elems[i]);
    rd_kafka_topic_partition_list_destroy(list);
    if (err && err != RD_KAFKA_RESP_ERR__TIMED_OUT &&
        err != RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT)
        kafka_error(&l->said, err, "looking up committed offsets", NULL);
    return !err;
}

static int32_t count_partitions(struct lookup *l)
{
    const struct rd_kafka_metadata *m = NULL;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(l->rk, l->config->topics.jobs, NULL);
    int32_t total = l->total;
    if (topic && !rd_kafka_metadata(l->rk, 0, topic, &m, METADATA_MS)) {
        if (m->topic_cnt == 1 && !m->topics[0].err)
            total = m->topics[0].partition_cnt;
        rd_kafka_metadata_destroy(m);
    }
    if (topic)
        rd_kafka_topic_destroy(topic);
    return total;
}

static void *thread_main(void *arg)
{
    struct lookup *l = arg;
    struct question *q;
    size_t n;
    while ((n = take(l, &q)) > 0) {
        l->total = count_partitions(l);
        bool all = ask(l, q, n, TOGETHER_MS);
        for (size_t i = 0; i < n && !all && !stopping(l); i++)
            if (!ask(l, &q[i], 1, ALONE_MS))
                answer(l, &q[i], NULL);
        free(q);
    }
    return NULL;
}

/* ---- the loop's side ---- */

static void on_wake(void *arg)
{
    struct lookup *l = arg;
    pthread_mutex_lock(&l->lock);
    struct committed *answers = l->answers;
    size_t n = l->n_answers;
    l->answers = NULL;
    l->n_answers = l->cap_answers = 0;
    pthread_mutex_unlock(&l->lock);
    for (size_t i = 0; i < n; i++) {
        l->fn(l->arg, &answers[i]);
        free(answers[i].metadata);
    }
    free(answers);
}

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *arg)
{
    (void)rk, (void)err, (void)reason, (void)arg; /* the member of the group says the same */
}

static void init_lock(struct lookup *l)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->change, &attr);
    pthread_condattr_destroy(&attr);
}

struct lookup *lookup_new(struct loop *loop, const struct config *cfg, const char *instance,
                          bool stable, lookup_fn *fn, void *arg)
{
    rd_kafka_conf_t *conf = kafka_conf(cfg, KAFKA_CONSUMER, instance);
    char why[256];
    rd_kafka_conf_set_error_cb(conf, on_error);
    if (!stable)
        rd_kafka_conf_set(conf, "isolation.level", "read_uncommitted", why, sizeof why);
    rd_kafka_t *rk = kafka_new(KAFKA_CONSUMER, conf);
    if (!rk)
        return NULL;
    struct lookup *l = xcalloc(1, sizeof *l);
    *l = (struct lookup){.config = cfg, .rk = rk, .fn = fn, .arg = arg};
    init_lock(l);
    l->wake = wake_new(loop, on_wake, l);
    ASSERT(pthread_create(&l->thread, NULL, thread_main, l) == 0);
    return l;
}

void lookup_free(struct lookup *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->change);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    kafka_destroy(l->rk);
    wake_free(l->wake);
    for (size_t i = 0; i < l->n_answers; i++)
        free(l->answers[i].metadata);
    free(l->answers);
    free(l->questions);
    pthread_cond_destroy(&l->change);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void lookup_ask(struct lookup *l, const int32_t *partitions, size_t n, uintptr_t ticket)
{
    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < n; i++) {
        GROW(l->questions, l->n_questions, l->cap_questions);
        l->questions[l->n_questions++] =
            (struct question){.partition = partitions[i], .ticket = ticket};
    }
    pthread_cond_signal(&l->change);
    pthread_mutex_unlock(&l->lock);
}
