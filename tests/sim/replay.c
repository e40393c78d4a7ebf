/* sim-replay FOLDER: asks the model what was asked of the real Daytona, and compares the answers.
 *
 * The recordings are one JSON exchange a line. Each is sent at the time at which it was sent then,
 * as far as the answers tell, so that waits, held requests and crons fall where they fell. Ids,
 * tokens and cursors are bound at first sight and replaced in what follows. What must be equal,
 * what must have the same shape and what is not looked at is the recordings' own rule; see
 * compare_value. What happened beside the recorded requests (a runner that failed, an app that was
 * started) is in `beside`. */
#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/xalloc.h"
#include "tests/sim/replay.h"

static const char file_name[] = "daytona-v0.190.jsonl";
enum { HEADERS_MAX = 16, GROUPS_MAX = 32 };

struct replay {
    struct exchange *x;
    size_t n, cap;
    uint64_t wall_ms; /* of the first exchange */
    struct world main, limited;
    char *daemon_box; /* id of the sandbox that stands for the recorded daemon */
};

/* ---- reading ---- */

static const char *group_of(const struct exchange *x, char out[8])
{
    snprintf(out, 8, "%.*s", (int)strcspn(x->name, " "), x->name);
    return out;
}

static void read_line(struct replay *r, const char *line)
{
    cJSON *tree = cJSON_Parse(line);
    if (!tree)
        return;
    const cJSON *rq = member(tree, "request");
    GROW(r->x, r->n, r->cap);
    r->x[r->n++] = (struct exchange){
        .tree = tree,
        .line = xstrdup(line),
        .n = (int)number_of(tree, "n"),
        .name = (char *)(uintptr_t)text_of(tree, "case"),
        .server = text_of(tree, "server"),
        .method = text_of(rq, "method"),
        .path = text_of(rq, "path"),
    };
}

static void read_recordings(struct replay *r, const char *folder)
{
    char *path = xasprintf("%s/%s", folder, file_name), *line = NULL;
    size_t cap = 0;
    FILE *f = fopen(path, "re");
    if (!f) {
        fprintf(stderr, "sim-replay: %s: %s\n", path, strerror(errno));
        exit(2);
    }
    while (getline(&line, &cap, f) > 0)
        read_line(r, line);
    fclose(f);
    free(line);
    free(path);
}

/* ---- when each was sent ---- */

/* The latest time that the answer speaks of. */
static uint64_t latest_time(const cJSON *v)
{
    uint64_t latest = 0, ms;
    if (cJSON_IsString(v)) {
        char cut[TIME_TEXT_SIZE];
        snprintf(cut, sizeof cut, "%.23sZ", v->valuestring); /* the daemon's have nanoseconds */
        return parse_time_ms(cut, &ms) && ms > UINT64_C(1700000000000) ? ms : 0;
    }
    const cJSON *child;
    cJSON_ArrayForEach(child, v)
    {
        latest = MAX(latest, latest_time(child));
    }
    return latest;
}

static void estimate_times(struct replay *r)
{
    uint64_t end = 0, start = 0;
    for (size_t i = 0; i < r->n; i++) {
        struct exchange *x = &r->x[i];
        const cJSON *answer = member(x->tree, "response"), *body = member(answer, "body");
        uint64_t took = (uint64_t)(number_of(x->tree, "time_s") * 1000);
        bool creates = !strcmp(x->method, "POST") && !strcmp(x->path, "/api/sandbox");
        uint64_t created = 0;
        if (creates && parse_time_ms(text_of(body, "createdAt"), &created)) {
            x->start_ms = (uint64_t)((int64_t)created - 20 + beside_wait_ms(x->n));
            end = MAX(end, created + MIN(took, 600));
        } else {
            end = MAX(end + (took < 600 ? took : 1), latest_time(body));
            end = (uint64_t)((int64_t)end + beside_wait_ms(x->n));
            x->start_ms = end - took;
        }
        if (took < 600 && !created)
            x->start_ms = MAX(x->start_ms, start);
        if (took < 600)
            start = MAX(start, x->start_ms);
        x->order = i;
    }
}

static int by_start(const void *a, const void *b)
{
    const struct exchange *x = a, *y = b;
    int order = (x->start_ms > y->start_ms) - (x->start_ms < y->start_ms);
    return order ? order : (x->order > y->order) - (x->order < y->order);
}

/* ---- asking ---- */

static struct world *world_of(struct replay *r, const struct exchange *x)
{
    return !strncmp(x->name, "C ", 2) ? &r->limited : &r->main;
}

