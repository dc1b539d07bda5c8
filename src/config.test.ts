import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  ConfigError,
  defaultText,
  flagAttribute,
  flagName,
  loadConfig,
  SETTING_KEYS,
  SETTINGS,
  type SettingKey,
} from './config.ts';

const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-config-'));
after(() => rmSync(directory, { recursive: true }));

let files = 0;
function toml(text: string): string {
  const file = join(directory, `settings-${++files}.toml`);
  writeFileSync(file, text);
  return file;
}

function problemsOf(flags: Record<string, string | boolean>, env: Record<string, string> = {}) {
  try {
    loadConfig(flags, env);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.message, error.problems.join('\n'));
    return error.problems;
  }
  return [];
}

const MESH_DEFAULTS = {
  meshEnabled: false,
  meshDevice: 'auto',
  meshInterface: 'edge0',
  meshKeyPath: 'mesh.key',
  meshListenPort: 51_820,
  meshEndpoint: null,
  meshAddress: [],
  meshMtu: 1420,
  meshProbeIntervalSecs: 1,
  meshDeadSecs: 5,
  meshDegradedLoss: 0.1,
  meshDegradedRttMs: 0,
  meshDegradedRttFactor: 5,
};

test('loadConfig() gives the documented defaults', () => {
  assert.deepEqual(loadConfig({}, {}), {
    listen: [{ app: '*', host: '0.0.0.0', port: 8080, family: 4 }],
    dbPath: 'routing.db',
    region: 'sa',
    country: null,
    dbReloadSecs: 5,
    bindingTtlSecs: 600,
    bindingGcIntervalSecs: 60,
    clientTableSize: 1_000_000,
    geoipPath: null,
    regionMapPath: null,
    workers: availableParallelism(),
    engine: 'auto',
    maxConnections: null,
    connectTimeoutMs: 3000,
    connectTotalTimeoutMs: 8000,
    connectRetries: 2,
    idleTimeoutSecs: 3600,
    halfClosedTimeoutSecs: 30,
    keepaliveSecs: 60,
    userTimeoutSecs: 0,
    proxyProtocolIn: 'off',
    trustedProxies: [],
    proxyHeaderTimeoutMs: 5000,
    proxyProtocolOut: 'off',
    maxConnectionsPerClient: 0,
    rateLimitEnabled: false,
    rateLimitMaxRequests: 100,
    rateLimitWindowSecs: 1,
    rateLimitBurst: 10,
    rateLimitDryRun: false,
    accessDryRun: false,
    circuitFailureThreshold: 5,
    circuitSuccessThreshold: 3,
    circuitTimeoutSecs: 10,
    circuitFailOpen: true,
    slowStartSecs: 0,
    healthCheckEnabled: true,
    healthCheckIntervalSecs: 5,
    healthCheckTimeoutSecs: 2,
    healthCheckType: 'tcp',
    healthCheckPath: '/health',
    healthHealthyThreshold: 2,
    healthUnhealthyThreshold: 3,
    tcpFastOpen: true,
    bufferMemoryMb: 256,
    metricsPublic: false,
    adminToken: null,
    adminTokenFile: null,
    metricsListen: { host: '127.0.0.1', port: 9090, family: 4 },
    metricsBackendsMax: 1000,
    user: null,
    takeover: true,
    ...MESH_DEFAULTS,
    shutdownTimeoutSecs: 30,
    log: 'info',
    sessionLog: 'off',
    sessionLogSample: 0.01,
    sessionLogIntervalSecs: 0,
    warnings: [],
  });
});

test('loadConfig() accepts its own default of every setting, written out', () => {
  const written: Partial<Record<SettingKey, string>> = {
    country: 'BR',
    geoipPath: 'x.mmdb',
    regionMapPath: 'x.toml',
    workers: 'auto',
    maxConnections: 'auto',
    meshAddress: 'none',
    user: 'edge:web',
    debug: 'false',
    adminToken: 'a-token-of-sixteen',
  };
  const env = SETTING_KEYS.map((key) => [SETTINGS[key].env, written[key] ?? defaultText(key)]);
  const config = loadConfig({}, Object.fromEntries(env));
  const expected = {
    country: 'BR',
    geoipPath: 'x.mmdb',
    regionMapPath: 'x.toml',
    adminToken: 'a-token-of-sixteen',
    adminTokenFile: 'none',
    user: 'edge:web',
  };
  assert.deepEqual(config, { ...loadConfig({}, {}), ...expected });
});

test('loadConfig() never repeats a secret', () => {
  const [problem, ...others] = problemsOf({}, { EDGEPROXY_ADMIN_TOKEN: 'too short' });
  assert.equal(others.length, 0);
  assert.match(problem as string, /^EDGEPROXY_ADMIN_TOKEN is not usable, allowed: 16 to 512/);
  assert.doesNotMatch(problem as string, /too short/);
});

