/* delivery: the records of a batch, out and confirmed; and publishing at_least_once.
 *
 * Records are copied into librdkafka, since a producer that is given up may outlive the batch.
 *
 * at_least_once: a record that could not be delivered is sent again for as long as it takes; only
 * when all have their report are the offsets committed through the consumer, and again for as long
 * as the member's generation is that of the batch. A commit in a later generation could go to a
 * partition that is somebody else's by then, so it is refused instead.
 *
 * A dead letter holds a whole foreign record plus headers and may be larger than its topic takes.
 * It would stop the partition for good, so it is then sent without the end of its value. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/xalloc.h"
#include "worker/io/publisher_impl.h"

#define FLUSH_MS 500
#define COMMIT_MS 3000
#define CUT_BYTES 65536 /* of the value; as many of the headers that are not ours */
#define CUT_KEY 1024    /* no session id is longer than 100 */
#define OURS "__connect.errors."

/* ---- records ---- */

static void note_failure(struct publisher *p, rd_kafka_resp_err_t err, const char *topic)
{
    struct producer *x = &p->producer;
    if (err != RD_KAFKA_RESP_ERR__PURGE_QUEUE && err != RD_KAFKA_RESP_ERR__PURGE_INFLIGHT)
        kafka_error(&x->said, err, "publishing to", topic); /* else: of an abort */
    if (!x->failed)
        x->failed = err;
    if (err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
        x->too_large = true;
}

void delivery_report(rd_kafka_t *rk, const rd_kafka_message_t *m, void *arg)
{
    struct publisher *p = arg;
    uintptr_t tag = (uintptr_t)m->_private;
    (void)rk;
    publisher_alive(p);
    if (m->err)
        note_failure(p, m->err, rd_kafka_topic_name(m->rkt));
    else if (p->producer.delivered)
        p->producer.delivered[tag] = true;
}

void delivery_clear(struct publisher *p)
{
    p->producer.failed = RD_KAFKA_RESP_ERR_NO_ERROR;
    p->producer.too_large = false;
}

static const char *topic_of(const struct publisher *p, enum destination to)
{
    switch (to) {
    case TO_RESULTS:
        return p->o.config->topics.results;
    case TO_DEAD_LETTERS:
        return p->o.config->topics.dead_letters;
    case TO_PROGRESS:
        return p->o.config->topics.progress;
    }
    return "";
}

static rd_kafka_headers_t *headers_of(const struct message *m, bool cut)
{
    rd_kafka_headers_t *list = rd_kafka_headers_new(m->n_headers + 1);
    size_t left = cut ? CUT_BYTES : SIZE_MAX;
    for (size_t i = 0; i < m->n_headers; i++) {
        const struct header *h = &m->headers[i];
        size_t size = strlen(h->name) + h->len;
        bool ours = strncmp(h->name, OURS, strlen(OURS)) == 0;
        if (!ours && size > left)
            continue;
        left -= ours ? 0 : size;
        rd_kafka_header_add(list, h->name, -1, h->value, (ssize_t)h->len);
    }
    if (cut)
        rd_kafka_header_add(list, "session-worker-cut", -1, "true", -1);
    return list;
}

static rd_kafka_resp_err_t produce(rd_kafka_t *rk, const char *topic, const struct message *m,
                                   bool cut, uintptr_t tag)
{
    rd_kafka_headers_t *headers = headers_of(m, cut);
    rd_kafka_resp_err_t err = rd_kafka_producev(
        rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY(m->key, cut ? MIN(m->key_len, (size_t)CUT_KEY) : m->key_len),
        RD_KAFKA_V_VALUE(m->value, cut ? MIN(m->value_len, (size_t)CUT_BYTES) : m->value_len),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE((void *)tag), RD_KAFKA_V_END);
    if (err)
        rd_kafka_headers_destroy(headers);
    return err;
}

void delivery_send(struct publisher *p, const struct message *m, uintptr_t tag)
{
    struct producer *x = &p->producer;
    const char *topic = topic_of(p, m->to);
    rd_kafka_resp_err_t err;
    bool cut = x->cut && m->to == TO_DEAD_LETTERS;
    if (!*topic) {
        if (x->delivered)
            x->delivered[tag] = true;
        return;
    }
    while ((err = produce(x->rk, topic, m, cut, tag)) == RD_KAFKA_RESP_ERR__QUEUE_FULL &&
           !publisher_stopping(p))
        rd_kafka_poll(x->rk, 100);
    if (err)
        note_failure(p, err, topic);
}

rd_kafka_resp_err_t delivery_progress(rd_kafka_t *rk, const char *topic, const struct message *m)
{
    return produce(rk, topic, m, false, 0);
}

enum txn delivery_flush(struct publisher *p, bool first)
{
    struct producer *x = &p->producer;
    while (rd_kafka_flush(x->rk, FLUSH_MS) == RD_KAFKA_RESP_ERR__TIMED_OUT) {
        if (publisher_stopping(p) || producer_dead(p) == TXN_DEAD)
            return TXN_DEAD;
        if (first && x->failed)
            return TXN_ABORT;
        if (!first) /* a record without a time-out waits for its leader, and nothing hangs */
            publisher_alive(p);
    }
    if (producer_dead(p) == TXN_DEAD)
        return TXN_DEAD;
    return x->failed ? TXN_ABORT : TXN_OK;
}

rd_kafka_topic_partition_list_t *delivery_offsets(struct publisher *p, const struct batch *b)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)b->n_offsets);
    for (size_t i = 0; i < b->n_offsets; i++) {
        const struct batch_offset *o = &b->offsets[i];
        rd_kafka_topic_partition_t *t =
            rd_kafka_topic_partition_list_add(list, p->o.config->topics.jobs, o->partition);
        t->offset = o->watermark;
        t->metadata = xstrdup0(o->metadata); /* freed with the list */
        t->metadata_size = o->metadata ? strlen(o->metadata) : 0;
    }
    return list;
}

