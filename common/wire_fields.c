/* wire_fields: the members of a job, their types, defaults and limits. See wire.h.
 *
 * One function per object of the message, in the message's order; each begins with the list of the
 * members that it knows. Defaults are written first and replaced by what is there, so "absent",
 * "null" and "" mean the same for an optional text. Faults name the path and what is allowed, never
 * the value: it may be a secret. */
#include "common/wire_fields.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/secret.h"
#include "common/xalloc.h"

#define SECONDS_MAX 86400
#define UNKNOWN_MAX 200 /* bytes of the names of unknown members */

static void name_unknown(struct job *job, const char *path, const char *name)
{
    const char *before = job->unknown ? job->unknown : "";
    if (strlen(before) + strlen(path) + strlen(name) > UNKNOWN_MAX)
        return;
    char *all = xasprintf("%s%s%s%s%s", before, *before ? ", " : "", path, *path ? "." : "", name);
    free(job->unknown);
    job->unknown = all;
}

void wire_note_unknown(struct fields *f, const struct json_reader *r, const char *const *names,
                       size_t n)
{
    for (const cJSON *m = r->object ? r->object->child : NULL; m; m = m->next) {
        size_t i = 0;
        while (i < n && strcmp(m->string, names[i]) != 0)
            i++;
        if (i == n) {
            ++*f->unknown;
            name_unknown(f->job, r->path, m->string);
        }
    }
}

/* ---- members ---- */

/* Replaces *out by the text, unless it is absent or empty. */
void wire_take(struct json_reader *r, const char *name, size_t max, char **out)
{
    const char *text;
    if (!json_read_str(r, name, max, &text) || !*text)
        return;
    free(*out);
    *out = xstrdup(text);
}

void wire_take_int(struct json_reader *r, const char *name, int min, int max, int *out)
{
    int64_t value;
    if (json_read_int(r, name, min, max, &value))
        *out = (int)value;
}

static void take_seconds(struct json_reader *r, const char *name, int max, unsigned *out)
{
    int64_t value;
    if (json_read_int(r, name, 1, max, &value))
        *out = (unsigned)value;
}

/* The object called name as a reader of its own; its members beyond `names` are noted. */
struct json_reader wire_enter(struct fields *f, struct json_reader *r, const char *name,
                              const char *path, const char *const *names, size_t n)
{
    const cJSON *object = NULL;
    json_read_object(r, name, &object);
    struct json_reader inner = {object, path, f->error};
    wire_note_unknown(f, &inner, names, n);
    return inner;
}

bool wire_matches(const char *text, size_t max, const char *allowed)
{
    size_t n = strspn(text, allowed);
    return n > 0 && n <= max && text[n] == '\0';
}

/* A value that goes into a URL or a header: printable ASCII without spaces. */
bool wire_is_token(const char *text)
{
    for (; *text; text++)
        if (*text <= ' ' || *text > '~')
            return false;
    return true;
}

void wire_require_absolute(struct json_reader *r, const char *name, const char *path)
{
    if (path && *path != '/')
        json_fail(r, name, "must begin with /");
}

void wire_add_pair(struct pair **pairs, size_t *n, const char *name, const char *value)
{
    (*pairs)[(*n)++] = (struct pair){xstrdup(name), xstrdup(value)};
}

/* ---- env and the rest ---- */

static bool is_env_name(const char *name)
{
    return wire_matches(name, 256, ALNUM "_") && !(*name >= '0' && *name <= '9');
}

/* Bytes of text in single quotes inside of others (sh -c '…'), where each quote becomes '\''. */
static size_t quoted_size(const char *text)
{
    size_t n = 8;
    for (; *text; text++)
        n += *text == '\'' ? 13 : 1;
    return n;
}

static void read_variable(struct json_reader *r, const cJSON *m, struct job *job)
{
    if (!is_env_name(m->string))
        json_fail(r, m->string, "must be called [A-Za-z_][A-Za-z0-9_]*");
    else if (!cJSON_IsString(m))
        json_fail(r, m->string, "must be a string");
    else if (strlen(m->valuestring) > JOB_ENV_VALUE_MAX)
        json_fail(r, m->string, "must not be longer than %d bytes", JOB_ENV_VALUE_MAX);
    else
        wire_add_pair(&job->env, &job->n_env, m->string, m->valuestring);
}

