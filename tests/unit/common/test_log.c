/* log: one line an event in both formats, nothing forged, nothing secret, nothing without end. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
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

/* ---- a stderr that nobody reads ---- */

static int kept; /* the true stderr */

static void redirect(int fd)
{
    kept = dup(STDERR_FILENO);
    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    log_capture(NULL, NULL);
}

static void restore(void)
{
    dup2(kept, STDERR_FILENO);
    close(kept);
}

/* Everything that waits in fd. */
static const char *drain(int fd)
{
    static char text[4096];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    buf_clear(&seen);
    while (poll(&p, 1, 200) == 1 && p.revents & POLLIN) {
        ssize_t n = read(fd, text, sizeof text);
        if (n <= 0)
            break;
        buf_add(&seen, text, (size_t)n);
    }
    return buf_text(&seen);
}

static uint64_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / NS_PER_MS;
}

static void say(const char *text)
{
    now += NS_PER_S; /* no limit of the site */
    log_info(NULL, "line", L_STR("text", text));
}

static unsigned count(const char *text, const char *word)
{
    unsigned n = 0;
    for (; (text = strstr(text, word)); text++)
        n++;
    return n;
}

/* Lines of a kilobyte into what holds far less than 600 of them, with nobody at the other end; then
 * all that got through and the loss are read there. A line that waited would take a minute. */
static void fill_and_drain(int ours, int theirs, const char *end)
{
    char text[1001];
    memset(text, 'x', 1000);
    text[1000] = '\0';
    alarm(60); /* what hangs ends the program */
    redirect(theirs);
    uint64_t began = real_ms();
    for (int i = 0; i < 600; i++)
        say(text);
    uint64_t took = real_ms() - began;
    drain(ours);
    unsigned through = count(buf_text(&seen), end);
    double lost = metric_value(M_LOG_LOST, 0);
    struct buf first = seen;
    buf_init(&seen, 1000000);
    say("again");
    say("and again");
    drain(ours);
    restore();
    alarm(0);
    assert_in_range(took, 90, 10000);
    assert_true(through > 0 && through + (unsigned)lost == 600);
    assert_true(metric_value(M_LOG_LOST, 0) == lost);
    bool torn = strcmp(buf_text(&first) + first.len - strlen(end), end) != 0;
    CLEANUP(buf_done) struct buf wanted;
    buf_init(&wanted, 1000);
    buf_addf(
        &wanted,
        "%sts=2026-11-24T08:20:39.123Z level=warn msg=\"log lines lost: stderr did not take them\" "
        "lines=%.0f%sts=2026-11-24T08:20:39.123Z level=info msg=\"line\" text=again%s"
        "ts=2026-11-24T08:20:40.123Z level=info msg=\"line\" text=\"and again\"%s",
        torn ? end : "", lost, end, end, end);
    assert_string_equal(buf_text(&seen), buf_text(&wanted));
    buf_done(&first);
}

static void test_a_pipe_that_nobody_reads(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fill_and_drain(ends[0], ends[1], "\n");
    close(ends[0]);
    close(ends[1]);
}

static void test_a_socket_that_nobody_reads(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    fill_and_drain(ends[0], ends[1], "\n");
    close(ends[0]);
    close(ends[1]);
}

static void test_a_terminal_that_nobody_reads(void **state)
{
    (void)state;
    int ours = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(ours >= 0 && grantpt(ours) == 0 && unlockpt(ours) == 0);
    int theirs = open(ptsname(ours), O_RDWR | O_NOCTTY);
    assert_true(theirs >= 0);
    fill_and_drain(ours, theirs, "\r\n");
    close(ours);
    close(theirs);
}

/* Longer than a page: its beginning stands in the pipe when there is no more room. */
static void test_a_torn_line_is_ended(void **state)
{
    (void)state;
    int ends[2];
    char text[4001];
    memset(text, '\x01', 4000); /* six bytes each */
    text[4000] = '\0';
    assert_int_equal(pipe(ends), 0);
    fcntl(ends[1], F_SETPIPE_SZ, 8192);
    redirect(ends[1]);
    log_setup(LOG_LEVEL_INFO, LOG_JSON);
    say(text);
    say("lost");
    drain(ends[0]);
    assert_int_equal(seen.len, 8192);
    say("again");
    drain(ends[0]);
    restore();
    assert_string_equal(
        buf_text(&seen),
        "\n{\"ts\":\"2026-11-24T08:10:41.123Z\",\"level\":\"warn\",\"msg\":\"log lines "
        "lost: stderr did not take them\",\"lines\":2}\n{\"ts\":\"2026-11-24T08:10:41.123Z\","
        "\"level\":\"info\",\"msg\":\"line\",\"text\":\"again\"}\n");
    close(ends[0]);
    close(ends[1]);
}

/* A file takes a line of any length in one piece; a broken one loses lines as well. */
static void test_files(void **state)
{
    (void)state;
    char text[4001], name[] = "/tmp/test-log-XXXXXX";
    memset(text, '\x01', 4000);
    text[4000] = '\0';
    int fd = mkstemp(name);
    redirect(fd);
    say(text);
    restore();
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_size > 24000);
    assert_true(metric_value(M_LOG_LOST, 0) == 0);
    unlink(name);
    close(fd);
    fd = open("/dev/full", O_WRONLY);
    redirect(fd);
    say("lost");
    say("lost");
    assert_true(metric_value(M_LOG_LOST, 0) == 2);
    close(fd);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    say("again");
    restore();
    assert_non_null(strstr(drain(ends[0]), "lines=2\n"));
    assert_non_null(strstr(buf_text(&seen), "text=again\n"));
    close(ends[0]);
    close(ends[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_logfmt),
        TEST(test_json),
        TEST(test_levels),
        TEST(test_secrets),
        TEST(test_rate),
        TEST(test_clock_steps_back),
        TEST(test_large),
        TEST(test_stderr),
        TEST(test_no_forgery),
        TEST(test_a_pipe_that_nobody_reads),
        TEST(test_a_socket_that_nobody_reads),
        TEST(test_a_terminal_that_nobody_reads),
        TEST(test_a_torn_line_is_ended),
        TEST(test_files),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
