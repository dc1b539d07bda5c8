// One scrape of /metrics for tests: what a strict parser read, and ways to ask for numbers in it.

import { type ParsedFamily, type ParsedSample, parseExposition } from './exposition-parser.ts';

export class Metrics {
  readonly families: readonly ParsedFamily[];
  readonly samples: readonly ParsedSample[];
  /** Names of the families: each has HELP and TYPE. */
  readonly documented: ReadonlySet<string>;

  constructor(text: string) {
    this.families = parseExposition(text);
    this.samples = this.families.flatMap(({ samples }) => samples);
    this.documented = new Set(this.families.map(({ name }) => name));
  }

  /** Sum of the samples of `name` that have all these labels; 0 when there is none. */
  get(name: string, labels: Readonly<Record<string, string>> = {}): number {
    const wanted = Object.entries(labels);
    return this.samples
      .filter((sample) => sample.name === name)
      .filter((sample) => wanted.every(([label, value]) => sample.labels[label] === value))
      .reduce((sum, { value }) => sum + value, 0);
  }

  /** The values of one label of `name` whose sample is not 0, with that value. */
  nonZero(name: string, label: string): Record<string, number> {
    const found = this.samples.filter((sample) => sample.name === name && sample.value !== 0);
    return Object.fromEntries(found.map(({ labels, value }) => [labels[label] ?? '', value]));
  }
}
