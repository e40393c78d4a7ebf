/* config_set: one value into one key. See config_table.h.
 *
 * One setter per kind of key; each says what is allowed when it refuses. A refused value leaves the
 * key as it was. A key that is not there gets the nearest one as a hint. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_table.h"
#include "common/secret.h"
#include "common/xalloc.h"

void config_error(struct loader *l, const char *origin, const char *path, const char *fmt, ...)
{
    va_list ap;
    size_t from = l->errors->len;
    l->failed = true;
    buf_addf(l->errors, "%s: %s%s", origin, path, *path ? " " : "");
    va_start(ap, fmt);
    buf_vaddf(l->errors, fmt, ap);
    va_end(ap);
    make_harmless(l->errors->data + from, l->errors->len - from);
    buf_addc(l->errors, '\n');
}

/* ---- setting a key ---- */

void *config_field(void *base, size_t at)
{
    return (char *)base + at;
}

void config_replace(char **text, const char *by)
{
    char *copy = xstrdup(by);
    secret_wipe(*text);
    *text = copy;
}

void config_free_list(char ***items, size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        secret_wipe((*items)[i]);
    free(*items);
    *items = NULL;
    *n = 0;
}

static void describe_names(const struct key *k, char *out, size_t size)
{
    size_t len = 0;
    for (size_t i = 0; i < k->n_names; i++) {
        int n = snprintf(out + len, size - len, "%s%s", i ? ", " : "", k->names[i]);
        len = MIN(len + (size_t)n, size - 1);
    }
}

/* Where v stands among the key's names; SIZE_MAX with *why filled: nowhere. */
static size_t name_index(const struct key *k, const struct value *v, char *why, size_t size)
{
    for (size_t i = 0; v->type <= VALUE_STRING && i < k->n_names; i++)
        if (strcmp(v->text, k->names[i]) == 0)
            return i;
    char names[128];
    describe_names(k, names, sizeof names);
    snprintf(why, size, "must be one of %s", names);
    return SIZE_MAX;
}

/* One setter per kind: true, or false with what is allowed in why. */
typedef bool setter(const struct key *k, void *base, const struct value *v, char *why, size_t size);

static bool set_text(const struct key *k, void *base, const struct value *v, char *why, size_t size)
{
    if (k->n_names && name_index(k, v, why, size) == SIZE_MAX)
        return false;
    if (v->type > VALUE_STRING)
        return snprintf(why, size, "must be a text in quotes"), false;
    config_replace(config_field(base, k->at), v->text);
    return true;
}

static bool set_int(const struct key *k, void *base, const struct value *v, char *why, size_t size)
{
    int64_t n;
    bool kind = v->type == VALUE_TEXT || v->type == VALUE_NUMBER;
    if (!kind || !parse_i64(v->text, strlen(v->text), (int64_t)k->min, (int64_t)k->max, &n))
        return snprintf(why, size, "must be %.0f to %.0f", k->min, k->max), false;
    *(int *)config_field(base, k->at) = (int)n;
    return true;
}

static bool set_real(const struct key *k, void *base, const struct value *v, char *why, size_t size)
{
    char *end = NULL;
    bool kind = v->type == VALUE_TEXT || v->type == VALUE_NUMBER;
    bool digits = v->text && v->text[strspn(v->text, "0123456789.")] == '\0';
    double d = kind && digits ? strtod(v->text, &end) : 0;
    if (!end || end == v->text || *end || d < k->min || d > k->max)
        return snprintf(why, size, "must be %g to %g", k->min, k->max), false;
    *(double *)config_field(base, k->at) = d;
    return true;
}

static bool set_flag(const struct key *k, void *base, const struct value *v, char *why, size_t size)
{
    static const char *const words[] = {"false", "true"};
    struct key named = *k;
    struct value text = *v;
    if (!k->n_names) {
        named.names = words;
        named.n_names = ARRAY_LEN(words);
        text.type = v->type == VALUE_BOOL     ? VALUE_TEXT
                    : v->type == VALUE_STRING ? VALUE_LIST
                                              : v->type;
    }
    size_t i = name_index(&named, &text, why, size);
    if (i == SIZE_MAX)
        return false;
    *(bool *)config_field(base, k->at) = i == 1;
    return true;
}

static bool set_choice(const struct key *k, void *base, const struct value *v, char *why,
                       size_t size)
{
    size_t i = name_index(k, v, why, size);
    if (i == SIZE_MAX)
        return false;
    *(int *)config_field(base, k->at) = (int)i;
    return true;
}

void config_add_item(char ***items, size_t *n, const char *text, size_t len)
{
    *items = xrealloc(*items, *n + 1, sizeof **items);
    (*items)[(*n)++] = xmemdup0(text, len);
}

/* "a,b" as items; "" is none. */
static void split(const char *text, char ***items, size_t *n)
{
    while (*text) {
        size_t len = strcspn(text, ",");
        config_add_item(items, n, text, len);
        text += len;
        text += *text == ',';
    }
}

