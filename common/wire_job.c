/* wire_job: a record becomes a job or a refusal. See wire.h.
 *
 * A record speaks in three ways: plain JSON; CloudEvents in binary mode, where ce_ headers stand
 * beside a plain body; structured mode, where the whole event is the value and the job its `data`.
 * All three end in the same body and the same few attributes, and are read alike from there.
 *
 * Who the record speaks of (session, job, tenant, metadata) is read first and leniently, so that a
 * refusal can be answered by a failed event however broken the rest is; then everything is read
 * strictly. Refusals say what is wrong and what is allowed, never a value. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/secret.h"
#include "common/wire_fields.h"
#include "common/xalloc.h"

#define TEXT_LIMIT 256     /* bytes of a job id */
#define CARRIED_LIMIT 8192 /* bytes of one carried header; longer ones are not carried */
#define ORIGINAL "session-worker-original"

static const char *const type_names[] = {
    [JOB_START] = "start-session", [JOB_STOP] = "stop-session", [JOB_DELETE] = "delete-session"};

struct parser {
    const struct record *r;
    const struct config *cfg;
    cJSON *tree;           /* owned: the whole value */
    const cJSON *body;     /* the job in it; NULL: cannot be read */
    char *ce_type, *ce_id; /* owned; NULL: none */
    struct json_error error;
    enum error_code code;
    unsigned unknown;
};

/* The first fault stays. */
static PRINTF_LIKE(3, 4) bool refuse(struct parser *p, enum error_code code, const char *fmt, ...)
{
    if (p->error.text[0])
        return false;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->error.text, sizeof p->error.text, fmt, ap);
    va_end(ap);
    p->code = code;
    return false;
}

/* ---- headers ---- */

static const struct header *find_header(const struct record *r, const char *name)
{
    for (size_t i = 0; i < r->n_headers; i++)
        if (strcasecmp(r->headers[i].name, name) == 0)
            return &r->headers[i];
    return NULL;
}

/* The header's text if it is one we may repeat: valid UTF-8 of 1 to TEXT_LIMIT bytes without
 * control bytes. Caller owns it; NULL otherwise. */
static char *header_text(const struct record *r, const char *name)
{
    const struct header *h = find_header(r, name);
    if (!h || h->len == 0 || h->len > TEXT_LIMIT)
        return NULL;
    for (size_t i = 0; i < h->len;) {
        size_t n = utf8_char(h->value + i, h->len - i);
        if (n == 0 || (unsigned char)h->value[i] < 0x20 || h->value[i] == 0x7f)
            return NULL;
        i += n;
    }
    return xmemdup0(h->value, h->len);
}

static void carry_headers(const struct record *r, struct job *job)
{
    static const char *const names[] = {"traceparent", "tracestate", "baggage", "correlation-id"};
    job->carried = xcalloc(ARRAY_LEN(names), sizeof *job->carried);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct header *h = find_header(r, names[i]);
        if (h && h->len <= CARRIED_LIMIT)
            job->carried[job->n_carried++] =
                (struct header){xstrdup(names[i]), xmemdup0(h->value, h->len), h->len};
    }
}

/* ---- from the value to the body ---- */

static bool header_begins(const struct header *h, const char *prefix)
{
    return h && h->len >= strlen(prefix) && strncasecmp(h->value, prefix, strlen(prefix)) == 0;
}

/* application/json, application/anything+json, with or without parameters. */
static bool is_json(const char *text, size_t len)
{
    const char *end = memchr(text, ';', len);
    size_t n = end ? (size_t)(end - text) : len;
    while (n > 0 && text[n - 1] == ' ')
        n--;
    return n > 5 && strncasecmp(text + n - 4, "json", 4) == 0 &&
           (text[n - 5] == '/' || text[n - 5] == '+');
}

