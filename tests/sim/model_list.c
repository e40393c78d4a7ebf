/* GET /sandbox and GET /sandbox/paginated: filters, order, pages.
 *
 * A label filter on one of the indexed labels looks at that label's sandboxes only; anything else
 * walks the whole organization. A filter that is empty in any spelling is dropped, as in the
 * server, and so lists everything: that is counted as a violation. A cursor holds the last item's
 * sort value and id. */
#include "tests/sim/model_impl.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/json.h"
#include "common/secret.h"

enum { LIMIT_MAX = 200, LIMIT_USUAL = 100 };

enum sort { SORT_NAME, SORT_CPU, SORT_MEMORY, SORT_DISK, SORT_ACTIVITY, SORT_CREATED, N_SORTS };
static const char *const sort_names[N_SORTS] = {
    "name", "cpu", "memoryGib", "diskGib", "lastActivityAt", "createdAt"};

struct filter {
    cJSON *labels; /* owned; NULL: none */
    const char *name, *id;
    bool errored_deleted;
    bool states_given;
    bool states[N_STATES];
    uint64_t created_after, created_before;
    bool matches_nothing;
    bool paged; /* the older kind of list, by pages */
    enum sort sort;
    bool ascending;
    int64_t limit, page;
    uint64_t shown_until_ms; /* the list lags behind */
};

struct item {
    struct box *box;
    uint64_t number; /* sort value, but for names */
};

struct items {
    struct item *v;
    size_t n, cap;
};

/* ---- reading the query ---- */

static bool read_state(struct filter *f, const char *text)
{
    for (size_t i = 0; i < S_DESTROYED; i++) {
        if (!strcmp(state_names[i], text)) {
            f->states[i] = f->states_given = true;
            return true;
        }
    }
    return false;
}

static bool read_states(struct call *c, struct filter *f)
{
    for (size_t i = 0; i < c->n_query; i++) {
        const char *name = c->query[i].name;
        if (strcmp(name, "states") != 0 && strcmp(name, "states[]") != 0)
            continue;
        if (read_state(f, c->query[i].value))
            continue;
        struct buf list;
        buf_init(&list, TEXT_MAX);
        for (size_t k = 0; k < S_DESTROYED; k++)
            buf_addf(&list, "%s%s", k ? ", " : "", state_names[k]);
        api_error(c, 400, "each value must be one of the following values: %s", buf_text(&list));
        buf_done(&list);
        return false;
    }
    return true;
}

/* cJSON takes numbers, null and texts at the top as well. */
static bool read_labels(struct call *c, struct filter *f)
{
    const char *text = call_query(c, "labels");
    if (!text || !*text) {
        if (text)
            violation(c->m, "list with an empty label filter");
        return true;
    }
    f->labels = cJSON_Parse(text);
    if (!f->labels) {
        api_error(c, 400, "Invalid labels JSON format");
        return false;
    }
    if (cJSON_IsString(f->labels)) {
        api_error(c, 500, "An unexpected error occurred.");
        return false;
    }
    f->matches_nothing = cJSON_IsNumber(f->labels) || cJSON_IsBool(f->labels);
    if (!f->matches_nothing && !cJSON_GetArraySize(f->labels)) {
        violation(c->m, "list with an empty label filter");
        cJSON_Delete(f->labels);
        f->labels = NULL;
    }
    return true;
}

static bool read_count(struct call *c, const char *name, int64_t usual, int64_t max, int64_t *out)
{
    const char *text = call_query(c, name);
    size_t len = text ? strlen(text) : 0;
    *out = usual;
    if (!text)
        return true;
    if (!parse_i64(text, len, INT32_MIN, INT32_MAX, out)) {
        bool number = strspn(text, "-.0123456789") == len;
        if (number)
            api_error(c, 400, "%s must be an integer number", name);
        else
            api_error(c, 400,
                      "%s must be an integer number, %s must not be less than 1, %s must not be "
                      "greater than %lld",
                      name, name, name, (long long)max);
        return false;
    }
    if (*out < 1)
        api_error(c, 400, "%s must not be less than 1", name);
    else if (*out > max)
        api_error(c, 400, "%s must not be greater than %lld", name, (long long)max);
    else
        return true;
    return false;
}

static bool read_order(struct call *c, struct filter *f)
{
    const char *sort = call_query(c, "sort"), *order = call_query(c, "order");
    f->sort = f->paged ? SORT_CREATED : SORT_ACTIVITY;
    for (size_t i = 0; sort && i <= N_SORTS; i++) {
        if (i == N_SORTS) {
            api_error(c, 400,
                      "sort must be one of the following values: name, cpu, memoryGib, diskGib, "
                      "lastActivityAt, createdAt");
            return false;
        }
        f->sort = (enum sort)i;
        if (!strcmp(sort_names[i], sort))
            break;
    }
    f->ascending = order && !strcmp(order, "asc");
    if (!order || f->ascending || !strcmp(order, "desc"))
        return true;
    api_error(c, 400, "order must be one of the following values: asc, desc");
    return false;
}

