/* wire_spec: what a job asks for, its sandbox and its server. See wire.h and wire_fields.h. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/wire_fields.h"
#include "common/xalloc.h"

#define PATH_LIMIT 1024     /* bytes of a path in the sandbox or of a URL */
#define ARGUMENTS_MAX 256   /* of server.command */
#define LIST_MAX 16         /* volumes, plugins, exposed ports */
#define MINUTES_MAX 5256000 /* ten years */

/* ---- sandbox ---- */

static void read_resources(struct fields *f, struct json_reader *sandbox)
{
    static const char *const names[] = {"cpu", "memory_gib", "disk_gib"};
    struct json_reader r =
        wire_enter(f, sandbox, "resources", "sandbox.resources", names, ARRAY_LEN(names));
    wire_take_int(&r, "cpu", 1, 1024, &f->job->sandbox.cpu);
    wire_take_int(&r, "memory_gib", 1, 65536, &f->job->sandbox.memory_gib);
    wire_take_int(&r, "disk_gib", 1, 65536, &f->job->sandbox.disk_gib);
    if (r.object && !f->job->sandbox.image)
        json_fail(sandbox, "resources", "needs sandbox.image: a snapshot has its own");
}

/* Ours say whose the sandbox is. */
static bool is_reserved_label(const char *name)
{
    static const char prefix[] = "session-worker/";
    return strcmp(name, "OpenHands_SID") == 0 || strncmp(name, prefix, sizeof prefix - 1) == 0;
}

static void read_labels(struct fields *f, struct json_reader *sandbox)
{
    const cJSON *object = NULL;
    json_read_object(sandbox, "labels", &object);
    struct json_reader r = {object, "sandbox.labels", f->error};
    size_t bytes = 0, n = object ? (size_t)cJSON_GetArraySize(object) : 0;
    f->job->sandbox.labels = xcalloc(n, sizeof(struct pair));
    for (const cJSON *m = object ? object->child : NULL; m && !json_failed(&r); m = m->next) {
        if (!cJSON_IsString(m)) {
            json_fail(&r, m->string, "must be a string");
        } else if (is_reserved_label(m->string) || !*m->string) {
            json_fail(&r, m->string,
                      "must be another name: OpenHands_SID and session-worker/* are taken");
        } else {
            bytes += strlen(m->string) + strlen(m->valuestring);
            wire_add_pair(&f->job->sandbox.labels, &f->job->sandbox.n_labels, m->string,
                          m->valuestring);
        }
    }
    if (bytes > JOB_LABELS_MAX)
        json_fail(sandbox, "labels", "must not be larger than %d bytes", JOB_LABELS_MAX);
}

static void read_volume(struct fields *f, const cJSON *object, size_t i)
{
    static const char *const names[] = {"id", "mount_path", "subpath"};
    char path[32];
    snprintf(path, sizeof path, "sandbox.volumes[%zu]", i);
    struct json_reader r = {object, path, f->error};
    struct volume *v = &f->job->sandbox.volumes[f->job->sandbox.n_volumes++];
    if (!cJSON_IsObject(object)) {
        json_fail(&r, NULL, "must be an object");
        return;
    }
    wire_note_unknown(f, &r, names, ARRAY_LEN(names));
    wire_take(&r, "id", WIRE_NAME_MAX, &v->id);
    wire_take(&r, "mount_path", PATH_LIMIT, &v->mount_path);
    wire_take(&r, "subpath", PATH_LIMIT, &v->subpath);
    if (!v->id || !v->mount_path)
        json_fail(&r, NULL, "must have id and mount_path");
    wire_require_absolute(&r, "mount_path", v->mount_path);
}

static void read_volumes(struct fields *f, struct json_reader *sandbox)
{
    const cJSON *array;
    size_t i = 0;
    if (!json_read_array(sandbox, "volumes", LIST_MAX, &array))
        return;
    f->job->sandbox.volumes = xcalloc(LIST_MAX, sizeof(struct volume));
    for (const cJSON *m = array->child; m; m = m->next)
        read_volume(f, m, i++);
}

static void read_intervals(struct fields *f, struct json_reader *r)
{
    struct job *job = f->job;
    const int none = INT_MIN;
    int archive = none, auto_delete = none;
    wire_take_int(r, "auto_stop_minutes", 0, MINUTES_MAX, &job->sandbox.auto_stop_minutes);
    wire_take_int(r, "auto_archive_minutes", 0, MINUTES_MAX, &archive);
    wire_take_int(r, "auto_delete_minutes", -1, MINUTES_MAX, &auto_delete);
    if (auto_delete == 0)
        json_fail(r, "auto_delete_minutes", "must be -1 (never) or at least 1");
    if (auto_delete > 0 && archive == none) /* an archived sandbox is never deleted by itself */
        archive = auto_delete + 60;
    if (archive != none)
        job->sandbox.auto_archive_minutes = archive;
    if (auto_delete != none)
        job->sandbox.auto_delete_minutes = auto_delete;
}

