// The helper process of `edgeproxy run`: the only part of a running proxy that changes the network. It is started before the
// proxy gives root up (EDGEPROXY_USER) and keeps what is needed: CAP_NET_ADMIN, the key file, the UAPI socket. It does what
// few messages say (helper.ts), believes none of them unchecked, and ends with the proxy, leaving the tunnels as they are.

import { errorMessage, ProxyError } from '../base/errors.ts';
import { checkedPeers, type FromHelper, isMtu, type ToHelper } from './helper-protocol.ts';
import { MeshKeeper } from './keeper.ts';

let keeper: MeshKeeper | null = null;

function tell(message: FromHelper): void {
  const send = process.send?.bind(process);
  if (process.connected) send?.(message);
}

function end(): void {
  keeper?.release();
  if (process.connected) process.disconnect?.();
  // A job under way must not hold the end up.
  setImmediate(() => process.exit(0));
}

async function perform(message: ToHelper): Promise<void> {
  switch (message.kind) {
    case 'up':
      keeper ??= new MeshKeeper(message.options, (level, text, fields) =>
        tell({ kind: 'report', level, message: text, fields }),
      );
      await keeper.up();
      return;
    case 'peers':
      await keeper?.setPeers(checkedPeers(message.peers));
      keeper?.keep((status) => tell({ kind: 'status', status }));
      return;
    case 'change':
      await keeper?.followPeers(checkedPeers(message.peers));
      return;
    case 'path-mtu':
      if (isMtu(message.mtu)) await keeper?.setPathMtu(String(message.id), message.mtu);
      return;
    case 'down':
      await keeper?.down();
      return;
    case 'release':
      end();
  }
}

process.on('message', async (message: ToHelper) => {
  let error: { code: string; message: string } | null = null;
  try {
    await perform(message);
  } catch (thrown) {
    const code = thrown instanceof ProxyError ? thrown.code : 'ERR_MESH';
    error = { code, message: errorMessage(thrown) };
  }
  const status = keeper?.statusOrNull() ?? null;
  tell({ kind: 'done', of: message.kind, error, status });
});
// The proxy has ended, however it did.
process.on('disconnect', end);
// Signals for the proxy reach its whole group; the proxy says what they mean for the mesh.
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2'] as const) {
  process.on(signal, () => {});
}
