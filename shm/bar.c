#include "shm/bar.h"

#include <string.h>

const shm_bar_field_t shm_bar_fields[SHM_BAR_FIELDS] = {
    {"open", offsetof(shm_bar_t, open), true},      {"high", offsetof(shm_bar_t, high), true},
    {"low", offsetof(shm_bar_t, low), true},        {"close", offsetof(shm_bar_t, close), true},
    {"volume", offsetof(shm_bar_t, volume), false}, {"amount", offsetof(shm_bar_t, amount), false},
};

double shm_bar_value(const shm_bar_t *bar, const shm_bar_field_t *field)
{
    double value;
    memcpy(&value, (const char *)bar + field->offset, sizeof value);
    return value;
}
