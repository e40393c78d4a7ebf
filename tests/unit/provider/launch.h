/* Worlds with a sandbox that runs, or a server that was launched in it. */
#ifndef TESTS_UNIT_PROVIDER_LAUNCH_H
#define TESTS_UNIT_PROVIDER_LAUNCH_H

#include "common/secret.h"
#include "tests/unit/provider/box.h"

#define TB "https://tb.example/toolbox/box-1/process"
#define SESSION "sw-e8bc163c82eee187" /* of "s1" */
#define CREATE_SESSION "POST " TB "/session"
#define READ_SESSION "GET " TB "/session/" SESSION
#define DELETE_SESSION "DELETE " TB "/session/" SESSION
#define EXEC "POST " TB "/session/" SESSION "/exec"
#define COMMAND "GET " TB "/session/" SESSION "/command/c-1"
#define TAIL "POST " TB "/execute"
#define PREVIEW "GET /sandbox/box-1/ports/8000/preview-url"
#define PREVIEW_VSCODE "GET /sandbox/box-1/ports/8001/preview-url"
#define PREVIEW_APP "GET /sandbox/box-1/ports/3000/preview-url"
#define PREVIEW_OF(port, token)                                                                    \
    "{\"sandboxId\":\"box-1\",\"url\":\"https://" port "-box-1.p.example/\",\"token\":\"" token    \
    "\"}"
#define READY "GET https://8000-box-1.p.example/ready"
#define ALIVE "GET https://8000-box-1.p.example/alive"
#define COUNT "GET https://8000-box-1.p.example/api/conversations/count"
#define UP "GET https://8000-box-1.p.example/up"

/* One url to fetch: the shortest launch. */
#define JOB                                                                                        \
    "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"custom\","           \
    "\"port\":8000,\"command\":[\"serve\"],\"health\":{\"path\":\"/up\","                          \
    "\"json\":{\"ok\":true,\"v\":{\"b\":[1],\"a\":2}}}}}"
#define HEALTHY "{\"extra\":1,\"v\":{\"a\":2,\"b\":[1]},\"ok\":true}"
#define V1_JOB                                                                                     \
    "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"v1\","               \
    "\"vscode_port\":8001,\"expose\":[{\"name\":\"APP\",\"port\":3000}]}}"
#define V0_JOB                                                                                     \
    "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"v0\","               \
    "\"port\":8000,\"vscode_port\":8001}}"

/* A world whose box was just made and runs, or was found running. */
static inline void fresh(const char *job)
{
    w = world_new(job);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO("started", "started", "0"),
          .set = EXISTS | RUNS},
         ENTER(LAUNCH));
}

static inline void found_running(const char *job)
{
    w = world_new(job);
    talk(w, ENTER(FIND),
         {.ask = "GET /sandbox/oh.s1",
          .status = 200,
          .body = DTO("started", "started", "-1"),
          .set = LOOKED | EXISTS | RUNS | KEPT},
         ENTER(LAUNCH));
}

/* One preview url; the last one completes the launch. */
static inline void fetch(const char *ask, const char *body, bool last)
{
    const struct line l = {.slot = 1,
                           .ask = ask,
                           .status = 200,
                           .body = body,
                           .verdict = last ? OK : AGAIN,
                           .set = last ? SERVER : 0};
    talk_line(w, &l);
}

/* A server of ours runs, and nobody has looked at it yet. */
static inline void launched(const char *job)
{
    fresh(job);
    talk(w, {.ask = CREATE_SESSION, .status = 201},
         {.ask = EXEC, .status = 202, .body = "{\"cmdId\":\"c-1\",\"exitCode\":null}"});
    bool one = w->job->server.kind == SERVER_CUSTOM, app = w->job->server.n_expose > 0;
    fetch(PREVIEW, PREVIEW_OF("8000", "tok-000001"), one);
    if (!one)
        fetch(PREVIEW_VSCODE, PREVIEW_OF("8001", "tok-000001"), !app);
    if (app)
        fetch(PREVIEW_APP, PREVIEW_OF("3000", "tok-000001"), true);
    enter(w, PROBE);
}

static inline void key_of(const char *secret, char out[HMAC_TEXT_SIZE])
{
    hmac_sha256_text(secret, strlen(secret), "box-1", 5, out);
}

#endif
