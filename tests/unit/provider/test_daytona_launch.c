/* daytona, LAUNCH: from a sandbox that runs to a server that was started, once. */
#include "tests/unit/provider/launch.h"

/* ---- LAUNCH ---- */

static void a_launch_runs_in_two_slots(void **state)
{
    (void)state;
    fresh(V1_JOB);
    talk(w, {.ask = CREATE_SESSION, .status = 201});
    assert_int_equal(ask(w, 0), ASKED_CALL);
    assert_string_equal(w->call.content_type, "application/json");
    assert_false(w->call.repeatable);
    assert_string_equal(header("Authorization"), "Bearer dtn_test");
    cJSON *body = json_parse_reply(w->call.body, w->call.body_len);
    const char *command = json_str(body, "command", "");
    char key[HMAC_TEXT_SIZE], words[100];
    key_of(w->provider->keys[0], key);
    snprintf(words, sizeof words, "export OH_SESSION_API_KEYS_0=%s; ", key);
    assert_true(json_bool(body, "runAsync", false));
    assert_int_equal(strncmp(command, "sh -c '", 7), 0);
    assert_non_null(strstr(command, words));
    assert_non_null(strstr(command, "' >/tmp/session-worker-server.log 2>&1 </dev/null"));
    assert_string_equal(w->box->session_key, key);
    cJSON_Delete(body);
    talk(w,
         {.slot = 1,
          .ask = PREVIEW,
          .status = 200,
          .body = PREVIEW_OF("8000", "tok-000001"),
          .verdict = AGAIN},
         {.slot = 1,
          .ask = PREVIEW_VSCODE,
          .status = 200,
          .body = PREVIEW_OF("8001", "tok-000001"),
          .verdict = AGAIN},
         {.slot = 1,
          .ask = PREVIEW_APP,
          .status = 200,
          .body = PREVIEW_OF("3000", "tok-000001"),
          .verdict = AGAIN},
         {.slot = 1}, {.ask = EXEC, .status = 202, .body = "{\"cmdId\":\"c-1\"}", .set = SERVER});
    assert_string_equal(w->box->url, "https://8000-box-1.p.example");
    assert_string_equal(w->box->preview_token, "tok-000001");
    assert_string_equal(w->box->vscode_url, "https://8001-box-1.p.example");
    assert_string_equal(w->box->command_id, "c-1");
    assert_int_equal(w->box->n_urls, 3);
    assert_string_equal(w->box->urls[0].name, "AGENT_SERVER");
    assert_string_equal(w->box->urls[1].name, "VSCODE");
    assert_string_equal(w->box->urls[2].name, "APP");
    assert_int_equal(w->box->urls[2].port, 3000);
}

static void the_jobs_own_key_goes_to_the_server(void **state)
{
    (void)state;
    fresh("{\"type\":\"start-session\",\"session_id\":\"s1\",\"session_api_key\":\"k-of-the-job\","
          "\"server\":{\"kind\":\"v1\"}}");
    talk(w, {.ask = CREATE_SESSION, .status = 201});
    assert_int_equal(ask(w, 0), ASKED_CALL);
    assert_non_null(strstr(w->call.body, "export OH_SESSION_API_KEYS_0=k-of-the-job; "));
}

static void without_a_toolbox_url_the_configuration_is_asked(void **state)
{
    static const char dto[] =
        "{\"id\":\"box-1\",\"name\":\"oh.s1\",\"state\":\"started\","
        "\"desiredState\":\"started\",\"autoDeleteInterval\":0,\"labels\":{" OUR_LABELS "}}";
    (void)state;
    w = world_new(JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox", .status = 200, .body = dto, .set = EXISTS | RUNS}, ENTER(LAUNCH),
         {.ask = "GET /config",
          .status = 200,
          .body = "{\"proxyToolboxUrl\":\"http://plain.example\"}",
          .verdict = REFUSE,
          .code = ERR_PROVIDER_PROTOCOL},
         {.ask = "GET /config",
          .status = 429,
          .header = "retry-after",
          .value = "60",
          .verdict = AGAIN,
          .code = ERR_RATE_LIMITED},
         {.ask = "GET /config",
          .status = 200,
          .body = "{\"proxyToolboxUrl\":\"https://tb.example/toolbox/\"}"},
         {.ask = CREATE_SESSION, .status = 201});
}

