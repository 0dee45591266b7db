/* Error text: set where a failure happens, extended on the way up.
 *
 * Every Barcast function that can fail returns 0 or a negative code of its module and leaves its outputs untouched. The text that
 * tells a person what went wrong lives beside the code, one text a thread: the place that finds the fault calls error_set, callers
 * that know more (the file, the symbol, the tensor) put it in front with error_add, and whoever reports prints error_text.
 *
 *     if (fd < 0) return error_set(CHECKPOINT_ERR_IO, "cannot open: %s", strerror(errno));
 *     ...
 *     if ((rc = open_shard(path)) < 0) return error_add(rc, "%s", path);        -> "model.safetensors: cannot open: No such file"
 *
 * Threads: all functions touch only the calling thread's text. None blocks, none allocates. */
#ifndef BARCAST_BASE_ERROR_H
#define BARCAST_BASE_ERROR_H

#define ERROR_TEXT_BYTES 1024

/* Replaces the thread's text by the formatted one (cut at ERROR_TEXT_BYTES) and returns `code`. */
int error_set(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts the formatted context and ": " in front of the thread's text and returns `code`. */
int error_add(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The thread's text, never NULL, "" when none was set. Valid until the thread's next error_set or error_add. */
const char *error_text(void);

#endif
