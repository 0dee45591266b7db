/* barcast bench ring: what the ring of bars does between two processes, beside Concurrency Kit's single-producer single-consumer
 * ring, and what readers cost its writer.
 *
 * Throughput. In each round either ring carries the same bars from this process to a forked one, which checks every field of every
 * bar; the two take turns, and the order changes from round to round. Nothing may be lost, so the writer must not lap the reader:
 * CK's ring looks at the consumer's index for that before every bar; ours never waits for anyone, so the bench does it from
 * outside, with a progress word that the reader stores and the writer looks at again only when its last look no longer allows a
 * bar. Our writer does what it does in production (shm_ring_append: slot, head, time stamp, log entry); our reader takes what is
 * there with shm_ring_read_many, CK's one bar a call: each as its interface offers. Both wait alike when there is nothing.
 *
 * Readers. The writer stores a burst of bars, one a symbol, wakes who waits, and sleeps; readers wait on the log's futex and copy
 * every updated bar. What counts is the writer's own CPU time (CLOCK_THREAD_CPUTIME_ID), for storing and for waking apart, with and
 * without readers in turn: on a small machine wall time would show only that they compete for its cores. */
#include "tools/bench.h"

#include "base/clock.h"
#include "base/error.h"
#include "shm/ring.h"
#include "shm/update_log.h"
#include "tools/options.h"

#include <inttypes.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __has_include
#if __has_include(<ck_ring.h>)
#define BARCAST_HAVE_CK
#include <ck_ring.h>
#endif
#endif

enum { RING_BARS = 4096, LOG_ENTRIES = 65536, READ_MOST = 64, SYMBOLS = 64, BURSTS = 50, ROUNDS_MOST = 1000, READERS_MOST = 64 };

#define BURST_EVERY_NS CLOCK_NS_PER_MS

/* In memory that both processes share. */
typedef struct {
    alignas(128) _Atomic uint64_t progress; /* bars that the reader has taken */
    alignas(128) _Atomic uint32_t ready;    /* readers that have started */
    _Atomic uint32_t stop;                  /* the round is over, or a reader has given up */
    int64_t end_ns;                         /* when the reader had checked its last bar */
#ifdef BARCAST_HAVE_CK
    alignas(128) ck_ring_t ck;
    alignas(128) shm_bar_t ck_bars[RING_BARS];
#endif
} bench_t;

typedef struct {
    uint32_t rounds, readers;
    uint64_t bars; /* a round */
    bench_t *shared;
    shm_segment_t *segment;
    int writer_cpu;
    cpu_set_t cpus; /* those we may use */
    uint64_t next;  /* number of the next bar through our ring */

    int64_t ours_ps[ROUNDS_MOST], ck_ps[ROUNDS_MOST];           /* a bar */
    int64_t append_ps[2][ROUNDS_MOST], wake_ps[2][ROUNDS_MOST]; /* a bar, a burst; without and with readers */
} bench_ring_t;

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* What a reader of either ring does when it finds nothing. One that looks again at once takes the writer's cache line away for each
 * bar, which slows both rings down, and makes their figures a matter of chance. */
static void idle(void)
{
    for (int i = 0; i < 20; i++)
        relax();
}

/* Bar `number`: each field follows from it. */
static shm_bar_t make_bar(uint64_t number)
{
    double value = (double)number;
    return (shm_bar_t){.open_time_ns = (int64_t)number + 1,
                       .open = value,
                       .high = value + 1,
                       .low = value + 2,
                       .close = value + 3,
                       .volume = value + 4,
                       .amount = value + 5};
}

static bool is_bar(const shm_bar_t *bar, uint64_t number)
{
    double value = (double)number;
    return bar->open_time_ns == (int64_t)number + 1 && bar->open == value && bar->high == value + 1 && bar->low == value + 2 &&
           bar->close == value + 3 && bar->volume == value + 4 && bar->amount == value + 5;
}

