/* Followers of mailboxes for which inotify(7) has no watch left, before they wait or while they do.
 *
 * The kernel counts watches by user. So the daemon is that of a user of his own, and another
 * process of his takes all that he may have; nobody else misses any. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "through.h"
#include "view.h"

enum {
    BOX = 4711,
    OTHER = 4712,
    THIRD = 4713,
    USER = 1, /* who has a name everywhere, as fusermount3 wants, and no watches */
    HOG_MS = 60000,
    CHILD_MS = 15000, /* the usual is at once */
    WATCHES_MOST = 2000000,
};

/* --- Who takes all watches ------------------------------------------------------------------- */

static long read_limit(const char *name)
{
    char path[128];
    long limit = -1;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/sys/fs/inotify/%s", name);
    file = fopen(path, "re");
    if (file != NULL && fscanf(file, "%ld", &limit) != 1)
        limit = -1;
    if (file != NULL)
        fclose(file);
    return limit;
}

/* Watches the files 0, 1, ... of a directory by one inotify after the other: true when there is no
 * watch to be had any more. */
static int take_all_watches(const char *directory, long files)
{
    char path[PATH_MAX];

    for (;;) {
        int watches = inotify_init1(IN_CLOEXEC);

        if (watches < 0)
            return 0;
        for (long i = 0; i < files; i++) {
            snprintf(path, sizeof(path), "%s/%ld", directory, i);
            if (inotify_add_watch(watches, path, IN_ATTRIB) < 0)
                return errno == ENOSPC;
        }
    }
}

/* Its process id when it has them all; skips the test where that cannot be had. */
static pid_t start_hog(struct mount *mount)
{
    long watches = read_limit("max_user_watches");
    long instances = read_limit("max_user_instances");
    long files = instances > 8 ? watches / (instances - 4) + 1 : -1;
    const char *directory = mount_keep(mount, strdup(mount_path(mount, "%s/hog", mount->work)));
    struct pollfd told;
    char answer = 0;
    pid_t hog;
    int ends[2];

    if (watches < 0 || watches > WATCHES_MOST || files < 0) {
        print_message("skipped: %ld watches cannot be used up\n", watches);
        skip();
    }
    through_expect_run(mount, "sh", "", "mkdir hog && cd hog && seq 0 %ld | xargs touch", files);
    assert_success(pipe2(ends, O_CLOEXEC));
    hog = process_fork(USER);
    if (hog == 0) {
        answer = take_all_watches(directory, files) ? 'y' : 'n';
        if (write(ends[1], &answer, 1) == 1)
            pause();
        _exit(1);
    }
    close(ends[1]);
    told = (struct pollfd){.fd = ends[0], .events = POLLIN};
    assert_int_equal(poll(&told, 1, HOG_MS), 1);
    assert_int_equal(read(ends[0], &answer, 1), 1);
    close(ends[0]);
    assert_int_equal(answer, 'y');
    return hog;
}

static void end_hog(pid_t hog)
{
    assert_success(kill(hog, SIGKILL));
    assert_int_equal(process_wait(hog, CHILD_MS), 128 + SIGKILL);
}

/* --- What the user does ---------------------------------------------------------------------- */

static void send_behind(struct mount *mount, int pid, const char *text)
{
    pid_t child = process_fork(USER);

    if (child == 0)
        _exit(behind_send(mount, pid, 1, text, strlen(text)) == 0 ? 0 : 1);
    assert_int_equal(process_wait(child, CHILD_MS), 0);
}

static void make_empty_behind(struct mount *mount, int pid)
{
    struct process_result result = through_run_as(mount, USER, "sh", ": > \"$B/%d\"", pid);

    assert_int_equal(result.status, 0);
}

static char path_to_open[PATH_MAX];

static void open_and_read_once(int fd, struct through_answer *answer)
{
    fd = open(path_to_open, THROUGH_RECEIVE);
    through_read_once(fd, answer);
}

static void await_waiting(struct mount *mount, int count)
{
    struct process_result result = through_run_as(
        mount, USER, "sh",
        "until grep -q '^gprocfs_parked_requests{kind=\"message\"} %d$' $M/.stats; do :; done",
        count);

    assert_int_equal(result.status, 0);
}

static struct through_waiter start_follower(struct mount *mount, int pid, int count)
{
    struct through_waiter waiter;

    snprintf(path_to_open, sizeof(path_to_open), "%s", view_path(mount, ".follow", pid));
    waiter = through_start(USER, -1, open_and_read_once);
    await_waiting(mount, count);
    return waiter;
}

static void make_box(struct mount *mount, int pid)
{
    send_behind(mount, pid, "");
}

/* --- The tests ------------------------------------------------------------------------------- */

/* He waited when there were watches enough. The one of his file went with that, and for the file
 * that is made anew there is none. */
static void follower_whose_mailbox_is_made_anew_when_watches_ran_out_is_woken(void **state)
{
    struct mount *mount = mount_of(state);
    struct through_waiter follower;
    pid_t hog;

    make_box(mount, BOX);
    follower = start_follower(mount, BOX, 1);
    assert_success(unlink(behind_box(mount, BOX)));
    hog = start_hog(mount);
    make_empty_behind(mount, BOX);
    await_waiting(mount, 1);
    send_behind(mount, BOX, "into the new one");
    through_expect_answer(&follower, "into the new one");
    end_hog(hog);
}

static void follower_for_whom_no_watch_is_left_is_woken(void **state)
{
    struct mount *mount = mount_of(state);
    struct through_waiter first;
    struct through_waiter second;
    struct through_waiter third;
    pid_t hog;

    make_box(mount, BOX);
    make_box(mount, OTHER);
    make_box(mount, THIRD);
    first = start_follower(mount, BOX, 1);
    hog = start_hog(mount);
    second = start_follower(mount, OTHER, 2);
    third = start_follower(mount, THIRD, 3);
    send_behind(mount, OTHER, "to the second");
    through_expect_answer(&second, "to the second");
    await_waiting(mount,
                  2); /* he has gone, and with him the looks at his mailbox, but no other's */
    send_behind(mount, THIRD, "to the third");
    through_expect_answer(&third, "to the third");
    send_behind(mount, BOX, "to the first");
    through_expect_answer(&first, "to the first");
    end_hog(hog);
    /* And it goes on when there are watches again. */
    first = start_follower(mount, OTHER, 1);
    send_behind(mount, OTHER, "afterwards");
    through_expect_answer(&first, "afterwards");
}

int main(void)
{
    static const struct mount_options user = {.uid = USER, .chatty = true, .seconds = 90};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST_WITH(follower_whose_mailbox_is_made_anew_when_watches_ran_out_is_woken, &user),
        MOUNT_TEST_WITH(follower_for_whom_no_watch_is_left_is_woken, &user),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    mount_open_device_to_users();
    return cmocka_run_group_tests_name("watches", tests, NULL, NULL) == 0 ? 0 : 1;
}
