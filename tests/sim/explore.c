/* explore: schedules over the shipped cores, in virtual time.
 *
 *   explore [--seed N] [--runs N] [--story] [--no-shorten]      random ones, with all kinds of
 * fault explore --exhaustive [--pair NAME] [--faults N] [--jobs N] [--no-audit]    all of a small
 * world
 *
 * Exit 0: every invariant held. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/explore.h"

static const struct option options[] = {
    {"seed", required_argument, NULL, 's'},   {"runs", required_argument, NULL, 'r'},
    {"story", no_argument, NULL, 't'},        {"no-shorten", no_argument, NULL, 'n'},
    {"exhaustive", no_argument, NULL, 'e'},   {"pair", required_argument, NULL, 'p'},
    {"faults", required_argument, NULL, 'f'}, {"jobs", required_argument, NULL, 'j'},
    {"no-audit", no_argument, NULL, 'a'},     {NULL, 0, NULL, 0}};

static bool number(const char *text, int64_t least, int64_t most, int64_t *out)
{
    return parse_i64(text, strlen(text), least, most, out);
}

static bool read_options(int argc, char **argv, struct random_options *r,
                         struct exhaustive_options *x, bool *exhaustive)
{
    int64_t seed = 1, runs = 200, faults = 2, jobs = 2;
    bool ok = true;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        ok &= o != '?';
        if (o == 's')
            ok &= number(optarg, 0, INT64_MAX, &seed);
        else if (o == 'r')
            ok &= number(optarg, 1, INT64_MAX, &runs);
        else if (o == 'f')
            ok &= number(optarg, 0, 8, &faults);
        else if (o == 'j')
            ok &= number(optarg, 1, 64, &jobs);
        else if (o == 'p')
            x->pair = optarg;
        r->story |= o == 't';
        r->shorter &= o != 'n';
        x->audit &= o != 'a';
        *exhaustive |= o == 'e';
    }
    r->seed = (uint64_t)seed;
    r->runs = (uint64_t)runs;
    x->faults = (unsigned)faults;
    x->jobs = (unsigned)jobs;
    return ok && optind == argc;
}

int main(int argc, char **argv)
{
    struct random_options random = {.shorter = true};
    struct exhaustive_options all = {.audit = true};
    bool exhaustive = false;
    if (!read_options(argc, argv, &random, &all, &exhaustive)) {
        fputs("usage: explore [--seed N] [--runs N] [--story] [--no-shorten]\n"
              "       explore --exhaustive [--pair NAME] [--faults N] [--jobs N] [--no-audit]\n",
              stderr);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    return exhaustive ? !explore_exhaustive(&all) : !explore_random(&random);
}
