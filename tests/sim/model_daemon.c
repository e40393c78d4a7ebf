/* The daemon in a sandbox: sessions and their commands.
 *
 * A session runs one command at a time; the next waits, for ever if need be. A command that ends
 * its shell (exit, exec or set -e at the top) never gets an exit code, and every later exec finds a
 * broken pipe. Queued commands are begun when somebody looks, with the time at which their turn
 * came: nobody can tell the difference. All of it is forgotten when the sandbox stops. */
#include "tests/sim/model_shell.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"

enum {
    JSON_LOGS_SINCE = 167,
    SESSION_ID_MAX_BYTES = 255,
    SYNC_MS = 50,
    DELETE_MS = 110,
    DELETE_STUBBORN_MS = 5000
};

/* ---- keeping ---- */

struct daemon *box_daemon(struct box *b)
{
    if (!b->daemon)
        b->daemon = xcalloc(1, sizeof *b->daemon);
    return b->daemon;
}

struct proc *daemon_proc(struct daemon *d, struct shell_session *s)
{
    struct proc *p = xcalloc(1, sizeof *p);
    p->ended = p->listens_from = NEVER;
    GROW(d->procs, d->n_procs, d->cap_procs);
    d->procs[d->n_procs++] = p;
    if (s) {
        GROW(s->procs, s->n_procs, s->cap_procs);
        s->procs[s->n_procs++] = p;
    }
    return p;
}

static void session_free(struct shell_session *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->commands[i]->text);
        stream_done(&s->commands[i]->out);
        free(s->commands[i]);
    }
    free(s->commands);
    free(s->procs);
    vars_done(&s->vars);
    free(s->cwd);
    free(s->id);
    free(s);
}

void daemon_free(struct daemon *d)
{
    if (!d)
        return;
    struct shell_session *s, *next;
    DL_FOREACH_SAFE(d->sessions, s, next)
    session_free(s);
    struct file *f, *next_file;
    HASH_ITER(hh, d->files, f, next_file)
    {
        HASH_DEL(d->files, f);
        stream_done(&f->stream);
        free(f->path);
        free(f);
    }
    for (size_t i = 0; i < d->n_procs; i++) {
        free(d->procs[i]->key);
        free(d->procs[i]);
    }
    free(d->procs);
    free(d);
}

static struct shell_session *session_find(struct box *b, const char *id)
{
    struct shell_session *s = NULL;
    if (b->daemon)
        DL_FOREACH(b->daemon->sessions, s)
    if (!strcmp(s->id, id))
        break;
    return s;
}

static struct shell_session *session_new(struct box *b, const char *id)
{
    struct shell_session *s = xcalloc(1, sizeof *s);
    s->id = xstrdup(id);
    s->dead_at = NEVER;
    s->cwd = xstrdup(home_directory);
    DL_APPEND(box_daemon(b)->sessions, s);
    return s;
}

/* ---- running ---- */

static void command_begin(struct model *m, struct box *b, struct shell_session *s,
                          struct command *cmd, uint64_t when)
{
    struct shell sh;
    shell_init(&sh, m, b);
    free(sh.cwd);
    sh.t = cmd->began = when;
    sh.session = s;
    sh.cwd = s->cwd;
    sh.vars = s->vars;
    sh.own = &cmd->out;
    sh.out = (struct sink){&cmd->out, 1};
    sh.err = (struct sink){&cmd->out, 2};
    sh.stdin_open = cmd->async;
    sh.proc = cmd->proc = daemon_proc(b->daemon, s);
    char *script = xasprintf("%s/.daytona/sessions/%s/%s/cmd.sh", home_directory, s->id, cmd->id);
    sh.script_name = script;
    shell_run(&sh, cmd->text, strlen(cmd->text));
    free(script);
    cmd->ended = cmd->proc->ended = MAX(sh.t, sh.held_until);
    cmd->exit_code = sh.status;
    cmd->fatal = sh.exited;
    if (sh.exited)
        s->dead_at = sh.replaced ? when : sh.t;
    s->cwd = sh.cwd;
    s->vars = sh.vars;
}

