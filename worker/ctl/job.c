/* job: see the header.
 *
 * A job is checked with the very parser the workers use, under the topic's own limits, before it is
 * sent: what a worker would refuse minutes later is told at the prompt, with the field's path.
 * Values of env and the session's key are secrets: no error quotes them. */
#include "worker/ctl/job.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/wire.h"
#include "common/xalloc.h"

static PRINTF_LIKE(2, 3) bool fail(char *error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(error, JOB_ERROR_SIZE, fmt, ap);
    va_end(ap);
    return false;
}

static void replace(cJSON *object, const char *name, cJSON *item)
{
    cJSON_DeleteItemFromObjectCaseSensitive(object, name);
    cJSON_AddItemToObject(object, name, item);
}

/* The object called name in parent, made if it is not there; NULL: it is something else. */
static cJSON *child_object(cJSON *parent, const char *name)
{
    cJSON *child = cJSON_GetObjectItemCaseSensitive(parent, name);
    if (!child)
        child = cJSON_AddObjectToObject(parent, name);
    return cJSON_IsObject(child) ? child : NULL;
}

bool job_set(cJSON *job, const char *path, cJSON *item, char error[JOB_ERROR_SIZE])
{
    char name[64];
    const char *dot;
    for (; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(name, sizeof name, "%.*s", (int)(dot - path), path);
        job = child_object(job, name);
        if (!job) {
            cJSON_Delete(item);
            return fail(error, "%s must be an object", name);
        }
    }
    replace(job, path, item);
    return true;
}

/* The option's value as JSON; NULL: not given. */
static cJSON *option_item(const struct option *o, const void *args, char *error)
{
    char why[JSON_ERROR_SIZE];
    if (o->kind == OPT_INT)
        return option_int(o, args) ? cJSON_CreateNumber((double)option_int(o, args)) : NULL;
    const char *text = option_text(o, args);
    if (!text)
        return NULL;
    if (o->kind != OPT_JSON)
        return cJSON_CreateString(text);
    cJSON *tree = json_parse(text, strlen(text), &json_limits_job, why);
    if (!tree)
        fail(error, "--%s is not JSON: %s", o->name, why);
    return tree;
}

bool job_set_options(cJSON *job, const struct option_table *t, const void *args,
                     char error[JOB_ERROR_SIZE])
{
    error[0] = '\0';
    for (size_t i = 0; i < t->n; i++) {
        const struct option *o = &t->options[i];
        cJSON *item = o->path ? option_item(o, args, error) : NULL;
        if (error[0] || (item && !job_set(job, o->path, item, error)))
            return false;
    }
    return true;
}

/* ---- env ---- */

static bool name_valid(const char *name, size_t len)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
    return len > 0 && strchr(letters, name[0]) && strspn(name, rest) >= len;
}

static bool add_env(cJSON *job, const char *name, const char *value, char *error)
{
    cJSON *env = child_object(job, "env");
    if (!env)
        return fail(error, "env must be an object");
    replace(env, name, cJSON_CreateString(value));
    return true;
}

/* text is "NAME" or "NAME=..."; *value is NULL without a value at all. name is owned. */
static bool split_env(const char *text, char **name, const char **value, char *error)
{
    size_t len = strcspn(text, "=");
    *name = NULL;
    if (!name_valid(text, len))
        return fail(error, "the name before = must be letters, digits and _");
    *name = xmemdup0(text, len);
    *value = text[len] == '=' ? text + len + 1 : getenv(*name);
    return *value || fail(error, "%.80s has no value, and our environment has none either", *name);
}

bool job_add_env_word(cJSON *job, const char *word, char error[JOB_ERROR_SIZE])
{
    CLEANUP(free_ptr) char *name = NULL;
    const char *value = NULL;
    return split_env(word, &name, &value, error) && add_env(job, name, value, error);
}

/* What a backslash and c stand for between double quotes; 0: both stand for themselves. */
static char unescape(char c)
{
    static const char from[] = "nrt\"\\$", to[] = "\n\r\t\"\\$";
    const char *at = c ? strchr(from, c) : NULL;
    return at ? to[at - from] : '\0';
}

/* The quoted text at p, which begins with its quote, is appended; the rest of the line may only be
 * a comment. */
