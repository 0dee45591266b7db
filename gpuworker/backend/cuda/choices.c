/* Which algorithm a matrix product takes, remembered on disk: so that a later process need not time, and gives the same bytes.
 *
 * One file an identity (GPU, driver, cuBLASLt, workspace): a line that says it, then a line an entry:
 *
 *     <key> <algorithm> <hash of the two>        all in hexadecimal
 *
 * The file is replaced whole, by renaming. Lines that are not of this form are passed over, a file of another identity is as good
 * as none, and where there is no place to write, nothing is remembered: no error here fails a product. cuBLASLt itself checks an
 * algorithm before it is used (product.c). */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/directory.h"
#include "base/text.h"
#include "gpuworker/backend/cuda/cuda.h"

enum { IDENTITY_BYTES = 512, LINE_BYTES = 512, CHOICES_MOST = 4096 };

typedef struct {
    cuda_product_key_t key;
    cublasLtMatmulAlgo_t algorithm;
} cuda_choice_t;

_Static_assert(sizeof(cuda_choice_t) == sizeof(cuda_product_key_t) + sizeof(cublasLtMatmulAlgo_t), "hashed without padding");

struct cuda_choices {
    char identity[IDENTITY_BYTES];
    char path[PATH_MAX]; /* empty: nothing is remembered */
    size_t count, room;
    cuda_choice_t *choice;
};

/* ---- where ------------------------------------------------------------------------------------------------------------------- */

/* BARCAST_CACHE_DIR, or barcast in XDG_CACHE_HOME or in ~/.cache. False: none of them is given. */
static bool cache_directory(char *path, size_t bytes)
{
    const char *own = getenv("BARCAST_CACHE_DIR"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = 0;

    if (own != NULL)
        length = snprintf(path, bytes, "%s", own);
    else if (cache != NULL && cache[0] == '/')
        length = snprintf(path, bytes, "%s/barcast", cache);
    else if (home != NULL && home[0] == '/')
        length = snprintf(path, bytes, "%s/.cache/barcast", home);
    return length > 0 && (size_t)length < bytes;
}

static void find_path(cuda_choices_t *choices)
{
    char directory[PATH_MAX - 64];

    if (!cache_directory(directory, sizeof directory) || directory_make_private(directory) < 0)
        return;
    snprintf(choices->path, sizeof choices->path, "%s/products-%016llx", directory,
             (unsigned long long)text_hash64(choices->identity, strlen(choices->identity)));
}

/* ---- entries ----------------------------------------------------------------------------------------------------------------- */

static cuda_choice_t *find(const cuda_choices_t *choices, const cuda_product_key_t *key)
{
    for (size_t i = 0; i < choices->count; i++)
        if (memcmp(&choices->choice[i].key, key, sizeof *key) == 0)
            return &choices->choice[i];
    return NULL;
}

static void add(cuda_choices_t *choices, const cuda_choice_t *choice)
{
    if (choices->count == CHOICES_MOST)
        return;
    if (choices->count == choices->room) {
        size_t room = choices->room > 0 ? 2 * choices->room : 64;
        cuda_choice_t *more = realloc(choices->choice, room * sizeof *more);

        if (more == NULL)
            return;
        choices->choice = more;
        choices->room = room;
    }
    choices->choice[choices->count++] = *choice;
}

/* ---- lines ------------------------------------------------------------------------------------------------------------------- */

static char *put_hex(char *to, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to += sprintf(to, "%02x", ((const uint8_t *)bytes)[i]);
    return to;
}

/* Past what was read, or NULL. */
static const char *get_hex(const char *from, void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++, from += 2) {
        char digits[3] = {from[0], from[0] != '\0' ? from[1] : '\0', '\0'}, *end;

        ((uint8_t *)bytes)[i] = (uint8_t)strtoul(digits, &end, 16);
        if (end != digits + 2)
            return NULL;
    }
    return from;
}

