/* reader: see the header.
 *
 * librdkafka's simple consumer: partitions are started one by one at offsets that we give, and all
 * of them feed one queue. "From the end" is asked for and answered before reader_open returns
 * (ListOffsets), rather than left to the first fetch: a result that is written between the two
 * would otherwise be passed over. */
#include "worker/ctl/reader.h"

#include <stdio.h>
#include <string.h>

static enum ctl_exit start(struct reader *r, size_t t, enum read_from from, char why[WHY_SIZE])
{
    const char *name = rd_kafka_topic_name(r->topics[t].rkt);
    int n = r->topics[t].partitions;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
    rd_kafka_topic_partition_list_add_range(list, name, 0, n - 1);
    rd_kafka_resp_err_t err = from == READ_FROM_END ? client_ends(&r->client, list) : 0;
    for (int i = 0; i < n && !err; i++) {
        int64_t at = from == READ_FROM_END ? list->elems[i].offset : RD_KAFKA_OFFSET_BEGINNING;
        if (rd_kafka_consume_start_queue(r->topics[t].rkt, i, at, r->queue) != 0)
            err = rd_kafka_last_error();
        else
            r->topics[t].started++;
    }
    rd_kafka_topic_partition_list_destroy(list);
    char what[160];
    snprintf(what, sizeof what, "reading %.100s", name);
    return err ? client_explain(&r->client, err, what, why) : CTL_OK;
}

static enum ctl_exit add_topic(struct reader *r, const char *name, enum read_from from,
                               char why[WHY_SIZE])
{
    size_t t = r->n;
    enum ctl_exit code = client_topic(&r->client, name, &r->topics[t].partitions, why);
    if (code)
        return code;
    r->topics[t].rkt = rd_kafka_topic_new(r->client.rk, name, NULL);
    r->n++;
    return start(r, t, from, why);
}

enum ctl_exit reader_open(struct reader *r, const struct config *cfg,
                          const char *const names[READER_TOPICS], enum read_from from,
                          char why[WHY_SIZE])
{
    static const struct client_property ours[] = {
        {"isolation.level", "read_committed"}, {"enable.partition.eof", "true"},
        {"auto.offset.reset", "earliest"},     {"enable.auto.commit", "false"},
        {"fetch.wait.max.ms", "100"},          {"fetch.max.bytes", "4194304"},
        {"message.max.bytes", "1000000"},
    };
    static const struct client_role role = {RD_KAFKA_CONSUMER, ours, ARRAY_LEN(ours), NULL};
    *r = (struct reader){0};
    enum ctl_exit code = client_open(&r->client, cfg, &role, why);
    if (!code)
        r->queue = rd_kafka_queue_new(r->client.rk);
    for (size_t i = 0; i < READER_TOPICS && !code; i++)
        if (names[i] && *names[i])
            code = add_topic(r, names[i], from, why);
    return code;
}

rd_kafka_message_t *reader_next(struct reader *r, int timeout_ms)
{
    rd_kafka_poll(r->client.rk, 0);
    return rd_kafka_consume_queue(r->queue, timeout_ms);
}

void reader_close(struct reader *r)
{
    for (size_t t = 0; t < r->n; t++) {
        for (int i = 0; i < r->topics[t].started; i++)
            rd_kafka_consume_stop(r->topics[t].rkt, i);
        rd_kafka_topic_destroy(r->topics[t].rkt);
    }
    r->n = 0;
    if (r->queue)
        rd_kafka_queue_destroy(r->queue);
    r->queue = NULL;
    client_close(&r->client);
}

bool message_header(rd_kafka_message_t *m, const char *name, const char **value, size_t *len)
{
    rd_kafka_headers_t *headers;
    const void *at;
    if (rd_kafka_message_headers(m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
        rd_kafka_header_get_last(headers, name, &at, len) != RD_KAFKA_RESP_ERR_NO_ERROR || !at)
        return false;
    *value = at;
    return true;
}
