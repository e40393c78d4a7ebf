/* daytona_launch: starting the server in a sandbox, and its urls. See daytona.h.
 *
 * LAUNCH: slot 0 makes a toolbox session and runs the startup line in it, slot 1 fetches the
 * preview urls; SERVER holds when both are done. In a sandbox that ran before this job did anything
 * a server may be up already: then the url comes first and a probe decides.
 *
 * An exec is not idempotent and a toolbox session runs one command at a time. So after a lost
 * answer, or when the session was there before, its commands are read: one more than before is
 * ours; one that still runs is adopted; what has ended is history. */
#include <stdlib.h>
#include <string.h>

#include "common/secret.h"
#include "common/xalloc.h"
#include "worker/provider/daytona.h"

#define LOOK_EVERY_NS (5 * NS_PER_S)
#define ROTATION_NS (1 * NS_PER_S)

/* ---- which urls ---- */

static bool has_vscode(const struct job *job)
{
    bool openhands = job->server.kind == SERVER_V0 || job->server.kind == SERVER_V1;
    return openhands && job->server.vscode_port > 0;
}

bool port_wanted(const struct job *job, size_t i, const char **name, int *port)
{
    size_t n_fixed = job->server.kind == SERVER_NONE ? 0 : has_vscode(job) ? 2 : 1;
    if (i >= n_fixed + job->server.n_expose)
        return false;
    if (i < n_fixed) {
        *name = i == 0 ? "AGENT_SERVER" : "VSCODE";
        *port = i == 0 ? job->server.port : job->server.vscode_port;
    } else {
        *name = job->server.expose[i - n_fixed].name;
        *port = job->server.expose[i - n_fixed].port;
    }
    return true;
}

static bool urls_complete(const struct turn *t)
{
    const char *name;
    int port;
    return !port_wanted(t->deal->job, t->box->box.n_urls, &name, &port);
}

void drop_urls(struct box *b)
{
    for (size_t i = 0; i < b->n_urls; i++) {
        free(b->urls[i].name);
        free(b->urls[i].url);
    }
    free(b->urls);
    b->urls = NULL;
    b->n_urls = 0;
}

/* ---- LAUNCH ---- */

void toolbox_session(const struct job *job, char out[TOOLBOX_SESSION_SIZE])
{
    static const char prefix[] = "sw-";
    memcpy(out, prefix, sizeof prefix);
    sha256_hex(job->session_id, strlen(job->session_id), out + strlen(prefix), 16);
}

enum request first_of_toolbox(const struct daytona_box *b)
{
    return b->toolbox_url ? R_SESSION_CREATE : R_CONFIG;
}

void begin_launch(const struct deal *d, struct daytona_box *b)
{
    struct script *s = &b->script;
    const char *name;
    int port;
    drop_urls(&b->box);
    s->look_ns = d->now_ns;
    s->launched = d->job->server.kind == SERVER_NONE;
    s->next[0] = s->launched || b->found_running ? R_NONE : first_of_toolbox(b);
    s->next[1] = port_wanted(d->job, 0, &name, &port) ? R_PREVIEW : R_NONE;
}

/* SERVER when the last of the two slots is done. */
static void launch_goes_on(struct turn *t)
{
    if (!t->script->launched || !urls_complete(t))
        return;
    t->answer->verdict = OK;
    t->answer->set |= SERVER;
    if (t->deal->job->server.kind == SERVER_NONE)
        t->answer->set |= ANSWERS | ACCEPTS;
}

void turn_launched(struct turn *t)
{
    t->script->launched = true;
    turn_go(t, R_NONE);
    launch_goes_on(t);
}

void judge_config(struct turn *t)
{
    const char *url = json_str(t->json, "proxyToolboxUrl", "");
    if (!url_valid(t->deal->provider, url)) {
        turn_say(t, REFUSE, ERR_PROVIDER_PROTOCOL, "Daytona names no toolbox url that can be used");
        return;
    }
    set_text(&t->box->toolbox_url, url);
    turn_go(t, R_SESSION_CREATE);
}

void judge_session_create(struct turn *t)
{
    t->box->n_commands = 0;
    t->box->exec_lost = false;
    turn_go(t, R_EXEC);
}

void then_commands(struct turn *t)
{
    turn_next(t, R_SESSION_GET);
}

void then_create_session(struct turn *t)
{
    turn_next(t, R_SESSION_CREATE);
}

void then_reset_session(struct turn *t)
{
    if (t->script->reset) {
        turn_say(t, REFUSE, ERR_LAUNCH_FAILED, "the toolbox session dies again and again");
        return;
    }
    t->script->reset = true;
    turn_next(t, R_SESSION_DELETE);
}

void judge_session_delete(struct turn *t)
{
    turn_go(t, R_SESSION_CREATE);
}

static void take_command(struct turn *t, const char *id, bool own)
{
    set_text(&t->box->box.command_id, id);
    t->box->own_command = own;
    t->box->exec_lost = false;
    t->box->box.exited = false;
    turn_launched(t);
}

