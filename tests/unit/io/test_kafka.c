/* What of Kafka needs no broker: properties, settings by role, error lines, the instance's slot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/io/instance.h"
#include "worker/io/kafka.h"

static char empty[] = "";
static char brokers[] = "127.0.0.1:1";
static char group[] = "test-kafka-group";

static struct config config_with(char **properties, size_t n)
{
    struct config cfg = {0};
    cfg.kafka.brokers = brokers;
    cfg.kafka.group = group;
    cfg.kafka.instance = cfg.kafka.password = empty;
    cfg.kafka.properties = properties;
    cfg.kafka.n_properties = n;
    return cfg;
}

/* ---- kafka.properties ---- */

static void good_properties_pass(void **state)
{
    (void)state;
    char *properties[] = {
        (char[]){"security.protocol=SASL_SSL"}, (char[]){"sasl.mechanisms=SCRAM-SHA-256"},
        (char[]){"session.timeout.ms=6000"},    (char[]){"partition.assignment.strategy=range"},
        (char[]){"sasl.username=a=b"},
    };
    char password[] = "pass";
    struct config cfg = config_with(properties, ARRAY_LEN(properties));
    cfg.kafka.password = password;
    struct buf errors;
    buf_init(&errors, 10000);
    assert_true(kafka_check(&cfg, &errors));
    assert_string_equal(buf_text(&errors), "");
    buf_done(&errors);
}

static void each_mistake_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *property, *says;
    } cases[] = {
        {"enable.auto.commit=true", "enable.auto.commit cannot be set: an offset is committed with "
                                    "its result"},
        {"group.id=mine", "group.id cannot be set: set kafka.group"},
        {"transactional.id=mine", "transactional.id cannot be set: set kafka.instance"},
        {"isolation.level=read_uncommitted", "isolation.level cannot be set"},
        {"auto.offset.reset=latest", "auto.offset.reset cannot be set"},
        {"sasl.password=secret", "sasl.password cannot be set: set kafka.password_file"},
        {"acks=1", "acks cannot be set"},
        {"log.connection.close=false", "log.connection.close cannot be set"},
        {"message.max.bytes=1100", "message.max.bytes cannot be set: the results topic's"},
        {"bootstrap.servers=x", "bootstrap.servers cannot be set: set kafka.brokers"},
        {"no.such.property=1", "no.such.property"},
        {"session.timeout.ms=soon", "session.timeout.ms"},
        {"session.timeout.ms", "\"session.timeout.ms\" is not name=value"},
        {"=1", "\"=1\" is not name=value"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *property = strdup(cases[i].property);
        struct config cfg = config_with(&property, 1);
        struct buf errors;
        buf_init(&errors, 10000);
        assert_false(kafka_check(&cfg, &errors));
        assert_int_equal(strncmp(buf_text(&errors), "kafka.properties: ", 18), 0);
        assert_non_null(strstr(buf_text(&errors), cases[i].says));
        assert_null(strstr(buf_text(&errors), "secret"));
        buf_done(&errors);
        free(property);
    }
}

static void all_mistakes_are_named_at_once(void **state)
{
    (void)state;
    char *properties[] = {(char[]){"group.id=a"}, (char[]){"linger.ms=1"}, (char[]){"what=1"}};
    struct config cfg = config_with(properties, ARRAY_LEN(properties));
    struct buf errors;
    buf_init(&errors, 10000);
    assert_false(kafka_check(&cfg, &errors));
    assert_non_null(strstr(buf_text(&errors), "group.id"));
    assert_non_null(strstr(buf_text(&errors), "what"));
    assert_null(strstr(buf_text(&errors), "linger"));
    buf_done(&errors);
}

