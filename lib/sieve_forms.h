/*
 * sieve_forms - the form of the sieve for AVX-512: sixteen offsets at a time. See sieve.h.
 */
#ifndef GPROC_SIEVE_FORMS_H
#define GPROC_SIEVE_FORMS_H

#include "sieve.h"

#if defined(__x86_64__)

bool gproc_sieve_avx512_is_usable(void);
void gproc_sieve_avx512(const struct gproc_sieve_load *load, struct gproc_sieve *sieve);

#endif

#endif
