/* Logging: one event a line on stderr, logfmt or JSON, control bytes escaped, rate-limited per call
 * site, run through the redactor. A stderr that nobody reads costs lines, which are counted, and
 * at most a moment: it never holds up the program.
 *
 *   log_info(&s->log, "sandbox created", L_STR("sandbox", id), L_UINT("attempt", n));
 *
 * The scope (NULL allowed) is the object's own prefix: session, job, partition … */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include "common/base.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_LOGFMT, LOG_JSON };

struct log_field {
    const char *name;
    enum { LOG_STR, LOG_INT, LOG_UINT } kind;
    union {
        const char *s; /* NULL: the field is left out */
        int64_t i;
        uint64_t u;
    };
};
#define L_STR(n, v) ((struct log_field){.name = (n), .kind = LOG_STR, .s = (v)})
#define L_INT(n, v) ((struct log_field){.name = (n), .kind = LOG_INT, .i = (v)})
#define L_UINT(n, v) ((struct log_field){.name = (n), .kind = LOG_UINT, .u = (v)})

struct log_scope {
    const struct log_field *fields; /* borrowed */
    size_t n;
};

struct log_site { /* one per call: token bucket */
    uint64_t window_ns;
    unsigned used, suppressed;
};

/* level and format of the process; format LOG_LOGFMT for people, LOG_JSON for machines. */
void log_setup(enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);

/* For tests: every finished line (no newline) goes to sink instead of stderr; NULL: stderr again.
 */
void log_capture(void (*sink)(void *arg, const char *line, size_t len), void *arg);

/* For tests and simulations: where the time comes from; NULL: the system's wall clock. */
void log_clock(uint64_t (*wall_ns)(void));

void log_emit(struct log_site *site, enum log_level level, const struct log_scope *scope,
              const char *msg, const struct log_field *fields, size_t n);

#define LOG_AT(level, scope, msg, ...)                                                             \
    do {                                                                                           \
        static struct log_site log_site_;                                                          \
        const struct log_field log_fields_[] = {__VA_ARGS__ __VA_OPT__(, ) L_STR("", NULL)};       \
        if (log_enabled(level))                                                                    \
            log_emit(&log_site_, level, scope, msg, log_fields_, ARRAY_LEN(log_fields_) - 1);      \
    } while (0)
#define log_debug(scope, msg, ...) LOG_AT(LOG_LEVEL_DEBUG, scope, msg, __VA_ARGS__)
#define log_info(scope, msg, ...) LOG_AT(LOG_LEVEL_INFO, scope, msg, __VA_ARGS__)
#define log_warn(scope, msg, ...) LOG_AT(LOG_LEVEL_WARN, scope, msg, __VA_ARGS__)
#define log_error(scope, msg, ...) LOG_AT(LOG_LEVEL_ERROR, scope, msg, __VA_ARGS__)

#endif
