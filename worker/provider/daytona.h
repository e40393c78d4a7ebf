/* Private to the files of the Daytona provider; nobody else includes it but provider.c.
 *
 * One exchange is a `struct turn`. A phase is a small script: `begin` says what each slot asks
 * first, every judge of an answer says what comes next (script.next) and gives the verdict. What a
 * refusal means is looked up in one table (daytona_rules.c). */
#ifndef WORKER_PROVIDER_DAYTONA_H
#define WORKER_PROVIDER_DAYTONA_H

#include "common/json.h"
#include "worker/provider/provider.h"

extern const struct provider_ops daytona_ops;

enum request {
    R_NONE, /* this slot has nothing to do now */
    R_GET_ID,
    R_GET_NAME,
    R_FIND_LABELS, /* list by session and fleet */
    R_CREATE,
    R_START,
    R_RECOVER,
    R_STOP,
    R_DELETE,
    R_AUTODELETE,
    R_AUTOSTOP,
    R_ACTIVITY,
    R_PREVIEW,
    R_CONFIG,
    R_LIST,  /* list by fleet and partition */
    R_CHECK, /* is the key good? */
    R_SESSION_CREATE,
    R_SESSION_GET,
    R_SESSION_DELETE,
    R_EXEC,
    R_COMMAND, /* has our command an exit code? */
    R_TAIL,
    R_PROBE,
    R_ACCEPT, /* the same with the session key */
    N_REQUESTS
};

enum daytona_scope { SCOPE_GENERAL, SCOPE_CREATE, SCOPE_LIFECYCLE };

/* How an AGAIN grows: see paces[] in daytona_rules.c. */
enum pace {
    PACE_ONCE,     /* hardly at all: only another request comes first */
    PACE_STATE,    /* a state that changes by itself */
    PACE_CACHE,    /* a stale 404 */
    PACE_BUSY,     /* destroying what is being changed */
    PACE_CAPACITY, /* no runners */
    PACE_QUOTA,
    PACE_TOOLBOX, /* the daemon is not up */
    PACE_PROBE,
    PACE_WATCH,    /* the exit code */
    PACE_ROTATION, /* after a start the old preview token is shown for 1 s */
    PACE_TOKEN,    /* the proxy remembers a refused token for 5 s */
    PACE_FLUSH,    /* activity is written every 10 s */
    PACE_HELD_OFF, /* the key is refused: the engine sends nothing before it is good again */
    N_PACES
};

/* What a phase has to remember while it lasts. */
struct script {
    bool entered;
    enum phase phase;
    uint64_t since_ns; /* with phase: which entry this is */
    enum request next[SLOTS];
    enum pace pace[SLOTS];
    uint32_t pause_ms[SLOTS];

    char *look_id;    /* FIND: asked for while the box has no id; owned */
    bool explicit_id; /* FIND: the job names that id */
    bool by_labels;   /* FIND: look_id comes from the list */
    size_t target;    /* CREATE: which of the targets */
    bool no_capacity; /* CREATE: one of them had no runners in this round */
    bool unsure;      /* CREATE: a POST may have made it, and no look came since */
    bool failed;      /* CREATE: "failed to start" has left a row behind */
    bool conflict;    /* CREATE: 409, and no look has found it since */
    uint64_t conflict_ns;
    bool started;        /* START: a start or recover was answered */
    bool recovered;      /* START: once */
    bool launched;       /* LAUNCH: a command of ours runs, or a server was found */
    bool reset;          /* LAUNCH: the toolbox session was deleted, once */
    unsigned tries;      /* LAUNCH: probes of a server that may be running already */
    unsigned redirects;  /* LAUNCH, PROBE */
    size_t key;          /* PROBE: which session key is tried */
    uint64_t look_ns;    /* LAUNCH, PROBE: last look at the sandbox's state */
    uint64_t tail_ns;    /* PROBE: last look at the server's log */
    enum request resume; /* LAUNCH, PROBE: what follows that look */
};

struct daytona_box {
    struct box box; /* first: the engine knows this part only */
    char *toolbox_url;
    char *label_key;    /* id of the secret that signed its session key */
    char *error_reason; /* the provider's words */
    bool recoverable;
    int auto_stop, auto_delete;
    uint64_t last_activity_ms; /* server's clock; 0: unknown */
    int64_t skew_ms;           /* server's clock minus ours */
    bool fresh;                /* made by a POST of this job and not restarted since */
    bool found_running;        /* it ran before this job did anything: look for a server first */
    bool older_health;         /* the health path was 404: ask the older one */
    bool own_command;          /* command_id is our own exec's */
    unsigned vanished;         /* times that the toolbox session went, and the server with it */
    bool exec_lost;            /* an exec may have run and was not answered */
    size_t n_commands;         /* of the toolbox session before our exec */
    uint64_t restarted_ns;     /* 0: never; its preview token is younger than that */
    struct script script;
};

