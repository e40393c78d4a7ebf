/* break: a session-worker that dies, stops or aborts at a point that a test names.
 *
 *   SESSION_WORKER_BREAK=<moment>:<kind>:<n>:<what>      before:call.create.POST:2:KILL
 *   SESSION_WORKER_BREAK=record:<marker>:<what>          record:BOOM:ABRT
 *   SESSION_WORKER_BREAK=tell                            says each effect, breaks nowhere
 *
 * moment  before | after    the n-th effect of the kind is carried out: handed to libcurl, to the
 *                           publisher's thread, to the consumer
 *         answered          its answer (or outcome) is here, and the core has not heard of it; of
 *                           the next one of its kind, if it is cancelled before
 * kind    call.<step>[.<METHOD>[/part of the path]] | cancel | take | commit | release | progress |
 *         drained | txn.begin | txn.offsets | txn.commit; a kind stands for all that it begins
 * what    KILL | STOP | ABRT, a signal that the process sends to itself; WAIT: the thread does
 *         nothing for ten seconds
 * record  a record whose value contains the marker is about to be parsed
 *
 * Nothing of it is in the worker: this program is the shipped object code, linked with --wrap
 * around the few functions through which effects leave, so a point lies exactly at an effect's
 * border. The outbox that core_step() has just filled says which effect it is; each is one wrapped
 * call. A part of a kind that has its path is counted by itself. Said on stderr before it happens.
 */
#include <librdkafka/rdkafka.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "worker/core/core.h"
#include "worker/io/consumer.h"
#include "worker/io/http.h"
#include "worker/io/publisher.h"

#define VARIABLE "SESSION_WORKER_BREAK"
#define WAIT (-1)
#define WAIT_SECONDS 10

enum moment { NOWHERE, BEFORE, AFTER, ANSWERED, RECORD, TELL };

static struct {
    enum moment moment;
    char *text; /* owned: the others point into it */
    const char *kind, *path, *marker;
    unsigned long nth;
    int signo;
    atomic_ulong seen;   /* the publisher's thread counts as well */
    atomic_bool reached; /* once is enough */
    uint64_t awaited;    /* ANSWERED: id of the call or batch; 0: none */
} point;

static const struct outbox *outbox; /* borrowed: as the last step left it */
static size_t carried_out;          /* effects of it */

/* ---- the point ---- */

static int signal_of(const char *what)
{
    static const struct {
        const char *name;
        int signo;
    } signals[] = {{"KILL", SIGKILL}, {"STOP", SIGSTOP}, {"ABRT", SIGABRT}, {"WAIT", WAIT}};
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        if (what && strcmp(what, signals[i].name) == 0)
            return signals[i].signo;
    return 0;
}

static enum moment moment_of(const char *word)
{
    static const char *const words[] = {[BEFORE] = "before",
                                        [AFTER] = "after",
                                        [ANSWERED] = "answered",
                                        [RECORD] = "record",
                                        [TELL] = "tell"};
    for (size_t i = BEFORE; i < ARRAY_LEN(words); i++)
        if (word && strcmp(word, words[i]) == 0)
            return (enum moment)i;
    return NOWHERE;
}

/* "call.launch.POST/exec:2": kind call.launch.POST, path /exec, the second. False: not so. */
static bool read_counted(char *subject)
{
    char *nth = strchr(subject, ':'), *slash, *end;
    if (!nth)
        return false;
    *nth++ = '\0';
    slash = strchr(subject, '/');
    point.path = slash ? xstrdup(slash) : "";
    if (slash)
        *slash = '\0';
    point.kind = subject;
    point.nth = strtoul(nth, &end, 10);
    return point.kind[0] && point.nth > 0 && !*end;
}

