/* provider: the table of providers, and what all of them use to build calls and read replies.
 *
 * A new provider is one file with its `struct provider_ops` and one line in providers[]. Nothing
 * else in the program names one. */
#include "worker/provider/provider.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/log.h"
#include "common/secret.h"
#include "common/xalloc.h"
#include "worker/provider/daytona.h"

#define CALL_TIMEOUT_MS 10000
#define CALL_MAX_REPLY (1024 * 1024)

static const struct provider_ops *const providers[] = {&daytona_ops};

static const struct provider_ops *ops_of(const char *type)
{
    for (size_t i = 0; i < ARRAY_LEN(providers); i++)
        if (strcmp(providers[i]->type, type) == 0)
            return providers[i];
    return NULL;
}

bool provider_known(const char *type)
{
    return ops_of(type) != NULL;
}

void provider_types(struct buf *out)
{
    for (size_t i = 0; i < ARRAY_LEN(providers); i++)
        buf_addf(out, "%s%s", i ? ", " : "", providers[i]->type);
}

static char *derived_secret(const struct provider_config *cfg)
{
    static const char purpose[] = "session-worker session keys";
    char text[HMAC_TEXT_SIZE];
    hmac_sha256_text(cfg->api_key, strlen(cfg->api_key), purpose, strlen(purpose), text);
    return xstrdup(text);
}

/* Without secrets of their own the session keys hang on the provider's key. That one stays the last
 * that is recognised: servers launched before there were secrets still run. */
static void take_keys(struct provider *p)
{
    size_t n = p->config->session_key.n_secrets;
    p->n_keys = n + 1;
    p->keys = xcalloc(p->n_keys, sizeof *p->keys);
    for (size_t i = 0; i < n; i++)
        p->keys[i] = xstrdup(p->config->session_key.secrets[i]);
    p->keys[n] = derived_secret(p->cfg);
    if (n == 0)
        log_warn(NULL,
                 "session keys are derived from the provider's key: they change when it is rotated",
                 L_STR("provider", p->cfg->name), L_STR("remedy", "set session_key.secret_files"));
}

struct provider *provider_new(const struct config *cfg, size_t i)
{
    ASSERT(i < cfg->n_providers);
    const struct provider_ops *ops = ops_of(cfg->providers[i].type);
    if (!ops)
        return NULL;
    struct provider *p = xcalloc(1, sizeof *p);
    *p = (struct provider){
        .ops = ops, .cfg = &cfg->providers[i], .config = cfg, .topic = cfg->topics.jobs};
    take_keys(p);
    return p;
}

void provider_free(struct provider *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n_keys; i++)
        secret_wipe(p->keys[i]);
    free(p->keys);
    free(p);
}

void call_init(struct call *c, unsigned what, const char *method)
{
    *c = (struct call){.what = what,
                       .method = method,
                       .scope = SCOPE_FREE,
                       .timeout_ms = CALL_TIMEOUT_MS,
                       .max_reply = CALL_MAX_REPLY};
}

bool header_value_valid(const char *value)
{
    for (const unsigned char *p = (const unsigned char *)value; *p; p++)
        if (*p < 0x20 || *p == 0x7f)
            return false;
    return true;
}

void call_header(struct call *c, const char *name, const char *value)
{
    ASSERT(c->n_headers < CALL_HEADERS_MAX);
    ASSERT(header_value_valid(value));
    c->headers[c->n_headers].name = name;
    c->headers[c->n_headers].value = xstrdup(value);
    c->n_headers++;
}

void call_done(struct call *c)
{
    free(c->url);
    for (size_t i = 0; i < c->n_headers; i++)
        secret_wipe(c->headers[i].value);
    secret_wipe(c->body);
    *c = (struct call){0};
}

const char *reply_header(const struct reply *r, const char *name)
{
    for (size_t i = 0; i < r->n_headers; i++)
        if (strcasecmp(r->headers[i].name, name) == 0)
            return r->headers[i].value;
    return NULL;
}

void answer_done(struct answer *a)
{
    free(a->message);
    free(a->provider_message);
    *a = (struct answer){0};
}

void listed_done(const struct provider *p, struct listed *l)
{
    for (size_t i = 0; i < l->n; i++)
        p->ops->box_free(l->boxes[i]);
    free(l->boxes);
    free(l->next);
    *l = (struct listed){0};
}
