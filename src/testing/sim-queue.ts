// A queue of what will happen, earliest first: a binary heap over typed arrays. An entry is six words for its owner to
// read, so that neither pushing nor taking allocates.

export const ENTRY_WORDS = 6;
const ENTRIES_MIN = 256;

export class SimQueue {
  /** Words of all entries; those of the entry last taken start at `taken`. */
  words = new Int32Array(ENTRIES_MIN * ENTRY_WORDS);
  taken = 0;
  count = 0;
  #times = new Float64Array(ENTRIES_MIN);
  /** The heap: entry numbers, and behind `count` the free ones. */
  #heap = Int32Array.from({ length: ENTRIES_MIN }, (_, entry) => entry);

  /** Time of the first entry, Infinity when there is none. */
  nextTime(): number {
    return this.count === 0 ? Number.POSITIVE_INFINITY : this.#times[this.#heap[0]];
  }

  push(time: number, w0: number, w1: number, w2 = 0, w3 = 0, w4 = 0, w5 = 0): void {
    if (this.count === this.#heap.length) this.#grow();
    const entry = this.#heap[this.count];
    const at = entry * ENTRY_WORDS;
    const { words } = this;
    words[at] = w0;
    words[at + 1] = w1;
    words[at + 2] = w2;
    words[at + 3] = w3;
    words[at + 4] = w4;
    words[at + 5] = w5;
    this.#times[entry] = time;
    this.#siftUp(this.count++, entry, time);
  }

  /** Takes the first entry: returns its time, its words are at `taken` until the next push. */
  take(): number {
    const heap = this.#heap;
    const first = heap[0];
    this.count--;
    const last = heap[this.count];
    heap[this.count] = first;
    if (this.count > 0) this.#siftDown(last, this.#times[last]);
    this.taken = first * ENTRY_WORDS;
    return this.#times[first];
  }

  #siftUp(from: number, entry: number, time: number): void {
    const heap = this.#heap;
    const times = this.#times;
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (times[heap[parent]] <= time) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = entry;
  }

  #siftDown(entry: number, time: number): void {
    const heap = this.#heap;
    const times = this.#times;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= this.count) break;
      if (child + 1 < this.count && times[heap[child + 1]] < times[heap[child]]) child++;
      if (times[heap[child]] >= time) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = entry;
  }

  #grow(): void {
    const before = this.#heap.length;
    const heap = new Int32Array(before * 2);
    heap.set(this.#heap);
    for (let entry = before; entry < before * 2; entry++) heap[entry] = entry;
    const times = new Float64Array(before * 2);
    times.set(this.#times);
    const words = new Int32Array(before * 2 * ENTRY_WORDS);
    words.set(this.words);
    this.#heap = heap;
    this.#times = times;
    this.words = words;
  }
}
