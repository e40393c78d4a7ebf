/* sessionctl stop and delete: the same job with another type, for one session or several. */
#include <stdlib.h>
#include <string.h>

#include "common/secret.h"
#include "worker/ctl/ctl.h"
#include "worker/ctl/dispatch.h"
#include "worker/ctl/job.h"

#define OPERANDS_MAX 1000

struct stop_args {
    struct sending sending;
    const char *sandbox, *provider, *tenant, *metadata;
    int64_t timeout;
};

#define AT(member) offsetof(struct stop_args, member)
/* clang-format off */
static const struct option options[] = {
    {"sandbox", 0, OPT_TEXT, AT(sandbox), "ID",
     "this very sandbox (default: the session's)", "sandbox.id", 0, 0},
    {"provider", 0, OPT_TEXT, AT(provider), "NAME",
     "where the session runs (default: the first)", "provider", 0, 0},
    {"tenant", 0, OPT_TEXT, AT(tenant), "NAME", "log field and event field", "tenant", 0, 0},
    {"timeout", 0, OPT_INT, AT(timeout), "S",
     "seconds until it fails (default: the config's)", "timeout_seconds", 1, 86400},
    {"metadata", 0, OPT_JSON, AT(metadata), "JSON",
     "an object that the event repeats", "metadata", 0, 0},
};
/* clang-format on */

/* The job for that session as text; NULL: complained. Owned. */
static char *job_text(const struct stop_args *a, const char *type, const char *session_id)
{
    static const struct option_table table = {options, ARRAY_LEN(options)};
    char why[JOB_ERROR_SIZE];
    char *text = NULL;
    cJSON *job = cJSON_CreateObject();
    if (job_set(job, "type", cJSON_CreateString(type), why) &&
        job_set(job, "session_id", cJSON_CreateString(session_id), why) &&
        job_set_options(job, &table, a, why))
        text = cJSON_PrintUnformatted(job);
    else
        complain("%s", why);
    cJSON_Delete(job);
    return text;
}

static bool check(const struct stop_args *a, const char *type, const struct config *cfg)
{
    bool ok = true;
    for (size_t i = 0; i < a->sending.common.operands.n && ok; i++) {
        struct job_verdict v;
        char *text = job_text(a, type, a->sending.common.operands.items[i]);
        if (!text)
            return false;
        ok = job_check(text, strlen(text), cfg, &v);
        if (!ok)
            complain("nothing sent: %s: %s", a->sending.common.operands.items[i], v.why);
        job_verdict_done(&v);
        free(text);
    }
    return ok;
}

static enum ctl_exit send_all(const struct stop_args *a, const char *type, struct dispatch *d)
{
    enum ctl_exit code = CTL_OK;
    for (size_t i = 0; i < a->sending.common.operands.n && !code; i++) {
        const char *id = a->sending.common.operands.items[i];
        char *text = job_text(a, type, id);
        code = text ? dispatch_send(d, id, text, strlen(text)) : CTL_USAGE;
        free(text);
    }
    return code;
}

static enum ctl_exit run_type(const struct stop_args *a, const char *type)
{
    struct config cfg;
    struct dispatch d;
    if (a->sending.common.operands.n == 0)
        return complain("which session? sessionctl %.*s SESSION", (int)strcspn(type, "-"), type),
               CTL_USAGE;
    if (!ctl_client_config(&a->sending.common, &cfg))
        return CTL_USAGE;
    enum ctl_exit code = CTL_USAGE;
    if (check(a, type, &cfg)) {
        int64_t timeout = a->timeout ? a->timeout : cfg.jobs.timeout_seconds;
        code = dispatch_open(&d, &cfg, &a->sending);
        if (!code)
            code = send_all(a, type, &d);
        if (!code)
            code = dispatch_finish(&d, timeout);
        dispatch_close(&d);
    }
    config_done(&cfg);
    return code;
}

static enum ctl_exit run_stop(void *args)
{
    return run_type(args, "stop-session");
}

static enum ctl_exit run_delete(void *args)
{
    return run_type(args, "delete-session");
}

const struct verb verb_stop = {
    .name = "stop",
    .synopsis = "SESSION... [OPTION]...",
    .summary = "stop a session's sandbox, keeping its disk",
    .notes = "It also cancels starts of the session that are still under way.\n",
    .tables = {{options, ARRAY_LEN(options)}, {sending_options, N_SENDING_OPTIONS}},
    .args_size = sizeof(struct stop_args),
    .max_operands = OPERANDS_MAX,
    .run = run_stop,
};

const struct verb verb_delete = {
    .name = "delete",
    .synopsis = "SESSION... [OPTION]...",
    .summary = "delete a session's sandbox and all that is in it",
    .notes = "It also cancels starts of the session that are still under way. A sandbox that a "
             "later job\n"
             "made is spared, unless --sandbox names it.\n",
    .tables = {{options, ARRAY_LEN(options)}, {sending_options, N_SENDING_OPTIONS}},
    .args_size = sizeof(struct stop_args),
    .max_operands = OPERANDS_MAX,
    .run = run_delete,
};
