#include "bell.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static const int64_t ns_per_s = 1000 * 1000 * 1000;

int64_t bell_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * ns_per_s + now.tv_nsec;
}

int64_t bell_sooner_ns(int64_t one_ns, int64_t other_ns)
{
    return one_ns < 0 || (other_ns >= 0 && other_ns < one_ns) ? other_ns : one_ns;
}

int bell_new(void)
{
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    return bell < 0 ? -errno : bell;
}

void bell_ring(int bell)
{
    uint64_t one = 1;

    (void)!write(bell, &one, sizeof(one)); /* full means that he is awake anyway */
}

bool bell_sleep(int bell, int other, int64_t until_ns)
{
    struct pollfd events[] = {
        {.fd = bell, .events = POLLIN},
        {.fd = other, .events = POLLIN},
    };
    int64_t left_ns = until_ns < 0 ? 0 : until_ns - bell_now_ns();
    struct timespec left = {0, 0};
    uint64_t count;

    if (left_ns > 0)
        left = (struct timespec){left_ns / ns_per_s, left_ns % ns_per_s};
    if (ppoll(events, 2, until_ns < 0 ? NULL : &left, NULL) <= 0)
        return false;
    if (events[0].revents != 0)
        (void)!read(bell, &count, sizeof(count)); /* only empties it */
    return events[1].revents != 0;
}