/* Each is fine alone. */
static void values_are_judged_beside_the_others(void **state)
{
    (void)state;
    static const struct {
        const char *property;
        enum delivery delivery;
        const char *says;
    } cases[] = {
        {"max.poll.interval.ms=10000", EXACTLY_ONCE,
         "kafka.properties: `max.poll.interval.ms`must be >= `session.timeout.ms`\n"},
        {"socket.timeout.ms=60000", EXACTLY_ONCE,
         "kafka.properties: `socket.timeout.ms` must be set <= `transaction.timeout.ms` + 100\n"},
        {"socket.timeout.ms=60000", AT_LEAST_ONCE, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *property = strdup(cases[i].property);
        struct config cfg = config_with(&property, 1);
        cfg.kafka.delivery = cases[i].delivery;
        struct buf errors;
        buf_init(&errors, 10000);
        assert_int_equal(kafka_check(&cfg, &errors), !*cases[i].says);
        assert_string_equal(buf_text(&errors), cases[i].says);
        buf_done(&errors);
        free(property);
    }
}

/* ---- settings ---- */

static void expect(rd_kafka_conf_t *conf, const char *name, const char *wanted)
{
    char value[256];
    size_t size = sizeof value;
    assert_int_equal(rd_kafka_conf_get(conf, name, value, &size), RD_KAFKA_CONF_OK);
    assert_string_equal(value, wanted);
}

static void the_consumer_never_commits_by_itself(void **state)
{
    (void)state;
    struct config cfg = config_with(NULL, 0);
    rd_kafka_conf_t *conf = kafka_conf(&cfg, KAFKA_CONSUMER, "host-0");
    bool sound = rd_kafka_version() >= KAFKA_VERSION(2, 6, 1);
    expect(conf, "enable.auto.commit", "false");
    expect(conf, "enable.auto.offset.store", "false");
    expect(conf, "isolation.level", "read_committed");
    expect(conf, "auto.offset.reset", "smallest");
    expect(conf, "group.id", "test-kafka-group");
    expect(conf, "client.id", "host-0");
    expect(conf, "partition.assignment.strategy",
           sound ? "cooperative-sticky" : "range,roundrobin");
    rd_kafka_conf_destroy(conf);

    cfg.kafka.delivery = AT_LEAST_ONCE;
    conf = kafka_conf(&cfg, KAFKA_CONSUMER, "host-0");
    expect(conf, "partition.assignment.strategy", "range,roundrobin");
    rd_kafka_conf_destroy(conf);
}

static void producers_by_role(void **state)
{
    (void)state;
    struct config cfg = config_with(NULL, 0);
    rd_kafka_conf_t *conf = kafka_conf(&cfg, KAFKA_TRANSACTIONAL, "host-0");
    expect(conf, "transactional.id", "test-kafka-group-host-0");
    expect(conf, "transaction.timeout.ms", "15000");
    expect(conf, "partitioner", "murmur2_random");
    rd_kafka_conf_destroy(conf);

    conf = kafka_conf(&cfg, KAFKA_IDEMPOTENT, "host-0");
    expect(conf, "enable.idempotence", "true");
    expect(conf, "message.timeout.ms", "0");
    rd_kafka_conf_destroy(conf);

    conf = kafka_conf(&cfg, KAFKA_PLAIN, "host-0");
    expect(conf, "enable.idempotence", "false");
    rd_kafka_conf_destroy(conf);
}

static void the_user_overrides(void **state)
{
    (void)state;
    char *properties[] = {(char[]){"transaction.timeout.ms=3000"}, (char[]){"linger.ms=7"},
                          (char[]){"partition.assignment.strategy=cooperative-sticky"},
                          (char[]){"group.id=never"}};
    struct config cfg = config_with(properties, ARRAY_LEN(properties));
    cfg.kafka.password = (char[]){"hidden"};
    rd_kafka_conf_t *conf = kafka_conf(&cfg, KAFKA_TRANSACTIONAL, "host-0");
    expect(conf, "transaction.timeout.ms", "3000");
    expect(conf, "socket.timeout.ms", "2000"); /* librdkafka wants it below */
    expect(conf, "linger.ms", "7");
    expect(conf, "sasl.password", "hidden");
    rd_kafka_t *rk = kafka_new(KAFKA_TRANSACTIONAL, conf);
    assert_non_null(rk);
    assert_int_equal(kafka_number(rk, "transaction.timeout.ms", 1), 3000);
    assert_int_equal(kafka_number(rk, "no.such.property", 5), 5);
    kafka_destroy(rk);

    conf = kafka_conf(&cfg, KAFKA_CONSUMER, "host-0");
    expect(conf, "partition.assignment.strategy", "cooperative-sticky");
    expect(conf, "group.id", "test-kafka-group");
    rd_kafka_conf_destroy(conf);
}

static void every_role_makes_a_handle(void **state)
{
    (void)state;
    struct config cfg = config_with(NULL, 0);
    for (enum kafka_role role = KAFKA_CONSUMER; role <= KAFKA_PLAIN; role++) {
        rd_kafka_t *rk = kafka_new(role, kafka_conf(&cfg, role, "host-0"));
        assert_non_null(rk);
        kafka_destroy(rk);
    }
    kafka_destroy(NULL);
}

/* ---- errors ---- */

struct lines {
    unsigned n;
    char last[512];
};

static void on_line(void *arg, const char *line, size_t len)
{
    struct lines *l = arg;
    if (!strstr(line, "Kafka error"))
        return;
    l->n++;
    snprintf(l->last, sizeof l->last, "%.*s", (int)len, line);
}

static void an_error_is_said_once_and_with_advice(void **state)
{
    (void)state;
    struct kafka_said said = {0};
    struct lines lines = {0};
    log_capture(on_line, &lines);
    for (int i = 0; i < 100; i++)
        kafka_error(&said, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "publishing to", "results");
    assert_int_equal(lines.n, 1);
    assert_non_null(strstr(lines.last, "create the topic"));
    assert_non_null(strstr(lines.last, "results"));
    kafka_error(&said, RD_KAFKA_RESP_ERR__AUTHENTICATION, "publishing", NULL);
    assert_int_equal(lines.n, 2);
    assert_non_null(strstr(lines.last, "password"));
    log_capture(NULL, NULL);
}

static void generation_errors(void **state)
{
    (void)state;
    assert_true(kafka_generation_over(RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION));
    assert_true(kafka_generation_over(RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID));
    assert_true(kafka_generation_over(RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID));
    assert_false(kafka_generation_over(RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS));
    assert_false(kafka_generation_over(RD_KAFKA_RESP_ERR_NO_ERROR));
}

/* ---- the instance ---- */

static void a_given_instance_is_taken_as_it_is(void **state)
{
    (void)state;
    struct instance i;
    struct config cfg = config_with(NULL, 0);
    cfg.kafka.instance = (char[]){"pod-7"};
    assert_int_equal(instance_take(&cfg, &i), 0);
    assert_string_equal(i.name, "pod-7");
    instance_done(&i);
    instance_done(&i);
}

static void workers_of_one_host_get_different_slots(void **state)
{
    (void)state;
    char host[256], wanted[300];
    struct instance a, b, other;
    struct config cfg = config_with(NULL, 0);
    assert_int_equal(gethostname(host, sizeof host), 0);
    assert_int_equal(instance_take(&cfg, &a), 0);
    assert_int_equal(instance_take(&cfg, &b), 0);
    snprintf(wanted, sizeof wanted, "%s-0", host);
    assert_string_equal(a.name, wanted);
    snprintf(wanted, sizeof wanted, "%s-1", host);
    assert_string_equal(b.name, wanted);
    cfg.kafka.group = (char[]){"another-group"};
    assert_int_equal(instance_take(&cfg, &other), 0);
    assert_string_equal(other.name, a.name);
    cfg.kafka.group = group;
    instance_done(&a); /* the first free one, also below a taken one */
    assert_int_equal(instance_take(&cfg, &a), 0);
    assert_int_not_equal(strcmp(a.name, b.name), 0);
    assert_string_equal(a.name, other.name);
    instance_done(&a);
    instance_done(&b);
    instance_done(&other);
}

static void a_slot_is_free_when_its_process_is_killed(void **state)
{
    (void)state;
    int ready[2];
    char c;
    struct instance i;
    struct config cfg = config_with(NULL, 0);
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (instance_take(&cfg, &i) == 0 && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(instance_take(&cfg, &i), 0);
    assert_string_equal(strrchr(i.name, '-'), "-1");
    instance_done(&i);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(instance_take(&cfg, &i), 0);
    assert_string_equal(strrchr(i.name, '-'), "-0");
    instance_done(&i);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_properties_pass),
        cmocka_unit_test(each_mistake_is_named),
        cmocka_unit_test(all_mistakes_are_named_at_once),
        cmocka_unit_test(values_are_judged_beside_the_others),
        cmocka_unit_test(the_consumer_never_commits_by_itself),
        cmocka_unit_test(producers_by_role),
        cmocka_unit_test(the_user_overrides),
        cmocka_unit_test(every_role_makes_a_handle),
        cmocka_unit_test(an_error_is_said_once_and_with_advice),
        cmocka_unit_test(generation_errors),
        cmocka_unit_test(a_given_instance_is_taken_as_it_is),
        cmocka_unit_test(workers_of_one_host_get_different_slots),
        cmocka_unit_test(a_slot_is_free_when_its_process_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
