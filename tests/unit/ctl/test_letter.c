/* letter: what a dead letter says of itself, and the job that it becomes again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "worker/ctl/letter.h"
#include "worker/ctl/record.h"

#define NOW UINT64_C(1700000100000)
#define JOB "{\"type\":\"delete-session\",\"session_id\":\"S1\"}"

static struct buf out;
static struct config cfg;

static int setup(void **state)
{
    (void)state;
    struct config_source source = {.client = true};
    struct buf errors;
    buf_init(&errors, 10000);
    assert_true(config_load(&source, &cfg, &errors));
    buf_done(&errors);
    buf_init(&out, 1000000);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    config_done(&cfg);
    buf_done(&out);
    return 0;
}

/* "name", "value" pairs; a value of NULL is null. */
static struct header headers[16];
static struct record record;

static void make(const char *key, const char *value, const char *const *pairs)
{
    size_t n = 0;
    for (; pairs[2 * n]; n++)
        headers[n] =
            (struct header){(char *)(uintptr_t)pairs[2 * n], (char *)(uintptr_t)pairs[2 * n + 1],
                            pairs[2 * n + 1] ? strlen(pairs[2 * n + 1]) : 0};
    record = (struct record){.topic = "dlq",
                             .partition = 0,
                             .offset = 7,
                             .timestamp_ms = NOW - 5000,
                             .key = key,
                             .key_len = key ? strlen(key) : 0,
                             .value = value,
                             .value_len = value ? strlen(value) : 0,
                             .headers = headers,
                             .n_headers = n};
}

#define CONNECT "__connect.errors."
static const char *const usual[] = {"traceparent",
                                    "00-1",
                                    "empty",
                                    NULL,
                                    CONNECT "topic",
                                    "session-jobs",
                                    CONNECT "partition",
                                    "3",
                                    CONNECT "offset",
                                    "41",
                                    CONNECT "exception.class.name",
                                    "invalid_job",
                                    CONNECT "exception.message",
                                    "env.FOO must be\x1b a string",
                                    NULL,
                                    NULL};

static void one_line_of_it(void **state)
{
    (void)state;
    struct letter l;
    struct table t;
    make("S\x1b", JOB, usual);
    letter_read(&l, &record);
    table_init(&t, letter_heads, LETTER_COLUMNS);
    letter_row(&l, NOW, &t);
    table_print(&t, false, 0, &out);
    assert_string_equal(
        buf_text(&out),
        "LETTER  ORIGIN             CODE         SESSION  AGE  MESSAGE\n"
        "0/7     session-jobs/3/41  invalid_job  S\\x1b     5s  env.FOO must be\\x1b "
        "a string\n");
    table_done(&t);
    letter_done(&l);
}

static void one_without_any_of_our_headers(void **state)
{
    (void)state;
    static const char *const none[] = {NULL};
    struct letter l;
    struct table t;
    make(NULL, "\xff\x01", none);
    record.timestamp_ms = 0;
    letter_read(&l, &record);
    table_init(&t, letter_heads, LETTER_COLUMNS);
    letter_row(&l, NOW, &t);
    table_print(&t, false, 0, &out);
    assert_non_null(strstr(buf_text(&out), "\n0/7     -       -     -          -  -\n"));
    buf_clear(&out);
    letter_text(&l, NOW, &out);
    assert_non_null(strstr(buf_text(&out), "  key       null\n  headers   none\n"));
    assert_non_null(strstr(buf_text(&out), "|..|\n"));
    buf_clear(&out);
    letter_json(&l, true, &out);
    assert_string_equal(buf_text(&out),
                        "{\"type\":\"dead-letter\",\"partition\":0,\"offset\":7,\"time\":null,"
                        "\"session_id\":null,\"code\":null,\"message\":null,\"origin\":null,"
                        "\"first\":null,\"cut\":false,\"bytes\":2,\"key\":null,\"headers\":[],"
                        "\"value\":\"/wE=\"}");
    table_done(&t);
    letter_done(&l);
}

