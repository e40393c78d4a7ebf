/* The programs that a simulated shell knows, one row each; whatever else is called is a server.
 *
 * Each takes its arguments, writes to the shell's sinks, sets `status` and moves the shell's clock.
 * A program whose name says so ("no-such…", "nope…", "missing…") is not found. */
#include "tests/sim/model_shell.h"

#include <string.h>

/* ---- output ---- */

void sink_write(struct shell *sh, struct sink to, const char *text, size_t len)
{
    if (to.stream && len && sh->t != NEVER)
        stream_add(to.stream, sh->t, sh->proc, to.tag, text, len);
}

void sink_printf(struct shell *sh, struct sink to, const char *fmt, ...)
{
    struct buf text;
    va_list ap;
    buf_init(&text, TEXT_MAX);
    va_start(ap, fmt);
    buf_vaddf(&text, fmt, ap);
    va_end(ap);
    sink_write(sh, to, buf_text(&text), text.len);
    buf_done(&text);
}

const char *arg(const struct args *args, size_t i)
{
    return i < args->n ? args->v[i] : NULL;
}

struct args tail_of(const struct args *args, size_t from)
{
    return (struct args){args->v + MIN(from, args->n), args->n - MIN(from, args->n)};
}

/* ---- the shell's own ---- */

static void run_nothing(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)sh;
    (void)args;
    (void)in;
}

static void run_exit(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    int64_t code = sh->last_status;
    if (arg(args, 1) && !parse_i64(args->v[1], strlen(args->v[1]), 0, INT32_MAX, &code))
        code = 2;
    sh->status = (int)(code & 255);
    sh->exited = true;
}

static void run_cd(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    const char *to = arg(args, 1) ? args->v[1] : home_directory;
    if (strstr(to, "no-such") || strstr(to, "nope")) {
        sink_printf(sh, sh->err, "bash: line 1: cd: %s: No such file or directory\n", to);
        sh->status = 1;
        return;
    }
    char *full = path_join(sh->cwd, to);
    free(sh->cwd);
    sh->cwd = full;
}

static void set_pairs(struct shell *sh, const struct args *args)
{
    for (size_t i = 1; i < args->n; i++) {
        char *eq = strchr(args->v[i], '=');
        if (!eq)
            continue;
        *eq = '\0';
        vars_set(&sh->vars, args->v[i], eq + 1);
        *eq = '=';
    }
}

static void run_export(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    set_pairs(sh, args);
}

static void run_unset(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    for (size_t i = 1; i < args->n; i++)
        vars_set(&sh->vars, args->v[i], "");
}

static void run_set(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    for (size_t i = 1; i < args->n; i++)
        if (args->v[i][0] == '-' && strchr(args->v[i], 'e'))
            sh->errexit = true;
}

static void run_trap(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    if (args->n > 2 && !*args->v[1] && sh->session)
        sh->session->ignores_term = true;
}

static void run_sleep(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    const char *text = arg(args, 1) ? args->v[1] : "0";
    size_t whole = strspn(text, "0123456789");
    int64_t seconds = 0, part = 0;
    if (!strcmp(text, "infinity")) {
        sh->t = NEVER;
        return;
    }
    if (whole && !parse_i64(text, whole, 0, 1000000000, &seconds))
        seconds = 1000000000;
    if (text[whole] == '.' && parse_i64(text + whole + 1, 1, 0, 9, &part))
        sh->t += (uint64_t)part * (NS_PER_S / 10);
    sh->t += (uint64_t)seconds * NS_PER_S;
}

static void run_kill(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    const char *signal = arg(args, 1), *whom = args->n ? args->v[args->n - 1] : "";
    if (strcmp(whom, "4242") != 0 || !signal) /* what $$ stands for */
        return;
    sh->signal = !strcmp(signal, "-9") || !strcmp(signal, "-KILL") ? 9 : 15;
    sh->exited = true;
}

static bool command_matches(const struct shell *sh, const struct command *cmd, const char *pattern)
{
    return cmd->began <= sh->t && cmd->ended > sh->t && strstr(cmd->text, pattern);
}

static bool kill_in(struct shell *sh, struct shell_session *s, const char *pattern, int signal)
{
    bool any = false;
    for (size_t i = 0; i < s->n; i++) {
        struct command *cmd = s->commands[i];
        if (!command_matches(sh, cmd, pattern))
            continue;
        any = true;
        cmd->ended = sh->t;
        cmd->exit_code = 128 + signal;
        for (size_t k = 0; k < s->n_procs; k++)
            s->procs[k]->ended = MIN(s->procs[k]->ended, sh->t);
    }
    return any;
}

/* pkill [-9] [-f] PATTERN: commands of sessions by their text, with all that they started. */
static void run_pkill(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    const char *pattern = args->n > 1 ? args->v[args->n - 1] : "";
    int signal =
        args->n > 2 && (!strcmp(args->v[1], "-9") || !strcmp(args->v[1], "-KILL")) ? 9 : 15;
    struct shell_session *s;
    sh->status = 1;
    DL_FOREACH(sh->d->sessions, s)
    if (*pattern && kill_in(sh, s, pattern, signal))
        sh->status = 0;
}

