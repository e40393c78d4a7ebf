/* fixture: see the header. The fake provider first, then what goes into the core and what comes
 * out of it. */
#include "tests/unit/core/fixture.h"

#include <stdio.h>

#include "common/log.h"
#include "common/xalloc.h"
#include "worker/core/offsets.h"

#define WALL_MS UINT64_C(1700000000000)
#define FACTS_OF_A_LOOK (EXISTS | RUNS | KEPT)

/* ---- the fake provider: boxes ---- */

static void set_text(char **slot, const char *text)
{
    char *copy = xstrdup0(text);
    free(*slot);
    *slot = copy;
}

static struct box *fake_box_new(const struct provider *p)
{
    (void)p;
    return xcalloc(1, sizeof(struct box));
}

static void free_texts(struct box *b)
{
    char *texts[] = {b->id,          b->state_name,    b->label_job,  b->label_spec,
                     b->created_at,  b->label_session, b->target,     b->spec_id,
                     b->url,         b->preview_token, b->vscode_url, b->vscode_token,
                     b->session_key, b->command_id,    b->log_tail};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        free(texts[i]);
    for (size_t i = 0; i < b->n_urls; i++) {
        free(b->urls[i].name);
        free(b->urls[i].url);
    }
    free(b->urls);
}

static void fake_box_forget(struct box *b)
{
    char *name = b->name, *hint_id = b->hint_id;
    free_texts(b);
    *b = (struct box){.name = name, .hint_id = hint_id};
}

static void fake_box_free(struct box *b)
{
    if (!b)
        return;
    free_texts(b);
    free(b->name);
    free(b->hint_id);
    free(b);
}

static bool write_flag(struct box *b, const char *word)
{
    static const struct {
        const char *word;
        enum box_state state;
    } states[] = {{"runs", BOX_RUNS},
                  {"rests", BOX_RESTS},
                  {"transient", BOX_TRANSIENT},
                  {"error", BOX_ERROR},
                  {"gone", BOX_GONE}};
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        if (strcmp(word, states[i].word) != 0)
            continue;
        b->state = states[i].state;
        set_text(&b->state_name, word);
        return true;
    }
    const struct {
        const char *word;
        bool *flag, value;
    } flags[] = {{"mine", &b->mine, true},           {"ours", &b->ours, true},
                 {"foreign", &b->ours, false},       {"provisional", &b->provisional, true},
                 {"kept", &b->provisional, false},   {"maybe", &b->maybe_kept, true},
                 {"certain", &b->maybe_kept, false}, {"warm", &b->warm, true}};
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (strcmp(word, flags[i].word) == 0)
            return *flags[i].flag = flags[i].value, true;
    return false;
}

/* "name=value", or false. */
static bool write_text(struct box *b, const char *word)
{
    const struct {
        const char *name;
        char **slot;
    } texts[] = {{"job=", &b->label_job},         {"spec=", &b->label_spec},
                 {"session=", &b->label_session}, {"url=", &b->url},
                 {"key=", &b->session_key},       {"tail=", &b->log_tail},
                 {"token=", &b->preview_token},   {"vscode=", &b->vscode_url},
                 {"command=", &b->command_id},    {"target=", &b->target}};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        size_t n = strlen(texts[i].name);
        if (strncmp(word, texts[i].name, n) == 0)
            return set_text(texts[i].slot, word + n), true;
    }
    return false;
}

/* "port=<n>": one more exposed url. */
static bool write_port(struct box *b, const char *word)
{
    int64_t port;
    if (strncmp(word, "port=", 5) != 0 || !parse_i64(word + 5, strlen(word + 5), 1, 65535, &port))
        return false;
    b->urls = xrealloc(b->urls, b->n_urls + 1, sizeof *b->urls);
    b->urls[b->n_urls++] = (struct box_url){.name = xasprintf("P%s", word + 5),
                                            .url = xasprintf("http://%s", word + 5),
                                            .port = (int)port};
    return true;
}

