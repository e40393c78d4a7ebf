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
 * - A request stays in the list until the world ends: events name it by its index.
 * - Whenever the model was touched, its next move of its own is in the queue. */
#include "tests/sim/world_impl.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

static void daytona_wakes(struct world *w)
{
    uint64_t at = model_next(w->model);
    if (at == NEVER || (w->daytona_ns && at >= w->daytona_ns))
        return;
    w->daytona_ns = at;
    world_push(w, at, (struct event_at){.what = DAYTONA});
}

/* ---- requests ---- */

void world_call(struct world *w, unsigned i, struct effect *e)
{
    struct worker *k = &w->workers[i];
    struct request *r = xcalloc(1, sizeof *r);
    GROW(w->requests, w->n_requests, w->cap_requests);
    size_t n = w->n_requests++;
    w->requests[n] = r;
    *r = (struct request){.worker = i, .epoch = k->epoch, .call = e->call.id, .c = e->call.call};
    memset(&e->call.call, 0, sizeof e->call.call);
    r->lose_request = k->lose_requests > 0 && k->lose_requests--;
    r->lose_answer = !r->lose_request && k->lose_answers > 0 && k->lose_answers--;
    r->fail_503 = k->fails > 0 && k->fails--;
    r->delay_ns = k->delays > 0 && k->delays-- ? 8 * NS_PER_S : 0;
    if (!strcmp(r->c.method, "POST") && !strstr(r->c.url, "/sandbox?"))
        ASSERT(!r->c.body || r->c.content_type);
    world_tell(w, "w%u  %s %s%s", i, r->c.method,
               strstr(r->c.url, "/api") ? strstr(r->c.url, "/api") : r->c.url,
               r->lose_request  ? " (request lost)"
               : r->lose_answer ? " (answer lost)"
                                : "");
    world_post(w, world_about(w, 4), ARRIVE, i, n);
    world_post(w, w->now + r->c.timeout_ms * NS_PER_MS, CALL_TIMEOUT, i, n);
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

static void reply_comes(struct world *w, size_t n, struct sim_reply *from)
{
    struct request *r = w->requests[n];
    r->reply = *from;
    r->answered = true;
    memset(from, 0, sizeof *from);
    if (r->reply.at_ns == NEVER)
        return;
    uint64_t at = MAX(r->reply.at_ns, w->now) + r->delay_ns + rng_below(&w->rng, 4 * NS_PER_MS);
    world_push(w, at,
               (struct event_at){.what = DELIVER, .worker = r->worker, .epoch = r->epoch, .n = n});
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

static void arrive(struct world *w, size_t n)
{
    struct request *r = w->requests[n];
    struct sim_header headers[CALL_HEADERS_MAX + 1];
    size_t n_headers = 0;
    if (r->lose_request) {
        fault_request(w, r, FAULT_LOST);
        return;
    }
    if (r->fail_503) {
        struct reply reply = {
            .status = 503, .body = "{\"message\":\"maintenance\"}", .body_len = 25};
        finish_request(w, r, &reply);
        return;
    }
    for (size_t i = 0; i < r->c.n_headers; i++)
        headers[n_headers++] = (struct sim_header){r->c.headers[i].name, r->c.headers[i].value};
    if (r->c.body)
        headers[n_headers++] = (struct sim_header){"Content-Type", r->c.content_type};
    char *host;
    struct sim_request q = {.method = r->c.method,
                            .headers = headers,
                            .n_headers = n_headers,
                            .body = r->c.body,
                            .body_len = r->c.body_len};
    split_url(r->c.url, &host, &q.target);
    q.host = host;
    struct sim_reply reply = {0};
    model_request(w->model, w->now, &q, &reply);
    if (strstr(r->c.url, "/stop"))
        world_check_sandboxes(w);
    r->token = reply.token;
    if (reply.held)
        sim_reply_done(&reply);
    else
        reply_comes(w, n, &reply);
    free(host);
    daytona_wakes(w);
}

void world_on_arrive(struct world *w, const struct event_at *e)
{
    if (w->requests[e->n]->epoch == w->workers[e->worker].epoch || rng_below(&w->rng, 2))
        arrive(w, e->n); /* of a dead worker's requests some were on the wire already */
}

/* ---- answers ---- */

void world_on_deliver(struct world *w, const struct event_at *e)
{
    struct request *r = w->requests[e->n];
    struct reply_header headers[SIM_REPLY_HEADERS];
    if (r->reply.lost || r->lose_answer) {
        fault_request(w, r, FAULT_LOST);
        return;
    }
    struct reply reply = {.status = r->reply.status,
                          .headers = headers,
                          .n_headers = r->reply.n_headers,
                          .body = buf_text(&r->reply.body),
                          .body_len = r->reply.body.len,
                          .date_ms = WALL_MS + w->now / NS_PER_MS};
    char *names[SIM_REPLY_HEADERS];
    for (size_t i = 0; i < r->reply.n_headers; i++) {
        names[i] = xstrdup(r->reply.headers[i].name);
        for (char *c = names[i]; *c; c++)
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
        headers[i] = (struct reply_header){names[i], r->reply.headers[i].value};
    }
    finish_request(w, r, &reply);
    for (size_t i = 0; i < r->reply.n_headers; i++)
        free(names[i]);
}

void world_on_daytona(struct world *w, const struct event_at *e)
{
    (void)e;
    struct sim_reply reply = {0};
    w->daytona_ns = 0;
    while (model_advance(w->model, w->now, &reply)) {
        for (size_t n = 0; n < w->n_requests; n++)
            if (w->requests[n]->token == reply.token && !w->requests[n]->answered) {
                reply_comes(w, n, &reply);
                break;
            }
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
