/* config: sources and their order, every mistake at once with its place, secrets, and the text. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/config.h"
#include "common/secret.h"
#include "common/xalloc.h"

static char folder[] = "/tmp/test-config-XXXXXX";
static struct buf errors;
static struct config cfg;

static int setup_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static int setup(void **state)
{
    (void)state;
    buf_init(&errors, 100000);
    return chdir(folder);
}

static int teardown(void **state)
{
    (void)state;
    config_done(&cfg);
    buf_done(&errors);
    return chdir("/");
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    chmod(name, 0640);
}

static void write_large(const char *name, size_t n)
{
    char *text = xmalloc(n + 1);
    memset(text, 'x', n);
    text[n] = '\0';
    write_file(name, text);
    free(text);
}

static const char *const key_only[] = {"DAYTONA_API_KEY=key-of-daytona", NULL};

/* Loads text as worker.cfg, with a key in the environment. */
static bool load_text(const char *text)
{
    struct config_source src = {.file = "worker.cfg", .environ = (char *const *)key_only};
    write_file("worker.cfg", text);
    bool ok = config_load(&src, &cfg, &errors);
    unlink("worker.cfg");
    return ok;
}

static bool load(const char *const *env, const char *const *sets, size_t n)
{
    struct config_source src = {.environ = (char *const *)env, .sets = sets, .n_sets = n};
    return config_load(&src, &cfg, &errors);
}

/* text is a file with exactly this mistake. */
static void check_mistake(const char *text, const char *error)
{
    buf_clear(&errors);
    assert_false(load_text(text));
    assert_string_equal(buf_text(&errors), error);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_true(load(key_only, NULL, 0));
    assert_string_equal(buf_text(&errors), "");
    assert_string_equal(cfg.fleet, "session-worker");
    assert_string_equal(cfg.kafka.brokers, "localhost:9092");
    assert_string_equal(cfg.kafka.group, "session-worker");
    assert_string_equal(cfg.kafka.instance, "");
    assert_string_equal(cfg.kafka.password, "");
    assert_int_equal(cfg.kafka.delivery, EXACTLY_ONCE);
    assert_int_equal(cfg.kafka.n_properties, 0);
    assert_string_equal(cfg.topics.jobs, "session-jobs");
    assert_string_equal(cfg.topics.results, "session-results");
    assert_string_equal(cfg.topics.progress, "");
    assert_string_equal(cfg.topics.dead_letters, "session-jobs-dlq");
    assert_int_equal(cfg.jobs.max_in_flight, 1000);
    assert_int_equal(cfg.jobs.max_age_seconds, 21600);
    assert_int_equal(cfg.jobs.timeout_seconds, 300);
    assert_int_equal(cfg.jobs.attempts, 3);
    assert_int_equal(cfg.jobs.max_bytes, 262144);
    assert_true(cfg.jobs.require_key);
    assert_int_equal(cfg.steps.create_seconds, 120);
    assert_int_equal(cfg.steps.start_seconds, 120);
    assert_int_equal(cfg.steps.launch_seconds, 180);
    assert_int_equal(cfg.n_providers, 1);
    assert_string_equal(cfg.providers[0].name, "daytona");
    assert_string_equal(cfg.providers[0].type, "daytona");
    assert_string_equal(cfg.providers[0].api_url, "https://app.daytona.io/api");
    assert_string_equal(cfg.providers[0].api_key, "key-of-daytona");
    assert_int_equal(cfg.providers[0].n_targets, 2);
    assert_string_equal(cfg.providers[0].targets[1], "eu");
    assert_int_equal(cfg.providers[0].creates_per_minute, 300);
    assert_true(cfg.providers[0].budget_share == 1.0);
    assert_string_equal(cfg.sandbox.snapshot, "");
    assert_int_equal(cfg.sandbox.auto_stop_minutes, 60);
    assert_int_equal(cfg.sandbox.auto_archive_minutes, 1440);
    assert_int_equal(cfg.sandbox.auto_delete_minutes, -1);
    assert_int_equal(cfg.session_key.n_secrets, 0);
    assert_true(cfg.events.with_secrets);
    assert_int_equal(cfg.sweep.every_seconds, 60);
    assert_false(cfg.sweep.dry_run);
    assert_string_equal(cfg.admin.listen, "127.0.0.1:9464");
    assert_string_equal(cfg.log.level, "info");
    assert_string_equal(cfg.log.format, "auto");
    assert_int_equal(cfg.drain.timeout_seconds, 25);
}

