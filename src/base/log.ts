// The structured logger: one line per record on standard error, JSON for machines, readable for a
// terminal. It never throws and never blocks the caller for longer than one write; a record that
// cannot be written is lost. The data plane does not log: workers count, and the control plane
// reports.

import { writeSync } from 'node:fs';
import { isatty } from 'node:tty';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

type LogFields = Record<string, unknown>;
type LogFunction = (message: string, fields?: LogFields) => void;
export type Logger = Readonly<Record<LogLevel, LogFunction>>;

const STDERR = 2;
/**
 * A full pipe answers EAGAIN; a reader that is alive empties it within a few tries, a dead one
 * never does.
 */
const WRITE_TRIES_MAX = 3;
/**
 * Names the logger itself sets; a field of the same name gets a trailing underscore instead of
 * hiding it.
 */
const RESERVED = new Set(['time', 'level', 'message']);

function writeStderr(line: string): void {
  for (let tries = 0; tries < WRITE_TRIES_MAX; tries++) {
    try {
      writeSync(STDERR, line);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
    }
  }
}

/**
 * What JSON cannot carry: BigInt (exact as text when it does not fit a number), errors, maps, sets,
 * functions.
 */
function jsonValue(this: unknown, _key: string, value: unknown): unknown {
  if (typeof value === 'bigint') {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value.toString();
  }
  if (value instanceof Error) {
    const code = (value as NodeJS.ErrnoException).code;
    const cause = value.cause === undefined ? {} : { cause: value.cause };
    return { name: value.name, message: value.message, ...(code ? { code } : {}), ...cause };
  }
  if (value instanceof Map) return Object.fromEntries(value);
  if (value instanceof Set) return [...value];
  if (typeof value === 'function' || typeof value === 'symbol') return String(value);
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
  return value;
}

/**
 * JSON text of any value. A value that refuses (a cycle, a throwing getter) is replaced, never
 * thrown.
 */
function toJson(value: unknown): string {
  try {
    return JSON.stringify(value, jsonValue) ?? 'null';
  } catch {
    return '"(unprintable)"';
  }
}

function jsonLine(time: string, level: LogLevel, message: string, fields: LogFields): string {
  let line = `{"time":"${time}","level":"${level}","message":${toJson(String(message))}`;
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    line += `,${toJson(RESERVED.has(name) ? `${name}_` : name)}:${toJson(value)}`;
  }
  return `${line}}\n`;
}

/** Control characters would let logged text move the cursor or start a second line. */
function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is being escaped.
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

function readableValue(value: unknown): string {
  if (value instanceof Error) return toJson(value.message);
  if (typeof value === 'string') {
    return /^[^\s"=\\]+$/.test(value) ? oneLine(value) : oneLine(toJson(value));
  }
  return oneLine(toJson(value));
}

/** One record for a terminal, with its newline. */
export function readableLine(
  time: string,
  level: LogLevel,
  message: string,
  fields: LogFields,
): string {
  let line = `${time} ${level.toUpperCase().padEnd(5)} ${oneLine(String(message))}`;
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) line += ` ${oneLine(name)}=${readableValue(value)}`;
  }
  return `${line}\n`;
}

/**
 * Records below `level` cost one call. `json` defaults to "standard error is not a terminal";
 * `write` takes each finished line with its newline and defaults to standard error.
 */
export function createLogger(
  options: { level?: LogLevel; json?: boolean; write?: (line: string) => void } = {},
): Logger {
  const format = (options.json ?? !isatty(STDERR)) ? jsonLine : readableLine;
  const write = options.write ?? writeStderr;
  const lowest = LOG_LEVELS.indexOf(options.level ?? 'info');

  const at = (level: LogLevel): LogFunction => {
    if (LOG_LEVELS.indexOf(level) < lowest) return () => {};
    return (message, fields = {}) => {
      try {
        write(format(new Date().toISOString(), level, message, fields));
      } catch {
        // A logger that throws would turn a full disk or a broken getter into an outage.
      }
    };
  };
  return Object.freeze({
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
  });
}
