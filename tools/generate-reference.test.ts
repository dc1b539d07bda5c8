// The reference documents in the repository are what the program would generate now.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { SETTING_KEYS, SETTINGS } from '../src/config.ts';
import { SETTINGS_FILE, settingsReference } from './generate-reference.ts';

test('docs/reference/settings.md is current (run tools/generate-reference.ts)', () => {
  assert.equal(readFileSync(SETTINGS_FILE, 'utf8'), settingsReference());
});

test('settingsReference() has every setting once', () => {
  const headings = settingsReference().match(/^## .+$/gm);
  assert.deepEqual(
    headings,
    SETTING_KEYS.map((key) => `## ${SETTINGS[key].env}`),
  );
});
