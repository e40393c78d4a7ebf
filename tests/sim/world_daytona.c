/* world_daytona: the requests of the workers, and the answers of the one Daytona, which is the
 * simulator's model.
 *
 * A request is on its way, at Daytona or on its way back; on each leg it may be lost or late, and
 * what it did at Daytona stays done. That is the difference that matters: a lost request did
 * nothing, a lost answer did everything, and the worker hears the same of both.
 *
 * Invariants:
 * - A worker hears of a request once at most: the answer, a fault or its own time-out, whichever is
 *   first; after it cancelled, or in another life, never.
 * - A request stays in its place as long as an event names it, or Daytona holds it.
 * - Whenever the model was touched, its next move of its own is in the queue. */
#include "tests/sim/world_impl.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "tests/sim/digest.h"

static void daytona_wakes(struct world *w)
{
    uint64_t at = model_next(w->model);
    if (w->plan->step_by_step) /* the host looks for itself */
        return;
    if (at == NEVER || (w->daytona_ns && at >= w->daytona_ns))
        return;
    w->daytona_ns = at;
    world_push(w, at, (struct event_at){.what = DAYTONA});
}

/* ---- requests ---- */

static size_t free_place(struct world *w)
{
    for (size_t n = 0; n < w->n_requests; n++)
        if (!w->requests[n])
            return n;
    GROW(w->requests, w->n_requests, w->cap_requests);
    return w->n_requests++;
}

void world_request_free(struct request *r)
{
    if (!r)
        return;
    call_done(&r->c);
    sim_reply_done(&r->reply);
    free(r);
}

void world_request_unnamed(struct world *w, uint64_t n)
{
    struct request *r = w->requests[n];
    if (--r->events || (r->held && !r->answered))
        return;
    world_request_free(r);
    w->requests[n] = NULL;
}

static void name_request(struct world *w, uint64_t at, enum happening what, uint64_t n)
{
    struct request *r = w->requests[n];
    r->events++;
    world_push(w, at,
               (struct event_at){.what = what, .worker = r->worker, .epoch = r->epoch, .n = n});
}

static void draw_faults(struct worker *k, struct request *r)
{
    r->lose_request = k->lose_requests > 0 && k->lose_requests--;
    r->lose_answer = !r->lose_request && k->lose_answers > 0 && k->lose_answers--;
    r->fail_503 = k->fails > 0 && k->fails--;
    r->delay_ns = k->delays > 0 && k->delays-- ? 8 * NS_PER_S : 0;
}

static const char *path_of(const char *url)
{
    const char *api = strstr(url, "/api");
    return api ? api : url;
}

void world_call(struct world *w, unsigned i, struct effect *e)
{
    struct worker *k = &w->workers[i];
    struct request *r = xcalloc(1, sizeof *r);
    size_t n = free_place(w);
    w->requests[n] = r;
    *r = (struct request){.worker = i, .epoch = k->epoch, .call = e->call.id, .c = e->call.call};
    memset(&e->call.call, 0, sizeof e->call.call);
    draw_faults(k, r);
    bool late = k->lates > 0 && k->lates--;
    world_check_request(w, r);
    world_tell(w, "w%u  %s %s%s", i, r->c.method, path_of(r->c.url),
               r->lose_request  ? " (request lost)"
               : r->lose_answer ? " (answer lost)"
               : late           ? " (late)"
                                : "");
    uint64_t late_ns = late ? (5 + rng_below(&w->rng, 60)) * NS_PER_S : 0;
    name_request(w, world_about(w, 4) + late_ns, ARRIVE, n);
    name_request(w, w->now + r->c.timeout_ms * NS_PER_MS, CALL_TIMEOUT, n);
}

void world_cancel(struct world *w, unsigned i, uint64_t call)
{
    for (size_t n = w->n_requests; n-- > 0;) {
        struct request *r = w->requests[n];
        if (r && r->worker == i && r->epoch == w->workers[i].epoch && r->call == call) {
            r->done = true;
            return;
        }
    }
}

static void finish_request(struct world *w, struct request *r, const struct reply *reply)
{
    struct worker *k = &w->workers[r->worker];
    if (r->done)
        return;
    r->done = true;
    if (!k->core || k->epoch != r->epoch)
        return;
    struct input in = {.kind = IN_REPLY, .reply = {.call = r->call, .reply = reply}};
    world_tell(w, "w%u  <- %d%s %.*s", r->worker, reply->status, reply->fault ? " fault" : "",
               (int)MIN(reply->body_len, 160), reply->body ? reply->body : "");
    world_step(w, r->worker, &in);
}

static void fault_request(struct world *w, struct request *r, enum fault fault)
{
    struct reply reply = {.fault = fault};
    finish_request(w, r, &reply);
}

void world_on_call_timeout(struct world *w, const struct event_at *e)
{
    fault_request(w, w->requests[e->n], FAULT_TIMEOUT);
}

/* What an answer says follows from the question and from how things stand when it is put. */
static uint64_t answer_digest(const struct world *w, const struct request *r)
{
    struct digest d = {0};
    model_digest(w->model, w->now, &d);
    digest_add(&d, (uint64_t)r->reply.status << 1 | r->reply.lost);
    return d.sum;
}

static void reply_comes(struct world *w, size_t n, struct sim_reply *from)
{
    struct request *r = w->requests[n];
    r->reply = *from;
    r->answered = true;
    r->answered_ns = w->now;
    memset(from, 0, sizeof *from);
    if (w->plan->step_by_step)
        r->answer = answer_digest(w, r);
    if (r->reply.at_ns == NEVER)
        return;
    uint64_t at = MAX(r->reply.at_ns, w->now) + r->delay_ns;
    name_request(w, world_about(w, 2) + at - w->now, DELIVER, n);
}

