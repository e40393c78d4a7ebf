/* bare: the yardstick. The requests of a session, and nothing else: no Kafka, no retries, no
 * checks, no deadlines of our own; a loop as one writes it from libcurl's example of multi_socket
 * with libevent. What session-worker needs beyond this is its overhead.
 *
 *   bare --api URL [--key K] [--sessions N] [--in-flight K] [--shards S] [--name PREFIX]
 *
 * Without --shards it has one multi handle and libcurl's defaults. With it, what libcurl 7.88 needs
 * when every session has a host of its own: S multi handles, no DNS cache for those hosts, their
 * connections closed with the answer that ends the probing, and a bounded connection cache.
 *
 * Prints one JSON object. cpu_us_by_1000 is the CPU time of each 1000 sessions that ended. */
#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <event2/event.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define BLOCK 1000
#define BLOCKS_MAX 1000

struct multi {
    CURLM *curl;
    struct event *timer;
};

enum step { CREATE, START, SESSION, EXEC, PROBE, KEEP, ACCEPT };
enum beside { NOTHING, PREVIEW, PREVIEW_VSCODE, WATCH };

struct request {
    struct slot *slot;
    CURL *easy;
    struct curl_slist *headers;
    char *reply;
    size_t len;
    bool last_probe; /* its 2xx is the last of that host for a while */
};

struct slot { /* one session at a time */
    struct multi *multi;
    enum step step;
    struct request
        request[2];     /* the second one asks for URLs and the exit code, beside the first */
    enum beside beside; /* what the second one asks for */
    bool busy;          /* it is under way */
    struct event *timer, *timer_beside;
    long pause_ms;
    char id[64], toolbox[256], url[256], token[64], command[64];
};

static struct event_base *base;
static struct multi *multis;
static const char *api = "http://127.0.0.1:3986", *key = "dtn_EXAMPLE", *prefix = "bare";
static long n_sessions = 1000, in_flight = 64, n_shards;
static long n_begun, n_ended, n_failed, n_requests;
static double begun_cpu, block_cpu, by_block[BLOCKS_MAX];

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- libcurl on libevent ---- */

static void answered(struct request *r, CURLcode code);

static void check_done(struct multi *m)
{
    CURLMsg *msg;
    int left;
    while ((msg = curl_multi_info_read(m->curl, &left))) {
        struct request *r;
        CURLcode code = msg->data.result;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&r);
        curl_multi_remove_handle(m->curl, msg->easy_handle);
        answered(r, code);
    }
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct multi *m = arg;
    int running;
    curl_multi_socket_action(m->curl, (curl_socket_t)fd,
                             (what & EV_READ ? CURL_CSELECT_IN : 0) |
                                 (what & EV_WRITE ? CURL_CSELECT_OUT : 0),
                             &running);
    check_done(m);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct multi *m = arg;
    int running;
    (void)fd, (void)what;
    curl_multi_socket_action(m->curl, CURL_SOCKET_TIMEOUT, 0, &running);
    check_done(m);
}

static int want_timer(CURLM *curl, long ms, void *arg)
{
    struct multi *m = arg;
    struct timeval t = {ms / 1000, ms % 1000 * 1000};
    (void)curl;
    if (ms < 0)
        evtimer_del(m->timer);
    else
        evtimer_add(m->timer, &t);
    return 0;
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *of_socket)
{
    struct multi *m = arg;
    struct event *e = of_socket;
    (void)easy;
    if (e)
        event_free(e);
    if (what == CURL_POLL_REMOVE)
        return 0;
    e = event_new(base, fd,
                  (short)((what & CURL_POLL_IN ? EV_READ : 0) |
                          (what & CURL_POLL_OUT ? EV_WRITE : 0) | EV_PERSIST),
                  on_socket, m);
    event_add(e, NULL);
    curl_multi_assign(m->curl, fd, e);
    return 0;
}

static void multi_init(struct multi *m)
{
    m->curl = curl_multi_init();
    m->timer = evtimer_new(base, on_timer, m);
    curl_multi_setopt(m->curl, CURLMOPT_SOCKETFUNCTION, want_socket);
    curl_multi_setopt(m->curl, CURLMOPT_SOCKETDATA, m);
    curl_multi_setopt(m->curl, CURLMOPT_TIMERFUNCTION, want_timer);
    curl_multi_setopt(m->curl, CURLMOPT_TIMERDATA, m);
    if (n_shards)
        curl_multi_setopt(m->curl, CURLMOPT_MAXCONNECTS, in_flight * 3 / 2 / n_shards + 8);
}

