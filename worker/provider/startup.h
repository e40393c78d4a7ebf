/* The command that starts the server in a sandbox: V0, V1, or the user's argv, as one shell line in
 * which every value of the job is single-quoted. Pure; knows no provider. */
#ifndef WORKER_PROVIDER_STARTUP_H
#define WORKER_PROVIDER_STARTUP_H

#include "common/buf.h"
#include "common/wire.h"

/* Appends the server's own command with nothing around it: the V0 string is upstream's byte for
 * byte where no value needs quoting. */
void startup_command(struct buf *out, const struct job *job);

/* The whole line for an asynchronous exec in the foreground: env, session key, working folder, git
 * identity, output into log_path, stdin from /dev/null, all inside sh -c '…'. False: longer than
 * JOB_COMMAND_MAX. */
MUST_USE bool startup_line(struct buf *out, const struct job *job, const char *session_key,
                           const char *log_path);

/* text as one shell word: bare when it is [A-Za-z0-9@%+=:,./_-]+, else in single quotes. */
void shell_quote(struct buf *out, const char *text);

/* The health question of a server: its path, and the object members that the body must hold. */
struct health {
    const char *path; /* "/alive", "/ready" …; NULL: no question (server none) */
    const char *json; /* JSON object text, or NULL: any 2xx that is not text/html */
    const char *older_path, *older_json; /* asked instead when `path` is 404; NULL: nothing else */
    const char *key_path;                /* asked with X-Session-API-Key for ACCEPTS */
};
void startup_health(const struct job *job, struct health *out);

#endif
