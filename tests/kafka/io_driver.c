/* io_driver: the consumer and the publisher without a core, steered by a test.
 *
 *   io_driver BROKERS GROUP JOBS RESULTS DEAD_LETTERS INSTANCE exactly_once|at_least_once|alone
 *             [NAME=VALUE]..
 *
 * It does the least that a worker does: every record becomes one result ("<partition>/<offset>"),
 * results and the offset behind them go out as a batch, a refused batch is put back, what is lost
 * is dropped, a revoke is answered when nothing of it is under way. What happens is a line on
 * stdout; commands come on stdin:
 *
 *   hold | go            finish no record | finish them (default)
 *   shut | open          read nothing | read (default)
 *   keep | release       answer no revoke | answer them (default)
 *   pad N                metadata of N characters from now on
 *   dead N               a dead letter of N bytes with the next batch
 *   status               "status <consumer ready> <publisher ready>"
 *   die N                SIGKILL during the next batch, when N thousandths of the time that the
 * last one took have passed leave                leaves the group and ends
 *
 * alone: exactly_once, without joining the group and without records: it thinks up the jobs of
 * partition 0 from the committed offset on, a few whenever the last few are committed. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/xalloc.h"
#include "worker/io/consumer.h"
#include "worker/io/kafka.h"
#include "worker/io/lookup.h"
#include "worker/io/publisher.h"

#define PARTITIONS 64
#define FEW 3

struct lane { /* of one partition; records are finished in order */
    bool owned, going, dirty;
    int64_t watermark; /* of what is finished */
    int64_t sent;      /* of the batch under way */
    char **results;    /* finished and not committed; owned */
    size_t n, cap, in_batch;
    char **waiting; /* read and not finished; owned */
    size_t n_waiting, cap_waiting;
};

struct driver {
    struct loop *loop;
    struct config config;
    struct consumer *consumer; /* NULL: alone */
    rd_kafka_t *handle;        /* alone: owned */
    struct lookup *lookup;     /* alone */
    struct publisher *publisher;
    struct watch *watch;
    struct lane lanes[PARTITIONS];
    struct batch batch;
    bool committing, hold, shut, keep;
    size_t pad, dead, die;
    uint64_t begun_ns, took_ns; /* the last batch */
    int exit_code;
    char line[4096];
    size_t len;
};

static void say(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

/* ---- lanes ---- */

static void lane_clear(struct lane *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->results[i]);
    for (size_t i = 0; i < l->n_waiting; i++)
        free(l->waiting[i]);
    free(l->results);
    free(l->waiting);
    *l = (struct lane){0};
}

static void lane_finish(struct lane *l)
{
    for (size_t i = 0; i < l->n_waiting; i++) {
        GROW(l->results, l->n, l->cap);
        l->results[l->n++] = l->waiting[i];
        l->watermark = strtoll(strchr(l->waiting[i], '/') + 1, NULL, 10) + 1;
        l->dirty = true;
    }
    l->n_waiting = 0;
}

static void lane_committed(struct lane *l)
{
    for (size_t i = 0; i < l->in_batch; i++)
        free(l->results[i]);
    memmove(l->results, l->results + l->in_batch, (l->n - l->in_batch) * sizeof *l->results);
    l->n -= l->in_batch;
    l->dirty = l->watermark != l->sent;
}

/* ---- batches ---- */

static struct message *message_add(struct batch *b, enum destination to, const char *value,
                                   size_t len)
{
    b->messages = xrealloc(b->messages, b->n_messages + 1, sizeof *b->messages);
    struct message *m = &b->messages[b->n_messages++];
    *m = (struct message){.to = to, .value = xmemdup0(value, len), .value_len = len};
    m->key = xstrdup("key");
    m->key_len = 3;
    m->headers = xcalloc(1, sizeof *m->headers);
    m->headers[0] =
        (struct header){.name = xstrdup("ce_id"), .value = xmemdup0(value, MIN(len, 99u))};
    m->headers[0].len = MIN(len, 99u);
    m->n_headers = 1;
    return m;
}