/* The body as it stands in the line: it may hold what a tree cannot, a NUL character. */
static char *raw_body(const char *line)
{
    static const char from[] = "\"body\": ", to[] = "}, \"response\": ";
    const char *end = strstr(line, to), *begin = strstr(line, from);
    if (!begin || begin > end)
        return NULL;
    begin += sizeof from - 1;
    return xmemdup0(begin, (size_t)(end - begin));
}

static char *body_of(const struct world *w, const struct exchange *x)
{
    char *text = raw_body(x->line);
    if (!text)
        text = xstrdup(text_of(member(x->tree, "request"), "text"));
    if (strncmp(text, "<a valid JSON body of 200 kB>", 20) == 0) {
        free(text);
        text = xasprintf("{\"name\":\"%*d\"}", 200000, 1);
    }
    char *translated = translate(w, text);
    free(text);
    return translated;
}

static size_t headers_of(const struct world *w, const cJSON *rq, struct sim_header to[HEADERS_MAX])
{
    size_t n = 0;
    const cJSON *h;
    cJSON_ArrayForEach(h, member(rq, "headers"))
    {
        if (n < HEADERS_MAX)
            to[n++] = (struct sim_header){h->string, translate(w, h->valuestring)};
    }
    return n;
}

static char *target_of(const struct replay *r, const struct world *w, const struct exchange *x)
{
    char *path = translate(w, x->path);
    if (strcmp(x->server, "daemon") != 0)
        return path;
    char *full = xasprintf("/toolbox/%s%s", r->daemon_box, path);
    free(path);
    return full;
}

static const char *header_in(const struct sim_header *h, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcasecmp(h[i].name, name))
            return h[i].value;
    return "";
}

static void ask(struct replay *r, struct exchange *x)
{
    struct world *w = world_of(r, x);
    const cJSON *rq = member(x->tree, "request");
    struct sim_header headers[HEADERS_MAX + 1];
    size_t n = headers_of(w, rq, headers), own = n;
    if (!strcmp(x->server, "daemon"))
        headers[n++] = (struct sim_header){"Authorization", "Bearer dtn_EXAMPLE"};
    char *target = target_of(r, w, x), *body = body_of(w, x);
    struct sim_request request = {.method = x->method,
                                  .target = target,
                                  .host = header_in(headers, n, "Host"),
                                  .headers = headers,
                                  .n_headers = n,
                                  .body = body,
                                  .body_len = strlen(body)};
    struct sim_reply re;
    model_request(w->m, (x->start_ms - r->wall_ms) * NS_PER_MS, &request, &re);
    if (re.held)
        x->token = re.token;
    else
        judge(w, x, &re);
    sim_reply_done(&re);
    for (size_t i = 0; i < own; i++)
        free((char *)(uintptr_t)headers[i].value);
    free(target);
    free(body);
}

static void collect(struct replay *r, struct world *w, uint64_t wall_ms)
{
    struct sim_reply re;
    while (model_advance(w->m, (wall_ms - r->wall_ms) * NS_PER_MS, &re)) {
        for (size_t i = 0; i < r->n; i++)
            if (r->x[i].token == re.token && world_of(r, &r->x[i]) == w)
                judge(w, &r->x[i], &re);
        sim_reply_done(&re);
    }
}

/* A request of our own: what went on beside the recorded ones. Returns the reply's body, owned. */
static char *act(struct replay *r, struct world *w, uint64_t wall_ms, const struct beside *b)
{
    struct sim_header headers[] = {{"Authorization", "Bearer dtn_EXAMPLE"},
                                   {"Content-Type", "application/json"}};
    char *target = translate(w, b->path), *body = translate(w, b->body);
    char *full =
        *target == '/' ? xstrdup(target) : xasprintf("/toolbox/%s/%s", r->daemon_box, target);
    struct sim_request request = {.method = b->method,
                                  .target = full,
                                  .host = "",
                                  .headers = headers,
                                  .n_headers = ARRAY_LEN(headers),
                                  .body = body,
                                  .body_len = strlen(body)};
    struct sim_reply re;
    model_request(w->m, (wall_ms - r->wall_ms) * NS_PER_MS, &request, &re);
    char *text = buf_steal(&re.body);
    sim_reply_done(&re);
    free(full);
    free(target);
    free(body);
    return text;
}

static void act_before(struct replay *r, const struct exchange *x)
{
    for (size_t i = 0; beside[i].n; i++)
        for (int k = 0; beside[i].n == x->n && k < MAX(beside[i].times, 1); k++)
            free(act(r, world_of(r, x), x->start_ms, &beside[i]));
}

