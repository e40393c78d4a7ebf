/* sessionctl: what every verb shares. One verb is one file and one line in main.c's table. */
#ifndef WORKER_CTL_CTL_H
#define WORKER_CTL_CTL_H

#include <cjson/cJSON.h>

#include "common/config.h"
#include "worker/ctl/ask.h"
#include "worker/ctl/options.h"
#include "worker/ctl/table.h"

enum ctl_exit {
    CTL_OK = 0,        /* done; with --wait: ready, stopped, deleted */
    CTL_FAILED = 1,    /* a failed event, a refused job, a check that did not pass */
    CTL_USAGE = 2,     /* command line, configuration, or a file named there */
    CTL_WAITED = 3,    /* --wait ran out */
    CTL_NO_BROKER = 4, /* no broker answers */
};

/* The options that every verb has: the first member of its arguments. */
struct common {
    bool help;
    const char *brokers, *file; /* NULL: not given */
    const char *output;         /* text json; NULL: text */
    struct texts sets;
    struct texts operands;
};

#define VERB_TABLES 2
struct verb {
    const char *name, *synopsis, *summary;
    const char *notes;                       /* the last lines of its help */
    struct option_table tables[VERB_TABLES]; /* beside the common one; n = 0: none */
    size_t args_size;                        /* of its arguments, which begin with struct common */
    size_t max_operands;
    enum ctl_exit (*run)(void *args);
};
extern const struct verb verb_start, verb_submit, verb_stop, verb_delete, verb_watch, verb_check,
    verb_sessions, verb_top, verb_explain, verb_dlq;

/* Reads the configuration as a client of the topics, which needs no provider's key; with `worker`
 * as session-worker does. False: cfg holds nothing and errors one line per mistake. */
MUST_USE bool ctl_config(const struct common *, bool worker, struct config *cfg,
                         struct buf *errors);

/* The same as a client, mistakes told on stderr. */
MUST_USE bool ctl_client_config(const struct common *, struct config *cfg);

/* --since as milliseconds since 1970 (NULL: 0). False: complained. */
MUST_USE bool ctl_since(const char *text, uint64_t *since_ms);

/* The workers that can be asked what is in flight: those of -a, or quietly the one of the
 * configuration file, if there is a file. */
struct admins {
    struct texts addresses;
    char *ours; /* owned */
    bool told;  /* by -a: one that does not answer is complained of */
};
void ctl_admins(const struct common *, const struct texts *given, const struct config *,
                struct admins *out);
struct worker_answer *admins_ask(const struct admins *); /* one for each address; answers_free */
void admins_done(struct admins *);

/* How events are shown. */
struct view {
    bool json, colour;
};
struct view ctl_view(const struct common *);

/* One line on stdout for an event (tree, or NULL when the text is no JSON). Nothing, but a word on
 * stderr, when it is no event of ours. */
void ctl_show(const struct view *, const cJSON *event, const char *text, size_t len);

/* "sessionctl: ..." on stderr, control characters shown as escapes. */
void complain(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* The line and a newline on stdout, out at once; and a text of many lines. */
void say(const struct buf *line);
void say_text(const struct buf *text);
void say_table(const struct table *, bool colour); /* nothing when it has no rows */

/* Whether all that was said went out; 0, or an errno. Asked at the end of every verb, and by those
 * that have no end. */
int output_fault(void);

/* The whole of a file, or of stdin for "-" (once): at most max bytes, no NUL. NULL: complained.
 * Owned. */
char *read_text(const char *path, size_t max);

/* The same of a JSON text, made harmless for a terminal. */
void say_json(const struct buf *json);

/* Milliseconds of the monotonic clock. */
uint64_t now_ms(void);

/* Milliseconds since 1970. */
uint64_t wall_ms(void);

#endif
