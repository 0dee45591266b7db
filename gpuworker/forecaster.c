#include "gpuworker/forecaster.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "gpuworker/engine/input.h"
#include "gpuworker/engine/session.h"
#include "gpuworker/scorer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMPLAINT_INTERVAL_S = 10 };

typedef struct {
    const config_model_t *config;
    uint32_t index; /* in the config, and in the publisher's topics */
    model_t *model;
    char revision[17];
    windows_t *windows;
    uint32_t session_count;
    session_t *sessions[CONFIG_BUCKETS_MOST]; /* ascending buckets */
    wire_forecast_t message;                  /* what is the same in every forecast is filled in once */
    uint32_t variate[WIRE_FIELDS_MOST];       /* of the message's fields, whose first is the target */
    int64_t *times;                           /* [horizon], of the forecast being published; NULL: no market hours */
    scorer_t *scorer;                         /* NULL: too few levels to score */
    model_input_t beside;                     /* for a run to be gathered while the device has its session's own inputs */
} hosted_t;

/* A batch whose end has not been told. */
typedef struct {
    uint32_t open; /* runs to publish, and 1 more while there are items to gather */
    wire_done_t done;
    uint8_t status[WIRE_ITEMS_MOST];
} batch_t;

/* One series of a run. */
typedef struct {
    uint32_t place; /* in the batch */
    wire_item_t item;
    window_t window;
    bool watch; /* the scorer wants this forecast */
    scorer_origin_t origin;
} slot_t;

/* One run of a session: gathered, computed, then published. */
typedef struct {
    hosted_t *hosted;
    session_t *session;
    batch_t *batch;
    model_input_t *input; /* the session's own, or the one beside it */
    int64_t assigned_ns, computed_ns;
    session_stats_t before;
    int rc; /* of the session */
    model_output_t output;
    uint32_t count;
    slot_t *slots; /* [biggest bucket] */
} run_t;

struct forecaster {
    forecaster_parts_t parts;
    uint32_t hosted_count;
    hosted_t hosted[CONFIG_MODELS_MOST];
    batch_t batches[2]; /* one is being gathered, the other one computed and published; runs likewise */
    run_t runs[2];
    run_t *running; /* given to the device, and not published yet; NULL: none */
    float *kept;    /* room for all results of any session */
    float *samples; /* one forecast's published samples, [fields][samples][horizon] */
    log_limit_t not_published, run_failed;
};

/* ---- opening ------------------------------------------------------------------------------------------------------------------- */

static backend_dtype_t precision_of(const config_model_t *config, const backend_t *backend)
{
    if (config->precision == CONFIG_PRECISION_AUTO)
        return backend_has_bf16(backend) ? BACKEND_BF16 : BACKEND_F32;
    return config->precision == CONFIG_PRECISION_BF16 ? BACKEND_BF16 : BACKEND_F32;
}

static int open_error(int session_rc)
{
    switch (session_rc) {
    case SESSION_ERR_MEMORY:
        return FORECASTER_ERR_MEMORY;
    case SESSION_ERR_DEVICE:
        return FORECASTER_ERR_DEVICE;
    default:
        return FORECASTER_ERR_MODEL;
    }
}

/* Biggest bucket first: what fits then leaves room for no surprise later. */
static int open_sessions(hosted_t *hosted, const forecaster_parts_t *parts, backend_dtype_t precision)
{
    const config_model_t *config = hosted->config;
    for (uint32_t i = config->bucket_count; i-- > 0;) {
        model_shape_t shape = variates_shape(windows_variates(hosted->windows), config, config->buckets[i], precision);
        session_t *session;
        int rc = session_open(hosted->model, &shape, parts->config->worker.graphs, &session);
        if (rc == SESSION_ERR_MEMORY && (i > 0 || hosted->session_count > 0)) {
            log_warning("model %s: no session for batches of %u: %s", config->name, config->buckets[i], error_text());
            continue;
        }
        if (rc < 0)
            return error_add(open_error(rc), "session of batch %u", config->buckets[i]);
        memmove(hosted->sessions + 1, hosted->sessions, hosted->session_count * sizeof *hosted->sessions);
        hosted->sessions[0] = session;
        hosted->session_count++;
        session_stats_t stats;
        session_stats(session, &stats);
        shm_counter_add(parts->counters, SHM_COUNTER_SESSIONS_OPEN, 1);
        shm_counter_add(parts->counters, SHM_COUNTER_GRAPH_CAPTURES, stats.captures);
    }
    return FORECASTER_OK;
}

