/* The provider's side of a session: what to say next and what an answer means.
 *
 * A provider is one file and one line in providers[] (provider.c). It is pure: it builds requests
 * (struct call) and judges answers (struct reply); it sends nothing, reads no clock and keeps what
 * it must remember in the box. The engine (worker/core) knows facts and phases only; how many
 * requests a phase takes, and which, is the provider's business.
 *
 * One deal has two slots. Slot 0 is the phase's main line; slot 1 runs beside it (a preview URL
 * during LAUNCH, the exit code during PROBE). The engine asks an idle slot whenever something
 * changed, sends what it gets, and hands the answer back with the call's `what`. When the phase
 * changes, calls of the phase before are cancelled: so a provider sets the fact that ends a phase
 * only when the calls it still needs are answered. */
#ifndef WORKER_PROVIDER_PROVIDER_H
#define WORKER_PROVIDER_PROVIDER_H

#include "common/base.h"
#include "common/config.h"
#include "common/wire.h"

enum phase {
    FIND,   /* look for the session's sandbox: LOOKED, and EXISTS … if there is one */
    CREATE, /* EXISTS: made, or found by its name after a conflict */
    START,  /* RUNS: wait while the state is transient, start it when it is at rest */
    LAUNCH, /* SERVER: the server was started in it and its URL is known */
    PROBE, /* ANSWERS: right body through the public URL; after KEPT: ACCEPTS, the same with the key
            */
    KEEP,  /* KEPT: the user's intervals are set */
    STOP,  /* RESTS: does not run any more; GONE as well when that destroyed it */
    DELETE, /* GONE */
    N_PHASES
};

enum fact {
    EXISTS = 1, /* the box has an id, and the last look saw it */
    OURS = 2,   /* set by the engine, never by a provider */
    RUNS = 4,
    SERVER = 8,
    ANSWERS = 16,
    KEPT = 32, /* autoDeleteInterval is not 0 */
    ACCEPTS = 64,
    GONE = 128,
    LOOKED = 256, /* FIND got its answer */
    RESTS = 512,
};

enum verdict {
    OK,     /* facts are up to date: ask for the next request */
    AGAIN,  /* not true yet: the same again after after_ms; `code`, if set, names a deadline's
               failure */
    RETRY,  /* went wrong, may pass: costs an attempt; not before after_ms */
    LOST,   /* this box is beyond use: forget its facts, begin again; costs an attempt */
    REFUSE, /* went wrong for good: code */
};

#define SLOTS 2
#define SCOPE_FREE UINT8_MAX /* a call that no rate limit counts */
#define SCOPES_MAX 4

/* One class of requests that the provider limits together. */
struct scope {
    const char *name; /* as in the provider's headers and our metrics */
    bool creates;     /* its budget is what a start waits for, parked */
};

#define CALL_HEADERS_MAX 8
struct call {
    unsigned what;      /* the provider's own name of the request */
    const char *method; /* static */
    char *url;          /* owned; secrets never stand in it */
    struct {
        const char *name; /* static */
        char *value;      /* owned; may be secret */
    } headers[CALL_HEADERS_MAX];
    size_t n_headers;
    const char *content_type; /* static; set whenever there is a body */
    char *body;               /* owned; NULL: none; may hold secrets */
    size_t body_len;
    uint8_t scope;       /* index into ops->scopes, or SCOPE_FREE */
    bool repeatable;     /* may be sent again when no answer came */
    bool stream;         /* answer() sees the body grow (reply.more) */
    bool own_host;       /* the sandbox's own host name: see http.h */
    bool close_on_2xx;   /* a 2xx is the last that is asked of that host for a while */
    uint32_t timeout_ms; /* how long the whole exchange may take; a server may hold it that long */
    uint32_t max_reply;  /* bytes of body; more is FAULT_TOO_LARGE */
};
void call_init(struct call *, unsigned what, const char *method); /* zero but for sane limits */
void call_header(struct call *, const char *name,
                 const char *value); /* copies value; bytes < 0x20 and 0x7f: ASSERT, check before */
bool header_value_valid(const char *value); /* no control bytes */
void call_done(struct call *);

enum fault {
    FAULT_NONE,
    FAULT_CONNECT,   /* not connected, no TLS, no DNS: nothing was sent */
    FAULT_LOST,      /* sent, at least in part, and no whole answer */
    FAULT_TIMEOUT,   /* sent, perhaps; timeout_ms went by */
    FAULT_TOO_LARGE, /* the answer exceeded max_reply */
    FAULT_REFUSED,   /* our own side would not send it (bad url, bad header) */
    N_FAULTS
};

struct reply_header {
    const char *name; /* lower case */
    const char *value;
};
struct reply { /* all borrowed, valid during the call */
    enum fault fault;
    int status; /* 0 with a fault */
    const struct reply_header
        *headers; /* only content-type, location, retry-after*, x-ratelimit-*, date */
    size_t n_headers;
    const char *body; /* NUL-terminated beyond body_len; never NULL without a fault */
    size_t body_len;
    bool more;              /* of a stream: not the end yet */
    uint64_t date_ms;       /* the Date header; 0: none */
    const char *fault_text; /* with a fault: the library's words; may be NULL */
};
const char *reply_header(const struct reply *, const char *name); /* NULL: absent */

