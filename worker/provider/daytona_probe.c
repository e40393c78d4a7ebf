/* daytona_probe: does the server answer, and does it know our key? See daytona.h.
 *
 * Slot 0 asks the health path through the public url, slot 1 watches the exit code. An exit does
 * not decide anything by itself: another server may hold the port, so slot 1 probes once more
 * before it fetches the log's tail and gives up. Only our own command's exit fails the job.
 *
 * What the proxy says is told from what the server says by the status alone: 3xx is "not let in",
 * 502 "nothing listens", and a 2xx counts only with the right body (a warning page is a 200). A
 * token that was refused stays refused for 5 s. Now and then the sandbox's state is looked at,
 * because a stopped one looks from outside like a slow one. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/secret.h"
#include "common/xalloc.h"
#include "worker/provider/daytona.h"
#include "worker/provider/startup.h"

#define TAIL_EVERY_NS (10 * NS_PER_S)
#define TRIES_MAX 3
#define REDIRECTS_MAX 3
#define VANISHED_MAX 3

/* ---- what a probe sees ---- */

enum sight {
    SIGHT_RIGHT,
    SIGHT_WRONG,    /* 2xx, but not our server's body */
    SIGHT_REDIRECT, /* the proxy does not let us in */
    SIGHT_DENIED,   /* the server does not: 401, 403 */
    SIGHT_MISSING,  /* 404 */
    SIGHT_SILENT    /* nothing there yet */
};

static bool same_json(const cJSON *a, const cJSON *b)
{
    struct buf x, y;
    buf_init(&x, 65536);
    buf_init(&y, 65536);
    if (a && b) {
        json_canonical(&x, a);
        json_canonical(&y, b);
    }
    bool same = a && b && strcmp(buf_text(&x), buf_text(&y)) == 0;
    buf_done(&x);
    buf_done(&y);
    return same;
}

/* Each member of wanted (the text of an object) stands in body with an equal value. */
static bool has_members(const cJSON *body, const char *wanted)
{
    const cJSON *member;
    cJSON *tree = json_parse_reply(wanted, strlen(wanted));
    bool all = cJSON_IsObject(tree) && cJSON_IsObject(body);
    cJSON_ArrayForEach(member, tree)
    {
        all = all && same_json(member, json_get(body, member->string));
    }
    cJSON_Delete(tree);
    return all;
}

static bool is_html(const struct reply *r)
{
    const char *type = reply_header(r, "content-type");
    return type && strncasecmp(type, "text/html", 9) == 0;
}

static bool body_right(const struct turn *t, const char *wanted)
{
    return wanted ? has_members(t->json, wanted) : !is_html(t->reply);
}

static enum sight sight_of(const struct turn *t, bool right)
{
    int status = t->reply->status;
    if (t->reply->fault != FAULT_NONE)
        return SIGHT_SILENT;
    if (is_2xx(t->reply))
        return right ? SIGHT_RIGHT : SIGHT_WRONG;
    if (status == 401 || status == 403)
        return SIGHT_DENIED;
    if (status == 404)
        return SIGHT_MISSING;
    return status / 100 == 3 ? SIGHT_REDIRECT : SIGHT_SILENT;
}

void health_now(const struct deal *d, const struct daytona_box *b, struct health *out)
{
    startup_health(d->job, out);
    if (!b->older_health || !out->older_path)
        return;
    out->path = out->older_path;
    out->json = out->older_json;
}

static enum sight health_sight(const struct turn *t)
{
    struct health h;
    health_now(t->deal, t->box, &h);
    return sight_of(t, body_right(t, h.json));
}

/* Not let in: a new url and token, a few times, and only then patience. */
static void redirected(struct turn *t)
{
    struct script *s = t->script;
    turn_again(t, PACE_TOKEN, ERR_UNAUTHORIZED, "the preview does not let us in (%d)",
               t->reply->status);
    if (s->redirects++ < REDIRECTS_MAX) {
        s->resume = t->request;
        turn_to(t, R_PREVIEW);
    } else {
        then_check_state(t);
    }
}

static void not_yet(struct turn *t, enum sight sight)
{
    int status = t->reply->status;
    bool silent = t->reply->fault != FAULT_NONE || status == 502;
    if (sight == SIGHT_REDIRECT) {
        redirected(t);
        return;
    }
    if (sight == SIGHT_WRONG)
        turn_again(t, PACE_PROBE, ERR_UNHEALTHY, "the server answers %d with the wrong body",
                   status);
    else if (silent)
        turn_again(t, PACE_PROBE, ERR_SERVER_TIMEOUT, "the server does not answer yet");
    else
        turn_again(t, PACE_PROBE, ERR_UNHEALTHY, "the server answers %d", status);
    if (t->deal->slot == 0)
        then_check_state(t);
}

