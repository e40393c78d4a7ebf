/* fixture_provider: a provider whose every phase is one call, and whose answers the test scripts.
 * See fixture.h. It watches one invariant by itself: no id that a committed ready event named is
 * ever destroyed without being asked for. */
#include "tests/unit/core/fixture.h"

#include <stdio.h>

#include "common/xalloc.h"

/* ---- boxes ---- */

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

/* ---- asking and judging ---- */

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

const struct provider_ops fake_ops = {
    .type = "fake",
    .unique_names = true,
    .scopes = {[SCOPE_GENERAL] = {"general", false}, [SCOPE_CREATES] = {"creates", true}},
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