static void only_expose_needs_urls_without_a_server(void **state)
{
    (void)state;
    fresh("{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"none\","
          "\"expose\":[{\"name\":\"APP\",\"port\":3000}]}}");
    talk(w, {.ask = NULL},
         {.slot = 1,
          .ask = PREVIEW_APP,
          .status = 200,
          .body = PREVIEW_OF("3000", "tok-000001"),
          .set = SERVER | ANSWERS | ACCEPTS});
    assert_null(w->box->url);
    assert_string_equal(w->box->urls[0].url, "https://3000-box-1.p.example");
}

static void a_session_that_is_there_shows_what_runs(void **state)
{
    static const char running[] =
        "{\"sessionId\":\"x\",\"commands\":[{\"id\":\"c-0\",\"exitCode\":3},"
        "{\"id\":\"c-1\",\"command\":\"sh\"}]}";
    static const char history[] = "{\"commands\":[{\"id\":\"c-0\",\"exitCode\":0}]}";
    (void)state;
    fresh(JOB);
    fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), false);
    talk(w,
         {.ask = CREATE_SESSION,
          .status = 409,
          .body = "{\"message\":\"conflict: session already exists\",\"code\":\"CONFLICT\"}"},
         {.ask = READ_SESSION, .status = 200, .body = running, .set = SERVER});
    assert_string_equal(w->box->command_id, "c-1");
    world_free(w);
    fresh(JOB);
    talk(w, {.ask = CREATE_SESSION, .status = 409},
         {.ask = READ_SESSION, .status = 200, .body = history},
         {.ask = EXEC, .status = 202, .body = "{\"cmdId\":\"c-1\"}"});
    world_free(w);
    fresh(JOB);
    talk(w, {.ask = CREATE_SESSION, .status = 409},
         {.ask = READ_SESSION,
          .status = 200,
          .body = "[]",
          .verdict = RETRY,
          .code = ERR_PROVIDER_PROTOCOL},
         {.ask = READ_SESSION,
          .status = 200,
          .body = "{\"commands\":[{\"id\":\"a/b\"}]}",
          .verdict = RETRY,
          .code = ERR_PROVIDER_PROTOCOL},
         {.ask = READ_SESSION, .status = 404, .body = ERROR(404, "not found: session not found")},
         {.ask = CREATE_SESSION, .status = 201});
}

static void a_lost_exec_is_never_repeated_blindly(void **state)
{
    static const struct line lost[] = {
        {.ask = EXEC, .fault = FAULT_LOST, .verdict = RETRY, .code = ERR_PROVIDER_UNAVAILABLE},
        {.ask = EXEC,
         .status = 200,
         .body = "what?",
         .verdict = RETRY,
         .code = ERR_PROVIDER_PROTOCOL},
        {.ask = EXEC, .status = 502, .verdict = AGAIN, .code = ERR_LAUNCH_FAILED},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lost); i++) {
        fresh(JOB);
        fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), false);
        talk(w, {.ask = CREATE_SESSION, .status = 201}, lost[i],
             {.ask = READ_SESSION, .status = 200, .body = "{\"commands\":[]}"}, /* it did not run */
             lost[i], /* it did, and has died already: ours all the same */
             {.ask = READ_SESSION,
              .status = 200,
              .body = "{\"commands\":[{\"id\":\"c-1\",\"exitCode\":127}]}",
              .set = SERVER},
             ENTER(PROBE),
             {.slot = 1,
              .ask = COMMAND,
              .status = 200,
              .body = "{\"id\":\"c-1\",\"exitCode\":127}",
              .verdict = AGAIN},
             {.slot = 1, .ask = UP, .status = 502, .verdict = AGAIN},
             {.slot = 1,
              .ask = TAIL,
              .status = 200,
              .body = "{\"exitCode\":0,\"result\":\"sh: serve: not found\"}",
              .verdict = REFUSE,
              .code = ERR_BAD_COMMAND,
              .says = "127"});
        assert_string_equal(w->box->log_tail, "sh: serve: not found");
        world_free(w);
    }
    fresh(JOB);
    talk(w, {.ask = CREATE_SESSION, .status = 201},
         {.ask = EXEC, .fault = FAULT_CONNECT, .verdict = RETRY, .code = ERR_PROVIDER_UNAVAILABLE},
         {.ask = EXEC, .status = 202, .body = "{\"cmdId\":\"c-1\"}"});
}

