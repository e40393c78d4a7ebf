/* HTTP: sends calls, reports replies. libcurl multi_socket on the loop, sharded: one multi handle
 * per 64 transfers or so, because every sandbox has a preview host of its own and libcurl gets
 * slower with each host name one handle has seen. Decides nothing: no retries, no redirects, no
 * proxy. */
#ifndef WORKER_IO_HTTP_H
#define WORKER_IO_HTTP_H

#include "worker/io/loop.h"
#include "worker/provider/provider.h"

struct http;

struct http_options {
    bool allow_http;         /* plain http:// (an api_url that is http says so) */
    const char *ca_file;     /* NULL: the system's */
    char *const *connect_to; /* "DOMAIN=HOST:PORT": connect there for the domain and all below it */
    size_t n_connect_to;
    const char *user_agent;
    unsigned max_in_flight; /* transfers at once; more wait here, their deadlines running */
    unsigned max_connects;  /* new connections per loop turn */
};

/* Called from the loop, never from inside http_send or http_cancel. reply is borrowed. */
typedef void http_reply_fn(void *arg, uint64_t id, const struct reply *reply);

struct http *http_new(struct loop *, const struct http_options *, http_reply_fn *fn, void *arg);
void http_free(struct http *); /* drops what is under way */

/* Takes the call over (owned; call_done when finished). id is unique among those under way.
 * The deadline counts from here. When it passes before a byte was sent, that is FAULT_CONNECT. A
 * repeatable call goes out again unasked when a kept-alive connection dies without a byte of an
 * answer; any other is FAULT_LOST then. */
void http_send(struct http *, uint64_t id, struct call *call);

/* No reply will come for id. Unknown ids are ignored (the reply had been given already). */
void http_cancel(struct http *, uint64_t id);

/* Every call that no socket has seen yet is answered with FAULT_CONNECT (used after a freeze). */
void http_drop_unsent(struct http *);

size_t http_in_flight(const struct http *);

#endif
