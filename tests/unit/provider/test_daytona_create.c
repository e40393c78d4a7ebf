/* daytona, CREATE: one sandbox per session, whatever gets lost on the way. */
#include "tests/unit/provider/box.h"

/* ---- CREATE ---- */

static const cJSON *sent(void)
{
    static cJSON *tree;
    cJSON_Delete(tree);
    tree = w->call.body ? json_parse_reply(w->call.body, w->call.body_len) : NULL;
    return tree;
}

static void create_says_all_that_matters(void **state)
{
    (void)state;
    w = world_new("{\"type\":\"start-session\",\"session_id\":\"s1\",\"tenant\":\"acme\","
                  "\"timeout_seconds\":601,\"sandbox\":{\"snapshot\":\"oh-v1\",\"public\":true,"
                  "\"os_user\":\"root\",\"labels\":{\"team\":\"a\\\"b\"},\"auto_stop_minutes\":3,"
                  "\"auto_archive_minutes\":500,\"auto_delete_minutes\":99,"
                  "\"volumes\":[{\"id\":\"v1\",\"mount_path\":\"/data\",\"subpath\":\"x\"}]}}");
    talk(w, ENTER(CREATE));
    assert_int_equal(ask(w, 0), ASKED_CALL);
    assert_string_equal(w->call.content_type, "application/json");
    assert_string_equal(header("Authorization"), "Bearer dtn_test");
    assert_string_equal(header("X-Daytona-Source"), "session-worker");
    assert_true(w->call.timeout_ms >= 45000 && !w->call.repeatable);
    assert_true(w->provider->ops->scopes[w->call.scope].creates);
    char *wanted = xasprintf(
        "{\"name\":\"oh.s1\",\"labels\":{\"team\":\"a\\\"b\",\"OpenHands_SID\":\"s1\","
        "\"session-worker/fleet\":\"oh\",\"session-worker/partition\":\"session-jobs/3\","
        "\"session-worker/job\":\"session-jobs/3/42\",\"session-worker/spec\":\"%s\","
        "\"session-worker/key\":\"%s\",\"session-worker/tenant\":\"acme\"},"
        "\"autoStopInterval\":16,\"autoArchiveInterval\":500,\"autoDeleteInterval\":0,"
        "\"target\":\"us\",\"snapshot\":\"oh-v1\",\"volumes\":[{\"volumeId\":\"v1\","
        "\"mountPath\":\"/data\",\"subpath\":\"x\"}],\"user\":\"root\",\"public\":true}",
        w->job->spec_hash, json_str(json_get(sent(), "labels"), "session-worker/key", ""));
    assert_string_equal(w->call.body, wanted);
    free(wanted);
}

static void create_from_an_image(void **state)
{
    (void)state;
    w = world_new(
        "{\"type\":\"start-session\",\"session_id\":\"s1\",\"session_api_key\":\"k-123456\","
        "\"sandbox\":{\"image\":\"python:3.12\",\"target\":\"eu\",\"auto_stop_minutes\":0,"
        "\"resources\":{\"cpu\":2,\"memory_gib\":4,\"disk_gib\":5}}}");
    talk(w, ENTER(CREATE));
    assert_int_equal(ask(w, 0), ASKED_CALL);
    const cJSON *body = sent();
    assert_string_equal(json_str(json_get(body, "buildInfo"), "dockerfileContent", ""),
                        "FROM python:3.12\n");
    assert_int_equal(json_int(body, "cpu", 0), 2);
    assert_int_equal(json_int(body, "memory", 0), 4);
    assert_int_equal(json_int(body, "disk", 0), 5);
    assert_int_equal(json_int(body, "autoStopInterval", 0), 10); /* never is not for provisional */
    assert_string_equal(json_str(body, "target", ""), "eu");
    assert_string_equal(json_str(json_get(body, "labels"), "session-worker/key", ""), "job");
    assert_null(json_get(body, "snapshot"));
    free(w->job->sandbox.image);
    w->job->sandbox.image = xstrdup("x\nRUN evil");
    assert_int_equal(ask(w, 0), ASKED_REFUSED);
    assert_int_equal(w->answer.code, ERR_INVALID_JOB);
}

