#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

/* Written once, before there are threads. */
static bool syslog_is_open;

void log_to_syslog(void)
{
    openlog("gprocfs", LOG_PID, LOG_DAEMON);
    syslog_is_open = true;
}

static void say(int priority, const char *format, va_list arguments)
{
    char line[1024];
    char *at;

    (void)vsnprintf(line, sizeof(line), format, arguments); /* a line too long is cut */
    for (at = line; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ') /* a name of a file may have these */
            *at = '?';
    }
    if (syslog_is_open)
        syslog(priority, "%s", line);
    else
        (void)fprintf(stderr, "gprocfs: %s\n", line);
}

void log_error(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say(LOG_ERR, format, arguments);
    va_end(arguments);
}

void log_mailbox(pid_t pid, const char *what, int error)
{
    char reason[128];

    log_error("mailbox %ld: %s: %s", (long)pid, what, strerror_r(-error, reason, sizeof(reason)));
}

void log_mailbox_note(pid_t pid, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments); /* a line too long is cut */
    va_end(arguments);
    if (syslog_is_open)
        syslog(LOG_NOTICE, "mailbox %ld: %s", (long)pid, text);
    else
        (void)fprintf(stderr, "gprocfs: mailbox %ld: %s\n", (long)pid, text);
}
