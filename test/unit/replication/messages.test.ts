import assert from 'node:assert/strict'
import { encode } from '@ipld/dag-cbor'
import { checkLabels, decodeMessage, encodeMessage } from '../../../src/replication/messages.ts'
import type { ModelClaim, ReplicaMessage } from '../../../src/replication/types.ts'

const model = 'bafyr4idqlwoa4bqzmcajfvs7jxj36mdhhg7zxzfao2bs52bxovntohsfe4'
const peer = '12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN'
const claim: ModelClaim = {
  model, shards: 10, policies: [Uint8Array.of(1, 2)], committed: Uint8Array.of(255, 3), pending: Uint8Array.of(0, 0), cached: Uint8Array.of(0, 0), members: [peer]
}
const state: ReplicaMessage = {
  type: 'state', incarnation: 'a1', version: 3, ackIncarnation: '', ackVersion: 0, wantsReply: true, draining: false, leaving: false,
  freeBytes: 1e12, labels: { zone: 'a' }, models: [claim]
}
const samples: ReplicaMessage[] = [
  state,
  { type: 'ask', peer },
  { type: 'seen', peer, ageMs: 12 },
  { type: 'offer', id: 'x', model, shard: 9, shards: 10, bytes: 5, urgent: true, policies: [Uint8Array.of(1)], holders: [peer] },
  { type: 'accept', id: 'x', model, shard: 1 },
  { type: 'decline', id: 'x', model, shard: 1, reason: 'space' },
  { type: 'commit', model, shard: 0 },
  { type: 'abandon', model, shard: 0 },
  { type: 'challenge', id: 'x', model, shards: [0, 5], nonce: new Uint8Array(32) },
  { type: 'proof', id: 'x', model, digests: [new Uint8Array(32), new Uint8Array(0)] },
  { type: 'disproved', model, shard: 0 },
  { type: 'release', id: 'x', model, shard: 0 },
  { type: 'keep', id: 'x', model, shard: 0, ok: false }
]

describe('messages between replicators', () => {
  it('come through as they are', () => {
    for (const message of samples) assert.deepEqual(decodeMessage(encodeMessage(message)), message)
  })

  it('say which part of a state they are, when it has several', () => {
    const part = (value: unknown): Uint8Array => encode({ ...state, part: value })
    for (const good of [{ number: 0, of: 2 }, { number: 4_095, of: 4_096 }]) assert.deepEqual(decodeMessage(part(good)), { ...state, part: good })
    for (const bad of [null, 1, {}, { number: 0 }, { number: 0, of: 1 }, { number: 2, of: 2 }, { number: -1, of: 2 }, { number: 0, of: 4_097 }, { number: 0, of: 2, more: 1 }]) {
      assert.throws(() => decodeMessage(part(bad)), { name: 'ProtocolError' }, JSON.stringify(bad))
    }
  })

  it('are refused with a key missing, added, or of another type', () => {
    for (const message of samples) {
      for (const key of Object.keys(message)) {
        const without = Object.fromEntries(Object.entries(message).filter(([name]) => name !== key))
        assert.throws(() => decodeMessage(encode(without)), { name: 'ProtocolError' }, `${message.type} without ${key}`)
        for (const value of [null, -1, 1.5, '\n', [[1]], {}]) {
          if (key === 'labels' && JSON.stringify(value) === '{}') continue
          assert.throws(() => decodeMessage(encode({ ...message, [key]: value })), { name: 'ProtocolError' }, `${message.type} with ${key} = ${JSON.stringify(value)}`)
        }
      }
      assert.throws(() => decodeMessage(encode({ ...message, extra: 1 })), { name: 'ProtocolError' })
    }
  })

  it('are refused beyond their bounds', () => {
    const claims = (change: Partial<ModelClaim>): unknown => ({ ...state, models: [{ ...claim, ...change }] })
    const bad: unknown[] = [
      { ...samples[3], shard: 10 },
      { ...samples[3], shards: 0 },
      { ...samples[3], bytes: 2 ** 29 },
      { ...samples[8], shards: [] },
      { ...samples[8], shards: [1, 1] },
      { ...samples[8], shards: Array.from({ length: 257 }, (_, i) => i) },
      { ...samples[8], nonce: new Uint8Array(8) },
      { ...samples[9], digests: [new Uint8Array(31)] },
      { ...state, labels: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`l${i}`, 'x'])) },
      { ...state, labels: { a: 'x'.repeat(65) } },
      { ...state, models: [claim, claim] },
      claims({ committed: Uint8Array.of(255) }),
      claims({ committed: Uint8Array.of(255, 4) }),
      claims({ committed: Uint8Array.of(1, 1, 0) }),
      claims({ shards: 70_000 }),
      claims({ members: [`${peer}x`] }),
      claims({ policies: [new Uint8Array(1_025)] }),
      claims({ model: model.toUpperCase() }),
      { type: 'constructor' }, { type: 'nothing' }, [], 5
    ]
    for (const [at, value] of bad.entries()) assert.throws(() => decodeMessage(encode(value)), { name: 'ProtocolError' }, `number ${at}`)
    assert.throws(() => decodeMessage(new Uint8Array(2 ** 20 + 1)), { name: 'ProtocolError' })
    assert.throws(() => decodeMessage(Uint8Array.of(0x9f, 0xff)), { name: 'ProtocolError' })
    assert.throws(() => decodeMessage(new Uint8Array(100_000).fill(0x81)), { name: 'ProtocolError' })
  })

  it('are whole numbers on the wire, and never too large', () => {
    assert.deepEqual(decodeMessage(encodeMessage({ type: 'seen', peer, ageMs: 1.7 })), { type: 'seen', peer, ageMs: 1 })
    const long = decodeMessage(encodeMessage({ ...state, models: [{ ...claim, policies: Array.from({ length: 40 }, () => Uint8Array.of(1)) }] }))
    assert.equal(long.type === 'state' ? long.models[0]?.policies.length : undefined, 16)
    const many = Array.from({ length: 1_100 }, () => ({ ...claim, policies: [new Uint8Array(1_000)] }))
    assert.throws(() => encodeMessage({ ...state, models: many } as ReplicaMessage), RangeError)
  })

  it('say which labels go', () => {
    checkLabels({ zone: 'eu-1', rack: 'r1', host: 'h1' })
    assert.throws(() => { checkLabels({ ['x'.repeat(65)]: 'a' }) }, RangeError)
  })
})
