/* options: command lines by table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/ctl/options.h"

struct args {
    bool wait;
    const char *brokers, *mode;
    struct texts sets, places;
    int64_t port, from;
    double rate;
};

#define AT(member) offsetof(struct args, member)
static const struct option common[] = {
    {.name = "brokers", .letter = 'b', .kind = OPT_TEXT, .offset = AT(brokers), .arg = "LIST"},
    {.name = "set", .letter = 's', .kind = OPT_LIST, .offset = AT(sets), .arg = "KEY=VALUE"},
};
static const struct option own[] = {
    {.name = "wait", .kind = OPT_FLAG, .offset = AT(wait), .help = "wait for it"},
    {.name = "mode", .kind = OPT_CHOICE, .offset = AT(mode), .arg = "ensure|create", .help = "how"},
    {.name = "port",
     .letter = 'p',
     .kind = OPT_INT,
     .offset = AT(port),
     .arg = "N",
     .help = "where",
     .min = 1,
     .max = 65535},
    {.name = "rate", .kind = OPT_RATE, .offset = AT(rate), .arg = "R", .help = "how fast"},
    {.name = "from", .kind = OPT_INDEX, .offset = AT(from), .arg = "N", .help = "first", .max = 9},
    {.name = "at", .kind = OPT_PLACES, .offset = AT(places), .arg = "HOST:PORT", .help = "whom"},
};
static const struct option_table tables[] = {{common, 2}, {own, 6}};

struct line {
    struct args args;
    struct texts operands;
    char error[OPTIONS_ERROR_SIZE];
};

/* words: separated by single spaces; kept by the caller. */
static bool parse(struct line *l, char *words)
{
    char *argv[20];
    int argc = 0;
    for (char *word = words, *end; word; word = end ? end + 1 : NULL) {
        end = strchr(word, ' ');
        if (end)
            *end = '\0';
        argv[argc++] = word;
    }
    *l = (struct line){0};
    struct option_input in = {tables, 2, &l->args, &l->operands};
    return options_parse(&in, argc, argv, l->error);
}

static void done(struct line *l)
{
    options_done(&tables[0], &l->args);
    options_done(&tables[1], &l->args);
    texts_done(&l->operands);
}

static void every_way_to_write_a_value(void **state)
{
    (void)state;
    struct line l;
    char words[] =
        "S1 -b host:1 --port=80 -s a=1 -sb=2 --set c=3 --wait --mode create --rate 5/s S2";
    assert_true(parse(&l, words));
    assert_string_equal(l.args.brokers, "host:1");
    assert_int_equal(l.args.port, 80);
    assert_true(l.args.wait);
    assert_string_equal(l.args.mode, "create");
    assert_true(l.args.rate > 4.99 && l.args.rate < 5.01);
    assert_int_equal(l.args.sets.n, 3);
    assert_string_equal(l.args.sets.items[0], "a=1");
    assert_string_equal(l.args.sets.items[1], "b=2");
    assert_string_equal(l.args.sets.items[2], "c=3");
    assert_int_equal(l.operands.n, 2);
    assert_string_equal(l.operands.items[1], "S2");
    done(&l);
}

static void places_are_hosts_with_ports_or_urls(void **state)
{
    (void)state;
    struct line l;
    char words[] = "--at host:9464 --at [::1]:1 --at http://proxy/worker-1";
    assert_true(parse(&l, words));
    assert_int_equal(l.args.places.n, 3);
    assert_string_equal(l.args.places.items[1], "[::1]:1");
    done(&l);
}

static void the_later_value_counts(void **state)
{
    (void)state;
    struct line l;
    char words[] = "--port 1 --port 2";
    assert_true(parse(&l, words));
    assert_int_equal(l.args.port, 2);
    done(&l);
}

