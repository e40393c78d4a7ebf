/* Words, quotes, $NAME and $(…), redirections and here-documents of the simulated shell.
 *
 * Words are expanded as they are read, so a dry pass reads the same text but looks nothing up. A
 * command runs when its line has been read; the here-documents that the line announces stand behind
 * it and are fetched first. */
#include "tests/sim/model_shell.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { WORD_MAX = 1 << 20 };

/* ---- lexing ---- */

bool parse_more(const struct parse *ps)
{
    return !ps->bad && ps->p < ps->end;
}

bool parse_at(const struct parse *ps, const char *token)
{
    size_t len = strlen(token);
    return (size_t)(ps->end - ps->p) >= len && !memcmp(ps->p, token, len);
}

void parse_skip_blank(struct parse *ps)
{
    while (parse_more(ps)) {
        if (*ps->p == ' ' || *ps->p == '\t' || *ps->p == '\r')
            ps->p++;
        else if (parse_at(ps, "\\\n"))
            ps->p += 2;
        else if (*ps->p == '#')
            while (parse_more(ps) && *ps->p != '\n')
                ps->p++;
        else
            break;
    }
}

bool ends_word(char c)
{
    return strchr(" \t\r\n;&|()<>", c) != NULL;
}

/* A reserved word stands alone where a command begins. */
bool parse_at_keyword(const struct parse *ps, const char *word)
{
    size_t len = strlen(word);
    return parse_at(ps, word) && (ps->p + len == ps->end || ends_word(ps->p[len]));
}

bool parse_at_list_end(const struct parse *ps)
{
    static const char *const enders[] = {"}", "then", "else", "elif", "fi"};
    if (*ps->p == ')')
        return true;
    for (size_t i = 0; i < ARRAY_LEN(enders); i++)
        if (parse_at_keyword(ps, enders[i]))
            return true;
    return false;
}

/* ---- words ---- */

static void add_var(struct parse *ps, const char *name, size_t len, struct buf *out)
{
    char *text = xmemdup0(name, len);
    const char *value = vars_get(&ps->sh->vars, text);
    if (value)
        buf_adds(out, value);
    free(text);
}

/* $(…): what the commands write, without the newlines at its end. */
static void add_substitution(struct parse *ps, struct buf *out)
{
    struct stream written = {0};
    struct io io = {.out = {&written, 1}, .err = ps->sh->err, .in = {.open = false}};
    ps->p += 2;
    if (++ps->depth > SHELL_DEPTH_MAX)
        ps->bad = true;
    run_list(ps, &io);
    ps->depth--;
    if (!parse_more(ps) || *ps->p != ')')
        ps->bad = true;
    else
        ps->p++;
    size_t before = out->len;
    if (!ps->dry)
        stream_read(&written, ps->sh->t, 0, out);
    while (out->len > before && out->data[out->len - 1] == '\n')
        out->data[--out->len] = '\0';
    stream_done(&written);
}

static void add_dollar(struct parse *ps, struct buf *out)
{
    const char *name = ps->p + 1;
    size_t len = 0;
    if (parse_at(ps, "$(")) {
        add_substitution(ps, out);
        return;
    }
    if (parse_at(ps, "${")) {
        const char *close = memchr(ps->p, '}', (size_t)(ps->end - ps->p));
        ps->bad |= !close;
        if (!close)
            return;
        name++;
        len = (size_t)(close - name);
        ps->p = close + 1;
    } else if (name < ps->end && strchr("$?!#", *name)) {
        ps->p += 2;
        buf_addf(out, "%d", *name == '?' ? ps->sh->status : *name == '#' ? 0 : 4242);
        return;
    } else {
        while (name + len < ps->end && (isalnum((unsigned char)name[len]) || name[len] == '_'))
            len++;
        ps->p = name + len;
    }
    if (!len)
        buf_addc(out, '$');
    else if (!ps->dry)
        add_var(ps, name, strcspn(name, "}:") < len ? strcspn(name, "}:") : len, out);
}

static void add_single(struct parse *ps, struct buf *out)
{
    const char *from = ++ps->p, *close = memchr(from, '\'', (size_t)(ps->end - from));
    ps->bad |= !close;
    if (!close)
        return;
    buf_add(out, from, (size_t)(close - from));
    ps->p = close + 1;
}

static void add_double(struct parse *ps, struct buf *out)
{
    ps->p++;
    while (parse_more(ps) && *ps->p != '"') {
        if (*ps->p == '$') {
            add_dollar(ps, out);
        } else if (*ps->p == '\\' && ps->p + 1 < ps->end && strchr("\"\\$`\n", ps->p[1])) {
            if (ps->p[1] != '\n')
                buf_addc(out, ps->p[1]);
            ps->p += 2;
        } else {
            buf_addc(out, *ps->p++);
        }
    }
    if (ps->p >= ps->end)
        ps->bad = true;
    else
        ps->p++;
}

/* Reads one word into out; *quoted: an empty one counts. */
static void read_word(struct parse *ps, struct buf *out, bool *quoted)
{
    while (parse_more(ps) && !ends_word(*ps->p)) {
        if (*ps->p == '\'') {
            *quoted = true;
            add_single(ps, out);
        } else if (*ps->p == '"') {
            *quoted = true;
            add_double(ps, out);
        } else if (*ps->p == '$') {
            add_dollar(ps, out);
        } else if (*ps->p == '\\' && ps->p + 1 < ps->end) {
            buf_addc(out, ps->p[1]);
            ps->p += 2;
        } else {
            buf_addc(out, *ps->p++);
        }
    }
}