static void session_settle(struct model *m, struct box *b, struct shell_session *s)
{
    uint64_t free_from = 0;
    for (size_t i = 0; i < s->n; i++) {
        struct command *cmd = s->commands[i];
        if (cmd->began == NEVER) {
            uint64_t when = MAX(free_from, cmd->queued_at);
            if (when > m->now || s->dead_at <= when)
                return;
            command_begin(m, b, s, cmd, when);
        }
        free_from = cmd->ended;
    }
}

void daemon_settle(struct model *m, struct box *b)
{
    struct shell_session *s;
    if (b->daemon)
        DL_FOREACH(b->daemon->sessions, s)
    session_settle(m, b, s);
}

/* The server that answers on port now; NULL: nobody. */
struct proc *daemon_listener(struct model *m, struct box *b, int port)
{
    daemon_settle(m, b);
    for (size_t i = 0; b->daemon && i < b->daemon->n_procs; i++) {
        struct proc *p = b->daemon->procs[i];
        int own_port = p->port ? p->port : b->asked_port;
        if (p->is_server && own_port == port && p->listens_from <= m->now && p->ended > m->now)
            return p;
    }
    return NULL;
}

/* ---- sessions ---- */

static void session_missing(struct call *c)
{
    go_error(c, 404, "not found: session not found");
}

static struct shell_session *find_session(struct call *c)
{
    return session_find(c->box, call_segment(c, 0));
}

const char *daemon_json_fault(const struct call *c)
{
    if (!c->rq->body_len)
        return "EOF";
    if (c->rq->body_len > 1 && c->rq->body[0] == '{')
        return "invalid character 'b' looking for beginning of object key string";
    return "invalid character 'o' in literal null (expecting 'u')";
}

void daemon_parse_body(struct call *c)
{
    c->body = c->rq->body_len ? cJSON_ParseWithLength(c->rq->body, c->rq->body_len) : NULL;
}

void tb_session_create(struct call *c)
{
    daemon_parse_body(c);
    const char *id = json_str(c->body, "sessionId", "");
    if (!cJSON_IsObject(c->body)) {
        go_error(c, 400, "invalid body request: %s", daemon_json_fault(c));
    } else if (!*id) {
        go_error(c, 400,
                 "invalid body request: Key: 'CreateSessionRequest.SessionId' Error:Field "
                 "validation for 'SessionId' failed on the 'required' tag");
    } else if (!strcmp(id, "entrypoint")) {
        go_error(c, 400,
                 "bad request: provided session ID is reserved and cannot be created/overridden");
    } else if (session_find(c->box, id)) {
        go_error(c, 409, "conflict: session already exists");
    } else {
        session_new(c->box, id);
        if (strlen(id) > SESSION_ID_MAX_BYTES) /* and yet it exists */
            go_error(c, 500, "mkdir %s/.daytona/sessions/%s: file name too long", home_directory,
                     id);
        else
            empty_reply(c, 201);
    }
}

static void print_text(struct buf *b, const char *text)
{
    struct buf quoted;
    buf_init(&quoted, BODY_MAX);
    json_quote(&quoted, text, strlen(text));
    for (const char *p = buf_text(&quoted); *p; p++) {
        if (strchr("<>&", *p))
            buf_addf(b, "\\u%04x", (unsigned)*p);
        else
            buf_addc(b, *p);
    }
    buf_done(&quoted);
}

static void print_command(const struct model *m, const struct command *cmd, struct buf *b)
{
    buf_addf(b, "{\"id\":\"%s\",\"command\":", cmd->id);
    print_text(b, cmd->text);
    if (cmd->ended <= m->now && !cmd->fatal)
        buf_addf(b, ",\"exitCode\":%d", cmd->exit_code);
    buf_addc(b, '}');
}