static void print_choice(const cuda_choice_t *choice, char line[LINE_BYTES])
{
    uint64_t hash = text_hash64(choice, sizeof *choice);
    char *end = put_hex(line, &choice->key, sizeof choice->key);

    *end++ = ' ';
    end = put_hex(end, &choice->algorithm, sizeof choice->algorithm);
    *end++ = ' ';
    end = put_hex(end, &hash, sizeof hash);
    memcpy(end, "\n", 2);
}

static bool parse_choice(const char *line, cuda_choice_t *choice)
{
    uint64_t hash;
    const char *at = get_hex(line, &choice->key, sizeof choice->key);

    if (at == NULL || *at++ != ' ' || (at = get_hex(at, &choice->algorithm, sizeof choice->algorithm)) == NULL || *at++ != ' ' ||
        (at = get_hex(at, &hash, sizeof hash)) == NULL)
        return false;
    return strcmp(at, "\n") == 0 && hash == text_hash64(choice, sizeof *choice);
}

/* ---- the file ---------------------------------------------------------------------------------------------------------------- */

static void read_file(cuda_choices_t *choices)
{
    FILE *file = fopen(choices->path, "re");
    char line[IDENTITY_BYTES + LINE_BYTES];
    cuda_choice_t choice;

    if (file == NULL)
        return;
    if (fgets(line, sizeof line, file) != NULL && strcmp(line, choices->identity) == 0)
        while (fgets(line, sizeof line, file) != NULL)
            if (parse_choice(line, &choice) && find(choices, &choice.key) == NULL)
                add(choices, &choice);
    fclose(file);
}

static void write_file(const cuda_choices_t *choices)
{
    char name[PATH_MAX + 32], line[LINE_BYTES];
    bool good;
    FILE *file;

    snprintf(name, sizeof name, "%s.%ld", choices->path, (long)getpid());
    if ((file = fopen(name, "wxe")) == NULL)
        return;
    good = fputs(choices->identity, file) >= 0;
    for (size_t i = 0; i < choices->count; i++) {
        print_choice(&choices->choice[i], line);
        good = good && fputs(line, file) >= 0;
    }
    good = fclose(file) == 0 && good;
    if (!good || rename(name, choices->path) < 0)
        unlink(name);
}

/* ---- public ------------------------------------------------------------------------------------------------------------------ */

cuda_choices_t *cuda_choices_open(const char *gpu, size_t workspace_bytes)
{
    cuda_choices_t *choices = calloc(1, sizeof *choices);
    int driver = 0;

    if (choices == NULL)
        return NULL;
    cudaDriverGetVersion(&driver);
    snprintf(choices->identity, sizeof choices->identity, "barcast products 3, %s, driver %d, cublasLt %zu, workspace %zu\n", gpu,
             driver, cublasLtGetVersion(), workspace_bytes);
    find_path(choices);
    if (choices->path[0] != '\0')
        read_file(choices);
    return choices;
}

bool cuda_choices_find(const cuda_choices_t *choices, const cuda_product_key_t *key, cublasLtMatmulAlgo_t *algorithm)
{
    const cuda_choice_t *choice = choices != NULL ? find(choices, key) : NULL;

    if (choice != NULL)
        *algorithm = choice->algorithm;
    return choice != NULL;
}

void cuda_choices_keep(cuda_choices_t *choices, const cuda_product_key_t *key, const cublasLtMatmulAlgo_t *algorithm)
{
    cuda_choice_t *known;

    if (choices == NULL || choices->path[0] == '\0')
        return;
    read_file(choices); /* what other workers chose since then */
    if ((known = find(choices, key)) != NULL)
        known->algorithm = *algorithm;
    else
        add(choices, &(cuda_choice_t){*key, *algorithm});
    write_file(choices);
}

void cuda_choices_close(cuda_choices_t *choices)
{
    if (choices != NULL)
        free(choices->choice);
    free(choices);
}
