/* Keys and rate limits.
 *
 * A limit is a fixed window that the first request opens. The request that goes over it blocks the
 * scope for a whole window from then on, and what is refused meanwhile prolongs nothing. Every
 * answered request pays, whatever the answer, except one with malformed JSON. Failed
 * authentications are counted per address, and that block comes before everything else, good keys
 * included. */
#include "tests/sim/model_impl.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *limit, *remaining, *reset, *retry_after;
} scope_headers[N_SCOPES] = {
    [SCOPE_GENERAL] = {"X-RateLimit-Limit-authenticated", "X-RateLimit-Remaining-authenticated",
                       "X-RateLimit-Reset-authenticated", "Retry-After-authenticated"},
    [SCOPE_CREATE] = {"X-RateLimit-Limit-sandbox-create", "X-RateLimit-Remaining-sandbox-create",
                      "X-RateLimit-Reset-sandbox-create", "Retry-After-sandbox-create"},
    [SCOPE_LIFECYCLE] = {"X-RateLimit-Limit-sandbox-lifecycle",
                         "X-RateLimit-Remaining-sandbox-lifecycle",
                         "X-RateLimit-Reset-sandbox-lifecycle", "Retry-After-sandbox-lifecycle"},
    [SCOPE_ANONYMOUS] = {"X-RateLimit-Limit-anonymous", "X-RateLimit-Remaining-anonymous",
                         "X-RateLimit-Reset-anonymous", "Retry-After-anonymous"},
};

static uint64_t window_ns(const struct model *m)
{
    return from_ms((uint64_t)m->opt.window_ms);
}

static unsigned seconds_until(const struct model *m, uint64_t at)
{
    return at > m->now ? (unsigned)((at - m->now + NS_PER_S - 1) / NS_PER_S) : 0;
}

static void number_header(struct sim_reply *re, const char *name, unsigned n)
{
    char text[16];
    snprintf(text, sizeof text, "%u", n);
    sim_reply_header(re, name, text);
}

/* False: over the limit, and blocked from now on. */
static bool limit_count(struct model *m, struct limit *l)
{
    if (l->blocked_until > m->now)
        return false;
    if (l->blocked_until || m->now >= l->ends) {
        l->blocked_until = 0;
        l->used = 0;
        l->ends = m->now + window_ns(m);
    }
    if (l->used >= l->max) {
        l->blocked_until = m->now + window_ns(m);
        return false;
    }
    l->used++;
    return true;
}

bool limit_take(struct call *c)
{
    enum scope scope = c->route->scope;
    if (scope == SCOPE_NONE)
        return true;
    struct limit *l = &c->m->limits[scope];
    if (!limit_count(c->m, l)) {
        number_header(c->re, scope_headers[scope].retry_after,
                      seconds_until(c->m, l->blocked_until));
        api_error(c, 429, "ThrottlerException: Too Many Requests");
        return false;
    }
    number_header(c->re, scope_headers[scope].limit, l->max);
    number_header(c->re, scope_headers[scope].remaining, l->max - l->used);
    number_header(c->re, scope_headers[scope].reset, seconds_until(c->m, l->ends));
    return true;
}

bool key_valid(const char *authorization)
{
    static const char prefix[] = "Bearer dtn_", bad[] = "Bearer dtn_bad";
    return authorization && !strncmp(authorization, prefix, sizeof prefix - 1) &&
           strncmp(authorization, bad, sizeof bad - 1) != 0;
}

static bool key_reads_only(const char *authorization)
{
    static const char suffix[] = "READONLY";
    size_t len = strlen(authorization);
    return len > sizeof suffix && !strcmp(authorization + len - (sizeof suffix - 1), suffix);
}

static struct limit *failures_of(struct call *c)
{
    const char *address = c->rq->peer ? c->rq->peer : "";
    struct peer *p = NULL;
    HASH_FIND_STR(c->m->peers, address, p);
    if (!p) {
        p = xcalloc(1, sizeof *p);
        p->address = xstrdup(address);
        p->failures.max = (unsigned)c->m->opt.failed_auth_limit;
        HASH_ADD_KEYPTR(hh, c->m->peers, p->address, strlen(p->address), p);
    }
    return &p->failures;
}

static void failure_headers(struct call *c, const struct limit *l, uint64_t reset_at)
{
    number_header(c->re, "X-RateLimit-Limit-failed-auth", l->max);
    number_header(c->re, "X-RateLimit-Remaining-failed-auth", l->max - l->used);
    number_header(c->re, "X-RateLimit-Reset-failed-auth", seconds_until(c->m, reset_at));
}

static void refuse_peer(struct call *c, const struct limit *l)
{
    failure_headers(c, l, l->blocked_until);
    number_header(c->re, "Retry-After", seconds_until(c->m, l->blocked_until));
    api_error(c, 429, "ThrottlerException: Too Many Requests");
}

bool peer_blocked(struct call *c)
{
    if (!c->m->peers)
        return false;
    struct limit *l = failures_of(c);
    if (l->blocked_until <= c->m->now)
        return false;
    refuse_peer(c, l);
    return true;
}

bool authenticate(struct call *c)
{
    const char *authorization = sim_call_header(c, "Authorization");
    if (key_valid(authorization)) {
        c->read_only = key_reads_only(authorization);
        return true;
    }
    struct limit *l = failures_of(c);
    limit_count(c->m, l);
    if (l->used >= l->max) { /* the attempt that reaches the limit is refused already */
        l->blocked_until = c->m->now + window_ns(c->m);
        refuse_peer(c, l);
        return false;
    }
    failure_headers(c, l, l->ends);
    api_error(c, 401, "Invalid credentials");
    return false;
}
