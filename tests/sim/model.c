/* The model as an object: its making, time and chance, and the way of a request through it.
 *
 * Model time is the host's time plus what POST /_sim/clock has added. Timers that are due fire, in
 * order and each at its own time, before a request is looked at, so a request always meets the
 * world as of its arrival. Nothing here asks the machine for time or chance: two models with the
 * same options and the same calls give the same bytes. */
#include "tests/sim/model_impl.h"

#include <math.h>
#include <string.h>

/* ---- timers: a binary heap ---- */

static void heap_set(struct model *m, size_t slot, struct timer *t)
{
    m->heap[slot] = t;
    t->slot = slot;
}

static void heap_up(struct model *m, size_t slot)
{
    struct timer *t = m->heap[slot];
    for (size_t up; slot > 0 && m->heap[up = (slot - 1) / 2]->at > t->at; slot = up)
        heap_set(m, slot, m->heap[up]);
    heap_set(m, slot, t);
}

static void heap_down(struct model *m, size_t slot)
{
    struct timer *t = m->heap[slot];
    for (;;) {
        size_t down = 2 * slot + 1;
        if (down + 1 < m->n_heap && m->heap[down + 1]->at < m->heap[down]->at)
            down++;
        if (down >= m->n_heap || m->heap[down]->at >= t->at)
            break;
        heap_set(m, slot, m->heap[down]);
        slot = down;
    }
    heap_set(m, slot, t);
}

void timer_disarm(struct model *m, struct timer *t)
{
    if (t->at == NEVER)
        return;
    size_t slot = t->slot;
    ASSERT(slot < m->n_heap && m->heap[slot] == t);
    struct timer *last = m->heap[--m->n_heap];
    if (last != t) {
        heap_set(m, slot, last);
        heap_up(m, slot);
        heap_down(m, last->slot);
    }
    t->at = NEVER;
}

void timer_arm(struct model *m, struct timer *t, uint64_t at)
{
    ASSERT(t->fire);
    timer_disarm(m, t);
    if (at == NEVER)
        return;
    t->at = at;
    GROW(m->heap, m->n_heap, m->cap_heap);
    heap_set(m, m->n_heap++, t);
    heap_up(m, t->slot);
}

static void run_until(struct model *m, uint64_t until)
{
    while (m->n_heap && m->heap[0]->at <= until) {
        struct timer *t = m->heap[0];
        m->now = MAX(m->now, t->at);
        timer_disarm(m, t);
        t->fire(m, t);
    }
    m->now = MAX(m->now, until);
}

uint64_t wall_ms(const struct model *m)
{
    return m->opt.wall_ms + m->now / NS_PER_MS;
}

/* ---- chance: xoroshiro128+ ---- */

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

uint64_t model_random(struct model *m)
{
    uint64_t a = m->rng[0], b = m->rng[1], result = a + b;
    b ^= a;
    m->rng[0] = rotate(a, 24) ^ b ^ b << 16;
    m->rng[1] = rotate(b, 37);
    return result;
}

static void seed_random(struct model *m, uint64_t seed)
{
    for (int i = 0; i < 2; i++) { /* splitmix64 */
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        m->rng[i] = z ^ z >> 31;
    }
}

double model_uniform(struct model *m)
{
    return (double)(model_random(m) >> 11) * 0x1.0p-53;
}

uint64_t latency(struct model *m, int64_t median_ms, double spread)
{
    if (m->opt.profile != PROFILE_CLOUD)
        return 0;
    double normal =
        sqrt(-2 * log(1 - model_uniform(m))) * cos(2 * 3.14159265358979 * model_uniform(m));
    double ms = (double)median_ms * exp(spread * normal);
    return (uint64_t)(MIN(ms, 40000.0) * 1e6);
}

