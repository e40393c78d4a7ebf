/* log: see the header.
 *
 * A line is built whole in one buffer and leaves in one write(2), so lines of several threads do
 * not mix. Every text is redacted, cut at TEXT_MAX, then quoted: a secret is hidden whatever
 * escapes it would have got, and no byte of a job or of an answer can forge a line or steer a
 * terminal. A call site may write SITE_PER_SECOND lines a second; what is beyond is counted
 * (suppressed=N on the site's next line, and a metric), so a loop of errors costs neither the disk
 * nor the first error.
 *
 * Nobody has to read: a pipe, socket or terminal is asked for room before each piece, and gets no
 * more at once than it has then. (Non-blocking writes would need O_NONBLOCK, which every process
 * with this stderr shares.) The first line that does not get through waits PATIENCE_MS; from then
 * on lines are counted instead of waiting, until there is room for one that says how many are lost.
 *
 * Invariants: the lock is held while a line is made and written, thus for a bounded time; nothing
 * called under it logs. While lost > 0 no line is written before the one that reports it, and none
 * is glued to a torn one. */
#include "common/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/json.h"
#include "common/metrics.h"
#include "common/secret.h"

#define TEXT_MAX 4096    /* bytes of one text before quoting */
#define LINE_LIMIT 65536 /* bytes; beyond it only the message is written */
#define SITE_PER_SECOND 50
#define PATIENCE_MS 100 /* for the first line that finds no room */
#define TTY_PIECE 128   /* bytes; a terminal that has any room has this much */

static _Atomic int least = LOG_LEVEL_INFO;
static _Atomic int line_format = LOG_LOGFMT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct buf line = {.max = LINE_LIMIT};
static struct buf clean = {.max = TEXT_MAX};
static void (*sink)(void *, const char *, size_t);
static void *sink_arg;
static uint64_t (*clock_ns)(void);
static uint64_t lost; /* lines since stderr stopped taking them */
static bool torn;     /* the last thing on stderr is the beginning of one of these */

void log_setup(enum log_level level, enum log_format format)
{
    least = (int)level;
    line_format = (int)format;
}

bool log_enabled(enum log_level level)
{
    return (int)level >= least;
}

void log_capture(void (*to)(void *arg, const char *line, size_t len), void *arg)
{
    pthread_mutex_lock(&lock);
    sink = to;
    sink_arg = arg;
    pthread_mutex_unlock(&lock);
}

void log_clock(uint64_t (*wall_ns)(void))
{
    clock_ns = wall_ns;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    if (clock_ns)
        return clock_ns();
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* May the site write now? A clock that steps back opens a new window. */
static bool site_allows(struct log_site *site, uint64_t now)
{
    if (now - site->window_ns >= NS_PER_S) {
        site->window_ns = now;
        site->used = 0;
    }
    if (site->used < SITE_PER_SECOND)
        return site->used++, true;
    site->suppressed++;
    metric_add(M_LOG_SUPPRESSED, 1);
    return false;
}

static bool is_bare(const char *text, size_t len)
{
    static const char also[] = "._-/:@+,%*~";
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == '\0' || !strchr(also, c)))
            return false;
    }
    return len > 0;
}

static void add_name(const char *name)
{
    if (line_format == LOG_JSON) {
        buf_addc(&line, line.len ? ',' : '{');
        json_quote(&line, name, strlen(name));
        buf_addc(&line, ':');
    } else {
        if (line.len)
            buf_addc(&line, ' ');
        buf_adds(&line, name);
        buf_addc(&line, '=');
    }
}

/* Our own words. */
static void add_word(const char *name, const char *word)
{
    add_name(name);
    buf_addf(&line, line_format == LOG_JSON ? "\"%s\"" : "%s", word);
}

