/* The inside of a sandbox: toolbox sessions, commands, servers, and the proxy in front of them. */
#include "tests/unit/sim/talk.h"

#define SESSION "/toolbox/{id}/process/session"
#define EXEC SESSION "/s/exec"
#define COMMAND SESSION "/s/command/{cmd}"
#define EXECUTE "/toolbox/{id}/process/execute"
#define ASYNC(text) "{\"command\":\"" text "\",\"runAsync\":true}"
#define WRAPPED(text) ASYNC("sh -c '" text "' >/tmp/log 2>&1 </dev/null")

static void begin(struct talk *t, const char *snapshot)
{
    char *body = xasprintf("{\"name\":\"a\",\"snapshot\":\"%s\"}", snapshot);
    talk_begin(t, NULL);
    SAY(t, {0, "POST /api/sandbox", body, 200, NULL, NULL},
        {0, "POST " SESSION, "{\"sessionId\":\"s\"}", 201, NULL, NULL});
    free(body);
}

static void sessions_are_made_once(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t,
        {0, "POST " SESSION, "{\"sessionId\":\"s\"}", 409, "conflict: session already exists",
         "\"path\":\"/process/session\""},
        {0, "POST " SESSION, "{}", 400, "INVALID_REQUEST_BODY", NULL},
        {0, "GET " SESSION "/s", NULL, 200, "{\"sessionId\":\"s\",\"commands\":[]}", NULL},
        {0, "GET " SESSION "/t", NULL, 404, "not found: session not found", NULL},
        {0, "POST " SESSION "/t/exec", ASYNC("true"), 500,
         "failed to execute command: not found: session not found", "!code"},
        {0, "POST " EXEC, ASYNC("  "), 400, "!x", NULL}, {0, "POST " EXEC, "{bad", 400, "!x", NULL},
        {0, "DELETE " SESSION "/s", NULL, 204, NULL, NULL},
        {0, "DELETE " SESSION "/s", NULL, 404, NULL, NULL});
    talk_end(&t);
}

static void a_wrapped_command_has_its_exit_code(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t,
        {0, "POST " EXEC, WRAPPED("echo out; echo err >&2; sleep 2; exit 3"), 202,
         "\"exitCode\":null", NULL},
        {1000, "GET " COMMAND, NULL, 200, "!exitCode", "\\u003e/tmp/log 2\\u003e\\u00261"},
        {1000, "GET " COMMAND, NULL, 200, "\"exitCode\":3", NULL},
        {0, "GET " COMMAND "/logs", NULL, 200, "!out", NULL},
        {0, "POST " EXECUTE, "{\"command\":\"tail -c 4096 /tmp/log\"}", 200,
         "\"result\":\"out\\nerr\\n\"", "\"exitCode\":0"},
        {0, "POST " EXECUTE, "{\"command\":\"tail -c 4 /tmp/log\"}", 200, "\"result\":\"err\\n\"",
         NULL},
        {0, "POST " EXECUTE, "{\"command\":\"tail -c 4 /tmp/nolog\"}", 200, "\"exitCode\":1",
         "cannot open"},
        {0, "POST " EXEC, WRAPPED("kill -9 $$"), 202, NULL, NULL},
        {0, "GET " COMMAND, NULL, 200, "\"exitCode\":137", NULL},
        {0, "POST " EXEC, ASYNC("no-such-program"), 202, NULL, NULL},
        {0, "GET " COMMAND, NULL, 200, "\"exitCode\":127", NULL},
        {0, "POST " EXEC, ASYNC("echo 'unclosed"), 202, NULL, NULL},
        {0, "GET " COMMAND, NULL, 200, "\"exitCode\":2", NULL});
    talk_end(&t);
}

static void one_command_at_a_time(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "POST " EXEC, ASYNC("sleep 4; echo first"), 202, NULL, NULL},
        {0, "POST " EXEC, ASYNC("echo second"), 202, NULL, NULL},
        {3900, "GET " COMMAND, NULL, 200, "!exitCode", NULL},
        {200, "GET " COMMAND, NULL, 200, "\"exitCode\":0", NULL},
        {0, "GET " COMMAND "/logs", NULL, 200, "second\n", NULL});
    talk_end(&t);
}

