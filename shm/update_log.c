/* How a reader never gets a torn entry. An entry has no stamp of its own: the head alone says which entries are safe.
 *
 *     writer, entry h                                  reader, entry c
 *     W1  fence                       (release)        R1  head > c, head - c < N            (acquire)
 *     W2  entry[h % N] = words        (relaxed)        R2  words = entry[c % N]              (relaxed)
 *     W3  head = h + 1                (release)        R3  fence                             (acquire)
 *                                                      R4  head - c < N still?               (relaxed)
 *
 * R1 reads W3 of entry c or a later one, so R2 sees entry c or something newer in its place. If it sees a word of entry h = c + N,
 * then R3 synchronises with the W1 of that entry; the head of h, stored before it, is what R4 sees at least: h - c < N is false.
 * Entry head - N, which the writer may be overwriting, is therefore never handed out. A half-written entry is above the head and
 * does not exist. Cursors are 64 bits: nothing wraps.
 *
 * The writer stores a bar first and its entries after, so one that is killed in between leaves a bar that no entry tells of. The
 * next writer moves the head on by N: every reader is outrun, and looks at every ring once, which is what an outrun reader does
 * anyway.
 *
 * The futex word is the low half of the head itself. A waiter hands the kernel the head that it has seen; the kernel puts it to
 * sleep only if that is still the head, so nothing appended meanwhile can be missed, and appending needs no second word. */
#include "shm/update_log.h"

#include "base/clock.h"
#include "shm/layout.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Reading the clock costs as much as all the rest of an append, so the bars of one burst share it by sixteens. */
static int64_t stored_now(shm_segment_t *segment)
{
    if (segment->stored_for == 0) {
        segment->stored_ns = clock_monotonic_ns();
        segment->stored_for = SHM_UPDATE_SHARED;
    }
    segment->stored_for--;
    return segment->stored_ns;
}

void shm_log_append(shm_segment_t *segment, uint32_t id, uint32_t flags, uint64_t index)
{
    const uint64_t words[SHM_UPDATE_WORDS] = {id | (uint64_t)flags << 32, index, (uint64_t)stored_now(segment)};
    _Atomic uint64_t *head = &segment->header->log_head;
    uint64_t at = atomic_load_explicit(head, memory_order_relaxed); /* our own store */
    shm_log_entry_t *entry = &segment->log[at & segment->log_mask];
    atomic_thread_fence(memory_order_release); /* W1: pairs with R3 in shm_log_read */
    for (size_t i = 0; i < SHM_UPDATE_WORDS; i++)
        atomic_store_explicit(&entry->word[i], words[i], memory_order_relaxed); /* W2: between W1 and W3 */
    atomic_store_explicit(head, at + 1, memory_order_release);                  /* W3: pairs with R1 in shm_log_read */
}

void shm_log_restart(shm_segment_t *segment)
{
    _Atomic uint64_t *head = &segment->header->log_head;
    uint64_t at = atomic_load_explicit(head, memory_order_relaxed);                /* the dead writer's last store */
    atomic_store_explicit(head, at + segment->log_mask + 1, memory_order_release); /* W3: pairs with R1 in shm_log_read */
    shm_log_wake(segment);
}

uint64_t shm_log_newest(const shm_segment_t *segment)
{
    return atomic_load_explicit(&segment->header->log_head, memory_order_acquire); /* R1: pairs with W3 in shm_log_append */
}

int shm_log_read(const shm_segment_t *segment, uint64_t *cursor, shm_update_t *out, size_t most, size_t *count)
{
    uint64_t from = *cursor, head = shm_log_newest(segment);
    size_t there = head - from < most ? (size_t)(head - from) : most;
    if (head - from <= segment->log_mask) { /* also false for a cursor beyond the head, of another segment */
        for (size_t i = 0; i < there; i++) {
            uint64_t words[SHM_UPDATE_WORDS];
            const shm_log_entry_t *entry = &segment->log[(from + i) & segment->log_mask];
            for (size_t k = 0; k < SHM_UPDATE_WORDS; k++)
                words[k] = atomic_load_explicit(&entry->word[k], memory_order_relaxed); /* R2: between R1 and R3 */
            memcpy(&out[i], words, sizeof words);
        }
        atomic_thread_fence(memory_order_acquire); /* R3: pairs with W1 */
        if (atomic_load_explicit(&segment->header->log_head, memory_order_relaxed) - from <= segment->log_mask) { /* R4: with W3 */
            *cursor = from + there;
            *count = there;
            return SHM_OK;
        }
    }
    *cursor = shm_log_newest(segment);
    *count = 0;
    return SHM_OVERRUN;
}

static long futex(const shm_segment_t *segment, int operation, uint32_t value, const struct timespec *timeout)
{
    return syscall(SYS_futex, &segment->header->log_head, operation, value, timeout, NULL, 0);
}

int shm_log_wait(const shm_segment_t *segment, uint64_t cursor, int64_t timeout_ns)
{
    int64_t deadline_ns = timeout_ns < 0 ? INT64_MAX : clock_monotonic_ns() + timeout_ns;
    for (;;) {
        uint64_t head = shm_log_newest(segment);
        if (head != cursor)
            return SHM_OK;
        struct timespec left, *limit = NULL;
        if (timeout_ns >= 0) {
            int64_t left_ns = deadline_ns - clock_monotonic_ns();
            if (left_ns <= 0)
                return SHM_EMPTY;
            left = (struct timespec){.tv_sec = left_ns / CLOCK_NS_PER_S, .tv_nsec = left_ns % CLOCK_NS_PER_S};
            limit = &left;
        }
        if (futex(segment, FUTEX_WAIT, (uint32_t)head, limit) < 0 && errno != EAGAIN) /* EAGAIN: the head has moved */
            return SHM_EMPTY;
    }
}

void shm_log_wake(shm_segment_t *segment)
{
    segment->stored_for = 0;
    futex(segment, FUTEX_WAKE, INT_MAX, NULL);
}
