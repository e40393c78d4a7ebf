/* daytona: requests put together, answers handed out. See daytona.h for how the files divide.
 *
 * forms[] has a line for every request: how it is sent, and who judges its answer. Statuses that
 * are not 2xx go to the table in daytona_rules.c, but for the `raw` requests: what comes back from
 * the sandbox's own server (or about its command) is no word of Daytona's.
 *
 * Invariants: a request with a body says Content-Type: application/json (without it the API ignores
 * the body, and a create makes an anonymous sandbox that is never deleted); our API key goes to the
 * API and to the toolbox url that the API named, nowhere else; a box's own host gets the preview
 * token and the session key only. */
#include "worker/provider/daytona.h"

#include <stdlib.h>
#include <string.h>

#include "common/secret.h"
#include "common/xalloc.h"
#include "worker/provider/startup.h"

#define HELD_MS 45000 /* the server holds create, start and recover for up to 30 s */
#define BODY_MAX (1024 * 1024)

enum base { AT_API, AT_ID, AT_NAME, AT_TOOLBOX, AT_PREVIEW };

struct form {
    const char *words; /* what it does: "could not <words>" */
    const char *method;
    enum base base;
    const char
        *path; /* {p} port, {d} auto-delete, {s} auto-stop, {t} toolbox session, {c} command */
    uint8_t scope;
    bool repeatable; /* without a look at what the first one did */
    bool raw;
    uint32_t timeout_ms, max_reply; /* 0: the usual */
    bool (*body)(const struct deal *, struct buf *, struct answer *);
    void (*judge)(struct turn *);
};

/* clang-format off */
static const struct form forms[N_REQUESTS] = {
    [R_GET_ID]      = { "look at the sandbox", "GET", AT_ID, "", SCOPE_GENERAL, true, .judge = judge_look },
    [R_GET_NAME]    = { "look for the sandbox", "GET", AT_NAME, "", SCOPE_GENERAL, true, .judge = judge_look },
    [R_FIND_LABELS] = { "list the session's sandboxes", "GET", AT_API, "/sandbox?", SCOPE_GENERAL, true, .max_reply = 4 << 20, .judge = judge_find_labels },
    [R_CREATE]      = { "create the sandbox", "POST", AT_API, "/sandbox", SCOPE_CREATE, .timeout_ms = HELD_MS, .body = body_create, .judge = judge_create },
    [R_START]       = { "start the sandbox", "POST", AT_ID, "/start", SCOPE_LIFECYCLE, .timeout_ms = HELD_MS, .judge = judge_start },
    [R_RECOVER]     = { "recover the sandbox", "POST", AT_ID, "/recover", SCOPE_LIFECYCLE, .timeout_ms = HELD_MS, .judge = judge_start },
    [R_STOP]        = { "stop the sandbox", "POST", AT_ID, "/stop", SCOPE_LIFECYCLE, .judge = judge_stop },
    [R_DELETE]      = { "delete the sandbox", "DELETE", AT_ID, "", SCOPE_LIFECYCLE, true, .judge = judge_gone },
    [R_AUTODELETE]  = { "keep the sandbox", "POST", AT_ID, "/autodelete/{d}", SCOPE_GENERAL, true, .judge = judge_keep },
    [R_AUTOSTOP]    = { "set the auto-stop interval", "POST", AT_ID, "/autostop/{s}", SCOPE_GENERAL, true, .judge = judge_keep },
    [R_ACTIVITY]    = { "touch the sandbox", "POST", AT_ID, "/last-activity", SCOPE_GENERAL, true, .judge = judge_activity },
    [R_PREVIEW]     = { "get the preview url", "GET", AT_ID, "/ports/{p}/preview-url", SCOPE_GENERAL, true, .judge = judge_preview },
    [R_CONFIG]      = { "read Daytona's configuration", "GET", AT_API, "/config", SCOPE_FREE, true, .judge = judge_config },
    [R_LIST]        = { "list the partition's sandboxes", "GET", AT_API, "", SCOPE_GENERAL, true, .max_reply = 4 << 20 },
    [R_CHECK]       = { "try the API key", "GET", AT_API, "", SCOPE_GENERAL, true, .max_reply = 4 << 20 },
    [R_SESSION_CREATE] = { "create a toolbox session", "POST", AT_TOOLBOX, "/process/session", SCOPE_FREE, true, .body = body_session, .judge = judge_session_create },
    [R_SESSION_GET]    = { "read the toolbox session", "GET", AT_TOOLBOX, "/process/session/{t}", SCOPE_FREE, true, .max_reply = 4 << 20, .judge = judge_session_get },
    [R_SESSION_DELETE] = { "delete the toolbox session", "DELETE", AT_TOOLBOX, "/process/session/{t}", SCOPE_FREE, true, .judge = judge_session_delete },
    [R_EXEC]        = { "start the server", "POST", AT_TOOLBOX, "/process/session/{t}/exec", SCOPE_FREE, .timeout_ms = 15000, .body = body_exec, .judge = judge_exec },
    [R_COMMAND]     = { "watch the server's command", "GET", AT_TOOLBOX, "/process/session/{t}/command/{c}", SCOPE_FREE, true, .raw = true, .timeout_ms = 5000, .judge = judge_command },
    [R_TAIL]        = { "read the server's log", "POST", AT_TOOLBOX, "/process/execute", SCOPE_FREE, true, .raw = true, .timeout_ms = 12000, .body = body_tail, .judge = judge_tail },
    [R_PROBE]       = { "probe the server", "GET", AT_PREVIEW, "", SCOPE_FREE, true, .raw = true, .timeout_ms = 5000, .judge = judge_probe },
    [R_ACCEPT]      = { "probe the server with the session key", "GET", AT_PREVIEW, "", SCOPE_FREE, true, .raw = true, .timeout_ms = 5000, .judge = judge_accept },
};
/* clang-format on */