static void exit_at_the_top_ends_the_shell(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "POST " EXEC, ASYNC("echo before; exit 9"), 202, NULL, NULL},
        {1000, "GET " COMMAND, NULL, 200, "!exitCode", NULL},
        {0, "POST " EXEC, ASYNC("echo x"), 500, "write |1: broken pipe", NULL},
        {0, "POST " SESSION, "{\"sessionId\":\"s\"}", 409, NULL, NULL},
        {0, "DELETE " SESSION "/s", NULL, 204, NULL, NULL},
        {0, "POST " SESSION, "{\"sessionId\":\"s\"}", 201, NULL, NULL},
        {0, "POST " EXEC, ASYNC("set -e; false; echo not-reached"), 202, NULL, NULL},
        {0, "POST " EXEC, ASYNC("echo x"), 500, "broken pipe", NULL});
    talk_end(&t);
}

static void a_shell_knows_its_language(void **state)
{
    static const struct {
        const char *command, *result;
    } table[] = {
        {"export A='it'\\\\''s'; echo $A \\\"${A}!\\\"", "it's it's!\\n"},
        {"false || { echo or; } && (cd /tmp; pwd); pwd", "or\\n/tmp\\n/home/daytona\\n"},
        {"if command -v nope; then echo yes; elif true; then echo elif; else echo no; fi",
         "elif\\n"},
        {"echo $(echo a; echo b >&2) $?", "b\\na 0\\n"},
        {"mkdir /x && mkdir /x 2>/dev/null || echo exists", "exists\\n"},
        {"cat <<EOF\\nline $(echo 1)\\nEOF\\necho after", "line 1\\nafter\\n"},
        {"echo a > f; echo b >> f; cat f | tee g; tail -n 1 g", "a\\nb\\nb\\n"},
        {"X=1 env; echo [$X]", "[]\\n"},
        {"! true || echo no", "no\\n"},
        {"# nothing", ""},
    };
    struct talk t;
    (void)state;
    begin(&t, "x");
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char *body = xasprintf("{\"command\":\"%s\"}", table[i].command);
        char *has = xasprintf("\"result\":\"%s\"}", table[i].result);
        SAY(&t, {0, "POST " EXECUTE, body, 200, has, NULL});
        free(body);
        free(has);
    }
    talk_end(&t);
}

static void execute_waits_and_runs_out_of_time(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "POST " EXECUTE, "{\"command\":\"sleep 2; echo done\"}", 200, "done", NULL});
    assert_int_equal(t.took_ns, 2 * NS_PER_S);
    SAY(&t, {0, "POST " EXECUTE, "{\"command\":\"sleep 5\",\"timeout\":1}", 408, "REQUEST_TIMEOUT",
             NULL});
    assert_int_equal(t.took_ns, NS_PER_S);
    SAY(&t, {0, "POST " EXECUTE, "{\"command\":\"cat\"}", 200, "\"result\":\"\"", NULL},
        {0, "POST " EXEC, "{\"command\":\"echo hi; (exit 7)\"}", 200, "\"output\":\"hi\\n\"",
         "\"exitCode\":7"},
        {0, "POST " EXEC, "{\"command\":\"sleep infinity\"}", 0, NULL, NULL});
    talk_end(&t);
}

/* ---- servers ---- */

#define V0_COMMAND                                                                                 \
    WRAPPED("export SESSION_API_KEY='\\\\''k-1'\\\\''; export VSCODE_PORT=4445; mkdir -p /w && "   \
            "cd /openhands/code && /m/micromamba run poetry run python -u -m "                     \
            "openhands.runtime.action_execution_server 4444 --working-dir /w --plugins vscode "    \
            "--user-id 1000")
#define V1_COMMAND                                                                                 \
    WRAPPED("export OH_SESSION_API_KEYS_0='\\\\''k-2'\\\\''; if command -v agent-server "          \
            ">/dev/null; then exec agent-server --host 0.0.0.0 --port 8000; fi")

static void use_key(struct talk *t, const char *name, const char *value)
{
    t->header_name = name;
    t->header_value = value;
}

