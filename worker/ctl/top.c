/* sessionctl top: the workers at this moment, drawn anew every second.
 *
 * Knows only the admin ports: it works when Kafka does not. Where the output is no terminal, or
 * with -n, it prints what it sees and ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/ctl/board.h"
#include "worker/ctl/ctl.h"
#include "worker/ctl/screen.h"

#define EVERY_MS 1000
#define ASK_MS 1000
#define OUTPUT_MAX (64u * 1024 * 1024)

struct top_args {
    struct common common;
    struct texts admins;
    int64_t times;
};

#define AT(member) offsetof(struct top_args, member)
/* clang-format off */
static const struct option options[] = {
    {"admin", 'a', OPT_PLACES, AT(admins), "HOST:PORT",
     "admin.listen of a worker (default: the config's); several", NULL, 0, 0},
    {"times", 'n', OPT_INT, AT(times), "N",
     "print it N times, a second apart, and end", NULL, 1, 1000000},
};
/* clang-format on */

struct top {
    const struct texts *admins;
    struct view view;
    struct look now, before;
};

static void look_again(struct top *t)
{
    look_done(&t->before);
    t->before = t->now;
    t->now = (struct look){
        .answers = ask_workers(t->admins, ASK_MS), .n = t->admins->n, .at_ms = now_ms()};
}

static bool somebody_answers(const struct top *t)
{
    for (size_t i = 0; i < t->now.n; i++)
        if (t->now.answers[i].page)
            return true;
    for (size_t i = 0; i < t->now.n; i++)
        complain("no worker answers at %s: %s: -a takes the admin.listen of one",
                 t->now.answers[i].address, t->now.answers[i].error);
    return false;
}

static void say_object(void *arg, const struct buf *json)
{
    (void)arg;
    say_json(json);
}

static void show(struct top *t, bool on_screen)
{
    struct buf out;
    char clock[TIME_TEXT_SIZE];
    format_time_ms(wall_ms(), clock);
    struct board b = {&t->now, t->before.n ? &t->before : NULL, clock, t->view.colour,
                      on_screen ? screen_height() : 0};
    if (t->view.json) {
        board_json(&b, say_object, NULL);
        return;
    }
    buf_init(&out, OUTPUT_MAX);
    board_text(&b, &out);
    if (on_screen)
        screen_draw(&out);
    else
        say(&out);
    buf_done(&out);
}

static void print_times(struct top *t, int64_t times)
{
    for (int64_t i = 1; i <= times && !output_fault(); i++) {
        show(t, false);
        if (i < times) {
            usleep(EVERY_MS * 1000);
            look_again(t);
        }
    }
}

/* False: the terminal has gone. */
static bool follow(struct top *t)
{
    screen_begin();
    do {
        show(t, true);
        if (!screen_wait(EVERY_MS))
            break;
        look_again(t);
    } while (true);
    int error = screen_end();
    if (error)
        complain("standard output: %s", strerror(error));
    return !error;
}

static enum ctl_exit watch(const struct top_args *a, const struct texts *admins)
{
    struct top t = {.admins = admins, .view = ctl_view(&a->common)};
    bool on_screen = !a->times && !t.view.json && screen_possible();
    look_again(&t);
    bool ok = somebody_answers(&t);
    if (ok && on_screen)
        ok = follow(&t);
    else if (ok)
        print_times(&t, MAX(a->times, 1));
    look_done(&t.now);
    look_done(&t.before);
    return ok ? CTL_OK : CTL_FAILED;
}

static enum ctl_exit run(void *args)
{
    const struct top_args *a = args;
    struct config cfg;
    struct texts admins = {0};
    if (!ctl_client_config(&a->common, &cfg))
        return CTL_USAGE;
    char *ours = dial_address(cfg.admin.listen);
    for (size_t i = 0; i < a->admins.n; i++)
        texts_add(&admins, a->admins.items[i]);
    if (admins.n == 0 && *ours)
        texts_add(&admins, ours);
    enum ctl_exit code = CTL_USAGE;
    if (admins.n)
        code = watch(a, &admins);
    else
        complain("admin.listen is empty: -a HOST:PORT says whom to ask");
    texts_done(&admins);
    free(ours);
    config_done(&cfg);
    return code;
}

const struct verb verb_top = {
    .name = "top",
    .synopsis = "[-a HOST:PORT]... [OPTION]...",
    .summary = "show what the workers are doing, drawn anew every second",
    .notes =
        "Steps, creation budget, workers, partitions (most lag first) and the slowest jobs. q or\n"
        "Ctrl-C ends it; where the output is no terminal it is printed once. Needs no Kafka.\n"
        "LAG: records not finished yet. TAKEN: in hand. DONE ABOVE: finished behind one that is "
        "not.\n"
        "-o json: {\"type\":\"worker\", time, admin, error, instance, fleet, jobs_topic, steps,\n"
        "status, totals, budgets, partitions, sessions} for each worker; null: no answer.\n",
    .tables = {{options, ARRAY_LEN(options)}},
    .args_size = sizeof(struct top_args),
    .max_operands = 0,
    .run = run,
};
