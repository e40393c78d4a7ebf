/* text: see the header.
 *
 * Everything foreign that sessionctl prints passes add_safe() or add_json_line(): they are the only
 * place that knows what a terminal takes for a command, or for another direction of writing. */
#include "worker/ctl/text.h"

#include <string.h>

#include "common/json.h"

#define PLAIN "\033[0m"
#define DUMP_COLUMNS 16

/* The code point of the n bytes at p; n is from utf8_char(). */
static uint32_t code_point(const char *p, size_t n)
{
    uint32_t c = (unsigned char)p[0] & (n == 1 ? 0x7fu : 0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++)
        c = c << 6 | ((unsigned char)p[i] & 0x3f);
    return c;
}

static bool is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0);
}

/* Line separators, marks and overrides of the writing direction, tags and joiners that cannot be
 * seen: they make a line look like another one. */
static bool is_deceptive(uint32_t c)
{
    return c == 0xad || c == 0x61c || c == 0x180e || (c >= 0x200b && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff ||
           (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe007f);
}

void add_safe(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0, n; i < len; i += n ? n : 1) {
        n = utf8_char(text + i, len - i);
        uint32_t c = n ? code_point(text + i, n) : (unsigned char)text[i];
        if (n == 0 || is_control(c))
            buf_addf(out, "\\x%02x", (unsigned)c);
        else if (is_deceptive(c))
            buf_addf(out, "\\u{%04x}", (unsigned)c);
        else
            buf_add(out, text + i, n);
    }
}

void add_painted(struct buf *out, bool colour, const char *paint, const char *text)
{
    bool painted = colour && *paint && *text;
    buf_adds(out, painted ? paint : "");
    buf_adds(out, text);
    buf_adds(out, painted ? PLAIN : "");
}

/* As JSON escapes it: two of them beyond the basic plane. */
static void add_escape(struct buf *out, uint32_t c)
{
    if (c > 0xffff)
        buf_addf(out, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((c - 0x10000) >> 10)),
                 (unsigned)(0xdc00 + ((c - 0x10000) & 0x3ff)));
    else
        buf_addf(out, "\\u%04x", (unsigned)c);
}

void add_json_line(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0, n; i < len; i += n ? n : 1) {
        n = utf8_char(text + i, len - i);
        uint32_t c = n ? code_point(text + i, n) : 0xfffd;
        if (c == '\n' || c == '\r' || c == '\t') /* between tokens: strings cannot hold them */
            buf_addc(out, ' ');
        else if (n == 0 || is_control(c) || is_deceptive(c))
            add_escape(out, c);
        else
            buf_add(out, text + i, n);
    }
}

void add_json_member(struct buf *out, const char *name, const char *text)
{
    buf_addf(out, ",\"%s\":", name);
    if (text)
        json_quote(out, text, strlen(text));
    else
        buf_adds(out, "null");
}

/* ---- times ---- */

static const struct {
    char letter;
    uint64_t ms;
} units[] = {{'d', 86400000}, {'h', 3600000}, {'m', 60000}, {'s', 1000}};

void add_age(struct buf *out, uint64_t ms)
{
    size_t i = 0;
    while (i + 1 < ARRAY_LEN(units) && ms < 2 * units[i].ms)
        i++;
    buf_addf(out, "%llu%c", (unsigned long long)(ms / units[i].ms), units[i].letter);
}

void add_seconds(struct buf *out, uint64_t ms)
{
    buf_addf(out, "%.*f s", ms < 99950 ? 1 : 0, (double)ms / 1000);
}

bool parse_since(const char *text, uint64_t now_ms, uint64_t *since_ms)
{
    size_t len = strlen(text);
    int64_t n;
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (len > 1 && text[len - 1] == units[i].letter)
            return parse_i64(text, len - 1, 0, 100000, &n) &&
                   (*since_ms = now_ms - MIN(now_ms, (uint64_t)n * units[i].ms), true);
    return parse_time_ms(text, since_ms);
}

/* ---- pictures ---- */

void add_bar(struct buf *out, uint64_t value, uint64_t of, unsigned width)
{
    uint64_t n = of ? (MIN(value, of) * width + of / 2) / of : 0;
    for (uint64_t i = 0; i < MAX(n, value > 0 ? 1 : 0); i++)
        buf_addc(out, '#');
}

size_t text_width(const char *text, size_t len)
{
    size_t width = 0;
    for (size_t i = 0, n; i < len; i += n ? n : 1, width++)
        n = utf8_char(text + i, len - i);
    return width;
}

bool is_text(const char *bytes, size_t len)
{
    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_char(bytes + i, len - i);
        if (n == 0)
            return false;
        uint32_t c = code_point(bytes + i, n);
        if (is_control(c) && c != '\n' && c != '\r' && c != '\t')
            return false;
    }
    return true;
}

static void add_text_lines(struct buf *out, const char *indent, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        const char *end = memchr(text + i, '\n', len - i);
        size_t n = end ? (size_t)(end - (text + i)) : len - i;
        size_t shown = n > 0 && text[i + n - 1] == '\r' ? n - 1 : n;
        buf_adds(out, indent);
        add_safe(out, text + i, shown);
        buf_addc(out, '\n');
        i += n + 1;
    }
}

static void add_hex_line(struct buf *out, const char *bytes, size_t n)
{
    for (size_t i = 0; i < DUMP_COLUMNS; i++) {
        if (i < n)
            buf_addf(out, "%s%02x", i == DUMP_COLUMNS / 2 ? "  " : " ", (unsigned char)bytes[i]);
        else
            buf_adds(out, i == DUMP_COLUMNS / 2 ? "    " : "   ");
    }
    buf_adds(out, "  |");
    for (size_t i = 0; i < n; i++)
        buf_addc(out, bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '.');
    buf_adds(out, "|\n");
}

static void add_hex_lines(struct buf *out, const char *indent, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i += DUMP_COLUMNS) {
        buf_addf(out, "%s%06zx ", indent, i);
        add_hex_line(out, bytes + i, MIN(len - i, (size_t)DUMP_COLUMNS));
    }
}

void add_dump(struct buf *out, const char *indent, const char *bytes, size_t len, size_t max)
{
    size_t n = MIN(len, max);
    bool text = is_text(bytes, len);
    while (text && n < len && ((unsigned char)bytes[n] & 0xc0) == 0x80)
        n--; /* not amid a character */
    if (text)
        add_text_lines(out, indent, bytes, n);
    else
        add_hex_lines(out, indent, bytes, n);
    if (n < len)
        buf_addf(out, "%s... %zu more bytes\n", indent, len - n);
}
