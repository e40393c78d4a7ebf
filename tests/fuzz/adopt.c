/* adopt: whose sandbox is it? What the API says of one, as the provider reads it.
 *
 * The input is the body of an answer: a sandbox, or a list of them. Whatever it holds, a box counts
 * as ours only when its labels say this fleet and this session, as the job's own only when they
 * name the job, as provisional only when its interval is 0; a list gives only what is ours; and
 * what is then asked about the box names the id that was read, and nothing else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "tests/fuzz/fuzz.h"
#include "worker/provider/provider.h"

#define JOB "{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"v1\"}}"
#define EVENT_ID "session-jobs/3/42"
#define API "https://app.daytona.io/api"

static struct provider *provider;
static struct job *job;

static void set_up(void)
{
    const struct record r = {.topic = "session-jobs",
                             .partition = 3,
                             .offset = 42,
                             .key = "s1",
                             .key_len = 2,
                             .value = JOB,
                             .value_len = strlen(JOB)};
    struct refusal why = {0};
    unsigned unknown = 0;
    if (provider)
        return;
    provider = provider_new(fuzz_config(), 0);
    job = job_parse(&r, fuzz_config(), &why, &unknown);
    ASSERT(provider && job);
}

/* ---- a second reader of the same text, on cJSON alone ---- */

static const char *member(const cJSON *object, const char *name)
{
    const char *text = cJSON_IsObject(object)
                           ? cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name))
                           : NULL;
    return text ? text : "";
}

static bool label_is(const cJSON *dto, const char *name, const char *value)
{
    const cJSON *labels =
        cJSON_IsObject(dto) ? cJSON_GetObjectItemCaseSensitive(dto, "labels") : NULL;
    return strcmp(member(labels, name), value) == 0;
}

static bool is_plain_id(const char *id)
{
    static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    return *id && strspn(id, ok) == strlen(id) && strlen(id) <= 128 && !strchr("._-", *id);
}

/* ---- one sandbox ---- */

static void check_box(const struct box *b, const cJSON *dto)
{
    const cJSON *interval = cJSON_GetObjectItemCaseSensitive(dto, "autoDeleteInterval");
    bool ours = label_is(dto, "session-worker/fleet", "oh") && label_is(dto, "OpenHands_SID", "s1");
    ASSERT(strcmp(b->id, member(dto, "id")) == 0 && is_plain_id(b->id));
    ASSERT(b->ours == ours);
    ASSERT(b->mine == label_is(dto, "session-worker/job", EVENT_ID));
    ASSERT(!b->provisional ||
           (cJSON_IsNumber(interval) && interval->valuedouble > -1 && interval->valuedouble < 1));
}

/* What is asked next in a phase goes to the sandbox that was read. */
static void check_next_call(struct deal *d, enum phase phase, const char *id)
{
    struct call call;
    struct answer answer = {0};
    char *prefix = xasprintf(API "/sandbox/%s", id);
    size_t n = strlen(prefix);
    d->phase = phase;
    d->phase_since_ns++;
    if (provider->ops->ask(d, &call, &answer) == ASKED_CALL) {
        ASSERT(strncmp(call.url, prefix, n) == 0 && (call.url[n] == '/' || !call.url[n]));
        call_done(&call);
    }
    answer_done(&answer);
    free(prefix);
}

static void tell(const struct deal *d, unsigned what, const char *text, size_t len)
{
    struct answer answer = {0};
    const struct reply_header type = {"content-type", "application/json"};
    const struct reply r = {
        .status = 200, .headers = &type, .n_headers = 1, .body = text, .body_len = len};
    provider->ops->answer(d, what, &r, &answer);
    ASSERT(!answer.message || text_is_clean(answer.message, strlen(answer.message)));
    answer_done(&answer);
}

/* A body longer than this is read by other limits than the second reader's. */
static void try_sandbox(const char *text, size_t len, const cJSON *dto)
{
    static const enum phase phases[] = {START, STOP, DELETE};
    struct call call;
    struct answer answer = {0};
    struct box *b = provider->ops->box_new(provider);
    struct deal d = {.provider = provider, .job = job, .box = b, .phase = FIND, .now_ns = NS_PER_S};
    ASSERT(provider->ops->ask(&d, &call, &answer) == ASKED_CALL);
    tell(&d, call.what, text, len);
    if (b->id)
        check_box(b, dto);
    for (size_t i = 0; b->id && i < ARRAY_LEN(phases); i++)
        check_next_call(&d, phases[i], b->id);
    call_done(&call);
    answer_done(&answer);
    provider->ops->box_free(b);
}

/* ---- a list ---- */

static bool is_listed_as_ours(const cJSON *page, const char *id)
{
    const cJSON *items =
        cJSON_IsArray(page) ? page : cJSON_GetObjectItemCaseSensitive(page, "items");
    const cJSON *item;
    cJSON_ArrayForEach(item, items)
    {
        if (strcmp(member(item, "id"), id) == 0 && label_is(item, "session-worker/fleet", "oh") &&
            label_is(item, "session-worker/partition", "session-jobs/3"))
            return true;
    }
    return false;
}

static void try_list(const char *text, size_t len, const cJSON *page)
{
    const struct listing l = {.partition = "session-jobs/3"};
    const struct reply r = {.status = 200, .body = text, .body_len = len};
    struct listed found = {0};
    struct answer answer = {0};
    provider->ops->answer_list(provider, &l, &r, &found, &answer);
    for (size_t i = 0; i < found.n; i++) {
        ASSERT(is_plain_id(found.boxes[i]->id) && found.boxes[i]->name);
        ASSERT(is_listed_as_ours(page, found.boxes[i]->id));
    }
    ASSERT(answer.verdict == OK || found.n == 0);
    listed_done(provider, &found);
    answer_done(&answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xmemdup0(size ? (const char *)data : "", size);
    set_up();
    cJSON *tree = cJSON_ParseWithLength(text, size);
    try_sandbox(text, size, tree);
    try_list(text, size, tree);
    cJSON_Delete(tree);
    free(text);
    return 0;
}
