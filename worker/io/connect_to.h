/* Where a domain's hosts really are, when the name server does not say so (http.connect_to of the
 * configuration): for previews under a name that is known on one machine only. Internal to the http
 * module. */
#ifndef WORKER_IO_CONNECT_TO_H
#define WORKER_IO_CONNECT_TO_H

#include <curl/curl.h>

#include "common/base.h"

struct connect_to;

/* "DOMAIN=HOST:PORT" each, checked by the configuration. NULL when there are none. */
struct connect_to *connect_to_new(char *const *items, size_t n);
void connect_to_free(struct connect_to *); /* NULL allowed */

/* For CURLOPT_CONNECT_TO: of the first item whose domain is the URL's host or stands above it. NULL
 * when there is none. Borrows. */
const struct curl_slist *connect_to_find(const struct connect_to *, const char *url);

#endif
