/* The messages of version 1: jobs read from records, events and dead letters written to messages.
 *
 * Knows the fields, their types, defaults and limits, CloudEvents and the header names; knows no
 * Kafka and no provider. The schemas in config/schema/ describe the same fields. Pure. */
#ifndef COMMON_WIRE_H
#define COMMON_WIRE_H

#include "common/base.h"
#include "common/buf.h"

struct config;

#define SESSION_ID_MAX 100
#define JOB_DEPTH_MAX 32
#define JOB_METADATA_MAX 8192   /* bytes of JSON text */
#define JOB_LABELS_MAX 16384    /* bytes, names and values together */
#define JOB_ENV_VALUE_MAX 32768 /* bytes of one value */
#define JOB_COMMAND_MAX 98304   /* bytes of the whole quoted startup command */

/* One list of step names everywhere: log field, metric label, error.step, timings_ms. */
enum step {
    STEP_QUEUE,
    STEP_FIND,
    STEP_CREATE,
    STEP_START,
    STEP_LAUNCH,
    STEP_PROBE,
    STEP_KEEP,
    STEP_STOP,
    STEP_DELETE,
    STEP_PUBLISH, /* the last only in logs and metrics */
    N_STEPS
};

/* error.code, a closed set. ERR_NONE is never printed. */
enum error_code {
    ERR_NONE,
    ERR_INVALID_JOB,
    ERR_EXPIRED,
    ERR_UNSUPPORTED,
    ERR_SESSION_EXISTS,
    ERR_NOT_FOUND,
    ERR_UNAUTHORIZED,
    ERR_FORBIDDEN,
    ERR_QUOTA_EXCEEDED,
    ERR_NO_CAPACITY,
    ERR_RATE_LIMITED,
    ERR_SNAPSHOT_NOT_FOUND,
    ERR_CREATE_FAILED,
    ERR_START_FAILED,
    ERR_START_TIMEOUT,
    ERR_LAUNCH_FAILED,
    ERR_BAD_COMMAND,
    ERR_SERVER_EXITED,
    ERR_SERVER_TIMEOUT,
    ERR_UNHEALTHY,
    ERR_PROVIDER_UNAVAILABLE,
    ERR_PROVIDER_PROTOCOL,
    ERR_DEADLINE_EXCEEDED,
    ERR_CANCELLED,
    ERR_POISON,
    ERR_INTERNAL,
    N_ERRORS
};

const char *step_name(enum step);        /* "create" */
const char *error_name(enum error_code); /* "create_failed" */
bool error_retryable(enum error_code);   /* may the same job succeed later? (error.retryable) */

enum job_type { JOB_START, JOB_STOP, JOB_DELETE };
enum job_mode { MODE_ENSURE, MODE_CREATE, MODE_ATTACH, MODE_RESUME };
enum server_kind { SERVER_V0, SERVER_V1, SERVER_CUSTOM, SERVER_NONE };
enum on_failure { FAIL_DELETE, FAIL_STOP, FAIL_KEEP };
enum on_drift { DRIFT_REUSE, DRIFT_FAIL };

struct pair { /* both owned */
    char *name;
    char *value;
};

struct volume { /* all owned; subpath may be NULL */
    char *id;
    char *mount_path;
    char *subpath;
};

struct exposed_port {
    char *name; /* owned */
    int port;
};

struct header {
    char *name;  /* owned */
    char *value; /* owned; may hold any bytes; NUL-terminated beyond len */
    size_t len;
};

/* A record as it came. All borrowed by whoever is given it, owned by whoever made it. */
struct record {
    const char *topic;
    int32_t partition;
    int64_t offset;
    uint64_t timestamp_ms; /* 0: none */
    const char *key;       /* NULL: none; not NUL-terminated */
    size_t key_len;
    const char *value; /* NULL: tombstone; not NUL-terminated */
    size_t value_len;
    const struct header *headers;
    size_t n_headers;
};

struct job {
    enum job_type type;
    int32_t partition;
    int64_t offset;
    uint64_t timestamp_ms; /* of the record; 0: none */

    char *session_id;
    char *job_id;
    char *event_id;  /* ce_id of its event: "<topic>/<partition>/<offset>" */
    char *tenant;    /* NULL: none */
    char *provider;  /* NULL: the first */
    char *metadata;  /* JSON text as it is echoed; NULL: none */
    char *spec_hash; /* 16 hex digits over `sandbox` and `server` as the user wrote them and the env
                        names */

