/* Who is who: sandboxes by id, name and label, and the ledger of all that ever were.
 *
 * A name that is looked up in vain within a minute of a look-up that succeeded is remembered as
 * missing for ten seconds, even if it is given out again meanwhile: the server's own cache does
 * that. A sandbox is never forgotten; only the maps that look-ups use let go of it. */
#include "tests/sim/model_impl.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"

const char *const state_names[N_STATES] = {
    "creating",         "restoring",     "destroying",        "started",
    "stopped",          "starting",      "stopping",          "error",
    "build_failed",     "pending_build", "building_snapshot", "unknown",
    "pulling_snapshot", "archived",      "archiving",         "resizing",
    "snapshotting",     "forking",       "pausing",           "paused",
    "resuming",         "destroyed",
};

const char *desired_name(enum desired d)
{
    static const char *const names[] = {"started", "stopped", "destroyed", "archived"};
    return names[d];
}

/* ---- registry ---- */

static struct name *name_entry(struct model *m, const char *text)
{
    struct name *n = NULL;
    HASH_FIND_STR(m->names, text, n);
    if (!n) {
        n = xcalloc(1, sizeof *n);
        n->text = xstrdup(text);
        HASH_ADD_KEYPTR(hh, m->names, n->text, strlen(n->text), n);
    }
    return n;
}

/* A new one, nameless until box_name. */
struct box *box_new(struct model *m)
{
    struct box *b = xcalloc(1, sizeof *b);
    make_id(m, b->id);
    make_token(m, b->token, TOKEN_SIZE - 1, alphabet_token);
    snprintf(b->runner_id, sizeof b->runner_id, "%s", m->runner_id);
    box_init_timers(b);
    b->started_at = NEVER;
    b->created_ms = b->updated_ms = b->activity_ms = b->activity_shown_ms = wall_ms(m);
    b->number = m->n_boxes;
    GROW(m->boxes, m->n_boxes, m->cap_boxes);
    m->boxes[m->n_boxes++] = b;
    HASH_ADD_STR(m->by_id, id, b);
    return b;
}

void box_free(struct box *b)
{
    daemon_free(b->daemon);
    free(b->first_name);
    free(b->name);
    free(b->labels);
    free(b->env);
    free(b->volumes);
    free(b->build_info);
    free(b->snapshot);
    free(b->user);
    free(b->allow_list);
    free(b->domain_list);
    free(b->error_reason);
    free(b);
}

void box_name(struct model *m, struct box *b, const char *name)
{
    struct name *n = name_entry(m, name);
    ASSERT(!n->box);
    n->box = b;
    n->live++;
    n->peak_live = MAX(n->peak_live, n->live);
    b->entry = n;
    b->name = xstrdup(name);
    b->first_name = xstrdup(name);
    m->live++;
    m->peak_live = MAX(m->peak_live, m->live);
}

static const char *const indexed_labels[N_INDEXED] = {"session-worker/partition", "OpenHands_SID"};

static void set_add(struct model *m, struct box *b, size_t which, const char *value)
{
    char *key = xasprintf("%s=%s", indexed_labels[which], value);
    struct label_set *s = NULL;
    HASH_FIND_STR(m->sets, key, s);
    if (!s) {
        s = xcalloc(1, sizeof *s);
        s->key = key;
        HASH_ADD_KEYPTR(hh, m->sets, s->key, strlen(s->key), s);
    } else {
        free(key);
    }
    GROW(s->boxes, s->n, s->cap);
    s->boxes[s->n++] = b;
    b->sets[which] = s;
    s->live++;
    s->peak_live = MAX(s->peak_live, s->live);
    if (which == 1 && s->live > 1)
        violation(m, "two live sandboxes with label %s", s->key);
}

struct label_set *box_label_set(struct model *m, const char *label, const char *value)
{
    struct label_set *s = NULL;
    char *key = xasprintf("%s=%s", label, value);
    HASH_FIND_STR(m->sets, key, s);
    free(key);
    return s;
}

static void set_leave(struct box *b, size_t which)
{
    struct label_set *s = b->sets[which];
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++) {
        if (s->boxes[i] == b) {
            s->boxes[i] = s->boxes[--s->n];
            break;
        }
    }
    b->sets[which] = NULL;
}

/* Takes ownership of labels, a JSON text. */
void box_label(struct model *m, struct box *b, char *labels)
{
    free(b->labels);
    b->labels = labels;
    cJSON *tree = cJSON_Parse(labels);
    for (size_t i = 0; i < N_INDEXED; i++) {
        const char *value = json_str(tree, indexed_labels[i], NULL);
        if (b->sets[i]) {
            b->sets[i]->live -= b->entry != NULL;
            set_leave(b, i);
        }
        if (value)
            set_add(m, b, i, value);
    }
    cJSON_Delete(tree);
}

