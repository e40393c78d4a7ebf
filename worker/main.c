/* session-worker: argv, signals, wiring, exit codes.
 *
 *   0   drained, or the asked question answered well
 *   1   cannot start, the answer is bad, or a second TERM
 *   2   usage or configuration
 *   75  start it again (a call that hangs, a live twin)
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "common/stdfds.h"
#include "common/version.h"
#include "common/xalloc.h"
#include "worker/io/admin.h"
#include "worker/io/check.h"
#include "worker/io/demands.h"
#include "worker/io/host.h"
#include "worker/io/kafka.h"
#include "worker/io/notify.h"

enum exit_code { EXIT_FINE = 0, EXIT_BAD = 1, EXIT_USAGE = 2 };
enum question { RUN, CHECK, PRINT_CONFIG, PRINT_DEFAULTS, HEALTHCHECK, PRINT_VERSION, HELP };

struct arguments {
    enum question question;
    bool live;
    const char *file;
    const char **sets; /* owned array */
    size_t n_sets, cap_sets;
};

static const char usage[] =
    "session-worker: consumes start-session jobs from Kafka, provisions sandboxes, publishes one "
    "event per job\n"
    "\n"
    "usage: session-worker [-c FILE] [-s KEY=VALUE].. [question]\n"
    "\n"
    "  -c, --config FILE     worker.cfg; without it: environment and defaults\n"
    "  -s, --set KEY=VALUE   sets one key, over file and environment: -s jobs.max_in_flight=200\n"
    "\n"
    "questions, answered instead of running:\n"
    "      --check           is the configuration right? all mistakes at once\n"
    "      --live            with --check: are broker, topics and provider there as well?\n"
    "      --print-config    the configuration in force, secrets hidden\n"
    "      --print-defaults  a worker.cfg with every key, its meaning and default\n"
    "      --healthcheck     is the worker at admin.listen alive? (for containers)\n"
    "  -V, --version\n"
    "  -h, --help\n"
    "\n"
    "environment: SESSION_WORKER_ + key in capitals with _ (SESSION_WORKER_KAFKA_BROKERS), "
    "..._FILE for secrets;\n"
    "             DAYTONA_API_KEY, DAYTONA_API_URL, DAYTONA_TARGET\n"
    "signals: TERM drains within drain.timeout_seconds, a second TERM ends at once\n"
    "exit: 0 drained or answered well, 1 cannot start or a second TERM, 2 usage or configuration, "
    "75 start it again\n";

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'}, {"set", required_argument, NULL, 's'},
    {"check", no_argument, NULL, 'k'},        {"live", no_argument, NULL, 'l'},
    {"print-config", no_argument, NULL, 'p'}, {"print-defaults", no_argument, NULL, 'd'},
    {"healthcheck", no_argument, NULL, 'H'},  {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};

static void add_set(struct arguments *a, const char *text)
{
    GROW(a->sets, a->n_sets, a->cap_sets);
    a->sets[a->n_sets++] = text;
}

/* False: unknown option (getopt has said so). */
static bool take_option(struct arguments *a, int option)
{
    static const struct {
        int option;
        enum question question;
    } questions[] = {{'k', CHECK},       {'p', PRINT_CONFIG},  {'d', PRINT_DEFAULTS},
                     {'H', HEALTHCHECK}, {'V', PRINT_VERSION}, {'h', HELP}};
    for (size_t i = 0; i < ARRAY_LEN(questions); i++) {
        if (questions[i].option != option)
            continue;
        a->question = questions[i].question;
        return true;
    }
    if (option == 'c')
        a->file = optarg;
    else if (option == 's')
        add_set(a, optarg);
    else if (option == 'l')
        a->live = true;
    else
        return false;
    return true;
}

static bool parse_arguments(int argc, char **argv, struct arguments *a)
{
    int option;
    bool ok = true;
    while ((option = getopt_long(argc, argv, "c:s:Vh", options, NULL)) != -1)
        ok = take_option(a, option) && ok;
    if (optind < argc) {
        fprintf(stderr, "session-worker: %s: no arguments are taken, see --help\n", argv[optind]);
        return false;
    }
    if (a->live && a->question != CHECK) {
        fputs("session-worker: --live goes with --check\n", stderr);
        return false;
    }
    return ok;
}

/* ---- the process ---- */

static void raise_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

/* Secrets live in this process: no core, no tracing by others, no key log, no surprise proxy. */
static void harden(void)
{
    static const char *const unwanted[] = {"SSLKEYLOGFILE", "http_proxy", "https_proxy",
                                           "all_proxy",     "HTTP_PROXY", "HTTPS_PROXY",
                                           "ALL_PROXY"};
    struct rlimit none = {0, 0};
    for (size_t i = 0; i < ARRAY_LEN(unwanted); i++)
        unsetenv(unwanted[i]);
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#ifndef __SANITIZE_ADDRESS__ /* the leak check traces its own process */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
    raise_file_limit();
}

