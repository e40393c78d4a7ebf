/* place: see the header. A topic's name holds no slash, so the first one ends it. */
#include "worker/ctl/place.h"

#include <string.h>

#include "common/xalloc.h"

#define CLOCKS_MS 60000

bool place_read(const char *text, struct place *out)
{
    const char *first = text ? strchr(text, '/') : NULL;
    const char *second = first ? strchr(first + 1, '/') : NULL;
    int64_t partition, offset;
    if (!second || !parse_i64(first + 1, (size_t)(second - first - 1), 0, INT32_MAX, &partition) ||
        !parse_i64(second + 1, strcspn(second + 1, "/"), 0, INT64_MAX, &offset))
        return false;
    *out = (struct place){text, (size_t)(first - text), (int32_t)partition, offset};
    return true;
}

bool place_is_in(const struct place *p, const char *topic)
{
    return p->topic_len == strlen(topic) && memcmp(p->topic, topic, p->topic_len) == 0;
}

bool place_is_beside(const struct place *a, const struct place *b)
{
    return a->partition == b->partition && a->topic_len == b->topic_len &&
           memcmp(a->topic, b->topic, a->topic_len) == 0;
}

bool is_long_after(uint64_t ms, uint64_t other_ms)
{
    return ms && other_ms && ms > other_ms + CLOCKS_MS;
}

char *place_text(const char *topic, int64_t partition, int64_t offset)
{
    return xasprintf("%s/%lld/%lld", topic, (long long)partition, (long long)offset);
}

char *place_of_job(const char *ce_id)
{
    struct place p;
    if (!place_read(ce_id, &p))
        return xstrdup0(ce_id);
    CLEANUP(free_ptr) char *topic = xmemdup0(p.topic, p.topic_len);
    return place_text(topic, p.partition, p.offset);
}

bool place_read_short(const char *text, int32_t *partition, int64_t *offset)
{
    size_t len = strcspn(text, "/");
    int64_t p, o = -1;
    if (!parse_i64(text, len, 0, INT32_MAX, &p) ||
        (text[len] && !parse_i64(text + len + 1, strlen(text + len + 1), 0, INT64_MAX, &o)))
        return false;
    *partition = (int32_t)p;
    *offset = o;
    return true;
}
