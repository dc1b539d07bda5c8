// routing.db: creating, opening and reading it, and telling whether it changed. The only file that
// imports node:sqlite; routing-watch.ts follows changes, routing-edit.ts makes them. `run` opens it
// read-only. Every failure is a ProxyError that says what to do about the file.

import { closeSync, openSync, readSync, realpathSync, statSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { errorMessage, ProxyError } from '../base/errors.ts';
import { ACCESS_ROWS_MAX, PEERS_MAX } from '../limits.ts';
import type { AccessRow } from './access-rows.ts';
import { PEER_COLUMNS, type PeerRow } from './mesh-rows.ts';
import { COLUMNS, parseRow, type RawBackend, type RowProblem } from './routing-rows.ts';

/** Which file, and which state of it, an open handle has: another `inode` means it was replaced. */
interface FileState {
  readonly device: bigint;
  readonly inode: bigint;
  readonly bytes: bigint;
  readonly modifiedNs: bigint;
}

/** An open database. `version` is SQLite's data_version at the last read, -1 before the first. */
export interface RoutingDb {
  readonly path: string;
  readonly handle: DatabaseSync;
  readonly versionStatement: StatementSync;
  file: FileState;
  version: number;
}

export interface RoutingRows {
  readonly backends: readonly RawBackend[];
  readonly problems: readonly RowProblem[];
  /** The table `access`, not checked yet; empty without that table. An error when only this table cannot be used. */
  readonly access: readonly AccessRow[] | ProxyError;
  /** The table `peers`, in the same way. */
  readonly peers: readonly PeerRow[] | ProxyError;
}

/** How long a command, or the start of `run`, waits for another process's write to end. */
const OPEN_BUSY_TIMEOUT_MS = 2000;

// Primary SQLite result codes (the low byte of an extended one), sqlite.org/rescode.html.
const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;
const SQLITE_READONLY = 8;
const SQLITE_CORRUPT = 11;
const SQLITE_CANTOPEN = 14;
const SQLITE_NOTADB = 26;

export function fileState(path: string): FileState {
  const { dev, ino, size, mtimeNs } = statSync(path, { bigint: true });
  return { device: dev, inode: ino, bytes: size, modifiedNs: mtimeNs };
}

/** Bytes 18 and 19 of the header are 2 for a WAL database (sqlite.org/fileformat2.html). */
function isWalFile(path: string): boolean {
  const header = new Uint8Array(20);
  try {
    const fd = openSync(path, 'r');
    try {
      readSync(fd, header, 0, header.length, 0);
    } finally {
      closeSync(fd);
    }
  } catch {
    return false;
  }
  return header[18] === 2;
}

/** The flag that makes another command mean this file. */
function pathFlag(path: string): string {
  return path === 'routing.db' ? '' : ` --db-path ${path}`;
}

function sqliteReason(path: string, error: unknown): [code: string, reason: string] {
  const primary = ((error as { errcode?: number }).errcode ?? 0) & 0xff;
  switch (primary) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ['ERR_ROUTING_DB_LOCKED', 'locked by another process'];
    case SQLITE_NOTADB:
      return ['ERR_ROUTING_DB_FORMAT', 'not a SQLite database'];
    case SQLITE_CORRUPT:
      return ['ERR_ROUTING_DB_CORRUPT', 'the file is damaged or half written'];
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
      if (isWalFile(path)) {
        const fix = 'make it writable or convert the file with PRAGMA journal_mode=DELETE';
        return ['ERR_ROUTING_DB_UNREADABLE', `WAL mode needs a writable directory, ${fix}`];
      }
      return [
        'ERR_ROUTING_DB_UNREADABLE',
        'check its permissions, and for an interrupted write (a -journal file)',
      ];
    default:
      if (/no column named|no such column/.test(errorMessage(error))) {
        const fix = `add it with: edgeproxy init${pathFlag(path)}`;
        return ['ERR_ROUTING_DB_SCHEMA', `${errorMessage(error)}, ${fix}`];
      }
      return ['ERR_ROUTING_DB_UNREADABLE', errorMessage(error)];
  }
}

