// A real browser for tests of the dashboard: headless Chromium, pages that note everything that must not happen, and one
// in a network namespace where clients have public addresses.

import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import type { HostPort } from './proxy-process.ts';
import { until } from './wait.ts';

const PATHS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const CHROMIUM = PATHS.find((path) => existsSync(path));

/** Why there is no browser, '' when there is one. */
export const NO_BROWSER = CHROMIUM === undefined ? `None of ${PATHS.join(', ')} is installed` : '';

/** Starts the browser; `wrapper` goes before its command, as in a namespace. */
export function startBrowser(directory: string, wrapper: readonly string[] = []): Promise<Browser> {
  let executablePath = CHROMIUM as string;
  if (wrapper.length > 0) {
    const script = join(directory, 'browser.sh');
    writeFileSync(script, `#!/bin/sh\nexec ${wrapper.join(' ')} ${executablePath} "$@"\n`);
    chmodSync(script, 0o700);
    executablePath = script;
  }
  return chromium.launch({ executablePath, args: ['--no-sandbox'] });
}

/** The dashboard in a page of its own, with what must not have happened there. */
export class DashboardPage implements AsyncDisposable {
  readonly page: Page;
  readonly origin: string;
  /** Errors of scripts and of the console, and requests to anywhere else. */
  readonly problems: string[] = [];
  /** Paths asked for, without their query. */
  readonly requests: string[] = [];

  constructor(page: Page, at: HostPort) {
    this.page = page;
    this.origin = `http://${at.host}:${at.port}`;
    page.on('pageerror', (error) => this.problems.push(`error: ${error.message}`));
    page.on('console', (message) => {
      if (message.type() === 'error') this.problems.push(`console: ${message.text()}`);
    });
    page.on('request', (request) => {
      const { origin, pathname } = new URL(request.url());
      this.requests.push(pathname);
      if (origin !== this.origin) this.problems.push(`request: ${request.url()}`);
    });
  }

  async open(): Promise<this> {
    await this.page.goto(`${this.origin}/`);
    return this;
  }

  /** Waits until the stream brings the status. */
  live(): Promise<unknown> {
    return this.page.waitForSelector('body[data-connection="live"]');
  }

  /** The row of this backend in the table of backends. */
  row(id: string) {
    return this.page.locator(`#backends-table tbody tr[data-id=${JSON.stringify(id)}]`);
  }

  /** The texts of all elements that a selector finds. */
  texts(selector: string): Promise<string[]> {
    return this.page.locator(selector).allInnerTexts();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.page.context().close();
  }
}

/** A new page, not yet opened, in a context of its own. */
export async function newDashboard(
  browser: Browser,
  at: HostPort,
  width = 1280,
): Promise<DashboardPage> {
  const context = await browser.newContext({
    viewport: { width, height: 800 },
    reducedMotion: 'reduce',
  });
  context.setDefaultTimeout(15_000);
  return new DashboardPage(await context.newPage(), at);
}

/** Runs a command where every address of 11.0.0.0/8 is one of the machine's own. */
export const PUBLIC_ADDRESSES = [
  'unshare',
  '-n',
  'sh',
  '-c',
  'ip link set lo up && ip route add local 11.0.0.0/8 dev lo && exec "$@"',
  'sh',
] as const;

/** Goes before a command that shall run in the network of that process. */
export function networkOf(pid: number): string[] {
  return ['nsenter', '-t', String(pid), '-n'];
}

/** A program that runs until it is disposed of; waits for its first output. */
export async function startProgram(command: readonly string[]): Promise<AsyncDisposable> {
  const [program = '', ...args] = command;
  const child: ChildProcess = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let isReady = false;
  child.stdout?.once('data', () => {
    isReady = true;
  });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  await until(`${args.at(-1)} to be ready`, () => isReady);
  return {
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await exited;
    },
  };
}
