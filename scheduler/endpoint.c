#include "scheduler/endpoint.h"

#include "base/directory.h"
#include "base/error.h"

#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

enum {
    HIGH_WATER_MARK = 1000,      /* messages waiting for one worker or from it: credits and heartbeats, far below */
    MESSAGE_BYTES_MOST = 1 << 16 /* the longest is DONE of WIRE_ITEMS_MOST series */
};

static bool has_listener(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return false;
    memcpy(address.sun_path, path, strnlen(path, sizeof address.sun_path - 1));
    bool connected = connect(probe, (struct sockaddr *)&address, sizeof address) == 0;
    close(probe);
    return connected;
}

static int set_options(void *router)
{
    const int yes = 1, no = 0, mark = HIGH_WATER_MARK;
    const int64_t bytes_most = MESSAGE_BYTES_MOST;
    return zmq_setsockopt(router, ZMQ_ROUTER_MANDATORY, &yes, sizeof yes) ||
           zmq_setsockopt(router, ZMQ_ROUTER_HANDOVER, &yes, sizeof yes) || zmq_setsockopt(router, ZMQ_LINGER, &no, sizeof no) ||
           zmq_setsockopt(router, ZMQ_SNDHWM, &mark, sizeof mark) || zmq_setsockopt(router, ZMQ_RCVHWM, &mark, sizeof mark) ||
           zmq_setsockopt(router, ZMQ_MAXMSGSIZE, &bytes_most, sizeof bytes_most);
}

int endpoint_bind(const config_t *config, void *zmq, void **router)
{
    char directory[CONFIG_TEXT_BYTES], endpoint[CONFIG_TEXT_BYTES];
    if (config_runtime_dir(config, directory) < 0 || config_scheduler_endpoint(config, endpoint) < 0 ||
        directory_make_private(directory) < 0)
        return ENDPOINT_ERR_SYSTEM;
    if (strncmp(endpoint, "ipc://", 6) == 0 && has_listener(endpoint + 6))
        return error_set(ENDPOINT_ERR_BUSY, "%s: another scheduler listens there", endpoint);
    void *socket = zmq_socket(zmq, ZMQ_ROUTER);
    if (!socket || set_options(socket) || zmq_bind(socket, endpoint)) {
        int reason = zmq_errno();
        if (socket)
            zmq_close(socket);
        return error_set(ENDPOINT_ERR_SYSTEM, "cannot listen on %s: %s", endpoint, zmq_strerror(reason));
    }
    *router = socket;
    return ENDPOINT_OK;
}
