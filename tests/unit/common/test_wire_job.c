/* wire_job: records in, jobs or refusals out. Each case is a record as a producer would send it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/config.h"
#include "common/secret.h"
#include "common/wire.h"
#include "common/xalloc.h"
#include "tests/unit/common/samples.h"

static struct config cfg;
static struct refusal why;
static unsigned unknown;

static int setup(void **state)
{
    static const char *const env[] = {"DAYTONA_API_KEY=key-of-daytona", NULL};
    const struct config_source src = {.environ = (char *const *)env};
    struct buf errors;
    (void)state;
    buf_init(&errors, 1000);
    bool ok = config_load(&src, &cfg, &errors);
    buf_done(&errors);
    return ok ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    config_done(&cfg);
    refusal_done(&why);
    return 0;
}

static struct record record_of(const char *key, const char *value)
{
    return (struct record){.topic = "session-jobs",
                           .partition = 3,
                           .offset = 42,
                           .timestamp_ms = 1000,
                           .key = key,
                           .key_len = key ? strlen(key) : 0,
                           .value = value,
                           .value_len = value ? strlen(value) : 0};
}

static struct job *parse(const char *key, const char *value)
{
    struct record r = record_of(key, value);
    refusal_done(&why);
    return job_parse(&r, &cfg, &why, &unknown);
}

static struct job *accepted(const char *key, const char *value)
{
    struct job *job = parse(key, value);
    if (!job)
        print_error("%s: %s\n", value, why.message);
    assert_non_null(job);
    return job;
}

static void refused(const char *key, const char *value, enum error_code code, const char *message)
{
    struct job *job = parse(key, value);
    assert_null(job);
    assert_string_equal(why.message, message);
    assert_int_equal(why.code, code);
}

static void test_smallest(void **state)
{
    (void)state;
    struct job *job = accepted("s-1", START "}");
    assert_int_equal(job->type, JOB_START);
    assert_int_equal(job->partition, 3);
    assert_int_equal(job->offset, 42);
    assert_int_equal(job->timestamp_ms, 1000);
    assert_string_equal(job->session_id, "s-1");
    assert_string_equal(job->job_id, "session-jobs/3/42");
    assert_string_equal(job->event_id, "session-jobs/3/42");
    assert_null(job->tenant);
    assert_null(job->provider);
    assert_null(job->metadata);
    assert_int_equal(strlen(job->spec_hash), 16);
    assert_int_equal(job->mode, MODE_ENSURE);
    assert_null(job->sandbox.id);
    assert_null(job->sandbox.snapshot);
    assert_null(job->sandbox.image);
    assert_int_equal(job->sandbox.cpu, 0);
    assert_false(job->sandbox.public);
    assert_int_equal(job->sandbox.auto_stop_minutes, 60);
    assert_int_equal(job->sandbox.auto_archive_minutes, 1440);
    assert_int_equal(job->sandbox.auto_delete_minutes, -1);
    assert_int_equal(job->sandbox.on_drift, DRIFT_REUSE);
    assert_int_equal(job->server.kind, SERVER_V0);
    assert_int_equal(job->server.port, 4444);
    assert_int_equal(job->server.vscode_port, 4445);
    assert_string_equal(job->server.working_dir, "/workspace");
    assert_string_equal(job->server.username, "openhands");
    assert_int_equal(job->server.user_id, 1000);
    assert_true(job->server.enable_browser);
    assert_false(job->server.debug);
    assert_null(job->server.browsergym_eval_env);
    assert_null(job->server.git_user_name);
    assert_null(job->session_api_key);
    assert_int_equal(job->timeout_seconds, 300);
    assert_int_equal(job->create_seconds, 120);
    assert_int_equal(job->start_seconds, 120);
    assert_int_equal(job->launch_seconds, 180);
    assert_int_equal(job->deadline_ms, 0);
    assert_int_equal(job->on_failure, FAIL_DELETE);
    assert_int_equal(job->n_carried, 0);
    assert_int_equal(unknown, 0);
    job_free(job);
}

static void check_full_sandbox(const struct job *job)
{
    assert_null(job->sandbox.snapshot);
    assert_string_equal(job->sandbox.image, "ubuntu:24.04");
    assert_string_equal(job->sandbox.target, "eu");
    assert_int_equal(job->sandbox.cpu, 2);
    assert_int_equal(job->sandbox.memory_gib, 4);
    assert_int_equal(job->sandbox.disk_gib, 8);
    assert_true(job->sandbox.public);
    assert_string_equal(job->sandbox.os_user, "daytona");
    assert_int_equal(job->sandbox.n_labels, 2);
    assert_string_equal(job->sandbox.labels[0].name, "team");
    assert_string_equal(job->sandbox.labels[0].value, "a");
    assert_string_equal(job->sandbox.labels[1].value, "");
    assert_int_equal(job->sandbox.n_volumes, 2);
    assert_string_equal(job->sandbox.volumes[0].id, "v1");
    assert_string_equal(job->sandbox.volumes[0].mount_path, "/data");
    assert_null(job->sandbox.volumes[0].subpath);
    assert_string_equal(job->sandbox.volumes[1].subpath, "s");
    assert_int_equal(job->sandbox.auto_stop_minutes, 0);
    assert_int_equal(job->sandbox.auto_archive_minutes, 7);
    assert_int_equal(job->sandbox.auto_delete_minutes, 9);
    assert_int_equal(job->sandbox.on_drift, DRIFT_FAIL);
}

static void check_full_server(const struct job *job)
{
    assert_int_equal(job->server.kind, SERVER_CUSTOM);
    assert_int_equal(job->server.port, 3000);
    assert_int_equal(job->server.vscode_port, 3001);
    assert_string_equal(job->server.working_dir, "/w");
    assert_int_equal(job->server.n_plugins, 2);
    assert_string_equal(job->server.plugins[1], "agent_skills");
    assert_string_equal(job->server.username, "root");
    assert_int_equal(job->server.user_id, 0);
    assert_false(job->server.enable_browser);
    assert_string_equal(job->server.browsergym_eval_env, "e");
    assert_true(job->server.debug);
    assert_string_equal(job->server.git_user_name, "n");
    assert_string_equal(job->server.git_user_email, "n@x");
    assert_int_equal(job->server.n_command, 3);
    assert_string_equal(job->server.command[2], "it's");
    assert_string_equal(job->server.health_path, "/health");
    assert_string_equal(job->server.health_json, "{\"a\":\"ok\",\"b\":1}");
    assert_int_equal(job->server.n_expose, 1);
    assert_string_equal(job->server.expose[0].name, "WEB");
    assert_int_equal(job->server.expose[0].port, 8080);
}

static void test_everything(void **state)
{
    (void)state;
    struct job *job = accepted("s-1", sample_job);
    assert_string_equal(job->job_id, "j 1");
    assert_string_equal(job->provider, "daytona");
    assert_string_equal(job->tenant, "acme");
    assert_int_equal(job->mode, MODE_CREATE);
    check_full_sandbox(job);
    check_full_server(job);
    assert_int_equal(job->n_env, 2);
    assert_string_equal(job->env[1].name, "_B2");
    assert_string_equal(job->env[1].value, "it's\n");
    assert_string_equal(job->session_api_key, "my-own-key");
    assert_int_equal(job->timeout_seconds, 60);
    assert_int_equal(job->deadline_ms, 60000);
    assert_int_equal(job->expires_at_ms, 5000);
    assert_int_equal(job->create_seconds, 1);
    assert_int_equal(job->start_seconds, 2);
    assert_int_equal(job->launch_seconds, 3);
    assert_int_equal(job->on_failure, FAIL_KEEP);
    assert_string_equal(job->metadata, "{\"a\":\"\xc3\xa4\",\"n\":[1,null]}");
    assert_int_equal(unknown, 0);
    job_free(job);
}

static void test_config_defaults(void **state)
{
    (void)state;
    free(cfg.sandbox.snapshot);
    cfg.sandbox.snapshot = xstrdup("base");
    cfg.jobs.timeout_seconds = 77;
    cfg.steps.launch_seconds = 78;
    cfg.sandbox.auto_stop_minutes = 5;
    struct job *job = accepted("s", START "}");
    assert_string_equal(job->sandbox.snapshot, "base");
    assert_int_equal(job->timeout_seconds, 77);
    assert_int_equal(job->launch_seconds, 78);
    assert_int_equal(job->sandbox.auto_stop_minutes, 5);
    job_free(job);
    job = accepted("s", START ",\"sandbox\":{\"snapshot\":\"mine\"}}");
    assert_string_equal(job->sandbox.snapshot, "mine");
    job_free(job);
    job = accepted("s", START ",\"sandbox\":{\"image\":\"i\"}}");
    assert_null(job->sandbox.snapshot);
    job_free(job);
}

static void test_kinds(void **state)
{
    (void)state;
    struct job *job = accepted("s", START ",\"server\":{\"kind\":\"v1\"}}");
    assert_int_equal(job->server.kind, SERVER_V1);
    assert_int_equal(job->server.port, 8000);
    job_free(job);
    job = accepted("s", START ",\"server\":{\"kind\":\"none\"},\"mode\":\"resume\"}");
    assert_int_equal(job->server.kind, SERVER_NONE);
    assert_int_equal(job->mode, MODE_RESUME);
    job_free(job);
    job =
        accepted("s", START ",\"mode\":\"attach\",\"sandbox\":{\"id\":\"abc-1\"},\"tenant\":\"\"}");
    assert_int_equal(job->mode, MODE_ATTACH);
    assert_string_equal(job->sandbox.id, "abc-1");
    assert_null(job->tenant);
    job_free(job);
}

/* An archived sandbox is never deleted by itself. */
static void test_intervals(void **state)
{
    (void)state;
    struct job *job = accepted("s", START ",\"sandbox\":{\"auto_delete_minutes\":10}}");
    assert_int_equal(job->sandbox.auto_delete_minutes, 10);
    assert_int_equal(job->sandbox.auto_archive_minutes, 70);
    job_free(job);
    job = accepted("s", START ",\"sandbox\":{\"auto_delete_minutes\":-1}}");
    assert_int_equal(job->sandbox.auto_archive_minutes, 1440);
    job_free(job);
}