static inline struct daytona_box *box_of(const struct deal *d)
{
    return CONTAINER_OF(d->box, struct daytona_box, box);
}

struct turn {
    const struct deal *deal;
    struct daytona_box *box;
    struct script *script;
    enum request request;
    const struct reply *reply;
    cJSON *json; /* the body; NULL: none, or not JSON */
    struct answer *answer;
};

#define LOG_PATH "/tmp/session-worker-server.log"
#define TOOLBOX_SESSION_SIZE 20

/* ---- daytona_rules.c: verdicts ---- */

/* Writes verdict, code and our words. */
void turn_say(struct turn *, enum verdict, enum error_code, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* AGAIN, after the slot's pause at this pace. */
void turn_again(struct turn *, enum pace, enum error_code, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* What this slot asks next; the verdict is untouched. */
void turn_next(struct turn *, enum request);
/* Another request comes next in this slot: OK. Bounded chains only: eight OK without a new fact are
 * an error. */
void turn_go(struct turn *, enum request);
/* The same in a chain that may repeat for long: AGAIN, almost at once. */
void turn_to(struct turn *, enum request);
/* A 2xx that cannot be understood. */
void turn_not_understood(struct turn *);
void judge_fault(struct turn *);
/* Every status that is not 2xx. */
void judge_refusal(struct turn *);
/* The limiter's headers and a refused key, for an API request of this scope. */
void read_rate(const struct reply *, enum daytona_scope, struct rate *);
bool in_words(const char *text, const char *words);

/* ---- daytona_parse.c: Daytona's objects ---- */

bool id_valid(const char *id);
/* https (http only when the API's own url is http), a host, no user, no byte that needs quoting. */
bool url_valid(const struct provider *, const char *url);
bool is_2xx(const struct reply *);
/* NULL: no JSON. Caller's to cJSON_Delete. */
cJSON *reply_parse(const struct reply *);
/* The provider's own words, at most 1000 bytes; NULL: none. Owned by the caller. */
char *reply_words(const struct reply *, const cJSON *json);
void set_text(char **field, const char *value);
/* The same, known to the redactor while it stands there. */
void set_short(char **field, const char *value);
void set_secret(char **field, const char *value);

enum read_what { READ_ALL, READ_STATE /* the intervals are of before */ };
/* False: not a sandbox of ours to use (no valid id, hostile url). Writes the box else. */
MUST_USE bool sandbox_read(struct turn *, const cJSON *dto, enum read_what);
/* The same without a deal. It is ours when its labels say this fleet and this session. */
MUST_USE bool sandbox_parse(const struct provider *, const char *session, const cJSON *dto,
                            enum read_what, struct daytona_box *);
const char *dto_label(const cJSON *dto, const char *name); /* NULL: absent */
bool dto_ours(const struct provider *, const char *session, const cJSON *dto);
enum box_state dto_state(const cJSON *dto);
/* The array of a list's answer, in both of its shapes; NULL: it is none. */
const cJSON *list_items(const cJSON *page);

#define LABEL_SESSION "OpenHands_SID"
#define LABEL_FLEET "session-worker/fleet"
#define LABEL_PARTITION "session-worker/partition"
#define LABEL_JOB "session-worker/job"
#define LABEL_SPEC "session-worker/spec"
#define LABEL_KEY "session-worker/key"
#define LABEL_TENANT "session-worker/tenant"
#define KEY_ID_LEN 8
void key_id(const char *secret, char out[KEY_ID_LEN + 1]);

/* ---- the phases: what they ask first (begin_), what they make of a look (seen) ---- */

void begin_find(const struct deal *, struct daytona_box *);
void begin_create(const struct deal *, struct daytona_box *);
void begin_start(const struct deal *, struct daytona_box *);
void begin_launch(const struct deal *, struct daytona_box *);
void begin_probe(const struct deal *, struct daytona_box *);
void begin_keep(const struct deal *, struct daytona_box *);
void begin_stop(const struct deal *, struct daytona_box *);
void begin_delete(const struct deal *, struct daytona_box *);
void alive_seen(struct turn *); /* LAUNCH and PROBE */
void keep_seen(struct turn *);
void stop_seen(struct turn *);
void delete_seen(struct turn *);

/* ---- daytona_sandbox.c: FIND, CREATE, START, and looks in all phases ---- */

#define TOKEN_MAX 1024 /* longer ones are no tokens */
#define UP (SERVER | ANSWERS | ACCEPTS)

void judge_look(struct turn *);   /* GET by id or name, 2xx */
void judge_absent(struct turn *); /* the same, 404 */
void judge_find_labels(struct turn *);
void judge_create(struct turn *);
void judge_start(struct turn *);

void then_look(struct turn *);     /* the answer alone does not say how things stand */
void then_conflict(struct turn *); /* create: the name is taken */
void then_look_if_unsure(struct turn *);
void then_look_failed(struct turn *); /* create: a row was left behind in error */
void then_next_target(struct turn *);
size_t create_targets(const struct deal *); /* at least 1 */

void box_gone(struct turn *);
const char *state_words(const struct box *); /* "the sandbox is …" */
bool is_stopping(const struct box *);
/* LOST, with the state as the reason. */
void turn_lost(struct turn *);
/* For a sandbox that has to run: true when it does not, and the verdict is given. */
bool look_again_or_lost(struct turn *);

/* ---- daytona_keep.c: KEEP, STOP, DELETE ---- */

void judge_keep(struct turn *);
void judge_activity(struct turn *);
void judge_stop(struct turn *);
void judge_gone(struct turn *);
int keep_auto_delete(const struct job *); /* minutes; -1: never */

/* ---- daytona_launch.c: LAUNCH ---- */

void judge_config(struct turn *);
void judge_session_create(struct turn *);
void judge_session_get(struct turn *);
void judge_session_delete(struct turn *);
void judge_exec(struct turn *);
void judge_preview(struct turn *);

void then_check_state(struct turn *); /* when the last look is old */
void then_check_now(struct turn *);
void then_commands(struct turn *);      /* 409: what runs in that session? */
void then_reset_session(struct turn *); /* it is dead or unknown: delete it and create, once */
void then_create_session(struct turn *);

void turn_launched(struct turn *); /* this slot's part of LAUNCH is done */
enum request first_of_toolbox(const struct daytona_box *);
void toolbox_session(const struct job *, char out[TOOLBOX_SESSION_SIZE]);
/* The port of the i-th URL that the job wants; false: no more. */
bool port_wanted(const struct job *, size_t i, const char **name, int *port);
/* Which of them a preview request of this deal is about. */
size_t preview_index(const struct deal *);
void drop_urls(struct box *);

/* ---- daytona_probe.c: PROBE ---- */

void judge_probe(struct turn *);
void judge_accept(struct turn *);
void judge_command(struct turn *);
void judge_tail(struct turn *);

/* The session key that a server we launch gets, and the one that PROBE tries at *index or behind
 * (NULL: none is left). Caller's to secret_wipe. */
char *launch_key(const struct deal *);
char *candidate_key(const struct deal *, const struct daytona_box *, size_t *index);
/* The health question as it is asked now. */
struct health;
void health_now(const struct deal *, const struct daytona_box *, struct health *);

/* ---- daytona_body.c: what is sent ---- */

/* The body of a request. False: it cannot be said, *answer says why. */
bool body_create(const struct deal *, struct buf *, struct answer *);
bool body_session(const struct deal *, struct buf *, struct answer *);
bool body_exec(const struct deal *, struct buf *, struct answer *);
bool body_tail(const struct deal *, struct buf *, struct answer *);
/* text as one segment of a path, or a value of a query. */
void add_encoded(struct buf *, const char *text);
/* "labels=…" for a list, encoded; value NULL: only the fleet. */
void add_label_filter(struct buf *, const struct provider *, const char *name, const char *value);

/* ---- daytona_list.c: the sweep ---- */

void daytona_ask_list(const struct provider *, const struct listing *, struct call *);
void daytona_answer_list(const struct provider *, const struct listing *, const struct reply *,
                         struct listed *, struct answer *);
void daytona_ask_key(const struct provider *, struct call *);
void daytona_answer_key(const struct provider *, const struct reply *, struct answer *);

/* ---- daytona.c ---- */

struct box *daytona_box_new(const struct provider *);
void daytona_box_free(struct box *);
/* An API call: base URL, authorization. path is added behind the base as it is. */
void api_call(const struct provider *, enum request, const char *path, struct call *);
/* What the request is about, for messages: "create the sandbox". */
const char *request_words(enum request);
bool request_repeatable(enum request);

#endif
