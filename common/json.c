/* json: text to tree. See the header.
 *
 * cJSON takes more than JSON (control bytes, broken UTF-8, leading zeros, duplicate keys, trailing
 * bytes), cuts strings at \u0000, rounds large numbers in silence and needs up to forty times the
 * text's size. So every text is scanned first by the strict grammar of RFC 8259 and within limits;
 * cJSON only ever sees what passed. The scan recurses at most max_depth deep. Duplicate keys are
 * found in the tree, where escapes are decoded ("a" and "\u0061" are one key).
 *
 * Invariant: a string of a tree made by json_parse is complete up to its NUL and is valid UTF-8. */
#include "common/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

#define NUMBER_MAX 63 /* characters; cJSON's own limit */

const struct json_limits json_limits_job = {262144, 32, 1024};
const struct json_limits json_limits_reply = {1048576, 32, 20000};

struct scan {
    const char *start, *p, *end;
    const struct json_limits *limits;
    bool strict; /* also UTF-8, \u0000, control bytes and the size of numbers */
    char *error;
};

static PRINTF_LIKE(2, 3) bool scan_fail(struct scan *s, const char *fmt, ...)
{
    char what[JSON_ERROR_SIZE - 40];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    snprintf(s->error, JSON_ERROR_SIZE, "%s at byte %zu", what, (size_t)(s->p - s->start));
    return false;
}

static void skip_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

static bool next_is(const struct scan *s, char c)
{
    return s->p < s->end && *s->p == c;
}

static bool take(struct scan *s, char c)
{
    if (!next_is(s, c))
        return false;
    s->p++;
    return true;
}

/* Skips digits; false when there is none. */
static bool skip_digits(struct scan *s)
{
    const char *from = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return s->p > from;
}

static bool number_syntax(struct scan *s)
{
    take(s, '-');
    if (!take(s, '0') && !skip_digits(s))
        return scan_fail(s, "unexpected byte");
    if (take(s, '.') && !skip_digits(s))
        return scan_fail(s, "broken number");
    if (!take(s, 'e') && !take(s, 'E'))
        return true;
    if (!take(s, '+'))
        take(s, '-');
    return skip_digits(s) || scan_fail(s, "broken number");
}

/* A whole number is looked at digit by digit: 2^53 + 1 as a double is 2^53. */
static bool is_exact(const char *text, size_t len)
{
    const int64_t most = INT64_C(1) << 53;
    int64_t n;
    if (strcspn(text, ".eE") == len && len > 15)
        return parse_i64(text, len, -most, most, &n);
    return fabs(strtod(text, NULL)) <= (double)most;
}

static bool scan_number(struct scan *s)
{
    const char *from = s->p;
    if (!number_syntax(s))
        return false;
    size_t len = (size_t)(s->p - from);
    char text[NUMBER_MAX + 1];
    if (len > NUMBER_MAX)
        return scan_fail(s, "number of more than %d characters", NUMBER_MAX);
    memcpy(text, from, len);
    text[len] = '\0';
    return !s->strict || is_exact(text, len) || scan_fail(s, "number beyond 2^53");
}

/* Four hex digits behind "\u"; -1: there are none. */
static int scan_hex4(struct scan *s)
{
    int value = 0;
    for (int i = 0; i < 4; i++, s->p++) {
        static const char hex[] = "0123456789abcdef0123456789ABCDEF";
        const char *at = s->p < s->end && *s->p ? strchr(hex, *s->p) : NULL;
        if (!at)
            return -1;
        value = value * 16 + (int)((at - hex) % 16);
    }
    return value;
}

static bool scan_unicode_escape(struct scan *s)
{
    int unit = scan_hex4(s);
    if (unit < 0)
        return scan_fail(s, "broken \\u escape");
    if (unit == 0 && s->strict)
        return scan_fail(s, "\\u0000 is not allowed");
    if (unit >= 0xdc00 && unit <= 0xdfff)
        return scan_fail(s, "lone surrogate");
    if (unit < 0xd800 || unit > 0xdbff)
        return true;
    int low = take(s, '\\') && take(s, 'u') ? scan_hex4(s) : -1;
    return (low >= 0xdc00 && low <= 0xdfff) || scan_fail(s, "lone surrogate");
}

static bool scan_escape(struct scan *s)
{
    s->p++;
    if (take(s, 'u'))
        return scan_unicode_escape(s);
    if (s->p == s->end || *s->p == '\0' || !strchr("\"\\/bfnrt", *s->p))
        return scan_fail(s, "unknown escape");
    s->p++;
    return true;
}

