/* The control paths under /_sim/, the faults they set, and the scenario.
 *
 * None of it is Daytona's. A fault looks at every request but these; the first that matches and is
 * not used up applies. Violations are things that no careful client does, counted by what was seen.
 */
#include "tests/sim/model_impl.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"

void violation(struct model *m, const char *fmt, ...)
{
    struct buf text;
    struct violation *v = NULL;
    va_list ap;
    buf_init(&text, TEXT_MAX);
    va_start(ap, fmt);
    buf_vaddf(&text, fmt, ap);
    va_end(ap);
    HASH_FIND_STR(m->violations, buf_text(&text), v);
    if (!v) {
        v = xcalloc(1, sizeof *v);
        v->text = buf_steal(&text);
        HASH_ADD_KEYPTR(hh, m->violations, v->text, strlen(v->text), v);
    }
    v->n++;
    buf_done(&text);
}

static void plain_json(struct call *c, int status)
{
    c->re->status = status;
    sim_reply_header(c->re, "Content-Type", "application/json");
}

static void ok(struct call *c)
{
    plain_json(c, 200);
    buf_adds(&c->re->body, "{\"ok\":true}");
}

static void bad(struct call *c, const char *why)
{
    plain_json(c, 400);
    buf_adds(&c->re->body, "{\"error\":");
    json_quote(&c->re->body, why, strlen(why));
    buf_addc(&c->re->body, '}');
}

void control_ledger(struct call *c)
{
    plain_json(c, 200);
    model_ledger(c->m, &c->re->body);
}

/* ---- statistics ---- */

static void print_requests(const struct model *m, struct buf *b)
{
    const char *comma = "", *kind;
    uint64_t total = 0;
    buf_adds(b, "\"requests\":{");
    for (size_t i = 0; (kind = route_kind(i)); i++) {
        const struct route_stats *s = &m->stats[i];
        if (!s->n)
            continue;
        buf_addf(b, "%s\"%s\":{", comma, kind);
        for (size_t k = 0; k < s->n; k++) {
            buf_addf(b, "%s\"%d\":%llu", k ? "," : "", s->by_status[k].status,
                     (unsigned long long)s->by_status[k].n);
            total += s->by_status[k].n;
        }
        buf_addc(b, '}');
        comma = ",";
    }
    buf_addf(b, "},\"total\":%llu", (unsigned long long)total);
}

static void print_violations(const struct model *m, struct buf *b)
{
    const char *comma = "";
    buf_adds(b, ",\"violations\":{");
    for (const struct violation *v = m->violations; v; v = v->hh.next) {
        buf_adds(b, comma);
        json_quote(b, v->text, strlen(v->text));
        buf_addf(b, ":%llu", (unsigned long long)v->n);
        comma = ",";
    }
    buf_addc(b, '}');
}

/* Only names of which more than one lived at once would be news, and the API forbids them: what is
 * shown is the label's view, the name being unique. */
static void print_peaks(const struct model *m, struct buf *b)
{
    const char *comma = "";
    buf_adds(b, ",\"peak_live_per_session\":{");
    for (const struct label_set *s = m->sets; s; s = s->hh.next) {
        static const char prefix[] = "OpenHands_SID=";
        if (strncmp(s->key, prefix, sizeof prefix - 1) != 0 || s->peak_live < 2)
            continue;
        buf_adds(b, comma);
        json_quote(b, s->key + sizeof prefix - 1, strlen(s->key) - (sizeof prefix - 1));
        buf_addf(b, ":%u", s->peak_live);
        comma = ",";
    }
    buf_adds(b, "},\"peak_live_per_name\":{");
    comma = "";
    for (const struct name *n = m->names; n; n = n->hh.next) {
        if (n->peak_live < 2)
            continue;
        buf_adds(b, comma);
        json_quote(b, n->text, strlen(n->text));
        buf_addf(b, ":%u", n->peak_live);
        comma = ",";
    }
    buf_addc(b, '}');
}

void control_stats(struct call *c)
{
    const struct model *m = c->m;
    struct buf *b = &c->re->body;
    plain_json(c, 200);
    buf_addc(b, '{');
    print_requests(m, b);
    print_violations(m, b);
    print_peaks(m, b);
    buf_addf(b,
             ",\"sandboxes_made\":%zu,\"live\":%u,\"peak_live\":%u,\"peak_open_requests\":%u,"
             "\"held\":%u,"
             "\"lost\":%llu,\"now_ms\":%llu}",
             m->n_boxes - m->n_pool, m->live, m->peak_live, m->peak_open, HASH_COUNT(m->held),
             (unsigned long long)m->lost, (unsigned long long)wall_ms(m));
}

/* ---- faults ---- */

static bool read_what(const cJSON *f, struct fault *out)
{
    static const char *const names[] = {"lose_answer", "lose_request", "status", "delay_ms"};
    const char *what = json_str(f, "do", "");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i], what) != 0)
            continue;
        out->what = (unsigned)i;
        out->status = (int)json_int(f, "status", 503);
        out->delay_ns = from_ms((uint64_t)json_int(f, "delay_ms", 1000));
        return out->status >= 200 && out->status < 600;
    }
    return false;
}

