/* report: what the event of a job says. Foreign words (the provider's, a server's log) pass the
 * redactor with this job's own secrets before they go out. */
#include "worker/core/internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/secret.h"
#include "common/xalloc.h"

#define FOREIGN_MAX 65536
#define TAIL_BYTES 4096 /* of a log: what is before may begin in the middle of a secret */
#define PROGRESS_EVERY_NS NS_PER_S

static void each_secret(const struct session *s, void (*fn)(const char *))
{
    const struct job *j = s->job;
    for (size_t i = 0; i < j->n_env; i++)
        fn(j->env[i].value);
    if (j->session_api_key)
        fn(j->session_api_key);
    if (s->box->session_key)
        fn(s->box->session_key);
    if (s->box->preview_token)
        fn(s->box->preview_token);
}

/* The last bytes of text without secrets. The caller frees; NULL stays NULL. */
static char *redacted(const struct session *s, const char *text, size_t last)
{
    if (!text)
        return NULL;
    struct buf out;
    buf_init(&out, FOREIGN_MAX);
    each_secret(s, redact_add);
    redact_end(text, strlen(text), last, &out);
    each_secret(s, redact_remove);
    return buf_steal(&out);
}

static void say_job(const struct session *s, struct event *e)
{
    const struct core *c = s->core;
    const struct job *j = s->job;
    e->fleet = c->config->fleet;
    e->event_id = j->event_id;
    e->job_id = j->job_id;
    e->session_id = j->session_id;
    e->tenant = j->tenant;
    e->provider = s->account->provider->cfg->name;
    e->metadata = j->metadata;
    e->carried = j->carried;
    e->n_carried = j->n_carried;
    e->time_ms = c->wall_ms;
    e->attempts = 1 + s->again;
    e->requests = s->requests;
    e->with_secrets = c->config->events.with_secrets;
    for (size_t i = 0; i < N_STEPS; i++)
        e->timings_ms[i] = s->timings_ns[i] / NS_PER_MS;
    e->total_ms = (c->now_ns - s->taken_ns) / NS_PER_MS;
}

static void say_box(const struct session *s, struct event *e)
{
    const struct box *b = s->box;
    bool seen = (s->facts & (EXISTS | GONE)) || b->maybe_kept;
    e->sandbox.id = seen ? b->id : NULL;
    e->sandbox.name = b->name;
    e->sandbox.spec_id = b->spec_id;
    e->sandbox.created_at = b->created_at;
    e->sandbox.target = b->target;
    e->sandbox.session_api_key = b->session_key;
    e->sandbox.preview_token = b->preview_token;
    e->sandbox.outcome = s->outcome;
    e->sandbox.cleanup = s->cleanup;
    e->sandbox.was = s->was;
    e->sandbox.replaced = s->replaced;
    e->sandbox.drift = s->drift;
    e->sandbox.warm = b->warm;
}

static void say_server(const struct session *s, struct event *e)
{
    const struct job *j = s->job;
    const struct box *b = s->box;
    e->server.present = j->server.kind != SERVER_NONE;
    e->server.kind = j->server.kind;
    e->server.url = b->url;
    e->server.port = j->server.port;
    e->server.working_dir = j->server.working_dir;
    e->server.command_id = b->command_id;
    e->vscode.url = b->vscode_url;
    e->vscode.token = b->vscode_token;
}

/* Borrowed views of the box's urls; the caller frees the array. */
static struct exposed_url *say_urls(const struct session *s, struct event *e)
{
    const struct box *b = s->box;
    struct exposed_url *urls = xcalloc(b->n_urls, sizeof *urls);
    for (size_t i = 0; i < b->n_urls; i++)
        urls[i] = (struct exposed_url){
            .name = b->urls[i].name, .url = b->urls[i].url, .port = b->urls[i].port};
    e->sandbox.urls = urls;
    e->sandbox.n_urls = b->n_urls;
    return urls;
}

static void print(const struct event *e, struct result *r)
{
    event_print(e, &r->messages[r->n_messages++]);
}