static void lane_into(struct driver *d, int32_t partition)
{
    struct lane *l = &d->lanes[partition];
    struct batch *b = &d->batch;
    l->in_batch = 0;
    if (!l->owned || !l->dirty)
        return;
    for (; l->in_batch < l->n; l->in_batch++)
        message_add(b, TO_RESULTS, l->results[l->in_batch], strlen(l->results[l->in_batch]));
    l->sent = l->watermark;
    b->offsets = xrealloc(b->offsets, b->n_offsets + 1, sizeof *b->offsets);
    char *metadata = xasprintf("w%" PRId64 "-%0*d", l->sent, (int)d->pad, 0);
    metadata[MAX(d->pad, strcspn(metadata, "-"))] = '\0';
    b->offsets[b->n_offsets++] =
        (struct batch_offset){.partition = partition, .watermark = l->sent, .metadata = metadata};
}

static void batch_clear(struct batch *b)
{
    for (size_t i = 0; i < b->n_messages; i++) {
        free(b->messages[i].key);
        free(b->messages[i].value);
        free(b->messages[i].headers[0].name);
        free(b->messages[i].headers[0].value);
        free(b->messages[i].headers);
    }
    for (size_t i = 0; i < b->n_offsets; i++)
        free(b->offsets[i].metadata);
    free(b->messages);
    free(b->offsets);
    *b = (struct batch){.id = b->id};
}

/* Whatever we are doing then. */
static void die_in(uint64_t ns)
{
    struct sigevent kill = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) + 1}};
    timer_t timer;
    ASSERT(timer_create(CLOCK_MONOTONIC, &kill, &timer) == 0);
    timer_settime(timer, 0, &at, NULL);
}

static rd_kafka_consumer_group_metadata_t *group_of(struct driver *d)
{
    if (d->config.kafka.delivery != EXACTLY_ONCE)
        return NULL;
    return d->consumer ? consumer_group(d->consumer)
                       : rd_kafka_consumer_group_metadata_new(d->config.kafka.group);
}

static void try_commit(struct driver *d)
{
    if (d->committing)
        return;
    for (int32_t i = 0; i < PARTITIONS; i++) {
        if (!d->hold)
            lane_finish(&d->lanes[i]);
        lane_into(d, i);
    }
    if (d->batch.n_offsets == 0)
        return;
    if (d->dead) {
        CLEANUP(free_ptr) char *value = xcalloc(1, d->dead + 1);
        memset(value, 'x', d->dead);
        message_add(&d->batch, TO_DEAD_LETTERS, value, d->dead);
    }
    d->batch.id++;
    d->committing = true;
    publisher_commit(d->publisher, &d->batch, group_of(d));
    d->begun_ns = loop_now_ns();
    if (d->die)
        die_in(d->took_ns / 1000 * d->die);
    d->die = 0;
}

static void try_release(struct driver *d)
{
    for (int32_t i = 0; i < PARTITIONS; i++) {
        struct lane *l = &d->lanes[i];
        if (!l->going || d->keep || d->committing)
            continue;
        lane_clear(l);
        consumer_release(d->consumer, &i, 1);
        say("released %" PRId32, i);
    }
}

/* ---- consumer and publisher ---- */

static void on_record(void *arg, const struct record *r)
{
    struct driver *d = arg;
    struct lane *l = &d->lanes[r->partition];
    say("record %" PRId32 " %" PRId64 " %.*s %.*s %zu", r->partition, r->offset, (int)r->key_len,
        r->key ? r->key : "", (int)MIN(r->value_len, 64u), r->value ? r->value : "", r->n_headers);
    ASSERT(l->owned && !l->going && !d->shut);
    GROW(l->waiting, l->n_waiting, l->cap_waiting);
    l->waiting[l->n_waiting++] = xasprintf("%" PRId32 "/%" PRId64, r->partition, r->offset);
    try_commit(d);
}

