/* The recordings' own rule: what must be equal, what may be called otherwise, what is only shape.
 *
 * A name that the world invents (an id, a token, a cursor) is bound where it is first seen, and
 * from then on stands for ours, in answers and in later requests. The digits in
 * DESTROYED_<name>_<ms> are a time. Status, headers and the fields in `exact_fields` must be equal;
 * of everything else it is compared whether it is there and of what type. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/xalloc.h"
#include "tests/sim/replay.h"

enum { TEXT_LIMIT = 1 << 22 };

const char *text_of(const cJSON *o, const char *name)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);
    return cJSON_IsString(v) ? v->valuestring : "";
}

double number_of(const cJSON *o, const char *name)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);
    return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

const cJSON *member(const cJSON *o, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(o, name);
}

/* ---- bindings ---- */

static void bind_text(struct world *w, const char *recorded, const char *actual)
{
    if (!*recorded)
        return;
    for (size_t i = 0; i < w->n_bound; i++)
        if (!strcmp(w->bound[i].recorded, recorded))
            return;
    GROW(w->bound, w->n_bound, w->cap_bound);
    w->bound[w->n_bound++] = (struct binding){xstrdup(recorded), xstrdup(actual)};
}

enum { ID_LENGTH = 36, ID_PREFIX = 8 };

/* A list can be asked for by the beginning of an id, too. */
static void bind_both(struct world *w, const char *recorded, const char *actual)
{
    bind_text(w, recorded, actual);
    if (strlen(recorded) != ID_LENGTH || strlen(actual) != ID_LENGTH)
        return;
    char *a = xmemdup0(recorded, ID_PREFIX), *b = xmemdup0(actual, ID_PREFIX);
    bind_text(w, a, b);
    free(a);
    free(b);
}

/* text with every bound name replaced by what it is here. */
char *translate(const struct world *w, const char *text)
{
    struct buf out;
    buf_init(&out, TEXT_LIMIT);
    while (*text) {
        size_t i = 0;
        while (i < w->n_bound &&
               strncmp(w->bound[i].recorded, text, strlen(w->bound[i].recorded)) != 0)
            i++;
        if (i == w->n_bound) {
            buf_addc(&out, *text++);
            continue;
        }
        buf_adds(&out, w->bound[i].actual);
        text += strlen(w->bound[i].recorded);
    }
    return buf_steal(&out);
}

/* ---- comparing ---- */

struct compare {
    struct world *w;
    char *fault; /* of FAULT_SIZE; the first difference */
};

static void PRINTF_LIKE(2, 3) differ(struct compare *c, const char *fmt, ...)
{
    va_list ap;
    if (*c->fault)
        return;
    va_start(ap, fmt);
    vsnprintf(c->fault, FAULT_SIZE, fmt, ap);
    va_end(ap);
}

static bool in_list(const char *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], name))
            return true;
    return false;
}

static const char *const bound_fields[] = {"id",    "organizationId", "runnerId",  "cmdId",
                                           "token", "sandboxId",      "nextCursor"};
static const char *const exact_fields[] = {"labels",
                                           "state",
                                           "desiredState",
                                           "autoStopInterval",
                                           "autoArchiveInterval",
                                           "autoDeleteInterval",
                                           "cpu",
                                           "memory",
                                           "disk",
                                           "public",
                                           "target",
                                           "snapshot",
                                           "user",
                                           "statusCode",
                                           "error",
                                           "code",
                                           "exitCode",
                                           "output",
                                           "stdout",
                                           "stderr",
                                           "result",
                                           "command",
                                           "sessionId",
                                           "isInUse",
                                           "path",
                                           "method",
                                           "url",
                                           "total",
                                           "page",
                                           "totalPages",
                                           "status",
                                           "rateLimit",
                                           "port"};

/* DESTROYED_<name>_<ms>: the digits are a time. */
static char *mask_destroyed(const char *text)
{
    size_t len = strlen(text);
    if (strncmp(text, "DESTROYED_", 10) == 0 && len > 24)
        while (len > 10 && isdigit((unsigned char)text[len - 1]))
            len--;
    return xmemdup0(text, len);
}

static void compare_text(struct compare *c, const char *name, const char *recorded,
                         const char *actual)
{
    if (strstr(recorded, "stub:"))
        return;
    char *expected = translate(c->w, recorded);
    char *a = mask_destroyed(expected), *b = mask_destroyed(actual);
    if (strcmp(a, b) != 0)
        differ(c, "%s: \"%.100s\", recorded \"%.100s\"", name, actual, expected);
    free(a);
    free(b);
    free(expected);
}

static const char *kind_of(const cJSON *v)
{
    return !v                  ? "absent"
           : cJSON_IsNull(v)   ? "null"
           : cJSON_IsBool(v)   ? "boolean"
           : cJSON_IsNumber(v) ? "number"
           : cJSON_IsString(v) ? "text"
           : cJSON_IsArray(v)  ? "array"
                               : "object";
}

static void compare_value(struct compare *c, const char *name, const cJSON *recorded,
                          const cJSON *actual, bool exact);

static void compare_object(struct compare *c, const cJSON *recorded, const cJSON *actual,
                           bool exact)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, recorded)
    {
        compare_value(c, v->string, v, member(actual, v->string),
                      exact || in_list(exact_fields, ARRAY_LEN(exact_fields), v->string));
    }
    cJSON_ArrayForEach(v, actual)
    {
        if (!member(recorded, v->string))
            differ(c, "%s is not in the recording", v->string);
    }
}

