// Builds dist/, which the npm package runs: plain JavaScript, because Node strips no types below node_modules, in few files,
// because each module costs the start a look-up, a read and a compilation. npm calls it in a checkout after `npm ci` and
// before `npm pack`; bin/edgeproxy runs dist/ unless a source is newer. `--optional`: do nothing where the bundler is absent.
//
// Nothing has to be listed here. A file that is started rather than imported (a worker thread, another process) is named by
// `new URL('./file.ts', import.meta.url)` in the source; each becomes an entry, and what it names in turn, too. Other
// relative URLs name assets: below src/ their folder is copied, the others stay where they are. Other ways to name a
// source fail the build.

import { cpSync, existsSync, renameSync, rmSync } from 'node:fs';
import { dirname, extname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { OutputOptions, Plugin, rolldown as Rolldown, RolldownOptions } from 'rolldown';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Packages that become part of dist/ for the start's sake: a tenth of valibot is used. The others are found at run time. */
const BUNDLED = /^(valibot|@valibot\/to-json-schema)$/;

const RELATIVE_URL = /new URL\(\s*(['"`])(\.{1,2}\/[^'"`]*)\1\s*,\s*import\.meta\.url,?\s*\)/g;
/** What would still mean a place in src/ after the build: a text that ends in .ts, or where the module itself is. */
const LOST =
  /import\.meta\.(?:dirname|filename)|new URL\([^)]*?(?<!\w)import\.meta\.url|\/[\w-]+\.ts['"`]/;
const BUILT_URL = /new URL\(`[^`]*`, import\.meta\.url\)/g;

const BUILTIN_IMPORT =
  /^import (?:(\* as )?([\w$]+))?(?:, )?(?:\{([^}]*)\})? from "(node:[\w/]+)";$/gm;

/**
 * A module of Node.js without an import, which would read each of its exports at once: many of them load something big when
 * they are first read (node:http an HTTP client, node:fs streams and readline), 5 to 40 ms of the start in all.
 */
function withoutImport(
  _all: string,
  _star: string | undefined,
  whole: string | undefined,
  names: string | undefined,
  module: string,
): string {
  const from = `process.getBuiltinModule("${module}")`;
  const named = names === undefined ? '' : `const {${names.replaceAll(' as ', ': ')}} = `;
  if (whole === undefined) return `${named}${from};`;
  return `const ${whole} = ${from};${named === '' ? '' : ` ${named}${whole};`}`;
}

/** Files of an asset folder that serve development only are left out. */
function isAsset(path: string): boolean {
  return !/\.ts$|tsconfig\.json$/.test(path);
}

class Build {
  readonly #rolldown: typeof Rolldown;
  readonly #root: string;
  readonly #sources: string;
  readonly #main: string;
  readonly #out: string;
  /** Sources that are started, in the order they were found. */
  readonly #entries: string[] = [];
  readonly #assetFolders = new Set<string>();
  readonly #imports = new Map<string, readonly string[]>();
  readonly #closures = new Map<string, Set<string>>();

  constructor(rolldown: typeof Rolldown, root: string, out: string) {
    this.#rolldown = rolldown;
    this.#root = root;
    this.#sources = join(root, 'src');
    this.#main = join(this.#sources, 'main.ts');
    this.#out = out;
  }

  async run(): Promise<void> {
    await this.#bundle({ main: this.#main }, this.#mainOutput());
    // Grows while it is walked through.
    for (const entry of this.#entries) {
      // One file, although it repeats what others have: a new thread has nothing in memory yet.
      await this.#bundle({ [this.#entryName(entry)]: entry }, { codeSplitting: false });
    }
    for (const folder of this.#assetFolders) {
      const target = join(this.#out, relative(this.#sources, folder));
      cpSync(folder, target, { recursive: true, filter: isAsset });
    }
  }

  async #bundle(input: Record<string, string>, output: OutputOptions): Promise<void> {
    const options: RolldownOptions = {
      input,
      platform: 'node',
      external: (id) => !/^[./]/.test(id) && !BUNDLED.test(id),
      preserveEntrySignatures: 'allow-extension',
      plugins: [this.#plugin()],
    };
    await using bundle = await this.#rolldown(options);
    await bundle.write({
      dir: this.#out,
      format: 'esm',
      chunkFileNames: '[name].js',
      // Not minified, for readable stacks: it would save 1 ms of 80.
      comments: false,
      ...output,
    });
  }

  /** Two chunks that `run` loads at its start, the second after the settings; what is imported later is in others. */
  #mainOutput(): OutputOptions {
    const run = join(this.#sources, 'control', 'supervisor.ts');
    // The entry cannot be in one: it waits at its top level for what they do.
    const isIn = (id: string, from: string): boolean =>
      id !== this.#main && this.#closure(from).has(id);
    return {
      codeSplitting: {
        includeDependenciesRecursively: false,
        groups: [
          { name: 'base', test: (id) => isIn(id, this.#main), priority: 1 },
          { name: 'proxy', test: (id) => isIn(id, run) },
        ],
      },
    };
  }

  /** A source and all that it imports, not what it imports later. */
  #closure(from: string): Set<string> {
    const known = this.#closures.get(from);
    if (known !== undefined) return known;
    const found = new Set([from]);
    for (const id of found) for (const next of this.#imports.get(id) ?? []) found.add(next);
    this.#closures.set(from, found);
    return found;
  }

  #plugin(): Plugin {
    return {
      name: 'edgeproxy',
      transform: {
        filter: { code: 'import.meta' },
        handler: (code, id) => code.replace(RELATIVE_URL, (_all, _quote, to) => this.#url(id, to)),
      },
      moduleParsed: ({ id, importedIds }) => {
        this.#imports.set(id, importedIds);
      },
      renderChunk: (code, { fileName }) => {
        const lost = LOST.exec(code.replaceAll(BUILT_URL, ''));
        if (lost !== null) throw new Error(`Cannot build ${fileName}: ${lost[0]} means a source`);
        return code.replaceAll(BUILTIN_IMPORT, withoutImport);
      },
    };
  }

  /** `proxy-worker-main` for src/proxy/worker-main.ts: dist/ is flat, so every URL has the same depth. */
  #entryName(path: string): string {
    return relative(this.#sources, path).replace(/\.ts$/, '').split(sep).join('-');
  }

  /** What `new URL(to, import.meta.url)` of the source `from` is in dist/. */
  #url(from: string, to: string): string {
    const target = resolve(dirname(from), to);
    const place = relative(this.#sources, target);
    let path = `./${place}`;
    if (place.startsWith('..')) path = `../${relative(this.#root, target)}`;
    else if (extname(target) !== '.ts') this.#assetFolders.add(dirname(target));
    else {
      if (!existsSync(target)) throw new Error(`Cannot build ${from}: there is no ${to}`);
      // The program may start itself: it is built already, with its chunks.
      if (target !== this.#main && !this.#entries.includes(target)) this.#entries.push(target);
      path = `./${this.#entryName(target)}.js`;
    }
    return `new URL(\`${path}\`, import.meta.url)`;
  }
}

/** Builds `root`/src into `out`, which is replaced at once when all of it is there. */
export async function build(root: string, out: string): Promise<void> {
  const { rolldown } = await import('rolldown');
  const fresh = `${out}-${process.pid}`;
  const old = `${fresh}-old`;
  try {
    await new Build(rolldown, root, fresh).run();
    if (existsSync(out)) renameSync(out, old);
    renameSync(fresh, out);
  } finally {
    for (const path of [fresh, old]) rmSync(path, { recursive: true, force: true });
  }
}

/** False without development packages, and on a platform that the bundler has no binary for. */
async function hasBundler(): Promise<boolean> {
  return await import('rolldown').then(
    () => true,
    () => false,
  );
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { optional: { type: 'boolean', default: false } } });
  if (values.optional && !(await hasBundler())) {
    process.stdout.write('Not built, the bundler is not there: bin/edgeproxy runs the sources\n');
  } else {
    await build(ROOT, join(ROOT, 'dist'));
  }
}
