/* reply: what a provider may answer, at every step of a job, to the core and the provider that
 * ship.
 *
 * Parts: which job (one byte), then replies: three bytes (which of the open requests it answers and
 * how much later, status or fault, headers) and the body. When the replies are used up, everything
 * is answered with 500 until the job has ended.
 *
 * Whatever is answered: requests are well formed and go where they may, each job ends in exactly
 * one result within its deadline, events are strict JSON in clean words, and the core's own
 * invariants hold after every step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/metrics.h"
#include "common/xalloc.h"
#include "tests/fuzz/fuzz.h"
#include "worker/core/core.h"

#define WALL_MS UINT64_C(1795507200000)
#define CALLS_MAX 64
#define STEPS_MAX 20000
#define BODY_MAX 65536

static const char *const jobs[] = {
    "{'type':'start-session','session_id':'s1','server':{'kind':'v1'}}",
    "{'type':'start-session','session_id':'s1','env':{'A':'b c'},'on_failure':'keep'}",
    "{'type':'start-session','session_id':'s1','server':{'kind':'custom','command':['a','b c'],"
    "'health':{'path':'/h','json':{'ok':true}},'expose':[{'name':'x','port':81}]}}",
    "{'type':'start-session','session_id':'s1','server':{'kind':'none'},'on_failure':'stop'}",
    "{'type':'start-session','session_id':'s1','mode':'attach','sandbox':{'id':'box-1'}}",
    "{'type':'start-session','session_id':'s1','mode':'attach'}",
    "{'type':'start-session','session_id':'s1','mode':'resume','sandbox':{'id':'box-1'}}",
    "{'type':'start-session','session_id':'s1','mode':'create','sandbox':{'image':'i',"
    "'resources':{'cpu':1},'on_drift':'fail'}}",
    "{'type':'stop-session','session_id':'s1'}",
    "{'type':'stop-session','session_id':'s1','sandbox':{'id':'box-1'}}",
    "{'type':'delete-session','session_id':'s1'}",
    "{'type':'delete-session','session_id':'s1','sandbox':{'id':'box-1'}}",
};

struct world {
    struct provider *provider;
    struct core *core;
    struct outbox out;
    uint64_t now_ns;
    uint64_t calls[CALLS_MAX]; /* open ones, oldest first */
    size_t n_calls;
    const struct batch *batch;
    unsigned results;
    int64_t next; /* offset */
};

/* ---- what the core wants ---- */

/* Our key goes to the API, and to the toolbox url that it named: to nothing without TLS. */
static void check_call(const struct call *c)
{
    char error[JSON_ERROR_SIZE];
    ASSERT(strncmp(c->url, "https://", 8) == 0 && c->url[8] != '/' && c->url[8] != ':');
    for (const char *p = c->url; *p; p++)
        ASSERT(*p > ' ' && *p <= '~');
    ASSERT(!strchr(c->url, '@') && !strstr(c->url, "dtn_fuzz"));
    for (size_t i = 0; i < c->n_headers; i++) {
        ASSERT(header_value_valid(c->headers[i].value));
        ASSERT(!c->own_host || !strstr(c->headers[i].value, "dtn_fuzz"));
    }
    ASSERT(c->timeout_ms > 0 && c->max_reply > 0);
    cJSON *body = c->body ? json_parse(c->body, c->body_len, &json_limits_reply, error) : NULL;
    ASSERT(!c->body || (body && c->content_type && !strcmp(c->content_type, "application/json")));
    cJSON_Delete(body);
}

static void note_commit(struct world *w, const struct batch *b)
{
    ASSERT(!w->batch);
    w->batch = b;
    for (size_t i = 0; i < b->n_messages; i++) {
        cJSON *event = check_message(&b->messages[i]);
        w->results += event != NULL;
        cJSON_Delete(event);
    }
}

static void drop_call(struct world *w, uint64_t id)
{
    size_t i = 0;
    while (i < w->n_calls && w->calls[i] != id)
        i++;
    ASSERT(i < w->n_calls); /* it is open */
    memmove(&w->calls[i], &w->calls[i + 1], (--w->n_calls - i) * sizeof *w->calls);
}

static void note(struct world *w, const struct effect *e)
{
    switch (e->kind) {
    case DO_CALL:
        check_call(&e->call.call);
        ASSERT(w->n_calls < CALLS_MAX);
        w->calls[w->n_calls++] = e->call.id;
        break;
    case DO_CANCEL:
        drop_call(w, e->cancel);
        break;
    case DO_COMMIT:
        note_commit(w, e->commit);
        break;
    case DO_PROGRESS:
        cJSON_Delete(check_message(&e->progress));
        break;
    case DO_TAKE:
    case DO_RELEASE:
    case DO_DRAINED:
        break;
    }
}

/* ---- what happens to it ---- */

static void step(struct world *w, struct input *in)
{
    in->wall_ms = WALL_MS + w->now_ns / NS_PER_MS;
    core_step(w->core, w->now_ns, in, &w->out);
    core_check(w->core);
    for (size_t i = 0; i < w->out.n; i++)
        note(w, &w->out.effects[i]);
    outbox_clear(&w->out);
}

static void settle(struct world *w)
{
    while (w->batch) {
        struct input in = {.kind = IN_COMMITTED, .commit = {.batch = w->batch->id}};
        w->batch = NULL;
        step(w, &in);
    }
}

