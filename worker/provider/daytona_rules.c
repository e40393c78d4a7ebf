/* daytona_rules: what a refusal means. See daytona.h.
 *
 * Daytona's errors carry no code: a status and an English sentence are all there is. So one table
 * maps {requests, status, words} to {verdict, code, pace, what to do then}; the first line that
 * fits decides, and every request ends in a line that fits anything. Nothing else in the provider
 * looks at a status that is not 2xx, but for the probes, whose statuses are the server's own. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/xalloc.h"
#include "worker/provider/daytona.h"

#define BIT(r) (UINT32_C(1) << (r))
#define LOOKS (BIT(R_GET_ID) | BIT(R_GET_NAME))
#define LISTS (BIT(R_FIND_LABELS) | BIT(R_LIST) | BIT(R_CHECK))
#define CREATES BIT(R_CREATE)
#define STARTS (BIT(R_START) | BIT(R_RECOVER))
#define DESTROYS (BIT(R_STOP) | BIT(R_DELETE))
#define KEEPS (BIT(R_AUTODELETE) | BIT(R_AUTOSTOP) | BIT(R_ACTIVITY))
#define URLS (BIT(R_PREVIEW) | BIT(R_CONFIG))
#define API (LOOKS | LISTS | CREATES | STARTS | DESTROYS | KEEPS | URLS)
#define SESSIONS (BIT(R_SESSION_CREATE) | BIT(R_SESSION_GET) | BIT(R_SESSION_DELETE))
#define TOOLBOX (SESSIONS | BIT(R_EXEC))
#define ANYTHING UINT32_MAX

struct rule {
    uint32_t requests; /* bits */
    int status;        /* 4, 5: a whole class; 0: any */
    const char *words; /* in the answer's message, in any case; NULL: whatever it says */
    enum verdict verdict;
    enum error_code code;
    enum pace pace; /* of an AGAIN */
    void (*then)(struct turn *);
};