const char *request_words(enum request r)
{
    return forms[r].words;
}

bool request_repeatable(enum request r)
{
    return forms[r].repeatable;
}

/* ---- the box ---- */

struct box *daytona_box_new(const struct provider *p)
{
    struct daytona_box *b = xcalloc(1, sizeof *b);
    (void)p;
    b->auto_delete = -1;
    return &b->box;
}

static void wipe_secrets(struct box *b)
{
    char **secrets[] = {&b->preview_token, &b->vscode_token, &b->session_key};
    for (size_t i = 0; i < ARRAY_LEN(secrets); i++)
        set_secret(secrets[i], NULL);
}

static void free_fields(struct daytona_box *d)
{
    struct box *b = &d->box;
    char *texts[] = {b->id,
                     b->state_name,
                     b->label_job,
                     b->label_spec,
                     b->label_session,
                     b->created_at,
                     b->target,
                     b->spec_id,
                     b->url,
                     b->vscode_url,
                     b->command_id,
                     b->log_tail,
                     d->toolbox_url,
                     d->label_key,
                     d->error_reason,
                     d->script.look_id};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        free(texts[i]);
    drop_urls(b);
    wipe_secrets(b);
}

static void daytona_box_forget(struct box *b)
{
    struct daytona_box *d = (struct daytona_box *)b;
    char *name = b->name, *hint_id = b->hint_id;
    free_fields(d);
    *d = (struct daytona_box){.box = {.name = name, .hint_id = hint_id}, .auto_delete = -1};
}

void daytona_box_free(struct box *b)
{
    if (!b)
        return;
    daytona_box_forget(b);
    free(b->name);
    free(b->hint_id);
    free(b);
}

/* ---- asking ---- */

static void add_bearer(const struct provider *p, struct call *c)
{
    char *value = xasprintf("Bearer %s", p->cfg->api_key);
    call_header(c, "Authorization", value);
    call_header(c, "X-Daytona-Source", "session-worker");
    secret_wipe(value);
}

static void fill_call(struct call *c, enum request r)
{
    const struct form *f = &forms[r];
    call_init(c, r, f->method);
    c->scope = f->scope;
    c->repeatable = f->repeatable;
    c->timeout_ms = f->timeout_ms ? f->timeout_ms : c->timeout_ms;
    c->max_reply = f->max_reply ? f->max_reply : c->max_reply;
}

/* base without the slashes at its end */
static void add_base(struct buf *url, const char *base)
{
    size_t len = strlen(base);
    while (len > 0 && base[len - 1] == '/')
        len--;
    buf_add(url, base, len);
}

