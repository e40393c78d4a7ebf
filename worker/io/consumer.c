/* consumer: see the header.
 *
 * Everything happens in serve(), once per wake-up and at least once a second (a member that polls
 * only when there is something is thrown out of an idle group): group events, answers of look-ups,
 * records, then what has become possible by them. Callbacks may call consumer_open and
 * consumer_release; these only note it, so the table of partitions changes between callbacks and
 * never under one. What concerns the group is in assignment.c.
 *
 * All queues write to one eventfd, and only when they turn non-empty: after a wake-up any of them
 * may have something, and a partition keeps `more` until its queue has been read to its end.
 *
 * A record below the offset where we began means that the log was made anew (the committed offset
 * lay beyond its end), and so does one below where we have been, when the log ends before that as
 * well. Then the partition is taken from the core and given again as a fresh one. But librdkafka
 * before 2.4.0 may go back by itself, even to where it was in an earlier assignment (its #4637):
 * there the end of the log decides in both cases, and records below our beginning are dropped, for
 * they are done. */
#include "worker/io/consumer.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/xalloc.h"
#include "worker/io/consumer_impl.h"

#define RECORDS_PER_TURN 256
#define EVENTS_PER_TURN 256
#define POLL_NS NS_PER_S
#define SOON_NS (50 * NS_PER_MS)
#define LEAVE_NS (5 * NS_PER_S)
#define EXIT_TRY_AGAIN 75

/* ---- errors ---- */

void consumer_error(struct consumer *c, rd_kafka_resp_err_t err, const char *doing,
                    const char *detail)
{
    kafka_error(&c->said, err, doing, detail);
}

static void on_error(struct consumer *c, rd_kafka_event_t *ev)
{
    char why[512];
    consumer_error(c, rd_kafka_event_error(ev), "reading the jobs topic",
                   rd_kafka_event_error_string(ev));
    if (!rd_kafka_event_error_is_fatal(ev) || c->dead)
        return;
    c->dead = true;
    rd_kafka_fatal_error(c->rk, why, sizeof why);
    c->o.events->fatal(c->o.arg, EXIT_TRY_AGAIN, why);
}

/* ---- records ---- */

/* The headers of m into c->headers; their number. */
static size_t read_headers(struct consumer *c, const rd_kafka_message_t *m)
{
    static char none[1];
    rd_kafka_headers_t *list;
    const char *name;
    const void *value;
    size_t n = 0, len;
    if (rd_kafka_message_headers(m, &list))
        return 0;
    while (!rd_kafka_header_get_all(list, n, &name, &value, &len)) {
        GROW(c->headers, n, c->headers_cap);
        c->headers[n].name = (char *)(uintptr_t)name;
        c->headers[n].value = value ? (char *)(uintptr_t)value : none;
        c->headers[n].len = len;
        n++;
    }
    return n;
}

static void deliver(struct consumer *c, struct part *p, const rd_kafka_message_t *m)
{
    rd_kafka_timestamp_type_t type;
    int64_t timestamp = rd_kafka_message_timestamp(m, &type);
    struct record r = {
        .topic = c->o.config->topics.jobs,
        .partition = m->partition,
        .offset = m->offset,
        .timestamp_ms = timestamp > 0 ? (uint64_t)timestamp : 0,
        .key = m->key,
        .key_len = m->key_len,
        .value = m->payload,
        .value_len = m->len,
        .n_headers = read_headers(c, m),
    };
    r.headers = c->headers;
    p->next = MAX(p->next, m->offset + 1);
    c->o.events->record(c->o.arg, &r);
}

static bool may_go_back(void)
{
    return rd_kafka_version() < KAFKA_VERSION(2, 4, 0);
}

/* Is the log, of which this is a record, another one than that we have read so far? */
static bool is_new_log(struct consumer *c, const struct part *p, int64_t offset)
{
    int64_t low, high, been = MAX(p->offset, p->next);
    if (offset < p->offset && !may_go_back())
        return true;
    if (offset >= been)
        return false;
    return !rd_kafka_get_watermark_offsets(c->rk, c->o.config->topics.jobs, p->id, &low, &high) &&
           high >= 0 && high < been;
}

