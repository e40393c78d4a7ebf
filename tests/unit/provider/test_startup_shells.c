/* startup: hostile text in every field of a job that reaches a shell, and real shells that read it.
 *
 * A job is made of random and hostile strings, parsed, made into its line, and the line is run as
 * Daytona's toolbox does: sourced from a file, once where sh is dash and once where it is bash.
 * What the line starts (the server, git) is this very program under another name: it writes down
 * its arguments, its environment and its folder, and that must be, byte for byte, what the job
 * said. Each string also asks for a file to be made, in as many ways as a shell knows; none may be
 * there.
 *
 * SEED=n repeats a run, ROUNDS=n makes it longer. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/provider/talk.h"
#include "worker/provider/startup.h"

#define REPORT_FD 100 /* inherited through every shell */
#define REPORT_MAX (1 << 20)
#define STRINGS_WANTED 100000
#define TEXTS_PER_JOB 260

#if defined(__SANITIZE_ADDRESS__)
#define SHARE 10
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHARE 10
#endif
#endif
#ifndef SHARE
#define SHARE 1 /* a sanitized program takes long to start: it runs this part of the strings */
#endif

/* ---- the program that the line starts ---- */

static void report_text(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text) + 1);
}

/* name, folder, arguments, "", environment, "": texts that end with NUL. Arguments may be empty, so
 * each begins with '='. */