/* Words: a state, flags, "name=value"; any other word is the id, "-" no id. */
static void box_write(struct box *b, const char *words)
{
    char *copy = xstrdup(words ? words : ""), *rest = copy, *word;
    while ((word = strsep(&rest, " ")))
        if (*word && !write_flag(b, word) && !write_text(b, word) && !write_port(b, word))
            set_text(&b->id, strcmp(word, "-") == 0 ? NULL : word);
    free(copy);
}

/* ---- the fake provider: asking and judging ---- */

static const char *const phase_names[N_PHASES] = {"find",  "create", "start", "launch",
                                                  "probe", "keep",   "stop",  "delete"};

static struct world *world_of(const struct provider *p)
{
    return CONTAINER_OF(p, const struct fake, provider)->w;
}

static const char *about(const struct deal *d)
{
    if (d->phase == CREATE)
        return d->box->name;
    if (d->phase == FIND && d->box->hint_id)
        return d->box->hint_id;
    return d->box->id ? d->box->id : d->box->name;
}

/* No id that a committed ready event named is ever destroyed without being asked for. */
static void check_destroy(const struct world *w, const struct deal *d)
{
    bool destroys = d->phase == STOP || d->phase == DELETE;
    bool asked_for = d->job && d->job->type != JOB_START;
    if (!destroys || asked_for || !d->box->id)
        return;
    char *id = xasprintf(" %s ", d->box->id);
    assert_null(strstr(w->ready_ids, id));
    free(id);
}

static enum asked fake_ask(const struct deal *d, struct call *call, struct answer *a)
{
    const struct world *w = world_of(d->provider);
    uint32_t bit = UINT32_C(1) << d->phase;
    if (w->unsayable & bit) {
        *a = (struct answer){
            .verdict = REFUSE, .code = ERR_BAD_COMMAND, .message = xstrdup("it cannot be said")};
        return ASKED_REFUSED;
    }
    if ((w->dumb & bit) || (d->slot == 1 && !(w->beside & bit)))
        return ASKED_NOTHING;
    check_destroy(w, d);
    if (d->phase == KEEP)
        d->box->maybe_kept = true; /* until a look */
    call_init(call, d->phase, "GET");
    call->scope = d->phase == CREATE  ? SCOPE_CREATES
                  : d->phase == PROBE ? SCOPE_FREE
                                      : SCOPE_GENERAL;
    call->url = xasprintf("%s%s %s", phase_names[d->phase], d->slot ? "+" : "", about(d));
    call->body = xstrdup(d->job ? d->job->event_id : "");
    call->content_type = "text/plain";
    return ASKED_CALL;
}

static void judge(const struct say *say, struct answer *a)
{
    static const struct rate silent = {.limit = -1, .remaining = -1, .reset_s = -1};
    *a = (struct answer){.verdict = say->verdict,
                         .set = say->set,
                         .clear = say->clear,
                         .after_ms = say->after_ms,
                         .code = say->code,
                         .http_status = say->http_status,
                         .message = xstrdup0(say->message),
                         .provider_message = xstrdup0(say->words),
                         .rate = say->rate ? *say->rate : silent};
}

static void fake_answer(const struct deal *d, unsigned what, const struct reply *r,
                        struct answer *a)
{
    const struct say *say = world_of(d->provider)->say;
    (void)r;
    assert_int_equal(what, d->phase);
    assert_non_null(say);
    if (d->phase == FIND && (say->set & LOOKED))
        d->box->maybe_kept = false;
    box_write(d->box, say->box);
    if (d->box->label_spec && strcmp(d->box->label_spec, "same") == 0)
        set_text(&d->box->label_spec, d->job->spec_hash);
    judge(say, a);
}

