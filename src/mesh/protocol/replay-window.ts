// The window that refuses repeated transport packets (paper §5.4.6; RFC 6479): a ring of bits in which the word of the
// newest counter moves on by clearing words, never by shifting. Free functions over words of shared memory, for the thread
// that receives with a keypair; one thread at a time, so nothing is atomic. Only ever asked after authentication: else
// anybody could move the window.
//
//   greatest counter so far: low, high word | accepted: 256 words of bits, by the low bits of the counter

const BITS_WORD = 2;
const BIT_WORDS = 256;
/** Counters this far behind the greatest one are still told apart: the ring less the word that is being filled. */
export const REPLAY_BITS = (BIT_WORDS - 1) * 32;
export const REPLAY_WORDS = BITS_WORD + BIT_WORDS;
const WORD_VALUES = 2 ** 32;
/** Counters are compared as doubles: from 2^53 on they are refused. A keypair ends after 180 s, long before. */
const HIGH_END = 2 ** 21;

/** An empty window, for a new keypair. */
export function resetReplayWindow(words: Int32Array, base: number): void {
  words.fill(0, base, base + REPLAY_WORDS);
}

/** Whether a packet with this counter is new; then it is so no longer. Both words are signed or unsigned, as they come. */
export function acceptCounter(words: Int32Array, base: number, low: number, high: number): boolean {
  if (high >>> 0 >= HIGH_END) return false;
  const counter = (high >>> 0) * WORD_VALUES + (low >>> 0);
  const greatest = (words[base + 1] >>> 0) * WORD_VALUES + (words[base] >>> 0);
  if (counter + REPLAY_BITS < greatest) return false;
  if (counter > greatest) {
    // Words between the greatest counter's and this one's are cleared: what they say is older than the window.
    const steps = Math.min(Math.floor(counter / 32) - Math.floor(greatest / 32), BIT_WORDS);
    const newest = low >>> 5;
    for (let step = 0; step < steps; step++) {
      words[base + BITS_WORD + ((newest - step) & (BIT_WORDS - 1))] = 0;
    }
    words[base] = low;
    words[base + 1] = high;
  }
  const at = base + BITS_WORD + ((low >>> 5) & (BIT_WORDS - 1));
  const bit = 1 << (low & 31);
  if ((words[at] & bit) !== 0) return false;
  words[at] |= bit;
  return true;
}
