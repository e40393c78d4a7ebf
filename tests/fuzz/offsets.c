/* offsets: the metadata of a committed offset, which any tool may have written.
 *
 * Parts: metadata as it is; a body that gets a header and a checksum of ours, so that what follows
 * the checksum is reached too; operations, three bytes each, on fresh offsets.
 *
 * What decodes is encoded and decoded again: both are the same. What was built by operations is
 * what a plain list of flags says, and survives its text form; one changed byte in it does not
 * decode. */
#include "worker/core/offsets.h"

#include <stdlib.h>
#include <string.h>

#include "common/secret.h"
#include "tests/fuzz/fuzz.h"

#define MARK INT64_C(1000)
#define HEADER 33
#define FIELDS (HEADER - 2 - 4) /* between version and checksum */

static struct offsets first, second;

static void check_decoded(void)
{
    struct buf text;
    buf_init(&text, OFFSETS_TEXT_MAX);
    ASSERT(first.watermark >= MARK && first.high >= first.watermark);
    ASSERT(first.high - first.watermark <= OFFSETS_WINDOW);
    ASSERT(first.high == first.watermark || !offsets_is_done(&first, first.watermark));
    offsets_encode(&first, &text);
    ASSERT(!text.overflow);
    ASSERT(offsets_decode(&second, first.watermark, buf_text(&text)));
    ASSERT(memcmp(&first, &second, sizeof first) == 0);
    buf_done(&text);
}

static void try_text(const char *text)
{
    if (offsets_decode(&first, MARK, text)) {
        check_decoded();
    } else {
        offsets_init(&second, MARK);
        ASSERT(memcmp(&first, &second, sizeof first) == 0);
    }
}

/* ---- a body behind a good checksum ---- */

static uint32_t crc32_add(uint32_t crc, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) ? UINT32_C(0xedb88320) : 0);
    }
    return crc;
}

static void seal(uint8_t *p, size_t n)
{
    uint8_t mark[8] = {MARK & 0xff, MARK >> 8};
    uint32_t crc = crc32_add(UINT32_MAX, mark, sizeof mark);
    crc = crc32_add(crc, p, HEADER - 4);
    crc = ~crc32_add(crc, p + HEADER, n - HEADER);
    for (unsigned i = 0; i < 4; i++)
        p[HEADER - 4 + i] = (uint8_t)(crc >> (8 * i));
}

static void try_body(struct part body)
{
    uint8_t raw[HEADER + 3100] = {0xd5, 1};
    struct buf text;
    if (!body.text || body.len < FIELDS || body.len > FIELDS + 3100)
        return;
    memcpy(raw + 2, body.text, FIELDS);
    raw[2] &= 1;
    memcpy(raw + HEADER, body.text + FIELDS, body.len - FIELDS);
    seal(raw, HEADER + body.len - FIELDS);
    buf_init(&text, 8192);
    base64_encode(raw, HEADER + body.len - FIELDS, &text);
    try_text(buf_text(&text));
    buf_done(&text);
}

/* ---- operations beside a plain list ---- */

#define FLAGS 40000
static bool flags[FLAGS]; /* offset MARK + i is done */

static void apply(const uint8_t *op)
{
    int64_t at = MARK + (op[1] | (op[2] & 0x7f) << 8), to = at + (op[0] & 1 ? op[0] * 16 : 1);
    if (op[0] & 1)
        to = offsets_gap(&first, at, to);
    else if (offsets_has_room(&first, at))
        offsets_done(&first, at);
    else
        return;
    for (int64_t i = at; i < to; i++)
        flags[i - MARK] = true;
}

static void compare_with_list(void)
{
    uint64_t above = 0;
    ASSERT(first.watermark == MARK || flags[first.watermark - 1 - MARK]);
    for (int64_t i = 0; i < FLAGS; i++) {
        bool done = offsets_is_done(&first, MARK + i);
        ASSERT(done == flags[i] || MARK + i < first.watermark);
        above += done && MARK + i >= first.watermark;
    }
    ASSERT(above == offsets_done_above(&first));
}

static void check_change_is_seen(struct buf *text, size_t at)
{
    if (text->len == 0)
        return;
    char *c = &text->data[at % text->len];
    char before = *c;
    *c = before == 'A' ? 'B' : 'A';
    bool decodes = offsets_decode(&second, first.watermark, buf_text(text));
    *c = before;
    ASSERT(!decodes || memcmp(&first, &second, sizeof first) == 0); /* unused bits of base64 */
}

static void try_operations(struct part ops)
{
    const uint8_t *p = (const uint8_t *)ops.text;
    struct buf text;
    if (ops.len < 3)
        return;
    offsets_init(&first, MARK);
    memset(flags, 0, sizeof flags);
    for (size_t i = 0; i + 3 <= ops.len; i += 3)
        apply(p + i);
    compare_with_list();
    check_decoded();
    buf_init(&text, OFFSETS_TEXT_MAX);
    offsets_encode(&first, &text);
    check_change_is_seen(&text, p[0] * 256u + p[1]);
    buf_done(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct parts parts = parts_of(data, size);
    struct part metadata = parts_next(&parts), body = parts_next(&parts);
    char text[OFFSETS_TEXT_MAX + 100] = "";
    memcpy(text, metadata.text, MIN(metadata.len, sizeof text - 1));
    try_text(text);
    try_body(body);
    if (parts.at)
        try_operations((struct part){parts.at, parts.left}); /* these may hold any byte */
    return 0;
}
