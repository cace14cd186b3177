/*
 * The form for any processor, and the choice of one. What all forms do is said in sieve_parts.h.
 */
#include "sieve.h"

#include <assert.h>
#include <stdatomic.h>

#include "field.h"
#include "sieve_forms.h"
#include "sieve_parts.h"

/* Spreads `step` out, all of which may be read. */
static void spread_out(struct spread *spread, const struct gproc_sieve_load *load, uint32_t step)
{
    uint8_t copy[STEP_BYTES];
    const uint8_t *bytes = step_bytes(load, step, copy);
    uint32_t sum = 0;

    for (int i = 0; i < STEP_BYTES; i++) {
        spread->table[i] = (uint16_t)sum;
        sum += bytes[i];
    }
    spread->step = step;
    spread->base = load->samples[step];
}

/* Spreads out a step that candidates keep ending in, and drops those that it refuses. Of the near
 * ones, those from `first` on are new. */
static void near_settle(struct gproc_candidates *near, const struct gproc_sieve_load *load,
                        struct spread *spread, size_t first)
{
    const size_t count = near->count;
    uint32_t last_step = NO_STEP;
    int in_a_row = 0;

    near->count = first;
    for (size_t i = first; i < count; i++) {
        const uint32_t end = near->ends[i];
        const uint32_t sum = near->sums[i];
        const uint32_t step = end / STEP_BYTES;

        in_a_row = step == last_step ? in_a_row + 1 : 0;
        last_step = step;
        if (in_a_row >= FEW && step != spread->step) {
            spread_out(spread, load, step);
        }
        if (step != spread->step || sum == spread->base + spread->table[end % STEP_BYTES]) {
            candidates_add(near, near->offsets[i], end, sum);
            near_fetch(load, end);
        }
    }
}

/* Moves the waiting to the near, but for those that are refused. The samples are looked up for one
 * after the other without a branch between, so that none waits for another's. */
static void waiting_sift(struct gproc_candidates *waiting, const struct gproc_sieve_load *load,
                         struct spread *spread, struct gproc_candidates *near)
{
    const size_t first = near->count;

    for (size_t i = 0; i < waiting->count; i++) {
        const uint32_t end = waiting->ends[i];
        const uint32_t sum = waiting->sums[i];

        candidates_add(near, waiting->offsets[i], end, sum);
        near->count -= !gproc_sums_may_be(&load->samples[end / STEP_BYTES], sum);
    }
    waiting->count = 0;
    if (load->all_readable) {
        near_settle(near, load, spread, first);
    }
}

static bool always(void)
{
    return true;
}

static void portable_sift(const struct gproc_sieve_load *load, struct gproc_sieve *sieve)
{
    const uint8_t *bytes = load->bytes;
    struct spread spread = {.step = NO_STEP};
    struct gproc_candidates waiting;
    uint32_t before = load->here + header_sum(bytes);
    size_t last = load->count;
    size_t i;

    waiting.count = 0;
    for (i = 0; i < last; before += bytes[i + GPROC_FRAME_HEADER_BYTES - 1], i++) {
        const int32_t length = (int32_t)gproc_field_get(bytes + i, GPROC_FIELD_LENGTH);

        if (length < GPROC_FRAME_HEADER_BYTES) {
            continue;
        }
        if (length > load->left - (off_t)i) {
            sieve->too_long = sieve->too_long < i ? sieve->too_long : i;
            continue;
        }
        if ((off_t)i + length > load->summed_bytes) {
            last = i;
            break;
        }

        const uint32_t end = load->behind_bytes + (uint32_t)i + (uint32_t)length;
        const uint32_t checksum = gproc_field_get(bytes + i, GPROC_FIELD_CHECKSUM);
        const uint32_t sum = before + bytes[i + GPROC_FRAME_HEADER_BYTES - 1] + checksum;
        if (!sum_is_possible((uint32_t)length, checksum)) {
            continue;
        }
        if (end / STEP_BYTES == spread.step + 1) {
            spread_out(&spread, load, end / STEP_BYTES); /* the ends move on */
        }
        if (end / STEP_BYTES == spread.step) {
            if (sum == spread.base + spread.table[end % STEP_BYTES]) {
                last = i;
                break;
            }
            continue;
        }
        candidates_add(&waiting, (uint32_t)i, end, sum);
        if (waiting.count == WAITING_COUNT) {
            waiting_sift(&waiting, load, &spread, &sieve->near);
            if (sieve->near.count > NEAR_COUNT) {
                last = load->all_readable
                           ? near_judge(load, &sieve->near, last, gproc_checksum_part)
                           : i + 1;
            }
        }
    }
    waiting_sift(&waiting, load, &spread, &sieve->near);
    if (load->all_readable) {
        last = near_judge(load, &sieve->near, last, gproc_checksum_part);
    }
    sieve_end(sieve, load, last, i, before);
}

static const struct gproc_sieve_form forms[] = {
#if defined(__x86_64__)
    {"AVX-512", gproc_sieve_avx512_is_usable, gproc_sieve_avx512},
#endif
    {"portable", always, portable_sift},
};

const struct gproc_sieve_form *gproc_sieve_forms(size_t *count)
{
    *count = sizeof(forms) / sizeof(*forms);
    return forms;
}

/* Is called until it has put another into its place; see checksum.c. */
static void first_sift(const struct gproc_sieve_load *load, struct gproc_sieve *sieve);

static _Atomic(void (*)(const struct gproc_sieve_load *, struct gproc_sieve *)) chosen = first_sift;

static void first_sift(const struct gproc_sieve_load *load, struct gproc_sieve *sieve)
{
    const struct gproc_sieve_form *form = forms;

    while (!form->is_usable()) {
        form++;
    }
    atomic_store_explicit(&chosen, form->sift, memory_order_relaxed);
    form->sift(load, sieve);
}

void gproc_sieve_choose(const struct gproc_sieve_form *form)
{
    atomic_store_explicit(&chosen, form->sift, memory_order_relaxed);
}

void gproc_sieve(const struct gproc_sieve_load *load, struct gproc_sieve *sieve)
{
    assert(load->count <= GPROC_SIEVE_MAX_COUNT);
    sieve->too_long = SIZE_MAX;
    sieve->near.count = 0;
    atomic_load_explicit(&chosen, memory_order_relaxed)(load, sieve);
}
