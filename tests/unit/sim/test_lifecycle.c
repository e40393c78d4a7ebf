/* Create, start, stop, delete, names and intervals: conversations as they were heard from Daytona.
 */
#include "tests/unit/sim/talk.h"

static const struct model_options slowly = {.boot_ms = 900, .stop_ms = 400};

static void create_answers_with_the_state_before_the_wait(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, &slowly);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, "\"state\":\"creating\"",
             "!errorReason"});
    assert_int_equal(t.took_ns, 900 * NS_PER_MS);
    SAY(&t, {0, "GET /api/sandbox/a", NULL, 200, "\"state\":\"started\"", "\"errorReason\":null"});
    talk_end(&t);
}

static void create_is_held_for_thirty_seconds_at_most(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, &slowly);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\",\"snapshot\":\"sim-stuck-creating\"}", 200,
             "\"state\":\"creating\"", NULL});
    assert_int_equal(t.took_ns, 30 * NS_PER_S);
    SAY(&t, {0, "GET /api/sandbox/a", NULL, 200, "\"state\":\"creating\"", NULL},
        {870000, "GET /api/sandbox/a", NULL, 200, "\"state\":\"error\"",
         "Timeout while creating sandbox"});
    talk_end(&t);
}

static void a_name_is_taken_in_every_state_but_destroying(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, &slowly);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\",\"labels\":{\"x\":\"1\"}}", 409,
         "\"message\":\"Sandbox with name a already exists\"", NULL},
        {0, "POST /api/sandbox/a/stop", NULL, 200, "\"state\":\"stopping\"", "!lastActivityAt"},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 409, NULL, NULL},
        {500, "GET /api/sandbox/a", NULL, 200, "\"state\":\"stopped\"", NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 409, NULL, NULL},
        {0, "DELETE /api/sandbox/a", NULL, 200, "\"name\":\"DESTROYED_a_17",
         "\"state\":\"destroying\""},
        {0, "GET /api/sandbox/{id}", NULL, 200, "\"desiredState\":\"destroyed\"", NULL},
        {0, "DELETE /api/sandbox/{id}", NULL, 409, "Sandbox state change in progress", NULL},
        {500, "GET /api/sandbox/{id}", NULL, 404, "Sandbox with ID or name {id} not found", NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL});
    talk_end(&t);
}

static void nothing_can_be_changed_while_it_changes(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, &slowly);
    SAY(&t,
        {0, "POST /api/sandbox",
         "{\"name\":\"a\",\"buildInfo\":{\"dockerfileContent\":\"FROM x\"}}", 200, "pending_build",
         "!snapshot\":"},
        {100, "DELETE /api/sandbox/a", NULL, 409, "Sandbox state change in progress", NULL},
        {0, "POST /api/sandbox/a/stop", NULL, 409, "Sandbox state change in progress", NULL},
        {0, "POST /api/sandbox/a/start", NULL, 409, "Sandbox state change in progress", NULL},
        {0, "POST /api/sandbox/a/autodelete/5", NULL, 201, "\"autoDeleteInterval\":5", NULL},
        {0, "PUT /api/sandbox/a/labels", "{\"labels\":{\"n\":1}}", 200, "\"labels\":{\"n\":1}",
         NULL},
        {2000, "POST /api/sandbox/a/start", NULL, 200, "\"state\":\"started\"", NULL});
    talk_end(&t);
}

static void a_name_that_was_looked_up_stays_missing_for_ten_seconds(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 200, NULL, NULL},
        {0, "DELETE /api/sandbox/{id}", NULL, 200, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 404, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 404, NULL, NULL},
        {0, "GET /api/sandbox/{id}", NULL, 200, "\"state\":\"started\"", NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 409, NULL, NULL},
        {0, "POST /api/sandbox/a/autodelete/5", NULL, 404, NULL, NULL},
        {9000, "GET /api/sandbox/a", NULL, 404, NULL, NULL},
        {1100, "GET /api/sandbox/a", NULL, 200, "\"state\":\"started\"", NULL});
    talk_end(&t);
}

static void a_name_that_only_the_id_was_used_of_is_found_at_once(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t, {0, "GET /api/sandbox/a", NULL, 404, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "DELETE /api/sandbox/{id}", NULL, 200, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 404, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 200, NULL, NULL});
    talk_end(&t);
}

static void a_failed_boot_leaves_the_sandbox_behind(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t,
        {0, "POST /api/sandbox", "{\"name\":\"a\",\"snapshot\":\"sim-error\"}", 400,
         "Sandbox failed to start: Sandbox entered error state", "\"error\":\"Bad Request\""},
        {0, "GET /api/sandbox/a", NULL, 200, "\"state\":\"error\"", "\"desiredState\":\"started\""},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 409, NULL, NULL},
        {0, "POST /api/sandbox/a/start", NULL, 400, "Sandbox is in an errored state", NULL},
        {0, "POST /api/sandbox/a/stop", NULL, 400, "Sandbox is in an errored state", NULL},
        {0, "POST /api/sandbox/a/recover", NULL, 400, "not in a recoverable state", NULL},
        {0, "DELETE /api/sandbox/{id}", NULL, 200, "\"state\":\"error\"", "DESTROYED_a_"},
        {0, "GET /api/sandbox/{id}", NULL, 404, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL});
    talk_end(&t);
}

