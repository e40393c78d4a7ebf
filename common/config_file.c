/* config_file: worker.cfg by way of libconfig. See config_table.h.
 *
 * libconfig 1.5 wraps integers that do not fit without a word, needs quadratic time for long
 * strings and opens any path that @include names. So the text is read here, bounded, and libconfig
 * gets a copy of it that it cannot misread: outside of strings and comments a number that is no
 * plain decimal one that fits an int, nor a plain fraction, becomes a marked string, which no key
 * takes and whose key then says what is allowed; '@' and the rest of its line are left out; a NUL
 * in a string, which libconfig drops, becomes another control character, which no key takes either.
 * What follows a digit up to the next delimiter belongs to the number. So what is read is what is
 * written, and no mistake hides another. */
#include <errno.h>
#include <fcntl.h>
#include <libconfig.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_table.h"
#include "common/xalloc.h"

#define FILE_MAX 262144 /* bytes */
#define MARK '\x01'     /* begins what stood there as a number */

struct source {
    struct loader *l;
    const char *file;
};

static PRINTF_LIKE(4, 5) void line_error(struct source *s, unsigned line, const char *path,
                                         const char *fmt, ...)
{
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    CLEANUP(free_ptr) char *origin = xasprintf("%s:%u", s->file, line);
    config_error(s->l, origin, path, "%s", what);
}

/* ---- the scan ---- */

struct scan {
    const char *p;
    unsigned line;
    struct buf copy; /* for libconfig */
};

static void skip(struct scan *c, size_t n)
{
    for (; n > 0 && *c->p; n--, c->p++) {
        c->line += *c->p == '\n';
        buf_addc(&c->copy, *c->p);
    }
}

static void skip_string(struct scan *c)
{
    skip(c, 1);
    while (*c->p && *c->p != '"') {
        if (strncasecmp(c->p, "\\x00", 4) == 0) {
            buf_adds(&c->copy, "\\x7f");
            c->p += 4;
        } else {
            skip(c, *c->p == '\\' ? 2 : 1);
        }
    }
    skip(c, 1);
}

static void skip_block_comment(struct scan *c)
{
    const char *end = strstr(c->p + 2, "*/");
    skip(c, end ? (size_t)(end + 2 - c->p) : strlen(c->p));
}

static bool is_fraction(const char *text, size_t len)
{
    size_t i = len > 0 && (text[0] == '-' || text[0] == '+');
    size_t dots = 0, from = i;
    for (; i < len; i++) {
        if (text[i] != '.' && (text[i] < '0' || text[i] > '9'))
            return false;
        dots += text[i] == '.';
    }
    return dots == 1 && len > from + 1 && len < 32;
}

static void scan_number(struct scan *c)
{
    static const char part[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-_*";
    size_t len = strspn(c->p, part);
    const char *digits = c->p + (*c->p == '+');
    int64_t n;
    bool good = parse_i64(digits, len - (size_t)(digits - c->p), INT_MIN, INT_MAX, &n) ||
                is_fraction(c->p, len);
    if (!good)
        buf_add(&c->copy, (const char[]){'"', MARK}, 2);
    skip(c, len);
    if (!good)
        buf_addc(&c->copy, '"');
}

static void scan_token(struct source *s, struct scan *c)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_*";
    static const char number[] = "0123456789+-.";
    if (*c->p == '"') {
        skip_string(c);
    } else if (*c->p == '#' || strncmp(c->p, "//", 2) == 0) {
        skip(c, strcspn(c->p, "\n"));
    } else if (strncmp(c->p, "/*", 2) == 0) {
        skip_block_comment(c);
    } else if (strchr(number, *c->p)) {
        scan_number(c);
    } else if (*c->p == '@') {
        line_error(s, c->line, "", "@include and other directives are not allowed");
        c->p += strcspn(c->p, "\n");
    } else {
        size_t len = strspn(c->p, name);
        skip(c, len ? len : 1);
    }
}

/* The copy for libconfig; the caller frees it. */
static char *scan_text(struct source *s, const char *text)
{
    struct scan c = {.p = text, .line = 1};
    buf_init(&c.copy, 4 * FILE_MAX);
    while (*c.p)
        scan_token(s, &c);
    return buf_steal(&c.copy);
}

/* ---- settings to keys ---- */

/* Not only at the beginning: libconfig joins strings that stand side by side. */
static bool is_marked(const config_setting_t *setting)
{
    const char *text = config_setting_get_string(setting);
    return text && strchr(text, MARK);
}

static const char *scalar_text(const config_setting_t *setting, char *number, size_t size)
{
    const char *text;
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_STRING:
        text = config_setting_get_string(setting);
        return text + (*text == MARK);
    case CONFIG_TYPE_INT:
        snprintf(number, size, "%d", config_setting_get_int(setting));
        return number;
    case CONFIG_TYPE_FLOAT:
        snprintf(number, size, "%.10g", config_setting_get_float(setting));
        return number;
    case CONFIG_TYPE_BOOL:
        return config_setting_get_bool(setting) ? "true" : "false";
    default:
        return NULL;
    }
}

static bool is_list(const config_setting_t *setting)
{
    int type = config_setting_type(setting);
    return type == CONFIG_TYPE_ARRAY || type == CONFIG_TYPE_LIST;
}