void make_id(struct model *m, char out[ID_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    uint64_t bits[2] = {model_random(m), model_random(m)};
    size_t n = 0;
    for (unsigned i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            out[n++] = '-';
        unsigned digit = bits[i / 16] >> (i % 16 * 4) & 15;
        if (i == 12)
            digit = 4;
        if (i == 16)
            digit = 8 | (digit & 3);
        out[n++] = hex[digit];
    }
    out[n] = '\0';
}

const char dashboard_url[] = "http://localhost:3000/dashboard";
const char alphabet_token[] = "abcdefghijklmnopqrstuvwxyz0123456789_-";
const char alphabet_signed[] = "abcdefghijklmnopqrstuvwxyz0123456789";

void make_token(struct model *m, char *out, size_t n, const char *alphabet)
{
    size_t letters = strlen(alphabet);
    for (size_t i = 0; i < n; i++)
        out[i] = alphabet[model_random(m) % letters];
    out[n] = '\0';
}

/* ---- making ---- */

struct profile {
    unsigned general, create, lifecycle;
    int64_t boot_ms, server_ms, stop_ms, daemon_ms, race_ms;
};
static const struct profile profiles[] = {
    [PROFILE_FAST] = {1000000, 1000000, 1000000, 20, 20, 5, 0, 0},
    [PROFILE_CLOUD] = {50000, 6000, 50000, 900, 4000, 1000, 150, 10},
    [PROFILE_TIER1] = {10000, 300, 10000, 20, 20, 5, 0, 0},
};
static const unsigned failed_auth_limit = 50;

static void copy_options(struct model *m, const struct model_options *opt)
{
    const struct profile *p = &profiles[opt->profile];
    m->opt = *opt;
    m->opt.base_url = xstrdup(opt->base_url);
    m->opt.domain = xstrdup(opt->domain);
    m->opt.scenario = NULL;
    if (!opt->window_ms)
        m->opt.window_ms = 60000;
    m->boot_ms = opt->boot_ms ? opt->boot_ms : p->boot_ms;
    m->server_ms = opt->server_ms ? opt->server_ms : p->server_ms;
    m->stop_ms = opt->stop_ms ? opt->stop_ms : p->stop_ms;
    m->daemon_ms = opt->daemon_ms ? opt->daemon_ms : p->daemon_ms;
    m->race_ms = opt->race_ms ? opt->race_ms : p->race_ms;
    m->destroy_ms = opt->destroy_ms ? opt->destroy_ms : m->stop_ms;
    m->limits[SCOPE_GENERAL].max = opt->general_limit ? (unsigned)opt->general_limit : p->general;
    m->limits[SCOPE_CREATE].max = opt->create_limit ? (unsigned)opt->create_limit : p->create;
    m->limits[SCOPE_LIFECYCLE].max =
        opt->lifecycle_limit ? (unsigned)opt->lifecycle_limit : p->lifecycle;
    m->limits[SCOPE_ANONYMOUS].max = 500;
    if (!opt->failed_auth_limit)
        m->opt.failed_auth_limit = (int)failed_auth_limit;
}

struct model *model_new(const struct model_options *opt, char error[MODEL_ERROR_SIZE])
{
    ASSERT(opt->base_url && opt->domain);
    struct model *m = xcalloc(1, sizeof *m);
    seed_random(m, opt->seed);
    copy_options(m, opt);
    m->suspended_seen = NEVER;
    make_id(m, m->organization_id);
    make_id(m, m->runner_id);
    m->pool_refill.at = NEVER;
    if (!scenario_load(m, opt->scenario, error)) {
        model_free(m);
        return NULL;
    }
    pool_fill(m);
    return m;
}

static void free_maps(struct model *m)
{
    struct name *name, *next_name;
    HASH_ITER(hh, m->names, name, next_name)
    {
        HASH_DEL(m->names, name);
        free(name->text);
        free(name);
    }
    struct label_set *set, *next_set;
    HASH_ITER(hh, m->sets, set, next_set)
    {
        HASH_DEL(m->sets, set);
        free(set->key);
        free(set->boxes);
        free(set);
    }
    struct peer *peer, *next_peer;
    HASH_ITER(hh, m->peers, peer, next_peer)
    {
        HASH_DEL(m->peers, peer);
        free(peer->address);
        free(peer);
    }
    struct signed_url *url, *next_url;
    HASH_ITER(hh, m->signed_urls, url, next_url)
    {
        HASH_DEL(m->signed_urls, url);
        free(url);
    }
    struct violation *v, *next_v;
    HASH_ITER(hh, m->violations, v, next_v)
    {
        HASH_DEL(m->violations, v);
        free(v->text);
        free(v);
    }
}

static void free_scripts(struct script **scripts)
{
    struct script *s, *next;
    HASH_ITER(hh, *scripts, s, next)
    {
        HASH_DEL(*scripts, s);
        free(s->name);
        free(s->reason);
        free(s);
    }
}

void model_free(struct model *m)
{
    if (!m)
        return;
    struct hold *h, *next;
    HASH_ITER(hh, m->held, h, next)
    release_hold(m, h);
    HASH_CLEAR(hh, m->by_id);
    for (size_t i = 0; i < m->n_boxes; i++)
        box_free(m->boxes[i]);
    for (size_t i = m->first_finished; i < m->n_finished; i++)
        sim_reply_done(&m->finished[i]);
    for (size_t i = 0; i < m->n_faults; i++) {
        free(m->faults[i].method);
        free(m->faults[i].path);
    }
    free_maps(m);
    free_scripts(&m->snapshots);
    free_scripts(&m->box_scripts);
    free(m->boxes);
    free(m->finished);
    free(m->faults);
    free(m->pool);
    free(m->heap);
    free((char *)m->opt.base_url);
    free((char *)m->opt.domain);
    free(m);
}

/* ---- requests ---- */

void sim_reply_done(struct sim_reply *re)
{
    for (size_t i = 0; i < re->n_headers; i++)
        free(re->headers[i].value);
    re->n_headers = 0;
    buf_done(&re->body);
}

/* A reply that was built at model time becomes one on the host's clock. */
void finish_reply(struct model *m, struct sim_reply *re)
{
    uint64_t at = MAX(re->at_ns, m->now);
    re->at_ns = at == NEVER ? NEVER : at + latency(m, 12, 0.5) - m->skew;
}

/* Paths under which the API answers whatever host the client took it for. */
static bool api_path(const char *target)
{
    static const char *const prefixes[] = {"/api/", "/api?", "/sandbox", "/config", "/health"};
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (!strncmp(target, prefixes[i], strlen(prefixes[i])))
            return true;
    return !strcmp(target, "/api");
}

static bool host_is_ours(const char *host)
{
    return !*host || (*host >= '0' && *host <= '9') || !strncmp(host, "localhost", 9) ||
           *host == '[';
}

/* A name of two dots is taken for the folder above: its address is "corrected". */
static void redirect_dots(struct call *c)
{
    char *to = xasprintf("%s/", c->rq->target);
    char *page = xasprintf("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                           "<title>Redirecting</title>\n</head>\n<body>\n<pre>Redirecting to %s"
                           "</pre>\n</body>\n</html>\n",
                           to);
    sim_reply_header(c->re, "Location", to);
    text_reply(c, 301, "text/html; charset=UTF-8", page);
    free(page);
    free(to);
}

static void serve_api(struct call *c)
{
    static const char version_header[] = "X-Daytona-Api-Version", version[] = "0.0.0-dev";
    if (c->n_segments && !strcmp(c->segments[c->n_segments - 1], "..")) {
        redirect_dots(c);
        return;
    }
    c->route = route_find(c, FAMILY_API);
    if (c->route)
        call_read_body(c);
    if (c->re->status) /* bodies are read before anything else, even before that header is set */
        return;
    sim_reply_header(c->re, version_header, version);
    if (peer_blocked(c))
        return;
    if (!c->route) {
        api_error(c, 404, "Cannot %s %s", c->rq->method, c->rq->target);
        return;
    }
    if (c->route->scope != SCOPE_NONE && c->route->scope != SCOPE_ANONYMOUS && !authenticate(c))
        return;
    if (!limit_take(c))
        return;
    if (c->route->writes && c->read_only)
        api_error(c, 403, "Access denied");
    else
        c->route->handle(c);
}

static void serve(struct call *c)
{
    const char *target = c->rq->target;
    if (proxy_is_preview(c)) {
        proxy_preview(c);
    } else if (!strncmp(target, "/_sim/", 6)) {
        c->route = route_find(c, FAMILY_CONTROL);
        if (c->route)
            c->route->handle(c);
        else
            text_reply(c, 404, "text/plain", "no such control path\n");
    } else if (!strncmp(target, "/toolbox/", 9) || !strncmp(target, "/api/toolbox/", 13)) {
        proxy_toolbox(c);
    } else if (api_path(target) || host_is_ours(c->rq->host)) {
        serve_api(c);
    } else {
        go_error(c, 404, "not found: not found");
    }
}

static void count(struct call *c)
{
    const struct route *route = c->route ? c->route : &special_routes[KIND_OTHER];
    if (route->family == FAMILY_CONTROL)
        return;
    if (!c->re->held)
        route_count(c->m, route, c->re->status);
    if (c->box)
        c->box->requests[route_index(route)]++;
}

static void apply_fault(struct model *m, const struct fault *f, struct call *c)
{
    if (!f)
        return;
    struct hold *h = NULL;
    if (c->re->held)
        HASH_FIND(hh, m->held, &c->re->token, sizeof c->re->token, h);
    struct sim_reply *re = h ? &h->reply : c->re;
    if (f->what == FAULT_LOSE_ANSWER)
        re->lost = true;
    else if (f->what == FAULT_DELAY && re->at_ns != NEVER)
        re->at_ns += f->delay_ns;
}

static void handle(struct model *m, struct call *c)
{
    const struct fault *fault = fault_take(m, c->rq);
    if (fault && fault->what == FAULT_LOSE_REQUEST) {
        c->re->lost = true;
        m->lost++;
        return;
    }
    call_parse(c);
    if (fault && fault->what == FAULT_STATUS) /* it never gets to Daytona: of kind "other" */
        api_error(c, fault->status, "%s", reason_phrase(fault->status));
    else
        serve(c);
    count(c);
    apply_fault(m, fault, c);
    if (c->re->lost)
        m->lost++;
}

void model_request(struct model *m, uint64_t now_ns, const struct sim_request *rq,
                   struct sim_reply *out)
{
    run_until(m, now_ns + m->skew);
    *out = (struct sim_reply){.token = ++m->last_token, .at_ns = m->now};
    buf_init(&out->body, BODY_MAX);
    struct call c = {.m = m, .rq = rq, .re = out};
    handle(m, &c);
    if (!out->held)
        finish_reply(m, out);
    sim_call_done(&c);
}

bool model_advance(struct model *m, uint64_t now_ns, struct sim_reply *out)
{
    run_until(m, now_ns + m->skew);
    if (m->first_finished == m->n_finished) {
        m->first_finished = m->n_finished = 0;
        return false;
    }
    *out = m->finished[m->first_finished++];
    return true;
}

uint64_t model_next(const struct model *m)
{
    if (m->first_finished < m->n_finished)
        return 0;
    return m->n_heap ? m->heap[0]->at - MIN(m->skew, m->heap[0]->at) : NEVER;
}

void model_forget(struct model *m, uint64_t token)
{
    struct hold *h = NULL;
    HASH_FIND(hh, m->held, &token, sizeof token, h);
    if (h)
        h->gone = true;
}

void model_open_requests(struct model *m, unsigned now_open)
{
    m->peak_open = MAX(m->peak_open, now_open);
}

void model_on_destroyed(struct model *m, void (*sink)(void *, const char *, size_t), void *arg)
{
    m->on_destroyed = sink;
    m->on_destroyed_arg = arg;
}
