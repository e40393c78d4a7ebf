/* Configuration: one table of keys (config.c) drives parsing, defaults, limits, `--print-defaults`
 * and the generated config/worker.cfg.
 *
 * Order: -s > environment > file > default. All errors are reported at once. */
#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

#include "common/base.h"
#include "common/buf.h"

struct provider_config { /* all strings owned */
    char *name;
    char *type;
    char *api_url;
    char *api_key; /* secret; from api_key_file, DAYTONA_API_KEY[_FILE] … */
    char *api_key_file;
    char **targets;
    size_t n_targets;
    int creates_per_minute;
    double budget_share; /* (0, 1] */
};

enum delivery { EXACTLY_ONCE, AT_LEAST_ONCE };

struct config {  /* all strings owned; never NULL: "" when unset */
    char *fleet; /* already resolved: kafka.group when the file says "" */
    struct {
        char *brokers, *group, *instance, *password; /* password is secret */
        enum delivery delivery;
        char *password_file;
        char **properties; /* "name=value" */
        size_t n_properties;
    } kafka;
    struct {
        char *jobs, *results, *progress, *dead_letters; /* "" = none, where allowed */
    } topics;
    struct {
        int max_in_flight, max_age_seconds, timeout_seconds, attempts, max_bytes;
        bool require_key;
    } jobs;
    struct {
        int create_seconds, start_seconds, launch_seconds;
    } steps;
    struct provider_config *providers; /* at least one */
    size_t n_providers;
    struct {
        char *snapshot;
        int auto_stop_minutes, auto_archive_minutes, auto_delete_minutes;
    } sandbox;
    struct {
        char **secrets; /* contents of secret_files, each >= 16 bytes: the first signs, all
                           recognise. May be empty. Secret. */
        size_t n_secrets;
        char **secret_files;
        size_t n_secret_files;
    } session_key;
    struct {
        bool with_secrets;
    } events;
    struct {
        int every_seconds;
        bool dry_run;
    } sweep;
    struct {
        char **connect_to; /* "domain=host:port" */
        size_t n_connect_to;
    } http;
    struct {
        char *listen; /* "host:port"; "" = no admin port */
    } admin;
    struct {
        char *level, *format; /* debug info warn error; auto logfmt json */
    } log;
    struct {
        int timeout_seconds;
    } drain;
    bool loaded; /* by config_load: the redactor knows its secrets */
};

struct config_source {
    const char *file;        /* NULL: none */
    const char *const *sets; /* "KEY=VALUE" of -s, in order */
    size_t n_sets;
    char *const *environ; /* as in main(); NULL: none */
    bool client;          /* a client of the topics: a provider without a key is no mistake */
    /* What others demand of it, asked when all is read, mistakes or not: false with lines in
     * errors. NULL: nothing. */
    bool (*check)(const struct config *, struct buf *errors);
};

/* Reads everything. On success *out is filled (config_done it) and true is returned; its secrets
 * are known to the redactor until then. On failure false, and errors (initialised by the caller)
 * holds one line per mistake ("worker.cfg:12: jobs.attempts must be 1 to 10 (is 0)"). */
MUST_USE bool config_load(const struct config_source *src, struct config *out, struct buf *errors);
void config_done(struct config *);

/* As a worker.cfg: every key with its sentence and default (defaults = true: the text of
 * config/worker.cfg), or the values in force with secrets as "***". */
void config_print_defaults(struct buf *out);
void config_print(const struct config *, struct buf *out);

#endif