/* ---- processes --------------------------------------------------------------------------------------------------------------- */

static void use_cpu(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set); /* a wish: figures are noisier without */
}

static void use_other_cpus(const bench_ring_t *bench)
{
    cpu_set_t set = bench->cpus;
    CPU_CLR(bench->writer_cpu, &set);
    sched_setaffinity(0, sizeof set, &set); /* the same; refused where there is only one */
}

static bool given_up(const bench_ring_t *bench)
{
    return atomic_load_explicit(&bench->shared->stop, memory_order_relaxed); /* stands alone */
}

/* Waits for a reader's process: true when it found everything right. */
static bool ended_well(pid_t child)
{
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- throughput -------------------------------------------------------------------------------------------------------------- */

typedef bool consume_t(const bench_ring_t *bench, uint64_t first);
typedef bool produce_t(const bench_ring_t *bench, uint64_t first);

static bool ours_consume(const bench_ring_t *bench, uint64_t first)
{
    shm_bar_t bars[READ_MOST];
    for (uint64_t next = first; next < first + bench->bars;) {
        uint32_t count;
        int rc = shm_ring_read_many(bench->segment, 0, next, READ_MOST, bars, &count);
        if (rc == SHM_EMPTY) {
            idle();
            continue;
        }
        if (rc != SHM_OK)
            return false;
        for (uint32_t i = 0; i < count; i++)
            if (!is_bar(&bars[i], next + i))
                return false;
        next += count;
        atomic_store_explicit(&bench->shared->progress, next, memory_order_release); /* pairs with the load in ours_produce */
    }
    return true;
}

static bool ours_produce(const bench_ring_t *bench, uint64_t first)
{
    uint64_t taken = first;
    for (uint64_t number = first; number < first + bench->bars; number++) {
        while (number - taken >= RING_BARS - 1) {
            if (given_up(bench))
                return false;
            taken = atomic_load_explicit(&bench->shared->progress, memory_order_acquire); /* pairs with the store in ours_consume */
            relax();
        }
        shm_bar_t bar = make_bar(number);
        if (shm_ring_append(bench->segment, 0, &bar) != SHM_OK)
            return false;
    }
    return true;
}

#ifdef BARCAST_HAVE_CK
typedef struct ck_bar {
    shm_bar_t bar;
} ck_bar_t;

CK_RING_PROTOTYPE(bar, ck_bar)

static bool ck_consume(const bench_ring_t *bench, uint64_t first)
{
    ck_bar_t *buffer = (ck_bar_t *)(void *)bench->shared->ck_bars, taken;
    for (uint64_t next = first; next < first + bench->bars;) {
        if (!ck_ring_dequeue_spsc_bar(&bench->shared->ck, buffer, &taken)) {
            idle();
            continue;
        }
        if (!is_bar(&taken.bar, next++))
            return false;
    }
    return true;
}

static bool ck_produce(const bench_ring_t *bench, uint64_t first)
{
    ck_bar_t *buffer = (ck_bar_t *)(void *)bench->shared->ck_bars;
    for (uint64_t number = first; number < first + bench->bars; number++) {
        ck_bar_t bar = {.bar = make_bar(number)};
        while (!ck_ring_enqueue_spsc_bar(&bench->shared->ck, buffer, &bar)) {
            if (given_up(bench))
                return false;
            relax();
        }
    }
    return true;
}
#endif

/* One round through one ring: ps a bar from the first one stored until the last one was checked, or below 0. */
static int64_t carry(const bench_ring_t *bench, uint64_t first, produce_t *produce, consume_t *consume)
{
    bench_t *shared = bench->shared;
    atomic_store_explicit(&shared->progress, first, memory_order_relaxed); /* before the fork */
    atomic_store_explicit(&shared->ready, 0, memory_order_relaxed);        /* before the fork */
    pid_t child = fork();
    if (child < 0)
        return error_set(-1, "cannot fork");
    if (child == 0) {
        use_other_cpus(bench);
        atomic_store_explicit(&shared->ready, 1, memory_order_release); /* pairs with the load below */
        bool good = consume(bench, first);
        shared->end_ns = clock_monotonic_ns();
        atomic_store_explicit(&shared->stop, !good, memory_order_relaxed); /* stands alone */
        _exit(good ? 0 : 1);
    }
    while (!atomic_load_explicit(&shared->ready, memory_order_acquire)) /* pairs with the store above */
        relax();
    int64_t start_ns = clock_monotonic_ns();
    bool stored = produce(bench, first), checked = ended_well(child);
    if (!stored || !checked)
        return error_set(-1, "a bar was lost or changed on its way");
    return (shared->end_ns - start_ns) * 1000 / (int64_t)bench->bars;
}

static int carry_ours(bench_ring_t *bench, uint32_t round)
{
    bench->ours_ps[round] = carry(bench, bench->next, ours_produce, ours_consume);
    bench->next += bench->bars;
    return bench->ours_ps[round] < 0 ? -1 : 0;
}

static int carry_ck(bench_ring_t *bench, uint32_t round)
{
#ifdef BARCAST_HAVE_CK
    ck_ring_init(&bench->shared->ck, RING_BARS);
    bench->ck_ps[round] = carry(bench, 0, ck_produce, ck_consume);
#endif
    return bench->ck_ps[round] < 0 ? -1 : 0;
}

/* ---- readers ----------------------------------------------------------------------------------------------------------------- */

/* Follows the log until told to stop: true when every bar of the round came, whole. */
static bool follow(const bench_ring_t *bench)
{
    shm_update_t updates[SYMBOLS];
    uint64_t cursor = shm_log_newest(bench->segment), seen = 0;
    atomic_fetch_add_explicit(&bench->shared->ready, 1, memory_order_release); /* pairs with the load in store_bursts */
    while (seen < (uint64_t)SYMBOLS * BURSTS) {
        size_t count = 0;
        if (shm_log_wait(bench->segment, cursor, 100 * CLOCK_NS_PER_MS) == SHM_EMPTY && given_up(bench))
            return false;
        if (shm_log_read(bench->segment, &cursor, updates, SYMBOLS, &count) != SHM_OK)
            return false;
        for (size_t i = 0; i < count; i++) {
            shm_bar_t bar;
            if (shm_ring_read(bench->segment, updates[i].symbol_id, updates[i].index, &bar) != SHM_OK ||
                !is_bar(&bar, (uint64_t)bar.open_time_ns - 1))
                return false;
        }
        seen += count;
    }
    return true;
}

static int64_t cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return used.tv_sec * CLOCK_NS_PER_S + used.tv_nsec;
}