static void test_stop_and_delete(void **state)
{
    (void)state;
    struct job *job =
        accepted("s", "{\"type\":\"stop-session\",\"tenant\":\"t\",\"timeout_seconds\":9,"
                      "\"sandbox\":{\"id\":\"abc\"},\"metadata\":{}}");
    assert_int_equal(job->type, JOB_STOP);
    assert_string_equal(job->sandbox.id, "abc");
    assert_int_equal(job->timeout_seconds, 9);
    assert_string_equal(job->metadata, "{}");
    assert_int_equal(unknown, 0);
    job_free(job);
    job = accepted("s",
                   "{\"type\":\"delete-session\",\"mode\":7,\"env\":{},\"sandbox\":{\"image\":1}}");
    assert_int_equal(job->type, JOB_DELETE);
    assert_int_equal(unknown, 3);
    job_free(job);
}

static void test_unknown_fields(void **state)
{
    (void)state;
    struct job *job = accepted(
        "s", START
        ",\"x\":1,\"sandbox\":{\"y\":1,\"image\":\"i\",\"resources\":{\"gpu\":1},"
        "\"volumes\":[{\"id\":\"v\",\"mount_path\":\"/\",\"z\":1}]},"
        "\"server\":{\"q\":1,\"git\":{\"r\":1},\"expose\":[{\"name\":\"n\",\"port\":1,\"s\":1}]},"
        "\"timeouts\":{\"t\":1},\"metadata\":{\"free\":1},\"env\":{\"FREE\":\"\"}}");
    assert_int_equal(unknown, 8);
    assert_string_equal(job->unknown,
                        "x, sandbox.y, sandbox.resources.gpu, sandbox.volumes[0].z, server.q, "
                        "server.git.r, server.expose[0].s, timeouts.t");
    job_free(job);
    job = accepted("s", START ",\"env\":{\"FREE\":\"\"}}");
    assert_null(job->unknown);
    job_free(job);
}

