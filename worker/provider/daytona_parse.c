/* daytona_parse: Daytona's objects as a box. See daytona.h.
 *
 * Nothing that the API says is taken on trust: ids go into paths and file names of other programs,
 * urls get our tokens sent to them, so both are checked before they are kept. Unknown fields,
 * states and codes are tolerated everywhere (a newer server has more of them); an unknown state
 * counts as "on its way". Error bodies come in four shapes, one of which is no body at all. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/secret.h"
#include "common/xalloc.h"
#include "worker/provider/daytona.h"

#define WORDS_MAX                                                                                  \
    36864 /* cut for the event after it has been redacted, so that no half secret stays */
#define SHORT_MAX 1024
#define URL_MAX 2048

bool is_2xx(const struct reply *r)
{
    return r->fault == FAULT_NONE && r->status >= 200 && r->status < 300;
}

/* Lists, and sessions with long commands, may be larger than an ordinary reply. */
cJSON *reply_parse(const struct reply *r)
{
    static const struct json_limits large = {4 * 1024 * 1024, 32, 20000};
    char error[JSON_ERROR_SIZE];
    if (r->body_len == 0)
        return NULL;
    if (r->body_len > json_limits_reply.max_bytes)
        return json_parse(r->body, r->body_len, &large, error);
    return json_parse_reply(r->body, r->body_len);
}

