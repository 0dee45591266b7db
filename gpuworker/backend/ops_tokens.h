/* Ops of models that speak in tokens: values to tokens, logits to the next token, and channels side by side to series of their own. Rules:
 * backend.h. */
#ifndef BARCAST_GPUWORKER_BACKEND_OPS_TOKENS_H
#define BARCAST_GPUWORKER_BACKEND_OPS_TOKENS_H

#include "gpuworker/backend/ops_network.h"

/* ---- binary quantiser ------------------------------------------------------------------------------------------------------------ */

/* A vector of bits_1 + bits_2 numbers becomes two tokens: bit i of the first is 1 where number i is above 0, bit i of the second where number
 * bits_1 + i is. (Binary spherical quantisation; its normalisation to the unit sphere changes no sign.) Token p of row r, with
 * s = r / tokens and t = r mod tokens, is written `copies` times: to y + p · part_stride + (s · copies + copy) · y_stride + t. */
typedef struct {
    backend_tensor_t x; /* F32, row r at x + (r / tokens) · x_stride + (r mod tokens) · (bits_1 + bits_2) */
    int64_t x_stride;   /* from a sequence to the next; 0: dense */
    int64_t rows, tokens;
    int bits_1, bits_2; /* each 1 to 30 */
    int64_t copies;
    backend_tensor_t y; /* I32 */
    int64_t y_stride, part_stride;
} backend_sign_tokens_t;

int backend_sign_tokens(backend_t *backend, const backend_sign_tokens_t *op);

/* ---- token draws ------------------------------------------------------------------------------------------------------------------- */

enum { BACKEND_DRAW_VOCABULARY_MOST = 4096 };

/* Draws a token of each row from softmax(logits / temperature), restricted to the most probable ones: to top_k of them when that is not 0; else,
 * when top_p is below 1, to those before which the more probable ones hold at most top_p of the probability. What is as probable as the
 * last of them stays in, too; but with top_k = 1 the token is the first of the most probable ones. The token goes to
 * tokens + row · token_stride + *step.
 * Random numbers: one Philox block a token (philox.h), key = keys[row / paths], counter = (*step, row mod paths, stream,
 * PHILOX_STREAM_TOKEN); the first word u as philox_uniform picks the first token, in order of their numbers, whose running sum of weights
 * exceeds u times their sum. A logit that is NaN has weight 0; nothing but those: token 0.
 * What reads a token next is mostly a table: such an embedding may come along, and is as backend_embed would do it afterwards. */
typedef struct {
    backend_tensor_t logits; /* F32, row r at logits + r · logits_stride (0: dense) */
    int64_t rows, vocabulary, logits_stride;
    int64_t paths; /* neighbouring rows that share a key */
    float temperature, top_p;
    int64_t top_k;
    const backend_tensor_t *keys; /* U64 [rows / paths]; not read with top_k = 1 */
    uint32_t stream;              /* tells the draws of a step apart */
    const backend_tensor_t *step;
    backend_tensor_t tokens; /* I32 */
    int64_t token_stride;
    const backend_embed_t *then; /* NULL, or an embedding of a token a row, which is done next: of the tokens drawn */
} backend_draw_token_t;

int backend_draw_token(backend_t *backend, const backend_draw_token_t *op);

/* ---- transposition ------------------------------------------------------------------------------------------------------------------ */

/* y[r][c][t] = x[r][t][c] · scale[r / rows_each][c] + loc[r / rows_each][c]: what stands side by side at a time becomes a series each, back in
 * its own units; or, without loc and scale, series become what stands side by side. */
typedef struct {
    backend_tensor_t x;          /* F32, row r at x + r · x_stride (0: dense), [tokens][channels] */
    const backend_tensor_t *loc; /* F32 [rows / rows_each][channels]; NULL together: 0 and 1 */
    const backend_tensor_t *scale;
    int64_t rows, tokens, channels, x_stride;
    int64_t rows_each;  /* neighbouring rows that share loc and scale */
    backend_tensor_t y; /* F32 [rows][channels][tokens] */
} backend_transpose_t;

int backend_transpose(backend_t *backend, const backend_transpose_t *op);

#endif
