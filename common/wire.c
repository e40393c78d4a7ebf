/* wire: the names of version 1 and the life of what a message holds. See the header.
 *
 * Each closed set is one table here, indexed by its enum; metrics, logs, events and the parser all
 * take their words from it. */
#include "common/wire.h"

#include <stdlib.h>
#include <string.h>

#include "common/secret.h"
#include "common/wire_fields.h"
#include "common/xalloc.h"

static const char *const step_names[N_STEPS] = {
    [STEP_QUEUE] = "queue",     [STEP_FIND] = "find",     [STEP_CREATE] = "create",
    [STEP_START] = "start",     [STEP_LAUNCH] = "launch", [STEP_PROBE] = "probe",
    [STEP_KEEP] = "keep",       [STEP_STOP] = "stop",     [STEP_DELETE] = "delete",
    [STEP_PUBLISH] = "publish",
};

/* final: the same job fails the same way however often it is sent. */
static const struct {
    const char *name;
    bool final;
} errors[N_ERRORS] = {
    [ERR_NONE] = {"none", true},
    [ERR_INVALID_JOB] = {"invalid_job", true},
    [ERR_EXPIRED] = {"expired", true},
    [ERR_UNSUPPORTED] = {"unsupported", true},
    [ERR_SESSION_EXISTS] = {"session_exists", true},
    [ERR_NOT_FOUND] = {"not_found", true},
    [ERR_UNAUTHORIZED] = {"unauthorized", true},
    [ERR_FORBIDDEN] = {"forbidden", true},
    [ERR_QUOTA_EXCEEDED] = {"quota_exceeded", false},
    [ERR_NO_CAPACITY] = {"no_capacity", false},
    [ERR_RATE_LIMITED] = {"rate_limited", false},
    [ERR_SNAPSHOT_NOT_FOUND] = {"snapshot_not_found", true},
    [ERR_CREATE_FAILED] = {"create_failed", false},
    [ERR_START_FAILED] = {"start_failed", false},
    [ERR_START_TIMEOUT] = {"start_timeout", false},
    [ERR_LAUNCH_FAILED] = {"launch_failed", false},
    [ERR_BAD_COMMAND] = {"bad_command", true},
    [ERR_SERVER_EXITED] = {"server_exited", false},
    [ERR_SERVER_TIMEOUT] = {"server_timeout", false},
    [ERR_UNHEALTHY] = {"unhealthy", false},
    [ERR_PROVIDER_UNAVAILABLE] = {"provider_unavailable", false},
    [ERR_PROVIDER_PROTOCOL] = {"provider_protocol", false},
    [ERR_DEADLINE_EXCEEDED] = {"deadline_exceeded", false},
    [ERR_CANCELLED] = {"cancelled", true},
    [ERR_POISON] = {"poison", true},
    [ERR_INTERNAL] = {"internal", false},
};

const char *step_name(enum step step)
{
    ASSERT((unsigned)step < N_STEPS);
    return step_names[step];
}

const char *error_name(enum error_code code)
{
    ASSERT((unsigned)code < N_ERRORS);
    return errors[code].name;
}

bool error_retryable(enum error_code code)
{
    ASSERT((unsigned)code < N_ERRORS);
    return !errors[code].final;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool session_id_valid(const char *id, size_t len)
{
    if (len == 0 || len > SESSION_ID_MAX || !is_alnum(id[0]))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!is_alnum(id[i]) && id[i] != '.' && id[i] != '_' && id[i] != '-')
            return false;
        if (i + 4 <= len && strncasecmp(id + i, "www.", 4) == 0)
            return false; /* Daytona refuses it anywhere in a sandbox's name */
    }
    return true;
}

void wire_each_secret(const struct job *job, void (*tell)(const char *))
{
    for (size_t i = 0; i < job->n_env; i++)
        tell(job->env[i].value);
    tell(job->session_api_key);
}

static void free_headers(struct header *headers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(headers[i].name);
        free(headers[i].value);
    }
    free(headers);
}

static void free_texts(char **texts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(texts[i]);
    free(texts);
}

static void free_pairs(struct pair *pairs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(pairs[i].name);
        secret_wipe(pairs[i].value);
    }
    free(pairs);
}

static void sandbox_done(struct job *job)
{
    free(job->sandbox.id);
    free(job->sandbox.snapshot);
    free(job->sandbox.image);
    free(job->sandbox.target);
    free(job->sandbox.os_user);
    free_pairs(job->sandbox.labels, job->sandbox.n_labels);
    for (size_t i = 0; i < job->sandbox.n_volumes; i++) {
        free(job->sandbox.volumes[i].id);
        free(job->sandbox.volumes[i].mount_path);
        free(job->sandbox.volumes[i].subpath);
    }
    free(job->sandbox.volumes);
}

static void server_done(struct job *job)
{
    free(job->server.working_dir);
    free(job->server.username);
    free(job->server.browsergym_eval_env);
    free(job->server.git_user_name);
    free(job->server.git_user_email);
    free_texts(job->server.plugins, job->server.n_plugins);
    free_texts(job->server.command, job->server.n_command);
    free(job->server.health_path);
    free(job->server.health_json);
    for (size_t i = 0; i < job->server.n_expose; i++)
        free(job->server.expose[i].name);
    free(job->server.expose);
}

void job_free(struct job *job)
{
    if (!job)
        return;
    if (job->secrets_known)
        wire_each_secret(job, redact_remove);
    free(job->session_id);
    free(job->job_id);
    free(job->event_id);
    free(job->tenant);
    free(job->provider);
    free(job->metadata);
    free(job->spec_hash);
    free(job->unknown);
    sandbox_done(job);
    server_done(job);
    free_pairs(job->env, job->n_env);
    secret_wipe(job->session_api_key);
    free_headers(job->carried, job->n_carried);
    free(job);
}

void refusal_done(struct refusal *why)
{
    free(why->message);
    free(why->session_id);
    free(why->job_id);
    free(why->tenant);
    free(why->metadata);
    *why = (struct refusal){0};
}

void message_done(struct message *m)
{
    free(m->key);
    secret_wipe(m->value);
    free_headers(m->headers, m->n_headers);
    *m = (struct message){0};
}