/* ---- at_least_once ---- */

static bool all_delivered(const struct producer *x, const struct batch *b)
{
    for (size_t i = 0; i < b->n_messages; i++)
        if (!x->delivered[i])
            return false;
    return true;
}

static enum txn send_missing(struct publisher *p, const struct batch *b)
{
    struct producer *x = &p->producer;
    enum txn v = TXN_OK;
    for (size_t i = 0; i < b->n_messages && v != TXN_DEAD; i++) {
        if (x->delivered[i])
            continue;
        delivery_send(p, &b->messages[i], i);
        if (x->cut)
            v = delivery_flush(p, false);
    }
    return v == TXN_DEAD ? v : delivery_flush(p, false);
}

static bool deliver_all(struct publisher *p, const struct batch *b)
{
    struct producer *x = &p->producer;
    while (x->rk || producer_make(p)) {
        delivery_clear(p);
        if (send_missing(p, b) == TXN_DEAD)
            producer_drop(p);
        if (all_delivered(x, b))
            return true;
        bool at_once = x->too_large && !x->cut;
        x->cut = x->cut || x->too_large;
        if (!at_once && !publisher_pause(p, 500))
            return false;
    }
    return false;
}

/* Is the member still in the generation that the batch was made in? */
static bool same_generation(struct publisher *p, const rd_kafka_consumer_group_metadata_t *then)
{
    void *a = NULL, *b = NULL;
    size_t na = 0, nb = 0;
    rd_kafka_consumer_group_metadata_t *now = rd_kafka_consumer_group_metadata(p->o.consumer);
    if (!now)
        return false;
    rd_kafka_error_t *ea = rd_kafka_consumer_group_metadata_write(then, &a, &na);
    rd_kafka_error_t *eb = rd_kafka_consumer_group_metadata_write(now, &b, &nb);
    bool same = !ea && !eb && na == nb && memcmp(a, b, na) == 0;
    rd_kafka_error_destroy(ea);
    rd_kafka_error_destroy(eb);
    rd_kafka_mem_free(NULL, a);
    rd_kafka_mem_free(NULL, b);
    rd_kafka_consumer_group_metadata_destroy(now);
    return same;
}

static rd_kafka_resp_err_t error_of(rd_kafka_event_t *ev)
{
    if (rd_kafka_event_error(ev))
        return rd_kafka_event_error(ev);
    const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(ev);
    for (int i = 0; list && i < list->cnt; i++)
        if (list->elems[i].err)
            return list->elems[i].err;
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t commit_once(struct publisher *p, const struct batch *b)
{
    rd_kafka_topic_partition_list_t *list = delivery_offsets(p, b);
    rd_kafka_queue_t *q = rd_kafka_queue_new(p->o.consumer);
    rd_kafka_resp_err_t err = rd_kafka_commit_queue(p->o.consumer, list, q, NULL, NULL);
    rd_kafka_event_t *ev = err ? NULL : rd_kafka_queue_poll(q, COMMIT_MS);
    if (ev)
        err = error_of(ev);
    else if (!err)
        err = RD_KAFKA_RESP_ERR__TIMED_OUT;
    if (ev)
        rd_kafka_event_destroy(ev);
    rd_kafka_queue_destroy(q);
    rd_kafka_topic_partition_list_destroy(list);
    return err;
}

/* No later attempt in this generation would be taken either. */
static bool is_final(rd_kafka_resp_err_t err)
{
    return kafka_generation_over(err) || err == RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE ||
           err == RD_KAFKA_RESP_ERR_INVALID_COMMIT_OFFSET_SIZE ||
           err == RD_KAFKA_RESP_ERR__DESTROY || err == RD_KAFKA_RESP_ERR__UNKNOWN_GROUP;
}

static bool commit_offsets(struct publisher *p, const struct batch *b,
                           const rd_kafka_consumer_group_metadata_t *group)
{
    do {
        if (!group || !same_generation(p, group))
            return false;
        rd_kafka_resp_err_t err = commit_once(p, b);
        if (!err)
            return true;
        kafka_error(&p->producer.said, err, "committing offsets", NULL);
        if (is_final(err))
            return false;
        if (err != RD_KAFKA_RESP_ERR__TIMED_OUT && err != RD_KAFKA_RESP_ERR__TRANSPORT)
            publisher_alive(p);
    } while (publisher_pause(p, 200));
    return false;
}

bool offsets_publish(struct publisher *p, const struct batch *b,
                     const rd_kafka_consumer_group_metadata_t *group)
{
    struct producer *x = &p->producer;
    x->delivered = xcalloc(b->n_messages + 1, sizeof *x->delivered);
    bool all = deliver_all(p, b);
    free(x->delivered);
    x->delivered = NULL;
    return all && (b->n_offsets == 0 || commit_offsets(p, b, group));
}
