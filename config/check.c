#include "base/calendar.h"
#include "base/error.h"
#include "config/table.h"

#include <stdarg.h>
#include <string.h>

static uint32_t key_line(const config_lines_t *lines, config_section_id_t section, uint32_t index, const char *name)
{
    for (size_t i = 0; i < config_key_count; i++)
        if (config_keys[i].section == section && strcmp(config_keys[i].name, name) == 0)
            return lines->key[config_slot(section, index)][i];
    return 0;
}

/* "FILE:LINE: [section] text", where the line is the key's or, when it was not given, its section's. */
__attribute__((format(printf, 7, 8))) static int fail_at(const config_t *config, const config_lines_t *lines, int code,
                                                         config_section_id_t section, uint32_t index, const char *key,
                                                         const char *format, ...)
{
    char text[ERROR_TEXT_BYTES / 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    uint32_t line = key_line(lines, section, index, key);
    if (!line)
        line = lines->section[config_slot(section, index)];
    bool named = config_sections[section].stride != 0;
    const char *name = (const char *)config + config_sections[section].offset + index * config_sections[section].stride;
    return error_set(code, "%s:%u: [%s%s%s] %s", lines->file, line, config_sections[section].name, named ? "." : "",
                     named ? name : "", text);
}

static int check_feed(const config_t *config, const config_lines_t *lines, uint32_t index)
{
    const config_feed_t *feed = &config->feeds[index];
    bool zmq = feed->type == CONFIG_FEED_ZMQ;
    const char *needed = zmq ? "endpoint" : "path";
    const char *unused = zmq ? "path" : "endpoint";
    if (!*(zmq ? feed->endpoint : feed->path))
        return fail_at(config, lines, CONFIG_ERR_MISSING, CONFIG_SECTION_FEED, index, needed, "needs %s: %s", needed,
                       zmq ? "what the PULL socket binds" : "the file or folder that its bars are in");
    if (*(zmq ? feed->path : feed->endpoint))
        return fail_at(config, lines, CONFIG_ERR_VALUE, CONFIG_SECTION_FEED, index, unused,
                       "%s has no meaning for this type of feed", unused);
    return CONFIG_OK;
}

static int check_model(config_t *config, const config_lines_t *lines, uint32_t index)
{
    config_model_t *model = &config->models[index];
    const config_section_id_t section = CONFIG_SECTION_MODEL;
    if (!*model->path)
        return fail_at(config, lines, CONFIG_ERR_MISSING, section, index, "path",
                       "needs path: a checkpoint folder, naive or default");
    if (!*model->symbols)
        return fail_at(config, lines, CONFIG_ERR_VALUE, section, index, "symbols", "symbols is empty, expected patterns such as *");
    if (model->bucket_count == 0)
        return fail_at(config, lines, CONFIG_ERR_VALUE, section, index, "buckets",
                       "buckets is empty, expected batch sizes such as 1");
    if (model->quantile_count == 0)
        return fail_at(config, lines, CONFIG_ERR_VALUE, section, index, "quantiles",
                       "quantiles is empty, expected levels such as 0.5");
    if (model->context >= config->shm.ring_bars)
        return fail_at(config, lines, CONFIG_ERR_VALUE, section, index, "context",
                       "context = %u does not fit the rings, expected less than ring_bars = %u of [shm]", model->context,
                       config->shm.ring_bars);
    if (model->context_min > model->context) {
        if (key_line(lines, section, index, "context_min"))
            return fail_at(config, lines, CONFIG_ERR_VALUE, section, index, "context_min",
                           "context_min = %u is more than context = %u", model->context_min, model->context);
        model->context_min = model->context;
    }
    calendar_t *calendar = NULL;
    if (calendar_open(model->timezone, model->days, model->hours, &calendar) < 0) {
        char why[ERROR_TEXT_BYTES / 4];
        snprintf(why, sizeof why, "%s", error_text());
        return fail_at(config, lines, CONFIG_ERR_VALUE, section, index, *model->timezone ? "timezone" : "hours", "%s", why);
    }
    calendar_close(calendar);
    if (model->publish_samples && model->samples == 0)
        return fail_at(config, lines, CONFIG_ERR_VALUE, section, index, "publish_samples",
                       "publish_samples = on needs samples above 0");
    return CONFIG_OK;
}

int config_check(config_t *config, const config_lines_t *lines)
{
    if (config->feed_count == 0)
        return error_set(CONFIG_ERR_MISSING, "%s: no [feed.NAME] section: bars must come from somewhere", lines->file);
    if (config->model_count == 0)
        return error_set(CONFIG_ERR_MISSING, "%s: no [model.NAME] section: something must forecast", lines->file);
    int rc = CONFIG_OK;
    for (uint32_t i = 0; rc == CONFIG_OK && i < config->feed_count; i++)
        rc = check_feed(config, lines, i);
    for (uint32_t i = 0; rc == CONFIG_OK && i < config->model_count; i++)
        rc = check_model(config, lines, i);
    return rc;
}