static int report(const char *name, char **argv, char **env)
{
    struct buf b;
    struct stat st = {0};
    buf_init(&b, REPORT_MAX);
    report_text(&b, name);
    if (stat(".", &st) < 0)
        _exit(98);
    buf_addf(&b, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    buf_addc(&b, '\0');
    for (argv++; *argv; argv++) {
        buf_addc(&b, '=');
        report_text(&b, *argv);
    }
    buf_addc(&b, '\0');
    for (; *env; env++)
        report_text(&b, *env);
    buf_addc(&b, '\0');
    bool written = !b.overflow && write(REPORT_FD, b.data, b.len) == (ssize_t)b.len;
    _exit(written ? 0 : 97);
}

/* ---- strings ---- */

static uint64_t seed;

static uint32_t any(uint32_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((seed >> 33) % below);
}

static char folder[] = "/tmp/test-shells-XXXXXX";

/* %s: the file that must not come to be. */
static const char *const hostile[] = {
    "$(>%s)",      "`>%s`",          "; >%s;",           "\n>%s\n",        "| tee %s",
    "& >%s &",     "' ; >%s ; '",    "\" ; >%s ; \"",    "'\"'\"'; >%s #", "'\\''; >%s #",
    "\\'; >%s; #", "${x:=$(>%s)}",   "$((`>%s`))",       "<(>%s)",         ">%s",
    "}; >%s; {",   "); >%s; (",      "fi; >%s; if :",    "\r\n>%s\r\n",    "$'\\n>%s'",
    "!!\n>%s",     "<<X\n$(>%s)\nX", "\\\n>%s",          "'\n>%s\n'",      "a=b >%s",
    "$IFS>%s",     "\xc3'; >%s; '",  "\x1b]0;\x07`>%s`", "||>%s",          "&&>%s",
    "\\`>%s\\`",   "#'\n>%s",        "exit 3; >%s",      "exec >%s",       "set -e; false; >%s",
    "eval '>%s'",  "{ >%s; }",       "-c '>%s'",         "--\n>%s",        "%%s$(>%s)%%n",
};
static const char *const plain[] = {"",
                                    "-",
                                    "--",
                                    "-n",
                                    "~",
                                    "~root",
                                    "*",
                                    "/*",
                                    "?",
                                    "[a]",
                                    "{a,b}",
                                    "$",
                                    "$$",
                                    "$!",
                                    "$?",
                                    "$HOME",
                                    "${PATH}",
                                    "\\",
                                    "\\\\",
                                    "'",
                                    "''",
                                    "\"",
                                    "`",
                                    "!",
                                    "!!",
                                    "#",
                                    "=",
                                    "a=b",
                                    "%",
                                    "%s",
                                    "\n",
                                    "\t",
                                    " ",
                                    "\\n",
                                    "\\0",
                                    "a\\",
                                    "a'",
                                    "\r",
                                    ";;",
                                    "&",
                                    "exit",
                                    "-e",
                                    "\x7f",
                                    "\x1b[2J",
                                    "x\n\n",
                                    " x ",
                                    "\xc2\x9b",
                                    "\xe2\x80\xa8",
                                    "\xf0\x9f\x92\xa9"};
/* what shells treat in a way of their own */
static const char *const names[] = {"_",
                                    "IFS",
                                    "ENV",
                                    "BASH_ENV",
                                    "PS1",
                                    "PS2",
                                    "PS4",
                                    "HOME",
                                    "PWD",
                                    "OLDPWD",
                                    "CDPATH",
                                    "OPTIND",
                                    "OPTARG",
                                    "OPTERR",
                                    "PPID",
                                    "UID",
                                    "EUID",
                                    "GID",
                                    "GROUPS",
                                    "RANDOM",
                                    "SRANDOM",
                                    "SECONDS",
                                    "LINENO",
                                    "SHLVL",
                                    "SHELL",
                                    "SHELLOPTS",
                                    "BASHOPTS",
                                    "BASHPID",
                                    "BASH_VERSINFO",
                                    "BASH_COMPAT",
                                    "BASH_ARGV0",
                                    "BASH_XTRACEFD",
                                    "BASH_COMMAND",
                                    "BASH_SUBSHELL",
                                    "BASH_SOURCE",
                                    "BASH_LINENO",
                                    "BASH_ALIASES",
                                    "DIRSTACK",
                                    "EPOCHSECONDS",
                                    "EPOCHREALTIME",
                                    "FUNCNAME",
                                    "HISTCMD",
                                    "HISTFILE",
                                    "POSIXLY_CORRECT",
                                    "TMOUT",
                                    "LANG",
                                    "LC_ALL",
                                    "LC_CTYPE",
                                    "TERM",
                                    "TZ",
                                    "MAIL",
                                    "MAILPATH",
                                    "HOSTNAME",
                                    "IGNOREEOF",
                                    "GLOBIGNORE",
                                    "FUNCNEST",
                                    "PROMPT_COMMAND",
                                    "REPLY",
                                    "PIPESTATUS",
                                    "COPROC",
                                    "DEBUG",
                                    "VSCODE_PORT",
                                    "SESSION_API_KEY",
                                    "OH_SESSION_API_KEYS_0",
                                    "a",
                                    "A_1",
                                    "__",
                                    "if",
                                    "then",
                                    "export",
                                    "exec"};

static void add_code_point(struct buf *b)
{
    static const uint32_t ranges[][2] = {{0x20, 0x7f},  {0x01, 0x20},    {0x7f, 0xa0},
                                         {0xa0, 0x800}, {0x800, 0xd800}, {0x10000, 0x110000}};
    static const uint8_t picks[] = {0, 0, 0, 0, 0, 1, 2, 3, 4, 5};
    const uint32_t *r = ranges[picks[any(ARRAY_LEN(picks))]];
    uint32_t c = r[0] + any(r[1] - r[0]);
    if (c < 0x80)
        buf_addc(b, (char)c);
    else if (c < 0x800)
        buf_addf(b, "%c%c", (int)(0xc0 | c >> 6), (int)(0x80 | (c & 63)));
    else if (c < 0x10000)
        buf_addf(b, "%c%c%c", (int)(0xe0 | c >> 12), (int)(0x80 | (c >> 6 & 63)),
                 (int)(0x80 | (c & 63)));
    else
        buf_addf(b, "%c%c%c%c", (int)(0xf0 | c >> 18), (int)(0x80 | (c >> 12 & 63)),
                 (int)(0x80 | (c >> 6 & 63)), (int)(0x80 | (c & 63)));
}

static void add_hostile(struct buf *b, const char *pattern)
{
    for (const char *p = pattern; *p; p++) {
        if (*p != '%') {
            buf_addc(b, *p);
            continue;
        }
        p++;
        if (*p == 's')
            buf_addf(b, "%s/BAD", folder);
        else
            buf_addc(b, '%');
    }
}

static void add_piece(struct buf *b)
{
    if (any(3) == 0)
        buf_adds(b, plain[any(ARRAY_LEN(plain))]);
    else if (any(3) == 0)
        add_hostile(b, hostile[any(ARRAY_LEN(hostile))]);
    else
        for (uint32_t n = any(6); n > 0; n--)
            add_code_point(b);
}

/* Of at most max bytes. The caller frees it. */
static char *any_text(size_t max)
{
    struct buf b;
    do {
        buf_init(&b, 1000);
        for (uint32_t n = 1 + any(3); n > 0; n--)
            add_piece(&b);
        if (b.len <= max)
            return buf_steal(&b);
        buf_done(&b);
    } while (true);
}

/* Of 1 to max letters of the set. */
static char *any_of(const char *letters, size_t max)
{
    size_t n = 1 + any((uint32_t)max), kinds = strlen(letters);
    char *text = xcalloc(1, n + 1);
    for (size_t i = 0; i < n; i++)
        text[i] = letters[any((uint32_t)kinds)];
    return text;
}

/* A failing text, so that a terminal survives it and a table can take it up. */
static void print_escaped(const char *what, const char *text)
{
    struct buf b;
    buf_init(&b, 4 * JOB_COMMAND_MAX);
    for (const char *p = text; *p; p++)
        if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\')
            buf_addf(&b, "\\x%02x", (unsigned char)*p);
        else
            buf_addc(&b, *p);
    print_message("%s: \"%s\"\n", what, buf_text(&b));
    buf_done(&b);
}

/* ---- a job of them ---- */

static size_t n_strings;

static void add_member(struct buf *b, const char *name, char *text)
{
    json_quote(b, name, strlen(name));
    buf_addc(b, ':');
    json_quote(b, text, strlen(text));
    free(text);
    n_strings++;
}

static void add_element(struct buf *b, char *text)
{
    json_quote(b, text, strlen(text));
    free(text);
    n_strings++;
}

/* Names that shells know, then others. PATH in one job of four. */
static void add_env(struct buf *b, size_t n)
{
    buf_adds(b, ",\"env\":{");
    add_member(b, "first", any_text(100));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        buf_addc(b, ',');
        add_member(b, names[i], any_text(60));
    }
    if (any(4) == 0) {
        buf_addc(b, ',');
        add_member(b, "PATH", any_text(60));
    }
    for (size_t i = ARRAY_LEN(names); i < n; i++) {
        CLEANUP(free_ptr) char *tail = any_of("abcXYZ_019", 8);
        CLEANUP(free_ptr) char *name = xasprintf("v%zu_%s", i, tail);
        buf_addc(b, ',');
        add_member(b, name, any_text(100));
    }
    buf_addc(b, '}');
}

