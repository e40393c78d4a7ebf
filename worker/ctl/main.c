/* sessionctl: puts jobs in and reads events out, from a shell.
 *
 * A verb is one file and one line here. The command line is read with the common options and the
 * verb's own, anywhere behind the verb; then the verb runs, and its exit code is ours. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/stdfds.h"
#include "common/version.h"
#include "common/xalloc.h"
#include "worker/ctl/ctl.h"
#include "worker/io/kafka.h"

/* clang-format off */
static const struct verb *const verbs[] = {
    &verb_start,
    &verb_submit,
    &verb_stop,
    &verb_delete,
    &verb_watch,
    &verb_sessions,
    &verb_explain,
    &verb_top,
    &verb_dlq,
    &verb_check,
};
/* clang-format on */

/* clang-format off */
static const struct option common_options[] = {
    {"brokers", 'b', OPT_TEXT, offsetof(struct common, brokers), "HOST:PORT,...",
     "as kafka.brokers (default localhost:9092)", NULL, 0, 0},
    {"config", 'c', OPT_TEXT, offsetof(struct common, file), "FILE",
     "a worker.cfg: brokers, topics, TLS, defaults", NULL, 0, 0},
    {"set", 's', OPT_LIST, offsetof(struct common, sets), "KEY=VALUE",
     "over the file, such as topics.jobs=j2", NULL, 0, 0},
    {"output", 'o', OPT_CHOICE, offsetof(struct common, output), "text|json",
     "json: one object a line, events as they are", NULL, 0, 0},
    {"help", 'h', OPT_FLAG, offsetof(struct common, help), NULL,
     "this help, or that of the verb", NULL, 0, 0},
};
/* clang-format on */
static const struct option_table common_table = {common_options, ARRAY_LEN(common_options)};

static int print_help(void)
{
    struct buf out;
    buf_init(&out, 10000);
    buf_adds(&out, "usage: sessionctl VERB [OPTION]...\n\n");
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        buf_addf(&out, "  %-10s%s\n", verbs[i]->name, verbs[i]->summary);
    buf_adds(&out, "\nOptions of every verb:\n");
    options_print(&common_table, &out);
    buf_adds(&out,
             "\nExit codes: 0 done (ready, stopped, deleted), 1 failed, 2 usage or configuration,\n"
             "3 --wait ran out, 4 no broker answers. sessionctl VERB --help tells of one verb,\n"
             "sessionctl --version which version this is.\n");
    say_text(&out);
    buf_done(&out);
    return CTL_OK;
}

static int print_verb_help(const struct verb *v)
{
    struct buf out;
    buf_init(&out, 10000);
    buf_addf(&out, "usage: sessionctl %s %s\n%s\n\n", v->name, v->synopsis, v->summary);
    for (size_t t = 0; t < VERB_TABLES; t++)
        options_print(&v->tables[t], &out);
    buf_addf(&out, "  -b, -c, -s, -o            as for every verb: sessionctl --help\n\n%s",
             v->notes);
    say_text(&out);
    buf_done(&out);
    return CTL_OK;
}

/* NULL: complained. */
static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    if (*name == '-')
        complain("options go after the verb: sessionctl VERB %s (sessionctl --help)", name);
    else
        complain("unknown verb %s (sessionctl --help lists them)", name);
    return NULL;
}

static int run_parsed(const struct verb *v, struct common *args)
{
    if (args->help)
        return print_verb_help(v);
    if (args->operands.n > v->max_operands) {
        complain("%s: one argument too many: %s", v->name, args->operands.items[v->max_operands]);
        return CTL_USAGE;
    }
    return (int)v->run(args);
}

static int run_verb(const struct verb *v, int argc, char *const *argv)
{
    char error[OPTIONS_ERROR_SIZE];
    struct common *args = xcalloc(1, v->args_size); /* its first member */
    struct option_table tables[1 + VERB_TABLES] = {common_table, v->tables[0], v->tables[1]};
    struct option_input in = {tables, ARRAY_LEN(tables), args, &args->operands};
    int code = CTL_USAGE;
    if (options_parse(&in, argc, argv, error))
        code = run_parsed(v, args);
    else
        complain("%s: %s (sessionctl %s --help)", v->name, error, v->name);
    for (size_t t = 0; t < ARRAY_LEN(tables); t++)
        options_done(&tables[t], args);
    texts_done(&args->operands);
    free(args);
    return code;
}

static bool is_help(const char *word)
{
    return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int run(int argc, char *const *argv)
{
    if (argc < 2)
        return print_help(), CTL_USAGE;
    if (strcmp(argv[1], "--version") == 0)
        return puts("sessionctl " VERSION), CTL_OK;
    bool help = is_help(argv[1]);
    if (help && argc == 2)
        return print_help();
    const struct verb *v = find_verb(argv[help ? 2 : 1]);
    if (!v)
        return CTL_USAGE;
    return help ? print_verb_help(v) : run_verb(v, argc - 2, argv + 2);
}

int main(int argc, char **argv)
{
    stdfds_open();
    cJSON_InitHooks(&(cJSON_Hooks){xmalloc, free});
    int code = run(argc, argv), fault = output_fault();
    if (fault && fault != EPIPE) /* who reads no further wants no more */
        complain("standard output: %s", strerror(fault));
    if (fault && code == CTL_OK)
        code = CTL_FAILED;
    if (kafka_left_behind())
        _exit(code); /* stdout is flushed */
    return code;
}
