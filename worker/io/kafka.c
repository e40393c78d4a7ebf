/* kafka: see the header.
 *
 * A handle's configuration is our table of settings (by role), then the user's properties. What
 * the guarantees rest on (group, isolation, commits, transactions) is not the user's to set: such
 * properties are refused with the key that says it instead, or with the reason.
 *
 * librdkafka's log lines come from its own threads; common/log may be called from any. */
#include "worker/io/kafka.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/xalloc.h"

#define DESTROY_SECONDS 5
#define SAME_ERROR_NS (30 * NS_PER_S)

enum { C = 1u << KAFKA_CONSUMER, T = 1u << KAFKA_TRANSACTIONAL, I = 1u << KAFKA_IDEMPOTENT };
enum { P = 1u << KAFKA_PLAIN, PRODUCERS = T | I | P, ALL = C | PRODUCERS };

struct setting {
    const char *name, *value;
    unsigned roles;
    int since; /* librdkafka version; 0: any */
};

static const struct setting settings[] = {
    {"socket.keepalive.enable", "true", ALL, 0},
    {"socket.nagle.disable", "true", ALL, 0},
    {"topic.metadata.refresh.interval.ms", "10000", ALL, 0}, /* a topic made after our start */
    {"reconnect.backoff.ms", "50", ALL, 0},
    {"reconnect.backoff.max.ms", "1000", C | P, 0},
    {"reconnect.backoff.max.ms", "500", T | I, 0},

    {"enable.auto.commit", "false", C, 0},
    {"enable.auto.offset.store", "false", C, 0},
    {"enable.partition.eof", "false", C, 0},
    {"isolation.level", "read_committed", C, 0},
    {"auto.offset.reset", "earliest", C, 0},
    {"session.timeout.ms", "30000", C, 0},
    {"heartbeat.interval.ms", "1000", C, 0},
    {"fetch.wait.max.ms", "100", C, 0},
    {"fetch.max.bytes", "4194304", C, 0},
    {"fetch.message.max.bytes", "262144", C, 0},
    {"queued.min.messages", "2000", C, 0}, /* per partition: each has a queue of its own */
    {"queued.max.messages.kbytes", "1024", C, 0},
    {"fetch.queue.backoff.ms", "20", C, KAFKA_VERSION(2, 2, 0)},

    {"partitioner", "murmur2_random", PRODUCERS, 0}, /* where Java would put the key */
    {"message.max.bytes", "16777216", PRODUCERS, 0}, /* as received; the topic's limit decides */
    {"linger.ms", "0", PRODUCERS, 0},
    {"retry.backoff.ms", "20", T | I, 0},
    {"enable.idempotence", "true", I, 0},
    {"message.timeout.ms", "0", I, 0}, /* never: the offsets wait for the record */
    {"message.timeout.ms", "5000", P, 0},
    {"queue.buffering.max.messages", "1000", P, 0},
    {"acks", "1", P, 0},
};

/* Not the user's to set, and why. */
static const struct {
    const char *name, *why;
} refused[] = {
    {"bootstrap.servers", "set kafka.brokers"},
    {"metadata.broker.list", "set kafka.brokers"},
    {"group.id", "set kafka.group"},
    {"client.id", "set kafka.instance"},
    {"group.instance.id", "a worker that ends must leave the group"},
    {"group.protocol", "the worker speaks the classic protocol"},
    {"group.remote.assignor", "the worker speaks the classic protocol"},
    {"transactional.id", "set kafka.instance"},
    {"sasl.password", "set kafka.password_file"},
    {"enable.idempotence", "it follows from kafka.delivery"},
    {"enable.gapless.guarantee", "it follows from kafka.delivery"},
    {"acks", "a result counts only when all replicas have it"},
    {"request.required.acks", "a result counts only when all replicas have it"},
    {"message.timeout.ms", "it follows from kafka.delivery"},
    {"delivery.timeout.ms", "it follows from kafka.delivery"},
    {"enable.auto.commit", "an offset is committed with its result"},
    {"auto.commit.enable", "an offset is committed with its result"},
    {"enable.auto.offset.store", "an offset is committed with its result"},
    {"auto.offset.reset", "without a committed offset the topic is read from its beginning"},
    {"isolation.level", "only committed jobs are read"},
    {"enable.partition.eof", "the end of a partition is not a job"},
    {"message.max.bytes", "the results topic's max.message.bytes is the limit"},
    {"log.queue", "log lines go to the worker's log"},
    {"log.connection.close", "a connection that breaks in a transaction must be noticed"},
};

