/* wire_event: what goes out, as text. See wire.h.
 *
 * Events are made straight into a buffer, without a tree: they are on every job's path. Every
 * member of an event's shape is always there, null when there is nothing to say, so that readers
 * need no "if present"; only the keys and tokens of session-ready are left out when the config says
 * so. Foreign text is redacted first and cut afterwards (the log's end is what tells, so it loses
 * its beginning). Nothing here can fail: EVENT_MAX is above the sum of all limits. */
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/secret.h"
#include "common/wire.h"
#include "common/xalloc.h"

#define TEXT_MAX 4096 /* bytes of one foreign text */
#define EVENT_MAX 1000000
#define CONNECT "__connect.errors."

static const struct {
    const char *type;
    enum destination to;
} types[] = {
    [EVENT_READY] = {"session-ready", TO_RESULTS},
    [EVENT_FAILED] = {"session-failed", TO_RESULTS},
    [EVENT_STOPPED] = {"session-stopped", TO_RESULTS},
    [EVENT_DELETED] = {"session-deleted", TO_RESULTS},
    [EVENT_PROGRESS] = {"session-progress", TO_PROGRESS},
};
static const char *const outcomes[] = {"created", "adopted", "started", "attached"};
static const char *const cleanups[] = {"none", "scheduled", "kept"};
static const char *const kinds[] = {"v0", "v1", "custom", "none"};

/* ---- members ---- */

static void add_name(struct buf *b, const char *name)
{
    char before = b->len ? b->data[b->len - 1] : '{';
    if (before != '{' && before != '[')
        buf_addc(b, ',');
    buf_addc(b, '"');
    buf_adds(b, name);
    buf_adds(b, "\":");
}

static void add_raw(struct buf *b, const char *name, const char *json)
{
    add_name(b, name);
    buf_adds(b, json);
}

static void add_str(struct buf *b, const char *name, const char *text)
{
    add_name(b, name);
    if (text)
        json_quote(b, text, strlen(text));
    else
        buf_adds(b, "null");
}

static void add_uint(struct buf *b, const char *name, uint64_t value)
{
    add_name(b, name);
    buf_addf(b, "%llu", (unsigned long long)value);
}

static void add_bool(struct buf *b, const char *name, bool value)
{
    add_raw(b, name, value ? "true" : "false");
}

/* Text that others wrote: redacted, at most TEXT_MAX bytes of its beginning or its end. */
static void add_foreign(struct buf *b, const char *name, const char *text, bool end)
{
    struct buf clean;
    if (!text) {
        add_raw(b, name, "null");
        return;
    }
    buf_init(&clean, EVENT_MAX);
    redact(text, strlen(text), &clean);
    size_t n = MIN(clean.len, TEXT_MAX), from = end ? clean.len - n : 0;
    add_name(b, name);
    json_quote(b, buf_text(&clean) + from, n);
    buf_done(&clean);
}

/* ---- parts ---- */

static void add_envelope(struct buf *b, const struct event *e, const char *time)
{
    add_str(b, "type", types[e->type].type);
    add_uint(b, "version", 1);
    add_str(b, "job_id", e->job_id);
    add_str(b, "session_id", e->session_id);
    add_str(b, "tenant", e->tenant);
    add_str(b, "time", time);
    add_str(b, "provider", e->provider);
    add_raw(b, "metadata", e->metadata ? e->metadata : "null");
    add_uint(b, "attempts", e->attempts);
    add_uint(b, "requests", e->requests);
}

static void add_urls(struct buf *b, const struct exposed_url *urls, size_t n)
{
    add_raw(b, "exposed_urls", "[");
    for (size_t i = 0; i < n; i++) {
        buf_adds(b, i ? ",{" : "{");
        add_str(b, "name", urls[i].name);
        add_str(b, "url", urls[i].url);
        add_uint(b, "port", (uint64_t)urls[i].port);
        buf_addc(b, '}');
    }
    buf_addc(b, ']');
}