void api_call(const struct provider *p, enum request r, const char *path, struct call *c)
{
    struct buf url;
    buf_init(&url, 32768);
    fill_call(c, r);
    add_base(&url, p->cfg->api_url);
    buf_adds(&url, path);
    ASSERT(!url.overflow);
    c->url = buf_steal(&url);
    add_bearer(p, c);
}

static const char *look_id(const struct daytona_box *b)
{
    return b->box.id ? b->box.id : b->script.look_id;
}

static void add_placeholder(struct buf *out, char what, const struct deal *d)
{
    char session[TOOLBOX_SESSION_SIZE];
    const char *name;
    int port = 0;
    switch (what) {
    case 'p':
        ASSERT(port_wanted(d->job, preview_index(d), &name, &port));
        buf_addf(out, "%d", port);
        break;
    case 'd':
        buf_addf(out, "%d", keep_auto_delete(d->job));
        break;
    case 's':
        buf_addf(out, "%d", d->job->sandbox.auto_stop_minutes);
        break;
    case 't':
        toolbox_session(d->job, session);
        buf_adds(out, session);
        break;
    default:
        ASSERT(what == 'c');
        add_encoded(out, d->box->command_id);
    }
}

static void add_path(struct buf *out, const char *path, const struct deal *d)
{
    for (const char *p = path; *p; p++) {
        if (*p == '{') {
            add_placeholder(out, p[1], d);
            p += 2;
        } else {
            buf_addc(out, *p);
        }
    }
}

static const char *preview_path(const struct deal *d, enum request r)
{
    struct health h;
    health_now(d, box_of(d), &h);
    return r == R_ACCEPT ? h.key_path : h.path;
}

static void add_url(struct buf *url, const struct deal *d, enum request r)
{
    const struct daytona_box *b = box_of(d);
    const struct form *f = &forms[r];
    add_base(url, f->base == AT_PREVIEW   ? b->box.url
                  : f->base == AT_TOOLBOX ? b->toolbox_url
                                          : d->provider->cfg->api_url);
    if (f->base == AT_ID || f->base == AT_NAME)
        buf_adds(url, "/sandbox");
    if (f->base == AT_ID || f->base == AT_TOOLBOX || f->base == AT_NAME) {
        buf_addc(url, '/');
        add_encoded(url, f->base == AT_NAME ? b->box.name : look_id(b));
    }
    if (f->base == AT_PREVIEW)
        buf_adds(url, preview_path(d, r));
    else
        add_path(url, f->path, d);
    if (r == R_FIND_LABELS)
        add_label_filter(url, d->provider, LABEL_SESSION, d->job->session_id);
}

/* The sandbox's own host: its proxy's token, and never our API key. */
static bool add_preview_headers(const struct deal *d, enum request r, struct call *c)
{
    const struct daytona_box *b = box_of(d);
    size_t index = b->script.key;
    c->own_host = true;
    c->close_on_2xx = r == R_ACCEPT; /* the last that this host is asked */
    call_header(c, "Accept", "application/json");
    call_header(c, "X-Daytona-Skip-Preview-Warning", "true");
    call_header(c, "X-Daytona-Skip-Last-Activity-Update", "true");
    if (b->box.preview_token)
        call_header(c, "X-Daytona-Preview-Token", b->box.preview_token);
    if (r != R_ACCEPT)
        return true;
    char *key = candidate_key(d, b, &index);
    bool ok = key && header_value_valid(key);
    if (ok)
        call_header(c, "X-Session-API-Key", key);
    secret_wipe(key);
    return ok;
}

static bool add_body(const struct deal *d, enum request r, struct call *c, struct answer *a)
{
    struct buf body;
    if (!forms[r].body)
        return true;
    buf_init(&body, BODY_MAX);
    bool said = forms[r].body(d, &body, a) && !body.overflow;
    c->content_type = "application/json";
    c->body_len = body.len;
    c->body = buf_steal(&body);
    return said;
}

static bool fill_request(const struct deal *d, enum request r, struct call *c, struct answer *a)
{
    struct buf url;
    fill_call(c, r);
    buf_init(&url, 32768);
    add_url(&url, d, r);
    bool whole = !url.overflow;
    c->url = buf_steal(&url);
    if (forms[r].base != AT_PREVIEW)
        add_bearer(d->provider, c);
    else if (!add_preview_headers(d, r, c))
        return false;
    return whole && add_body(d, r, c, a);
}

