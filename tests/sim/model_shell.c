/* A small shell, run to its end at once in simulated time.
 *
 * It knows lists (; && || & newline), groups, subshells, pipes, if, quotes, $NAME and $(…),
 * redirections and here-documents: what startup commands are made of. `sleep 4` moves its clock by
 * four seconds and nothing else waits; what it writes carries the time of writing, and a reader
 * sees what has come by then. A text is parsed twice, first without running anything, so that a
 * syntax error runs nothing, as in a sourced file. Parsing decides by `dry` alone whether things
 * happen. */
#include "tests/sim/model_shell.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* ---- commands ---- */

static bool is_assignment(const char *text, size_t *name_len)
{
    size_t n = 0;
    while (isalnum((unsigned char)text[n]) || text[n] == '_')
        n++;
    *name_len = n;
    return n && text[n] == '=' && !isdigit((unsigned char)text[0]);
}

static void assign(struct shell *sh, const char *text, size_t name_len)
{
    char *name = xmemdup0(text, name_len);
    vars_set(&sh->vars, name, text + name_len + 1);
    free(name);
}

static void free_args(struct args *args)
{
    for (size_t i = 0; i < args->n; i++)
        free(args->v[i]);
    free(args->v);
}

/* Names before a command hold for it alone; they come back as they were. */
static void run_simple(struct parse *ps, struct args *prefix, struct args *args,
                       const struct io *io)
{
    struct shell *sh = ps->sh;
    struct vars before = {0};
    size_t name_len;
    vars_copy(&before, &sh->vars);
    for (size_t i = 0; i < prefix->n; i++)
        if (is_assignment(prefix->v[i], &name_len))
            assign(sh, prefix->v[i], name_len);
    if (args->n) {
        struct sink out = sh->out, err = sh->err;
        sh->out = io->out;
        sh->err = io->err;
        program_run(sh, args, &io->in);
        sh->out = out;
        sh->err = err;
    } else {
        sh->status = 0;
    }
    if (args->n && prefix->n) {
        vars_done(&sh->vars);
        sh->vars = before;
    } else {
        vars_done(&before);
    }
}

static void simple(struct parse *ps, const struct io *outer)
{
    struct io io = *outer;
    struct args prefix = {0}, args = {0};
    size_t cap_prefix = 0, cap_args = 0, words = 0, name_len;
    for (;;) {
        parse_skip_blank(ps);
        if (!parse_more(ps) ||
            (ends_word(*ps->p) && *ps->p != '<' && *ps->p != '>' && !parse_at(ps, "&>")))
            break;
        words++;
        if (parse_redirect(ps, &io))
            continue;
        bool quoted = false;
        const char *raw = ps->p;
        char *text = parse_word(ps, &quoted);
        if (!args.n && is_assignment(raw, &name_len)) {
            GROW(prefix.v, prefix.n, cap_prefix);
            prefix.v[prefix.n++] = text;
        } else if (*text || quoted || ps->dry) {
            GROW(args.v, args.n, cap_args);
            args.v[args.n++] = text;
        } else {
            free(text);
        }
    }
    ps->bad |= !words;
    parse_heredocs(ps);
    if (!ps->bad && !ps->dry)
        run_simple(ps, &prefix, &args, &io);
    free_args(&prefix);
    free_args(&args);
}

/* ( … ) and { … }; the redirections stand behind, so the inside is run after they are known. */
static void group(struct parse *ps, const struct io *outer, char close)
{
    struct io io = *outer;
    bool dry = ps->dry;
    const char *inside = ++ps->p;
    if (++ps->depth > SHELL_DEPTH_MAX)
        ps->bad = true;
    ps->dry = true;
    run_list(ps, &io);
    ps->dry = dry;
    if (!parse_more(ps) || *ps->p != close) {
        ps->bad = true;
        return;
    }
    ps->p++;
    parse_skip_blank(ps);
    while (parse_more(ps) && parse_redirect(ps, &io))
        parse_skip_blank(ps);
    const char *behind = ps->p;
    if (!dry && !ps->bad) {
        struct shell *outer_shell = ps->sh, inner;
        ps->p = inside;
        if (close == ')') {
            shell_fork(&inner, outer_shell);
            ps->sh = &inner;
        }
        run_list(ps, &io);
        if (close == ')')
            shell_join(outer_shell, &inner);
        ps->sh = outer_shell;
        ps->p = behind;
    }
    ps->depth--;
}