static void add_ready_sandbox(struct buf *b, const struct event *e)
{
    add_raw(b, "sandbox", "{");
    add_str(b, "id", e->sandbox.id);
    add_str(b, "sandbox_spec_id", e->sandbox.spec_id);
    add_str(b, "status", "RUNNING");
    if (e->with_secrets)
        add_str(b, "session_api_key", e->sandbox.session_api_key);
    add_urls(b, e->sandbox.urls, e->sandbox.n_urls);
    add_str(b, "created_at", e->sandbox.created_at);
    add_str(b, "name", e->sandbox.name);
    add_str(b, "target", e->sandbox.target);
    if (e->with_secrets)
        add_str(b, "preview_token", e->sandbox.preview_token);
    add_str(b, "outcome", outcomes[e->sandbox.outcome]);
    add_bool(b, "replaced", e->sandbox.replaced);
    add_bool(b, "drift", e->sandbox.drift);
    add_str(b, "launch", e->sandbox.warm ? "warm" : "cold");
    buf_addc(b, '}');
}

static void add_server(struct buf *b, const struct event *e)
{
    if (!e->server.present) {
        add_raw(b, "server", "null");
        return;
    }
    add_raw(b, "server", "{");
    add_str(b, "kind", kinds[e->server.kind]);
    add_str(b, "url", e->server.url);
    add_uint(b, "port", (uint64_t)e->server.port);
    add_str(b, "working_dir", e->server.working_dir);
    add_str(b, "command_id", e->server.command_id);
    buf_addc(b, '}');
}

static void add_vscode(struct buf *b, const struct event *e)
{
    if (!e->vscode.url) {
        add_raw(b, "vscode", "null");
        return;
    }
    add_raw(b, "vscode", "{");
    add_str(b, "url", e->vscode.url);
    if (e->with_secrets)
        add_str(b, "token", e->vscode.token);
    buf_addc(b, '}');
}

static void add_ready(struct buf *b, const struct event *e)
{
    add_ready_sandbox(b, e);
    add_server(b, e);
    add_vscode(b, e);
    add_raw(b, "timings_ms", "{");
    for (int i = STEP_QUEUE; i <= STEP_KEEP; i++)
        add_uint(b, step_name((enum step)i), e->timings_ms[i]);
    add_uint(b, "total", e->total_ms);
    buf_addc(b, '}');
}

/* sandbox{id, name, <what>: value} or null. */
static void add_brief_sandbox(struct buf *b, const struct event *e, const char *what,
                              const char *value)
{
    if (!e->sandbox.id) {
        add_raw(b, "sandbox", "null");
        return;
    }
    add_raw(b, "sandbox", "{");
    add_str(b, "id", e->sandbox.id);
    add_str(b, "name", e->sandbox.name);
    add_str(b, what, value);
    buf_addc(b, '}');
}

static void add_failed(struct buf *b, const struct event *e)
{
    add_raw(b, "error", "{");
    add_str(b, "code", error_name(e->error.code));
    add_str(b, "step", step_name(e->error.step));
    add_foreign(b, "message", e->error.message, false);
    add_bool(b, "retryable", e->error.retryable);
    if (e->error.http_status > 0)
        add_uint(b, "http_status", (uint64_t)e->error.http_status);
    else
        add_raw(b, "http_status", "null");
    add_foreign(b, "provider_message", e->error.provider_message, false);
    add_foreign(b, "log_tail", e->error.log_tail, true);
    buf_addc(b, '}');
    add_brief_sandbox(b, e, "cleanup", cleanups[e->sandbox.cleanup]);
}

static void add_ended(struct buf *b, const struct event *e)
{
    add_brief_sandbox(b, e, "was", e->sandbox.was);
}