/* ---- requests ---- */

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct request *r = arg;
    long status = 0;
    r->reply = realloc(r->reply, r->len + n + 1);
    memcpy(r->reply + r->len, bytes, n);
    r->len += n;
    r->reply[r->len] = '\0';
    if (r->last_probe) {
        curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
        if (status / 100 == 2)
            curl_easy_setopt(r->easy, CURLOPT_FORBID_REUSE, 1L);
    }
    return n * size;
}

static void add_header(struct request *r, const char *name, const char *value)
{
    char line[300];
    snprintf(line, sizeof line, "%s: %s", name, value);
    r->headers = curl_slist_append(r->headers, line);
}

static CURL *fresh(struct request *r, const char *url)
{
    if (r->easy)
        curl_easy_reset(r->easy);
    else
        r->easy = curl_easy_init();
    curl_easy_setopt(r->easy, CURLOPT_URL, url);
    curl_easy_setopt(r->easy, CURLOPT_PRIVATE, r);
    curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(r->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(r->easy, CURLOPT_TIMEOUT_MS, 60000L);
    curl_easy_setopt(r->easy, CURLOPT_PROXY, "");
    r->len = 0;
    r->last_probe = false;
    return r->easy;
}

static void send_it(struct request *r)
{
    curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
    n_requests++;
    curl_multi_add_handle(r->slot->multi->curl, r->easy);
}

/* body NULL: GET; "": POST without one */
static void ask_api(struct request *r, const char *url, const char *body)
{
    char bearer[200];
    CURL *easy = fresh(r, url);
    snprintf(bearer, sizeof bearer, "Bearer %s", key);
    add_header(r, "Authorization", bearer);
    if (body) {
        curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, body);
        add_header(r, "Content-Type", "application/json");
    }
    send_it(r);
}

static void ask_host(struct slot *s, const char *path, bool with_key)
{
    char url[400];
    struct request *r = &s->request[0];
    snprintf(url, sizeof url, "%s%s", s->url, path);
    CURL *easy = fresh(r, url);
    add_header(r, "X-Daytona-Preview-Token", s->token);
    add_header(r, "X-Daytona-Skip-Preview-Warning", "true");
    if (with_key)
        add_header(r, "X-Session-API-Key", "0123456789abcdef0123456789abcdef0123456789a");
    if (n_shards) {
        curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, 0L);
        r->last_probe = with_key;
    }
    send_it(r);
}

/* ---- a session ---- */

static void ask_create(struct slot *s)
{
    char url[300], body[1000];
    snprintf(url, sizeof url, "%s/sandbox", api);
    snprintf(body, sizeof body,
             "{\"name\":\"bench.%s-%ld\",\"snapshot\":\"any\",\"labels\":{"
             "\"OpenHands_SID\":\"%s-%ld\",\"session-worker/fleet\":\"bench\","
             "\"session-worker/partition\":\"session-jobs/0\","
             "\"session-worker/job\":\"session-jobs/0/%ld\","
             "\"session-worker/spec\":\"0123456789abcdef\",\"session-worker/key\":\"01234567\"},"
             "\"autoStopInterval\":60,\"autoArchiveInterval\":1440,\"autoDeleteInterval\":0}",
             prefix, n_begun, prefix, n_begun, n_begun);
    ask_api(&s->request[0], url, body);
}

static void ask_state(struct slot *s)
{
    char url[400];
    snprintf(url, sizeof url, "%s/sandbox/%s", api, s->id);
    ask_api(&s->request[0], url, NULL);
}

static void ask_beside(struct slot *s)
{
    char url[600];
    if (s->beside == WATCH)
        snprintf(url, sizeof url, "%s/%s/process/session/sw-0123456789abcdef/command/%s",
                 s->toolbox, s->id, s->command);
    else
        snprintf(url, sizeof url, "%s/sandbox/%s/ports/%d/preview-url", api, s->id,
                 s->beside == PREVIEW ? 4444 : 4445);
    s->busy = true;
    ask_api(&s->request[1], url, NULL);
}

static void go_beside(struct slot *s, enum beside beside)
{
    s->beside = beside;
    ask_beside(s);
}

static void ask_launch(struct slot *s)
{
    char url[500];
    snprintf(url, sizeof url, "%s/%s/process/session", s->toolbox, s->id);
    ask_api(&s->request[0], url, "{\"sessionId\":\"sw-0123456789abcdef\"}");
    go_beside(s, PREVIEW);
}

