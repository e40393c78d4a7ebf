/* The Sandbox as the API shows it, printed straight into the reply: the hot path of every poll.
 *
 * What is shown is not what is stored: a stopped one that is wanted started is "starting", and so
 * on; the model keeps most of those as states of their own. The four kinds of answer differ in
 * which fields are absent, which is not the same as null. */
#include "tests/sim/model_impl.h"

#include <string.h>

#include "common/json.h"

const char *box_shown_state(const struct box *b)
{
    return state_names[b->state];
}

static void add_text(struct buf *out, const char *name, const char *value)
{
    buf_addc(out, '"');
    buf_adds(out, name);
    buf_adds(out, "\":");
    if (value)
        json_quote(out, value, strlen(value));
    else
        buf_adds(out, "null");
    buf_addc(out, ',');
}

/* A text known to need no escapes. */
static void add_plain(struct buf *out, const char *name, const char *value)
{
    buf_addc(out, '"');
    buf_adds(out, name);
    buf_adds(out, "\":\"");
    buf_adds(out, value);
    buf_adds(out, "\",");
}

static void add_raw(struct buf *out, const char *name, const char *json)
{
    buf_addc(out, '"');
    buf_adds(out, name);
    buf_adds(out, "\":");
    buf_adds(out, json);
    buf_addc(out, ',');
}

static void add_number(struct buf *out, const char *name, int64_t value)
{
    char digits[24], *p = digits + sizeof digits;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    *--p = '\0';
    do
        *--p = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        *--p = '-';
    add_raw(out, name, p);
}

static void add_bool(struct buf *out, const char *name, bool value)
{
    add_raw(out, name, value ? "true" : "false");
}

static void add_time(struct buf *out, const char *name, uint64_t ms)
{
    char when[TIME_TEXT_SIZE];
    format_time_ms(ms, when);
    add_plain(out, name, when);
}

static void print_resources(const struct box *b, enum dto dto, struct buf *out)
{
    add_text(out, "user", b->user);
    if (dto != DTO_LISTED)
        add_raw(out, "env", b->env);
    add_number(out, "cpu", b->cpu);
    add_number(out, "gpu", b->gpu);
    add_number(out, "memory", b->memory);
    add_number(out, "disk", b->disk);
    add_bool(out, "public", b->public);
    if (dto == DTO_LISTED)
        return;
    add_bool(out, "networkBlockAll", b->network_block);
    add_raw(out, "volumes", b->volumes);
    if (dto == DTO_CREATED)
        return;
    add_text(out, "networkAllowList", b->allow_list);
    add_text(out, "domainAllowList", b->domain_list);
}

static void print_state(const struct box *b, enum dto dto, struct buf *out)
{
    add_plain(out, "state", box_shown_state(b));
    add_plain(out, "desiredState", desired_name(b->desired));
    if (dto != DTO_CREATED) {
        add_text(out, "errorReason", b->error_reason);
        add_text(out, "daemonVersion", b->has_runner ? "v0.190.0" : NULL);
    }
    add_bool(out, "recoverable", b->recoverable);
    add_plain(out, "backupState", "None");
    add_number(out, "autoStopInterval", b->auto_stop);
    add_number(out, "autoArchiveInterval", b->auto_archive);
    add_number(out, "autoDeleteInterval", b->auto_delete);
}

void box_print(const struct model *m, const struct box *b, enum dto dto, struct buf *out)
{
    buf_addc(out, '{');
    add_plain(out, "id", b->id);
    add_plain(out, "organizationId", m->organization_id);
    add_text(out, "name", b->name);
    add_plain(out, "target", b->target);
    if (b->snapshot || dto != DTO_CREATED)
        add_text(out, "snapshot", b->snapshot);
    if (b->build_info && dto != DTO_LISTED && dto != DTO_STOPPED)
        add_raw(out, "buildInfo", b->build_info);
    print_resources(b, dto, out);
    if (b->labels)
        add_raw(out, "labels", b->labels);
    print_state(b, dto, out);
    add_plain(out, "sandboxClass", "container");
    add_time(out, "createdAt", b->created_ms);
    add_time(out, "updatedAt", b->updated_ms);
    if (dto != DTO_STOPPED)
        add_time(out, "lastActivityAt", b->activity_shown_ms);
    if (b->state != S_PENDING_BUILD)
        add_plain(out, "runnerId", b->runner_id);
    buf_adds(out, "\"toolboxProxyUrl\":\"");
    buf_adds(out, m->opt.base_url);
    buf_adds(out, "/toolbox\"}");
}