/* ---- configuration ---- */

static bool set(rd_kafka_conf_t *conf, const char *name, const char *value, char why[256])
{
    return rd_kafka_conf_set(conf, name, value, why, 256) == RD_KAFKA_CONF_OK;
}

static void set_ours(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256];
    if (!set(conf, name, value, why))
        log_error(NULL, "librdkafka refuses a setting", L_STR("name", name), L_STR("why", why));
}

/* "name=value" in two: name is the caller's to free, *value is inside text. */
static char *split(const char *text, const char **value)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return NULL;
    *value = equals + 1;
    return xmemdup0(text, (size_t)(equals - text));
}

static const char *why_refused(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        if (strcmp(refused[i].name, name) == 0)
            return refused[i].why;
    return NULL;
}

/* Applies one property; false with a sentence in why. */
static bool apply(rd_kafka_conf_t *conf, const char *property, struct buf *why)
{
    const char *value = NULL;
    CLEANUP(free_ptr) char *name = split(property, &value);
    char text[256];
    if (!name) {
        buf_addf(why, "\"%s\" is not name=value", property);
        return false;
    }
    if (why_refused(name)) {
        buf_addf(why, "%s cannot be set: %s", name, why_refused(name));
        return false;
    }
    if (!set(conf, name, value, text)) {
        buf_addf(why, "%s", text);
        return false;
    }
    return true;
}

static bool check_names(const struct config *cfg, struct buf *errors)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    bool fine = true;
    for (size_t i = 0; i < cfg->kafka.n_properties; i++) {
        struct buf why;
        buf_init(&why, 1024);
        if (!apply(conf, cfg->kafka.properties[i], &why)) {
            buf_addf(errors, "kafka.properties: %s\n", buf_text(&why));
            fine = false;
        }
        buf_done(&why);
    }
    rd_kafka_conf_destroy(conf);
    return fine;
}

static void apply_properties(rd_kafka_conf_t *conf, const struct config *cfg)
{
    struct buf why;
    buf_init(&why, 1024);
    for (size_t i = 0; i < cfg->kafka.n_properties; i++)
        if (!apply(conf, cfg->kafka.properties[i], &why))
            log_error(NULL, "a property is left out", L_STR("why", buf_text(&why)));
    buf_done(&why);
}

/* The last value the user gives a property; NULL: none. */
static const char *property(const struct config *cfg, const char *wanted)
{
    const char *found = NULL;
    for (size_t i = 0; i < cfg->kafka.n_properties; i++) {
        const char *value = NULL;
        CLEANUP(free_ptr) char *name = split(cfg->kafka.properties[i], &value);
        if (name && strcmp(name, wanted) == 0)
            found = value;
    }
    return found;
}

/* Cooperative only where librdkafka's is sound, and where offsets travel in transactions: a commit
 * of the consumer during a cooperative rebalance may lose the assignment (before 2.10.0). */
static const char *assignor(const struct config *cfg)
{
    bool sound = rd_kafka_version() >= KAFKA_VERSION(2, 6, 1);
    return sound && cfg->kafka.delivery == EXACTLY_ONCE ? "cooperative-sticky" : "range,roundrobin";
}

/* librdkafka wants socket.timeout.ms well below transaction.timeout.ms. */
static void set_transactional(rd_kafka_conf_t *conf, const struct config *cfg, const char *instance)
{
    char number[32];
    int64_t ms = KAFKA_TRANSACTION_MS;
    const char *given = property(cfg, "transaction.timeout.ms");
    CLEANUP(free_ptr) char *id = xasprintf("%s-%s", cfg->kafka.group, instance);
    if (given && !parse_i64(given, strlen(given), 1000, INT32_MAX, &ms))
        ms = KAFKA_TRANSACTION_MS; /* said by kafka_check */
    set_ours(conf, "transactional.id", id);
    snprintf(number, sizeof number, "%lld", (long long)ms);
    set_ours(conf, "transaction.timeout.ms", number);
    snprintf(number, sizeof number, "%lld", (long long)MIN(ms * 2 / 3, 10000));
    set_ours(conf, "socket.timeout.ms", number);
}