static int by_text(const void *a, const void *b)
{
    const cJSON *x = *(const cJSON *const *)a, *y = *(const cJSON *const *)b;
    const char *key = *text_of(x, "sessionId") ? "sessionId" : "command";
    return strcmp(text_of(x, key), text_of(y, key));
}

/* The daemon keeps sessions and commands in a map: their order means nothing. */
static const cJSON **children(const cJSON *array, bool sorted)
{
    size_t n = (size_t)cJSON_GetArraySize(array), i = 0;
    const cJSON **list = xcalloc(n + 1, sizeof *list), *v;
    cJSON_ArrayForEach(v, array)
    {
        list[i++] = v;
    }
    if (sorted)
        qsort(list, n, sizeof *list, by_text);
    return list;
}

static void compare_array(struct compare *c, const char *name, const cJSON *recorded,
                          const cJSON *actual, bool exact)
{
    int n = cJSON_GetArraySize(recorded), have = cJSON_GetArraySize(actual);
    if (n != have) {
        differ(c, "%s: %d items, recorded %d", name, have, n);
        return;
    }
    bool unordered = !strcmp(name, "commands") || (n && *text_of(recorded->child, "sessionId"));
    const cJSON **a = children(recorded, unordered), **b = children(actual, unordered);
    for (int i = 0; i < n; i++)
        compare_value(c, name, a[i], b[i], exact);
    free(a);
    free(b);
}

static void compare_value(struct compare *c, const char *name, const cJSON *recorded,
                          const cJSON *actual, bool exact)
{
    if (strcmp(kind_of(recorded), kind_of(actual)) != 0) {
        differ(c, "%s is %s, recorded %s", name, kind_of(actual), kind_of(recorded));
    } else if (cJSON_IsString(recorded)) {
        bool is_name = !strcmp(name, "name") || !strcmp(name, "message");
        if (in_list(bound_fields, ARRAY_LEN(bound_fields), name))
            bind_both(c->w, recorded->valuestring, actual->valuestring);
        if (exact || is_name || in_list(bound_fields, ARRAY_LEN(bound_fields), name))
            compare_text(c, name, recorded->valuestring, actual->valuestring);
    } else if (cJSON_IsNumber(recorded)) {
        if (exact && (recorded->valuedouble > actual->valuedouble ||
                      recorded->valuedouble < actual->valuedouble))
            differ(c, "%s: %g, recorded %g", name, actual->valuedouble, recorded->valuedouble);
    } else if (cJSON_IsBool(recorded)) {
        if (exact && cJSON_IsTrue(recorded) != cJSON_IsTrue(actual))
            differ(c, "%s: %s, recorded otherwise", name, cJSON_IsTrue(actual) ? "true" : "false");
    } else if (cJSON_IsArray(recorded)) {
        compare_array(c, name, recorded, actual, exact);
    } else {
        compare_object(c, recorded, actual, exact);
    }
}

static const char *reply_field(const struct sim_reply *re, const char *name)
{
    for (size_t i = 0; i < re->n_headers; i++)
        if (!strcasecmp(re->headers[i].name, name))
            return re->headers[i].value;
    return NULL;
}

static void compare_headers(struct compare *c, const cJSON *recorded, const struct sim_reply *re)
{
    const cJSON *h;
    cJSON_ArrayForEach(h, recorded)
    {
        const char *have = reply_field(re, h->string);
        bool exact =
            !strncmp(h->string, "x-ratelimit-limit", 17) || !strcmp(h->string, "content-type");
        if (!have)
            differ(c, "no header %s", h->string);
        else if (exact && strcasecmp(have, h->valuestring) != 0)
            differ(c, "%s: %s, recorded %s", h->string, have, h->valuestring);
    }
    for (size_t i = 0; i < re->n_headers; i++) {
        bool known = false;
        cJSON_ArrayForEach(h, recorded)
        {
            known |= !strcasecmp(h->string, re->headers[i].name);
        }
        if (!known)
            differ(c, "header %s is not in the recording", re->headers[i].name);
    }
}

static void compare_body(struct compare *c, const cJSON *recorded, const struct sim_reply *re)
{
    const cJSON *body = member(recorded, "body");
    const char *type = text_of(member(recorded, "headers"), "content-type");
    if (cJSON_IsTrue(member(recorded, "empty"))) {
        if (re->body.len)
            differ(c, "body of %zu bytes, recorded none", re->body.len);
    } else if (body) {
        cJSON *actual = cJSON_ParseWithLength(buf_text(&re->body), re->body.len);
        compare_value(c, "body", body, actual, false);
        cJSON_Delete(actual);
    } else if (!strstr(type, "html") && !member(recorded, "text_cut")) {
        compare_text(c, "text", text_of(recorded, "text"), buf_text(&re->body));
    }
}

void judge(struct world *w, struct exchange *x, const struct sim_reply *re)
{
    const cJSON *recorded = member(x->tree, "response");
    struct compare c = {w, x->fault};
    int status = (int)number_of(recorded, "status");
    x->done = true;
    if (re->status != status)
        differ(&c, "status %d, recorded %d (%.120s)", re->status, status, buf_text(&re->body));
    compare_headers(&c, member(recorded, "headers"), re);
    compare_body(&c, recorded, re);
}
