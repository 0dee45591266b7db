/* What a model family offers: a few files in this folder, written once against the op vocabulary (backend/backend.h). What families share lies in
 * parts.h (sessions), parts_load.h and parts_create.h.
 *
 * A model_t is one checkpoint's weights on one backend, shared by its sessions. A session's part of the model (model_state_t, defined by
 * the family) holds every buffer of one shape; `forecast` enqueues the whole forecast on it, the same calls in the same order every
 * time, so that the engine can capture it once as a graph. What varies between calls is data in the staging buffers:
 *
 *     family->open      once: allocate all buffers of the shape, compute and upload tables
 *     family->prepare   every call, host only: complete the staged inputs (token indices, calendars, masks) from what the caller filled in
 *     family->forecast  captured: copy in, compute, copy out. No host decisions.
 *
 * The interface is the same for decoders with a cache, encoders (one pass), token samplers (several fields, paths) and flow matching
 * (a fixed number of denoise steps): they differ in what happens inside forecast.
 * All functions: the backend's thread; 0 or a MODEL_ERR_*, text in error_text(). */
#ifndef BARCAST_GPUWORKER_MODEL_MODEL_H
#define BARCAST_GPUWORKER_MODEL_MODEL_H

#include "gpuworker/backend/backend.h"
#include "gpuworker/weights/checkpoint.h"

enum {
    MODEL_OK = 0,
    MODEL_ERR_CHECKPOINT = -1, /* weights or config.json */
    MODEL_ERR_SHAPE = -2,      /* this model cannot do that context, horizon, variates, samples */
    MODEL_ERR_BACKEND = -3,    /* the backend failed */
    MODEL_ERR_FAMILY = -4,     /* no family knows this config.json */
    MODEL_ERR_MEMORY = -5      /* the device or the host has no room for it */
};

enum { MODEL_QUANTILES_MOST = 99, MODEL_WHOLE_BAR = 6 };

/* What the official calls leave to their caller. 0 is the official default of each. */
typedef struct {
    float temperature;     /* Kronos: of the token draws; default 1 */
    uint32_t top_k;        /* Kronos: draws among that many tokens; default all; 1 is greedy */
    float top_p;           /* Kronos: draws among the tokens that hold so much probability, when top_k is 0; default 0.9 */
    uint32_t window;       /* Kronos: tokens that a step looks back on (max_context); default 512 */
    uint32_t decode_block; /* Toto 2: bars a decode step; default the whole horizon in one pass */
    uint32_t
        minimum_observed; /* Toto 2: observations a patch's scaler needs, else it takes those of the first so many; default none */
    float cap;            /* Toto 2: quantiles stay within the context's range widened by so many of its scales; default no cap */
    bool rescale;         /* any family: the session brings small series near 100 and their forecasts back, see engine/rescale.h */
} model_options_t;

/* One session's shape. */
typedef struct {
    uint32_t batch;     /* series */
    uint32_t variates;  /* rows a series, the exogenous last */
    uint32_t exogenous; /* of these: known in the future */
    uint32_t context;   /* bars */
    uint32_t horizon;   /* bars */
    uint32_t samples;   /* paths; 0: the mean, and the quantiles that the model gives without any */
    uint32_t quantile_count;
    float quantiles[MODEL_QUANTILES_MOST]; /* ascending, in (0, 1) */
    backend_dtype_t precision;             /* BACKEND_F32 or BACKEND_BF16: the one that the model was loaded with */
    model_options_t options;
    bool given_noise;     /* flow matching: the caller stages the noise (verification); else it is drawn from the keys */
    bool discard_samples; /* the paths serve the quantiles only: they are not copied out, output->samples is NULL */
} model_shape_t;

/* Staged inputs, host memory of the session, filled by the caller for series 0 .. count-1 before a run. The newest bar is last; a series
 * with `length` < context bars has them at the end, zeros and mask 0 before. */
typedef struct {
    float *values;      /* [batch][variates][context]; masked values hold 0 */
    uint8_t *mask;      /* [batch][variates][context]; 1 observed */
    uint32_t *length;   /* [batch]: bars that exist, 1 to context */
    int32_t *group;     /* [batch][variates]: variates attend each other when equal */
    uint64_t *key;      /* [batch]: random-number key, see model_random_key */
    uint8_t *log_price; /* [batch][variates]: 1 where values are prices (naive walks in logs) */
    int64_t *time_ns;   /* [batch][context + horizon]: open times; families without a calendar ignore them */
    float *future;      /* [batch][exogenous][horizon]; NaN: not known */
    float *noise;       /* given_noise: [batch][samples][length the family needs]; else NULL */
} model_input_t;

/* Results, host memory of the session, valid until its next run; the pointers stay the same. NULL where the model or shape gives none. */
typedef struct {
    const float *mean;      /* [batch][variates][horizon] */
    const float *quantiles; /* [batch][variates][quantile_count][horizon], levels ascending, never crossing */
    const float *samples;   /* [batch][samples][variates][sample_stride], the first `horizon` of a row count */
    uint32_t sample_stride;
} model_output_t;

typedef struct model model_t;             /* defined by the family; begins with a model_base_t */
typedef struct model_state model_state_t; /* likewise defined by the family */
typedef struct loader loader_t;           /* gpuworker/model/parts_load.h */

/* Called during an eager run with every tensor that the goldens name ("s0.layer_3", step 0; "steps.mean", step 2; a stacked one once a
 * step, without its first dimension). `values` is a dense host copy, valid during the call. */
typedef void (*model_tap_t)(void *context, const char *name, int step, const float *values, int rank, const int64_t *dim);

