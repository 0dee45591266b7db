/* What Chronos-2 and Chronos-Bolt share: residual blocks, attention weights, quantile levels.
 *
 * A residual block is y = W_o · relu(W_h x + b_h) + b_o + W_r x + b_r: three products in the published code, two here, because each dependent
 * kernel of a forecast counts. How the residual gets through depends on the side that it is cheap on:
 *
 *   Patch embedding: every token has one wide row [hidden | features | REG, 0 ..]. The first product reads its features and writes its hidden
 *   part, the second reads all of it: W_r stands beside W_o. A token whose features are 0 and whose REG column is 1 becomes the [REG] embedding
 *   itself: in W_h that column drives every hidden unit below 0, in the second matrix it holds the embedding less the biases.
 *   The rows serve the MLPs too, which leave the features alone, so that what is constant in them is written once when a session opens.
 *
 *   Output head: W_h is extended by W_r and -W_r, since z = relu(z) - relu(-z); the second matrix by 1 and -1.
 *
 * Both are exact but for the order of additions. */
#ifndef BARCAST_GPUWORKER_MODEL_CHRONOS_PARTS_H
#define BARCAST_GPUWORKER_MODEL_CHRONOS_PARTS_H

#include "gpuworker/model/parts_load.h"
#include "gpuworker/model/random_weights.h"

typedef struct {
    backend_weight_t hidden,
        hidden_bias; /* embedding [hidden][columns], [hidden]; head [hidden + 2 · out][in], [hidden + 2 · out] */
    backend_weight_t output, output_bias; /* embedding [out][hidden + columns], [out]; head [out][hidden + 2 · out], [out] */
} chronos_block_t;

/* Columns of a token's features in a wide row: `in` of a patch, the REG column at `in`, zeros up to a multiple that suits the devices. */
static inline int64_t chronos_feature_columns(int64_t in)
{
    return (in / 64 + 1) * 64;
}

/* The block `name` with in -> hidden -> out; `reg` [out] is the [REG] token's embedding. */
void chronos_load_embedding(loader_t *loader, const char *name, int64_t in, int64_t hidden, int64_t out, const float *reg,
                            chronos_block_t *block);
void chronos_load_head(loader_t *loader, const char *name, int64_t in, int64_t hidden, int64_t out, chronos_block_t *block);

/* The same block of random weights, for a checkpoint; `deviation` of its outputs. */
void chronos_create_block(random_weights_t *weights, const char *name, int in, int hidden, int out, float deviation);

/* An attention's four matrices of random weights: name.{q,k,v,o}.weight. */
void chronos_create_attention(random_weights_t *weights, const char *name, int width, int heads, int head_dim, float deviation);
/* What stands after an attention's name, for loader_stack. */
extern const char *const chronos_qkv[3];

/* Attention among one token alone returns its value: name.o · name.v as one matrix [width][width], multiplied in F32. Does not count
 * their parameters: their own loads do. */
void chronos_load_alone(loader_t *loader, const char *name, int64_t inner, int64_t width, backend_weight_t *out);

enum { CHRONOS_LEVELS_MOST = BACKEND_LEVELS_MOST };

typedef struct {
    int64_t count;
    float value[CHRONOS_LEVELS_MOST]; /* ascending, in (0, 1) */
} chronos_levels_t;

/* What both config.json have: the norms' epsilon and chronos_config.quantiles, the median among them; and the switches that must be set. */
void chronos_read_config(loader_t *loader, float *eps, chronos_levels_t *levels);
/* Patches do not overlap, and the context is made of whole ones. */
void chronos_expect_patches(loader_t *loader, int64_t patch, int64_t stride, int64_t context);

/* A tensor's values for a tap, in the goldens' order of rows, (series, variate, path), where ours is (series, path, variate):
 * [d0][d1][d2] of each row, s0 and s1 apart, d2 dense; the first row at `offset`, rows row_stride apart. */
typedef struct {
    int64_t series, paths, variates;
    int64_t offset, row_stride, d0, s0, d1, s1, d2;
} chronos_view_t;

int chronos_show(const tap_t *tap, backend_t *backend, int round, const char *name, const backend_tensor_t *tensor,
                 const chronos_view_t *view);

#endif