/* A CloudEvent in binary mode says so by ce_specversion; then it must be a whole one. */
static bool check_binary(struct parser *p)
{
    static const char *const required[] = {"ce_id", "ce_source", "ce_type"};
    const struct header *version = find_header(p->r, "ce_specversion");
    const struct header *content = find_header(p->r, "content-type");
    if (!version)
        return true;
    if (version->len != 3 || memcmp(version->value, "1.0", 3) != 0)
        return refuse(p, ERR_UNSUPPORTED, "ce_specversion must be 1.0");
    for (size_t i = 0; i < ARRAY_LEN(required); i++) {
        CLEANUP(free_ptr) char *text = header_text(p->r, required[i]);
        if (!text)
            return refuse(p, ERR_INVALID_JOB,
                          "%s must be given: a text of 1 to %d bytes without control characters",
                          required[i], TEXT_LIMIT);
    }
    return !content || is_json(content->value, content->len) ||
           refuse(p, ERR_UNSUPPORTED,
                  "content-type must be application/json or application/cloudevents+json");
}

/* Headers beside a structured event may only repeat it. */
static bool check_twice(struct parser *p, const char *id, const char *type)
{
    if (!find_header(p->r, "ce_specversion"))
        return true;
    if (!p->ce_id || strcmp(p->ce_id, id) != 0)
        return refuse(p, ERR_INVALID_JOB, "ce_id must be the id of the event in the value");
    return (p->ce_type && strcmp(p->ce_type, type) == 0) ||
           refuse(p, ERR_INVALID_JOB, "ce_type must be the type of the event in the value");
}

/* Structured mode: the attributes and `data`. */
static bool open_structured(struct parser *p)
{
    static const char *const required[] = {"id", "source", "type"};
    const cJSON *data = json_get(p->tree, "data");
    const cJSON *content = json_get(p->tree, "datacontenttype");
    if (cJSON_IsObject(data))
        p->body = data; /* also a refusal wants to know whose it is */
    if (strcmp(json_str(p->tree, "specversion", ""), "1.0") != 0)
        return refuse(p, ERR_UNSUPPORTED, "specversion must be 1.0");
    for (size_t i = 0; i < ARRAY_LEN(required); i++) {
        size_t n = strlen(json_str(p->tree, required[i], ""));
        if (n == 0 || n > TEXT_LIMIT)
            return refuse(p, ERR_INVALID_JOB, "%s must be given: a text of 1 to %d bytes",
                          required[i], TEXT_LIMIT);
    }
    const char *id = json_str(p->tree, "id", ""), *type = json_str(p->tree, "type", "");
    const char *kind = json_str(p->tree, "datacontenttype", "");
    if (!check_twice(p, id, type))
        return false;
    free(p->ce_type);
    free(p->ce_id);
    p->ce_type = xstrdup(type);
    p->ce_id = xstrdup(id);
    if (content && !is_json(kind, strlen(kind)))
        return refuse(p, ERR_UNSUPPORTED, "datacontenttype must be application/json");
    return cJSON_IsObject(data) || refuse(p, ERR_INVALID_JOB, "data must be an object");
}

static bool open_body(struct parser *p)
{
    const struct header *content = find_header(p->r, "content-type");
    char why[JSON_ERROR_SIZE];
    struct json_limits limits = json_limits_job;
    limits.max_bytes = (size_t)p->cfg->jobs.max_bytes;
    limits.max_depth = JOB_DEPTH_MAX;
    p->ce_type = header_text(p->r, "ce_type");
    p->ce_id = header_text(p->r, "ce_id");
    if (!p->r->value)
        return refuse(p, ERR_INVALID_JOB, "the record must have a value: a job as JSON");
    p->tree = json_parse(p->r->value, p->r->value_len, &limits, why);
    if (!p->tree)
        return refuse(p, ERR_INVALID_JOB, "the value must be a JSON object: %s", why);
    if (!cJSON_IsObject(p->tree))
        return refuse(p, ERR_INVALID_JOB, "the value must be a JSON object");
    if (header_begins(content, "application/cloudevents+json"))
        return open_structured(p);
    if (header_begins(content, "application/cloudevents"))
        return refuse(p, ERR_UNSUPPORTED,
                      "content-type must be application/json or "
                      "application/cloudevents+json");
    p->body = p->tree;
    return check_binary(p);
}

