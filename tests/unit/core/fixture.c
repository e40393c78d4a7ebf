/* fixture: the world around a core: what goes in, and what comes out sorted by kind. See fixture.h.
 */
#include "tests/unit/core/fixture.h"

#include <stdio.h>

#include "common/log.h"
#include "common/xalloc.h"
#include "worker/core/offsets.h"

#define WALL_MS UINT64_C(1700000000000)

/* ---- the world ---- */

static void load_config(struct config *c)
{
    static const char *const sets[] = {"fleet=fleet"};
    struct buf errors;
    buf_init(&errors, 10000);
    const struct config_source source = {.sets = sets, .n_sets = ARRAY_LEN(sets), .client = true};
    if (!config_load(&source, c, &errors))
        fail_msg("%s", buf_text(&errors));
    buf_done(&errors);
    c->sweep.every_seconds = 0; /* tests of the sweep set it */
    assert_int_equal(c->n_providers, 1);
    c->providers = xrealloc(c->providers, 2, sizeof *c->providers);
    c->providers[1] = c->providers[0];
    struct provider_config *p = &c->providers[1];
    *p = (struct provider_config){.name = xstrdup("other"),
                                  .type = xstrdup("fake"),
                                  .api_url = xstrdup(""),
                                  .api_key = xstrdup(""),
                                  .api_key_file = xstrdup(""),
                                  .creates_per_minute = 300,
                                  .budget_share = 1.0};
    c->n_providers = 2;
}

static void drop_line(void *arg, const char *line, size_t len)
{
    (void)arg;
    assert_int_equal(strlen(line), len);
}

struct world *world_new(void)
{
    struct world *w = xcalloc(1, sizeof *w);
    log_setup(LOG_LEVEL_DEBUG, LOG_LOGFMT);
    log_capture(drop_line, NULL);
    metrics_reset();
    load_config(&w->config);
    w->calls = xcalloc(CALLS_MAX, sizeof *w->calls);
    w->ready_ids = xstrdup(" ");
    w->now_ns = NS_PER_S;
    w->wall_ms = WALL_MS - ANNOUNCED_MS;
    for (size_t i = 0; i < ARRAY_LEN(w->fakes); i++) {
        w->fakes[i] = (struct fake){.w = w};
        w->fakes[i].provider = (struct provider){.ops = &fake_ops,
                                                 .cfg = &w->config.providers[i],
                                                 .config = &w->config,
                                                 .topic = w->config.topics.jobs};
        w->providers[i] = &w->fakes[i].provider;
    }
    world_restart(w);
    return w;
}

void world_restart(struct world *w)
{
    core_free(w->core);
    w->n_calls = w->n_released = 0;
    w->batch = NULL;
    w->current.id = 0;
    memset(w->open, 0, sizeof w->open);
    w->core = core_new(
        &(struct core_options){.config = &w->config, .providers = w->providers, .seed = 5});
}

void few_tokens(struct world *w)
{
    w->config.providers[0].creates_per_minute = 16; /* the owner of one of four partitions */
    world_restart(w);
    assign(w, 0, 0, NULL);
}

void world_free(struct world *w)
{
    core_free(w->core);
    outbox_done(&w->out);
    cJSON_Delete(w->event);
    w->config.n_providers = ARRAY_LEN(w->fakes);
    config_done(&w->config);
    free(w->ready_ids);
    free(w->calls);
    free(w);
}

int world_setup(void **state)
{
    struct world *w = world_new();
    assign(w, 0, 0, NULL);
    *state = w;
    return 0;
}

int world_teardown(void **state)
{
    world_free(*state);
    return 0;
}

/* ---- effects ---- */

static void note_call(struct world *w, const struct effect *e)
{
    assert_true(w->n_calls < CALLS_MAX);
    struct pending *p = &w->calls[w->n_calls++];
    *p = (struct pending){.id = e->call.id, .step = e->call.step};
    snprintf(p->text, sizeof p->text, "%s", e->call.call.url);
    snprintf(p->job, sizeof p->job, "%s", e->call.call.body ? e->call.call.body : "");
}

