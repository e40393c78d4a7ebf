/* The main API but for create and list: one small function for each row of the table.
 *
 * A change of state that is under way makes start, stop and delete answer 409; labels, intervals
 * and visibility can be set in every state, also on a sandbox that is being destroyed, where they
 * are answered with success and help nobody. */
#include "tests/sim/model_impl.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/json.h"

enum { AUTO_ARCHIVE_MAX = 43200, PORT_MAX = 65535 };

/* The sandbox that the path names, or NULL and answered. */
static struct box *find(struct call *c)
{
    const char *which = call_segment(c, 0);
    struct box *b = box_find(c->m, which);
    if (!b) {
        api_error(c, 404, "Sandbox with ID or name %s not found", which);
        return NULL;
    }
    c->box = b;
    box_flush(c->m, b);
    return b;
}

static void answer(struct call *c, int status, const struct box *b, enum dto dto)
{
    reply_json(c, status);
    box_print(c->m, b, dto, &c->re->body);
}

void api_get(struct call *c)
{
    struct box *b = find(c);
    if (b)
        answer(c, 200, b, DTO_FULL);
}

/* ---- lifecycle ---- */

static bool in_error(const struct box *b)
{
    return b->state == S_ERROR || b->state == S_BUILD_FAILED;
}

static bool refuse_pending(struct call *c, const struct box *b)
{
    if (!b->pending)
        return false;
    api_error(c, 409, "Sandbox state change in progress");
    return true;
}

static bool refuse_error(struct call *c, const struct box *b)
{
    if (!in_error(b))
        return false;
    api_error(c, 400, "Sandbox is in an errored state");
    return true;
}

void api_delete(struct call *c)
{
    struct box *b = find(c);
    if (!b)
        return;
    if (b->state != S_PENDING_BUILD && refuse_pending(c, b))
        return;
    if (b->auto_delete != 0)
        violation(c->m, "DELETE of a kept sandbox");
    box_begin_destroy(c->m, b, BY_DELETE);
    answer(c, 200, b, DTO_STOPPED);
}

/* The lease is judged here, at the stop. A KEEP that the database took at the same moment may be
 * overtaken by it: see api_interval. */
void api_stop(struct call *c)
{
    struct box *b = find(c);
    if (!b || refuse_pending(c, b) || refuse_error(c, b))
        return;
    if (b->state != S_STARTED) {
        api_error(c, 400, "Sandbox is not in a stoppable state");
        return;
    }
    if (b->kept_until > c->m->now && model_uniform(c->m) < 0.3)
        box_begin_destroy(c->m, b, BY_STOP);
    else
        box_begin_stop(c->m, b, BY_STOP);
    b->raced_until = c->m->now + from_ms((uint64_t)c->m->race_ms);
    answer(c, 200, b, DTO_STOPPED);
}

static bool quota_refused(struct call *c, const struct box *b)
{
    struct model *m = c->m;
    if (!m->opt.cpu_quota || m->used_cpu + b->cpu <= m->opt.cpu_quota)
        return false;
    api_error(c, 400,
              "Total CPU limit exceeded. Maximum allowed: %d.\nTo increase concurrency limits, "
              "upgrade your organization's Tier by visiting %s/limits.",
              m->opt.cpu_quota, dashboard_url);
    return true;
}

static bool start_refused(struct call *c, struct box *b)
{
    if (c->m->suspended_seen <= c->m->now) {
        api_error(c, 403, "Organization is suspended: Credits depleted");
        return true;
    }
    if (b->state != S_STOPPED && b->state != S_ARCHIVED && b->state != S_ARCHIVING) {
        api_error(c, 400, "Sandbox is not in valid state");
        return true;
    }
    if (!strcmp(c->m->region_rule, "ephemeral") && b->auto_delete != 0) {
        api_error(c, 400, "Only ephemeral sandboxes are permitted in this region");
        return true;
    }
    return quota_refused(c, b);
}

void api_start(struct call *c)
{
    struct box *b = find(c);
    if (!b || refuse_error(c, b))
        return;
    if (b->state == S_STARTED) {
        answer(c, 200, b, DTO_FULL);
        return;
    }
    if ((b->state != S_ARCHIVING && refuse_pending(c, b)) || start_refused(c, b))
        return;
    bool archived = b->state == S_ARCHIVED;
    box_begin_start(c->m, b);
    answer(c, 200, b, DTO_FULL);
    if (!archived)
        box_hold(c->m, b, c, false);
}

void api_recover(struct call *c)
{
    struct box *b = find(c);
    if (!b)
        return;
    if (!in_error(b) || !b->recoverable) {
        api_error(c, 400, "Sandbox is not in a recoverable state");
        return;
    }
    free(b->error_reason);
    b->error_reason = NULL;
    b->recoverable = false;
    b->recovered = true;
    box_begin_start(c->m, b);
    answer(c, 200, b, DTO_FULL);
    box_hold(c->m, b, c, false);
}

