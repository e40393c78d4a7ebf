/* sessionctl start: one start-session job, or many alike.
 *
 * The job is the --job file (or nothing) with the options laid over it; the table below says which
 * option sets which member. It is checked as a worker would check it before anything is sent.
 * Secrets come from files or our own environment; --env NAME=VALUE exists for values that are none.
 * With --count the sessions are NAME-1 … NAME-n, sent --rate apart while results already come in.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/secret.h"
#include "common/xalloc.h"
#include "worker/ctl/ctl.h"
#include "worker/ctl/dispatch.h"
#include "worker/ctl/job.h"

#define FILE_MAX_BYTES 1000000
#define COUNT_MAX 1000000

struct start_args {
    struct sending sending;
    const char *snapshot, *image, *target, *server, *mode, *provider, *tenant, *on_failure,
        *metadata, *job_file, *key_file;
    struct texts env, env_files;
    int64_t port, timeout, count;
    double rate;
};

#define AT(member) offsetof(struct start_args, member)
/* clang-format off */
static const struct option options[] = {
    {"snapshot", 0, OPT_TEXT, AT(snapshot), "NAME",
     "what the sandbox is made from (default: the config's)", "sandbox.snapshot", 0, 0},
    {"image", 0, OPT_TEXT, AT(image), "IMAGE", "instead of a snapshot", "sandbox.image", 0, 0},
    {"server", 0, OPT_CHOICE, AT(server), "v0|v1|custom|none",
     "the action server (custom: --job)", "server.kind", 0, 0},
    {"port", 0, OPT_INT, AT(port), "N",
     "of the server (default 4444; v1: 8000)", "server.port", 1, 65535},
    {"env-file", 0, OPT_LIST, AT(env_files), "FILE",
     "NAME=VALUE lines for the server; - is stdin", NULL, 0, 0},
    {"env", 0, OPT_LIST, AT(env), "NAME[=VALUE]",
     "NAME: our own value; =VALUE shows in ps: no secrets", NULL, 0, 0},
    {"key-file", 0, OPT_TEXT, AT(key_file), "FILE",
     "the session's API key (default: derived)", NULL, 0, 0},
    {"mode", 0, OPT_CHOICE, AT(mode), "ensure|create|attach|resume", "see below", "mode", 0, 0},
    {"provider", 0, OPT_TEXT, AT(provider), "NAME",
     "one of the workers' config (default: the first)", "provider", 0, 0},
    {"tenant", 0, OPT_TEXT, AT(tenant), "NAME", "label, log field and event field", "tenant", 0, 0},
    {"target", 0, OPT_TEXT, AT(target), "NAME",
     "region (default: the config's list)", "sandbox.target", 0, 0},
    {"timeout", 0, OPT_INT, AT(timeout), "S",
     "seconds until it fails (default: the config's)", "timeout_seconds", 1, 86400},
    {"on-failure", 0, OPT_CHOICE, AT(on_failure), "delete|stop|keep",
     "what becomes of the sandbox then", "on_failure", 0, 0},
    {"metadata", 0, OPT_JSON, AT(metadata), "JSON",
     "an object that every event repeats", "metadata", 0, 0},
    {"job", 0, OPT_TEXT, AT(job_file), "FILE",
     "a job as JSON; the options go over it; - is stdin", NULL, 0, 0},
    {"count", 0, OPT_INT, AT(count), "N",
     "so many sessions: SESSION-1 .. SESSION-N", NULL, 1, COUNT_MAX},
    {"rate", 0, OPT_RATE, AT(rate), "R", "that many a time: 5/s, 300/min", NULL, 0, 0},
};
/* clang-format on */

static cJSON *base_job(const struct start_args *a)
{
    char why[JSON_ERROR_SIZE];
    if (!a->job_file)
        return cJSON_CreateObject();
    char *text = read_text(a->job_file, FILE_MAX_BYTES);
    if (!text)
        return NULL;
    cJSON *job = json_parse(text, strlen(text), &json_limits_job, why);
    secret_wipe(text);
    if (!job)
        complain("%s: %s", a->job_file, why);
    else if (!cJSON_IsObject(job))
        complain("%s: must be a JSON object", a->job_file);
    if (cJSON_IsObject(job))
        return job;
    cJSON_Delete(job);
    return NULL;
}

static bool add_env_file(cJSON *job, const char *path)
{
    char why[JOB_ERROR_SIZE];
    char *text = read_text(path, FILE_MAX_BYTES);
    bool ok = text && job_add_env_text(job, text, why);
    if (text && !ok)
        complain("%s: %s", path, why);
    secret_wipe(text);
    return ok;
}

static bool add_env(cJSON *job, const struct start_args *a)
{
    char why[JOB_ERROR_SIZE];
    for (size_t i = 0; i < a->env_files.n; i++)
        if (!add_env_file(job, a->env_files.items[i]))
            return false;
    for (size_t i = 0; i < a->env.n; i++)
        if (!job_add_env_word(job, a->env.items[i], why))
            return complain("--env: %s", why), false;
    return true;
}

