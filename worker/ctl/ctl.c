/* ctl: what the verbs share (see ctl.h): configuration, output, files, time.
 *
 * stdout carries results only, one line each and flushed at once, so that it can be piped into
 * anything; what went wrong goes to stderr, in one line that says what to do. Nothing foreign
 * reaches either without passing add_safe() or add_json_line(). */
#include "worker/ctl/ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/xalloc.h"
#include "worker/ctl/event.h"
#include "worker/ctl/text.h"
#include "worker/io/demands.h"

#define ESCAPED_MAX 6 /* bytes that one may become */
#define COMPLAINT_MAX 4000
#define ERRORS_MAX 20000
#define ASK_MS 3000

void complain(const char *fmt, ...)
{
    struct buf text, line;
    buf_init(&text, COMPLAINT_MAX);
    buf_init(&line, 4 * COMPLAINT_MAX);
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&text, fmt, ap);
    va_end(ap);
    add_safe(&line, buf_text(&text), text.len);
    fprintf(stderr, "sessionctl: %s\n", buf_text(&line));
    buf_done(&text);
    buf_done(&line);
}

void say_json(const struct buf *json)
{
    struct buf line;
    buf_init(&line, ESCAPED_MAX * json->len + 1);
    add_json_line(&line, buf_text(json), json->len);
    say(&line);
    buf_done(&line);
}

static int output_error; /* of the first write that failed; 0: none */

int output_fault(void)
{
    errno = 0;
    bool ok = fflush(stdout) == 0 && !ferror(stdout);
    if (!ok && !output_error)
        output_error = errno ? errno : EIO;
    return output_error;
}

void say_text(const struct buf *text)
{
    errno = 0;
    if (fwrite(buf_text(text), 1, text->len, stdout) < text->len && !output_error)
        output_error = errno;
    output_fault();
}

static void say_piece(void *arg, const struct buf *piece)
{
    (void)arg;
    say_text(piece);
}

void say_table(const struct table *t, bool colour)
{
    if (table_rows(t))
        table_each(t, colour, say_piece, NULL);
}

void say(const struct buf *line)
{
    fwrite(buf_text(line), 1, line->len, stdout);
    putchar('\n');
    output_fault();
}

uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / NS_PER_MS;
}

uint64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / NS_PER_MS;
}

/* ---- configuration ---- */

bool ctl_config(const struct common *c, bool worker, struct config *cfg, struct buf *errors)
{
    struct texts sets = {0};
    CLEANUP(free_ptr) char *brokers = NULL;
    for (size_t i = 0; i < c->sets.n; i++)
        texts_add(&sets, c->sets.items[i]);
    if (c->brokers) {
        brokers = xasprintf("kafka.brokers=%s", c->brokers);
        texts_add(&sets, brokers);
    }
    struct config_source src = {.file = c->file,
                                .sets = sets.items,
                                .n_sets = sets.n,
                                .environ = environ,
                                .client = !worker,
                                .check = demands_met};
    bool ok = config_load(&src, cfg, errors);
    texts_done(&sets);
    /* What librdkafka has to say is for who asks: log.level=debug. The rest is in our own words. */
    bool debug = ok && strcmp(cfg->log.level, "debug") == 0;
    log_setup(debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, LOG_LOGFMT);
    return ok;
}

/* One complaint for each line of text. */
static void complain_lines(const char *text)
{
    for (size_t n; *text; text += n + (text[n] == '\n')) {
        n = strcspn(text, "\n");
        complain("%.*s", (int)n, text);
    }
}

bool ctl_client_config(const struct common *c, struct config *cfg)
{
    struct buf errors;
    buf_init(&errors, ERRORS_MAX);
    bool ok = ctl_config(c, false, cfg, &errors);
    complain_lines(buf_text(&errors));
    buf_done(&errors);
    return ok;
}

bool ctl_since(const char *text, uint64_t *since_ms)
{
    *since_ms = 0;
    if (!text || parse_since(text, wall_ms(), since_ms))
        return true;
    complain("--since must be such as 90s, 10m, 2h, 3d or 2026-11-24T08:00:00Z (is %s)", text);
    return false;
}

/* ---- workers ---- */

/* One that was not given is tried only where a file says that it is of this very deployment. */
void ctl_admins(const struct common *c, const struct texts *given, const struct config *cfg,
                struct admins *out)
{
    *out = (struct admins){.told = given->n > 0};
    for (size_t i = 0; i < given->n; i++)
        texts_add(&out->addresses, given->items[i]);
    if (given->n == 0 && c->file && *cfg->admin.listen) {
        out->ours = dial_address(cfg->admin.listen);
        texts_add(&out->addresses, out->ours);
    }
}

void admins_done(struct admins *a)
{
    texts_done(&a->addresses);
    free(a->ours);
}

struct worker_answer *admins_ask(const struct admins *a)
{
    struct worker_answer *answers = ask_workers(&a->addresses, ASK_MS);
    for (size_t i = 0; i < a->addresses.n; i++)
        if (!answers[i].page && a->told)
            complain("%s: %s: -a takes the admin.listen of a worker", answers[i].address,
                     answers[i].error);
    return answers;
}

/* ---- events ---- */

struct view ctl_view(const struct common *c)
{
    const char *term = getenv("TERM"), *no = getenv("NO_COLOR");
    bool dumb = (no && *no) || !term || strcmp(term, "dumb") == 0;
    return (struct view){.json = c->output && strcmp(c->output, "json") == 0,
                         .colour = !dumb && isatty(STDOUT_FILENO)};
}

void ctl_show(const struct view *v, const cJSON *event, const char *text, size_t len)
{
    struct buf line;
    if (event_end(event) == EVENT_FOREIGN) {
        complain("passed over a record of %zu bytes that is no event", len);
        return;
    }
    buf_init(&line, ESCAPED_MAX * len + COMPLAINT_MAX); /* and our own words */
    if (v->json)
        add_json_line(&line, text, len);
    else
        event_text(event, v->colour, &line);
    say(&line);
    buf_done(&line);
}

/* ---- files ---- */

static char *read_stream(FILE *f, const char *name, size_t max)
{
    struct buf text;
    char block[4096];
    buf_init(&text, max);
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;)
        buf_add(&text, block, n);
    explicit_bzero(block, sizeof block);
    if (ferror(f))
        complain("%s: %s", name, strerror(errno));
    else if (text.overflow)
        complain("%s: more than %zu bytes", name, max);
    else if (memchr(buf_text(&text), '\0', text.len))
        complain("%s: is no text (it holds a NUL byte)", name);
    else
        return buf_steal(&text);
    buf_done(&text);
    return NULL;
}

char *read_text(const char *path, size_t max)
{
    static bool stdin_used;
    if (strcmp(path, "-") == 0) {
        if (stdin_used)
            return complain("\"-\" (standard input) can be read only once"), NULL;
        stdin_used = true;
        return read_stream(stdin, "standard input", max);
    }
    FILE *f = fopen(path, "re");
    if (!f)
        return complain("%s: %s", path, strerror(errno)), NULL;
    char *text = read_stream(f, path, max);
    fclose(f);
    return text;
}