static bool set_list(const struct key *k, void *base, const struct value *v, char *why, size_t size)
{
    char **items = NULL;
    size_t n = 0;
    if (v->type != VALUE_TEXT && v->type != VALUE_LIST)
        return snprintf(why, size, "must be a list of texts: [ \"…\", \"…\" ]"), false;
    if (v->type == VALUE_TEXT)
        split(v->text, &items, &n);
    for (size_t i = 0; v->type == VALUE_LIST && i < v->n_items; i++)
        config_add_item(&items, &n, v->items[i], strlen(v->items[i]));
    for (size_t i = 0; k->check && i < n; i++) {
        const char *fault = k->check(items[i]);
        if (fault) {
            snprintf(why, size, "%s", fault);
            config_free_list(&items, &n);
            return false;
        }
    }
    config_free_list(config_field(base, k->at), config_field(base, k->at2));
    *(char ***)config_field(base, k->at) = items;
    *(size_t *)config_field(base, k->at2) = n;
    return true;
}

/* A path displaces a secret that a weaker source gave. */
static bool set_file(const struct key *k, void *base, const struct value *v, char *why, size_t size)
{
    if (!set_text(k, base, v, why, size))
        return false;
    config_replace(config_field(base, k->at2), "");
    return true;
}

static setter *const setters[] = {
    [KEY_TEXT] = set_text,     [KEY_INT] = set_int,   [KEY_REAL] = set_real, [KEY_FLAG] = set_flag,
    [KEY_CHOICE] = set_choice, [KEY_LIST] = set_list, [KEY_FILE] = set_file,
};

/* A text may hold lines (a certificate among kafka.properties), but nothing else that steers;
 * config_file marks numbers with such a byte. */
static const char *check_bytes(const struct key *k, const struct value *v)
{
    bool text_key = k->kind == KEY_TEXT || k->kind == KEY_FILE || k->kind == KEY_LIST;
    if (!text_key || k->n_names || v->type == VALUE_NUMBER)
        return NULL;
    for (size_t i = 0; i < (v->type == VALUE_LIST ? v->n_items : 1); i++) {
        const char *text = v->type == VALUE_LIST ? v->items[i] : v->text;
        for (; text && *text; text++)
            if (((unsigned char)*text < 0x20 && !strchr("\t\n\r", *text)) || *text == 0x7f)
                return "must have no control characters";
    }
    return NULL;
}

static bool passes_check(const struct key *k, const struct value *v, char *why, size_t size)
{
    const char *fault = k->check && k->kind != KEY_LIST && v->text ? k->check(v->text) : NULL;
    if (!fault)
        fault = check_bytes(k, v);
    if (fault)
        snprintf(why, size, "%s", fault);
    return !fault;
}

/* An URL's user may come with a password. */
static const char *shown(const char *text)
{
    if (strstr(text, "://") && strchr(text, '@'))
        return "not shown, for it may hold a password";
    return *text ? text : "empty";
}

void config_set(struct loader *l, const struct key *k, void *base, const char *path,
                const char *origin, const struct value *v)
{
    char why[192];
    if (passes_check(k, v, why, sizeof why) && setters[k->kind](k, base, v, why, sizeof why))
        return;
    if (v->text && k->kind != KEY_LIST) /* a list may hold passwords */
        config_error(l, origin, path, "%s (is %.100s)", why, shown(v->text));
    else
        config_error(l, origin, path, "%s", why);
}

static void set_default(struct loader *l, const struct key *k, void *base)
{
    struct value v = {.type = VALUE_TEXT, .text = k->otherwise};
    config_set(l, k, base, k->path, "default", &v);
}

void config_set_defaults(const struct key *keys, size_t n, void *base)
{
    char text[256];
    struct buf errors;
    buf_init(&errors, sizeof text);
    struct loader l = {.errors = &errors};
    for (size_t i = 0; i < n; i++)
        set_default(&l, &keys[i], base);
    ASSERT(!l.failed);
    buf_done(&errors);
}

struct provider_config *config_add_provider(struct config *cfg)
{
    cfg->providers = xrealloc(cfg->providers, cfg->n_providers + 1, sizeof *cfg->providers);
    struct provider_config *p = &cfg->providers[cfg->n_providers++];
    *p = (struct provider_config){0};
    config_set_defaults(config_provider_keys, config_n_provider_keys, p);
    return p;
}

struct provider_config *config_find_provider(const struct config *cfg, const char *name, size_t len)
{
    for (size_t i = 0; i < cfg->n_providers; i++)
        if (strlen(cfg->providers[i].name) == len && memcmp(cfg->providers[i].name, name, len) == 0)
            return &cfg->providers[i];
    return NULL;
}

/* ---- keys that are not there ---- */

static size_t distance(const char *a, const char *b)
{
    size_t row[64], n = MIN(strlen(b), ARRAY_LEN(row) - 1);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t above = row[j], change = diagonal + (a[i - 1] != b[j - 1]);
            row[j] = MIN(MIN(above, row[j - 1]) + 1, change);
            diagonal = above;
        }
    }
    return row[n];
}

static const char *nearest(const char *path, const struct key *keys, size_t n, size_t *best)
{
    const char *found = NULL;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(path, keys[i].path);
        if (d < *best) {
            *best = d;
            found = keys[i].path;
        }
    }
    return found;
}

void config_unknown(struct loader *l, const char *origin, const char *path)
{
    size_t best = 1 + strlen(path) / 2; /* farther away than half of it is another word */
    const char *last = strrchr(path, '.');
    const char *near = nearest(path, config_keys, config_n_keys, &best);
    if (strncmp(path, "providers", 9) == 0 && last)
        near = nearest(last + 1, config_provider_keys, config_n_provider_keys, &best);
    if (near)
        config_error(l, origin, path, "is no key (did you mean %s?)", near);
    else
        config_error(l, origin, path, "is no key (--print-defaults shows them all)");
}
