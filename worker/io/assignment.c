/* assignment: the consumer's part in the group.
 *
 *   ASSIGN -> LOOKING -> FOUND -> OURS -> (REVOKE) GOING -> released -> gone
 *
 * LOOKING: its committed offset is being asked for. FOUND: it is known; in cooperative mode the
 * partition is added at once, in eager mode when all are found, since there the ASSIGN has one
 * answer. OURS: given to librdkafka and to the core. Only OURS and GOING are ever unassigned: to
 * name one that was never added would hang the whole group.
 *
 * An answer to a look-up counts only for the assignment it was asked in (ticket): a partition that
 * came back meanwhile has been somebody else's.
 *
 * The queue of a partition is taken off the consumer's before the partition is assigned, so not one
 * record can reach the main queue; it is closed before the partition is unassigned. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/xalloc.h"
#include "worker/io/consumer_impl.h"

#define RETRY_NS (100 * NS_PER_MS)

enum rebalance { ASSIGNED, REVOKED, LOST }; /* labels of the metric */

/* ---- partitions ---- */

struct part *part_find(struct consumer *c, int32_t id)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->parts[i].id == id)
            return &c->parts[i];
    return NULL;
}

static void part_add(struct consumer *c, int32_t id)
{
    GROW(c->parts, c->n, c->cap);
    c->parts[c->n++] = (struct part){.id = id, .state = LOOKING};
}

/* Takes the partition's records off the consumer's queue and has them wake us. */
static void part_open_queue(struct consumer *c, struct part *p)
{
    static const uint64_t one = 1;
    p->queue = rd_kafka_queue_get_partition(c->rk, c->o.config->topics.jobs, p->id);
    ASSERT(p->queue);
    rd_kafka_queue_forward(p->queue, NULL);
    rd_kafka_queue_io_event_enable(p->queue, wake_fd(c->wake), &one, sizeof one);
    p->more = true;
}

static void part_close_queue(struct part *p)
{
    if (p->held)
        rd_kafka_event_destroy(p->held);
    p->held = NULL;
    if (!p->queue)
        return;
    rd_kafka_queue_io_event_enable(p->queue, -1, NULL, 0);
    rd_kafka_queue_destroy(p->queue);
    p->queue = NULL;
}

void part_done(struct part *p)
{
    part_close_queue(p);
    free(p->metadata);
}

static void parts_drop(struct consumer *c, enum part_state state)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (c->parts[i].state == state)
            part_done(&c->parts[i]);
        else
            c->parts[kept++] = c->parts[i];
    }
    c->n = kept;
}

size_t assignment_count(const struct consumer *c, enum part_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        n += c->parts[i].state == state;
    return n;
}

/* Those in the state, each with the offset where it is to begin. */
static rd_kafka_topic_partition_list_t *list_of(const struct consumer *c, enum part_state state)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)c->n);
    for (size_t i = 0; i < c->n; i++) {
        const struct part *p = &c->parts[i];
        if (p->state == state)
            rd_kafka_topic_partition_list_add(list, c->o.config->topics.jobs, p->id)->offset =
                p->offset >= 0 ? p->offset : RD_KAFKA_OFFSET_BEGINNING;
    }
    return list;
}

/* events->revoked or events->lost for all that are GOING. */
static void tell_going(struct consumer *c, void (*event)(void *, const int32_t *, size_t))
{
    size_t n = 0;
    CLEANUP(free_ptr) int32_t *ids = xcalloc(c->n + 1, sizeof *ids);
    for (size_t i = 0; i < c->n; i++)
        if (c->parts[i].state == GOING)
            ids[n++] = c->parts[i].id;
    if (n > 0 && !c->leaving)
        event(c->o.arg, ids, n);
}

/* ---- answers to the group; one that librdkafka does not take is mended by the next event ---- */

static void incremental(struct consumer *c, const rd_kafka_topic_partition_list_t *list,
                        rd_kafka_error_t *(*call)(rd_kafka_t *,
                                                  const rd_kafka_topic_partition_list_t *))
{
    rd_kafka_error_t *e = call(c->rk, list);
    if (!e)
        return;
    consumer_error(c, rd_kafka_error_code(e), "answering the group", rd_kafka_error_string(e));
    rd_kafka_error_destroy(e);
}

static void whole(struct consumer *c, const rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_resp_err_t err = rd_kafka_assign(c->rk, list);
    if (err)
        consumer_error(c, err, "answering the group", NULL);
}

/* ---- giving back ---- */

/* Ends the REVOKE: everything GOING is unassigned and forgotten. */
static void revoke_answer(struct consumer *c)
{
    rd_kafka_topic_partition_list_t *list = list_of(c, GOING);
    parts_drop(c, GOING);
    if (c->cooperative)
        incremental(c, list, rd_kafka_incremental_unassign);
    else
        whole(c, NULL);
    rd_kafka_topic_partition_list_destroy(list);
    c->revoking = false;
}

static void revoke_lost(struct consumer *c)
{
    log_warn(NULL, "partitions lost", L_STR("topic", c->o.config->topics.jobs),
             L_UINT("partitions", assignment_count(c, GOING)));
    metric_add1(M_REBALANCES, LOST, 1);
    c->joined = false;
    tell_going(c, c->o.events->lost);
    revoke_answer(c);
}

void assignment_give(struct consumer *c)
{
    bool released = true;
    if (!c->revoking)
        return;
    if (rd_kafka_assignment_lost(c->rk)) { /* while the core took its time */
        revoke_lost(c);
        return;
    }
    for (size_t i = 0; i < c->n; i++)
        released = released && (c->parts[i].state != GOING || c->parts[i].released);
    if (released || c->leaving)
        revoke_answer(c);
}

