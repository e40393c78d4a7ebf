/* One box in one world, for the tests of the Daytona provider. */
#ifndef TESTS_UNIT_PROVIDER_BOX_H
#define TESTS_UNIT_PROVIDER_BOX_H

#include "tests/unit/provider/talk.h"

#define NAME "GET /sandbox/oh.s1"
#define BY_ID "GET /sandbox/box-1"

static struct world *w;

static int teardown(void **state)
{
    (void)state;
    world_free(w);
    w = NULL;
    return 0;
}

/* A world whose box has been found in this state. */
static inline void found(const char *job, const char *dto)
{
    w = world_new(job);
    talk(w, ENTER(FIND));
    const struct line look = {
        .ask = NAME, .status = 200, .body = dto, .set = UINT32_MAX}; /* whatever it says */
    ask(w, 0);
    tell_line(w, &look);
    assert_int_equal(w->answer.verdict, OK);
}

/* Of the last call; "": absent. */
static inline const char *header(const char *name)
{
    for (size_t i = 0; i < w->call.n_headers; i++)
        if (strcmp(w->call.headers[i].name, name) == 0)
            return w->call.headers[i].value;
    return "";
}

#endif