static void a_v0_server_answers_as_v0_does(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "POST " EXEC, V0_COMMAND, 202, NULL, NULL},
        {10, "GET 4444-{id} /alive", NULL, 502, "!x", NULL},
        {20, "GET 4444-{id} /alive", NULL, 200, "{\"status\":\"ok\"}", NULL},
        {0, "GET 4445-{id} /alive", NULL, 502, NULL, NULL},
        {0, "GET 4444-{id} /vscode/connection_token", NULL, 403, "{\"detail\":\"Invalid API Key\"}",
         NULL},
        {0, "GET " COMMAND, NULL, 200, "!exitCode", NULL});
    use_key(&t, "X-Session-API-Key", "k-1");
    SAY(&t, {0, "GET 4444-{id} /vscode/connection_token", NULL, 200, "{\"token\":\"", NULL},
        {0, "GET 4444-{id} /nope", NULL, 404, NULL, NULL},
        {0, "GET /_sim/ledger", NULL, 200, "\"servers_started\":1", NULL});
    talk_end(&t);
}

static void a_v1_server_answers_as_v1_does(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "POST " EXEC, V1_COMMAND, 202, NULL, NULL},
        {30, "GET 8000-{id} /ready", NULL, 200, "{\"status\":\"ready\"}", NULL},
        {0, "GET 8000-{id} /alive", NULL, 200, "{\"status\":\"ok\"}", NULL},
        {0, "GET 8000-{id} /api/conversations/count", NULL, 401, "{\"detail\":\"Unauthorized\"}",
         NULL});
    use_key(&t, "X-Session-API-Key", "k-2");
    SAY(&t, {0, "GET 8000-{id} /api/conversations/count", NULL, 200, "0", NULL});
    talk_end(&t);
}

static void a_server_of_ones_own_listens_where_it_is_asked_for(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "GET /api/sandbox/{id}/ports/7000/preview-url", NULL, 200, NULL, NULL},
        {0, "POST " EXEC, WRAPPED("exec ./serve"), 202, NULL, NULL},
        {30, "GET 7000-{id} /anything", NULL, 200, "ok", NULL},
        {0, "POST " SESSION, "{\"sessionId\":\"t\"}", 201, NULL, NULL},
        {0, "POST " SESSION "/t/exec", WRAPPED("PORT=7001 ./serve"), 202, NULL, NULL},
        {30, "GET 7001-{id} /", NULL, 200, "ok", NULL},
        {0, "GET /toolbox/{id}/port/7001/in-use", NULL, 200, "true", NULL},
        {0, "DELETE " SESSION "/t", NULL, 204, NULL, NULL},
        {0, "GET 7001-{id} /", NULL, 502, NULL, NULL},
        {0, "GET 7000-{id} /", NULL, 200, "ok", NULL});
    talk_end(&t);
}

static void a_port_is_taken_once(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "POST " EXEC, V1_COMMAND, 202, NULL, NULL},
        {0, "POST " SESSION, "{\"sessionId\":\"t\"}", 201, NULL, NULL},
        {100, "POST " SESSION "/t/exec", V1_COMMAND, 202, NULL, NULL},
        {100, "GET " SESSION "/t/command/{cmd}", NULL, 200, "\"exitCode\":3", NULL},
        {0, "GET 8000-{id} /ready", NULL, 200, NULL, NULL});
    talk_end(&t);
}

static void snapshots_script_what_goes_wrong(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "sim-dead-server");
    SAY(&t, {0, "POST " EXEC, V1_COMMAND, 202, NULL, NULL},
        {10, "GET " COMMAND, NULL, 200, "!exitCode", NULL},
        {20, "GET " COMMAND, NULL, 200, "\"exitCode\":3", NULL},
        {0, "POST " EXECUTE, "{\"command\":\"tail -c 4096 /tmp/log\"}", 200, "Traceback", NULL},
        {0, "GET 8000-{id} /ready", NULL, 502, NULL, NULL});
    talk_end(&t);
    begin(&t, "sim-never-listens");
    SAY(&t, {0, "POST " EXEC, V1_COMMAND, 202, NULL, NULL},
        {60000, "GET 8000-{id} /ready", NULL, 502, NULL, NULL},
        {0, "GET " COMMAND, NULL, 200, "!exitCode", NULL});
    talk_end(&t);
    begin(&t, "sim-wrong-body");
    SAY(&t, {0, "POST " EXEC, V1_COMMAND, 202, NULL, NULL},
        {60, "GET 8000-{id} /ready", NULL, 200, "<html>", NULL});
    talk_end(&t);
    begin(&t, "sim-bad-command");
    SAY(&t, {0, "POST " EXEC, V1_COMMAND, 202, NULL, NULL},
        {0, "GET " COMMAND, NULL, 200, "\"exitCode\":127", NULL},
        {0, "GET /_sim/ledger", NULL, 200, "\"servers_started\":0", NULL});
    talk_end(&t);
}

