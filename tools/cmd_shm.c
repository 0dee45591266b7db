/* barcast shm: what lies in shared memory on this machine. It reads the segment and the pages of counters; it asks no process
 * anything. */
#include "tools/command.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "shm/counters.h"
#include "shm/ring.h"
#include "tools/options.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OBJECT_DIRECTORY "/dev/shm"

static int complain(const char *name)
{
    fprintf(stderr, "barcast shm: %s: %s\n", name, error_text());
    return 1;
}

/* ---- objects by name -------------------------------------------------------------------------------------------------------- */

/* Calls `each` with the name of every object of ours, without the prefix, in order. Ends early with what `each` returns below 0. */
static int for_each_object(int (*each)(const char *object, void *context), void *context)
{
    struct dirent **entries;
    int count = scandir(OBJECT_DIRECTORY, &entries, NULL, alphasort);
    if (count < 0)
        return error_set(-1, "%s: %s", OBJECT_DIRECTORY, strerror(errno));
    int rc = 0;
    const size_t prefix = strlen(SHM_OBJECT_PREFIX);
    for (int i = 0; i < count; i++) {
        if (rc >= 0 && strncmp(entries[i]->d_name, SHM_OBJECT_PREFIX, prefix) == 0)
            rc = each(entries[i]->d_name + prefix, context);
        free(entries[i]);
    }
    free(entries);
    return rc;
}

/* The roles that own pages: see shm/counters.h. */
static bool is_role(const char *text)
{
    int64_t number;
    return strcmp(text, "scheduler") == 0 || (strncmp(text, "worker.", 7) == 0 && text_to_i64(text + 7, &number));
}

/* The page of counters that the object "INSTANCE.ROLE" is, or NULL. `instance` NULL: of any instance. */
static shm_counters_t *join_page(const char *object, const char *instance, const char **role)
{
    for (const char *dot = strchr(object, '.'); dot; dot = strchr(dot + 1, '.')) {
        char name[SHM_NAME_BYTES];
        snprintf(name, sizeof name, "%.*s", (int)(dot - object), object);
        shm_counters_t *page;
        if (is_role(dot + 1) && (!instance || strcmp(name, instance) == 0) && shm_counters_join(name, dot + 1, &page) == SHM_OK) {
            *role = dot + 1;
            return page;
        }
    }
    return NULL;
}

static const char *owner_state(uint32_t pid, bool alive)
{
    return alive ? "alive" : pid ? "dead" : "left";
}

/* Joins `name` for reading, whether its writer lives or not. */
static int join(const char *name, shm_segment_t **segment)
{
    int rc = shm_segment_join(name, segment);
    return rc == SHM_ERR_STALE_WRITER ? SHM_OK : rc;
}

/* ---- list ------------------------------------------------------------------------------------------------------------------- */

static int list_object(const char *object, void *context)
{
    int *count = context;
    if ((*count)++ == 0)
        printf("%-32s %-9s %-16s %8s %10s %9s\n", "NAME", "KIND", "OWNER", "SYMBOLS", "BARS/RING", "MIB");
    char owner[32];
    const char *role;
    shm_counters_t *page = join_page(object, NULL, &role);
    if (page) {
        uint32_t pid = shm_counters_pid(page);
        snprintf(owner, sizeof owner, "%" PRIu32 " %s", pid, owner_state(pid, shm_counters_alive(page)));
        printf("%-32s %-9s %-16s\n", object, "counters", owner);
        shm_counters_leave(page);
        return 0;
    }
    shm_segment_t *segment;
    int rc = join(object, &segment);
    if (rc < 0) {
        printf("%-32s %-9s %s\n", object, "segment", shm_result_name(rc));
        return 0;
    }
    shm_segment_info_t info;
    shm_segment_info(segment, &info);
    snprintf(owner, sizeof owner, "%" PRIu32 " %s", info.writer_pid, owner_state(info.writer_pid, info.writer_alive));
    printf("%-32s %-9s %-16s %8" PRIu32 " %10" PRIu32 " %9.1f\n", object, "segment", owner, shm_symbol_count(segment),
           info.ring_bars, (double)info.bytes / 1048576);
    shm_segment_leave(segment);
    return 0;
}