static void a_recoverable_one_recovers(void **state)
{
    struct model_options o = {
        .scenario = "{\"snapshots\":{\"s\":{\"boot\":\"error\",\"recoverable\":true}}}"};
    struct talk t;
    (void)state;
    talk_begin(&t, &o);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\",\"snapshot\":\"s\"}", 400, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 200, "\"recoverable\":true", NULL},
        {0, "POST /api/sandbox/a/recover", NULL, 200, "\"state\":\"started\"",
         "\"errorReason\":null"});
    talk_end(&t);
}

static void start_waits_and_tells_the_truth_but_for_the_intervals(void **state)
{
    struct talk t;
    struct sim_reply held, other;
    struct sim_header key = {"Authorization", "Bearer dtn_test"};
    (void)state;
    talk_begin(&t, &slowly);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\",\"autoStopInterval\":7}", 200, NULL, NULL},
        {0, "POST /api/sandbox/a/stop", NULL, 200, NULL, NULL});
    t.now_ns += NS_PER_S;
    model_request(t.m, t.now_ns,
                  &(struct sim_request){.method = "POST",
                                        .target = "/api/sandbox/a/start",
                                        .host = "",
                                        .headers = &key,
                                        .n_headers = 1},
                  &held);
    assert_true(held.held);
    sim_reply_done(&held);
    SAY(&t, {0, "GET /api/sandbox/a", NULL, 200, "\"state\":\"starting\"", NULL},
        {0, "POST /api/sandbox/a/autostop/30", NULL, 201, "\"autoStopInterval\":30", NULL});
    assert_false(model_advance(t.m, t.now_ns, &other));
    t.now_ns += NS_PER_S;
    assert_true(model_advance(t.m, t.now_ns, &other));
    assert_int_equal(other.token, held.token);
    assert_non_null(strstr(buf_text(&other.body), "\"state\":\"started\""));
    assert_non_null(strstr(buf_text(&other.body), "\"autoStopInterval\":7"));
    sim_reply_done(&other);
    SAY(&t, {0, "GET /api/sandbox/a", NULL, 200, "\"autoStopInterval\":30", NULL});
    talk_end(&t);
}

static void an_archived_one_starts_late_but_answers_at_once(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "POST /api/sandbox/a/archive", NULL, 400, "Sandbox is not stopped", NULL},
        {0, "POST /api/sandbox/a/stop", NULL, 200, NULL, NULL},
        {100, "POST /api/sandbox/a/archive", NULL, 200, "\"state\":\"archiving\"", NULL},
        {100, "GET /api/sandbox/a", NULL, 200, "\"state\":\"archived\"", NULL},
        {0, "POST /api/sandbox/a/start", NULL, 200, "\"state\":\"archived\"", NULL},
        {1010, "GET /api/sandbox/a", NULL, 200, "\"state\":\"restoring\"", NULL},
        {100, "GET /api/sandbox/a", NULL, 200, "\"state\":\"started\"", NULL});
    talk_end(&t);
}

static void values_are_judged_as_the_server_judges_them(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t,
        {0, "POST /api/sandbox", "{\"name\":5}", 400,
         "name must not contain HTML tags, URLs, or control characters, name must be a string",
         NULL},
        {0, "POST /api/sandbox", "{\"name\":\"www.x\"}", 400, "name must not contain HTML tags",
         NULL},
        {0, "POST /api/sandbox", "{\"labels\":[]}", 400, "labels must be an object", NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\\u0000b\"}", 500, "Internal Server Error", NULL},
        {0, "POST /api/sandbox", "{\"target\":\"mars\"}", 404, "Region not found", NULL},
        {0, "POST /api/sandbox", "{\"snapshot\":\"nope\"}", 400, "Snapshot nope not found.", NULL},
        {0, "POST /api/sandbox", "{\"cpu\":2}", 400, "Cannot specify Sandbox resources", NULL},
        {0, "POST /api/sandbox", "{\"autoDeleteInterval\":1.5}", 500, "An unexpected error", NULL},
        {0, "POST /api/sandbox", "{\"autoStopInterval\":-1}", 400, "must be non-negative", NULL},
        {0, "POST /api/sandbox", "{\"snapshot\":\"sim-no-runners\"}", 400, "No available runners",
         NULL},
        {0, "POST /api/sandbox", "{\"snapshot\":\"sim-quota\"}", 400, "Total CPU limit exceeded.",
         NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a/b\",\"target\":\"eu\",\"autoArchiveInterval\":0}",
         200, "\"target\":\"eu\"", "\"autoArchiveInterval\":43200"},
        {0, "GET /api/sandbox/a%2Fb", NULL, 200, "\"name\":\"a/b\"", NULL},
        {0, "POST /api/sandbox/{id}/autodelete/%20", NULL, 201, "\"autoDeleteInterval\":0", NULL},
        {0, "POST /api/sandbox/{id}/autodelete/abc", NULL, 500, NULL, NULL},
        {0, "POST /api/sandbox/{id}/autodelete/", NULL, 404,
         "Cannot POST /api/sandbox/{id}/autodelete/", NULL},
        {0, "POST /api/sandbox/{id}/autostop/-1", NULL, 400, "must be non-negative", NULL},
        {0, "POST /api/sandbox/{id}/last-activity", NULL, 201, NULL, NULL});
    talk_end(&t);
}

