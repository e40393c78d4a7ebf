/* offsets: see the header.
 *
 * Text = base64 of: magic, version, encoding, strikes, length of what is skipped, highest_started
 * (8), suspect (8), limit (8), crc32 (4), what is skipped, body; integers little-endian. The body
 * is the bitmap from the watermark on, without its trailing zeros, or the same as alternating run
 * lengths (zeros first) when that is shorter. The checksum also covers the watermark: metadata that
 * some tool has moved to another offset does not decode. 24 000 bits are 3000 bytes, with the
 * header 3033, in base64 4044 characters: it always fits.
 *
 * Two versions of the worker share a group while it is upgraded, and each reads what the other
 * wrote. What a later version adds as a hint it puts where this one skips (39 bytes fit); this one
 * drops it at its next commit, so nothing may be right or wrong by it. What this one must
 * understand gets another version number. Such a text does not decode here: jobs above the
 * watermark run again, with a warning, and may be announced twice. So the version that brings it
 * reads both and writes the old one; only the one after it, when no worker of this version is left,
 * writes the new one. */
#include "worker/core/offsets.h"

#include <string.h>

#include "common/secret.h"

#define MAGIC 0xd5
#define VERSION 1
#define HEADER 33
#define SKIPPED 4 /* where its length stands */
enum encoding { BITMAP, RUNS };

void offsets_init(struct offsets *o, int64_t watermark)
{
    ASSERT(watermark >= 0);
    memset(o, 0, sizeof *o);
    o->watermark = o->high = watermark;
    o->highest_started = o->suspect = o->limit = -1;
}

static uint64_t *word(struct offsets *o, int64_t offset)
{
    return &o->ring[(uint64_t)offset % OFFSETS_RING / 64];
}

static uint64_t mask(int64_t offset)
{
    return UINT64_C(1) << ((uint64_t)offset % 64);
}

static bool marked(const struct offsets *o, int64_t offset)
{
    return o->ring[(uint64_t)offset % OFFSETS_RING / 64] & mask(offset);
}

bool offsets_is_done(const struct offsets *o, int64_t offset)
{
    return offset < o->watermark || (offset < o->high && marked(o, offset));
}

bool offsets_has_room(const struct offsets *o, int64_t offset)
{
    return offset - o->watermark < OFFSETS_WINDOW;
}

static void advance(struct offsets *o)
{
    for (; o->watermark < o->high && marked(o, o->watermark); o->watermark++)
        *word(o, o->watermark) &= ~mask(o->watermark);
}

void offsets_done(struct offsets *o, int64_t offset)
{
    if (offset < o->watermark)
        return;
    ASSERT(offsets_has_room(o, offset));
    *word(o, offset) |= mask(offset);
    o->high = MAX(o->high, offset + 1);
    advance(o);
}

int64_t offsets_gap(struct offsets *o, int64_t from, int64_t to)
{
    if (from <= o->watermark && o->high <= to) { /* nothing above it to keep: any width is free */
        for (int64_t i = o->watermark; i < o->high; i++)
            *word(o, i) &= ~mask(i);
        o->watermark = o->high = MAX(to, o->watermark);
        return to;
    }
    int64_t at = MAX(from, o->watermark);
    for (; at < to && offsets_has_room(o, at); at++)
        offsets_done(o, at);
    return MIN(at, to);
}

uint64_t offsets_done_above(const struct offsets *o)
{
    uint64_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(o->ring); i++)
        n += (uint64_t)__builtin_popcountll(o->ring[i]);
    return n;
}

/* ---- text form ---- */