static int list(int argc, char **argv)
{
    const options_t spec = {.usage = "barcast shm list",
                            .about =
                                "Lists the segments and pages of counters of all instances on this machine. What has no living\n"
                                "owner can be removed: barcast shm rm NAME."};
    int rc = options_parse(&spec, argc, argv, NULL);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    int count = 0;
    if (for_each_object(list_object, &count) < 0)
        return complain("list");
    if (count == 0)
        puts("nothing of Barcast's in shared memory");
    return 0;
}

/* ---- info ------------------------------------------------------------------------------------------------------------------- */

/* "2024-05-01T13:30:00Z", with the fraction of a second where there is one. */
static const char *time_text(int64_t ns, char out[static 40])
{
    int64_t fraction = ns % CLOCK_NS_PER_S;
    if (fraction < 0)
        fraction += CLOCK_NS_PER_S;
    time_t seconds = (time_t)((ns - fraction) / CLOCK_NS_PER_S);
    struct tm utc;
    size_t used = gmtime_r(&seconds, &utc) ? strftime(out, 28, "%Y-%m-%dT%H:%M:%S", &utc) : 0;
    snprintf(out + used, 40 - used, fraction ? ".%09" PRId64 "Z" : "Z", fraction);
    return out;
}

static void print_counters(const shm_counters_t *page)
{
    for (int id = 0; id < SHM_COUNTER_COUNT; id++) {
        uint64_t value = shm_counter_get(page, (shm_counter_t)id);
        if (value)
            printf("  %-22s %" PRIu64 "\n", shm_counter_label((shm_counter_t)id), value);
    }
    uint64_t buckets[SHM_LATENCY_BUCKETS];
    shm_latency_snapshot(page, buckets);
    if (shm_latency_quantile(buckets, 0.5))
        printf("  latency p50 %.0f us, p99 %.0f us\n", (double)shm_latency_quantile(buckets, 0.5) / 1e3,
               (double)shm_latency_quantile(buckets, 0.99) / 1e3);
}

static int print_page(const char *object, void *context)
{
    const char *role;
    shm_counters_t *page = join_page(object, context, &role);
    if (page) {
        uint32_t pid = shm_counters_pid(page);
        printf("\n%s: pid %" PRIu32 ", %s\n", role, pid, owner_state(pid, shm_counters_alive(page)));
        print_counters(page);
        shm_counters_leave(page);
    }
    return 0;
}

static void print_segment(const char *name, shm_segment_t *segment)
{
    char text[40];
    shm_segment_info_t info;
    shm_segment_info(segment, &info);
    printf("%s: layout version %d, made %s\n", name, SHM_LAYOUT_VERSION, time_text((int64_t)info.epoch, text));
    printf("  writer pid %" PRIu32 ", %s, generation %" PRIu32 "\n", info.writer_pid,
           owner_state(info.writer_pid, info.writer_alive), info.writer_generation);
    printf("  %" PRIu32 " of %" PRIu32 " symbols, %" PRIu32 " bars a ring, %" PRIu32 " log entries, %.1f MiB at most\n",
           shm_symbol_count(segment), info.symbols_max, info.ring_bars, info.log_entries, (double)info.bytes / 1048576);

    printf("\n%6s %-31s %12s %12s %12s  %s\n", "ID", "SYMBOL", "INTERVAL_S", "BARS", "CLOSED", "NEWEST");
    for (uint32_t id = 0; id < shm_symbol_count(segment); id++) {
        uint64_t head = shm_ring_head(segment, id);
        shm_bar_t newest;
        bool some = head > 0 && shm_ring_read(segment, id, head - 1, &newest) == SHM_OK;
        printf("%6" PRIu32 " %-31s %12g %12" PRIu64 " %12" PRIu64 "  %s\n", id, shm_symbol_name(segment, id),
               (double)shm_symbol_interval_ns(segment, id) / 1e9, head, shm_ring_closed(segment, id),
               some ? time_text(newest.open_time_ns, text) : "-");
    }
    printf("\ningest\n");
    print_counters(shm_counters_of_segment(segment));
}

