/* recordings_daytona: real answers of Daytona, recorded, told to the provider.
 *
 *   recordings_daytona FOLDER        (with *.jsonl files, one exchange a line)
 *
 * Every exchange that a worker can meet is told to the request that it would answer, and the
 * verdict is looked up in expected[] (server, method, path, status, words of the message). One that
 * no row knows is a failure: it would mean that nobody has thought about it. And every answer is
 * told to every other request too, which must survive it. */
#include <dirent.h>

#include "tests/unit/provider/talk.h"
#include "worker/provider/daytona.h"

struct exchange { /* all borrowed from line */
    cJSON *line;
    const char *name, *server, *method, *text;
    char *path; /* without query, ids and numbers as {x} and {n}; owned */
    int status;
    char *body; /* as it was received; owned */
    const cJSON *asked, *answer;
    uint64_t active_ms; /* the answer's lastActivityAt; 0: none */
    struct reply_header headers[24];
    size_t n_headers;
};

/* How things stand in the body of a sandbox, read without any code under test. */
enum look { ANY, RUNS_NOW, ON_ITS_WAY, AT_REST, DYING };

struct expected {
    const char *server, *method, *path;
    int status;
    const char *words; /* in message or text; NULL: any */
    enum look look;
    enum request request;
    enum phase phase;
    enum verdict verdict;
    enum error_code code;
};

#define SANDBOX "/api/sandbox/{x}"
#define TOOLBOX "/toolbox/{x}/process/session"