/* clang-format off */
static const struct rule rules[] = {
    { API,      401, NULL, AGAIN,  ERR_UNAUTHORIZED, PACE_HELD_OFF, NULL },
    { API,      429, NULL, AGAIN,  ERR_RATE_LIMITED, PACE_STATE,    NULL },
    { CREATES,  403, "region",                  REFUSE, ERR_FORBIDDEN, 0, then_next_target },
    { API,      403, NULL, REFUSE, ERR_FORBIDDEN, 0, NULL },

    { LOOKS,    404, NULL, OK, ERR_NONE, 0, judge_absent },

    { CREATES,  409, NULL,                      OK,     ERR_NONE,               0,             then_conflict },
    { CREATES,  400, "failed to start",         OK,     ERR_NONE,               0,             then_look_failed },
    { CREATES,  400, "no available runners",    AGAIN,  ERR_NO_CAPACITY,        PACE_CAPACITY, then_next_target },
    { CREATES,  400, "cannot specify",          REFUSE, ERR_CREATE_FAILED,      0,             NULL },
    { CREATES,  400, "not available in region", REFUSE, ERR_SNAPSHOT_NOT_FOUND, 0,             then_next_target },
    { CREATES,  400, " is pulling",             AGAIN,  ERR_SNAPSHOT_NOT_FOUND, PACE_CAPACITY, NULL },
    { CREATES,  400, " is building",            AGAIN,  ERR_SNAPSHOT_NOT_FOUND, PACE_CAPACITY, NULL },
    { CREATES,  400, " is pending",             AGAIN,  ERR_SNAPSHOT_NOT_FOUND, PACE_CAPACITY, NULL },
    { CREATES,  400, "snapshot ",               REFUSE, ERR_SNAPSHOT_NOT_FOUND, 0,             NULL },
    { CREATES,  404, "region",                  REFUSE, ERR_CREATE_FAILED,      0,             then_next_target },
    { CREATES | STARTS, 400, "maximum allowed per", REFUSE, ERR_QUOTA_EXCEEDED, 0,             NULL },
    { CREATES | STARTS, 400, "limit exceeded",  AGAIN,  ERR_QUOTA_EXCEEDED,     PACE_QUOTA,    then_look_if_unsure },
    { CREATES,  4,   NULL,                      REFUSE, ERR_CREATE_FAILED,      0,             NULL },

    { STARTS,   404, NULL,                      LOST,   ERR_START_FAILED,       0,             NULL },
    { STARTS,   409, NULL,                      AGAIN,  ERR_START_TIMEOUT,      PACE_STATE,    then_look },
    { STARTS,   400, "errored state",           OK,     ERR_NONE,               0,             then_look },
    { STARTS,   400, "failed to start",         OK,     ERR_NONE,               0,             then_look },
    { STARTS,   400, "not in valid state",      AGAIN,  ERR_START_TIMEOUT,      PACE_STATE,    then_look },
    { STARTS,   4,   NULL,                      REFUSE, ERR_START_FAILED,       0,             NULL },

    { KEEPS,    404, NULL,                      LOST,   ERR_START_FAILED,       0,             NULL },
    { KEEPS,    409, NULL,                      AGAIN,  ERR_NONE,               PACE_STATE,    then_look },
    { KEEPS,    4,   NULL,                      REFUSE, ERR_CREATE_FAILED,      0,             NULL },

    { DESTROYS, 404, NULL,                      OK,     ERR_NONE,               0,             judge_gone },
    { DESTROYS, 409, NULL,                      AGAIN,  ERR_NONE,               PACE_BUSY,     then_look },
    { DESTROYS, 400, NULL,                      AGAIN,  ERR_PROVIDER_UNAVAILABLE, PACE_BUSY,   then_look },

    { BIT(R_PREVIEW), 404, NULL,                LOST,   ERR_START_FAILED,       0,             NULL },

    { TOOLBOX,  401, NULL,                      AGAIN,  ERR_UNAUTHORIZED,       PACE_TOKEN,    then_check_now },
    { BIT(R_SESSION_CREATE), 409, NULL,         OK,     ERR_NONE,               0,             then_commands },
    { BIT(R_SESSION_GET),    404, "session not found", OK, ERR_NONE,            0,             then_create_session },
    { BIT(R_SESSION_DELETE), 404, "session not found", OK, ERR_NONE,            0,             then_create_session },
    { BIT(R_EXEC),  404, "session not found",   OK,     ERR_NONE,               0,             then_reset_session },
    { BIT(R_EXEC),  500, "session not found",   OK,     ERR_NONE,               0,             then_reset_session },
    { BIT(R_EXEC),  500, "broken pipe",         OK,     ERR_NONE,               0,             then_reset_session },
    { TOOLBOX,  400, "sandbox started",                   AGAIN,  ERR_LAUNCH_FAILED,      PACE_TOOLBOX,  then_check_state },
    { TOOLBOX,  400, "not running",             AGAIN,  ERR_LAUNCH_FAILED,      PACE_TOOLBOX,  then_check_state },
    { TOOLBOX,  400, "runner",                  AGAIN,  ERR_LAUNCH_FAILED,      PACE_TOOLBOX,  then_check_state },
    { TOOLBOX,  404, NULL,                      AGAIN,  ERR_LAUNCH_FAILED,      PACE_TOOLBOX,  then_check_state },
    { TOOLBOX,  429, NULL,                      AGAIN,  ERR_RATE_LIMITED,       PACE_TOKEN,    NULL },
    { BIT(R_EXEC),  5,   NULL,                  AGAIN,  ERR_LAUNCH_FAILED,      PACE_TOOLBOX,  then_look },
    { TOOLBOX,  500, NULL,                      RETRY,  ERR_LAUNCH_FAILED,      0,             NULL },
    { TOOLBOX,  5,   NULL,                      AGAIN,  ERR_LAUNCH_FAILED,      PACE_TOOLBOX,  then_check_state },
    { TOOLBOX,  4,   NULL,                      REFUSE, ERR_LAUNCH_FAILED,      0,             NULL },

    { CREATES | STARTS | DESTROYS, 5, NULL,     RETRY,  ERR_PROVIDER_UNAVAILABLE, 0,           then_look },
    { API,      5,   NULL,                      RETRY,  ERR_PROVIDER_UNAVAILABLE, 0,           NULL },
    { ANYTHING, 0,   NULL,                      REFUSE, ERR_PROVIDER_PROTOCOL,  0,             NULL },
};

