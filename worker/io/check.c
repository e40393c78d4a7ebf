/* check: see the header. The broker is asked for its metadata and the offsets of the group; the
 * provider gets the cheapest authorised request, through the same http module as in earnest. */
#include "worker/io/check.h"

#include <stdio.h>
#include <string.h>

#include "common/version.h"
#include "common/xalloc.h"
#include "worker/io/http.h"
#include "worker/io/kafka.h"

#define BROKER_MS 5000

static bool say(bool ok, const char *what, const char *detail)
{
    printf("%s: %s%s%s\n", what, ok ? "good" : "BAD", detail ? ": " : "", detail ? detail : "");
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
    char *what = xasprintf("topic %s", name);
    char *detail = t && t->partition_cnt
                       ? xasprintf("%d partitions", t->partition_cnt)
                       : xstrdup("not there; sessionctl check --create-topics makes it");
    bool ok = say(t && t->partition_cnt > 0, what, detail);
    free_ptr(&what);
    free_ptr(&detail);
    return ok;
}

static bool check_kafka(const struct config *cfg)
{
    rd_kafka_t *rk = kafka_new(KAFKA_PLAIN, kafka_conf(cfg, KAFKA_PLAIN, "check"));
    const struct rd_kafka_metadata *m = NULL;
    if (!rk)
        return say(false, "kafka", "librdkafka refuses the settings");
    rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 1, NULL, &m, BROKER_MS);
    char *why = xasprintf("%s: is one there, and is kafka.brokers right?", rd_kafka_err2str(err));
    bool ok = say(!err, cfg->kafka.brokers, err ? why : NULL);
    free_ptr(&why);
    if (!err) {
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
    char *why = xasprintf("%s%s", answer.rate.unauthorized ? "the API key is refused: " : "",
                          words           ? words
                          : r->fault_text ? r->fault_text
                                          : "no answer");
    say(a->ok, a->provider->cfg->api_url, a->ok ? NULL : why);
    free_ptr(&why);
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