static void ask_exec(struct slot *s)
{
    char url[500];
    snprintf(url, sizeof url, "%s/%s/process/session/sw-0123456789abcdef/exec", s->toolbox, s->id);
    ask_api(&s->request[0], url,
            "{\"command\":\"sh -c 'export PYTHONUNBUFFERED=1; export VSCODE_PORT=4445; "
            "export SESSION_API_KEY=0123456789abcdef0123456789abcdef0123456789a; "
            "mkdir -p /workspace && cd /openhands/code && "
            "/openhands/micromamba/bin/micromamba run -n openhands poetry run python -u -m "
            "openhands.runtime.action_execution_server 4444 --working-dir /workspace "
            "--username openhands --user-id 1000' >/tmp/session-worker-server.log 2>&1 "
            "</dev/null\",\"runAsync\":true}");
}

static void ask_keep(struct slot *s)
{
    char url[400];
    snprintf(url, sizeof url, "%s/sandbox/%s/autodelete/-1", api, s->id);
    ask_api(&s->request[0], url, "");
}

static void ask(struct slot *s)
{
    switch (s->step) {
    case CREATE:
        ask_create(s);
        break;
    case START:
        ask_state(s);
        break;
    case SESSION:
        ask_launch(s);
        break;
    case EXEC:
        ask_exec(s);
        break;
    case PROBE:
        ask_host(s, "/alive", false);
        break;
    case KEEP:
        ask_keep(s);
        break;
    case ACCEPT:
        ask_host(s, "/vscode/connection_token", true);
        break;
    }
}

static void begin(struct slot *s)
{
    if (n_begun == n_sessions)
        return;
    n_begun++;
    s->step = CREATE;
    s->pause_ms = 0;
    ask(s);
}

static void end(struct slot *s, bool failed)
{
    n_ended++;
    n_failed += failed;
    if (n_ended % BLOCK == 0 && n_ended / BLOCK <= BLOCKS_MAX) {
        double cpu = cpu_seconds();
        by_block[n_ended / BLOCK - 1] = cpu - block_cpu;
        block_cpu = cpu;
    }
    if (n_ended == n_sessions)
        event_base_loopbreak(base);
    begin(s);
}

static void go(struct slot *s, enum step step)
{
    s->step = step;
    s->pause_ms = 0;
    ask(s);
}

static void on_pause(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    ask(arg);
}

static void on_pause_beside(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    ask_beside(arg);
}

/* A fifth more or less, as the worker does. */
static void wait_about(struct event *timer, long ms)
{
    long us = (long)((double)ms * 1000 * (0.8 + 0.4 * drand48()));
    struct timeval t = {us / 1000000, us % 1000000};
    evtimer_add(timer, &t);
}

static void again(struct slot *s, long first_ms, long max_ms, long percent)
{
    long next = s->pause_ms + s->pause_ms * percent / 100;
    s->pause_ms = s->pause_ms ? (next < max_ms ? next : max_ms) : first_ms;
    wait_about(s->timer, s->pause_ms);
}

static bool member_is(const cJSON *json, const char *name, const char *value)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(json, name);
    return cJSON_IsString(member) && strcmp(member->valuestring, value) == 0;
}

static void copy_member(const cJSON *json, const char *name, char *to, size_t size)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(json, name);
    snprintf(to, size, "%s", cJSON_IsString(member) ? member->valuestring : "");
}

static void on_sandbox(struct slot *s, const cJSON *json)
{
    copy_member(json, "id", s->id, sizeof s->id);
    copy_member(json, "toolboxProxyUrl", s->toolbox, sizeof s->toolbox);
    if (s->step == CREATE)
        go(s, START);
    else if (member_is(json, "state", "started"))
        go(s, SESSION);
    else
        again(s, 200, 2000, 30);
}

/* The server answers: nobody needs its exit code any more. */
static void stop_watching(struct slot *s)
{
    evtimer_del(s->timer_beside);
    if (s->busy) {
        curl_multi_remove_handle(s->multi->curl, s->request[1].easy);
        curl_slist_free_all(s->request[1].headers);
        s->request[1].headers = NULL;
    }
    s->busy = false;
    s->beside = NOTHING;
}

static void on_probe(struct slot *s, const cJSON *json, long status)
{
    if (status == 200 && member_is(json, "status", "ok")) {
        stop_watching(s);
        go(s, KEEP);
    } else {
        again(s, 50, 500, 50);
    }
}

static void probe(struct slot *s)
{
    go(s, PROBE);
    go_beside(s, WATCH);
}

static void on_launched(struct slot *s, const cJSON *json)
{
    copy_member(json, "cmdId", s->command, sizeof s->command);
    s->step = PROBE;
    if (s->beside == NOTHING)
        probe(s);
}

