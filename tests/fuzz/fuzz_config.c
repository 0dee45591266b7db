/* Any text as a configuration: refused with a text, or printed so that it is read back the same. */
#include "base/error.h"
#include "config/config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const config_t *config)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    config_t *again = NULL;
    config_print(config, to);
    fclose(to);
    if (config_parse(text, "fuzz.ini", &again) < 0) {
        fprintf(stderr, "%s\n%s", error_text(), text);
        abort();
    }
    if (memcmp(again, config, sizeof *config) != 0) {
        fprintf(stderr, "not read back the same:\n%s", text);
        abort();
    }
    config_free(again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), derived[CONFIG_TEXT_BYTES];
    config_t *config;
    memcpy(text, data, size);
    text[size] = '\0';
    error_set(0, "%s", "");
    if (config_parse(text, "fuzz.ini", &config) == CONFIG_OK) {
        check_round_trip(config);
        config_runtime_dir(config, derived);
        config_scheduler_endpoint(config, derived);
        config_publish_endpoint(config, 1, derived);
        config_free(config);
    } else if (strncmp(error_text(), "fuzz.ini:", 9) != 0) {
        abort();
    }
    free(text);
    return 0;
}
