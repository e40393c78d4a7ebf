/* The table of everything that can be asked, and the search in it.
 *
 * Statistics and the ledger name a request by its row's `kind`. Order matters only where a fixed
 * segment and a '*' compete: the fixed one stands first, as in the server, so a sandbox that is
 * named "paginated" cannot be got by its name. */
#include "tests/sim/model_impl.h"

#include <string.h>

#define API FAMILY_API
#define TB FAMILY_TOOLBOX
#define SIM FAMILY_CONTROL
#define G SCOPE_GENERAL
#define L SCOPE_LIFECYCLE
#define NO SCOPE_NONE

/* clang-format off */
const struct route routes[] = {
    {API, "POST",   "/sandbox",                  "POST /sandbox",                       SCOPE_CREATE, true, api_create},
    {API, "GET",    "/sandbox",                  "GET /sandbox",                        G, false, api_list},
    {API, "GET",    "/sandbox/paginated",        "GET /sandbox/paginated",              G, false, api_paginated},
    {API, "GET",    "/sandbox/*",                "GET /sandbox/{x}",                    G, false, api_get},
    {API, "DELETE", "/sandbox/*",                "DELETE /sandbox/{x}",                 L, true,  api_delete},
    {API, "POST",   "/sandbox/*/start",          "POST /sandbox/{x}/start",             L, true,  api_start},
    {API, "POST",   "/sandbox/*/stop",           "POST /sandbox/{x}/stop",              L, true,  api_stop},
    {API, "POST",   "/sandbox/*/recover",        "POST /sandbox/{x}/recover",           L, true,  api_recover},
    {API, "POST",   "/sandbox/*/archive",        "POST /sandbox/{x}/archive",           L, true,  api_archive},
    {API, "POST",   "/sandbox/*/pause",          "POST /sandbox/{x}/pause",             L, true,  api_pause},
    {API, "POST",   "/sandbox/*/resize",         "POST /sandbox/{x}/resize",            L, true,  api_resize},
    {API, "PUT",    "/sandbox/*/labels",         "PUT /sandbox/{x}/labels",             G, true,  api_labels},
    {API, "POST",   "/sandbox/*/autostop/*",     "POST /sandbox/{x}/autostop/{n}",      G, true,  api_interval},
    {API, "POST",   "/sandbox/*/autoarchive/*",  "POST /sandbox/{x}/autoarchive/{n}",   G, true,  api_interval},
    {API, "POST",   "/sandbox/*/autodelete/*",   "POST /sandbox/{x}/autodelete/{n}",    G, true,  api_interval},
    {API, "POST",   "/sandbox/*/public/*",       "POST /sandbox/{x}/public/{b}",        G, true,  api_public},
    {API, "POST",   "/sandbox/*/last-activity",  "POST /sandbox/{x}/last-activity",     G, true,  api_activity},
    {API, "GET",    "/sandbox/*/ports/*/preview-url", "GET /sandbox/{x}/ports/{p}/preview-url", G, false, api_preview},
    {API, "GET",    "/sandbox/*/ports/*/signed-preview-url", "GET /sandbox/{x}/ports/{p}/signed-preview-url", G, false, api_signed},
    {API, "POST",   "/sandbox/*/ports/*/signed-preview-url/*/expire", "POST /sandbox/{x}/ports/{p}/signed-preview-url/{t}/expire", G, true, api_signed_expire},
    {API, "GET",    "/sandbox/*/toolbox-proxy-url", "GET /sandbox/{x}/toolbox-proxy-url", G, false, api_toolbox_url},
    {API, "GET",    "/config",                   "GET /config",                         NO, false, api_config},
    {API, "GET",    "/health",                   "GET /health",                         SCOPE_ANONYMOUS, false, api_health},

    {TB,  "GET",    "/version",                  "GET toolbox/version",                 NO, false, tb_version},
    {TB,  "GET",    "/work-dir",                 "GET toolbox/work-dir",                NO, false, tb_work_dir},
    {TB,  "GET",    "/user-home-dir",            "GET toolbox/user-home-dir",           NO, false, tb_work_dir},
    {TB,  "GET",    "/files/info",               "GET toolbox/files/info",              NO, false, tb_file_info},
    {TB,  "GET",    "/port/*/in-use",            "GET toolbox/port/{p}/in-use",         NO, false, tb_port},
    {TB,  "POST",   "/process/session",          "POST toolbox/process/session",        NO, true,  tb_session_create},
    {TB,  "GET",    "/process/session",          "GET toolbox/process/session",         NO, false, tb_session_list},
    {TB,  "GET",    "/process/session/*",        "GET toolbox/process/session/{s}",     NO, false, tb_session_get},
    {TB,  "DELETE", "/process/session/*",        "DELETE toolbox/process/session/{s}",  NO, true,  tb_session_delete},
    {TB,  "POST",   "/process/session/*/exec",   "POST toolbox/process/session/{s}/exec", NO, true, tb_exec},
    {TB,  "GET",    "/process/session/*/command/*", "GET toolbox/process/session/{s}/command/{c}", NO, false, tb_command},
    {TB,  "GET",    "/process/session/*/command/*/logs", "GET toolbox/process/session/{s}/command/{c}/logs", NO, false, tb_logs},
    {TB,  "POST",   "/process/session/*/command/*/input", "POST toolbox/process/session/{s}/command/{c}/input", NO, true, tb_input},
    {TB,  "POST",   "/process/execute",          "POST toolbox/process/execute",        NO, true,  tb_execute},

    {SIM, "GET",    "/_sim/ledger",              "",                                    NO, false, control_ledger},
    {SIM, "GET",    "/_sim/stats",               "",                                    NO, false, control_stats},
    {SIM, "POST",   "/_sim/faults",              "",                                    NO, true,  control_faults},
    {SIM, "DELETE", "/_sim/faults",              "",                                    NO, true,  control_clear_faults},
    {SIM, "POST",   "/_sim/clock",               "",                                    NO, true,  control_clock},
    {SIM, "POST",   "/_sim/world",               "",                                    NO, true,  control_world},
};
/* clang-format on */
const size_t n_routes = ARRAY_LEN(routes);