bool id_valid(const char *id)
{
    static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    static const char more[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(id);
    return len >= 1 && len <= 128 && strspn(id, first) >= 1 && strspn(id, more) == len;
}

/* Everything that may stand in a URL without being quoted, but for '@', '?' and '#'. */
static bool url_bytes(const char *text)
{
    static const char ok[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/[]!$&()*+,;=%";
    return strspn(text, ok) == strlen(text);
}

bool url_valid(const struct provider *p, const char *url)
{
    static const char https[] = "https://", http[] = "http://";
    bool secure = strncasecmp(p->cfg->api_url, https, strlen(https)) == 0;
    const char *host;
    if (strncasecmp(url, https, strlen(https)) == 0)
        host = url + strlen(https);
    else if (!secure && strncasecmp(url, http, strlen(http)) == 0)
        host = url + strlen(http);
    else
        return false;
    return *host && *host != '/' && *host != ':' && strlen(url) <= URL_MAX && url_bytes(url);
}

void set_text(char **field, const char *value)
{
    char *copy = xstrdup0(value);
    free(*field);
    *field = copy;
}

/* Foreign text that goes into events: what is longer than anything sensible is left out. */
void set_short(char **field, const char *value)
{
    set_text(field, value && strlen(value) <= SHORT_MAX ? value : NULL);
}

void set_secret(char **field, const char *value)
{
    char *copy = xstrdup0(value);
    redact_add(copy);
    redact_remove(*field);
    secret_wipe(*field);
    *field = copy;
}

void key_id(const char *secret, char out[KEY_ID_LEN + 1])
{
    sha256_hex(secret, strlen(secret), out, KEY_ID_LEN);
}

/* ---- the provider's words ---- */

/* v0.112 sent validation messages as an array. */
static void add_message(struct buf *out, const cJSON *message)
{
    const cJSON *part;
    if (cJSON_IsString(message))
        buf_adds(out, message->valuestring);
    if (!cJSON_IsArray(message))
        return;
    cJSON_ArrayForEach(part, message)
    {
        if (cJSON_IsString(part))
            buf_addf(out, "%s%s", out->len ? ", " : "", part->valuestring);
    }
}

/* No half character at the end. */
static void cut_utf8(char *text)
{
    size_t len = strlen(text), i = 0, n = 1;
    while (i < len && n > 0) {
        n = utf8_char(text + i, len - i);
        i += n;
    }
    if (len - i < 4)
        text[i] = '\0';
}

char *reply_words(const struct reply *r, const cJSON *json)
{
    struct buf out;
    buf_init(&out, WORDS_MAX);
    const char *type = reply_header(r, "content-type");
    if (json)
        add_message(&out, json_get(json, "message"));
    else if (r->body && !(type && strncasecmp(type, "text/html", 9) == 0))
        buf_add(&out, r->body, strlen(r->body));
    char *text = buf_steal(&out);
    cut_utf8(text);
    if (*text)
        return text;
    free(text);
    return NULL;
}

/* ---- the sandbox ---- */

/* All that is not named here is on its way somewhere. archiving: may be started again. */
static enum box_state plain_state(const char *name)
{
    static const struct {
        const char *name;
        enum box_state state;
    } states[] = {
        {"started", BOX_RUNS},       {"stopped", BOX_RESTS},  {"archived", BOX_RESTS},
        {"archiving", BOX_RESTS},    {"paused", BOX_RESTS},   {"error", BOX_ERROR},
        {"build_failed", BOX_ERROR}, {"destroyed", BOX_GONE}, {"destroying", BOX_GONE},
    };
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        if (strcmp(states[i].name, name) == 0)
            return states[i].state;
    return BOX_TRANSIENT;
}

/* An archived one that was asked to start says "archived" until the runner begins. A name that
 * begins with DESTROYED_ is the server's for one that is being destroyed. */
enum box_state dto_state(const cJSON *dto)
{
    const char *desired = json_str(dto, "desiredState", "");
    enum box_state state = plain_state(json_str(dto, "state", ""));
    bool to_run = strcmp(desired, "started") == 0;
    if (strcmp(desired, "destroyed") == 0)
        return BOX_GONE;
    if (state == BOX_RESTS && to_run)
        return BOX_TRANSIENT;
    if (state == BOX_RUNS && !to_run && *desired)
        return BOX_TRANSIENT;
    return state;
}

const char *dto_label(const cJSON *dto, const char *name)
{
    const cJSON *labels = json_get(dto, "labels");
    return cJSON_IsObject(labels) ? json_str(labels, name, NULL) : NULL;
}

static bool label_is(const cJSON *dto, const char *name, const char *value)
{
    const char *label = dto_label(dto, name);
    return label && value && strcmp(label, value) == 0;
}

bool dto_ours(const struct provider *p, const char *session, const cJSON *dto)
{
    return label_is(dto, LABEL_FLEET, p->config->fleet) && label_is(dto, LABEL_SESSION, session);
}

const cJSON *list_items(const cJSON *page)
{
    const cJSON *items = cJSON_IsArray(page) ? page : json_get(page, "items");
    return cJSON_IsArray(items) ? items : NULL;
}

static void read_labels(const struct provider *p, const char *session, const cJSON *dto,
                        struct box *b)
{
    set_short(&b->label_job, dto_label(dto, LABEL_JOB));
    set_short(&b->label_spec, dto_label(dto, LABEL_SPEC));
    set_short(&b->label_session, dto_label(dto, LABEL_SESSION));
    b->ours = dto_ours(p, session, dto);
}

static int read_minutes(const cJSON *dto, const char *name, int otherwise)
{
    int64_t minutes = json_int(dto, name, otherwise);
    return (int)MAX(MIN(minutes, INT32_MAX), INT32_MIN);
}

static void read_intervals(const cJSON *dto, struct daytona_box *b)
{
    b->auto_stop = read_minutes(dto, "autoStopInterval", 0);
    b->auto_delete = read_minutes(dto, "autoDeleteInterval", -1);
    b->box.provisional = b->auto_delete == 0;
}

static void read_state(const cJSON *dto, struct daytona_box *b)
{
    b->box.state = dto_state(dto);
    set_short(&b->box.state_name, json_str(dto, "state", NULL));
    set_text(&b->error_reason, json_str(dto, "errorReason", NULL));
    b->recoverable = json_bool(dto, "recoverable", false);
    if (!parse_time_ms(json_str(dto, "lastActivityAt", ""), &b->last_activity_ms))
        b->last_activity_ms = 0;
}

static void read_rest(const cJSON *dto, struct daytona_box *b)
{
    set_short(&b->label_key, dto_label(dto, LABEL_KEY));
    set_short(&b->box.created_at, json_str(dto, "createdAt", NULL));
    set_short(&b->box.target, json_str(dto, "target", NULL));
    set_short(&b->box.spec_id, json_str(dto, "snapshot", NULL));
}

/* Some answers have no toolbox url; a hostile one must not get our key. */
static bool read_toolbox(const struct provider *p, const cJSON *dto, struct daytona_box *b)
{
    const char *url = json_str(dto, "toolboxProxyUrl", "");
    if (!*url)
        return true;
    if (!url_valid(p, url))
        return false;
    set_text(&b->toolbox_url, url);
    return true;
}

bool sandbox_parse(const struct provider *p, const char *session, const cJSON *dto,
                   enum read_what what, struct daytona_box *b)
{
    const char *id = json_str(dto, "id", "");
    if (!cJSON_IsObject(dto) || !id_valid(id) || !read_toolbox(p, dto, b))
        return false;
    set_text(&b->box.id, id);
    read_labels(p, session, dto, &b->box);
    read_state(dto, b);
    if (what == READ_ALL)
        read_intervals(dto, b);
    read_rest(dto, b);
    return true;
}

/* A destroy has no job; the name says whose it is. */
static const char *session_of(const struct deal *d)
{
    size_t fleet = strlen(d->provider->config->fleet);
    if (d->job)
        return d->job->session_id;
    return d->box->name && strlen(d->box->name) > fleet ? d->box->name + fleet + 1 : NULL;
}

bool sandbox_read(struct turn *t, const cJSON *dto, enum read_what what)
{
    const struct deal *d = t->deal;
    struct daytona_box *b = t->box;
    if (!sandbox_parse(d->provider, session_of(d), dto, what, b))
        return false;
    if (t->reply->date_ms)
        b->skew_ms = (int64_t)(t->reply->date_ms - d->wall_ms);
    if (d->job && b->box.label_job && strcmp(b->box.label_job, d->job->event_id) == 0)
        b->box.mine = true;
    if (!b->box.spec_id && d->job)
        set_short(&b->box.spec_id, d->job->sandbox.image);
    return true;
}