static void on_beside(struct slot *s, const cJSON *json)
{
    s->busy = false;
    if (s->beside == PREVIEW) {
        copy_member(json, "url", s->url, sizeof s->url);
        copy_member(json, "token", s->token, sizeof s->token);
        go_beside(s, PREVIEW_VSCODE);
    } else if (s->beside == PREVIEW_VSCODE) {
        s->beside = NOTHING;
        if (s->step == PROBE)
            probe(s);
    } else if (s->beside == WATCH) {
        wait_about(s->timer_beside, 500);
    }
}

static void advance(struct slot *s, const cJSON *json, long status)
{
    if (s->step != PROBE && status / 100 != 2)
        end(s, true);
    else if (s->step == CREATE || s->step == START)
        on_sandbox(s, json);
    else if (s->step == SESSION)
        go(s, EXEC);
    else if (s->step == EXEC)
        on_launched(s, json);
    else if (s->step == PROBE)
        on_probe(s, json, status);
    else if (s->step == KEEP)
        go(s, ACCEPT);
    else
        end(s, false);
}

static void answered(struct request *r, CURLcode code)
{
    struct slot *s = r->slot;
    long status = 0;
    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(r->headers);
    r->headers = NULL;
    cJSON *json = r->len ? cJSON_ParseWithLength(r->reply, r->len) : NULL;
    if (code != CURLE_OK)
        status = 0;
    if (r == &s->request[1])
        on_beside(s, json);
    else
        advance(s, json, status);
    cJSON_Delete(json);
}

/* ---- the run ---- */

/* Not getrusage's ru_maxrss: that begins with the size of the process that started us. */
static double peak_rss_mb(void)
{
    char line[200];
    double kb = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "VmHWM:", 6) == 0)
            kb = strtod(line + 6, NULL);
    }
    if (f)
        fclose(f);
    return kb / 1024;
}

static void report(double seconds, double cpu)
{
    printf("{\"sessions\":%ld,\"failed\":%ld,\"in_flight\":%ld,\"shards\":%ld,"
           "\"seconds\":%.3f,\"sessions_per_s\":%.1f,\"cpu_us_per_session\":%.1f,"
           "\"requests_per_session\":%.3f,\"rss_mb\":%.1f,\"cpu_us_by_1000\":[",
           n_ended, n_failed, in_flight, n_shards, seconds, (double)n_ended / seconds,
           cpu * 1e6 / (double)n_ended, (double)n_requests / (double)n_ended, peak_rss_mb());
    for (long i = 0; i < n_ended / BLOCK && i < BLOCKS_MAX; i++)
        printf("%s%.1f", i ? "," : "", by_block[i] * 1e6 / BLOCK);
    printf("]}\n");
}

static void read_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"api", required_argument, NULL, 'a'},
        {"key", required_argument, NULL, 'k'},
        {"sessions", required_argument, NULL, 'n'},
        {"in-flight", required_argument, NULL, 'f'},
        {"shards", required_argument, NULL, 's'},
        {"name", required_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'a':
            api = optarg;
            break;
        case 'k':
            key = optarg;
            break;
        case 'n':
            n_sessions = strtol(optarg, NULL, 10);
            break;
        case 'f':
            in_flight = strtol(optarg, NULL, 10);
            break;
        case 's':
            n_shards = strtol(optarg, NULL, 10);
            break;
        case 'p':
            prefix = optarg;
            break;
        default:
            exit(2);
        }
    }
}

static void raise_limits(void)
{
    struct rlimit l;
    getrlimit(RLIMIT_NOFILE, &l);
    l.rlim_cur = l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    raise_limits();
    curl_global_init(CURL_GLOBAL_DEFAULT);
    base = event_base_new();
    long n_multis = n_shards ? n_shards : 1;
    multis = calloc((size_t)n_multis, sizeof *multis);
    for (long i = 0; i < n_multis; i++)
        multi_init(&multis[i]);
    double start = now_seconds();
    begun_cpu = block_cpu = cpu_seconds();
    struct slot *slots = calloc((size_t)in_flight, sizeof *slots);
    for (long i = 0; i < in_flight; i++) {
        struct slot *s = &slots[i];
        s->multi = &multis[i % n_multis];
        s->request[0].slot = s->request[1].slot = s;
        s->timer = evtimer_new(base, on_pause, s);
        s->timer_beside = evtimer_new(base, on_pause_beside, s);
        begin(s);
    }
    event_base_dispatch(base);
    report(now_seconds() - start, cpu_seconds() - begun_cpu);
    return n_failed ? 1 : 0;
}