static char *any_folder(void)
{
    CLEANUP(free_ptr) char *name = any_text(100);
    for (char *p = strstr(name, ".."); p; p = strstr(name, ".."))
        *p = '_'; /* stays below the folder */
    return xasprintf("%s/work/w%s", folder, name);
}

static void add_command(struct buf *b, size_t n)
{
    buf_addf(b, ",\"command\":[\"%s/bin/server\"", folder);
    for (size_t i = 1; i < n; i++) {
        buf_addc(b, ',');
        add_element(b, any_text(100));
    }
    buf_addc(b, ']');
}

static void add_v0_fields(struct buf *b)
{
    buf_addc(b, ',');
    add_member(b, "username", any_text(64));
    buf_addc(b, ',');
    add_member(b, "browsergym_eval_env", any_text(128));
    buf_adds(b, ",\"plugins\":[");
    for (int i = 0; i < 16; i++) {
        if (i)
            buf_addc(b, ',');
        add_element(b, any_of("abcXYZ_-019", 20));
    }
    buf_addc(b, ']');
}

static char *any_job(enum server_kind kind)
{
    static const char *const kinds[] = {"v0", "v1", "custom"};
    struct buf b;
    buf_init(&b, json_limits_job.max_bytes);
    buf_addf(&b, "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"%s\",",
             kinds[kind]);
    add_member(&b, "working_dir", any_folder());
    if (kind == SERVER_CUSTOM)
        add_command(&b, 120);
    if (kind == SERVER_V0)
        add_v0_fields(&b);
    buf_adds(&b, ",\"git\":{");
    add_member(&b, "user_name", any_text(128));
    buf_addc(&b, ',');
    add_member(&b, "user_email", any_text(200));
    buf_adds(&b, "}}");
    add_env(&b, kind == SERVER_CUSTOM ? TEXTS_PER_JOB - 120 : TEXTS_PER_JOB);
    if (any(2)) {
        buf_addc(&b, ',');
        add_member(&b, "session_api_key", any_of("!\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~", 80));
    }
    buf_addc(&b, '}');
    assert_false(b.overflow);
    return buf_steal(&b);
}