static bool drop_call(struct world *w, uint64_t id)
{
    for (size_t i = 0; i < w->n_calls; i++) {
        if (w->calls[i].id != id)
            continue;
        memmove(&w->calls[i], &w->calls[i + 1], (--w->n_calls - i) * sizeof *w->calls);
        return true;
    }
    return false;
}

static void note_release(struct world *w, const struct effect *e)
{
    w->releases++;
    for (size_t i = 0; i < e->release.n; i++) {
        assert_true(w->n_released < PARTITIONS);
        w->released[w->n_released++] = e->release.partitions[i];
        w->open[e->release.partitions[i]] = false;
    }
}

static void note_commit(struct world *w, const struct batch *b)
{
    assert_null(w->batch); /* one at a time */
    w->batch = b;
    w->batch_ns = w->now_ns;
    for (size_t i = 0; i < b->n_offsets; i++)
        assert_true(strlen(b->offsets[i].metadata) <= 4096);
}

static void note_progress(struct world *w, const struct message *m)
{
    const char *id = NULL;
    for (size_t i = 0; i < m->n_headers; i++)
        if (strcmp(m->headers[i].name, "ce_id") == 0)
            id = m->headers[i].value;
    assert_int_equal(m->to, TO_PROGRESS);
    assert_non_null(id);
    cJSON *event = cJSON_ParseWithLength(m->value, m->value_len);
    const char *where = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "step"));
    snprintf(w->told, sizeof w->told, "%s %s", where, id);
    snprintf(w->told_status, sizeof w->told_status, "%s %d %d", json_str(event, "status", ""),
             (int)json_int(event, "elapsed_ms", -1), (int)json_int(event, "attempt", -1));
    cJSON_Delete(event);
    w->progress++;
}

static void note(struct world *w, const struct effect *e)
{
    switch (e->kind) {
    case DO_CALL:
        note_call(w, e);
        break;
    case DO_CANCEL:
        assert_true(drop_call(w, e->cancel));
        w->cancels++;
        break;
    case DO_TAKE:
        assert_true(w->open[e->take.partition] != e->take.open);
        w->open[e->take.partition] = e->take.open;
        break;
    case DO_COMMIT:
        note_commit(w, e->commit);
        break;
    case DO_RELEASE:
        note_release(w, e);
        break;
    case DO_PROGRESS:
        note_progress(w, &e->progress);
        break;
    case DO_DRAINED:
        assert_false(w->drained);
        w->drained = true;
        break;
    }
}

static void step(struct world *w, struct input *in)
{
    in->wall_ms = w->wall_ms;
    core_step(w->core, w->now_ns, in, &w->out);
    core_check(w->core);
    for (size_t i = 0; i < w->out.n; i++)
        note(w, &w->out.effects[i]);
    outbox_clear(&w->out);
    if (w->batch && w->batch->n_messages == 0 && !w->hold_hints)
        committed(w);
}

/* ---- inputs ---- */

void record_at(struct world *w, int32_t partition, int64_t offset, const char *key,
               const char *value)
{
    struct record r = {.topic = w->config.topics.jobs,
                       .partition = partition,
                       .offset = offset,
                       .timestamp_ms = w->wall_ms - w->record_age_ms,
                       .key = key,
                       .key_len = key ? strlen(key) : 0,
                       .value = value,
                       .value_len = value ? strlen(value) : 0};
    struct refusal why = {0};
    unsigned unknown;
    struct input in = {.kind = IN_JOB, .job = {.record = &r}};
    w->parsed = w->parse_all || core_may_parse(w->core, partition, offset);
    if (w->parsed) {
        in.job.job = job_parse(&r, &w->config, &why, &unknown);
        in.job.refusal = &why;
    }
    w->next_offset[partition] = offset + 1;
    step(w, &in);
    refusal_done(&why);
}