static void on_assigned(void *arg, int32_t partition, int32_t total, int64_t offset,
                        const char *metadata)
{
    struct driver *d = arg;
    say("assigned %" PRId32 " %" PRId32 " %" PRId64 " %s", partition, total, offset, metadata);
    ASSERT(!d->lanes[partition].owned);
    d->lanes[partition] = (struct lane){.owned = true, .watermark = offset};
    if (d->consumer)
        consumer_open(d->consumer, partition, !d->shut);
}

static void on_revoked(void *arg, const int32_t *partitions, size_t n)
{
    struct driver *d = arg;
    for (size_t i = 0; i < n; i++) {
        say("revoked %" PRId32, partitions[i]);
        d->lanes[partitions[i]].going = true;
    }
    try_commit(d);
    try_release(d);
}

static void on_lost(void *arg, const int32_t *partitions, size_t n)
{
    struct driver *d = arg;
    for (size_t i = 0; i < n; i++) {
        say("lost %" PRId32, partitions[i]);
        lane_clear(&d->lanes[partitions[i]]);
    }
}

/* ---- alone ---- */

static void think_up(struct driver *d)
{
    struct lane *l = &d->lanes[0];
    for (int64_t i = 0; i < FEW; i++) {
        GROW(l->waiting, l->n_waiting, l->cap_waiting);
        l->waiting[l->n_waiting++] = xasprintf("0/%" PRId64, MAX(l->watermark, 0) + i);
    }
}

static void on_answer(void *arg, const struct committed *c)
{
    struct driver *d = arg;
    if (!c->known) { /* the one that was killed has left a transaction, which ours will end */
        lookup_ask(d->lookup, &c->partition, 1, 1);
        return;
    }
    on_assigned(d, 0, 1, c->offset, c->metadata);
    think_up(d);
    try_commit(d);
}

/* ---- outcomes, ends ---- */

static void on_outcome(void *arg, uint64_t batch, bool committed)
{
    struct driver *d = arg;
    say("outcome %" PRIu64 " %s", batch, committed ? "committed" : "refused");
    ASSERT(batch == d->batch.id && d->committing);
    d->took_ns = loop_now_ns() - d->begun_ns;
    d->committing = false;
    for (size_t i = 0; committed && i < d->batch.n_offsets; i++) {
        struct lane *l = &d->lanes[d->batch.offsets[i].partition];
        if (l->owned && l->in_batch > 0 && l->in_batch <= l->n)
            lane_committed(l);
    }
    d->dead = 0;
    batch_clear(&d->batch);
    try_release(d);
    if (!d->consumer && committed)
        think_up(d);
    try_commit(d);
}

static void on_closed(void *arg)
{
    struct driver *d = arg;
    say("closed");
    loop_stop(d->loop);
}

static void on_fatal(void *arg, int exit_code, const char *why)
{
    struct driver *d = arg;
    say("fatal %d %s", exit_code, why);
    d->exit_code = exit_code;
    loop_stop(d->loop);
}

/* ---- commands ---- */

static void open_all(struct driver *d, bool open)
{
    d->shut = !open;
    for (int32_t i = 0; i < PARTITIONS; i++)
        consumer_open(d->consumer, i, open);
}

static void command(struct driver *d, char *line)
{
    const char *space = strchr(line, ' ');
    size_t number = space ? strtoul(space + 1, NULL, 10) : 0;
    if (strcmp(line, "hold") == 0 || strcmp(line, "go") == 0)
        d->hold = *line == 'h';
    else if (strcmp(line, "shut") == 0 || strcmp(line, "open") == 0)
        open_all(d, *line == 'o');
    else if (strcmp(line, "keep") == 0 || strcmp(line, "release") == 0)
        d->keep = *line == 'k';
    else if (strncmp(line, "pad ", 4) == 0)
        d->pad = number;
    else if (strncmp(line, "dead ", 5) == 0)
        d->dead = number;
    else if (strncmp(line, "die ", 4) == 0)
        d->die = number;
    else if (strcmp(line, "status") == 0)
        say("status %d %d", consumer_ready(d->consumer), publisher_ready(d->publisher));
    else if (strcmp(line, "leave") == 0 && !d->consumer)
        loop_stop(d->loop);
    else if (strcmp(line, "leave") == 0)
        consumer_leave(d->consumer);
    try_commit(d);
    try_release(d);
}

