// `edgeproxy top`: the terminal view, redrawn every second. Status and events come by server-sent events, so one connection
// tells of both; backends and countries are asked for. A proxy that goes away is waited for.

import type { IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConfigFlags } from '../config.ts';
import type { EventData, StatusData } from '../control/api/response-schemas.ts';
import {
  type AdminAddress,
  adminText,
  askedAddress,
  askJson,
  askStream,
  failureText,
  unreachable,
} from './admin-client.ts';
import { screenLines, type View, WIDTH_MIN } from './live-view.ts';
import { EXIT_DONE, print } from './output.ts';

const HEIGHT_ASSUMED = 24;
const BACKENDS_ASKED = 100;
const EVENTS_KEPT = 200;
const RETRY_MS = 1000;
/** Alternate screen without cursor, and back: the shell's own lines stay as they were. */
const SCREEN_ON = '\x1b[?1049h\x1b[?25l';
const SCREEN_OFF = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_LINE_END = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';
const CTRL_C = '\x03';

/** (Not node:readline: its iterator waits for ever when the stream is destroyed.) */
async function* linesOf(stream: IncomingMessage): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of stream.setEncoding('utf8')) {
    const lines = (rest + (chunk as string)).split('\n');
    rest = lines.pop() as string;
    yield* lines;
  }
}

/** Shows each status of the stream, until that ends. */
async function follow(
  address: AdminAddress,
  stream: IncomingMessage,
  events: EventData[],
  show: (view: View) => void,
): Promise<void> {
  let type = '';
  for await (const line of linesOf(stream)) {
    if (line.startsWith('event: ')) type = line.slice('event: '.length);
    if (!line.startsWith('data: ')) continue;
    const data: unknown = JSON.parse(line.slice('data: '.length));
    if (type === 'event') {
      events.push(data as EventData);
      if (events.length > EVENTS_KEPT) events.shift();
    } else if (type === 'status') {
      const [backends, countries] = await Promise.all([
        askJson<View['backends']>(address, `/api/backends?limit=${BACKENDS_ASKED}`),
        askJson<View['countries']>(address, '/api/countries'),
      ]);
      show({ status: data as StatusData, backends, countries, events });
    }
  }
}

function draw(lines: readonly string[]): void {
  const body = lines.map((line) => line + CLEAR_LINE_END).join('\r\n');
  process.stdout.write(HOME + body + CLEAR_BELOW);
}

function drawView(view: View): void {
  const width = process.stdout.columns ?? WIDTH_MIN;
  const height = process.stdout.rows ?? HEIGHT_ASSUMED;
  draw([...screenLines(view, width, height - 1), 'q ends']);
}

/** Calls `stop` at q, Ctrl-C, or a signal. */
function followKeys(stop: () => void): void {
  process.stdin.setRawMode(true);
  process.stdin.on('data', (keys: Buffer) => {
    const text = keys.toString();
    if (text === CTRL_C || /q/i.test(text)) stop();
  });
  process.on('SIGTERM', stop);
  process.on('SIGHUP', stop);
}

/** One JSON line per second: status, backends, countries, and the events since the line before. */
function printLine({ status, backends, countries, events }: View): void {
  const recent = (events as EventData[]).splice(0);
  print(JSON.stringify({ status, ...backends, countries: countries.countries, events: recent }));
}

export async function top(flags: ConfigFlags): Promise<number> {
  const address = askedAddress(flags);
  if (typeof address === 'string') throw unreachable(address);
  const isScreen = flags.json !== true && process.stdout.isTTY === true && process.stdin.isTTY;
  const asText = (view: View): void =>
    print(`${screenLines(view, WIDTH_MIN, HEIGHT_ASSUMED).join('\n')}\n`);
  const show = flags.json === true ? printLine : isScreen ? drawView : asText;
  const events: EventData[] = [];
  let stream: IncomingMessage | null = null;
  let isOver = false;
  const stop = (): void => {
    isOver = true;
    stream?.destroy();
  };
  const path = '/api/events?recent=50';
  try {
    stream = await askStream(address, path);
  } catch (error) {
    throw unreachable(address, error);
  }
  if (isScreen) {
    process.stdout.write(SCREEN_ON);
    followKeys(stop);
  }
  try {
    while (!isOver) {
      let reason = 'it has closed the connection';
      try {
        stream ??= await askStream(address, path);
        await follow(address, stream, events, show);
      } catch (error) {
        reason = failureText(error);
      }
      stream = null;
      if (isOver) break;
      if (isScreen) draw([`${adminText(address)}: ${reason}; asking again`, '', 'q ends']);
      await sleep(RETRY_MS);
      events.length = 0;
    }
  } finally {
    if (isScreen) {
      process.stdout.write(SCREEN_OFF);
      process.stdin.setRawMode(false);
      process.stdin.pause();
    }
  }
  return EXIT_DONE;
}