void api_archive(struct call *c)
{
    struct box *b = find(c);
    if (!b || refuse_pending(c, b))
        return;
    if (b->state != S_STOPPED) {
        api_error(c, 400, "Sandbox is not stopped");
        return;
    }
    box_begin_archive(c->m, b);
    answer(c, 200, b, DTO_FULL);
}

void api_pause(struct call *c)
{
    if (find(c))
        api_error(c, 422, "Pausing is not supported for this sandbox");
}

void api_resize(struct call *c)
{
    api_error(c, 404, "Cannot %s %s", c->rq->method, c->rq->target);
}

/* ---- what can be set ---- */

void api_labels(struct call *c)
{
    struct box *b = find(c);
    if (!b)
        return;
    const cJSON *labels = json_get(c->body, "labels");
    char *text = labels ? cJSON_PrintUnformatted(labels) : NULL;
    if (text) {
        box_label(c->m, b, text);
        b->updated_ms = wall_ms(c->m);
        answer(c, 200, b, DTO_FULL);
        return;
    }
    struct box seen = *b; /* nothing is stored, but the answer shows none */
    seen.labels = NULL;
    answer(c, 200, &seen, DTO_FULL);
}

/* As the server reads a number from the path: blank counts as 0. */
static bool read_minutes(const char *text, int64_t *out)
{
    text += strspn(text, " \t");
    if (!*text) {
        *out = 0;
        return true;
    }
    return parse_i64(text, strlen(text), INT32_MIN, INT32_MAX, out);
}

/* A KEEP beside a stop or the cron that has not seen it: 409, or 201 with the sandbox as it was,
 * which helps nobody. True: answered. */
static bool keep_overtaken(struct call *c, struct box *b, int64_t minutes)
{
    bool raced = b->raced_until > c->m->now && b->desired == D_DESTROYED;
    if (!raced && !b->doomed)
        return false;
    if (model_uniform(c->m) < (raced ? 0.65 : 0.4)) {
        api_error(c, 409, "Sandbox was modified by another operation");
        return true;
    }
    struct box seen = *b;
    seen.name = b->first_name;
    seen.state = S_STARTED;
    seen.desired = D_STARTED;
    seen.auto_delete = b->auto_delete = minutes;
    answer(c, 201, &seen, DTO_FULL);
    return true;
}

static void set_delete(struct call *c, struct box *b, int64_t minutes)
{
    if (b->gpu && minutes != 0) {
        api_error(c, 400, "GPU sandboxes must remain ephemeral");
        return;
    }
    if (keep_overtaken(c, b, minutes))
        return;
    b->auto_delete = minutes;
    b->kept_until = c->m->now + from_ms((uint64_t)c->m->race_ms);
}

static void set_stop(struct call *c, struct box *b, int64_t minutes)
{
    if (minutes < 0)
        api_error(c, 400, "Auto-stop interval must be non-negative");
    else
        b->auto_stop = minutes;
}

static void set_archive(struct call *c, struct box *b, int64_t minutes)
{
    if (minutes < 0)
        api_error(c, 400, "Auto-archive interval must be non-negative");
    else
        b->auto_archive = minutes == 0 || minutes > AUTO_ARCHIVE_MAX ? AUTO_ARCHIVE_MAX : minutes;
}

void api_interval(struct call *c)
{
    static const struct {
        const char *name;
        void (*set)(struct call *, struct box *, int64_t);
    } intervals[] = {
        {"autostop", set_stop}, {"autoarchive", set_archive}, {"autodelete", set_delete}};
    int64_t minutes;
    struct box *b = find(c);
    if (!b)
        return;
    if (!read_minutes(call_segment(c, 1), &minutes)) {
        api_error(c, 500, "An unexpected error occurred.");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(intervals); i++)
        if (!strcmp(c->segments[c->first + 2], intervals[i].name))
            intervals[i].set(c, b, minutes);
    if (c->re->status)
        return;
    b->updated_ms = wall_ms(c->m);
    if (!b->doomed)
        box_arm_cron(c->m, b);
    answer(c, 201, b, DTO_FULL);
}

void api_public(struct call *c)
{
    struct box *b = find(c);
    if (!b)
        return;
    b->public = !strcmp(call_segment(c, 1), "true");
    answer(c, 201, b, DTO_FULL);
}

void api_activity(struct call *c)
{
    struct box *b = find(c);
    if (!b)
        return;
    box_touch(c->m, b);
    empty_reply(c, 201);
}

/* ---- previews ---- */

/* What parseInt and parseFloat make of it is not refused: only whole numbers are judged. */
static bool port_refused(struct call *c, const char *port)
{
    int64_t n;
    if (!parse_i64(port, strlen(port), INT32_MIN, INT32_MAX, &n) || (n >= 1 && n <= PORT_MAX))
        return false;
    api_error(c, 400, "Invalid port");
    return true;
}