static void report_failed(struct session *s, struct event *e)
{
    char *message = redacted(s, s->why.message, FOREIGN_MAX);
    char *words = redacted(s, s->why.provider_message, FOREIGN_MAX);
    char *tail = redacted(s, s->box->log_tail, TAIL_BYTES);
    e->error.code = s->why.code;
    e->error.step = s->why.step;
    e->error.message = message ? message : error_name(s->why.code);
    e->error.provider_message = words;
    e->error.log_tail = tail;
    e->error.http_status = s->why.http_status;
    e->error.retryable = error_retryable(s->why.code);
    print(e, s->result);
    free(message);
    free(words);
    free(tail);
}

void report_result(struct session *s, enum event_type type)
{
    static const enum metric_outcome outcomes[] = {[EVENT_READY] = MO_READY,
                                                   [EVENT_FAILED] = MO_FAILED,
                                                   [EVENT_STOPPED] = MO_STOPPED,
                                                   [EVENT_DELETED] = MO_DELETED};
    struct event e = {.type = type};
    say_job(s, &e);
    say_box(s, &e);
    say_server(s, &e);
    struct exposed_url *urls = say_urls(s, &e);
    if (type == EVENT_FAILED)
        report_failed(s, &e);
    else
        print(&e, s->result);
    free(urls);
    metric_add1(M_JOBS_COMPLETED, outcomes[type], 1);
    metric_observe(M_JOB_SECONDS, outcomes[type], (double)(s->core->now_ns - s->taken_ns) / 1e9);
}

void report_refusal(struct core *c, struct result *r, const struct record *record,
                    const struct refusal *why)
{
    log_warn(NULL, "record refused", L_STR("topic", record->topic),
             L_INT("partition", record->partition), L_INT("offset", record->offset),
             L_STR("session", why->session_id), L_STR("why", why->message));
    metric_add1(M_JOBS_COMPLETED, MO_REFUSED, 1);
    metric_add2(M_JOB_FAILURES, STEP_QUEUE, why->code, 1);
    if (c->config->topics.dead_letters[0])
        dead_letter_print(record, why->code, why->message, &r->messages[r->n_messages++]);
    if (!why->session_id)
        return;
    char *id =
        xasprintf("%s/%d/%lld", record->topic, (int)record->partition, (long long)record->offset);
    struct event e = {.type = EVENT_FAILED,
                      .fleet = c->config->fleet,
                      .event_id = id,
                      .job_id = why->job_id ? why->job_id : id,
                      .session_id = why->session_id,
                      .tenant = why->tenant,
                      .metadata = why->metadata,
                      .provider = NULL,
                      .time_ms = c->wall_ms,
                      .attempts = 1};
    e.error.code = why->code;
    e.error.step = STEP_QUEUE;
    e.error.message = why->message;
    e.error.retryable = error_retryable(why->code);
    print(&e, r);
    free(id);
}

/* OpenHands' RuntimeStatus for where a start is. */
static const char *runtime_status(const struct session *s)
{
    switch (s->step) {
    case STEP_CREATE:
        return "STATUS$BUILDING_RUNTIME";
    case STEP_LAUNCH:
        return "STATUS$RUNTIME_STARTED";
    default:
        return "STATUS$STARTING_RUNTIME";
    }
}

void report_progress(struct session *s)
{
    struct core *c = s->core;
    s->untold = false;
    if (!c->config->topics.progress[0] || !session_is_start(s) || session_failing(s))
        return;
    if (c->now_ns < s->progress_ns) {
        s->untold = true;
        return;
    }
    s->progress_ns = c->now_ns + PROGRESS_EVERY_NS;
    struct event e = {.type = EVENT_PROGRESS};
    say_job(s, &e);
    /* Unlike the result's it is told once only, so a takeover's must not look like a repetition. */
    char *id = xasprintf("%s/%llu", e.event_id, (unsigned long long)e.time_ms);
    e.event_id = id;
    e.progress.status = runtime_status(s);
    e.progress.step = s->step;
    e.progress.attempt = 1 + s->again;
    e.progress.elapsed_ms = (c->now_ns - s->taken_ns) / NS_PER_MS;
    event_print(&e, &core_effect(c, DO_PROGRESS)->progress);
    free(id);
}