static void prepare_message(hosted_t *hosted, const char *worker)
{
    const config_model_t *config = hosted->config;
    const model_shape_t *shape = session_shape(hosted->sessions[0]);
    wire_forecast_t *message = &hosted->message;
    *message = (wire_forecast_t){.seed = config->seed,
                                 .horizon = shape->horizon,
                                 .context = shape->context,
                                 .sample_count = shape->samples,
                                 .field_count = windows_variates(hosted->windows)->field_count};
    snprintf(message->model, sizeof message->model, "%s", config->name);
    snprintf(message->model_revision, sizeof message->model_revision, "%s", hosted->revision);
    snprintf(message->worker, sizeof message->worker, "%s", worker);
    if (session_output(hosted->sessions[0])->quantiles) {
        message->quantile_count = shape->quantile_count;
        memcpy(message->quantile_levels, config->quantiles, shape->quantile_count * sizeof *config->quantiles);
    }
    const variates_t *variates = windows_variates(hosted->windows);
    uint32_t target = variates->target;
    for (uint32_t i = 0; i < message->field_count; i++) {
        hosted->variate[i] = i == 0 ? target : i <= target ? i - 1 : i;
        snprintf(message->fields[i].field, sizeof message->fields[i].field, "%s", variates->field[hosted->variate[i]]->name);
    }
}

static int open_model(hosted_t *hosted, const forecaster_parts_t *parts)
{
    const config_t *config = parts->config;
    backend_dtype_t precision = precision_of(hosted->config, parts->backend);
    int rc = model_load(parts->backend, hosted->config->path, precision, &hosted->model, hosted->revision);
    if (rc < 0)
        return FORECASTER_ERR_MODEL;

    model_info_t info;
    model_info(hosted->model, &info);
    uint32_t patch = info.patch ? info.patch : 1;
    uint32_t context = (hosted->config->context + patch - 1) / patch * patch;
    /* One slot of a ring may hold the bar in progress, another the one that replaces the oldest. */
    if (context + 2 > config->shm.ring_bars)
        return error_set(FORECASTER_ERR_MODEL, "a context of %u bars does not fit in rings of %u: raise ring_bars in [shm]",
                         context, config->shm.ring_bars);
    if (windows_open(hosted->config, &info, context, &hosted->windows) < 0)
        return FORECASTER_ERR_MODEL;
    rc = open_sessions(hosted, parts, precision);
    if (rc < 0)
        return rc;
    if (parts->overlap) {
        const model_shape_t *shape = session_shape(hosted->sessions[hosted->session_count - 1]);
        if (input_open(shape, info.calendar, &hosted->beside) < 0)
            return FORECASTER_ERR_MEMORY;
    }
    prepare_message(hosted, parts->worker);
    if (windows_variates(hosted->windows)->calendar) {
        hosted->times = calloc(hosted->message.horizon, sizeof *hosted->times);
        if (!hosted->times)
            return error_set(FORECASTER_ERR_MEMORY, "out of memory");
        hosted->message.times_ns = hosted->times;
    }
    const wire_forecast_t *message = &hosted->message;
    if (message->quantile_count >= 2 &&
        scorer_open(message->quantile_count, message->quantile_levels, message->horizon, &hosted->scorer) < 0)
        return FORECASTER_ERR_MEMORY;
    return FORECASTER_OK;
}

static uint32_t biggest_bucket(const hosted_t *hosted)
{
    return session_shape(hosted->sessions[hosted->session_count - 1])->batch;
}

