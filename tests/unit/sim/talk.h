/* A conversation with the model, as a table of lines: wait, ask, expect. For the tests in this
 * folder.
 *
 * A line's target, host and body may hold {id}, {token}, {cmd} and {cursor}: what the last answer
 * that had one called so. `has` is a text that the answer's body must contain, after the same
 * replacing; with a ! in front, must not. A request that is held is waited for in virtual time. */
#ifndef TEST_SIM_TALK_H
#define TEST_SIM_TALK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "tests/sim/model.h"

struct line {
    unsigned after_ms;
    const char *ask; /* "GET /api/sandbox/a"; with a preview host: "GET 8000-{id} /alive" */
    const char *body;
    int status; /* 0: the connection is closed without an answer */
    const char *has, *has_too;
};

struct talk {
    struct model *m;
    uint64_t now_ns;
    uint64_t took_ns;                       /* the last answer */
    char *key;                              /* authorization; NULL: none */
    const char *header_name, *header_value; /* one more; NULL: none */
    const char *content_type;
    char *id, *token, *cmd, *cursor;
    struct sim_reply reply; /* the last */
};

static const uint64_t talk_wall_ms = UINT64_C(1795500000000); /* on a tick of the crons */

static void talk_begin(struct talk *t, const struct model_options *opt)
{
    struct model_options o = opt ? *opt : (struct model_options){0};
    char error[MODEL_ERROR_SIZE];
    o.wall_ms = talk_wall_ms;
    o.base_url = "http://127.0.0.1:3986";
    o.domain = "localhost:3986";
    *t = (struct talk){.key = xstrdup("Bearer dtn_test"), .content_type = "application/json"};
    t->m = model_new(&o, error);
    assert_non_null(t->m);
}

static void talk_end(struct talk *t)
{
    sim_reply_done(&t->reply);
    model_free(t->m);
    free(t->key);
    free(t->id);
    free(t->token);
    free(t->cmd);
    free(t->cursor);
}

static void keep(char **to, const cJSON *tree, const char *name)
{
    const char *value = json_str(tree, name, NULL);
    if (!value)
        return;
    free(*to);
    *to = xstrdup(value);
}

static char *fill_in(const struct talk *t, const char *text)
{
    const struct {
        const char *name, *value;
    } names[] = {
        {"{id}", t->id}, {"{token}", t->token}, {"{cmd}", t->cmd}, {"{cursor}", t->cursor}};
    struct buf out;
    buf_init(&out, 1 << 20);
    while (text && *text) {
        size_t i = 0;
        while (i < ARRAY_LEN(names) && strncmp(text, names[i].name, strlen(names[i].name)) != 0)
            i++;
        if (i == ARRAY_LEN(names)) {
            buf_addc(&out, *text++);
            continue;
        }
        buf_adds(&out, names[i].value ? names[i].value : "?");
        text += strlen(names[i].name);
    }
    return buf_steal(&out);
}

/* Lets the model run until the reply to token is there. */
static void wait_for(struct talk *t, uint64_t token)
{
    for (int i = 0; i < 1000; i++) {
        uint64_t next = model_next(t->m);
        assert_true(next != NEVER);
        t->now_ns = MAX(t->now_ns, next);
        while (model_advance(t->m, t->now_ns, &t->reply)) {
            if (t->reply.token == token)
                return;
            sim_reply_done(&t->reply);
        }
    }
    fail_msg("a held request is never answered");
}

static void learn(struct talk *t)
{
    cJSON *tree = cJSON_ParseWithLength(buf_text(&t->reply.body), t->reply.body.len);
    if (json_get(tree, "toolboxProxyUrl"))
        keep(&t->id, tree, "id");
    keep(&t->token, tree, "token");
    keep(&t->cmd, tree, "cmdId");
    keep(&t->cursor, tree, "nextCursor");
    cJSON_Delete(tree);
}

static void send_request(struct talk *t, const struct sim_request *rq)
{
    uint64_t asked = t->now_ns;
    sim_reply_done(&t->reply);
    model_request(t->m, t->now_ns, rq, &t->reply);
    if (t->reply.held) {
        uint64_t token = t->reply.token;
        sim_reply_done(&t->reply);
        wait_for(t, token);
    }
    if (t->reply.at_ns != NEVER)
        t->now_ns = MAX(t->now_ns, t->reply.at_ns);
    t->took_ns = t->now_ns - asked;
    learn(t);
}

static size_t talk_headers(const struct talk *t, bool body, struct sim_header to[3])
{
    size_t n = 0;
    if (t->key)
        to[n++] = (struct sim_header){"Authorization", t->key};
    if (body && t->content_type)
        to[n++] = (struct sim_header){"Content-Type", t->content_type};
    if (t->header_name)
        to[n++] = (struct sim_header){t->header_name, t->header_value};
    return n;
}

/* "METHOD target" or "METHOD host target" */
static void ask(struct talk *t, const char *what, const char *body)
{
    char *text = fill_in(t, what), *filled = fill_in(t, body), *rest = text;
    char *header = t->header_value ? fill_in(t, t->header_value) : NULL, *host = NULL;
    const char *before = t->header_value;
    struct sim_header headers[3];
    struct sim_request rq = {.method = strsep(&rest, " "), .host = "127.0.0.1:3986"};
    if (*rest != '/') {
        host = xasprintf("%s.localhost:3986", strsep(&rest, " "));
        rq.host = host;
    }
    rq.target = rest;
    t->header_value = header;
    rq.headers = headers;
    rq.n_headers = talk_headers(t, body != NULL, headers);
    rq.body = body ? filled : NULL;
    rq.body_len = body ? strlen(filled) : 0;
    send_request(t, &rq);
    t->header_value = before;
    free(header);
    free(host);
    free(text);
    free(filled);
}

static inline const char *answer_header(const struct talk *t, const char *name)
{
    for (size_t i = 0; i < t->reply.n_headers; i++)
        if (!strcasecmp(t->reply.headers[i].name, name))
            return t->reply.headers[i].value;
    return NULL;
}

static void expect_has(const struct talk *t, const struct line *l, const char *has)
{
    bool absent = has && *has == '!';
    char *text = fill_in(t, absent ? has + 1 : has);
    if (has && (strstr(buf_text(&t->reply.body), text) == NULL) != absent)
        fail_msg("%s: answered %s, expected %s%s", l->ask, buf_text(&t->reply.body),
                 absent ? "no " : "", text);
    free(text);
}

static void say(struct talk *t, const struct line *l)
{
    t->now_ns += l->after_ms * NS_PER_MS;
    ask(t, l->ask, l->body);
    int status = t->reply.lost || t->reply.at_ns == NEVER ? 0 : t->reply.status;
    if (status != l->status)
        fail_msg("%s: answered %d %s, expected %d", l->ask, status, buf_text(&t->reply.body),
                 l->status);
    expect_has(t, l, l->has);
    expect_has(t, l, l->has_too);
}

#define SAY(t, ...)                                                                                \
    do {                                                                                           \
        const struct line lines_[] = {__VA_ARGS__};                                                \
        for (size_t i_ = 0; i_ < ARRAY_LEN(lines_); i_++)                                          \
            say(t, &lines_[i_]);                                                                   \
    } while (0)

#endif
