/* letter: see the header.
 *
 * A dead letter is the record as it came, with __connect.errors.* headers beside its own. To replay
 * it these go, and session-worker-original comes in: where the record first stood is the job's
 * default job_id, so that its event can be matched with what was sent at first. */
#include "worker/ctl/letter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/secret.h"
#include "common/xalloc.h"
#include "worker/ctl/advice.h"
#include "worker/ctl/record.h"
#include "worker/ctl/text.h"

#define OURS "__connect."
#define ERRORS "__connect.errors."
#define ORIGINAL "session-worker-original"
#define CUT "session-worker-cut"
#define SHOWN_MAX 16384 /* bytes of a value */
#define HEADER_SHOWN_MAX 1024
#define INDENT "    "

static char *find_origin(const struct record *r)
{
    const char *topic = record_header(r, ERRORS "topic");
    const char *partition = record_header(r, ERRORS "partition");
    const char *offset = record_header(r, ERRORS "offset");
    return topic && partition && offset ? xasprintf("%s/%s/%s", topic, partition, offset) : NULL;
}

void letter_read(struct letter *l, const struct record *r)
{
    *l = (struct letter){.record = r,
                         .code = record_header(r, ERRORS "exception.class.name"),
                         .message = record_header(r, ERRORS "exception.message"),
                         .session_id = record_session(r),
                         .origin = find_origin(r),
                         .first = record_header(r, ORIGINAL),
                         .cut = record_header(r, CUT) != NULL};
}

void letter_done(struct letter *l)
{
    free(l->session_id);
    free(l->origin);
}

/* ---- one line ---- */

const char *const letter_heads[LETTER_COLUMNS] = {"LETTER",  "ORIGIN", "CODE",
                                                  "SESSION", ">AGE",   "MESSAGE"};

void letter_row(const struct letter *l, uint64_t now_ms, struct table *t)
{
    const struct record *r = l->record;
    table_add(t, "%d/%lld", (int)r->partition, (long long)r->offset);
    table_text(t, l->origin);
    table_text(t, l->code);
    table_paint(t, YELLOW);
    table_text(t, l->session_id);
    if (r->timestamp_ms)
        table_age(t, now_ms - MIN(now_ms, r->timestamp_ms));
    else
        table_text(t, NULL);
    table_text(t, l->message);
}

/* ---- all of it ---- */

static void add_line(struct buf *out, const char *name, const char *text)
{
    if (!text)
        return;
    buf_addf(out, "  %-9s ", name);
    add_safe(out, text, strlen(text));
    buf_addc(out, '\n');
}

static void add_headers(const struct record *r, struct buf *out)
{
    buf_addf(out, "  headers%s\n", r->n_headers ? "" : "   none");
    for (size_t i = 0; i < r->n_headers; i++) {
        const struct header *h = &r->headers[i];
        buf_adds(out, INDENT);
        add_safe(out, h->name, strlen(h->name));
        if (!h->value) {
            buf_adds(out, ": null\n");
        } else if (is_text(h->value, h->len) && h->len <= HEADER_SHOWN_MAX) {
            buf_adds(out, ": ");
            add_safe(out, h->value, h->len);
            buf_addc(out, '\n');
        } else {
            buf_addf(out, ": %zu bytes\n", h->len);
            add_dump(out, INDENT INDENT, h->value, h->len, HEADER_SHOWN_MAX);
        }
    }
}

static void add_bytes(struct buf *out, const char *name, const char *bytes, size_t len)
{
    if (!bytes) {
        buf_addf(out, "  %-9s null\n", name);
        return;
    }
    buf_addf(out, "  %-9s %zu bytes\n", name, len);
    add_dump(out, INDENT, bytes, len, SHOWN_MAX);
}

void letter_text(const struct letter *l, uint64_t now_ms, struct buf *out)
{
    const struct record *r = l->record;
    char time[TIME_TEXT_SIZE];
    buf_addf(out, "dead letter %d/%lld of ", (int)r->partition, (long long)r->offset);
    add_safe(out, r->topic, strlen(r->topic));
    if (r->timestamp_ms) {
        format_time_ms(r->timestamp_ms, time);
        buf_addf(out, ", %s, ", time);
        add_age(out, now_ms - MIN(now_ms, r->timestamp_ms));
        buf_adds(out, " ago");
    }
    buf_addc(out, '\n');
    add_line(out, "code", l->code);
    add_line(out, "message", l->message);
    add_line(out, "to do", advice_for(l->code));
    add_line(out, "session", l->session_id);
    add_line(out, "from", l->origin);
    add_line(out, "first", l->first);
    add_line(out, "cut", l->cut ? letter_unsendable(l) : NULL);
    add_bytes(out, "key", r->key, r->key_len);
    add_headers(r, out);
    add_bytes(out, "value", r->value, r->value_len);
}