    enum job_mode mode;
    struct {
        char *id, *snapshot, *image, *target, *os_user; /* each may be NULL */
        int cpu, memory_gib, disk_gib;                  /* 0: not given */
        bool public;
        struct pair *labels;
        size_t n_labels;
        struct volume *volumes;
        size_t n_volumes;
        int auto_stop_minutes; /* 0: never; defaults come from the config */
        int auto_archive_minutes;
        int auto_delete_minutes; /* -1: never */
        enum on_drift on_drift;
    } sandbox;
    struct {
        enum server_kind kind;
        int port, vscode_port;
        char *working_dir, *username, *browsergym_eval_env, *git_user_name,
            *git_user_email; /* the last three may be NULL */
        int user_id;
        bool enable_browser, debug;
        char **plugins;
        size_t n_plugins;
        char **command; /* custom: argv */
        size_t n_command;
        char *health_path; /* custom: NULL = none given */
        char *health_json; /* custom: JSON object text each member of which must be equal; NULL =
                              none */
        struct exposed_port *expose;
        size_t n_expose;
    } server;
    struct pair *env;
    size_t n_env;
    char *session_api_key; /* NULL: derived. Secret. */
    unsigned timeout_seconds;
    uint64_t deadline_ms;                                   /* wall clock; 0: none */
    uint64_t expires_at_ms;                                 /* wall clock; 0: none */
    unsigned create_seconds, start_seconds, launch_seconds; /* per-step limits */
    enum on_failure on_failure;

    bool secrets_known; /* set by job_parse: the redactor knows env values and key until job_free */

    char *unknown; /* members that were ignored, by their paths: "foo, sandbox.bar"; NULL: none; cut
                      after some */
    struct header *carried; /* traceparent, tracestate, baggage, correlation-id */
    size_t n_carried;
};

/* Why a record is not a job. */
struct refusal {
    enum error_code code; /* ERR_INVALID_JOB or ERR_UNSUPPORTED */
    char *message;    /* owned: field path, what is wrong, what is allowed. No env values, no raw
                         bytes. */
    char *session_id; /* owned; NULL when it cannot be read: then there is no failed event */
    char *job_id;     /* owned; NULL likewise */
    char *tenant;     /* owned; NULL: none or unreadable */
    char *metadata;   /* owned; NULL: none or unreadable */
};

/* Parses r. Returns the job (caller owns it), or NULL with *why filled (refusal_done it).
 * *unknown_fields counts members that were ignored. Size, depth, UTF-8, NUL and duplicate keys are
 * checked before anything is parsed. */
struct job *job_parse(const struct record *r, const struct config *cfg, struct refusal *why,
                      unsigned *unknown_fields);
void job_free(struct job *);
void refusal_done(struct refusal *);

/* ---- what goes out ---- */

enum destination { TO_RESULTS, TO_DEAD_LETTERS, TO_PROGRESS };

struct message {
    enum destination to;
    char *key; /* owned; NULL: none */
    size_t key_len;
    char *value; /* owned; NULL: tombstone */
    size_t value_len;
    struct header *headers; /* owned, with what they hold */
    size_t n_headers;
};
void message_done(struct message *);

enum event_type { EVENT_READY, EVENT_FAILED, EVENT_STOPPED, EVENT_DELETED, EVENT_PROGRESS };
enum outcome { OUTCOME_CREATED, OUTCOME_ADOPTED, OUTCOME_STARTED, OUTCOME_ATTACHED };
enum cleanup { CLEANUP_NONE, CLEANUP_SCHEDULED, CLEANUP_KEPT };

struct exposed_url {
    const char *name; /* AGENT_SERVER, VSCODE, WORKER_1 …, or the job's own names */
    const char *url;
    int port;
};

/* Everything an event may say; all borrowed. Unset pointers are left out or null as the type
 * demands. */
struct event {
    enum event_type type;
    const char *fleet;
    const char *event_id, *job_id, *session_id, *tenant, *provider, *metadata;
    const struct header *carried;
    size_t n_carried;
    uint64_t time_ms; /* wall clock */
    unsigned attempts, requests;
    bool with_secrets; /* events.secrets = "include" */

    struct {
        const char *id; /* NULL: no sandbox to speak of ("sandbox": null) */
        const char *name, *spec_id /* snapshot or image */, *created_at, *target;
        const char *session_api_key, *preview_token; /* secrets */
        enum outcome outcome;
        enum cleanup cleanup;
        const char *was; /* stopped/deleted: the state it was in; NULL: unknown */
        bool replaced, drift, warm;
        const struct exposed_url *urls;
        size_t n_urls;
    } sandbox;
    struct {
        bool present; /* false: "server": null */
        enum server_kind kind;
        const char *url, *working_dir, *command_id;
        int port;
    } server;
    struct {
        const char *url, *token; /* url NULL: "vscode": null; token is a secret and may be NULL */
    } vscode;
    uint64_t timings_ms[N_STEPS]; /* queue … keep are printed */
    uint64_t total_ms;

    struct {
        enum error_code code;
        enum step step;
        const char *message, *provider_message, *log_tail; /* the last two may be NULL */
        int http_status;                                   /* 0: null */
        bool retryable;
    } error;
    struct {
        const char *status; /* OpenHands RuntimeStatus name */
        enum step step;
        unsigned attempt;
        uint64_t elapsed_ms;
    } progress;
};

/* Prints e with its CloudEvents headers; *out is the caller's to message_done. */
void event_print(const struct event *e, struct message *out);

/* The dead letter of r: original bytes, key and headers plus __connect.errors.* headers. */
void dead_letter_print(const struct record *r, enum error_code code, const char *why,
                       struct message *out);

/* True when id is a session id we accept. */
bool session_id_valid(const char *id, size_t len);

#endif