static void fake_ask_list(const struct provider *p, const struct listing *l, struct call *call)
{
    (void)p;
    call_init(call, N_PHASES, "GET");
    call->scope = SCOPE_GENERAL;
    call->url = xasprintf("list %s %s", l->partition, l->cursor ? l->cursor : "-");
}

static void fake_answer_list(const struct provider *p, const struct listing *l,
                             const struct reply *r, struct listed *out, struct answer *a)
{
    const struct say *say = world_of(p)->say;
    (void)r;
    assert_non_null(l->partition);
    judge(say, a);
    out->next = xstrdup0(say->next);
    out->boxes = xcalloc(16, sizeof(struct box *));
    char *copy = xstrdup(say->boxes ? say->boxes : ""), *rest = copy, *words;
    while (*copy && (words = strsep(&rest, ";"))) {
        assert_true(out->n < 16);
        out->boxes[out->n] = fake_box_new(p);
        box_write(out->boxes[out->n++], words);
    }
    free(copy);
}

static void fake_ask_key(const struct provider *p, struct call *call)
{
    call_init(call, N_PHASES, "GET");
    call->scope = SCOPE_GENERAL;
    call->url = xasprintf("key %s", p->cfg->name);
}

static void fake_answer_key(const struct provider *p, const struct reply *r, struct answer *a)
{
    (void)r;
    judge(world_of(p)->say, a);
}

static const struct provider_ops fake_ops = {
    .type = "fake",
    .unique_names = true,
    .scopes = {{"creates", true}, {"general", false}},
    .n_scopes = 2,
    .box_new = fake_box_new,
    .box_free = fake_box_free,
    .box_forget = fake_box_forget,
    .ask = fake_ask,
    .answer = fake_answer,
    .ask_list = fake_ask_list,
    .answer_list = fake_answer_list,
    .ask_key = fake_ask_key,
    .answer_key = fake_answer_key,
};

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
    w->wall_ms = WALL_MS;
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
        assert_int_equal(e->progress.to, TO_PROGRESS);
        w->progress++;
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
    struct job *job = job_parse(&r, &w->config, &why, &unknown);
    struct input in = {.kind = IN_JOB, .job = {.record = &r, .job = job, .refusal = &why}};
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

void stop(struct world *w, const char *session, const char *members)
{
    job_at(w, 0, w->next_offset[0], "stop", session, members);
}

void delete (struct world *w, const char *session, const char *members)
{
    job_at(w, 0, w->next_offset[0], "delete", session, members);
}

void assign(struct world *w, int32_t partition, int64_t offset, const char *metadata)
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
    struct reply r = {
        .fault = say->fault, .status = say->fault ? 0 : 200, .body = "", .more = say->more};
    struct input in = {.kind = IN_REPLY, .reply = {.call = w->current.id, .reply = &r}};
    assert_true(w->current.id != 0);
    if (!say->more)
        assert_true(drop_call(w, w->current.id));
    w->say = say;
    step(w, &in);
    w->say = NULL;
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

/* ---- whole stretches ---- */

static void expect_about(struct world *w, const char *phase, const char *what)
{
    char *text = xasprintf("%s %s", phase, what);
    expect_call(w, text);
    free(text);
}

void to_probe(struct world *w, const char *session, const char *id)
{
    char *name = xasprintf("fleet.%s", session);
    expect_about(w, "create", name);
    free(name);
    made(w, id);
    expect_about(w, "start", id);
    done(w, RUNS);
    expect_about(w, "launch", id);
    done(w, SERVER);
    expect_about(w, "probe", id);
}

void probe_to_ready(struct world *w, const char *session, const char *id)
{
    expect_about(w, "probe", id);
    done(w, ANSWERS);
    expect_about(w, "keep", id);
    done(w, KEPT);
    expect_about(w, "probe", id);
    done(w, ACCEPTS);
    expect_event(w, session, "session-ready");
}

void to_ready(struct world *w, const char *session, const char *id)
{
    to_probe(w, session, id);
    probe_to_ready(w, session, id);
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
