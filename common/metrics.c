/* metrics: see the header.
 *
 * One table says of every metric its name, help, type, labels and buckets; storage, printing and
 * the checks of indices follow from it. A label is an index into a closed list of values: no text
 * of a job can become a series, and the number of series is a constant. A value is a double kept as
 * bits in an atomic word; adding is a compare-and-swap, so any thread may count. A histogram's
 * cells are its buckets (not cumulative), then the sum; its count is the buckets' total.
 *
 * Invariant: cells of metric m lie at first[m] … first[m] + series(m) * width(m) - 1. */
#include "common/metrics.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/version.h"
#include "common/wire.h"
#include "common/xalloc.h"

enum kind { COUNTER, GAUGE, HISTOGRAM };

struct label {
    const char *name;               /* NULL: no such label */
    const char *const *values;      /* or … */
    const char *(*value)(unsigned); /* … a function */
    unsigned first, n;              /* indices first … n-1 are series */
};

struct buckets {
    const double *le;
    size_t n;
};

struct info {
    enum kind kind;
    const char *name; /* without the prefix */
    struct label a, b;
    const char *help;
    const struct buckets *buckets; /* of a histogram */
};

static const double call_le[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};
static const double step_le[] = {0.1, 0.25, 0.5, 1,  2,  3,   5,   8,   13,
                                 20,  30,   45,  60, 90, 120, 180, 300, 600};
static const double loop_le[] = {0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5};
static const struct buckets call_buckets = {call_le, ARRAY_LEN(call_le)};
static const struct buckets step_buckets = {step_le, ARRAY_LEN(step_le)};
static const struct buckets loop_buckets = {loop_le, ARRAY_LEN(loop_le)};

static const char *step_label(unsigned i)
{
    return step_name((enum step)i);
}

static const char *code_label(unsigned i)
{
    return error_name((enum error_code)i);
}

static const char *const outcomes[N_MO] = {"ready", "failed", "stopped", "deleted", "refused"};
static const char *const statuses[N_MS] = {"2xx", "3xx",     "4xx",     "429",
                                           "5xx", "timeout", "connect", "other"};
static const char *const scopes[] = {"general", "create", "lifecycle", "other"};
static const char *const batches[N_MB] = {"committed", "refused", "unknown"};
static const char *const rebalances[] = {"assigned", "revoked", "lost"};

/* clang-format off */
#define STEP {"step", NULL, step_label, 0, N_STEPS}
#define CODE {"code", NULL, code_label, ERR_NONE + 1, N_ERRORS}
#define LIST(name, values) {name, values, NULL, 0, ARRAY_LEN(values)}
#define NONE {NULL, NULL, NULL, 0, 1}