/* ---- type and version ---- */

static int find_type(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(type_names); i++)
        if (strcmp(name, type_names[i]) == 0)
            return (int)i;
    return -1;
}

/* The type at the end of "session-worker.start-session.v1": with any prefix that ends in a dot or a
 * slash, or none; with ".v<n>" or none, which goes to *version. -1: no type of ours. */
static int find_ce_type(const char *text, int64_t *version)
{
    size_t len = strlen(text);
    const char *v = strrchr(text, '.');
    if (v && v[1] == 'v' && parse_i64(v + 2, strlen(v + 2), 0, INT32_MAX, version))
        len = (size_t)(v - text);
    for (size_t i = 0; i < ARRAY_LEN(type_names); i++) {
        size_t n = strlen(type_names[i]);
        bool ends = len >= n && memcmp(text + len - n, type_names[i], n) == 0;
        if (ends && (len == n || text[len - n - 1] == '.' || text[len - n - 1] == '/'))
            return (int)i;
    }
    return -1;
}

static bool read_type(struct parser *p, enum job_type *out)
{
    const cJSON *m = json_get(p->body, "type");
    int64_t version = 1;
    int outer = p->ce_type ? find_ce_type(p->ce_type, &version) : -1, inner = -1;
    if (m && !cJSON_IsNull(m)) {
        if (!cJSON_IsString(m))
            return refuse(p, ERR_INVALID_JOB, "type must be a string");
        inner = find_type(m->valuestring);
        if (inner < 0)
            return refuse(p, ERR_UNSUPPORTED,
                          "type must be one of start-session, stop-session, delete-session");
    } else if (!p->ce_type) {
        return refuse(p, ERR_INVALID_JOB, "type must be given");
    }
    if (inner < 0 && outer < 0)
        return refuse(p, ERR_UNSUPPORTED,
                      "ce_type must end in start-session, stop-session or delete-session");
    if (outer >= 0 && version != 1)
        return refuse(p, ERR_UNSUPPORTED, "the version in ce_type must be v1");
    if (inner >= 0 && outer >= 0 && inner != outer)
        return refuse(p, ERR_INVALID_JOB, "type and ce_type must agree");
    *out = (enum job_type)(inner >= 0 ? inner : outer);
    return true;
}

static bool read_version(struct parser *p)
{
    const cJSON *m = json_get(p->body, "version");
    if (!m || cJSON_IsNull(m))
        return true;
    if (!cJSON_IsNumber(m))
        return refuse(p, ERR_INVALID_JOB, "version must be a number");
    return m->valuedouble == 1 || refuse(p, ERR_UNSUPPORTED, "version must be 1");
}

/* ---- who it is about ---- */

static char *coordinates(const struct record *r)
{
    return xasprintf("%s/%d/%lld", r->topic, r->partition, (long long)r->offset);
}

static bool has_key(const struct record *r)
{
    return r->key && r->key_len > 0;
}

static bool read_session(struct parser *p, char **out)
{
    const cJSON *m = json_get(p->body, "session_id");
    const char *field = cJSON_IsString(m) ? m->valuestring : NULL;
    if (m && !field && !cJSON_IsNull(m))
        return refuse(p, ERR_INVALID_JOB, "session_id must be a string");
    if (!has_key(p->r) && p->cfg->jobs.require_key)
        return refuse(p, ERR_INVALID_JOB,
                      "the record must have a key: the session id (jobs.require_key)");
    if (!has_key(p->r) && !field)
        return refuse(p, ERR_INVALID_JOB, "session_id must be given, as key or as field");
    size_t len = field ? strlen(field) : p->r->key_len;
    if (!session_id_valid(field ? field : p->r->key, len))
        return refuse(
            p, ERR_INVALID_JOB,
            "session_id must be 1 to %d of letters, digits, '.', '_' and '-', a letter or "
            "digit first, without www.",
            SESSION_ID_MAX);
    if (field && has_key(p->r) && (p->r->key_len != len || memcmp(p->r->key, field, len) != 0))
        return refuse(p, ERR_INVALID_JOB, "session_id must be the record's key");
    *out = xmemdup0(field ? field : p->r->key, len);
    return true;
}