/* True unless the next tick is later than `until`. */
static bool tick(struct world *w, uint64_t until)
{
    struct input in = {.kind = IN_TICK};
    uint64_t next = core_next(w->core);
    if (next > until)
        return false;
    w->now_ns = MAX(next, w->now_ns);
    step(w, &in);
    settle(w);
    return true;
}

static void advance(struct world *w, uint64_t ms)
{
    uint64_t until = w->now_ns + ms * NS_PER_MS;
    for (unsigned i = 0; tick(w, until); i++)
        ASSERT(i < STEPS_MAX);
    w->now_ns = until;
}

static void put_job(struct world *w, const char *what)
{
    struct refusal why = {0};
    unsigned unknown = 0;
    char *text = xstrdup(what);
    for (char *c = text; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    struct record r = {.topic = "session-jobs",
                       .partition = 3,
                       .offset = w->next++,
                       .timestamp_ms = WALL_MS,
                       .key = "s1",
                       .key_len = 2,
                       .value = text,
                       .value_len = strlen(text)};
    struct job *job = job_parse(&r, fuzz_config(), &why, &unknown);
    struct input in = {.kind = IN_JOB, .job = {.record = &r, .job = job, .refusal = &why}};
    ASSERT(job);
    step(w, &in);
    settle(w);
    free(text);
}

static void give(struct world *w, size_t which, const struct reply *r)
{
    uint64_t id = w->calls[which % w->n_calls];
    struct input in = {.kind = IN_REPLY, .reply = {.call = id, .reply = r}};
    if (!r->more)
        drop_call(w, id);
    step(w, &in);
    settle(w);
}

/* ---- the input as replies ---- */

static const int statuses[] = {200, 201, 202, 204, 301, 302, 307, 400, 401, 403, 404, 405, 408,
                               409, 410, 412, 422, 428, 429, 500, 502, 503, 504, 522, 100, 999};
static const struct reply_header extras[] = {
    {"retry-after", "3"},
    {"retry-after-authenticated", "999999999999"},
    {"retry-after", "-1"},
    {"retry-after-sandbox-create", "7"},
    {"x-ratelimit-remaining-authenticated", "0"},
    {"x-ratelimit-reset-authenticated", "10"},
    {"location", "https://elsewhere.example/x"},
    {"location", "/login\n"},
    {"x-ratelimit-limit-sandbox-create", "600"},
    {"date", "Tue, 24 Nov 2026 08:00:00 GMT"},
};
static const char *const types[] = {"application/json", "text/html", "text/plain", ""};
static const uint64_t waits_ms[] = {0, 1, 250, 1100, 5000, 20000, 61000, 130000};

/* body becomes NUL-terminated: the input is not */
static void give_part(struct world *w, struct part p)
{
    static char body[BODY_MAX + 1];
    const uint8_t *how = (const uint8_t *)p.text;
    size_t len = MIN(p.len - 3, (size_t)BODY_MAX),
           status = how[1] % (ARRAY_LEN(statuses) + N_FAULTS);
    struct reply_header headers[2] = {{"content-type", types[how[2] % 4]},
                                      extras[how[2] / 4 % ARRAY_LEN(extras)]};
    struct reply r = {.headers = headers, .n_headers = how[2] & 0x40 ? 2 : 1, .body = body};
    advance(w, waits_ms[how[0] >> 2 & 7]);
    if (w->n_calls == 0)
        return;
    memcpy(body, p.text + 3, len);
    body[len] = '\0';
    r.body_len = len;
    r.date_ms = how[2] & 0x80 ? WALL_MS - 500 : 0;
    if (status >= ARRAY_LEN(statuses))
        r = (struct reply){
            .fault = (enum fault)(status - ARRAY_LEN(statuses)), .body = "", .fault_text = "x"};
    else
        r.status = statuses[status];
    if (r.status == 0 && r.fault == FAULT_NONE)
        r.status = 200;
    give(w, how[0] & 3, &r);
}

/* Nothing but 500 from here on: the job has to come to its end by itself. */
static void finish(struct world *w)
{
    static const struct reply broken = {.status = 500, .body = ""};
    for (unsigned i = 0; w->results < (unsigned)w->next; i++) {
        ASSERT(i < STEPS_MAX);
        if (w->n_calls > 0)
            give(w, 0, &broken);
        else
            ASSERT(tick(w, w->now_ns + 3600 * NS_PER_S));
    }
    ASSERT(w->results == (unsigned)w->next);
}

static void world_init(struct world *w)
{
    const struct config *cfg = fuzz_config();
    struct input in = {.kind = IN_ASSIGNED, .assigned = {.partition = 3, .partitions_total = 4}};
    memset(w, 0, sizeof *w);
    w->now_ns = 1000 * NS_PER_S;
    w->provider = provider_new(cfg, 0);
    w->core = core_new(&(struct core_options){.config = cfg, .providers = &w->provider, .seed = 7});
    step(w, &in);
    settle(w);
}

static void world_done(struct world *w)
{
    core_free(w->core);
    outbox_done(&w->out);
    provider_free(w->provider);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w;
    struct parts parts = parts_of(data, size);
    struct part p = parts_next(&parts);
    fuzz_config();
    world_init(&w);
    for (size_t i = 0; i < MIN(p.len, 3); i++) /* up to three jobs of one session */
        put_job(&w, jobs[(uint8_t)p.text[i] % ARRAY_LEN(jobs)]);
    while ((p = parts_next(&parts)).text)
        if (p.len >= 3)
            give_part(&w, p);
    finish(&w);
    world_done(&w);
    return 0;
}
