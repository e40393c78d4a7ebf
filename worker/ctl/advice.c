/* advice: see the header. One line per code of common/wire.h; a test holds that none is missing. */
#include "worker/ctl/advice.h"

#include <string.h>

#include "common/wire.h"

static const char *const advices[N_ERRORS] = {
    [ERR_INVALID_JOB] = "Mend what the message names and send the job again; sessionctl submit "
                        "--dry-run tells beforehand.",
    [ERR_EXPIRED] = "The job waited too long: send it again, and add workers or raise "
                    "creates_per_minute if the backlog stays (sessionctl top).",
    [ERR_UNSUPPORTED] = "The workers do not know this type or version: upgrade them, then "
                        "sessionctl dlq replay.",
    [ERR_SESSION_EXISTS] = "A sandbox of that name is there and in use: choose another session_id, "
                           "mode ensure to use it, or delete-session first.",
    [ERR_NOT_FOUND] = "There is no such sandbox (any more): start-session with mode ensure or "
                      "resume makes one.",
    [ERR_UNAUTHORIZED] = "The provider or the server refuses our key. Provider: put in a new one. "
                         "Server of an older key: stop-session, then start-session.",
    [ERR_FORBIDDEN] = "The provider's key lacks leave: it needs write:sandboxes and "
                      "delete:sandboxes.",
    [ERR_QUOTA_EXCEEDED] = "The organization's quota is used up: delete sandboxes or have it "
                           "raised, then send the job again.",
    [ERR_NO_CAPACITY] = "No runner had room in any target: try again later, or add targets to the "
                        "provider's configuration.",
    [ERR_RATE_LIMITED] = "The provider's rate limit held until the deadline: send the job again; "
                         "check creates_per_minute and who else uses the key.",
    [ERR_SNAPSHOT_NOT_FOUND] = "The snapshot or image does not exist or is not active: check its "
                               "name, and activate it at the provider.",
    [ERR_CREATE_FAILED] = "The provider could not make the sandbox; its own words say why. "
                          "Trying again may help.",
    [ERR_START_FAILED] = "The sandbox is there but does not start; its own words say why. "
                         "delete-session, then start-session makes a new one.",
    [ERR_START_TIMEOUT] = "It did not start in time: use a smaller image, or raise timeouts.create "
                          "or timeouts.start (the workers' steps.create_seconds and "
                          "steps.start_seconds) within the job's timeout_seconds.",
    [ERR_LAUNCH_FAILED] = "The command could not be started in the sandbox: look whether its "
                          "toolbox runs, and try again.",
    [ERR_BAD_COMMAND] = "The server's command was not found or may not be run (126, 127): mend "
                        "server.command, or use a snapshot that has it.",
    [ERR_SERVER_EXITED] = "The server ended by itself; its log says why. on_failure keep leaves "
                          "the sandbox to look into.",
    [ERR_SERVER_TIMEOUT] = "The server did not answer in time: look at its log and at server.port, "
                           "or raise timeouts.launch (the workers' steps.launch_seconds) within "
                           "the job's timeout_seconds.",
    [ERR_UNHEALTHY] = "Something answers, but not as this server should: check server.kind, "
                      "server.port and server.health.",
    [ERR_PROVIDER_UNAVAILABLE] =
        "The provider did not answer or answered 5xx for too long: see its "
        "status page and send the job again.",
    [ERR_PROVIDER_PROTOCOL] = "The provider answered in a way that we do not understand: check "
                              "api_url, and report it with the worker's log.",
    [ERR_DEADLINE_EXCEEDED] = "The job's time was over: send it again with a larger "
                              "timeout_seconds; the step says what took so long.",
    [ERR_CANCELLED] = "A later stop-session or delete-session of this session ended it.",
    [ERR_POISON] = "Workers died with this job in hand again and again: report it with their logs "
                   "before sessionctl dlq replay.",
    [ERR_INTERNAL] = "A fault of session-worker: report it with the worker's log.",
};

const char *advice_for(const char *code)
{
    for (unsigned i = ERR_NONE + 1; code && i < N_ERRORS; i++)
        if (strcmp(code, error_name((enum error_code)i)) == 0)
            return advices[i];
    return NULL;
}