test('loadConfig() wants to know whom to trust when PROXY headers are accepted', () => {
  const said = problemsOf({}, { EDGEPROXY_PROXY_PROTOCOL_IN: 'any' });
  assert.equal(said.length, 1);
  assert.match(said[0] ?? '', /^EDGEPROXY_TRUSTED_PROXIES is none, allowed .*PROXY_PROTOCOL_IN/);
  const env = { EDGEPROXY_PROXY_PROTOCOL_IN: 'V2', EDGEPROXY_TRUSTED_PROXIES: '10.0.0.0/8, ::1' };
  const { proxyProtocolIn, trustedProxies } = loadConfig({}, env);
  assert.equal(proxyProtocolIn, 'v2');
  assert.deepEqual(trustedProxies, [
    { words: [0, 0, 0xffff, 0x0a00_0000], length: 104 },
    { words: [0, 0, 0, 1], length: 128 },
  ]);
  // Without headers the list stands by; and a command that reads one of the two does not ask for the other.
  assert.equal(loadConfig({}, { EDGEPROXY_TRUSTED_PROXIES: '::1' }).trustedProxies.length, 1);
  loadConfig({}, { EDGEPROXY_PROXY_PROTOCOL_IN: 'any' }, ['proxyProtocolIn']);
  for (const list of ['10.0.0.1/8', '10.0.0.0/33', 'proxy.example', '10.0.0.1,,::1', '[::1]']) {
    const [problem] = problemsOf({}, { EDGEPROXY_TRUSTED_PROXIES: list });
    assert.match(problem ?? '', /^EDGEPROXY_TRUSTED_PROXIES is ".*", allowed: addresses and/, list);
  }
  const many = Array.from({ length: 1001 }, () => '::1').join();
  const [problem] = problemsOf({}, { EDGEPROXY_TRUSTED_PROXIES: many });
  assert.match(problem ?? '', /1001 are more than 1000/);
});

test('loadConfig() prefers flag, then environment, then file, then default', () => {
  const file = toml('region = "eu"\nidle_timeout_secs = 1\nconnect_retries = 1\n');
  const env = { EDGEPROXY_REGION: 'us', EDGEPROXY_IDLE_TIMEOUT_SECS: '2' };
  const config = loadConfig({ config: file, region: 'AF' }, env);
  assert.equal(config.region, 'af');
  assert.equal(config.idleTimeoutSecs, 2);
  assert.equal(config.connectRetries, 1);
  assert.equal(config.keepaliveSecs, 60);
});

test('loadConfig() takes the file from EDGEPROXY_CONFIG, and --config over it', () => {
  const [one, two] = [toml('region = "us"'), toml('region = "ap"')];
  assert.equal(loadConfig({}, { EDGEPROXY_CONFIG: one }).region, 'us');
  assert.equal(loadConfig({ config: two }, { EDGEPROXY_CONFIG: one }).region, 'ap');
  assert.deepEqual(loadConfig({}, { EDGEPROXY_CONFIG: one }).warnings, []);
});

test('loadConfig() reads TOML values of their own type', () => {
  const file = toml(
    'listen_addr = ["web@127.0.0.1:80", "[::1]:81"]\nworkers = 3\ntcp_fast_open = false\n' +
      'db_reload_secs = 0.25\nmax_connections = "auto"\nmetrics_listen_addr = "off"\n',
  );
  const config = loadConfig({ config: file }, {});
  assert.deepEqual(config.listen, [
    { app: 'web', host: '127.0.0.1', port: 80, family: 4 },
    { app: '*', host: '::1', port: 81, family: 6 },
  ]);
  assert.equal(config.workers, 3);
  assert.equal(config.tcpFastOpen, false);
  assert.equal(config.dbReloadSecs, 0.25);
  assert.equal(config.maxConnections, null);
  assert.equal(config.metricsListen, null);
});

test('loadConfig() counts an empty environment variable as not set', () => {
  assert.equal(loadConfig({}, { EDGEPROXY_REGION: '', EDGEPROXY_WORKERS: '' }).region, 'sa');
});

test('loadConfig() reports every problem, each with setting, value and what is allowed', () => {
  const file = toml('workerz = 2\nkeepalive_secs = "soon"\n');
  const problems = problemsOf(
    { config: file, connectRetries: '16', engine: 'warp' },
    { EDGEPROXY_COUNTRY: 'XX', EDGEPROXY_DB_RELOAD_SECS: '0' },
  );
  assert.deepEqual(problems, [
    `Unknown key "workerz" in ${file}, the nearest known is workers`,
    'EDGEPROXY_COUNTRY is "XX", allowed: an ISO 3166-1 alpha-2 country code',
    'EDGEPROXY_DB_RELOAD_SECS is "0", allowed: a number from 0.05 to 86400',
    '--engine is "warp", allowed: one of auto, uring, epoll, portable',
    '--connect-retries is "16", allowed: a whole number from 0 to 15',
    `keepalive_secs in ${file} is "soon", allowed: a whole number from 0 to 32767; 0 is off`,
  ]);
});