static int info(int argc, char **argv)
{
    const options_t spec = {
        .usage = "barcast shm info NAME",
        .about = "The segment of instance NAME: its header and writer, every symbol with its bars, and all counters of all\n"
                 "its processes that are not zero."};
    int first, rc = options_parse(&spec, argc, argv, &first);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    if (argc - first != 1) {
        fprintf(stderr, "usage: %s\n", spec.usage);
        return 2;
    }
    shm_segment_t *segment;
    if (join(argv[first], &segment) < 0)
        return complain(argv[first]);
    print_segment(argv[first], segment);
    shm_segment_leave(segment);
    return for_each_object(print_page, argv[first]) < 0 ? complain(argv[first]) : 0;
}

/* ---- bars ------------------------------------------------------------------------------------------------------------------- */

static void print_bar(uint64_t index, const shm_bar_t *bar)
{
    static const struct {
        uint32_t flag;
        const char *word;
    } words[] = {{SHM_BAR_IN_PROGRESS, " in-progress"}, {SHM_BAR_AMENDED, " amended"},     {SHM_BAR_GAP, " gap"},
                 {SHM_BAR_FILLED, " filled"},           {SHM_BAR_NO_VOLUME, " no-volume"}, {SHM_BAR_NO_AMOUNT, " no-amount"}};
    char text[40];
    printf("%10" PRIu64 "  %-20s %12.10g %12.10g %12.10g %12.10g %14.10g %16.10g ", index, time_text(bar->open_time_ns, text),
           bar->open, bar->high, bar->low, bar->close, bar->volume, bar->amount);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (bar->flags & words[i].flag)
            fputs(words[i].word, stdout);
    putchar('\n');
}

/* The newest bars, `most` at the most, taken again when the writer laps us. */
static int print_bars(const shm_segment_t *segment, uint32_t id, uint32_t most)
{
    for (;;) {
        uint64_t head = shm_ring_head(segment, id), there = head - shm_ring_oldest(segment, id);
        uint32_t count = there < most ? (uint32_t)there : most;
        shm_bar_t *bars = malloc((count + 1) * sizeof *bars);
        if (!bars)
            return error_set(-1, "out of memory");
        int rc = shm_ring_window(segment, id, head, count, bars);
        if (rc == SHM_OK) {
            printf("%10s  %-20s %12s %12s %12s %12s %14s %16s  FLAGS\n", "INDEX", "OPEN TIME", "OPEN", "HIGH", "LOW", "CLOSE",
                   "VOLUME", "AMOUNT");
            for (uint32_t i = 0; i < count; i++)
                print_bar(head - count + i, &bars[i]);
        }
        free(bars);
        if (rc <= SHM_OK)
            return rc;
    }
}

static int bars(int argc, char **argv)
{
    uint32_t last = 10;
    const option_t options[] = {{"last", OPTION_U32, &last, "N", "how many bars, counted from the newest"}};
    const options_t spec = {.usage = "barcast shm bars NAME SYMBOL [--last N]",
                            .about = "The newest bars of one symbol of instance NAME, as its readers see them at this moment.",
                            .options = options,
                            .count = 1};
    int first, rc = options_parse(&spec, argc, argv, &first);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    if (argc - first != 2) {
        fprintf(stderr, "usage: %s\n", spec.usage);
        return 2;
    }
    const char *name = argv[first], *symbol = argv[first + 1];
    shm_segment_t *segment;
    if (join(name, &segment) < 0)
        return complain(name);
    uint32_t id;
    if (shm_symbol_find(segment, symbol, &id) != SHM_OK)
        rc = error_set(-1, "no symbol \"%s\"; barcast shm info %s lists them", symbol, name);
    else
        rc = print_bars(segment, id, last);
    shm_segment_leave(segment);
    return rc < 0 ? complain(name) : 0;
}