static void put64(uint8_t *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get64(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static uint32_t crc32_add(uint32_t crc, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = (crc >> 1) ^ (UINT32_C(0xedb88320) & (0u - (crc & 1)));
    }
    return crc;
}

/* Of everything but the checksum's own bytes, and the watermark. */
static uint32_t checksum(const uint8_t *p, size_t n, int64_t watermark)
{
    uint8_t mark[8];
    put64(mark, (uint64_t)watermark, 8);
    uint32_t crc = crc32_add(UINT32_MAX, mark, sizeof mark);
    crc = crc32_add(crc, p, HEADER - 4);
    return ~crc32_add(crc, p + HEADER, n - HEADER);
}

static size_t put_bitmap(const struct offsets *o, uint8_t *p)
{
    size_t bits = (size_t)(o->high - o->watermark);
    memset(p, 0, bits / 8 + 1);
    for (size_t i = 0; i < bits; i++)
        if (marked(o, o->watermark + (int64_t)i))
            p[i / 8] |= (uint8_t)(1u << (i % 8));
    return (bits + 7) / 8;
}

static size_t put_varint(uint8_t *p, uint64_t v)
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

/* Runs into p, at most limit bytes (a run takes at most 3); limit + 1 when they would not fit. */
static size_t put_runs(const struct offsets *o, uint8_t *p, size_t limit)
{
    size_t n = 0;
    bool ones = false;
    for (int64_t at = o->watermark; at < o->high; ones = !ones) {
        int64_t end = at;
        while (end < o->high && marked(o, end) == ones)
            end++;
        if (n + 3 > limit)
            return limit + 1;
        n += put_varint(p + n, (uint64_t)(end - at));
        at = end;
    }
    return n;
}

void offsets_encode(const struct offsets *o, struct buf *out)
{
    uint8_t raw[HEADER + OFFSETS_WINDOW / 8 + 8];
    uint8_t runs[OFFSETS_WINDOW / 8 + 8];
    bool hints = o->highest_started >= 0 || o->suspect >= 0 || o->limit >= 0 || o->strikes > 0;
    if (o->high == o->watermark && !hints)
        return;
    ASSERT(o->high - o->watermark <= OFFSETS_WINDOW);
    size_t body = put_bitmap(o, raw + HEADER);
    size_t shorter = put_runs(o, runs, body);
    raw[0] = MAGIC;
    raw[1] = VERSION;
    raw[2] = shorter < body ? RUNS : BITMAP;
    raw[3] = o->strikes;
    raw[SKIPPED] = 0;
    put64(raw + 5, (uint64_t)o->highest_started, 8);
    put64(raw + 13, (uint64_t)o->suspect, 8);
    put64(raw + 21, (uint64_t)o->limit, 8);
    if (shorter < body) {
        memcpy(raw + HEADER, runs, shorter);
        body = shorter;
    }
    put64(raw + HEADER - 4, checksum(raw, HEADER + body, o->watermark), 4);
    base64_encode(raw, HEADER + body, out);
}

static bool read_bitmap(struct offsets *o, const uint8_t *p, size_t n)
{
    if (n > OFFSETS_WINDOW / 8)
        return false;
    int64_t base = o->watermark;
    for (size_t i = 0; i < n * 8; i++)
        if (p[i / 8] >> (i % 8) & 1)
            offsets_done(o, base + (int64_t)i);
    return true;
}

static bool read_runs(struct offsets *o, const uint8_t *p, size_t n)
{
    int64_t at = o->watermark;
    int64_t limit = at + OFFSETS_WINDOW;
    bool ones = false;
    for (size_t i = 0; i < n; ones = !ones) {
        uint64_t run = 0;
        unsigned shift = 0;
        do {
            if (i == n || shift > 14)
                return false;
            run |= (uint64_t)(p[i] & 0x7f) << shift;
            shift += 7;
        } while (p[i++] & 0x80);
        if (run > (uint64_t)(limit - at))
            return false;
        for (int64_t end = at + (int64_t)run; at < end; at++)
            if (ones)
                offsets_done(o, at);
    }
    return true;
}

static bool decode(struct offsets *o, const uint8_t *p, size_t n)
{
    if (n < HEADER || p[0] != MAGIC || p[1] != VERSION || p[2] > RUNS || n - HEADER < p[SKIPPED])
        return false;
    if (get64(p + HEADER - 4, 4) != checksum(p, n, o->watermark))
        return false;
    o->strikes = p[3];
    o->highest_started = (int64_t)get64(p + 5, 8);
    o->suspect = (int64_t)get64(p + 13, 8);
    o->limit = (int64_t)get64(p + 21, 8);
    if (o->highest_started < -1 || o->suspect < -1 || o->limit < -1)
        return false;
    size_t body = HEADER + p[SKIPPED];
    return p[2] == RUNS ? read_runs(o, p + body, n - body) : read_bitmap(o, p + body, n - body);
}

bool offsets_decode(struct offsets *o, int64_t watermark, const char *text)
{
    offsets_init(o, watermark);
    if (!text || !*text)
        return true;
    struct buf raw;
    buf_init(&raw, OFFSETS_TEXT_MAX);
    bool ok = strlen(text) <= OFFSETS_TEXT_MAX && base64_decode(text, strlen(text), &raw) &&
              decode(o, (const uint8_t *)buf_text(&raw), raw.len);
    buf_done(&raw);
    if (!ok)
        offsets_init(o, watermark);
    return ok;
}