/* The job's id by the first of: field, ce_id, the coordinates of which it is a replay, its own. */
static char *job_id(const struct parser *p)
{
    const char *field = json_str(p->body, "job_id", "");
    if (*field && strlen(field) <= TEXT_LIMIT)
        return xstrdup(field);
    if (p->ce_id)
        return xstrdup(p->ce_id);
    char *original = header_text(p->r, ORIGINAL);
    return original ? original : coordinates(p->r);
}

static char *readable_session(const struct parser *p)
{
    const char *field = json_str(p->body, "session_id", "");
    if (session_id_valid(field, strlen(field)))
        return xstrdup(field);
    bool key = has_key(p->r) && session_id_valid(p->r->key, p->r->key_len);
    return key ? xmemdup0(p->r->key, p->r->key_len) : NULL;
}

static char *readable_metadata(const struct parser *p)
{
    const cJSON *object = json_get(p->body, "metadata");
    struct buf b;
    if (!cJSON_IsObject(object))
        return NULL;
    buf_init(&b, JOB_METADATA_MAX);
    json_canonical(&b, object);
    bool fits = !b.overflow;
    char *text = buf_steal(&b);
    if (fits)
        return text;
    free(text);
    return NULL;
}

/* Names of fields come from the record: only what is harmless in a header and a log is repeated. */
static char *printable(const char *text)
{
    char *copy = xstrdup(text);
    for (char *c = copy; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    return copy;
}

static void fill_refusal(const struct parser *p, struct refusal *why)
{
    const char *tenant = json_str(p->body, "tenant", "");
    *why = (struct refusal){.code = p->code ? p->code : ERR_INVALID_JOB};
    why->message = printable(p->error.text);
    why->session_id = readable_session(p);
    why->job_id = job_id(p);
    why->tenant = *tenant && strlen(tenant) <= TEXT_LIMIT ? xstrdup(tenant) : NULL;
    why->metadata = readable_metadata(p);
}

/* ---- the whole ---- */

static bool read_job(struct parser *p, struct job *job)
{
    if (!open_body(p) || !read_type(p, &job->type) || !read_version(p) ||
        !read_session(p, &job->session_id))
        return false;
    struct json_reader body = {p->body, "", &p->error};
    const char *id;
    json_read_str(&body, "job_id", TEXT_LIMIT, &id);
    job->partition = p->r->partition;
    job->offset = p->r->offset;
    job->timestamp_ms = p->r->timestamp_ms;
    job->job_id = job_id(p);
    job->event_id = coordinates(p->r);
    carry_headers(p->r, job);
    wire_read_fields(&body, p->cfg, job, &p->unknown);
    return !json_failed(&body);
}

struct job *job_parse(const struct record *r, const struct config *cfg, struct refusal *why,
                      unsigned *unknown_fields)
{
    struct parser p = {.r = r, .cfg = cfg};
    struct job *job = xcalloc(1, sizeof *job);
    bool ok = read_job(&p, job);
    if (ok) {
        wire_each_secret(job, redact_add);
        job->secrets_known = true;
    } else {
        fill_refusal(&p, why);
        job_free(job);
    }
    *unknown_fields = p.unknown;
    cJSON_Delete(p.tree);
    free(p.ce_type);
    free(p.ce_id);
    return ok ? job : NULL;
}