static bool read_date(struct call *c, const char *name, uint64_t otherwise, uint64_t *out)
{
    const char *text = call_query(c, name);
    *out = otherwise;
    if (!text || parse_time_ms(text, out))
        return true;
    api_error(c, 400, "%s must be a Date instance", name);
    return false;
}

static bool read_filter(struct call *c, struct filter *f)
{
    const char *errored = call_query(c, "includeErroredDeleted");
    f->name = call_query(c, "name");
    f->id = call_query(c, "id");
    f->errored_deleted = errored && !strcmp(errored, "true");
    f->shown_until_ms = wall_ms(c->m) - (uint64_t)c->m->opt.list_lag_ms;
    return read_count(c, "limit", LIMIT_USUAL, LIMIT_MAX, &f->limit) &&
           read_count(c, "page", 1, INT32_MAX, &f->page) && read_states(c, f) && read_order(c, f) &&
           read_date(c, "createdAtAfter", 0, &f->created_after) &&
           read_date(c, "createdAtBefore", UINT64_MAX, &f->created_before) && read_labels(c, f);
}

/* ---- what it lets through ---- */

/* SQL's LIKE 'pattern%', case-insensitive: the wildcards of the caller's text work. */
static bool name_like(const char *pattern, const char *name)
{
    for (; *pattern; pattern++, name++) {
        if (*pattern == '%') {
            for (; *name; name++)
                if (name_like(pattern + 1, name))
                    return true;
            return name_like(pattern + 1, name);
        }
        if (!*name)
            return false;
        if (*pattern != '_' && strncasecmp(pattern, name, 1) != 0)
            return false;
    }
    return true;
}

static bool same_value(const cJSON *a, const cJSON *b)
{
    if (!a || !b)
        return false;
    char *x = cJSON_PrintUnformatted(a), *y = cJSON_PrintUnformatted(b);
    bool same = x && y && !strcmp(x, y);
    free(x);
    free(y);
    return same;
}

static bool labels_match(const struct filter *f, const struct box *b)
{
    if (!f->labels)
        return true;
    cJSON *have = cJSON_Parse(b->labels);
    bool match = cJSON_IsObject(have);
    const cJSON *want;
    cJSON_ArrayForEach(want, f->labels)
    {
        match = match && want->string && same_value(json_get(have, want->string), want);
    }
    cJSON_Delete(have);
    return match;
}

static bool visible(const struct filter *f, const struct box *b)
{
    bool errored_deleted = b->state == S_ERROR && b->desired == D_DESTROYED;
    if (box_hidden(b) && !(errored_deleted && f->errored_deleted))
        return false;
    return b->created_ms <= f->shown_until_ms;
}

static bool lets_through(const struct filter *f, const struct box *b)
{
    return visible(f, b) && !f->matches_nothing && (!f->states_given || f->states[b->state]) &&
           (!f->name || name_like(f->name, b->name)) &&
           (!f->id || !strncmp(f->id, b->id, strlen(f->id))) && b->created_ms >= f->created_after &&
           b->created_ms <= f->created_before && labels_match(f, b);
}

static uint64_t sort_value(const struct filter *f, const struct box *b)
{
    switch (f->sort) {
    case SORT_CPU:
        return (uint64_t)b->cpu;
    case SORT_MEMORY:
        return (uint64_t)b->memory;
    case SORT_DISK:
        return (uint64_t)b->disk;
    case SORT_ACTIVITY:
        return b->activity_shown_ms;
    case SORT_CREATED:
        return b->created_ms;
    default:
        return 0;
    }
}

static void consider(struct call *c, const struct filter *f, struct box *b, struct items *out)
{
    box_flush(c->m, b);
    if (!lets_through(f, b))
        return;
    GROW(out->v, out->n, out->cap);
    out->v[out->n++] = (struct item){b, sort_value(f, b)};
}

static int compare(const void *x, const void *y, void *arg)
{
    const struct item *a = x, *b = y;
    const struct filter *f = arg;
    int order = f->sort == SORT_NAME ? strcmp(a->box->name, b->box->name)
                                     : (a->number > b->number) - (a->number < b->number);
    if (!order) /* of the same millisecond: by age, the younger is the greater */
        order = (a->box->number > b->box->number) - (a->box->number < b->box->number);
    return f->ascending ? order : -order;
}

/* The sandboxes that can match by an indexed label; false: none of those is asked for. */
static bool collect_indexed(struct call *c, struct filter *f, struct items *out)
{
    static const char *const indexed[N_INDEXED] = {"OpenHands_SID", "session-worker/partition"};
    for (size_t i = 0; i < N_INDEXED; i++) {
        const char *value = json_str(f->labels, indexed[i], NULL);
        struct label_set *set = value ? box_label_set(c->m, indexed[i], value) : NULL;
        for (size_t k = 0; set && k < set->n; k++)
            consider(c, f, set->boxes[k], out);
        if (value)
            return true;
    }
    return false;
}

