/* The model of Daytona: its API, the daemon in each sandbox and the preview proxy, as one pure
 * object.
 *
 * Knows no socket, no clock and no source of chance but its own seed: a request and the time go in,
 * a reply comes out with the time at which it is to be delivered. What a request did has happened
 * when model_request returns; a host that loses, delays or duplicates replies therefore shows a
 * client the same ambiguity a network does. Times are nanoseconds on the host's clock, from any
 * origin. */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "common/base.h"
#include "common/buf.h"

struct model;

enum model_profile {
    PROFILE_FAST,  /* no latency, quick boots, limits that nobody reaches */
    PROFILE_CLOUD, /* believable latency and boot times, limits of a large account */
    PROFILE_TIER1, /* as fast, with the rate limits of tier 1 */
};

struct model_options { /* all zero is a usable default, but for the two texts */
    enum model_profile profile;
    uint64_t seed;
    uint64_t wall_ms;     /* wall clock when the host's clock is 0 */
    const char *base_url; /* "http://127.0.0.1:3986"; borrowed for the call */
    const char *domain;   /* "localhost:3986": previews are http://<port>-<id>.<domain>; borrowed */
    const char *scenario; /* JSON text (README.md); NULL: none; borrowed */
    int64_t boot_ms;      /* create and start until started; 0: the profile's */
    int64_t server_ms;    /* exec until the server listens; 0: the profile's */
    int64_t stop_ms;      /* until stopped or archived; 0: the profile's */
    int64_t destroy_ms;   /* until destroyed; 0: as stop_ms */
    int64_t daemon_ms;    /* started until the inside can be reached; 0: the profile's */
    int64_t
        race_ms; /* how near a KEEP and a stop must be to overtake each other; 0: the profile's */
    int64_t list_lag_ms; /* the list shows what was true that long ago */
    int64_t window_ms;   /* of every rate limit; 0: 60 s */
    int general_limit, create_limit, lifecycle_limit,
        failed_auth_limit;  /* a window; 0: the profile's */
    int warm;               /* sandboxes ready in the pool; 0: no warm pool */
    int64_t pool_refill_ms; /* until the pool is full again; 0: it is not filled again */
    int cpu_quota, memory_quota, disk_quota; /* totals; 0: none */
};

struct sim_header {
    const char *name;
    const char *value;
};

struct sim_request { /* all borrowed for the call */
    const char *method;
    const char *target; /* path and query as sent */
    const char *host;   /* "" when there was none */
    const struct sim_header *headers;
    size_t n_headers;
    const char *body; /* NULL: none; need not end in NUL */
    size_t body_len;
    const char *peer; /* address; counts failed authentications; NULL: one for all */
};

#define SIM_REPLY_HEADERS 12
struct sim_reply {
    uint64_t token; /* of the request; never 0 */
    bool held;      /* nothing else is filled: model_advance will give the reply */
    bool lost;      /* at at_ns close the connection instead of answering */
    int status;
    uint64_t at_ns; /* when to deliver it; NEVER: keep the connection open without an answer */
    struct {
        const char *name; /* static */
        char *value;      /* owned */
    } headers[SIM_REPLY_HEADERS];
    size_t n_headers;
    struct buf body; /* owned */
};
void sim_reply_done(struct sim_reply *);

/* NULL, and a sentence in error, when the scenario cannot be read. */
#define MODEL_ERROR_SIZE 200
struct model *model_new(const struct model_options *, char error[MODEL_ERROR_SIZE]);
void model_free(struct model *);

/* Handles one request at time now_ns, which never goes back. Fills *out (the caller's to
 * sim_reply_done, also when held). */
void model_request(struct model *, uint64_t now_ns, const struct sim_request *,
                   struct sim_reply *out);

/* Lets time pass up to now_ns. True: a held reply is finished and is in *out; ask again. */
bool model_advance(struct model *, uint64_t now_ns, struct sim_reply *out);

/* When something happens by itself; NEVER: not before the next request. */
uint64_t model_next(const struct model *);

/* The client of a held request went away: its reply is dropped when it is finished. Unknown:
 * nothing. */
void model_forget(struct model *, uint64_t token);

/* How many replies are with the host and not yet delivered, as /_sim/stats shows them. */
void model_open_requests(struct model *, unsigned now_open);

/* A finished ledger line (no newline) for every sandbox whose name was freed, in order, goes to
 * sink. */
void model_on_destroyed(struct model *, void (*sink)(void *arg, const char *line, size_t len),
                        void *arg);

/* Hands every sandbox that still has its name to that sink, too: the end of the world. */
void model_close_ledger(struct model *);

/* Every sandbox ever made, in order: the ledger for a host that checks it after every step. */
struct sim_sandbox { /* all borrowed for the call */
    const char *id, *name /* as created */, *labels /* JSON */, *state;
    bool live;                /* it has its name */
    int64_t auto_delete;      /* 0: ephemeral; at the end, if it is not live */
    const char *destroyed_by; /* "delete" "stop" "auto_stop" "auto_delete"; NULL: live */
    unsigned servers_started;
};
void model_each_sandbox(const struct model *, void (*visit)(void *arg, const struct sim_sandbox *),
                        void *arg);

/* For hosts that compare states (explore): all that may still make a difference, and a chance that
 * depends on what there is and not on the way there. */
struct digest;
void model_digest(const struct model *, uint64_t now_ns, struct digest *);
void model_steady(struct model *);

/* The ledger as GET /_sim/ledger prints it. */
void model_ledger(const struct model *, struct buf *out);

#endif
