#include "outcome.h"

#include <stdlib.h>
#include <string.h>

void outcome_release(struct outcome *outcome)
{
    free(outcome->data.bytes);
    for (size_t i = 0; i < STEP_BOXES; i++) {
        free(outcome->files[i].bytes);
        free(outcome->lists[i].bytes);
    }
    memset(outcome, 0, sizeof(*outcome));
}
