// One fault of one line each, for the simulation to see: around PROXY headers. tools/mutate.ts has the others.

import type { Mutation } from './mutate.ts';

export const PROXY_MUTATIONS: readonly Mutation[] = [
  {
    name: 'a backend gets no PROXY header',
    file: 'src/proxy/relay.ts',
    search: '  if (sessions.headerOut[slot] !== 0) {\n    const buffer',
    replace: '  if (sessions.headerOut[slot] > 2) {\n    const buffer',
  },
  {
    name: 'the client is heard while the PROXY header waits for a buffer',
    file: 'src/proxy/relay.ts',
    search: '      sessions.receiving[client] = RECEIVE_HELD;\n',
    replace: '      armReceive(worker, client);\n',
  },
  {
    name: 'a PROXY header that waits for a buffer is not fed',
    file: 'src/proxy/worker.ts',
    search: '  if (worker.heldCount > 0) feedHeld(worker);\n',
    replace: '',
  },
  {
    name: 'a retry sends the PROXY header of the backend before',
    file: 'src/proxy/admit.ts',
    search: '  sessions.headerOut[slot] = snapshot.proxyProtocol[backend];\n',
    replace:
      '  if (sessions.attempts[slot] === 0) sessions.headerOut[slot] = snapshot.proxyProtocol[backend];\n',
  },
  {
    name: 'a PROXY header is believed from everybody',
    file: 'src/proxy/proxy-header.ts',
    search: '  return isListed(proxyIn.trusted, peer.w0, peer.w1, mapped, peer.w3);',
    replace:
      '  return isListed(proxyIn.trusted, peer.w0, peer.w1, mapped, peer.w3) || peer.w3 % 3 === 0;',
  },
  {
    name: 'a proxy that sends a PROXY header is its own client',
    file: 'src/proxy/proxy-header.ts',
    search: '  if (sessions.headerIn[slot] !== HEADER_PROXIED) {',
    replace: '  if (sessions.headerIn[slot] !== HEADER_NONE) {',
  },
  {
    name: 'the part of a PROXY header that a connection before had sent is kept',
    file: 'src/proxy/proxy-header.ts',
    search: '  worker.headerParts.bytes[slot] = 0;\n  setClient',
    replace: '  setClient',
  },
  {
    name: 'what follows a PROXY header is lost',
    file: 'src/proxy/proxy-header.ts',
    search: '  if (strip(worker, buffer, used - kept) > 0) enqueue',
    replace: '  if (strip(worker, buffer, used - kept) < 0) enqueue',
  },
  {
    name: 'the end of a PROXY header is passed on',
    file: 'src/proxy/proxy-header.ts',
    search: '  if (strip(worker, buffer, used - kept) > 0) enqueue',
    replace: '  if (strip(worker, buffer, used - kept - 1) > 0) enqueue',
  },
  {
    name: 'the second part of a PROXY header replaces the first',
    file: 'src/proxy/proxy-header.ts',
    search: '    headerParts.bytes[slot] = all;\n',
    replace: '    headerParts.bytes[slot] = come;\n',
  },
  {
    name: 'a long PROXY header loses what was kept of it',
    file: 'src/proxy/proxy-header.ts',
    search: '  loadPart(headerParts, slot, memory, at);\n',
    replace: '',
  },
  {
    name: 'a client is admitted while its PROXY header is still received',
    file: 'src/proxy/proxy-header.ts',
    search: '    if (more === 0) return true;\n',
    replace: '    return true;\n',
  },
  {
    name: 'the deadline of a PROXY header is not looked at',
    file: 'src/proxy/deadlines.ts',
    search: '  else endSession(worker, slot, REJECTED + REJECT_PROXY_HEADER_TIMEOUT);\n',
    replace: '',
  },
  {
    name: 'a PROXY header tells where the proxy connected, not its client',
    file: 'src/proxy/proxy-header-out.ts',
    search: '  if (sessions.headerIn[slot] === HEADER_PROXIED) {',
    replace: '  if (sessions.headerIn[slot] > HEADER_PROXIED) {',
  },
  {
    name: 'who was turned away for a PROXY header keeps its place',
    file: 'src/proxy/end.ts',
    search: '  Atomics.sub(worker.global, GLOBAL_SESSIONS, 1);\n',
    replace:
      '  if (sessions.reason[slot] < REJECTED) Atomics.sub(worker.global, GLOBAL_SESSIONS, 1);\n',
  },
];