/* clang-format off */
static const struct expected expected[] = {
    { "api", "POST", "/api/sandbox", 200, NULL, ANY, R_CREATE, CREATE, OK, 0 },
    { "api", "POST", "/api/sandbox", 400, "Sandbox failed to start", ANY, R_CREATE, CREATE, OK, 0 },
    { "api", "POST", "/api/sandbox", 400, "No available runners", ANY, R_CREATE, CREATE, AGAIN, 0 },
    { "api", "POST", "/api/sandbox", 400, "limit exceeded", ANY, R_CREATE, CREATE, AGAIN, ERR_QUOTA_EXCEEDED },
    { "api", "POST", "/api/sandbox", 400, "exceeds maximum allowed per", ANY, R_CREATE, CREATE, REFUSE, ERR_QUOTA_EXCEEDED },
    { "api", "POST", "/api/sandbox", 400, "Snapshot nope not found", ANY, R_CREATE, CREATE, REFUSE, ERR_SNAPSHOT_NOT_FOUND },
    { "api", "POST", "/api/sandbox", 400, NULL, ANY, R_CREATE, CREATE, REFUSE, ERR_CREATE_FAILED },
    { "api", "POST", "/api/sandbox", 401, NULL, ANY, R_CREATE, CREATE, AGAIN, ERR_UNAUTHORIZED },
    { "api", "POST", "/api/sandbox", 403, NULL, ANY, R_CREATE, CREATE, REFUSE, ERR_FORBIDDEN },
    { "api", "POST", "/api/sandbox", 404, "Region not found", ANY, R_CREATE, CREATE, AGAIN, 0 },
    { "api", "POST", "/api/sandbox", 404, NULL, ANY, R_CREATE, CREATE, REFUSE, ERR_CREATE_FAILED },
    { "api", "POST", "/api/sandbox", 409, "already exists", ANY, R_CREATE, CREATE, OK, 0 },
    { "api", "POST", "/api/sandbox", 429, NULL, ANY, R_CREATE, CREATE, AGAIN, ERR_RATE_LIMITED },
    { "api", "POST", "/api/sandbox", 500, NULL, ANY, R_CREATE, CREATE, RETRY, ERR_PROVIDER_UNAVAILABLE },

    { "api", "GET", SANDBOX, 200, NULL, ANY, R_GET_ID, FIND, OK, 0 },
    { "api", "GET", SANDBOX, 301, NULL, ANY, R_GET_NAME, FIND, REFUSE, ERR_PROVIDER_PROTOCOL },
    { "api", "GET", SANDBOX, 400, NULL, ANY, R_GET_NAME, FIND, REFUSE, ERR_PROVIDER_PROTOCOL },
    { "api", "GET", SANDBOX, 401, NULL, ANY, R_GET_ID, FIND, AGAIN, ERR_UNAUTHORIZED },
    { "api", "GET", SANDBOX, 404, NULL, ANY, R_GET_ID, FIND, OK, 0 },
    { "api", "GET", SANDBOX, 429, NULL, ANY, R_GET_ID, FIND, AGAIN, ERR_RATE_LIMITED },
    { "api", "GET", "/api/sandbox", 200, NULL, ANY, R_LIST, FIND, OK, 0 },
    { "api", "GET", "/api/sandbox", 400, NULL, ANY, R_LIST, FIND, REFUSE, ERR_PROVIDER_PROTOCOL },
    { "api", "GET", "/api/sandbox", 500, NULL, ANY, R_LIST, FIND, RETRY, ERR_PROVIDER_UNAVAILABLE },
    { "api", "GET", "/api/config", 200, NULL, ANY, R_CONFIG, LAUNCH, OK, 0 },
    { "api", "GET", "/api/config", 429, NULL, ANY, R_CONFIG, LAUNCH, AGAIN, ERR_RATE_LIMITED },

    { "api", "POST", SANDBOX "/start", 200, NULL, RUNS_NOW, R_START, START, OK, 0 },
    { "api", "POST", SANDBOX "/start", 200, NULL, ON_ITS_WAY, R_START, START, AGAIN, ERR_START_TIMEOUT },
    { "api", "POST", SANDBOX "/start", 400, "Only ephemeral", ANY, R_START, START, REFUSE, ERR_START_FAILED },
    { "api", "POST", SANDBOX "/start", 400, "failed to start", ANY, R_START, START, OK, 0 },
    { "api", "POST", SANDBOX "/start", 400, "errored state", ANY, R_START, START, OK, 0 },
    { "api", "POST", SANDBOX "/start", 403, "suspended", ANY, R_START, START, REFUSE, ERR_FORBIDDEN },
    { "api", "POST", SANDBOX "/start", 409, NULL, ANY, R_START, START, AGAIN, ERR_START_TIMEOUT },
    { "api", "POST", SANDBOX "/recover", 400, NULL, ANY, R_RECOVER, START, REFUSE, ERR_START_FAILED },

    { "api", "POST", SANDBOX "/stop", 200, NULL, ANY, R_STOP, STOP, OK, 0 },
    { "api", "POST", SANDBOX "/stop", 400, NULL, ANY, R_STOP, STOP, AGAIN, ERR_PROVIDER_UNAVAILABLE },
    { "api", "POST", SANDBOX "/stop", 403, NULL, ANY, R_STOP, STOP, REFUSE, ERR_FORBIDDEN },
    { "api", "POST", SANDBOX "/stop", 404, NULL, ANY, R_STOP, STOP, OK, 0 },
    { "api", "POST", SANDBOX "/stop", 409, NULL, ANY, R_STOP, STOP, AGAIN, 0 },
    { "api", "DELETE", SANDBOX, 200, NULL, ANY, R_DELETE, DELETE, OK, 0 },
    { "api", "DELETE", SANDBOX, 403, NULL, ANY, R_DELETE, DELETE, REFUSE, ERR_FORBIDDEN },
    { "api", "DELETE", SANDBOX, 404, NULL, ANY, R_DELETE, DELETE, OK, 0 },
    { "api", "DELETE", SANDBOX, 409, NULL, ANY, R_DELETE, DELETE, AGAIN, 0 },
    { "api", "DELETE", SANDBOX, 429, NULL, ANY, R_DELETE, DELETE, AGAIN, ERR_RATE_LIMITED },

    { "api", "POST", SANDBOX "/autodelete/{n}", 201, NULL, RUNS_NOW, R_AUTODELETE, KEEP, OK, 0 },
    { "api", "POST", SANDBOX "/autodelete/{n}", 201, NULL, ON_ITS_WAY, R_AUTODELETE, KEEP, AGAIN, ERR_START_TIMEOUT },
    { "api", "POST", SANDBOX "/autodelete/{n}", 201, NULL, AT_REST, R_AUTODELETE, KEEP, LOST, ERR_START_FAILED },
    { "api", "POST", SANDBOX "/autodelete/{n}", 201, NULL, DYING, R_AUTODELETE, KEEP, LOST, ERR_START_FAILED },
    { "api", "POST", SANDBOX "/autodelete/{n}", 400, NULL, ANY, R_AUTODELETE, KEEP, REFUSE, ERR_CREATE_FAILED },
    { "api", "POST", SANDBOX "/autodelete/{n}", 403, NULL, ANY, R_AUTODELETE, KEEP, REFUSE, ERR_FORBIDDEN },
    { "api", "POST", SANDBOX "/autodelete/{n}", 404, NULL, ANY, R_AUTODELETE, KEEP, LOST, ERR_START_FAILED },
    { "api", "POST", SANDBOX "/autodelete/{n}", 429, NULL, ANY, R_AUTODELETE, KEEP, AGAIN, ERR_RATE_LIMITED },
    { "api", "POST", SANDBOX "/autodelete/{n}", 500, NULL, ANY, R_AUTODELETE, KEEP, RETRY, ERR_PROVIDER_UNAVAILABLE },
    { "api", "POST", SANDBOX "/autostop/{n}", 201, NULL, RUNS_NOW, R_AUTOSTOP, KEEP, OK, 0 },
    { "api", "POST", SANDBOX "/autostop/{n}", 201, NULL, ON_ITS_WAY, R_AUTOSTOP, KEEP, AGAIN, ERR_START_TIMEOUT },
    { "api", "POST", SANDBOX "/autostop/{n}", 201, NULL, AT_REST, R_AUTOSTOP, KEEP, LOST, ERR_START_FAILED },
    { "api", "POST", SANDBOX "/autostop/{n}", 400, NULL, ANY, R_AUTOSTOP, KEEP, REFUSE, ERR_CREATE_FAILED },
    { "api", "POST", SANDBOX "/last-activity", 201, NULL, ANY, R_ACTIVITY, KEEP, AGAIN, 0 },
    { "api", "GET", SANDBOX "/ports/{n}/preview-url", 200, NULL, ANY, R_PREVIEW, LAUNCH, AGAIN, 0 },
    { "api", "GET", SANDBOX "/ports/{n}/preview-url", 400, NULL, ANY, R_PREVIEW, LAUNCH, REFUSE, ERR_PROVIDER_PROTOCOL },

    { "daemon", "POST", "/process/session", 201, NULL, ANY, R_SESSION_CREATE, LAUNCH, OK, 0 },
    { "daemon", "POST", "/process/session", 400, NULL, ANY, R_SESSION_CREATE, LAUNCH, REFUSE, ERR_LAUNCH_FAILED },
    { "daemon", "POST", "/process/session", 409, NULL, ANY, R_SESSION_CREATE, LAUNCH, OK, 0 },
    { "daemon", "POST", "/process/session", 500, NULL, ANY, R_SESSION_CREATE, LAUNCH, RETRY, ERR_LAUNCH_FAILED },
    { "daemon", "GET", "/process/session/{x}", 200, NULL, ANY, R_SESSION_GET, LAUNCH, OK, 0 },
    { "daemon", "GET", "/process/session/{x}", 404, "session not found", ANY, R_SESSION_GET, LAUNCH, OK, 0 },
    { "daemon", "GET", "/process/session/{x}", 404, "404 page not found", ANY, R_SESSION_GET, LAUNCH, AGAIN, ERR_LAUNCH_FAILED },
    { "daemon", "DELETE", "/process/session/{x}", 204, NULL, ANY, R_SESSION_DELETE, LAUNCH, OK, 0 },
    { "daemon", "DELETE", "/process/session/{x}", 404, NULL, ANY, R_SESSION_DELETE, LAUNCH, OK, 0 },
    { "daemon", "POST", "/process/session/{x}/exec", 200, NULL, ANY, R_EXEC, LAUNCH, OK, 0 },
    { "daemon", "POST", "/process/session/{x}/exec", 202, NULL, ANY, R_EXEC, LAUNCH, OK, 0 },
    { "daemon", "POST", "/process/session/{x}/exec", 400, NULL, ANY, R_EXEC, LAUNCH, REFUSE, ERR_LAUNCH_FAILED },
    { "daemon", "POST", "/process/session/{x}/exec", 500, "session not found", ANY, R_EXEC, LAUNCH, OK, 0 },
    { "daemon", "POST", "/process/session/{x}/exec", 500, "broken pipe", ANY, R_EXEC, LAUNCH, OK, 0 },
    { "daemon", "GET", "/process/session/{x}/command/{x}", 200, NULL, ANY, R_COMMAND, PROBE, AGAIN, 0 },
    { "daemon", "GET", "/process/session/{x}/command/{x}", 404, NULL, ANY, R_COMMAND, PROBE, AGAIN, 0 },
    { "daemon", "POST", "/process/execute", 200, NULL, ANY, R_TAIL, PROBE, REFUSE, ERR_SERVER_EXITED },
    { "daemon", "POST", "/process/execute", 400, NULL, ANY, R_TAIL, PROBE, REFUSE, ERR_SERVER_EXITED },
    { "daemon", "POST", "/process/execute", 408, NULL, ANY, R_TAIL, PROBE, REFUSE, ERR_SERVER_EXITED },

    { "proxy", "POST", TOOLBOX, 201, NULL, ANY, R_SESSION_CREATE, LAUNCH, OK, 0 },
    { "proxy", "POST", TOOLBOX, 409, NULL, ANY, R_SESSION_CREATE, LAUNCH, OK, 0 },
    { "proxy", "POST", TOOLBOX "/{x}/exec", 202, NULL, ANY, R_EXEC, LAUNCH, OK, 0 },
    { "proxy", "POST", TOOLBOX "/{x}/exec", 500, "session not found", ANY, R_EXEC, LAUNCH, OK, 0 },
    { "proxy", "GET", TOOLBOX "/{x}/command/{x}", 200, NULL, ANY, R_COMMAND, PROBE, AGAIN, 0 },
    { "proxy", "GET", "/toolbox/{x}/version", 401, NULL, ANY, R_SESSION_GET, LAUNCH, AGAIN, ERR_UNAUTHORIZED },
    { "proxy", "GET", "/toolbox/{x}/version", 502, NULL, ANY, R_SESSION_GET, LAUNCH, AGAIN, ERR_LAUNCH_FAILED },
    { "proxy", "GET", "/toolbox/{x}/nope", 404, NULL, ANY, R_SESSION_GET, LAUNCH, AGAIN, ERR_LAUNCH_FAILED },
    { "proxy", "GET", "/toolbox/{x}", 404, NULL, ANY, R_SESSION_GET, LAUNCH, AGAIN, ERR_LAUNCH_FAILED },
    { "proxy", "GET", "/alive", 200, "<!doctype html>", ANY, R_PROBE, PROBE, AGAIN, ERR_UNHEALTHY },
    { "proxy", "GET", "/alive", 200, NULL, ANY, R_PROBE, PROBE, OK, 0 },
    { "proxy", "GET", "/alive", 307, NULL, ANY, R_PROBE, PROBE, AGAIN, 0 },
    { "proxy", "GET", "/alive", 404, NULL, ANY, R_PROBE, PROBE, AGAIN, ERR_UNHEALTHY },
    { "proxy", "GET", "/alive", 502, NULL, ANY, R_PROBE, PROBE, AGAIN, ERR_SERVER_TIMEOUT },
    { "proxy", "GET", "/slow", 200, NULL, ANY, R_PROBE, PROBE, OK, 0 },
    { "proxy", "GET", "/echo", 200, NULL, ANY, R_PROBE, PROBE, AGAIN, ERR_UNHEALTHY },
    { "proxy", "GET", "/", 200, NULL, ANY, R_PROBE, PROBE, AGAIN, ERR_UNHEALTHY },
    { "proxy", "GET", "/version", 200, NULL, ANY, R_PROBE, PROBE, AGAIN, ERR_UNHEALTHY },
    { "proxy", "GET", "/status/{n}", 200, NULL, ANY, R_PROBE, PROBE, OK, 0 },
    { "proxy", "GET", "/status/{n}", 0, NULL, ANY, R_PROBE, PROBE, AGAIN, ERR_UNHEALTHY },
};