static bool expect(struct parse *ps, const char *keyword)
{
    parse_skip_blank(ps);
    if (!parse_more(ps) || !parse_at_keyword(ps, keyword)) {
        ps->bad = true;
        return false;
    }
    ps->p += strlen(keyword);
    return true;
}

static void if_clause(struct parse *ps, const struct io *io)
{
    bool dry = ps->dry, taken = false;
    do {
        ps->p += parse_at_keyword(ps, "if") ? 2 : 4;
        ps->dry = dry || taken;
        run_list(ps, io);
        bool yes = !ps->dry && !ps->sh->status;
        ps->dry = dry || taken || !yes;
        if (!expect(ps, "then"))
            break;
        run_list(ps, io);
        taken |= yes;
    } while (parse_more(ps) && parse_at_keyword(ps, "elif"));
    ps->dry = dry || taken;
    if (parse_more(ps) && parse_at_keyword(ps, "else")) {
        ps->p += 4;
        run_list(ps, io);
    }
    ps->dry = dry;
    expect(ps, "fi");
}

static void command(struct parse *ps, const struct io *io)
{
    parse_skip_blank(ps);
    bool negated = parse_more(ps) && parse_at_keyword(ps, "!");
    if (negated) {
        ps->p++;
        parse_skip_blank(ps);
    }
    if (!parse_more(ps))
        ps->bad = true;
    else if (*ps->p == '(')
        group(ps, io, ')');
    else if (parse_at_keyword(ps, "{"))
        group(ps, io, '}');
    else if (parse_at_keyword(ps, "if"))
        if_clause(ps, io);
    else
        simple(ps, io);
    if (negated && !ps->dry)
        ps->sh->status = !ps->sh->status;
}

static bool find_pipe(struct parse *ps, const struct io *io)
{
    bool dry = ps->dry;
    ps->dry = true;
    command(ps, io);
    ps->dry = dry;
    parse_skip_blank(ps);
    return parse_more(ps) && *ps->p == '|' && !parse_at(ps, "||");
}

/* What the left side writes is there, with its times, when the right side reads it. */
static void pipeline(struct parse *ps, const struct io *io)
{
    const char *start = ps->p;
    bool piped = find_pipe(ps, io);
    if (ps->dry) {
        ps->p += piped;
        if (piped)
            pipeline(ps, io);
        return;
    }
    ps->p = start;
    if (!piped) {
        command(ps, io);
        return;
    }
    struct stream between = {0};
    struct io left = *io, right = *io;
    uint64_t began = ps->sh->t;
    left.out = (struct sink){&between, 1};
    right.in = (struct input){.text = &between};
    command(ps, &left);
    uint64_t ended = ps->sh->t;
    parse_skip_blank(ps);
    ps->p++;
    ps->sh->t = began;
    pipeline(ps, &right);
    ps->sh->t = MAX(ps->sh->t, ended);
    stream_done(&between);
}

static bool stopped(const struct shell *sh)
{
    return sh->exited || sh->t == NEVER;
}

static void and_or(struct parse *ps, const struct io *io)
{
    bool dry = ps->dry;
    pipeline(ps, io);
    for (;;) {
        parse_skip_blank(ps);
        bool both = parse_more(ps) && parse_at(ps, "&&"),
             either = parse_more(ps) && parse_at(ps, "||");
        if (!both && !either)
            break;
        ps->p += 2;
        while (parse_more(ps) && isspace((unsigned char)*ps->p))
            ps->p++;
        ps->dry = dry || stopped(ps->sh) || (both ? ps->sh->status != 0 : ps->sh->status == 0);
        pipeline(ps, io);
    }
    ps->dry = dry;
}

/* In the background it has a clock of its own; who reads our output waits for whoever still holds
 * it. */
static void background(struct parse *ps, const struct io *io)
{
    struct shell *outer = ps->sh, inner;
    struct io detached = *io;
    detached.in = (struct input){.open = false};
    shell_fork(&inner, outer);
    ps->sh = &inner;
    inner.holds_output = false;
    and_or(ps, &detached);
    ps->sh = outer;
    if (inner.holds_output)
        outer->held_until = MAX(outer->held_until, MAX(inner.t, inner.held_until));
    shell_done(&inner);
    outer->status = 0;
}