static int allocate_scratch(forecaster_t *forecaster)
{
    size_t slots = 1, kept = 1, samples = 1;
    for (uint32_t i = 0; i < forecaster->hosted_count; i++) {
        const hosted_t *hosted = &forecaster->hosted[i];
        const model_output_t *output = session_output(hosted->sessions[0]);
        const model_shape_t *shape = session_shape(hosted->sessions[0]);
        size_t published = hosted->config->publish_samples ? (size_t)shape->variates * shape->samples * shape->horizon : 0;
        size_t rows = (size_t)biggest_bucket(hosted) * shape->variates;
        size_t results = rows * shape->horizon * (1 + shape->quantile_count) +
                         (output->samples ? rows * shape->samples * output->sample_stride : 0);
        slots = biggest_bucket(hosted) > slots ? biggest_bucket(hosted) : slots;
        kept = results > kept ? results : kept;
        samples = published > samples ? published : samples;
    }
    for (int i = 0; i < 2; i++)
        forecaster->runs[i].slots = calloc(slots, sizeof(slot_t));
    forecaster->kept = calloc(kept, sizeof *forecaster->kept);
    forecaster->samples = calloc(samples, sizeof *forecaster->samples);
    if (!forecaster->runs[0].slots || !forecaster->runs[1].slots || !forecaster->kept || !forecaster->samples)
        return error_set(FORECASTER_ERR_MEMORY, "out of memory for batches of %zu series", slots);
    return FORECASTER_OK;
}

int forecaster_open(const forecaster_parts_t *parts, forecaster_t **out)
{
    forecaster_t *forecaster = calloc(1, sizeof *forecaster);
    if (!forecaster)
        return error_set(FORECASTER_ERR_MEMORY, "out of memory");
    forecaster->parts = *parts;
    uint32_t sessions = 0;
    int rc = FORECASTER_OK;
    for (uint32_t i = 0; i < parts->config->model_count && rc == FORECASTER_OK; i++) {
        hosted_t *hosted = &forecaster->hosted[forecaster->hosted_count++];
        hosted->config = &parts->config->models[i];
        hosted->index = i;
        rc = open_model(hosted, parts);
        sessions += hosted->session_count;
        if (rc == FORECASTER_OK && sessions > WIRE_SESSIONS_MOST)
            rc = error_set(FORECASTER_ERR_MODEL, "more than %d sessions in all: use fewer buckets", WIRE_SESSIONS_MOST);
        if (rc < 0)
            error_add(rc, "model %s", hosted->config->name);
    }
    if (rc == FORECASTER_OK)
        rc = allocate_scratch(forecaster);
    if (rc < 0) {
        forecaster_close(forecaster);
        return rc;
    }
    *out = forecaster;
    return FORECASTER_OK;
}

void forecaster_close(forecaster_t *forecaster)
{
    if (!forecaster)
        return;
    for (uint32_t i = 0; i < forecaster->hosted_count; i++) {
        hosted_t *hosted = &forecaster->hosted[i];
        for (uint32_t k = 0; k < hosted->session_count; k++)
            session_close(hosted->sessions[k]);
        input_close(&hosted->beside);
        windows_close(hosted->windows);
        scorer_close(hosted->scorer);
        free(hosted->times);
        if (hosted->model)
            model_unload(hosted->model);
    }
    free(forecaster->runs[0].slots);
    free(forecaster->runs[1].slots);
    free(forecaster->kept);
    free(forecaster->samples);
    free(forecaster);
}

int forecaster_join(forecaster_t *forecaster, const shm_segment_t *segment)
{
    shm_segment_info_t info;
    shm_segment_info(segment, &info);
    for (uint32_t i = 0; i < forecaster->hosted_count; i++) {
        hosted_t *hosted = &forecaster->hosted[i];
        if (windows_join(hosted->windows, segment) < 0 || (hosted->scorer && scorer_join(hosted->scorer, info.symbols_max) < 0))
            return FORECASTER_ERR_MEMORY;
    }
    return FORECASTER_OK;
}

uint32_t forecaster_sessions(const forecaster_t *forecaster, wire_session_t out[static WIRE_SESSIONS_MOST])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < forecaster->hosted_count; i++)
        for (uint32_t k = 0; k < forecaster->hosted[i].session_count; k++) {
            const session_t *session = forecaster->hosted[i].sessions[k];
            session_stats_t stats;
            session_stats(session, &stats);
            out[count] = (wire_session_t){.batch = session_shape(session)->batch, .run_ns = stats.run_ns};
            snprintf(out[count].model, sizeof out[count].model, "%s", forecaster->hosted[i].config->name);
            count++;
        }
    return count;
}

