/* wire_event: the whole text of every event, its headers, and dead letters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/secret.h"
#include "common/wire.h"
#include "tests/unit/common/samples.h"

#define ENVELOPE(type)                                                                             \
    "{\"type\":\"" type "\",\"version\":1,\"job_id\":\"j-1\",\"session_id\":\"s-1\",\"tenant\":"   \
    "\"acme\",\"time\":\"2026-11-24T08:10:38.123Z\",\"provider\":\"daytona\",\"metadata\":{"       \
    "\"k\":[1]},\"attempts\":1,\"requests\":9,"

static void check_value(const struct event *e, const char *value)
{
    struct message m;
    event_print(e, &m);
    assert_int_equal(m.value_len, strlen(m.value));
    assert_string_equal(m.value, value);
    assert_string_equal(m.key, "s-1");
    assert_int_equal(m.key_len, 3);
    message_done(&m);
}

static void test_ready(void **state)
{
    (void)state;
    struct event e = sample_event(EVENT_READY);
    check_value(
        &e,
        ENVELOPE(
            "session-ready") "\"sandbox\":{\"id\":\"box-1\",\"sandbox_spec_id\":\"oh-v1\","
                             "\"status\":\"RUNNING\",\"session_api_key\":\"the-session-key\","
                             "\"exposed_urls\":["
                             "{\"name\":\"AGENT_SERVER\",\"url\":\"https://"
                             "4444-x.proxy\",\"port\":4444},"
                             "{\"name\":\"WEB\",\"url\":\"https://3000-x.proxy\",\"port\":3000}],"
                             "\"created_at\":\"2026-11-24T08:10:30.000Z\",\"name\":\"blue.s-1\","
                             "\"target\":\"eu\","
                             "\"preview_token\":\"the-preview-token\",\"outcome\":\"created\","
                             "\"replaced\":true,"
                             "\"drift\":false,\"launch\":\"warm\"},\"server\":{\"kind\":\"v1\","
                             "\"url\":"
                             "\"https://4444-x.proxy\",\"port\":8000,\"working_dir\":\"/"
                             "workspace\",\"command_id\":"
                             "\"c-1\"},\"vscode\":{\"url\":\"https://"
                             "4445-x.proxy\",\"token\":\"the-vscode-token\"},"
                             "\"timings_ms\":{\"queue\":1,\"find\":2,\"create\":3,\"start\":4,"
                             "\"launch\":5,\"probe\":6,"
                             "\"keep\":7,\"total\":28}}");
}

static void test_ready_without_secrets(void **state)
{
    (void)state;
    struct event e = sample_event(EVENT_READY);
    e.with_secrets = false;
    e.sandbox.n_urls = 0;
    e.sandbox.outcome = OUTCOME_ATTACHED;
    e.sandbox.drift = true;
    e.sandbox.replaced = e.sandbox.warm = false;
    e.server.present = false;
    check_value(
        &e,
        ENVELOPE(
            "session-ready") "\"sandbox\":{\"id\":\"box-1\",\"sandbox_spec_id\":\"oh-v1\","
                             "\"status\":\"RUNNING\",\"exposed_urls\":[],\"created_at\":"
                             "\"2026-11-24T08:10:30.000Z\",\"name\":\"blue.s-1\",\"target\":\"eu\","
                             "\"outcome\":\"attached\",\"replaced\":false,\"drift\":true,"
                             "\"launch\":\"cold\"},"
                             "\"server\":null,\"vscode\":{\"url\":\"https://4445-x.proxy\"},"
                             "\"timings_ms\":{\"queue\":1,\"find\":2,\"create\":3,\"start\":4,"
                             "\"launch\":5,"
                             "\"probe\":6,\"keep\":7,\"total\":28}}");
    struct message m;
    e = sample_event(EVENT_READY);
    e.with_secrets = false;
    event_print(&e, &m);
    assert_null(strstr(m.value, "the-session-key"));
    assert_null(strstr(m.value, "the-preview-token"));
    assert_null(strstr(m.value, "the-vscode-token"));
    message_done(&m);
}

static void test_failed(void **state)
{
    (void)state;
    struct event e = sample_event(EVENT_FAILED);
    check_value(
        &e,
        ENVELOPE(
            "session-failed") "\"error\":{\"code\":\"create_failed\",\"step\":\"create\","
                              "\"message\":\"the sandbox could not be made\",\"retryable\":true,"
                              "\"http_status\":400,\"provider_message\":\"No \\\"room\\\"\","
                              "\"log_tail\":\"line 1\\nline "
                              "2\\n\"},\"sandbox\":{\"id\":\"box-1\",\"name\":"
                              "\"blue.s-1\",\"cleanup\":\"scheduled\"}}");
    e.tenant = e.provider = e.metadata = e.job_id = NULL;
    e.sandbox.id = NULL;
    e.error.http_status = 0;
    e.error.retryable = false;
    e.error.provider_message = e.error.log_tail = NULL;
    e.error.code = ERR_INVALID_JOB;
    e.error.step = STEP_QUEUE;
    check_value(&e,
                "{\"type\":\"session-failed\",\"version\":1,\"job_id\":null,\"session_id\":\"s-1\","
                "\"tenant\":null,\"time\":\"2026-11-24T08:10:38.123Z\",\"provider\":null,"
                "\"metadata\":null,\"attempts\":1,\"requests\":9,\"error\":{\"code\":"
                "\"invalid_job\",\"step\":\"queue\",\"message\":\"the sandbox could not be "
                "made\",\"retryable\":false,\"http_status\":null,\"provider_message\":null,"
                "\"log_tail\":null},\"sandbox\":null}");
}

static void test_foreign_text(void **state)
{
    (void)state;
    static char text[10001];
    struct message m;
    struct event e = sample_event(EVENT_FAILED);
    memset(text, 'a', 5000);
    memset(text + 5000, 'z', 5000);
    memcpy(text + 5904, "hunter2-hunter2", 15); /* the cut goes through the secret */
    e.error.log_tail = e.error.provider_message = text;
    redact_add("hunter2-hunter2");
    event_print(&e, &m);
    redact_remove("hunter2-hunter2");
    cJSON *tree = json_parse_reply(m.value, m.value_len);
    const cJSON *error = json_get(tree, "error");
    const char *tail = json_str(error, "log_tail", ""),
               *head = json_str(error, "provider_message", "");
    assert_int_equal(strlen(head), 4096);
    assert_int_equal(head[0], 'a');
    assert_int_equal(strlen(tail), 4096);
    assert_int_equal(tail[4095], 'z');
    assert_null(strstr(m.value, "hunter"));
    cJSON_Delete(tree);
    message_done(&m);
}