static bool scan_char(struct scan *s)
{
    if (*s->p == '\\')
        return scan_escape(s);
    if ((unsigned char)*s->p < 0x20 && s->strict)
        return scan_fail(s, "control byte in a string");
    size_t n = utf8_char(s->p, (size_t)(s->end - s->p));
    if (n == 0 && s->strict)
        return scan_fail(s, "invalid UTF-8");
    s->p += n ? n : 1;
    return true;
}

static bool scan_string(struct scan *s)
{
    if (!take(s, '"'))
        return scan_fail(s, "a string is missing");
    while (s->p < s->end) {
        if (take(s, '"'))
            return true;
        if (!scan_char(s))
            return false;
    }
    return scan_fail(s, "unfinished string");
}

static bool scan_value(struct scan *s, unsigned depth);

static bool scan_array(struct scan *s, unsigned depth)
{
    s->p++;
    skip_space(s);
    if (take(s, ']'))
        return true;
    do {
        if (!scan_value(s, depth + 1))
            return false;
    } while (take(s, ','));
    return take(s, ']') || scan_fail(s, "',' or ']' is missing");
}

static bool scan_member(struct scan *s, unsigned depth)
{
    skip_space(s);
    if (!scan_string(s))
        return false;
    skip_space(s);
    if (!take(s, ':'))
        return scan_fail(s, "':' is missing");
    return scan_value(s, depth + 1);
}

static bool scan_object(struct scan *s, unsigned depth)
{
    s->p++;
    skip_space(s);
    if (take(s, '}'))
        return true;
    unsigned keys = 0;
    do {
        if (++keys > s->limits->max_keys)
            return scan_fail(s, "more than %u keys in one object", s->limits->max_keys);
        if (!scan_member(s, depth))
            return false;
    } while (take(s, ','));
    return take(s, '}') || scan_fail(s, "',' or '}' is missing");
}

static bool scan_word(struct scan *s)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(s->end - s->p) >= n && memcmp(s->p, words[i], n) == 0) {
            s->p += n;
            return true;
        }
    }
    return scan_number(s);
}

/* One value with the white space around it. */
static bool scan_value(struct scan *s, unsigned depth)
{
    if (depth > s->limits->max_depth)
        return scan_fail(s, "nested deeper than %u", s->limits->max_depth);
    skip_space(s);
    if (s->p == s->end)
        return scan_fail(s, "unexpected end");
    bool ok = next_is(s, '{')   ? scan_object(s, depth)
              : next_is(s, '[') ? scan_array(s, depth)
              : next_is(s, '"') ? scan_string(s)
                                : scan_word(s);
    skip_space(s);
    return ok;
}

static bool scan_text(struct scan *s)
{
    size_t len = (size_t)(s->end - s->start);
    if (len > s->limits->max_bytes)
        return snprintf(s->error, JSON_ERROR_SIZE, "%zu bytes, more than %zu", len,
                        s->limits->max_bytes),
               false;
    return scan_value(s, 1) && (s->p == s->end || scan_fail(s, "trailing bytes"));
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A key that the object has twice, or NULL. */
static const char *duplicate_key(const cJSON *object)
{
    size_t n = (size_t)cJSON_GetArraySize(object), i = 0;
    if (n < 2)
        return NULL;
    CLEANUP(free_ptr) const char **keys = xcalloc(n, sizeof *keys);
    for (const cJSON *m = object->child; m; m = m->next)
        keys[i++] = m->string;
    qsort(keys, n, sizeof *keys, compare_text);
    for (i = 1; i < n; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            return keys[i];
    return NULL;
}

static const char *duplicate_key_below(const cJSON *tree)
{
    const char *key = cJSON_IsObject(tree) ? duplicate_key(tree) : NULL;
    for (const cJSON *m = tree->child; m && !key; m = m->next)
        key = duplicate_key_below(m);
    return key;
}

cJSON *json_parse(const char *text, size_t len, const struct json_limits *limits,
                  char error[JSON_ERROR_SIZE])
{
    struct scan s = {text, text, text + len, limits, true, error};
    if (!scan_text(&s))
        return NULL;
    cJSON *tree = cJSON_ParseWithLengthOpts(text, len, NULL, 0);
    if (!tree) {
        snprintf(error, JSON_ERROR_SIZE, "cannot be parsed");
        return NULL;
    }
    const char *key = duplicate_key_below(tree);
    if (key) {
        snprintf(error, JSON_ERROR_SIZE, "duplicate key %.64s", key);
        cJSON_Delete(tree);
        return NULL;
    }
    return tree;
}

cJSON *json_parse_reply(const char *text, size_t len)
{
    char error[JSON_ERROR_SIZE];
    struct scan s = {text, text, text + len, &json_limits_reply, false, error};
    return scan_text(&s) ? cJSON_ParseWithLengthOpts(text, len, NULL, 0) : NULL;
}
