/* dispatch: see the header.
 *
 * A job is known to the workers by its coordinates: the event it ends in carries
 * ce_id = "<topic>/<partition>/<offset>". We learn them from the delivery report, so the order is:
 * fix where the results topic is read from, send, take in the reports, and only then read results:
 * an event is never looked at while a report is outstanding, and nothing has to be remembered.
 *
 * Invariant: a struct pending is in the sender (undelivered) or in the table, never in both. */
#include "worker/ctl/dispatch.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/maps.h"
#include "common/xalloc.h"
#include "worker/ctl/event.h"
#include "worker/ctl/text.h"

#define SLICE_MS 100
#define GRACE_SECONDS 30 /* beyond the job's own time-out */

#define AT(member) offsetof(struct sending, member)
/* clang-format off */
const struct option sending_options[N_SENDING_OPTIONS] = {
    {"wait", 0, OPT_FLAG, AT(wait), NULL, "wait for the result, print it, exit by it", NULL, 0, 0},
    {"wait-seconds", 0, OPT_INT, AT(wait_seconds), "S",
     "how long (default: the job's timeout and 30)", NULL, 1, 86400},
    {"cloudevents", 0, OPT_FLAG, AT(cloudevents), NULL,
     "send with CloudEvents headers (ce_*)", NULL, 0, 0},
};
/* clang-format on */

struct pending {
    char *session_id; /* owned */
    char *event_id;   /* owned; NULL: not delivered yet */
    UT_hash_handle hh;
};

static void pending_free(struct pending *p)
{
    free(p->session_id);
    free(p->event_id);
    free(p);
}

/* "time  session  SENT  coordinates", in the manner of an event. */
static void show_sent(const struct dispatch *d, const struct pending *p)
{
    struct buf line;
    char time[TIME_TEXT_SIZE];
    format_time_ms(wall_ms(), time);
    buf_init(&line, 4096);
    if (d->view.json) {
        buf_addf(&line, "{\"type\":\"sent\",\"time\":\"%s\",\"session_id\":", time);
        json_quote(&line, p->session_id, strlen(p->session_id));
        buf_adds(&line, ",\"job\":");
        json_quote(&line, p->event_id, strlen(p->event_id));
        buf_addc(&line, '}');
    } else {
        buf_addf(&line, "%s  ", time);
        add_safe(&line, p->session_id, strlen(p->session_id));
        buf_addf(&line, "  %-8s  %s", "SENT", p->event_id);
    }
    say(&line);
    buf_done(&line);
}

/* A record of no session has no event to end in. */
static void await(struct dispatch *d, struct pending *p)
{
    if (session_id_valid(p->session_id, strlen(p->session_id))) {
        HASH_ADD_KEYPTR(hh, d->pending, p->event_id, strlen(p->event_id), p);
        return;
    }
    complain("%s: no result will come, as it names no valid session: it goes to the dead letters "
             "(sessionctl dlq list)",
             p->event_id);
    d->failed = true;
    pending_free(p);
}

static void on_delivered(void *arg, const struct send_report *report)
{
    struct dispatch *d = arg;
    struct pending *p = report->tag;
    if (report->code) {
        complain("%s: %s", p->session_id, report->why);
        d->no_broker |= report->code == CTL_NO_BROKER;
        d->failed = true;
        pending_free(p);
        return;
    }
    p->event_id =
        xasprintf("%s/%d/%lld", d->cfg->topics.jobs, report->partition, (long long)report->offset);
    if (!d->how->wait || !d->view.json) /* -o json --wait: events only */
        show_sent(d, p);
    if (d->how->wait)
        await(d, p);
    else
        pending_free(p);
}

enum ctl_exit dispatch_open(struct dispatch *d, const struct config *cfg, const struct sending *how)
{
    const char *const topics[READER_TOPICS] = {cfg->topics.results, ""};
    char why[WHY_SIZE] = "";
    *d = (struct dispatch){.cfg = cfg, .how = how, .view = ctl_view(&how->common)};
    d->sender.delivered = on_delivered;
    d->sender.arg = d;
    enum ctl_exit code = sender_open(&d->sender, cfg, why);
    if (!code && how->wait)
        code = reader_open(&d->reader, cfg, topics, READ_FROM_END, why);
    if (code)
        complain("%s", why);
    return code;
}

/* "session-worker.start-session.v1" from the job's type; NULL: it has none. */
static char *cloudevent_type(const char *json, size_t len)
{
    cJSON *tree = json_parse_reply(json, len);
    const char *type = json_str(tree, "type", NULL);
    char *full = type ? xasprintf("session-worker.%s.v1", type) : NULL;
    cJSON_Delete(tree);
    return full;
}

