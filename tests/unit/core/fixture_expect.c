/* fixture_expect: what tests say and expect, in short. See fixture.h. */
#include "tests/unit/core/fixture.h"

#include "common/xalloc.h"

#define FACTS_OF_A_LOOK (EXISTS | RUNS | KEPT)

/* ---- answers ---- */

const struct rate refused_key = {.limit = -1, .remaining = -1, .reset_s = -1, .unauthorized = true};

struct rate blocked_for(uint32_t ms)
{
    return (struct rate){.retry_after_ms = ms, .limit = -1, .remaining = -1, .reset_s = -1};
}

static bool has_word(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += n)
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0'))
            return true;
    return false;
}

void found(struct world *w, const char *box)
{
    uint32_t facts = LOOKED | EXISTS;
    facts |= has_word(box, "runs") ? RUNS : 0;
    facts |= has_word(box, "kept") ? KEPT : 0;
    ANSWER(w, .set = facts, .clear = FACTS_OF_A_LOOK & ~facts, .box = box);
}

void missing(struct world *w)
{
    ANSWER(w, .set = LOOKED, .clear = FACTS_OF_A_LOOK, .box = "-");
}

void made(struct world *w, const char *id)
{
    char *box = xasprintf("%s mine ours provisional transient", id);
    ANSWER(w, .set = EXISTS, .box = box);
    free(box);
}

void done(struct world *w, uint32_t facts)
{
    const char *box = facts & RUNS ? "runs" : facts & KEPT ? "kept certain" : NULL;
    ANSWER(w, .set = facts, .box = box);
}

void again(struct world *w, uint32_t after_ms)
{
    ANSWER(w, .verdict = AGAIN, .after_ms = after_ms);
}

void retry(struct world *w, enum error_code code)
{
    ANSWER(w, .verdict = RETRY, .code = code, .message = "try again", .http_status = 500);
}

void lost(struct world *w, const char *box)
{
    ANSWER(w, .verdict = LOST, .code = ERR_START_FAILED, .message = "it is lost", .box = box);
}

void refuse(struct world *w, enum error_code code)
{
    ANSWER(w, .verdict = REFUSE, .code = code, .message = "no", .words = "NO!", .http_status = 400);
}

/* ---- expectations ---- */

static const struct pending *find_call(const struct world *w, const char *text)
{
    for (size_t i = 0; i < w->n_calls; i++)
        if (strcmp(w->calls[i].text, text) == 0)
            return &w->calls[i];
    return NULL;
}

void expect_call(struct world *w, const char *text)
{
    const struct pending *p = find_call(w, text);
    if (!p)
        fail_msg("no call \"%s\" among %zu, the first of them \"%s\"", text, w->n_calls,
                 w->n_calls ? w->calls[0].text : "");
    w->current = *p;
}

void expect_no_call(struct world *w, const char *text)
{
    assert_null(find_call(w, text));
}

void expect_calls(struct world *w, size_t n)
{
    if (w->n_calls != n)
        fail_msg("%zu calls are out and not %zu, the first of them \"%s\"", w->n_calls, n,
                 w->n_calls ? w->calls[0].text : "");
}

void expect_quiet(struct world *w)
{
    expect_calls(w, 0);
    assert_null(w->batch);
}

/* What is finished waits for the last batch's rest to be over. */
static void publish(struct world *w)
{
    for (int ms = 0; ms < 200 && !w->batch && status_of(w).unpublished; ms++)
        advance(w, 1);
}

void expect_batch(struct world *w, size_t messages)
{
    publish(w);
    assert_non_null(w->batch);
    assert_int_equal(w->batch->n_messages, messages);
}

static const struct batch_offset *batch_offset(const struct world *w, int32_t partition)
{
    assert_non_null(w->batch);
    for (size_t i = 0; i < w->batch->n_offsets; i++)
        if (w->batch->offsets[i].partition == partition)
            return &w->batch->offsets[i];
    return NULL;
}

