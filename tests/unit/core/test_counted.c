/* What is counted and timed: an operator's alerts and dashboards rest on it. */
#include "tests/unit/core/fixture.h"

#include <stdio.h>

#include "common/xalloc.h"

static double before[N_METRICS][64];

/* The sum of a histogram's series, as the page says it. */
static double sum_of(const char *name, const char *label)
{
    struct buf out;
    char *series = xasprintf("\nsession_worker_%s_sum%s ", name, label);
    buf_init(&out, 1 << 20);
    metrics_print(&out);
    const char *at = strstr(buf_text(&out), series);
    if (!at)
        fail_msg("there is no%s", series);
    double sum = strtod(at + strlen(series), NULL);
    free(series);
    buf_done(&out);
    return sum;
}

static void assert_about(double is, double wanted)
{
    if (is < wanted - 0.0005 || is > wanted + 0.0005)
        fail_msg("%f and not %f", is, wanted);
}

static void note(enum metric m, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        before[m][i] = metric_value(m, i);
}

static void expect_more(enum metric m, unsigned label, double by)
{
    assert_about(metric_value(m, label) - before[m][label], by);
    before[m][label] = metric_value(m, label);
}

/* ---- requests ---- */

static void test_requests_by_what_came_back(void **state)
{
    static const struct {
        int status;
        enum fault fault;
        enum metric_status counted;
    } rows[] = {
        {200, FAULT_NONE, MS_2XX},      {299, FAULT_NONE, MS_2XX},
        {302, FAULT_NONE, MS_3XX},      {400, FAULT_NONE, MS_4XX},
        {428, FAULT_NONE, MS_4XX},      {429, FAULT_NONE, MS_429},
        {430, FAULT_NONE, MS_4XX},      {500, FAULT_NONE, MS_5XX},
        {599, FAULT_NONE, MS_5XX},      {600, FAULT_NONE, MS_OTHER},
        {199, FAULT_NONE, MS_OTHER},    {0, FAULT_CONNECT, MS_CONNECT},
        {0, FAULT_LOST, MS_OTHER},      {0, FAULT_TIMEOUT, MS_TIMEOUT},
        {0, FAULT_TOO_LARGE, MS_OTHER}, {0, FAULT_REFUSED, MS_OTHER},
    };
    struct world *w = *state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        double was = metric_value2(M_PROVIDER_REQUESTS, STEP_CREATE, rows[i].counted);
        char *session = xasprintf("S%zu", i), *call = xasprintf("create fleet.S%zu", i);
        advance(w, 2000); /* there is a token */
        start(w, session, "");
        expect_call(w, call);
        ANSWER(w, .verdict = REFUSE, .code = ERR_FORBIDDEN, .status = rows[i].status,
               .fault = rows[i].fault);
        assert_about(metric_value2(M_PROVIDER_REQUESTS, STEP_CREATE, rows[i].counted), was + 1);
        free(session);
        free(call);
    }
    assert_about(metric_value(M_PROVIDER_SECONDS, STEP_CREATE), (double)ARRAY_LEN(rows));
}

static void test_a_part_of_a_stream_is_no_request(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .more = true);
    assert_about(metric_value2(M_PROVIDER_REQUESTS, STEP_CREATE, MS_2XX), 0);
    made(w, "b1");
    assert_about(metric_value2(M_PROVIDER_REQUESTS, STEP_CREATE, MS_2XX), 1);
}

