/* client: see the header.
 *
 * librdkafka reports what is wrong with a connection beside the call that suffers from it: the call
 * times out, and the reason ("Connection refused", "SASL authentication failed") comes through
 * error_cb. So the last such error is kept and becomes the sentence's middle. Settings and the
 * rules for kafka.properties are the worker's (worker/io/kafka.h). Topics are never made by asking
 * for them (allow.auto.create.topics): a mistyped name must not become a topic. */
#include "worker/ctl/client.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/io/kafka.h"

#define ASK_SLICE_MS 1000
#define REFUSED_MS 3000 /* a broker that is being restarted gets that long */
#define SETTLING_US 100000
#define SETTLING_MS 3000 /* a topic that was just made may not be known to every broker */
#define WHERE "is Kafka running there? -b or kafka.brokers says where"
#define MAKE "sessionctl check --create-topics makes it"
#define LEAVE "this user has no leave: an ACL is missing"

/* What to do about it. */
static const struct advice {
    rd_kafka_resp_err_t err;
    bool no_broker;
    const char *text;
} advices[] = {
    {RD_KAFKA_RESP_ERR__TRANSPORT, true, WHERE},
    {RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, true, WHERE},
    {RD_KAFKA_RESP_ERR__TIMED_OUT, true, WHERE},
    {RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, true, WHERE},
    {RD_KAFKA_RESP_ERR__RESOLVE, true, "check the host name in -b or kafka.brokers"},
    {RD_KAFKA_RESP_ERR__SSL, true, "check security.protocol and ssl.* in kafka.properties"},
    {RD_KAFKA_RESP_ERR__AUTHENTICATION, true,
     "check sasl.* in kafka.properties and kafka.password_file"},
    {RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, false, MAKE},
    {RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, false, MAKE},
    {RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, false, LEAVE},
    {RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, false, LEAVE},
    {RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, false, "the topic's max.message.bytes is less"},
    {RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR, false, "give a --replication that it can have"},
};

static const struct advice *find_advice(rd_kafka_resp_err_t err)
{
    for (size_t i = 0; i < ARRAY_LEN(advices); i++)
        if (advices[i].err == err)
            return &advices[i];
    return NULL;
}

enum ctl_exit client_explain(struct client *c, rd_kafka_resp_err_t err, const char *what,
                             char why[WHY_SIZE])
{
    rd_kafka_poll(c->rk, 0); /* what was reported meanwhile */
    const struct advice *a = find_advice(err), *deeper = c->error ? find_advice(c->error) : NULL;
    if (a && a->no_broker) {
        snprintf(why, WHY_SIZE, "no broker answers at %.100s: %.160s: %s", c->cfg->kafka.brokers,
                 c->error ? c->error_text : rd_kafka_err2str(err), (deeper ? deeper : a)->text);
        return CTL_NO_BROKER;
    }
    snprintf(why, WHY_SIZE, "%.320s: %.150s%s%s", what, rd_kafka_err2str(err), a ? ": " : "",
             a ? a->text : "");
    return CTL_FAILED;
}

/* ---- the handle ---- */

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    (void)rk;
    struct client *c = opaque;
    log_debug(NULL, "Kafka error", L_STR("reason", reason));
    if (err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN && c->error)
        return; /* says less than the one before */
    c->error = err;
    const char *statistics = strstr(reason, " (after "); /* "... 0ms in state CONNECT)" */
    snprintf(c->error_text, sizeof c->error_text, "%.*s",
             statistics ? (int)(statistics - reason) : (int)strlen(reason), reason);
}

static bool set_all(rd_kafka_conf_t *conf, const struct client_property *p, size_t n,
                    char why[WHY_SIZE])
{
    char reason[WHY_SIZE]; /* written to now and then when all is well, too */
    for (size_t i = 0; i < n; i++) {
        if (rd_kafka_conf_set(conf, p[i].name, p[i].value, reason, sizeof reason) ==
            RD_KAFKA_CONF_OK)
            continue;
        snprintf(why, WHY_SIZE, "%s", reason);
        return false;
    }
    return true;
}

const struct client_role client_role_admin = {.type = RD_KAFKA_PRODUCER};

enum ctl_exit client_open(struct client *c, const struct config *cfg,
                          const struct client_role *role, char why[WHY_SIZE])
{
    static const struct client_property client[] = {{"allow.auto.create.topics", "false"}};
    *c = (struct client){.cfg = cfg};
    rd_kafka_conf_t *conf = kafka_conf(cfg, KAFKA_PLAIN, "sessionctl");
    rd_kafka_conf_set_opaque(conf, c);
    rd_kafka_conf_set_error_cb(conf, on_error);
    if (role->deliver)
        rd_kafka_conf_set_dr_msg_cb(conf, role->deliver);
    if (set_all(conf, client, ARRAY_LEN(client), why) && set_all(conf, role->ours, role->n, why)) {
        c->rk = rd_kafka_new(role->type, conf, why, WHY_SIZE);
        if (c->rk)
            return CTL_OK; /* conf is the handle's now */
    }
    rd_kafka_conf_destroy(conf);
    return CTL_USAGE;
}

void client_close(struct client *c)
{
    kafka_destroy(c->rk);
    c->rk = NULL;
}

/* ---- what is there ---- */

/* Metadata of the topic (NULL: of the brokers alone). librdkafka waits for its whole time-out even
 * when every connection is refused: so it is asked in slices, and told off early. */
