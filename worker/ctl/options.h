/* Command lines: a table of options drives parsing, `--help` and the members of a job.
 *
 * Knows no verb and does no I/O. Values are borrowed from argv; lists are owned. */
#ifndef WORKER_CTL_OPTIONS_H
#define WORKER_CTL_OPTIONS_H

#include "common/base.h"
#include "common/buf.h"

struct texts {
    const char **items; /* the array is owned, the texts are borrowed */
    size_t n, cap;
};
void texts_add(struct texts *, const char *);
void texts_done(struct texts *);

enum option_kind {
    OPT_FLAG,   /* bool */
    OPT_TEXT,   /* const char *; NULL: not given */
    OPT_CHOICE, /* const char *, one of those in `arg` ("a|b|c") */
    OPT_JSON,   /* const char *, a JSON object */
    OPT_LIST,   /* struct texts: may be given several times */
    OPT_PLACES, /* the same, each HOST:PORT or a URL */
    OPT_INT,    /* int64_t in [min, max]; 0: not given */
    OPT_INDEX,  /* int64_t in [min, max], plus 1: 0 is a value, too; 0: not given */
    OPT_RATE,   /* double, per second: "5/s", "300/min", "5"; 0: not given */
};

struct option {
    const char *name; /* "snapshot" for --snapshot */
    char letter;      /* 'b' for -b; 0: none */
    enum option_kind kind;
    size_t offset;    /* of the value in the verb's arguments */
    const char *arg;  /* its name in the help; NULL for a flag */
    const char *help; /* one line, lower case, no full stop */
    const char *path; /* member of the job that it sets ("sandbox.snapshot"); NULL: none */
    int64_t min, max; /* OPT_INT */
};

struct option_table {
    const struct option *options;
    size_t n;
};

/* Reads argv[0..argc) (no program name) by n tables into `args`, which is zeroed; what is no option
 * goes to operands. Accepts --name VALUE, --name=VALUE, -b VALUE, -bVALUE, and "--" before operands
 * that begin with a dash. False: a sentence in error. */
#define OPTIONS_ERROR_SIZE 200
struct option_input {
    const struct option_table *tables;
    size_t n;
    void *args;
    struct texts *operands;
};
MUST_USE bool options_parse(const struct option_input *, int argc, char *const *argv,
                            char error[OPTIONS_ERROR_SIZE]);

/* Frees the lists that options_parse made in args. */
void options_done(const struct option_table *, void *args);

/* One line per option, as in every --help. */
void options_print(const struct option_table *, struct buf *out);

/* Where the option's value stands in args. */
const char *option_text(const struct option *, const void *args); /* TEXT, CHOICE, JSON */
int64_t option_int(const struct option *, const void *args);

/* "5/s", "300/min", "1000/h" or a bare number per second, up to 100000/s. */
MUST_USE bool parse_rate(const char *text, double *per_second);

#endif
