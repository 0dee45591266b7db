/* What the tests of config/ share. */
#ifndef BARCAST_TESTS_CONFIG_TEST_H
#define BARCAST_TESTS_CONFIG_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "config/config.h"

/* The smallest valid file. */
#define FEED    "[feed.bars]\npath = bars.csv\n"
#define MODEL   "[model.naive]\npath = naive\n"
#define MINIMAL FEED MODEL

static inline config_t *parsed(const char *text)
{
    config_t *config = NULL;
    if (config_parse(text, "test.ini", &config) < 0)
        fail_msg("%s", error_text());
    return config;
}

/* The text is refused with that code and exactly that message. */
#define assert_refused(text, code, message)                                                                                        \
    do {                                                                                                                           \
        config_t *untouched = NULL;                                                                                                \
        assert_int_equal(config_parse((text), "test.ini", &untouched), (code));                                                    \
        assert_null(untouched);                                                                                                    \
        assert_string_equal(error_text(), (message));                                                                              \
    } while (0)

#endif
