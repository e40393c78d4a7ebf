/* daytona, PROBE: does the server answer, has it died, does it know our key? */
#include "tests/unit/provider/launch.h"

/* ---- PROBE ---- */

static void a_probe_says_what_the_proxy_wants_and_no_more(void **state)
{
    (void)state;
    launched(JOB);
    assert_int_equal(ask(w, 0), ASKED_CALL);
    assert_string_equal(header("X-Daytona-Preview-Token"), "tok-000001");
    assert_string_equal(header("X-Daytona-Skip-Preview-Warning"), "true");
    assert_string_equal(header("X-Daytona-Skip-Last-Activity-Update"), "true");
    assert_string_equal(header("Authorization"), "");
    assert_string_equal(header("X-Session-API-Key"), "");
    assert_true(w->call.own_host && !w->call.close_on_2xx && w->call.scope == SCOPE_FREE);
}

static void ready_is_the_right_body_only(void **state)
{
    static const char *const wrong[] = {"",
                                        "ok",
                                        "[]",
                                        "{}",
                                        "{\"ok\":true}",
                                        "{\"ok\":true,\"v\":{\"a\":2,\"b\":[1,2]}}",
                                        "{\"ok\":\"true\",\"v\":{\"a\":2,\"b\":[1]}}",
                                        "<html><title>warning</title></html>"};
    (void)state;
    launched(JOB);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        talk(w, {.ask = UP,
                 .status = 200,
                 .body = wrong[i],
                 .verdict = AGAIN,
                 .code = ERR_UNHEALTHY,
                 .says = "wrong body"});
    talk(w, {.ask = UP, .status = 503, .body = HEALTHY, .verdict = AGAIN, .code = ERR_UNHEALTHY},
         {.ask = UP, .status = 200, .body = HEALTHY, .set = ANSWERS});
}

static void without_a_health_body_any_2xx_but_html_will_do(void **state)
{
    (void)state;
    launched("{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"custom\","
             "\"port\":8000,\"command\":[\"serve\"]}}");
    talk(w,
         {.ask = "GET https://8000-box-1.p.example/",
          .status = 200,
          .type = "Text/HTML; charset=utf-8",
          .verdict = AGAIN,
          .code = ERR_UNHEALTHY},
         {.ask = "GET https://8000-box-1.p.example/",
          .status = 204,
          .type = "text/plain",
          .set = ANSWERS});
}

static void v0_may_say_that_it_is_not_initialized(void **state)
{
    (void)state;
    launched(V0_JOB);
    talk(w,
         {.ask = ALIVE,
          .status = 200,
          .body = "{\"status\":\"not initialized\"}",
          .verdict = AGAIN,
          .code = ERR_UNHEALTHY},
         {.ask = ALIVE, .status = 200, .body = "{\"status\":\"ok\"}", .set = ANSWERS});
}

static void v1_is_ready_or_before_that_alive(void **state)
{
    (void)state;
    launched(V1_JOB);
    talk(w, {.ask = READY, .status = 502, .verdict = AGAIN, .code = ERR_SERVER_TIMEOUT},
         {.ask = READY,
          .status = 503,
          .body = "{\"status\":\"initializing\"}",
          .verdict = AGAIN,
          .code = ERR_UNHEALTHY},
         {.ask = READY, .status = 404, .body = "{\"detail\":\"Not Found\"}", .verdict = AGAIN},
         {.ask = ALIVE, .status = 404, .verdict = AGAIN, .code = ERR_UNHEALTHY},
         {.ask = READY, .status = 200, .body = "{\"status\":\"ready\"}", .set = ANSWERS});
}

static void probes_go_from_50_to_500_ms(void **state)
{
    const struct line silent = {
        .ask = UP, .status = 502, .verdict = AGAIN, .code = ERR_SERVER_TIMEOUT};
    (void)state;
    launched(JOB);
    talk_line(w, &silent);
    assert_int_equal(w->answer.after_ms, 50);
    for (int i = 0; i < 10; i++)
        talk_line(w, &silent);
    assert_int_equal(w->answer.after_ms, 500);
}

