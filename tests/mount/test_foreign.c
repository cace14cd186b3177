/*
 * Programs that know nothing of mailboxes and do with a file what they are used to: nothing hangs
 * or crashes, and what should arrive does, once.
 *
 * Skipped where a program is missing; fio and stress-ng are too large to be fetched for this.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "behind.h"
#include "mount.h"
#include "process.h"
#include "through.h"

enum {
    BOX = 4711,
    BLOCK_BYTES = 4096,
    BLOCKS = 16,
    FIO_JOBS = 4,
    MESSAGES = 500,
};

/* What has not been received, frame by frame: how many, all of this size. */
static size_t count_blocks(struct mount *mount)
{
    struct behind_message message;
    uint8_t *bytes;
    ssize_t got = behind_drain(mount, BOX, &bytes), took;
    size_t count = 0;

    assert_true(got >= 0);
    for (ssize_t done = 0; done < got; done += took, count++) {
        took = behind_parse(bytes + done, (size_t)(got - done), &message);
        assert_true(took > 0);
        assert_int_equal(message.payload_bytes, BLOCK_BYTES);
    }
    free(bytes);
    return count;
}

/* Fails the test unless the program fails, says this, and sends nothing. */
static void expect_refusal(struct mount *mount, const char *says, const char *line)
{
    struct process_result result = through_run_as(mount, 0, "sh", "%s", line);

    if (result.status <= 0 || result.status > 128 || strstr(result.err, says) == NULL)
        fail_msg("%s: exit status %d\nerrors: %.2000s", line, result.status, result.err);
    through_expect_run(mount, "sh", "0\n", "ls $M | grep -vx 4711 | wc -l");
}

/* --- fio -------------------------------------------------------------------------------------- */

static void fio_writes_each_block_as_a_message(void **state)
{
    static const char options[] = "--name=x --rw=write --bs=4k --size=64k --ioengine=sync "
                                  "--fallocate=none --verify=crc32c";
    struct mount *mount = mount_of(state);

    through_need("fio");
    through_expect_run(mount, "sh", "", ": > $M/4711");
    through_expect_run(mount, "sh", NULL, "fio %s --filename=$M/4711 --do_verify=0", options);
    through_expect_size(mount, BOX, (off_t)BLOCKS * BLOCK_BYTES);
    /* Its own check of what it has written. */
    through_expect_run(mount, "sh", NULL,
                       "cat $M/4711 > out && fio %s --filename=out --verify_only", options);
    through_expect_run(mount, "sh", NULL, "fio %s --filename=$M/4711 --do_verify=0 --fsync=3",
                       options);
    assert_int_equal(count_blocks(mount), BLOCKS);
}

/* Wherever in the file they believe to write. */
static void fio_writes_from_many_processes_arrive_once(void **state)
{
    struct mount *mount = mount_of(state);

    through_need("fio");
    through_expect_run(mount, "sh", "", ": > $M/4711");
    through_expect_run(mount, "sh", NULL,
                       "fio --name=x --filename=$M/4711 --rw=randwrite --bs=4k --size=64k "
                       "--ioengine=psync --fallocate=none --numjobs=%d",
                       FIO_JOBS);
    assert_int_equal(count_blocks(mount), BLOCKS * FIO_JOBS);
    expect_refusal(mount, "Invalid argument",
                   "fio --name=x --directory=$M --rw=write --bs=4k --size=64k 1>&2");
}

/* --- rsync ------------------------------------------------------------------------------------ */

static void rsync_is_refused_its_temporary_file(void **state)
{
    struct mount *mount = mount_of(state);

    through_need("rsync");
    behind_expect_sent(mount, BOX, 1, "was here\n");
    expect_refusal(mount, "Invalid argument", "echo data > 4711; rsync 4711 $M/");
    behind_expect_texts(mount, BOX, "was here\n", NULL);
}

/* In place it writes first, and then cuts the file to the size of what it wrote. */
static void rsync_in_place_sends_once(void **state)
{
    struct mount *mount = mount_of(state);

    through_need("rsync");
    through_expect_run(mount, "sh", "data\n",
                       "echo data > 4711; rsync --inplace 4711 $M/ && cat $M/4711");
}

static void rsync_receives_what_waits(void **state)
{
    struct mount *mount = mount_of(state);

    through_need("rsync");
    behind_expect_sent(mount, BOX, 1, "one\n");
    through_send(mount, BOX, "two\n");
    through_expect_run(mount, "sh", "one\ntwo\n", "rsync $M/4711 copy && cat copy");
    through_expect_size(mount, BOX, 0);
}

/* --- tar -------------------------------------------------------------------------------------- */

