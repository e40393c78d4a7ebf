/* meter: see the header.
 *
 * A result's value begins with the time when it was ready; the reader subtracts. Messages are as
 * large as a session-ready event and carry as many headers. */
#include "tests/bench/meter.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/xalloc.h"

#define VALUE_BYTES 1200
#define READ_LIMIT_NS (20 * NS_PER_S)

const char meter_metadata[] =
    "1QEBAAAAAAAAAAAAAAAAAAAAAAAAAAAAc2lnbmVkIG1ldGFkYXRhIG9mIHRoZSB1c3VhbCBzaXpl";

struct meter {
    struct meter_options o;
    uint64_t begun_ns, ended_ns;
    size_t taken, committed, batches;
    struct message messages[METER_BATCH_MAX];
    pthread_t reader;
    rd_kafka_t *rk;
    uint64_t *delays_ns; /* of what the reader has seen */
    volatile size_t seen;
    volatile bool stop;
};

uint64_t meter_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

bool meter_arguments(int argc, char **argv, struct meter_options *o)
{
    int64_t rate, total;
    if (argc != 6 || !parse_i64(argv[4], strlen(argv[4]), 0, 1000000, &rate) ||
        !parse_i64(argv[5], strlen(argv[5]), 1, 10000000, &total))
        return false;
    *o = (struct meter_options){argv[1], argv[2], argv[3], (unsigned)rate, (size_t)total};
    return true;
}

/* ---- the reader ---- */

static void see(struct meter *m, const rd_kafka_message_t *message)
{
    uint64_t ready = strtoull((const char *)message->payload, NULL, 10);
    if (m->seen < m->o.total)
        m->delays_ns[m->seen] = meter_now_ns() - ready;
    m->ended_ns = meter_now_ns();
    m->seen++;
}

static void *read_results(void *arg)
{
    struct meter *m = arg;
    while (!m->stop) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(m->rk, 50);
        if (message && !message->err)
            see(m, message);
        if (message)
            rd_kafka_message_destroy(message);
    }
    return NULL;
}

static void start_reader(struct meter *m)
{
    static const char *const settings[][2] = {{"group.id", "meter"},
                                              {"isolation.level", "read_committed"},
                                              {"enable.auto.commit", "false"},
                                              {"fetch.wait.max.ms", "20"}};
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    ASSERT(!rd_kafka_conf_set(conf, "bootstrap.servers", m->o.brokers, why, sizeof why));
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        ASSERT(!rd_kafka_conf_set(conf, settings[i][0], settings[i][1], why, sizeof why));
    m->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    ASSERT(m->rk);
    rd_kafka_poll_set_consumer(m->rk);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, m->o.results, 0)->offset = 0;
    ASSERT(!rd_kafka_assign(m->rk, list));
    rd_kafka_topic_partition_list_destroy(list);
    ASSERT(!pthread_create(&m->reader, NULL, read_results, m));
}

/* ---- life ---- */

static void message_init(struct message *m, size_t i)
{
    static const char *const names[] = {"ce_specversion", "ce_id",   "ce_source",   "ce_type",
                                        "ce_subject",     "ce_time", "content-type"};
    m->to = TO_RESULTS;
    m->key = xasprintf("session-%zu", i);
    m->key_len = strlen(m->key);
    m->value = xmalloc(VALUE_BYTES + 1);
    memset(m->value, 'x', VALUE_BYTES);
    m->value[VALUE_BYTES] = '\0';
    m->value_len = VALUE_BYTES;
    m->headers = xcalloc(ARRAY_LEN(names), sizeof *m->headers);
    for (; m->n_headers < ARRAY_LEN(names); m->n_headers++)
        m->headers[m->n_headers] =
            (struct header){xstrdup(names[m->n_headers]), xstrdup("session-jobs/3/1234567"), 22};
}

struct meter *meter_new(const struct meter_options *o)
{
    struct meter *m = xcalloc(1, sizeof *m);
    m->o = *o;
    m->delays_ns = xcalloc(o->total, sizeof *m->delays_ns);
    for (size_t i = 0; i < METER_BATCH_MAX; i++)
        message_init(&m->messages[i], i);
    start_reader(m);
    return m;
}

void meter_free(struct meter *m)
{
    m->stop = true;
    pthread_join(m->reader, NULL);
    rd_kafka_consumer_close(m->rk);
    rd_kafka_destroy(m->rk);
    for (size_t i = 0; i < METER_BATCH_MAX; i++)
        message_done(&m->messages[i]);
    free(m->delays_ns);
    free(m);
}

/* ---- results ---- */

/* The clock starts with the first question. */
static uint64_t ready_ns(const struct meter *m, size_t i)
{
    return m->begun_ns + (m->o.rate ? i * NS_PER_S / m->o.rate : 0);
}

uint64_t meter_next_ns(const struct meter *m)
{
    return m->taken < m->o.total ? ready_ns(m, m->taken) : NEVER;
}

size_t meter_take(struct meter *m, struct message **messages)
{
    size_t n = 0;
    uint64_t now = meter_now_ns();
    if (!m->begun_ns)
        m->begun_ns = now;
    for (; n < METER_BATCH_MAX && meter_next_ns(m) <= now; n++) {
        char text[24];
        snprintf(text, sizeof text, "%020llu ", (unsigned long long)meter_next_ns(m));
        memcpy(m->messages[n].value, text, 21);
        m->taken++;
    }
    *messages = m->messages;
    return n;
}

int64_t meter_offset(const struct meter *m)
{
    return (int64_t)m->taken;
}

void meter_committed(struct meter *m)
{
    m->committed = m->taken;
    m->batches++;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double delay_ms(const struct meter *m, unsigned percent)
{
    return (double)m->delays_ns[(m->o.total - 1) * percent / 100] / (double)NS_PER_MS;
}

bool meter_report(struct meter *m)
{
    uint64_t until = meter_now_ns() + READ_LIMIT_NS;
    while (m->seen < m->o.total && meter_now_ns() < until)
        nanosleep(&(struct timespec){.tv_nsec = 10 * (long)NS_PER_MS}, NULL);
    double seconds = (double)(m->ended_ns - m->begun_ns) / (double)NS_PER_S;
    qsort(m->delays_ns, m->o.total, sizeof *m->delays_ns, compare);
    printf("{\"results\":%zu,\"batches\":%zu,\"seconds\":%.3f,\"per_s\":%.1f,\"p50_ms\":%.2f,"
           "\"p99_ms\":%.2f}\n",
           m->seen, m->batches, seconds, (double)m->seen / seconds, delay_ms(m, 50),
           delay_ms(m, 99));
    return m->seen == m->o.total;
}
