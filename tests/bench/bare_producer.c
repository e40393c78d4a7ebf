/* bare_producer: the yardstick of publishing. One transaction after the other, as one writes it
 * from librdkafka's example: all results that are ready, their offset, commit; nothing is checked
 * beyond success, nothing is retried. The client has the worker's settings.
 *
 *   bare_producer BROKERS RESULTS JOBS RATE TOTAL
 *
 * Prints one JSON object (meter.h). */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/bench/meter.h"

#define CALL_MS 10000

static void must(rd_kafka_error_t *error)
{
    if (!error)
        return;
    fprintf(stderr, "bare_producer: %s\n", rd_kafka_error_string(error));
    exit(1);
}

static rd_kafka_t *producer_new(const struct meter_options *o)
{
    const char *const settings[][2] = {{"bootstrap.servers", o->brokers},
                                       {"transactional.id", o->results},
                                       {"linger.ms", "0"},
                                       {"socket.nagle.disable", "true"},
                                       {"partitioner", "murmur2_random"},
                                       {"message.max.bytes", "8388608"},
                                       {"retry.backoff.ms", "20"}};
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        ASSERT(!rd_kafka_conf_set(conf, settings[i][0], settings[i][1], why, sizeof why));
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    ASSERT(rk);
    must(rd_kafka_init_transactions(rk, CALL_MS));
    return rk;
}

/* Without it the first record would wait for a second, which is not what is measured. */
static void ask_metadata(rd_kafka_t *rk, const char *topic)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *t = rd_kafka_topic_new(rk, topic, NULL);
    ASSERT(!rd_kafka_metadata(rk, 0, t, &metadata, CALL_MS));
    rd_kafka_metadata_destroy(metadata);
    rd_kafka_topic_destroy(t);
}

static void produce(rd_kafka_t *rk, const char *topic, const struct message *m)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(m->n_headers);
    for (size_t i = 0; i < m->n_headers; i++)
        rd_kafka_header_add(headers, m->headers[i].name, -1, m->headers[i].value,
                            (ssize_t)m->headers[i].len);
    ASSERT(!rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                              RD_KAFKA_V_KEY(m->key, m->key_len),
                              RD_KAFKA_V_VALUE(m->value, m->value_len), RD_KAFKA_V_HEADERS(headers),
                              RD_KAFKA_V_END));
}

static void publish(rd_kafka_t *rk, const struct meter_options *o, struct meter *m,
                    const struct message *messages, size_t n)
{
    rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata_new(o->results);
    rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *t = rd_kafka_topic_partition_list_add(offsets, o->jobs, 0);
    t->offset = meter_offset(m);
    must(rd_kafka_begin_transaction(rk));
    for (size_t i = 0; i < n; i++)
        produce(rk, o->results, &messages[i]);
    must(rd_kafka_send_offsets_to_transaction(rk, offsets, group, CALL_MS));
    must(rd_kafka_commit_transaction(rk, CALL_MS));
    rd_kafka_poll(rk, 0);
    rd_kafka_topic_partition_list_destroy(offsets);
    rd_kafka_consumer_group_metadata_destroy(group);
    meter_committed(m);
}

static void wait_until(uint64_t at)
{
    uint64_t now = meter_now_ns();
    if (at > now)
        nanosleep(&(struct timespec){.tv_sec = (time_t)((at - now) / NS_PER_S),
                                     .tv_nsec = (long)((at - now) % NS_PER_S)},
                  NULL);
}

int main(int argc, char **argv)
{
    struct meter_options o;
    struct message *messages;
    if (!meter_arguments(argc, argv, &o))
        return 2;
    struct meter *m = meter_new(&o);
    rd_kafka_t *rk = producer_new(&o);
    ask_metadata(rk, o.results);
    publish(rk, &o, m, NULL, 0); /* connections are there */
    while (meter_next_ns(m) != NEVER) {
        wait_until(meter_next_ns(m));
        size_t n = meter_take(m, &messages);
        if (n > 0)
            publish(rk, &o, m, messages, n);
    }
    bool all = meter_report(m);
    rd_kafka_destroy(rk);
    meter_free(m);
    return all ? 0 : 1;
}