/* ---- running it ---- */

static char text_of_report[REPORT_MAX];

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* In the line /openhands and /agent-server are folders of the root; here they are below ours. */
static char *moved(const char *line)
{
    static const char *const roots[] = {"/openhands/", "/agent-server/"};
    struct buf b;
    buf_init(&b, 4 * JOB_COMMAND_MAX);
    while (*line) {
        for (size_t i = 0; i < ARRAY_LEN(roots); i++)
            if (strncmp(line, roots[i], strlen(roots[i])) == 0)
                buf_adds(&b, folder);
        buf_addc(&b, *line++);
    }
    assert_false(b.overflow);
    return buf_steal(&b);
}

/* shells: a folder in which `sh` is the shell. */
static void be_the_shell(const char *shells, int report_to)
{
    char path[200], shell[100];
    static char name[] = "sh", option[] = "-c", script[] = "{ . ./cmd.sh; }";
    char *const argv[] = {name, option, script, NULL};
    snprintf(path, sizeof path, "PATH=%s/%s:%s/bin:/usr/bin:/bin", folder, shells, folder);
    snprintf(shell, sizeof shell, "%s/%s/sh", folder, shells);
    char *const env[] = {path, NULL};
    alarm(60);
    if (chdir(folder) < 0 || dup2(report_to, REPORT_FD) < 0)
        _exit(96);
    execve(shell, argv, env);
    _exit(95);
}