void wire_read_id(struct fields *f, struct json_reader *r)
{
    char **id = &f->job->sandbox.id;
    wire_take(r, "id", WIRE_NAME_MAX, id);
    if (*id && (!wire_matches(*id, WIRE_NAME_MAX, ALNUM "._-") || !strchr(ALNUM, **id)))
        json_fail(r, "id", "must be letters, digits, '.', '_' and '-', a letter or digit first");
}

static void read_source(struct fields *f, struct json_reader *r)
{
    struct job *job = f->job;
    wire_take(r, "snapshot", WIRE_NAME_MAX, &job->sandbox.snapshot);
    wire_take(r, "image", PATH_LIMIT, &job->sandbox.image);
    if (job->sandbox.snapshot && job->sandbox.image)
        json_fail(r, "image", "must not be given together with snapshot");
    if (!job->sandbox.snapshot && !job->sandbox.image && *f->cfg->sandbox.snapshot)
        job->sandbox.snapshot = xstrdup(f->cfg->sandbox.snapshot);
}

void wire_read_sandbox(struct fields *f, struct json_reader *top)
{
    static const char *const names[] = {"id",
                                        "snapshot",
                                        "image",
                                        "target",
                                        "public",
                                        "resources",
                                        "os_user",
                                        "labels",
                                        "volumes",
                                        "auto_stop_minutes",
                                        "auto_archive_minutes",
                                        "auto_delete_minutes",
                                        "on_drift"};
    static const char *const drifts[] = {[DRIFT_REUSE] = "reuse", [DRIFT_FAIL] = "fail"};
    struct json_reader r = wire_enter(f, top, "sandbox", "sandbox", names, ARRAY_LEN(names));
    int drift = DRIFT_REUSE;
    wire_read_id(f, &r);
    read_source(f, &r);
    wire_take(&r, "target", WIRE_NAME_MAX, &f->job->sandbox.target);
    wire_take(&r, "os_user", WIRE_NAME_MAX, &f->job->sandbox.os_user);
    json_read_bool(&r, "public", &f->job->sandbox.public);
    read_resources(f, &r);
    read_labels(f, &r);
    read_volumes(f, &r);
    read_intervals(f, &r);
    json_read_enum(&r, "on_drift", drifts, ARRAY_LEN(drifts), &drift);
    f->job->sandbox.on_drift = (enum on_drift)drift;
    if (f->job->sandbox.id && f->job->mode != MODE_ATTACH && f->job->mode != MODE_RESUME)
        json_fail(&r, "id", "must come with mode attach or resume");
}

/* ---- server ---- */

static void read_texts(struct json_reader *r, const char *name, size_t max, char ***out, size_t *n)
{
    const cJSON *array;
    if (!json_read_array(r, name, max, &array))
        return;
    *out = xcalloc(max, sizeof **out);
    for (const cJSON *m = array->child; m && !json_failed(r); m = m->next) {
        if (cJSON_IsString(m))
            (*out)[(*n)++] = xstrdup(m->valuestring);
        else
            json_fail(r, name, "must be an array of strings");
    }
}

static void read_plugins(struct fields *f, struct json_reader *r)
{
    read_texts(r, "plugins", LIST_MAX, &f->job->server.plugins, &f->job->server.n_plugins);
    for (size_t i = 0; i < f->job->server.n_plugins; i++)
        if (!wire_matches(f->job->server.plugins[i], WIRE_NAME_MAX, ALNUM "_-"))
            json_fail(r, "plugins", "must be names of letters, digits, '_' and '-'");
}

/* exec and env would take anything else for an option or a variable. */
static bool is_program(const char *text)
{
    return *text && *text != '-' && !strchr(text, '=');
}

static void read_command(struct fields *f, struct json_reader *r)
{
    struct job *job = f->job;
    bool custom = job->server.kind == SERVER_CUSTOM;
    read_texts(r, "command", ARGUMENTS_MAX, &job->server.command, &job->server.n_command);
    if (custom && job->server.n_command == 0)
        json_fail(r, "command", "must be an array of 1 to %d strings for kind custom",
                  ARGUMENTS_MAX);
    if (!custom && job->server.n_command > 0)
        json_fail(r, "command", "must come with kind custom");
    if (job->server.n_command > 0 && !is_program(job->server.command[0]))
        json_fail(r, "command", "must begin with a program: not empty, no '-' first, no '='");
}

static void read_health(struct fields *f, struct json_reader *server)
{
    static const char *const names[] = {"path", "json"};
    struct job *job = f->job;
    const cJSON *members;
    struct json_reader r =
        wire_enter(f, server, "health", "server.health", names, ARRAY_LEN(names));
    wire_take(&r, "path", PATH_LIMIT, &job->server.health_path);
    wire_require_absolute(&r, "path", job->server.health_path);
    if (job->server.health_path && !wire_is_token(job->server.health_path))
        json_fail(&r, "path", "must be printable ASCII without spaces");
    if (r.object && !job->server.health_path)
        json_fail(&r, "path", "must be given");
    if (json_read_object(&r, "json", &members)) {
        struct buf b;
        buf_init(&b, JOB_METADATA_MAX);
        json_canonical(&b, members);
        if (b.overflow)
            json_fail(&r, "json", "must not be larger than %d bytes", JOB_METADATA_MAX);
        job->server.health_json = buf_steal(&b);
    }
    if (r.object && job->server.kind != SERVER_CUSTOM)
        json_fail(server, "health", "must come with kind custom");
}