enum ctl_exit dispatch_send(struct dispatch *d, const char *session_id, const char *json,
                            size_t len)
{
    char why[WHY_SIZE];
    CLEANUP(free_ptr) char *ce_type = d->how->cloudevents ? cloudevent_type(json, len) : NULL;
    struct pending *p = xcalloc(1, sizeof *p);
    p->session_id = xstrdup(session_id ? session_id : "-");
    struct parcel parcel = {.key = session_id,
                            .key_len = session_id ? strlen(session_id) : 0,
                            .value = json,
                            .value_len = len,
                            .partition = RD_KAFKA_PARTITION_UA,
                            .ce_type = ce_type,
                            .tag = p};
    enum ctl_exit code = sender_send(&d->sender, &parcel, why);
    if (code) {
        complain("%s: %s", p->session_id, why);
        pending_free(p);
    }
    return code;
}

/* ---- waiting ---- */

static void take_event(struct dispatch *d, rd_kafka_message_t *m)
{
    const char *id;
    size_t len;
    struct pending *p = NULL;
    if (message_header(m, "ce_id", &id, &len))
        HASH_FIND(hh, d->pending, id, len, p);
    if (!p)
        return;
    cJSON *event = json_parse_reply(m->payload, m->len);
    enum event_end end = event_end(event);
    ctl_show(&d->view, event, m->payload, m->len);
    cJSON_Delete(event);
    if (end == EVENT_UNDERWAY)
        return;
    d->failed |= end != EVENT_GOOD;
    HASH_DEL(d->pending, p);
    pending_free(p);
}

static void read_some(struct dispatch *d, int timeout_ms)
{
    rd_kafka_message_t *m = reader_next(&d->reader, timeout_ms);
    if (!m)
        return;
    if (!m->err)
        take_event(d, m);
    else if (m->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
        complain("reading %s: %s", d->cfg->topics.results, rd_kafka_message_errstr(m));
    rd_kafka_message_destroy(m);
}

static void step(struct dispatch *d, uint64_t left_ms)
{
    int slice = (int)MIN(left_ms, SLICE_MS);
    if (d->sender.undelivered > 0 || !d->how->wait)
        sender_poll(&d->sender, slice);
    else
        read_some(d, slice);
}

void dispatch_until(struct dispatch *d, uint64_t until)
{
    for (uint64_t now; (now = now_ms()) < until;)
        step(d, until - now);
}

/* Ctrl-C ends the waiting, not the jobs. A second one ends us at once. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static void watch_for_interrupt(void)
{
    struct sigaction before, ours = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, NULL, &before);
    if (before.sa_handler != SIG_IGN) /* as in the background of a script */
        sigaction(SIGINT, &ours, NULL);
}

static _Noreturn void end_interrupted(const struct dispatch *d)
{
    unsigned n = HASH_COUNT(d->pending);
    if (n == 1)
        complain("interrupted: the job stays queued: sessionctl watch %s", d->pending->session_id);
    else
        complain("interrupted: %u jobs stay queued: sessionctl watch", n);
    raise(SIGINT); /* so that a shell sees what ended us */
    exit(CTL_WAITED);
}

enum ctl_exit dispatch_finish(struct dispatch *d, int64_t timeout_seconds)
{
    int64_t wait_seconds =
        d->how->wait_seconds ? d->how->wait_seconds : timeout_seconds + GRACE_SECONDS;
    uint64_t until = now_ms() + (uint64_t)wait_seconds * 1000;
    while (d->sender.undelivered > 0) /* each is reported within its own time-out */
        step(d, SLICE_MS);
    if (d->pending)
        watch_for_interrupt();
    for (uint64_t now; d->pending && !interrupted && (now = now_ms()) < until;)
        step(d, until - now);
    if (interrupted)
        end_interrupted(d);
    bool missing = d->pending != NULL;
    struct pending *p, *next;
    HASH_ITER(hh, d->pending, p, next)
    complain("%s: no result within %lld s; the job (%s) stays queued: sessionctl watch %s",
             p->session_id, (long long)wait_seconds, p->event_id, p->session_id);
    return d->no_broker ? CTL_NO_BROKER : missing ? CTL_WAITED : d->failed ? CTL_FAILED : CTL_OK;
}

void dispatch_close(struct dispatch *d)
{
    struct pending *p, *next;
    while (d->sender.undelivered > 0)
        sender_poll(&d->sender, SLICE_MS);
    HASH_ITER(hh, d->pending, p, next)
    {
        HASH_DEL(d->pending, p);
        pending_free(p);
    }
    reader_close(&d->reader);
    sender_close(&d->sender);
}
