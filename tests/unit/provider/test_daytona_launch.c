/* daytona: from a sandbox that runs to a server that answers, as conversations with the toolbox,
 * the preview proxy and the server. */
#include "common/secret.h"
#include "tests/unit/provider/talk.h"

#define TB "https://tb.example/toolbox/box-1/process"
#define SESSION "sw-e8bc163c82eee187" /* of "s1" */
#define CREATE_SESSION "POST " TB "/session"
#define READ_SESSION "GET " TB "/session/" SESSION
#define DELETE_SESSION "DELETE " TB "/session/" SESSION
#define EXEC "POST " TB "/session/" SESSION "/exec"
#define COMMAND "GET " TB "/session/" SESSION "/command/c-1"
#define TAIL "POST " TB "/execute"
#define PREVIEW "GET /sandbox/box-1/ports/8000/preview-url"
#define PREVIEW_VSCODE "GET /sandbox/box-1/ports/8001/preview-url"
#define PREVIEW_APP "GET /sandbox/box-1/ports/3000/preview-url"
#define PREVIEW_OF(port, token)                                                                    \
    "{\"sandboxId\":\"box-1\",\"url\":\"https://" port "-box-1.p.example/\",\"token\":\"" token    \
    "\"}"
#define BY_ID "GET /sandbox/box-1"
#define READY "GET https://8000-box-1.p.example/ready"
#define ALIVE "GET https://8000-box-1.p.example/alive"
#define COUNT "GET https://8000-box-1.p.example/api/conversations/count"
#define UP "GET https://8000-box-1.p.example/up"

/* One url to fetch: the shortest launch. */
#define JOB                                                                                        \
    "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"custom\","           \
    "\"port\":8000,\"command\":[\"serve\"],\"health\":{\"path\":\"/up\","                          \
    "\"json\":{\"ok\":true,\"v\":{\"b\":[1],\"a\":2}}}}}"
#define HEALTHY "{\"extra\":1,\"v\":{\"a\":2,\"b\":[1]},\"ok\":true}"
#define V1_JOB                                                                                     \
    "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"v1\","               \
    "\"vscode_port\":8001,\"expose\":[{\"name\":\"APP\",\"port\":3000}]}}"
#define V0_JOB                                                                                     \
    "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"v0\","               \
    "\"port\":8000,\"vscode_port\":8001}}"

static struct world *w;

static int teardown(void **state)
{
    (void)state;
    world_free(w);
    return 0;
}

/* A world whose box was just made and runs, or was found running. */
static void fresh(const char *job)
{
    w = world_new(job);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO("started", "started", "0"),
          .set = EXISTS | RUNS},
         ENTER(LAUNCH));
}

static void found_running(const char *job)
{
    w = world_new(job);
    talk(w, ENTER(FIND),
         {.ask = "GET /sandbox/oh.s1",
          .status = 200,
          .body = DTO("started", "started", "-1"),
          .set = LOOKED | EXISTS | RUNS | KEPT},
         ENTER(LAUNCH));
}

/* One preview url; the last one completes the launch. */
static void fetch(const char *ask, const char *body, bool last)
{
    const struct line l = {.slot = 1,
                           .ask = ask,
                           .status = 200,
                           .body = body,
                           .verdict = last ? OK : AGAIN,
                           .set = last ? SERVER : 0};
    talk_line(w, &l);
}

/* A server of ours runs, and nobody has looked at it yet. */
static void launched(const char *job)
{
    fresh(job);
    talk(w, {.ask = CREATE_SESSION, .status = 201},
         {.ask = EXEC, .status = 202, .body = "{\"cmdId\":\"c-1\",\"exitCode\":null}"});
    bool one = w->job->server.kind == SERVER_CUSTOM, app = w->job->server.n_expose > 0;
    fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), one);
    if (!one)
        fetch(PREVIEW_VSCODE, PREVIEW_OF("8001", "tok-000001"), !app);
    if (app)
        fetch(PREVIEW_APP, PREVIEW_OF("3000", "tok-000001"), true);
    enter(w, PROBE);
}

static const char *header(const char *name)
{
    for (size_t i = 0; i < w->call.n_headers; i++)
        if (strcmp(w->call.headers[i].name, name) == 0)
            return w->call.headers[i].value;
    return "";
}

static void key_of(const char *secret, char out[HMAC_TEXT_SIZE])
{
    hmac_sha256_text(secret, strlen(secret), "box-1", 5, out);
}

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
    assert_true(w->call.own_host && w->call.close_on_2xx && w->call.scope == SCOPE_FREE);
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
                        "{\"command\":\"tail -c 4096 /tmp/session-worker-server.log\","
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
        cmocka_unit_test_teardown(a_probe_says_what_the_proxy_wants_and_no_more, teardown),
        cmocka_unit_test_teardown(ready_is_the_right_body_only, teardown),
        cmocka_unit_test_teardown(without_a_health_body_any_2xx_but_html_will_do, teardown),
        cmocka_unit_test_teardown(v0_may_say_that_it_is_not_initialized, teardown),
        cmocka_unit_test_teardown(v1_is_ready_or_before_that_alive, teardown),
        cmocka_unit_test_teardown(probes_go_from_50_to_500_ms, teardown),
        cmocka_unit_test_teardown(a_redirect_is_never_followed, teardown),
        cmocka_unit_test_teardown(a_sandbox_that_stops_looks_like_a_slow_one_for_5_s, teardown),
        cmocka_unit_test_teardown(a_server_that_exits_is_reported_with_its_log, teardown),
        cmocka_unit_test_teardown(without_its_log_it_has_exited_all_the_same, teardown),
        cmocka_unit_test_teardown(after_an_exit_an_older_server_may_answer, teardown),
        cmocka_unit_test_teardown(the_exit_of_an_adopted_command_starts_another, teardown),
        cmocka_unit_test_teardown(a_session_that_vanishes_takes_the_server_with_it, teardown),
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