static void read_git(struct fields *f, struct json_reader *server)
{
    static const char *const names[] = {"user_name", "user_email"};
    struct json_reader r = wire_enter(f, server, "git", "server.git", names, ARRAY_LEN(names));
    wire_take(&r, "user_name", WIRE_NAME_MAX, &f->job->server.git_user_name);
    wire_take(&r, "user_email", 256, &f->job->server.git_user_email);
}

static void read_exposed(struct fields *f, const cJSON *object, size_t i)
{
    static const char *const names[] = {"name", "port"};
    char path[32];
    snprintf(path, sizeof path, "server.expose[%zu]", i);
    struct json_reader r = {object, path, f->error};
    struct exposed_port *e = &f->job->server.expose[f->job->server.n_expose++];
    if (!cJSON_IsObject(object)) {
        json_fail(&r, NULL, "must be an object");
        return;
    }
    wire_note_unknown(f, &r, names, ARRAY_LEN(names));
    wire_take(&r, "name", 64, &e->name);
    wire_take_int(&r, "port", 1, 65535, &e->port);
    if (!e->name || e->port == 0)
        json_fail(&r, NULL, "must have name and port");
    else if (!wire_matches(e->name, 64, ALNUM "_-"))
        json_fail(&r, "name", "must be letters, digits, '_' and '-'");
    for (size_t j = 0; e->name && j < i; j++)
        if (f->job->server.expose[j].name && strcmp(f->job->server.expose[j].name, e->name) == 0)
            json_fail(&r, "name", "must not be there twice");
    if (e->name && (strcmp(e->name, "AGENT_SERVER") == 0 || strcmp(e->name, "VSCODE") == 0))
        json_fail(&r, "name", "must be another than AGENT_SERVER and VSCODE");
}

static void read_expose(struct fields *f, struct json_reader *server)
{
    const cJSON *array;
    size_t i = 0;
    if (!json_read_array(server, "expose", LIST_MAX, &array))
        return;
    f->job->server.expose = xcalloc(LIST_MAX, sizeof(struct exposed_port));
    for (const cJSON *m = array->child; m; m = m->next)
        read_exposed(f, m, i++);
}

static void read_ports(struct fields *f, struct json_reader *r)
{
    static const int ports[] = {
        [SERVER_V0] = 4444, [SERVER_V1] = 8000, [SERVER_CUSTOM] = 4444, [SERVER_NONE] = 0};
    struct job *job = f->job;
    job->server.port = ports[job->server.kind];
    job->server.vscode_port = 4445;
    wire_take_int(r, "port", 1, 65535, &job->server.port);
    wire_take_int(r, "vscode_port", 1, 65535, &job->server.vscode_port);
    bool has_vscode = job->server.kind == SERVER_V0 || job->server.kind == SERVER_V1;
    if (has_vscode && job->server.port == job->server.vscode_port)
        json_fail(r, "vscode_port", "must differ from server.port");
}

void wire_server_defaults(struct job *job)
{
    job->server.working_dir = xstrdup("/workspace");
    job->server.username = xstrdup("openhands");
    job->server.user_id = 1000;
    job->server.enable_browser = true;
}

void wire_read_server(struct fields *f, struct json_reader *top)
{
    static const char *const names[] = {
        "kind",    "port",           "vscode_port",         "working_dir", "plugins", "username",
        "user_id", "enable_browser", "browsergym_eval_env", "debug",       "git",     "command",
        "health",  "expose"};
    static const char *const kinds[] = {
        [SERVER_V0] = "v0", [SERVER_V1] = "v1", [SERVER_CUSTOM] = "custom", [SERVER_NONE] = "none"};
    struct job *job = f->job;
    struct json_reader r = wire_enter(f, top, "server", "server", names, ARRAY_LEN(names));
    int kind = SERVER_V0;
    json_read_enum(&r, "kind", kinds, ARRAY_LEN(kinds), &kind);
    job->server.kind = (enum server_kind)kind;
    read_ports(f, &r);
    wire_take(&r, "working_dir", PATH_LIMIT, &job->server.working_dir);
    wire_require_absolute(&r, "working_dir", job->server.working_dir);
    read_plugins(f, &r);
    wire_take(&r, "username", 64, &job->server.username);
    wire_take_int(&r, "user_id", 0, INT_MAX, &job->server.user_id);
    json_read_bool(&r, "enable_browser", &job->server.enable_browser);
    wire_take(&r, "browsergym_eval_env", WIRE_NAME_MAX, &job->server.browsergym_eval_env);
    json_read_bool(&r, "debug", &job->server.debug);
    read_git(f, &r);
    read_command(f, &r);
    read_health(f, &r);
    read_expose(f, &r);
}
