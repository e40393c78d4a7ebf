/* live: check --live's look at a provider. See report.h.
 *
 * Two requests: the public configuration (is that the API, and which version), and a listing of one
 * sandbox with the key (is it taken). Blocking, one after the other, each bounded in time and size;
 * no redirects, no proxy from the environment, and the key goes into a header only: nothing here
 * prints a header or a body. It connects where a worker would (http.connect_to). */
#include <curl/curl.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "worker/ctl/report.h"
#include "worker/io/connect_to.h"

#define TIMEOUT_MS 15000L
#define CONNECT_TIMEOUT_MS 5000L
#define BODY_MAX 262144

/* One provider that is looked at. */
struct look {
    struct report *report;
    const char *what; /* the lines are about */
    const struct provider_config *provider;
    const struct connect_to *connect_to; /* NULL: as the name server says */
};

struct get {
    CURL *curl;
    struct curl_slist *headers;
    struct buf body;
    long status; /* 0: no answer, then error says why */
    char error[CURL_ERROR_SIZE];
};

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct get *g = arg;
    buf_add(&g->body, data, size * n);
    return g->body.overflow ? 0 : size * n;
}

static void set_options(struct get *g, const struct look *l, const char *url)
{
    curl_easy_setopt(g->curl, CURLOPT_URL, url);
    curl_easy_setopt(g->curl, CURLOPT_CONNECT_TO, connect_to_find(l->connect_to, url));
    curl_easy_setopt(g->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(g->curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(g->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(g->curl, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(g->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(g->curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    curl_easy_setopt(g->curl, CURLOPT_TIMEOUT_MS, TIMEOUT_MS);
    curl_easy_setopt(g->curl, CURLOPT_USERAGENT, "sessionctl");
    curl_easy_setopt(g->curl, CURLOPT_HTTPHEADER, g->headers);
    curl_easy_setopt(g->curl, CURLOPT_ERRORBUFFER, g->error);
    curl_easy_setopt(g->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(g->curl, CURLOPT_WRITEDATA, g);
}

/* GET <api_url><path>; key NULL: without one. */
static void get_run(struct get *g, const struct look *l, const char *path, const char *key)
{
    CLEANUP(free_ptr) char *url = xasprintf("%s%s", l->provider->api_url, path);
    *g = (struct get){.curl = curl_easy_init()};
    ASSERT(g->curl);
    buf_init(&g->body, BODY_MAX);
    if (key) {
        char *header = xasprintf("Authorization: Bearer %s", key);
        g->headers = curl_slist_append(NULL, header);
        explicit_bzero(header, strlen(header));
        free_ptr(&header);
    }
    set_options(g, l, url);
    CURLcode code = curl_easy_perform(g->curl);
    if (code == CURLE_OK)
        curl_easy_getinfo(g->curl, CURLINFO_RESPONSE_CODE, &g->status);
    else if (!g->error[0])
        strncpy(g->error, curl_easy_strerror(code), sizeof g->error - 1);
}

static void get_done(struct get *g)
{
    if (g->headers)
        explicit_bzero(g->headers->data, strlen(g->headers->data));
    curl_slist_free_all(g->headers);
    curl_easy_cleanup(g->curl);
    buf_done(&g->body);
}

/* ---- what the answers mean ---- */

static void judge_limits(const struct look *l, const cJSON *config)
{
    const struct provider_config *p = l->provider;
    const cJSON *create = json_get(json_get(config, "rateLimit"), "sandboxCreate");
    int64_t limit = json_int(create, "limit", 0), seconds = json_int(create, "ttl", 60);
    if (limit > 0 && seconds > 0 && limit * 60 / seconds < p->creates_per_minute)
        report_line(l->report, REPORT_NOTE, l->what,
                    "creates_per_minute is %d, but the API says %lld: lower it",
                    p->creates_per_minute, (long long)(limit * 60 / seconds));
    if (json_bool(config, "maintananceMode", false)) /* spelt so by the API */
        report_line(l->report, REPORT_NOTE, l->what, "the API is in maintenance");
}

/* True: there is an API, and it is worth trying the key. */
static bool judge_config(const struct look *l)
{
    struct get g;
    struct report *r = l->report;
    const char *what = l->what, *api_url = l->provider->api_url;
    get_run(&g, l, "/config", NULL);
    cJSON *config = json_parse_reply(buf_text(&g.body), g.body.len);
    bool ok = g.status == 200 && cJSON_IsObject(config);
    if (ok)
        report_line(r, REPORT_OK, what, "%s answers, version %s", api_url,
                    json_str(config, "version", "unknown"));
    else if (g.status == 0)
        report_line(r, REPORT_FAIL, what, "%s: %s: check api_url and the network", api_url,
                    g.error);
    else if (g.status == 429)
        report_line(r, REPORT_FAIL, what, "%s: rate limited: try again in a minute", api_url);
    else
        report_line(r, REPORT_FAIL, what, "%s/config answers %ld: api_url is not a Daytona API",
                    api_url, g.status);
    if (ok)
        judge_limits(l, config);
    cJSON_Delete(config);
    get_done(&g);
    return ok;
}

static void judge_key(const struct look *l)
{
    struct get g;
    struct report *r = l->report;
    const char *what = l->what;
    get_run(&g, l, "/sandbox?limit=1", l->provider->api_key);
    if (g.status == 200)
        report_line(r, REPORT_OK, what, "the key is accepted");
    else if (g.status == 0)
        report_line(r, REPORT_FAIL, what, "%s: %s", l->provider->api_url, g.error);
    else if (g.status == 401 || g.status == 403)
        report_line(r, REPORT_FAIL, what,
                    "the key is refused (%ld): make one with write:sandboxes and delete:sandboxes",
                    g.status);
    else
        report_line(r, REPORT_FAIL, what, "listing sandboxes answers %ld", g.status);
    get_done(&g);
}

static void look_at(struct report *r, const char *what, const struct config *cfg,
                    const struct provider_config *p)
{
    struct connect_to *c = connect_to_new(cfg->http.connect_to, cfg->http.n_connect_to);
    struct look look = {r, what, p, c};
    if (judge_config(&look))
        judge_key(&look);
    connect_to_free(c);
}

void report_provider(struct report *r, const struct config *cfg, const struct provider_config *p)
{
    CLEANUP(free_ptr) char *what = xasprintf("provider %s", p->name);
    if (strcmp(p->type, "daytona") != 0)
        report_line(r, REPORT_NOTE, what, "type %s: nothing to try here", p->type);
    else if (!*p->api_key)
        report_line(r, REPORT_FAIL, what, "no key: set %sproviders.%s.api_key_file",
                    strcmp(p->name, "daytona") == 0 ? "DAYTONA_API_KEY, DAYTONA_API_KEY_FILE or "
                                                    : "",
                    p->name);
    else
        look_at(r, what, cfg, p);
}