char *parse_word(struct parse *ps, bool *quoted)
{
    struct buf text;
    buf_init(&text, WORD_MAX);
    parse_skip_blank(ps);
    read_word(ps, &text, quoted);
    return buf_steal(&text);
}

/* ---- redirections ---- */

static struct sink open_file(struct parse *ps, const char *path, bool append)
{
    struct shell *sh = ps->sh;
    if (!strcmp(path, "/dev/null"))
        return (struct sink){NULL, 1};
    char *full = path_join(sh->cwd, path);
    struct file *f = file_make(sh->d, full, sh->t, false);
    if (!append)
        stream_add(&f->stream, sh->t, NULL, STREAM_CUT, "", 0);
    free(full);
    return (struct sink){&f->stream, 1};
}

static void redirect_in(struct parse *ps, struct io *io, const char *path)
{
    char *full = path_join(ps->sh->cwd, path);
    struct file *f = file_find(ps->sh->d, full, ps->sh->t);
    io->in = (struct input){.open = false, .text = f ? &f->stream : NULL};
    free(full);
}

static void announce_heredoc(struct parse *ps, struct io *io)
{
    bool quoted = false;
    ps->p += 2;
    char *until = parse_word(ps, &quoted);
    if (ps->n_here == HEREDOCS_MAX || !*until) {
        ps->bad = true;
        free(until);
        return;
    }
    struct file *f = file_make(ps->sh->d, "/proc/here", ps->sh->t, false);
    io->in = (struct input){.open = false, .text = &f->stream};
    ps->here[ps->n_here].until = until;
    ps->here[ps->n_here].raw = quoted;
    ps->here[ps->n_here++].into = &f->stream;
}

static void redirect(struct parse *ps, struct io *io, const char *op, int fd)
{
    bool quoted = false, append = !strcmp(op, ">>");
    char *target = parse_word(ps, &quoted);
    bool both = !strcmp(op, "&>");
    if (!*target && !quoted)
        ps->bad = true;
    else if (!ps->dry && !strcmp(op, "<"))
        redirect_in(ps, io, target);
    else if (!ps->dry && !strcmp(op, ">&"))
        *(fd == 2 ? &io->err : &io->out) = *target == '2' ? io->err : io->out;
    else if (!ps->dry)
        *(fd == 2 ? &io->err : &io->out) = open_file(ps, target, append);
    if (!ps->dry && both)
        io->err = io->out;
    free(target);
}

/* True: there was one. */
bool parse_redirect(struct parse *ps, struct io *io)
{
    static const char *const ops[] = {"&>", ">>", ">&", ">", "<<", "<"};
    int fd = 1;
    const char *before = ps->p;
    if (ps->p + 1 < ps->end && (*ps->p == '1' || *ps->p == '2') && ps->p[1] == '>')
        fd = *ps->p++ - '0';
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        if (!parse_at(ps, ops[i]))
            continue;
        if (!strcmp(ops[i], "<<")) {
            announce_heredoc(ps, io);
            return true;
        }
        ps->p += strlen(ops[i]);
        redirect(ps, io, ops[i], fd);
        return true;
    }
    ps->p = before;
    return false;
}

static bool heredoc_line(struct parse *ps, size_t i, struct buf *text)
{
    const char *nl = memchr(ps->p, '\n', (size_t)(ps->end - ps->p));
    size_t len = (size_t)((nl ? nl : ps->end) - ps->p);
    bool last = len == strlen(ps->here[i].until) && !memcmp(ps->p, ps->here[i].until, len);
    if (!last) {
        struct parse line = {.p = ps->p, .end = ps->p + len, .sh = ps->sh, .dry = ps->dry};
        while (parse_more(&line)) {
            if (*line.p == '$' && !ps->here[i].raw)
                add_dollar(&line, text);
            else
                buf_addc(text, *line.p++);
        }
        buf_addc(text, '\n');
    }
    ps->p += len + (nl != NULL);
    return !last && nl;
}

/* At a newline: the texts of the here-documents follow. */
static void read_heredocs(struct parse *ps)
{
    for (size_t i = 0; i < ps->n_here; i++) {
        struct buf text;
        buf_init(&text, WORD_MAX);
        while (ps->p < ps->end && heredoc_line(ps, i, &text))
            ;
        if (!ps->dry) {
            stream_add(ps->here[i].into, ps->sh->t, NULL, STREAM_CUT, "", 0);
            stream_add(ps->here[i].into, ps->sh->t, NULL, 1, buf_text(&text), text.len);
        }
        buf_done(&text);
        free(ps->here[i].until);
    }
    ps->n_here = 0;
}

/* The command runs when its line is read, so the texts behind the line are read before it. */
void parse_heredocs(struct parse *ps)
{
    const char *here = ps->p;
    const char *nl = ps->n_here ? memchr(here, '\n', (size_t)(ps->end - here)) : NULL;
    if (!nl)
        return;
    ps->p = nl + 1;
    read_heredocs(ps);
    ps->after_heredoc = ps->p;
    ps->p = here;
}
