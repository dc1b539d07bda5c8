// Every path of the API with its methods: what the router finds, and what openapi.ts describes.

import { deleteDrain, patchBackend, postBackend, putDrain, removeBackend } from './backend-edit.ts';
import { getBackend, listBackends } from './backends.ts';
import { getCountries, getRegions } from './countries.ts';
import { getEvents } from './event-stream.ts';
import { getExplanation } from './explain.ts';
import { getMesh } from './mesh.ts';
import * as requests from './request-schemas.ts';
import { type Route, route } from './router.ts';
import { listSessions } from './sessions.ts';
import { getStatus } from './status.ts';

const NO_INPUT = { query: requests.noQuery, body: null } as const;

export const ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/api/status',
    summary: 'The whole proxy on one page',
    ...NO_INPUT,
    answers: { 200: 'status' },
    handle: getStatus,
  }),
  route({
    method: 'GET',
    path: '/api/backends',
    summary: 'Backends, by id, each with how it fares',
    query: requests.listQuery,
    body: null,
    answers: { 200: 'backendList' },
    handle: listBackends,
  }),
  route({
    method: 'POST',
    path: '/api/backends',
    summary: 'Adds a backend, as "edgeproxy backend add" does',
    query: requests.noQuery,
    body: requests.newBackend,
    answers: { 201: 'backendEdit', 202: 'backendEdit' },
    handle: postBackend,
  }),
  route({
    method: 'GET',
    path: '/api/backends/{id}',
    summary: 'One backend',
    ...NO_INPUT,
    answers: { 200: 'backend' },
    handle: getBackend,
  }),
  route({
    method: 'PATCH',
    path: '/api/backends/{id}',
    summary: 'Enables, disables, restores, or sets weight and limits',
    query: requests.noQuery,
    body: requests.backendChanges,
    answers: { 200: 'backendEdit', 202: 'backendEdit' },
    handle: patchBackend,
  }),
  route({
    method: 'DELETE',
    path: '/api/backends/{id}',
    summary: 'Takes a backend out of routing, keeping its row unless purge is true',
    query: requests.deleteQuery,
    body: null,
    answers: { 200: 'backendEdit', 202: 'backendEdit' },
    handle: removeBackend,
  }),
  route({
    method: 'PUT',
    path: '/api/backends/{id}/drain',
    summary: 'Drains a backend, as "edgeproxy backend drain --no-wait" does',
    query: requests.noQuery,
    body: requests.drainPlan,
    answers: { 200: 'backendEdit', 202: 'backendEdit' },
    handle: putDrain,
  }),
  route({
    method: 'DELETE',
    path: '/api/backends/{id}/drain',
    summary: 'Ends the drain of a backend, if there is one',
    ...NO_INPUT,
    answers: { 200: 'backendEdit', 202: 'backendEdit' },
    handle: deleteDrain,
  }),
  route({
    method: 'GET',
    path: '/api/explain',
    summary: 'Which backend a client address gets, and why',
    query: requests.explainQuery,
    body: null,
    answers: { 200: 'explanation' },
    handle: getExplanation,
  }),
  route({
    method: 'GET',
    path: '/api/sessions',
    summary: 'Open sessions, those with most bytes or the oldest first',
    query: requests.sessionsQuery,
    body: null,
    answers: { 200: 'sessionList' },
    handle: listSessions,
  }),
  route({
    method: 'GET',
    path: '/api/countries',
    summary: 'Sessions by country of the client',
    ...NO_INPUT,
    answers: { 200: 'countries' },
    handle: getCountries,
  }),
  route({
    method: 'GET',
    path: '/api/regions',
    summary: 'Regions and this POP, with places for a map',
    ...NO_INPUT,
    answers: { 200: 'regions' },
    handle: getRegions,
  }),
  route({
    method: 'GET',
    path: '/api/mesh',
    summary: 'The WireGuard mesh: device, peers, and rows that are none',
    ...NO_INPUT,
    answers: { 200: 'mesh' },
    handle: getMesh,
  }),
  route({
    method: 'GET',
    path: '/api/events',
    summary: 'Server-sent events: what happens, and the status once a second',
    query: requests.eventsQuery,
    body: null,
    answers: { 200: 'text/event-stream' },
    handle: getEvents,
  }),
  route({
    method: 'GET',
    path: '/api/openapi.json',
    summary: 'This description',
    ...NO_INPUT,
    answers: { 200: 'document' },
    handle: async ({ api }) => {
      // Loaded only here: few ask for it.
      const { describeApi } = await import('./openapi.ts');
      return { status: 200, body: describeApi(ROUTES, api.version), isStatic: true };
    },
  }),
];