/* Runs the line; true when it ended well. The report is in text_of_report. */
static bool run_line(const char *shells, const char *line)
{
    char path[100];
    int status = -1;
    CLEANUP(free_ptr) char *here = moved(line);
    snprintf(path, sizeof path, "%s/cmd.sh", folder);
    write_file(path, here);
    snprintf(path, sizeof path, "%s/report", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        be_the_shell(shells, fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    memset(text_of_report, 0, sizeof text_of_report);
    assert_true(pread(fd, text_of_report, sizeof text_of_report - 4, 0) >= 0);
    close(fd);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- what must have arrived ---- */

struct seen {
    const char *name, *where;
    const char *args[300], *env[400];
    size_t n_args, n_env;
};

static const char *next(const char **p)
{
    const char *text = *p;
    *p += strlen(text) + 1;
    return text;
}

/* The next report; false: there is none. */
static bool read_report(const char **p, struct seen *s)
{
    *s = (struct seen){0};
    if (!**p)
        return false;
    s->name = next(p);
    s->where = next(p);
    while (**p && s->n_args < ARRAY_LEN(s->args))
        s->args[s->n_args++] = next(p) + 1;
    (void)next(p);
    while (**p && s->n_env < ARRAY_LEN(s->env))
        s->env[s->n_env++] = next(p);
    (void)next(p);
    return true;
}

static unsigned faults;

static void differs(const char *what, const char *wanted, const char *got)
{
    faults++;
    print_message("%s is not what the job said\n", what);
    print_escaped("  wanted", wanted);
    print_escaped("  got", got ? got : "(nothing)");
}

static void expect_args(const struct seen *s, const char *const *wanted, size_t n)
{
    for (size_t i = 0; i < MAX(n, s->n_args); i++) {
        const char *a = i < n ? wanted[i] : "(no more)";
        const char *b = i < s->n_args ? s->args[i] : NULL;
        if (!b || strcmp(a, b) != 0)
            differs("an argument", a, b);
    }
}

static const char *variable(const struct seen *s, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < s->n_env; i++)
        if (strncmp(s->env[i], name, n) == 0 && s->env[i][n] == '=')
            return s->env[i] + n + 1;
    return NULL;
}

static const char *given(const struct job *job, const char *name)
{
    for (size_t i = 0; i < job->n_env; i++)
        if (strcmp(job->env[i].name, name) == 0)
            return job->env[i].value;
    return NULL;
}

static void expect_env(const struct seen *s, const struct job *job, const char *key)
{
    static const char *const own[] = {"PATH",
                                      "PWD",
                                      "OLDPWD",
                                      "SHLVL",
                                      "_",
                                      "VSCODE_PORT",
                                      "PYTHONUNBUFFERED",
                                      "OH_VSCODE_PORT",
                                      "DEBUG",
                                      "LITELLM_LOCAL_MODEL_COST_MAP"};
    const char *key_name =
        job->server.kind == SERVER_V1 ? "OH_SESSION_API_KEYS_0" : "SESSION_API_KEY";
    for (size_t i = 0; i < job->n_env; i++) {
        const char *name = job->env[i].name, *got = variable(s, name);
        const char *wanted = strcmp(name, key_name) == 0 ? key : job->env[i].value;
        if (!got || strcmp(got, wanted) != 0)
            differs(name, wanted, got);
    }
    for (size_t i = 0; i < s->n_env; i++) {
        CLEANUP(free_ptr) char *name = xmemdup0(s->env[i], strcspn(s->env[i], "="));
        bool known = given(job, name) || strcmp(name, key_name) == 0;
        for (size_t k = 0; !known && k < ARRAY_LEN(own); k++)
            known = strcmp(name, own[k]) == 0;
        if (!known)
            differs("a variable that nobody set", "", s->env[i]);
    }
}

static void expect_server(const struct seen *s, const struct job *job)
{
    static const char *const v1[] = {"--host", "0.0.0.0", "--port", "8000"};
    static const char *const v1_module[] = {
        "-m", "openhands.agent_server", "--host", "0.0.0.0", "--port", "8000"};
    const char *v0[64] = {"run",
                          "-n",
                          "openhands",
                          "poetry",
                          "run",
                          "python",
                          "-u",
                          "-m",
                          "openhands.runtime.action_execution_server",
                          "4444",
                          "--working-dir",
                          job->server.working_dir};
    size_t n = 12;
    if (job->server.kind == SERVER_CUSTOM) {
        expect_args(s, (const char *const *)job->server.command + 1, job->server.n_command - 1);
    } else if (job->server.kind == SERVER_V1 && given(job, "PATH")) {
        expect_args(s, v1_module, ARRAY_LEN(v1_module));
    } else if (job->server.kind == SERVER_V1) {
        expect_args(s, v1, ARRAY_LEN(v1));
    } else {
        for (size_t i = 0; i < job->server.n_plugins; i++) {
            if (i == 0)
                v0[n++] = "--plugins";
            v0[n++] = job->server.plugins[i];
        }
        v0[n++] = "--username";
        v0[n++] = job->server.username;
        v0[n++] = "--user-id";
        v0[n++] = "1000";
        if (job->server.browsergym_eval_env) {
            v0[n++] = "--browsergym-eval-env";
            v0[n++] = job->server.browsergym_eval_env;
        }
        expect_args(s, v0, n);
    }
}

static void expect_folder(const struct seen *s, const struct job *job)
{
    struct stat st = {0};
    char here[64], *v0 = xasprintf("%s/openhands/code", folder);
    const char *wanted = job->server.kind == SERVER_V0 ? v0 : job->server.working_dir;
    if (stat(job->server.working_dir, &st) < 0)
        differs("the folder", job->server.working_dir, "not there");
    if (stat(wanted, &st) == 0)
        snprintf(here, sizeof here, "%llu:%llu", (unsigned long long)st.st_dev,
                 (unsigned long long)st.st_ino);
    if (strcmp(s->where, here) != 0)
        differs("the folder", wanted, s->where);
    free(v0);
}

/* A job that replaces PATH hides git, which is then left out (but for V0, where PATH comes last).
 */
static void expect_git(const char **p, const struct job *job)
{
    const char *const values[][2] = {{"user.name", job->server.git_user_name},
                                     {"user.email", job->server.git_user_email}};
    struct seen s;
    bool hidden = job->server.kind != SERVER_V0 && given(job, "PATH");
    for (size_t i = 0; !hidden && i < ARRAY_LEN(values); i++) {
        const char *const wanted[] = {"config", "--system", values[i][0], values[i][1]};
        if (!values[i][1])
            continue;
        if (!read_report(p, &s) || strcmp(s.name, "git") != 0)
            differs("git", values[i][1], "was not run");
        else
            expect_args(&s, wanted, ARRAY_LEN(wanted));
    }
}

/* Nothing lies in the folder but what the test has put there. */
static void expect_nothing_else(void)
{
    static const char *const known[] = {".",         "..",           "bin",    "dash",
                                        "bash",      "log",          "cmd.sh", "work",
                                        "openhands", "agent-server", "report"};
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        bool ours = false;
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            ours |= strcmp(e->d_name, known[i]) == 0;
        if (!ours)
            differs("what was run: a file has come to be", "", e->d_name);
    }
    closedir(dir);
}

static void expect_all(const struct job *job, const char *key)
{
    struct seen s;
    const char *p = text_of_report;
    expect_git(&p, job);
    if (read_report(&p, &s) && strcmp(s.name, "server") == 0) {
        expect_server(&s, job);
        expect_env(&s, job, key);
        expect_folder(&s, job);
    } else {
        differs("what was run", "the server", s.name ? s.name : "nothing");
    }
    if (read_report(&p, &s))
        differs("what was run", "nothing more", s.name);
    expect_nothing_else();
}

/* ---- the property ---- */

static void try_job(struct world *w, const char *json)
{
    static const char *const shells[] = {"dash", "bash"};
    struct buf line;
    char log[100];
    world_job(w, json);
    const char *key = w->job->session_api_key ? w->job->session_api_key : "it's-the-derived-key";
    snprintf(log, sizeof log, "%s/log", folder);
    buf_init(&line, 2 * JOB_COMMAND_MAX);
    bool fits = startup_line(&line, w->job, key, log);
    for (size_t i = 0; fits && i < ARRAY_LEN(shells); i++) {
        uint64_t before = seed;
        if (!run_line(shells[i], buf_text(&line)))
            differs("the exit code", "0", "another");
        expect_all(w->job, key);
        if (faults)
            fail_msg("%u faults with %s; SEED=%llu is near", faults, shells[i],
                     (unsigned long long)before);
    }
    if (!fits)
        n_strings = 0; /* too long to be sent: it proves nothing */
    buf_done(&line);
}

static void hostile_texts_arrive_byte_for_byte(void **state)
{
    static const enum server_kind kinds[] = {SERVER_CUSTOM, SERVER_V0, SERVER_V1};
    const char *rounds = getenv("ROUNDS");
    int64_t times = 1;
    size_t tried = 0, skipped = 0, jobs = 0;
    if (rounds && !parse_i64(rounds, strlen(rounds), 1, 10000, &times))
        fail_msg("ROUNDS must be a number");
    struct world *w = world_new(START_JOB);
    (void)state;
    for (; tried < (size_t)times * STRINGS_WANTED / SHARE; jobs++) {
        CLEANUP(free_ptr) char *json = (n_strings = 0, any_job(kinds[jobs % ARRAY_LEN(kinds)]));
        try_job(w, json);
        tried += n_strings;
        skipped += n_strings == 0;
    }
    print_message("# %zu strings in %zu jobs, each by dash and bash; %zu jobs too long\n", tried,
                  jobs - skipped, skipped);
    assert_true(skipped < jobs / 10);
    world_free(w);
}

/* The net catches what it is made for: without quotes the strings do run. */
static void the_check_notices_what_is_not_quoted(void **state)
{
    char line[300], bad[100];
    (void)state;
    snprintf(bad, sizeof bad, "%s/BAD", folder);
    snprintf(line, sizeof line, "%s/bin/server x$(>%s)", folder, bad);
    assert_true(run_line("dash", line));
    assert_int_equal(access(bad, F_OK), 0);
    faults = 0;
    expect_nothing_else();
    assert_int_equal(faults, 1);
    unlink(bad);
    faults = 0;
    expect_nothing_else();
    assert_int_equal(faults, 0);
}

/* ---- the toolbox session ---- */

struct toolbox {
    pid_t pid;
    int in; /* the shell's stdin */
};

/* As Daytona keeps one: a shell that reads commands from a pipe, each of which sources a file. */
static struct toolbox open_session(const char *shells)
{
    int ends[2];
    char shell[100];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    snprintf(shell, sizeof shell, "%s/%s/sh", folder, shells);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(60);
        dup2(ends[0], STDIN_FILENO);
        if (chdir(folder) == 0)
            execl(shell, "sh", (char *)NULL);
        _exit(95);
    }
    close(ends[0]);
    return (struct toolbox){pid, ends[1]};
}

