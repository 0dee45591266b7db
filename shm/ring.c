/* How a reader never gets a torn or a wrong bar, on any machine that C11 describes.
 *
 * A slot is eight 64-bit words: seven of payload and the state (layout.h): flags, the lap its bar belongs to, busy, amendments. The
 * payload is copied word by word with relaxed atomics, so no access is a data race; the order comes from the state:
 *
 *     writer                                            reader
 *     W1  state = busy, new lap or old one  (relaxed)   R1  before = state         (acquire)
 *     W2  fence                             (release)   R2  words = payload        (relaxed)
 *     W3  payload = words                   (relaxed)   R3  fence                  (acquire)
 *     W4  state = whole                     (release)   R4  state == before?       (relaxed)
 *
 * R1 reads a W4: that write's payload, or a newer one, is what R2 sees. If R2 sees even one word of a newer write, then R3
 * synchronises with that write's W2, so R4 sees its W1 or something later: the state differs from `before`, and the copy is thrown
 * away. The state does come back to an old value, but only after 2^24 laps or 2^31 amendments of one bar within one copy.
 *
 * Appending bar i: W1 to W4 in slot i % C, then the head: W5 head = i + 1 (release), which R5 (acquire) pairs with; a reader asks
 * for bars below the head only. So it finds lap(i), or a newer lap: it was lapped. Bar i is also what closes bar i - 1: IN_PROGRESS
 * is believed of the newest bar only, so one store of the head does both. A writer that dies before W5 has changed nothing but bar
 * i - C, which the append would have dropped; the next writer writes bar i again.
 *
 * Amending bar i: a reader (and the next writer) must find the old bar while the slot is busy, because the writer may die there. So
 * the old bar first goes to the journal in the header (one for the segment: one writer, one amendment at a time), a sequence lock
 * again, with a 64-bit sequence that is odd while it is written (J1 to J4 pair like W1 to W4, K1 to K4 like R1 to R4); then W1,
 * here a release store (after J4), marks the slot. A reader that finds it busy in its own lap takes the bar from the journal; if
 * the journal is about another bar by now, this amendment is over and the slot is worth another look. Readers thus repeat only
 * while the writer makes progress, and never wait for a dead one. The next writer puts the journal's bar back into a slot left busy
 * (shm_ring_repair), with one more amendment in its state: a reader that was copying all the while must not take it for
 * untouched. */
#include "shm/ring.h"

#include "base/error.h"
#include "shm/layout.h"

#include <inttypes.h>
#include <string.h>

static const uint64_t known_flags =
    SHM_BAR_IN_PROGRESS | SHM_BAR_AMENDED | SHM_BAR_GAP | SHM_BAR_FILLED | SHM_BAR_NO_VOLUME | SHM_BAR_NO_AMOUNT;

static uint64_t lap_of(const shm_segment_t *segment, uint64_t index)
{
    return index >> segment->ring_shift << SHM_STATE_LAP_SHIFT & SHM_STATE_LAP;
}

static shm_slot_t *slot_of(const shm_segment_t *segment, uint32_t id, uint64_t index)
{
    return &shm_ring_of(segment, id)->slots[index & segment->ring_mask];
}

static bool is_symbol(const shm_segment_t *segment, uint32_t id)
{
    /* Only bounds the id: what lies in the ring is ordered by its own head. */
    return id < atomic_load_explicit(&segment->header->symbol_count, memory_order_relaxed);
}

/* The head as its writer sees it: nobody else stores it. */
static uint64_t own_head(const shm_segment_t *segment, uint32_t id)
{
    return atomic_load_explicit(&shm_ring_of(segment, id)->head, memory_order_relaxed);
}

/* The payload goes from and to plain memory one word at a time as well: the processor hands a word that was just stored on to a
 * load of that word at once, but not to a wider load. */
static void words_store(shm_slot_t *slot, const void *payload)
{
    for (size_t i = 0; i < SHM_STATE_WORD; i++) {
        uint64_t word;
        memcpy(&word, (const uint8_t *)payload + 8 * i, sizeof word);
        atomic_store_explicit(&slot->word[i], word, memory_order_relaxed); /* W3, J3: between the fence and the stamp */
    }
}

static void words_load(const shm_slot_t *slot, void *payload)
{
    for (size_t i = 0; i < SHM_STATE_WORD; i++) {
        uint64_t word = atomic_load_explicit(&slot->word[i], memory_order_relaxed); /* R2, K2: between the stamp and the fence */
        memcpy((uint8_t *)payload + 8 * i, &word, sizeof word);
    }
}

