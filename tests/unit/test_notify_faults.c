/* A service manager that cannot be told of it is an error that is handed up, and nothing stays open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fault.h"
#include "notify.h"

static void test_state_is_told_or_an_error_handed_up(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path, sizeof(address.sun_path),
                          "@gproc-test-notify-faults-%ld", (long)getpid());
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct fault_walk walk;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
    address.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (const struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length)),
                     0);
    fault_walk_init(&walk);
    do {
        char heard[16];
        int result;

        fault_walk_start(&walk);
        result = notify_send("READY=1");
        fault_walk_stop(&walk);
        fault_walk_judge(&walk, result, 0);
        assert_int_equal(recv(fd, heard, sizeof(heard), 0) > 0, result == 0);
    } while (fault_walk_next(&walk));
    (void)close(fd);
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state_is_told_or_an_error_handed_up),
    };

    return cmocka_run_group_tests_name("notify, faults", tests, NULL, NULL);
}
