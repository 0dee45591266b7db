/* Kronos's weights and the stack of transformer blocks that its three networks are made of. See kronos.c for the model itself and the
 * letters of the shapes. */
#ifndef BARCAST_GPUWORKER_MODEL_KRONOS_H
#define BARCAST_GPUWORKER_MODEL_KRONOS_H

#include "gpuworker/model/families.h"
#include "gpuworker/model/parts_load.h"

enum {
    KRONOS_FIELDS = 6, /* open, high, low, close, volume, amount */
    KRONOS_TIMES = 5,  /* minute, hour, weekday, day, month */
    KRONOS_DEPENDENCY_HEADS = 4,
    KRONOS_WINDOW = 512 /* tokens, unless model_options_t says otherwise */
};

extern const float KRONOS_NORM_EPS;

/* ---- stacks of transformer blocks ------------------------------------------------------------------------------------------------ */

typedef struct {
    backend_weight_t norm1, qkv, qkv_bias; /* [D], [3·D][D], [3·D] */
    backend_weight_t out, out_bias;        /* [D][D], [D] */
    backend_weight_t norm2, gate_up, down; /* [D], [2·F][D], [D][F] */
} kronos_block_t;

/* The predictor, the tokenizer's encoder (always F32: a rounded bit is another token), or its decoder. */
typedef struct {
    int64_t width, heads, hidden, count; /* D, H, F, blocks */
    backend_dtype_t precision;
    kronos_block_t *blocks;
} kronos_stack_t;

/* Buffers that a stack works in, for the longest pass: tokens of all rows. */
typedef struct {
    backend_tensor_t hidden; /* F32 [tokens][D]: in and out */
    backend_tensor_t qkv;    /* [tokens][3][H][d] */
    backend_tensor_t mixed;  /* [tokens][H][d] */
    backend_tensor_t gated;  /* [tokens][F] */
} kronos_work_t;

/* One run of a stack over work->hidden [rows][tokens][D]. */
typedef struct {
    backend_attention_mode_t mode; /* PREFILL, DECODE or EXTEND */
    int64_t rows, tokens, samples;
    const backend_tensor_t *index; /* rows of the rotary table */
    const backend_tensor_t *first; /* leading padding */
    const backend_tensor_t *step;
    backend_kv_t *kv;     /* of block b: kv[b · kv_stride]; 0: one for all, where nothing reads it later */
    int64_t kv_stride;    /* 0 or 1 */
    const char *tap_name; /* each block's output is shown as "NAME_b"; NULL: not */
    int tap_step;
} kronos_pass_t;

int kronos_stack_run(backend_t *backend, const kronos_stack_t *stack, const backend_tensor_t *rope, const kronos_work_t *work,
                     const kronos_pass_t *pass, const tap_t *tap);

void kronos_work_take(buffers_t *buffers, const kronos_stack_t *stack, int64_t tokens, kronos_work_t *out);
/* A cache of one block or layer: prefix [rows][heads][prefix][d] and, when tail > 0, tail [tail_rows][heads][tail][d]. */
backend_kv_t kronos_cache_take(buffers_t *buffers, backend_dtype_t dtype, int64_t heads, int64_t head_dim, int64_t rows,
                               int64_t prefix, int64_t tail_rows, int64_t tail);
/* The rotary table of positions 0 to positions - 1, [positions][4][d]. */
backend_tensor_t kronos_rope_take(buffers_t *buffers, const kronos_stack_t *stack, int64_t positions);

/* ---- the model --------------------------------------------------------------------------------------------------------------------- */

struct model {
    model_base_t base;
    int bits_1, bits_2; /* a token's two parts: vocabularies V1 = 2^bits_1 and V2 = 2^bits_2 */

    /* the tokenizer; its width is encoder.width */
    kronos_stack_t encoder, decoder;
    backend_weight_t embed, embed_bias;       /* [D][6], [D] */
    backend_weight_t quantise, quantise_bias; /* [bits_1 + bits_2][D] */
    backend_weight_t code[2], code_bias;      /* [V1][D], [V2][D]: what the decoder reads of each part of a token; [D] */
    backend_weight_t head, head_bias;         /* [6][D], [6] */

    /* the predictor */
    kronos_stack_t predictor;
    backend_weight_t token[2], token_bias; /* [V1][D], [V2][D]: each part's share of the fused embedding; [D] */
    backend_weight_t time[KRONOS_TIMES];   /* [60][D], [24][D], [7][D], [32][D], [13][D] */
    backend_weight_t norm;                 /* [D] */
    backend_weight_t first, first_bias;    /* [D + V1][D]: the identity, so that the norm's output stays, and the head of part 1 */
    backend_weight_t query;                /* [V1][D]: the dependency layer's query of each part 1 */
    backend_weight_t key_value, kv_bias;   /* [2·D][D], [2·D]: its keys and values */
    backend_weight_t mix, mix_bias;        /* [D][D], [D]: its output */
    backend_weight_t second_norm;          /* [D] */
    backend_weight_t second, second_bias;  /* [V2][D], [V2]: the head of part 2 */
    backend_weight_t identity;             /* [D][D]: for taps only, rank 0 before */
};

static inline int64_t kronos_vocabulary(const model_t *model, int part)
{
    return (int64_t)1 << (part == 0 ? model->bits_1 : model->bits_2);
}

bool kronos_matches(const checkpoint_t *checkpoint);
void kronos_load(model_t *model, loader_t *loader);
void kronos_unload(model_t *model);
void kronos_info(const model_t *model, model_info_t *out);
void kronos_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out);
/* Makes model->identity, once: a forecast does not use it. */
int kronos_make_identity(model_t *model);

/* The tokenizer's part of loading: DIR/tokenizer, or beside the model's DIR under its published name. */
void kronos_tokenizer_load(model_t *model, loader_t *predictor);
/* For both: a stack's blocks, which the checkpoint names "NAME.b.…". */
void kronos_stack_load(loader_t *loader, kronos_stack_t *stack, const char *name);

/* ---- bars ---------------------------------------------------------------------------------------------------------------------------- */

/* What the official predictor wants of a window of `length` bars, the last ones of `context`: no gaps. values and mask [6][context] as
 * staged (model_input_t); filled [6][context] gets every value, present [6][context] 1 for the bars of the window and 0 before. A gap takes
 * the value before it, a leading one the first value there is. No volume at all: volume and amount are 0. No amount at all: volume · mean
 * of the four prices. A price that is never there takes another one's place: close, open, high, low, the first that is. */
void kronos_fill_bars(const float *values, const uint8_t *mask, int64_t context, int64_t length, float *filled, uint8_t *present);

/* Minute, hour, weekday (Monday 0), day and month of `count` times (ns UTC), written as [5][count]. */
void kronos_fill_times(const int64_t *time_ns, int64_t count, int32_t *out);

#endif