static void test_file(void **state)
{
    (void)state;
    assert_true(load_text("# comment \"with 99999999999 in it\"\n"
                          "fleet = \"blue-1\"; // 0x12\n"
                          "/* 99999999999\n @include \"x\" */\n"
                          "kafka = { brokers = \"a:1,b:2\"; delivery = \"at_least_once\";\n"
                          "          properties = [ \"security.protocol=SASL_SSL\", "
                          "\"sasl.mechanism=PLAIN\" ]; };\n"
                          "jobs : { attempts = 5, require_key = FALSE }\n"
                          "topics = { progress = \"p\"; dead_letters = \"\"; };\n"
                          "events = { secrets = \"omit\"; };\n"
                          "sandbox = { auto_delete_minutes = 60; };\n"
                          "providers = ( { name = \"eu-1\"; api_url = "
                          "\"http://127.0.0.1:3986/api/\"; targets = ( \"eu\" );\n"
                          "                budget_share = 0.5; api_key_file = \"/dev/null\"; },\n"
                          "              { budget_share = 1; creates_per_minute = 10; } );\n") ==
                false);
    assert_string_equal(
        buf_text(&errors),
        "/dev/null: providers.eu-1.api_key_file must hold at least 1 bytes (holds 0)\n");
    buf_clear(&errors);
    write_file("key", "the-key-itself\n");
    assert_true(load_text(
        "fleet = \"blue-1\";\n"
        "kafka = { brokers = \"a:1,b:2\"; delivery = \"at_least_once\";\n"
        "          properties = [ \"security.protocol=SASL_SSL\", \"sasl.mechanism=PLAIN\" ]; };\n"
        "jobs : { attempts = 5, require_key = FALSE }\n"
        "topics = { progress = \"p\"; dead_letters = \"\"; };\n"
        "events = { secrets = \"omit\"; };\n"
        "sandbox = { auto_delete_minutes = 60; };\n"
        "providers = ( { name = \"eu-1\"; api_url = \"http://127.0.0.1:3986/api/\"; targets = ( "
        "\"eu\" );\n"
        "                budget_share = 0.5; api_key_file = \"key\"; },\n"
        "              { budget_share = 1; creates_per_minute = 10; } );\n"));
    unlink("key");
    assert_string_equal(cfg.fleet, "blue-1");
    assert_string_equal(cfg.kafka.brokers, "a:1,b:2");
    assert_int_equal(cfg.kafka.delivery, AT_LEAST_ONCE);
    assert_int_equal(cfg.kafka.n_properties, 2);
    assert_string_equal(cfg.kafka.properties[1], "sasl.mechanism=PLAIN");
    assert_int_equal(cfg.jobs.attempts, 5);
    assert_false(cfg.jobs.require_key);
    assert_string_equal(cfg.topics.progress, "p");
    assert_string_equal(cfg.topics.dead_letters, "");
    assert_false(cfg.events.with_secrets);
    assert_int_equal(cfg.sandbox.auto_archive_minutes, 120); /* behind deleting */
    assert_int_equal(cfg.n_providers, 2);
    assert_string_equal(cfg.providers[0].name, "eu-1");
    assert_string_equal(cfg.providers[0].api_url, "http://127.0.0.1:3986/api");
    assert_string_equal(cfg.providers[0].api_key, "the-key-itself");
    assert_int_equal(cfg.providers[0].n_targets, 1);
    assert_true(cfg.providers[0].budget_share == 0.5);
    assert_string_equal(cfg.providers[1].name, "daytona");
    assert_string_equal(cfg.providers[1].api_key, "key-of-daytona");
    assert_int_equal(cfg.providers[1].creates_per_minute, 10);
}