static void set_list(struct source *s, const struct key *k, void *base, const char *path,
                     const char *origin, config_setting_t *setting)
{
    size_t n = (size_t)config_setting_length(setting);
    CLEANUP(free_ptr) const char **items = xcalloc(n, sizeof *items);
    for (size_t i = 0; i < n; i++) {
        const config_setting_t *item = config_setting_get_elem(setting, (unsigned)i);
        items[i] = config_setting_get_string(item);
        if (!items[i] || is_marked(item)) {
            config_error(s->l, origin, path, "must be a list of texts: [ \"…\", \"…\" ]");
            return;
        }
    }
    struct value v = {.type = VALUE_LIST, .items = items, .n_items = n};
    config_set(s->l, k, base, path, origin, &v);
}

static void set_key(struct source *s, const struct key *k, void *base, const char *path,
                    config_setting_t *setting)
{
    char number[32];
    CLEANUP(free_ptr)
    char *origin = xasprintf("%s:%u", s->file, config_setting_source_line(setting));
    struct value v = {.text = scalar_text(setting, number, sizeof number)};
    int type = config_setting_type(setting);
    if (is_list(setting)) {
        set_list(s, k, base, path, origin, setting);
        return;
    }
    v.type = is_marked(setting)           ? VALUE_NUMBER
             : type == CONFIG_TYPE_STRING ? VALUE_STRING
             : type == CONFIG_TYPE_BOOL   ? VALUE_BOOL
             : v.text                     ? VALUE_NUMBER
                                          : VALUE_LIST; /* a group: no kind takes it */
    config_set(s->l, k, base, path, origin, &v);
}

static void read_provider(struct source *s, config_setting_t *group, unsigned i)
{
    struct provider_config *p = config_add_provider(s->l->cfg);
    if (!config_setting_is_group(group)) {
        line_error(s, config_setting_source_line(group), "providers", "must be ( { … }, … )");
        return;
    }
    for (int j = 0; j < config_setting_length(group); j++) {
        config_setting_t *setting = config_setting_get_elem(group, (unsigned)j);
        const char *name = config_setting_name(setting);
        CLEANUP(free_ptr) char *path = xasprintf("providers[%u].%s", i, name);
        const struct key *k = config_find(config_provider_keys, config_n_provider_keys, name);
        CLEANUP(free_ptr)
        char *origin = xasprintf("%s:%u", s->file, config_setting_source_line(setting));
        if (k)
            set_key(s, k, p, path, setting);
        else
            config_unknown(s->l, origin, path);
    }
}

static void read_providers(struct source *s, config_setting_t *list)
{
    if (config_setting_type(list) != CONFIG_TYPE_LIST || config_setting_length(list) == 0) {
        line_error(s, config_setting_source_line(list), "providers", "must be ( { … }, … )");
        return;
    }
    for (unsigned i = 0; i < (unsigned)config_setting_length(list); i++)
        read_provider(s, config_setting_get_elem(list, i), i);
}

/* The first word of keys. */
static bool is_group(const char *path)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < config_n_keys; i++)
        if (strncmp(config_keys[i].path, path, n) == 0 && config_keys[i].path[n] == '.')
            return true;
    return false;
}

static void read_group(struct source *s, config_setting_t *group, const char *prefix)
{
    for (int i = 0; i < config_setting_length(group); i++) {
        config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
        const char *name = config_setting_name(setting);
        CLEANUP(free_ptr) char *path = xasprintf("%s%s%s", prefix, *prefix ? "." : "", name);
        CLEANUP(free_ptr)
        char *origin = xasprintf("%s:%u", s->file, config_setting_source_line(setting));
        const struct key *k = config_find(config_keys, config_n_keys, path);
        if (k)
            set_key(s, k, s->l->cfg, path, setting);
        else if (strcmp(path, "providers") == 0)
            read_providers(s, setting);
        else if (is_group(path) && config_setting_is_group(setting))
            read_group(s, setting, path);
        else if (is_group(path))
            config_error(s->l, origin, path, "must be a group: %s = { … };", path);
        else
            config_unknown(s->l, origin, path);
    }
}

/* ---- the file ---- */

/* What forbids reading it, or NULL. */
static const char *refuse(const struct stat *st)
{
    if (!S_ISREG(st->st_mode))
        return "must be a regular file";
    if (st->st_mode & S_IWOTH)
        return "must not be writable by everybody (chmod o-w)";
    if (st->st_size > FILE_MAX)
        return "must not be larger than 256 KiB";
    return NULL;
}

static char *read_text(struct loader *l, const char *file)
{
    struct stat st;
    char *text = xcalloc(1, FILE_MAX + 2);
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 && fstat(fd, &st) == 0 ? read(fd, text, FILE_MAX + 1) : -1;
    int error = errno;
    const char *fault = fd >= 0 ? refuse(&st) : NULL;
    if (fd >= 0)
        close(fd);
    if (!fault && n < 0)
        fault = strerror(error);
    if (!fault && (n > FILE_MAX || memchr(text, '\0', (size_t)n)))
        fault = "must be a text of at most 256 KiB";
    if (!fault)
        return text;
    config_error(l, file, "", "%s", fault);
    free(text);
    return NULL;
}

void config_load_file(struct loader *l, const char *file)
{
    struct source s = {l, file};
    CLEANUP(free_ptr) char *text = read_text(l, file);
    if (!text)
        return;
    CLEANUP(free_ptr) char *copy = scan_text(&s, text);
    config_t tree;
    config_init(&tree);
    if (config_read_string(&tree, copy))
        read_group(&s, config_root_setting(&tree), "");
    else
        line_error(&s, (unsigned)config_error_line(&tree), "", "%s", config_error_text(&tree));
    config_destroy(&tree);
}