static const cJSON *running_command(const cJSON *commands)
{
    const cJSON *command;
    cJSON_ArrayForEach(command, commands)
    {
        if (!cJSON_IsNumber(json_get(command, "exitCode")))
            return command;
    }
    return NULL;
}

static bool is_own(const struct daytona_box *b, const char *id)
{
    return b->own_command && b->box.command_id && strcmp(b->box.command_id, id) == 0;
}

void judge_session_get(struct turn *t)
{
    struct daytona_box *b = t->box;
    const cJSON *commands = json_get(t->json, "commands");
    size_t n = (size_t)cJSON_GetArraySize(commands);
    bool ours = b->exec_lost && n > b->n_commands; /* the answer was lost, not the exec */
    const cJSON *command =
        ours ? cJSON_GetArrayItem(commands, (int)n - 1) : running_command(commands);
    const char *id = json_str(command, "id", "");
    if (!cJSON_IsObject(t->json) || (command && !id_valid(id))) {
        turn_not_understood(t);
    } else if (command) {
        take_command(t, id, ours || is_own(b, id));
    } else {
        b->n_commands = n;
        b->exec_lost = false;
        turn_go(t, R_EXEC);
    }
}

void judge_exec(struct turn *t)
{
    const char *id = json_str(t->json, "cmdId", "");
    if (id_valid(id))
        take_command(t, id, true);
    else
        turn_not_understood(t);
}

/* ---- preview urls ---- */

static void keep_url(struct box *b, size_t i, const char *name, int port, const char *url)
{
    size_t len = strlen(url);
    if (i == b->n_urls) {
        b->urls = xrealloc(b->urls, b->n_urls + 1, sizeof *b->urls);
        b->urls[b->n_urls++] = (struct box_url){.port = port};
    }
    while (len > 0 && url[len - 1] == '/')
        len--;
    free(b->urls[i].url);
    b->urls[i].url = xmemdup0(url, len);
    set_text(&b->urls[i].name, name);
}

size_t preview_index(const struct deal *d)
{
    return d->phase == LAUNCH && d->slot == 1 ? d->box->n_urls : 0;
}

static void take_preview(struct turn *t, const char *url)
{
    const struct job *job = t->deal->job;
    struct box *b = &t->box->box;
    const char *name = NULL;
    int port = 0;
    size_t i = preview_index(t->deal);
    ASSERT(port_wanted(job, i, &name, &port));
    keep_url(b, i, name, port, url);
    if (i == 0 && job->server.kind != SERVER_NONE)
        set_text(&b->url, b->urls[i].url);
    if (i == 1 && has_vscode(job))
        set_text(&b->vscode_url, b->urls[i].url);
}

/* A new token is worth a probe at once; the proxy remembers for 5 s that it refused the old one. */
static void preview_refreshed(struct turn *t, bool new_token)
{
    if (new_token)
        turn_to(t, t->script->resume);
    else
        turn_again(t, PACE_TOKEN, ERR_UNAUTHORIZED, "the preview refuses its own token");
    turn_next(t, t->script->resume);
}

/* With the first url of a running sandbox the look for a server begins. */
static void preview_fetched(struct turn *t)
{
    struct script *s = t->script;
    if (!s->launched && t->box->found_running && s->next[0] == R_NONE)
        s->next[0] = R_PROBE;
    turn_to(t, urls_complete(t) ? R_NONE : R_PREVIEW);
    launch_goes_on(t);
}

static bool token_fresh(const struct turn *t)
{
    uint64_t since = t->box->restarted_ns;
    return since == 0 || t->deal->now_ns - since >= ROTATION_NS;
}

void judge_preview(struct turn *t)
{
    const char *url = json_str(t->json, "url", "");
    const char *token = json_str(t->json, "token", "");
    struct box *b = &t->box->box;
    if (!cJSON_IsObject(t->json)) {
        turn_not_understood(t);
    } else if (!url_valid(t->deal->provider, url) || !header_value_valid(token) ||
               strlen(token) > TOKEN_MAX) {
        turn_say(t, REFUSE, ERR_PROVIDER_PROTOCOL, "Daytona names no preview url that can be used");
    } else if (!token_fresh(t)) {
        turn_again(t, PACE_ROTATION, ERR_NONE, "the preview token may be the one before the start");
    } else {
        bool new_token = !b->preview_token || strcmp(b->preview_token, token) != 0;
        take_preview(t, url);
        set_secret(&b->preview_token, token);
        if (t->deal->phase == LAUNCH && t->deal->slot == 1)
            preview_fetched(t);
        else
            preview_refreshed(t, new_token);
    }
}

/* ---- looking at the sandbox now and then ---- */

void then_check_now(struct turn *t)
{
    if (t->deal->slot != 0)
        return;
    t->script->resume = t->script->next[0];
    turn_next(t, R_GET_ID);
}

void then_check_state(struct turn *t)
{
    if (t->deal->now_ns - t->script->look_ns >= LOOK_EVERY_NS)
        then_check_now(t);
}

void alive_seen(struct turn *t)
{
    t->script->look_ns = t->deal->now_ns;
    if (!look_again_or_lost(t))
        turn_to(t, t->script->resume);
}
