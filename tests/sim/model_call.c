/* A request taken apart, and the shapes of replies.
 *
 * Daytona has four shapes of error: the main API's {path, timestamp, statusCode, error, message},
 * the short one for malformed JSON, the Go one of proxy and daemon, and the empty body. Segments
 * are split before they are percent-decoded, so a name may hold a slash. */
#include "tests/sim/model_impl.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/json.h"

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void percent_decode(char *text, bool plus_is_space)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        int high = *from == '%' ? hex_value(from[1]) : -1;
        int low = high >= 0 ? hex_value(from[2]) : -1;
        if (low >= 0) {
            *to++ = (char)(high << 4 | low);
            from += 2;
        } else {
            *to++ = plus_is_space && *from == '+' ? ' ' : *from;
        }
    }
    *to = '\0';
}

static void split_path(struct call *c)
{
    char *rest = c->segment_text + (c->segment_text[0] == '/');
    for (char *at; (at = strsep(&rest, "/")) && c->n_segments < N_SEGMENTS;) {
        percent_decode(at, false);
        c->segments[c->n_segments++] = at;
    }
    if (c->n_segments && !*c->segments[c->n_segments - 1])
        c->n_segments--;
}

static void split_query(struct call *c)
{
    char *rest = c->query_text;
    for (char *at; (at = strsep(&rest, "&")) && c->n_query < N_QUERY;) {
        char *value = strchr(at, '=');
        if (value)
            *value++ = '\0';
        percent_decode(at, true);
        if (value)
            percent_decode(value, true);
        c->query[c->n_query].name = at;
        c->query[c->n_query++].value = value ? value : at + strlen(at);
    }
}

void call_parse(struct call *c)
{
    const char *target = c->rq->target, *mark = strchr(target, '?');
    c->path = xmemdup0(target, mark ? (size_t)(mark - target) : strlen(target));
    c->segment_text = xstrdup(c->path);
    split_path(c);
    if (mark) {
        c->query_text = xstrdup(mark + 1);
        split_query(c);
    }
}

void sim_call_done(struct call *c)
{
    cJSON_Delete(c->body);
    free(c->path);
    free(c->segment_text);
    free(c->query_text);
}

const char *sim_call_header(const struct call *c, const char *name)
{
    for (size_t i = 0; i < c->rq->n_headers; i++)
        if (!strcasecmp(c->rq->headers[i].name, name))
            return c->rq->headers[i].value;
    return NULL;
}

const char *call_query(const struct call *c, const char *name)
{
    for (size_t i = 0; i < c->n_query; i++)
        if (!strcmp(c->query[i].name, name))
            return c->query[i].value;
    return NULL;
}

const char *call_segment(const struct call *c, size_t wildcard)
{
    const char *p = c->route->pattern;
    for (size_t segment = c->first; *p; segment++) {
        p++; /* the slash */
        if (*p == '*' && wildcard-- == 0)
            return c->segments[segment];
        p += strcspn(p, "/");
    }
    ASSERT(false); /* a handler asked for more than its pattern has */
    return NULL;
}

/* ---- bodies ---- */

enum { API_BODY_MAX = 100 * 1024 };

static bool is_json_type(const char *type)
{
    static const char json[] = "application/json";
    if (!type || strncasecmp(type, json, sizeof json - 1))
        return false;
    char next = type[sizeof json - 1];
    return next == '\0' || next == ';' || next == ' ';
}

/* The API reads a body only when it is called JSON; anything else it ignores without a word. */
void call_read_body(struct call *c)
{
    const struct sim_request *rq = c->rq;
    c->json_type = is_json_type(sim_call_header(c, "Content-Type"));
    if (!rq->body_len)
        return;
    if (rq->body_len > API_BODY_MAX) {
        api_error(c, 404, "Cannot %s %s", rq->method, rq->target);
        return;
    }
    if (!c->json_type) {
        violation(c->m, "body without JSON content type: %s", c->route->kind);
        return;
    }
    c->body = cJSON_ParseWithLength(rq->body, rq->body_len);
    if (cJSON_IsObject(c->body) || cJSON_IsArray(c->body))
        return;
    reply_json(c, 400);
    buf_adds(&c->re->body, "{\"message\":\"Invalid JSON in request body\",\"error\":\"Bad "
                           "Request\",\"statusCode\":400}");
}