typedef struct {
    const char *family; /* "toto1" */
    int64_t parameters;
    size_t weight_bytes;                 /* on the device */
    uint32_t patch;                      /* context is rounded up to a multiple */
    uint32_t context_most, horizon_most; /* 0: no limit */
    bool samples;                        /* can draw paths */
    bool calendar;                       /* reads time_ns */
    bool whole_bars;                     /* its MODEL_WHOLE_BAR variates are open, high, low, close, volume and amount */
    bool variates;                       /* several variates of a series inform each other */
    bool exogenous;                      /* takes variates that are known in the future */
    bool quantiles_without_samples;      /* gives quantiles by itself... */
    uint32_t exact_horizon_most;         /* ...up to this horizon; 0: up to any */
    uint32_t level_count;                /* of those that it knows; others are interpolated */
    const float *levels;                 /* ascending; the model's */
} model_info_t;

/* What one forecast of a shape has to move and to compute, counted from the model's structure: its time cannot be much shorter. Activations are
 * not counted; ideal kernels would keep them on the chip. */
typedef struct {
    double weight_bytes; /* every weight once in each pass over them: the prefill and every decode step */
    double
        cache_bytes; /* keys and values, written once and read once by each later pass; a prefix that samples share once for all of them */
    double io_bytes; /* bars and masks in; mean, quantiles and paths (unless discarded) out */
    double flops;    /* of matrix products and attention; a multiply-add is 2 */
} model_cost_t;

typedef struct {
    const char *name;
    /* Does this config.json belong to the family? Looks at keys only; no error text. */
    bool (*matches)(const checkpoint_t *checkpoint);
    size_t model_bytes, state_bytes; /* of model_t, of model_state_t */
    /* Reads config.json and the weights into a model that is zeroed but for its base. Failures go to loader->rc
     * (gpuworker/model/parts_load.h); unload is called after them too. NULL: there is no checkpoint. */
    void (*load)(model_t *model, loader_t *loader);
    void (*unload)(model_t *model);                        /* frees what the model holds on the host; NULL: nothing */
    void (*info)(const model_t *model, model_info_t *out); /* adds to what model_info knows */
    /* Allocates everything. `state` is zeroed; `input` and `output`, zeroed too, get their pointers. What the model does otherwise than
     * asked it writes back into the shape: context rounded up to the patch, samples 0 where it cannot draw, quantile_count 0 where it has
     * none to give. */
    int (*open)(model_t *model, model_shape_t *shape, model_state_t *state, model_input_t *input, model_output_t *output);
    void (*prepare)(model_state_t *state); /* NULL: the inputs are complete as the caller leaves them */
    int (*forecast)(model_state_t *state);
    void (*close)(model_state_t *state); /* frees what open has allocated; after its failure too */
    /* Of a full batch of a shape as open has written it back. */
    void (*cost)(const model_t *model, const model_shape_t *shape, model_cost_t *out);
    /* May allocate: what only a tap needs is not there before. NULL: the model shows nothing. */
    int (*set_tap)(model_state_t *state, model_tap_t tap, void *context);
    /* A seeded random checkpoint of that family: size is a published name ("base") or "tiny". Deterministic. NULL: none. */
    int (*create)(const char *size, uint64_t seed, const char *dir);
} model_family_t;

/* Every family: NULL-terminated. Naive is not in a directory and is found by its name. */
extern const model_family_t *const model_families[];

/* The common beginning of every model_t; model_load fills it in. */
typedef struct {
    const model_family_t *family;
    backend_t *backend;
    backend_dtype_t precision; /* of the matrices that are multiplied with: BACKEND_F32 or BACKEND_BF16 */
    bool rescale;              /* its sessions do what options.rescale asks for: the default model's */
    int64_t parameters;
    size_t weight_bytes;
    size_t weight_count;
    backend_tensor_t *weights; /* all of them on the device: model_unload frees them */
} model_base_t;

/* DIR of the model that comes with Barcast, into `out`; the name "default" stands for it. Fails when `room` bytes are too few. */
int model_default_dir(char *out, size_t room);

/* Loads DIR ("naive" for the built-in one, "default" for the one that comes with Barcast): finds the family by config.json. The checkpoint is
 * closed again when the weights are up; *revision gets what forecasts name the weights by: a hash of all the checkpoints that they came from. */
int model_load(backend_t *backend, const char *dir, backend_dtype_t precision, model_t **out, char revision[static 17]);
void model_unload(model_t *model); /* allows NULL */
const model_family_t *model_family(const model_t *model);
void model_info(const model_t *model, model_info_t *out);
/* Does a session of that horizon give quantiles with samples = 0? */
bool model_has_quantiles(const model_t *model, uint32_t horizon);

/* No session is larger: context and horizon together, and all values that go in or come out (256 GB of them). */
enum { MODEL_BARS_MOST = 1 << 26 };
#define MODEL_VALUES_MOST (INT64_C(1) << 36)

/* A session's part of the model: makes the state and opens it (model_family_t.open). A precision other than the model's is a
 * MODEL_ERR_SHAPE, and so is a shape beyond the limits above. After a failure nothing is left. The caller's until model_close. */
int model_open(model_t *model, model_shape_t *shape, model_state_t **out, model_input_t *input, model_output_t *output);
void model_close(const model_t *model, model_state_t *state);

/* Key of the counter-based random numbers of one forecast: a function of nothing but these, so that a forecast does not depend on its batch
 * mates, its worker or a retry. */
uint64_t model_random_key(uint64_t seed, const char *symbol, int64_t cutoff_ns);

#endif