static void collect(struct call *c, struct filter *f, struct items *out)
{
    if (!collect_indexed(c, f, out))
        for (size_t i = 0; i < c->m->n_boxes; i++)
            consider(c, f, c->m->boxes[i], out);
    if (out->n)
        qsort_r(out->v, out->n, sizeof *out->v, compare, f);
}

/* ---- cursors ---- */

static void print_cursor(const struct filter *f, const struct item *last, struct buf *out)
{
    struct buf plain, coded;
    buf_init(&plain, TEXT_MAX);
    buf_init(&coded, TEXT_MAX);
    if (f->sort == SORT_NAME) {
        buf_adds(&plain, "{\"sortValue\":");
        json_quote(&plain, last->box->name, strlen(last->box->name));
    } else {
        buf_addf(&plain, "{\"sortValue\":%llu", (unsigned long long)last->number);
    }
    buf_addf(&plain, ",\"id\":\"%s\"}", last->box->id);
    base64_encode(buf_text(&plain), plain.len, &coded);
    while (coded.len && coded.data[coded.len - 1] == '=')
        coded.data[--coded.len] = '\0';
    buf_addf(out, "\"%s\"", buf_text(&coded));
    buf_done(&plain);
    buf_done(&coded);
}

static cJSON *decode_cursor(const char *text)
{
    struct buf padded, plain;
    buf_init(&padded, TEXT_MAX);
    buf_init(&plain, TEXT_MAX);
    buf_adds(&padded, text);
    while (padded.len % 4)
        buf_addc(&padded, '=');
    cJSON *tree = base64_decode(buf_text(&padded), padded.len, &plain)
                      ? cJSON_ParseWithLength(buf_text(&plain), plain.len)
                      : NULL;
    buf_done(&padded);
    buf_done(&plain);
    return tree;
}

/* The first item after the cursor; -1: answered. */
static ssize_t start_after(struct call *c, struct filter *f, const struct items *items)
{
    const char *cursor = call_query(c, "cursor");
    if (!cursor)
        return 0;
    cJSON *tree = decode_cursor(cursor);
    const char *id = json_str(tree, "id", NULL);
    if (!id) {
        api_error(c, 400, "Invalid cursor provided: %s", cursor);
        cJSON_Delete(tree);
        return -1;
    }
    struct box *b = NULL, nobody = {.number = 0};
    HASH_FIND_STR(c->m->by_id, id, b);
    nobody.name = (char *)(uintptr_t)json_str(tree, "sortValue", "");
    nobody.number = b ? b->number : 0;
    struct item at = {&nobody, (uint64_t)json_int(tree, "sortValue", 0)};
    size_t i = 0;
    while (i < items->n && compare(&items->v[i], &at, f) <= 0)
        i++;
    cJSON_Delete(tree);
    return (ssize_t)i;
}

/* ---- the two lists ---- */

static void print_items(struct call *c, const struct items *items, size_t from, size_t to,
                        enum dto dto)
{
    struct buf *b = &c->re->body;
    buf_adds(b, "{\"items\":[");
    for (size_t i = from; i < to; i++) {
        if (i > from)
            buf_addc(b, ',');
        box_print(c->m, items->v[i].box, dto, b);
    }
    buf_addc(b, ']');
}

void api_list(struct call *c)
{
    struct filter f = {0};
    struct items items = {0};
    if (read_filter(c, &f)) {
        collect(c, &f, &items);
        ssize_t from = start_after(c, &f, &items);
        if (from >= 0) {
            size_t to = MIN((size_t)from + (size_t)f.limit, items.n);
            reply_json(c, 200);
            print_items(c, &items, (size_t)from, to, DTO_LISTED);
            buf_adds(&c->re->body, ",\"nextCursor\":");
            if (to < items.n)
                print_cursor(&f, &items.v[to - 1], &c->re->body);
            else
                buf_adds(&c->re->body, "null");
            buf_addc(&c->re->body, '}');
        }
    }
    cJSON_Delete(f.labels);
    free(items.v);
}

void api_paginated(struct call *c)
{
    struct filter f = {.paged = true};
    struct items items = {0};
    if (read_filter(c, &f)) {
        collect(c, &f, &items);
        size_t limit = (size_t)f.limit, skip = ((size_t)f.page - 1) * limit;
        size_t from = MIN(skip, items.n), to = MIN(from + limit, items.n);
        reply_json(c, 200);
        print_items(c, &items, from, to, DTO_FULL);
        buf_addf(&c->re->body, ",\"total\":%zu,\"page\":%lld,\"totalPages\":%zu}", items.n,
                 (long long)f.page, (items.n + limit - 1) / limit);
    }
    cJSON_Delete(f.labels);
    free(items.v);
}