static void make_daemon_box(struct replay *r)
{
    static const struct beside create = {0, "POST", "/api/sandbox",
                                         "{\"name\":\"the-daemon\",\"autoStopInterval\":0}", 1};
    static const struct beside get = {0, "GET", "/api/sandbox/the-daemon", "", 1};
    free(act(r, &r->main, r->wall_ms, &create));
    char *text = act(r, &r->main, r->wall_ms + 100, &get);
    cJSON *tree = cJSON_Parse(text);
    r->daemon_box = xstrdup(text_of(tree, "id"));
    cJSON_Delete(tree);
    free(text);
}

/* ---- the whole ---- */

static struct model *make_model(const struct replay *r, bool limited)
{
    char error[MODEL_ERROR_SIZE];
    struct model_options o = {
        .seed = 1,
        .wall_ms = r->wall_ms,
        .base_url = "http://proxy.localhost:4000",
        .domain = "proxy.localhost:4000",
        .scenario = beside_scenario,
        .boot_ms = 40,
        .server_ms = 20,
        .stop_ms = 110,
        .destroy_ms = 2000,
        .general_limit = limited ? 20 : 2000,
        .create_limit = limited ? 6 : 300,
        .lifecycle_limit = limited ? 5 : 500,
        .failed_auth_limit = limited ? 5 : 50,
    };
    struct model *m = model_new(&o, error);
    if (!m) {
        fprintf(stderr, "sim-replay: %s\n", error);
        exit(2);
    }
    return m;
}

static void run(struct replay *r)
{
    r->wall_ms = r->x[0].start_ms - 1000;
    r->main.m = make_model(r, false);
    r->limited.m = make_model(r, true);
    make_daemon_box(r);
    for (size_t i = 0; i < r->n; i++) {
        collect(r, &r->main, r->x[i].start_ms);
        collect(r, &r->limited, r->x[i].start_ms);
        act_before(r, &r->x[i]);
        ask(r, &r->x[i]);
    }
    collect(r, &r->main, r->x[r->n - 1].start_ms + 60000);
    collect(r, &r->limited, r->x[r->n - 1].start_ms + 60000);
}

static int by_number(const void *a, const void *b)
{
    const struct exchange *x = a, *y = b;
    return x->n - y->n;
}

struct tally {
    char group[8];
    int same, known, other;
};

static struct tally *tally_of(struct tally *t, const struct exchange *x)
{
    char group[8];
    group_of(x, group);
    while (*t->group && strcmp(t->group, group) != 0)
        t++;
    snprintf(t->group, sizeof t->group, "%s", group);
    return t;
}

static int report(struct replay *r)
{
    struct tally tallies[GROUPS_MAX] = {{{0}, 0, 0, 0}};
    int same = 0, known = 0, other = 0;
    qsort(r->x, r->n, sizeof *r->x, by_number);
    for (size_t i = 0; i < r->n; i++) {
        struct exchange *x = &r->x[i];
        struct tally *t = tally_of(tallies, x);
        const char *why = known_difference(x->n);
        bool good = x->done && !*x->fault;
        *(good ? &t->same : why ? &t->known : &t->other) += 1;
        if (!good)
            printf("%s %d [%s] %s\n", why ? "known" : "DIFFERS", x->n, x->name,
                   why       ? why
                   : x->done ? x->fault
                             : "never answered");
    }
    printf("%-6s %6s %6s %8s\n", "group", "same", "known", "differs");
    for (struct tally *t = tallies; *t->group; t++) {
        printf("%-6s %6d %6d %8d\n", t->group, t->same, t->known, t->other);
        same += t->same;
        known += t->known;
        other += t->other;
    }
    printf("%-6s %6d %6d %8d   %.1f %% the same\n", "all", same, known, other,
           100.0 * same / (same + known + other));
    return other ? 1 : 0;
}

static void world_done(struct world *w)
{
    for (size_t i = 0; i < w->n_bound; i++) {
        free(w->bound[i].recorded);
        free(w->bound[i].actual);
    }
    free(w->bound);
    model_free(w->m);
}

static void replay_done(struct replay *r)
{
    for (size_t i = 0; i < r->n; i++) {
        cJSON_Delete(r->x[i].tree);
        free(r->x[i].line);
    }
    free(r->x);
    free(r->daemon_box);
    world_done(&r->main);
    world_done(&r->limited);
}

int main(int argc, char **argv)
{
    struct replay r = {0};
    if (argc != 2) {
        fputs("usage: sim-replay FOLDER\n", stderr);
        return 2;
    }
    read_recordings(&r, argv[1]);
    if (!r.n)
        return 2;
    estimate_times(&r);
    qsort(r.x, r.n, sizeof *r.x, by_start);
    run(&r);
    int differs = report(&r);
    replay_done(&r);
    return differs;
}
