/* The servers inside a sandbox: which port, which key, when it listens, what it answers.
 *
 * The port is the first `--port N`, else the first bare number among the arguments, else $PORT,
 * else 8000 for the V1 agent server, else the port that the first preview URL was asked for. The
 * session key comes from the environment, by the rules of each kind: a set OH_SESSION_API_KEYS_0
 * takes the place of SESSION_API_KEY for V1, also when it is empty, which opens the server. */
#include "tests/sim/model_shell.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/json.h"

enum { PORT_MAX = 65535, PORT_V1 = 8000, PORT_TAKEN_CODE = 3 };

/* ---- what was started ---- */

static bool mentions(const struct args *args, const char *text)
{
    for (size_t i = 0; i < args->n; i++)
        if (strstr(args->v[i], text))
            return true;
    return false;
}

static int number_in(const char *text)
{
    int64_t n;
    return text && parse_i64(text, strlen(text), 1, PORT_MAX, &n) ? (int)n : 0;
}

static int port_option(const struct args *args)
{
    static const char option[] = "--port";
    for (size_t i = 0; i < args->n; i++) {
        if (strncmp(args->v[i], option, sizeof option - 1) != 0)
            continue;
        const char *rest = args->v[i] + sizeof option - 1;
        const char *value = *rest == '=' ? rest + 1 : i + 1 < args->n ? args->v[i + 1] : NULL;
        if (number_in(value))
            return number_in(value);
    }
    return 0;
}

static int find_port(const struct shell *sh, const struct args *args, const struct proc *p)
{
    int port = port_option(args);
    for (size_t i = 1; i < args->n && !port; i++)
        port = number_in(args->v[i]);
    if (!port)
        port = number_in(vars_get(&sh->vars, "PORT"));
    if (!port && p->kind == KIND_V1)
        port = PORT_V1;
    return port;
}

static const char *find_key(const struct shell *sh, const struct proc *p)
{
    const char *v0 = vars_get(&sh->vars, "SESSION_API_KEY");
    const char *v1 = vars_get(&sh->vars, "OH_SESSION_API_KEYS_0");
    if (p->kind == KIND_V0)
        return v0;
    if (p->kind == KIND_V1)
        return v1 ? v1 : v0;
    return v0 ? v0 : v1;
}

static struct proc *new_server(struct shell *sh, const struct args *args)
{
    struct proc *p = daemon_proc(sh->d, sh->session);
    const char *plugins = mentions(args, "vscode") ? "vscode" : NULL;
    p->is_server = true;
    p->kind = mentions(args, "action_execution_server")                          ? KIND_V0
              : mentions(args, "agent-server") || mentions(args, "agent_server") ? KIND_V1
                                                                                 : KIND_APP;
    p->port = find_port(sh, args, p);
    const char *key = find_key(sh, p);
    p->key = key && *key ? xstrdup(key) : NULL;
    p->vscode = plugins && vars_get(&sh->vars, "VSCODE_PORT");
    make_id(sh->m, p->vscode_token);
    return p;
}

static uint64_t boot_time(struct shell *sh)
{
    struct model *m = sh->m;
    const struct script *s = sh->box->script;
    if (s && s->server_ms >= 0)
        return from_ms((uint64_t)s->server_ms);
    return m->opt.profile == PROFILE_CLOUD ? latency(m, m->server_ms, 0.4)
                                           : from_ms((uint64_t)m->server_ms);
}

/* ---- how it goes ---- */

static void log_start(struct shell *sh, const struct proc *p)
{
    if (p->kind == KIND_V0)
        sink_printf(sh, sh->err,
                    "INFO:     Started server process [4242]\n"
                    "INFO:     Waiting for application startup.\n");
    else if (p->kind == KIND_V1)
        sink_printf(sh, sh->err, "Starting OpenHands Agent Server on 0.0.0.0:%d\n", p->port);
    else
        sink_printf(sh, sh->out, "Serving HTTP on 127.0.0.1 port %d (http://127.0.0.1:%d/) ...\n",
                    p->port, p->port);
}

