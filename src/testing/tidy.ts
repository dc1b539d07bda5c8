// Rules of the repository that neither compiler nor linter checks: who may import whom, the one door to native code and
// to SQLite, sizes, and words that must not be left behind. test/tidy.test.ts applies them, and tries each on bad input.

import { dirname, join, normalize } from 'node:path/posix';

export interface SourceFile {
  /** From the top of the repository, with `/`. */
  readonly path: string;
  readonly text: string;
}

/** `path:line: what is wrong`. */
export type Problem = string;

const FILE_LINES_MAX = 500;
const FUNCTION_LINES_MAX = 70;
const CODE_COLUMNS_MAX = 100;
/** Comments are prose, which the formatter leaves alone. */
const COMMENT_COLUMNS_MAX = 128;

/** DESIGN §3: what each folder may import besides itself. `src` is the files at the top: limits.ts is for all. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  base: [],
  sys: ['base'],
  engine: ['base', 'sys'],
  route: ['base'],
  proxy: ['base', 'sys', 'engine', 'route'],
  mesh: ['base', 'sys', 'route'],
  control: ['base', 'sys', 'engine', 'route', 'proxy', 'mesh', 'src'],
  cli: ['base', 'sys', 'engine', 'route', 'proxy', 'mesh', 'control', 'src'],
  src: ['base', 'sys', 'route', 'mesh', 'cli', 'src'],
};
const FOR_ALL = 'src/limits.ts';

/** Files that may import a module nobody else may. */
const DOORS: Readonly<Record<string, RegExp>> = {
  'node:ffi': /^src\/sys\//,
  'node:sqlite': /^src\/control\/routing-db\.ts$/,
};

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\b[^'"\n;]*?(?:\{[^}]*\}[^'"\n;]*?)?['"]([^'"\n]+)['"]/g;
const DYNAMIC_IMPORT = /\b(?:import|getBuiltinModule|require)\(\s*['"]([^'"\n]+)['"]/g;
const WORKER_URL = /new URL\(\s*['"](\.[^'"\n]+\.ts)['"]/g;

/** Split where needed, so that this file does not break its own rules. */
const FORBIDDEN: readonly (readonly [RegExp, string])[] = [
  [new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX'].join('|')})\\b`), 'unfinished work'],
  [/\b(registry\.[a-z]+js\.org|registry\.yarnpkg|jsr\.io|pypi\.org)/, 'the host of a registry'],
  [new RegExp(`(?:^|[\\s'"\`(=])/(${'work|home|root|Users'})/`), 'a path of one machine'],
  [/^export default\b/, 'a default export'],
];
const ANY_TYPE = /(?::|\bas|<|\|)\s*any\b|<[^>]*,\s*any\b|\bany\[\]/;

function isTest(path: string): boolean {
  return /\.(test|bench|fuzz|sim)\.ts$/.test(path);
}

/** The folder under src, `src` for its top, '' outside. */
function layerOf(path: string): string {
  const parts = path.split('/');
  if (parts[0] !== 'src') return '';
  return parts.length === 2 ? 'src' : (parts[1] as string);
}

/** Production code: what runs in a user's hands. */
function isProduction(path: string): boolean {
  const layer = layerOf(path);
  return layer !== '' && layer !== 'testing' && !isTest(path);
}

function importsOf(text: string): { name: string; line: number }[] {
  const found = [IMPORT, DYNAMIC_IMPORT, WORKER_URL].flatMap((pattern) => [
    ...text.matchAll(pattern),
  ]);
  return found.map((match) => ({
    name: match[1] as string,
    line: text.slice(0, match.index + match[0].length).split('\n').length,
  }));
}

function importProblems({ path, text }: SourceFile): Problem[] {
  if (!isProduction(path)) return [];
  const layer = layerOf(path);
  const problems: Problem[] = [];
  for (const { name, line } of importsOf(text)) {
    const say = (what: string): number => problems.push(`${path}:${line}: ${what}`);
    const door = DOORS[name];
    if (door !== undefined && !door.test(path)) say(`imports ${name}, which is not its business`);
    if (name.startsWith('node:') && layer === 'route') say(`route is pure: it imports ${name}`);
    if (!name.startsWith('.')) continue;
    const target = normalize(join(dirname(path), name));
    const other = layerOf(target);
    if (target === FOR_ALL || other === layer || other === '') continue;
    if (other === 'testing') say(`production code imports ${target}`);
    else if (!(MAY_IMPORT[layer] ?? []).includes(other)) say(`${layer} must not import ${target}`);
  }
  return problems;
}

/** A line that one long string makes long cannot be broken by the formatter. */
function columnsProblem(line: string): string | null {
  const trimmed = line.trimStart();
  const isComment = /^(\/\/|\/?\*)/.test(trimmed);
  if (isComment) {
    return line.length > COMMENT_COLUMNS_MAX && !/\S{80}/.test(line)
      ? `a comment of ${line.length} columns, at most ${COMMENT_COLUMNS_MAX}`
      : null;
  }
  if (line.length <= CODE_COLUMNS_MAX || /['"`/]/.test(line)) return null;
  return `${line.length} columns, at most ${CODE_COLUMNS_MAX}`;
}

function lineProblems({ path, text }: SourceFile): Problem[] {
  const lines = text.split('\n');
  const problems: Problem[] = [];
  lines.forEach((line, index) => {
    const say = (what: string): number => problems.push(`${path}:${index + 1}: ${what}`);
    for (const [pattern, what] of FORBIDDEN) if (pattern.test(line)) say(`${what}: ${line.trim()}`);
    if (!path.endsWith('.ts')) return;
    const code = line.replace(/\/\/.*$|^\s*\/?\*.*$|(['"`]).*?\1/g, '');
    if (ANY_TYPE.test(code)) say(`the type any: ${line.trim()}`);
    const columns = columnsProblem(line);
    if (columns !== null) say(columns);
  });
  if (!path.endsWith('.ts')) return problems;
  const count = text.endsWith('\n') ? lines.length - 1 : lines.length;
  if (count > FILE_LINES_MAX) problems.push(`${path}: ${count} lines, at most ${FILE_LINES_MAX}`);
  if (isProduction(path) && !text.startsWith('//')) {
    problems.push(`${path}:1: no comment that says what the file owns`);
  }
  return problems;
}

const KEYWORD = /^\s*(?:\}\s*)?(?:if|for|while|switch|else|do|try|catch|finally|with|describe)\b/;
const STARTS =
  /\bfunction\b[^;]*\{$|=> \{$|^\s*(?:(?:static|async|get|set|override)\s+|\*)*[#\w$[\].]+(?:<.*>)?\(.*\)(?:: .*)? \{$/;
const SIGNATURE_END = /^\s*\)(?:: .*)?(?: =>)? \{$/;

/** Where the function starts whose body opens at the end of line `at`, or -1. Relies on the formatter's indentation. */
function functionStart(lines: readonly string[], at: number): number {
  const line = lines[at] as string;
  if (SIGNATURE_END.test(line)) {
    const indent = line.length - line.trimStart().length;
    for (let start = at - 1; start >= 0; start--) {
      const candidate = lines[start] as string;
      if (candidate.trim() === '') continue;
      if (candidate.length - candidate.trimStart().length > indent) continue;
      return KEYWORD.test(candidate) ? -1 : start;
    }
    return -1;
  }
  return STARTS.test(line) && !KEYWORD.test(line) ? at : -1;
}

function functionProblems({ path, text }: SourceFile): Problem[] {
  if (!path.endsWith('.ts')) return [];
  const lines = text.split('\n');
  const problems: Problem[] = [];
  for (let at = 0; at < lines.length; at++) {
    const start = functionStart(lines, at);
    if (start < 0) continue;
    const line = lines[at] as string;
    const closing = `${line.slice(0, line.length - line.trimStart().length)}}`;
    const end = lines.findIndex((other, index) => index > at && other.startsWith(closing));
    const length = end - start + 1;
    if (length > FUNCTION_LINES_MAX) {
      problems.push(
        `${path}:${start + 1}: a function of ${length} lines, at most ${FUNCTION_LINES_MAX}`,
      );
    }
  }
  return problems;
}

/** Names of environment variables, without those that end in `_` (`EDGEPROXY_TEST_…` is a family, not a name). */
export function environmentNames(text: string): string[] {
  return [...new Set(text.match(/\bEDGEPROXY_[A-Z0-9_]*[A-Z0-9]\b(?!_)/g))];
}

/** Values only: a type that a used function takes or returns may be exported for whoever needs its name. */
const EXPORTED = /^export (?:async )?(?:abstract )?(?:function\*?|const|let|class) (\w+)/gm;

/** Exports of production code that no other file names. */
export function unusedExports(files: readonly SourceFile[]): Problem[] {
  const words = new Map<string, Set<string>>();
  for (const { path, text } of files) {
    for (const word of new Set(text.match(/\b[A-Za-z_$][\w$]*\b/g))) {
      const paths = words.get(word) ?? new Set();
      words.set(word, paths.add(path));
    }
  }
  return files
    .filter(({ path }) => isProduction(path))
    .flatMap(({ path, text }) =>
      [...text.matchAll(EXPORTED)]
        .filter(([, name]) => (words.get(name as string)?.size ?? 0) < 2)
        .map(([, name]) => `${path}: nobody uses the export ${name}`),
    );
}

/** All problems of one file by itself. */
export function fileProblems(file: SourceFile): Problem[] {
  return [...importProblems(file), ...lineProblems(file), ...functionProblems(file)];
}
