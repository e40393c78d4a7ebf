/* publish: results through the worker's own publisher, paced as the core paces its batches.
 *
 *   publish exactly_once|at_least_once BROKERS RESULTS JOBS RATE TOTAL
 *
 * Prints one JSON object (meter.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/xalloc.h"
#include "tests/bench/meter.h"
#include "worker/core/internal.h"
#include "worker/io/kafka.h"
#include "worker/io/publisher.h"

struct bench {
    struct config config;
    struct meter *meter;
    struct loop *loop;
    struct timer *timer;
    struct publisher *publisher;
    rd_kafka_t *consumer; /* for at_least_once; no member of the group */
    struct batch batch;
    struct batch_offset offset;
    bool committing, warm;
    uint64_t begun_ns, ended_ns;
    int exit_code;
};

static void begin(struct bench *b, size_t n)
{
    bool exactly_once = b->config.kafka.delivery == EXACTLY_ONCE;
    b->offset = (struct batch_offset){.watermark = meter_offset(b->meter),
                                      .metadata = (char *)(uintptr_t)meter_metadata};
    b->batch.id++;
    b->batch.n_messages = n;
    b->batch.offsets = &b->offset;
    b->batch.n_offsets = 1;
    b->committing = true;
    b->begun_ns = meter_now_ns();
    publisher_commit(b->publisher, &b->batch,
                     exactly_once ? rd_kafka_consumer_group_metadata_new(b->config.kafka.group)
                                  : NULL);
}

static void go_on(void *arg)
{
    struct bench *b = arg;
    if (b->committing)
        return;
    uint64_t now = meter_now_ns();
    uint64_t at = MAX(b->begun_ns + BATCH_APART_NS, b->ended_ns + BATCH_REST_NS);
    if (b->warm)
        at = MAX(at, meter_next_ns(b->meter));
    size_t n = at <= now && b->warm ? meter_take(b->meter, &b->batch.messages) : 0;
    if (n > 0 || !b->warm)
        begin(b, n);
    else if (meter_next_ns(b->meter) == NEVER)
        loop_stop(b->loop);
    else
        timer_arm(b->timer, MAX(at, now + 1));
}

static void on_outcome(void *arg, uint64_t batch, bool committed)
{
    struct bench *b = arg;
    ASSERT(batch == b->batch.id && committed);
    b->committing = false;
    b->ended_ns = meter_now_ns();
    b->warm = true;
    meter_committed(b->meter);
    go_on(b);
}

static void on_fatal(void *arg, int exit_code, const char *why)
{
    struct bench *b = arg;
    fprintf(stderr, "publish: %s\n", why);
    b->exit_code = exit_code;
    loop_stop(b->loop);
}

static void configure(struct bench *b, const char *delivery, const struct meter_options *o)
{
    struct buf errors;
    char *sets[] = {xasprintf("kafka.brokers=%s", o->brokers),
                    xasprintf("kafka.group=%s", o->results),
                    xasprintf("topics.results=%s", o->results),
                    xasprintf("topics.jobs=%s", o->jobs),
                    xasprintf("kafka.delivery=%s", delivery),
                    xstrdup("topics.dead_letters="),
                    xstrdup("fleet=bench")};
    const struct config_source source = {
        .sets = (const char *const *)sets, .n_sets = ARRAY_LEN(sets), .client = true};
    buf_init(&errors, 10000);
    if (!config_load(&source, &b->config, &errors)) {
        fputs(buf_text(&errors), stderr);
        exit(2);
    }
    buf_done(&errors);
    for (size_t i = 0; i < ARRAY_LEN(sets); i++)
        free(sets[i]);
}

static void start(struct bench *b)
{
    b->loop = loop_new();
    b->timer = timer_new(b->loop, go_on, b);
    b->consumer = kafka_new(KAFKA_CONSUMER, kafka_conf(&b->config, KAFKA_CONSUMER, "bench"));
    const struct publisher_options options = {.config = &b->config,
                                              .instance = "bench",
                                              .consumer = b->consumer,
                                              .outcome = on_outcome,
                                              .fatal = on_fatal,
                                              .arg = b};
    b->publisher = publisher_new(b->loop, &options);
    timer_arm(b->timer, 0);
}

static void end(struct bench *b)
{
    publisher_free(b->publisher);
    kafka_destroy(b->consumer);
    timer_free(b->timer);
    loop_free(b->loop);
    meter_free(b->meter);
    config_done(&b->config);
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct meter_options o;
    if (argc < 2 || !meter_arguments(argc - 1, argv + 1, &o))
        return 2;
    log_setup(LOG_LEVEL_WARN, LOG_LOGFMT);
    configure(&b, argv[1], &o);
    b.meter = meter_new(&o);
    start(&b);
    loop_run(b.loop);
    bool all = b.exit_code == 0 && meter_report(b.meter);
    end(&b);
    return all ? b.exit_code : 1;
}
