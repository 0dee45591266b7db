#include "tools/options.h"

#include "base/text.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { OPTIONS_MOST = 48 };

static void print_default(const option_t *option)
{
    switch (option->type) {
    case OPTION_FLAG:
        break;
    case OPTION_TEXT: {
        const char *text = *(const char **)option->value;
        if (text && *text)
            printf(" [%s]", text);
        break;
    }
    case OPTION_U32:
        printf(" [%u]", *(uint32_t *)option->value);
        break;
    case OPTION_U64:
        printf(" [%llu]", (unsigned long long)*(uint64_t *)option->value);
        break;
    case OPTION_F64:
        printf(" [%g]", *(double *)option->value);
        break;
    }
}

static void print_help(const options_t *spec)
{
    printf("usage: %s\n\n%s\n", spec->usage, spec->about);
    if (spec->count)
        printf("\noptions:\n");
    for (size_t i = 0; i < spec->count; i++) {
        const option_t *option = &spec->options[i];
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", option->name, option->argument ? " " : "",
                 option->argument ? option->argument : "");
        printf("  %-24s %s", left, option->help);
        print_default(option);
        putchar('\n');
    }
}

static bool store(const option_t *option, const char *text)
{
    int64_t integer;
    switch (option->type) {
    case OPTION_FLAG:
        *(bool *)option->value = true;
        return true;
    case OPTION_TEXT:
        *(const char **)option->value = text;
        return true;
    case OPTION_U32:
        if (!text_to_i64(text, &integer) || integer < 0 || integer > UINT32_MAX)
            return false;
        *(uint32_t *)option->value = (uint32_t)integer;
        return true;
    case OPTION_U64:
        if (!text_to_i64(text, &integer) || integer < 0)
            return false;
        *(uint64_t *)option->value = (uint64_t)integer;
        return true;
    case OPTION_F64:
        return text_to_f64(text, option->value);
    }
    return false;
}

static void complain_unknown(const options_t *spec, const char *given)
{
    const char *names[OPTIONS_MOST];
    for (size_t i = 0; i < spec->count; i++)
        names[i] = spec->options[i].name;
    const char *word = given + strspn(given, "-");
    const char *nearest = text_nearest(word, names, spec->count);
    fprintf(stderr, "%s: no such option%s%s%s\n", given, nearest ? "; did you mean --" : "", nearest ? nearest : "",
            nearest ? "?" : "");
}

int options_parse(const options_t *spec, int argc, char **argv, int *first)
{
    struct option table[OPTIONS_MOST + 2] = {0};
    size_t used = spec->count < OPTIONS_MOST ? spec->count : OPTIONS_MOST;
    for (size_t i = 0; i < used; i++)
        table[i] =
            (struct option){spec->options[i].name, spec->options[i].type == OPTION_FLAG ? no_argument : required_argument, NULL, 0};
    table[used] = (struct option){"help", no_argument, NULL, 0};

    optind = 1;
    opterr = 0;
    for (;;) {
        int index = 0;
        int at = optind;
        int found = getopt_long(argc, argv, ":", table, &index);
        if (found == -1)
            break;
        if (found == ':') {
            fprintf(stderr, "%s: needs a value; see --help\n", argv[optind - 1]);
            return OPTIONS_ERR;
        }
        if (found == '?') {
            complain_unknown(spec, argv[at < argc ? (optind > at ? optind - 1 : at) : argc - 1]);
            return OPTIONS_ERR;
        }
        if ((size_t)index == used) {
            print_help(spec);
            return OPTIONS_HELP;
        }
        if (!store(&spec->options[index], optarg)) {
            fprintf(stderr, "--%s: \"%s\" is not a %s\n", spec->options[index].name, optarg,
                    spec->options[index].type == OPTION_F64 ? "number" : "whole number in range");
            return OPTIONS_ERR;
        }
    }
    if (first)
        *first = optind;
    else if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument; see --help\n", argv[optind]);
        return OPTIONS_ERR;
    }
    return OPTIONS_OK;
}
