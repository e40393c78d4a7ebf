/* dlq replay: dead letters back into the jobs topic.
 *
 * Each is reported when the broker has it, with the coordinates that its event will carry. What a
 * worker of this configuration would refuse again is sent all the same, but said: the workers may
 * be newer than this program. A letter whose value was cut is never sent: half a job is none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "worker/ctl/dlq.h"
#include "worker/ctl/place.h"
#include "worker/ctl/sender.h"
#include "worker/ctl/text.h"

#define LINE_MAX_BYTES 4000000
#define POLL_MS 100

struct replay {
    const struct config *cfg;
    struct view view;
    struct sender sender;
    bool dry_run, no_broker;
    size_t sent, not_sent;
};

enum replayed { REPLAYED, WOULD_REPLAY, NOT_REPLAYED };
static const struct {
    const char *type, *word, *paint;
} outcomes[] = {
    [REPLAYED] = {"replayed", "REPLAYED", GREEN},
    [WOULD_REPLAY] = {"would-replay", "WOULD GO", NO_PAINT},
    [NOT_REPLAYED] = {"not-replayed", "NOT SENT", RED},
};

/* A letter that is under way, or what is to be said of one. */
struct item {
    int32_t partition;
    int64_t offset;
    char *session_id; /* owned; NULL: none */
    char *note;       /* owned; NULL: none */
};

static struct item *item_new(const struct letter *l, char *note)
{
    struct item *i = xcalloc(1, sizeof *i);
    *i = (struct item){l->record->partition, l->record->offset, xstrdup0(l->session_id), note};
    return i;
}

static void item_free(struct item *i)
{
    free(i->session_id);
    free(i->note);
    free(i);
}

/* ---- what is said ---- */

static void tell_json(const struct item *i, enum replayed o, const char *job, const char *why)
{
    struct buf json;
    buf_init(&json, LINE_MAX_BYTES);
    buf_addf(&json, "{\"type\":\"%s\",\"partition\":%d,\"offset\":%lld", outcomes[o].type,
             (int)i->partition, (long long)i->offset);
    add_json_member(&json, "session_id", i->session_id);
    add_json_member(&json, "job", job);
    add_json_member(&json, "why", why);
    buf_addc(&json, '}');
    say_json(&json);
    buf_done(&json);
}

static void tell(const struct replay *p, const struct item *i, enum replayed o, const char *job)
{
    struct buf line;
    if (p->view.json) {
        tell_json(i, o, job, i->note);
        return;
    }
    buf_init(&line, LINE_MAX_BYTES);
    buf_addf(&line, "%d/%lld  ", (int)i->partition, (long long)i->offset);
    add_safe(&line, i->session_id ? i->session_id : "-", i->session_id ? strlen(i->session_id) : 1);
    buf_adds(&line, "  ");
    add_painted(&line, p->view.colour, outcomes[o].paint, outcomes[o].word);
    buf_adds(&line, job ? "  " : "");
    buf_adds(&line, job ? job : "");
    buf_adds(&line, i->note ? "  " : "");
    add_safe(&line, i->note ? i->note : "", i->note ? strlen(i->note) : 0);
    say(&line);
    buf_done(&line);
}

/* ---- what is done ---- */

static void on_delivered(void *arg, const struct send_report *report)
{
    struct replay *p = arg;
    struct item *i = report->tag;
    if (report->code) {
        free(i->note);
        i->note = xstrdup(report->why);
        p->no_broker |= report->code == CTL_NO_BROKER;
        p->not_sent++;
        tell(p, i, NOT_REPLAYED, NULL);
    } else {
        CLEANUP(free_ptr)
        char *job = place_text(p->cfg->topics.jobs, report->partition, report->offset);
        p->sent++;
        tell(p, i, REPLAYED, job);
    }
    item_free(i);
}

/* Where it came from: whatever its producer makes partitions by, its session's other jobs are
 * there. By its key when that is not to be had. */
static int32_t partition_for(const struct replay *p, const struct letter *l)
{
    struct place origin;
    bool known = place_read(l->origin, &origin) && place_is_in(&origin, p->cfg->topics.jobs);
    return known && origin.partition < p->sender.partitions ? origin.partition
                                                            : RD_KAFKA_PARTITION_UA;
}

static void send_again(struct replay *p, const struct letter *l, struct item *i)
{
    struct message m;
    char why[WHY_SIZE] = "";
    letter_job(l, &m);
    struct parcel parcel = {.key = m.key,
                            .key_len = m.key_len,
                            .value = m.value,
                            .value_len = m.value_len,
                            .partition = partition_for(p, l),
                            .headers = m.headers,
                            .n_headers = m.n_headers,
                            .tag = i};
    enum ctl_exit code = sender_send(&p->sender, &parcel, why);
    message_done(&m);
    if (code)
        on_delivered(p, &(struct send_report){.tag = i, .code = code, .why = why});
    sender_poll(&p->sender, 0);
}

static void replay_letter(void *arg, const struct letter *l)
{
    struct replay *p = arg;
    const char *never = letter_unsendable(l);
    CLEANUP(free_ptr) char *refusal = never ? NULL : letter_refusal(l, p->cfg);
    char *again = refusal ? xasprintf("but a worker will refuse it again: %s", refusal) : NULL;
    struct item *i = item_new(l, never ? xstrdup(never) : again);
    if (!never && !p->dry_run) {
        send_again(p, l, i);
        return;
    }
    p->not_sent += never != NULL;
    p->sent += !never;
    tell(p, i, never ? NOT_REPLAYED : WOULD_REPLAY, never ? NULL : p->cfg->topics.jobs);
    item_free(i);
}

static bool is_chosen(const struct choice *c)
{
    const struct dlq_args *a = c->args;
    return c->n_places || a->all || a->code || a->session || a->since || a->partition ||
           a->offset || a->limit;
}

enum ctl_exit dlq_replay(const struct choice *c, const struct config *cfg)
{
    struct replay p = {.cfg = cfg, .view = ctl_view(&c->args->common), .dry_run = c->args->dry_run};
    char why[WHY_SIZE] = "";
    size_t n;
    enum ctl_exit code = CTL_OK;
    if (!is_chosen(c))
        return complain("replay what? Name PARTITION/OFFSET, give a filter, or --all"), CTL_USAGE;
    p.sender.delivered = on_delivered;
    p.sender.arg = &p;
    if (!p.dry_run)
        code = sender_open(&p.sender, cfg, why);
    if (code)
        complain("%s", why);
    else
        code = dlq_each(c, cfg, replay_letter, &p, &n);
    while (p.sender.undelivered > 0) /* each is reported within its own time-out */
        sender_poll(&p.sender, POLL_MS);
    if (!p.dry_run)
        sender_close(&p.sender);
    if (!code && !p.view.json && p.sent + p.not_sent > 1)
        printf("%zu %s, %zu not\n", p.sent, p.dry_run ? "would be replayed" : "replayed",
               p.not_sent);
    return code ? code : p.no_broker ? CTL_NO_BROKER : p.not_sent ? CTL_FAILED : CTL_OK;
}
