/* pages: what the admin port shows of a core, as JSON that parses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/log.h"
#include "common/metrics.h"
#include "worker/io/pages.h"

#define NOW (10 * NS_PER_S)
#define WALL_MS UINT64_C(1700000000000)

static struct config config;
static struct provider *provider;
static struct core *core;
static struct outbox effects;
static cJSON *page;

static void silence(void *arg, const char *line, size_t len)
{
    (void)arg;
    (void)line;
    (void)len;
}

static int setup(void **state)
{
    (void)state;
    static const char *const sets[] = {"fleet=fl", "providers.daytona.creates_per_minute=100"};
    struct config_source source = {.sets = sets, .n_sets = ARRAY_LEN(sets), .client = true};
    struct buf errors;
    log_capture(silence, NULL);
    metrics_reset();
    buf_init(&errors, 10000);
    assert_true(config_load(&source, &config, &errors));
    buf_done(&errors);
    provider = provider_new(&config, 0);
    struct core_options o = {.config = &config, .providers = &provider, .seed = 1};
    core = core_new(&o);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cJSON_Delete(page);
    page = NULL;
    core_free(core);
    outbox_done(&effects);
    provider_free(provider);
    config_done(&config);
    log_capture(NULL, NULL);
    return 0;
}

static void step(uint64_t now_ns, struct input *in)
{
    in->wall_ms = WALL_MS;
    core_step(core, now_ns, in, &effects);
    outbox_clear(&effects);
}

static void assign(int32_t partition, int64_t offset)
{
    struct input in = {
        .kind = IN_ASSIGNED,
        .assigned = {
            .partition = partition, .partitions_total = 4, .offset = offset, .metadata = NULL}};
    step(NOW, &in);
}

static void take(int32_t partition, int64_t offset, const char *session)
{
    char value[300];
    snprintf(value, sizeof value,
             "{\"type\":\"start-session\",\"session_id\":\"%s\",\"tenant\":\"a\\\"b\"}", session);
    struct record r = {.topic = "session-jobs",
                       .partition = partition,
                       .offset = offset,
                       .timestamp_ms = WALL_MS,
                       .key = session,
                       .key_len = strlen(session),
                       .value = value,
                       .value_len = strlen(value)};
    struct refusal why = {0};
    unsigned unknown;
    struct input in = {.kind = IN_JOB, .job = {.record = &r, .refusal = &why}};
    in.job.job = job_parse(&r, &config, &why, &unknown);
    assert_non_null(in.job.job);
    step(NOW, &in);
}

/* The end of partition 1 is known, that of the others is not. */
static int64_t end_of(void *arg, int32_t partition)
{
    assert_ptr_equal(arg, &config);
    return partition == 1 ? 50 : -1;
}

static const cJSON *look(uint64_t now_ns)
{
    struct buf out;
    char why[JSON_ERROR_SIZE] = "";
    struct page_sources from = {core, &config, "w-1", end_of, &config};
    buf_init(&out, 100000);
    assert_int_equal(page_sessions(&from, now_ns, &out), 200);
    cJSON_Delete(page);
    page = json_parse(buf_text(&out), out.len, &json_limits_reply, why);
    if (!page)
        fail_msg("%s: %s", why, buf_text(&out));
    buf_done(&out);
    return page;
}

static const cJSON *item(const char *list, int i)
{
    const cJSON *found = cJSON_GetArrayItem(json_get(page, list), i);
    assert_non_null(found);
    return found;
}

static void an_idle_worker(void **state)
{
    (void)state;
    look(NOW);
    assert_string_equal(json_str(page, "instance", ""), "w-1");
    assert_string_equal(json_str(page, "fleet", ""), "fl");
    assert_string_equal(json_str(page, "jobs_topic", ""), "session-jobs");
    assert_int_equal(cJSON_GetArraySize(json_get(page, "sessions")), 0);
    assert_int_equal(cJSON_GetArraySize(json_get(page, "partitions")), 0);
    assert_int_equal(cJSON_GetArraySize(json_get(page, "budgets")), 1);
    assert_int_equal(json_int(json_get(page, "status"), "in_flight", -1), 0);
}