static const struct info table[N_METRICS] = {
    [M_JOBS_RECEIVED] = {COUNTER, "jobs_received_total", NONE, NONE,
        "Jobs taken from the jobs topic.", NULL},
    [M_JOBS_SKIPPED] = {COUNTER, "jobs_skipped_total", NONE, NONE,
        "Jobs that an earlier owner had already finished.", NULL},
    [M_JOBS_COMPLETED] = {COUNTER, "jobs_completed_total", LIST("outcome", outcomes), NONE,
        "Jobs whose result is committed.", NULL},
    [M_JOB_FAILURES] = {COUNTER, "job_failures_total", STEP, CODE,
        "Failed jobs by the step and the code of their event.", NULL},
    [M_JOB_RETRIES] = {COUNTER, "job_retries_total", STEP, NONE,
        "Steps that were tried again after something went wrong.", NULL},
    [M_JOB_SECONDS] = {HISTOGRAM, "job_duration_seconds", LIST("outcome", outcomes), NONE,
        "Time from taken to committed.", &step_buckets},
    [M_STEP_SECONDS] = {HISTOGRAM, "step_duration_seconds", STEP, NONE,
        "Time that a step took.", &step_buckets},
    [M_JOBS_IN_FLIGHT] = {GAUGE, "jobs_in_flight", NONE, NONE,
        "Jobs taken and not yet committed.", NULL},
    [M_JOBS_PARKED] = {GAUGE, "jobs_parked", NONE, NONE,
        "Jobs that wait for leave to create.", NULL},
    [M_RESULTS_UNPUBLISHED] = {GAUGE, "results_unpublished", NONE, NONE,
        "Results that no commit has carried yet.", NULL},
    [M_UNKNOWN_FIELDS] = {COUNTER, "unknown_fields_total", NONE, NONE,
        "Members of jobs that were ignored.", NULL},
    [M_SANDBOXES_CREATED] = {COUNTER, "sandboxes_created_total", NONE, NONE,
        "Sandboxes made.", NULL},
    [M_SANDBOXES_ADOPTED] = {COUNTER, "sandboxes_adopted_total", NONE, NONE,
        "Sandboxes that were there and used.", NULL},
    [M_SANDBOXES_DESTROYED] = {COUNTER, "sandboxes_destroyed_total", NONE, NONE,
        "Sandboxes destroyed.", NULL},
    [M_SANDBOXES_SPARED] = {COUNTER, "sandboxes_spared_total", NONE, NONE,
        "Sandboxes that a destroy found kept.", NULL},
    [M_SANDBOXES_SWEPT] = {COUNTER, "sandboxes_swept_total", NONE, NONE,
        "Garbage that the sweep found.", NULL},
    [M_LATE_KEEPS] = {COUNTER, "late_keeps_total", NONE, NONE,
        "Sandboxes kept by a request that a successor overtook.", NULL},
    [M_PROVIDER_REQUESTS] = {COUNTER, "provider_requests_total", STEP, LIST("status", statuses),
        "Requests to the provider by step and answer.", NULL},
    [M_PROVIDER_SECONDS] = {HISTOGRAM, "provider_request_duration_seconds", STEP, NONE,
        "Time that a request to the provider took.", &call_buckets},
    [M_PROVIDER_REMAINING] = {GAUGE, "provider_rate_limit_remaining", LIST("scope", scopes), NONE,
        "Requests that the provider still allows in this window.", NULL},
    [M_PROVIDER_REFUSES] = {GAUGE, "provider_refuses_key", NONE, NONE,
        "1 while a provider refuses our key and nothing is taken.", NULL},
    [M_BATCHES] = {COUNTER, "kafka_batches_total", LIST("result", batches), NONE,
        "Batches of results by the outcome of their commit.", NULL},
    [M_BATCH_SECONDS] = {HISTOGRAM, "kafka_batch_duration_seconds", NONE, NONE,
        "Time that a batch took to commit.", &call_buckets},
    [M_PRODUCERS_MADE] = {COUNTER, "kafka_producers_made_total", NONE, NONE,
        "Producers made; more than one means that a commit went wrong.", NULL},
    [M_REBALANCES] = {COUNTER, "kafka_rebalances_total", LIST("event", rebalances), NONE,
        "Rebalances of the consumer group.", NULL},
    [M_PARTITIONS] = {GAUGE, "kafka_assigned_partitions", NONE, NONE,
        "Partitions assigned to this worker.", NULL},
    [M_KAFKA_ERRORS] = {COUNTER, "kafka_errors_total", NONE, NONE,
        "Errors that the Kafka client reported.", NULL},
    [M_OFFSETS_REPLAYED] = {COUNTER, "kafka_offsets_replayed_total", NONE, NONE,
        "Commits whose metadata could not be read.", NULL},
    [M_LOOP_LAG_SECONDS] = {HISTOGRAM, "loop_lag_seconds", NONE, NONE,
        "How late the event loop ran a timer.", &loop_buckets},
    [M_HTTP_IN_FLIGHT] = {GAUGE, "http_in_flight", NONE, NONE,
        "HTTP requests under way.", NULL},
    [M_LOG_SUPPRESSED] = {COUNTER, "log_suppressed_total", NONE, NONE,
        "Log lines held back by the rate limit.", NULL},
    [M_LOG_LOST] = {COUNTER, "log_lost_total", NONE, NONE,
        "Log lines that stderr did not take in time.", NULL},
    [M_DRAINING] = {GAUGE, "draining", NONE, NONE,
        "1 while the worker finishes and takes no more jobs.", NULL},
};
/* clang-format on */

static unsigned first[N_METRICS + 1];
static _Atomic uint64_t *cells;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static unsigned width(const struct info *m)
{
    return m->kind == HISTOGRAM ? (unsigned)m->buckets->n + 2 : 1;
}

