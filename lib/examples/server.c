/* Receives what is sent to this process and answers each sender, until a signal ends it. */
#include "../gproc.h" /* installed: <gproc.h> */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
    struct gproc_owner *owner;
    struct gproc *gproc;
    struct gproc_mail mail;
    int result = gproc_open(NULL, &gproc);

    if (result == 0)
        result = gproc_owner_open(gproc, getpid(), 0, 1000, &owner);
    if (result < 0) {
        (void)fprintf(stderr, "server: %s\n", strerror(-result));
        return 1;
    }
    (void)printf("I am process %ld\n", (long)getpid());
    (void)fflush(stdout);
    while ((result = gproc_owner_receive(owner, &mail, GPROC_FOREVER)) == 0) {
        char answer[64];
        int size = snprintf(answer, sizeof(answer), "%zu bytes received", mail.payload_bytes);

        if (mail.sender <= 0) /* nobody who could be answered */
            continue;
        result = gproc_send(gproc, mail.sender, answer, (size_t)size, 1000);
        if (result < 0)
            (void)fprintf(stderr, "server: cannot answer %ld: %s\n", (long)mail.sender,
                          strerror(-result));
    }
    (void)fprintf(stderr, "server: %s\n", strerror(-result));
    gproc_owner_close(owner, 1000);
    gproc_close(gproc);
    return 1;
}
