// `edgeproxy status`: how the running proxy is, once.

import type { ConfigFlags } from '../config.ts';
import { askedAddress, askJson, unreachable } from './admin-client.ts';
import { screenLines, type View, WIDTH_MIN } from './live-view.ts';
import { EXIT_DONE, print, printJson } from './output.ts';

/** As many backends as fit on a page; `backend list` and the API have them all. */
const BACKENDS_SHOWN = 50;
const EVERYTHING = 10_000;

export async function status(flags: ConfigFlags): Promise<number> {
  const address = askedAddress(flags);
  if (typeof address === 'string') throw unreachable(address);
  let view: View;
  try {
    const [now, backends, countries] = await Promise.all([
      askJson<View['status']>(address, '/api/status'),
      askJson<View['backends']>(address, `/api/backends?limit=${BACKENDS_SHOWN}`),
      askJson<View['countries']>(address, '/api/countries'),
    ]);
    view = { status: now, backends, countries, events: [] };
  } catch (error) {
    throw unreachable(address, error);
  }
  if (flags.json) {
    printJson({ status: view.status, ...view.backends, countries: view.countries.countries });
    return EXIT_DONE;
  }
  const width = Math.max(WIDTH_MIN, process.stdout.columns ?? Number.POSITIVE_INFINITY);
  print(screenLines(view, width, EVERYTHING).join('\n').trimEnd());
  return EXIT_DONE;
}
