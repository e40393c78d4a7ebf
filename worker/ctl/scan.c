/* scan: see the header.
 *
 * All partitions are started at once, so that the broker fills their queues side by side, and then
 * read one after the other. A partition is over at its end as it was asked for at first, or when
 * the broker says that nothing is left (the last record may be a transaction's mark, which nobody
 * sees). What is written meanwhile is left alone: a scan of a busy topic ends. */
#include "worker/ctl/scan.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/xalloc.h"

#define SLICE_MS 200
#define QUEUE_KB "4096" /* per partition */

struct part {
    rd_kafka_topic_t *rkt; /* borrowed */
    size_t topic;
    int32_t id;
    int64_t end;
    bool started;
};

struct run {
    const struct scan *scan;
    struct client client;
    rd_kafka_topic_t *topics[SCAN_TOPICS]; /* owned; NULL: passed over */
    struct part *parts;                    /* owned */
    size_t n, cap;
};

static void add_parts(struct run *r, size_t topic, const rd_kafka_topic_partition_list_t *ends)
{
    for (int i = 0; i < ends->cnt; i++) {
        GROW(r->parts, r->n, r->cap);
        r->parts[r->n++] = (struct part){.rkt = r->topics[topic],
                                         .topic = topic,
                                         .id = ends->elems[i].partition,
                                         .end = ends->elems[i].offset};
    }
}

static enum ctl_exit fail(struct run *r, size_t topic, rd_kafka_resp_err_t err, char why[WHY_SIZE])
{
    char what[160];
    snprintf(what, sizeof what, "reading %.100s", r->scan->topics[topic].name);
    return client_explain(&r->client, err, what, why);
}

static enum ctl_exit find_topic(struct run *r, size_t topic, char why[WHY_SIZE])
{
    const struct scan_topic *t = &r->scan->topics[topic];
    int n;
    enum ctl_exit code = t->must_exist ? client_topic(&r->client, t->name, &n, why)
                                       : client_partitions(&r->client, t->name, &n, why);
    if (code || n == 0)
        return code;
    rd_kafka_topic_partition_list_t *ends = rd_kafka_topic_partition_list_new(n);
    rd_kafka_topic_partition_list_add_range(ends, t->name, 0, n - 1);
    rd_kafka_resp_err_t err = client_ends(&r->client, ends);
    r->topics[topic] = rd_kafka_topic_new(r->client.rk, t->name, NULL);
    if (!err)
        add_parts(r, topic, ends);
    rd_kafka_topic_partition_list_destroy(ends);
    return err ? fail(r, topic, err, why) : CTL_OK;
}

static enum ctl_exit start_all(struct run *r, char why[WHY_SIZE])
{
    for (size_t i = 0; i < r->n; i++) {
        struct part *p = &r->parts[i];
        if (p->end <= 0)
            continue;
        if (rd_kafka_consume_start(p->rkt, p->id, RD_KAFKA_OFFSET_BEGINNING) != 0)
            return fail(r, p->topic, rd_kafka_last_error(), why);
        p->started = true;
    }
    return CTL_OK;
}

uint64_t message_time_ms(const rd_kafka_message_t *m)
{
    rd_kafka_timestamp_type_t type;
    int64_t ms = rd_kafka_message_timestamp(m, &type);
    return ms > 0 && type != RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? (uint64_t)ms : 0;
}

/* False: enough. */
static bool take(struct run *r, const struct part *p, rd_kafka_message_t *m)
{
    const struct scan *s = r->scan;
    bool wanted = m->offset < p->end && message_time_ms(m) >= s->since_ms;
    return !wanted || s->take(s->arg, p->topic, m);
}

/* *enough: the taker wants no more. */
static enum ctl_exit read_part(struct run *r, const struct part *p, bool *enough,
                               char why[WHY_SIZE])
{
    uint64_t until = now_ms() + KAFKA_TIMEOUT_MS;
    for (bool over = !p->started; !over && !*enough;) {
        rd_kafka_poll(r->client.rk, 0);
        rd_kafka_message_t *m = rd_kafka_consume(p->rkt, p->id, SLICE_MS);
        rd_kafka_resp_err_t err = m ? m->err : RD_KAFKA_RESP_ERR__TIMED_OUT;
        if (m && !err) {
            *enough = !take(r, p, m);
            until = now_ms() + KAFKA_TIMEOUT_MS;
        }
        over = err == RD_KAFKA_RESP_ERR__PARTITION_EOF || (m && !err && m->offset + 1 >= p->end);
        if (m)
            rd_kafka_message_destroy(m);
        if (!over && err && (m || now_ms() > until))
            return fail(r, p->topic, err, why);
    }
    return CTL_OK;
}

static void run_done(struct run *r)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->parts[i].started)
            rd_kafka_consume_stop(r->parts[i].rkt, r->parts[i].id);
    for (size_t i = 0; i < SCAN_TOPICS; i++)
        if (r->topics[i])
            rd_kafka_topic_destroy(r->topics[i]);
    free(r->parts);
    client_close(&r->client);
}

enum ctl_exit scan_run(const struct scan *s, const struct config *cfg, char why[WHY_SIZE])
{
    static const struct client_property ours[] = {{"isolation.level", "read_committed"},
                                                  {"enable.partition.eof", "true"},
                                                  {"auto.offset.reset", "earliest"},
                                                  {"enable.auto.commit", "false"},
                                                  {"fetch.wait.max.ms", "10"},
                                                  {"fetch.max.bytes", "4194304"},
                                                  {"message.max.bytes", "1000000"},
                                                  {"queued.min.messages", "10000"},
                                                  {"queued.max.messages.kbytes", QUEUE_KB}};
    static const struct client_role role = {RD_KAFKA_CONSUMER, ours, ARRAY_LEN(ours), NULL};
    struct run r = {.scan = s};
    bool enough = false;
    enum ctl_exit code = client_open(&r.client, cfg, &role, why);
    for (size_t i = 0; i < SCAN_TOPICS && !code; i++)
        if (s->topics[i].name && *s->topics[i].name)
            code = find_topic(&r, i, why);
    if (!code)
        code = start_all(&r, why);
    for (size_t i = 0; i < r.n && !code && !enough; i++)
        code = read_part(&r, &r.parts[i], &enough, why);
    run_done(&r);
    return code;
}