/* What no worker ever asks; the answers are told to everybody all the same. */
static const struct {
    const char *server, *method, *path;
} not_ours[] = {
    { "api", "PUT", "" }, { "api", "PATCH", "" }, { "api", "GET", "/api/health" }, { "api", "GET", "/api/nope" },
    { "api", "GET", SANDBOX "/ports/{x}/preview-url" }, { "api", "GET", SANDBOX "/ports/{n}/signed-preview-url" },
    { "api", "POST", SANDBOX "/ports/" }, { "api", "GET", SANDBOX "/toolbox-proxy-url" },
    { "api", "POST", SANDBOX "/archive" }, { "api", "POST", SANDBOX "/pause" }, { "api", "POST", SANDBOX "/resize" },
    { "api", "POST", SANDBOX "/public/" }, { "api", "POST", SANDBOX "/autoarchive/" },
    { "api", "POST", SANDBOX "/autodelete/{x}" }, { "api", "POST", SANDBOX "/autodelete/" },
    { "api", "POST", SANDBOX "/autostop/{x}" },
    { "daemon", "GET", "/process/session" }, { "daemon", "GET", "/files/" }, { "daemon", "POST", "/files/" },
    { "daemon", "GET", "/nope" }, { "daemon", "GET", "/port/" }, { "daemon", "GET", "/version" },
    { "daemon", "GET", "/user-home-dir" }, { "daemon", "GET", "/work-dir" },
    { "daemon", "POST", "/process/session/{x}/command/" }, { "daemon", "GET", "/process/session/{x}/command/{x}/logs" },
    { "proxy", "GET", "/toolbox/{x}/version" }, { "proxy", "POST", "/alive" },
};
/* clang-format on */