static bool add_key(cJSON *job, const char *path)
{
    char why[JOB_ERROR_SIZE];
    char *key = path ? read_text(path, FILE_MAX_BYTES) : NULL;
    if (!key)
        return !path;
    key[strcspn(key, "\r\n")] = '\0';
    bool ok = *key && job_set(job, "session_api_key", cJSON_CreateString(key), why);
    if (!ok)
        complain("%s: its first line is empty", path);
    secret_wipe(key);
    return ok;
}

/* The job without its session; NULL: complained. */
static cJSON *make_job(const struct start_args *a)
{
    static const struct option_table table = {options, ARRAY_LEN(options)};
    char why[JOB_ERROR_SIZE];
    cJSON *job = base_job(a);
    if (!job)
        return NULL;
    bool ok = job_set(job, "type", cJSON_CreateString("start-session"), why) &&
              job_set_options(job, &table, a, why);
    if (!ok)
        complain("%s", why);
    if (ok && add_env(job, a) && add_key(job, a->key_file))
        return job;
    cJSON_Delete(job);
    return NULL;
}

/* NAME of the command line, else of the job file, else a new one. Owned. */
static char *base_name(const struct start_args *a, const cJSON *job)
{
    unsigned char random[4];
    const char *given = a->sending.common.operands.n ? a->sending.common.operands.items[0]
                                                     : json_str(job, "session_id", NULL);
    if (given)
        return xstrdup(given);
    random_bytes(random, sizeof random);
    return xasprintf("session-%02x%02x%02x%02x", random[0], random[1], random[2], random[3]);
}

struct batch {
    const struct start_args *args;
    cJSON *job;
    char *name;
};

/* The i-th session's id (from 1) goes into the job. Owned. */
static char *job_text(struct batch *b, int64_t i)
{
    char why[JOB_ERROR_SIZE];
    CLEANUP(free_ptr)
    char *id = b->args->count ? xasprintf("%s-%lld", b->name, (long long)i) : xstrdup(b->name);
    ASSERT(job_set(b->job, "session_id", cJSON_CreateString(id), why));
    char *text = cJSON_PrintUnformatted(b->job);
    ASSERT(text);
    return text;
}

/* The last one has the longest id. */
static bool check(struct batch *b, const struct config *cfg)
{
    struct job_verdict v;
    char *text = job_text(b, b->args->count);
    bool ok = job_check(text, strlen(text), cfg, &v);
    if (!ok)
        complain("not sent: %s", v.why);
    else if (v.warning)
        complain("%s", v.warning);
    job_verdict_done(&v);
    secret_wipe(text);
    return ok;
}

static enum ctl_exit send_all(struct batch *b, struct dispatch *d)
{
    enum ctl_exit code = CTL_OK;
    uint64_t begin = now_ms();
    int64_t n = MAX(b->args->count, 1);
    for (int64_t i = 1; i <= n && !code; i++) {
        if (b->args->rate > 0)
            dispatch_until(d, begin + (uint64_t)((double)(i - 1) * 1000 / b->args->rate));
        char *text = job_text(b, i);
        code = dispatch_send(d, json_str(b->job, "session_id", NULL), text, strlen(text));
        secret_wipe(text);
    }
    return code;
}

static enum ctl_exit send_batch(struct batch *b, const struct config *cfg)
{
    struct dispatch d;
    int64_t timeout = json_int(b->job, "timeout_seconds", cfg->jobs.timeout_seconds);
    enum ctl_exit code = dispatch_open(&d, cfg, &b->args->sending);
    if (!code)
        code = send_all(b, &d);
    if (!code)
        code = dispatch_finish(&d, timeout);
    dispatch_close(&d);
    return code;
}

static enum ctl_exit run(void *args)
{
    const struct start_args *a = args;
    struct config cfg;
    if (!ctl_client_config(&a->sending.common, &cfg))
        return CTL_USAGE;
    struct batch b = {.args = a, .job = make_job(a)};
    enum ctl_exit code = CTL_USAGE;
    if (b.job) {
        b.name = base_name(a, b.job);
        if (check(&b, &cfg))
            code = send_batch(&b, &cfg);
    }
    free(b.name);
    cJSON_Delete(b.job);
    config_done(&cfg);
    return code;
}

const struct verb verb_start = {
    .name = "start",
    .synopsis = "[SESSION] [OPTION]...",
    .summary = "start a session: its sandbox, and the action server in it",
    .notes =
        "ensure (default): the session's sandbox if there is one, else a new one; create: fail if\n"
        "there is one; attach: never make one; resume: make one only if the old one is gone.\n"
        "An env file also takes NAME alone (our own value), # comments and quotes.\n",
    .tables = {{options, ARRAY_LEN(options)}, {sending_options, N_SENDING_OPTIONS}},
    .args_size = sizeof(struct start_args),
    .max_operands = 1,
    .run = run,
};
