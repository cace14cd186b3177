/*
 * bench [-d DIRECTORY] [-r ROWS] [REPORT] - what gprocfs and libgproc cost, next to the least that
 * the same could cost.
 *
 * All is measured, or these rows only: exchange, drain, names, library, scan, memory.
 *
 * The table goes to standard output and into the file REPORT. A goal that is missed is said there,
 * and is no failure: the machine may be busy. Mailboxes are made below DIRECTORY; where none is
 * named, in memory (/dev/shm), so that no disk is measured, else in $TMPDIR or /tmp.
 *
 * A child measures. We wait, and whatever becomes of it, unmount and remove what it leaves.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rows.h"
#include "sample.h"
#include "stage.h"
#include "table.h"

enum {
    DEADLINE_S = 175,
};

static const char *usual_directory(void)
{
    const char *named = getenv("TMPDIR");

    if (access("/dev/shm", W_OK) == 0)
        return "/dev/shm";
    return named != NULL && named[0] != '\0' ? named : "/tmp";
}

/* The first line of a file or of what a program says that begins with `begin`; what follows it. */
static void find_line(FILE *from, const char *begin, char text[256])
{
    char line[256];

    text[0] = '\0';
    while (from != NULL && text[0] == '\0' && fgets(line, sizeof(line), from) != NULL) {
        if (strncmp(line, begin, strlen(begin)) == 0)
            snprintf(text, 256, "%s", line + strlen(begin));
    }
    text[strcspn(text, "\n")] = '\0';
}

static void describe_machine(struct table *table, const char *directory)
{
    const char *program = getenv("GPROCFS");
    FILE *processors = fopen("/proc/cpuinfo", "re");
    FILE *load = fopen("/proc/loadavg", "re");
    struct utsname kernel;
    char command[4096], text[256];
    FILE *version;

    find_line(processors, "model name\t: ", text);
    table_say(table, "processor   %s, %ld of them", text, sysconf(_SC_NPROCESSORS_ONLN));
    if (uname(&kernel) == 0)
        table_say(table, "kernel      %s %s", kernel.sysname, kernel.release);
    snprintf(command, sizeof(command), "'%s' -V", program != NULL ? program : "build/gprocfs");
    version = popen(command, "re");
    find_line(version, "gprocfs ", text);
    table_say(table, "gprocfs     %s", text);
    find_line(load, "", text);
    table_say(table, "load        %s", text);
    table_say(table, "directory   %s", directory);
    if (processors != NULL)
        fclose(processors);
    if (load != NULL)
        fclose(load);
    if (version != NULL)
        pclose(version);
}

/* Whether these rows are measured; `only` NULL: all are. */
static bool wants(const char *only, const char *rows)
{
    return only == NULL || strcmp(only, rows) == 0;
}

static void run_mounted(struct stage *stage, struct table *table, int pinned, const char *only,
                        const char *heading)
{
    if (!wants(only, "exchange") && !wants(only, "drain") && !wants(only, "names"))
        return;
    stage_start(stage, pinned);
    table_section(table, heading);
    if (wants(only, "exchange"))
        rows_exchange(stage, table);
    if (wants(only, "drain"))
        rows_drain(stage, table);
    if (wants(only, "names"))
        rows_names(stage, table);
    stage_stop(stage);
}

static void run(struct stage *stage, const char *directory, const char *only, const char *report)
{
    struct table table;

    table_begin(&table, report);
    describe_machine(&table, directory);
    run_mounted(stage, &table, 1, only, "MOUNTED, emptyfs; on one processor");
    run_mounted(stage, &table, 0, only, "MOUNTED, emptyfs; on any processor");
    if (wants(only, "library")) {
        table_section(&table, "LIBRARY, bare system calls");
        rows_library(stage, &table);
    }
    if (wants(only, "scan")) {
        table_section(&table, "SCAN");
        rows_scan(stage, &table);
    }
    if (wants(only, "memory")) {
        table_section(&table, "MEMORY of the daemon");
        rows_memory(stage, &table);
    }
    table_say(&table, "\nTimes are medians of %zu rounds, of each and its baseline by turns.",
              sample_least_rounds());
    table_end(&table);
}

/* Waits for the child, not for ever, and for what is meant to end us. What it exited with. */
static int wait_for(pid_t child, const sigset_t *signals)
{
    struct timespec deadline = {.tv_sec = DEADLINE_S};
    int number = sigtimedwait(signals, NULL, &deadline);
    int status = 0;

    if (number < 0)
        fprintf(stderr, "bench: not done after %d s\n", DEADLINE_S);
    if (number != SIGCHLD)
        (void)kill(child, SIGKILL); /* it is ours, and not reaped */
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return EXIT_FAILURE;
    return WEXITSTATUS(status);
}

/* Those that wait_for() waits for. */
static void block_signals(sigset_t *signals, sigset_t *before)
{
    (void)sigemptyset(signals); /* these cannot fail for signals that exist */
    (void)sigaddset(signals, SIGCHLD);
    (void)sigaddset(signals, SIGINT);
    (void)sigaddset(signals, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, signals, before);
}

int main(int argc, char *argv[])
{
    const char *directory = usual_directory();
    const char *only = NULL;
    struct stage stage;
    sigset_t signals, before;
    int option, status;
    pid_t child;

    while ((option = getopt(argc, argv, "d:r:")) != -1) {
        if (option == 'd')
            directory = optarg;
        else if (option == 'r')
            only = optarg;
        else
            return EXIT_FAILURE; /* getopt has said why */
    }
    block_signals(&signals, &before);
    stage_make(&stage, directory);
    child = fork();
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)sigprocmask(SIG_SETMASK, &before, NULL);
        run(&stage, directory, only, optind < argc ? argv[optind] : NULL);
        return EXIT_SUCCESS;
    }
    status = child > 0 ? wait_for(child, &signals) : EXIT_FAILURE;
    stage_remove(&stage);
    return status;
}