static rd_kafka_resp_err_t ask(struct client *c, rd_kafka_topic_t *topic,
                               const struct rd_kafka_metadata **md)
{
    uint64_t start = now_ms(), until = start + KAFKA_TIMEOUT_MS;
    rd_kafka_resp_err_t err;
    do {
        err = rd_kafka_metadata(c->rk, 0, topic, md, ASK_SLICE_MS);
        rd_kafka_poll(c->rk, 0);
        if (c->error && now_ms() > start + REFUSED_MS)
            break;
    } while ((err == RD_KAFKA_RESP_ERR__TRANSPORT || err == RD_KAFKA_RESP_ERR__TIMED_OUT) &&
             now_ms() < until);
    return err;
}

enum ctl_exit client_brokers(struct client *c, int *brokers, char why[WHY_SIZE])
{
    const struct rd_kafka_metadata *md;
    rd_kafka_resp_err_t err = ask(c, NULL, &md);
    if (err)
        return client_explain(c, err, "asking for the brokers", why);
    *brokers = md->broker_cnt;
    rd_kafka_metadata_destroy(md);
    return CTL_OK;
}

enum ctl_exit client_partitions(struct client *c, const char *topic, int *partitions,
                                char why[WHY_SIZE])
{
    const struct rd_kafka_metadata *md;
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(c->rk, topic, NULL);
    if (!rkt) {
        snprintf(why, WHY_SIZE, "topic %.100s: no name for a topic", topic);
        return CTL_USAGE;
    }
    rd_kafka_resp_err_t err = ask(c, rkt, &md);
    rd_kafka_topic_destroy(rkt);
    *partitions = 0;
    if (!err) {
        ASSERT(md->topic_cnt == 1);
        err = md->topics[0].err;
        *partitions = md->topics[0].partition_cnt;
        rd_kafka_metadata_destroy(md);
    }
    bool absent = err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    if (!err || absent || err == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE)
        return CTL_OK;
    char what[160];
    snprintf(what, sizeof what, "topic %.100s", topic);
    return client_explain(c, err, what, why);
}

enum ctl_exit client_topic(struct client *c, const char *topic, int *partitions, char why[WHY_SIZE])
{
    uint64_t until = now_ms() + SETTLING_MS;
    enum ctl_exit code = client_partitions(c, topic, partitions, why);
    while (!code && *partitions == 0 && now_ms() < until) {
        rd_kafka_poll(c->rk, 100);
        code = client_partitions(c, topic, partitions, why);
    }
    if (code || *partitions > 0)
        return code;
    snprintf(why, WHY_SIZE,
             "topic %.100s does not exist: sessionctl check --create-topics makes it", topic);
    return CTL_FAILED;
}

/* ---- where topics end ---- */

static rd_kafka_resp_err_t ask_ends(struct client *c, rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = RD_KAFKA_OFFSET_END; /* as a time: "the latest" */
    rd_kafka_resp_err_t err = rd_kafka_offsets_for_times(c->rk, list, KAFKA_TIMEOUT_MS);
    for (int i = 0; i < list->cnt && !err; i++)
        err = list->elems[i].err;
    return err;
}

/* True of a topic that was just made, and of one whose leaders are moving. */
static bool is_settling(rd_kafka_resp_err_t err)
{
    return err == RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION ||
           err == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE ||
           err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
           err == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION ||
           err == RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH ||
           err == RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE;
}

rd_kafka_resp_err_t client_ends(struct client *c, rd_kafka_topic_partition_list_t *list)
{
    uint64_t until = now_ms() + KAFKA_TIMEOUT_MS;
    rd_kafka_resp_err_t err = ask_ends(c, list);
    while (is_settling(err) && now_ms() < until) {
        usleep(SETTLING_US);
        err = ask_ends(c, list);
    }
    return err;
}

/* ---- making topics ---- */

static rd_kafka_resp_err_t creation_result(rd_kafka_event_t *ev, char why[WHY_SIZE])
{
    rd_kafka_resp_err_t err = rd_kafka_event_error(ev);
    const char *text = err ? rd_kafka_event_error_string(ev) : NULL;
    size_t n = 0;
    const rd_kafka_topic_result_t **results =
        err ? NULL
            : rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(ev), &n);
    if (n == 1) {
        err = rd_kafka_topic_result_error(results[0]);
        text = rd_kafka_topic_result_error_string(results[0]);
    }
    snprintf(why, WHY_SIZE, "%.200s", text ? text : "");
    return err;
}

static rd_kafka_resp_err_t create(struct client *c, rd_kafka_NewTopic_t *topic, char why[WHY_SIZE])
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(c->rk);
    rd_kafka_CreateTopics(c->rk, &topic, 1, NULL, queue);
    rd_kafka_event_t *ev = rd_kafka_queue_poll(queue, KAFKA_TIMEOUT_MS);
    rd_kafka_resp_err_t err = ev ? creation_result(ev, why) : RD_KAFKA_RESP_ERR__TIMED_OUT;
    if (ev)
        rd_kafka_event_destroy(ev);
    rd_kafka_queue_destroy(queue);
    return err;
}

enum ctl_exit client_create(struct client *c, const struct topic_plan *plan, char why[WHY_SIZE])
{
    char reason[200], said[WHY_SIZE] = "";
    rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(plan->name, plan->partitions,
                                                       plan->replication, reason, sizeof reason);
    if (!topic) {
        snprintf(why, WHY_SIZE, "topic %.100s: %s", plan->name, reason);
        return CTL_USAGE;
    }
    rd_kafka_resp_err_t err = create(c, topic, said);
    rd_kafka_NewTopic_destroy(topic);
    if (!err || err == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
        return CTL_OK;
    char what[WHY_SIZE];
    snprintf(what, sizeof what, "making topic %.100s (%.200s)", plan->name, said);
    return client_explain(c, err, what, why);
}
