// Loading and hot swap with real files and real change events, and the region map file.
// Tests wait for what must happen, never for a time in which it should have happened.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ProxyError } from '../base/errors.ts';
import { lookupIPv4, openGeoTable } from '../route/geo-table.ts';
import { countryCode, regionIndex } from '../route/regions.ts';
import { writeMmdb } from '../testing/mmdb-writer.ts';
import { type LoadedGeoTable, loadGeoTable, loadRegionMap, watchGeoTable } from './geo-load.ts';

/**
 * Long enough for any of these to happen on a loaded machine; nothing waits for it when all is
 * well.
 */
const PATIENCE_MS = 20_000;

function database(code: string): Uint8Array {
  return writeMmdb([{ cidr: '8.0.0.0/8', value: { country: { iso_code: code } } }]);
}

function codeIn(loaded: LoadedGeoTable): string {
  return countryCode(lookupIPv4(openGeoTable(loaded.buffer), 0x08080808));
}

function temporaryDirectory(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-geo-'));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A watch on a file in a new directory, and what it reported, in order. */
class Watched {
  readonly events: string[] = [];
  readonly errors: ProxyError[] = [];
  readonly directory: string;
  readonly path: string;
  readonly #changed = new EventTarget();

  constructor(context: TestContext, first: Uint8Array, pollMs = 50, settleMs = 100) {
    this.directory = join(temporaryDirectory(context), 'data');
    this.path = join(this.directory, 'country.mmdb');
    mkdirSync(this.directory);
    writeFileSync(this.path, first);
    const watch = watchGeoTable({
      path: this.path,
      current: loadGeoTable(this.path),
      pollMs,
      settleMs,
      onTable: (loaded) => this.#add(codeIn(loaded)),
      onError: (error) => {
        this.errors.push(error);
        this.#add('error');
      },
    });
    context.after(() => watch.close());
  }

  #add(event: string): void {
    this.events.push(event);
    this.#changed.dispatchEvent(new Event('change'));
  }

  /** Waits until the events are these, or there are as many others. */
  async until(expected: string[]): Promise<void> {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    while (this.events.length < expected.length && !signal.aborted) {
      await once(this.#changed, 'change', { signal }).catch(() => undefined);
    }
    assert.deepEqual(this.events, expected);
  }

  replaceByRename(bytes: Uint8Array): void {
    writeFileSync(`${this.path}.new`, bytes);
    renameSync(`${this.path}.new`, this.path);
  }
}

test('loadGeoTable() loads the embedded database', () => {
  const loaded = loadGeoTable(null);
  assert.equal(codeIn(loaded), 'US');
  assert.match(loaded.source, /geolite2-country\.mmdb$/);
  assert.ok(loaded.buildEpoch > Date.UTC(2024, 0) / 1000, String(loaded.buildEpoch));
  assert.match(loaded.description, /country/);
});

test('loadGeoTable() loads a file and says what it is', (context) => {
  const path = join(temporaryDirectory(context), 'x.mmdb');
  writeFileSync(path, database('FR'));
  const loaded = loadGeoTable(path);
  assert.equal(codeIn(loaded), 'FR');
  assert.equal(loaded.source, path);
  assert.equal(loaded.buildEpoch, 1_700_000_000);
  assert.equal(loaded.description, 'Test-Country: Test database');
});

test('loadGeoTable() names the file and the reason when it cannot', (context) => {
  const directory = temporaryDirectory(context);
  const refused = (path: string, reason: RegExp) =>
    assert.throws(
      () => loadGeoTable(path),
      (error: unknown) => {
        assert.ok(error instanceof ProxyError);
        assert.equal(error.code, 'ERR_GEO_DATABASE');
        assert.ok(error.message.startsWith(`Cannot read country database "${path}": `));
        assert.match(error.message, reason);
        return true;
      },
    );
  refused(join(directory, 'none.mmdb'), /ENOENT/);
  refused(directory, /not a regular file/);
  if (spawnSync('mkfifo', [join(directory, 'pipe')]).status === 0) {
    refused(join(directory, 'pipe'), /not a regular file/);
  }
  const bad = join(directory, 'bad.mmdb');
  writeFileSync(bad, '');
  refused(bad, /: no MaxMind metadata at its end/);
  writeFileSync(bad, database('FR').subarray(0, 500));
  refused(bad, /no MaxMind metadata at its end/);
  const wild = database('FR');
  wild[0] = 0xff; // the first record of the tree
  writeFileSync(bad, wild);
  refused(bad, /: a record of its tree is out of bounds$/);
});

test('watchGeoTable() swaps after a rename over the file', async (context) => {
  const watched = new Watched(context, database('US'));
  watched.replaceByRename(database('BR'));
  await watched.until(['BR']);
  watched.replaceByRename(database('JP'));
  await watched.until(['BR', 'JP']);
});

test('watchGeoTable() swaps on a change event alone, before any poll', async (context) => {
  const watched = new Watched(context, database('US'), 3_600_000);
  watched.replaceByRename(database('BR'));
  await watched.until(['BR']);
});

test('watchGeoTable() swaps after a rewrite in place', async (context) => {
  const watched = new Watched(context, database('US'));
  writeFileSync(watched.path, database('BR'));
  await watched.until(['BR']);
});

test('watchGeoTable() swaps when the file is deleted and later recreated', async (context) => {
  const watched = new Watched(context, database('US'));
  rmSync(watched.path);
  await watched.until(['error']);
  assert.match(watched.errors[0]!.message, /"[^"]+country\.mmdb": the file is gone$/);
  writeFileSync(watched.path, database('BR'));
  await watched.until(['error', 'BR']);
});

test('watchGeoTable() follows when the whole directory is replaced', async (context) => {
  const watched = new Watched(context, database('US'));
  rmSync(watched.directory, { recursive: true });
  await watched.until(['error']);
  mkdirSync(watched.directory);
  writeFileSync(watched.path, database('BR'));
  await watched.until(['error', 'BR']);
  watched.replaceByRename(database('JP'));
  await watched.until(['error', 'BR', 'JP']);
});

test('watchGeoTable() follows a symbolic link that is switched', async (context) => {
  const watched = new Watched(context, database('US'));
  const other = join(watched.directory, 'other.mmdb');
  writeFileSync(other, database('BR'));
  symlinkSync(other, `${watched.path}.link`);
  renameSync(`${watched.path}.link`, watched.path);
  await watched.until(['BR']);
});

test('watchGeoTable() reports a bad file once, and retries when it changes', async (context) => {
  const watched = new Watched(context, database('US'));
  const good = database('BR');
  watched.replaceByRename(good.subarray(0, good.length - 100));
  await watched.until(['error']);
  assert.equal(watched.errors[0]!.code, 'ERR_GEO_DATABASE');
  assert.match(watched.errors[0]!.message, /country\.mmdb": a value is cut short$/);
  await sleep(500); // ten polls and more
  await watched.until(['error']);
  truncateSync(watched.path, 50); // another bad state
  await watched.until(['error', 'error']);
  watched.replaceByRename(good);
  await watched.until(['error', 'error', 'BR']);
});

test('watchGeoTable() waits for a file that is still being written', async (context) => {
  const watched = new Watched(context, database('US'), 50, 800);
  const good = database('BR');
  // Each part stays long enough to be read, and is changed long before it counts as settled.
  for (let end = 1; end <= 6; end++) {
    writeFileSync(watched.path, good.subarray(0, Math.ceil((good.length * end) / 6)));
    await sleep(200);
  }
  await watched.until(['BR']);
});

test('watchGeoTable() sees what changed between the load and the watch', async (context) => {
  const path = join(temporaryDirectory(context), 'country.mmdb');
  writeFileSync(path, database('US'));
  const current = loadGeoTable(path);
  writeFileSync(path, database('BR'));
  const { promise, resolve, reject } = Promise.withResolvers<LoadedGeoTable>();
  using _watch = watchGeoTable({ path, current, pollMs: 50, onTable: resolve, onError: reject });
  assert.equal(codeIn(await promise), 'BR');
});

test('watchGeoTable() is silent after close()', async (context) => {
  const directory = temporaryDirectory(context);
  const path = join(directory, 'country.mmdb');
  writeFileSync(path, database('US'));
  const events: string[] = [];
  const options = {
    path,
    pollMs: 20,
    onTable: () => events.push('table'),
    onError: () => events.push('error'),
  };
  const watch = watchGeoTable(options);
  utimesSync(path, 1, 1);
  await sleep(150); // the load may be under way
  watch.close();
  const before = events.length;
  writeFileSync(path, database('BR'));
  await sleep(400);
  assert.equal(events.length, before);
});

test('watchGeoTable() of the embedded database keeps no process alive', () => {
  const url = new URL('./geo-load.ts', import.meta.url).href;
  const script = `import { watchGeoTable } from '${url}';
    watchGeoTable({ path: null, onTable() {}, onError() {} });`;
  const arguments_ = ['--input-type=module', '--eval', script];
  const result = spawnSync(process.execPath, arguments_, {
    timeout: PATIENCE_MS,
    encoding: 'utf8',
  });
  assert.equal(result.status, 0, result.stderr);
});

test('loadRegionMap() gives the default map without a path', async () => {
  const map = await loadRegionMap(null);
  assert.equal(map.names.length, 6);
});

test('loadRegionMap() reads [countries] from a TOML file', async (context) => {
  const path = join(temporaryDirectory(context), 'regions.toml');
  writeFileSync(path, '# ours\n[countries]\nBR = "south"\nar = "South"\nMX = "sa"\n');
  const map = await loadRegionMap(path);
  assert.equal(regionIndex(map, 'south'), 6);
  assert.equal(map.names.length, 7);
  writeFileSync(path, '');
  assert.equal((await loadRegionMap(path)).names.length, 6);
});

test('loadRegionMap() names file and problem', async (context) => {
  const path = join(temporaryDirectory(context), 'regions.toml');
  const refused = async (text: string, reason: RegExp) => {
    writeFileSync(path, text);
    await assert.rejects(loadRegionMap(path), (error: unknown) => {
      assert.ok(error instanceof ProxyError);
      assert.equal(error.code, 'ERR_REGION_MAP');
      for (const line of error.message.split('\n')) {
        assert.ok(line.startsWith(`Region map "${path}": `), line);
      }
      assert.match(error.message, reason);
      return true;
    });
  };
  await refused(
    '[countries]\nQQ = "eu"\nBR = "a b"',
    /"QQ": not an ISO.*\n.*"BR" to region "a b": a name/,
  );
  await refused('[countries]\nBR = 5', /Cannot map country "BR" to region 5/);
  await refused('countries = "BR"', /Cannot use "countries": it must be a table/);
  await refused('countries = 1979-05-27', /Cannot use "countries": it must be a table/);
  await refused('[country]\nBR = "sa"', /Cannot use key "country": only \[countries\] is known/);
  await refused('[countries\n', /TOML/);
  rmSync(path);
  await assert.rejects(loadRegionMap(path), /Region map "[^"]+": ENOENT/);
});
