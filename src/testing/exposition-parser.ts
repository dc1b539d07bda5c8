// A strict reader of the Prometheus text format (version 0.0.4), written from its description and apart from the code that
// writes it: every scrape of every test goes through it. It throws at the first thing that is not exactly right, naming
// the line: a name or label that is not allowed, a series twice, a family without HELP or TYPE or in two places, a counter
// that is negative or not named _total, a histogram that is not whole.

export interface ParsedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface ParsedFamily {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: ParsedSample[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;
const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*/;
/** What Go's ParseFloat takes, which is what Prometheus uses. */
const VALUE = /^(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|[+-]?inf|nan)$/i;
const TYPES = ['counter', 'gauge', 'histogram', 'summary', 'untyped'];
const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  histogram: ['_bucket', '_sum', '_count'],
  summary: ['', '_sum', '_count'],
};

class Line {
  readonly text: string;
  readonly number: number;
  #at = 0;

  constructor(text: string, number: number) {
    this.text = text;
    this.number = number;
  }

  fail(what: string): never {
    throw new Error(`Metrics line ${this.number}: ${what}: ${this.text}`);
  }

  take(pattern: RegExp, what: string): string {
    const match = pattern.exec(this.text.slice(this.#at));
    if (match === null) return this.fail(`no ${what} at column ${this.#at + 1}`);
    this.#at += match[0].length;
    return match[0];
  }

  has(text: string): boolean {
    if (!this.text.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  need(text: string): void {
    if (!this.has(text)) this.fail(`no "${text}" at column ${this.#at + 1}`);
  }

  rest(): string {
    return this.text.slice(this.#at);
  }

  /** The text up to the closing quote, unescaped. */
  quoted(): string {
    let text = '';
    for (;;) {
      if (this.has('"')) return text;
      if (this.has('\\')) {
        const escaped = this.take(/^[\\"n]/, 'allowed escape');
        text += escaped === 'n' ? '\n' : escaped;
      } else text += this.take(/^[^\\"]+/, 'end of a label value');
    }
  }
}

function parseLabels(line: Line): Record<string, string> {
  const labels: Record<string, string> = {};
  if (!line.has('{')) return labels;
  for (;;) {
    const name = line.take(LABEL_NAME, 'label name');
    if (Object.hasOwn(labels, name)) line.fail(`label ${name} twice`);
    if (name.startsWith('__')) line.fail(`reserved label ${name}`);
    line.need('="');
    labels[name] = line.quoted();
    if (line.has('}')) return labels;
    line.need(',');
  }
}

function parseNumber(line: Line, text: string): number {
  if (!VALUE.test(text)) line.fail(`"${text}" is not a number`);
  if (/nan/i.test(text)) return Number.NaN;
  if (/inf/i.test(text)) return text.startsWith('-') ? -Infinity : Infinity;
  return Number(text);
}

function parseSample(line: Line): ParsedSample {
  const name = line.take(NAME, 'metric name');
  const labels = parseLabels(line);
  line.need(' ');
  return { name, labels, value: parseNumber(line, line.rest()) };
}

function seriesKey(labels: Readonly<Record<string, string>>): string {
  return JSON.stringify(Object.entries(labels).sort(([one], [two]) => (one < two ? -1 : 1)));
}

interface Bucket {
  readonly bound: number;
  readonly count: number;
}

function checkHistogram({ name, samples }: ParsedFamily): void {
  const groups = new Map<string, { buckets: Bucket[]; sum?: number; count?: number }>();
  for (const sample of samples) {
    const { le, ...labels } = sample.labels;
    const key = seriesKey(labels);
    const group = groups.get(key) ?? { buckets: [] };
    groups.set(key, group);
    if (sample.name === `${name}_sum`) group.sum = sample.value;
    else if (sample.name === `${name}_count`) group.count = sample.value;
    else if (le === undefined) throw new Error(`Histogram ${name}: a bucket without le`);
    else group.buckets.push({ bound: Number(le.replace('+Inf', 'Infinity')), count: sample.value });
  }
  for (const [labels, { buckets, sum, count }] of groups) {
    const fail = (what: string): never => {
      throw new Error(`Histogram ${name} ${labels}: ${what}`);
    };
    if (sum === undefined || count === undefined) fail('no _sum or no _count');
    if (buckets.at(-1)?.bound !== Infinity) fail('the last bucket is not +Inf');
    if (buckets.at(-1)?.count !== count) fail('the bucket +Inf is not _count');
    buckets.reduce((before, bucket) => {
      if (!(bucket.bound > before.bound)) fail('its buckets are not in order');
      if (bucket.count < before.count) fail('a bucket holds less than the one before');
      return bucket;
    });
  }
}

function checkFamily(family: ParsedFamily): void {
  const { name, type, samples } = family;
  // The process metrics are prom-client's, which names some in its own way.
  const isOwn = name.startsWith('edge_');
  if (isOwn && type === 'counter' && !name.endsWith('_total')) {
    throw new Error(`Counter ${name} is not named _total`);
  }
  if (isOwn && type !== 'counter' && name.endsWith('_total')) {
    throw new Error(`${name} is a ${type} and named _total`);
  }
  const suffixes = SUFFIXES[type] ?? [''];
  for (const sample of samples) {
    if (!suffixes.some((suffix) => sample.name === name + suffix)) {
      throw new Error(`${sample.name} is no sample of the ${type} ${name}`);
    }
    if (type === 'counter' && !(sample.value >= 0)) {
      throw new Error(`Counter ${name} ${seriesKey(sample.labels)} is ${sample.value}`);
    }
  }
  if (type === 'histogram') checkHistogram(family);
}

class Parser {
  readonly families: ParsedFamily[] = [];
  #help: { readonly name: string; readonly text: string } | null = null;
  readonly #series = new Set<string>();

  comment(line: Line): void {
    line.need('# ');
    const word = line.take(/^(HELP|TYPE)/, 'HELP or TYPE');
    line.need(' ');
    const name = line.take(NAME, 'metric name');
    line.need(' ');
    if (word === 'HELP') {
      if (this.#help !== null) line.fail(`HELP of ${this.#help.name} without TYPE`);
      if (this.families.some((family) => family.name === name)) line.fail('a family twice');
      if (/\\[^\\n]|\\$/.test(line.rest().replaceAll('\\\\', ''))) line.fail('a wrong escape');
      if (line.rest().trim() === '') line.fail('an empty HELP');
      this.#help = { name, text: line.rest() };
      return;
    }
    if (this.#help?.name !== name) line.fail('TYPE without its HELP');
    if (!TYPES.includes(line.rest())) line.fail('an unknown type');
    this.families.push({ name, type: line.rest(), help: this.#help?.text ?? '', samples: [] });
    this.#help = null;
  }

  sample(line: Line): void {
    const sample = parseSample(line);
    const family = this.families.at(-1);
    if (family === undefined || this.#help !== null) {
      line.fail('a sample without HELP and TYPE');
    }
    if (!sample.name.startsWith(family.name)) line.fail(`a sample among those of ${family.name}`);
    const key = sample.name + seriesKey(sample.labels);
    if (this.#series.has(key)) line.fail('a series twice');
    this.#series.add(key);
    family.samples.push(sample);
  }
}

/** The families in their order; throws at anything that Prometheus, or a careful reader, would object to. */
export function parseExposition(text: string): readonly ParsedFamily[] {
  if (!text.endsWith('\n')) throw new Error('Metrics: the last line has no end');
  const parser = new Parser();
  text
    .slice(0, -1)
    .split('\n')
    .forEach((content, index) => {
      const line = new Line(content, index + 1);
      if (content.startsWith('#')) parser.comment(line);
      else if (content !== '') parser.sample(line);
    });
  for (const family of parser.families) checkFamily(family);
  return parser.families;
}
