/* transaction: publishing exactly_once, one short transaction per batch.
 *
 *   begin, produce, flush, send_offsets, commit
 *
 * Each call's answer is one of four (enum txn). AGAIN means the same call again
 * and no other: after a send_offsets that timed out, commit would succeed without the offsets.
 * send_offsets may block until the broker is back, whatever its time-out says.
 *
 * Any error event since the producer was made, even if commit then said ok, makes this its last
 * transaction, and while it was idle, the one before this (see producer.c).
 *
 * Once commit has been called and did not say ok, the outcome is unknown. It is then read back: a
 * new producer first ends what the old one left, then the group's stable offsets are asked for.
 * The batch's offsets become visible all or none, and each carries metadata that no earlier state
 * had, so one partition that shows exactly the batch's offset and metadata proves the commit. When
 * none does, the batch is refused. That is also right for partitions whose committed state has
 * moved on: only another owner can have moved them, so nothing of theirs is ours to send again or
 * to destroy, while every partition that is still ours shows either the batch or the state before
 * it. (To call a state that has moved on "committed" would be wrong: the new owner may have begun
 * below the batch.) */
#include <string.h>

#include "common/log.h"
#include "common/metrics.h"
#include "worker/io/publisher_impl.h"

#define CALL_MS 3000
#define COMMITTED_MS 2000

enum end { COMMITTED, REFUSED, UNKNOWN };

static uint64_t deadline(struct publisher *p)
{
    int64_t ms = kafka_number(p->producer.rk, "transaction.timeout.ms", KAFKA_TRANSACTION_MS);
    return loop_now_ns() + (uint64_t)ms * NS_PER_MS;
}

/* ---- the calls ---- */

static enum txn begin(struct publisher *p)
{
    struct producer *x = &p->producer;
    delivery_clear(p);
    return producer_judge(p, rd_kafka_begin_transaction(x->rk), "beginning a transaction");
}

static enum txn send_records(struct publisher *p, const struct batch *b)
{
    enum txn v = TXN_OK;
    for (size_t i = 0; i < b->n_messages && v == TXN_OK; i++) {
        delivery_send(p, &b->messages[i], i);
        if (p->producer.cut)
            v = delivery_flush(p, true);
    }
    return v == TXN_OK ? delivery_flush(p, true) : v;
}

static enum txn send_offsets(struct publisher *p, const struct batch *b,
                             const rd_kafka_consumer_group_metadata_t *group)
{
    enum txn v = TXN_OK;
    if (b->n_offsets == 0)
        return v;
    rd_kafka_topic_partition_list_t *list = delivery_offsets(p, b);
    do
        v = producer_judge(
            p, rd_kafka_send_offsets_to_transaction(p->producer.rk, list, group, CALL_MS),
            "sending offsets to the transaction");
    while (v == TXN_AGAIN && !publisher_stopping(p));
    rd_kafka_topic_partition_list_destroy(list);
    return v;
}

static enum txn end_with(struct publisher *p,
                         rd_kafka_error_t *(*call)(rd_kafka_t *rk, int timeout_ms),
                         const char *doing)
{
    enum txn v;
    uint64_t until = deadline(p);
    do
        v = producer_judge(p, call(p->producer.rk, CALL_MS), doing);
    while (v == TXN_AGAIN && loop_now_ns() < until && !publisher_stopping(p));
    return v;
}

static enum end run(struct publisher *p, const struct batch *b,
                    const rd_kafka_consumer_group_metadata_t *group)
{
    struct producer *x = &p->producer;
    bool asked = false;
    enum txn v = begin(p);
    if (v == TXN_OK)
        v = send_records(p, b);
    if (v == TXN_OK)
        v = send_offsets(p, b, group);
    if (v == TXN_OK) {
        asked = true;
        v = end_with(p, rd_kafka_commit_transaction, "committing a transaction");
    }
    if (v == TXN_ABORT)
        v = end_with(p, rd_kafka_abort_transaction, "aborting a transaction") == TXN_OK ? TXN_ABORT
                                                                                        : TXN_DEAD;
    rd_kafka_poll(x->rk, 0);
    if (v != TXN_OK && (asked || x->failed || v != TXN_ABORT))
        x->sick = true; /* a record that failed leaves a gap in the sequence numbers, too */
    if (v == TXN_OK)
        return COMMITTED;
    return asked ? UNKNOWN : REFUSED;
}

/* ---- an unknown outcome ---- */

/* Does t show exactly what the batch would have committed there? */
static bool shows(const struct batch_offset *o, const rd_kafka_topic_partition_t *t)
{
    const char *metadata = o->metadata ? o->metadata : "";
    return o->partition == t->partition && o->watermark == t->offset &&
           strlen(metadata) == t->metadata_size &&
           (t->metadata_size == 0 || memcmp(metadata, t->metadata, t->metadata_size) == 0);
}

/* The group's stable offsets of the batch's partitions, through the member: this is rare enough to
 * wait behind a JoinGroup. NULL: stopping. */
static rd_kafka_topic_partition_list_t *committed(struct publisher *p, const struct batch *b)
{
    for (;;) {
        rd_kafka_topic_partition_list_t *list =
            rd_kafka_topic_partition_list_new((int)b->n_offsets);
        for (size_t i = 0; i < b->n_offsets; i++)
            rd_kafka_topic_partition_list_add(list, p->o.config->topics.jobs,
                                              b->offsets[i].partition);
        rd_kafka_resp_err_t err = rd_kafka_committed(p->o.consumer, list, COMMITTED_MS);
        for (int i = 0; i < list->cnt && !err; i++)
            err = list->elems[i].err;
        if (!err)
            return list;
        rd_kafka_topic_partition_list_destroy(list);
        kafka_error(&p->producer.said, err, "reading committed offsets back", NULL);
        if (!publisher_pause(p, 100))
            return NULL;
    }
}

static bool read_back(struct publisher *p, const struct batch *b)
{
    bool found = false;
    metric_add1(M_BATCHES, MB_UNKNOWN, 1);
    producer_drop(p);
    if (b->n_offsets == 0 || !producer_make(p))
        return false;
    rd_kafka_topic_partition_list_t *list = committed(p, b);
    if (!list)
        return false;
    for (size_t i = 0; i < b->n_offsets; i++)
        found = found || shows(&b->offsets[i], &list->elems[i]);
    rd_kafka_topic_partition_list_destroy(list);
    log_warn(NULL, "the outcome of a commit was unknown", L_UINT("batch", b->id),
             L_STR("found", found ? "committed" : "not committed"));
    return found;
}

/* A producer that may begin. False: stopping. */
static bool fit(struct publisher *p)
{
    rd_kafka_poll(p->producer.rk, 0);
    if (p->producer.sick)
        producer_drop(p);
    return p->producer.rk || producer_make(p);
}

bool transaction_publish(struct publisher *p, const struct batch *b,
                         const rd_kafka_consumer_group_metadata_t *group)
{
    struct producer *x = &p->producer;
    ASSERT(group || b->n_offsets == 0);
    enum end end = fit(p) ? run(p, b, group) : REFUSED;
    if (end == REFUSED && x->too_large && !x->cut) {
        x->cut = true;
        end = fit(p) ? run(p, b, group) : REFUSED;
    }
    bool committed = end == COMMITTED || (end == UNKNOWN && read_back(p, b));
    if (end != UNKNOWN && x->sick)
        producer_drop(p);
    return committed;
}
