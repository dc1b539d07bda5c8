// Splitting, joining, checksums and the raw parsers, on packets made at random: what is split is what the kernel would have
// made, what is joined splits into what it was, and garbage harms nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Arena, createSharedMemory, openArena } from '../../sys/arena.ts';
import { fold, makeSum, portableSum, swapped } from './checksum.ts';
import { coalesce, flushCoalescer, newCoalescer } from './coalesce.ts';
import { applyEcn, innerEcn, innerLength } from './inner-packet.ts';
import { beginSplit, newSplit, nextSegment } from './segments.ts';

const arena: Arena = openArena(createSharedMemory(16));
const sum = makeSum(arena);
const slowSum = portableSum(arena);
const PACKET = 4096;
const ACK = 0x10;

interface Flow {
  readonly isV4: boolean;
  readonly isTcp: boolean;
  readonly options: number;
  readonly flags: number;
  readonly sequence: number;
  readonly identification: number;
}
const flows = fc.record<Flow>({
  isV4: fc.boolean(),
  isTcp: fc.boolean(),
  options: fc.nat(10),
  flags: fc.nat(255),
  sequence: fc.nat(0xffff_ffff),
  identification: fc.nat(0xffff),
});

/** Fills in the checksums that a packet of this kind has. */
function seal(packet: Buffer, { isV4, isTcp }: Flow): Buffer {
  const at = isV4 ? 20 : 40;
  const field = at + (isTcp ? 16 : 6);
  const plain = (bytes: Buffer): number => {
    arena.bytes.set(bytes, 600_000);
    return slowSum(600_000, bytes.length);
  };
  if (isV4) {
    packet.writeUInt16BE(0, 10);
    packet.writeUInt16LE(~fold(plain(packet.subarray(0, 20))) & 0xffff, 10);
  }
  packet.writeUInt16BE(0, field);
  const addresses = plain(isV4 ? packet.subarray(12, 20) : packet.subarray(8, 40));
  const body = packet.subarray(at);
  const total = addresses + swapped(isTcp ? 6 : 17) + swapped(body.length) + plain(body);
  const value = ~fold(total) & 0xffff;
  packet.writeUInt16LE(value === 0 && !isTcp ? 0xffff : value, field);
  return packet;
}

/** A packet of the flow with this payload, the `index`th of its super-packet. */
function build(flow: Flow, payload: Buffer, index: number, offset: number, flags: number): Buffer {
  const transport = flow.isTcp ? 20 + flow.options * 4 : 8;
  const at = flow.isV4 ? 20 : 40;
  const packet = Buffer.alloc(at + transport + payload.length, 7);
  if (flow.isV4) {
    packet.writeUInt16BE(0x4502, 0);
    packet.writeUInt16BE(packet.length, 2);
    packet.writeUInt16BE((flow.identification + index) & 0xffff, 4);
    packet.writeUInt16BE(0x4000, 6);
    packet[9] = flow.isTcp ? 6 : 17;
  } else {
    packet.writeUInt32BE(0x6020_0007, 0);
    packet.writeUInt16BE(packet.length - 40, 4);
    packet[6] = flow.isTcp ? 6 : 17;
  }
  if (flow.isTcp) {
    packet.writeUInt32BE((flow.sequence + offset) >>> 0, at + 4);
    packet[at + 12] = (transport / 4) << 4;
    packet[at + 13] = flags;
  } else {
    packet.writeUInt16BE(8 + payload.length, at + 4);
  }
  payload.copy(packet, at + transport);
  return seal(packet, flow);
}

/** What the kernel makes of a super-packet. */
function expectedSegments(flow: Flow, payload: Buffer, size: number): Buffer[] {
  const segments: Buffer[] = [];
  for (let offset = 0; offset < payload.length; offset += size) {
    const isLast = offset + size >= payload.length;
    const flags = flow.flags & (isLast ? 0xff : ~0x09) & (offset > 0 ? 0x7f : 0xff);
    const part = payload.subarray(offset, offset + size);
    segments.push(build(flow, part, segments.length, offset, flags));
  }
  return segments;
}

function writeVnet(type: number, size: number, start: number, field: number): void {
  const vnet = PACKET - 10;
  arena.bytes.set([1, type, 0, 0], vnet);
  arena.view.setUint16(vnet + 4, size, true);
  arena.view.setUint16(vnet + 6, start, true);
  arena.view.setUint16(vnet + 8, field, true);
}