static void test_mistakes(void **state)
{
    (void)state;
    check_mistake("jobs = { attempts = 0; };\n",
                  "worker.cfg:1: jobs.attempts must be 1 to 10 (is 0)\n");
    check_mistake("\njobs = {\n attempts = 3.5; };",
                  "worker.cfg:3: jobs.attempts must be 1 to 10 (is 3.5)\n");
    check_mistake("jobs = { attempts = \"3\"; };",
                  "worker.cfg:1: jobs.attempts must be 1 to 10 (is 3)\n");
    check_mistake("jobs = { require_key = 1; };",
                  "worker.cfg:1: jobs.require_key must be one of false, true (is 1)\n");
    check_mistake("jobs = { require_key = \"true\"; };",
                  "worker.cfg:1: jobs.require_key must be one of false, true (is true)\n");
    check_mistake("events = { secrets = true; };",
                  "worker.cfg:1: events.secrets must be one of omit, include (is true)\n");
    check_mistake("kafka = { brokers = 9092; };",
                  "worker.cfg:1: kafka.brokers must be a text in quotes (is 9092)\n");
    check_mistake("kafka = { brokers = [ \"a\" ]; };",
                  "worker.cfg:1: kafka.brokers must be a text in quotes\n");
    check_mistake("kafka = { properties = \"a=b\"; };",
                  "worker.cfg:1: kafka.properties must be a list of texts: [ \"…\", \"…\" ]\n");
    check_mistake("kafka = { properties = [ 1 ]; };",
                  "worker.cfg:1: kafka.properties must be a list of texts: [ \"…\", \"…\" ]\n");
    check_mistake("kafka = { properties = [ \"group.id=x\" ]; };",
                  "worker.cfg:1: kafka.properties must not hold group.id: use kafka.group\n");
    check_mistake("kafka = { properties = [ \"x\" ]; };",
                  "worker.cfg:1: kafka.properties must hold texts of the form name=value\n");
    check_mistake(
        "kafka = { delivery = \"once\"; };",
        "worker.cfg:1: kafka.delivery must be one of exactly_once, at_least_once (is once)\n");
    check_mistake("kafka = \"localhost\";",
                  "worker.cfg:1: kafka must be a group: kafka = { … };\n");
    check_mistake("jobs = { attemps = 3; };",
                  "worker.cfg:1: jobs.attemps is no key (did you mean jobs.attempts?)\n");
    check_mistake("providers = ( { api_uri = \"http://x\"; } );",
                  "worker.cfg:1: providers[0].api_uri is no key (did you mean api_url?)\n");
    check_mistake("providers = { };", "worker.cfg:1: providers must be ( { … }, … )\n");
    check_mistake("providers = ( 1 );", "worker.cfg:1: providers must be ( { … }, … )\n");
    check_mistake("providers = ( );", "worker.cfg:1: providers must be ( { … }, … )\n");
    check_mistake("kafka = { x = 1; };",
                  "worker.cfg:1: kafka.x is no key (--print-defaults shows them all)\n");
    check_mistake("kaf = { group = \"g\"; };",
                  "worker.cfg:1: kaf is no key (--print-defaults shows them all)\n");
    check_mistake("topics = { jobs = \"..\"; };", "worker.cfg:1: topics.jobs must be 1 to 249 of "
                                                  "letters, digits, '.', '_' and '-' (is ..)\n");
    check_mistake("jobs = { attempts = -1; };",
                  "worker.cfg:1: jobs.attempts must be 1 to 10 (is -1)\n");
    check_mistake("jobs = { attempts = -1.9; };",
                  "worker.cfg:1: jobs.attempts must be 1 to 10 (is -1.9)\n");
    check_mistake("admin = { listen = \":9464\"; };",
                  "worker.cfg:1: admin.listen must be host:port, or empty for none (is :9464)\n");
    check_mistake("admin = { listen = \"x:\"; };",
                  "worker.cfg:1: admin.listen must be host:port, or empty for none (is x:)\n");
    check_mistake("kafka = { group = \"a\\x1bb\"; };",
                  "worker.cfg:1: kafka.group must have no control characters (is a?b)\n");
    check_mistake("providers = ( { targets = [ \"eu\", \"u\\x7fs\" ]; } );",
                  "worker.cfg:1: providers[0].targets must have no control characters\n");
    check_mistake("providers = ( {}, {} );",
                  "configuration: providers has two called daytona\n"
                  "configuration: providers.daytona.api_key is missing: set DAYTONA_API_KEY or "
                  "DAYTONA_API_KEY_FILE, or api_key_file in the file\n");
    check_mistake(
        "providers = ( { name = \"e2b\"; } );",
        "configuration: providers.e2b.api_key is missing: set providers.e2b.api_key_file\n");
    check_mistake("providers = ( { budget_share = 1.5; } );",
                  "worker.cfg:1: providers[0].budget_share must be 0.001 to 1 (is 1.5)\n");
    check_mistake("topics = { results = \"session-jobs\"; };",
                  "configuration: topics must differ (session-jobs is there twice)\n");
    check_mistake("topics = { results = \"\"; };",
                  "worker.cfg:1: topics.results must be 1 to 249 of letters, digits, '.', '_' and "
                  "'-' (is empty)\n");
    check_mistake("fleet = \"Blue\";",
                  "worker.cfg:1: fleet must be 1 to 40 of a-z, 0-9 and - (is Blue)\n");
    check_mistake("fleet = \"www\";", "worker.cfg:1: fleet must not end in www (is www)\n");
    check_mistake(
        "kafka = { group = \"My.Group\"; };",
        "configuration: fleet is kafka.group unless it is given, and must be 1 to 40 of a-z, "
        "0-9 and - (is My.Group): set fleet\n");
    check_mistake("admin = { listen = \"9464\"; };",
                  "worker.cfg:1: admin.listen must be host:port, or empty for none (is 9464)\n");
    check_mistake("admin = { listen = \":65536\"; };",
                  "worker.cfg:1: admin.listen must be host:port, or empty for none (is :65536)\n");
    check_mistake(
        "sandbox = { auto_delete_minutes = 0; };",
        "worker.cfg:1: sandbox.auto_delete_minutes must be -1 (never) or at least 1 (is 0)\n");
    check_mistake("jobs = { attempts = 3; attempts = 4; };",
                  "worker.cfg:1: duplicate setting name\n");
    check_mistake("jobs = {", "worker.cfg:1: syntax error\n");
}

/* n letters as the value of key: accepted up to most. */
static void check_length(const char *key, const char *before, size_t most)
{
    char set[2000];
    const char *const sets[] = {set};
    for (size_t n = most - 1; n <= most + 1; n++) {
        int head = snprintf(set, sizeof set, "%s=%s", key, before);
        size_t letters = n - strlen(before);
        memset(set + head, 'w' - 1, letters);
        set[(size_t)head + letters] = '\0';
        assert_int_equal(load(key_only, sets, 1), n <= most);
        config_done(&cfg);
    }
}

static void test_lengths(void **state)
{
    (void)state;
    check_length("fleet", "", 40);
    check_length("topics.jobs", "", 249);
    check_length("providers.daytona.api_url", "http://", 1024);
}

