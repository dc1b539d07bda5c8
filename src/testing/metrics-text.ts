// Reads the Prometheus text of /metrics for tests: enough of the format for what edgeproxy writes.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

function parseSample(line: string): Sample {
  const match = SAMPLE.exec(line);
  if (match === null) throw new Error(`Cannot read metrics line: ${line}`);
  const labels = Object.fromEntries(
    [...(match[2] ?? '').matchAll(LABEL)].map(([, name, value]) => [name, value]),
  );
  return { name: match[1] as string, labels, value: Number(match[3]) };
}

export class Metrics {
  readonly samples: readonly Sample[];
  /** Names that have both HELP and TYPE. */
  readonly documented: ReadonlySet<string>;

  constructor(text: string) {
    const lines = text.split('\n').filter((line) => line !== '');
    this.samples = lines.filter((line) => !line.startsWith('#')).map(parseSample);
    const named = (word: string): string[] =>
      lines.filter((line) => line.startsWith(`# ${word} `)).map((line) => line.split(' ')[2]!);
    const helped = new Set(named('HELP'));
    this.documented = new Set(named('TYPE').filter((name) => helped.has(name)));
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
