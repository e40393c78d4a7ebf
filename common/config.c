/* config: defaults, -s, environment, and what must hold between keys. See the header.
 *
 * Sources are applied from the weakest to the strongest: defaults, file, environment, -s; each one
 * just sets keys, so the strongest is what stays. No mistake ends the reading: each becomes a line
 * and the key keeps its former value, so one run shows them all. Secrets come from files or from
 * the environment, never from -s (argv is public) or from the file itself; they are read last, when
 * it is known which source won, and never shown.
 *
 * Invariant: after config_load every text is there and every number within its limits. */
#include "common/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_table.h"
#include "common/secret.h"
#include "common/xalloc.h"

#define ENV_PREFIX "SESSION_WORKER_"

/* ---- -s ---- */

/* The key that path names, and what it is a key of; NULL: none. providers.NAME.KEY for providers.
 */
static const struct key *resolve(const struct config *cfg, const char *path, void **base)
{
    static const char group[] = "providers.";
    const char *name = path + sizeof group - 1;
    if (strncmp(path, group, sizeof group - 1) != 0) {
        *base = (void *)cfg;
        return config_find(config_keys, config_n_keys, path);
    }
    size_t len = strcspn(name, ".");
    *base = config_find_provider(cfg, name, len);
    if (!*base || !name[len])
        return NULL;
    return config_find(config_provider_keys, config_n_provider_keys, name + len + 1);
}

static void apply_set(struct loader *l, const char *set)
{
    const char *equals = strchr(set, '=');
    if (!equals) {
        config_error(l, "-s", set, "must be KEY=VALUE");
        return;
    }
    CLEANUP(free_ptr) char *path = xmemdup0(set, (size_t)(equals - set));
    void *base;
    const struct key *k = resolve(l->cfg, path, &base);
    struct value v = {.type = VALUE_TEXT, .text = equals + 1};
    if (k)
        config_set(l, k, base, path, "-s", &v);
    else
        config_unknown(l, "-s", path);
}

/* ---- environment ---- */

/* Is name[0..len) the path in capitals, with '_' for what is no letter or digit? */
static bool env_matches(const char *name, size_t len, const char *path)
{
    if (strlen(path) != len)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = path[i];
        c = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c >= '0' && c <= '9' ? c : '_';
        if (name[i] != c)
            return false;
    }
    return true;
}

/* Key `k` of `base`, called `path`, from variable name[0..len): by its path or, for a secret, by
 * the path without "_file". False: the variable is another one. */
static bool apply_variable(struct loader *l, const struct key *k, void *base, const char *path,
                           const char *name, size_t len, const char *value)
{
    char origin[128];
    struct value v = {.type = VALUE_TEXT, .text = value};
    snprintf(origin, sizeof origin, ENV_PREFIX "%.*s", (int)MIN(len, 100), name);
    if (env_matches(name, len, path)) {
        config_set(l, k, base, path, origin, &v);
        return true;
    }
    if (k->kind != KEY_FILE)
        return false;
    CLEANUP(free_ptr) char *direct = xmemdup0(path, strlen(path) - strlen("_file"));
    if (!env_matches(name, len, direct))
        return false;
    if (*value) {
        config_replace(config_field(base, k->at), "");
        config_replace(config_field(base, k->at2), value);
    }
    return true;
}

static bool apply_to_providers(struct loader *l, const char *name, size_t len, const char *value)
{
    for (size_t i = 0; i < l->cfg->n_providers; i++) {
        struct provider_config *p = &l->cfg->providers[i];
        for (size_t j = 0; j < config_n_provider_keys; j++) {
            const struct key *k = &config_provider_keys[j];
            CLEANUP(free_ptr) char *path = xasprintf("providers.%s.%s", p->name, k->path);
            if (apply_variable(l, k, p, path, name, len, value))
                return true;
        }
    }
    return false;
}

/* Kubernetes tells every pod of every service: one called session-worker gives
 * SESSION_WORKER_SERVICE_HOST, SESSION_WORKER_PORT_9464_TCP_ADDR and so on. */
static bool is_service_variable(const char *name, size_t len)
{
    static const char *const marks[] = {"SERVICE_HOST", "SERVICE_PORT", "PORT_"};
    if (len >= 4 && memcmp(name + len - 4, "PORT", 4) == 0)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(marks); i++)
        if (memmem(name, len, marks[i], strlen(marks[i])))
            return true;
    return false;
}

static void apply_entry(struct loader *l, const char *entry)
{
    const char *name = entry + strlen(ENV_PREFIX), *equals = strchr(entry, '=');
    if (strncmp(entry, ENV_PREFIX, strlen(ENV_PREFIX)) != 0 || !equals)
        return;
    size_t len = (size_t)(equals - name);
    for (size_t i = 0; i < config_n_keys; i++)
        if (apply_variable(l, &config_keys[i], l->cfg, config_keys[i].path, name, len, equals + 1))
            return;
    if (apply_to_providers(l, name, len, equals + 1) || is_service_variable(name, len))
        return;
    CLEANUP(free_ptr) char *whole = xmemdup0(entry, (size_t)(equals - entry));
    config_error(l, whole, "", "is no key (" ENV_PREFIX " and the path in capitals, with _ for .)");
}

