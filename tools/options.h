/* Command-line options from one table a command: parsing, ranges, --help and "did you mean" all come from it. */
#ifndef BARCAST_TOOLS_OPTIONS_H
#define BARCAST_TOOLS_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    OPTION_FLAG, /* bool *: set to true */
    OPTION_TEXT, /* const char **: borrowed from argv */
    OPTION_U32,  /* uint32_t * */
    OPTION_U64,  /* uint64_t * */
    OPTION_F64   /* double * */
} option_type_t;

typedef struct {
    const char *name; /* without the dashes: "horizon" */
    option_type_t type;
    void *value;          /* holds the default, which --help prints */
    const char *argument; /* "BARS"; NULL for a flag */
    const char *help;
} option_t;

typedef struct {
    const char *usage; /* "barcast forecast --input FILE.csv [options]" */
    const char *about; /* what it does, a few lines, with an example */
    const option_t *options;
    size_t count;
} options_t;

enum { OPTIONS_OK = 0, OPTIONS_HELP = 1, OPTIONS_ERR = -1 };

/* Parses argv[1..]; what is not an option is moved to the end, *first is its index. --help prints and returns OPTIONS_HELP; an
 * error is told on stderr. A command exits with 0 and 2 then. */
int options_parse(const options_t *spec, int argc, char **argv, int *first);

#endif
