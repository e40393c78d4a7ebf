/* job: what a record may hold, as job_parse() sees it.
 *
 * Parts: value, key, then header names and values in turn. No key part: a record without a key; an
 * empty value is read as one and as a tombstone.
 *
 * A job that was read is printed as JSON again and read again: both are the same job. A record that
 * was refused gets a message that does not depend on what its env values are, a failed event and a
 * dead letter with its bytes untouched. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "tests/fuzz/fuzz.h"

#define HEADERS_MAX 16

/* ---- a job as JSON ---- */

static void put_text(cJSON *object, const char *name, const char *text)
{
    if (text)
        cJSON_AddStringToObject(object, name, text);
}

static void put_int(cJSON *object, const char *name, int value, int absent)
{
    if (value != absent)
        cJSON_AddNumberToObject(object, name, value);
}

static void put_time(cJSON *object, const char *name, uint64_t ms)
{
    char text[TIME_TEXT_SIZE];
    if (ms == 0)
        return;
    format_time_ms(ms, text);
    cJSON_AddStringToObject(object, name, text);
}

static void put_pairs(cJSON *object, const char *name, const struct pair *pairs, size_t n)
{
    cJSON *map = cJSON_AddObjectToObject(object, name);
    for (size_t i = 0; i < n; i++)
        cJSON_AddStringToObject(map, pairs[i].name, pairs[i].value);
}

static void put_texts(cJSON *object, const char *name, char *const *texts, size_t n)
{
    cJSON *array = n ? cJSON_AddArrayToObject(object, name) : NULL;
    for (size_t i = 0; i < n; i++)
        cJSON_AddItemToArray(array, cJSON_CreateString(texts[i]));
}

static void put_volumes(cJSON *sandbox, const struct job *j)
{
    cJSON *array = cJSON_AddArrayToObject(sandbox, "volumes");
    for (size_t i = 0; i < j->sandbox.n_volumes; i++) {
        cJSON *v = cJSON_CreateObject();
        put_text(v, "id", j->sandbox.volumes[i].id);
        put_text(v, "mount_path", j->sandbox.volumes[i].mount_path);
        put_text(v, "subpath", j->sandbox.volumes[i].subpath);
        cJSON_AddItemToArray(array, v);
    }
}

static void put_sandbox(cJSON *top, const struct job *j)
{
    static const char *const drifts[] = {[DRIFT_REUSE] = "reuse", [DRIFT_FAIL] = "fail"};
    cJSON *s = cJSON_AddObjectToObject(top, "sandbox");
    put_text(s, "id", j->sandbox.id);
    if (j->type != JOB_START)
        return;
    put_text(s, "snapshot", j->sandbox.snapshot);
    put_text(s, "image", j->sandbox.image);
    put_text(s, "target", j->sandbox.target);
    put_text(s, "os_user", j->sandbox.os_user);
    cJSON *r = j->sandbox.image ? cJSON_AddObjectToObject(s, "resources") : NULL;
    put_int(r, "cpu", j->sandbox.cpu, 0);
    put_int(r, "memory_gib", j->sandbox.memory_gib, 0);
    put_int(r, "disk_gib", j->sandbox.disk_gib, 0);
    cJSON_AddBoolToObject(s, "public", j->sandbox.public);
    put_pairs(s, "labels", j->sandbox.labels, j->sandbox.n_labels);
    put_volumes(s, j);
    put_int(s, "auto_stop_minutes", j->sandbox.auto_stop_minutes, -1);
    put_int(s, "auto_archive_minutes", j->sandbox.auto_archive_minutes, -1);
    put_int(s, "auto_delete_minutes", j->sandbox.auto_delete_minutes, -2);
    put_text(s, "on_drift", drifts[j->sandbox.on_drift]);
}

static void put_health(cJSON *server, const struct job *j)
{
    if (!j->server.health_path)
        return;
    cJSON *h = cJSON_AddObjectToObject(server, "health");
    put_text(h, "path", j->server.health_path);
    if (j->server.health_json)
        cJSON_AddRawToObject(h, "json", j->server.health_json);
}