/* The engine spreads each by a fifth, either way: what must not be shorter is longer here. */
static const struct {
    uint32_t first_ms, max_ms;
    unsigned percent; /* of growth */
} paces[N_PACES] = {
    [PACE_ONCE]     = {     1,     1,   0 },
    [PACE_STATE]    = {   200,  2000,  30 },
    [PACE_CACHE]    = {   250,  1000,  50 },
    [PACE_BUSY]     = {   200, 30000, 100 },
    [PACE_CAPACITY] = {  1000, 30000, 100 },
    [PACE_QUOTA]    = { 10000, 60000, 100 },
    [PACE_TOOLBOX]  = {   100,  1000,  50 },
    [PACE_PROBE]    = {    50,   500,  50 },
    [PACE_WATCH]    = {   500,   500,   0 },
    [PACE_ROTATION] = {  1300,  1300,   0 },
    [PACE_TOKEN]    = {  6300,  6300,   0 },
    [PACE_FLUSH]    = { 13800, 13800,   0 },
    [PACE_HELD_OFF] = {  1000,  1000,   0 },
};
/* clang-format on */

static void say_with(struct turn *t, enum verdict v, enum error_code code, char *words)
{
    t->answer->verdict = v;
    t->answer->code = code;
    t->answer->http_status = is_2xx(t->reply) ? 0 : t->reply->status;
    free(t->answer->message);
    t->answer->message = words;
}

static PRINTF_LIKE(1, 0) char *vwords(const char *fmt, va_list ap)
{
    struct buf out;
    buf_init(&out, 400);
    buf_vaddf(&out, fmt, ap);
    return buf_steal(&out);
}

void turn_say(struct turn *t, enum verdict v, enum error_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say_with(t, v, code, vwords(fmt, ap));
    va_end(ap);
}

/* A slot that changes its pace begins with that pace's first pause. */
static uint32_t next_pause(struct script *s, unsigned slot, enum pace pace)
{
    uint32_t last = s->pace[slot] == pace ? s->pause_ms[slot] : 0;
    uint32_t pause = paces[pace].first_ms;
    if (last)
        pause = MIN(last + last * paces[pace].percent / 100, paces[pace].max_ms);
    if (pace != PACE_ONCE) {
        s->pace[slot] = pace;
        s->pause_ms[slot] = pause;
    }
    return pause;
}

void turn_again(struct turn *t, enum pace pace, enum error_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say_with(t, AGAIN, code, vwords(fmt, ap));
    va_end(ap);
    t->answer->after_ms = next_pause(t->script, t->deal->slot, pace);
}

void turn_next(struct turn *t, enum request request)
{
    t->script->next[t->deal->slot] = request;
}

void turn_go(struct turn *t, enum request request)
{
    turn_next(t, request);
    t->answer->verdict = OK;
    t->answer->code = ERR_NONE;
    t->answer->after_ms = 0;
}

void turn_to(struct turn *t, enum request request)
{
    turn_go(t, request);
    t->answer->verdict = AGAIN;
    t->answer->after_ms = paces[PACE_ONCE].first_ms;
}

/* What was asked may have been done, so that a look comes first, as after no answer at all. */
void turn_not_understood(struct turn *t)
{
    turn_say(t, RETRY, ERR_PROVIDER_PROTOCOL, "cannot understand the answer to: %s",
             request_words(t->request));
    if (!request_repeatable(t->request))
        then_look(t);
}

/* ---- no answer ---- */