/* syslog's levels; what librdkafka calls an error is mostly a broker that is away for now. A user's
 * property goes to every handle, though it may suit one role only: no warning of that. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    const char *client = rk ? rd_kafka_name(rk) : NULL;
    if (strcmp(facility, "CONFWARN") == 0)
        level = 7;
    if (level <= 2)
        log_error(NULL, text, L_STR("kafka", facility), L_STR("client", client));
    else if (level <= 4)
        log_warn(NULL, text, L_STR("kafka", facility), L_STR("client", client));
    else if (level <= 6)
        log_info(NULL, text, L_STR("kafka", facility), L_STR("client", client));
    else
        log_debug(NULL, text, L_STR("kafka", facility), L_STR("client", client));
}

/* All but where the brokers are. */
static rd_kafka_conf_t *conf_of(const struct config *cfg, enum kafka_role role,
                                const char *instance)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set_ours(conf, "client.id", instance);
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        if ((settings[i].roles & (1u << role)) && rd_kafka_version() >= settings[i].since)
            set_ours(conf, settings[i].name, settings[i].value);
    if (role == KAFKA_CONSUMER) {
        set_ours(conf, "group.id", cfg->kafka.group);
        set_ours(conf, "partition.assignment.strategy", assignor(cfg));
    }
    if (role == KAFKA_TRANSACTIONAL)
        set_transactional(conf, cfg, instance);
    if (*cfg->kafka.password)
        set_ours(conf, "sasl.password", cfg->kafka.password);
    apply_properties(conf, cfg);
    return conf;
}

rd_kafka_conf_t *kafka_conf(const struct config *cfg, enum kafka_role role, const char *instance)
{
    rd_kafka_conf_t *conf = conf_of(cfg, role, instance);
    rd_kafka_conf_set_log_cb(conf, on_log);
    set_ours(conf, "bootstrap.servers", cfg->kafka.brokers);
    return conf;
}

static rd_kafka_type_t type_of(enum kafka_role role)
{
    return role == KAFKA_CONSUMER ? RD_KAFKA_CONSUMER : RD_KAFKA_PRODUCER;
}

rd_kafka_t *kafka_new(enum kafka_role role, rd_kafka_conf_t *conf)
{
    char why[512];
    rd_kafka_t *rk = rd_kafka_new(type_of(role), conf, why, sizeof why);
    if (rk)
        return rk;
    log_error(NULL, "librdkafka refuses its configuration", L_STR("why", why));
    rd_kafka_conf_destroy(conf);
    return NULL;
}

/* Some values are judged beside the others, and only when a handle is made. */
static bool check_role(const struct config *cfg, enum kafka_role role, struct buf *errors)
{
    char why[512];
    rd_kafka_conf_t *conf = conf_of(cfg, role, "check");
    rd_kafka_conf_set_log_cb(conf, NULL);
    rd_kafka_t *rk = rd_kafka_new(type_of(role), conf, why, sizeof why);
    kafka_destroy(rk);
    if (rk)
        return true;
    rd_kafka_conf_destroy(conf);
    if (!strstr(buf_text(errors), why)) /* another role's as well */
        buf_addf(errors, "kafka.properties: %s\n", why);
    return false;
}

/* Our own settings need no such check, and it takes a millisecond or two a handle. */
bool kafka_check(const struct config *cfg, struct buf *errors)
{
    const enum kafka_role roles[] = {
        KAFKA_CONSUMER,
        cfg->kafka.delivery == EXACTLY_ONCE ? KAFKA_TRANSACTIONAL : KAFKA_IDEMPOTENT, KAFKA_PLAIN};
    bool fine = check_names(cfg, errors);
    if (!fine || cfg->kafka.n_properties == 0)
        return fine;
    for (size_t i = 0; i < ARRAY_LEN(roles); i++)
        fine = check_role(cfg, roles[i], errors) && fine;
    return fine;
}

int64_t kafka_number(const rd_kafka_t *rk, const char *name, int64_t otherwise)
{
    char text[64];
    size_t size = sizeof text;
    int64_t n = otherwise;
    if (rd_kafka_conf_get(rd_kafka_conf((rd_kafka_t *)(uintptr_t)rk), name, text, &size) ==
            RD_KAFKA_CONF_OK &&
        !parse_i64(text, strlen(text), INT64_MIN, INT64_MAX, &n))
        n = otherwise;
    return n;
}

void kafka_log_version(const struct config *cfg)
{
    int v = rd_kafka_version();
    log_info(NULL, "Kafka client", L_STR("librdkafka", rd_kafka_version_str()));
    if (cfg->kafka.delivery == EXACTLY_ONCE && v >= KAFKA_VERSION(2, 10, 0) &&
        v < KAFKA_VERSION(2, 16, 0))
        log_warn(NULL, "this librdkafka may hang in a transaction when a broker leaves the cluster",
                 L_STR("librdkafka", rd_kafka_version_str()), L_STR("better", "2.8.0"));
}