static void test_what_the_provider_still_allows(void **state)
{
    const struct rate seven = {.limit = 100, .remaining = 7, .reset_s = 50};
    const struct rate none = {.limit = 100, .remaining = 0, .reset_s = 50};
    const struct {
        const struct rate *rate;
        double allowed;
    } told[] = {{&seven, 7}, {&none, 0}, {&seven, 7}};
    const struct rate nine = {.limit = 100, .remaining = 9, .reset_s = 50};
    struct world *w = *state;
    metric_set1(M_PROVIDER_REMAINING, SCOPE_GENERAL, 50);
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    for (size_t i = 0; i < ARRAY_LEN(told); i++) {
        ANSWER(w, .verdict = AGAIN, .after_ms = 100, .rate = told[i].rate);
        assert_about(metric_value(M_PROVIDER_REMAINING, SCOPE_GENERAL), told[i].allowed);
        advance(w, 200);
        expect_call(w, "start b1");
    }
    done(w, RUNS); /* says nothing of it */
    assert_about(metric_value(M_PROVIDER_REMAINING, SCOPE_GENERAL), 7);
    expect_call(w, "launch b1");
    done(w, SERVER);
    expect_call(w, "probe b1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 100, .rate = &nine); /* of no scope of the provider's */
    assert_about(metric_value(M_PROVIDER_REMAINING, SCOPE_GENERAL), 7);
}

/* ---- how long ---- */

static void test_requests_are_timed(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    advance(w, 1500);
    made(w, "b1");
    assert_about(sum_of("provider_request_duration_seconds", "{step=\"create\"}"), 1.5);
}

static void test_steps_and_jobs_are_timed(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    advance(w, 3000);
    made(w, "b1");
    expect_call(w, "start b1"); /* counts as being created, until it has run once */
    advance(w, 1000);
    done(w, RUNS);
    expect_call(w, "launch b1");
    advance(w, 2000);
    done(w, SERVER);
    probe_to_ready(w, "S1", "b1");
    assert_about(sum_of("step_duration_seconds", "{step=\"launch\"}"), 2);
    assert_about(metric_value(M_STEP_SECONDS, STEP_LAUNCH), 1);
    assert_about(sum_of("job_duration_seconds", "{outcome=\"ready\"}"), 6);
    committed(w);
}

static void test_a_step_is_timed_from_its_last_phase(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    advance(w, 3000);
    to_start(w, "S1", "b1");
    advance(w, 1000);
    done(w, RUNS);
    assert_about(sum_of("step_duration_seconds", "{step=\"create\"}"), 1);
}

static void test_batches_are_timed_and_counted(void **state)
{
    struct world *w = *state;
    note(M_BATCHES, N_MB);
    double was = sum_of("kafka_batch_duration_seconds", "");
    start(w, "S1", "");
    fail_now(w, "S1");
    expect_batch(w, 1);
    assert_true(status_of(w).committing);
    advance(w, 400);
    refused(w);
    assert_false(status_of(w).committing);
    expect_more(M_BATCHES, MB_REFUSED, 1);
    assert_about(sum_of("kafka_batch_duration_seconds", "") - was, 0.4);
    expect_batch(w, 1);
    committed(w);
    expect_more(M_BATCHES, MB_COMMITTED, 1);
    expect_more(M_BATCHES, MB_REFUSED, 0);
}

/* ---- jobs ---- */

static void test_jobs_by_outcome(void **state)
{
    struct world *w = *state;
    note(M_JOBS_COMPLETED, N_MO);
    start(w, "S1", "");
    to_ready(w, "S1", "b1");
    expect_more(M_JOBS_COMPLETED, MO_READY, 1);
    committed(w);
    stop(w, "S1", "");
    expect_call(w, "find b1");
    found(w, "b1 ours kept rests");
    expect_event(w, "S1", "session-stopped");
    expect_more(M_JOBS_COMPLETED, MO_STOPPED, 1);
    committed(w);
    delete (w, "S1", "");
    expect_call(w, "find b1");
    missing(w);
    expect_event(w, "S1", "session-deleted");
    expect_more(M_JOBS_COMPLETED, MO_DELETED, 1);
    committed(w);
    start(w, "S2", "");
    fail_now(w, "S2");
    expect_more(M_JOBS_COMPLETED, MO_FAILED, 1);
    assert_about(metric_value2(M_JOB_FAILURES, STEP_CREATE, ERR_SESSION_EXISTS), 1);
    record_at(w, 0, w->next_offset[0], "S3", "{");
    expect_more(M_JOBS_COMPLETED, MO_REFUSED, 1);
    assert_about(metric_value2(M_JOB_FAILURES, STEP_QUEUE, ERR_INVALID_JOB), 1);
    expect_more(M_JOBS_COMPLETED, MO_READY, 0);
    assert_about(metric_value(M_JOBS_RECEIVED, 0), 5);
}

static void test_retries_by_step(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    assert_about(metric_value(M_JOB_RETRIES, STEP_CREATE), 1);
    advance(w, 20000);
    to_launch(w, "S1", "b1");
    lost(w, "gone");
    assert_about(metric_value(M_JOB_RETRIES, STEP_LAUNCH), 1);
    assert_about(metric_value(M_JOB_RETRIES, STEP_CREATE), 1);
}

static void test_gauges_follow(void **state)
{
    struct world *w = *state;
    assign(w, 1, 0, NULL);
    assert_about(metric_value(M_PARTITIONS, 0), 2);
    start(w, "S1", "");
    start(w, "S2", "");
    assert_about(metric_value(M_JOBS_IN_FLIGHT, 0), 2);
    fail_now(w, "S1");
    assert_about(metric_value(M_JOBS_IN_FLIGHT, 0), 1);
    expect_batch(w, 1);
    fail_now(w, "S2");
    assert_about(metric_value(M_RESULTS_UNPUBLISHED, 0), 1);
    lose(w, 1);
    assert_about(metric_value(M_PARTITIONS, 0), 1);
    assert_about(metric_value(M_DRAINING, 0), 0);
    drain(w);
    assert_about(metric_value(M_DRAINING, 0), 1);
}

/* ---- sandboxes ---- */

static void test_made_and_adopted(void **state)
{
    struct world *w = *state;
    note(M_SANDBOXES_CREATED, 1);
    note(M_SANDBOXES_ADOPTED, 1);
    start(w, "S1", "");
    to_ready(w, "S1", "b1");
    committed(w);
    expect_more(M_SANDBOXES_CREATED, 0, 1);
    start(w, "S1", "");
    expect_call(w, "find b1");
    found(w, "b1 ours kept runs");
    expect_call(w, "launch b1");
    expect_more(M_SANDBOXES_ADOPTED, 0, 1);
    expect_more(M_SANDBOXES_CREATED, 0, 0);
}

static void test_refused_is_not_adopted(void **state)
{
    static const char *const members[] = {"'mode':'create'", "'sandbox':{'on_drift':'fail'}"};
    struct world *w = *state;
    lose(w, 0);
    assign_started(w, 0, 0, 9);
    note(M_SANDBOXES_ADOPTED, 1);
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        start(w, "S1", members[i]);
        expect_call(w, i ? "find b1" : "find fleet.S1");
        found(w, "b1 ours kept runs spec=other");
        expect_failed(w, "S1", "session_exists", "find", "kept");
        committed(w);
        expect_more(M_SANDBOXES_ADOPTED, 0, 0);
    }
}

