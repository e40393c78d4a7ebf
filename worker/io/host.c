/* host: see the header.
 *
 * One input at a time: step() asserts that it is not entered again from an effect; consumer,
 * publisher and http promise not to call back from inside their own functions.
 *
 * A turn that comes very late (the process was stopped, the machine slept) may mean that our
 * partitions belong to somebody else by now. So before anything else such a turn drops the requests
 * that no socket has seen, and lets Kafka speak first. */
#include "worker/io/host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/secret.h"
#include "common/version.h"
#include "common/xalloc.h"
#include "worker/core/core.h"
#include "worker/io/admin.h"
#include "worker/io/consumer.h"
#include "worker/io/files.h"
#include "worker/io/http.h"
#include "worker/io/instance.h"
#include "worker/io/kafka.h"
#include "worker/io/pages.h"
#include "worker/io/publisher.h"

#define HEARTBEAT_NS NS_PER_S
#define CONNECTS_PER_TURN 64
#define CALLS_PER_JOB 2

struct host {
    struct loop *loop;           /* borrowed */
    const struct config *config; /* borrowed */
    struct instance instance;
    struct provider **providers; /* owned */
    struct core *core;           /* owned, as all below */
    struct http *http;
    struct consumer *consumer;
    struct publisher *publisher;
    struct admin *admin;
    struct timer *tick, *heartbeat;
    struct outbox out;
    uint64_t alive_ns, late_ns; /* last turn, by loop_boot_ns; how late a turn counts as frozen */
    uint64_t beat_ns;           /* when the next heartbeat is due */
    bool stepping;
    int exit_code;
};

/* ---- effects ---- */

static void carry_out(struct host *h, struct effect *e)
{
    switch (e->kind) {
    case DO_CALL:
        http_send(h->http, e->call.id, &e->call.call);
        break;
    case DO_CANCEL:
        http_cancel(h->http, e->cancel);
        break;
    case DO_TAKE:
        consumer_open(h->consumer, e->take.partition, e->take.open);
        break;
    case DO_COMMIT:
        publisher_commit(h->publisher, e->commit,
                         h->config->kafka.delivery == EXACTLY_ONCE ? consumer_group(h->consumer)
                                                                   : NULL);
        break;
    case DO_RELEASE:
        consumer_release(h->consumer, e->release.partitions, e->release.n);
        break;
    case DO_PROGRESS:
        publisher_progress(h->publisher, &e->progress);
        break;
    case DO_DRAINED:
        consumer_leave(h->consumer);
        break;
    }
}

/* True when this turn is late by more than a member of the group may be silent: by the clock that
 * goes on while the machine sleeps, as the group's does. */
static bool thawed(struct host *h)
{
    uint64_t now = loop_boot_ns();
    bool frozen = h->alive_ns && now - h->alive_ns > h->late_ns;
    uint64_t gap_ms = (now - h->alive_ns) / NS_PER_MS;
    h->alive_ns = now;
    if (!frozen)
        return false;
    log_warn(NULL,
             "this process was stopped for a while: unsent requests are dropped, Kafka goes first",
             L_UINT("ms", gap_ms));
    http_drop_unsent(h->http);
    return true;
}

static void thaw(struct host *h)
{
    if (thawed(h))
        consumer_serve(h->consumer);
}

static void step(struct host *h, struct input *in)
{
    uint64_t now = loop_now_ns();
    ASSERT(!h->stepping);
    h->stepping = true;
    in->wall_ms = loop_wall_ms();
    core_step(h->core, now, in, &h->out);
    for (size_t i = 0; i < h->out.n; i++)
        carry_out(h, &h->out.effects[i]);
    outbox_clear(&h->out);
    timer_arm(h->tick, core_next(h->core));
    h->stepping = false;
}

/* ---- inputs ---- */

static void on_tick(void *arg)
{
    struct host *h = arg;
    thaw(h);
    step(h, &(struct input){.kind = IN_TICK});
}

static void on_heartbeat(void *arg)
{
    struct host *h = arg;
    uint64_t now = loop_now_ns();
    thaw(h);
    metric_observe(M_LOOP_LAG_SECONDS, 0, (double)(now - MIN(now, h->beat_ns)) / 1e9);
    metric_set(M_HTTP_IN_FLIGHT, (double)http_in_flight(h->http));
    struct core_status status;
    core_status(h->core, &status);
    metric_set(M_PROVIDER_REFUSES, status.unauthorized);
    h->beat_ns = now + HEARTBEAT_NS;
    timer_arm(h->heartbeat, h->beat_ns);
}

