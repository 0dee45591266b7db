/* Every model family. */
#ifndef BARCAST_GPUWORKER_MODEL_FAMILIES_H
#define BARCAST_GPUWORKER_MODEL_FAMILIES_H

#include "gpuworker/model/model.h"

extern const model_family_t naive_family;
extern const model_family_t toto1_family;
extern const model_family_t sundial_family;
extern const model_family_t chronos2_family;
extern const model_family_t chronos_bolt_family;
extern const model_family_t toto2_family;
extern const model_family_t kronos_family;

/* The families' makers of seeded checkpoints (model_family_t.create). */
int toto1_create(const char *size, uint64_t seed, const char *dir);
int sundial_create(const char *size, uint64_t seed, const char *dir);
int chronos2_create(const char *size, uint64_t seed, const char *dir);
int chronos_bolt_create(const char *size, uint64_t seed, const char *dir);
int toto2_create(const char *size, uint64_t seed, const char *dir);
int kronos_create(const char *size, uint64_t seed, const char *dir);

#endif