static void add_text(const char *name, const char *text, bool quoted)
{
    buf_clear(&clean);
    redact(text, strlen(text), &clean);
    add_name(name);
    if (!quoted && is_bare(buf_text(&clean), clean.len))
        buf_add(&line, clean.data, clean.len);
    else
        json_quote(&line, buf_text(&clean), clean.len);
}

static void add_field(const struct log_field *f)
{
    if (f->kind == LOG_STR) {
        if (f->s)
            add_text(f->name, f->s, line_format == LOG_JSON);
        return;
    }
    add_name(f->name);
    if (f->kind == LOG_INT)
        buf_addf(&line, "%lld", (long long)f->i);
    else
        buf_addf(&line, "%llu", (unsigned long long)f->u);
}

static void add_head(enum log_level level, uint64_t now, const char *msg)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char ts[TIME_TEXT_SIZE];
    format_time_ms(now / NS_PER_MS, ts);
    buf_clear(&line);
    add_word("ts", ts);
    add_word("level", names[level]);
    add_text("msg", msg, true);
}

/* ---- the way out ---- */

static uint64_t monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / NS_PER_MS;
}

/* Waits until then at most; a stderr that is broken counts as one with room: write() says so. */
static bool has_room(uint64_t until_ms)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    for (;;) {
        uint64_t now = monotonic_ms();
        int n = poll(&p, 1, now < until_ms ? (int)(until_ms - now) : 0);
        if (n >= 0 || errno != EINTR)
            return n != 0;
    }
}

/* What may be written at once when there is room at all. A file gets lines whole. */
static size_t piece_size(void)
{
    struct stat st;
    if (fstat(STDERR_FILENO, &st) != 0 || S_ISREG(st.st_mode))
        return SIZE_MAX;
    return S_ISCHR(st.st_mode) ? TTY_PIECE : PIPE_BUF;
}

/* False: not all of it got through. */
static bool deliver(const char *text, size_t len, unsigned patience_ms)
{
    uint64_t until_ms = monotonic_ms() + patience_ms;
    size_t piece = piece_size(), done = 0;
    while (done < len && has_room(until_ms)) {
        ssize_t n = write(STDERR_FILENO, text + done, MIN(piece, len - done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    if (done > 0)
        torn = done < len;
    return done == len;
}

static void end_line(void)
{
    if (line_format == LOG_JSON)
        buf_addc(&line, '}');
}

static void report_lost(uint64_t now)
{
    if (!has_room(0) || (torn && !deliver("\n", 1, 0)))
        return;
    add_head(LOG_LEVEL_WARN, now, "log lines lost: stderr did not take them");
    add_field(&L_UINT("lines", lost));
    end_line();
    buf_addc(&line, '\n');
    if (deliver(buf_text(&line), line.len, 0))
        lost = 0;
}

static void write_line(void)
{
    end_line();
    if (sink) {
        sink(sink_arg, buf_text(&line), line.len);
        return;
    }
    buf_addc(&line, '\n');
    if (lost == 0 && deliver(buf_text(&line), line.len, PATIENCE_MS))
        return;
    lost++;
    metric_add(M_LOG_LOST, 1);
}

void log_emit(struct log_site *site, enum log_level level, const struct log_scope *scope,
              const char *msg, const struct log_field *fields, size_t n)
{
    pthread_mutex_lock(&lock);
    uint64_t now = now_ns();
    if (site_allows(site, now)) {
        if (lost > 0 && !sink)
            report_lost(now);
        add_head(level, now, msg);
        for (size_t i = 0; scope && i < scope->n; i++)
            add_field(&scope->fields[i]);
        for (size_t i = 0; i < n; i++)
            add_field(&fields[i]);
        if (line.overflow || line.len + 64 > LINE_LIMIT) {
            add_head(level, now, msg);
            add_field(&L_STR("dropped", "fields"));
        }
        if (site->suppressed > 0)
            add_field(&L_UINT("suppressed", site->suppressed));
        site->suppressed = 0;
        write_line();
    }
    pthread_mutex_unlock(&lock);
}