static void tar_unpacks_a_message(void **state)
{
    struct mount *mount = mount_of(state);

    through_need("tar");
    through_expect_run(mount, "sh", "",
                       "seq 10000 > 4711; tar cf all.tar 4711; tar xf all.tar -C $M; "
                       "cat $M/4711 | cmp - 4711");
    through_expect_size(mount, BOX, 0);
}

/* It reads once as many bytes as the file has: the first message. The others stay. */
static void tar_packs_what_it_has_read(void **state)
{
    struct mount *mount = mount_of(state);

    through_need("tar");
    behind_expect_sent(mount, BOX, 1, "one\n");
    behind_expect_sent(mount, BOX, 1, "two\n");
    through_expect_run(mount, "sh", "one\ntwo\n", "tar cf - -C $M/.peek 4711 | tar xOf -");
    through_expect_run(mount, "sh", "one\n",
                       "tar cf all.tar -C $M 4711 2> err; tar xOf all.tar | tr -d '\\000'");
    through_expect_run(mount, "sh", "two\n", "cat $M/4711");
}

/* --- socat ------------------------------------------------------------------------------------ */

static void socat_sends(void **state)
{
    struct mount *mount = mount_of(state);

    through_need("socat");
    through_expect_run(mount, "sh", "",
                       "echo one | socat -u - CREATE:$M/4711\n"
                       "echo two | socat -u - OPEN:$M/4711,wronly,append\n"
                       "echo three | socat -u - OPEN:$M/4711,wronly,trunc");
    behind_expect_texts(mount, BOX, "one\n", "two\n", "three\n", NULL);
}

static void socat_forwards_what_comes(void **state)
{
    static const char line[] =
        ": > $M/4711; : > out\n"
        "socat -u OPEN:$M/.follow/4711,rdonly,nonblock=1 OPEN:out,wronly,append & s=$!\n"
        "for i in $(seq 200); do echo $i > $M/4711; done\n"
        "until [ $(wc -l < out) -ge 200 ]; do sleep 0.01; done\n"
        "kill $s; wait $s; seq 200 | cmp - out";
    struct mount *mount = mount_of(state);

    through_need("socat");
    through_expect_run(mount, "sh", "", "%s", line);
    through_expect_size(mount, BOX, 0);
}

/* --- vim -------------------------------------------------------------------------------------- */

static const char *vim(void)
{
    if (process_has("vim.tiny") && !process_has("vim"))
        return "vim.tiny";
    through_need("vim");
    return "vim";
}

/* With a swap file and a backup, neither of which can be here. */
static void vim_saves_a_message(void **state)
{
    static const char *const settings[] = {
        "set all&",
        "set backup writebackup swapfile backupcopy=no",
        "set backup backupcopy=yes",
        "set nobackup nowritebackup noswapfile",
    };
    struct mount *mount = mount_of(state);
    const char *program = vim();

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        through_expect_run(mount, "sh", "",
                           "%s -N -u NONE -i NONE --cmd '%s' -es -c 'normal ione' "
                           "-c 'normal otwo' -c 'w!' -c 'q!' $M/4711 < /dev/null",
                           program, settings[i]);
        behind_expect_texts(mount, BOX, "one\ntwo\n", NULL);
        through_expect_run(mount, "sh", "one\ntwo\n4711\n", "cat $M/4711; ls $M");
    }
}

/* It receives what it shows; and asks before it writes, since the file is not what it was. */
static void vim_answers_what_it_has_received(void **state)
{
    struct mount *mount = mount_of(state);
    const char *program = vim();

    behind_expect_sent(mount, BOX, 1, "question\n");
    through_expect_run(mount, "sh", NULL,
                       "printf y | %s -N -u NONE -i NONE -es -c 'normal oanswer' -c 'w!' -c 'q!' "
                       "$M/4711",
                       program);
    behind_expect_texts(mount, BOX, "question\nanswer\n", NULL);
    through_expect_run(mount, "sh", "question\nanswer\n",
                       "%s -N -u NONE -i NONE -es -c 'w! copy' -c 'q!' $M/.peek/4711 < /dev/null; "
                       "cat copy",
                       program);
    behind_expect_texts(mount, BOX, "question\nanswer\n", NULL);
}

/* --- inotifywait ------------------------------------------------------------------------------ */