static void a_dead_session_is_made_anew_once(void **state)
{
    static const char *const deaths[] = {
        "{\"statusCode\":500,\"message\":\"failed to execute command: not found: session not "
        "found\"}",
        "{\"message\":\"failed to execute command: bad request: failed to write command: write |1: "
        "broken pipe\"}"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(deaths); i++) {
        fresh(JOB);
        talk(w, {.ask = CREATE_SESSION, .status = 201},
             {.ask = EXEC, .status = 500, .body = deaths[i]},
             {.ask = DELETE_SESSION,
              .status = i ? 204 : 404,
              .body = i ? NULL : ERROR(404, "not found: session not found")},
             {.ask = CREATE_SESSION, .status = 201},
             {.ask = EXEC,
              .status = 500,
              .body = deaths[i],
              .verdict = REFUSE,
              .code = ERR_LAUNCH_FAILED});
        world_free(w);
    }
    fresh(JOB);
}

static void a_toolbox_that_is_not_up_is_waited_for(void **state)
{
    static const struct line not_up[] = {
        {.status = 502},
        {.status = 400,
         .body = ERROR(400, "bad request: failed to resolve container IP. Is the "
                            "Sandbox started?")},
        {.status = 400, .body = ERROR(400, "bad request: failed to get runner info: x")},
        {.status = 400, .body = ERROR(400, "Sandbox is not running")},
        {.status = 404, .body = ERROR(404, "not found: sandbox container not found: x")},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(not_up); i++) {
        struct line l = not_up[i];
        fresh(JOB);
        l.ask = CREATE_SESSION;
        l.verdict = AGAIN;
        l.code = ERR_LAUNCH_FAILED;
        l.after_ms = 100;
        talk_line(w, &l);
        l.after_ms = 150;
        l.wait_ms = 5000;
        talk_line(w, &l);
        talk(
            w, /* and now and then the sandbox is looked at */
            {.ask = BY_ID, .status = 200, .body = DTO("started", "started", "0"), .verdict = AGAIN},
            {.ask = CREATE_SESSION, .status = 502, .verdict = AGAIN, .code = ERR_LAUNCH_FAILED},
            {.ask = CREATE_SESSION,
             .wait_ms = 5000,
             .status = 502,
             .verdict = AGAIN,
             .code = ERR_LAUNCH_FAILED},
            {.ask = BY_ID,
             .status = 200,
             .body = DTO("resizing", "resized", "0"),
             .verdict = AGAIN,
             .code = ERR_START_TIMEOUT},
            {.ask = BY_ID,
             .status = 404,
             .body = NOT_FOUND,
             .verdict = LOST,
             .code = ERR_CREATE_FAILED});
        world_free(w);
    }
    fresh(JOB);
}