/* One round of bursts; the writer's CPU time goes to slot `with` of the figures. */
static int store_bursts(bench_ring_t *bench, uint32_t round, bool with, uint32_t readers)
{
    while (atomic_load_explicit(&bench->shared->ready, memory_order_acquire) < readers) /* pairs with the add in follow */
        relax();
    int64_t append_ns = 0, wake_ns = 0, due_ns = clock_monotonic_ns();
    for (uint32_t burst = 0; burst < BURSTS; burst++) {
        due_ns += BURST_EVERY_NS;
        clock_sleep_until_ns(due_ns);
        shm_bar_t bar = make_bar(bench->next++);
        int64_t start = cpu_ns();
        for (uint32_t id = 0; id < SYMBOLS; id++)
            if (shm_ring_append(bench->segment, id, &bar) != SHM_OK)
                return -1;
        int64_t stored = cpu_ns();
        shm_log_wake(bench->segment);
        append_ns += stored - start;
        wake_ns += cpu_ns() - stored;
    }
    bench->append_ps[with][round] = append_ns * 1000 / (SYMBOLS * BURSTS);
    bench->wake_ps[with][round] = wake_ns * 1000 / BURSTS;
    return 0;
}

static int serve(bench_ring_t *bench, uint32_t round, bool with)
{
    pid_t children[READERS_MOST];
    uint32_t readers = with ? bench->readers : 0, started = 0;
    bool good = true;
    atomic_store_explicit(&bench->shared->ready, 0, memory_order_relaxed); /* before the forks */
    for (; good && started < readers; started++) {
        children[started] = fork();
        if (children[started] == 0) {
            use_other_cpus(bench);
            _exit(follow(bench) ? 0 : 1);
        }
        good = children[started] > 0;
    }
    good = good && store_bursts(bench, round, with, readers) == 0;
    atomic_store_explicit(&bench->shared->stop, 1, memory_order_relaxed); /* stands alone: who misses a bar need not wait for it */
    for (uint32_t i = 0; i < started; i++)
        good = ended_well(children[i]) && good;
    atomic_store_explicit(&bench->shared->stop, 0, memory_order_relaxed); /* nobody is left */
    return good ? 0 : error_set(-1, "a reader missed a bar or got a wrong one");
}