static void ends(struct shell *sh, struct proc *p, int code, const char *last_words)
{
    sink_printf(sh, sh->err, "%s", last_words);
    p->ended = sh->t;
    sh->status = code;
}

static void runs_on(struct shell *sh, struct proc *p)
{
    bool silent = p->fate == SERVER_SILENT;
    p->listens_from = silent ? NEVER : sh->t;
    if (silent)
        sink_printf(sh, sh->err, "still loading plugins\n");
    else if (p->kind != KIND_APP)
        sink_printf(sh, sh->err, "INFO:     Application startup complete.\n");
    sh->t = NEVER;
}

static bool port_taken(const struct shell *sh, const struct proc *mine)
{
    for (size_t i = 0; i < sh->d->n_procs; i++) {
        const struct proc *p = sh->d->procs[i];
        if (p != mine && p->is_server && p->port == mine->port && p->ended > sh->t &&
            p->listens_from != NEVER)
            return true;
    }
    return false;
}

void server_run(struct shell *sh, const struct args *args)
{
    const struct script *s = sh->box->script;
    enum server_fate fate = s ? s->server : SERVER_WELL;
    if (fate == SERVER_BAD_COMMAND) {
        sink_printf(sh, sh->err, "%s: line 1: %s: No such file or directory\n", sh->script_name,
                    args->v[0]);
        sh->status = 127;
        return;
    }
    struct proc *p = new_server(sh, args);
    p->fate = fate;
    sh->proc = p;
    sh->box->servers_started++;
    log_start(sh, p);
    sh->t += boot_time(sh);
    if (fate == SERVER_DIES)
        ends(sh, p, s->exit_code,
             "Traceback (most recent call last):\nRuntimeError: cannot start\n");
    else if (port_taken(sh, p))
        ends(sh, p, PORT_TAKEN_CODE, "ERROR:    [Errno 98] address already in use\n");
    else
        runs_on(sh, p);
}

/* ---- what it answers ---- */

struct page {
    enum { ON_V0 = 1, ON_V1 = 2, ON_APP = 4 } on;
    const char *path;
    bool needs_key;
    const char *body;
};

static const struct page pages[] = {
    {ON_V0 | ON_APP, "/alive", false, "{\"status\":\"ok\"}"},
    {ON_V1, "/alive", false, "{\"status\":\"ok\"}"},
    {ON_V1, "/health", false, "{\"status\":\"ok\"}"},
    {ON_V1, "/ready", false, "{\"status\":\"ready\"}"},
    {ON_V0, "/server_info", false,
     "{\"uptime\":1.5,\"idle_time\":1.5,\"resources\":{\"cpu_percent\":0.0,\"memory\":{\"rss\":1,"
     "\"vms\":1,\"percent\":0.1},\"disk\":{\"read_bytes\":0,\"write_bytes\":0},\"io\":{\"read_"
     "bytes\":"
     "0,\"write_bytes\":0}}}"},
    {ON_V1, "/server_info", false, "{\"uptime\":1,\"idle_time\":1,\"version\":\"1.57.0\"}"},
    {ON_V1, "/", false, "{\"title\":\"OpenHands Agent Server\"}"},
    {ON_V1, "/api/conversations/count", true, "0"},
    {ON_V1, "/api/vscode/url", true, "{\"url\":null}"},
};

static void json_page(struct call *c, int status, const char *body)
{
    text_reply(c, status, "application/json", body);
}

static void echo(struct call *c)
{
    struct buf *b = &c->re->body;
    const char *comma = "";
    c->re->status = 200;
    sim_reply_header(c->re, "Content-Type", "application/json");
    buf_adds(b, "{\"path\":");
    json_quote(b, c->rq->target, strlen(c->rq->target));
    buf_adds(b, ",\"headers\":{");
    for (size_t i = 0; i < c->rq->n_headers; i++) {
        const struct sim_header *h = &c->rq->headers[i];
        if (!strcasecmp(h->name, "X-Daytona-Preview-Token"))
            continue; /* the proxy keeps it to itself */
        buf_adds(b, comma);
        json_quote(b, h->name, strlen(h->name));
        buf_addc(b, ':');
        json_quote(b, h->value, strlen(h->value));
        comma = ",";
    }
    buf_adds(b, "}}");
}

