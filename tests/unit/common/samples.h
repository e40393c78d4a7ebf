/* A job with every member, and events with everything in them. */
#ifndef TESTS_UNIT_COMMON_SAMPLES_H
#define TESTS_UNIT_COMMON_SAMPLES_H

#include "common/wire.h"

#define START "{\"type\":\"start-session\""

static const char sample_job[] __attribute__((unused)) = START
    ",\"version\":1,\"session_id\":\"s-1\",\"job_id\":\"j 1\",\"mode\":\"create\","
    "\"provider\":\"daytona\",\"tenant\":\"acme\",\"sandbox\":{\"image\":\"ubuntu:24.04\","
    "\"target\":\"eu\",\"resources\":{\"cpu\":2,\"memory_gib\":4,\"disk_gib\":8},\"public\":true,"
    "\"os_user\":\"daytona\",\"labels\":{\"team\":\"a\",\"x/y\":\"\"},\"volumes\":[{\"id\":\"v1\","
    "\"mount_path\":\"/data\"},{\"id\":\"v2\",\"mount_path\":\"/more\",\"subpath\":\"s\"}],"
    "\"auto_stop_minutes\":0,\"auto_archive_minutes\":7,\"auto_delete_minutes\":9,"
    "\"on_drift\":\"fail\"},\"server\":{\"kind\":\"custom\",\"port\":3000,\"vscode_port\":3001,"
    "\"working_dir\":\"/w\",\"plugins\":[\"jupyter\",\"agent_skills\"],\"username\":\"root\","
    "\"user_id\":0,\"enable_browser\":false,\"browsergym_eval_env\":\"e\",\"debug\":true,"
    "\"git\":{\"user_name\":\"n\",\"user_email\":\"n@x\"},\"command\":[\"sh\",\"-c\",\"it's\"],"
    "\"health\":{\"path\":\"/health\",\"json\":{\"b\":1,\"a\":\"ok\"}},"
    "\"expose\":[{\"name\":\"WEB\",\"port\":8080}]},\"env\":{\"A\":\"1\",\"_B2\":\"it's\\n\"},"
    "\"session_api_key\":\"my-own-key\",\"timeout_seconds\":60,\"deadline\":\"1970-01-01T00:01:"
    "00Z\","
    "\"expires_at\":\"1970-01-01T00:00:05Z\",\"timeouts\":{\"create\":1,\"start\":2,\"launch\":3},"
    "\"on_failure\":\"keep\",\"metadata\":{\"n\":[1,null],\"a\":\"\\u00e4\"}}";

static const struct exposed_url sample_urls[] = {{"AGENT_SERVER", "https://4444-x.proxy", 4444},
                                                 {"WEB", "https://3000-x.proxy", 3000}};

static inline struct event sample_event(enum event_type type)
{
    return (struct event){
        .type = type,
        .fleet = "blue",
        .event_id = "session-jobs/3/42",
        .job_id = "j-1",
        .session_id = "s-1",
        .tenant = "acme",
        .provider = "daytona",
        .metadata = "{\"k\":[1]}",
        .time_ms = UINT64_C(1795507838123),
        .attempts = 1,
        .requests = 9,
        .with_secrets = true,
        .sandbox = {.id = "box-1",
                    .name = "blue.s-1",
                    .spec_id = "oh-v1",
                    .created_at = "2026-11-24T08:10:30.000Z",
                    .target = "eu",
                    .session_api_key = "the-session-key",
                    .preview_token = "the-preview-token",
                    .outcome = OUTCOME_CREATED,
                    .cleanup = CLEANUP_SCHEDULED,
                    .was = "started",
                    .replaced = true,
                    .warm = true,
                    .urls = sample_urls,
                    .n_urls = ARRAY_LEN(sample_urls)},
        .server = {.present = true,
                   .kind = SERVER_V1,
                   .url = "https://4444-x.proxy",
                   .working_dir = "/workspace",
                   .command_id = "c-1",
                   .port = 8000},
        .vscode = {"https://4445-x.proxy", "the-vscode-token"},
        .timings_ms = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
        .total_ms = 28,
        .error = {.code = ERR_CREATE_FAILED,
                  .step = STEP_CREATE,
                  .message = "the sandbox could not be made",
                  .provider_message = "No \"room\"",
                  .log_tail = "line 1\nline 2\n",
                  .http_status = 400,
                  .retryable = true},
        .progress = {"STATUS$BUILDING_RUNTIME", STEP_CREATE, 2, 1234},
    };
}

#endif
