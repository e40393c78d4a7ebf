/* What the files of the model share; nobody else includes this. Read it from top to bottom: time,
 * the sandbox, the daemon inside it, the model, then the functions by file. */
#ifndef SIM_MODEL_IMPL_H
#define SIM_MODEL_IMPL_H

#include <cjson/cJSON.h>

#include "common/maps.h"

#include "tests/sim/model.h"

#define ID_SIZE 37    /* UUID and NUL */
#define TOKEN_SIZE 33 /* preview token and NUL */
#define BODY_MAX (64u << 20)
#define TEXT_MAX (1u << 20)

struct box;
struct call;

static inline uint64_t from_ms(uint64_t ms)
{
    return ms * NS_PER_MS;
}

/* ---- time: a heap of timers, each inside what it belongs to ---- */
struct timer {
    uint64_t at;                                  /* NEVER: not armed */
    size_t slot;                                  /* in the heap */
    void (*fire)(struct model *, struct timer *); /* with model->now == at */
};

/* ---- what a snapshot's name makes of a sandbox ---- */
enum boot {
    BOOT_WELL,
    BOOT_ERROR,
    BOOT_STUCK,
    BOOT_NO_RUNNERS,
    BOOT_QUOTA,
    BOOT_NOT_FOUND,
    N_BOOTS
};
enum server_fate {
    SERVER_WELL,
    SERVER_DIES,
    SERVER_SILENT,
    SERVER_WRONG_BODY,
    SERVER_BAD_COMMAND,
    N_FATES
};

struct script {
    char *name; /* owned; snapshot or sandbox */
    enum boot boot;
    enum server_fate server;
    int64_t boot_ms;   /* -1: the option's */
    int64_t server_ms; /* -1: the option's */
    int64_t stop_ms;   /* of stop and destruction; -1: the options' */
    int exit_code;     /* of a server that dies */
    bool recoverable;  /* of BOOT_ERROR: recover boots it */
    char *reason;      /* owned; errorReason of BOOT_ERROR; NULL: the usual one */
    UT_hash_handle hh;
};

/* ---- the sandbox ---- */
enum state {
    S_CREATING,
    S_RESTORING,
    S_DESTROYING,
    S_STARTED,
    S_STOPPED,
    S_STARTING,
    S_STOPPING,
    S_ERROR,
    S_BUILD_FAILED,
    S_PENDING_BUILD,
    S_BUILDING_SNAPSHOT,
    S_UNKNOWN,
    S_PULLING_SNAPSHOT,
    S_ARCHIVED,
    S_ARCHIVING,
    S_RESIZING,
    S_SNAPSHOTTING,
    S_FORKING,
    S_PAUSING,
    S_PAUSED,
    S_RESUMING,
    S_DESTROYED, /* never shown */
    N_STATES
};
enum desired { D_STARTED, D_STOPPED, D_DESTROYED, D_ARCHIVED };
enum ended_by { BY_NOBODY, BY_DELETE, BY_STOP, BY_AUTO_STOP, BY_AUTO_DELETE };

/* A request whose answer waits for the sandbox. */
struct hold {
    struct timer timer; /* 30 s */
    struct box *box;
    struct sim_reply reply; /* create: complete; start: without its body */
    const struct route *route;
    char *target; /* owned */
    bool creates, gone;
    int64_t auto_stop, auto_archive, auto_delete; /* start: of before */
    struct hold *prev, *next;
    UT_hash_handle hh; /* by token */
};

/* All sandboxes that carry one value of an indexed label. */
struct label_set {
    char *key; /* owned: "<label>=<value>" */
    struct box **boxes;
    size_t n, cap;
    unsigned live, peak_live;
    UT_hash_handle hh;
};

/* A sandbox's name, for ever: who has it now, and what look-ups remember of it. */
struct name {
    char *text;             /* owned */
    struct box *box;        /* NULL: free */
    uint64_t known_until;   /* a look-up by it succeeded less than 60 s ago */
    uint64_t missing_until; /* a look-up by it failed although known: it goes on failing */
    unsigned live, peak_live;
    UT_hash_handle hh;
};

