/*
 * The scanner against the model, on whatever the fuzzer comes up with.
 *
 * The first two bytes of the input say how large the windows of the file source are, which form of
 * the sieve is used, and where the mailbox is cut for the incremental scan; the rest is the mailbox.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model.h"
#include "scan.h"
#include "sieve.h"

enum {
    /* The model is quadratic. */
    MAILBOX_MAX_BYTES = 16 * 1024,
};

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

static void check(const struct gproc_source *source, off_t position, size_t window_bytes,
                  const uint8_t *data)
{
    struct gproc_scan scan;
    struct model model;

    model_init(&model, data, (size_t)source->size_bytes, (size_t)position);
    gproc_scan_init(&scan, source, position);
    if (window_bytes > 0) {
        scan.window.capacity_bytes = 12 + window_bytes;
        scan.far.capacity_bytes = window_bytes;
    }
    const char *difference = model_differs(&model, &scan);
    if (difference != NULL) {
        fprintf(stderr, "from %jd, windows of %zu: %s\n", (intmax_t)position, window_bytes,
                difference);
        abort();
    }
    gproc_scan_release(&scan);
    model_release(&model);
}

/* Where a scan that saw only the first `cut` bytes says that the next one has to begin. */
static off_t restart_after(const uint8_t *data, size_t cut)
{
    const struct gproc_source part = {.data = data, .size_bytes = (off_t)cut};
    struct gproc_scan scan;
    struct gproc_message message;

    gproc_scan_init(&scan, &part, 0);
    while (gproc_scan_next(&scan, &message) == 1) {
    }
    const off_t restart = scan.unresolved >= 0 ? scan.unresolved : scan.position;
    gproc_scan_release(&scan);
    return restart;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
    static int fd = -1;
    size_t forms_count;
    const struct gproc_sieve_form *form = gproc_sieve_forms(&forms_count);

    if (input_bytes < 2 || input_bytes > MAILBOX_MAX_BYTES) {
        return 0;
    }
    if (fd < 0 && (fd = memfd_create("mailbox", MFD_CLOEXEC)) < 0) {
        abort();
    }

    const size_t size_bytes = input_bytes - 2;
    const size_t window_bytes = 1 + (size_t)input[0] * 2;

    /* Half of the inputs by the portable form, the last one; the others by the best there is. */
    if (input[0] % 2 != 0) {
        form += forms_count - 1;
    }
    while (!form->is_usable()) {
        form++;
    }
    gproc_sieve_choose(form);

    uint8_t *data = malloc(size_bytes);
    if (size_bytes > 0) {
        memcpy(data, input + 2, size_bytes);
    }

    const struct gproc_source memory = {.data = data, .size_bytes = (off_t)size_bytes};
    const struct gproc_source file = {.fd = fd, .start = 5, .size_bytes = (off_t)size_bytes};
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size_bytes, 5) != (ssize_t)size_bytes) {
        abort();
    }
    check(&memory, 0, 0, data);
    check(&file, 0, window_bytes, data);
    check(&memory, restart_after(data, size_bytes * input[1] / 255), 0, data);
    free(data);
    return 0;
}