/* "http://host:port/path" in two. */
static void split_url(const char *url, char **host, const char **target)
{
    const char *start = strstr(url, "://");
    start = start ? start + 3 : url;
    const char *slash = strchr(start, '/');
    *target = slash ? slash : "/";
    *host = slash ? xmemdup0(start, (size_t)(slash - start)) : xstrdup(start);
}

/* Its headers; while our key is refused, with a key that is. */
static size_t headers_of(const struct world *w, const struct request *r, struct sim_header *out)
{
    bool refused = w->now < w->key_refused_until;
    size_t n = 0;
    for (size_t i = 0; i < r->c.n_headers; i++) {
        bool key = !strcmp(r->c.headers[i].name, "Authorization");
        const char *value = key && refused ? "Bearer dtn_bad" : r->c.headers[i].value;
        out[n++] = (struct sim_header){r->c.headers[i].name, value};
    }
    if (r->c.body)
        out[n++] = (struct sim_header){"Content-Type", r->c.content_type};
    return n;
}

static void reaches_daytona(struct world *w, size_t n)
{
    struct request *r = w->requests[n];
    struct sim_header headers[CALL_HEADERS_MAX + 1];
    char *host;
    struct sim_request q = {.method = r->c.method,
                            .headers = headers,
                            .n_headers = headers_of(w, r, headers),
                            .body = r->c.body,
                            .body_len = r->c.body_len};
    split_url(r->c.url, &host, &q.target);
    q.host = host;
    struct sim_reply reply = {0};
    if (w->plan->step_by_step)
        model_steady(w->model);
    w->late_keep |= r->done && strstr(r->c.url, "/autodelete/");
    model_request(w->model, w->now, &q, &reply);
    r->token = reply.token;
    r->held = reply.held;
    if (reply.held)
        sim_reply_done(&reply);
    else
        reply_comes(w, n, &reply);
    free(host);
    daytona_wakes(w);
}

static void arrive(struct world *w, size_t n)
{
    struct request *r = w->requests[n];
    if (r->lose_request || r->fail_503)
        name_request(w, w->now, DELIVER, n);
    else
        reaches_daytona(w, n);
}

void world_on_arrive(struct world *w, const struct event_at *e)
{
    const struct request *r = w->requests[e->n];
    if (r->epoch == w->workers[e->worker].epoch || world_coin(w))
        arrive(w, e->n); /* of a dead worker's requests some were on the wire already */
}

/* ---- answers ---- */

static void deliver(struct world *w, struct request *r)
{
    struct reply_header headers[SIM_REPLY_HEADERS];
    char *names[SIM_REPLY_HEADERS];
    struct reply reply = {.status = r->reply.status,
                          .headers = headers,
                          .n_headers = r->reply.n_headers,
                          .body = buf_text(&r->reply.body),
                          .body_len = r->reply.body.len,
                          .date_ms = WALL_MS + w->now / NS_PER_MS};
    size_t n = r->reply.n_headers;
    for (size_t i = 0; i < n; i++) {
        names[i] = xstrdup(r->reply.headers[i].name);
        for (char *c = names[i]; *c; c++)
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
        headers[i] = (struct reply_header){names[i], r->reply.headers[i].value};
    }
    finish_request(w, r, &reply);
    for (size_t i = 0; i < n; i++)
        free(names[i]);
}

void world_on_deliver(struct world *w, const struct event_at *e)
{
    static const char maintenance[] = "{\"message\":\"maintenance\"}";
    struct request *r = w->requests[e->n];
    struct reply busy = {.status = 503, .body = maintenance, .body_len = sizeof maintenance - 1};
    if (r->fail_503)
        finish_request(w, r, &busy);
    else if (r->lose_request || r->reply.lost || r->lose_answer)
        fault_request(w, r, FAULT_LOST);
    else
        deliver(w, r);
}

static void give_held_reply(struct world *w, struct sim_reply *reply)
{
    for (size_t n = 0; n < w->n_requests; n++) {
        struct request *r = w->requests[n];
        if (!r || r->token != reply->token || r->answered)
            continue;
        reply_comes(w, n, reply);
        if (!r->events) {
            world_request_free(r);
            w->requests[n] = NULL;
        }
        return;
    }
}

void world_on_daytona(struct world *w, const struct event_at *e)
{
    (void)e;
    struct sim_reply reply = {0};
    w->daytona_ns = 0;
    while (model_advance(w->model, w->now, &reply)) {
        give_held_reply(w, &reply);
        sim_reply_done(&reply);
    }
    daytona_wakes(w);
}

/* ---- somebody else ---- */

void world_make_foreign(struct world *w)
{
    static const char body[] =
        "{\"name\":\"x.s0\",\"labels\":{\"owner\":\"another\"},\"autoStopInterval\":0}";
    static const struct sim_header headers[] = {{"Authorization", "Bearer dtn_any"},
                                                {"Content-Type", "application/json"}};
    struct sim_request q = {.method = "POST",
                            .target = "/api/sandbox",
                            .host = "",
                            .headers = headers,
                            .n_headers = ARRAY_LEN(headers),
                            .body = body,
                            .body_len = sizeof body - 1};
    struct sim_reply reply = {0};
    model_request(w->model, 0, &q, &reply);
    sim_reply_done(&reply);
    daytona_wakes(w);
}