/* ---- writer ------------------------------------------------------------------------------------------------------------------ */

static int check_writer(const shm_segment_t *segment, uint32_t id)
{
    if (!segment->writer)
        return error_set(SHM_ERR_INVALID, "only the segment's writer may store bars");
    if (!is_symbol(segment, id))
        return error_set(SHM_ERR_INVALID, "there is no symbol with id %" PRIu32, id);
    return SHM_OK;
}

/* W2 to W4; `slot` is marked busy. */
static void slot_finish(shm_slot_t *slot, const void *payload, uint64_t state)
{
    atomic_thread_fence(memory_order_release); /* W2: pairs with R3 in slot_read */
    words_store(slot, payload);
    atomic_store_explicit(&slot->word[SHM_STATE_WORD], state, memory_order_release); /* W4: pairs with R1 in slot_read */
}

/* Fetches the slot that is two appends away: its line is in the cache of whoever read the bar there last, and to take it away from
 * there only when it is stored to holds up every store behind it. A hint, that never faults. (For x86 of unknown age the compiler's
 * builtin fetches for reading.) */
static void fetch_ahead(const shm_segment_t *segment, uint32_t id, uint64_t head)
{
    const shm_slot_t *slot = slot_of(segment, id, head + 2);
#ifdef __x86_64__
    __asm__ volatile("prefetchw %0" : : "m"(*slot));
#else
    __builtin_prefetch(slot, 1);
#endif
}

int shm_ring_append(shm_segment_t *segment, uint32_t id, const shm_bar_t *bar)
{
    int rc = check_writer(segment, id);
    if (rc < 0)
        return rc;
    uint64_t head = own_head(segment, id);
    bool closes = false;
    if (head > 0) {
        const shm_slot_t *newest = slot_of(segment, id, head - 1);
        int64_t newest_ns = (int64_t)atomic_load_explicit(&newest->word[0], memory_order_relaxed); /* our own store */
        if (bar->open_time_ns <= newest_ns)
            return error_set(SHM_ERR_INVALID, "%s: open time %" PRId64 " is not after the newest bar's %" PRId64,
                             shm_symbol_name(segment, id), bar->open_time_ns, newest_ns);
        closes = atomic_load_explicit(&newest->word[SHM_STATE_WORD], memory_order_relaxed) & SHM_BAR_IN_PROGRESS; /* our own */
    }

    fetch_ahead(segment, id, head);
    uint64_t state = lap_of(segment, head) | (bar->flags & known_flags);
    shm_slot_t *slot = slot_of(segment, id, head);
    atomic_store_explicit(&slot->word[SHM_STATE_WORD], state | SHM_STATE_BUSY, memory_order_relaxed); /* W1: pairs with R4 */
    slot_finish(slot, bar, state);
    atomic_store_explicit(&shm_ring_of(segment, id)->head, head + 1, memory_order_release); /* W5: pairs with R5 in shm_ring_head */

    if (closes)
        shm_log_append(segment, id, SHM_UPDATE_CLOSED, head - 1);
    shm_log_append(segment, id, bar->flags & SHM_BAR_IN_PROGRESS ? SHM_UPDATE_AMENDED : SHM_UPDATE_CLOSED, head);
    return SHM_OK;
}

/* The index of the bar that opened at `open_time_ns`: bisection that looks at the newest first, which it nearly always is. */
static int find_bar(const shm_segment_t *segment, uint32_t id, int64_t open_time_ns, uint64_t *index)
{
    uint64_t head = own_head(segment, id), oldest = shm_ring_oldest(segment, id);
    uint64_t low = oldest, high = head;
    while (low < high) {
        uint64_t middle = high == head ? head - 1 : low + (high - low) / 2;
        int64_t at = (int64_t)atomic_load_explicit(&slot_of(segment, id, middle)->word[0], memory_order_relaxed); /* our own */
        if (at == open_time_ns) {
            *index = middle;
            return SHM_OK;
        }
        if (at < open_time_ns)
            low = middle + 1;
        else
            high = middle;
    }
    bool left = low == oldest && oldest > 0; /* before all bars of a ring that has dropped some: one of those */
    return left ? SHM_OVERRUN : SHM_EMPTY;
}

