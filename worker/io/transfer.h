/* One call on its way: a reusable libcurl easy handle and what came back so far. Knows no loop and
 * no multi handle; http.c says when, shard.c says where. Internal to the http module. */
#ifndef WORKER_IO_TRANSFER_H
#define WORKER_IO_TRANSFER_H

#include <curl/curl.h>
#include <openssl/x509_vfy.h>
#include <sys/queue.h>

#include "common/buf.h"
#include "common/maps.h"
#include "worker/io/loop.h"
#include "worker/io/resolving.h"
#include "worker/provider/provider.h"

struct connect_to;
struct shard;
struct transfer;
TAILQ_HEAD(transfer_list, transfer);

#define REPLY_HEADERS_MAX 32

struct transfer_setup { /* what all handles share; borrowed for their lives */
    bool allow_http;
    const char *user_agent;
    const struct connect_to *connect_to;       /* NULL: hosts are where their names say */
    X509_STORE *(*trusted)(struct transfer *); /* the certificates; called inside libcurl */
    CURLSH *shared;
    void (*grew)(struct transfer *); /* more of a stream's body is there; called inside libcurl */
    struct resolving *resolving;     /* [own_host] */
};

struct transfer {
    const struct transfer_setup *setup; /* borrowed */
    CURL *easy;
    bool own_host; /* which of the two sets of constant options the handle has */

    /* of http.c */
    uint64_t id;
    UT_hash_handle by_id;
    struct http *http;            /* borrowed */
    struct transfer_list *list;   /* the list it is on */
    TAILQ_ENTRY(transfer) link;   /* in that list */
    TAILQ_ENTRY(transfer) growth; /* in http's list of grown streams */
    bool grown;                   /* it is on that list */
    struct timer *deadline;       /* owned */
    struct shard *shard;          /* not NULL: libcurl has it */

    /* the request */
    struct call call; /* owned */
    struct buf lines; /* "name: value" of each header, each with a NUL */
    struct curl_slist nodes[CALL_HEADERS_MAX + 2];
    bool posts;     /* the handle is set to POST, not to GET */
    bool custom;    /* CUSTOMREQUEST is set */
    bool closes;    /* FORBID_REUSE is set */
    bool waits;     /* PIPEWAIT is set */
    unsigned sends; /* how often libcurl began to send it */
    bool resolving; /* it waits for a name server */

    /* the answer */
    enum fault fault;
    const char *fault_text; /* NULL: see error */
    bool too_large, bad_address;
    int socket_errno; /* why there was no socket; 0: there was */
    int status;
    size_t header_bytes;
    struct buf kept; /* "name" NUL "value" NUL of the headers that are kept */
    size_t n_kept;
    struct buf body;
    char error[CURL_ERROR_SIZE];
};

struct transfer *transfer_new(const struct transfer_setup *, bool own_host);
void transfer_free(struct transfer *); /* NULL allowed; it is in no multi handle */

/* Takes the call over and sets the handle up. False: it cannot be sent; fault and text are set. */
bool transfer_begin(struct transfer *, struct call *);

/* libcurl is through with it: sets fault and text from its code. */
void transfer_judge(struct transfer *, CURLcode);

/* Some byte of the request was handed to a socket. */
bool transfer_was_sent(const struct transfer *);

/* The answer so far. Borrows from the transfer and from headers. */
void transfer_reply(const struct transfer *, struct reply *out,
                    struct reply_header headers[REPLY_HEADERS_MAX]);

/* Ends the call (call_done) and makes the transfer ready for the next. */
void transfer_clear(struct transfer *);

/* IMF-fixdate ("Sun, 06 Nov 1994 08:49:37 GMT") to ms since 1970; 0: it is none. */
uint64_t http_date_ms(const char *text);

#endif
