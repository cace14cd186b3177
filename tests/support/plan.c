#include "plan.h"

#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>

enum {
    FAULTS_MOST = 7,
};

/* What fits a call: descriptors, memory, the disk, a signal. */
struct faulty {
    long number;
    bool of_descriptor; /* its first argument is one that it works on */
    struct fault faults[FAULTS_MOST];
};

static const struct faulty faulties[] = {
    {SYS_openat, false, {{FAILS, EMFILE}, {FAILS, EIO}, {FAILS, ENOMEM}, {FAILS, ENOSPC}}},
    {SYS_read, true, {{FAILS, EIO}, {FAILS, EINTR}, {IS_SHORT, 0}}},
    {SYS_pread64, true, {{FAILS, EIO}, {FAILS, EINTR}, {FAILS, ENOMEM}, {IS_SHORT, 0}}},
    {SYS_write, true, {{FAILS, ENOSPC}, {FAILS, EIO}, {FAILS, EINTR}, {IS_SHORT, 0}, {IS_FULL, 0}}},
    {SYS_pwrite64,
     true,
     {{FAILS, ENOSPC}, {FAILS, EIO}, {FAILS, EINTR}, {IS_SHORT, 0}, {IS_FULL, 0}}},
    {SYS_writev,
     true,
     {{FAILS, ENOSPC},
      {FAILS, EIO},
      {FAILS, EINTR},
      {IS_SHORT, 0},
      {IS_FULL, 0},
      {IS_FULL_TORN, 0}}},
    {SYS_ftruncate, true, {{FAILS, EIO}, {FAILS, ENOMEM}}},
    {SYS_fstat, true, {{FAILS, EIO}, {FAILS, ENOMEM}}},
    {SYS_newfstatat, false, {{FAILS, EIO}, {FAILS, ENOMEM}}},
    {SYS_statx, false, {{FAILS, EIO}, {FAILS, ENOMEM}}},
    {SYS_fstatfs, true, {{FAILS, EIO}}},
    {SYS_lseek, true, {{FAILS, EIO}}},
    {SYS_flock, true, {{FAILS, ENOLCK}, {FAILS, EINTR}, {FAILS, EWOULDBLOCK}}},
    {SYS_unlinkat, false, {{FAILS, EIO}, {FAILS, ENOMEM}}},
    {SYS_renameat2, false, {{FAILS, EIO}, {FAILS, ENOSPC}}},
    {SYS_mkdirat, false, {{FAILS, EIO}, {FAILS, ENOSPC}}},
    {SYS_fchmod, true, {{FAILS, EIO}}},
    {SYS_fchown, true, {{FAILS, EIO}}},
    {SYS_getdents64, true, {{FAILS, EIO}, {FAILS, ENOMEM}}},
#ifdef SYS_readlink /* not on every machine, as SYS_dup2 */
    {SYS_readlink, false, {{FAILS, EACCES}}},
    {SYS_dup2, false, {{FAILS, EBUSY}}},
#endif
    {SYS_memfd_create, false, {{FAILS, EMFILE}}},
    {SYS_fcntl, false, {{FAILS, EMFILE}}},
    {SYS_eventfd2, false, {{FAILS, EMFILE}}},
    {SYS_inotify_init1, false, {{FAILS, EMFILE}}},
    {SYS_inotify_add_watch, false, {{FAILS, ENOSPC}}},
    {SYS_clone3, false, {{FAILS, EAGAIN}}},
    {SYS_mmap, false, {{FAILS, ENOMEM}}},
    {SYS_mprotect, false, {{FAILS, ENOMEM}}},
    {SYS_mremap, false, {{FAILS, ENOMEM}}},
};

static const struct faulty *find_faulty(const struct tracer *tracer, const struct tracer_stop *stop)
{
    for (size_t i = 0; i < sizeof(faulties) / sizeof(faulties[0]); i++) {
        if (faulties[i].number == stop->number)
            return !faulties[i].of_descriptor || tracer_is_of_file(tracer, stop) ? &faulties[i]
                                                                                 : NULL;
    }
    return NULL;
}

static unsigned count_variants(const struct faulty *faulty)
{
    unsigned count = 0;

    while (count < FAULTS_MOST && faulty->faults[count].how != NO_FAULT)
        count++;
    return count;
}

bool plan_is_of_threads(const struct tracer_stop *stop)
{
    return stop->number == SYS_clone3 || stop->number == SYS_eventfd2 ||
           stop->number == SYS_inotify_add_watch || stop->number == SYS_inotify_init1;
}

static bool fail_call(struct plan *plan, const struct tracer_stop *stop, int error)
{
    plan->thread = stop->thread;
    plan->result = -error;
    return tracer_skip_call(stop) == 0;
}

/* Half the bytes; of a writev half the parts. False where there is no half of it. */
static bool shorten(const struct tracer_stop *stop)
{
    uint64_t count = stop->arguments[2];

    return count > 1 && tracer_set_argument(stop, 2, count / 2) == 0;
}

bool plan_follow(struct plan *plan, const struct tracer *tracer, const struct tracer_stop *stop,
                 bool counts)
{
    const struct faulty *faulty;

    if (!stop->is_call)
        return true;
    if (stop->thread == plan->thread && !stop->is_entry && plan->result != 0) {
        int64_t result = plan->result;

        plan->result = 0;
        return tracer_set_result(stop, result) == 0;
    }
    if (stop->thread == plan->thread && stop->is_entry && plan->next != NO_FAULT) {
        if (stop->number == plan->number) {
            plan->next = plan->next == IS_FULL_TORN ? IS_FULL_TORN : NO_FAULT;
            return fail_call(plan, stop, ENOSPC);
        }
        if (stop->number == SYS_ftruncate && plan->next == IS_FULL_TORN) {
            plan->next = NO_FAULT;
            return fail_call(plan, stop, EIO);
        }
    }
    plan->over = plan->over || (counts && tracer_names(stop, ".gcda"));
    faulty = counts && !plan->over && stop->is_entry ? find_faulty(tracer, stop) : NULL;
    if (faulty == NULL || plan->seen++ != plan->which)
        return true;
    plan->variants = count_variants(faulty);
    plan->number = stop->number;
    if (plan->variant >= plan->variants)
        return true;
    plan->fault = faulty->faults[plan->variant];
    if (plan->alone && plan->fault.error == EWOULDBLOCK)
        plan->fault.how = NO_FAULT;
    if (plan->fault.how == NO_FAULT)
        return true;
    if (plan->fault.how == FAILS)
        return fail_call(plan, stop, plan->fault.error);
    if (!shorten(stop)) {
        plan->fault.how = NO_FAULT;
    } else if (plan->fault.how != IS_SHORT) {
        plan->thread = stop->thread;
        plan->next = plan->fault.how;
    }
    return true;
}

const char *plan_say(const struct plan *plan)
{
    static const char *const hows[] = {
        [NO_FAULT] = "as it should",
        [FAILS] = "fails",
        [IS_SHORT] = "is short",
        [IS_FULL] = "is short, then full",
        [IS_FULL_TORN] = "is short, then full, not repaired",
    };

    return hows[plan->fault.how];
}
