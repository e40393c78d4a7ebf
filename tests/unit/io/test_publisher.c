/* The publisher against librdkafka's mock cluster: what the broker's errors make of a batch. (That
 * what is committed is there once needs a real broker: tests/integration/test_kafka_io.py.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/metrics.h"
#include "worker/io/kafka.h"
#include "worker/io/publisher.h"

enum {
    PRODUCE = 0,
    OFFSET_COMMIT = 8,
    INIT_PRODUCER = 22,
    ADD_PARTITIONS = 24,
    ADD_OFFSETS = 25,
    END_TXN = 26,
    TXN_OFFSET_COMMIT = 28
};

struct world {
    rd_kafka_t *mock_owner;
    rd_kafka_mock_cluster_t *mock;
    struct config config;
    char brokers[256];
    struct loop *loop;
    struct timer *limit;
    rd_kafka_t *consumer;
    struct publisher *publisher;
    struct message message;
    struct batch_offset offset;
    struct batch batch;
    unsigned patience_s;
    int outcome; /* -1: none yet */
    int exit_code;
    char why[256];
};

static char empty[] = "", group[] = "group", jobs[] = "jobs", results[] = "results";
static char dead[] = "dead", value[] = "value", metadata[] = "meta";
static char quick[] = "transaction.timeout.ms=3000";
static char *properties[] = {quick};

static void on_outcome(void *arg, uint64_t batch, bool committed)
{
    struct world *w = arg;
    assert_int_equal(batch, w->batch.id);
    w->outcome = committed;
    loop_stop(w->loop);
}

static void on_fatal(void *arg, int exit_code, const char *why)
{
    struct world *w = arg;
    w->exit_code = exit_code;
    strncpy(w->why, why, sizeof w->why - 1);
    loop_stop(w->loop);
}

static void on_limit(void *arg)
{
    struct world *w = arg;
    loop_stop(w->loop);
}

static void nothing(void *arg, const char *line, size_t len)
{
    (void)arg, (void)line, (void)len;
}

static void start_mock(struct world *w)
{
    char why[256];
    w->mock_owner = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), why, sizeof why);
    assert_non_null(w->mock_owner);
    w->mock = rd_kafka_mock_cluster_new(w->mock_owner, 1);
    assert_non_null(w->mock);
    rd_kafka_mock_topic_create(w->mock, "jobs", 2, 1);
    rd_kafka_mock_topic_create(w->mock, "results", 2, 1);
    rd_kafka_mock_topic_create(w->mock, "dead", 1, 1);
    strncpy(w->brokers, rd_kafka_mock_cluster_bootstraps(w->mock), sizeof w->brokers - 1);
}

static void configure(struct world *w, enum delivery delivery)
{
    struct config *c = &w->config;
    c->kafka.brokers = w->brokers;
    c->kafka.group = group;
    c->kafka.password = c->topics.progress = empty;
    c->kafka.properties = properties;
    c->kafka.n_properties = 1;
    c->kafka.delivery = delivery;
    c->topics.jobs = jobs;
    c->topics.results = results;
    c->topics.dead_letters = dead;
    w->message = (struct message){.to = TO_RESULTS, .value = value, .value_len = 5};
    w->offset = (struct batch_offset){.watermark = 7, .metadata = metadata};
    w->batch = (struct batch){
        .messages = &w->message, .n_messages = 1, .offsets = &w->offset, .n_offsets = 1};
}

static struct world *world_new(enum delivery delivery)
{
    struct world *w = calloc(1, sizeof *w);
    if (!getenv("SHOW_LOG"))
        log_capture(nothing, NULL);
    metrics_reset();
    w->patience_s = 20;
    start_mock(w);
    configure(w, delivery);
    w->loop = loop_new();
    w->limit = timer_new(w->loop, on_limit, w);
    w->consumer = kafka_new(KAFKA_CONSUMER, kafka_conf(&w->config, KAFKA_CONSUMER, "c"));
    w->publisher = publisher_new(w->loop, &(struct publisher_options){.config = &w->config,
                                                                      .instance = "i",
                                                                      .consumer = w->consumer,
                                                                      .outcome = on_outcome,
                                                                      .fatal = on_fatal,
                                                                      .arg = w,
                                                                      .watchdog_seconds = 3});
    return w;
}

