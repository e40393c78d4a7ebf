/* check: see the header. The broker is asked for its metadata and the offsets of the group; the
 * provider gets the cheapest authorised request, through the same http module as in earnest. What
 * they answer is foreign text: every line passes make_harmless(). */
#include "worker/io/check.h"

#include <stdio.h>
#include <string.h>

#include "common/version.h"
#include "common/xalloc.h"
#include "worker/io/http.h"
#include "worker/io/kafka.h"

#define BROKER_MS 5000

bool check_line(bool ok, const char *what, const char *detail)
{
    CLEANUP(free_ptr) char *line = xasprintf("%-6s%-24s  %s", ok ? "ok" : "FAIL", what, detail);
    make_harmless(line, strlen(line));
    puts(line);
    return ok;
}

static const struct rd_kafka_metadata_topic *topic_of(const struct rd_kafka_metadata *m,
                                                      const char *name)
{
    for (int i = 0; i < m->topic_cnt; i++)
        if (strcmp(m->topics[i].topic, name) == 0)
            return &m->topics[i];
    return NULL;
}

static bool check_topic(const struct rd_kafka_metadata *m, const char *name)
{
    if (!name[0])
        return true;
    const struct rd_kafka_metadata_topic *t = topic_of(m, name);
    int n = t ? t->partition_cnt : 0;
    CLEANUP(free_ptr) char *what = xasprintf("topic %s", name);
    CLEANUP(free_ptr) char *partitions = xasprintf("%d partition%s", n, n == 1 ? "" : "s");
    return check_line(n > 0, what,
                      n > 0 ? partitions
                            : "does not exist: sessionctl check --create-topics makes it");
}

/* The reason, which comes beside the call that suffers from it: "…: Connection refused (after 0ms
 * in state CONNECT)". The last one is the nearest; that all are down says nothing more. */
static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    struct buf *why = opaque;
    (void)rk;
    if (err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN && why->len)
        return;
    const char *statistics = strstr(reason, " (after ");
    buf_clear(why);
    buf_add(why, reason, statistics ? (size_t)(statistics - reason) : strlen(reason));
}

static bool check_brokers(const struct config *cfg, rd_kafka_t *rk, struct buf *why,
                          const struct rd_kafka_metadata **m)
{
    rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 1, NULL, m, BROKER_MS);
    int n = err ? 0 : (*m)->broker_cnt;
    rd_kafka_poll(rk, 0); /* what was reported meanwhile */
    CLEANUP(free_ptr)
    char *detail =
        err ? xasprintf("no broker answers at %s: %s: is Kafka running there? "
                        "kafka.brokers says where",
                        cfg->kafka.brokers, why->len ? buf_text(why) : rd_kafka_err2str(err))
            : xasprintf("%s: %d broker%s", cfg->kafka.brokers, n, n == 1 ? "" : "s");
    return check_line(!err, "brokers", detail);
}

static bool check_kafka(const struct config *cfg)
{
    struct buf why CLEANUP(buf_done);
    const struct rd_kafka_metadata *m = NULL;
    rd_kafka_conf_t *conf = kafka_conf(cfg, KAFKA_PLAIN, "check");
    buf_init(&why, 1000);
    rd_kafka_conf_set_opaque(conf, &why);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_t *rk = kafka_new(KAFKA_PLAIN, conf);
    if (!rk)
        return check_line(false, "brokers", "librdkafka refuses the settings");
    bool ok = check_brokers(cfg, rk, &why, &m);
    if (ok) {
        const char *topics[] = {cfg->topics.jobs, cfg->topics.results, cfg->topics.dead_letters,
                                cfg->topics.progress};
        for (size_t i = 0; i < ARRAY_LEN(topics); i++)
            ok = check_topic(m, topics[i]) && ok;
        rd_kafka_metadata_destroy(m);
    }
    kafka_destroy(rk);
    return ok;
}

struct asking {
    struct loop *loop;
    const struct provider *provider;
    bool ok;
};

static void on_reply(void *arg, uint64_t id, const struct reply *r)
{
    struct asking *a = arg;
    struct answer answer = {0};
    (void)id;
    a->provider->ops->answer_key(a->provider, r, &answer);
    a->ok = answer.verdict == OK;
    const char *words = answer.provider_message ? answer.provider_message : answer.message;
    const struct provider_config *cfg = a->provider->cfg;
    CLEANUP(free_ptr) char *what = xasprintf("provider %s", cfg->name);
    CLEANUP(free_ptr)
    char *why =
        xasprintf("%s: %s%s", cfg->api_url, answer.rate.unauthorized ? "the key is refused: " : "",
                  words           ? words
                  : r->fault_text ? r->fault_text
                                  : "no answer");
    check_line(a->ok, what, a->ok ? "the key is accepted" : why);
    answer_done(&answer);
    loop_stop(a->loop);
}

static bool check_provider(const struct config *cfg, size_t i)
{
    struct asking a = {.loop = loop_new(), .provider = provider_new(cfg, i)};
    struct http_options o = {.allow_http = strncmp(cfg->providers[i].api_url, "http://", 7) == 0,
                             .user_agent = "session-worker/" VERSION,
                             .connect_to = cfg->http.connect_to,
                             .n_connect_to = cfg->http.n_connect_to,
                             .max_in_flight = 1,
                             .max_connects = 1};
    struct http *http = http_new(a.loop, &o, on_reply, &a);
    struct call call;
    a.provider->ops->ask_key(a.provider, &call);
    http_send(http, 1, &call);
    loop_run(a.loop);
    http_free(http);
    loop_free(a.loop);
    provider_free((struct provider *)a.provider);
    return a.ok;
}

bool check_live(const struct config *cfg)
{
    bool ok = check_kafka(cfg);
    for (size_t i = 0; i < cfg->n_providers; i++)
        ok = check_provider(cfg, i) && ok;
    return ok;
}
