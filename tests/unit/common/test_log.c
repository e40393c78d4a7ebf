/* log: one line an event in both formats, nothing forged, nothing secret, nothing without end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/json.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/secret.h"

static struct buf seen;
static unsigned lines;
static uint64_t now;

static uint64_t test_clock(void)
{
    return now;
}

static void keep(void *arg, const char *line, size_t len)
{
    (void)arg;
    lines++;
    buf_clear(&seen);
    buf_add(&seen, line, len);
}

static int setup(void **state)
{
    (void)state;
    buf_init(&seen, 1000000);
    lines = 0;
    now = UINT64_C(1795507838123) * NS_PER_MS;
    log_clock(test_clock);
    log_capture(keep, NULL);
    log_setup(LOG_LEVEL_INFO, LOG_LOGFMT);
    metrics_reset();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    log_capture(NULL, NULL);
    log_clock(NULL);
    buf_done(&seen);
    return 0;
}

static void test_logfmt(void **state)
{
    (void)state;
    const struct log_field prefix[] = {L_STR("session", "s-1"), L_INT("partition", -3)};
    const struct log_scope scope = {prefix, ARRAY_LEN(prefix)};
    log_info(&scope, "sandbox created", L_STR("sandbox", "a b"), L_STR("bare", "09azAZ._-/:@+,%*~"),
             L_UINT("attempt", 2), L_STR("none", NULL), L_STR("empty", ""),
             L_STR("quote", "x=\"1\""));
    assert_string_equal(
        buf_text(&seen),
        "ts=2026-11-24T08:10:38.123Z level=info msg=\"sandbox created\" session=s-1 "
        "partition=-3 sandbox=\"a b\" bare=09azAZ._-/:@+,%*~ attempt=2 empty=\"\" "
        "quote=\"x=\\\"1\\\"\"");
    log_error(NULL, "plain");
    assert_string_equal(buf_text(&seen), "ts=2026-11-24T08:10:38.123Z level=error msg=\"plain\"");
}

static void test_json(void **state)
{
    (void)state;
    log_setup(LOG_LEVEL_INFO, LOG_JSON);
    log_warn(NULL, "odd", L_STR("text", "two\nlines"), L_INT("n", -1), L_STR("number", "12"));
    assert_string_equal(buf_text(&seen),
                        "{\"ts\":\"2026-11-24T08:10:38.123Z\",\"level\":\"warn\",\"msg\":\"odd\","
                        "\"text\":\"two\\nlines\",\"n\":-1,\"number\":\"12\"}");
}

static void test_levels(void **state)
{
    (void)state;
    log_setup(LOG_LEVEL_WARN, LOG_LOGFMT);
    log_debug(NULL, "no");
    log_info(NULL, "no");
    assert_int_equal(lines, 0);
    log_warn(NULL, "yes");
    log_error(NULL, "yes");
    assert_int_equal(lines, 2);
    assert_false(log_enabled(LOG_LEVEL_INFO));
    assert_true(log_enabled(LOG_LEVEL_WARN));
}

static void test_no_forgery(void **state)
{
    (void)state;
    log_info(NULL, "x", L_STR("text", "\r\nlevel=error \x1b[2J\xff\xc2\x9b"));
    assert_string_equal(
        buf_text(&seen) + strlen("ts=2026-11-24T08:10:38.123Z "),
        "level=info msg=\"x\" text=\"\\r\\nlevel=error \\u001b[2J\xef\xbf\xbd\\u009b\"");
    for (int c = 1; c < 256; c++) {
        char text[] = {'a', (char)c, 'b', '\0'};
        log_setup(LOG_LEVEL_INFO, c % 2 ? LOG_JSON : LOG_LOGFMT);
        now += NS_PER_S;
        log_info(NULL, text, L_STR("k", text));
        for (size_t i = 0; i < seen.len; i++)
            assert_true((unsigned char)seen.data[i] >= 0x20 && seen.data[i] != 0x7f);
    }
}

static void test_secrets(void **state)
{
    (void)state;
    redact_add("top\nsecret");
    log_info(NULL, "got top\nsecret", L_STR("k", "=top\nsecret="));
    assert_null(strstr(buf_text(&seen), "secret"));
    assert_non_null(strstr(buf_text(&seen), "msg=\"got ***\" k=\"=***=\""));
    redact_remove("top\nsecret");
    redact_add("level=info");
    redact_add("2026-11-24");
    log_info(NULL, "x");
    assert_non_null(strstr(buf_text(&seen), "ts=2026-11-24T08")); /* our own words stay */
    redact_remove("level=info");
    redact_remove("2026-11-24");
}

static void same_site(void)
{
    log_error(NULL, "again");
}

static void test_rate(void **state)
{
    (void)state;
    for (int i = 0; i < 120; i++)
        same_site();
    assert_int_equal(lines, 50);
    assert_true(metric_value(M_LOG_SUPPRESSED, 0) == 70);
    assert_null(strstr(buf_text(&seen), "suppressed"));
    log_error(NULL, "another site");
    assert_int_equal(lines, 51);
    now += NS_PER_S - 1;
    same_site();
    assert_int_equal(lines, 51);
    now += 1;
    same_site();
    assert_int_equal(lines, 52);
    assert_non_null(strstr(buf_text(&seen), "msg=\"again\" suppressed=71"));
    same_site();
    assert_int_equal(lines, 53);
    assert_null(strstr(buf_text(&seen), "suppressed"));
}

static void test_clock_steps_back(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        if (i == 56)
            now -= 100 * NS_PER_S;
        log_info(NULL, "site");
    }
    assert_int_equal(lines, 54); /* 50 of the old window, 4 of the new one */
    now += 100 * NS_PER_S;
}

static void test_large(void **state)
{
    (void)state;
    static char text[20000];
    memset(text, '\x01', sizeof text - 1);
    log_setup(LOG_LEVEL_INFO, LOG_JSON);
    log_info(NULL, "one", L_STR("a", text));
    assert_true(seen.len > 4096 * 6 && seen.len < 4096 * 6 + 200);
    char error[JSON_ERROR_SIZE];
    cJSON *tree = json_parse(seen.data, seen.len, &json_limits_reply, error);
    assert_non_null(tree);
    cJSON_Delete(tree);
    log_info(NULL, "three", L_STR("a", text), L_STR("b", text), L_STR("c", text));
    assert_string_equal(buf_text(&seen), "{\"ts\":\"2026-11-24T08:10:38.123Z\",\"level\":\"info\","
                                         "\"msg\":\"three\",\"dropped\":\"fields\"}");
}

static void test_stderr(void **state)
{
    (void)state;
    int ends[2], old = dup(STDERR_FILENO);
    char text[200] = "";
    assert_int_equal(pipe(ends), 0);
    log_capture(NULL, NULL);
    dup2(ends[1], STDERR_FILENO);
    log_info(NULL, "to stderr");
    dup2(old, STDERR_FILENO);
    assert_true(read(ends[0], text, sizeof text - 1) > 0);
    assert_string_equal(text, "ts=2026-11-24T08:10:38.123Z level=info msg=\"to stderr\"\n");
    close(ends[0]);
    close(ends[1]);
    close(old);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_logfmt),  TEST(test_json),   TEST(test_levels),
        TEST(test_secrets), TEST(test_rate),   TEST(test_clock_steps_back),
        TEST(test_large),   TEST(test_stderr), TEST(test_no_forgery),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