/* ---- running ------------------------------------------------------------------------------------------------------------------- */

/* Points the message's fields at series `place` of the run's output. */
static void take_output(forecaster_t *forecaster, const run_t *run, uint32_t place)
{
    hosted_t *hosted = run->hosted;
    const model_shape_t *shape = session_shape(run->session);
    const model_output_t *output = &run->output;
    size_t horizon = shape->horizon, quantiles = hosted->message.quantile_count;
    for (uint32_t i = 0; i < hosted->message.field_count; i++) {
        size_t variate = hosted->variate[i], row = (size_t)place * shape->variates + variate;
        wire_field_t *field = &hosted->message.fields[i];
        field->mean = output->mean ? output->mean + row * horizon : NULL;
        field->quantiles = output->quantiles ? output->quantiles + row * quantiles * horizon : NULL;
        field->samples = NULL;
        if (hosted->config->publish_samples && output->samples) {
            float *to = forecaster->samples + (size_t)i * shape->samples * horizon;
            for (size_t sample = 0; sample < shape->samples; sample++) {
                size_t from = (((size_t)place * shape->samples + sample) * shape->variates + variate) * output->sample_stride;
                memcpy(to + sample * horizon, output->samples + from, horizon * sizeof *to);
            }
            field->samples = to;
        }
    }
}

static wire_item_status_t publish(forecaster_t *forecaster, const run_t *run, uint32_t place)
{
    hosted_t *hosted = run->hosted;
    const window_t *window = &run->slots[place].window;
    const wire_item_t *item = &run->slots[place].item;
    wire_forecast_t *message = &hosted->message;
    take_output(forecaster, run, place);
    snprintf(message->symbol, sizeof message->symbol, "%s", window->symbol);
    message->interval_ns = window->interval_ns;
    message->cutoff_ns = window->cutoff_ns;
    message->start_ns = window->cutoff_ns + window->interval_ns;
    if (hosted->times) {
        variates_future(windows_variates(hosted->windows), window->cutoff_ns, window->interval_ns, message->horizon, hosted->times);
        message->start_ns = hosted->times[0];
    }
    message->bar_index = item->end - 1;
    message->last = window->last;
    message->stored_ns = item->stored_ns;
    message->assigned_ns = run->assigned_ns;
    message->computed_ns = run->computed_ns;
    message->created_ns = clock_realtime_ns();
    /* That all values are finite is looked at there. */
    if (publisher_send(forecaster->parts.publisher, hosted->index, item->symbol_id, message) < 0) {
        uint64_t held_back;
        if (log_allow(&forecaster->not_published, COMPLAINT_INTERVAL_S * CLOCK_NS_PER_S, &held_back))
            log_warning("model %s, %s: cannot publish: %s (%llu more complaints of this kind were held back)", hosted->config->name,
                        window->symbol, error_text(), (unsigned long long)held_back);
        return WIRE_ITEM_FAILED;
    }
    shm_latency_record(forecaster->parts.counters, message->published_ns - item->stored_ns);
    if (run->slots[place].watch)
        scorer_watch(hosted->scorer, item->symbol_id, &run->slots[place].origin, message->fields[0].quantiles);
    return WIRE_ITEM_OK;
}

/* One thing less to do for a batch; the last one ends it. */
static void settle(forecaster_t *forecaster, batch_t *batch)
{
    if (--batch->open > 0)
        return;
    shm_counter_add(forecaster->parts.counters, SHM_COUNTER_BATCHES_RUN, 1);
    forecaster->parts.finished(forecaster->parts.context, &batch->done);
}

static void publish_all(forecaster_t *forecaster, const run_t *run)
{
    for (uint32_t i = 0; i < run->count; i++) {
        wire_item_status_t status = run->rc < 0 ? WIRE_ITEM_FAILED : publish(forecaster, run, i);
        run->batch->status[run->slots[i].place] = (uint8_t)status;
        shm_counter_add(forecaster->parts.counters, status == WIRE_ITEM_OK ? SHM_COUNTER_FORECASTS : SHM_COUNTER_FORECASTS_FAILED,
                        1);
    }
    settle(forecaster, run->batch);
}