static void close_session(struct toolbox *t)
{
    int status;
    close(t->in);
    assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
}

/* Its exit code as the session records it, or -1 when the session is dead. */
static int exec_in(struct toolbox *t, const char *line)
{
    static const char then[] = "{ . ./cmd.sh; }\necho $? >report.new; mv report.new report\n";
    char path[100], text[20] = "";
    int64_t code = -1;
    snprintf(path, sizeof path, "%s/cmd.sh", folder);
    write_file(path, line);
    snprintf(path, sizeof path, "%s/report", folder);
    unlink(path);
    if (write(t->in, then, strlen(then)) < 0)
        return -1;
    for (int i = 0; i < 2000 && access(path, F_OK) < 0; i++) {
        if (waitpid(t->pid, NULL, WNOHANG | WNOWAIT) != 0 && kill(t->pid, 0) < 0)
            return -1;
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)t->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
            return -1;
        usleep(5000);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    return n > 1 && parse_i64(text, (size_t)n - 1, 0, 255, &code) ? (int)code : -1;
}

static char *line_of_argv(const char *argv)
{
    struct buf line;
    char log[100];
    CLEANUP(free_ptr)
    char *json = xasprintf("{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{"
                           "\"kind\":\"custom\",\"working_dir\":\"%s/work\",\"command\":%s}}",
                           folder, argv);
    struct world *w = world_new(json);
    snprintf(log, sizeof log, "%s/log", folder);
    buf_init(&line, JOB_COMMAND_MAX);
    assert_true(startup_line(&line, w->job, "key", log));
    world_free(w);
    return buf_steal(&line);
}

