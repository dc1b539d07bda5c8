import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { until } from '../testing/wait.ts';
import { LogOutput } from './log-output.ts';

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'edgeproxy-test-'));
});
after(() => rmSync(directory, { recursive: true }));

const line = (index: number): string => `${index} ${'x'.repeat(index % 300)}\n`;

/** Both ends of a pipe. */
function openPipe(name: string): { read: number; write: number } {
  const path = join(directory, name);
  assert.equal(spawnSync('mkfifo', [path]).status, 0);
  const read = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return { read, write: openSync(path, constants.O_WRONLY) };
}

/** What the pipe holds now. */
function readNow(fd: number): string {
  const buffer = Buffer.alloc(65_536);
  let text = '';
  for (;;) {
    let count = 0;
    try {
      count = readSync(fd, buffer);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
    if (count === 0) return text;
    text += buffer.toString('latin1', 0, count);
  }
}

test('LogOutput writes whole lines in order to a file, after what is there already', () => {
  const path = join(directory, 'file');
  const fd = openSync(path, 'w');
  const output = new LogOutput(fd);
  const lines = Array.from({ length: 5000 }, (_, index) => line(index));
  for (const text of lines.slice(0, 100)) output.add(text);
  output.flush();
  for (const text of lines.slice(100)) output.add(text);
  output.close();
  closeSync(fd);
  assert.equal(readFileSync(path, 'utf8'), lines.join(''));
  assert.equal(output.dropped, 0);
});

test('LogOutput keeps a bounded part of what a stuck reader does not take, and loses no line silently', async () => {
  const { read, write } = openPipe('stuck');
  const output = new LogOutput(write);
  const count = 20_000;
  for (let index = 0; index < count; index++) {
    output.add(line(index));
    if (index % 100 === 0) output.flush();
  }
  assert.ok(output.isFull);
  assert.ok(output.dropped > 0 && output.dropped < count, `${output.dropped} dropped`);
  const kept = count - output.dropped;
  let text = '';
  await until('all lines that were kept', () => {
    text += readNow(read);
    return text.split('\n').length - 1 === kept;
  });
  const numbers = text
    .split('\n')
    .slice(0, -1)
    .map((got) => {
      const index = Number.parseInt(got, 10);
      assert.equal(`${got}\n`, line(index), 'a whole line');
      return index;
    });
  assert.deepEqual(
    numbers,
    numbers.toSorted((one, two) => one - two),
  );
  // The reader is back: lines go through again.
  output.add('again\n');
  output.flush();
  assert.equal(readNow(read), 'again\n');
  output.close();
  closeSync(read);
  closeSync(write);
});

test('LogOutput does not make the pipe non-blocking for others that have it', () => {
  const { read, write } = openPipe('shared');
  const output = new LogOutput(write);
  const flags = readFileSync(`/proc/self/fdinfo/${write}`, 'utf8');
  const octal = /flags:\s+(\d+)/.exec(flags)?.[1] ?? '';
  assert.equal(Number.parseInt(octal, 8) & constants.O_NONBLOCK, 0);
  output.close();
  closeSync(read);
  closeSync(write);
});

test('LogOutput drops and counts when the reader has gone, when it ends, and when there is no output', () => {
  const { read, write } = openPipe('gone');
  const output = new LogOutput(write);
  closeSync(read);
  for (let index = 0; index < 10; index++) output.add('x\n');
  output.flush();
  assert.equal(output.dropped, 10);
  output.add('x\n');
  assert.equal(output.dropped, 11);
  output.close();
  closeSync(write);

  const full = openPipe('full');
  const last = new LogOutput(full.write);
  for (let index = 0; index < 3000; index++) last.add(line(299));
  last.close();
  const taken = readNow(full.read).split('\n').length - 1;
  assert.ok(taken > 0);
  assert.equal(last.dropped, 3000 - taken);
  closeSync(full.read);
  closeSync(full.write);

  const none = new LogOutput(9999);
  none.add('x\n');
  none.flush();
  none.close();
  assert.equal(none.dropped, 1);
});
