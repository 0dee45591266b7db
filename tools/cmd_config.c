#include "base/error.h"
#include "config/config.h"
#include "tools/command.h"
#include "tools/options.h"

#include <stdio.h>
#include <string.h>

static const options_t spec = {
    .usage = "barcast config print [FILE] | barcast config check FILE",
    .about = "print        the documented sample file: every key, its meaning and its default\n"
             "print FILE   that file's values in force, defaults included\n"
             "check FILE   tells whether the file is valid, and if not, in which line it is not\n\n"
             "A first configuration: barcast config print > my.ini",
};

static int print(const char *file)
{
    config_t *config;
    if (!file) {
        config_print_sample(stdout);
        return 0;
    }
    if (config_load(file, &config) < 0) {
        fprintf(stderr, "%s\n", error_text());
        return 1;
    }
    config_print(config, stdout);
    config_free(config);
    return 0;
}

static int check(const char *file)
{
    config_t *config;
    if (config_load(file, &config) < 0) {
        fprintf(stderr, "%s\n", error_text());
        return 1;
    }
    printf("%s: valid, %u feed%s, %u model%s\n", file, config->feed_count, config->feed_count == 1 ? "" : "s", config->model_count,
           config->model_count == 1 ? "" : "s");
    config_free(config);
    return 0;
}

int cmd_config(int argc, char **argv)
{
    int first;
    int rc = options_parse(&spec, argc, argv, &first);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    const char *verb = first < argc ? argv[first] : "";
    int files = argc - first - 1;
    if (strcmp(verb, "print") == 0 && files <= 1)
        return print(files ? argv[first + 1] : NULL);
    if (strcmp(verb, "check") == 0 && files == 1)
        return check(argv[first + 1]);
    fprintf(stderr, "usage: %s\n", spec.usage);
    return 2;
}