static void test_ended(void **state)
{
    (void)state;
    struct event e = sample_event(EVENT_STOPPED);
    check_value(&e,
                ENVELOPE("session-stopped") "\"sandbox\":{\"id\":\"box-1\",\"name\":\"blue.s-1\","
                                            "\"was\":\"started\"}}");
    e.type = EVENT_DELETED;
    e.sandbox.was = NULL;
    check_value(&e,
                ENVELOPE("session-deleted") "\"sandbox\":{\"id\":\"box-1\",\"name\":\"blue.s-1\","
                                            "\"was\":null}}");
}

static void test_progress(void **state)
{
    (void)state;
    struct event e = sample_event(EVENT_PROGRESS);
    check_value(&e, ENVELOPE("session-progress") "\"status\":\"STATUS$BUILDING_RUNTIME\",\"step\":"
                                                 "\"create\",\"attempt\":2,\"elapsed_ms\":1234}");
}

static void check_header(const struct message *m, size_t i, const char *name, const char *value)
{
    assert_true(i < m->n_headers);
    assert_string_equal(m->headers[i].name, name);
    assert_string_equal(m->headers[i].value, value);
    assert_int_equal(m->headers[i].len, strlen(value));
}

static void test_headers(void **state)
{
    (void)state;
    struct header carried[] = {{(char *)"traceparent", (char *)"00-aa", 5},
                               {(char *)"baggage", (char *)"a\0b", 3}};
    struct event e = sample_event(EVENT_READY);
    struct message m;
    e.carried = carried;
    e.n_carried = 2;
    event_print(&e, &m);
    assert_int_equal(m.to, TO_RESULTS);
    assert_int_equal(m.n_headers, 9);
    check_header(&m, 0, "ce_specversion", "1.0");
    check_header(&m, 1, "ce_id", "session-jobs/3/42");
    check_header(&m, 2, "ce_source", "/session-worker/blue");
    check_header(&m, 3, "ce_type", "session-worker.session-ready.v1");
    check_header(&m, 4, "ce_subject", "s-1");
    check_header(&m, 5, "ce_time", "2026-11-24T08:10:38.123Z");
    check_header(&m, 6, "content-type", "application/json");
    check_header(&m, 7, "traceparent", "00-aa");
    assert_int_equal(m.headers[8].len, 3);
    assert_memory_equal(m.headers[8].value, "a\0b", 4);
    message_done(&m);
    e = sample_event(EVENT_PROGRESS);
    event_print(&e, &m);
    assert_int_equal(m.to, TO_PROGRESS);
    check_header(&m, 3, "ce_type", "session-worker.session-progress.v1");
    message_done(&m);
}