static bool add_fault(struct model *m, const cJSON *f)
{
    const cJSON *match = json_get(f, "match");
    struct fault fault = {.nth = (unsigned)json_int(match, "nth", 1),
                          .times = (unsigned)json_int(f, "times", 1)};
    if (!read_what(f, &fault))
        return false;
    fault.method = xstrdup0(json_str(match, "method", NULL));
    fault.path = xstrdup0(json_str(match, "path_contains", NULL));
    GROW(m->faults, m->n_faults, m->cap_faults);
    m->faults[m->n_faults++] = fault;
    return true;
}

void control_faults(struct call *c)
{
    cJSON *body = cJSON_ParseWithLength(c->rq->body ? c->rq->body : "", c->rq->body_len);
    const cJSON *f;
    bool good = body != NULL;
    if (cJSON_IsArray(body)) {
        cJSON_ArrayForEach(f, body)
        {
            good = good && add_fault(c->m, f);
        }
    } else if (body) {
        good = add_fault(c->m, body);
    }
    cJSON_Delete(body);
    if (good)
        ok(c);
    else
        bad(c,
            "a fault is {\"match\":{\"method\",\"path_contains\",\"nth\"},\"do\":\"lose_answer\" | "
            "\"lose_request\" | \"status\" | "
            "\"delay_ms\",\"status\":n,\"delay_ms\":n,\"times\":n}");
}

void control_clear_faults(struct call *c)
{
    for (size_t i = 0; i < c->m->n_faults; i++) {
        free(c->m->faults[i].method);
        free(c->m->faults[i].path);
    }
    c->m->n_faults = 0;
    ok(c);
}

static bool fault_matches(const struct fault *f, const struct sim_request *rq)
{
    return (!f->method || !strcmp(f->method, rq->method)) &&
           (!f->path || strstr(rq->target, f->path) || strstr(rq->host, f->path));
}

const struct fault *fault_take(struct model *m, const struct sim_request *rq)
{
    if (!strncmp(rq->target, "/_sim/", 6))
        return NULL;
    for (size_t i = 0; i < m->n_faults; i++) {
        struct fault *f = &m->faults[i];
        if (!f->times || !fault_matches(f, rq) || ++f->seen < f->nth)
            continue;
        f->times--;
        return f;
    }
    return NULL;
}

/* ---- scripts: what a snapshot's name means ---- */

static const char *const boot_names[N_BOOTS] = {"well",       "error", "stuck",
                                                "no_runners", "quota", "not_found"};
static const char *const fate_names[N_FATES] = {"well", "dies", "silent", "wrong_body",
                                                "bad_command"};

static struct script *script_add(struct script **scripts, const char *name)
{
    struct script *s = NULL;
    HASH_FIND_STR(*scripts, name, s);
    if (!s) {
        s = xcalloc(1, sizeof *s);
        s->name = xstrdup(name);
        HASH_ADD_KEYPTR(hh, *scripts, s->name, strlen(s->name), s);
    }
    free(s->reason);
    s->reason = NULL;
    s->boot_ms = s->server_ms = s->stop_ms = -1;
    s->exit_code = 3;
    return s;
}

static void builtin_scripts(struct model *m)
{
    static const struct {
        const char *name;
        enum boot boot;
        enum server_fate server;
        int64_t boot_ms;
    } builtin[] = {
        {"sim-slow", BOOT_WELL, SERVER_WELL, 5000},
        {"sim-dead-server", BOOT_WELL, SERVER_DIES, -1},
        {"sim-never-listens", BOOT_WELL, SERVER_SILENT, -1},
        {"sim-wrong-body", BOOT_WELL, SERVER_WRONG_BODY, -1},
        {"sim-stuck-creating", BOOT_STUCK, SERVER_WELL, -1},
        {"sim-error", BOOT_ERROR, SERVER_WELL, -1},
        {"sim-no-runners", BOOT_NO_RUNNERS, SERVER_WELL, -1},
        {"sim-quota", BOOT_QUOTA, SERVER_WELL, -1},
        {"sim-bad-command", BOOT_WELL, SERVER_BAD_COMMAND, -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(builtin); i++) {
        struct script *s = script_add(&m->snapshots, builtin[i].name);
        s->boot = builtin[i].boot;
        s->server = builtin[i].server;
        s->boot_ms = builtin[i].boot_ms;
    }
}

static bool read_choice(const cJSON *o, const char *name, const char *const *choices, size_t n,
                        unsigned *out)
{
    const char *text = json_str(o, name, choices[0]);
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(choices[i], text)) {
            *out = (unsigned)i;
            return true;
        }
    }
    return false;
}

