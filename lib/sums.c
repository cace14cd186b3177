#include "sums.h"

#include <errno.h>
#include <stdlib.h>

#include "checksum.h"

_Static_assert((int)GPROC_SUMS_STEP_BYTES == (int)GPROC_CHECKSUM_BLOCK_BYTES,
               "a step is summed as a block");

int gproc_sums_begin(struct gproc_sums *sums, off_t begin, size_t cut_bytes, off_t most_bytes)
{
    if (sums->samples == NULL) {
        const uintmax_t count = (uintmax_t)most_bytes / GPROC_SUMS_STEP_BYTES + 3;

        if (count > SIZE_MAX / sizeof(*sums->samples)) {
            return -ENOMEM;
        }
        sums->samples = malloc((size_t)count * sizeof(*sums->samples));
        if (sums->samples == NULL) {
            return -ENOMEM;
        }
    }
    sums->offset = begin - (off_t)cut_bytes;
    sums->begin = begin;
    sums->end = begin;
    sums->last = 0;
    sums->samples[0] = 0;
    sums->samples[1] = 0;
    return 0;
}

void gproc_sums_append(struct gproc_sums *sums, const uint8_t *bytes, size_t bytes_count)
{
    const off_t summed = sums->end - sums->offset;
    const size_t begun = (size_t)(summed % GPROC_SUMS_STEP_BYTES);
    uint32_t *sample = &sums->samples[summed / GPROC_SUMS_STEP_BYTES];
    uint32_t sum = sums->last;

    sums->end += (off_t)bytes_count;
    if (begun > 0 && bytes_count >= GPROC_SUMS_STEP_BYTES - begun) {
        sum += gproc_checksum(bytes, GPROC_SUMS_STEP_BYTES - begun);
        bytes += GPROC_SUMS_STEP_BYTES - begun;
        bytes_count -= GPROC_SUMS_STEP_BYTES - begun;
        *++sample = sum;
    }
    for (; bytes_count >= GPROC_SUMS_STEP_BYTES; bytes_count -= GPROC_SUMS_STEP_BYTES) {
        sum += gproc_checksum_block(bytes);
        bytes += GPROC_SUMS_STEP_BYTES;
        *++sample = sum;
    }
    sum += gproc_checksum(bytes, bytes_count);
    sample[1] = sum;
    sums->last = sum;
}

void gproc_sums_release(struct gproc_sums *sums)
{
    free(sums->samples);
    *sums = (struct gproc_sums){0};
}
