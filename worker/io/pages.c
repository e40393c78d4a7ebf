/* pages: see the header. Nothing here is secret: ids, steps, counts. */
#include "worker/io/pages.h"

#include <string.h>

#include "common/json.h"
#include "common/metrics.h"

struct page {
    const struct page_sources *from;
    struct buf *out;
};

int page_readyz(const struct readiness *r, struct buf *out)
{
    if (!r->publisher)
        buf_adds(out, "not ready: the producer has no broker yet\n");
    if (!r->consumer)
        buf_adds(out, "not ready: the consumer has not joined its group\n");
    if (!r->key)
        buf_adds(out, "not ready: the provider refuses the API key; nothing is taken until it is "
                      "good again\n");
    if (!r->staying)
        buf_adds(out, "not ready: draining\n");
    if (!r->publisher || !r->consumer || !r->key || !r->staying)
        return 503;
    buf_adds(out, "ready\n");
    return 200;
}

static void text(struct buf *out, const char *name, const char *value)
{
    buf_addf(out, "\"%s\":", name);
    if (value)
        json_quote(out, value, strlen(value));
    else
        buf_adds(out, "null");
}

static void number(struct buf *out, const char *name, uint64_t value)
{
    buf_addf(out, ",\"%s\":%llu", name, (unsigned long long)value);
}

static void separate(struct buf *out)
{
    if (out->len && out->data[out->len - 1] == '}')
        buf_addc(out, ',');
}

static void add_session(void *arg, const struct session_view *v)
{
    struct buf *out = ((struct page *)arg)->out;
    separate(out);
    buf_addc(out, '{');
    text(out, "session_id", v->session_id);
    buf_addc(out, ',');
    text(out, "job_id", v->job_id);
    buf_addc(out, ',');
    text(out, "tenant", v->tenant);
    buf_addc(out, ',');
    text(out, "provider", v->provider);
    buf_addc(out, ',');
    text(out, "sandbox", v->box_id);
    buf_addc(out, ',');
    text(out, "step", v->phase);
    buf_addc(out, ',');
    text(out, "waiting_for", v->waiting_for);
    buf_addf(out, ",\"partition\":%d,\"offset\":%lld", (int)v->partition, (long long)v->offset);
    number(out, "attempt", v->attempts);
    number(out, "requests", v->requests);
    number(out, "age_ms", v->age_ms);
    number(out, "step_ms", v->step_ms);
    buf_addc(out, '}');
}

/* "lag": records that the group has still to finish; null until the broker has told the end. */
static void add_partition(void *arg, const struct partition_view *v)
{
    struct page *p = arg;
    struct buf *out = p->out;
    int64_t end = p->from->end_of(p->from->arg, v->partition);
    separate(out);
    buf_addf(out, "{\"partition\":%d,\"offset\":%lld", (int)v->partition, (long long)v->watermark);
    if (end >= 0)
        number(out, "lag", (uint64_t)MAX(end - MAX(v->watermark, 0), 0));
    else
        buf_adds(out, ",\"lag\":null");
    number(out, "taken", v->taken);
    number(out, "done_above", v->finished_above);
    buf_addf(out, ",\"open\":%s}", v->open ? "true" : "false");
}

static void add_budget(void *arg, const struct budget_view *v)
{
    struct buf *out = ((struct page *)arg)->out;
    separate(out);
    buf_addc(out, '{');
    text(out, "provider", v->provider);
    buf_addf(out, ",\"creates_per_minute\":%.1f,\"share\":%.1f,\"tokens\":%.1f", v->limit, v->share,
             v->tokens);
    number(out, "blocked_ms", v->blocked_ms);
    number(out, "parked", v->parked);
    buf_addf(out, ",\"unauthorized\":%s}", v->unauthorized ? "true" : "false");
}

/* Since the process began: whoever looks twice has rates. */
static void add_totals(struct buf *out)
{
    static const struct {
        const char *name;
        enum metric metric;
        unsigned label;
    } totals[] = {
        {"skipped", M_JOBS_SKIPPED, 0},
        {"ready", M_JOBS_COMPLETED, MO_READY},
        {"failed", M_JOBS_COMPLETED, MO_FAILED},
        {"stopped", M_JOBS_COMPLETED, MO_STOPPED},
        {"deleted", M_JOBS_COMPLETED, MO_DELETED},
        {"refused", M_JOBS_COMPLETED, MO_REFUSED},
        {"created", M_SANDBOXES_CREATED, 0},
        {"adopted", M_SANDBOXES_ADOPTED, 0},
        {"destroyed", M_SANDBOXES_DESTROYED, 0},
        {"batches", M_BATCHES, MB_COMMITTED},
    };
    double requests = 0, retries = 0;
    for (unsigned step = 0; step < N_STEPS; step++) {
        retries += metric_value(M_JOB_RETRIES, step);
        requests += metric_value(M_PROVIDER_REQUESTS, step);
    }
    buf_addf(out, ",\"totals\":{\"received\":%.0f", metric_value(M_JOBS_RECEIVED, 0));
    for (size_t i = 0; i < ARRAY_LEN(totals); i++)
        buf_addf(out, ",\"%s\":%.0f", totals[i].name,
                 metric_value(totals[i].metric, totals[i].label));
    buf_addf(out, ",\"retries\":%.0f,\"requests\":%.0f}", retries, requests);
}

static void add_status(const struct core *core, struct buf *out)
{
    struct core_status s;
    core_status(core, &s);
    buf_addf(out, ",\"status\":{\"draining\":%s,\"unauthorized\":%s", s.draining ? "true" : "false",
             s.unauthorized ? "true" : "false");
    number(out, "in_flight", s.in_flight);
    number(out, "parked", s.parked);
    number(out, "unpublished", s.unpublished);
    number(out, "destroys", s.destroys);
    buf_addc(out, '}');
}

int page_sessions(const struct page_sources *from, uint64_t now_ns, struct buf *out)
{
    struct page page = {from, out};
    buf_addc(out, '{');
    text(out, "instance", from->instance);
    buf_addc(out, ',');
    text(out, "fleet", from->config->fleet);
    buf_addc(out, ',');
    text(out, "jobs_topic", from->config->topics.jobs);
    add_status(from->core, out);
    add_totals(out);
    buf_adds(out, ",\"budgets\":[");
    core_each_budget(from->core, now_ns, add_budget, &page);
    buf_adds(out, "],\"partitions\":[");
    core_each_partition(from->core, add_partition, &page);
    buf_adds(out, "],\"sessions\":[");
    core_each_session(from->core, now_ns, add_session, &page);
    buf_adds(out, "]}\n");
    return 200;
}