static void create_with_the_configured_snapshot_and_no_stolen_labels(void **state)
{
    static const char *const sets[] = {"fleet=oh", "sandbox.snapshot=standard"};
    (void)state;
    w = xcalloc(1, sizeof *w);
    world_init(w, START_JOB, sets, ARRAY_LEN(sets));
    free(w->job->sandbox.labels);
    w->job->sandbox.labels = xcalloc(2, sizeof *w->job->sandbox.labels);
    w->job->sandbox.n_labels = 2;
    w->job->sandbox.labels[0] = (struct pair){xstrdup("OpenHands_SID"), xstrdup("s9")};
    w->job->sandbox.labels[1] = (struct pair){xstrdup("session-worker/job"), xstrdup("x")};
    talk(w, ENTER(CREATE));
    assert_int_equal(ask(w, 0), ASKED_CALL);
    assert_string_equal(json_str(sent(), "snapshot", ""), "standard");
    assert_null(strstr(w->call.body, "s9"));
    assert_null(strstr(w->call.body, "\"x\""));
}

static void a_held_create_says_creating_and_a_pool_says_started(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO("creating", "started", "0"),
          .set = EXISTS});
    assert_true(w->box->mine && !w->box->warm && w->box->provisional);
    world_free(w);
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO("started", "started", "0"),
          .set = EXISTS | RUNS});
    assert_true(w->box->warm);
}

static void create_409_adopts_by_name_after_a_stale_404(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 409,
          .body = ERROR(409, "Sandbox with name oh.s1 already exists")},
         {.ask = NAME,
          .status = 404,
          .body = NOT_FOUND,
          .verdict = AGAIN,
          .code = ERR_CREATE_FAILED,
          .after_ms = 200},
         {.ask = NAME,
          .wait_ms = 11000,
          .status = 404,
          .body = NOT_FOUND,
          .verdict = AGAIN,
          .code = ERR_CREATE_FAILED},
         {.ask = NAME,
          .status = 200,
          .body = DTO_OF("box-1", "oh.s1", "started", "started", "60", "-1", OTHER_LABELS, ""),
          .set = EXISTS | RUNS | KEPT});
    assert_false(w->box->mine);
}

static void create_409_and_12_s_of_404_posts_again(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE), {.ask = "POST /sandbox", .status = 409, .body = ERROR(409, "exists")},
         {.ask = NAME, .wait_ms = 12000, .status = 404, .body = NOT_FOUND},
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO("creating", "started", "0"),
          .set = EXISTS});
}

static void a_lost_create_is_looked_up_before_it_is_repeated(void **state)
{
    static const enum fault faults[] = {FAULT_LOST, FAULT_TIMEOUT, FAULT_TOO_LARGE};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        w = world_new(START_JOB);
        talk(w, ENTER(CREATE),
             {.ask = "POST /sandbox",
              .fault = faults[i],
              .verdict = RETRY,
              .code = ERR_PROVIDER_UNAVAILABLE},
             {.ask = NAME,
              .status = 200,
              .body = DTO("started", "started", "0"),
              .set = EXISTS | RUNS});
        assert_true(w->box->mine);
        world_free(w);
    }
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 503,
          .body = ERROR(503, "Service is currently under maintenance."),
          .verdict = RETRY,
          .code = ERR_PROVIDER_UNAVAILABLE,
          .says = "maintenance"},
         {.ask = NAME, .status = 404, .body = NOT_FOUND},
         {.ask = "POST /sandbox", /* nothing was sent: nothing to look for */
          .fault = FAULT_CONNECT,
          .verdict = RETRY,
          .code = ERR_PROVIDER_UNAVAILABLE},
         {.ask = "POST /sandbox", .fault = FAULT_REFUSED, .verdict = REFUSE, .code = ERR_INTERNAL});
}

static void after_a_lost_create_a_lack_of_room_is_no_answer(void **state)
{
    static const char *const bodies[] = {
        ERROR(400, "No available runners"),
        ERROR(400, "Total CPU limit exceeded. Maximum allowed: 1."),
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        w = world_new(START_JOB);
        talk(w, ENTER(CREATE),
             {.ask = "POST /sandbox",
              .fault = FAULT_LOST,
              .verdict = RETRY,
              .code = ERR_PROVIDER_UNAVAILABLE},
             {.ask = NAME, .status = 404, .body = NOT_FOUND},
             {.ask = "POST /sandbox", .status = 400, .body = bodies[i]},
             {.ask = NAME, .status = 200, .body = DTO("creating", "started", "0"), .set = EXISTS});
        world_free(w);
    }
    w = world_new(START_JOB);
}

