/* sender: see the header.
 *
 * What was accepted by sender_send is reported within SEND_TIMEOUT_MS (message.timeout.ms): as
 * delivered with its coordinates, or as not. Invariant: undelivered counts the difference. */
#include "worker/ctl/sender.h"

#include <stdio.h>
#include <string.h>

#include "common/secret.h"

#define SEND_TIMEOUT_MS 30000
#define SEND_TIMEOUT_TEXT "30000"
#define SOURCE "/sessionctl"

static void on_delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk;
    struct sender *s = CONTAINER_OF(opaque, struct sender, client);
    char why[WHY_SIZE] = "";
    struct send_report d = {
        .tag = m->_private, .partition = m->partition, .offset = m->offset, .why = why};
    if (m->err)
        d.code = client_explain(&s->client, m->err, "sending", why);
    s->undelivered--;
    s->delivered(s->arg, &d);
}

enum ctl_exit sender_open(struct sender *s, const struct config *cfg, char why[WHY_SIZE])
{
    static const struct client_property ours[] = {
        {"enable.idempotence", "true"},
        {"partitioner", "murmur2_random"},
        {"acks", "all"},
        {"queue.buffering.max.messages", "100000"},
        {"message.timeout.ms", SEND_TIMEOUT_TEXT},
    };
    static const struct client_role role = {RD_KAFKA_PRODUCER, ours, ARRAY_LEN(ours), on_delivered};
    enum ctl_exit code = client_open(&s->client, cfg, &role, why);
    if (!code)
        code = client_topic(&s->client, cfg->topics.jobs, &s->partitions, why);
    if (!code)
        s->topic = rd_kafka_topic_new(s->client.rk, cfg->topics.jobs, NULL);
    return code;
}

static void add_header(rd_kafka_headers_t *headers, const char *name, const char *value)
{
    ASSERT(rd_kafka_header_add(headers, name, -1, value, -1) == RD_KAFKA_RESP_ERR_NO_ERROR);
}

static rd_kafka_headers_t *given_headers(const struct parcel *p)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(p->n_headers);
    for (size_t i = 0; i < p->n_headers; i++)
        ASSERT(!rd_kafka_header_add(headers, p->headers[i].name, -1, p->headers[i].value,
                                    (ssize_t)p->headers[i].len));
    return headers;
}

static rd_kafka_headers_t *headers_of(const struct parcel *p)
{
    if (p->headers)
        return given_headers(p);
    rd_kafka_headers_t *headers = rd_kafka_headers_new(5);
    add_header(headers, "content-type", "application/json");
    if (!p->ce_type)
        return headers;
    unsigned char random[16];
    char id[33];
    random_bytes(random, sizeof random);
    sha256_hex(random, sizeof random, id, sizeof id - 1);
    add_header(headers, "ce_specversion", "1.0");
    add_header(headers, "ce_id", id);
    add_header(headers, "ce_source", SOURCE);
    add_header(headers, "ce_type", p->ce_type);
    return headers;
}

static rd_kafka_resp_err_t produce(struct sender *s, const struct parcel *p,
                                   rd_kafka_headers_t *headers)
{
    return rd_kafka_producev(
        s->client.rk, RD_KAFKA_V_RKT(s->topic), RD_KAFKA_V_PARTITION(p->partition),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(p->key, p->key_len),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)p->value, p->value_len), RD_KAFKA_V_HEADERS(headers),
        RD_KAFKA_V_OPAQUE(p->tag), RD_KAFKA_V_END);
}

enum ctl_exit sender_send(struct sender *s, const struct parcel *p, char why[WHY_SIZE])
{
    rd_kafka_headers_t *headers = headers_of(p);
    rd_kafka_resp_err_t err = produce(s, p, headers);
    uint64_t until = now_ms() + 2 * SEND_TIMEOUT_MS;
    while (err == RD_KAFKA_RESP_ERR__QUEUE_FULL && now_ms() < until) {
        sender_poll(s, 100);
        err = produce(s, p, headers);
    }
    if (!err) {
        s->undelivered++;
        return CTL_OK;
    }
    rd_kafka_headers_destroy(headers);
    return client_explain(&s->client, err, "sending", why);
}

void sender_poll(struct sender *s, int timeout_ms)
{
    rd_kafka_poll(s->client.rk, timeout_ms);
}

void sender_close(struct sender *s)
{
    if (s->topic)
        rd_kafka_topic_destroy(s->topic);
    s->topic = NULL;
    client_close(&s->client);
}