static void lay_out(void)
{
    for (size_t i = 0; i < N_METRICS; i++) {
        ASSERT(table[i].name && table[i].a.n > 0 && table[i].b.n > 0);
        first[i + 1] = first[i] + table[i].a.n * table[i].b.n * width(&table[i]);
    }
    cells = xcalloc(first[N_METRICS], sizeof *cells);
}

static _Atomic uint64_t *cells_of(enum metric metric, unsigned a, unsigned b)
{
    const struct info *m = &table[metric];
    pthread_once(&once, lay_out);
    ASSERT(a >= m->a.first && a < m->a.n && b >= m->b.first && b < m->b.n);
    return cells + first[metric] + (a * m->b.n + b) * width(m);
}

static double load(_Atomic uint64_t *cell)
{
    uint64_t bits = atomic_load_explicit(cell, memory_order_relaxed);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void store(_Atomic uint64_t *cell, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    atomic_store_explicit(cell, bits, memory_order_relaxed);
}

static void add(_Atomic uint64_t *cell, double by)
{
    uint64_t before = atomic_load_explicit(cell, memory_order_relaxed), after;
    do {
        double value;
        memcpy(&value, &before, sizeof value);
        value += by;
        memcpy(&after, &value, sizeof after);
    } while (!atomic_compare_exchange_weak_explicit(cell, &before, after, memory_order_relaxed,
                                                    memory_order_relaxed));
}

void metric_add(enum metric m, double by)
{
    metric_add2(m, 0, 0, by);
}

void metric_add1(enum metric m, unsigned label, double by)
{
    metric_add2(m, label, 0, by);
}

void metric_add2(enum metric m, unsigned a, unsigned b, double by)
{
    ASSERT(table[m].kind != HISTOGRAM && (by >= 0 || table[m].kind == GAUGE));
    add(cells_of(m, a, b), by);
}

void metric_set(enum metric m, double to)
{
    metric_set1(m, 0, to);
}

void metric_set1(enum metric m, unsigned label, double to)
{
    ASSERT(table[m].kind == GAUGE);
    store(cells_of(m, label, 0), to);
}

void metric_observe(enum metric m, unsigned label, double seconds)
{
    const struct info *info = &table[m];
    ASSERT(info->kind == HISTOGRAM);
    _Atomic uint64_t *c = cells_of(m, label, 0);
    size_t i = 0;
    while (i < info->buckets->n && seconds > info->buckets->le[i])
        i++;
    add(&c[i], 1);
    add(&c[info->buckets->n + 1], seconds);
}

static double count(const struct info *m, _Atomic uint64_t *c)
{
    double total = 0;
    for (size_t i = 0; i <= m->buckets->n; i++)
        total += load(&c[i]);
    return total;
}

double metric_value(enum metric metric, unsigned label)
{
    const struct info *m = &table[metric];
    if (m->kind == HISTOGRAM)
        return count(m, cells_of(metric, label, 0));
    double total = 0;
    for (unsigned b = m->b.first; b < m->b.n; b++)
        total += load(cells_of(metric, label, b));
    return total;
}

double metric_value2(enum metric metric, unsigned a, unsigned b)
{
    ASSERT(table[metric].kind != HISTOGRAM);
    return load(cells_of(metric, a, b));
}

void metrics_reset(void)
{
    pthread_once(&once, lay_out);
    for (unsigned i = 0; i < first[N_METRICS]; i++)
        store(&cells[i], 0);
}

/* ---- exposition ---- */

static const char *label_value(const struct label *l, unsigned i)
{
    return l->values ? l->values[i] : l->value(i);
}

/* {step="create",code="internal",le="0.5"} of those that there are. */
static void print_labels(struct buf *out, const struct info *m, const unsigned at[2],
                         const char *le)
{
    const struct label *labels[] = {&m->a, &m->b};
    char open = '{';
    for (size_t i = 0; i < 2; i++) {
        if (!labels[i]->name)
            continue;
        buf_addf(out, "%c%s=\"%s\"", open, labels[i]->name, label_value(labels[i], at[i]));
        open = ',';
    }
    if (le) {
        buf_addf(out, "%cle=\"%s\"", open, le);
        open = ',';
    }
    if (open == ',')
        buf_addc(out, '}');
}

static void print_line(struct buf *out, const struct info *m, const char *suffix,
                       const unsigned at[2], double value)
{
    buf_addf(out, "session_worker_%s%s", m->name, suffix);
    print_labels(out, m, at, NULL);
    buf_addf(out, " %.17g\n", value);
}

static void print_histogram(struct buf *out, const struct info *m, const unsigned at[2],
                            _Atomic uint64_t *c)
{
    size_t n = m->buckets->n;
    double below = 0;
    for (size_t i = 0; i <= n; i++) {
        char le[32] = "+Inf";
        if (i < n)
            snprintf(le, sizeof le, "%g", m->buckets->le[i]);
        below += load(&c[i]);
        buf_addf(out, "session_worker_%s_bucket", m->name);
        print_labels(out, m, at, le);
        buf_addf(out, " %.17g\n", below);
    }
    print_line(out, m, "_sum", at, load(&c[n + 1]));
    print_line(out, m, "_count", at, below);
}

static void print_metric(struct buf *out, enum metric metric)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    const struct info *m = &table[metric];
    buf_addf(out, "# HELP session_worker_%s %s\n# TYPE session_worker_%s %s\n", m->name, m->help,
             m->name, kinds[m->kind]);
    for (unsigned a = m->a.first; a < m->a.n; a++) {
        for (unsigned b = m->b.first; b < m->b.n; b++) {
            const unsigned at[2] = {a, b};
            _Atomic uint64_t *c = cells_of(metric, a, b);
            if (m->kind == HISTOGRAM)
                print_histogram(out, m, at, c);
            else
                print_line(out, m, "", at, load(c));
        }
    }
}

