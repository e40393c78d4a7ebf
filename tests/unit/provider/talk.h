/* Conversations with the Daytona provider, as tables: what it asks, what it is told, what it makes
 * of that. One line is one exchange. */
#ifndef TESTS_UNIT_PROVIDER_TALK_H
#define TESTS_UNIT_PROVIDER_TALK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/log.h"
#include "common/xalloc.h"
#include "worker/provider/provider.h"

/* 2026-11-24T08:00:00Z */
#define WALL_MS UINT64_C(1795507200000)

struct line {
    uint32_t enter;   /* phase + 1: that phase begins (nothing else in the line) */
    uint64_t wait_ms; /* before */
    unsigned slot;
    const char *ask; /* "GET /sandbox/box-1"; NULL: this slot has nothing to ask */
    enum fault fault;
    int status;
    const char *type; /* content-type; NULL: application/json */
    const char *header, *value;
    const char *body;
    enum verdict verdict;
    enum error_code code; /* of AGAIN, RETRY, LOST, REFUSE */
    uint32_t set, clear;  /* all of these, and no other fact newly */
    uint32_t after_ms;    /* at least, of an AGAIN */
    const char *says;     /* stands in our message or in the provider's */
};

#define ENTER(p) {.enter = (p) + 1}

struct world {
    struct config config;
    struct provider *provider;
    struct job *job;
    struct box *box;
    enum phase phase;
    uint32_t facts;
    uint64_t now_ns, since_ns;
    bool late;            /* see struct deal */
    struct call call;     /* the last one */
    struct answer answer; /* the last one */
    int row;              /* of the table, for messages */
};

/* The labels of the session's own sandbox, made by this job. */
#define OUR_LABELS                                                                                 \
    "\"OpenHands_SID\":\"s1\",\"session-worker/fleet\":\"oh\","                                    \
    "\"session-worker/partition\":\"session-jobs/3\",\"session-worker/job\":\"session-jobs/3/42\""
#define OTHER_LABELS                                                                               \
    "\"OpenHands_SID\":\"s1\",\"session-worker/fleet\":\"oh\","                                    \
    "\"session-worker/job\":\"session-jobs/3/17\",\"session-worker/spec\":\"abc\""
#define DTO_OF(id, name, state, desired, stop, del, labels, more)                                  \
    "{\"id\":\"" id "\",\"name\":\"" name "\",\"state\":\"" state "\",\"desiredState\":\"" desired \
    "\",\"autoStopInterval\":" stop ",\"autoDeleteInterval\":" del ",\"labels\":{" labels          \
    "},\"target\":\"us\",\"snapshot\":\"oh-v1\",\"createdAt\":\"2026-11-24T07:59:00.000Z\","       \
    "\"lastActivityAt\":\"2026-11-24T07:59:30.000Z\"," more                                        \
    "\"toolboxProxyUrl\":\"https://tb.example/toolbox\"}"
#define DTO(state, desired, del) DTO_OF("box-1", "oh.s1", state, desired, "60", del, OUR_LABELS, "")
#define NOT_FOUND                                                                                  \
    "{\"path\":\"/api/sandbox/x\",\"statusCode\":404,\"error\":\"Not Found\","                     \
    "\"message\":\"Sandbox with ID or name x not found\"}"
#define ERROR(status, message)                                                                     \
    "{\"statusCode\":" #status ",\"error\":\"e\",\"message\":\"" message "\"}"

#define START_JOB "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"v1\"}}"

static inline void world_job(struct world *w, const char *json)
{
    struct record r = {.topic = "session-jobs",
                       .partition = 3,
                       .offset = 42,
                       .timestamp_ms = WALL_MS,
                       .key = "s1",
                       .key_len = 2,
                       .value = json,
                       .value_len = strlen(json)};
    struct refusal why = {0};
    unsigned unknown = 0;
    job_free(w->job);
    w->job = job_parse(&r, &w->config, &why, &unknown);
    if (!w->job)
        print_message("the test's job is refused: %s\n", why.message);
    refusal_done(&why);
    assert_non_null(w->job);
}

/* api_url: "DAYTONA_API_URL=…", or NULL */
static inline void world_init_at(struct world *w, const char *api_url, const char *job,
                                 const char *const *sets, size_t n)
{
    const char *env[] = {"DAYTONA_API_KEY=dtn_test", api_url, NULL};
    const struct config_source src = {
        .environ = (char *const *)(uintptr_t)env, .sets = sets, .n_sets = n};
    struct buf errors;
    log_setup(LOG_LEVEL_ERROR, LOG_LOGFMT);
    *w = (struct world){.phase = N_PHASES, .now_ns = 1000 * NS_PER_S};
    buf_init(&errors, 2000);
    if (!config_load(&src, &w->config, &errors))
        fail_msg("config: %s", buf_text(&errors));
    buf_done(&errors);
    w->provider = provider_new(&w->config, 0);
    assert_non_null(w->provider);
    w->box = w->provider->ops->box_new(w->provider);
    if (job)
        world_job(w, job);
}

static inline void world_init(struct world *w, const char *job, const char *const *sets, size_t n)
{
    world_init_at(w, NULL, job, sets, n);
}