static void test_dead_letter(void **state)
{
    (void)state;
    struct header headers[] = {{(char *)"ce_id", (char *)"x", 1},
                               {(char *)"__connect.errors.topic", (char *)"old", 3},
                               {(char *)"session-worker-original", (char *)"t/1/2", 5}};
    struct record r = {.topic = "session-jobs",
                       .partition = 3,
                       .offset = 4711,
                       .key = "k\0y",
                       .key_len = 3,
                       .value = "\xff{",
                       .value_len = 2,
                       .headers = headers,
                       .n_headers = 3};
    struct message m;
    dead_letter_print(&r, ERR_INVALID_JOB, "type must be given", &m);
    assert_int_equal(m.to, TO_DEAD_LETTERS);
    assert_int_equal(m.key_len, 3);
    assert_memory_equal(m.key, "k\0y", 3);
    assert_int_equal(m.value_len, 2);
    assert_memory_equal(m.value, "\xff{", 2);
    assert_int_equal(m.n_headers, 9);
    check_header(&m, 0, "ce_id", "x");
    check_header(&m, 1, "session-worker-original", "t/1/2");
    check_header(&m, 2, "__connect.errors.topic", "session-jobs");
    check_header(&m, 3, "__connect.errors.partition", "3");
    check_header(&m, 4, "__connect.errors.offset", "4711");
    check_header(&m, 5, "__connect.errors.connector.name", "session-worker");
    check_header(&m, 6, "__connect.errors.stage", "VALUE_CONVERTER");
    check_header(&m, 7, "__connect.errors.exception.class.name", "invalid_job");
    check_header(&m, 8, "__connect.errors.exception.message", "type must be given");
    message_done(&m);
    r = (struct record){.topic = "t"};
    dead_letter_print(&r, ERR_POISON, "killed three workers", &m);
    assert_null(m.key);
    assert_null(m.value);
    check_header(&m, 4, "__connect.errors.stage", "TASK_PUT");
    message_done(&m);
}

static void test_names(void **state)
{
    (void)state;
    static const enum error_code final[] = {ERR_INVALID_JOB,
                                            ERR_UNSUPPORTED,
                                            ERR_SESSION_EXISTS,
                                            ERR_NOT_FOUND,
                                            ERR_UNAUTHORIZED,
                                            ERR_FORBIDDEN,
                                            ERR_SNAPSHOT_NOT_FOUND,
                                            ERR_BAD_COMMAND,
                                            ERR_CANCELLED,
                                            ERR_POISON,
                                            ERR_EXPIRED,
                                            ERR_NONE};
    for (unsigned c = 0; c < N_ERRORS; c++) {
        bool is_final = false;
        for (size_t i = 0; i < ARRAY_LEN(final); i++)
            is_final |= final[i] == (enum error_code)c;
        assert_int_equal(error_retryable((enum error_code)c), !is_final);
        for (unsigned d = 0; d < c; d++)
            assert_string_not_equal(error_name((enum error_code)c), error_name((enum error_code)d));
    }
    assert_string_equal(error_name(ERR_PROVIDER_UNAVAILABLE), "provider_unavailable");
    assert_string_equal(error_name(ERR_INTERNAL), "internal");
    for (unsigned s = 0; s < N_STEPS; s++)
        for (unsigned t = 0; t < s; t++)
            assert_string_not_equal(step_name((enum step)s), step_name((enum step)t));
    assert_string_equal(step_name(STEP_QUEUE), "queue");
    assert_string_equal(step_name(STEP_PUBLISH), "publish");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready),   cmocka_unit_test(test_ready_without_secrets),
        cmocka_unit_test(test_failed),  cmocka_unit_test(test_foreign_text),
        cmocka_unit_test(test_ended),   cmocka_unit_test(test_progress),
        cmocka_unit_test(test_headers), cmocka_unit_test(test_dead_letter),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("wire_event", tests, NULL, NULL);
}
