/* daytona_list: the sweep's look at one partition, and the look whether the key is good.
 *
 * A label filter that is empty (or null, or no object) is dropped by the server, which then lists
 * the whole organization. So the filter always holds two labels, and each item is checked for both
 * before it is believed. Stopped and archived sandboxes are not asked for: none of them is garbage
 * that a sweep could do anything about, and there may be many. */
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/provider/daytona.h"

static const char *const states[] = {
    "creating",         "restoring",     "destroying", "started",
    "starting",         "stopping",      "error",      "build_failed",
    "unknown",          "pending_build", "pausing",    "building_snapshot",
    "pulling_snapshot", "resizing",      "archiving",  "snapshotting",
    "forking",          "paused",        "resuming",
};

void daytona_ask_list(const struct provider *p, const struct listing *l, struct call *call)
{
    struct buf path;
    ASSERT(*p->config->fleet && *l->partition);
    buf_init(&path, 16384);
    buf_adds(&path, "/sandbox?");
    add_label_filter(&path, p, LABEL_PARTITION, l->partition);
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        buf_addf(&path, "&states=%s", states[i]);
    buf_adds(&path, "&limit=200");
    if (l->cursor) {
        buf_adds(&path, "&cursor=");
        add_encoded(&path, l->cursor);
    }
    api_call(p, R_LIST, buf_text(&path), call);
    buf_done(&path);
}

static bool label_equals(const cJSON *item, const char *name, const char *value)
{
    const char *label = dto_label(item, name);
    return label && strcmp(label, value) == 0;
}

/* The box of an item; NULL: not one of ours, or on its way out. */
static struct box *listed_box(const struct provider *p, const struct listing *l, const cJSON *item)
{
    const char *session = dto_label(item, LABEL_SESSION);
    if (!label_equals(item, LABEL_FLEET, p->config->fleet) ||
        !label_equals(item, LABEL_PARTITION, l->partition) || dto_state(item) == BOX_GONE)
        return NULL;
    struct box *b = daytona_box_new(p);
    set_text(&b->name, json_str(item, "name", NULL));
    if (b->name && sandbox_parse(p, session, item, READ_ALL, (struct daytona_box *)b))
        return b;
    daytona_box_free(b);
    return NULL;
}

static void take_items(const struct provider *p, const struct listing *l, const cJSON *items,
                       struct listed *out)
{
    const cJSON *item;
    size_t cap = out->n;
    cJSON_ArrayForEach(item, items)
    {
        struct box *b = listed_box(p, l, item);
        if (!b)
            continue;
        GROW(out->boxes, out->n, cap);
        out->boxes[out->n++] = b;
    }
}

/* A turn without a deal, for the table of refusals. */
static void judge_bare(const struct provider *p, enum request request, const struct reply *r,
                       struct answer *a, const cJSON *json)
{
    struct daytona_box none = {0};
    struct deal d = {.provider = p, .box = &none.box, .phase = FIND};
    struct turn t = {.deal = &d,
                     .box = &none,
                     .script = &none.script,
                     .request = request,
                     .reply = r,
                     .json = (cJSON *)(uintptr_t)json,
                     .answer = a};
    read_rate(r, SCOPE_GENERAL, &a->rate);
    if (r->fault != FAULT_NONE)
        judge_fault(&t);
    else if (!is_2xx(r))
        judge_refusal(&t);
    else if (request == R_LIST && !list_items(json))
        turn_not_understood(&t);
}

void daytona_answer_list(const struct provider *p, const struct listing *l, const struct reply *r,
                         struct listed *out, struct answer *a)
{
    cJSON *json = r->fault == FAULT_NONE ? reply_parse(r) : NULL;
    judge_bare(p, R_LIST, r, a, json);
    if (is_2xx(r) && a->verdict == OK) {
        take_items(p, l, list_items(json), out);
        const char *next_page = json_str(json, "nextCursor", "");
        if (*next_page && strlen(next_page) <= 1024)
            out->next = xstrdup(next_page);
    }
    cJSON_Delete(json);
}

void daytona_ask_key(const struct provider *p, struct call *call)
{
    struct buf path;
    buf_init(&path, 4096);
    buf_adds(&path, "/sandbox?");
    add_label_filter(&path, p, NULL, NULL);
    buf_adds(&path, "&limit=1");
    api_call(p, R_CHECK, buf_text(&path), call);
    buf_done(&path);
}

void daytona_answer_key(const struct provider *p, const struct reply *r, struct answer *a)
{
    cJSON *json = r->fault == FAULT_NONE ? reply_parse(r) : NULL;
    judge_bare(p, R_CHECK, r, a, json);
    cJSON_Delete(json);
}