static const char *const usual[] = {"fleet=oh", "kafka.group=oh"};

static inline struct world *world_new(const char *job)
{
    struct world *w = xcalloc(1, sizeof *w);
    world_init(w, job, usual, ARRAY_LEN(usual));
    return w;
}

static inline void world_free(struct world *w)
{
    call_done(&w->call);
    answer_done(&w->answer);
    w->provider->ops->box_free(w->box);
    provider_free(w->provider);
    job_free(w->job);
    config_done(&w->config);
    free(w);
}

static inline void enter(struct world *w, enum phase phase)
{
    w->phase = phase;
    w->since_ns = ++w->now_ns;
}

static inline struct deal deal_of(const struct world *w, unsigned slot)
{
    return (struct deal){.provider = w->provider,
                         .job = w->job,
                         .box = w->box,
                         .phase = w->phase,
                         .slot = slot,
                         .facts = w->facts,
                         .now_ns = w->now_ns,
                         .wall_ms = WALL_MS + (w->now_ns - 1000 * NS_PER_S) / NS_PER_MS,
                         .phase_since_ns = w->since_ns,
                         .late = w->late};
}

static inline enum asked ask(struct world *w, unsigned slot)
{
    struct deal d = deal_of(w, slot);
    call_done(&w->call);
    answer_done(&w->answer);
    return w->provider->ops->ask(&d, &w->call, &w->answer);
}

/* The last call without the API's base. */
static inline char *asked_for(const struct world *w)
{
    const char *base = w->provider->cfg->api_url;
    const char *url = w->call.url;
    size_t n = strlen(base);
    return xasprintf("%s %s", w->call.method, strncmp(url, base, n) == 0 ? url + n : url);
}

static inline void tell(struct world *w, unsigned slot, const struct reply *r)
{
    struct deal d = deal_of(w, slot);
    answer_done(&w->answer);
    w->provider->ops->answer(&d, w->call.what, r, &w->answer);
    w->facts = (w->facts | w->answer.set) & ~w->answer.clear;
}

static inline void tell_line(struct world *w, const struct line *l)
{
    struct reply_header headers[] = {{"content-type", l->type ? l->type : "application/json"},
                                     {l->header, l->value}};
    struct reply r = {.fault = l->fault,
                      .status = l->fault ? 0 : l->status,
                      .headers = headers,
                      .n_headers = l->header ? 2 : 1,
                      .body = l->fault  ? NULL
                              : l->body ? l->body
                                        : "",
                      .body_len = l->fault || !l->body ? 0 : strlen(l->body),
                      .date_ms = l->fault ? 0 : WALL_MS + w->now_ns / NS_PER_MS - 1000000};
    tell(w, l->slot, &r);
}

static inline bool line_says(const struct world *w, const char *words)
{
    const struct answer *a = &w->answer;
    return (a->message && strstr(a->message, words)) ||
           (a->provider_message && strstr(a->provider_message, words));
}

static inline void judge_line(const struct world *w, const struct line *l, uint32_t before)
{
    const struct answer *a = &w->answer;
    uint32_t new_facts = w->facts & ~before;
    if (a->verdict != l->verdict || (l->verdict != OK && a->code != l->code))
        fail_msg("row %d (%s): verdict %d code %s, wanted %d %s: %s", w->row, l->ask, a->verdict,
                 error_name(a->code), l->verdict, error_name(l->code), a->message);
    if ((l->set & ~a->set) || (l->clear & ~a->clear) || (new_facts & ~l->set))
        fail_msg("row %d (%s): facts set %x cleared %x, wanted %x %x", w->row, l->ask, a->set,
                 a->clear, l->set, l->clear);
    if (a->after_ms < l->after_ms)
        fail_msg("row %d (%s): again after %u ms", w->row, l->ask, a->after_ms);
    if (l->says && !line_says(w, l->says))
        fail_msg("row %d (%s): says '%s' and '%s'", w->row, l->ask, a->message,
                 a->provider_message);
}

static inline void talk_line(struct world *w, const struct line *l)
{
    w->now_ns += l->wait_ms * NS_PER_MS;
    if (l->enter) {
        enter(w, l->enter - 1);
        return;
    }
    enum asked asked = ask(w, l->slot);
    if (!l->ask) {
        assert_int_equal(asked, ASKED_NOTHING);
        return;
    }
    if (asked != ASKED_CALL)
        fail_msg("row %d (%s): asks nothing: %s", w->row, l->ask, w->answer.message);
    char *what = asked_for(w);
    if (strcmp(what, l->ask) != 0)
        fail_msg("row %d: asks '%s', not '%s'", w->row, what, l->ask);
    free(what);
    uint32_t before = w->facts;
    tell_line(w, l);
    judge_line(w, l, before);
}

static inline void talk_rows(struct world *w, const struct line *lines, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        w->row = (int)i;
        talk_line(w, &lines[i]);
    }
}

/* talk(w, {…}, {…}): one conversation. */
#define talk(w, ...)                                                                               \
    do {                                                                                           \
        const struct line lines_[] = {__VA_ARGS__};                                                \
        talk_rows(w, lines_, ARRAY_LEN(lines_));                                                   \
    } while (0)

#endif