static bool unquote(const char *p, struct buf *out, char *error)
{
    char quote = *p++;
    for (; *p && *p != quote; p++) {
        char c = quote == '"' && *p == '\\' ? unescape(p[1]) : '\0';
        p += c ? 1 : 0;
        buf_addc(out, c ? c : *p);
    }
    if (!*p)
        return fail(error, "the closing quote is missing");
    p += 1 + strspn(p + 1, " \t");
    return !*p || *p == '#' || fail(error, "there is text behind the closing quote");
}

/* Bare: up to " #", without the spaces before it. */
static void add_bare(const char *p, struct buf *out)
{
    const char *comment = *p == '#' ? p : strstr(p, " #");
    size_t len = comment ? (size_t)(comment - p) : strlen(p);
    while (len > 0 && (p[len - 1] == ' ' || p[len - 1] == '\t'))
        len--;
    buf_add(out, p, len);
}

static bool add_env_line(cJSON *job, char *line, char *error)
{
    static const char export[] = "export ";
    line += strspn(line, " \t");
    if (*line == '\0' || *line == '#')
        return true;
    if (strncmp(line, export, strlen(export)) == 0)
        line += strlen(export);
    if (!strchr(line, '='))
        line[strcspn(line, " \t")] = '\0';
    CLEANUP(free_ptr) char *name = NULL;
    const char *value = NULL;
    if (!split_env(line, &name, &value, error))
        return false;
    if (!strchr(line, '='))
        return add_env(job, name, value, error);
    struct buf text;
    buf_init(&text, strlen(value) + 1);
    bool ok = true;
    if (*value == '\'' || *value == '"')
        ok = unquote(value, &text, error);
    else
        add_bare(value, &text);
    ok = ok && add_env(job, name, buf_text(&text), error);
    buf_done(&text);
    return ok;
}

bool job_add_env_text(cJSON *job, const char *text, char error[JOB_ERROR_SIZE])
{
    for (unsigned number = 1; *text; number++) {
        size_t len = strcspn(text, "\n");
        CLEANUP(free_ptr) char *line = xmemdup0(text, len);
        char why[JOB_ERROR_SIZE];
        if (len > 0 && line[len - 1] == '\r')
            line[len - 1] = '\0';
        if (!add_env_line(job, line, why))
            return fail(error, "line %u: %.250s", number, why);
        text += len + (text[len] == '\n');
    }
    return true;
}

/* ---- check ---- */

/* Said before the parser says that the record has no key, which is our part; NULL: it has one. */
static const char *no_session(const cJSON *tree)
{
    const cJSON *id = json_get(tree, "session_id");
    if (!cJSON_IsObject(tree) || (cJSON_IsString(id) && *id->valuestring))
        return NULL;
    if (!id || cJSON_IsNull(id))
        return "session_id must be given";
    return cJSON_IsString(id) ? "session_id must not be empty" : NULL;
}

static char *warn(unsigned unknown, const char *names)
{
    if (unknown == 0)
        return NULL;
    return xasprintf("warning: %u unknown field%s will be ignored: %s", unknown,
                     unknown == 1 ? "" : "s", names ? names : "too long to show");
}

bool job_check(const char *text, size_t len, const struct config *cfg, struct job_verdict *out)
{
    cJSON *tree = json_parse_reply(text, len);
    const char *id = json_str(tree, "session_id", NULL), *no = no_session(tree);
    unsigned unknown = 0;
    *out = (struct job_verdict){.session_id = xstrdup0(id)};
    cJSON_Delete(tree);
    struct record r = {.topic = cfg->topics.jobs,
                       .key = out->session_id,
                       .key_len = out->session_id ? strlen(out->session_id) : 0,
                       .value = text,
                       .value_len = len};
    struct refusal why = {0};
    struct job *job = job_parse(&r, cfg, &why, &unknown);
    out->ok = job != NULL;
    if (job)
        out->warning = warn(unknown, job->unknown);
    else
        fail(out->why, "%s", no ? no : why.message ? why.message : "is not a job");
    refusal_done(&why);
    job_free(job);
    return out->ok;
}

void job_verdict_done(struct job_verdict *v)
{
    free(v->session_id);
    free(v->warning);
    v->session_id = v->warning = NULL;
}
