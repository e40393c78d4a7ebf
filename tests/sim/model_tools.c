/* Text and file tools of the simulated shell: echo, cat, tail, mkdir, test and the like. */
#include "tests/sim/model_shell.h"

#include <string.h>

/* ---- text ---- */

static void run_echo(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    struct buf text;
    bool newline = !arg(args, 1) || strcmp(args->v[1], "-n") != 0;
    buf_init(&text, TEXT_MAX);
    for (size_t i = newline ? 1 : 2; i < args->n; i++) {
        if (text.len)
            buf_addc(&text, ' ');
        buf_adds(&text, args->v[i]);
    }
    if (newline)
        buf_addc(&text, '\n');
    sink_write(sh, sh->out, buf_text(&text), text.len);
    buf_done(&text);
}

/* One backslash escape of printf; returns where the text goes on. */
static const char *add_escape(struct buf *out, const char *p)
{
    static const char from[] = "ntre\\\"'", to[] = "\n\t\r\033\\\"'";
    const char *known = *p ? strchr(from, *p) : NULL;
    if (known) {
        buf_addc(out, to[known - from]);
        return p + 1;
    }
    unsigned value = 0, digits = 0;
    while (digits < 3 && *p >= '0' && *p <= '7') {
        value = value * 8 + (unsigned)(*p++ - '0');
        digits++;
    }
    buf_addc(out, digits ? (char)value : '\\');
    return p;
}

static void run_printf(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    struct buf text;
    size_t next = 2;
    buf_init(&text, TEXT_MAX);
    for (const char *p = arg(args, 1); p && *p;) {
        if (*p == '\\') {
            p = add_escape(&text, p + 1);
        } else if (*p == '%' && p[1] == '%') {
            buf_addc(&text, '%');
            p += 2;
        } else if (*p == '%' && p[1]) {
            const char *value = arg(args, next++);
            buf_adds(&text, value ? value : "");
            p += 2;
        } else {
            buf_addc(&text, *p++);
        }
    }
    sink_write(sh, sh->out, buf_text(&text), text.len);
    buf_done(&text);
}

/* Hands on what comes in, each piece at its time. */
static void copy_input(struct shell *sh, const struct input *in, struct sink to)
{
    if (in->text) {
        for (size_t i = 0, n = in->text->n; i < n; i++) {
            const struct chunk *c = &in->text->chunks[i];
            if (to.stream && c->tag != STREAM_CUT)
                stream_add(to.stream, MAX(c->at, sh->t), sh->proc, to.tag, c->text, c->len);
        }
    } else if (in->open) {
        sh->t = NEVER;
    }
}

static bool read_file(struct shell *sh, const char *program, const char *path, struct buf *out)
{
    char *full = path_join(sh->cwd, path);
    struct file *f = file_find(sh->d, full, sh->t);
    bool can = f && !f->is_dir;
    if (can)
        stream_read(&f->stream, sh->t, 0, out);
    else if (!strcmp(program, "cat"))
        sink_printf(sh, sh->err, "cat: %s: No such file or directory\n", path);
    else
        sink_printf(sh, sh->err, "%s: cannot open '%s' for reading: No such file or directory\n",
                    program, path);
    free(full);
    return can;
}

static void run_cat(struct shell *sh, const struct args *args, const struct input *in)
{
    if (args->n < 2) {
        copy_input(sh, in, sh->out);
        return;
    }
    for (size_t i = 1; i < args->n; i++) {
        struct buf text;
        buf_init(&text, BODY_MAX);
        if (!read_file(sh, "cat", args->v[i], &text))
            sh->status = 1;
        sink_write(sh, sh->out, buf_text(&text), text.len);
        buf_done(&text);
    }
}

static void run_tee(struct shell *sh, const struct args *args, const struct input *in)
{
    copy_input(sh, in, sh->out);
    for (size_t i = 1; i < args->n; i++) {
        if (*args->v[i] == '-')
            continue;
        char *full = path_join(sh->cwd, args->v[i]);
        struct file *f = file_make(sh->d, full, sh->t, false);
        copy_input(sh, in, (struct sink){&f->stream, 1});
        free(full);
    }
}

static size_t last_lines(const char *text, size_t len, int64_t lines)
{
    size_t from = len - (len && text[len - 1] == '\n');
    while (from > 0 && (text[from - 1] != '\n' || --lines > 0))
        from--;
    return from;
}