/* ---- JSON ---- */

static void add_base64(struct buf *out, const char *name, const char *bytes, size_t len)
{
    buf_addf(out, ",\"%s\":", name);
    if (!bytes) {
        buf_adds(out, "null");
        return;
    }
    buf_addc(out, '"');
    base64_encode(bytes, len, out);
    buf_addc(out, '"');
}

static void add_whole(const struct record *r, struct buf *out)
{
    add_base64(out, "key", r->key, r->key_len);
    buf_adds(out, ",\"headers\":[");
    for (size_t i = 0; i < r->n_headers; i++) {
        buf_adds(out, i ? ",{\"name\":" : "{\"name\":");
        json_quote(out, r->headers[i].name, strlen(r->headers[i].name));
        add_base64(out, "value", r->headers[i].value, r->headers[i].len);
        buf_addc(out, '}');
    }
    buf_addc(out, ']');
    add_base64(out, "value", r->value, r->value_len);
}

void letter_json(const struct letter *l, bool whole, struct buf *out)
{
    const struct record *r = l->record;
    char time[TIME_TEXT_SIZE] = "";
    if (r->timestamp_ms)
        format_time_ms(r->timestamp_ms, time);
    buf_addf(out, "{\"type\":\"dead-letter\",\"partition\":%d,\"offset\":%lld", (int)r->partition,
             (long long)r->offset);
    add_json_member(out, "time", *time ? time : NULL);
    add_json_member(out, "session_id", l->session_id);
    add_json_member(out, "code", l->code);
    add_json_member(out, "message", l->message);
    add_json_member(out, "origin", l->origin);
    add_json_member(out, "first", l->first);
    buf_addf(out, ",\"cut\":%s,\"bytes\":%zu", l->cut ? "true" : "false", r->value_len);
    if (whole)
        add_whole(r, out);
    buf_addc(out, '}');
}

/* ---- what becomes of it ---- */

const char *letter_unsendable(const struct letter *l)
{
    return l->cut ? "it was larger than its topic takes, so the end of its value is missing: "
                    "send the job anew"
                  : NULL;
}

static bool is_ours(const struct header *h)
{
    return strncmp(h->name, OURS, strlen(OURS)) == 0 || strcmp(h->name, CUT) == 0;
}

void letter_job(const struct letter *l, struct message *out)
{
    const struct record *r = l->record;
    *out = (struct message){.key = r->key ? xmemdup0(r->key, r->key_len) : NULL,
                            .key_len = r->key_len,
                            .value = r->value ? xmemdup0(r->value, r->value_len) : NULL,
                            .value_len = r->value_len};
    out->headers = xcalloc(r->n_headers + 1, sizeof *out->headers);
    for (size_t i = 0; i < r->n_headers; i++) {
        const struct header *h = &r->headers[i];
        if (!is_ours(h))
            out->headers[out->n_headers++] = (struct header){
                xstrdup(h->name), h->value ? xmemdup0(h->value, h->len) : NULL, h->len};
    }
    if (!l->first && l->origin)
        out->headers[out->n_headers++] =
            (struct header){xstrdup(ORIGINAL), xstrdup(l->origin), strlen(l->origin)};
}

char *letter_refusal(const struct letter *l, const struct config *cfg)
{
    struct message m;
    struct refusal why = {0};
    unsigned unknown;
    letter_job(l, &m);
    const struct record r = {.topic = cfg->topics.jobs,
                             .key = m.key,
                             .key_len = m.key_len,
                             .value = m.value,
                             .value_len = m.value_len,
                             .headers = m.headers,
                             .n_headers = m.n_headers};
    struct job *job = job_parse(&r, cfg, &why, &unknown);
    char *text = job ? NULL : xstrdup(why.message ? why.message : "it is no job");
    job_free(job);
    refusal_done(&why);
    message_done(&m);
    return text;
}