/** Any failure on `path` as a ProxyError that says what to do. */
export function routingDbError(path: string, action: string, error: unknown): ProxyError {
  if (error instanceof ProxyError) return error;
  const errno = (error as NodeJS.ErrnoException).code;
  const say = (code: string, reason: string): ProxyError =>
    new ProxyError(code, `Cannot ${action} routing database "${path}": ${reason}`, {
      source: 'usage',
      retry: 'always',
      cause: error,
    });
  if (errno === 'ENOENT' || errno === 'ENOTDIR') {
    const fix = `create it with: edgeproxy init${pathFlag(path)}`;
    return say('ERR_ROUTING_DB_MISSING', `no such file, ${fix}`);
  }
  if (errno === 'ERR_SQLITE_ERROR') return say(...sqliteReason(path, error));
  return say('ERR_ROUTING_DB_UNREADABLE', errorMessage(error));
}

/**
 * Opens an existing database. Read-only unless `writable`; throws a ProxyError that says what to
 * do.
 */
export function openRoutingDb(
  path: string,
  options: { writable?: boolean; busyTimeoutMs?: number } = {},
): RoutingDb {
  let handle: DatabaseSync | undefined;
  try {
    if (statSync(path).isDirectory()) throw new Error('it is a directory');
    // The state before opening: a replacement in between shows as a difference at the next check.
    const file = fileState(path);
    handle = new DatabaseSync(path, {
      readOnly: options.writable !== true,
      timeout: options.busyTimeoutMs ?? OPEN_BUSY_TIMEOUT_MS,
    });
    const versionStatement = handle.prepare('PRAGMA data_version');
    versionStatement.setReturnArrays(true);
    return { path, handle, versionStatement, file, version: -1 };
  } catch (error) {
    handle?.close();
    throw routingDbError(path, 'open', error);
  }
}

/**
 * Column order as in `COLUMNS`, so that an INSERT without a column list means what it looks like.
 */
const SCHEMA = `CREATE TABLE backends(
  id TEXT PRIMARY KEY NOT NULL,
  app TEXT, region TEXT, country TEXT,
  wg_ip TEXT, port INTEGER,
  healthy INTEGER DEFAULT 1,
  weight NUMERIC DEFAULT 1,
  soft_limit INTEGER DEFAULT 100,
  hard_limit INTEGER DEFAULT 0,
  deleted INTEGER DEFAULT 0
)`;

/**
 * Makes the file and the table where they are missing, and adds the optional columns an older table
 * lacks; never changes a row. The file is left in SQLite's default rollback-journal mode on
 * purpose: it is then one file that can be renamed over (a `-wal` left beside a new file would be
 * replayed into it) and read from a read-only directory. WAL databases work too, as long as their
 * owner does not replace them by rename.
 */
export function initRoutingDb(path: string): 'created' | 'upgraded' | 'present' {
  let handle: DatabaseSync | undefined;
  try {
    handle = new DatabaseSync(path, { timeout: OPEN_BUSY_TIMEOUT_MS });
    const present = tableColumns(handle, 'backends');
    if (present.size === 0) {
      handle.exec(SCHEMA);
      handle.exec(PEERS_SCHEMA);
      return 'created';
    }
    const absent = COLUMNS.filter(
      ({ name, required }) => !required && !isSpareColumn(name) && !present.has(name),
    );
    addColumns(handle, absent);
    return absent.length > 0 ? 'upgraded' : 'present';
  } catch (error) {
    throw routingDbError(path, 'create', error);
  } finally {
    handle?.close();
  }
}

/** The tunnels of the mesh; allowed_ips NULL: the addresses planned from the key. */
const PEERS_SCHEMA = `CREATE TABLE peers(
  id TEXT PRIMARY KEY NOT NULL,
  kind TEXT NOT NULL DEFAULT 'backend',
  public_key TEXT NOT NULL,
  endpoint TEXT,
  allowed_ips TEXT,
  keepalive INTEGER DEFAULT 0,
  mtu INTEGER,
  deleted INTEGER DEFAULT 0,
  preshared_key TEXT
)`;

/** Makes the table `peers`, or the optional columns it lacks. True when there was something to do. */
export function addPeersTable({ handle }: RoutingDb): boolean {
  const present = tableColumns(handle, 'peers');
  if (present.size === 0) {
    handle.exec(PEERS_SCHEMA);
    return true;
  }
  const absent = PEER_COLUMNS.filter(
    (name) => !present.has(name) && name !== 'id' && name !== 'public_key',
  );
  for (const name of absent) handle.exec(`ALTER TABLE peers ADD COLUMN ${name} TEXT`);
  return absent.length > 0;
}

const SPARE_FAMILIES = ['check', 'drain', 'proxy'] as const;
type SpareFamily = (typeof SPARE_FAMILIES)[number];

