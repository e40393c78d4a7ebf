/* JSON on top of cJSON: a scan that refuses what cJSON would let through, a strict parse, and typed
 * getters whose errors name the field ("env.FOO must be a string"). */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include <cjson/cJSON.h>

#include "common/base.h"
#include "common/buf.h"

struct json_limits {
    size_t max_bytes;
    unsigned max_depth;
    unsigned max_keys; /* of one object */
};
extern const struct json_limits
    json_limits_job; /* 256 KiB, depth 32, 1024 keys (max_bytes may be lowered by config) */
extern const struct json_limits json_limits_reply; /* 1 MiB, depth 32, 20000 keys */

#define JSON_ERROR_SIZE 160

/* Parses text[0..len). NULL on any fault, with a sentence in error (what, at which byte): too
 * large, too deep, invalid UTF-8, \u0000, duplicate key, trailing bytes, syntax, a number beyond
 * 2^53. The tree is the caller's to cJSON_Delete. */
cJSON *json_parse(const char *text, size_t len, const struct json_limits *limits,
                  char error[JSON_ERROR_SIZE]);

/* Lenient: for replies of the world. NULL when it is not JSON; no reason given. */
cJSON *json_parse_reply(const char *text, size_t len);

/* Typed look-ups for replies: a default when the member is absent, null or of another type.
 * Borrowed. */
const char *json_str(const cJSON *object, const char *name, const char *otherwise);
int64_t json_int(const cJSON *object, const char *name, int64_t otherwise);
bool json_bool(const cJSON *object, const char *name, bool otherwise);
const cJSON *json_get(const cJSON *object, const char *name); /* case-sensitive; NULL: absent */

/* A reader of one object that remembers the first fault and the path to it. Getters after a fault
 * do nothing. `path` is the object's own path ("" at the top). */
struct json_reader {
    const cJSON *object; /* borrowed; NULL reads as {} */
    const char *path;    /* borrowed */
    struct json_error *error;
};
struct json_error {
    char text[400]; /* "" = none */
};
bool json_failed(const struct json_reader *);
void json_fail(struct json_reader *, const char *name, const char *fmt, ...) PRINTF_LIKE(3, 4);
bool json_read_str(struct json_reader *, const char *name, size_t max,
                   const char **out); /* false: absent (null counts as absent) */
bool json_read_int(struct json_reader *, const char *name, int64_t min, int64_t max, int64_t *out);
bool json_read_bool(struct json_reader *, const char *name, bool *out);
bool json_read_enum(struct json_reader *, const char *name, const char *const *names, size_t n,
                    int *out);
bool json_read_time(struct json_reader *, const char *name, uint64_t *ms);
bool json_read_object(struct json_reader *, const char *name, const cJSON **out);
bool json_read_array(struct json_reader *, const char *name, size_t max, const cJSON **out);

/* "text" with quotes and escapes, appended. Invalid UTF-8 becomes U+FFFD. */
void json_quote(struct buf *out, const char *text, size_t len);

/* Appends the tree without white space, object keys sorted at every level. For hashing. */
void json_canonical(struct buf *out, const cJSON *tree);

#endif