/* ---- programs that run others ---- */

static void run_sh(struct shell *sh, const struct args *args, const struct input *in)
{
    const char *script = NULL;
    for (size_t i = 1; i + 1 < args->n && !script; i++)
        if (args->v[i][0] == '-' && strchr(args->v[i], 'c'))
            script = args->v[i + 1];
    if (!script) {
        if (args->n > 1)
            server_run(sh, args);
        return;
    }
    struct shell child;
    shell_fork(&child, sh);
    child.exited = child.errexit = false;
    child.stdin_open = in->open;
    shell_run(&child, script, strlen(script));
    shell_join(sh, &child);
}

static void run_eval(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    for (size_t i = 1; i < args->n; i++)
        shell_run(sh, args->v[i], strlen(args->v[i]));
}

static void run_rest(struct shell *sh, const struct args *args, size_t from, const struct input *in)
{
    struct args rest = tail_of(args, from);
    if (rest.n)
        program_run(sh, &rest, in);
}

/* exec replaces the shell: nothing after it runs, and its code is the shell's. */
static void run_exec(struct shell *sh, const struct args *args, const struct input *in)
{
    run_rest(sh, args, 1, in);
    if (args->n > 1)
        sh->exited = sh->replaced = true;
}

/* env [NAME=VALUE]… PROGRAM; also what only changes how a program is run: nohup, setsid, nice … */
static void run_wrapper(struct shell *sh, const struct args *args, const struct input *in)
{
    size_t i = 1;
    bool takes_number = !strcmp(args->v[0], "timeout") || !strcmp(args->v[0], "nice");
    for (; i < args->n; i++) {
        bool option = args->v[i][0] == '-', pair = strchr(args->v[i], '=') != NULL;
        bool number = takes_number && args->v[i][0] >= '0' && args->v[i][0] <= '9';
        if (!option && !pair && !number)
            break;
    }
    struct args pairs = {args->v, i};
    set_pairs(sh, &pairs);
    run_rest(sh, args, i, in);
}

static bool not_found(const char *name)
{
    static const char *const prefixes[] = {"no-such", "nope", "missing"};
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
            return true;
    return false;
}

/* command -v NAME, which NAME; command NAME … runs it */
static void run_command(struct shell *sh, const struct args *args, const struct input *in)
{
    bool asks = !strcmp(args->v[0], "which") || (arg(args, 1) && !strcmp(args->v[1], "-v"));
    const char *name = args->n > 1 ? args->v[args->n - 1] : "";
    if (!asks)
        run_rest(sh, args, 1, in);
    else if (not_found(name))
        sh->status = 1;
    else
        sink_printf(sh, sh->out, "/usr/local/bin/%s\n", name);
}

static void run_flock(struct shell *sh, const struct args *args, const struct input *in)
{
    size_t i = 1;
    while (i < args->n && args->v[i][0] == '-')
        i++;
    run_rest(sh, args, i + 1, in);
}

static const struct program programs[] = {
    {":", run_nothing},       {"wait", run_nothing},   {"ulimit", run_nothing},
    {"umask", run_nothing},   {"exit", run_exit},      {"cd", run_cd},
    {"export", run_export},   {"unset", run_unset},    {"set", run_set},
    {"trap", run_trap},       {"sleep", run_sleep},    {"kill", run_kill},
    {"pkill", run_pkill},     {"sh", run_sh},          {"bash", run_sh},
    {"dash", run_sh},         {"eval", run_eval},      {"exec", run_exec},
    {"command", run_command}, {"which", run_command},  {"env", run_wrapper},
    {"nohup", run_wrapper},   {"setsid", run_wrapper}, {"timeout", run_wrapper},
    {"nice", run_wrapper},    {"sudo", run_wrapper},   {"stdbuf", run_wrapper},
    {"tini", run_wrapper},    {"flock", run_flock},    {NULL, NULL},
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static const struct program *find_program(const struct program *p, const char *name)
{
    while (p->name && strcmp(p->name, name) != 0)
        p++;
    return p->name ? p : NULL;
}

void program_run(struct shell *sh, const struct args *args, const struct input *in)
{
    const char *name = base_name(args->v[0]);
    sh->last_status = sh->status;
    sh->status = 0;
    sh->holds_output |= sh->own && (sh->out.stream == sh->own || sh->err.stream == sh->own);
    const struct program *p = find_program(programs, name);
    if (!p)
        p = find_program(tools, name);
    if (p) {
        p->run(sh, args, in);
        return;
    }
    if (!not_found(name)) {
        server_run(sh, args);
        return;
    }
    sink_printf(sh, sh->err, "%s: line 1: %s: command not found\n", sh->script_name, args->v[0]);
    sh->status = 127;
}