void expect_offset(struct world *w, int32_t partition, int64_t watermark)
{
    const struct batch_offset *o = batch_offset(w, partition);
    assert_non_null(o);
    assert_int_equal(o->watermark, watermark);
}

const char *batch_metadata(const struct world *w, int32_t partition)
{
    const struct batch_offset *o = batch_offset(w, partition);
    return o ? o->metadata : NULL;
}

static const struct message *find_event(const struct world *w, const char *session)
{
    for (size_t i = 0; w->batch && i < w->batch->n_messages; i++) {
        const struct message *m = &w->batch->messages[i];
        if (m->to == TO_RESULTS && strcmp(m->key, session) == 0)
            return m;
    }
    return NULL;
}

void expect_event(struct world *w, const char *session, const char *type)
{
    publish(w);
    const struct message *m = find_event(w, session);
    if (!m)
        fail_msg("no event of %s in %s; %zu calls are out, the first of them \"%s\"", session,
                 w->batch ? "the batch" : "no batch", w->n_calls,
                 w->n_calls ? w->calls[0].text : "");
    cJSON_Delete(w->event);
    w->event = json_parse_reply(m->value, m->value_len);
    assert_non_null(w->event);
    expect_field(w, "session_id", session);
    if (strcmp(json_str(w->event, "type", ""), type) != 0)
        fail_msg("not %s but %s", type, m->value);
}

void expect_no_event(struct world *w, const char *session)
{
    assert_null(find_event(w, session));
}

void expect_field(struct world *w, const char *path, const char *value)
{
    char *copy = xstrdup(path), *rest = copy, *name;
    const cJSON *node = w->event;
    while (node && (name = strsep(&rest, ".")))
        node = json_get(node, name);
    free(copy);
    if (!node)
        fail_msg("the event has no %s", path);
    char *text = cJSON_IsString(node) ? xstrdup(node->valuestring) : cJSON_PrintUnformatted(node);
    if (strcmp(text, value) != 0) {
        char *whole = cJSON_PrintUnformatted(w->event);
        fail_msg("%s is %s and not %s in %s", path, text, value, whole);
    }
    free(text);
}

void expect_failed(struct world *w, const char *session, const char *code, const char *step_name,
                   const char *cleanup)
{
    expect_event(w, session, "session-failed");
    expect_field(w, "error.code", code);
    expect_field(w, "error.step", step_name);
    if (cleanup)
        expect_field(w, "sandbox.cleanup", cleanup);
    else
        expect_field(w, "sandbox", "null");
}

void expect_end(struct world *w, uint64_t ms)
{
    committed(w);
    advance(w, ms);
    expect_quiet(w);
}

/* ---- whole stretches ---- */

static void expect_about(struct world *w, const char *phase, const char *what)
{
    char *text = xasprintf("%s %s", phase, what);
    expect_call(w, text);
    free(text);
}

/* About a sandbox that has no id yet. */
static void expect_about_name(struct world *w, const char *phase, const char *session)
{
    char *name = xasprintf("fleet.%s", session);
    expect_about(w, phase, name);
    free(name);
}

/* The current call's answer is yes, and that one comes next. */
static void done_then(struct world *w, uint32_t facts, const char *phase, const char *id)
{
    done(w, facts);
    expect_about(w, phase, id);
}

void look_finds(struct world *w, const char *session, const char *box)
{
    expect_about_name(w, "find", session);
    found(w, box);
}

void look_misses(struct world *w, const char *session)
{
    expect_about_name(w, "find", session);
    missing(w);
}

void fail_now(struct world *w, const char *session)
{
    expect_about_name(w, "create", session);
    refuse(w, ERR_SESSION_EXISTS);
}

void fail_committed(struct world *w, const char *session)
{
    fail_now(w, session);
    expect_batch(w, 1);
    committed(w);
}

void server_exits(struct world *w, const char *session, const char *members, const char *id)
{
    start(w, session, members);
    to_probe(w, session, id);
    refuse(w, ERR_SERVER_EXITED);
}