/* A question is asked by a person, who has no use for more than the answer and what is wrong. */
static void setup_log(const struct config *cfg, enum question question)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    enum log_level level = LOG_LEVEL_INFO;
    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        if (strcmp(cfg->log.level, levels[i]) == 0)
            level = (enum log_level)i;
    bool json = strcmp(cfg->log.format, "json") == 0 ||
                (strcmp(cfg->log.format, "auto") == 0 && !isatty(STDERR_FILENO));
    if (question == RUN)
        log_setup(level, json ? LOG_JSON : LOG_LOGFMT);
    else
        log_setup(LOG_LEVEL_ERROR, LOG_LOGFMT);
}

struct life { /* what signals and the service manager are about */
    struct host *host;
    struct notify *notify;
};

static volatile sig_atomic_t asked_to_end;

static void on_signal(void *arg, int signo)
{
    const struct life *life = arg;
    (void)signo;
    if (asked_to_end) {
        log_warn(NULL, "ended by a second signal: the jobs in hand are left to the next owner");
        _exit(EXIT_BAD);
    }
    asked_to_end = 1;
    host_drain(life->host);
    notify_stopping(life->notify);
}

static void on_late_signal(int signo)
{
    (void)signo;
    if (asked_to_end)
        _exit(EXIT_BAD);
    asked_to_end = 1;
}

/* The loop has ended and hears no more signals, but the rest may take seconds. */
static void hear_late_signals(void)
{
    const struct sigaction action = {.sa_handler = on_late_signal, .sa_flags = SA_RESTART};
    ASSERT(sigaction(SIGTERM, &action, NULL) == 0 && sigaction(SIGINT, &action, NULL) == 0);
}

static bool look(void *arg, struct buf *status)
{
    const struct life *life = arg;
    return host_status(life->host, status);
}

static int run(const struct config *cfg)
{
    struct loop *loop = loop_new();
    struct life life = {0};
    struct notify_source source = {.look = look, .arg = &life};
    int code = EXIT_BAD;
    kafka_log_version(cfg);
    life.notify = notify_new(loop, &source); /* changes the environment: before there are threads */
    loop_signal(loop, SIGTERM, on_signal, &life); /* before there is a group to leave */
    loop_signal(loop, SIGINT, on_signal, &life);
    if (host_new(loop, cfg, &life.host) == 0)
        code = host_run(life.host);
    hear_late_signals();
    notify_free(life.notify);
    host_free(life.host);
    loop_free(loop);
    return code;
}

/* ---- the questions ---- */

static void print_text(void (*print)(struct buf *))
{
    struct buf out;
    buf_init(&out, 1 << 20);
    print(&out);
    fputs(buf_text(&out), stdout);
    buf_done(&out);
}

static int print_config(const struct config *cfg)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    config_print(cfg, &out);
    fputs(buf_text(&out), stdout);
    buf_done(&out);
    return EXIT_FINE;
}

static int answer(const struct arguments *a, const struct config *cfg)
{
    switch (a->question) {
    case CHECK:
        check_line(true, "configuration", a->file ? a->file : "defaults and environment");
        return a->live && !check_live(cfg) ? EXIT_BAD : EXIT_FINE;
    case PRINT_CONFIG:
        return print_config(cfg);
    case HEALTHCHECK:
        return admin_healthcheck(cfg->admin.listen) == 0 ? EXIT_FINE : EXIT_BAD;
    default:
        return run(cfg);
    }
}

static int with_config(const struct arguments *a)
{
    struct config cfg;
    struct buf errors;
    bool works = a->question == RUN || a->question == CHECK; /* with brokers and providers */
    struct config_source source = {.file = a->file,
                                   .sets = a->sets,
                                   .n_sets = a->n_sets,
                                   .environ = environ,
                                   .client = !works,
                                   .check = works ? demands_met : NULL};
    buf_init(&errors, 1 << 16);
    int code = EXIT_USAGE;
    if (config_load(&source, &cfg, &errors)) {
        setup_log(&cfg, a->question);
        code = answer(a, &cfg);
        config_done(&cfg);
    } else {
        fputs(buf_text(&errors), stderr);
    }
    buf_done(&errors);
    return code;
}

/* An answer that did not get out is none. */
static int written(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    fprintf(stderr, "session-worker: cannot write to stdout: %s\n", strerror(errno));
    return EXIT_BAD;
}

int main(int argc, char **argv)
{
    struct arguments a = {0};
    int code = EXIT_USAGE;
    stdfds_open();
    harden();
    if (parse_arguments(argc, argv, &a)) {
        code = EXIT_FINE;
        if (a.question == HELP)
            fputs(usage, stdout);
        else if (a.question == PRINT_VERSION)
            puts("session-worker " VERSION);
        else if (a.question == PRINT_DEFAULTS)
            print_text(config_print_defaults);
        else
            code = with_config(&a);
        code = written(code);
    }
    free(a.sets);
    if (kafka_left_behind())
        _exit(code); /* stdout is flushed */
    return code;
}
