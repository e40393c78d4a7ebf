/* ask: see the header.
 *
 * One curl multi handle, so that a worker that hangs holds up none of the others. The page is JSON
 * of our own making, but whoever listens there need not be a worker: its size, depth and shape are
 * checked, and no text of it is shown as it is. */
#include "worker/ctl/ask.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "worker/ctl/ctl.h"

#define PAGE_MAX (16u * 1024 * 1024)
#define CONNECT_MS 1500L
#define SLICE_MS 100

static const struct json_limits page_limits = {PAGE_MAX, 32, 64};

struct get {
    CURL *curl;
    struct buf body;
    char error[CURL_ERROR_SIZE];
    CURLcode code; /* CURLE_OK only when the answer came in whole */
};

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct get *g = arg;
    buf_add(&g->body, data, size * n);
    return g->body.overflow ? 0 : size * n;
}

static void get_begin(struct get *g, CURLM *multi, const char *address, unsigned timeout_ms)
{
    bool whole = strncmp(address, "http://", 7) == 0;
    size_t len = strlen(address);
    while (len > 0 && address[len - 1] == '/') /* as an address is copied from a browser */
        len--;
    CLEANUP(free_ptr)
    char *url = xasprintf("%s%.*s/sessions", whole ? "" : "http://", (int)len, address);
    *g = (struct get){.curl = curl_easy_init(), .code = CURLE_OPERATION_TIMEDOUT};
    ASSERT(g->curl);
    buf_init(&g->body, PAGE_MAX);
    curl_easy_setopt(g->curl, CURLOPT_URL, url);
    curl_easy_setopt(g->curl, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(g->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(g->curl, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(g->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(g->curl, CURLOPT_QUICK_EXIT, 1L); /* a name server may hang */
    curl_easy_setopt(g->curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(g->curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(g->curl, CURLOPT_ERRORBUFFER, g->error);
    curl_easy_setopt(g->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(g->curl, CURLOPT_WRITEDATA, g);
    curl_easy_setopt(g->curl, CURLOPT_PRIVATE, g);
    curl_multi_add_handle(multi, g->curl);
}

static void note_ended(CURLM *multi)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(multi, &left));) {
        struct get *g;
        if (m->msg == CURLMSG_DONE &&
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&g) == CURLE_OK)
            g->code = m->data.result;
    }
}

static void run_all(CURLM *multi, unsigned timeout_ms)
{
    uint64_t until = now_ms() + timeout_ms + SLICE_MS;
    int running = 1;
    while (running > 0 && now_ms() < until) {
        curl_multi_perform(multi, &running);
        if (running > 0)
            curl_multi_poll(multi, NULL, 0, SLICE_MS, NULL);
    }
    note_ended(multi);
}

static cJSON *parse_page(const struct get *g, char error[ASK_ERROR_SIZE])
{
    char why[JSON_ERROR_SIZE];
    long status = 0;
    curl_easy_getinfo(g->curl, CURLINFO_RESPONSE_CODE, &status);
    cJSON *page =
        status == 200 ? json_parse(buf_text(&g->body), g->body.len, &page_limits, why) : NULL;
    if (cJSON_IsArray(json_get(page, "sessions")))
        return page;
    cJSON_Delete(page);
    snprintf(error, ASK_ERROR_SIZE, "HTTP %ld, but this is no worker's admin port", status);
    return NULL;
}

/* The system's word where there is one: "Connection refused". */
static const char *reason(const struct get *g)
{
    long number = 0;
    curl_easy_getinfo(g->curl, CURLINFO_OS_ERRNO, &number);
    if (g->code == CURLE_COULDNT_CONNECT && number > 0)
        return strerror((int)number);
    if (g->code == CURLE_OPERATION_TIMEDOUT)
        return "no answer in time";
    return g->error[0] ? g->error : curl_easy_strerror(g->code);
}

static void judge(const struct get *g, struct worker_answer *out)
{
    if (g->code == CURLE_OK)
        out->page = parse_page(g, out->error);
    else
        snprintf(out->error, sizeof out->error, "%.190s", reason(g));
}

struct worker_answer *ask_workers(const struct texts *addresses, unsigned timeout_ms)
{
    CURLM *multi = curl_multi_init();
    ASSERT(multi);
    struct get *gets = xcalloc(addresses->n, sizeof *gets);
    struct worker_answer *answers = xcalloc(addresses->n, sizeof *answers);
    for (size_t i = 0; i < addresses->n; i++)
        get_begin(&gets[i], multi, addresses->items[i], timeout_ms);
    run_all(multi, timeout_ms);
    for (size_t i = 0; i < addresses->n; i++) {
        answers[i].address = addresses->items[i];
        judge(&gets[i], &answers[i]);
        curl_multi_remove_handle(multi, gets[i].curl);
        curl_easy_cleanup(gets[i].curl);
        buf_done(&gets[i].body);
    }
    curl_multi_cleanup(multi);
    free(gets);
    return answers;
}

void answers_free(struct worker_answer *answers, size_t n)
{
    for (size_t i = 0; answers && i < n; i++)
        cJSON_Delete(answers[i].page);
    free(answers);
}

char *dial_address(const char *listen)
{
    static const struct {
        const char *from, *to;
    } any[] = {{":", "127.0.0.1:"}, {"0.0.0.0:", "127.0.0.1:"}, {"[::]:", "[::1]:"}};
    for (size_t i = 0; i < ARRAY_LEN(any); i++)
        if (strncmp(listen, any[i].from, strlen(any[i].from)) == 0)
            return xasprintf("%s%s", any[i].to, listen + strlen(any[i].from));
    return xstrdup(listen);
}
