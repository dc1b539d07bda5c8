// The proxy's side of the mesh helper (helper-main.ts): starts it, asks it, hears from it, and starts it again when it ends.

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { ProxyError } from '../base/errors.ts';
import type { FromHelper, ToHelper } from './helper-protocol.ts';
import type { MeshOptions, MeshReport, MeshStatus } from './keeper.ts';
import type { MeshPeer } from './peer.ts';

const HELPER_MAIN = fileURLToPath(new URL('./helper-main.ts', import.meta.url));
const RESTART_MS = 1000;
const RESTART_MS_MAX = 60_000;

export class MeshHelper {
  readonly #options: MeshOptions;
  readonly #report: MeshReport;
  #child: ChildProcess | null = null;
  #waiting: { of: ToHelper['kind']; done(message: FromHelper & { kind: 'done' }): void }[] = [];
  #peers: readonly MeshPeer[] = [];
  readonly #pathMtus = new Map<string, number>();
  #restart: NodeJS.Timeout | undefined;
  #restartMs = RESTART_MS;
  #closed = false;
  #status: MeshStatus | null = null;
  /** Of helpers that are gone. */
  #errorsBefore = 0;

  constructor(options: MeshOptions, report: MeshReport) {
    this.#options = options;
    this.#report = report;
  }

  /** As last heard, null before the device is there. */
  get status(): MeshStatus | null {
    if (this.#status === null) return null;
    return { ...this.#status, errors: this.#status.errors + this.#errorsBefore };
  }

  /** Makes or adopts the device. Throws ProxyError. */
  async up(): Promise<MeshStatus> {
    this.#start();
    await this.#ask({ kind: 'up', options: this.#options });
    return this.#status as MeshStatus;
  }

  /** The first peers. Throws ProxyError when the mesh cannot be set up. */
  async setPeers(peers: readonly MeshPeer[]): Promise<void> {
    this.#peers = peers;
    await this.#ask({ kind: 'peers', peers });
  }

  changePeers(peers: readonly MeshPeer[]): void {
    this.#peers = peers;
    this.#tell({ kind: 'change', peers });
  }

  /** The most that routes to a peer carry; null: what its row and the interface say. */
  setPathMtu(id: string, mtu: number | null): void {
    if (mtu === null) this.#pathMtus.delete(id);
    else this.#pathMtus.set(id, mtu);
    this.#tell({ kind: 'path-mtu', id, mtu });
  }

  /** Ends the helper, and the tunnels too if `down`. This process ends only after it. */
  async close(down: boolean): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#restart);
    if (down) {
      await this.#ask({ kind: 'down' }).catch((error: Error) =>
        this.#report('error', 'The mesh interface cannot be removed', { reason: error.message }),
      );
    }
    this.#tell({ kind: 'release' });
  }

  #start(): void {
    const child = fork(HELPER_MAIN, [], {
      execArgv: ['--disable-warning=ExperimentalWarning'],
      // Its settings come by message, and no secret of ours is its business.
      env: { PATH: process.env.PATH },
      stdio: ['ignore', 2, 2, 'ipc'],
    });
    this.#child = child;
    child.on('message', (message: FromHelper) => this.#hear(message));
    child.on('error', () => {});
    child.on('exit', (code, signal) => this.#ended(child, signal ?? `exit code ${code}`));
  }

  #hear(message: FromHelper): void {
    if (message.kind === 'report') {
      this.#report(message.level, message.message, message.fields);
      return;
    }
    if (message.status !== null) this.#status = message.status;
    if (message.kind !== 'done') return;
    const at = this.#waiting.findIndex(({ of }) => of === message.of);
    if (at >= 0) this.#waiting.splice(at, 1)[0]?.done(message);
  }

  #tell(message: ToHelper): void {
    if (this.#child?.connected) this.#child.send(message, () => {});
  }

  #ask(message: ToHelper): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = ({ error }: FromHelper & { kind: 'done' }): void => {
        if (error === null) resolve();
        else reject(new ProxyError(error.code, error.message, { retry: 'always' }));
      };
      this.#waiting.push({ of: message.kind, done });
      if (this.#child?.connected) this.#child.send(message, () => {});
      else this.#failWaiting('it is not running');
    });
  }

  #failWaiting(reason: string): void {
    const error = { code: 'ERR_MESH_HELPER', message: `The mesh helper is no help: ${reason}` };
    for (const { of, done } of this.#waiting.splice(0)) {
      done({ kind: 'done', of, error, status: null });
    }
  }

  #ended(child: ChildProcess, how: string): void {
    if (child !== this.#child) return;
    this.#child = null;
    this.#failWaiting(`it ended with ${how}`);
    if (this.#closed) return;
    this.#errorsBefore = this.#errorsBefore + (this.#status?.errors ?? 0) + 1;
    if (this.#status !== null) this.#status = { ...this.#status, errors: 0 };
    const fields = { event: 'mesh_helper_ended', how };
    this.#report('error', 'The mesh helper has ended, the tunnels stay; starting it again', fields);
    this.#restart = setTimeout(() => void this.#again(), this.#restartMs).unref();
    // Ever later: one that may not do anything, because root was given up, will not be more able in a second.
    this.#restartMs = Math.min(RESTART_MS_MAX, this.#restartMs * 2);
  }

  /** A new helper for a mesh that is up. */
  async #again(): Promise<void> {
    try {
      await this.up();
      await this.setPeers(this.#peers);
      for (const [id, mtu] of this.#pathMtus) this.setPathMtu(id, mtu);
      this.#restartMs = RESTART_MS;
    } catch (error) {
      const fields = { event: 'mesh_error', reason: (error as Error).message };
      this.#report('error', 'The mesh cannot be followed', fields);
      // It ends, and is started once more.
      this.#child?.disconnect();
    }
  }
}