static const char *env_get(char *const *environ, const char *name)
{
    size_t n = strlen(name);
    for (; environ && *environ; environ++)
        if (strncmp(*environ, name, n) == 0 && (*environ)[n] == '=')
            return (*environ)[n + 1] ? *environ + n + 1 : NULL;
    return NULL;
}

/* A secret and the file that holds it: which of the two was meant? */
static void refuse_both(struct loader *l, char *const *environ)
{
    static const char suffix[] = "_FILE", theirs[] = "DAYTONA_API_KEY_FILE=";
    for (char *const *e = environ; e && *e; e++) {
        const char *equals = strchr(*e, '=');
        size_t n = equals ? (size_t)(equals - *e) : 0, cut = strlen(suffix);
        bool ours = strncmp(*e, ENV_PREFIX, strlen(ENV_PREFIX)) == 0 ||
                    strncmp(*e, theirs, strlen(theirs)) == 0;
        if (!ours || n <= cut || memcmp(equals - cut, suffix, cut) != 0 || !equals[1])
            continue;
        CLEANUP(free_ptr) char *direct = xmemdup0(*e, n - cut);
        if (env_get(environ, direct))
            config_error(l, direct, "", "is set, and so is %s%s: set only one of them", direct,
                         suffix);
    }
}

/* Daytona's own variables speak of the provider called daytona, more softly than ours. */
static void apply_daytona(struct loader *l, char *const *environ)
{
    static const struct {
        const char *variable, *key;
    } known[] = {
        {"DAYTONA_API_URL", "api_url"},
        {"DAYTONA_TARGET", "targets"},
        {"DAYTONA_API_KEY_FILE", "api_key_file"},
    };
    struct provider_config *p = config_find_provider(l->cfg, "daytona", strlen("daytona"));
    const char *secret = env_get(environ, "DAYTONA_API_KEY");
    if (!p)
        return;
    if (secret) {
        config_replace(&p->api_key, secret);
        config_replace(&p->api_key_file, "");
    }
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        struct value v = {.type = VALUE_TEXT, .text = env_get(environ, known[i].variable)};
        const struct key *k =
            config_find(config_provider_keys, config_n_provider_keys, known[i].key);
        if (v.text)
            config_set(l, k, p, known[i].key, known[i].variable, &v);
    }
}

/* Tells every secret of cfg to the redactor, or takes it back. */
static void each_secret(struct config *cfg, void (*tell)(const char *))
{
    tell(cfg->kafka.password);
    for (size_t i = 0; i < cfg->n_providers; i++)
        tell(cfg->providers[i].api_key);
    for (size_t i = 0; i < cfg->session_key.n_secrets; i++)
        tell(cfg->session_key.secrets[i]);
}

bool config_load(const struct config_source *src, struct config *out, struct buf *errors)
{
    struct loader l = {.cfg = out, .errors = errors};
    *out = (struct config){0};
    config_set_defaults(config_keys, config_n_keys, out);
    if (src->file)
        config_load_file(&l, src->file);
    if (out->n_providers == 0)
        config_add_provider(out);
    refuse_both(&l, src->environ);
    apply_daytona(&l, src->environ);
    for (char *const *e = src->environ; e && *e; e++)
        apply_entry(&l, *e);
    for (size_t i = 0; i < src->n_sets; i++)
        apply_set(&l, src->sets[i]);
    config_complete(&l, src->client);
    bool good = !src->check || src->check(out, errors);
    if (l.failed || !good) {
        config_done(out);
        return false;
    }
    each_secret(out, redact_add);
    out->loaded = true;
    return true;
}

static void fields_done(const struct key *keys, size_t n, void *base)
{
    for (size_t i = 0; i < n; i++) {
        const struct key *k = &keys[i];
        if (k->kind == KEY_TEXT || k->kind == KEY_FILE)
            secret_wipe(*(char **)config_field(base, k->at));
        if (k->kind == KEY_FILE)
            secret_wipe(*(char **)config_field(base, k->at2));
        if (k->kind == KEY_LIST)
            config_free_list(config_field(base, k->at), config_field(base, k->at2));
    }
}

void config_done(struct config *cfg)
{
    if (cfg->loaded)
        each_secret(cfg, redact_remove);
    fields_done(config_keys, config_n_keys, cfg);
    for (size_t i = 0; i < cfg->n_providers; i++)
        fields_done(config_provider_keys, config_n_provider_keys, &cfg->providers[i]);
    free(cfg->providers);
    config_free_list(&cfg->session_key.secrets, &cfg->session_key.n_secrets);
    *cfg = (struct config){0};
}