static void a_redirect_is_never_followed(void **state)
{
    const struct line refused = {.ask = UP,
                                 .status = 307,
                                 .header = "location",
                                 .value = "https://oidc.example/auth",
                                 .verdict = AGAIN};
    (void)state;
    launched(JOB);
    talk(w, refused,
         {.ask = PREVIEW,
          .status = 200,
          .body = PREVIEW_OF("8000", "tok-000002"),
          .verdict = AGAIN}, /* a new token: at once */
         refused,
         {.ask = PREVIEW,
          .status = 200,
          .body = PREVIEW_OF("8000", "tok-000002"),
          .verdict = AGAIN,
          .code = ERR_UNAUTHORIZED,
          .after_ms = 6000}, /* the same: later */
         refused,
         {.ask = PREVIEW,
          .status = 200,
          .body = PREVIEW_OF("8000", "tok-000002"),
          .verdict = AGAIN,
          .code = ERR_UNAUTHORIZED},
         {.ask = UP, .status = 302, .verdict = AGAIN, .code = ERR_UNAUTHORIZED, .after_ms = 6000},
         {.ask = UP, .wait_ms = 6000, .status = 307, .verdict = AGAIN, .code = ERR_UNAUTHORIZED},
         {.ask = BY_ID,
          .status = 404,
          .body = NOT_FOUND,
          .verdict = LOST,
          .code = ERR_CREATE_FAILED});
    assert_int_equal(w->box->n_urls, 1);
}

static void a_sandbox_that_stops_looks_like_a_slow_one_for_5_s(void **state)
{
    (void)state;
    launched(JOB);
    w->box->started_here = true;
    talk(w, {.ask = UP, .status = 502, .verdict = AGAIN, .code = ERR_SERVER_TIMEOUT},
         {.ask = UP,
          .wait_ms = 5000,
          .fault = FAULT_TIMEOUT,
          .verdict = AGAIN,
          .code = ERR_SERVER_TIMEOUT},
         {.ask = BY_ID, .status = 200, .body = DTO("started", "started", "0"), .verdict = AGAIN},
         {.ask = UP, .status = 400, .wait_ms = 4999, .verdict = AGAIN, .code = ERR_UNHEALTHY},
         {.ask = UP, .status = 502, .wait_ms = 1, .verdict = AGAIN, .code = ERR_SERVER_TIMEOUT},
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("stopped", "stopped", "-1"),
          .verdict = LOST,
          .code = ERR_START_FAILED,
          .says = "stopped"});
}

/* ---- the exit code ---- */

static void a_server_that_exits_is_reported_with_its_log(void **state)
{
    (void)state;
    launched(JOB);
    talk(w,
         {.slot = 1,
          .ask = COMMAND,
          .status = 200,
          .body = "{\"id\":\"c-1\"}",
          .verdict = AGAIN,
          .after_ms = 500},
         {.slot = 1, .ask = COMMAND, .fault = FAULT_LOST, .verdict = AGAIN, .after_ms = 500},
         {.slot = 1, .ask = COMMAND, .status = 502, .verdict = AGAIN},
         {.slot = 1,
          .ask = COMMAND,
          .status = 404,
          .verdict = AGAIN,
          .body = ERROR(404, "not found: sandbox container not found")},
         {.slot = 1,
          .ask = COMMAND,
          .status = 200,
          .body = "{\"id\":\"c-1\",\"exitCode\":3}",
          .verdict = AGAIN},
         {.slot = 1, .ask = UP, .status = 502, .verdict = AGAIN});
    assert_int_equal(ask(w, 1), ASKED_CALL);
    assert_string_equal(w->call.body,
                        "{\"command\":\"tail -c 36864 /tmp/session-worker-server.log\","
                        "\"timeout\":10}");
    talk(w, {.slot = 1,
             .ask = TAIL,
             .status = 200,
             .body = "{\"exitCode\":0,\"result\":\"Traceback\"}",
             .verdict = REFUSE,
             .code = ERR_SERVER_EXITED,
             .says = "code 3"});
    assert_string_equal(w->box->log_tail, "Traceback");
    assert_true(w->box->exited && w->box->exit_code == 3);
    assert_int_equal(w->answer.http_status, 0);
}

static void the_log_of_a_slow_server_is_kept_for_the_event(void **state)
{
    (void)state;
    launched(JOB);
    talk(
        w, {.slot = 1, .ask = COMMAND, .status = 200, .body = "{}", .verdict = AGAIN},
        {.slot = 1, .wait_ms = 9999, .ask = COMMAND, .status = 200, .body = "{}", .verdict = AGAIN},
        {.slot = 1, .wait_ms = 1, .ask = COMMAND, .status = 200, .body = "{}", .verdict = AGAIN},
        {.slot = 1,
         .ask = TAIL,
         .status = 200,
         .body = "{\"exitCode\":0,\"result\":\"wait\"}",
         .verdict = AGAIN,
         .after_ms = 500});
    assert_string_equal(w->box->log_tail, "wait");
    talk(w, {.slot = 1, .ask = COMMAND, .status = 200, .body = "{}", .verdict = AGAIN},
         {.slot = 1,
          .wait_ms = 10000,
          .ask = COMMAND,
          .status = 200,
          .body = "{}",
          .verdict = AGAIN},
         {.slot = 1, .ask = TAIL, .status = 502, .verdict = AGAIN});
    assert_string_equal(w->box->log_tail, "wait");
}

