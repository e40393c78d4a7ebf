/* metrics: counting from any thread, and Prometheus text that a strict reader accepts. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/metrics.h"
#include "common/version.h"
#include "common/wire.h"

static int setup(void **state)
{
    (void)state;
    metrics_reset();
    return 0;
}

static char *printed(void)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    metrics_print(&b);
    assert_false(b.overflow);
    return buf_steal(&b);
}

/* Is line one of the lines of text? */
static bool has_line(const char *text, const char *line)
{
    size_t n = strlen(line);
    for (const char *p = text; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
        if (strncmp(p, line, n) == 0 && p[n] == '\n')
            return true;
    return false;
}

static void test_values(void **state)
{
    (void)state;
    metric_add(M_JOBS_RECEIVED, 1);
    metric_add(M_JOBS_RECEIVED, 2);
    metric_add1(M_JOBS_COMPLETED, MO_FAILED, 1);
    metric_add2(M_JOB_FAILURES, STEP_CREATE, ERR_QUOTA_EXCEEDED, 4);
    metric_add2(M_JOB_FAILURES, STEP_CREATE, ERR_INTERNAL, 1);
    metric_add2(M_PROVIDER_REQUESTS, STEP_PROBE, MS_5XX, 7);
    metric_set(M_JOBS_IN_FLIGHT, 12);
    metric_add(M_JOBS_IN_FLIGHT, -2);
    metric_set1(M_PROVIDER_REMAINING, 1, 299);
    assert_true(metric_value(M_JOBS_RECEIVED, 0) == 3);
    assert_true(metric_value(M_JOBS_COMPLETED, MO_FAILED) == 1);
    assert_true(metric_value(M_JOBS_COMPLETED, MO_READY) == 0);
    assert_true(metric_value(M_JOB_FAILURES, STEP_CREATE) == 5);
    assert_true(metric_value2(M_JOB_FAILURES, STEP_CREATE, ERR_QUOTA_EXCEEDED) == 4);
    assert_true(metric_value(M_JOB_FAILURES, STEP_START) == 0);
    char *text = printed();
    assert_true(has_line(text, "# TYPE session_worker_jobs_received_total counter"));
    assert_true(has_line(text, "session_worker_jobs_received_total 3"));
    assert_true(has_line(text, "session_worker_jobs_completed_total{outcome=\"failed\"} 1"));
    assert_true(has_line(
        text, "session_worker_job_failures_total{step=\"create\",code=\"quota_exceeded\"} 4"));
    assert_true(
        has_line(text, "session_worker_provider_requests_total{step=\"probe\",status=\"5xx\"} 7"));
    assert_true(has_line(text, "# TYPE session_worker_jobs_in_flight gauge"));
    assert_true(has_line(text, "session_worker_jobs_in_flight 10"));
    assert_true(
        has_line(text, "session_worker_provider_rate_limit_remaining{scope=\"create\"} 299"));
    free(text);
}

static void test_histogram(void **state)
{
    (void)state;
    metric_observe(M_STEP_SECONDS, STEP_PROBE, 0.1); /* a bound belongs to its bucket */
    metric_observe(M_STEP_SECONDS, STEP_PROBE, 0.3);
    metric_observe(M_STEP_SECONDS, STEP_PROBE, 1000);
    metric_observe(M_LOOP_LAG_SECONDS, 0, 0.002);
    assert_true(metric_value(M_STEP_SECONDS, STEP_PROBE) == 3);
    char *text = printed();
#define BUCKET "session_worker_step_duration_seconds_bucket{step=\"probe\",le="
    assert_true(has_line(text, "# TYPE session_worker_step_duration_seconds histogram"));
    assert_true(has_line(text, BUCKET "\"0.1\"} 1"));
    assert_true(has_line(text, BUCKET "\"0.25\"} 1"));
    assert_true(has_line(text, BUCKET "\"0.5\"} 2"));
    assert_true(has_line(text, BUCKET "\"600\"} 2"));
    assert_true(has_line(text, BUCKET "\"+Inf\"} 3"));
    assert_true(has_line(text, "session_worker_step_duration_seconds_count{step=\"probe\"} 3"));
    assert_non_null(
        strstr(text, "session_worker_step_duration_seconds_sum{step=\"probe\"} 1000.4"));
    assert_true(has_line(text, "session_worker_loop_lag_seconds_bucket{le=\"0.001\"} 0"));
    assert_true(has_line(text, "session_worker_loop_lag_seconds_bucket{le=\"0.005\"} 1"));
    assert_true(has_line(text, "session_worker_loop_lag_seconds_count 1"));
    free(text);
}

static unsigned count_lines(const char *text)
{
    unsigned n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void test_series_are_there_from_the_start(void **state)
{
    (void)state;
    char *before = printed();
    assert_true(has_line(
        before, "session_worker_job_failures_total{step=\"publish\",code=\"internal\"} 0"));
    assert_null(strstr(before, "code=\"none\""));
    metric_add2(M_JOB_FAILURES, STEP_FIND, ERR_POISON, 1);
    metric_observe(M_JOB_SECONDS, MO_READY, 3);
    char *after = printed();
    assert_int_equal(count_lines(before), count_lines(after));
    free(before);
    free(after);
}

/* name{label="value",…} number, or a comment of the two kinds. */
static void check_line(const char *line, size_t len)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    if (*line == '#') {
        assert_true(strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0);
        return;
    }
    size_t n = strspn(line, letters);
    assert_true(n > 0);
    assert_true(strncmp(line, "session_worker_", 15) == 0 || strncmp(line, "process_", 8) == 0);
    if (line[n] == '{')
        n += strcspn(line + n, "}") + 1;
    assert_int_equal(line[n], ' ');
    char *end;
    strtod(line + n + 1, &end);
    assert_ptr_equal(end, line + len);
}

static void test_syntax(void **state)
{
    (void)state;
    metric_set(M_PARTITIONS, 0.1);
    char *text = printed();
    for (char *p = text; *p; p += strcspn(p, "\n") + 1)
        check_line(p, strcspn(p, "\n"));
    free(text);
}

static double value_of(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    assert_non_null(at);
    return strtod(at + strlen(name), NULL);
}

static void test_process(void **state)
{
    (void)state;
    char *text = printed();
    assert_true(value_of(text, "\nprocess_open_fds ") >= 3);
    assert_true(value_of(text, "\nprocess_open_fds ") < value_of(text, "\nprocess_max_fds "));
    assert_true(value_of(text, "\nprocess_threads ") == 1);
    assert_true(value_of(text, "\nprocess_resident_memory_bytes ") > 100000);
    assert_true(value_of(text, "\nprocess_virtual_memory_bytes ") >
                value_of(text, "\nprocess_resident_memory_bytes "));
    assert_true(value_of(text, "\nprocess_start_time_seconds ") > 1.6e9);
    assert_true(value_of(text, "\nprocess_cpu_seconds_total ") < 1e6);
    free(text);
}

static void *count_many(void *arg)
{
    for (int i = 0; i < 50000; i++) {
        metric_add(M_KAFKA_ERRORS, 1);
        metric_observe(M_BATCH_SECONDS, 0, 1);
    }
    return arg;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_many, NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    assert_true(metric_value(M_KAFKA_ERRORS, 0) == 200000);
    assert_true(metric_value(M_BATCH_SECONDS, 0) == 200000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_values, setup),
        cmocka_unit_test_setup(test_histogram, setup),
        cmocka_unit_test_setup(test_series_are_there_from_the_start, setup),
        cmocka_unit_test_setup(test_syntax, setup),
        cmocka_unit_test_setup(test_process, setup),
        cmocka_unit_test_setup(test_threads, setup),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
