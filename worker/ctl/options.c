/* options: see the header.
 *
 * getopt_long keeps its state in globals, prints its own messages and knows no types; this is
 * smaller than its use. An option that is given twice takes the later value, so that a script can
 * append what a person changes. Abbreviated names are refused: they break when an option is added.
 *
 * Invariant: a value is stored only after it was found valid. */
#include "worker/ctl/options.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

#define RATE_MAX 100000.0
#define HELP_COLUMN 28

void texts_add(struct texts *t, const char *text)
{
    GROW(t->items, t->n, t->cap);
    t->items[t->n++] = text;
}

void texts_done(struct texts *t)
{
    free(t->items);
    *t = (struct texts){0};
}

static void *value_of(const struct option *o, void *args)
{
    return (char *)args + o->offset;
}

const char *option_text(const struct option *o, const void *args)
{
    ASSERT(o->kind == OPT_TEXT || o->kind == OPT_CHOICE || o->kind == OPT_JSON);
    const char *text;
    memcpy(&text, (const char *)args + o->offset, sizeof text);
    return text;
}

int64_t option_int(const struct option *o, const void *args)
{
    ASSERT(o->kind == OPT_INT);
    int64_t value;
    memcpy(&value, (const char *)args + o->offset, sizeof value);
    return value;
}

bool parse_rate(const char *text, double *per_second)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"", 1}, {"/s", 1}, {"/min", 60}, {"/m", 60}, {"/h", 3600}};
    size_t digits = strspn(text, "0123456789.");
    char *end;
    double n = strtod(text, &end);
    if (digits == 0 || end != text + digits)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (strcmp(end, units[i].name) == 0 && n > 0 && n / units[i].seconds <= RATE_MAX)
            return *per_second = n / units[i].seconds, true;
    return false;
}

/* Is text one of "a|b|c"? */
static bool is_choice(const char *choices, const char *text)
{
    size_t len = strlen(text);
    for (const char *c = choices; *c;) {
        size_t n = strcspn(c, "|");
        if (n == len && memcmp(c, text, n) == 0)
            return true;
        c += n + (c[n] == '|');
    }
    return false;
}

static PRINTF_LIKE(2, 3) bool fail(char *error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(error, OPTIONS_ERROR_SIZE, fmt, ap);
    va_end(ap);
    return false;
}

/* ---- one function per kind ---- */

static bool store_flag(const struct option *o, const char *text, void *at, char *error)
{
    (void)o, (void)text, (void)error;
    *(bool *)at = true;
    return true;
}

static bool store_text(const struct option *o, const char *text, void *at, char *error)
{
    if (!*text)
        return fail(error, "--%s must not be empty", o->name);
    *(const char **)at = text;
    return true;
}

static bool store_choice(const struct option *o, const char *text, void *at, char *error)
{
    if (!is_choice(o->arg, text))
        return fail(error, "--%s must be one of %s", o->name, o->arg);
    *(const char **)at = text;
    return true;
}

static bool store_list(const struct option *o, const char *text, void *at, char *error)
{
    (void)o, (void)error;
    texts_add(at, text);
    return true;
}

/* A host and a port, or a URL, which may leave the port out. */
static bool is_place(const char *text)
{
    const char *colon = strrchr(text, ':');
    int64_t port;
    return strncmp(text, "http://", 7) == 0 ||
           (colon && colon > text && parse_i64(colon + 1, strlen(colon + 1), 1, 65535, &port));
}

static bool store_place(const struct option *o, const char *text, void *at, char *error)
{
    return is_place(text) ? store_list(o, text, at, error)
                          : fail(error, "--%s must be HOST:PORT (is %.80s)", o->name, text);
}

static bool store_int(const struct option *o, const char *text, void *at, char *error)
{
    return parse_i64(text, strlen(text), o->min, o->max, at) ||
           fail(error, "--%s must be a whole number from %lld to %lld", o->name, (long long)o->min,
                (long long)o->max);
}

static bool store_index(const struct option *o, const char *text, void *at, char *error)
{
    if (!store_int(o, text, at, error))
        return false;
    *(int64_t *)at += 1;
    return true;
}

static bool store_rate(const struct option *o, const char *text, void *at, char *error)
{
    return parse_rate(text, at) ||
           fail(error, "--%s must be a rate such as 5/s or 300/min", o->name);
}

static bool (*const stores[])(const struct option *, const char *text, void *at, char *error) = {
    [OPT_FLAG] = store_flag,   [OPT_TEXT] = store_text, [OPT_CHOICE] = store_choice,
    [OPT_JSON] = store_text,   [OPT_LIST] = store_list, [OPT_INT] = store_int,
    [OPT_INDEX] = store_index, [OPT_RATE] = store_rate, [OPT_PLACES] = store_place,
};

static bool store(const struct option *o, const char *text, void *args, char *error)
{
    return stores[o->kind](o, text, value_of(o, args), error);
}

/* The option called name[0..len), or with that letter when len is 1 and short_name. */
static const struct option *find(const struct option_input *in, const char *name, size_t len,
                                 bool short_name)
{
    for (size_t t = 0; t < in->n; t++) {
        for (size_t i = 0; i < in->tables[t].n; i++) {
            const struct option *o = &in->tables[t].options[i];
            if (short_name ? o->letter == *name
                           : strlen(o->name) == len && memcmp(o->name, name, len) == 0)
                return o;
        }
    }
    return NULL;
}

/* argv[*i] is an option: stores it and moves *i to the last word it used. */
static bool take_option(const struct option_input *in, int argc, char *const *argv, int *i,
                        char *error)
{
    const char *word = argv[*i];
    bool is_long = word[1] == '-';
    const char *name = word + (is_long ? 2 : 1);
    size_t len = is_long ? strcspn(name, "=") : 1;
    const struct option *o = find(in, name, len, !is_long);
    if (!o)
        return fail(error, "unknown option %.*s", (int)MIN(len + (is_long ? 2 : 1), 60), word);
    const char *joined = name[len] == '\0' ? NULL : name + len + (is_long ? 1 : 0);
    if (o->kind == OPT_FLAG)
        return joined ? fail(error, "--%s takes no value", o->name)
                      : store(o, NULL, in->args, error);
    if (!joined && *i + 1 == argc)
        return fail(error, "--%s needs a value: %s", o->name, o->arg);
    return store(o, joined ? joined : argv[++*i], in->args, error);
}

bool options_parse(const struct option_input *in, int argc, char *const *argv,
                   char error[OPTIONS_ERROR_SIZE])
{
    bool only_operands = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        bool is_option = !only_operands && word[0] == '-' && word[1] != '\0';
        if (is_option && strcmp(word, "--") == 0)
            only_operands = true;
        else if (!is_option)
            texts_add(in->operands, word);
        else if (!take_option(in, argc, argv, &i, error))
            return false;
    }
    return true;
}

void options_done(const struct option_table *t, void *args)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->options[i].kind == OPT_LIST || t->options[i].kind == OPT_PLACES)
            texts_done(value_of(&t->options[i], args));
}

void options_print(const struct option_table *t, struct buf *out)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct option *o = &t->options[i];
        size_t start = out->len;
        if (o->letter)
            buf_addf(out, "  -%c, --%s", o->letter, o->name);
        else
            buf_addf(out, "  --%s", o->name);
        if (o->arg)
            buf_addf(out, " %s", o->arg);
        int pad = HELP_COLUMN - (int)(out->len - start);
        buf_addf(out, "%*s%s\n", MAX(pad, 2), "", o->help);
    }
}
