// How the kernel's device is told and asked, by wg(8), tried on a userspace device: to wg both are the same, and a kernel
// with WireGuard is not to be had everywhere.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KernelDevice } from '../../src/mesh/device.ts';
import type { WantedPeer } from '../../src/mesh/device-state.ts';
import { generateKeyPair, generatePresharedKey } from '../../src/mesh/key.ts';
import { MeshScene, meshProblem } from '../../src/testing/mesh-scene.ts';
import { attempt, skipReason } from '../../src/testing/netns.ts';

const problem = meshProblem();
const skip = problem === '' ? false : skipReason(problem);

function peer(values: Partial<WantedPeer>): WantedPeer {
  const { publicKey } = generateKeyPair();
  return { publicKey, presharedKey: null, endpoint: null, allowedIps: [], keepalive: 0, ...values };
}

test('mesh: wg syncconf makes a device as it is wanted, and a second time changes nothing', {
  skip,
}, async () => {
  await using scene = new MeshScene();
  scene.ok('mesh init');
  scene.ok('mesh up');
  const device = new KernelDevice(scene.name);
  const { privateKey, publicKey } = generateKeyPair();
  const applied = new Map<string, string | null>();
  const configure = async (peers: readonly WantedPeer[]): Promise<boolean> => {
    const wanted = { privateKey, listenPort: scene.port, peers };
    const isChanged = await device.configure(wanted, applied);
    applied.clear();
    for (const { publicKey: key, endpoint } of peers) applied.set(key, endpoint);
    assert.equal(await device.configure(wanted, applied), false);
    return isChanged;
  };
  const one = peer({
    presharedKey: generatePresharedKey(),
    endpoint: '192.0.2.1:51820',
    allowedIps: ['10.9.0.1/32', 'fd00:9::1/128'],
    keepalive: 25,
  });
  const two = peer({ endpoint: '[2001:db8::1]:5', allowedIps: ['10.8.0.0/16'] });
  assert.equal(await configure([one, two]), true);
  assert.equal((await device.read()).publicKey, publicKey);

  // It roams; then everything else about it changes, and the other one loses its prefixes.
  const roamed = '198.51.100.9:99';
  const set = ['set', scene.name, 'peer', one.publicKey, 'endpoint', roamed];
  assert.equal(attempt('wg', set), '');
  const changed = { ...one, keepalive: 0, presharedKey: null, allowedIps: ['10.8.0.0/16'] };
  assert.equal(await configure([changed, { ...two, allowedIps: [] }]), true);
  const { peers } = await device.read();
  const found = peers.find(({ publicKey: key }) => key === one.publicKey);
  assert.deepEqual(
    [found?.endpoint, found?.keepalive, found?.presharedKey, found?.allowedIps],
    [roamed, 0, null, ['10.8.0.0/16']],
  );
  assert.equal(await configure([two]), true);
  assert.deepEqual(
    (await device.read()).peers.map(({ publicKey: key }) => key),
    [two.publicKey],
  );
  scene.ok('mesh down');
});
