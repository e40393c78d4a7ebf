/* The daemon's other doors: one-off commands, ports, files, and small questions.
 *
 * process/execute waits for its command; it has no session, so nothing is left of it but the files
 * that it wrote and the servers that it started. */
#include "tests/sim/model_shell.h"

#include <string.h>

#include "common/json.h"

static void set_environment(struct shell *sh, const cJSON *envs)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, envs)
    {
        if (cJSON_IsString(v))
            vars_set(&sh->vars, v->string, v->valuestring);
    }
}

static void answer_execute(struct call *c, const struct shell *sh, const struct stream *out)
{
    struct buf *b = &c->re->body;
    uint64_t ended = MAX(sh->t, sh->held_until);
    int64_t timeout = json_int(c->body, "timeout", 0);
    uint64_t limit = timeout > 0 ? c->m->now + (uint64_t)timeout * NS_PER_S : NEVER;
    if (ended > limit) {
        c->re->at_ns = limit;
        go_error(c, 408, "request timeout: command execution timeout");
        return;
    }
    c->re->at_ns = ended;
    reply_json(c, 200);
    buf_addf(b, "{\"exitCode\":%d,\"result\":", sh->signal ? -1 : sh->status);
    daemon_print_output(b, out, ended, 0);
    buf_addc(b, '}');
}

static void run_execute(struct call *c, const char *text)
{
    struct shell sh;
    struct stream *out = &file_make(box_daemon(c->box), "/proc/execute", c->m->now, false)->stream;
    const char *cwd = json_str(c->body, "cwd", NULL);
    stream_done(out);
    shell_init(&sh, c->m, c->box);
    if (cwd) {
        free(sh.cwd);
        sh.cwd = xstrdup(cwd);
    }
    set_environment(&sh, json_get(c->body, "envs"));
    sh.own = out;
    sh.out = (struct sink){out, 1};
    sh.err = (struct sink){out, 2};
    sh.proc = daemon_proc(c->box->daemon, NULL);
    shell_run(&sh, text, strlen(text));
    answer_execute(c, &sh, out);
    shell_done(&sh);
}

void tb_execute(struct call *c)
{
    daemon_parse_body(c);
    const char *text = json_str(c->body, "command", "");
    const char *cwd = json_str(c->body, "cwd", "");
    if (!cJSON_IsObject(c->body)) {
        go_error(c, 400, "bad request: invalid request body: %s", daemon_json_fault(c));
    } else if (daemon_blank(text)) {
        go_error(c, 400, "bad request: command cannot be empty or whitespace-only");
    } else if (!strncmp(cwd, "/nope", 5)) {
        reply_json(c, 200);
        buf_adds(&c->re->body,
                 "{\"exitCode\":-1,\"result\":\"fork/exec /usr/bin/bash: no such file "
                 "or directory\"}");
    } else {
        run_execute(c, text);
    }
}

/* ---- small questions ---- */

void tb_version(struct call *c)
{
    reply_json(c, 200);
    buf_adds(&c->re->body, "{\"version\":\"v0.190.0\"}");
}

void tb_work_dir(struct call *c)
{
    reply_json(c, 200);
    buf_addf(&c->re->body, "{\"dir\":\"%s\"}", home_directory);
}

void tb_file_info(struct call *c)
{
    const char *path = call_query(c, "path");
    struct file *f = path ? file_find(box_daemon(c->box), path, c->m->now) : NULL;
    if (!f) {
        go_error(c, 404, "not found: file not found");
        return;
    }
    const char *slash = strrchr(f->path, '/');
    struct buf text;
    char when[TIME_TEXT_SIZE];
    buf_init(&text, BODY_MAX);
    stream_read(&f->stream, c->m->now, 0, &text);
    format_time_ms(wall_ms(c->m), when);
    reply_json(c, 200);
    buf_addf(
        &c->re->body,
        "{\"name\":\"%s\",\"size\":%zu,\"mode\":\"-rw-r--r--\",\"modTime\":\"%s\",\"modifiedAt\":"
        "\"%s\",\"isDir\":%s,\"owner\":\"0\",\"group\":\"0\",\"permissions\":\"0644\"}",
        slash ? slash + 1 : f->path, text.len, when, when, f->is_dir ? "true" : "false");
    buf_done(&text);
}

enum { PORT_LOW = 3000, PORT_HIGH = 9999 };

/* The daemon looks at the ports now and then: a dead server's counts as used for a second more. */
static bool port_in_use(struct call *c, int64_t port)
{
    if (daemon_listener(c->m, c->box, (int)port))
        return true;
    for (size_t i = 0; c->box->daemon && i < c->box->daemon->n_procs; i++) {
        const struct proc *p = c->box->daemon->procs[i];
        if (p->is_server && p->port == port && p->listens_from < p->ended &&
            p->ended + NS_PER_S > c->m->now)
            return true;
    }
    return false;
}

void tb_port(struct call *c)
{
    const char *text = call_segment(c, 0);
    int64_t port;
    if (!parse_i64(text, strlen(text), PORT_LOW, PORT_HIGH, &port)) {
        empty_reply(c, 400);
        return;
    }
    reply_json(c, 200);
    buf_addf(&c->re->body, "{\"isInUse\":%s}", port_in_use(c, port) ? "true" : "false");
}