static void failed_to_start_has_left_a_sandbox_behind(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 400,
          .body = ERROR(400, "Sandbox failed to start: no space left")},
         {.ask = NAME,
          .status = 200,
          .body = DTO_OF("box-1", "oh.s1", "error", "started", "60", "0", OUR_LABELS,
                         "\"errorReason\":\"no space left\","),
          .verdict = LOST,
          .code = ERR_CREATE_FAILED,
          .says = "no space left"});
    assert_string_equal(w->box->id, "box-1");
    assert_true(w->box->provisional && w->box->state == BOX_ERROR);
    talk(w, ENTER(STOP), /* which frees the name */
         {.ask = "DELETE /sandbox/box-1",
          .status = 200,
          .body = DTO("error", "destroyed", "0"),
          .set = RESTS | GONE});
    world_free(w);
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox", .status = 400, .body = ERROR(400, "Sandbox failed to start: x")},
         {.ask = NAME,
          .status = 404,
          .body = NOT_FOUND,
          .verdict = LOST,
          .code = ERR_CREATE_FAILED});
    assert_null(w->box->id);
}

static void no_room_here_tries_the_next_target_at_once(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE), /* targets us, eu */
         {.ask = "POST /sandbox",
          .status = 400,
          .body = ERROR(400, "No available runners"),
          .verdict = AGAIN});
    assert_true(w->answer.after_ms <= 1);
    assert_int_equal(ask(w, 0), ASKED_CALL);
    assert_string_equal(json_str(sent(), "target", ""), "eu");
    talk(w,
         {.ask = "POST /sandbox",
          .status = 400,
          .body = ERROR(400, "No available runners"),
          .verdict = AGAIN,
          .code = ERR_NO_CAPACITY,
          .after_ms = 1000,
          .says = "No available runners"},
         {.ask = "POST /sandbox",
          .status = 400,
          .body = ERROR(400, "No available runners"),
          .verdict = AGAIN},
         {.ask = "POST /sandbox", /* a target that this account has not got is no verdict then */
          .status = 403,
          .body = ERROR(403, "Region eu is not available to the organization"),
          .verdict = AGAIN,
          .code = ERR_NO_CAPACITY,
          .after_ms = 2000});
}

static void a_target_that_is_not_there_fails_when_no_other_is(void **state)
{
    static const struct line refusals[] = {
        {.status = 404, .body = ERROR(404, "Region not found"), .code = ERR_CREATE_FAILED},
        {.status = 403,
         .body = ERROR(403, "Region us is not available to the organization"),
         .code = ERR_FORBIDDEN},
        {.status = 400,
         .body = ERROR(400, "Snapshot oh-v1 is not available in region us"),
         .code = ERR_SNAPSHOT_NOT_FOUND},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        struct line first = refusals[i], second = refusals[i];
        w = world_new(START_JOB);
        enter(w, CREATE);
        first.ask = second.ask = "POST /sandbox";
        first.verdict = AGAIN;
        first.code = ERR_NONE;
        second.verdict = REFUSE;
        talk_line(w, &first);
        talk_line(w, &second);
        world_free(w);
    }
    w = world_new(START_JOB);
}

static void what_create_refuses(void **state)
{
    static const struct line refusals[] = {
        {.status = 400,
         .body = ERROR(400, "Snapshot nope not found. Did you add it?"),
         .code = ERR_SNAPSHOT_NOT_FOUND,
         .verdict = REFUSE},
        {.status = 400,
         .body = ERROR(400, "Snapshot x is pulling"),
         .code = ERR_SNAPSHOT_NOT_FOUND,
         .verdict = AGAIN,
         .after_ms = 1000},
        {.status = 400,
         .body = ERROR(400, "CPU request 64 exceeds maximum allowed per sandbox (4)."),
         .code = ERR_QUOTA_EXCEEDED,
         .verdict = REFUSE},
        {.status = 400,
         .body = ERROR(400, "Total disk limit exceeded. Maximum allowed: 1GiB."),
         .code = ERR_QUOTA_EXCEEDED,
         .verdict = AGAIN,
         .after_ms = 10000},
        {.status = 400,
         .body = ERROR(400, "Cannot specify Sandbox resources when using a snapshot"),
         .code = ERR_CREATE_FAILED,
         .verdict = REFUSE},
        {.status = 400,
         .body = "{\"message\":[\"labels must be an object\",\"x\"]}",
         .code = ERR_CREATE_FAILED,
         .verdict = REFUSE,
         .says = "labels must be an object, x"},
        {.status = 404,
         .body = ERROR(404, "Volume 'nope' not found"),
         .code = ERR_CREATE_FAILED,
         .verdict = REFUSE,
         .says = "Volume"},
        {.status = 404,
         .body = ERROR(404, "Cannot POST /api/sandbox"),
         .code = ERR_CREATE_FAILED,
         .verdict = REFUSE},
        {.status = 403,
         .body = ERROR(403, "Organization is suspended: Credits depleted"),
         .code = ERR_FORBIDDEN,
         .verdict = REFUSE,
         .says = "Credits depleted"},
        {.status = 401,
         .body = ERROR(401, "Invalid credentials"),
         .code = ERR_UNAUTHORIZED,
         .verdict = AGAIN,
         .after_ms = 1000},
        {.status = 302,
         .type = "text/html",
         .body = "<html>moved</html>",
         .code = ERR_PROVIDER_PROTOCOL,
         .verdict = REFUSE},
        {.status = 402, .code = ERR_CREATE_FAILED, .verdict = REFUSE},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        struct line l = refusals[i];
        w = world_new(START_JOB);
        enter(w, CREATE);
        w->row = (int)i;
        l.ask = "POST /sandbox";
        talk_line(w, &l);
        assert_int_equal(w->answer.http_status, l.status);
        assert_int_equal(w->answer.rate.unauthorized, l.status == 401);
        world_free(w);
    }
    w = world_new(START_JOB);
}

