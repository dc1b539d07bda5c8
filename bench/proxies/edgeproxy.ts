// edgeproxy as `edgeproxy run` is: one worker, country data, bindings, limits, connection counts, metrics listener.

import {
  type EdgeproxyOptions,
  type LoadRun,
  type PreparedProxy,
  SERVICES,
} from '../../src/testing/load-run.ts';
import type { BackendRow } from '../../src/testing/routing-file.ts';
import { hostsOf, type ProxyKind, type ProxyNeeds } from './prepare.ts';

export function routingRows(run: LoadRun, needs: ProxyNeeds): BackendRow[] {
  return SERVICES.flatMap((app) =>
    hostsOf(app, needs).map((address, index) => {
      return { id: `${app}-${index}`, app, address, port: run.backendPorts[app] };
    }),
  );
}

function prepare(
  run: LoadRun,
  needs: ProxyNeeds,
  engine: NonNullable<EdgeproxyOptions['engine']>,
): Promise<PreparedProxy> {
  return run.prepareEdgeproxy({ engine, backends: routingRows(run, needs) });
}

export const EDGEPROXY_URING: ProxyKind = {
  name: 'edgeproxy uring',
  prepare: (run, needs) => prepare(run, needs, 'uring'),
};
export const EDGEPROXY_EPOLL: ProxyKind = {
  name: 'edgeproxy epoll',
  prepare: (run, needs) => prepare(run, needs, 'epoll'),
};