#define JOB                                                                                        \
    "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"v0\","               \
    "\"port\":8000,\"expose\":[{\"name\":\"A\",\"port\":3000}]}}"

/* Which request may be under way in which phase and slot. */
static const struct place {
    enum request request;
    enum phase phase;
    unsigned slot;
} places[] = {
    {R_GET_ID, FIND, 0},        {R_GET_NAME, FIND, 0},
    {R_FIND_LABELS, FIND, 0},   {R_CREATE, CREATE, 0},
    {R_GET_NAME, CREATE, 0},    {R_GET_ID, START, 0},
    {R_START, START, 0},        {R_RECOVER, START, 0},
    {R_CONFIG, LAUNCH, 0},      {R_SESSION_CREATE, LAUNCH, 0},
    {R_SESSION_GET, LAUNCH, 0}, {R_SESSION_DELETE, LAUNCH, 0},
    {R_EXEC, LAUNCH, 0},        {R_PROBE, LAUNCH, 0},
    {R_GET_ID, LAUNCH, 0},      {R_PREVIEW, LAUNCH, 1},
    {R_PROBE, PROBE, 0},        {R_ACCEPT, PROBE, 0},
    {R_GET_ID, PROBE, 0},       {R_PREVIEW, PROBE, 0},
    {R_COMMAND, PROBE, 1},      {R_PROBE, PROBE, 1},
    {R_TAIL, PROBE, 1},         {R_AUTODELETE, KEEP, 0},
    {R_AUTOSTOP, KEEP, 0},      {R_ACTIVITY, KEEP, 0},
    {R_GET_ID, KEEP, 0},        {R_STOP, STOP, 0},
    {R_DELETE, STOP, 0},        {R_GET_ID, STOP, 0},
    {R_DELETE, DELETE, 0},      {R_GET_ID, DELETE, 0},
    {R_LIST, FIND, 0},
};