static void without_its_log_it_has_exited_all_the_same(void **state)
{
    static const struct line tails[] = {
        {.fault = FAULT_TIMEOUT},
        {.status = 408},
        {.status = 200, .body = "{\"exitCode\":1,\"result\":\"tail: cannot open\"}"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
        struct line l = tails[i];
        launched(JOB);
        l.slot = 1;
        l.ask = TAIL;
        l.verdict = REFUSE;
        l.code = ERR_SERVER_EXITED;
        talk(w,
             {.slot = 1,
              .ask = COMMAND,
              .status = 200,
              .body = "{\"exitCode\":137}",
              .verdict = AGAIN},
             {.slot = 1, .ask = UP, .fault = FAULT_CONNECT, .verdict = AGAIN}, l);
        assert_null(w->box->log_tail);
        world_free(w);
    }
    launched(JOB);
}

static void after_an_exit_an_older_server_may_answer(void **state)
{
    (void)state;
    launched(JOB);
    talk(w,
         {.slot = 1, .ask = COMMAND, .status = 200, .body = "{\"exitCode\":3}", .verdict = AGAIN},
         {.slot = 1, .ask = UP, .status = 200, .body = HEALTHY, .set = ANSWERS});
}

static void the_exit_of_an_adopted_command_starts_another(void **state)
{
    (void)state;
    fresh(JOB);
    fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), false);
    talk(w, {.ask = CREATE_SESSION, .status = 409},
         {.ask = READ_SESSION,
          .status = 200,
          .body = "{\"commands\":[{\"id\":\"c-1\"}]}",
          .set = SERVER},
         ENTER(PROBE),
         {.slot = 1, .ask = COMMAND, .status = 200, .body = "{\"exitCode\":1}", .verdict = AGAIN},
         {.slot = 1, .ask = UP, .status = 502, .clear = SERVER}, ENTER(LAUNCH),
         {.ask = CREATE_SESSION, .status = 409},
         {.ask = READ_SESSION,
          .status = 200,
          .body = "{\"commands\":[{\"id\":\"c-1\",\"exitCode\":1}]}"},
         {.ask = EXEC, .status = 202, .body = "{\"cmdId\":\"c-2\"}"});
}

static void a_session_that_vanishes_takes_the_server_with_it(void **state)
{
    (void)state;
    launched(JOB);
    talk(w,
         {.slot = 1,
          .ask = COMMAND,
          .status = 404,
          .verdict = AGAIN,
          .body = ERROR(404, "not found: session not found")},
         {.slot = 1,
          .ask = UP,
          .status = 502,
          .clear = SERVER,
          .verdict = RETRY,
          .code = ERR_SERVER_EXITED},
         ENTER(LAUNCH), {.ask = CREATE_SESSION, .status = 201},
         {.ask = EXEC, .status = 202, .body = "{\"cmdId\":\"c-9\"}"});
}

static void a_session_that_always_vanishes_is_given_up(void **state)
{
    (void)state;
    launched(JOB);
    for (int i = 1; i <= 3; i++) {
        talk(w,
             {.slot = 1,
              .ask = COMMAND,
              .status = 404,
              .verdict = AGAIN,
              .body = ERROR(404, "not found: session not found")},
             {.slot = 1,
              .ask = UP,
              .status = 502,
              .clear = SERVER,
              .verdict = i < 3 ? RETRY : REFUSE,
              .code = ERR_SERVER_EXITED,
              .says = "the toolbox session has gone"});
        if (i == 3)
            break;
        talk(w, ENTER(LAUNCH), {.ask = CREATE_SESSION, .status = 201},
             {.ask = EXEC, .status = 202, .body = "{\"cmdId\":\"c-1\"}"});
        fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), true);
        enter(w, PROBE);
    }
}