static void add_progress(struct buf *b, const struct event *e)
{
    add_str(b, "status", e->progress.status);
    add_str(b, "step", step_name(e->progress.step));
    add_uint(b, "attempt", e->progress.attempt);
    add_uint(b, "elapsed_ms", e->progress.elapsed_ms);
}

static void (*const add_body[])(struct buf *, const struct event *) = {
    [EVENT_READY] = add_ready,   [EVENT_FAILED] = add_failed,     [EVENT_STOPPED] = add_ended,
    [EVENT_DELETED] = add_ended, [EVENT_PROGRESS] = add_progress,
};

/* ---- headers ---- */

static void add_header(struct message *m, const char *name, const void *value, size_t len)
{
    m->headers[m->n_headers++] = (struct header){xstrdup(name), xmemdup0(value, len), len};
}

static void add_text_header(struct message *m, const char *name, const char *value)
{
    add_header(m, name, value, strlen(value));
}

static void add_owned_header(struct message *m, const char *name, char *value)
{
    m->headers[m->n_headers++] = (struct header){xstrdup(name), value, strlen(value)};
}

static void add_event_headers(struct message *m, const struct event *e, const char *time)
{
    m->headers = xcalloc(7 + e->n_carried, sizeof *m->headers);
    add_text_header(m, "ce_specversion", "1.0");
    add_text_header(m, "ce_id", e->event_id);
    add_owned_header(m, "ce_source", xasprintf("/session-worker/%s", e->fleet));
    add_owned_header(m, "ce_type", xasprintf("session-worker.%s.v1", types[e->type].type));
    add_text_header(m, "ce_subject", e->session_id);
    add_text_header(m, "ce_time", time);
    add_text_header(m, "content-type", "application/json");
    for (size_t i = 0; i < e->n_carried; i++)
        add_header(m, e->carried[i].name, e->carried[i].value, e->carried[i].len);
}

void event_print(const struct event *e, struct message *out)
{
    ASSERT(e->session_id && e->event_id && e->fleet);
    struct buf b;
    char time[TIME_TEXT_SIZE];
    format_time_ms(e->time_ms, time);
    buf_init(&b, EVENT_MAX);
    buf_addc(&b, '{');
    add_envelope(&b, e, time);
    add_body[e->type](&b, e);
    buf_addc(&b, '}');
    ASSERT(!b.overflow);
    *out = (struct message){.to = types[e->type].to, .key = xstrdup(e->session_id)};
    out->key_len = strlen(out->key);
    out->value_len = b.len;
    out->value = buf_steal(&b);
    add_event_headers(out, e, time);
}

void dead_letter_print(const struct record *r, enum error_code code, const char *why,
                       struct message *out)
{
    *out = (struct message){.to = TO_DEAD_LETTERS};
    if (r->key) {
        out->key = xmemdup0(r->key, r->key_len);
        out->key_len = r->key_len;
    }
    if (r->value) {
        out->value = xmemdup0(r->value, r->value_len);
        out->value_len = r->value_len;
    }
    out->headers = xcalloc(r->n_headers + 7, sizeof *out->headers);
    for (size_t i = 0; i < r->n_headers; i++) /* those of an earlier dead letter are history */
        if (strncmp(r->headers[i].name, CONNECT, strlen(CONNECT)) != 0)
            add_header(out, r->headers[i].name, r->headers[i].value, r->headers[i].len);
    add_text_header(out, CONNECT "topic", r->topic);
    add_owned_header(out, CONNECT "partition", xasprintf("%d", r->partition));
    add_owned_header(out, CONNECT "offset", xasprintf("%lld", (long long)r->offset));
    add_text_header(out, CONNECT "connector.name", "session-worker");
    add_text_header(out, CONNECT "stage", code == ERR_POISON ? "TASK_PUT" : "VALUE_CONVERTER");
    add_text_header(out, CONNECT "exception.class.name", error_name(code));
    add_text_header(out, CONNECT "exception.message", why);
}
