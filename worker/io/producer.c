/* producer: the life of the one producer that the publisher's thread has at a time.
 *
 * librdkafka resends requests by itself, and the brokers do not tell an old EndTxn or
 * TxnOffsetCommit from a new one of the same epoch: one that was under way when a connection broke
 * may end the next transaction. Only a new producer of the same transactional id bumps the epoch.
 * It costs 5 to 20 ms once the topics' metadata is there, so it is made on the slightest doubt;
 * without metadata the first record would wait for a second.
 *
 * Of one error librdkafka tells the first two times, and then not again for 30 s as long as a
 * broker's last error stays the same. So an error event of an idle producer counts as well: the
 * next one, in a transaction, might not be told. While it is being made one is allowed (a host name
 * with an address where nobody listens); with more it serves for one transaction.
 *
 * Being fenced has two causes. The coordinator does it when a transaction has outlived its time:
 * begun long ago. Another live process of the same name does it at any time: twice in a row, soon
 * after a begin, ends this one. */
#include "common/log.h"
#include "common/metrics.h"
#include "common/xalloc.h"
#include "worker/io/publisher_impl.h"

#include <stdlib.h>

#define CALL_MS 1000
#define METADATA_MS 2000
#define FEW_BATCHES 10
#define EXIT_TRY_AGAIN 75
#define EXIT_CONFIG 2

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *arg)
{
    struct publisher *p = arg;
    (void)rk;
    p->producer.errors++;
    if (p->ready || p->producer.errors > 1)
        p->producer.sick = true;
    kafka_error(&p->producer.said, (rd_kafka_resp_err_t)err, "publishing", reason);
}

void producer_drop(struct publisher *p)
{
    p->ready = false;
    kafka_destroy(p->producer.rk);
    p->producer.rk = NULL;
}

/* ---- verdicts ---- */

static bool is_fence(rd_kafka_resp_err_t err)
{
    return err == RD_KAFKA_RESP_ERR__FENCED || err == RD_KAFKA_RESP_ERR_PRODUCER_FENCED ||
           err == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
}

/* It will never be allowed: a mistake of the configuration or a broker that is too old. */
static bool is_hopeless(rd_kafka_resp_err_t err)
{
    return err == RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT ||
           err == RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE || err == RD_KAFKA_RESP_ERR__INVALID_ARG;
}

static void note_fence(struct publisher *p)
{
    struct producer *x = &p->producer;
    uint64_t age = loop_now_ns() - x->begun_ns;
    uint64_t limit = (uint64_t)kafka_number(x->rk, "transaction.timeout.ms", KAFKA_TRANSACTION_MS);
    if (!x->begun_ns || age >= limit * NS_PER_MS)
        return; /* the coordinator gave the transaction up */
    x->fenced = x->committed < FEW_BATCHES ? x->fenced + 1 : 1;
    x->begun_ns = 0; /* once per batch */
    if (x->fenced < 2)
        return;
    CLEANUP(free_ptr)
    char *why =
        xasprintf("two workers of group \"%s\" use the instance \"%s\" and fence each other: give "
                  "each a kafka.instance of its own",
                  p->o.config->kafka.group, p->o.instance);
    publisher_fatal(p, EXIT_TRY_AGAIN, why);
}

static void note_dead(struct publisher *p, rd_kafka_resp_err_t err, const char *text)
{
    if (is_fence(err))
        note_fence(p);
    else if (is_hopeless(err))
        publisher_fatal(p, EXIT_CONFIG, text);
}

enum txn producer_judge(struct publisher *p, rd_kafka_error_t *e, const char *doing)
{
    enum txn v;
    if (!e) {
        publisher_alive(p);
        return TXN_OK;
    }
    if (rd_kafka_error_is_fatal(e) || is_fence(rd_kafka_error_code(e)))
        v = TXN_DEAD;
    else if (rd_kafka_error_txn_requires_abort(e))
        v = TXN_ABORT;
    else
        v = rd_kafka_error_is_retriable(e) ? TXN_AGAIN : TXN_DEAD;
    kafka_error(&p->producer.said, rd_kafka_error_code(e), doing, rd_kafka_error_string(e));
    if (v != TXN_AGAIN || rd_kafka_error_code(e) != RD_KAFKA_RESP_ERR__TIMED_OUT)
        publisher_alive(p); /* an answer, if not the wanted one */
    if (v == TXN_DEAD)
        note_dead(p, rd_kafka_error_code(e), rd_kafka_error_string(e));
    rd_kafka_error_destroy(e);
    return v;
}

enum txn producer_dead(struct publisher *p)
{
    char text[512];
    rd_kafka_resp_err_t err = rd_kafka_fatal_error(p->producer.rk, text, sizeof text);
    if (!err)
        return TXN_OK;
    note_dead(p, err, text);
    return TXN_DEAD;
}

/* ---- making ---- */

static bool init_transactions(struct publisher *p)
{
    enum txn v;
    if (p->o.config->kafka.delivery != EXACTLY_ONCE)
        return true;
    do
        v = producer_judge(p, rd_kafka_init_transactions(p->producer.rk, CALL_MS),
                           "preparing transactions");
    while (v == TXN_AGAIN && !publisher_stopping(p));
    return v == TXN_OK;
}

/* Asks for the topic, so that its first record need not wait. False: no broker answers. */
static bool warm_topic(struct publisher *p, const char *name)
{
    struct producer *x = &p->producer;
    const struct rd_kafka_metadata *m = NULL;
    if (!*name)
        return true;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(x->rk, name, NULL);
    rd_kafka_resp_err_t err =
        topic ? rd_kafka_metadata(x->rk, 0, topic, &m, METADATA_MS) : rd_kafka_last_error();
    if (topic)
        rd_kafka_topic_destroy(topic);
    if (err) {
        kafka_error(&x->said, err, "asking for a topic to publish to", name);
        return false;
    }
    publisher_alive(p);
    if (m->topic_cnt == 1 && m->topics[0].err)
        kafka_error(&x->said, m->topics[0].err, "asking for a topic to publish to", name);
    rd_kafka_metadata_destroy(m);
    return true;
}

static bool warm(struct publisher *p)
{
    do
        if (warm_topic(p, p->o.config->topics.results) &&
            warm_topic(p, p->o.config->topics.dead_letters))
            return true;
    while (publisher_pause(p, 100));
    return false;
}

static bool make(struct publisher *p)
{
    struct producer *x = &p->producer;
    enum kafka_role role =
        p->o.config->kafka.delivery == EXACTLY_ONCE ? KAFKA_TRANSACTIONAL : KAFKA_IDEMPOTENT;
    rd_kafka_conf_t *conf = kafka_conf(p->o.config, role, p->o.instance);
    rd_kafka_conf_set_opaque(conf, p);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_dr_msg_cb(conf, delivery_report);
    x->sick = false;
    x->errors = 0;
    x->rk = kafka_new(role, conf);
    if (!x->rk) {
        publisher_fatal(p, EXIT_TRY_AGAIN, "no producer can be made"); /* its settings are right */
        return false;
    }
    if (init_transactions(p) && warm(p))
        return true;
    producer_drop(p);
    return false;
}

bool producer_make(struct publisher *p)
{
    bool made = false;
    publisher_alive(p);
    while (!made && !publisher_stopping(p)) {
        made = make(p);
        if (!made)
            publisher_pause(p, 1000);
    }
    if (!made)
        return false;
    metric_add(M_PRODUCERS_MADE, 1);
    log_debug(NULL, "producer ready", L_STR("instance", p->o.instance));
    p->producer.committed = 0;
    p->ready = true;
    return true;
}