/* Scores the forecast of that symbol which is watched by the bars just gathered. */
static void score(forecaster_t *forecaster, const run_t *run, slot_t *slot)
{
    hosted_t *hosted = run->hosted;
    const model_shape_t *shape = session_shape(run->session);
    const model_input_t *input = run->input;
    size_t variate = (size_t)run->count * shape->variates + windows_variates(hosted->windows)->target;
    size_t oldest = (variate + 1) * shape->context - input->length[run->count];
    scorer_bars_t bars = {.symbol_id = slot->item.symbol_id,
                          .end = slot->item.end,
                          .count = input->length[run->count],
                          .values = input->values + oldest,
                          .mask = input->mask + oldest,
                          .log = input->log_price[variate]};
    uint64_t before = scorer_score(hosted->scorer)->scored;
    slot->watch = scorer_observe(hosted->scorer, &bars, &slot->origin);
    if (scorer_score(hosted->scorer)->scored != before)
        shm_score_set(forecaster->parts.counters, hosted->index, scorer_score(hosted->scorer));
}

/* Gathers items from *next on into the run until its session is full or they end. */
static void gather(forecaster_t *forecaster, run_t *run, const shm_segment_t *segment, const wire_assign_t *assign, uint32_t *next)
{
    const model_shape_t *shape = session_shape(run->session);
    for (run->count = 0; *next < assign->count && run->count < shape->batch; (*next)++) {
        const wire_item_t *item = &assign->items[*next];
        slot_t *slot = &run->slots[run->count];
        wire_item_status_t status =
            windows_gather(run->hosted->windows, segment, item, shape, run->input, run->count, &slot->window);
        run->batch->status[*next] = (uint8_t)status;
        if (status == WIRE_ITEM_OK) {
            slot->place = *next;
            slot->item = *item;
            slot->watch = false;
            if (run->hosted->scorer)
                score(forecaster, run, slot);
            run->count++;
        } else if (status == WIRE_ITEM_OVERRUN) {
            shm_counter_add(forecaster->parts.counters, SHM_COUNTER_RING_OVERRUNS, 1);
        }
    }
}

static float *keep(const float **values, size_t count, float *to)
{
    if (!*values)
        return to;
    memcpy(to, *values, count * sizeof *to);
    *values = to;
    return to + count;
}

/* Takes the run's results out of its session's memory, which the session's next run writes to. */
static void keep_results(forecaster_t *forecaster, run_t *run)
{
    const model_shape_t *shape = session_shape(run->session);
    size_t rows = (size_t)run->count * shape->variates;
    float *to = keep(&run->output.mean, rows * shape->horizon, forecaster->kept);
    to = keep(&run->output.quantiles, rows * shape->quantile_count * shape->horizon, to);
    keep(&run->output.samples, rows * shape->samples * run->output.sample_stride, to);
}

/* What the session says of a run. Only a failed device is a failure of the forecaster. */
static int judge(forecaster_t *forecaster, run_t *run, int rc)
{
    run->rc = rc;
    if (rc == SESSION_ERR_DEVICE)
        return error_add(FORECASTER_ERR_DEVICE, "%s, model %s, a batch of %u", backend_name(forecaster->parts.backend),
                         run->hosted->config->name, run->count);
    uint64_t held_back;
    if (rc < 0 && log_allow(&forecaster->run_failed, COMPLAINT_INTERVAL_S * CLOCK_NS_PER_S, &held_back))
        log_warning("model %s: a batch of %u failed: %s", run->hosted->config->name, run->count, error_text());
    return FORECASTER_OK;
}

/* Waits for the run that the device has: its results are then in its session's memory. */
static int finish(forecaster_t *forecaster, run_t *run)
{
    forecaster->running = NULL;
    int rc = run->rc < 0 ? FORECASTER_OK : judge(forecaster, run, session_wait(run->session));
    run->computed_ns = clock_monotonic_ns();
    run->output = *session_output(run->session);
    if (rc < 0)
        return rc;
    session_stats_t after;
    session_stats(run->session, &after);
    int64_t compute_ns = run->rc < 0 ? 0 : after.device_ns;
    shm_counters_t *counters = forecaster->parts.counters;
    run->batch->done.compute_ns += compute_ns;
    shm_counter_add(counters, SHM_COUNTER_COMPUTE_NS, (uint64_t)compute_ns);
    shm_counter_add(counters, SHM_COUNTER_GRAPH_CAPTURES, after.captures - run->before.captures);
    shm_counter_add(counters, SHM_COUNTER_GRAPH_REPLAYS, after.replays - run->before.replays);
    return FORECASTER_OK;
}

