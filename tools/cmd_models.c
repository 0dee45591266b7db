/* barcast models: what is in a directory of checkpoints, and random ones to try things with. Only config.json and headers are read. */
#include "base/error.h"
#include "gpuworker/model/model.h"
#include "tools/command.h"
#include "tools/options.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int complain(void)
{
    fprintf(stderr, "barcast models: %s\n", error_text());
    return 1;
}

/* ---- facts of one checkpoint -------------------------------------------------------------------------------------------------- */

static const char *family_name(const checkpoint_t *checkpoint)
{
    for (size_t i = 0; model_families[i]; i++)
        if (model_families[i]->matches && model_families[i]->matches(checkpoint))
            return model_families[i]->name;
    return "unknown";
}

static int64_t count_elements(const checkpoint_t *checkpoint)
{
    int64_t elements = 0;
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++)
        elements += checkpoint_at(checkpoint, i)->elements;
    return elements;
}

/* The dtype of the largest tensor, which is what people call the model's. */
static const char *main_dtype(const checkpoint_t *checkpoint)
{
    const checkpoint_tensor_t *largest = NULL;
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++)
        if (!largest || checkpoint_at(checkpoint, i)->elements > largest->elements)
            largest = checkpoint_at(checkpoint, i);
    return largest ? checkpoint_dtype_name(largest->dtype) : "none";
}

/* ---- list --------------------------------------------------------------------------------------------------------------------- */

static void print_families(void)
{
    printf("families:");
    for (size_t i = 0; model_families[i]; i++)
        printf("%s %s%s", i ? "," : "", model_families[i]->name, model_families[i]->matches ? "" : " (built in)");
    printf("\n\n");
}

typedef struct {
    unsigned models, faulty;
} tally_t;

static void list_model(const char *dir, tally_t *tally)
{
    checkpoint_t *checkpoint;
    if (tally->models++ == 0)
        printf("%-10s %14s  %-5s %14s  %-16s  %s\n", "family", "parameters", "dtype", "bytes", "revision", "directory");
    if (checkpoint_open(dir, &checkpoint) < 0) {
        complain();
        tally->faulty++;
        return;
    }
    printf("%-10s %14" PRId64 "  %-5s %14zu  %-16s  %s\n", family_name(checkpoint), count_elements(checkpoint),
           main_dtype(checkpoint), checkpoint_bytes(checkpoint), checkpoint_revision(checkpoint), dir);
    checkpoint_close(checkpoint);
}

static bool has_config(const char *dir)
{
    char *path;
    if (asprintf(&path, "%s/config.json", dir) < 0)
        return false;
    bool found = access(path, F_OK) == 0;
    free(path);
    return found;
}