/* ---- rm --------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *instance;
    bool force, remove; /* !remove: only look whether something lives */
    uint32_t count;
} removal_t;

static int refuse(const char *who, uint32_t pid)
{
    return error_set(-1, "its %s, process %" PRIu32 ", is alive; --force removes what is here all the same", who, pid);
}

static int remove_page(removal_t *removal, shm_counters_t *page, const char *role)
{
    uint32_t pid = shm_counters_pid(page);
    bool alive = shm_counters_alive(page);
    shm_counters_leave(page);
    if (alive && !removal->force)
        return refuse(role, pid);
    removal->count++;
    return removal->remove ? shm_counters_delete(removal->instance, role) : 0;
}

/* Also what is no whole segment: nobody's writer is alive in it. */
static int remove_segment(removal_t *removal)
{
    shm_segment_t *segment = NULL;
    shm_segment_info_t info = {.writer_alive = false};
    shm_segment_join(removal->instance, &segment);
    if (segment)
        shm_segment_info(segment, &info);
    shm_segment_leave(segment);
    if (info.writer_alive && !removal->force)
        return refuse("writer", info.writer_pid);
    removal->count++;
    return removal->remove ? shm_segment_delete(removal->instance) : 0;
}

static int remove_object(const char *object, void *context)
{
    removal_t *removal = context;
    const char *role;
    shm_counters_t *page = join_page(object, removal->instance, &role);
    if (page)
        return remove_page(removal, page, role);
    return strcmp(object, removal->instance) == 0 ? remove_segment(removal) : 0;
}

static int rm(int argc, char **argv)
{
    bool force = false;
    const option_t options[] = {{"force", OPTION_FLAG, &force, NULL, "even while its processes live: they go on unseen"}};
    const options_t spec = {
        .usage = "barcast shm rm NAME [--force]",
        .about = "Removes the segment and the pages of counters of instance NAME, which a killed instance has left behind.\n"
                 "Refuses while its writer or one of its processes lives.",
        .options = options,
        .count = 1};
    int first, rc = options_parse(&spec, argc, argv, &first);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    if (argc - first != 1) {
        fprintf(stderr, "usage: %s\n", spec.usage);
        return 2;
    }
    removal_t look = {.instance = argv[first], .force = force}, removal = look;
    removal.remove = true;
    if (for_each_object(remove_object, &look) < 0 || for_each_object(remove_object, &removal) < 0)
        return complain(argv[first]);
    printf("%s: %" PRIu32 " %s removed\n", argv[first], removal.count, removal.count == 1 ? "object" : "objects");
    return 0;
}

/* ----------------------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
    {"list", list, "all instances on this machine"},
    {"info", info, "one instance: header, writer, symbols, counters"},
    {"bars", bars, "the newest bars of a symbol"},
    {"rm", rm, "remove what a killed instance has left"},
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

int cmd_shm(int argc, char **argv)
{
    const char *names[COMMAND_COUNT];
    for (int i = 0; i < COMMAND_COUNT; i++) {
        names[i] = commands[i].name;
        if (argc > 1 && strcmp(argv[1], names[i]) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    bool help = argc > 1 && strcmp(argv[1], "--help") == 0;
    FILE *to = help ? stdout : stderr;
    if (argc > 1 && !help) {
        const char *nearest = text_nearest(argv[1], names, COMMAND_COUNT);
        fprintf(to, "barcast shm: no command \"%s\"%s%s%s\n", argv[1], nearest ? "; did you mean " : "", nearest ? nearest : "",
                nearest ? "?" : "");
    }
    fprintf(to, "usage: barcast shm COMMAND [...]\n\nLooks into shared memory; asks no process anything.\n\n");
    for (int i = 0; i < COMMAND_COUNT; i++)
        fprintf(to, "  %-6s %s\n", commands[i].name, commands[i].about);
    return help ? 0 : 2;
}