static void test_names_of_providers(void **state)
{
    (void)state;
    static const char *const env[] = {"SESSION_WORKER_PROVIDERS_A_B_API_KEY=key-of-ab",
                                      "SESSION_WORKER_PROVIDERS_XYZ_API_KEY=key~of~xyz", NULL};
    static const char *const sets[] = {"providers.xyz.targets=only-xyz"};
    struct config_source src = {.file = "worker.cfg",
                                .environ = (char *const *)env,
                                .sets = sets,
                                .n_sets = ARRAY_LEN(sets)};
    write_file("worker.cfg", "providers = ( { name = \"a-b\"; }, { name = \"xyz\"; } );\n");
    assert_true(config_load(&src, &cfg, &errors));
    unlink("worker.cfg");
    assert_string_equal(cfg.providers[0].api_key, "key-of-ab");
    assert_string_equal(cfg.providers[1].api_key, "key~of~xyz");
    assert_string_equal(cfg.providers[0].targets[0], "us");
    assert_string_equal(cfg.providers[1].targets[0], "only-xyz");
}

static void test_urls(void **state)
{
    (void)state;
    static const char *const good[] = {"http://127.0.0.1:3986/api", "https://app.daytona.io/api",
                                       "https://x", "http://[::1]:80/", "https://h/a%20b/~c"};
    static const char *const bad[] = {"",
                                      "app.daytona.io",
                                      "ftp://x",
                                      "https://",
                                      "https:///x",
                                      "https://u:p@h/api",
                                      "https://h?a=b",
                                      "https://h#a",
                                      "https://h /",
                                      "HTTPS://x",
                                      "http://:80"};
    char set[200];
    const char *const sets[] = {set};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        snprintf(set, sizeof set, "providers.daytona.api_url=%s", good[i]);
        assert_true(load(key_only, sets, 1));
        config_done(&cfg);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(set, sizeof set, "providers.daytona.api_url=%s", bad[i]);
        buf_clear(&errors);
        assert_false(load(key_only, sets, 1));
        assert_non_null(strstr(buf_text(&errors), "must be http://"));
    }
}

/* What libconfig would read as another number, or open, never gets to it. */
static void test_numbers_that_wrap(void **state)
{
    (void)state;
    static const char *const bad[] = {"4294967297",  "99999999999999999999",
                                      "2147483648",  "0x10",
                                      "4294967297L", "1e3",
                                      "- 3",         "3x",
                                      "1.5.1",       "."};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char text[100];
        buf_clear(&errors);
        snprintf(text, sizeof text, "jobs = {\n  attempts = %s; };\n", bad[i]);
        assert_false(load_text(text));
        assert_non_null(strstr(buf_text(&errors), "worker.cfg:2: "));
    }
    check_mistake("log = { level = \"a\\\"b\"; };\njobs = { attempts = 4294967297; };",
                  "worker.cfg:1: log.level must be one of debug, info, warn, error (is a\"b)\n"
                  "worker.cfg:2: jobs.attempts must be 1 to 10 (is 4294967297)\n");
    check_mistake("log = { level = \"x\n\"; }; n = 4294967297;",
                  "worker.cfg:1: log.level must be one of debug, info, warn, error (is x?)\n"
                  "worker.cfg:2: n is no key (--print-defaults shows them all)\n");
    check_mistake("fleet = 99999999999;",
                  "worker.cfg:1: fleet must be a text in quotes (is 99999999999)\n");
    check_mistake("providers = ( { targets = [ 99999999999 ]; budget_share = 1e0; } );",
                  "worker.cfg:1: providers[0].targets must be a list of texts: [ \"…\", \"…\" ]\n"
                  "worker.cfg:1: providers[0].budget_share must be 0.001 to 1 (is 1e0)\n");
    check_mistake("sweep = { dry_run = 0x1; };",
                  "worker.cfg:1: sweep.dry_run must be one of false, true (is 0x1)\n");
    check_mistake("kafka = { brokers = \"h:1\" 0x2; };", /* strings side by side are one */
                  "worker.cfg:1: kafka.brokers must be a text in quotes (is h:1?0x2)\n");
    check_mistake("kafka = { properties = [ \"a=b\" 0x2 ]; };",
                  "worker.cfg:1: kafka.properties must be a list of texts: [ \"…\", \"…\" ]\n");
    check_mistake("\n @include \"/etc/hostname\"\n",
                  "worker.cfg:2: @include and other directives are not allowed\n");
    assert_true(load_text("log = { level = \"info\"; }; /* @ 4294967297 \"*/ # @ 4294967297\n"));
}

/* libconfig would drop it: "a" NUL "b" became ab. */
static void test_a_nul_in_a_string(void **state)
{
    (void)state;
    check_mistake("\nkafka = { brokers = \"a\\x00b:1\"; };",
                  "worker.cfg:2: kafka.brokers must have no control characters (is a?b:1)\n");
    check_mistake("kafka = { brokers = \"a\"\n\"\\X00b:1\"; };",
                  "worker.cfg:1: kafka.brokers must have no control characters (is a?b:1)\n");
    check_mistake("log = { level = \"info\\x00\"; };",
                  "worker.cfg:1: log.level must be one of debug, info, warn, error (is info?)\n");
    check_mistake("kafka = {\n properties = [ \"a=b\\x00c\" ]; };",
                  "worker.cfg:2: kafka.properties must have no control characters\n");
    check_mistake("providers = ( { api_key_file = \"key\\x00\"; } );",
                  "worker.cfg:1: providers[0].api_key_file must have no control characters (is "
                  "key?)\n");
    assert_true(load_text("kafka = { group = \"a\\\\x00b\\x41\"; }; fleet = \"f\"; # \"\\x00\"\n"));
    assert_string_equal(cfg.kafka.group, "a\\x00bA");
}

