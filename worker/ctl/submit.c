/* sessionctl submit: jobs from a file or a pipe, one JSON object a line, sent as they are.
 *
 * Each line is checked as a worker would check it. A wrong one is told with its number and left out
 * (--force: sent all the same, to see what workers make of it); the others go on: jobs are
 * idempotent by session, so a mended file can simply be submitted again. Lines go out as they come,
 * and what becomes of them is told while none comes, so that a pipe that never ends works. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "worker/ctl/ctl.h"
#include "worker/ctl/dispatch.h"
#include "worker/ctl/job.h"
#include "worker/ctl/lines.h"

#define LINE_MAX_BYTES 1000000 /* about what a topic takes by default */
#define SERVE_MS 20            /* a line that comes meanwhile waits as long */

struct submit_args {
    struct sending sending;
    bool force, dry_run;
};

#define AT(member) offsetof(struct submit_args, member)
/* clang-format off */
static const struct option options[] = {
    {"dry-run", 0, OPT_FLAG, AT(dry_run), NULL, "only check the lines; send nothing", NULL, 0, 0},
    {"force", 0, OPT_FLAG, AT(force), NULL, "send also what a worker would refuse", NULL, 0, 0},
};
/* clang-format on */

struct submission {
    const struct submit_args *args;
    const struct config *cfg;
    struct dispatch dispatch;
    const char *name; /* of the file */
    unsigned line;
    unsigned wrong;
    bool hinted;
    int64_t timeout; /* the longest of the jobs sent, seconds */
};

static bool is_blank(const struct buf *line)
{
    return strspn(buf_text(line), " \t\r") == line->len;
}

/* Of the first line that begins an object and is no JSON by itself, how such a job can be sent. */
static const char *hint(struct submission *s, const struct buf *line)
{
    const char *text = buf_text(line);
    cJSON *tree = json_parse_reply(text, line->len);
    bool opens = !tree && text[strspn(text, " \t")] == '{';
    cJSON_Delete(tree);
    if (!opens || s->hinted)
        return "";
    s->hinted = true;
    return "; one job a line: sessionctl start --job FILE takes one that spans lines";
}

/* Whether the line is to be sent; says what is wrong with it. */
static bool judge(struct submission *s, const struct buf *line, struct job_verdict *v)
{
    bool ok = job_check(buf_text(line), line->len, s->cfg, v);
    if (line->overflow) {
        complain("%s:%u: more than %d bytes", s->name, s->line, LINE_MAX_BYTES);
        s->wrong++;
        return false;
    }
    if (!ok) {
        complain("%s:%u: %s%s", s->name, s->line, v->why, hint(s, line));
        s->wrong++;
    } else if (v->warning) {
        complain("%s:%u: %s", s->name, s->line, v->warning);
    }
    return ok || s->args->force;
}

static void note_timeout(struct submission *s, const struct buf *line)
{
    cJSON *job = json_parse_reply(buf_text(line), line->len);
    s->timeout = MAX(s->timeout, json_int(job, "timeout_seconds", s->cfg->jobs.timeout_seconds));
    cJSON_Delete(job);
}

static enum ctl_exit take_line(struct submission *s, const struct buf *line)
{
    struct job_verdict v;
    enum ctl_exit code = CTL_OK;
    if (is_blank(line))
        return CTL_OK;
    if (judge(s, line, &v) && !s->args->dry_run) {
        note_timeout(s, line);
        code = dispatch_send(&s->dispatch, v.session_id, buf_text(line), line->len);
    }
    job_verdict_done(&v);
    return code;
}

/* While no line comes: reports of delivery, and with --wait results. */
static void serve(void *arg)
{
    struct submission *s = arg;
    dispatch_until(&s->dispatch, now_ms() + SERVE_MS);
}

static enum ctl_exit take_all(struct submission *s, int fd)
{
    struct lines lines = {.fd = fd, .idle = s->args->dry_run ? NULL : serve, .arg = s};
    struct buf line;
    enum ctl_exit code = CTL_OK;
    buf_init(&line, LINE_MAX_BYTES);
    while (!code && lines_next(&lines, &line)) {
        s->line++;
        code = take_line(s, &line);
        if (!s->args->dry_run)
            sender_poll(&s->dispatch.sender, 0);
    }
    if (lines.error) {
        complain("%s: %s", s->name, strerror(lines.error));
        code = CTL_USAGE;
    }
    buf_done(&line);
    return code;
}

static enum ctl_exit send_file(struct submission *s, int fd)
{
    if (isatty(fd))
        complain("reading jobs from the terminal, one a line; end with Ctrl-D");
    if (s->args->dry_run)
        return take_all(s, fd);
    enum ctl_exit code = dispatch_open(&s->dispatch, s->cfg, &s->args->sending);
    if (!code)
        code = take_all(s, fd);
    if (!code)
        code = dispatch_finish(&s->dispatch, s->timeout);
    dispatch_close(&s->dispatch);
    return code;
}

static enum ctl_exit run(void *args)
{
    const struct submit_args *a = args;
    struct config cfg;
    const char *path = a->sending.common.operands.n ? a->sending.common.operands.items[0] : "-";
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return complain("%s: %s", path, strerror(errno)), CTL_USAGE;
    enum ctl_exit code = CTL_USAGE;
    if (ctl_client_config(&a->sending.common, &cfg)) {
        struct submission s = {.args = a, .cfg = &cfg, .name = is_stdin ? "stdin" : path};
        code = send_file(&s, fd);
        code = !code && s.wrong ? CTL_FAILED : code;
        config_done(&cfg);
    }
    if (!is_stdin)
        close(fd);
    return code;
}

const struct verb verb_submit = {
    .name = "submit",
    .synopsis = "[FILE|-] [OPTION]...",
    .summary = "send jobs from JSON lines, after checking each",
    .notes =
        "Each line is one job and goes out as it stands; its session_id becomes the record's key.\n"
        "Wrong lines are named and left out, the others are sent; the exit code is then 1.\n",
    .tables = {{options, ARRAY_LEN(options)}, {sending_options, N_SENDING_OPTIONS}},
    .args_size = sizeof(struct submit_args),
    .max_operands = 1,
    .run = run,
};