static void judge_unanswered(struct turn *t)
{
    const char *why = t->reply->fault_text ? t->reply->fault_text : "no answer";
    turn_say(t, RETRY, ERR_PROVIDER_UNAVAILABLE, "could not %s: %s", request_words(t->request),
             why);
    if (t->reply->fault == FAULT_CONNECT)
        return;
    if (t->request == R_DELETE) /* no attempt: how it stands is for a look to say */
        turn_to(t, R_GET_ID);
    else if (!request_repeatable(t->request))
        then_look(t);
}

void judge_fault(struct turn *t)
{
    if (t->reply->fault == FAULT_REFUSED)
        turn_say(t, REFUSE, ERR_INTERNAL, "could not %s: %s", request_words(t->request),
                 t->reply->fault_text ? t->reply->fault_text : "the request cannot be sent");
    else
        judge_unanswered(t);
}

/* ---- a refusal ---- */

bool in_words(const char *text, const char *words)
{
    return text && strcasestr(text, words) != NULL;
}

static bool rule_fits(const struct rule *r, enum request request, int status, const char *words)
{
    return (r->requests & BIT(request)) &&
           (r->status == 0 || r->status == status || r->status == status / 100) &&
           (!r->words || in_words(words, r->words));
}

static const struct rule *rule_for(enum request request, int status, const char *words)
{
    size_t i = 0;
    while (!rule_fits(&rules[i], request, status, words)) /* the last one fits anything */
        ASSERT(++i < ARRAY_LEN(rules));
    return &rules[i];
}

void judge_refusal(struct turn *t)
{
    struct answer *a = t->answer;
    a->provider_message = reply_words(t->reply, t->json);
    const struct rule *r = rule_for(t->request, t->reply->status, a->provider_message);
    turn_say(t, r->verdict, r->code, "could not %s: Daytona answers %d", request_words(t->request),
             t->reply->status);
    if (r->verdict == AGAIN) {
        uint32_t pause = next_pause(t->script, t->deal->slot, r->pace);
        a->after_ms = MAX(pause, a->rate.retry_after_ms);
    }
    if (r->then)
        r->then(t);
}

/* ---- limits ---- */

static const char *header_of_scope(const struct reply *r, const char *prefix,
                                   enum daytona_scope scope)
{
    char name[64];
    snprintf(name, sizeof name, "%s-%s", prefix, daytona_ops.scopes[scope].name);
    return reply_header(r, name);
}

static int number_of_scope(const struct reply *r, const char *prefix, enum daytona_scope scope)
{
    const char *text = header_of_scope(r, prefix, scope);
    int64_t value;
    return text && parse_i64(text, strlen(text), 0, INT32_MAX, &value) ? (int)value : -1;
}

/* Daytona says Retry-After-<scope>, and only the block of an address says Retry-After. */
static const char *retry_after(const struct reply *r, enum daytona_scope scope)
{
    static const char prefix[] = "retry-after-";
    const char *text = header_of_scope(r, "retry-after", scope);
    if (!text)
        text = reply_header(r, "retry-after");
    for (size_t i = 0; !text && i < r->n_headers; i++)
        if (strncasecmp(r->headers[i].name, prefix, strlen(prefix)) == 0)
            text = r->headers[i].value;
    return text;
}

void read_rate(const struct reply *r, enum daytona_scope scope, struct rate *rate)
{
    rate->limit = number_of_scope(r, "x-ratelimit-limit", scope);
    rate->remaining = number_of_scope(r, "x-ratelimit-remaining", scope);
    rate->reset_s = number_of_scope(r, "x-ratelimit-reset", scope);
    rate->unauthorized = r->status == 401;
    if (r->status != 429)
        return;
    const char *text = retry_after(r, scope);
    int64_t seconds;
    if (!text || !parse_i64(text, strlen(text), 0, 3600, &seconds))
        seconds = 10; /* an edge's, in a form of its own */
    rate->retry_after_ms = (uint32_t)MAX(seconds, 1) * 1000;
}