/* Keeps the bar in `slot` while it is amended. */
static void journal_write(shm_header_t *header, uint32_t id, uint64_t index, const shm_slot_t *slot, uint64_t state)
{
    uint64_t words[SHM_STATE_WORD];
    words_load(slot, words);
    uint64_t sequence = atomic_load_explicit(&header->journal_sequence, memory_order_relaxed) | 1; /* own; odd if we died here */
    atomic_store_explicit(&header->journal_sequence, sequence, memory_order_relaxed); /* J1: pairs with K4 in journal_read */
    atomic_thread_fence(memory_order_release);                                        /* J2: pairs with K3 in journal_read */
    atomic_store_explicit(&header->journal_symbol, id, memory_order_relaxed);         /* J3: as the payload */
    atomic_store_explicit(&header->journal_index, index, memory_order_relaxed);       /* J3 */
    atomic_store_explicit(&header->journal_slot.word[SHM_STATE_WORD], state, memory_order_relaxed); /* J3 */
    words_store(&header->journal_slot, words);
    atomic_store_explicit(&header->journal_sequence, sequence + 1, memory_order_release); /* J4: pairs with K1 in journal_read */
}

int shm_ring_amend(shm_segment_t *segment, uint32_t id, const shm_bar_t *bar)
{
    int rc = check_writer(segment, id);
    if (rc < 0)
        return rc;
    uint64_t index;
    rc = find_bar(segment, id, bar->open_time_ns, &index);
    if (rc != SHM_OK)
        return rc;

    shm_slot_t *slot = slot_of(segment, id, index);
    uint64_t state = atomic_load_explicit(&slot->word[SHM_STATE_WORD], memory_order_relaxed); /* our own store */
    bool was_closed = index + 1 < own_head(segment, id) || !(state & SHM_BAR_IN_PROGRESS);
    bool closed = !(bar->flags & SHM_BAR_IN_PROGRESS);
    if (was_closed && !closed)
        return error_set(SHM_ERR_INVALID, "%s: the bar that opened at %" PRId64 " is closed and stays so",
                         shm_symbol_name(segment, id), bar->open_time_ns);

    uint64_t flags = (bar->flags & known_flags) | (state & SHM_BAR_AMENDED) | (was_closed ? SHM_BAR_AMENDED : 0);
    journal_write(segment->header, id, index, slot, state);
    atomic_store_explicit(&slot->word[SHM_STATE_WORD], state | SHM_STATE_BUSY, memory_order_release); /* W1: pairs with R1, R4 */
    slot_finish(slot, bar, ((state & ~SHM_STATE_FLAGS) + SHM_STATE_AMENDMENT) | flags);

    shm_log_append(segment, id, closed && !was_closed ? SHM_UPDATE_CLOSED : SHM_UPDATE_AMENDED, index);
    return SHM_OK;
}

void shm_ring_repair(shm_segment_t *segment)
{
    /* All loads are of what a dead writer has stored: its end came before, no pairing is needed. */
    shm_header_t *header = segment->header;
    uint64_t sequence = atomic_load_explicit(&header->journal_sequence, memory_order_relaxed);
    uint64_t id = atomic_load_explicit(&header->journal_symbol, memory_order_relaxed);
    uint64_t index = atomic_load_explicit(&header->journal_index, memory_order_relaxed);
    if (sequence & 1 || id >= header->symbols_max)
        return; /* the journal was being written: no slot is touched before it is whole */
    shm_slot_t *slot = slot_of(segment, (uint32_t)id, index);
    uint64_t state = atomic_load_explicit(&slot->word[SHM_STATE_WORD], memory_order_relaxed);
    bool in_ring = own_head(segment, (uint32_t)id) - index - 1 <= segment->ring_mask;
    if (!in_ring || !(state & SHM_STATE_BUSY) || (state & SHM_STATE_LAP) != lap_of(segment, index))
        return; /* no amendment was under way */
    uint64_t words[SHM_STATE_WORD];
    words_load(&header->journal_slot, words);
    slot_finish(slot, words,
                atomic_load_explicit(&header->journal_slot.word[SHM_STATE_WORD], memory_order_relaxed) + SHM_STATE_AMENDMENT);
}

/* ---- readers ----------------------------------------------------------------------------------------------------------------- */

/* True and the bar's payload and *state when the journal is about bar `index`. */
static bool journal_read(const shm_segment_t *segment, uint32_t id, uint64_t index, void *payload, uint64_t *state)
{
    const shm_header_t *header = segment->header;
    uint64_t sequence = atomic_load_explicit(&header->journal_sequence, memory_order_acquire); /* K1: pairs with J4 */
    bool ours = atomic_load_explicit(&header->journal_symbol, memory_order_relaxed) == id &&   /* K2: as the payload */
                atomic_load_explicit(&header->journal_index, memory_order_relaxed) == index;   /* K2 */
    words_load(&header->journal_slot, payload);
    *state = atomic_load_explicit(&header->journal_slot.word[SHM_STATE_WORD], memory_order_relaxed); /* K2 */
    atomic_thread_fence(memory_order_acquire); /* K3: pairs with J2 in journal_write */
    return ours && !(sequence & 1) &&
           atomic_load_explicit(&header->journal_sequence, memory_order_relaxed) == sequence; /* K4: pairs with J1 */
}