struct token_memory { /* what the proxy remembers of one token */
    char token[TOKEN_SIZE];
    bool valid;
    uint64_t until;
};

enum { N_INDEXED = 2, N_TOKENS = 4, N_ROUTES_MAX = 64 };

struct box { /* all pointers owned but where noted */
    char id[ID_SIZE];
    char runner_id[ID_SIZE];
    UT_hash_handle hh;           /* by id */
    size_t number;               /* in model->boxes */
    char *first_name;            /* as created */
    char *name;                  /* as shown: DESTROYED_… at the end */
    struct name *entry;          /* borrowed; NULL once the name is free */
    const struct script *script; /* borrowed; NULL: ordinary */

    enum state state;
    enum desired desired;
    bool pending;                     /* a change of state is under way */
    bool pooled;                      /* waits in the warm pool: nobody's yet */
    bool zombie;                      /* its daemon is dead: nothing inside can be reached */
    bool counted_run, counted_stored; /* in the quotas */
    bool public, network_block, recoverable, has_runner;
    uint64_t locked_until;                     /* a warm one: taken by a create that was refused */
    char *labels, *env, *volumes, *build_info; /* JSON; labels may be "null" */
    char *snapshot, *user, *allow_list, *domain_list, *error_reason; /* may be NULL */
    const char *target;                                              /* static */
    int cpu, gpu, memory, disk;
    int64_t auto_stop, auto_archive, auto_delete;
    uint64_t created_ms, updated_ms, activity_ms; /* wall */
    uint64_t activity_shown_ms;                   /* as the database has it */
    uint64_t flush_ms;                            /* when activity_ms gets there */
    uint64_t touch_again_at;                      /* model time; the proxy reports no sooner */

    char token[TOKEN_SIZE], old_token[TOKEN_SIZE];
    uint64_t old_token_until; /* preview-url still answers the old one */
    struct token_memory tokens[N_TOKENS];
    unsigned next_token;

    struct timer life; /* end of the change under way */
    struct timer cron; /* auto-stop, auto-archive, auto-delete */
    struct hold *holds;
    uint64_t raced_until; /* it was stopped a moment ago: a KEEP may not have seen that */
    uint64_t kept_until;  /* it was kept a moment ago: a stop may not have seen that */
    bool recovered;       /* a recoverable one that boots now */
    bool doomed;          /* the cron has chosen it and destroys it, whatever comes in between */

    struct daemon *daemon; /* NULL: nothing asked of it since the last start */
    uint64_t started_at;   /* model time; NEVER: not up */

    struct label_set *sets[N_INDEXED]; /* borrowed */
    unsigned servers_started;
    int asked_port; /* of the first preview-url; 0: none yet */
    bool ephemeral_at_end;
    uint64_t destroyed_ms;
    enum ended_by ended_by;
    uint16_t requests[N_ROUTES_MAX];
};

/* ---- the daemon: sessions, commands, files. Commands are run to their end when they begin: what
 * they write and when they listen is noted with its time, and readers see what has come by now.
 * ---- */
struct proc {
    uint64_t ended; /* NEVER while it runs on */
    int exit_code;
    bool is_server;
    int port;              /* of a server; 0: asks for the first preview-url's */
    uint64_t listens_from; /* NEVER: does not */
    enum server_fate fate;
    enum { KIND_V0, KIND_V1, KIND_APP } kind;
    char *key; /* owned; session API key; NULL: open */
    bool vscode;
    char vscode_token[ID_SIZE];
};

struct chunk {
    uint64_t at;
    const struct proc *by; /* borrowed; NULL: nobody that can be killed */
    int tag;               /* 1 stdout, 2 stderr */
    char *text;            /* owned */
    size_t len;
};

struct stream {
    struct chunk *chunks;
    size_t n, cap;
};

struct file {
    char *path; /* owned */
    bool is_dir;
    uint64_t made_at;
    struct stream stream;
    UT_hash_handle hh;
};

struct var {
    char *name, *value; /* owned */
};
struct vars {
    struct var *v;
    size_t n, cap;
};

