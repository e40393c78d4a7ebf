/* daytona_body: the bodies and queries that are sent. See daytona.h.
 *
 * JSON is written by hand into a buffer: the shapes are few and flat, and each text goes through
 * json_quote(). What cannot be said safely (an image name that would be more than one line of a
 * Dockerfile, a command that is too long) is refused here, before anything is sent. */
#include <stdio.h>
#include <string.h>

#include "common/secret.h"
#include "common/xalloc.h"
#include "worker/provider/daytona.h"
#include "worker/provider/startup.h"

void add_encoded(struct buf *out, const char *text)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (const char *p = text; *p; p++) {
        if (strchr(plain, *p))
            buf_addc(out, *p);
        else
            buf_addf(out, "%%%02X", (unsigned)(unsigned char)*p);
    }
}

static void quote(struct buf *out, const char *text)
{
    json_quote(out, text, strlen(text));
}

/* ,"name":"value" (without the comma behind an opening brace); value NULL: nothing */
static void add_text(struct buf *out, const char *name, const char *value)
{
    if (!value)
        return;
    if (out->len && out->data[out->len - 1] != '{')
        buf_addc(out, ',');
    quote(out, name);
    buf_addc(out, ':');
    quote(out, value);
}

void add_label_filter(struct buf *out, const struct provider *p, const char *name,
                      const char *value)
{
    struct buf labels;
    buf_init(&labels, 4096);
    buf_addc(&labels, '{');
    add_text(&labels, LABEL_FLEET, p->config->fleet);
    add_text(&labels, name, value);
    buf_addc(&labels, '}');
    ASSERT(labels.len > 2 && !labels.overflow); /* an empty filter lists the whole organization */
    buf_adds(out, "labels=");
    add_encoded(out, buf_text(&labels));
    buf_done(&labels);
}

static bool refuse(struct answer *a, enum error_code code, const char *why)
{
    a->verdict = REFUSE;
    a->code = code;
    a->message = xstrdup(why);
    return false;
}

/* ---- create ---- */

static bool is_ours(const char *label)
{
    static const char prefix[] = "session-worker/";
    return strcmp(label, LABEL_SESSION) == 0 || strncmp(label, prefix, strlen(prefix)) == 0;
}

static void add_labels(struct buf *out, const struct deal *d)
{
    const struct job *job = d->job;
    char partition[300], key[KEY_ID_LEN + 1];
    snprintf(partition, sizeof partition, "%s/%d", d->provider->topic, (int)job->partition);
    key_id(d->provider->keys[0], key);
    buf_adds(out, ",\"labels\":{");
    for (size_t i = 0; i < job->sandbox.n_labels; i++)
        if (!is_ours(job->sandbox.labels[i].name))
            add_text(out, job->sandbox.labels[i].name, job->sandbox.labels[i].value);
    add_text(out, LABEL_SESSION, job->session_id);
    add_text(out, LABEL_FLEET, d->provider->config->fleet);
    add_text(out, LABEL_PARTITION, partition);
    add_text(out, LABEL_JOB, job->event_id);
    add_text(out, LABEL_SPEC, job->spec_hash);
    add_text(out, LABEL_KEY, job->session_api_key ? "job" : key);
    add_text(out, LABEL_TENANT, job->tenant);
    buf_addc(out, '}');
}

/* Provisional: it must outlive the job's whole time, and it must not live for ever. */
static void add_intervals(struct buf *out, const struct job *job)
{
    int least = (int)((job->timeout_seconds + 59) / 60) + 5;
    buf_addf(out, ",\"autoStopInterval\":%d,\"autoArchiveInterval\":%d,\"autoDeleteInterval\":0",
             MAX(job->sandbox.auto_stop_minutes, least), job->sandbox.auto_archive_minutes);
}

static const char *create_target(const struct deal *d)
{
    const struct script *s = &box_of(d)->script;
    if (d->job->sandbox.target)
        return d->job->sandbox.target;
    ASSERT(s->target < create_targets(d));
    return d->provider->cfg->n_targets ? d->provider->cfg->targets[s->target] : NULL;
}