static bool read_scripts(const cJSON *from, struct script **to, char error[MODEL_ERROR_SIZE])
{
    const cJSON *o;
    cJSON_ArrayForEach(o, from)
    {
        struct script *s = script_add(to, o->string);
        unsigned boot, server;
        if (!read_choice(o, "boot", boot_names, N_BOOTS, &boot) ||
            !read_choice(o, "server", fate_names, N_FATES, &server)) {
            snprintf(error, MODEL_ERROR_SIZE, "scenario: %s: unknown boot or server", o->string);
            return false;
        }
        s->boot = boot;
        s->server = server;
        s->boot_ms = json_int(o, "boot_ms", -1);
        s->server_ms = json_int(o, "server_ms", -1);
        s->stop_ms = json_int(o, "stop_ms", -1);
        s->exit_code = (int)json_int(o, "exit_code", 3);
        s->recoverable = json_bool(o, "recoverable", false);
        s->reason = xstrdup0(json_str(o, "reason", NULL));
    }
    return true;
}

bool scenario_load(struct model *m, const char *text, char error[MODEL_ERROR_SIZE])
{
    builtin_scripts(m);
    if (!text)
        return true;
    cJSON *tree = cJSON_Parse(text);
    bool good = cJSON_IsObject(tree);
    if (!good)
        snprintf(error, MODEL_ERROR_SIZE, "scenario: not a JSON object");
    good = good && read_scripts(json_get(tree, "snapshots"), &m->snapshots, error) &&
           read_scripts(json_get(tree, "sandboxes"), &m->box_scripts, error);
    cJSON_Delete(tree);
    return good;
}

const struct script *script_for(const struct model *m, const char *snapshot, const char *name)
{
    struct script *s = NULL;
    if (name)
        HASH_FIND_STR(m->box_scripts, name, s);
    if (!s && snapshot)
        HASH_FIND_STR(m->snapshots, snapshot, s);
    return s;
}

/* ---- clock and world ---- */

void control_clock(struct call *c)
{
    cJSON *body = cJSON_ParseWithLength(c->rq->body ? c->rq->body : "", c->rq->body_len);
    int64_t seconds = json_int(body, "advance_seconds", -1);
    cJSON_Delete(body);
    if (seconds < 0 || seconds > 366 * 86400) {
        bad(c, "{\"advance_seconds\":n} with 0 <= n <= one year");
        return;
    }
    c->m->skew += (uint64_t)seconds * NS_PER_S;
    c->re->at_ns += (uint64_t)seconds * NS_PER_S;
    ok(c);
}

static void make_zombie(struct model *m, struct box *b)
{
    (void)m;
    b->zombie = !b->zombie;
}

static void make_gpu(struct model *m, struct box *b)
{
    (void)m;
    b->gpu = 1;
}

/* What befalls one sandbox, by id or name. */
static void strike(struct model *m, const cJSON *body)
{
    static const struct {
        const char *what;
        void (*strike)(struct model *, struct box *);
    } strikes[] = {{"crash", box_crash},
                   {"restart_daemon", box_restart_daemon},
                   {"zombie", make_zombie},
                   {"gpu", make_gpu}};
    for (size_t i = 0; i < ARRAY_LEN(strikes); i++) {
        struct box *b = box_find(m, json_str(body, strikes[i].what, ""));
        if (b && b->state == S_STARTED)
            strikes[i].strike(m, b);
    }
}

/* The state of things around the sandboxes, by member: suspended, runner_down (booleans),
 * region_rule
 * ("ephemeral" or ""), cpu_quota, memory_quota, disk_quota, warm (numbers), snapshots and sandboxes
 * (as in a scenario), and the strikes above (a sandbox's id or name). */
void control_world(struct call *c)
{
    struct model *m = c->m;
    cJSON *body = cJSON_ParseWithLength(c->rq->body ? c->rq->body : "", c->rq->body_len);
    if (!cJSON_IsObject(body)) {
        cJSON_Delete(body);
        bad(c, "an object");
        return;
    }
    if (json_get(body, "suspended"))
        m->suspended_seen = json_bool(body, "suspended", false) ? m->now + 7 * NS_PER_S : NEVER;
    m->runner_down = json_bool(body, "runner_down", m->runner_down);
    snprintf(m->region_rule, sizeof m->region_rule, "%s",
             json_str(body, "region_rule", m->region_rule));
    m->opt.cpu_quota = (int)json_int(body, "cpu_quota", m->opt.cpu_quota);
    m->opt.memory_quota = (int)json_int(body, "memory_quota", m->opt.memory_quota);
    m->opt.disk_quota = (int)json_int(body, "disk_quota", m->opt.disk_quota);
    if (json_get(body, "warm")) {
        m->opt.warm = (int)json_int(body, "warm", 0);
        pool_drain(m);
        pool_fill(m);
    }
    strike(m, body);
    char why[MODEL_ERROR_SIZE];
    bool good = read_scripts(json_get(body, "snapshots"), &m->snapshots, why) &&
                read_scripts(json_get(body, "sandboxes"), &m->box_scripts, why);
    cJSON_Delete(body);
    if (good)
        ok(c);
    else
        bad(c, why);
}