struct command {
    char id[ID_SIZE];
    char *text; /* owned */
    struct stream out;
    uint64_t began; /* NEVER: queued */
    uint64_t ended; /* NEVER: runs on */
    int exit_code;
    bool fatal; /* ended its shell: no exit code ever */
    bool async;
    uint64_t queued_at;
    struct proc *proc; /* borrowed from the daemon; NULL while queued */
};

struct shell_session {
    char *id; /* owned */
    struct command **commands;
    size_t n, cap;
    uint64_t dead_at; /* its shell is gone; NEVER: lives */
    struct vars vars;
    char *cwd;           /* owned */
    struct proc **procs; /* borrowed from the daemon */
    size_t n_procs, cap_procs;
    bool ignores_term;
    struct shell_session *prev, *next;
};

struct daemon {
    struct shell_session *sessions;
    struct file *files;
    struct proc **procs; /* owned */
    size_t n_procs, cap_procs;
};

/* ---- the model ---- */
enum scope { SCOPE_NONE, SCOPE_GENERAL, SCOPE_CREATE, SCOPE_LIFECYCLE, SCOPE_ANONYMOUS, N_SCOPES };

struct limit {
    unsigned max, used;
    uint64_t ends;          /* of the window */
    uint64_t blocked_until; /* 0: not */
};

struct peer {
    char *address; /* owned */
    struct limit failures;
    UT_hash_handle hh;
};

struct fault {
    char *method, *path; /* owned; NULL: any */
    unsigned nth;        /* begins with the nth match; 0 and 1: the first */
    unsigned seen;
    unsigned times; /* left */
    enum { FAULT_LOSE_ANSWER, FAULT_LOSE_REQUEST, FAULT_STATUS, FAULT_DELAY } what;
    int status;
    uint64_t delay_ns;
};

struct status_count {
    int status;
    uint64_t n;
};
struct route_stats {
    struct status_count by_status[12];
    size_t n;
};

struct violation {
    char *text; /* owned */
    uint64_t n;
    UT_hash_handle hh;
};

struct model {
    struct model_options opt; /* texts: owned copies */
    uint64_t now;             /* model time: the host's plus skew */
    uint64_t skew;
    uint64_t rng[2];
    uint64_t last_token;
    char organization_id[ID_SIZE], runner_id[ID_SIZE];
    int64_t boot_ms, server_ms, stop_ms, destroy_ms, daemon_ms,
        race_ms; /* in force; cloud: medians */

    struct timer **heap;
    size_t n_heap, cap_heap;

    struct box **boxes; /* every one ever made, in order */
    size_t n_boxes, cap_boxes;
    struct box *by_id; /* those that a look-up may still find */
    struct name *names;
    struct label_set *sets;
    struct script *snapshots, *box_scripts;
    struct signed_url *signed_urls;

    struct hold *held; /* by token */
    struct sim_reply *finished;
    size_t n_finished, cap_finished, first_finished;

    struct limit limits[N_SCOPES];
    struct peer *peers;
    bool suspended;
    uint64_t suspended_seen; /* when the refusals begin */
    bool runner_down;
    char region_rule[32];

    struct box **pool; /* warm ones, not yet given out */
    size_t n_pool, cap_pool;
    uint64_t pool_skip_until;
    struct timer pool_refill;
    int used_cpu, used_memory, used_disk;

    struct fault *faults;
    size_t n_faults, cap_faults;
    struct route_stats stats[N_ROUTES_MAX];
    struct violation *violations;
    unsigned live, peak_live, peak_open;
    uint64_t lost;

    void (*on_destroyed)(void *, const char *, size_t);
    void *on_destroyed_arg;
};

struct signed_url {
    char token[17];
    char id[ID_SIZE];
    int port;
    uint64_t until;
    UT_hash_handle hh;
};