static void print_session(const struct model *m, const struct shell_session *s, struct buf *b)
{
    buf_adds(b, "{\"sessionId\":");
    print_text(b, s->id);
    buf_adds(b, ",\"commands\":[");
    for (size_t i = 0; i < s->n; i++) {
        if (i)
            buf_addc(b, ',');
        print_command(m, s->commands[i], b);
    }
    buf_adds(b, "]}");
}

void tb_session_get(struct call *c)
{
    struct shell_session *s = find_session(c);
    if (!s) {
        session_missing(c);
        return;
    }
    reply_json(c, 200);
    print_session(c->m, s, &c->re->body);
}

void tb_session_list(struct call *c)
{
    struct shell_session *s;
    const char *comma = "";
    reply_json(c, 200);
    buf_addc(&c->re->body, '[');
    if (c->box->daemon) {
        DL_FOREACH(c->box->daemon->sessions, s)
        {
            buf_adds(&c->re->body, comma);
            print_session(c->m, s, &c->re->body);
            comma = ",";
        }
    }
    buf_addc(&c->re->body, ']');
}

/* Kills all that was started in it, however it was detached. */
void tb_session_delete(struct call *c)
{
    struct shell_session *s = find_session(c);
    if (!s) {
        session_missing(c);
        return;
    }
    for (size_t i = 0; i < s->n_procs; i++)
        s->procs[i]->ended = MIN(s->procs[i]->ended, c->m->now);
    c->re->at_ns += from_ms(s->ignores_term ? DELETE_STUBBORN_MS : DELETE_MS);
    DL_DELETE(c->box->daemon->sessions, s);
    session_free(s);
    empty_reply(c, 204);
}

/* ---- commands ---- */

bool daemon_blank(const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    return !*text;
}

static struct command *command_new(struct call *c, struct shell_session *s, const char *text)
{
    struct command *cmd = xcalloc(1, sizeof *cmd);
    make_id(c->m, cmd->id);
    cmd->text = xstrdup(text);
    cmd->began = cmd->ended = NEVER;
    cmd->queued_at = c->m->now;
    cmd->async = json_bool(c->body, "runAsync", false) || json_bool(c->body, "async", false);
    GROW(s->commands, s->n, s->cap);
    s->commands[s->n++] = cmd;
    session_settle(c->m, c->box, s);
    return cmd;
}

void daemon_print_output(struct buf *b, const struct stream *out, uint64_t now, int tag)
{
    struct buf text;
    buf_init(&text, BODY_MAX);
    stream_read(out, now, tag, &text);
    json_quote(b, buf_text(&text), text.len);
    buf_done(&text);
}

static const char *const marks[] = {"", "\1\1\1", "\2\2\2"};

/* The daemon splits its mixed log by markers, one in front of each line. */
static void read_marked(const struct stream *out, uint64_t now, struct buf *to)
{
    int last = 0;
    for (size_t i = 0; i < out->n; i++) {
        const struct chunk *k = &out->chunks[i];
        if (k->at > now || k->tag == STREAM_CUT || (k->by && k->at > k->by->ended))
            continue;
        if (k->tag != last || (to->len && to->data[to->len - 1] == '\n'))
            buf_adds(to, marks[k->tag]);
        last = k->tag;
        buf_add(to, k->text, k->len);
    }
    if (to->len && to->data[to->len - 1] != '\n')
        buf_addc(to, '\n');
}

static void print_lines(struct buf *b, const struct stream *out, uint64_t now, int tag)
{
    struct buf text;
    buf_init(&text, BODY_MAX);
    stream_read(out, now, tag, &text);
    if (text.len && text.data[text.len - 1] != '\n')
        buf_addc(&text, '\n');
    json_quote(b, buf_text(&text), text.len);
    buf_done(&text);
}

static bool wants_json(const struct call *c)
{
    const char *version = sim_call_header(c, "X-Daytona-SDK-Version");
    const char *dot = version ? strchr(version, '.') : NULL;
    int64_t major, minor;
    return dot && parse_i64(version, (size_t)(dot - version), 0, INT32_MAX, &major) &&
           parse_i64(dot + 1, strcspn(dot + 1, "."), 0, INT32_MAX, &minor) &&
           (major > 0 || minor >= JSON_LOGS_SINCE);
}