static void test_wrong_fields(void **state)
{
    (void)state;
    static const struct {
        const char *members, *message;
    } cases[] = {
        {"\"env\":{\"FOO\":1}", "env.FOO must be a string"},
        {"\"env\":{\"FOO\":null}", "env.FOO must be a string"},
        {"\"env\":[]", "env must be an object"},
        {"\"env\":{\"A-B\":\"x\"}", "env.A-B must be called [A-Za-z_][A-Za-z0-9_]*"},
        {"\"env\":{\"1A\":\"x\"}", "env.1A must be called [A-Za-z_][A-Za-z0-9_]*"},
        {"\"env\":{\"\":\"x\"}", "env must be called [A-Za-z_][A-Za-z0-9_]*"},
        {"\"mode\":\"Ensure\"", "mode must be one of ensure, create, attach, resume"},
        {"\"on_failure\":\"x\"", "on_failure must be one of delete, stop, keep"},
        {"\"provider\":\"e2b\"", "provider must be one of daytona"},
        {"\"tenant\":1", "tenant must be a string"},
        {"\"job_id\":1", "job_id must be a string"},
        {"\"metadata\":\"x\"", "metadata must be an object"},
        {"\"timeout_seconds\":0", "timeout_seconds must be a whole number from 1 to 86400"},
        {"\"timeout_seconds\":\"5\"", "timeout_seconds must be a whole number from 1 to 86400"},
        {"\"timeouts\":{\"create\":0}", "timeouts.create must be a whole number from 1 to 3600"},
        {"\"deadline\":\"soon\"", "deadline must be an RFC 3339 time such as 2026-11-24T08:10:38Z"},
        {"\"expires_at\":5", "expires_at must be an RFC 3339 time such as 2026-11-24T08:10:38Z"},
        {"\"session_api_key\":\"a b\"", "session_api_key must be printable ASCII without spaces"},
        {"\"session_api_key\":\"a\\r\\nX: y\"",
         "session_api_key must be printable ASCII without spaces"},
        {"\"sandbox\":1", "sandbox must be an object"},
        {"\"sandbox\":{\"id\":\"x\"}", "sandbox.id must come with mode attach or resume"},
        {"\"mode\":\"attach\",\"sandbox\":{\"id\":\"../x\"}",
         "sandbox.id must be letters, digits, '.', '_' and '-', a letter or digit first"},
        {"\"sandbox\":{\"snapshot\":\"a\",\"image\":\"b\"}",
         "sandbox.image must not be given together with snapshot"},
        {"\"sandbox\":{\"resources\":{\"cpu\":1}}",
         "sandbox.resources needs sandbox.image: a snapshot has its own"},
        {"\"sandbox\":{\"image\":\"i\",\"resources\":{\"cpu\":0}}",
         "sandbox.resources.cpu must be a whole number from 1 to 1024"},
        {"\"sandbox\":{\"public\":\"yes\"}", "sandbox.public must be true or false"},
        {"\"sandbox\":{\"labels\":{\"a\":1}}", "sandbox.labels.a must be a string"},
        {"\"sandbox\":{\"labels\":{\"OpenHands_SID\":\"x\"}}",
         "sandbox.labels.OpenHands_SID must be another name: OpenHands_SID and session-worker/* "
         "are "
         "taken"},
        {"\"sandbox\":{\"labels\":{\"session-worker/x\":\"x\"}}",
         "sandbox.labels.session-worker/x must be another name: OpenHands_SID and session-worker/* "
         "are taken"},
        {"\"mode\":\"attach\",\"sandbox\":{\"id\":\".x\"}",
         "sandbox.id must be letters, digits, '.', '_' and '-', a letter or digit first"},
        {"\"env\":{\"0A\":\"x\"}", "env.0A must be called [A-Za-z_][A-Za-z0-9_]*"},
        {"\"session_api_key\":\"\\u007f\"",
         "session_api_key must be printable ASCII without spaces"},
        {"\"session_api_key\":\"\\u00e4\"",
         "session_api_key must be printable ASCII without spaces"},
        {"\"sandbox\":{\"volumes\":[1]}", "sandbox.volumes[0] must be an object"},
        {"\"sandbox\":{\"volumes\":[{\"id\":\"v\"}]}",
         "sandbox.volumes[0] must have id and mount_path"},
        {"\"sandbox\":{\"volumes\":[{\"id\":\"v\",\"mount_path\":\"x\"}]}",
         "sandbox.volumes[0].mount_path must begin with /"},
        {"\"sandbox\":{\"auto_delete_minutes\":0}",
         "sandbox.auto_delete_minutes must be -1 (never) or at least 1"},
        {"\"sandbox\":{\"auto_delete_minutes\":-2}",
         "sandbox.auto_delete_minutes must be a whole number from -1 to 5256000"},
        {"\"sandbox\":{\"auto_stop_minutes\":1.5}",
         "sandbox.auto_stop_minutes must be a whole number from 0 to 5256000"},
        {"\"sandbox\":{\"on_drift\":\"x\"}", "sandbox.on_drift must be one of reuse, fail"},
        {"\"server\":{\"kind\":\"v2\"}", "server.kind must be one of v0, v1, custom, none"},
        {"\"server\":{\"port\":65536}", "server.port must be a whole number from 1 to 65535"},
        {"\"server\":{\"port\":4445}", "server.vscode_port must differ from server.port"},
        {"\"server\":{\"kind\":\"custom\",\"port\":1}",
         "server.command must be an array of 1 to 256 strings for kind custom"},
        {"\"server\":{\"kind\":\"custom\",\"port\":1,\"command\":\"x\"}",
         "server.command must be an array"},
        {"\"server\":{\"kind\":\"custom\",\"port\":1,\"command\":[1]}",
         "server.command must be an array of strings"},
        {"\"server\":{\"command\":[\"x\"]}", "server.command must come with kind custom"},
        {"\"server\":{\"kind\":\"custom\",\"command\":[\"\"]}",
         "server.command must begin with a program: not empty, no '-' first, no '='"},
        {"\"server\":{\"kind\":\"custom\",\"command\":[\"-c\",\"x\"]}",
         "server.command must begin with a program: not empty, no '-' first, no '='"},
        {"\"server\":{\"kind\":\"custom\",\"command\":[\"a=b\"]}",
         "server.command must begin with a program: not empty, no '-' first, no '='"},
        {"\"server\":{\"health\":{\"path\":\"/\"}}", "server.health must come with kind custom"},
        {"\"server\":{\"kind\":\"custom\",\"port\":1,\"command\":[\"x\"],\"health\":{}}",
         "server.health.path must be given"},
        {"\"server\":{\"kind\":\"custom\",\"port\":1,\"command\":[\"x\"],\"health\":{\"path\":"
         "\"x\"}}",
         "server.health.path must begin with /"},
        {"\"server\":{\"kind\":\"custom\",\"port\":1,\"command\":[\"x\"],\"health\":{\"path\":\"/ "
         "\"}}",
         "server.health.path must be printable ASCII without spaces"},
        {"\"server\":{\"plugins\":[\"a b\"]}",
         "server.plugins must be names of letters, digits, '_' and '-'"},
        {"\"server\":{\"working_dir\":\"w\"}", "server.working_dir must begin with /"},
        {"\"server\":{\"user_id\":-1}",
         "server.user_id must be a whole number from 0 to 2147483647"},
        {"\"server\":{\"git\":{\"user_name\":1}}", "server.git.user_name must be a string"},
        {"\"server\":{\"expose\":[{\"name\":\"VSCODE\",\"port\":1}]}",
         "server.expose[0].name must be another than AGENT_SERVER and VSCODE"},
        {"\"server\":{\"expose\":[{\"name\":\"A\",\"port\":1},{\"name\":\"A\",\"port\":2}]}",
         "server.expose[1].name must not be there twice"},
        {"\"server\":{\"expose\":[{\"name\":\"A\"}]}", "server.expose[0] must have name and port"},
        {"\"server\":{\"expose\":[[]]}", "server.expose[0] must be an object"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char value[1000];
        snprintf(value, sizeof value, START ",%s}", cases[i].members);
        refused("s", value, ERR_INVALID_JOB, cases[i].message);
        assert_string_equal(why.session_id, "s");
        assert_string_equal(why.job_id, "session-jobs/3/42");
    }
}

/* text n times between head and tail. */
static char *repeated(const char *head, const char *text, size_t n, const char *tail)
{
    struct buf b;
    buf_init(&b, 1 << 21);
    buf_adds(&b, head);
    for (size_t i = 0; i < n; i++)
        buf_adds(&b, text);
    buf_adds(&b, tail);
    return buf_steal(&b);
}

/* Names are cut in messages. */
static const char *env_name_too_long(void)
{
    static char text[200];
    char name[101];
    memset(name, 'X', 100);
    name[100] = '\0';
    snprintf(text, sizeof text, "env.%s must be called [A-Za-z_][A-Za-z0-9_]*", name);
    return text;
}

static void refused_large(char *value, const char *message)
{
    refused("s", value, ERR_INVALID_JOB, message);
    free(value);
}

static void accepted_large(char *value)
{
    job_free(accepted("s", value));
    free(value);
}

static void test_sizes(void **state)
{
    (void)state;
    accepted_large(repeated(START ",\"sandbox\":{\"snapshot\":\"", "x", 128, "\"}}"));
    refused_large(repeated(START ",\"sandbox\":{\"snapshot\":\"", "x", 129, "\"}}"),
                  "sandbox.snapshot must not be longer than 128 bytes");
    accepted_large(repeated(START ",\"env\":{\"", "X", 256, "\":\"\"}}"));
    refused_large(repeated(START ",\"env\":{\"", "X", 257, "\":\"\"}}"), env_name_too_long());
    accepted_large(repeated(START ",\"session_api_key\":\"", "~", 256, "\"}"));
    refused_large(repeated(START ",\"session_api_key\":\"", "~", 257, "\"}"),
                  "session_api_key must not be longer than 256 bytes");
    accepted_large(repeated(START ",\"job_id\":\"", "j", 256, "\"}"));
    refused_large(repeated(START ",\"job_id\":\"", "j", 257, "\"}"),
                  "job_id must not be longer than 256 bytes");
    accepted_large(repeated(START ",\"env\":{\"A\":\"", "x", 32768, "\"}}"));
    refused_large(repeated(START ",\"env\":{\"A\":\"", "x", 32769, "\"}}"),
                  "env.A must not be longer than 32768 bytes");
    accepted_large(repeated(START ",\"env\":{\"A\":\"", "'", 7500, "\"}}"));
    refused_large(repeated(START ",\"env\":{\"A\":\"", "'", 7600, "\"}}"),
                  "env and the command must not need more than 98304 bytes when quoted");
    refused_large(repeated(START ",\"server\":{\"kind\":\"custom\",\"port\":1,\"command\":[\"a\"",
                           ",\"''''''''''''''''''''''''''''''''''''''''\"", 200, "]}}"),
                  "server.command must not need more than 98304 bytes when quoted");
    accepted_large(repeated(START ",\"metadata\":{\"a\":\"", "x", 8192 - 8, "\"}}"));
    refused_large(repeated(START ",\"metadata\":{\"a\":\"", "x", 8192 - 7, "\"}}"),
                  "metadata must not be larger than 8192 bytes");
    accepted_large(repeated(START ",\"sandbox\":{\"labels\":{\"a\":\"", "x", 16383, "\"}}}"));
    refused_large(repeated(START ",\"sandbox\":{\"labels\":{\"a\":\"", "x", 16384, "\"}}}"),
                  "sandbox.labels must not be larger than 16384 bytes");
    refused_large(repeated(START ",\"server\":{\"kind\":\"custom\",\"port\":1,\"command\":[\"a\"",
                           ",\"a\"", 256, "]}}"),
                  "server.command must not have more than 256 elements");
    refused_large(repeated(START ",\"x\":\"", "x", 262144, "\"}"),
                  "the value must be a JSON object: 262175 bytes, more than 262144");
    refused_large(repeated(START ",\"x\":", "[", 32, "]}"),
                  "the value must be a JSON object: nested deeper than 32 at byte 59");
    cfg.jobs.max_bytes = 1024;
    refused_large(repeated(START ",\"x\":\"", "x", 1024, "\"}"),
                  "the value must be a JSON object: 1055 bytes, more than 1024");
}

static void test_not_json(void **state)
{
    (void)state;
    refused("s", "", ERR_INVALID_JOB, "the value must be a JSON object: unexpected end at byte 0");
    refused("s", "[]", ERR_INVALID_JOB, "the value must be a JSON object");
    refused("s", NULL, ERR_INVALID_JOB, "the record must have a value: a job as JSON");
    assert_string_equal(why.session_id, "s");
    assert_string_equal(why.job_id, "session-jobs/3/42");
    refused("s", START ",\"env\":{\"A\":\"top-secret\",\"A\":\"x\"}}", ERR_INVALID_JOB,
            "the value must be a JSON object: duplicate key A");
    refused("s", START ",\"e\\u001b\":1,\"e\\u001b\":1}", ERR_INVALID_JOB,
            "the value must be a JSON object: duplicate key e?");
}

static void test_type_and_version(void **state)
{
    (void)state;
    refused("s", "{}", ERR_INVALID_JOB, "type must be given");
    refused("s", "{\"type\":1}", ERR_INVALID_JOB, "type must be a string");
    refused("s", "{\"type\":\"Start-Session\"}", ERR_UNSUPPORTED,
            "type must be one of start-session, stop-session, delete-session");
    refused("s", START ",\"version\":2}", ERR_UNSUPPORTED, "version must be 1");
    refused("s", START ",\"version\":\"1\"}", ERR_INVALID_JOB, "version must be a number");
    refused("s", "{\"type\":\"pause\",\"job_id\":\"j\",\"tenant\":\"t\",\"metadata\":{\"k\":1}}",
            ERR_UNSUPPORTED, "type must be one of start-session, stop-session, delete-session");
    assert_string_equal(why.session_id, "s");
    assert_string_equal(why.job_id, "j");
    assert_string_equal(why.tenant, "t");
    assert_string_equal(why.metadata, "{\"k\":1}");
}

static void test_session_ids(void **state)
{
    (void)state;
    static const char *const good[] = {"a",       "A.b_c-9", "9", "ww.w", "xwww",
                                       "awwwb.c", "zZ09aA",  "z", "Z",    "0"};
    static const char *const bad[] = {"",   "-a", ".a", "_a", "a b", "a/b",     "\xc3\xa4", "a\n",
                                      "a~", "[a", "a`", "{a", "@a",  "a:",      "/a",       "www.a",
                                      "a~", "[a", "a`", "{a", "@a",  "a.www.b", "WwW.x"};
    char long_id[102];
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(session_id_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(session_id_valid(bad[i], strlen(bad[i])));
    memset(long_id, 'x', sizeof long_id);
    assert_true(session_id_valid(long_id, 100));
    assert_false(session_id_valid(long_id, 101));
    assert_false(session_id_valid("a\0b", 3));
}

#define BAD_ID                                                                                     \
    "session_id must be 1 to 100 of letters, digits, '.', '_' and '-', a letter or digit first, "  \
    "without www."

static void test_session(void **state)
{
    (void)state;
    struct job *job = accepted("s-1", START ",\"session_id\":\"s-1\"}");
    assert_string_equal(job->session_id, "s-1");
    job_free(job);
    refused("s-1", START ",\"session_id\":\"s-2\"}", ERR_INVALID_JOB,
            "session_id must be the record's key");
    assert_string_equal(why.session_id, "s-2");
    refused("s-1", START ",\"session_id\":\"s 2\"}", ERR_INVALID_JOB, BAD_ID);
    assert_string_equal(why.session_id, "s-1");
    refused("s-1", START ",\"session_id\":2}", ERR_INVALID_JOB, "session_id must be a string");
    assert_string_equal(why.session_id, "s-1");
    refused("s 1", START "}", ERR_INVALID_JOB, BAD_ID);
    assert_null(why.session_id);
    refused("s 1", NULL, ERR_INVALID_JOB, "the record must have a value: a job as JSON");
    assert_null(why.session_id);
    refused(NULL, START ",\"session_id\":\"s-2\",\"job_id\":\"j\"}", ERR_INVALID_JOB,
            "the record must have a key: the session id (jobs.require_key)");
    assert_string_equal(why.session_id, "s-2");
    assert_string_equal(why.job_id, "j");
    refused("", START ",\"session_id\":\"s-2\"}", ERR_INVALID_JOB,
            "the record must have a key: the session id (jobs.require_key)");
    cfg.jobs.require_key = false;
    job = accepted(NULL, START ",\"session_id\":\"s-2\"}");
    assert_string_equal(job->session_id, "s-2");
    job_free(job);
    refused("s-1", START ",\"session_id\":\"s-2\"}", ERR_INVALID_JOB,
            "session_id must be the record's key");
    refused(NULL, START "}", ERR_INVALID_JOB, "session_id must be given, as key or as field");
    assert_null(why.session_id);
}

/* ---- headers ---- */

static struct header header(const char *name, const char *value)
{
    return (struct header){(char *)name, (char *)value, strlen(value)};
}

static struct job *parse_with(const char *value, const struct header *headers, size_t n)
{
    struct record r = record_of("s-1", value);
    r.headers = headers;
    r.n_headers = n;
    refusal_done(&why);
    return job_parse(&r, &cfg, &why, &unknown);
}

static void test_binary_mode(void **state)
{
    (void)state;
    static const char *const types[] = {"session-worker.stop-session.v1", "stop-session",
                                        "stop-session.v1", "com.example.stop-session",
                                        "com.example/stop-session.v1"};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        const struct header headers[] = {
            header("ce_specversion", "1.0"), header("ce_type", types[i]), header("ce_id", "id-1"),
            header("content-type", "application/json"), header("ce_source", "/x")};
        struct job *job = parse_with("{\"timeout_seconds\":5}", headers, ARRAY_LEN(headers));
        assert_non_null(job);
        assert_int_equal(job->type, JOB_STOP);
        assert_string_equal(job->job_id, "id-1");
        assert_string_equal(job->event_id, "session-jobs/3/42");
        assert_int_equal(job->timeout_seconds, 5);
        job_free(job);
    }
}

static void test_ce_types_that_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *ce_type, *value;
        enum error_code code;
        const char *message;
    } cases[] = {
        {"session-worker.start-session.v2", "{}", ERR_UNSUPPORTED,
         "the version in ce_type must be v1"},
        {"session-worker.start-session.v2", START "}", ERR_UNSUPPORTED,
         "the version in ce_type must be v1"},
        {"session-worker.restart-session.v1", "{}", ERR_UNSUPPORTED,
         "ce_type must end in start-session, stop-session or delete-session"},
        {"session-worker.session-ready.v1", "{}", ERR_UNSUPPORTED,
         "ce_type must end in start-session, stop-session or delete-session"},
        {"stop-session", START "}", ERR_INVALID_JOB, "type and ce_type must agree"},
        {"start-session", "{\"type\":\"stop-session\"}", ERR_INVALID_JOB,
         "type and ce_type must agree"},
        {"xstart-session", "{}", ERR_UNSUPPORTED,
         "ce_type must end in start-session, stop-session or delete-session"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct header h = header("ce_type", cases[i].ce_type);
        assert_null(parse_with(cases[i].value, &h, 1));
        assert_string_equal(why.message, cases[i].message);
        assert_int_equal(why.code, cases[i].code);
    }
    const struct header other = header("ce_type", "com.example.order.created");
    struct job *job = parse_with(START "}", &other, 1); /* the body says it */
    assert_non_null(job);
    job_free(job);
}