/* ---- PROBE ---- */

void begin_probe(const struct deal *d, struct daytona_box *b)
{
    struct script *s = &b->script;
    bool answers = d->facts & ANSWERS;
    s->look_ns = s->tail_ns = d->now_ns;
    s->next[0] = answers ? R_ACCEPT : R_PROBE;
    s->next[1] = !answers && b->box.command_id ? R_COMMAND : R_NONE;
}

static void answers(struct turn *t)
{
    t->answer->verdict = OK;
    t->answer->set |= ANSWERS;
    t->script->next[0] = R_ACCEPT;
    t->script->next[1] = R_NONE;
}

/* Servers before 1.12 have no /ready. */
static bool older_is_next(struct turn *t, enum sight sight)
{
    struct health h;
    startup_health(t->deal->job, &h);
    if (sight != SIGHT_MISSING || !h.older_path || t->box->older_health)
        return false;
    t->box->older_health = true;
    turn_to(t, R_PROBE);
    return true;
}

/* Something may run here already; nothing right after a few looks: then we start one. */
static void probe_found(struct turn *t, enum sight sight)
{
    bool patient = sight == SIGHT_REDIRECT || t->reply->fault != FAULT_NONE;
    if (sight == SIGHT_RIGHT) {
        turn_launched(t);
        t->answer->set |= t->answer->set & SERVER ? ANSWERS : 0;
    } else if (patient && t->script->tries++ < TRIES_MAX) {
        not_yet(t, sight);
    } else {
        turn_go(t, first_of_toolbox(t->box));
    }
}

/* The command is over, or its session is gone. Ours: the end. Else there is none: start one. */
static void probe_final(struct turn *t, enum sight sight)
{
    struct daytona_box *b = t->box;
    if (sight == SIGHT_RIGHT) {
        answers(t);
    } else if (b->box.exited && b->own_command) {
        turn_to(t, R_TAIL);
    } else {
        bool vanished = !b->box.exited;
        b->own_command = b->found_running = false;
        set_text(&b->box.command_id, NULL);
        turn_go(t, R_NONE);
        t->answer->clear |= UP;
        if (vanished)
            turn_say(t, ++b->vanished < VANISHED_MAX ? RETRY : REFUSE, ERR_SERVER_EXITED,
                     "the toolbox session has gone, and the server with it");
    }
}

static void probe_first(struct turn *t, enum sight sight)
{
    if (sight == SIGHT_MISSING)
        t->box->older_health = false;
    if (sight == SIGHT_RIGHT)
        answers(t);
    else
        not_yet(t, sight);
}

void judge_probe(struct turn *t)
{
    enum sight sight = health_sight(t);
    if (older_is_next(t, sight))
        return;
    if (t->deal->phase == LAUNCH)
        probe_found(t, sight);
    else if (t->deal->slot == 1)
        probe_final(t, sight);
    else
        probe_first(t, sight);
}

/* ---- the exit code ---- */

static bool command_unknown(const struct turn *t)
{
    const char *words = json_str(t->json, "message", "");
    return t->reply->status == 404 &&
           (in_words(words, "session not found") || in_words(words, "command not found"));
}

/* A server that is slow may never come: its last words so far are kept for the event. */
static void command_runs(struct turn *t)
{
    bool due = t->deal->now_ns - t->script->tail_ns >= TAIL_EVERY_NS;
    turn_next(t, due ? R_TAIL : R_COMMAND);
    turn_again(t, PACE_WATCH, ERR_NONE, "the server's command runs");
}

void judge_command(struct turn *t)
{
    const cJSON *code = json_get(t->json, "exitCode");
    struct box *b = &t->box->box;
    if (is_2xx(t->reply) && cJSON_IsNumber(code)) {
        b->exited = true;
        b->exit_code = (int)json_int(t->json, "exitCode", -1);
        turn_to(t, R_PROBE);
    } else if (command_unknown(t)) {
        turn_to(t, R_PROBE);
    } else {
        command_runs(t);
    }
}

