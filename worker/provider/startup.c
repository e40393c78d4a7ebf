/* startup: one shell line out of a job. See the header.
 *
 * The line is run by a toolbox session, which reads it as a script of its own shell: a top-level
 * exit, exec or failing `set -e` would end that shell and with it every exit code to come. So all
 * of it stands inside sh -c '…', with the output in a file and stdin from /dev/null. It stays in
 * the foreground: the exit code of the command is then the server's.
 *
 * Every value that comes from the job is one shell word made by shell_quote(), which knows only
 * two forms: bare (a short list of harmless bytes) and single-quoted (in which only the quote
 * itself means anything). Nothing is ever put between double quotes. The job's variables are
 * exported, but for those that shells keep for themselves: these stand in front of the program,
 * behind env. The session key is exported last, so that no variable of the job can open the server
 * to everyone. */
#include "worker/provider/startup.h"

#include <string.h>

#include "common/secret.h"

#define V0_RUN                                                                                     \
    "/openhands/micromamba/bin/micromamba run -n openhands poetry run python -u -m "               \
    "openhands.runtime.action_execution_server"

static const char bare[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%+=:,./_-";

void shell_quote(struct buf *out, const char *text)
{
    if (*text && text[strspn(text, bare)] == '\0') {
        buf_adds(out, text);
        return;
    }
    buf_addc(out, '\'');
    for (const char *p = text; *p; p++) {
        if (*p == '\'')
            buf_adds(out, "'\\''");
        else
            buf_addc(out, *p);
    }
    buf_addc(out, '\'');
}

/* " word" or " --flag word" */
static void add_word(struct buf *out, const char *flag, const char *word)
{
    if (flag)
        buf_addf(out, " %s", flag);
    buf_addc(out, ' ');
    shell_quote(out, word);
}

/* Names that a shell keeps for itself: exporting one ends it (UID in bash, OPTIND in dash) or gives
 * the server another value. PATH is ours until the folder of a V0 server is made. */
static bool is_the_shells(const struct job *job, const char *name)
{
    static const char *const names[] = {
        "_",         "BASHOPTS",   "BASHPID", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS",
        "EUID",      "FUNCNAME",   "GROUPS",  "HISTCMD",  "LINENO",        "OLDPWD",
        "OPTIND",    "PIPESTATUS", "PPID",    "PWD",      "RANDOM",        "SECONDS",
        "SHELLOPTS", "SHLVL",      "SRANDOM", "UID"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return strncmp(name, "BASH_", 5) == 0 ||
           (job->server.kind == SERVER_V0 && strcmp(name, "PATH") == 0);
}

/* "/usr/bin/env NAME=VALUE … " with those of the job's variables, or nothing: to stand directly
 * before the program, where no shell sees them. */
static void add_env(struct buf *out, const struct job *job)
{
    const char *before = "/usr/bin/env ";
    for (size_t i = 0; i < job->n_env; i++) {
        if (!is_the_shells(job, job->env[i].name))
            continue;
        buf_addf(out, "%s%s=", before, job->env[i].name);
        shell_quote(out, job->env[i].value);
        buf_addc(out, ' ');
        before = "";
    }
}

/* As OpenHands 0.62 puts it together, flag by flag in this order. */
static void v0_command(struct buf *out, const struct job *job)
{
    buf_adds(out, "mkdir -p ");
    shell_quote(out, job->server.working_dir);
    buf_adds(out, " && cd /openhands/code && ");
    add_env(out, job);
    buf_addf(out, V0_RUN " %d", job->server.port);
    add_word(out, "--working-dir", job->server.working_dir);
    for (size_t i = 0; i < job->server.n_plugins; i++)
        add_word(out, i == 0 ? "--plugins" : NULL, job->server.plugins[i]);
    add_word(out, "--username", job->server.username);
    buf_addf(out, " --user-id %d", job->server.user_id);
    if (job->server.browsergym_eval_env)
        add_word(out, "--browsergym-eval-env", job->server.browsergym_eval_env);
    if (!job->server.enable_browser)
        buf_adds(out, " --no-enable-browser");
}

/* The images of the three build targets have the server under three names. */
static void v1_command(struct buf *out, const struct job *job)
{
    static const char *const on_path[] = {"openhands-agent-server", "agent-server"};
    for (size_t i = 0; i < ARRAY_LEN(on_path); i++) {
        buf_addf(out, "%s command -v %s >/dev/null; then exec ", i == 0 ? "if" : "elif",
                 on_path[i]);
        add_env(out, job);
        buf_addf(out, "%s --host 0.0.0.0 --port %d; ", on_path[i], job->server.port);
    }
    buf_adds(out, "else exec ");
    add_env(out, job);
    buf_addf(out,
             "/agent-server/.venv/bin/python -m openhands.agent_server --host 0.0.0.0 --port %d; "
             "fi",
             job->server.port);
}

static void custom_command(struct buf *out, const struct job *job)
{
    add_env(out, job);
    for (size_t i = 0; i < job->server.n_command; i++) {
        if (i > 0)
            buf_addc(out, ' ');
        shell_quote(out, job->server.command[i]);
    }
}

void startup_command(struct buf *out, const struct job *job)
{
    static void (*const commands[])(struct buf *, const struct job *) = {
        [SERVER_V0] = v0_command, [SERVER_V1] = v1_command, [SERVER_CUSTOM] = custom_command};
    ASSERT(job->server.kind != SERVER_NONE);
    commands[job->server.kind](out, job);
}

static void add_export(struct buf *out, const char *name, const char *value)
{
    buf_addf(out, "export %s=", name);
    shell_quote(out, value);
    buf_adds(out, "; ");
}

static void add_port(struct buf *out, const char *name, int port)
{
    if (port > 0)
        buf_addf(out, "export %s=%d; ", name, port);
}

/* What OpenHands itself sets for each kind. They come before the job's own variables, which win.
 * Without a route to GitHub a V1 server dies at import unless it is told to use its own price
 * list. */
static void add_presets(struct buf *out, const struct job *job)
{
    if (job->server.kind == SERVER_V0) {
        add_export(out, "PYTHONUNBUFFERED", "1");
        add_port(out, "VSCODE_PORT", job->server.vscode_port);
    }
    if (job->server.kind == SERVER_V1) {
        add_export(out, "LITELLM_LOCAL_MODEL_COST_MAP", "True");
        add_port(out, "OH_VSCODE_PORT", job->server.vscode_port);
    }
    if (job->server.debug)
        add_export(out, "DEBUG", "true");
}

/* For all users of the sandbox when we may (V0 works as another one), else for ours; a sandbox
 * without git is no reason to fail. */
static void add_git(struct buf *out, const char *name, const char *value)
{
    static const char *const scopes[] = {"--system", "--global"};
    if (!value)
        return;
    for (size_t i = 0; i < ARRAY_LEN(scopes); i++) {
        buf_addf(out, "git config %s %s ", scopes[i], name);
        shell_quote(out, value);
        buf_adds(out, i == 0 ? " 2>/dev/null || " : " || :; ");
    }
}

/* A V0 command makes and leaves its own folder; the others start in it. It is made with the
 * sandbox's PATH, before the job may set another one. */
static void add_folder(struct buf *out, const struct job *job)
{
    if (job->server.kind == SERVER_V0)
        return;
    buf_adds(out, "mkdir -p ");
    shell_quote(out, job->server.working_dir);
    add_word(out, "&& cd", job->server.working_dir);
    buf_adds(out, " || exit; ");
}

/* exec where the command is one program: its exit code and its signals are then the shell's. */
static void add_server(struct buf *out, const struct job *job)
{
    if (job->server.kind == SERVER_CUSTOM)
        buf_adds(out, "exec ");
    startup_command(out, job);
}

static void add_script(struct buf *out, const struct job *job, const char *session_key)
{
    add_folder(out, job);
    add_presets(out, job);
    for (size_t i = 0; i < job->n_env; i++)
        if (!is_the_shells(job, job->env[i].name))
            add_export(out, job->env[i].name, job->env[i].value);
    add_export(out, job->server.kind == SERVER_V1 ? "OH_SESSION_API_KEYS_0" : "SESSION_API_KEY",
               session_key);
    add_git(out, "user.name", job->server.git_user_name);
    add_git(out, "user.email", job->server.git_user_email);
    add_server(out, job);
}

bool startup_line(struct buf *out, const struct job *job, const char *session_key,
                  const char *log_path)
{
    struct buf script;
    size_t before = out->len;
    buf_init(&script, JOB_COMMAND_MAX);
    add_script(&script, job, session_key);
    bool fits = !script.overflow;
    buf_adds(out, "sh -c ");
    shell_quote(out, buf_text(&script));
    buf_adds(out, " >");
    shell_quote(out, log_path);
    buf_adds(out, " 2>&1 </dev/null");
    secret_wipe(buf_steal(&script));
    return fits && !out->overflow && out->len - before <= JOB_COMMAND_MAX;
}

void startup_health(const struct job *job, struct health *out)
{
    static const struct health known[] = {
        [SERVER_V0] = {.path = "/alive",
                       .json = "{\"status\":\"ok\"}",
                       .key_path = "/vscode/connection_token"},
        [SERVER_V1] = {.path = "/ready",
                       .json = "{\"status\":\"ready\"}",
                       .older_path = "/alive",
                       .older_json = "{\"status\":\"ok\"}",
                       .key_path = "/api/conversations/count"},
        [SERVER_CUSTOM] = {.path = "/", .key_path = "/"},
        [SERVER_NONE] = {.path = NULL},
    };
    *out = known[job->server.kind];
    if (job->server.kind != SERVER_CUSTOM)
        return;
    if (job->server.health_path)
        out->path = out->key_path = job->server.health_path;
    out->json = job->server.health_json;
}