static void test_structured_mode(void **state)
{
    (void)state;
    static const char event[] = "{\"specversion\":\"1.0\",\"id\":\"id-2\",\"source\":\"/x\","
                                "\"type\":\"session-worker.start-session.v1\",\"data\":{\"session_"
                                "id\":\"s-1\",\"tenant\":\"t\"}}";
    static const char *const contents[] = {"application/cloudevents+json",
                                           "Application/CloudEvents+JSON; charset=UTF-8"};
    for (size_t i = 0; i < ARRAY_LEN(contents); i++) {
        const struct header headers[] = {header("Content-Type", contents[i]),
                                         header("ce_id", "no")};
        struct job *job = parse_with(event, headers, 2);
        assert_non_null(job);
        assert_int_equal(job->type, JOB_START);
        assert_string_equal(job->job_id, "id-2");
        assert_string_equal(job->tenant, "t");
        assert_int_equal(unknown, 0);
        job_free(job);
    }
    const struct header h = header("content-type", contents[0]);
    assert_null(parse_with("{\"specversion\":\"1.0\",\"id\":\"i\",\"source\":\"/x\","
                           "\"type\":\"start-session\",\"data\":\"x\"}",
                           &h, 1));
    assert_string_equal(why.message, "data must be an object");
    assert_string_equal(why.session_id, "s-1");
    assert_null(
        parse_with("{\"specversion\":\"0.3\",\"type\":\"start-session\",\"data\":{}}", &h, 1));
    assert_string_equal(why.message, "specversion must be 1.0");
    assert_int_equal(why.code, ERR_UNSUPPORTED);
    const struct header batch = header("content-type", "application/cloudevents-batch+json");
    assert_null(parse_with("{}", &batch, 1));
    assert_int_equal(why.code, ERR_UNSUPPORTED);
}

