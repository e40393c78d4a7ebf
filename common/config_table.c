/* config_table: every key there is. See config_table.h.
 *
 * One entry per key says its place in struct config, default, limits and sentence; reading,
 * checking, printing and config/worker.cfg follow from it. Keys of one group stand together: the
 * printer opens a group where the path's first word changes. Units are in the names. */
#include "common/config_table.h"

#include <string.h>

static bool all_of(const char *text, const char *letters)
{
    return text[strspn(text, letters)] == '\0';
}

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static const char *check_given(const char *text)
{
    return *text ? NULL : "must not be empty";
}

/* librdkafka skips empty ones among them. */
static const char *check_brokers(const char *text)
{
    return text[strspn(text, ", \t\r\n")] ? NULL : "must hold at least one host:port";
}

static const char *check_name(const char *text)
{
    size_t n = strlen(text);
    bool ok = n > 0 && n <= 40 && all_of(text, LOWER DIGITS "-");
    return ok ? NULL : "must be 1 to 40 of a-z, 0-9 and -";
}

/* A sandbox is called <fleet>.<session id>, and Daytona refuses a name with "www." in it. */
static const char *check_fleet(const char *text)
{
    size_t n = strlen(text);
    if (n >= 3 && strcmp(text + n - 3, "www") == 0)
        return "must not end in www";
    return n ? check_name(text) : NULL;
}

static const char *check_topic(const char *text)
{
    size_t n = strlen(text);
    bool dots = strcmp(text, ".") == 0 || strcmp(text, "..") == 0;
    bool ok = n > 0 && n <= 249 && !dots && all_of(text, LOWER UPPER DIGITS "._-");
    return ok ? NULL : "must be 1 to 249 of letters, digits, '.', '_' and '-'";
}

static const char *check_topic_or_none(const char *text)
{
    return *text ? check_topic(text) : NULL;
}

static const char *check_property(const char *text)
{
    static const struct {
        const char *name, *instead;
    } ours[] = {
        {"bootstrap.servers", "must not hold bootstrap.servers: use kafka.brokers"},
        {"metadata.broker.list", "must not hold metadata.broker.list: use kafka.brokers"},
        {"group.id", "must not hold group.id: use kafka.group"},
        {"transactional.id", "must not hold transactional.id: use kafka.instance"},
        {"enable.auto.commit", "must not hold enable.auto.commit: offsets go with the results"},
        {"enable.auto.offset.store",
         "must not hold enable.auto.offset.store: offsets go with the results"},
    };
    size_t n = strcspn(text, "=");
    if (n == 0 || text[n] == '\0')
        return "must hold texts of the form name=value";
    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (strlen(ours[i].name) == n && strncmp(text, ours[i].name, n) == 0)
            return ours[i].instead;
    return NULL;
}

static const char *check_url(const char *text)
{
    static const char allowed[] = "must be http://… or https://…, without user, query or fragment";
    size_t scheme = strncmp(text, "https://", 8) == 0  ? 8
                    : strncmp(text, "http://", 7) == 0 ? 7
                                                       : 0;
    const char *rest = text + scheme;
    bool ok = scheme && *rest && *rest != '/' && *rest != ':' && strlen(text) <= 1024;
    return ok && all_of(rest, LOWER UPPER DIGITS "._-:/[]~%") ? NULL : allowed;
}

static const char *check_listen(const char *text)
{
    const char *colon = strrchr(text, ':');
    int64_t port;
    bool ok = *text == '\0' ||
              (colon && colon > text && parse_i64(colon + 1, strlen(colon + 1), 0, 65535, &port));
    return ok ? NULL : "must be host:port, or empty for none";
}

static const char *check_connect_to(const char *text)
{
    const char *equals = strchr(text, '='), *colon = strrchr(text, ':');
    int64_t port;
    bool ok = equals && equals > text && colon > equals + 1 &&
              parse_i64(colon + 1, strlen(colon + 1), 1, 65535, &port) &&
              all_of(text, LOWER UPPER DIGITS ".-_=:[]");
    return ok ? NULL : "must hold texts of the form domain=host:port";
}