/* For the core the partition begins again. */
static void begin_again(struct consumer *c, struct part *p, int64_t offset)
{
    log_warn(NULL, "the log was made anew, or its offsets lie outside: from its beginning",
             L_STR("topic", c->o.config->topics.jobs), L_INT("partition", p->id),
             L_INT("committed", p->offset), L_INT("read", p->next), L_INT("beginning", offset));
    p->offset = -1;
    p->next = 0;
    p->open = false;
    c->o.events->lost(c->o.arg, &p->id, 1);
    c->o.events->assigned(c->o.arg, p->id, c->total, -1, "");
}

/* Hands the record m of ev over; holds it when beginning again has left the partition closed. */
static void on_fetch(struct consumer *c, struct part *p, rd_kafka_event_t *ev,
                     const rd_kafka_message_t *m)
{
    if (m && !m->err && is_new_log(c, p, m->offset))
        begin_again(c, p, m->offset);
    if (m && !m->err && m->offset < p->offset) {
        rd_kafka_event_destroy(ev);
        return;
    }
    if (!p->open) {
        p->held = ev;
        p->held_message = m;
        return;
    }
    if (m && !m->err)
        deliver(c, p, m);
    rd_kafka_event_destroy(ev);
}

/* One event of the partition; false: it has none. */
static bool read_one(struct consumer *c, struct part *p)
{
    rd_kafka_event_t *ev = p->held;
    p->held = NULL;
    if (ev) {
        on_fetch(c, p, ev, p->held_message);
        return true;
    }
    ev = rd_kafka_queue_poll(p->queue, 0);
    p->more = ev != NULL;
    if (!ev)
        return false;
    if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_FETCH) {
        on_fetch(c, p, ev, rd_kafka_event_message_next(ev));
        return true;
    }
    if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_ERROR)
        on_error(c, ev);
    rd_kafka_event_destroy(ev);
    return true;
}

static struct part *next_readable(struct consumer *c)
{
    for (size_t i = 0; i < c->n; i++) {
        struct part *p = &c->parts[c->next++ % c->n];
        if (p->state == OURS && p->open && p->more)
            return p;
    }
    return NULL;
}

/* One record of each open partition in turn. What is left over waits for the next turn. */
static void read_records(struct consumer *c)
{
    for (unsigned n = 0; n < RECORDS_PER_TURN;) {
        struct part *p = next_readable(c);
        if (!p)
            return;
        n += read_one(c, p);
    }
    wake_send(c->wake);
}

/* ---- the turn ---- */

static void on_event(struct consumer *c, rd_kafka_event_t *ev)
{
    switch (rd_kafka_event_type(ev)) {
    case RD_KAFKA_EVENT_REBALANCE:
        assignment_event(c, ev);
        break;
    case RD_KAFKA_EVENT_ERROR:
        on_error(c, ev);
        break;
    default: /* a record here would be lost */
        ASSERT(rd_kafka_event_type(ev) != RD_KAFKA_EVENT_FETCH);
        break;
    }
}

static void serve_events(struct consumer *c)
{
    for (unsigned i = 0; i < EVENTS_PER_TURN; i++) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(c->queue, 0);
        if (!ev)
            return;
        on_event(c, ev);
        rd_kafka_event_destroy(ev);
    }
    wake_send(c->wake);
}

static void leave_check(struct consumer *c)
{
    if (!c->leaving || c->left)
        return;
    bool closed = rd_kafka_consumer_closed(c->rk);
    if (!closed && loop_now_ns() < c->leave_by_ns)
        return;
    c->left = true;
    if (closed)
        log_info(NULL, "left the group");
    else
        log_warn(NULL, "could not leave the group in time: it notices by its session time-out");
    c->o.events->closed(c->o.arg);
}

static void serve(struct consumer *c)
{
    c->serving = true;
    serve_events(c);
    if (!c->leaving) {
        assignment_take(c);
        read_records(c);
    }
    assignment_give(c);
    leave_check(c);
    c->serving = false;
    bool soon = (c->leaving && !c->left) || assignment_count(c, LOOKING) > 0;
    timer_arm(c->timer, loop_now_ns() + (soon ? SOON_NS : POLL_NS));
}

static void on_wake(void *arg)
{
    struct consumer *c = arg;
    for (size_t i = 0; i < c->n; i++)
        c->parts[i].more = true;
    serve(c);
}

static void on_timer(void *arg)
{
    serve(arg);
}