#define STRUCTURED(more)                                                                           \
    "{\"specversion\":\"1.0\",\"id\":\"i\",\"source\":\"/x\",\"type\":\"start-session\"" more      \
    ",\"data\":{\"session_id\":\"s-1\"}}"

static void test_broken_cloudevents(void **state)
{
    (void)state;
    static const struct {
        const char *names[5], *values[5], *value;
        enum error_code code;
        const char *message; /* its beginning; NULL: it is a job */
    } cases[] = {
        {{"ce_specversion", "ce_id", "ce_source", "ce_type"},
         {"0.3", "i", "/x", "start-session"},
         "{}",
         ERR_UNSUPPORTED,
         "ce_specversion must be 1.0"},
        {{"ce_specversion", "ce_source", "ce_type"},
         {"1.0", "/x", "start-session"},
         "{}",
         ERR_INVALID_JOB,
         "ce_id must be given"},
        {{"ce_specversion", "ce_id", "ce_source", "ce_type"},
         {"1.0", "a\nb", "/x", "start-session"},
         "{}",
         ERR_INVALID_JOB,
         "ce_id must be given"},
        {{"ce_specversion", "ce_id", "ce_type"},
         {"1.0", "i", "start-session"},
         "{}",
         ERR_INVALID_JOB,
         "ce_source must be given"},
        {{"ce_specversion", "ce_id", "ce_source"},
         {"1.0", "i", "/x"},
         START "}",
         ERR_INVALID_JOB,
         "ce_type must be given"},
        {{"ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"},
         {"1.0", "i", "/x", "start-session", "text/plain"},
         "{}",
         ERR_UNSUPPORTED,
         "content-type must be application/json"},
        {{"ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"},
         {"1.0", "i", "/x", "start-session", "application/x.y+JSON ; v=1"},
         "{}",
         ERR_NONE,
         NULL},
        {{"content-type"}, {"application/cloudevents+json"}, STRUCTURED(""), ERR_NONE, NULL},
        {{"content-type"},
         {"application/cloudevents+json"},
         "{}",
         ERR_UNSUPPORTED,
         "specversion must be 1.0"},
        {{"content-type"},
         {"application/cloudevents+json"},
         "{\"specversion\":\"1.0\",\"source\":\"/x\",\"type\":\"stop-session\",\"data\":{}}",
         ERR_INVALID_JOB,
         "id must be given"},
        {{"content-type"},
         {"application/cloudevents+json"},
         "{\"specversion\":\"1.0\",\"id\":\"i\",\"type\":\"stop-session\",\"data\":{}}",
         ERR_INVALID_JOB,
         "source must be given"},
        {{"content-type"},
         {"application/cloudevents+json"},
         "{\"specversion\":\"1.0\",\"id\":\"i\",\"source\":\"/"
         "x\",\"data\":{\"type\":\"stop-session\"}}",
         ERR_INVALID_JOB,
         "type must be given"},
        {{"content-type"},
         {"application/cloudevents+json"},
         STRUCTURED(",\"datacontenttype\":\"application/xml\""),
         ERR_UNSUPPORTED,
         "datacontenttype must be application/json"},
        {{"content-type"},
         {"application/cloudevents+json"},
         STRUCTURED(",\"datacontenttype\":7"),
         ERR_UNSUPPORTED,
         "datacontenttype must be application/json"},
        {{"content-type", "ce_specversion", "ce_id", "ce_type"},
         {"application/cloudevents+json", "1.0", "other", "start-session"},
         STRUCTURED(""),
         ERR_INVALID_JOB,
         "ce_id must be the id of the event in the value"},
        {{"content-type", "ce_specversion", "ce_id", "ce_type"},
         {"application/cloudevents+json", "1.0", "i", "stop-session"},
         STRUCTURED(""),
         ERR_INVALID_JOB,
         "ce_type must be the type of the event in the value"},
        {{"content-type", "ce_specversion", "ce_id", "ce_type"},
         {"application/cloudevents+json", "1.0", "i", "start-session"},
         STRUCTURED(""),
         ERR_NONE,
         NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct header headers[5];
        size_t n = 0;
        for (; n < 5 && cases[i].names[n]; n++)
            headers[n] = header(cases[i].names[n], cases[i].values[n]);
        struct job *job = parse_with(cases[i].value, headers, n);
        if (!cases[i].message != (job != NULL))
            fail_msg("case %zu: %s", i, job ? "is a job" : why.message);
        job_free(job);
        if (!cases[i].message)
            continue;
        assert_int_equal(strncmp(why.message, cases[i].message, strlen(cases[i].message)), 0);
        assert_int_equal(why.code, cases[i].code);
        assert_string_equal(why.session_id, "s-1");
    }
}

static void test_replay(void **state)
{
    (void)state;
    const struct header headers[] = {header("session-worker-original", "session-jobs/0/7"),
                                     header("ce_id", "id-3")};
    struct job *job = parse_with(START "}", headers, 1);
    assert_string_equal(job->job_id, "session-jobs/0/7");
    assert_string_equal(job->event_id, "session-jobs/3/42");
    job_free(job);
    job = parse_with(START "}", headers, 2);
    assert_string_equal(job->job_id, "id-3");
    job_free(job);
    job = parse_with(START ",\"job_id\":\"j\"}", headers, 2);
    assert_string_equal(job->job_id, "j");
    job_free(job);
    const struct header evil[] = {header("session-worker-original", "a\nb"),
                                  header("ce_id", "\xff")};
    job = parse_with(START "}", evil, 2);
    assert_string_equal(job->job_id, "session-jobs/3/42");
    job_free(job);
    assert_null(parse_with("{}", headers, 1));
    assert_string_equal(why.job_id, "session-jobs/0/7");
}

static void test_carried(void **state)
{
    (void)state;
    const struct header headers[] = {header("Traceparent", "00-aa-bb-01"),
                                     header("other", "x"),
                                     header("baggage", "k=v"),
                                     {(char *)"correlation-id", (char *)"a\0b", 3}};
    struct job *job = parse_with(START "}", headers, 4);
    assert_int_equal(job->n_carried, 3);
    assert_string_equal(job->carried[0].name, "traceparent");
    assert_string_equal(job->carried[0].value, "00-aa-bb-01");
    assert_string_equal(job->carried[1].name, "baggage");
    assert_string_equal(job->carried[2].name, "correlation-id");
    assert_int_equal(job->carried[2].len, 3);
    assert_memory_equal(job->carried[2].value, "a\0b", 4);
    job_free(job);
}

/* ---- spec hash ---- */

static char *hash_of(const char *members)
{
    char value[1000];
    snprintf(value, sizeof value, START ",%s}", members);
    struct job *job = accepted("s", value);
    char *hash = xstrdup(job->spec_hash);
    job_free(job);
    return hash;
}

static void check_hash(const char *a, const char *b, bool equal)
{
    char *x = hash_of(a), *y = hash_of(b);
    if ((strcmp(x, y) == 0) != equal)
        print_error("%s / %s\n", a, b);
    assert_int_equal(strcmp(x, y) == 0, equal);
    free(x);
    free(y);
}

static void test_spec_hash(void **state)
{
    (void)state;
    check_hash("\"sandbox\":{}", "\"server\":{}", true);
    check_hash("\"tenant\":\"a\"", "\"timeout_seconds\":5", true);
    check_hash("\"sandbox\":{\"image\":\"i\",\"target\":\"eu\"}",
               "\"sandbox\":{ \"target\":\"eu\", \"image\":\"i\" }", true);
    check_hash("\"sandbox\":{\"image\":\"i\"}",
               "\"sandbox\":{\"image\":\"i\",\"on_drift\":\"fail\"}", true);
    check_hash("\"mode\":\"attach\",\"sandbox\":{\"id\":\"x\"}", "\"sandbox\":{}", true);
    check_hash("\"sandbox\":{\"image\":\"i\"}", "\"sandbox\":{\"image\":\"j\"}", false);
    check_hash("\"sandbox\":{\"snapshot\":\"i\"}", "\"sandbox\":{\"image\":\"i\"}", false);
    check_hash("\"server\":{\"kind\":\"v1\"}", "\"server\":{\"kind\":\"v0\"}", false);
    check_hash("\"env\":{\"A\":\"1\",\"B\":\"2\"}", "\"env\":{\"B\":\"3\",\"A\":\"4\"}", true);
    check_hash("\"env\":{\"A\":\"1\"}", "\"env\":{\"B\":\"1\"}", false);
    check_hash("\"env\":{\"A\":\"1\"}", "\"env\":{}", false);
    char *hash = hash_of("\"tenant\":\"a\"");
    assert_string_equal(hash, "b51f08b698d88d80"); /* stored in labels: it must never change */
    free(hash);
}

static bool is_hidden(const char *text)
{
    struct buf b;
    buf_init(&b, 1000);
    redact(text, strlen(text), &b);
    bool hidden = strcmp(buf_text(&b), "***") == 0;
    buf_done(&b);
    return hidden;
}

static void test_redactor_knows_secrets(void **state)
{
    (void)state;
    static const char value[] =
        START ",\"env\":{\"A\":\"env-value-1\",\"B\":\"\"},\"session_api_key\":\"session-key-1\"}";
    struct job *job = accepted("s", value), *again = accepted("s", value);
    assert_true(is_hidden("env-value-1"));
    assert_true(is_hidden("session-key-1"));
    job_free(job);
    assert_true(is_hidden("env-value-1"));
    job_free(again);
    assert_false(is_hidden("env-value-1"));
    assert_false(is_hidden("session-key-1"));
    job_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_smallest),
        TEST(test_everything),
        TEST(test_config_defaults),
        TEST(test_kinds),
        TEST(test_intervals),
        TEST(test_stop_and_delete),
        TEST(test_unknown_fields),
        TEST(test_wrong_fields),
        TEST(test_sizes),
        TEST(test_not_json),
        TEST(test_type_and_version),
        TEST(test_session_ids),
        TEST(test_session),
        TEST(test_binary_mode),
        TEST(test_ce_types_that_are_refused),
        TEST(test_structured_mode),
        TEST(test_broken_cloudevents),
        TEST(test_replay),
        TEST(test_carried),
        TEST(test_spec_hash),
        TEST(test_redactor_knows_secrets),
    };
    return cmocka_run_group_tests_name("wire_job", tests, NULL, NULL);
}