static void print_process(struct buf *out, const char *name, const char *kind, const char *help,
                          double value)
{
    buf_addf(out, "# HELP process_%s %s\n# TYPE process_%s %s\nprocess_%s %.17g\n", name, help,
             name, kind, name, value);
}

static bool read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, size - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static double count_open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    double n = -3; /* ".", ".." and the directory itself */
    if (!dir)
        return 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* Number `field` (counted from 1) of /proc/self/stat; the name in field 2 may hold anything. */
static double stat_field(const char *stat, int field)
{
    const char *p = strrchr(stat, ')');
    for (int i = 2; p && i < field; i++)
        p = strchr(p + 1, ' ');
    return p ? strtod(p + 1, NULL) : 0;
}

/* Seconds since 1970 at which the machine started. */
static double boot_time(void)
{
    struct timespec wall, up;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_BOOTTIME, &up);
    return (double)(wall.tv_sec - up.tv_sec) + (double)(wall.tv_nsec - up.tv_nsec) / 1e9;
}

static void print_standard(struct buf *out)
{
    char stat[1024];
    struct rlimit files = {0};
    if (!read_text("/proc/self/stat", stat, sizeof stat))
        return;
    double ticks = (double)sysconf(_SC_CLK_TCK);
    getrlimit(RLIMIT_NOFILE, &files);
    print_process(out, "cpu_seconds_total", "counter", "User and system CPU time.",
                  (stat_field(stat, 14) + stat_field(stat, 15)) / ticks);
    print_process(out, "threads", "gauge", "Threads.", stat_field(stat, 20));
    print_process(out, "start_time_seconds", "gauge", "Start, in seconds since 1970.",
                  boot_time() + stat_field(stat, 22) / ticks);
    print_process(out, "virtual_memory_bytes", "gauge", "Virtual memory.", stat_field(stat, 23));
    print_process(out, "resident_memory_bytes", "gauge", "Resident memory.",
                  stat_field(stat, 24) * (double)sysconf(_SC_PAGESIZE));
    print_process(out, "open_fds", "gauge", "Open files.", count_open_files());
    print_process(out, "max_fds", "gauge", "Files that may be open.", (double)files.rlim_cur);
}

void metrics_print(struct buf *out)
{
    buf_adds(out, "# HELP session_worker_build_info Always 1.\n"
                  "# TYPE session_worker_build_info gauge\n"
                  "session_worker_build_info{version=\"" VERSION "\"} 1\n");
    for (unsigned i = 0; i < N_METRICS; i++)
        print_metric(out, (enum metric)i);
    print_standard(out);
}