static void on_reply(void *arg, uint64_t id, const struct reply *reply)
{
    struct host *h = arg;
    thaw(h);
    struct input in = {.kind = IN_REPLY, .reply = {.call = id, .reply = reply}};
    step(h, &in);
}

static void on_record(void *arg, const struct record *r)
{
    struct host *h = arg;
    struct refusal why = {0};
    unsigned unknown = 0;
    (void)thawed(h); /* Kafka is speaking already */
    struct input in = {.kind = IN_JOB, .job = {.record = r}};
    if (core_may_parse(h->core, r->partition, r->offset)) {
        in.job.job = job_parse(r, h->config, &why, &unknown);
        in.job.refusal = &why;
    }
    if (unknown)
        metric_add(M_UNKNOWN_FIELDS, unknown);
    step(h, &in);
    refusal_done(&why);
}

static void on_assigned(void *arg, int32_t partition, int32_t total, int64_t offset,
                        const char *metadata)
{
    struct input in = {.kind = IN_ASSIGNED,
                       .assigned = {.partition = partition,
                                    .partitions_total = total,
                                    .offset = offset,
                                    .metadata = metadata}};
    step(arg, &in);
}

static void on_revoked(void *arg, const int32_t *partitions, size_t n)
{
    struct input in = {.kind = IN_REVOKED, .gone = {.partitions = partitions, .n = n}};
    step(arg, &in);
}

static void on_lost(void *arg, const int32_t *partitions, size_t n)
{
    struct input in = {.kind = IN_LOST, .gone = {.partitions = partitions, .n = n}};
    step(arg, &in);
}

static void on_outcome(void *arg, uint64_t batch, bool committed)
{
    thaw(arg);
    struct input in = {.kind = committed ? IN_COMMITTED : IN_COMMIT_FAILED,
                       .commit = {.batch = batch}};
    step(arg, &in);
}

static void on_closed(void *arg)
{
    struct host *h = arg;
    loop_stop(h->loop);
}

static void on_fatal(void *arg, int exit_code, const char *why)
{
    struct host *h = arg;
    log_error(NULL, "cannot go on", L_STR("why", why));
    h->exit_code = exit_code;
    loop_stop(h->loop);
}

void host_drain(struct host *h)
{
    log_info(NULL, "draining");
    step(h, &(struct input){.kind = IN_DRAIN});
}

/* ---- the admin port ---- */

static int healthz(void *arg, struct buf *out)
{
    (void)arg;
    buf_adds(out, "ok\n");
    return 200;
}

static int readiness(const struct host *h, struct buf *out)
{
    struct core_status status;
    core_status(h->core, &status);
    struct readiness r = {.publisher = publisher_ready(h->publisher),
                          .consumer = consumer_ready(h->consumer),
                          .key = !status.unauthorized,
                          .staying = !status.draining};
    return page_readyz(&r, out);
}

static int readyz(void *arg, struct buf *out)
{
    return readiness(arg, out);
}

bool host_status(const struct host *h, struct buf *out)
{
    struct core_status s;
    struct buf page CLEANUP(buf_done);
    core_status(h->core, &s);
    buf_init(&page, 1000);
    bool ready = readiness(h, &page) == 200;
    buf_addf(out, "%.*s; %zu jobs in hand, %zu parked, %zu partitions",
             (int)strcspn(buf_text(&page), "\n"), buf_text(&page), s.in_flight, s.parked,
             s.partitions);
    return ready;
}

/* What the last fetch said; asks nobody. */
static int64_t end_of(void *arg, int32_t partition)
{
    const struct host *h = arg;
    int64_t low, high;
    rd_kafka_resp_err_t err = rd_kafka_get_watermark_offsets(
        consumer_handle(h->consumer), h->config->topics.jobs, partition, &low, &high);
    return err ? -1 : high;
}

static int sessions(void *arg, struct buf *out)
{
    struct host *h = arg;
    struct page_sources from = {.core = h->core,
                                .config = h->config,
                                .instance = h->instance.name,
                                .end_of = end_of,
                                .arg = h};
    return page_sessions(&from, loop_now_ns(), out);
}

static int open_admin(struct host *h)
{
    const char *listen = h->config->admin.listen;
    struct admin_pages pages = {
        .healthz = healthz, .readyz = readyz, .sessions = sessions, .arg = h};
    return listen[0] ? admin_new(h->loop, listen, &pages, &h->admin) : 0;
}

/* ---- life ---- */

static void make_providers(struct host *h)
{
    size_t n = h->config->n_providers;
    h->providers = xcalloc(n, sizeof(struct provider *));
    for (size_t i = 0; i < n; i++) {
        h->providers[i] = provider_new(h->config, i);
        ASSERT(h->providers[i]); /* the configuration was checked */
    }
}