static void test_brokers_without_a_host(void **state)
{
    (void)state;
    check_mistake("kafka = { brokers = \"\"; };",
                  "worker.cfg:1: kafka.brokers must hold at least one host:port (is empty)\n");
    check_mistake("kafka = { brokers = \" , ,\"; };",
                  "worker.cfg:1: kafka.brokers must hold at least one host:port (is  , ,)\n");
    assert_true(load_text("kafka = { brokers = \", a:1\"; };"));
}

static void test_files_that_are_refused(void **state)
{
    (void)state;
    struct config_source src = {.file = "worker.cfg", .environ = (char *const *)key_only};
    assert_false(config_load(&src, &cfg, &errors));
    assert_string_equal(buf_text(&errors), "worker.cfg: No such file or directory\n");
    write_file("worker.cfg", "fleet = \"x\";\n");
    chmod("worker.cfg", 0666);
    buf_clear(&errors);
    assert_false(config_load(&src, &cfg, &errors));
    assert_string_equal(buf_text(&errors),
                        "worker.cfg: must not be writable by everybody (chmod o-w)\n");
    char *large = xmalloc(262146);
    memset(large, ' ', 262145);
    large[262145] = '\0';
    write_file("worker.cfg", large);
    buf_clear(&errors);
    assert_false(config_load(&src, &cfg, &errors));
    assert_string_equal(buf_text(&errors), "worker.cfg: must not be larger than 256 KiB\n");
    large[262144] = '\0';
    write_file("worker.cfg", large);
    assert_true(config_load(&src, &cfg, &errors));
    free(large);
    unlink("worker.cfg");
    src.file = "/";
    config_done(&cfg);
    buf_clear(&errors);
    assert_false(config_load(&src, &cfg, &errors));
    assert_string_equal(buf_text(&errors), "/: must be a regular file\n");
}

static void test_order(void **state)
{
    (void)state;
    static const char *const env[] = {
        "DAYTONA_API_KEY=key-of-daytona",
        "SESSION_WORKER_JOBS_ATTEMPTS=6",
        "SESSION_WORKER_JOBS_MAX_BYTES=2048",
        "SESSION_WORKER_KAFKA_PROPERTIES=a=b,c=d",
        "SESSION_WORKER_ADMIN_LISTEN=",
        "SESSION_WORKER_JOBS_REQUIRE_KEY=false",
        "SESSION_WORKER_PROVIDERS_DAYTONA_BUDGET_SHARE=0.25",
        "DAYTONA_API_URL=http://localhost:1/api",
        "DAYTONA_TARGET=us",
        "SESSION_WORKER_PROVIDERS_DAYTONA_API_URL=http://localhost:2/api",
        "PATH=/bin",
        NULL};
    static const char *const sets[] = {"jobs.max_bytes=4096", "jobs.max_bytes=8192",
                                       "events.secrets=omit", "providers.daytona.targets=a,b,c"};
    struct config_source src = {.file = "worker.cfg",
                                .environ = (char *const *)env,
                                .sets = sets,
                                .n_sets = ARRAY_LEN(sets)};
    write_file("worker.cfg", "jobs = { attempts = 5; max_bytes = 1024; timeout_seconds = 9; };\n");
    assert_true(config_load(&src, &cfg, &errors));
    unlink("worker.cfg");
    assert_int_equal(cfg.jobs.timeout_seconds, 9);  /* file */
    assert_int_equal(cfg.jobs.attempts, 6);         /* environment > file */
    assert_int_equal(cfg.jobs.max_bytes, 8192);     /* -s > environment, the last -s */
    assert_int_equal(cfg.jobs.max_in_flight, 1000); /* default */
    assert_false(cfg.jobs.require_key);
    assert_int_equal(cfg.kafka.n_properties, 2);
    assert_string_equal(cfg.kafka.properties[1], "c=d");
    assert_string_equal(cfg.admin.listen, "");
    assert_false(cfg.events.with_secrets);
    assert_true(cfg.providers[0].budget_share == 0.25);
    assert_string_equal(cfg.providers[0].api_url, "http://localhost:2/api"); /* ours > Daytona's */
    assert_int_equal(cfg.providers[0].n_targets, 3);
}