static void on_stdin(void *arg, bool readable, bool writable)
{
    struct driver *d = arg;
    char *end;
    (void)readable;
    (void)writable;
    ssize_t n = read(STDIN_FILENO, d->line + d->len, sizeof d->line - d->len);
    if (n <= 0) {
        loop_stop(d->loop);
        return;
    }
    d->len += (size_t)n;
    while ((end = memchr(d->line, '\n', d->len))) {
        *end = '\0';
        command(d, d->line);
        d->len -= (size_t)(end + 1 - d->line);
        memmove(d->line, end + 1, d->len);
    }
}

static void configure(struct driver *d, int argc, char **argv)
{
    struct config *c = &d->config;
    c->kafka.brokers = argv[1];
    c->kafka.group = argv[2];
    c->topics.jobs = argv[3];
    c->topics.results = argv[4];
    c->topics.dead_letters = argv[5];
    c->topics.progress = argv[4] + strlen(argv[4]);
    c->kafka.instance = argv[6];
    c->kafka.delivery = strcmp(argv[7], "at_least_once") == 0 ? AT_LEAST_ONCE : EXACTLY_ONCE;
    c->kafka.password = c->topics.progress;
    c->kafka.properties = argv + 8;
    c->kafka.n_properties = (size_t)(argc - 8);
}

static void start(struct driver *d, bool alone)
{
    static const struct consumer_events events = {.record = on_record,
                                                  .assigned = on_assigned,
                                                  .revoked = on_revoked,
                                                  .lost = on_lost,
                                                  .closed = on_closed,
                                                  .fatal = on_fatal};
    struct consumer_options c = {
        .config = &d->config, .instance = d->config.kafka.instance, .events = &events, .arg = d};
    struct publisher_options p = {.config = &d->config,
                                  .instance = d->config.kafka.instance,
                                  .outcome = on_outcome,
                                  .fatal = on_fatal,
                                  .arg = d,
                                  .watchdog_seconds = 20};
    if (alone) {
        d->handle = kafka_new(KAFKA_CONSUMER, kafka_conf(&d->config, KAFKA_CONSUMER, c.instance));
        d->lookup = lookup_new(d->loop, &d->config, c.instance, true, on_answer, d);
        lookup_ask(d->lookup, &(int32_t){0}, 1, 1);
    } else {
        d->consumer = consumer_new(d->loop, &c);
    }
    p.consumer = alone ? d->handle : consumer_handle(d->consumer);
    d->publisher = publisher_new(d->loop, &p);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    d->watch = watch_new(d->loop, STDIN_FILENO, on_stdin, d);
    watch_set(d->watch, true, false);
}

int main(int argc, char **argv)
{
    static struct driver d;
    if (argc < 8)
        return 2;
    log_setup(LOG_LEVEL_DEBUG, LOG_LOGFMT);
    configure(&d, argc, argv);
    d.loop = loop_new();
    start(&d, strcmp(argv[7], "alone") == 0);
    loop_run(d.loop);
    publisher_free(d.publisher);
    consumer_free(d.consumer);
    lookup_free(d.lookup);
    kafka_destroy(d.handle);
    watch_free(d.watch);
    loop_free(d.loop);
    for (int i = 0; i < PARTITIONS; i++)
        lane_clear(&d.lanes[i]);
    batch_clear(&d.batch);
    say("ended");
    return d.exit_code;
}