/* False: it names no point. */
static bool read_words(char *text)
{
    char *subject = strchr(text, ':'), *what = strrchr(text, ':');
    if (!subject) {
        point.moment = moment_of(text);
        return point.moment == TELL;
    }
    *what++ = *subject++ = '\0';
    point.moment = moment_of(text);
    point.signo = signal_of(what);
    if (!point.signo || subject >= what || !*subject)
        return false;
    if (point.moment != RECORD)
        return point.moment != NOWHERE && point.moment != TELL && read_counted(subject);
    point.marker = subject;
    return true;
}

__attribute__((constructor)) static void read_point(void)
{
    const char *text = getenv(VARIABLE);
    if (!text)
        return;
    point.text = xstrdup(text);
    if (!read_words(point.text)) {
        fprintf(stderr, VARIABLE ": \"%s\" names no point, see tests/breaking/break.c\n", text);
        exit(2);
    }
    unsetenv(VARIABLE);
}

static void reached(void)
{
    atomic_store(&point.reached, true);
    dprintf(STDERR_FILENO, "break: signal %d\n", point.signo);
    if (point.signo == WAIT)
        sleep(WAIT_SECONDS);
    else
        raise(point.signo); /* to this thread: nothing more of it happens first */
}

/* Is this the effect, or one that may take its place? path: of a call, else "". */
static bool matches(const char *kind, const char *path)
{
    size_t n = point.kind ? strlen(point.kind) : 0;
    if (!n || strncmp(kind, point.kind, n) != 0 || (kind[n] && kind[n] != '.') ||
        !strstr(path, point.path))
        return false;
    return atomic_fetch_add(&point.seen, 1) + 1 >= point.nth && !atomic_load(&point.reached);
}

/* What every effect goes through; `moment` when it is the effect that was named, else NOWHERE. */
static enum moment arrive(const char *kind, const char *path)
{
    if (point.moment == TELL)
        dprintf(STDERR_FILENO, "effect: %s %s\n", kind, path);
    enum moment moment = matches(kind, path) ? point.moment : NOWHERE;
    if (moment == BEFORE)
        reached();
    return moment;
}

static void leave(enum moment moment)
{
    if (moment == AFTER)
        reached();
}

/* ---- the core's effects ---- */

extern __typeof__(core_step) __real_core_step, __wrap_core_step;
extern __typeof__(http_send) __real_http_send, __wrap_http_send;
extern __typeof__(http_cancel) __real_http_cancel, __wrap_http_cancel;
extern __typeof__(consumer_open) __real_consumer_open, __wrap_consumer_open;
extern __typeof__(consumer_release) __real_consumer_release, __wrap_consumer_release;
extern __typeof__(consumer_leave) __real_consumer_leave, __wrap_consumer_leave;
extern __typeof__(publisher_commit) __real_publisher_commit, __wrap_publisher_commit;
extern __typeof__(publisher_progress) __real_publisher_progress, __wrap_publisher_progress;
extern __typeof__(job_parse) __real_job_parse, __wrap_job_parse;

void __wrap_core_step(struct core *c, uint64_t now, const struct input *in, struct outbox *out)
{
    bool reply = in->kind == IN_REPLY;
    bool outcome = in->kind == IN_COMMITTED || in->kind == IN_COMMIT_FAILED;
    uint64_t id = reply ? in->reply.call : outcome ? in->commit.batch : 0;
    bool of_call = point.kind && strncmp(point.kind, "call", 4) == 0;
    if (id && id == point.awaited && reply == of_call) {
        point.awaited = 0;
        reached();
    }
    __real_core_step(c, now, in, out);
    outbox = out;
    carried_out = 0;
}

static const struct effect *next_effect(enum effect_kind kind)
{
    ASSERT(outbox && carried_out < outbox->n);
    const struct effect *e = &outbox->effects[carried_out++];
    ASSERT(e->kind == kind);
    return e;
}

/* "http://127.0.0.1:3986/api/sandbox" -> "/api/sandbox" */
static const char *path_of(const char *url)
{
    const char *host = strstr(url, "//");
    const char *path = host ? strchr(host + 2, '/') : NULL;
    return path ? path : "";
}