static void test_origins(void **state)
{
    (void)state;
    static const char *const env[] = {"SESSION_WORKER_JOBS_ATTEMPTS=eleven",
                                      "SESSION_WORKER_JOB_ATTEMPTS=3",
                                      "SESSION_WORKER_SERVICE_HOST=10.0.0.1",
                                      "SESSION_WORKER_PORT=tcp://10.0.0.1:9464",
                                      "SESSION_WORKER_PORT_9464_TCP_ADDR=10.0.0.1",
                                      "SESSION_WORKER_METRICS_SERVICE_PORT=9464",
                                      "SESSION_WORKERS=3",
                                      "DAYTONA_API_URL=daytona",
                                      "DAYTONA_API_KEY=",
                                      NULL};
    static const char *const sets[] = {"jobs.attempts", "jobs.attempts=", "job.attempts=3",
                                       "kafka.password=hunter2hunter2", "providers.e2b.name=x"};
    assert_false(load(env, sets, ARRAY_LEN(sets)));
    assert_string_equal(
        buf_text(&errors),
        "DAYTONA_API_URL: api_url must be http://… or https://…, without user, query or fragment "
        "(is daytona)\n"
        "SESSION_WORKER_JOBS_ATTEMPTS: jobs.attempts must be 1 to 10 (is eleven)\n"
        "SESSION_WORKER_JOB_ATTEMPTS: is no key (SESSION_WORKER_ and the path in capitals, with _ "
        "for .)\n"
        "-s: jobs.attempts must be KEY=VALUE\n"
        "-s: jobs.attempts must be 1 to 10 (is empty)\n"
        "-s: job.attempts is no key (did you mean jobs.attempts?)\n"
        "-s: kafka.password is no key (did you mean kafka.password_file?)\n"
        "-s: providers.e2b.name is no key (did you mean name?)\n"
        "configuration: providers.daytona.api_key is missing: set DAYTONA_API_KEY or "
        "DAYTONA_API_KEY_FILE, or api_key_file in the file\n");
    assert_null(strstr(buf_text(&errors), "hunter2"));
}

static void test_secrets(void **state)
{
    (void)state;
    static const char *const env[] = {"DAYTONA_API_KEY_FILE=key",
                                      "SESSION_WORKER_KAFKA_PASSWORD_FILE=password",
                                      "SESSION_WORKER_SESSION_KEY_SECRET_FILES=one,two", NULL};
    write_file("key", "key-of-daytona\r\n");
    write_file("password", "pass word\n");
    write_file("one", "0123456789abcdef\n");
    write_file("two", "fedcba9876543210-longer");
    assert_true(load(env, NULL, 0));
    assert_string_equal(cfg.providers[0].api_key, "key-of-daytona");
    assert_string_equal(cfg.kafka.password, "pass word");
    assert_int_equal(cfg.session_key.n_secrets, 2);
    assert_string_equal(cfg.session_key.secrets[0], "0123456789abcdef");
    assert_string_equal(cfg.session_key.secrets[1], "fedcba9876543210-longer");
    struct buf b;
    buf_init(&b, 1000);
    redact("key-of-daytona pass word 0123456789abcdef", 41, &b);
    assert_string_equal(buf_text(&b), "*** *** ***");
    config_done(&cfg);
    buf_clear(&b);
    redact("key-of-daytona", 14, &b);
    assert_string_equal(buf_text(&b), "key-of-daytona");
    buf_done(&b);
    write_file("one", "0123456789abcde\n");
    write_file("key", "two words");
    assert_false(load(env, NULL, 0));
    assert_string_equal(
        buf_text(&errors),
        "one: session_key.secret_files must hold at least 16 bytes (holds 15)\n"
        "configuration: providers.daytona.api_key must be printable ASCII without spaces\n");
    write_large("one", 65537);
    write_file("key", "key-of-daytona");
    buf_clear(&errors);
    assert_false(load(env, NULL, 0));
    assert_string_equal(buf_text(&errors),
                        "one: session_key.secret_files must be a text of at most 65536 bytes\n");
    unlink("one");
    buf_clear(&errors);
    assert_false(load(env, NULL, 0));
    assert_string_equal(buf_text(&errors), "one: session_key.secret_files cannot be read: No such "
                                           "file or directory\n");
    unlink("key");
    unlink("password");
    unlink("two");
}

/* Another process writes these pieces into fd, or into a FIFO by this name, with pauses. */
static pid_t write_slowly(int fd, const char *name, const char *const *pieces)
{
    pid_t writer = fork();
    if (writer != 0)
        return writer;
    if (name)
        fd = open(name, O_WRONLY);
    for (; *pieces; pieces++) {
        usleep(200000);
        if (write(fd, *pieces, strlen(*pieces)) < 0)
            _exit(1);
    }
    _exit(0);
}

static void test_a_secret_in_pieces(void **state)
{
    (void)state;
    static const char *const pieces[] = {"abc!", "def", "-ghi\n", NULL}, *const none[] = {NULL};
    static const char *const env[] = {"DAYTONA_API_KEY_FILE=fifo", NULL};
    assert_int_equal(mkfifo("fifo", 0600), 0);
    pid_t writer = write_slowly(-1, "fifo", pieces);
    assert_true(load(env, NULL, 0));
    assert_string_equal(cfg.providers[0].api_key, "abc!def-ghi");
    waitpid(writer, NULL, 0);
    config_done(&cfg);
    writer = write_slowly(-1, "fifo", none);
    assert_false(load(env, NULL, 0));
    assert_string_equal(
        buf_text(&errors),
        "fifo: providers.daytona.api_key_file must hold at least 1 bytes (holds 0)\n");
    waitpid(writer, NULL, 0);
    unlink("fifo");
}