static const char *shown_port(const char *port)
{
    return strspn(port, "0123456789.") == strlen(port) ? port : "NaN";
}

void api_preview(struct call *c)
{
    struct box *b = find(c);
    const char *port = call_segment(c, 1);
    if (!b || port_refused(c, port))
        return;
    bool stale = b->old_token_until > c->m->now;
    int64_t n;
    if (!b->asked_port && parse_i64(port, strlen(port), 1, PORT_MAX, &n))
        b->asked_port = (int)n;
    reply_json(c, 200);
    buf_addf(&c->re->body, "{\"sandboxId\":\"%s\",\"url\":\"http://%s-%s.%s\",\"token\":\"%s\"}",
             b->id, shown_port(port), b->id, c->m->opt.domain, stale ? b->old_token : b->token);
}

static bool read_expiry(struct call *c, int64_t *seconds)
{
    const char *text = call_query(c, "expiresInSeconds");
    *seconds = 60;
    if (!text)
        return true;
    if (!parse_i64(text, strlen(text), INT32_MIN, INT32_MAX, seconds)) {
        api_error(c, 500, "An unexpected error occurred.");
        return false;
    }
    if (*seconds >= 1 && *seconds <= 86400)
        return true;
    api_error(c, 400, "expiresInSeconds must be between 1 second and 24 hours");
    return false;
}

void api_signed(struct call *c)
{
    struct box *b = find(c);
    const char *port = call_segment(c, 1);
    int64_t seconds, number;
    if (!b || port_refused(c, port) || !read_expiry(c, &seconds))
        return;
    if (!parse_i64(port, strlen(port), 1, PORT_MAX, &number)) {
        api_error(c, 400, "Invalid port");
        return;
    }
    struct signed_url *s = xcalloc(1, sizeof *s);
    make_token(c->m, s->token, sizeof s->token - 1, alphabet_signed);
    memcpy(s->id, b->id, ID_SIZE);
    s->port = (int)number;
    s->until = c->m->now + (uint64_t)seconds * NS_PER_S;
    HASH_ADD_STR(c->m->signed_urls, token, s);
    reply_json(c, 200);
    buf_addf(&c->re->body,
             "{\"sandboxId\":\"%s\",\"port\":%d,\"token\":\"%s\",\"url\":\"http://%d-%s.%s\"}",
             b->id, s->port, s->token, s->port, s->token, c->m->opt.domain);
}

void api_signed_expire(struct call *c)
{
    struct signed_url *s = NULL;
    if (!find(c))
        return;
    HASH_FIND_STR(c->m->signed_urls, call_segment(c, 2), s);
    if (s)
        s->until = 0;
    empty_reply(c, 201);
}

void api_toolbox_url(struct call *c)
{
    if (!find(c))
        return;
    reply_json(c, 200);
    buf_addf(&c->re->body, "{\"url\":\"%s/toolbox\"}", c->m->opt.base_url);
}

/* ---- the rest ---- */

void api_config(struct call *c)
{
    const struct model *m = c->m;
    int64_t ttl = m->opt.window_ms / 1000;
    reply_json(c, 200);
    buf_addf(
        &c->re->body,
        "{\"version\":\"0.0.0-dev\",\"oidc\":{\"issuer\":\"http://oidc.example\","
        "\"clientId\":\"daytona\",\"audience\":\"daytona\"},\"linkedAccountsEnabled\":false,"
        "\"announcements\":{},\"proxyTemplateUrl\":\"http://{{PORT}}-{{sandboxId}}.%s\","
        "\"proxyToolboxUrl\":\"%s/toolbox\",\"defaultSnapshot\":\"ubuntu:22.04\","
        "\"dashboardUrl\":\"%s\",\"maxAutoArchiveInterval\":43200,"
        "\"maintananceMode\":false,\"environment\":\"dev\","
        "\"sshGatewayCommand\":\"ssh -p 2222 {{TOKEN}}@localhost\",\"sshGatewayPublicKey\":\"x\",",
        m->opt.domain, m->opt.base_url, dashboard_url);
    buf_addf(&c->re->body,
             "\"rateLimit\":{\"authenticated\":{\"ttl\":%lld,\"limit\":%u},\"sandboxCreate\":{"
             "\"ttl\":%lld,\"limit\":%u},\"sandboxLifecycle\":{\"ttl\":%lld,\"limit\":%u}}}",
             (long long)ttl, m->limits[SCOPE_GENERAL].max, (long long)ttl,
             m->limits[SCOPE_CREATE].max, (long long)ttl, m->limits[SCOPE_LIFECYCLE].max);
}

void api_health(struct call *c)
{
    reply_json(c, 200);
    buf_adds(&c->re->body, "{\"status\":\"ok\"}");
}