static const char *check_auto_delete(const char *text)
{
    return strcmp(text, "0") == 0 ? "must be -1 (never) or at least 1" : NULL;
}

static const char *const deliveries[] = {
    [EXACTLY_ONCE] = "exactly_once", [AT_LEAST_ONCE] = "at_least_once"};
static const char *const shown[] = {"omit", "include"};
static const char *const levels[] = {"debug", "info", "warn", "error"};
static const char *const formats[] = {"auto", "logfmt", "json"};

/* Of struct s: the member m, whose path is its name, with default d. */
#define KEY(s, k, m, d) .path = #m, .kind = k, .at = offsetof(struct s, m), .otherwise = d
#define TEXT(s, m, d) KEY(s, KEY_TEXT, m, d)
#define INT(s, m, d, lo, hi) KEY(s, KEY_INT, m, d), .min = lo, .max = hi
#define FLAG(s, m, d) KEY(s, KEY_FLAG, m, d)
#define LIST(s, m, count, d) KEY(s, KEY_LIST, m, d), .at2 = offsetof(struct s, count)
#define SECRET(s, m, content) KEY(s, KEY_FILE, m, ""), .at2 = offsetof(struct s, content)
#define NAMES(list) .names = list, .n_names = ARRAY_LEN(list)
#define MINUTES_MAX 5256000 /* ten years */

