/* event: what stands in a topic, as sessionctl shows it.
 *
 * Whatever it is, no byte of it may steer a terminal: the line for people and the line of JSON hold
 * no control character. The JSON means what the event meant; colours change nothing but colours. */
#include "worker/ctl/event.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "tests/fuzz/fuzz.h"
#include "worker/ctl/text.h"

#define OUT_MAX (8 * 1024 * 1024)

static void check_safe(const char *text, size_t len)
{
    struct buf once, twice;
    buf_init(&once, OUT_MAX);
    buf_init(&twice, OUT_MAX);
    add_safe(&once, text, len);
    ASSERT(text_is_clean(buf_text(&once), once.len));
    add_safe(&twice, buf_text(&once), once.len);
    ASSERT(once.len == twice.len && strcmp(buf_text(&once), buf_text(&twice)) == 0);
    buf_done(&once);
    buf_done(&twice);
}

static void check_same_meaning(const char *before, size_t len, const struct buf *after)
{
    char error[JSON_ERROR_SIZE];
    struct buf a, b;
    cJSON *old = json_parse(before, len, &json_limits_reply, error);
    if (!old)
        return;
    cJSON *new = json_parse_reply(buf_text(after), after->len);
    ASSERT(new);
    buf_init(&a, OUT_MAX);
    buf_init(&b, OUT_MAX);
    json_canonical(&a, old);
    json_canonical(&b, new);
    ASSERT(a.len == b.len && strcmp(buf_text(&a), buf_text(&b)) == 0);
    buf_done(&a);
    buf_done(&b);
    cJSON_Delete(old);
    cJSON_Delete(new);
}

static void check_json(const char *text, size_t len)
{
    struct buf out;
    buf_init(&out, OUT_MAX);
    add_json_line(&out, text, len);
    ASSERT(text_is_clean(buf_text(&out), out.len));
    check_same_meaning(text, len, &out);
    buf_done(&out);
}

/* The text without "ESC [ digits m". */
static void strip_colours(const struct buf *from, struct buf *to)
{
    const char *p = buf_text(from);
    while (*p) {
        size_t n = p[0] == 033 && p[1] == '[' ? 2 + strspn(p + 2, "0123456789") : 0;
        if (n && p[n] == 'm')
            p += n + 1;
        else
            buf_addc(to, *p++);
    }
}

static void check_text(const cJSON *event)
{
    struct buf plain, coloured, stripped;
    buf_init(&plain, OUT_MAX);
    buf_init(&coloured, OUT_MAX);
    buf_init(&stripped, OUT_MAX);
    event_text(event, false, &plain);
    event_text(event, true, &coloured);
    strip_colours(&coloured, &stripped);
    ASSERT(plain.len > 0 && text_is_clean(buf_text(&plain), plain.len));
    ASSERT(strcmp(buf_text(&plain), buf_text(&stripped)) == 0);
    buf_done(&plain);
    buf_done(&coloured);
    buf_done(&stripped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    fuzz_config();
    check_safe(text, size);
    check_json(text, size);
    cJSON *event = json_parse_reply(text, size);
    if (event_end(event) != EVENT_FOREIGN)
        check_text(event);
    cJSON_Delete(event);
    return 0;
}
