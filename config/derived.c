#include "base/error.h"
#include "base/text.h"
#include "config/config.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum { SOCKET_PATH_BYTES_MOST = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1 };

__attribute__((format(printf, 2, 3))) static int put(char out[static CONFIG_TEXT_BYTES], const char *format, ...)
{
    char text[2 * CONFIG_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || length >= CONFIG_TEXT_BYTES)
        return error_set(CONFIG_ERR_VALUE, "\"%s\" is longer than %d bytes", text, CONFIG_TEXT_BYTES - 1);
    memcpy(out, text, (size_t)length + 1);
    return CONFIG_OK;
}

int config_runtime_dir(const config_t *config, char out[static CONFIG_TEXT_BYTES])
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    if (*config->instance.runtime_dir)
        return put(out, "%s", config->instance.runtime_dir);
    if (base && *base == '/')
        return put(out, "%s/barcast/%s", base, config->instance.name);
    return put(out, "/tmp/barcast-%u/%s", (unsigned)getuid(), config->instance.name);
}

/* The kernel holds a unix socket's path in a fixed field. */
static int check_socket_path(const char *endpoint)
{
    const char *path = strncmp(endpoint, "ipc://", 6) == 0 ? endpoint + 6 : "";
    if (strlen(path) > SOCKET_PATH_BYTES_MOST)
        return error_set(CONFIG_ERR_VALUE,
                         "the socket's path \"%s\" has %zu bytes, at most %d are possible: set a shorter runtime_dir in [instance]",
                         path, strlen(path), SOCKET_PATH_BYTES_MOST);
    return CONFIG_OK;
}

static int put_in_runtime_dir(const config_t *config, const char *socket, char out[static CONFIG_TEXT_BYTES])
{
    char dir[CONFIG_TEXT_BYTES], endpoint[CONFIG_TEXT_BYTES];
    int rc = config_runtime_dir(config, dir);
    if (rc == CONFIG_OK)
        rc = put(endpoint, "ipc://%s/%s", dir, socket);
    if (rc == CONFIG_OK)
        rc = check_socket_path(endpoint);
    return rc == CONFIG_OK ? put(out, "%s", endpoint) : rc;
}

int config_scheduler_endpoint(const config_t *config, char out[static CONFIG_TEXT_BYTES])
{
    const char *given = config->scheduler.endpoint;
    if (!*given)
        return put_in_runtime_dir(config, "scheduler", out);
    int rc = check_socket_path(given);
    return rc == CONFIG_OK ? put(out, "%s", given) : rc;
}

int config_publish_endpoint(const config_t *config, uint32_t worker, char out[static CONFIG_TEXT_BYTES])
{
    const char *given = config->publish.endpoint;
    char text[CONFIG_TEXT_BYTES];
    int rc;
    if (!*given) {
        snprintf(text, sizeof text, "publish.%u", worker);
        return put_in_runtime_dir(config, text, out);
    }
    if (strncmp(given, "tcp://", 6) == 0) {
        const char *colon = strrchr(given, ':'); /* the loader has made sure of HOST:PORT */
        int64_t port = 0;
        text_to_i64(colon + 1, &port);
        if (port + worker > UINT16_MAX)
            return error_set(CONFIG_ERR_VALUE,
                             "worker %u would publish at port %lld, expected at most %d: lower the port in [publish]", worker,
                             (long long)(port + worker), UINT16_MAX);
        return put(out, "%.*s:%lld", (int)(colon - given), given, (long long)(port + worker));
    }
    rc = worker ? put(text, "%s.%u", given, worker) : put(text, "%s", given);
    if (rc == CONFIG_OK)
        rc = check_socket_path(text);
    return rc == CONFIG_OK ? put(out, "%s", text) : rc;
}