/* ---- one request on its way through ---- */
enum { N_SEGMENTS = 14, N_QUERY = 24 };
struct call {
    struct model *m;
    const struct sim_request *rq;
    struct sim_reply *re;
    const struct route *route; /* NULL until found */
    char *path;                /* owned; without the query, not decoded */
    char *segment_text;        /* owned; what the segments point into */
    char *segments[N_SEGMENTS];
    size_t n_segments;
    char *query_text; /* owned */
    struct {
        char *name, *value;
    } query[N_QUERY];
    size_t n_query;
    size_t first;    /* segment at which the route begins */
    cJSON *body;     /* owned; NULL: none or not JSON */
    struct box *box; /* the one it was about, for the ledger */
    bool read_only;
    bool json_type;
};

enum family { FAMILY_API, FAMILY_TOOLBOX, FAMILY_CONTROL };
struct route {
    enum family family;
    const char *method;
    const char *pattern; /* "/sandbox/'*'/stop" */
    const char *kind;    /* as statistics and ledger name it */
    enum scope scope;
    bool writes;
    void (*handle)(struct call *);
};

/* model.c */
void timer_arm(struct model *, struct timer *, uint64_t at);
void timer_disarm(struct model *, struct timer *);
uint64_t model_random(struct model *);
double model_uniform(struct model *); /* [0, 1) */
uint64_t wall_ms(const struct model *);
uint64_t latency(struct model *, int64_t median_ms, double spread); /* ns; 0 but for the cloud */
void finish_reply(struct model *, struct sim_reply *);
void make_id(struct model *, char out[ID_SIZE]);
void make_token(struct model *, char *out, size_t n, const char *alphabet);
extern const char dashboard_url[];
extern const char alphabet_token[], alphabet_signed[];

/* model_call.c: parsing, replies */
void call_parse(struct call *);
void sim_call_done(struct call *);
const char *sim_call_header(const struct call *, const char *name); /* NULL: none */
const char *call_segment(const struct call *, size_t wildcard);     /* nth '*' of the route */
const char *call_query(const struct call *, const char *name);      /* NULL: none */
void call_read_body(struct call *);
void sim_reply_header(struct sim_reply *, const char *name, const char *value);
void reply_json(struct call *, int status); /* content type of the API, body still to come */
void api_error(struct call *, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);
void go_error(struct call *, int status, const char *fmt, ...)
    PRINTF_LIKE(3, 4); /* of proxy and daemon */
void text_reply(struct call *, int status, const char *type, const char *text);
void empty_reply(struct call *, int status);
const char *reason_phrase(int status);

/* model_limits.c */
bool limit_take(struct call *);   /* false: answered 429 */
bool authenticate(struct call *); /* false: answered */
bool peer_blocked(struct call *); /* true: answered 429 */
bool key_valid(const char *authorization);

/* model_routes.c */
extern const struct route routes[];
extern const size_t n_routes;
const struct route *route_find(struct call *, enum family);
void route_count(struct model *, const struct route *, int status);
enum special { KIND_PREVIEW, KIND_OTHER, N_SPECIAL };
extern const struct route special_routes[N_SPECIAL];
size_t route_index(const struct route *);
const char *route_kind(size_t index); /* NULL: no more */

/* model_box.c: life */
struct box *box_new(struct model *);
void box_free(struct box *);
void box_init_timers(struct box *);
void box_moved(struct model *, struct box *);          /* after every change of state */
void box_hand_out(struct model *, const struct box *); /* its ledger line, to the sink */
void answer_holds(struct model *, struct box *);
void box_unlist(struct model *, struct box *); /* gone: no look-up meets it again */
void box_name(struct model *, struct box *, const char *name);
void box_label(struct model *, struct box *, char *labels_json);
struct label_set *box_label_set(struct model *, const char *label,
                                const char *value); /* NULL: none */