/* ---- replies ---- */

void sim_reply_header(struct sim_reply *re, const char *name, const char *value)
{
    ASSERT(re->n_headers < SIM_REPLY_HEADERS);
    re->headers[re->n_headers].name = name;
    re->headers[re->n_headers++].value = xstrdup(value);
}

void reply_json(struct call *c, int status)
{
    c->re->status = status;
    sim_reply_header(c->re, "Content-Type", "application/json; charset=utf-8");
}

const char *reason_phrase(int status)
{
    static const struct {
        int status;
        const char *text;
    } phrases[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {301, "Moved Permanently"},
        {307, "Temporary Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {422, "Unprocessable Entity"},
        {429, "Too Many Requests"},
        {500, "Internal Server Error"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
    };
    for (size_t i = 0; i < ARRAY_LEN(phrases); i++)
        if (phrases[i].status == status)
            return phrases[i].text;
    return "Unknown";
}

static char *PRINTF_LIKE(1, 0) format(const char *fmt, va_list ap)
{
    struct buf text;
    buf_init(&text, TEXT_MAX);
    buf_vaddf(&text, fmt, ap);
    return buf_steal(&text);
}

void api_error(struct call *c, int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *message = format(fmt, ap);
    va_end(ap);
    char when[TIME_TEXT_SIZE];
    format_time_ms(wall_ms(c->m), when);
    struct buf *b = &c->re->body;
    reply_json(c, status);
    buf_adds(b, "{\"path\":");
    json_quote(b, c->rq->target, strlen(c->rq->target));
    buf_addf(b, ",\"timestamp\":\"%s\",\"statusCode\":%d,\"error\":\"%s\",\"message\":", when,
             status, reason_phrase(status));
    json_quote(b, message, strlen(message));
    buf_addc(b, '}');
    free(message);
}

static const char *go_code(int status)
{
    static const struct {
        int status;
        const char *code;
    } codes[] = {{400, "BAD_REQUEST"}, {401, "UNAUTHORIZED"},    {403, "FORBIDDEN"},
                 {404, "NOT_FOUND"},   {408, "REQUEST_TIMEOUT"}, {409, "CONFLICT"}};
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (codes[i].status == status)
            return codes[i].code;
    return NULL;
}

/* The path as the answering program saw it: the daemon's has no /toolbox/<id> in front. */
static const char *seen_path(const struct call *c)
{
    const char *path = c->rq->target;
    for (size_t i = 0; i < c->first && path; i++)
        path = strchr(path + 1, '/');
    return path ? path : "/";
}

void go_error(struct call *c, int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *message = format(fmt, ap);
    va_end(ap);
    const char *code =
        !strncmp(message, "invalid body request", 20) ? "INVALID_REQUEST_BODY" : go_code(status);
    struct buf *b = &c->re->body;
    c->re->status = status;
    sim_reply_header(c->re, "Content-Type", "application/json");
    buf_addf(b, "{\"statusCode\":%d,\"message\":", status);
    json_quote(b, message, strlen(message));
    if (code) {
        char when[TIME_TEXT_SIZE];
        const char *path = seen_path(c);
        format_time_ms(wall_ms(c->m), when);
        buf_addf(b, ",\"code\":\"%s\",\"timestamp\":\"%.23s%06uZ\",\"path\":", code, when,
                 (unsigned)(model_random(c->m) % 1000000));
        json_quote(b, path, strcspn(path, "?"));
        buf_addf(b, ",\"method\":\"%s\"}", c->rq->method);
    } else {
        buf_adds(b, ",\"timestamp\":\"0001-01-01T00:00:00Z\",\"path\":\"\"}");
    }
    free(message);
}

void text_reply(struct call *c, int status, const char *type, const char *text)
{
    c->re->status = status;
    sim_reply_header(c->re, "Content-Type", type);
    buf_adds(&c->re->body, text);
}

void empty_reply(struct call *c, int status)
{
    c->re->status = status;
}
