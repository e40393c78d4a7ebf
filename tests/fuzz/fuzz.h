/* What the fuzz targets share: an input cut into parts, a configuration, and what must hold of
 * every text that leaves us.
 *
 * Each target is one file with LLVMFuzzerTestOneInput. The same file is linked with libFuzzer
 * (`make fuzz`) and with replay.c, which reads the corpus (`make test`). A property that does not
 * hold is an ASSERT: both report it as a crash with the input. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <cjson/cJSON.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/config.h"
#include "common/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input of several texts has this byte between them: it stands in no valid text of ours, and
 * what a parser makes of a control byte is seen with any other one. */
#define PART_END 0x1e

struct part {
    const char *text; /* not NUL-terminated; NULL: there is no such part */
    size_t len;
};
struct parts {
    const char *at; /* NULL: the last one was given */
    size_t left;
};
struct parts parts_of(const uint8_t *data, size_t size);
struct part parts_next(struct parts *);

/* The parts that are left as headers, name and value in turn; how many. The caller's to
 * parts_headers_done. */
size_t parts_headers(struct parts *, struct header *out, size_t max);
void parts_headers_done(struct header *, size_t n);

/* A configuration with provider daytona, fleet "oh" and jobs topic "session-jobs", made once. From
 * then on every log line is checked instead of shown. */
const struct config *fuzz_config(void);

/* Valid UTF-8 without control characters (C0, DEL, C1). */
bool text_is_clean(const char *text, size_t len);

/* A message about bad input: clean, and it says what is wrong with what, and what to do. */
void check_refusal(const char *message);

/* A message that goes to Kafka: an event is strict JSON whose own words are clean. Returns its
 * tree, NULL for a dead letter; the caller's to cJSON_Delete. */
cJSON *check_message(const struct message *m);

#endif
