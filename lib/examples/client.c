/* client PID TEXT: sends a text to a process and prints its answer. */
#include "../gproc.h" /* installed: <gproc.h> */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Sends, and waits five seconds for an answer; what others send meanwhile is passed over. */
static int ask(struct gproc *gproc, struct gproc_owner *owner, pid_t pid, const char *text)
{
    struct gproc_mail mail = {0};
    int result = gproc_send(gproc, pid, text, strlen(text), 1000);

    while (result == 0 && mail.sender != pid)
        result = gproc_owner_receive(owner, &mail, 5000);
    if (result == 0)
        printf("%.*s\n", (int)mail.payload_bytes, (const char *)mail.payload);
    return result;
}

int main(int argc, char **argv)
{
    struct gproc_owner *owner = NULL;
    struct gproc *gproc = NULL;
    int result;

    if (argc != 3)
        return fprintf(stderr, "usage: client PID TEXT\n"), 2;
    result = gproc_open(NULL, &gproc);
    if (result == 0) /* before asking, so that the answer has somebody who waits for it */
        result = gproc_owner_open(gproc, getpid(), 0, 1000, &owner);
    if (result == 0)
        result = ask(gproc, owner, (pid_t)atol(argv[1]), argv[2]);
    if (result < 0)
        (void)fprintf(stderr, "client: %s\n", strerror(-result));
    gproc_owner_close(owner, 1000);
    gproc_close(gproc);
    return result < 0;
}