static void put_expose(cJSON *server, const struct job *j)
{
    cJSON *array = cJSON_AddArrayToObject(server, "expose");
    for (size_t i = 0; i < j->server.n_expose; i++) {
        cJSON *e = cJSON_CreateObject();
        put_text(e, "name", j->server.expose[i].name);
        put_int(e, "port", j->server.expose[i].port, 0);
        cJSON_AddItemToArray(array, e);
    }
}

static void put_server(cJSON *top, const struct job *j)
{
    static const char *const kinds[] = {
        [SERVER_V0] = "v0", [SERVER_V1] = "v1", [SERVER_CUSTOM] = "custom", [SERVER_NONE] = "none"};
    cJSON *s = cJSON_AddObjectToObject(top, "server");
    put_text(s, "kind", kinds[j->server.kind]);
    put_int(s, "port", j->server.port, 0);
    put_int(s, "vscode_port", j->server.vscode_port, 0);
    put_text(s, "working_dir", j->server.working_dir);
    put_texts(s, "plugins", j->server.plugins, j->server.n_plugins);
    put_text(s, "username", j->server.username);
    put_int(s, "user_id", j->server.user_id, -1);
    cJSON_AddBoolToObject(s, "enable_browser", j->server.enable_browser);
    put_text(s, "browsergym_eval_env", j->server.browsergym_eval_env);
    cJSON_AddBoolToObject(s, "debug", j->server.debug);
    cJSON *git = cJSON_AddObjectToObject(s, "git");
    put_text(git, "user_name", j->server.git_user_name);
    put_text(git, "user_email", j->server.git_user_email);
    put_texts(s, "command", j->server.command, j->server.n_command);
    put_health(s, j);
    put_expose(s, j);
}

static void put_timeouts(cJSON *top, const struct job *j)
{
    cJSON *t = cJSON_AddObjectToObject(top, "timeouts");
    put_int(t, "create", (int)j->create_seconds, 0);
    put_int(t, "start", (int)j->start_seconds, 0);
    put_int(t, "launch", (int)j->launch_seconds, 0);
}

static void put_start(cJSON *top, const struct job *j)
{
    static const char *const modes[] = {[MODE_ENSURE] = "ensure",
                                        [MODE_CREATE] = "create",
                                        [MODE_ATTACH] = "attach",
                                        [MODE_RESUME] = "resume"};
    static const char *const failures[] = {
        [FAIL_DELETE] = "delete", [FAIL_STOP] = "stop", [FAIL_KEEP] = "keep"};
    put_text(top, "mode", modes[j->mode]);
    put_server(top, j);
    put_pairs(top, "env", j->env, j->n_env);
    put_text(top, "session_api_key", j->session_api_key);
    put_timeouts(top, j);
    put_time(top, "deadline", j->deadline_ms);
    put_time(top, "expires_at", j->expires_at_ms);
    put_text(top, "on_failure", failures[j->on_failure]);
}

static char *job_print(const struct job *j)
{
    static const char *const types[] = {[JOB_START] = "start-session",
                                        [JOB_STOP] = "stop-session",
                                        [JOB_DELETE] = "delete-session"};
    cJSON *top = cJSON_CreateObject();
    put_text(top, "type", types[j->type]);
    put_text(top, "session_id", j->session_id);
    put_text(top, "job_id", j->job_id);
    put_text(top, "tenant", j->tenant);
    put_text(top, "provider", j->provider);
    put_sandbox(top, j);
    if (j->type == JOB_START)
        put_start(top, j);
    put_int(top, "timeout_seconds", (int)j->timeout_seconds, 0);
    if (j->metadata)
        cJSON_AddRawToObject(top, "metadata", j->metadata);
    char *text = cJSON_PrintUnformatted(top);
    cJSON_Delete(top);
    return text;
}

/* ---- what must hold ---- */

static struct job *parse(const struct record *r, struct refusal *why)
{
    unsigned unknown = 0;
    *why = (struct refusal){0};
    return job_parse(r, fuzz_config(), why, &unknown);
}