static void world_free(struct world *w)
{
    publisher_free(w->publisher);
    kafka_destroy(w->consumer);
    timer_free(w->limit);
    loop_free(w->loop);
    rd_kafka_mock_cluster_destroy(w->mock);
    rd_kafka_destroy(w->mock_owner);
    log_capture(NULL, NULL);
    free(w);
}

/* The outcome of one more batch: 1 committed, 0 refused, -1 neither in time. */
static int commit(struct world *w)
{
    w->batch.id++;
    w->outcome = -1;
    rd_kafka_consumer_group_metadata_t *generation =
        w->config.kafka.delivery == EXACTLY_ONCE ? rd_kafka_consumer_group_metadata(w->consumer)
                                                 : NULL;
    publisher_commit(w->publisher, &w->batch, generation);
    timer_arm(w->limit, loop_now_ns() + w->patience_s * NS_PER_S);
    loop_run(w->loop);
    return w->outcome;
}

static void answer_with(struct world *w, int16_t request, unsigned times, rd_kafka_resp_err_t err)
{
    for (unsigned i = 0; i < times; i++)
        rd_kafka_mock_push_request_errors(w->mock, request, 1, err);
}

static void a_batch_is_committed(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    assert_int_equal(commit(w), 1);
    assert_true(publisher_ready(w->publisher));
    assert_int_equal(commit(w), 1);
    assert_int_equal(metric_value(M_PRODUCERS_MADE, 0), 1);
    world_free(w);
}

static void a_member_that_is_no_more_is_refused(void **state)
{
    (void)state;
    static const rd_kafka_resp_err_t errors[] = {RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
                                                 RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
                                                 RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID};
    struct world *w = world_new(EXACTLY_ONCE);
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        answer_with(w, TXN_OFFSET_COMMIT, 1, errors[i]);
        assert_int_equal(commit(w), 0);
        assert_int_equal(commit(w), 1);
    }
    world_free(w);
}

static void what_passes_is_waited_for(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    answer_with(w, TXN_OFFSET_COMMIT, 5, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS);
    answer_with(w, ADD_OFFSETS, 2, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS);
    answer_with(w, END_TXN, 3, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS);
    assert_int_equal(commit(w), 1);
    answer_with(w, ADD_PARTITIONS, 3, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS);
    answer_with(w, PRODUCE, 3, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    answer_with(w, PRODUCE, 2, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT);
    assert_int_equal(commit(w), 1);
    assert_int_equal(metric_value(M_BATCHES, MB_REFUSED), 0);
    world_free(w);
}

static void a_connection_that_breaks_costs_the_producer(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    assert_int_equal(commit(w), 1);
    assert_int_equal(metric_value(M_PRODUCERS_MADE, 0), 1);
    answer_with(w, END_TXN, 1, RD_KAFKA_RESP_ERR__TRANSPORT);
    assert_int_equal(commit(w), 1); /* librdkafka has sent it again, and says ok */
    assert_int_equal(commit(w), 1);
    assert_int_equal(metric_value(M_PRODUCERS_MADE, 0), 2);
    world_free(w);
}

/* One answer of the broker that ends a batch, for each call that can; the next batch goes through.
 */
static void what_does_not_pass_costs_the_batch(void **state)
{
    (void)state;
    static const struct {
        int16_t request;
        rd_kafka_resp_err_t err;
    } cases[] = {
        {ADD_PARTITIONS, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED},
        {ADD_PARTITIONS, RD_KAFKA_RESP_ERR_INVALID_TXN_STATE},
        {PRODUCE, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED},
        {ADD_OFFSETS, RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED},
        {ADD_OFFSETS, RD_KAFKA_RESP_ERR_INVALID_TXN_STATE},
        {TXN_OFFSET_COMMIT, RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED},
        {TXN_OFFSET_COMMIT, RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE},
        {END_TXN, RD_KAFKA_RESP_ERR_INVALID_TXN_STATE},
        {END_TXN, RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED},
    };
    struct world *w = world_new(EXACTLY_ONCE);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(commit(w), 1);
        answer_with(w, cases[i].request, 1, cases[i].err);
        assert_int_equal(commit(w), 0);
    }
    assert_int_equal(commit(w), 1);
    assert_int_equal(w->exit_code, 0);
    world_free(w);
}

