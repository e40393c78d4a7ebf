/* What to do about an error code, in a sentence or two for whoever reads a failed event. */
#ifndef WORKER_CTL_ADVICE_H
#define WORKER_CTL_ADVICE_H

/* code: error.code of an event; one that is not ours has none (NULL). */
const char *advice_for(const char *code);

#endif