static void all_of_it(void **state)
{
    (void)state;
    struct letter l;
    make("S1", JOB, usual);
    letter_read(&l, &record);
    letter_text(&l, NOW, &out);
    const char *text = buf_text(&out);
    assert_null(strchr(text, '\x1b'));
    static const char *const parts[] = {
        "dead letter 0/7 of dlq, 2023-11-14T22:14:55.000Z, 5s ago\n",
        "  code      invalid_job\n  message   env.FOO must be\\x1b a string\n  to do     ",
        "  session   S1\n  from      session-jobs/3/41\n",
        "    traceparent: 00-1\n    empty: null\n", "  value     43 bytes\n    " JOB "\n"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (!strstr(text, parts[i]))
            fail_msg("not there: %s\nin: %s", parts[i], text);
    letter_done(&l);
}

static void expect_header(const struct message *m, size_t i, const char *name, const char *value)
{
    assert_true(i < m->n_headers);
    assert_string_equal(m->headers[i].name, name);
    if (!value)
        assert_null(m->headers[i].value);
    else
        assert_string_equal(m->headers[i].value, value);
}

static void the_job_is_as_it_was(void **state)
{
    (void)state;
    struct letter l;
    struct message m;
    make("S1", JOB, usual);
    letter_read(&l, &record);
    assert_null(letter_unsendable(&l));
    letter_job(&l, &m);
    assert_int_equal(m.key_len, 2);
    assert_memory_equal(m.key, "S1", 2);
    assert_int_equal(m.value_len, strlen(JOB));
    assert_memory_equal(m.value, JOB, m.value_len);
    assert_int_equal(m.n_headers, 3);
    expect_header(&m, 0, "traceparent", "00-1");
    expect_header(&m, 1, "empty", NULL);
    expect_header(&m, 2, "session-worker-original", "session-jobs/3/41");
    message_done(&m);
    letter_done(&l);
}

static void a_second_replay_keeps_the_first_place(void **state)
{
    (void)state;
    static const char *const replayed[] = {"session-worker-original",
                                           "session-jobs/1/2",
                                           CONNECT "topic",
                                           "session-jobs",
                                           CONNECT "partition",
                                           "3",
                                           CONNECT "offset",
                                           "41",
                                           NULL,
                                           NULL};
    struct letter l;
    struct message m;
    make("S1", NULL, replayed);
    letter_read(&l, &record);
    assert_string_equal(l.first, "session-jobs/1/2");
    letter_job(&l, &m);
    assert_null(m.value); /* a tombstone stays one */
    assert_int_equal(m.n_headers, 1);
    expect_header(&m, 0, "session-worker-original", "session-jobs/1/2");
    message_done(&m);
    letter_done(&l);
}

static void a_cut_one_is_never_sent(void **state)
{
    (void)state;
    static const char *const cut[] = {"session-worker-cut", "true", NULL};
    struct letter l;
    make("S1", "{\"type\":\"start-se", cut);
    letter_read(&l, &record);
    assert_true(l.cut);
    assert_non_null(strstr(letter_unsendable(&l), "send the job anew"));
    letter_done(&l);
}

static void what_a_worker_would_say_to_it(void **state)
{
    (void)state;
    struct letter l;
    make("S1", JOB, usual);
    letter_read(&l, &record);
    assert_null(letter_refusal(&l, &cfg));
    letter_done(&l);
    make("S1", "{\"type\":\"stop-session\",\"tenant\":3}", usual);
    letter_read(&l, &record);
    char *why = letter_refusal(&l, &cfg);
    assert_non_null(strstr(why, "tenant must be a string"));
    free(why);
    letter_done(&l);
}

/* ---- records ---- */

static void whose_record_it_is(void **state)
{
    (void)state;
    static const char *const none[] = {NULL};
    static const struct {
        const char *key, *value, *session;
    } cases[] = {
        {"S1", "{\"session_id\":\"other\"}", "S1"},
        {NULL, "{\"session_id\":\"S2\"}", "S2"},
        {"", "{\"session_id\":\"S2\"}", "S2"},
        {NULL, "{\"specversion\":\"1.0\",\"data\":{\"session_id\":\"S3\"}}", "S3"},
        {NULL, "S4 is no JSON", NULL},
        {NULL, NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        make(cases[i].key, cases[i].value, none);
        char *found = record_session(&record);
        if (cases[i].session)
            assert_string_equal(found, cases[i].session);
        else
            assert_null(found);
        if (cases[i].session)
            assert_true(record_is_about(&record, cases[i].session));
        assert_false(record_is_about(&record, "S"));
        assert_false(record_is_about(&record, "S4"));
        free(found);
    }
}

static void the_last_header_of_a_name(void **state)
{
    (void)state;
    static const char *const twice[] = {"a", "1", "a", "2", "b", NULL, NULL, NULL};
    make(NULL, NULL, twice);
    assert_string_equal(record_header(&record, "a"), "2");
    assert_null(record_header(&record, "b"));
    assert_null(record_header(&record, "c"));
    headers[1].value = (char *)(uintptr_t)"x\0y";
    headers[1].len = 3;
    assert_null(record_header(&record, "a")); /* no text */
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_line_of_it),
        TEST(one_without_any_of_our_headers),
        TEST(all_of_it),
        TEST(the_job_is_as_it_was),
        TEST(a_second_replay_keeps_the_first_place),
        TEST(a_cut_one_is_never_sent),
        TEST(what_a_worker_would_say_to_it),
        TEST(whose_record_it_is),
        TEST(the_last_header_of_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