static void our_own_command_is_known_again(void **state)
{
    (void)state;
    launched(JOB);
    talk(w, ENTER(LAUNCH), {.ask = CREATE_SESSION, .status = 409},
         {.ask = READ_SESSION, .status = 200, .body = "{\"commands\":[{\"id\":\"c-1\"}]}"});
    fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), true);
    talk(w, ENTER(PROBE),
         {.slot = 1, .ask = COMMAND, .status = 200, .body = "{\"exitCode\":1}", .verdict = AGAIN},
         {.slot = 1, .ask = UP, .status = 502, .verdict = AGAIN},
         {.slot = 1, .ask = TAIL, .status = 502, .verdict = REFUSE, .code = ERR_SERVER_EXITED});
}

/* ---- ACCEPTS ---- */

static void the_last_look_is_with_the_key_we_gave(void **state)
{
    char key[HMAC_TEXT_SIZE];
    (void)state;
    launched(V1_JOB);
    talk(w, {.ask = READY, .status = 200, .body = "{\"status\":\"ready\"}", .set = ANSWERS},
         ENTER(PROBE), {.slot = 1}); /* nobody watches the command any more */
    assert_int_equal(ask(w, 0), ASKED_CALL);
    key_of(w->provider->keys[0], key);
    assert_string_equal(header("X-Session-API-Key"), key);
    assert_string_equal(header("X-Daytona-Preview-Token"), "tok-000001");
    assert_true(w->call.close_on_2xx);
    talk(w, {.ask = COUNT, .status = 502, .verdict = AGAIN, .code = ERR_SERVER_TIMEOUT},
         {.ask = COUNT, .status = 200, .body = "<html>", .verdict = AGAIN, .code = ERR_UNHEALTHY},
         {.ask = COUNT, .status = 200, .body = "0", .set = ACCEPTS});
    assert_string_equal(w->box->session_key, key);
    assert_string_equal(w->box->vscode_token, key);
    assert_string_equal(w->box->vscode_url, "https://8001-box-1.p.example");
}

static void v0_tells_the_token_of_its_vscode(void **state)
{
    static const struct {
        int status;
        const char *body, *token;
    } answers[] = {{200, "{\"token\":\"t-123456\"}", "t-123456"},
                   {200, "{\"token\":null}", NULL},
                   {404, "{\"detail\":\"Not Found\"}", NULL}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        launched(V0_JOB);
        w->facts |= ANSWERS;
        talk(w, ENTER(PROBE),
             {.ask = "GET https://8000-box-1.p.example/vscode/connection_token",
              .status = answers[i].status,
              .body = answers[i].body,
              .set = ACCEPTS});
        if (answers[i].token)
            assert_string_equal(w->box->vscode_token, answers[i].token);
        else
            assert_true(!w->box->vscode_token && !w->box->vscode_url);
        world_free(w);
    }
    launched(V0_JOB);
}

static void an_adopted_server_is_tried_with_every_key(void **state)
{
    char id[9], dto[1000], keys[3][HMAC_TEXT_SIZE];
    (void)state;
    w = world_new(
        "{\"type\":\"start-session\",\"session_id\":\"s1\",\"session_api_key\":\"k-of-the-job\","
        "\"server\":{\"kind\":\"v1\",\"vscode_port\":8001}}");
    w->provider->keys = xrealloc(w->provider->keys, 3, sizeof *w->provider->keys);
    w->provider->keys[1] = xstrdup("older");
    w->provider->keys[2] = xstrdup("oldest");
    w->provider->n_keys = 3;
    for (int i = 0; i < 3; i++)
        key_of(w->provider->keys[i], keys[i]);
    sha256_hex("oldest", 6, id, 8);
    snprintf(dto, sizeof dto,
             DTO_OF("box-1", "oh.s1", "started", "started", "60", "-1",
                    OUR_LABELS ",\"session-worker/key\":\"%s\"", ""),
             id);
    talk(w, ENTER(FIND),
         {.ask = "GET /sandbox/oh.s1",
          .status = 200,
          .body = dto,
          .set = LOOKED | EXISTS | RUNS | KEPT},
         ENTER(LAUNCH));
    fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), false);
    fetch(PREVIEW_VSCODE, PREVIEW_OF("8001", "tok-000001"), false);
    talk(w,
         {.ask = READY, .status = 200, .body = "{\"status\":\"ready\"}", .set = SERVER | ANSWERS},
         ENTER(PROBE));
    const char *wanted[] = {"k-of-the-job", keys[2], keys[0], keys[1]};
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        assert_int_equal(ask(w, 0), ASKED_CALL);
        assert_string_equal(header("X-Session-API-Key"), wanted[i]);
        bool last = i + 1 == ARRAY_LEN(wanted);
        talk(w, {.ask = COUNT,
                 .status = i % 2 ? 403 : 401,
                 .verdict = last ? REFUSE : AGAIN,
                 .code = last ? ERR_UNAUTHORIZED : ERR_NONE});
    }
    talk(w, ENTER(PROBE), {.ask = COUNT, .status = 401, .verdict = AGAIN},
         {.ask = COUNT, .status = 200, .body = "7", .set = ACCEPTS});
    assert_string_equal(w->box->session_key, keys[2]);
}