function split(length: number): Buffer[] | null {
  const s = newSplit(1024);
  if (!beginSplit(s, arena, sum, PACKET, length)) return null;
  const segments: Buffer[] = [];
  while (nextSegment(s, arena, sum)) {
    segments.push(Buffer.from(arena.bytes.slice(s.offset, s.offset + s.length)));
  }
  return segments;
}

test('checksum: the assembled module sums like plain JavaScript, at every length and offset', () => {
  for (let at = 0; at < 70_000; at++) arena.bytes[at] = (at * 7919) ^ (at >> 3);
  for (const offset of [0, 1, 2, 7]) {
    for (const bytes of [...Array(140).keys(), 1380, 1381, 65_001]) {
      assert.equal(fold(sum(offset, bytes)), fold(slowSum(offset, bytes)), `${offset} ${bytes}`);
    }
  }
});

test('segments: a super-packet becomes what the kernel would make of it', () => {
  const payloads = fc.uint8Array({ minLength: 1, maxLength: 9000 });
  const property = fc.property(
    flows,
    payloads,
    fc.integer({ min: 1, max: 3000 }),
    (flow, bytes, size) => {
      fc.pre(bytes.length / size < 200);
      const payload = Buffer.from(bytes);
      const packet = build(flow, payload, 0, 0, flow.flags);
      const transport = flow.isV4 ? 20 : 40;
      const field = flow.isTcp ? 16 : 6;
      // The checksum is left partial: the pseudo-header's sum.
      arena.bytes.set(packet, 600_000);
      const addresses = flow.isV4 ? slowSum(600_012, 8) : slowSum(600_008, 32);
      const pseudo = addresses + swapped(flow.isTcp ? 6 : 17) + swapped(packet.length - transport);
      packet.writeUInt16LE(fold(pseudo), transport + field);
      arena.bytes.set(packet, PACKET);
      writeVnet(flow.isTcp ? (flow.isV4 ? 1 : 4) : 5, size, transport, field);
      assert.deepEqual(split(packet.length), expectedSegments(flow, payload, size));
    },
  );
  fc.assert(property, { numRuns: 300 });
});

/** What the coalescer writes: a virtio header and a packet each. */
function collect(packets: readonly Buffer[]): Buffer[] {
  const written: Buffer[] = [];
  const c = newCoalescer(300_000, (vectors, count) => {
    const parts: Uint8Array[] = [];
    for (let vector = vectors; vector < vectors + count * 16; vector += 16) {
      const offset = (arena.unsigned[vector >> 2] as number) - arena.base;
      const bytes = arena.words[(vector + 8) >> 2] as number;
      parts.push(arena.bytes.slice(offset >>> 0, (offset >>> 0) + bytes));
    }
    written.push(Buffer.concat(parts));
    return 0;
  });
  let at = 400_000;
  for (const packet of packets) {
    arena.bytes.set(packet, at);
    coalesce(c, arena, sum, at, packet.length);
    // As they lie in received datagrams: not aligned.
    at += packet.length + 33;
  }
  flushCoalescer(c, arena, sum);
  return written;
}

function splitWritten(written: Buffer): Buffer[] {
  arena.bytes.set(written, PACKET - 10);
  return split(written.length - 10) ?? [];
}

test('coalesce: segments in order are joined, and splitting gives back each bit', () => {
  const payloads = fc.uint8Array({ minLength: 1, maxLength: 9000 });
  const property = fc.property(
    flows,
    payloads,
    fc.integer({ min: 60, max: 3000 }),
    (made, bytes, size) => {
      const flow = { ...made, isTcp: true, flags: ACK | (made.flags & 8) };
      const segments = expectedSegments(flow, Buffer.from(bytes), size);
      const written = collect(segments);
      if (segments.length > 1 && segments.length < 60) assert.equal(written.length, 1);
      assert.deepEqual(written.flatMap(splitWritten), segments);
    },
  );
  fc.assert(property, { numRuns: 300 });
});