static void a_dash_alone_and_what_follows_two_are_operands(void **state)
{
    (void)state;
    struct line l;
    char words[] = "- -- --wait -x";
    assert_true(parse(&l, words));
    assert_false(l.args.wait);
    assert_int_equal(l.operands.n, 3);
    assert_string_equal(l.operands.items[0], "-");
    assert_string_equal(l.operands.items[1], "--wait");
    assert_string_equal(l.operands.items[2], "-x");
    done(&l);
}

static void mistakes_name_the_option(void **state)
{
    (void)state;
    static const struct {
        const char *words, *error;
    } cases[] = {
        {"--nope", "unknown option --nope"},
        {"--nope=3", "unknown option --nope"},
        {"-x", "unknown option -x"},
        {"--wai", "unknown option --wai"}, /* no abbreviations */
        {"--port", "--port needs a value: N"},
        {"--wait=yes", "--wait takes no value"},
        {"--port 0", "--port must be a whole number from 1 to 65535"},
        {"--port 80x", "--port must be a whole number from 1 to 65535"},
        {"--mode creat", "--mode must be one of ensure|create"},
        {"--mode ensure|create", "--mode must be one of ensure|create"},
        {"--mode=", "--mode must be one of ensure|create"},
        {"--brokers=", "--brokers must not be empty"},
        {"--rate fast", "--rate must be a rate such as 5/s or 300/min"},
        {"--at 127.0.0.1", "--at must be HOST:PORT (is 127.0.0.1)"},
        {"--at :9464", "--at must be HOST:PORT (is :9464)"},
        {"--at host:", "--at must be HOST:PORT (is host:)"},
        {"--at host:65536", "--at must be HOST:PORT (is host:65536)"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct line l;
        char words[80];
        strncpy(words, cases[i].words, sizeof words - 1);
        words[sizeof words - 1] = '\0';
        assert_false(parse(&l, words));
        assert_string_equal(l.error, cases[i].error);
        done(&l);
    }
}

static void rates(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double per_second; /* 0: refused */
    } cases[] = {
        {"5", 5},   {"5/s", 5},  {"0.5/s", 0.5}, {"300/min", 5},  {"60/m", 1},       {"3600/h", 1},
        {"", 0},    {"0", 0},    {"-1", 0},      {"/s", 0},       {"1/day", 0},      {"1e3", 0},
        {"nan", 0}, {"1/s ", 0}, {"1.2.3", 0},   {"100001/s", 0}, {"100000/s", 1e5},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        double rate = 0;
        assert_int_equal(parse_rate(cases[i].text, &rate), cases[i].per_second > 0);
        assert_true(rate > cases[i].per_second - 1e-9 && rate < cases[i].per_second + 1e-9);
    }
}

static void an_index_may_be_0(void **state)
{
    (void)state;
    struct line l;
    char none[] = "x", zero[] = "--from 0", nine[] = "--from 9", ten[] = "--from 10";
    assert_true(parse(&l, none));
    assert_int_equal(l.args.from, 0);
    done(&l);
    assert_true(parse(&l, zero));
    assert_int_equal(l.args.from, 1);
    done(&l);
    assert_true(parse(&l, nine));
    assert_int_equal(l.args.from, 10);
    done(&l);
    assert_false(parse(&l, ten));
    assert_string_equal(l.error, "--from must be a whole number from 0 to 9");
    done(&l);
}

static void help_lines_stand_in_columns(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1000);
    options_print(&tables[1], &out);
    assert_string_equal(buf_text(&out), "  --wait                    wait for it\n"
                                        "  --mode ensure|create      how\n"
                                        "  -p, --port N              where\n"
                                        "  --rate R                  how fast\n"
                                        "  --from N                  first\n"
                                        "  --at HOST:PORT            whom\n");
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_to_write_a_value),
        cmocka_unit_test(places_are_hosts_with_ports_or_urls),
        cmocka_unit_test(the_later_value_counts),
        cmocka_unit_test(a_dash_alone_and_what_follows_two_are_operands),
        cmocka_unit_test(mistakes_name_the_option),
        cmocka_unit_test(rates),
        cmocka_unit_test(an_index_may_be_0),
        cmocka_unit_test(help_lines_stand_in_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