/* ---- rounds and figures ------------------------------------------------------------------------------------------------------ */

static int run_rounds(bench_ring_t *bench)
{
    for (uint32_t round = 0; round < bench->rounds; round++) {
        int (*const steps[])(bench_ring_t *, uint32_t) = {carry_ours, carry_ck};
        for (uint32_t i = 0; i < 2; i++)
            if (steps[(i + round) % 2](bench, round) < 0)
                return -1;
    }
    for (uint32_t round = 0; round < bench->rounds; round++)
        for (uint32_t i = 0; i < 2; i++)
            if (serve(bench, round, (i + round) % 2) < 0)
                return -1;
    return 0;
}

static double median_ns(int64_t *values_ps, const bench_ring_t *bench)
{
    return bench_figures(values_ps, bench->rounds).p50 / 1000;
}

/* What readers cost, in percent: the median over the rounds, each with its neighbour, so that slow drifts of the machine fall out.
 * Call it before the medians, which sort. */
static double reader_cost(const bench_ring_t *bench)
{
    int64_t ppm[ROUNDS_MOST];
    for (uint32_t round = 0; round < bench->rounds; round++)
        ppm[round] = bench->append_ps[1][round] * 1000000 / bench->append_ps[0][round];
    return bench_figures(ppm, bench->rounds).p50 / 10000 - 100;
}

static void print_figures(bench_ring_t *bench, bool json)
{
    double cost = reader_cost(bench);
    double ours = median_ns(bench->ours_ps, bench), ck = median_ns(bench->ck_ps, bench);
    double append[2] = {median_ns(bench->append_ps[0], bench), median_ns(bench->append_ps[1], bench)};
    double wake[2] = {median_ns(bench->wake_ps[0], bench), median_ns(bench->wake_ps[1], bench)};
    if (json) {
        printf("{\"bench\":\"ring\",\"rounds\":%" PRIu32 ",\"bars\":%" PRIu64 ",\"barcast_ns\":%.2f,", bench->rounds, bench->bars,
               ours);
        if (ck > 0)
            printf("\"ck_ns\":%.2f,\"throughput_ratio\":%.3f,", ck, ck / ours);
        printf("\"readers\":%" PRIu32 ",\"append_ns\":[%.2f,%.2f],\"reader_cost_percent\":%.2f,\"wake_ns\":[%.1f,%.1f],",
               bench->readers, append[0], append[1], cost, wake[0], wake[1]);
        bench_print_machine_json(stdout);
        puts("}");
        return;
    }
    printf("throughput: %" PRIu64 " bars of 64 bytes a round, every field checked, %" PRIu32 " rounds in turn, medians\n",
           bench->bars, bench->rounds);
    printf("  %-34s %7.1f ns/bar  %6.1f million/s\n", "barcast (with log entry)", ours, 1e3 / ours);
    if (ck > 0)
        printf("  %-34s %7.1f ns/bar  %6.1f million/s\n  barcast / Concurrency Kit: %.2f\n", "Concurrency Kit, SPSC by value", ck,
               1e3 / ck, ck / ours);
    else
        puts("  Concurrency Kit: not built in (libck-dev)");
    printf("readers: the writer's CPU time, bursts of %d bars every ms, %" PRIu32 " rounds in turn, medians\n", SYMBOLS,
           bench->rounds);
    printf("  %-34s %7.1f ns/bar  %8.0f ns/wake\n", "no reader", append[0], wake[0]);
    printf("  %2" PRIu32 " %-31s %7.1f ns/bar  %8.0f ns/wake\n", bench->readers, "readers, each reads every bar", append[1],
           wake[1]);
    printf("  storing costs %+.1f %%; the wake-up is one system call a burst, %.1f ns a bar here\n",
           100 * (append[1] / append[0] - 1), wake[1] / SYMBOLS);
    bench_print_machine(stdout);
}