/* clang-format off */
const struct key config_keys[] = {
    {TEXT(config, fleet, ""), .check = check_fleet,
     .help = "Name of this fleet of workers, part of every sandbox's name and labels; \"\" = "
             "kafka.group."},

    {TEXT(config, kafka.brokers, "localhost:9092"), .check = check_brokers,
     .help = "Brokers to begin with, host:port, separated by commas."},
    {TEXT(config, kafka.group, "session-worker"), .check = check_given,
     .help = "Consumer group: the workers of one group share the jobs."},
    {TEXT(config, kafka.instance, ""),
     .help = "Name of this worker among those of its group; \"\" = host name and the first free "
             "slot."},
    {KEY(config, KEY_CHOICE, kafka.delivery, "exactly_once"), NAMES(deliveries),
     .help = "exactly_once (transactions) or at_least_once (a result may be repeated)."},
    {LIST(config, kafka.properties, kafka.n_properties, ""), .check = check_property,
     .help = "Any librdkafka properties: \"security.protocol=SASL_SSL\", "
             "\"sasl.mechanism=PLAIN\", …"},
    {SECRET(config, kafka.password_file, kafka.password),
     .help = "File with the SASL password."},

    {TEXT(config, topics.jobs, "session-jobs"), .check = check_topic,
     .help = "Where jobs are read from."},
    {TEXT(config, topics.results, "session-results"), .check = check_topic,
     .help = "Where each job's one event goes."},
    {TEXT(config, topics.progress, ""), .check = check_topic_or_none,
     .help = "Where progress is told while a job runs; \"\" = nowhere."},
    {TEXT(config, topics.dead_letters, "session-jobs-dlq"), .check = check_topic_or_none,
     .help = "Where records go that are no jobs; \"\" = nowhere."},

    {INT(config, jobs.max_in_flight, "1000", 1, 20000),
     .help = "Jobs that one worker has in hand at a time."},
    {INT(config, jobs.max_age_seconds, "21600", 0, 31536000),
     .help = "A job that has waited longer in the topic fails as expired; 0 = never."},
    {INT(config, jobs.timeout_seconds, "300", 1, 86400),
     .help = "Time for a job that does not say its own, from the head of its session's queue."},
    {INT(config, jobs.attempts, "3", 1, 10),
     .help = "How often a step is tried that went wrong in a way that may pass."},
    {INT(config, jobs.max_bytes, "262144", 1024, 262144),
     .help = "Size of a job's record; larger ones are dead letters."},
    {FLAG(config, jobs.require_key, "true"),
     .help = "Refuse records without a key: the key keeps a session's jobs in one partition and "
             "in order."},

    {INT(config, steps.create_seconds, "120", 1, 3600),
     .help = "Limit of making a sandbox."},
    {INT(config, steps.start_seconds, "120", 1, 3600),
     .help = "Limit of starting a sandbox that is stopped."},
    {INT(config, steps.launch_seconds, "180", 1, 3600),
     .help = "Limit from starting the server until it answers."},

    {TEXT(config, sandbox.snapshot, ""),
     .help = "Snapshot for jobs that name neither a snapshot nor an image; \"\" = the "
             "provider's default."},
    {INT(config, sandbox.auto_stop_minutes, "60", 0, MINUTES_MAX),
     .help = "An idle sandbox is stopped after this time; 0 = never."},
    {INT(config, sandbox.auto_archive_minutes, "1440", 0, MINUTES_MAX),
     .help = "A stopped sandbox is archived after this time; 0 = the provider's longest."},
    {INT(config, sandbox.auto_delete_minutes, "-1", -1, MINUTES_MAX), .check = check_auto_delete,
     .help = "A stopped sandbox is deleted after this time; -1 = never. Given alone, archiving "
             "moves behind it."},

    {LIST(config, session_key.secret_files, session_key.n_secret_files, ""), .check = check_given,
     .help = "Files with the secrets that session keys are derived from: the first signs, all "
             "are recognised."},

    {.path = "events.secrets", .kind = KEY_FLAG, .at = offsetof(struct config, events.with_secrets),
     .otherwise = "include", NAMES(shown),
     .help = "include or omit keys and tokens in session-ready."},

    {INT(config, sweep.every_seconds, "60", 1, 86400),
     .help = "How often left-behind sandboxes are looked for."},
    {FLAG(config, sweep.dry_run, "false"),
     .help = "Only log what the sweep would destroy."},

    {LIST(config, http.connect_to, http.n_connect_to, ""), .check = check_connect_to,
     .help = "Where a domain's hosts are, if no name server says so: "
             "\"proxy.localhost=10.0.0.7:4000\"."},

    {TEXT(config, admin.listen, "127.0.0.1:9464"), .check = check_listen,
     .help = "Address of metrics and health checks; \"\" = none."},

    {TEXT(config, log.level, "info"), NAMES(levels),
     .help = "debug, info, warn or error."},
    {TEXT(config, log.format, "auto"), NAMES(formats),
     .help = "logfmt, json, or auto: logfmt on a terminal, json elsewhere."},

    {INT(config, drain.timeout_seconds, "25", 1, 3600),
     .help = "Time to finish jobs after SIGTERM; what is not done then is left to the next "
             "worker."},
};
const size_t config_n_keys = ARRAY_LEN(config_keys);

const struct key config_provider_keys[] = {
    {TEXT(provider_config, name, "daytona"), .check = check_name,
     .help = "What jobs call it."},
    {TEXT(provider_config, type, "daytona"), .check = check_name,
     .help = "Whose API it speaks."},
    {TEXT(provider_config, api_url, "https://app.daytona.io/api"), .check = check_url,
     .help = "Base of its API."},
    {SECRET(provider_config, api_key_file, api_key),
     .help = "File with the API key; or set DAYTONA_API_KEY."},
    {LIST(provider_config, targets, n_targets, "us,eu"), .check = check_given,
     .help = "Regions for new sandboxes; the next is tried where there is no room."},
    {INT(provider_config, creates_per_minute, "300", 1, 1000000),
     .help = "The organization's limit of creations."},
    {KEY(provider_config, KEY_REAL, budget_share, "1.0"), .min = 0.001, .max = 1,
     .help = "Part of that limit that is this fleet's."},
};
const size_t config_n_provider_keys = ARRAY_LEN(config_provider_keys);
/* clang-format on */

const struct key *config_find(const struct key *keys, size_t n, const char *path)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(keys[i].path, path) == 0)
            return &keys[i];
    return NULL;
}