static void add_number(struct buf *out, const char *name, int value)
{
    if (value > 0)
        buf_addf(out, ",\"%s\":%d", name, value);
}

/* Resources go with an image only: a snapshot has its own, and Daytona refuses both. */
static void add_image(struct buf *out, const struct job *job)
{
    char *file = xasprintf("FROM %s\n", job->sandbox.image);
    buf_adds(out, ",\"buildInfo\":{");
    add_text(out, "dockerfileContent", file);
    buf_addc(out, '}');
    free_ptr(&file);
    add_number(out, "cpu", job->sandbox.cpu);
    add_number(out, "memory", job->sandbox.memory_gib);
    add_number(out, "disk", job->sandbox.disk_gib);
}

static void add_snapshot(struct buf *out, const struct deal *d)
{
    const char *standard = d->provider->config->sandbox.snapshot;
    const char *snapshot = d->job->sandbox.snapshot;
    if (!snapshot && *standard)
        snapshot = standard;
    add_text(out, "snapshot", snapshot);
}

static void add_volumes(struct buf *out, const struct job *job)
{
    for (size_t i = 0; i < job->sandbox.n_volumes; i++) {
        const struct volume *v = &job->sandbox.volumes[i];
        buf_adds(out, i == 0 ? ",\"volumes\":[{" : ",{");
        add_text(out, "volumeId", v->id);
        add_text(out, "mountPath", v->mount_path);
        add_text(out, "subpath", v->subpath);
        buf_addc(out, '}');
    }
    if (job->sandbox.n_volumes)
        buf_addc(out, ']');
}

static bool image_valid(const char *image)
{
    for (const unsigned char *p = (const unsigned char *)image; *p; p++)
        if (*p <= 0x20 || *p == 0x7f)
            return false;
    return *image != '\0';
}

bool body_create(const struct deal *d, struct buf *out, struct answer *a)
{
    const struct job *job = d->job;
    if (job->sandbox.image && !image_valid(job->sandbox.image))
        return refuse(a, ERR_INVALID_JOB, "sandbox.image must be one word");
    buf_addc(out, '{');
    add_text(out, "name", d->box->name);
    add_labels(out, d);
    add_intervals(out, job);
    add_text(out, "target", create_target(d));
    if (job->sandbox.image)
        add_image(out, job);
    else
        add_snapshot(out, d);
    add_volumes(out, job);
    add_text(out, "user", job->sandbox.os_user);
    if (job->sandbox.public)
        buf_adds(out, ",\"public\":true");
    buf_addc(out, '}');
    return true;
}

/* ---- toolbox ---- */

bool body_session(const struct deal *d, struct buf *out, struct answer *a)
{
    char session[TOOLBOX_SESSION_SIZE];
    (void)a;
    toolbox_session(d->job, session);
    buf_addf(out, "{\"sessionId\":\"%s\"}", session);
    return true;
}

bool body_exec(const struct deal *d, struct buf *out, struct answer *a)
{
    struct buf line;
    char *key = launch_key(d);
    buf_init(&line, JOB_COMMAND_MAX);
    bool fits = startup_line(&line, d->job, key, LOG_PATH);
    if (fits) {
        set_secret(&d->box->session_key, key);
        buf_addc(out, '{');
        add_text(out, "command", buf_text(&line));
        buf_adds(out, ",\"runAsync\":true}");
    }
    secret_wipe(key);
    secret_wipe(buf_steal(&line));
    return fits || refuse(a, ERR_INVALID_JOB, "the startup command is longer than 96 KiB");
}

/* The event shows the last 4096 bytes; more is read so that no secret is cut before it is redacted.
 */
bool body_tail(const struct deal *d, struct buf *out, struct answer *a)
{
    (void)d, (void)a;
    buf_adds(out, "{\"command\":\"tail -c 36864 " LOG_PATH "\",\"timeout\":10}");
    return true;
}