static void judge_exit(struct turn *t)
{
    int code = t->box->box.exit_code;
    turn_say(t, REFUSE, code == 126 || code == 127 ? ERR_BAD_COMMAND : ERR_SERVER_EXITED,
             "the server exited with code %d", code);
    t->answer->http_status = 0;
}

void judge_tail(struct turn *t)
{
    struct box *b = &t->box->box;
    if (is_2xx(t->reply) && json_int(t->json, "exitCode", -1) == 0)
        set_text(&b->log_tail, json_str(t->json, "result", NULL));
    t->script->tail_ns = t->deal->now_ns;
    if (b->exited)
        judge_exit(t);
    else
        command_runs(t);
}

/* ---- the session key ---- */

static char *signed_key(const struct deal *d, size_t i)
{
    const char *secret = d->provider->keys[i], *id = d->box->id;
    char text[HMAC_TEXT_SIZE];
    hmac_sha256_text(secret, strlen(secret), id, strlen(id), text);
    return xstrdup(text);
}

char *launch_key(const struct deal *d)
{
    const char *given = d->job->session_api_key;
    return given ? xstrdup(given) : signed_key(d, 0);
}

static bool secret_is_labelled(const struct deal *d, const struct daytona_box *b, size_t i)
{
    char id[KEY_ID_LEN + 1];
    key_id(d->provider->keys[i], id);
    return b->label_key && strcmp(b->label_key, id) == 0;
}

/* The i-th source of a key, most likely first: what we launched with, the job's, the labelled
 * secret's, all others'. NULL: it has none. */
static char *key_source(const struct deal *d, const struct daytona_box *b, size_t i)
{
    size_t n = d->provider->n_keys;
    if (i == 0)
        return b->own_command ? xstrdup0(b->box.session_key) : NULL;
    if (i == 1)
        return xstrdup0(d->job->session_api_key);
    bool first_round = i - 2 < n;
    size_t key = first_round ? i - 2 : i - 2 - n;
    return secret_is_labelled(d, b, key) == first_round ? signed_key(d, key) : NULL;
}

char *candidate_key(const struct deal *d, const struct daytona_box *b, size_t *index)
{
    for (; *index < 2 + 2 * d->provider->n_keys; ++*index) {
        char *key = key_source(d, b, *index);
        if (key)
            return key;
    }
    return NULL;
}

/* What the server may say to the right key. A V0 server without VSCode's route says 404 then, and
 * 403 to a wrong one. */
static bool accepts(const struct turn *t)
{
    const struct job *job = t->deal->job;
    struct health h;
    startup_health(job, &h);
    if (job->server.kind == SERVER_V0)
        return (is_2xx(t->reply) && json_get(t->json, "token")) ||
               (t->reply->status == 404 && json_get(t->json, "detail"));
    if (job->server.kind == SERVER_V1)
        return is_2xx(t->reply) && t->json;
    return is_2xx(t->reply) && body_right(t, h.json);
}

static void key_accepted(struct turn *t)
{
    struct box *b = &t->box->box;
    char *key = candidate_key(t->deal, t->box, &t->script->key);
    set_secret(&b->session_key, key);
    if (t->deal->job->server.kind == SERVER_V0) {
        const char *token =
            json_str(t->json, "token", NULL); /* a sandbox's own word: may be hostile */
        set_secret(&b->vscode_token, token && strlen(token) <= TOKEN_MAX ? token : NULL);
    }
    if (t->deal->job->server.kind == SERVER_V1)
        set_secret(&b->vscode_token, key);
    if (!b->vscode_token) /* no VSCode in that image */
        set_text(&b->vscode_url, NULL);
    secret_wipe(key);
    t->answer->verdict = OK;
    t->answer->set |= ACCEPTS;
}

static void key_denied(struct turn *t)
{
    size_t *index = &t->script->key;
    secret_wipe(candidate_key(t->deal, t->box, index)); /* index: of the one that was tried */
    ++*index;
    char *key = candidate_key(t->deal, t->box, index);
    if (key)
        turn_to(t, R_ACCEPT);
    else
        turn_say(t, REFUSE, ERR_UNAUTHORIZED,
                 "the server accepts none of our session keys: stop-session, then start-session");
    secret_wipe(key);
}

void judge_accept(struct turn *t)
{
    bool right = accepts(t);
    enum sight sight = right ? SIGHT_RIGHT : sight_of(t, false);
    if (sight == SIGHT_RIGHT)
        key_accepted(t);
    else if (sight == SIGHT_DENIED)
        key_denied(t);
    else
        not_yet(t, sight);
}