/* <(…) of a shell. */
static void test_a_secret_from_a_pipe(void **state)
{
    (void)state;
    static const char *const pieces[] = {"abc!", "def", "-ghi\n", NULL}, *const none[] = {NULL};
    for (int i = 0; i < 2; i++) {
        int ends[2];
        char name[64];
        assert_int_equal(pipe(ends), 0);
        snprintf(name, sizeof name, "DAYTONA_API_KEY_FILE=/dev/fd/%d", ends[0]);
        const char *const env[] = {name, NULL};
        pid_t writer = write_slowly(ends[1], NULL, i ? none : pieces);
        close(ends[1]);
        assert_int_equal(load(env, NULL, 0), i == 0);
        if (i == 0)
            assert_string_equal(cfg.providers[0].api_key, "abc!def-ghi");
        waitpid(writer, NULL, 0);
        close(ends[0]);
        config_done(&cfg);
    }
    assert_non_null(strstr(buf_text(&errors), " must hold at least 1 bytes (holds 0)\n"));
}

static void test_secrets_that_are_none(void **state)
{
    (void)state;
    static const struct {
        const char *env[2], *error;
    } cases[] = {
        {{"DAYTONA_API_KEY_FILE=fifo"},
         "fifo: providers.daytona.api_key_file cannot be read: it is a pipe that nobody writes "
         "to\n"},
        {{"DAYTONA_API_KEY_FILE=/"},
         "/: providers.daytona.api_key_file cannot be read: Is a directory\n"},
        {{"DAYTONA_API_KEY_FILE=/dev/zero"},
         "/dev/zero: providers.daytona.api_key_file must be a text of at most 65536 bytes\n"},
    };
    assert_int_equal(mkfifo("fifo", 0600), 0);
    alarm(60); /* what hangs ends the program */
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_clear(&errors);
        assert_false(load(cases[i].env, NULL, 0));
        assert_string_equal(buf_text(&errors), cases[i].error);
    }
    alarm(0);
    unlink("fifo");
}

/* The stronger source wins whether it gives the secret or the file. */
static void test_secret_order(void **state)
{
    (void)state;
    static const char *const env[] = {"DAYTONA_API_KEY=from-environment",
                                      "SESSION_WORKER_KAFKA_PASSWORD=direct-password", NULL};
    static const char *const ours[] = {"DAYTONA_API_KEY=from-environment",
                                       "SESSION_WORKER_PROVIDERS_DAYTONA_API_KEY=from-ours", NULL};
    static const char *const sets[] = {"providers.daytona.api_key_file=key"};
    write_file("key", "from-file");
    assert_true(load(env, sets, 1));
    assert_string_equal(cfg.providers[0].api_key, "from-file");
    assert_string_equal(cfg.kafka.password, "direct-password");
    config_done(&cfg);
    assert_true(load(ours, NULL, 0));
    assert_string_equal(cfg.providers[0].api_key, "from-ours");
    config_done(&cfg);
    struct config_source src = {.file = "worker.cfg", .environ = (char *const *)env};
    write_file("worker.cfg", "providers = ( { api_key_file = \"key\"; } );\n");
    assert_true(config_load(&src, &cfg, &errors));
    assert_string_equal(cfg.providers[0].api_key, "from-environment");
    unlink("worker.cfg");
    unlink("key");
}

/* Of a variable and the one that names a file, in the same environment, neither is the stronger. */
static void test_secret_and_file(void **state)
{
    (void)state;
    static const char *const both[] = {"DAYTONA_API_KEY_FILE=/none",
                                       "DAYTONA_API_KEY=from-environment",
                                       "SESSION_WORKER_KAFKA_PASSWORD=from-environment",
                                       "SESSION_WORKER_KAFKA_PASSWORD_FILE=/none",
                                       "OTHER=1",
                                       "OTHER_FILE=1",
                                       NULL};
    static const char *const one[] = {"DAYTONA_API_KEY_FILE=", "DAYTONA_API_KEY=from-environment",
                                      "SESSION_WORKER_KAFKA_PASSWORD=from-environment",
                                      "SESSION_WORKER_KAFKA_PASSWORD_FILE=", NULL};
    assert_false(load(both, NULL, 0));
    assert_non_null(strstr(buf_text(&errors), "DAYTONA_API_KEY: is set, and so is "
                                              "DAYTONA_API_KEY_FILE: set only one of them\n"));
    assert_non_null(strstr(buf_text(&errors),
                           "SESSION_WORKER_KAFKA_PASSWORD: is set, and so is "
                           "SESSION_WORKER_KAFKA_PASSWORD_FILE: set only one of them\n"));
    assert_null(strstr(buf_text(&errors), "OTHER"));
    buf_clear(&errors);
    assert_true(load(one, NULL, 0));
    assert_string_equal(cfg.providers[0].api_key, "from-environment");
}

static void test_client_needs_no_key(void **state)
{
    (void)state;
    struct config_source src = {.client = true};
    assert_true(config_load(&src, &cfg, &errors));
    assert_string_equal(cfg.providers[0].api_key, "");
    config_done(&cfg);
    src.client = false;
    assert_false(config_load(&src, &cfg, &errors));
}