void job_at(struct world *w, int32_t partition, int64_t offset, const char *what,
            const char *session, const char *members)
{
    char *text = xasprintf("{'type':'%s-session','session_id':'%s'%s%s}", what, session,
                           *members ? "," : "", members);
    for (char *c = text; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    record_at(w, partition, offset, session, text);
    free(text);
}

void start(struct world *w, const char *session, const char *members)
{
    job_at(w, 0, w->next_offset[0], "start", session, members);
}

void start_again(struct world *w, const char *session, const char *members)
{
    assign_started(w, 0, 0, 9);
    start(w, session, members);
}

void stop(struct world *w, const char *session, const char *members)
{
    job_at(w, 0, w->next_offset[0], "stop", session, members);
}

void delete(struct world *w, const char *session, const char *members)
{
    job_at(w, 0, w->next_offset[0], "delete", session, members);
}

void assign(struct world *w, int32_t partition, int64_t offset, const char *metadata)
{
    assign_only(w, partition, offset, metadata);
    advance(w, ANNOUNCED_MS);
}

void assign_only(struct world *w, int32_t partition, int64_t offset, const char *metadata)
{
    struct input in = {.kind = IN_ASSIGNED,
                       .assigned = {.partition = partition,
                                    .partitions_total = PARTITIONS,
                                    .offset = offset,
                                    .metadata = metadata}};
    w->open[partition] = false;
    w->next_offset[partition] = MAX(offset, 0);
    step(w, &in);
}

void assign_started(struct world *w, int32_t partition, int64_t offset, int64_t highest_started)
{
    static struct offsets o;
    struct buf text;
    offsets_init(&o, offset);
    o.highest_started = highest_started;
    buf_init(&text, OFFSETS_TEXT_MAX);
    offsets_encode(&o, &text);
    assign(w, partition, offset, buf_text(&text));
    buf_done(&text);
}

static void gone(struct world *w, enum input_kind kind, int32_t partition)
{
    struct input in = {.kind = kind, .gone = {.partitions = &partition, .n = 1}};
    if (kind == IN_LOST)
        w->open[partition] = false;
    step(w, &in);
}

void revoke(struct world *w, int32_t partition)
{
    gone(w, IN_REVOKED, partition);
}

void lose(struct world *w, int32_t partition)
{
    gone(w, IN_LOST, partition);
}

static void note_ready(struct world *w, const struct message *m)
{
    cJSON *event = json_parse_reply(m->value, m->value_len);
    if (m->to == TO_RESULTS && strcmp(json_str(event, "type", ""), "session-ready") == 0) {
        const char *id = json_str(json_get(event, "sandbox"), "id", "-");
        char *longer = xasprintf("%s%s ", w->ready_ids, id);
        free(w->ready_ids);
        w->ready_ids = longer;
    }
    cJSON_Delete(event);
}

static void outcome(struct world *w, enum input_kind kind)
{
    assert_non_null(w->batch);
    struct input in = {.kind = kind, .commit = {.batch = w->batch->id}};
    w->batch = NULL;
    step(w, &in);
}

void committed(struct world *w)
{
    assert_non_null(w->batch);
    for (size_t i = 0; i < w->batch->n_messages; i++)
        note_ready(w, &w->batch->messages[i]);
    outcome(w, IN_COMMITTED);
}

void refused(struct world *w)
{
    outcome(w, IN_COMMIT_FAILED);
}

void drain(struct world *w)
{
    struct input in = {.kind = IN_DRAIN};
    step(w, &in);
}

void tick(struct world *w)
{
    struct input in = {.kind = IN_TICK};
    step(w, &in);
}

void advance(struct world *w, uint64_t ms)
{
    uint64_t until = w->now_ns + ms * NS_PER_MS, next;
    unsigned ticks = 0;
    while ((next = core_next(w->core)) <= until) {
        assert_true(ticks++ < 100000); /* it must not ask for the same time for ever */
        uint64_t now = MAX(next, w->now_ns);
        w->wall_ms += now / NS_PER_MS - w->now_ns / NS_PER_MS;
        w->now_ns = now;
        tick(w);
    }
    w->wall_ms += until / NS_PER_MS - w->now_ns / NS_PER_MS;
    w->now_ns = until;
}

void answer(struct world *w, const struct say *say)
{
    int status = say->status ? say->status : 200;
    struct reply r = {
        .fault = say->fault, .status = say->fault ? 0 : status, .body = "", .more = say->more};
    struct input in = {.kind = IN_REPLY, .reply = {.call = w->current.id, .reply = &r}};
    assert_true(w->current.id != 0);
    if (!say->more)
        assert_true(drop_call(w, w->current.id));
    w->say = say;
    step(w, &in);
    w->say = NULL;
}
