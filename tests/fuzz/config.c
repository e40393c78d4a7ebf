/* config: a file, -s and the environment, as config_load() reads them.
 *
 * Parts: the file's text, then values; one that begins with '$' is a variable ("$NAME=VALUE"), any
 * other the argument of a -s.
 *
 * What was read and printed is read and printed again: both texts are the same. What was refused
 * has a line for every mistake, each with where it is, and none with a byte that steers a terminal.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "tests/fuzz/fuzz.h"

#define VALUES_MAX 16
#define TEXT_MAX (4 * 1024 * 1024)

struct input {
    int fd;
    char file[32];
    char *sets[VALUES_MAX], *variables[VALUES_MAX + 1];
    size_t n_sets, n_variables;
};

static void write_file(struct input *in, const char *text, size_t len)
{
    in->fd = memfd_create("worker.cfg", MFD_CLOEXEC);
    ASSERT(in->fd >= 0 && fchmod(in->fd, 0600) == 0);
    ASSERT(write(in->fd, text, len) == (ssize_t)len);
    snprintf(in->file, sizeof in->file, "/proc/self/fd/%d", in->fd);
}

static void input_init(struct input *in, const uint8_t *data, size_t size)
{
    struct parts parts = parts_of(data, size);
    struct part file = parts_next(&parts), value;
    memset(in, 0, sizeof *in);
    write_file(in, file.text, file.len);
    while ((value = parts_next(&parts)).text && in->n_sets + in->n_variables < VALUES_MAX) {
        if (value.len > 0 && *value.text == '$')
            in->variables[in->n_variables++] = xmemdup0(value.text + 1, value.len - 1);
        else
            in->sets[in->n_sets++] = xmemdup0(value.text, value.len);
    }
}

static void input_done(struct input *in)
{
    close(in->fd);
    for (size_t i = 0; i < in->n_sets; i++)
        free(in->sets[i]);
    for (size_t i = 0; i < in->n_variables; i++)
        free(in->variables[i]);
}

/* Errors end in newlines; each line says where, and is clean. */
static void check_errors(const struct buf *errors)
{
    const char *line = buf_text(errors);
    ASSERT(errors->len > 0 && !errors->overflow);
    for (const char *end; (end = strchr(line, '\n')); line = end + 1) {
        ASSERT(memmem(line, (size_t)(end - line), ": ", 2));
        ASSERT(text_is_clean(line, (size_t)(end - line)));
    }
    ASSERT(*line == '\0');
}

/* The printed text without the mark behind a secret: one that came from the environment is not in
 * the text, and so not there when that is read again. */
static void print_unmarked(const struct config *cfg, struct buf *out)
{
    static const char mark[] = " # ***\n";
    struct buf all;
    buf_init(&all, TEXT_MAX);
    config_print(cfg, &all);
    const char *from = buf_text(&all);
    for (const char *at; (at = strstr(from, mark)); from = at + sizeof mark - 2)
        buf_add(out, from, (size_t)(at - from));
    buf_adds(out, from);
    buf_done(&all);
}

static void check_config(const struct config *cfg)
{
    struct input again = {.fd = -1};
    struct config second;
    struct buf once, twice, errors;
    buf_init(&once, TEXT_MAX);
    buf_init(&twice, TEXT_MAX);
    buf_init(&errors, TEXT_MAX);
    print_unmarked(cfg, &once);
    write_file(&again, buf_text(&once), once.len);
    const struct config_source source = {.file = again.file, .client = true};
    if (!config_load(&source, &second, &errors))
        ASSERT(once.len > 256 * 1024); /* the only reason: quotes have made it too large */
    else
        print_unmarked(&second, &twice);
    ASSERT(errors.len > 0 || strcmp(buf_text(&once), buf_text(&twice)) == 0);
    if (errors.len == 0)
        config_done(&second);
    input_done(&again);
    buf_done(&once);
    buf_done(&twice);
    buf_done(&errors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in;
    struct config cfg;
    struct buf errors;
    fuzz_config();
    input_init(&in, data, size);
    buf_init(&errors, TEXT_MAX);
    const struct config_source source = {.file = in.file,
                                         .sets = (const char *const *)in.sets,
                                         .n_sets = in.n_sets,
                                         .environ = in.variables,
                                         .client = in.n_variables % 2 == 0};
    if (config_load(&source, &cfg, &errors)) {
        check_config(&cfg);
        config_done(&cfg);
    } else {
        check_errors(&errors);
    }
    buf_done(&errors);
    input_done(&in);
    return 0;
}
