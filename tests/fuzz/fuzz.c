/* fuzz: see the header. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "common/xalloc.h"

/* libconfig's lexer keeps a buffer when a text ends in the middle of a string. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig";
}

struct parts parts_of(const uint8_t *data, size_t size)
{
    return (struct parts){data ? (const char *)data : "", size};
}

struct part parts_next(struct parts *p)
{
    struct part found = {p->at, p->left};
    const char *end = p->at ? memchr(p->at, PART_END, p->left) : NULL;
    if (end)
        found.len = (size_t)(end - p->at);
    p->at = end ? end + 1 : NULL;
    p->left = end ? p->left - found.len - 1 : 0;
    return found;
}

size_t parts_headers(struct parts *p, struct header *out, size_t max)
{
    size_t n = 0;
    for (struct part name; n < max && (name = parts_next(p)).text; n++) {
        struct part value = parts_next(p);
        out[n].name = xmemdup0(name.text, name.len);
        out[n].value = xmemdup0(value.text ? value.text : "", value.len);
        out[n].len = value.len;
    }
    return n;
}

void parts_headers_done(struct header *headers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(headers[i].name);
        free(headers[i].value);
    }
}

bool text_is_clean(const char *text, size_t len)
{
    for (size_t i = 0, n; i < len; i += n) {
        const unsigned char *c = (const unsigned char *)text + i;
        n = utf8_char(text + i, len - i);
        bool control = c[0] < 0x20 || c[0] == 0x7f || (n == 2 && c[0] == 0xc2 && c[1] < 0xa0);
        if (n == 0 || control)
            return false;
    }
    return true;
}

static void check_line(void *arg, const char *line, size_t len)
{
    (void)arg;
    ASSERT(text_is_clean(line, len));
}

const struct config *fuzz_config(void)
{
    static struct config config;
    static const char *const sets[] = {"fleet=oh", "sweep.every_seconds=60"};
    static const char *const env[] = {"DAYTONA_API_KEY=dtn_fuzz", NULL};
    const struct config_source source = {
        .environ = (char *const *)(uintptr_t)env, .sets = sets, .n_sets = ARRAY_LEN(sets)};
    struct buf errors;
    if (config.loaded)
        return &config;
    buf_init(&errors, 10000);
    log_setup(LOG_LEVEL_DEBUG, LOG_LOGFMT);
    log_capture(check_line, NULL);
    ASSERT(config_load(&source, &config, &errors));
    buf_done(&errors);
    return &config;
}

void check_refusal(const char *message)
{
    ASSERT(message && text_is_clean(message, strlen(message)));
    ASSERT(strstr(message, " must ") || strstr(message, " needs "));
}

static const char *header_of(const struct message *m, const char *name)
{
    for (size_t i = 0; i < m->n_headers; i++)
        if (strcmp(m->headers[i].name, name) == 0)
            return m->headers[i].value;
    return NULL;
}

static void check_error(const cJSON *event)
{
    const cJSON *error = json_get(event, "error");
    const char *code = json_str(error, "code", "none"), *said = json_str(error, "message", "");
    bool known = false;
    for (int i = ERR_NONE + 1; i < N_ERRORS; i++)
        known |= strcmp(code, error_name((enum error_code)i)) == 0;
    ASSERT(known && *said && text_is_clean(said, strlen(said)));
    ASSERT(*json_str(error, "step", ""));
}

cJSON *check_message(const struct message *m)
{
    static const struct json_limits limits = {1000000, 64, 20000};
    char why[JSON_ERROR_SIZE];
    for (size_t i = 0; i < m->n_headers; i++) {
        const struct header *h = &m->headers[i];
        if (strncmp(h->name, "ce_", 3) == 0 || strncmp(h->name, "__connect.", 10) == 0)
            ASSERT(m->to == TO_DEAD_LETTERS || text_is_clean(h->value, h->len));
    }
    if (m->to == TO_DEAD_LETTERS) {
        ASSERT(header_of(m, "__connect.errors.exception.message"));
        return NULL;
    }
    cJSON *event = json_parse(m->value, m->value_len, &limits, why);
    ASSERT(event && m->key && header_of(m, "ce_id") && header_of(m, "ce_type"));
    ASSERT(strncmp(m->key, json_str(event, "session_id", ""), m->key_len) == 0);
    if (strcmp(json_str(event, "type", ""), "session-failed") == 0)
        check_error(event);
    return event;
}
