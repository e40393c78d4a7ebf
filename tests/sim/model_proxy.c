/* The proxy in front of the sandboxes: preview hosts and /toolbox/<id>/….
 *
 * It asks in this order: a good API key as bearer, the preview token header, the query, the token
 * in the host. What it learns about a token it keeps, two minutes if good and five seconds if bad,
 * so a token that was asked for too early stays refused for a while, and an old one goes on working
 * after a restart. A refusal is a redirect to the login on a preview host, and 401 on the toolbox
 * path. */
#include "tests/sim/model_impl.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    GOOD_TOKEN_S = 120,
    BAD_TOKEN_S = 5,
    TOUCH_S = 45,
    PORT_TOOLBOX = 2280,
    PORT_TERMINAL = 22222
};

/* ---- who asks ---- */

static struct token_memory *remembered(struct box *b, const char *token, uint64_t now)
{
    for (size_t i = 0; i < N_TOKENS; i++)
        if (b->tokens[i].until > now && !strcmp(b->tokens[i].token, token))
            return &b->tokens[i];
    return NULL;
}

static bool token_good(struct model *m, struct box *b, const char *token)
{
    struct token_memory *t = remembered(b, token, m->now);
    if (t)
        return t->valid;
    bool valid = !strcmp(token, b->token);
    t = &b->tokens[b->next_token++ % N_TOKENS];
    snprintf(t->token, sizeof t->token, "%s", token);
    t->valid = valid;
    t->until = m->now + (valid ? GOOD_TOKEN_S : BAD_TOKEN_S) * NS_PER_S;
    return valid;
}

static bool may_enter(struct call *c, struct box *b)
{
    const char *token = sim_call_header(c, "X-Daytona-Preview-Token");
    if (!token)
        token = call_query(c, "DAYTONA_SANDBOX_AUTH_KEY");
    return key_valid(sim_call_header(c, "Authorization")) || (token && token_good(c->m, b, token));
}

/* ---- whether it can be reached: false and answered when not ---- */

static bool reachable(struct call *c, const struct box *b)
{
    bool answers = !c->m->runner_down && !b->zombie &&
                   b->started_at + from_ms((uint64_t)c->m->daemon_ms) <= c->m->now;
    if (b->state == S_STARTED && !answers)
        empty_reply(c, 502);
    else if (b->state == S_STARTED)
        return true;
    else if (b->state == S_PENDING_BUILD || b->state == S_ARCHIVED)
        go_error(c, 400, "bad request: failed to get runner info: no runner found");
    else if (b->state == S_CREATING || b->state == S_DESTROYING || b->state == S_RESTORING)
        go_error(c, 404, "not found: sandbox container not found: No such container: %s", b->id);
    else
        go_error(c, 400,
                 "bad request: failed to resolve container IP after 3 attempts: no IP "
                 "address found. Is the Sandbox started?");
    return false;
}

static void note_activity(struct call *c, struct box *b)
{
    const char *skip = sim_call_header(c, "X-Daytona-Skip-Last-Activity-Update");
    if ((skip && !strcasecmp(skip, "true")) || b->touch_again_at > c->m->now)
        return;
    b->touch_again_at = c->m->now + TOUCH_S * NS_PER_S;
    box_touch(c->m, b);
}

/* ---- preview hosts ---- */

struct target {
    char label[80]; /* "<port>-<id or signed token>" */
    int port;
    const char *which; /* in label */
    struct box *box;
    bool signed_in;
};

/* The first label of a host under a domain: "8000-…", or anything else with a dash. */
static bool preview_label(const char *host, char label[80])
{
    size_t len = strcspn(host, ".");
    if (host[len] != '.' || len >= 80 || !memchr(host, '-', len))
        return false;
    memcpy(label, host, len);
    label[len] = '\0';
    return true;
}

bool proxy_is_preview(const struct call *c)
{
    char label[80];
    if (!preview_label(c->rq->host, label))
        return false;
    size_t digits = strspn(label, "0123456789"), plain = strcspn(label, "-");
    return (digits && label[digits] == '-') ||
           (strlen(label + plain) == ID_SIZE && label[plain + 9] == '-');
}