/** Columns that few need: made when first used, so that a plain table keeps the eleven that INSERTs expect. */
function isSpareColumn(name: string): boolean {
  return SPARE_FAMILIES.some((family) => name.startsWith(family));
}

function addColumns(handle: DatabaseSync, columns: typeof COLUMNS): void {
  for (const { name, missing, type = 'TEXT' } of columns) {
    const declared = missing === null ? type : `NUMERIC DEFAULT ${missing}`;
    handle.exec(`ALTER TABLE backends ADD COLUMN ${name} ${declared}`);
  }
}

/** Rows match in any order, so the key is what keeps one client from having two of them. */
const ACCESS_SCHEMA = `CREATE TABLE access(
  app TEXT NOT NULL DEFAULT '*',
  action TEXT NOT NULL CHECK (action IN ('allow', 'deny')),
  match TEXT NOT NULL,
  note TEXT,
  PRIMARY KEY (app, match)
) WITHOUT ROWID`;

/** Makes the table `access`, or the optional columns it lacks: few databases need it. */
export function addAccessTable({ handle }: RoutingDb): void {
  const present = tableColumns(handle, 'access');
  if (present.size === 0) {
    handle.exec(ACCESS_SCHEMA);
    return;
  }
  if (!present.has('app')) handle.exec("ALTER TABLE access ADD COLUMN app TEXT DEFAULT '*'");
  if (!present.has('note')) handle.exec('ALTER TABLE access ADD COLUMN note TEXT');
}

/** Adds those of the columns `check_…`, or `draining` and `drain_…`, or `proxy_…`, that the table lacks. */
export function addSpareColumns({ handle }: RoutingDb, family: SpareFamily): void {
  const present = tableColumns(handle, 'backends');
  addColumns(
    handle,
    COLUMNS.filter(({ name }) => name.startsWith(family) && !present.has(name)),
  );
}

export function hasColumn({ handle }: RoutingDb, name: string): boolean {
  return tableColumns(handle, 'backends').has(name);
}

/** Lower-case names of the columns of a table; empty without such a table. */
function tableColumns(handle: DatabaseSync, table: 'backends' | 'access' | 'peers'): Set<string> {
  const rows = handle.prepare(`PRAGMA table_info(${table})`).all();
  return new Set(rows.map((row) => String(row.name).toLowerCase()));
}

export function closeRoutingDb(db: RoutingDb): void {
  if (db.handle.isOpen) db.handle.close();
}

/**
 * Changes when another connection, of any process, has committed; throws when the file is locked.
 */
function dataVersion(db: RoutingDb): number {
  return (db.versionStatement.get() as unknown as [number])[0];
}

function schemaError(db: RoutingDb, reason: string): ProxyError {
  const message = `Cannot read routing database "${db.path}": ${reason}`;
  return new ProxyError('ERR_ROUTING_DB_SCHEMA', message, { source: 'usage', retry: 'always' });
}

/**
 * The select that yields `COLUMNS` in order, with a literal where the table lacks an optional one.
 */
function selectText(db: RoutingDb): string {
  const present = tableColumns(db.handle, 'backends');
  if (present.size === 0) {
    const fix = `add it with: edgeproxy init${pathFlag(db.path)}`;
    throw schemaError(db, `it has no table backends, ${fix}`);
  }
  const absent = COLUMNS.filter((column) => column.required && !present.has(column.name));
  if (absent.length > 0) {
    const names = absent.map((column) => column.name).join(', ');
    throw schemaError(db, `table backends lacks the column ${names}`);
  }
  const list = COLUMNS.map((column) =>
    present.has(column.name) ? column.name : `${column.missing ?? 'NULL'}`,
  );
  return `SELECT ${list.join(', ')} FROM backends ORDER BY id`;
}

/**
 * Arrays, not objects, and all at once: the shared lock, which stops writers of a non-WAL file, is
 * held briefly.
 */
function selectRows(db: RoutingDb, sql: string): unknown[][] {
  const statement = db.handle.prepare(sql);
  statement.setReturnArrays(true);
  try {
    return statement.all() as unknown as unknown[][];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_OUT_OF_RANGE') throw error;
    // An integer above 2^53 somewhere: read again in the slower form that can carry it to its row's
    // problem.
    statement.setReadBigInts(true);
    return (statement.all() as unknown as unknown[][]).map((row) =>
      row.map((cell) =>
        typeof cell === 'bigint' && Number.isSafeInteger(Number(cell)) ? Number(cell) : cell,
      ),
    );
  }
}