test('loadConfig() knows every engine, in either case', () => {
  for (const engine of ['auto', 'uring', 'epoll', 'portable']) {
    assert.equal(loadConfig({ engine }, {}).engine, engine);
  }
  assert.equal(loadConfig({ engine: ' URING ' }, {}).engine, 'uring');
});

test('loadConfig() refuses numbers out of range, in fractions and in other notations', () => {
  for (const text of ['-1', '1.5', '1e3', '0x10', 'Infinity', 'NaN', '257', '0', ' ']) {
    assert.equal(problemsOf({ workers: text }).length, 1, text);
  }
  assert.equal(loadConfig({ workers: ' 256 ' }, {}).workers, 256);
  assert.equal(loadConfig({ idleTimeoutSecs: '0.5' }, {}).idleTimeoutSecs, 0.5);
  assert.equal(problemsOf({ keepaliveSecs: '0.5' }).length, 1);
});

test('loadConfig() reads listen addresses', () => {
  const listen = (text: string) => loadConfig({ listenAddr: text }, {}).listen;
  assert.deepEqual(listen('localhost:0'), [{ app: '*', host: '127.0.0.1', port: 0, family: 4 }]);
  assert.deepEqual(listen('*@[0:0::0]:1, a-b.c@10.0.0.1:65535'), [
    { app: '*', host: '::', port: 1, family: 6 },
    { app: 'a-b.c', host: '10.0.0.1', port: 65_535, family: 4 },
  ]);
  // Port 0 means another free port each time, so twice is no conflict.
  assert.equal(listen('127.0.0.1:0,127.0.0.1:0').length, 2);
});

test('loadConfig() says what is wrong with a listen address', () => {
  for (const [text, reason] of [
    ['8080', /write 0\.0\.0\.0:8080/],
    [':8080', /write 0\.0\.0\.0:8080/],
    ['::1', /write \[::1\]:8080/],
    ['example.org:80', /neither an IP address/],
    ['127.0.0.1:65536', /above 65535/],
    ['[127.0.0.1]:80', /brackets/],
    ['a b@127.0.0.1:80', /not an app name/],
    ['127.0.0.1:80,127.0.0.1:80', /there twice/],
    ['[::1]:80,[0::1]:80', /there twice/],
    ['[fe80::1%eth0]:80', /neither an IP address/],
    ['127.0.0.1:80,', /not host:port/],
  ] as const) {
    const problems = problemsOf({ listenAddr: text });
    assert.equal(problems.length, 1, text);
    assert.match(problems[0] as string, reason);
  }
});

test('loadConfig() raises the level for DEBUG, unless --log says otherwise', () => {
  assert.equal(loadConfig({}, { DEBUG: 'anything' }).log, 'debug');
  assert.equal(loadConfig({}, { DEBUG: '1', EDGEPROXY_LOG: 'error' }).log, 'debug');
  assert.equal(loadConfig({ log: 'warn' }, { DEBUG: '1' }).log, 'warn');
  assert.equal(loadConfig({ debug: true }, {}).log, 'debug');
  for (const text of ['', '0', 'false', 'off']) {
    assert.equal(loadConfig({}, { DEBUG: text }).log, 'info', text);
  }
});

test('loadConfig() warns of unknown EDGEPROXY_ variables only', () => {
  const { warnings } = loadConfig({}, { EDGEPROXY_LOGS: '1', OTHER_REGION: '1' });
  assert.deepEqual(warnings, [
    'Unknown environment variable EDGEPROXY_LOGS is ignored, the nearest known is EDGEPROXY_LOG',
  ]);
});

test('loadConfig() with a list of settings ignores what is wrong with others', () => {
  const env = { EDGEPROXY_WORKERS: 'zero', EDGEPROXY_DB_PATH: 'x.db' };
  assert.deepEqual(loadConfig({}, env, ['dbPath']), { dbPath: 'x.db', warnings: [] });
});

test('loadConfig() reports a missing and a broken file in one line', () => {
  const missing = join(directory, 'missing.toml');
  assert.equal(problemsOf({ config: missing }).length, 1);
  const [problem] = problemsOf({ config: toml('region = \n') });
  assert.match(problem as string, /^Cannot read config file ".*": /);
  assert.ok(!(problem as string).includes('\n'));
});

test('loadConfig() freezes what it returns', () => {
  const config = loadConfig({ listenAddr: '127.0.0.1:1' }, {});
  assert.ok(Object.isFrozen(config));
  assert.ok(Object.isFrozen(config.listen));
  assert.ok(Object.isFrozen(config.listen[0]));
  assert.ok(Object.isFrozen(loadConfig({}, {}).listen), 'the default too');
});

test('flagName() and flagAttribute() follow the environment name', () => {
  assert.equal(flagName('metricsListen'), 'metrics-listen-addr');
  assert.equal(flagAttribute('metricsListen'), 'metricsListenAddr');
  assert.equal(flagName('debug'), 'debug');
  const names = new Set(SETTING_KEYS.map(flagName));
  assert.equal(names.size, SETTING_KEYS.length);
});