static void print_split(struct call *c, const struct command *cmd, uint64_t when)
{
    struct buf *b = &c->re->body, marked;
    buf_init(&marked, BODY_MAX);
    read_marked(&cmd->out, when, &marked);
    json_quote(b, buf_text(&marked), marked.len);
    buf_done(&marked);
    buf_adds(b, ",\"stdout\":");
    print_lines(b, &cmd->out, when, 1);
    buf_adds(b, ",\"stderr\":");
    print_lines(b, &cmd->out, when, 2);
}

static void answer_sync(struct call *c, const struct command *cmd)
{
    struct buf *b = &c->re->body;
    c->re->at_ns = cmd->ended == NEVER || cmd->fatal ? NEVER : cmd->ended + from_ms(SYNC_MS);
    reply_json(c, 200);
    buf_addf(b, "{\"cmdId\":\"%s\",\"output\":", cmd->id);
    if (wants_json(c)) {
        print_split(c, cmd, cmd->ended);
    } else {
        daemon_print_output(b, &cmd->out, cmd->ended, 0);
        buf_adds(b, ",\"stdout\":null,\"stderr\":null");
    }
    buf_addf(b, ",\"exitCode\":%d}", cmd->exit_code);
}

void tb_exec(struct call *c)
{
    const char *id = call_segment(c, 0);
    struct shell_session *s = find_session(c);
    daemon_parse_body(c);
    const char *text = json_str(c->body, "command", "");
    if (daemon_blank(text)) {
        empty_reply(c, 400);
    } else if (!strcmp(id, "entrypoint")) {
        go_error(c, 400, "bad request: can't execute command in entrypoint session");
    } else if (!s) {
        go_error(c, 500, "failed to execute command: not found: session not found");
    } else if (s->dead_at <= c->m->now) {
        go_error(c, 500,
                 "failed to execute command: bad request: failed to write command: write "
                 "|1: broken pipe");
    } else {
        struct command *cmd = command_new(c, s, text);
        if (!cmd->async) {
            answer_sync(c, cmd);
            return;
        }
        reply_json(c, 202);
        buf_addf(
            &c->re->body,
            "{\"cmdId\":\"%s\",\"output\":null,\"stdout\":null,\"stderr\":null,\"exitCode\":null}",
            cmd->id);
    }
}

static struct command *find_command(struct call *c)
{
    struct shell_session *s = find_session(c);
    const char *id = call_segment(c, 1);
    if (!s) {
        session_missing(c);
        return NULL;
    }
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->commands[i]->id, id))
            return s->commands[i];
    go_error(c, 404, "not found: command not found");
    return NULL;
}

void tb_command(struct call *c)
{
    struct command *cmd = find_command(c);
    if (!cmd)
        return;
    reply_json(c, 200);
    print_command(c->m, cmd, &c->re->body);
}

static void plain_log(struct call *c, const struct command *cmd)
{
    struct buf *b = &c->re->body;
    bool marked =
        sim_call_header(c, "X-Daytona-SDK-Version") || sim_call_header(c, "X-Daytona-Split-Output");
    c->re->status = 200;
    if (marked)
        read_marked(&cmd->out, c->m->now, b);
    else
        stream_read(&cmd->out, c->m->now, 0, b);
    if (!b->len)
        return;
    sim_reply_header(c->re, "Content-Type", "text/plain; charset=utf-8");
    if (b->data[b->len - 1] != '\n')
        buf_addc(b, '\n');
}

void tb_logs(struct call *c)
{
    struct command *cmd = find_command(c);
    if (!cmd)
        return;
    if (!wants_json(c)) {
        plain_log(c, cmd);
        return;
    }
    reply_json(c, 200);
    buf_adds(&c->re->body, "{\"output\":");
    print_split(c, cmd, c->m->now);
    buf_addc(&c->re->body, '}');
}

void tb_input(struct call *c)
{
    if (find_command(c))
        empty_reply(c, 204);
}