void __wrap_http_send(struct http *h, uint64_t id, struct call *call)
{
    char kind[64];
    const struct effect *e = next_effect(DO_CALL);
    snprintf(kind, sizeof kind, "call.%s.%s", step_name(e->call.step), call->method);
    enum moment moment = arrive(kind, path_of(call->url));
    if (moment == ANSWERED && !point.awaited)
        point.awaited = id;
    __real_http_send(h, id, call);
    leave(moment);
}

void __wrap_http_cancel(struct http *h, uint64_t id)
{
    next_effect(DO_CANCEL);
    enum moment moment = arrive("cancel", "");
    if (id == point.awaited)
        point.awaited = 0;
    __real_http_cancel(h, id);
    leave(moment);
}

void __wrap_consumer_open(struct consumer *c, int32_t partition, bool open)
{
    next_effect(DO_TAKE);
    enum moment moment = arrive("take", "");
    __real_consumer_open(c, partition, open);
    leave(moment);
}

void __wrap_consumer_release(struct consumer *c, const int32_t *partitions, size_t n)
{
    next_effect(DO_RELEASE);
    enum moment moment = arrive("release", "");
    __real_consumer_release(c, partitions, n);
    leave(moment);
}

void __wrap_consumer_leave(struct consumer *c)
{
    next_effect(DO_DRAINED);
    enum moment moment = arrive("drained", "");
    __real_consumer_leave(c);
    leave(moment);
}

void __wrap_publisher_commit(struct publisher *p, const struct batch *b,
                             rd_kafka_consumer_group_metadata_t *group)
{
    next_effect(DO_COMMIT);
    enum moment moment = arrive("commit", "");
    if (moment == ANSWERED && !point.awaited)
        point.awaited = b->id;
    __real_publisher_commit(p, b, group);
    leave(moment);
}

void __wrap_publisher_progress(struct publisher *p, const struct message *m)
{
    next_effect(DO_PROGRESS);
    enum moment moment = arrive("progress", "");
    __real_publisher_progress(p, m);
    leave(moment);
}

/* ---- inside of a transaction ---- */

extern __typeof__(rd_kafka_begin_transaction) __real_rd_kafka_begin_transaction,
    __wrap_rd_kafka_begin_transaction;
extern __typeof__(rd_kafka_send_offsets_to_transaction) __real_rd_kafka_send_offsets_to_transaction,
    __wrap_rd_kafka_send_offsets_to_transaction;
extern __typeof__(rd_kafka_commit_transaction) __real_rd_kafka_commit_transaction,
    __wrap_rd_kafka_commit_transaction;

rd_kafka_error_t *__wrap_rd_kafka_begin_transaction(rd_kafka_t *rk)
{
    enum moment moment = arrive("txn.begin", "");
    rd_kafka_error_t *e = __real_rd_kafka_begin_transaction(rk);
    leave(moment);
    return e;
}

rd_kafka_error_t *
__wrap_rd_kafka_send_offsets_to_transaction(rd_kafka_t *rk,
                                            const rd_kafka_topic_partition_list_t *offsets,
                                            const rd_kafka_consumer_group_metadata_t *group, int ms)
{
    enum moment moment = arrive("txn.offsets", "");
    rd_kafka_error_t *e = __real_rd_kafka_send_offsets_to_transaction(rk, offsets, group, ms);
    leave(moment);
    return e;
}

rd_kafka_error_t *__wrap_rd_kafka_commit_transaction(rd_kafka_t *rk, int ms)
{
    enum moment moment = arrive("txn.commit", "");
    rd_kafka_error_t *e = __real_rd_kafka_commit_transaction(rk, ms);
    leave(moment);
    return e;
}

/* ---- a record ---- */

struct job *__wrap_job_parse(const struct record *r, const struct config *cfg, struct refusal *why,
                             unsigned *unknown)
{
    if (point.moment == RECORD && r->value &&
        memmem(r->value, r->value_len, point.marker, strlen(point.marker)))
        reached();
    return __real_job_parse(r, cfg, why, unknown);
}