static void no_command_kills_the_toolbox_session(void **state)
{
    static const struct {
        const char *argv;
        int code;
    } cases[] = {
        {"[\"sh\",\"-c\",\"exit 3\"]", 3},
        {"[\"sh\",\"-c\",\"set -e; false; exit 9\"]", 1},
        {"[\"sh\",\"-c\",\"exec false\"]", 1},
        {"[\"sh\",\"-c\",\"kill -9 $$\"]", 137},
        {"[\"sh\",\"-c\",\"kill -15 $$\"]", 143},
        {"[\"sh\",\"-c\",\"exit 0; '\"]", 2},
        {"[\"sh\",\"-c\",\"trap 'exit 5' EXIT\"]", 5},
        {"[\"exit\",\"3\"]", 127},
        {"[\"set\",\"-e\"]", 127},
        {"[\"exec\",\"true\"]", 127},
        {"[\"eval\",\"exit 3\"]", 127},
        {"[\"; exit 3\"]", 127},
        {"[\"\\nexit 3\\n\"]", 127},
        {"[\"'; exit 3; '\"]", 127},
        {"[\"true\"]", 0},
    };
    static const char *const shells[] = {"dash", "bash"};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(shells); k++) {
        struct toolbox t = open_session(shells[k]);
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            CLEANUP(free_ptr) char *line = line_of_argv(cases[i].argv);
            int code = exec_in(&t, line);
            if (code != cases[i].code)
                fail_msg("%s in %s: %d instead of %d", cases[i].argv, shells[k], code,
                         cases[i].code);
        }
        assert_int_equal(exec_in(&t, "true"), 0);
        close_session(&t);
    }
}