static void quota_backs_off_from_10_to_60_s(void **state)
{
    const struct line full = {.ask = "POST /sandbox",
                              .status = 400,
                              .body = ERROR(400, "Total CPU limit exceeded."),
                              .verdict = AGAIN,
                              .code = ERR_QUOTA_EXCEEDED};
    static const uint32_t pauses[] = {10000, 20000, 40000, 60000, 60000};
    (void)state;
    w = world_new(START_JOB);
    enter(w, CREATE);
    for (size_t i = 0; i < ARRAY_LEN(pauses); i++) {
        talk_line(w, &full);
        assert_int_equal(w->answer.after_ms, pauses[i]);
    }
}

static void a_create_that_makes_no_sense_is_looked_up(void **state)
{
    static const char *const bodies[] = {
        "",
        "<html>",
        "[]",
        "{}",
        "{\"id\":5}",
        "{\"id\":\"../../x\",\"name\":\"oh.s1\"}",
        "{\"id\":\"b\",\"name\":\"oh.s1\",\"toolboxProxyUrl\":\"http://plain.example\"}",
        "{\"id\":\"b\",\"name\":\"oh.s1\",\"toolboxProxyUrl\":\"https://u@evil.example\"}",
        "{\"id\":\"b\",\"name\":\"oh.s1\",\"toolboxProxyUrl\":\"ftp://x\"}",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        w = world_new(START_JOB);
        talk(w, ENTER(CREATE),
             {.ask = "POST /sandbox",
              .status = 200,
              .body = bodies[i],
              .verdict = RETRY,
              .code = ERR_PROVIDER_PROTOCOL},
             {.ask = NAME, .status = 404, .body = NOT_FOUND});
        world_free(w);
    }
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE), /* the body was not read: an anonymous sandbox */
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO_OF("box-9", "box-9", "creating", "started", "15", "-1", "", ""),
          .verdict = REFUSE,
          .code = ERR_PROVIDER_PROTOCOL,
          .says = "box-9"});
    assert_null(w->box->id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(create_says_all_that_matters, teardown),
        cmocka_unit_test_teardown(create_from_an_image, teardown),
        cmocka_unit_test_teardown(create_with_the_configured_snapshot_and_no_stolen_labels,
                                  teardown),
        cmocka_unit_test_teardown(a_held_create_says_creating_and_a_pool_says_started, teardown),
        cmocka_unit_test_teardown(create_409_adopts_by_name_after_a_stale_404, teardown),
        cmocka_unit_test_teardown(create_409_and_12_s_of_404_posts_again, teardown),
        cmocka_unit_test_teardown(a_lost_create_is_looked_up_before_it_is_repeated, teardown),
        cmocka_unit_test_teardown(after_a_lost_create_a_lack_of_room_is_no_answer, teardown),
        cmocka_unit_test_teardown(failed_to_start_has_left_a_sandbox_behind, teardown),
        cmocka_unit_test_teardown(no_room_here_tries_the_next_target_at_once, teardown),
        cmocka_unit_test_teardown(a_target_that_is_not_there_fails_when_no_other_is, teardown),
        cmocka_unit_test_teardown(what_create_refuses, teardown),
        cmocka_unit_test_teardown(quota_backs_off_from_10_to_60_s, teardown),
        cmocka_unit_test_teardown(a_create_that_makes_no_sense_is_looked_up, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