/* Gives the gathered run to the device as soon as it is done with the one before, which is published meanwhile. */
static int hand_over(forecaster_t *forecaster, run_t *run)
{
    run_t *before = forecaster->running;
    if (before) {
        int rc = finish(forecaster, before);
        if (rc < 0)
            return rc;
        if (before->session == run->session)
            keep_results(forecaster, before);
    }
    if (run->input == &run->hosted->beside)
        input_copy(session_shape(run->session), session_input(run->session), run->input, run->count);
    session_stats(run->session, &run->before);
    int rc = judge(forecaster, run, session_start(run->session, run->count));
    forecaster->running = rc < 0 ? NULL : run;
    if (before)
        publish_all(forecaster, before);
    return rc;
}

int forecaster_flush(forecaster_t *forecaster)
{
    run_t *run = forecaster->running;
    int rc = run ? finish(forecaster, run) : FORECASTER_OK;
    if (run && rc == FORECASTER_OK)
        publish_all(forecaster, run);
    return rc;
}

int forecaster_poll(forecaster_t *forecaster)
{
    run_t *run = forecaster->running;
    int ready = run && run->rc == SESSION_OK ? session_ready(run->session) : 1;
    if (ready < 0) {
        forecaster->running = NULL;
        return judge(forecaster, run, ready);
    }
    return ready ? forecaster_flush(forecaster) : FORECASTER_BUSY;
}

static hosted_t *find_model(forecaster_t *forecaster, const char *name)
{
    for (uint32_t i = 0; i < forecaster->hosted_count; i++)
        if (strcmp(forecaster->hosted[i].config->name, name) == 0)
            return &forecaster->hosted[i];
    return NULL;
}

static session_t *smallest_that_fits(const hosted_t *hosted, uint32_t series)
{
    for (uint32_t i = 0; i < hosted->session_count; i++)
        if (session_shape(hosted->sessions[i])->batch >= series)
            return hosted->sessions[i];
    return hosted->sessions[hosted->session_count - 1];
}

static batch_t *begin_batch(forecaster_t *forecaster, const wire_assign_t *assign)
{
    const run_t *running = forecaster->running;
    batch_t *batch = &forecaster->batches[running && running->batch == &forecaster->batches[0]];
    batch->open = 1;
    batch->done = (wire_done_t){.batch_id = assign->batch_id, .count = assign->count, .status = batch->status};
    snprintf(batch->done.worker, sizeof batch->done.worker, "%s", forecaster->parts.worker);
    memset(batch->status, WIRE_ITEM_FAILED, assign->count);
    return batch;
}

int forecaster_run(forecaster_t *forecaster, const shm_segment_t *segment, const wire_assign_t *assign)
{
    batch_t *batch = begin_batch(forecaster, assign);
    hosted_t *hosted = find_model(forecaster, assign->model);
    int64_t assigned_ns = clock_monotonic_ns();
    if (hosted)
        windows_catch_up(hosted->windows, segment);
    for (uint32_t next = 0; hosted && next < assign->count;) {
        const run_t *running = forecaster->running;
        run_t *run = &forecaster->runs[running == &forecaster->runs[0]];
        run->hosted = hosted;
        run->session = smallest_that_fits(hosted, assign->count - next);
        run->input = running && running->session == run->session ? &hosted->beside : session_input(run->session);
        run->batch = batch;
        run->assigned_ns = assigned_ns;
        gather(forecaster, run, segment, assign, &next);
        if (!run->count)
            continue;
        batch->open++;
        int rc = hand_over(forecaster, run);
        if (rc == FORECASTER_OK && !forecaster->parts.overlap)
            rc = forecaster_flush(forecaster);
        if (rc < 0)
            return rc;
    }
    settle(forecaster, batch);
    return FORECASTER_OK;
}
