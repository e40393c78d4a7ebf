/* connect_to: see the header.
 *
 * libcurl matches whole host names only, and each sandbox has one of its own; so the domain is
 * matched here, and libcurl gets "::HOST:PORT": whatever the host and port, connect there. Name in
 * the request, certificate check and connection reuse stay those of the URL. */
#include "worker/io/connect_to.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/xalloc.h"

struct item {
    char *domain;           /* owned */
    struct curl_slist node; /* its text is owned */
};

struct connect_to {
    size_t n;
    struct item items[];
};

struct connect_to *connect_to_new(char *const *items, size_t n)
{
    if (n == 0)
        return NULL;
    struct connect_to *c = xcalloc(1, sizeof *c + n * sizeof c->items[0]);
    c->n = n;
    for (size_t i = 0; i < n; i++) {
        size_t len = strcspn(items[i], "=");
        ASSERT(items[i][len] == '=');
        c->items[i].domain = xmemdup0(items[i], len);
        c->items[i].node.data = xasprintf("::%s", items[i] + len + 1);
    }
    return c;
}

void connect_to_free(struct connect_to *c)
{
    for (size_t i = 0; c && i < c->n; i++) {
        free(c->items[i].domain);
        free(c->items[i].node.data);
    }
    free(c);
}

static bool is_below(const char *host, size_t len, const char *domain)
{
    size_t n = strlen(domain);
    return len >= n && strncasecmp(host + len - n, domain, n) == 0 &&
           (len == n || host[len - n - 1] == '.');
}

const struct curl_slist *connect_to_find(const struct connect_to *c, const char *url)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    size_t len = strcspn(host, "/:?#");
    for (size_t i = 0; c && i < c->n; i++) {
        if (is_below(host, len, c->items[i].domain))
            return &c->items[i].node;
    }
    return NULL;
}