static void inotifywait_sees_who_sends_and_receives(void **state)
{
    static const char line[] =
        ": > $M/4711\n"
        "inotifywait -m -e open,modify,access,close_write,create,delete --format '%%e %%f' $M "
        "> out 2> err & i=$!\n"
        "until grep -q established err; do sleep 0.01; done\n"
        "echo one > $M/4711; echo two >> $M/4712; cat $M/4711 > /dev/null; rm $M/4712\n"
        "until grep -q DELETE out; do sleep 0.01; done\n"
        "kill $i; wait $i; uniq out";
    struct mount *mount = mount_of(state);

    through_need("inotifywait");
    through_expect_run(mount, "sh",
                       "OPEN 4711\n"
                       "MODIFY 4711\n"
                       "CLOSE_WRITE,CLOSE 4711\n"
                       "CREATE 4712\n"
                       "OPEN 4712\n"
                       "MODIFY 4712\n"
                       "CLOSE_WRITE,CLOSE 4712\n"
                       "OPEN 4711\n"
                       "ACCESS 4711\n"
                       "DELETE 4712\n",
                       line);
}

/* --- xargs ------------------------------------------------------------------------------------ */

static void xargs_sends_and_receives_in_parallel(void **state)
{
    static const char line[] =
        ": > $M/4711; n=%d\n"
        "seq $n | xargs -P 16 -I '{}' sh -c 'echo {} > $0' $M/4711 & s=$!\n"
        "seq $((n / 5)) | xargs -P 8 -I '{}' sh -c 'cat $0 >> out' $M/4711\n"
        "wait $s && cat $M/4711 >> out && sort -n out > sorted; seq $n | cmp - sorted";
    struct mount *mount = mount_of(state);

    through_need("xargs");
    through_expect_run(mount, "sh", "", line, MESSAGES / (int)mount_scale());
    through_expect_size(mount, BOX, 0);
}

/* --- stress-ng -------------------------------------------------------------------------------- */

/* All of these make a directory first. */
static void stress_ng_is_refused_its_directory(void **state)
{
    static const char *const stressors[] = {
        "access",   "chmod",  "chown",     "copy-file", "dentry",  "dir",     "fallocate",
        "fcntl",    "fiemap", "filename",  "flock",     "hdd",     "inotify", "iomix",
        "lease",    "link",   "locka",     "lockf",     "lockofd", "rename",  "readahead",
        "sendfile", "seek",   "sync-file", "symlink",   "touch",   "utime",   "xattr",
    };
    struct mount *mount = mount_of(state);

    through_need("stress-ng");
    behind_expect_sent(mount, BOX, 1, "was here\n");
    for (size_t i = 0; i < sizeof(stressors) / sizeof(stressors[0]); i++) {
        const char *line =
            mount_path(mount, "stress-ng --temp-path $M -t 5 --%s 1 1>&2", stressors[i]);

        expect_refusal(mount, "Operation not permitted", line);
    }
    behind_expect_texts(mount, BOX, "was here\n", NULL);
}

/* Those that take the files that are there; while others use them. */
static void stress_ng_looks_and_harms_nothing(void **state)
{
    static const char line[] =
        "seq 50 > expected; : > $M/4712\n"
        "(while [ ! -e over ]; do ls -l $M > /dev/null; done) & l=$!\n"
        "stress-ng -t 2 --fstat 4 --fstat-dir $M --getdent 2 --temp-path $M 1>&2 & s=$!\n"
        "for i in $(seq 50); do echo $i > $M/4712; done; cat $M/4712 > out\n"
        "wait $s || exit 1; : > over; wait $l; cmp expected out";
    struct mount *mount = mount_of(state);

    through_need("stress-ng");
    behind_expect_sent(mount, BOX, 1, "was here\n");
    through_expect_run(mount, "sh", "", "%s", line);
    behind_expect_texts(mount, BOX, "was here\n", NULL);
}

int main(void)
{
    static const struct mount_options slow = {.seconds = 60};
    const struct CMUnitTest tests[] = {
        MOUNT_TEST(fio_writes_each_block_as_a_message),
        MOUNT_TEST(fio_writes_from_many_processes_arrive_once),
        MOUNT_TEST(rsync_is_refused_its_temporary_file),
        MOUNT_TEST(rsync_in_place_sends_once),
        MOUNT_TEST(rsync_receives_what_waits),
        MOUNT_TEST(tar_unpacks_a_message),
        MOUNT_TEST(tar_packs_what_it_has_read),
        MOUNT_TEST(socat_sends),
        MOUNT_TEST(socat_forwards_what_comes),
        MOUNT_TEST(vim_saves_a_message),
        MOUNT_TEST(vim_answers_what_it_has_received),
        MOUNT_TEST(inotifywait_sees_who_sends_and_receives),
        MOUNT_TEST_WITH(xargs_sends_and_receives_in_parallel, &slow),
        MOUNT_TEST_WITH(stress_ng_is_refused_its_directory, &slow),
        MOUNT_TEST_WITH(stress_ng_looks_and_harms_nothing, &slow),
    };

    if (!mount_possible())
        return MOUNT_SKIPPED;
    return cmocka_run_group_tests_name("foreign", tests, NULL, NULL) == 0 ? 0 : 1;
}
