// A client of the admin server for tests: any method, header and body, bodies parsed, and event streams message by message.

import { type ClientRequest, type IncomingMessage, type RequestOptions, request } from 'node:http';
import type { HostPort, ProxyProcess } from './proxy-process.ts';
import { until, within } from './wait.ts';

export interface AdminRequest {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON, unless it is text. */
  readonly body?: unknown;
}

export interface AdminAnswer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
  /** The body, when it is JSON. */
  readonly json: Json;
}

/** What tests look into: they fail on what is not there. */
export interface Json {
  readonly [name: string]: Json;
}

function start(at: HostPort, path: string, options: AdminRequest): ClientRequest {
  const { method = 'GET', headers = {}, body } = options;
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const length = text === undefined ? {} : { 'content-length': String(Buffer.byteLength(text)) };
  const type = text === undefined ? {} : { 'content-type': 'application/json' };
  const all: RequestOptions = {
    ...at,
    path,
    method,
    headers: { ...length, ...type, ...headers },
    agent: false,
  };
  const sent = request(all);
  sent.end(text);
  return sent;
}

/** One request, answered whole. */
export function askAdmin(
  proxy: ProxyProcess,
  path: string,
  options: AdminRequest = {},
): Promise<AdminAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<AdminAnswer>();
  const sent = start(proxy.admin as HostPort, path, options);
  sent.on('error', reject);
  sent.on('response', (response) => {
    let text = '';
    response.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    response.on('error', reject);
    response.on('end', () => {
      const { statusCode = 0, headers } = response;
      const isJson = /json/.test(headers['content-type'] ?? '') && text !== '';
      resolve({ status: statusCode, headers, text, json: isJson ? JSON.parse(text) : null });
    });
  });
  return within(`the answer to ${options.method ?? 'GET'} ${path}`, promise);
}

export interface StreamMessage {
  readonly id: string;
  readonly event: string;
  readonly data: Json;
}

/** An open event stream. */
export class AdminStream implements Disposable {
  readonly messages: StreamMessage[] = [];
  readonly response: IncomingMessage;
  /** The id to come back with. */
  lastId = '';
  ended = false;

  constructor(response: IncomingMessage) {
    this.response = response;
    let rest = '';
    response.setEncoding('utf8').on('data', (chunk: string) => {
      const blocks = (rest + chunk).split('\n\n');
      rest = blocks.pop() as string;
      for (const block of blocks) this.#take(block);
    });
    response.on('error', () => {});
    response.on('close', () => {
      this.ended = true;
    });
  }

  #take(block: string): void {
    const fields = new Map(
      block.split('\n').map((line): [string, string] => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon), line.slice(colon + 2)];
      }),
    );
    this.lastId = fields.get('id') ?? this.lastId;
    const data = fields.get('data');
    if (data === undefined) return;
    const event = fields.get('event') ?? 'message';
    this.messages.push({ id: this.lastId, event, data: JSON.parse(data) });
  }

  /** The first message of this event, and of this type where it has one. */
  untilMessage(event: string, type?: string): Promise<StreamMessage> {
    return until(`the event ${event} ${type ?? ''}`, () =>
      this.messages.find(
        (message) =>
          message.event === event && (type === undefined || String(message.data.type) === type),
      ),
    );
  }

  [Symbol.dispose](): void {
    this.response.destroy();
  }
}

/** Opens an event stream; throws when it is refused. */
export async function openStream(
  proxy: ProxyProcess,
  path = '/api/events',
  headers: Readonly<Record<string, string>> = {},
): Promise<AdminStream> {
  const { promise, resolve, reject } = Promise.withResolvers<AdminStream>();
  const sent = start(proxy.admin as HostPort, path, { headers });
  sent.on('error', reject);
  sent.on('response', (response) => {
    if (response.statusCode === 200) resolve(new AdminStream(response));
    else reject(new Error(`The stream is refused with status ${response.statusCode}`));
  });
  return within('an event stream', promise);
}