/* tail [-c BYTES | -n LINES] FILE */
static void run_tail(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    int64_t bytes = -1, lines = 10;
    const char *path = NULL;
    for (size_t i = 1; i < args->n; i++) {
        const char *option = args->v[i], *value = arg(args, i + 1);
        int64_t *number = !strcmp(option, "-c") ? &bytes : !strcmp(option, "-n") ? &lines : NULL;
        if (!number)
            path = option;
        else if (value && parse_i64(value, strlen(value), 0, INT32_MAX, number))
            i++;
    }
    struct buf text;
    buf_init(&text, BODY_MAX);
    if (!path || !read_file(sh, "tail", path, &text)) {
        sh->status = 1;
    } else {
        size_t from = bytes >= 0 ? text.len - MIN(text.len, (size_t)bytes)
                                 : last_lines(buf_text(&text), text.len, lines);
        sink_write(sh, sh->out, buf_text(&text) + from, text.len - from);
    }
    buf_done(&text);
}

static void run_date(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)args;
    (void)in;
    sink_printf(sh, sh->out, "%llu\n",
                (unsigned long long)((sh->m->opt.wall_ms + sh->t / NS_PER_MS) / 1000));
}

static void run_pwd(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)args;
    (void)in;
    sink_printf(sh, sh->out, "%s\n", sh->cwd);
}

static void run_id(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)args;
    (void)in;
    sink_printf(sh, sh->out, "%s\n", sh->box->user);
}

/* ---- files ---- */

static void run_mkdir(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    bool parents = false;
    for (size_t i = 1; i < args->n; i++) {
        if (*args->v[i] == '-') {
            parents |= strchr(args->v[i], 'p') != NULL;
            continue;
        }
        char *full = path_join(sh->cwd, args->v[i]);
        if (file_find(sh->d, full, sh->t) && !parents) {
            sink_printf(sh, sh->err, "mkdir: cannot create directory '%s': File exists\n",
                        args->v[i]);
            sh->status = 1;
        }
        file_make(sh->d, full, sh->t, true);
        free(full);
    }
}

static void run_touch(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    for (size_t i = 1; i < args->n; i++) {
        char *full = path_join(sh->cwd, args->v[i]);
        if (*args->v[i] != '-')
            file_make(sh->d, full, sh->t, false);
        free(full);
    }
}

static void run_rm(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    for (size_t i = 1; i < args->n; i++) {
        char *full = path_join(sh->cwd, args->v[i]);
        file_remove(sh->d, full);
        free(full);
    }
}

static bool test_holds(struct shell *sh, const struct args *args)
{
    const char *op = arg(args, 1), *what = arg(args, 2), *right = arg(args, 3);
    if (!op || !what)
        return op && strcmp(op, "]") != 0 && *op;
    if (*op == '!') {
        struct args rest = tail_of(args, 1);
        return !test_holds(sh, &rest);
    }
    if (!strcmp(what, "=") || !strcmp(what, "=="))
        return right && !strcmp(op, right);
    if (!strcmp(what, "!="))
        return right && strcmp(op, right) != 0;
    if (!strcmp(op, "-n") || !strcmp(op, "-z"))
        return (op[1] == 'n') == (*what != '\0');
    char *full = path_join(sh->cwd, what);
    struct file *f = file_find(sh->d, full, sh->t);
    free(full);
    return f && (op[1] == 'e' || f->is_dir == (op[1] == 'd'));
}

static void run_test(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)in;
    sh->status = !test_holds(sh, args);
}

/* ---- what does nothing here that anybody could see ---- */

static void run_true(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)sh;
    (void)args;
    (void)in;
}

static void run_false(struct shell *sh, const struct args *args, const struct input *in)
{
    (void)args;
    (void)in;
    sh->status = 1;
}

const struct program tools[] = {
    {"echo", run_echo},     {"printf", run_printf}, {"cat", run_cat},     {"tee", run_tee},
    {"tail", run_tail},     {"date", run_date},     {"pwd", run_pwd},     {"id", run_id},
    {"whoami", run_id},     {"mkdir", run_mkdir},   {"touch", run_touch}, {"rm", run_rm},
    {"test", run_test},     {"[", run_test},        {"true", run_true},   {"false", run_false},
    {"chmod", run_true},    {"chown", run_true},    {"ls", run_true},     {"sync", run_true},
    {"git", run_true},      {"cp", run_true},       {"mv", run_true},     {"ln", run_true},
    {"sed", run_true},      {"grep", run_true},     {"find", run_true},   {"curl", run_true},
    {"wget", run_true},     {"pip", run_true},      {"pip3", run_true},   {"apt-get", run_true},
    {"tar", run_true},      {"stty", run_true},     {"uname", run_true},  {"hostname", run_true},
    {"printenv", run_true}, {"ps", run_true},       {NULL, NULL},
};
