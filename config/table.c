#include "config/table.h"

#include <assert.h>

#define IN(type, member)         .offset = offsetof(type, member), .bytes = sizeof(((type *)NULL)->member)
#define ROOT(member)             IN(config_t, member)
#define FEED(member)             IN(config_feed_t, member)
#define MODEL(member)            IN(config_model_t, member)
#define COUNTED_BY(type, member) .count_offset = offsetof(type, member)

const config_section_t config_sections[CONFIG_SECTION_COUNT] = {
    [CONFIG_SECTION_INSTANCE] = {.name = "instance", .most = 1, .doc = "One running Barcast; several may share a machine."},
    [CONFIG_SECTION_SHM] = {.name = "shm",
                            .most = 1,
                            .doc = "The shared-memory segment: 64 bytes a bar, symbols_max rings of ring_bars each."},
    [CONFIG_SECTION_INGEST] = {.name = "ingest", .most = 1, .doc = "What happens to bars between a feed and the segment."},
    [CONFIG_SECTION_SCHEDULER] = {.name = "scheduler",
                                  .most = 1,
                                  .doc = "When a symbol is forecast, and how workers are fed and watched."},
    [CONFIG_SECTION_WORKER] = {.name = "worker", .most = 1, .doc = "The processes that forecast."},
    [CONFIG_SECTION_PUBLISH] = {.name = "publish", .most = 1, .doc = "Where subscribers get forecasts."},
    [CONFIG_SECTION_FEED] = {.name = "feed",
                             .most = CONFIG_FEEDS_MOST,
                             .count_offset = offsetof(config_t, feed_count),
                             .offset = offsetof(config_t, feeds),
                             .stride = sizeof(config_feed_t),
                             .sample_name = "bars",
                             .doc = "Where bars come from: one such section a feed, at least one."},
    [CONFIG_SECTION_MODEL] = {.name = "model",
                              .most = CONFIG_MODELS_MOST,
                              .count_offset = offsetof(config_t, model_count),
                              .offset = offsetof(config_t, models),
                              .stride = sizeof(config_model_t),
                              .sample_name = "naive",
                              .doc = "What forecasts them: one such section a model, at least one. Its name is part of the topic."},
};

/* In the order of the enums in config.h. */
static const char *const gap_words[] = {"mark", "fill", NULL};
static const char *const feed_words[] = {"csv", "ndjson", "zmq", NULL};
static const char *const due_words[] = {"close", "every", "timer", NULL};
static const char *const device_words[] = {"auto", "cpu", "cuda", NULL};
static const char *const precision_words[] = {"auto", "fp32", "bf16", NULL};

