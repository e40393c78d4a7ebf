/* stream: what comes by two topics is told in the order in which it happened. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/json.h"
#include "worker/ctl/stream.h"

static struct stream stream;
static struct buf out;

static int setup(void **state)
{
    (void)state;
    stream = (struct stream){0};
    buf_init(&out, 1000000);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stream_done(&stream);
    buf_done(&out);
    return 0;
}

/* A time of so many seconds after eight. */
static void add(const char *type, const char *note, const char *job, int seconds)
{
    char text[300];
    snprintf(text, sizeof text,
             "{\"type\":\"session-%s\",\"note\":\"%s\",\"time\":\"2026-11-24T08:00:%02d.000Z\"}",
             type, note, seconds);
    stream_add(&stream, text, strlen(text), job, 0);
}

static void note(void *arg, const cJSON *event, const char *text, size_t len)
{
    (void)arg;
    assert_int_equal(text[len], '\0');
    buf_addf(&out, "%s ", event ? json_str(event, "note", "?") : text);
}

static void expect(const char *notes)
{
    buf_clear(&out);
    stream_tell(&stream, note, NULL);
    assert_string_equal(buf_text(&out), notes);
}

static void by_time_whatever_the_topic(void **state)
{
    (void)state;
    add("ready", "ready", "j/0/4", 9);
    add("progress", "create", "j/0/4/1", 1);
    add("progress", "probe", "j/0/4/2", 5);
    add("failed", "other", "j/1/7", 3);
    expect("create other probe ready ");
    expect("");
}

static void what_is_of_one_time_as_it_came(void **state)
{
    (void)state;
    for (int i = 0; i < 9; i++)
        add("stopped", (char[]){(char)('a' + i), '\0'}, NULL, 7);
    expect("a b c d e f g h i ");
}

static void progress_behind_its_result_is_left_out(void **state)
{
    (void)state;
    add("ready", "ready", "j/0/4", 9);
    expect("ready ");
    add("progress", "late", "j/0/4/1", 1);
    add("progress", "next-job", "j/0/5/1", 2);
    add("progress", "nobody's", NULL, 3);
    expect("next-job nobody's ");
    add("failed", "failed", "j/0/5", 10);
    add("progress", "of-a-slow-clock", "j/0/5/2", 11);
    expect("failed ");
}

static void what_is_no_event_goes_through(void **state)
{
    (void)state;
    add("ready", "ready", "j/0/4", 1);
    stream_add(&stream, "no JSON", 7, NULL, UINT64_C(1795507201500)); /* 08:00:01.5 */
    add("ready", "later", "j/0/5", 2);
    stream_add(&stream, "", 0, NULL, 0);
    expect(" ready no JSON later ");
}

static void many_results_are_forgotten_in_the_end(void **state)
{
    (void)state;
    char job[32];
    for (int i = 0; i <= 10000; i++) {
        snprintf(job, sizeof job, "j/0/%d", i);
        add("ready", "r", job, 1);
    }
    stream_tell(&stream, note, NULL);
    add("progress", "forgotten", "j/0/0/1", 1);
    add("progress", "known", "j/0/1/1", 1);
    add("progress", "known", "j/0/10000/1", 1);
    expect("forgotten ");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(by_time_whatever_the_topic),
        TEST(what_is_of_one_time_as_it_came),
        TEST(progress_behind_its_result_is_left_out),
        TEST(what_is_no_event_goes_through),
        TEST(many_results_are_forgotten_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
