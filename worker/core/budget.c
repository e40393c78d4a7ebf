/* budget: see the header. */
#include "worker/core/budget.h"

#include <math.h>

#define WINDOW_S 60.0
#define BURST 0.1          /* of the share */
#define LATE_S 15          /* the last quarter of a window: what is unspent then is spare */
#define NEWS_NS (NS_PER_S) /* how long a header's word counts */

static double burst_of(const struct budget *b)
{
    return fmax(1.0, b->share * BURST);
}

static double per_second(const struct budget *b)
{
    return fmax(b->share - burst_of(b), b->share / 2) / WINDOW_S;
}

static void fill(struct budget *b, uint64_t now_ns)
{
    double seconds = now_ns > b->filled_ns ? (double)(now_ns - b->filled_ns) / 1e9 : 0;
    b->tokens = fmin(burst_of(b), b->tokens + seconds * per_second(b));
    b->filled_ns = MAX(now_ns, b->filled_ns);
}

void budget_init(struct budget *b, const struct provider_config *cfg, uint64_t now_ns)
{
    *b = (struct budget){.limit = cfg->creates_per_minute * cfg->budget_share, .filled_ns = now_ns};
}

void budget_share(struct budget *b, size_t owned, size_t total, uint64_t now_ns)
{
    fill(b, now_ns);
    b->share = total ? b->limit * (double)owned / (double)total : 0;
    bool first = !b->begun && b->share > 0;
    b->begun |= first;
    b->tokens = first ? burst_of(b) : fmin(b->tokens, burst_of(b));
}

static bool has_extra(const struct budget *b, uint64_t now_ns)
{
    return b->extra >= 1 && now_ns - b->extra_ns < NEWS_NS;
}

uint64_t budget_when(struct budget *b, const struct scope *s, uint8_t scope, uint64_t now_ns)
{
    uint64_t free_at = scope < SCOPES_MAX ? b->blocked_until[scope] : 0;
    if (!s || !s->creates || free_at > now_ns)
        return free_at;
    fill(b, now_ns);
    if (b->tokens >= 1 || has_extra(b, now_ns))
        return now_ns;
    double rate = per_second(b);
    return rate > 0 ? now_ns + 1 + (uint64_t)((1 - b->tokens) / rate * 1e9) : NEVER;
}

double budget_tokens(const struct budget *b, uint64_t now_ns)
{
    struct budget now = *b;
    fill(&now, now_ns);
    return now.tokens;
}

void budget_take(struct budget *b, const struct scope *s, uint64_t now_ns)
{
    if (!s || !s->creates)
        return;
    fill(b, now_ns);
    if (b->tokens >= 1)
        b->tokens -= 1;
    else
        b->extra -= 1;
}

/* The window is nearly over: what remains beyond everybody's share until then is spare. */
static void note_spare(struct budget *b, const struct rate *r, uint64_t now_ns)
{
    b->extra = 0;
    if (r->remaining < 0 || r->reset_s < 0 || r->reset_s > LATE_S)
        return;
    double due = b->limit * r->reset_s / WINDOW_S;
    b->extra = fmax(0, (r->remaining - due) / 4);
    b->extra_ns = now_ns;
}

void budget_note(struct budget *b, const struct scope *s, uint8_t scope, const struct rate *r,
                 uint64_t now_ns)
{
    if (scope >= SCOPES_MAX)
        return;
    if (r->retry_after_ms)
        b->blocked_until[scope] =
            MAX(b->blocked_until[scope], now_ns + r->retry_after_ms * NS_PER_MS);
    if (!s || !s->creates)
        return;
    note_spare(b, r, now_ns);
    if (r->remaining == 0 && r->reset_s > 0) /* one more would block the whole organization */
        b->blocked_until[scope] =
            MAX(b->blocked_until[scope], now_ns + (uint64_t)r->reset_s * NS_PER_S);
}