static int set_up(bench_ring_t *bench)
{
    char name[SHM_NAME_BYTES], symbol[SHM_SYMBOL_BYTES];
    snprintf(name, sizeof name, "bench-ring-%d", (int)getpid());
    shm_segment_options_t options = {
        .name = name, .symbols_max = SYMBOLS, .ring_bars = RING_BARS, .log_entries = LOG_ENTRIES, .group_id = -1};
    bool rejoined;
    if (shm_segment_create(&options, &bench->segment, &rejoined) < 0)
        return -1;
    shm_segment_delete(name); /* readers inherit the mapping; nothing is left however this ends */
    for (uint32_t id = 0; id < SYMBOLS; id++) {
        snprintf(symbol, sizeof symbol, "S%" PRIu32, id);
        if (shm_symbol_add(bench->segment, symbol, 1, &id) < 0)
            return -1;
    }
    bench->shared = mmap(NULL, sizeof *bench->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bench->shared == MAP_FAILED)
        return error_set(-1, "out of memory");
    sched_getaffinity(0, sizeof bench->cpus, &bench->cpus);
    while (bench->writer_cpu < CPU_SETSIZE - 1 && !CPU_ISSET(bench->writer_cpu, &bench->cpus))
        bench->writer_cpu++;
    use_cpu(bench->writer_cpu);
    return 0;
}

int bench_ring(int argc, char **argv)
{
    static bench_ring_t bench = {.rounds = 101, .bars = 200000, .readers = 8};
    bool json = false;
    const option_t options[] = {
        {"rounds", OPTION_U32, &bench.rounds, "N", "rounds of each measurement, 1 to 1000"},
        {"bars", OPTION_U64, &bench.bars, "N", "bars a round for the throughput"},
        {"readers", OPTION_U32, &bench.readers, "N", "readers whose cost to the writer is measured, 1 to 64"},
        {"json", OPTION_FLAG, &json, NULL, "one JSON object"},
    };
    const options_t spec = {
        .usage = "barcast bench ring [options]",
        .about =
            "Copies bars between two processes through a ring of shared memory, in turn with Concurrency Kit's SPSC ring (where\n"
            "its headers were found at build time), checks every field of every bar, and prints the medians. Then measures what\n"
            "readers that follow the update log cost the writer in CPU time.",
        .options = options,
        .count = sizeof options / sizeof *options};
    int rc = options_parse(&spec, argc, argv, NULL);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    if (bench.rounds < 1 || bench.rounds > ROUNDS_MOST || bench.bars < 1 || bench.readers < 1 || bench.readers > READERS_MOST) {
        fprintf(stderr, "barcast bench ring: rounds, bars or readers out of range; see --help\n");
        return 2;
    }
    if (set_up(&bench) < 0 || run_rounds(&bench) < 0) {
        fprintf(stderr, "barcast bench ring: %s\n", error_text());
        return 1;
    }
    print_figures(&bench, json);
    shm_segment_leave(bench.segment);
    return 0;
}