static void check_job(const struct job *j, const struct record *r)
{
    struct refusal why;
    char *text = job_print(j);
    struct record again = {.topic = r->topic,
                           .partition = r->partition,
                           .offset = r->offset,
                           .key = j->session_id,
                           .key_len = strlen(j->session_id),
                           .value = text,
                           .value_len = strlen(text)};
    ASSERT(session_id_valid(j->session_id, strlen(j->session_id)));
    ASSERT(*j->job_id && strcmp(j->event_id, "session-jobs/3/42") == 0);
    struct job *second = parse(&again, &why);
    if (!second && again.value_len > (size_t)fuzz_config()->jobs.max_bytes) {
        refusal_done(&why); /* escapes have made it too large */
        free(text);
        return;
    }
    ASSERT(second);
    char *twice = job_print(second);
    ASSERT(strcmp(text, twice) == 0);
    job_free(second);
    free(twice);
    free(text);
}

/* Every env value replaced by x of its length; single quotes stay, since they count when quoted. */
static void mask_env(cJSON *job)
{
    cJSON *env = cJSON_GetObjectItemCaseSensitive(job, "env");
    cJSON *m;
    if (!cJSON_IsObject(env))
        return;
    cJSON_ArrayForEach(m, env)
    {
        for (char *c = cJSON_IsString(m) ? m->valuestring : NULL; c && *c; c++)
            *c = *c == '\'' ? '\'' : 'x';
    }
}

static void check_says_no_value(const struct record *r, const struct refusal *why)
{
    char error[JSON_ERROR_SIZE];
    struct refusal other;
    cJSON *tree = r->value ? json_parse(r->value, r->value_len, &json_limits_job, error) : NULL;
    if (!tree)
        return;
    mask_env(tree);
    mask_env(cJSON_GetObjectItemCaseSensitive(tree, "data"));
    char *text = cJSON_PrintUnformatted(tree);
    struct record masked = *r;
    masked.value = text;
    masked.value_len = strlen(text);
    struct job *job = parse(&masked, &other);
    ASSERT(!job && strcmp(why->message, other.message) == 0);
    refusal_done(&other);
    cJSON_Delete(tree);
    free(text);
}

static void check_failed_event(const struct refusal *why)
{
    struct message m;
    const struct event e = {.type = EVENT_FAILED,
                            .fleet = "oh",
                            .event_id = "session-jobs/3/42",
                            .job_id = why->job_id,
                            .session_id = why->session_id,
                            .tenant = why->tenant,
                            .metadata = why->metadata,
                            .error = {.code = why->code, .message = why->message}};
    event_print(&e, &m);
    cJSON_Delete(check_message(&m));
    message_done(&m);
}

static void check_refused(const struct refusal *why, const struct record *r)
{
    struct message m;
    check_refusal(why->message);
    ASSERT(why->code == ERR_INVALID_JOB || why->code == ERR_UNSUPPORTED);
    ASSERT(!why->session_id || session_id_valid(why->session_id, strlen(why->session_id)));
    if (why->session_id)
        check_failed_event(why);
    dead_letter_print(r, why->code, why->message, &m);
    check_message(&m);
    ASSERT(m.value_len == r->value_len &&
           (m.value_len == 0 || memcmp(m.value, r->value, m.value_len) == 0));
    message_done(&m);
    check_says_no_value(r, why);
}

static void try_record(const struct record *r)
{
    struct refusal why;
    struct job *job = parse(r, &why);
    if (job)
        check_job(job, r);
    else
        check_refused(&why, r);
    refusal_done(&why);
    job_free(job);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct header headers[HEADERS_MAX];
    struct parts parts = parts_of(data, size);
    struct part value = parts_next(&parts), key = parts_next(&parts);
    struct record r = {.topic = "session-jobs",
                       .partition = 3,
                       .offset = 42,
                       .timestamp_ms = UINT64_C(1795507200000),
                       .key = key.text,
                       .key_len = key.len,
                       .value = value.text,
                       .value_len = value.len,
                       .headers = headers,
                       .n_headers = parts_headers(&parts, headers, HEADERS_MAX)};
    try_record(&r);
    if (value.len == 0) {
        r.value = NULL;
        try_record(&r);
    }
    parts_headers_done(headers, r.n_headers);
    return 0;
}