static void a_restart_loses_what_was_inside(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "POST " EXEC, V1_COMMAND, 202, NULL, NULL},
        {100, "GET 8000-{id} /ready", NULL, 200, NULL, NULL},
        {0, "POST /_sim/world", "{\"zombie\":\"a\"}", 200, NULL, NULL},
        {0, "GET 8000-{id} /ready", NULL, 502, "!x", NULL},
        {0, "POST /_sim/world", "{\"zombie\":\"a\"}", 200, NULL, NULL},
        {0, "POST /api/sandbox/a/stop", NULL, 200, NULL, NULL},
        {0, "GET 8000-{id} /ready", NULL, 400, "Is the Sandbox started?", NULL},
        {100, "POST /api/sandbox/a/start", NULL, 200, NULL, NULL},
        {0, "GET 8000-{id} /ready", NULL, 502, NULL, NULL},
        {0, "GET " SESSION, NULL, 200, "[]", NULL});
    talk_end(&t);
}

/* ---- who may come in ---- */

static void a_preview_wants_its_token(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t,
        {0, "GET /api/sandbox/{id}/ports/8000/preview-url", NULL, 200,
         "\"url\":\"http://8000-{id}.localhost:3986\"", NULL},
        {0, "POST " EXEC, V1_COMMAND, 202, NULL, NULL});
    free(t.key);
    t.key = NULL;
    SAY(&t, {50, "GET 8000-{id} /alive", NULL, 307, "oidc", NULL},
        {0, "GET 8000-{id} /alive?DAYTONA_SANDBOX_AUTH_KEY={token}", NULL, 200, "ok", NULL},
        {0, "GET 8000-00000000-0000-4000-8000-000000000000 /alive", NULL, 307, NULL, NULL},
        {0, "GET abc-{id} /alive", NULL, 404, "not found: not found", NULL},
        {0, "GET /toolbox/{id}/version", NULL, 401, "missing authentication", NULL});
    use_key(&t, "X-Daytona-Preview-Token", "{token}");
    SAY(&t, {0, "GET 8000-{id} /alive", NULL, 200, "ok", NULL},
        {0, "GET /toolbox/{id}/version", NULL, 200, "version", NULL});
    assert_non_null(answer_header(&t, "content-type"));
    talk_end(&t);
}

static void a_token_changes_with_the_start_and_is_remembered(void **state)
{
    struct talk t;
    char old[64];
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "GET /api/sandbox/{id}/ports/8000/preview-url", NULL, 200, NULL, NULL});
    snprintf(old, sizeof old, "%s", t.token);
    use_key(&t, "X-Daytona-Preview-Token", old);
    free(t.key);
    t.key = NULL;
    SAY(&t, {0, "GET /toolbox/{id}/version", NULL, 200, NULL, NULL});
    t.key = xstrdup("Bearer dtn_x");
    SAY(&t, {0, "POST /api/sandbox/{id}/stop", NULL, 200, NULL, NULL},
        {100, "POST /api/sandbox/{id}/start", NULL, 200, NULL, NULL},
        {0, "GET /api/sandbox/{id}/ports/8000/preview-url", NULL, 200, old,
         NULL}, /* for a second */
        {1000, "GET /api/sandbox/{id}/ports/8000/preview-url", NULL, 200, "token", NULL});
    assert_string_not_equal(t.token, old);
    free(t.key);
    t.key = NULL;
    SAY(&t, {60000, "GET /toolbox/{id}/version", NULL, 200, NULL, NULL},
        {60000, "GET /toolbox/{id}/version", NULL, 401, NULL, NULL});
    talk_end(&t);
}