/* DIR itself, or the checkpoints one level below it, in name order. */
static void list_directory(const char *dir, tally_t *tally)
{
    if (has_config(dir)) {
        list_model(dir, tally);
        return;
    }
    struct dirent **entries;
    int count = scandir(dir, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char *below;
        if (entries[i]->d_name[0] != '.' && asprintf(&below, "%s/%s", dir, entries[i]->d_name) >= 0) {
            if (has_config(below))
                list_model(below, tally);
            free(below);
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static int list(int argc, char **argv)
{
    static const options_t spec = {
        .usage = "barcast models [DIR...] | models show DIR | models fit DIR | models create [options]",
        .about = "[DIR...]  lists the checkpoints in each DIR, or one level below it; without DIR: below the current directory\n"
                 "show      prints a checkpoint's config.json and all its tensors\n"
                 "fit       tells a model's limits and what its sessions take of a device; models fit --help says how\n"
                 "create    makes a random checkpoint of a family; models create --help says how\n\n"
                 "A checkpoint is a Hugging Face directory as published: config.json, and model.safetensors or its shards.",
    };
    int first;
    int rc = options_parse(&spec, argc, argv, &first);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;

    tally_t total = {0};
    bool all_found = true;
    if (first == argc) {
        print_families();
        list_directory(".", &total);
    }
    for (int i = first; i < argc; i++) {
        unsigned before = total.models;
        list_directory(argv[i], &total);
        if (total.models == before) {
            fprintf(stderr, "barcast models: %s: expected a config.json there or one level below\n", argv[i]);
            all_found = false;
        }
    }
    return total.faulty || !all_found ? 1 : 0;
}

/* ---- show --------------------------------------------------------------------------------------------------------------------- */

static void print_tensor(const checkpoint_tensor_t *tensor)
{
    printf("%-5s %12zu  %s [", checkpoint_dtype_name(tensor->dtype), tensor->bytes, tensor->name);
    for (int i = 0; i < tensor->rank; i++)
        printf("%s%" PRId64, i ? ", " : "", tensor->dim[i]);
    printf("]\n");
}

static int show(int argc, char **argv)
{
    static const options_t spec = {
        .usage = "barcast models show DIR",
        .about = "Prints a checkpoint's family, its config.json and the dtype, bytes, name and shape of all its tensors.",
    };
    int first;
    int rc = options_parse(&spec, argc, argv, &first);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    if (argc - first != 1) {
        fprintf(stderr, "usage: %s\n", spec.usage);
        return 2;
    }
    checkpoint_t *checkpoint;
    if (checkpoint_open(argv[first], &checkpoint) < 0)
        return complain();
    printf("family      %s\nparameters  %" PRId64 "\nbytes       %zu\nrevision    %s\n\n", family_name(checkpoint),
           count_elements(checkpoint), checkpoint_bytes(checkpoint), checkpoint_revision(checkpoint));
    printf("%s\n", checkpoint_config_json(checkpoint));
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++)
        print_tensor(checkpoint_at(checkpoint, i));
    checkpoint_close(checkpoint);
    return 0;
}

/* ---- create ------------------------------------------------------------------------------------------------------------------- */

/* Rewrites a F32 checkpoint that create made as BF16. Its tensors are used as they lie in the file, where the writer has aligned them. */
static int rewrite_as_bf16(const char *dir)
{
    checkpoint_t *checkpoint;
    if (checkpoint_open(dir, &checkpoint) < 0)
        return complain();
    size_t count = checkpoint_count(checkpoint);
    checkpoint_source_t *sources = calloc(count + 1, sizeof *sources);
    for (size_t i = 0; sources && i < count; i++) {
        const checkpoint_tensor_t *tensor = checkpoint_at(checkpoint, i);
        sources[i] = (checkpoint_source_t){.name = tensor->name, .rank = tensor->rank, .data = tensor->data};
        memcpy(sources[i].dim, tensor->dim, sizeof sources[i].dim);
    }
    int rc = sources ? checkpoint_write(dir, checkpoint_config_json(checkpoint), sources, count, CHECKPOINT_BF16)
                     : error_set(CHECKPOINT_ERR_MEMORY, "no memory for %zu tensors", count);
    free(sources);
    checkpoint_close(checkpoint);
    return rc < 0 ? complain() : 0;
}

static const model_family_t *find_family(const char *name)
{
    for (size_t i = 0; model_families[i]; i++)
        if (strcmp(model_families[i]->name, name) == 0 && model_families[i]->create)
            return model_families[i];
    return NULL;
}

static int create(int argc, char **argv)
{
    const char *family_text = "toto1", *size = "tiny", *dir = "", *dtype = "f32";
    uint64_t seed = 1;
    const option_t options[] = {
        {"family", OPTION_TEXT, &family_text, "NAME", "what kind of model"},
        {"size", OPTION_TEXT, &size, "SIZE", "tiny, or a published one's name; an unknown one lists them"},
        {"seed", OPTION_U64, &seed, "N", "the same seed makes the same bytes, on any machine"},
        {"dtype", OPTION_TEXT, &dtype, "TYPE", "f32 or bf16, as stored"},
        {"out", OPTION_TEXT, &dir, "DIR", "where to; files of a checkpoint that is there are replaced"},
    };
    const options_t spec = {
        .usage = "barcast models create --out DIR [options]",
        .about =
            "Makes a checkpoint with random weights: nobody trained it, and its forecasts mean nothing. It is laid out as the\n"
            "published ones are, for trying things out and for measuring.\n\n"
            "Example: barcast models create --family toto1 --size tiny --seed 7 --out models/tiny",
        .options = options,
        .count = sizeof options / sizeof *options,
    };
    int rc = options_parse(&spec, argc, argv, NULL);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    const model_family_t *family = find_family(family_text);
    bool bf16 = strcmp(dtype, "bf16") == 0;
    if (!*dir || !family || (!bf16 && strcmp(dtype, "f32") != 0)) {
        fprintf(stderr, "barcast models create: %s; see --help\n",
                !*dir     ? "--out is missing"
                : !family ? "--family: no such family that can make random checkpoints"
                          : "--dtype: expected f32 or bf16");
        return 2;
    }
    if (family->create(size, seed, dir) < 0)
        return complain();
    if (bf16 && rewrite_as_bf16(dir) != 0)
        return 1;
    tally_t tally = {0};
    list_model(dir, &tally);
    return tally.faulty ? 1 : 0;
}

int cmd_models(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "show") == 0)
        return show(argc - 1, argv + 1);
    if (strcmp(verb, "fit") == 0)
        return models_fit(argc - 1, argv + 1);
    if (strcmp(verb, "create") == 0)
        return create(argc - 1, argv + 1);
    return list(argc, argv);
}