static void test_a_list_with_a_mistake_is_not_shown(void **state)
{
    (void)state;
    static const char *const env[] = {"DAYTONA_API_KEY=key-of-daytona",
                                      "SESSION_WORKER_KAFKA_PROPERTIES=sasl.password=hunter2,rack",
                                      NULL};
    static const char *const sets[] = {"kafka.properties=ssl.key.password=hunter3,group.id=g"};
    assert_false(load(env, sets, ARRAY_LEN(sets)));
    assert_string_equal(
        buf_text(&errors),
        "SESSION_WORKER_KAFKA_PROPERTIES: kafka.properties must hold texts of the form "
        "name=value\n-s: kafka.properties must not hold group.id: use kafka.group\n");
}

static void test_print_hides_secrets(void **state)
{
    (void)state;
    static const char *const sets[] = {
        "kafka.properties=sasl.password=hunter2hunter2,ssl.key.password=other-one,client.rack=r1",
        "kafka.group=a-\"b\\"};
    static const char *const env[] = {"DAYTONA_API_KEY=key-of-daytona",
                                      "SESSION_WORKER_KAFKA_PASSWORD=direct-password",
                                      "SESSION_WORKER_FLEET=f", NULL};
    struct buf text;
    buf_init(&text, 100000);
    assert_true(load(env, sets, ARRAY_LEN(sets)));
    config_print(&cfg, &text);
    assert_null(strstr(buf_text(&text), "hunter2"));
    assert_null(strstr(buf_text(&text), "other-one"));
    assert_null(strstr(buf_text(&text), "key-of-daytona"));
    assert_null(strstr(buf_text(&text), "direct-password"));
    assert_non_null(strstr(buf_text(&text), "api_key_file = \"\"; # ***"));
    assert_non_null(strstr(buf_text(&text), "password_file = \"\"; # ***"));
    assert_non_null(
        strstr(buf_text(&text),
               "[ \"sasl.password=***\", \"ssl.key.password=***\", \"client.rack=r1\" ]"));
    assert_non_null(strstr(buf_text(&text), "group = \"a-\\\"b\\\\\";"));
    buf_done(&text);
}

/* What is printed is read back as the same. */
static void test_print_round(void **state)
{
    (void)state;
    static const char *const sets[] = {"fleet=x-1",
                                       "kafka.delivery=at_least_once",
                                       "kafka.group=a\tb\"\\c",
                                       "jobs.attempts=9",
                                       "events.secrets=omit",
                                       "providers.daytona.budget_share=0.125",
                                       "sweep.dry_run=true",
                                       "providers.daytona.targets=x,y,my-\"secret\"=z",
                                       "sandbox.auto_delete_minutes=100"};
    struct buf first, second;
    buf_init(&first, 100000);
    buf_init(&second, 100000);
    assert_true(load(key_only, sets, ARRAY_LEN(sets)));
    config_print(&cfg, &first);
    config_done(&cfg);
    assert_true(load_text(buf_text(&first)));
    config_print(&cfg, &second);
    assert_string_equal(buf_text(&first), buf_text(&second));
    assert_string_equal(cfg.kafka.group, "a\tb\"\\c");
    assert_int_equal(cfg.sandbox.auto_archive_minutes, 160);
    buf_done(&first);
    buf_done(&second);
}

static char *shipped; /* config/worker.cfg as it lies in the tree */

static void test_shipped_file(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, 100000);
    config_print_defaults(&text);
    assert_non_null(shipped);
    assert_string_equal(buf_text(&text), shipped);
    assert_true(load_text(shipped));
    struct buf a, b;
    buf_init(&a, 100000);
    buf_init(&b, 100000);
    config_print(&cfg, &a);
    config_done(&cfg);
    assert_true(load(key_only, NULL, 0));
    config_print(&cfg, &b);
    assert_string_equal(buf_text(&a), buf_text(&b));
    buf_done(&a);
    buf_done(&b);
    buf_done(&text);
}

static char *read_shipped(void)
{
    FILE *f = fopen("config/worker.cfg", "r");
    char *text = xcalloc(1, 100000);
    if (f && fread(text, 1, 99999, f) == 0)
        text[0] = '\0';
    if (f)
        fclose(f);
    return text;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    shipped = read_shipped();
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),
        TEST(test_file),
        TEST(test_mistakes),
        TEST(test_lengths),
        TEST(test_names_of_providers),
        TEST(test_urls),
        TEST(test_numbers_that_wrap),
        TEST(test_a_nul_in_a_string),
        TEST(test_brokers_without_a_host),
        TEST(test_files_that_are_refused),
        TEST(test_order),
        TEST(test_origins),
        TEST(test_secrets),
        TEST(test_a_secret_in_pieces),
        TEST(test_a_secret_from_a_pipe),
        TEST(test_secrets_that_are_none),
        TEST(test_secret_order),
        TEST(test_secret_and_file),
        TEST(test_client_needs_no_key),
        TEST(test_a_list_with_a_mistake_is_not_shown),
        TEST(test_print_hides_secrets),
        TEST(test_print_round),
        TEST(test_shipped_file),
    };
    int failed = cmocka_run_group_tests_name("config", tests, setup_folder, teardown_folder);
    free(shipped);
    return failed;
}
