/* pages: see the header. Nothing here is secret: ids, steps, counts. */
#include "worker/io/pages.h"

#include <string.h>

#include "common/json.h"

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
    struct buf *out = arg;
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
    buf_addc(out, '}');
}

static void add_partition(void *arg, const struct partition_view *v)
{
    struct buf *out = arg;
    separate(out);
    buf_addf(out, "{\"partition\":%d,\"offset\":%lld", (int)v->partition, (long long)v->watermark);
    number(out, "taken", v->taken);
    number(out, "done_above", v->finished_above);
    buf_addf(out, ",\"open\":%s}", v->open ? "true" : "false");
}

int page_sessions(const struct core *core, const char *instance, uint64_t now_ns, struct buf *out)
{
    struct core_status s;
    core_status(core, &s);
    buf_addc(out, '{');
    text(out, "instance", instance);
    buf_addf(out, ",\"status\":{\"draining\":%s,\"unauthorized\":%s", s.draining ? "true" : "false",
             s.unauthorized ? "true" : "false");
    number(out, "in_flight", s.in_flight);
    number(out, "parked", s.parked);
    number(out, "unpublished", s.unpublished);
    number(out, "destroys", s.destroys);
    buf_adds(out, "},\"partitions\":[");
    core_each_partition(core, add_partition, out);
    buf_adds(out, "],\"sessions\":[");
    core_each_session(core, now_ns, add_session, out);
    buf_adds(out, "]}\n");
    return 200;
}
