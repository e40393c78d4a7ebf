/* What every module uses: sizes, units, assertions, strict text-to-number, RFC 3339 times.
 *
 * Knows nothing of any other module. Times are uint64_t with the unit in the name (_ns, _ms).
 * Three kinds of error are never mixed: a bug aborts here (ASSERT, on in release too); what our own
 * machine refuses is a negative errno; what the world refuses is a verdict with a reason. */
#ifndef COMMON_BASE_H
#define COMMON_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CONTAINER_OF(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define MUST_USE __attribute__((warn_unused_result))
#define CLEANUP(fn) __attribute__((cleanup(fn)))

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define NEVER UINT64_MAX /* a time that does not come */

/* A broken promise of our own code: says where on stderr and aborts. */
#define ASSERT(cond) ((cond) ? (void)0 : assert_failed(#cond, __FILE__, __LINE__))
_Noreturn void assert_failed(const char *what, const char *file, int line);

/* text[0..len) as a decimal integer in [min, max], nothing before or behind it. False: *out
 * untouched. */
MUST_USE bool parse_i64(const char *text, size_t len, int64_t min, int64_t max, int64_t *out);

/* Length (1..4) of the well-formed UTF-8 character at text[0..len); 0 when there is none (overlong
 * forms and surrogates are none). */
size_t utf8_char(const char *text, size_t len);

/* Makes text[0..len) a single line that steers no terminal: '?' for each control character and for
 * what is no UTF-8. */
void make_harmless(char *text, size_t len);

/* RFC 3339 (2026-11-24T08:10:38.123Z, offsets allowed) to milliseconds since 1970. Strict. */
MUST_USE bool parse_time_ms(const char *text, uint64_t *out);

/* The reverse, UTC with milliseconds: 24 characters and a NUL into out. */
#define TIME_TEXT_SIZE 25
void format_time_ms(uint64_t ms, char out[TIME_TEXT_SIZE]);

#endif