bool box_hidden(const struct box *);
struct box *box_find(struct model *, const char *id_or_name);
void box_begin_boot(struct model *, struct box *);
void box_begin_build(struct model *, struct box *);
void box_begin_start(struct model *, struct box *);
void box_begin_archive(struct model *, struct box *);
void box_begin_stop(struct model *, struct box *, enum ended_by);
void box_begin_destroy(struct model *, struct box *, enum ended_by);
void box_arm_cron(struct model *, struct box *);
void box_touch(struct model *, struct box *);
void box_flush(const struct model *, struct box *);
void box_hold(struct model *, struct box *, struct call *, bool creates);
void box_fail(struct model *, struct box *, const char *reason);
void box_restart_daemon(struct model *, struct box *); /* sessions and servers are lost */
void box_crash(struct model *, struct box *);          /* its container dies by itself */
bool box_live(const struct box *);
const char *desired_name(enum desired);
extern const char *const state_names[N_STATES];
void release_hold(struct model *, struct hold *);
void ledger_line(const struct box *, struct buf *out);

/* model_print.c */
enum dto { DTO_FULL, DTO_CREATED, DTO_STOPPED, DTO_LISTED };
void box_print(const struct model *, const struct box *, enum dto, struct buf *out);
const char *box_shown_state(const struct box *);

/* model_create.c, model_api.c, model_list.c */
void api_create(struct call *);
void api_get(struct call *), api_delete(struct call *), api_start(struct call *),
    api_stop(struct call *), api_recover(struct call *), api_archive(struct call *),
    api_pause(struct call *), api_labels(struct call *), api_interval(struct call *),
    api_public(struct call *), api_activity(struct call *), api_preview(struct call *),
    api_signed(struct call *), api_signed_expire(struct call *), api_toolbox_url(struct call *),
    api_config(struct call *), api_health(struct call *), api_resize(struct call *);
void api_list(struct call *), api_paginated(struct call *);
void pool_drain(struct model *), pool_fill(struct model *), pool_skip(struct model *);
struct box *pool_take(struct call *, const char *snapshot);

/* model_daemon.c, model_execute.c */
const char *daemon_json_fault(const struct call *); /* what is wrong with the body, in Go's words */
void daemon_parse_body(struct call *);
bool daemon_blank(const char *text);
void daemon_print_output(struct buf *, const struct stream *, uint64_t now,
                         int tag); /* tag 0: all */
void daemon_free(struct daemon *);
struct daemon *box_daemon(struct box *);
void tb_version(struct call *), tb_session_create(struct call *), tb_session_list(struct call *),
    tb_session_get(struct call *), tb_session_delete(struct call *), tb_exec(struct call *),
    tb_command(struct call *), tb_logs(struct call *), tb_input(struct call *),
    tb_execute(struct call *), tb_port(struct call *), tb_work_dir(struct call *),
    tb_file_info(struct call *);
void daemon_settle(struct model *, struct box *);
struct proc *daemon_proc(struct daemon *,
                         struct shell_session *); /* a new one; session may be NULL */
struct proc *daemon_listener(struct model *, struct box *, int port);

/* model_files.c */
#define STREAM_CUT (-1) /* tag: what was written before is gone */
extern const char home_directory[];
void stream_add(struct stream *, uint64_t at, const struct proc *by, int tag, const char *text,
                size_t len);
void stream_read(const struct stream *, uint64_t now, int tag, struct buf *out); /* tag 0: all */
void stream_done(struct stream *);
struct file *file_find(struct daemon *, const char *path, uint64_t now); /* NULL: not there yet */
struct file *file_make(struct daemon *, const char *path, uint64_t now, bool is_dir);
void file_remove(struct daemon *, const char *path);
char *path_join(const char *cwd, const char *path); /* caller owns */

/* model_server.c */
void server_answer(struct call *, const struct proc *);

/* model_proxy.c */
bool proxy_is_preview(const struct call *);
void proxy_preview(struct call *);
void proxy_toolbox(struct call *);

/* model_control.c */
void control_ledger(struct call *), control_stats(struct call *), control_faults(struct call *),
    control_clear_faults(struct call *), control_clock(struct call *), control_world(struct call *);
const struct fault *fault_take(struct model *, const struct sim_request *);
void violation(struct model *, const char *fmt, ...) PRINTF_LIKE(2, 3);
bool scenario_load(struct model *, const char *text, char error[MODEL_ERROR_SIZE]);
const struct script *script_for(const struct model *, const char *snapshot, const char *name);

#endif