static bool any_plain_http(const struct config *cfg)
{
    for (size_t i = 0; i < cfg->n_providers; i++)
        if (strncmp(cfg->providers[i].api_url, "http://", 7) == 0)
            return true;
    return false;
}

/* How many calls may be out at once: as many as the jobs may need, and the open files allow. */
static unsigned calls_at_once(const struct config *cfg)
{
    unsigned wanted = (unsigned)cfg->jobs.max_in_flight * CALLS_PER_JOB + 64;
    uint64_t limit = files_limit();
    unsigned calls = files_for_calls(limit, wanted);
    if (calls == 0)
        log_error(NULL, "too few open files are allowed: raise LimitNOFILE (ulimit -n)",
                  L_UINT("limit", limit), L_UINT("least", FILES_LEAST));
    else if (calls < wanted)
        log_warn(NULL,
                 "few open files are allowed, so calls will wait for each other: raise "
                 "LimitNOFILE (ulimit -n) or lower jobs.max_in_flight",
                 L_UINT("limit", limit), L_UINT("calls_at_once", calls),
                 L_UINT("wanted", files_needed(wanted)));
    return calls;
}

static int make_http(struct host *h)
{
    struct http_options o = {.allow_http = any_plain_http(h->config),
                             .user_agent = "session-worker/" VERSION,
                             .connect_to = h->config->http.connect_to,
                             .n_connect_to = h->config->http.n_connect_to,
                             .max_in_flight = calls_at_once(h->config),
                             .max_connects = CONNECTS_PER_TURN};
    if (o.max_in_flight == 0)
        return -EMFILE;
    h->http = http_new(h->loop, &o, on_reply, h);
    return 0;
}

static void make_core(struct host *h)
{
    struct core_options o = {.config = h->config, .providers = h->providers};
    uint8_t seed[sizeof o.seed];
    random_bytes(seed, sizeof seed);
    memcpy(&o.seed, seed, sizeof seed);
    h->core = core_new(&o);
}

static int make_kafka(struct host *h)
{
    static const struct consumer_events events = {.record = on_record,
                                                  .assigned = on_assigned,
                                                  .revoked = on_revoked,
                                                  .lost = on_lost,
                                                  .closed = on_closed,
                                                  .fatal = on_fatal};
    struct consumer_options c = {
        .config = h->config, .instance = h->instance.name, .events = &events, .arg = h};
    h->consumer = consumer_new(h->loop, &c);
    if (!h->consumer)
        return -EINVAL;
    h->late_ns = (uint64_t)kafka_number(consumer_handle(h->consumer), "session.timeout.ms", 30000) /
                 2 * NS_PER_MS;
    struct publisher_options p = {.config = h->config,
                                  .instance = h->instance.name,
                                  .consumer = consumer_handle(h->consumer),
                                  .outcome = on_outcome,
                                  .fatal = on_fatal,
                                  .arg = h};
    h->publisher = publisher_new(h->loop, &p);
    return h->publisher ? 0 : -EINVAL;
}

int host_new(struct loop *loop, const struct config *cfg, struct host **out)
{
    struct host *h = xcalloc(1, sizeof *h);
    *out = h;
    h->loop = loop;
    h->config = cfg;
    h->instance.slot = -1;
    int r = instance_take(cfg, &h->instance);
    if (r == 0)
        r = make_http(h); /* too few files, or a port in use, are found before anything is joined */
    if (r == 0)
        r = open_admin(h);
    if (r < 0)
        return r;
    make_providers(h);
    make_core(h);
    h->tick = timer_new(loop, on_tick, h);
    h->heartbeat = timer_new(loop, on_heartbeat, h);
    return make_kafka(h);
}

int host_run(struct host *h)
{
    h->beat_ns = loop_now_ns();
    timer_arm(h->heartbeat, h->beat_ns);
    log_info(NULL, "worker started", L_STR("instance", h->instance.name),
             L_STR("fleet", h->config->fleet), L_STR("jobs", h->config->topics.jobs),
             L_STR("version", VERSION));
    loop_run(h->loop);
    return h->exit_code;
}

void host_free(struct host *h)
{
    if (!h)
        return;
    admin_free(h->admin);
    if (!publisher_free(h->publisher))
        _exit(h->exit_code); /* its thread still uses the consumer, and the core's batch */
    consumer_free(h->consumer);
    http_free(h->http);
    core_free(h->core);
    timer_free(h->tick);
    timer_free(h->heartbeat);
    for (size_t i = 0; h->providers && i < h->config->n_providers; i++)
        provider_free(h->providers[i]);
    free(h->providers);
    outbox_done(&h->out);
    instance_done(&h->instance);
    free(h);
}