/* Two worlds of one seed: in the first the token of the next start is learnt, in the second
 * somebody comes with it before that start. */
static void restart_after_asking_with(struct talk *t, const char *token)
{
    begin(t, "x");
    SAY(t, {0, "POST /api/sandbox/{id}/stop", NULL, 200, NULL, NULL});
    char *key = t->key;
    t->key = NULL;
    use_key(t, "X-Daytona-Preview-Token", token);
    SAY(t, {100, "GET /toolbox/{id}/version", NULL, 401, NULL, NULL});
    t->key = key;
    SAY(t, {0, "POST /api/sandbox/{id}/start", NULL, 200, NULL, NULL});
}

static void a_refusal_is_remembered_for_five_seconds(void **state)
{
    struct talk t;
    char token[64];
    (void)state;
    restart_after_asking_with(&t, "something else");
    SAY(&t, {1000, "GET /api/sandbox/{id}/ports/8000/preview-url", NULL, 200, NULL, NULL});
    snprintf(token, sizeof token, "%s", t.token);
    talk_end(&t);
    restart_after_asking_with(&t, token);
    SAY(&t, {1000, "GET /api/sandbox/{id}/ports/8000/preview-url", NULL, 200, token, NULL});
    free(t.key);
    t.key = NULL;
    SAY(&t, {0, "GET /toolbox/{id}/version", NULL, 401, NULL, NULL},
        {3900, "GET /toolbox/{id}/version", NULL, 401, NULL, NULL},
        {200, "GET /toolbox/{id}/version", NULL, 200, NULL, NULL});
    talk_end(&t);
}

static void a_browser_is_shown_a_warning(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "POST " EXEC, V1_COMMAND, 202, NULL, NULL});
    use_key(&t, "User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Chrome/120");
    SAY(&t, {50, "GET 8000-{id} /alive", NULL, 200, "Daytona Preview - Warning", NULL});
    use_key(&t, "User-Agent", "session-worker/1");
    SAY(&t, {0, "GET 8000-{id} /alive", NULL, 200, "{\"status\":\"ok\"}", NULL});
    talk_end(&t);
}

static void a_signed_url_lets_in_until_it_expires(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, "x");
    SAY(&t, {0, "POST " EXEC, V1_COMMAND, 202, NULL, NULL},
        {50, "GET /api/sandbox/{id}/ports/8000/signed-preview-url?expiresInSeconds=60", NULL, 200,
         "\"port\":8000", NULL},
        {0, "GET /api/sandbox/{id}/ports/8000/signed-preview-url?expiresInSeconds=0", NULL, 400,
         "between 1 second and 24 hours", NULL});
    free(t.key);
    t.key = NULL;
    SAY(&t, {0, "GET 8000-{token} /alive", NULL, 200, "ok", NULL},
        {0, "GET 8001-{token} /alive", NULL, 307, NULL, NULL},
        {61000, "GET 8000-{token} /alive", NULL, 307, NULL, NULL});
    talk_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_are_made_once),
        cmocka_unit_test(a_wrapped_command_has_its_exit_code),
        cmocka_unit_test(one_command_at_a_time),
        cmocka_unit_test(exit_at_the_top_ends_the_shell),
        cmocka_unit_test(a_shell_knows_its_language),
        cmocka_unit_test(execute_waits_and_runs_out_of_time),
        cmocka_unit_test(a_v0_server_answers_as_v0_does),
        cmocka_unit_test(a_v1_server_answers_as_v1_does),
        cmocka_unit_test(a_server_of_ones_own_listens_where_it_is_asked_for),
        cmocka_unit_test(a_port_is_taken_once),
        cmocka_unit_test(snapshots_script_what_goes_wrong),
        cmocka_unit_test(a_restart_loses_what_was_inside),
        cmocka_unit_test(a_preview_wants_its_token),
        cmocka_unit_test(a_token_changes_with_the_start_and_is_remembered),
        cmocka_unit_test(a_refusal_is_remembered_for_five_seconds),
        cmocka_unit_test(a_browser_is_shown_a_warning),
        cmocka_unit_test(a_signed_url_lets_in_until_it_expires),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