static unsigned n_told, n_judged, n_passed_over, n_wrong;

/* ---- reading ---- */

static bool all_digits(const char *text, size_t len)
{
    size_t sign = len > 1 && *text == '-';
    return len > sign && strspn(text + sign, "0123456789") >= len - sign;
}

static bool names_one(const char *segment, size_t len)
{
    static const char *const parents[] = {"sandbox", "session",    "command",
                                          "toolbox", "autodelete", "autostop"};
    for (size_t i = 0; i < ARRAY_LEN(parents); i++)
        if (strlen(parents[i]) == len && strncmp(parents[i], segment, len) == 0)
            return true;
    return false;
}

/* "/api/sandbox/1b6b…/autodelete/60?x=y" as "/api/sandbox/{x}/autodelete/{n}" */
static char *path_shape(const char *path)
{
    struct buf out;
    size_t before = 0;
    const char *parent = "";
    buf_init(&out, 4096);
    for (const char *p = path; *p == '/';) {
        size_t len = strcspn(p + 1, "/?");
        buf_addc(&out, '/');
        if (all_digits(p + 1, len))
            buf_adds(&out, "{n}");
        else if (len > 0 && names_one(parent, before))
            buf_adds(&out, "{x}");
        else if (strncmp(parent, "ports", 5) == 0 && len > 0)
            buf_adds(&out, "{x}");
        else
            buf_add(&out, p + 1, len);
        parent = p + 1;
        before = len;
        p += 1 + len;
    }
    return buf_steal(&out);
}