static void script_enter(const struct deal *d, struct daytona_box *b)
{
    static void (*const begin[N_PHASES])(const struct deal *, struct daytona_box *) = {
        [FIND] = begin_find,     [CREATE] = begin_create, [START] = begin_start,
        [LAUNCH] = begin_launch, [PROBE] = begin_probe,   [KEEP] = begin_keep,
        [STOP] = begin_stop,     [DELETE] = begin_delete,
    };
    struct script *s = &b->script;
    if (s->entered && s->phase == d->phase && s->since_ns == d->phase_since_ns)
        return;
    free(s->look_id);
    *s = (struct script){.entered = true, .phase = d->phase, .since_ns = d->phase_since_ns};
    if (!b->box.name && d->job)
        b->box.name = xasprintf("%s.%s", d->provider->config->fleet, d->job->session_id);
    begin[d->phase](d, b);
}

/* What the engine has not promised: a phase that needs an id or a name, and has none. */
static bool can_ask(const struct daytona_box *b, enum request r)
{
    if (forms[r].base == AT_ID || forms[r].base == AT_TOOLBOX)
        return look_id(b) && id_valid(look_id(b)) && (r != R_SESSION_CREATE || b->toolbox_url);
    return forms[r].base != AT_NAME || b->box.name;
}

static enum asked refused(struct answer *a)
{
    a->verdict = REFUSE;
    if (a->code == ERR_NONE)
        a->code = ERR_INVALID_JOB;
    if (!a->message)
        a->message =
            xstrdup("the request cannot be said: the job holds what no header or path may");
    return ASKED_REFUSED;
}

static enum asked daytona_ask(const struct deal *d, struct call *call, struct answer *a)
{
    struct daytona_box *b = box_of(d);
    ASSERT(d->slot < SLOTS);
    script_enter(d, b);
    if (d->late && b->script.next[d->slot] == R_DELETE) /* no new one, whose answer nobody awaits */
        b->script.next[d->slot] = R_GET_ID;
    enum request r = b->script.next[d->slot];
    if (r == R_NONE)
        return ASKED_NOTHING;
    if (!can_ask(b, r))
        return refused(a);
    if (!fill_request(d, r, call, a)) {
        call_done(call);
        return refused(a);
    }
    if (r == R_AUTODELETE)
        b->box.maybe_kept = true;
    return ASKED_CALL;
}

/* ---- answers ---- */

static void judge(struct turn *t)
{
    const struct form *f = &forms[t->request];
    if (f->scope != SCOPE_FREE && t->reply->fault == FAULT_NONE)
        read_rate(t->reply, (enum daytona_scope)f->scope, &t->answer->rate);
    if (f->raw || is_2xx(t->reply))
        f->judge(t);
    else if (t->reply->fault != FAULT_NONE)
        judge_fault(t);
    else
        judge_refusal(t);
}

static void daytona_answer(const struct deal *d, unsigned what, const struct reply *r,
                           struct answer *a)
{
    struct daytona_box *b = box_of(d);
    ASSERT(what > R_NONE && what < N_REQUESTS && what != R_LIST && what != R_CHECK);
    struct turn t = {.deal = d,
                     .box = b,
                     .script = &b->script,
                     .request = (enum request)what,
                     .reply = r,
                     .json = r->fault == FAULT_NONE ? reply_parse(r) : NULL,
                     .answer = a};
    a->rate.limit = a->rate.remaining = a->rate.reset_s = -1;
    judge(&t);
    cJSON_Delete(t.json);
}

const struct provider_ops daytona_ops = {
    .type = "daytona",
    .unique_names = true,
    .scopes = {[SCOPE_GENERAL] = {"authenticated", false},
               [SCOPE_CREATE] = {"sandbox-create", true},
               [SCOPE_LIFECYCLE] = {"sandbox-lifecycle", false}},
    .n_scopes = 3,
    .box_new = daytona_box_new,
    .box_free = daytona_box_free,
    .box_forget = daytona_box_forget,
    .ask = daytona_ask,
    .answer = daytona_answer,
    .ask_list = daytona_ask_list,
    .answer_list = daytona_answer_list,
    .ask_key = daytona_ask_key,
    .answer_key = daytona_answer_key,
};
