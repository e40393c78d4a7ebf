/* startup: the line that starts the server, as bytes and as a real shell runs it. */
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/provider/talk.h"
#include "worker/provider/startup.h"

static char *command_of(const char *job_json)
{
    struct world *w = world_new(job_json);
    struct buf out;
    buf_init(&out, JOB_COMMAND_MAX);
    startup_command(&out, w->job);
    world_free(w);
    return buf_steal(&out);
}

#define V0_SERVER                                                                                  \
    " && cd /openhands/code && /openhands/micromamba/bin/micromamba run -n openhands poetry run "  \
    "python -u -m openhands.runtime.action_execution_server "

static void v0_is_upstreams_string_byte_for_byte(void **state)
{
    static const struct {
        const char *server, *command;
    } cases[] = {
        {"\"plugins\":[\"agent_skills\",\"jupyter\",\"vscode\"]",
         "mkdir -p /workspace" V0_SERVER "4444 --working-dir /workspace --plugins agent_skills "
         "jupyter vscode --username openhands --user-id 1000"},
        {"\"plugins\":[]", "mkdir -p /workspace" V0_SERVER
                           "4444 --working-dir /workspace --username openhands --user-id 1000"},
        {"\"plugins\":[],\"enable_browser\":false",
         "mkdir -p /workspace" V0_SERVER "4444 --working-dir /workspace --username openhands "
         "--user-id 1000 --no-enable-browser"},
        {"\"plugins\":[],\"browsergym_eval_env\":\"browsergym/miniwob\"",
         "mkdir -p /workspace" V0_SERVER "4444 --working-dir /workspace --username openhands "
         "--user-id 1000 --browsergym-eval-env browsergym/miniwob"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *json = xasprintf("{\"type\":\"start-session\",\"session_id\":\"s1\","
                               "\"server\":{\"kind\":\"v0\",%s}}",
                               cases[i].server);
        char *command = command_of(json);
        assert_string_equal(command, cases[i].command);
        free(command);
        free(json);
    }
}

static void what_upstream_leaves_open_is_quoted(void **state)
{
    char *command =
        command_of("{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"v0\","
                   "\"plugins\":[],\"port\":5000,\"user_id\":0,\"username\":\"root\","
                   "\"working_dir\":\"/work space; rm\","
                   "\"browsergym_eval_env\":\"browsergym/miniwob task2\"}}");
    (void)state;
    assert_string_equal(command, "mkdir -p '/work space; rm'" V0_SERVER
                                 "5000 --working-dir '/work space; rm' --username root --user-id 0 "
                                 "--browsergym-eval-env 'browsergym/miniwob task2'");
    free(command);
}

static void v1_listens_everywhere_whatever_the_image_calls_it(void **state)
{
    char *command = command_of(START_JOB);
    (void)state;
    assert_string_equal(
        command,
        "if command -v openhands-agent-server >/dev/null; then "
        "exec openhands-agent-server --host 0.0.0.0 --port 8000; "
        "elif command -v agent-server >/dev/null; then "
        "exec agent-server --host 0.0.0.0 --port 8000; "
        "else exec /agent-server/.venv/bin/python -m openhands.agent_server --host 0.0.0.0 "
        "--port 8000; fi");
    free(command);
}

static void a_word_is_bare_or_single_quoted(void **state)
{
    static const char *const cases[][2] = {
        {"", "''"},           {"plain-1.2_x/y:z@%+=,", "plain-1.2_x/y:z@%+=,"},
        {"a b", "'a b'"},     {"it's", "'it'\\''s'"},
        {"$HOME", "'$HOME'"}, {"\xc3\xbc", "'\xc3\xbc'"},
        {"~", "'~'"},         {"a\nb", "'a\nb'"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf out;
        buf_init(&out, 100);
        shell_quote(&out, cases[i][0]);
        assert_string_equal(buf_text(&out), cases[i][1]);
        buf_done(&out);
    }
}

/* ---- the line in a real shell ---- */

static char folder[] = "/tmp/test-startup-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    char *log = xasprintf("%s/log", folder), *work = xasprintf("%s/work dir", folder);
    (void)state;
    unlink(log);
    rmdir(work);
    free(log);
    free(work);
    return rmdir(folder);
}

/* Runs the line as a toolbox session does: as a script read by a shell. */
static int run_line(const char *line)
{
    int status = -1;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(10);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *log_text(void)
{
    char text[4096] = "", *path = xasprintf("%s/log", folder);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    free(path);
    return xmemdup0(text, n > 0 ? (size_t)n : 0);
}

static char *line_of(struct job *job, const char *key)
{
    struct buf out;
    char *log = xasprintf("%s/log", folder);
    buf_init(&out, 2 * JOB_COMMAND_MAX);
    assert_true(startup_line(&out, job, key, log));
    free(log);
    return buf_steal(&out);
}

#define CUSTOM(argv, more)                                                                         \
    "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"custom\",\"port\":"  \
    "9000,"                                                                                        \
    "\"command\":" argv more "}}"

static char *custom_line(struct world **w, const char *argv, const char *env, const char *key)
{
    char *json = xasprintf("{\"type\":\"start-session\",\"session_id\":\"s1\",\"env\":{%s},"
                           "\"server\":{\"kind\":\"custom\",\"port\":9000,\"command\":%s,"
                           "\"working_dir\":\"%s/work dir\"}}",
                           env, argv, folder);
    *w = world_new(json);
    free(json);
    return line_of((*w)->job, key);
}

static void every_value_arrives_as_it_was(void **state)
{
    struct world *w;
    char *line = custom_line(
        &w,
        "[\"sh\",\"-c\",\"printf '%s|' \\\"$A\\\" \\\"$B\\\" \\\"$SESSION_API_KEY\\\"; pwd; cat\"]",
        "\"A\":\"it's $HOME `id` \\\\\\\"quoted\\\\\\\" \\\\n !\",\"B\":\"two\\nlines; exit 7\","
        "\"SESSION_API_KEY\":\"\"",
        "k'ey");
    (void)state;
    assert_int_equal(run_line(line), 0);
    char *log = log_text();
    char *wanted = xasprintf("it's $HOME `id` \\\"quoted\\\" \\n !|two\nlines; exit 7|k'ey|"
                             "%s/work dir\n",
                             folder);
    assert_string_equal(log, wanted);
    free(wanted);
    free(log);
    free(line);
    world_free(w);
}

static void the_exit_code_is_the_servers(void **state)
{
    static const struct {
        const char *argv;
        int code;
    } cases[] = {{"[\"sh\",\"-c\",\"echo gone; exit 3\"]", 3},
                 {"[\"/no/such/program\"]", 127},
                 {"[\"/tmp\"]", 126},
                 {"[\"true\"]", 0}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world *w;
        char *line = custom_line(&w, cases[i].argv, "", "key");
        char *guarded = xasprintf("%s\ncode=$?; exit $code", line); /* the session lives on */
        assert_int_equal(run_line(guarded), cases[i].code);
        free(guarded);
        free(line);
        world_free(w);
    }
}

static bool line_holds(const char *job_json, const char *key, const char *words)
{
    struct world *w = world_new(job_json);
    char *line = line_of(w->job, key);
    bool holds = strstr(line, words) != NULL;
    if (!holds)
        print_message("%s\n", line);
    free(line);
    world_free(w);
    return holds;
}

static void each_kind_gets_its_own_variables(void **state)
{
    (void)state;
    assert_true(line_holds("{\"type\":\"start-session\",\"session_id\":\"s1\"}", "k-0",
                           "export PYTHONUNBUFFERED=1; export VSCODE_PORT=4445; "
                           "export SESSION_API_KEY=k-0; mkdir -p /workspace && cd /openhands"));
    assert_true(line_holds(START_JOB, "k-1",
                           "sh -c 'mkdir -p /workspace && cd /workspace || exit; "
                           "export "));
    assert_true(line_holds(START_JOB, "k-1", "export OH_SESSION_API_KEYS_0=k-1; if command -v "));
    assert_true(line_holds(START_JOB, "k-1", "export LITELLM_LOCAL_MODEL_COST_MAP=True; "));
    assert_true(line_holds("{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{"
                           "\"debug\":true,\"git\":{\"user_name\":\"O'Hara\","
                           "\"user_email\":\"o@x.org\"}}}",
                           "k", "export DEBUG=true; "));
    assert_true(line_holds("{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{"
                           "\"git\":{\"user_email\":\"o@x.org\"}}}",
                           "k",
                           "git config --system user.email o@x.org 2>/dev/null || "
                           "git config --global user.email o@x.org || :; "));
}

static void what_a_shell_keeps_for_itself_goes_through_env(void **state)
{
    (void)state;
    assert_true(
        line_holds(CUSTOM("[\"prog\",\"x\"]", "},\"env\":{\"UID\":\"7\",\"A\":\"1\",\"BASH_X\":"
                                              "\"b c\""),
                   "k",
                   "export A=1; export SESSION_API_KEY=k; exec /usr/bin/env UID=7 "
                   "BASH_X='\\''b c'\\'' prog x' >"));
    assert_true(
        line_holds("{\"type\":\"start-session\",\"session_id\":\"s1\",\"env\":{\"PATH\":"
                   "\"/x\",\"UID\":\"7\"}}",
                   "k", "cd /openhands/code && /usr/bin/env PATH=/x UID=7 /openhands/micromamba"));
    assert_true(line_holds("{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":"
                           "\"v1\"},\"env\":{\"PATH\":\"/x\",\"_\":\"7\"}}",
                           "k", "export PATH=/x; "));
}

/* Whether a line whose working folder is n quotes fits: each becomes 13 bytes, twice. */
static bool line_fits(size_t n)
{
    struct buf out;
    struct world *w = world_new(START_JOB);
    char *quotes = xmalloc(n + 1);
    memset(quotes, '\'', n);
    quotes[n] = '\0';
    free(w->job->server.working_dir);
    w->job->server.working_dir = quotes;
    buf_init(&out, 8 * JOB_COMMAND_MAX);
    bool fits = startup_line(&out, w->job, "key", "/tmp/log");
    world_free(w);
    buf_done(&out);
    return fits;
}

static void a_line_beyond_the_limit_is_refused(void **state)
{
    (void)state;
    assert_true(line_fits(JOB_COMMAND_MAX / 26 - 100));
    assert_false(line_fits(JOB_COMMAND_MAX / 26));
    assert_false(line_fits(JOB_COMMAND_MAX)); /* the script alone is too long */
}

static void health_of_each_kind(void **state)
{
    static const struct {
        const char *server, *path, *json, *key_path;
    } cases[] = {
        {"\"kind\":\"v0\"", "/alive", "{\"status\":\"ok\"}", "/vscode/connection_token"},
        {"\"kind\":\"v1\"", "/ready", "{\"status\":\"ready\"}", "/api/conversations/count"},
        {"\"kind\":\"custom\",\"port\":9000,\"command\":[\"x\"]", "/", NULL, "/"},
        {"\"kind\":\"custom\",\"port\":9000,\"command\":[\"x\"],\"health\":{\"path\":\"/"
         "up\",\"json\":{\"a\":1}}",
         "/up", "{\"a\":1}", "/up"},
        {"\"kind\":\"none\"", NULL, NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct health h;
        char *json = xasprintf("{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{%s}}",
                               cases[i].server);
        struct world *w = world_new(json);
        startup_health(w->job, &h);
        const char *got[] = {h.path, h.json, h.key_path};
        const char *wanted[] = {cases[i].path, cases[i].json, cases[i].key_path};
        for (size_t k = 0; k < ARRAY_LEN(got); k++)
            assert_string_equal(got[k] ? got[k] : "-", wanted[k] ? wanted[k] : "-");
        world_free(w);
        free(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(v0_is_upstreams_string_byte_for_byte),
        cmocka_unit_test(what_upstream_leaves_open_is_quoted),
        cmocka_unit_test(v1_listens_everywhere_whatever_the_image_calls_it),
        cmocka_unit_test(a_word_is_bare_or_single_quoted),
        cmocka_unit_test(every_value_arrives_as_it_was),
        cmocka_unit_test(the_exit_code_is_the_servers),
        cmocka_unit_test(each_kind_gets_its_own_variables),
        cmocka_unit_test(what_a_shell_keeps_for_itself_goes_through_env),
        cmocka_unit_test(a_line_beyond_the_limit_is_refused),
        cmocka_unit_test(health_of_each_kind),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