static void read_answer(struct exchange *x, const cJSON *response)
{
    const cJSON *h, *headers = json_get(response, "headers");
    x->status = (int)json_int(response, "status", 0);
    x->text = json_str(response, "text", NULL);
    x->answer = json_get(response, "body");
    if (!parse_time_ms(json_str(x->answer, "lastActivityAt", ""), &x->active_ms))
        x->active_ms = 0;
    char *printed = x->answer ? cJSON_PrintUnformatted(x->answer) : NULL;
    x->body = xstrdup(printed ? printed : x->text ? x->text : "");
    cJSON_free(printed);
    cJSON_ArrayForEach(h, headers)
    {
        if (cJSON_IsString(h) && x->n_headers < ARRAY_LEN(x->headers))
            x->headers[x->n_headers++] = (struct reply_header){h->string, h->valuestring};
    }
}

static bool read_exchange(const char *line, struct exchange *x)
{
    *x = (struct exchange){.line = json_parse_reply(line, strlen(line))};
    const cJSON *request = json_get(x->line, "request");
    x->name = json_str(x->line, "case", "?");
    x->server = json_str(x->line, "server", "?");
    x->method = json_str(request, "method", "?");
    x->path = path_shape(json_str(request, "path", ""));
    x->asked = json_get(request, "body");
    read_answer(x, json_get(x->line, "response"));
    return x->line != NULL;
}

static void drop_exchange(struct exchange *x)
{
    free(x->path);
    free(x->body);
    cJSON_Delete(x->line);
}

static enum look look_of(const struct exchange *x)
{
    const char *state = json_str(x->answer, "state", "");
    const char *desired = json_str(x->answer, "desiredState", "");
    static const char *const resting[] = {"stopped",   "stopping", "archived",
                                          "archiving", "error",    "build_failed"};
    if (strcmp(desired, "destroyed") == 0)
        return DYING;
    if (strcmp(state, "started") == 0 && strcmp(desired, "started") == 0)
        return RUNS_NOW;
    for (size_t i = 0; i < ARRAY_LEN(resting); i++)
        if (strcmp(state, resting[i]) == 0)
            return AT_REST;
    return ON_ITS_WAY;
}

/* ---- telling ---- */

static struct box *new_box(const struct world *w, const struct exchange *x, const struct place *at)
{
    struct box *b = w->provider->ops->box_new(w->provider);
    struct daytona_box *d = (struct daytona_box *)b;
    const char *name = json_str(x->asked, "name", "");
    b->name = xstrdup(*name ? name : "oh.s1");
    b->id = xstrdup("box-1");
    b->url = xstrdup("http://8000-box-1.example");
    b->command_id = xstrdup("c-1");
    b->exit_code = 3;
    b->exited = at->request == R_TAIL;
    b->started_here = true;
    d->toolbox_url = xstrdup("http://tb.example/toolbox");
    d->own_command = true;
    return b;
}

