/* letter: a record that becomes a dead letter, and what sessionctl makes of that.
 *
 * Parts as in job.c: value, key, then header names and values in turn.
 *
 * The record's own dead letter turns into the job again that it was, byte for byte, and says where
 * it stood. Any record at all is shown without a byte that steers a terminal, in lines and as JSON.
 */
#include "worker/ctl/letter.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "tests/fuzz/fuzz.h"

#define HEADERS_MAX 16
#define OUT_MAX (1 << 20)
#define NOW_MS UINT64_C(1795507200000)
#define ERRORS "__connect.errors."
#define ORIGINAL "session-worker-original"

/* ---- how it is shown ---- */

static void check_lines(const struct letter *l)
{
    struct buf out;
    buf_init(&out, OUT_MAX);
    letter_text(l, NOW_MS, &out);
    for (const char *line = buf_text(&out), *end; (end = strchr(line, '\n')); line = end + 1)
        ASSERT(text_is_clean(line, (size_t)(end - line)));
    buf_done(&out);
}

static void check_json(const struct letter *l, bool whole)
{
    static const struct json_limits limits = {OUT_MAX, 8, 100};
    char error[JSON_ERROR_SIZE];
    struct buf out;
    buf_init(&out, OUT_MAX);
    letter_json(l, whole, &out);
    cJSON *tree = json_parse(buf_text(&out), out.len, &limits, error);
    ASSERT(tree && text_is_clean(json_str(tree, "type", "\n"), strlen("dead-letter")));
    cJSON_Delete(tree);
    buf_done(&out);
}

/* ---- what becomes of it ---- */

static bool same_bytes(const char *a, size_t na, const char *b, size_t nb)
{
    return !a == !b && na == nb && (na == 0 || memcmp(a, b, na) == 0);
}

static bool is_kept(const struct header *h)
{
    return strncmp(h->name, "__connect.", strlen("__connect.")) != 0 &&
           strcmp(h->name, "session-worker-cut") != 0;
}

/* The last of that name, when it is text. */
static bool has_header(const struct record *r, const char *name)
{
    for (size_t i = r->n_headers; i-- > 0;)
        if (strcmp(r->headers[i].name, name) == 0)
            return strlen(r->headers[i].value) == r->headers[i].len;
    return false;
}

static void check_job(const struct message *job, const struct record *r)
{
    size_t n = 0;
    ASSERT(same_bytes(job->key, job->key_len, r->key, r->key_len));
    ASSERT(same_bytes(job->value, job->value_len, r->value, r->value_len));
    for (size_t i = 0; i < r->n_headers; i++) {
        const struct header *h = &r->headers[i];
        if (!is_kept(h))
            continue;
        ASSERT(n < job->n_headers && strcmp(job->headers[n].name, h->name) == 0);
        ASSERT(same_bytes(job->headers[n].value, job->headers[n].len, h->value, h->len));
        n++;
    }
    if (has_header(r, ORIGINAL)) {
        ASSERT(n == job->n_headers);
        return;
    }
    ASSERT(n + 1 == job->n_headers && strcmp(job->headers[n].name, ORIGINAL) == 0);
    ASSERT(strcmp(job->headers[n].value, "session-jobs/3/42") == 0);
}

static void check_way_back(const struct record *r)
{
    struct message dead, job;
    struct letter l;
    dead_letter_print(r, ERR_INVALID_JOB, "type must be given", &dead);
    const struct record letter = {.topic = "session-jobs-dlq",
                                  .key = dead.key,
                                  .key_len = dead.key_len,
                                  .value = dead.value,
                                  .value_len = dead.value_len,
                                  .headers = dead.headers,
                                  .n_headers = dead.n_headers};
    letter_read(&l, &letter);
    ASSERT(strcmp(l.code, "invalid_job") == 0 && strcmp(l.message, "type must be given") == 0);
    letter_job(&l, &job);
    check_job(&job, r);
    letter_done(&l);
    message_done(&dead);
    message_done(&job);
}

static void check_as_letter(const struct record *r)
{
    struct letter l;
    letter_read(&l, r);
    check_lines(&l);
    check_json(&l, false);
    check_json(&l, true);
    char *why = letter_refusal(&l, fuzz_config());
    ASSERT(!why || text_is_clean(why, strlen(why)));
    free(why);
    letter_done(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct header headers[HEADERS_MAX];
    struct parts parts = parts_of(data, size);
    struct part value = parts_next(&parts), key = parts_next(&parts);
    fuzz_config();
    struct record r = {.topic = "session-jobs",
                       .partition = 3,
                       .offset = 42,
                       .timestamp_ms = NOW_MS - 5000,
                       .key = key.text,
                       .key_len = key.len,
                       .value = value.len ? value.text : NULL,
                       .value_len = value.len,
                       .headers = headers,
                       .n_headers = parts_headers(&parts, headers, HEADERS_MAX)};
    check_way_back(&r);
    check_as_letter(&r);
    parts_headers_done(headers, r.n_headers);
    return 0;
}
