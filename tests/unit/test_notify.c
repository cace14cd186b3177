/*
 * What a service manager hears: one datagram for each state, at a path or an abstract name; nothing
 * where none asked; an error, and no crash, where its address is wrong or nobody reads.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "notify.h"

enum {
    NAME_MOST_BYTES = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1,
};

/* The manager's socket. `name` is as in NOTIFY_SOCKET, which is set to it. */
static int listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_true(length <= sizeof(address.sun_path));
    memcpy(address.sun_path, name, length);
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (const struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)),
                     0);
    assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
    return fd;
}

static void expect_heard(int fd, const char *text)
{
    char heard[64];
    ssize_t size = recv(fd, heard, sizeof(heard), 0);

    if (text == NULL) {
        assert_int_equal(size, -1);
        assert_int_equal(errno, EAGAIN);
        return;
    }
    assert_int_equal(size, strlen(text));
    assert_memory_equal(heard, text, strlen(text));
}

/* A name that nobody else has: abstract ones are common to the whole machine. */
static void fill_name(char *name, size_t length, char first)
{
    int written;

    memset(name, 'x', length);
    name[length] = '\0';
    if (first == '@')
        written = snprintf(name, length, "@gproc-test-notify-%ld-%zu-", (long)getpid(), length);
    else
        written = snprintf(name, length, "%s/notify-%zu-",
                           getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp", length);
    assert_true(written > 0 && (size_t)written < length);
    name[written] = 'x';
}

static void test_each_state_is_one_datagram_at_either_kind_of_address(void **state)
{
    static const char kinds[] = {'@', '/'};
    static const size_t lengths[] = {90, NAME_MOST_BYTES};

    (void)state;
    for (size_t i = 0; i < sizeof(kinds); i++) {
        for (size_t j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
            char name[NAME_MOST_BYTES + 1];
            int fd;

            fill_name(name, lengths[j], kinds[i]);
            fd = listen_at(name);
            assert_int_equal(notify_send("READY=1"), 0);
            assert_int_equal(notify_send("STOPPING=1"), 0);
            expect_heard(fd, "READY=1");
            expect_heard(fd, "STOPPING=1");
            expect_heard(fd, NULL);
            (void)close(fd);
            if (kinds[i] == '/')
                assert_int_equal(unlink(name), 0);
        }
    }
}

static void test_nobody_who_asked_is_no_error(void **state)
{
    (void)state;
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    assert_int_equal(notify_send("READY=1"), 0);
    assert_int_equal(setenv("NOTIFY_SOCKET", "", 1), 0);
    assert_int_equal(notify_send("READY=1"), 0);
}

static void test_an_address_that_is_none_is_refused(void **state)
{
    static const char *const names[] = {"/", "@", "relative", "./here", "vsock:2:1234", " @name"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(setenv("NOTIFY_SOCKET", names[i], 1), 0);
        assert_int_equal(notify_send("READY=1"), -EINVAL);
    }
}

static void test_a_name_that_is_too_long_is_refused(void **state)
{
    static const char kinds[] = {'@', '/'};

    (void)state;
    for (size_t i = 0; i < sizeof(kinds); i++) {
        char name[NAME_MOST_BYTES + 2];

        memset(name, 'x', sizeof(name));
        name[0] = kinds[i];
        name[NAME_MOST_BYTES + 1] = '\0';
        assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
        assert_int_equal(notify_send("READY=1"), -ENAMETOOLONG);
    }
}

static void test_a_manager_that_is_gone_is_an_error(void **state)
{
    char name[NAME_MOST_BYTES + 1];

    (void)state;
    fill_name(name, 90, '@');
    (void)close(listen_at(name));
    assert_int_equal(notify_send("READY=1"), -ECONNREFUSED);
    fill_name(name, 90, '/');
    (void)close(listen_at(name));
    assert_int_equal(notify_send("READY=1"), -ECONNREFUSED);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(notify_send("READY=1"), -ENOENT);
}

static void test_a_manager_that_does_not_read_is_waited_for_but_not_long(void **state)
{
    char name[NAME_MOST_BYTES + 1];
    int result = 0;
    int fd;

    (void)state;
    fill_name(name, 90, '@');
    fd = listen_at(name);
    /* The kernel keeps few datagrams for a socket: net.unix.max_dgram_qlen. */
    for (int i = 0; i < 100000 && result == 0; i++)
        result = notify_send("READY=1");
    assert_int_equal(result, -EAGAIN);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_state_is_one_datagram_at_either_kind_of_address),
        cmocka_unit_test(test_nobody_who_asked_is_no_error),
        cmocka_unit_test(test_an_address_that_is_none_is_refused),
        cmocka_unit_test(test_a_name_that_is_too_long_is_refused),
        cmocka_unit_test(test_a_manager_that_is_gone_is_an_error),
        cmocka_unit_test(test_a_manager_that_does_not_read_is_waited_for_but_not_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