const struct route special_routes[N_SPECIAL] = {
    [KIND_PREVIEW] = {TB, "", "", "preview", NO, false, NULL},
    [KIND_OTHER] = {API, "", "", "other", NO, false, NULL},
};

static bool pattern_matches(enum family family, const char *pattern, char *const *segments,
                            size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (*pattern++ != '/')
            return false;
        size_t len = strcspn(pattern, "/");
        bool wild = len == 1 && *pattern == '*';
        if (!wild && (strncmp(segments[i], pattern, len) != 0 || segments[i][len] != '\0'))
            return false;
        if (wild && (!*segments[i] || (family == FAMILY_TOOLBOX && strchr(segments[i], '/'))))
            return false; /* the daemon's router decodes before it splits */
        pattern += len;
    }
    return *pattern == '\0';
}

const struct route *route_find(struct call *c, enum family family)
{
    if (family == FAMILY_API && c->n_segments && !strcmp(c->segments[0], "api"))
        c->first = 1;
    for (size_t i = 0; i < n_routes; i++) {
        const struct route *r = &routes[i];
        if (r->family == family && !strcmp(r->method, c->rq->method) &&
            pattern_matches(family, r->pattern, c->segments + c->first, c->n_segments - c->first))
            return r;
    }
    return NULL;
}

size_t route_index(const struct route *r)
{
    if (r >= special_routes && r < special_routes + N_SPECIAL)
        return n_routes + (size_t)(r - special_routes);
    return (size_t)(r - routes);
}

const char *route_kind(size_t index)
{
    _Static_assert(ARRAY_LEN(routes) + N_SPECIAL <= N_ROUTES_MAX, "more rows than counters");
    if (index < n_routes)
        return routes[index].kind;
    return index < n_routes + N_SPECIAL ? special_routes[index - n_routes].kind : NULL;
}

void route_count(struct model *m, const struct route *route, int status)
{
    struct route_stats *s = &m->stats[route_index(route)];
    for (size_t i = 0; i < s->n; i++) {
        if (s->by_status[i].status == status) {
            s->by_status[i].n++;
            return;
        }
    }
    if (s->n < ARRAY_LEN(s->by_status))
        s->by_status[s->n++] = (struct status_count){status, 1};
}