static void list_item(struct parse *ps, const struct io *io)
{
    const char *start = ps->p;
    bool dry = ps->dry;
    ps->dry = true;
    and_or(ps, io);
    ps->dry = dry;
    const char *behind = ps->p;
    bool in_background = parse_more(ps) && *ps->p == '&';
    if (dry || ps->bad)
        return;
    ps->p = start;
    if (in_background)
        background(ps, io);
    else
        and_or(ps, io);
    ps->p = behind;
    if (ps->sh->errexit && ps->sh->status && !in_background)
        ps->sh->exited = true;
}

static void end_line(struct parse *ps)
{
    ps->p++;
    if (ps->after_heredoc && ps->after_heredoc > ps->p)
        ps->p = ps->after_heredoc;
    ps->after_heredoc = NULL;
}

void run_list(struct parse *ps, const struct io *io)
{
    bool dry = ps->dry;
    for (;;) {
        parse_skip_blank(ps);
        if (!parse_more(ps) || parse_at_list_end(ps))
            break;
        if (*ps->p == '\n') {
            end_line(ps);
            continue;
        }
        list_item(ps, io);
        parse_skip_blank(ps);
        if (parse_more(ps) && (*ps->p == ';' || *ps->p == '&'))
            ps->p++;
        else if (parse_more(ps) && *ps->p != '\n' && !parse_at_list_end(ps))
            ps->bad = true;
        ps->dry = dry || stopped(ps->sh);
    }
    ps->dry = dry;
}

/* ---- variables ---- */

const char *vars_get(const struct vars *vars, const char *name)
{
    for (size_t i = 0; i < vars->n; i++)
        if (!strcmp(vars->v[i].name, name))
            return vars->v[i].value;
    return NULL;
}

void vars_set(struct vars *vars, const char *name, const char *value)
{
    for (size_t i = 0; i < vars->n; i++) {
        if (!strcmp(vars->v[i].name, name)) {
            free(vars->v[i].value);
            vars->v[i].value = xstrdup(value);
            return;
        }
    }
    GROW(vars->v, vars->n, vars->cap);
    vars->v[vars->n++] = (struct var){xstrdup(name), xstrdup(value)};
}

void vars_copy(struct vars *to, const struct vars *from)
{
    for (size_t i = 0; i < from->n; i++)
        vars_set(to, from->v[i].name, from->v[i].value);
}

void vars_done(struct vars *vars)
{
    for (size_t i = 0; i < vars->n; i++) {
        free(vars->v[i].name);
        free(vars->v[i].value);
    }
    free(vars->v);
    *vars = (struct vars){0};
}

/* ---- a shell as a whole ---- */

void shell_init(struct shell *sh, struct model *m, struct box *b)
{
    *sh = (struct shell){.m = m, .box = b, .d = box_daemon(b), .t = m->now, .script_name = "bash"};
    sh->cwd = xstrdup(home_directory);
}

void shell_done(struct shell *sh)
{
    vars_done(&sh->vars);
    free(sh->cwd);
    sh->cwd = NULL;
}

void shell_fork(struct shell *child, const struct shell *sh)
{
    *child = *sh;
    child->vars = (struct vars){0};
    vars_copy(&child->vars, &sh->vars);
    child->cwd = xstrdup(sh->cwd);
    child->depth++;
    child->held_until = 0;
}

/* The parent goes on when the child has ended; its variables and its `exit` stay its own. */
void shell_join(struct shell *sh, struct shell *child)
{
    sh->t = child->t;
    sh->held_until = MAX(sh->held_until, child->held_until);
    sh->status = child->signal ? 128 + child->signal : child->status;
    sh->holds_output |= child->holds_output;
    shell_done(child);
}

void shell_run(struct shell *sh, const char *text, size_t len)
{
    struct io io = {.out = sh->out, .err = sh->err, .in = {.open = sh->stdin_open}};
    for (int pass = 0; pass < 2; pass++) {
        struct parse ps = {.p = text, .end = text + len, .sh = sh, .dry = pass == 0};
        ps.bad = sh->depth > SHELL_DEPTH_MAX;
        run_list(&ps, &io);
        ps.bad |= ps.p < ps.end; /* a ) or fi that nothing opened */
        for (size_t i = 0; i < ps.n_here; i++)
            free(ps.here[i].until);
        if (!ps.bad)
            continue;
        sink_printf(sh, sh->err, "bash: line 1: syntax error\n");
        sh->status = 2;
        return;
    }
}