/* Copies bar `index`, which was published before `head` was read. */
static int slot_read(const shm_segment_t *segment, uint32_t id, uint64_t index, uint64_t head, shm_bar_t *out)
{
    const shm_slot_t *slot = slot_of(segment, id, index);
    uint64_t state;
    for (;;) {
        state = atomic_load_explicit(&slot->word[SHM_STATE_WORD], memory_order_acquire); /* R1: pairs with W4, W1 of amend */
        if ((state & SHM_STATE_LAP) != lap_of(segment, index))
            return SHM_OVERRUN;
        if (state & SHM_STATE_BUSY) {
            if (journal_read(segment, id, index, out, &state))
                break;
            continue;
        }
        words_load(slot, out);
        atomic_thread_fence(memory_order_acquire);                                            /* R3: pairs with W2 in slot_finish */
        if (atomic_load_explicit(&slot->word[SHM_STATE_WORD], memory_order_relaxed) == state) /* R4: pairs with W1 */
            break;
    }
    out->flags = (uint32_t)(state & SHM_STATE_FLAGS);
    if (index + 1 < head)
        out->flags &= ~(uint32_t)SHM_BAR_IN_PROGRESS;
    out->stamp = 0;
    return SHM_OK;
}

uint64_t shm_ring_head(const shm_segment_t *segment, uint32_t id)
{
    if (!is_symbol(segment, id))
        return 0;
    return atomic_load_explicit(&shm_ring_of(segment, id)->head, memory_order_acquire); /* R5: pairs with W5 in shm_ring_append */
}

uint64_t shm_ring_closed(const shm_segment_t *segment, uint32_t id)
{
    for (;;) {
        uint64_t head = shm_ring_head(segment, id);
        if (head == 0)
            return 0;
        uint64_t state = atomic_load_explicit(&slot_of(segment, id, head - 1)->word[SHM_STATE_WORD],
                                              memory_order_acquire); /* R1: pairs with W4 */
        if ((state & SHM_STATE_LAP) == lap_of(segment, head - 1))    /* flags of a busy slot are still the old bar's */
            return state & SHM_BAR_IN_PROGRESS ? head - 1 : head;
    }
}

uint64_t shm_ring_oldest(const shm_segment_t *segment, uint32_t id)
{
    uint64_t head = shm_ring_head(segment, id), capacity = segment->ring_mask + 1;
    return head < capacity ? 0 : head - capacity + 1;
}

static int copy_bars(const shm_segment_t *segment, uint32_t id, uint64_t index, uint64_t count, uint64_t head, shm_bar_t *out)
{
    if (head - index > segment->ring_mask + 1)
        return SHM_OVERRUN;
    for (uint64_t i = 0; i < count; i++)
        if (slot_read(segment, id, index + i, head, &out[i]) != SHM_OK)
            return SHM_OVERRUN;
    return SHM_OK;
}

int shm_ring_read(const shm_segment_t *segment, uint32_t id, uint64_t index, shm_bar_t *out)
{
    uint32_t count;
    return shm_ring_read_many(segment, id, index, 1, out, &count);
}

int shm_ring_read_many(const shm_segment_t *segment, uint32_t id, uint64_t index, uint32_t most, shm_bar_t *out, uint32_t *count)
{
    if (!is_symbol(segment, id))
        return error_set(SHM_ERR_INVALID, "there is no symbol with id %" PRIu32, id);
    uint64_t head = shm_ring_head(segment, id);
    if (index >= head || most == 0)
        return SHM_EMPTY;
    uint64_t there = head - index < most ? head - index : most;
    int rc = copy_bars(segment, id, index, there, head, out);
    if (rc == SHM_OK)
        *count = (uint32_t)there;
    return rc;
}

int shm_ring_window(const shm_segment_t *segment, uint32_t id, uint64_t end, uint32_t count, shm_bar_t *out)
{
    if (!is_symbol(segment, id))
        return error_set(SHM_ERR_INVALID, "there is no symbol with id %" PRIu32, id);
    uint64_t head = shm_ring_head(segment, id);
    if (end > head || count > end)
        return SHM_EMPTY;
    return copy_bars(segment, id, end - count, count, head, out);
}
