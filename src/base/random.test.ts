// Random words: as many as asked for, and never the same twice.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { test } from 'node:test';
import { randomWords } from './random.ts';

function checkWords(): void {
  const words = randomWords(64);
  assert.equal(words.length, 64);
  assert.equal(new Set([...words, ...randomWords(64)]).size, 128);
  // Each bit is set in some and clear in others.
  assert.equal(words.reduce((all, word) => all | word) >>> 0, 0xffff_ffff);
  assert.equal(words.reduce((all, word) => all & word) >>> 0, 0);
}

test('randomWords() gives different words of 32 bits each time', checkWords);

test('randomWords() does without /dev/urandom', (t) => {
  const opened = t.mock.method(fs, 'openSync', () => {
    throw new Error('ENOENT');
  });
  syncBuiltinESMExports();
  t.after(() => syncBuiltinESMExports());
  t.after(() => opened.mock.restore());
  checkWords();
  assert.equal(opened.mock.callCount(), 2);
});