void to_start(struct world *w, const char *session, const char *id)
{
    expect_about_name(w, "create", session);
    made(w, id);
    expect_about(w, "start", id);
}

void to_launch(struct world *w, const char *session, const char *id)
{
    to_start(w, session, id);
    done_then(w, RUNS, "launch", id);
}

void to_probe(struct world *w, const char *session, const char *id)
{
    to_launch(w, session, id);
    done_then(w, SERVER, "probe", id);
}

void to_keep(struct world *w, const char *session, const char *id)
{
    to_probe(w, session, id);
    done_then(w, ANSWERS, "keep", id);
}

void to_last_probe(struct world *w, const char *session, const char *id)
{
    to_keep(w, session, id);
    done_then(w, KEPT, "probe", id);
}

void to_ready(struct world *w, const char *session, const char *id)
{
    to_last_probe(w, session, id);
    last_probe_to_ready(w, session, id);
}

void launch_to_ready(struct world *w, const char *session, const char *id)
{
    expect_about(w, "launch", id);
    done(w, SERVER);
    probe_to_ready(w, session, id);
}

void probe_to_ready(struct world *w, const char *session, const char *id)
{
    expect_about(w, "probe", id);
    done_then(w, ANSWERS, "keep", id);
    done(w, KEPT);
    last_probe_to_ready(w, session, id);
}

void last_probe_to_ready(struct world *w, const char *session, const char *id)
{
    expect_about(w, "probe", id);
    done(w, ACCEPTS);
    expect_event(w, session, "session-ready");
}

void kept_start_to_ready(struct world *w, const char *session, const char *id)
{
    expect_about(w, "start", id);
    done(w, RUNS);
    kept_launch_to_ready(w, session, id);
}

void kept_launch_to_ready(struct world *w, const char *session, const char *id)
{
    expect_about(w, "launch", id);
    done(w, SERVER);
    kept_probe_to_ready(w, session, id);
}

void kept_probe_to_ready(struct world *w, const char *session, const char *id)
{
    expect_about(w, "probe", id);
    done(w, ANSWERS);
    last_probe_to_ready(w, session, id);
}

void to_destroy(struct world *w, const char *session, const char *id)
{
    to_start(w, session, id);
    refuse(w, ERR_START_FAILED);
    expect_batch(w, 1);
    committed(w);
    expect_about(w, "find", id);
}

void to_listing(struct world *w, int every_seconds)
{
    w->config.sweep.every_seconds = every_seconds;
    world_restart(w);
    assign(w, 0, 5, NULL);
    advance(w, 4000);
    expect_call(w, "list session-jobs/0 -");
}

void destroy_to_stop(struct world *w, const char *id)
{
    char *box = xasprintf("%s ours provisional runs", id);
    expect_about(w, "find", id);
    found(w, box);
    free(box);
    expect_about(w, "stop", id);
}

struct core_status status_of(const struct world *w)
{
    struct core_status status;
    core_status(w->core, &status);
    return status;
}

struct lookup {
    int32_t partition;
    int64_t offset;
    const char *phase;
    struct partition_view view;
};

static void see_session(void *arg, const struct session_view *v)
{
    struct lookup *l = arg;
    if (v->partition == l->partition && v->offset == l->offset)
        l->phase = v->phase;
}

const char *phase_of(const struct world *w, int32_t partition, int64_t offset)
{
    struct lookup l = {.partition = partition, .offset = offset};
    core_each_session(w->core, w->now_ns, see_session, &l);
    return l.phase;
}

static void see_partition(void *arg, const struct partition_view *v)
{
    struct lookup *l = arg;
    if (v->partition == l->partition)
        l->view = *v;
}

struct partition_view view_of(const struct world *w, int32_t partition)
{
    struct lookup l = {.partition = partition};
    core_each_partition(w->core, see_partition, &l);
    assert_int_equal(l.view.partition, partition);
    return l.view;
}