test('coalesce: interleaved, damaged and reordered segments come out as they were, in order by flow', () => {
  const pair = fc.tuple(flows, flows, fc.array(fc.nat(99), { minLength: 1, maxLength: 40 }));
  const property = fc.property(pair, ([one, other, choices]) => {
    const make = (flow: Flow, options: number): Buffer[] =>
      expectedSegments({ ...flow, options, isTcp: true, flags: ACK }, Buffer.alloc(4000, 5), 100);
    const queues = [make(one, 1), make(other, 2)];
    const packets = choices.flatMap((choice) => {
      const queue = queues[choice & 1] as Buffer[];
      const packet = queue.splice(choice % 5 === 0 ? 1 : 0, 1)[0];
      if (packet === undefined) return [];
      if (choice % 11 === 0) packet[packet.length - 1] ^= 1;
      return [packet];
    });
    const out = collect(packets).flatMap(splitWritten);
    const byFlow = (list: Buffer[], options: number): Buffer[] =>
      list.filter((packet) => {
        const at = (packet[0] as number) >> 4 === 4 ? 20 : 40;
        return (packet[at + 12] as number) >> 4 === 5 + options;
      });
    for (const options of [1, 2]) assert.deepEqual(byFlow(out, options), byFlow(packets, options));
  });
  fc.assert(property, { numRuns: 300 });
});

test('coalesce: what splitting could not give back is not joined', () => {
  const flow = { isV4: true, isTcp: true, options: 3, flags: ACK, sequence: 1, identification: 5 };
  const part = Buffer.alloc(100, 1);
  const first = build(flow, part, 0, 0, ACK);
  assert.equal(collect([first, build(flow, part, 1, 100, ACK)]).length, 1);
  const others = [
    build(flow, part, 2, 100, ACK),
    build(flow, Buffer.alloc(101, 1), 1, 100, ACK),
    build(flow, part, 1, 100, ACK | 1),
    build(flow, part, 1, 100, ACK | 0x40),
    build(flow, Buffer.alloc(0), 1, 100, ACK),
  ];
  for (const other of others) {
    const written = collect([first, other]);
    assert.deepEqual(
      written.map((packet) => packet.subarray(10)),
      [first, other],
    );
  }
});

test('raw parsers: garbage of any kind is refused or bounded, and nothing outside of it changes', () => {
  const garbage = fc.tuple(
    fc.uint8Array({ minLength: 0, maxLength: 300 }),
    fc.constantFrom(0x45, 0x46, 0x4f, 0x60, 0x00),
    fc.constantFrom(0, 1, 4, 5, 0x81, 3, 255),
    fc.tuple(fc.nat(2000), fc.nat(400), fc.nat(400)),
  );
  const property = fc.property(garbage, ([bytes, first, type, [size, start, field]]) => {
    if (bytes.length > 0) bytes[0] = first;
    arena.bytes.fill(0xa5, PACKET - 64, PACKET + 400);
    arena.bytes.set(bytes, PACKET);
    const inner = innerLength(arena, PACKET, bytes.length);
    assert.ok(inner <= bytes.length);
    if (inner > 0) {
      applyEcn(arena, PACKET, 3);
      assert.deepEqual(collect([Buffer.from(arena.bytes.slice(PACKET, PACKET + inner))]).length, 1);
    }
    writeVnet(type, size, start, field);
    const segments = split(bytes.length) ?? [];
    for (const segment of segments) assert.ok(segment.length <= bytes.length);
    for (let at = PACKET + bytes.length; at < PACKET + 400; at++)
      assert.equal(arena.bytes[at], 0xa5);
  });
  fc.assert(property, { numRuns: 2000 });
});

test('inner packet: congestion said outside is said inside, with a right checksum; without ECN it is a drop', () => {
  const flow = { isV4: true, isTcp: false, options: 0, flags: 0, sequence: 0, identification: 5 };
  const packet = build(flow, Buffer.alloc(10), 0, 0, 0);
  arena.bytes.set(packet, PACKET);
  assert.equal(innerEcn(arena, PACKET), 2);
  assert.equal(applyEcn(arena, PACKET, 3), true);
  assert.equal(innerEcn(arena, PACKET), 3);
  assert.equal(fold(sum(PACKET, 20)), 0xffff);
  arena.bytes[PACKET + 1] = 0;
  assert.equal(applyEcn(arena, PACKET, 3), false);
  assert.equal(applyEcn(arena, PACKET, 1), true);
});