/* ---- life ---- */

static bool start_handles(struct consumer *c)
{
    static const uint64_t one = 1;
    rd_kafka_conf_t *conf = kafka_conf(c->o.config, KAFKA_CONSUMER, c->o.instance);
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_ERROR);
    c->rk = kafka_new(KAFKA_CONSUMER, conf);
    c->lookup = lookup_new(c->loop, c->o.config, c->o.instance, true, assignment_answer, c);
    if (!c->rk || !c->lookup)
        return false;
    rd_kafka_poll_set_consumer(c->rk);
    c->queue = rd_kafka_queue_get_consumer(c->rk);
    rd_kafka_queue_io_event_enable(c->queue, wake_fd(c->wake), &one, sizeof one);
    return true;
}

static bool subscribe(struct consumer *c)
{
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, c->o.config->topics.jobs, RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t err = rd_kafka_subscribe(c->rk, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    if (err)
        log_error(NULL, "cannot subscribe", L_STR("topic", c->o.config->topics.jobs),
                  L_STR("why", rd_kafka_err2str(err)));
    return !err;
}

struct consumer *consumer_new(struct loop *loop, const struct consumer_options *options)
{
    struct consumer *c = xcalloc(1, sizeof *c);
    c->loop = loop;
    c->o = *options;
    c->wake = wake_new(loop, on_wake, c);
    c->timer = timer_new(loop, on_timer, c);
    if (!start_handles(c) || !subscribe(c)) {
        consumer_free(c);
        return NULL;
    }
    timer_arm(c->timer, loop_now_ns());
    return c;
}

static void queue_free(rd_kafka_queue_t *q)
{
    if (!q)
        return;
    rd_kafka_queue_io_event_enable(q, -1, NULL, 0);
    rd_kafka_queue_destroy(q);
}

void consumer_free(struct consumer *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++)
        part_done(&c->parts[i]);
    queue_free(c->queue);
    kafka_destroy(c->rk);
    lookup_free(c->lookup);
    timer_free(c->timer);
    wake_free(c->wake);
    free(c->parts);
    free(c->headers);
    free(c);
}

void consumer_open(struct consumer *c, int32_t partition, bool open)
{
    struct part *p = part_find(c, partition);
    if (!p || p->state != OURS || p->open == open)
        return;
    p->open = open;
    if (open)
        wake_send(c->wake);
}

void consumer_release(struct consumer *c, const int32_t *partitions, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct part *p = part_find(c, partitions[i]);
        if (p && p->state == GOING)
            p->released = true;
    }
    wake_send(c->wake);
}

void consumer_serve(struct consumer *c)
{
    if (c->serving)
        return; /* a turn begins with just that */
    c->serving = true;
    serve_events(c);
    assignment_give(c);
    c->serving = false;
}

rd_kafka_t *consumer_handle(struct consumer *c)
{
    return c->rk;
}

rd_kafka_consumer_group_metadata_t *consumer_group(struct consumer *c)
{
    return rd_kafka_consumer_group_metadata(c->rk);
}

bool consumer_ready(const struct consumer *c)
{
    return c->joined && !c->dead && !c->leaving;
}

/* Before 2.3.0 closing a cooperative member that has not joined crashes. It holds nothing: the
 * group notices by its session time-out. */
static bool may_close(const struct consumer *c)
{
    char strategy[256];
    size_t size = sizeof strategy;
    if (c->joined || rd_kafka_version() >= KAFKA_VERSION(2, 3, 0))
        return true;
    return rd_kafka_conf_get(rd_kafka_conf(c->rk), "partition.assignment.strategy", strategy,
                             &size) == RD_KAFKA_CONF_OK &&
           !strstr(strategy, "cooperative");
}

void consumer_leave(struct consumer *c)
{
    if (c->leaving)
        return;
    c->leaving = true;
    c->leave_by_ns = loop_now_ns();
    assignment_let_go(c);
    if (may_close(c)) {
        rd_kafka_error_t *e = rd_kafka_consumer_close_queue(c->rk, c->queue);
        if (e)
            consumer_error(c, rd_kafka_error_code(e), "leaving the group",
                           rd_kafka_error_string(e));
        else
            c->leave_by_ns += LEAVE_NS;
        rd_kafka_error_destroy(e);
    }
    wake_send(c->wake);
}