/* /status/N, /slow and /echo help tests of proxies. */
static bool app_helper(struct call *c, const char *path)
{
    static const char prefix[] = "/status/";
    const char *digits = path + sizeof prefix - 1;
    int64_t status;
    if (!strncmp(path, prefix, sizeof prefix - 1) &&
        parse_i64(digits, strlen(digits), 200, 599, &status)) {
        json_page(c, (int)status, status == 204 ? "" : "{\"status\":\"ok\"}");
    } else if (!strcmp(path, "/slow")) {
        c->re->at_ns += 3 * NS_PER_S;
        json_page(c, 200, "{\"status\":\"ok\"}");
    } else if (!strcmp(path, "/echo")) {
        echo(c);
    } else {
        return false;
    }
    return true;
}

static bool key_fits(const struct call *c, const struct proc *p)
{
    const char *given = sim_call_header(c, "X-Session-API-Key");
    return !p->key || (given && !strcmp(given, p->key));
}

static void vscode_token(struct call *c, const struct proc *p)
{
    c->re->status = 200;
    sim_reply_header(c->re, "Content-Type", "application/json");
    if (p->vscode)
        buf_addf(&c->re->body, "{\"token\":\"%s\"}", p->vscode_token);
    else
        buf_adds(&c->re->body, "{\"token\":null}");
}

static const struct page *find_page(const struct proc *p, const char *path)
{
    for (size_t i = 0; i < ARRAY_LEN(pages); i++)
        if ((pages[i].on >> p->kind & 1) && !strcmp(pages[i].path, path))
            return &pages[i];
    return NULL;
}

static void answer_v0(struct call *c, const struct proc *p, const char *path)
{
    const struct page *page = find_page(p, path);
    if (page)
        json_page(c, 200, page->body);
    else if (!key_fits(c, p))
        json_page(c, 403, "{\"detail\":\"Invalid API Key\"}");
    else if (!strcmp(path, "/vscode/connection_token"))
        vscode_token(c, p);
    else
        json_page(c, 404, "{\"detail\":\"Not Found\"}");
}

static void answer_v1(struct call *c, const struct proc *p, const char *path)
{
    const struct page *page = find_page(p, path);
    if (!page)
        json_page(c, 404, "{\"detail\":\"Not Found\"}");
    else if (page->needs_key && !key_fits(c, p))
        json_page(c, 401, "{\"detail\":\"Unauthorized\"}");
    else if (strcmp(c->rq->method, "GET") != 0)
        json_page(c, 405, "{\"detail\":\"Method Not Allowed\"}");
    else
        json_page(c, 200, page->body);
}

/* A server of the user's own: healthy on every path; a wrong key is refused, none is not. */
static void answer_app(struct call *c, const struct proc *p, const char *path)
{
    if (app_helper(c, path))
        return;
    if (sim_call_header(c, "X-Session-API-Key") && !key_fits(c, p))
        json_page(c, 401, "{\"detail\":\"Unauthorized\"}");
    else
        json_page(c, 200, "{\"status\":\"ok\"}");
}

void server_answer(struct call *c, const struct proc *p)
{
    static void (*const by_kind[])(struct call *, const struct proc *, const char *) = {
        [KIND_V0] = answer_v0, [KIND_V1] = answer_v1, [KIND_APP] = answer_app};
    if (p->fate == SERVER_WRONG_BODY)
        text_reply(c, 200, "text/html; charset=utf-8", "<html><body>It works!</body></html>");
    else
        by_kind[p->kind](c, p, c->path);
}