static bool find_target(struct call *c, struct target *t)
{
    struct signed_url *s = NULL;
    int64_t port;
    preview_label(c->rq->host, t->label);
    char *dash = strchr(t->label, '-');
    if (!parse_i64(t->label, (size_t)(dash - t->label), 1, 65535, &port))
        return false;
    t->port = (int)port;
    t->which = dash + 1;
    HASH_FIND_STR(c->m->by_id, t->which, t->box);
    if (t->box)
        return true;
    HASH_FIND_STR(c->m->signed_urls, t->which, s);
    if (s && s->until > c->m->now && s->port == t->port) {
        HASH_FIND_STR(c->m->by_id, s->id, t->box);
        t->signed_in = t->box != NULL;
    }
    return true;
}

static void send_to_login(struct call *c)
{
    char *to =
        xasprintf("http://oidc.example/auth?audience=daytona&client_id=daytona&response_type="
                  "code&scope=openid+profile&state=%016llx",
                  (unsigned long long)model_random(c->m));
    char *page = xasprintf("<a href=\"%s\">Temporary Redirect</a>.\n\n", to);
    sim_reply_header(c->re, "Location", to);
    text_reply(c, 307, "text/html; charset=utf-8", page);
    free(page);
    free(to);
}

static bool shows_warning(const struct call *c)
{
    const char *agent = sim_call_header(c, "User-Agent");
    const char *skip = sim_call_header(c, "X-Daytona-Skip-Preview-Warning");
    return agent && strstr(agent, "Mozilla/") && !(skip && !strcasecmp(skip, "true"));
}

static void daemon_answers(struct call *c, struct box *b)
{
    daemon_settle(c->m, b);
    c->route = route_find(c, FAMILY_TOOLBOX);
    if (c->route)
        c->route->handle(c);
    else
        text_reply(c, 404, "text/plain", "404 page not found");
}

static void forward(struct call *c, const struct target *t)
{
    struct box *b = t->box;
    if (!reachable(c, b))
        return;
    note_activity(c, b);
    if (t->port == PORT_TOOLBOX) {
        daemon_answers(c, b);
        return;
    }
    if (t->port == PORT_TERMINAL) {
        text_reply(c, 200, "text/html; charset=utf-8",
                   "<!doctype html>\n<title>Web Terminal</title>\n");
        return;
    }
    const struct proc *p = daemon_listener(c->m, b, t->port);
    if (p)
        server_answer(c, p);
    else
        empty_reply(c, 502);
}

void proxy_preview(struct call *c)
{
    struct target t = {0};
    c->route = &special_routes[KIND_PREVIEW];
    if (!find_target(c, &t)) {
        go_error(c, 404, "not found: not found");
        return;
    }
    c->box = t.box;
    if (!t.box || (box_hidden(t.box) && !t.box->pooled)) {
        send_to_login(c);
        return;
    }
    bool open = t.box->public && t.port != PORT_TOOLBOX && t.port != PORT_TERMINAL;
    if (!open && !t.signed_in && !may_enter(c, t.box))
        send_to_login(c);
    else if (shows_warning(c))
        text_reply(
            c, 200, "text/html; charset=utf-8",
            "<!doctype html>\n<html><head><title>Daytona Preview - Warning</title></head>\n");
    else
        forward(c, &t);
}

/* ---- the toolbox path ---- */

static bool has_credentials(const struct call *c)
{
    return sim_call_header(c, "Authorization") || sim_call_header(c, "X-Daytona-Preview-Token") ||
           call_query(c, "DAYTONA_SANDBOX_AUTH_KEY");
}

/* /toolbox/<id>/… and, of old, /api/toolbox/<id>/toolbox/… */
void proxy_toolbox(struct call *c)
{
    bool old = !strcmp(c->segments[0], "api");
    size_t at = old ? 2 : 1;
    struct box *b = NULL;
    if (c->n_segments <= at + 1) {
        go_error(c, 404, "not found: not found");
        return;
    }
    HASH_FIND_STR(c->m->by_id, c->segments[at], b);
    if (!has_credentials(c)) {
        go_error(c, 401,
                 "unauthorized: missing authentication: provide a preview access token (via "
                 "header, query parameter, or cookie) or use an API key or JWT");
        return;
    }
    if (!b || box_hidden(b) || !may_enter(c, b)) {
        go_error(c, 401, "unauthorized: authentication failed: Bearer token is invalid");
        return;
    }
    c->box = b;
    if (!reachable(c, b))
        return;
    note_activity(c, b);
    c->first = at + 1 + old;
    daemon_answers(c, b);
}