/** Every row of the table `access`, as text. */
function selectAccess(db: RoutingDb): AccessRow[] | ProxyError {
  const present = tableColumns(db.handle, 'access');
  if (present.size === 0) return [];
  const absent = ['action', 'match'].filter((name) => !present.has(name));
  if (absent.length > 0) {
    return schemaError(db, `table access lacks the column ${absent.join(', ')}`);
  }
  const list = ['app', 'action', 'match', 'note'].map((name) =>
    present.has(name) ? `CAST(${name} AS TEXT)` : 'NULL',
  );
  const sql = `SELECT ${list.join(', ')} FROM access LIMIT ${ACCESS_ROWS_MAX + 1}`;
  const rows = selectRows(db, sql) as unknown as AccessRow[];
  if (rows.length <= ACCESS_ROWS_MAX) return rows;
  return schemaError(db, `table access has more than ${ACCESS_ROWS_MAX} rows`);
}

/** Every row of the table `peers`, as text. */
function selectPeers(db: RoutingDb): PeerRow[] | ProxyError {
  const present = tableColumns(db.handle, 'peers');
  if (present.size === 0) return [];
  const absent = ['id', 'public_key'].filter((name) => !present.has(name));
  if (absent.length > 0) {
    return schemaError(db, `table peers lacks the column ${absent.join(', ')}`);
  }
  const list = PEER_COLUMNS.map((name) => (present.has(name) ? `CAST(${name} AS TEXT)` : 'NULL'));
  const sql = `SELECT ${list.join(', ')} FROM peers ORDER BY id LIMIT ${PEERS_MAX + 1}`;
  const rows = selectRows(db, sql) as unknown as PeerRow[];
  if (rows.length <= PEERS_MAX) return rows;
  return schemaError(db, `table peers has more than ${PEERS_MAX} rows`);
}

/** The table `peers` alone. Throws a ProxyError when it cannot be read. */
export function readPeers(db: RoutingDb): readonly PeerRow[] {
  try {
    const peers = selectPeers(db);
    if (peers instanceof ProxyError) throw peers;
    return peers;
  } catch (error) {
    throw routingDbError(db.path, 'read', error);
  }
}

/** The table `access` alone. Throws a ProxyError when it cannot be read. */
export function readAccess(db: RoutingDb): readonly AccessRow[] {
  try {
    const access = selectAccess(db);
    if (access instanceof ProxyError) throw access;
    return access;
  } catch (error) {
    throw routingDbError(db.path, 'read', error);
  }
}

/**
 * Reads every row; bad ones become problems. Throws a ProxyError when the database cannot be read
 * at all.
 */
export function readRouting(db: RoutingDb): RoutingRows {
  let rows: unknown[][];
  let access: RoutingRows['access'];
  let peers: RoutingRows['peers'];
  try {
    // Version before rows: a commit in between makes the next check read once more, never once too
    // few.
    const version = dataVersion(db);
    rows = selectRows(db, selectText(db));
    access = selectAccess(db);
    peers = selectPeers(db);
    db.version = version;
  } catch (error) {
    throw routingDbError(db.path, 'read', error);
  }
  const backends: RawBackend[] = [];
  const problems: RowProblem[] = [];
  const ids = new Set<string>();
  for (const row of rows) {
    const backend = parseRow(row, problems);
    if (backend === null) continue;
    // Possible only where the table was made without the primary key, or with numeric and text ids
    // mixed.
    if (ids.has(backend.id)) {
      const value = JSON.stringify(backend.id);
      problems.push({ id: backend.id, column: 'id', value, reason: 'must be unique' });
      continue;
    }
    ids.add(backend.id);
    backends.push(backend);
  }
  return { backends, problems, access, peers };
}

/**
 * True when a new read could give other rows: a commit, or a write to the file that SQLite does not
 * count.
 */
export function routingDbState(db: RoutingDb): 'same' | 'committed' | 'replaced' {
  const now = fileState(db.path);
  if (now.device !== db.file.device || now.inode !== db.file.inode) return 'replaced';
  const version = dataVersion(db);
  const touched = now.bytes !== db.file.bytes || now.modifiedNs !== db.file.modifiedNs;
  db.file = now;
  if (version !== db.version) return 'committed';
  // Rewritten in place (cp over the file): equal change counters are possible, so trust no cached
  // page.
  return touched ? 'replaced' : 'same';
}

/** The file behind any symbolic links, or `path` itself while it does not exist. */
export function resolvedPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
