/* replay: gives every file below the named folders to a fuzz target, without libFuzzer.
 *
 *   replay FILE|FOLDER...
 *
 * The corpora so become a quick regression test on every build. An input that breaks a property
 * ends the program; the name of the file stands on the last line. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/xalloc.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_MAX (1 << 20)

static unsigned replayed;

static bool replay_file(const char *path)
{
    uint8_t *bytes = xmalloc(INPUT_MAX);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(bytes, 1, INPUT_MAX, f) : 0;
    bool ok = f && !ferror(f);
    if (f)
        fclose(f);
    if (ok) {
        uint8_t *exact = xmalloc(n + 1); /* so that a read beyond the end is seen */
        memcpy(exact, bytes, n);
        printf("%s\n", path);
        fflush(stdout);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
        replayed++;
    } else {
        perror(path);
    }
    free(bytes);
    return ok;
}

static bool replay(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return replay_file(path);
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort);
    bool ok = n >= 0;
    for (int i = 0; i < n; i++) {
        char *name = xasprintf("%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            ok &= replay_file(name);
        free(name);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    return ok;
}

int main(int argc, char **argv)
{
    bool ok = argc > 1;
    for (int i = 1; i < argc; i++)
        ok &= replay(argv[i]);
    printf("%u inputs\n", replayed);
    return ok && replayed ? 0 : 1;
}