/* So it is with a command that stands there as it is: the simulated session can die. */
static void a_bare_command_does_kill_it(void **state)
{
    static const char *const cases[] = {"exit 3", "exec false", "set -e; false"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct toolbox t = open_session("dash");
        assert_int_equal(exec_in(&t, cases[i]), -1);
        close_session(&t);
    }
}

/* ---- the folder ---- */

static void make_link(const char *to, const char *path)
{
    CLEANUP(free_ptr) char *whole = xasprintf("%s/%s", folder, path);
    for (char *p = strchr(whole + strlen(folder) + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = '\0';
        mkdir(whole, 0700);
        *p = '/';
    }
    if (to)
        assert_int_equal(symlink(to, whole), 0);
}

static int make_folder(void **state)
{
    static const char *const programs[] = {"bin/server", "bin/git", "bin/openhands-agent-server",
                                           "openhands/micromamba/bin/micromamba",
                                           "agent-server/.venv/bin/python"};
    char self[500];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    (void)state;
    if (n < 0 || !mkdtemp(folder))
        return -1;
    self[n] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(programs); i++)
        make_link(self, programs[i]);
    make_link("/bin/dash", "dash/sh");
    make_link("/bin/bash", "bash/sh");
    make_link(NULL, "openhands/code/x");
    make_link(NULL, "work/x");
    signal(SIGPIPE, SIG_IGN);
    return 0;
}

static int drop(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int drop_folder(void **state)
{
    (void)state;
    return nftw(folder, drop, 20, FTW_DEPTH | FTW_PHYS);
}

static void set_seed(void)
{
    const char *text = getenv("SEED");
    int64_t n = 20261124;
    if (text && !parse_i64(text, strlen(text), 0, INT64_MAX, &n))
        n = 1;
    seed = (uint64_t)n;
}

int main(int argc, char **argv, char **env)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    (void)argc;
    if (strcmp(name, "git") == 0)
        return report("git", argv, env);
    if (strncmp(name, "test_", 5) != 0)
        return report("server", argv, env);
    set_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_check_notices_what_is_not_quoted),
        cmocka_unit_test(hostile_texts_arrive_byte_for_byte),
        cmocka_unit_test(no_command_kills_the_toolbox_session),
        cmocka_unit_test(a_bare_command_does_kill_it),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
