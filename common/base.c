/* base: see the header. The calendar arithmetic is the proleptic Gregorian one in days since
 * 1970-03-01 shifted to March (so that the leap day ends the year); no time zone files, no locale,
 * no gmtime, so that pure code may use it. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, what);
    abort();
}

bool parse_i64(const char *text, size_t len, int64_t min, int64_t max, int64_t *out)
{
    bool negative = len > 0 && text[0] == '-';
    size_t i = negative ? 1 : 0;
    if (i == len)
        return false;
    int64_t value = 0; /* kept negative: its range is the larger one */
    for (; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        int digit = text[i] - '0';
        if (value < (INT64_MIN + digit) / 10)
            return false;
        value = value * 10 - digit;
    }
    if (!negative && value == INT64_MIN)
        return false;
    value = negative ? value : -value;
    if (value < min || value > max)
        return false;
    *out = value;
    return true;
}

size_t utf8_char(const char *text, size_t len)
{
    /* By lead byte: length and the range of the second byte, which excludes overlong forms,
     * surrogates and what is beyond U+10FFFF. */
    static const struct {
        unsigned char first, last, n, min2, max2;
    } forms[] = {
        {0x00, 0x7f, 1, 0, 0},       {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf},
        {0xe1, 0xec, 3, 0x80, 0xbf}, {0xed, 0xed, 3, 0x80, 0x9f}, {0xee, 0xef, 3, 0x80, 0xbf},
        {0xf0, 0xf0, 4, 0x90, 0xbf}, {0xf1, 0xf3, 4, 0x80, 0xbf}, {0xf4, 0xf4, 4, 0x80, 0x8f},
    };
    const unsigned char *b = (const unsigned char *)text;
    if (len == 0)
        return 0;
    size_t f = 0;
    while (f < ARRAY_LEN(forms) && (b[0] < forms[f].first || b[0] > forms[f].last))
        f++;
    if (f == ARRAY_LEN(forms) || forms[f].n > len)
        return 0;
    if (forms[f].n > 1 && (b[1] < forms[f].min2 || b[1] > forms[f].max2))
        return 0;
    for (size_t i = 2; i < forms[f].n; i++)
        if ((b[i] & 0xc0) != 0x80)
            return 0;
    return forms[f].n;
}

void make_harmless(char *text, size_t len)
{
    for (size_t i = 0, n; i < len; i += MAX(n, 1)) {
        const unsigned char *c = (const unsigned char *)text + i;
        n = utf8_char(text + i, len - i);
        if (n == 0 || c[0] < ' ' || c[0] == 0x7f || (c[0] == 0xc2 && c[1] < 0xa0))
            memset(text + i, '?', MAX(n, 1));
    }
}

/* Days from 1970-01-01 to the given civil date. Source: the well-known era arithmetic (400-year
 * eras of 146 097 days, the year beginning in March). */
static int64_t days_from_civil(int64_t y, unsigned m, unsigned d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    unsigned yoe = (unsigned)(y - era * 400);
    unsigned doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
    unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + (int64_t)doe - 719468;
}

static void civil_from_days(int64_t z, int64_t *y, unsigned *m, unsigned *d)
{
    z += 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;
    *d = doy - (153 * mp + 2) / 5 + 1;
    *m = mp < 10 ? mp + 3 : mp - 9;
    *y = (int64_t)yoe + era * 400 + (*m <= 2);
}

static unsigned days_in_month(unsigned y, unsigned m)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return m == 2 && leap ? 29 : days[m - 1];
}

/* n digits at *p, which moves on; -1 if there are fewer. */
static int digits(const char **p, int n)
{
    int value = 0;
    for (; n > 0; n--, (*p)++) {
        if (**p < '0' || **p > '9')
            return -1;
        value = value * 10 + (**p - '0');
    }
    return value;
}

static bool expect(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

/* ".123456" as milliseconds; digits beyond the third are dropped. */
static bool fraction_ms(const char **p, unsigned *ms)
{
    *ms = 0;
    if (**p != '.')
        return true;
    (*p)++;
    unsigned scale = 100;
    const char *start = *p;
    for (; **p >= '0' && **p <= '9'; (*p)++, scale /= 10)
        *ms += (unsigned)(**p - '0') * scale;
    return *p > start;
}

static bool zone_minutes(const char **p, int *minutes)
{
    *minutes = 0;
    if (**p == 'Z' || **p == 'z')
        return (*p)++, true;
    int sign = **p == '+' ? 1 : **p == '-' ? -1 : 0;
    if (sign == 0)
        return false;
    (*p)++;
    int h = digits(p, 2);
    if (h < 0 || h > 23 || !expect(p, ':'))
        return false;
    int m = digits(p, 2);
    if (m < 0 || m > 59)
        return false;
    *minutes = sign * (h * 60 + m);
    return true;
}

bool parse_time_ms(const char *p, uint64_t *out)
{
    int y = digits(&p, 4);
    if (y < 1970 || !expect(&p, '-'))
        return false;
    int mo = digits(&p, 2);
    if (mo < 1 || mo > 12 || !expect(&p, '-'))
        return false;
    int d = digits(&p, 2);
    if (d < 1 || d > (int)days_in_month((unsigned)y, (unsigned)mo))
        return false;
    if (*p != 'T' && *p != 't' && *p != ' ')
        return false;
    p++;
    int h = digits(&p, 2);
    if (h < 0 || h > 23 || !expect(&p, ':'))
        return false;
    int mi = digits(&p, 2);
    if (mi < 0 || mi > 59 || !expect(&p, ':'))
        return false;
    int s = digits(&p, 2);
    unsigned ms;
    int zone;
    if (s < 0 || s > 60 || !fraction_ms(&p, &ms) || !zone_minutes(&p, &zone) || *p != '\0')
        return false;
    int64_t seconds =
        days_from_civil(y, (unsigned)mo, (unsigned)d) * 86400 + h * 3600 + (mi - zone) * 60 + s;
    if (seconds < 0)
        return false;
    *out = (uint64_t)seconds * 1000 + ms;
    return true;
}

void format_time_ms(uint64_t ms, char out[TIME_TEXT_SIZE])
{
    static const uint64_t last = UINT64_C(253402300799999); /* 9999-12-31T23:59:59.999Z */
    ms = MIN(ms, last);
    int64_t y;
    unsigned mo, d, rest = (unsigned)(ms % 86400000);
    civil_from_days((int64_t)(ms / 86400000), &y, &mo, &d);
    snprintf(out, TIME_TEXT_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)y % 10000,
             mo % 100, d % 100, rest / 3600000 % 100, rest / 60000 % 60, rest / 1000 % 60,
             rest % 1000);
}