/* What the provider's limiter said in an answer. */
struct rate {
    uint32_t retry_after_ms;       /* > 0: the scope is blocked that long */
    int limit, remaining, reset_s; /* -1: not said */
    bool unauthorized;             /* the key itself was refused (401) */
};

struct answer { /* zero-initialised by the engine; answer_done frees */
    enum verdict verdict;
    uint32_t set, clear; /* facts */
    uint32_t after_ms;
    enum error_code code;
    int http_status;
    char *message; /* owned: our words */
    char *
        provider_message; /* owned: the provider's own words, cut to 1000 bytes; not yet redacted */
    struct rate rate;
};
void answer_done(struct answer *);

enum box_state { BOX_UNKNOWN, BOX_TRANSIENT, BOX_RUNS, BOX_RESTS, BOX_ERROR, BOX_GONE };

struct box_url {
    char *name, *url; /* owned */
    int port;
};

/* A sandbox as a job sees it. The provider writes it, but for the fields marked "engine". All
 * strings are owned and may be NULL. A provider that needs more embeds it as the first member. */
struct box {
    char *id;
    char *name;    /* as we ask for it: "<fleet>.<session_id>" */
    char *hint_id; /* engine: ask by this id first (the job's sandbox.id, or the lane's memory) */
    enum box_state state;
    char *state_name; /* the provider's own word */
    bool provisional; /* autoDeleteInterval was 0 at the last look */
    bool maybe_kept;  /* a KEEP was sent and no look by id has come back since */
    bool mine;        /* made by this very job: answered create, or label …/job names it */
    bool ours;        /* labels say this fleet and this session */
    char *label_job, *label_spec, *label_session;
    char *created_at, *target, *spec_id;
    bool warm;
    bool was_there; /* engine: kept when this job first saw it */

    char *url;            /* of the server's port */
    char *preview_token;  /* secret */
    struct box_url *urls; /* all exposed ones, the server's first */
    size_t n_urls;
    char *vscode_url, *vscode_token;
    char *session_key; /* that the server got or accepted; secret */
    char *command_id;
    int exit_code;
    bool exited;
    char *log_tail;    /* not yet redacted */
    bool started_here; /* engine: RUNS was seen once by this job (then START's step is "start") */
};

/* One job's business with one sandbox, as it stands when a question is put. */
struct deal {
    const struct provider *provider;
    const struct job *job; /* NULL: a destroy without a job */
    struct box *box;
    enum phase phase;
    unsigned slot;
    uint32_t facts;
    uint64_t now_ns, wall_ms;
    uint64_t phase_since_ns; /* when the phase was entered */
    bool late;               /* its time is over: what is under way is to be settled, no more */
};

enum asked {
    ASKED_CALL,    /* *call is to be sent; the engine owns it */
    ASKED_NOTHING, /* this slot has nothing to do until the other one is answered */
    ASKED_REFUSED, /* it cannot be said: *answer holds verdict REFUSE and why */
};

/* A look for everything of ours in one partition, or of one session. */
struct listing {
    const char *partition; /* "<topic>/<partition>" */
    const char *cursor;    /* NULL: first page */
};
struct listed {         /* one page; listed_done frees */
    struct box **boxes; /* owned, ours by fleet and partition label */
    size_t n;
    char *next; /* owned; NULL: that was the last page */
};

struct provider_ops {
    const char *type; /* as in the config */
    bool unique_names;
    struct scope scopes[SCOPES_MAX];
    size_t n_scopes;
    struct box *(*box_new)(const struct provider *);
    void (*box_free)(struct box *);   /* NULL allowed */
    void (*box_forget)(struct box *); /* as new, but name and hint_id stay */
    enum asked (*ask)(const struct deal *, struct call *, struct answer *);
    void (*answer)(const struct deal *, unsigned what, const struct reply *, struct answer *);
    void (*ask_list)(const struct provider *, const struct listing *, struct call *);
    void (*answer_list)(const struct provider *, const struct listing *, const struct reply *,
                        struct listed *, struct answer *);
    /* The cheapest authorised GET: is the key good (again)? answer: rate.unauthorized says. */
    void (*ask_key)(const struct provider *, struct call *);
    void (*answer_key)(const struct provider *, const struct reply *, struct answer *);
};

struct provider {
    const struct provider_ops *ops;
    const struct provider_config *cfg; /* borrowed */
    const struct config *config;       /* borrowed: fleet, topics, defaults */
    const char *topic;                 /* borrowed: jobs topic, part of the labels */
    char **keys;                       /* owned: session-key secrets, first signs */
    size_t n_keys;
};

/* The provider of cfg->providers[i]; NULL if its type is unknown (config checks that before). */
struct provider *provider_new(const struct config *cfg, size_t i);
void provider_free(struct provider *);
bool provider_known(const char *type);
void provider_types(struct buf *out); /* "daytona, …": all that are known */

void listed_done(const struct provider *, struct listed *);

#endif
