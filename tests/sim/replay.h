/* What the parts of sim-replay share. */
#ifndef SIM_REPLAY_H
#define SIM_REPLAY_H

#include <cjson/cJSON.h>

#include "tests/sim/model.h"

#define FAULT_SIZE 300

struct exchange {
    cJSON *tree;
    char *line;
    int n;
    char *name; /* borrowed */
    const char *server, *method, *path;
    uint64_t start_ms; /* wall clock then */
    size_t order;
    uint64_t token; /* of a held one; 0: not held */
    bool done;
    char fault[FAULT_SIZE]; /* first difference; "" = none */
};

struct binding {
    char *recorded, *actual;
};

struct world { /* one model and what its recorded names mean */
    struct model *m;
    struct binding *bound;
    size_t n_bound, cap_bound;
};

/* Something that was not recorded, done before exchange n. */
struct beside {
    int n;
    const char *method, *path, *body; /* a path without a slash is one of the daemon's */
    int times;
};
extern const struct beside beside[]; /* ends with n = 0 */
extern const char beside_scenario[];
int64_t beside_wait_ms(int n); /* a wait that the answer does not tell; negative: sent earlier */
const char *known_difference(int n); /* why it is answered otherwise; NULL: it should not be */

/* JSON, for reading recordings: "" and 0 for what is not there. Borrowed. */
const char *text_of(const cJSON *, const char *name);
double number_of(const cJSON *, const char *name);
const cJSON *member(const cJSON *, const char *name);

/* text with every bound name replaced by what it is here; the caller's. */
char *translate(const struct world *, const char *text);

/* Compares re with what was recorded, binds new names, and leaves the first difference in x->fault.
 */
void judge(struct world *, struct exchange *x, const struct sim_reply *re);

#endif