static void read_env(struct fields *f, struct json_reader *top)
{
    const cJSON *object = NULL;
    struct job *job = f->job;
    if (!json_read_object(top, "env", &object))
        return;
    struct json_reader r = {object, "env", f->error};
    job->env = xcalloc((size_t)cJSON_GetArraySize(object), sizeof *job->env);
    for (const cJSON *m = object->child; m && !json_failed(&r); m = m->next)
        read_variable(&r, m, job);
}

/* Short of the few bytes that the startup line adds of its own; it is measured again when built. */
static void check_command_size(struct fields *f, struct json_reader *top)
{
    const struct job *job = f->job;
    size_t bytes = 0;
    for (size_t i = 0; i < job->n_env; i++)
        bytes += strlen("export =\n") + strlen(job->env[i].name) + quoted_size(job->env[i].value);
    for (size_t i = 0; i < job->server.n_command; i++)
        bytes += quoted_size(job->server.command[i]) + 1;
    if (bytes > JOB_COMMAND_MAX)
        json_fail(top, job->n_env ? "env" : "server.command",
                  "%smust not need more than %d bytes when quoted",
                  job->n_env ? "and the command " : "", JOB_COMMAND_MAX);
}

static void read_timeouts(struct fields *f, struct json_reader *top)
{
    static const char *const names[] = {"create", "start", "launch"};
    struct json_reader r = wire_enter(f, top, "timeouts", "timeouts", names, ARRAY_LEN(names));
    take_seconds(&r, "create", 3600, &f->job->create_seconds);
    take_seconds(&r, "start", 3600, &f->job->start_seconds);
    take_seconds(&r, "launch", 3600, &f->job->launch_seconds);
}

static void read_api_key(struct fields *f, struct json_reader *top)
{
    wire_take(top, "session_api_key", 256, &f->job->session_api_key);
    if (f->job->session_api_key && !wire_is_token(f->job->session_api_key))
        json_fail(top, "session_api_key", "must be printable ASCII without spaces");
}

static void read_metadata(struct fields *f, struct json_reader *top)
{
    const cJSON *object;
    struct buf b;
    if (!json_read_object(top, "metadata", &object))
        return;
    buf_init(&b, JOB_METADATA_MAX);
    json_canonical(&b, object);
    if (b.overflow)
        json_fail(top, "metadata", "must not be larger than %d bytes", JOB_METADATA_MAX);
    f->job->metadata = buf_steal(&b);
}

static void read_provider(struct fields *f, struct json_reader *top)
{
    char names[128] = "";
    wire_take(top, "provider", WIRE_NAME_MAX, &f->job->provider);
    if (!f->job->provider)
        return;
    for (size_t i = 0, len = 0; i < f->cfg->n_providers; i++) {
        if (strcmp(f->cfg->providers[i].name, f->job->provider) == 0)
            return;
        int n = snprintf(names + len, sizeof names - len, "%s%s", i ? ", " : "",
                         f->cfg->providers[i].name);
        len = MIN(len + (size_t)n, sizeof names - 1);
    }
    json_fail(top, "provider", "must be one of %s", names);
}

static void read_common(struct fields *f, struct json_reader *top)
{
    read_provider(f, top);
    wire_take(top, "tenant", WIRE_NAME_MAX, &f->job->tenant);
    take_seconds(top, "timeout_seconds", SECONDS_MAX, &f->job->timeout_seconds);
    read_metadata(f, top);
}