static void a_401_of_the_toolbox_may_be_a_missing_sandbox(void **state)
{
    (void)state;
    fresh(JOB);
    w->box->started_here = true;
    talk(w, {.ask = CREATE_SESSION,
             .status = 401,
             .body = ERROR(401, "unauthorized: bearer token"),
             .verdict = AGAIN,
             .code = ERR_UNAUTHORIZED,
             .after_ms = 5000});
    assert_false(w->answer.rate.unauthorized); /* the key is the API's to refuse */
    talk(w, {.ask = BY_ID, .status = 200, .body = DTO("started", "started", "0"), .verdict = AGAIN},
         {.ask = CREATE_SESSION, .status = 401, .verdict = AGAIN, .code = ERR_UNAUTHORIZED},
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("destroying", "destroyed", "0"),
          .verdict = LOST,
          .code = ERR_START_FAILED});
}

static void what_a_launch_refuses(void **state)
{
    (void)state;
    fresh(JOB);
    talk(w,
         {.ask = CREATE_SESSION,
          .status = 500,
          .body = ERROR(500, "mkdir: file name too long"),
          .verdict = RETRY,
          .code = ERR_LAUNCH_FAILED},
         {.ask = CREATE_SESSION, .status = 429, .verdict = AGAIN, .code = ERR_RATE_LIMITED},
         {.ask = CREATE_SESSION,
          .status = 400,
          .body = ERROR(400, "session ID is reserved"),
          .verdict = REFUSE,
          .code = ERR_LAUNCH_FAILED},
         {.ask = CREATE_SESSION, .status = 201},
         {.ask = EXEC, .status = 400, .verdict = REFUSE, .code = ERR_LAUNCH_FAILED});
}

static void a_hostile_preview_gets_nothing(void **state)
{
    static const char *const bodies[] = {
        "{\"url\":\"ftp://x\",\"token\":\"t\"}",
        "{\"url\":\"http://8000-box-1.p.example\",\"token\":\"t\"}",
        "{\"url\":\"https://u:p@8000-box-1.p.example\",\"token\":\"t\"}",
        "{\"url\":\"https://x.example/a b\",\"token\":\"t\"}",
        "{\"url\":\"https://x.example/\\r\\nHost: y\",\"token\":\"t\"}",
        "{\"url\":\"https://\",\"token\":\"t\"}",
        "{\"url\":\"https:///x\",\"token\":\"t\"}",
        "{\"url\":\"https://x.example#y\",\"token\":\"t\"}",
        "{\"url\":\"https://x.example\",\"token\":\"a\\nb\"}",
        "{\"token\":\"t\"}",
    };
    (void)state;
    fresh(JOB);
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
        talk(w, {.slot = 1,
                 .ask = PREVIEW,
                 .status = 200,
                 .body = bodies[i],
                 .verdict = REFUSE,
                 .code = ERR_PROVIDER_PROTOCOL});
    talk(w,
         {.slot = 1,
          .ask = PREVIEW,
          .status = 200,
          .body = "<html>",
          .verdict = RETRY,
          .code = ERR_PROVIDER_PROTOCOL},
         {.slot = 1,
          .ask = PREVIEW,
          .status = 404,
          .body = NOT_FOUND,
          .verdict = LOST,
          .code = ERR_START_FAILED});
}

static void after_a_start_the_token_is_a_second_old(void **state)
{
    (void)state;
    w = world_new(JOB);
    talk(w, ENTER(FIND),
         {.ask = "GET /sandbox/oh.s1",
          .status = 200,
          .body = DTO("stopped", "stopped", "-1"),
          .set = LOOKED | EXISTS | KEPT},
         ENTER(START),
         {.ask = "POST /sandbox/box-1/start",
          .status = 200,
          .body = DTO("started", "started", "-1"),
          .set = RUNS,
          .clear = SERVER | ANSWERS},
         ENTER(LAUNCH),
         {.slot = 1,
          .ask = PREVIEW,
          .status = 200,
          .body = PREVIEW_OF("8000", "tok-of-before"),
          .verdict = AGAIN,
          .after_ms = 1250},
         {.slot = 1,
          .wait_ms = 1300,
          .ask = PREVIEW,
          .status = 200,
          .body = PREVIEW_OF("8000", "tok-of-after"),
          .verdict = AGAIN},
         {.ask = CREATE_SESSION, .status = 201});
    assert_string_equal(w->box->preview_token, "tok-of-after");
}

