/* Scratch directories and hand-made files for the tests of weights. Failures fail the test. */
#ifndef BARCAST_TESTS_UNIT_WEIGHTS_TEST_H
#define BARCAST_TESTS_UNIT_WEIGHTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those four first */
#include <cmocka.h>

/* A fresh directory as cmocka setup and teardown: *state is its path. */
int scratch_make(void **state);
int scratch_remove(void **state);

/* "DIR/name" in a buffer that the next eight calls leave alone. */
const char *scratch_path(const char *dir, const char *name);

void write_file(const char *path, const void *bytes, size_t count);
void write_text(const char *path, const char *text);

/* The bytes of a safetensors file with this header: malloc'd to the exact size, so that a sanitizer sees any step over the end. */
void *safetensors_bytes(const char *header, const void *data, size_t data_bytes, size_t *count);
void write_safetensors(const char *path, const char *header, const void *data, size_t data_bytes);

/* The error text must contain `expected`. */
void assert_error_has(const char *expected);

#endif