static void read_start(struct fields *f, struct json_reader *top)
{
    static const char *const names[] = {
        "type",       "version",         "session_id",      "job_id",   "mode",
        "provider",   "tenant",          "sandbox",         "server",   "env",
        "timeouts",   "session_api_key", "timeout_seconds", "deadline", "expires_at",
        "on_failure", "metadata"};
    static const char *const modes[] = {[MODE_ENSURE] = "ensure",
                                        [MODE_CREATE] = "create",
                                        [MODE_ATTACH] = "attach",
                                        [MODE_RESUME] = "resume"};
    static const char *const failures[] = {
        [FAIL_DELETE] = "delete", [FAIL_STOP] = "stop", [FAIL_KEEP] = "keep"};
    int mode = MODE_ENSURE, failure = FAIL_DELETE;
    wire_note_unknown(f, top, names, ARRAY_LEN(names));
    json_read_enum(top, "mode", modes, ARRAY_LEN(modes), &mode);
    f->job->mode = (enum job_mode)mode;
    wire_read_sandbox(f, top);
    wire_read_server(f, top);
    read_env(f, top);
    check_command_size(f, top);
    read_api_key(f, top);
    read_timeouts(f, top);
    json_read_time(top, "deadline", &f->job->deadline_ms);
    json_read_time(top, "expires_at", &f->job->expires_at_ms);
    json_read_enum(top, "on_failure", failures, ARRAY_LEN(failures), &failure);
    f->job->on_failure = (enum on_failure)failure;
}

static void read_end(struct fields *f, struct json_reader *top)
{
    static const char *const names[] = {"type",    "version",         "session_id",
                                        "job_id",  "provider",        "tenant",
                                        "sandbox", "timeout_seconds", "metadata"};
    static const char *const members[] = {"id"};
    wire_note_unknown(f, top, names, ARRAY_LEN(names));
    struct json_reader r = wire_enter(f, top, "sandbox", "sandbox", members, ARRAY_LEN(members));
    wire_read_id(f, &r);
}

static void set_defaults(struct job *job, const struct config *cfg)
{
    wire_server_defaults(job);
    job->sandbox.auto_stop_minutes = cfg->sandbox.auto_stop_minutes;
    job->sandbox.auto_archive_minutes = cfg->sandbox.auto_archive_minutes;
    job->sandbox.auto_delete_minutes = cfg->sandbox.auto_delete_minutes;
    job->timeout_seconds = (unsigned)cfg->jobs.timeout_seconds;
    job->create_seconds = (unsigned)cfg->steps.create_seconds;
    job->start_seconds = (unsigned)cfg->steps.start_seconds;
    job->launch_seconds = (unsigned)cfg->steps.launch_seconds;
}

/* ---- the hash ---- */

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The member's canonical text, {} when there is none, without members `but`. */
static void hash_object(struct buf *b, const cJSON *top, const char *name, const char *const *but,
                        size_t n)
{
    const cJSON *object = json_get(top, name);
    for (size_t i = 0; cJSON_IsObject(object) && i < n; i++)
        cJSON_DeleteItemFromObjectCaseSensitive((cJSON *)object, but[i]);
    if (cJSON_IsObject(object))
        json_canonical(b, object);
    else
        buf_adds(b, "{}");
}

/* Consumes the members of sandbox that say nothing of what it is. */
static char *hash_spec(const cJSON *top, const struct job *job)
{
    static const char *const but[] = {"id", "on_drift"};
    CLEANUP(free_ptr) const char **names = xcalloc(job->n_env, sizeof *names);
    struct buf b;
    buf_init(&b, 16 * json_limits_job.max_bytes); /* an escape is at most six bytes for one */
    for (size_t i = 0; i < job->n_env; i++)
        names[i] = job->env[i].name;
    qsort(names, job->n_env, sizeof *names, compare_text);
    hash_object(&b, top, "sandbox", but, ARRAY_LEN(but));
    hash_object(&b, top, "server", NULL, 0);
    for (size_t i = 0; i < job->n_env; i++)
        buf_addf(&b, " %s", names[i]);
    ASSERT(!b.overflow);
    char *hash = xmalloc(17);
    sha256_hex(buf_text(&b), b.len, hash, 16);
    buf_done(&b);
    return hash;
}

void wire_read_fields(struct json_reader *body, const struct config *cfg, struct job *job,
                      unsigned *unknown)
{
    struct fields f = {cfg, job, unknown, body->error};
    set_defaults(job, cfg);
    read_common(&f, body);
    if (job->type == JOB_START)
        read_start(&f, body);
    else
        read_end(&f, body);
    job->spec_hash = hash_spec(body->object, job);
}
