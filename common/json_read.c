/* json_read: typed access to a tree, and text made from one. See json.h.
 *
 * Two manners of reading: json_str() and its kin for what the world answers (anything unexpected is
 * the default), struct json_reader for what a user wrote (anything unexpected is a fault that names
 * the field). The first fault stays: later getters find nothing and say nothing, so a parser reads
 * on without a check at every line. Numbers are doubles in the tree; none beyond 2^53 gets there,
 * so whole ones are exact. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"

#define WHOLE_MAX 9007199254740992.0 /* 2^53 */

const cJSON *json_get(const cJSON *object, const char *name)
{
    return cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, name) : NULL;
}

const char *json_str(const cJSON *object, const char *name, const char *otherwise)
{
    const cJSON *m = json_get(object, name);
    return cJSON_IsString(m) ? m->valuestring : otherwise;
}

int64_t json_int(const cJSON *object, const char *name, int64_t otherwise)
{
    const cJSON *m = json_get(object, name);
    if (!cJSON_IsNumber(m) || !(fabs(m->valuedouble) <= WHOLE_MAX))
        return otherwise;
    return (int64_t)m->valuedouble;
}

bool json_bool(const cJSON *object, const char *name, bool otherwise)
{
    const cJSON *m = json_get(object, name);
    return cJSON_IsBool(m) ? cJSON_IsTrue(m) != 0 : otherwise;
}

/* ---- the reader ---- */

bool json_failed(const struct json_reader *r)
{
    return r->error->text[0] != '\0';
}

void json_fail(struct json_reader *r, const char *name, const char *fmt, ...)
{
    if (json_failed(r))
        return;
    char what[192];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    bool dot = name && *name && r->path && *r->path;
    snprintf(r->error->text, sizeof r->error->text, "%.100s%s%.100s %s", r->path ? r->path : "",
             dot ? "." : "", name ? name : "", what);
}

/* The member, unless it is absent, null, or the reader has failed. */
static const cJSON *member(const struct json_reader *r, const char *name)
{
    const cJSON *m = json_failed(r) ? NULL : json_get(r->object, name);
    return cJSON_IsNull(m) ? NULL : m;
}

bool json_read_str(struct json_reader *r, const char *name, size_t max, const char **out)
{
    const cJSON *m = member(r, name);
    if (!m)
        return false;
    if (!cJSON_IsString(m))
        return json_fail(r, name, "must be a string"), false;
    if (strlen(m->valuestring) > max)
        return json_fail(r, name, "must not be longer than %zu bytes", max), false;
    *out = m->valuestring;
    return true;
}

bool json_read_int(struct json_reader *r, const char *name, int64_t min, int64_t max, int64_t *out)
{
    const cJSON *m = member(r, name);
    if (!m)
        return false;
    double d = cJSON_IsNumber(m) ? m->valuedouble : NAN;
    if (!(fabs(d) <= WHOLE_MAX) || d != floor(d) || (int64_t)d < min || (int64_t)d > max)
        return json_fail(r, name, "must be a whole number from %lld to %lld", (long long)min,
                         (long long)max),
               false;
    *out = (int64_t)d;
    return true;
}

bool json_read_bool(struct json_reader *r, const char *name, bool *out)
{
    const cJSON *m = member(r, name);
    if (!m)
        return false;
    if (!cJSON_IsBool(m))
        return json_fail(r, name, "must be true or false"), false;
    *out = cJSON_IsTrue(m) != 0;
    return true;
}

bool json_read_enum(struct json_reader *r, const char *name, const char *const *names, size_t n,
                    int *out)
{
    const cJSON *m = member(r, name);
    if (!m)
        return false;
    char allowed[160] = "";
    for (size_t i = 0, len = 0; i < n; i++) {
        if (cJSON_IsString(m) && strcmp(m->valuestring, names[i]) == 0) {
            *out = (int)i;
            return true;
        }
        int added = snprintf(allowed + len, sizeof allowed - len, "%s%s", i ? ", " : "", names[i]);
        len = MIN(len + (size_t)added, sizeof allowed - 1);
    }
    json_fail(r, name, "must be one of %s", allowed);
    return false;
}

bool json_read_time(struct json_reader *r, const char *name, uint64_t *ms)
{
    const cJSON *m = member(r, name);
    if (!m)
        return false;
    if (cJSON_IsString(m) && parse_time_ms(m->valuestring, ms))
        return true;
    json_fail(r, name, "must be an RFC 3339 time such as 2026-11-24T08:10:38Z");
    return false;
}