static void a_key_that_no_header_may_hold_is_refused(void **state)
{
    (void)state;
    found_running(JOB);
    w->facts |= SERVER | ANSWERS;
    w->job->session_api_key = xstrdup("a\nb");
    w->box->url = xstrdup("https://8000-box-1.p.example");
    enter(w, PROBE);
    assert_int_equal(ask(w, 0), ASKED_REFUSED);
    assert_int_equal(w->answer.code, ERR_INVALID_JOB);
    assert_null(w->call.url);
}

static void a_custom_server_is_asked_its_health_with_the_key(void **state)
{
    (void)state;
    launched(JOB);
    talk(w, {.ask = UP, .status = 200, .body = HEALTHY, .set = ANSWERS}, ENTER(PROBE));
    assert_int_equal(ask(w, 0), ASKED_CALL);
    assert_string_equal(header("X-Session-API-Key"), w->box->session_key);
    talk(
        w, {.ask = UP, .status = 307, .verdict = AGAIN},
        {.ask = PREVIEW, .status = 200, .body = PREVIEW_OF("8000", "tok-000002"), .verdict = AGAIN},
        {.ask = UP, .status = 200, .body = "{}", .verdict = AGAIN, .code = ERR_UNHEALTHY},
        {.ask = UP, .status = 200, .body = HEALTHY, .set = ACCEPTS});
    assert_null(w->box->vscode_token);
}

static void secrets_of_the_box_are_known_to_the_redactor(void **state)
{
    struct buf out;
    (void)state;
    launched(JOB);
    buf_init(&out, 100);
    redact("x tok-000001 y", 14, &out);
    assert_string_equal(buf_text(&out), "x *** y");
    w->provider->ops->box_forget(w->box);
    buf_clear(&out);
    redact("x tok-000001 y", 14, &out);
    assert_string_equal(buf_text(&out), "x tok-000001 y");
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_probe_says_what_the_proxy_wants_and_no_more, teardown),
        cmocka_unit_test_teardown(ready_is_the_right_body_only, teardown),
        cmocka_unit_test_teardown(without_a_health_body_any_2xx_but_html_will_do, teardown),
        cmocka_unit_test_teardown(v0_may_say_that_it_is_not_initialized, teardown),
        cmocka_unit_test_teardown(v1_is_ready_or_before_that_alive, teardown),
        cmocka_unit_test_teardown(probes_go_from_50_to_500_ms, teardown),
        cmocka_unit_test_teardown(a_redirect_is_never_followed, teardown),
        cmocka_unit_test_teardown(a_sandbox_that_stops_looks_like_a_slow_one_for_5_s, teardown),
        cmocka_unit_test_teardown(a_server_that_exits_is_reported_with_its_log, teardown),
        cmocka_unit_test_teardown(the_log_of_a_slow_server_is_kept_for_the_event, teardown),
        cmocka_unit_test_teardown(without_its_log_it_has_exited_all_the_same, teardown),
        cmocka_unit_test_teardown(after_an_exit_an_older_server_may_answer, teardown),
        cmocka_unit_test_teardown(the_exit_of_an_adopted_command_starts_another, teardown),
        cmocka_unit_test_teardown(a_session_that_vanishes_takes_the_server_with_it, teardown),
        cmocka_unit_test_teardown(a_session_that_always_vanishes_is_given_up, teardown),
        cmocka_unit_test_teardown(our_own_command_is_known_again, teardown),
        cmocka_unit_test_teardown(the_last_look_is_with_the_key_we_gave, teardown),
        cmocka_unit_test_teardown(v0_tells_the_token_of_its_vscode, teardown),
        cmocka_unit_test_teardown(an_adopted_server_is_tried_with_every_key, teardown),
        cmocka_unit_test_teardown(a_key_that_no_header_may_hold_is_refused, teardown),
        cmocka_unit_test_teardown(a_custom_server_is_asked_its_health_with_the_key, teardown),
        cmocka_unit_test_teardown(secrets_of_the_box_are_known_to_the_redactor, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