bool box_live(const struct box *b)
{
    return b->entry != NULL;
}

/* Destroyed, or in error and deleted: no look-up finds it any more. */
bool box_hidden(const struct box *b)
{
    return b->state == S_DESTROYED || b->pooled ||
           (b->desired == D_DESTROYED && (b->state == S_ERROR || b->state == S_BUILD_FAILED));
}

void box_unlist(struct model *m, struct box *b)
{
    for (size_t i = 0; i < N_INDEXED; i++)
        set_leave(b, i);
    HASH_DEL(m->by_id, b);
}

enum { KNOWN_S = 60, MISSING_S = 10 };

static struct box *find_by_name(struct model *m, const char *text)
{
    struct name *n = NULL;
    HASH_FIND_STR(m->names, text, n);
    if (!n || n->missing_until > m->now)
        return NULL;
    if (n->box) {
        n->known_until = m->now + KNOWN_S * NS_PER_S;
        return n->box;
    }
    if (n->known_until > m->now)
        n->missing_until = m->now + MISSING_S * NS_PER_S;
    return NULL;
}

struct box *box_find(struct model *m, const char *id_or_name)
{
    struct box *b = NULL;
    HASH_FIND_STR(m->by_id, id_or_name, b);
    if (b)
        return box_hidden(b) ? NULL : b;
    return find_by_name(m, id_or_name);
}

/* ---- the ledger ---- */

static void print_requests(const struct box *b, struct buf *out)
{
    const char *comma = "", *kind;
    buf_addc(out, '{');
    for (size_t i = 0; (kind = route_kind(i)); i++) {
        if (!b->requests[i])
            continue;
        buf_addf(out, "%s\"%s\":%u", comma, kind, b->requests[i]);
        comma = ",";
    }
    buf_addc(out, '}');
}

static const char *ender(const struct box *b)
{
    static const char *const enders[] = {NULL, "delete", "stop", "auto_stop", "auto_delete"};
    return enders[b->ended_by];
}

void model_each_sandbox(const struct model *m, void (*visit)(void *, const struct sim_sandbox *),
                        void *arg)
{
    for (size_t i = 0; i < m->n_boxes; i++) {
        const struct box *b = m->boxes[i];
        const struct sim_sandbox seen = {.id = b->id,
                                         .name = b->first_name,
                                         .labels = b->labels,
                                         .state = box_shown_state(b),
                                         .live = box_live(b),
                                         .auto_delete = b->auto_delete,
                                         .destroyed_by = ender(b),
                                         .servers_started = b->servers_started};
        if (!b->pooled)
            visit(arg, &seen);
    }
}

void ledger_line(const struct box *b, struct buf *out)
{
    buf_addf(out, "{\"id\":\"%s\",\"name\":", b->id);
    json_quote(out, b->first_name, strlen(b->first_name));
    buf_addf(out, ",\"labels\":%s,\"state\":\"%s\",\"desired_state\":\"%s\",\"ephemeral\":%s",
             b->labels, box_shown_state(b), desired_name(b->desired),
             b->auto_delete == 0 ? "true" : "false");
    buf_addf(out, ",\"created_at\":%llu,\"destroyed_at\":", (unsigned long long)b->created_ms);
    if (b->destroyed_ms)
        buf_addf(out, "%llu,\"destroyed_by\":\"%s\"", (unsigned long long)b->destroyed_ms,
                 ender(b));
    else
        buf_adds(out, "null,\"destroyed_by\":null");
    buf_addf(out, ",\"servers_started\":%u,\"requests\":", b->servers_started);
    print_requests(b, out);
    buf_addc(out, '}');
}

void model_ledger(const struct model *m, struct buf *out)
{
    const char *comma = "";
    buf_adds(out, "{\"sandboxes\":[");
    for (size_t i = 0; i < m->n_boxes; i++) {
        if (m->boxes[i]->pooled)
            continue;
        buf_adds(out, comma);
        ledger_line(m->boxes[i], out);
        comma = ",";
    }
    buf_adds(out, "]}");
}

void box_hand_out(struct model *m, const struct box *b)
{
    struct buf line;
    if (!m->on_destroyed)
        return;
    buf_init(&line, TEXT_MAX);
    ledger_line(b, &line);
    m->on_destroyed(m->on_destroyed_arg, buf_text(&line), line.len);
    buf_done(&line);
}

void model_close_ledger(struct model *m)
{
    for (size_t i = 0; i < m->n_boxes; i++)
        if (box_live(m->boxes[i]))
            box_hand_out(m, m->boxes[i]);
}