static void jobs_in_hand(void **state)
{
    (void)state;
    assign(1, 7);
    take(1, 7, "S1");
    take(1, 8, "S1");
    look(NOW + 1500 * NS_PER_MS);
    const cJSON *first = item("sessions", 0), *second = item("sessions", 1);
    assert_string_equal(json_str(first, "session_id", ""), "S1");
    assert_string_equal(json_str(first, "tenant", ""), "a\"b");
    assert_string_equal(json_str(first, "step", ""), "create");
    assert_int_equal(json_int(first, "offset", -1), 7);
    assert_int_equal(json_int(first, "age_ms", -1), 1500);
    assert_int_equal(json_int(first, "step_ms", -1), 1500);
    assert_int_equal(json_int(first, "requests", -1), 1);
    assert_string_equal(json_str(second, "step", ""), "queued");
    assert_int_equal(json_int(json_get(page, "status"), "in_flight", -1), 2);
}

static void partitions_and_their_lag(void **state)
{
    (void)state;
    assign(1, 7);
    assign(2, -1);
    take(1, 7, "S1");
    look(NOW);
    assert_int_equal(json_int(item("partitions", 0), "lag", -2), 43);
    assert_int_equal(json_int(item("partitions", 0), "taken", -2), 1);
    assert_true(cJSON_IsNull(json_get(item("partitions", 1), "lag")));
}

static double of_budget(const char *name)
{
    return json_get(item("budgets", 0), name)->valuedouble;
}

static void the_creation_budget(void **state)
{
    (void)state;
    assign(1, 7); /* one of four partitions: a quarter of 100 a minute, a tenth of that at once */
    look(NOW);
    assert_string_equal(json_str(item("budgets", 0), "provider", ""), "daytona");
    assert_float_equal(of_budget("creates_per_minute"), 100, 0.01);
    assert_float_equal(of_budget("share"), 25, 0.01);
    assert_float_equal(of_budget("tokens"), 2.5, 0.01);
    for (int64_t i = 0; i < 4; i++) {
        char session[] = "S0";
        session[1] = (char)('0' + i);
        take(1, 7 + i, session);
    }
    look(NOW);
    assert_float_equal(of_budget("tokens"), 0.5, 0.01);
    assert_float_equal(of_budget("parked"), 2, 0.01);
    assert_float_equal(of_budget("blocked_ms"), 0, 0.01);
    assert_false(json_bool(item("budgets", 0), "unauthorized", true));
}

static void totals_are_those_of_the_metrics(void **state)
{
    (void)state;
    metric_add1(M_JOBS_COMPLETED, MO_READY, 3);
    metric_add1(M_JOBS_COMPLETED, MO_REFUSED, 2);
    metric_add2(M_PROVIDER_REQUESTS, STEP_CREATE, MS_2XX, 5);
    metric_add2(M_PROVIDER_REQUESTS, STEP_PROBE, MS_5XX, 7);
    metric_add1(M_JOB_RETRIES, STEP_PROBE, 4);
    look(NOW);
    const cJSON *totals = json_get(page, "totals");
    assert_int_equal(json_int(totals, "ready", -1), 3);
    assert_int_equal(json_int(totals, "failed", -1), 0);
    assert_int_equal(json_int(totals, "refused", -1), 2);
    assert_int_equal(json_int(totals, "requests", -1), 12);
    assert_int_equal(json_int(totals, "retries", -1), 4);
}

static void what_is_missing_to_be_ready(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1000);
    assert_int_equal(page_readyz(&(struct readiness){true, true, true, true}, &out), 200);
    assert_string_equal(buf_text(&out), "ready\n");
    buf_clear(&out);
    assert_int_equal(page_readyz(&(struct readiness){true, false, true, false}, &out), 503);
    assert_string_equal(buf_text(&out), "not ready: the consumer has not joined its group\n"
                                        "not ready: draining\n");
    buf_done(&out);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_idle_worker),
        TEST(jobs_in_hand),
        TEST(partitions_and_their_lag),
        TEST(the_creation_budget),
        TEST(totals_are_those_of_the_metrics),
        TEST(what_is_missing_to_be_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