/* ---- the end of a handle ---- */

struct ending { /* shared by two threads; the last one frees it */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    rd_kafka_t *rk;
    bool over, abandoned;
};

static void ending_free(struct ending *e)
{
    pthread_cond_destroy(&e->ended);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

static void *end_handle(void *arg)
{
    struct ending *e = arg;
    rd_kafka_destroy_flags(e->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    pthread_mutex_lock(&e->lock);
    e->over = true;
    bool alone = e->abandoned;
    pthread_cond_signal(&e->ended);
    pthread_mutex_unlock(&e->lock);
    if (alone)
        ending_free(e);
    return NULL;
}

static bool wait_for_end(struct ending *e)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += DESTROY_SECONDS;
    pthread_mutex_lock(&e->lock);
    int timed_out = 0;
    while (!e->over && !timed_out)
        timed_out = pthread_cond_clockwait(&e->ended, &e->lock, CLOCK_MONOTONIC, &until);
    e->abandoned = !e->over;
    bool over = e->over;
    pthread_mutex_unlock(&e->lock);
    return over;
}

static atomic_bool left_behind;

bool kafka_left_behind(void)
{
    return left_behind;
}

void kafka_destroy(rd_kafka_t *rk)
{
    pthread_t thread;
    if (!rk)
        return;
    struct ending *e = xcalloc(1, sizeof *e);
    e->rk = rk;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->ended, NULL);
    ASSERT(pthread_create(&thread, NULL, end_handle, e) == 0);
    if (wait_for_end(e)) {
        pthread_join(thread, NULL);
        ending_free(e);
        return;
    }
    log_warn(NULL, "a Kafka handle does not end and is left behind");
    left_behind = true;
    pthread_detach(thread);
}

/* ---- errors ---- */

static const struct {
    rd_kafka_resp_err_t err;
    const char *advice;
} advices[] = {
    {RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
     "create the topic (sessionctl check --live --create-topics) or correct topics.*"},
    {RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
     "create the topic (sessionctl check --live --create-topics) or correct topics.*"},
    {RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "allow this principal to use the topic"},
    {RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, "allow this principal to use the group"},
    {RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
     "allow this principal to write with transactional ids that begin with kafka.group"},
    {RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "allow this principal IdempotentWrite"},
    {RD_KAFKA_RESP_ERR__AUTHENTICATION, "check sasl.* in kafka.properties and the password"},
    {RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
     "check sasl.* in kafka.properties and the password"},
    {RD_KAFKA_RESP_ERR__SSL, "check ssl.* in kafka.properties"},
    {RD_KAFKA_RESP_ERR__RESOLVE, "check the host names in kafka.brokers"},
    {RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, "check kafka.brokers; the worker keeps trying"},
    {RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "raise max.message.bytes of the topic"},
    {RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT,
     "lower transaction.timeout.ms or raise transaction.max.timeout.ms of the brokers"},
};

static const char *advice(rd_kafka_resp_err_t err)
{
    for (size_t i = 0; i < ARRAY_LEN(advices); i++)
        if (advices[i].err == err)
            return advices[i].advice;
    return NULL;
}

/* May err be said now? It takes its old place, or that of the one that is longest silent. */
static bool may_say(struct kafka_said *said, rd_kafka_resp_err_t err, uint64_t now)
{
    size_t place = 0;
    for (size_t i = 0; i < ARRAY_LEN(said->last); i++) {
        if (said->last[i].until_ns && said->last[i].err == err) {
            place = i;
            break;
        }
        if (said->last[i].until_ns < said->last[place].until_ns)
            place = i;
    }
    bool same = said->last[place].until_ns && said->last[place].err == err;
    if (same && now < said->last[place].until_ns)
        return false;
    said->last[place].err = err;
    said->last[place].until_ns = now + SAME_ERROR_NS;
    return true;
}

void kafka_error(struct kafka_said *said, rd_kafka_resp_err_t err, const char *doing,
                 const char *detail)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    metric_add(M_KAFKA_ERRORS, 1);
    if (may_say(said, err, (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec))
        log_warn(NULL, "Kafka error", L_STR("doing", doing), L_STR("error", rd_kafka_err2name(err)),
                 L_STR("text", rd_kafka_err2str(err)), L_STR("detail", detail),
                 L_STR("advice", advice(err)));
}

bool kafka_generation_over(rd_kafka_resp_err_t err)
{
    return err == RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION ||
           err == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID ||
           err == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID;
}