static void tell_place(struct world *w, const struct exchange *x, const struct place *at)
{
    struct reply r = {.status = x->status,
                      .headers = x->headers,
                      .n_headers = x->n_headers,
                      .body = x->body,
                      .body_len = strlen(x->body),
                      .date_ms = x->active_ms}; /* far from any idle stop */
    struct listing q = {.partition = "session-jobs/3"};
    struct listed listed = {0};
    w->provider->ops->box_free(w->box);
    w->box = new_box(w, x, at);
    w->facts = at->request == R_ACCEPT ? ANSWERS : 0;
    enter(w, at->phase);
    (void)ask(w, at->slot);
    w->call.what = at->request;
    answer_done(&w->answer);
    if (at->request == R_LIST)
        w->provider->ops->answer_list(w->provider, &q, &r, &listed, &w->answer);
    else
        tell(w, at->slot, &r);
    listed_done(w->provider, &listed);
    n_told++;
}

static void tell_everybody(struct world *w, const struct exchange *x)
{
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        tell_place(w, x, &places[i]);
}

/* ---- judging ---- */

static bool is_path(const char *pattern, const char *path)
{
    size_t len = strlen(pattern);
    bool whole = len == 0 || pattern[len - 1] != '/';
    return whole && len ? strcmp(pattern, path) == 0 : strncmp(pattern, path, len) == 0;
}

static bool passed_over(const struct exchange *x)
{
    for (size_t i = 0; i < ARRAY_LEN(not_ours); i++)
        if (strcmp(not_ours[i].server, x->server) == 0 &&
            strcmp(not_ours[i].method, x->method) == 0 && is_path(not_ours[i].path, x->path))
            return true;
    return false;
}

/* A name that a route shadows; ours have a dot. */
static bool is_shadowed(const struct exchange *x)
{
    return strstr(json_str(json_get(x->line, "request"), "path", ""), "/paginated") != NULL;
}

static bool row_fits(const struct expected *e, const struct exchange *x)
{
    return strcmp(e->server, x->server) == 0 && strcmp(e->method, x->method) == 0 &&
           strcmp(e->path, x->path) == 0 && (e->status == 0 || e->status == x->status) &&
           (!e->words || in_words(x->body, e->words)) && (e->look == ANY || e->look == look_of(x));
}

static const struct expected *row_of(const struct exchange *x)
{
    for (size_t i = 0; i < ARRAY_LEN(expected); i++)
        if (row_fits(&expected[i], x))
            return &expected[i];
    return NULL;
}

static void wrong(const struct exchange *x, const char *what)
{
    n_wrong++;
    print_message("WRONG: %s: %s (%s %s %s -> %d)\n", x->name, what, x->server, x->method, x->path,
                  x->status);
}

static unsigned slot_of(const struct expected *e)
{
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        if (places[i].request == e->request && places[i].phase == e->phase)
            return places[i].slot;
    return 0;
}

static bool has_facts(const struct world *w, uint32_t facts)
{
    return (w->answer.set & facts) == facts;
}

/* Facts of a sandbox that was seen, by a reading of its own. */
static bool sandbox_facts(const struct world *w, const struct exchange *x)
{
    bool runs = look_of(x) == RUNS_NOW, gone = look_of(x) == DYING;
    bool kept = json_int(x->answer, "autoDeleteInterval", -1) != 0;
    if (gone)
        return !(w->answer.set & (EXISTS | RUNS));
    return has_facts(w, EXISTS) && !!(w->answer.set & RUNS) == runs &&
           !!(w->answer.set & KEPT) == kept && w->box->provisional == !kept;
}

static bool facts_right(const struct world *w, const struct exchange *x, const struct expected *e)
{
    bool good = x->status >= 200 && x->status < 300;
    switch (e->request) {
    case R_GET_ID:
    case R_CREATE:
        return !good || sandbox_facts(w, x);
    case R_START:
        return e->look != RUNS_NOW || has_facts(w, RUNS);
    case R_AUTODELETE:
        return e->look != RUNS_NOW || has_facts(w, KEPT) ||
               json_int(x->answer, "autoDeleteInterval", -1) == 0;
    case R_STOP:
        return !good || (has_facts(w, RESTS) && !!(w->answer.set & GONE) == (look_of(x) == DYING));
    case R_DELETE:
        return !good || has_facts(w, GONE);
    case R_COMMAND:
        return !good || w->box->exited == cJSON_IsNumber(json_get(x->answer, "exitCode"));
    case R_PROBE:
        return e->verdict != OK || has_facts(w, ANSWERS);
    case R_EXEC:
        return !good || (w->box->command_id &&
                         strcmp(w->box->command_id, json_str(x->answer, "cmdId", "")) == 0);
    default:
        return true;
    }
}