bool json_read_object(struct json_reader *r, const char *name, const cJSON **out)
{
    const cJSON *m = member(r, name);
    if (!m)
        return false;
    if (!cJSON_IsObject(m))
        return json_fail(r, name, "must be an object"), false;
    *out = m;
    return true;
}

bool json_read_array(struct json_reader *r, const char *name, size_t max, const cJSON **out)
{
    const cJSON *m = member(r, name);
    if (!m)
        return false;
    if (!cJSON_IsArray(m))
        return json_fail(r, name, "must be an array"), false;
    if ((size_t)cJSON_GetArraySize(m) > max)
        return json_fail(r, name, "must not have more than %zu elements", max), false;
    *out = m;
    return true;
}

/* ---- text ---- */

/* The escape of the character at p (n bytes), or false when it stands for itself. DEL and the C1
 * controls are legal in JSON but steer terminals, where logs and events end up. */
static bool quote_escape(struct buf *out, const char *p, size_t n)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    unsigned char c = (unsigned char)*p;
    const char *at = c ? strchr(plain, c) : NULL;
    if (n == 0)
        buf_adds(out, "\xef\xbf\xbd");
    else if (at)
        buf_add(out, (const char[]){'\\', letter[at - plain]}, 2);
    else if (c < 0x20 || c == 0x7f)
        buf_addf(out, "\\u%04x", c);
    else if (c == 0xc2 && (unsigned char)p[1] < 0xa0)
        buf_addf(out, "\\u%04x", (unsigned char)p[1]);
    else
        return false;
    return true;
}

void json_quote(struct buf *out, const char *text, size_t len)
{
    size_t from = 0, i = 0; /* [from, i) stands for itself and is not copied yet */
    buf_addc(out, '"');
    while (i < len) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
            i++;
            continue;
        }
        size_t n = utf8_char(text + i, len - i);
        buf_add(out, text + from, i - from);
        from = i;
        i += n ? n : 1;
        if (quote_escape(out, text + from, n))
            from = i;
    }
    buf_add(out, text + from, i - from);
    buf_addc(out, '"');
}

static int compare_keys(const void *a, const void *b)
{
    const cJSON *const *x = a, *const *y = b;
    return strcmp((*x)->string, (*y)->string);
}

static void canonical_object(struct buf *out, const cJSON *object)
{
    size_t n = (size_t)cJSON_GetArraySize(object), i = 0;
    CLEANUP(free_ptr) const cJSON **members = xcalloc(n, sizeof *members);
    for (const cJSON *m = object->child; m; m = m->next)
        members[i++] = m;
    qsort(members, n, sizeof *members, compare_keys);
    buf_addc(out, '{');
    for (i = 0; i < n; i++) {
        if (i > 0)
            buf_addc(out, ',');
        json_quote(out, members[i]->string, strlen(members[i]->string));
        buf_addc(out, ':');
        json_canonical(out, members[i]);
    }
    buf_addc(out, '}');
}

static void canonical_array(struct buf *out, const cJSON *array)
{
    buf_addc(out, '[');
    for (const cJSON *m = array->child; m; m = m->next) {
        json_canonical(out, m);
        if (m->next)
            buf_addc(out, ',');
    }
    buf_addc(out, ']');
}

/* 0.1 and not 0.10000000000000001: the first precision that reads back as the same. */
static void shortest_number(struct buf *out, double d)
{
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    buf_adds(out, text);
}

static void canonical_number(struct buf *out, double d)
{
    if (fabs(d) <= WHOLE_MAX && d == floor(d))
        buf_addf(out, "%lld", (long long)d);
    else
        shortest_number(out, d);
}

void json_canonical(struct buf *out, const cJSON *tree)
{
    if (cJSON_IsObject(tree))
        canonical_object(out, tree);
    else if (cJSON_IsArray(tree))
        canonical_array(out, tree);
    else if (cJSON_IsString(tree))
        json_quote(out, tree->valuestring, strlen(tree->valuestring));
    else if (cJSON_IsNumber(tree))
        canonical_number(out, tree->valuedouble);
    else if (cJSON_IsBool(tree))
        buf_adds(out, cJSON_IsTrue(tree) ? "true" : "false");
    else
        buf_adds(out, "null");
}