/* ---- a server may run already ---- */

static void a_running_server_is_found_by_a_probe(void **state)
{
    (void)state;
    found_running(JOB);
    talk(w, {.ask = NULL}, /* the url comes first */
         {.slot = 1,
          .ask = PREVIEW,
          .status = 200,
          .body = PREVIEW_OF("8000", "tok-000001"),
          .verdict = AGAIN},
         {.ask = UP, .status = 200, .body = HEALTHY, .set = SERVER | ANSWERS});
    assert_null(w->box->command_id);
    world_free(w);
    found_running(V1_JOB); /* an old one has no /ready */
    fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), false);
    fetch(PREVIEW_VSCODE, PREVIEW_OF("8001", "tok-000001"), false);
    talk(w, {.ask = READY, .status = 404, .body = "{\"detail\":\"Not Found\"}", .verdict = AGAIN},
         {.ask = ALIVE, .status = 200, .body = "{\"status\":\"ok\"}"});
    assert_false(w->facts & SERVER);
    fetch(PREVIEW_APP, PREVIEW_OF("3000", "tok-000001"), true);
}

static void where_nothing_answers_one_is_started(void **state)
{
    static const struct line nothing[] = {
        {.ask = UP, .status = 502},
        {.ask = UP, .status = 200, .body = "{\"ok\":false}"},
        {.ask = UP, .status = 500},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(nothing); i++) {
        found_running(JOB);
        fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), false);
        talk(w, nothing[i], {.ask = CREATE_SESSION, .status = 201},
             {.ask = EXEC, .status = 202, .body = "{\"cmdId\":\"c-1\"}", .set = SERVER});
        world_free(w);
    }
    found_running(JOB);
    fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), false);
    talk(
        w, /* no answer at all is no sign of no server, but not for ever */
        {.ask = UP, .fault = FAULT_TIMEOUT, .verdict = AGAIN, .code = ERR_SERVER_TIMEOUT},
        {.ask = UP, .status = 307, .verdict = AGAIN},
        {.ask = PREVIEW, .status = 200, .body = PREVIEW_OF("8000", "tok-000002"), .verdict = AGAIN},
        {.ask = UP, .fault = FAULT_CONNECT, .verdict = AGAIN, .code = ERR_SERVER_TIMEOUT},
        {.ask = UP, .fault = FAULT_LOST}, {.ask = CREATE_SESSION, .status = 201});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_launch_runs_in_two_slots, teardown),
        cmocka_unit_test_teardown(the_jobs_own_key_goes_to_the_server, teardown),
        cmocka_unit_test_teardown(without_a_toolbox_url_the_configuration_is_asked, teardown),
        cmocka_unit_test_teardown(only_expose_needs_urls_without_a_server, teardown),
        cmocka_unit_test_teardown(a_session_that_is_there_shows_what_runs, teardown),
        cmocka_unit_test_teardown(a_lost_exec_is_never_repeated_blindly, teardown),
        cmocka_unit_test_teardown(a_dead_session_is_made_anew_once, teardown),
        cmocka_unit_test_teardown(a_toolbox_that_is_not_up_is_waited_for, teardown),
        cmocka_unit_test_teardown(a_401_of_the_toolbox_may_be_a_missing_sandbox, teardown),
        cmocka_unit_test_teardown(what_a_launch_refuses, teardown),
        cmocka_unit_test_teardown(a_hostile_preview_gets_nothing, teardown),
        cmocka_unit_test_teardown(after_a_start_the_token_is_a_second_old, teardown),
        cmocka_unit_test_teardown(a_running_server_is_found_by_a_probe, teardown),
        cmocka_unit_test_teardown(where_nothing_answers_one_is_started, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