static void a_body_that_is_not_called_json_is_ignored(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    t.content_type = "application/x-www-form-urlencoded";
    SAY(&t,
        {0, "POST /api/sandbox", "{\"name\":\"a\",\"autoDeleteInterval\":0}", 200,
         "\"autoDeleteInterval\":-1", "\"name\":\"{id}\""},
        {0, "PUT /api/sandbox/{id}/labels", "{\"labels\":{\"a\":\"1\"}}", 200, "!labels", NULL},
        {0, "GET /_sim/stats", NULL, 200, "body without JSON content type: POST /sandbox", NULL});
    t.content_type = "Application/JSON; charset=utf-8";
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, "\"name\":\"a\"", NULL},
        {0, "POST /api/sandbox", "{bad", 400,
         "{\"message\":\"Invalid JSON in request body\",\"error\":\"Bad "
         "Request\",\"statusCode\":400}",
         NULL});
    talk_end(&t);
}

static void quotas_count_what_runs(void **state)
{
    struct model_options o = {.cpu_quota = 1};
    struct talk t;
    (void)state;
    talk_begin(&t, &o);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 400,
         "Total CPU limit exceeded. Maximum allowed: 1.", NULL},
        {0, "POST /api/sandbox/a/stop", NULL, 200, NULL, NULL},
        {100, "POST /api/sandbox", "{\"name\":\"b\"}", 200, NULL, NULL},
        {0, "POST /api/sandbox/a/start", NULL, 400, "Total CPU limit exceeded.", NULL},
        {0, "DELETE /api/sandbox/b", NULL, 200, NULL, NULL},
        {0, "POST /api/sandbox/a/start", NULL, 200, "started", NULL});
    talk_end(&t);
}

static void the_warm_pool_gives_at_once_unless_it_is_skipped(void **state)
{
    struct model_options o = {.warm = 4};
    struct talk t;
    (void)state;
    talk_begin(&t, &o);
    SAY(&t,
        {0, "POST /api/sandbox", "{\"name\":\"a\",\"autoDeleteInterval\":0}", 200,
         "\"state\":\"started\"", "\"autoDeleteInterval\":0"},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 409, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"b\"}", 200, "\"state\":\"started\"", NULL},
        {0, "POST /api/sandbox", "{\"name\":\"c\"}", 200, "\"state\":\"started\"", NULL},
        {0, "POST /api/sandbox", "{\"name\":\"d\"}", 200, "\"state\":\"creating\"", NULL},
        {10000, "POST /api/sandbox", "{\"name\":\"e\",\"env\":{\"A\":\"1\"}}", 200, "creating",
         NULL},
        {0, "POST /api/sandbox", "{\"name\":\"f\"}", 200, "\"state\":\"creating\"", NULL},
        {60000, "POST /api/sandbox", "{\"name\":\"g\",\"env\":{}}", 200, "\"state\":\"started\"",
         NULL});
    talk_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_answers_with_the_state_before_the_wait),
        cmocka_unit_test(create_is_held_for_thirty_seconds_at_most),
        cmocka_unit_test(a_name_is_taken_in_every_state_but_destroying),
        cmocka_unit_test(nothing_can_be_changed_while_it_changes),
        cmocka_unit_test(a_name_that_was_looked_up_stays_missing_for_ten_seconds),
        cmocka_unit_test(a_name_that_only_the_id_was_used_of_is_found_at_once),
        cmocka_unit_test(a_failed_boot_leaves_the_sandbox_behind),
        cmocka_unit_test(a_recoverable_one_recovers),
        cmocka_unit_test(start_waits_and_tells_the_truth_but_for_the_intervals),
        cmocka_unit_test(an_archived_one_starts_late_but_answers_at_once),
        cmocka_unit_test(values_are_judged_as_the_server_judges_them),
        cmocka_unit_test(a_body_that_is_not_called_json_is_ignored),
        cmocka_unit_test(quotas_count_what_runs),
        cmocka_unit_test(the_warm_pool_gives_at_once_unless_it_is_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
