#include "gpuworker/variates.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

static const struct {
    const char *name;
    int64_t period_ns;
} cycles[] = {
    {"day", INT64_C(86400000000000)},
    {"week", INT64_C(7) * 86400000000000},
    {"year", INT64_C(31556952000000000)}, /* 365.2425 days */
};
enum { CYCLES = sizeof cycles / sizeof *cycles };
_Static_assert((int)CYCLES == (int)VARIATES_CYCLES_MOST, "room for each");

static const char separators[] = ", \t\r\n";
static const char whole_bar[] = "open,high,low,close,volume,amount", lone_field[] = "close";

/* ---- lists --------------------------------------------------------------------------------------------------------------------- */

/* The next word of a list from *at on, which moves behind it; false at the end. */
static bool next_word(const char **at, const char **word, size_t *length)
{
    *word = *at + strspn(*at, separators);
    *length = strcspn(*word, separators);
    *at = *word + *length;
    return *length > 0;
}

static bool is_word(const char *name, const char *word, size_t length)
{
    return strlen(name) == length && memcmp(name, word, length) == 0;
}

static int parse_fields(variates_t *variates, const char *text)
{
    const char *at = text, *word;
    for (size_t length; next_word(&at, &word, &length);) {
        size_t i = 0;
        while (i < SHM_BAR_FIELDS && !is_word(shm_bar_fields[i].name, word, length))
            i++;
        if (i == SHM_BAR_FIELDS)
            return error_set(VARIATES_ERR_FIELD, "fields = %s: \"%.*s\" is no field of a bar", text, (int)length, word);
        if (variates->field_count == WIRE_FIELDS_MOST)
            return error_set(VARIATES_ERR_FIELD, "fields = %s: more than %d", text, WIRE_FIELDS_MOST);
        variates->field[variates->field_count++] = &shm_bar_fields[i];
    }
    return VARIATES_OK;
}

static int choose_fields(variates_t *variates, const char *text, bool whole_bars)
{
    bool given = text[strspn(text, separators)] != '\0';
    int rc = parse_fields(variates, given ? text : whole_bars ? whole_bar : lone_field);
    if (rc < 0 || !whole_bars)
        return rc;
    for (uint32_t i = 0; i < SHM_BAR_FIELDS; i++) {
        if (i >= variates->field_count || variates->field[i] != &shm_bar_fields[i])
            return error_set(VARIATES_ERR_FIELD, "fields = %s: this model takes whole bars: leave fields out, or give %s", text,
                             whole_bar);
        if (strcmp(shm_bar_fields[i].name, lone_field) == 0)
            variates->target = i;
    }
    return VARIATES_OK;
}

static int parse_companions(variates_t *variates, const char *text)
{
    const char *at = text, *word;
    for (size_t length; next_word(&at, &word, &length);) {
        if (variates->companion_count == VARIATES_COMPANIONS_MOST)
            return error_set(VARIATES_ERR_FIELD, "companions: more than %d", VARIATES_COMPANIONS_MOST);
        if (length >= SHM_SYMBOL_BYTES)
            return error_set(VARIATES_ERR_FIELD, "companions: \"%.*s\" is too long for a symbol", (int)length, word);
        memcpy(variates->companion[variates->companion_count++], word, length); /* zeros follow */
    }
    return VARIATES_OK;
}

static int parse_cycles(variates_t *variates, const char *text)
{
    const char *at = text, *word;
    for (size_t length; next_word(&at, &word, &length); variates->known_count += 2) {
        size_t i = 0;
        while (i < CYCLES && !is_word(cycles[i].name, word, length))
            i++;
        if (i == CYCLES || variates->known_count == 2 * CYCLES)
            return error_set(VARIATES_ERR_FIELD, "cycles = %s: expected day, week or year, each once", text);
        variates->period_ns[variates->known_count / 2] = cycles[i].period_ns;
    }
    return VARIATES_OK;
}

/* ---- life ---------------------------------------------------------------------------------------------------------------------- */

int variates_open(const config_model_t *model, const model_info_t *info, variates_t *out)
{
    variates_t variates = {0};
    bool hours = *model->timezone || *model->days || *model->hours;
    int rc = choose_fields(&variates, model->fields, info->whole_bars);
    if (rc == VARIATES_OK)
        rc = parse_companions(&variates, model->companions);
    if (rc == VARIATES_OK && variates.companion_count > 0 && (!info->variates || info->whole_bars))
        rc = error_set(VARIATES_ERR_FIELD, "companions = %s: this model sees one symbol at a time", model->companions);
    if (rc == VARIATES_OK)
        rc = parse_cycles(&variates, model->cycles);
    if (rc == VARIATES_OK && variates.known_count > 0 && !info->exogenous)
        rc = error_set(VARIATES_ERR_FIELD, "cycles = %s: this model takes nothing that is known of the future", model->cycles);
    if (rc == VARIATES_OK && hours && calendar_open(model->timezone, model->days, model->hours, &variates.calendar) < 0)
        rc = VARIATES_ERR_CALENDAR;
    *out = rc == VARIATES_OK ? variates : (variates_t){0};
    return rc;
}

void variates_close(variates_t *variates)
{
    calendar_close(variates->calendar);
    *variates = (variates_t){0};
}

/* ---- values -------------------------------------------------------------------------------------------------------------------- */

uint32_t variates_count(const variates_t *variates)
{
    return variates->field_count + variates->companion_count + variates->known_count;
}

model_shape_t variates_shape(const variates_t *variates, const config_model_t *model, uint32_t batch, backend_dtype_t precision)
{
    model_shape_t shape = {.batch = batch,
                           .variates = variates_count(variates),
                           .exogenous = variates->known_count,
                           .context = model->context,
                           .horizon = model->horizon,
                           .samples = model->samples,
                           .quantile_count = model->quantile_count,
                           .precision = precision,
                           .options = {.rescale = model->rescale,
                                       .temperature = (float)model->temperature,
                                       .top_k = model->top_k,
                                       .top_p = (float)model->top_p,
                                       .window = model->window,
                                       .decode_block = model->decode_block,
                                       .minimum_observed = model->minimum_observed,
                                       .cap = (float)model->cap},
                           .discard_samples = !model->publish_samples};
    for (uint32_t i = 0; i < model->quantile_count; i++)
        shape.quantiles[i] = (float)model->quantiles[i];
    return shape;
}

float variates_known_value(const variates_t *variates, uint32_t known, int64_t time_ns)
{
    const double two_pi = 6.283185307179586;
    int64_t period_ns = variates->period_ns[known / 2];
    double turn = two_pi * (double)(variates_local_ns(variates, time_ns) % period_ns) / (double)period_ns;
    return (float)(known % 2 == 0 ? sin(turn) : cos(turn));
}

void variates_future(const variates_t *variates, int64_t cutoff_ns, int64_t interval_ns, uint32_t horizon, int64_t *out)
{
    if (variates->calendar)
        calendar_following(variates->calendar, cutoff_ns, interval_ns, horizon, out);
    else
        for (uint32_t i = 0; i < horizon; i++)
            out[i] = cutoff_ns + (int64_t)(i + 1) * interval_ns;
}

int64_t variates_local_ns(const variates_t *variates, int64_t time_ns)
{
    return variates->calendar ? calendar_local_ns(variates->calendar, time_ns) : time_ns;
}