/* The user's own wishes, as the recorded request had them. */
static void wish(struct world *w, const struct exchange *x)
{
    const char *path = json_str(json_get(x->line, "request"), "path", "");
    const char *last = strrchr(path, '/');
    int64_t minutes;
    w->job->sandbox.auto_stop_minutes = (int)json_int(x->answer, "autoStopInterval", 60);
    w->job->sandbox.auto_delete_minutes = -1;
    if (strstr(path, "/autodelete/") && last &&
        parse_i64(last + 1, strlen(last + 1), INT32_MIN, INT32_MAX, &minutes))
        w->job->sandbox.auto_delete_minutes = (int)minutes;
}

/* A create whose body was not read made a sandbox of another name: it must not be taken for ours.
 */
static bool made_another(const struct world *w, const struct exchange *x, const struct expected *e)
{
    return e->request == R_CREATE && x->status == 200 &&
           strcmp(json_str(x->answer, "name", ""), w->box->name) != 0;
}

static void judge_exchange(struct world *w, const struct exchange *x)
{
    const struct expected *e = is_shadowed(x) ? NULL : row_of(x);
    char text[200];
    if (!e && (is_shadowed(x) || passed_over(x))) {
        n_passed_over++;
        return;
    }
    if (!e) {
        wrong(x, "no row of the table knows this answer");
        return;
    }
    n_judged++;
    struct place at = {e->request, e->phase, slot_of(e)};
    wish(w, x);
    tell_place(w, x, &at);
    enum verdict verdict = e->verdict;
    if (made_another(w, x, e))
        verdict = REFUSE;
    snprintf(text, sizeof text, "verdict %d code %s, expected %d %s", w->answer.verdict,
             error_name(w->answer.code), verdict, error_name(e->code));
    if (w->answer.verdict != verdict || (e->code && w->answer.code != e->code))
        wrong(x, text);
    else if (verdict == e->verdict && !facts_right(w, x, e))
        wrong(x, "facts");
}

/* ---- files ---- */

static void replay_file(struct world *w, const char *path)
{
    char *line = NULL;
    size_t cap = 0;
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("cannot read %s", path);
    while (getline(&line, &cap, f) > 0) {
        struct exchange x;
        if (!read_exchange(line, &x)) {
            drop_exchange(&x);
            fail_msg("%s: a line is no JSON", path);
        }
        judge_exchange(w, &x);
        tell_everybody(w, &x);
        drop_exchange(&x);
    }
    free(line);
    fclose(f);
}

static unsigned replay_folder(struct world *w, const char *folder)
{
    unsigned n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        size_t len = strlen(e->d_name);
        if (len < 6 || strcmp(e->d_name + len - 6, ".jsonl") != 0)
            continue;
        char *path = xasprintf("%s/%s", folder, e->d_name);
        replay_file(w, path);
        free(path);
        n++;
    }
    if (dir)
        closedir(dir);
    return n;
}

int main(int argc, char **argv)
{
    static const char *const sets[] = {"fleet=oh"};
    if (argc != 2) {
        fprintf(stderr, "usage: recordings_daytona FOLDER\n");
        return 2;
    }
    struct world *w = xcalloc(1, sizeof *w);
    world_init_at(w, "DAYTONA_API_URL=http://127.0.0.1:3000/api", JOB, sets, ARRAY_LEN(sets));
    unsigned files = replay_folder(w, argv[1]);
    printf("provider: %u files, %u answers judged, %u of no concern, %u wrong; told %u times\n",
           files, n_judged, n_passed_over, n_wrong, n_told);
    world_free(w);
    return files && n_judged && !n_wrong ? 0 : 1;
}