static void a_name_that_may_not_write_waits_until_it_may(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    answer_with(w, INIT_PRODUCER, 2, RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    assert_int_equal(commit(w), 1);
    assert_int_equal(w->exit_code, 0);
    world_free(w);
}

static void a_transaction_longer_than_the_brokers_allow_ends_the_worker(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    answer_with(w, INIT_PRODUCER, 1, RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT);
    commit(w);
    assert_int_equal(w->exit_code, 2);
    world_free(w);
}

/* librdkafka tells the same error of a broker twice, then not for a while: the third might come in
 * a transaction. */
static void a_connection_that_breaks_between_batches_costs_it_too(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    assert_int_equal(commit(w), 1);
    rd_kafka_mock_broker_set_down(w->mock, 1);
    timer_arm(w->limit, loop_now_ns() + 2 * NS_PER_S); /* the idle thread serves its producer */
    loop_run(w->loop);
    rd_kafka_mock_broker_set_up(w->mock, 1);
    assert_int_equal(commit(w), 1);
    assert_int_equal(metric_value(M_PRODUCERS_MADE, 0), 2);
    world_free(w);
}

static void a_fatal_error_costs_the_producer_and_no_more(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    assert_int_equal(commit(w), 1);
    answer_with(w, TXN_OFFSET_COMMIT, 1, RD_KAFKA_RESP_ERR_INVALID_TXN_STATE);
    assert_int_equal(commit(w), 0);
    assert_int_equal(commit(w), 1);
    assert_int_equal(metric_value(M_PRODUCERS_MADE, 0), 2);
    assert_int_equal(w->exit_code, 0);
    world_free(w);
}

static void fenced_twice_in_a_row_ends_the_worker(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    answer_with(w, TXN_OFFSET_COMMIT, 1, RD_KAFKA_RESP_ERR_PRODUCER_FENCED);
    assert_int_equal(commit(w), 0);
    assert_int_equal(w->exit_code, 0);
    answer_with(w, TXN_OFFSET_COMMIT, 1, RD_KAFKA_RESP_ERR_PRODUCER_FENCED);
    commit(w);
    assert_int_equal(w->exit_code, 75);
    assert_non_null(strstr(w->why, "kafka.instance"));
    world_free(w);
}

static void a_call_that_hangs_ends_the_worker(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    assert_int_equal(commit(w), 1);
    for (int i = 0; i < 100; i++) /* each answer comes too late */
        rd_kafka_mock_broker_push_request_error_rtts(w->mock, 1, TXN_OFFSET_COMMIT, 1, 0, 60000);
    assert_int_equal(commit(w), -1);
    assert_int_equal(w->exit_code, 75);
    assert_non_null(strstr(w->why, "hung"));
    world_free(w);
}

static void a_broker_that_is_away_does_not(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    assert_int_equal(commit(w), 1);
    rd_kafka_mock_broker_set_down(w->mock, 1);
    w->batch.id++;
    w->outcome = -1;
    publisher_commit(w->publisher, &w->batch, rd_kafka_consumer_group_metadata(w->consumer));
    timer_arm(w->limit, loop_now_ns() + 8 * NS_PER_S);
    loop_run(w->loop);
    assert_int_equal(w->exit_code, 0);
    rd_kafka_mock_broker_set_up(w->mock, 1);
    timer_arm(w->limit, loop_now_ns() + 20 * NS_PER_S);
    if (w->outcome < 0)
        loop_run(w->loop);
    assert_int_not_equal(w->outcome, -1);
    assert_int_equal(commit(w), 1);
    assert_int_equal(w->exit_code, 0);
    world_free(w);
}

static void set_leader(struct world *w, int32_t broker)
{
    for (int partition = 0; partition < 2; partition++)
        assert_int_equal(rd_kafka_mock_partition_set_leader(w->mock, "results", partition, broker),
                         0);
}

/* The same batch again and again, as the core does, for so long or until it is committed. */
static int commit_for(struct world *w, uint64_t ns)
{
    uint64_t until = loop_now_ns() + ns;
    int outcome = 0;
    while (outcome == 0 && loop_now_ns() < until && w->exit_code == 0)
        outcome = commit(w);
    return outcome;
}

/* Nothing hangs: what cannot be written waits until somebody leads its partition again. */
static void a_partition_without_a_leader_does_not(void **state)
{
    (void)state;
    for (enum delivery d = EXACTLY_ONCE; d <= AT_LEAST_ONCE; d++) {
        struct world *w = world_new(d);
        assert_int_equal(commit(w), 1);
        set_leader(w, -1);
        w->patience_s = 8;
        assert_int_not_equal(commit_for(w, 8 * NS_PER_S), 1);
        assert_int_equal(w->exit_code, 0);
        set_leader(w, 1);
        w->patience_s = 20;
        if (w->outcome < 0) { /* it still has that batch */
            timer_arm(w->limit, loop_now_ns() + 20 * NS_PER_S);
            loop_run(w->loop);
        }
        assert_int_not_equal(w->outcome, -1);
        assert_int_equal(commit_for(w, 20 * NS_PER_S), 1);
        assert_int_equal(w->exit_code, 0);
        world_free(w);
    }
}

/* So it is answered while a partition without a leader keeps the last transaction from ending. */
static void a_transaction_that_does_not_end_does_not(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    answer_with(w, INIT_PRODUCER, 5000, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS);
    w->patience_s = 8;
    assert_int_not_equal(commit_for(w, 8 * NS_PER_S), 1);
    assert_int_equal(w->exit_code, 0);
    world_free(w);
}

static void at_least_once_commits_after_the_reports(void **state)
{
    (void)state;
    struct world *w = world_new(AT_LEAST_ONCE);
    answer_with(w, PRODUCE, 2, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    answer_with(w, OFFSET_COMMIT, 1, RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS);
    assert_int_equal(commit(w), 1);
    answer_with(w, OFFSET_COMMIT, 1, RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION);
    assert_int_equal(commit(w), 0);
    assert_int_equal(commit(w), 1);
    world_free(w);
}

static void a_publisher_that_is_not_ready_can_be_freed(void **state)
{
    (void)state;
    struct world *w = world_new(EXACTLY_ONCE);
    rd_kafka_mock_broker_set_down(w->mock, 1);
    w->batch.id++;
    publisher_commit(w->publisher, &w->batch, rd_kafka_consumer_group_metadata(w->consumer));
    timer_arm(w->limit, loop_now_ns() + NS_PER_S / 2);
    loop_run(w->loop);
    uint64_t began = loop_now_ns();
    publisher_free(w->publisher);
    assert_true(loop_now_ns() - began < 7 * NS_PER_S);
    w->publisher = NULL;
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_is_committed),
        cmocka_unit_test(a_member_that_is_no_more_is_refused),
        cmocka_unit_test(what_passes_is_waited_for),
        cmocka_unit_test(a_connection_that_breaks_costs_the_producer),
        cmocka_unit_test(what_does_not_pass_costs_the_batch),
        cmocka_unit_test(a_name_that_may_not_write_waits_until_it_may),
        cmocka_unit_test(a_transaction_longer_than_the_brokers_allow_ends_the_worker),
        cmocka_unit_test(a_connection_that_breaks_between_batches_costs_it_too),
        cmocka_unit_test(a_fatal_error_costs_the_producer_and_no_more),
        cmocka_unit_test(fenced_twice_in_a_row_ends_the_worker),
        cmocka_unit_test(a_call_that_hangs_ends_the_worker),
        cmocka_unit_test(a_broker_that_is_away_does_not),
        cmocka_unit_test(a_partition_without_a_leader_does_not),
        cmocka_unit_test(a_transaction_that_does_not_end_does_not),
        cmocka_unit_test(at_least_once_commits_after_the_reports),
        cmocka_unit_test(a_publisher_that_is_not_ready_can_be_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