static const char *const field_words[] = {"open", "high", "low", "close", "volume", "amount", NULL};
static const char *const cycle_words[] = {"day", "week", "year", NULL};
static const char *const day_words[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun", NULL};
static const char *const feed_path_words[] = {"-", NULL};
static const char *const model_path_words[] = {"naive", "default", NULL};

#define MS  1e6
#define S   1e9
#define H   3600e9
#define DAY 86400e9

const config_key_t config_keys[] = {
    {CONFIG_SECTION_INSTANCE, "name", CONFIG_VALUE_NAME, "main", ROOT(instance.name),
     .doc = "Names the segment, the counters and the sockets."},
    {CONFIG_SECTION_INSTANCE, "runtime_dir", CONFIG_VALUE_PATH, "", ROOT(instance.runtime_dir),
     .doc = "Folder of the ipc sockets. Empty: barcast/NAME in $XDG_RUNTIME_DIR, or /tmp/barcast-UID/NAME where that is not set."},

    {CONFIG_SECTION_SHM, "symbols_max", CONFIG_VALUE_U32, "4096", ROOT(shm.symbols_max), .least = 1, .most = 65536,
     .doc = "Symbols to make room for. Memory is touched only when it is used."},
    {CONFIG_SECTION_SHM, "ring_bars", CONFIG_VALUE_POWER, "4096", ROOT(shm.ring_bars), .least = 64, .most = 1 << 20,
     .doc = "Bars kept for each symbol: more than the largest context, so that a window is not overwritten while it is read."},
    {CONFIG_SECTION_SHM, "log_entries", CONFIG_VALUE_POWER, "65536", ROOT(shm.log_entries), .least = 1024, .most = 1 << 24,
     .doc = "Length of the update log: how many updates the scheduler may fall behind before it has to look at every ring."},
    {CONFIG_SECTION_SHM, "group", CONFIG_VALUE_NAME, "", ROOT(shm.group),
     .doc = "Group whose members may read the segment. Empty: nobody but this user."},

    {CONFIG_SECTION_INGEST, "gap", CONFIG_VALUE_WORD, "mark", ROOT(ingest.gap), .words = gap_words,
     .doc =
         "Missing bars: mark the bar after the gap, or fill forward with the last close and no volume. Feeds of markets that close "
         "overnight want mark."},
    {CONFIG_SECTION_INGEST, "gap_fill_max", CONFIG_VALUE_U32, "16", ROOT(ingest.gap_fill_max), .least = 1, .most = 65536,
     .doc = "Longest gap, in bars, that gap = fill fills; a longer one is marked."},

    {CONFIG_SECTION_SCHEDULER, "endpoint", CONFIG_VALUE_ENDPOINT, "", ROOT(scheduler.endpoint),
     .doc = "Where workers meet the scheduler. Empty: an ipc socket in runtime_dir."},
    {CONFIG_SECTION_SCHEDULER, "due", CONFIG_VALUE_WORD, "close", ROOT(scheduler.due), .words = due_words,
     .doc = "A symbol is forecast when a bar closes, at every due_every-th bar, or every due_timer if it has a new bar."},
    {CONFIG_SECTION_SCHEDULER, "due_every", CONFIG_VALUE_U32, "1", ROOT(scheduler.due_every), .least = 1, .most = 1000000,
     .doc = "Bars, for due = every."},
    {CONFIG_SECTION_SCHEDULER, "due_timer", CONFIG_VALUE_DURATION, "1s", ROOT(scheduler.due_timer_ns), .least = 1 * MS,
     .most = 1 * DAY, .doc = "Period, for due = timer."},
    {CONFIG_SECTION_SCHEDULER, "heartbeat", CONFIG_VALUE_DURATION, "500ms", ROOT(scheduler.heartbeat_ns), .least = 10 * MS,
     .most = 60 * S, .doc = "How often scheduler and workers tell each other that they live."},
    {CONFIG_SECTION_SCHEDULER, "heartbeat_liveness", CONFIG_VALUE_U32, "3", ROOT(scheduler.heartbeat_liveness), .least = 2,
     .most = 100, .doc = "Heartbeats missed in a row after which a peer is taken for dead."},
    {CONFIG_SECTION_SCHEDULER, "deadline", CONFIG_VALUE_DURATION, "10s", ROOT(scheduler.deadline_ns), .least = 10 * MS,
     .most = 1 * H, .doc = "A batch not finished by then goes to another worker. Well above the slowest run of a model."},
    {CONFIG_SECTION_SCHEDULER, "credits", CONFIG_VALUE_U32, "2", ROOT(scheduler.credits), .least = 1, .most = 16,
     .doc = "Batches that a worker holds at most: one that runs and one that waits keep it busy."},
    {CONFIG_SECTION_SCHEDULER, "batch_max", CONFIG_VALUE_U32, "4096", ROOT(scheduler.batch_max), .least = 1, .most = 4096,
     .doc = "Series in a batch at most; the worker's buckets bound it too."},
    {CONFIG_SECTION_SCHEDULER, "linger", CONFIG_VALUE_DURATION, "0", ROOT(scheduler.linger_ns), .least = 0, .most = 10 * S,
     .doc =
         "How long to wait for more due symbols before a batch is sent. 0: never; symbols that close together are batched anyway."},
    {CONFIG_SECTION_SCHEDULER, "quarantine_after", CONFIG_VALUE_U32, "3", ROOT(scheduler.quarantine_after), .least = 1,
     .most = 1000, .doc = "Failures in a row after which a symbol is left out."},
    {CONFIG_SECTION_SCHEDULER, "quarantine", CONFIG_VALUE_DURATION, "60s", ROOT(scheduler.quarantine_ns), .least = 10 * MS,
     .most = 7 * DAY, .doc = "For how long."},

    {CONFIG_SECTION_WORKER, "count", CONFIG_VALUE_U32, "1", ROOT(worker.count), .least = 0, .most = 64,
     .doc = "Workers that `barcast run` starts. 0: one for each GPU, and a single one on the CPU. More than there are GPUs share "
            "them."},
    {CONFIG_SECTION_WORKER, "device", CONFIG_VALUE_WORD, "auto", ROOT(worker.device), .words = device_words,
     .doc = "auto: CUDA where there is a GPU, else the CPU."},
    {CONFIG_SECTION_WORKER, "device_first", CONFIG_VALUE_U32, "0", ROOT(worker.device_first), .least = 0, .most = 63,
     .doc = "GPU of the first worker; the others take the following ones in turn."},
    {CONFIG_SECTION_WORKER, "threads", CONFIG_VALUE_U32, "1", ROOT(worker.threads), .least = 1, .most = 1024,
     .doc = "CPU threads of one worker's matrix products."},
    {CONFIG_SECTION_WORKER, "graphs", CONFIG_VALUE_BOOL, "on", ROOT(worker.graphs),
     .doc = "Replay a forecast as one captured graph where the device has graphs. off: the same code step by step, for debugging."},

    {CONFIG_SECTION_PUBLISH, "endpoint", CONFIG_VALUE_ENDPOINT, "", ROOT(publish.endpoint),
     .doc = "Where worker 0 publishes; worker I uses PORT + I, or PATH.I. Empty: ipc sockets in runtime_dir."},
    {CONFIG_SECTION_PUBLISH, "high_water_mark", CONFIG_VALUE_U32, "10000", ROOT(publish.high_water_mark), .least = 1,
     .most = 10000000, .doc = "Forecasts that a subscriber may lag behind before it loses some. Nobody waits for it."},

    {CONFIG_SECTION_FEED, "type", CONFIG_VALUE_WORD, "csv", FEED(type), .words = feed_words,
     .doc = "csv and ndjson replay files; zmq takes bars that another program pushes (wire/README.md)."},
    {CONFIG_SECTION_FEED, "path", CONFIG_VALUE_PATH, "", FEED(path), .sample = "bars.csv", .words = feed_path_words,
     .doc = "csv: a file, or a folder of them; ndjson: a file, or - for standard input. Required for both."},
    {CONFIG_SECTION_FEED, "endpoint", CONFIG_VALUE_ENDPOINT, "", FEED(endpoint),
     .doc = "zmq: what the PULL socket binds. Required there."},
    {CONFIG_SECTION_FEED, "symbol", CONFIG_VALUE_TEXT, "", FEED(symbol),
     .doc = "Symbol of data without a symbol column. Empty: the file's name without its ending."},
    {CONFIG_SECTION_FEED, "symbol_suffix", CONFIG_VALUE_TEXT, "", FEED(symbol_suffix),
     .doc = "Taken off the file's name: _daily makes AAPL_daily.csv AAPL."},
    {CONFIG_SECTION_FEED, "interval", CONFIG_VALUE_DURATION, "0", FEED(interval_ns), .least = 0, .most = 366 * DAY,
     .doc = "Length of a bar. 0: the most frequent step in the data."},
    {CONFIG_SECTION_FEED, "history_bars", CONFIG_VALUE_U32, "512", FEED(history_bars), .least = 0, .most = 1 << 20,
     .doc = "A symbol's first bars, stored at once before the replay starts, so that forecasts start with it."},
    {CONFIG_SECTION_FEED, "bars_max", CONFIG_VALUE_U32, "0", FEED(bars_max), .least = 0, .most = UINT32_MAX,
     .doc = "Stop after that many bars of each symbol. 0: all."},
    {CONFIG_SECTION_FEED, "speed", CONFIG_VALUE_NUMBER, "1", FEED(speed), .least = 0, .most = 1e9,
     .doc = "Replay: 1 in real time, N times as fast, 0 as fast as it goes."},
    {CONFIG_SECTION_FEED, "bars_per_second", CONFIG_VALUE_NUMBER, "0", FEED(bars_per_second), .least = 0, .most = 1e9,
     .doc = "Replay at so many time steps a second instead, whatever the interval. 0: as speed says."},

    {CONFIG_SECTION_MODEL, "path", CONFIG_VALUE_PATH, "", MODEL(path), .sample = "naive", .words = model_path_words,
     .doc = "Checkpoint folder as published (config.json and model.safetensors), naive: the built-in random walk, or default: the "
            "small model that comes with Barcast. Required."},
    {CONFIG_SECTION_MODEL, "symbols", CONFIG_VALUE_WORDS, "*", MODEL(symbols),
     .doc = "Symbols that it forecasts. A list may go on in indented lines."},
    {CONFIG_SECTION_MODEL, "fields", CONFIG_VALUE_WORDS, "", MODEL(fields), .words = field_words,
     .doc = "Fields of a bar that it sees and forecasts; the first is the target. Empty: close, or all six for a model that takes "
            "whole "
            "bars (Kronos)."},
    {CONFIG_SECTION_MODEL, "companions", CONFIG_VALUE_TEXT, "", MODEL(companions),
     .doc =
         "Other symbols whose target it sees beside each symbol's own, for models of several variates (Toto, Chronos-2). With the "
         "symbols themselves, they form a group."},
    {CONFIG_SECTION_MODEL, "cycles", CONFIG_VALUE_WORDS, "", MODEL(cycles), .words = cycle_words,
     .doc =
         "Calendar cycles that it sees as variates known of the future, a sine and a cosine each, for models that take such (Toto, "
         "Chronos-2)."},
    {CONFIG_SECTION_MODEL, "timezone", CONFIG_VALUE_TEXT, "", MODEL(timezone),
     .doc =
         "Of the market's days and hours, such as America/New_York; what a model with a calendar (Kronos) sees is that local time. "
         "Empty: UTC."},
    {CONFIG_SECTION_MODEL, "days", CONFIG_VALUE_WORDS, "", MODEL(days), .words = day_words,
     .doc = "On which the market opens: the times of a forecast skip the others. Empty: every day."},
    {CONFIG_SECTION_MODEL, "hours", CONFIG_VALUE_TEXT, "", MODEL(hours),
     .doc = "Of its sessions, such as 09:30-11:30, 13:00-15:00. Empty: all day. No holidays are known."},
    {CONFIG_SECTION_MODEL, "context", CONFIG_VALUE_U32, "512", MODEL(context), .least = 1, .most = 65536,
     .doc = "Bars that it looks back on; rounded up to the model's patch."},
    {CONFIG_SECTION_MODEL, "context_min", CONFIG_VALUE_U32, "64", MODEL(context_min), .least = 1, .most = 65536,
     .doc = "Closed bars that a symbol needs before it is forecast. Where it is not given: at most the context."},
    {CONFIG_SECTION_MODEL, "horizon", CONFIG_VALUE_U32, "24", MODEL(horizon), .least = 1, .most = 16384,
     .doc = "Bars that it looks ahead."},
    {CONFIG_SECTION_MODEL, "samples", CONFIG_VALUE_U32, "64", MODEL(samples), .least = 0, .most = 4096,
     .doc = "Paths drawn for each forecast, which the quantiles come from. 0: the mean; and exact quantiles where the horizon is "
            "within one patch of Toto 1.0. Models that give quantiles by themselves (naive, Chronos, Toto 2.0) draw none."},
    {CONFIG_SECTION_MODEL, "publish_samples", CONFIG_VALUE_BOOL, "off", MODEL(publish_samples),
     .doc = "Publish the paths themselves too."},
    {CONFIG_SECTION_MODEL, "rescale", CONFIG_VALUE_BOOL, "off", MODEL(rescale),
     .doc = "Show it series below 16 as if they were near 100, and bring their forecasts back. For Toto 1.0 and prices well below "
            "1, which drown "
            "in what its scaler adds; the official code does not, the default model always does."},
    {CONFIG_SECTION_MODEL, "temperature", CONFIG_VALUE_NUMBER, "0", MODEL(temperature), .least = 0, .most = 10,
     .doc = "Kronos: of its token draws. 0: 1."},
    {CONFIG_SECTION_MODEL, "top_k", CONFIG_VALUE_U32, "0", MODEL(top_k), .least = 0, .most = 65536,
     .doc = "Kronos: draw among that many tokens; 1 always takes the likeliest. 0: all, see top_p."},
    {CONFIG_SECTION_MODEL, "top_p", CONFIG_VALUE_NUMBER, "0", MODEL(top_p), .least = 0, .most = 1,
     .doc = "Kronos: draw among the likeliest tokens that hold so much probability, where top_k is 0. 0: 0.9."},
    {CONFIG_SECTION_MODEL, "window", CONFIG_VALUE_U32, "0", MODEL(window), .least = 0, .most = 65536,
     .doc = "Kronos: bars that a step looks back on (its max_context). 0: 512."},
    {CONFIG_SECTION_MODEL, "decode_block", CONFIG_VALUE_U32, "0", MODEL(decode_block), .least = 0, .most = 16384,
     .doc = "Toto 2: bars of a decode step, a multiple of its patch. 0: the whole horizon at once."},
    {CONFIG_SECTION_MODEL, "minimum_observed", CONFIG_VALUE_U32, "0", MODEL(minimum_observed), .least = 0, .most = 65536,
     .doc = "Toto 2: observed bars that the scale of a patch needs, else it is that of the first so many. 0: none."},
    {CONFIG_SECTION_MODEL, "cap", CONFIG_VALUE_NUMBER, "0", MODEL(cap), .least = 0, .most = 1e9,
     .doc = "Toto 2: quantiles stay within the range of the context widened by so many scales. 0: no cap."},
    {CONFIG_SECTION_MODEL, "seed", CONFIG_VALUE_U64, "0", MODEL(seed), .least = 0,
     .most = 9007199254740992.0, /* exact in JSON and JavaScript too */
     .doc = "The same seed, bars and model give the same forecast."},
    {CONFIG_SECTION_MODEL, "quantiles", CONFIG_VALUE_LEVELS, "0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9", MODEL(quantiles),
     COUNTED_BY(config_model_t, quantile_count), .least = 0, .most = 1, .doc = "Levels to publish."},
    {CONFIG_SECTION_MODEL, "buckets", CONFIG_VALUE_SIZES, "1, 8, 64", MODEL(buckets), COUNTED_BY(config_model_t, bucket_count),
     .least = 1, .most = 4096, .doc = "Batch sizes that a worker prepares at its start; a batch is padded up to the next one."},
    {CONFIG_SECTION_MODEL, "precision", CONFIG_VALUE_WORD, "auto", MODEL(precision), .words = precision_words,
     .doc = "Of weights and matrix products. auto: bf16 on a GPU, fp32 on a CPU."},
};

const size_t config_key_count = sizeof config_keys / sizeof config_keys[0];

static_assert(sizeof config_keys / sizeof config_keys[0] <= CONFIG_KEYS_MOST, "config_lines_t has room for every key");

uint32_t config_slot(config_section_id_t section, uint32_t index)
{
    return section < CONFIG_SECTION_FEED    ? (uint32_t)section
           : section == CONFIG_SECTION_FEED ? CONFIG_SECTION_FEED + index
                                            : CONFIG_SECTION_FEED + CONFIG_FEEDS_MOST + index;
}

void *config_section_base(config_t *config, config_section_id_t section, uint32_t index)
{
    return (char *)config + config_sections[section].offset + index * config_sections[section].stride;
}
