#include "notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

enum {
    WAIT_US = 500 * 1000,
};

/* 0 and the address that `text` names, or a negative errno. */
static int parse_address(const char *text, struct sockaddr_un *address, socklen_t *size_bytes)
{
    size_t length = strlen(text);

    if (length < 2 || (text[0] != '/' && text[0] != '@'))
        return -EINVAL;
    if (length >= sizeof(address->sun_path))
        return -ENAMETOOLONG;
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, text, length);
    if (text[0] == '@')
        address->sun_path[0] = '\0';
    *size_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    return 0;
}

static int send_state(const char *state, const char *to)
{
    const struct timeval wait = {.tv_usec = WAIT_US};
    struct sockaddr_un address;
    socklen_t size_bytes;
    int result = parse_address(to, &address, &size_bytes);
    int fd;

    if (result < 0)
        return result;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) < 0 ||
        connect(fd, (const struct sockaddr *)&address, size_bytes) < 0 ||
        send(fd, state, strlen(state), MSG_NOSIGNAL) < 0)
        result = -errno;
    (void)close(fd); /* a datagram is sent or not by now */
    return result;
}

int notify_send(const char *state)
{
    const char *to = getenv("NOTIFY_SOCKET");
    int result;

    if (to == NULL || to[0] == '\0')
        return 0;
    result = send_state(state, to);
    if (result < 0)
        log_error("cannot tell the service manager %s at %s: %s", state, to, strerror(-result));
    return result;
}
