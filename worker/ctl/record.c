/* record: see the header.
 *
 * Whose record it is, is asked of every record of a scan, so the key answers if there is one, and a
 * value is parsed only when it holds the session's id at all. */
#include "worker/ctl/record.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "worker/ctl/scan.h"

static struct header *copy_headers(rd_kafka_message_t *m, size_t *n)
{
    rd_kafka_headers_t *list;
    const char *name;
    const void *value;
    size_t len;
    *n = 0;
    if (rd_kafka_message_headers(m, &list) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return NULL;
    struct header *headers = xcalloc(rd_kafka_header_cnt(list), sizeof *headers);
    for (size_t i = 0; !rd_kafka_header_get_all(list, i, &name, &value, &len); i++)
        headers[(*n)++] = (struct header){xstrdup(name), value ? xmemdup0(value, len) : NULL, len};
    return headers;
}

struct record *record_new(rd_kafka_message_t *m)
{
    struct record *r = xcalloc(1, sizeof *r);
    *r = (struct record){.topic = xstrdup(rd_kafka_topic_name(m->rkt)),
                         .partition = m->partition,
                         .offset = m->offset,
                         .timestamp_ms = message_time_ms(m),
                         .key = m->key ? xmemdup0(m->key, m->key_len) : NULL,
                         .key_len = m->key_len,
                         .value = m->payload ? xmemdup0(m->payload, m->len) : NULL,
                         .value_len = m->len};
    r->headers = copy_headers(m, &r->n_headers);
    return r;
}

static void free_const(const void *p)
{
    free((void *)(uintptr_t)p);
}

void record_free(struct record *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n_headers; i++) {
        free(r->headers[i].name);
        free(r->headers[i].value);
    }
    free_const(r->headers);
    free_const(r->topic);
    free_const(r->key);
    free_const(r->value);
    free(r);
}

const char *record_header(const struct record *r, const char *name)
{
    for (size_t i = r->n_headers; i-- > 0;) {
        const struct header *h = &r->headers[i];
        if (strcmp(h->name, name) == 0)
            return h->value && !memchr(h->value, '\0', h->len) ? h->value : NULL;
    }
    return NULL;
}

/* ---- whose it is ---- */

static char *session_in_value(const struct record *r)
{
    cJSON *tree = json_parse_reply(r->value ? r->value : "", r->value_len);
    const char *id = json_str(tree, "session_id", NULL);
    char *session = xstrdup0(id ? id : json_str(json_get(tree, "data"), "session_id", NULL));
    cJSON_Delete(tree);
    return session;
}

static bool has_key(const struct record *r)
{
    return r->key && r->key_len > 0 && !memchr(r->key, '\0', r->key_len);
}

char *record_session(const struct record *r)
{
    return has_key(r) ? xmemdup0(r->key, r->key_len) : session_in_value(r);
}

bool record_is_about(const struct record *r, const char *session_id)
{
    size_t len = strlen(session_id);
    if (has_key(r))
        return r->key_len == len && memcmp(r->key, session_id, len) == 0;
    if (!r->value || !memmem(r->value, r->value_len, session_id, len))
        return false;
    CLEANUP(free_ptr) char *found = session_in_value(r);
    return found && strcmp(found, session_id) == 0;
}