/* The job's own, found by a later delivery of it, is neither made now nor somebody else's. */
static void test_found_again_is_not_made_again(void **state)
{
    struct world *w = *state;
    lose(w, 0);
    assign_started(w, 0, 0, 0);
    note(M_SANDBOXES_CREATED, 1);
    note(M_SANDBOXES_ADOPTED, 1);
    start(w, "S1", "");
    look_finds(w, "S1", "b1 ours mine provisional runs");
    expect_call(w, "launch b1");
    expect_more(M_SANDBOXES_CREATED, 0, 0);
    expect_more(M_SANDBOXES_ADOPTED, 0, 0);
    done(w, SERVER);
    probe_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "created");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_requests_by_what_came_back),
        WORLD_TEST(test_a_part_of_a_stream_is_no_request),
        WORLD_TEST(test_what_the_provider_still_allows),
        WORLD_TEST(test_requests_are_timed),
        WORLD_TEST(test_steps_and_jobs_are_timed),
        WORLD_TEST(test_a_step_is_timed_from_its_last_phase),
        WORLD_TEST(test_batches_are_timed_and_counted),
        WORLD_TEST(test_jobs_by_outcome),
        WORLD_TEST(test_retries_by_step),
        WORLD_TEST(test_gauges_follow),
        WORLD_TEST(test_made_and_adopted),
        WORLD_TEST(test_refused_is_not_adopted),
        WORLD_TEST(test_found_again_is_not_made_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