/* Partitions of the list are to go; those that were never added are dropped here and now. */
static void mark_going(struct consumer *c, const rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++) {
        struct part *p = part_find(c, list->elems[i].partition);
        if (!p)
            continue;
        if (p->state == LOOKING || p->state == FOUND) {
            part_done(p);
            *p = c->parts[--c->n];
        } else {
            p->state = GOING;
            p->open = false;
        }
    }
}

static void on_revoke(struct consumer *c, const rd_kafka_topic_partition_list_t *list)
{
    bool lost = rd_kafka_assignment_lost(c->rk);
    if (c->revoking) /* the one before was never answered: a loss has overtaken it */
        revoke_lost(c);
    c->assigning = false;
    c->revoking = true;
    mark_going(c, list);
    if (lost) {
        revoke_lost(c);
        return;
    }
    log_info(NULL, "partitions revoked", L_STR("topic", c->o.config->topics.jobs),
             L_INT("partitions", list->cnt));
    metric_add1(M_REBALANCES, REVOKED, 1);
    tell_going(c, c->o.events->revoked);
}

/* ---- getting ---- */

static bool is_cooperative(const struct consumer *c)
{
    const char *protocol = rd_kafka_rebalance_protocol(c->rk);
    return protocol && strcmp(protocol, "COOPERATIVE") == 0;
}

/* The group may go on at once, whatever is still pending: nothing is added yet. */
static void answer_with_nothing(struct consumer *c)
{
    rd_kafka_topic_partition_list_t *none = rd_kafka_topic_partition_list_new(0);
    incremental(c, none, rd_kafka_incremental_assign);
    rd_kafka_topic_partition_list_destroy(none);
}

static void on_assign(struct consumer *c, const rd_kafka_topic_partition_list_t *list)
{
    c->cooperative = is_cooperative(c);
    c->joined = true;
    log_info(NULL, "partitions assigned", L_STR("topic", c->o.config->topics.jobs),
             L_INT("partitions", list->cnt),
             L_STR("protocol", c->cooperative ? "cooperative" : "eager"));
    metric_add1(M_REBALANCES, ASSIGNED, 1);
    for (int i = 0; i < list->cnt; i++)
        if (!part_find(c, list->elems[i].partition))
            part_add(c, list->elems[i].partition);
    if (c->cooperative)
        answer_with_nothing(c);
    c->assigning = !c->cooperative;
}

/* Asks for the committed offsets of those that are due. */
static void ask(struct consumer *c)
{
    uint64_t now = loop_now_ns();
    size_t n = 0;
    CLEANUP(free_ptr) int32_t *ids = xcalloc(c->n + 1, sizeof *ids);
    for (size_t i = 0; i < c->n; i++) {
        struct part *p = &c->parts[i];
        if (p->state != LOOKING || p->ticket || p->ask_ns > now)
            continue;
        p->ticket = c->ticket + 1;
        ids[n++] = p->id;
    }
    if (n > 0)
        lookup_ask(c->lookup, ids, n, ++c->ticket);
}

void assignment_answer(void *arg, const struct committed *o)
{
    struct consumer *c = arg;
    struct part *p = part_find(c, o->partition);
    c->total = MAX(c->total, o->total);
    if (!p || p->state != LOOKING || p->ticket != o->ticket)
        return; /* of an earlier assignment */
    p->ticket = 0;
    p->ask_ns = loop_now_ns() + RETRY_NS;
    if (o->known) {
        p->state = FOUND;
        p->offset = o->offset;
        p->metadata = xstrdup(o->metadata);
        wake_send(c->wake);
    }
}

static void give_to_core(struct consumer *c, struct part *p)
{
    CLEANUP(free_ptr) char *metadata = p->metadata;
    p->metadata = NULL;
    p->state = OURS;
    c->total = MAX(c->total, p->id + 1); /* in case nobody has said */
    c->o.events->assigned(c->o.arg, p->id, c->total, p->offset, metadata);
}

/* Adds what has been found: each at once, or (eager) all together. */
static void add_found(struct consumer *c)
{
    bool due = c->cooperative ? assignment_count(c, FOUND) > 0
                              : c->assigning && assignment_count(c, LOOKING) == 0;
    if (!due)
        return;
    for (size_t i = 0; i < c->n; i++)
        if (c->parts[i].state == FOUND)
            part_open_queue(c, &c->parts[i]);
    rd_kafka_topic_partition_list_t *list = list_of(c, FOUND);
    if (c->cooperative)
        incremental(c, list, rd_kafka_incremental_assign);
    else
        whole(c, list);
    rd_kafka_topic_partition_list_destroy(list);
    c->assigning = false;
    for (size_t i = 0; i < c->n; i++)
        if (c->parts[i].state == FOUND)
            give_to_core(c, &c->parts[i]);
}

void assignment_take(struct consumer *c)
{
    ask(c);
    add_found(c);
}

/* ---- events ---- */

void assignment_event(struct consumer *c, rd_kafka_event_t *ev)
{
    const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(ev);
    if (rd_kafka_event_error(ev) == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS)
        on_revoke(c, list);
    else if (!c->leaving)
        on_assign(c, list);
    else if (is_cooperative(c))
        answer_with_nothing(c);
    else
        whole(c, NULL);
}

void assignment_let_go(struct consumer *c)
{
    for (size_t i = 0; i < c->n; i++)
        part_close_queue(&c->parts[i]);
    if (c->revoking)
        revoke_answer(c);
    if (c->assigning)
        whole(c, NULL);
    c->assigning = false;
}
